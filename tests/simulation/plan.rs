//! What a seed means: the groups, what is published, what the handlers do, and what befalls the
//! processes.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use fastrand::Rng;
use rumormill::driver::LeaseTimes;
use rumormill::driver::fault::{Fault, FaultOptions};
use rumormill::{BatchOptions, RetryPolicy, ServiceOptions};

/// The lease of every consumer: short, so that worlds are.
pub const LEASE: LeaseTimes = LeaseTimes {
    lease: Duration::from_secs(4),
    renew: Duration::from_secs(1),
    sweep: Duration::from_secs(1),
};

/// The longest delay of a publication.
pub const DELAY_MAX: Duration = Duration::from_secs(5);

/// The groups that a world may have.
const GROUPS: [&str; 4] = ["stock", "ledger", "letters", "audit"];

pub struct Plan {
    pub seed: u64,
    pub partitions: u32,
    pub groups: Vec<GroupPlan>,
    /// By publisher, in its order.
    pub publications: Vec<Vec<Publication>>,
    /// How many processes run at a time.
    pub slots: usize,
    /// When nothing fails any more.
    pub horizon: Duration,
    /// How often what may fail does: 0 never.
    pub storm: f64,
    /// The group in which an event kills its process each time it is run, and the event.
    pub killer: Option<(&'static str, String)>,
    pub foreign: bool,
    pub redrives: bool,
    /// Each process listens to everything as well.
    pub broadcasts: bool,
}

#[derive(Clone)]
pub struct GroupPlan {
    pub name: &'static str,
    pub kind: Kind,
    pub options: ServiceOptions,
    /// Only events whose key begins with this pass.
    pub key_prefix: Option<&'static str>,
    pub deduplicates: bool,
    pub idempotent: bool,
    pub concurrency: Option<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Orders and notes, each with a handler.
    Typed,
    /// Everything there is, whatever it is called.
    Any,
    /// Orders, several at a time; notes one by one.
    Batch(BatchOptions),
}

#[derive(Clone)]
pub struct Publication {
    pub name: String,
    pub pause: Duration,
    pub what: What,
    pub key: Option<&'static str>,
    pub delay: Option<Duration>,
    pub expires: Option<Duration>,
    /// Again with the same id until it is stored.
    pub deduplicate: bool,
    /// Two times with one id, which only who handles once notices.
    pub twice: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum What {
    Order,
    Note,
    /// What only who takes everything routes.
    Odd,
}

/// What a handler does with an event at an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    Handle { after: Duration, outputs: u32 },
    Fail { after: Duration },
    FailUntil(Duration),
    Reject,
    Panic,
    Kill,
}

pub fn group_name(name: &str) -> &'static str {
    GROUPS.into_iter().find(|known| *known == name).expect("a group of the plan")
}

fn millis(random: &mut Rng, most: u64) -> Duration {
    Duration::from_millis(random.u64(0..=most))
}

fn random_within(random: &mut Rng, most: Duration) -> Duration {
    most.mul_f64(random.f64())
}

fn one_in(random: &mut Rng, times: u32) -> bool {
    random.u32(0..times) == 0
}

impl Plan {
    pub fn new(seed: u64) -> Self {
        let mut random = Rng::with_seed(seed ^ 0x7275_6d6f_7572);
        let random = &mut random;
        let groups = groups(random);
        let events = if one_in(random, 8) { 24 } else { random.usize(3..12) };
        let publishers = random.usize(1..=2);
        let publications = (0..publishers).map(|number| publications(random, number, events));
        let publications: Vec<_> = publications.collect();
        let killer = one_in(random, 8).then(|| {
            let group = &groups[random.usize(..groups.len())];
            let publication = &publications[0][random.usize(..publications[0].len())];
            (group.name, publication.name.clone())
        });
        Self {
            seed,
            partitions: random.u32(1..=2),
            slots: random.usize(1..=2),
            horizon: Duration::from_secs(random.u64(5..40)),
            storm: [0.0, 0.3, 1.0, 1.0][random.usize(0..4)],
            foreign: one_in(random, 6),
            redrives: one_in(random, 3),
            broadcasts: one_in(random, 4),
            groups,
            publications,
            killer,
        }
    }

