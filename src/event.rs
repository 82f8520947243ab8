//! The trait that makes a struct an event.

use std::borrow::Cow;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::event_type::EventType;

/// A struct that can be published and handled.
///
/// Derive it; the derive checks the type's name when the program is compiled:
///
/// ```
/// use rumormill::Event;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize, Event)]
/// #[event(type = "user_service.user.created", version = 1, key = user_id)]
/// struct UserCreated {
///     user_id: String,
///     email: String,
/// }
///
/// assert_eq!(UserCreated::TYPE.as_str(), "user_service.user.created");
/// ```
pub trait Event: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The type that the envelope carries and that handlers are found by.
    const TYPE: EventType;

    /// The version of the payload's shape, from 1. A reader that knows only older versions hands
    /// the event to an instance that knows this one.
    const VERSION: u32 = 1;

    /// Events of one key, from one publisher, are handled in order. `None` (the default): the
    /// event has no order to keep and may go anywhere.
    fn key(&self) -> Option<Cow<'_, str>> {
        None
    }
}
