//! The beginning of a request. Consecutive requests often begin with the same bytes, which then need not be scanned again.

/// Size of a prefix: enough for the argument count and a short command's name.
const MOST: usize = 16;

/// Up to 16 bytes, compared in one step.
#[derive(Clone, Copy, Debug, Default)]
pub struct Prefix {
    bytes: u128,
    mask: u128,
}

impl Prefix {
    /// Empty text, or text that is too long, gives a prefix that never matches.
    pub fn of(bytes: &[u8]) -> Prefix {
        let mut prefix = [0; MOST];
        let Some(begin) = prefix.get_mut(..bytes.len()).filter(|begin| !begin.is_empty()) else {
            return Prefix::default();
        };
        begin.copy_from_slice(bytes);
        Prefix { bytes: u128::from_le_bytes(prefix), mask: u128::MAX >> (8 * (MOST - bytes.len())) }
    }

    /// Whether `buffer` begins with the prefix. May be false for a buffer of less than 16 bytes that does.
    #[inline]
    pub fn begins(&self, buffer: &[u8]) -> bool {
        let Some(begin) = buffer.first_chunk::<MOST>() else { return false };
        self.mask != 0 && u128::from_le_bytes(*begin) & self.mask == self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::Prefix;

    #[test]
    fn prefixes_are_recognized() {
        let prefix = Prefix::of(b"*2\r\n$3\r\nGET\r\n");
        assert!(prefix.begins(b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n"));
        assert!(!prefix.begins(b"*2\r\n$3\r\nget\r\n$1\r\nk\r\n"));
        assert!(!prefix.begins(b"*3\r\n$3\r\nGET\r\n$1\r\nk\r\n"));
        assert!(!prefix.begins(b"*2\r\n$3\r\nGET\r\n"));
        let whole = Prefix::of(b"0123456789abcdef");
        assert!(whole.begins(b"0123456789abcdefg") && !whole.begins(b"0123456789abcdeg"));
    }

    #[test]
    fn nothing_begins_with_an_empty_or_too_long_prefix() {
        for bytes in [&b""[..], b"0123456789abcdefg"] {
            assert!(!Prefix::of(bytes).begins(b"0123456789abcdefghi"));
        }
    }
}
