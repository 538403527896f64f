//! Where Redis and NATS are. Host names stay names here; they are looked up when they are needed.
//!
//! No `Debug`, `Display` or error made here shows a password; a text that may hold one is never quoted.

use std::fmt;
use std::net::Ipv6Addr;
use std::path::PathBuf;
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

/// The Redis server behind the proxy: `redis://[[user]:password@]host[:port][/db]`, `rediss://` for TLS, or
/// `unix://[[user]:password@]/path[?db=number]`.
///
/// User and password may be percent-encoded; only `%` itself must be (`%25`), since the last `@` ends them. The same is true of a path
/// and `?`.
#[derive(Clone, PartialEq, Eq)]
pub struct UpstreamUrl {
    /// ACL user; none: the default user.
    pub user: Option<String>,
    /// Password for `AUTH`.
    pub password: Option<Secret>,
    /// Where it is.
    pub target: Target,
    /// Database that a client finds itself in before any `SELECT`.
    pub db: u32,
}

/// Where a server is, and how it is spoken to. The host is a name or an IP address, IPv6 without brackets.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "host and port are what they are called")]
pub enum Target {
    /// TCP.
    Tcp { host: String, port: u16 },
    /// TLS over TCP.
    Tls { host: String, port: u16 },
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl UpstreamUrl {
    /// `host:port` with an IPv6 address in brackets, or the path of a Unix socket.
    pub fn address(&self) -> String {
        match &self.target {
            Target::Tcp { host, port } | Target::Tls { host, port } if host.contains(':') => format!("[{host}]:{port}"),
            Target::Tcp { host, port } | Target::Tls { host, port } => format!("{host}:{port}"),
            Target::Unix(path) => path.display().to_string(),
        }
    }
}

impl Default for UpstreamUrl {
    fn default() -> Self {
        Self {
            user: None,
            password: None,
            target: Target::Tcp { host: "127.0.0.1".to_owned(), port: REDIS_PORT },
            db: 0,
        }
    }
}

impl FromStr for UpstreamUrl {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        const REMEDY: &str = "redis://host:port or redis://user:password@host:port/db, for example redis://127.0.0.1:6379; \
                              rediss:// for TLS, or unix:///path?db=0";
        let wrong = |what: &str| Wrong::new(what, REMEDY);
        let (scheme, rest) = text.split_once("://").ok_or_else(|| wrong("this is not a Redis URL"))?;
        let is_unix = match scheme {
            "redis" | "rediss" => false,
            "unix" | "redis+unix" | "redis-socket" => true,
            _ => return Err(wrong("this is not a Redis URL")),
        };
        // A path may have an @, and begins where the login ends.
        let (login, place) = match rest.rsplit_once('@') {
            Some((login, place)) if !(is_unix && rest.starts_with('/')) => (Some(login), place),
            _ => (None, rest),
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
        let (place, query) = place.split_once('?').map_or((place, None), |(place, query)| (place, Some(query)));
        let query = match query.map(|query| query.strip_prefix("db=")) {
            None => None,
            Some(Some(db)) => Some(db),
            Some(None) => return Err(wrong("what follows the ? of the URL is not db= and a number")),
        };
        let (target, db) = if is_unix {
            let path = percent_decode(place)?.filter(|path| path.starts_with('/') && !path.contains('\0'));
            let path = path.ok_or_else(|| wrong("the URL of a Unix socket has no path that begins with /"))?;
            (Target::Unix(path.into()), query)
        } else {
            let (host_port, db) = place.split_once('/').unwrap_or((place, ""));
            let (host, port) = split_host(host_port).ok_or_else(|| wrong("host or port of the URL is not valid"))?;
            let (host, port) = (host.to_owned(), port.unwrap_or(REDIS_PORT));
            let target = if scheme == "rediss" { Target::Tls { host, port } } else { Target::Tcp { host, port } };
            (target, Some(db).filter(|db| !db.is_empty()).or(query))
        };
        let db = match db {
            None => 0,
            Some(digits) if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse().map_err(|_| wrong("the database number of the URL is too large"))?
            }
            Some(_) => return Err(wrong("what follows the host or the path of the URL is not a database number")),
        };
        Ok(Self { user, password: password.map(Secret), target, db })
    }
}

impl fmt::Display for UpstreamUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.target {
            Target::Tcp { .. } => "redis://",
            Target::Tls { .. } => "rediss://",
            Target::Unix(_) => "unix://",
        })?;
        if self.password.is_some() {
            write!(f, "{}:***@", self.user.as_deref().unwrap_or_default())?;
        }
        let before_db = if matches!(self.target, Target::Unix(_)) { "?db=" } else { "/" };
        write!(f, "{}{before_db}{}", self.address(), self.db)
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
    let wrong = || {
        Wrong::new("user, password or path of the URL has a % that is no percent-encoding", "%25 for a percent sign")
    };
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
            ("redis://h?db=4", None, None, "h:6379", 4),
            ("redis://h/5?db=4", None, None, "h:6379", 5),
            ("rediss://ann:pw@h/2", Some("ann"), Some("pw"), "h:6379", 2),
            ("unix:///run/redis.sock", None, None, "/run/redis.sock", 0),
            ("unix:///run/a@b.sock?db=3", None, None, "/run/a@b.sock", 3),
            ("unix://ann:p@w@/run/redis.sock", Some("ann"), Some("p@w"), "/run/redis.sock", 0),
            ("redis+unix://:pw@/a%3Fb", None, Some("pw"), "/a?b", 0),
            ("redis-socket:///s", None, None, "/s", 0),
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
            "rediss://",
            "rediss://h/x",
            "unix://hunter2",
            "unix://",
            "unix:///s?hunter2",
            "unix:///s?db=",
            "unix:///s?db=x",
            "unix:///s?db=1&password=hunter2",
            "unix://hunter2@/s",
            "unix:///%zz",
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
        let tls = upstream("rediss://ann:hunter2@h/1");
        let unix = upstream("unix://:hunter2@/s?db=2");
        assert_eq!(format!("{tls} {unix:?}"), "rediss://ann:***@h:6379/1 unix://:***@/s?db=2");
        let nats: NatsUrl = "nats://ann:hunter2@h,hunter2@i,j".parse().expect("a NATS URL");
        assert_eq!(format!("{nats} {nats:?}"), "nats://***@h,nats://***@i,nats://j nats://***@h,nats://***@i,nats://j");
    }
}
