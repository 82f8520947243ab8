//! The end of a round: everything is mended, what is left is handled, and what is there is read.

use std::time::Duration;

use rumormill::delivery::{DeadLetter, EntryId, Partition, Position, Record};
use rumormill::driver::{Driver, GroupName, Tools};
use rumormill::{Bus, Services, Topic};

use crate::crew::{END, Role};
use crate::history::{What, Writer};
use crate::load::{DONE, GROUPS, Handled, Made, TOPIC};
use crate::site::{Site, slots};
use crate::{Result, plants, time};

/// How long the groups may take to handle what is left. What kills its process is given to one
/// after the other, each after a lease.
const SETTLE: Duration = Duration::from_secs(120);
const WELL: Duration = Duration::from_secs(30);
const PAGE: usize = 200;
/// How often the end is read again where the server does not answer: what it did in the round may
/// have left it busy.
const READS: usize = 20;
const READ_AGAIN: Duration = Duration::from_millis(500);
/// More dead letters than any round makes.
const LETTERS_MAX: usize = 100_000;

/// Ends a round.
pub(crate) async fn end(site: &mut Site) -> Result<()> {
    site.progress.now = "mending".to_owned();
    for proxy in site.lines() {
        proxy.pass();
    }
    site.crew.restore()?;
    let mended = time::now();
    let patience = site.crew.plant().and_then(plants::patience).unwrap_or(WELL);
    if !site.until(patience, |site| site.watch.is_well(mended)).await? {
        site.history.note("it does not work in the end");
    }
    site.progress.now = "draining".to_owned();
    dismiss(site, Role::Publisher).await?;
    let bus = Bus::builder().url(site.server().url()).services(Services::none()).build().await?;
    settle(site, bus.driver().as_ref()).await?;
    dismiss(site, Role::Worker).await?;
    site.watch.look()?;
    read(site, bus.driver().as_ref()).await?;
    bus.drain(Duration::ZERO).await;
    Ok(())
}

/// Tells all of a role to end, and notes who does not.
async fn dismiss(site: &mut Site, role: Role) -> Result<()> {
    let patience = site.crew.plant().and_then(plants::patience).unwrap_or(END).min(END);
    for slot in site.crew.terminate_all(&slots(role), patience).await? {
        site.history.note(format!("{} did not end when it was told to", slot.name()));
    }
    Ok(())
}

/// Asks again where no answer came.
async fn patiently<T>(
    mut ask: impl AsyncFnMut() -> std::result::Result<T, rumormill::Error>,
) -> Result<T> {
    for _ in 1..READS {
        match ask().await {
            Err(error) if error.is_transient() => tokio::time::sleep(READ_AGAIN).await,
            answer => return Ok(answer?),
        }
    }
    Ok(ask().await?)
}

fn tools(driver: &dyn Driver) -> &dyn Tools {
    driver.tools().expect("the Redis driver has them")
}

/// Waits until the groups have nothing before them.
async fn settle(site: &mut Site, driver: &dyn Driver) -> Result<()> {
    let patience = site.crew.plant().and_then(plants::patience).unwrap_or(SETTLE);
    let until = time::now() + time::nanos(patience);
    let mut quiet = 0;
    while quiet < 3 && time::now() < until {
        let mut settled = true;
        for group in GROUPS {
            let name = GroupName::new(group)?;
            settled &= patiently(async || tools(driver).backlog(&name).await).await?.is_settled();
        }
        quiet = if settled { quiet + 1 } else { 0 };
        site.pass(Duration::from_millis(100)).await?;
    }
    Ok(())
}

/// Writes down the log, the dead letters, and what is left.
async fn read(site: &mut Site, driver: &dyn Driver) -> Result<()> {
    let history = Writer::open(&site.crew.folder().join("end.ndjson"))?;
    read_log(driver, TOPIC, |record, at| history.write(stored(record, at))).await?;
    read_log(driver, DONE, |record, at| history.write(output(record, at))).await?;
    for group in GROUPS {
        let name = GroupName::new(group)?;
        let letters = async || tools(driver).dead_letters(&name, LETTERS_MAX).await;
        for letter in patiently(letters).await? {
            history.write(dead(group, &letter));
        }
        let left = patiently(async || tools(driver).backlog(&name).await).await?;
        history.write(What::Left {
            group: group.to_owned(),
            unread: left.unread,
            pending: left.pending,
            due: left.due,
            dead: left.dead,
        });
    }
    Ok(())
}

/// Reads a topic's log from its beginning.
async fn read_log(
    driver: &dyn Driver,
    topic: &str,
    mut take: impl FnMut(&Record, &Position),
) -> Result<()> {
    let partition = Partition { topic: Topic::new(topic)?, index: 0 };
    let mut after = EntryId::ZERO;
    loop {
        let place = [(partition.clone(), after)];
        let page = async || tools(driver).read(&place, PAGE, Duration::ZERO).await;
        let entries = patiently(page).await?;
        let Some(last) = entries.last() else { return Ok(()) };
        after = last.id;
        for entry in &entries {
            for (index, record) in (0..).zip(&*entry.records) {
                let at = Position { partition: partition.clone(), entry: entry.id, index };
                take(record, &at);
            }
        }
    }
}

fn output(record: &Record, at: &Position) -> What {
    let handled: Option<Handled> = record.as_ref().ok().and_then(|envelope| envelope.event().ok());
    match handled {
        Some(handled) => What::Output { event: handled.name, at: at.to_string() },
        None => What::Foreign { at: at.to_string() },
    }
}

fn event(record: &Record) -> Option<Made> {
    record.as_ref().ok().and_then(|envelope| envelope.event().ok())
}

fn stored(record: &Record, at: &Position) -> What {
    match event(record) {
        Some(event) => {
            let intact = event.is_intact();
            What::Stored { event: event.name, at: at.to_string(), intact }
        }
        None => What::Foreign { at: at.to_string() },
    }
}

fn dead(group: &str, letter: &DeadLetter) -> What {
    What::Dead {
        event: event(&letter.record).map(|event| event.name),
        group: group.to_owned(),
        at: letter.origin.to_string(),
        cause: letter.failure.cause.to_string(),
        attempts: letter.attempts,
        error: letter.failure.errors.join(": "),
    }
}
