//! A proxy that makes the way longer: what comes in goes out so much later, however much it is.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{sleep, spawn};
use std::time::Duration;

use crate::Error;
use crate::measure::now_ns;

/// Reads that may be on their way.
const CHUNKS_MAX: usize = 4096;
const CHUNK_BYTES: usize = 64 << 10;

/// Listens until the process ends; `delay_us` is added to a round trip, half of it each way.
pub(crate) fn start(to: u16, delay_us: u64) -> Result<u16, Error> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    spawn(move || {
        for client in listener.incoming().flatten() {
            if let Ok(server) = TcpStream::connect(("127.0.0.1", to)) {
                let _ = join(&client, &server, delay_us * 500);
            }
        }
    });
    Ok(port)
}

fn join(client: &TcpStream, server: &TcpStream, delay_ns: u64) -> std::io::Result<()> {
    for (from, to) in [(client, server), (server, client)] {
        to.set_nodelay(true)?;
        let (from, to) = (from.try_clone()?, to.try_clone()?);
        let (sender, receiver) = sync_channel(CHUNKS_MAX);
        spawn(move || take(from, &sender, delay_ns));
        spawn(move || give(to, &receiver));
    }
    Ok(())
}

type Chunk = (u64, Vec<u8>);

fn take(mut from: TcpStream, to: &SyncSender<Chunk>, delay_ns: u64) {
    let mut buffer = vec![0; CHUNK_BYTES];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        if to.send((now_ns() + delay_ns, buffer[..length].to_vec())).is_err() {
            return;
        }
    }
}

fn give(mut to: TcpStream, from: &Receiver<Chunk>) {
    while let Ok((due_ns, chunk)) = from.recv() {
        let early = due_ns.saturating_sub(now_ns());
        if early > 0 {
            sleep(Duration::from_nanos(early));
        }
        if to.write_all(&chunk).is_err() {
            return;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}
