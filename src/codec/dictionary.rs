//! Dictionaries for zstd: what many small values have in common, so that none of them has to contain it.

use std::fmt;

use zstd_safe::{CDict, DDict, get_dict_id_from_dict};

use super::format::Codec;

/// A dictionary, ready to compress at one level and to decompress. It takes several times the memory of its bytes.
pub struct Dictionary {
    id: u32,
    bytes: Box<[u8]>,
    compressing: CDict<'static>,
    decompressing: DDict<'static>,
}

impl Dictionary {
    /// From the [`bytes`](Self::bytes) of another one, or as `zstd --train` writes them. `None` if they are no dictionary with an
    /// identifier, or there is no memory. The bytes may come from anywhere.
    pub fn new(bytes: &[u8], level: u32) -> Option<Self> {
        Some(Self {
            id: get_dict_id_from_dict(bytes)?.get(),
            bytes: bytes.into(),
            compressing: CDict::try_create(bytes, Codec::Zstd.nearest(level) as i32)?,
            decompressing: DDict::try_create(bytes)?,
        })
    }

    /// The identifier, which each value that is compressed with it contains. It is made of the samples, so two dictionaries have the
    /// same one only by accident.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The dictionary as the `zstd` program takes it (`-D`).
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn compressing(&self) -> &CDict<'static> {
        &self.compressing
    }

    pub(super) fn decompressing(&self) -> &DDict<'static> {
        &self.decompressing
    }
}

impl fmt::Debug for Dictionary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dictionary").field("id", &self.id).field("bytes", &self.bytes.len()).finish_non_exhaustive()
    }
}
