//! Where deliveries end. An entry that was handed out once and whose events all end in plain acks
//! costs an XACK; everything else is one fenced script per stream.

use std::sync::Arc;

use async_trait::async_trait;
use redis::{Pipeline, Value};

use super::connection::closed;
use super::fault::Fault;
use super::flight::{InFlight, Stream, Sure};
use super::id::IdText;
use super::member::Member;
use super::parking;
use super::ride::NotCarried;
use super::step::{ENTRIES_MAX, Part, Places, Step};
use super::{Shared, begin, claim, handled, reply};
use crate::delivery::{Bits, Delivery, Entry, EntryId, Queue, Settled, Settlement, Token};
use crate::driver::{Settler, ack_each, sum_acks};
use crate::error::{Error, ErrorKind};

type Answer = Result<Settled, Error>;

/// Ends the deliveries of one consumer.
pub(super) struct RedisSettler {
    pub(super) member: Arc<Member>,
}

#[async_trait]
impl Settler for RedisSettler {
    async fn settle(&self, settlements: Vec<Settlement>) -> Vec<Answer> {
        let shared = &self.member.shared;
        if shared.closing.is_cancelled() {
            return settlements.iter().map(|_| Err(closed(&"settle deliveries"))).collect();
        }
        let _under_way = shared.requests.token();
        let _nothing_is_taken_back = self.member.settling.read().await;
        let mut answers: Vec<Option<Answer>> = settlements.iter().map(|_| None).collect();
        for (stream, entries) in sort(&settlements) {
            let (plain, fenced): (Vec<Part<'_>>, Vec<Part<'_>>) = self.flight(&stream, |held| {
                entries.into_iter().partition(|part| self.is_plain(held, part, &settlements))
            });
            self.acknowledge(&stream, &plain, &mut answers).await;
            self.settle_fenced(&stream, &fenced, &settlements, &mut answers).await;
        }
        let unanswered = || Err(closed(&"settle a delivery"));
        answers.into_iter().map(|answer| answer.unwrap_or_else(unanswered)).collect()
    }

    async fn ack(&self, entries: Vec<Arc<Entry>>) -> Vec<Answer> {
        let shared = &self.member.shared;
        if shared.closing.is_cancelled() {
            return entries.iter().map(|_| Err(closed(&"settle deliveries"))).collect();
        }
        let mut answers: Vec<Option<Answer>> = entries.iter().map(|_| None).collect();
        let mut rest = Vec::new();
        {
            let _under_way = shared.requests.token();
            let _nothing_is_taken_back = self.member.settling.read().await;
            for (stream, parts) in sort_entries(&entries) {
                let (plain, other): (Vec<Part<'_>>, Vec<Part<'_>>) = self.flight(&stream, |held| {
                    parts.into_iter().partition(|part| self.is_fresh(held, part.entry))
                });
                self.acknowledge(&stream, &plain, &mut answers).await;
                rest.extend(other.iter().flat_map(|part| &*part.places).copied());
            }
        }
        // Those of which something is recorded take the way of all others.
        if !rest.is_empty() {
            let others: Vec<_> = rest.iter().map(|place| Arc::clone(&entries[*place])).collect();
            let each = self.settle(ack_each(&others)).await;
            for (place, answer) in rest.into_iter().zip(sum_acks(&others, each)) {
                answers[place] = Some(answer);
            }
        }
        let unanswered = || Err(closed(&"settle a delivery"));
        answers.into_iter().map(|answer| answer.unwrap_or_else(unanswered)).collect()
    }

    async fn begin(&self, delivery: &Delivery) -> Result<Option<u32>, Error> {
        begin::begin(&self.member, delivery).await
    }

    async fn is_parked(&self, delivery: &Delivery) -> Result<bool, Error> {
        parking::is_parked(&self.member, delivery).await
    }

    async fn handled(&self, entry: &Entry) -> Result<Bits, Error> {
        handled::look(&self.member, entry).await
    }
}

