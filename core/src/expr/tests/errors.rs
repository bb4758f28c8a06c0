use super::scope;
use crate::expr::{Expr, ExprError, Scope};

#[track_caller]
fn refused(source: &str, scope: &Scope) -> ExprError {
    match Expr::compile(source, scope) {
        Ok(expr) => panic!("{source} was accepted as {expr:?}"),
        Err(error) => error,
    }
}

/// The place must be exactly `at`, the message and the help exactly these.
#[track_caller]
fn check(source: &str, at: &str, message: &str, help: Option<&str>) {
    let error = refused(source, &scope());
    let place = source.get(error.offset..error.offset + error.length).unwrap_or("");
    assert_eq!((place, error.message.as_str(), error.help.as_deref()), (at, message, help), "{source}");
}

#[test]
fn unknown_names_come_with_the_nearest() {
    check("true && status_cod == 1", "status_cod", "unknown field `status_cod`", Some("did you mean `status_code`?"));
    check("xyzzy", "xyzzy", "unknown field `xyzzy`", None);
    check("refusd", "refusd", "unknown field `refusd`", Some("did you mean `refused`?"));
    check("(lists.adminprefixes) == 1", "lists.adminprefixes", "unknown list `adminprefixes`", Some("did you mean `admin_prefixes`?"));
    check("header.host == ''", "header", "unknown field `header`", Some("did you mean `headers`?"));
    check("path.startWith('a')", "startWith", "unknown function `startWith`", Some("did you mean `startsWith`?"));
    check("sizes(path)", "sizes", "unknown function `sizes`", Some("did you mean `size`?"));
    check("path.x == 1", "path.x", "`path` has no parts", None);
    check("headers == 1", "headers", "a header is named as headers[\"name\"]", None);
    check("data == 1", "data", "a value in data is named as data.name", None);
    check("lists == 1", "lists", "a list is named as lists.NAME", None);
}

#[test]
fn types_that_do_not_fit_are_both_named() {
    check("status_code == '404'", "status_code == '404'", "cannot compare int with string", Some("write 404 without quotes"));
    check("true || method < 3", "method < 3", "cannot compare string with int", None);
    let numbers = Some("a named list is one of numbers when every entry is a whole number");
    check("asn in lists.nearly_codes", "asn in lists.nearly_codes", "cannot find int in a list of string", numbers);
    check("is_staff in lists.codes", "is_staff in lists.codes", "cannot find bool in a list of string", None);
    check("path.lowerAscii() in ['a', 1]", "path.lowerAscii() in ['a', 1]", "cannot find string in a list of int", None);
    check("data.x.lowerAscii() in ['a', 1]", "data.x.lowerAscii() in ['a', 1]", "cannot find string in a list of int", None);
    check("cidr(ip_address, lists.many)", "lists.many", "\"/page0/\" is not a network", None);
    check("is_staff == 'yes'", "is_staff == 'yes'", "cannot compare bool with string", None);
    check("status_code in ['a']", "status_code in ['a']", "cannot find int in a list of string", None);
    check("path && true", "path", "&& takes bool, this is string", None);
    check("!status_code", "status_code", "! takes bool, this is int", None);
    check("status_code ? 1 : 2", "status_code", "?: takes bool, this is int", None);
    check("true ? 1 : 'a'", "true ? 1 : 'a'", "the branches of ?: differ in type: int and string", None);
    check("status_code.contains('4')", "status_code", "contains() takes string, this is int", None);
    check("path.endsWith(4)", "4", "endsWith() takes string, this is int", None);
    check("size(4)", "4", "size() takes string, this is int", None);
    check("-path", "path", "- takes int or float, this is string", None);
    check("path + 'a'", "path", "+ takes int or float, this is string", Some("strings cannot be built here"));
    check("status_code % 2.0", "2.0", "% takes int, this is float", None);
    let help = Some("write a float literal with its point: 2.0");
    check("1.5 * status_code", "1.5 * status_code", "* takes two numbers of one type, these are float and int", help);
    check("cidr(status_code, '10.0.0.0/8')", "status_code", "cidr() takes string, this is int", None);
    check(
        "headers.x-tenant == ''",
        "headers.x",
        "- takes int or float, this is string",
        Some("a header with dashes is written headers[\"x-tenant\"]"),
    );
}

