//! What may fail, and how likely.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A thing that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Fault {
    /// A declaration fails; it did nothing.
    DeclareFailed,
    /// A subscription fails; it did nothing.
    SubscribeFailed,
    /// A subscription fails; the consumer was there, and is gone.
    SubscribeAnswerLost,
    /// An append is refused: certainly not stored.
    AppendRefused,
    /// An append whose outcome is unknown; it is not stored.
    AppendUnknown,
    /// An append whose outcome is unknown; it is stored.
    AppendAnswerLost,
    /// A settlement fails; it was not applied.
    SettleFailed,
    /// A settlement fails; it was applied.
    SettleAnswerLost,
    /// The note that a suspect runs fails; it was not taken.
    BeginFailed,
    /// The note that a suspect runs fails; it was taken.
    BeginAnswerLost,
    /// The question whether a key is parked, or what was handled before, fails.
    AskFailed,
    /// A read fails; nothing was read.
    FetchFailed,
    /// What was read comes late, its leases running meanwhile.
    FetchLate,
    /// A call takes its time, before or after it does what it does.
    Delay,
    /// The store stands still for a while: every call waits.
    Stall,
    /// The consumer is taken for dead while it lives: what it holds goes to others after the
    /// lease, and it comes back as another. Chance says how likely within
    /// [`FaultOptions::lapse_within`].
    Lapse,
    /// A lapse of which the consumer hears at once: the leases are cancelled.
    LapseNoticed,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 17] = [
        Self::DeclareFailed,
        Self::SubscribeFailed,
        Self::SubscribeAnswerLost,
        Self::AppendRefused,
        Self::AppendUnknown,
        Self::AppendAnswerLost,
        Self::SettleFailed,
        Self::SettleAnswerLost,
        Self::BeginFailed,
        Self::BeginAnswerLost,
        Self::AskFailed,
        Self::FetchFailed,
        Self::FetchLate,
        Self::Delay,
        Self::Stall,
        Self::Lapse,
        Self::LapseNoticed,
    ];
}

/// Hears of each fault when it is done.
pub type Observer = Arc<dyn Fn(Fault) + Send + Sync>;

/// How a [`FaultDriver`](super::FaultDriver) fails.
#[derive(Clone)]
#[must_use]
pub struct FaultOptions {
    /// What all chance comes from.
    pub seed: u64,
    /// How likely each fault is where it may happen, 0 to 1; what is not there does not happen.
    pub chances: BTreeMap<Fault, f64>,
    /// The longest [`Fault::Delay`]. Default 50 ms.
    pub delay_max: Duration,
    /// The longest [`Fault::Stall`], and the latest [`Fault::FetchLate`]. Default 3 s.
    pub stall_max: Duration,
    /// The time within which a [`Fault::Lapse`] has its chance. Default 10 s.
    pub lapse_within: Duration,
    /// The longest time until who lapsed comes back. Default 60 s: twice the default lease.
    pub lapse_max: Duration,
    /// Who hears of each fault.
    pub observer: Option<Observer>,
}

impl FaultOptions {
    /// No fault, until [`chance`](FaultOptions::chance) names one.
    pub fn quiet(seed: u64) -> Self {
        Self {
            seed,
            chances: BTreeMap::new(),
            delay_max: Duration::from_millis(50),
            stall_max: Duration::from_secs(3),
            lapse_within: Duration::from_secs(10),
            lapse_max: Duration::from_secs(60),
            observer: None,
        }
    }

    /// Every fault, 1 in 20; a call in three is delayed, and one in a hundred begins a stall.
    pub fn stormy(seed: u64) -> Self {
        let all = Fault::ALL.into_iter();
        let stormy = all.fold(Self::quiet(seed), |options, fault| options.chance(fault, 0.05));
        stormy.chance(Fault::Delay, 0.33).chance(Fault::Stall, 0.01)
    }

    /// How likely a fault is.
    pub fn chance(mut self, fault: Fault, chance: f64) -> Self {
        self.chances.insert(fault, chance);
        self
    }

    /// Tells `observer` of each fault.
    pub fn observer(mut self, observer: impl Fn(Fault) + Send + Sync + 'static) -> Self {
        self.observer = Some(Arc::new(observer));
        self
    }
}

impl fmt::Debug for FaultOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultOptions")
            .field("seed", &self.seed)
            .field("chances", &self.chances)
            .finish_non_exhaustive()
    }
}
