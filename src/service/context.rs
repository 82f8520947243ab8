//! What a handler gets beside its event.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Handled;
use crate::delivery::{Delivery, Position};
use crate::driver::GroupName;
use crate::envelope::Envelope;
use crate::error::Error;
use crate::event::Event;
use crate::event_id::EventId;
use crate::publisher::{Encoder, PublishOptions};

/// Most events that one handler call may publish. Its outputs are one step with the end of the
/// delivery, and that step must stay short for the server.
pub const OUTPUTS_MAX: usize = 256;

/// What a handler gets beside its event: the envelope, which attempt this is, and
/// [`publish`](Context::publish), whose events go out together with the end of the delivery or
/// not at all. Cloning shares.
#[derive(Clone)]
pub struct Context(Arc<Inner>);

struct Inner {
    /// Nothing while it waits for its next one; nobody sees it then.
    delivery: Option<Delivery>,
    attempt: u32,
    outbox: Arc<Outbox>,
    /// Nothing once the delivery has ended.
    outputs: Mutex<Option<Vec<Envelope>>>,
    skipped: OnceLock<Skip>,
    /// For how long the event is known as handled, where it is to be.
    once: OnceLock<Duration>,
    /// Whether the group has handled an event of this id, where it was asked before the handler's
    /// time began.
    handled: OnceLock<bool>,
}

/// Why a delivery was acknowledged without its handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Skip {
    /// Its payload does not pass the route's filter.
    Filtered,
    /// It was handled before.
    Duplicate,
}

/// What the contexts of one consumer share.
pub(crate) struct Outbox {
    pub(crate) group: GroupName,
    pub(crate) consumer: String,
    pub(crate) encoder: Arc<Encoder>,
    pub(crate) handled: Handled,
    /// Each instance gets the event.
    pub(crate) is_broadcast: bool,
}

impl Context {
    pub(crate) fn new(delivery: Delivery, attempt: u32, outbox: Arc<Outbox>) -> Self {
        let outputs = Mutex::new(Some(Vec::new()));
        let (skipped, once, handled) = (OnceLock::new(), OnceLock::new(), OnceLock::new());
        let delivery = Some(delivery);
        Self(Arc::new(Inner { delivery, attempt, outbox, outputs, skipped, once, handled }))
    }

    /// As a new one, in the place of one that is over.
    pub(crate) fn again(
        spare: &mut Option<Self>,
        delivery: Delivery,
        attempt: u32,
        outbox: &Arc<Outbox>,
    ) -> Self {
        let mut spare = spare.take();
        match spare.as_mut().and_then(|spare| Arc::get_mut(&mut spare.0)) {
            Some(own) => {
                (own.delivery, own.attempt) = (Some(delivery), attempt);
                own.outputs = Mutex::new(Some(Vec::new()));
                (own.skipped, own.once) = (OnceLock::new(), OnceLock::new());
                own.handled = OnceLock::new();
            }
            None => spare = Some(Self::new(delivery, attempt, Arc::clone(outbox))),
        }
        spare.expect("it was there, or was put there")
    }

    /// The delivery, when its handler is done. Where nobody kept the context it goes to `spare`.
    pub(crate) fn into_delivery(mut self, spare: &mut Option<Self>) -> Delivery {
        if let Some(own) = Arc::get_mut(&mut self.0)
            && let Some(delivery) = own.delivery.take()
        {
            *spare = Some(self);
            return delivery;
        }
        self.delivery().clone()
    }

    pub(crate) fn delivery(&self) -> &Delivery {
        self.0.delivery.as_ref().expect("a context that anybody sees has its delivery")
    }

    /// Notes that the handler is not called.
    pub(crate) fn skip(&self, why: Skip) {
        // The first reason stands.
        let _noted = self.0.skipped.set(why);
    }

    pub(crate) fn skipped(&self) -> Option<Skip> {
        self.0.skipped.get().copied()
    }

    /// Asks whether the group has handled an event of this id, until the store answers.
    pub(crate) async fn look(&self) {
        if let Ok(handled) = self.0.outbox.handled.contains(self.delivery()).await {
            // The first answer stands.
            let _noted = self.0.handled.set(handled);
        }
    }

    /// Whether the group has handled an event of this id, as far as the store knows.
    pub(crate) async fn is_handled(&self) -> Result<bool, Error> {
        match self.0.handled.get() {
            Some(handled) => Ok(*handled),
            None => self.0.outbox.handled.contains(self.delivery()).await,
        }
    }

    /// Wants the event's id to be known as handled for `window` after this delivery's success.
    pub(crate) fn once(&self, window: Duration) {
        // The innermost wish stands.
        let _noted = self.0.once.set(window);
    }

    pub(crate) fn is_once(&self) -> Option<Duration> {
        self.0.once.get().copied()
    }

    /// Nothing was wished or noted: success is all there is to say.
    pub(crate) fn is_plain(&self) -> bool {
        self.0.once.get().is_none() && self.0.skipped.get().is_none()
    }

    /// The event as it travelled: id, type, time, key, headers, payload.
    pub fn envelope(&self) -> &Envelope {
        self.delivery().envelope().expect("what is no event never comes to a handler")
    }

