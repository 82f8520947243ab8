//! What the checks of the server go by, asked before any of them looks.

use redis::{ConnectionAddr, Pipeline, Value};

use super::rights::{self, Rights};
use super::{Untold, version};
use crate::driver::admin::Store;
use crate::driver::redis::Shared;
use crate::driver::redis::address::Target;
use crate::driver::redis::facts::{self, Facts, Told};
use crate::driver::redis::fault::{Fault, accept};
use crate::driver::redis::reply;
use crate::error::Error;

/// Sections of INFO beyond those that are always asked for.
const SECTIONS: [&str; 7] =
    ["server", "persistence", "memory", "stats", "replication", "clients", "errorstats"];
/// Settings beyond those that are always asked for.
const SETTINGS: [&str; 17] = [
    "appendfsync",
    "stop-writes-on-bgsave-error",
    "no-appendfsync-on-rewrite",
    "save",
    "min-replicas-to-write",
    "timeout",
    "proto-max-bulk-len",
    "client-query-buffer-limit",
    "client-output-buffer-limit",
    "stream-node-max-entries",
    "stream-node-max-bytes",
    "bind",
    "protected-mode",
    "port",
    "tls-port",
    "maxclients",
    "slowlog-log-slower-than",
];
/// The latest of the log of slow commands, and of the log of what was denied.
const LOGGED_MAX: usize = 128;

/// What the server says of itself and of us.
pub(in crate::driver::redis::doctor) struct Evidence {
    pub(super) facts: Facts,
    told: Told,
    pub(super) peer: Peer,
    pub(super) clocks: Clocks,
    /// The commands that were asked for, and whether the server has them.
    pub(super) commands: Result<Vec<(&'static str, bool)>, Untold>,
    pub(super) rights: Result<Rights, Untold>,
    /// The flags of the user that needs no login.
    pub(super) default_user: Result<Vec<String>, Untold>,
    pub(super) slow: Result<Vec<Slow>, Untold>,
    pub(super) denied: Result<Vec<Denial>, Untold>,
    /// How many replicas are to confirm what is published.
    pub(super) replicas_wanted: u64,
}

/// The connection, from its two ends.
#[derive(Default)]
pub(super) struct Peer {
    /// Where the url leads, where that is another machine's and nothing is encrypted.
    pub(super) plain_host: Option<String>,
    /// Where the server sees us. Empty where it does not say.
    pub(super) seen_at: String,
    pub(super) user: String,
    pub(super) database: u64,
}

/// Milliseconds of both clocks.
pub(super) struct Clocks {
    /// Ours, before and after the server was asked.
    pub(super) own: (u64, u64),
    pub(super) server: u64,
}

/// A command that took long.
pub(super) struct Slow {
    /// Seconds of the server's clock.
    pub(super) at: u64,
    pub(super) micros: u64,
    /// Its first word: the rest is the data of strangers.
    pub(super) command: String,
}

/// What somebody may not do, and tried.
pub(super) struct Denial {
    pub(super) user: String,
    /// `command`, `key`, `auth`, ...
    pub(super) reason: String,
    pub(super) object: String,
    pub(super) times: u64,
    pub(super) age_seconds: u64,
}

impl Evidence {
    /// Asks the server.
    pub(in crate::driver::redis::doctor) async fn gather(shared: &Shared) -> Result<Self, Error> {
        let what = "look at the server";
        let clocks = clocks(shared).await?;
        let mut pipeline = Pipeline::new();
        facts::ask_for(&mut pipeline, &SECTIONS, &SETTINGS);
        let told = shared.commands.ask(what, &pipeline).await?.into_iter();
        let told = Told::read(told, SECTIONS.len());
        let told = told.map_err(|fault| shared.commands.error(what, &fault))?;

        pipeline.clear();
        pipeline.cmd("CLIENT").arg("INFO");
        pipeline.cmd("COMMAND").arg("INFO").arg(&version::ASKED);
        pipeline.cmd("ACL").arg("GETUSER").arg("default");
        pipeline.cmd("SLOWLOG").arg("GET").arg(LOGGED_MAX);
        pipeline.cmd("ACL").arg("LOG").arg(LOGGED_MAX);
        let mut answers = shared.commands.ask(what, &pipeline).await?.into_iter();
        let mut next = || accept(answers.next().unwrap_or_default());
        let peer = peer(shared, next());
        let commands = untold("`+command|info`", next().and_then(commands));
        let default_user = untold("`+acl|getuser`", next().and_then(flags));
        let slow = untold("`+slowlog|get`", next().and_then(slow));
        let denied = untold("`+acl|log`", next().and_then(denials));
        let rights = rights::ask(shared, &peer.user).await?;
        let replicas_wanted = u64::from(shared.confirm.replicas());
        let facts = Facts::of(&told);
        Ok(Self {
            facts,
            told,
            peer,
            clocks,
            commands,
            rights,
            default_user,
            slow,
            denied,
            replicas_wanted,
        })
    }