/// The settlements by stream and entry, entries ascending.
fn sort(settlements: &[Settlement]) -> Vec<(Stream, Vec<Part<'_>>)> {
    let mut places: Vec<usize> = (0..settlements.len()).collect();
    let entry_at = |place: usize| &*settlements[place].delivery.entry;
    let of = |place: usize| {
        let entry = entry_at(place);
        (&entry.partition, entry.queue, entry.id)
    };
    // Stable, and mostly sorted already: what ends together stands together.
    places.sort_by(|one, other| match std::ptr::eq(entry_at(*one), entry_at(*other)) {
        true => std::cmp::Ordering::Equal,
        false => of(*one).cmp(&of(*other)),
    });
    let of_one = |one: &usize, other: &usize| {
        std::ptr::eq(entry_at(*one), entry_at(*other)) || of(*one) == of(*other)
    };
    let part = |same: &[usize]| {
        let places = match same {
            [only] => Places::One(*only),
            _ => Places::Many(same.to_vec()),
        };
        Part { entry: entry_at(same[0]), places }
    };
    by_stream(places.chunk_by(of_one).map(part))
}

/// Entries by stream, ascending; the place of each stands for all its events.
fn sort_entries(entries: &[Arc<Entry>]) -> Vec<(Stream, Vec<Part<'_>>)> {
    let mut parts: Vec<(usize, &Arc<Entry>)> = entries.iter().enumerate().collect();
    parts.sort_by(|(_, one), (_, other)| {
        let of = |entry: &'_ Entry| (entry.queue, entry.id);
        one.partition.cmp(&other.partition).then_with(|| of(one).cmp(&of(other)))
    });
    by_stream(parts.into_iter().map(|(place, entry)| Part { entry, places: Places::One(place) }))
}

fn by_stream<'a>(parts: impl Iterator<Item = Part<'a>>) -> Vec<(Stream, Vec<Part<'a>>)> {
    let mut sorted: Vec<(Stream, Vec<Part<'a>>)> = Vec::new();
    for part in parts {
        let entry = part.entry;
        match sorted.last_mut() {
            Some(((partition, queue), parts))
                if *partition == entry.partition && *queue == entry.queue =>
            {
                parts.push(part);
            }
            _ => sorted.push(((entry.partition.clone(), entry.queue), vec![part])),
        }
    }
    sorted
}

/// Whether these are the indexes of all events of an entry.
fn are_all(entry: &Entry, indexes: impl Iterator<Item = u32>) -> bool {
    let mut seen = Bits::new();
    indexes.filter(|index| seen.insert(*index)).count() == entry.records.len()
}

fn answer_all(part: &Part<'_>, settled: Settled, answers: &mut [Option<Answer>]) {
    for place in &*part.places {
        answers[*place] = Some(Ok(settled));
    }
}

/// The server said no, for a reason that may lie in what was asked.
fn is_refusal(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Server | ErrorKind::Denied)
}

