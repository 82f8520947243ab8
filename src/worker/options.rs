use std::time::Duration;

use super::RetryPolicy;
use crate::delivery::Start;
use crate::driver::LeaseTimes;
use crate::error::Error;

/// How a service is run. Every queue and every wait has its limit here.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ServiceOptions {
    /// How many events are handled at a time. Events of one key always take one lane. Default 8.
    pub lanes: usize,
    /// How many events wait in a lane. Default 64; as many are read ahead.
    pub lane_depth: usize,
    /// Most bytes of events that are held. Default 64 MiB.
    pub in_flight_bytes_max: usize,
    /// How long a handler may take. Default 5 min; then it is cancelled and the event retried.
    pub handler_timeout: Duration,
    /// When a failed event is tried again.
    pub retry: RetryPolicy,
    /// How long finished events of a batch wait for the rest of it. Default 100 ms.
    pub settle_wait: Duration,
    /// Where the group begins when it is new. Default: with the earliest event kept.
    pub start: Start,
    /// How long a silent instance keeps its events.
    pub lease: LeaseTimes,
}

impl Default for ServiceOptions {
    fn default() -> Self {
        Self {
            lanes: 8,
            lane_depth: 64,
            in_flight_bytes_max: 64 << 20,
            handler_timeout: Duration::from_secs(300),
            retry: RetryPolicy::default(),
            settle_wait: Duration::from_millis(100),
            start: Start::Earliest,
            lease: LeaseTimes::default(),
        }
    }
}

impl ServiceOptions {
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
        self.retry.check()?;
        self.lease.check()
    }
}
