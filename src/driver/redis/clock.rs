//! The server's clock beside ours: idle times are measured on the server's, and it may jump.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::claim::{CLAIMED_MAX, streams_of};
use super::flight::Stream;
use super::lease::breather;
use super::member::Member;
use super::reply;
use super::script::{Call, REBASE};
use crate::error::Error;

/// How far the server's clock may move against ours between two rounds. Beyond it, idle times
/// mean nothing, and a round that claims is skipped.
const CLOCK_JUMP: Duration = Duration::from_secs(1);

/// Where the server's clock went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Jump {
    Forward,
    Back,
}

/// What is known of the server's clock beside ours.
///
/// After a jump every idle time is wrong until the living have renewed their leases: for a lease
/// nothing is taken over.
#[derive(Default)]
pub(super) struct ClockWatch {
    /// Ours and the server's, in milliseconds, when it was asked last.
    last: Option<(Instant, u64)>,
    /// Whether the last look but one knew it, too.
    is_known: bool,
    /// What the last look saw.
    pub(super) jump: Option<Jump>,
    jumped_at: Option<Instant>,
}

impl ClockWatch {
    /// The server said what time it is.
    pub(super) fn note(&mut self, own: Instant, server: u64) {
        let before = self.last.replace((own, server));
        self.is_known = before.is_some();
        self.jump = before.and_then(|(then, was)| is_jump(own - then, was, server));
        if self.jump.is_some() {
            self.jumped_at = Some(own);
        }
    }

    /// The server could not be asked.
    pub(super) fn forget(&mut self) {
        self.last = None;
        (self.is_known, self.jump) = (false, None);
    }

    /// Whether entries may have been handed out in what is the future now.
    pub(super) fn may_have_gone_back(&self) -> bool {
        self.last.is_some() && (!self.is_known || self.jump == Some(Jump::Back))
    }

    /// The server's time, unless it is new to us or jumped less than a lease ago.
    pub(super) fn sound(&self, now: Instant, lease: Duration) -> Option<u64> {
        let calm = self.jumped_at.is_none_or(|jumped| now >= jumped + lease);
        self.last.filter(|_| self.is_known && calm).map(|(_, server)| server)
    }
}

/// Where the server's clock, in milliseconds, went that ours did not meanwhile.
fn is_jump(own: Duration, server_then: u64, server_now: u64) -> Option<Jump> {
    let moved = i128::from(server_now) - i128::from(server_then);
    let ahead = moved - i128::from(millis(own));
    if ahead.unsigned_abs() <= CLOCK_JUMP.as_millis() {
        return None;
    }
    Some(if ahead > 0 { Jump::Forward } else { Jump::Back })
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

pub(super) async fn server_time(member: &Member) -> Result<u64, Error> {
    let what = "ask for the server's time";
    let answer = member.shared.commands.ask_one(what, redis::cmd("TIME")).await?;
    reply::time(answer).map_err(|fault| member.shared.commands.error(what, &fault))
}

/// The entries that begin to be idle now, those of one clock that went back: in pages, stream by
/// stream.
#[derive(Default)]
pub(super) struct Rebase {
    /// What is left, and from where on.
    left: Vec<(Stream, String)>,
}

impl Rebase {
    /// Begins with all of the group's streams.
    pub(super) async fn begin(&mut self, member: &Member) {
        let partitions = member.coverage.lock().await.partitions();
        let streams = streams_of(&partitions).into_iter();
        self.left = streams.map(|stream| (stream, "-".to_owned())).collect();
    }

    /// Goes on until there is nothing left, or it is time for something else.
    pub(super) async fn go_on(&mut self, member: &Member, until: Instant) -> Result<(), Error> {
        while let Some((stream, from)) = self.left.last_mut() {
            let began = Instant::now();
            if began >= until {
                return Ok(());
            }
            match page(member, stream, from).await? {
                Some(last) => *from = format!("({last}"),
                None => drop(self.left.pop()),
            }
            sleep(breather(began)).await;
        }
        Ok(())
    }
}

/// Looks at some entries; gives the last of them.
async fn page(member: &Member, stream: &Stream, from: &str) -> Result<Option<String>, Error> {
    let mut call = Call::new(&REBASE, vec![member.stream_key(stream)]);
    call.arg(member.group.as_str()).arg(from).number(&CLAIMED_MAX);
    let (commands, what) = (&member.shared.commands, "look for what was handed out in the future");
    let answer = commands.call(what, &[call]).await?.pop().unwrap_or_default();
    let last = reply::text(answer).map_err(|fault| commands.error(what, &fault))?;
    Ok(Some(last).filter(|last| !last.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_goes_with_ours_has_not_jumped() {
        let round = Duration::from_secs(15);
        let start = 1_767_323_045_000;
        for server_now in [start + 14_000, start + 15_000, start + 16_000] {
            assert_eq!(is_jump(round, start, server_now), None, "{server_now}");
        }
        let hour = 3_600_000;
        for server_now in [start + 13_999, start + 16_001, start + 15_000 + hour, start - hour] {
            assert!(is_jump(round, start, server_now).is_some(), "{server_now}");
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
        assert!(!clock.may_have_gone_back(), "nobody knows");
        assert_eq!(clock.sound(start, lease), None);
        clock.note(start + lease, 1_000_000);
        assert_eq!(clock.sound(start + lease, lease), None);
        assert!(clock.may_have_gone_back());
        clock.note(start + lease * 2, 1_030_000);
        assert_eq!(clock.sound(start + lease * 2, lease), Some(1_030_000));
        assert!(!clock.may_have_gone_back());
        clock.note(start + lease * 3, 1_000_000);
        assert!(clock.may_have_gone_back());
        clock.note(start + lease * 4, 2_000_000);
        assert!(!clock.may_have_gone_back(), "it went forward");
    }
}
