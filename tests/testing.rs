//! The bus for tests of services: what it waits for, what it shows, what it says when it fails.

use std::future::Future;
use std::io::Error as IoError;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use rumormill::testing::TestBus;
use rumormill::{
    Context, Event, Handle, HandlerError, Init, Routes, Service, ServiceOptions, Services,
};
use serde::{Deserialize, Serialize};

#[derive(Debug, PartialEq, Serialize, Deserialize, Event)]
#[event(type = "user_service.user.created", key = name)]
struct UserCreated {
    name: String,
}

#[derive(Debug, PartialEq, Serialize, Deserialize, Event)]
#[event(type = "email_service.email.sent")]
struct EmailSent {
    to: String,
}

fn user(name: &str) -> UserCreated {
    UserCreated { name: name.into() }
}

/// Fails so often, then sends.
struct Email {
    failures: AtomicU32,
}

impl Email {
    fn failing(times: u32) -> Self {
        Self { failures: AtomicU32::new(times) }
    }

    async fn from_init(_: &Init) -> Result<Self, rumormill::Error> {
        Ok(Self::failing(0))
    }
}

impl Service for Email {
    const NAME: &'static str = "email";

    fn routes(routes: Routes<Self>) -> Routes<Self> {
        routes.on::<UserCreated>()
    }
}

impl Handle<UserCreated> for Email {
    async fn handle(&self, user: UserCreated, ctx: &Context) -> Result<(), HandlerError> {
        if user.name.is_empty() {
            return Err(HandlerError::reject("a user without a name"));
        }
        let left = self
            .failures
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        if left.is_ok() {
            return Err(IoError::other("the mail server is away").into());
        }
        ctx.publish(&EmailSent { to: user.name })?;
        Ok(())
    }
}

rumormill::register!(Email, Email::from_init);

async fn unregistered() -> TestBus {
    TestBus::builder().services(Services::none()).start().await
}

/// What an expectation says when it fails.
async fn complaint(expectation: impl Future<Output = impl Sized>) -> String {
    let panic = AssertUnwindSafe(expectation).catch_unwind().await.err().expect("it fails");
    *panic.downcast::<String>().expect("it says why")
}

#[tokio::test]
async fn registered_services_run_and_what_they_publish_is_expected() {
    let bus = TestBus::new().await;
    bus.publish(&user("alice")).await;
    bus.publish(&user("bob")).await;
    assert_eq!(bus.expect_published::<EmailSent>().await.to, "alice");
    assert_eq!(bus.expect_published::<EmailSent>().await.to, "bob");
    bus.expect_nothing_published::<EmailSent>().await;
    assert_eq!(bus.expect_published::<UserCreated>().await, user("alice"));
    assert!(bus.drain().await.is_clean());
}

#[tokio::test(start_paused = true)]
async fn time_stands_still_until_it_is_moved() {
    let bus = unregistered().await;
    let began = bus.now();
    bus.start_service(Email::failing(2)).await;
    bus.publish(&user("alice")).await;
    bus.expect_nothing_published::<EmailSent>().await;
    assert_eq!(bus.now(), began, "the retry did not come by waiting");

    let due = bus.due();
    assert_eq!(due.len(), 1, "{due:?}");
    assert_eq!((due[0].group.as_deref(), due[0].attempt), (Some("email"), 2));
    assert_eq!(due[0].event::<UserCreated>(), user("alice"));

    let second = bus.advance_to_next().await;
    assert_eq!((second.attempt, second.after), (2, due[0].after));
    assert!(bus.now().since(began) >= second.after);
    let third = bus.advance_to_next().await;
    assert_eq!(third.attempt, 3);
    assert_eq!(bus.expect_published::<EmailSent>().await.to, "alice");
    assert!(bus.due().is_empty() && bus.pending().is_empty() && bus.dead().is_empty());
}

#[tokio::test]
async fn the_same_test_takes_the_same_course() {
    let waits = async || {
        let bus = unregistered().await;
        bus.start_service(Email::failing(5)).await;
        bus.publish(&user("alice")).await;
        let mut waits = Vec::new();
        for _ in 0..5 {
            waits.push(bus.advance_to_next().await.after);
        }
        waits
    };
    assert_eq!(waits().await, waits().await);
}

