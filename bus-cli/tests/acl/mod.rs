//! Users as the files of `acl/` make them, and what the library says where a rule is missing.
#![allow(dead_code, unreachable_pub, reason = "shared by tests, none of which needs all of it")]

use std::io::Write;
use std::sync::{Mutex, PoisonError};

use crate::server::{Reply, Server};

/// What everything in this process logged.
static LOG: Mutex<Vec<u8>> = Mutex::new(Vec::new());

struct Log;

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        LOG.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Keeps what is logged from now on.
pub fn keep_log() {
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(|| Log);
    let _already = subscriber.with_max_level(tracing::Level::WARN).try_init();
    forget_log();
}

pub fn forget_log() {
    LOG.lock().unwrap_or_else(PoisonError::into_inner).clear();
}

pub fn log() -> String {
    String::from_utf8_lossy(&LOG.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
}

/// The rules that a text says are needed.
pub fn needed(text: &str) -> Vec<String> {
    let told = text.split("this user needs ").skip(1);
    let rules = told.flat_map(|rest| {
        let line = rest.lines().next().unwrap_or_default();
        let rules = line.split([' ', '"', ',', ';', ')']);
        rules.take_while(|word| word.starts_with(['+', '~', '%'])).map(str::to_owned)
    });
    rules.collect()
}

/// A role: the words of its file after the user's name.
pub struct Role {
    pub name: &'static str,
    words: Vec<String>,
}

impl Role {
    /// The role's file.
    pub fn text(name: &str) -> String {
        let path = format!("{}/../acl/{name}.acl", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(&path).expect("the role's file")
    }

    pub fn read(name: &'static str) -> Self {
        let text = Self::text(name);
        let mut words = text.split_whitespace().map(str::to_owned);
        assert_eq!((words.next().as_deref(), words.next().as_deref()), (Some("user"), Some(name)));
        Self { name, words: words.collect() }
    }

    /// Every rule that allows something, by its place.
    pub fn rules(&self) -> Vec<(usize, String)> {
        let bare = |word: &String| word.trim_matches(['(', ')']).to_owned();
        let rules = self.words.iter().map(bare).enumerate();
        rules.filter(|(_, rule)| rule.starts_with(['+', '~', '%'])).collect()
    }

    /// Makes the user, without the rule at a place.
    pub fn apply(&self, server: &Server, without: Option<usize>) {
        let mut command = vec!["ACL".to_owned(), "SETUSER".to_owned(), self.name.to_owned()];
        for (at, word) in self.words.iter().enumerate() {
            let rule = word.trim_matches(['(', ')']);
            let kept = if without == Some(at) { word.replace(rule, "") } else { word.clone() };
            command.extend(Some(kept).filter(|word| !word.is_empty()));
        }
        assert_eq!(server.ask(&command).text(), "OK");
    }

    /// The address of this user.
    pub fn url(&self, server: &Server) -> String {
        format!("{}?user={}&pass=CHANGE-ME", server.url(), self.name)
    }

    /// What a command answers to this user, by hand.
    pub fn say(&self, server: &Server, command: &str) -> Reply {
        let mut session = server.session().expect("a connection");
        session.say(&format!("AUTH {} CHANGE-ME", self.name));
        session.send(&command.split_whitespace().collect::<Vec<_>>()).expect("it listens");
        session.answer().expect("an answer")
    }

    /// Fails unless this user may not do it.
    pub fn refuses(&self, server: &Server, command: &str) {
        match self.say(server, command) {
            Reply::Error(error) if error.starts_with("NOPERM") => {}
            other => panic!("{} may {command}: {other:?}", self.name),
        }
    }
}
