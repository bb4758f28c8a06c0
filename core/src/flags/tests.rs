use super::*;
use proptest::prelude::*;

fn parse(text: &str) -> Result<FlagSnapshot, String> {
    FlagSnapshot::parse("flags.yaml", text)
        .map_err(|found| found.iter().map(|d| format!("{} {}:{} {}", d.code, d.line, d.column, d.message)).collect::<Vec<_>>().join("\n"))
}

fn flag(text: &str) -> Flag {
    parse(&format!("f: {text}")).unwrap().flags.remove("f").unwrap()
}

fn user(id: &str) -> FlagUser<'_> {
    FlagUser { user_id: Some(id), is_authenticated: true, is_staff: false }
}

const STAFF: FlagUser<'static> = FlagUser { user_id: Some("boss"), is_authenticated: true, is_staff: true };

#[test]
fn the_sticky_percentage_is_the_python_package_s() {
    assert_eq!(bucket("ANOMALY_RULE_BURST_ENABLED", "42"), 76);
    assert_eq!(bucket("new_checkout", "1"), 30);
    let partly = |percentage| Flag { enabled: true, rollout_percentage: percentage, users: vec![], staff_only: false };
    assert!(!partly(30).is_on("new_checkout", user("1")));
    assert!(partly(31).is_on("new_checkout", user("1")));
}

#[test]
fn staff_only_is_looked_at_before_enabled() {
    let staff_only = flag("{enabled: false, staff_only: true}");
    assert!(staff_only.is_on("f", STAFF));
    assert!(!flag("{staff_only: true}").is_on("f", user("1")));
    assert!(!flag("false").is_on("f", STAFF));
}

#[test]
fn full_rollout_reaches_anonymous_users_and_a_partial_one_does_not() {
    assert!(flag("true").is_on("f", FlagUser::default()));
    assert!(flag("{rollout_percentage: 100}").is_on("f", FlagUser::default()));
    assert!(!flag("{rollout_percentage: 99}").is_on("f", FlagUser::default()));
    assert!(!flag("{enabled: false, rollout_percentage: 100, users: [a]}").is_on("f", user("a")));
}

#[test]
fn listed_users_must_be_signed_in() {
    let listed = flag("{rollout_percentage: 0, users: [7, u8]}");
    assert!(listed.is_on("f", user("7")) && listed.is_on("f", user("u8")) && !listed.is_on("f", user("9")));
    assert!(!listed.is_on("f", FlagUser { is_authenticated: false, ..user("7") }));
}

#[test]
fn an_unknown_flag_has_the_declared_default() {
    let snapshot = parse("known: false").unwrap();
    let declared = |name: &str, default| FlagDecl { name: name.into(), default, description: String::new() };
    let bound = snapshot.bind(&[declared("known", true), declared("a", true), declared("b", false)]);
    assert_eq!([0, 1, 2].map(|i| bound.is_on(i, STAFF)), [false, true, false]);
    assert_eq!([0, 1, 2].map(|i| bound.is_off_for_all(i)), [true, false, true]);
    assert_eq!(snapshot.explain("a", true, STAFF), (true, "unknown flag: the declared default"));
    assert_eq!(snapshot.explain("known", true, STAFF), (false, "disabled"));
}

#[test]
fn the_digest_is_of_the_meaning_not_of_the_spelling() {
    let digest = |text: &str| parse(text).unwrap().digest;
    let one = digest("a: true\nb: {users: [2, 1, '2'], rollout_percentage: 5}\n");
    assert_eq!(one, digest("{\n\t\"b\": {\"rollout_percentage\": 5, \"users\": [\"1\", \"2\"]},\n\t\"a\": {\"enabled\": true}\n}"));
    assert_ne!(one, digest("a: true\nb: {users: [2, 1], rollout_percentage: 6}\n"));
    assert_eq!(digest(""), digest("{}"));
    assert_eq!(FlagSnapshot::default().digest, digest("# nothing\n"));
}

#[test]
fn every_problem_of_a_file_is_reported_with_its_place() {
    let text = "a: yes please\nb:\n  enabeld: true\n  rollout_percentage: 101\n  users: [[]]\nc: {staff_only: 1, rollout_percentage: 1.5}\nd: [1]\n";
    let expected = "\
F003 1:4 flag `a` must be true, false or an object
F002 3:3 flag `b` has no key `enabeld`
F004 4:23 `rollout_percentage` of flag `b` must lie between 0 and 100
F003 5:11 a user of flag `b` must be an id: text or a whole number
F003 6:17 `staff_only` of flag `c` must be true or false
F003 6:40 `rollout_percentage` of flag `c` must be a whole number
F003 7:4 flag `d` must be true, false or an object";
    assert_eq!(parse(text).unwrap_err(), expected);
    let found = FlagSnapshot::parse("flags.yaml", text).unwrap_err();
    assert_eq!(found[1].help.as_deref(), Some("did you mean `enabled`?"));
    assert_eq!(found[1].excerpt.as_deref(), Some("  enabeld: true"));
}

#[test]
fn broken_files_are_refused_with_the_place() {
    for text in ["a: true\na: false\n", "a: [1\n", "a: {enabled: true, enabled: true}"] {
        let found = FlagSnapshot::parse("f", text).unwrap_err();
        assert!(found.len() == 1 && found[0].code == "F001" && found[0].line > 0, "{found:?}");
    }
    assert!(parse("- a\n").unwrap_err().starts_with("F003 1:1 the flags file must be a map"));
}

proptest! {
    #[test]
    fn a_bound_flag_answers_as_the_flag_itself(
        enabled: bool, staff_only: bool, percentage in prop_oneof![Just(0_u8), 1..100_u8, Just(100)],
        users in proptest::collection::vec("[a-e]", 0..4), id in proptest::option::of("[a-z]"), is_staff: bool, is_authenticated: bool,
    ) {
        let flag = Flag { enabled, rollout_percentage: percentage, users, staff_only };
        let snapshot = FlagSnapshot::new([("f".to_owned(), flag.clone())].into());
        let user = FlagUser { user_id: id.as_deref(), is_staff, is_authenticated };
        let bound = snapshot.bind(&[FlagDecl { name: "f".into(), default: true, description: String::new() }]);
        prop_assert_eq!(bound.is_on(0, user), flag.is_on("f", user));
        prop_assert_eq!(snapshot.explain("f", true, user).0, flag.is_on("f", user));
        prop_assert!(!(bound.is_off_for_all(0) && flag.is_on("f", user)));
    }
}
