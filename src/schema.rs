//! JSON Schemas of event types, and the lock file that holds them to their readers (feature
//! `schema`).
//!
//! An event outlives the program that published it, and is read by programs that were built before
//! and after. A committed lock file remembers what the types looked like; a test compares:
//!
//! ```
//! use rumormill::Event;
//! use schemars::JsonSchema;
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize, JsonSchema, Event)]
//! #[event(type = "users.created", key = name)]
//! struct UserCreated {
//!     name: String,
//! }
//! rumormill::schema!(UserCreated);
//!
//! # if false {
//! // In a test; the path is that of the package.
//! rumormill::schema::check("events.lock.json");
//! # }
//! let mut registered = rumormill::schema::registered().into_iter();
//! assert!(registered.any(|schema| schema.event_type == UserCreated::TYPE));
//! ```
//!
//! The test fails when a change breaks readers and names the event, the field and the mend. The
//! same version must be readable both ways: old events by new programs, new events by programs
//! that run already. A new version must only be able to read the old one, by upcasts or by
//! defaults, as programs that know no new version hand its events on. A change that breaks nobody
//! fails too, until `RUMORMILL_BLESS=1 cargo test` writes it to the lock file: the next change is
//! compared with what is really out there.
//!
//! What is compared is what serde does, as far as `schemars` tells: names, types, ranges, values
//! of enums, required fields. It does not know aliases, and it looks at no older version's struct:
//! what an upcast takes must stay as it was.

mod compare;
mod lock;
mod shape;

use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use schemars::{JsonSchema, Schema};
use serde_json::Value;

use crate::event::Event;
use crate::event_type::EventType;

pub use compare::{Change, compare};
pub use lock::{check, parse, render};

/// What a program reads and writes as one event type.
#[derive(Clone, Debug, PartialEq)]
pub struct EventSchema {
    /// The type.
    pub event_type: EventType,
    /// The version of its shape.
    pub version: u32,
    /// The oldest version that is still read.
    pub oldest: u32,
    /// Whether older versions are read as structs of their own.
    pub upcasts: bool,
    /// The JSON Schema (draft 2020-12) of what is read.
    pub reads: Value,
    /// The JSON Schema of what is written: with serde's defaults it may differ.
    pub writes: Value,
}

impl EventSchema {
    /// The schema of `E`. Titles, descriptions and examples are left out: they bind nobody.
    pub fn of<E: Event + JsonSchema>() -> Self {
        let generate = |settings: SchemaSettings| {
            let plain = settings.with_transform(RecursiveTransform(without_prose));
            plain.into_generator().into_root_schema_for::<E>().to_value()
        };
        let settings = SchemaSettings::draft2020_12().with(|settings| settings.meta_schema = None);
        Self {
            event_type: E::TYPE,
            version: E::VERSION,
            oldest: E::OLDEST,
            upcasts: E::UPCASTS,
            reads: generate(settings.clone().for_deserialize()),
            writes: generate(settings.for_serialize()),
        }
    }
}

fn without_prose(schema: &mut Schema) {
    for word in ["title", "description", "examples", "deprecated"] {
        schema.remove(word);
    }
    // The order of fields is nobody's business either.
    if let Some(Value::Array(names)) = schema.get_mut("required") {
        names.sort_by(|a, b| a.as_str().cmp(&b.as_str()));
    }
}

/// What [`schema!`](crate::schema!) leaves for [`registered`].
#[doc(hidden)]
pub struct Declared(fn() -> EventSchema);

impl Declared {
    #[doc(hidden)]
    pub const fn of<E: Event + JsonSchema>() -> Self {
        Self(EventSchema::of::<E>)
    }
}

inventory::collect!(Declared);

/// Every event type that [`schema!`](crate::schema!) registered in this program, by name.
///
/// A crate that is linked but never named registers nothing: write `use events as _;`.
pub fn registered() -> Vec<EventSchema> {
    let declared = inventory::iter::<Declared>.into_iter();
    let mut schemas: Vec<_> = declared.map(|Declared(schema)| schema()).collect();
    schemas.sort_by(|a, b| (&a.event_type, a.version).cmp(&(&b.event_type, b.version)));
    schemas.dedup();
    schemas
}

/// Registers the JSON Schema of event types, for [`registered`](crate::schema::registered) and
/// [`check`](crate::schema::check).
///
/// ```
/// # use rumormill::Event;
/// # use schemars::JsonSchema;
/// # use serde::{Deserialize, Serialize};
/// #[derive(Serialize, Deserialize, JsonSchema, Event)]
/// #[event(type = "orders.placed")]
/// struct Placed {
///     number: u64,
/// }
///
/// rumormill::schema!(Placed);
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! schema {
    ($($event:ty),+ $(,)?) => {
        $($crate::__private::inventory::submit! { $crate::schema::Declared::of::<$event>() })+
    };
}

#[cfg(test)]
mod tests;
