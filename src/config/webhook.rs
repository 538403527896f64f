//! The URL of a webhook. Its path is often a secret, so it is never shown.

use std::fmt;
use std::str::FromStr;

use hyper::Uri;

use super::units::Wrong;

/// Where alerts are posted: `https://host[:port]/path`, or `http://` without TLS.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookUrl(Uri);

impl WebhookUrl {
    /// Whether the URL says `https`.
    pub fn has_tls(&self) -> bool {
        self.0.scheme_str() == Some("https")
    }

    /// The host, IPv6 without brackets.
    pub fn host(&self) -> &str {
        self.0.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']')
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.0.port_u16().unwrap_or(if self.has_tls() { 443 } else { 80 })
    }

    /// Host and port as in the URL.
    pub fn authority(&self) -> &str {
        self.0.authority().map_or("", |authority| authority.as_str())
    }

    /// The path with the query.
    pub fn path(&self) -> &str {
        self.0.path_and_query().map_or("/", |path| path.as_str())
    }
}

impl FromStr for WebhookUrl {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        const REMEDY: &str = "an address, for example https://alerts.example/shortstop";
        // The text may have a secret in it, so it is not quoted.
        let uri: Uri = text.parse().map_err(|_| Wrong::new("this is no URL", REMEDY))?;
        if !matches!(uri.scheme_str(), Some("https" | "http")) {
            return Err(Wrong::new("the URL does not begin with https:// or http://", REMEDY));
        }
        match uri.authority() {
            Some(authority) if authority.as_str().contains('@') => {
                Err(Wrong::new("a user and a password in the URL are not sent", "a token in alerts.webhook_token"))
            }
            Some(authority) if !authority.host().is_empty() => Ok(WebhookUrl(uri)),
            _ => Err(Wrong::new("the URL names no host", REMEDY)),
        }
    }
}

/// Without the path.
impl fmt::Display for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = if self.path() == "/" { "/" } else { "/***" };
        write!(f, "{}://{}{path}", self.0.scheme_str().unwrap_or_default(), self.authority())
    }
}

impl fmt::Debug for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::WebhookUrl;

    #[test]
    fn a_url_has_its_parts_and_shows_no_path() {
        for (text, shown, host, port, path) in [
            ("https://a.b/c?d=e", "https://a.b/***", "a.b", 443, "/c?d=e"),
            ("http://a:81", "http://a:81/", "a", 81, "/"),
            ("http://[::1]/x", "http://[::1]/***", "::1", 80, "/x"),
        ] {
            let url: WebhookUrl = text.parse().unwrap_or_else(|error| panic!("{error}"));
            assert_eq!((url.to_string().as_str(), url.host(), url.port(), url.path()), (shown, host, port, path));
            assert_eq!(format!("{url:?}"), shown);
        }
    }

    #[test]
    fn what_cannot_be_posted_to_is_refused_and_not_quoted() {
        for text in ["a", "/secret", "ftp://a/secret", "https://u:secret@a/", "https:///secret", "http://a b/secret"] {
            let error = text.parse::<WebhookUrl>().expect_err(text).to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
