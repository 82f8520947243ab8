//! Appending: one XADD per batch, pipelined over one connection, each partition's in the order of
//! the calls; and looking before anything is sent again.
//!
//! An answer that does not come leaves an append *in doubt*. The connection is given up then, and
//! what is in doubt goes on with the next one, as far as the call's deadline allows; `doubt` says
//! how it is decided there, and why that is right. `line` keeps the order meanwhile.

mod confirm;
mod dedup;
mod doubt;
mod line;

use std::fmt;
use std::pin::pin;

use futures_util::future::poll_immediate;
use redis::{Cmd, Pipeline, Value};
use tokio::task::unconstrained;
use tokio::time::{Instant, timeout_at};

pub(super) use self::confirm::calls_max;
use self::confirm::{Unconfirmed, is_demoted};
pub(super) use self::line::Lines;
use self::line::Ticket;
use super::connection::{Live, closed, demoted};
use super::fault::Fault;
use super::script::{Call, DELAY};
use super::{Shared, reply, wire};
use crate::delivery::{Durability, EntryId};
use crate::driver::{Append, Appended};
use crate::error::{Error, ErrorKind, PublishError};

/// Calls whose answers may be outstanding; more wait their turn.
pub(super) const CALLS_MAX: usize = 4096;

/// The arguments of an XADD, and room for all of them but the batch.
const ADD_ARGS: usize = 7;
const ADD_ROOM: usize = 256;

type Answer = Result<Appended, PublishError>;
type Confirmed = Result<Option<Durability>, Unconfirmed>;

impl Shared {
    /// Stores batches; one answer each.
    pub(super) async fn append_all(&self, appends: Vec<Append>) -> Vec<Answer> {
        if self.closing.is_cancelled() {
            let what = Attempt(&appends);
            let refuse = |_| Err(PublishError::NotStored(closed(&what)));
            return appends.iter().map(refuse).collect();
        }
        let _under_way = self.requests.token();
        // Unconstrained: where tokio's budget makes a poll yield, it does not queue.
        unconstrained(Appending::new(self, &appends).run()).await
    }
}

/// A call under way.
struct Appending<'a> {
    shared: &'a Shared,
    appends: &'a [Append],
    /// One for each append; `None` is without an answer.
    answers: Vec<Option<Answer>>,
    ticket: Ticket<'a>,
    until: Instant,
    /// When it was sent first: from then on, what has no answer is in doubt.
    sent: Option<Instant>,
    /// What is stored already, and where, over the connection that is used now.
    found: Vec<(usize, EntryId)>,
    /// The life of the server that it was sent to first.
    sent_to: String,
    /// What has no answer was sent before, over another connection.
    again: bool,
    /// What is missing and may have been lost with its log.
    unsure: Vec<usize>,
    /// Until when delayed events may be sent again.
    repeat: Option<doubt::Repeat>,
}

/// Why a connection brought a call no further.
enum Stop {
    /// The connection is of no more use; the next one may be.
    Broken(Fault),
    /// No connection will be.
    Final(Error),
}

impl<'a> Appending<'a> {
    fn new(shared: &'a Shared, appends: &'a [Append]) -> Self {
        Self {
            shared,
            appends,
            answers: appends.iter().map(|_| None).collect(),
            ticket: shared.lines.enter(appends),
            until: shared.appends.deadline(),
            sent: None,
            sent_to: String::new(),
            again: false,
            unsure: Vec::new(),
            found: Vec::new(),
            repeat: None,
        }
    }

    async fn run(mut self) -> Vec<Answer> {
        for (at, append) in self.appends.iter().enumerate() {
            if append.deduplicate && !append.delay.is_zero() {
                self.give_up(at, append.refuse_delayed());
            }
        }
        if let Err(error) = self.carry().await {
            for at in self.open() {
                self.give_up(at, error.copy());
            }
        }
        let answers = self.answers.into_iter();
        answers.map(|answer| answer.expect("what was not answered was given up")).collect()
    }

    /// Sends until all is answered, over as many connections as that takes.
    async fn carry(&mut self) -> Result<(), Error> {
        let (shared, until) = (self.shared, self.until);
        let what = Attempt(self.appends);
        let late = |_| shared.appends.error(&what, &shared.appends.silence());
        timeout_at(until, self.ticket.first_turn()).await.map_err(late)?;
        // Those before it have theirs, so that nobody waits here for somebody who waits for room.
        let room = timeout_at(until, shared.room.acquire()).await;
        let _room = room.map_err(late)?;
        let mut broken = 0;
        while !self.open().is_empty() {
            let live = shared.appends.live_after(broken, &what, until).await?;
            let turn = timeout_at(until, self.ticket.turn(live.generation)).await;
            if !turn.map_err(late)? {
                broken = live.generation;
                continue;
            }
            match self.go(&live).await {
                Ok(()) => {}
                Err(Stop::Broken(fault)) if !fault.breaks_connection() => {
                    return Err(self.failed(&fault));
                }
                Err(Stop::Broken(fault)) => {
                    shared.appends.report(live.generation, &fault);
                    broken = live.generation;
                    self.misjudge();
                }
                Err(Stop::Final(error)) => return Err(error),
            }
        }
        Ok(())
    }

