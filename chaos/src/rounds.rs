//! Runs: rounds of a minute each, every one with servers of its own and a seed of its own, added
//! up.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

use crate::args::Shape;
use crate::check::Book;
use crate::nemesis::{self, Goal};
use crate::progress::Progress;
use crate::report::Report;
use crate::site::Plan;
use crate::{Result, markdown, node, picture, plants, time};

/// The longest round: its histories are read as a whole.
const ROUND: Duration = Duration::from_secs(60);
/// How long a run is without a word.
const DEFAULT: Duration = Duration::from_secs(30);
/// A run that counts faults does not go on for ever.
const FOREVER: Duration = Duration::from_secs(24 * 60 * 60);

/// Runs rounds; true where every promise was kept.
pub(crate) async fn run(seed: Option<u64>, shape: &Shape, resume: bool) -> Result<bool> {
    let mut shape = shape.clone();
    if let Some(plant) = &shape.plant {
        plants::check(plant)?;
        let (mode, kinds) = plants::scene(plant);
        if shape.kinds.is_empty() {
            shape.kinds = kinds.iter().map(ToString::to_string).collect();
        }
        shape.mode.get_or_insert(mode);
    }
    let shape = &shape;
    let first = seed.unwrap_or_else(|| time::now() % 1_000_000);
    let folder = shape.out.clone().unwrap_or_else(|| default_folder(shape, first));
    let server = version()?;
    eprintln!("chaos: {server}, mode {}, seed {first}: {}", shape.mode().name(), folder.display());
    let mut left = Left::new(shape);
    let mut sum: Option<Report> = None;
    let mut seed = first;
    while left.is_any(sum.as_ref()) {
        let own = folder.join(seed.to_string());
        let kept = own.join("report.json");
        let report = if resume && kept.exists() {
            Report::read(&kept)?
        } else {
            match round(shape, seed, &own, &server, left.goal(sum.as_ref())).await {
                Ok(report) => report,
                Err(error) => {
                    tell(&own.join("histories"), &replay(shape, seed));
                    return Err(error);
                }
            }
        };
        left.spend(&report);
        let is_kept = report.is_kept();
        match &mut sum {
            Some(sum) => sum.add(report),
            None => sum = Some(report),
        }
        if !is_kept {
            tell(&own.join("report.html"), &replay(shape, seed));
            break;
        }
        seed += 1;
    }
    let sum = sum.ok_or("no round was run")?;
    sum.write(&folder.join("report.json"))?;
    println!("{sum}");
    println!("{}", replay(shape, *sum.seeds.last().unwrap_or(&first)));
    Ok(sum.is_kept())
}

/// What is left of a run.
struct Left {
    until: Option<Instant>,
    time: Duration,
    faults: u64,
}

impl Left {
    fn new(shape: &Shape) -> Self {
        let time = match shape.faults {
            Some(_) => FOREVER,
            None => shape.time.unwrap_or(DEFAULT),
        };
        let faults = shape.faults.map_or(u64::MAX, u64::from);
        Self { until: None, time, faults }
    }

    fn is_any(&mut self, sum: Option<&Report>) -> bool {
        self.until.get_or_insert_with(|| Instant::now() + self.time);
        !self.time.is_zero() && sum.map_or(0, Report::counted) < self.faults
    }

    fn goal(&self, sum: Option<&Report>) -> Goal {
        let faults = self.faults.saturating_sub(sum.map_or(0, Report::counted));
        Goal { time: self.time.min(ROUND), faults: u32::try_from(faults).unwrap_or(u32::MAX) }
    }

    /// A round takes what it was given, however long its end took.
    fn spend(&mut self, report: &Report) {
        let took = Duration::from_secs(report.seconds.max(1)).min(ROUND);
        self.time = self.time.saturating_sub(took);
        // Less than this shows nothing.
        if self.time < Duration::from_secs(5) {
            self.time = Duration::ZERO;
        }
    }
}

