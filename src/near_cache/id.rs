//! Ids of keys and entries. Two keys may share an id, so an entry also holds its key and request, which are compared.

use std::hash::{Hash, Hasher};

use xxhash_rust::xxh3::xxh3_128;

/// The hash of a key's bytes, as sent on the bus: XXH3-128, seed 0.
pub fn hash_key(key: &[u8]) -> u128 {
    xxh3_128(key)
}

/// Separates databases. Odd, so that a key has different ids in two databases.
const DATABASE: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;

/// The id of a key in a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeyId {
    low: u64,
    high: u64,
}

impl KeyId {
    /// From [`hash_key`].
    #[inline]
    pub fn from_hash(db: u32, hash: u128) -> Self {
        let id = hash.wrapping_add(u128::from(db).wrapping_mul(DATABASE));
        KeyId { low: id as u64, high: (id >> 64) as u64 }
    }

    /// The inverse: the [`hash_key`] of a key of this database.
    pub fn hash(self, db: u32) -> u128 {
        let id = u128::from(self.high) << 64 | u128::from(self.low);
        id.wrapping_sub(u128::from(db).wrapping_mul(DATABASE))
    }

    /// The id of a key.
    #[inline]
    pub fn new(db: u32, key: &[u8]) -> Self {
        KeyId::from_hash(db, hash_key(key))
    }

    /// The key's bit in a client's in-flight mask. A key whose bit is set is not served from L1, so that a read never overtakes an
    /// earlier request of the same client.
    #[inline]
    pub fn in_flight_bit(self) -> u64 {
        1 << (self.bits() >> 58)
    }

    /// 64 well-mixed bits.
    #[inline]
    pub fn bits(self) -> u64 {
        self.low
    }
}

/// The id of an entry: a key has one for each user and each request that reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryId {
    key: KeyId,
    variant: u64,
}

impl EntryId {
    /// `variant` distinguishes the entries of one key. 0 is the GET of a client that has not authenticated.
    #[inline]
    pub fn new(key: KeyId, variant: u64) -> Self {
        EntryId { key, variant }
    }

    /// The id of the entry's key.
    #[inline]
    pub fn key(self) -> KeyId {
        self.key
    }

    /// 64 well-mixed bits, different for each entry of the key.
    #[inline]
    pub fn bits(self) -> u64 {
        self.key.high.wrapping_add(self.variant)
    }
}

impl Hash for EntryId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.bits());
    }
}

/// Uses the id's own bits as its hash.
#[derive(Default)]
pub struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        // An id hashes by the method below alone. This one is correct too, only slower.
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }
    fn write_u64(&mut self, bits: u64) {
        self.0 = bits;
    }
}

#[cfg(test)]
mod tests {
    use super::{EntryId, Hash, Hasher, IdHasher, KeyId, hash_key};

    #[test]
    fn databases_have_different_ids() {
        assert_ne!(KeyId::new(0, b"k"), KeyId::new(1, b"k"));
        assert_ne!(KeyId::new(1, b"k"), KeyId::new(2, b"k"));
        assert_eq!(KeyId::new(7, b"k").hash(7), hash_key(b"k"));
    }

    #[test]
    fn an_entry_is_hashed_by_its_bits() {
        let id = EntryId::new(KeyId::new(3, b"k"), 0xfeed_face_cafe_beef);
        let mut hasher = IdHasher::default();
        id.hash(&mut hasher);
        assert_eq!(hasher.finish(), id.bits());
    }
}
