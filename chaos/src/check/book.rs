//! The histories of a round, put together by event and by fault. Built in one pass.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use super::growth::Level;
use crate::Result;
use crate::aside::Scope;
use crate::history::{self, Costs, Counts, Evidence, How, Record, What};
use crate::kinds::clock::JUMP_MAX;
use crate::load::{Act, GROUPS};
use crate::time::nanos;

/// What a fault may still disturb after it was healed: a client's longest wait, a lease and a
/// sweep.
const AFTER: u64 = nanos(Duration::from_millis(5_500));
/// A publish that takes so long tells of a server that does not do well.
const SLOW: u64 = nanos(Duration::from_secs(1));
/// A fault begins to be felt a moment before it is written down.
const BEFORE: u64 = nanos(Duration::from_millis(300));

/// Within which a server syncs that does so each second.
const SYNC: u64 = nanos(Duration::from_secs(2));
const JUMP: u64 = nanos(JUMP_MAX);

/// Faults that are no reason for anything to be run again.
const CALM: &[&str] =
    &["handler-panics", "handler-outlasts-lease", "foreign-entries", "scripts-flushed"];

/// Everything that is known of a round.
#[derive(Debug, Default)]
pub(crate) struct Book {
    pub(crate) events: HashMap<String, Story>,
    pub(crate) faults: Vec<Fault>,
    /// Times in which something was not as it should be.
    disturbances: Vec<(u64, u64)>,
    /// Which event was said to lie where, by whom.
    pub(crate) places: Vec<(String, String)>,
    /// Where entries lie that are no events of the load.
    pub(crate) foreign: Vec<String>,
    /// Dead letters that hold none of our events.
    pub(crate) strange_letters: Vec<Letter>,
    pub(crate) left: HashMap<String, (u64, u64, u64)>,
    pub(crate) incidents: Vec<Incident>,
    pub(crate) processes: Vec<Process>,
    /// Who may see what, and who has seen it.
    pub(crate) asides: HashMap<String, Scope>,
    pub(crate) seen: Vec<(String, Scope)>,
    pub(crate) notes: Vec<(u64, String)>,
    pub(crate) from: u64,
    pub(crate) to: u64,
    /// When, and when the event was invoked.
    pub(crate) acknowledged: Vec<Moment>,
    pub(crate) delivered: Vec<Moment>,
}

/// When something happened to an event, and when it was invoked.
pub(crate) type Moment = (u64, u64);

/// What became of an event.
#[derive(Debug, Default)]
pub(crate) struct Story {
    pub(crate) publisher: String,
    pub(crate) number: u64,
    pub(crate) key: u32,
    pub(crate) act: Option<Act>,
    pub(crate) invoked: Option<u64>,
    /// When, and where it is said to lie.
    pub(crate) acknowledged: Option<(u64, String)>,
    pub(crate) not_stored: Option<String>,
    pub(crate) unknown: bool,
    /// Where it lies in the end.
    pub(crate) stored: Vec<String>,
    pub(crate) spoiled: u32,
    /// Where that lies which the idempotent group published of it.
    pub(crate) outputs: Vec<String>,
    pub(crate) groups: [GroupStory; 2],
}

/// What became of it in one group.
#[derive(Debug, Default)]
pub(crate) struct GroupStory {
    pub(crate) deliveries: Vec<Delivery>,
    pub(crate) effects: u32,
    pub(crate) dead: Vec<Letter>,
}

#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    pub(crate) t: u64,
    pub(crate) process: usize,
    pub(crate) attempt: u32,
    pub(crate) at: String,
    pub(crate) end: Option<(u64, How)>,
}

#[derive(Clone, Debug)]
pub(crate) struct Letter {
    pub(crate) group: String,
    pub(crate) at: String,
    pub(crate) cause: String,
}

#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) name: String,
    pub(crate) evidence: Evidence,
    pub(crate) costs: Costs,
    pub(crate) from: u64,
    /// When it was healed.
    pub(crate) to: u64,
    pub(crate) seen: u64,
    pub(crate) botched: Option<String>,
}

