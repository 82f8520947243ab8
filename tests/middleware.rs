//! The middleware that users add, on the memory driver under paused time.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rumormill::middleware::{Bulkhead, Deduplicate, Idempotent, Middleware, Next, RetryInPlace};
use rumormill::{
    Bus, Context, Event, EventId, Filter, HandlerError, PublishOptions, RetryPolicy,
    ServiceOptions, Services,
};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Event)]
#[event(type = "orders.placed", key = order)]
struct Placed {
    order: String,
}

#[derive(Serialize, Deserialize, Event)]
#[event(type = "invoices.sent")]
struct Sent {
    number: u32,
}

fn placed(order: &str) -> Placed {
    Placed { order: order.to_owned() }
}

async fn bus(middleware: impl Middleware) -> Bus {
    let builder = Bus::builder().services(Services::none()).with(middleware);
    builder.build().await.expect("a bus in memory")
}

/// How often each call of the handler was made, and as which attempt.
type Attempts = Arc<Mutex<Vec<u32>>>;

/// A group whose handler publishes its call's number and then says what `answer` says.
async fn handle<F>(bus: &Bus, options: ServiceOptions, answer: F) -> Attempts
where
    F: Fn(u32) -> Result<(), HandlerError> + Send + Sync + 'static,
{
    let attempts = Attempts::default();
    let seen = Arc::clone(&attempts);
    bus.subscribe_routes("g", options, |routes| {
        routes.on_fn(move |_: Placed, ctx: Context| {
            let mut seen = seen.lock().expect("no handler panics under it");
            seen.push(ctx.attempt());
            let number = u32::try_from(seen.len()).expect("few calls");
            let published = ctx.publish(&Sent { number });
            let answer = published.map_err(HandlerError::from).and_then(|()| answer(number));
            std::future::ready(answer)
        })
    })
    .await
    .expect("subscribed");
    attempts
}

/// The numbers that were published.
async fn published(bus: &Bus) -> Arc<Mutex<Vec<u32>>> {
    let numbers = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&numbers);
    let handler = move |event: Sent, _| {
        seen.lock().expect("no handler panics under it").push(event.number);
        std::future::ready(Ok(()))
    };
    bus.subscribe("reader", handler).await.expect("subscribed");
    numbers
}

fn taken<T: Clone>(shared: &Mutex<Vec<T>>) -> Vec<T> {
    shared.lock().expect("no handler panics under it").clone()
}

#[tokio::test(start_paused = true)]
async fn a_retry_in_place_is_the_same_attempt_and_discards_outputs() {
    let bus = bus(RetryInPlace::default()).await;
    let numbers = published(&bus).await;
    let attempts = handle(&bus, ServiceOptions::default(), |call| match call {
        1 | 2 => Err(HandlerError::retry_in_place("the row is locked")),
        _ => Ok(()),
    })
    .await;
    bus.publish(&placed("a")).await.expect("stored");
    bus.settled().await.expect("settled");
    assert_eq!(taken(&attempts), [1, 1, 1]);
    assert_eq!(taken(&numbers), [3], "what the failed tries published is gone");
}

