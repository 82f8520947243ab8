//! Batches and middleware, on the memory driver under paused time.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rumormill::middleware::{Bulkhead, Deduplicate, Middleware, Next, RetryInPlace};
use rumormill::{
    Batch, BatchOptions, Bus, Context, Event, EventId, Filter, HandlerError, PublishOptions,
    Routes, ServiceOptions, Services,
};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Event)]
#[event(type = "numbers.counted", key = key)]
struct Counted {
    key: String,
    number: u32,
}

#[derive(Serialize, Deserialize, Event)]
#[event(type = "numbers.echoed")]
struct Echoed {
    number: u32,
}

/// The numbers of each call, and the attempt of its first event.
type Calls = Arc<Mutex<Vec<Vec<u32>>>>;

const TEN: BatchOptions = BatchOptions { size: 10, linger: Duration::from_millis(50) };

async fn bus() -> Bus {
    Bus::builder().services(Services::none()).build().await.expect("a bus in memory")
}

/// A group that takes batches of ten and fails what `answer` says; in one lane.
async fn handle<F>(bus: &Bus, more: impl FnOnce(Routes<()>) -> Routes<()>, answer: F) -> Calls
where
    F: Fn(&Counted, &Context) -> Result<(), HandlerError> + Send + Sync + 'static,
{
    let calls = Calls::default();
    let seen = Arc::clone(&calls);
    let routes = move |routes: Routes<()>| {
        more(routes.on_batch_fn(TEN, move |batch: Batch<Counted>| {
            let numbers = batch.events().map(|event| event.number).collect();
            seen.lock().expect("no handler panics under it").push(numbers);
            assert!(!batch.is_empty(), "a batch has one event at least");
            for item in batch {
                if let Err(error) = answer(&item.event, &item.ctx) {
                    item.fail(error);
                }
            }
            std::future::ready(Ok(()))
        }))
    };
    let one_lane = ServiceOptions { lanes: 1, ..ServiceOptions::default() };
    bus.subscribe_routes("g", one_lane, routes).await.expect("subscribed");
    calls
}

async fn publish(bus: &Bus, numbers: std::ops::Range<u32>) {
    let event = |number| Counted { key: format!("k{}", number % 3), number };
    for answer in bus.publish_many(&numbers.map(event).collect::<Vec<_>>()).await {
        answer.expect("stored");
    }
    bus.settled().await.expect("settled");
}

fn taken(calls: &Calls) -> Vec<Vec<u32>> {
    calls.lock().expect("no handler panics under it").clone()
}

fn all(calls: &Calls) -> Vec<u32> {
    taken(calls).concat()
}

/// Stops what is divisible by 5, panics on 7 at its first attempt.
struct Picky;

