//! The demo with a process per service on a real server: killed, stopped, and spoken to by others.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

mod example;
mod server;

use example::example;
use server::Server;

/// How long a line may take. A test that fails waits for so long, one that passes does not.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running demo process and the lines that it prints.
struct Demo {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
}

fn demo(server: &Server, args: &[&str]) -> Demo {
    let mut child = example("user_created")
        .args(["--url", &server.url()])
        .args(args)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the demo starts");
    let out = child.stdout.take().expect("a pipe");
    let (sender, lines) = sync_channel(10_000);
    std::thread::spawn(move || {
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    Demo { child, lines, seen: Vec::new() }
}

impl Demo {
    /// Waits until `count` lines that begin so were printed.
    fn wait_for(&mut self, start: &str, count: usize) {
        while self.count(start) < count {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => self.seen.push(line),
                Err(error) => panic!("{error}: {start:?} x {count} in {:#?}", self.seen),
            }
        }
    }

    fn count(&self, start: &str) -> usize {
        self.seen.iter().filter(|line| line.starts_with(start)).count()
    }

    fn kill_9(mut self) -> Vec<String> {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
        self.drain_lines()
    }

    fn terminate(&self) {
        let kill = format!("kill -TERM {}", self.child.id());
        let status = Command::new("sh").args(["-c", &kill]).status().expect("a shell");
        assert!(status.success());
    }

    fn wait(mut self) -> (ExitStatus, Vec<String>) {
        let status = self.child.wait().expect("it ends");
        (status, self.drain_lines())
    }

    fn drain_lines(mut self) -> Vec<String> {
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => self.seen.push(line),
                Err(RecvTimeoutError::Disconnected) => return std::mem::take(&mut self.seen),
                Err(RecvTimeoutError::Timeout) => panic!("the pipe is still open"),
            }
        }
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

const MAIL: &str = "[EmailService] Sending welcome email to ";

/// How often each address was written to, over all processes.
fn mails<'a>(lines: impl IntoIterator<Item = &'a String>) -> BTreeMap<&'a str, usize> {
    let mut mails = BTreeMap::new();
    for address in lines.into_iter().filter_map(|line| line.strip_prefix(MAIL)) {
        *mails.entry(address).or_default() += 1;
    }
    mails
}

fn each_once(mails: &BTreeMap<&str, usize>, count: usize) {
    assert_eq!(mails.len(), count, "{mails:?}");
    assert!(mails.values().all(|times| *times == 1), "{mails:?}");
}

#[test]
fn one_process_on_redis_prints_what_it_prints_on_memory() {
    let server = Server::start();
    let (status, lines) = demo(&server, &["--users", "5"]).wait();
    assert!(status.success(), "{lines:#?}");
    each_once(&mails(&lines), 7);
    let complete = lines.iter().position(|line| line == "=== Demo Complete ===").expect("it ends");
    let words = |line: &String| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(words(&lines[complete + 2]), ["user", "0", "7"]);
    assert_eq!(words(&lines[complete + 5]), ["analytics", "14", "0"]);
}

#[test]
fn users_created_while_the_email_process_is_dead_get_their_mail_once() {
    let server = Server::durable();
    let mut email = demo(&server, &["--service", "email"]);
    email.wait_for("=== Starting", 1);
    let (status, _) = demo(&server, &["--service", "user"]).wait();
    assert!(status.success());
    email.wait_for(MAIL, 2);
    // The two are acknowledged before the process dies: what counts is what comes after.
    settled(&server, "email");
    email.kill_9();
    let (status, _) = demo(&server, &["--service", "user", "--users", "8"]).wait();
    assert!(status.success());
    let mut email = demo(&server, &["--service", "email"]);
    email.wait_for(MAIL, 10);
    settled(&server, "email");
    email.terminate();
    let (status, lines) = email.wait();
    assert!(status.success());
    each_once(&mails(&lines), 10);
}

/// Waits until nothing of the group is pending on the users' log.
fn settled(server: &Server, group: &str) {
    for _ in 0..6_000 {
        let pending = server.ask(&["XPENDING", "rm:{user_service:0}:log", group]);
        if pending.list()[0].int() == 0 {
            return;
        }
        // waits: for the acknowledgement to arrive at the server
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("{group} still has pending entries");
}

#[test]
fn a_terminated_email_process_hands_its_work_to_the_other() {
    let server = Server::durable();
    let mut leaving = demo(&server, &["--service", "email"]);
    leaving.wait_for("=== Starting", 1);
    let mut staying = demo(&server, &["--service", "email"]);
    staying.wait_for("=== Starting", 1);
    let users = demo(&server, &["--service", "user", "--users", "98"]);
    leaving.wait_for(MAIL, 3);
    leaving.terminate();
    let (status, mut lines) = leaving.wait();
    assert!(status.success(), "{lines:#?}");
    assert!(lines.iter().any(|line| line == "=== Demo Complete ==="), "it drained");
    let (status, _) = users.wait();
    assert!(status.success());
    let here = mails(&lines).len();
    assert!(here < 100, "it was stopped in the middle");
    staying.wait_for(MAIL, 100 - here);
    settled(&server, "email");
    staying.terminate();
    let (status, rest) = staying.wait();
    assert!(status.success());
    lines.extend(rest);
    each_once(&mails(&lines), 100);
}

#[test]
fn any_client_may_publish_and_what_is_no_event_stops_nobody() {
    let server = Server::start();
    let log = "rm:{user_service:0}:log";
    let (status, _) = demo(&server, &["--service", "user"]).wait();
    assert!(status.success());
    let data = r#"{"user_id":"user_carol","email":"carol@example.com","username":"carol"}"#;
    server.ask(&["XADD", log, "*", "foo", "bar"]);
    server.ask(&["XADD", log, "*", "type", "user_service.user.created", "data", data]);
    let mut services = ["email", "notification", "analytics"].map(|service| {
        let mut process = demo(&server, &["--service", service]);
        process.wait_for("=== Starting", 1);
        process
    });
    services[0].wait_for(&format!("{MAIL}carol@example.com"), 1);
    services[1].wait_for("[NotificationService] Sending push notification to user user_carol", 1);
    services[2].wait_for("[AnalyticsService] Tracking event: user_service.user.created at ", 3);
    for (service, process) in ["email", "notification", "analytics"].iter().zip(services) {
        settled(&server, service);
        process.terminate();
        assert!(process.wait().0.success());
        let dead =
            server.ask(&["XRANGE", &format!("rm:{{user_service:0}}:dead:{service}"), "-", "+"]);
        assert_eq!(dead.list().len(), 1, "{service}: {dead:?}");
        let fields = dead.list()[0].list()[1].list();
        let raw = fields.iter().position(|field| field.text() == "raw").expect("the raw fields");
        let bytes = fields[raw + 1].bytes();
        let contains = |part: &[u8]| bytes.windows(part.len()).any(|window| window == part);
        assert!(contains(b"foo") && contains(b"bar"), "{service}: {bytes:?}");
    }
}
