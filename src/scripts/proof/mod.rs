//! Which commands a script calls, read from its text, with what is known of their arguments; or that this cannot be told.
//!
//! A parser for Lua 5.1 that follows names and computes no values. A text passes only if `redis` appears as `redis.call(` or
//! `redis.pcall(` (or as one of a few functions that call nothing) with the command's name written out, `KEYS` as `KEYS[…]` that is
//! read or as `#KEYS`, and every other name is a local one of the text or one of Lua's that reaches no command. So the script calls
//! no command that is not seen here, and `KEYS[…]` is always a declared key. A local name that is set to a `KEYS[…]` where it is
//! declared, and never to anything else, stands for that key. What the commands mean is not known here.

mod call;
mod expressions;
mod parser;
mod statements;

use super::lua::{Lexer, Token};
use parser::{Outcome, Parser, UNREADABLE};

pub(super) use call::{Argument, Call};

/// Longer texts are not read.
const MAX_TEXT: usize = 64 << 10;

/// The calls of a script.
///
/// # Errors
/// Why they cannot be told, for the log.
pub(super) fn calls(text: &[u8]) -> Result<Vec<Call>, &'static str> {
    if text.len() > MAX_TEXT {
        return Err("its text is too long to be checked");
    }
    // The first run collects the names that are assigned to. In the second run all other local names may stand for keys.
    let first = Parser::run(text, None)?;
    Ok(Parser::run(text, Some(first.assigned))?.calls)
}

impl<'a> Parser<'a> {
    fn run(text: &'a [u8], all_assigned: Option<Vec<&'a [u8]>>) -> Outcome<Self> {
        let mut lexer = Lexer::new(text);
        let token = lexer.next().ok_or(UNREADABLE)?;
        let (locals, calls, assigned) = (Vec::new(), Vec::new(), Vec::new());
        let mut parser = Parser { lexer, token, depth: 0, locals, calls, assigned, all_assigned };
        parser.block()?;
        if parser.token == Token::End { Ok(parser) } else { Err(UNREADABLE) }
    }
}
