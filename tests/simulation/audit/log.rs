//! The end of it all: what publishers were told against the log, the log against the groups, and
//! what the store reports against what happened.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rumormill::delivery::{Partition, Position};
use rumormill::driver::{Driver, GroupName, Tools};

use super::event_type;
use super::lineage::{Lineages, State};
use crate::history::{Answer, Fact, Name, name_of};
use crate::world::World;

/// Most entries of a log that are read; far more than a world has.
const ENTRIES_MAX: usize = 10_000;

pub struct Stored {
    pub name: Name,
    pub at: Position,
    /// The event is none.
    malformed: bool,
}

pub async fn check(
    world: &World,
    facts: &[(Duration, Fact)],
    lineages: &Lineages<'_>,
) -> Vec<String> {
    let log = read(world).await;
    let mut found = answers(world, facts, &log);
    found.extend(outputs(world, &log, lineages));
    found.extend(ends(world, &log, lineages));
    found.extend(order(world, &log));
    found.extend(reports(world, lineages).await);
    found
}

/// What lies in the logs.
pub async fn read(world: &World) -> Vec<Stored> {
    let mut log = Vec::new();
    for shape in world.store.topics().await.expect("topics") {
        for partition in shape.partitions() {
            let entries = world.store.latest(&partition, ENTRIES_MAX).await.expect("a log");
            for entry in entries {
                for (record, index) in entry.records.iter().zip(0..) {
                    let at = Position { partition: partition.clone(), entry: entry.id, index };
                    let malformed = record.is_err();
                    let name = record.as_ref().map_or_else(|_| "malformed".into(), name_of);
                    log.push(Stored { name, at, malformed });
                }
            }
        }
    }
    log
}

/// What publishers were told is true.
fn answers(world: &World, facts: &[(Duration, Fact)], log: &[Stored]) -> Vec<String> {
    let mut found = Vec::new();
    let mut told: BTreeMap<&Name, Vec<&Answer>> = BTreeMap::new();
    let mut asked: BTreeMap<&Name, usize> = BTreeMap::new();
    for (_, fact) in facts {
        match fact {
            Fact::Publishing(_, name) => *asked.entry(name).or_default() += 1,
            Fact::Published(_, name, answer) => told.entry(name).or_default().push(answer),
            _ => {}
        }
    }
    for publication in world.plan.publications.iter().flatten() {
        let name: Name = publication.name.as_str().into();
        let places: Vec<_> = log.iter().filter(|own| own.name == name).map(|own| &own.at).collect();
        let answers = told.get(&name).map_or(&[][..], |answers| answers);
        if places.len() > 1 + usize::from(publication.twice) {
            found.push(format!("{name} is stored {} times: {places:?}", places.len()));
        }
        for answer in answers {
            let right = match answer {
                Answer::Stored { position: Some(at), .. } => places.contains(&at),
                Answer::Stored { position: None, .. } => places.len() == 1,
                Answer::NotStored => places.len() < asked.get(&name).copied().unwrap_or_default(),
                Answer::Unknown => true,
            };
            if !right {
                found.push(format!("{name}: told {answer:?}, and lies at {places:?}"));
            }
        }
        if asked.get(&name).is_none() && !places.is_empty() {
            found.push(format!("{name} is stored and was never published"));
        }
        if let (Some(delay), Some(at)) = (publication.delay, places.first()) {
            let asked = facts
                .iter()
                .find(|(_, fact)| matches!(fact, Fact::Publishing(_, own) if *own == name));
            let early = asked.map_or(0, |(asked, _)| (*asked + delay).as_millis());
            let stored = u128::from(at.entry.millis) - u128::from(beginning());
            if stored < early {
                found.push(format!("{name} was published for {early} and is there at {stored}"));
            }
        }
    }
    found
}

fn beginning() -> u64 {
    crate::world::BEGINNING.as_millis()
}

