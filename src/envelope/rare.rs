//! What few events say, apart from the rest: else every event would be as large as those.

use std::fmt;
use std::sync::Arc;

use bytestring::ByteString;

/// Nothing, for nearly all events.
#[derive(Clone, Default)]
pub(crate) struct Rare(Option<Arc<Said>>);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) traceparent: Option<ByteString>,
    pub(crate) correlation_id: Option<ByteString>,
    pub(crate) causation_id: Option<ByteString>,
    pub(crate) headers: Vec<(ByteString, ByteString)>,
}

impl Said {
    pub(super) fn header_bytes(&self) -> usize {
        self.headers.iter().map(|(name, value)| name.len() + value.len()).sum()
    }
}

static NOTHING_SAID: Said =
    Said { traceparent: None, correlation_id: None, causation_id: None, headers: Vec::new() };

impl Rare {
    pub(super) fn is_said(&self) -> bool {
        self.0.is_some()
    }

    /// Bytes.
    pub(super) fn weight(&self) -> usize {
        self.0.as_ref().map_or(0, |said| size_of::<Said>() + said.header_bytes())
    }

    pub(super) fn get(&self) -> &Said {
        self.0.as_deref().unwrap_or(&NOTHING_SAID)
    }

    pub(super) fn set(&mut self) -> &mut Said {
        Arc::make_mut(self.0.get_or_insert_default())
    }
}

impl From<Said> for Rare {
    fn from(said: Said) -> Self {
        Self((said != NOTHING_SAID).then(|| Arc::new(said)))
    }
}

impl PartialEq for Rare {
    fn eq(&self, other: &Self) -> bool {
        // Events of a batch mostly share it.
        std::ptr::eq(self.get(), other.get()) || self.get() == other.get()
    }
}

impl Eq for Rare {}

impl fmt::Debug for Rare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}