async fn round(
    shape: &Shape,
    seed: u64,
    folder: &Path,
    server: &str,
    goal: Goal,
) -> Result<Report> {
    if folder.exists() {
        // What a round that was cut short left there is no history of this one.
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir_all(folder)?;
    let (mode, plant) = (shape.mode(), shape.plant.clone());
    let plan =
        Plan { folder: folder.to_owned(), seed, mode, rate: shape.rate(), plant: plant.clone() };
    let progress = Progress::new(format!("seed {seed}"));
    let unavailable = nemesis::round(&plan, &shape.kinds, goal, progress).await?;
    let book = Book::open(&folder.join("histories"))?.sorted();
    let report = Report::new(&book, mode, seed, plant, server.to_owned(), unavailable);
    fs::write(folder.join("report.html"), picture::page(&book, &report))?;
    report.write(&folder.join("report.json"))?;
    Ok(report)
}

/// Says where the story of a round is that did not go well, and how to have it again.
fn tell(place: &Path, replay: &str) {
    eprintln!("chaos: see {}", place.display());
    eprintln!("chaos: run it again: {replay}");
}

/// The command that runs a seed again.
fn replay(shape: &Shape, seed: u64) -> String {
    let features = if shape.plant.is_some() { " --features plant" } else { "" };
    let mode = shape.mode().name();
    let mut line = format!("cargo run -p chaos{features} -- replay --seed {seed} --mode {mode}");
    match (shape.faults, shape.time) {
        (Some(faults), _) => line += &format!(" --faults {faults}"),
        (None, time) => {
            line += &format!(" --for {}s", time.unwrap_or(DEFAULT).min(ROUND).as_secs());
        }
    }
    if let Some(rate) = shape.rate {
        line += &format!(" --rate {rate}");
    }
    if !shape.kinds.is_empty() {
        line += &format!(" --kinds {}", shape.kinds.join(","));
    }
    if let Some(plant) = &shape.plant {
        line += &format!(" --plant {plant}");
    }
    line
}

fn default_folder(shape: &Shape, seed: u64) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    let name = match &shape.plant {
        Some(plant) => format!("{}-{plant}-{seed}", shape.mode().name()),
        None => format!("{}-{seed}", shape.mode().name()),
    };
    Path::new(&target).join("chaos").join(name)
}

/// Name and version of the server.
fn version() -> Result<String> {
    let output = std::process::Command::new(node::program()?).arg("--version").output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let words: Vec<&str> = text.split_whitespace().take(3).collect();
    Ok(words.join(" "))
}

/// Adds up the runs in some folders, by mode; true where every promise was kept.
pub(crate) fn report(folders: &[PathBuf], markdown: bool) -> Result<bool> {
    let mut sums: BTreeMap<String, Report> = BTreeMap::new();
    let mut paths = Vec::new();
    for folder in folders {
        find(folder, &mut paths)?;
    }
    for path in &paths {
        let report = Report::read(path)?;
        let name = report.mode.name();
        match sums.get_mut(&name) {
            Some(sum) => sum.add(report),
            None => {
                sums.insert(name, report);
            }
        }
    }
    if sums.is_empty() {
        return Err("there are no reports in these folders".into());
    }
    if markdown {
        println!("{}", markdown::page(sums.values()));
    } else {
        sums.values().for_each(|sum| println!("{sum}\n"));
    }
    Ok(sums.values().all(Report::is_kept))
}

/// The reports of rounds below a folder. That of a run has its rounds beside it, and would count
/// them twice.
fn find(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    if folder.join("histories").is_dir() {
        found.extend(Some(folder.join("report.json")).filter(|path| path.exists()));
        return Ok(());
    }
    let entries =
        fs::read_dir(folder).map_err(|error| format!("read {}: {error}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            find(&path, found)?;
        }
    }
    Ok(())
}
