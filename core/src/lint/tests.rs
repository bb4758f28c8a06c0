//! What lint says, each with its place.

use super::*;
use crate::rule::load::{SourceFile, load};
use serde_json::Map;

const NOW_MS: i64 = 1_800_000_000_000; // 2027-01-15
const GOOD: &str = "schema: 1\nid: http.refused\nversion: 1\ntitle: Refused often\nmode: alert\n\
    meta: {owner: a, goal: b, blind_spots: [c], runbook: d, tags: [attack.discovery], review_by: '2027-01-15'}\n\
    on: http_request\nwhen: status_code == 403\ndetect: {count: {at_least: 2, within: 5m}}\nsignal: {type: refused}\n\
    except: [{id: ours, when: data.service == 'x', owner: a, reason: b, expires: '2027-01-15'}]\n\
    tests:\n  - {name: fires, events: [{times: 2, status_code: 403, user_id: u}], expect: [{by: 1s}]}\n  \
    - {name: quiet, events: [{status_code: 403, user_id: u}], expect: nothing}\n";

fn findings(text: &str, circumstances: Circumstances) -> String {
    let files = [SourceFile { name: "r.yaml".into(), text: text.into() }];
    let set = load(&files, &Map::new()).unwrap_or_else(|found| panic!("{}", found.iter().map(ToString::to_string).collect::<String>()));
    let Findings { warnings, problems } = lint(&set, circumstances);
    let line = |d: &Diagnostic| format!("{} {}:{}:{} {}\n", d.code, d.file, d.line, d.column, d.message);
    problems.iter().map(|p| format!("problem {}", line(p))).chain(warnings.iter().map(line)).collect()
}

const THEN: Circumstances = Circumstances { now_ms: NOW_MS, retention_ms: DEFAULT_RETENTION_MS, budget_bytes: cost::DEFAULT_BUDGET_BYTES };

/// Lint of the good rule with one thing changed.
fn changed(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "{from}");
    findings(&GOOD.replace(from, to), THEN)
}

#[test]
fn a_good_rule_gets_no_word() {
    assert_eq!(findings(GOOD, THEN), "");
}

#[test]
fn each_thing_is_told_at_its_place() {
    for (from, to, expected) in [
        ("expect: [{by: 1s}]", "expect: nothing", "W001 r.yaml:12:1 http.refused has no test in which it fires\n"),
        (
            "{status_code: 403, user_id: u}], expect: nothing",
            "{times: 2, status_code: 403, user_id: u}], expect: [{by: 1s}]",
            "W002 r.yaml:12:1 http.refused has no test in which it stays quiet (`expect: nothing`)\n",
        ),
        (
            "owner: a, goal: b, blind_spots: [c]",
            "goal: b, blind_spots: [' ']",
            "W003 r.yaml:6:1 http.refused does not say its owner, blind_spots in `meta`\n",
        ),
        ("attack.discovery", "attack.dicsovery", "W004 r.yaml:6:64 `attack.dicsovery` is no tactic and no id of ATT&CK\n"),
        (", expires: '2027-01-15'", "", "W005 r.yaml:11:10 the exception `ours` of http.refused never ends\n"),
        (
            "expires: '2027-01-15'",
            "expires: '2027-01-14'",
            "problem W006 r.yaml:11:69 the exception `ours` of http.refused has expired: it spares nothing any more\n",
        ),
        (
            "when: status_code == 403",
            "let: {idle: 'true'}\nwhen: status_code == 403",
            "W007 r.yaml:8:7 no expression names the `let` `idle`\n",
        ),
        ("review_by: '2027-01-15'", "review_by: soon", "W009 r.yaml:6:83 `review_by` of http.refused is no day\n"),
        ("review_by: '2027-01-15'", "review_by: '2027-01-14'", "W009 r.yaml:6:83 http.refused was to be looked at again by 2027-01-14\n"),
        (
            "within: 5m",
            "within: 8d",
            "W010 r.yaml:9:1 http.refused looks back 8d, and observations are kept for 7d: it cannot be checked against them\n",
        ),
        ("mode: alert", "mode: off", "W012 r.yaml:5:1 http.refused is off: it cannot fire, and its tests do not run\n"),
        ("when: status_code == 403", "when: false", "W012 r.yaml:8:1 `when` of http.refused is always false: it cannot fire\n"),
    ] {
        assert_eq!(changed(from, to), expected, "{to}");
    }
}

