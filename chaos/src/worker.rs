//! A worker: a process of its own, whose handlers do what each event tells them to, and write it
//! down.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rumormill::driver::LeaseTimes;
use rumormill::middleware::Idempotent;
use rumormill::{Bus, Context, HandlerError, Incident, Routes, ServiceOptions, Services};
use tokio::signal::unix::{SignalKind, signal};

use crate::args::ProcessArgs;
use crate::history::{Counts, How, What, Writer};
use crate::load::{Act, GROUPS, Handled, Made, ONCE};
use crate::site::SAMPLE_EVERY;
use crate::{Result, aside, input};

/// How long a silent worker keeps its events, unless a known bug shows sooner with less.
pub(crate) const LEASE: Duration = Duration::from_secs(3);

/// A lease that is renewed, and looked after by others, three times within itself.
fn lease(args: &ProcessArgs) -> LeaseTimes {
    let lease = Duration::from_millis(args.lease_ms.into());
    LeaseTimes { lease, renew: lease / 3, sweep: lease / 3 }
}

/// Longer than that.
const SLOW: Duration = Duration::from_millis(4_500);
/// Before an event is given up: others may have taken it over.
const WHILE: Duration = Duration::from_secs(1);
/// What a handler takes otherwise, at most.
const QUICK_MAX_MS: u64 = 8;
/// What running handlers get when a worker is told to end.
const DRAIN: Duration = Duration::from_secs(3);

/// Handles events until told to end, or until its supervisor is gone.
pub(crate) async fn run(args: &ProcessArgs) -> Result<()> {
    let path = Path::new(&args.history);
    let history = Arc::new(Writer::open(path)?);
    history.write(What::Started { pid: std::process::id() });
    let builder = Bus::builder().url(&args.url).services(Services::none()).source(&*args.name);
    let bus = builder.version(env!("CARGO_PKG_VERSION")).build().await?;
    note_incidents(&bus, &history);
    note_tasks(&history);
    let marks = path.parent().map(Path::to_path_buf).unwrap_or_default();
    for group in GROUPS {
        subscribe(&bus, group, lease(args), &history, &marks).await?;
    }
    let beside = aside::connect(args).await?;
    aside::subscribe(&bus, &beside, &history).await?;
    let mut end = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = end.recv() => {}
        () = orphaned() => return Ok(()),
    }
    let (report, _) = tokio::join!(bus.drain(DRAIN), beside.drain(DRAIN));
    let counts =
        Counts { finished: report.finished, handed_over: report.handed_over, ..counts(&bus) };
    history.write(What::Ended { counts });
    Ok(())
}

async fn subscribe(
    bus: &Bus,
    group: &str,
    lease: LeaseTimes,
    history: &Arc<Writer>,
    marks: &Path,
) -> Result<()> {
    let options = ServiceOptions { lease, ..ServiceOptions::default() };
    let (history, marks) = (Arc::clone(history), marks.to_path_buf());
    let handler = move |event: Made, context: Context| {
        let (history, marks) = (Arc::clone(&history), marks.clone());
        async move { handle(&event, &context, &history, &marks).await }
    };
    let once = group == ONCE;
    let routes = |routes: Routes<()>| {
        let routes = routes.on_fn(handler);
        if once { routes.with(Idempotent::default()) } else { routes }
    };
    Ok(bus.subscribe_routes(group, options, routes).await?)
}

async fn handle(
    event: &Made,
    context: &Context,
    history: &Writer,
    marks: &Path,
) -> std::result::Result<(), HandlerError> {
    let group = context.group().to_owned();
    history.write(What::Deliver {
        event: event.name.clone(),
        group: group.clone(),
        key: event.key_number(),
        attempt: context.attempt(),
        at: context.position().to_string(),
        made: event.made,
        act: event.act,
        intact: event.is_intact(),
    });
    let answer = act(event, context, marks).await;
    let how = match &answer {
        Ok(()) => How::Ok,
        Err(error) if error.is_reject() => How::Reject,
        Err(_) => How::Retry,
    };
    if how == How::Ok {
        if group == ONCE {
            let done = Handled { name: event.name.clone(), key: event.key.clone() };
            context.publish(&done).map_err(HandlerError::retry)?;
        }
        history.write(What::Effect { event: event.name.clone(), group: group.clone() });
    }
    history.write(What::End { event: event.name.clone(), group, how });
    answer
}

