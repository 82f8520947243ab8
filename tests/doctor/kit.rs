//! A server, a driver on it, and what the doctor says.

use std::sync::Arc;
use std::time::Duration;

use rumormill::driver::Driver;
use rumormill::driver::admin::{Diagnosis, Finding, Severity, Verdict};
use rumormill::driver::redis::{RedisDriver, RedisOptions};
use tokio::task::block_in_place;
use tokio::time::sleep;

use crate::server::{Reply, Server};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(15);

pub(crate) struct Ward {
    pub(crate) server: Server,
    pub(crate) driver: Arc<RedisDriver>,
}

impl Ward {
    /// A server with these settings.
    pub(crate) async fn with(arguments: &[&str]) -> Self {
        Self::on(Server::with(arguments)).await
    }

    pub(crate) async fn on(server: Server) -> Self {
        let options = RedisOptions::new(server.url());
        Self::connected(server, options).await
    }

    pub(crate) async fn connected(server: Server, options: RedisOptions) -> Self {
        let driver = RedisDriver::connect(options).await.expect("connects");
        Self { server, driver }
    }

    /// The same server, as another user.
    pub(crate) async fn enter(&mut self, user: &str) {
        let url = format!("{}?user={user}&pass=pw", self.server.url());
        self.driver.close().await;
        self.driver = RedisDriver::connect(RedisOptions::new(url)).await.expect("connects");
    }

    pub(crate) async fn look(&self) -> Diagnosis {
        let admin = self.driver.admin().expect("it has the powers");
        admin.diagnose().await.expect("a diagnosis")
    }

    pub(crate) async fn verdict(&self, id: &str) -> Verdict {
        let looked = self.look().await.checks.into_iter().find(|looked| looked.check.id == id);
        looked.unwrap_or_else(|| panic!("no check is {id}")).verdict
    }

    pub(crate) async fn passes(&self, id: &str) {
        assert_eq!(self.verdict(id).await, Verdict::Passed, "{id}");
    }

    /// The findings of a check: some, each with a subject and a mend.
    pub(crate) async fn findings(&self, id: &str) -> Vec<Finding> {
        let Verdict::Found(findings) = self.verdict(id).await else {
            panic!("{id} was not found: {:?}", self.verdict(id).await)
        };
        for finding in &findings {
            assert!(finding.subject.is_some() && !finding.mend.is_empty(), "{finding:?}");
        }
        findings
    }

    /// The one finding of a check, as bad as this and saying this.
    pub(crate) async fn finds(&self, id: &str, severity: Severity, words: &str) -> Finding {
        let mut findings = self.findings(id).await;
        assert_eq!(findings.len(), 1, "{findings:?}");
        let found = findings.remove(0);
        assert_eq!(found.severity, severity, "{found:?}");
        assert!(found.text.contains(words), "{words:?}: {found:?}");
        found
    }

    /// Waits until a check ends as it should.
    pub(crate) async fn until(&self, id: &str, is_so: impl Fn(&Verdict) -> bool) {
        for _ in 0..PATIENCE.as_millis() / 20 {
            if is_so(&self.verdict(id).await) {
                return;
            }
            // waits: for the server to do what it was told, with a deadline
            sleep(Duration::from_millis(20)).await;
        }
        panic!("{id} ends with {:?}", self.verdict(id).await);
    }

    pub(crate) fn say(&self, command: &str) -> Reply {
        block_in_place(|| self.server.say(command))
    }

    pub(crate) fn ask(&self, command: &[&str]) -> Reply {
        block_in_place(|| self.server.ask(command))
    }

    /// A line of INFO.
    pub(crate) fn info(&self, name: &str) -> String {
        let text = self.say("INFO").text();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_else(|| panic!("INFO has no {name}")).trim().to_owned()
    }

    pub(crate) fn number(&self, name: &str) -> u64 {
        self.info(name).parse().expect("a number")
    }
}

/// A setting whose one value passes and whose other one is found; and passes again after the
/// command that the finding names.
pub(crate) async fn setting(
    id: &str,
    ward: Ward,
    [name, good, bad]: [&str; 3],
    (severity, words): (Severity, &str),
) {
    ward.ask(&["CONFIG", "SET", name, good]);
    ward.passes(id).await;
    ward.ask(&["CONFIG", "SET", name, bad]);
    let found = ward.finds(id, severity, words).await;
    mend(&ward, &found);
    ward.passes(id).await;
}

/// Does what a finding says: the `CONFIG SET` in it.
pub(crate) fn mend(ward: &Ward, found: &Finding) {
    let (_, command) = found.mend.split_once("CONFIG SET ").expect("a setting");
    let command = command.split(" && ").next().expect("a command");
    let (name, value) = command.split_once(' ').expect("a value");
    ward.ask(&["CONFIG", "SET", name, value.trim_matches('"')]);
}

/// A port that nobody listens on.
pub(crate) fn free_port() -> String {
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    free.local_addr().expect("an address").port().to_string()
}
