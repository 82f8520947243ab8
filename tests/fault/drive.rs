//! The loop: break, hold, mend, see both halves work again, and compare the log with what the
//! publisher was told and the group was given.

use std::time::Duration;

use tokio::time::Instant;

use super::audit::Audit;
use super::ledger::{Ledger, Recovery};
use super::load::Load;
use super::proxy::Proxy;
use super::table::Promise;
use super::{PATIENCE, comes, hold, rounds, table};
use crate::server::{Reply, Server};

/// A fault, and how it is judged.
pub struct Case {
    /// Its place in the table.
    pub place: u32,
    pub name: &'static str,
    /// How often it is injected.
    pub rounds: usize,
    /// The fault takes what is in the log: only what is acknowledged after it is healed can be
    /// asked for.
    pub destroys: bool,
    pub promise: Promise,
}

impl Case {
    pub fn new(place: u32, name: &'static str) -> Self {
        let promise = Promise::AFTER_HEAL;
        Self { place, name, rounds: rounds(), destroys: false, promise }
    }

    pub fn destroying(place: u32, name: &'static str) -> Self {
        Self { destroys: true, ..Self::new(place, name) }
    }
}

/// Where a fault happens.
pub trait Scene {
    /// The server that has the log.
    fn log(&self) -> &Server;
}

/// One server, and a proxy before it.
pub struct Stage {
    pub server: Server,
    pub proxy: Proxy,
}

impl Scene for Stage {
    fn log(&self) -> &Server {
        &self.server
    }
}

impl Stage {
    pub async fn new(server: Server) -> Self {
        let proxy = Proxy::start(server.socket()).await;
        Self { server, proxy }
    }

    /// Something that takes the server's time and so this thread's.
    pub fn block<T>(&mut self, act: impl FnOnce(&mut Server) -> T) -> T {
        tokio::task::block_in_place(|| act(&mut self.server))
    }

    /// Starts the server again; returns when it has read its files and answers.
    pub async fn restart(&mut self, settings: &[&str]) {
        self.block(|server| server.restart_with(settings));
        let answers = || {
            let answer = tokio::task::block_in_place(|| self.server.try_ask(&["PING"]));
            matches!(answer, Some(Reply::Text(_)))
        };
        assert!(comes(PATIENCE, answers).await, "the server goes on loading");
    }

    /// One command of an operator's.
    pub fn say(&mut self, command: &str) {
        self.block(|server| server.say(command));
    }
}

/// What a fault tells when it is over.
pub enum Healed {
    /// Recovery counts from this moment on, and is to be waited for.
    At(Instant),
    /// It was waited for.
    Recovered(Recovery),
}

impl From<Instant> for Healed {
    fn from(at: Instant) -> Self {
        Self::At(at)
    }
}

/// Injects a fault as often as asked, under load; `fault` injects, holds and heals.
pub async fn drive<S: Scene, H: Into<Healed>>(
    case: Case,
    mut scene: S,
    load: Load,
    mut fault: impl AsyncFnMut(&mut S) -> H,
) {
    table::begin(case.place, case.name);
    let ledger = &load.ledger;
    let mut audit = Audit::new(&case);
    assert!(recovery(ledger, Instant::now()).await.is_some(), "nothing works at first");
    for _ in 0..case.rounds {
        // A round begins anywhere between two bursts.
        hold(Duration::from_millis(fastrand::u64(200..400))).await;
        let (healed, recovery) = match fault(&mut scene).await.into() {
            Healed::At(healed) => (healed, recovery(ledger, healed).await),
            Healed::Recovered(recovery) => (Instant::now(), Some(recovery)),
        };
        audit.note(recovery, healed);
        audit.settle_up(ledger).await;
        if case.destroys {
            audit.read_log(scene.log()).await;
        }
        if recovery.is_none() {
            break;
        }
    }
    load.quiet().await;
    audit.settle_up(ledger).await;
    audit.read_log(scene.log()).await;
    let row = audit.judge(ledger);
    row.write();
    load.end().await;
    row.check();
}

/// Waits until both halves work for events that were begun at `since` or later.
pub async fn recovery(ledger: &Ledger, since: Instant) -> Option<Recovery> {
    ledger.mark(since);
    comes(PATIENCE, || ledger.recovery().is_some()).await;
    ledger.recovery()
}
