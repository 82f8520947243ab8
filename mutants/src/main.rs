//! Mutation testing in one build: every mutant is in it, and a variable of the environment chooses
//! one. So a mutant costs a run of the tests that come by it, and no build. See `scripts/mutants`.

mod build;
mod find;
mod run;
mod set;
mod tree;
mod values;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;

use run::Outcome;
use set::Set;
use tree::{Mutant, Tree};

struct Arguments {
    set: String,
    list: bool,
    /// Only what survived the last time.
    again: bool,
    jobs: usize,
    /// Only files whose path holds this.
    only: String,
}

fn arguments() -> Option<Arguments> {
    let mut given = std::env::args().skip(1);
    let mut arguments =
        Arguments { set: given.next()?, list: false, again: false, jobs: 2, only: String::new() };
    while let Some(word) = given.next() {
        match word.as_str() {
            "--list" => arguments.list = true,
            "--again" => arguments.again = true,
            "--jobs" => arguments.jobs = given.next()?.parse().ok().filter(|&jobs| jobs > 0)?,
            "--only" => arguments.only = given.next()?,
            _ => return None,
        }
    }
    Some(arguments)
}

fn main() -> ExitCode {
    let Some(arguments) = arguments() else {
        eprintln!("mutants: error: see the usage in scripts/mutants");
        return ExitCode::from(2);
    };
    match mutants(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mutants: error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn mutants(arguments: &Arguments) -> Result<(), String> {
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("it is in the project");
    let set = Set::read(&project.join(format!("mutants/{}.set", arguments.set)))?;
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| project.join("target"), |target| project.join(PathBuf::from(target)));
    let folder = target.join("mutants").join(&arguments.set);
    let mut tree = Tree::new(project, folder.join("tree"), &set)?;
    if arguments.list {
        tree.mutants.iter().for_each(|mutant| println!("{}", mutant.says));
        return Ok(());
    }
    let notes = Notes { folder: &folder };
    let mut unviable = notes.numbers(&tree.mutants, &["Unviable"]);
    let note = |tree: &Tree, unviable: &BTreeSet<usize>| {
        let mut outcomes = notes.read(&tree.mutants);
        outcomes.extend(unviable.iter().map(|number| (*number, Outcome::Unviable)));
        notes.write(&tree.mutants, &outcomes);
    };
    let programs = build::build(&mut tree, &set, &target, &mut unviable, note)?;
    let seen = folder.join("seen");
    fs::create_dir_all(&seen).map_err(|error| format!("{}: {error}", seen.display()))?;
    let manner =
        run::Manner { folder: &tree.folder, jobs: arguments.jobs, seconds_max: set.seconds };
    let reach = run::reach(&programs, &seen, manner);
    eprintln!("mutants: {} of {} tests pass", reach.count - reach.failed.len(), reach.count);
    reach.failed.iter().for_each(|name| eprintln!("mutants: fails without a mutant: {name}"));
    let done = if arguments.again {
        notes.numbers(&tree.mutants, &["Caught", "TimedOut"])
    } else {
        BTreeSet::new()
    };
    let chosen = |number: &usize| {
        !unviable.contains(number)
            && !done.contains(number)
            && tree.mutants[*number].file.contains(&arguments.only)
    };
    let numbers: Vec<usize> = (0..tree.mutants.len()).filter(chosen).collect();
    let mut outcomes = notes.read(&tree.mutants);
    outcomes.extend(unviable.iter().map(|number| (*number, Outcome::Unviable)));
    let outcomes = Mutex::new(outcomes);
    run::run(&numbers, &tree.mutants, &reach, manner, |number, outcome| {
        let mut outcomes = outcomes.lock().expect("no thread panics under it");
        outcomes.insert(number, outcome);
        notes.write(&tree.mutants, &outcomes);
        if outcome != Outcome::Caught {
            eprintln!("mutants: {outcome:?}: {}", tree.mutants[number].says);
        }
    });
    table(&tree.mutants, &outcomes.into_inner().expect("no thread panics under it"));
    Ok(())
}

/// What became of each mutant, kept for `--again`.
struct Notes<'a> {
    folder: &'a Path,
}

impl Notes<'_> {
    fn path(&self) -> PathBuf {
        self.folder.join("outcomes")
    }

    fn read(&self, mutants: &[Mutant]) -> BTreeMap<usize, Outcome> {
        let text = fs::read_to_string(self.path()).unwrap_or_default();
        let known: BTreeMap<&str, Outcome> = text.lines().filter_map(line).collect();
        let outcome = |mutant: &Mutant| known.get(mutant.says.as_str()).copied();
        mutants.iter().enumerate().filter_map(|(n, mutant)| Some((n, outcome(mutant)?))).collect()
    }

    fn numbers(&self, mutants: &[Mutant], outcomes: &[&str]) -> BTreeSet<usize> {
        let is_one = |outcome: &Outcome| outcomes.contains(&format!("{outcome:?}").as_str());
        let known = self.read(mutants).into_iter();
        known.filter(|(_, outcome)| is_one(outcome)).map(|(number, _)| number).collect()
    }

    /// A run that is broken off loses nothing.
    fn write(&self, mutants: &[Mutant], outcomes: &BTreeMap<usize, Outcome>) {
        let line = |(number, outcome): (&usize, &Outcome)| {
            format!("{outcome:?} {}\n", mutants[*number].says)
        };
        let text: String = outcomes.iter().map(line).collect();
        if let Err(error) = fs::write(self.path(), text) {
            eprintln!("mutants: {}: {error}", self.path().display());
        }
    }
}

fn line(line: &str) -> Option<(&str, Outcome)> {
    let (outcome, says) = line.split_once(' ')?;
    let all = [
        Outcome::Caught,
        Outcome::TimedOut,
        Outcome::Survived,
        Outcome::Unreached,
        Outcome::Unviable,
    ];
    let outcome = all.into_iter().find(|one| format!("{one:?}") == outcome)?;
    Some((says, outcome))
}

/// Prints a row per file, and all of them together.
fn table(mutants: &[Mutant], outcomes: &BTreeMap<usize, Outcome>) {
    let mut files: BTreeMap<&str, BTreeMap<Outcome, usize>> = BTreeMap::new();
    for (number, outcome) in outcomes {
        for name in [mutants[*number].file.as_str(), "~ all"] {
            *files.entry(name).or_default().entry(*outcome).or_default() += 1;
        }
    }
    println!("| file | mutants | caught | timed out | survived | not run by a test | killed |");
    println!("|---|---|---|---|---|---|---|");
    for (file, counts) in files {
        let count = |outcome| counts.get(&outcome).copied().unwrap_or(0);
        let (caught, timed_out) = (count(Outcome::Caught), count(Outcome::TimedOut));
        let (survived, unreached) = (count(Outcome::Survived), count(Outcome::Unreached));
        let all = caught + timed_out + survived + unreached;
        let killed = 100 * (caught + timed_out) / all.max(1);
        let file = file.trim_start_matches("~ ").trim_start_matches("src/");
        println!(
            "| {file} | {all} | {caught} | {timed_out} | {survived} | {unreached} | {killed} % |"
        );
    }
}
