use super::refused_request;
use crate::expr::{Expr, Scope, check_predicates, name_problem};

fn pack(predicates: &[(&str, &str)]) -> Scope {
    let lists = [("codes".to_owned(), vec!["401".to_owned(), "403".to_owned()])];
    let lets = predicates.iter().map(|(name, source)| ((*name).to_owned(), (*source).to_owned()));
    Scope { lists: lists.into(), lets: lets.collect() }
}

#[test]
fn predicates_are_named_by_rules_by_lets_and_by_one_another() {
    let mut scope = pack(&[("refused", "status_code in lists.codes"), ("refused_write", "refused && method in ['POST', 'PUT']")]);
    assert_eq!(check_predicates(&scope), []);
    scope.lets.insert("of_a_rule".into(), "refused_write && path != ''".into());
    let rule = Expr::compile("of_a_rule && !is_staff", &scope).expect("compiles");
    assert!(rule.holds(&refused_request()));
    assert_eq!(rule.field_names(), ["status_code", "method", "path", "is_staff"]);
}

#[test]
fn every_wrong_predicate_is_told_at_its_place() {
    let scope = pack(&[
        ("a", "status_code == 1 && b"),
        ("b", "!a"),
        ("fine", "has(path)"),
        ("number", "1 + status_code"),
        ("route", "true"),
        ("self", "self || true"),
        ("typo", "true || stats_code == 1"),
        ("in", "true"),
        ("9lives", "true"),
        ("folded", "path.lowerAscii()"),
        ("list", "[1]"),
    ]);
    let told = check_predicates(&scope);
    let told: Vec<(&str, &str, usize, usize)> =
        told.iter().map(|(name, error)| (name.as_str(), error.message.as_str(), error.offset, error.length)).collect();
    let expected = [
        ("9lives", "`9lives` is not a name: letters, digits and `_`, no digit first", 0, 4),
        ("a", "in `b`: `a` is defined by itself: a → b → a", 20, 1),
        ("b", "in `a`: `b` is defined by itself: b → a → b", 1, 1),
        ("folded", "lowerAscii() and upperAscii() can only be compared", 0, 17),
        ("in", "`in` is a word of the language", 0, 4),
        ("list", "a list is not a value here", 0, 3),
        ("number", "a predicate takes bool, this is int", 0, 15),
        ("route", "`route` is the name of a field", 0, 4),
        ("self", "`self` is defined by itself: self → self", 0, 4),
        ("typo", "unknown field `stats_code`", 8, 10),
    ];
    assert_eq!(told, expected);
}

#[test]
fn names_that_an_expression_could_not_name_are_refused() {
    for name in ["path", "lists", "headers", "data", "has", "true", "in", "for", "and", "", "a-b", "a.b", "é", "1st"] {
        assert!(name_problem(name).is_some(), "{name}");
    }
    for name in ["refused", "_x", "is_admin2", "size", "cidr"] {
        let scope = pack(&[(name, "has(path)")]);
        assert_eq!((name_problem(name), Expr::compile(name, &scope).map(|e| e.ty().name()).ok()), (None, Some("bool")), "{name}");
    }
}
