//! What a process counts of events that it ran no handler for, against what it did.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rumormill::delivery::{Position, Queue, Settled};

use super::{event_type, line};
use crate::history::{End, Fact, Name, Process};
use crate::plan::Plan;

type Place = (Process, &'static str);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    unrouted: u64,
    filtered: u64,
    duplicates: u64,
}

pub struct Counts<'a> {
    plan: &'a Plan,
    counts: BTreeMap<Place, Count>,
    /// Events whose handler ran, as which attempt.
    begun: BTreeSet<(Place, Position, u32)>,
    keys: BTreeMap<Name, Option<&'static str>>,
    troubled: BTreeSet<Process>,
    pub found: Vec<String>,
}

impl<'a> Counts<'a> {
    pub fn new(plan: &'a Plan) -> Self {
        let all = plan.publications.iter().flatten();
        Self {
            plan,
            counts: BTreeMap::new(),
            begun: BTreeSet::new(),
            keys: all.map(|own| (own.name.as_str().into(), own.key)).collect(),
            troubled: BTreeSet::new(),
            found: Vec::new(),
        }
    }

    pub fn see(&mut self, at: Duration, fact: &Fact) {
        match fact {
            Fact::Handed(process, handed) => {
                // Each of a suspect batch is split off first.
                if handed.suspect && handed.queue == Queue::Log {
                    return;
                }
                let group = self.plan.group(handed.group);
                let count = self.counts.entry((*process, handed.group)).or_default();
                for (name, _) in handed.events.iter().filter(|(name, _)| &**name != "malformed") {
                    let key = self.keys.get(name).copied().flatten();
                    let routed = group.routes(event_type(self.plan, name));
                    count.unrouted += u64::from(!routed);
                    count.filtered += u64::from(routed && !group.passes(key));
                }
            }
            Fact::Begun(process, run) => {
                self.begun.insert(((*process, run.group), run.origin.clone(), run.attempt));
            }
            Fact::Settled(process, ended) if ended.is_applied() => {
                let place = (*process, ended.group);
                let group = self.plan.group(ended.group);
                let to_handle =
                    group.handles(event_type(self.plan, &ended.name), ended.key.as_deref());
                let ran = self.begun.contains(&(place, ended.origin.clone(), ended.attempt));
                let skipped = matches!(ended.end, End::Ack { .. }) && to_handle && !ran;
                let late = ended.answer == Some(Settled::Duplicate) && ran;
                let count = self.counts.entry(place).or_default();
                count.duplicates += u64::from(skipped || late);
            }
            Fact::Fault(process, _) => drop(self.troubled.insert(*process)),
            Fact::Counted(process, group, told) if !self.troubled.contains(process) => {
                let right = self.counts.get(&(*process, *group)).copied().unwrap_or_default();
                let told = Count {
                    unrouted: told.unrouted,
                    filtered: told.filtered,
                    duplicates: told.duplicates,
                };
                if told != right {
                    let text = format!("{group} counts {told:?}, {right:?} is right");
                    self.found.push(line(at, *process, text));
                }
            }
            _ => {}
        }
    }
}
