//! A bus that waits: 50 groups, which route 100,000 event types.

use rumormill::{Bus, GroupSubscription, Routes, Services};
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::measure::{now_ns, own_memory_kib};

const GROUPS: usize = 50;
const TYPES_OF_GROUP: usize = 2_000;
/// Types share topics, as types of a domain do.
const TOPICS: usize = 50;

/// What it takes.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Idle {
    /// From the first subscription to the last one's return.
    pub(crate) seconds: f64,
    /// Resident when all stand.
    pub(crate) megabytes: f64,
}

#[derive(clap::Args)]
pub(crate) struct IdleArgs {
    /// `memory:` or a Redis
    url: String,
}

impl IdleArgs {
    pub(crate) fn run(self) -> Result<(), Error> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let idle = runtime.block_on(stand(&self.url))?;
        println!("{}", serde_json::to_string(&idle)?);
        std::process::exit(0);
    }
}

async fn stand(url: &str) -> Result<Idle, Error> {
    let began = now_ns();
    let bus = Bus::builder().url(url).services(Services::none()).build().await?;
    let subscription = |group: usize| {
        GroupSubscription::new(format!("group{group}"), |mut routes: Routes<()>| {
            for number in 0..TYPES_OF_GROUP {
                let topic = (group * TYPES_OF_GROUP + number) % TOPICS;
                let name = format!("domain{topic}.group{group}.thing{number}");
                routes = routes.on_any_fn(&name, |_, _| async { Ok(()) });
            }
            routes
        })
    };
    bus.subscribe_many((0..GROUPS).map(subscription)).await?;
    let seconds = (now_ns() - began) as f64 / 1e9;
    Ok(Idle { seconds, megabytes: own_memory_kib("VmRSS") as f64 * 1024.0 / 1e6 })
}
