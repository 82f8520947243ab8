//! The address of the store, whose secrets are never shown.

use std::fmt;

/// Shorter ones would be found everywhere in a text.
const SECRET_BYTES_MIN: usize = 4;

/// An address, displayed without the password and the parameters that it may hold.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Address {
    url: String,
}

impl Address {
    pub(crate) fn new(url: String) -> Self {
        Self { url }
    }

    /// Before one is known.
    pub(crate) fn none() -> Self {
        Self { url: String::new() }
    }

    /// With its secrets, for the connection alone.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// `text` without this address' secrets, whoever wrote it.
    pub(crate) fn redact(&self, text: &str) -> String {
        if self.url.is_empty() {
            return text.to_owned();
        }
        let text = text.replace(&self.url, &self.to_string());
        let Parts { login, parameters, .. } = self.parts();
        let password =
            login.map(|login| login.split_once(':').map_or(login, |(_, password)| password));
        let secrets = [password, parameters].into_iter().flatten();
        let long = secrets.filter(|secret| secret.len() >= SECRET_BYTES_MIN);
        long.fold(text, |text, secret| text.replace(secret, "***"))
    }

    /// Takes the address apart as it is written, also where it is no valid one: what was typed
    /// wrong is shown in errors.
    fn parts(&self) -> Parts<'_> {
        let (scheme, rest) = self.url.split_at(self.scheme_bytes());
        let (before, parameters) = match rest.split_once('?') {
            Some((before, parameters)) => (before, Some(parameters)),
            None => (rest, None),
        };
        let is_path = is_unix(scheme) && before.starts_with('/');
        if is_path {
            return Parts { scheme, login: None, place: before, parameters };
        }
        // The question mark may be one of a password.
        if parameters.is_some_and(|parameters| parameters.contains('@')) {
            return Parts { scheme, login: Some(rest), place: "", parameters: None };
        }
        match before.rsplit_once('@') {
            Some((login, place)) => Parts { scheme, login: Some(login), place, parameters },
            None => Parts { scheme, login: None, place: before, parameters },
        }
    }

    /// The scheme and the slashes after it; nothing where it is left out.
    fn scheme_bytes(&self) -> usize {
        let Some((scheme, rest)) = self.url.split_once(':') else { return 0 };
        let is_name = scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'+');
        match (is_name, rest.starts_with("//")) {
            (true, true) => scheme.len() + "://".len(),
            (true, false) if is_unix(scheme) => scheme.len() + ":".len(),
            _ => 0,
        }
    }
}

fn is_unix(scheme: &str) -> bool {
    matches!(scheme.split(':').next(), Some("unix" | "redis+unix"))
}

/// The parts of an address; login and parameters are secret.
struct Parts<'a> {
    /// With the slashes after it.
    scheme: &'a str,
    /// Before the last `@`.
    login: Option<&'a str>,
    place: &'a str,
    /// After the `?`.
    parameters: Option<&'a str>,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Parts { scheme, login, place, parameters } = self.parts();
        f.write_str(scheme)?;
        match login.map(|login| login.split_once(':')) {
            // Where it ends is not clear.
            Some(_) if place.is_empty() => f.write_str("***")?,
            Some(Some((user, _))) => write!(f, "{user}:***@{place}")?,
            Some(None) => write!(f, "***@{place}")?,
            None => f.write_str(place)?,
        }
        match parameters {
            Some(_) => f.write_str("?***"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let cases = [
            ("redis://127.0.0.1:6379", "redis://127.0.0.1:6379"),
            ("redis://:hunter22@host/1", "redis://:***@host/1"),
            ("rediss://alice:hu/nt@er22@host", "rediss://alice:***@host"),
            ("redis://hunter22@host", "redis://***@host"),
            ("unix:///run/redis.sock?pass=hunter22", "unix:///run/redis.sock?***"),
            ("memory:", "memory:"),
            // What is no valid address is shown in an error.
            ("redis://redis:hunter22@redis", "redis://redis:***@redis"),
            ("redis://:@host", "redis://:***@host"),
            ("redis://alice:hunt?er22@host", "redis://***"),
            ("redis://alice:hu@nt?er22@host", "redis://***"),
            ("redis:/alice:hunter22@host", "redis:***@host"),
            ("alice:hunt:er22@host", "alice:***@host"),
            ("redis//alice:hunt:er22@host", "redis//alice:***@host"),
            ("unix:/run/@redis.sock?pass=hunt@er22", "unix:/run/@redis.sock?***"),
            ("unixx:///run/alice:hunter22@host", "unixx:///run/alice:***@host"),
        ];
        for (url, shown) in cases {
            let address = Address::new(url.to_owned());
            assert_eq!((address.to_string(), format!("{address:?}")), (shown.into(), shown.into()));
        }
    }

    #[test]
    fn what_others_print_is_redacted() {
        let address = Address::new("redis://alice:hunter22@host".to_owned());
        let text = "redis://alice:hunter22@host refused hunter22";
        assert_eq!(address.redact(text), "redis://alice:***@host refused ***");
        let address = Address::new("redis://hunter22@host".to_owned());
        assert_eq!(address.redact("hunter22 was refused"), "*** was refused");
        assert_eq!(Address::none().redact("a text"), "a text");
    }
}
