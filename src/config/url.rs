//! Where Redis and NATS are. Host names stay names here; they are looked up when they are needed.
//!
//! No `Debug`, `Display` or error made here shows a password; a text that may hold one is never quoted.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use super::units::Wrong;

/// Port of a Redis URL that names none.
const REDIS_PORT: u16 = 6379;

/// A password. Can be compared and exposed on purpose, never printed by accident.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a password.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The password itself: for the wire only.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// The Redis server behind the proxy: `redis://[[user]:password@]host[:port][/db]`.
///
/// User and password may be percent-encoded; only `%` itself must be (`%25`), since the last `@` ends them.
#[derive(Clone, PartialEq, Eq)]
pub struct UpstreamUrl {
    /// ACL user; none: the default user.
    pub user: Option<String>,
    /// Password for `AUTH`.
    pub password: Option<Secret>,
    /// Host name or IP address, IPv6 without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Database that a client finds itself in before any `SELECT`.
    pub db: u32,
}

impl UpstreamUrl {
    /// `host:port` as connect functions want it, IPv6 in brackets.
    pub fn address(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl Default for UpstreamUrl {
    fn default() -> Self {
        Self { user: None, password: None, host: "127.0.0.1".to_owned(), port: REDIS_PORT, db: 0 }
    }
}

impl FromStr for UpstreamUrl {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        const REMEDY: &str =
            "redis://host:port or redis://user:password@host:port/db, for example redis://127.0.0.1:6379";
        let wrong = |what: &str| Wrong::new(what, REMEDY);
        let rest = match text.split_once("://") {
            Some(("redis", rest)) => rest,
            Some(("rediss", _)) => {
                return Err(wrong(
                    "rediss:// (Redis over TLS) is not supported by this version: put a TLS tunnel beside Redis",
                ));
            }
            Some(("unix" | "redis+unix" | "redis-socket", _)) => {
                return Err(wrong("unix sockets are not supported by this version"));
            }
            _ => return Err(wrong("this is not a Redis URL")),
        };
        let (login, place) = match rest.rsplit_once('@') {
            Some((login, place)) => (Some(login), place),
            None => (None, rest),
        };
        let (user, password) = match login.map(|login| login.split_once(':')) {
            None => (None, None),
            Some(None) => {
                return Err(wrong("the part before @ has no colon: a password alone is written :password@"));
            }
            Some(Some((user, password))) => (percent_decode(user)?, percent_decode(password)?),
        };
        if user.is_some() && password.is_none() {
            return Err(wrong("the URL has a user but no password"));
        }
        let (host_port, db) = place.split_once('/').unwrap_or((place, ""));
        let (host, port) = split_host(host_port).ok_or_else(|| wrong("host or port of the URL is not valid"))?;
        let db = match db {
            "" => 0,
            digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse().map_err(|_| wrong("the database number of the URL is too large"))?
            }
            _ => {
                return Err(wrong("what follows the host of the URL is not a database number"));
            }
        };
        Ok(Self { user, password: password.map(Secret), host: host.to_owned(), port: port.unwrap_or(REDIS_PORT), db })
    }
}

impl fmt::Display for UpstreamUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("redis://")?;
        if self.password.is_some() {
            write!(f, "{}:***@", self.user.as_deref().unwrap_or_default())?;
        }
        write!(f, "{}/{}", self.address(), self.db)
    }
}

impl fmt::Debug for UpstreamUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One or more NATS servers, comma-separated: `nats://[user:password@|token@]host[:port],…`; `tls://` asks for TLS;
/// a server without a scheme gets `nats://`. The default port, 4222, is left to the client library.
#[derive(Clone, PartialEq, Eq)]
pub struct NatsUrl(String);

impl NatsUrl {
    /// All servers, comma-separated, logins included: for the connection only, never for a log.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Each server's URL, logins included: for the connection only, never for a log.
    pub fn servers(&self) -> impl Iterator<Item = &str> {
        self.0.split(',')
    }
}

impl FromStr for NatsUrl {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        let wrong = |what: &str| Wrong::new(what, "nats://host:port, for example nats://127.0.0.1:4222");
        let mut servers = Vec::new();
        for server in text.split(',').map(str::trim) {
            let (scheme, rest) = server.split_once("://").unwrap_or(("nats", server));
            if !matches!(scheme, "nats" | "tls") {
                return Err(wrong("a NATS URL begins with nats:// or tls://"));
            }
            let rest = rest.strip_suffix('/').unwrap_or(rest);
            let place = rest.rsplit_once('@').map_or(rest, |(_, place)| place);
            split_host(place).ok_or_else(|| wrong("host or port of the NATS URL is not valid"))?;
            servers.push(format!("{scheme}://{rest}"));
        }
        Ok(Self(servers.join(",")))
    }
}

impl fmt::Display for NatsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, server) in self.servers().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            // Each server was built as `scheme://rest` above; without that shape nothing of it is shown.
            let (scheme, rest) = server.split_once("://").unwrap_or_default();
            match rest.rsplit_once('@') {
                Some((_, place)) => write!(f, "{comma}{scheme}://***@{place}")?,
                None => write!(f, "{comma}{scheme}://{rest}")?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for NatsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// `host[:port]`, IPv6 only in brackets. None when it is not that; port 0 is no place to connect to.
fn split_host(text: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            host.parse::<Ipv6Addr>().ok()?;
            (host, if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
        }
        None => {
            let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
            // Underscores are no part of a host name by RFC 1123, but container networks use them.
            let named = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
            if host.is_empty() || !host.bytes().all(named) {
                return None;
            }
            (host, port)
        }
    };
    match port {
        None => Some((host, None)),
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            digits.parse().ok().filter(|port| *port != 0).map(|port| (host, Some(port)))
        }
        Some(_) => None,
    }
}

