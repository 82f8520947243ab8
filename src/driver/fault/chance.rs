//! The one generator, what was done with it, and the end of the process.

use std::collections::BTreeMap;
use std::future::{Future, pending};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{Fault, FaultOptions};

pub(super) struct Chance {
    options: FaultOptions,
    state: Mutex<State>,
    crashed: CancellationToken,
}

struct State {
    random: fastrand::Rng,
    calm: bool,
    stalled_until: Option<Instant>,
    injected: BTreeMap<Fault, u64>,
}

impl Chance {
    pub(super) fn new(options: FaultOptions) -> Self {
        let random = fastrand::Rng::with_seed(options.seed);
        let state = State { random, calm: false, stalled_until: None, injected: BTreeMap::new() };
        Self { options, state: Mutex::new(state), crashed: CancellationToken::new() }
    }

    /// Draws whether a fault is done now.
    pub(super) fn strikes(&self, fault: Fault) -> bool {
        let Some(chance) = self.options.chances.get(&fault).copied() else { return false };
        let mut state = self.state();
        // Drawn in any case: a calm that begins a moment later leaves the rest as it was.
        let strikes = state.random.f64() < chance && !state.calm;
        if strikes {
            *state.injected.entry(fault).or_default() += 1;
        }
        drop(state);
        if let Some(observer) = self.options.observer.as_ref().filter(|_| strikes) {
            observer(fault);
        }
        strikes
    }

    /// Draws which of several faults is done, if any.
    pub(super) fn one_of(&self, faults: &[Fault]) -> Option<Fault> {
        faults.iter().copied().find(|fault| self.strikes(*fault))
    }

    fn moment_within(&self, longest: Duration) -> Instant {
        Instant::now() + longest.mul_f64(self.state().random.f64())
    }

    /// What delays a call before it does anything.
    pub(super) async fn before(&self) {
        if self.strikes(Fault::Stall) {
            let until = self.moment_within(self.options.stall_max);
            self.state().stalled_until = Some(until);
        }
        self.stalled().await;
        self.delay().await;
    }

    /// What delays the answer of a call that did what it does.
    pub(super) async fn after(&self) {
        self.delay().await;
        self.stalled().await;
    }

    async fn delay(&self) {
        if self.strikes(Fault::Delay) {
            sleep_until(self.moment_within(self.options.delay_max)).await;
        }
    }

    /// Waits while the store stands still.
    async fn stalled(&self) {
        while let Some(until) = self.stalled_until() {
            sleep_until(until).await;
        }
    }

    fn stalled_until(&self) -> Option<Instant> {
        self.state().stalled_until.filter(|until| *until > Instant::now())
    }

    /// When what was read comes, where it comes late.
    pub(super) fn late(&self) -> Option<Instant> {
        let late = self.strikes(Fault::FetchLate);
        late.then(|| self.moment_within(self.options.stall_max))
    }

    /// When a consumer is next looked at for a lapse.
    pub(super) fn lapse_look(&self) -> Option<Instant> {
        let lapses = [Fault::Lapse, Fault::LapseNoticed];
        let may = lapses.iter().any(|fault| self.options.chances.contains_key(fault));
        may.then(|| self.moment_within(self.options.lapse_within))
    }

    /// When who lapses now comes back.
    pub(super) fn comeback(&self) -> Instant {
        self.moment_within(self.options.lapse_max)
    }

    pub(super) fn set_calm(&self, calm: bool) {
        self.state().calm = calm;
    }

    pub(super) fn injected(&self) -> BTreeMap<Fault, u64> {
        self.state().injected.clone()
    }

    pub(super) fn crash(&self) {
        self.crashed.cancel();
    }

    pub(super) fn is_crashed(&self) -> bool {
        self.crashed.is_cancelled()
    }

    /// A call of a process that may crash under way: then it goes no further, and there is nobody
    /// to answer.
    pub(super) async fn alive<F: Future>(&self, call: F) -> F::Output {
        tokio::select! {
            biased;
            () = self.crashed.cancelled() => pending().await,
            answer = call => answer,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
