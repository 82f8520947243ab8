//! What can go wrong, as types: [`Error`] for the library, [`PublishError`] for the outcome of a
//! publish, [`HandlerError`] for what a handler says.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// The beginning of a text that was refused: enough to know it again.
pub(crate) fn shown(text: &str) -> &str {
    const CHARACTERS_MAX: usize = 80;
    text.char_indices().nth(CHARACTERS_MAX).map_or(text, |(end, _)| &text[..end])
}

type BoxError = Box<dyn StdError + Send + Sync>;

/// The kind of an [`Error`]: what a caller can decide on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An argument, a name or a setting is not acceptable; it never will be.
    Invalid,
    /// A limit was exceeded: payload, headers, batch, depth.
    TooLarge,
    /// A payload could not be encoded or decoded.
    Codec,
    /// The server cannot be reached, or the connection was lost.
    Unreachable,
    /// The server refused the credentials or a permission.
    Denied,
    /// The server answered with an error of its own.
    Server,
    /// A deadline passed.
    Timeout,
    /// The bus or the subscription was closed.
    Closed,
    /// The request contradicts the state: a group subscribed twice, a lease that was lost.
    Conflict,
    /// The driver or the server cannot do this.
    Unsupported,
}

/// An error of the library: what was attempted, on what, why it failed and what to do.
///
/// `Display` is one lower-case line without a full stop; [`Error::help`] says what to try;
/// [`source`](StdError::source) is the cause below.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: Cow<'static, str>,
    help: Option<Cow<'static, str>>,
    source: Option<BoxError>,
    passing: bool,
}

impl Error {
    /// An error of `kind` with its one-line text: lower-case, no full stop, naming the value.
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        let (message, help, source) = (message.into(), None, None);
        Self(Box::new(Inner { kind, message, help, source, passing: false }))
    }

    /// Short for [`ErrorKind::Invalid`].
    pub fn invalid(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    /// Adds the line that says what to do.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<Cow<'static, str>>) -> Self {
        self.0.help = Some(help.into());
        self
    }

    /// Adds the cause below this error.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Says that the server refuses in a state that passes: for drivers.
    #[must_use]
    pub fn passing(mut self) -> Self {
        self.0.passing = true;
        self
    }

    /// The same error for another who is to be told; the cause below stays with the first.
    pub(crate) fn copy(&self) -> Self {
        let Inner { kind, message, help, source: _, passing } = &*self.0;
        let (message, help, source) = (message.clone(), help.clone(), None);
        Self(Box::new(Inner { kind: *kind, message, help, source, passing: *passing }))
    }

    /// What a caller can decide on.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What to do about it, where the library knows.
    pub fn help(&self) -> Option<&str> {
        self.0.help.as_deref()
    }

    /// The server cannot be reached or did not answer in time: the same call may succeed later.
    pub fn is_transient(&self) -> bool {
        matches!(self.kind(), ErrorKind::Unreachable | ErrorKind::Timeout)
    }

    /// The server answered that it is in no state to do this, or anything like it: full, loading,
    /// a replica. Nothing is wrong with what was asked for.
    pub fn is_passing(&self) -> bool {
        self.0.passing
    }

    /// The bus was closed while this was under way.
    pub fn is_closed(&self) -> bool {
        self.kind() == ErrorKind::Closed
    }

    /// The same call with the same arguments can never succeed.
    pub fn is_permanent(&self) -> bool {
        matches!(self.kind(), ErrorKind::Invalid | ErrorKind::TooLarge | ErrorKind::Codec)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.0.kind, self.0.message)?;
        let mut cause = self.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        match self.help() {
            Some(help) => write!(f, " (help: {help})"),
            None => Ok(()),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

/// Why a publish has no receipt. With `Ok(Receipt)` these are its three outcomes.
#[derive(Debug)]
pub enum PublishError {
    /// Certain: the event is not in the log and never will be through this call.
    NotStored(Error),
    /// The request was sent and its answer was lost: the event may be in the log, once.
    Unknown(Error),
}

impl PublishError {
    /// The error below.
    pub fn error(&self) -> &Error {
        match self {
            Self::NotStored(error) | Self::Unknown(error) => error,
        }
    }

    /// The event is certainly not in the log.
    pub fn is_not_stored(&self) -> bool {
        matches!(self, Self::NotStored(_))
    }
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotStored(error) => write!(f, "event not stored: {error}"),
            Self::Unknown(error) => write!(f, "event may or may not be stored: {error}"),
        }
    }
}

