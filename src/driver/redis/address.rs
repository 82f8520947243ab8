//! Where the server is: the url, read once, and the form of it that may be shown.

use redis::io::tcp::TcpSettings;
use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo};

use crate::error::{Error, ErrorKind};

const HELP: &str = "write redis://host:6379, rediss://host:6379 or unix:///path/to/socket";

/// A server's address with everything needed to log in.
#[derive(Clone)]
pub(super) struct Address {
    info: ConnectionInfo,
    shown: String,
}

impl Address {
    /// Reads a url. Its text never enters an error, since it may hold a password.
    pub(super) fn parse(url: &str) -> Result<Self, Error> {
        let scheme = url.split(':').next().unwrap_or_default();
        check_scheme(scheme)?;
        let info = url.into_connection_info().map_err(|error| {
            let text = format!("the url with scheme {scheme} cannot be read: {}", error.category());
            Error::invalid(text).with_help(HELP)
        })?;
        let shown = match info.addr() {
            ConnectionAddr::Tcp(host, port) => format!("redis://{host}:{port}"),
            ConnectionAddr::TcpTls { host, port, .. } => format!("rediss://{host}:{port}"),
            ConnectionAddr::Unix(path) => format!("unix://{}", path.display()),
            _ => format!("{scheme}://"),
        };
        let info = info.set_tcp_settings(TcpSettings::default().set_nodelay(true));
        Ok(Self { info, shown })
    }

    /// What the `redis` crate needs.
    pub(super) fn info(&self) -> ConnectionInfo {
        self.info.clone()
    }

    /// The address without its secrets.
    pub(super) fn shown(&self) -> &str {
        &self.shown
    }
}

fn check_scheme(scheme: &str) -> Result<(), Error> {
    let refuse = |text: &'static str, help: &'static str| {
        Err(Error::new(ErrorKind::Unsupported, text).with_help(help))
    };
    match scheme {
        "redis" | "unix" | "redis+unix" => Ok(()),
        "rediss" if cfg!(feature = "tls") => Ok(()),
        "rediss" => refuse(
            "rediss:// needs TLS, which this build has not",
            "build with the feature `tls` of rumormill",
        ),
        "redis+cluster" => refuse("redis+cluster:// comes later", "connect to a single server"),
        "redis+sentinel" => refuse("redis+sentinel:// comes later", "connect to the primary"),
        _ => {
            let shown: String = scheme.chars().take(20).collect();
            Err(Error::invalid(format!("no driver for a url of scheme {shown:?}")).with_help(HELP))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(url: &str) -> String {
        Address::parse(url).expect("valid").shown().to_owned()
    }

    #[test]
    fn secrets_are_not_shown() {
        assert_eq!(shown("redis://user:secret@localhost:7000/2"), "redis://localhost:7000");
        assert_eq!(shown("unix:///tmp/a.sock?pass=secret"), "unix:///tmp/a.sock");
        assert_eq!(shown("redis+unix:///tmp/a.sock"), "unix:///tmp/a.sock");
        let error = Address::parse("redis://user:secret@:x").err().expect("refused");
        assert!(!format!("{error:?}").contains("secret"), "{error:?}");
    }

    #[test]
    fn what_comes_later_says_so() {
        for url in ["redis+cluster://a:1", "redis+sentinel://a:1"] {
            let error = Address::parse(url).err().expect("refused");
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            assert!(error.to_string().contains("comes later"), "{error}");
        }
        assert!(Address::parse("http://a").is_err());
    }

    #[cfg(not(feature = "tls"))]
    #[test]
    fn tls_names_its_feature() {
        let error = Address::parse("rediss://a:1").err().expect("refused");
        assert!(error.help().is_some_and(|help| help.contains("`tls`")), "{error:?}");
    }
}
