//! Where Redis and NATS are. Host names stay names here; they are looked up when they are needed.
//!
//! No `Debug`, `Display` or error made here shows a password; a text that may hold one is never quoted.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::units::Wrong;

/// What has a meaning before the `@` of a URL, and more.
const IN_LOGIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

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

/// The Redis server behind the proxy: `redis://[[user]:password@]host[:port][/db]`. `valkey://` is the same, and so is `host:port`.
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
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) => (scheme.to_ascii_lowercase(), rest),
            // A host needs its port here: a word alone may be anything, a password too.
            None if split_host(text.split('/').next().unwrap_or(text)).is_some_and(|(_, port)| port.is_some()) => {
                ("redis".to_owned(), text)
            }
            None => return Err(wrong("this is not a Redis URL")),
        };
        match scheme.as_str() {
            "redis" | "valkey" => {}
            "rediss" | "valkeys" => {
                return Err(wrong(
                    "rediss:// (Redis over TLS) is not supported by this version: put a TLS tunnel beside Redis",
                ));
            }
            "unix" | "redis+unix" | "redis-socket" => {
                return Err(wrong("unix sockets are not supported by this version"));
            }
            _ => return Err(wrong("this is not a Redis URL")),
        }
        let (login, place) = match rest.rsplit_once('@') {
            Some((login, place)) => (Some(login), place),
            None => (None, rest),
        };
        let (user, password) = match login.map(|login| login.split_once(':')) {
            None => (None, None),
            Some(None) => {
                return Err(wrong("the part before @ has no colon: a password alone is written :password@"));
            }
            Some(Some((user, password))) => (decoded(user)?, decoded(password)?),
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
            write!(f, "{}:***@", utf8_percent_encode(self.user.as_deref().unwrap_or_default(), IN_LOGIN))?;
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
pub struct NatsUrl {
    servers: Vec<NatsServer>,
}

/// One of them.
#[derive(Clone, PartialEq, Eq)]
pub struct NatsServer {
    /// `nats` or `tls`.
    scheme: String,
    /// `host[:port]`, IPv6 in brackets.
    place: String,
    login: Option<NatsLogin>,
}

/// What a NATS URL says before the `@`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NatsLogin {
    /// `user:password@`
    Password {
        /// The user; may be empty.
        user: String,
        /// The password.
        password: Secret,
    },
    /// `token@`: a user without a password, as other NATS clients take it.
    Token(Secret),
}

impl NatsUrl {
    /// Each server's URL, without its login.
    pub fn servers(&self) -> impl Iterator<Item = String> {
        self.servers.iter().map(|server| format!("{}://{}", server.scheme, server.place))
    }

    /// What to log in with: the first login that is named, at all servers.
    pub fn login(&self) -> Option<&NatsLogin> {
        self.servers.iter().find_map(|server| server.login.as_ref())
    }
}

impl FromStr for NatsUrl {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        text.split(',').map(|server| server.trim().parse()).collect::<Result<_, _>>().map(|servers| Self { servers })
    }
}

impl FromStr for NatsServer {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        let wrong = |what: &str| Wrong::new(what, "nats://host:port, for example nats://127.0.0.1:4222");
        let (scheme, rest) = text.split_once("://").unwrap_or(("nats", text));
        let scheme = scheme.to_ascii_lowercase();
        if !matches!(scheme.as_str(), "nats" | "tls") {
            return Err(wrong("a NATS URL begins with nats:// or tls://"));
        }
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (login, place) = match rest.rsplit_once('@') {
            Some((login, place)) => (Some(login), place),
            None => (None, rest),
        };
        split_host(place).ok_or_else(|| wrong("host or port of the NATS URL is not valid"))?;
        let login = match login.map(|login| login.split_once(':').unwrap_or((login, ""))) {
            None => None,
            Some((user, password)) => match (decoded(user)?, decoded(password)?) {
                (None, None) => None,
                (Some(token), None) => Some(NatsLogin::Token(Secret(token))),
                (user, Some(password)) => {
                    Some(NatsLogin::Password { user: user.unwrap_or_default(), password: Secret(password) })
                }
            },
        };
        Ok(Self { scheme, place: place.to_owned(), login })
    }
}

