//! What was published, in order, and which of it a test has taken.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use super::views;
use crate::delivery::{EntryId, Partition};
use crate::driver::Tools;
use crate::envelope::Envelope;

/// Lines of a list in a message; the rest is counted.
const SHOWN_MAX: usize = 20;

#[derive(Debug, Default)]
pub(super) struct Journal {
    read: HashMap<Partition, EntryId>,
    published: Vec<Published>,
}

#[derive(Debug)]
struct Published {
    envelope: Envelope,
    taken: bool,
}

impl Journal {
    /// Reads what came since; of several topics' events the order of their moments.
    pub(super) async fn refresh(&mut self, tools: &dyn Tools) {
        let topics = tools.topics().await.expect("the memory driver is open");
        let partitions = topics.iter().flat_map(|topic| topic.partitions());
        let after: Vec<_> = partitions
            .map(|partition| {
                let id = self.read.get(&partition).copied().unwrap_or(EntryId::ZERO);
                (partition, id)
            })
            .collect();
        let read = tools.read(&after, usize::MAX, Duration::ZERO).await;
        let mut entries = read.expect("the memory driver is open, its topics declared");
        entries.sort_by_key(|entry| entry.id);
        for entry in entries {
            self.read.insert(entry.partition.clone(), entry.id);
            let envelopes = entry.records.iter().flatten().cloned();
            self.published.extend(envelopes.map(|envelope| Published { envelope, taken: false }));
        }
    }

    /// The oldest event of a type that was not taken.
    pub(super) fn take(&mut self, event_type: &str) -> Option<Envelope> {
        let found = self.published.iter_mut().find(|published| {
            !published.taken && published.envelope.event_type().as_str() == event_type
        })?;
        found.taken = true;
        Some(found.envelope.clone())
    }
}

impl fmt::Display for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.published.is_empty() {
            return writeln!(f, "  nothing was published");
        }
        writeln!(f, "  published:")?;
        let first = self.published.len().saturating_sub(SHOWN_MAX);
        if first > 0 {
            writeln!(f, "    {first} earlier ones, then")?;
        }
        for Published { envelope, taken } in &self.published[first..] {
            let taken = if *taken { ", expected before" } else { "" };
            writeln!(f, "    {}{taken}", views::envelope(envelope))?;
        }
        Ok(())
    }
}
