//! The report of `tripline test` as JUnit XML, which build servers read: a suite for each rule, a case for each test.

use super::Tested;
use quick_xml::Writer;
use quick_xml::events::{BytesDecl, BytesEnd, BytesStart, BytesText, Event};
use std::io;
use std::time::Duration;
use tripline_core::trial::CaseReport;

/// The report, as the bytes of a file.
pub fn report(rules: &[Tested]) -> io::Result<Vec<u8>> {
    let mut writer = Writer::new_with_indent(Vec::new(), b' ', 2);
    writer.write_event(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)))?;
    let all = || rules.iter().flat_map(|rule| &rule.cases);
    let numbers = numbers(all());
    writer.write_event(Event::Start(start("testsuites", [("name", "tripline test".to_owned())].into_iter().chain(numbers))))?;
    for rule in rules.iter().filter(|rule| !rule.cases.is_empty()) {
        suite(&mut writer, rule)?;
    }
    writer.write_event(Event::End(BytesEnd::new("testsuites")))?;
    let mut bytes = writer.into_inner();
    bytes.push(b'\n');
    Ok(bytes)
}

fn suite(writer: &mut Writer<Vec<u8>>, rule: &Tested) -> io::Result<()> {
    let attributes = [("name", rule.id.clone())].into_iter().chain(numbers(rule.cases.iter()));
    writer.write_event(Event::Start(start("testsuite", attributes)))?;
    for (case, took) in &rule.cases {
        let attributes = [
            ("classname", rule.id.clone()),
            ("name", case.name.clone()),
            ("file", case.at.file.to_string()),
            ("line", case.at.line.to_string()),
            ("time", seconds(*took)),
        ];
        writer.write_event(Event::Start(start("testcase", attributes)))?;
        if let Some(why) = &case.not_run {
            writer.write_event(Event::Empty(start("skipped", [("message", why.clone())])))?;
        }
        for failed in &case.failed {
            let message = format!("{}: {}", failed.way, failed.said);
            writer.write_event(Event::Start(start("failure", [("message", message.clone())])))?;
            let text = format!("{message}\n{}:{}:{}", case.at.file, case.at.line, case.at.column);
            writer.write_event(Event::Text(BytesText::new(&legal(&text))))?;
            writer.write_event(Event::End(BytesEnd::new("failure")))?;
        }
        writer.write_event(Event::End(BytesEnd::new("testcase")))?;
    }
    writer.write_event(Event::End(BytesEnd::new("testsuite")))
}

fn numbers<'t>(cases: impl Iterator<Item = &'t (CaseReport, Duration)>) -> [(&'static str, String); 5] {
    let (mut tests, mut failures, mut skipped, mut took) = (0, 0, 0, Duration::ZERO);
    for (case, time) in cases {
        tests += 1;
        failures += usize::from(!case.failed.is_empty());
        skipped += usize::from(case.not_run.is_some());
        took += *time;
    }
    [
        ("tests", tests.to_string()),
        ("failures", failures.to_string()),
        ("errors", "0".to_owned()),
        ("skipped", skipped.to_string()),
        ("time", seconds(took)),
    ]
}

fn seconds(took: Duration) -> String {
    format!("{:.3}", took.as_secs_f64())
}

fn start(name: &'static str, attributes: impl IntoIterator<Item = (&'static str, String)>) -> BytesStart<'static> {
    let mut start = BytesStart::new(name);
    for (key, value) in attributes {
        // A line's end inside an attribute would be read as a space.
        start.push_attribute((key, legal(&value).replace(['\n', '\r', '\t'], " ").as_str()));
    }
    start
}

/// XML has no way to write most control characters: they become U+FFFD.
fn legal(text: &str) -> String {
    let is_legal = |c: char| matches!(c, '\t' | '\n' | '\r') || (c >= ' ' && !matches!(c, '\u{fffe}' | '\u{ffff}'));
    text.chars().map(|c| if is_legal(c) { c } else { '\u{fffd}' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use quick_xml::Reader;
    use tripline_core::rule::case::Origin;
    use tripline_core::trial::{Failed, Way};

    fn case(name: &str, failed: &[&str], not_run: Option<&str>) -> (CaseReport, Duration) {
        let failed = failed.iter().map(|said| Failed { way: Way::Plain, said: (*said).to_owned() }).collect();
        let at = Origin { file: "r&d.yaml".into(), line: 7, column: 3 };
        let (ran, not_run) = (vec![Way::Plain], not_run.map(str::to_owned));
        (CaseReport { name: name.into(), at, events: 1, ran, skipped: Vec::new(), failed, not_run }, Duration::from_millis(1_500))
    }

    /// What the report says when it is read as XML: elements with attributes, and texts, one per line.
    fn read_back(bytes: &[u8]) -> String {
        let mut reader = Reader::from_reader(bytes);
        let mut out = String::new();
        loop {
            match reader.read_event().expect("well-formed XML") {
                Event::Start(e) | Event::Empty(e) => {
                    out.push_str(e.name().as_ref());
                    for attribute in e.attributes() {
                        let attribute = attribute.unwrap();
                        let value = quick_xml::escape::unescape(&attribute.value).unwrap();
                        out.push_str(&format!(" {}={value}", attribute.key.as_ref()));
                    }
                    out.push('\n');
                }
                Event::Text(text) => out.push_str(&text),
                Event::GeneralRef(reference) => out.push_str(&format!("&{};", &*reference)),
                Event::Eof => return out,
                _ => {}
            }
        }
    }

    #[test]
    fn the_report_is_read_back_as_it_was_meant() {
        let nasty = "<b>\"5 > 4\" & 'so' ]]>\u{1}\u{0}\nnext";
        let rules = [
            Tested { id: "http.a".into(), cases: vec![case("quiet", &[], None), case(nasty, &["one < two", "three"], None)] },
            Tested { id: "http.off".into(), cases: vec![case("off", &[], Some("the rule is off"))] },
            Tested { id: "http.untested".into(), cases: Vec::new() },
        ];
        let text = read_back(&report(&rules).expect("written"));
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let shown = "<b>\"5 > 4\" & 'so' ]]>\u{fffd}\u{fffd} next";
        let expected = [
            "testsuites name=tripline test tests=3 failures=1 errors=0 skipped=1 time=4.500",
            "testsuite name=http.a tests=2 failures=1 errors=0 skipped=0 time=3.000",
            "testcase classname=http.a name=quiet file=r&d.yaml line=7 time=1.500",
            &format!("testcase classname=http.a name={shown} file=r&d.yaml line=7 time=1.500"),
            "failure message=plain: one < two",
            "plain: one &lt; two",
            "r&amp;d.yaml:7:3",
            "failure message=plain: three",
            "plain: three",
            "r&amp;d.yaml:7:3",
            "testsuite name=http.off tests=1 failures=0 errors=0 skipped=1 time=1.500",
            "testcase classname=http.off name=off file=r&d.yaml line=7 time=1.500",
            "skipped message=the rule is off",
        ];
        assert_eq!(lines, expected);
    }
}
