//! Source to tokens. Never panics and never recurses, whatever the bytes.

use super::ExprError;
use super::tree::Span;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    Name(String),
    /// Without its sign: the parser puts a minus before it, so that the smallest integer can be written.
    Int(u64),
    Float(f64),
    Str(String),
    /// Operators and brackets.
    Sign(&'static str),
    End,
}

/// Longest first: `<=` must win over `<`.
const SIGNS: &[&str] =
    &["==", "!=", "<=", ">=", "&&", "||", "<", ">", "!", "+", "-", "*", "/", "%", "(", ")", "[", "]", ".", ",", "?", ":"];

/// Every token with its place; the last one is [`Token::End`].
pub(super) fn tokens(source: &str) -> Result<Vec<(Token, Span)>, ExprError> {
    let mut lexer = Lexer { source, at: 0 };
    let mut found = Vec::new();
    loop {
        lexer.skip_blanks();
        let start = lexer.at;
        let token = lexer.next()?;
        let done = token == Token::End;
        found.push((token, Span { start, end: lexer.at }));
        if done {
            return Ok(found);
        }
    }
}

struct Lexer<'s> {
    source: &'s str,
    at: usize,
}

impl<'s> Lexer<'s> {
    fn rest(&self) -> &'s str {
        self.source.get(self.at..).unwrap_or("")
    }

    fn take_while(&mut self, keep: impl Fn(char) -> bool) -> &'s str {
        let rest = self.rest();
        let taken = &rest[..rest.find(|c| !keep(c)).unwrap_or(rest.len())];
        self.at += taken.len();
        taken
    }

    fn error_from(&self, start: usize, message: impl Into<String>) -> ExprError {
        Span { start, end: self.at }.error(message)
    }

    /// White space and `// comments`.
    fn skip_blanks(&mut self) {
        loop {
            self.take_while(|c| matches!(c, ' ' | '\t' | '\r' | '\n' | '\x0c'));
            if !self.rest().starts_with("//") {
                return;
            }
            self.take_while(|c| c != '\n');
        }
    }

    fn next(&mut self) -> Result<Token, ExprError> {
        let rest = self.rest();
        let Some(first) = rest.chars().next() else { return Ok(Token::End) };
        match first {
            '"' | '\'' => self.string(false),
            'r' | 'R' if rest[1..].starts_with(['"', '\'']) => {
                self.at += 1;
                self.string(true)
            }
            'b' | 'B' if rest[1..].starts_with(['"', '\'']) => {
                self.at += 1;
                Err(self.error_from(self.at - 1, "there are no byte strings here"))
            }
            'a'..='z' | 'A'..='Z' | '_' => Ok(Token::Name(self.take_while(|c| c.is_ascii_alphanumeric() || c == '_').to_owned())),
            '0'..='9' => self.number(),
            _ => self.sign(first),
        }
    }

    fn sign(&mut self, first: char) -> Result<Token, ExprError> {
        if let Some(sign) = SIGNS.iter().find(|sign| self.rest().starts_with(**sign)) {
            self.at += sign.len();
            return Ok(Token::Sign(sign));
        }
        let start = self.at;
        self.at += first.len_utf8();
        let error = self.error_from(start, format!("unexpected character {first:?}"));
        Err(match first {
            '=' => error.or_try("equality is written =="),
            '&' => error.or_try("and is written &&"),
            '|' => error.or_try("or is written ||"),
            '{' | '}' => error.or_try("there are no maps here"),
            _ => error,
        })
    }

    fn number(&mut self) -> Result<Token, ExprError> {
        let start = self.at;
        if self.rest().starts_with("0x") || self.rest().starts_with("0X") {
            self.at += 2;
            let digits = self.take_while(|c| c.is_ascii_alphanumeric() || c == '_');
            return u64::from_str_radix(digits, 16)
                .map(Token::Int)
                .map_err(|_| self.error_from(start, "not a hexadecimal integer of 64 bits"));
        }
        let digits = |c: char| c.is_ascii_digit();
        self.take_while(digits);
        let mut float = false;
        if self.rest().starts_with('.') && self.rest()[1..].starts_with(digits) {
            float = true;
            self.at += 1;
            self.take_while(digits);
        }
        if self.rest().starts_with(['e', 'E']) {
            float = true;
            self.at += 1;
            if self.rest().starts_with(['+', '-']) {
                self.at += 1;
            }
            self.take_while(digits);
        }
        let text = &self.source[start..self.at];
        if !self.take_while(|c| c.is_ascii_alphanumeric() || c == '_').is_empty() {
            return Err(self.error_from(start, "a number ends where a letter follows").or_try("units are written as duration(\"30s\")"));
        }
        if float {
            let parsed = text.parse::<f64>().ok().filter(|f| f.is_finite());
            return parsed.map(Token::Float).ok_or_else(|| self.error_from(start, "not a number of 64 bits"));
        }
        text.parse().map(Token::Int).map_err(|_| self.error_from(start, "the integer does not fit 64 bits"))
    }

    /// A string, the quote being next.
    fn string(&mut self, raw: bool) -> Result<Token, ExprError> {
        let start = self.at;
        let quote = if self.rest().starts_with('"') { '"' } else { '\'' };
        if self.rest().starts_with("\"\"\"") || self.rest().starts_with("'''") {
            self.at += 3;
            return Err(self.error_from(start, "there are no triple-quoted strings here"));
        }
        self.at += 1;
        let mut text = String::new();
        loop {
            text.push_str(self.take_while(|c| c != quote && (raw || c != '\\') && c != '\n' && c != '\r'));
            match self.rest().chars().next() {
                Some(c) if c == quote => {
                    self.at += 1;
                    return Ok(Token::Str(text));
                }
                Some('\\') => text.push(self.escape()?),
                _ => return Err(self.error_from(start, "the string is not closed on its line")),
            }
        }
    }

    /// An escape as CEL has them, the backslash being next.
    fn escape(&mut self) -> Result<char, ExprError> {
        let start = self.at;
        self.at += 1;
        let kind = self.rest().chars().next();
        self.at += kind.map_or(0, char::len_utf8);
        let simple = match kind {
            Some(c @ ('\\' | '\'' | '"' | '`' | '?')) => c,
            Some('a') => '\x07',
            Some('b') => '\x08',
            Some('f') => '\x0c',
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some('v') => '\x0b',
            Some('x' | 'X') => return self.code(start, 2, 16),
            Some('u') => return self.code(start, 4, 16),
            Some('U') => return self.code(start, 8, 16),
            Some('0'..='3') => {
                self.at -= 1;
                return self.code(start, 3, 8);
            }
            _ => {
                return Err(self.error_from(start, "unknown escape").or_try("a backslash itself is written \\\\, or the string as r\"…\""));
            }
        };
        Ok(simple)
    }

    fn code(&mut self, start: usize, length: usize, radix: u32) -> Result<char, ExprError> {
        let digits = self.rest().get(..length).filter(|d| d.chars().all(|c| c.is_digit(radix)));
        self.at += digits.map_or(0, str::len);
        let code = digits.and_then(|d| u32::from_str_radix(d, radix).ok()).and_then(char::from_u32);
        code.ok_or_else(|| self.error_from(start, "the escape does not name a character"))
    }
}