#[tokio::test]
async fn all_attempts_take_no_time_and_end_in_the_dead_letters() {
    let bus = unregistered().await;
    let began = bus.now();
    bus.start_service(Email::failing(u32::MAX)).await;
    bus.publish(&user("alice")).await;
    bus.advance(Duration::from_secs(3_600)).await;
    let dead = bus.expect_dead::<UserCreated>().await;
    assert_eq!((dead.group.as_str(), dead.attempts), ("email", 16));
    assert_eq!(dead.failure.cause.to_string(), "attempts_spent");
    assert_eq!(dead.event::<UserCreated>(), user("alice"));
    assert_eq!(bus.now().since(began), Duration::from_secs(3_600));
}

#[tokio::test]
async fn a_delayed_publish_comes_when_the_clock_is_there() {
    let bus = TestBus::new().await;
    bus.publish_after(&user("alice"), Duration::from_secs(3_600)).await.expect("stored");
    bus.expect_nothing_published::<EmailSent>().await;
    let due = bus.advance_to_next().await;
    assert!(due.is_publish());
    assert_eq!(due.after, Duration::from_secs(3_600));
    assert_eq!(bus.expect_published::<EmailSent>().await.to, "alice");
}

#[tokio::test]
async fn a_handler_in_the_middle_is_pending_and_quiet_waits_for_it() {
    let bus = unregistered().await;
    bus.subscribe("slow", |_: UserCreated, _: Context| async {
        // waits: as a slow handler does
        tokio::time::sleep(Duration::from_secs(20)).await;
        Ok(())
    })
    .await
    .expect("subscribed");
    bus.publish(&user("alice")).await;
    // waits: for nothing, but lets the handler begin
    tokio::time::sleep(Duration::from_secs(1)).await;
    let pending = bus.pending();
    assert_eq!(pending.len(), 1, "{pending:?}");
    assert_eq!((pending[0].group.as_str(), pending[0].attempt), ("slow", 1));
    assert!(pending[0].is::<UserCreated>() && !pending[0].is::<EmailSent>());
    bus.quiet().await;
    assert!(bus.pending().is_empty());
}

#[tokio::test]
async fn a_broadcast_that_fails_in_between_is_waited_for() {
    let bus = unregistered().await;
    let heard = Arc::new(AtomicU32::new(0));
    let own = Arc::clone(&heard);
    bus.broadcast("cache", move |_: UserCreated, ctx: Context| {
        own.fetch_add(1, Ordering::Relaxed);
        let first = ctx.attempt() == 1;
        std::future::ready(if first { Err(HandlerError::retry("not yet")) } else { Ok(()) })
    })
    .await
    .expect("subscribed");
    bus.publish(&user("alice")).await;
    bus.publish(&user("bob")).await;
    bus.quiet().await;
    assert_eq!(heard.load(Ordering::Relaxed), 4, "each of them twice");
}

#[tokio::test]
async fn a_task_outside_the_bus_is_waited_for() {
    let bus = Arc::new(unregistered().await);
    let publisher = bus.publisher().clone();
    let task = tokio::spawn(async move {
        // waits: as a job that runs now and then does
        tokio::time::sleep(Duration::from_secs(2)).await;
        publisher.publish(&user("alice")).await
    });
    assert_eq!(bus.expect_published::<UserCreated>().await, user("alice"));
    task.await.expect("it ends").expect("stored");
}

#[tokio::test]
async fn another_instance_shares_store_and_clock() {
    let bus = unregistered().await;
    let other = bus.instance().services(Services::only(["email"])).build().await.expect("built");
    other.start().await.expect("started");
    bus.publish(&user("alice")).await;
    assert_eq!(bus.expect_published::<EmailSent>().await.to, "alice");
    other.drain(rumormill::DRAIN_DEADLINE).await;
    bus.publish(&user("bob")).await;
    // Nobody is there to handle it, so the bus is quiet with it unread.
    bus.expect_nothing_published::<EmailSent>().await;
}

