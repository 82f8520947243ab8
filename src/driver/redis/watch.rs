//! The server, watched: what it does to keep what it is given may change while it is used.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::Pipeline;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::connection::Commands;
use super::facts::{self, Facts};
use super::fault::Fault;
use crate::delivery::Durability;
use crate::driver::monitor::{Incident, Monitor};
use crate::error::{Error, ErrorKind};
use crate::trouble::Trouble;

/// What is known of the server, and what is asked of it.
pub(super) struct Standing {
    monitor: Arc<Monitor>,
    /// Less than this will not do.
    least: Option<Durability>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    facts: Option<Facts>,
    findings: Vec<String>,
}

impl Standing {
    pub(super) fn new(monitor: Arc<Monitor>, least: Option<Durability>) -> Self {
        Self { monitor, least, known: Mutex::default() }
    }

    /// What the server does to keep what it is given, as it said last.
    pub(super) fn durability(&self) -> Durability {
        self.known().facts.as_ref().map_or(Durability::Unknown, |facts| facts.durability)
    }

    /// Takes what the server says now; tells what changed since it said so last.
    pub(super) fn learn(&self, facts: Facts) {
        let mut known = self.known();
        let before = known.facts.as_ref();
        let mut health = facts.health(before);
        let mut incidents = before.map(|before| facts.incidents(before)).unwrap_or_default();
        let missing = missing(self.least, facts.durability);
        health.is_usable &= missing.is_none();
        health.findings.extend(missing.map(|missing| missing.text));
        for finding in &health.findings {
            if !known.findings.contains(finding) {
                incidents.push(Incident::ServerAilment { finding: finding.clone() });
            }
        }
        known.findings.clone_from(&health.findings);
        known.facts = Some(facts);
        drop(known);
        self.monitor.know(health);
        incidents.into_iter().for_each(|incident| self.monitor.raise(incident));
    }

    /// Refuses to store where the server does less to keep it than was asked for.
    pub(super) fn check(&self) -> Result<(), Error> {
        missing(self.least, self.durability()).map_or(Ok(()), |missing| Err(missing.error()))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How much less than asked for the server does.
struct Missing {
    text: String,
    help: &'static str,
}

impl Missing {
    fn error(self) -> Error {
        Error::new(ErrorKind::Unsupported, self.text).with_help(self.help).passing()
    }
}

/// What is missing where a server that gives `given` is to give `least`.
fn missing(least: Option<Durability>, given: Durability) -> Option<Missing> {
    // Replicas confirm one publish after another, whatever the server does by itself.
    let least = least.filter(|least| *least != Durability::Replicated && given < *least)?;
    let text = match given {
        Durability::Unknown => format!(
            "the server's durability is unknown, and {least} is the least asked for: it does not \
             tell its settings (INFO persistence, CONFIG GET appendfsync)"
        ),
        given => format!("the server's durability is {given}, and {least} is the least asked for"),
    };
    let help = match (given, least) {
        (Durability::Unknown, _) => "allow the user `+info +config|get`, or ask for no minimum",
        (_, Durability::Everysec) => "set appendonly yes and appendfsync everysec on the server",
        (_, Durability::Volatile | Durability::Memory) => "ask for no minimum",
        _ => "set appendonly yes and appendfsync always on the server, or ask for less",
    };
    Some(Missing { text, help })
}

/// Asks the server how it is, until `stop`.
pub(super) async fn run(
    standing: Arc<Standing>,
    commands: Arc<Commands>,
    every: Duration,
    stop: CancellationToken,
) {
    let work = async {
        let mut trouble = Trouble::default();
        loop {
            sleep(every).await;
            match tick(&standing, &commands).await {
                Ok(()) => {
                    trouble.over();
                }
                Err(error) if error.is_closed() => return,
                Err(error) => {
                    if let Some(times) = trouble.failed() {
                        tracing::warn!("{error:?}{times}");
                    }
                }
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = work => {}
    }
}

async fn tick(standing: &Standing, commands: &Commands) -> Result<(), Error> {
    let what = "ask the server how it is";
    let mut pipeline = Pipeline::new();
    facts::ask(&mut pipeline);
    let answers = commands.ask(what, &pipeline).await?.into_iter();
    let facts = Facts::read(answers).map_err(|fault| commands.error(what, &fault))?;
    let is_replica = facts.role == "slave";
    standing.learn(facts);
    if is_replica {
        // A connection that only reads would not notice.
        let fault = Fault::NoPrimary("it is a replica now".to_owned());
        commands.report(commands.generation(), &fault);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minimum_is_what_the_server_must_do() {
        let fails = |least, given| missing(Some(least), given).is_some();
        assert!(missing(None, Durability::Unknown).is_none());
        assert!(!fails(Durability::Fsync, Durability::Fsync));
        assert!(fails(Durability::Fsync, Durability::Everysec));
        assert!(fails(Durability::Everysec, Durability::Volatile));
        assert!(!fails(Durability::Everysec, Durability::Fsync));
        assert!(fails(Durability::Volatile, Durability::Unknown));
        let error = missing(Some(Durability::Fsync), Durability::Volatile).expect("less").error();
        assert!(error.to_string().contains("is volatile, and fsync is"), "{error}");
        assert!(error.help().is_some_and(|help| help.contains("appendfsync always")), "{error:?}");
        let error = missing(Some(Durability::Fsync), Durability::Unknown).expect("less").error();
        assert!(error.to_string().contains("is unknown"), "{error}");
        assert!(error.help().is_some_and(|help| help.contains("+config|get")), "{error:?}");
    }
}
