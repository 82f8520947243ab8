//! What topics there are: a hash topic -> JSON, which says a topic's shape.

use std::collections::HashMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{Shared, reply};
use crate::delivery::Partition;
use crate::driver::TopicShape;
use crate::driver::admin::TopicLimits;
use crate::error::{Error, ErrorKind};
use crate::event_type::Topic;

/// A topic as it is written down. Readers skip what they do not know.
#[derive(Serialize, Deserialize)]
struct Written {
    partitions: u32,
}

/// Fields of a topic beside its partitions, all optional.
pub(super) const KEEP_MS: &str = "keep_ms";
pub(super) const KEEP_BYTES: &str = "keep_bytes";
pub(super) const CAP_BYTES: &str = "cap_bytes";

/// How long a shape is taken as known; then it is read again, since topics grow.
const SHAPE_KEPT: Duration = Duration::from_secs(4);

/// Topics that are known to be declared, and since when.
pub(super) type Known = HashMap<Topic, (TopicShape, Instant)>;

/// All partitions of topics.
pub(super) fn partitions_of(shapes: &[TopicShape]) -> impl Iterator<Item = Partition> {
    shapes.iter().flat_map(TopicShape::partitions)
}

/// What is written about a topic with so many partitions.
pub(super) fn written(partitions: u32) -> String {
    serde_json::json!({ "partitions": partitions }).to_string()
}

pub(super) fn read(topic: &Topic, json: &str) -> Result<TopicShape, Error> {
    let broken = |why: String| {
        let text = format!("topic {topic} is declared as {json:?}: {why}");
        Error::new(ErrorKind::Server, text).with_help("write {\"partitions\":1} there")
    };
    let written: Written = serde_json::from_str(json).map_err(|error| broken(error.to_string()))?;
    if written.partitions == 0 {
        return Err(broken("a topic has at least one partition".to_owned()));
    }
    Ok(TopicShape { topic: topic.clone(), partitions: written.partitions })
}

/// The limits of a topic as they are written down. What cannot be read counts as not set; the
/// second part tells of it.
pub(super) fn limits(topic: &Topic, json: &str) -> (TopicLimits, Option<String>) {
    let written: serde_json::Value = serde_json::from_str(json).unwrap_or_default();
    let mut flaw = None;
    let mut number = |name: &str| match written.get(name) {
        None | Some(serde_json::Value::Null) => None,
        Some(value) => {
            let number = value.as_u64();
            if number.is_none() {
                flaw = Some(format!("limit {name} of topic {topic} is no number: {value}"));
            }
            number
        }
    };
    let keep = number(KEEP_MS).map(Duration::from_millis);
    let (keep_bytes, cap_bytes) = (number(KEEP_BYTES), number(CAP_BYTES));
    (TopicLimits { keep, keep_bytes, cap_bytes }, flaw)
}

impl Shared {
    /// Makes a topic known, with one partition unless it has others.
    pub(super) async fn declare_topic(&self, topic: &Topic) -> Result<TopicShape, Error> {
        let known = self.topics().get(topic).cloned();
        if let Some((shape, since)) = &known
            && since.elapsed() < SHAPE_KEPT
        {
            return Ok(shape.clone());
        }
        let key = self.keys.topics();
        let what = format!("declare topic {topic}");
        // A topic that was lost has as many partitions as before.
        let fresh = written(known.map_or(1, |(shape, _)| shape.partitions));
        let mut pipeline = redis::pipe();
        pipeline.cmd("HSETNX").arg(&key).arg(topic.as_str()).arg(fresh);
        pipeline.cmd("HGET").arg(&key).arg(topic.as_str());
        let mut answers = self.commands.ask(&what, &pipeline).await?.into_iter();
        let refuse = |fault| self.commands.error(format!("{what} in key {key}"), &fault);
        let (set, got) = (answers.next().unwrap_or_default(), answers.next().unwrap_or_default());
        let json = reply::text(got).map_err(refuse)?;
        if json.is_empty() {
            // The topic is not there, so it was the writing that failed.
            reply::int(set).map_err(refuse)?;
        }
        let shape = read(topic, &json)?;
        self.publish_to(&shape);
        self.topics().insert(topic.clone(), (shape.clone(), Instant::now()));
        Ok(shape)
    }

    /// Who publishes to a topic moves its delayed events.
    fn publish_to(&self, shape: &TopicShape) {
        for partition in shape.partitions() {
            self.schedule.watch_topic(&self.keys, &partition);
        }
    }

    /// Every declared topic, by name. What cannot be read is left out, aloud.
    pub(super) async fn load_topics(&self) -> Result<Vec<TopicShape>, Error> {
        let key = self.keys.topics();
        let what = format!("read the topics in key {key}");
        let mut command = redis::cmd("HGETALL");
        command.arg(&key);
        let answer = self.commands.ask_one(&what, command).await?;
        let refuse = |fault| self.commands.error(&what, &fault);
        let mut shapes = Vec::new();
        for (name, json) in reply::pairs(answer).map_err(refuse)? {
            let (name, json) =
                (reply::text(name).map_err(refuse)?, reply::text(json).map_err(refuse)?);
            match name.parse().and_then(|topic| read(&topic, &json)) {
                Ok(shape) => shapes.push(shape),
                Err(error) => self.troubles.failed(format_args!("read topic {name}"), &error),
            }
        }
        shapes.sort_by(|one, other| one.topic.cmp(&other.topic));
        // Topics that are published to from here may have grown.
        let mut known = self.topics();
        for shape in &shapes {
            if let Some(own) = known.get_mut(&shape.topic) {
                *own = (shape.clone(), Instant::now());
                self.publish_to(shape);
            }
        }
        drop(known);
        Ok(shapes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_is_no_number_counts_as_not_set() {
        let topic = Topic::new("t").expect("valid");
        let json = r#"{"partitions":1,"keep_ms":0,"keep_bytes":-1,"cap_bytes":null,"x":"y"}"#;
        let (limits, flaw) = limits(&topic, json);
        let keep = Some(Duration::ZERO);
        assert_eq!(limits, TopicLimits { keep, keep_bytes: None, cap_bytes: None });
        assert_eq!(flaw.as_deref(), Some("limit keep_bytes of topic t is no number: -1"));
        assert_eq!(super::limits(&topic, "no JSON"), (TopicLimits::default(), None));
    }
}
