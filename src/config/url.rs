//! URLs of Redis and NATS. Host names are not resolved here.
//!
//! No `Debug`, `Display` or error made here shows a password. A text that may contain one is never quoted.

use std::fmt;
use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::str::FromStr;

use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::secret::Secret;
use super::units::Wrong;

/// Characters to percent-encode before the `@` of a URL.
const IN_LOGIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Characters to percent-encode in the path of a Unix socket.
const IN_PATH: &AsciiSet = &CONTROLS.add(b'%').add(b'?').add(b'@');

/// The default port of a Redis URL.
const REDIS_PORT: u16 = 6379;

/// The upstream Redis server: `redis://[[user]:password@]host[:port][/db]`, `rediss://` for TLS, or
/// `unix://[[user]:password@]/path[?db=number]`. `valkey://` and `valkeys://` mean the same, and so does `host:port` without TLS.
///
/// User and password may be percent-encoded. Only `%` itself must be (`%25`), since the last `@` ends them. The same is true for a
/// path and `?`.
#[derive(Clone, PartialEq, Eq)]
pub struct UpstreamUrl {
    /// The ACL user. `None`: the default user.
    pub user: Option<String>,
    /// Password for `AUTH`.
    pub password: Option<Secret>,
    /// The address of the server.
    pub target: Target,
    /// The database of a client before its first `SELECT`.
    pub db: u32,
}

/// The address of a server, and the transport. The host is a name or an IP address, IPv6 without brackets.
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
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) => (scheme.to_ascii_lowercase(), rest),
            // A host needs its port here, because a single word may be anything, even a password.
            None if split_host(text.split('/').next().unwrap_or(text)).is_some_and(|(_, port)| port.is_some()) => {
                ("redis".to_owned(), text)
            }
            None => return Err(wrong("this is not a Redis URL")),
        };
        let (is_unix, has_tls) = match scheme.as_str() {
            "redis" | "valkey" => (false, false),
            "rediss" | "valkeys" => (false, true),
            "unix" | "redis+unix" | "redis-socket" => (true, false),
            _ => return Err(wrong("this is not a Redis URL")),
        };
        // A path may contain an @, so the path starts where the login ends.
        let (login, place) = match rest.rsplit_once('@') {
            Some((login, place)) if !(is_unix && rest.starts_with('/')) => (Some(login), place),
            _ => (None, rest),
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
        let (place, query) = place.split_once('?').map_or((place, None), |(place, query)| (place, Some(query)));
        let query = match query.map(|query| query.strip_prefix("db=")) {
            None => None,
            Some(Some(db)) => Some(db),
            Some(None) => return Err(wrong("what follows the ? of the URL is not db= and a number")),
        };
        let (target, db) = if is_unix {
            let path = decoded(place)?.filter(|path| path.starts_with('/') && !path.contains('\0'));
            let path = path.ok_or_else(|| wrong("the URL of a Unix socket has no path that begins with /"))?;
            (Target::Unix(path.into()), query)
        } else {
            let (host_port, db) = place.split_once('/').unwrap_or((place, ""));
            let (host, port) = split_host(host_port).ok_or_else(|| wrong("host or port of the URL is not valid"))?;
            let (host, port) = (host.to_owned(), port.unwrap_or(REDIS_PORT));
            let target = if has_tls { Target::Tls { host, port } } else { Target::Tcp { host, port } };
            (target, Some(db).filter(|db| !db.is_empty()).or(query))
        };
        let db = match db {
            None => 0,
            Some(digits) if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse().map_err(|_| wrong("the database number of the URL is too large"))?
            }
            Some(_) => return Err(wrong("what follows the host or the path of the URL is not a database number")),
        };
        Ok(Self { user, password: password.map(Secret::new), target, db })
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
            write!(f, "{}:***@", utf8_percent_encode(self.user.as_deref().unwrap_or_default(), IN_LOGIN))?;
        }
        match self.target {
            Target::Tcp { .. } | Target::Tls { .. } => write!(f, "{}/{}", self.address(), self.db),
            Target::Unix(_) => write!(f, "{}?db={}", utf8_percent_encode(&self.address(), IN_PATH), self.db),
        }
    }
}

