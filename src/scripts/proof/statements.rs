//! Parses statements: blocks, declarations, assignments and loops.

use super::parser::{ExpressionKind, KEYS, NAMES, Outcome, Parser, Prefix, Shape, UNREADABLE};
use crate::scripts::lua::{Token, Word};

impl<'a> Parser<'a> {
    /// Parses statements up to a word that ends a block. Names declared in the block go out of scope.
    pub(super) fn block(&mut self) -> Outcome {
        let before = self.locals.len();
        self.open_block()?;
        self.locals.truncate(before);
        Ok(())
    }

    /// Like [`Parser::block`], but the names stay in scope.
    pub(super) fn open_block(&mut self) -> Outcome {
        self.deeper(|parser| {
            loop {
                match parser.token {
                    Token::End | Token::Word(Word::End | Word::Else | Word::ElseIf | Word::Until) => return Ok(()),
                    Token::Word(Word::Return) => {
                        parser.advance()?;
                        let ends = matches!(
                            parser.token,
                            Token::End
                                | Token::Sign(";")
                                | Token::Word(Word::End | Word::Else | Word::ElseIf | Word::Until)
                        );
                        if !ends {
                            parser.expressions()?;
                        }
                        parser.take(";")?;
                        return Ok(());
                    }
                    Token::Word(Word::Break) => {
                        parser.advance()?;
                        parser.take(";")?;
                        return Ok(());
                    }
                    _ => {
                        parser.statement()?;
                        parser.take(";")?;
                    }
                }
            }
        })
    }

    pub(super) fn statement(&mut self) -> Outcome {
        let Token::Word(word) = self.token else { return self.call_or_assignment() };
        self.advance()?;
        match word {
            Word::Do => {
                self.block()?;
                self.expect_word(Word::End)
            }
            Word::While => {
                self.expression()?;
                self.expect_word(Word::Do)?;
                self.block()?;
                self.expect_word(Word::End)
            }
            Word::Repeat => {
                let before = self.locals.len();
                self.open_block()?;
                self.expect_word(Word::Until)?;
                // Names that were declared inside the loop are in scope here.
                self.expression()?;
                self.locals.truncate(before);
                Ok(())
            }
            Word::If => {
                self.expression()?;
                self.expect_word(Word::Then)?;
                self.block()?;
                while self.take_word(Word::ElseIf)? {
                    self.expression()?;
                    self.expect_word(Word::Then)?;
                    self.block()?;
                }
                if self.take_word(Word::Else)? {
                    self.block()?;
                }
                self.expect_word(Word::End)
            }
            Word::For => self.for_loop(),
            Word::Function => {
                let name = self.name()?;
                // A global function, or a field of a global.
                if !self.is_local(name) {
                    return Err(NAMES);
                }
                let mut has_self = false;
                while !has_self && (self.is(".") || self.is(":")) {
                    has_self = self.is(":");
                    self.advance()?;
                    self.name()?;
                }
                self.body(has_self)
            }
            Word::Local => {
                if self.take_word(Word::Function)? {
                    let name = self.name()?;
                    self.declare(name, ExpressionKind::One)?;
                    return self.body(false);
                }
                let names = self.names()?;
                let kinds = if self.take("=")? { self.expressions()? } else { Vec::new() };
                let kinds = kinds.into_iter().chain(std::iter::repeat(ExpressionKind::One));
                names.into_iter().zip(kinds).try_for_each(|(name, kind)| self.declare(name, kind))
            }
            _ => Err(UNREADABLE),
        }
    }

    pub(super) fn for_loop(&mut self) -> Outcome {
        let names = self.names()?;
        let mut over_keys = false;
        if self.take("=")? {
            if names.len() != 1 {
                return Err(UNREADABLE);
            }
            self.expressions()?;
        } else {
            self.expect_word(Word::In)?;
            let each = |name| {
                [Token::Name(name), Token::Sign("("), Token::Name(b"KEYS"), Token::Sign(")"), Token::Word(Word::Do)]
            };
            over_keys =
                [&b"ipairs"[..], b"pairs"].iter().any(|name| !self.is_local(name) && self.is_ahead(&each(name)));
            if over_keys {
                (0..4).try_for_each(|_| self.advance())?;
            } else {
                self.expressions()?;
            }
        }
        self.expect_word(Word::Do)?;
        let before = self.locals.len();
        for (at, name) in names.into_iter().enumerate() {
            self.declare(name, if over_keys && at == 1 { ExpressionKind::Key } else { ExpressionKind::One })?;
        }
        self.block()?;
        self.locals.truncate(before);
        self.expect_word(Word::End)
    }

    pub(super) fn names(&mut self) -> Outcome<Vec<&'a [u8]>> {
        let mut names = vec![self.name()?];
        while self.take(",")? {
            names.push(self.name()?);
        }
        Ok(names)
    }

    /// Parses parameters, statements and `end`.
    pub(super) fn body(&mut self, has_self: bool) -> Outcome {
        let before = self.locals.len();
        if has_self {
            self.declare(b"self", ExpressionKind::One)?;
        }
        self.expect("(")?;
        if !self.take(")")? {
            loop {
                if self.take("...")? {
                    // In Lua 5.1 the extra arguments are also available under this name.
                    self.declare(b"arg", ExpressionKind::One)?;
                    break;
                }
                let name = self.name()?;
                self.declare(name, ExpressionKind::One)?;
                if !self.take(",")? {
                    break;
                }
            }
            self.expect(")")?;
        }
        self.block()?;
        self.locals.truncate(before);
        self.expect_word(Word::End)
    }

    pub(super) fn call_or_assignment(&mut self) -> Outcome {
        let mut token = self.token;
        let mut target = self.suffixed()?;
        if !self.is("=") && !self.is(",") {
            return if matches!(target.shape, Shape::Call | Shape::Keys) { Ok(()) } else { Err(UNREADABLE) };
        }
        loop {
            match (target, token) {
                (Prefix { shape: Shape::Name, local: true }, Token::Name(name)) => self.assign(name)?,
                (Prefix { shape: Shape::Part, local: true }, _) => {}
                (Prefix { shape: Shape::Key, .. }, _) => return Err(KEYS),
                _ => return Err(NAMES),
            }
            if !self.take(",")? {
                break;
            }
            token = self.token;
            target = self.suffixed()?;
        }
        self.expect("=")?;
        self.expressions().map(drop)
    }
}
