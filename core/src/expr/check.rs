//! Tree to checked form: names are resolved, types are compared, literals are prepared, lets are put in their place.

use super::node::{Node, Seen};
use super::size::{MAX_DEPTH, Size};
use super::text::Case;
use super::tree::{Binary, Const, Kind, Span, Tree};
use super::{ExprError, Scope, parse, tidy};
use crate::diagnostic::nearest;
use crate::event::{FIELDS, Field};
use crate::value::Type;
use std::collections::BTreeMap;
use std::rc::Rc;

/// What a tree turned out to be.
#[derive(Debug)]
pub(super) enum Operand {
    Value(Typed),
    /// `x.lowerAscii()`: only to be compared, because making it would allocate.
    Cased(Typed, Case),
    /// A list: only on the right of `in` and in a few functions.
    List(List),
}

/// The entries of a list.
#[derive(Debug)]
pub(super) struct List {
    pub entries: Vec<Const>,
    /// Written as `lists.NAME`: its entries are texts, in which whole numbers may be written.
    pub named: bool,
}

/// A value's node, its type and the place it was written.
#[derive(Debug)]
pub(super) struct Typed {
    pub node: Node,
    pub ty: Type,
    pub span: Span,
}

impl Typed {
    /// The text, if it is a literal.
    pub fn literal(&self) -> Option<&str> {
        match &self.node {
            Node::Const(Const::Str(text)) => Some(text),
            _ => None,
        }
    }

    /// It as a text to be seen in a case; a literal is put in that case right away.
    pub fn seen(self, case: Case) -> Seen {
        if let Some(text) = self.literal() {
            return Seen { node: Box::new(Node::Const(Const::Str(case.of(text).into()))), case: Case::Exact };
        }
        Seen { node: Box::new(self.node), case }
    }
}

/// One compilation.
pub(super) struct Checker<'s> {
    pub scope: &'s Scope,
    /// The fields read so far, each once.
    pub fields: Vec<Field>,
    /// The lets being put in, outermost first.
    open: Vec<&'s str>,
    /// The lets put in so far, parsed once however often they are named.
    parsed: BTreeMap<&'s str, Rc<Tree>>,
    depth: usize,
    /// How much there is of it so far, its lets put in.
    pub size: Size,
}

impl<'s> Checker<'s> {
    pub fn new(scope: &'s Scope) -> Checker<'s> {
        Checker { scope, fields: Vec::new(), open: Vec::new(), parsed: BTreeMap::new(), depth: 0, size: Size::default() }
    }

    /// For the source of the let of this name: naming it again is a circle.
    pub fn inside(scope: &'s Scope, name: &'s str) -> Checker<'s> {
        Checker { open: vec![name], ..Checker::new(scope) }
    }

    /// A tree that must be a value.
    pub fn value(&mut self, tree: &Tree) -> Result<Typed, ExprError> {
        match self.operand(tree)? {
            Operand::Value(typed) => Ok(typed),
            Operand::List(_) => Err(tree.span.error("a list is not a value here").or_try("test membership with `in`")),
            Operand::Cased(..) => Err(tree
                .span
                .error("lowerAscii() and upperAscii() can only be compared")
                .or_try("use the result directly with ==, !=, in, startsWith, endsWith, contains or startsWithAny")),
        }
    }

    /// A tree that must be a text, in any case.
    pub fn text(&mut self, tree: &Tree, user: &str) -> Result<(Typed, Case), ExprError> {
        let (typed, case) = match self.operand(tree)? {
            Operand::Cased(typed, case) => (typed, case),
            Operand::Value(typed) => (typed, Case::Exact),
            Operand::List(_) => return Err(tree.span.error(format!("{user} takes string, this is a list"))),
        };
        expect(&typed, &[Type::Str], user)?;
        Ok((typed, case))
    }

    /// A tree that must be a text as it is.
    pub fn exact_text(&mut self, tree: &Tree, user: &str) -> Result<Typed, ExprError> {
        let typed = self.value(tree)?;
        expect(&typed, &[Type::Str], user)?;
        Ok(typed)
    }