    /// Two planted bugs: what has no answer is taken for stored, or for not stored.
    fn misjudge(&mut self) {
        if planted!(LostIsStored) {
            for at in self.open() {
                let durability = Durability::Unknown;
                let appended = Appended { entry: None, durability, places: Vec::new() };
                self.answers[at] = Some(Ok(appended));
            }
        }
        if planted!(LostIsNotStored) {
            for at in self.open() {
                let error = self.error(at, "its connection was lost");
                self.answers[at] = Some(Err(PublishError::NotStored(error)));
            }
        }
    }

    /// Does over one connection what is to be done.
    async fn go(&mut self, live: &Live) -> Result<(), Stop> {
        // Found over another connection, which the server may have survived or not.
        self.found.clear();
        self.unsure.clear();
        self.repeat = None;
        self.again = self.sent.is_some();
        if self.sent.is_none() {
            self.find_bounds(live).await?;
        } else {
            self.resolve(live).await?;
        }
        let is_found = |at: &usize| self.found.iter().any(|(found, _)| found == at);
        let mut sent: Vec<usize> = self.open().into_iter().filter(|at| !is_found(at)).collect();
        if let Err(error) = self.shared.standing.check() {
            let found = std::mem::take(&mut self.found).into_iter().map(|(at, _)| at);
            let all: Vec<usize> = sent.drain(..).chain(found).collect();
            all.into_iter().for_each(|at| self.give_up(at, error.copy()));
        }
        let mut pipeline = Pipeline::with_capacity(sent.len());
        for at in &sent {
            pipeline.add_command(self.command(*at));
        }
        let confirming = self.confirm(&sent, &mut pipeline);
        let mut values = Vec::new();
        if !pipeline.is_empty() {
            values = self.send(live, &pipeline).await?;
        }
        let confirmed = confirming.read(&mut values);
        self.notice(&values, &confirmed, live);
        let mut last = Vec::with_capacity(1);
        for (at, value) in sent.into_iter().zip(values) {
            let answer = self.read_answer(at, value, live);
            // Those that are deduplicated are noted where their answers are read.
            if let (Ok(Appended { entry: Some(id), .. }), false) =
                (&answer, self.appends[at].deduplicate)
            {
                self.keep_last(&mut last, at, *id);
            }
            self.tell(at, answer, &confirmed);
        }
        last.into_iter().for_each(|(at, id)| self.note(at, id, live));
        for (at, id) in std::mem::take(&mut self.found) {
            self.note(at, id, live);
            let answer = Ok(self.stored(id, live));
            self.tell(at, answer, &confirmed);
        }
        Ok(())
    }

    /// Of each partition the last append and its id.
    fn keep_last(&self, last: &mut Vec<(usize, EntryId)>, at: usize, id: EntryId) {
        let partition = |at: usize| &self.appends[at].partition;
        match last.iter_mut().find(|(own, _)| partition(*own) == partition(at)) {
            Some(own) => *own = (at, id),
            None => last.push((at, id)),
        }
    }

    /// Answers an append, with what its confirmation came to.
    fn tell(&mut self, at: usize, answer: Answer, confirmed: &Confirmed) {
        let answer = answer.and_then(|appended| match confirmed {
            Ok(None) => Ok(appended),
            Ok(Some(durability)) => Ok(Appended { durability: *durability, ..appended }),
            Err(why) => Err(PublishError::Unknown(self.unconfirmed(at, why))),
        });
        self.answers[at] = Some(answer);
    }

    /// Gives up the connection to a server that is no primary any more.
    fn notice(&self, values: &[Value], confirmed: &Confirmed, live: &Live) {
        let fault = match confirmed {
            Err(why) if is_demoted(why) => Some(Fault::Lost("it is a replica now".to_owned())),
            _ => demoted(values),
        };
        if let Some(fault) = fault {
            self.shared.appends.report(live.generation, &fault);
        }
    }

