//! The Redis Streams driver, for Redis 7.0 and later and for Valkey.
//!
//! A topic's partition is one stream, a group is a consumer group on it, an entry is a batch of
//! events. `docs/wire.md` describes every key and byte for clients in other languages; here is
//! how the driver works, and where it went another way than first planned.
//!
//! - **Threads and connections** (`io`, `connection`). A driver owns one thread with a runtime for
//!   its connections and tasks. One command connection is shared by everything that does not
//!   block; the supervisor alone replaces it, after a lost connection or an answer that did not
//!   come. Each reader has a connection of its own, as has [`Tools::read`].
//! - **Sockets** (`socket`, `resp`). A command is written by the thread that sends it; a task on
//!   the driver's runtime reads the answers. All of this was the `redis` crate's at first: a task
//!   of its own between the two, and a parser that took a third of the thread where each event is
//!   an entry. Its connection still serves TLS, Unix sockets and RESP3.
//! - **The server** (`connector`, `sentinel`, `facts`, `watch`). A connection is made to what says
//!   that it is a primary. Sentinels are asked for it each time, and each second whether it still
//!   is: one that was replaced takes writes for seconds more. What the server does to keep what it
//!   is given is asked at each connect and every 10 s.
//! - **Appends** (`append`). One XADD per batch, each partition's calls in the order in which they
//!   were first polled: by tickets. A refusal is certain (`NotStored`); what has no answer is
//!   looked up over the next connection before it is sent again (`append/doubt`). `WAIT` blocks its
//!   connection, so appends that are to be confirmed have one of their own.
//! - **Reads** (`reader`). One task per 16 partitions, 32 streams. It asks for what
//!   [`Source::fetch`](crate::driver::Source::fetch) waits for and nothing beyond: once something
//!   was handed over, the next fetch has to ask again. A standing budget would let a consumer
//!   that has stopped fetching hold back work from its peers. Each read asks for the epoch of the
//!   group's routes and the number of topics as well, and follows both before it goes on.
//! - **Acks** (`ride`, `settle`). Acks board a reader that is between two reads, and leave with
//!   its next write, where it comes at once; else they take the command connection. They are a
//!   request of their own in the same write, since a pipeline is answered as a whole, and the
//!   read in it may block. Where much room is left the next one mostly comes at once, and
//!   acks wait for it, 2 ms at most.
//! - **Settlements** (`settle`, `step`, `scripts/settle.lua`). What is not a plain ack of an entry
//!   that was handed out once is one fenced script. It checks the types of all keys before it
//!   writes, so that a step is never half done. A retry entry holds one event and keeps no
//!   progress: its id may be that of a log entry, and the progress hash is keyed by id.
//! - **Handled events** (`handled`). What a group handles once per id is noted by `settle.lua`
//!   itself, in the step that ends the delivery and adds its outputs.
//! - **Leases** (`lease`, `renew`, `claim`). One task per subscription renews, then says that the
//!   consumer lives, then sweeps, in small steps with pauses between them, and not for a lease
//!   after the server's clock has jumped. After it went back, what was handed out in the future
//!   is made to be idle from now on (`clock`). An entry of our own that a sweep claimed gets its
//!   delivery count back. After a reconnect the old connection is killed, so that its blocked read
//!   takes nothing, and what is pending for this consumer but not in flight here is claimed.
//! - **Strangers** (`renew`, `settle`). An entry that is pending for nobody was settled, or went
//!   with its consumer, which a stranger deleted. This consumer knows which, where it said nothing
//!   of its end and its lease did not lapse by its own clock: then renewal and settlement take the
//!   entry back. Nothing is settled meanwhile, or an acknowledged entry might come back. Of an
//!   entry that was handed out before, its first holder may have acknowledged the whole; that is
//!   told apart by whether the consumer is still there.
//! - **Suspects** (`begin`, `scripts/begin.lua`). The notes are a hash of their own, by the entry's
//!   id in the retry stream, so that the end of the entry can take its note along.
//! - **Ends of consumers** (`leave`, `scripts/leave.lua`). One script looks and deletes, since what
//!   is pending for a deleted consumer goes with it. Who leaves something behind counts as dead.
//! - **Groups** (`subscribe`, `coverage`, `groups`). A new group begins at the start asked for,
//!   except on topics that a pattern it had registered covers: those appeared while it was down,
//!   and are read from their first entry, as are topics that appear later. Groups are made before
//!   the routes are registered, so whoever sees the routes may rely on the groups. A group with a
//!   checkpoint has vanished where it is missing: `group.lua` makes it again there, or at 0 where
//!   the log's last id or its count of entries went back.
//! - **Losses** (`losses`, `history`). Rounds every 10 s, and looks before reads that may be
//!   behind. What was trimmed unread is noted in the group's entries-read, so that of several
//!   members one counts it. `lag` is not relied upon for how many; where it is less than the log
//!   has, nothing was trimmed that a group in the midst of the log had to read, which a look before
//!   a read is content with.
//! - **Routes** (`routes`, `scripts/routes.lua`). The count of changes is field `~epoch`, which
//!   no pattern can be called. Of two versions of a pattern the newer one stands until nobody has
//!   said it for a day.
//! - **Schedule** (`schedule`). One task moves what is due, at least every second, sooner where
//!   it knows of something. It also is the sign of life of the command connection.
//! - **Retention** (`retention`, `scripts/turn.lua`, `scripts/trim.lua`). One task per driver; of
//!   all processes, one per partition and ten seconds has the turn. A step looks at the groups,
//!   trims and counts what each of them loses in one script, of a few milliseconds at most. Losses
//!   are counted by the ids that go: `entries-read` and `lag` drift once something unread was
//!   trimmed. `XTRIM ... ACKED` is not used: its approximate form deleted nothing on Redis 8.2.3,
//!   its exact form takes no LIMIT, and it never passes a group that is gone.
//! - **Dead letters** (`dead_cap`). At their cap the readers leave the partition's streams out.
//!
//! What is not here yet: Cluster, which is refused by name.

