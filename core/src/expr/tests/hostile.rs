use super::{refused_request, scope};
use crate::expr::{Expr, Scope};
use proptest::prelude::*;

/// What `std` gives a thread.
const STACK_BYTES: usize = 2 << 20;

/// Compiles on the stack that a thread has by default, without optimisation: too deep a recursion would abort the test.
#[track_caller]
fn refused_for_depth(source: String) {
    let refused = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(move || Expr::compile(&source, &Scope::default()).err());
    let error = refused.expect("a thread").join().expect("no panic").expect("a refusal");
    assert!(error.message.contains("nests more than 64 deep"), "{error:?}");
}

#[test]
fn deep_nesting_is_refused_in_every_form() {
    let many = 5000;
    for (open, close) in [("(", ")"), ("!", ""), ("-", ""), ("[", "]"), ("size(", ")"), ("path.contains(", ")"), ("true ? 1 : ", "")] {
        refused_for_depth(format!("{}1{}", open.repeat(many / open.len()), close.repeat(many / open.len())));
    }
    refused_for_depth(format!("1{}", " + 1".repeat(3000)));
    refused_for_depth(format!("true{}", " == true".repeat(1500)));
    refused_for_depth(format!("path{}", ".size()".repeat(1500)));
    refused_for_depth(format!("data{}", ".a".repeat(3000)));
}

#[test]
fn the_deepest_that_is_accepted_runs_on_a_threads_stack() {
    let mut scope = scope();
    scope.lets.insert("inner".into(), format!("{}true", "!".repeat(60)));
    let source = format!("{}inner", "!".repeat(60));
    let run = std::thread::Builder::new()
        .stack_size(STACK_BYTES)
        .spawn(move || Expr::compile(&source, &scope).map(|e| e.holds(&refused_request())));
    assert_eq!(run.expect("a thread").join().expect("no panic"), Ok(true));
}

#[test]
fn a_long_chain_is_not_deep() {
    let source = format!("{}true", "status_code == 1 || ".repeat(800));
    assert!(Expr::compile(&source, &Scope::default()).is_ok_and(|expr| expr.holds(&refused_request())));
}

#[test]
fn a_source_that_is_too_long_is_refused() {
    let error = Expr::compile(&"é".repeat(9000), &Scope::default()).expect_err("18 000 bytes");
    assert_eq!((error.message.as_str(), error.offset, error.length), ("the expression is longer than 16384 bytes", 0, 2));
}

/// Whatever comes out: no panic, and an error's place can be cut out of the source.
fn survives(source: &str) {
    match Expr::compile(source, &scope()) {
        Ok(expr) => {
            expr.eval(&refused_request());
        }
        Err(error) => {
            assert!(error.length >= 1 && !error.message.is_empty(), "{source:?}: {error:?}");
            let end = (error.offset + error.length).min(source.len());
            assert!(source.get(error.offset..end).is_some(), "{source:?}: {error:?}");
        }
    }
}

const PIECES: &[&str] = &[
    "path",
    "status_code",
    "data",
    "headers",
    "lists",
    ".",
    "many",
    "refused",
    "circle",
    "in",
    "has",
    "size",
    "cidr",
    "duration",
    "(",
    ")",
    "[",
    "]",
    "?",
    ":",
    ",",
    "!",
    "-",
    "+",
    "*",
    "/",
    "%",
    "==",
    "!=",
    "<",
    "<=",
    "&&",
    "||",
    "1",
    "0",
    "9223372036854775808",
    "0x",
    "1.5",
    "1e",
    "'a'",
    "\"10.0.0.0/8\"",
    "'(?i'",
    "'",
    "\\",
    "r'",
    "é",
    "// c",
    "\n",
    "true",
    "null",
    "startsWith",
    "startsWithAny",
    "matches",
    "contains",
    "lowerAscii",
    "hour_of_week",
    "()",
    "'1h'",
    "\u{0}",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_it_panic(source in any::<String>()) {
        survives(&source);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        survives(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn no_pieces_of_the_language_make_it_panic(pieces in prop::collection::vec(prop::sample::select(PIECES), 0..40), spaced in any::<bool>()) {
        survives(&pieces.join(if spaced { " " } else { "" }));
    }
}
