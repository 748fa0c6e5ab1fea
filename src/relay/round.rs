//! One round over the hosts of a site: a connection to the first that takes one, over
//! which the lane delivers. A message that requires TLS and may not go to that host
//! (RFC 8689, section 4.2.1) ends the connection, and goes on to the next host in its
//! place, until one may have it or there are no more. What else waits uses whichever
//! connection there is.

use std::rc::Rc;

use super::Core;
use super::attempt::{settle_all, trouble};
use super::connection::Connection;
use super::lane::Opens;
use super::reach::{Search, Target, Unreachable, sleep_until};
use super::station::Station;
use crate::base::{Disposition, EnhancedCode};
use crate::io::clock;
use crate::io::store::Store;
use crate::policy::governor::Failure;

/// A message that requires TLS, on its way to a host that may have it. Its handle is
/// with the lane.
pub(super) struct Stray {
    /// By which the lane knows the handle.
    pub(super) number: u64,
    /// Hosts that may not have it.
    hosts: Vec<Target>,
    /// What stands against one of them: what may change, if there is such.
    said: Failure,
}

impl Stray {
    /// One that a first host may not have; `said` is why.
    pub(super) fn new(number: u64, target: &Target, said: Failure) -> Self {
        let mut stray = Stray { number, hosts: Vec::new(), said: said.clone() };
        stray.turned_away(target, said);
        stray
    }

    /// This host may not have it either.
    pub(super) fn turned_away(&mut self, target: &Target, said: Failure) {
        tracing::info!(
            target: "relay",
            host = %said.host,
            "passed over for a message that requires TLS: {}", said.reply
        );
        self.hosts.push(target.clone());
        if disposition(&self.said) == Disposition::Failed {
            self.said = said;
        }
    }
}

/// Opens a connection to the first host of the site that takes one, delivers
/// what the lane has, and closes it; then to another host, if there is a message for
/// one.
pub(super) async fn run<S: Store>(core: Rc<Core<S>>, station: Rc<Station>) {
    let mut search = Search::new(Rc::clone(&core), Rc::clone(&station));
    let mut stray: Option<Stray> = None;
    let is_over =
        |stray: &Option<Stray>| stray.as_ref().is_some_and(|stray| is_over(&core, &station, stray));
    loop {
        if is_over(&stray) {
            return;
        }
        let found = search.next().await;
        // That may have taken long.
        if is_over(&stray) {
            return;
        }
        let (stream, target) = match found {
            Ok(found) => found,
            Err(unreachable) => {
                return match stray {
                    Some(stray) => no_host_for(&core, &station, stray, unreachable),
                    None => give_up(&core, &station, unreachable),
                };
            }
        };
        core.counters.borrow_mut().outbound_connections += 1;
        match core.open(&station, stream, &target).await {
            Ok(opened) => {
                if let Some(address) = target.address() {
                    station.hosts.borrow_mut().worked(address);
                }
                let connection = Connection::new(&core, &station, target, opened);
                let opens = if stray.is_some() { Opens::Anew } else { Opens::First };
                station.lane.connected(opens, clock::monotonic());
                core.connections.set(core.connections.get() + 1);
                stray = connection.deliver(stray.take()).await;
                core.connections.set(core.connections.get() - 1);
                core.check_drained();
                let Some(stray) = &stray else { return };
                if stray.hosts.len() == 1 {
                    // What was found when the connection was opened may be long past.
                    search = Search::new(Rc::clone(&core), Rc::clone(&station));
                }
                search.pass_over(&stray.hosts);
                if search.has_more() {
                    sleep_until(station.lane.reserve_connection(clock::monotonic())).await;
                }
            }
            // In the clear it may be better.
            Err(setback) if setback.only_tls => search.again(target),
            Err(setback) => {
                core.counters.borrow_mut().outbound_connect_failures += 1;
                search.failed(&target, setback.failure);
            }
        }
    }
}

/// True when no host is looked for any more for this one: its message has gone home, or
/// the server is ending.
fn is_over<S: Store>(core: &Rc<Core<S>>, station: &Rc<Station>, stray: &Stray) -> bool {
    if !core.stopping() && station.lane.is_aside(stray.number) {
        return false;
    }
    station.lane.abandoned(Opens::Anew, clock::monotonic());
    core.kick(station);
    true
}

/// No host of the site could be reached. The message that has waited longest
/// has had its attempt; the others wait for a better time, if there is one.
fn give_up<S: Store>(core: &Rc<Core<S>>, station: &Rc<Station>, unreachable: Unreachable) {
    let lane = &station.lane;
    let (failure, disposition) = match unreachable {
        Unreachable::Now(failure) => (failure, Disposition::Deferred),
        Unreachable::Ever(reply) => (Failure::ours(reply), Disposition::Failed),
    };
    let (now, wall) = (clock::monotonic(), clock::wall());
    let mut waiting = if disposition == Disposition::Failed {
        lane.unreachable(now)
    } else {
        lane.connect_failed(failure.clone(), now)
    };
    let others = match disposition {
        Disposition::Failed => Vec::new(),
        _ => waiting.split_off(waiting.len().min(1)),
    };
    for handle in waiting {
        core.settled(settle_all(handle, disposition, &failure.reply, &failure.host, wall));
    }
    others.into_iter().for_each(|handle| core.release(handle));
    core.kick(station);
}

/// The hosts that could be reached may not have the message. It waits if another one
/// may be there another time, and comes back if not; and so does all that waits and
/// requires TLS, which would find the same.
fn no_host_for<S: Store>(
    core: &Rc<Core<S>>,
    station: &Rc<Station>,
    stray: Stray,
    unreachable: Unreachable,
) {
    let lane = &station.lane;
    lane.abandoned(Opens::Anew, clock::monotonic());
    if let Some(handle) = lane.fetch(stray.number) {
        let said = match unreachable {
            Unreachable::Now(missed) => missed_one(&missed, &stray.said),
            Unreachable::Ever(_) => stray.said,
        };
        let (disposition, wall) = (disposition(&said), clock::wall());
        let others = lane.take_out(|handle| handle.requires_tls());
        for handle in std::iter::once(handle).chain(others) {
            core.settled(settle_all(handle, disposition, &said.reply, &said.host, wall));
        }
    }
    core.kick(station);
}

/// Why a message waits for a host that could not be reached although another one
/// could: in words that name both. The message waits, so the class of the code is 4.
fn missed_one(missed: &Failure, said: &Failure) -> Failure {
    let is_for_now = |enhanced: &EnhancedCode| enhanced.0 == 4;
    let enhanced = missed.reply.enhanced.filter(is_for_now).unwrap_or(EnhancedCode(4, 4, 1));
    let by = match missed.host.as_str() {
        "" => String::new(),
        host => format!("{host}: "),
    };
    let text = format!("{by}{}; {}: {}", missed.reply.text, said.host, said.reply.text);
    Failure::ours(trouble(enhanced, text))
}

fn disposition(said: &Failure) -> Disposition {
    match said.reply.code / 100 {
        5 => Disposition::Failed,
        _ => Disposition::Deferred,
    }
}
