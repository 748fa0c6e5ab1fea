//! Whether TLS is used towards a host, and what its certificate must be: one pure
//! function of what is configured and what is known. Asked by `relay` before each
//! connection and by `ringpost route`, so that both say the same; what publishes a
//! domain's own wishes will be one more fact here.
//!
//! [`plan`] decides before the connection, [`Plan::upon`] when the server has said
//! what it offers, [`admits`] whether a message that must not go without TLS
//! (REQUIRETLS, RFC 8689) may go over a connection as it has turned out.
//!
//! * Opportunistic TLS (RFC 7435) takes any certificate: whoever can forge one can
//!   also take STARTTLS out. A host whose TLS failed a while ago is spoken to in the
//!   clear, or mail for it would never arrive.
//! * What an operator demands is never given up: not after a failure, not for a
//!   message that says `TLS-Required: No`, which is about demands of the
//!   recipient's domain (RFC 8689, section 3).
//! * Credentials never go in the clear.

use crate::base::{EnhancedCode, Reply};
pub use crate::config::Tls;

/// What is known before a connection is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// What the route or `[delivery]` says.
    pub mode: Tls,
    /// TLS begins with the first octet, without STARTTLS.
    pub is_implicit: bool,
    /// The next hop is a socket on this machine.
    pub is_local: bool,
    /// A handshake with the host failed lately.
    pub failed_lately: bool,
    /// The server is to be authenticated to.
    pub has_login: bool,
}

/// What a certificate must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Anybody's.
    Any,
    /// From a trusted authority, for the host's name.
    Verified,
}

/// What is done about TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Nothing, for this reason.
    Plain(Why),
    /// TLS if the server offers it; in the clear if not, or if that fails.
    Try,
    /// TLS by STARTTLS, or no mail.
    Demand(Trust),
    /// TLS from the first octet, or no mail.
    Implicit(Trust),
    /// No mail: what is wanted cannot be.
    Impossible(&'static str),
}

/// Why mail goes in the clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It is configured so.
    Off,
    /// It does not leave the machine.
    Local,
    /// TLS has failed with this host.
    FailedLately,
}

/// What to do when the server has said what it offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Ask for TLS.
    StartTls,
    /// Go on as it is.
    GoOn,
    /// Leave, for this reason.
    Leave(&'static str),
}

/// The plan that follows from the facts.
pub fn plan(facts: &Facts) -> Plan {
    let trust = if facts.mode == Tls::Verified { Trust::Verified } else { Trust::Any };
    match facts.mode {
        _ if facts.is_local && facts.has_login => {
            Plan::Impossible("credentials are not sent without TLS")
        }
        _ if facts.is_local => Plan::Plain(Why::Local),
        _ if facts.is_implicit => Plan::Implicit(trust),
        Tls::Off if facts.has_login => Plan::Impossible("credentials are not sent without TLS"),
        Tls::Off => Plan::Plain(Why::Off),
        Tls::Optional if facts.has_login => Plan::Demand(trust),
        Tls::Optional if facts.failed_lately => Plan::Plain(Why::FailedLately),
        Tls::Optional => Plan::Try,
        Tls::Required | Tls::Verified => Plan::Demand(trust),
    }
}

impl Plan {
    /// What to do in the clear, now that it is known whether STARTTLS is offered.
    pub fn upon(self, is_offered: bool) -> Step {
        match (self, is_offered) {
            (Plan::Try | Plan::Demand(_), true) => Step::StartTls,
            (Plan::Demand(_), false) => Step::Leave("it does not offer TLS, which is required"),
            (Plan::Impossible(why), _) => Step::Leave(why),
            (Plan::Plain(_) | Plan::Try | Plan::Implicit(_), _) => Step::GoOn,
        }
    }

    /// True where no mail may go in the clear.
    pub fn is_strict(self) -> bool {
        !matches!(self, Plan::Plain(_) | Plan::Try)
    }

    /// What the certificate must be, where there is TLS.
    pub fn trust(self) -> Trust {
        match self {
            Plan::Demand(trust) | Plan::Implicit(trust) => trust,
            Plan::Plain(_) | Plan::Try | Plan::Impossible(_) => Trust::Any,
        }
    }

    /// In words, for an operator: "mail goes ...".
    pub fn text(self) -> &'static str {
        match self {
            Plan::Plain(Why::Off) => "in the clear, as it is configured",
            Plan::Plain(Why::Local) => "over a socket of this machine, without TLS",
            Plan::Plain(Why::FailedLately) => {
                "in the clear for now, since a TLS handshake with the host has failed"
            }
            Plan::Try => {
                "over TLS where the host offers it, with any certificate, else in the clear"
            }
            Plan::Demand(Trust::Any) => "over TLS only, with any certificate",
            Plan::Demand(Trust::Verified) => {
                "over TLS only, with a certificate for the host from a trusted authority"
            }
            Plan::Implicit(Trust::Any) => {
                "over TLS from the first octet on only, with any certificate"
            }
            Plan::Implicit(Trust::Verified) => {
                "over TLS from the first octet on only, with a certificate for the host from a \
                 trusted authority"
            }
            Plan::Impossible(_) => "nowhere, since credentials are not sent without TLS",
        }
    }
}

/// A connection as it has turned out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// TLS is on.
    pub is_secured: bool,
    /// The certificate is one for the host, from a trusted authority.
    pub is_verified: bool,
    /// The host's name is not only DNS' word: an operator wrote it.
    pub is_name_trusted: bool,
    /// TLS would have been tried, had it not failed lately.
    pub failed_lately: bool,
    /// REQUIRETLS was offered behind the handshake.
    pub offers_require_tls: bool,
}

