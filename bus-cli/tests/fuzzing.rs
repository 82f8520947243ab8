//! Every fuzz target on the stable compiler: the whole corpus, any bytes, and seeds of the corpus
//! with flips, cuts, insertions and parts of others. `scripts/fuzz` is the coverage-guided form.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;

use bus_cli::fuzzing::targets;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestError, TestRunner};

/// Most bytes of an input that is made here; seeds may be longer.
const BYTES_MAX: usize = 600;

fn corpus() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus")
}

/// The seeds of a target, with their names.
fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = corpus().join(target);
    let files = folder.read_dir().unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut seeds: Vec<_> = files
        .map(|file| file.expect("an entry"))
        .map(|file| {
            let name = file.file_name().into_string().expect("a name");
            (name, std::fs::read(file.path()).expect("a seed"))
        })
        .collect();
    seeds.sort();
    seeds
}

/// One change of an input.
#[derive(Clone, Debug)]
enum Change {
    Flip(Index, u8),
    Set(Index, u8),
    Cut(Index),
    Remove(Index, usize),
    Insert(Index, Vec<u8>),
    /// From here on, the end of another seed.
    Splice(Index, Index, Index),
    Repeat(Index, usize),
}

fn change() -> impl Strategy<Value = Change> {
    let at = any::<Index>;
    let lively = prop_oneof![
        Just(0_u8),
        Just(0x7f),
        Just(0x80),
        Just(0xff),
        Just(b'\n'),
        Just(b'-'),
        Just(b'9'),
        any::<u8>()
    ];
    prop_oneof![
        (at(), 0..8_u8).prop_map(|(at, bit)| Change::Flip(at, bit)),
        (at(), lively).prop_map(|(at, byte)| Change::Set(at, byte)),
        at().prop_map(Change::Cut),
        (at(), 1..16_usize).prop_map(|(at, count)| Change::Remove(at, count)),
        (at(), vec(any::<u8>(), 1..8)).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        (at(), at(), at()).prop_map(|(at, seed, from)| Change::Splice(at, seed, from)),
        (at(), 1..40_usize).prop_map(|(at, count)| Change::Repeat(at, count)),
    ]
}

fn apply(change: &Change, bytes: &mut Vec<u8>, seeds: &[(String, Vec<u8>)]) {
    let place = |at: &Index, bytes: &[u8]| at.index(bytes.len() + 1);
    match change {
        Change::Flip(at, bit) if !bytes.is_empty() => *at.get_mut(bytes) ^= 1 << bit,
        Change::Set(at, byte) if !bytes.is_empty() => *at.get_mut(bytes) = *byte,
        Change::Flip(..) | Change::Set(..) => {}
        Change::Cut(at) => bytes.truncate(place(at, bytes)),
        Change::Remove(at, count) => {
            let from = place(at, bytes);
            bytes.drain(from..bytes.len().min(from + count));
        }
        Change::Insert(at, inserted) => {
            let at = place(at, bytes);
            bytes.splice(at..at, inserted.iter().copied());
        }
        Change::Splice(at, seed, from) => {
            let (_, other) = seed.get(seeds);
            bytes.truncate(place(at, bytes));
            bytes.extend_from_slice(&other[place(from, other)..]);
        }
        Change::Repeat(at, count) => {
            let at = place(at, bytes);
            let part: Vec<u8> = bytes[at..bytes.len().min(at + 4)].repeat(*count);
            bytes.splice(at..at, part);
        }
    }
}

/// Runs one target on one input; a failure names both.
fn feed(name: &str, target: fn(&[u8]), what: &str, bytes: &[u8]) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| target(bytes))) {
        eprintln!("target {name}, {what}: {}", bytes.escape_ascii());
        resume_unwind(panic);
    }
}

fn run(name: &str, cases: u32) {
    let (_, target) = targets().find(|(own, _)| *own == name).expect("a target of this name");
    let seeds = seeds(name);
    assert!(!seeds.is_empty(), "a target without seeds");
    for (file, bytes) in &seeds {
        feed(name, target, &format!("corpus/{name}/{file}"), bytes);
    }
    let runner = || {
        let asked = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
        let cases = asked.unwrap_or(cases);
        TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() })
    };
    let any_bytes = vec(any::<u8>(), 0..BYTES_MAX);
    let hold = |bytes: Vec<u8>| {
        target(&bytes);
        Ok(())
    };
    told(name, runner().run(&any_bytes, hold));
    let changed = (any::<Index>(), vec(change(), 1..6)).prop_map(|(seed, changes)| {
        let mut bytes = seed.get(&seeds).1.clone();
        changes.iter().for_each(|change| apply(change, &mut bytes, &seeds));
        bytes
    });
    told(name, runner().run(&changed, hold));
}

/// A failure with the smallest input that was found, as it is written in Rust.
fn told(name: &str, held: Result<(), TestError<Vec<u8>>>) {
    match held {
        Ok(()) => {}
        Err(TestError::Fail(why, bytes)) => {
            panic!("target {name}: {why} with b\"{}\"", bytes.escape_ascii())
        }
        Err(error) => panic!("target {name}: {error}"),
    }
}

macro_rules! hold {
    ($($name:ident: $cases:expr,)*) => {
        $(#[test]
        fn $name() {
            run(stringify!($name), $cases);
        })*

        const TESTED: &[&str] = &[$(stringify!($name)),*];
    };
}

hold! {
    addresses: 1000,
    amounts: 1000,
    config: 150,
    deltas: 1000,
    entries: 1000,
    envelope: 1000,
    escapes: 500,
    letters: 500,
    lines: 500,
    names: 1000,
    patch: 500,
    patterns: 1000,
    payload: 500,
    payload_views: 500,
    positions: 1000,
    replies: 1000,
    urls: 1000,
}

#[test]
fn every_target_is_tested_and_has_seeds() {
    let known: BTreeSet<_> = targets().map(|(name, _)| name.to_owned()).collect();
    let tested: BTreeSet<_> = TESTED.iter().map(ToString::to_string).collect();
    assert_eq!(known, tested);
    let folders = corpus().read_dir().expect("the corpus").map(|folder| folder.expect("an entry"));
    let folders: BTreeSet<_> =
        folders.map(|folder| folder.file_name().into_string().expect("a name")).collect();
    assert_eq!(known, folders, "a folder of seeds for each target and none besides");
}
