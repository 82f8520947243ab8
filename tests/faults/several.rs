//! Faults that overlap, chosen by chance: the next begins before the one before is healed. Three
//! partitions, and two instances that read.

use std::time::Duration;

use tokio::time::Instant;

use crate::fault::drive::{Case, Stage, drive};
use crate::fault::load::{GROUP, LOG, Load, connect, partitions};
use crate::fault::{asked, hold};
use crate::server::Server;
use crate::{SETTLE, XADD, XREADGROUP};

/// Troubles of one round.
const AT_ONCE: usize = 3;

/// In the order in which they begin; they end in the opposite one, so that an operator's command
/// finds a server that answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Trouble {
    GroupGone,
    ScriptsGone,
    ClientsGone,
    Replica,
    AppendLost,
    ReadLost,
    SettlementLost,
    Slow,
    AnswersSwallowed,
    BlackHole,
    Refused,
    Stopped,
    Killed,
}

const TROUBLES: [Trouble; 13] = [
    Trouble::GroupGone,
    Trouble::ScriptsGone,
    Trouble::ClientsGone,
    Trouble::Replica,
    Trouble::AppendLost,
    Trouble::ReadLost,
    Trouble::SettlementLost,
    Trouble::Slow,
    Trouble::AnswersSwallowed,
    Trouble::BlackHole,
    Trouble::Refused,
    Trouble::Stopped,
    Trouble::Killed,
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_faults_overlap() {
    let chance = usize::try_from(fastrand::u32(1..)).expect("it fits");
    let seed = asked("RUMORMILL_FAULT_SEED", chance);
    let mut random = fastrand::Rng::with_seed(seed as u64);
    println!("RUMORMILL_FAULT_SEED={seed}");
    let stage = Stage::new(Server::durable()).await;
    let url = stage.proxy.url();
    partitions(&url, 3).await;
    let mut load = Load::start(&url).await;
    load.join(connect(&url).await).await;
    drive(Case::new(29, "several at once"), stage, load, async |stage| {
        let mut troubles = random.choose_multiple(TROUBLES, AT_ONCE);
        troubles.sort_unstable();
        println!("{troubles:?}");
        for trouble in &troubles {
            trouble.begin(stage);
            hold(Duration::from_millis(random.u64(..1_500))).await;
        }
        for trouble in troubles.iter().rev() {
            trouble.end(stage).await;
            hold(Duration::from_millis(random.u64(..300))).await;
        }
        Instant::now()
    })
    .await;
}

impl Trouble {
    fn begin(self, stage: &mut Stage) {
        match self {
            Self::GroupGone => stage.say(&format!("XGROUP DESTROY {LOG} {GROUP}")),
            Self::ScriptsGone => stage.say("SCRIPT FLUSH"),
            Self::ClientsGone => stage.say("CLIENT KILL TYPE normal"),
            Self::Replica => stage.say("REPLICAOF 127.0.0.1 1"),
            Self::AppendLost => stage.proxy.lose(XADD, "", 2),
            Self::ReadLost => stage.proxy.lose(XREADGROUP, "faults:0", 2),
            Self::SettlementLost => stage.proxy.lose(SETTLE, "", 2),
            Self::Slow => stage.proxy.delay(Duration::from_millis(100)),
            Self::AnswersSwallowed => stage.proxy.swallow_answers(),
            Self::BlackHole => stage.proxy.black_hole(),
            Self::Refused => stage.proxy.refuse(),
            Self::Stopped => stage.server.pause(),
            Self::Killed => stage.block(Server::kill),
        }
    }

    async fn end(self, stage: &mut Stage) {
        match self {
            Self::Killed => stage.restart(&[]).await,
            Self::Stopped => stage.server.resume(),
            Self::Refused | Self::BlackHole | Self::AnswersSwallowed | Self::Slow => {
                stage.proxy.pass();
            }
            Self::AppendLost | Self::ReadLost | Self::SettlementLost => {
                stage.proxy.lose("", "", 0);
            }
            Self::Replica => stage.say("REPLICAOF NO ONE"),
            Self::GroupGone | Self::ScriptsGone | Self::ClientsGone => {}
        }
    }
}
