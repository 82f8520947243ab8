//! What is thrown once, for all who look.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio_util::sync::CancellationToken;

/// A token that is looked at for every event: a load, where the token itself takes a lock.
#[derive(Clone, Default)]
pub(crate) struct Switch(Arc<Inner>);

#[derive(Default)]
struct Inner {
    thrown: AtomicBool,
    token: CancellationToken,
}

impl Switch {
    /// Throws it, for good.
    pub(crate) fn throw(&self) {
        self.0.thrown.store(true, Ordering::Release);
        self.0.token.cancel();
    }

    pub(crate) fn is_thrown(&self) -> bool {
        self.0.thrown.load(Ordering::Acquire)
    }

    /// Waits until it is thrown.
    pub(crate) async fn thrown(&self) {
        self.0.token.cancelled().await;
    }

    /// Throws it when the guard is dropped.
    pub(super) fn guard(&self) -> Guard {
        Guard(self.clone())
    }
}

/// Throws its switch when it is dropped.
pub(super) struct Guard(Switch);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.throw();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_and_who_looks_see_the_same() {
        let switch = Switch::default();
        assert!(!switch.is_thrown());
        let waits = tokio::spawn({
            let switch = switch.clone();
            async move { switch.thrown().await }
        });
        drop(switch.guard());
        assert!(switch.is_thrown());
        waits.await.expect("it ends");
    }
}
