//! What the server can do: RESP written by hand, a confirm for each event, reads whose acks ride
//! in the same write. Nothing is encoded, routed, retried or recovered.

use std::collections::VecDeque;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};

use super::pump::pump;
use super::{Consumers, Peer};
use crate::Error;
use crate::job::Job;
use crate::tally::Tally;

const STREAM: &str = "ceiling";
/// Entries of one read.
const COUNT: &str = "500";
/// Appends under way: while they are, what arrives goes together.
const IN_FLIGHT_MAX: usize = 2;

pub(super) struct Ceiling {
    address: String,
    /// Most events of an entry.
    batch_max: usize,
}

type Waiting = (Vec<u8>, oneshot::Sender<()>);

impl Ceiling {
    pub(super) fn new(url: &str, batch_max: usize) -> Result<Self, Error> {
        let address = url.strip_prefix("redis://").ok_or("the ceiling needs redis://")?;
        Ok(Self { address: address.to_owned(), batch_max })
    }

    async fn connect(&self) -> Result<Connection, Error> {
        let stream = TcpStream::connect(&self.address).await?;
        stream.set_nodelay(true)?;
        Ok(Connection { stream, buffer: Vec::with_capacity(1 << 20), read: 0 })
    }
}

#[async_trait]
impl Peer for Ceiling {
    async fn publish(&self, job: &Job) -> Result<(), Error> {
        let (sender, receiver) = mpsc::channel::<Waiting>(4096);
        let connection = self.connect().await?;
        let writer = tokio::spawn(write(connection, receiver, self.batch_max, job.window));
        let pumped = pump(job, |_, data| {
            let sender = sender.clone();
            async move {
                let (confirm, confirmed) = oneshot::channel();
                sender.send((data, confirm)).await?;
                Ok(confirmed.await?)
            }
        });
        pumped.await?;
        drop(sender);
        writer.await?
    }

    async fn consume(&self, job: &Job, tally: Arc<Tally>) -> Result<Consumers, Error> {
        let mut tasks = tokio::task::JoinSet::new();
        for group in 0..job.groups {
            let mut connection = self.connect().await?;
            let (number, group) = (group, format!("group{group}"));
            let mut create = Vec::new();
            command(
                &mut create,
                &[b"XGROUP", b"CREATE", STREAM.as_bytes(), group.as_bytes(), b"0", b"MKSTREAM"],
            );
            connection.stream.write_all(&create).await?;
            connection.answer().await?;
            let (tally, payload) = (Arc::clone(&tally), job.payload);
            tasks.spawn(read(connection, group, number, payload, tally));
        }
        Ok(Box::pin(async move {
            while let Some(ended) = tasks.join_next().await {
                ended??;
            }
            // The others may still be at work.
            std::future::pending().await
        }))
    }
}

/// A connection, and what came over it.
struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// How much of it was taken.
    read: usize,
}

/// A part of an answer.
enum Part {
    /// `+OK`, `:1`, or the id of an entry as a bulk string: where it lies in the buffer.
    Text(std::ops::Range<usize>),
    List(usize),
    Nil,
}

impl Connection {
    async fn fill(&mut self) -> Result<(), Error> {
        if self.read > 0 && self.read == self.buffer.len() {
            self.buffer.clear();
            self.read = 0;
        }
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err("the server closed the connection".into()),
            _ => Ok(()),
        }
    }

    /// The next part, where it is there whole.
    fn part(&mut self) -> Result<Option<Part>, Error> {
        let rest = &self.buffer[self.read..];
        let Some(end) = rest.windows(2).position(|pair| pair == b"\r\n") else { return Ok(None) };
        let (kind, line) = (rest[0], &rest[1..end]);
        let number = || std::str::from_utf8(line).ok().and_then(|text| text.parse::<i64>().ok());
        let (head, after) = (self.read + 1, self.read + end + 2);
        match kind {
            b'-' => Err(String::from_utf8_lossy(line).into_owned().into()),
            b'*' => {
                self.read = after;
                let items = number().ok_or("no length")?;
                Ok(Some(usize::try_from(items).map_or(Part::Nil, Part::List)))
            }
            b'$' => {
                let Ok(length) = usize::try_from(number().ok_or("no length")?) else {
                    self.read = after;
                    return Ok(Some(Part::Nil));
                };
                if self.buffer.len() < after + length + 2 {
                    return Ok(None);
                }
                self.read = after + length + 2;
                Ok(Some(Part::Text(after..after + length)))
            }
            _ => {
                let range = head..head + line.len();
                self.read = after;
                Ok(Some(Part::Text(range)))
            }
        }
    }

    /// The next part, waiting for it.
    async fn next(&mut self) -> Result<Part, Error> {
        loop {
            if let Some(part) = self.part()? {
                return Ok(part);
            }
            self.fill().await?;
        }
    }

    /// A whole answer of one part.
    async fn answer(&mut self) -> Result<(), Error> {
        self.next().await.map(drop)
    }
}

