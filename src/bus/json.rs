//! The JSON contract with services that are not Shortstops: `{"action":"invalidate","key":…,"timestamp":…}`, and `update` with a value.
//!
//! Messages from a Shortstop also have the field `instance`. Other Shortstops ignore them, because they received the key on the
//! fleet's own subject. A key that is not UTF-8 is sent as `key_base64`. Bytes in, values out; no I/O.

use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Prefix of a Shortstop's instance id.
const OURS: &str = "shortstop:";

/// A service's request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// Drop one key, in every database.
    Key(Vec<u8>),
    /// Drop all keys that match a Redis glob.
    Pattern(Vec<u8>),
    /// Drop everything.
    Clear,
    /// Nothing to do.
    Ours,
}

/// Why a JSON message was ignored.
#[derive(Debug, Error)]
pub(super) enum JsonError {
    /// The parser's own text is left out, because it may quote a key.
    #[error("not the expected JSON, at line {} column {}", .0.line(), .0.column())]
    Syntax(#[from] serde_json::Error),
    #[error("unknown action: expected invalidate, invalidate_pattern, clear or update")]
    Action,
    #[error("no \"{0}\"")]
    Missing(&'static str),
    #[error("\"key_base64\" is not base64")]
    Base64,
}

/// The fields that a message may have. Others are ignored, since services add their own.
#[derive(Deserialize)]
struct Inbound {
    action: String,
    key: Option<String>,
    key_base64: Option<String>,
    pattern: Option<String>,
    #[serde(default, deserialize_with = "instance")]
    instance: Option<String>,
}

#[derive(Serialize)]
struct Outbound<'a> {
    action: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    timestamp: String,
    instance: &'a str,
}

/// A service may use a field of this name for its own purposes. Only a string can be a Shortstop's.
fn instance<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    Ok(match serde_json::Value::deserialize(from)? {
        serde_json::Value::String(text) => Some(text),
        _ => None,
    })
}

/// Whose messages ask for nothing.
#[derive(Clone, Debug)]
pub(super) enum Passed {
    /// Those of all Shortstops, since they tell the same on the fleet's subject.
    OfShortstops,
    /// Those of this instance.
    Of(String),
}

impl Passed {
    fn has(&self, instance: &str) -> bool {
        match self {
            Passed::OfShortstops => instance.starts_with(OURS),
            Passed::Of(own) => instance == own,
        }
    }
}

/// Parses a message from a service or a Shortstop. A value in it is passed over: L1 takes values from Redis alone.
pub(super) fn read(bytes: &[u8], passed: &Passed) -> Result<Request, JsonError> {
    let message: Inbound = serde_json::from_slice(bytes)?;
    if message.instance.is_some_and(|instance| passed.has(&instance)) {
        return Ok(Request::Ours);
    }
    match message.action.as_str() {
        "invalidate" | "update" => match (message.key_base64, message.key) {
            (Some(text), _) => Ok(Request::Key(STANDARD.decode(text).map_err(|_| JsonError::Base64)?)),
            (None, Some(key)) => Ok(Request::Key(key.into_bytes())),
            (None, None) => Err(JsonError::Missing("key")),
        },
        "invalidate_pattern" => {
            let pattern = message.pattern.or(message.key).ok_or(JsonError::Missing("pattern"))?;
            Ok(Request::Pattern(pattern.into_bytes()))
        }
        "clear" => Ok(Request::Clear),
        _ => Err(JsonError::Action),
    }
}

/// The message for one written key.
pub(super) fn invalidate(key: &[u8], instance: &str, now: SystemTime) -> Vec<u8> {
    let text = std::str::from_utf8(key).ok();
    write(&Outbound {
        action: "invalidate",
        key: text,
        key_base64: text.is_none().then(|| STANDARD.encode(key)),
        timestamp: timestamp(now),
        instance,
    })
}

#[derive(Serialize)]
struct OutboundUpdate<'a> {
    action: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    value_base64: String,
    ttl: Option<serde_json::Number>,
    timestamp: String,
    instance: &'a str,
}

/// The message for a key that has got a value. The ttl is in seconds, with decimals only if it needs them.
pub(super) fn update(key: &[u8], value: &[u8], ttl: Option<Duration>, instance: &str, now: SystemTime) -> Vec<u8> {
    let text = std::str::from_utf8(key).ok();
    let seconds = |ttl: Duration| match ttl.subsec_nanos() {
        0 => Some(ttl.as_secs().into()),
        _ => serde_json::Number::from_f64(ttl.as_secs_f64()),
    };
    let message = OutboundUpdate {
        action: "update",
        key: text,
        key_base64: text.is_none().then(|| STANDARD.encode(key)),
        value_base64: STANDARD.encode(value),
        ttl: ttl.and_then(seconds),
        timestamp: timestamp(now),
        instance,
    };
    serde_json::to_vec(&message).expect("texts and a finite number: there is nothing in it that JSON cannot hold")
}

/// The message for "anything may have changed".
pub(super) fn clear(instance: &str, now: SystemTime) -> Vec<u8> {
    write(&Outbound { action: "clear", key: None, key_base64: None, timestamp: timestamp(now), instance })
}

fn write(message: &Outbound<'_>) -> Vec<u8> {
    serde_json::to_vec(message).expect("texts only: there is nothing in it that JSON cannot hold")
}

