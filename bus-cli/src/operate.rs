//! What the commands that operate the store share: the connection, and how values are shown in
//! tables.

use std::sync::Arc;

use rumormill::driver::admin::{Admin, Count};
use rumormill::driver::{Driver, Tools};
use rumormill::{Clock, Error, SystemClock, Timestamp};

use crate::address::Address;
use crate::dead_letters::DeadLetters;
use crate::failure::{Exit, Failure};
use crate::groups::Groups;
use crate::metrics::Metrics;
use crate::progress::human;
use crate::settings::Connection;
use crate::topics::Topics;

/// A command that looks at the store or changes it.
pub(crate) enum Operation {
    Topics(Topics),
    Groups(Groups),
    DeadLetters(DeadLetters),
    Metrics(Metrics),
}

impl Operation {
    pub(crate) async fn run(self, connection: &Connection) -> Result<Exit, Failure> {
        let bus = crate::connect(connection).await?;
        let store = Store { driver: Arc::clone(bus.driver()), address: &connection.address };
        let exit = self.run_on(&store).await;
        crate::close(&bus).await;
        exit
    }

    async fn run_on(self, store: &Store<'_>) -> Result<Exit, Failure> {
        match self {
            Self::Topics(task) => task.run(store).await,
            Self::Groups(task) => task.run(store).await,
            Self::DeadLetters(task) => task.run(store).await,
            Self::Metrics(task) => task.run(store).await,
        }
    }
}

/// A store that answers.
pub(crate) struct Store<'a> {
    driver: Arc<dyn Driver>,
    pub(crate) address: &'a Address,
}

impl Store<'_> {
    pub(crate) fn admin(&self) -> Result<&dyn Admin, Failure> {
        self.driver.admin().ok_or_else(|| Failure::library(self.attempt(), &no_power()))
    }

    pub(crate) fn tools(&self) -> Result<&dyn Tools, Failure> {
        self.driver.tools().ok_or_else(|| Failure::library(self.attempt(), &no_power()))
    }

    /// As [`Store::admin`], for what fails as the library does.
    pub(crate) fn letters(&self) -> Result<&dyn Admin, Error> {
        self.driver.admin().ok_or_else(no_power)
    }

    /// As [`Store::tools`], for what fails as the library does.
    pub(crate) fn looks(&self) -> Result<&dyn Tools, Error> {
        self.driver.tools().ok_or_else(no_power)
    }

    fn attempt(&self) -> String {
        format!("cannot operate {}", self.address)
    }
}

fn no_power() -> Error {
    Error::invalid("its driver has no such power")
}

/// A number as a cell; `7+` where there may be more.
pub(crate) fn count(count: Count) -> String {
    format!("{}{}", count.count, if count.exact { "" } else { "+" })
}

/// A number as a word of a sentence.
pub(crate) fn count_in_words(count: Count) -> String {
    format!("{}{}", if count.exact { "" } else { "at least " }, count.count)
}

/// `1 dead letter`, `2 dead letters`.
pub(crate) fn several(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// How long ago a moment was, by this machine's clock; `-` for none.
pub(crate) fn ago(time: Option<Timestamp>) -> String {
    let now = SystemClock.now();
    time.map_or_else(nothing, |time| format!("{} ago", human(now.since(time))))
}

/// How long it is until a moment; `-` for none.
pub(crate) fn until(time: Option<Timestamp>) -> String {
    let now = SystemClock.now();
    time.map_or_else(nothing, |time| format!("in {}", human(time.since(now))))
}

/// A cell that holds nothing.
pub(crate) fn nothing() -> String {
    "-".to_owned()
}

/// Bytes with the unit that keeps the number short.
pub(crate) fn bytes(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut at = 0;
    let mut number = bytes as f64;
    while number >= 1024.0 && at + 1 < units.len() {
        number /= 1024.0;
        at += 1;
    }
    if at == 0 { format!("{bytes} B") } else { format!("{number:.1} {}", units[at]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_say_whether_there_may_be_more() {
        assert_eq!((count(Count::exact(7)), count(Count::at_least(7))), ("7".into(), "7+".into()));
        assert_eq!(count_in_words(Count::at_least(7)), "at least 7");
        assert_eq!(
            (several(1, "event"), several(2, "event")),
            ("1 event".into(), "2 events".into())
        );
        let shown = [bytes(1023), bytes(1536), bytes(3 << 30)];
        assert_eq!(shown, ["1023 B", "1.5 KiB", "3.0 GiB"]);
    }
}
