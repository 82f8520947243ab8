//! A broadcast hears every event of its life once, those of one key in their order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rumormill::delivery::{Partition, Position};

use super::line;
use super::log::Stored;
use crate::history::{Fact, Process};
use crate::plan::Plan;
use crate::world::BEGINNING;

/// What is stored so shortly before the end may not be heard any more.
const LAST_MOMENT: Duration = Duration::from_millis(10);

#[derive(Default)]
struct Listener {
    since: Option<Duration>,
    until: Option<Duration>,
    heard: BTreeSet<Position>,
    last: BTreeMap<(Partition, Arc<str>), Position>,
}

#[derive(Default)]
pub struct Broadcasts {
    listeners: BTreeMap<Process, Listener>,
    found: Vec<String>,
}

impl Broadcasts {
    pub fn see(&mut self, at: Duration, fact: &Fact) {
        match fact {
            Fact::Listening(process) => {
                self.listeners.entry(*process).or_default().since = Some(at);
            }
            Fact::Crashed(process) | Fact::Draining(process) => {
                if let Some(listener) = self.listeners.get_mut(process) {
                    listener.until.get_or_insert(at);
                }
            }
            Fact::Heard(process, name, key, place) => {
                let listener = self.listeners.entry(*process).or_default();
                if !listener.heard.insert(place.clone()) {
                    self.found.push(line(at, *process, format!("hears {name}@{place} again")));
                }
                let Some(key) = key else { return };
                let order = (place.partition.clone(), Arc::clone(key));
                let last = listener.last.insert(order, place.clone());
                if last.is_some_and(|last| last > *place) {
                    self.found.push(line(at, *process, format!("hears {name}@{place} late")));
                }
            }
            _ => {}
        }
    }

    pub fn judge(mut self, log: &[Stored], plan: &Plan) -> Vec<String> {
        // What has expired is not heard.
        let lasts = |own: &&Stored| {
            let mut all = plan.publications.iter().flatten();
            &*own.name != "malformed"
                && !all.any(|one| *one.name == *own.name && one.expires.is_some())
        };
        for (process, listener) in &self.listeners {
            let (Some(since), Some(until)) = (listener.since, listener.until) else { continue };
            for Stored { name, at, .. } in log.iter().filter(lasts) {
                let stored = at.entry.millis.saturating_sub(BEGINNING.as_millis());
                let stored = Duration::from_millis(stored);
                let within = stored > since && stored + LAST_MOMENT < until;
                if within && !listener.heard.contains(at) {
                    self.found.push(line(stored, *process, format!("does not hear {name}@{at}")));
                }
            }
        }
        self.found
    }
}
