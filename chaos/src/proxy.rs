//! A TCP proxy before a server, whose faults are switched while it runs.
//!
//! It knows where requests and answers end, so an answer can be lost after its request was
//! applied, and no other. It answers the kernel's keepalive for both sides, as every proxy in user
//! space: what is silent here is found by deadlines alone.
//!
//! Where sentinels name the server, a line has a door before each server, all with the same faults,
//! and one before each sentinel, where the ports it names are those of the doors.

mod pump;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use self::pump::Pump;
use crate::Result;

/// A proxy. Dropping it closes every connection.
pub(crate) struct Proxy {
    /// Of its first door.
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    doors: Vec<Door>,
}

/// Where clients come in, and to which server they go.
struct Door {
    upstream: Arc<Mutex<PathBuf>>,
    task: JoinHandle<()>,
}

struct Shared {
    /// What passes are requests and answers; a replica's link is something else.
    is_framed: bool,
    state: watch::Sender<State>,
    plan: Mutex<Plan>,
    /// Connections that the client has not closed.
    open: Mutex<BTreeMap<u64, ()>>,
    /// What the present fault hit: connections, answers, pieces of what was written.
    hits: AtomicU64,
    /// Ports that answers name, and which they are to name instead; each has as many digits.
    ports: Vec<(u16, u16)>,
}

#[derive(Clone, Copy)]
struct State {
    refuses: bool,
    to_server: Flow,
    to_client: Flow,
    /// Connections with a lower number are cut.
    cut_before: u64,
    /// So that the other side hears it as a reset.
    resets: bool,
    /// Connections with a lower number are held, whatever else holds.
    held_before: u64,
    /// The number of the next connection.
    next: u64,
}

/// What becomes of the bytes of one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    Pass,
    /// Kept back; the connection stays open.
    Hold,
    Delay(Duration),
    /// One by one.
    Chop,
    /// So many in a second.
    Trickle(u32),
}

/// Which answers are hit: those to requests that hold a word, where they hold another.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Plan {
    pub(crate) request: &'static str,
    pub(crate) answer: &'static str,
    pub(crate) deed: Deed,
    pub(crate) left: usize,
}

/// What becomes of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Deed {
    /// Lost, with the connection, after the request was applied.
    #[default]
    Lose,
    /// A bit of the first byte is wrong.
    Spoil,
    /// A bit of an event's body is wrong: the form is right, the content is not.
    Flip,
}

impl Proxy {
    /// A proxy before the server on this socket.
    pub(crate) async fn start(upstream: PathBuf, is_framed: bool) -> Result<Self> {
        Self::open(upstream, is_framed, Vec::new()).await
    }

    /// A proxy before a sentinel, which is made to name other ports.
    pub(crate) async fn naming(upstream: PathBuf, ports: Vec<(u16, u16)>) -> Result<Self> {
        Self::open(upstream, true, ports).await
    }

    async fn open(upstream: PathBuf, is_framed: bool, ports: Vec<(u16, u16)>) -> Result<Self> {
        let state = State {
            refuses: false,
            to_server: Flow::Pass,
            to_client: Flow::Pass,
            cut_before: 0,
            resets: false,
            held_before: 0,
            next: 1,
        };
        let shared = Arc::new(Shared {
            is_framed,
            state: watch::Sender::new(state),
            plan: Mutex::default(),
            open: Mutex::default(),
            hits: AtomicU64::new(0),
            ports,
        });
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut proxy = Self { address, shared, doors: Vec::new() };
        proxy.address = proxy.add_door(upstream).await?;
        Ok(proxy)
    }

