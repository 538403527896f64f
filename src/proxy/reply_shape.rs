//! The shape of a command's reply, and the options of SORT, which determine that shape.

use crate::command::{StringOp, Verb};
use crate::exchange::reply_shape::ReplyShape;
use crate::proxy::bitfield;
use crate::resp::Version;

impl ReplyShape {
    /// The shape of a call's reply.
    pub(super) fn of(verb: Verb, args: &[&[u8]], version: Version) -> ReplyShape {
        let has = |word: &[u8]| args.iter().skip(3).any(|arg| arg.eq_ignore_ascii_case(word));
        match verb {
            Verb::Get | Verb::MGet | Verb::GetSet | Verb::GetDel | Verb::GetEx => ReplyShape::Values,
            Verb::Set if has(b"get") => ReplyShape::Values,
            Verb::Sort | Verb::SortRo => ReplyShape::sorted(args),
            Verb::StringOp(StringOp::Lcs) if version == Version::Resp3 && has(b"idx") => ReplyShape::Map,
            Verb::StringOp(op) if bitfield::is_wide(op, args) => ReplyShape::Halves,
            Verb::PubSubChannels => ReplyShape::Channels,
            _ => ReplyShape::Nothing,
        }
    }

    /// `SORT key [BY pattern] [LIMIT offset count] [GET pattern …] …`. The reply has one element per GET and row. Without GET it
    /// has the elements of the list itself, which are not compressed.
    fn sorted(args: &[&[u8]]) -> ReplyShape {
        let columns: Vec<bool> =
            sort_options(args).filter(SortOption::gets).map(|option| option.gets_a_string()).collect();
        if columns.contains(&true) { ReplyShape::Columns(columns.into()) } else { ReplyShape::Nothing }
    }
}

/// An option of SORT with its arguments.
pub(super) struct SortOption<'a, 'b> {
    pub(super) words: &'b [&'a [u8]],
}

impl SortOption<'_, '_> {
    fn is(&self, name: &[u8]) -> bool {
        self.words[0].eq_ignore_ascii_case(name)
    }

    pub(super) fn gets(&self) -> bool {
        self.is(b"get") && self.words.len() > 1
    }

    pub(super) fn gets_a_string(&self) -> bool {
        self.gets() && names_a_string(self.words[1])
    }

    pub(super) fn is_by_a_string(&self) -> bool {
        self.is(b"by") && self.words.len() > 1 && names_a_string(self.words[1])
    }

    pub(super) fn is_alpha(&self) -> bool {
        self.is(b"alpha")
    }

    pub(super) fn stores(&self) -> bool {
        self.is(b"store") && self.words.len() > 1
    }
}

/// The options of `SORT key [BY pattern] [LIMIT offset count] [GET pattern …] [ASC|DESC] [ALPHA] [STORE key]`.
pub(super) fn sort_options<'a, 'b>(args: &'b [&'a [u8]]) -> impl Iterator<Item = SortOption<'a, 'b>> {
    let mut rest = args.get(2..).unwrap_or_default();
    std::iter::from_fn(move || {
        let word = rest.first()?;
        let is = |name: &[u8]| word.eq_ignore_ascii_case(name);
        let takes = if is(b"limit") { 2 } else { usize::from(is(b"by") || is(b"get") || is(b"store")) };
        let (words, after) = rest.split_at(rest.len().min(takes + 1));
        rest = after;
        Some(SortOption { words })
    })
}

/// Whether a pattern of SORT names string keys, rather than the element itself (`#`) or fields of hashes (`key*->field`).
fn names_a_string(pattern: &[u8]) -> bool {
    let Some(star) = memchr::memchr(b'*', pattern) else { return false };
    let field = memchr::memmem::find(&pattern[star + 1..], b"->").map(|at| star + 1 + at + 2);
    field.is_none_or(|field| field == pattern.len())
}

#[cfg(test)]
mod tests {
    use super::{ReplyShape, Verb, Version};

    fn sort(line: &str) -> ReplyShape {
        let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        ReplyShape::of(Verb::Sort, &args, Version::Resp2)
    }

    #[test]
    fn in_a_reply_of_sort_only_strings_named_by_get_are_values() {
        let columns = |columns: &[bool]| ReplyShape::Columns(columns.into());
        assert_eq!(sort("SORT l"), ReplyShape::Nothing);
        assert_eq!(sort("SORT l GET # GET h*->f"), ReplyShape::Nothing);
        assert_eq!(
            sort("SORT l BY get LIMIT get 1 get w* ASC Get # GET h*->f GET w*->"),
            columns(&[true, false, false, true])
        );
        assert_eq!(sort("SORT l GET"), ReplyShape::Nothing);
    }
}
