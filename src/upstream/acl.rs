//! Reads from Redis's list of users (ACL LIST) what Shortstop may send as a user beside the user's own commands, or in their place:
//! PTTL beside reads, and GET in the place of a command that reads a part of a string.
//!
//! Errs on the safe side: if a user has several sets of rules (selectors), each set that allows any command must allow PTTL, and GET
//! takes no command's place.

/// The categories of PTTL, in all versions.
const CATEGORIES: [&[u8]; 4] = [b"@all", b"@read", b"@keyspace", b"@fast"];

/// The commands that GET may replace, GET, and the categories that they are in.
const LOOKS: [&[u8]; 14] = [
    b"get",
    b"strlen",
    b"getrange",
    b"substr",
    b"getbit",
    b"bitcount",
    b"bitpos",
    b"bitfield_ro",
    b"@all",
    b"@read",
    b"@string",
    b"@bitmap",
    b"@fast",
    b"@slow",
];

/// The commands that run scripts, GETRANGE, which a prelude needs, and the categories that they are in.
const SCRIPTS: [&[u8]; 11] = [
    b"eval",
    b"evalsha",
    b"eval_ro",
    b"evalsha_ro",
    b"getrange",
    b"@all",
    b"@scripting",
    b"@read",
    b"@write",
    b"@string",
    b"@slow",
];

/// What Shortstop may send as a user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UserRights {
    /// PTTL, beside reads.
    pub ttl: bool,
    /// GET in the place of a command that reads a part of a string: the user has either both rights, for the same keys, or neither.
    pub looks: bool,
    /// A script in the place of another, by its text or its SHA-1.
    pub scripts: bool,
}

impl UserRights {
    /// The rights of a user with these rules.
    pub(super) fn of(rules: &[u8]) -> Self {
        UserRights {
            ttl: may_ttl(rules),
            looks: has_all(rules, &LOOKS, &[b"+@read"]),
            scripts: has_all(rules, &SCRIPTS, &[]),
        }
    }
}

/// The name and the rules in a line of ACL LIST.
pub(super) fn user(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = line.strip_prefix(b"user ")?;
    let end = memchr::memchr(b' ', rest).unwrap_or(rest.len());
    Some((&rest[..end], &rest[end..]))
}

/// Whether a user with these rules may use PTTL wherever it may read.
fn may_ttl(rules: &[u8]) -> bool {
    let mut root = Commands::default();
    let mut selector = None;
    for word in rules.split(|byte| *byte == b' ').filter(|word| !word.is_empty()) {
        let begins = word.strip_prefix(b"(");
        if begins.is_some() {
            selector = Some(Commands::default());
        }
        let word = begins.unwrap_or(word);
        let ends = word.strip_suffix(b")").filter(|_| selector.is_some());
        selector.as_mut().unwrap_or(&mut root).apply(ends.unwrap_or(word));
        if ends.is_some() && selector.take().is_some_and(|selector| !selector.is_fine()) {
            return false;
        }
    }
    root.is_fine()
}

/// Whether a user with these rules may use all of these commands, on the same keys. `commands` includes their categories. `categories`
/// are those that allow all of them.
fn has_all(rules: &[u8], commands: &[&[u8]], categories: &[&[u8]]) -> bool {
    let mut may = false;
    for word in rules.split(|byte| *byte == b' ').filter(|word| !word.is_empty()) {
        match word.to_ascii_lowercase().as_slice() {
            // Selectors, and keys that may only be read or only be written.
            [b'(' | b'%', ..] => return false,
            b"allcommands" | b"+@all" => may = true,
            b"nocommands" => may = false,
            word if categories.contains(&word) => may = true,
            [b'-', name @ ..] if commands.contains(&name) => may = false,
            _ => {}
        }
    }
    may
}

/// What one set of rules allows, as far as needed here.
#[derive(Default)]
struct Commands {
    /// Any command is allowed.
    anything: bool,
    pttl: bool,
}

