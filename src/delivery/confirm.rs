//! What a publisher waits for before it calls an event stored.

use std::time::Duration;

use crate::error::Error;

/// What has to have happened before an event counts as stored, beyond the server's own answer.
///
/// Where it has not happened in time, the outcome is unknown: the event is on the server, and the
/// error says how far it got. A confirmation costs no round trip per event, but the slowest
/// replica's time per batch, and only as many batches are under way as the timeouts of all would
/// fit into the time that an answer may take.
///
/// `WAIT` makes no store consistent: of several replicas, one that has not confirmed may become
/// the primary. With one replica, or with all of them, nothing confirmed is lost in a failover.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Confirm {
    /// The server's answer is enough: it keeps an event as its settings say.
    #[default]
    Server,
    /// So many replicas have the event in memory (`WAIT`).
    Replicas {
        /// How many, 1 at least.
        count: u32,
        /// How long it may take.
        timeout: Duration,
    },
    /// The event is synced to append-only files (`WAITAOF`, which Redis 7.2 and Valkey have).
    Fsync {
        /// To the server's own.
        local: bool,
        /// To those of so many replicas.
        replicas: u32,
        /// How long it may take.
        timeout: Duration,
    },
}

impl Confirm {
    /// How long it may take; nothing where nothing is waited for.
    pub fn timeout(&self) -> Option<Duration> {
        match self {
            Self::Server => None,
            Self::Replicas { timeout, .. } | Self::Fsync { timeout, .. } => Some(*timeout),
        }
    }

    /// How many replicas have to confirm.
    pub fn replicas(&self) -> u32 {
        match self {
            Self::Server => 0,
            Self::Replicas { count: replicas, .. } | Self::Fsync { replicas, .. } => *replicas,
        }
    }

    /// Checks the values.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid), naming the value.
    pub fn check(&self) -> Result<(), Error> {
        let local = matches!(self, Self::Server | Self::Fsync { local: true, .. });
        if !local && self.replicas() == 0 {
            return Err(Error::invalid("a confirmation by no replica confirms nothing")
                .with_help("ask for 1 at least, or leave the confirmation out"));
        }
        if self.timeout().is_some_and(|timeout| timeout.as_millis() == 0) {
            return Err(Error::invalid("a confirmation needs 1 ms at least: 0 waits for ever"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_confirmation_by_nobody_or_for_ever_is_refused() {
        let timeout = Duration::from_millis(1);
        let (zero, less) = (Duration::ZERO, Duration::from_micros(999));
        for good in [
            Confirm::Server,
            Confirm::Replicas { count: 1, timeout },
            Confirm::Fsync { local: true, replicas: 0, timeout },
            Confirm::Fsync { local: false, replicas: 2, timeout },
        ] {
            assert!(good.check().is_ok(), "{good:?}");
        }
        for bad in [
            Confirm::Replicas { count: 0, timeout },
            Confirm::Replicas { count: 1, timeout: zero },
            Confirm::Fsync { local: false, replicas: 0, timeout },
            Confirm::Fsync { local: true, replicas: 0, timeout: less },
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_confirmation_tells_what_it_waits_for() {
        let timeout = Duration::from_secs(3);
        let said = |confirm: Confirm| (confirm.replicas(), confirm.timeout());
        assert_eq!(said(Confirm::Server), (0, None));
        assert_eq!(said(Confirm::Replicas { count: 2, timeout }), (2, Some(timeout)));
        assert_eq!(said(Confirm::Fsync { local: true, replicas: 3, timeout }), (3, Some(timeout)));
    }
}
