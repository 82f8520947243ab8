//! Appending: one XADD per batch, pipelined on the command connection in the order of the calls.

use std::fmt;
use std::pin::pin;

use futures_util::future::poll_immediate;
use redis::{Cmd, Pipeline, Value};
use tokio::task::unconstrained;
use tokio::time::{Instant, timeout_at};

use super::connection::{Live, closed, demoted, send};
use super::fault::Fault;
use super::script::{Call, DELAY, is_unknown};
use super::{Shared, reply, wire};
use crate::delivery::Durability;
use crate::driver::{Append, Appended};
use crate::error::{Error, PublishError};

/// Calls whose answers may be outstanding; more wait their turn.
pub(super) const CALLS_MAX: usize = 4096;

type Answer = Result<Appended, PublishError>;

impl Shared {
    /// Stores batches; one answer each.
    pub(super) async fn append_all(&self, appends: Vec<Append>) -> Vec<Answer> {
        let what = Attempt(&appends);
        let refused = |make: &dyn Fn() -> Error| {
            appends.iter().map(|_| Err(PublishError::NotStored(make()))).collect()
        };
        if self.closing.is_cancelled() {
            return refused(&|| closed(&what));
        }
        let _under_way = self.requests.token();
        let until = self.commands.deadline();
        // Unconstrained: where tokio's budget makes a poll yield, it does not queue.
        let sending = unconstrained(self.send_in_order(&appends, until));
        let (generation, durability, answers) = match sending.await {
            Ok(sent) => sent,
            Err(error) => {
                let (kind, text) = (error.kind(), error.to_string());
                let help = error.help().unwrap_or("check the server").to_owned();
                return refused(&|| Error::new(kind, text.clone()).with_help(help.clone()));
            }
        };
        match answers {
            Ok(values) => {
                if let Some(fault) = demoted(&values) {
                    self.commands.report(generation, &fault);
                }
                self.read_answers(&appends, values, durability).await
            }
            Err(fault) => {
                self.commands.report(generation, &fault);
                let unknown = |_| Err(PublishError::Unknown(self.commands.error(&what, &fault)));
                appends.iter().map(unknown).collect()
            }
        }
    }

    /// Hands the commands to the connection under a fair lock, so that calls are stored in the
    /// order in which they were first polled, then waits for the answers without it.
    async fn send_in_order(
        &self,
        appends: &[Append],
        until: Instant,
    ) -> Result<(u64, Durability, Result<Vec<Value>, Fault>), Error> {
        let what = Attempt(appends);
        let late = || self.commands.error(&what, &Fault::Silent);
        let order = timeout_at(until, self.order.lock()).await.map_err(|_| late())?;
        let _room = timeout_at(until, self.room.acquire()).await.map_err(|_| late())?;
        let live = self.commands.live(&what, until).await?;
        self.standing.check()?;
        let Live { generation, mut connection, durability, .. } = live;
        let mut pipeline = Pipeline::with_capacity(appends.len());
        for append in appends {
            pipeline.add_command(self.command(append));
        }
        let mut sending = pin!(send(&mut connection, &pipeline));
        // The first poll queues the commands: there is room for them.
        let first = poll_immediate(&mut sending).await;
        drop(order);
        let answers = match first {
            Some(answers) => answers,
            None => timeout_at(until, sending).await.unwrap_or(Err(Fault::Silent)),
        };
        Ok((generation, durability, answers))
    }

    fn command(&self, append: &Append) -> Cmd {
        if append.delay.is_zero() {
            let mut add = redis::cmd("XADD");
            add.arg(self.keys.log(&append.partition)).arg("*");
            add.arg(wire::BATCH).arg(wire::encode_batch(&append.envelopes));
            add.arg(wire::PUBLISHER).arg(self.publisher.next());
            add
        } else {
            self.delay(append).by_hash()
        }
    }

    /// One member per event, by the server's clock.
    fn delay(&self, append: &Append) -> Call {
        let mut call = Call::new(&DELAY, vec![self.keys.delayed(&append.partition)]);
        // A delay of less than a millisecond is still one.
        call.number(&append.delay.as_millis().max(1));
        for envelope in &append.envelopes {
            call.arg(wire::encode_batch([envelope]));
        }
        call
    }

    async fn read_answers(
        &self,
        appends: &[Append],
        values: Vec<Value>,
        durability: Durability,
    ) -> Vec<Answer> {
        let mut answers = Vec::with_capacity(appends.len());
        for (append, value) in appends.iter().zip(values) {
            let delayed = !append.delay.is_zero();
            let value = if delayed && is_unknown(&value) {
                self.delay_in_full(append).await
            } else {
                Ok(value)
            };
            if delayed {
                self.schedule.hint(append.delay);
            }
            let what = Attempt(std::slice::from_ref(append));
            let error = |fault: &Fault| self.commands.error(&what, fault);
            answers.push(match value {
                Ok(value) => read_answer(value, delayed, durability).map_err(|fault| {
                    // XADD and the script refuse before they write: a refusal is certain.
                    let certain = matches!(fault, Fault::Refused { .. });
                    let error = error(&fault);
                    if certain {
                        PublishError::NotStored(error)
                    } else {
                        PublishError::Unknown(error)
                    }
                }),
                Err(unknown) => Err(unknown),
            });
            if let Some(Ok(Appended { entry: Some(id), .. })) = answers.last() {
                self.history.note(&append.partition, *id);
            }
        }
        answers
    }

    /// The server did not have the script, and did nothing: it gets the text.
    async fn delay_in_full(&self, append: &Append) -> Result<Value, PublishError> {
        let what = Attempt(std::slice::from_ref(append));
        let until = self.commands.deadline();
        let live = self.commands.live(&what, until).await.map_err(PublishError::NotStored)?;
        let Live { generation, mut connection, .. } = live;
        let mut pipeline = Pipeline::new();
        pipeline.add_command(self.delay(append).in_full());
        let answers = timeout_at(until, send(&mut connection, &pipeline)).await;
        match answers.unwrap_or(Err(Fault::Silent)) {
            Ok(mut values) => Ok(values.pop().unwrap_or_default()),
            Err(fault) => {
                self.commands.report(generation, &fault);
                Err(PublishError::Unknown(self.commands.error(&what, &fault)))
            }
        }
    }
}

fn read_answer(value: Value, delayed: bool, durability: Durability) -> Result<Appended, Fault> {
    if delayed {
        reply::int(value)?;
        return Ok(Appended { entry: None, durability });
    }
    Ok(Appended { entry: Some(reply::id(value)?), durability })
}

/// Says what was attempted.
struct Attempt<'a>(&'a [Append]);

impl fmt::Display for Attempt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [] => f.write_str("append nothing"),
            [one] => write!(f, "append to {}", one.partition),
            [first, rest @ ..] => {
                write!(f, "append to {} and {} more", first.partition, rest.len())
            }
        }
    }
}