mod ackdel;
mod address;
mod admin;
mod append;
mod begin;
mod bench;
mod claim;
mod clock;
mod connection;
mod connector;
mod coverage;
mod dead_cap;
mod denied;
mod doctor;
mod facts;
mod fault;
mod flight;
mod follow;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod groups;
mod handled;
mod history;
mod id;
mod io;
mod keys;
mod lease;
mod leave;
mod losses;
mod member;
mod options;
mod parking;
mod probe;
mod reader;
mod renew;
mod renewals;
mod reply;
mod resp;
mod retention;
mod ride;
mod routes;
mod schedule;
mod script;
mod sentinel;
mod settle;
mod socket;
mod step;
mod subscribe;
mod tools;
mod topics;
mod watch;
mod wire;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::address::Address;
use self::connection::Commands;
use self::connector::Connector;
pub use self::doctor::checks;
use self::io::Runtime;
use self::keys::Keys;
use self::member::Member;
pub use self::options::RedisOptions;
pub use self::retention::RetentionOptions;
use self::retention::Trimmer;
use self::schedule::Schedule;
use self::socket::Socket;
use self::watch::Standing;
use crate::delivery::Confirm;
use crate::driver::admin::Admin;
use crate::driver::monitor::Monitor;
use crate::driver::{
    Append, Appended, Driver, Feed, Follow, Followed, GroupName, Maintained, Publish, Subscribe,
    Subscription, Tools, TopicShape,
};
use crate::error::{Error, PublishError};
use crate::event_type::Topic;
use crate::pattern::Pattern;
use crate::time::Clock;
use crate::trouble::Troubles;

/// Where the driver's connections and tasks live.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Io {
    /// On a thread of the driver's own, named `rumormill-io`: a handler that blocks its runtime
    /// does not stop leases from being renewed, and a runtime that ends takes no connection along.
    /// An event changes threads once more on its way to a handler for it, and a receipt on its way
    /// to who published. What is published is written on the runtime where that is done, if it has
    /// several threads: one that a handler blocks may hold it up, and where it ends, what was under
    /// way of others that publish to the same partition is `Unknown`.
    #[default]
    Thread,
    /// On the runtime that `connect` is called on, which must outlive the driver: events are
    /// handled sooner where few come (`rumormill-current` in `docs/benchmarks.md`). Leases are
    /// renewed while that runtime has a thread to spare.
    Current,
}

