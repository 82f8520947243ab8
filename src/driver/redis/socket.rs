//! A connection to a server, shared by whoever has a clone of it: answers come in the order of the
//! commands.
//!
//! Commands are written by the thread that sends them, as far as the socket takes them. Only the
//! rest and the answers are the business of a task, on the runtime on which the connection was
//! made. In the `redis` crate's connection a task does both, so that a lone event crosses to
//! another thread before it is on its way. That connection is used where this one does not reach:
//! over TLS and Unix sockets, and for RESP3.

use std::collections::VecDeque;
use std::io;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use redis::aio::MultiplexedConnection;
use redis::{Pipeline, Value};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Notify, oneshot};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::denied;
use super::fault::Fault;
use super::resp::Parser;

/// Room that is made before a read. What is left of it is there for the next one.
const READ_ROOM: usize = 1 << 16;
/// Beyond this the room for what is to be written is given back once it is not needed.
const WRITE_ROOM: usize = 1 << 20;
/// How long answers are still read after the socket took nothing any more.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// A connection. It ends with its last clone.
#[derive(Clone)]
pub(super) enum Socket {
    Plain(Arc<Plain>),
    OfCrate(MultiplexedConnection),
}

impl Socket {
    /// A pipeline's answers, one for each command; refusals stand among them.
    ///
    /// The commands are on their way after the first poll, in the order of first polls.
    pub(super) async fn send(&self, pipeline: &Pipeline) -> Result<Vec<Value>, Fault> {
        self.send_when(pipeline, When::Now).await
    }

    /// The same, now or together with what is sent next.
    pub(super) async fn send_when(
        &self,
        pipeline: &Pipeline,
        when: When,
    ) -> Result<Vec<Value>, Fault> {
        let mut values = self.send_plainly(pipeline, when).await?;
        denied::complete(self, pipeline, &mut values).await;
        Ok(values)
    }

    /// The answers as they are.
    pub(super) async fn send_plainly(
        &self,
        pipeline: &Pipeline,
        when: When,
    ) -> Result<Vec<Value>, Fault> {
        let values = match self {
            Self::Plain(plain) => plain.send(pipeline, when).await?,
            Self::OfCrate(connection) => {
                let mut connection = connection.clone();
                connection.send_packed_commands(pipeline, 0, pipeline.len()).await?
            }
        };
        if values.len() == pipeline.len() {
            return Ok(values);
        }
        Err(Fault::Odd(format!("{} answers to {} commands", values.len(), pipeline.len())))
    }
}

/// When commands are written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    Now,
    /// With what is sent next, which must follow at once.
    WithNext,
}

/// A connection over TCP.
pub(super) struct Plain {
    core: Arc<Core>,
    task: AbortHandle,
    response_timeout: Duration,
}

impl Drop for Plain {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What the callers and the task share.
struct Core {
    sink: OwnedWriteHalf,
    writing: Mutex<Writing>,
    waiting: Mutex<Waiting>,
    /// The socket took less than there was.
    blocked: Notify,
}

#[derive(Default)]
struct Writing {
    bytes: Vec<u8>,
    /// How many of them the socket has taken.
    taken: usize,
    /// The task writes, once the socket takes more.
    is_blocked: bool,
}

impl Writing {
    /// Gives back the room of what was taken. Where there is always something left, it would grow
    /// for ever; half of it at a time costs one copy of each byte.
    fn forget_taken(&mut self) {
        if self.taken * 2 >= self.bytes.len() {
            self.bytes.drain(..self.taken);
            self.taken = 0;
        }
    }
}

#[derive(Default)]
struct Waiting {
    callers: VecDeque<Caller>,
    /// There was an answer: nobody is shut out any more.
    is_served: bool,
    /// Why no more answers come.
    end: Option<Fault>,
}

struct Caller {
    values: Vec<Value>,
    left: usize,
    answers: oneshot::Sender<Vec<Value>>,
}

impl Plain {
    /// The stream's options are the caller's business.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub(super) fn start(stream: TcpStream, response_timeout: Duration) -> Arc<Self> {
        let (source, sink) = stream.into_split();
        let (writing, waiting) = (Mutex::default(), Mutex::default());
        let core = Arc::new(Core { sink, writing, waiting, blocked: Notify::new() });
        let ends = Ends(Arc::clone(&core));
        let work = async move {
            let core = Arc::clone(&ends.0);
            let mut reading = pin!(core.read(source));
            let fault = tokio::select! {
                biased;
                fault = &mut reading => fault,
                // What the server said before it went is there to be read.
                fault = core.write_rest() => timeout(LAST_WORDS, reading).await.unwrap_or(fault),
            };
            core.end(&fault);
            drop(ends);
        };
        let task = tokio::spawn(work).abort_handle();
        Arc::new(Self { core, task, response_timeout })
    }

