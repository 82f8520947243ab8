//! The lease keeper of a subscription: it has what is in flight renewed, beside that looks for what
//! others abandoned, and for partitions that were added.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::claim::{CLAIMED_MAX, Cursors, abandoned, streams_of};
use super::clock::{ClockWatch, Rebase, server_time};
use super::coverage::{Begin, cover};
use super::leave::Graveyard;
use super::member::{Member, Out};
use super::renewals::{RETRY_AFTER, Renewals};
use crate::delivery::Entry;
use crate::error::Error;

/// How often the topics are read again, for partitions that were added.
const TOPICS_EVERY: Duration = Duration::from_secs(10);
/// How long an answer may take that says what time it is: half of it is not known.
const ASKED_MAX: Duration = Duration::from_secs(1);
/// How many times as long as a step of a search the pause after it is.
const BREATHER: u32 = 4;
/// How long a round looks for what was handed out in the future: sweeps must not wait for it.
const REBASE_MAX: Duration = Duration::from_secs(1);
/// The longest such pause: a step that took so long waited for other things.
const BREATHER_MAX: Duration = Duration::from_millis(20);
/// The pause after a step that began then.
pub(super) fn breather(began: Instant) -> Duration {
    (began.elapsed() * BREATHER).min(BREATHER_MAX)
}

/// Keeps the leases of one subscription.
pub(super) struct Keeper {
    member: Arc<Member>,
    /// Gone once reading has ended: then nothing more is claimed.
    out: Option<Out>,
    cursors: Cursors,
    graveyard: Graveyard,
    clock: ClockWatch,
    rebase: Rebase,
    renewals: Renewals,
    sweep_at: Instant,
    topics_at: Instant,
    /// Since when nobody waited for work at a sweep.
    put_off: Option<Instant>,
}

impl Keeper {
    pub(super) fn new(member: Arc<Member>, out: Out) -> Self {
        let now = Instant::now();
        // Soon, but not at one moment for all instances that start together.
        let sweep_at = now + member.lease.sweep.mul_f64(0.2 * fastrand::f64());
        Self {
            renewals: Renewals::new(Arc::clone(&member)),
            sweep_at,
            topics_at: now + TOPICS_EVERY,
            put_off: None,
            member,
            out: Some(out),
            cursors: Cursors::new(),
            graveyard: Graveyard::default(),
            clock: ClockWatch::default(),
            rebase: Rebase::default(),
        }
    }

    /// Runs until the source is dropped or the driver ends.
    pub(super) async fn run(mut self) {
        let (member, renewals) = (Arc::clone(&self.member), self.renewals.clone());
        tokio::select! {
            () = member.dropped.cancelled() => {}
            () = member.shared.runtime.stop().cancelled() => {}
            // A renewal waits for nothing that is done here: a slow server makes sweeps long.
            () = renewals.run() => {}
            () = self.look_around() => {}
        }
    }

    async fn look_around(&mut self) {
        let member = Arc::clone(&self.member);
        self.note_clock().await;
        self.rebase.begin(&member).await;
        loop {
            self.until_next().await;
            let troubles = &member.shared.troubles;
            if troubles.guard("look after a group", self.tick()).await.is_none() {
                sleep(RETRY_AFTER).await;
            }
        }
    }

    /// Waits for the next thing to do. Once reading has ended, lets go of the way to the source,
    /// so that the source sees its end: then there is nothing to do any more.
    async fn until_next(&mut self) {
        tokio::select! {
            () = sleep_until(self.sweep_at.min(self.topics_at)) => {}
            () = self.member.closed.cancelled() => {
                self.out = None;
                std::future::pending::<()>().await;
            }
        }
    }

    async fn tick(&mut self) {
        let now = Instant::now();
        // A sweep comes after a renewal, never before, or it would claim what is our own; what is
        // taken over is routed by what the group can route now.
        if now >= self.sweep_at {
            if self.renewals.now().await {
                self.sweep().await;
                self.rebase().await;
            } else {
                sleep(RETRY_AFTER).await;
            }
        }
        if let Some(out) = self.out.clone().filter(|_| now >= self.topics_at) {
            self.topics_at = Instant::now() + TOPICS_EVERY;
            let covered = cover(&self.member, Begin::Earliest, &out).await;
            self.member.tell("look for topics", covered);
        }
    }

