//! The course of a world: processes come, crash, drain and come back; events are published; letters
//! are redriven; at last all is calm, and what is left is handled.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use fastrand::Rng;
use futures_util::future::join_all;
use rumormill::driver::fault::{FaultDriver, FaultOptions};
use rumormill::driver::memory::{MemoryDriver, MemoryOptions};
use rumormill::driver::{Driver, GroupName, Publish, Tools};
use rumormill::{Bus, Clock, Context, Envelope, Timestamp};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::handlers::{Stage, subscription};
use crate::history::{Fact, History, Process, key_of, name_of};
use crate::plan::{DELAY_MAX, GroupPlan, Plan};
use crate::publisher::publish_all;
use crate::recorder::Recorder;

/// A world that is not done by then never will be.
const PATIENCE: Duration = Duration::from_secs(3_600);

/// A wall clock that goes with paused time: the runtime's begins at zero in each world.
struct PausedClock(Instant);

pub const BEGINNING: Timestamp = Timestamp::from_millis(1_767_323_045_000);

impl Clock for PausedClock {
    fn now(&self) -> Timestamp {
        BEGINNING.plus(self.0.elapsed())
    }
}

thread_local! {
    static ORIGIN: std::cell::Cell<Option<Instant>> = const { std::cell::Cell::new(None) };
}

/// The wall clock of the world that this thread runs.
pub fn now() -> Timestamp {
    let origin = ORIGIN.get().expect("a world runs");
    BEGINNING.plus(origin.elapsed())
}

pub struct World {
    pub plan: Arc<Plan>,
    pub history: History,
    pub store: Arc<MemoryDriver>,
    clock: Arc<dyn Clock>,
    processes: AtomicU32,
    runs: Arc<AtomicU64>,
}

/// One life of a process.
pub struct Life {
    pub stage: Arc<Stage>,
    pub bus: Bus,
}

impl World {
    pub fn new(seed: u64) -> Arc<Self> {
        rumormill::testing::seed(seed);
        let origin = Instant::now();
        ORIGIN.set(Some(origin));
        let plan = Arc::new(Plan::new(seed));
        let clock: Arc<dyn Clock> = Arc::new(PausedClock(origin));
        let store = MemoryDriver::new(MemoryOptions {
            partitions: plan.partitions,
            clock: Arc::clone(&clock),
            ..MemoryOptions::default()
        });
        let (processes, runs) = (AtomicU32::new(0), Arc::default());
        Arc::new(Self { plan, history: History::new(), store, clock, processes, runs })
    }

    /// A process begins, with what the store does to it.
    pub async fn life(&self, faults: FaultOptions) -> Life {
        let process: Process = self.processes.fetch_add(1, Ordering::Relaxed) + 1;
        self.history.note(Fact::Started(process));
        let history = self.history.clone();
        let faults = faults.observer(move |fault| history.note(Fact::Fault(process, fault)));
        let (store, history) = (self.store.client(), self.history.clone());
        let driver = FaultDriver::new(Arc::new(Recorder { store, history, process }), faults);
        let stage = Arc::new(Stage {
            plan: Arc::clone(&self.plan),
            history: self.history.clone(),
            process,
            driver: Arc::clone(&driver),
            dead: CancellationToken::new(),
            runs: Arc::clone(&self.runs),
        });
        let bus = Bus::builder().driver(driver).clock(Arc::clone(&self.clock));
        let bus = bus.services(rumormill::Services::none()).build().await;
        Life { stage, bus: bus.expect("a bus on a driver of its own") }
    }

    /// Runs everything; true where it came to its end.
    pub async fn run(self: &Arc<Self>) -> bool {
        let mut random = Rng::with_seed(self.plan.seed ^ 0x77);
        let end = Instant::now() + self.plan.horizon;
        let slots = (0..self.plan.slots).map(|_| random.u64(..));
        let slots = slots.map(|seed| tokio::spawn(Arc::clone(self).slot(seed, end)));
        let slots: Vec<_> = slots.collect();
        let publishers = (0..self.plan.publications.len()).map(|number| {
            let seed = random.u64(..);
            tokio::spawn(publish_all(Arc::clone(self), number, seed))
        });
        let publishers: Vec<_> = publishers.collect();
        let operator = tokio::spawn(Arc::clone(self).operate(random.u64(..), end));
        for task in slots.into_iter().chain(publishers).chain([operator]) {
            task.await.expect("the tasks of a world do not panic");
        }
        self.calm_down().await
    }

    /// One place where processes run, one after the other.
    async fn slot(self: Arc<Self>, seed: u64, end: Instant) {
        let mut random = Rng::with_seed(seed);
        while Instant::now() < end {
            let life = self.life(self.plan.faults(&mut random)).await;
            let until = Instant::now() + Duration::from_millis(random.u64(200..12_000));
            self.live(&life, &mut random, until.min(end)).await;
            if !life.stage.dead.is_cancelled() {
                die(&life, &mut random).await;
            }
            // waits: until the next process comes, on paused time
            sleep(Duration::from_millis(random.u64(0..2_000))).await;
        }
    }

