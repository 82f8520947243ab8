//! The settings of a driver, each with its default.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::Io;
use super::retention::RetentionOptions;
use crate::delivery::{Confirm, Durability};
use crate::error::Error;
use crate::time::{Clock, SystemClock};

/// Marks that are kept for longer would rather be kept by whoever asks for them.
const DEDUP_WINDOW_MAX: Duration = Duration::from_secs(366 * 24 * 60 * 60);
/// The longest time for a request in all.
const DEADLINE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// How to reach a Redis, and how to behave towards it.
#[derive(Clone)]
pub struct RedisOptions {
    /// `redis://`, `rediss://` (feature `tls`), `unix://` or `redis+unix://`, with user, password
    /// and database where there are any; or `redis+sentinel://host:26379,host:26379/MASTER`, with
    /// those of the master, which is asked for before each connection, and with
    /// `?sentinel_user=..&sentinel_password=..` where the sentinels want a login themselves.
    /// Default `redis://127.0.0.1:6379`.
    pub url: String,
    /// What every key begins with, so that many may share one Redis. Default `rm`.
    pub namespace: String,
    /// The wall clock that dates dead letters.
    pub clock: Arc<dyn Clock>,
    /// How long a read waits on the server for something to come. Default 1 s.
    pub block: Duration,
    /// How long an answer may take, connecting included; a read's must exceed `block`, since a
    /// read that is given up may still be answered to nobody. Default 2.5 s.
    pub response_timeout: Duration,
    /// How long an append or a settlement may take in all, waiting for a new connection included.
    /// Default 5 s.
    pub deadline: Duration,
    /// How often the server is asked how it is: whether it still writes its file, evicts keys, is
    /// the same. Default 10 s.
    pub watch: Duration,
    /// What the server must do at least to keep what it is given: with less, or where it does not
    /// tell, connecting fails, and later publishes are refused until it does so again.
    /// Default none.
    pub min_durability: Option<Durability>,
    /// How long an event that was published with deduplication is known by its id. Default 15 min.
    pub dedup_window: Duration,
    /// What confirms an append, beyond the server's answer. Two of its timeouts must fit into
    /// `response_timeout`. Default: nothing does.
    pub confirm: Confirm,
    /// How often each consumer notes from where its group would have to go on if it vanished, and
    /// each process looks for what was lost unseen. Default 10 s.
    pub checkpoint_every: Duration,
    /// Where connections and tasks live.
    pub io: Io,
    /// What is kept of the logs.
    pub retention: RetentionOptions,
    /// Dead letters per partition and group at which the group reads no further there, until a
    /// purge or a redrive makes room. What is in flight at that moment may still add to them.
    /// Default 100,000.
    pub dead_letters_max: u64,
}

impl Default for RedisOptions {
    fn default() -> Self {
        Self {
            url: "redis://127.0.0.1:6379".to_owned(),
            namespace: "rm".to_owned(),
            clock: Arc::new(SystemClock),
            block: Duration::from_secs(1),
            response_timeout: Duration::from_millis(2500),
            deadline: Duration::from_secs(5),
            watch: Duration::from_secs(10),
            min_durability: None,
            dedup_window: Duration::from_secs(15 * 60),
            confirm: Confirm::Server,
            checkpoint_every: Duration::from_secs(10),
            io: Io::Thread,
            retention: RetentionOptions::default(),
            dead_letters_max: 100_000,
        }
    }
}

impl fmt::Debug for RedisOptions {
    /// Leaves the url out, which may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisOptions")
            .field("namespace", &self.namespace)
            .field("block", &self.block)
            .field("response_timeout", &self.response_timeout)
            .field("deadline", &self.deadline)
            .field("watch", &self.watch)
            .field("min_durability", &self.min_durability)
            .field("dedup_window", &self.dedup_window)
            .field("confirm", &self.confirm)
            .field("checkpoint_every", &self.checkpoint_every)
            .field("io", &self.io)
            .field("retention", &self.retention)
            .field("dead_letters_max", &self.dead_letters_max)
            .finish_non_exhaustive()
    }
}

impl RedisOptions {
    /// The defaults with this url.
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), ..Self::default() }
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        if self.block.as_millis() == 0 {
            return Err(Error::invalid("block must be 1 ms at least: 0 would wait for ever"));
        }
        if self.watch.is_zero() {
            return Err(Error::invalid("watch must be more than zero: it would ask all the time"));
        }
        if self.dedup_window.as_millis() == 0 || self.dedup_window > DEDUP_WINDOW_MAX {
            return Err(Error::invalid("dedup window must be 1 ms at least and a year at most"));
        }
        if self.deadline > DEADLINE_MAX {
            return Err(Error::invalid(format!("deadline is {:?}, a day at most", self.deadline)));
        }
        self.check_confirmations()?;
        if self.checkpoint_every.as_millis() == 0 {
            return Err(Error::invalid("checkpoint_every must be 1 ms at least"));
        }
        if self.response_timeout <= self.block {
            let text = format!(
                "response timeout of {:?} does not exceed the block of {:?}",
                self.response_timeout, self.block
            );
            return Err(Error::invalid(text).with_help("a second more gives the server time"));
        }
        if self.dead_letters_max == 0 {
            return Err(Error::invalid(
                "dead_letters_max must be 1 at least: 0 would read nothing",
            ));
        }
        self.retention.check()
    }

    /// What replicas confirm must be asked for: no setting of the server brings it.
    fn check_confirmations(&self) -> Result<(), Error> {
        self.confirm.check()?;
        let replicas = self.confirm.replicas();
        if self.min_durability == Some(Durability::Replicated) && replicas == 0 {
            let text = "replicated is the least durability asked for, and no replica is waited for";
            return Err(Error::invalid(text).with_help("have replicas confirm, or ask for fsync"));
        }
        if self.confirm != Confirm::Server && self.deadline <= self.response_timeout {
            // Nothing else uses the connection of the appends, to find that nobody answers there.
            let text = format!(
                "deadline of {:?} does not exceed the response timeout of {:?}",
                self.deadline, self.response_timeout
            );
            return Err(Error::invalid(text).with_help("twice the response timeout will do"));
        }
        if let Some(timeout) = self.confirm.timeout()
            && timeout * 2 > self.response_timeout
        {
            let text = format!(
                "confirmations within {timeout:?} do not fit twice into the response timeout of \
                 {:?}",
                self.response_timeout
            );
            return Err(Error::invalid(text).with_help("shorten the one or extend the other"));
        }
        Ok(())
    }
}
