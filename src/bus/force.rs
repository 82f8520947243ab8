//! A drain that somebody may cut short.

use std::future::Future;
use std::time::Duration;

use super::{Bus, Running};
use crate::worker::{DrainReport, Switch};

impl Bus {
    /// As [`drain`](Bus::drain); when `force` is ready before it is done, what still runs is
    /// cancelled at once, as if the deadline had passed, and handed over with the rest. For a
    /// second ctrl-c.
    pub async fn drain_or_force(
        &self,
        deadline: Duration,
        force: impl Future<Output = ()>,
    ) -> DrainReport {
        let switches = self.kill_switches();
        let drain = self.drain(deadline);
        tokio::pin!(drain);
        tokio::select! {
            biased;
            report = &mut drain => return report,
            () = force => {}
        }
        for switch in switches {
            switch.throw();
        }
        drain.await
    }

    fn kill_switches(&self) -> Vec<Switch> {
        let running = self.running();
        let switches = running.values().filter_map(|running| match running {
            Running::Worker(worker, ..) => Some(worker.kill_switch()),
            _ => None,
        });
        switches.collect()
    }
}