/// What handlers published is there once, with the end of their delivery or not at all.
fn outputs(world: &World, log: &[Stored], lineages: &Lineages<'_>) -> Vec<String> {
    let mut found = Vec::new();
    let mut right: BTreeMap<Name, usize> = BTreeMap::new();
    for own in lineages.all.values() {
        for output in &own.outputs {
            *right.entry(output.clone()).or_default() += 1;
        }
    }
    let mut there: BTreeMap<Name, usize> = BTreeMap::new();
    for own in log.iter().filter(|own| event_type(&world.plan, &own.name) == "mail.letter.sent") {
        *there.entry(own.name.clone()).or_default() += 1;
    }
    if right != there {
        let names: BTreeSet<_> = right.keys().chain(there.keys()).collect();
        for name in names.into_iter().filter(|name| right.get(*name) != there.get(*name)) {
            let (right, there) = (right.get(name), there.get(name));
            found.push(format!("output {name} is stored {there:?} times, {right:?} is right"));
        }
    }
    found
}

/// Every group has every event that is for it: handled, dead, or parked behind one that is.
fn ends(world: &World, log: &[Stored], lineages: &Lineages<'_>) -> Vec<String> {
    let mut found = Vec::new();
    for group in &world.plan.groups {
        for own in log {
            let kind = event_type(&world.plan, &own.name);
            if !own.malformed && !group.reads(kind) {
                continue;
            }
            // What is no event lies in the topic that all groups read.
            let lineage = lineages.all.get(&(group.name, own.at.clone()));
            match lineage.map(|lineage| &lineage.state) {
                Some(State::Acked | State::Dead(_) | State::Purged | State::Parked) => {}
                Some(State::Open) => {
                    found.push(format!("{}: {}@{} is lost", group.name, own.name, own.at));
                }
                None => {
                    let text = format!("{}: {}@{} never came", group.name, own.name, own.at);
                    found.push(text);
                }
            }
        }
    }
    found
}

/// Events of one key from one publisher lie in the order in which they were published.
fn order(world: &World, log: &[Stored]) -> Vec<String> {
    let mut found = Vec::new();
    let places: BTreeMap<&str, &Position> = log.iter().map(|own| (&*own.name, &own.at)).collect();
    for publisher in &world.plan.publications {
        let mut last: BTreeMap<(&str, &Partition), (&Position, &str)> = BTreeMap::new();
        let plain =
            publisher.iter().filter(|own| own.delay.is_none() && !own.deduplicate && !own.twice);
        for own in plain {
            let (Some(key), Some(at)) = (own.key, places.get(own.name.as_str())) else { continue };
            if let Some((before, name)) = last.insert((key, &at.partition), (at, &own.name))
                && before > *at
            {
                found.push(format!("{}@{at} was published after {name}@{before}", own.name));
            }
        }
    }
    found
}

/// The store's own report says what the history says.
async fn reports(world: &World, lineages: &Lineages<'_>) -> Vec<String> {
    let mut found = Vec::new();
    let admin = world.store.admin().expect("memory has it");
    for group in &world.plan.groups {
        let name = GroupName::new(group.name).expect("a name");
        let report = admin.group(&name).await.expect("a report");
        let own = || lineages.all.iter().filter(|((of, _), _)| *of == group.name);
        let count = |wanted: fn(&State) -> bool| {
            own().filter(|(_, lineage)| wanted(&lineage.state)).count() as u64
        };
        let dead = count(|state| matches!(state, State::Dead(_)));
        let parked = count(|state| *state == State::Parked);
        let sum = |of: fn(&rumormill::driver::admin::GroupPartition) -> u64| -> u64 {
            report.partitions.iter().map(of).sum()
        };
        let told = [
            ("dead", report.dead().count, dead),
            ("parked", sum(|part| part.parked), parked),
            ("pending", sum(|part| part.pending.count), 0),
            ("due", sum(|part| part.due.count), 0),
            ("unread", sum(|part| part.unread.count), 0),
            ("retry", sum(|part| part.retry_length), 0),
            ("live", report.consumers.iter().filter(|own| own.live).count() as u64, 0),
        ];
        for (what, told, right) in told {
            if told != right {
                found.push(format!("{}: {told} {what} reported, {right} is right", group.name));
            }
        }
        let letters = world.store.dead_letters(&name, ENTRIES_MAX).await.expect("letters");
        for letter in letters {
            let key = (group.name, letter.origin.clone());
            let state = lineages.all.get(&key).map(|own| &own.state);
            if state != Some(&State::Dead(letter.failure.cause)) || letter.failure.errors.is_empty()
            {
                found.push(format!("{}: letter {} is {state:?}", group.name, letter.origin));
            }
        }
    }
    found
}
