//! `redis+sentinel://[user:password@]host:26379,host:26379/MASTER[/DB]`.

use redis::{ConnectionInfo, IntoConnectionInfo, RedisConnectionInfo};

use crate::driver::redis::sentinel::{Host, Sentinels, shown};
use crate::error::Error;

const PORT: u16 = 26379;
const HELP: &str =
    "write redis+sentinel://host1:26379,host2:26379/MASTER, where MASTER is the name they watch";

/// Reads what follows `redis+sentinel://`; gives the sentinels, and the address without secrets.
pub(super) fn parse(rest: &str) -> Result<(Sentinels, String), Error> {
    let (place, parameters) = rest.split_once('?').unwrap_or((rest, ""));
    let (login, place) = match place.rsplit_once('@') {
        Some((login, place)) => (Some(login), place),
        None => (None, place),
    };
    let mut parts = place.splitn(3, '/');
    let hosts = parts.next().unwrap_or_default();
    let hosts = hosts.split(',').map(host).collect::<Result<Vec<Host>, Error>>()?;
    let master = decode(parts.next().unwrap_or_default())?;
    if master.is_empty() {
        return Err(flaw("it names no master"));
    }
    let login = info(login, parts.next().unwrap_or_default())?;
    let names: Vec<String> = hosts.iter().map(shown).collect();
    let address = format!("redis+sentinel://{}/{master}", names.join(","));
    Ok((Sentinels::new(hosts, master, own_login(parameters)?, login), address))
}

fn flaw(what: &str) -> Error {
    Error::invalid(format!("the url with scheme redis+sentinel cannot be read: {what}"))
        .with_help(HELP)
}

/// A host with a port or without, an IPv6 address in brackets.
fn host(text: &str) -> Result<Host, Error> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => rest.split_once(']').ok_or_else(|| flaw("a bracket is not closed"))?,
        None => text.find(':').map_or((text, ""), |at| text.split_at(at)),
    };
    if host.is_empty() {
        return Err(flaw("a host is empty"));
    }
    let port = match port.strip_prefix(':') {
        Some(port) if port.starts_with('+') => return Err(flaw("a port has a sign")),
        Some(port) => port.parse().map_err(|_| flaw("a port is no number up to 65535"))?,
        None if port.is_empty() => PORT,
        None => return Err(flaw("something follows a bracket that is no port")),
    };
    Ok((host.to_owned(), port))
}

/// The login at the master, which the `redis` crate reads from a url with a host that stands for
/// the one that is not known yet.
fn info(login: Option<&str>, database: &str) -> Result<ConnectionInfo, Error> {
    if !database.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(flaw("the database is no number"));
    }
    let login = login.map(|login| format!("{login}@")).unwrap_or_default();
    let url = format!("redis://{login}master/{database}");
    url.into_connection_info()
        .map_err(|error| flaw(&format!("user and password: {}", error.category())))
        .map(super::with_settings)
}

/// The login at the sentinels themselves.
fn own_login(parameters: &str) -> Result<ConnectionInfo, Error> {
    let mut login = RedisConnectionInfo::default();
    for parameter in parameters.split('&').filter(|parameter| !parameter.is_empty()) {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        login = match name {
            "sentinel_user" => login.set_username(decode(value)?),
            "sentinel_password" => login.set_password(decode(value)?),
            _ => {
                return Err(flaw("it has a parameter other than sentinel_user, sentinel_password"));
            }
        };
    }
    Ok(info(None, "")?.set_redis_settings(login))
}

/// Takes `%41` for `A`.
fn decode(text: &str) -> Result<String, Error> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
        bytes.push(match byte {
            b'%' => match (digit(), digit()) {
                (Some(high), Some(low)) => u8::try_from(high * 16 + low).unwrap_or(b'%'),
                _ => return Err(flaw("a percent sign is not followed by two hexadecimal digits")),
            },
            byte => byte,
        });
    }
    String::from_utf8(bytes).map_err(|_| flaw("it is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sentinels(rest: &str) -> Sentinels {
        parse(rest).expect("valid").0
    }

    #[test]
    fn hosts_may_have_a_port_or_brackets() {
        let shown = |rest: &str| parse(rest).expect("valid").1;
        assert_eq!(shown("a/m"), "redis+sentinel://a:26379/m");
        assert_eq!(shown("a:1,b,[::1]:2/m/3"), "redis+sentinel://a:1,b:26379,[::1]:2/m");
        assert_eq!(shown("[fe80::1]/m"), "redis+sentinel://[fe80::1]:26379/m");
    }

    #[test]
    fn logins_are_kept_apart() {
        let found = sentinels("u:p%40w@a:1/m/7?sentinel_user=s&sentinel_password=x%26y");
        let (login, own_login) = found.logins();
        assert_eq!((login.username(), login.password()), (Some("u"), Some("p@w")));
        assert_eq!(login.db(), 7);
        assert_eq!((own_login.username(), own_login.password()), (Some("s"), Some("x&y")));
        let found = sentinels("a:1/m");
        assert_eq!((found.logins().0.password(), found.logins().1.password()), (None, None));
    }

    #[test]
    fn flaws_are_named_and_secrets_are_not() {
        for (rest, flaw) in [
            ("u:s3cret@a:1", "no master"),
            ("u:s3cret@a:1/", "no master"),
            ("u:s3cret@/m", "host is empty"),
            ("u:s3cret@a:1,,b/m", "host is empty"),
            ("u:s3cret@a:99999/m", "port"),
            ("u:s3cret@[::1/m", "bracket"),
            ("u:s3cret@[::1]x/m", "bracket"),
            ("u:s3cret@a/m/x", "database"),
            ("u:s3cret@a/m?s3cret=1", "parameter"),
            ("u:s3cret@a/m?sentinel_password=s3cret%zz", "percent"),
        ] {
            let error = parse(rest).expect_err(rest);
            assert!(error.to_string().contains(flaw), "{rest}: {error}");
            assert!(error.help().is_some_and(|help| help.contains("/MASTER")), "{error:?}");
            assert!(!format!("{error:?}").contains("s3cret"), "{error:?}");
        }
    }
}