    /// A tree that must be a question.
    pub fn truth(&mut self, tree: &Tree, user: &str) -> Result<Node, ExprError> {
        let typed = self.value(tree)?;
        expect(&typed, &[Type::Bool], user)?;
        Ok(typed.node)
    }

    fn truths(&mut self, trees: &[Tree], user: &str) -> Result<Vec<Node>, ExprError> {
        trees.iter().map(|tree| self.truth(tree, user)).collect()
    }

    /// A tree that may be anything.
    pub fn operand(&mut self, tree: &Tree) -> Result<Operand, ExprError> {
        self.size.add_part(tree.span)?;
        if self.depth == MAX_DEPTH {
            let message = format!("the expression nests more than {MAX_DEPTH} deep with its lets put in");
            return Err(tree.span.error(message).or_try("split the rule"));
        }
        self.depth += 1;
        let operand = self.operand_inside(tree);
        self.depth -= 1;
        operand
    }

    fn operand_inside(&mut self, tree: &Tree) -> Result<Operand, ExprError> {
        let (node, ty) = match &tree.kind {
            Kind::Literal(constant) => (Node::Const(constant.clone()), type_of(constant)),
            Kind::List(items) => {
                let entries = items.iter().map(|item| self.item(item)).collect::<Result<_, _>>()?;
                return Ok(Operand::List(List { entries, named: false }));
            }
            Kind::Path(path) => return self.path(path, tree.span),
            Kind::Call { name, name_span, receiver, arguments } => {
                return self.call(name, *name_span, receiver.as_deref(), arguments, tree.span);
            }
            Kind::Not(inner) => (tidy::not(self.truth(inner, "!")?), Type::Bool),
            Kind::All(parts) => (tidy::all(self.truths(parts, "&&")?), Type::Bool),
            Kind::AnyOf(parts) => (tidy::any_of(self.truths(parts, "||")?), Type::Bool),
            Kind::Ternary(parts) => self.ternary(parts, tree.span)?,
            Kind::Negate(inner) => self.negate(inner, tree.span)?,
            Kind::Binary(Binary::Compare(operator), left, right) => (self.compare(*operator, left, right, tree.span)?, Type::Bool),
            Kind::Binary(Binary::In, left, right) => (self.membership(left, right, tree.span)?, Type::Bool),
            Kind::Binary(Binary::Arithmetic(operator), left, right) => self.arithmetic(*operator, left, right, tree.span)?,
        };
        Ok(Operand::Value(Typed { node, ty, span: tree.span }))
    }

    /// One item of a list literal.
    fn item(&mut self, tree: &Tree) -> Result<Const, ExprError> {
        self.size.add_part(tree.span)?;
        match &tree.kind {
            Kind::Literal(constant) => Ok(constant.clone()),
            _ => Err(tree.span.error("a list holds literals only").or_try("write the comparisons out with ||")),
        }
    }

    fn path(&mut self, path: &[String], span: Span) -> Result<Operand, ExprError> {
        let scope = self.scope;
        let keys: Vec<&str> = path.iter().map(String::as_str).collect();
        let let_source = if let [name] = keys[..] { scope.lets.get_key_value(name) } else { None };
        let field = Field::named(&keys);
        match (keys.as_slice(), field, let_source) {
            ([name], Some(_), Some(_)) => Err(span.error(format!("`{name}` is both a field and a let")).or_try("rename the let")),
            (_, Some(field), None) => Ok(Operand::Value(self.read(field, span))),
            (_, None, Some((name, source))) => self.inlined(name, source, span),
            (["lists", name], None, _) => match scope.lists.get(*name) {
                Some(texts) => {
                    self.size.add_list(texts.len(), span)?;
                    let entries = texts.iter().map(|text| Const::Str(text.as_str().into())).collect();
                    Ok(Operand::List(List { entries, named: true }))
                }
                None => Err(unknown(span, "list", name, scope.lists.keys().map(String::as_str))),
            },
            (["lists", ..], ..) => Err(span.error("a list is named as lists.NAME")),
            (["headers", ..], ..) => Err(span.error("a header is named as headers[\"name\"]")),
            (["data", ..], ..) => Err(span.error("a value in data is named as data.name")),
            ([root, _, ..], ..) if FIELDS.iter().any(|row| row.name == *root) || scope.lets.contains_key(*root) => {
                Err(span.error(format!("`{root}` has no parts")))
            }
            ([root, ..], ..) => {
                let fields = FIELDS.iter().map(|row| row.name).chain(["headers", "data", "lists"]);
                let name_span = Span { start: span.start, end: (span.start + root.len()).min(span.end) };
                Err(unknown(name_span, "field", root, fields.chain(scope.lets.keys().map(String::as_str))))
            }
            ([], ..) => Err(span.error("expected a name")),
        }
    }

