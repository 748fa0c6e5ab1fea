//! Terms on which few messages are taken: extensions of MAIL that say how a
//! message is to be kept, timed, ordered and sent on, and what its session was.
//! Part of the envelope, stored behind it only where there are any.
//!
//! RFC 2852 (DELIVERBY), RFC 3030 (BINARYMIME), RFC 4865 (FUTURERELEASE), RFC
//! 4954 (AUTH), RFC 6710 (MT-PRIORITY), RFC 8689 (REQUIRETLS).

use crate::base::clock::UnixMillis;

/// What is done when the time of a message is up (RFC 2852, section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
#[rkyv(derive(Debug))]
pub enum ByMode {
    /// It is returned.
    Return,
    /// The sender is told, and attempts go on.
    Notify,
}

/// BY, with its time made absolute at arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
#[rkyv(derive(Debug))]
pub struct DeliverBy {
    /// When the time is up, in milliseconds since the epoch.
    pub at_ms: u64,
    /// What is done then.
    pub mode: ByMode,
    /// Each relay on the way is to be reported.
    pub trace: bool,
}

impl DeliverBy {
    /// When the time is up.
    pub fn at(&self) -> UnixMillis {
        UnixMillis(self.at_ms)
    }
}

/// The terms of one message.
#[derive(
    Clone, Debug, Default, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize,
)]
#[rkyv(derive(Debug))]
pub struct Terms {
    /// `BODY=BINARYMIME`: the body promises nothing about lines.
    pub binary: bool,
    /// The stored body has a CRLF before its terminator that is none of the message.
    /// Every binary body has it, whatever it ends with: the envelope of a long one is
    /// written before its end is known.
    pub no_final_crlf: bool,
    /// BY.
    pub deliver_by: Option<DeliverBy>,
    /// HOLDFOR or HOLDUNTIL: no attempt before, in milliseconds since the epoch.
    pub hold_until_ms: Option<u64>,
    /// MT-PRIORITY, from -9 to 9.
    pub priority: i8,
    /// REQUIRETLS.
    pub require_tls: bool,
    /// The header field `TLS-Required: No` stands in the message.
    pub tls_optional: bool,
    /// AUTH of MAIL: the mailbox of who submitted the message, decoded; empty for
    /// `<>`.
    pub auth: Option<String>,
    /// Who authenticated. Not passed on.
    pub user: Option<String>,
    /// Version and cipher of TLS, if the message came over it.
    pub secured: Option<String>,
}

impl Terms {
    /// True when nothing differs from what holds for ordinary mail.
    pub fn is_empty(&self) -> bool {
        *self == Terms::default()
    }

    /// No attempt is made before.
    pub fn hold_until(&self) -> Option<UnixMillis> {
        self.hold_until_ms.map(UnixMillis)
    }

    /// Until when it is kept: as its sender wants, but not past the time when it is
    /// to come back.
    pub fn kept_until(&self) -> Option<UnixMillis> {
        let back = self.deliver_by.filter(|by| by.mode == ByMode::Return).map(|by| by.at_ms);
        self.hold_until_ms.map(|at| UnixMillis(at.min(back.unwrap_or(at))))
    }
}

impl ArchivedTerms {
    /// As [`Terms::kept_until`].
    pub fn kept_until(&self) -> Option<UnixMillis> {
        let by = self.deliver_by.as_ref();
        let back = by.filter(|by| matches!(by.mode, ArchivedByMode::Return));
        let back = back.map(|by| by.at_ms.to_native());
        let at = self.hold_until_ms.as_ref()?.to_native();
        Some(UnixMillis(at.min(back.unwrap_or(at))))
    }
}