async fn act(
    event: &Made,
    context: &Context,
    marks: &Path,
) -> std::result::Result<(), HandlerError> {
    tokio::time::sleep(Duration::from_millis(fastrand::u64(..QUICK_MAX_MS))).await;
    let first = context.attempt() == 1;
    match event.act {
        Act::Retry if first => {
            let soon = Duration::from_millis(20);
            return Err(HandlerError::retry_after(soon, "the first attempt fails"));
        }
        Act::Reject => {
            tokio::time::sleep(WHILE).await;
            return Err(HandlerError::reject("it is to be given up"));
        }
        Act::Panic if first => panic!("the first attempt panics"),
        Act::Slow => tokio::time::sleep(SLOW).await,
        Act::Abort if is_first(event, context.group(), marks) => std::process::abort(),
        Act::Poison => std::process::abort(),
        _ => {}
    }
    Ok(())
}

/// Whether nobody aborted over the event before; a crash leaves the attempt as it was.
fn is_first(event: &Made, group: &str, marks: &Path) -> bool {
    let name = format!("aborted-{}-{group}", event.name.replace('/', "-"));
    OpenOptions::new().write(true).create_new(true).open::<PathBuf>(marks.join(name)).is_ok()
}

/// Comes back when nobody holds the other end of the standard input.
async fn orphaned() {
    let mut lines = input::lines();
    while lines.recv().await.is_some() {}
}

/// What the bus counted.
pub(crate) fn counts(bus: &Bus) -> Counts {
    let losses = bus.losses();
    Counts {
        unrouted: GROUPS.iter().map(|group| bus.counts(group).unrouted).sum(),
        group_lost: losses.group_lost,
        history_lost: losses.history_lost,
        retention_lost: losses.retention_lost,
        pending_gone: losses.pending_gone,
        settle_missed: losses.settle_missed,
        ..Counts::default()
    }
}

/// Writes down now and then how many tasks the process has.
pub(crate) fn note_tasks(history: &Arc<Writer>) {
    let history = Arc::clone(history);
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(SAMPLE_EVERY);
        loop {
            ticks.tick().await;
            let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
            history.write(What::Tasks { count: tasks as u64 });
        }
    });
}

/// Writes down what the bus tells of what went wrong below.
pub(crate) fn note_incidents(bus: &Bus, history: &Arc<Writer>) {
    let Some(mut incidents) = bus.incidents() else { return };
    let history = Arc::clone(history);
    tokio::spawn(async move {
        while let Some((incident, missed)) = incidents.next().await {
            if missed > 0 {
                history.write(What::IncidentsMissed { count: missed });
            }
            history.write(record(&incident));
        }
    });
}

fn record(incident: &Incident) -> What {
    let (name, entries) = match incident {
        Incident::GroupLost { .. } => ("group_lost", 1),
        Incident::HistoryLost { .. } => ("history_lost", 1),
        Incident::RetentionLost { entries, .. } => ("retention_lost", *entries),
        Incident::PendingGone { entries, .. } => ("pending_gone", *entries),
        Incident::SettleMissed { entries, .. } => ("settle_missed", *entries),
        Incident::Evicted { keys } => ("evicted", *keys),
        Incident::ServerChanged { .. } => ("server_changed", 1),
        _ => ("other", 1),
    };
    let group = incident.group().map(ToString::to_string);
    What::Incident { name: name.to_owned(), group, entries, text: incident.to_string() }
}

// A slow handler is slow by this.
const _: () = assert!(SLOW.as_millis() > LEASE.as_millis() * 4 / 3);
