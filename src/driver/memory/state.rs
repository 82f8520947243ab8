//! The whole state behind the lock: topics, partitions, groups, delayed appends, and the account
//! of what is unsettled.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use tokio::time::Instant;

use super::MemoryOptions;
use super::group::Group;
use super::group_part::GroupPart;
use super::log::{Log, Stored, weigh};
use super::marks::Marks;
use crate::delivery::{Entry, EntryId, Partition, Record};
use crate::driver::{GroupName, TopicShape};
use crate::error::Error;
use crate::event_type::Topic;
use crate::pattern::Covered;
use crate::time::{Clock, Timestamp};

/// One consumer of one group.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member {
    pub(super) group: usize,
    pub(super) consumer: u64,
}

/// One partition: its log, and what each group has on it.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) partition: Partition,
    pub(super) log: Log,
    pub(super) groups: BTreeMap<usize, GroupPart>,
    pub(super) topic: usize,
}

#[derive(Debug)]
pub(super) struct TopicState {
    name: Topic,
    /// Places in `parts`, by partition index.
    parts: Vec<usize>,
    /// Entries that every group has settled, in that order.
    pub(super) history: VecDeque<(usize, EntryId)>,
    /// Their events.
    pub(super) history_events: usize,
}

pub(super) struct Delayed {
    part: usize,
    pub(super) records: Arc<[Record]>,
    weight: usize,
}

pub(super) struct State {
    pub(super) topics: Vec<TopicState>,
    topic_places: BTreeMap<Topic, usize>,
    pub(super) parts: Vec<Part>,
    pub(super) groups: Vec<Group>,
    pub(super) group_places: BTreeMap<GroupName, usize>,
    pub(super) delayed: BTreeMap<(Instant, u64), Delayed>,
    pub(super) marks: Marks,
    /// Weight of what some group has still to settle, and of delayed, due and retried events.
    pub(super) unsettled_bytes: usize,
    /// Appends that wait, first come first served.
    pub(super) waiting: BTreeSet<u64>,
    history_events_max: usize,
    pub(super) dead_letters_max: usize,
    clock: Arc<dyn Clock>,
    count: u64,
}

