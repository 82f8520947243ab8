//! Between a driver and its server: loses requests and replies where a test says so.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rumormill::driver::redis::RedisOptions;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::kit;
use crate::server::Server;

/// A socket whose connections lead to a server.
pub(crate) struct Proxy {
    directory: tempfile::TempDir,
    loss: Arc<Mutex<Option<Loss>>>,
    lost: Arc<AtomicUsize>,
    held: watch::Sender<bool>,
    late: watch::Sender<bool>,
    delay: watch::Sender<Duration>,
    accepting: JoinHandle<()>,
}

/// What becomes of the next requests of a kind.
#[derive(Clone, Copy)]
pub(crate) struct Loss {
    /// What is in them.
    pub(crate) of: &'static str,
    /// So many reach the server and are done there; their replies are lost.
    pub(crate) done: usize,
    /// So many are waited for; then the client's connection is closed.
    pub(crate) seen: usize,
    /// The rest reaches the server when [`Proxy::deliver`] says so.
    pub(crate) late: bool,
}

impl Proxy {
    pub(crate) fn start(server: &Server) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let listener = UnixListener::bind(directory.path().join("socket")).expect("a socket");
        let (loss, lost) = (Arc::default(), Arc::default());
        let held = watch::Sender::new(false);
        let late = watch::Sender::new(false);
        let delay = watch::Sender::new(Duration::ZERO);
        let way = (listener, held.subscribe(), delay.subscribe(), server.socket());
        let losses = (Arc::clone(&loss), Arc::clone(&lost), late.subscribe());
        let accepting = tokio::spawn(accept(way, losses));
        Self { directory, loss, lost, held, late, delay, accepting }
    }

    pub(crate) fn options(&self, server: &Server) -> RedisOptions {
        let url = format!("unix://{}", self.directory.path().join("socket").display());
        RedisOptions { url, ..kit::options(server) }
    }

    pub(crate) fn lose(&self, loss: Loss) {
        *self.loss.lock().expect("no test panics under it") = Some(loss);
    }

    /// Keeps new connections waiting.
    pub(crate) fn hold(&self, held: bool) {
        self.held.send_replace(held);
    }

    /// Keeps each answer back for so long.
    pub(crate) fn slow(&self, delay: Duration) {
        self.delay.send_replace(delay);
    }

    /// Lets the server have what is late; it counts as lost once more.
    pub(crate) fn deliver(&self) {
        self.late.send_replace(true);
    }

    /// How many connections were closed with what was asked to be lost.
    pub(crate) fn lost(&self) -> usize {
        self.lost.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

type Losses = (Arc<Mutex<Option<Loss>>>, Arc<AtomicUsize>, watch::Receiver<bool>);

type Way = (UnixListener, watch::Receiver<bool>, watch::Receiver<Duration>, PathBuf);

async fn accept((listener, mut held, delay, to): Way, losses: Losses) {
    loop {
        let (client, _) = listener.accept().await.expect("accepts");
        held.wait_for(|held| !held).await.map(drop).expect("the proxy is there");
        let Ok(server) = UnixStream::connect(&to).await else { continue };
        let ((from_client, to_client), (from_server, to_server)) =
            (client.into_split(), server.into_split());
        let replies = watch::Sender::new(Replies { muted: false, ended: false, seen: 0 });
        tokio::spawn(answer(from_server, to_client, replies.clone(), delay.clone()));
        tokio::spawn(forward(from_client, to_server, replies, losses.clone()));
    }
}

#[derive(Clone, Copy)]
struct Replies {
    muted: bool,
    ended: bool,
    /// Bulk strings, arrays and numbers since then: what XADD and scripts answer with.
    seen: usize,
}

async fn answer(
    mut server: OwnedReadHalf,
    mut client: OwnedWriteHalf,
    replies: watch::Sender<Replies>,
    delay: watch::Receiver<Duration>,
) {
    let mut bytes = vec![0; 1 << 16];
    let mut ended = replies.subscribe();
    loop {
        let length = tokio::select! {
            read = server.read(&mut bytes) => read.unwrap_or(0),
            _ = ended.wait_for(|replies| replies.ended) => 0,
        };
        if length == 0 {
            return;
        }
        let late = *delay.borrow();
        // waits: as long as an answer is to take
        tokio::time::sleep(late).await;
        if replies.borrow().muted {
            let is_reply = |byte: &&u8| matches!(**byte, b'$' | b'*' | b':');
            let seen = bytes[..length].iter().filter(is_reply).count();
            replies.send_modify(|replies| replies.seen += seen);
        } else if client.write_all(&bytes[..length]).await.is_err() {
            return;
        }
    }
}

async fn forward(
    mut client: OwnedReadHalf,
    mut server: OwnedWriteHalf,
    replies: watch::Sender<Replies>,
    (loss, lost, mut late): Losses,
) {
    let (mut buffer, mut own, mut count, mut kept) = (Vec::new(), None::<Loss>, 0, Vec::new());
    loop {
        let mut bytes = vec![0; 1 << 16];
        let Ok(length @ 1..) = client.read(&mut bytes).await else { break };
        buffer.extend_from_slice(&bytes[..length]);
        while let Some(request) = take_request(&mut buffer) {
            let named = |of: &str| request.windows(of.len()).any(|part| part == of.as_bytes());
            if own.is_none() {
                let mut armed = loss.lock().expect("no test panics under it");
                own = armed.take_if(|loss| named(loss.of));
                replies.send_modify(|replies| replies.muted = own.is_some());
            }
            count += usize::from(own.is_some_and(|loss| named(loss.of)));
            let passes = own.is_none_or(|loss| count <= loss.done && named(loss.of));
            if !passes {
                kept.extend(request);
            } else if server.write_all(&request).await.is_err() {
                return;
            }
        }
        if let Some(loss) = own.filter(|loss| count >= loss.seen) {
            let mut done = replies.subscribe();
            let done = done.wait_for(|replies| replies.seen >= loss.done).await;
            done.map(drop).expect("its sender is held here");
            replies.send_modify(|replies| replies.ended = true);
            drop(client);
            lost.fetch_add(1, Ordering::SeqCst);
            if loss.late && late.wait_for(|late| *late).await.is_ok() {
                // Where the server has closed the connection, that is as well.
                let _refused = server.write_all(&kept).await;
                lost.fetch_add(1, Ordering::SeqCst);
            }
            return;
        }
    }
    let _gone = server.shutdown().await;
}

/// Takes a whole request, an array of bulk strings, from the beginning of what was read.
fn take_request(buffer: &mut Vec<u8>) -> Option<Vec<u8>> {
    let mut at = 0;
    let mut number = |buffer: &[u8], mark: u8| {
        let line = buffer.get(at..)?;
        let end = line.windows(2).position(|pair| pair == b"\r\n")?;
        assert_eq!(line[0], mark, "requests are arrays of bulk strings");
        let number: usize = std::str::from_utf8(&line[1..end]).ok()?.parse().ok()?;
        at += end + 2;
        if mark == b'$' {
            at += number + 2;
        }
        Some(number)
    };
    for _ in 0..number(buffer, b'*')? {
        number(buffer, b'$')?;
    }
    (at <= buffer.len()).then(|| buffer.drain(..at).collect())
}