#[tokio::test]
async fn a_missing_event_is_explained_by_what_came_instead() {
    let bus = unregistered().await;
    let options = ServiceOptions::default();
    bus.subscribe_routes("shaky", options, |routes| {
        routes.on_fn(|_: UserCreated, _| async { Err(IoError::other("away").into()) })
    })
    .await
    .expect("subscribed");
    bus.start_service(Email::failing(0)).await;
    bus.publish(&user("")).await;
    let text = complaint(bus.expect_published::<EmailSent>()).await;
    let line = line!() - 1;
    for part in [
        "no email_service.email.sent was published",
        &format!("tests/testing.rs:{line}"),
        "user_service.user.created (key )",
        "for group shaky, attempt 2",
        "advance_to_next",
        "of group email, tried 1: rejected: a user without a name",
    ] {
        assert!(text.contains(part), "{part:?} is missing in\n{text}");
    }
    let text = complaint(bus.expect_nothing_published::<UserCreated>()).await;
    assert!(text.starts_with("user_service.user.created (key ) was published"), "{text}");
    let text = complaint(bus.expect_dead::<EmailSent>()).await;
    assert!(text.contains("no email_service.email.sent was dead-lettered"), "{text}");
}

#[tokio::test]
async fn nothing_due_and_nothing_published_are_said() {
    let bus = unregistered().await;
    let text = complaint(bus.advance_to_next()).await;
    assert!(text.contains("nothing waits for a retry"), "{text}");
    assert!(text.contains("nothing was published"), "{text}");
    bus.drain().await;
    let text = complaint(bus.publish(&user("alice"))).await;
    assert!(text.contains("cannot publish user_service.user.created"), "{text}");
    assert!(text.contains("closed"), "{text}");
}

#[tokio::test]
async fn a_handler_that_never_ends_is_named() {
    let options = ServiceOptions {
        handler_timeout: Duration::from_secs(86_400),
        ..ServiceOptions::default()
    };
    let bus = unregistered().await;
    let hang = |routes: Routes<()>| routes.on_fn(|_: UserCreated, _| std::future::pending());
    bus.subscribe_routes("stuck", options, hang).await.expect("subscribed");
    bus.publish(&user("alice")).await;
    let text = complaint(bus.quiet()).await;
    assert!(text.contains("in group stuck, attempt 1"), "{text}");
}

#[tokio::test]
async fn much_work_moves_no_clock() {
    let bus = unregistered().await;
    let began = bus.now();
    bus.start_service(Email::failing(0)).await;
    let users: Vec<_> = (0..3_000).map(|number| user(&number.to_string())).collect();
    assert!(bus.publish_many(&users).await.iter().all(Result::is_ok));
    bus.quiet().await;
    assert_eq!(bus.now(), began);
    for _ in 0..3_000 {
        bus.expect_published::<EmailSent>().await;
    }
    bus.expect_nothing_published::<EmailSent>().await;
}

#[tokio::test]
async fn services_that_answer_each_other_for_ever_are_told_so() {
    let bus = unregistered().await;
    let post = |user: UserCreated, ctx: Context| async move {
        Ok(ctx.publish(&EmailSent { to: user.name })?)
    };
    let answer = |mail: EmailSent, ctx: Context| async move {
        Ok(ctx.publish(&UserCreated { name: mail.to })?)
    };
    bus.subscribe("post", post).await.expect("subscribed");
    bus.subscribe("answer", answer).await.expect("subscribed");
    bus.publish(&user("alice")).await;
    let text = complaint(bus.quiet()).await;
    assert!(text.contains("not quiet"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runtime_of_many_threads_is_refused_with_the_mend() {
    let panic = tokio::spawn(TestBus::new()).await.expect_err("refused").into_panic();
    let text = *panic.downcast::<&'static str>().expect("a text");
    assert!(text.contains("#[tokio::test]"), "{text}");
}

#[tokio::test]
async fn the_wall_clock_follows_from_where_it_was_set() {
    struct Noted(std::sync::Mutex<Vec<rumormill::Timestamp>>);
    let start = "2031-05-06T07:08:09Z".parse().expect("a time");
    let bus = TestBus::builder().services(Services::none()).starts_at(start).start().await;
    let noted = Arc::new(Noted(std::sync::Mutex::default()));
    let own = Arc::clone(&noted);
    bus.subscribe("noted", move |_: UserCreated, ctx: Context| {
        own.0.lock().expect("no panic under it").push(ctx.envelope().time());
        std::future::ready(Ok(()))
    })
    .await
    .expect("subscribed");
    bus.publish(&user("alice")).await;
    bus.advance(Duration::from_secs(60)).await;
    bus.publish(&user("bob")).await;
    bus.quiet().await;
    let times = noted.0.lock().expect("no panic under it").clone();
    assert_eq!(times, [start, start.plus(Duration::from_secs(60))]);
}
