use futures_util::FutureExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

/// Both ends of a connection.
async fn connected() -> (Socket, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let stream = TcpStream::connect(listener.local_addr().expect("an address")).await;
    let (server, _) = listener.accept().await.expect("a connection");
    (Socket::Plain(Plain::start(stream.expect("a stream"), PATIENCE)), server)
}

fn echo(text: &[u8]) -> Pipeline {
    let mut pipeline = Pipeline::new();
    pipeline.cmd("ECHO").arg(text);
    pipeline
}

async fn read(server: &mut TcpStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    server.read_exact(&mut bytes).await.expect("so many bytes");
    bytes
}

fn texts(values: &[Value]) -> Vec<String> {
    let text = |value: &Value| match value {
        Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        other => panic!("{other:?}"),
    };
    values.iter().map(text).collect()
}

#[tokio::test]
async fn commands_are_on_their_way_after_the_first_poll() {
    let (socket, server) = connected().await;
    let pipeline = echo(b"a");
    let sending = socket.send(&pipeline);
    futures_util::pin_mut!(sending);
    assert!(sending.as_mut().now_or_never().is_none());
    // No task has run since.
    let mut bytes = [0; 64];
    let server = server.into_std().expect("a stream");
    let count = std::io::Read::read(&mut &server, &mut bytes).expect("what was written");
    assert_eq!(&bytes[..count], echo(b"a").get_packed_pipeline());
}

#[tokio::test]
async fn what_the_socket_does_not_take_follows_in_its_order() {
    let (socket, mut server) = connected().await;
    let (large, small) = (echo(&vec![b'x'; 16 << 20]), echo(b"after it"));
    let serve = async {
        let expected = [large.get_packed_pipeline(), small.get_packed_pipeline()].concat();
        assert!(read(&mut server, expected.len()).await == expected, "other bytes, or in disorder");
        server.write_all(b"$5\r\nlarge\r\n$5\r\nsmall\r\n").await.expect("written");
    };
    let both = futures_util::future::join3(socket.send(&large), socket.send(&small), serve);
    let (first, second, ()) = both.await;
    assert_eq!(texts(&first.expect("an answer")), ["large"]);
    assert_eq!(texts(&second.expect("an answer")), ["small"]);
}

#[tokio::test]
async fn what_is_to_go_with_the_next_waits_for_it() {
    let (socket, mut server) = connected().await;
    let (first, second) = (echo(b"1"), echo(b"2"));
    let riding = socket.send_when(&first, When::WithNext);
    futures_util::pin_mut!(riding);
    assert!(riding.as_mut().now_or_never().is_none());
    let Socket::Plain(plain) = &socket else { panic!("a plain one") };
    assert!(plain.core.writing().bytes == first.get_packed_pipeline(), "it was written");
    let serve = async {
        let expected = [first.get_packed_pipeline(), second.get_packed_pipeline()].concat();
        assert_eq!(read(&mut server, expected.len()).await, expected);
        server.write_all(b"$1\r\n1\r\n$1\r\n2\r\n").await.expect("written");
    };
    let (first, second, ()) =
        futures_util::future::join3(riding, socket.send(&second), serve).await;
    assert_eq!(texts(&first.expect("an answer")), ["1"]);
    assert_eq!(texts(&second.expect("an answer")), ["2"]);
}

#[tokio::test]
async fn nobody_gets_the_answer_of_who_has_gone() {
    let (socket, mut server) = connected().await;
    assert!(socket.send(&echo(b"gone")).now_or_never().is_none());
    let mut two = echo(b"b");
    two.cmd("ECHO").arg("c");
    let serve = async {
        let expected = [echo(b"gone").get_packed_pipeline(), two.get_packed_pipeline()].concat();
        assert_eq!(read(&mut server, expected.len()).await, expected);
        server.write_all(b"$4\r\ngone\r\n$1\r\nb\r\n$1\r\nc\r\n").await.expect("written");
    };
    let (answers, ()) = futures_util::future::join(socket.send(&two), serve).await;
    assert_eq!(texts(&answers.expect("answers")), ["b", "c"]);
}

