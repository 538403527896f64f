//! Recognises values that Redis parses as numbers. They are never compressed, because commands read them inside Redis.

/// Whether Redis parses the value as a number where a command needs one (`INCRBYFLOAT`, `SORT BY`): everything that C's `strtod`
/// accepts, up to the first zero byte. Its length is not bounded. Words for NaN do not count, because Redis refuses them.
pub fn is_number(value: &[u8]) -> bool {
    let blanks = value.iter().take_while(|byte| matches!(byte, b' ' | b'\t'..=b'\r')).count();
    let text = without_sign(&value[blanks..]);
    let is_word = |word: &[u8]| {
        text.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word)) && ends(&text[word.len()..])
    };
    match text {
        [b'0', b'x' | b'X', hex @ ..] => is_positional(hex, u8::is_ascii_hexdigit, b'p'),
        [b'i' | b'I', ..] => is_word(b"inf") || is_word(b"infinity"),
        _ => is_positional(text, u8::is_ascii_digit, b'e'),
    }
}

/// Digits with at most one decimal point, and optionally an exponent.
fn is_positional(text: &[u8], is_digit: fn(&u8) -> bool, exponent: u8) -> bool {
    let (whole, rest) = digits(text, is_digit);
    let (fraction, rest) = match rest {
        [b'.', rest @ ..] => digits(rest, is_digit),
        _ => (0, rest),
    };
    let (in_exponent, rest) = match rest {
        [letter, rest @ ..] if letter.eq_ignore_ascii_case(&exponent) => digits(without_sign(rest), u8::is_ascii_digit),
        _ => (1, rest),
    };
    whole + fraction > 0 && in_exponent > 0 && ends(rest)
}

/// The number of leading digits, and the rest of the text.
fn digits(text: &[u8], is_digit: fn(&u8) -> bool) -> (usize, &[u8]) {
    let count = text.iter().take_while(|byte| is_digit(byte)).count();
    (count, &text[count..])
}

fn without_sign(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"-").or_else(|| text.strip_prefix(b"+")).unwrap_or(text)
}

/// Whether C sees the end of the text here.
fn ends(rest: &[u8]) -> bool {
    matches!(rest, [] | [0, ..])
}
