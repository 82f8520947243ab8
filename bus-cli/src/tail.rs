//! `bus-cli tail`: shows events as they are published. It reads the logs and joins no group, so it
//! takes nothing from anyone and leaves nothing behind.

pub(crate) mod cursor;

use std::io::{Write, stderr};
use std::sync::Arc;
use std::time::Duration;

use rumormill::delivery::Malformed;
use rumormill::driver::Tools;
use rumormill::{Bus, Envelope, Error, Pattern, Position};
use tokio::time::Instant;

use self::cursor::{Cursor, Shown};
use crate::address::Address;
use crate::failure::{Exit, Failure};
use crate::output::{Output, is_closed_pipe};
use crate::settings::{Start, Tail};
use crate::signals::interrupt;

/// Entries of a partition that one read brings.
const ENTRIES_MAX: usize = 256;
/// How long a read waits, and so how soon a new topic is found.
const WAIT: Duration = Duration::from_millis(500);
/// While the store does not answer.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// Shows events until the limit, the end, or an interrupt, each of which is success.
pub(crate) async fn run(task: &Tail, bus: &Bus, address: &Address) -> Result<Exit, Failure> {
    let driver = Arc::clone(bus.driver());
    let tools = driver.tools().ok_or_else(|| {
        Failure::failed(format!("cannot tail {address}: its driver cannot read without a group"))
    })?;
    let output = Output::stdout(task.format);
    let mut tailing = Tailing { task, tools, address, output, shown: 0 };
    tokio::select! {
        // First, so that signals are listened to before `tailing` is said.
        biased;
        _ = interrupt() => Ok(Exit::Done),
        ended = tailing.run() => ended,
    }
}

struct Tailing<'a, W> {
    task: &'a Tail,
    tools: &'a dyn Tools,
    address: &'a Address,
    output: Output<W>,
    shown: u64,
}

/// Whether there is more to show.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    More,
    Enough,
}

impl<W: Write> Tailing<'_, W> {
    async fn run(&mut self) -> Result<Exit, Failure> {
        let (mut cursor, first) = Cursor::begin(self.tools, &self.task.patterns, &self.task.start)
            .await
            .map_err(|error| self.failure(&error))?;
        if self.task.start == Start::New {
            // Where stderr is gone, nobody waits for it.
            let _ = writeln!(stderr(), "tailing");
        }
        if self.show(&first)? == Flow::Enough {
            return Ok(Exit::Done);
        }
        if self.task.until_end {
            self.read_to_end(cursor).await
        } else {
            self.follow(&mut cursor).await
        }
    }

    /// Shows what comes, for ever. A store that does not answer is asked again.
    async fn follow(&mut self, cursor: &mut Cursor) -> Result<Exit, Failure> {
        let mut lost = false;
        let mut topics_known = Instant::now();
        loop {
            let read = async {
                if topics_known.elapsed() >= WAIT || cursor.is_empty() {
                    cursor.find_topics(self.tools, &self.task.patterns).await?;
                    topics_known = Instant::now();
                }
                if cursor.is_empty() {
                    tokio::time::sleep(WAIT).await;
                    return Ok(Vec::new());
                }
                cursor.read(self.tools, ENTRIES_MAX, WAIT).await
            };
            match read.await {
                Ok(events) => {
                    if std::mem::take(&mut lost) {
                        let _ = writeln!(stderr(), "{} answers again", self.address);
                    }
                    if self.show(&events)? == Flow::Enough {
                        return Ok(Exit::Done);
                    }
                }
                Err(error) if error.is_transient() => {
                    if !std::mem::replace(&mut lost, true) {
                        self.failure(&error).print(self.address, &mut stderr());
                        let _ = writeln!(stderr(), "waiting for it to come back");
                    }
                    tokio::time::sleep(RETRY_AFTER).await;
                }
                Err(error) => return Err(self.failure(&error)),
            }
        }
    }

    /// Shows what is there now, and no more.
    async fn read_to_end(&mut self, mut cursor: Cursor) -> Result<Exit, Failure> {
        let ends = Cursor::at_end(self.tools, &self.task.patterns).await;
        let ends = ends.map_err(|error| self.failure(&error))?;
        cursor.keep_before(&ends);
        while !cursor.is_empty() {
            let read = cursor.read(self.tools, ENTRIES_MAX, Duration::from_millis(1)).await;
            let mut events = read.map_err(|error| self.failure(&error))?;
            if events.is_empty() {
                break;
            }
            events.retain(|(position, _)| ends.covers(position));
            if self.show(&events)? == Flow::Enough {
                break;
            }
            cursor.keep_before(&ends);
        }
        Ok(Exit::Done)
    }

    fn show(&mut self, events: &[Shown]) -> Result<Flow, Failure> {
        let shown = self.write(events).and_then(|flow| self.output.flush().map(|()| flow));
        match shown {
            Err(error) if is_closed_pipe(&error) => Ok(Flow::Enough),
            shown => {
                shown.map_err(|error| Failure::failed("cannot write to stdout").because(&error))
            }
        }
    }

    fn write(&mut self, events: &[Shown]) -> std::io::Result<Flow> {
        for (position, record) in events {
            match record {
                Ok(envelope) if self.wants(position, envelope) => {
                    self.output.event(position, envelope)?;
                    self.shown += 1;
                }
                Ok(_) => {}
                Err(malformed) => self.warn(position, malformed),
            }
            if self.task.limit.is_some_and(|limit| self.shown >= limit) {
                return Ok(Flow::Enough);
            }
        }
        Ok(Flow::More)
    }

    fn wants(&self, position: &Position, envelope: &Envelope) -> bool {
        !self.task.start.excludes(position) && matches(&self.task.patterns, envelope)
    }

    /// Something that is no event is none to show, and not to be silent about.
    fn warn(&self, position: &Position, malformed: &Malformed) {
        Failure::failed(format!("{position} is no event: {}", malformed.reason))
            .print(self.address, &mut stderr());
    }

    fn failure(&self, error: &Error) -> Failure {
        Failure::library("cannot tail", error)
    }
}

pub(crate) fn matches(patterns: &[Pattern], envelope: &Envelope) -> bool {
    patterns.iter().any(|pattern| pattern.matches(envelope.event_type()))
}

#[cfg(test)]
mod tests;
