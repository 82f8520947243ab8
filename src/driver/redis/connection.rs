//! Connections and their recovery, which has one owner: the supervisor in this file.
//!
//! One command connection is shared by everything that does not block. A connection error or a
//! missing answer drops it; the supervisor makes the next one, and callers wait for that until
//! their own deadline. Readers have connections of their own, which they replace themselves.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::socket::Socket;
use redis::{Cmd, Pipeline, Value};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use super::connector::{Connector, moved};
use super::fault::{Fault, accept};
use super::probe;
use super::script::{Call, is_unknown};
use super::watch::Standing;
use crate::delivery::Durability;
use crate::driver::monitor::{Connection, ConnectionState};
use crate::error::{Error, ErrorKind};
use crate::trouble::Trouble;

/// Delays between attempts: the least, which keeps them under twenty a second whatever fails, and
/// the last cap. Between the two with full jitter.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_millis(500);
/// How long a server that refused the login is left alone: the password may be changed there, but
/// not within milliseconds, and a server may lock out who asks too often.
const LOGIN_PAUSE: Duration = Duration::from_secs(1);

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

/// A command connection and what is known of the server behind it.
#[derive(Clone)]
pub(super) struct Live {
    pub(super) generation: u64,
    pub(super) connection: Socket,
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
    standing: Arc<Standing>,
}

impl Commands {
    pub(super) fn new(
        connector: Arc<Connector>,
        deadline: Duration,
        watched: Connection,
        standing: Arc<Standing>,
    ) -> Self {
        let link = watch::Sender::new(Link::Down(None));
        let broken = watch::Sender::new((0, None));
        Self { connector, link, broken, deadline, ghosts: Default::default(), watched, standing }
    }

    async fn open(&self, generation: u64) -> Result<Live, probe::Refusal> {
        self.watched.turn(ConnectionState::Connecting);
        let mut ghosts = self.ghosts.lock().await;
        let checking = || self.watched.turn(ConnectionState::Checking);
        let opened = probe::open(&self.connector, generation, &mut ghosts, checking).await;
        match opened {
            Ok((live, facts)) => {
                self.standing.learn(facts);
                self.watched.turn(ConnectionState::Serving);
                Ok(live)
            }
            Err(refusal) => {
                self.watched.turn(ConnectionState::Connecting);
                self.watched.ail(refusal.error(self.address()));
                Err(refusal)
            }
        }
    }

