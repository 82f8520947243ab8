//! A TCP proxy before a server, whose faults are switched while it runs.
//!
//! It knows where requests and answers end, so an answer can be lost after its request was
//! applied, and no other. It answers the kernel's keepalive for both sides, as every proxy in user
//! space: what is silent here is found by deadlines alone.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::resp;

/// Most bytes that a direction keeps back.
const KEPT_MAX: usize = 8 << 20;

/// A proxy. Dropping it closes every connection.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    upstream: PathBuf,
    state: watch::Sender<State>,
    plan: Mutex<Plan>,
    /// Connections that the client has not closed, by number.
    open: Mutex<BTreeSet<u64>>,
}

#[derive(Clone, Copy)]
struct State {
    refuses: bool,
    to_server: Flow,
    to_client: Flow,
    /// Connections with a lower number are cut.
    cut_before: u64,
    /// Connections with a lower number are held, whatever else holds.
    held_before: u64,
    /// The number of the next connection.
    next: u64,
}

/// What becomes of the bytes of one direction.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    Pass,
    /// Kept back; the connection stays open.
    Hold,
    Delay(Duration),
    /// One by one.
    Chop,
}

/// What becomes of single answers.
#[derive(Default)]
struct Plan {
    request: &'static str,
    answer: &'static str,
    spoils: bool,
    left: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    ToServer,
    ToClient,
}

impl Proxy {
    /// A proxy before the server on this socket.
    pub async fn start(upstream: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let state = State {
            refuses: false,
            to_server: Flow::Pass,
            to_client: Flow::Pass,
            cut_before: 0,
            held_before: 0,
            next: 1,
        };
        let state = watch::Sender::new(state);
        let shared = Shared { upstream, state, plan: Mutex::default(), open: Mutex::default() };
        let shared = Arc::new(shared);
        let task = tokio::spawn(accept(Arc::clone(&shared), listener, address));
        Self { address, shared, task }
    }

    /// The url of the server behind it.
    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        self.shared.state.send_modify(change);
    }

    /// Everything passes; what was kept back goes on its way.
    pub fn pass(&self) {
        self.change(|state| {
            state.refuses = false;
            (state.to_server, state.to_client) = (Flow::Pass, Flow::Pass);
            state.held_before = 0;
        });
    }

    /// Closes every connection.
    pub fn cut(&self) {
        self.change(|state| state.cut_before = state.next);
    }

    /// Closes every connection and refuses new ones.
    pub fn refuse(&self) {
        self.change(|state| (state.refuses, state.cut_before) = (true, state.next));
    }

    /// Swallows everything, of new connections too.
    pub fn black_hole(&self) {
        self.change(|state| (state.to_server, state.to_client) = (Flow::Hold, Flow::Hold));
    }

    /// Requests pass, no answer does.
    pub fn swallow_answers(&self) {
        self.change(|state| state.to_client = Flow::Hold);
    }

    /// The connections that there are stay open and silent; new ones work.
    pub fn half_open(&self) {
        self.change(|state| state.held_before = state.next);
    }

    /// Whether the client has given up every connection that [`half_open`](Proxy::half_open) held.
    pub fn is_found(&self) -> bool {
        let held_before = self.shared.state.borrow().held_before;
        self.shared.open().range(..held_before).next().is_none()
    }

    /// Keeps everything back for `time`, both ways.
    pub fn delay(&self, time: Duration) {
        self.change(|state| {
            (state.to_server, state.to_client) = (Flow::Delay(time), Flow::Delay(time));
        });
    }

    /// Bytes go one by one, both ways.
    pub fn chop(&self) {
        self.change(|state| (state.to_server, state.to_client) = (Flow::Chop, Flow::Chop));
    }

    /// The next `count` answers to requests that hold `request` are lost, with their connections,
    /// where they hold `answer`.
    pub fn lose(&self, request: &'static str, answer: &'static str, count: usize) {
        *self.shared.plan() = Plan { request, answer, spoils: false, left: count };
    }

    /// The next `count` answers to requests that hold `request` arrive with their first byte
    /// wrong.
    pub fn spoil(&self, request: &'static str, count: usize) {
        *self.shared.plan() = Plan { request, answer: "", spoils: true, left: count };
    }

    /// How many answers are still to be lost or spoiled.
    pub fn left(&self) -> usize {
        self.shared.plan().left
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.cut();
        self.task.abort();
    }
}

impl Shared {
    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self) -> MutexGuard<'_, BTreeSet<u64>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn flow(&self, number: u64, direction: Direction) -> Flow {
        match direction {
            _ if number < self.held_before => Flow::Hold,
            Direction::ToServer => self.to_server,
            Direction::ToClient => self.to_client,
        }
    }
}

