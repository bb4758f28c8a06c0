//! The command line from outside: exit codes, and what goes to stdout and what to stderr.

use serde_json::Value;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

/// Runs the binary in the repository's root without any of our own settings in its environment.
fn tripline(args: &[&str], environment: &[(&str, &str)], input: &str) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tripline"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("TRIPLINE_")) {
        command.env_remove(name);
    }
    command.args(args).envs(environment.iter().copied()).env_remove("RUST_LOG").current_dir(root());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts");
    // One that never reads its input closes it: not this test's business.
    let _ = child.stdin.take().expect("a pipe").write_all(input.as_bytes());
    let done = child.wait_with_output().expect("it ends");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    Ran { code: done.status.code(), out: text(done.stdout), err: text(done.stderr) }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn write(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, text).expect("written");
    path.display().to_string()
}

#[test]
fn help_and_version_go_to_stdout_and_name_the_exit_codes() {
    let help = tripline(&["--help"], &[], "");
    assert_eq!((help.code, help.err.as_str()), (Some(0), ""));
    assert!(help.out.contains("3  invalid settings, rules or flags"), "{}", help.out);
    let version = tripline(&["--version"], &[], "");
    assert_eq!((version.code, version.out.trim()), (Some(0), concat!("tripline ", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn wrong_usage_is_2_and_says_so_on_stderr() {
    for args in [
        &["frobnicate"][..],
        &[],
        &["replay"],
        &["--set", "lanes", "check"],
        &["replay", "--input", "nowhere.ndjson"],
        &["replay", "--input", "src"],
        &["flags", "eval", "NOBODY_KNOWS"],
        &["run", "--roles", "cook"],
    ] {
        let ran = tripline(args, &[], "");
        assert_eq!((ran.code, ran.out.as_str()), (Some(2), ""), "{args:?}: {}", ran.err);
        assert!(!ran.err.is_empty(), "{args:?}");
    }
}

#[test]
fn check_is_0_when_all_is_well_and_3_with_every_problem_else() {
    let ran = tripline(&["check"], &[], "");
    assert_eq!(ran.code, Some(0), "{}{}", ran.out, ran.err);
    assert!(ran.out.contains("the master flag `ANOMALY_DETECTION_ENABLED` is off"), "{}", ran.out);

    let ran = tripline(&["check", "-o", "json"], &[("TRIPLINE_STREAM__LANE", "3"), ("TRIPLINE_STREAM__LANES", "many")], "");
    assert_eq!(ran.code, Some(3));
    let report: Value = serde_json::from_str(&ran.out).expect("JSON");
    let problems: Vec<_> = report["problems"].as_array().expect("a list").iter().map(|p| p["code"].as_str().expect("a code")).collect();
    assert_eq!(problems, ["C002", "C003"]);
    assert_eq!(report["problems"][0]["help"], "did you mean `stream.lanes`?");
}

#[test]
fn check_takes_paths_of_every_kind() {
    let folder = tempfile::tempdir().expect("a folder");
    let settings = write(folder.path(), "a.toml", "[stream]\nlanes = 0\n");
    let flags = write(folder.path(), "flags.yaml", "SOME_FLAG: {enable: true}\n");
    let ran = tripline(&["check", "config/packs/anomaly-infra", &settings, &flags, "nowhere"], &[], "");
    assert_eq!(ran.code, Some(3));
    assert!(ran.out.contains("ok: rules config/packs/anomaly-infra: "), "{}", ran.out);
    for place in [format!("--> {settings}:2:9"), format!("--> {flags}:1:"), "--> nowhere\n".to_owned()] {
        assert!(ran.out.contains(&place), "{place} in\n{}", ran.out);
    }
}

#[test]
fn invalid_settings_stop_every_verb_with_3() {
    let problem = [("TRIPLINE_STREAM__LANES", "0")];
    for args in
        [&["run"][..], &["replay", "--input", "-"], &["explain", "--input", "-", "--event", "e"], &["config", "show"], &["flags", "list"]]
    {
        let ran = tripline(args, &problem, "");
        assert_eq!((ran.code, ran.out.as_str()), (Some(3), ""), "{args:?}");
        assert!(ran.err.contains("environment variable TRIPLINE_STREAM__LANES"), "{}", ran.err);
    }
    let ran = tripline(&["run", "--set", "rules.path=nowhere"], &[], "");
    assert_eq!(ran.code, Some(3));
    assert!(ran.err.contains("there is no such folder of rules"), "{}", ran.err);
}

#[test]
fn replay_writes_decisions_to_stdout_and_its_summary_to_stderr() {
    let folder = tempfile::tempdir().expect("a folder");
    let flags = write(folder.path(), "flags.json", "{\"ANOMALY_DETECTION_ENABLED\": true}");
    let good =
        "{\"event_type\":\"anomaly.reported\",\"event_time\":\"2026-01-01T00:00:00Z\",\"user_id\":\"u1\",\"anomaly_type\":\"odd\"}\n";
    let args = ["replay", "--input", "-", "--flags", &flags];
    let ran = tripline(&args, &[], good);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let decision: Value = serde_json::from_str(&ran.out).expect("one decision");
    assert_eq!((decision["anomaly_type"].as_str(), decision["entity"]["id"].as_str()), (Some("odd"), Some("u1")));
    assert!(
        ran.err.contains("1 lines = 1 routed + 0 unaddressed + 0 rejected\n1 observations = 1 processed + 0 late + 0 duplicate"),
        "{}",
        ran.err
    );

    let bad = format!("{good}{{\"user_id\":\"secret-person\"\n");
    let ran = tripline(&args, &[], &bad);
    assert_eq!((ran.code, ran.out.lines().count()), (Some(0), 1), "{}", ran.err);
    assert!(ran.err.contains("line 2: invalid_json") && !ran.err.contains("secret-person"), "{}", ran.err);
    assert_eq!(tripline(&[&args[..], &["--strict"]].concat(), &[], &bad).code, Some(1));

    let off = tripline(&["replay", "--input", "-"], &[], good);
    assert_eq!((off.code, off.out.as_str()), (Some(0), ""));
    assert!(off.err.contains("master flag is off"), "{}", off.err);
}

#[test]
fn explain_is_0_when_the_event_is_found_and_1_when_it_is_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let flags = write(folder.path(), "flags.json", "{\"ANOMALY_DETECTION_ENABLED\": true}");
    let event = |id: &str, ty: &str, more: &str| {
        format!("{{\"event_type\":\"{ty}\",\"event_time\":\"2026-01-01T00:00:00Z\",\"user_id\":\"u1\",\"event_id\":\"{id}\"{more}}}\n")
    };
    let input = event("one", "anomaly.reported", ",\"anomaly_type\":\"odd\"") + "nonsense\n" + &event("two", "page.viewed", "");
    let ran = |args: &[&str]| tripline(&[&["explain", "--input", "-", "--flags", &flags], args].concat(), &[], &input);

    let found = ran(&["--event", "one"]);
    assert_eq!(found.code, Some(0), "{}", found.err);
    assert!(
        found.out.starts_with("event one, anomaly.reported at 2026-01-01T00:00:00.000Z, line 1 of stdin\n\nuser:u1\n"),
        "{}",
        found.out
    );
    assert!(found.out.contains(": odd\n") && found.out.contains("reported by the app"), "{}", found.out);

    let quiet = ran(&["--event", "two", "--entity", "user:u1", "--json"]);
    assert_eq!(quiet.code, Some(0), "{}", quiet.err);
    let object: Value = serde_json::from_str(&quiet.out).expect("one object");
    assert_eq!((object["line"].as_u64(), object["decisions"].as_array().map(Vec::len)), (Some(3), Some(0)));
    assert!(object["rules"].as_array().is_some_and(|rules| rules.iter().any(|rule| rule["why"] == "other_type")), "{object}");

    let absent = ran(&["--event", "three"]);
    assert_eq!((absent.code, absent.out.as_str()), (Some(1), ""));
    assert!(absent.err.contains("no event of stdin has the id three: 3 lines read, 1 of them no events"), "{}", absent.err);
    let other = ran(&["--event", "one", "--entity", "user:u2"]);
    assert_eq!((other.code, other.out.as_str()), (Some(1), ""));
    assert!(other.err.contains("does not concern user:u2, it concerns user:u1"), "{}", other.err);
    assert_eq!(ran(&[]).code, Some(2), "an event must be named");
}

#[test]
fn flags_tell_what_holds_for_whom_and_why() {
    let folder = tempfile::tempdir().expect("a folder");
    let flags = write(
        folder.path(),
        "flags.yaml",
        "NEW_CHECKOUT: {enabled: true, rollout_percentage: 0, users: [u1]}\nSTAFF: {staff_only: true}\n",
    );
    let on = |args: &[&str]| {
        let ran = tripline(&[&["flags", "eval", "-o", "json", "--flags", &flags], args].concat(), &[], "");
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        let answer: Value = serde_json::from_str(&ran.out).expect("JSON");
        answer["flags"][0]["on"].as_bool().expect("a truth value")
    };
    assert!(on(&["NEW_CHECKOUT", "--user", "u1"]) && !on(&["NEW_CHECKOUT", "--user", "u2"]));
    assert!(on(&["STAFF", "--staff"]) && !on(&["STAFF"]));
    let list = tripline(&["flags", "list", "--flags", &flags], &[], "");
    for name in ["NEW_CHECKOUT", "STAFF", "ANOMALY_DETECTION_ENABLED"] {
        assert!(list.out.contains(name), "{}", list.out);
    }
    let typo = tripline(&["flags", "eval", "STAF", "--flags", &flags], &[], "");
    assert_eq!(typo.code, Some(2));
    assert!(typo.err.contains("did you mean `STAFF`?"), "{}", typo.err);
}

#[test]
fn config_shows_origins_and_hides_secrets() {
    let environment = [("TRIPLINE_KAFKA__PROPERTIES__SASL_PASSWORD", "hunter2"), ("TRIPLINE_STREAM__LANES", "3")];
    let ran = tripline(&["config", "show", "--origin"], &environment, "");
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(ran.out.contains("lanes = 3 # env TRIPLINE_STREAM__LANES") && ran.out.contains("\"sasl.password\" = \"***\""), "{}", ran.out);
    assert!(!ran.out.contains("hunter2"));
    let json: Value = serde_json::from_str(&tripline(&["config", "show", "-o", "json"], &environment, "").out).expect("JSON");
    assert_eq!((json["stream"]["lanes"].as_i64(), json["kafka"]["properties"]["sasl.password"].as_str()), (Some(3), Some("***")));
    let schema: Value = serde_json::from_str(&tripline(&["config", "schema"], &[], "").out).expect("JSON");
    assert_eq!(schema["title"], "Tripline settings");
}

/// The database logs slow statements, from a thread of its own, while the verb waits for it: neither may wait for the other.
#[test]
fn events_are_listed_while_the_database_has_something_to_log() {
    let folder = tempfile::tempdir().expect("a folder");
    let url = format!("sqlite://{}", write(folder.path(), "events.db", ""));
    let log = std::fs::File::create(folder.path().join("log")).expect("a file");
    let mut command = Command::new(env!("CARGO_BIN_EXE_tripline"));
    command.args(["events", "list"]).env("TRIPLINE_SINK__URL", url).env("TRIPLINE_LOG__LEVEL", "sqlx=debug").env_remove("RUST_LOG");
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).current_dir(root()).spawn().expect("the binary starts");
    let ended =
        tripline_testkit::wait_until(std::time::Duration::from_secs(60), "events list ends", || matches!(child.try_wait(), Ok(Some(_))));
    let _ = child.kill();
    assert!(child.wait().is_ok_and(|status| status.success()) && ended.is_ok());
    let log = std::fs::read_to_string(folder.path().join("log")).expect("a log");
    assert!(log.contains("sqlx"), "the database logged nothing: {log}");
}

#[test]
fn completions_know_the_verbs() {
    let ran = tripline(&["completions", "bash"], &[], "");
    assert_eq!(ran.code, Some(0));
    assert!(ran.out.contains("replay") && ran.out.contains("--strict"));
}

const TESTED: &str = "schema: 1\nid: http.refused\nversion: 1\ntitle: Refused often\nmode: enforce\non: http_request\nwhen: status_code == 403\n\
    detect: {count: {at_least: 2, within: 5m}}\nsignal: {type: refused}\ntests:\n  - name: '2 < 3'\n    events: [{times: 2, status_code: 403, user_id: u1}]\n";

#[test]
fn test_is_0_when_every_test_holds_and_1_when_one_fails() {
    let ran = tripline(&["test", "config/packs/anomaly-infra"], &[], "");
    assert_eq!(ran.code, Some(0), "{}{}", ran.out, ran.err);
    assert!(ran.out.contains("6 rules, 0 untested; 12 tests: 12 ok, 0 failed, 0 not run"), "{}", ran.out);
    assert_eq!(tripline(&["test", "config/packs/anomaly-infra", "--strict"], &[], "").code, Some(1), "its warnings are findings");
    assert_eq!(tripline(&["test", "config/packs/anomaly-infra", "--rule", "http.nowhere"], &[], "").code, Some(2));

    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().display().to_string();
    let report = folder.path().join("report.xml").display().to_string();
    write(folder.path(), "r.yaml", &format!("{TESTED}    expect: nothing\n"));
    let ran = tripline(&["test", &path, "--junit", &report], &[], "");
    assert_eq!(ran.code, Some(1), "{}", ran.err);
    assert!(ran.out.contains("plain: not expected: a signal about user:u1 at 1s, refused (2 in 5m)"), "{}", ran.out);
    let xml = std::fs::read_to_string(&report).expect("a report");
    assert!(xml.contains("name=\"2 &lt; 3\"") && xml.contains("<failure "), "{xml}");

    write(
        folder.path(),
        "r.yaml",
        &TESTED.replace("tests:\n  - name: '2 < 3'\n    events: [{times: 2, status_code: 403, user_id: u1}]\n", ""),
    );
    let ran = tripline(&["test", &path], &[], "");
    assert_eq!(ran.code, Some(1), "a run without a test shows nothing");
    assert!(ran.out.contains("no test was run"), "{}", ran.out);

    write(folder.path(), "r.yaml", TESTED);
    let ran = tripline(&["test", &path], &[], "");
    assert_eq!(ran.code, Some(3));
    assert!(ran.err.contains("`expect` is missing in a test"), "{}", ran.err);
}
