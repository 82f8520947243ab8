//! What fails and is not the fault of its neighbours: it holds them up for a moment, and is set
//! aside only where it is at fault itself.

use std::time::Duration;

use rumormill::ErrorKind;
use rumormill::outbox::MemoryOutbox;
use tokio::time::advance;

use crate::kit::{event, numbers};
use crate::picky::{Answer, Picky};
use crate::relay::{fill, relay};

/// One round takes 500 rows, and all of them are of a key that is stuck.
#[tokio::test(start_paused = true)]
async fn a_key_that_fills_a_round_and_fails_holds_up_nobody() {
    for wait in [Duration::from_millis(100), Duration::from_secs(1), Duration::from_secs(60)] {
        let (driver, outbox) = (Picky::new(1), MemoryOutbox::default());
        for key in ["k", "l", "m"] {
            for number in 1..=500 {
                outbox.add(&event("a.b", Some(key), number)).expect("it is added");
            }
        }
        driver.rule(|numbers| numbers.contains(&1).then_some(Answer::Refused(ErrorKind::Server)));
        let mut relay = relay(&driver, &outbox).await;
        let mut rounds = 0;
        while outbox.depth().set_aside < 3 {
            // Others go on, as they do: it is the event's own fault.
            outbox.add(&event("a.b", Some("o"), 10_000 + rounds)).expect("it is added");
            relay.tick().await.expect("a round");
            advance(wait).await;
            rounds += 1;
            assert!(rounds < 6_000, "every {wait:?}: {:?}", outbox.depth());
        }
        while outbox.depth().waiting > 0 {
            relay.tick().await.expect("a round");
            advance(wait).await;
            rounds += 1;
            assert!(rounds < 7_000, "every {wait:?}: {:?}", outbox.depth());
        }
        let stored = numbers(&*driver).await;
        let others: Vec<_> = stored.into_iter().filter(|number| *number >= 10_000).collect();
        assert!(others.is_sorted() && !others.is_empty());
        assert_eq!(outbox.depth().set_aside, 3, "the three that are refused, and no others");
    }
}

#[tokio::test(start_paused = true)]
async fn one_event_behind_a_full_round_of_a_stuck_key_is_stored() {
    let (driver, outbox) = (Picky::new(1), MemoryOutbox::default());
    for number in 1..=500 {
        outbox.add(&event("a.b", Some("k"), number)).expect("it is added");
    }
    outbox.add(&event("a.b", Some("o"), 501)).expect("it is added");
    driver.rule(|numbers| numbers.contains(&1).then_some(Answer::Refused(ErrorKind::Server)));
    let mut relay = relay(&driver, &outbox).await;
    for _ in 0..1_000 {
        relay.tick().await.expect("a round");
        advance(Duration::from_secs(1)).await;
    }
    assert_eq!(numbers(&*driver).await, [501]);
    assert_eq!(outbox.depth().set_aside, 0, "one other event is no proof");
}

/// Events of no key of a partition that takes nothing fill a round, or two.
#[tokio::test(start_paused = true)]
async fn a_partition_that_takes_nothing_holds_up_no_other() {
    for kind in [ErrorKind::Unreachable, ErrorKind::Server] {
        let (driver, outbox) = (Picky::new(2), MemoryOutbox::default());
        for number in 1..=1_600 {
            outbox.add(&event("a.b", None, number)).expect("it is added");
        }
        driver.only_in(1);
        driver.rule(move |_| Some(Answer::Refused(kind)));
        let mut relay = relay(&driver, &outbox).await;
        for _ in 0..200 {
            relay.tick().await.expect("a round");
            advance(Duration::from_millis(300)).await;
        }
        let (stored, depth) = (driver.stored_in(0), outbox.depth());
        assert_eq!(depth.set_aside, 0, "{kind:?}");
        driver.rule(|_| None);
        let mut rounds = 0;
        while outbox.depth().waiting > 0 {
            relay.tick().await.expect("a round");
            advance(Duration::from_secs(1)).await;
            rounds += 1;
            assert!(rounds < 10, "after the partition was back");
        }
        assert_eq!(numbers(&*driver).await.len(), 1_600);
        assert_eq!(driver.stored_in(0), stored, "{kind:?}: {depth:?}, all of the other one");
    }
}

/// What says nothing about the event, beside others that are stored.
#[tokio::test(start_paused = true)]
async fn a_failure_of_the_server_sets_no_event_aside() {
    let answers = [
        Answer::Full,
        Answer::Lost,
        Answer::Refused(ErrorKind::Timeout),
        Answer::Refused(ErrorKind::Unreachable),
        Answer::Refused(ErrorKind::Denied),
    ];
    for answer in answers {
        let (driver, outbox) = (Picky::new(1), MemoryOutbox::default());
        driver.rule(move |numbers| numbers.contains(&3).then_some(answer));
        fill(&outbox, 3..=3);
        let mut relay = relay(&driver, &outbox).await;
        for number in 1_000..1_100 {
            outbox.add(&event("a.b", None, number)).expect("it is added");
            relay.tick().await.expect("a round");
            advance(Duration::from_secs(60)).await;
        }
        let tries = driver.batches().iter().filter(|batch| **batch == [3]).count();
        assert!(tries > 16, "{tries}");
        assert_eq!((outbox.depth().waiting, outbox.depth().set_aside), (1, 0));
    }
}
