//! Finds the commands that a script calls, with what is known of their arguments, by parsing its text. Returns an error if they
//! cannot be determined.
//!
//! A parser for Lua 5.1 that follows names and computes no values. A text passes only under these conditions. `redis` appears only
//! as `redis.call(` or `redis.pcall(` with a literal command name, or as one of a few functions that call no command. `KEYS`
//! appears only as `#KEYS` or as `KEYS[…]` that is read. Every other name is local to the text, or one of Lua's names that reach no
//! command. So the parser sees every command that the script calls, and `KEYS[…]` is always a declared key. A local name that is
//! initialised with a `KEYS[…]` and never assigned again stands for that key. What the commands mean is not known here.

mod call;
mod expressions;
mod parser;
mod statements;

use super::lua::{Lexer, Token};
use parser::{Outcome, Parser, UNREADABLE};

pub(super) use call::{Argument, Call};

/// Longer texts are not parsed.
const MAX_TEXT: usize = 64 << 10;

/// The commands that a script calls.
///
/// # Errors
/// Why they cannot be determined, for the log.
pub(super) fn calls(text: &[u8]) -> Result<Vec<Call>, &'static str> {
    if text.len() > MAX_TEXT {
        return Err("its text is too long to be checked");
    }
    // The first pass collects the names that are assigned to. In the second pass, all other local names may stand for keys.
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
