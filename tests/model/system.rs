//! A driver under the model's hands.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use proptest_state_machine::StateMachineTest;
use rumormill::delivery::{
    Cause, Delivery, Entry, EntryId, Failure, Outcome, Output, Partition, Settled, Settlement,
    Start,
};
use rumormill::driver::{Append, Driver, Feed, GroupName, Settler, Subscription};
use rumormill::{ContentType, Envelope, EventType, Pattern, Timestamp};
use tokio::time::timeout;

use crate::model::{Ending, GROUPS, Group, Model, Number, PARKING, Place, State, Step, Transition};
use crate::store::Store;

/// What must come comes within this time: leases and restarts lie between.
const DEADLINE: Duration = Duration::from_secs(60);
/// How long it is watched that nothing more comes.
const WATCH: Duration = Duration::from_millis(5);
/// Beyond any case, unless an hour passes.
const LATER: Duration = Duration::from_secs(3_000);

pub struct System<S> {
    store: S,
    driver: Arc<dyn Driver>,
    groups: [Hands; GROUPS],
    /// The entry of each batch in the log.
    batches: Vec<EntryId>,
}

/// What a group's consumers have.
#[derive(Default)]
struct Hands {
    feed: Option<Feed>,
    held: BTreeMap<Number, Delivery>,
    /// Held by a consumer that crashed, with what settles for it.
    stale: BTreeMap<Number, (Delivery, Arc<dyn Settler>)>,
    settled: BTreeMap<Number, Settlement>,
}

pub fn partition() -> Partition {
    "model:0".parse().expect("a partition")
}

fn name(group: usize) -> GroupName {
    GroupName::new(["plain", "parking"][group]).expect("a name")
}

fn event(number: Number, key: Option<u8>) -> Envelope {
    let now = Timestamp::from_millis(1_767_323_045_000);
    let event_type = EventType::from_static("model.thing.happened");
    let payload = number.to_string();
    let builder = Envelope::builder(event_type, ContentType::MESSAGE_PACK, payload, now);
    builder.key(key.map(|key| format!("k{key}"))).build().expect("an event")
}

fn number_of(delivery: &Delivery) -> Number {
    let payload = delivery.envelope().expect("an event").payload();
    std::str::from_utf8(payload).expect("a text").parse().expect("a number")
}

fn failure() -> Failure {
    Failure::new(Cause::Failed, "as the model says")
}

fn outcome(ending: Ending, model: &Model) -> Outcome {
    match ending {
        Ending::Ack => Outcome::ack(),
        Ending::AckOutput => {
            let envelope = event(model.keys.len() - 1, None);
            Outcome::Ack { outputs: vec![Output { partition: partition(), envelope }] }
        }
        Ending::Retry => Outcome::Retry { after: Duration::ZERO, failure: failure() },
        Ending::RetryLater => Outcome::Retry { after: LATER, failure: failure() },
        Ending::DeadLetter => Outcome::DeadLetter { failure: failure() },
        Ending::Split => Outcome::Split { after: Duration::ZERO },
        Ending::Park => Outcome::Park,
    }
}

impl<S: Store> System<S> {
    async fn new(store: S) -> Self {
        let driver = store.driver();
        driver.declare(&partition().topic).await.expect("declared");
        let system = Self { store, driver, groups: Default::default(), batches: Vec::new() };
        for group in 0..GROUPS {
            // Both groups are there from the first event on; nobody reads yet.
            drop(system.subscribe(group).await);
        }
        system
    }

    async fn subscribe(&self, group: usize) -> Feed {
        let wish = Subscription {
            group: name(group),
            routes: vec![(Pattern::all(), None)],
            start: Start::Earliest,
            lease: self.store.lease(),
            park_keys: group == PARKING,
        };
        timeout(DEADLINE, self.driver.subscribe(wish)).await.expect("in time").expect("subscribed")
    }