fn command(to: &mut Vec<u8>, words: &[&[u8]]) {
    head(to, b'*', words.len());
    for word in words {
        bulk(to, word);
    }
}

fn head(to: &mut Vec<u8>, kind: u8, number: usize) {
    to.push(kind);
    to.extend_from_slice(number.to_string().as_bytes());
    to.extend_from_slice(b"\r\n");
}

fn bulk(to: &mut Vec<u8>, word: &[u8]) {
    head(to, b'$', word.len());
    to.extend_from_slice(word);
    to.extend_from_slice(b"\r\n");
}

/// Sends what waits, and confirms what was answered.
async fn write(
    mut connection: Connection,
    mut waiting: mpsc::Receiver<Waiting>,
    batch_max: usize,
    window: usize,
) -> Result<(), Error> {
    let mut sent: VecDeque<Vec<oneshot::Sender<()>>> = VecDeque::new();
    let mut next = Vec::with_capacity(batch_max);
    let mut out = Vec::new();
    // One event an entry: the window is the bound. Batches: a few, so that they fill.
    let in_flight_max = if batch_max == 1 { window } else { IN_FLIGHT_MAX };
    loop {
        tokio::select! {
            biased;
            part = connection.next(), if !sent.is_empty() => {
                part?;
                confirm(&mut sent);
                while let Some(_part) = connection.part()? {
                    confirm(&mut sent);
                }
            }
            got = waiting.recv_many(&mut next, 4096), if sent.len() < in_flight_max => {
                if got == 0 {
                    return Ok(());
                }
                out.clear();
                while !next.is_empty() {
                    let count = next.len().min(batch_max);
                    let (batch, confirms): (Vec<_>, Vec<_>) = next.drain(..count).unzip();
                    command(&mut out, &[b"XADD", STREAM.as_bytes(), b"*", b"b", &batch.concat()]);
                    sent.push_back(confirms);
                }
                connection.stream.write_all(&out).await?;
            }
        }
    }
}

fn confirm(sent: &mut VecDeque<Vec<oneshot::Sender<()>>>) {
    for confirm in sent.pop_front().into_iter().flatten() {
        let _ = confirm.send(());
    }
}

/// Reads and acknowledges, the acks of a read in the write of the next.
async fn read(
    mut connection: Connection,
    group: String,
    number: usize,
    payload: usize,
    tally: Arc<Tally>,
) -> Result<(), Error> {
    let mut out = Vec::new();
    let mut ids: Vec<Vec<u8>> = Vec::new();
    loop {
        out.clear();
        let acks = !ids.is_empty();
        if acks {
            head(&mut out, b'*', 3 + ids.len());
            for word in [b"XACK", STREAM.as_bytes(), group.as_bytes()] {
                bulk(&mut out, word);
            }
            ids.drain(..).for_each(|id| bulk(&mut out, &id));
        }
        if tally.is_done() {
            return Ok(connection.stream.write_all(&out).await?);
        }
        let read: [&[u8]; 11] = [
            b"XREADGROUP",
            b"GROUP",
            group.as_bytes(),
            b"c",
            b"COUNT",
            COUNT.as_bytes(),
            b"BLOCK",
            b"1000",
            b"STREAMS",
            STREAM.as_bytes(),
            b">",
        ];
        command(&mut out, &read);
        connection.stream.write_all(&out).await?;
        if acks {
            connection.answer().await?;
        }
        take(&mut connection, &mut ids, payload, |event| tally.handled(number, event)).await?;
    }
}

/// `[[stream, [[id, [field, value]], ...]]]`, or nil.
async fn take(
    connection: &mut Connection,
    ids: &mut Vec<Vec<u8>>,
    payload: usize,
    handled: impl Fn(&[u8]),
) -> Result<(), Error> {
    let Part::List(_streams) = connection.next().await? else { return Ok(()) };
    connection.answer().await?; // the stream's list
    connection.answer().await?; // its name
    let Part::List(entries) = connection.next().await? else { return Ok(()) };
    for _ in 0..entries {
        connection.answer().await?; // the entry's list
        if let Part::Text(id) = connection.next().await? {
            ids.push(connection.buffer[id].to_vec());
        }
        connection.answer().await?; // the list of fields
        connection.answer().await?; // the field
        if let Part::Text(value) = connection.next().await? {
            connection.buffer[value].chunks(payload).for_each(&handled);
        }
    }
    Ok(())
}
