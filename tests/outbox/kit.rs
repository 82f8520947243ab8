//! Events, and what became of them.

use std::time::Duration;

use rumormill::driver::Driver;
use rumormill::outbox::{Most, Skip, Store};
use rumormill::{Bus, ContentType, Envelope, EventType, Services, Timestamp};

pub(crate) const ALL: Most = Most { events: 1_000, bytes: 1 << 20 };

/// An event of a type and a key, whose payload is a number.
pub(crate) fn event(event_type: &str, key: Option<&str>, number: u32) -> Envelope {
    let event_type: EventType = event_type.parse().expect("a type");
    let now = Timestamp::from_millis(1_767_323_045_000 + u64::from(number));
    let builder = Envelope::builder(event_type, ContentType::JSON, number.to_string(), now);
    builder.key(key).build().expect("within limits")
}

/// The number in an event.
pub(crate) fn number(event: &Envelope) -> u32 {
    event.payload_as().expect("a number")
}

/// The numbers of the events that wait, in order.
pub(crate) async fn waiting(store: &impl Store) -> Vec<u32> {
    waiting_but(store, &Skip::default()).await
}

pub(crate) async fn waiting_but(store: &impl Store, skip: &Skip) -> Vec<u32> {
    let rows = store.pending(ALL, skip).await.expect("it answers");
    rows.into_iter().map(|row| number(&row.event.expect("an event"))).collect()
}

pub(crate) async fn bus(driver: std::sync::Arc<dyn Driver>) -> Bus {
    let builder = Bus::builder().driver(driver).services(Services::none());
    builder.build().await.expect("a bus")
}

/// All events of a bus, topic by topic and partition by partition.
pub(crate) async fn log(driver: &dyn Driver) -> Vec<Envelope> {
    let tools = driver.tools().expect("it has them");
    let mut events = Vec::new();
    for topic in tools.topics().await.expect("it answers") {
        for partition in topic.partitions() {
            let mut after = rumormill::delivery::EntryId::ZERO;
            loop {
                let from = [(partition.clone(), after)];
                let entries = tools.read(&from, 1_000, Duration::ZERO).await.expect("a log");
                let Some(last) = entries.last() else { break };
                after = last.id;
                let records = entries.iter().flat_map(|entry| &*entry.records);
                events.extend(records.map(|record| record.clone().expect("an event")));
            }
        }
    }
    events
}

/// The numbers in the log.
pub(crate) async fn numbers(driver: &dyn Driver) -> Vec<u32> {
    log(driver).await.iter().map(number).collect()
}
