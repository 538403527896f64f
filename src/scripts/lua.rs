//! A lexer for Lua 5.1, as far as `proof` needs it.
//!
//! Ends each token exactly where Lua's own lexer ends it (<https://www.lua.org/manual/5.1/manual.html#2.1>). `proof` reads what a
//! script does from the order of its tokens, so a string that ended elsewhere would hide code. A text that Lua refuses may pass
//! here, because Redis does not run it. Anything that is not understood is an error. Bytes in, tokens out; no I/O.

/// A token. Names and strings borrow from the script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// An identifier.
    Name(&'a [u8]),
    /// A reserved word.
    Word(Word),
    /// A quoted string without a backslash: its value is exactly the text between the quotes.
    Plain(&'a [u8]),
    /// Any other string.
    Text,
    /// A number.
    Number,
    /// An operator or separator, such as `{`, `==` or `..`.
    Sign(&'static str),
    /// The end of the text.
    End,
}

/// The reserved words of Lua 5.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    And,
    Break,
    Do,
    Else,
    ElseIf,
    End,
    False,
    For,
    Function,
    If,
    In,
    Local,
    Nil,
    Not,
    Or,
    Repeat,
    Return,
    Then,
    True,
    Until,
    While,
}

const WORDS: [(&[u8], Word); 21] = [
    (b"and", Word::And),
    (b"break", Word::Break),
    (b"do", Word::Do),
    (b"else", Word::Else),
    (b"elseif", Word::ElseIf),
    (b"end", Word::End),
    (b"false", Word::False),
    (b"for", Word::For),
    (b"function", Word::Function),
    (b"if", Word::If),
    (b"in", Word::In),
    (b"local", Word::Local),
    (b"nil", Word::Nil),
    (b"not", Word::Not),
    (b"or", Word::Or),
    (b"repeat", Word::Repeat),
    (b"return", Word::Return),
    (b"then", Word::Then),
    (b"true", Word::True),
    (b"until", Word::Until),
    (b"while", Word::While),
];

/// The longest first.
const SIGNS: [&str; 25] = [
    "...", "..", "==", "~=", "<=", ">=", "+", "-", "*", "/", "%", "^", "#", "<", ">", "=", "(", ")", "{", "}", "[",
    "]", ";", ":", ",",
];

/// Reads a text from its beginning to its end.
#[derive(Clone, Debug)]
pub(super) struct Lexer<'a> {
    rest: &'a [u8],
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a [u8]) -> Self {
        Lexer { rest: text }
    }

    /// The next token. `None` if the text continues with something that is no token.
    pub(super) fn next(&mut self) -> Option<Token<'a>> {
        self.skip_blanks()?;
        let Some(&first) = self.rest.first() else { return Some(Token::End) };
        match first {
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => {
                let name = self.take_while(is_name);
                let word = WORDS.iter().find(|(text, _)| *text == name);
                Some(word.map_or(Token::Name(name), |(_, word)| Token::Word(*word)))
            }
            b'"' | b'\'' => self.quoted(first),
            b'[' => match self.long_bracket() {
                Bracket::Level(level) => {
                    self.skip_long(level)?;
                    Some(Token::Text)
                }
                Bracket::None => {
                    self.rest = &self.rest[1..];
                    Some(Token::Sign("["))
                }
                Bracket::Broken => None,
            },
            b'0'..=b'9' => Some(self.number()),
            b'.' if self.rest.get(1).is_some_and(u8::is_ascii_digit) => Some(self.number()),
            b'.' if !self.rest.starts_with(b"..") => {
                self.rest = &self.rest[1..];
                Some(Token::Sign("."))
            }
            _ => {
                let sign = SIGNS.into_iter().find(|sign| self.rest.starts_with(sign.as_bytes()))?;
                self.rest = &self.rest[sign.len()..];
                Some(Token::Sign(sign))
            }
        }
    }

    fn take_while(&mut self, wanted: impl Fn(u8) -> bool) -> &'a [u8] {
        let end = self.rest.iter().position(|byte| !wanted(*byte)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }

    /// Skips blanks and comments. `None` if a comment does not end.
    fn skip_blanks(&mut self) -> Option<()> {
        loop {
            self.take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c));
            let Some(comment) = self.rest.strip_prefix(b"--") else { return Some(()) };
            self.rest = comment;
            match self.long_bracket() {
                Bracket::Level(level) => self.skip_long(level)?,
                Bracket::None | Bracket::Broken => {
                    self.take_while(|byte| !matches!(byte, b'\n' | b'\r'));
                }
            }
        }
    }

    /// The kind of bracket that begins at this `[`.
    fn long_bracket(&self) -> Bracket {
        let Some(after) = self.rest.strip_prefix(b"[") else { return Bracket::None };
        let level = after.iter().take_while(|byte| **byte == b'=').count();
        match after.get(level) {
            Some(b'[') => Bracket::Level(level),
            _ if level == 0 => Bracket::None,
            _ => Bracket::Broken,
        }
    }

    /// Skips the text between `[==[` and `]==]`.
    fn skip_long(&mut self, level: usize) -> Option<()> {
        let end: Vec<u8> = [&b"]"[..], &vec![b'='; level], b"]"].concat();
        let inside = self.rest.get(level + 2..)?;
        let at = memchr::memmem::find(inside, &end)?;
        self.rest = &inside[at + end.len()..];
        Some(())
    }

    fn quoted(&mut self, quote: u8) -> Option<Token<'a>> {
        let inside = &self.rest[1..];
        let mut at = 0;
        let mut plain = true;
        loop {
            match *inside.get(at)? {
                byte if byte == quote => break,
                b'\n' | b'\r' => return None,
                b'\\' => {
                    plain = false;
                    // A line break of two bytes counts as one.
                    let two = inside.get(at + 1..at + 3);
                    at += if matches!(two, Some(b"\r\n" | b"\n\r")) { 3 } else { 2 };
                }
                _ => at += 1,
            }
        }
        self.rest = &inside[at + 1..];
        Some(if plain { Token::Plain(&inside[..at]) } else { Token::Text })
    }

    /// As greedy as Lua's lexer. Lua refuses the result if it is no number.
    fn number(&mut self) -> Token<'a> {
        self.take_while(|byte| byte.is_ascii_digit() || byte == b'.');
        if matches!(self.rest.first(), Some(b'e' | b'E')) {
            self.rest = &self.rest[1..];
            if matches!(self.rest.first(), Some(b'+' | b'-')) {
                self.rest = &self.rest[1..];
            }
        }
        self.take_while(is_name);
        Token::Number
    }
}

