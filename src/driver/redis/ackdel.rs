//! XACKDEL, which acknowledges and deletes in one step: where the server has it and lets us.

use std::sync::atomic::{AtomicU8, Ordering};

use redis::Value;

use super::connection::Commands;
use super::fault::{Fault, accept};
use super::reply;
use crate::error::Error;

const NOT_ASKED: u8 = 0;
const YES: u8 = 1;
const NO: u8 = 2;

/// Whether XACKDEL is to be used. A version tells nothing: it came with Redis 8.2, and Valkey goes
/// its own way.
#[derive(Default)]
pub(super) struct AckDel(AtomicU8);

impl AckDel {
    /// Whether to try it; the server is asked once.
    pub(super) async fn is_there(&self, commands: &Commands) -> Result<bool, Error> {
        if self.0.load(Ordering::Relaxed) == NOT_ASKED {
            let mut pipeline = redis::pipe();
            pipeline.cmd("COMMAND").arg("INFO").arg("XACKDEL");
            let mut answers = commands.ask("ask for XACKDEL", &pipeline).await?;
            let known = knows(answers.pop().unwrap_or_default());
            self.0.store(if known { YES } else { NO }, Ordering::Relaxed);
        }
        Ok(self.0.load(Ordering::Relaxed) == YES)
    }

    /// How many entries it acknowledged and deleted. Nothing where the server has no such command
    /// for us, and did nothing: another one may have taken its place, or the user may not use it.
    pub(super) fn read(&self, answer: Value) -> Result<Option<u64>, Fault> {
        match accept(answer) {
            Err(fault) if is_unusable(&fault) => {
                self.0.store(NO, Ordering::Relaxed);
                Ok(None)
            }
            answer => {
                let codes: Vec<Option<i64>> =
                    reply::items(answer?)?.into_iter().map(reply::int).collect::<Result<_, _>>()?;
                // -1 is for what was not pending.
                let done = codes.into_iter().filter(|code| code.is_some_and(|code| code > 0));
                Ok(Some(done.count() as u64))
            }
        }
    }
}

/// COMMAND INFO has nothing to say of what is not there.
fn knows(answer: Value) -> bool {
    let rows = reply::items(answer).unwrap_or_default();
    rows.into_iter().any(|row| reply::items(row).is_ok_and(|row| !row.is_empty()))
}

fn is_unusable(fault: &Fault) -> bool {
    fault.code() == "NOPERM" || fault.to_string().contains("unknown command")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> Value {
        let bytes = format!("-{text}\r\n");
        redis::parse_redis_value(bytes.as_bytes()).expect("an answer")
    }

    #[test]
    fn only_what_was_pending_counts() {
        let codes = Value::Array([1, -1, 1, 2].map(Value::Int).to_vec());
        assert_eq!(AckDel::default().read(codes).expect("read"), Some(3));
    }

    #[test]
    fn a_server_without_it_is_not_asked_again() {
        for text in ["ERR unknown command 'XACKDEL', with args", "NOPERM no permissions to run"] {
            let ackdel = AckDel(AtomicU8::new(YES));
            assert_eq!(ackdel.read(refusal(text)).expect("read"), None);
            assert_eq!(ackdel.0.load(Ordering::Relaxed), NO, "{text}");
        }
        let ackdel = AckDel(AtomicU8::new(YES));
        assert!(ackdel.read(refusal("WRONGTYPE of the wrong kind")).is_err());
        assert_eq!(ackdel.0.load(Ordering::Relaxed), YES);
    }

    #[test]
    fn a_command_is_known_by_what_is_said_of_it() {
        let row = Value::Array(vec![Value::SimpleString("xackdel".into()), Value::Int(-6)]);
        assert!(knows(Value::Array(vec![row])));
        assert!(!knows(Value::Array(vec![Value::Nil])));
        assert!(!knows(refusal("NOPERM no permissions to run")));
    }
}