    /// Which attempt this is, from 1.
    pub fn attempt(&self) -> u32 {
        self.0.attempt
    }

    /// Where the event lay first; the same for every retry.
    pub fn position(&self) -> Position {
        self.delivery().origin()
    }

    /// The group: the name of the service.
    pub fn group(&self) -> &str {
        self.0.outbox.group.as_str()
    }

    /// This instance's name within the group.
    pub fn consumer(&self) -> &str {
        &self.0.outbox.consumer
    }

    /// Cancelled when another instance took the event over. The handler's future is dropped then;
    /// work that it moved to other tasks can watch this.
    pub fn lease(&self) -> &CancellationToken {
        &self.delivery().entry.lease
    }

    /// Publishes `event` together with the end of this delivery: it is stored if and only if the
    /// handler returns `Ok` and this instance still holds the event.
    ///
    /// Its id derives from this event, the group and the order of the calls, so a repeat can be
    /// recognised. It carries the correlation and the trace on, and names this event as its cause.
    ///
    /// # Errors
    /// When the event cannot be encoded or a limit is exceeded ([`OUTPUTS_MAX`] among them), and
    /// after the handler's end; with
    /// `?` the delivery is then rejected, as trying again would not help. In a broadcast always:
    /// its delivery has no end in the store that the event could go with, and each instance would
    /// publish the same.
    pub fn publish<E: Event>(&self, event: &E) -> Result<(), Error> {
        self.publish_with(event, PublishOptions::default())
    }

    /// [`publish`](Context::publish) with a key, headers, an expiry or an id of the caller's.
    ///
    /// # Errors
    /// As [`publish`](Context::publish).
    pub fn publish_with<E: Event>(&self, event: &E, options: PublishOptions) -> Result<(), Error> {
        if self.0.outbox.is_broadcast {
            let text = format!("broadcast {} cannot publish with its delivery", self.group());
            return Err(Error::invalid(text)
                .with_help("publish through the bus, and from one instance only"));
        }
        if options.deduplicate {
            let text = "what a handler publishes is not deduplicated: it goes with the delivery";
            return Err(Error::invalid(text).with_help("leave deduplication out here"));
        }
        let mut outputs = self.outputs();
        let Some(outputs) = outputs.as_mut() else {
            let text = "cannot publish with a delivery that has ended";
            return Err(Error::new(crate::ErrorKind::Closed, text)
                .with_help("publish before the handler returns, or through the bus"));
        };
        if outputs.len() >= OUTPUTS_MAX {
            let text = format!("a handler publishes {OUTPUTS_MAX} events at most per delivery");
            return Err(Error::new(crate::ErrorKind::TooLarge, text)
                .with_help("publish the rest through the bus"));
        }
        let options = self.name_cause(options.default_id(self.output_id(outputs.len())));
        outputs.push(self.0.outbox.encoder.encode(event, options)?);
        Ok(())
    }

    /// What says of an event that is published elsewhere, through an outbox say, that this one is
    /// its cause: the correlation and the trace are carried on.
    pub fn caused(&self) -> PublishOptions {
        self.name_cause(PublishOptions::default())
    }

    fn name_cause(&self, options: PublishOptions) -> PublishOptions {
        let cause = self.envelope();
        let correlation = cause.correlation_id().map_or_else(|| cause.id().to_string(), Into::into);
        options
            .default_correlation_id(correlation)
            .default_traceparent(cause.traceparent())
            .causation_id(cause.id().to_string())
    }

    fn output_id(&self, index: usize) -> EventId {
        let mut seed = self.envelope().id().as_bytes().to_vec();
        seed.extend_from_slice(self.group().as_bytes());
        seed.extend_from_slice(&(index as u64).to_be_bytes());
        EventId::derived(&seed)
    }

    /// Whether the event is past its expiry by now.
    pub(crate) fn is_expired(&self) -> bool {
        self.envelope().is_expired(self.0.outbox.encoder.clock.now())
    }

    pub(crate) fn output_count(&self) -> usize {
        self.outputs().as_ref().map_or(0, Vec::len)
    }

    /// Discards what was published after there were `kept`.
    pub(crate) fn discard_outputs(&self, kept: usize) {
        if let Some(outputs) = self.outputs().as_mut() {
            outputs.truncate(kept);
        }
    }

    /// Ends the delivery: what was published with it. Later calls are refused.
    pub(crate) fn take_outputs(&self) -> Vec<Envelope> {
        self.outputs().take().unwrap_or_default()
    }

    /// Ends the delivery where nothing was published with it; then later calls are refused.
    pub(crate) fn end_without_outputs(&self) -> bool {
        let mut outputs = self.outputs();
        let is_none = outputs.as_ref().is_none_or(Vec::is_empty);
        if is_none {
            *outputs = None;
        }
        is_none
    }

    fn outputs(&self) -> std::sync::MutexGuard<'_, Option<Vec<Envelope>>> {
        self.0.outputs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context")
            .field("event", &self.envelope().event_type())
            .field("id", &self.envelope().id())
            .field("attempt", &self.attempt())
            .field("group", &self.group())
            .finish_non_exhaustive()
    }
}
