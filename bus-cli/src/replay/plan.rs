//! What would go where: how many events to which topic, and which groups handle them.

use std::collections::BTreeMap;
use std::io::{Write, stderr};
use std::sync::Arc;

use rumormill::driver::admin::GroupReport;
use rumormill::{Bus, Error, EventType, Topic};
use serde::Serialize;

use crate::address::Address;
use crate::args::Format;
use crate::escape::escape;
use crate::failure::Failure;
use crate::operate::several;
use crate::table::{Column, Table};

/// Bad lines that are shown before a replay; the replay itself names each.
const BAD_LINES_SHOWN: usize = 5;

/// What a recording holds, as it would go out.
#[derive(Default)]
pub(super) struct Survey {
    types: BTreeMap<EventType, u64>,
    /// Lines that would be left out, and why.
    pub(super) bad: Vec<(u64, String)>,
    pub(super) notes: Vec<String>,
}

impl Survey {
    pub(super) fn count(&mut self, event_type: &EventType) {
        *self.types.entry(event_type.clone()).or_default() += 1;
    }

    /// `7 events`.
    pub(super) fn events(&self) -> String {
        several(self.types.values().sum(), "event")
    }

    /// Says what is wrong with it, every line of it or some.
    pub(super) fn say(&self, all: bool) {
        let shown = if all { self.bad.len() } else { BAD_LINES_SHOWN };
        for (line, why) in self.bad.iter().take(shown) {
            Failure::failed(left_out(*line, why)).print(&Address::none(), &mut stderr());
        }
        if self.bad.len() > shown {
            say(&format!("{} more lines are left out", self.bad.len() - shown));
        }
        self.notes.iter().for_each(|note| say(note));
    }
}

/// What is said of a line that is not replayed.
pub(super) fn left_out(line: u64, why: &str) -> String {
    format!("line {line} is left out: {why}")
}

/// A remark that ends nothing.
pub(super) fn say(text: &str) {
    let _ = writeln!(stderr(), "note: {}", escape(text));
}

/// Where the events go.
pub(super) struct Plan(Vec<Target>);

/// A topic.
#[derive(Serialize)]
struct Target {
    topic: Topic,
    /// There is such a topic already.
    known: bool,
    events: u64,
    groups: Vec<Handler>,
}

/// A group that handles events of a topic.
#[derive(Serialize)]
struct Handler {
    group: String,
    events: u64,
    live_consumers: usize,
}

impl Plan {
    /// Asks the store which groups there are.
    pub(super) async fn of(survey: &Survey, bus: &Bus) -> Result<Self, Failure> {
        let asked = look(bus).await;
        let (known, groups) =
            asked.map_err(|error| Failure::library("cannot see who handles the events", &error))?;
        let mut topics: BTreeMap<Topic, Vec<(&EventType, u64)>> = BTreeMap::new();
        for (event_type, count) in &survey.types {
            topics.entry(event_type.topic()).or_default().push((event_type, *count));
        }
        let target = |(topic, types): (Topic, Vec<(&EventType, u64)>)| Target {
            known: known.contains(&topic),
            events: types.iter().map(|(_, count)| count).sum(),
            groups: groups.iter().filter_map(|group| handler(group, &types)).collect(),
            topic,
        };
        Ok(Self(topics.into_iter().map(target).collect()))
    }

    /// On stdout, for a dry run.
    pub(super) fn print(&self, format: Format) -> Result<(), Failure> {
        let titles = [Column::left("TOPIC"), Column::right("EVENTS"), Column::left("HANDLED BY")];
        let mut table = Table::new(titles).or_say("no events");
        for target in &self.0 {
            let Target { topic, events, .. } = target;
            table.row([topic.to_string(), events.to_string(), target.handled_by()]);
        }
        table.print(format, &self.0).map(drop)
    }

    /// On stderr, before the question.
    pub(super) fn say(&self) {
        for target in &self.0 {
            let (events, topic) = (several(target.events, "event"), &target.topic);
            let text = format!("{events} of topic {topic}, handled by {}", target.handled_by());
            let _ = writeln!(stderr(), "{text}");
        }
    }
}

async fn look(bus: &Bus) -> Result<(Vec<Topic>, Vec<GroupReport>), Error> {
    let driver = Arc::clone(bus.driver());
    let (Some(tools), Some(admin)) = (driver.tools(), driver.admin()) else {
        return Ok((Vec::new(), Vec::new()));
    };
    let topics = tools.topics().await?.into_iter().map(|shape| shape.topic).collect();
    let mut groups = Vec::new();
    for group in admin.groups().await? {
        groups.push(admin.group(&group).await?);
    }
    Ok((topics, groups))
}

/// The group, if it routes one of these types.
fn handler(group: &GroupReport, types: &[(&EventType, u64)]) -> Option<Handler> {
    let routed =
        |event_type: &EventType| group.routes.iter().any(|route| route.pattern.matches(event_type));
    let routed = types.iter().filter(|(event_type, _)| routed(event_type));
    let events: u64 = routed.map(|(_, count)| count).sum();
    let live_consumers = group.consumers.iter().filter(|consumer| consumer.live).count();
    let group = group.group.as_str().to_owned();
    (events > 0).then_some(Handler { group, events, live_consumers })
}

impl Target {
    /// `billing (2 live), email (none live)`.
    fn handled_by(&self) -> String {
        let handler = |handler: &Handler| {
            let Handler { group, events, live_consumers } = handler;
            let part = if *events == self.events { String::new() } else { format!("{events}, ") };
            match live_consumers {
                0 => format!("{group} ({part}none live)"),
                live => format!("{group} ({part}{live} live)"),
            }
        };
        let handlers: Vec<String> = self.groups.iter().map(handler).collect();
        match (handlers.is_empty(), self.known) {
            (false, _) => handlers.join(", "),
            (true, true) => "nobody".to_owned(),
            (true, false) => "nobody (a new topic)".to_owned(),
        }
    }
}
