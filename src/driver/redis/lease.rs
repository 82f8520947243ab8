//! The lease keeper: one task per subscription that renews what is in flight, says that the
//! consumer lives, and looks for what others abandoned.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::claim::{CLAIMED_MAX, Cursors, abandoned, streams_of};
use super::coverage::{Begin, cover};
use super::leave::Graveyard;
use super::member::{Member, Out};
use super::renew::renew;
use super::reply;
use crate::delivery::Entry;
use crate::error::Error;

/// How often the topics are read again, for partitions that were added.
const TOPICS_EVERY: Duration = Duration::from_secs(10);
/// After this a renewal that failed is tried again.
const RETRY_AFTER: Duration = Duration::from_millis(200);
/// How many times as long as a step of a search the pause after it is.
const BREATHER: u32 = 4;
/// The longest such pause: a step that took so long waited for other things.
const BREATHER_MAX: Duration = Duration::from_millis(20);
/// How far the server's clock may move against ours between two rounds. Beyond it, idle times
/// mean nothing, and a round that claims is skipped.
const CLOCK_JUMP: Duration = Duration::from_secs(1);

/// Keeps the leases of one subscription.
pub(super) struct Keeper {
    member: Arc<Member>,
    /// Gone once reading has ended: then nothing more is claimed.
    out: Option<Out>,
    cursors: Cursors,
    graveyard: Graveyard,
    clock: ClockWatch,
    renew_at: Instant,
    sweep_at: Instant,
    topics_at: Instant,
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
            clock: ClockWatch::default(),
        }
    }

    /// Runs until the source is dropped or the driver ends.
    pub(super) async fn run(mut self) {
        let member = Arc::clone(&self.member);
        let work = async {
            self.note_clock().await;
            loop {
                self.until_next().await;
                let troubles = &member.shared.troubles;
                if troubles.guard("keep the leases of a group", self.tick()).await.is_none() {
                    sleep(RETRY_AFTER).await;
                }
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
            let covered = cover(&self.member, Begin::Earliest, &out).await;
            self.member.tell("look for topics", covered);
        }
    }

    async fn beat(&mut self) {
        let beaten = self.member.beat().await;
        self.member.tell("say that a consumer lives", beaten);
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
        if demand == 0 {
            // Nobody waits for work now; soon somebody may.
            self.sweep_at = Instant::now() + self.member.lease.sweep.mul_f64(0.1);
            return;
        }
        let claimed = self.claim(demand).await;
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
            let most = CLAIMED_MAX.min(self.member.sizes.most());
            let room = demand.min(most).saturating_sub(entries.len());
            if room == 0 {
                self.sweep_at = Instant::now();
                return Ok(entries);
            }
            let (mut unfinished, began) = (false, Instant::now());
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
            // The server is there for others as well.
            sleep((began.elapsed() * BREATHER).min(BREATHER_MAX)).await;
        }
    }

    async fn note_clock(&mut self) {
        let time = server_time(&self.member).await;
        match self.member.tell("ask for the time", time) {
            Some(time) => self.clock.note(Instant::now(), time),
            None => self.clock.forget(),
        }
    }

    /// The server's time in milliseconds, where idle times mean something now.
    async fn sound_clock(&mut self) -> Option<u64> {
        self.note_clock().await;
        if self.clock.jumped {
            let group = &self.member.group;
            tracing::warn!(%group, "the server's clock jumped: nothing is taken over for a lease");
        }
        self.clock.sound(Instant::now(), self.member.lease.lease)
    }
}

/// What is known of the server's clock beside ours.
///
/// After a jump every idle time is wrong until the living have renewed their leases: for a lease
/// nothing is taken over.
#[derive(Default)]
struct ClockWatch {
    /// Ours and the server's, in milliseconds, when it was asked last.
    last: Option<(Instant, u64)>,
    /// Whether the last look but one knew it, too.
    is_known: bool,
    /// The last look saw a jump.
    jumped: bool,
    jumped_at: Option<Instant>,
}

impl ClockWatch {
    /// The server said what time it is.
    fn note(&mut self, own: Instant, server: u64) {
        let before = self.last.replace((own, server));
        self.is_known = before.is_some();
        self.jumped = before.is_some_and(|(then, was)| is_jump(own - then, was, server));
        if self.jumped {
            self.jumped_at = Some(own);
        }
    }

    /// The server could not be asked.
    fn forget(&mut self) {
        self.last = None;
        (self.is_known, self.jumped) = (false, false);
    }

    /// The server's time, unless it is new to us or jumped less than a lease ago.
    fn sound(&self, now: Instant, lease: Duration) -> Option<u64> {
        let calm = self.jumped_at.is_none_or(|jumped| now >= jumped + lease);
        self.last.filter(|_| self.is_known && calm).map(|(_, server)| server)
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

    #[test]
    fn after_a_jump_nothing_is_taken_over_for_a_lease() {
        let (start, server) = (Instant::now(), 1_767_323_045_000_u64);
        let (lease, hour) = (Duration::from_secs(30), 3_600_000);
        let mut clock = ClockWatch::default();
        let mut look = |seconds: u64, offset: i64| {
            let own = start + Duration::from_secs(seconds);
            let time = server + seconds * 1000;
            clock.note(own, time.saturating_add_signed(offset));
            clock.sound(own, lease).is_some()
        };
        assert!(!look(0, 0), "the first look knows nothing");
        assert!(look(15, 0) && look(30, 400));
        assert!(!look(45, hour), "an hour forward");
        assert!(!look(60, hour), "the living have renewed by the end of the lease");
        assert!(look(75, hour) && look(90, hour));
        assert!(!look(105, 0), "and back");
        assert!(!look(120, 0));
        assert!(look(135, 0));
    }

    #[test]
    fn a_server_that_was_away_is_looked_at_twice() {
        let (start, lease) = (Instant::now(), Duration::from_secs(30));
        let mut clock = ClockWatch::default();
        clock.note(start, 1_000);
        clock.forget();
        assert_eq!(clock.sound(start, lease), None);
        clock.note(start + lease, 1_000_000);
        assert_eq!(clock.sound(start + lease, lease), None);
        clock.note(start + lease * 2, 1_030_000);
        assert_eq!(clock.sound(start + lease * 2, lease), Some(1_030_000));
    }
}
