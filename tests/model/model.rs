//! What a store of events with two groups is, in the fewest words: the driver contract as a state
//! machine. The second group parks keys.

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest_state_machine::ReferenceStateMachine;

pub const GROUPS: usize = 2;
/// The group that parks keys.
pub const PARKING: usize = 1;
/// Most events of a batch.
const BATCH_MAX: usize = 4;

/// An event, numbered in the order of the log.
pub type Number = usize;

/// An entry as a group has it: one of the log, or one of its own with a single event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EntryRef {
    Log(usize),
    Own(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// To be handed out.
    Ready,
    /// In the hands of the group's consumer.
    Held,
    /// In the hands of one that is gone.
    Abandoned,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Open {
        place: Place,
        entry: EntryRef,
        attempt: u32,
    },
    /// Waits for its moment; the next attempt.
    Due {
        attempt: u32,
    },
    Parked {
        attempt: u32,
    },
    Dead {
        attempts: u32,
    },
    Acked,
    Purged,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    Ack,
    /// And publishes one event.
    AckOutput,
    Retry,
    RetryLater,
    DeadLetter,
    Split,
    Park,
}

#[derive(Clone, Debug)]
pub enum Transition {
    /// A batch: the key of each event.
    Publish(Vec<Option<u8>>),
    /// A consumer, a new one where the last has crashed, takes everything there is.
    Fetch(usize),
    /// One held event ends.
    End(usize, usize, Ending),
    /// All held events are acked in one call.
    EndAll(usize),
    Crash(usize),
    /// Who crashed settles what another has meanwhile.
    Stale(usize, usize),
    /// A settlement is repeated.
    Again(usize, usize),
    /// Whether the key of a held event is parked.
    Ask(usize, usize),
    Redrive(usize, usize),
    Purge(usize, usize),
    /// An hour passes.
    Advance,
    /// The server is killed and started again.
    Restart,
    /// Somebody trims what every group has settled.
    Trim,
}

/// What a transition meant where it was applied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// The event that it was about.
    pub number: Option<Number>,
    /// What was asked.
    pub parked: bool,
    /// The first batch that some group has not settled.
    pub unsettled: usize,
}

#[derive(Clone, Debug, Default)]
pub struct Group {
    pub states: Vec<State>,
    /// Whether it has a consumer.
    pub live: bool,
    /// What was held by one that crashed, and is held by another since.
    pub stale: BTreeSet<Number>,
    /// What was held by one that crashed.
    orphans: BTreeSet<Number>,
    /// What the present consumer has settled.
    pub settled: Vec<Number>,
    holders: BTreeMap<u8, BTreeSet<Number>>,
    own_entries: usize,
}

#[derive(Clone, Debug, Default)]
pub struct Model {
    /// The key of each event.
    pub keys: Vec<Option<u8>>,
    /// How many events each batch has.
    pub batches: Vec<usize>,
    pub groups: [Group; GROUPS],
    pub step: Step,
}

impl Group {
    pub fn held(&self) -> Vec<Number> {
        self.all(|state| matches!(state, State::Open { place: Place::Held, .. }))
    }

    pub fn dead(&self) -> Vec<Number> {
        self.all(|state| matches!(state, State::Dead { .. }))
    }

    pub fn all(&self, wanted: impl Fn(&State) -> bool) -> Vec<Number> {
        let states = self.states.iter().enumerate();
        states.filter(|(_, state)| wanted(state)).map(|(number, _)| number).collect()
    }

    /// Entries with an event in such a place.
    pub fn entries(&self, wanted: impl Fn(Place) -> bool) -> usize {
        let own = self.states.iter().filter_map(|state| match state {
            State::Open { place, entry, .. } if wanted(*place) => Some(*entry),
            _ => None,
        });
        own.collect::<BTreeSet<_>>().len()
    }

    fn ready(&mut self, number: Number, attempt: u32) {
        self.own_entries += 1;
        let entry = EntryRef::Own(self.own_entries);
        self.states[number] = State::Open { place: Place::Ready, entry, attempt };
    }

