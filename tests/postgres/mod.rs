//! A real PostgreSQL server per test: made and started in a directory of its own, on a Unix
//! socket, killed on drop.
//!
//! Used by several tests (`mod postgres;`), none of which needs all of it.
#![allow(dead_code, unreachable_pub)]

use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

/// How long a server may take to start.
const PATIENCE: Duration = Duration::from_secs(30);

/// `nobody`: the server refuses to run as root.
const NOBODY: u32 = 65_534;

/// A running server. Its data outlive a kill: [`Postgres::restart`] begins on the same directory.
pub struct Postgres {
    directory: TempDir,
    programs: PathBuf,
    child: Option<Child>,
}

impl Postgres {
    /// A server with an empty database.
    pub async fn start() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        if is_root(directory.path()) {
            chown(directory.path(), Some(NOBODY), Some(NOBODY)).expect("root may");
        }
        let mut server = Self { directory, programs: programs(), child: None };
        server.make();
        server.restart().await;
        server
    }

    fn make(&self) {
        let mut command = self.command("initdb");
        command.args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-locale"]);
        command.args(["--no-sync", "--pgdata"]).arg(self.path("data"));
        let made = command.stdin(Stdio::null()).output().expect("initdb starts");
        let errors = String::from_utf8_lossy(&made.stderr);
        assert!(made.status.success(), "initdb: {errors}");
    }

    /// A program of the server's, as one who may run it.
    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(self.programs.join(name));
        command.current_dir(self.directory.path());
        let owner = self.directory.path().metadata().expect("it is there").uid();
        if owner == NOBODY {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }

    /// Starts the server again after [`Postgres::kill`].
    pub async fn restart(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if self.has_ended() {
                self.spawn();
            }
            if let Ok(pool) = self.pool_of(1, "tests").await {
                pool.close().await;
                return;
            }
            assert!(Instant::now() < deadline, "PostgreSQL does not answer:\n{}", self.log());
            // waits: for the server's first answer, with a deadline
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Not started, or refused to start: those that the last one left behind still ended.
    fn has_ended(&mut self) -> bool {
        self.child.as_mut().is_none_or(|child| child.try_wait().expect("it is ours").is_some())
    }

    fn spawn(&mut self) {
        let log = std::fs::File::create(self.path("log")).expect("a log file");
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.path("data")).arg("-k").arg(self.directory.path());
        let settings = ["listen_addresses=", "fsync=off", "shared_buffers=16MB", "jit=off"];
        for setting in settings {
            command.args(["-c", setting]);
        }
        command.stdin(Stdio::null()).stderr(log.try_clone().expect("a log file")).stdout(log);
        self.child = Some(command.spawn().expect("PostgreSQL starts"));
    }

    /// Kills the server as `kill -9` does.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("the server can be killed");
            child.wait().expect("the server ends");
        }
    }

    /// The directory of the server's socket, which is its address.
    pub fn host(&self) -> &Path {
        self.directory.path()
    }

    /// Connections; those of a program that is named can be ended together.
    pub async fn pool_of(&self, most: u32, program: &str) -> Result<PgPool, sqlx::Error> {
        let options = options(self.host()).application_name(program);
        PgPoolOptions::new().max_connections(most).connect_with(options).await
    }

    /// Connections.
    pub async fn pool(&self) -> PgPool {
        self.pool_of(8, "tests").await.expect("the server answers")
    }

    /// Ends the connections of a program.
    pub async fn disconnect(&self, program: &str) {
        let Ok(pool) = self.pool_of(1, "breaker").await else { return };
        let text = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                    WHERE application_name = $1";
        let _down = sqlx::query(text).bind(program).execute(&pool).await;
        pool.close().await;
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }
}

/// How a server on the socket in this directory is reached.
pub fn options(host: &Path) -> PgConnectOptions {
    PgConnectOptions::new().socket(host).username("postgres").database("postgres")
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _gone = child.kill();
            let _gone = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- PostgreSQL's log ---\n{}", self.log());
        }
    }
}

fn is_root(own: &Path) -> bool {
    own.metadata().expect("it was just made").uid() == 0
}

/// Where `initdb` and `postgres` are: `$POSTGRES_BIN`, else on the path, else where Debian has
/// them.
fn programs() -> PathBuf {
    let named = std::env::var_os("POSTGRES_BIN").filter(|name| !name.is_empty());
    let path = std::env::var_os("PATH").unwrap_or_default();
    let debian = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let debian = debian.filter_map(|version| Some(version.ok()?.path().join("bin")));
    let mut places: Vec<PathBuf> = named.map(PathBuf::from).into_iter().collect();
    places.extend(std::env::split_paths(&path));
    places.extend(debian);
    let found = places
        .into_iter()
        .find(|place| ["initdb", "postgres"].iter().all(|program| place.join(program).is_file()));
    found.unwrap_or_else(|| {
        panic!(
            "no PostgreSQL server was found: run `scripts/test`, which brings one, or set \
             POSTGRES_BIN to the directory of initdb and postgres"
        )
    })
}
