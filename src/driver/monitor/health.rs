//! How a driver is, connection by connection.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::delivery::Durability;

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ConnectionState {
    /// There is none; one is being made, again and again until it stands.
    Connecting,
    /// It stands; the server is asked what it is.
    Checking,
    /// The groups that it reads for are made, where they are not.
    EnsuringGroups,
    /// What the connection before it left unseen is taken up.
    Recovering,
    /// A reader's normal state.
    Reading,
    /// The normal state of a connection that does not read.
    Serving,
}

impl ConnectionState {
    /// Whether this is a normal state.
    pub fn is_normal(self) -> bool {
        matches!(self, Self::Reading | Self::Serving)
    }
}

impl fmt::Display for ConnectionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connecting => "connecting",
            Self::Checking => "checking the server",
            Self::EnsuringGroups => "ensuring groups",
            Self::Recovering => "recovering",
            Self::Reading => "reading",
            Self::Serving => "serving",
        })
    }
}

/// How one connection is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ConnectionHealth {
    /// What it is for: `commands`, `appends`, or `reader GROUP/NUMBER`.
    pub name: String,
    /// What it is doing.
    pub state: ConnectionState,
    /// For how long.
    pub since: Duration,
    /// How long ago it last brought an answer; nothing where it never has.
    pub last_answer: Option<Duration>,
    /// What it waits for is overdue.
    pub is_overdue: bool,
    /// Why it is not in its normal state, where that is known.
    pub fault: Option<String>,
}

impl ConnectionHealth {
    /// Whether it does its work.
    pub fn is_ready(&self) -> bool {
        self.state.is_normal() && !self.is_overdue
    }
}

impl fmt::Display for ConnectionHealth {
    /// What it is, what it is doing, and why.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.state)?;
        if self.is_overdue {
            f.write_str(", its answer is overdue")?;
        }
        match &self.fault {
            Some(fault) => write!(f, ": {fault}"),
            None => Ok(()),
        }
    }
}

/// What is known of the server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ServerHealth {
    /// Its version, as it says.
    pub version: String,
    /// What it is in replication: `master`. Empty where it does not say.
    pub role: String,
    /// How many replicas follow it.
    pub replicas: u64,
    /// What it does to keep what it is given.
    pub durability: Durability,
    /// It stores what it is given, as durably as was asked for.
    pub is_usable: bool,
    /// What is wrong with it, each in a line: an eviction policy that deletes logs, an append-only
    /// file that cannot be written.
    pub findings: Vec<String>,
}

/// How a driver is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Health {
    /// Its connections, by name. None where the driver needs none.
    pub connections: Vec<ConnectionHealth>,
    /// The server, where there is one that has answered.
    pub server: Option<ServerHealth>,
}

impl Health {
    /// Whether every connection does its work, and the server its own: what a readiness probe
    /// should answer.
    pub fn is_ready(&self) -> bool {
        self.connections.iter().all(ConnectionHealth::is_ready)
            && self.server.as_ref().is_none_or(|server| server.is_usable)
    }

    /// Why it is not ready, in a line; nothing where it is.
    pub fn reason(&self) -> Option<String> {
        let mut waiting = self.connections.iter().filter(|connection| !connection.is_ready());
        if let Some(first) = waiting.next() {
            let more = waiting.count();
            let more = if more > 0 { format!(" (and {more} more)") } else { String::new() };
            return Some(format!("{first}{more}"));
        }
        let server = self.server.as_ref().filter(|server| !server.is_usable)?;
        Some(server.findings.join("; "))
    }
}
