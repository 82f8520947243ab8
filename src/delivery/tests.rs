//! Sets of indexes, entries and ends.

use proptest::prelude::*;

use super::*;
use crate::codec::ContentType;
use crate::event_type::EventType;

proptest! {
    #[test]
    fn bits_are_a_set(indexes in proptest::collection::vec(0..200_u32, 0..60)) {
        let mut bits = Bits::new();
        let mut model = std::collections::BTreeSet::new();
        for index in indexes {
            prop_assert_eq!(bits.insert(index), model.insert(index));
        }
        prop_assert_eq!(bits.len(), model.len());
        prop_assert!((0..220).all(|index| bits.contains(index) == model.contains(&index)));
        let mut padded = bits.as_bytes().to_vec();
        padded.extend([0, 0]);
        prop_assert_eq!(Bits::from_bytes(padded), bits);
    }
}

#[test]
fn sets_with_other_indexes_differ() {
    let of = |bytes: &[u8]| Bits::from_bytes(bytes);
    assert_ne!(of(&[1]), of(&[2]));
    assert_ne!(of(&[1]), of(&[1, 1]));
    assert_ne!(of(&[]), of(&[1]));
    assert!(of(&[0, 0]).is_empty() && !of(&[0, 4]).is_empty());
    assert_eq!(of(&[0, 4]).as_bytes(), [0, 4]);
}

fn entry(records: Vec<Record>) -> Arc<Entry> {
    Arc::new(Entry {
        partition: "a:0".parse().expect("valid"),
        queue: Queue::Log,
        id: EntryId { millis: 5, seq: 1 },
        records: records.into(),
        settled: Bits::new(),
        attempt: 3,
        origin: None,
        token: Token(1),
        suspect: false,
        lease: CancellationToken::new(),
    })
}

fn malformed() -> Record {
    let fields = vec![(Bytes::from_static(b"ab"), Bytes::from_static(b"cdefg"))];
    Err(Malformed { reason: "odd".to_owned(), fields })
}

#[test]
fn an_entry_weighs_what_its_records_weigh() {
    let entry = entry(vec![malformed(), malformed()]);
    assert_eq!(entry.weight(), 14);
    let deliveries: Vec<Delivery> = entry.deliveries().collect();
    assert_eq!(deliveries.iter().map(Delivery::weight).collect::<Vec<_>>(), [7, 7]);
    assert_eq!(deliveries[1].attempt(), 3);
    assert!(deliveries[1].envelope().is_none());
    assert_eq!(deliveries[1].origin().to_string(), "a:0/5-1/1");
}

#[test]
fn what_was_settled_is_not_delivered_again() {
    let mut whole = Arc::into_inner(entry(vec![malformed(), malformed()])).expect("alone");
    whole.settled.insert(0);
    let open: Vec<u32> = Arc::new(whole).deliveries().map(|delivery| delivery.index).collect();
    assert_eq!(open, [1]);
}

#[test]
fn only_an_ack_that_publishes_nothing_may_wait() {
    let failure = || Failure::new(Cause::Failed, "no");
    let output = Output {
        partition: "a:0".parse().expect("valid"),
        envelope: Envelope::builder(
            EventType::from_static("a.b"),
            ContentType::JSON,
            "1",
            Timestamp::from_millis(1),
        )
        .build()
        .expect("within limits"),
    };
    let window = Duration::from_secs(1);
    let (none, one) = (Vec::new, || vec![output.clone()]);
    let said = |outcome: Outcome| (outcome.is_plain_ack(), outcome.may_wait());
    assert_eq!(said(Outcome::ack()), (true, true));
    assert_eq!(said(Outcome::Ack { outputs: one() }), (false, false));
    assert_eq!(said(Outcome::AckOnce { outputs: none(), window }), (false, true));
    assert_eq!(said(Outcome::AckOnce { outputs: one(), window }), (false, false));
    assert_eq!(Outcome::AckOnce { outputs: one(), window }.outputs(), one());
    for ends in [
        Outcome::Retry { after: window, failure: failure() },
        Outcome::DeadLetter { failure: failure() },
        Outcome::Split { after: window },
        Outcome::Park,
    ] {
        assert_eq!(said(ends), (false, false));
    }
}

#[test]
fn causes_and_durabilities_are_shown_as_they_are_in_data() {
    use Durability::{Everysec, Fsync, Memory, Replicated, Unknown, Volatile};
    for durability in [Unknown, Memory, Volatile, Everysec, Fsync, Replicated] {
        let data = serde_json::to_value(durability).expect("a text");
        assert_eq!(data, durability.to_string());
    }
    for cause in [Cause::Failed, Cause::AttemptsSpent, Cause::NewerVersion, Cause::Crashed] {
        assert_eq!(serde_json::to_value(cause).expect("a text"), cause.to_string());
    }
}
