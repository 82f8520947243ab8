//! A timer that is set again and again: cheaper than one made for each wait.

use std::future::pending;
use std::pin::Pin;

use tokio::time::{Instant, Sleep, sleep_until};

/// Rings at the moment that was set last.
#[derive(Default)]
pub(crate) struct Alarm(Option<(Instant, Pin<Box<Sleep>>)>);

impl Alarm {
    /// Sets it, or turns it off.
    pub(crate) fn set(&mut self, at: Option<Instant>) {
        match (&mut self.0, at) {
            (Some((set, _)), Some(at)) if *set == at => {}
            (Some((set, sleep)), Some(at)) => {
                *set = at;
                sleep.as_mut().reset(at);
            }
            (own, at) => *own = at.map(|at| (at, Box::pin(sleep_until(at)))),
        }
    }

    /// Whether it will ring.
    pub(crate) fn is_set(&self) -> bool {
        self.0.is_some()
    }

    /// Waits for it; then it is off.
    ///
    /// # Cancel safety
    /// Dropped before it is done, it rings the next time.
    pub(crate) async fn rings(&mut self) {
        match &mut self.0 {
            Some((_, sleep)) => sleep.as_mut().await,
            None => pending().await,
        }
        self.0 = None;
    }
}
