//! The state of the parser: the current token, the names in scope, and the calls found so far. The grammar is in
//! `statements` and `expressions`.

use super::call::Call;
use crate::scripts::lua::{Lexer, Token, Word};

/// Maximum nesting of blocks and brackets: bounds the stack.
const MAX_DEPTH: usize = 100;
/// Maximum number of names in scope, and of names that are assigned to: bounds the time of a lookup. Lua itself allows 200 names in
/// a function.
const MAX_NAMES: usize = 256;

pub(super) const TOO_MANY: &str = "it has too many local names to be checked";
pub(super) const UNREADABLE: &str = "its text is not understood";
pub(super) const REDIS: &str = "it uses `redis` other than as redis.call('NAME', …)";
pub(super) const KEYS: &str = "it uses KEYS other than as KEYS[…]";
pub(super) const NAMES: &str = "it uses a name that is neither its own nor known to be safe";

pub(super) type Outcome<T = ()> = Result<T, &'static str>;

/// What the parser knows about an expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ExpressionKind<'a> {
    /// A string alone.
    Text(&'a [u8]),
    /// `KEYS[…]` alone.
    Key,
    /// A call, or `...`: expands to none or several values in the last position.
    Several,
    /// `unpack(KEYS)` alone.
    Keys,
    /// One value.
    One,
}

/// The left side of a `.`, a `[` or a `(`, and what it is so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Prefix {
    pub(super) shape: Shape,
    /// It begins with a local name.
    pub(super) local: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Name,
    Key,
    Part,
    Call,
    Brackets,
    /// `unpack(KEYS)`
    Keys,
}

/// A local name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Local<'a> {
    pub(super) name: &'a [u8],
    /// The name stands for a declared key.
    pub(super) is_key: bool,
}

pub(super) struct Parser<'a> {
    pub(super) lexer: Lexer<'a>,
    pub(super) token: Token<'a>,
    pub(super) depth: usize,
    /// The names in scope, the innermost last.
    pub(super) locals: Vec<Local<'a>>,
    pub(super) calls: Vec<Call>,
    /// Names that are assigned to after their declaration.
    pub(super) assigned: Vec<&'a [u8]>,
    /// The same for the whole text. `None` during the first pass.
    pub(super) all_assigned: Option<Vec<&'a [u8]>>,
}

impl<'a> Parser<'a> {
    /// Whether these tokens come next.
    pub(super) fn is_ahead(&self, tokens: &[Token<'_>]) -> bool {
        let mut ahead = self.lexer.clone();
        let mut token = Some(self.token);
        tokens.iter().all(|expected| {
            let found = token == Some(*expected);
            token = ahead.next();
            found
        })
    }

    pub(super) fn advance(&mut self) -> Outcome {
        self.token = self.lexer.next().ok_or(UNREADABLE)?;
        Ok(())
    }

    pub(super) fn is(&self, sign: &str) -> bool {
        matches!(self.token, Token::Sign(found) if found == sign)
    }

    pub(super) fn is_word(&self, word: Word) -> bool {
        self.token == Token::Word(word)
    }

    pub(super) fn take(&mut self, sign: &str) -> Outcome<bool> {
        let found = self.is(sign);
        if found {
            self.advance()?;
        }
        Ok(found)
    }

    pub(super) fn take_word(&mut self, word: Word) -> Outcome<bool> {
        let found = self.is_word(word);
        if found {
            self.advance()?;
        }
        Ok(found)
    }

    pub(super) fn expect(&mut self, sign: &str) -> Outcome {
        if self.take(sign)? { Ok(()) } else { Err(UNREADABLE) }
    }

    pub(super) fn expect_word(&mut self, word: Word) -> Outcome {
        if self.take_word(word)? { Ok(()) } else { Err(UNREADABLE) }
    }

    pub(super) fn name(&mut self) -> Outcome<&'a [u8]> {
        let Token::Name(name) = self.token else { return Err(UNREADABLE) };
        self.advance()?;
        Ok(name)
    }

    /// Declares a local name.
    pub(super) fn declare(&mut self, name: &'a [u8], kind: ExpressionKind<'_>) -> Outcome {
        if self.locals.len() >= MAX_NAMES {
            return Err(TOO_MANY);
        }
        match name {
            b"redis" | b"server" => Err(REDIS),
            b"KEYS" => Err(KEYS),
            _ => {
                let stays = self.all_assigned.as_ref().is_some_and(|assigned| !assigned.contains(&name));
                self.locals.push(Local { name, is_key: kind == ExpressionKind::Key && stays });
                Ok(())
            }
        }
    }

    /// Records that a local name is assigned to.
    pub(super) fn assign(&mut self, name: &'a [u8]) -> Outcome {
        if !self.assigned.contains(&name) {
            if self.assigned.len() >= MAX_NAMES {
                return Err(TOO_MANY);
            }
            self.assigned.push(name);
        }
        Ok(())
    }

    pub(super) fn local(&self, name: &[u8]) -> Option<Local<'a>> {
        self.locals.iter().rfind(|local| local.name == name).copied()
    }

    pub(super) fn is_local(&self, name: &[u8]) -> bool {
        self.local(name).is_some()
    }

    pub(super) fn deeper<T>(&mut self, inside: impl FnOnce(&mut Self) -> Outcome<T>) -> Outcome<T> {
        if self.depth >= MAX_DEPTH {
            return Err("its text is nested too deeply to be checked");
        }
        self.depth += 1;
        let outcome = inside(self);
        self.depth -= 1;
        outcome
    }
}
