//! Servers that cannot be used: each error names the mend, none a secret.

#[path = "cli/mod.rs"]
mod cli;
#[path = "../../tests/server/mod.rs"]
mod server;

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};

use cli::{bare, bus_cli, run};
use server::Server;

/// Runs with an address; what it said, and its exit code.
fn said(url: &str, line: &[&str]) -> (String, i32) {
    let (out, err, code) = run(bare(line).args(["--url", url]));
    assert_eq!(out, "", "nothing was done: {err}");
    (err, code)
}

/// A server that treats each connection as `serve` does; its address.
fn pretender(serve: impl Fn(TcpStream) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("redis://{}", listener.local_addr().expect("bound"));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            serve(stream);
        }
    });
    url
}

/// The words of the next command; nothing at the end.
fn command(from: &mut impl BufRead) -> Option<Vec<String>> {
    let mut line = || {
        let mut line = String::new();
        (from.read_line(&mut line).ok()? > 0).then(|| line.trim_end().to_owned())
    };
    let words: usize = line()?.strip_prefix('*')?.parse().ok()?;
    let mut command = Vec::new();
    for _ in 0..words {
        line()?;
        command.push(line()?.to_lowercase());
    }
    Some(command)
}

/// A Redis that is of age 6.2 and can do nothing else.
fn old_redis(stream: TcpStream) {
    let mut answers = stream.try_clone().expect("a socket");
    let mut commands = BufReader::new(stream);
    while let Some(words) = command(&mut commands) {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let answer = match words.as_slice() {
            ["ping"] => "+PONG\r\n".to_owned(),
            ["info", "server"] => {
                let info = "redis_version:6.2.14\r\nredis_mode:standalone\r\n";
                format!("${}\r\n{info}\r\n", info.len())
            }
            _ => "-ERR unknown command\r\n".to_owned(),
        };
        if answers.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

#[test]
fn a_wrong_password_is_1_and_names_the_url() {
    let server = Server::with(&["--requirepass", "right-one"]);
    for line in [&["publish", "a.b"][..], &["tail"]] {
        let (err, code) = said(&format!("{}?pass=hunter22", server.url()), line);
        assert_eq!(code, 1, "{err}");
        assert!(err.contains("WRONGPASS"), "{err}");
        assert!(err.contains("\n  help: check the user and the password in the url"), "{err}");
        assert!(!err.contains("hunter22"), "{err}");
        let (err, code) = said(&server.url(), line);
        assert_eq!(code, 1, "{err}");
        assert!(err.contains("NOAUTH"), "{err}");
        assert!(err.contains("\n  help: the server wants a password"), "{err}");
    }
}

#[test]
fn a_server_that_is_no_redis_is_named_as_such() {
    let url = pretender(|mut stream| {
        let _gone = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        // Until the other side has read it and leaves.
        let _gone = BufReader::new(stream).lines().count();
    });
    let (err, code) = said(&url, &["publish", "a.b"]);
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("does not speak the Redis protocol"), "{err}");
    assert!(err.contains("\n  help: check that it is a Redis"), "{err}");
}

#[test]
fn a_server_that_says_nothing_is_unreachable() {
    let url = pretender(|stream| {
        let _ended = BufReader::new(stream).lines().count();
    });
    let (err, code) = said(&url, &["tail"]);
    assert_eq!(code, 4, "{err}");
    assert!(err.contains("no answer in time"), "{err}");
    assert!(err.contains("\n  help: the server is stopped, overloaded or no Redis"), "{err}");
}

#[test]
fn a_redis_that_is_too_old_is_told_both_versions() {
    let (err, code) = said(&pretender(old_redis), &["publish", "a.b"]);
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("it has version 6.2.14, 7.0 is the oldest that will do"), "{err}");
    assert!(err.contains("\n  help: upgrade the server"), "{err}");
}

#[test]
fn a_key_of_another_type_is_named() {
    let server = Server::start();
    server.ask(&["SET", "rm:{a:0}:log", "x"]);
    let (_, err, code) = run(&mut bus_cli(&server, &["publish", "a.b"]));
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("WRONGTYPE"), "{err}");
    assert!(err.contains("choose another namespace"), "{err}");
    server.ask(&["SET", "rm:topics", "x"]);
    for line in [&["publish", "b.c"][..], &["tail", "--last", "1"]] {
        let (_, err, code) = run(&mut bus_cli(&server, line));
        assert_eq!(code, 1, "{err}");
        assert!(err.contains("rm:topics"), "{err}");
        assert!(err.contains("choose another namespace"), "{err}");
    }
}

#[test]
fn an_address_that_is_none_says_how_one_is_written() {
    for (url, mend) in [
        ("http://host", "redis://host:port"),
        ("redis+cluster://host", "single server"),
        ("redis://host:port:port", "redis://host:6379"),
    ] {
        let (err, code) = said(url, &["publish", "a.b"]);
        assert_eq!(code, 1, "{url}: {err}");
        assert!(err.contains("\n  help: ") && err.contains(mend), "{url}: {err}");
    }
}
