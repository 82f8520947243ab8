//! What each process saw, as it saw it: one file of NDJSON per process, appended line by line, so
//! that a killed process leaves whole lines behind.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::aside::Scope;
use crate::load::Act;
use crate::{Result, time};

/// A line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// When, by the clock that all processes share.
    pub(crate) t: u64,
    #[serde(flatten)]
    pub(crate) what: What,
}

/// How a handler ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum How {
    Ok,
    Retry,
    Reject,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum What {
    /// The process runs.
    Started { pid: u32 },
    /// An event is about to be published.
    Invoke { event: String, key: u32, act: Act },
    /// It is acknowledged; `made` is when it was invoked.
    Ok { event: String, made: u64, at: String, durability: String },
    /// It is certainly not stored.
    NotStored { event: String, why: String },
    /// Nobody knows.
    Unknown { event: String, why: String },
    /// An event is about to be published that not everybody may see.
    Aside { event: String, scope: Scope },
    /// Somebody has such an event.
    Seen { event: String, by: Scope },
    /// A handler has it.
    Deliver {
        event: String,
        group: String,
        key: u32,
        attempt: u32,
        at: String,
        made: u64,
        act: Act,
        intact: bool,
    },
    /// What the handler is there for was done.
    Effect { event: String, group: String },
    /// The handler ended.
    End { event: String, group: String, how: How },
    /// The library told of something that went wrong below.
    Incident { name: String, group: Option<String>, entries: u64, text: String },
    /// Incidents that came too fast to be read.
    IncidentsMissed { count: u64 },
    /// The process ended as it was told to, and what it had counted.
    Ended { counts: Counts },
    /// Something is broken from now on.
    Fault { number: u32, name: String, evidence: Evidence, costs: Costs },
    /// It is mended, and how much of it was seen while it lasted.
    Healed { number: u32, name: String, seen: u64 },
    /// A fault could not be injected or mended as it should.
    Botched { number: u32, name: String, why: String },
    /// A process' memory and open files.
    Sample { process: String, rss_kib: u64, files: u64 },
    /// The tasks of the process.
    Tasks { count: u64 },
    /// An event as it stands in the log at the end.
    Stored { event: String, at: String, intact: bool },
    /// What the idempotent group published of an event, as it stands in its log at the end.
    Output { event: String, at: String },
    /// An entry that is no event of the load.
    Foreign { at: String },
    /// A dead letter at the end.
    Dead {
        event: Option<String>,
        group: String,
        at: String,
        cause: String,
        attempts: u32,
        error: String,
    },
    /// What a group has before it at the end.
    Left { group: String, unread: u64, pending: u64, due: u64, dead: u64 },
    /// The harness tells something.
    Note { text: String },
}

/// What a process counted itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counts {
    pub(crate) unrouted: u64,
    pub(crate) group_lost: u64,
    pub(crate) history_lost: u64,
    pub(crate) retention_lost: u64,
    pub(crate) pending_gone: u64,
    pub(crate) settle_missed: u64,
    pub(crate) finished: u64,
    pub(crate) handed_over: u64,
}

/// How the history shows that a fault had an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Evidence {
    /// The fault counted what it hit: refusals, cut connections, lost answers, dead processes.
    Counted,
    /// Nothing was acknowledged for at least half of its time.
    Stall,
}

/// What a fault may cost, whatever the client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Costs {
    Nothing,
    /// What was acknowledged in the last seconds before it.
    Recent,
    /// What was acknowledged before it was healed.
    Everything,
}

/// A history that is being written.
pub(crate) struct Writer(Mutex<File>);

impl Writer {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path);
        Ok(Self(Mutex::new(file.map_err(|error| format!("open {}: {error}", path.display()))?)))
    }

    /// Writes a line in one piece.
    ///
    /// A history with holes would accuse the library: where it cannot be written, the process ends.
    pub(crate) fn write(&self, what: What) {
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Under the lock, so that the lines of a file ascend.
        let record = Record { t: time::now(), what };
        let mut line = serde_json::to_vec(&record).expect("a record has string keys");
        line.push(b'\n');
        file.write_all(&line).expect("the history can be written");
    }

    pub(crate) fn note(&self, text: impl Into<String>) {
        self.write(What::Note { text: text.into() });
    }
}

/// A history as it was written. A last line that is cut off is left out.
pub(crate) fn read(path: &Path) -> Result<Vec<Record>> {
    let file = File::open(path).map_err(|error| format!("open {}: {error}", path.display()))?;
    let mut records = Vec::new();
    let mut lines = BufReader::new(file).lines().enumerate().peekable();
    while let Some((number, line)) = lines.next() {
        match serde_json::from_str(&line?) {
            Ok(record) => records.push(record),
            Err(_) if lines.peek().is_none() => break,
            Err(error) => {
                return Err(format!("{}:{}: {error}", path.display(), number + 1).into());
            }
        }
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_is_read_as_it_was_written_and_a_cut_line_is_left_out() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("p0-0.ndjson");
        let writer = Writer::open(&path).expect("a file");
        let what = What::Invoke { event: "p0-0/1".into(), key: 3, act: Act::Fine };
        writer.write(what.clone());
        writer.note("text");
        let mut file = OpenOptions::new().append(true).open(&path).expect("a file");
        file.write_all(b"{\"t\":12,\"kind\":\"no").expect("written");
        let records = read(&path).expect("read");
        assert_eq!(records.len(), 2);
        assert_eq!(records[0].what, what);
        assert!(records[0].t <= records[1].t);
    }
}
