//! Confirmations: `WAIT` or `WAITAOF` behind the appends of a call, in the same pipeline.
//!
//! Both wait for what their own connection wrote, up to its last write. What was stored over
//! another one (found after a lost connection, or marked by another publisher) is covered by a
//! small write of this one: what comes later has replicated when this has. They block their
//! connection, so appends have one of their own wherever they are confirmed.

use redis::{Cmd, Pipeline, Value};

use super::Appending;
use crate::delivery::{Confirm, Durability};
use crate::driver::redis::fault::{Fault, accept};
use crate::driver::redis::{Shared, reply};
use crate::error::{Error, ErrorKind};

/// How long the write that is waited for stays.
const KEPT_SECONDS: u32 = 60;

/// Why appends are not confirmed.
pub(super) enum Unconfirmed {
    /// So much had it when the time was over.
    Short(String),
    Failed(Fault),
}

/// What was put behind the appends of a pipeline.
#[derive(Clone, Copy)]
pub(super) struct Confirming {
    confirm: Confirm,
    wrote: bool,
}

impl Confirming {
    /// Takes the answers off the end of a pipeline's: what was attained, none where nothing was
    /// asked for.
    pub(super) fn read(self, values: &mut Vec<Value>) -> Result<Option<Durability>, Unconfirmed> {
        if self.confirm == Confirm::Server {
            return Ok(None);
        }
        let waited = values.pop().unwrap_or_default();
        if self.wrote {
            accept(values.pop().unwrap_or_default()).map_err(Unconfirmed::Failed)?;
        }
        judge(self.confirm, waited).map(Some)
    }
}

fn judge(confirm: Confirm, waited: Value) -> Result<Durability, Unconfirmed> {
    let waited = accept(waited).map_err(Unconfirmed::Failed)?;
    let (synced, replicas) = match confirm {
        Confirm::Fsync { .. } => {
            let mut counts = reply::items(waited).map_err(Unconfirmed::Failed)?.into_iter();
            let mut count = || reply::count(counts.next().unwrap_or_default());
            let synced = count().map_err(Unconfirmed::Failed)?;
            (synced > 0, count().map_err(Unconfirmed::Failed)?)
        }
        _ => (true, reply::count(waited).map_err(Unconfirmed::Failed)?),
    };
    let is_local = matches!(confirm, Confirm::Fsync { local: true, .. });
    let wanted = confirm.replicas();
    if (is_local && !synced) || replicas < u64::from(wanted) {
        let itself = if is_local && !synced { ", and it was not synced there" } else { "" };
        let after = confirm.timeout().unwrap_or_default();
        let text = format!("{replicas} of {wanted} replicas confirmed within {after:?}{itself}");
        return Err(Unconfirmed::Short(text));
    }
    Ok(if wanted > 0 { Durability::Replicated } else { Durability::Fsync })
}

/// How many calls may wait for their confirmations one after another, so that the answer of the
/// last still comes in time.
pub(in crate::driver::redis) fn calls_max(confirm: Confirm, response_timeout: u128) -> usize {
    match confirm.timeout() {
        None => super::CALLS_MAX,
        Some(timeout) => {
            let fit = response_timeout / timeout.as_millis().max(1);
            usize::try_from(fit.saturating_sub(1)).unwrap_or(1).clamp(1, super::CALLS_MAX)
        }
    }
}

impl Appending<'_> {
    /// Adds what confirms the appends of a pipeline, and what was found stored.
    pub(super) fn confirm(&self, sent: &[usize], pipeline: &mut Pipeline) -> Confirming {
        let confirm = self.shared.confirm;
        let plain =
            |at: &usize| self.appends[*at].delay.is_zero() && !self.appends[*at].deduplicate;
        let wrote = !self.found.is_empty() || !sent.iter().all(plain);
        if let Some(wait) = wait(confirm) {
            if wrote {
                pipeline.add_command(self.own_write());
            }
            pipeline.add_command(wait);
        }
        Confirming { confirm, wrote }
    }

    fn own_write(&self) -> Cmd {
        let mut set = redis::cmd("SET");
        let partition = &self.appends[0].partition;
        set.arg(self.shared.keys.confirm(partition)).arg(1).arg("EX").arg(KEPT_SECONDS);
        set
    }

    pub(super) fn unconfirmed(&self, at: usize, why: &Unconfirmed) -> Error {
        let (what, address) = (self.what(at), self.shared.appends.address());
        let text = match why {
            Unconfirmed::Short(short) => {
                format!("cannot confirm to {what} on {address}: it is on the primary, {short}")
            }
            Unconfirmed::Failed(fault) => {
                format!("cannot confirm to {what} on {address}: it is on the primary: {fault}")
            }
        };
        Error::new(ErrorKind::Server, text)
            .with_help("see whether the replicas are in step: INFO replication")
    }
}

