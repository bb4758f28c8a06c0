use super::*;
use crate::sink::StoreError;
use crate::sink::examples::row;
use clap::Parser;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    events: EventsArgs,
}

/// An hour after the example decisions were taken in.
const NOW_MS: i64 = crate::sink::examples::RECORD_MS + 3_600_000;

const FIRST: &str = "11111111-aaaa-5000-8000-000000000001";
const SECOND: &str = "11111111-bbbb-5000-8000-000000000002";
const THIRD: &str = "22222222-cccc-5000-8000-000000000003";

/// A store with three events, in a folder that lives as long as it does.
struct Desk {
    folder: tempfile::TempDir,
}

impl Desk {
    fn new() -> Desk {
        let desk = Desk { folder: tempfile::tempdir().expect("a folder") };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let mut store =
                EventStore::open(&Location::parse(&desk.url()).expect("a valid url"), Opening::CreateIfMissing).await.expect("a store");
            let rows = [
                row(FIRST, |_| ()),
                row(SECOND, |d| d.user_agent = Some("evil\u{1b}[2J\u{202e}".to_owned())),
                row(THIRD, |d| d.entity.id = "x".repeat(99)),
            ];
            store.write(rows.iter(), std::iter::empty()).await.expect("written");
        });
        desk
    }

    fn url(&self) -> String {
        format!("sqlite://{}", self.folder.path().join("events.db").display())
    }

    /// Exit code, stdout, stderr.
    fn run(&self, arguments: &[&str]) -> (u8, String, String) {
        let line = Line::try_parse_from([&["events"], arguments].concat()).unwrap_or_else(|e| panic!("{e}"));
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = execute(line.events.command, &self.url(), NOW_MS, 100, &mut out, &mut err).unwrap_or_else(|e| panic!("{e:#}"));
        (code, String::from_utf8(out).expect("text"), String::from_utf8(err).expect("text"))
    }
}

#[test]
fn list_draws_aligned_columns_and_cuts_long_cells() {
    let (code, out, err) = Desk::new().run(&["list", "--limit", "3"]);
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(code, 0);
    assert_eq!(
        lines[1].split_whitespace().collect::<Vec<_>>().join(" "),
        "11111111-aaaa 2026-01-31T12:00:01.000Z high 72 auth_failure_burst user:u1 step_up_review new"
    );
    assert!(lines[3].contains("xxx…"), "{out}");
    // Counted in characters: the cut cell ends with one of three bytes.
    let column =
        |line: &str, word: &str| line.chars().count() - line.split(word).last().map_or(0, |rest| rest.chars().count()) - word.len();
    assert!(lines[1..].iter().all(|line| column(line, "new") == column(lines[0], "STATUS")), "{out}");
    assert!(err.contains("--limit"), "{err}");
}

#[test]
fn since_takes_a_length_of_time_or_a_time_and_refuses_the_rest() {
    let desk = Desk::new();
    let listed = |since: &str| desk.run(&["list", "--since", since, "-o", "ndjson"]).1.lines().count();
    assert_eq!((listed("2h"), listed("30m"), listed("2026-01-31T12:00:01Z"), listed("2026-01-31T12:00:02Z")), (3, 0, 3, 0));
    let (code, _, err) = desk.run(&["list", "--since", "yesterday"]);
    assert!(code == 2 && err.contains("24h"), "{err}");
}

#[test]
fn show_draws_the_receipt_and_lets_no_event_write_to_the_terminal() {
    let (code, out, _) = Desk::new().run(&["show", "11111111-b"]);
    assert_eq!(code, 0);
    let chart = "
flags        sha256:2233

intrusion  72  high
    +62  ███████▍      auth.burst@3  credentials  20 in 60s, now, confidence 0.9
    +10  █▏░           app.says@1    credentials  reported by the app, odd_login, 3m ago, half of 20
abuse  8.25  low
  +8.25  ▉             http.rate@2   load         more often than allowed, now
";
    assert!(out.contains(chart), "{out}");
    assert!(out.contains("held back  block by mode:alert\nexpires    2026-01-31T13:00:00.000Z\n"), "{out}");
    assert!(out.contains("marks        clamped, partial, warming\n") && out.contains("suppressed   4 since the firings before\n"), "{out}");
    assert!(out.contains("evil\\u{1b}[2J\\u{202e}") && !out.contains('\u{1b}') && !out.contains('\u{202e}'), "{out}");
}

#[test]
fn resolve_and_note_leave_a_history() {
    let desk = Desk::new();
    assert_eq!(desk.run(&["note", FIRST, "asked the user", "--by", "ann"]).0, 0);
    let (code, out, _) = desk.run(&["resolve", FIRST, THIRD, "--note", "a test", "--by", "bo"]);
    assert_eq!((code, out), (0, format!("{FIRST} resolved\n{THIRD} resolved\n")));
    let shown: Value = serde_json::from_str(&desk.run(&["show", FIRST, "-o", "json"]).1).expect("JSON");
    assert_eq!(
        (&shown["status"], &shown["resolved"], &shown["resolved_by"], &shown["notes"]),
        (&json!("resolved"), &json!(true), &json!("bo"), &json!("a test"))
    );
    assert_eq!(shown["metadata"]["count"], 20);
    let history: Vec<_> = shown["history"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|n| (n["author"].clone(), n["text"].clone(), n["status"].clone()))
        .collect();
    assert_eq!(history, [(json!("ann"), json!("asked the user"), Value::Null), (json!("bo"), json!("a test"), json!("resolved"))]);
    assert_eq!(desk.run(&["list", "--status", "new", "-o", "ndjson"]).1.lines().count(), 1);
}

#[test]
fn an_id_that_is_unknown_or_not_unique_is_a_finding_and_changes_nothing() {
    let desk = Desk::new();
    for (id, message) in [("11111111", "several"), ("33333333", "no event"), ("1111111", "no event"), ("2222222_", "no event")] {
        let (code, _, err) = desk.run(&["resolve", THIRD, id]);
        assert!(code == 1 && err.contains(message), "{id}: {err}");
    }
    assert_eq!(desk.run(&["list", "--status", "new", "-o", "ndjson"]).1.lines().count(), 3);
}

#[test]
fn a_mistyped_path_is_named_and_not_created() {
    let desk = Desk::new();
    let url = format!("{}.mistyped", desk.url());
    let line = Line::try_parse_from(["events", "list"]).unwrap_or_else(|e| panic!("{e}"));
    let error = execute(line.events.command, &url, NOW_MS, 100, &mut Vec::new(), &mut Vec::new()).expect_err("no store there");
    assert!(error.to_string().contains("events.db.mistyped"), "{error}");
    assert_eq!(error.downcast_ref::<StoreError>().map(StoreError::exit_code), Some(4));
    assert_eq!(
        std::fs::read_dir(desk.folder.path())
            .expect("the folder")
            .filter(|f| f.as_ref().is_ok_and(|f| f.file_name().to_string_lossy().contains("mistyped")))
            .count(),
        0
    );
}
