//! Checking the functions: each takes what the table in `docs/expressions.md` says and nothing else.

use super::ExprError;
use super::check::{Checker, Operand, Typed, expect, text_of, unknown};
use super::network::{Network, NetworkSet};
use super::node::Node;
use super::sets::PrefixSet;
use super::text::{Case, TextTest};
use super::tree::{Const, Kind, Span, Tree};
use super::value_ops::duration_ms;
use crate::event::Field;
use crate::value::Type;
use regex::{Regex, RegexBuilder};
use std::sync::Arc;

/// Functions called as `name(…)`.
pub(super) const FUNCTIONS: &[&str] = &["has", "size", "cidr", "duration", "hour_of_week"];
/// Functions called as `text.name(…)`.
pub(super) const METHODS: &[&str] = &["startsWith", "endsWith", "contains", "matches", "startsWithAny", "lowerAscii", "upperAscii", "size"];
/// What a compiled regular expression may take, in bytes.
pub(super) const MAX_REGEX_BYTES: usize = 1 << 20;
/// What the states that a regular expression remembers while it runs may take, in bytes, in each thread that runs it. When
/// they are full it forgets them and goes on.
pub(super) const MAX_REGEX_CACHE_BYTES: usize = 512 << 10;

impl Checker<'_> {
    /// A call of any kind.
    pub fn call(
        &mut self,
        name: &str,
        name_span: Span,
        receiver: Option<&Tree>,
        arguments: &[Tree],
        span: Span,
    ) -> Result<Operand, ExprError> {
        if let Some(receiver) = receiver {
            return self.method(name, name_span, receiver, arguments, span);
        }
        let (node, ty) = match (name, arguments) {
            ("has", [field]) => (self.has(field)?, Type::Bool),
            ("size", [text]) => (self.size(text)?, Type::Int),
            ("cidr", [address, networks]) => (self.cidr(address, networks)?, Type::Bool),
            ("duration", [text]) => (duration(text)?, Type::Int),
            ("hour_of_week", []) => (self.hour_of_week(span), Type::Int),
            ("has" | "size" | "duration", _) => return Err(wrong_count(span, name, "1 argument", arguments)),
            ("cidr", _) => return Err(wrong_count(span, name, "2 arguments", arguments)),
            ("hour_of_week", _) => return Err(wrong_count(span, name, "no argument", arguments)),
            _ if METHODS.contains(&name) => {
                return Err(name_span.error(format!("{name}() is called on a string")).or_try(format!("write path.{name}(…)")));
            }
            _ => return Err(unknown(name_span, "function", name, FUNCTIONS.iter().copied())),
        };
        Ok(Operand::Value(Typed { node, ty, span }))
    }

    fn method(&mut self, name: &str, name_span: Span, receiver: &Tree, arguments: &[Tree], span: Span) -> Result<Operand, ExprError> {
        let (node, ty) = match (name, arguments) {
            ("startsWith", [part]) => (self.part(TextTest::StartsWith, name, receiver, part)?, Type::Bool),
            ("endsWith", [part]) => (self.part(TextTest::EndsWith, name, receiver, part)?, Type::Bool),
            ("contains", [part]) => (self.contains(receiver, part)?, Type::Bool),
            ("matches", [pattern]) => (self.matches(receiver, pattern)?, Type::Bool),
            ("startsWithAny", [prefixes]) => (self.starts_with_any(receiver, prefixes)?, Type::Bool),
            ("size", []) => (self.size(receiver)?, Type::Int),
            ("lowerAscii", []) => return self.cased(name, receiver, Case::Lower, span),
            ("upperAscii", []) => return self.cased(name, receiver, Case::Upper, span),
            ("size" | "lowerAscii" | "upperAscii", _) => return Err(wrong_count(span, name, "no argument", arguments)),
            _ if METHODS.contains(&name) => return Err(wrong_count(span, name, "1 argument", arguments)),
            _ if FUNCTIONS.contains(&name) => {
                return Err(name_span.error(format!("{name}() is not called on a value")).or_try(format!("write {name}(…)")));
            }
            ("exists" | "all" | "map" | "filter" | "exists_one", _) => return Err(name_span.error("there are no comprehensions here")),
            _ => return Err(unknown(name_span, "function", name, METHODS.iter().copied())),
        };
        Ok(Operand::Value(Typed { node, ty, span }))
    }

    fn has(&mut self, tree: &Tree) -> Result<Node, ExprError> {
        let Kind::Path(path) = &tree.kind else {
            return Err(tree.span.error("has() takes a field"));
        };
        match self.operand(tree)? {
            Operand::Value(Typed { node: Node::Field(field), .. }) if !(path.len() == 1 && self.scope.lets.contains_key(&path[0])) => {
                Ok(Node::Has(field))
            }
            _ => Err(tree.span.error("has() takes a field, this is a let or a list")),
        }
    }

    fn hour_of_week(&mut self, span: Span) -> Node {
        if let Some(field) = Field::named(&["event_time"]) {
            self.read(field, span);
        }
        Node::HourOfWeek
    }

    fn size(&mut self, tree: &Tree) -> Result<Node, ExprError> {
        Ok(Node::Size(Box::new(self.exact_text(tree, "size()")?.node)))
    }

    fn cased(&mut self, name: &str, receiver: &Tree, case: Case, span: Span) -> Result<Operand, ExprError> {
        let typed = self.exact_text(receiver, &format!("{name}()"))?;
        Ok(Operand::Cased(Typed { span, ..typed }, case))
    }

    fn part(&mut self, test: TextTest, name: &str, receiver: &Tree, part: &Tree) -> Result<Node, ExprError> {
        let user = format!("{name}()");
        let (subject, case) = self.text(receiver, &user)?;
        let (part, part_case) = self.text(part, &user)?;
        Ok(Node::Text(test, subject.seen(case), part.seen(part_case)))
    }

    fn contains(&mut self, receiver: &Tree, part: &Tree) -> Result<Node, ExprError> {
        let part_span = part.span;
        let (subject, case) = self.text(receiver, "contains()")?;
        let (part, part_case) = self.text(part, "contains()")?;
        let (subject, part) = (subject.seen(case), part.seen(part_case));
        if (subject.case, part.case) == (Case::Exact, Case::Exact) {
            return Ok(Node::Contains(subject.node, part.node));
        }
        // Looking for one text of the event in another without regard to case could take quadratic time.
        let Node::Const(Const::Str(needle)) = *part.node else {
            return Err(part_span.error("contains() with lowerAscii() or upperAscii() takes a literal"));
        };
        if subject.case.of(&needle) != *needle {
            // A lower-case text contains no upper-case letter.
            return Ok(Node::Const(Const::Bool(false)));
        }
        let pattern: String = needle.chars().map(either_case).collect();
        self.size.add_pattern(part_span)?;
        Ok(Node::Matches(subject.node, regex(&pattern, part_span)?))
    }

    fn matches(&mut self, receiver: &Tree, pattern: &Tree) -> Result<Node, ExprError> {
        let subject = match self.operand(receiver)? {
            Operand::Value(typed) => typed,
            Operand::Cased(..) => {
                return Err(receiver
                    .span
                    .error("matches() does not take lowerAscii() or upperAscii()")
                    .or_try("begin the pattern with (?i)"));
            }
            Operand::List(_) => return Err(receiver.span.error("matches() takes string, this is a list")),
        };
        expect(&subject, &[Type::Str], "matches()")?;
        let span = pattern.span;
        let pattern = self.exact_text(pattern, "matches()")?;
        let pattern = pattern.literal().ok_or_else(|| span.error("the pattern of matches() is a literal"))?;
        self.size.add_pattern(span)?;
        Ok(Node::Matches(Box::new(subject.node), regex(pattern, span)?))
    }

    fn starts_with_any(&mut self, receiver: &Tree, prefixes: &Tree) -> Result<Node, ExprError> {
        let (subject, case) = self.text(receiver, "startsWithAny()")?;
        let prefixes = self.texts(prefixes, "startsWithAny()")?;
        let subject = subject.seen(case);
        Ok(Node::StartsWithAny(subject.node, Arc::new(PrefixSet::new(prefixes, subject.case))))
    }

    fn cidr(&mut self, address: &Tree, networks: &Tree) -> Result<Node, ExprError> {
        let address = self.exact_text(address, "cidr()")?;
        let texts = match &networks.kind {
            Kind::Literal(Const::Str(text)) => vec![text.clone()],
            _ => self.texts(networks, "cidr()")?,
        };
        let networks: Result<Vec<Network>, _> =
            texts.iter().map(|text| Network::parse(text).map_err(|message| networks.span.error(message))).collect();
        Ok(Node::InNetworks(Box::new(address.node), Arc::new(NetworkSet::new(networks?))))
    }

    /// A list of texts.
    fn texts(&mut self, tree: &Tree, user: &str) -> Result<Vec<Box<str>>, ExprError> {
        let texts = match self.operand(tree)? {
            Operand::List(list) => list.entries.iter().map(text_of).collect(),
            _ => None,
        };
        texts.ok_or_else(|| tree.span.error(format!("{user} takes a list of strings")).or_try("write [\"a\", \"b\"] or lists.NAME"))
    }
}

