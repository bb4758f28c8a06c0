//! What the loader promises: all problems at once, at their places, with the way out.

use super::*;
use crate::policy::Action;
use crate::rule::{Mode, SignalType};
use serde_json::json;

/// Loads files and writes problems as `code file:line:column message | help`.
fn load_all(files: &[(&str, &str)], settings: Value) -> Result<RuleSet, String> {
    let files: Vec<SourceFile> = files.iter().map(|(name, text)| SourceFile { name: (*name).into(), text: (*text).into() }).collect();
    let settings = settings.as_object().cloned().unwrap_or_default();
    load(&files, &settings).map_err(|problems| {
        let line = |d: &Diagnostic| {
            let help = d.help.as_ref().map(|h| format!(" | {h}")).unwrap_or_default();
            format!("{} {}:{}:{} {}{help}\n", d.code, d.file, d.line, d.column, d.message)
        };
        problems.iter().map(line).collect()
    })
}

/// The problems of one file; the reason why `load` should have failed if it did not.
fn problems(text: &str) -> String {
    load_all(&[("r.yaml", text)], json!({})).err().unwrap_or_else(|| "no problem".into())
}

fn set(text: &str) -> RuleSet {
    load_all(&[("r.yaml", text)], json!({})).unwrap_or_else(|found| panic!("{found}"))
}

const RULE: &str = "schema: 1\nid: http.any\nversion: 1\ntitle: Any\non: any\ndetect: {match: {}}\nsignal: {type: any}\n";

#[test]
fn a_rule_has_safe_defaults() {
    let set = set(RULE);
    let rule = &set.rules[0];
    assert_eq!((rule.mode, rule.per_max, rule.detector.name()), (Mode::Shadow, 64, "match"));
    assert_eq!(rule.slot, hash::short(b"http.any#1"));
    assert_eq!((rule.on.as_ref(), rule.flag, rule.when.is_none()), (None, None, true));
    assert_eq!((&rule.signal.ty, rule.signal.resource), (&SignalType::Named("any".into()), true));
    assert_eq!(rule.signal.user_message, "Suspicious activity detected.");
}

#[test]
fn without_a_policy_nothing_blocks() {
    let policy = set(RULE).policy;
    assert_eq!(policy.id, "policy.default");
    assert!(policy.actions.iter().all(|row| row.action != Action::Block));
    assert_eq!((policy.allowed_lateness_ms, policy.remember_ids, policy.trust_forwarded_for), (Some(30_000), 16, false));
}

#[test]
fn every_problem_of_every_file_is_reported_with_its_place() {
    let first = "schema: 1\nid: http.any\nversion: 1\ntitel: Any\nmode: enforc\non: any\ndetect: {match: {}}\nsignal: {type: any}\n\
        ---\n# the second document\nschema: 1\nkind: flagz\n---\nschema: 1\nkind: flags\nflags:\n  - {name: A, defualt: true}\n";
    let second =
        "schema: 1\nid: http.b\nversion: one\ntitle: B\non: any\ndetect:\n  count: {at_least: 0, within: 5}\nsignal: {type: any}\n";
    let found = load_all(&[("b.yaml", second), ("a.yaml", first)], json!({})).unwrap_err();
    let expected = "\
R003 a.yaml:1:1 `title` is missing in a rule
R002 a.yaml:4:1 unknown key `titel` in a rule | did you mean `title`?
R006 a.yaml:5:7 `mode` is `enforc`, which it cannot be | did you mean `enforce`? one of: off, shadow, signal, alert, enforce
R006 a.yaml:12:7 `kind` is `flagz`, which it cannot be | did you mean `flags`? one of: rule, lists, profiles, flags, policy, settings, predicates
R002 a.yaml:17:15 unknown key `defualt` in a flag | did you mean `default`?
R004 b.yaml:3:10 `version` needs a whole number, this is text
R005 b.yaml:7:21 `at_least` is 0, it must be 1 to 1000000 | 1 fires on every event that passes `when`
R004 b.yaml:7:32 `within` needs a duration with its unit, such as `90s`, this is a whole number
";
    assert_eq!(found, expected);
}

