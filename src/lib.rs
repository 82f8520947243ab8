//! rumormill

pub mod codec;
pub mod delivery;
pub mod driver;
pub mod envelope;
pub mod error;
pub mod event;
pub mod event_id;
pub mod event_type;
pub mod pattern;
pub mod time;

pub use crate::codec::{Codec, ContentType};
pub use crate::delivery::{Durability, Position, Receipt, Start};
pub use crate::envelope::Envelope;
pub use crate::error::{Error, ErrorKind, HandlerError, PublishError};
pub use crate::event::Event;
pub use crate::event_id::EventId;
pub use crate::event_type::{EventType, Topic};
pub use crate::pattern::{Matcher, Pattern};
pub use crate::time::{Clock, SystemClock, Timestamp};
pub use rumormill_macros::Event;
