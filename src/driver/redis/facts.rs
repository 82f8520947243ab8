//! What a server says of itself, and what that means. Values only: who asks is `probe` and
//! `watch`.

use redis::{Pipeline, Value};

use super::fault::Fault;
use super::reply;
use crate::delivery::Durability;
use crate::driver::monitor::{Incident, ServerHealth};

/// Beyond this share of `maxmemory` writes may soon be refused. Tenths.
const FULL_TENTHS: u64 = 9;

/// What a server says of itself. What it does not tell is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) version: String,
    pub(super) mode: String,
    /// It names one life of one server.
    pub(super) run_id: String,
    pub(super) role: String,
    pub(super) durability: Durability,
    /// The last write of the append-only file failed.
    pub(super) append_fails: bool,
    /// How often the disk kept a sync waiting.
    pub(super) delayed: u64,
    /// Nothing is synced while the append-only file is rewritten.
    pub(super) syncs_pause: bool,
    /// The last snapshot failed.
    pub(super) snapshot_fails: bool,
    /// Writes are refused where a snapshot failed.
    pub(super) stops_writes: bool,
    pub(super) evicted: u64,
    pub(super) maxmemory: u64,
    pub(super) used: u64,
    pub(super) policy: String,
    pub(super) replicas: u64,
}

pub(super) const SECTIONS: [&str; 5] = ["server", "persistence", "memory", "stats", "replication"];
pub(super) const SETTINGS: [&str; 3] =
    ["appendfsync", "stop-writes-on-bgsave-error", "no-appendfsync-on-rewrite"];

/// Adds the questions; [`Facts::read`] takes their answers.
pub(super) fn ask(pipeline: &mut Pipeline) {
    ask_for(pipeline, &SECTIONS, &SETTINGS);
}

/// Adds questions for sections of INFO and for settings; [`Told::read`] takes their answers. One
/// at a time: a server that is too old takes no more, and is to be told so.
pub(super) fn ask_for(pipeline: &mut Pipeline, sections: &[&str], settings: &[&str]) {
    for section in sections {
        pipeline.cmd("INFO").arg(*section);
    }
    for setting in settings {
        pipeline.cmd("CONFIG").arg("GET").arg(*setting);
    }
}

/// What a server told. What it may not be asked, or does not know, is missing.
#[derive(Clone, Debug, Default)]
pub(super) struct Told {
    info: String,
    settings: Vec<(String, String)>,
}

impl Told {
    /// Reads the answers, of which the first are sections of INFO.
    pub(super) fn read(
        mut answers: impl Iterator<Item = Value>,
        sections: usize,
    ) -> Result<Self, Fault> {
        let told = |value: Value| match value {
            Value::ServerError(error) if Fault::from(error.clone()).is_not_allowed() => {
                Ok(Value::Nil)
            }
            Value::ServerError(error) => Err(Fault::from(error)),
            value => Ok(value),
        };
        let mut found = Self::default();
        for answer in answers.by_ref().take(sections) {
            found.info += &reply::text(told(answer)?).unwrap_or_default();
        }
        for answer in answers {
            for (name, value) in reply::pairs(told(answer)?)? {
                found.settings.push((reply::text(name)?, reply::text(value)?));
            }
        }
        Ok(found)
    }

    /// What INFO says under a name.
    pub(super) fn line(&self, name: &str) -> Option<&str> {
        line(&self.info, name)
    }

    /// A number that INFO says.
    pub(super) fn number(&self, name: &str) -> Option<u64> {
        self.line(name)?.parse().ok()
    }

    /// The value of a setting.
    pub(super) fn setting(&self, name: &str) -> Option<&str> {
        let found = self.settings.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }
}

impl Facts {
    /// Reads the answers; that nothing may be asked tells nothing.
    pub(super) fn read(answers: impl Iterator<Item = Value>) -> Result<Self, Fault> {
        Told::read(answers, SECTIONS.len()).map(|told| Self::of(&told))
    }