fn wait(confirm: Confirm) -> Option<Cmd> {
    let millis = confirm.timeout()?.as_millis().to_string();
    Some(match confirm {
        Confirm::Server => return None,
        Confirm::Replicas { count, .. } => {
            let mut wait = redis::cmd("WAIT");
            wait.arg(count).arg(millis);
            wait
        }
        Confirm::Fsync { local, replicas, .. } => {
            let mut wait = redis::cmd("WAITAOF");
            wait.arg(u8::from(local)).arg(replicas).arg(millis);
            wait
        }
    })
}

/// Whether a refusal says that the server is no primary any more, in words of its own.
pub(super) fn is_demoted(why: &Unconfirmed) -> bool {
    matches!(why, Unconfirmed::Failed(Fault::Refused { text, .. })
        if text.contains("cannot be used with replica"))
}

impl Shared {
    /// Refuses a confirmation that the server cannot give.
    pub(in crate::driver::redis) async fn check_confirm(&self) -> Result<(), Error> {
        let Confirm::Fsync { local, .. } = self.confirm else { return Ok(()) };
        let address = self.appends.address();
        let refuse = |why: &str, help: &'static str| {
            let text = format!("cannot have appends synced on {address}: {why}");
            Err(Error::new(ErrorKind::Unsupported, text).with_help(help))
        };
        let mut info = redis::cmd("COMMAND");
        info.arg("INFO").arg("WAITAOF");
        let known = self.appends.ask_one("ask for WAITAOF", info).await;
        // A user who may not ask is taken at their word.
        if known.is_ok_and(is_unknown) {
            let help = "it came with Redis 7.2: upgrade, or use WAIT (Confirm::Replicas)";
            return refuse("the server does not know WAITAOF", help);
        }
        let what = "ask for the append-only file";
        let live = self.appends.live(&what, self.appends.deadline()).await?;
        if local && live.durability == Durability::Volatile {
            return refuse("it has no append-only file", "set appendonly to yes on the server");
        }
        Ok(())
    }
}

/// `COMMAND INFO` of a command that is not there.
fn is_unknown(info: Value) -> bool {
    match info {
        Value::Nil => true,
        Value::Map(commands) => commands.is_empty(),
        other => reply::items(other)
            .is_ok_and(|commands| commands.iter().all(|command| matches!(command, Value::Nil))),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const TIMEOUT: Duration = Duration::from_millis(500);

    fn short(confirm: Confirm, waited: Value) -> String {
        match judge(confirm, waited) {
            Err(Unconfirmed::Short(text)) => text,
            Err(Unconfirmed::Failed(fault)) => panic!("{fault}"),
            Ok(durability) => durability.to_string(),
        }
    }

    #[test]
    fn what_was_attained_is_what_was_asked_for_or_nothing() {
        let two = Confirm::Replicas { count: 2, timeout: TIMEOUT };
        assert_eq!(short(two, Value::Int(2)), "replicated");
        assert_eq!(short(two, Value::Int(1)), "1 of 2 replicas confirmed within 500ms");
        let counts = |local, replicas| Value::Array(vec![Value::Int(local), Value::Int(replicas)]);
        let local = Confirm::Fsync { local: true, replicas: 0, timeout: TIMEOUT };
        assert_eq!(short(local, counts(1, 0)), "fsync");
        assert!(short(local, counts(0, 3)).ends_with("and it was not synced there"));
        let both = Confirm::Fsync { local: true, replicas: 1, timeout: TIMEOUT };
        assert_eq!(short(both, counts(1, 1)), "replicated");
        assert!(short(both, counts(1, 0)).starts_with("0 of 1 replicas"));
    }

    #[test]
    fn the_last_confirmation_comes_before_the_answer_is_late() {
        let of = |millis| {
            let timeout = Duration::from_millis(millis);
            calls_max(Confirm::Replicas { count: 1, timeout }, 2500)
        };
        assert_eq!((of(1_000), of(500), of(1_250), of(2_500)), (1, 4, 1, 1));
        assert_eq!(calls_max(Confirm::Server, 2500), super::super::CALLS_MAX);
    }
}
