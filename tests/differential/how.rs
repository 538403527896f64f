//! In what way two replies must be equal if not byte for byte.

use super::frame::Frame;

/// What may differ. An error is never equal to anything but itself.
#[derive(Clone, Copy)]
pub enum How {
    /// Nothing.
    Same,
    /// The order of the parts.
    AnyOrder,
    /// The order of the pairs: names and values in turn.
    AnyOrderOfPairs,
    /// The order of the parts, of their parts, and so on.
    AnyOrderDeep,
    /// A positive number, by at most this much.
    Near(i64),
    /// All texts and numbers: only types and counts are compared.
    Shape,
    /// Everything but the type.
    Type,
    /// Everything that this function makes equal.
    After(fn(&mut Frame)),
}

impl How {
    /// Whether the two replies are equal.
    pub fn holds(self, one: &[u8], other: &[u8]) -> bool {
        if one == other {
            return true;
        }
        if matches!(self, How::Same) || one.starts_with(b"-") || other.starts_with(b"-") {
            return false;
        }
        match (Frame::of(one), Frame::of(other)) {
            (Some(one), Some(other)) => self.holds_for(one, other),
            _ => false,
        }
    }

    /// Whether the two frames are equal.
    pub fn holds_for(self, mut one: Frame, mut other: Frame) -> bool {
        let errors = [&one, &other].iter().any(|frame| matches!(frame, Frame::Line(b'-', _)));
        let change: fn(&mut Frame) = match self {
            _ if errors => |_| {},
            How::Same => |_| {},
            How::AnyOrder => Frame::sort,
            How::AnyOrderOfPairs => Frame::sort_pairs,
            How::AnyOrderDeep => Frame::sort_deep,
            How::Shape => Frame::blank,
            How::After(change) => change,
            How::Type => match (&one, &other) {
                (Frame::Line(one, _), Frame::Line(other, _))
                | (Frame::Bulk(one, _), Frame::Bulk(other, _))
                | (Frame::Many(one, _), Frame::Many(other, _)) => return one == other,
                _ => return false,
            },
            How::Near(by) => match (one.integer(), other.integer()) {
                (Some(one @ 1..), Some(other @ 1..)) => return one.abs_diff(other) <= by.unsigned_abs(),
                _ => |_| {},
            },
        };
        change(&mut one);
        change(&mut other);
        one == other
    }
}