#[derive(Clone, Debug)]
pub(crate) struct Incident {
    pub(crate) t: u64,
    pub(crate) name: String,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Process {
    pub(crate) name: String,
    pub(crate) incidents: HashMap<String, u64>,
    pub(crate) missed: u64,
    pub(crate) counts: Option<Counts>,
    pub(crate) last: u64,
    /// What it used, and when.
    pub(crate) rss_kib: Vec<Level>,
    pub(crate) files: Vec<Level>,
    pub(crate) tasks: Vec<Level>,
}

impl Fault {
    fn new(t: u64, name: &str, evidence: Evidence, costs: Costs) -> Self {
        let name = name.to_owned();
        Self { name, evidence, costs, from: t, to: u64::MAX, seen: 0, botched: None }
    }
}

/// The number of a group.
fn group_number(group: &str) -> Option<usize> {
    GROUPS.iter().position(|own| *own == group)
}

impl Book {
    /// Reads a folder of histories.
    pub(crate) fn open(folder: &Path) -> Result<Self> {
        let mut histories = Vec::new();
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|ending| ending == "ndjson") {
                let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                histories.push((name, history::read(&path)?));
            }
        }
        histories.sort_by(|one, other| one.0.cmp(&other.0));
        Ok(Self::read(&histories))
    }

    /// Puts histories together, each with its process' name.
    pub(crate) fn read(histories: &[(String, Vec<Record>)]) -> Self {
        let mut book = Self { from: u64::MAX, ..Self::default() };
        // All of them first: one tells of another.
        let process =
            |(name, _): &(String, _)| Process { name: name.clone(), ..Process::default() };
        book.processes = histories.iter().map(process).collect();
        for (process, (_, records)) in histories.iter().enumerate() {
            for record in records {
                book.from = book.from.min(record.t);
                book.to = book.to.max(record.t);
                book.processes[process].last = record.t;
                book.take(process, record);
            }
        }
        book.adopt_letters();
        book.find_disturbances();
        book
    }

    fn story(&mut self, event: &str) -> &mut Story {
        self.events.entry(event.to_owned()).or_insert_with(|| {
            let (publisher, number) = event.split_once('/').unwrap_or((event, ""));
            let number = number.parse().unwrap_or(u64::MAX);
            Story { publisher: publisher.to_owned(), number, ..Story::default() }
        })
    }

    fn group(&mut self, event: &str, group: &str) -> Option<&mut GroupStory> {
        let number = group_number(group)?;
        Some(&mut self.story(event).groups[number])
    }

    fn take(&mut self, process: usize, Record { t, what }: &Record) {
        match what {
            What::Invoke { .. }
            | What::Ok { .. }
            | What::NotStored { .. }
            | What::Unknown { .. } => {
                self.take_publish(*t, what);
            }
            What::Deliver { .. } | What::Effect { .. } | What::End { .. } => {
                self.take_delivery(process, *t, what);
            }
            What::Fault { .. } | What::Healed { .. } | What::Botched { .. } => {
                self.take_fault(*t, what);
            }
            What::Stored { .. }
            | What::Output { .. }
            | What::Foreign { .. }
            | What::Dead { .. }
            | What::Left { .. } => {
                self.take_end(what);
            }
            What::Incident { name, entries, .. } => {
                self.incidents.push(Incident { t: *t, name: name.clone() });
                *self.processes[process].incidents.entry(name.clone()).or_default() += entries;
            }
            What::IncidentsMissed { count } => self.processes[process].missed += count,
            What::Ended { counts } => self.processes[process].counts = Some(*counts),
            What::Sample { process: name, rss_kib, files } => {
                self.sample(*t, name, *rss_kib, *files);
            }
            What::Aside { event, scope } => drop(self.asides.insert(event.clone(), *scope)),
            What::Seen { event, by } => self.seen.push((event.clone(), *by)),
            What::Tasks { count } => self.processes[process].tasks.push((*t, *count)),
            What::Note { text } => self.notes.push((*t, text.clone())),
            What::Started { .. } => {}
        }
    }

    fn take_publish(&mut self, t: u64, what: &What) {
        match what {
            What::Invoke { event, key, act } => {
                let story = self.story(event);
                (story.key, story.act, story.invoked) = (*key, Some(*act), Some(t));
            }
            What::Ok { event, made, at, .. } => {
                self.story(event).acknowledged = Some((t, at.clone()));
                self.acknowledged.push((t, *made));
                self.places.push((at.clone(), event.clone()));
            }
            What::NotStored { event, why } => self.story(event).not_stored = Some(why.clone()),
            What::Unknown { event, .. } => self.story(event).unknown = true,
            _ => {}
        }
    }

    fn take_delivery(&mut self, process: usize, t: u64, what: &What) {
        match what {
            What::Deliver { event, group, attempt, at, made, intact, .. } => {
                let (attempt, at) = (*attempt, at.clone());
                self.delivered.push((t, *made));
                self.places.push((at.clone(), event.clone()));
                self.story(event).spoiled += u32::from(!intact);
                if let Some(own) = self.group(event, group) {
                    own.deliveries.push(Delivery { t, process, attempt, at, end: None });
                }
            }
            What::Effect { event, group } => {
                if let Some(own) = self.group(event, group) {
                    own.effects += 1;
                }
            }
            What::End { event, group, how } => {
                let Some(own) = self.group(event, group) else { return };
                let running = |delivery: &&mut Delivery| {
                    delivery.process == process && delivery.end.is_none()
                };
                if let Some(delivery) = own.deliveries.iter_mut().rev().find(running) {
                    delivery.end = Some((t, *how));
                }
            }
            _ => {}
        }
    }

    fn take_fault(&mut self, t: u64, what: &What) {
        let place = |number: &u32| usize::try_from(*number).unwrap_or(usize::MAX);
        match what {
            What::Fault { name, evidence, costs, .. } => {
                self.faults.push(Fault::new(t, name, *evidence, *costs));
            }
            What::Healed { number, seen, .. } => {
                if let Some(fault) = self.faults.get_mut(place(number)) {
                    (fault.to, fault.seen) = (t, *seen);
                }
            }
            What::Botched { number, why, .. } => {
                if let Some(fault) = self.faults.get_mut(place(number)) {
                    fault.botched = Some(why.clone());
                }
            }
            _ => {}
        }
    }

    fn take_end(&mut self, what: &What) {
        match what {
            What::Stored { event, at, intact } => {
                self.places.push((at.clone(), event.clone()));
                let story = self.story(event);
                story.stored.push(at.clone());
                story.spoiled += u32::from(!intact);
            }
            What::Output { event, at } => self.story(event).outputs.push(at.clone()),
            What::Foreign { at } => self.foreign.push(at.clone()),
            What::Dead { event, group, at, cause, .. } => {
                let letter = Letter { group: group.clone(), at: at.clone(), cause: cause.clone() };
                match event.as_ref().and_then(|event| self.group(event, group)) {
                    Some(own) => own.dead.push(letter),
                    None => self.strange_letters.push(letter),
                }
            }
            What::Left { group, unread, pending, due, .. } => {
                self.left.insert(group.clone(), (*unread, *pending, *due));
            }
            _ => {}
        }
    }

    fn sample(&mut self, t: u64, name: &str, rss_kib: u64, files: u64) {
        if let Some(process) = self.processes.iter_mut().find(|process| process.name == name) {
            process.rss_kib.push((t, rss_kib));
            process.files.push((t, files));
        }
    }

    /// An event that was spoiled on its way to a worker died as no event, and what lies behind it
    /// in its entry with it: they are known by their places.
    fn adopt_letters(&mut self) {
        let mut entries: HashMap<String, Vec<(u32, String)>> = HashMap::new();
        for (name, story) in &self.events {
            for (entry, index) in story.stored.iter().filter_map(|at| split_place(at)) {
                entries.entry(entry.to_owned()).or_default().push((index, name.clone()));
            }
        }
        for letter in std::mem::take(&mut self.strange_letters) {
            let (entry, first) = split_place(&letter.at).unwrap_or_default();
            let behind = entries.get(entry).into_iter().flatten().filter(|own| own.0 >= first);
            let names: Vec<String> = behind.map(|(_, name)| name.clone()).collect();
            for name in &names {
                if let Some(own) = self.group(name, &letter.group) {
                    own.dead.push(letter.clone());
                }
            }
            if names.is_empty() {
                self.strange_letters.push(letter);
            }
        }
    }

    fn find_disturbances(&mut self) {
        for fault in self.faults.iter().filter(|fault| !CALM.contains(&fault.name.as_str())) {
            let to = fault.to.saturating_add(AFTER);
            self.disturbances.push((fault.from.saturating_sub(BEFORE), to));
        }
        for process in &self.processes {
            // It died, or was killed: what it held goes to others.
            let is_ours = process.name.starts_with(['p', 'w']);
            if is_ours && process.counts.is_none() && process.last > 0 {
                let from = process.last.saturating_sub(BEFORE);
                self.disturbances.push((from, process.last.saturating_add(AFTER)));
            }
        }
        self.disturbances.extend(self.events.values().filter_map(slow));
        self.disturbances.sort_unstable();
        self.disturbances = joined(&self.disturbances);
    }

    /// Whether all was as it should be from one moment to another.
    pub(crate) fn is_quiet(&self, from: u64, to: u64) -> bool {
        let next = self.disturbances.partition_point(|(_, end)| *end < from);
        self.disturbances.get(next).is_none_or(|(begin, _)| *begin > to)
    }

    /// Whether a fault of such a name was under way or just over.
    pub(crate) fn has_fault(&self, name: &str) -> bool {
        self.faults.iter().any(|fault| fault.name == name)
    }

    /// Whether a fault that may cost what was acknowledged then excuses its loss.
    pub(crate) fn is_excused(&self, acknowledged: u64) -> bool {
        self.faults.iter().any(|fault| match fault.costs {
            Costs::Nothing => false,
            Costs::Everything => acknowledged <= fault.to,
            Costs::Recent => {
                let window = self.window(fault);
                let reaches = |from: u64| acknowledged.saturating_add(window) >= from;
                acknowledged <= fault.to && reaches(fault.from)
                    || self.left_unsynced(fault).any(|kill| acknowledged <= kill && reaches(kill))
            }
        })
    }

    /// When a server was killed in a rewrite before a power loss: it goes on with the newer file
    /// of its log, and never syncs the end of the older one again.
    fn left_unsynced<'a>(&'a self, loss: &'a Fault) -> impl Iterator<Item = u64> + 'a {
        let kill = |fault: &&Fault| fault.name == "server-killed-in-rewrite";
        self.faults.iter().filter(kill).map(|kill| kill.to).filter(|to| *to <= loss.to)
    }

    /// Whether what happened then may be gone with everything.
    pub(crate) fn is_excused_whole(&self, t: u64) -> bool {
        self.faults.iter().any(|fault| fault.costs == Costs::Everything && t <= fault.to)
    }

    /// Whether anything in this round may cost everything.
    pub(crate) fn may_lose_everything(&self) -> bool {
        self.is_excused_whole(0)
    }

    /// How far back a power loss may reach where a server syncs each second: two seconds, the
    /// slowest sync, and how far its clock went back, for it syncs nothing until that has caught
    /// up.
    fn window(&self, loss: &Fault) -> u64 {
        let near = |fault: &&Fault, reach: u64| {
            fault.from <= loss.to && fault.to.saturating_add(reach) >= loss.from
        };
        let is_slow = |fault: &&Fault| matches!(fault.name.as_str(), "slow-sync" | "disk-full");
        let slow = self.faults.iter().filter(is_slow).filter(|fault| near(fault, SYNC));
        let slowest = slow.map(|fault| fault.to - fault.from).max();
        let jumped = |fault: &Fault| fault.name.starts_with("clock-") && near(&fault, JUMP);
        let jump = if self.faults.iter().any(jumped) { JUMP } else { 0 };
        SYNC + jump + slowest.unwrap_or(0)
    }

    /// Whether a fault had an effect.
    pub(crate) fn counts(&self, fault: &Fault) -> bool {
        if fault.to == u64::MAX || fault.botched.is_some() && fault.seen == 0 {
            return false;
        }
        match fault.evidence {
            Evidence::Counted => fault.seen > 0,
            Evidence::Stall => {
                let half = (fault.to - fault.from) / 2;
                longest_gap(&self.acknowledged, fault.from, fault.to) >= half
            }
        }
    }

    /// Sorts what is looked up by time.
    pub(crate) fn sorted(mut self) -> Self {
        self.acknowledged.sort_unstable();
        self.delivered.sort_unstable();
        self.incidents.sort_by_key(|incident| incident.t);
        for group in self.events.values_mut().flat_map(|story| &mut story.groups) {
            group.deliveries.sort_by_key(|delivery| delivery.t);
        }
        self
    }
}