#[test]
fn a_document_that_is_not_yaml_does_not_hide_the_others() {
    let text = format!("{RULE}---\na: [1\n---\nschema: 1\nkind: list\n");
    let found = problems(&text);
    assert!(found.starts_with("R001 r.yaml:"), "{found}");
    assert!(found.contains("R006 r.yaml:12:7 `kind` is `list`"), "{found}");
}

#[test]
fn a_key_that_stands_twice_is_a_problem() {
    let found = problems(&format!("{RULE}id: http.other\n"));
    assert!(found.starts_with("R001 r.yaml:8:1 "), "{found}");
}

#[test]
fn comments_and_empty_documents_are_not_rules() {
    assert_eq!(set(&format!("# a comment\n---\n# another\n---\n{RULE}---\n")).rules.len(), 1);
    assert_eq!(problems("# nothing\n"), "R017 r.yaml:0:0 the pack has no rule | docs/rules.md shows one\n");
}

#[test]
fn parts_of_the_format_that_are_missing_say_so() {
    for (line, what) in [("by: route", "`by: route`"), ("rollout: {percent: 5}", "`rollout` in a rule")] {
        let found = problems(&format!("{RULE}{line}\n"));
        assert!(found.starts_with("R007") && found.contains(&format!("{what} is not available yet")), "{line}: {found}");
    }
    let found = problems(&RULE.replace("{match: {}}", "{drift: {of: count}}"));
    assert!(found.starts_with("R007 r.yaml:6:10 `drift` in `detect` is not available yet"), "{found}");
    assert_eq!(found.lines().count(), 1, "{found}");
    let found = problems(&format!("{RULE}---\nschema: 1\nkind: policy\nid: p\nversion: 1\nactions: []\nguard: {{}}\n"));
    assert!(found.starts_with("R007 r.yaml:14:1 `guard` in a policy is not available yet"), "{found}");
}

#[test]
fn a_threshold_has_the_bound_of_its_window() {
    let with = |count: &str| problems(&RULE.replace("match: {}", &format!("count: {count}")));
    assert_eq!(with("{at_least: 64, within: 1m}"), "no problem");
    assert_eq!(with("{at_least: 1000000, within: 1m, window: fixed, firing: every}"), "no problem");
    assert_eq!(with("{at_least: 1000000, within: 1m}"), "no problem");
    assert!(with("{at_least: 1000001, within: 1m, window: fixed}").contains("must be 1 to 1000000"));
    assert!(with("{at_least: 5, within: 367d}").contains("`within` is 367d, at most 366d are allowed"));
    let every = set(&RULE.replace("match: {}", "count: {at_least: 2, within: 90s, window: fixed, firing: every}"));
    let expected = "Count { window: Fixed(Span { at_least: 2, within_ms: 90000 }), rhythm: Every, points: [] }";
    assert_eq!(format!("{:?}", every.rules[0].detector), expected);
}

#[test]
fn keys_that_contradict_each_other_are_reported() {
    let cooled = "{type: any, once_per: 5m}";
    for (detect, signal, more, said) in [
        ("match: {}", "{type: any, type_from: anomaly_type}", "", "`type` and `type_from` exclude each other"),
        ("count: {at_least: 1, within: 1s, firing: every}", cooled, "", "`once_per` goes with a rule that fires on the edge"),
        ("count: {at_least: 1, within: 1s, window: fixed}", cooled, "", "`once_per` goes with a rule that fires on the edge"),
        ("match: {}", "{type: any, metadata: {n: $count}}", "", "`match` has no `$count`"),
        ("match: {}", "{type: any}", "per_max: 5\n", "there is no `per`"),
        ("match: {}, count: {at_least: 1, within: 1s}", "{type: any}", "", "exactly one detector"),
    ] {
        let found = problems(&(RULE.replace("match: {}", detect).replace("{type: any}", signal) + more));
        assert!(found.starts_with("R016") && found.contains(said), "{said}: {found}");
    }
    for detect in ["match: {}", "count: {at_least: 1, within: 1s}"] {
        assert_eq!(problems(&RULE.replace("match: {}", detect).replace("{type: any}", cooled)), "no problem");
    }
}

