//! `#[event(...)]` as it was typed, checked as far as it can be without the fields.

use quote::ToTokens;
use syn::meta::ParseNestedMeta;
use syn::{DeriveInput, Error, Lit, LitInt, LitStr, Member, Result};

use crate::name;
use crate::upcasts::{self, Upcasts};

const EXAMPLE: &str = "#[event(type = \"topic.thing.happened\")]";

/// What `#[event(...)]` says.
pub(crate) struct Attribute {
    pub(crate) event_type: LitStr,
    pub(crate) version: u32,
    pub(crate) key: Option<Member>,
    pub(crate) upcasts: Option<Upcasts>,
}

/// The keys met so far. Each may come once, in one attribute or spread over several.
#[derive(Default)]
struct Typed {
    event_type: Option<LitStr>,
    version: Option<u32>,
    oldest: Option<LitInt>,
    upcasts: Option<upcasts::List>,
    key: Option<Member>,
}

impl Attribute {
    /// Reads the attributes of the struct.
    pub(crate) fn of(input: &DeriveInput) -> Result<Self> {
        let mut typed = Typed::default();
        let mut last = None;
        for attribute in input.attrs.iter().filter(|attribute| attribute.path().is_ident("event")) {
            attribute.parse_nested_meta(|meta| typed.take(&meta))?;
            last = Some(attribute);
        }
        let Some(last) = last else {
            let text = format!("no `#[event(...)]` says the event's type; write `{EXAMPLE}`");
            return Err(Error::new_spanned(&input.ident, text));
        };
        let Some(event_type) = typed.event_type else {
            let text = format!("the event's type is missing; write `{EXAMPLE}`");
            return Err(Error::new_spanned(last, text));
        };
        let version = typed.version.unwrap_or(1);
        let upcasts = Upcasts::checked(version, typed.oldest.as_ref(), typed.upcasts)?;
        Ok(Self { event_type, version, key: typed.key, upcasts })
    }
}

impl Typed {
    fn take(&mut self, meta: &ParseNestedMeta<'_>) -> Result<()> {
        if meta.path.is_ident("type") {
            let value = event_type(meta)?;
            set(&mut self.event_type, value, meta)
        } else if meta.path.is_ident("version") {
            let (value, _) = version(meta)?;
            set(&mut self.version, value, meta)
        } else if meta.path.is_ident("oldest") {
            let (_, value) = version(meta)?;
            set(&mut self.oldest, value, meta)
        } else if meta.path.is_ident("upcasts") {
            let value = upcasts::List::parse(meta)?;
            set(&mut self.upcasts, value, meta)
        } else if meta.path.is_ident("key") {
            let value = key(meta)?;
            set(&mut self.key, value, meta)
        } else {
            let shown = meta.path.to_token_stream().to_string();
            let keys = "`type`, `version`, `key`, `upcasts` and `oldest`";
            let text = format!("`{shown}` is not known; the keys are {keys}");
            Err(meta.error(text))
        }
    }
}

fn set<T>(slot: &mut Option<T>, value: T, meta: &ParseNestedMeta<'_>) -> Result<()> {
    if slot.replace(value).is_some() {
        let shown = meta.path.to_token_stream().to_string();
        return Err(meta.error(format!("`{shown}` is given twice; remove one")));
    }
    Ok(())
}

fn event_type(meta: &ParseNestedMeta<'_>) -> Result<LitStr> {
    let value = match meta.value()?.parse()? {
        Lit::Str(value) => value,
        other => {
            let text = "an event type is a string; write `type = \"topic.thing.happened\"`";
            return Err(Error::new_spanned(other, text));
        }
    };
    match name::flaw(&value.value()) {
        None => Ok(value),
        Some(flaw) => {
            let shown: String = value.value().chars().take(80).collect();
            let text = format!("event type {shown:?} is not valid: {flaw}");
            Err(Error::new_spanned(value, text))
        }
    }
}

/// A version, and the number as it was typed.
fn version(meta: &ParseNestedMeta<'_>) -> Result<(u32, LitInt)> {
    let refuse = |value: &dyn ToTokens| {
        let text = "a version is a whole number from 1 to 4294967295";
        Error::new_spanned(value.to_token_stream(), text)
    };
    let value: Lit = meta.value()?.parse()?;
    let Lit::Int(number) = &value else {
        return Err(refuse(&value));
    };
    match LitInt::base10_parse::<u32>(number) {
        Ok(0) | Err(_) => Err(refuse(number)),
        Ok(version) => Ok((version, number.clone())),
    }
}

fn key(meta: &ParseNestedMeta<'_>) -> Result<Member> {
    let value = meta.value()?;
    if value.peek(LitStr) {
        let quoted: LitStr = value.parse()?;
        let text = format!("a key is a field; write `key = {}`, without quotes", quoted.value());
        return Err(Error::new_spanned(quoted, text));
    }
    value.parse()
}