    fn fetch(&mut self) {
        for state in &mut self.states {
            if let State::Open { place, .. } = state {
                *place = Place::Held;
            }
        }
        self.live = true;
        self.stale.append(&mut self.orphans);
    }

    fn crash(&mut self) {
        self.orphans.extend(self.held());
        for state in &mut self.states {
            if let State::Open { place: place @ Place::Held, .. } = state {
                *place = Place::Abandoned;
            }
        }
        self.live = false;
        self.settled.clear();
    }

    pub fn is_parked(&self, number: Number, key: Option<u8>) -> bool {
        let first = key.and_then(|key| self.holders.get(&key)).and_then(BTreeSet::first);
        first.is_some_and(|first| *first < number)
    }

    /// An event does not hold its key any more.
    fn release(&mut self, number: Number, keys: &[Option<u8>]) {
        let Some(key) = keys[number] else { return };
        let Some(holders) = self.holders.get_mut(&key) else { return };
        if !holders.remove(&number) {
            return;
        }
        let waiting = self.states.iter().enumerate().find_map(|(number, state)| match state {
            State::Parked { attempt } if keys[number] == Some(key) => Some((number, *attempt)),
            _ => None,
        });
        if let Some((next, attempt)) = waiting
            && holders.first().is_none_or(|first| next < *first)
        {
            holders.insert(next);
            self.ready(next, attempt);
        }
    }

    fn hold(&mut self, number: Number, key: Option<u8>) {
        if let Some(key) = key {
            self.holders.entry(key).or_default().insert(number);
        }
    }

    fn end(&mut self, number: Number, ending: Ending, keys: &[Option<u8>], parks: bool) {
        let State::Open { attempt, .. } = self.states[number] else { return };
        self.settled.push(number);
        let key = keys[number].filter(|_| parks);
        match ending {
            Ending::Ack | Ending::AckOutput => {
                self.states[number] = State::Acked;
                self.release(number, keys);
            }
            Ending::Retry => self.ready(number, attempt + 1),
            Ending::RetryLater => self.states[number] = State::Due { attempt: attempt + 1 },
            Ending::DeadLetter => {
                self.states[number] = State::Dead { attempts: attempt };
                self.hold(number, key);
            }
            Ending::Split => self.ready(number, attempt),
            Ending::Park if self.is_parked(number, key) => {
                if let Some(holders) = key.and_then(|key| self.holders.get_mut(&key)) {
                    holders.remove(&number);
                }
                self.states[number] = State::Parked { attempt };
            }
            Ending::Park => {
                self.hold(number, key);
                self.ready(number, attempt);
            }
        }
    }
}

impl Model {
    /// One of several, by whatever number.
    fn pick(numbers: &[Number], pick: usize) -> Option<Number> {
        numbers.get(pick % numbers.len().max(1)).copied()
    }

    fn publish(&mut self, keys: &[Option<u8>]) {
        let entry = EntryRef::Log(self.batches.len());
        self.batches.push(keys.len());
        self.keys.extend(keys);
        for group in &mut self.groups {
            let state = State::Open { place: Place::Ready, entry, attempt: 1 };
            group.states.resize(self.keys.len(), state);
        }
    }

    /// The first batch of which some group has an event of the log before it.
    fn unsettled(&self) -> usize {
        let of_log = |state: &State| match state {
            State::Open { entry: EntryRef::Log(batch), .. } => Some(*batch),
            _ => None,
        };
        let all = self.groups.iter().flat_map(|group| &group.states).filter_map(of_log);
        all.min().unwrap_or(self.batches.len())
    }

    /// The events that a transition chooses from.
    fn choice(&self, transition: &Transition) -> Option<(Vec<Number>, usize)> {
        let of = |group: &usize| &self.groups[*group];
        Some(match transition {
            Transition::End(group, pick, _) | Transition::Ask(group, pick) => {
                (of(group).held(), *pick)
            }
            Transition::Stale(group, pick) => (of(group).stale.iter().copied().collect(), *pick),
            Transition::Again(group, pick) => (of(group).settled.clone(), *pick),
            Transition::Redrive(group, pick) | Transition::Purge(group, pick) => {
                (of(group).dead(), *pick)
            }
            _ => return None,
        })
    }
}

