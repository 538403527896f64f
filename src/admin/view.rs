//! What a subcommand of PROXY shows, as a tree: written as a RESP reply to clients and as JSON by the monitor, so that both say the same
//! under the same names.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};

use crate::resp::{Version, build};

/// A value to show.
#[derive(Clone, Debug, PartialEq)]
pub enum View {
    /// Not known, or there is none.
    Nil,
    /// Yes or no. In RESP2: 1 or 0.
    Bool(bool),
    /// A number.
    Int(i64),
    /// A number with a part behind the point; shown in millionths. In RESP2: a string. Must be finite.
    Float(f64),
    /// A text of Shortstop's own.
    Text(String),
    /// A key or another string of a client. In JSON: a string if it is UTF-8, else an object with `base64`.
    Bytes(Vec<u8>),
    /// Several values.
    List(Vec<View>),
    /// Values by their names, in this order. In RESP2: an array of names and values.
    Map(Vec<(&'static str, View)>),
    /// Values by names that are data themselves, in this order.
    Named(Vec<(String, View)>),
    /// Done. In RESP a status.
    Ok,
    /// As a map in JSON. In RESP an array of the values alone, as Redis answers SLOWLOG GET.
    Record(Vec<(&'static str, View)>),
}

impl View {
    /// A number; the largest there is for one that is too large.
    pub fn count(number: impl TryInto<i64>) -> View {
        View::Int(number.try_into().unwrap_or(i64::MAX))
    }

    /// A text.
    pub fn text(text: impl Into<String>) -> View {
        View::Text(text.into())
    }

    /// A value, or that there is none.
    pub fn maybe<T>(value: Option<T>, view: impl FnOnce(T) -> View) -> View {
        value.map_or(View::Nil, view)
    }

    /// Appends it as a RESP reply.
    pub fn write(&self, version: Version, out: &mut Vec<u8>) {
        let is_resp3 = version == Version::Resp3;
        match self {
            View::Nil if is_resp3 => out.extend_from_slice(b"_\r\n"),
            View::Nil => out.extend_from_slice(b"$-1\r\n"),
            View::Bool(yes) if is_resp3 => out.extend_from_slice(if *yes { b"#t\r\n" } else { b"#f\r\n" }),
            View::Bool(yes) => build::integer(out, i64::from(*yes)),
            View::Int(number) => build::integer(out, *number),
            View::Float(number) if is_resp3 => out.extend_from_slice(format!(",{}\r\n", rounded(*number)).as_bytes()),
            View::Float(number) => build::bulk(out, rounded(*number).to_string().as_bytes()),
            View::Text(text) => build::bulk(out, text.as_bytes()),
            View::Bytes(bytes) => build::bulk(out, bytes),
            View::List(list) => {
                build::header(out, b'*', list.len());
                list.iter().for_each(|view| view.write(version, out));
            }
            View::Record(fields) => {
                build::header(out, b'*', fields.len());
                fields.iter().for_each(|(_, view)| view.write(version, out));
            }
            View::Map(fields) => write_map(fields, version, out),
            View::Named(fields) => write_map(fields, version, out),
            View::Ok => build::status(out, "OK"),
        }
    }
}

impl Serialize for View {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            View::Nil => to.serialize_none(),
            View::Bool(yes) => to.serialize_bool(*yes),
            View::Int(number) => to.serialize_i64(*number),
            View::Float(number) => to.serialize_f64(rounded(*number)),
            View::Text(text) => to.serialize_str(text),
            View::Bytes(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => to.serialize_str(text),
                Err(_) => {
                    let mut map = to.serialize_map(Some(1))?;
                    map.serialize_entry("base64", &STANDARD.encode(bytes))?;
                    map.end()
                }
            },
            View::List(list) => {
                let mut seq = to.serialize_seq(Some(list.len()))?;
                list.iter().try_for_each(|view| seq.serialize_element(view))?;
                seq.end()
            }
            View::Map(fields) | View::Record(fields) => serialize_map(fields, to),
            View::Named(fields) => serialize_map(fields, to),
            View::Ok => to.serialize_str("OK"),
        }
    }
}

/// In millionths: more digits are noise, and hard to read.
fn rounded(number: f64) -> f64 {
    (number * 1e6).round() / 1e6
}

fn write_map<N: AsRef<str>>(fields: &[(N, View)], version: Version, out: &mut Vec<u8>) {
    match version {
        Version::Resp3 => build::header(out, b'%', fields.len()),
        Version::Resp2 => build::header(out, b'*', fields.len() * 2),
    }
    for (name, view) in fields {
        build::bulk(out, name.as_ref().as_bytes());
        view.write(version, out);
    }
}

fn serialize_map<N: Serialize, S: Serializer>(fields: &[(N, View)], to: S) -> Result<S::Ok, S::Error> {
    let mut map = to.serialize_map(Some(fields.len()))?;
    fields.iter().try_for_each(|(name, view)| map.serialize_entry(name, view))?;
    map.end()
}

#[cfg(test)]
mod tests {
    use super::View;
    use crate::resp::Version;

    fn frame(view: &View, version: Version) -> String {
        let mut out = Vec::new();
        view.write(version, &mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn a_reply_and_json_say_the_same() {
        let view = View::Map(vec![
            ("key", View::Bytes(b"a".to_vec())),
            ("raw", View::Bytes(b"\xff".to_vec())),
            ("share", View::Float(0.250_000_04)),
            ("is_kept", View::Bool(true)),
            ("age", View::Nil),
            ("places", View::List(vec![View::count(1_u64), View::count(u64::MAX)])),
        ]);
        assert_eq!(
            serde_json::to_string(&view).expect("it has names"),
            r#"{"key":"a","raw":{"base64":"/w=="},"share":0.25,"is_kept":true,"age":null,"places":[1,9223372036854775807]}"#
        );
        let resp2 = frame(&view, Version::Resp2);
        assert!(resp2.starts_with("*12\r\n$3\r\nkey\r\n$1\r\na\r\n"), "{resp2}");
        assert!(resp2.contains("$4\r\n0.25\r\n$7\r\nis_kept\r\n:1\r\n$3\r\nage\r\n$-1\r\n"), "{resp2}");
        let resp3 = frame(&view, Version::Resp3);
        assert!(resp3.starts_with("%6\r\n$3\r\nkey\r\n"), "{resp3}");
        assert!(resp3.contains(",0.25\r\n$7\r\nis_kept\r\n#t\r\n$3\r\nage\r\n_\r\n"), "{resp3}");
    }
}
