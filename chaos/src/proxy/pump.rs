//! One direction of a connection.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;

use super::{Deed, Flow, Shared, State, lock};
use crate::load::BODY;
use crate::resp;

/// Most bytes that a direction keeps back.
const KEPT_MAX: usize = 8 << 20;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    ToServer,
    ToClient,
}

/// Moves the bytes of one direction.
pub(super) struct Pump {
    shared: Arc<Shared>,
    state: watch::Receiver<State>,
    number: u64,
    direction: Direction,
    /// For each request without an answer, whether the plan is about it.
    asked: Arc<Mutex<VecDeque<bool>>>,
    kept: BytesMut,
}

impl Pump {
    /// Both directions of a connection.
    pub(super) fn pair(shared: &Arc<Shared>, number: u64) -> (Self, Self) {
        let asked = Arc::new(Mutex::new(VecDeque::new()));
        let pump = |direction| Self {
            shared: Arc::clone(shared),
            state: shared.state.subscribe(),
            number,
            direction,
            asked: Arc::clone(&asked),
            kept: BytesMut::new(),
        };
        (pump(Direction::ToServer), pump(Direction::ToClient))
    }

    fn flow(&mut self) -> Flow {
        let state = self.state.borrow_and_update();
        match self.direction {
            _ if self.number < state.held_before => Flow::Hold,
            Direction::ToServer => state.to_server,
            Direction::ToClient => state.to_client,
        }
    }

    pub(super) async fn run(
        mut self,
        mut from: impl AsyncRead + Unpin,
        mut to: impl AsyncWrite + Unpin,
    ) {
        let mut ended = false;
        loop {
            tokio::select! {
                read = from.read_buf(&mut self.kept), if !ended && self.kept.len() < KEPT_MAX => {
                    ended = !matches!(read, Ok(count) if count > 0);
                }
                _ = self.state.changed() => {}
            }
            if ended && self.direction == Direction::ToServer {
                lock(&self.shared.open).remove(&self.number);
            }
            let flow = self.flow();
            if flow != Flow::Pass && !self.kept.is_empty() {
                self.hit();
            }
            if flow == Flow::Hold {
                continue;
            }
            let (out, goes_on) = self.take();
            if self.write(&mut to, out, flow).await.is_err() || !goes_on || ended {
                return;
            }
        }
    }

    fn hit(&self) {
        self.shared.hits.fetch_add(1, Ordering::SeqCst);
    }

    /// What may be written; false where the connection ends after it.
    fn take(&mut self) -> (BytesMut, bool) {
        if !self.shared.is_framed {
            return (self.kept.split(), true);
        }
        let mut out = BytesMut::new();
        while let Some(length) = resp::length(&self.kept) {
            let mut one = self.kept.split_to(length);
            if self.direction == Direction::ToServer {
                let plan = *lock(&self.shared.plan);
                let planned = plan.left > 0 && holds(&one, plan.request);
                lock(&self.asked).push_back(planned);
            } else if let Some(deed) = self.strike(&one) {
                match deed {
                    Deed::Lose => return (out, false),
                    Deed::Spoil => one[0] ^= 0x40,
                    Deed::Flip => flip(&mut one),
                }
            } else {
                rename(&mut one, &self.shared.ports);
            }
            out.unsplit(one);
        }
        (out, true)
    }

    /// What is to be done to this answer.
    fn strike(&self, answer: &[u8]) -> Option<Deed> {
        let planned = lock(&self.asked).pop_front().unwrap_or(false);
        let mut plan = lock(&self.shared.plan);
        if !planned || plan.left == 0 || !holds(answer, plan.answer) {
            return None;
        }
        plan.left -= 1;
        self.hit();
        Some(plan.deed)
    }

    async fn write(
        &mut self,
        to: &mut (impl AsyncWrite + Unpin),
        mut bytes: BytesMut,
        flow: Flow,
    ) -> std::io::Result<()> {
        match flow {
            Flow::Delay(time) if !bytes.is_empty() => tokio::time::sleep(time).await,
            Flow::Chop => {
                while bytes.has_remaining() {
                    to.write_u8(bytes.get_u8()).await?;
                    tokio::task::yield_now().await;
                }
            }
            Flow::Trickle(rate) => {
                let piece = (rate as usize / 50).max(1);
                while bytes.has_remaining() && self.flow() == flow {
                    to.write_all(&bytes.split_to(piece.min(bytes.len()))).await?;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
            _ => {}
        }
        to.write_all(&bytes).await
    }
}

/// Puts other ports in the places of some.
fn rename(answer: &mut [u8], ports: &[(u16, u16)]) {
    for (from, to) in ports {
        let (from, to) = (format!("\r\n{from}\r\n"), format!("\r\n{to}\r\n"));
        let at = answer.windows(from.len()).position(|window| window == from.as_bytes());
        if let Some(at) = at.filter(|_| from.len() == to.len()) {
            answer[at..at + to.len()].copy_from_slice(to.as_bytes());
            return;
        }
    }
}

/// Changes a byte of an event's body, where the form of the answer stays right.
fn flip(answer: &mut [u8]) {
    let body = answer.windows(BODY.len()).position(|window| window == BODY.as_bytes());
    if let Some(at) = body {
        answer[at] ^= 0x01;
    }
}

fn holds(bytes: &[u8], part: &str) -> bool {
    part.is_empty() || bytes.windows(part.len()).any(|window| window == part.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_named_as_another() {
        let mut answer = *b"*2\r\n$9\r\n127.0.0.1\r\n$5\r\n16001\r\n";
        rename(&mut answer, &[(16_000, 40_000), (16_001, 40_001), (40_001, 50_000)]);
        assert_eq!(&answer, b"*2\r\n$9\r\n127.0.0.1\r\n$5\r\n40001\r\n");
        rename(&mut answer, &[(40_001, 1)]);
        assert_eq!(&answer, b"*2\r\n$9\r\n127.0.0.1\r\n$5\r\n40001\r\n");
    }
}