    async fn send(&self, pipeline: &Pipeline, when: When) -> Result<Vec<Value>, Fault> {
        if pipeline.is_empty() {
            return Ok(Vec::new());
        }
        let arrived = self.core.send(pipeline, when)?;
        match timeout(self.response_timeout, arrived).await {
            Ok(Ok(values)) => Ok(values),
            Ok(Err(_)) => Err(self.core.fault()),
            Err(_) => Err(Fault::Silent),
        }
    }
}

/// The task's end, however it comes: with its runtime as well.
struct Ends(Arc<Core>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.end(&Fault::Lost("the runtime of its connection has ended".to_owned()));
    }
}

impl Core {
    /// Queues commands and whoever waits for their answers.
    fn send(
        &self,
        pipeline: &Pipeline,
        when: When,
    ) -> Result<oneshot::Receiver<Vec<Value>>, Fault> {
        let (answers, arrived) = oneshot::channel();
        let left = pipeline.len();
        let caller = Caller { values: Vec::with_capacity(left), left, answers };
        let mut writing = self.writing();
        {
            // In the order in which they are written: under the lock of that.
            let mut waiting = self.waiting();
            if let Some(fault) = &waiting.end {
                return Err(fault.clone());
            }
            waiting.callers.push_back(caller);
        }
        for command in pipeline.cmd_iter() {
            command.write_packed_command(&mut writing.bytes);
        }
        if when == When::Now && !writing.is_blocked && self.write(&mut writing).is_err() {
            // The task meets the same error.
            writing.is_blocked = true;
            self.blocked.notify_one();
        }
        Ok(arrived)
    }

    /// Writes what the socket takes; the rest is the task's.
    fn write(&self, writing: &mut Writing) -> io::Result<()> {
        while writing.taken < writing.bytes.len() {
            match self.sink.try_write(&writing.bytes[writing.taken..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(taken) => writing.taken += taken,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    writing.forget_taken();
                    writing.is_blocked = true;
                    self.blocked.notify_one();
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        writing.is_blocked = false;
        writing.taken = 0;
        writing.bytes.clear();
        if writing.bytes.capacity() > WRITE_ROOM {
            writing.bytes = Vec::new();
        }
        Ok(())
    }

    /// Writes what the socket did not take at once. Ends where it takes nothing any more.
    async fn write_rest(&self) -> Fault {
        loop {
            self.blocked.notified().await;
            loop {
                if let Err(error) = self.sink.writable().await {
                    return lost(error);
                }
                let mut writing = self.writing();
                if let Err(error) = self.write(&mut writing) {
                    return lost(error);
                }
                if !writing.is_blocked {
                    break;
                }
            }
        }
    }

    /// Hands answers out until they end.
    async fn read(&self, mut source: OwnedReadHalf) -> Fault {
        let (mut parser, mut bytes) = (Parser::default(), BytesMut::new());
        loop {
            bytes.reserve(READ_ROOM);
            match source.read_buf(&mut bytes).await {
                Ok(0) => return lost(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) => return lost(error),
            }
            loop {
                match parser.next(&mut bytes) {
                    Ok(Some(value)) => {
                        if let Some(fault) = self.answer(value) {
                            return fault;
                        }
                    }
                    Ok(None) => break,
                    Err(what) => {
                        return Fault::Odd(format!(
                            "what answers does not speak the Redis protocol: {what}"
                        ));
                    }
                }
            }
        }
    }

    /// An answer for who has waited longest.
    fn answer(&self, value: Value) -> Option<Fault> {
        let whole = {
            let mut waiting = self.waiting();
            let is_served = std::mem::replace(&mut waiting.is_served, true);
            let Some(caller) = waiting.callers.front_mut() else {
                return Some(match super::fault::accept(value) {
                    // Who is shut out is told so before anything was asked.
                    Err(refusal) if !is_served => refusal,
                    // What stands between may say why it ends the connection.
                    Err(refusal) => Fault::Lost(refusal.to_string()),
                    Ok(_) => Fault::Odd("an answer that nobody asked for".to_owned()),
                });
            };
            caller.values.push(value);
            caller.left -= 1;
            if caller.left > 0 {
                return None;
            }
            waiting.callers.pop_front()
        };
        if let Some(Caller { values, answers, .. }) = whole {
            // Who has gone does not want to know.
            drop(answers.send(values));
        }
        None
    }

    /// Tells everybody that no more answers come; the first reason stands.
    fn end(&self, fault: &Fault) {
        let callers = {
            let mut waiting = self.waiting();
            waiting.end.get_or_insert_with(|| fault.clone());
            std::mem::take(&mut waiting.callers)
        };
        drop(callers);
    }

    /// Why no more answers come.
    fn fault(&self) -> Fault {
        self.waiting().end.clone().unwrap_or(Fault::Silent)
    }

    fn writing(&self) -> MutexGuard<'_, Writing> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lost(error: io::Error) -> Fault {
    redis::RedisError::from(error).into()
}

#[cfg(test)]
mod tests;