impl fmt::Display for NatsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, server) in self.servers.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let login = if server.login.is_some() { "***@" } else { "" };
            write!(f, "{comma}{}://{login}{}", server.scheme, server.place)?;
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

/// The user or password that stands percent-encoded in a URL (RFC 3986 §2.1). Empty text is none.
fn decoded(text: &str) -> Result<Option<String>, Wrong> {
    let wrong =
        || Wrong::new("user or password of the URL has a % that is no percent-encoding", "%25 for a percent sign");
    // The library leaves what is none as it is.
    let is_encoding = |after: &str| after.as_bytes().get(..2).is_some_and(|two| two.iter().all(u8::is_ascii_hexdigit));
    if !text.split('%').skip(1).all(is_encoding) {
        return Err(wrong());
    }
    let text = percent_decode_str(text).decode_utf8().map_err(|_| wrong())?;
    Ok(Some(text.into_owned()).filter(|text| !text.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::{NatsLogin, NatsUrl, Secret, UpstreamUrl};

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
            ("localhost:6380", None, None, "localhost:6380", 0),
            ("127.0.0.1:6380/2", None, None, "127.0.0.1:6380", 2),
            ("valkey://:pw@h/1", None, Some("pw"), "h:6379", 1),
            ("REDIS://h", None, None, "h:6379", 0),
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
            "127.0.0.1",
            "hunter2@h:6379",
            ":hunter2@h:6379",
            "http://h",
            "rediss://:hunter2@h",
            "valkeys://:hunter2@h",
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
            ("nats://u:p@h:1", "nats://h:1"),
            ("nats://[::1]:4222", "nats://[::1]:4222"),
            ("NATS://h", "nats://h"),
        ];
        for (text, url) in table {
            let servers: Vec<_> = text.parse::<NatsUrl>().expect(text).servers().collect();
            assert_eq!(servers.join(","), url);
        }
        let password =
            |user: &str, text: &str| NatsLogin::Password { user: user.to_owned(), password: Secret::new(text) };
        for (text, login) in [
            ("nats://h", None),
            ("nats://@h", None),
            ("nats://b,nats://us%40er:hunt%2Fer2@a:4223,nats://x:y@c", Some(password("us@er", "hunt/er2"))),
            ("nats://:p@h", Some(password("", "p"))),
            ("nats://secret@h", Some(NatsLogin::Token(Secret::new("secret")))),
        ] {
            assert_eq!(text.parse::<NatsUrl>().expect(text).login(), login.as_ref(), "{text}");
        }
        for text in [
            "",
            ",",
            "nats://",
            "http://hunter2@h",
            "nats://hunter2@",
            "h:0",
            "h:x",
            "a,",
            "nats://hunter2@h:99999",
            "nats://hunter2%zz@h",
        ] {
            let message = text.parse::<NatsUrl>().expect_err(text).to_string();
            assert!(message.contains("; type ") && !message.contains("hunter2"), "{text}: {message}");
        }
    }

    #[test]
    fn secrets_do_not_print() {
        let url = upstream("redis://ann:hunter2@h/1");
        assert_eq!(
            format!("{url} {url:?} {:?}", url.password),
            "redis://ann:***@h:6379/1 redis://ann:***@h:6379/1 Some(***)"
        );
        // What is shown is a URL again, of the same user.
        let shown = upstream("redis://a%40n%3An%25:hunter2@h").to_string();
        assert_eq!(upstream(&shown).user.as_deref(), Some("a@n:n%"), "{shown}");
        let nats: NatsUrl = "nats://ann:hunter2@h,hunter2@i,j".parse().expect("a NATS URL");
        assert_eq!(format!("{nats} {nats:?}"), "nats://***@h,nats://***@i,nats://j nats://***@h,nats://***@i,nats://j");
    }
}
