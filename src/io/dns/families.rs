//! The addresses of a host: those of both families as one answer.

use std::future::{Future, poll_fn};
use std::net::IpAddr;
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::Duration;

use smallvec::SmallVec;

use super::super::clock::monotonic;
use super::super::executor::within;
use super::flight::Found;
use super::resolver::MAKESHIFT;
use super::{DnsFailure, Lookup, Outcome};

/// How long the addresses of one family wait for those of the other.
const PATIENCE: Duration = Duration::from_secs(1);

/// Waits for both, but if one has addresses not long for the other.
pub(super) async fn both(
    v4: impl Future<Output = Found>,
    v6: impl Future<Output = Found>,
) -> Lookup<Vec<IpAddr>> {
    let (v4, v6) = wait(v4, v6).await;
    let late = || {
        let text = format!("no answer within {} s of the other", PATIENCE.as_secs());
        let outcome = Outcome::Nothing(DnsFailure::Trouble(text.into()));
        Found { outcome, expires: monotonic() + MAKESHIFT }
    };
    join(v4.unwrap_or_else(late), v6.unwrap_or_else(late))
}

/// Addresses of both families as one answer. What is certain needs both to be.
fn join(v4: Found, v6: Found) -> Lookup<Vec<IpAddr>> {
    use DnsFailure::{NoSuchDomain, Trouble};
    let expires = v4.expires.min(v6.expires);
    let mut addresses = Vec::new();
    let mut failures = SmallVec::<[DnsFailure; 2]>::new();
    for (found, family) in [(v4, "IPv4"), (v6, "IPv6")] {
        match found.outcome {
            Outcome::Addresses(some) => addresses.extend(some),
            Outcome::Nothing(Trouble(text)) => {
                failures.push(Trouble(format!("{family} addresses: {text}").into()));
            }
            Outcome::Nothing(failure) => failures.push(failure),
            Outcome::Mx(_) => unreachable!("kinds are kept apart"),
        }
    }
    let trouble = failures.iter().find_map(|failure| match failure {
        Trouble(text) => Some(text.clone()),
        _ => None,
    });
    if !addresses.is_empty() {
        return Lookup { result: Ok(addresses), expires, missing: trouble };
    }
    let failure = match trouble {
        Some(text) => Trouble(text),
        None if failures.iter().all(|failure| *failure == NoSuchDomain) => NoSuchDomain,
        None => DnsFailure::NoData,
    };
    Lookup { result: Err(failure), expires, missing: None }
}

/// Both results; or one with addresses, and nothing of the other if that takes
/// too long.
async fn wait(
    v4: impl Future<Output = Found>,
    v6: impl Future<Output = Found>,
) -> (Option<Found>, Option<Found>) {
    let (mut v4, mut v6) = (pin!(v4), pin!(v6));
    let (mut got_v4, mut got_v6) = (None, None);
    let has_addresses = |found: &Option<Found>| {
        found.as_ref().is_some_and(|found| matches!(found.outcome, Outcome::Addresses(_)))
    };
    let mut poll = |cx: &mut Context<'_>, will_wait: bool| {
        if got_v4.is_none()
            && let Poll::Ready(found) = v4.as_mut().poll(cx)
        {
            got_v4 = Some(found);
        }
        if got_v6.is_none()
            && let Poll::Ready(found) = v6.as_mut().poll(cx)
        {
            got_v6 = Some(found);
        }
        let is_done = got_v4.is_some() && got_v6.is_some();
        let is_enough = !will_wait && (has_addresses(&got_v4) || has_addresses(&got_v6));
        match is_done || is_enough {
            true => Poll::Ready(is_done),
            false => Poll::Pending,
        }
    };
    if !poll_fn(|cx| poll(cx, false)).await {
        within(PATIENCE, poll_fn(|cx| poll(cx, true))).await;
    }
    (got_v4, got_v6)
}