/// The time of a publish that took longer than with a server that does well: a machine with too
/// much to do is a fault like others.
fn slow(story: &Story) -> Option<(u64, u64)> {
    let invoked = story.invoked?;
    let ended = match &story.acknowledged {
        Some((ended, _)) => *ended,
        None if story.unknown => invoked + nanos(Duration::from_secs(5)),
        None => return None,
    };
    let took = ended.saturating_sub(invoked);
    (took >= SLOW).then(|| (invoked, ended.saturating_add(AFTER)))
}

/// The same times, none of which touches another.
fn joined(sorted: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let mut joined: Vec<(u64, u64)> = Vec::new();
    for (begin, end) in sorted {
        match joined.last_mut() {
            Some(last) if last.1 >= *begin => last.1 = last.1.max(*end),
            _ => joined.push((*begin, *end)),
        }
    }
    joined
}

/// Entry and index.
fn split_place(at: &str) -> Option<(&str, u32)> {
    let (entry, index) = at.rsplit_once('/')?;
    Some((entry, index.parse().ok()?))
}

/// The longest time without any of these, of ascending moments, between two.
pub(crate) fn longest_gap(moments: &[Moment], from: u64, to: u64) -> u64 {
    let begin = moments.partition_point(|moment| moment.0 < from);
    let (mut last, mut longest) = (from, 0);
    for (t, _) in moments[begin..].iter().take_while(|moment| moment.0 <= to) {
        longest = longest.max(t - last);
        last = *t;
    }
    longest.max(to - last)
}