    /// What was told to [`ask`], or to questions that hold its own.
    pub(super) fn of(told: &Told) -> Self {
        let text = |name: &str| told.line(name).unwrap_or_default().to_owned();
        let number = |name: &str| told.number(name).unwrap_or(0);
        let setting = |name: &str| told.setting(name);
        let appending = durability(told.line("aof_enabled"), setting("appendfsync"));
        Self {
            version: text("redis_version"),
            mode: text("redis_mode"),
            run_id: text("run_id"),
            role: text("role"),
            durability: match setting("no-appendfsync-on-rewrite") {
                // For as long as a rewrite takes.
                Some("yes") => appending.min(Durability::Volatile),
                _ => appending,
            },
            syncs_pause: setting("no-appendfsync-on-rewrite") == Some("yes"),
            append_fails: text("aof_enabled") == "1" && text("aof_last_write_status") == "err",
            delayed: number("aof_delayed_fsync"),
            snapshot_fails: text("rdb_last_bgsave_status") == "err",
            stops_writes: setting("stop-writes-on-bgsave-error") == Some("yes"),
            evicted: number("evicted_keys"),
            maxmemory: number("maxmemory"),
            used: number("used_memory"),
            policy: text("maxmemory_policy"),
            replicas: number("connected_slaves"),
        }
    }

    /// What is wrong, each in a line that stays the same while it is.
    fn findings(&self, before: Option<&Self>) -> Vec<String> {
        let mut findings = Vec::new();
        let policy = &self.policy;
        if !policy.is_empty() && policy != "noeviction" {
            findings.push(format!(
                "maxmemory-policy is {policy}: under pressure the server deletes logs; set \
                 noeviction"
            ));
        }
        if self.maxmemory > 0 && self.used > self.maxmemory / 10 * FULL_TENTHS {
            findings.push(
                "nine tenths of maxmemory are used: soon the server refuses to store".to_owned(),
            );
        }
        if self.append_fails {
            findings.push(
                "the append-only file cannot be written: the server refuses to store; see its \
                 log and its disk"
                    .to_owned(),
            );
        }
        let same_life = before.filter(|before| before.run_id == self.run_id);
        if same_life.is_some_and(|before| self.delayed > before.delayed) {
            findings.push(
                "the disk keeps syncs of the append-only file waiting: more than a second may be \
                 lost"
                    .to_owned(),
            );
        }
        if self.syncs_pause {
            findings.push(
                "no-appendfsync-on-rewrite is yes: what is stored while the append-only file is \
                 rewritten may be lost; set no"
                    .to_owned(),
            );
        }
        if self.snapshot_fails && self.stops_writes {
            findings.push(
                "snapshots fail, and the server refuses to store for that \
                 (stop-writes-on-bgsave-error); see its log and its disk"
                    .to_owned(),
            );
        }
        findings
    }

    /// The server as its health has it.
    pub(super) fn health(&self, before: Option<&Self>) -> ServerHealth {
        ServerHealth {
            version: self.version.clone(),
            role: self.role.clone(),
            replicas: self.replicas,
            durability: self.durability,
            is_usable: !(self.append_fails || self.snapshot_fails && self.stops_writes),
            findings: self.findings(before),
        }
    }

    /// What happened since. What was there at first is told as a finding alone.
    pub(super) fn incidents(&self, before: &Self) -> Vec<Incident> {
        let mut incidents = Vec::new();
        let same_life = self.run_id == before.run_id;
        if !same_life {
            incidents.push(Incident::ServerChanged { run_id: self.run_id.clone() });
        }
        if self.durability != before.durability {
            let (from, to) = (before.durability, self.durability);
            incidents.push(Incident::DurabilityChanged { from, to });
        }
        let known = if same_life { before.evicted } else { 0 };
        if let Some(keys) = self.evicted.checked_sub(known).filter(|keys| *keys > 0) {
            incidents.push(Incident::Evicted { keys });
        }
        incidents
    }
}

/// What `INFO` says under a name.
pub(super) fn line<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    let value = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    value.map(str::trim)
}