impl StdError for PublishError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(self.error())
    }
}

/// What a handler says when it did not succeed: retry (the default for `?`), retry after a
/// delay, or reject.
///
/// Any error converts into a retry with the policy's backoff. A library [`Error`] that can never
/// succeed (a payload too large for `ctx.publish`, say) converts into a rejection.
///
/// ```
/// use rumormill::HandlerError;
/// fn charge(amount: i64) -> Result<(), HandlerError> {
///     if amount < 0 {
///         return Err(HandlerError::reject("a negative amount will not get better"));
///     }
///     std::fs::read("/nowhere")?; // retried
///     Ok(())
/// }
/// # assert!(charge(-1).unwrap_err().is_reject());
/// # assert!(!charge(1).unwrap_err().is_reject());
/// ```
pub struct HandlerError {
    verdict: Verdict,
    error: BoxError,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Retry,
    RetryInPlace,
    RetryAfter(Duration),
    Reject,
    Undecodable,
}

impl HandlerError {
    /// Try again after the policy's backoff. What `?` does.
    pub fn retry(error: impl Into<BoxError>) -> Self {
        Self { verdict: Verdict::Retry, error: error.into() }
    }

    /// Try again after `delay`, in place of the policy's backoff.
    pub fn retry_after(delay: Duration, error: impl Into<BoxError>) -> Self {
        Self { verdict: Verdict::RetryAfter(delay), error: error.into() }
    }

    /// Try again at once, where the service has the middleware
    /// [`RetryInPlace`](crate::middleware::RetryInPlace); without it, or when its tries are spent,
    /// as [`retry`](HandlerError::retry).
    pub fn retry_in_place(error: impl Into<BoxError>) -> Self {
        Self { verdict: Verdict::RetryInPlace, error: error.into() }
    }

    /// Give up at once: the event goes to the group's dead letters.
    pub fn reject(error: impl Into<BoxError>) -> Self {
        Self { verdict: Verdict::Reject, error: error.into() }
    }

    /// The payload is not what the handler asks for; another version of the service may read it.
    pub(crate) fn undecodable(error: impl Into<BoxError>) -> Self {
        Self { verdict: Verdict::Undecodable, error: error.into() }
    }

    pub(crate) fn is_undecodable(&self) -> bool {
        self.verdict == Verdict::Undecodable
    }

    /// The error may be over in a moment: see
    /// [`retry_in_place`](HandlerError::retry_in_place).
    pub fn is_in_place(&self) -> bool {
        self.verdict == Verdict::RetryInPlace
    }

    /// The event will not be tried again.
    pub fn is_reject(&self) -> bool {
        self.verdict == Verdict::Reject
    }

    /// The delay that the handler asked for.
    pub fn delay(&self) -> Option<Duration> {
        match self.verdict {
            Verdict::RetryAfter(delay) => Some(delay),
            _ => None,
        }
    }

    /// The same for each event of a batch.
    pub(crate) fn shared(self) -> impl Fn() -> Self {
        let (verdict, error) = (self.verdict, Arc::from(self.error));
        move || Self { verdict, error: Box::new(Shared(Arc::clone(&error))) }
    }

    /// The error and its causes, outermost first.
    pub fn chain(&self) -> Vec<String> {
        let mut chain = vec![self.error.to_string()];
        let mut cause = self.error.source();
        while let Some(error) = cause {
            chain.push(error.to_string());
            cause = error.source();
        }
        chain
    }
}

/// An error that several events have.
#[derive(Debug)]
struct Shared(Arc<dyn StdError + Send + Sync>);

impl fmt::Display for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl StdError for Shared {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source()
    }
}

impl<E: Into<BoxError>> From<E> for HandlerError {
    fn from(error: E) -> Self {
        let error = error.into();
        let permanent = error.downcast_ref::<Error>().is_some_and(Error::is_permanent);
        let verdict = if permanent { Verdict::Reject } else { Verdict::Retry };
        Self { verdict, error }
    }
}

