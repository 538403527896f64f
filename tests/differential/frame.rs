//! Parses a reply, RESP2 and RESP3, so that permitted differences between two servers can be distinguished from others.
//!
//! Only for replies that are not compared as raw bytes. Knows no commands.

/// One reply, or a part of one. The first field is the byte that it begins with.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Frame {
    /// A line: status, error, number, boolean, null.
    Line(u8, Vec<u8>),
    /// Bytes with a length; `None` is RESP2's null.
    Bulk(u8, Option<Vec<u8>>),
    /// Frames with a count; those of a map are keys and values in turn. `None` is RESP2's null array.
    Many(u8, Option<Vec<Frame>>),
}

impl Frame {
    /// The frame that all of `bytes` are; `None` when they are not one frame.
    pub fn of(bytes: &[u8]) -> Option<Frame> {
        let (frame, rest) = parse(bytes)?;
        rest.is_empty().then_some(frame)
    }

    /// The parts of an aggregate.
    pub fn parts(&mut self) -> Option<&mut Vec<Frame>> {
        match self {
            Frame::Many(_, parts) => parts.as_mut(),
            _ => None,
        }
    }

    /// The bytes of a bulk string or of a line.
    pub fn text(&self) -> Option<&[u8]> {
        match self {
            Frame::Line(_, text) | Frame::Bulk(_, Some(text)) => Some(text),
            _ => None,
        }
    }

    /// As it was on the wire.
    pub fn bytes(&self) -> Vec<u8> {
        let head = |kind: &u8, count: String| [&[*kind], count.as_bytes(), b"\r\n"].concat();
        match self {
            Frame::Line(kind, text) => [&[*kind], &text[..], b"\r\n"].concat(),
            Frame::Bulk(kind, None) | Frame::Many(kind, None) => head(kind, "-1".to_owned()),
            Frame::Bulk(kind, Some(text)) => {
                [head(kind, text.len().to_string()), text.clone(), b"\r\n".to_vec()].concat()
            }
            Frame::Many(kind, Some(parts)) => {
                let count = if *kind == b'%' { parts.len() / 2 } else { parts.len() };
                let parts = parts.iter().flat_map(Frame::bytes);
                head(kind, count.to_string()).into_iter().chain(parts).collect()
            }
        }
    }

    /// The number, if it is one of RESP's integers.
    pub fn integer(&self) -> Option<i64> {
        match self {
            Frame::Line(b':', text) => std::str::from_utf8(text).ok()?.parse().ok(),
            _ => None,
        }
    }

    /// Removes everything but its type and the shape of its parts.
    pub fn blank(&mut self) {
        match self {
            Frame::Line(_, text) | Frame::Bulk(_, Some(text)) => text.clear(),
            Frame::Many(_, Some(parts)) => parts.iter_mut().for_each(Frame::blank),
            Frame::Bulk(_, None) | Frame::Many(_, None) => {}
        }
    }

    /// Sorts its parts.
    pub fn sort(&mut self) {
        self.parts().into_iter().for_each(|parts| parts.sort());
    }

    /// Sorts pairs of parts: a map, or RESP2's form of one.
    pub fn sort_pairs(&mut self) {
        let Some(parts) = self.parts() else { return };
        let mut pairs: Vec<Vec<Frame>> = parts.chunks(2).map(<[Frame]>::to_vec).collect();
        pairs.sort();
        *parts = pairs.concat();
    }

    /// Sorts its parts, their parts, and so on.
    pub fn sort_deep(&mut self) {
        if let Some(parts) = self.parts() {
            parts.iter_mut().for_each(Frame::sort_deep);
            parts.sort();
        }
    }
}

fn parse(bytes: &[u8]) -> Option<(Frame, &[u8])> {
    let end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
    let (line, rest) = (&bytes[..end], &bytes[end + 2..]);
    let (kind, text) = (*line.first()?, &line[1..]);
    let count = || std::str::from_utf8(text).ok()?.parse::<i64>().ok();
    match kind {
        b'$' | b'=' | b'!' => match usize::try_from(count()?) {
            Ok(length) => {
                let value = rest.get(..length)?.to_vec();
                Some((Frame::Bulk(kind, Some(value)), rest[length..].strip_prefix(b"\r\n")?))
            }
            Err(_) => Some((Frame::Bulk(kind, None), rest)),
        },
        b'*' | b'~' | b'>' | b'%' | b'|' => {
            let Ok(count) = usize::try_from(count()?) else {
                return Some((Frame::Many(kind, None), rest));
            };
            // An attribute belongs to the reply that follows it.
            let count = match kind {
                b'%' => count * 2,
                b'|' => count * 2 + 1,
                _ => count,
            };
            let (mut parts, mut rest) = (Vec::new(), rest);
            for _ in 0..count {
                let (part, after) = parse(rest)?;
                parts.push(part);
                rest = after;
            }
            Some((Frame::Many(kind, Some(parts)), rest))
        }
        _ => Some((Frame::Line(kind, text.to_vec()), rest)),
    }
}
