//! Parses expressions, and collects the calls of commands in them.

use super::call::{Argument, Call};
use super::parser::{ExpressionKind, KEYS, NAMES, Outcome, Parser, Prefix, REDIS, Shape, UNREADABLE};
use crate::scripts::lua::{Token, Word};

/// Maximum number of calls to remember.
const MAX_CALLS: usize = 256;
/// Maximum number of arguments to remember per call.
const MAX_ARGUMENTS: usize = 64;

/// Names of Lua and Redis that reach no command and no way to call one.
const KNOWN: [&str; 22] = [
    "ARGV", "assert", "bit", "cjson", "cmsgpack", "error", "ipairs", "math", "next", "os", "pairs", "pcall", "select",
    "string", "struct", "table", "tonumber", "tostring", "type", "unpack", "xpcall", "print",
];

/// Fields of `redis` that call no command.
const PURE: [&str; 10] = [
    "error_reply",
    "status_reply",
    "sha1hex",
    "log",
    "LOG_DEBUG",
    "LOG_VERBOSE",
    "LOG_NOTICE",
    "LOG_WARNING",
    "replicate_commands",
    "setresp",
];

impl<'a> Parser<'a> {
    pub(super) fn expressions(&mut self) -> Outcome<Vec<ExpressionKind<'a>>> {
        let mut kinds = vec![self.expression()?];
        while self.take(",")? {
            kinds.push(self.expression()?);
        }
        Ok(kinds)
    }

    /// Parses operands with operators between them. Operator precedence does not matter here.
    pub(super) fn expression(&mut self) -> Outcome<ExpressionKind<'a>> {
        self.deeper(|parser| {
            let mut kind = parser.operand()?;
            loop {
                match parser.token {
                    Token::Sign("+" | "-" | "*" | "/" | "%" | "^" | ".." | "==" | "~=" | "<" | "<=" | ">" | ">=")
                    | Token::Word(Word::And | Word::Or) => {
                        parser.advance()?;
                        parser.operand()?;
                        kind = ExpressionKind::One;
                    }
                    _ => return Ok(kind),
                }
            }
        })
    }

    pub(super) fn operand(&mut self) -> Outcome<ExpressionKind<'a>> {
        let mut signs = false;
        loop {
            match self.token {
                Token::Sign("#") => {
                    self.advance()?;
                    if self.token == Token::Name(b"KEYS") {
                        return self.count_of_keys();
                    }
                }
                Token::Sign("-") | Token::Word(Word::Not) => self.advance()?,
                _ => break,
            }
            signs = true;
        }
        let kind = match self.token {
            Token::Plain(text) => {
                self.advance()?;
                ExpressionKind::Text(text)
            }
            Token::Number | Token::Text | Token::Word(Word::Nil | Word::True | Word::False) => {
                self.advance()?;
                ExpressionKind::One
            }
            Token::Sign("...") => {
                self.advance()?;
                ExpressionKind::Several
            }
            Token::Sign("{") => {
                self.table()?;
                ExpressionKind::One
            }
            Token::Word(Word::Function) => {
                self.advance()?;
                self.body(false)?;
                ExpressionKind::One
            }
            _ => match self.suffixed()?.shape {
                Shape::Key => ExpressionKind::Key,
                Shape::Call => ExpressionKind::Several,
                Shape::Keys => ExpressionKind::Keys,
                Shape::Name | Shape::Part | Shape::Brackets => ExpressionKind::One,
            },
        };
        Ok(if signs { ExpressionKind::One } else { kind })
    }

    /// Parses `#KEYS`, or `#KEYS[…]`, which is the length of a key.
    pub(super) fn count_of_keys(&mut self) -> Outcome<ExpressionKind<'a>> {
        let mut ahead = self.lexer.clone();
        match ahead.next().ok_or(UNREADABLE)? {
            Token::Sign("[") => {
                self.suffixed()?;
            }
            Token::Sign("." | ":" | "(" | "{") | Token::Plain(_) | Token::Text => return Err(KEYS),
            _ => self.advance()?,
        }
        Ok(ExpressionKind::One)
    }

    pub(super) fn table(&mut self) -> Outcome {
        self.expect("{")?;
        while !self.is("}") {
            if self.take("[")? {
                self.expression()?;
                self.expect("]")?;
                self.expect("=")?;
                self.expression()?;
            } else if matches!(self.token, Token::Name(_)) && self.lexer.clone().next() == Some(Token::Sign("=")) {
                self.advance()?;
                self.advance()?;
                self.expression()?;
            } else {
                self.expression()?;
            }
            if !self.take(",")? && !self.take(";")? {
                break;
            }
        }
        self.expect("}")
    }

    /// Parses a name or a parenthesised expression with its fields, indexes and calls.
    pub(super) fn suffixed(&mut self) -> Outcome<Prefix> {
        self.deeper(|parser| {
            let mut prefix = parser.prefix()?;
            loop {
                let shape = match parser.token {
                    Token::Sign(".") => {
                        parser.advance()?;
                        // A field of that name may hold the global of the same name.
                        if matches!(parser.name()?, b"redis" | b"server") {
                            return Err(REDIS);
                        }
                        Shape::Part
                    }
                    Token::Sign("[") => {
                        parser.advance()?;
                        parser.expression()?;
                        parser.expect("]")?;
                        Shape::Part
                    }
                    // Before Redis 7.0, another script may have replaced the methods of strings.
                    Token::Sign(":") => return Err("it calls a method (value:name())"),
                    Token::Sign("(" | "{") | Token::Plain(_) | Token::Text => {
                        parser.arguments()?;
                        Shape::Call
                    }
                    _ => return Ok(prefix),
                };
                prefix.shape = shape;
            }
        })
    }

    pub(super) fn prefix(&mut self) -> Outcome<Prefix> {
        if self.take("(")? {
            self.expression()?;
            self.expect(")")?;
            return Ok(Prefix { shape: Shape::Brackets, local: false });
        }
        let name = self.name()?;
        match name {
            b"redis" => {
                let shape = self.redis()?;
                Ok(Prefix { shape, local: false })
            }
            b"KEYS" => {
                if !self.take("[")? {
                    return Err(KEYS);
                }
                self.expression()?;
                self.expect("]")?;
                Ok(Prefix { shape: Shape::Key, local: false })
            }
            _ if self.is_local(name) => {
                let is_key = self.local(name).is_some_and(|local| local.is_key);
                let shape = if is_key { Shape::Key } else { Shape::Name };
                Ok(Prefix { shape, local: !is_key })
            }
            b"unpack" if self.is_ahead(&[Token::Sign("("), Token::Name(b"KEYS"), Token::Sign(")")]) => {
                (0..3).try_for_each(|_| self.advance())?;
                Ok(Prefix { shape: Shape::Keys, local: false })
            }
            _ if KNOWN.iter().any(|known| known.as_bytes() == name) => Ok(Prefix { shape: Shape::Name, local: false }),
            b"server" => Err(REDIS),
            _ => Err(NAMES),
        }
    }

    pub(super) fn redis(&mut self) -> Outcome<Shape> {
        if !self.take(".")? {
            return Err(REDIS);
        }
        match self.name()? {
            b"call" | b"pcall" => {
                self.command()?;
                Ok(Shape::Call)
            }
            name if PURE.iter().any(|pure| pure.as_bytes() == name) => Ok(Shape::Part),
            _ => Err(REDIS),
        }
    }

    /// Parses the arguments of `redis.call`.
    pub(super) fn command(&mut self) -> Outcome {
        if !self.take("(")? {
            return Err(REDIS);
        }
        let mut arguments = Vec::new();
        let mut open;
        loop {
            let kind = self.expression()?;
            arguments.push(match kind {
                ExpressionKind::Text(text) => Argument::Text(text.into()),
                ExpressionKind::Key => Argument::Key,
                ExpressionKind::Keys if !self.is(",") => Argument::Keys,
                ExpressionKind::Keys | ExpressionKind::Several | ExpressionKind::One => Argument::Any,
            });
            open = matches!(kind, ExpressionKind::Several | ExpressionKind::Keys);
            if arguments.len() > MAX_ARGUMENTS {
                return Err("it calls a command with too many arguments to be checked");
            }
            if !self.take(",")? {
                break;
            }
        }
        self.expect(")")?;
        if !matches!(arguments.first(), Some(Argument::Text(_))) {
            return Err("it calls a command whose name is not a literal");
        }
        if self.calls.len() == MAX_CALLS {
            return Err("it calls too many commands to be checked");
        }
        self.calls.push(Call { arguments: arguments.into(), open });
        Ok(())
    }

    /// Parses the arguments of any other function.
    pub(super) fn arguments(&mut self) -> Outcome {
        match self.token {
            Token::Plain(_) | Token::Text => self.advance(),
            Token::Sign("{") => self.table(),
            _ => {
                self.expect("(")?;
                if !self.is(")") {
                    self.expressions()?;
                }
                self.expect(")")
            }
        }
    }
}