impl fmt::Display for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.chain().join(": "))
    }
}

impl fmt::Debug for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.verdict)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(kind: ErrorKind) -> Error {
        Error::new(kind, "it did not work")
    }

    #[test]
    fn each_kind_says_what_a_caller_can_do() {
        use ErrorKind::*;
        let all = [Invalid, TooLarge, Codec, Unreachable, Denied, Server, Timeout, Closed];
        let those = |is: fn(&Error) -> bool| -> Vec<ErrorKind> {
            all.into_iter().filter(|kind| is(&of(*kind))).collect()
        };
        assert_eq!(those(Error::is_permanent), [Invalid, TooLarge, Codec]);
        assert_eq!(those(Error::is_transient), [Unreachable, Timeout]);
        assert_eq!(those(Error::is_closed), [Closed]);
        assert!(those(Error::is_passing).is_empty());
        assert!(of(Server).passing().is_passing());
    }

    #[test]
    fn an_error_tells_its_text_its_help_and_its_cause() {
        let error = of(ErrorKind::Server).with_source("the cause").with_help("try again").passing();
        assert_eq!(error.to_string(), "it did not work");
        assert_eq!(error.help(), Some("try again"));
        assert_eq!(error.source().expect("it has one").to_string(), "the cause");
        assert_eq!(format!("{error:?}"), "Server: it did not work: the cause (help: try again)");
        let copy = error.copy();
        assert_eq!(format!("{copy:?}"), "Server: it did not work (help: try again)");
        assert!(copy.is_passing());
    }

    #[test]
    fn a_publish_that_is_in_doubt_is_not_told_as_not_stored() {
        let (refused, lost) = (of(ErrorKind::Invalid), of(ErrorKind::Timeout));
        let (refused, lost) = (PublishError::NotStored(refused), PublishError::Unknown(lost));
        assert!(refused.is_not_stored() && !lost.is_not_stored());
        assert_eq!(refused.to_string(), "event not stored: it did not work");
        assert_eq!(lost.to_string(), "event may or may not be stored: it did not work");
        assert_eq!(lost.error().kind(), ErrorKind::Timeout);
        assert_eq!(lost.source().expect("the error below").to_string(), "it did not work");
    }

    #[test]
    fn a_handler_says_one_thing_of_its_event() {
        let delay = Duration::from_secs(3);
        let said = |error: &HandlerError| {
            [
                error.is_reject(),
                error.is_in_place(),
                error.is_undecodable(),
                error.delay().is_some(),
            ]
        };
        assert_eq!(said(&HandlerError::retry("x")), [false; 4]);
        assert_eq!(said(&HandlerError::reject("x")), [true, false, false, false]);
        assert_eq!(said(&HandlerError::retry_in_place("x")), [false, true, false, false]);
        assert_eq!(said(&HandlerError::undecodable("x")), [false, false, true, false]);
        let later = HandlerError::retry_after(delay, "x");
        assert_eq!(said(&later), [false, false, false, true]);
        assert_eq!(later.delay(), Some(delay));
    }

    #[test]
    fn an_error_that_can_never_succeed_is_a_rejection() {
        assert!(HandlerError::from(of(ErrorKind::TooLarge)).is_reject());
        assert!(!HandlerError::from(of(ErrorKind::Timeout)).is_reject());
    }

    #[test]
    fn the_causes_of_a_handlers_error_are_told_for_each_event_of_a_batch() {
        let error = HandlerError::reject(of(ErrorKind::Server).with_source("the cause"));
        assert_eq!(error.chain(), ["it did not work", "the cause"]);
        assert_eq!(error.to_string(), "it did not work: the cause");
        assert_eq!(format!("{error:?}"), "Reject: it did not work: the cause");
        let shared = error.shared();
        for error in [shared(), shared()] {
            assert_eq!(error.chain(), ["it did not work", "the cause"]);
            assert!(error.is_reject());
        }
    }

    #[test]
    fn a_long_text_is_shown_by_its_beginning() {
        assert_eq!(shown("short"), "short");
        assert_eq!(shown(&"ä".repeat(81)), "ä".repeat(80));
    }
}
