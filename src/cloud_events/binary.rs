//! Binary mode: attributes as headers of a message, the data as its body.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::json::spec_version;
use super::percent::{decode_bytes, encode};
use super::{AttributeValue, CloudEvent, SPEC_VERSION, check};
use crate::error::Error;

const PREFIX: &str = "ce-";
const CONTENT_TYPE: &str = "content-type";

impl CloudEvent {
    /// The headers (`ce-id`, ..., `content-type`), values percent-encoded as the HTTP binding asks.
    /// The body is [`data`](CloudEvent::data).
    pub fn to_binary_headers(&self) -> Vec<(String, String)> {
        let mut headers = vec![(format!("{PREFIX}specversion"), SPEC_VERSION.to_owned())];
        for (name, value) in self.attributes() {
            let value = value.to_string();
            headers.push(match name {
                "datacontenttype" => (CONTENT_TYPE.to_owned(), value),
                name => (format!("{PREFIX}{name}"), encode(&value, is_header_byte)),
            });
        }
        // What is implied in JSON must be said here.
        if self.content_type().is_none() && !self.data().is_empty() {
            headers.push((CONTENT_TYPE.to_owned(), "application/json".to_owned()));
        }
        headers
    }

    /// Reads an event of binary mode. Names of headers are compared without regard to case; other
    /// headers than `content-type` and `ce-` are the transport's and left out.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) where a header comes twice, a required one
    /// is missing, or a name or value is not allowed: each named.
    pub fn from_binary<N: AsRef<str>, V: AsRef<str>>(
        headers: impl IntoIterator<Item = (N, V)>,
        body: impl Into<Bytes>,
    ) -> Result<Self, Error> {
        let mut attributes = BTreeMap::new();
        let mut version = None;
        for (name, value) in headers {
            let name = name.as_ref().to_ascii_lowercase();
            let value = value.as_ref();
            let previous = match name.strip_prefix(PREFIX) {
                Some("specversion") => version.replace(value.trim().to_owned()).is_some(),
                Some("datacontenttype") => {
                    return Err(Error::invalid("cloud event: ce-datacontenttype is not allowed")
                        .with_help("in binary mode it is the header content-type"));
                }
                Some(name) => {
                    let value = attribute(name, &unescaped(name, value)?);
                    check(name, &value)?;
                    attributes.insert(name.to_owned(), value).is_some()
                }
                None if name == CONTENT_TYPE => {
                    check("datacontenttype", &value.into())?;
                    attributes.insert("datacontenttype".to_owned(), value.into()).is_some()
                }
                None => continue,
            };
            if previous {
                return Err(Error::invalid(format!("cloud event: header {name} comes twice")));
            }
        }
        match version.as_deref() {
            Some(SPEC_VERSION) => Self::assembled(attributes, body),
            Some(other) => Err(spec_version(&format!("{other:?}"))),
            None => Err(Error::invalid("cloud event has no ce-specversion")
                .with_help("in structured mode the body says it all: use `from_json`")),
        }
    }
}

/// Visible ASCII without what the binding wants encoded.
fn is_header_byte(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b"\"%".contains(&byte)
}

/// A number of this library's is one again; of others nobody can tell.
fn attribute(name: &str, text: &str) -> AttributeValue {
    let number = text.parse::<i32>().ok().filter(|number| number.to_string() == text);
    match number {
        Some(number) if name == "rumormillversion" => number.into(),
        _ => text.into(),
    }
}

/// Quotes around a value and percent-encoding in it are undone, once.
fn unescaped(name: &str, value: &str) -> Result<String, Error> {
    let value = value.trim_matches([' ', '\t']);
    let inner = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
    let plain = inner.map(|inner| {
        let mut signs = inner.chars();
        let mut text = String::with_capacity(inner.len());
        while let Some(sign) = signs.next() {
            text.push(if sign == '\\' { signs.next().unwrap_or(sign) } else { sign });
        }
        text
    });
    String::from_utf8(decode_bytes(plain.as_deref().unwrap_or(value))).map_err(|_| {
        Error::invalid(format!("cloud event: header {PREFIX}{name} is no UTF-8 once decoded"))
    })
}
