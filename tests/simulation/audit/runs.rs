//! What runs beside what: the order of a key, suspects alone, nothing after the end.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rumormill::delivery::{Cause, Position, Queue};

use super::line;
use crate::history::{End, Fact, Process, Run};
use crate::plan::{Kind, Plan};

/// A group in a process.
type Place = (Process, &'static str);

pub struct Runs<'a> {
    plan: &'a Plan,
    /// How an event came to a place last: whether it was the first hand-out of its entry in the
    /// log, and whether it is suspect.
    handed: BTreeMap<(Place, Position), (bool, bool)>,
    running: BTreeMap<u64, (Place, Run, bool)>,
    /// The last first hand-out that ran, by key.
    last: BTreeMap<(Place, String), Position>,
    /// Who does not run handlers any more.
    over: BTreeSet<Place>,
    drained: BTreeSet<Process>,
    /// Dead letters of keys in groups that park them, by who gave them up.
    dead: BTreeMap<(&'static str, Position), (Place, String)>,
    pub found: Vec<String>,
}

impl<'a> Runs<'a> {
    pub fn new(plan: &'a Plan) -> Self {
        Self {
            plan,
            handed: BTreeMap::new(),
            running: BTreeMap::new(),
            last: BTreeMap::new(),
            over: BTreeSet::new(),
            drained: BTreeSet::new(),
            dead: BTreeMap::new(),
            found: Vec::new(),
        }
    }

    pub fn see(&mut self, at: Duration, fact: &Fact) {
        match fact {
            Fact::Handed(process, handed) => {
                let is_first = handed.queue == Queue::Log && handed.token == 1;
                for (_, origin) in &handed.events {
                    let how = (is_first, handed.suspect);
                    self.handed.insert(((*process, handed.group), origin.clone()), how);
                }
            }
            Fact::Begun(process, run) => self.begun(at, (*process, run.group), run),
            Fact::Ended(_, run, _) => {
                self.running.remove(&run.number);
            }
            Fact::Crashed(process) => self.running.retain(|_, ((own, _), ..)| own != process),
            Fact::Unsubscribed(process, group) => {
                self.over.insert((*process, group));
            }
            Fact::Drained(process, _) => {
                self.drained.insert(*process);
            }
            Fact::Settled(process, ended) if ended.is_applied() => {
                let parks = self.plan.group(ended.group).options.park_keys;
                // What has expired may be given up where it is read, while a later event of its
                // key is about to run in its lane: in no order, as the one before was retried.
                let by_handler = matches!(
                    ended.end,
                    End::DeadLetter { cause: Cause::Rejected | Cause::AttemptsSpent }
                );
                // A suspect has a lane of its own: a later event of its key may have been asked
                // about right before its letter was stored.
                let place = (*process, ended.group);
                let handed = self.handed.get(&(place, ended.origin.clone()));
                let suspect = handed.is_some_and(|(_, suspect)| *suspect);
                if let (true, Some(key), true) = (by_handler && !suspect, &ended.key, parks) {
                    let letter = (ended.group, ended.origin.clone());
                    self.dead.insert(letter, (place, key.to_string()));
                }
            }
            Fact::Redriven(group, origin) | Fact::Purged(group, origin) => {
                self.dead.remove(&(*group, origin.clone()));
            }
            _ => {}
        }
    }

    fn begun(&mut self, at: Duration, place: Place, run: &Run) {
        let (is_first, suspect) =
            self.handed.get(&(place, run.origin.clone())).copied().unwrap_or_default();
        let mut wrong = Vec::new();
        if self.over.contains(&place) {
            wrong.push("begins after its group was left".to_owned());
        }
        if self.drained.contains(&place.0) {
            wrong.push("begins after its process has drained".to_owned());
        }
        let others = self.running.values().filter(|((process, _), ..)| *process == place.0);
        for ((_, group), other, is_suspect) in others {
            if suspect && *is_suspect {
                wrong.push(format!("begins, a suspect, beside the suspect {}", other.name));
            }
            let same_key = *group == place.1 && run.key.is_some() && run.key == other.key;
            let is_batch = matches!(self.plan.group(group).kind, Kind::Batch(_));
            if same_key && !is_batch && !suspect && !is_suspect {
                wrong.push(format!("begins beside {} of its key", other.name));
            }
        }
        if let Some(key) = run.key.as_deref().filter(|_| !suspect) {
            let behind = self.dead.iter().find(|((group, origin), (giver, dead))| {
                *group == run.group
                    && *giver == place
                    && *dead == *key
                    && origin.partition == run.origin.partition
                    && *origin < run.origin
            });
            if let Some(((_, origin), _)) = behind {
                wrong.push(format!("runs behind the dead letter {origin} of its key"));
            }
        }
        if let (Some(key), true) = (run.key.as_deref(), is_first) {
            let last = self.last.insert((place, key.to_owned()), run.origin.clone());
            if let Some(last) = last.filter(|last| last.partition == run.origin.partition)
                && last > run.origin
            {
                wrong.push(format!("runs after {last} of its key, and lay before it"));
            }
        }
        self.running.insert(run.number, (place, run.clone(), suspect));
        let (group, name) = (run.group, &run.name);
        let told =
            wrong.into_iter().map(|what| line(at, place.0, format!("{group}: {name} {what}")));
        self.found.extend(told);
    }
}
