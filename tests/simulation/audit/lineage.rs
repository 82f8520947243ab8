//! The life of each event in each group: handled once or given up with a cause, its attempts
//! counted, nothing handed out before its moment or after its end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rumormill::delivery::{Cause, Position, Settled};

use super::{event_type, line};
use crate::history::{End, Ended, Fact, How, Name, Process, Run};
use crate::plan::{Kind, Plan};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    Open,
    Parked,
    Acked,
    Dead(Cause),
    Purged,
}

#[derive(Clone, Debug)]
pub struct Lineage {
    pub name: Name,
    pub key: Option<String>,
    pub state: State,
    attempt: u32,
    not_before: Duration,
    /// It was a dead letter once.
    was_dead: bool,
    /// How its runs ended, with the process and the attempt, since it was redriven last.
    runs: Vec<(Process, u32, How)>,
    /// How often its process died while it ran.
    kills: u32,
    /// What handlers published with its end.
    pub outputs: Vec<Name>,
}

pub type Key = (&'static str, Position);

pub struct Lineages<'a> {
    plan: &'a Plan,
    pub all: BTreeMap<Key, Lineage>,
    running: BTreeMap<u64, (Process, Key)>,
    /// To which consumer each event was handed last.
    holders: BTreeMap<Key, Arc<str>>,
    pub found: Vec<String>,
}

impl<'a> Lineages<'a> {
    pub fn new(plan: &'a Plan) -> Self {
        let (all, running, holders) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { plan, all, running, holders, found: Vec::new() }
    }

    pub fn see(&mut self, at: Duration, fact: &Fact) {
        match fact {
            Fact::Handed(process, handed) => {
                for (name, origin) in &handed.events {
                    let key = (handed.group, origin.clone());
                    self.handed(at, *process, key, name, handed.attempt);
                    let key = (handed.group, origin.clone());
                    self.holders.insert(key, Arc::clone(&handed.consumer));
                }
            }
            Fact::Settled(process, ended) if ended.is_applied() => {
                self.settled(at, *process, ended);
            }
            Fact::Begun(process, run) => {
                self.running.insert(run.number, (*process, (run.group, run.origin.clone())));
                self.begun(at, *process, run);
            }
            Fact::Ended(process, run, how) => {
                self.running.remove(&run.number);
                if let Some(own) = self.all.get_mut(&(run.group, run.origin.clone())) {
                    own.runs.push((*process, run.attempt, how.clone()));
                }
            }
            Fact::Crashed(process) => {
                for (_, (_, key)) in self.running.extract_if(.., |_, (own, _)| own == process) {
                    if let Some(own) = self.all.get_mut(&key) {
                        own.kills += 1;
                    }
                }
            }
            Fact::Redriven(group, origin) => self.redriven(at, group, origin),
            Fact::Purged(group, origin) => {
                if let Some(own) = self.all.get_mut(&(*group, origin.clone())) {
                    own.state = State::Purged;
                }
            }
            _ => {}
        }
    }

    fn handed(&mut self, at: Duration, process: Process, key: Key, name: &Name, attempt: u32) {
        let own = self.all.entry(key.clone()).or_insert_with(|| Lineage {
            name: name.clone(),
            key: None,
            state: State::Open,
            attempt: 1,
            not_before: Duration::ZERO,
            was_dead: false,
            runs: Vec::new(),
            kills: 0,
            outputs: Vec::new(),
        });
        let mut wrong = Vec::new();
        match own.state {
            State::Open => {}
            State::Parked => own.state = State::Open,
            _ => wrong.push(format!("is handed out, and is {:?}", own.state)),
        }
        if attempt != own.attempt {
            wrong.push(format!("is handed out at attempt {attempt}, {} is right", own.attempt));
        }
        if at < own.not_before {
            wrong.push(format!("is handed out before {:?}", own.not_before));
        }
        self.tell(at, process, &key, wrong);
    }

    fn begun(&mut self, at: Duration, process: Process, run: &Run) {
        let group = self.plan.group(run.group);
        let mut wrong = Vec::new();
        if run.attempt > group.options.retry.attempts_max {
            wrong.push("runs although its attempts are spent".to_owned());
        }
        if !group.handles(event_type(self.plan, &run.name), run.key.as_deref()) {
            wrong.push("runs although it is not for the handler".to_owned());
        }
        // What waits for its turn at a bulkhead, or for an answer of the store, is under way.
        if run.expired && group.concurrency.is_none() && !group.idempotent {
            wrong.push("runs although it has expired".to_owned());
        }
        self.tell(at, process, &(run.group, run.origin.clone()), wrong);
    }