#[tokio::test(start_paused = true)]
async fn only_errors_that_say_so_are_tried_in_place_and_only_so_often() {
    let bus = bus(RetryInPlace { tries_max: 2, ..RetryInPlace::default() }).await;
    let attempts = handle(&bus, ServiceOptions::default(), |call| match call {
        1 | 2 => Err(HandlerError::retry_in_place("still locked")),
        3 => Err("another error".into()),
        _ => Ok(()),
    })
    .await;
    bus.publish(&placed("a")).await.expect("stored");
    bus.settled().await.expect("settled");
    assert_eq!(taken(&attempts), [1, 1, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn without_the_middleware_it_is_an_ordinary_retry() {
    let bus = bus(Deduplicate::new(Duration::from_secs(60), 10)).await;
    let attempts = handle(&bus, ServiceOptions::default(), |call| match call {
        1 => Err(HandlerError::retry_in_place("the row is locked")),
        _ => Ok(()),
    })
    .await;
    bus.publish(&placed("a")).await.expect("stored");
    bus.settled().await.expect("settled");
    assert_eq!(taken(&attempts), [1, 2]);
}

/// Publishes one event of a fixed id, and waits until all is handled.
async fn publish_again(bus: &Bus, order: &str) {
    let options = PublishOptions::default().id(EventId::derived(order.as_bytes()));
    bus.publish_with(&placed(order), options).await.expect("stored");
    bus.settled().await.expect("settled");
}

#[tokio::test(start_paused = true)]
async fn an_event_that_was_handled_is_not_handled_again_within_the_window() {
    let window = Duration::from_secs(60);
    let bus = bus(Deduplicate::new(window, 2)).await;
    let calls: [Arc<AtomicU32>; 2] = std::array::from_fn(|_| Arc::default());
    for (group, calls) in ["a", "b"].into_iter().zip(&calls) {
        let calls = Arc::clone(calls);
        bus.subscribe(group, move |_: Placed, ctx: Context| {
            calls.fetch_add(1, Ordering::Relaxed);
            let fails = ctx.attempt() == 1 && ctx.envelope().key() == Some("fails");
            std::future::ready(if fails { Err("once".into()) } else { Ok(()) })
        })
        .await
        .expect("subscribed");
    }
    let count = || calls.each_ref().map(|calls| calls.load(Ordering::Relaxed));
    publish_again(&bus, "x").await;
    publish_again(&bus, "x").await;
    assert_eq!(count(), [1, 1], "each group handles its own, once");
    assert_eq!(bus.counts("a").duplicates, 1);
    publish_again(&bus, "fails").await;
    assert_eq!(count(), [3, 3], "what failed is not remembered");
    publish_again(&bus, "y").await;
    publish_again(&bus, "x").await;
    assert_eq!(count(), [5, 5], "the oldest of three was forgotten");
    publish_again(&bus, "x").await;
    assert_eq!(count(), [5, 5]);
    tokio::time::advance(window).await;
    publish_again(&bus, "x").await;
    assert_eq!(count(), [6, 6], "the window is over");
}

#[tokio::test(start_paused = true)]
async fn an_event_with_outputs_is_not_remembered() {
    let bus = bus(Deduplicate::new(Duration::from_secs(60), 10)).await;
    let attempts = handle(&bus, ServiceOptions::default(), |_| Ok(())).await;
    publish_again(&bus, "x").await;
    publish_again(&bus, "x").await;
    assert_eq!(taken(&attempts).len(), 2, "only a repeat makes up for a lost end");
    assert_eq!(bus.counts("g").duplicates, 0);
}

#[tokio::test(start_paused = true)]
async fn with_the_stores_marks_an_event_with_outputs_is_handled_once_for_a_day() {
    let builder = Bus::builder().services(Services::none()).with(Idempotent::default());
    let bus = builder.with(RetryInPlace::default()).build().await.expect("a bus in memory");
    let numbers = published(&bus).await;
    let attempts = handle(&bus, ServiceOptions::default(), |call| match call {
        1 => Err(HandlerError::retry_in_place("the row is locked")),
        2 => Err("once".into()),
        _ => Ok(()),
    })
    .await;
    publish_again(&bus, "x").await;
    assert_eq!(taken(&attempts), [1, 1, 2]);
    publish_again(&bus, "x").await;
    assert_eq!(taken(&attempts).len(), 3);
    assert_eq!(bus.counts("g").duplicates, 1);
    assert_eq!(taken(&numbers), [3]);
    tokio::time::advance(Idempotent::WINDOW).await;
    publish_again(&bus, "x").await;
    assert_eq!(taken(&attempts).len(), 4, "a day is over");
    assert_eq!(taken(&numbers), [3, 4]);
}

/// What a filter kept from the handler was not handled, and an outer error is no success.
#[tokio::test(start_paused = true)]
async fn only_what_was_handled_leaves_a_mark() {
    struct Stop(AtomicU32);

    #[rumormill::async_trait]
    impl Middleware for Stop {
        fn name(&self) -> &'static str {
            "stop"
        }

        async fn handle(&self, ctx: &Context, next: Next<'_>) -> Result<(), HandlerError> {
            next.run(ctx).await?;
            match self.0.fetch_add(1, Ordering::Relaxed) {
                0 => Err("after its success".into()),
                _ => Ok(()),
            }
        }
    }

    let builder = Bus::builder().services(Services::none()).with(Stop(AtomicU32::new(0)));
    let bus = builder.with(Idempotent::default()).build().await.expect("a bus in memory");
    let calls = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&calls);
    bus.subscribe_routes("g", ServiceOptions::default(), |routes| {
        let routes = routes.on_fn(move |_: Placed, _| {
            counted.fetch_add(1, Ordering::Relaxed);
            std::future::ready(Ok(()))
        });
        routes.when(Filter::payload(|placed: &Placed| placed.order != "filtered"))
    })
    .await
    .expect("subscribed");
    for _ in 0..2 {
        publish_again(&bus, "x").await;
        publish_again(&bus, "filtered").await;
    }
    assert_eq!(calls.load(Ordering::Relaxed), 2, "the first call came to nothing");
    let counts = bus.counts("g");
    assert_eq!((counts.duplicates, counts.filtered), (1, 2));
}

/// The most handlers that ran at a time.
async fn most_at_a_time(bus: &Bus, limit: Option<usize>) -> usize {
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let peak = Arc::clone(&most);
    bus.subscribe_routes("g", ServiceOptions::default(), |routes| {
        let routes = routes.on_fn(move |_: Placed, _| {
            let (running, most) = (Arc::clone(&running), Arc::clone(&peak));
            async move {
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                // waits: so that handlers overlap where they may
                tokio::time::sleep(Duration::from_millis(10)).await;
                running.fetch_sub(1, Ordering::SeqCst);
                Ok(())
            }
        });
        match limit {
            Some(limit) => routes.concurrency(limit),
            None => routes,
        }
    })
    .await
    .expect("subscribed");
    let events: Vec<_> = (0..64).map(|number| placed(&number.to_string())).collect();
    for answer in bus.publish_many(&events).await {
        answer.expect("stored");
    }
    bus.settled().await.expect("settled");
    most.load(Ordering::SeqCst)
}

#[tokio::test(start_paused = true)]
async fn concurrency_is_limited_per_handler_and_by_a_shared_bulkhead() {
    let plain = Bus::builder().services(Services::none()).build().await.expect("a bus");
    assert_eq!(most_at_a_time(&plain, None).await, 8, "one per lane");
    let routed = Bus::builder().services(Services::none()).build().await.expect("a bus");
    assert_eq!(most_at_a_time(&routed, Some(3)).await, 3);
    assert_eq!(most_at_a_time(&bus(Bulkhead::new(2)).await, None).await, 2);
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_turn_when_time_is_up_does_not_begin() {
    let bus = Bus::builder().services(Services::none()).build().await.expect("a bus");
    let begun = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&begun);
    bus.subscribe_routes("g", ServiceOptions::default(), |routes| {
        let handler = move |_: Placed, _| {
            counter.fetch_add(1, Ordering::SeqCst);
            // waits: longer than the drain does
            tokio::time::sleep(Duration::from_secs(100))
        };
        let handler = move |event, ctx| {
            let handled = handler(event, ctx);
            async move {
                handled.await;
                Ok(())
            }
        };
        routes.on_fn(handler).concurrency(1)
    })
    .await
    .expect("subscribed");
    let events: Vec<_> = (0..16).map(|number| placed(&number.to_string())).collect();
    for answer in bus.publish_many(&events).await {
        answer.expect("stored");
    }
    while begun.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    let report = bus.drain(Duration::from_secs(5)).await;
    assert!(report.forced > 1, "several waited for the turn of the first: {report:?}");
    assert_eq!(begun.load(Ordering::SeqCst), 1);
}

struct Named(&'static str);

#[rumormill::async_trait]
impl Middleware for Named {
    fn name(&self) -> &'static str {
        self.0
    }

    async fn handle(&self, ctx: &Context, next: Next<'_>) -> Result<(), HandlerError> {
        next.run(ctx).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_bus_tells_what_it_runs() {
    let bus = bus(Named("the bus's")).await;
    let options = ServiceOptions { retry: RetryPolicy::never(), ..ServiceOptions::default() };
    bus.subscribe_routes("g", options, |routes| {
        routes
            .on_fn(|_: Placed, _| async { Ok(()) })
            .when(rumormill::Filter::key("k"))
            .concurrency(2)
            .on_any_fn("payments.>", |_, _| async { Ok(()) })
            .with(Named("the service's"))
    })
    .await
    .expect("subscribed");
    let services = bus.services();
    assert_eq!(services.len(), 1);
    assert_eq!((services[0].group.as_str(), services[0].running), ("g", true));
    assert_eq!(services[0].options.attempts_max, 1);
    let [typed, any] = &services[0].routes[..] else { panic!("{services:?}") };
    assert_eq!((typed.pattern.as_str(), typed.version), ("orders.placed", Some(1)));
    assert_eq!(typed.filter.as_deref(), Some(r#"key = "k""#));
    assert_eq!(typed.concurrency, Some(2));
    let list = ["trace", "catch_panic", "bulkhead", "timeout", "the bus's", "the service's"];
    assert_eq!(typed.middleware, list);
    assert_eq!((any.pattern.as_str(), any.version, &any.filter), ("payments.>", None, &None));
    assert!(!any.middleware.contains(&"bulkhead".to_owned()));
    let json = serde_json::to_string(&services).expect("plain values");
    let back: Vec<rumormill::ServiceDescription> = serde_json::from_str(&json).expect("the same");
    assert_eq!(back, services);
}

#[tokio::test(start_paused = true)]
async fn route_options_are_refused_where_they_cannot_hold() {
    let bus = bus(Named("x")).await;
    let refused = |routes: fn(rumormill::Routes<()>) -> rumormill::Routes<()>| {
        let bus = bus.clone();
        async move {
            let options = ServiceOptions::default();
            bus.subscribe_routes("g", options, routes).await.expect_err("refused").to_string()
        }
    };
    let no_route = refused(|routes| routes.when(rumormill::Filter::key("k"))).await;
    assert!(no_route.contains("before any route"), "{no_route}");
    let zero = refused(|routes| routes.on_fn(|_: Sent, _| async { Ok(()) }).concurrency(0)).await;
    assert!(zero.contains("invoices.sent is 0"), "{zero}");
    let foreign = refused(|routes| {
        let filter = rumormill::Filter::payload(|_: &Placed| true);
        routes.on_fn(|_: Sent, _| async { Ok(()) }).when(filter)
    })
    .await;
    assert!(foreign.contains("Placed"), "{foreign}");
}

/// What a task of the handler's says after its end would go nowhere.
#[tokio::test(start_paused = true)]
async fn who_publishes_after_the_end_of_the_delivery_is_refused() {
    let bus = bus(Deduplicate::new(Duration::from_secs(1), 1)).await;
    let kept: Arc<Mutex<Option<Context>>> = Arc::default();
    let keeper = Arc::clone(&kept);
    let handler = move |_: Placed, ctx: Context| {
        *keeper.lock().expect("no panic under it") = Some(ctx);
        std::future::ready(Ok(()))
    };
    bus.subscribe("g", handler).await.expect("subscribed");
    bus.publish(&placed("1")).await.expect("stored");
    bus.settled().await.expect("memory");
    let ctx = kept.lock().expect("no panic under it").take().expect("it ran");
    let refused = ctx.publish(&Sent { number: 1 }).expect_err("it has ended");
    assert!(refused.to_string().contains("has ended"), "{refused}");
}

/// Held by a handler that is cut short.
struct Touchy;

impl Drop for Touchy {
    fn drop(&mut self) {
        panic!("dropped in the middle");
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_panics_as_its_time_is_up_ends_its_own_event_only() {
    let bus = Bus::connect("memory:").await.expect("a bus in memory");
    let retry = RetryPolicy { attempts_max: 1, ..RetryPolicy::default() };
    let limit = Duration::from_secs(1);
    let options =
        ServiceOptions { lanes: 1, retry, handler_timeout: limit, ..ServiceOptions::default() };
    let handled = Arc::new(tokio::sync::Notify::new());
    let seen = Arc::clone(&handled);
    bus.subscribe_routes("g", options, |routes| {
        routes.on_fn(move |event: Placed, _: Context| {
            let seen = Arc::clone(&seen);
            async move {
                if event.order == "late" {
                    let _touchy = Touchy;
                    std::future::pending::<()>().await;
                }
                seen.notify_one();
                Ok(())
            }
        })
    })
    .await
    .expect("subscribed");
    for order in ["late", "next"] {
        bus.publish(&placed(order)).await.expect("stored");
    }
    let next = tokio::time::timeout(limit * 60, handled.notified()).await;
    next.expect("the lane goes on");
}