    async fn live(&self, life: &Life, random: &mut Rng, until: Instant) {
        let groups = self.plan.groups.iter().filter(|_| random.u32(0..5) > 0);
        let groups: Vec<_> = groups.collect();
        let leaves = groups.first().copied().filter(|_| random.u32(0..4) == 0);
        let course = async {
            if self.plan.broadcasts {
                listen(life).await;
            }
            for group in groups {
                subscribe(life, group).await;
            }
            if let Some(group) = leaves {
                // waits: until the process gives a group up, on paused time
                sleep(Duration::from_millis(random.u64(0..3_000))).await;
                let deadline = Duration::from_millis(random.u64(0..3_000));
                life.stage.history.note(Fact::Unsubscribing(life.stage.process, group.name));
                life.bus.unsubscribe(group.name, deadline).await.expect("it is subscribed");
                life.stage.history.note(Fact::Unsubscribed(life.stage.process, group.name));
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            biased;
            () = life.stage.dead.cancelled() => {}
            () = sleep_until(until) => {}
            () = course => {}
        }
    }

    /// What people do: redrive and purge dead letters, write what is no event.
    async fn operate(self: Arc<Self>, seed: u64, end: Instant) {
        let mut random = Rng::with_seed(seed);
        let mut foreign = self.plan.foreign;
        while self.plan.redrives || foreign {
            // waits: until somebody does something, on paused time
            sleep(Duration::from_millis(random.u64(500..6_000))).await;
            if Instant::now() >= end {
                return;
            }
            if std::mem::take(&mut foreign) {
                self.store.declare(&"shop".parse().expect("a topic")).await.expect("a topic");
                let partition = "shop:0".parse().expect("a partition");
                let field = ("what".into(), "is this".into());
                self.store.append_foreign(&partition, vec![field]).expect("it is declared");
            }
            if self.plan.redrives {
                self.deal_with_letters(&mut random).await;
            }
        }
    }

    async fn deal_with_letters(&self, random: &mut Rng) {
        let admin = self.store.admin().expect("memory has it");
        for GroupPlan { name, .. } in &self.plan.groups {
            let group = GroupName::new(*name).expect("a name");
            for letter in self.store.dead_letters(&group, 100).await.expect("letters") {
                let (ids, partition) = ([letter.id], &letter.origin.partition);
                match random.u32(0..6) {
                    0 | 1 if letter.record.is_ok() => {
                        self.history.note(Fact::Redriven(name, letter.origin.clone()));
                        admin.redrive(&group, partition, &ids).await.expect("it is there");
                    }
                    2 => {
                        self.history.note(Fact::Purged(name, letter.origin.clone()));
                        admin.purge(&group, partition, &ids).await.expect("it is there");
                    }
                    _ => {}
                }
            }
        }
    }

    /// Healthy processes handle what is left.
    async fn calm_down(&self) -> bool {
        let calm = async {
            loop {
                let life = self.life(FaultOptions::quiet(0)).await;
                for group in &self.plan.groups {
                    subscribe(&life, group).await;
                }
                tokio::select! {
                    biased;
                    () = life.stage.dead.cancelled() => {}
                    () = self.settled() => {
                        for group in &self.plan.groups {
                            let counts = life.bus.counts(group.name);
                            let process = life.stage.process;
                            self.history.note(Fact::Counted(process, group.name, counts));
                        }
                        drain(&life, Duration::from_secs(30)).await;
                        return;
                    }
                }
            }
        };
        timeout(PATIENCE, calm).await.is_ok()
    }

    async fn settled(&self) {
        let groups = self.plan.groups.iter();
        let names: Vec<_> = groups.map(|own| GroupName::new(own.name).expect("a name")).collect();
        // waits: for what was published for later, on paused time
        sleep(DELAY_MAX).await;
        loop {
            let backlogs = join_all(names.iter().map(|name| self.store.backlog(name))).await;
            let mut backlogs = backlogs.into_iter().map(|backlog| backlog.expect("a backlog"));
            if backlogs.all(|backlog| backlog.is_settled()) {
                return;
            }
            // waits: for the groups to have nothing left, on paused time
            sleep(Duration::from_millis(500)).await;
        }
    }
}

/// Subscribes until the store lets it.
async fn subscribe(life: &Life, group: &GroupPlan) {
    while life.bus.subscribe_many([subscription(&life.stage, group)]).await.is_err() {
        // waits: to try again, on paused time
        sleep(Duration::from_millis(200)).await;
    }
    life.stage.history.note(Fact::Subscribed(life.stage.process, group.name));
}

/// Subscribes a broadcast, of which only this process' life matters.
async fn listen(life: &Life) {
    let stage = Arc::clone(&life.stage);
    let hears = move |envelope: Envelope, ctx: Context| {
        let (name, key) = (name_of(&envelope), key_of(&envelope));
        if !stage.dead.is_cancelled() {
            stage.history.note(Fact::Heard(stage.process, name, key, ctx.position()));
        }
        std::future::ready(Ok(()))
    };
    life.bus.broadcast_any("news", ">", hears).await.expect("nothing fails here");
    life.stage.history.note(Fact::Listening(life.stage.process));
}

async fn drain(life: &Life, deadline: Duration) {
    let Stage { history, process, .. } = &*life.stage;
    history.note(Fact::Draining(*process));
    let report = life.bus.drain(deadline).await;
    history.note(Fact::Drained(*process, report));
}

/// A process ends: it drains, or crashes, or crashes while it drains.
async fn die(life: &Life, random: &mut Rng) {
    let deadline = Duration::from_millis(random.u64(0..5_000));
    let crashes = Duration::from_millis(random.u64(0..4_000));
    match random.u32(0..5) {
        0 | 1 => life.stage.crash(),
        2 => {
            let drained = timeout(crashes, drain(life, deadline)).await;
            if drained.is_err() {
                life.stage.crash();
            }
        }
        _ => tokio::select! {
            biased;
            () = life.stage.dead.cancelled() => {}
            () = drain(life, deadline) => {}
        },
    }
}