#[test]
fn two_rules_with_one_id_and_two_policies_are_problems() {
    let policy = "---\nschema: 1\nkind: policy\nid: p\nversion: 1\nactions: [{do: alert, at: 50}]\n";
    let found = problems(&format!("{RULE}{policy}{policy}---\n{RULE}"));
    let expected = "R010 r.yaml:15:1 a pack has one policy, this is another\n\
        R010 r.yaml:22:5 two rules have the id `http.any` | the other one is in r.yaml, line 2\n";
    assert_eq!(found, expected);
}

#[test]
fn a_flag_must_be_declared() {
    let flags = "schema: 1\nkind: flags\nflags: [{name: BURST_ENABLED, default: true}]\n---\n";
    let found = problems(&format!("{flags}{RULE}flag: BURST_ENABLE\n"));
    assert_eq!(found, "R011 r.yaml:12:7 unknown flag `BURST_ENABLE` | did you mean `BURST_ENABLED`?\n");
    let set = set(&format!("{flags}{RULE}flag: BURST_ENABLED\n"));
    assert_eq!((set.rules[0].flag, set.flags[0].default), (Some(0), true));
}

#[test]
fn a_policy_is_checked_row_by_row() {
    let policy = "schema: 1\nkind: policy\nid: p\nversion: 2\nactions:\n  - {do: alert, at: 101}\n  - {do: block, at: 90, flag: NONE}\n  - {do: throttle, at: 5, ttl: 1m}\n\
        precedence: [alert, alert]\nallowed_lateness: 25h\nremember_ids: 65\nclient_address: first\n---\n";
    let found = problems(&format!("{policy}{RULE}"));
    for said in [
        "R005 r.yaml:6:21 `at` is 101, it must be 0 to 100",
        "R011 r.yaml:7:31 unknown flag `NONE`",
        "R016 r.yaml:8:27 `ttl` goes with `block`, this is `throttle`",
        "R010 r.yaml:9:21 this action is named twice",
        "R005 r.yaml:10:19 `allowed_lateness` is 25h, at most 1d are allowed",
        "R005 r.yaml:11:15 `remember_ids` is 65, it must be 0 to 64",
        "R006 r.yaml:12:17 `client_address` is `first`",
    ] {
        assert!(found.contains(said), "{said}\n{found}");
    }
    let off = set(&format!("schema: 1\nkind: policy\nid: p\nversion: 1\nactions: []\nallowed_lateness: off\n---\n{RULE}"));
    assert_eq!(off.policy.allowed_lateness_ms, None);
}

