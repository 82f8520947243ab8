//! Patterns over event types, and a matcher whose cost does not grow with their number.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::num::NonZeroU32;

use bytestring::ByteString;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::error::Error;
use crate::event_type::{
    EVENT_TYPE_BYTES_MAX, EventType, Flaw, SEGMENTS_MAX, Topic, check_segment, refuse, text_newtype,
};

/// A set of event types: `user_service.*.created`, `orders.>`, `>`.
///
/// `*` stands for exactly one segment, `>` for one or more at the end, as in NATS. A pattern
/// without either matches one event type.
///
/// ```
/// use rumormill::{EventType, Pattern};
/// let pattern: Pattern = "github.issues.*".parse()?;
/// assert!(pattern.matches(&EventType::new("github.issues.opened")?));
/// assert!(!pattern.matches(&EventType::new("github.issues")?));
/// # Ok::<(), rumormill::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern(ByteString);

impl Pattern {
    /// Checks a pattern.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid), naming the value and the rule it breaks.
    pub fn new(pattern: impl Into<ByteString>) -> Result<Self, Error> {
        let pattern = pattern.into();
        if pattern.is_empty() {
            return Err(refuse("pattern", &pattern, Flaw::Empty));
        }
        if pattern.len() > EVENT_TYPE_BYTES_MAX {
            return Err(refuse("pattern", &pattern, Flaw::Long));
        }
        if pattern.split('.').count() > SEGMENTS_MAX {
            return Err(refuse("pattern", &pattern, Flaw::ManySegments));
        }
        let mut rest_seen = false;
        for segment in pattern.split('.') {
            if rest_seen {
                let text = format!("pattern {pattern:?} is not valid: `>` must be last");
                return Err(Error::invalid(text));
            }
            rest_seen = segment == ">";
            if !rest_seen && segment != "*" {
                check_segment(segment.as_bytes())
                    .map_err(|flaw| refuse("pattern", &pattern, flaw))?;
            }
        }
        Ok(Self(pattern))
    }

    /// The pattern that matches every event type.
    pub const fn all() -> Self {
        Self(ByteString::from_static(">"))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The segments, in order.
    pub fn segments(&self) -> std::str::Split<'_, char> {
        self.0.split('.')
    }

    /// The topic, where the first segment names one.
    pub fn topic(&self) -> Option<Topic> {
        match self.segments().next() {
            Some("*" | ">") | None => None,
            Some(first) => Topic::new(ByteString::from(first)).ok(),
        }
    }

    /// Whether events of `topic` can match.
    pub fn covers_topic(&self, topic: &Topic) -> bool {
        match self.segments().next() {
            Some("*" | ">") | None => true,
            Some(own) => own == topic.as_str(),
        }
    }

    /// Whether `event_type` is in the set.
    pub fn matches(&self, event_type: &EventType) -> bool {
        let mut segments = event_type.segments();
        for own in self.segments() {
            match (own, segments.next()) {
                (">", Some(_)) => return true,
                ("*", Some(_)) => {}
                (own, Some(segment)) if own == segment => {}
                _ => return false,
            }
        }
        segments.next().is_none()
    }
}

text_newtype!(Pattern);

/// The topics that patterns cover, whatever their number.
#[derive(Clone, Debug, Default)]
pub(crate) struct Covered {
    all: bool,
    named: HashSet<Topic>,
}

impl Covered {
    pub(crate) fn by<'a>(patterns: impl IntoIterator<Item = &'a Pattern>) -> Self {
        let mut covered = Self::default();
        for pattern in patterns {
            match pattern.segments().next() {
                Some(first) if covered.named.contains(first) => {}
                _ => match pattern.topic() {
                    Some(topic) => drop(covered.named.insert(topic)),
                    None => covered.all = true,
                },
            }
        }
        covered
    }

    pub(crate) fn covers(&self, topic: &Topic) -> bool {
        self.all || self.named.contains(topic)
    }
}