    /// Hands the commands to the connection, lets those behind go, and waits for the answers.
    async fn send(&mut self, live: &Live, pipeline: &Pipeline) -> Result<Vec<Value>, Stop> {
        if self.sent.is_none() {
            self.sent = Some(Instant::now());
            self.sent_to.clone_from(&live.run_id);
        }
        let mut sending = pin!(live.connection.send(pipeline));
        // The first poll writes the commands.
        let first = poll_immediate(&mut sending).await;
        self.ticket.carried_by(live.generation);
        let answers = match first {
            Some(answers) => answers,
            None => match timeout_at(self.until, sending).await {
                Ok(answers) => answers,
                // Whether the connection is to blame is for those to say who waited longer.
                Err(_) => return Err(self.late()),
            },
        };
        if self.shared.appends_apart() && answers.is_ok() {
            // Nothing else goes over it that could tell how it is.
            self.shared.appends.answered();
        }
        answers.map_err(Stop::Broken)
    }

    fn command(&self, at: usize) -> Cmd {
        let append = &self.appends[at];
        if !append.delay.is_zero() {
            return self.delay(append).in_full();
        }
        if append.deduplicate {
            return self.deduplicated(at).in_full();
        }
        let batch = wire::encode_batch(&append.envelopes);
        let mut add = Cmd::with_capacity(ADD_ARGS, batch.len() + ADD_ROOM);
        add.arg("XADD").arg(self.shared.keys.log(&append.partition));
        if planted!(LogCutShort) {
            add.arg("MAXLEN").arg(100);
        }
        add.arg("*");
        add.arg(wire::BATCH).arg(batch);
        add.arg(wire::PUBLISHER).arg(self.name(at));
        add
    }

    /// What an entry says of who appended it, and which of the appends it was.
    fn name(&self, at: usize) -> String {
        format!("{}-{}", self.shared.publisher, self.ticket.number(at))
    }

    /// One member per event, by the server's clock. In full: a delayed publish is rare enough.
    fn delay(&self, append: &Append) -> Call {
        let mut call = Call::new(&DELAY, vec![self.shared.keys.delayed(&append.partition)]);
        // A delay of less than a millisecond is still one.
        call.number(&append.delay.as_millis().max(1));
        call.number(&self.repeat.map_or(0, |repeat| repeat.until(append.delay)));
        for envelope in &append.envelopes {
            call.arg(wire::encode_batch([envelope]));
        }
        call
    }

    fn read_answer(&self, at: usize, value: Value, live: &Live) -> Answer {
        let append = &self.appends[at];
        if !append.delay.is_zero() {
            self.shared.schedule.hint(append.delay);
            let due = reply::int(value).map_err(|fault| self.fail(at, &fault))?;
            if due.is_some_and(|due| due < 0) {
                return Err(PublishError::Unknown(self.error(at, doubt::TOO_LATE)));
            }
            return Ok(Appended { entry: None, durability: live.durability, places: Vec::new() });
        }
        if append.deduplicate {
            return self.read_deduplicated(at, value, live);
        }
        let id = reply::id(value).map_err(|fault| self.fail(at, &fault))?;
        Ok(self.stored(id, live))
    }

    /// Notes where an append lies.
    fn note(&self, at: usize, id: EntryId, live: &Live) {
        let partition = &self.appends[at].partition;
        self.ticket.learn(partition, id, &live.run_id);
        self.shared.history.note(partition, id);
    }

    fn stored(&self, id: EntryId, live: &Live) -> Appended {
        Appended { entry: Some(id), durability: live.durability, places: Vec::new() }
    }

    /// XADD and the scripts refuse before they write: a refusal is certain. Not where the same
    /// was sent before, and nobody looked or nobody can see what became of it.
    fn fail(&self, at: usize, fault: &Fault) -> PublishError {
        let append = &self.appends[at];
        let is_blind = append.deduplicate || !append.delay.is_zero();
        let unseen = self.again && is_blind || self.unsure.contains(&at);
        let error = self.shared.appends.error(self.what(at), fault);
        match fault {
            Fault::Refused { code, .. } if !unseen && code != dedup::UNMARKED => {
                PublishError::NotStored(error)
            }
            _ => PublishError::Unknown(error),
        }
    }

    /// Answers what has no answer: what was sent may be stored.
    fn give_up(&mut self, at: usize, error: Error) {
        self.answers[at] = Some(Err(match self.sent {
            Some(_) => PublishError::Unknown(error),
            None => PublishError::NotStored(error),
        }));
    }

    /// The places of what has no answer.
    fn open(&self) -> Vec<usize> {
        (0..self.answers.len()).filter(|at| self.answers[*at].is_none()).collect()
    }

    fn late(&self) -> Stop {
        Stop::Final(self.failed(&self.shared.appends.silence()))
    }

    fn failed(&self, fault: &Fault) -> Error {
        self.shared.appends.error(Attempt(self.appends), fault)
    }

    fn what(&self, at: usize) -> Attempt<'a> {
        Attempt(&self.appends[at..=at])
    }

    fn error(&self, at: usize, why: &str) -> Error {
        let address = self.shared.appends.address();
        let text = format!("no answer to {} on {address}: {why}", self.what(at));
        Error::new(ErrorKind::Unreachable, text)
    }
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
