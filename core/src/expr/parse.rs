//! Tokens to a tree, by precedence climbing, with the precedences of CEL.

use super::ExprError;
use super::lex::{Token, tokens};
use super::tree::{Arithmetic, Binary, Comparison, Const, Kind, MAX_NESTING, Span, Tree, too_deep};

/// The longest source, in bytes.
pub(super) const MAX_SOURCE_BYTES: usize = 16 * 1024;

/// Words that CEL keeps for itself: a let or a field of this name could not be told apart elsewhere.
pub(super) const RESERVED: &[&str] = &[
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "in",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// Parses one whole source.
pub(super) fn parse(source: &str) -> Result<Tree, ExprError> {
    if source.len() > MAX_SOURCE_BYTES {
        let end = source.chars().next().map_or(1, char::len_utf8);
        return Err(Span { start: 0, end }.error(format!("the expression is longer than {MAX_SOURCE_BYTES} bytes")));
    }
    let mut parser = Parser { tokens: tokens(source)?, at: 0, nesting: 0 };
    let tree = parser.ternary()?;
    match parser.peek() {
        Token::End => Ok(tree),
        _ => Err(parser.unexpected("the end or an operator")),
    }
}

struct Parser {
    tokens: Vec<(Token, Span)>,
    /// Index of the next token; the last one is never stepped over.
    at: usize,
    nesting: usize,
}

/// The levels of precedence between ternary and unary, loosest first.
const LEVELS: &[&[(&str, Binary)]] = &[
    &[
        ("==", Binary::Compare(Comparison::Equal)),
        ("!=", Binary::Compare(Comparison::NotEqual)),
        ("<", Binary::Compare(Comparison::Less)),
        ("<=", Binary::Compare(Comparison::AtMost)),
        (">", Binary::Compare(Comparison::Greater)),
        (">=", Binary::Compare(Comparison::AtLeast)),
        ("in", Binary::In),
    ],
    &[("+", Binary::Arithmetic(Arithmetic::Add)), ("-", Binary::Arithmetic(Arithmetic::Subtract))],
    &[
        ("*", Binary::Arithmetic(Arithmetic::Multiply)),
        ("/", Binary::Arithmetic(Arithmetic::Divide)),
        ("%", Binary::Arithmetic(Arithmetic::Remainder)),
    ],
];

impl Parser {
    fn peek(&self) -> &Token {
        &self.tokens[self.at].0
    }

    fn span(&self) -> Span {
        self.tokens[self.at].1
    }

    fn step(&mut self) -> Span {
        let span = self.span();
        self.at = (self.at + 1).min(self.tokens.len() - 1);
        span
    }

    /// Steps over this sign (or the word `in`) if it is next.
    fn take(&mut self, sign: &str) -> Option<Span> {
        let next = match self.peek() {
            Token::Sign(found) => *found == sign,
            Token::Name(name) => sign == "in" && name == "in",
            _ => false,
        };
        next.then(|| self.step())
    }

    fn expect(&mut self, sign: &str) -> Result<Span, ExprError> {
        self.take(sign).ok_or_else(|| self.unexpected(&format!("`{sign}`")))
    }

    fn unexpected(&self, wanted: &str) -> ExprError {
        let found = match self.peek() {
            Token::End => "the end".to_owned(),
            Token::Name(name) => format!("`{name}`"),
            Token::Sign(sign) => format!("`{sign}`"),
            Token::Int(_) | Token::Float(_) => "a number".to_owned(),
            Token::Str(_) => "a string".to_owned(),
        };
        let error = self.span().error(format!("expected {wanted}, found {found}"));
        match self.peek() {
            Token::Name(name) if name == "and" => error.or_try("and is written &&"),
            Token::Name(name) if name == "or" => error.or_try("or is written ||"),
            Token::Name(name) if name == "not" => error.or_try("not is written !"),
            _ => error,
        }
    }

    /// Runs one nested part, unless it is nested too deeply.
    fn nested<T>(&mut self, parse: impl FnOnce(&mut Self) -> Result<T, ExprError>) -> Result<T, ExprError> {
        if self.nesting == MAX_NESTING {
            return Err(too_deep(self.span()));
        }
        self.nesting += 1;
        let result = parse(self);
        self.nesting -= 1;
        result
    }

    fn ternary(&mut self) -> Result<Tree, ExprError> {
        let condition = self.any_of()?;
        if self.take("?").is_none() {
            return Ok(condition);
        }
        // As in CEL, a ternary between `?` and `:` needs brackets.
        let then = self.any_of()?;
        self.expect(":")?;
        let otherwise = self.nested(Self::ternary)?;
        let span = condition.span.to(otherwise.span);
        Tree::new(Kind::Ternary(Box::new([condition, then, otherwise])), span)
    }

    fn any_of(&mut self) -> Result<Tree, ExprError> {
        self.chain("||", Kind::AnyOf, Self::all)
    }

    fn all(&mut self) -> Result<Tree, ExprError> {
        self.chain("&&", Kind::All, |parser| parser.binary(0))
    }

    fn chain(
        &mut self,
        sign: &str,
        kind: fn(Vec<Tree>) -> Kind,
        operand: fn(&mut Self) -> Result<Tree, ExprError>,
    ) -> Result<Tree, ExprError> {
        let first = operand(self)?;
        if self.take(sign).is_none() {
            return Ok(first);
        }
        let start = first.span;
        let mut parts = vec![first, operand(self)?];
        while self.take(sign).is_some() {
            parts.push(operand(self)?);
        }
        let end = parts.last().map_or(start, |last| last.span);
        Tree::new(kind(parts), start.to(end))
    }

    /// The operators of one level, from left to right.
    fn binary(&mut self, level: usize) -> Result<Tree, ExprError> {
        let Some(operators) = LEVELS.get(level) else { return self.unary() };
        let mut left = self.binary(level + 1)?;
        while let Some((_, operator)) = operators.iter().find(|(sign, _)| self.take(sign).is_some()) {
            let right = self.binary(level + 1)?;
            let span = left.span.to(right.span);
            left = Tree::new(Kind::Binary(*operator, Box::new(left), Box::new(right)), span)?;
        }
        Ok(left)
    }

    fn unary(&mut self) -> Result<Tree, ExprError> {
        if let Some(start) = self.take("!") {
            let inner = self.nested(Self::unary)?;
            let span = start.to(inner.span);
            return Tree::new(Kind::Not(Box::new(inner)), span);
        }
        if let Some(start) = self.take("-") {
            if let Some(literal) = self.negative(start)? {
                return self.member(literal);
            }
            let inner = self.nested(Self::unary)?;
            let span = start.to(inner.span);
            return Tree::new(Kind::Negate(Box::new(inner)), span);
        }
        let primary = self.primary()?;
        self.member(primary)
    }

    /// The number after a minus that was just stepped over.
    fn negative(&mut self, minus: Span) -> Result<Option<Tree>, ExprError> {
        let span = minus.to(self.span());
        let constant = match *self.peek() {
            Token::Int(size) => {
                let value = 0i64.checked_sub_unsigned(size);
                Const::Int(value.ok_or_else(|| span.error("the integer does not fit 64 bits"))?)
            }
            Token::Float(size) => Const::Float(-size),
            _ => return Ok(None),
        };
        self.step();
        Tree::new(Kind::Literal(constant), span).map(Some)
    }

    fn primary(&mut self) -> Result<Tree, ExprError> {
        let span = self.span();
        let kind = match self.peek().clone() {
            Token::Int(size) => {
                let value = i64::try_from(size).map_err(|_| span.error("the integer does not fit 64 bits"))?;
                Kind::Literal(Const::Int(value))
            }
            Token::Float(value) => Kind::Literal(Const::Float(value)),
            Token::Str(text) => Kind::Literal(Const::Str(text.into())),
            Token::Name(name) => return self.name(name),
            Token::Sign("(") => {
                self.step();
                let inner = self.nested(Self::ternary)?;
                let end = self.expect(")")?;
                return Ok(inner.bracketed(span.to(end)));
            }
            Token::Sign("[") => {
                self.step();
                let (items, end) = self.items("]")?;
                return Tree::new(Kind::List(items), span.to(end));
            }
            _ => return Err(self.unexpected("a value")),
        };
        self.step();
        Tree::new(kind, span)
    }

    fn name(&mut self, name: String) -> Result<Tree, ExprError> {
        let span = self.span();
        match name.as_str() {
            "true" | "false" => {
                self.step();
                return Tree::new(Kind::Literal(Const::Bool(name == "true")), span);
            }
            "null" => return Err(span.error("there is no null here: absent and null are the same").or_try("ask with has(field)")),
            "and" | "or" | "not" => return Err(self.unexpected("a value")),
            word if RESERVED.contains(&word) => return Err(span.error(format!("`{name}` is a reserved word"))),
            _ => (),
        }
        self.step();
        if self.take("(").is_none() {
            return Tree::new(Kind::Path(vec![name]), span);
        }
        let (arguments, end) = self.items(")")?;
        Tree::new(Kind::Call { name, name_span: span, receiver: None, arguments }, span.to(end))
    }

    /// `.name`, `["name"]` and `.name(…)` after a value.
    fn member(&mut self, mut tree: Tree) -> Result<Tree, ExprError> {
        loop {
            if self.take(".").is_some() {
                let Token::Name(name) = self.peek().clone() else { return Err(self.unexpected("a name")) };
                let name_span = self.step();
                tree = if self.take("(").is_some() {
                    let (arguments, end) = self.items(")")?;
                    let span = tree.span.to(end);
                    Tree::new(Kind::Call { name, name_span, receiver: Some(Box::new(tree)), arguments }, span)?
                } else {
                    extended(tree, name, name_span)?
                };
            } else if self.take("[").is_some() {
                let key_span = self.span();
                let Token::Str(key) = self.peek().clone() else {
                    return Err(self.unexpected("a string").or_try("only headers[\"name\"] and data[\"name\"] have parts"));
                };
                self.step();
                let end = self.expect("]")?;
                tree = extended(tree, key, key_span.to(end))?;
            } else {
                return Ok(tree);
            }
        }
    }

    /// Trees between commas up to `close`, whose place is returned.
    fn items(&mut self, close: &str) -> Result<(Vec<Tree>, Span), ExprError> {
        let mut items = Vec::new();
        if let Some(end) = self.take(close) {
            return Ok((items, end));
        }
        loop {
            items.push(self.nested(Self::ternary)?);
            if let Some(end) = self.take(close) {
                return Ok((items, end));
            }
            if self.take(",").is_none() {
                return Err(self.unexpected(&format!("`,` or `{close}`")));
            }
        }
    }
}

/// One more key on a path.
fn extended(tree: Tree, key: String, key_span: Span) -> Result<Tree, ExprError> {
    let span = tree.span.to(key_span);
    match tree.kind {
        Kind::Path(mut path) if path.len() < MAX_NESTING => {
            path.push(key);
            Tree::new(Kind::Path(path), span)
        }
        Kind::Path(_) => Err(too_deep(span)),
        _ => Err(key_span.error("only headers and data have parts")),
    }
}