    /// Another door, before another server; its connections have the same faults.
    pub(crate) async fn add_door(&mut self, upstream: PathBuf) -> Result<SocketAddr> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let upstream = Arc::new(Mutex::new(upstream));
        let accept = accept(Arc::clone(&self.shared), Arc::clone(&upstream), listener, address);
        self.doors.push(Door { upstream, task: tokio::spawn(accept) });
        Ok(address)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        self.shared.hits.store(0, Ordering::SeqCst);
        self.shared.state.send_modify(change);
    }

    /// Leads new connections elsewhere, from every door, and closes the old ones.
    pub(crate) fn lead_to(&self, upstream: &Path) {
        for door in &self.doors {
            upstream.clone_into(&mut lock(&door.upstream));
        }
        self.change(|state| state.cut_before = state.next);
    }

    /// Everything passes; what was kept back goes on its way.
    pub(crate) fn pass(&self) {
        self.shared.state.send_modify(|state| {
            state.refuses = false;
            (state.to_server, state.to_client) = (Flow::Pass, Flow::Pass);
            state.held_before = 0;
        });
        *lock(&self.shared.plan) = Plan::default();
    }

    /// Closes every connection; with resets where asked for.
    pub(crate) fn cut(&self, resets: bool) {
        let open = lock(&self.shared.open).len() as u64;
        self.change(|state| (state.cut_before, state.resets) = (state.next, resets));
        self.shared.hits.fetch_add(open, Ordering::SeqCst);
    }

    /// Closes every connection and refuses new ones.
    pub(crate) fn refuse(&self) {
        self.cut(false);
        self.shared.state.send_modify(|state| state.refuses = true);
    }

    /// What becomes of what passes, each way.
    pub(crate) fn flow(&self, to_server: Flow, to_client: Flow) {
        self.change(|state| (state.to_server, state.to_client) = (to_server, to_client));
    }

    /// The connections that there are stay open and silent; new ones work.
    pub(crate) fn half_open(&self) {
        let open = lock(&self.shared.open).len() as u64;
        self.change(|state| state.held_before = state.next);
        self.shared.hits.fetch_add(open, Ordering::SeqCst);
    }

    /// Whether the client has given up every connection that [`half_open`](Proxy::half_open) held.
    pub(crate) fn is_found(&self) -> bool {
        let held_before = self.shared.state.borrow().held_before;
        lock(&self.shared.open).range(..held_before).next().is_none()
    }

    /// Hits answers from now on.
    pub(crate) fn hit(&self, plan: Plan) {
        self.shared.hits.store(0, Ordering::SeqCst);
        *lock(&self.shared.plan) = plan;
    }

    /// How many answers are still to be hit.
    pub(crate) fn left(&self) -> usize {
        lock(&self.shared.plan).left
    }

    /// What the present fault hit.
    pub(crate) fn hits(&self) -> u64 {
        self.shared.hits.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.cut(false);
        self.doors.iter().for_each(|door| door.task.abort());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(
    shared: Arc<Shared>,
    upstream: Arc<Mutex<PathBuf>>,
    listener: TcpListener,
    address: SocketAddr,
) {
    let mut listener = Some(listener);
    let mut state = shared.state.subscribe();
    loop {
        if state.borrow_and_update().refuses {
            listener = None;
            let _open = state.wait_for(|state| !state.refuses).await;
        }
        let door = match &listener {
            Some(door) => door,
            None => listener.insert(reopen(address).await),
        };
        tokio::select! {
            accepted = door.accept() => {
                if let Ok((client, _)) = accepted {
                    let upstream = lock(&upstream).clone();
                    tokio::spawn(serve(Arc::clone(&shared), upstream, client));
                }
            }
            _ = state.changed() => {}
        }
    }
}

/// Listens again. Somebody else may have the port as his own end for a moment.
async fn reopen(address: SocketAddr) -> TcpListener {
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return listener,
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

/// One connection, until either side ends it or it is cut.
async fn serve(shared: Arc<Shared>, upstream: PathBuf, mut client: TcpStream) {
    let mut number = 0;
    shared.state.send_if_modified(|state| {
        number = state.next;
        state.next += 1;
        false
    });
    let Ok(server) = UnixStream::connect(upstream).await else { return };
    let _slower_where_refused = client.set_nodelay(true);
    lock(&shared.open).insert(number, ());
    let mut state = shared.state.subscribe();
    {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.into_split();
        let (ask, answer) = Pump::pair(&shared, number);
        tokio::select! {
            () = ask.run(from_client, to_server) => {}
            () = answer.run(from_server, to_client) => {}
            _ = state.wait_for(|state| number < state.cut_before) => {}
        }
    }
    lock(&shared.open).remove(&number);
    if number < state.borrow().cut_before && state.borrow().resets {
        let _closed_otherwise = client.set_zero_linger();
    }
}
