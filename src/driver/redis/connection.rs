//! Connections and their recovery, which has one owner: the supervisor in this file.
//!
//! One command connection is shared by everything that does not block. A connection error or a
//! missing answer drops it; the supervisor makes the next one, and callers wait for that until
//! their own deadline. Readers have connections of their own, which they replace themselves.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, Pipeline, Value};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use super::connector::Connector;
use super::fault::{Fault, accept};
use super::probe;
use super::script::{Call, is_unknown};
use crate::delivery::Durability;
use crate::driver::monitor::{Connection, ConnectionState};
use crate::error::{Error, ErrorKind};

/// Delays between attempts: the least, which keeps them under twenty a second whatever fails, and
/// the last cap. Between the two with full jitter.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_millis(500);

/// Delays that grow, with full jitter.
pub(super) struct Backoff(Duration);

impl Backoff {
    pub(super) const fn new() -> Self {
        Self(BACKOFF_MIN)
    }

    /// The next delay.
    pub(super) fn next(&mut self) -> Duration {
        self.0 = (self.0 * 2).min(BACKOFF_MAX);
        BACKOFF_MIN + (self.0 - BACKOFF_MIN).mul_f64(fastrand::f64())
    }
}

/// A pipeline's answers, one for each command; refusals stand among them.
pub(super) async fn send(
    connection: &mut MultiplexedConnection,
    pipeline: &Pipeline,
) -> Result<Vec<Value>, Fault> {
    let values = connection.send_packed_commands(pipeline, 0, pipeline.len()).await?;
    if values.len() == pipeline.len() {
        return Ok(values);
    }
    Err(Fault::Odd(format!("{} answers to {} commands", values.len(), pipeline.len())))
}

/// A command connection and what is known of the server behind it.
#[derive(Clone)]
pub(super) struct Live {
    pub(super) generation: u64,
    pub(super) connection: MultiplexedConnection,
    pub(super) durability: Durability,
    /// The server's id for this connection, where it says.
    pub(super) client: Option<i64>,
    /// The server's run id: it names one life of one server. Empty where it may not be asked.
    pub(super) run_id: String,
    /// Whatever was sent over the connections before this one has been done, or never will be:
    /// they were killed, or their server is gone.
    pub(super) is_alone: bool,
}

/// Connections that were given up, by the run id of their server: what was sent over them may
/// still be done, until they are killed. The server reads what lies in a socket even after its
/// client is gone.
#[derive(Default)]
pub(super) struct Ghosts(Vec<(String, i64)>);

impl Ghosts {
    /// Most that are remembered; of more servers than that none comes back.
    const MAX: usize = 16;

    pub(super) fn add(&mut self, run_id: String, client: Option<i64>) {
        if self.0.len() == Self::MAX {
            self.0.remove(0);
        }
        // One that nobody can name cannot be killed either.
        self.0.push((run_id, client.unwrap_or(0)));
    }

    /// Those on this server.
    pub(super) fn on(&self, run_id: &str) -> Vec<i64> {
        self.0.iter().filter(|(run, _)| run == run_id).map(|(_, client)| *client).collect()
    }

    /// They are no more.
    pub(super) fn laid(&mut self, run_id: &str) {
        self.0.retain(|(run, _)| run != run_id);
    }
}

#[derive(Clone)]
enum Link {
    Up(Live),
    Down(Option<Fault>),
    Closed,
}

/// The shared command connection.
pub(super) struct Commands {
    connector: Arc<Connector>,
    link: watch::Sender<Link>,
    /// The last generation that somebody found broken.
    broken: watch::Sender<(u64, Option<Fault>)>,
    deadline: Duration,
    ghosts: tokio::sync::Mutex<Ghosts>,
    watched: Connection,
}

impl Commands {
    pub(super) fn new(connector: Arc<Connector>, deadline: Duration, watched: Connection) -> Self {
        let link = watch::Sender::new(Link::Down(None));
        let broken = watch::Sender::new((0, None));
        Self { connector, link, broken, deadline, ghosts: Default::default(), watched }
    }

