//! What keeps a measurement from being faster: a pure function of how busy everybody was.

use serde::Serialize;

/// A thread that is busier than this can take hardly more.
const BUSY: f64 = 0.8;
/// As much of a machine's cores: the rest goes to what else runs.
const MACHINE_BUSY: f64 = 0.85;
/// A thread that has to wait longer than this for a core is not what limits.
const KEPT_WAITING: f64 = 0.3;

/// Who was how busy, as shares of the time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Busy {
    /// The thread of the server that runs commands; nothing where there is none, or it is not told.
    pub(super) server: Option<f64>,
    /// The busiest thread of this process.
    pub(super) thread: Option<f64>,
    /// All threads of this process together.
    pub(super) process: Option<f64>,
    /// How long this process was ready and had no core.
    pub(super) kept_waiting: f64,
    /// The server shares this machine.
    pub(super) is_local: bool,
    /// There is a server at all.
    pub(super) has_server: bool,
    /// Of this machine.
    pub(super) cores: f64,
}

/// What was in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Limit {
    /// The server runs commands all the time.
    Server,
    /// This program does.
    Client,
    /// The cores of this machine are all in use: by both, or by others.
    Machine,
    /// Nobody is busy: the time goes by on the way, and in waiting for each other.
    Network,
    /// The server does not tell.
    Unknown,
}

impl Busy {
    pub(super) fn limit(self) -> Limit {
        let (server, thread) = (self.server.unwrap_or_default(), self.thread.unwrap_or_default());
        if server >= BUSY && server >= thread {
            return Limit::Server;
        }
        if thread >= BUSY {
            return Limit::Client;
        }
        let together = server + self.process.unwrap_or_default();
        let is_full = self.is_local && together >= MACHINE_BUSY * self.cores;
        if is_full || self.kept_waiting >= KEPT_WAITING {
            return Limit::Machine;
        }
        if !self.has_server {
            return Limit::Client;
        }
        match self.server.and(self.thread) {
            Some(_) => Limit::Network,
            None => Limit::Unknown,
        }
    }
}

impl Limit {
    /// What that means, and what to do about it.
    pub(super) fn meaning(self) -> &'static str {
        match self {
            Self::Server => {
                "the server's one thread is busy: a larger window or larger batches help little, \
                 a faster core or a second server does"
            }
            Self::Client => {
                "one thread of this program is busy: the server has room for more of them"
            }
            Self::Machine => {
                "the cores of this machine are busy, with this program, the server or others: \
                 measured from another machine the server may carry more"
            }
            Self::Network => {
                "nobody is busy: the time goes by on the way; a larger --window keeps more under \
                 way at a time"
            }
            Self::Unknown => "the server or this system does not tell how busy it is",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_busy_limits() {
        let idle = Busy {
            server: Some(0.1),
            thread: Some(0.2),
            process: Some(0.3),
            kept_waiting: 0.1,
            is_local: false,
            has_server: true,
            cores: 2.0,
        };
        assert_eq!(idle.limit(), Limit::Network);
        assert_eq!(Busy { server: Some(0.9), ..idle }.limit(), Limit::Server);
        assert_eq!(Busy { thread: Some(0.9), ..idle }.limit(), Limit::Client);
        let both = Busy { server: Some(0.85), thread: Some(0.95), ..idle };
        assert_eq!(both.limit(), Limit::Client);
        let full = Busy { server: Some(0.7), process: Some(1.1), ..idle };
        assert_eq!(full.limit(), Limit::Network, "each has a machine of its own");
        assert_eq!(Busy { is_local: true, ..full }.limit(), Limit::Machine);
        assert_eq!(Busy { kept_waiting: 0.5, ..idle }.limit(), Limit::Machine);
        assert_eq!(Busy { server: None, ..idle }.limit(), Limit::Unknown);
        assert_eq!(Busy { server: None, has_server: false, ..idle }.limit(), Limit::Client);
    }
}
