//! Which events of a route its handler gets.

use std::any::{Any, TypeId, type_name};
use std::fmt;
use std::ops::{BitAnd, BitOr, Not};
use std::sync::Arc;

use bytestring::ByteString;

use crate::envelope::Envelope;
use crate::error::Error;
use crate::event::Event;
use crate::pattern::Pattern;

/// Which events of a route its handler gets; see [`Routes::when`](crate::Routes::when).
///
/// What a filter says about header, type and key is asked before the payload is decoded and
/// before the event takes a place in a lane; what it says about the payload, only where the rest
/// leaves it open. Combine filters with `&`, `|`, `!`, or [`and`](Filter::and) and
/// [`or`](Filter::or).
///
/// ```
/// use rumormill::Filter;
/// let filter = Filter::header("tenant", "acme") & !Filter::key_prefix("test-");
/// assert_eq!(filter.to_string(), r#"header "tenant" = "acme" and not key begins with "test-""#);
/// ```
#[derive(Clone)]
#[must_use]
pub struct Filter(Node);

#[derive(Clone)]
enum Node {
    Always,
    Header(ByteString, ByteString),
    HasHeader(ByteString),
    Type(Pattern),
    /// What should have been a pattern; no route with it is started.
    Invalid(ByteString),
    Key(ByteString),
    KeyPrefix(ByteString),
    Payload(Predicate),
    And(Box<(Node, Node)>),
    Or(Box<(Node, Node)>),
    Not(Box<Node>),
}

/// A question about a decoded payload, and the type that it is asked about.
#[derive(Clone)]
struct Predicate {
    type_id: TypeId,
    type_name: &'static str,
    ask: Arc<Ask>,
}

type Ask = dyn Fn(&dyn Any) -> bool + Send + Sync;

impl Filter {
    /// Events with this header, of exactly this value.
    pub fn header(name: impl Into<ByteString>, value: impl Into<ByteString>) -> Self {
        Self(Node::Header(name.into(), value.into()))
    }

    /// Events with this header, whatever its value.
    pub fn has_header(name: impl Into<ByteString>) -> Self {
        Self(Node::HasHeader(name.into()))
    }

    /// Events whose type `pattern` matches: `orders.*.paid`. A pattern that is not valid is
    /// reported when the service is started.
    pub fn event_type(pattern: &str) -> Self {
        match pattern.parse() {
            Ok(pattern) => Self(Node::Type(pattern)),
            Err(_) => Self(Node::Invalid(pattern.into())),
        }
    }

    /// Events of exactly this key.
    pub fn key(key: impl Into<ByteString>) -> Self {
        Self(Node::Key(key.into()))
    }

    /// Events whose key begins like this. One without a key does not.
    pub fn key_prefix(prefix: impl Into<ByteString>) -> Self {
        Self(Node::KeyPrefix(prefix.into()))
    }

    /// Events of which `ask` says yes, once they are decoded. Only on a route of type `E`.
    ///
    /// A panic in `ask` fails the event, as one in its handler does.
    pub fn payload<E: Event>(ask: impl Fn(&E) -> bool + Send + Sync + 'static) -> Self {
        let ask = move |event: &dyn Any| event.downcast_ref().is_some_and(&ask);
        Self(Node::Payload(Predicate {
            type_id: TypeId::of::<E>(),
            type_name: type_name::<E>(),
            ask: Arc::new(ask),
        }))
    }

    /// Events that pass both.
    pub fn and(self, other: Self) -> Self {
        match (self.0, other.0) {
            (Node::Always, node) | (node, Node::Always) => Self(node),
            pair => Self(Node::And(Box::new(pair))),
        }
    }

    /// Events that pass one of them, or both.
    pub fn or(self, other: Self) -> Self {
        Self(Node::Or(Box::new((self.0, other.0))))
    }

    /// Every event.
    pub(crate) fn always() -> Self {
        Self(Node::Always)
    }

    pub(crate) fn is_always(&self) -> bool {
        matches!(self.0, Node::Always)
    }

