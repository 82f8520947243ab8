//! Runs the tests: each by itself to see which mutants it comes by, then each mutant with the
//! tests that come by it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::tree::Mutant;

/// So much memory, in KiB: a mutant may loop while it allocates.
const MEMORY_MAX: usize = 4 << 20;
/// So many tests are run at once, and the next ones only if these did not fail.
const PORTION: usize = 25;
/// The first ones are those that go by the file's name.
const FIRST_PORTION: usize = 6;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Outcome {
    Caught,
    TimedOut,
    Survived,
    Unreached,
    Unviable,
}

/// A test of a program.
type Test = (PathBuf, String);

/// Which tests come by which mutant.
pub(crate) struct Reach {
    pub(crate) tests: BTreeMap<usize, Vec<Test>>,
    /// What fails without any mutant.
    pub(crate) failed: Vec<String>,
    pub(crate) count: usize,
}

/// How tests are run.
#[derive(Clone, Copy)]
pub(crate) struct Manner<'a> {
    /// Where.
    pub(crate) folder: &'a Path,
    /// Programs at once.
    pub(crate) jobs: usize,
    pub(crate) seconds_max: u32,
}

fn command(program: &Path, tests: &[&str], manner: Manner<'_>) -> Command {
    let Manner { folder, seconds_max, .. } = manner;
    let mut command = Command::new("sh");
    let limits = format!("ulimit -v {MEMORY_MAX}; exec timeout -k 1 {seconds_max} \"$@\"");
    command
        .args(["-c", &limits, "sh"])
        .arg(program)
        .args(["--exact", "--test-threads=4"])
        .args(tests);
    command.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // Random tests take what they take; a failure of theirs is noted nowhere.
    command.env("PROPTEST_FAILURE_PERSISTENCE", "off").env_remove("RUST_BACKTRACE");
    command
}

fn list(program: &Path, folder: &Path) -> Vec<Test> {
    let listed = Command::new(program)
        .args(["--list", "--format=terse"])
        .current_dir(folder)
        .output()
        .expect("a program that was built runs");
    let text = String::from_utf8_lossy(&listed.stdout);
    let names = text.lines().filter_map(|line| line.strip_suffix(": test"));
    names.map(|name| (program.to_owned(), name.to_owned())).collect()
}

/// Does something for each number below `count`, in several threads.
fn each(count: usize, jobs: usize, work: impl Fn(usize) + Sync) {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while let number = next.fetch_add(1, Ordering::Relaxed)
                    && number < count
                {
                    work(number);
                }
            });
        }
    });
}

/// Runs each test by itself.
pub(crate) fn reach(programs: &[PathBuf], seen: &Path, manner: Manner<'_>) -> Reach {
    let listed = programs.iter().flat_map(|program| list(program, manner.folder));
    let tests: Vec<Test> = listed.collect();
    let reach =
        Mutex::new(Reach { tests: BTreeMap::new(), failed: Vec::new(), count: tests.len() });
    each(tests.len(), manner.jobs, |number| {
        let (program, name) = &tests[number];
        let file = seen.join(number.to_string());
        let _ = fs::remove_file(&file);
        let status =
            command(program, &[name], manner).env("RUMORMILL_MUTANTS_SEEN", &file).status();
        let text = fs::read_to_string(&file).unwrap_or_default();
        let mutants: BTreeSet<usize> = text.lines().filter_map(|line| line.parse().ok()).collect();
        let mut reach = reach.lock().expect("no thread panics under it");
        if status.is_ok_and(|status| status.success()) {
            for mutant in mutants {
                reach.tests.entry(mutant).or_default().push(tests[number].clone());
            }
        } else {
            reach.failed.push(name.clone());
        }
    });
    reach.into_inner().expect("no thread panics under it")
}

/// Runs each of the mutants, and tells each outcome.
pub(crate) fn run(
    numbers: &[usize],
    mutants: &[Mutant],
    reach: &Reach,
    manner: Manner<'_>,
    tell: impl Fn(usize, Outcome) + Sync,
) {
    each(numbers.len(), manner.jobs, |index| {
        let number = numbers[index];
        let outcome = reach.tests.get(&number).map_or(Outcome::Unreached, |tests| {
            one(number, &in_order(&mutants[number].file, tests), manner)
        });
        tell(number, outcome);
    });
}

/// Those that go by the file's name first, then those of the library.
fn in_order<'a>(file: &str, tests: &'a [Test]) -> Vec<&'a Test> {
    let path = file.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod");
    let module = format!("{}::", path.replace('/', "::"));
    let stem: String = path.rsplit('/').next().unwrap_or(path).chars().take(5).collect();
    let mut tests: Vec<&Test> = tests.iter().collect();
    tests.sort_by_key(|(_, name)| {
        (!name.starts_with(&module), !name.contains(&stem), name.starts_with("program_"))
    });
    tests
}

fn one(number: usize, tests: &[&Test], manner: Manner<'_>) -> Outcome {
    let mut left = tests;
    let mut portion = FIRST_PORTION;
    while !left.is_empty() {
        let (now, later) = left.split_at(left.len().min(portion));
        (left, portion) = (later, PORTION);
        let programs: BTreeSet<&PathBuf> = now.iter().map(|(program, _)| program).collect();
        for program in programs {
            let of_it = now.iter().filter(|(of, _)| of == program);
            let names: Vec<&str> = of_it.map(|(_, name)| name.as_str()).collect();
            let mut command = command(program, &names, manner);
            match code(command.env("RUMORMILL_MUTANT", number.to_string())) {
                Some(0) => {}
                Some(124 | 137) => return Outcome::TimedOut,
                _ => return Outcome::Caught,
            }
        }
    }
    Outcome::Survived
}

/// What a run ends with; it ends at the first failure, as the others may take for ever.
fn code(command: &mut Command) -> Option<i32> {
    let mut run = command.stdout(Stdio::piped()).spawn().ok()?;
    let lines = BufReader::new(run.stdout.take()?).lines();
    let failed = lines.map_while(Result::ok).any(|line| line.ends_with("FAILED"));
    if failed {
        // It passes the signal on, which a kill would not.
        let _ = Command::new("kill").arg(run.id().to_string()).status();
    }
    let status = run.wait().ok()?;
    status.code().filter(|_| !failed)
}