/// An error for each settlement of a call that failed.
fn fail(parts: &[Part<'_>], error: &Error, answers: &mut [Option<Answer>]) {
    for place in parts.iter().flat_map(|part| &*part.places) {
        let copy = Error::new(error.kind(), error.to_string());
        answers[*place] = Some(Err(copy.with_help("settle it again: a repeat is recognised")));
    }
}

impl RedisSettler {
    /// Whether the whole entry ends here and now in plain acks, and nothing of it was settled
    /// before. That it was handled stays true whoever says it: this needs no fence.
    fn is_plain(&self, held: &InFlight, part: &Part<'_>, settlements: &[Settlement]) -> bool {
        let entry = part.entry;
        let plain = |place: &usize| settlements[*place].outcome.is_plain_ack();
        part.places.iter().all(plain)
            && are_all(entry, part.places.iter().map(|place| settlements[*place].delivery.index))
            && self.is_fresh(held, entry)
    }

    /// Whether nothing is recorded of an entry that has to go with its end.
    fn is_fresh(&self, held: &InFlight, entry: &Entry) -> bool {
        entry.token == Token(1)
            && entry.settled.is_empty()
            // A suspect has a note that goes with its end.
            && !entry.suspect
            // It may hold its key.
            && !(self.member.park_keys && entry.queue == Queue::Retry)
            && !held.is_touched(entry.id)
    }

    async fn acknowledge(
        &self,
        stream: &Stream,
        parts: &[Part<'_>],
        answers: &mut [Option<Answer>],
    ) {
        for parts in parts.chunks(ENTRIES_MAX) {
            let sure = self.flight(stream, |held| {
                parts.iter().filter(|part| self.ask(held, part) != Sure::Not).count()
            });
            match self.ack_some(stream, parts).await {
                Ok((acked, repeated)) => {
                    self.note_acked(stream, parts, acked, answers);
                    // What was said twice here may have been done the first time.
                    let sure = if repeated { 0 } else { sure as u64 };
                    let missed = (parts.len() as u64).saturating_sub(acked).min(sure);
                    claim::tell_missed(&self.member, stream, missed).await;
                }
                Err(error) => fail(parts, &error, answers),
            }
        }
    }

    /// Notes that a settlement is sent; tells how sure it is that nothing was said before.
    fn ask(&self, held: &mut InFlight, part: &Part<'_>) -> Sure {
        held.ask(part.entry.id, part.entry.token, self.member.lease.lease)
    }

    fn flight<T>(&self, stream: &Stream, act: impl FnOnce(&mut InFlight) -> T) -> T {
        self.member.flight.of(stream, act)
    }

    /// Acknowledges entries; those of the retry stream, which nobody else reads, are deleted as
    /// well. Gives how many were pending, and whether that may have been done twice.
    async fn ack_some(&self, stream: &Stream, parts: &[Part<'_>]) -> Result<(u64, bool), Error> {
        if planted!(AcksForgotten) {
            return Ok((parts.len() as u64, false));
        }
        let Shared { ackdel, commands, .. } = &*self.member.shared;
        let key = self.member.stream_key(stream);
        let ids: Vec<IdText> = parts.iter().map(|part| IdText::of(part.entry.id)).collect();
        let refuse = |fault| {
            commands.error(format!("acknowledge events of {} in key {key}", stream.0), &fault)
        };
        let group = self.member.group.as_str();
        if stream.1 == Queue::Retry && ackdel.is_there(commands).await? {
            let mut pipeline = Pipeline::new();
            pipeline.cmd("XACKDEL").arg(&key).arg(group).arg("IDS").arg(ids.len()).arg(&ids);
            let (mut answers, repeated) = self.ride_or_ask(stream, &pipeline).await?;
            let answer = answers.pop().unwrap_or_default();
            if let Some(acked) = ackdel.read(answer).map_err(refuse)? {
                return Ok((acked, repeated));
            }
        }
        let mut pipeline = Pipeline::new();
        pipeline.cmd("XACK").arg(&key).arg(group).arg(&ids);
        if stream.1 == Queue::Retry {
            pipeline.cmd("XDEL").arg(&key).arg(&ids);
        }
        let (answers, repeated) = self.ride_or_ask(stream, &pipeline).await?;
        let mut answers = answers.into_iter();
        let acked = reply::count(answers.next().unwrap_or_default()).map_err(refuse)?;
        answers.try_for_each(|answer| reply::count(answer).map(drop)).map_err(refuse)?;
        Ok((acked, repeated))
    }

    /// The answers, and whether the commands may have been done before.
    async fn ride_or_ask(
        &self,
        stream: &Stream,
        pipeline: &Pipeline,
    ) -> Result<(Vec<Value>, bool), Error> {
        let not_carried = match self.member.ride(&stream.0, pipeline).await {
            Ok(answers) => return Ok((answers, false)),
            Err(not_carried) => not_carried,
        };
        let commands = &self.member.shared.commands;
        let before = commands.generation();
        let what = format!("acknowledge events of {}", stream.0);
        let answers = commands.ask(what, pipeline).await?;
        Ok((answers, not_carried == NotCarried::Lost || commands.generation() != before))
    }

    /// Where fewer were pending than were acked, those that are no longer in flight here are
    /// taken for the ones that were settled before.
    fn note_acked(
        &self,
        stream: &Stream,
        parts: &[Part<'_>],
        acked: u64,
        answers: &mut [Option<Answer>],
    ) {
        let all = acked >= parts.len() as u64;
        self.flight(stream, |held| {
            for part in parts {
                let here = held.remove(part.entry.id);
                let done = all || (acked > 0 && here);
                answer_all(part, if done { Settled::Done } else { Settled::Already }, answers);
            }
        });
    }

    async fn settle_fenced(
        &self,
        stream: &Stream,
        parts: &[Part<'_>],
        settlements: &[Settlement],
        answers: &mut [Option<Answer>],
    ) {
        let mut rest = parts;
        while !rest.is_empty() {
            let mut step = Step::new(&self.member, stream);
            let taken = step
                .fill(rest, settlements, |part| self.flight(stream, |held| self.ask(held, part)));
            let (now, later) = rest.split_at(taken);
            rest = later;
            match self.run(step, now).await {
                Ok(codes) => {
                    let gone = self.note_settled(stream, now, settlements, codes, answers);
                    claim::tell_gone(&self.member, stream, &gone).await;
                }
                // One of them may be what the server refuses: the others do not wait for it.
                Err(error) if now.len() > 1 && is_refusal(&error) => {
                    for part in now.chunks(1) {
                        Box::pin(self.settle_fenced(stream, part, settlements, answers)).await;
                    }
                }
                Err(error) => fail(now, &error, answers),
            }
        }
    }

    async fn run(&self, step: Step, parts: &[Part<'_>]) -> Result<Vec<u64>, Error> {
        let commands = &self.member.shared.commands;
        let dead = step.has_dead();
        let (mut call, sure_at, soonest) = step.finish(parts.len());
        let first = parts.first().map(|part| part.entry.id).unwrap_or_default();
        let what = format!("settle {} entries from {first} on", parts.len());
        let answer = match commands.call_once(&what, &call).await? {
            Some(answer) => answer,
            None => {
                // What may have been done is not sure any more.
                for at in sure_at {
                    call.replace(at, b"0");
                }
                commands.call(&what, &[call]).await?.pop().unwrap_or_default()
            }
        };
        let codes = read_codes(answer, parts).map_err(|fault| commands.error(what, &fault))?;
        if let Some(soonest) = soonest {
            self.member.shared.schedule.hint(soonest);
        }
        if dead {
            self.member.dead_cap.wrote();
        }
        Ok(codes)
    }

    /// Gives those that were not pending any more and were taken back, and those whose messages
    /// were found to be deleted: nobody else will run what is left of them.
    fn note_settled(
        &self,
        stream: &Stream,
        parts: &[Part<'_>],
        settlements: &[Settlement],
        codes: Vec<u64>,
        answers: &mut [Option<Answer>],
    ) -> Vec<EntryId> {
        let (mut codes, mut gone) = (codes.into_iter(), Vec::new());
        for part in parts {
            let head = codes.next().unwrap_or_default();
            let (finished, taken, deleted) = (head & 1 != 0, head & 2 != 0, head & 4 != 0);
            if taken && !self.member.flight.is_gone(stream, part.entry.id) {
                gone.push(part.entry.id);
            }
            if deleted && self.member.flight.note_gone(stream, part.entry.id) {
                gone.push(part.entry.id);
            }
            let mut lost = false;
            for place in &*part.places {
                let settled = match codes.next() {
                    Some(1) => Settled::Done,
                    Some(2) => Settled::Already,
                    Some(4) => Settled::Duplicate,
                    _ => Settled::LeaseLost,
                };
                lost |= settled == Settled::LeaseLost;
                answers[*place] = Some(Ok(settled));
            }
            let entry = part.entry;
            if lost {
                self.member.flight.lose(stream, entry.id, entry.token);
            } else if finished {
                self.member.flight.remove(stream, entry.id);
            } else {
                let indexes = part.places.iter().map(|place| settlements[*place].delivery.index);
                if !self.member.flight.touch(stream, entry.id, indexes) {
                    // The server has forgotten a part of what it was told. What is left of the
                    // entry is nobody's here, and goes to whoever finds it after the lease.
                    let (group, id) = (&self.member.group, entry.id);
                    tracing::warn!(%group, %id, "the server lost a part of what was settled");
                    self.member.flight.remove(stream, entry.id);
                }
            }
        }
        gone
    }
}

/// What the script said: per entry whether it is finished, then a code per item.
fn read_codes(answer: Value, parts: &[Part<'_>]) -> Result<Vec<u64>, Fault> {
    let codes: Vec<u64> =
        reply::items(answer)?.into_iter().map(reply::count).collect::<Result<_, _>>()?;
    let due: usize = parts.iter().map(|part| 1 + part.places.len()).sum();
    if codes.len() == due {
        return Ok(codes);
    }
    Err(Fault::Odd(format!("{} codes where {due} are due", codes.len())))
}