    /// What the store does to one process.
    pub fn faults(&self, random: &mut Rng) -> FaultOptions {
        let mut options = FaultOptions::stormy(random.u64(..));
        // Each process has faults of some kinds, so that they come together in all ways.
        for fault in Fault::ALL {
            if random.bool() {
                options.chances.remove(&fault);
            } else if let Some(chance) = options.chances.get_mut(&fault) {
                *chance *= self.storm;
            }
        }
        options.stall_max = LEASE.lease * 2;
        options.lapse_max = LEASE.lease * 2;
        options
    }

    /// What the handler of a group does with an event.
    pub fn act(&self, group: &str, name: &str, attempt: u32) -> Act {
        if self.killer.as_ref().is_some_and(|(own, killer)| *own == group && killer == name) {
            return Act::Kill;
        }
        let mut hasher = DefaultHasher::new();
        (self.seed, group, name).hash(&mut hasher);
        let mut random = Rng::with_seed(hasher.finish());
        let temper = random.u32(0..100);
        let bad_attempts = random.u32(1..4);
        let pause = if random.bool() { Duration::ZERO } else { millis(&mut random, 40) };
        let outputs = if random.u32(0..4) == 0 { random.u32(1..=2) } else { 0 };
        let fine = Act::Handle { after: pause, outputs };
        let slow = LEASE.lease + millis(&mut random, 4_000);
        match temper {
            0..60 => fine,
            60..64 => Act::Handle { after: slow, outputs },
            64..67 => Act::Reject,
            67..70 => Act::Fail { after: pause },
            _ if attempt > bad_attempts => fine,
            70..84 => Act::Fail { after: pause },
            84..90 => Act::FailUntil(millis(&mut random, 3_000)),
            90..95 => Act::Panic,
            // Longer than any handler may take.
            _ => Act::Handle { after: Duration::from_secs(3_600), outputs },
        }
    }
}

fn groups(random: &mut Rng) -> Vec<GroupPlan> {
    let count = random.usize(1..=3);
    let mut names = GROUPS;
    random.shuffle(&mut names);
    names.into_iter().take(count).map(|name| group(random, name)).collect()
}

fn group(random: &mut Rng, name: &'static str) -> GroupPlan {
    let kind = match random.u32(0..4) {
        0 => Kind::Any,
        1 => {
            let (size, linger) = (random.usize(2..5), millis(random, 30));
            Kind::Batch(BatchOptions { size, linger })
        }
        _ => Kind::Typed,
    };
    let park_keys = !matches!(kind, Kind::Batch(_)) && random.bool();
    let retry = RetryPolicy {
        attempts_max: random.u32(1..6),
        first: Duration::from_millis(100),
        factor: 2.0,
        cap: Duration::from_secs(2),
    };
    let options = ServiceOptions {
        lanes: random.usize(1..=3),
        lane_depth: random.usize(4..8),
        handler_timeout: Duration::from_secs(10),
        retry,
        settle_wait: millis(random, 200),
        lease: LEASE,
        park_keys,
        ..ServiceOptions::default()
    };
    GroupPlan {
        name,
        kind,
        options,
        key_prefix: one_in(random, 4).then_some("a"),
        deduplicates: one_in(random, 4),
        idempotent: one_in(random, 4),
        concurrency: one_in(random, 3).then(|| random.usize(1..=2)),
    }
}

fn publications(random: &mut Rng, publisher: usize, events: usize) -> Vec<Publication> {
    const KEYS: [Option<&str>; 4] = [None, Some("a1"), Some("a2"), Some("b")];
    let one = |number: usize| {
        let key = KEYS[random.usize(0..4)];
        let delay = one_in(random, 10).then(|| random_within(random, DELAY_MAX));
        // What has no key may come to two partitions, and is handled in each.
        let twice = key.is_some() && delay.is_none() && one_in(random, 8);
        Publication {
            name: format!("e{publisher}.{number}"),
            pause: if random.bool() { Duration::ZERO } else { millis(random, 800) },
            what: [What::Order, What::Order, What::Order, What::Note, What::Odd]
                [random.usize(0..5)],
            key,
            delay,
            expires: one_in(random, 10).then(|| millis(random, 5_000)),
            // Delayed events are not deduplicated.
            deduplicate: delay.is_none() && !twice && one_in(random, 3),
            twice,
        }
    };
    (0..events).map(one).collect()
}
