//! Finds a name, in any case, among a few hundred fixed ones. Every request does this, so it does not allocate, and compares
//! machine words instead of bytes.

/// The positions of names in the order in which they were given. If two are equal, the first.
#[derive(Debug, Clone)]
pub(super) struct Index {
    /// Open addressing with linear probing. The size is a power of two, at most a quarter full.
    slots: Box<[Slot]>,
    /// Lower-case names too long for a slot, with their positions.
    long: Vec<(Box<[u8]>, u32)>,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    key: Key,
    position: u32,
}

/// A lower-case name of up to [`LONGEST`] bytes: its first and last eight bytes, which may overlap, and its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Key {
    first: u64,
    last: u64,
    /// 0: a free slot.
    length: u32,
}

/// In bytes. Of Redis's own commands only GEORADIUSBYMEMBER and its _RO form are longer.
const LONGEST: usize = 16;

const FREE: Slot = Slot { key: Key { first: 0, last: 0, length: 0 }, position: 0 };

impl Index {
    /// An index of these names. An empty name is never found.
    pub(super) fn of<'a>(names: impl ExactSizeIterator<Item = &'a [u8]>) -> Index {
        let mut index = Index {
            slots: vec![FREE; (names.len().max(1) * 4).next_power_of_two()].into_boxed_slice(),
            long: Vec::new(),
        };
        for (position, name) in (0_u32..).zip(names) {
            if index.find(name).is_some() || name.is_empty() {
                continue;
            }
            let Some(key) = Key::of(name) else {
                index.long.push((name.to_ascii_lowercase().into(), position));
                continue;
            };
            let mut at = index.start(key);
            while index.slots[at].key.length != 0 {
                at = (at + 1) & (index.slots.len() - 1);
            }
            index.slots[at] = Slot { key, position };
        }
        index
    }

    /// The position of a name.
    #[inline]
    pub(super) fn find(&self, name: &[u8]) -> Option<usize> {
        let Some(key) = Key::of(name) else {
            let found = self.long.iter().find(|(long, _)| long.eq_ignore_ascii_case(name));
            return found.map(|(_, position)| *position as usize);
        };
        let mut at = self.start(key);
        loop {
            // Three of four slots are free, so a free one is found soon.
            let slot = &self.slots[at];
            if slot.key == key {
                // An empty name equals a free slot.
                return (key.length != 0).then_some(slot.position as usize);
            }
            if slot.key.length == 0 {
                return None;
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
    }

    /// FxHash's multiplier. The upper half of the product is well mixed.
    #[inline]
    fn start(&self, key: Key) -> usize {
        let mixed = (key.first ^ key.last.rotate_left(27) ^ u64::from(key.length)).wrapping_mul(0x517c_c1b7_2722_0a95);
        (mixed >> 40) as usize & (self.slots.len() - 1)
    }
}

impl Key {
    /// `None` when the name is longer than [`LONGEST`].
    #[inline]
    fn of(name: &[u8]) -> Option<Key> {
        let (first, last) = match name.len() {
            0 => (0, 0),
            1..4 => {
                let ends = [name[0], name[name.len() / 2], name[name.len() - 1], 0];
                (u64::from(u32::from_le_bytes(ends)), 0)
            }
            4..8 => (
                u64::from(u32::from_le_bytes(*name.first_chunk()?)),
                u64::from(u32::from_le_bytes(*name.last_chunk()?)),
            ),
            8..=LONGEST => (u64::from_le_bytes(*name.first_chunk()?), u64::from_le_bytes(*name.last_chunk()?)),
            _ => return None,
        };
        // At most LONGEST.
        Some(Key { first: lower(first), last: lower(last), length: name.len() as u32 })
    }
}

/// Converts eight bytes to ASCII lower case at once.
#[inline]
fn lower(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const TOP: u64 = 0x80 * ONES;
    // No byte carries into the next: seven bits and at most 0x3f are added.
    let seven_bits = word & !TOP;
    let from_a = seven_bits + (0x80 - b'A' as u64) * ONES;
    let above_z = seven_bits + (0x7f - b'Z' as u64) * ONES;
    let upper = (from_a ^ above_z) & !word & TOP;
    // 0x80 >> 2 is the bit in which the cases differ.
    word | upper >> 2
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert_eq, proptest};

    use super::{Index, Key, lower};

    proptest! {
        #[test]
        fn lower_is_the_bytewise_lower_case(word in any::<[u8; 8]>()) {
            prop_assert_eq!(lower(u64::from_le_bytes(word)).to_le_bytes().to_vec(), word.to_ascii_lowercase());
        }

        #[test]
        fn equal_keys_are_equal_names(a in "[aA@`\\[{_1-]{0,17}", b in "[aA@`\\[{_1-]{0,17}") {
            for (a, b) in [(a.as_bytes(), b.as_bytes()), (a.as_bytes(), a.to_ascii_uppercase().as_bytes())] {
                if let (Some(first), Some(second)) = (Key::of(a), Key::of(b)) {
                    prop_assert_eq!(first == second, a.eq_ignore_ascii_case(b));
                }
            }
        }

        #[test]
        fn finds_what_a_linear_search_finds(names in proptest::collection::vec("[abAB]{0,18}", 0..40), wanted in "[abAB]{0,18}") {
            let index = Index::of(names.iter().map(String::as_bytes));
            let searched = names.iter().position(|name| !wanted.is_empty() && name.eq_ignore_ascii_case(&wanted));
            prop_assert_eq!(index.find(wanted.as_bytes()), searched);
        }
    }
}