/// What all parts of a driver share.
struct Shared {
    keys: Keys,
    clock: Arc<dyn Clock>,
    block: Duration,
    retention: RetentionOptions,
    dead_letters_max: u64,
    ackdel: ackdel::AckDel,
    connector: Arc<Connector>,
    commands: Arc<Commands>,
    standing: Arc<Standing>,
    monitor: Arc<Monitor>,
    troubles: Troubles,
    history: history::History,
    unusable: losses::Unusable,
    schedule: Arc<Schedule>,
    runtime: Runtime,
    /// The connection of the appends.
    appends: Arc<Commands>,
    /// Who appends: a name that no other driver has.
    publisher: String,
    lines: append::Lines,
    dedup_window: Duration,
    confirm: Confirm,
    room: tokio::sync::Semaphore,
    known: Mutex<topics::Known>,
    members: Mutex<Vec<Weak<Member>>>,
    /// The connection of [`Tools::read`].
    tail: tokio::sync::Mutex<Option<Socket>>,
    /// Appends and settlements that are under way.
    requests: TaskTracker,
    closing: CancellationToken,
}

impl Shared {
    fn new(options: &RedisOptions) -> Result<Self, Error> {
        options.check()?;
        let address = Address::parse(&options.url)?;
        let connector = Arc::new(Connector::new(address, options.response_timeout));
        let monitor = Arc::new(Monitor::default());
        let watched = monitor.watch("commands".to_owned());
        let standing = Standing::new(Arc::clone(&monitor), options.min_durability);
        let standing = Arc::new(standing);
        let commands =
            Commands::new(Arc::clone(&connector), options.deadline, watched, Arc::clone(&standing));
        let commands = Arc::new(commands);
        // WAIT blocks its connection, and nothing else is to wait for replicas.
        let appends = if options.confirm == Confirm::Server {
            Arc::clone(&commands)
        } else {
            let watched = monitor.watch("appends".to_owned());
            let (connector, standing) = (Arc::clone(&connector), Arc::clone(&standing));
            Arc::new(Commands::new(connector, options.deadline, watched, standing))
        };
        let calls_max = append::calls_max(options.confirm, options.response_timeout.as_millis());
        Ok(Self {
            keys: Keys::new(&options.namespace)?,
            clock: Arc::clone(&options.clock),
            block: options.block,
            retention: options.retention.clone(),
            dead_letters_max: options.dead_letters_max,
            ackdel: ackdel::AckDel::default(),
            connector,
            commands,
            standing,
            monitor,
            troubles: Troubles::default(),
            history: Default::default(),
            unusable: Default::default(),
            schedule: Arc::default(),
            runtime: Runtime::start(options.io)?,
            appends,
            publisher: uuid::Uuid::new_v4().simple().to_string(),
            lines: append::Lines::default(),
            dedup_window: options.dedup_window,
            confirm: options.confirm,
            room: tokio::sync::Semaphore::new(calls_max),
            known: Mutex::default(),
            members: Mutex::default(),
            tail: tokio::sync::Mutex::new(None),
            requests: TaskTracker::new(),
            closing: CancellationToken::new(),
        })
    }

    /// Makes the first connections.
    async fn connect(&self) -> Result<(), Error> {
        self.commands.connect().await?;
        if self.appends_apart() {
            self.appends.connect().await?;
        }
        self.check_confirm().await
    }

    fn appends_apart(&self) -> bool {
        !Arc::ptr_eq(&self.commands, &self.appends)
    }

    fn topics(&self) -> MutexGuard<'_, topics::Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn members(&self) -> MutexGuard<'_, Vec<Weak<Member>>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn block_millis(&self) -> u64 {
        u64::try_from(self.block.as_millis()).unwrap_or(u64::MAX)
    }

    /// Keeps track of a consumer.
    fn enter(&self, member: &Arc<Member>) {
        let mut members = self.members();
        members.retain(|member| member.strong_count() > 0);
        members.push(Arc::downgrade(member));
    }

    /// A source was dropped: its readers are woken, so that they end, and its heartbeat with it.
    fn farewell(&self, member: &Arc<Member>) {
        let member = Arc::clone(member);
        self.runtime.spawn(async move {
            member.stop_reading().await;
            // Where this fails the heartbeat ages by itself.
            let _forgotten = member.leave().await;
        });
    }
}

/// A Redis with the driver's meaning. Dropping it tells its tasks to stop; [`Driver::close`]
/// waits for them.
pub struct RedisDriver {
    shared: Arc<Shared>,
}

