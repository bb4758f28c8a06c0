//! The pack `config/packs/anomaly-infra` decides what the Python package decides: row for row, in the same order, on the
//! golden traces of `tests/parity`. How they were made, and how to compare on fresh ones, is in `tests/parity/README.md`.

use serde_json::{Map, Value};
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tripline_core::decision::Decision;
use tripline_core::engine::{Emit, Engine, Made};
use tripline_core::event::Event;
use tripline_core::flags::FlagSnapshot;
use tripline_core::observation::Position;
use tripline_core::rule::RuleSet;
use tripline_core::rule::load::{SourceFile, load};
use tripline_core::state::ActorState;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn pack(settings: &Map<String, Value>) -> RuleSet {
    let folder = root().join("config/packs/anomaly-infra");
    let paths =
        std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).filter(|p| p.extension().is_some_and(|e| e == "yaml"));
    let files: Vec<SourceFile> = paths.map(|path| SourceFile { name: path.display().to_string(), text: read(&path) }).collect();
    load(&files, settings).unwrap_or_else(|found| panic!("{}", found.iter().map(ToString::to_string).collect::<String>()))
}

/// What the engine decides on a file of events, in file order: each entity with a state of its own, as in `replay`.
fn decide(engine: &Engine, events: &str) -> Vec<Decision> {
    let mut states: HashMap<String, ActorState> = HashMap::new();
    let mut made = Made::default();
    for (number, line) in events.lines().enumerate() {
        let event = Event::decode(Some(line.as_bytes())).unwrap_or_else(|rejection| panic!("line {number}: {rejection:?}"));
        let reference_ms = event.event_time_ms;
        let position = Position { topic: "file".into(), partition: 0, offset: number as i64 };
        let Some(observation) = engine.address(event, &position, reference_ms).into_actor() else { continue };
        let state = states.entry(observation.entity.to_string()).or_default();
        engine.process(&observation, state, &mut made);
    }
    made.decisions
}

fn check(case: &Value) {
    let name = case["name"].as_str().unwrap();
    let folder = root().join("tests/parity/golden").join(name);
    let rules = Arc::new(pack(case["settings"].as_object().unwrap()));
    let flags = FlagSnapshot::parse("flags.json", &case["flags"].to_string()).unwrap();
    let decisions = decide(&Engine::new(rules, &flags, Emit::Fired), &read(&folder.join("events.ndjson")));
    let expected: Vec<Map<String, Value>> =
        read(&folder.join("expected.ndjson")).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for (want, decision) in expected.iter().zip(&decisions) {
        let decision = serde_json::to_value(decision).unwrap();
        let got: Map<String, Value> = want.keys().map(|field| (field.clone(), decision[field].clone())).collect();
        assert_eq!(&got, want, "{name}: Tripline's on the left, the package's on the right");
    }
    assert_eq!(decisions.len(), expected.len(), "{name}: rows");
}

#[test]
fn the_pack_decides_what_the_package_decides() {
    let cases: Vec<Value> = serde_json::from_str(&read(&root().join("tests/parity/cases.json"))).unwrap();
    assert!(cases.len() >= 6);
    cases.iter().for_each(check);
}

#[test]
fn the_golden_traces_reach_every_type_and_every_action() {
    let mut seen = BTreeSet::new();
    for folder in std::fs::read_dir(root().join("tests/parity/golden")).unwrap() {
        for line in read(&folder.unwrap().path().join("expected.ndjson")).lines() {
            let row: Value = serde_json::from_str(line).unwrap();
            seen.extend(["anomaly_type", "action_taken"].map(|field| row[field].as_str().unwrap().to_owned()));
        }
    }
    let types = pack(&Map::new()).profiles.into_keys();
    for word in types.chain(["log", "alert", "step_up_review", "block"].map(str::to_owned)) {
        assert!(seen.contains(&word), "no golden row has {word}");
    }
}

#[test]
fn the_pack_loads_with_the_defaults_of_the_package() {
    let rules = pack(&Map::new());
    let ids: Vec<&str> = rules.rules.iter().map(|rule| rule.id.as_str()).collect();
    assert_eq!(ids, ["http.tenant-mismatch", "http.repeated-400", "http.repeated-403", "http.burst", "http.path-probing", "app.reported"]);
    assert_eq!((rules.flags.len(), rules.profiles.len(), rules.default_profile.risk_score), (7, 10, 30));
    assert_eq!((rules.policy.allowed_lateness_ms, rules.policy.remember_ids), (None, 0));
}
