//! A look-up under way, and all who wait for it.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Instant;

use super::Outcome;

/// What a look-up came to, and until when it holds.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) outcome: Outcome,
    pub(super) expires: Instant,
}

/// A look-up under way.
pub(super) struct Flight {
    /// When it was asked for.
    pub(super) since: Instant,
    found: RefCell<Option<Found>>,
    waiters: RefCell<Vec<Waker>>,
}

impl Flight {
    pub(super) fn new(since: Instant) -> Rc<Self> {
        Rc::new(Flight { since, found: RefCell::default(), waiters: RefCell::default() })
    }

    /// Gives the result to all who wait.
    pub(super) fn land(&self, found: Found) {
        *self.found.borrow_mut() = Some(found);
        for waker in self.waiters.take() {
            waker.wake();
        }
    }

    /// Waits for the result.
    pub(super) async fn landed(self: Rc<Self>) -> Found {
        let mut place = None;
        poll_fn(|cx| {
            if let Some(found) = &*self.found.borrow() {
                return Poll::Ready(found.clone());
            }
            let mut waiters = self.waiters.borrow_mut();
            match place {
                None => {
                    place = Some(waiters.len());
                    waiters.push(cx.waker().clone());
                }
                Some(index) => waiters[index].clone_from(cx.waker()),
            }
            Poll::Pending
        })
        .await
    }
}