    /// Makes the first connection, within the deadline where the server is only starting.
    pub(super) async fn connect(&self) -> Result<(), Error> {
        let until = Instant::now() + self.deadline;
        let mut backoff = Backoff::new();
        loop {
            match self.open(1).await {
                Ok(live) => {
                    self.standing.check()?;
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
            let mut trouble = Trouble::default();
            let mut moves = self.connector.moves();
            loop {
                let fault = tokio::select! {
                    fault = self.until_broken(generation) => fault,
                    Ok(()) = moves.changed() => moved(),
                };
                self.watched.turn(ConnectionState::Connecting);
                self.watched.ail(&fault);
                let before = self.link.borrow().clone();
                if let Link::Up(live) = before {
                    self.ghosts.lock().await.add(live.run_id, live.client);
                }
                if !self.turn(Link::Down(Some(fault.clone()))) {
                    return;
                }
                if let Some(times) = trouble.failed() {
                    tracing::warn!(address = self.address(), "lost the connection: {fault}{times}");
                }
                generation += 1;
                moves.mark_unchanged();
                let live = self.reopen(generation, &mut trouble).await;
                let again = self.turn(Link::Up(live));
                if let Some(times) = trouble.over().filter(|_| again) {
                    tracing::info!(address = self.address(), "connected again{times}");
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

    async fn reopen(&self, generation: u64, trouble: &mut Trouble) -> Live {
        let mut backoff = Backoff::new();
        let mut pause = backoff.next();
        // What else than a server that is down keeps us out is said as soon as it is known.
        let mut odd = false;
        loop {
            sleep(pause).await;
            let refusal = match self.open(generation).await {
                Ok(live) => return live,
                Err(refusal) => refusal,
            };
            let news = !refusal.is_usual() && !std::mem::replace(&mut odd, true);
            let times = trouble.failed();
            if news || times.is_some() {
                let times = times.map(|times| times.to_string()).unwrap_or_default();
                tracing::error!("{:?}{times}", refusal.error(self.address()));
            }
            pause = backoff.next();
            if refusal.is_of_login() {
                pause += LOGIN_PAUSE;
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
        self.live_after(0, what, until).await
    }

    /// The connection after one that was found broken.
    pub(super) async fn live_after(
        &self,
        broken: u64,
        what: &(dyn fmt::Display + Sync),
        until: Instant,
    ) -> Result<Live, Error> {
        let mut link = self.link.subscribe();
        let is_there = |link: &Link| match link {
            Link::Up(live) => live.generation > broken,
            Link::Down(_) => false,
            Link::Closed => true,
        };
        let known = timeout_at(until, link.wait_for(is_there)).await;
        let found = match known {
            Ok(Ok(link)) => link.clone(),
            Ok(Err(_)) => Link::Closed,
            Err(_) => self.link.borrow().clone(),
        };
        let fault = match found {
            // Its settings may have changed since it was opened.
            Link::Up(live) if live.generation > broken => {
                return Ok(Live { durability: self.standing.durability(), ..live });
            }
            Link::Up(_) => None,
            Link::Closed => return Err(closed(what)),
            Link::Down(fault) => fault,
        };
        let fault = fault.unwrap_or(Fault::Silent);
        Err(Fault::Lost(format!("the connection was lost: {fault}")).error(what, self.address()))
    }

    /// The number of the connection that stands, else 0.
    pub(super) fn generation(&self) -> u64 {
        match &*self.link.borrow() {
            Link::Up(live) => live.generation,
            _ => 0,
        }
    }

    /// Waits until another connection than the one of this number stands; gives its number.
    pub(super) async fn next_generation(&self, known: u64) -> u64 {
        let mut link = self.link.subscribe();
        let is_next = |link: &Link| matches!(link, Link::Up(live) if live.generation != known);
        match link.wait_for(is_next).await.map(|link| link.clone()) {
            Ok(Link::Up(live)) => live.generation,
            _ => std::future::pending().await,
        }
    }

    /// Why there is no connection, or that it does not answer.
    pub(super) fn silence(&self) -> Fault {
        match &*self.link.borrow() {
            Link::Down(Some(fault)) => Fault::Lost(format!("the connection was lost: {fault}")),
            _ => Fault::Silent,
        }
    }

    /// An answer came.
    pub(super) fn answered(&self) {
        self.watched.answered();
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

    /// Sends commands that may be repeated, again where the connection is lost and where nothing
    /// but passing refusals came, until the deadline.
    pub(super) async fn ask(
        &self,
        what: impl fmt::Display + Send + Sync,
        pipeline: &Pipeline,
    ) -> Result<Vec<Value>, Error> {
        let until = self.deadline();
        let mut backoff = Backoff::new();
        let mut broken = 0;
        loop {
            let live = self.live_after(broken, &what, until).await?;
            let fault = match timeout_at(until, live.connection.send(pipeline)).await {
                Ok(Ok(values)) => match demoted(&values) {
                    None => {
                        self.watched.answered();
                        let pause = backoff.next();
                        if !are_passing(&values) || Instant::now() + pause >= until {
                            return Ok(values);
                        }
                        sleep(pause).await;
                        continue;
                    }
                    Some(fault) => fault,
                },
                Ok(Err(fault)) => fault,
                // The time was up. Whether the connection is to blame its own timeout says.
                Err(_) => return Err(Fault::Silent.error(what, self.address())),
            };
            self.report(live.generation, &fault);
            if !fault.breaks_connection() || Instant::now() >= until {
                return Err(fault.error(what, self.address()));
            }
            broken = live.generation;
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

    /// Calls a script that may not be repeated as it is; `None` where it may have been done, or
    /// was put off by the server.
    pub(super) async fn call_once(
        &self,
        what: impl fmt::Display + Send + Sync,
        call: &Call,
    ) -> Result<Option<Value>, Error> {
        let until = self.deadline();
        let live = self.live(&what, until).await?;
        let mut pipeline = redis::pipe();
        for command in [call.by_hash(), call.in_full()] {
            pipeline.clear();
            pipeline.add_command(command);
            let fault = match timeout_at(until, live.connection.send(&pipeline)).await {
                Ok(Ok(values)) if values.iter().any(is_unknown) => continue,
                Ok(Ok(values)) if demoted(&values).is_some() || are_passing(&values) => break,
                Ok(Ok(values)) => return Ok(values.into_iter().next()),
                Ok(Err(fault)) => fault,
                Err(_) => break,
            };
            self.report(live.generation, &fault);
            break;
        }
        Ok(None)
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

/// Whether something was refused, and all that was will not be soon.
fn are_passing(values: &[Value]) -> bool {
    let mut refusals = values.iter().filter_map(|value| match value {
        Value::ServerError(error) => Some(Fault::from(error.clone()).is_passing()),
        _ => None,
    });
    refusals.next().is_some_and(|first| first && refusals.all(|passing| passing))
}

/// What everything answers once the driver is closed.
pub(super) fn closed(what: &(dyn fmt::Display + Sync)) -> Error {
    Error::new(ErrorKind::Closed, format!("cannot {what}: the driver is closed"))
}