impl From<EventType> for Pattern {
    /// The pattern that matches exactly this event type.
    fn from(event_type: EventType) -> Self {
        Self(ByteString::from(event_type.as_str()))
    }
}

/// Many patterns, each with a value; finding the matches costs the same for ten patterns as for
/// a hundred thousand.
///
/// A trie by segment. Where several patterns match, the most specific comes first: a literal
/// segment before `*`, `*` before `>`, compared from the left.
#[derive(Clone, Debug)]
pub struct Matcher<T> {
    /// The first is the root.
    nodes: Vec<Node<T>>,
    /// By parent and literal segment, hashed: one map for all nodes, since most have one child.
    literal: Hashed<u32>,
    /// The literal segments, one behind the other.
    text: String,
}

#[derive(Clone, Debug)]
struct Node<T> {
    parent: u32,
    /// Where its segment stands in the text.
    segment: (u32, u8),
    /// The child for `*`.
    any: Option<NonZeroU32>,
    /// Another child of some parent whose hash is the same.
    twin: Option<NonZeroU32>,
    has_literal: bool,
    here: Option<T>,
    rest: Option<T>,
}

impl<T> Node<T> {
    fn new(parent: u32, segment: (u32, u8)) -> Self {
        let (any, twin, has_literal, here, rest) = (None, None, false, None, None);
        Self { parent, segment, any, twin, has_literal, here, rest }
    }
}

impl<T> Default for Matcher<T> {
    fn default() -> Self {
        let nodes = vec![Node::new(ROOT, (0, 0))];
        Self { nodes, literal: Hashed::default(), text: String::new() }
    }
}

const ROOT: u32 = 0;

impl<T> Matcher<T> {
    /// An empty matcher.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the value of `pattern`; gives back the one it had.
    pub fn insert(&mut self, pattern: &Pattern, value: T) -> Option<T> {
        let mut at = ROOT;
        for segment in pattern.segments() {
            at = match segment {
                ">" => return self.node_mut(at).rest.replace(value),
                "*" => self.any_child(at),
                literal => self.literal_child(at, literal),
            };
        }
        self.node_mut(at).here.replace(value)
    }

    /// The value of the most specific pattern that matches.
    pub fn first(&self, event_type: &EventType) -> Option<&T> {
        self.find(ROOT, event_type.as_str(), &mut |_| true)
    }

    /// Every value whose pattern matches, most specific first.
    pub fn all(&self, event_type: &EventType) -> Vec<&T> {
        let mut found = Vec::new();
        self.find(ROOT, event_type.as_str(), &mut |value| {
            found.push(value);
            false
        });
        found
    }

