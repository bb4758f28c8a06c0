//! TLS, credentials and rights: what keeps a client out is said once, with the way out; the rights that are printed are
//! enough, and none is too many; and a worker goes on when what was taken from it comes back.

#[path = "access/fortress.rs"]
mod fortress;

use crate::line::{Line, PATIENCE, Running, Setup};
use anyhow::{Context, Result, ensure};
use fortress::{PASSWORD, PLAIN_KEEPER, PLAIN_USER, PLAIN_WORKER, Said, acls_of, fortress};
use serde_json::json;
use std::time::{Duration, Instant};
use tripline_testkit::kafka::access::{Acl, Resource};
use tripline_testkit::keys::STORE_PASSWORD;
use tripline_testkit::{Record, http, unique, wait_until};

/// Four refusals are decided and told; what was not found is only watched.
const RULES: &str = r#"schema: 1
kind: policy
id: policy.access
version: 1
actions:
  - {do: alert, at: 30}
allowed_lateness: 1s
---
{schema: 1, id: access.refused, version: 1, title: Refused, mode: alert, on: http_request, by: user, when: status_code == 403,
 detect: {count: {at_least: 4, within: 1m}}, signal: {type: refused, severity: critical, points: 90, certain: true, user_message: Stop.}}
---
{schema: 1, id: access.watched, version: 1, title: Watched, mode: shadow, on: http_request, by: user, when: status_code == 404,
 detect: {match: {}}, signal: {type: watched, severity: high, points: 70}}
"#;

/// A line whose topics do not exist yet but for the input.
fn line() -> Result<Line> {
    let mut line = Line::on(fortress().kafka, &Setup { flags: "{}".into(), ..Setup::routed(1, 2) })?;
    line.app = unique("guarded");
    std::fs::create_dir(line.file("rules"))?;
    std::fs::write(line.file("rules").join("rules.yaml"), RULES)?;
    Ok(line)
}

/// Settings of a user of the line who comes by TLS and SASL; the password stands in a file.
fn settings(line: &Line, name: &str, user: &str) -> Result<Vec<(String, String)>> {
    let file = line.file(&format!("{user}.password"));
    std::fs::write(&file, format!("{PASSWORD}\n"))?;
    let password = format!("${{file:{}}}", file.display());
    let mut settings = fortress().settings(line, name, "SECURE", &fortress().sasl(user, &password));
    let rules = line.file("rules").display().to_string();
    settings.retain(|(key, _)| key != "TRIPLINE_RULES__PATH");
    settings.push(("TRIPLINE_RULES__PATH".into(), rules));
    Ok(settings)
}

/// The ACLs that are printed for a user.
fn printed(line: &Line, user: &str, purpose: &str) -> Result<Vec<Acl>> {
    let principal = format!("User:{user}");
    let args = ["acls", "print", "--principal", &principal, "--for", purpose, "-o", "commands"];
    let done = line.command(&args, &line.settings("printer"))?;
    ensure!(done.status.success(), "acls print: {}", String::from_utf8_lossy(&done.stderr));
    let text = String::from_utf8(done.stdout)?;
    let commands = text.lines().filter(|line| line.starts_with("kafka-acls.sh "));
    Ok(commands.map(acls_of).collect::<Result<Vec<_>>>()?.concat())
}

/// Gives a user of this name what is printed for a purpose.
fn admit(line: &Line, user: &str, purpose: &str) -> Result<Vec<Acl>> {
    let acls = printed(line, user, purpose)?;
    fortress().kafka.set_password(user, PASSWORD)?;
    fortress().kafka.allow(&acls)?;
    Ok(acls)
}

fn start(line: &Line, user: &str) -> Result<Running> {
    start_with(line, user, &[])
}

fn start_with(line: &Line, user: &str, more: &[(&str, &str)]) -> Result<Running> {
    let settings = settings(line, user, user)?;
    let borrowed = settings.iter().map(|(k, v)| (k.as_str(), v.as_str()));
    let borrowed: Vec<(&str, &str)> = borrowed.filter(|(name, _)| *name != "TRIPLINE_ADMIN__LISTEN").chain(more.iter().copied()).collect();
    let mut running = line.start_with(user, "detect,sink", &borrowed)?;
    running.worker.wait_ready(&running.admin, PATIENCE)?;
    Ok(running)
}

fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

fn event(user: &str, number: usize, status: u16, at_ms: i64) -> Record {
    let event = json!({"event_id": format!("{user}-{status}-{number}"), "event_type": "http_request", "event_time": at_ms, "user_id": user, "status_code": status});
    Record::new(user, event.to_string()).at_ms(now_ms())
}

/// Enough refusals of a user for a decision.
fn refuse(line: &Line, user: &str) -> Result<()> {
    line.kafka.produce_all(&line.input, (0..4).map(|n| event(user, n, 403, now_ms())))?;
    Ok(())
}

fn is_decided(line: &Line, user: &str) -> bool {
    line.decisions().is_ok_and(|decisions| decisions.values().any(|decision| decision["entity"]["id"] == user))
}

/// As messages name it.
fn word(resource: Resource) -> &'static str {
    match resource {
        Resource::Topic => "topic",
        Resource::Group => "group",
        Resource::TransactionalId => "transactional id",
    }
}

/// Whether the authorizer said yes for the sake of one of the printed rights.
fn is_used(acl: &Acl, said: &Said) -> bool {
    let resource = word(acl.resource).replace(' ', "");
    let is_named = if acl.prefixed { said.name.starts_with(&acl.name) } else { said.name == acl.name };
    said.allowed && said.resource == resource && is_named && said.operation == acl.operation.to_lowercase()
}

/// The broker's own log of its decisions is the witness: it allowed each right to this user because he used it, and denied nothing.
fn assert_enough_and_used(user: &str, acls: &[Acl]) -> Result<()> {
    // The broker writes its log beside what it answers.
    let is_all_used = || fortress().audit(user).is_ok_and(|said| acls.iter().all(|acl| said.iter().any(|said| is_used(acl, said))));
    let _ = wait_until(Duration::from_secs(10), "every right is used", is_all_used);
    let said = fortress().audit(user)?;
    let denied: Vec<&Said> = said.iter().filter(|said| !said.allowed).collect();
    ensure!(denied.is_empty(), "{user} was denied {denied:?}");
    let unused: Vec<&Acl> = acls.iter().filter(|acl| !said.iter().any(|said| is_used(acl, said))).collect();
    ensure!(unused.is_empty(), "{user} never used {unused:?}");
    Ok(())
}

#[test]
fn the_printed_rights_are_enough_and_none_is_too_many() -> Result<()> {
    from_setup_to_restore(&unique("keeper"), &unique("worker"))
}

#[test]
fn the_printed_rights_are_enough_for_users_of_sasl_plain() -> Result<()> {
    from_setup_to_restore(PLAIN_KEEPER, PLAIN_WORKER)
}