enum Bracket {
    /// `[[` is of level 0, `[=[` of level 1.
    Level(usize),
    None,
    /// `[=` followed by something else.
    Broken,
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::{any, proptest};

    use super::{Lexer, Token, Word};

    fn tokens(text: &[u8]) -> Option<Vec<Token<'_>>> {
        let mut lexer = Lexer::new(text);
        let mut all = Vec::new();
        loop {
            match lexer.next()? {
                Token::End => return Some(all),
                token => all.push(token),
            }
        }
    }

    #[test]
    fn each_token_ends_where_lua_ends_it() {
        use Token::{Name, Number, Plain, Sign, Text};
        let name = |text: &'static str| Name(text.as_bytes());
        let cases: &[(&str, &[Token<'_>])] = &[
            ("", &[]),
            ("a_1 and_ and", &[name("a_1"), name("and_"), Token::Word(Word::And)]),
            ("'a' \"b'\" 'c\\'d' '\\\\'", &[Plain(b"a"), Plain(b"b'"), Text, Text]),
            ("'a\\\nb' 'a\\\r\nb'", &[Text, Text]),
            ("[[a]b]] [=[ ]] ]=] [==[]=]]==]", &[Text, Text, Text]),
            ("a[b[1]]", &[name("a"), Sign("["), name("b"), Sign("["), Number, Sign("]"), Sign("]")]),
            ("-- [[ x\ny --[[ z\n]] w --[=[ ]] ]=] v --[= u", &[name("y"), name("w"), name("v")]),
            ("--\rx", &[name("x")]),
            ("1 1.5e-3 0xff 1e5x .5 1..2", &[Number, Number, Number, Number, Number, Number]),
            ("a..b ... a.b", &[name("a"), Sign(".."), name("b"), Sign("..."), name("a"), Sign("."), name("b")]),
            ("a~=b==c<=d", &[name("a"), Sign("~="), name("b"), Sign("=="), name("c"), Sign("<="), name("d")]),
            ("1-2", &[Number, Sign("-"), Number]),
            ("1e-2-3", &[Number, Sign("-"), Number]),
        ];
        for (text, expected) in cases {
            assert_eq!(tokens(text.as_bytes()).as_deref(), Some(*expected), "{text}");
        }
    }

    #[test]
    fn invalid_tokens_are_refused() {
        for text in
            ["'a", "'a\nb'", "'a\\", "[[a", "[=[a]]", "--[[a", "[=a", "a~b", "a!b", "@", "\x1bLua", "\u{e9}", "\0", "`"]
        {
            assert_eq!(tokens(text.as_bytes()), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_input_makes_the_lexer_panic(bytes in vec(any::<u8>(), 0..200)) {
            let _ = tokens(&bytes);
        }
    }
}
