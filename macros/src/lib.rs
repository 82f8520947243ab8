//! `#[derive(Event)]` of [rumormill](https://docs.rs/rumormill): the one macro of the library.
//!
//! What is typed is read in `attribute`, checked in `name` and `upcasts`, and written out in
//! `expand`. Every
//! refusal is a compile error at the culprit that says what to do.

mod attribute;
mod expand;
mod key;
mod name;
mod upcasts;

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

/// Implements `rumormill::Event` for a struct.
///
/// ```text
/// #[derive(Serialize, Deserialize, Event)]
/// #[event(type = "user_service.user.created", version = 1, key = user_id)]
/// struct UserCreated { user_id: String, email: String }
/// ```
///
/// - `type`, required: the event's type, dot-separated segments of `A-Z a-z 0-9 _ -`.
/// - `version`, 1 where it is left out: the version of the payload's shape.
/// - `upcasts`, none where it is left out: one plain function for each step from the oldest version
///   that is still read to this one. `version = 3, upcasts(v1_to_v2, v2_to_v3)` takes a
///   `fn v1_to_v2(UserCreatedV1) -> UserCreatedV2` and a
///   `fn v2_to_v3(UserCreatedV2) -> UserCreated`; each older version's struct needs no more than
///   `Deserialize`. A gap, a wrong order and a missing step are compile errors. Without `upcasts`,
///   older versions are read as this struct, by its serde defaults.
/// - `oldest`, 1 where it is left out: the version that the first upcast takes. Events of older
///   versions cannot be read any more.
/// - `key`, none where it is left out: the field (or the index of a tuple struct's) whose events
///   are handled in order. Text (`String`, `Box<str>`, `Arc<str>`, `Cow<str>`) is borrowed, any
///   other type that implements `Display` is printed; a `None` of an `Option` of these is no key.
///   `Option` and the text types are known by their names as written, not through an alias.
///
/// Generic structs, enums and unions are refused: an event has one type for one name.
#[proc_macro_derive(Event, attributes(event))]
pub fn derive_event(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    expand::event(&input).unwrap_or_else(|error| error.into_compile_error()).into()
}