impl State {
    pub(super) fn new(options: &MemoryOptions) -> Self {
        Self {
            topics: Vec::new(),
            topic_places: BTreeMap::new(),
            parts: Vec::new(),
            groups: Vec::new(),
            group_places: BTreeMap::new(),
            delayed: BTreeMap::new(),
            marks: Marks::default(),
            unsettled_bytes: 0,
            waiting: BTreeSet::new(),
            history_events_max: options.history_events_max,
            dead_letters_max: options.dead_letters_max,
            clock: Arc::clone(&options.clock),
            count: 0,
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// A number that was not given before.
    pub(super) fn number(&mut self) -> u64 {
        self.count += 1;
        self.count
    }

    /// Makes a topic known; the groups that want it begin with its first event.
    pub(super) fn declare(&mut self, name: &Topic, partitions: u32) -> TopicShape {
        if !self.topic_places.contains_key(name) {
            self.create(name, partitions);
        }
        self.shape(&self.topics[self.topic_places[name]])
    }

    fn create(&mut self, name: &Topic, partitions: u32) {
        let topic = self.topics.len();
        let history = VecDeque::new();
        let parts = Vec::new();
        self.topics.push(TopicState { name: name.clone(), parts, history, history_events: 0 });
        self.topic_places.insert(name.clone(), topic);
        self.grow(topic, partitions);
    }

    /// Adds partitions to a topic until it has so many; gives the groups that read them.
    pub(super) fn grow(&mut self, topic: usize, partitions: u32) -> Vec<usize> {
        let name = self.topics[topic].name.clone();
        let reads = |group: usize| {
            let own = &self.topics[topic].parts;
            let is_on = |place: &usize| self.parts[*place].groups.contains_key(&group);
            self.groups[group].covers_topic(&name) || own.iter().any(is_on)
        };
        let wanting: Vec<usize> = (0..self.groups.len()).filter(|group| reads(*group)).collect();
        let before = u32::try_from(self.topics[topic].parts.len()).unwrap_or(u32::MAX);
        for index in before..partitions {
            let partition = Partition { topic: name.clone(), index };
            let groups = wanting.iter().map(|group| (*group, GroupPart::default())).collect();
            self.topics[topic].parts.push(self.parts.len());
            self.parts.push(Part { partition, log: Log::default(), groups, topic });
        }
        wanting
    }

    /// The place of a topic.
    pub(super) fn topic(&self, name: &Topic) -> Option<usize> {
        self.topic_places.get(name).copied()
    }

    /// The places of a topic's partitions.
    pub(super) fn parts_of_topic(&self, topic: usize) -> &[usize] {
        &self.topics[topic].parts
    }

    /// The name of a group.
    pub(super) fn group_name(&self, group: usize) -> Option<&GroupName> {
        self.group_places.iter().find(|(_, place)| **place == group).map(|(name, _)| name)
    }

    /// How much of a partition is kept back, and until when the first of it is.
    pub(super) fn delayed_of(&self, place: usize) -> (usize, Option<Instant>) {
        let own = || self.delayed.iter().filter(|(_, delayed)| delayed.part == place);
        let events = own().map(|(_, delayed)| delayed.records.len()).sum();
        (events, own().next().map(|((at, _), _)| *at))
    }

    fn shape(&self, topic: &TopicState) -> TopicShape {
        let partitions = u32::try_from(topic.parts.len()).unwrap_or(u32::MAX);
        TopicShape { topic: topic.name.clone(), partitions }
    }

    pub(super) fn shapes(&self) -> Vec<TopicShape> {
        self.topic_places.values().map(|topic| self.shape(&self.topics[*topic])).collect()
    }

    /// How many partitions there are: they are never taken away, so this tells of a new one.
    pub(super) fn part_count(&self) -> usize {
        self.parts.len()
    }

    /// The place of a partition.
    pub(super) fn part(&self, partition: &Partition) -> Result<usize, Error> {
        let topic = self.topic_places.get(&partition.topic).map(|topic| &self.topics[*topic]);
        let part = topic.and_then(|topic| topic.parts.get(partition.index as usize));
        part.copied()
            .ok_or_else(|| Error::invalid(format!("partition {partition} is not declared")))
    }

    /// The places of the partitions of these topics.
    pub(super) fn parts_of(&self, covered: &Covered) -> Vec<usize> {
        let topics = self.topics.iter().filter(|topic| covered.covers(&topic.name));
        topics.flat_map(|topic| topic.parts.iter().copied()).collect()
    }

    /// Appends an entry to a log.
    pub(super) fn store(&mut self, place: usize, records: Arc<[Record]>) -> EntryId {
        let wall = self.now();
        let part = &mut self.parts[place];
        let number = part.log.ids.given;
        let id = part.log.ids.next(wall);
        let mut open = 0;
        for own in part.groups.values_mut().filter(|own| own.cursor < id) {
            own.unread += 1;
            open += 1;
        }
        let weight = records.iter().map(weigh).sum();
        part.log.entries.insert(id, Stored { number, records, weight, open });
        if open == 0 {
            self.retire(place, id);
        } else {
            self.unsettled_bytes += weight;
        }
        id
    }

    /// One group has settled an entry of the log.
    pub(super) fn settled(&mut self, place: usize, id: EntryId) {
        let entries = &mut self.parts[place].log.entries;
        let stored = entries.get_mut(&id).expect("an entry stays while a group has it pending");
        assert!(stored.open > 0, "a group settles an entry once");
        stored.open -= 1;
        if stored.open == 0 {
            self.unsettled_bytes -= stored.weight;
            self.retire(place, id);
        }
    }

    /// Makes an entry history, and drops the oldest of it beyond the limit.
    fn retire(&mut self, place: usize, id: EntryId) {
        let topic = &mut self.topics[self.parts[place].topic];
        topic.history.push_back((place, id));
        topic.history_events += self.parts[place].log.entries[&id].records.len();
        while topic.history_events > self.history_events_max {
            let Some((place, id)) = topic.history.pop_front() else { return };
            let dropped = self.parts[place].log.entries.remove(&id);
            topic.history_events -= dropped.map_or(0, |stored| stored.records.len());
        }
    }

    /// Keeps an entry back until `at`.
    pub(super) fn delay(&mut self, part: usize, records: Arc<[Record]>, at: Instant) {
        let weight = records.iter().map(weigh).sum();
        self.unsettled_bytes += weight;
        let number = self.number();
        self.delayed.insert((at, number), Delayed { part, records, weight });
    }

    /// Appends what was kept back and is due. Everything that looks at the logs calls it first, so
    /// no task is needed to do it in time.
    pub(super) fn advance(&mut self, now: Instant) {
        while let Some(first) = self.delayed.first_entry().filter(|first| first.key().0 <= now) {
            let Delayed { part, records, weight } = first.remove();
            self.unsettled_bytes -= weight;
            self.store(part, records);
        }
    }

    /// When the next delayed entry is due.
    pub(super) fn next_delayed(&self) -> Option<Instant> {
        self.delayed.keys().next().map(|(at, _)| *at)
    }

    /// Hands out one entry of a partition.
    pub(super) fn take(&mut self, place: usize, member: Member, now: Instant) -> Option<Entry> {
        let part = &mut self.parts[place];
        let own = part.groups.get_mut(&member.group)?;
        if own.next_due().is_some_and(|due| due <= now) {
            own.move_due(now, self.clock.now());
        }
        if own.dead.len() >= self.dead_letters_max {
            return None;
        }
        own.take(&part.partition, &part.log, member, now)
    }

    /// The next moment at which a group may have something to take on a partition.
    pub(super) fn next_instant(&self, place: usize, group: usize) -> Option<Instant> {
        let own = self.parts[place].groups.get(&group)?;
        if own.dead.len() >= self.dead_letters_max { None } else { own.next_instant() }
    }

    /// The group that has most entries of a partition unread.
    pub(super) fn slowest(&self, place: usize) -> Option<(&GroupName, u64)> {
        let unread = |group: &usize| Some(self.parts[place].groups.get(group)?.unread);
        let groups = self.group_places.iter();
        groups.filter_map(|(name, group)| Some((name, unread(group)?))).max_by_key(|own| own.1)
    }

    /// What a group has on each partition it reads.
    pub(super) fn parts_of_group(&self, name: &GroupName) -> impl Iterator<Item = &GroupPart> {
        let group = self.group_places.get(name);
        self.parts.iter().filter_map(move |part| part.groups.get(group?))
    }
}
