//! Judges a history: each rule reads the facts in order and says what broke it.

mod broadcasts;
mod counts;
mod drains;
mod lineage;
mod log;
mod runs;

use std::time::Duration;

use rumormill::Event;

use crate::handlers::{Letter, Note, Order};
use crate::history::{Fact, Process};
use crate::plan::{GroupPlan, Kind, Plan};
use crate::world::World;

/// Everything that is wrong, one line each.
pub async fn audit(world: &World) -> Vec<String> {
    let facts = std::mem::take(&mut *world.history.facts());
    let mut lineages = lineage::Lineages::new(&world.plan);
    let mut runs = runs::Runs::new(&world.plan);
    let mut drains = drains::Drains::default();
    let mut counts = counts::Counts::new(&world.plan);
    let mut broadcasts = broadcasts::Broadcasts::default();
    for (at, fact) in &facts {
        lineages.see(*at, fact);
        runs.see(*at, fact);
        drains.see(*at, fact);
        counts.see(*at, fact);
        broadcasts.see(*at, fact);
    }
    let mut found = log::check(world, &facts, &lineages).await;
    found.extend(lineages.found);
    found.extend(runs.found);
    found.extend(drains.found);
    found.extend(counts.found);
    found.extend(broadcasts.judge(&log::read(world).await, &world.plan));
    *world.history.facts() = facts;
    found
}

/// A violation, with where it stands in the history.
fn line(at: Duration, process: Process, text: impl std::fmt::Display) -> String {
    format!("{:.3} P{process}: {text}", at.as_secs_f64())
}

impl Plan {
    pub fn group(&self, name: &str) -> &GroupPlan {
        self.groups.iter().find(|group| group.name == name).expect("a group of the plan")
    }
}

impl GroupPlan {
    /// Whether a handler of the group is to see such an event.
    pub fn handles(&self, event_type: &str, key: Option<&str>) -> bool {
        self.routes(event_type) && self.passes(key)
    }

    /// Whether the group has a route for such an event.
    pub fn routes(&self, event_type: &str) -> bool {
        let known = [Order::TYPE, Note::TYPE];
        self.kind == Kind::Any || known.iter().any(|known| known.as_str() == event_type)
    }

    /// Whether an event with such a key passes the filter.
    pub fn passes(&self, key: Option<&str>) -> bool {
        self.key_prefix.is_none_or(|own| key.is_some_and(|key| key.starts_with(own)))
    }

    /// Whether the group reads the topic of such an event.
    pub fn reads(&self, event_type: &str) -> bool {
        self.kind == Kind::Any || event_type != Letter::TYPE.as_str()
    }
}

/// What an event is of, by its name: only publications have one without a stroke.
fn event_type(plan: &Plan, name: &str) -> &'static str {
    use crate::plan::What;
    let mut all = plan.publications.iter().flatten();
    match all.find(|publication| publication.name == name).map(|found| found.what) {
        Some(What::Order) => "shop.order.placed",
        Some(What::Note) => "shop.note.made",
        Some(What::Odd) => "shop.odd.thing",
        None if name == "malformed" => "malformed",
        None => "mail.letter.sent",
    }
}

/// A process of which a fact tells.
fn process_of(fact: &Fact) -> Option<Process> {
    match fact {
        Fact::Started(process)
        | Fact::Crashed(process)
        | Fact::Draining(process)
        | Fact::Drained(process, _)
        | Fact::Subscribed(process, _)
        | Fact::Unsubscribing(process, _)
        | Fact::Unsubscribed(process, _)
        | Fact::Fault(process, _)
        | Fact::Publishing(process, _)
        | Fact::Published(process, ..)
        | Fact::Handed(process, _)
        | Fact::Settled(process, _)
        | Fact::Left(process, _)
        | Fact::Begun(process, _)
        | Fact::Ended(process, ..)
        | Fact::Counted(process, ..)
        | Fact::Listening(process)
        | Fact::Heard(process, ..) => Some(*process),
        Fact::Redriven(..) | Fact::Purged(..) => None,
    }
}
