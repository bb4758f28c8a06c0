use super::{compiled, refused_request};
use crate::expr::{Expr, Scope, Size};

#[track_caller]
fn refusal(source: &str, scope: &Scope) -> (String, Option<String>) {
    let error = Expr::compile(source, scope).expect_err("a refusal");
    (error.message, error.help)
}

fn with_list(entries: usize) -> Scope {
    Scope { lists: [("long".to_owned(), (0..entries).map(|i| format!("/p{i}")).collect())].into(), ..Scope::default() }
}

#[test]
fn lists_are_bounded_over_a_whole_expression() {
    let scope = with_list(100_000);
    let twice = Expr::compile("path in lists.long || route.startsWithAny(lists.long)", &scope).expect("200 000 entries");
    assert_eq!(twice.size().list_entries, 200_000);
    let (message, help) = refusal("path in lists.long || route in lists.long || role in lists.long", &scope);
    assert_eq!(message, "the lists of the expression have more than 200000 entries together");
    assert_eq!(help.as_deref(), Some("shorten the lists"));
}

#[test]
fn regular_expressions_are_bounded_over_a_whole_expression() {
    let matching = |count| vec!["path.matches('a')"; count].join(" || ");
    assert_eq!(Expr::compile(&matching(64), &Scope::default()).expect("64").size().patterns, 64);
    let (message, help) = refusal(&format!("{} || path.lowerAscii().contains('b')", matching(64)), &Scope::default());
    assert_eq!(message, "the expression has more than 64 regular expressions");
    assert_eq!(help.as_deref(), Some("join patterns with |, or split the rule"));
}

#[test]
fn entries_of_literal_lists_are_parts() {
    let scope = Scope { lets: [("ones".to_owned(), format!("[{}]", vec!["1"; 6000].join(",")))].into(), ..Scope::default() };
    assert!(Expr::compile("asn in ones", &scope).is_ok());
    let (message, _) = refusal("asn in ones || status_code in ones", &scope);
    assert!(message.ends_with("the expression has more than 10000 parts with its lets put in"), "{message}");
}

#[test]
fn the_size_is_that_with_lets_put_in() {
    assert_eq!(compiled("refused_admin && path.matches('a')").size(), Size { parts: 16, list_entries: 2, patterns: 1 });
}

#[test]
fn a_long_source_named_often_is_read_once() {
    // Ten thousand readings of 16 KiB would take seconds.
    let scope = Scope { lets: [("long".to_owned(), format!("true // {}", "x".repeat(16_000)))].into(), ..Scope::default() };
    let source = vec!["long"; 2000].join("&&");
    assert!(Expr::compile(&source, &scope).is_ok_and(|expr| expr.holds(&refused_request())));
}

#[test]
fn a_name_that_is_written_is_the_field_again() {
    for source in ["path", "headers['X-Tenant']", "headers['a\"b\\\\c']", "data.form.kind", "data['two words'].x", "data['1']['é']['']"] {
        let expr = compiled(source);
        let [name] = expr.field_names().try_into().expect("one field");
        let again = Expr::compile(&name, &Scope::default()).unwrap_or_else(|error| panic!("{name}: {error:?}"));
        assert_eq!(again.fields(), expr.fields(), "{name}");
    }
    assert_eq!(
        compiled("has(headers['X-Tenant']) && data['two words'].b == 1").field_names(),
        ["headers[\"x-tenant\"]", "data[\"two words\"].b"]
    );
}