#[test]
fn lists_and_folded_case_stay_where_they_can_be_used() {
    let use_in = Some("test membership with `in`");
    check("lists.many", "lists.many", "a list is not a value here", use_in);
    check("method == ['a']", "['a']", "a list cannot be compared", use_in);
    check("method in path", "path", "`in` takes a list, this is string", Some("write [a, b] or lists.NAME"));
    check("method in [path]", "path", "a list holds literals only", Some("write the comparisons out with ||"));
    check("path.startsWithAny([1])", "[1]", "startsWithAny() takes a list of strings", Some("write [\"a\", \"b\"] or lists.NAME"));
    let cased = "lowerAscii() and upperAscii() can only be compared";
    let directly = Some("use the result directly with ==, !=, in, startsWith, endsWith, contains or startsWithAny");
    check("path.lowerAscii()", "path.lowerAscii()", cased, directly);
    check("size(path.lowerAscii())", "path.lowerAscii()", cased, directly);
    check("path.lowerAscii() < 'a'", "path.lowerAscii()", cased, directly);
    check("path.lowerAscii().upperAscii() == ''", "path.lowerAscii()", cased, directly);
    let fold = "matches() does not take lowerAscii() or upperAscii()";
    check("path.lowerAscii().matches('a')", "path.lowerAscii()", fold, Some("begin the pattern with (?i)"));
    check("path.lowerAscii().contains(method)", "method", "contains() with lowerAscii() or upperAscii() takes a literal", None);
}

#[test]
fn arguments_are_checked_at_load() {
    check("has('a')", "'a'", "has() takes a field", None);
    check("has(refused)", "refused", "has() takes a field, this is a let or a list", None);
    check("has()", "has()", "has() takes 1 argument, not 0", None);
    check("path.startsWith()", "path.startsWith()", "startsWith() takes 1 argument, not 0", None);
    check("hour_of_week(1)", "hour_of_week(1)", "hour_of_week() takes no argument, not 1", None);
    check("startsWith(path, 'a')", "startsWith", "startsWith() is called on a string", Some("write path.startsWith(…)"));
    check("path.has()", "has", "has() is not called on a value", Some("write has(…)"));
    check("[1].map(path, 1)", "map", "there are no comprehensions here", None);
    check("path.matches(method)", "method", "the pattern of matches() is a literal", None);
    check("path.matches('(a')", "'(a'", "not a regular expression: unclosed group", None);
    check("path.matches('(a{999}){999}')", "'(a{999}){999}'", "the pattern needs more than 1048576 bytes when compiled", None);
    check("cidr(path, '10.0.0.0/33')", "'10.0.0.0/33'", "the prefix length of \"10.0.0.0/33\" is not 0 to 32", None);
    check("cidr(path, '10.0.0.1/8')", "'10.0.0.1/8'", "\"10.0.0.1/8\" has bits set behind its prefix", None);
    check("cidr(path, 'home')", "'home'", "\"home\" is not a network", None);
    check("cidr(path, '::ffff:0:0/90')", "'::ffff:0:0/90'", "\"::ffff:0:0/90\" reaches beyond the mapped version 4 addresses", None);
    check("duration(path)", "path", "duration() takes a literal", Some("write duration(\"30s\")"));
    let units = "is not a duration: whole numbers, each with its unit d, h, m, s or ms";
    for wrong in ["", "30", "s", "1w", "-1s", "1.5h", "1s ", "1é"] {
        check(&format!("duration('{wrong}')"), &format!("'{wrong}'"), &format!("\"{wrong}\" {units}"), None);
    }
    check("duration('999999999999d')", "'999999999999d'", "\"999999999999d\" is too long", None);
    check("status_code / 0", "0", "division by zero", None);
    check("9223372036854775807 + 1 > 0", "9223372036854775807 + 1", "the result does not fit 64 bits", None);
}

