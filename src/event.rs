//! The trait that makes a struct an event.

use std::borrow::Cow;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec::Codec;
use crate::error::{Error, ErrorKind};
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
///
/// # Versions
///
/// A struct that changes so that older readers cannot read it, or older events cannot be read as
/// it, gets a new version and a plain function from the old struct to the new. Handlers only ever
/// see the newest:
///
/// ```
/// use rumormill::{Codec, Event};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Deserialize)]
/// struct UserCreatedV1 {
///     name: String,
/// }
///
/// #[derive(Serialize, Deserialize, Event)]
/// #[event(type = "user_service.user.created", version = 2, upcasts(v1_to_v2))]
/// struct UserCreated {
///     first_name: String,
///     last_name: Option<String>,
/// }
///
/// fn v1_to_v2(old: UserCreatedV1) -> UserCreated {
///     UserCreated { first_name: old.name, last_name: None }
/// }
///
/// let event = UserCreated::from_payload(1, Codec::Json, br#"{"name":"alice"}"#)?;
/// assert_eq!((event.first_name.as_str(), event.last_name), ("alice", None));
/// # Ok::<(), rumormill::Error>(())
/// ```
///
/// Each event says its version; one that was published without (a foreign entry, `bus-cli publish`
/// of plain JSON) is version 1. Instances that know only older versions hand newer events to one
/// that knows them. What the struct of an old version was must stay: events of it are out there.
/// The module `schema` (feature `schema`) holds the newest to its readers.
pub trait Event: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The type that the envelope carries and that handlers are found by.
    const TYPE: EventType;

    /// The version of the payload's shape, from 1. A reader that knows only older versions hands
    /// the event to an instance that knows this one.
    const VERSION: u32 = 1;

    /// The oldest version that is still read. With upcasts it is where they begin; without, older
    /// versions are read as this struct, by its serde defaults, from 1 on.
    const OLDEST: u32 = 1;

    /// Whether older versions are read as structs of their own and upcast.
    const UPCASTS: bool = false;

    /// Events of one key, from one publisher, are handled in order. `None` (the default): the
    /// event has no order to keep and may go anywhere.
    fn key(&self) -> Option<Cow<'_, str>> {
        None
    }

    /// Reads a payload that was published as `version` of this event. The derive's `upcasts` go
    /// through the structs of the versions between.
    ///
    /// # Errors
    /// [`ErrorKind::Codec`] where the payload is not what its version says, or the version is
    /// older than [`OLDEST`](Event::OLDEST) or newer than [`VERSION`](Event::VERSION).
    fn from_payload(version: u32, codec: Codec, payload: &[u8]) -> Result<Self, Error> {
        if (Self::OLDEST..=Self::VERSION).contains(&version) {
            codec.decode(payload)
        } else {
            Err(unknown_version::<Self>(version))
        }
    }
}

/// Says which versions of `E` this program reads.
#[doc(hidden)]
pub fn unknown_version<E: Event>(version: u32) -> Error {
    let (name, oldest, newest) = (E::TYPE, E::OLDEST, E::VERSION);
    let known = if oldest == newest {
        format!("version {newest} only")
    } else {
        format!("versions {oldest} to {newest}")
    };
    let text = format!("version {version} of {name} cannot be read: this program knows {known}");
    let error = Error::new(ErrorKind::Codec, text);
    if version < oldest {
        error.with_help(format!("add the upcasts from version {version} on"))
    } else {
        error.with_help("run a newer program of this service")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Serialize, Deserialize)]
    struct One(u32);

    impl Event for One {
        const TYPE: EventType = EventType::from_static("a.one");
    }

    #[derive(Debug, Serialize, Deserialize)]
    struct Several(u32);

    impl Event for Several {
        const TYPE: EventType = EventType::from_static("a.several");
        const VERSION: u32 = 4;
        const OLDEST: u32 = 2;
    }

    #[test]
    fn a_version_that_is_not_known_is_told_with_those_that_are() {
        let one = One::from_payload(2, Codec::Json, b"1").expect_err("newer");
        assert!(one.to_string().ends_with("this program knows version 1 only"), "{one}");
        for (version, help) in [(1, "add the upcasts"), (5, "run a newer program")] {
            let error = Several::from_payload(version, Codec::Json, b"1").expect_err("not known");
            assert!(error.to_string().ends_with("knows versions 2 to 4"), "{error}");
            assert!(error.help().is_some_and(|text| text.starts_with(help)), "{error:?}");
        }
        // Neither is older than the oldest.
        let same = unknown_version::<Several>(2);
        assert!(same.help().is_some_and(|text| text.starts_with("run a newer")), "{same:?}");
    }

    #[test]
    fn versions_between_are_read_and_an_event_has_no_key_of_its_own() {
        for version in 2..=4 {
            let event = Several::from_payload(version, Codec::Json, b"7").expect("known");
            assert_eq!((event.0, event.key()), (7, None));
        }
    }
}