    /// Depth first, at most one literal and one `*` branch per segment: the number of patterns
    /// does not enter. `stop` decides after each match whether to go on.
    fn find<'a>(
        &'a self,
        at: u32,
        name: &str,
        stop: &mut impl FnMut(&'a T) -> bool,
    ) -> Option<&'a T> {
        let node = self.node(at);
        let end = name.bytes().position(|byte| byte == b'.').unwrap_or(name.len());
        let (segment, tail) = (&name[..end], name.get(end + 1..));
        let literal = if node.has_literal { self.literal(at, segment) } else { None };
        for child in [literal, node.any].into_iter().flatten().map(NonZeroU32::get) {
            let found = match tail {
                Some(tail) => self.find(child, tail, stop),
                None => self.node(child).here.as_ref().filter(|value| stop(value)),
            };
            if found.is_some() {
                return found;
            }
        }
        node.rest.as_ref().filter(|value| stop(value))
    }

    fn literal(&self, parent: u32, segment: &str) -> Option<NonZeroU32> {
        let mut at = NonZeroU32::new(*self.literal.get(&hash(parent, segment))?);
        while let Some(child) = at {
            let node = self.node(child.get());
            if node.parent == parent && self.segment(node) == segment.as_bytes() {
                break;
            }
            at = node.twin;
        }
        at
    }

    fn segment(&self, node: &Node<T>) -> &[u8] {
        let (start, length) = (node.segment.0 as usize, usize::from(node.segment.1));
        &self.text.as_bytes()[start..start + length]
    }

    fn any_child(&mut self, parent: u32) -> u32 {
        if let Some(child) = self.node(parent).any {
            return child.get();
        }
        let child = self.add(Node::new(parent, (0, 0)));
        self.node_mut(parent).any = NonZeroU32::new(child);
        child
    }

    fn literal_child(&mut self, parent: u32, segment: &str) -> u32 {
        if let Some(child) = self.literal(parent, segment) {
            return child.get();
        }
        let length = u8::try_from(segment.len()).expect("a segment has 64 bytes at most");
        let mut node = Node::new(parent, (count(self.text.len()), length));
        self.text.push_str(segment);
        let hash = hash(parent, segment);
        node.twin = self.literal.get(&hash).copied().and_then(NonZeroU32::new);
        self.node_mut(parent).has_literal = true;
        let child = self.add(node);
        self.literal.insert(hash, child);
        child
    }

    fn add(&mut self, node: Node<T>) -> u32 {
        self.nodes.push(node);
        count(self.nodes.len() - 1)
    }

    fn node(&self, at: u32) -> &Node<T> {
        &self.nodes[at as usize]
    }

    fn node_mut(&mut self, at: u32) -> &mut Node<T> {
        &mut self.nodes[at as usize]
    }
}

fn hash(parent: u32, segment: &str) -> u64 {
    xxh3_64_with_seed(segment.as_bytes(), u64::from(parent))
}

fn count(length: usize) -> u32 {
    u32::try_from(length).expect("patterns of 4 GiB are not in one program")
}

/// A map whose keys are hashes already.
pub(crate) type Hashed<V> = HashMap<u64, V, BuildHasherDefault<AsItIs>>;

/// Takes a hash for what it is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct AsItIs(u64);

impl Hasher for AsItIs {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64(bytes);
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event_type::SEGMENT_BYTES_MAX;
    use proptest::prelude::*;

    fn event_type(name: &str) -> EventType {
        EventType::new(name.to_owned()).expect("a valid event type")
    }

    fn pattern(text: &str) -> Pattern {
        Pattern::new(text.to_owned()).expect("a valid pattern")
    }

    #[test]
    fn wildcards_match_as_in_nats() {
        let cases = [
            ("a.b", "a.b", true),
            ("a.b", "a.b.c", false),
            ("a.*", "a.b", true),
            ("a.*", "a", false),
            ("a.*", "a.b.c", false),
            ("a.>", "a", false),
            ("a.>", "a.b", true),
            ("a.>", "a.b.c.d", true),
            (">", "a", true),
            ("*.b", "a.b", true),
            ("*.*.created", "user.x.created", true),
        ];
        for (text, name, expected) in cases {
            assert_eq!(pattern(text).matches(&event_type(name)), expected, "{text} {name}");
        }
    }

