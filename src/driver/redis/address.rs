//! Where the server is: the url, read once, and the form of it that may be shown.

mod sentinels;

use std::time::Duration;

use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo};

use super::sentinel::Sentinels;
use crate::error::{Error, ErrorKind};

const HELP: &str = "write redis://host:6379, rediss://host:6379 or unix:///path/to/socket";

/// A peer that says nothing is asked after this by the system, this often, so many times: an idle
/// connection whose packets are dropped ends within 11 s.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(5);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(2);
const KEEPALIVE_PROBES: u32 = 3;
/// A connection ends where what was written is not confirmed within this, which the system would
/// else try for a quarter of an hour.
#[cfg(target_os = "linux")]
const USER_TIMEOUT: Duration = Duration::from_secs(10);

/// A server's address with everything needed to log in.
#[derive(Debug)]
pub(super) struct Address {
    target: Target,
    shown: String,
}

/// What a url leads to.
#[derive(Debug)]
pub(super) enum Target {
    /// A server.
    Server(Box<ConnectionInfo>),
    /// Whichever server these name.
    Sentinels(Box<Sentinels>),
}

impl Address {
    /// Reads a url. Its text never enters an error, since it may hold a password.
    pub(super) fn parse(url: &str) -> Result<Self, Error> {
        let scheme = url.split(':').next().unwrap_or_default();
        check_scheme(scheme)?;
        if url.contains(char::is_control) {
            let text = format!("the url with scheme {scheme} holds a control character");
            return Err(Error::invalid(text).with_help(HELP));
        }
        if let Some(rest) = url.strip_prefix("redis+sentinel://") {
            let (sentinels, shown) = sentinels::parse(rest)?;
            return Ok(Self { target: Target::Sentinels(Box::new(sentinels)), shown });
        }
        let info = url.into_connection_info().map_err(|error| {
            let text = format!("the url with scheme {scheme} cannot be read: {}", error.category());
            Error::invalid(text).with_help(HELP)
        })?;
        if info.redis_settings().db() < 0 {
            let text =
                format!("the url with scheme {scheme} cannot be read: its database is below 0");
            return Err(Error::invalid(text).with_help(HELP));
        }
        let shown = match info.addr() {
            ConnectionAddr::Tcp(host, port) => format!("redis://{host}:{port}"),
            ConnectionAddr::TcpTls { host, port, .. } => format!("rediss://{host}:{port}"),
            ConnectionAddr::Unix(path) => format!("unix://{}", path.display()),
            _ => format!("{scheme}://"),
        };
        Ok(Self { target: Target::Server(Box::new(with_settings(info))), shown })
    }

    /// What the url leads to.
    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    /// The address without its secrets.
    pub(super) fn shown(&self) -> &str {
        &self.shown
    }
}

/// The settings of every socket.
fn with_settings(info: ConnectionInfo) -> ConnectionInfo {
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_AFTER)
        .with_interval(KEEPALIVE_EVERY)
        .with_retries(KEEPALIVE_PROBES);
    let settings = TcpSettings::default().set_nodelay(true).set_keepalive(keepalive);
    #[cfg(target_os = "linux")]
    let settings = settings.set_user_timeout(USER_TIMEOUT);
    info.set_tcp_settings(settings)
}

fn check_scheme(scheme: &str) -> Result<(), Error> {
    let refuse = |text: &'static str, help: &'static str| {
        Err(Error::new(ErrorKind::Unsupported, text).with_help(help))
    };
    match scheme {
        "redis" | "unix" | "redis+unix" | "redis+sentinel" => Ok(()),
        "rediss" if cfg!(feature = "tls") => Ok(()),
        "rediss" => refuse(
            "rediss:// needs TLS, which this build has not",
            "build with the feature `tls` of rumormill",
        ),
        "redis+cluster" => refuse("redis+cluster:// comes later", "connect to a single server"),
        "rediss+sentinel" | "redis+sentinels" => refuse(
            "sentinels over TLS are not supported",
            "write redis+sentinel://, or rediss:// and the primary",
        ),
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
        assert_eq!(
            shown("redis+sentinel://u:secret@a,b/m/1"),
            "redis+sentinel://a:26379,b:26379/m"
        );
        let error = Address::parse("redis://user:secret@:x").expect_err("refused");
        assert!(!format!("{error:?}").contains("secret"), "{error:?}");
    }

    #[test]
    fn a_peer_that_is_gone_is_found_out() {
        let address = Address::parse("redis://a:1").expect("valid");
        let Target::Server(info) = address.target() else { panic!("a server") };
        assert!(info.tcp_settings().nodelay() && info.tcp_settings().keepalive().is_some());
        #[cfg(target_os = "linux")]
        assert_eq!(info.tcp_settings().user_timeout(), Some(USER_TIMEOUT));
    }

    #[test]
    fn what_comes_later_says_so() {
        for (url, text) in [
            ("redis+cluster://a:1", "comes later"),
            ("rediss+sentinel://a:1/m", "sentinels over TLS"),
        ] {
            let error = Address::parse(url).expect_err("refused");
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            assert!(error.to_string().contains(text), "{error}");
        }
        assert!(Address::parse("http://a").is_err());
    }

    #[cfg(not(feature = "tls"))]
    #[test]
    fn tls_names_its_feature() {
        let error = Address::parse("rediss://a:1").expect_err("refused");
        assert!(error.help().is_some_and(|help| help.contains("`tls`")), "{error:?}");
    }
}
