//! Reads from the reply to `FUNCTION LIST` which functions cannot write. An entry that is not understood is left out, and counts as
//! a function that may write.

use std::collections::HashSet;

use redis_protocol::resp2::types::BytesFrame;

use super::control::{bytes, items};

/// The functions with the flag `no-writes`.
pub(super) fn without_writes(list: &BytesFrame) -> HashSet<Box<[u8]>> {
    let mut names = HashSet::new();
    for library in items(list) {
        for function in field(library, b"functions").map(items).unwrap_or_default() {
            let flags = field(function, b"flags").map(items).unwrap_or_default();
            let cannot_write = flags.iter().any(|flag| bytes(flag) == Some(b"no-writes"));
            let name = field(function, b"name").and_then(bytes).filter(|_| cannot_write);
            names.extend(name.map(Box::from));
        }
    }
    names
}

/// A field of a map. In RESP2 a map is a list of names and values.
fn field<'a>(frame: &'a BytesFrame, name: &[u8]) -> Option<&'a BytesFrame> {
    items(frame).chunks_exact(2).find(|pair| bytes(&pair[0]) == Some(name)).map(|pair| &pair[1])
}

#[cfg(test)]
mod tests {
    use redis_protocol::resp2::types::BytesFrame;

    use super::without_writes;

    fn list(items: &[BytesFrame]) -> BytesFrame {
        BytesFrame::Array(items.to_vec())
    }

    fn text(text: &str) -> BytesFrame {
        BytesFrame::BulkString(text.to_owned().into())
    }

    #[test]
    fn only_functions_with_the_flag_are_named() {
        let function = |name: &str, flags: &[&str]| {
            let flags: Vec<BytesFrame> = flags.iter().map(|flag| text(flag)).collect();
            list(&[text("name"), text(name), text("description"), BytesFrame::Null, text("flags"), list(&flags)])
        };
        let library = |functions: &[BytesFrame]| {
            list(&[text("library_name"), text("l"), text("engine"), text("LUA"), text("functions"), list(functions)])
        };
        let all = list(&[
            library(&[function("a", &["no-writes"]), function("b", &[])]),
            library(&[function("c", &["allow-oom", "no-writes"]), function("d", &["allow-stale"])]),
        ]);
        let mut names: Vec<_> = without_writes(&all).into_iter().map(Vec::from).collect();
        names.sort();
        assert_eq!(names, [b"a", b"c"]);
        for odd in
            [BytesFrame::Null, text("x"), list(&[text("functions")]), list(&[list(&[text("functions"), text("x")])])]
        {
            assert!(without_writes(&odd).is_empty());
        }
    }
}
