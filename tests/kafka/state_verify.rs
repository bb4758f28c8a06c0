//! Promise 3 as an operator asks for it: `state list`, `state get` and `state verify` on stores that were killed, and tampered with.

use crate::line::{Line, PATIENCE, Setup, generated};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;
use tripline::state::{Budget, Hint, StateDir, TaskStore};
use tripline_core::state::ActorState;
use tripline_testkit::{Record, wait_until};

/// Runs `state … -o json`: exit code and what it said.
fn state(line: &Line, args: &[&str]) -> Result<(Option<i32>, Value)> {
    let done = line.command(&[&["state"], args, &["-o", "json"]].concat(), &line.settings("one"))?;
    let json = serde_json::from_slice(&done.stdout).with_context(|| String::from_utf8_lossy(&done.stderr).into_owned())?;
    Ok((done.status.code(), json))
}

fn rows(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Changes states behind the worker's back, in the one store of the line.
fn tamper<'a>(line: &Line, states: impl IntoIterator<Item = (&'a str, Option<Vec<u8>>)>) -> Result<()> {
    let dir = StateDir::open(&line.file("state-one"))?;
    let store = TaskStore::open(&dir.task(0), &Budget::new(8 << 20))?;
    let states: Vec<(&str, Option<Vec<u8>>)> = states.into_iter().collect();
    let none = std::iter::empty::<&Hint>;
    store.write(states.iter().map(|(entity, bytes)| (*entity, bytes.as_deref())), (none(), none()), None)?;
    Ok(())
}

#[test]
fn stores_that_were_killed_equal_the_changelog_and_what_was_changed_in_them_is_found() -> Result<()> {
    let line = Line::new(&Setup::keyed(1))?;
    let events = generated(81, 4_000)?;
    let lines: Vec<&str> = events.lines().collect();
    for (round, part) in lines.chunks(1_000).enumerate() {
        let mut running = line.start_with("one", "detect", &[("TRIPLINE_STATE__WRITE_INTERVAL", "150ms")])?;
        running.worker.wait_ready(&running.admin, PATIENCE)?;
        let writes = || running.metrics().map_or(0.0, |metrics| metrics.sum("tripline_state_writes_total", &[]));
        // A fresh task commits its start before any record: once that is in the store, what comes next is another write.
        wait_until(PATIENCE, "the start is in the store", || round > 0 || writes() > 0.0)?;
        let written = writes();
        line.produce(part.iter().copied())?;
        let sent = (round + 1) as i64 * 1_000 - 400;
        let committed = || line.kafka.committed_offsets(&line.app, &line.input).is_ok_and(|offsets| offsets.values().sum::<i64>() > sent);
        wait_until(PATIENCE, "some of it is committed", committed)?;
        wait_until(PATIENCE, "states are in the store", || round > 0 || writes() > written)?;
        std::thread::sleep(Duration::from_millis(70 * round as u64));
        if round == 1 {
            let (code, listed) = state(&line, &["list"])?;
            ensure!(code == Some(0) && listed[0]["store"] == "in use" && listed[0]["starts"] == true, "{listed}");
            let done = line.command(&["state", "verify"], &line.settings("one"))?;
            let said = String::from_utf8_lossy(&done.stderr).into_owned();
            ensure!(done.status.code() == Some(1) && said.contains("in use by a worker"), "{said}");
        }
        running.worker.kill_9();
        let (code, verified) = state(&line, &["verify"])?;
        ensure!(code == Some(0) && verified[0]["clean"] == true, "after kill {round}: {verified}");
        ensure!(verified[0]["same"].as_u64() > Some(0), "something was compared: {verified}");
    }
    let running = line.start("one")?;
    line.settle()?;
    running.stop()?;
    let (_, verified) = state(&line, &["verify", "--partition", "0"])?;
    let same = verified[0]["same"].as_u64().context("a count")?;
    ensure!(verified[0]["went_on"] == 0 && verified[0]["clean"] == true && same > 100, "{verified}");
    let (code, listed) = state(&line, &["list"])?;
    let commits: Vec<&Value> = ["committed", "marker", "store"].iter().map(|part| &listed[0][*part]["commit_id"]).collect();
    ensure!(code == Some(0) && listed[0]["lag"] == 0 && commits.iter().all(|c| c.is_string() && *c == commits[0]), "{listed}");

    // Three ways to be wrong, each to be found by its own name.
    let states: BTreeMap<String, Vec<u8>> = {
        let dir = StateDir::open(&line.file("state-one"))?;
        let store = TaskStore::open_read_only(&dir.task(0))?.context("a store")?;
        store.scan(None, usize::MAX)?.found.into_iter().collect()
    };
    ensure!(states.len() as u64 == same, "{} states, {same} compared", states.len());
    let mut of_users = states.keys().filter(|entity| entity.starts_with("user:"));
    let (changed, lost) = (of_users.next().context("a user")?, of_users.next().context("another")?);
    let mut other = ActorState::decode(&states[changed])?;
    other.note(other.newest_ms.unwrap_or(0) + 1, 0);
    let mut bytes = Vec::new();
    other.encode(&mut bytes);
    tamper(&line, [(changed.as_str(), Some(bytes.clone())), (lost.as_str(), None), ("user:stranger", Some(bytes))])?;
    let (code, verified) = state(&line, &["verify"])?;
    let text = verified.to_string();
    ensure!(code == Some(1) && verified[0]["clean"] == false && !text.contains("user:"), "found, and nobody named: {text}");
    let expected = serde_json::json!({"differs": 1, "only_in_store": 1, "only_in_changelog": 1});
    ensure!(verified[0]["differences"] == expected && verified[0]["same"].as_u64() == Some(same - 2), "{text}");
    let (_, verified) = state(&line, &["verify", "--show-entities"])?;
    let named: BTreeMap<&str, &str> =
        rows(&verified[0]["entities"]).iter().filter_map(|e| Some((e["entity"].as_str()?, e["difference"].as_str()?))).collect();
    let expected = [(changed.as_str(), "differs"), (lost.as_str(), "only_in_changelog"), ("user:stranger", "only_in_store")];
    ensure!(named == expected.into(), "{named:?}");

    // The two sources of `get` tell the two states apart, too.
    let newest = |args: &[&str]| -> Result<(String, Value)> {
        let (code, told) = state(&line, &[&["get", changed.as_str()], args].concat())?;
        ensure!(code == Some(0) && told["entity"] == changed.as_str(), "{told}");
        Ok((told["from"].as_str().unwrap_or_default().to_owned(), told["state"].clone()))
    };
    let ((store, here), (changelog, there)) = (newest(&[])?, newest(&["--changelog"])?);
    ensure!(store.contains("store") && changelog.contains("changelog") && here["newest_event"] != there["newest_event"], "{here} {there}");
    ensure!(!rows(&there["rules"]).is_empty() && here["rules"] == there["rules"], "rules by their names: {there}");
    ensure!(rows(&there["rules"]).iter().all(|r| r["rule"].as_str().is_some_and(|name| !name.contains("no rule"))), "{there}");
    let nobody = line.command(&["state", "get", "user:nobody-at-all"], &line.settings("one"))?;
    ensure!(nobody.status.code() == Some(1), "{}", String::from_utf8_lossy(&nobody.stderr));

    // The changelog has the last word: without the folder the state is what it was.
    std::fs::remove_dir_all(line.file("state-one"))?;
    ensure!(line.command(&["state", "verify"], &line.settings("one"))?.status.code() == Some(1), "nothing to verify is no success");
    let running = line.start("one")?;
    running.stop()?;
    let (code, verified) = state(&line, &["verify"])?;
    ensure!(code == Some(0) && verified[0]["same"].as_u64() == Some(same), "{verified}");
    nothing_is_said_of_states_beside_another_changelog(&line)?;
    eprintln!("{same} states compared, 4 kills");
    Ok(())
}