    async fn step(&mut self, model: &Model, transition: Transition) {
        let Step { number, parked, unsettled } = model.step;
        let number = number.unwrap_or_default();
        match transition {
            Transition::Publish(keys) => self.publish(model, &keys).await,
            Transition::Fetch(group) => self.fetch(&model.groups[group], group).await,
            Transition::End(group, _, ending) => {
                self.end(group, &[number], outcome(ending, model)).await;
                if ending == Ending::AckOutput {
                    self.learn_last().await;
                }
            }
            Transition::EndAll(group) => {
                let all: Vec<_> = self.groups[group].held.keys().copied().collect();
                self.end(group, &all, Outcome::ack()).await;
            }
            Transition::Crash(group) => self.groups[group].crash(),
            Transition::Stale(group, _) => self.stale(group, number).await,
            Transition::Again(group, _) => self.again(group, number).await,
            Transition::Ask(group, _) => {
                let hands = &self.groups[group];
                let settler = &hands.feed.as_ref().expect("it holds the event").settler;
                let answer = timeout(DEADLINE, settler.is_parked(&hands.held[&number])).await;
                assert_eq!(answer.expect("in time").expect("an answer"), parked, "event {number}");
            }
            Transition::Redrive(group, _) => {
                let letter = self.letter(group, number).await;
                let admin = self.driver.admin().expect("it has one");
                let ids = [letter.id];
                let done = admin.redrive(&name(group), &partition(), &ids).await.expect("done");
                assert_eq!((done.moved, done.missing, done.malformed), (1, 0, 0));
            }
            Transition::Purge(group, _) => {
                let letter = self.letter(group, number).await;
                let admin = self.driver.admin().expect("it has one");
                let purged = admin.purge(&name(group), &partition(), &[letter.id]).await;
                assert_eq!(purged.expect("done"), 1);
            }
            Transition::Advance => self.store.advance().await,
            Transition::Restart => self.store.restart(),
            Transition::Trim => {
                if let Some(before) = self.batches.get(unsettled) {
                    self.store.trim(*before);
                }
            }
        }
    }

    async fn publish(&mut self, model: &Model, keys: &[Option<u8>]) {
        let first = model.keys.len() - keys.len();
        let events = keys.iter().enumerate().map(|(index, key)| event(first + index, *key));
        let append = Append {
            partition: partition(),
            envelopes: events.collect(),
            delay: Duration::ZERO,
            deduplicate: false,
        };
        let answers = timeout(DEADLINE, self.driver.append(vec![append])).await.expect("in time");
        let appended = answers.into_iter().next().expect("one answer").expect("stored");
        self.batches.push(appended.entry.expect("it is not delayed"));
    }

    /// Where what a handler published lies.
    async fn learn_last(&mut self) {
        let tools = self.driver.tools().expect("it has them");
        self.batches.push(tools.end(&partition()).await.expect("a log"));
    }

    /// Takes until all is there that the model says, and nothing else.
    async fn fetch(&mut self, group: &Group, place: usize) {
        if self.groups[place].feed.is_none() {
            let feed = self.subscribe(place).await;
            self.groups[place].feed = Some(feed);
        }
        let expected = group.held();
        let hands = &mut self.groups[place];
        while !expected.iter().all(|number| hands.held.contains_key(number)) {
            let taken = hands.take(DEADLINE, group).await;
            let missing = expected.iter().filter(|number| !hands.held.contains_key(number));
            let missing: Vec<_> = missing.collect();
            assert!(taken, "{missing:?} do not come to group {place}");
        }
        hands.take(WATCH, group).await;
    }

    async fn end(&mut self, group: usize, numbers: &[Number], outcome: Outcome) {
        let hands = &mut self.groups[group];
        let settlements: Vec<_> = numbers
            .iter()
            .map(|number| hands.held.remove(number).expect("held").settle(outcome.clone()))
            .collect();
        let settler = Arc::clone(&hands.feed.as_ref().expect("it holds them").settler);
        let answers = settle(&*settler, settlements.clone()).await;
        assert_eq!(answers, vec![Settled::Done; numbers.len()], "{numbers:?} {outcome:?}");
        hands.settled.extend(numbers.iter().copied().zip(settlements));
    }

    async fn stale(&self, group: usize, number: Number) {
        let (delivery, settler) = &self.groups[group].stale[&number];
        let outcome = Outcome::Retry { after: Duration::ZERO, failure: failure() };
        let answer = settle(&**settler, vec![delivery.clone().settle(outcome)]).await;
        assert_ne!(answer, [Settled::Done], "event {number} is another's");
    }

    async fn again(&self, group: usize, number: Number) {
        let hands = &self.groups[group];
        let settler = &hands.feed.as_ref().expect("it settled it").settler;
        let answer = settle(&**settler, vec![hands.settled[&number].clone()]).await;
        assert_eq!(answer, [Settled::Already], "event {number} was settled");
    }

    async fn letter(
        &self,
        group: usize,
        number: Number,
    ) -> rumormill::driver::admin::DeadLetterSummary {
        let tools = self.driver.tools().expect("it has them");
        let letters = tools.dead_letters(&name(group), 1_000).await.expect("letters");
        let own = |payload: &[u8]| payload == number.to_string().as_bytes();
        let letter = letters
            .iter()
            .find(|letter| letter.record.as_ref().is_ok_and(|event| own(event.payload())));
        letter.expect("the letter is there").into()
    }

