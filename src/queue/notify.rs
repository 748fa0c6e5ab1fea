//! A signal from many tasks of one executor to one that waits.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::{Poll, Waker};

/// Remembers one signal until it is waited for.
#[derive(Default)]
pub(super) struct Notify {
    signalled: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Notify {
    /// Wakes the waiter, or the next one at once.
    pub(super) fn notify(&self) {
        if !self.signalled.replace(true)
            && let Some(waker) = self.waker.take()
        {
            waker.wake();
        }
    }

    /// Waits for a signal.
    pub(super) async fn wait(&self) {
        poll_fn(|cx| {
            if self.signalled.take() {
                return Poll::Ready(());
            }
            *self.waker.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}
