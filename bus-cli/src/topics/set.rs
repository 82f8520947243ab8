//! `bus-cli topics set`: how many partitions a topic has, and what is kept of it.

use std::io::{Write, stderr};
use std::time::Duration;

use rumormill::Topic;
use rumormill::driver::admin::{PARTITIONS_MAX, TopicChange, TopicLimits};
use serde::Serialize;

use super::parse;
use crate::args::{Format, twin};
use crate::failure::{Exit, Failure};
use crate::operate::{Store, bytes, nothing, several};
use crate::progress::human;
use crate::prompt::{Consent, Go};
use crate::table::{Column, Table};
use crate::{duration, size};

/// Give a topic more partitions, or make it known with so many; set what is kept of it
///
/// Keys move when partitions are added: while the old ones are being read out, later events of a
/// key may be handled before earlier ones. Limits count per partition, and every process keeps to
/// them within ten seconds.
#[derive(Debug, clap::Args)]
#[command(mut_args(|arg| twin("TOPICS_SET", arg)), after_help = "\
Examples:
  bus-cli topics set orders --partitions 8 --dry-run
  bus-cli topics set orders --partitions 8 --yes
  bus-cli topics set orders --keep 1h --keep-bytes 64MiB --cap-bytes 2GiB --yes
  bus-cli topics set orders --cap-bytes default --yes")]
pub(super) struct SetArgs {
    /// The topic: the first segment of its events' types
    topic: String,
    /// How many it is to have; never fewer than it has
    #[arg(long, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=i64::from(PARTITIONS_MAX)))]
    partitions: Option<u32>,
    /// How long entries are kept that all groups have settled: 0s, 90m, 24h; or `default`
    #[arg(long, value_name = "DURATION")]
    keep: Option<String>,
    /// The size of a partition beyond which settled entries go earlier: 256MiB; or `default`
    #[arg(long, value_name = "SIZE")]
    keep_bytes: Option<String>,
    /// The size of a partition beyond which the oldest entries go, settled or not: 1GiB; or
    /// `default`. What groups lose by it is counted
    #[arg(long, value_name = "SIZE")]
    cap_bytes: Option<String>,
    #[command(flatten)]
    consent: Consent,
}

/// What `topics set` was asked for.
pub(super) struct Set {
    topic: Topic,
    partitions: Option<u32>,
    keep: Wanted<Duration>,
    keep_bytes: Wanted<u64>,
    cap_bytes: Wanted<u64>,
    consent: Consent,
}

/// What a limit is to be.
#[derive(Clone, Copy)]
enum Wanted<T> {
    AsItIs,
    Default,
    To(T),
}

impl<T: Copy> Wanted<T> {
    fn new(
        typed: Option<&str>,
        parse: impl Fn(&str) -> Result<T, Failure>,
    ) -> Result<Self, Failure> {
        Ok(match typed {
            None => Self::AsItIs,
            Some("default") => Self::Default,
            Some(text) => Self::To(parse(text)?),
        })
    }

    fn instead_of(self, now: Option<T>) -> Option<T> {
        match self {
            Self::AsItIs => now,
            Self::Default => None,
            Self::To(value) => Some(value),
        }
    }

    fn is_change(self) -> bool {
        !matches!(self, Self::AsItIs)
    }
}

/// What became of the topic.
#[derive(Serialize)]
struct Changed {
    #[serde(flatten)]
    partitions: TopicChange,
    #[serde(skip_serializing_if = "Option::is_none")]
    limits: Option<TopicLimits>,
}

impl Set {
    pub(super) fn new(args: SetArgs) -> Result<Self, Failure> {
        let SetArgs { topic, partitions, keep, keep_bytes, cap_bytes, consent } = args;
        let bytes = |flag| move |text: &str| size::parse(flag, text);
        let set = Self {
            topic: parse(&topic)?,
            partitions,
            keep: Wanted::new(keep.as_deref(), |text| duration::parse("--keep", text))?,
            keep_bytes: Wanted::new(keep_bytes.as_deref(), bytes("--keep-bytes"))?,
            cap_bytes: Wanted::new(cap_bytes.as_deref(), bytes("--cap-bytes"))?,
            consent,
        };
        if set.partitions.is_none() && !set.limits_something() {
            return Err(Failure::usage("nothing is to be set").with_help(
                "name one of --partitions, --keep, --keep-bytes and --cap-bytes, or more",
            ));
        }
        Ok(set)
    }

    fn limits_something(&self) -> bool {
        self.keep.is_change() || self.keep_bytes.is_change() || self.cap_bytes.is_change()
    }

