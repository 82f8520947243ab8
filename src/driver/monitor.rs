//! What a driver says of itself: how its connections are, and what it saw go wrong.
//!
//! A loss is never a log line alone: it is an [`Incident`] that can be listened to, and a counter
//! in [`Losses`].

mod health;
mod incident;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{broadcast, watch};
use tokio::time::Instant;

pub use health::{ConnectionHealth, ConnectionState, Health, ServerHealth};
pub use incident::{Incident, Losses};

use super::GroupName;

/// Incidents that a listener may be behind; the oldest go, and are counted for it.
const BEHIND_MAX: usize = 256;

/// Where a driver's parts say how they are, and others look.
#[derive(Debug)]
pub struct Monitor {
    state: Mutex<State>,
    incidents: broadcast::Sender<Incident>,
    changed: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    connections: BTreeMap<u64, Watched>,
    server: Option<ServerHealth>,
    total: Losses,
    groups: HashMap<GroupName, Losses>,
}

#[derive(Debug)]
struct Watched {
    name: String,
    state: ConnectionState,
    since: Instant,
    answered: Option<Instant>,
    /// When it must have said something again.
    due: Option<Instant>,
    fault: Option<String>,
}

impl Default for Monitor {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            incidents: broadcast::Sender::new(BEHIND_MAX),
            changed: watch::Sender::new(()),
        }
    }
}

impl Monitor {
    /// How the driver is now.
    pub fn health(&self) -> Health {
        let state = self.state();
        let mut connections: Vec<_> = state.connections.values().map(Watched::health).collect();
        connections.sort_by(|one, other| one.name.cmp(&other.name));
        Health { connections, server: state.server.clone() }
    }

    /// Tells when the health changes.
    pub fn health_changes(self: &Arc<Self>) -> HealthChanges {
        HealthChanges { monitor: Arc::downgrade(self), changed: self.changed.subscribe() }
    }

    /// What goes wrong from now on.
    pub fn incidents(&self) -> Incidents {
        Incidents(self.incidents.subscribe())
    }

    /// What was lost so far, of all groups.
    pub fn losses(&self) -> Losses {
        self.state().total
    }

    /// What one group lost so far.
    pub fn losses_of(&self, group: &str) -> Losses {
        self.state().groups.get(group).copied().unwrap_or_default()
    }

    /// Counts, logs and tells an incident.
    pub fn raise(&self, incident: Incident) {
        if planted!(SilentLosses) {
            return;
        }
        if !planted!(Miscount) {
            let mut state = self.state();
            state.total.count(&incident);
            if let Some(group) = incident.group() {
                state.groups.entry(group.clone()).or_default().count(&incident);
            }
        }
        match &incident {
            Incident::ServerChanged { .. } => tracing::info!("{incident}"),
            _ => tracing::warn!("{incident}"),
        }
        // Nobody need listen.
        let _unheard = self.incidents.send(incident);
    }

    /// Watches a connection until what is returned is dropped.
    pub fn watch(self: &Arc<Self>, name: String) -> Connection {
        let mut state = self.state();
        let number = state.next;
        state.next += 1;
        let (since, connecting) = (Instant::now(), ConnectionState::Connecting);
        let (answered, due, fault) = (None, None, None);
        let watched = Watched { name, state: connecting, since, answered, due, fault };
        state.connections.insert(number, watched);
        drop(state);
        Connection { monitor: Arc::clone(self), number }
    }