    async fn open(&self, generation: u64) -> Result<Live, probe::Refusal> {
        self.watched.turn(ConnectionState::Connecting);
        let mut ghosts = self.ghosts.lock().await;
        let checking = || self.watched.turn(ConnectionState::Checking);
        let opened = probe::open(&self.connector, generation, &mut ghosts, checking).await;
        match &opened {
            Ok(_) => self.watched.turn(ConnectionState::Serving),
            Err(refusal) => {
                self.watched.turn(ConnectionState::Connecting);
                self.watched.ail(refusal.error(self.address()));
            }
        }
        opened
    }

    /// Makes the first connection, within the deadline where the server is only starting.
    pub(super) async fn connect(&self) -> Result<(), Error> {
        let until = Instant::now() + self.deadline;
        let mut backoff = Backoff::new();
        loop {
            match self.open(1).await {
                Ok(live) => {
                    self.link.send_replace(Link::Up(live));
                    return Ok(());
                }
                Err(refusal) if refusal.is_passing() && Instant::now() < until => {
                    sleep(backoff.next()).await;
                }
                Err(refusal) => return Err(refusal.error(self.address())),
            }
        }
    }

    /// Replaces the connection whenever it is found broken, until `stop`.
    pub(super) async fn supervise(self: Arc<Self>, stop: CancellationToken) {
        let work = async {
            let mut generation = 1;
            loop {
                let fault = self.until_broken(generation).await;
                self.watched.turn(ConnectionState::Connecting);
                self.watched.ail(&fault);
                let before = self.link.borrow().clone();
                if let Link::Up(live) = before {
                    self.ghosts.lock().await.add(live.run_id, live.client);
                }
                if !self.turn(Link::Down(Some(fault.clone()))) {
                    return;
                }
                tracing::warn!(address = self.address(), "lost the connection: {fault}");
                generation += 1;
                let live = self.reopen(generation).await;
                if self.turn(Link::Up(live)) {
                    tracing::info!(address = self.address(), "connected again");
                }
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = work => {}
        }
    }

    /// Changes the state; a closed one stays closed.
    fn turn(&self, to: Link) -> bool {
        self.link.send_if_modified(|link| {
            let open = !matches!(link, Link::Closed);
            if open {
                *link = to;
            }
            open
        })
    }

    async fn until_broken(&self, generation: u64) -> Fault {
        let mut broken = self.broken.subscribe();
        let fault = match broken.wait_for(|(found, _)| *found >= generation).await {
            Ok(found) => found.1.clone(),
            Err(_) => None,
        };
        fault.unwrap_or(Fault::Silent)
    }

    async fn reopen(&self, generation: u64) -> Live {
        let mut backoff = Backoff::new();
        let mut said = false;
        loop {
            sleep(backoff.next()).await;
            match self.open(generation).await {
                Ok(live) => return live,
                Err(refusal) => {
                    if !said && !refusal.is_usual() {
                        said = true;
                        tracing::error!("{:?}", refusal.error(self.address()));
                    }
                }
            }
        }
    }

    /// The address without secrets.
    pub(super) fn address(&self) -> &str {
        self.connector.address()
    }

    /// How long a caller waits at most, in all.
    pub(super) fn deadline(&self) -> Instant {
        Instant::now() + self.deadline
    }

    /// Ends the connection; callers get [`ErrorKind::Closed`] from now on.
    pub(super) fn close(&self) {
        self.link.send_replace(Link::Closed);
    }

    /// The connection; waits for one until the deadline. An error means that nothing was sent.
    pub(super) async fn live(
        &self,
        what: &(dyn fmt::Display + Sync),
        until: Instant,
    ) -> Result<Live, Error> {
        let mut link = self.link.subscribe();
        let known = timeout_at(until, link.wait_for(|link| !matches!(link, Link::Down(_)))).await;
        let found = match known {
            Ok(Ok(link)) => link.clone(),
            Ok(Err(_)) => Link::Closed,
            Err(_) => self.link.borrow().clone(),
        };
        match found {
            Link::Up(live) => Ok(live),
            Link::Closed => Err(closed(what)),
            Link::Down(fault) => {
                let fault = fault.unwrap_or(Fault::Silent);
                Err(Fault::Lost(format!("the connection was lost: {fault}"))
                    .error(what, self.address()))
            }
        }
    }

    /// Says that a connection is of no more use.
    pub(super) fn report(&self, generation: u64, fault: &Fault) {
        self.broken.send_if_modified(|broken| {
            let news = fault.breaks_connection() && broken.0 < generation;
            if news {
                *broken = (generation, Some(fault.clone()));
            }
            news
        });
    }

    /// Sends commands that may be repeated, again where the connection is lost, until the
    /// deadline.
    pub(super) async fn ask(
        &self,
        what: impl fmt::Display + Send + Sync,
        pipeline: &Pipeline,
    ) -> Result<Vec<Value>, Error> {
        let until = self.deadline();
        loop {
            let mut live = self.live(&what, until).await?;
            let fault = match timeout_at(until, send(&mut live.connection, pipeline)).await {
                Ok(Ok(values)) => match demoted(&values) {
                    None => {
                        self.watched.answered();
                        return Ok(values);
                    }
                    Some(fault) => fault,
                },
                Ok(Err(fault)) => fault,
                Err(_) => Fault::Silent,
            };
            self.report(live.generation, &fault);
            if !fault.breaks_connection() || Instant::now() >= until {
                return Err(fault.error(what, self.address()));
            }
        }
    }

    /// Sends one command that may be repeated; a refusal is an error.
    pub(super) async fn ask_one(
        &self,
        what: impl fmt::Display + Send + Sync,
        command: Cmd,
    ) -> Result<Value, Error> {
        let mut pipeline = redis::pipe();
        pipeline.add_command(command);
        let mut values = self.ask(&what, &pipeline).await?;
        let value = values.pop().unwrap_or_default();
        accept(value).map_err(|fault| fault.error(what, self.address()))
    }

    /// Calls scripts that may be repeated; refusals stand among the answers.
    pub(super) async fn call(
        &self,
        what: impl fmt::Display + Send + Sync,
        calls: &[Call],
    ) -> Result<Vec<Value>, Error> {
        let mut pipeline = Pipeline::with_capacity(calls.len());
        for call in calls {
            pipeline.add_command(call.by_hash());
        }
        let mut values = self.ask(&what, &pipeline).await?;
        let unknown: Vec<usize> = (0..values.len()).filter(|at| is_unknown(&values[*at])).collect();
        if unknown.is_empty() {
            return Ok(values);
        }
        pipeline.clear();
        for at in &unknown {
            pipeline.add_command(calls[*at].in_full());
        }
        let again = self.ask(&what, &pipeline).await?;
        for (at, value) in unknown.into_iter().zip(again) {
            values[at] = value;
        }
        Ok(values)
    }

    /// The error for an answer that refuses or cannot be read.
    pub(super) fn error(&self, what: impl fmt::Display, fault: &Fault) -> Error {
        fault.error(what, self.address())
    }
}

/// The refusal among answers that says that the server is no primary any more.
pub(super) fn demoted(values: &[Value]) -> Option<Fault> {
    let refusal = values.iter().find_map(|value| match value {
        Value::ServerError(error) => Some(Fault::from(error.clone())),
        _ => None,
    });
    refusal.filter(Fault::breaks_connection)
}

/// What everything answers once the driver is closed.
pub(super) fn closed(what: &(dyn fmt::Display + Sync)) -> Error {
    Error::new(ErrorKind::Closed, format!("cannot {what}: the driver is closed"))
}