#[rumormill::async_trait]
impl Middleware for Picky {
    fn name(&self) -> &'static str {
        "picky"
    }

    async fn handle(&self, ctx: &Context, next: Next<'_>) -> Result<(), HandlerError> {
        let event: Counted = ctx.envelope().payload_as()?;
        assert!(event.number != 7 || ctx.attempt() > 1, "not this one");
        if event.number.is_multiple_of(5) { Ok(()) } else { next.run(ctx).await }
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_middleware_or_a_filter_stops_is_not_in_the_batch() {
    let bus = bus().await;
    let odd = Filter::payload(|event: &Counted| event.number % 2 == 1);
    let calls = handle(&bus, |routes| routes.when(odd).with(Picky), |_, _| Ok(())).await;
    publish(&bus, 0..10).await;
    assert_eq!(taken(&calls), [vec![1, 3, 9], vec![7]], "5 is stopped, 7 fails by itself");
    assert_eq!(bus.counts("g").filtered, 4, "2, 4, 6, 8; 0 came no further than the middleware");
}

#[tokio::test(start_paused = true)]
async fn a_limiter_that_lets_through_fewer_than_a_batch_stops_nothing() {
    let bus = bus().await;
    let calls = handle(&bus, |routes| routes.with(Bulkhead::new(2)), |_, _| Ok(())).await;
    publish(&bus, 0..20).await;
    let mut handled = all(&calls);
    for key in 0..3 {
        let of_key: Vec<_> = handled.iter().filter(|number| *number % 3 == key).collect();
        assert!(of_key.is_sorted(), "{of_key:?}");
    }
    handled.sort_unstable();
    assert_eq!(handled, (0..20).collect::<Vec<_>>());
}

/// Holds up the first event of a key.
struct Late;

#[rumormill::async_trait]
impl Middleware for Late {
    fn name(&self) -> &'static str {
        "late"
    }

    async fn handle(&self, ctx: &Context, next: Next<'_>) -> Result<(), HandlerError> {
        let event: Counted = ctx.envelope().payload_as()?;
        if event.number == 0 {
            // waits: longer than a batch's linger
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        next.run(ctx).await
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_held_up_keeps_later_events_of_its_key_and_nobody_else() {
    let bus = bus().await;
    let calls = handle(&bus, |routes| routes.with(Late), |_, _| Ok(())).await;
    publish(&bus, 0..10).await;
    assert_eq!(taken(&calls), [vec![1, 2, 4, 5, 7, 8], vec![0, 3, 6, 9]]);
}

#[tokio::test(start_paused = true)]
async fn a_retry_in_place_is_another_round_of_those_who_ask_for_it() {
    let bus = bus().await;
    let echoes = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&echoes);
    bus.subscribe("reader", move |event: Echoed, _| {
        seen.lock().expect("no handler panics under it").push(event.number);
        std::future::ready(Ok(()))
    })
    .await
    .expect("subscribed");
    let tries = AtomicUsize::new(0);
    let answer = move |event: &Counted, ctx: &Context| {
        ctx.publish(&Echoed { number: event.number })?;
        assert_eq!(ctx.attempt(), 1);
        match event.number {
            2 | 3 if tries.fetch_add(1, Ordering::Relaxed) < 2 => {
                Err(HandlerError::retry_in_place("locked"))
            }
            _ => Ok(()),
        }
    };
    let calls = handle(&bus, |routes| routes.with(RetryInPlace::default()), answer).await;
    publish(&bus, 0..5).await;
    assert_eq!(taken(&calls), [vec![0, 1, 2, 3, 4], vec![2, 3]]);
    let mut echoes = echoes.lock().expect("no handler panics under it").clone();
    echoes.sort_unstable();
    assert_eq!(echoes, [0, 1, 2, 3, 4], "the failed try's output is gone");
}

#[tokio::test(start_paused = true)]
async fn events_of_a_batch_are_remembered_one_by_one() {
    let bus = bus().await;
    let seen = Deduplicate::new(Duration::from_secs(60), 100);
    let reject = |event: &Counted, ctx: &Context| match (event.number, ctx.attempt()) {
        (1, 1) => Err("once".into()),
        _ => Ok(()),
    };
    let calls = handle(&bus, |routes| routes.with(seen), reject).await;
    for _ in 0..2 {
        for number in 0..3 {
            let options = PublishOptions::default().id(EventId::derived(&[number]));
            let event = Counted { key: "k".to_owned(), number: number.into() };
            bus.publish_with(&event, options).await.expect("stored");
        }
        bus.settled().await.expect("settled");
    }
    assert_eq!(taken(&calls), [vec![0, 1, 2], vec![1]]);
    assert_eq!(bus.counts("g").duplicates, 3);
}

#[tokio::test(start_paused = true)]
async fn concurrency_counts_batches() {
    let (bus, running) = (bus().await, Arc::new(AtomicUsize::new(0)));
    let most = Arc::new(AtomicUsize::new(0));
    let peak = Arc::clone(&most);
    let routes = |routes: Routes<()>| {
        let routes = routes.on_batch_fn(TEN, move |_: Batch<Counted>| {
            let (running, most) = (Arc::clone(&running), Arc::clone(&peak));
            async move {
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                // waits: so that batches overlap where they may
                tokio::time::sleep(Duration::from_millis(10)).await;
                running.fetch_sub(1, Ordering::SeqCst);
                Ok(())
            }
        });
        routes.concurrency(1)
    };
    bus.subscribe_routes("g", ServiceOptions::default(), routes).await.expect("subscribed");
    publish(&bus, 0..100).await;
    assert_eq!(most.load(Ordering::SeqCst), 1);
    let [service] = &bus.services()[..] else { panic!("one group") };
    let batch = service.routes[0].batch.expect("a batch route");
    assert_eq!((batch.size, batch.linger_ms, service.routes[0].concurrency), (10, 50, Some(1)));
    assert_eq!(service.routes[0].middleware, ["trace", "catch_panic", "timeout"]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_cannot_come_together_is_refused() {
    let bus = bus().await;
    let refused = async |size, linger, lane_depth| {
        let batch = BatchOptions { size, linger: Duration::from_secs(linger) };
        let routes =
            |routes: Routes<()>| routes.on_batch_fn(batch, |_: Batch<Counted>| async { Ok(()) });
        let options = ServiceOptions { lane_depth, ..ServiceOptions::default() };
        bus.subscribe_routes("g", options, routes).await.expect_err("refused").to_string()
    };
    let text = refused(0, 1, 64).await;
    assert!(text.contains("batch size is 0"), "{text}");
    let text = refused(10, 61, 64).await;
    assert!(text.contains("linger is 61s"), "{text}");
    let text = refused(10, 1, 9).await;
    assert!(text.contains("more than lane_depth 9"), "{text}");
    let routes = |routes: Routes<()>| routes.on_batch_fn(TEN, |_: Batch<Counted>| async { Ok(()) });
    let options = ServiceOptions::broadcast();
    let error = bus.subscribe_routes("g", options, routes).await.expect_err("refused");
    assert!(error.to_string().contains("numbers.counted takes batches"), "{error}");
}