    #[test]
    fn bad_patterns_are_refused() {
        for bad in ["", ".", "a..b", ">.a", "a.>.b", "a.b*", "**", "a b", "a.>>"] {
            assert!(Pattern::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_most_specific_pattern_comes_first() {
        let mut matcher = Matcher::new();
        for text in [">", "a.>", "a.*", "a.b", "*.b"] {
            matcher.insert(&pattern(text), text);
        }
        assert_eq!(matcher.all(&event_type("a.b")), [&"a.b", &"a.*", &"a.>", &"*.b", &">"]);
        assert_eq!(matcher.first(&event_type("a.b")), Some(&"a.b"));
        assert_eq!(matcher.first(&event_type("x.y.z")), Some(&">"));
    }

    #[test]
    fn hashes_that_are_the_same_do_not_mix_patterns_up() {
        let mut matcher = Matcher::new();
        for text in ["a.x", "a.y", "b.x"] {
            matcher.insert(&pattern(text), text);
        }
        // As if all literal segments had one hash.
        let places: Vec<u32> = (1..count(matcher.nodes.len())).collect();
        for pair in places.windows(2) {
            matcher.node_mut(pair[1]).twin = NonZeroU32::new(pair[0]);
        }
        let last = *places.last().expect("nodes");
        matcher.literal.values_mut().for_each(|place| *place = last);
        for text in ["a.x", "a.y", "b.x"] {
            assert_eq!(matcher.first(&event_type(text)), Some(&text));
        }
        assert_eq!(matcher.first(&event_type("b.y")), None);
    }

    fn segment() -> impl Strategy<Value = String> {
        prop_oneof![Just("a".to_owned()), Just("b".to_owned()), Just("c".to_owned())]
    }

    fn any_pattern() -> impl Strategy<Value = Pattern> {
        let inner = prop_oneof![3 => segment(), 1 => Just("*".to_owned())];
        (proptest::collection::vec(inner, 1..4), any::<bool>()).prop_map(|(mut parts, rest)| {
            if rest {
                parts.push(">".to_owned());
            }
            pattern(&parts.join("."))
        })
    }

    proptest! {
        #[test]
        fn the_matcher_agrees_with_a_plain_scan(
            patterns in proptest::collection::btree_set(any_pattern(), 0..40),
            name in proptest::collection::vec(segment(), 1..5),
        ) {
            let name = event_type(&name.join("."));
            let mut matcher = Matcher::new();
            for pattern in &patterns {
                matcher.insert(pattern, pattern.clone());
            }
            let mut found: Vec<_> = matcher.all(&name).into_iter().cloned().collect();
            found.sort();
            let scanned: Vec<_> =
                patterns.into_iter().filter(|pattern| pattern.matches(&name)).collect();
            prop_assert_eq!(found, scanned);
        }
    }

    #[test]
    fn the_limits_of_a_pattern_are_inclusive() {
        let segment = "s".repeat(SEGMENT_BYTES_MAX);
        let wide = format!("{segment}.*.{segment}.{segment}.{}", "s".repeat(58));
        let most = [segment.clone(), "*.".repeat(SEGMENTS_MAX - 1) + ">", wide.clone()];
        assert_eq!(wide.len(), EVENT_TYPE_BYTES_MAX);
        for pattern in most {
            assert!(Pattern::new(pattern.clone()).is_ok(), "{pattern}");
        }
        for more in [segment + "s", "*.".repeat(SEGMENTS_MAX) + ">", wide + "s"] {
            assert!(Pattern::new(more.clone()).is_err(), "{more}");
        }
    }

    #[test]
    fn a_pattern_covers_the_topic_it_names_or_all() {
        let topic = |name| Topic::new(ByteString::from_static(name)).expect("a valid topic");
        let named = pattern("a.*");
        assert_eq!(named.topic(), Some(topic("a")));
        assert!(named.covers_topic(&topic("a")) && !named.covers_topic(&topic("b")));
        for all in [pattern("*.a"), Pattern::all()] {
            assert!(all.topic().is_none() && all.covers_topic(&topic("b")), "{all}");
        }
        let exact = Pattern::from(event_type("a.b"));
        assert_eq!((exact.as_str(), exact.topic()), ("a.b", Some(topic("a"))));
    }

    #[test]
    fn a_pattern_has_one_value() {
        let mut matcher = Matcher::new();
        for text in ["a.b", "a.*", "a.>"] {
            assert_eq!(matcher.insert(&pattern(text), 1), None, "{text}");
            assert_eq!(matcher.insert(&pattern(text), 2), Some(1), "{text}");
        }
        assert_eq!(matcher.all(&event_type("a.b")), [&2, &2, &2]);
    }
}