impl Commands {
    fn apply(&mut self, word: &[u8]) {
        match word {
            b"allcommands" => (self.anything, self.pttl) = (true, true),
            b"nocommands" => (self.anything, self.pttl) = (false, false),
            [sign @ (b'+' | b'-'), name @ ..] => {
                let adds = *sign == b'+';
                let name = name.to_ascii_lowercase();
                if name == b"pttl" || CATEGORIES.contains(&&name[..]) {
                    self.pttl = adds;
                }
                if adds {
                    self.anything = true;
                } else if name == b"@all" {
                    self.anything = false;
                }
            }
            _ => {}
        }
    }

    fn is_fine(&self) -> bool {
        self.pttl || !self.anything
    }
}

#[cfg(test)]
mod tests {
    use super::{LOOKS, SCRIPTS, has_all, may_ttl, user};

    #[test]
    fn a_line_has_a_name_and_rules() {
        assert_eq!(user(b"user alice on nopass"), Some((&b"alice"[..], &b" on nopass"[..])));
        assert_eq!(user(b"user alice"), Some((&b"alice"[..], &b""[..])));
        assert_eq!(user(b"nonsense"), None);
    }

    #[test]
    fn users_for_whom_get_may_take_the_place_of_a_look_are_found() {
        for (rules, may) in [
            ("on nopass sanitize-payload ~* &* +@all", true),
            ("on #0ab ~app:* resetchannels -@all +@read", true),
            ("on #0ab ~app:* +@all -@dangerous -flushall", true),
            ("on #0ab ~app:* resetchannels -@all +get +strlen", false),
            ("on #0ab ~* +@all -get", false),
            ("on #0ab ~* +@all -STRLEN", false),
            ("on #0ab ~* -@all +@read -@bitmap", false),
            ("on #0ab %R~* +@all", false),
            ("on #0ab ~* +@all (~b:* -@all +get)", false),
            ("off resetchannels -@all", false),
        ] {
            assert_eq!(has_all(rules.as_bytes(), &LOOKS, &[b"+@read"]), may, "{rules}");
        }
    }

    #[test]
    fn users_who_may_run_scripts_of_any_kind_are_found() {
        for (rules, may) in [
            ("on nopass sanitize-payload ~* &* +@all", true),
            ("on #0ab ~app:* resetchannels -@all +@read +@write", false),
            ("on #0ab ~app:* +@all -@dangerous -flushall", true),
            ("on #0ab ~* +@all -eval", false),
            ("on #0ab ~* +@all -getrange", false),
            ("on #0ab ~* -@all +eval +evalsha", false),
            ("on #0ab %W~* +@all", false),
        ] {
            assert_eq!(has_all(rules.as_bytes(), &SCRIPTS, &[]), may, "{rules}");
        }
    }

    #[test]
    fn users_that_may_use_pttl_are_found() {
        for (rules, may) in [
            ("on nopass sanitize-payload ~* &* +@all", true),
            ("on #0ab ~app:* resetchannels -@all +get", false),
            ("on #0ab ~app:* resetchannels -@all +@read", true),
            ("on #0ab ~app:* resetchannels -@all +@read +@write", true),
            ("on #0ab ~* -@all +@read -pttl", false),
            ("on #0ab ~* -@all +@read -@fast", false),
            ("on #0ab ~* -@all +get +pttl", true),
            ("on #0ab ~* +@all -@keyspace", false),
            ("on #0ab ~* +@all -@dangerous", true),
            ("on #0ab ~* -@all", true),
            ("off resetchannels -@all", true),
            // Two sets of rules: one allows reading a key, so the other must allow its PTTL.
            ("on #0ab ~a:* -@all +get (~b:* resetchannels -@all +pttl)", false),
            ("on #0ab ~a:* -@all +@read (~b:* resetchannels -@all +get)", false),
            ("on #0ab -@all (~b:* resetchannels -@all +get +pttl)", true),
        ] {
            assert_eq!(may_ttl(rules.as_bytes()), may, "{rules}");
        }
    }
}
