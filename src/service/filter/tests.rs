use bytes::Bytes;
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use super::*;
use crate::codec::ContentType;
use crate::event_type::EventType;
use crate::time::Timestamp;

#[derive(Serialize, Deserialize)]
struct Placed {
    amount: u64,
}

impl Event for Placed {
    const TYPE: EventType = EventType::from_static("orders.placed");
}

fn envelope(key: Option<&str>, headers: &[(&'static str, &'static str)]) -> Envelope {
    let now = Timestamp::from_millis(0);
    let mut builder = Envelope::builder(Placed::TYPE, ContentType::JSON, Bytes::new(), now);
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.key(key.map(str::to_owned)).build().expect("within limits")
}

fn large() -> Filter {
    Filter::payload(|placed: &Placed| placed.amount > 100)
}

#[test]
fn the_header_decides_where_it_can() {
    let acme = envelope(Some("test-1"), &[("tenant", "acme")]);
    let says = |filter: &Filter| filter.decide(&acme);
    assert_eq!(says(&Filter::header("tenant", "acme")), Some(true));
    assert_eq!(says(&Filter::header("tenant", "other")), Some(false));
    assert_eq!(says(&Filter::header("Tenant", "acme")), Some(false));
    assert_eq!(says(&Filter::has_header("tenant")), Some(true));
    assert_eq!(says(&Filter::key("test-1")), Some(true));
    assert_eq!(says(&Filter::key("test")), Some(false));
    assert_eq!(says(&!Filter::key_prefix("test-")), Some(false));
    assert_eq!(says(&Filter::event_type("orders.*")), Some(true));
    assert_eq!(says(&Filter::event_type("orders.*.x")), Some(false));
    let none = envelope(None, &[]);
    assert_eq!(Filter::key_prefix("").decide(&none), Some(false), "no key has no prefix");
}

#[test]
fn a_payload_leaves_open_only_what_depends_on_it() {
    let acme = envelope(None, &[("tenant", "acme")]);
    let (yes, no) = (Filter::header("tenant", "acme"), Filter::header("tenant", "x"));
    assert_eq!(large().decide(&acme), None);
    assert_eq!((yes.clone() & large()).decide(&acme), None);
    assert_eq!((large() & no.clone()).decide(&acme), Some(false));
    assert_eq!((large() | yes.clone()).decide(&acme), Some(true));
    assert_eq!((!(large() | no)).decide(&acme), None);
    assert!((yes & large()).passes(&acme, &Placed { amount: 101 }));
    assert!(!large().passes(&acme, &Placed { amount: 100 }));
}

#[test]
fn what_cannot_be_asked_is_refused() {
    let (own, other) = (TypeId::of::<Placed>(), TypeId::of::<String>());
    let filter = Filter::has_header("a") | !(Filter::key("k") & large());
    assert!(filter.check(Some(own)).is_ok());
    let error = filter.check(Some(other)).expect_err("another type");
    assert!(error.to_string().contains("Placed"), "{error}");
    assert!(filter.check(None).is_err(), "a pattern's route decodes nothing");
    assert!(Filter::key("k").check(None).is_ok());
    let error = (!Filter::event_type("a..b")).check(None).expect_err("no pattern");
    assert!(error.to_string().contains("a..b"), "{error}");
}

#[test]
fn it_reads_as_it_is_meant() {
    let (a, b, c) = (Filter::has_header("a"), Filter::key("b"), Filter::key_prefix("c"));
    let text = (!(a.clone() & b.clone()) & (b | c)).to_string();
    let right = r#"not (has header "a" and key = "b") and (key = "b" or key begins with "c")"#;
    assert_eq!(text, right);
    assert_eq!(Filter::always().and(a).to_string(), r#"has header "a""#);
}

#[test]
fn each_filter_says_what_it_asks() {
    let placed = "rumormill::service::filter::tests::Placed";
    let cases = [
        (Filter::always(), "always"),
        (Filter::header("a", "1"), "header \"a\" = \"1\""),
        (Filter::event_type("a.*"), "type a.*"),
        (Filter::event_type("a..b"), "type \"a..b\" (not valid)"),
        (!Filter::key("b"), "not key = \"b\""),
        (large(), &format!("payload of {placed}")),
    ];
    for (filter, text) in cases {
        assert_eq!(filter.to_string(), text);
        assert_eq!(format!("{filter:?}"), format!("Filter({text})"));
        assert_eq!(filter.is_always(), text == "always");
    }
}

#[test]
fn no_event_has_a_type_that_is_none() {
    let event = envelope(None, &[]);
    assert_eq!(Filter::always().decide(&event), Some(true));
    assert_eq!(Filter::event_type("a..b").decide(&event), Some(false));
}

/// A formula over three headers and a payload.
#[derive(Clone, Debug)]
enum Formula {
    Header(usize),
    Large,
    And(Box<Formula>, Box<Formula>),
    Or(Box<Formula>, Box<Formula>),
    Not(Box<Formula>),
}

const NAMES: [&str; 3] = ["a", "b", "c"];

impl Formula {
    fn any() -> impl Strategy<Value = Self> {
        let leaf = prop_oneof![(0..3_usize).prop_map(Self::Header), Just(Self::Large)];
        leaf.prop_recursive(5, 32, 2, |inner| {
            prop_oneof![
                (inner.clone(), inner.clone()).prop_map(|(a, b)| Self::And(a.into(), b.into())),
                (inner.clone(), inner.clone()).prop_map(|(a, b)| Self::Or(a.into(), b.into())),
                inner.prop_map(|a| Self::Not(a.into())),
            ]
        })
    }

    fn filter(&self) -> Filter {
        match self {
            Self::Header(index) => Filter::has_header(NAMES[*index]),
            Self::Large => large(),
            Self::And(a, b) => a.filter() & b.filter(),
            Self::Or(a, b) => a.filter() | b.filter(),
            Self::Not(a) => !a.filter(),
        }
    }

    fn holds(&self, headers: [bool; 3], is_large: bool) -> bool {
        match self {
            Self::Header(index) => headers[*index],
            Self::Large => is_large,
            Self::And(a, b) => a.holds(headers, is_large) && b.holds(headers, is_large),
            Self::Or(a, b) => a.holds(headers, is_large) || b.holds(headers, is_large),
            Self::Not(a) => !a.holds(headers, is_large),
        }
    }
}

proptest! {
    /// A filter says what its formula says, and the header alone never says anything else.
    #[test]
    fn filters_are_their_formulas(
        formula in Formula::any(),
        headers in any::<[bool; 3]>(),
        amount in 99..103_u64,
    ) {
        let set: Vec<_> = NAMES.iter().zip(headers).filter(|(_, set)| *set).collect();
        let set: Vec<_> = set.into_iter().map(|(name, _)| (*name, "")).collect();
        let (envelope, filter) = (envelope(None, &set), formula.filter());
        let right = formula.holds(headers, amount > 100);
        prop_assert_eq!(filter.passes(&envelope, &Placed { amount }), right);
        if let Some(early) = filter.decide(&envelope) {
            prop_assert_eq!(early, right);
        }
    }
}