#[test]
fn syntax_errors_point_at_the_byte() {
    check("", "", "expected a value, found the end", None);
    check("a ==", "", "expected a value, found the end", None);
    check("status_code = 1", "=", "unexpected character '='", Some("equality is written =="));
    check("true & true", "&", "unexpected character '&'", Some("and is written &&"));
    check("true and true", "and", "expected the end or an operator, found `and`", Some("and is written &&"));
    check("not true", "not", "expected a value, found `not`", Some("not is written !"));
    check("path == null", "null", "there is no null here: absent and null are the same", Some("ask with has(field)"));
    check("for == 1", "for", "`for` is a reserved word", None);
    check("(true", "", "expected `)`, found the end", None);
    check("[1, 2", "", "expected `,` or `]`, found the end", None);
    check("true ? true ? 1 : 2 : 3", "?", "expected `:`, found `?`", None);
    check("'Å' == ½", "½", "unexpected character '½'", None);
    check("'abc", "'abc", "the string is not closed on its line", None);
    check("method == 'a\nb'", "'a", "the string is not closed on its line", None);
    check(r"'\q'", r"\q", "unknown escape", Some("a backslash itself is written \\\\, or the string as r\"…\""));
    check(r"'\ud800'", r"\ud800", "the escape does not name a character", None);
    check("b'a'", "b", "there are no byte strings here", None);
    check("'''a'''", "'''", "there are no triple-quoted strings here", None);
    check("1u == 1", "1u", "a number ends where a letter follows", Some("units are written as duration(\"30s\")"));
    check("9223372036854775808", "9223372036854775808", "the integer does not fit 64 bits", None);
    check("1e999", "1e999", "not a number of 64 bits", None);
    check("data[0]", "0", "expected a string, found a number", Some("only headers[\"name\"] and data[\"name\"] have parts"));
    check("{'a': 1}", "{", "unexpected character '{'", Some("there are no maps here"));
}

#[test]
fn lets_that_go_in_a_circle_or_are_wrong_are_named() {
    check("true && circle", "circle", "in `circle`: in `square`: `circle` is defined by itself: circle → square → circle", None);
    check("true || wrong", "wrong", "in `wrong`: cannot compare int with string", Some("write 403 without quotes"));
    let mut shadow = scope();
    shadow.lets.insert("status_code".into(), "1".into());
    let error = refused("status_code == 1", &shadow);
    assert_eq!((error.message.as_str(), error.offset, error.length), ("`status_code` is both a field and a let", 0, 11));
}

#[test]
fn lets_that_multiply_are_refused() {
    let mut scope = Scope::default();
    scope.lets.insert("l0".into(), "status_code == 1".into());
    for i in 1..40 {
        scope.lets.insert(format!("l{i}"), format!("l{} || l{}", i - 1, i - 1));
    }
    assert!(Expr::compile("l9", &scope).is_ok());
    let error = refused("l39", &scope);
    assert!(error.message.ends_with("the expression has more than 10000 parts with its lets put in"), "{error:?}");
    assert_eq!((error.offset, error.length), (0, 3));
}

#[test]
fn lets_that_nest_without_end_are_refused() {
    let mut scope = Scope::default();
    scope.lets.insert("l0".into(), "true".into());
    for i in 1..1000 {
        scope.lets.insert(format!("l{i}"), format!("{}l{}", "!".repeat(60), i - 1));
    }
    assert!(Expr::compile("l2", &scope).is_ok());
    let error = refused("l999", &scope);
    assert!(error.message.ends_with("the expression nests more than 128 deep with its lets put in"), "{error:?}");
}
