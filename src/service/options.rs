use std::time::Duration;

use super::RetryPolicy;
use crate::delivery::Start;
use crate::driver::LeaseTimes;
use crate::error::Error;

/// Who gets an event that several instances of a service subscribe to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Distribution {
    /// One of them: together they are a group, which the store keeps. At least once, across
    /// restarts. The default.
    #[default]
    Shared,
    /// Each of them, from the moment it subscribes until it ends; the store keeps nothing about
    /// it. For what every instance holds in memory: caches, settings, open connections.
    ///
    /// Within an instance's life every event comes, in the order per key. A handler that fails is
    /// called again in place, by [`ServiceOptions::retry`] (after its cap at the latest, whatever
    /// the handler asks for): what shares its lane waits meanwhile, so the order per key is kept.
    /// There are no dead letters: what is given up is logged and counted
    /// ([`Bus::broadcast_counts`](crate::Bus::broadcast_counts)), as is what cannot be read, has
    /// expired, or was trimmed from the log before this instance came to it. A handler cannot
    /// publish through its context, since every instance would publish the same.
    Broadcast,
}

/// How a service is run. Every queue and every wait has its limit here.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ServiceOptions {
    /// Who gets an event: one instance of the service, or each. What a service is, not how it is
    /// tuned: options for its name given to the bus do not change it.
    pub distribution: Distribution,
    /// How many events are handled at a time. Events of one key always take one lane. Default 8.
    pub lanes: usize,
    /// How many events wait in a lane. Default 64; as many are read ahead. Where handlers are fast
    /// and this is 64 at least, more are: what the lanes do in ten milliseconds, up to sixteen
    /// times what they hold otherwise.
    pub lane_depth: usize,
    /// Most bytes of events that are held. Default 64 MiB.
    pub in_flight_bytes_max: usize,
    /// How long a handler may take. Default 5 min; then it is cancelled and the event retried.
    pub handler_timeout: Duration,
    /// When a failed event is tried again.
    pub retry: RetryPolicy,
    /// How long finished events of a batch wait for the rest of it. Default 100 ms.
    pub settle_wait: Duration,
    /// Where the group begins when it is new. Default: with the earliest event kept. A broadcast
    /// always begins with what is new.
    pub start: Start,
    /// How long a silent instance keeps its events.
    pub lease: LeaseTimes,
    /// Whether a dead letter parks its key. Default: no.
    ///
    /// Then later events of the key wait, in order, until the letter is redriven or deleted; after
    /// a redrive they are run one by one, each when the one before it is handled. What waits is
    /// counted in [`GroupPartition::parked`](crate::driver::admin::GroupPartition::parked). It
    /// costs one question to the store per event with a key. All instances of a service say the
    /// same, and it has no batches. Turn it off only when nothing is parked.
    pub park_keys: bool,
}

impl Default for ServiceOptions {
    fn default() -> Self {
        Self {
            distribution: Distribution::Shared,
            lanes: 8,
            lane_depth: 64,
            in_flight_bytes_max: 64 << 20,
            handler_timeout: Duration::from_secs(300),
            retry: RetryPolicy::default(),
            settle_wait: Duration::from_millis(100),
            start: Start::Earliest,
            lease: LeaseTimes::default(),
            park_keys: false,
        }
    }
}

impl ServiceOptions {
    /// The defaults of a broadcast: [`Distribution::Broadcast`], and 8 attempts over about 12 s,
    /// since a lane waits while it tries again.
    pub fn broadcast() -> Self {
        let retry =
            RetryPolicy { attempts_max: 8, cap: Duration::from_secs(10), ..RetryPolicy::default() };
        Self { distribution: Distribution::Broadcast, retry, ..Self::default() }
    }

    /// Checks the values and their relations.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid), naming the value.
    pub fn check(&self) -> Result<(), Error> {
        let counts = [("lanes", self.lanes, 1_024), ("lane_depth", self.lane_depth, 65_536)];
        for (name, value, max) in counts {
            if value == 0 || value > max {
                return Err(Error::invalid(format!("{name} is {value}, 1 to {max} are possible")));
            }
        }
        if self.handler_timeout.is_zero() {
            return Err(Error::invalid("handler_timeout is zero: no handler could run"));
        }
        if self.settle_wait > self.lease.lease / 2 {
            let (wait, lease) = (self.settle_wait, self.lease.lease);
            let text = format!("settle_wait {wait:?} is more than half the lease {lease:?}");
            return Err(Error::invalid(text));
        }
        if self.distribution == Distribution::Broadcast
            && matches!(self.start, Start::After(_) | Start::At(_))
        {
            let text = format!("a broadcast cannot start at {:?}", self.start);
            return Err(Error::invalid(text).with_help("it always starts with what is new"));
        }
        if self.distribution == Distribution::Broadcast && self.park_keys {
            return Err(Error::invalid("a broadcast cannot park keys: it has no dead letters"));
        }
        self.retry.check()?;
        self.lease.check()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(change: impl FnOnce(&mut ServiceOptions)) -> Result<(), Error> {
        let mut options = ServiceOptions::default();
        change(&mut options);
        options.check()
    }

    #[test]
    fn the_defaults_hold_together() {
        assert!(check(|_| ()).is_ok());
        let broadcast = ServiceOptions::broadcast();
        assert!(broadcast.check().is_ok());
        assert_eq!(broadcast.distribution, Distribution::Broadcast);
        assert_eq!(broadcast.retry.to_string(), "8 attempts over about 12 s");
        assert_eq!(ServiceOptions::default().in_flight_bytes_max, 67_108_864);
    }

    #[test]
    fn the_limits_of_lanes_are_inclusive() {
        for good in [1, 1_024] {
            assert!(check(|options| options.lanes = good).is_ok(), "{good}");
        }
        for bad in [0, 1_025] {
            assert!(check(|options| options.lanes = bad).is_err(), "{bad}");
        }
        assert!(check(|options| options.lane_depth = 65_536).is_ok());
        assert!(check(|options| options.lane_depth = 65_537).is_err());
    }

    #[test]
    fn waits_fit_into_the_lease() {
        let half = ServiceOptions::default().lease.lease / 2;
        assert!(check(|options| options.settle_wait = half).is_ok());
        assert!(check(|options| options.settle_wait = half + Duration::from_millis(1)).is_err());
        assert!(check(|options| options.handler_timeout = Duration::ZERO).is_err());
        assert!(check(|options| options.lease.lease = Duration::ZERO).is_err());
        assert!(check(|options| options.retry.attempts_max = 0).is_err());
    }

    #[test]
    fn a_broadcast_begins_with_what_is_new_and_parks_nothing() {
        let starts = [Start::After(crate::delivery::EntryId::ZERO), Start::At(Default::default())];
        for start in starts {
            assert!(check(|options| options.start = start).is_ok(), "{start:?}");
            let broadcast = ServiceOptions { start, ..ServiceOptions::broadcast() };
            assert!(broadcast.check().is_err(), "{start:?}");
        }
        assert!(check(|options| options.park_keys = true).is_ok());
        let parking = ServiceOptions { park_keys: true, ..ServiceOptions::broadcast() };
        assert!(parking.check().is_err());
    }
}
