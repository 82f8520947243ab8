//! What a reader does about reads that fail: it makes groups again, and leaves out what cannot be
//! read until it can.

use std::time::Duration;

use redis::Pipeline;
use tokio::time::Instant;

use super::{FATAL_PAUSE, Reader};
use crate::delivery::Partition;
use crate::driver::monitor::ConnectionState;
use crate::driver::redis::connection::Backoff;
use crate::driver::redis::fault::{Fault, accept};
use crate::driver::redis::groups;
use crate::driver::redis::losses::Finder;

/// Behind every entry: of what a consumer holds nothing comes from here on. One more would be how
/// the server itself writes `>`.
const BEHIND_ALL: &str = "18446744073709551615-18446744073709551614";

/// A key that cannot be read, and why.
pub(super) struct Unusable {
    key: String,
    fault: Fault,
}

impl Reader {
    pub(super) fn recovered(&mut self) {
        // A reader that can read nothing is not well, though its connection is.
        self.watched.turn(match self.is_blocked {
            true => ConnectionState::EnsuringGroups,
            false => ConnectionState::Reading,
        });
        self.backoff = Backoff::new();
        if let Some(times) = self.trouble.over() {
            tracing::info!(consumer = self.member.consumer, "reading again{times}");
        }
    }

    /// Deals with a failed read; gives the pause before the next.
    pub(super) async fn suffer(&mut self, fault: Fault) -> Duration {
        let address = self.member.shared.connector.address();
        let group = &self.member.group;
        if fault.breaks_connection() {
            self.connection = None;
            drop(self.assigned.rides.depart());
            self.watched.turn(ConnectionState::Connecting);
        }
        self.watched.ail(&fault);
        if let Some(times) = self.trouble.failed() {
            tracing::warn!(%group, address, "reading failed, will go on: {fault}{times}");
        }
        match fault.code() {
            "NOGROUP" | "UNBLOCKED" => {
                self.watched.turn(ConnectionState::EnsuringGroups);
                let partitions = self.assigned.list();
                self.heal(&partitions).await;
            }
            "WRONGTYPE" | "NOPERM" => self.find_culprits().await,
            "NOAUTH" | "WRONGPASS" => {
                let what = format!("read for group {group}");
                let error = self.member.shared.commands.error(what, &fault);
                self.member.demand.meet();
                let _nobody = self.out.send(Err(error)).await;
                return FATAL_PAUSE;
            }
            _ => {}
        }
        self.backoff.next()
    }

    /// Makes groups again where they vanished. Where that is refused, the partition is left out,
    /// so that the others go on.
    pub(super) async fn heal(&mut self, partitions: &[Partition]) {
        let made = groups::again(&self.member, partitions).await;
        for (partition, fault) in self.member.tell("make groups again", made).unwrap_or_default() {
            let key = self.member.keys(&partition).log;
            self.leave_out(&partition, key, fault);
        }
    }

    fn leave_out(&mut self, partition: &Partition, key: String, fault: Fault) {
        if fault.is_passing() || fault.breaks_connection() {
            return;
        }
        let (shared, reason) = (&self.member.shared, format!("key {key}: {fault}"));
        shared.find_unusable(Finder::Reader, &self.member.group, partition, reason);
        self.unusable.insert(partition.clone(), Unusable { key, fault });
        self.probe_at = Instant::now() + FATAL_PAUSE;
    }

    /// The server does not say which of the streams it refuses: each is tried.
    async fn find_culprits(&mut self) {
        for partition in self.assigned.list() {
            match self.probe(&partition).await {
                Err(Unusable { key, fault })
                    if !matches!(fault.code(), "NOGROUP" | "UNBLOCKED") =>
                {
                    self.leave_out(&partition, key, fault);
                }
                _ => {}
            }
        }
    }

    /// Tells the source once that nothing can be read here any more.
    pub(super) async fn tell_blocked(&mut self) {
        let Some(Unusable { fault, .. }) = self.unusable.values().next() else { return };
        if self.is_blocked {
            return;
        }
        let keys: Vec<&str> = self.unusable.values().map(|one| one.key.as_str()).collect();
        let what = format!("read for group {} from key {}", self.member.group, keys.join(", "));
        let error = self.member.shared.commands.error(what, fault);
        self.is_blocked = true;
        self.member.demand.meet();
        let _nobody = self.out.send(Err(error)).await;
    }

    /// The partitions that can be read; now and then those that could not are tried again.
    pub(super) async fn usable(&mut self, all: Vec<Partition>) -> Result<Vec<Partition>, Fault> {
        if !self.unusable.is_empty() && Instant::now() >= self.probe_at {
            self.probe_at = Instant::now() + FATAL_PAUSE;
            let unusable: Vec<Partition> = self.unusable.keys().cloned().collect();
            self.heal(&unusable).await;
            for partition in unusable {
                match self.probe(&partition).await {
                    Ok(()) => {
                        self.unusable.remove(&partition);
                        self.is_blocked = false;
                        self.member.shared.find_usable(
                            Finder::Reader,
                            &self.member.group,
                            &partition,
                        );
                    }
                    Err(one) if one.fault.breaks_connection() => return Err(one.fault),
                    Err(_) => {}
                }
            }
        }
        Ok(all.into_iter().filter(|own| !self.unusable.contains_key(own)).collect())
    }

    /// Reads nothing from both streams of a partition: that asks for the same rights, types and
    /// groups as a read, and hands out no entry.
    async fn probe(&self, partition: &Partition) -> Result<(), Unusable> {
        let keys = self.member.keys(partition);
        for key in [keys.log, keys.retry] {
            let mut pipeline = Pipeline::new();
            pipeline.cmd("XREADGROUP").arg("GROUP").arg(self.member.group.as_str());
            pipeline.arg(&self.member.consumer).arg("COUNT").arg(1);
            pipeline.arg("STREAMS").arg(&key).arg(BEHIND_ALL);
            let answers = self.send_all(&pipeline).await;
            let read = answers.and_then(|mut answers| accept(answers.pop().unwrap_or_default()));
            if let Err(fault) = read {
                return Err(Unusable { key, fault });
            }
        }
        Ok(())
    }
}