    /// A field, noted as read.
    pub fn read(&mut self, field: Field, span: Span) -> Typed {
        if !self.fields.contains(&field) {
            self.fields.push(field.clone());
        }
        Typed { ty: field.ty(), node: Node::Field(field), span }
    }

    /// A let in the place of its name. Errors inside point at the name, because its own source is elsewhere.
    fn inlined(&mut self, name: &'s str, source: &'s str, span: Span) -> Result<Operand, ExprError> {
        if self.open.contains(&name) {
            let circle = self.open.iter().skip_while(|open| **open != name).chain([&name]).copied().collect::<Vec<_>>();
            return Err(span.error(format!("`{name}` is defined by itself: {}", circle.join(" → "))));
        }
        let here = |error: ExprError| ExprError { message: format!("in `{name}`: {}", error.message), help: error.help, ..span.error("") };
        self.open.push(name);
        let operand = self.parsed(name, source).and_then(|tree| self.operand(&tree)).map_err(here);
        self.open.pop();
        Ok(match operand? {
            Operand::Value(typed) => Operand::Value(Typed { span, ..typed }),
            Operand::Cased(typed, case) => Operand::Cased(Typed { span, ..typed }, case),
            list => list,
        })
    }

    fn parsed(&mut self, name: &'s str, source: &str) -> Result<Rc<Tree>, ExprError> {
        if let Some(tree) = self.parsed.get(name) {
            return Ok(Rc::clone(tree));
        }
        let tree = Rc::new(parse::parse(source)?);
        self.parsed.insert(name, Rc::clone(&tree));
        Ok(tree)
    }
}

/// The type of a literal.
pub(super) fn type_of(constant: &Const) -> Type {
    match constant {
        Const::Bool(_) => Type::Bool,
        Const::Int(_) => Type::Int,
        Const::Float(_) => Type::Float,
        Const::Str(_) => Type::Str,
    }
}

/// The text of a literal, if it is one.
pub(super) fn text_of(constant: &Const) -> Option<Box<str>> {
    match constant {
        Const::Str(text) => Some(text.clone()),
        _ => None,
    }
}

/// Whether values of these types may ever be equal.
pub(super) fn comparable(a: Type, b: Type) -> bool {
    let number = |ty| matches!(ty, Type::Int | Type::Float);
    a == b || a == Type::Any || b == Type::Any || (number(a) && number(b))
}

/// Refuses a value that is known to have none of these types.
pub(super) fn expect(typed: &Typed, types: &[Type], user: &str) -> Result<(), ExprError> {
    if typed.ty == Type::Any || types.contains(&typed.ty) {
        return Ok(());
    }
    let wanted: Vec<&str> = types.iter().map(|ty| ty.name()).collect();
    Err(typed.span.error(format!("{user} takes {}, this is {}", wanted.join(" or "), typed.ty.name())))
}

/// A name that nothing has.
pub(super) fn unknown<'a>(span: Span, what: &str, name: &str, known: impl IntoIterator<Item = &'a str>) -> ExprError {
    let error = span.error(format!("unknown {what} `{name}`"));
    match nearest(name, known) {
        Some(near) => error.or_try(format!("did you mean `{near}`?")),
        None => error,
    }
}