#[test]
fn a_policy_that_cannot_act_as_written_is_refused() {
    let flags = "schema: 1\nkind: flags\nflags: [{name: OFF}, {name: ON, default: true}]\n---\n";
    let rows = |rows: &str| format!("{flags}schema: 1\nkind: policy\nid: p\nversion: 2\nactions: [{rows}]\n---\n{RULE}");
    for (row, said) in [
        ("{do: alert, at: 0}", "`at` is 0, it must be 1 to 100: a score of 0 is no reason"),
        ("{do: alert, at: 40, leave: 41}", "`leave` is 41, it must be 1 to `at`, which is 40"),
        ("{do: alert, at: 40, leave: 0}", "`leave` is 0, it must be 1 to `at`, which is 40"),
        ("{do: alert, at: 60}, {do: throttle, at: 50}", "`throttle` from 50 comes before the weaker `alert` from 60"),
        ("{do: block, at: 90}", "`block` must have a flag that is off unless somebody switches it on"),
        ("{do: block, at: 90, flag: ON}", "`block` must have a flag that is off unless somebody switches it on"),
        ("{do: block, at: 90, flag: OFF, ttl: 2h, max_ttl: 1h}", "`max_ttl` is shorter than `ttl`"),
        ("{do: block, at: 90, flag: OFF, grow: 0.5}", "`grow` is 0.5, it must be 1 to 10"),
        ("{do: throttle, at: 50, rate: 1/10s, floor: 1/s}", "`floor` allows more than `rate`"),
        ("{do: throttle, at: 50, rate: often}", "`rate` is `often`, which is not a rate"),
        ("{do: step_up, at: 80, resolve_after: 1h}", "`resolve_after` goes with `alert`, this is `step_up`"),
        ("{do: step_up, at: 80, families: 0}", "`families` is 0, it must be 1 to 16"),
    ] {
        let found = problems(&rows(row));
        assert!(found.contains(said), "{row}\n{found}");
    }
    assert_eq!(problems(&rows("{do: block, at: 90, flag: OFF}, {do: alert, at: 50, leave: 50}")), "no problem");
    let per_signal = |rows: &str| format!("schema: 1\nkind: policy\nid: p\nversion: 2\ndecide: per_signal\nactions: [{rows}]\n---\n{RULE}");
    for (row, said) in [
        ("{do: throttle, at: 50}", "`throttle` needs `decide: per_event`"),
        ("{do: alert, at: 50, leave: 40}", "`leave` needs a score over time, which `decide: per_signal` does not have"),
    ] {
        let found = problems(&per_signal(row));
        assert!(found.contains(said), "{row}\n{found}");
    }
    let composite = RULE.replace("match: {}", "score: {axis: abuse, at_least: 3}");
    let found = problems(&per_signal("{do: alert, at: 50}").replace(RULE, &composite));
    assert!(found.contains("http.any looks at the score, and `decide: per_signal` has none"), "{found}");
}

#[test]
fn contexts_are_read_and_bounded() {
    let with =
        |context: &str| problems(&format!("schema: 1\nkind: policy\nid: p\nversion: 2\nactions: []\ncontext: [{context}]\n---\n{RULE}"));
    assert_eq!(with("{id: a, when: 'role == \"admin\"', times: 1.25, axis: policy, entity: user}"), "no problem");
    for (context, said) in [
        ("{id: a, when: 'true', times: 5}", "`times` is 5, it must be 0.05 to 4"),
        ("{id: a, when: 'status_code', times: 1}", "`when` must be true or false"),
        ("{id: a, when: 'true', times: 1}, {id: a, when: 'true', times: 1}", "two contexts have the id `a`"),
        ("{id: a, when: 'true'}", "`times` is missing in a context"),
    ] {
        let found = with(context);
        assert!(found.contains(said), "{context}\n{found}");
    }
}

const SETTINGS: &str = "schema: 1\nkind: settings\nsettings:\n  VERSION: {type: string, default: api/v1, strip: /}\n  PREFIXES: {type: strings, default: ['/{VERSION}/a/', '/b/{x}']}\n  \
    THRESHOLD: {type: int, default: 5}\n  WINDOW: {type: seconds, default: 60}\n  PROFILES: {type: profiles, default: {}}\n  TRUST: {type: bool, default: false}\n---\n\
    schema: 1\nkind: lists\nlists: {prefixes: $PREFIXES}\n---\nschema: 1\nkind: profiles\nprofiles: {any: {risk_score: 1, severity: low, category: request}}\noverrides: $PROFILES\n---\n\
    schema: 1\nkind: policy\nid: p\nversion: 1\nactions: []\nclient_address: $TRUST\n---\n";