    /// What the header alone decides; `None`: it depends on the payload.
    pub(crate) fn decide(&self, envelope: &Envelope) -> Option<bool> {
        self.0.decide(envelope, None)
    }

    /// Whether an event passes, with its decoded payload.
    pub(crate) fn passes<E: Event>(&self, envelope: &Envelope, event: &E) -> bool {
        let decided = self.decide(envelope).or_else(|| self.0.decide(envelope, Some(event)));
        decided.expect("with a payload every node decides")
    }

    /// Checks the filter against the type that its route decodes, where it decodes one.
    pub(crate) fn check(&self, routed: Option<TypeId>) -> Result<(), Error> {
        self.0.check(routed)
    }
}

impl Node {
    /// Kleene's logic: what is not known stays open only where it matters.
    fn decide(&self, envelope: &Envelope, event: Option<&dyn Any>) -> Option<bool> {
        match self {
            Self::Always => Some(true),
            Self::Header(name, value) => Some(envelope.header(name) == Some(&**value)),
            Self::HasHeader(name) => Some(envelope.header(name).is_some()),
            Self::Type(pattern) => Some(pattern.matches(envelope.event_type())),
            Self::Invalid(_) => Some(false),
            Self::Key(key) => Some(envelope.key() == Some(&**key)),
            Self::KeyPrefix(prefix) => {
                Some(envelope.key().is_some_and(|key| key.starts_with(&**prefix)))
            }
            Self::Payload(predicate) => event.map(|event| (predicate.ask)(event)),
            Self::And(pair) => either(pair, false, |node| node.decide(envelope, event)),
            Self::Or(pair) => either(pair, true, |node| node.decide(envelope, event)),
            Self::Not(node) => node.decide(envelope, event).map(|decided| !decided),
        }
    }

    fn check(&self, routed: Option<TypeId>) -> Result<(), Error> {
        match self {
            Self::Payload(own) if Some(own.type_id) != routed => {
                let text = format!("a filter asks for a payload of {}", own.type_name);
                Err(Error::invalid(format!("{text}, which its route does not decode"))
                    .with_help("put it on the route of that type; a pattern's decodes nothing"))
            }
            Self::Invalid(pattern) => pattern.parse::<Pattern>().map(|_| ()),
            Self::And(pair) | Self::Or(pair) => pair.0.check(routed).and(pair.1.check(routed)),
            Self::Not(node) => node.check(routed),
            _ => Ok(()),
        }
    }
}

/// `decisive` where one of the pair says so, its opposite where both do, else open.
fn either(
    pair: &(Node, Node),
    decisive: bool,
    decide: impl Fn(&Node) -> Option<bool>,
) -> Option<bool> {
    let first = decide(&pair.0);
    if first == Some(decisive) {
        return first;
    }
    let second = decide(&pair.1);
    if second == Some(decisive) { second } else { first.and(second) }
}

impl BitAnd for Filter {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        self.and(other)
    }
}

impl BitOr for Filter {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.or(other)
    }
}

impl Not for Filter {
    type Output = Self;

    fn not(self) -> Self {
        Self(Node::Not(Box::new(self.0)))
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Filter({self})")
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Always => f.write_str("always"),
            Self::Header(name, value) => write!(f, "header {:?} = {:?}", &**name, &**value),
            Self::HasHeader(name) => write!(f, "has header {:?}", &**name),
            Self::Type(pattern) => write!(f, "type {pattern}"),
            Self::Invalid(text) => write!(f, "type {:?} (not valid)", &**text),
            Self::Key(key) => write!(f, "key = {:?}", &**key),
            Self::KeyPrefix(prefix) => write!(f, "key begins with {:?}", &**prefix),
            Self::Payload(predicate) => write!(f, "payload of {}", predicate.type_name),
            Self::And(pair) => write!(f, "{} and {}", pair.0, pair.1),
            Self::Or(pair) => write!(f, "({} or {})", pair.0, pair.1),
            Self::Not(node) if matches!(**node, Self::And(_)) => write!(f, "not ({node})"),
            Self::Not(node) => write!(f, "not {node}"),
        }
    }
}

#[cfg(test)]
mod tests;
