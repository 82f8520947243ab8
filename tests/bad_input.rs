//! Input that nobody should give: each case of `tests/bad_input/` is refused with an error of its
//! kind that names what is wrong. None panics, none is taken by accident, none holds up what is
//! behind it. `bus-cli/tests/bad_input.rs` has the cases of the command line.

#[path = "bad_input/cases.rs"]
mod cases;
#[path = "bad_input/envelopes.rs"]
mod envelopes;
mod server;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::str::FromStr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use cases::{Input, cases};
use rumormill::codec::ContentType;
use rumormill::delivery::{Cause, DeadLetter, EntryId, Fingerprint, Partition};
use rumormill::driver::redis::{RedisDriver, RedisOptions};
use rumormill::driver::{Driver, GroupName};
use rumormill::{
    Bus, Context, Envelope, Error, ErrorKind, Event, EventId, EventType, Pattern, Position,
    Services, Timestamp, Topic,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use server::Server;

/// The fewest cases there may be: a file that was cut short is noticed.
const CASES_MIN: usize = 500;
/// How long the server and the group may take for all entries.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn there_are_many_cases() {
    let files = cases::folder().read_dir().expect("a folder").map(|file| file.expect("a file"));
    let names = files.map(|file| file.file_name().into_string().expect("a name"));
    let files = names.filter(|name| name.ends_with(".ndjson"));
    let count: usize = files.map(|name| cases::<Value>(&name).len()).sum();
    assert!(count >= CASES_MIN, "{count} cases");
}

#[derive(Deserialize)]
struct Name {
    name: String,
    kind: String,
    input: Input,
    words: String,
}

fn refusal<T: FromStr<Err = Error> + Debug>(text: &str) -> Option<Error> {
    text.parse::<T>().err()
}

#[test]
fn bad_names_are_refused_and_named() {
    let mut faults = Faults::default();
    for case in cases::<Name>("names.ndjson") {
        let text = case.input.text();
        let refused = match case.kind.as_str() {
            "event_type" => refusal::<EventType>(&text),
            "pattern" => refusal::<Pattern>(&text),
            "topic" => refusal::<Topic>(&text),
            "partition" => refusal::<Partition>(&text),
            "entry_id" => refusal::<EntryId>(&text),
            "position" => refusal::<Position>(&text),
            "event_id" => refusal::<EventId>(&text),
            "time" => refusal::<Timestamp>(&text),
            "fingerprint" => refusal::<Fingerprint>(&text),
            "content_type" => ContentType::new(text).err(),
            other => panic!("{other} is no kind of name"),
        };
        match refused {
            None => faults.check(false, &case.name, || "it was taken".to_owned()),
            Some(error) => {
                let is_invalid = error.kind() == ErrorKind::Invalid;
                faults.check(is_invalid, &case.name, || format!("{error:?}"));
                faults.holds(&case.name, &case.words, &error.to_string());
            }
        }
    }
}

/// What is wrong with how cases ended, all of it at once.
#[derive(Default)]
struct Faults(Vec<String>);

impl Faults {
    fn check(&mut self, holds: bool, case: &str, what: impl FnOnce() -> String) {
        if !holds {
            self.0.push(format!("{case}: {}", what()));
        }
    }

    /// An error says the words, on one line that nobody has to scroll.
    fn holds(&mut self, case: &str, words: &str, text: &str) {
        self.check(text.contains(words), case, || format!("{text:?} does not say {words:?}"));
        let fits = !text.is_empty() && text.len() < 1000;
        self.check(fits, case, || format!("an error of {} bytes", text.len()));
        self.check(!text.contains(char::is_control), case, || format!("{text:?} controls"));
    }
}

impl Drop for Faults {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert!(self.0.is_empty(), "{} faults:\n{}", self.0.len(), self.0.join("\n"));
        }
    }
}

#[derive(Deserialize)]
struct Url {
    name: String,
    url: String,
    error: String,
    /// The feature that makes it a good one.
    without: Option<String>,
    words: String,
}

#[tokio::test]
async fn bad_urls_are_refused_and_their_secrets_kept() {
    let mut faults = Faults::default();
    for case in cases::<Url>("urls.ndjson") {
        if case.without.as_deref() == Some("tls") && cfg!(feature = "tls") {
            continue;
        }
        let built = Bus::builder().url(&case.url).services(Services::none()).build().await;
        let Err(error) = built else {
            faults.check(false, &case.name, || "it was taken".to_owned());
            continue;
        };
        let kind = match case.error.as_str() {
            "invalid" => ErrorKind::Invalid,
            "unsupported" => ErrorKind::Unsupported,
            other => panic!("{other} is no kind of error"),
        };
        faults.check(error.kind() == kind, &case.name, || format!("{error:?}"));
        faults.holds(&case.name, &case.words, &error.to_string());
        let kept = !format!("{error:?}").contains("s3cr3t");
        faults.check(error.help().is_some() && kept, &case.name, || format!("{error:?}"));
    }
}

