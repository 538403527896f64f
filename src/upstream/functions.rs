//! Reads from the reply to `FUNCTION LIST` which functions cannot write. What is not understood is left out: it counts as writing.

use std::collections::HashSet;

use fred::types::Value;

/// The functions with the flag `no-writes`.
pub(super) fn without_writes(list: Value) -> HashSet<Box<[u8]>> {
    let mut names = HashSet::new();
    for library in items(list) {
        for function in field(library, "functions").map(items).unwrap_or_default() {
            let flags = field(function.clone(), "flags").map(items).unwrap_or_default();
            let cannot_write = flags.iter().any(|flag| flag.as_str().is_some_and(|flag| flag == "no-writes"));
            let name = field(function, "name").and_then(Value::into_bytes).filter(|_| cannot_write);
            names.extend(name.map(|name| name.as_ref().into()));
        }
    }
    names
}

fn items(value: Value) -> Vec<Value> {
    match value {
        Value::Array(items) => items,
        _ => Vec::new(),
    }
}

/// A field of what is a map, in RESP2 a list of names and values.
fn field(value: Value, name: &str) -> Option<Value> {
    let mut items = items(value).into_iter();
    while let (Some(key), Some(value)) = (items.next(), items.next()) {
        if key.as_str().is_some_and(|key| key == name) {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use fred::types::Value;

    use super::without_writes;

    fn list(items: &[Value]) -> Value {
        Value::Array(items.to_vec())
    }

    fn text(text: &str) -> Value {
        Value::from(text)
    }

    #[test]
    fn only_functions_with_the_flag_are_named() {
        let function = |name: &str, flags: &[&str]| {
            let flags: Vec<Value> = flags.iter().map(|flag| text(flag)).collect();
            list(&[text("name"), text(name), text("description"), Value::Null, text("flags"), list(&flags)])
        };
        let library = |functions: &[Value]| {
            list(&[text("library_name"), text("l"), text("engine"), text("LUA"), text("functions"), list(functions)])
        };
        let all = list(&[
            library(&[function("a", &["no-writes"]), function("b", &[])]),
            library(&[function("c", &["allow-oom", "no-writes"]), function("d", &["allow-stale"])]),
        ]);
        let mut names: Vec<_> = without_writes(all).into_iter().map(Vec::from).collect();
        names.sort();
        assert_eq!(names, [b"a", b"c"]);
        for odd in [Value::Null, text("x"), list(&[text("functions")]), list(&[list(&[text("functions"), text("x")])])]
        {
            assert!(without_writes(odd).is_empty());
        }
    }
}