fn ending() -> impl Strategy<Value = Ending> {
    prop_oneof![
        4 => Just(Ending::Ack),
        1 => Just(Ending::AckOutput),
        2 => Just(Ending::Retry),
        1 => Just(Ending::RetryLater),
        2 => Just(Ending::DeadLetter),
        2 => Just(Ending::Split),
        2 => Just(Ending::Park),
    ]
}

impl ReferenceStateMachine for Model {
    type State = Self;
    type Transition = Transition;

    fn init_state() -> BoxedStrategy<Self> {
        Just(Self::default()).boxed()
    }

    fn transitions(_: &Self) -> BoxedStrategy<Transition> {
        let group = || 0..GROUPS;
        let one = || (0..GROUPS, 0..1_000_usize);
        let ends = (group(), 0..1_000_usize, ending());
        let keys = vec(option::of(0..2_u8), 1..=BATCH_MAX);
        prop_oneof![
            4 => keys.prop_map(Transition::Publish),
            6 => group().prop_map(Transition::Fetch),
            12 => ends.prop_map(|(group, pick, end)| Transition::End(group, pick, end)),
            1 => group().prop_map(Transition::EndAll),
            1 => group().prop_map(Transition::Crash),
            1 => one().prop_map(|(group, pick)| Transition::Stale(group, pick)),
            1 => one().prop_map(|(group, pick)| Transition::Again(group, pick)),
            2 => one().prop_map(|(group, pick)| Transition::Ask(group, pick)),
            2 => one().prop_map(|(group, pick)| Transition::Redrive(group, pick)),
            1 => one().prop_map(|(group, pick)| Transition::Purge(group, pick)),
            1 => Just(Transition::Advance),
            1 => Just(Transition::Restart),
            1 => Just(Transition::Trim),
        ]
        .boxed()
    }

    fn preconditions(model: &Self, transition: &Transition) -> bool {
        match transition {
            Transition::EndAll(group) => !model.groups[*group].held().is_empty(),
            Transition::Crash(group) => model.groups[*group].live,
            Transition::Stale(group, _) if !model.groups[*group].live => false,
            other => model.choice(other).is_none_or(|(numbers, _)| !numbers.is_empty()),
        }
    }

    fn apply(mut model: Self, transition: &Transition) -> Self {
        let number = model.choice(transition).and_then(|(all, pick)| Self::pick(&all, pick));
        let unsettled = model.unsettled();
        model.step = Step { number, parked: false, unsettled };
        let keys = model.keys.clone();
        match (transition, number) {
            (Transition::Publish(keys), _) => model.publish(keys),
            (Transition::Fetch(group), _) => model.groups[*group].fetch(),
            (Transition::End(group, _, ending), Some(number)) => {
                model.groups[*group].end(number, *ending, &keys, *group == PARKING);
                if *ending == Ending::AckOutput {
                    model.publish(&[None]);
                }
            }
            (Transition::EndAll(group), _) => {
                for number in model.groups[*group].held() {
                    model.groups[*group].end(number, Ending::Ack, &keys, *group == PARKING);
                }
            }
            (Transition::Crash(group), _) => model.groups[*group].crash(),
            (Transition::Ask(group, _), Some(number)) => {
                let parked = model.groups[*group].is_parked(number, keys[number]);
                model.step.parked = parked;
            }
            (Transition::Redrive(group, _), Some(number)) => model.groups[*group].ready(number, 1),
            (Transition::Purge(group, _), Some(number)) => {
                model.groups[*group].states[number] = State::Purged;
                model.groups[*group].release(number, &keys);
            }
            (Transition::Advance, _) => {
                for group in &mut model.groups {
                    for number in group.all(|state| matches!(state, State::Due { .. })) {
                        if let State::Due { attempt } = group.states[number] {
                            group.ready(number, attempt);
                        }
                    }
                }
            }
            _ => {}
        }
        model
    }
}