/// A store whose changelog was made anew is the only copy: it is not called wrong for what the new one lacks.
fn nothing_is_said_of_states_beside_another_changelog(line: &Line) -> Result<()> {
    let cannot_compare = |why: &str| -> Result<i64> {
        let (code, verified) = state(line, &["verify"])?;
        let foreign = verified[0]["foreign"].as_str().unwrap_or_default();
        ensure!(code == Some(1) && foreign.contains(why) && foreign.contains("made anew"), "{verified}");
        ensure!(verified[0]["differences"] == serde_json::json!({}) && verified[0]["same"] == 0, "{verified}");
        verified[0]["marker_offset"].as_i64().context("an offset")
    };
    let changelog = line.topic("internal.changelog");
    line.kafka.delete_topic(&changelog)?;
    let applied = line.command(&["topics", "apply"], &line.settings("setup"))?;
    ensure!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
    let marker_offset = cannot_compare("before the store's commit")?;
    let foreign = (0..=marker_offset).map(|number| Record::new(format!("user:{number}"), "of another life").to_partition(0));
    line.kafka.produce_all(&changelog, foreign)?;
    cannot_compare("is not the store's commit").map(drop)
}

/// Routed mode: the routers' partitions are tasks, too, and a task without a store says what it would do.
#[test]
fn every_task_of_a_routed_line_is_listed_with_how_it_would_start() -> Result<()> {
    let line = Line::new(&Setup::routed(2, 3))?;
    let (code, listed) = state(&line, &["list"])?;
    let starts = |listed: &Value| rows(listed).iter().map(|row| row["start"].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>();
    ensure!(code == Some(0) && starts(&listed) == vec!["fresh, at input.start"; 5], "{listed}");
    let running = line.start("one")?;
    line.produce(generated(82, 1_000)?.lines())?;
    line.settle()?;
    running.stop()?;
    let (_, listed) = state(&line, &["list"])?;
    ensure!(starts(&listed).iter().all(|start| start.starts_with("at offset ")), "{listed}");
    ensure!(rows(&listed).iter().filter(|row| row["store"].is_object()).count() == 3, "{listed}");
    let (code, verified) = state(&line, &["verify"])?;
    ensure!(code == Some(0) && rows(&verified).len() == 3, "{verified}");
    std::fs::remove_dir_all(line.file("state-one"))?;
    let (_, listed) = state(&line, &["list"])?;
    ensure!(starts(&listed).iter().filter(|start| *start == "after the whole changelog").count() == 3, "{listed}");
    Ok(())
}
