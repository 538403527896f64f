//! Inline requests, as typed over telnet: words separated by blanks, quoted as in C
//! (<https://redis.io/docs/latest/develop/reference/protocol-spec/#inline-commands>).

/// The words of a line, without its line end. `None` if quotes are unbalanced, or a closing quote is not followed by a blank.
pub(super) fn split(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    // Redis works on a C string here, so a NUL ends it.
    let line = line.split(|&byte| byte == 0).next().unwrap_or_default();
    let mut words = Vec::new();
    let mut at = 0;
    loop {
        while line.get(at).is_some_and(is_space) {
            at += 1;
        }
        if at == line.len() {
            return Some(words);
        }
        let mut word = Vec::new();
        loop {
            match line.get(at) {
                None => break,
                Some(b' ' | b'\n' | b'\r' | b'\t') => break,
                Some(b'"') => {
                    at = double_quoted(line, at + 1, &mut word)?;
                    break;
                }
                Some(b'\'') => {
                    at = single_quoted(line, at + 1, &mut word)?;
                    break;
                }
                Some(&byte) => {
                    word.push(byte);
                    at += 1;
                }
            }
        }
        words.push(word);
    }
}

/// The blanks of C's `isspace`.
fn is_space(byte: &u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

fn double_quoted(line: &[u8], mut at: usize, word: &mut Vec<u8>) -> Option<usize> {
    loop {
        match &line[at..] {
            [b'\\', b'x', high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                let digit = |byte: u8| char::from(byte).to_digit(16).unwrap_or_default() as u8;
                word.push(digit(*high) << 4 | digit(*low));
                at += 4;
            }
            [b'\\', escaped, ..] => {
                word.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'a' => 7,
                    other => *other,
                });
                at += 2;
            }
            [b'"', rest @ ..] => return ends_word(rest).then_some(at + 1),
            [byte, ..] => {
                word.push(*byte);
                at += 1;
            }
            [] => return None,
        }
    }
}

fn single_quoted(line: &[u8], mut at: usize, word: &mut Vec<u8>) -> Option<usize> {
    loop {
        match &line[at..] {
            [b'\\', b'\'', ..] => {
                word.push(b'\'');
                at += 2;
            }
            [b'\'', rest @ ..] => return ends_word(rest).then_some(at + 1),
            [byte, ..] => {
                word.push(*byte);
                at += 1;
            }
            [] => return None,
        }
    }
}

fn ends_word(rest: &[u8]) -> bool {
    rest.first().is_none_or(is_space)
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn words() {
        type Case = (&'static [u8], Option<&'static [&'static [u8]]>);
        let cases: &[Case] = &[
            (b"", Some(&[])),
            (b"  \t ", Some(&[])),
            (b"PING", Some(&[b"PING"])),
            (b"  SET  a \t b ", Some(&[b"SET", b"a", b"b"])),
            (b"SET a \"b c\"", Some(&[b"SET", b"a", b"b c"])),
            (b"SET a 'b \\' c\\n'", Some(&[b"SET", b"a", b"b ' c\\n"])),
            (b"\"\\x00\\xff\\n\\r\\t\\b\\a\\q\\\"\"", Some(&[b"\x00\xff\n\r\t\x08\x07q\""])),
            (b"ab\"cd\" e", Some(&[b"abcd", b"e"])),
            (b"\"\" ''", Some(&[b"", b""])),
            (b"\"abc", None),
            (b"'abc", None),
            (b"\"abc\\\"", None),
            (b"\"a\"b", None),
            (b"'a'b", None),
            (b"PING\0 x", Some(&[b"PING"])),
        ];
        for (line, words) in cases {
            let expected = words.map(|words| words.iter().map(|word| word.to_vec()).collect::<Vec<_>>());
            assert_eq!(split(line), expected, "{:?}", String::from_utf8_lossy(line));
        }
    }
}
