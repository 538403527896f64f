//! Which strings a command looks into. They must be plain when Redis runs it.

/// Strings of one database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Strings {
    /// The strings of these keys.
    Of(Vec<Vec<u8>>),
    /// The strings that a SORT reads: the key of the list, and the patterns of the strings' keys.
    Sorted(Vec<u8>, Vec<Vec<u8>>),
}

impl Strings {
    /// The keys that the command names.
    pub(crate) fn named(&self) -> &[Vec<u8>] {
        match self {
            Strings::Of(keys) => keys,
            Strings::Sorted(list, _) => std::slice::from_ref(list),
        }
    }
}