impl fmt::Debug for RedisDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = self.shared.connector.address();
        f.debug_struct("RedisDriver").field("address", &address).finish_non_exhaustive()
    }
}

impl RedisDriver {
    /// Connects, and asks the server what it is.
    ///
    /// # Errors
    /// Where the options contradict each other, the server cannot be reached, refuses the login,
    /// is no Redis or one older than 7.0. The error names the address, never the password.
    pub async fn connect(options: RedisOptions) -> Result<Arc<Self>, Error> {
        let shared = Arc::new(Shared::new(&options)?);
        let connecting = Arc::clone(&shared);
        let connected = shared.runtime.spawn(async move { connecting.connect().await }).await;
        if let Err(error) = connected.unwrap_or_else(|_| Err(connection::closed(&"connect"))) {
            shared.runtime.join().await;
            return Err(error);
        }
        let stop = || shared.runtime.stop().clone();
        let commands = || Arc::clone(&shared.commands);
        shared.runtime.spawn(commands().supervise(stop()));
        if shared.appends_apart() {
            shared.runtime.spawn(Arc::clone(&shared.appends).supervise(stop()));
        }
        shared.runtime.spawn(Arc::clone(&shared.schedule).run(commands(), stop()));
        shared.runtime.spawn(Arc::clone(&shared.connector).follow(stop()));
        let standing = Arc::clone(&shared.standing);
        shared.runtime.spawn(watch::run(standing, commands(), options.watch, stop()));
        let every = options.checkpoint_every;
        shared.runtime.spawn(losses::Rounds::new(&shared, every).run(stop()));
        shared.runtime.spawn(Trimmer::new(Arc::clone(&shared)).run());
        Ok(Arc::new(Self { shared }))
    }
}

impl Drop for RedisDriver {
    fn drop(&mut self) {
        self.shared.closing.cancel();
        self.shared.commands.close();
        self.shared.appends.close();
        self.shared.runtime.stop().cancel();
    }
}

#[async_trait]
impl Driver for RedisDriver {
    fn parks_keys(&self) -> bool {
        true
    }

    fn marks_handled(&self) -> bool {
        true
    }

    fn tools(&self) -> Option<&dyn Tools> {
        Some(&*self.shared)
    }

    fn admin(&self) -> Option<&dyn Admin> {
        Some(&*self.shared)
    }

    fn broadcasts(&self) -> Option<&dyn Follow> {
        Some(self)
    }

    fn runtime(&self) -> Option<&tokio::runtime::Handle> {
        Some(self.shared.runtime.handle())
    }

    fn monitor(&self) -> Option<&Arc<Monitor>> {
        Some(&self.shared.monitor)
    }

    async fn maintain(&self) -> Result<Maintained, Error> {
        self.shared.watch_everything().await
    }

    async fn close(&self) {
        let shared = &self.shared;
        shared.closing.cancel();
        // What was accepted is answered first, within its own deadline.
        shared.requests.close();
        shared.requests.wait().await;
        let members: Vec<Arc<Member>> = shared.members().iter().filter_map(Weak::upgrade).collect();
        for member in &members {
            member.closed.cancel();
        }
        // Readers end while there is still a command connection to wake them with.
        for member in &members {
            member.stop_reading().await;
            let _forgotten = member.leave().await;
        }
        *shared.tail.lock().await = None;
        // Then leases, schedule and connections, and the thread last.
        shared.appends.close();
        shared.commands.close();
        shared.runtime.join().await;
    }
}

#[async_trait]
impl Publish for RedisDriver {
    async fn declare(&self, topic: &Topic) -> Result<TopicShape, Error> {
        self.shared.declare_topic(topic).await
    }

    async fn append(&self, appends: Vec<Append>) -> Vec<Result<Appended, PublishError>> {
        self.shared.append_all(appends).await
    }
}

#[async_trait]
impl Subscribe for RedisDriver {
    async fn subscribe(&self, subscription: Subscription) -> Result<Feed, Error> {
        subscribe::subscribe(&self.shared, subscription).await
    }
}

#[async_trait]
impl Follow for RedisDriver {
    async fn follow(&self, name: &GroupName, patterns: &[Pattern]) -> Result<Followed, Error> {
        follow::follow(&self.shared, name, patterns).await
    }
}
