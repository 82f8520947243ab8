//! A publisher: a process of its own, which writes down what it asks for and what it is told.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::poll_immediate;
use rumormill::{Bus, Confirm, PublishError, PublishOptions, Services};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::MissedTickBehavior;
use tokio_util::task::TaskTracker;

use crate::args::ProcessArgs;
use crate::history::{What, Writer};
use crate::load::{self, Act, Made};
use crate::{Result, aside, input, time, worker};

const EVERY: Duration = Duration::from_millis(25);
/// Beyond the largest payload.
const OVERSIZE: usize = (1 << 20) + 1;
const DRAIN: Duration = Duration::from_secs(2);
/// How long the last publishes may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Publishes until told to end, or until its supervisor is gone.
pub(crate) async fn run(args: &ProcessArgs) -> Result<()> {
    let history = Arc::new(Writer::open(Path::new(&args.history))?);
    history.write(What::Started { pid: std::process::id() });
    let bus = connect(args, &history).await?;
    worker::note_tasks(&history);
    let beside = aside::connect(args).await?;
    let mut asides = aside::Publisher::new(&bus, &beside, &history, &args.name);
    let publishes = TaskTracker::new();
    let mut end = signal(SignalKind::terminate())?;
    let mut dice = fastrand::Rng::with_seed(args.seed);
    let mut orders = input::lines();
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut number = 0;
    loop {
        let act = tokio::select! {
            _ = end.recv() => break,
            order = orders.recv() => match order {
                Some(order) => Act::named(&order),
                None => return Ok(()),
            },
            _ = ticks.tick() => None,
        };
        asides.publish(&publishes);
        let burst = if act.is_some() { 1 } else { u64::from(args.rate) / 40 };
        for _ in 0..burst.max(1) {
            let act = act.unwrap_or_else(|| Act::throw(&mut dice));
            let size = if act == Act::Oversize { OVERSIZE } else { load::size(&mut dice) };
            let event = Made::new(&args.name, number, time::now(), act, size);
            number += 1;
            publish(&bus, &history, &publishes, event).await;
        }
    }
    publishes.close();
    let _late = tokio::time::timeout(PATIENCE, publishes.wait()).await;
    tokio::join!(bus.drain(DRAIN), asides.drain(DRAIN));
    history.write(What::Ended { counts: worker::counts(&bus) });
    Ok(())
}

async fn connect(args: &ProcessArgs, history: &Arc<Writer>) -> Result<Bus> {
    let builder = Bus::builder().url(&args.url).services(Services::none()).source(&*args.name);
    let timeout = Duration::from_millis(500);
    let confirm = match args.replicas {
        0 => Confirm::Server,
        count => Confirm::Replicas { count, timeout },
    };
    let bus = builder.confirm(confirm).build().await?;
    worker::note_incidents(&bus, history);
    Ok(bus)
}

async fn publish(bus: &Bus, history: &Arc<Writer>, publishes: &TaskTracker, event: Made) {
    let (name, key, act, made) = (event.name.clone(), event.key_number(), event.act, event.made);
    history.write(What::Invoke { event: name.clone(), key, act });
    let (bus, history) = (bus.clone(), Arc::clone(history));
    let mut publish = Box::pin(async move {
        let options = PublishOptions::default().id(event.id());
        let answer = bus.publish_with(&event, options).await;
        history.write(match answer {
            Ok(receipt) => What::Ok {
                event: name,
                made,
                at: receipt.position.map(|at| at.to_string()).unwrap_or_default(),
                durability: receipt.durability.to_string(),
            },
            Err(PublishError::NotStored(why)) => {
                What::NotStored { event: name, why: why.to_string() }
            }
            Err(PublishError::Unknown(why)) => What::Unknown { event: name, why: why.to_string() },
        });
    });
    // The first poll takes the event's place in the order of its key.
    if poll_immediate(&mut publish).await.is_none() {
        publishes.spawn(publish);
    }
}
