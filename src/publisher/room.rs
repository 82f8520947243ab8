//! Room for events without an answer, and the line of those who wait for it.

use std::sync::Arc;

use tokio::sync::{AcquireError, MutexGuard, OwnedSemaphorePermit};
use tokio::time::{Instant, timeout_at};

use super::{PublishLimits, Publisher, closed};
use crate::envelope::Envelope;
use crate::error::{Error, ErrorKind, PublishError};

/// Room for one event without an answer.
pub(super) struct Permit {
    _event: OwnedSemaphorePermit,
    _bytes: OwnedSemaphorePermit,
}

impl Publisher {
    /// A place in line, where there may be no room: the first encodes its event and waits for room,
    /// the others wait with nothing in their hands. Otherwise what waits would have no limit.
    pub(super) async fn line(
        &self,
        until: Instant,
    ) -> Result<Option<MutexGuard<'_, ()>>, PublishError> {
        match self.0.line.try_lock() {
            Ok(_) if self.has_room() => return Ok(None),
            Ok(first) => return Ok(Some(first)),
            // Nobody overtakes those in line, which would break the order of a key.
            Err(_) => {}
        }
        self.join_line(until).await.map(Some)
    }

    /// Waits behind all who are in line.
    pub(super) async fn join_line(
        &self,
        until: Instant,
    ) -> Result<MutexGuard<'_, ()>, PublishError> {
        let first = timeout_at(until, self.0.line.lock()).await;
        first.map_err(|_| PublishError::NotStored(self.full()))
    }

    /// Whether any event finds room.
    fn has_room(&self) -> bool {
        let PublishLimits { payload_bytes_max, unconfirmed_bytes_max, .. } = self.0.limits;
        self.0.unconfirmed.available_permits() > 0
            && self.0.unconfirmed_bytes.available_permits()
                >= payload_bytes_max.min(unconfirmed_bytes_max)
    }

    /// Waits for room. Both semaphores are fair: nobody overtakes who waits for more of it.
    pub(super) async fn permit(
        &self,
        envelope: &Envelope,
        until: Instant,
    ) -> Result<Permit, PublishError> {
        let limits = &self.0.limits;
        let most = u32::try_from(limits.unconfirmed_bytes_max).unwrap_or(u32::MAX);
        let bytes = u32::try_from(envelope.weight()).unwrap_or(u32::MAX).clamp(1, most);
        let unconfirmed = (&self.0.unconfirmed, &self.0.unconfirmed_bytes);
        if let Ok(event) = Arc::clone(unconfirmed.0).try_acquire_owned()
            && let Ok(bytes) = Arc::clone(unconfirmed.1).try_acquire_many_owned(bytes)
        {
            return Ok(Permit { _event: event, _bytes: bytes });
        }
        let room = async {
            let event = Arc::clone(unconfirmed.0).acquire_owned().await?;
            let bytes = Arc::clone(unconfirmed.1).acquire_many_owned(bytes).await?;
            Ok::<_, AcquireError>(Permit { _event: event, _bytes: bytes })
        };
        timeout_at(until, room)
            .await
            .map_err(|_| PublishError::NotStored(self.full()))?
            .map_err(|_| PublishError::NotStored(closed()))
    }

    fn full(&self) -> Error {
        let PublishLimits { unconfirmed_max, unconfirmed_bytes_max, deadline, .. } = self.0.limits;
        let text = format!(
            "published events had no answer for {deadline:?}, as many as may wait \
             ({unconfirmed_max}, or {unconfirmed_bytes_max} bytes)"
        );
        Error::new(ErrorKind::Timeout, text).with_help("publish more slowly, or find what is slow")
    }
}
