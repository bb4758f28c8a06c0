use super::*;
use crate::sink::examples::{decision, row};

fn line(rule: &str, points: i64, why: &str) -> Contribution {
    Contribution {
        rule: rule.to_owned(),
        points: Points(points),
        why: why.to_owned(),
        axis: Some(Axis::Intrusion),
        family: Some("recon".to_owned()),
        age_s: Some(0),
        share: None,
        confidence: None,
        anomaly_type: None,
    }
}

/// A decision with this receipt, and nothing else that the chart shows.
fn drawn(contributions: Vec<Contribution>, axes: &[(Axis, i64)], columns: usize) -> String {
    let mut decision = decision("d");
    decision.contributions = contributions;
    decision.axes = axes.iter().map(|(axis, score)| (*axis, Points(*score))).collect();
    decision.risk_score = axes.iter().map(|(_, score)| ((score + 500) / 1_000) as u8).max().unwrap_or(0);
    decision.severity = tripline_core::rule::Severity::Critical;
    (decision.should_alert, decision.should_step_up, decision.should_block, decision.should_throttle) = (false, false, false, false);
    (decision.expires_at, decision.throttle_interval_ms) = (None, None);
    decision.held_back.clear();
    decision.context.clear();
    draw(&Receipt::from(&decision), columns)
}

#[test]
fn every_part_of_a_decision_has_its_line_and_the_row_in_the_store_gives_the_same() {
    let expected = "\
intrusion  72  high
    +62  ███████▍      auth.burst@3  credentials  20 in 60s, now, confidence 0.9
    +10  █▏░           app.says@1    credentials  reported by the app, odd_login, 3m ago, half of 20
abuse  8.25  low
  +8.25  ▉             http.rate@2   load         more often than allowed, now
context    new-network x1.5
actions    alert, throttle to one in 1818 ms, step_up, block
held back  block by mode:alert
expires    2026-01-31T13:00:00.000Z
";
    let mut given = decision("d");
    given.expires_at = Some("2026-01-31T13:00:00.000Z".to_owned());
    assert_eq!(draw(&Receipt::from(&given), 100), expected);
    assert_eq!(draw(&Receipt::try_from(&row("d", |_| ())).expect("own JSON"), 100), expected);
}

#[test]
fn the_lines_of_an_axis_add_up_and_what_is_above_100_is_taken_off() {
    let contributions = vec![
        line("http.probe@3", 59_700, "8 different values in 5m"),
        Contribution { family: Some("authz".into()), age_s: Some(119), ..line("http.tenant@1", 50_000, "one event is enough") },
        Contribution { share: Some(Points(500)), age_s: Some(7_300), ..line("http.403@2", 9_500, "5 in 2m") },
        Contribution { share: Some(Points(250)), age_s: Some(180_000), ..line("http.404@2", 250, "5 in 2m") },
        Contribution { share: Some(Points(0)), ..line("http.405@2", 0, "5 in 2m") },
        Contribution { family: None, age_s: None, ..line("clamp", -19_450, "a score ends at 100") },
    ];
    assert_eq!(
        drawn(contributions, &[(Axis::Intrusion, 100_000)], 96),
        "\
intrusion  100  critical
   +59.7  ███████▏      http.probe@3   recon  8 different values in 5m, now
     +50  ██████        http.tenant@1  authz  one event is enough, 119s ago
    +9.5  █▏░           http.403@2     recon  5 in 2m, 2h ago, half of 19
   +0.25  ▏             http.404@2     recon  5 in 2m, 2d ago, a quarter of 1
      +0                http.405@2     recon  5 in 2m, now, adds nothing beside three stronger
                                              ones of its family
  -19.45                clamp                 a score ends at 100
actions    none
"
    );
}

#[test]
fn a_narrow_terminal_breaks_reasons_and_never_cuts_them() {
    assert_eq!(
        drawn(vec![line("http.probe@3", 25_000, "8 different values in 5m")], &[(Axis::Intrusion, 25_000)], 40),
        "\
intrusion  25  critical
   +25  ██        http.probe@3  recon  8 different values in
                                       5m, now
actions    none
"
    );
}

#[test]
fn a_decision_of_one_firing_has_a_score_and_no_axis() {
    let mut given = decision("d");
    given.axes.clear();
    given.contributions = vec![Contribution { axis: None, family: None, age_s: None, ..line("auth.burst@3", 72_000, "20 in 60s") }];
    let chart = draw(&Receipt::from(&given), 100);
    assert!(chart.starts_with("score  72  high\n   +72  ████████▋     auth.burst@3  20 in 60s\ncontext"), "{chart}");
    given.contributions.clear();
    assert!(draw(&Receipt::from(&given), 100).starts_with("score  72  high\ncontext"));
}

#[test]
fn nothing_in_it_writes_to_the_terminal() {
    let chart = drawn(vec![line("a\u{1b}[2J@1", 5_000, "b\u{202e}")], &[(Axis::Intrusion, 5_000)], 80);
    assert!(chart.contains("a\\u{1b}[2J@1") && chart.contains("b\\u{202e}") && !chart.contains('\u{1b}'), "{chart}");
}
