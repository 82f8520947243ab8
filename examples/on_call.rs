//! A service with three faults, for whoever is on call: `docs/operating.md` is what they saw.
//!
//! ```text
//! export BUS_URL=redis://127.0.0.1:6379
//! cargo run --example on_call -- publish
//! cargo run --example on_call -- serve
//! cargo run --example on_call -- serve --fixed
//! ```
//!
//! The payments service knows no rate for Swiss francs, refuses what closed accounts ask for, and
//! cannot read what an old till sends. `--fixed` is its next version, which knows the rate.
//! `handle-one` runs the handler for an event that it reads as a line of JSON, to try a version on
//! what another one gave up: `bus-cli dead-letters redrive --into`.

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use rumormill::{
    Bus, Context, Event, Handle, HandlerError, Init, RetryPolicy, Routes, Service, ServiceOptions,
    Services, register,
};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Event)]
#[event(type = "shop.payment.requested", key = account)]
struct PaymentRequested {
    account: String,
    cents: u64,
    currency: String,
}

/// Books payments in euros.
struct Payments {
    fixed: bool,
}

impl Payments {
    async fn from_init(init: &Init) -> Result<Self, rumormill::Error> {
        let fixed = *init.resource::<bool>()?;
        Ok(Self { fixed })
    }

    /// What both ways into the handler share.
    fn book(&self, payment: &PaymentRequested) -> Result<u64, HandlerError> {
        if payment.account.starts_with("closed-") {
            // Trying again will not open it.
            return Err(HandlerError::reject(format!("account {} is closed", payment.account)));
        }
        let percent = match payment.currency.as_str() {
            "EUR" => 100,
            "CHF" if self.fixed => 106,
            other => return Err(format!("no rate for {other}").into()),
        };
        Ok(payment.cents * percent / 100)
    }
}

impl Service for Payments {
    const NAME: &'static str = "payments";

    fn routes(routes: Routes<Self>) -> Routes<Self> {
        routes.on::<PaymentRequested>()
    }

    fn options() -> ServiceOptions {
        let (attempts_max, first) = (3, Duration::from_millis(50));
        let retry = RetryPolicy { attempts_max, first, ..RetryPolicy::default() };
        ServiceOptions { retry, ..ServiceOptions::default() }
    }
}

impl Handle<PaymentRequested> for Payments {
    async fn handle(&self, payment: PaymentRequested, _: &Context) -> Result<(), HandlerError> {
        self.book(&payment).map(|_cents| ())
    }
}

register!(Payments, Payments::from_init);

#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Publishes so many payments, most of which go wrong
    Publish {
        #[arg(long, env = "BUS_URL")]
        url: String,
        #[arg(long, default_value_t = 12_000)]
        payments: u64,
    },
    /// Runs the service until ctrl-c or SIGTERM
    Serve {
        #[arg(long, env = "BUS_URL")]
        url: String,
        #[arg(long)]
        fixed: bool,
    },
    /// Handles the event on standard input
    HandleOne {
        #[arg(long)]
        fixed: bool,
    },
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    match Args::parse().command {
        Command::Publish { url, payments } => publish(&url, payments).await?,
        Command::Serve { url, fixed } => serve(url, fixed).await?,
        Command::HandleOne { fixed } => return Ok(handle_one(&Payments { fixed })),
    }
    Ok(ExitCode::SUCCESS)
}

async fn publish(url: &str, payments: u64) -> Result<(), Box<dyn Error>> {
    let bus = Bus::builder().url(url).services(Services::none()).source("shop").build().await?;
    let all: Vec<_> = (0..payments).map(payment).collect();
    for receipt in bus.publish_many(&all).await {
        receipt?;
    }
    println!("{payments} payments published");
    bus.drain(Duration::from_secs(5)).await;
    Ok(())
}

/// Of twelve payments two are fine, three come from closed accounts, and seven are in francs.
fn payment(number: u64) -> PaymentRequested {
    let (account, currency) = match number % 12 {
        0 | 1 => (format!("acc-{}", number % 500), "EUR"),
        2..=4 => (format!("closed-{}", number % 40), "EUR"),
        _ => (format!("acc-{}", number % 500), "CHF"),
    };
    PaymentRequested { account, cents: 100 + number, currency: currency.to_owned() }
}

async fn serve(url: String, fixed: bool) -> Result<(), Box<dyn Error>> {
    let version = if fixed { "1.4.1" } else { "1.4.0" };
    let services = Services::only([Payments::NAME]);
    let builder = Bus::builder().url(url).services(services).version(version).resource(fixed);
    let bus = builder.build().await?;
    bus.start().await?;
    println!("payments {version} is ready");
    let report = bus.run(terminated()?).await?;
    println!("drained: {} finished, {} handed over", report.finished, report.handed_over);
    Ok(())
}

fn terminated() -> Result<impl Future<Output = ()>, std::io::Error> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut signals = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = signals.0.recv() => {}
            _ = signals.1.recv() => {}
        }
    })
}

/// A line of JSON as `bus-cli tail` writes it.
#[derive(Deserialize)]
struct Line {
    data: PaymentRequested,
}

fn handle_one(payments: &Payments) -> ExitCode {
    let line: Result<Line, _> = serde_json::from_reader(std::io::stdin());
    let booked = line.map_err(HandlerError::from).and_then(|line| payments.book(&line.data));
    match booked {
        Ok(cents) => {
            eprintln!("booked {cents} cents");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
