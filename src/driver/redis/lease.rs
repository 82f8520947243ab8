//! The lease keeper: one task per subscription that renews what is in flight, says that the
//! consumer lives, and looks for what others abandoned.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::claim::{CLAIMED_MAX, Cursors, abandoned, streams_of};
use super::coverage::{Begin, cover};
use super::flight::Stream;
use super::leave::Graveyard;
use super::member::{Member, Out};
use super::reply;
use super::script::{Call, RENEW};
use crate::delivery::{Entry, EntryId, Token};
use crate::error::Error;

/// How often the topics are read again, for partitions that were added.
const TOPICS_EVERY: Duration = Duration::from_secs(10);
/// After this a renewal that failed is tried again.
const RETRY_AFTER: Duration = Duration::from_millis(200);
/// How far the server's clock may move against ours between two rounds. Beyond it, idle times
/// mean nothing, and a round that claims is skipped.
const CLOCK_JUMP: Duration = Duration::from_secs(1);
/// Entries per renewal script.
const RENEWED_MAX: usize = 100;

/// Keeps the leases of one subscription.
pub(super) struct Keeper {
    member: Arc<Member>,
    /// Gone once reading has ended: then nothing more is claimed.
    out: Option<Out>,
    cursors: Cursors,
    graveyard: Graveyard,
    clock: Option<(Instant, u64)>,
    renew_at: Instant,
    sweep_at: Instant,
    topics_at: Instant,
    /// Registering failed; said once.
    mute: bool,
}

impl Keeper {
    pub(super) fn new(member: Arc<Member>, out: Out) -> Self {
        let now = Instant::now();
        // Soon, but not at one moment for all instances that start together.
        let sweep_at = now + member.lease.sweep.mul_f64(0.2 * fastrand::f64());
        Self {
            renew_at: now + member.lease.renew,
            sweep_at,
            topics_at: now + TOPICS_EVERY,
            member,
            out: Some(out),
            cursors: Cursors::new(),
            graveyard: Graveyard::default(),
            clock: None,
            mute: false,
        }
    }

    /// Runs until the source is dropped or the driver ends.
    pub(super) async fn run(mut self) {
        let member = Arc::clone(&self.member);
        let work = async {
            self.note_clock().await;
            loop {
                self.until_next().await;
                self.tick().await;
            }
        };
        tokio::select! {
            () = member.dropped.cancelled() => {}
            () = member.shared.runtime.stop().cancelled() => {}
            () = work => {}
        }
    }

    /// Waits for the next thing to do. Once reading has ended, lets go of the way to the source,
    /// so that the source sees its end.
    async fn until_next(&mut self) {
        let next = match self.out {
            Some(_) => self.renew_at.min(self.sweep_at).min(self.topics_at),
            None => self.renew_at,
        };
        tokio::select! {
            () = sleep_until(next) => {}
            () = self.member.closed.cancelled(), if self.out.is_some() => self.out = None,
        }
    }

    async fn tick(&mut self) {
        let now = Instant::now();
        let sweep = self.out.is_some() && now >= self.sweep_at;
        if now >= self.renew_at || sweep {
            // A sweep comes after a renewal, never before, or it would claim what is our own.
            let renewed = renew(&self.member).await;
            self.beat().await;
            let pause = if renewed { self.member.lease.renew } else { RETRY_AFTER };
            self.renew_at = Instant::now() + pause.min(self.member.lease.renew);
            if sweep && renewed {
                self.sweep().await;
            }
        }
        if let Some(out) = self.out.clone().filter(|_| now >= self.topics_at) {
            self.topics_at = Instant::now() + TOPICS_EVERY;
            if let Err(error) = cover(&self.member, Begin::Earliest, &out).await {
                tracing::warn!("{error:?}");
            }
        }
    }

    async fn beat(&mut self) {
        match self.member.beat().await {
            Ok(()) => self.mute = false,
            Err(error) if error.is_closed() => {}
            Err(error) => {
                if !std::mem::replace(&mut self.mute, true) {
                    tracing::warn!("{error:?}");
                }
            }
        }
    }

    async fn sweep(&mut self) {
        let Some(out) = self.out.clone() else { return };
        let jitter = 0.8 + 0.4 * fastrand::f64();
        self.sweep_at = Instant::now() + self.member.lease.sweep.mul_f64(jitter);
        if self.clock_jumped().await {
            return;
        }
        if let Some((_, now)) = self.clock
            && let Err(error) = self.graveyard.tend(&self.member, now).await
        {
            tracing::warn!("{error:?}");
        }
        let demand = self.member.demand.now();
        // Room on the way to the source comes first: renewals must never wait for it.
        let Ok(permit) = out.try_reserve() else { return };
        if demand == 0 {
            // Nobody waits for work now; soon somebody may.
            self.sweep_at = Instant::now() + self.member.lease.sweep.mul_f64(0.1);
            return;
        }
        match self.claim(demand).await {
            Ok(entries) if entries.is_empty() => {}
            Ok(entries) => {
                let (group, count) = (&self.member.group, entries.len());
                tracing::info!(%group, count, "took over entries that were abandoned");
                self.member.demand.meet();
                permit.send(Ok(entries));
            }
            Err(error) => tracing::warn!("{error:?}"),
        }
    }