/// What is wrong with an envelope.
fn envelope_of(case: &Value) -> Vec<u8> {
    let none = Map::new();
    let with = case.get("with").or_else(|| case.get("envelope")).and_then(Value::as_object);
    envelopes::envelope(with.unwrap_or(&none), case)
}

#[test]
fn bad_envelopes_are_refused_and_take_nothing() {
    let good = envelope_of(&Value::Null);
    let envelope = Envelope::decode(&mut Bytes::from(good)).expect("a good one");
    assert_eq!(envelope.event_type().as_str(), "a.thing");
    let mut faults = Faults::default();
    for case in cases::<Value>("envelopes.ndjson") {
        let (name, words) = (case["name"].as_str(), case["words"].as_str());
        let (name, words) = (name.expect("a name"), words.expect("words"));
        let before = Bytes::from(envelope_of(&case));
        let mut rest = before.clone();
        let reason = Envelope::decode(&mut rest).err().unwrap_or_default();
        faults.holds(name, words, &reason);
        faults.check(rest == before, name, || "something was taken".to_owned());
    }
}

#[derive(Deserialize)]
struct Entry {
    name: String,
    fields: Vec<(Input, Input)>,
    cause: Cause,
    words: String,
}

#[derive(Serialize, Deserialize, Event)]
#[event(type = "a.thing")]
struct Thing {
    n: u64,
    #[serde(default)]
    tree: Tree,
    #[serde(default)]
    text: Option<String>,
}

/// Something that may be as deep as it likes.
#[derive(Default, Serialize, Deserialize)]
struct Tree(Vec<Tree>);

fn add(server: &Server, fields: &[(Vec<u8>, Vec<u8>)]) -> EntryId {
    let mut command = vec![b"XADD".to_vec(), b"rm:{a:0}:log".to_vec(), b"*".to_vec()];
    for (name, value) in fields {
        command.extend([name.clone(), value.clone()]);
    }
    server.ask(&command).text().parse().expect("an entry id")
}

/// Adds all cases, a good event behind each; which case is where.
fn add_all(server: &Server) -> BTreeMap<EntryId, Entry> {
    server.ask(&["HSET", "rm:topics", "a", "{\"partitions\":1}"]);
    let good = |n: usize| {
        let pair = |name: &str, value: String| (name.as_bytes().to_vec(), value.into_bytes());
        add(server, &[pair("type", "a.thing".into()), pair("data", format!("{{\"n\":{n}}}"))]);
    };
    let mut added = BTreeMap::new();
    for (n, case) in cases::<Entry>("entries.ndjson").into_iter().enumerate() {
        let part = |input: &Input| input.bytes_with(&envelope_of);
        let fields: Vec<_> =
            case.fields.iter().map(|(name, value)| (part(name), part(value))).collect();
        added.insert(add(server, &fields), case);
        good(1000 + n);
    }
    added
}

async fn letters(server: &Server) -> Vec<DeadLetter> {
    let driver = RedisDriver::connect(RedisOptions::new(server.url())).await.expect("connects");
    let tools = driver.tools().expect("it has tools");
    let group = GroupName::new("g").expect("valid");
    tools.dead_letters(&group, 10_000).await.expect("the server tells")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_entries_become_dead_letters_and_what_is_behind_them_goes_on() {
    let server = Server::start();
    let added = add_all(&server);
    let seen: Arc<Mutex<Vec<u64>>> = Arc::default();
    let bus = Bus::builder().url(server.url()).services(Services::none()).build().await;
    let bus = bus.expect("connected");
    let noted = Arc::clone(&seen);
    let handler = move |thing: Thing, _: Context| {
        noted.lock().expect("no handler panics").push(thing.n);
        async { Ok(()) }
    };
    bus.subscribe("g", handler).await.expect("subscribed");
    tokio::time::timeout(PATIENCE, bus.settled()).await.expect("in time").expect("it tells");
    let mut seen: Vec<u64> = seen.lock().expect("no handler panics").clone();
    seen.retain(|n| *n >= 1000);
    seen.sort_unstable();
    let due: Vec<u64> = (1000..1000 + added.len() as u64).collect();
    assert_eq!(seen, due, "every good event is handled, once");
    let letters = letters(&server).await;
    assert_eq!(letters.len(), added.len(), "{letters:?}");
    let mut faults = Faults::default();
    for letter in letters {
        let case = added.get(&letter.origin.entry).expect("a bad entry");
        let Entry { name, cause, words, .. } = case;
        let text = match &letter.record {
            Err(malformed) => malformed.reason.clone(),
            Ok(_) => letter.failure.errors.join(": "),
        };
        let found = letter.failure.cause;
        faults.check(found == *cause, name, || format!("it is {found}: {text}"));
        faults.holds(name, words, &text);
    }
    bus.drain(Duration::from_secs(5)).await;
}