    /// What is known of the server from now on.
    pub fn know(&self, server: ServerHealth) {
        let mut state = self.state();
        let news = state.server.as_ref() != Some(&server);
        state.server = Some(server);
        drop(state);
        if news {
            self.changed.send_replace(());
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watched {
    fn health(&self) -> ConnectionHealth {
        let now = Instant::now();
        ConnectionHealth {
            name: self.name.clone(),
            state: self.state,
            since: now - self.since,
            last_answer: self.answered.map(|answered| now - answered),
            is_overdue: self.due.is_some_and(|due| due < now),
            fault: self.fault.clone(),
        }
    }
}

/// One connection's place in the [`Monitor`].
#[derive(Debug)]
pub struct Connection {
    monitor: Arc<Monitor>,
    number: u64,
}

impl Connection {
    /// It is in another state now.
    pub fn turn(&self, state: ConnectionState) {
        self.change(|watched| {
            let news = watched.state != state;
            if news {
                (watched.state, watched.since) = (state, Instant::now());
            }
            if state.is_normal() {
                watched.fault = None;
            }
            watched.due = None;
            news
        });
    }

    /// Why it is in the state that it is in.
    pub fn ail(&self, fault: impl fmt::Display) {
        let fault = fault.to_string();
        self.change(|watched| {
            let news = watched.fault.as_ref() != Some(&fault);
            watched.fault = Some(fault);
            news
        });
    }

    /// It asked for something, which must come within `patience`.
    pub fn expect(&self, patience: Duration) {
        self.change(|watched| {
            watched.due = Some(Instant::now() + patience);
            false
        });
    }

    /// An answer came.
    pub fn answered(&self) {
        self.change(|watched| {
            watched.answered = Some(Instant::now());
            watched.due = None;
            false
        });
    }

    fn change(&self, how: impl FnOnce(&mut Watched) -> bool) {
        let news = self.monitor.state().connections.get_mut(&self.number).is_some_and(how);
        if news {
            self.monitor.changed.send_replace(());
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.monitor.state().connections.remove(&self.number);
        self.monitor.changed.send_replace(());
    }
}

/// The health, each time that it changes.
#[derive(Debug)]
pub struct HealthChanges {
    monitor: Weak<Monitor>,
    changed: watch::Receiver<()>,
}

impl HealthChanges {
    /// Waits until a connection's state, or what is known of the server, is another than when this
    /// was called last. Several changes may be one. Nothing once the driver is gone.
    ///
    /// # Cancel safety
    /// Dropped before it is done, no change is missed.
    pub async fn next(&mut self) -> Option<Health> {
        self.changed.changed().await.ok()?;
        self.monitor.upgrade().map(|monitor| monitor.health())
    }
}

/// Incidents, as they happen.
#[derive(Debug)]
pub struct Incidents(broadcast::Receiver<Incident>);

impl Incidents {
    /// The next one, and how many were missed before it since the listener was too slow. Nothing
    /// once the driver is gone.
    ///
    /// # Cancel safety
    /// Dropped before it is done, nothing is lost, the count of the missed apart.
    pub async fn next(&mut self) -> Option<(Incident, u64)> {
        let mut missed = 0;
        loop {
            match self.0.recv().await {
                Ok(incident) => return Some((incident, missed)),
                Err(broadcast::error::RecvError::Lagged(more)) => missed += more,
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(name: &str) -> GroupName {
        GroupName::new(name.to_owned()).expect("valid")
    }

    fn gone(name: &str, entries: u64) -> Incident {
        let partition = "t:0".parse().expect("valid");
        Incident::PendingGone { group: group(name), partition, entries }
    }

    #[tokio::test(start_paused = true)]
    async fn readiness_turns_red_and_green() {
        let monitor = Arc::new(Monitor::default());
        assert!(monitor.health().is_ready(), "nothing is needed");
        let connection = monitor.watch("commands".to_owned());
        assert!(!monitor.health().is_ready(), "connecting");
        connection.turn(ConnectionState::Serving);
        assert!(monitor.health().is_ready());
        connection.expect(Duration::from_secs(2));
        tokio::time::advance(Duration::from_secs(3)).await;
        assert!(!monitor.health().is_ready(), "overdue");
        connection.answered();
        assert!(monitor.health().is_ready());
        connection.turn(ConnectionState::Connecting);
        connection.ail("no answer in time");
        let health = monitor.health();
        assert_eq!(health.connections[0].fault.as_deref(), Some("no answer in time"));
        let reader = monitor.watch("reader g/0".to_owned());
        let reason = monitor.health().reason().expect("not ready");
        assert_eq!(reason, "commands connecting: no answer in time (and 1 more)");
        reader.turn(ConnectionState::Reading);
        drop(connection);
        assert!(monitor.health().is_ready(), "it is not needed any more");
        assert_eq!(monitor.health().reason(), None);
    }

    #[tokio::test]
    async fn losses_are_counted_and_told() {
        let monitor = Monitor::default();
        let mut incidents = monitor.incidents();
        monitor.raise(gone("email", 3));
        monitor.raise(gone("push", 2));
        assert_eq!(monitor.losses().pending_gone, 5);
        assert_eq!(monitor.losses_of("email").pending_gone, 3);
        assert!(monitor.losses_of("nobody").is_none());
        assert_eq!(incidents.next().await, Some((gone("email", 3), 0)));
        for _ in 0..=BEHIND_MAX {
            monitor.raise(gone("email", 1));
        }
        let (_, missed) = incidents.next().await.expect("more");
        assert!(missed >= 1, "{missed}");
    }
}
