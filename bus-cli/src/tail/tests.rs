use rumormill::driver::memory::{MemoryDriver, MemoryOptions};
use rumormill::{ContentType, EventType, Services, Timestamp};

use super::*;
use crate::args::Format;

async fn bus() -> Bus {
    let builder = Bus::builder().driver(MemoryDriver::new(MemoryOptions::default()));
    builder.services(Services::none()).build().await.expect("a bus in memory")
}

fn envelope(event_type: &str, data: usize) -> Envelope {
    let event_type = EventType::new(event_type.to_owned()).expect("valid");
    let now = Timestamp::from_millis(1);
    let builder = Envelope::builder(event_type, ContentType::JSON, data.to_string(), now);
    builder.build().expect("valid")
}

/// Publishes `count` events, numbered, one in three of them `a.odd`.
async fn publish(bus: &Bus, count: usize) {
    let envelopes =
        (0..count).map(|number| envelope(if number % 3 == 1 { "a.odd" } else { "a.even" }, number));
    for answer in bus.publisher().publish_envelopes(envelopes.collect()).await {
        answer.expect("stored");
    }
}

fn task(start: Start, patterns: &[&str]) -> Tail {
    let patterns = patterns.iter().map(|text| text.parse().expect("valid")).collect();
    Tail { patterns, start, limit: None, until_end: true, format: None }
}

async fn shown(bus: &Bus, task: &Tail) -> Vec<String> {
    let driver = Arc::clone(bus.driver());
    let tools = driver.tools().expect("memory has tools");
    let output = Output::buffer(Format::Raw, false);
    let mut tailing = Tailing { task, tools, address: &Address::none(), output, shown: 0 };
    let exit = tailing.run().await.expect("ends well");
    assert_eq!(exit, Exit::Done);
    tailing.output.text().lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn everything_until_the_end_is_shown_in_order() {
    let bus = bus().await;
    publish(&bus, 600).await;
    let all = shown(&bus, &task(Start::Since(Duration::from_secs(3600)), &[">"])).await;
    assert_eq!(all, (0..600).map(|number| number.to_string()).collect::<Vec<_>>());
    let new = shown(&bus, &task(Start::New, &[">"])).await;
    assert!(new.is_empty());
}

#[tokio::test]
async fn the_last_events_are_those_that_match() {
    let bus = bus().await;
    publish(&bus, 300).await;
    let last = |count, pattern: &'static str| task(Start::Last(count), &[pattern]);
    assert_eq!(shown(&bus, &last(3, ">")).await, ["297", "298", "299"]);
    assert_eq!(shown(&bus, &last(3, "a.odd")).await, ["292", "295", "298"]);
    assert_eq!(shown(&bus, &last(1000, "a.odd")).await.len(), 100);
    assert!(shown(&bus, &last(0, ">")).await.is_empty());
    assert!(shown(&bus, &last(3, "b.>")).await.is_empty());
}

#[tokio::test]
async fn a_position_is_shown_first() {
    let bus = bus().await;
    publish(&bus, 100).await;
    let receipts =
        bus.publisher().publish_envelopes((0..100).map(|n| envelope("a.b", n)).collect());
    let receipts: Vec<_> =
        receipts.await.into_iter().map(|answer| answer.expect("stored")).collect();
    let position = receipts[41].position.clone().expect("not delayed");
    let task = task(Start::From(position.entry, Some(position)), &["a.b"]);
    assert_eq!(shown(&bus, &task).await[..2], ["41", "42"]);
}

#[tokio::test]
async fn the_limit_ends_it() {
    let bus = bus().await;
    publish(&bus, 10).await;
    let start = Start::Since(Duration::from_secs(3600));
    let task = Tail { limit: Some(4), until_end: false, ..task(start, &[">"]) };
    assert_eq!(shown(&bus, &task).await.len(), 4);
}

#[tokio::test]
async fn topics_that_appear_later_are_read_from_their_beginning() {
    let bus = bus().await;
    let task = Tail { limit: Some(3), until_end: false, ..task(Start::New, &["*.b", "c.>"]) };
    let later = async {
        // The anchor is set at the first poll: there is no topic yet.
        tokio::task::yield_now().await;
        for (event_type, data) in [("a.b", 1), ("a.x", 2), ("c.d.e", 3), ("z.b", 4)] {
            bus.publisher().publish_envelope(envelope(event_type, data)).await.expect("stored");
        }
    };
    let (mut shown, ()) = tokio::join!(shown(&bus, &task), later);
    shown.sort();
    assert_eq!(shown, ["1", "3", "4"]);
}