    async fn sweep(&mut self) {
        let Some(out) = self.out.clone() else { return };
        let jitter = 0.8 + 0.4 * fastrand::f64();
        self.sweep_at = Instant::now() + self.member.lease.sweep.mul_f64(jitter);
        let Some(now) = self.sound_clock().await else { return };
        let tended = self.graveyard.tend(&self.member, now).await;
        self.member.tell("remove dead consumers", tended);
        let demand = self.member.demand.now();
        // Room on the way to the source comes first: renewals must never wait for it.
        let Ok(permit) = out.try_reserve() else { return };
        let sweep = self.member.lease.sweep;
        if demand == 0 && self.put_off.get_or_insert_with(Instant::now).elapsed() < sweep {
            // Nobody waits for work now; soon somebody may.
            self.sweep_at = Instant::now() + sweep.mul_f64(0.1);
            return;
        }
        // Consumers that are always busy would leave what is abandoned to nobody: an entry goes
        // beyond what they can take.
        self.put_off = None;
        let claimed = self.claim(demand.max(1)).await;
        match self.member.tell("take over what was abandoned", claimed) {
            None => {}
            Some(entries) if entries.is_empty() => {}
            Some(entries) => {
                let (group, count) = (&self.member.group, entries.len());
                tracing::info!(%group, count, "took over entries that were abandoned");
                self.member.demand.meet();
                permit.send(Ok(entries));
            }
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
            let enough = demand.min(CLAIMED_MAX).min(self.member.sizes.most());
            let room = enough.saturating_sub(entries.len());
            if room == 0 {
                self.sweep_at = Instant::now();
                return Ok(entries);
            }
            let (mut unfinished, began) = (false, Instant::now());
            for part in streams.chunks(room) {
                let count = (room / streams.len()).max(1);
                // What comes between a renewal and a search may take long where all is slow.
                if self.renewals.are_late() && !self.renewals.now().await {
                    return Ok(entries);
                }
                match abandoned(&self.member, part, &mut self.cursors, count).await {
                    Ok((found, more)) => {
                        unfinished |= more;
                        entries.extend(found);
                    }
                    Err(error) if entries.is_empty() => return Err(error),
                    // What was taken over is to be run all the same.
                    Err(error) => {
                        self.member.tell::<()>("take over what was abandoned", Err(error));
                        return Ok(entries);
                    }
                }
                // Those that are left out come next, where there is room.
                if entries.len() >= enough {
                    unfinished = true;
                    break;
                }
            }
            if !unfinished {
                return Ok(entries);
            }
            // The server is there for others as well.
            sleep(breather(began)).await;
        }
    }

    async fn note_clock(&mut self) {
        let asked = Instant::now();
        let time = server_time(&self.member).await;
        match self.member.tell("ask for the time", time) {
            // Of an answer that took long nobody knows when it was true.
            Some(time) if asked.elapsed() < ASKED_MAX => {
                self.clock.note(asked + asked.elapsed() / 2, time);
            }
            _ => self.clock.forget(),
        }
    }

    /// The server's time in milliseconds, where idle times mean something now.
    async fn sound_clock(&mut self) -> Option<u64> {
        self.note_clock().await;
        if let Some(jump) = self.clock.jump {
            let group = &self.member.group;
            tracing::warn!(
                %group, ?jump,
                "the server's clock jumped: for a lease nothing is taken over"
            );
        }
        self.clock.sound(Instant::now(), self.member.lease.lease)
    }

    /// What is pending may have been handed out in the future, by a clock that went back since.
    async fn rebase(&mut self) {
        if self.clock.may_have_gone_back() {
            self.rebase.begin(&self.member).await;
        }
        let rebased = self.rebase.go_on(&self.member, Instant::now() + REBASE_MAX).await;
        self.member.tell("see what was handed out in the future", rebased);
    }
}