#[test]
fn lists_and_flags_that_nothing_names_are_told() {
    let more = "---\nschema: 1\nkind: lists\nlists: {idle: [a]}\n---\nschema: 1\nkind: flags\nflags: [{name: IDLE}, {name: MASTER}, {name: ALERTING}, {name: OWN}]\n\
        ---\nschema: 1\nkind: policy\nid: p\nversion: 1\ndetection_flag: MASTER\nactions: [{do: alert, at: 1, flag: ALERTING}]\n";
    let found = findings(&format!("{GOOD}flag: OWN\n{more}"), THEN);
    assert_eq!(
        found,
        "W007 r.yaml:19:9 no expression names the list `idle`\nW008 r.yaml:23:9 neither a rule nor the policy names the flag IDLE\n"
    );
}

#[test]
fn the_budget_is_told_with_its_figures() {
    let dear = GOOD.replace("detect:", "per: path\nper_max: 1000\ndetect:");
    let found = findings(&dear, THEN);
    let files = [SourceFile { name: "r.yaml".into(), text: dear }];
    let set = load(&files, &Map::new()).unwrap();
    let costs = cost::of(&set);
    let per_slot = set.rules[0].detector.most_bytes() + 46;
    assert_eq!((costs.rules[0].bytes, costs.rules[0].by.as_str()), (per_slot * 1_000, "actor"));
    assert_eq!(costs.kinds.keys().collect::<Vec<_>>(), ["ip", "user"]);
    let total = costs.kinds["user"];
    let ledger = crate::state::REST_BYTES + crate::state::EPISODE_BYTES + crate::state::HELD_BYTES;
    assert_eq!(total, per_slot * 1_000 + 44 + 8 * 16 + ledger);
    for kind in ["ip", "user"] {
        assert!(
            found.contains(&format!(
                "W011 r.yaml:11:1 the state of one `{kind}` may take {total} bytes, more than 65536; http.refused takes {} of them\n",
                per_slot * 1_000
            )),
            "{found}"
        );
    }
    assert_eq!(findings(GOOD, Circumstances { budget_bytes: 1_000_000, ..THEN }), "");
}

#[test]
fn a_rule_without_memory_costs_nothing_and_a_cooldown_costs_its_slot() {
    let cost = |text: &str| {
        let set = load(&[SourceFile { name: "r.yaml".into(), text: text.into() }], &Map::new()).unwrap();
        cost::of(&set).rules[0].bytes
    };
    let plain = GOOD.replace("count: {at_least: 2, within: 5m}", "match: {}");
    assert_eq!(cost(&plain), 0);
    assert_eq!(cost(&plain.replace("type: refused", "type: refused, once_per: 5m")), 46);
}

#[test]
fn more_than_a_rule_may_remember_is_a_problem_of_the_rule() {
    let dear = GOOD.replace("detect:", "per: path\nper_max: 4096\ndetect:").replace("at_least: 2", "at_least: 64");
    let found = load(&[SourceFile { name: "r.yaml".into(), text: dear }], &Map::new()).unwrap_err();
    assert_eq!((found.len(), found[0].code, found[0].line), (1, "R015", 11));
    assert!(found[0].message.contains("bytes of one entity, at most 1048576 are allowed"), "{}", found[0].message);
}

#[test]
fn every_warning_is_explained() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/rules.md")).unwrap();
    for code in codes::ALL {
        assert!(page.contains(&format!("| {code} |")), "docs/rules.md does not explain {code}");
    }
}
