//! The rounds of renewals of a subscription: they wait for nothing but their own commands.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};

use super::member::Member;
use super::renew::renew;

/// After this a renewal that failed is tried again.
pub(super) const RETRY_AFTER: Duration = Duration::from_millis(200);

/// Renews what is in flight, and says that the consumer lives.
#[derive(Clone)]
pub(super) struct Renewals {
    member: Arc<Member>,
    asked: Arc<Notify>,
    last: watch::Sender<Round>,
}

/// What is known of the rounds that ended.
#[derive(Clone, Copy)]
struct Round {
    /// When the last one began.
    began: Instant,
    /// Whether it did all it should.
    is_sound: bool,
    /// When the last one began that did.
    sound: Instant,
}

impl Renewals {
    /// Nothing is in flight yet, so now all is well.
    pub(super) fn new(member: Arc<Member>) -> Self {
        let began = Instant::now();
        let (last, _) = watch::channel(Round { began, is_sound: true, sound: began });
        Self { member, asked: Arc::default(), last }
    }

    /// Goes on until it is dropped.
    pub(super) async fn run(&self) {
        let mut next = Instant::now() + self.member.lease.renew;
        loop {
            tokio::select! {
                () = sleep_until(next) => {}
                () = self.asked.notified() => {}
            }
            let troubles = &self.member.shared.troubles;
            let round = troubles.guard("keep the leases of a group", self.round()).await;
            let renew = self.member.lease.renew;
            let is_sound = round.unwrap_or(false);
            next = Instant::now() + if is_sound { renew } else { renew.min(RETRY_AFTER) };
        }
    }

    /// True where the leases are renewed, and the consumer is known to live.
    async fn round(&self) -> bool {
        let began = Instant::now();
        let is_sound = renew(&self.member).await;
        self.last.send_modify(|last| {
            let sound = if is_sound { began } else { last.sound };
            *last = Round { began, is_sound, sound };
        });
        let beaten = self.member.beat().await;
        self.member.tell("say that a consumer lives", beaten).is_some() && is_sound
    }

    /// Has a round that begins from now on, and waits for its end; false where it failed.
    pub(super) async fn now(&self) -> bool {
        let (asked, mut rounds) = (Instant::now(), self.last.subscribe());
        self.asked.notify_one();
        let round = rounds.wait_for(|round| round.began >= asked).await;
        round.is_ok_and(|round| round.is_sound)
    }

    /// Whether a search may come to what is our own: it claims what nobody renewed for a lease, and
    /// where all is slow it is long under way.
    pub(super) fn are_late(&self) -> bool {
        self.last.borrow().sound.elapsed() > self.member.lease.lease / 4
    }
}
