//! The proxy does what it says, so that a fault which nothing survives is not taken for none.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::fault::proxy::Proxy;
use crate::fault::resp::length;
use crate::fault::{PATIENCE, comes};
use crate::server::Server;

/// A time in which nothing must come.
const QUIET: Duration = Duration::from_millis(100);

async fn connect(proxy: &Proxy) -> TcpStream {
    let url = proxy.url();
    let address = url.strip_prefix("redis://").expect("a url");
    TcpStream::connect(address).await.expect("the proxy listens")
}

async fn send(stream: &mut TcpStream, command: &str) {
    let words: Vec<&str> = command.split(' ').collect();
    let mut out = format!("*{}\r\n", words.len());
    for word in words {
        out += &format!("${}\r\n{word}\r\n", word.len());
    }
    stream.write_all(out.as_bytes()).await.expect("the connection is open");
}

/// The next bytes; none where the connection ended.
async fn next(stream: &mut TcpStream) -> String {
    let mut bytes = [0; 64];
    let count = timeout(PATIENCE, stream.read(&mut bytes)).await.expect("in time").unwrap_or(0);
    String::from_utf8_lossy(&bytes[..count]).into_owned()
}

#[tokio::test]
async fn an_answer_is_lost_after_its_request_was_applied() {
    let server = Server::start();
    let proxy = Proxy::start(server.socket()).await;
    let mut stream = connect(&proxy).await;
    proxy.lose("INCR", "", 1);
    send(&mut stream, "SET other 1").await;
    assert_eq!(next(&mut stream).await, "+OK\r\n");
    send(&mut stream, "INCR count").await;
    assert_eq!(next(&mut stream).await, "");
    assert_eq!((server.say("GET count").text(), proxy.left()), ("1".to_owned(), 0));
}

#[tokio::test]
async fn a_spoiled_answer_is_none() {
    let server = Server::start();
    let proxy = Proxy::start(server.socket()).await;
    let mut stream = connect(&proxy).await;
    proxy.spoil("PING", 1);
    for answer in ["kPONG\r\n", "+PONG\r\n"] {
        send(&mut stream, "PING").await;
        assert_eq!(next(&mut stream).await, answer);
    }
}

#[tokio::test]
async fn a_half_open_connection_is_silent_and_another_one_works() {
    let server = Server::start();
    let proxy = Proxy::start(server.socket()).await;
    let mut old = connect(&proxy).await;
    send(&mut old, "PING").await;
    assert_eq!(next(&mut old).await, "+PONG\r\n");
    proxy.half_open();
    send(&mut old, "INCR count").await;
    let mut new = connect(&proxy).await;
    send(&mut new, "PING").await;
    assert_eq!(next(&mut new).await, "+PONG\r\n");
    assert!(timeout(QUIET, old.read_u8()).await.is_err(), "nothing comes, and it stays open");
    assert!(!proxy.is_found());
    drop(old);
    assert!(comes(PATIENCE, || proxy.is_found()).await);
    assert_eq!(server.say("EXISTS count").int(), 0);
    // What was sent arrives late, as it does from a line that was cut for a while.
    proxy.pass();
    assert!(comes(PATIENCE, || server.say("EXISTS count").int() == 1).await);
}

#[tokio::test]
async fn a_refused_connection_is_refused() {
    let server = Server::start();
    let proxy = Proxy::start(server.socket()).await;
    let mut old = connect(&proxy).await;
    send(&mut old, "PING").await;
    assert_eq!(next(&mut old).await, "+PONG\r\n");
    proxy.refuse();
    assert_eq!(next(&mut old).await, "");
    let url = proxy.url();
    let address = url.strip_prefix("redis://").expect("a url");
    assert!(TcpStream::connect(address).await.is_err());
    proxy.pass();
    let mut tries = 0;
    while TcpStream::connect(address).await.is_err() {
        tries += 1;
        assert!(tries < 1_000, "it listens again");
        tokio::task::yield_now().await;
    }
}

#[test]
fn values_end_where_they_end() {
    for whole in [
        "+OK\r\n",
        "*2\r\n$4\r\nXADD\r\n$0\r\n\r\n",
        "*-1\r\n",
        "$-1\r\n",
        "*2\r\n*1\r\n:7\r\n$3\r\na\nb\r\n",
        "-ERR no\r\n",
        "*0\r\n",
    ] {
        let more = format!("{whole}+next\r\n");
        assert_eq!(length(more.as_bytes()), Some(whole.len()), "{whole:?}");
        for cut in 0..whole.len() {
            assert_eq!(length(&whole.as_bytes()[..cut]), None, "{:?}", &whole[..cut]);
        }
    }
}