/// What the server does to keep what it acknowledged; unknown where it may not be asked.
fn durability(append_only: Option<&str>, fsync: Option<&str>) -> Durability {
    match (append_only, fsync) {
        (None, _) => Durability::Unknown,
        (Some("1"), Some("always")) => Durability::Fsync,
        (Some("1"), Some("everysec")) => Durability::Everysec,
        (Some("1"), Some("no")) => Durability::Volatile,
        (Some("1"), _) => Durability::Unknown,
        (Some(_), _) => Durability::Volatile,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEALTHY: &str = "# Server\r\nredis_version:7.0.15\r\nredis_mode:standalone\r\n\
        run_id:one\r\naof_enabled:1\r\naof_last_write_status:ok\r\naof_delayed_fsync:3\r\n\
        rdb_last_bgsave_status:ok\r\nevicted_keys:5\r\nmaxmemory:0\r\nused_memory:900000\r\n\
        maxmemory_policy:noeviction\r\nrole:master\r\nconnected_slaves:2\r\n";

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    /// The answer to the first question, and to the other sections.
    fn infos(info: Value) -> impl Iterator<Item = Value> {
        std::iter::once(info).chain(std::iter::repeat_n(Value::Nil, SECTIONS.len() - 1))
    }

    fn facts(changes: &[(&str, &str)], fsync: &str) -> Facts {
        let mut info = HEALTHY.to_owned();
        for (name, value) in changes {
            let old = line(HEALTHY, name).expect("a line");
            info = info.replace(&format!("{name}:{old}\r"), &format!("{name}:{value}\r"));
        }
        let config = [[SETTINGS[0], fsync], [SETTINGS[1], "yes"]];
        let config = config.map(|pair| Value::Array(pair.map(bulk).to_vec()));
        Facts::read(infos(bulk(&info)).chain(config)).expect("facts")
    }

    #[test]
    fn durability_is_what_the_server_does() {
        assert_eq!(facts(&[], "always").durability, Durability::Fsync);
        assert_eq!(facts(&[], "everysec").durability, Durability::Everysec);
        assert_eq!(facts(&[], "no").durability, Durability::Volatile);
        assert_eq!(facts(&[("aof_enabled", "0")], "always").durability, Durability::Volatile);
        let denied = || {
            let text = b"-NOPERM this user has no permissions to run the 'config|get' command\r\n";
            redis::parse_redis_value(text).expect("a reply")
        };
        let silent = Facts::read(infos(bulk(HEALTHY)).chain([denied()])).expect("facts");
        assert_eq!(silent.durability, Durability::Unknown);
        let silent = Facts::read(std::iter::repeat_with(denied).take(7)).expect("facts");
        assert_eq!((silent.durability, silent.version.as_str()), (Durability::Unknown, ""));
        let loading = redis::parse_redis_value(b"-LOADING Redis is loading\r\n").expect("a reply");
        let fault = Facts::read(std::iter::once(loading)).expect_err("not yet");
        assert!(fault.is_passing());
    }

    #[test]
    fn what_is_wrong_is_found() {
        let healthy = facts(&[], "always");
        assert_eq!(healthy.health(None).findings, [""; 0]);
        assert_eq!(healthy.incidents(&healthy), []);
        for (changes, words) in [
            (&[("maxmemory_policy", "allkeys-lru")][..], "maxmemory-policy is allkeys-lru"),
            (&[("maxmemory", "950000")], "nine tenths of maxmemory"),
            (&[("aof_last_write_status", "err")], "cannot be written"),
            (&[("aof_delayed_fsync", "4")], "keeps syncs"),
            (&[("rdb_last_bgsave_status", "err")], "snapshots fail"),
        ] {
            let findings = facts(changes, "always").health(Some(&healthy)).findings;
            assert_eq!(findings.len(), 1, "{words}: {findings:?}");
            assert!(findings[0].contains(words), "{words}: {findings:?}");
        }
        // The count of another life says nothing.
        let other = facts(&[("aof_delayed_fsync", "4"), ("run_id", "two")], "always");
        assert_eq!(other.health(Some(&healthy)).findings, [""; 0]);
    }

    #[test]
    fn changes_are_incidents() {
        let before = facts(&[], "always");
        let (from, to) = (Durability::Fsync, Durability::Everysec);
        let weaker = facts(&[], "everysec").incidents(&before);
        assert_eq!(weaker, [Incident::DurabilityChanged { from, to }]);
        let fuller = facts(&[("evicted_keys", "8")], "always").incidents(&before);
        assert_eq!(fuller, [Incident::Evicted { keys: 3 }]);
        let run_id = "two".to_owned();
        let other = facts(&[("run_id", "two"), ("evicted_keys", "0")], "always");
        assert_eq!(other.incidents(&before), [Incident::ServerChanged { run_id }]);
    }
}
