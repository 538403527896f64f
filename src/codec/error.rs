//! Why an envelope could not be decompressed.

/// Why an envelope could not be decompressed. The texts contain numbers only, never a byte of the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The value begins neither with a mark nor with a damaged mark.
    #[error("the value is not an envelope")]
    NotCompressed,
    /// Shorter than the shortest envelope.
    #[error("the envelope is truncated: only {len} bytes are left")]
    Truncated {
        /// Its size in bytes.
        len: usize,
    },
    /// Compressed by a newer Shortstop whose envelopes are unknown here.
    #[error("the envelope has version {0}, which this Shortstop does not support")]
    UnknownVersion(u8),
    /// Compressed with a dictionary that is not known here.
    #[error("the envelope needs dictionary {0}, which this Shortstop does not have")]
    UnknownDictionary(u32),
    /// Its value is longer than allowed.
    #[error("the envelope contains {declared} bytes; at most {max} are allowed")]
    TooLarge {
        /// The size that the envelope declares.
        declared: usize,
        /// The size that is allowed.
        max: usize,
    },
    /// The allocator has no memory for the value.
    #[error("no memory for the {declared} bytes in the envelope")]
    NoMemory {
        /// The size that the envelope declares.
        declared: usize,
    },
    /// A byte of it has changed since compression.
    #[error("the envelope is damaged: {0}")]
    Damaged(&'static str),
}