    /// Searches every stream to its end, or until there is enough.
    async fn claim(&mut self, demand: usize) -> Result<Vec<Entry>, Error> {
        let partitions = self.member.coverage.lock().await.partitions();
        let streams = streams_of(&self.member.dead_cap.open(&partitions));
        let mut entries: Vec<Entry> = Vec::new();
        if streams.is_empty() {
            return Ok(entries);
        }
        loop {
            let room = demand.min(CLAIMED_MAX).saturating_sub(entries.len());
            if room == 0 {
                self.sweep_at = Instant::now();
                return Ok(entries);
            }
            let mut unfinished = false;
            for part in streams.chunks(room) {
                let count = (room / streams.len()).max(1);
                let (found, more) = abandoned(&self.member, part, &mut self.cursors, count).await?;
                unfinished |= more;
                entries.extend(found);
                if entries.len() >= room {
                    break;
                }
            }
            if !unfinished {
                return Ok(entries);
            }
            if Instant::now() >= self.renew_at {
                // A long search must not keep leases from being renewed: it goes on after that.
                self.sweep_at = Instant::now();
                return Ok(entries);
            }
        }
    }

    async fn note_clock(&mut self) {
        match server_time(&self.member).await {
            Ok(time) => self.clock = Some((Instant::now(), time)),
            Err(error) => tracing::warn!("{error:?}"),
        }
    }

    /// Whether the server's clock moved against ours since the last round.
    async fn clock_jumped(&mut self) -> bool {
        let before = self.clock.take();
        self.note_clock().await;
        let (Some((then, server_then)), Some((now, server_now))) = (before, self.clock) else {
            return true;
        };
        let jump = is_jump(now - then, server_then, server_now);
        if jump {
            let group = &self.member.group;
            tracing::warn!(%group, "the server's clock jumped: nothing is taken over this time");
        }
        jump
    }
}

/// Whether the server's clock, in milliseconds, went otherwise than ours did meanwhile.
fn is_jump(own: Duration, server_then: u64, server_now: u64) -> bool {
    let moved = i128::from(server_now) - i128::from(server_then);
    (moved - i128::from(millis(own))).unsigned_abs() > CLOCK_JUMP.as_millis()
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

async fn server_time(member: &Member) -> Result<u64, Error> {
    let what = "ask for the server's time";
    let answer = member.shared.commands.ask_one(what, redis::cmd("TIME")).await?;
    reply::time(answer).map_err(|fault| member.shared.commands.error(what, &fault))
}

/// Renews everything in flight; false where that has to be tried again.
pub(super) async fn renew(member: &Member) -> bool {
    let (mut calls, mut asked) = (Vec::new(), Vec::new());
    for (stream, held) in member.flight.all() {
        for part in held.chunks(RENEWED_MAX) {
            calls.push(call(member, &stream, part));
            asked.push((stream.clone(), part.to_vec()));
        }
    }
    if calls.is_empty() {
        return true;
    }
    let what = format!("renew the leases of group {}", member.group);
    let answers = match member.shared.commands.call(&what, &calls).await {
        Ok(answers) => answers,
        Err(error) => {
            tracing::warn!("{error:?}");
            return false;
        }
    };
    let mut renewed = true;
    for ((stream, held), answer) in asked.into_iter().zip(answers) {
        match reply::items(answer) {
            Ok(answers) => note(member, &stream, &held, answers),
            Err(fault) => {
                tracing::warn!("{:?}", member.shared.commands.error(&what, &fault));
                renewed = false;
            }
        }
    }
    renewed
}

fn call(member: &Member, stream: &Stream, held: &[(EntryId, Token)]) -> Call {
    let mut call = Call::new(&RENEW, vec![member.stream_key(stream)]);
    call.arg(member.group.as_str()).arg(member.consumer.as_str());
    for (id, token) in held {
        call.number(id).number(&token.0);
    }
    call
}

fn note(member: &Member, stream: &Stream, held: &[(EntryId, Token)], answers: Vec<redis::Value>) {
    for ((id, token), answer) in held.iter().zip(answers) {
        let kept = reply::int(answer).is_ok_and(|kept| kept == Some(1));
        // What was settled while the script ran is no longer in flight, and was not lost.
        if !kept && member.flight.lose(stream, *id, *token) {
            let (group, (partition, _)) = (&member.group, stream);
            tracing::warn!(%group, %partition, %id, "the lease of an entry was lost");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_goes_with_ours_has_not_jumped() {
        let round = Duration::from_secs(15);
        let start = 1_767_323_045_000;
        for server_now in [start + 14_000, start + 15_000, start + 16_000] {
            assert!(!is_jump(round, start, server_now), "{server_now}");
        }
        let hour = 3_600_000;
        for server_now in [start + 13_999, start + 16_001, start + 15_000 + hour, start - hour] {
            assert!(is_jump(round, start, server_now), "{server_now}");
        }
    }
}
