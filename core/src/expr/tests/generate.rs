//! Random well-typed expressions and events, drawn from bytes so that a failure shrinks.

/// A source of choices; when it is used up every choice is the first, which ends the expression.
pub(super) struct Choices<'b> {
    bytes: &'b [u8],
    at: usize,
}

impl<'b> Choices<'b> {
    pub fn new(bytes: &'b [u8]) -> Choices<'b> {
        Choices { bytes, at: 0 }
    }

    pub fn below(&mut self, bound: usize) -> usize {
        let byte = self.bytes.get(self.at).copied().unwrap_or(0);
        self.at += 1;
        usize::from(byte) % bound
    }

    pub fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    fn some<T: Copy>(&mut self, of: &[T]) -> Vec<T> {
        (0..self.below(4)).map(|_| self.one(of)).collect()
    }
}

/// An expression whose meaning does not need our parser.
#[derive(Debug, Clone)]
pub(super) enum Gen {
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(&'static str),
    Field(&'static str),
    Has(&'static str),
    Not(Box<Gen>),
    Negate(Box<Gen>),
    Infix(&'static str, Box<Gen>, Box<Gen>),
    Ternary(Box<[Gen; 3]>),
    InInts(Box<Gen>, Vec<i64>),
    /// In the list `codes`, as a number.
    InCodes(Box<Gen>),
    InTexts(Box<Gen>, Texts),
    Method(&'static str, Box<Gen>, Box<Gen>),
    Folded(&'static str, Box<Gen>),
    StartsWithAny(Box<Gen>, Texts),
    Cidr(Box<Gen>, &'static str),
    /// In one of the networks of the list `offices`.
    InOffices(Box<Gen>),
    Duration(&'static str),
    HourOfWeek,
    Size(Box<Gen>),
}

#[derive(Debug, Clone)]
pub(super) enum Texts {
    Literal(Vec<&'static str>),
    Named(&'static str),
}

/// A list of whole numbers, which are texts as well.
pub(super) const CODES: (&str, &[&str]) = ("codes", &["403", "-1", "7", "200", "401", "404", "9007199254740992", "1", "2", "3"]);
/// A list of networks that overlap and touch.
pub(super) const OFFICES: (&str, &[&str]) =
    ("offices", &["10.1.2.0/24", "10.1.0.0/16", "10.0.0.0/16", "2001:db8::/48", "2001:db8::1/128", "192.168.0.0/16"]);
/// The lists of texts that both sides know.
pub(super) const LISTS: &[(&str, &[&str])] = &[
    ("short", &["/admin/", "POST", ""]),
    ("long", &["/a", "/admin/", "/b/c", "post", "POST", "10.", "u", "Åb", "x", "y", "z", "aa", "aaa"]),
];

pub(super) const STRINGS: &[&str] =
    &["", "a", "A", "admin", "/admin/x", "/Admin/X", "POST", "post", "10.1.2.3", "2001:db8::1", "Åb", "åb", "u1", "403", "it's \"x\"\\\n"];
pub(super) const INTS: &[i64] = &[0, 1, -1, 2, 7, 200, 403, 404, 1_795_255_200_000, i64::MAX, i64::MIN, 1 << 53];
pub(super) const FLOATS: &[f64] = &[0.0, 0.5, -1.5, 2.0, 403.0, 9_007_199_254_740_992.0];
pub(super) const STRING_FIELDS: &[&str] =
    &["method", "path", "route", "user_id", "ip_address", "role", "headers[\"x-tenant\"]", "headers.host", "data.kind", "data.form.kind"];
pub(super) const INT_FIELDS: &[&str] = &["status_code", "response_time_ms", "asn", "event_time", "data.amount"];
pub(super) const FLOAT_FIELDS: &[&str] = &["data.ratio"];
pub(super) const BOOL_FIELDS: &[&str] = &["is_staff", "is_authenticated", "data.ok"];
const HAS_FIELDS: &[&str] = &["user_id", "asn", "is_staff", "event_time", "headers.host", "data.amount", "data.form.kind"];
const PATTERNS: &[&str] = &["", "^/[aA]dmin", "\\d+$", "(?i)POST", "[^a-z]", "x|y", "^\\p{Lu}"];
const NETWORKS: &[&str] = &["10.0.0.0/8", "2001:db8::/32", "0.0.0.0/0", "192.168.0.0/16"];
pub(super) const DURATIONS: &[(&str, i64)] = &[("30s", 30_000), ("1h30m", 5_400_000), ("5ms", 5)];
const COMPARISONS: &[&str] = &["==", "!=", "<", "<=", ">", ">="];

fn boxed(gen_: Gen) -> Box<Gen> {
    Box::new(gen_)
}

fn infix(sign: &'static str, left: Gen, right: Gen) -> Gen {
    Gen::Infix(sign, boxed(left), boxed(right))
}

fn texts(c: &mut Choices<'_>) -> Texts {
    match c.below(4) {
        0 => Texts::Literal(c.some(STRINGS)),
        3 => Texts::Named(CODES.0),
        n => Texts::Named(LISTS[n - 1].0),
    }
}

/// An expression of any type, questions most.
pub(super) fn anything(c: &mut Choices<'_>, depth: usize) -> Gen {
    match c.below(8) {
        0 => integer(c, depth),
        1 => float(c, depth),
        2 => string(c, depth),
        _ => boolean(c, depth),
    }
}

pub(super) fn boolean(c: &mut Choices<'_>, depth: usize) -> Gen {
    let kind = if depth == 0 { c.below(3) } else { c.below(22) };
    match kind {
        0 => Gen::Bool(c.below(2) == 0),
        1 => Gen::Field(c.one(BOOL_FIELDS)),
        2 => Gen::Has(c.one(HAS_FIELDS)),
        3 => Gen::Not(boxed(boolean(c, depth - 1))),
        4..=6 => infix("&&", boolean(c, depth - 1), boolean(c, depth - 1)),
        7..=9 => infix("||", boolean(c, depth - 1), boolean(c, depth - 1)),
        10 => ternary(boolean, c, depth),
        11 => infix(c.one(COMPARISONS), integer(c, depth - 1), integer(c, depth - 1)),
        12 => infix(c.one(COMPARISONS), float(c, depth - 1), if c.below(2) == 0 { float(c, depth - 1) } else { integer(c, depth - 1) }),
        13 => infix(c.one(COMPARISONS), string(c, depth - 1), string(c, depth - 1)),
        14 => infix(c.one(&COMPARISONS[..2]), boolean(c, depth - 1), boolean(c, depth - 1)),
        15 => infix(c.one(&COMPARISONS[..2]), folded(c, depth), folded(c, depth)),
        16 => Gen::InInts(boxed(integer(c, depth - 1)), c.some(INTS)),
        17 => Gen::InTexts(boxed(folded(c, depth)), texts(c)),
        18 => text_question(c, depth),
        19 => Gen::InCodes(boxed(integer(c, depth - 1))),
        20 => Gen::InOffices(boxed(string(c, depth - 1))),
        _ => Gen::Cidr(boxed(string(c, depth - 1)), c.one(NETWORKS)),
    }
}

fn text_question(c: &mut Choices<'_>, depth: usize) -> Gen {
    match c.below(6) {
        0 => Gen::Method("matches", boxed(string(c, depth - 1)), boxed(Gen::Str(c.one(PATTERNS)))),
        1 => Gen::StartsWithAny(boxed(folded(c, depth)), texts(c)),
        2 => Gen::Method("contains", boxed(folded(c, depth)), boxed(Gen::Str(c.one(STRINGS)))),
        3 => Gen::Method("contains", boxed(string(c, depth - 1)), boxed(string(c, depth - 1))),
        4 => Gen::Method("startsWith", boxed(folded(c, depth)), boxed(folded(c, depth))),
        _ => Gen::Method("endsWith", boxed(folded(c, depth)), boxed(folded(c, depth))),
    }
}

/// A string, perhaps in another case.
fn folded(c: &mut Choices<'_>, depth: usize) -> Gen {
    let inner = string(c, depth - 1);
    match c.below(4) {
        0 => Gen::Folded("lowerAscii", boxed(inner)),
        1 => Gen::Folded("upperAscii", boxed(inner)),
        _ => inner,
    }
}

fn ternary(branch: fn(&mut Choices<'_>, usize) -> Gen, c: &mut Choices<'_>, depth: usize) -> Gen {
    Gen::Ternary(Box::new([boolean(c, depth - 1), branch(c, depth - 1), branch(c, depth - 1)]))
}

fn string(c: &mut Choices<'_>, depth: usize) -> Gen {
    match c.below(if depth == 0 { 5 } else { 6 }) {
        0 | 1 => Gen::Str(c.one(STRINGS)),
        2..=4 => Gen::Field(c.one(STRING_FIELDS)),
        _ => ternary(string, c, depth),
    }
}

fn integer(c: &mut Choices<'_>, depth: usize) -> Gen {
    match c.below(if depth == 0 { 5 } else { 10 }) {
        0 => Gen::Int(c.one(INTS)),
        1 | 2 => Gen::Field(c.one(INT_FIELDS)),
        3 => Gen::Duration(c.one(DURATIONS).0),
        4 => Gen::HourOfWeek,
        5 => Gen::Size(boxed(string(c, depth - 1))),
        6 => ternary(integer, c, depth),
        7 => Gen::Negate(boxed(Gen::Field(c.one(INT_FIELDS)))),
        8 => infix(c.one(&["/", "%"]), integer(c, depth - 1), Gen::Field(c.one(INT_FIELDS))),
        // One side is a field, because what overflows among literals is refused.
        _ => infix(c.one(&["+", "-", "*"]), integer(c, depth - 1), Gen::Field(c.one(INT_FIELDS))),
    }
}

/// Floats stay finite: a result that is not is missing here and infinite in CEL.
fn float(c: &mut Choices<'_>, depth: usize) -> Gen {
    match c.below(if depth == 0 { 2 } else { 5 }) {
        0 => Gen::Float(c.one(FLOATS)),
        1 => Gen::Field(c.one(FLOAT_FIELDS)),
        2 => ternary(float, c, depth),
        3 => infix("/", float(c, depth - 1), Gen::Float(2.5)),
        _ => infix(c.one(&["+", "-", "*"]), float(c, depth - 1), float(c, depth - 1)),
    }
}

/// How the two dialects differ on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    Ours,
    Cel,
}

impl Gen {
    fn precedence(&self) -> u8 {
        match self {
            Gen::Ternary(_) => 0,
            Gen::Infix("||", ..) => 1,
            Gen::Infix("&&", ..) => 2,
            Gen::Infix("+" | "-", ..) => 4,
            Gen::Infix("*" | "/" | "%", ..) => 5,
            Gen::Infix(..) | Gen::InInts(..) | Gen::InTexts(..) | Gen::InCodes(_) => 3,
            Gen::Not(_) | Gen::Negate(_) => 6,
            _ => 7,
        }
    }

    /// With brackets only where precedence asks for them.
    fn within(&self, precedence: u8, dialect: Dialect) -> String {
        let text = self.print(dialect);
        if self.precedence() < precedence { format!("({text})") } else { text }
    }

    pub fn print(&self, dialect: Dialect) -> String {
        let inside = |gen_: &Gen, precedence| gen_.within(precedence, dialect);
        match self {
            Gen::Bool(b) => b.to_string(),
            Gen::Int(i) => i.to_string(),
            Gen::Float(f) => format!("{f:?}"),
            Gen::Str(text) => quoted(text),
            Gen::Field(name) => (*name).to_owned(),
            Gen::Has(name) if dialect == Dialect::Cel => format!("has(event.{name})"),
            Gen::Has(name) => format!("has({name})"),
            Gen::Not(inner) => format!("!{}", inside(inner, 6)),
            Gen::Negate(inner) => format!("-{}", inside(inner, 7)),
            Gen::Infix(sign, left, right) => format!("{} {sign} {}", inside(left, self.precedence()), inside(right, self.precedence() + 1)),
            Gen::Ternary(parts) => format!("{} ? {} : {}", inside(&parts[0], 1), inside(&parts[1], 1), inside(&parts[2], 0)),
            Gen::InInts(left, items) => format!("{} in {items:?}", inside(left, 3)),
            Gen::InCodes(left) => format!("{} in lists.{}", inside(left, 3), CODES.0),
            Gen::InTexts(left, texts) => format!("{} in {}", inside(left, 3), texts.print()),
            Gen::Method(name, receiver, argument) => format!("{}.{name}({})", inside(receiver, 7), inside(argument, 0)),
            Gen::Folded(name, receiver) => format!("{}.{name}()", inside(receiver, 7)),
            Gen::StartsWithAny(receiver, texts) => format!("{}.startsWithAny({})", inside(receiver, 7), texts.print()),
            Gen::Cidr(address, network) => format!("cidr({}, {network:?})", inside(address, 0)),
            Gen::InOffices(address) if dialect == Dialect::Cel => format!("cidr_any({}, lists.{})", inside(address, 0), OFFICES.0),
            Gen::InOffices(address) => format!("cidr({}, lists.{})", inside(address, 0), OFFICES.0),
            Gen::Duration(text) if dialect == Dialect::Cel => format!("duration_ms({text:?})"),
            Gen::Duration(text) => format!("duration({text:?})"),
            Gen::HourOfWeek => "hour_of_week()".to_owned(),
            Gen::Size(text) => format!("size({})", inside(text, 0)),
        }
    }
}

impl Texts {
    fn print(&self) -> String {
        match self {
            Texts::Literal(texts) => format!("[{}]", texts.iter().map(|t| quoted(t)).collect::<Vec<_>>().join(", ")),
            Texts::Named(name) => format!("lists.{name}"),
        }
    }

    pub fn items(&self) -> Vec<&'static str> {
        match self {
            Texts::Literal(texts) => texts.clone(),
            Texts::Named(name) => {
                LISTS.iter().chain([&CODES]).find(|(n, _)| n == name).map(|(_, texts)| texts.to_vec()).unwrap_or_default()
            }
        }
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}
