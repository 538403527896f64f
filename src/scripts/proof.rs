//! Finds the commands that a script calls, with what is known of their arguments, by parsing its text. Returns an error if they
//! cannot be determined.
//!
//! A parser for Lua 5.1 that follows names and computes no values. A text passes only under these conditions. `redis` appears only
//! as `redis.call(` or `redis.pcall(` with a literal command name, or as one of a few functions that call no command. `KEYS`
//! appears only as `#KEYS` or as `KEYS[…]` that is read. Every other name is local to the text, or one of Lua's names that reach no
//! command. So the parser sees every command that the script calls, and `KEYS[…]` is always a declared key. A local name that is
//! initialised with a `KEYS[…]` and never assigned again stands for that key. What the commands mean is not known here.

use super::lua::{Lexer, Token, Word};

/// Longer texts are not parsed.
const MAX_TEXT: usize = 64 << 10;
/// Maximum nesting of blocks and brackets: bounds the stack.
const MAX_DEPTH: usize = 100;
/// Maximum number of calls to remember.
const MAX_CALLS: usize = 256;
/// Maximum number of names in scope, and of names that are assigned to: bounds the time of a lookup. Lua itself allows 200 names in
/// a function.
const MAX_NAMES: usize = 256;
/// Maximum number of arguments to remember per call.
const MAX_ARGUMENTS: usize = 64;

/// A call of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Call {
    /// The command's name and its arguments, as far as they are known.
    pub arguments: Box<[Argument]>,
    /// The last argument may expand to none or several (`unpack(ARGV)`, `...`).
    pub open: bool,
}

/// What is known of an argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Argument {
    /// This literal text.
    Text(Box<[u8]>),
    /// A key that the caller has declared: `KEYS[…]`.
    Key,
    /// All declared keys: `unpack(KEYS)` as the last argument.
    Keys,
    /// Unknown.
    Any,
}

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

const TOO_MANY: &str = "it has too many local names to be checked";
const UNREADABLE: &str = "its text is not understood";
const REDIS: &str = "it uses `redis` other than as redis.call('NAME', …)";
const KEYS: &str = "it uses KEYS other than as KEYS[…]";
const NAMES: &str = "it uses a name that is neither its own nor known to be safe";

type Outcome<T = ()> = Result<T, &'static str>;

/// What the parser knows about an expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ExpressionKind<'a> {
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
struct Prefix {
    shape: Shape,
    /// It begins with a local name.
    local: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
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
struct Local<'a> {
    name: &'a [u8],
    /// The name stands for a declared key.
    is_key: bool,
}

struct Parser<'a> {
    lexer: Lexer<'a>,
    token: Token<'a>,
    depth: usize,
    /// The names in scope, the innermost last.
    locals: Vec<Local<'a>>,
    calls: Vec<Call>,
    /// Names that are assigned to after their declaration.
    assigned: Vec<&'a [u8]>,
    /// The same for the whole text. `None` during the first pass.
    all_assigned: Option<Vec<&'a [u8]>>,
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

    /// Whether these tokens come next.
    fn is_ahead(&self, tokens: &[Token<'_>]) -> bool {
        let mut ahead = self.lexer.clone();
        let mut token = Some(self.token);
        tokens.iter().all(|expected| {
            let found = token == Some(*expected);
            token = ahead.next();
            found
        })
    }

    fn advance(&mut self) -> Outcome {
        self.token = self.lexer.next().ok_or(UNREADABLE)?;
        Ok(())
    }

    fn is(&self, sign: &str) -> bool {
        matches!(self.token, Token::Sign(found) if found == sign)
    }

    fn is_word(&self, word: Word) -> bool {
        self.token == Token::Word(word)
    }

    fn take(&mut self, sign: &str) -> Outcome<bool> {
        let found = self.is(sign);
        if found {
            self.advance()?;
        }
        Ok(found)
    }

    fn take_word(&mut self, word: Word) -> Outcome<bool> {
        let found = self.is_word(word);
        if found {
            self.advance()?;
        }
        Ok(found)
    }

    fn expect(&mut self, sign: &str) -> Outcome {
        if self.take(sign)? { Ok(()) } else { Err(UNREADABLE) }
    }

    fn expect_word(&mut self, word: Word) -> Outcome {
        if self.take_word(word)? { Ok(()) } else { Err(UNREADABLE) }
    }

    fn name(&mut self) -> Outcome<&'a [u8]> {
        let Token::Name(name) = self.token else { return Err(UNREADABLE) };
        self.advance()?;
        Ok(name)
    }

    /// Declares a local name.
    fn declare(&mut self, name: &'a [u8], kind: ExpressionKind<'_>) -> Outcome {
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
    fn assign(&mut self, name: &'a [u8]) -> Outcome {
        if !self.assigned.contains(&name) {
            if self.assigned.len() >= MAX_NAMES {
                return Err(TOO_MANY);
            }
            self.assigned.push(name);
        }
        Ok(())
    }

    fn local(&self, name: &[u8]) -> Option<Local<'a>> {
        self.locals.iter().rfind(|local| local.name == name).copied()
    }

    fn is_local(&self, name: &[u8]) -> bool {
        self.local(name).is_some()
    }

    fn deeper<T>(&mut self, inside: impl FnOnce(&mut Self) -> Outcome<T>) -> Outcome<T> {
        if self.depth >= MAX_DEPTH {
            return Err("its text is nested too deeply to be checked");
        }
        self.depth += 1;
        let outcome = inside(self);
        self.depth -= 1;
        outcome
    }

    /// Parses statements up to a word that ends a block. Names declared in the block go out of scope.
    fn block(&mut self) -> Outcome {
        let before = self.locals.len();
        self.open_block()?;
        self.locals.truncate(before);
        Ok(())
    }

    /// Like [`Parser::block`], but the names stay in scope.
    fn open_block(&mut self) -> Outcome {
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

    fn statement(&mut self) -> Outcome {
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

    fn for_loop(&mut self) -> Outcome {
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

    fn names(&mut self) -> Outcome<Vec<&'a [u8]>> {
        let mut names = vec![self.name()?];
        while self.take(",")? {
            names.push(self.name()?);
        }
        Ok(names)
    }

    /// Parses parameters, statements and `end`.
    fn body(&mut self, has_self: bool) -> Outcome {
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

    fn call_or_assignment(&mut self) -> Outcome {
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

    fn expressions(&mut self) -> Outcome<Vec<ExpressionKind<'a>>> {
        let mut kinds = vec![self.expression()?];
        while self.take(",")? {
            kinds.push(self.expression()?);
        }
        Ok(kinds)
    }

    /// Parses operands with operators between them. Operator precedence does not matter here.
    fn expression(&mut self) -> Outcome<ExpressionKind<'a>> {
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

    fn operand(&mut self) -> Outcome<ExpressionKind<'a>> {
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
    fn count_of_keys(&mut self) -> Outcome<ExpressionKind<'a>> {
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

    fn table(&mut self) -> Outcome {
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
    fn suffixed(&mut self) -> Outcome<Prefix> {
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

    fn prefix(&mut self) -> Outcome<Prefix> {
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

    fn redis(&mut self) -> Outcome<Shape> {
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
    fn command(&mut self) -> Outcome {
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
    fn arguments(&mut self) -> Outcome {
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