/// The topics are made and altered, everything is written and read that can be, and a disk is lost.
fn from_setup_to_restore(keeper: &str, worker: &str) -> Result<()> {
    let line = line()?;
    let for_setup = admit(&line, keeper, "setup")?;
    let mut setup = settings(&line, "setup", keeper)?;
    let apply = |args: &[&str], settings: &[(String, String)]| -> Result<()> {
        let done = line.command(args, settings)?;
        ensure!(done.status.success(), "{args:?}: {}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        Ok(())
    };
    apply(&["topics", "apply"], &setup)?;
    // Something to alter on every topic.
    setup.push(("TRIPLINE_INPUT__MAX_VALUE_BYTES".into(), "2MiB".into()));
    line.kafka.alter_topic(&line.topic("internal.epochs"), &[("retention.ms", "1000000")])?;
    apply(&["topics", "apply", "--alter"], &setup)?;
    assert_enough_and_used(keeper, &for_setup)?;

    let for_run = admit(&line, worker, "run")?;
    let running = start(&line, worker)?;
    refuse(&line, "u1")?;
    let now = now_ms();
    let rest = [event("u1", 0, 404, now), event("u1", 1, 403, now - 3_600_000), Record::new("u1", "{")];
    line.kafka.produce_all(&line.input, rest)?;
    for topic in ["decisions", "alerts", "standing", "dead-letters", "late", "shadow", "internal.epochs"] {
        wait_until(PATIENCE, topic, || line.read(topic).is_ok_and(|records| !records.is_empty()))?;
    }
    let stored = || running.metrics().is_ok_and(|m| m.sum("tripline_sink_records_total", &[("outcome", "stored")]) >= 1.0);
    wait_until(PATIENCE, "the sink has stored", stored)?;
    running.stop()?;
    // Another disk: the state comes from the changelog.
    std::fs::remove_dir_all(line.file(&format!("state-{worker}")))?;
    let running = start(&line, worker)?;
    ensure!(running.metrics()?.sum("tripline_restore_records_total", &[]) > 0.0, "nothing was restored");
    running.stop()?;
    assert_enough_and_used(worker, &for_run)
}

/// Everything that people do who look and repair, by somebody who has what is printed for it and no more.
#[test]
fn the_rights_to_operate_are_enough_for_every_verb_and_none_is_too_many() -> Result<()> {
    let line = line()?;
    let (worker, operator) = (unique("worker"), unique("operator"));
    let made = line.command(&["topics", "apply"], &line.settings("setup"))?;
    ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    admit(&line, &worker, "run")?;
    let quick = [("TRIPLINE_STREAM__SESSION_TIMEOUT", "6s"), ("TRIPLINE_STREAM__TRANSACTION_TIMEOUT", "3s")];
    let running = start_with(&line, &worker, &quick)?;
    refuse(&line, "u1")?;
    let odd = [Record::new("u1", "{").at_ms(now_ms()), event("u1", 0, 404, now_ms())];
    line.kafka.produce_all(&line.input, odd)?;
    for topic in ["decisions", "shadow"] {
        wait_until(PATIENCE, topic, || line.read(topic).is_ok_and(|records| !records.is_empty()))?;
    }
    line.kafka.produce_all(&line.input, [event("u1", 0, 404, now_ms() - 3 * 86_400_000)])?;
    wait_until(PATIENCE, "a record that is too late", || line.read("late").is_ok_and(|records| !records.is_empty()))?;
    wait_until(PATIENCE, "a dead letter", || line.read("dead-letters").is_ok_and(|records| records.len() == 1))?;
    line.settle()?;
    running.stop()?;

    let for_operate = admit(&line, &operator, "operate")?;
    let mut settings = settings(&line, "desk", &operator)?;
    settings.extend(quick.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let operate = |args: &[&str], settings: &[(String, String)]| -> Result<String> {
        let done = line.command(args, settings)?;
        let (said, error) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        ensure!(done.status.success(), "{args:?}: {said}{error}");
        Ok(said.into_owned())
    };
    operate(&["audit"], &settings)?;
    operate(&["state", "list"], &settings)?;
    ensure!(operate(&["dlq", "redrive", "--execute"], &settings)?.contains("1 dead letter sent back"), "nothing was sent");
    // Unread, so that the move writes it again; after the audit, which knows that no router made it.
    line.kafka.produce_all(&line.topic("internal.observations"), [Record::new("user:u1", "{")])?;
    // Stopped workers are gone by now, or the next one waits for it.
    let said = operate(&["state", "repartition", "--to", "4", "--execute"], &settings)?;
    ensure!(said.contains("2 → 4 tasks") && said.contains("1 observations are written again"), "{said}");
    operate(&["state", "adopt", "--partition", "0"], &settings)?;
    assert_enough_and_used(&operator, &for_operate)
}

#[test]
fn what_is_taken_back_is_named_waited_for_and_used_again() -> Result<()> {
    let line = line()?;
    let user = unique("clerk");
    let made = line.command(&["topics", "apply"], &line.settings("setup"))?;
    ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let acls = admit(&line, &user, "run")?;
    let running = start(&line, &user)?;
    let readiness = || http::get(&running.admin, "/readyz");
    let refused = |what: &str| readiness().is_ok_and(|(status, body)| status != 200 && body.contains(what));
    let group = |name: String| (Resource::Group, name, "Read");
    let topic = |name: String, operation| (Resource::Topic, name, operation);
    let taken = [
        topic(line.input.clone(), "Read"),
        topic(line.topic("internal.observations"), "Write"),
        topic(line.topic("internal.observations"), "Read"),
        topic(line.topic("decisions"), "Write"),
        topic(line.topic("decisions"), "Read"),
        topic(line.topic("internal.changelog"), "Write"),
        group(line.app.clone()),
        group(format!("{}-sink", line.app)),
        (Resource::TransactionalId, format!("{}-", line.app), "Write"),
    ];
    for (number, (resource, name, operation)) in taken.iter().enumerate() {
        let is_taken = |acl: &&Acl| acl.resource == *resource && acl.name == *name && acl.operation == *operation;
        let acl = [acls.iter().find(is_taken).with_context(|| format!("{operation} on {name} is printed"))?.clone()];
        fortress().kafka.forbid(&acl)?;
        let actor = format!("u{number}");
        // Once a fetch that was under way has ended, nothing goes unseen: the broker is asked anew for every record.
        let mut round = 0;
        let what = format!("{operation} on {} {name}", word(*resource));
        wait_until(PATIENCE, &format!("{what} is missed"), || {
            round += 1;
            refuse(&line, &format!("{actor}-{round}")).is_ok() && refused(&what)
        })?;
        fortress().kafka.allow(&acl)?;
        wait_until(PATIENCE, &format!("{what} is back"), || readiness().is_ok_and(|(status, _)| status == 200))?;
        refuse(&line, &actor)?;
        wait_until(PATIENCE, &format!("decisions after {what}"), || is_decided(&line, &actor))?;
    }
    // The password, too: connections prove themselves anew every half minute.
    fortress().kafka.set_password(&user, "another one")?;
    wait_until(PATIENCE, "the password is refused", || refused("refuses user"))?;
    fortress().kafka.set_password(&user, PASSWORD)?;
    wait_until(PATIENCE, "the password is good again", || readiness().is_ok_and(|(status, _)| status == 200))?;
    refuse(&line, "last")?;
    wait_until(PATIENCE, "decisions after the password", || is_decided(&line, "last"))?;
    let expected: Vec<String> = (0..taken.len()).map(|n| format!("u{n}")).chain(["last".to_owned()]).collect();
    let stored = || line.stored().is_ok_and(|ids| line.decisions().is_ok_and(|decisions| ids.len() >= decisions.len()));
    wait_until(PATIENCE, "the sink has stored everything", stored)?;
    ensure!(expected.iter().all(|actor| is_decided(&line, actor)));
    ensure!(running.metrics()?.sum("tripline_kafka_refusals_total", &[]) > 0.0, "refusals are counted");
    ensure!(running.metrics()?.sum("tripline_kafka_access_denied", &[]) == 0.0, "nothing is denied now");
    let log = std::fs::read_to_string(running.worker.log())?;
    let spoken = log.lines().filter(|line| line.contains("does not allow") || line.contains("refuses user")).count();
    ensure!((taken.len()..=4 * (taken.len() + 1)).contains(&spoken), "{spoken} lines for {} refusals:\n{log}", taken.len() + 1);
    ensure!(!log.contains(PASSWORD) && !log.contains(r#""target":"librdkafka""#), "{log}");
    running.stop()
}

/// A way to come to the broker, what the one line of the error says, and the exit code.
type Way<'a> = (&'static str, Vec<(&'a str, &'a str)>, &'static str, i32);

#[test]
fn what_keeps_a_client_out_is_one_line_with_the_way_out() -> Result<()> {
    let fortress = fortress();
    let line = line()?;
    let user = unique("guest");
    fortress.kafka.set_password(&user, PASSWORD)?;
    let scram = |change: (&'static str, &'static str)| {
        let all = fortress.sasl(&user, PASSWORD).into_iter().filter(|(name, _)| *name != change.0);
        all.chain([change].into_iter().filter(|(_, value)| !value.is_empty())).collect::<Vec<_>>()
    };
    let tls = [("security.protocol", "ssl"), ("ssl.ca.location", fortress.authority.as_str())];
    let mutual =
        [&tls[..], &[("ssl.keystore.location", fortress.client_keys.as_str()), ("ssl.keystore.password", STORE_PASSWORD)]].concat();
    let hidden = "does not allow this client to see ";
    let ways: Vec<Way<'_>> = vec![
        // These three come in, and may do nothing.
        ("SECURE", scram(("", "")), hidden, 4),
        ("SECURE", fortress.sasl(PLAIN_USER, PASSWORD), hidden, 4),
        ("MUTUAL", mutual.clone(), hidden, 4),
        ("SECURE", scram(("sasl.password", "wrong")), "with this password: check sasl.username, sasl.password", 4),
        ("SECURE", scram(("sasl.mechanism", "SCRAM-SHA-256")), "does not take the SASL mechanism `SCRAM-SHA-256`", 3),
        ("SECURE", scram(("ssl.ca.location", "")), "a certificate that this client does not trust", 4),
        ("ELSEWHERE", scram(("", "")), "has a certificate for another host", 4),
        ("SECURE", Vec::new(), "closes them at the first plain text", 3),
        ("SECURE", scram(("security.protocol", "sasl_plaintext")), "closes them at the first plain text", 3),
        ("PLAINTEXT", scram(("", "")), "does not speak TLS on that port", 3),
        ("SECURE", tls.to_vec(), "closes connections without credentials", 3),
        ("MUTUAL", tls.to_vec(), "wants a certificate of this client", 4),
        ("MUTUAL", [&scram(("", ""))[..], &mutual[2..]].concat(), "knows no credentials on that port", 3),
    ];
    std::thread::scope(|scope| {
        let tries = ways.iter().map(|way| scope.spawn(|| come(&line, way))).collect::<Vec<_>>();
        tries.into_iter().try_for_each(|tried| tried.join().map_err(|_| anyhow::anyhow!("a try panicked"))?)
    })
}

fn come(line: &Line, (listener, properties, words, code): &Way<'_>) -> Result<()> {
    let settings = fortress().settings(line, "guest", listener, properties);
    let started = Instant::now();
    let done = line.command(&["topics", "check"], &settings)?;
    let error = String::from_utf8(done.stderr)?;
    ensure!(done.status.code() == Some(*code), "exit code {:?} and not {code}: {error}", done.status.code());
    ensure!(error.lines().count() == 1 && error.contains(words), "not one line with `{words}`:\n{error}");
    ensure!(!error.contains(PASSWORD) && !error.contains(STORE_PASSWORD), "{error}");
    ensure!(started.elapsed() < Duration::from_secs(60), "{words}: {:?}", started.elapsed());
    Ok(())
}

#[test]
fn a_start_without_rights_names_all_of_them_and_the_way_out() -> Result<()> {
    let line = line()?;
    let user = unique("intern");
    let made = line.command(&["topics", "apply"], &line.settings("setup"))?;
    ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    fortress().kafka.set_password(&user, PASSWORD)?;
    let refusal = || -> Result<String> {
        let done = line.command(&["run"], &settings(&line, "intern", &user)?)?;
        let log = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        ensure!(done.status.code() == Some(4), "{:?}: {log}", done.status.code());
        ensure!(!log.contains(PASSWORD), "{log}");
        log.lines().rfind(|line| line.starts_with("error: ")).map(str::to_owned).context(log.clone())
    };
    let acls = printed(&line, &user, "run")?;
    let nothing = refusal()?;
    ensure!(nothing.contains(&format!("does not allow user `{user}`: ")) && nothing.contains("`tripline acls print`"), "{nothing}");
    // Settings are only looked at, and transactional ids answer to those who use them.
    let named = acls.iter().filter(|acl| acl.operation != "DescribeConfigs" && acl.resource != Resource::TransactionalId);
    for acl in named {
        ensure!(nothing.contains(&format!("{} on {} {}", acl.operation, word(acl.resource), acl.name)), "{acl:?} is not in {nothing}");
    }
    let (ids, rest): (Vec<Acl>, Vec<Acl>) = acls.into_iter().partition(|acl| acl.resource == Resource::TransactionalId);
    fortress().kafka.allow(&rest)?;
    let without_id = refusal()?;
    ensure!(without_id.contains(&format!("Write on transactional id {}intern-0", ids[0].name)), "{without_id}");
    ensure!(without_id.contains("`tripline acls print`"), "{without_id}");
    Ok(())
}