impl fmt::Debug for UpstreamUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One or more NATS servers, comma-separated: `nats://[user:password@|token@]host[:port],…`. `tls://` asks for TLS, and a server
/// without a scheme gets `nats://`. The client library supplies the default port, 4222.
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

/// The part of a NATS URL before the `@`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NatsLogin {
    /// `user:password@`
    Password {
        /// The user. It may be empty.
        user: String,
        /// The password.
        password: Secret,
    },
    /// `token@`: other NATS clients read a user without a password as a token.
    Token(Secret),
}

impl NatsUrl {
    /// Each server's URL, without its login.
    pub fn servers(&self) -> impl Iterator<Item = String> {
        self.servers.iter().map(|server| format!("{}://{}", server.scheme, server.place))
    }

    /// The login for all servers: the first one in the URL.
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
                (Some(token), None) => Some(NatsLogin::Token(Secret::new(token))),
                (user, Some(password)) => {
                    Some(NatsLogin::Password { user: user.unwrap_or_default(), password: Secret::new(password) })
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

/// `host[:port]`, IPv6 only in brackets. `None` if the text is something else. Port 0 is refused.
fn split_host(text: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            host.parse::<Ipv6Addr>().ok()?;
            (host, if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
        }
        None => {
            let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
            // RFC 1123 allows no underscores in host names, but container networks use them.
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

/// Decodes a percent-encoded text (RFC 3986 §2.1). `None` for an empty text.
fn decoded(text: &str) -> Result<Option<String>, Wrong> {
    let wrong = || {
        Wrong::new("user, password or path of the URL has a % that is not percent-encoding", "%25 for a percent sign")
    };
    // The library leaves an invalid encoding unchanged.
    let is_encoding = |after: &str| after.as_bytes().get(..2).is_some_and(|two| two.iter().all(u8::is_ascii_hexdigit));
    if !text.split('%').skip(1).all(is_encoding) {
        return Err(wrong());
    }
    let text = percent_decode_str(text).decode_utf8().map_err(|_| wrong())?;
    Ok(Some(text.into_owned()).filter(|text| !text.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::{NatsLogin, NatsUrl, Secret, Target, UpstreamUrl};

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
            ("valkeys://h:1", None, None, "h:1", 0),
            ("unix:///run/redis.sock", None, None, "/run/redis.sock", 0),
            ("unix:///run/a@b.sock?db=3", None, None, "/run/a@b.sock", 3),
            ("unix://ann:p@w@/run/redis.sock", Some("ann"), Some("p@w"), "/run/redis.sock", 0),
            ("redis+unix://:pw@/a%3Fb", None, Some("pw"), "/a?b", 0),
            ("redis-socket:///s", None, None, "/s", 0),
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
        for (text, shown) in [
            ("rediss://ann:hunter2@h/1", "rediss://ann:***@h:6379/1"),
            ("valkeys://h", "rediss://h:6379/0"),
            ("unix://:hunter2@/s?db=2", "unix://:***@/s?db=2"),
        ] {
            assert_eq!(upstream(text).to_string(), shown);
        }
        // The shown URL is a valid URL with the same user and the same path.
        let shown = upstream("redis://a%40n%3An%25:hunter2@h").to_string();
        assert_eq!(upstream(&shown).user.as_deref(), Some("a@n:n%"), "{shown}");
        let shown = upstream("unix://:hunter2@/a%40b%3F%25c").to_string();
        assert_eq!(upstream(&shown).target, Target::Unix("/a@b?%c".into()), "{shown}");
        let nats: NatsUrl = "nats://ann:hunter2@h,hunter2@i,j".parse().expect("a NATS URL");
        assert_eq!(format!("{nats} {nats:?}"), "nats://***@h,nats://***@i,nats://j nats://***@h,nats://***@i,nats://j");
    }
}
