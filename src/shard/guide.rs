//! What the desk asks of the relay: where mail goes, where it stands, and that it
//! goes now.

use crate::base::Outcome;
use crate::io::store::Store;
use crate::queue::PendingRecipient;
use crate::relay::{Relay, Standing, Way};

/// Who knows about destinations.
pub(super) trait Guide {
    /// Where mail for an address goes.
    fn way(&self, address: &str) -> Way;
    /// Where a recipient stands.
    fn standing(
        &self,
        address: &str,
        pending: &PendingRecipient,
        last: Option<&Outcome>,
    ) -> Standing;
    /// The site of an address is not to be left alone any longer.
    fn hurry(&self, address: &str);
}

impl<S: Store> Guide for Relay<S> {
    fn way(&self, address: &str) -> Way {
        Relay::way(self, address)
    }

    fn standing(
        &self,
        address: &str,
        pending: &PendingRecipient,
        last: Option<&Outcome>,
    ) -> Standing {
        Relay::standing(self, address, pending, last)
    }

    fn hurry(&self, address: &str) {
        Relay::hurry(self, address);
    }
}
