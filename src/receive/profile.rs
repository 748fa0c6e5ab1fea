//! What the sessions of one listener have in common, made from the configuration
//! when the server starts and at each reload.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use std::time::Duration;

use ipnet::IpNet;

use crate::base::Mechanisms;
use crate::config::{Ahead, Config, Fronts, Listener, ListenerKind, ListenerTls};
use crate::proto::smtp::server::{Kind, Offers, Settings, Spec};

/// One `[[listener]]`, as its sessions need it.
pub struct Profile {
    /// What the engine needs. Made for each shard, so that no two cores count
    /// references to the same one.
    pub settings: Arc<Settings>,
    /// How TLS is used.
    pub tls: ListenerTls,
    /// Who is believed about other clients.
    pub fronts: Fronts,
    /// How long the greeting is held back.
    pub greet_delay: Duration,
    /// Whether a client that speaks before the greeting is turned away.
    pub strict: bool,
}

/// Whether one of `nets` has the address. An IPv4 client that came in through an
/// IPv6 socket is an IPv4 client.
pub(super) fn holds(nets: &[IpNet], address: IpAddr) -> bool {
    let address = address.to_canonical();
    nets.iter().any(|net| net.contains(&address))
}

impl Profile {
    /// The profiles of all listeners, in the order of the configuration.
    pub fn all(config: &Config) -> Vec<Rc<Profile>> {
        config.listeners.iter().map(|listener| Rc::new(Profile::new(config, listener))).collect()
    }

    fn new(config: &Config, listener: &Listener) -> Profile {
        let limits = &config.limits;
        let spec = Spec {
            hostname: config.hostname.clone(),
            kind: match listener.kind {
                ListenerKind::Relay => Kind::Relay,
                ListenerKind::Submission | ListenerKind::Submissions => Kind::Submission,
                ListenerKind::Lmtp => Kind::Lmtp,
            },
            message_size: limits.message_size,
            recipients_max: limits.recipients,
            errors_max: limits.errors_per_session,
            tls_required: listener.tls == ListenerTls::Required,
            idle_commands_max: limits.commands_without_mail,
            strict: limits.commands_ahead == Ahead::Refuse,
            offers: offers(config, listener),
        };
        Profile {
            strict: spec.strict,
            tls: listener.tls,
            settings: Arc::new(Settings::new(spec)),
            fronts: listener.fronts.clone(),
            greet_delay: listener.greet_delay,
        }
    }
}

/// What a listener offers: everything but what its operator took out.
fn offers(config: &Config, listener: &Listener) -> Offers {
    let hold_max = u32::try_from(config.queue.hold_max.as_secs()).unwrap_or(u32::MAX);
    Offers {
        pipelining: listener.offers("PIPELINING"),
        eight_bit: listener.offers("8BITMIME"),
        smtputf8: listener.offers("SMTPUTF8"),
        dsn: listener.offers("DSN"),
        starttls: matches!(listener.tls, ListenerTls::Optional | ListenerTls::Required),
        chunking: listener.offers("CHUNKING"),
        binarymime: listener.offers("BINARYMIME"),
        deliver_by: listener.offers("DELIVERBY"),
        future_release: listener.offers("FUTURERELEASE").then_some(hold_max),
        mt_priority: listener.offers("MT-PRIORITY"),
        requiretls: listener.offers("REQUIRETLS"),
        limits: listener.offers("LIMITS"),
        etrn: listener.offers("ETRN"),
        vrfy: listener.vrfy,
        expn: listener.expn,
        auth: if listener.authenticates() { config.auth.mechanisms } else { Mechanisms::NONE },
    }
}