/// RFC 3986 §2.1. Empty text is none.
fn percent_decode(text: &str) -> Result<Option<String>, Wrong> {
    let wrong =
        || Wrong::new("user or password of the URL has a % that is no percent-encoding", "%25 for a percent sign");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let (high, low) = match *rest {
            [high, low, ..] => (hex(high).ok_or_else(wrong)?, hex(low).ok_or_else(wrong)?),
            _ => return Err(wrong()),
        };
        bytes.push(high << 4 | low);
        rest = &rest[2..];
    }
    let text = String::from_utf8(bytes).map_err(|_| wrong())?;
    Ok(Some(text).filter(|text| !text.is_empty()))
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

#[cfg(test)]
mod tests {
    use super::{NatsUrl, Secret, UpstreamUrl};

    fn upstream(text: &str) -> UpstreamUrl {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn redis_urls() {
        // text, user, password, address, db
        let table = [
            ("redis://127.0.0.1:6379", None, None, "127.0.0.1:6379", 0),
            ("redis://redis", None, None, "redis:6379", 0),
            ("redis://redis/", None, None, "redis:6379", 0),
            ("redis://my_redis-1.local:7000/3", None, None, "my_redis-1.local:7000", 3),
            ("redis://:pw@h", None, Some("pw"), "h:6379", 0),
            ("redis://ann:pw@h:1/2", Some("ann"), Some("pw"), "h:1", 2),
            ("redis://:p%40s%2Fs%25@h", None, Some("p@s/s%"), "h:6379", 0),
            ("redis://:p@s/s:w#d?@h:1", None, Some("p@s/s:w#d?"), "h:1", 0),
            ("redis://:@h", None, None, "h:6379", 0),
            ("redis://[::1]:6400/1", None, None, "[::1]:6400", 1),
            ("redis://[::1]", None, None, "[::1]:6379", 0),
        ];
        for (text, user, password, address, db) in table {
            let url = upstream(text);
            assert_eq!(url.user.as_deref(), user, "{text}");
            assert_eq!(url.password.as_ref().map(Secret::expose), password, "{text}");
            assert_eq!((url.address().as_str(), url.db), (address, db), "{text}");
        }
        assert_eq!(upstream("redis://127.0.0.1"), UpstreamUrl::default());
    }

    #[test]
    fn bad_redis_urls_say_what_to_type_and_keep_the_secret() {
        let bad = [
            "",
            "hunter2",
            "127.0.0.1:6379",
            "http://h",
            "REDIS://h",
            "rediss://:hunter2@h",
            "unix:///hunter2",
            "redis://",
            "redis://:6379",
            "redis://h:0",
            "redis://h:65536",
            "redis://h:x",
            "redis://h:",
            "redis://h:+1",
            "redis://::1",
            "redis://[::1",
            "redis://[hunter2]",
            "redis://[::1]6379",
            "redis://h h",
            "redis://h/x",
            "redis://h/-1",
            "redis://h/4294967296",
            "redis://h/0?x=hunter2",
            "redis://hunter2@h",
            "redis://hunter2:@h",
            "redis://:hunter2%@h",
            "redis://:hunter2%zz@h",
            "redis://:hunter2%ff@h",
        ];
        for text in bad {
            let message = text.parse::<UpstreamUrl>().expect_err(text).to_string();
            assert!(message.contains("; type "), "{text}: {message}");
            assert!(!message.contains("hunter2"), "{text}: {message}");
        }
    }

    #[test]
    fn nats_urls() {
        let table = [
            ("nats://nats:4222", "nats://nats:4222"),
            ("nats:4222", "nats://nats:4222"),
            ("localhost", "nats://localhost"),
            ("tls://a,nats://b:1/", "tls://a,nats://b:1"),
            ("a:1, b:2", "nats://a:1,nats://b:2"),
            ("nats://u:p@h:1", "nats://u:p@h:1"),
            ("nats://[::1]:4222", "nats://[::1]:4222"),
        ];
        for (text, url) in table {
            assert_eq!(text.parse::<NatsUrl>().expect(text).as_str(), url);
        }
        for text in
            ["", ",", "nats://", "http://hunter2@h", "nats://hunter2@", "h:0", "h:x", "a,", "nats://hunter2@h:99999"]
        {
            let message = text.parse::<NatsUrl>().expect_err(text).to_string();
            assert!(message.contains("; type nats://") && !message.contains("hunter2"), "{text}: {message}");
        }
    }

    #[test]
    fn secrets_do_not_print() {
        let url = upstream("redis://ann:hunter2@h/1");
        assert_eq!(
            format!("{url} {url:?} {:?}", url.password),
            "redis://ann:***@h:6379/1 redis://ann:***@h:6379/1 Some(***)"
        );
        let nats: NatsUrl = "nats://ann:hunter2@h,hunter2@i,j".parse().expect("a NATS URL");
        assert_eq!(format!("{nats} {nats:?}"), "nats://***@h,nats://***@i,nats://j nats://***@h,nats://***@i,nats://j");
    }
}
