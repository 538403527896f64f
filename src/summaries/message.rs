//! The messages on the status subject. Whoever may publish there may send anything, so a message is bounded before it is read, and checked
//! after.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::summary::{Summary, from_hex, to_hex};

/// Size of the largest message that is read. A summary of Shortstop takes up to half of it.
pub const MAX_BYTES: usize = 32 << 10;

/// A message.
#[derive(Debug)]
pub(super) enum Message {
    /// The state of an instance.
    Summary(Box<Summary>),
    /// This instance ends.
    Farewell(u64),
}

/// Why a message counts for nothing. No text quotes the message, because it may have keys in it.
#[derive(Debug, Error)]
pub enum Unusable {
    /// It is too long.
    #[error("longer than {MAX_BYTES} bytes")]
    TooLong,
    /// It is no JSON, or not of the form of a summary.
    #[error("not the expected JSON, at line {} column {}", .0.line(), .0.column())]
    Syntax(#[from] serde_json::Error),
    /// A number, a text or a list is out of bounds.
    #[error("a number, a text or a list in it is out of bounds")]
    OutOfBounds,
    /// So many instances are known that there can be no more.
    #[error("it is of one instance more than are remembered")]
    TooMany,
}

/// What decides how to read a message.
#[derive(Deserialize, Serialize)]
struct Head {
    #[serde(serialize_with = "to_hex", deserialize_with = "from_hex")]
    instance: u64,
    #[serde(default)]
    bye: bool,
}

impl Message {
    pub(super) fn read(bytes: &[u8]) -> Result<Message, Unusable> {
        if bytes.len() > MAX_BYTES {
            return Err(Unusable::TooLong);
        }
        // The parser passes over unknown fields without recursion, and a known one has no depth.
        let head: Head = serde_json::from_slice(bytes)?;
        if head.bye {
            return Ok(Message::Farewell(head.instance));
        }
        let summary: Summary = serde_json::from_slice(bytes)?;
        if !summary.is_sound() {
            return Err(Unusable::OutOfBounds);
        }
        Ok(Message::Summary(Box::new(summary)))
    }
}

/// The message of an instance that ends.
pub fn farewell(instance: u64) -> Vec<u8> {
    serde_json::to_vec(&Head { instance, bye: true }).expect("there is nothing in it that JSON cannot hold")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::collection::vec;
    use proptest::prelude::{any, prop_assert, proptest};

    use super::super::summary::{HotKeyName, MAX_HOT_KEYS};
    use super::{MAX_BYTES, Message, Summary, Unusable};

    fn summary() -> Summary {
        Summary {
            instance: 0xab,
            version: "0.1.0".to_owned(),
            mode: "live".to_owned(),
            requests_per_second: 1.5,
            round_trip_usec: Some(7),
            ..Summary::default()
        }
    }

    #[test]
    fn a_summary_is_read_as_it_was_sent() {
        let mut sent = summary();
        sent.hot_keys = vec![HotKeyName::new(3, b"a\"b"), HotKeyName::new(0, b"\xff")];
        sent.settings.insert("rules[0]".to_owned(), "00".to_owned());
        match Message::read(&sent.encode()) {
            Ok(Message::Summary(read)) => assert_eq!(*read, sent),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_largest_summary_fits() {
        let mut sent = summary();
        (sent.host, sent.address) = ("h".repeat(256), "a".repeat(256));
        sent.hot_keys = vec![HotKeyName::new(u32::MAX, &[0xff; 120]); MAX_HOT_KEYS];
        sent.settings = BTreeMap::from_iter((0..100).map(|number| (format!("rules[{number}]"), "0".repeat(16))));
        let bytes = sent.encode();
        assert!(bytes.len() < MAX_BYTES / 2 && Message::read(&bytes).is_ok(), "{}", bytes.len());
    }

    #[test]
    fn what_a_later_version_adds_is_passed_over() {
        let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
        for more in [r#"{"a":[1,{}]}"#, &deep] {
            let text = format!(r#"{{"instance":"00000000000000ab","version":"9","mode":"live","more":{more}}}"#);
            assert!(Message::read(text.as_bytes()).is_ok());
        }
    }

    #[test]
    fn hostile_messages_count_for_nothing() {
        let with = |more: &str| format!(r#"{{"instance":"00000000000000ab","version":"9","mode":"live",{more}}}"#);
        let texts = [
            String::new(),
            "{}".to_owned(),
            "[]".to_owned(),
            r#"{"instance":"ab","version":"9","mode":"live"}"#.to_owned(),
            r#"{"instance":"+0000000000000ab","version":"9","mode":"live"}"#.to_owned(),
            r#"{"instance":"00000000000000ab","version":"9"}"#.to_owned(),
            with(&format!(r#""alerts":{}"#, "[".repeat(10_000))),
            with(r#""clients":-1"#),
            with(r#""clients":"3""#),
            with(r#""requests_per_second":1e999"#),
            with(r#""requests_per_second":-1"#),
            with(r#""host":"a\u001b[2J""#),
            with(&format!(r#""host":"{}""#, "h".repeat(257))),
            with(&format!(r#""alerts":[{}""]"#, r#""a","#.repeat(64))),
            with(&format!(r#""hot_keys":[{}{{"db":0,"key":"k"}}]"#, r#"{"db":0,"key":"k"},"#.repeat(MAX_HOT_KEYS))),
            with(r#""hot_keys":[{"db":0,"key_base64":"%"}]"#),
            with(r#""hot_keys":[{"db":0}]"#),
        ];
        for text in texts {
            assert!(Message::read(text.as_bytes()).is_err(), "{text}");
        }
        let long = with(&format!(r#""more":"{}""#, "x".repeat(MAX_BYTES)));
        assert!(matches!(Message::read(long.as_bytes()), Err(Unusable::TooLong)));
    }

    proptest! {
        #[test]
        fn no_input_makes_the_parser_panic(bytes in vec(any::<u8>(), 0..200)) {
            prop_assert!(Message::read(&bytes).is_err());
        }
    }
}
