//! A round: starts everything, breaks and mends by the seed, and sees what is there in the end.

use std::collections::BTreeMap;
use std::time::Duration;

use fastrand::Rng;
use tokio::time::Instant;

use crate::history::{Evidence, What};
use crate::kinds::{self, Class, Kind};
use crate::progress::Progress;
use crate::site::{Plan, Site};
use crate::{Result, finale, plants, time};

/// How long both halves may take to work again; then the next fault comes all the same, and the
/// checker says so.
const RECOVERY: Duration = Duration::from_secs(20);
/// What is wrong without any fault shows in this time: a lease, a sweep, and what they do.
const QUIET: Duration = Duration::from_secs(5);
/// Of a hundred faults, so many have another one beside them.
const PAIRS: u32 = 15;
/// How often healing is tried.
const HEALS: u32 = 5;

/// When a round ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Goal {
    pub(crate) time: Duration,
    /// Faults that were seen.
    pub(crate) faults: u32,
}

/// Runs a round; its histories are in the plan's folder then. Gives the kinds that cannot be
/// injected here, with why.
pub(crate) async fn round(
    plan: &Plan,
    only: &[String],
    goal: Goal,
    progress: Progress,
) -> Result<BTreeMap<String, String>> {
    let site = Site::open(plan, progress).await?;
    let mut nemesis = Nemesis {
        site,
        dice: Rng::with_seed(plan.seed),
        drawn: Vec::new(),
        unavailable: BTreeMap::new(),
        number: 0,
    };
    nemesis.choose(only)?;
    nemesis.run(goal).await?;
    finale::end(&mut nemesis.site).await?;
    nemesis.site.progress.end();
    Ok(nemesis.unavailable)
}

struct Nemesis {
    site: Site,
    dice: Rng,
    /// What may be drawn.
    drawn: Vec<(Class, &'static str)>,
    unavailable: BTreeMap<String, String>,
    number: u32,
}

/// A fault under way.
struct Fault {
    number: u32,
    kind: Box<dyn Kind>,
}

impl Nemesis {
    /// Finds out which kinds can be injected here.
    fn choose(&mut self, only: &[String]) -> Result<()> {
        for name in only {
            if kinds::named(name).is_none() {
                return Err(format!("there is no kind {name:?}: see `chaos kinds`").into());
            }
        }
        for kind in kinds::all() {
            let about = kind.about();
            match kind.unavailable(&self.site) {
                Some(why) => {
                    self.unavailable.insert(about.name.to_owned(), why);
                }
                None if only.is_empty() || only.iter().any(|name| name == about.name) => {
                    self.drawn.push((about.class, about.name));
                }
                None => {}
            }
        }
        if self.drawn.is_empty() {
            return Err("none of these kinds can be injected in this mode".into());
        }
        Ok(())
    }

    async fn run(&mut self, goal: Goal) -> Result<()> {
        let until = Instant::now() + goal.time;
        self.site.progress.now = "quiet".to_owned();
        self.site.pass(QUIET.min(goal.time / 4)).await?;
        while Instant::now() < until && self.site.progress.faults < goal.faults {
            // Long enough that what is wrong without a fault shows.
            let quiet = Duration::from_millis(self.dice.u64(600..1_600));
            self.site.progress.now = "quiet".to_owned();
            self.site.pass(quiet).await?;
            self.strike().await?;
            self.site.progress.now = "recovering".to_owned();
            let healed = time::now();
            let patience = self.site.crew.plant().and_then(plants::patience).unwrap_or(RECOVERY);
            let patience = patience.min(RECOVERY);
            if !self.site.until(patience, |site| site.watch.is_well(healed)).await? {
                self.site.history.note("it does not work again");
                if self.site.crew.plant().is_some() {
                    // The bug is found.
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// One fault, or two at once.
    async fn strike(&mut self) -> Result<()> {
        let first = self.draw(|_| true);
        let about = first.about();
        let mut faults = Vec::new();
        faults.extend(self.inject(first).await);
        // What needs the server is no second one: the first may have taken it.
        if self.dice.u32(..100) < PAIRS && about.class != Class::Network {
            let second = self.draw(|class| class == Class::Network);
            let name = second.about().name;
            // A server that comes back waits for its replicas, whose line is mended by asking it.
            let is_knot = about.class == Class::Server && name.starts_with("replica-link");
            if name != "clients-killed" && name != "swizzle" && !is_knot {
                faults.extend(self.inject(second).await);
            }
        }
        let hold = self.dice.u64(about.lasts.0..=about.lasts.1);
        self.site.pass(Duration::from_millis(hold)).await?;
        self.dice.shuffle(&mut faults);
        for fault in faults {
            self.heal(fault).await?;
        }
        Ok(())
    }

    /// A class by its weight, then one of its kinds.
    fn draw(&mut self, wanted: impl Fn(Class) -> bool) -> Box<dyn Kind> {
        let mut classes: BTreeMap<Class, Vec<&str>> = BTreeMap::new();
        let any = self.drawn.iter().any(|(class, _)| wanted(*class));
        for (class, name) in self.drawn.iter().filter(|(class, _)| !any || wanted(*class)) {
            classes.entry(*class).or_default().push(name);
        }
        let all: u32 = classes.keys().map(|class| class.weight()).sum();
        let mut at = self.dice.u32(..all);
        for (class, names) in classes {
            if at < class.weight() {
                let name = names[self.dice.usize(..names.len())];
                return kinds::named(name).expect("its name is of the list");
            }
            at -= class.weight();
        }
        unreachable!("a number below the sum of the weights is within one of them")
    }

    async fn inject(&mut self, mut kind: Box<dyn Kind>) -> Option<Fault> {
        let (about, number) = (kind.about(), self.number);
        self.number += 1;
        self.site.progress.now = about.name.to_owned();
        let (name, evidence, costs) =
            (about.name.to_owned(), about.evidence, kind.costs(&self.site));
        self.site.history.write(What::Fault { number, name, evidence, costs });
        if let Err(error) = kind.inject(&mut self.site, &mut self.dice).await {
            // What was begun of it is mended all the same.
            self.botched(number, about.name, &error.to_string());
        }
        Some(Fault { number, kind })
    }

    fn botched(&mut self, number: u32, name: &str, why: &str) {
        let (name, why) = (name.to_owned(), why.to_owned());
        self.site.history.write(What::Botched { number, name, why });
    }

    async fn heal(&mut self, Fault { number, mut kind }: Fault) -> Result<()> {
        let about = kind.about();
        for left in (0..HEALS).rev() {
            match kind.heal(&mut self.site).await {
                Ok(seen) => {
                    let name = about.name.to_owned();
                    self.site.history.write(What::Healed { number, name, seen });
                    let counts = seen > 0 || about.evidence == Evidence::Stall;
                    self.site.progress.faults += u32::from(counts);
                    return Ok(());
                }
                Err(error) if left == 0 => {
                    return Err(format!("cannot heal {}: {error}", about.name).into());
                }
                Err(error) => {
                    self.botched(number, about.name, &error.to_string());
                    self.site.pass(Duration::from_millis(500)).await?;
                }
            }
        }
        Ok(())
    }
}