fn with_settings(overrides: Value) -> Result<RuleSet, String> {
    let rule = RULE.replace("match: {}", "count: {at_least: $THRESHOLD, within: $WINDOW}");
    load_all(&[("r.yaml", &format!("{SETTINGS}{rule}"))], overrides)
}

#[test]
fn settings_have_defaults_and_overrides() {
    let count = |set: &RuleSet| format!("{:?}", set.rules[0].detector);
    let expected = |at_least, within_ms| {
        let span = format!("Span {{ at_least: {at_least}, within_ms: {within_ms} }}");
        format!("Count {{ window: Sliding(Sliding {{ windows: [{span}], fit: All }}), rhythm: Edge, points: [] }}")
    };
    let set = with_settings(json!({})).unwrap();
    assert_eq!((count(&set), set.profile("any").risk_score, set.policy.trust_forwarded_for), (expected(5, 60_000), 1, false));
    let own = json!({"any": {"risk_score": 99, "severity": "high", "category": "business", "note": "ignored"}});
    let set = with_settings(json!({"THRESHOLD": " 2_0 ", "WINDOW": 7.9, "PROFILES": own, "TRUST": true})).unwrap();
    assert_eq!((count(&set), set.profile("any").risk_score, set.policy.trust_forwarded_for), (expected(20, 7_000), 99, true));
    assert!(with_settings(json!({"PROFILES": null})).is_ok());
}