    async fn check(&self, model: &Model) {
        for (place, group) in model.groups.iter().enumerate() {
            let tools = self.driver.tools().expect("it has them");
            let backlog = tools.backlog(&name(place)).await.expect("a backlog");
            let due = group.all(|state| matches!(state, State::Due { .. })).len() as u64;
            let ready = group.entries(|place| place == Place::Ready) as u64;
            let pending = group.entries(|place| place != Place::Ready) as u64;
            let dead = group.dead();
            assert_eq!(backlog.dead, dead.len() as u64, "dead letters of group {place}");
            let all = backlog.unread + backlog.pending + backlog.due;
            let told =
                format!("group {place}: {backlog:?}, {ready} ready, {pending} pending, {due} due");
            if S::EXACT {
                assert_eq!(all, ready + pending + due, "{told}");
                assert_eq!(backlog.pending, pending, "{told}");
            } else {
                // A consumer reads ahead, so that what is ready may be pending already.
                assert!((pending..=pending + ready).contains(&backlog.pending), "{told}");
                assert!(backlog.due >= due, "{told}");
            }
            assert_eq!(backlog.is_settled(), ready + pending + due == 0, "{told}");
            let admin = self.driver.admin().expect("it has one");
            let report = admin.group(&name(place)).await.expect("a report");
            let parked: u64 = report.partitions.iter().map(|part| part.parked).sum();
            let waiting = group.all(|state| matches!(state, State::Parked { .. }));
            assert_eq!(parked, waiting.len() as u64, "parked in group {place}: {waiting:?}");
            self.check_letters(place, group, &dead).await;
        }
    }

    async fn check_letters(&self, place: usize, group: &Group, dead: &[Number]) {
        let tools = self.driver.tools().expect("it has them");
        let letters = tools.dead_letters(&name(place), 1_000).await.expect("letters");
        let mut told: Vec<(Number, u32)> = Vec::new();
        for letter in &letters {
            let payload = letter.record.as_ref().expect("an event").payload().to_vec();
            let number = String::from_utf8(payload).expect("a text").parse().expect("a number");
            assert_eq!(letter.failure, failure());
            told.push((number, letter.attempts));
        }
        told.sort_unstable();
        let attempts = |number: &Number| match group.states[*number] {
            State::Dead { attempts } => (*number, attempts),
            _ => (*number, 0),
        };
        assert_eq!(told, dead.iter().map(attempts).collect::<Vec<_>>(), "letters of group {place}");
    }
}

async fn settle(settler: &dyn Settler, settlements: Vec<Settlement>) -> Vec<Settled> {
    let answers = timeout(DEADLINE, async {
        // A server that is restarted may leave a call without an answer; it may be repeated.
        let mut answers = settler.settle(settlements.clone()).await;
        while answers.iter().any(Result::is_err) {
            // waits: for the server to answer again
            tokio::time::sleep(Duration::from_millis(20)).await;
            let repeated = settler.settle(settlements.clone()).await;
            for (answer, again) in answers.iter_mut().zip(repeated) {
                if answer.is_err() {
                    *answer = again.map(|settled| match settled {
                        Settled::Already => Settled::Done,
                        other => other,
                    });
                }
            }
        }
        answers
    });
    let answers = answers.await.expect("in time");
    answers.into_iter().map(|answer| answer.expect("settled")).collect()
}

impl Hands {
    /// Takes what comes within a time; whether something came.
    async fn take(&mut self, within: Duration, group: &Group) -> bool {
        let feed = self.feed.as_mut().expect("it was subscribed");
        let Ok(entries) = timeout(within, feed.source.fetch(100)).await else { return false };
        for entry in entries.expect("entries").into_iter().map(Arc::new) {
            for delivery in Entry::deliveries(&entry) {
                let number = number_of(&delivery);
                let State::Open { place: Place::Held, attempt, .. } = group.states[number] else {
                    panic!("event {number} comes, and is {:?}", group.states[number]);
                };
                assert_eq!(delivery.attempt(), attempt, "event {number}");
                let before = self.held.insert(number, delivery);
                assert!(before.is_none(), "event {number} comes twice");
            }
        }
        true
    }

    fn crash(&mut self) {
        let Feed { source, settler, .. } = self.feed.take().expect("it lives");
        drop(source);
        for (number, delivery) in std::mem::take(&mut self.held) {
            self.stale.insert(number, (delivery, Arc::clone(&settler)));
        }
        self.settled.clear();
    }
}

/// The test of one kind of store.
pub struct Machine<S>(PhantomData<S>);

impl<S: Store> StateMachineTest for Machine<S> {
    type SystemUnderTest = System<S>;
    type Reference = Model;

    fn init_test(_: &Model) -> System<S> {
        let store = S::new();
        store.runtime().block_on(System::new(store))
    }

    fn apply(mut system: System<S>, model: &Model, transition: Transition) -> System<S> {
        system.store.runtime().block_on(system.step(model, transition));
        system
    }

    fn check_invariants(system: &System<S>, model: &Model) {
        system.store.runtime().block_on(system.check(model));
    }

    fn teardown(system: System<S>, _: Model) {
        // Sources end within their runtime.
        let runtime = system.store.runtime();
        let _within = runtime.enter();
        drop(system);
    }
}
