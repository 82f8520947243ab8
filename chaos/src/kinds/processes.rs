//! A publisher or a worker is killed, frozen, or told to end.

use std::time::Duration;

use async_trait::async_trait;
use fastrand::Rng;

use super::{About, Class, Kind};
use crate::crew::{Role, Slot};
use crate::load::Act;
use crate::site::{Site, slots};
use crate::worker::LEASE;
use crate::{Result, time};

/// How long a process may take to hold something.
const PATIENCE: Duration = Duration::from_secs(5);

/// Events that take a while and end in the dead letters, published before a worker is hit.
const REJECTS: u32 = 6;
/// In which they come to the workers.
const MOMENT: Duration = Duration::from_millis(150);

pub(super) fn kinds() -> Vec<Box<dyn Kind>> {
    let kind = |name, row, role, deed| -> Box<dyn Kind> {
        let slot = Slot { role, number: 0 };
        Box::new(Process { name, row, role, deed, slot, seen: 0 })
    };
    vec![
        kind("worker-killed", 40, Role::Worker, Deed::Kill),
        kind("worker-frozen", 41, Role::Worker, Deed::Freeze),
        kind("worker-drained", 40, Role::Worker, Deed::Terminate),
        kind("publisher-killed", 40, Role::Publisher, Deed::Kill),
        kind("publisher-frozen", 41, Role::Publisher, Deed::Freeze),
    ]
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Deed {
    Kill,
    Freeze,
    Terminate,
}

struct Process {
    name: &'static str,
    row: u8,
    role: Role,
    deed: Deed,
    slot: Slot,
    seen: u64,
}

#[async_trait]
impl Kind for Process {
    fn about(&self) -> About {
        let lease = u64::try_from(LEASE.as_millis()).expect("a few seconds");
        let lasts = match (self.deed, self.role) {
            // Past the lease, so that others take over.
            (Deed::Freeze, Role::Worker) => lease + 500..lease + 2_500,
            (Deed::Freeze, Role::Publisher) => 300..3_500,
            _ => 100..800,
        };
        About::new(self.name, self.row, Class::Worker, lasts)
    }

    async fn inject(&mut self, site: &mut Site, dice: &mut Rng) -> Result<()> {
        let slots = slots(self.role);
        self.slot = slots[dice.usize(..slots.len())];
        self.seen = match self.role {
            // Something is with it, or nobody would miss it; and not only what ends in an ack.
            Role::Worker => {
                site.order(Act::Reject, REJECTS).await?;
                site.pass(MOMENT).await?;
                busy(site, self.slot).await?
            }
            Role::Publisher => 1,
        };
        match self.deed {
            Deed::Kill => site.crew.kill(self.slot).await,
            Deed::Freeze => site.crew.freeze(self.slot),
            Deed::Terminate => {
                if !site.crew.terminate(self.slot).await? {
                    site.history.note(format!("{} did not end when it was told to", self.name));
                }
                Ok(())
            }
        }
    }

    async fn heal(&mut self, site: &mut Site) -> Result<u64> {
        match self.deed {
            Deed::Freeze => site.crew.thaw(self.slot)?,
            _ => site.crew.start(self.slot)?,
        }
        Ok(self.seen)
    }
}

/// Waits until a worker holds something; gives how much.
async fn busy(site: &mut Site, slot: Slot) -> Result<u64> {
    let until = time::now() + time::nanos(PATIENCE);
    let id = site.crew.id(slot)?;
    while time::now() < until {
        let held = site.holdings(id).await?;
        if held > 0 {
            return Ok(held);
        }
        site.pass(Duration::from_millis(5)).await?;
    }
    Ok(0)
}
