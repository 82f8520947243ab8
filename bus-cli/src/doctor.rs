//! `bus-cli doctor`: what is wrong with a store, what that means, and what mends it.

mod list;
mod report;
mod screen;
mod unreachable;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use clap::ArgAction;
use clap::builder::BoolishValueParser;
use rumormill::Confirm;
use rumormill::driver::Driver;
use rumormill::driver::admin::Diagnosis;
use rumormill::driver::redis::checks;

use self::report::Report;
use self::watch::Watch;
use crate::args::{Format, twin};
use crate::failure::{Exit, Failure};
use crate::settings::Connection;
use crate::table::{Screen, json_lines, write};
use crate::{duration, signals};

/// How long replicas may take to confirm; nothing is published here.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(1);

/// Look at the store from all sides: what is wrong, what it means, and the command that mends it
///
/// Changes nothing. Ends with 0 where nothing is worse than a note, 3 where something is at risk
/// or broken, 4 where the store cannot be looked at. A check that may not be made says which
/// right it lacks, and does not count.
#[derive(Debug, clap::Args)]
#[command(mut_args(|arg| twin("DOCTOR", arg)), after_help = "\
Examples:
  bus-cli doctor
  bus-cli doctor --output json | jq '.checks[] | select(.verdict == \"found\")'
  bus-cli doctor --ignore persistence.everysec --ignore access.excess
  bus-cli doctor --watch 10s")]
pub(crate) struct DoctorArgs {
    /// Look again and again, every so often, and show what came and what went; ctrl-c ends it
    #[arg(long, value_name = "DUR", num_args = 0..=1, default_missing_value = "5s")]
    watch: Option<String>,
    /// A check whose findings are known and accepted: they are shown, and do not count; may be
    /// repeated
    #[arg(long, value_name = "ID", value_delimiter = ',')]
    ignore: Vec<String>,
    /// N replicas are to confirm what is published: fewer are a fault
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    wait: Option<u32>,
    /// Print what is looked at, connecting to nothing
    #[arg(long, action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
    list: bool,
}

/// What `doctor` was asked for.
pub(crate) struct Doctor {
    every: Option<Duration>,
    ignored: Vec<String>,
    confirm: Confirm,
    list: bool,
    format: Format,
}

impl Doctor {
    pub(crate) fn new(args: DoctorArgs, format: Format) -> Result<Self, Failure> {
        let every =
            args.watch.as_deref().map(|text| duration::parse("--watch", text)).transpose()?;
        if every.is_some_and(|every| every.is_zero()) {
            return Err(Failure::usage("--watch: 0 would look all the time"));
        }
        args.ignore.iter().try_for_each(|id| list::check(id))?;
        let timeout = CONFIRM_TIMEOUT;
        let confirm =
            args.wait.map_or(Confirm::Server, |count| Confirm::Replicas { count, timeout });
        Ok(Self { every, ignored: args.ignore, confirm, list: args.list, format })
    }

    pub(crate) async fn run(self, connection: &Connection) -> Result<Exit, Failure> {
        if self.list {
            return list::print(&checks(), self.format);
        }
        let bus = match connection.bus().source(crate::SOURCE).confirm(self.confirm).build().await {
            Ok(bus) => bus,
            Err(error) => return unreachable::tell(&error, &connection.address, self.format),
        };
        let driver = Arc::clone(bus.driver());
        let exit = match self.every {
            None => self.once(&*driver, connection).await,
            Some(every) => self.watch(&*driver, connection, every).await,
        };
        crate::close(&bus).await;
        exit
    }

    async fn once(&self, driver: &dyn Driver, connection: &Connection) -> Result<Exit, Failure> {
        let diagnosis = match look(driver).await {
            Ok(diagnosis) => diagnosis,
            Err(error) => return unreachable::tell(&error, &connection.address, self.format),
        };
        let report = Report::new(&diagnosis, &connection.address, &self.ignored);
        match self.format {
            Format::Pretty => write(&screen::render(&report, Screen::stdout()))?,
            Format::Json => write(&json_lines(&[&report])?)?,
            Format::Raw => write(&report.ids())?,
        };
        Ok(report.exit())
    }

    /// Until ctrl-c; the exit is that of the last look.
    async fn watch(
        &self,
        driver: &dyn Driver,
        connection: &Connection,
        every: Duration,
    ) -> Result<Exit, Failure> {
        let mut watch = Watch::new(self.format, every);
        let interrupt = signals::interrupt();
        tokio::pin!(interrupt);
        loop {
            let looked = tokio::select! {
                () = &mut interrupt => return Ok(watch.exit()),
                looked = look(driver) => looked,
            };
            match &looked {
                Ok(diagnosis) => {
                    let address = &connection.address;
                    watch.show(&Report::new(diagnosis, address, &self.ignored))?;
                }
                Err(error) => watch.lost(&connection.address.redact(&error.to_string()))?,
            }
            if watch.is_unread() {
                return Ok(watch.exit());
            }
            tokio::select! {
                () = &mut interrupt => return Ok(watch.exit()),
                () = tokio::time::sleep(every) => {}
            }
        }
    }
}

async fn look(driver: &dyn Driver) -> Result<Diagnosis, rumormill::Error> {
    match driver.admin() {
        Some(admin) => admin.diagnose().await,
        None => Err(rumormill::Error::invalid("cannot look at the store: its driver cannot")),
    }
}
