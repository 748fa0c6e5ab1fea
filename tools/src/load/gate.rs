//! How many connections of one core may be on their way at a time (`--opening`).
//!
//! A server with a short queue of connections that wait to be accepted loses the
//! rest of a hundred that come at once: the kernel lets the client believe that it
//! is connected, and forgets it. A client that speaks first would be helped by its
//! own repetition; one that waits for a greeting waits in vain.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

/// Lets so many through at a time, those that wait in the order of their coming.
#[derive(Clone)]
pub struct Gate(Rc<RefCell<Inner>>);

struct Inner {
    free: u32,
    /// Who waits, by number; those that were called are not in it any more.
    waiting: VecDeque<(u64, Waker)>,
    /// Calls that nobody has answered yet.
    called: Vec<u64>,
    next: u64,
}

/// The right to be on the way, until it is dropped.
pub struct Turn(Gate);

impl Gate {
    /// Lets `most` through at a time.
    pub fn new(most: u32) -> Self {
        let (waiting, called) = (VecDeque::new(), Vec::new());
        Gate(Rc::new(RefCell::new(Inner { free: most, waiting, called, next: 0 })))
    }

    /// Waits for a turn.
    pub async fn enter(&self) -> Turn {
        let mut number = None;
        poll_fn(|context| {
            let mut inner = self.0.borrow_mut();
            match number {
                None if inner.free > 0 => {
                    inner.free -= 1;
                    Poll::Ready(())
                }
                None => {
                    let mine = inner.next;
                    inner.next += 1;
                    number = Some(mine);
                    inner.waiting.push_back((mine, context.waker().clone()));
                    Poll::Pending
                }
                Some(mine) => match inner.called.iter().position(|one| *one == mine) {
                    Some(at) => {
                        inner.called.swap_remove(at);
                        Poll::Ready(())
                    }
                    None => Poll::Pending,
                },
            }
        })
        .await;
        Turn(self.clone())
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut inner = self.0.0.borrow_mut();
        match inner.waiting.pop_front() {
            Some((number, waker)) => {
                inner.called.push(number);
                drop(inner);
                waker.wake();
            }
            None => inner.free += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use std::task::Context;

    #[test]
    fn turns_are_given_in_order_and_given_back() {
        let gate = Gate::new(1);
        let mut context = Context::from_waker(Waker::noop());
        let (mut first, mut second, mut third) =
            (pin!(gate.enter()), pin!(gate.enter()), pin!(gate.enter()));
        let Poll::Ready(turn) = first.as_mut().poll(&mut context) else { panic!("it is free") };
        assert!(second.as_mut().poll(&mut context).is_pending());
        assert!(third.as_mut().poll(&mut context).is_pending());
        drop(turn);
        assert!(third.as_mut().poll(&mut context).is_pending(), "it is not its turn");
        let Poll::Ready(turn) = second.as_mut().poll(&mut context) else { panic!("called") };
        drop(turn);
        assert!(third.as_mut().poll(&mut context).is_ready());
        assert_eq!(gate.0.borrow().free, 1, "the last turn was given back");
    }
}