/// UTC with milliseconds, RFC 3339: `2025-01-31T09:30:00.125Z`. Times before 1970 become 1970.
fn timestamp(now: SystemTime) -> String {
    humantime::format_rfc3339_millis(now.max(SystemTime::UNIX_EPOCH)).to_string()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use proptest::collection::vec;
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};
    use serde_json::{Value, json};

    use super::{Passed, Request, clear, invalidate, timestamp, update};

    fn read(bytes: &[u8]) -> Result<Request, super::JsonError> {
        super::read(bytes, &Passed::OfShortstops)
    }

    fn at(seconds: u64, millis: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_millis(millis)
    }

    #[test]
    fn messages_of_services_are_understood() {
        let cases = [
            (
                r#"{"action":"invalidate","key":"a","timestamp":"2025-01-31T09:30:00.000001"}"#,
                Request::Key(b"a".into()),
            ),
            (r#"{"key":"","action":"invalidate","extra":[1]}"#, Request::Key(b"".into())),
            (r#"{"action":"invalidate","key_base64":"/wA="}"#, Request::Key(vec![0xff, 0])),
            (r#"{"action":"invalidate_pattern","pattern":"a:*"}"#, Request::Pattern(b"a:*".into())),
            (r#"{"action":"invalidate_pattern","key":"a:*"}"#, Request::Pattern(b"a:*".into())),
            (r#"{"action":"update","key":"a","value_base64":"%%%","ttl":1}"#, Request::Key(b"a".into())),
            (r#"{"action":"clear"}"#, Request::Clear),
            (r#"{"action":"clear","instance":"signals-7"}"#, Request::Clear),
            (r#"{"action":"clear","instance":7}"#, Request::Clear),
            (r#"{"action":"clear","instance":"shortstop:00000000000000ab"}"#, Request::Ours),
        ];
        for (text, expected) in cases {
            assert_eq!(read(text.as_bytes()).expect(text), expected, "{text}");
        }
    }

    #[test]
    fn invalid_messages_are_errors() {
        let deep = "[".repeat(100_000);
        let cases = [
            "",
            "null",
            "[]",
            "invalidate",
            "{}",
            r#"{"action":"invalidate"}"#,
            r#"{"action":"invalidate","key":7}"#,
            r#"{"action":"invalidate","key_base64":"%"}"#,
            r#"{"action":"invalidate_pattern"}"#,
            r#"{"action":"drop","key":"a"}"#,
            r#"{"action":"clear""#,
            deep.as_str(),
        ];
        for text in cases {
            assert!(read(text.as_bytes()).is_err(), "{text}");
        }
        assert!(read(b"\xff\xfe").is_err());
    }

    #[test]
    fn the_json_format_is_fixed() {
        let sent: Value = serde_json::from_slice(&invalidate(b"a\"b", "shortstop:1", at(0, 5))).expect("JSON");
        let expected = json!({
            "action": "invalidate", "key": "a\"b", "timestamp": "1970-01-01T00:00:00.005Z", "instance": "shortstop:1"
        });
        assert_eq!(sent, expected);
        let sent: Value = serde_json::from_slice(&clear("shortstop:1", at(0, 0))).expect("JSON");
        assert_eq!(
            sent,
            json!({"action": "clear", "timestamp": "1970-01-01T00:00:00.000Z", "instance": "shortstop:1"})
        );
    }

    #[test]
    fn the_format_of_an_update_is_fixed() {
        let sent = |key: &[u8], ttl: Option<u64>| -> Value {
            let ttl = ttl.map(Duration::from_millis);
            serde_json::from_slice(&update(key, b"\xffv", ttl, "shortstop:1", at(0, 0))).expect("JSON")
        };
        let mut expected = json!({
            "action": "update", "key": "k", "value_base64": "/3Y=", "ttl": null, "timestamp": "1970-01-01T00:00:00.000Z",
            "instance": "shortstop:1"
        });
        assert_eq!(sent(b"k", None), expected);
        expected["ttl"] = json!(10);
        assert_eq!(sent(b"k", Some(10_000)), expected);
        expected["ttl"] = json!(1.5);
        assert_eq!(sent(b"k", Some(1500)), expected);
        assert_eq!(sent(b"\xff", None)["key_base64"], "/w==");
    }

    #[test]
    fn an_update_of_another_shortstop_is_a_request() {
        let message = update(b"k", b"v", None, "shortstop:1", at(0, 0));
        let read = |own: &str| super::read(&message, &Passed::Of(own.to_owned())).expect("our own message");
        assert_eq!((read("shortstop:1"), read("shortstop:2")), (Request::Ours, Request::Key(b"k".into())));
    }

    /// Expected values from GNU date.
    #[test]
    fn times_are_right() {
        let cases = [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399, "2000-02-28T23:59:59.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (1_735_689_599, "2024-12-31T23:59:59.000Z"),
            (1_735_689_600, "2025-01-01T00:00:00.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        ];
        for (seconds, text) in cases {
            assert_eq!(timestamp(at(seconds, 0)), text);
        }
    }

    proptest! {
        #[test]
        fn every_key_survives(key in vec(any::<u8>(), 0..64)) {
            let sent = invalidate(&key, "signals-7", SystemTime::now());
            prop_assert_eq!(read(&sent).expect("our own message"), Request::Key(key.clone()));
            prop_assert_eq!(read(&invalidate(&key, "shortstop:1", SystemTime::now())).expect("ours"), Request::Ours);
        }

        #[test]
        fn no_input_makes_the_parser_panic(bytes in vec(any::<u8>(), 0..200)) {
            prop_assert!(read(&bytes).is_err());
        }
    }
}
