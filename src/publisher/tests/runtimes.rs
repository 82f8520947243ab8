//! Writers, and the runtimes that they run on.

use tokio::runtime::{Builder, Runtime};

use super::*;

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// With threads of its own, on which writers run.
fn threads() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

/// Publishes on a runtime until the store has been asked.
fn ask_on(
    runtime: &Runtime,
    driver: &Gated,
    publisher: &Publisher,
) -> impl Future<Output = Answer> + use<> {
    let asked = runtime.block_on(accepted(publisher, event("0"), false));
    runtime.block_on(async {
        while driver.batches.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    });
    asked
}

#[test]
fn a_writer_that_ends_with_its_runtime_is_replaced() {
    let (driver, publisher) = gated(0, false, PublishLimits::default());
    let first = runtime();
    let asked = first.block_on(accepted(&publisher, event("0"), false));
    first.block_on(tokio::task::yield_now());
    drop(first);
    driver.gate.add_permits(10);
    let second = publisher.publish_envelope(event("1"));
    runtime().block_on(second).expect("somebody writes");
    drop(asked);
}

/// What waits for a writer whose runtime ends is told so; nobody would watch its deadline.
#[test]
fn what_waits_for_a_writer_that_ends_is_told() {
    let limits = PublishLimits { inflight_appends_max: 1, ..PublishLimits::default() };
    let (driver, publisher) = gated(0, false, limits);
    let first = runtime();
    let _sent = ask_on(&first, &driver, &publisher);
    let waiting = first.block_on(accepted(&publisher, event("1"), false));
    drop(first);
    let error = runtime().block_on(waiting).expect_err("nobody writes it");
    assert!(error.is_not_stored(), "{error}");
    assert_eq!(publisher.0.room.free().0, limits.unconfirmed_max, "its room is given back");
}

/// Where the driver has a runtime, what waits goes on there, for whoever published it.
#[test]
fn what_waits_for_a_writer_that_ends_goes_on_beside_the_connections() {
    let of_driver = threads();
    let limits = PublishLimits { inflight_appends_max: 1, ..PublishLimits::default() };
    let (driver, publisher) = gated_on(Some(of_driver.handle().clone()), 0, false, limits);
    let (first, second) = (threads(), runtime());
    let sent = ask_on(&first, &driver, &publisher);
    let waiting = second.block_on(accepted(&publisher, event("1"), false));
    drop(first);
    let error = second.block_on(sent).expect_err("nobody waits for its answer any more");
    assert!(!error.is_not_stored(), "{error}");
    driver.gate.add_permits(1);
    second.block_on(waiting).expect("it was only waiting");
    let batches = driver.batches.lock().unwrap().clone();
    assert_eq!(batches, [["0"], ["1"]]);
    assert_eq!(publisher.0.room.free().0, limits.unconfirmed_max, "all room is given back");
}

/// The driver's runtime may be gone as well.
#[test]
fn what_waits_is_told_where_no_runtime_is_left() {
    let of_driver = runtime();
    let limits = PublishLimits { inflight_appends_max: 1, ..PublishLimits::default() };
    let (driver, publisher) = gated_on(Some(of_driver.handle().clone()), 0, false, limits);
    drop(of_driver);
    let first = threads();
    let _sent = ask_on(&first, &driver, &publisher);
    let waiting = first.block_on(accepted(&publisher, event("1"), false));
    drop(first);
    let error = runtime().block_on(waiting).expect_err("nobody writes it");
    assert!(error.is_not_stored(), "{error}");
}

/// A runtime of one thread may have nobody to run it: its writer runs beside the connections.
#[test]
fn nobody_waits_for_a_runtime_that_is_left_alone() {
    let of_driver = threads();
    let limits = PublishLimits { inflight_appends_max: 1, ..PublishLimits::default() };
    let (driver, publisher) = gated_on(Some(of_driver.handle().clone()), 0, false, limits);
    let (first, second) = (runtime(), runtime());
    let _sent = ask_on(&first, &driver, &publisher);
    let waiting = second.block_on(accepted(&publisher, event("1"), false));
    driver.gate.add_permits(2);
    second.block_on(waiting).expect("the first runtime is not needed");
}

/// The thread that has a writer to run may stand still: the deadline holds.
#[test]
fn a_deadline_is_kept_where_its_runtime_stands_still() {
    let of_driver = threads();
    let limits = PublishLimits { deadline: Duration::from_millis(200), ..PublishLimits::default() };
    let (driver, publisher) = gated_on(Some(of_driver.handle().clone()), 0, false, limits);
    let stuck = threads();
    let (go, gone) = std::sync::mpsc::channel::<()>();
    let own = publisher.clone();
    let asked = stuck.spawn(async move {
        let first = accepted(&own, event("0"), false).await;
        // The writer was spawned on this thread, which waits.
        gone.recv().expect("a word");
        first.await
    });
    let of_other = runtime();
    while publisher.0.writers.is_empty() {
        std::thread::yield_now();
    }
    let error = of_other.block_on(publisher.publish_envelope(event("1"))).expect_err("late");
    assert!(error.is_not_stored(), "it was only waiting: {error}");
    go.send(()).expect("somebody waits");
    let error = of_other.block_on(asked).expect("no panic").expect_err("late as well");
    assert!(error.is_not_stored(), "{error}");
    assert!(driver.batches.lock().unwrap().is_empty());
}
