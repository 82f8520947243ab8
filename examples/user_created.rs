//! The user-created demo: four services that know nothing of each other.
//!
//! One says `user_service.user.created`; others send the e-mail, the push and the statistics, and
//! the e-mail service says something of its own. The same file runs in one process on memory, in
//! one process on Redis, and with a process per service:
//!
//! ```text
//! cargo run --example user_created
//! cargo run --example user_created -- --url redis://127.0.0.1:6379
//! cargo run --example user_created -- --url redis://127.0.0.1:6379 --service email
//! ```

use std::collections::BTreeMap;
use std::error::Error;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::Parser;
use rumormill::{
    Bus, Context, Event, Handle, HandlerError, Init, Publisher, Routes, Service, Services,
    Timestamp, register,
};
use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

#[derive(Serialize, Deserialize, Event)]
#[event(type = "user_service.user.created", key = user_id)]
struct UserCreated {
    user_id: String,
    email: String,
    username: String,
}

#[derive(Serialize, Deserialize, Event)]
#[event(type = "user_service.user.updated", key = user_id)]
struct UserUpdated {
    user_id: String,
}

#[derive(Serialize, Deserialize, Event)]
#[event(type = "email_service.email.sent", key = to)]
struct EmailSent {
    to: String,
    subject: String,
}

#[derive(Serialize, Deserialize, Event)]
#[event(type = "notification_service.sent", key = user_id)]
struct NotificationSent {
    user_id: String,
}

/// Manages users and tells of them.
struct UserService {
    publisher: Publisher,
    tally: Arc<Tally>,
}

impl UserService {
    async fn from_init(init: &Init) -> Result<Self, rumormill::Error> {
        Ok(Self { publisher: init.publisher(), tally: init.resource()? })
    }

    async fn create_user(&self, username: &str) -> Result<(), rumormill::PublishError> {
        say(&format!("[UserService] Creating user: {username}"));
        let created = UserCreated {
            user_id: format!("user_{username}"),
            email: format!("{username}@example.com"),
            username: username.to_owned(),
        };
        self.publisher.publish(&created).await?;
        self.tally.published("user", 1);
        Ok(())
    }
}

impl Service for UserService {
    const NAME: &'static str = "user";

    fn routes(routes: Routes<Self>) -> Routes<Self> {
        routes // it only publishes
    }
}

register!(UserService, UserService::from_init);

/// Sends a welcome mail to each new user, and says so.
struct EmailService(Arc<Tally>);

impl EmailService {
    async fn from_init(init: &Init) -> Result<Self, rumormill::Error> {
        init.resource().map(Self)
    }
}

impl Service for EmailService {
    const NAME: &'static str = "email";

    fn routes(routes: Routes<Self>) -> Routes<Self> {
        routes.on::<UserCreated>()
    }
}

impl Handle<UserCreated> for EmailService {
    async fn handle(&self, event: UserCreated, ctx: &Context) -> Result<(), HandlerError> {
        say(&format!("[EmailService] Sending welcome email to {}", event.email));
        tokio::time::sleep(Duration::from_millis(50)).await; // the mail server
        // Goes out with the end of this delivery, or not at all.
        ctx.publish(&EmailSent { to: event.email, subject: "Welcome!".to_owned() })?;
        self.0.handled(Self::NAME);
        self.0.published(Self::NAME, 1);
        Ok(())
    }
}

register!(EmailService, EmailService::from_init);

/// Sends a push notification to each new user.
struct NotificationService(Arc<Tally>);

impl NotificationService {
    async fn from_init(init: &Init) -> Result<Self, rumormill::Error> {
        init.resource().map(Self)
    }
}

impl Service for NotificationService {
    const NAME: &'static str = "notification";

    fn routes(routes: Routes<Self>) -> Routes<Self> {
        routes.on::<UserCreated>()
    }
}

impl Handle<UserCreated> for NotificationService {
    async fn handle(&self, event: UserCreated, ctx: &Context) -> Result<(), HandlerError> {
        let user = &event.user_id;
        say(&format!("[NotificationService] Sending push notification to user {user}"));
        ctx.publish(&NotificationSent { user_id: event.user_id })?;
        self.0.handled(Self::NAME);
        self.0.published(Self::NAME, 1);
        Ok(())
    }
}

register!(NotificationService, NotificationService::from_init);

/// Keeps count of what happens.
struct AnalyticsService(Arc<Tally>);

impl AnalyticsService {
    async fn from_init(init: &Init) -> Result<Self, rumormill::Error> {
        init.resource().map(Self)
    }

