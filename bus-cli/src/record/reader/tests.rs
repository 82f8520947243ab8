//! The pure parts: what may be written already, and what is missing.

use std::sync::Arc;

use rumormill::{Bus, Clock, ContentType, Envelope, EventType, SystemClock};

use super::*;

fn id(millis: u64) -> EntryId {
    EntryId { millis, seq: 0 }
}

fn extent(first: Option<u64>, last: u64, added: u64, kept: u64) -> Extent {
    Extent { first: first.map(id), last: id(last), added, kept }
}

#[test]
fn a_log_whose_beginning_is_there_has_no_gap() {
    let mut place = Place::begin(id(5), extent(Some(1), 9, 9, 9), None);
    assert_eq!(place.look(extent(Some(4), 20, 20, 17)), Gap::None, "the place is there");
    assert_eq!(place.look(extent(Some(8), 20, 20, 13)), Gap::Missed(7), "at most");
    assert_eq!(place.look(extent(Some(8), 20, 20, 13)), Gap::None, "said once");
}

#[test]
fn what_was_trimmed_behind_the_place_is_not_missed() {
    let mut place = Place::begin(id(9), extent(Some(1), 9, 9, 9), None);
    assert_eq!(place.look(extent(Some(12), 12, 10, 1)), Gap::None, "9 gone, 9 behind");
    assert_eq!(place.look(extent(None, 14, 12, 0)), Gap::Missed(3), "all of it gone");
}

#[test]
fn a_log_that_went_back_is_read_on_from_its_end() {
    let mut place = Place::begin(id(9), extent(Some(1), 9, 9, 9), None);
    assert_eq!(place.look(extent(Some(1), 7, 7, 7)), Gap::WentBack);
    assert_eq!((place.after, place.look(extent(Some(1), 8, 8, 8))), (id(7), Gap::None));
    // A moment that has not come yet is no place that was lost.
    let mut place = Place::begin(id(50), extent(Some(1), 9, 9, 9), None);
    assert_eq!(place.look(extent(Some(1), 9, 9, 9)), Gap::None);
}

#[test]
fn only_what_is_gone_of_the_time_asked_for_is_told() {
    let partition: Partition = "a:0".parse().expect("valid");
    let late = |after, extent| begins_late(&partition, id(after), extent);
    assert_eq!(late(5, extent(Some(4), 9, 9, 6)), None, "the time before is there");
    assert_eq!(late(5, extent(Some(6), 9, 4, 4)), None, "nothing is gone");
    assert_eq!(late(9, extent(Some(1), 9, 9, 6)), None, "from the end on");
    let text = late(5, extent(Some(1_767_323_045_006), 1_767_323_045_009, 9, 6)).expect("a note");
    assert!(text.contains("begins at 2026-01-02T03:04:05.006Z: 3 earlier entries"), "{text}");
}

/// A busy partition whose read is full, and a quiet one with an event before and one behind.
#[tokio::test]
async fn nothing_is_written_before_something_earlier_of_another_partition() {
    let bus = Bus::connect("memory:").await.expect("a bus");
    let driver = Arc::clone(bus.driver());
    let tools = driver.tools().expect("tools");
    let patterns = [Pattern::all()];
    let publish = async |event_type: &'static str| {
        let event_type = EventType::from_static(event_type);
        let payload = &b"1"[..];
        let envelope = Envelope::builder(event_type, ContentType::JSON, payload, SystemClock.now());
        let envelope = envelope.build().expect("small");
        bus.publisher().publish_envelope(envelope).await.expect("stored");
    };
    publish("quiet.a").await;
    for _ in 0..ENTRIES_OF_PARTITION_MAX + 44 {
        publish("busy.b").await;
    }
    publish("quiet.a").await;
    let start = Start::From(EntryId::ZERO, None);
    let begun = Reader::begin(tools, &patterns, &start, true).await;
    let (mut reader, first) = begun.expect("a reader");
    assert!(first.is_empty());
    let (mut read, mut rounds) = (Vec::new(), 0);
    while let Some(events) = reader.next().await.expect("the store answers") {
        read.extend(events.iter().map(|(position, _)| position.entry));
        rounds += 1;
    }
    assert!(rounds >= 2, "one read did not bring all");
    assert!(read.is_sorted(), "by the time of storing");
    assert_eq!(read.len(), ENTRIES_OF_PARTITION_MAX + 46);
    assert_eq!((reader.missed(), reader.notes()), (0, Vec::new()));
}