    /// Who answers.
    pub(in crate::driver::redis::doctor) fn summary(&self) -> Store {
        let (name, version) = version::of(self);
        let replicas = self.facts.replicas;
        let mut about = vec![format!("{replicas} replicas")];
        if let Some(used) = self.told.number("used_memory") {
            let most = match self.facts.maxmemory {
                0 => "no limit".to_owned(),
                most => super::bytes(most),
            };
            about.push(format!("{} of memory used, of {most}", super::bytes(used)));
        }
        if let Ok(rights) = &self.rights {
            about.push(rights.summary(&self.peer.user));
        }
        let (role, durability) = (self.facts.role.clone(), self.facts.durability);
        Store { name: name.to_owned(), version, role, durability, about }
    }

    /// What INFO says under a name.
    pub(super) fn line(&self, name: &str) -> Result<&str, Untold> {
        self.told.line(name).ok_or_else(|| {
            Untold(format!("INFO does not tell {name}: the user may lack the rule `+info`"))
        })
    }

    /// A number that INFO says.
    pub(super) fn number(&self, name: &str) -> Result<u64, Untold> {
        let line = self.line(name)?;
        line.parse().map_err(|_| Untold(format!("INFO tells of {name} what is no number")))
    }

    /// A line that is there for some servers alone.
    pub(super) fn maybe(&self, name: &str) -> Option<&str> {
        self.told.line(name)
    }

