//! Setting what is kept of a topic.

use super::grow::{TRIES_MAX, contended};
use crate::driver::admin::{TopicLimits, unknown_topic};
use crate::driver::redis::Shared;
use crate::driver::redis::topics::{CAP_BYTES, KEEP_BYTES, KEEP_MS};
use crate::error::Error;
use crate::event_type::Topic;

impl Shared {
    pub(super) async fn limit_topic(
        &self,
        topic: &Topic,
        limits: TopicLimits,
    ) -> Result<(), Error> {
        limits.check()?;
        let millis =
            |keep: std::time::Duration| u64::try_from(keep.as_millis()).unwrap_or(u64::MAX);
        let fields = [
            (KEEP_MS, limits.keep.map(millis)),
            (KEEP_BYTES, limits.keep_bytes),
            (CAP_BYTES, limits.cap_bytes),
        ];
        for _ in 0..TRIES_MAX {
            let written = self.read_topic(topic).await?.ok_or_else(|| unknown_topic(topic))?;
            if self.write_topic(topic, Some(&written), &fields).await? {
                return Ok(());
            }
        }
        Err(contended(topic))
    }
}