    fn settled(&mut self, at: Duration, process: Process, ended: &Ended) {
        let key = (ended.group, ended.origin.clone());
        let Some(own) = self.all.get_mut(&key) else {
            let text = format!("{} is settled and was never handed out", ended.name);
            self.found.push(line(at, process, text));
            return;
        };
        own.key = ended.key.as_deref().map(str::to_owned);
        let mut wrong = Vec::new();
        if own.state != State::Open {
            wrong.push(format!("is settled again, and is {:?}", own.state));
        }
        if ended.attempt != own.attempt {
            let attempt = own.attempt;
            wrong.push(format!("is settled as attempt {}, {attempt} is right", ended.attempt));
        }
        let plain = matches!(&ended.end, End::Ack { outputs } if outputs.is_empty());
        if !plain && self.holders.get(&key) != Some(&ended.consumer) {
            wrong.push("is settled by who does not hold it".to_owned());
        }
        let judged = own.clone();
        match &ended.end {
            End::Ack { outputs } => {
                own.state = State::Acked;
                // Of what was handled before they are left out.
                if ended.answer == Some(Settled::Done) {
                    own.outputs.clone_from(outputs);
                }
            }
            End::Retry { after, .. } => {
                own.attempt += 1;
                own.not_before = at + *after;
            }
            End::DeadLetter { cause } => {
                own.state = State::Dead(*cause);
                own.was_dead = true;
            }
            End::Park => own.state = State::Parked,
            End::Split { after } => own.not_before = at + *after,
        }
        wrong.extend(self.judge(process, ended, &judged));
        self.tell(at, process, &key, wrong);
    }

    /// What is wrong with an end, by what its runs came to.
    fn judge(&self, process: Process, ended: &Ended, own: &Lineage) -> Option<String> {
        let group = self.plan.group(ended.group);
        let own_runs = own.runs.iter().filter(|(where_run, ..)| *where_run == process);
        let mut now = own_runs.clone().filter(|(_, attempt, _)| *attempt == ended.attempt);
        // Who waits for a batch that takes too long has no run of its own.
        let waited = matches!(group.kind, Kind::Batch(_));
        let to_handle = group.handles(event_type(self.plan, &ended.name), ended.key.as_deref());
        match &ended.end {
            End::Ack { outputs } if to_handle => {
                let handled = |(_, _, how): &&(Process, u32, How)| match how {
                    How::Handled { outputs: said } => said == outputs,
                    _ => false,
                };
                let known = || outputs.is_empty() && self.is_known(process, ended);
                let was = now.any(|run| handled(&run)) || known();
                (!was).then(|| format!("is acked with {outputs:?} and was not handled so"))
            }
            End::Ack { outputs } => (!outputs.is_empty()).then(|| "has outputs".to_owned()),
            End::Retry { cause, .. } => {
                let failed = waited || now.any(|(_, _, how)| may_fail(how));
                let spent = ended.attempt >= group.options.retry.attempts_max;
                let right = failed && !spent && *cause == Cause::Failed;
                (!right).then(|| "is retried without reason".to_owned())
            }
            End::DeadLetter { cause } => {
                let right = match cause {
                    Cause::Rejected => now.any(|(_, _, how)| *how == How::Rejected),
                    Cause::AttemptsSpent => {
                        ended.attempt == group.options.retry.attempts_max
                            && (waited || now.any(|(_, _, how)| may_fail(how)))
                    }
                    Cause::Malformed => &*ended.name == "malformed",
                    Cause::Expired => self.expires(&ended.name),
                    Cause::Crashed => own.kills >= 3,
                    _ => false,
                };
                (!right).then(|| format!("is given up as {cause} without reason"))
            }
            End::Park => {
                let before = self.all.range((ended.group, first(&ended.origin))..);
                let before =
                    before.take_while(|(key, _)| **key < (ended.group, ended.origin.clone()));
                let right = before.into_iter().any(|(_, other)| {
                    other.was_dead && other.key.as_deref() == ended.key.as_deref()
                });
                let right = right && group.options.park_keys && ended.key.is_some();
                (!right).then(|| "is parked without reason".to_owned())
            }
            End::Split { .. } => None,
        }
    }

    /// Whether the group knows an event of this name as handled: this process remembers, or the
    /// store does.
    fn is_known(&self, process: Process, ended: &Ended) -> bool {
        let group = self.plan.group(ended.group);
        let own =
            self.all.iter().filter(|((of, _), own)| *of == ended.group && own.name == ended.name);
        own.map(|(_, own)| own).any(|own| {
            let handled = |run: &&(Process, u32, How)| matches!(run.2, How::Handled { .. });
            let stored = group.idempotent && own.state == State::Acked;
            own.runs
                .iter()
                .filter(handled)
                .any(|(place, ..)| stored || (group.deduplicates && *place == process))
        })
    }

    fn expires(&self, name: &str) -> bool {
        let mut all = self.plan.publications.iter().flatten();
        all.any(|publication| publication.name == name && publication.expires.is_some())
    }

    fn redriven(&mut self, at: Duration, group: &'static str, origin: &Position) {
        let Some(own) = self.all.get_mut(&(group, origin.clone())) else { return };
        own.state = State::Open;
        own.attempt = 1;
        own.not_before = at;
        own.runs.clear();
        own.kills = 0;
    }

    fn tell(&mut self, at: Duration, process: Process, key: &Key, wrong: Vec<String>) {
        let (group, origin) = key;
        let name = self.all.get(key).map_or("?", |own| &*own.name);
        for what in wrong {
            self.found.push(line(at, process, format!("{group}: {name}@{origin} {what}")));
        }
    }
}

fn first(origin: &Position) -> Position {
    let entry = rumormill::delivery::EntryId::ZERO;
    Position { partition: origin.partition.clone(), entry, index: 0 }
}

/// Whether a delivery may end as failed: also where the topic of what its handler published cannot
/// be declared.
fn may_fail(how: &How) -> bool {
    match how {
        How::Handled { outputs } => !outputs.is_empty(),
        _ => true,
    }
}