fn duration(tree: &Tree) -> Result<Node, ExprError> {
    let Kind::Literal(Const::Str(text)) = &tree.kind else {
        return Err(tree.span.error("duration() takes a literal").or_try("write duration(\"30s\")"));
    };
    duration_ms(text).map(|ms| Node::Const(Const::Int(ms))).map_err(|message| tree.span.error(message))
}

/// A pattern for one character, an ASCII letter in both its cases.
fn either_case(c: char) -> String {
    if c.is_ascii_alphabetic() { format!("[{}{}]", c.to_ascii_lowercase(), c.to_ascii_uppercase()) } else { regex::escape(&c.to_string()) }
}

fn regex(pattern: &str, span: Span) -> Result<Regex, ExprError> {
    let built = RegexBuilder::new(pattern).size_limit(MAX_REGEX_BYTES).dfa_size_limit(MAX_REGEX_CACHE_BYTES).nest_limit(64).build();
    built.map_err(|error| match error {
        regex::Error::CompiledTooBig(limit) => span.error(format!("the pattern needs more than {limit} bytes when compiled")),
        // The last line of a syntax error says what is wrong; the ones before draw a picture of the pattern.
        other => {
            let text = other.to_string();
            let reason = text.lines().last().unwrap_or_default().trim().trim_start_matches("error: ");
            span.error(format!("not a regular expression: {reason}"))
        }
    })
}

fn wrong_count(span: Span, name: &str, wanted: &str, arguments: &[Tree]) -> ExprError {
    span.error(format!("{name}() takes {wanted}, not {}", arguments.len()))
}
