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
        let secrets = [self.password(), self.parameters()];
        let long = secrets.into_iter().flatten().filter(|secret| secret.len() >= SECRET_BYTES_MIN);
        long.fold(text, |text, secret| text.replace(secret, "***"))
    }

    fn password(&self) -> Option<&str> {
        self.user_info().and_then(|info| info.split_once(':')).map(|(_, password)| password)
    }

    fn parameters(&self) -> Option<&str> {
        self.url.split_once('?').map(|(_, parameters)| parameters)
    }

    /// What stands between `//` and the last `@` before the parameters.
    fn user_info(&self) -> Option<&str> {
        let (_, rest) = self.url.split_once("//")?;
        let rest = rest.split('?').next().unwrap_or_default();
        rest.rsplit_once('@').map(|(info, _)| info)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = match self.user_info() {
            Some(info) => {
                let hidden = match info.split_once(':') {
                    Some((user, _)) => format!("{user}:***"),
                    None => "***".to_owned(),
                };
                self.url.replacen(info, &hidden, 1)
            }
            None => self.url.clone(),
        };
        match shown.split_once('?') {
            Some((before, _)) => write!(f, "{before}?***"),
            None => f.write_str(&shown),
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
        assert_eq!(Address::none().redact("a text"), "a text");
    }
}