#[tokio::test]
async fn its_end_is_told_to_all_who_wait_and_who_come_later() {
    let (socket, mut server) = connected().await;
    let (one, other) = (echo(b"1"), echo(b"2"));
    let serve = async {
        server.write_all(b"$1\r\n1\r\n").await.expect("written");
        drop(server);
    };
    let (first, second, ()) =
        futures_util::future::join3(socket.send(&one), socket.send(&other), serve).await;
    assert_eq!(texts(&first.expect("an answer")), ["1"]);
    let lost = |answers: Result<Vec<Value>, Fault>| {
        let fault = answers.expect_err("no answer");
        assert!(matches!(fault, Fault::Lost(_)) && fault.breaks_connection(), "{fault}");
    };
    lost(second);
    lost(socket.send(&one).now_or_never().expect("known at once"));
}

#[tokio::test]
async fn what_is_no_answer_ends_it() {
    for (said, code) in [
        ("HTTP/1.1 400 Bad Request\r\n", ""),
        ("+OK\r\n", ""),
        ("-ERR max number of clients reached\r\n", "ERR"),
    ] {
        let (socket, mut server) = connected().await;
        server.write_all(said.as_bytes()).await.expect("written");
        let Socket::Plain(plain) = &socket else { panic!("a plain one") };
        while plain.core.waiting().end.is_none() {
            tokio::task::yield_now().await;
        }
        let fault = socket.send(&echo(b"1")).await.expect_err("no answer");
        assert_eq!(fault.code(), code, "{fault}");
        assert!(matches!(fault, Fault::Odd(_) | Fault::Refused { .. }), "{fault}");
    }
}

#[tokio::test]
async fn a_refusal_that_nobody_asked_for_ends_what_was_served() {
    let (socket, mut server) = connected().await;
    let one = echo(b"1");
    let serve = async {
        server.write_all(b"$1\r\n1\r\n").await.expect("written");
        read(&mut server, one.get_packed_pipeline().len()).await
    };
    futures_util::future::join(socket.send(&one), serve).await.0.expect("an answer");
    server.write_all(b"-ERR going away\r\n").await.expect("written");
    let Socket::Plain(plain) = &socket else { panic!("a plain one") };
    while plain.core.waiting().end.is_none() {
        tokio::task::yield_now().await;
    }
    let fault = socket.send(&one).await.expect_err("it is over");
    assert!(fault.breaks_connection() && fault.to_string().contains("going away"), "{fault}");
}

/// A peer that is always behind: what it has taken is not kept.
#[tokio::test]
async fn what_was_taken_is_not_kept_for_who_is_behind() {
    let (socket, mut server) = connected().await;
    let Socket::Plain(plain) = &socket else { panic!("a plain one") };
    let large = echo(&vec![b'x'; 1 << 20]);
    let one = large.get_packed_pipeline().len();
    for _ in 0..16 {
        assert!(socket.send(&large).now_or_never().is_none());
    }
    assert!(plain.core.writing().is_blocked, "more than the system takes");
    for _ in 0..64 {
        assert!(socket.send(&large).now_or_never().is_none());
        read(&mut server, one).await;
        tokio::task::yield_now().await;
    }
    let kept = plain.core.writing().bytes.len();
    assert!(kept <= 2 * 17 * one, "{kept} bytes are kept of 17 MB");
}

#[tokio::test]
async fn its_last_clone_takes_the_connection_along() {
    let (socket, mut server) = connected().await;
    let clone = socket.clone();
    drop(socket);
    assert!(clone.send(&echo(b"1")).now_or_never().is_none());
    let sent = echo(b"1").get_packed_pipeline();
    assert_eq!(read(&mut server, sent.len()).await, sent);
    drop(clone);
    assert_eq!(server.read(&mut [0; 8]).await.ok(), Some(0), "it ends");
}

#[test]
fn its_runtime_takes_it_along() {
    let runtime =
        || tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let first = runtime();
    let (socket, _server) = first.block_on(connected());
    drop(first);
    let fault = runtime().block_on(socket.send(&echo(b"1"))).expect_err("no answer");
    assert!(fault.to_string().contains("runtime"), "{fault}");
}
