//! What a script may write, as the other files of this module say it.

/// What a script may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// No key.
    Nothing,
    /// The keys that it declares, and no other.
    Declared,
    /// Any key. The reason, for the log.
    Anything(&'static str),
}