    pub(super) async fn run(self, store: &Store<'_>, format: Format) -> Result<Exit, Failure> {
        let topic = &self.topic;
        let fail = |error| Failure::library(format!("cannot set topic {topic}"), &error);
        let shapes = store.tools()?.topics().await.map_err(fail)?;
        let shape = shapes.iter().find(|shape| shape.topic == *topic);
        let before = shape.map(|shape| shape.partitions);
        let now = match before {
            Some(_) if self.limits_something() => self.limits_now(store).await?,
            _ => TopicLimits::default(),
        };
        let limits = self.limits_instead_of(now);
        limits.check().map_err(fail)?;
        let partitions = self.partitions_instead_of(before)?;
        let mut changed = Changed {
            partitions: TopicChange { topic: topic.clone(), before, partitions, groups: vec![] },
            limits: self.limits_something().then_some(limits),
        };
        let grows = before != Some(partitions);
        let plan = self.plan(before, partitions, (limits != now).then_some(limits));
        if plan.is_empty() {
            let is = several(partitions.into(), "partition");
            let _ = writeln!(stderr(), "topic {topic} is so as it is, with {is}");
            return print(&changed, format);
        }
        let what = format!("{} on {}", plan.join(", and "), store.address);
        if self.consent.ask(&what)? == Go::Stop {
            return if format == Format::Json { print(&changed, format) } else { Ok(Exit::Done) };
        }
        if grows {
            let admin = store.admin()?;
            changed.partitions = admin.set_partitions(topic, partitions).await.map_err(fail)?;
        }
        if limits != now {
            store.admin()?.set_retention(topic, limits).await.map_err(fail)?;
        }
        print(&changed, format)
    }

    async fn limits_now(&self, store: &Store<'_>) -> Result<TopicLimits, Failure> {
        let report = store.admin()?.topic(&self.topic).await;
        let what = format!("cannot look at topic {}", self.topic);
        let report = report.map_err(|error| Failure::library(what, &error))?;
        Ok(report.retention.map(|retention| retention.set).unwrap_or_default())
    }

    fn limits_instead_of(&self, now: TopicLimits) -> TopicLimits {
        TopicLimits {
            keep: self.keep.instead_of(now.keep),
            keep_bytes: self.keep_bytes.instead_of(now.keep_bytes),
            cap_bytes: self.cap_bytes.instead_of(now.cap_bytes),
        }
    }

    /// As the library would refuse, before anybody is asked.
    fn partitions_instead_of(&self, before: Option<u32>) -> Result<u32, Failure> {
        match (self.partitions, before) {
            (Some(wanted), Some(before)) if wanted < before => {
                Err(shrinks(&self.topic, before, wanted))
            }
            (Some(wanted), _) => Ok(wanted),
            (None, Some(before)) => Ok(before),
            (None, None) => {
                let text = format!("topic {} is not known", self.topic);
                Err(Failure::failed(text).with_help("--partitions N makes it known"))
            }
        }
    }

    /// What will be done, in words.
    fn plan(
        &self,
        before: Option<u32>,
        partitions: u32,
        limits: Option<TopicLimits>,
    ) -> Vec<String> {
        let topic = &self.topic;
        let mut plan = Vec::new();
        match before {
            Some(before) if before == partitions => {}
            Some(before) => {
                let _ = writeln!(
                    stderr(),
                    "keys move: until the old partitions are read out, later events of a key may \
                     be handled before earlier ones"
                );
                plan.push(format!(
                    "give topic {topic} {partitions} partitions in place of {before}"
                ));
            }
            None => {
                let parts = several(partitions.into(), "partition");
                plan.push(format!("make topic {topic} known with {parts}"));
            }
        }
        if let Some(TopicLimits { keep, keep_bytes, cap_bytes }) = limits {
            plan.push(format!(
                "keep what is settled of topic {topic} for {}, up to {}, with a cap of {} per \
                 partition",
                shown(keep, human),
                shown(keep_bytes, bytes),
                shown(cap_bytes, bytes),
            ));
        }
        plan
    }
}

fn shown<T>(limit: Option<T>, show: impl Fn(T) -> String) -> String {
    limit.map_or_else(|| "the default".to_owned(), show)
}

fn print(changed: &Changed, format: Format) -> Result<Exit, Failure> {
    let mut columns = vec![
        Column::left("TOPIC"),
        Column::right("BEFORE"),
        Column::right("PARTITIONS"),
        Column::left("GROUPS ON THE NEW ONES"),
    ];
    let TopicChange { topic, before, partitions, groups } = &changed.partitions;
    let groups: Vec<&str> = groups.iter().map(|group| group.as_str()).collect();
    let groups = if groups.is_empty() { nothing() } else { groups.join(", ") };
    let before = before.map_or_else(nothing, |before| before.to_string());
    let mut row = vec![topic.to_string(), before, partitions.to_string(), groups];
    if let Some(limits) = changed.limits {
        columns.extend([
            Column::left("KEEP"),
            Column::right("KEEP BYTES"),
            Column::right("CAP BYTES"),
        ]);
        let TopicLimits { keep, keep_bytes, cap_bytes } = limits;
        row.extend([shown(keep, human), shown(keep_bytes, bytes), shown(cap_bytes, bytes)]);
    }
    let mut table = Table::new(columns);
    table.row(row);
    table.print(format, &[changed])
}

fn shrinks(topic: &Topic, before: u32, partitions: u32) -> Failure {
    Failure::failed(format!(
        "topic {topic} has {before} partitions and cannot shrink to {partitions}"
    ))
    .with_help(
        "what lies in the partitions that went away would never be read: publish to a new topic \
         instead",
    )
}