async fn accept(shared: Arc<Shared>, listener: TcpListener, address: SocketAddr) {
    let mut listener = Some(listener);
    let mut state = shared.state.subscribe();
    loop {
        if state.borrow_and_update().refuses {
            listener = None;
            let _open = state.wait_for(|state| !state.refuses).await;
        }
        let door = match &listener {
            Some(door) => door,
            None => listener.insert(TcpListener::bind(address).await.expect("the port is kept")),
        };
        tokio::select! {
            accepted = door.accept() => {
                if let Ok((client, _)) = accepted {
                    tokio::spawn(serve(Arc::clone(&shared), client));
                }
            }
            _ = state.changed() => {}
        }
    }
}

/// One connection, until either side ends it or it is cut.
async fn serve(shared: Arc<Shared>, client: TcpStream) {
    let mut number = 0;
    shared.state.send_if_modified(|state| {
        number = state.next;
        state.next += 1;
        false
    });
    let Ok(server) = UnixStream::connect(&shared.upstream).await else { return };
    let _slower_where_refused = client.set_nodelay(true);
    shared.open().insert(number);
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let asked = Arc::new(Mutex::new(VecDeque::new()));
    let pump = |direction| Pump {
        shared: Arc::clone(&shared),
        state: shared.state.subscribe(),
        number,
        direction,
        asked: Arc::clone(&asked),
        kept: BytesMut::new(),
    };
    let (ask, answer) = (pump(Direction::ToServer), pump(Direction::ToClient));
    let mut state = shared.state.subscribe();
    tokio::select! {
        () = ask.run(from_client, to_server) => {}
        () = answer.run(from_server, to_client) => {}
        _ = state.wait_for(|state| number < state.cut_before) => {}
    }
    shared.open().remove(&number);
}

/// One direction of a connection.
struct Pump {
    shared: Arc<Shared>,
    state: watch::Receiver<State>,
    number: u64,
    direction: Direction,
    /// For each request without an answer, whether the plan is about it.
    asked: Arc<Mutex<VecDeque<bool>>>,
    kept: BytesMut,
}

impl Pump {
    async fn run(mut self, mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
        let mut ended = false;
        loop {
            tokio::select! {
                read = from.read_buf(&mut self.kept), if !ended && self.kept.len() < KEPT_MAX => {
                    ended = !matches!(read, Ok(count) if count > 0);
                }
                _ = self.state.changed() => {}
            }
            if ended && self.direction == Direction::ToServer {
                self.shared.open().remove(&self.number);
            }
            let flow = self.state.borrow_and_update().flow(self.number, self.direction);
            if flow == Flow::Hold {
                continue;
            }
            let (out, goes_on) = self.take();
            if write(&mut to, &out, flow).await.is_err() || !goes_on || ended {
                return;
            }
        }
    }

    /// What may be written; false where the connection ends after it.
    fn take(&mut self) -> (BytesMut, bool) {
        let mut out = BytesMut::new();
        while let Some(length) = resp::length(&self.kept) {
            let mut one = self.kept.split_to(length);
            match self.direction {
                Direction::ToServer => self.note(&one),
                Direction::ToClient if self.is_struck(&one) => {
                    if !self.shared.plan().spoils {
                        return (out, false);
                    }
                    one[0] ^= 0x40;
                }
                Direction::ToClient => {}
            }
            out.unsplit(one);
        }
        (out, true)
    }

    fn asked(&self) -> MutexGuard<'_, VecDeque<bool>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, request: &[u8]) {
        let plan = self.shared.plan();
        self.asked().push_back(plan.left > 0 && holds(request, plan.request));
    }

    /// Whether the plan is about this answer.
    fn is_struck(&self, answer: &[u8]) -> bool {
        let planned = self.asked().pop_front().unwrap_or(false);
        let mut plan = self.shared.plan();
        let struck = planned && plan.left > 0 && holds(answer, plan.answer);
        plan.left -= usize::from(struck);
        struck
    }
}

fn holds(bytes: &[u8], part: &str) -> bool {
    part.is_empty() || bytes.windows(part.len()).any(|window| window == part.as_bytes())
}

async fn write(
    to: &mut (impl AsyncWrite + Unpin),
    mut bytes: &[u8],
    flow: Flow,
) -> std::io::Result<()> {
    match flow {
        // waits: as long as the line is slow
        Flow::Delay(time) if !bytes.is_empty() => tokio::time::sleep(time).await,
        Flow::Chop => {
            while bytes.has_remaining() {
                to.write_u8(bytes.get_u8()).await?;
                tokio::task::yield_now().await;
            }
        }
        _ => {}
    }
    to.write_all(bytes).await
}
