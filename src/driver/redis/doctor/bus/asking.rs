//! Asking for evidence: in pipelines of bounded length. What is refused or cannot be read is
//! noted, and does not end the look.

use std::collections::{BTreeMap, BTreeSet};

use redis::{Arg, Value};

use crate::driver::redis::Shared;
use crate::driver::redis::admin::{Look, is_absent};
use crate::driver::redis::fault::{Fault, accept};
use crate::driver::redis::script::Call;
use crate::error::Error;

/// Commands per pipeline: the answers of one are held at a time.
const PIPELINE_MAX: usize = 400;
/// The longest part of a server's words that is kept.
const WORDS_MAX: usize = 200;

/// Who asks.
pub(super) struct Asking<'a> {
    pub(super) shared: &'a Shared,
    pub(super) refused: BTreeMap<String, String>,
    pub(super) unusable: BTreeSet<String>,
}

impl<'a> Asking<'a> {
    pub(super) fn new(shared: &'a Shared) -> Self {
        Self { shared, refused: BTreeMap::new(), unusable: BTreeSet::new() }
    }

    /// Looks at keys, one answer each; nothing where there is none.
    pub(super) async fn look(&mut self, looks: &[Look]) -> Result<Vec<Value>, Error> {
        let mut answers = Vec::with_capacity(looks.len());
        for part in looks.chunks(PIPELINE_MAX) {
            let mut pipeline = redis::Pipeline::with_capacity(part.len());
            for look in part {
                pipeline.add_command(look.command.clone());
            }
            let found = self.shared.commands.ask("look at the bus", &pipeline).await?;
            for (look, answer) in part.iter().zip(found) {
                answers.push(self.accept(&verb(look), &look.key, answer)?);
            }
        }
        Ok(answers)
    }

    /// Calls scripts that only read, one answer each.
    pub(super) async fn call(&mut self, calls: &[Call], key: &str) -> Result<Vec<Value>, Error> {
        let mut answers = Vec::with_capacity(calls.len());
        for part in calls.chunks(PIPELINE_MAX) {
            for answer in self.shared.commands.call("look at the bus", part).await? {
                answers.push(self.accept("EVALSHA", key, answer)?);
            }
        }
        Ok(answers)
    }

    fn accept(&mut self, verb: &str, key: &str, answer: Value) -> Result<Value, Error> {
        let fault = match accept(answer) {
            Ok(answer) => return Ok(answer),
            Err(fault) => fault,
        };
        if fault.code() == "WRONGTYPE" {
            self.unusable.insert(key.to_owned());
        } else if fault.is_not_allowed() || is_not_allowed_in_script(&fault) {
            self.note(verb, &fault);
        } else if !is_absent(&fault) {
            let what = format!("look at key {key}");
            return Err(self.shared.commands.error(what, &fault));
        }
        Ok(Value::Nil)
    }

    /// What an answer says; what cannot be read is as good as nothing, and noted.
    pub(super) fn read<T: Default>(&mut self, verb: &str, read: Result<T, Fault>) -> T {
        read.unwrap_or_else(|fault| {
            self.note(verb, &fault);
            T::default()
        })
    }

    fn note(&mut self, verb: &str, fault: &Fault) {
        let words: String = fault.to_string().chars().take(WORDS_MAX).collect();
        self.refused.entry(verb.to_owned()).or_insert(words);
    }
}

/// A script may be called, and what it does may not be done.
fn is_not_allowed_in_script(fault: &Fault) -> bool {
    let text = fault.to_string();
    text.contains("NOPERM") || text.contains("ACL failure in script")
}

/// The first word of a command.
fn verb(look: &Look) -> String {
    match look.command.args_iter().next() {
        Some(Arg::Simple(word)) => String::from_utf8_lossy(word).into_owned(),
        _ => String::new(),
    }
}
