//! The bearer token: who may change something through the monitor, and with `monitor_auth: all` who may read.

use std::fs;

use axum::http::{HeaderMap, StatusCode, header::AUTHORIZATION};

use crate::config::{Config, Finding, MonitorAuth, Secret};

/// The token as it is configured.
pub(super) struct Token(Option<Secret>);

impl Token {
    /// Reads it. The file is read each time, so that a new token in it counts at once.
    ///
    /// # Errors
    /// The file cannot be read, or is empty.
    pub(super) fn of(config: &Config) -> Result<Token, Finding> {
        let Some(path) = &config.monitor_token_file else { return Ok(Token(config.monitor_token.clone())) };
        let wrong = |why: String| Finding::new("monitor_token_file", format!("{}: {why}", path.display()));
        let text = fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        match text.trim() {
            "" => Err(wrong("it is empty; write the token into it".to_owned())),
            token => Ok(Token(Some(Secret::new(token)))),
        }
    }

    /// Whether there is one, so that changes are possible at all.
    pub(super) fn is_set(config: &Config) -> bool {
        Token::of(config).is_ok_and(|token| token.0.is_some())
    }

    /// Whether the request shows it.
    fn is_shown(&self, headers: &HeaderMap) -> bool {
        let shown = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let shown =
            shown.and_then(|value| value.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        matches!((&self.0, shown), (Some(token), Some((_, shown))) if is_same(token.expose().as_bytes(), shown.trim().as_bytes()))
    }
}

/// Compares in a time that tells nothing of where they differ.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).fold(0, |differ, (one, other)| differ | (one ^ other)) == 0
}

/// Whether a request may be served; if not, what it is answered.
pub(super) fn check(config: &Config, headers: &HeaderMap, changes: bool) -> Result<(), (StatusCode, &'static str)> {
    if !changes && config.monitor_auth == MonitorAuth::Changes {
        return Ok(());
    }
    match Token::of(config) {
        Ok(token) if token.is_shown(headers) => Ok(()),
        Ok(Token(Some(_))) => {
            Err((StatusCode::UNAUTHORIZED, "this needs the token: send Authorization: Bearer <monitor_token>"))
        }
        Ok(Token(None)) => Err((
            StatusCode::FORBIDDEN,
            "this needs a token, and none is configured; set monitor_token, monitor_token_file or SHORTSTOP_MONITOR_TOKEN",
        )),
        Err(finding) => {
            crate::seldom!(warn, "the monitor's token cannot be read", why = %finding);
            Err((StatusCode::FORBIDDEN, "this needs the token, and the file with it cannot be read; the log says why"))
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderMap, StatusCode, header::AUTHORIZATION};

    use super::check;
    use crate::config::Config;

    fn status(yaml: &str, header: Option<&str>, changes: bool) -> Option<StatusCode> {
        let config = Config::from_yaml(yaml).unwrap_or_else(|error| panic!("{error}"));
        let mut headers = HeaderMap::new();
        if let Some(value) = header {
            headers.insert(AUTHORIZATION, value.parse().expect("a header"));
        }
        check(&config, &headers, changes).err().map(|(status, _)| status)
    }

    #[test]
    fn what_changes_something_needs_the_token() {
        assert_eq!(status("", None, false), None);
        assert_eq!(status("", Some("Bearer x"), true), Some(StatusCode::FORBIDDEN), "no token is configured");
        let yaml = "monitor_token: s3cret";
        assert_eq!(status(yaml, None, false), None);
        assert_eq!(status(yaml, None, true), Some(StatusCode::UNAUTHORIZED));
        assert_eq!(status(yaml, Some("Bearer s3cre"), true), Some(StatusCode::UNAUTHORIZED));
        assert_eq!(status(yaml, Some("Basic s3cret"), true), Some(StatusCode::UNAUTHORIZED));
        assert_eq!(status(yaml, Some("bearer s3cret"), true), None);
        let all = "monitor_token: s3cret\nmonitor_auth: all";
        assert_eq!(status(all, None, false), Some(StatusCode::UNAUTHORIZED));
        assert_eq!(status(all, Some("Bearer s3cret"), false), None);
    }

    #[test]
    fn a_token_may_stand_in_a_file() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("token");
        let yaml = format!("monitor_token_file: {}", path.display());
        assert_eq!(status(&yaml, Some("Bearer x"), true), Some(StatusCode::FORBIDDEN), "there is no such file");
        std::fs::write(&path, "x\n").expect("it can be written");
        assert_eq!(status(&yaml, Some("Bearer x"), true), None);
    }
}