    /// The value of a setting.
    pub(super) fn setting(&self, name: &str) -> Result<&str, Untold> {
        self.told.setting(name).ok_or_else(|| {
            Untold(format!("CONFIG does not tell {name}: the user may lack the rule `+config|get`"))
        })
    }
}

impl Clone for Untold {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// An answer, or the rule without which there is none.
fn untold<T>(rule: &str, answer: Result<T, Fault>) -> Result<T, Untold> {
    answer.map_err(|fault| {
        let text = format!("{fault}");
        Untold(if fault.is_not_allowed() { format!("{text}: it takes {rule}") } else { text })
    })
}

async fn clocks(shared: &Shared) -> Result<Clocks, Error> {
    let what = "ask for the server's time";
    let before = shared.clock.now().as_millis();
    let answer = shared.commands.ask_one(what, redis::cmd("TIME")).await?;
    let after = shared.clock.now().as_millis();
    let server = reply::time(answer).map_err(|fault| shared.commands.error(what, &fault))?;
    Ok(Clocks { own: (before, after), server })
}

/// `id=4 addr=127.0.0.1:5000 db=0 user=default ...`, where the server tells.
fn peer(shared: &Shared, answer: Result<Value, Fault>) -> Peer {
    let text = answer.and_then(reply::text).unwrap_or_default();
    let field = |name: &str| {
        let mut words = text.split_whitespace();
        words.find_map(|word| word.strip_prefix(name)?.strip_prefix('=')).unwrap_or_default()
    };
    let plain_host = match shared.connector.target() {
        Target::Server(info) => match info.addr() {
            ConnectionAddr::Tcp(host, _) => Some(host.clone()),
            _ => None,
        },
        Target::Sentinels(_) => Some("what the sentinels name".to_owned()),
    };
    Peer {
        plain_host,
        seen_at: field("addr").to_owned(),
        user: field("user").to_owned(),
        database: field("db").parse().unwrap_or(0),
    }
}

/// One row for each command that was asked for, empty for what is not there.
fn commands(answer: Value) -> Result<Vec<(&'static str, bool)>, Fault> {
    let rows = reply::items(answer)?.into_iter();
    let known = rows.map(|row| Ok(!reply::items(row)?.is_empty()));
    let known = known.collect::<Result<Vec<bool>, Fault>>()?;
    Ok(version::ASKED.into_iter().zip(known).collect())
}

fn flags(answer: Value) -> Result<Vec<String>, Fault> {
    for (name, value) in reply::pairs(answer)? {
        if reply::text(name)? == "flags" {
            return reply::items(value)?.into_iter().map(reply::text).collect();
        }
    }
    Ok(Vec::new())
}

fn slow(answer: Value) -> Result<Vec<Slow>, Fault> {
    let one = |row| {
        let mut parts = reply::items(row)?.into_iter().skip(1);
        let mut next = || parts.next().unwrap_or_default();
        let (at, micros) = (reply::count(next())?, reply::count(next())?);
        let first = reply::items(next())?.into_iter().next().unwrap_or_default();
        let command = reply::bytes(first)?.unwrap_or_default();
        let command = String::from_utf8_lossy(&command).to_uppercase();
        Ok(Slow { at, micros, command })
    };
    reply::items(answer)?.into_iter().map(one).collect()
}

fn denials(answer: Value) -> Result<Vec<Denial>, Fault> {
    let one = |row| {
        let (mut user, mut reason, mut object) = <(String, String, String)>::default();
        let (mut times, mut age_seconds) = (0, 0);
        let shown = |value| {
            let bytes = reply::bytes(value)?.unwrap_or_default();
            Ok::<_, Fault>(String::from_utf8_lossy(&bytes).into_owned())
        };
        for (name, value) in reply::pairs(row)? {
            match reply::text(name)?.as_str() {
                "username" => user = shown(value)?,
                "reason" => reason = shown(value)?,
                "object" => object = shown(value)?,
                "count" => times = reply::count(value)?,
                "age-seconds" => age_seconds = seconds(value)?,
                _ => {}
            }
        }
        Ok(Denial { user, reason, object, times, age_seconds })
    };
    reply::items(answer)?.into_iter().map(one).collect()
}

/// `12.345`, in either protocol.
fn seconds(value: Value) -> Result<u64, Fault> {
    let text = match value {
        Value::Double(number) => number.to_string(),
        other => reply::text(other)?,
    };
    Ok(text.split('.').next().and_then(|whole| whole.parse().ok()).unwrap_or(0))
}

#[cfg(test)]
impl Evidence {
    /// A server that says this, and nothing else.
    pub(super) fn of(info: &str, settings: &[(&str, &str)], peer: Peer) -> Self {
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let pair = |(name, value): &(&str, &str)| Value::Array(vec![text(name), text(value)]);
        let answers = std::iter::once(text(info)).chain(settings.iter().map(pair));
        let told = Told::read(answers, 1).expect("well formed");
        let nothing = || Untold("not asked".to_owned());
        Self {
            facts: Facts::of(&told),
            told,
            peer,
            clocks: Clocks { own: (0, 0), server: 0 },
            commands: Err(nothing()),
            rights: Err(nothing()),
            default_user: Err(nothing()),
            slow: Err(nothing()),
            denied: Err(nothing()),
            replicas_wanted: 0,
        }
    }
}