    fn track(&self, ctx: &Context) -> Result<(), HandlerError> {
        let envelope = ctx.envelope();
        let seconds = Timestamp::from_millis(envelope.time().as_millis() / 1_000 * 1_000);
        let name = envelope.event_type();
        say(&format!("[AnalyticsService] Tracking event: {name} at {seconds}"));
        self.0.handled(Self::NAME);
        Ok(())
    }
}

impl Service for AnalyticsService {
    const NAME: &'static str = "analytics";

    fn routes(routes: Routes<Self>) -> Routes<Self> {
        routes.on::<UserCreated>().on::<UserUpdated>().on::<EmailSent>()
    }
}

impl Handle<UserCreated> for AnalyticsService {
    async fn handle(&self, _: UserCreated, ctx: &Context) -> Result<(), HandlerError> {
        self.track(ctx)
    }
}

impl Handle<UserUpdated> for AnalyticsService {
    async fn handle(&self, _: UserUpdated, ctx: &Context) -> Result<(), HandlerError> {
        self.track(ctx)
    }
}

impl Handle<EmailSent> for AnalyticsService {
    async fn handle(&self, _: EmailSent, ctx: &Context) -> Result<(), HandlerError> {
        self.track(ctx)
    }
}

register!(AnalyticsService, AnalyticsService::from_init);

/// What each service did: handled and published.
#[derive(Default)]
struct Tally(Mutex<BTreeMap<&'static str, (u64, u64)>>);

impl Tally {
    fn handled(&self, service: &'static str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(service).or_default().0 += 1;
    }

    fn published(&self, service: &'static str, count: u64) {
        let mut tally = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tally.entry(service).or_default().1 += count;
    }

    fn print(&self, services: &[&'static str]) {
        let tally = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        say(&format!("{:<14}{:>9}{:>11}", "service", "handled", "published"));
        for service in services {
            let (handled, published) = tally.get(service).copied().unwrap_or_default();
            say(&format!("{service:<14}{handled:>9}{published:>11}"));
        }
    }
}

/// A line on standard output at once, also where that is a pipe.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // Whoever stopped reading does not stop the services.
    let _closed = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Four services around the creation of users.
#[derive(Parser)]
struct Args {
    /// Where the events are: memory:, redis://host:port, unix:///path
    #[arg(long, default_value = "memory:")]
    url: String,
    /// Run this service only; needs a server
    #[arg(long, value_parser = ["user", "email", "notification", "analytics"])]
    service: Option<String>,
    /// Create user1 to userN besides alice and bob
    #[arg(long, default_value_t = 0)]
    users: u32,
}

const ALL: [&str; 4] = ["user", "email", "notification", "analytics"];

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt()
        .with_env_filter(
            EnvFilter::builder().with_default_directive(LevelFilter::WARN.into()).from_env_lossy(),
        )
        .with_writer(std::io::stderr)
        .init();
    let args = Args::parse();
    if args.service.is_some() && args.url.starts_with("memory:") {
        return Err("--service needs a server, as memory: is this process alone; \
                    add --url redis://127.0.0.1:6379"
            .into());
    }
    let services = match &args.service {
        Some(service) => Services::only([service.clone()]),
        None => Services::all(),
    };
    let tally = Arc::new(Tally::default());
    let bus = Bus::builder()
        .url(&args.url)
        .source("user_created")
        .services(services)
        .shared(Arc::clone(&tally))
        .build()
        .await?;
    let shown: Vec<&str> = ALL
        .into_iter()
        .filter(|name| args.service.as_deref().is_none_or(|one| one == *name))
        .collect();
    say("=== Starting Microservices Demo ===");
    bus.start().await?;
    if let Some(users) = bus.service::<UserService>() {
        create_users(&users, args.users).await?;
        if args.service.is_none() {
            bus.settled().await?;
        }
    } else {
        stop_signal().await?;
    }
    let report = bus.drain(rumormill::DRAIN_DEADLINE).await;
    say("=== Demo Complete ===");
    tally.print(&shown);
    if !report.is_clean() {
        return Err(format!("{} handlers were cancelled", report.forced).into());
    }
    Ok(())
}

async fn create_users(users: &UserService, count: u32) -> Result<(), Box<dyn Error>> {
    for username in ["alice", "bob"] {
        users.create_user(username).await?;
    }
    for number in 1..=count {
        users.create_user(&format!("user{number}")).await?;
    }
    Ok(())
}

/// Waits for SIGTERM or ctrl-c.
async fn stop_signal() -> std::io::Result<()> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            _ = terminate.recv() => Ok(()),
            done = tokio::signal::ctrl_c() => done,
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await
}
