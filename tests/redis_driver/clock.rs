//! The server's clock went back: what was handed out before that was handed out in the future.

use std::time::Duration;

use rumormill::delivery::{EntryId, Outcome, Settled};
use rumormill::driver::Driver;

use crate::kit::*;
use crate::server::Server;

const LOG: &str = "rm:{t:0}:log";
const HOUR_MILLIS: u64 = 3_600_000;

/// Makes a pending entry's hand-out an hour later than it was: no command can, so the stream is
/// taken out, changed and put back.
fn hand_out_in_the_future(server: &Server, id: EntryId) {
    let mut dump = server.ask(&["DUMP", LOG]).bytes().to_vec();
    let raw = [id.millis.to_be_bytes(), id.seq.to_be_bytes()].concat();
    let near = |millis: u64| millis.abs_diff(id.millis) < 60_000;
    let mut places = (0..dump.len() - 24).filter(|at| dump[*at..*at + 16] == raw);
    let millis = |at: usize| u64::from_le_bytes(dump[at + 16..at + 24].try_into().expect("eight"));
    let at = places.find(|at| near(millis(*at))).expect("a pending entry has its time");
    let later = millis(at) + HOUR_MILLIS;
    dump[at + 16..at + 24].copy_from_slice(&later.to_le_bytes());
    let end = dump.len() - 8;
    let sum = crc64(&dump[..end]);
    dump[end..].copy_from_slice(&sum.to_le_bytes());
    server.ask(&["DEL", LOG]);
    server.ask(&[b"RESTORE".as_slice(), LOG.as_bytes(), b"0", &dump]);
}

/// As the server sums what it dumps: CRC-64 of Jones, reflected.
fn crc64(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |sum, byte| {
        (0..8).fold(sum ^ u64::from(*byte), |sum: u64, _| {
            (sum >> 1) ^ if sum & 1 == 1 { 0x95ac_9329_ac4b_c9b5 } else { 0 }
        })
    })
}

fn idle(server: &Server) -> i64 {
    server.ask(&["XPENDING", LOG, "g", "-", "+", "1"]).list()[0].list()[2].int()
}

#[tokio::test]
async fn what_was_handed_out_in_the_future_comes_back_after_a_lease() {
    let server = Server::start();
    let (killed, living) = (connect(&server).await, connect(&server).await);
    append(&killed, "t:0", &["1"]).await;
    let mut feed = subscribe(&killed, "g").await;
    let entry = next(&mut feed).await;
    drop(killed);
    drop(feed);
    eventually("it is abandoned", || idle(&server) > 50).await;
    hand_out_in_the_future(&server, entry.id);
    // waits: for time to pass that does not count
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(idle(&server), 0, "it is not idle, and will not be for an hour");
    let mut heir = subscribe(&living, "g").await;
    let inherited = next(&mut heir).await;
    assert_eq!((inherited.id, inherited.token.0), (entry.id, 2));
    assert_eq!(settle(&heir, settle_all(&inherited, &Outcome::ack())).await, [Settled::Done]);
    living.close().await;
}