/// Whether a message with REQUIRETLS may go over this connection (RFC 8689,
/// section 4.2.1). One without a sender is not asked about: a report would be lost
/// (section 5).
///
/// # Errors
/// Why not, as the reply that its sender is told.
pub fn admits(outcome: &Outcome) -> Result<(), Reply> {
    let (code, enhanced, text) = match outcome {
        Outcome { is_secured: false, failed_lately: true, .. } => {
            (451, EnhancedCode(4, 7, 10), "REQUIRETLS: a TLS handshake with it has failed lately")
        }
        Outcome { is_secured: false, .. } => {
            (550, EnhancedCode(5, 7, 10), "REQUIRETLS: the connection to it has no TLS")
        }
        Outcome { is_name_trusted: false, .. } => (
            550,
            EnhancedCode(5, 7, 30),
            "REQUIRETLS: that it is a mail host of the domain is not confirmed",
        ),
        Outcome { is_verified: false, .. } => {
            (550, EnhancedCode(5, 7, 10), "REQUIRETLS: its certificate cannot be verified")
        }
        Outcome { offers_require_tls: false, .. } => {
            (550, EnhancedCode(5, 7, 30), "REQUIRETLS: it does not offer to require TLS in turn")
        }
        _ => return Ok(()),
    };
    Err(Reply::new(code, enhanced, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FACTS: Facts = Facts {
        mode: Tls::Optional,
        is_implicit: false,
        is_local: false,
        failed_lately: false,
        has_login: false,
    };
    const MODES: [Tls; 4] = [Tls::Off, Tls::Optional, Tls::Required, Tls::Verified];

    /// Every combination of facts.
    fn all() -> Vec<Facts> {
        let bits = 0..16_u8;
        let of = |mode| {
            bits.clone().map(move |bits| Facts {
                mode,
                is_implicit: bits & 1 != 0,
                is_local: bits & 2 != 0,
                failed_lately: bits & 4 != 0,
                has_login: bits & 8 != 0,
            })
        };
        MODES.into_iter().flat_map(of).collect()
    }

    #[test]
    fn the_plans_of_an_ordinary_host() {
        use {Plan::*, Trust::*, Why::*};
        // The mode; the plan for it, after a failed handshake, with credentials, and
        // with TLS from the first octet on.
        let impossible = Impossible("credentials are not sent without TLS");
        for (mode, usual, after_failure, with_login, implicit) in [
            (Tls::Off, Plain(Off), Plain(Off), impossible, Implicit(Any)),
            (Tls::Optional, Try, Plain(FailedLately), Demand(Any), Implicit(Any)),
            (Tls::Required, Demand(Any), Demand(Any), Demand(Any), Implicit(Any)),
            (
                Tls::Verified,
                Demand(Verified),
                Demand(Verified),
                Demand(Verified),
                Implicit(Verified),
            ),
        ] {
            let facts = Facts { mode, ..FACTS };
            assert_eq!(plan(&facts), usual, "{mode:?}");
            assert_eq!(plan(&Facts { failed_lately: true, ..facts }), after_failure, "{mode:?}");
            assert_eq!(plan(&Facts { has_login: true, ..facts }), with_login, "{mode:?}");
            assert_eq!(plan(&Facts { is_implicit: true, ..facts }), implicit, "{mode:?}");
        }
    }

    #[test]
    fn whatever_the_facts_nothing_that_is_demanded_is_given_up() {
        for facts in all() {
            let plan = plan(&facts);
            let stripped = plan.upon(false);
            if facts.has_login {
                assert!(plan.is_strict(), "{facts:?}");
            }
            if matches!(facts.mode, Tls::Required | Tls::Verified) && !facts.is_local {
                assert!(plan.is_strict(), "{facts:?}");
                let is_verified = facts.mode == Tls::Verified;
                assert_eq!(plan.trust() == Trust::Verified, is_verified, "{facts:?}");
            }
            let is_implicit = matches!(plan, Plan::Implicit(_));
            let leaves = matches!(stripped, Step::Leave(_));
            assert_eq!(leaves, plan.is_strict() && !is_implicit, "{facts:?}");
            // A local socket needs none, and no failure can be of TLS there.
            if facts.is_local && !facts.has_login {
                assert_eq!(plan, Plan::Plain(Why::Local));
            }
            assert!(!plan.text().is_empty());
        }
    }

    #[test]
    fn tls_is_asked_for_where_it_is_offered_and_wanted() {
        assert_eq!(Plan::Try.upon(true), Step::StartTls);
        assert_eq!(Plan::Try.upon(false), Step::GoOn);
        assert_eq!(Plan::Demand(Trust::Any).upon(true), Step::StartTls);
        assert_eq!(Plan::Plain(Why::Off).upon(true), Step::GoOn);
        assert_eq!(Plan::Plain(Why::FailedLately).upon(true), Step::GoOn);
        assert_eq!(Plan::Implicit(Trust::Any).upon(true), Step::GoOn);
    }

    #[test]
    fn a_message_that_requires_tls_goes_only_where_all_is_confirmed() {
        let well = Outcome {
            is_secured: true,
            is_verified: true,
            is_name_trusted: true,
            failed_lately: false,
            offers_require_tls: true,
        };
        assert_eq!(admits(&well), Ok(()));
        for (outcome, code) in [
            (Outcome { is_secured: false, ..well }, "550 5.7.10"),
            (Outcome { is_secured: false, failed_lately: true, ..well }, "451 4.7.10"),
            (Outcome { is_name_trusted: false, ..well }, "550 5.7.30"),
            (Outcome { is_verified: false, ..well }, "550 5.7.10"),
            (Outcome { offers_require_tls: false, ..well }, "550 5.7.30"),
        ] {
            let reply = admits(&outcome).unwrap_err().to_string();
            assert!(reply.starts_with(code), "{reply}");
        }
    }
}