#[test]
fn one_setting_shapes_the_default_of_another_but_not_an_override() {
    let lists = |overrides: Value| {
        let file = SourceFile { name: "r.yaml".into(), text: SETTINGS.into() };
        let mut report = Report::new(std::slice::from_ref(&file));
        let documents = tree::documents(0, &mut report);
        let values = settings::read(&documents[..1], overrides.as_object().unwrap(), &mut report);
        assert_eq!(report.finish(), None);
        match &values["PREFIXES"] {
            Tree::List(items) => items.iter().map(|i| format!("{:?}", i.value)).collect::<Vec<_>>().join(" "),
            _ => String::new(),
        }
    };
    assert_eq!(lists(json!({})), r#"Text("/api/v1/a/") Text("/b/{x}")"#);
    assert_eq!(lists(json!({"VERSION": "/v9/"})), r#"Text("/v9/a/") Text("/b/{x}")"#);
    assert_eq!(lists(json!({"PREFIXES": ["/{VERSION}/c/"]})), r#"Text("/{VERSION}/c/")"#);
}

#[test]
fn an_unknown_or_wrong_override_is_a_problem() {
    let found = |overrides: Value| with_settings(overrides).map(|_| ()).unwrap_err();
    assert_eq!(found(json!({"TRESHOLD": 5})), "R013 settings:0:0 unknown setting `TRESHOLD` | did you mean `THRESHOLD`?\n");
    for (overrides, said) in [
        (json!({"THRESHOLD": "a"}), "THRESHOLD: needs a whole number, this is text"),
        (json!({"THRESHOLD": true}), "THRESHOLD: needs a whole number, this is a truth value"),
        (json!({"WINDOW": 0}), "WINDOW: needs at least 1 second, this is 0"),
        (json!({"PREFIXES": "/a/"}), "PREFIXES: needs a list of texts, this is text"),
        (json!({"TRUST": "yes"}), "TRUST: needs `true` or `false`, this is text"),
        (json!({"VERSION": 1}), "VERSION: needs text, this is a whole number"),
        (json!({"PROFILES": {"x": {"risk_score": 5}}}), "rule profile 'x' is missing fields: category, severity"),
        (
            json!({"PROFILES": {"x": {"risk_score": 5.0, "severity": "low", "category": "request"}}}),
            "rule profile 'x' risk_score must be an int",
        ),
        (json!({"PROFILES": {"x": {"risk_score": 101, "severity": "low", "category": "request"}}}), "risk_score must be between 0 and 100"),
        (
            json!({"PROFILES": {"x": {"risk_score": 1, "severity": "Low", "category": "request"}}}),
            "severity must be one of critical, high, low, medium",
        ),
        (
            json!({"PROFILES": {"x": {"risk_score": 1, "severity": "low", "category": ""}}}),
            "category must be one of business, permission, request",
        ),
        (json!({"PROFILES": {"": {}}}), "names must be non-empty strings"),
    ] {
        let text = found(overrides.clone());
        assert!(text.starts_with("R014 settings:0:0 ") && text.contains(said) && text.lines().count() == 1, "{overrides}: {text}");
    }
    let text = found(json!({"THRESHOLD": 1_000_001}));
    assert!(text.contains("`at_least` is 1000001 (from the setting THRESHOLD), it must be 1 to 1000000"), "{text}");
}

#[test]
fn a_setting_that_is_not_declared_is_a_problem() {
    let found = problems(&RULE.replace("version: 1", "version: $VERSIONS"));
    assert_eq!(found, "R013 r.yaml:3:10 unknown setting `VERSIONS`\n");
}

#[test]
fn bounds_are_enforced_with_their_figure() {
    let big = format!("# {}\n{RULE}", "x".repeat(MAX_FILE_BYTES));
    assert!(problems(&big).contains(&format!("R015 r.yaml:0:0 the file has {} bytes, at most 1048576 are allowed", big.len())));
    let many: String = (0..=MAX_RULES).map(|n| format!("{}---\n", RULE.replace("http.any", &format!("http.r{n}")))).collect();
    assert!(problems(&many).contains("R015 ") && problems(&many).contains("1001 rules, at most 1000 are allowed"));
    let list = format!("schema: 1\nkind: lists\nlists: {{a: [{}]}}\n---\n{RULE}", "a,".repeat(100_001));
    assert!(problems(&list).contains("the list `a` has 100001 values, at most 100000 are allowed"));
    let files: Vec<SourceFile> = (0..=MAX_FILES).map(|n| SourceFile { name: n.to_string(), text: String::new() }).collect();
    assert_eq!(load(&files, &Map::new()).unwrap_err()[0].message, "1001 files, at most 1000 are allowed");
}

#[test]
fn a_pack_that_could_remember_more_than_a_record_holds_is_refused() {
    let rule = RULE.replace("{match: {}}", "{count: {at_least: 64, within: 1h}}\nper: path\nper_max: 1500");
    let two = format!("{rule}---\n{}", rule.replace("http.any", "http.other"));
    assert_eq!(problems(&rule), "no problem");
    let found = problems(&two);
    assert!(found.contains("R015") && found.contains("bytes of one user, at most 1000000 are allowed"), "{found}");
}

#[test]
fn a_flood_of_problems_is_cut_short_and_counted() {
    let text = format!("schema: 1\nkind: lists\nlists: {{a: [{}]}}\n---\n{RULE}", "true,".repeat(99_000));
    let found = problems(&text);
    assert_eq!(found.lines().count(), report::MAX_PROBLEMS + 1);
    assert!(found.ends_with("R015 rules:0:0 and 98000 more problems | the first 1000 are listed\n"), "{}", &found[found.len() - 200..]);
}

#[test]
fn the_digest_follows_texts_and_overrides_but_not_folders() {
    let digest = |name: &str, text: &str, overrides: Value| load_all(&[(name, text)], overrides).unwrap().digest;
    let base = digest("a/r.yaml", RULE, json!({}));
    assert_eq!(base, digest("/b/c/r.yaml", RULE, json!({})));
    assert_ne!(base, digest("a/s.yaml", RULE, json!({})));
    assert_ne!(base, digest("a/r.yaml", &format!("{RULE}# more\n"), json!({})));
    let text = format!("{SETTINGS}{RULE}");
    assert_ne!(digest("r.yaml", &text, json!({})), digest("r.yaml", &text, json!({"THRESHOLD": 6})));
    assert_eq!(
        digest("r.yaml", &text, json!({"WINDOW": 6, "THRESHOLD": 6})),
        digest("r.yaml", &text, json!({"THRESHOLD": 6, "WINDOW": 6}))
    );
}

#[test]
fn rules_stand_in_the_order_of_files_and_documents() {
    let rule = |id: &str| RULE.replace("http.any", id);
    let a = format!("{}---\n{}", rule("a.two"), rule("a.one"));
    let set = load_all(&[("b.yaml", &rule("b.first")), ("a.yaml", &a)], json!({})).unwrap();
    assert_eq!(set.rules.iter().map(|r| r.id.as_str()).collect::<Vec<_>>(), ["a.two", "a.one", "b.first"]);
}

#[test]
fn a_problem_inside_an_expression_is_shown_where_it_stands() {
    for (style, line, column) in [
        ("when: status_code == 400 && statsu_code == 1", 8, 29),
        ("when: 'outcome == \"it''s\" && statsu_code == 1'", 8, 30),
        ("when: \"outcome == \\\"a\\\" && statsu_code == 1\"", 8, 28),
        ("when: >\n  status_code == 400\n  && statsu_code == 1", 10, 6),
        ("when: |\n  status_code == 400 &&\n    statsu_code == 1", 10, 5),
        ("when: status_code == 400\n  && statsu_code == 1", 9, 6),
        ("let:\n  bad: statsu_code == 1\nwhen: bad", 9, 8),
    ] {
        let found = problems(&format!("{RULE}{style}\n"));
        assert!(found.starts_with(&format!("R012 r.yaml:{line}:{column} ")), "{style}: {found}");
        assert_eq!(found.lines().count(), 1, "{style}: {found}");
        assert!(found.contains("status_code"), "{style}: {found}");
    }
}

#[test]
fn expressions_are_typed_and_lets_cannot_hide_fields() {
    let found = problems(&format!("{RULE}when: status_code\n"));
    assert!(found.starts_with("R012 r.yaml:8:7 `when` must be true or false, this is of type int"), "{found}");
    let found = problems(&format!("{RULE}let: {{path: 'true'}}\n"));
    assert!(found.starts_with("R009 r.yaml:8:7 `path` is the name of a field"), "{found}");
    let found = problems(&format!("{RULE}when: path in lists.nowhere\n"));
    assert!(found.starts_with("R012"), "{found}");
    assert_eq!(problems(&format!("{RULE}when: true\n")), "no problem");
}

#[test]
fn what_is_remembered_belongs_to_id_and_state() {
    let slot = |text: &str| set(text).rules[0].slot;
    assert_eq!(slot(RULE), slot(&RULE.replace("version: 1", "version: 2")));
    assert_ne!(slot(RULE), slot(&format!("{RULE}state: 2\n")));
    assert_ne!(slot(RULE), slot(&RULE.replace("http.any", "http.other")));
}

#[test]
fn the_examples_of_the_manual_are_a_pack() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/rules.md")).unwrap();
    let blocks = page.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap_or_default());
    let files: Vec<SourceFile> = blocks.enumerate().map(|(n, text)| SourceFile { name: format!("{n}.yaml"), text: text.into() }).collect();
    assert!(files.len() >= 10, "{} examples", files.len());
    let set = load(&files, &Map::new()).unwrap_or_else(|found| panic!("{}", found.iter().map(ToString::to_string).collect::<String>()));
    let count =
        "Count { window: Sliding(Sliding { windows: [Span { at_least: 8, within_ms: 300000 }], fit: All }), rhythm: Edge, points: [] }";
    assert_eq!(format!("{:?}", set.rules[0].detector), count);
    assert_eq!(set.profile("password_guessing").risk_score, 60);
}

#[test]
fn every_code_is_explained() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/rules.md")).unwrap();
    for code in codes::ALL {
        assert!(page.contains(&format!("| {code} |")), "docs/rules.md does not explain {code}");
    }
}
