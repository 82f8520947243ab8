//! rumormill

pub mod bus;
pub mod codec;
pub mod delivery;
pub mod driver;
pub mod envelope;
pub mod error;
pub mod event;
pub mod event_id;
pub mod event_type;
pub mod middleware;
pub mod pattern;
pub mod publisher;
pub mod service;
pub mod time;
pub mod worker;

pub use crate::bus::{Bus, BusBuilder, DRAIN_DEADLINE};
pub use crate::codec::{Codec, ContentType};
pub use crate::delivery::{Durability, Position, Receipt, Start};
pub use crate::envelope::Envelope;
pub use crate::error::{Error, ErrorKind, HandlerError, PublishError};
pub use crate::event::Event;
pub use crate::event_id::EventId;
pub use crate::event_type::{EventType, Topic};
pub use crate::pattern::{Matcher, Pattern};
pub use crate::publisher::{PublishLimits, PublishOptions, Publisher};
pub use crate::service::{
    Context, Handle, HandleAny, Init, Registration, Routes, Service, Services,
};
pub use crate::time::{Clock, SystemClock, Timestamp};
pub use crate::worker::{DrainReport, RetryPolicy, ServiceOptions};
pub use rumormill_macros::Event;

/// The attribute that [`Middleware`](middleware::Middleware) and the driver traits are written
/// with.
pub use async_trait::async_trait;

#[doc(hidden)]
pub mod __private {
    pub use crate::service::{Instance, construction_failed};
    pub use inventory;
}
