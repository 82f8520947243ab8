//! The command line of rumormill: publish to and tail an event bus from a shell.
//!
//! [`main`] is the whole program, so that a binary of one's own gets the command line together
//! with the services that it links:
//!
//! ```no_run
//! fn main() -> std::process::ExitCode {
//!     bus_cli::main()
//! }
//! ```
//!
//! Arguments come in two stages: `args` is what was typed, `settings` is what it means. One
//! subcommand is one file. Errors say what was attempted, on which address, why it failed and what
//! to try; the exit codes are 0 done, 1 failed, 2 usage, 3 partly, 4 unreachable. A closed pipe is
//! success.

mod address;
mod args;
mod duration;
mod escape;
mod failure;
mod msgpack;
mod ndjson;
mod output;
mod publish;
mod settings;
mod tail;

use std::io::stderr;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};
use rumormill::{Bus, Services};

use crate::failure::{Exit, Failure};
use crate::settings::{Connection, Settings, Task};

/// Who published, where nothing else says so.
const SOURCE: &str = "bus-cli";

/// Runs the command line of this process and says how it went.
pub fn main() -> ExitCode {
    let settings = match settings() {
        Ok(settings) => settings,
        Err(code) => return code,
    };
    let shown = settings.connection.address.clone();
    let exit = log_to_stderr().and_then(|()| run(settings)).unwrap_or_else(|failure| {
        failure.print(&shown, &mut stderr());
        failure.exit
    });
    exit.into()
}

/// What was asked for; or, where it is no task, the code to end with.
fn settings() -> Result<Settings, ExitCode> {
    let typed = args::Args::command().try_get_matches();
    let matches = typed.map_err(|error| {
        // Help and version are no error. Where even printing fails, the code still tells.
        let _ = error.print();
        if error.use_stderr() { ExitCode::from(Exit::Usage) } else { ExitCode::from(Exit::Done) }
    })?;
    let parsed = args::Args::from_arg_matches(&matches);
    let settings = parsed
        .map_err(|error| Failure::usage(error.to_string()))
        .and_then(|args| Settings::new(args, &matches));
    settings.map_err(|failure| {
        failure.print(&address::Address::none(), &mut stderr());
        failure.exit.into()
    })
}

/// Warnings of the library, on stderr; `RUST_LOG` asks for more.
fn log_to_stderr() -> Result<(), Failure> {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::builder()
        .with_default_directive(tracing_subscriber::filter::LevelFilter::WARN.into())
        .from_env_lossy();
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr);
    subscriber.try_init().map_err(|error| Failure::failed("cannot write a log").because(&*error))
}

fn run(settings: Settings) -> Result<Exit, Failure> {
    // Without a provider every `rediss://` address would panic. A second one is refused, which is
    // what a program that brought its own wants.
    #[cfg(feature = "tls")]
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed("cannot start the runtime").because(&error))?;
    let exit = runtime.block_on(perform(settings));
    // A reader of stdin may still wait for a line that nobody needs.
    runtime.shutdown_background();
    exit
}

async fn perform(settings: Settings) -> Result<Exit, Failure> {
    let Settings { connection, task } = settings;
    match task {
        Task::Publish(task) => {
            // What cannot be read needs no connection.
            let job = publish::Job::new(task)?;
            let bus = connect(&connection).await?;
            let exit = job.run(&bus, &connection.address).await;
            close(&bus).await;
            exit
        }
        Task::Tail(task) => {
            let bus = connect(&connection).await?;
            let exit = tail::run(&task, &bus, &connection.address).await;
            close(&bus).await;
            exit
        }
    }
}

async fn connect(connection: &Connection) -> Result<Bus, Failure> {
    let Connection { address, namespace } = connection;
    let bus = Bus::builder()
        .url(address.url())
        .namespace(namespace)
        .source(SOURCE)
        .services(Services::none());
    let connected = bus.build().await;
    connected.map_err(|error| Failure::library(format!("cannot connect to {address}"), &error))
}

async fn close(bus: &Bus) {
    bus.drain(std::time::Duration::ZERO).await;
}
