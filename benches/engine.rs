//! What one event costs without a broker: decode, address, select, count, decide; states in RocksDB, encoded and written
//! as a worker does. `cargo bench --bench engine`, or `make bench-engine`.
//!
//! Every figure is CPU time of this process (user and system, RocksDB's threads included), so that a busy machine disturbs
//! it little. Cases that are compared take turns within a round; the least of the rounds is shown.

use std::fmt::Write;
use std::sync::Arc;
use tempfile::TempDir;
use tripline::generate::rng::Rng;
use tripline::generate::{Options, traffic};
use tripline::rules::load_pack;
use tripline::state::{Budget, TaskState, TaskStore};
use tripline_core::engine::{Emit, Engine, Made, Selection};
use tripline_core::event::Event;
use tripline_core::flags::FlagSnapshot;
use tripline_core::observation::Position;
use tripline_core::protocol::start::Local;
use tripline_core::rule::load::{SourceFile, load};
use tripline_core::state::ActorState;
use tripline_core::stream_time::settle;

/// Events between two commits: what a worker at full speed has in 50 ms.
const COMMIT_EVERY: usize = 5_000;
/// Commits between two writes to RocksDB: a second's worth.
const WRITE_EVERY: usize = 20;
const CACHE_BYTES: usize = 128 << 20;

/// A pack, and the events that go through it.
struct Case {
    name: String,
    engine: Engine,
    events: Arc<Vec<Vec<u8>>>,
}

/// CPU time of this process so far, in seconds: user and system.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux tells a process about itself");
    let after_name = stat.rsplit_once(") ").expect("a name in brackets").1;
    let fields: Vec<&str> = after_name.split(' ').collect();
    let ticks: f64 = [11, 12].iter().map(|at| fields[*at].parse::<f64>().expect("ticks")).sum();
    // The kernel's USER_HZ is 100 on every architecture that we build for.
    ticks / 100.0
}

/// Puts every event through the engine and a store of its own; answers events per CPU second, and decisions.
fn run(case: &Case) -> (f64, usize) {
    let folder = TempDir::new().expect("a folder");
    let store = TaskStore::open(&folder.path().join("task-0"), &Budget::new(64 << 20)).expect("a store");
    let mut state = TaskState::new(store);
    let (mut selection, mut out, mut key, mut decided) = (Selection::default(), Made::default(), String::new(), 0);
    let mut seq = 0;
    let started = cpu_seconds();
    for (number, bytes) in case.events.iter().enumerate() {
        let event = Event::decode(Some(bytes)).expect("an event");
        let position = Position { topic: "app.requests".into(), partition: 0, offset: number as i64 };
        let reference_ms = event.event_time_ms;
        let _ = case.engine.address(event, &position, reference_ms).each(|observation| {
            if case.engine.select(observation, &mut selection) {
                key.clear();
                observation.entity.write_key(&mut key);
                // The worker's own way.
                let (engine, out) = (&case.engine, &mut out);
                if engine.needs_time() {
                    let evaluate = |actor: &mut ActorState| {
                        settle(engine, observation, actor, out);
                        engine.apply(observation, &selection, actor, out)
                    };
                    state.change_timed(&key, evaluate).expect("a state");
                } else {
                    state.change(&key, |actor| engine.apply(observation, &selection, actor, out)).expect("a state");
                }
            }
            decided += out.decisions.len();
            out.clear();
            Ok::<(), ()>(())
        });
        if (number + 1) % COMMIT_EVERY == 0 {
            state.encode(|_, _| Ok::<(), ()>(())).expect("encodes");
            state.commit(CACHE_BYTES);
            seq += 1;
            if seq % WRITE_EVERY as u64 == 0 {
                let local =
                    Local { history: "bench".into(), seq, commit_id: format!("{seq:032x}"), marker_offset: seq as i64, ..Local::default() };
                state.write(Some(&local)).expect("writes");
            }
        }
    }
    (case.events.len() as f64 / (cpu_seconds() - started), decided)
}

fn engine(text: String) -> Engine {
    let files = [SourceFile { name: "bench.yaml".into(), text }];
    let rules =
        load(&files, &serde_json::Map::new()).unwrap_or_else(|p| panic!("{}", p.iter().map(ToString::to_string).collect::<String>()));
    Engine::new(Arc::new(rules), &FlagSnapshot::default(), Emit::Fired)
}

/// What an app sends, by the generator of `tripline generate`.
fn ordinary(events: u64) -> Arc<Vec<Vec<u8>>> {
    let options = Options {
        seed: 7,
        events,
        rate: 1_000,
        attacks: true,
        actors: 50_000,
        start_ms: 1_760_000_000_000,
        malformed: 0,
        lines: true,
        requests_topic: "app.requests".into(),
        events_topic: "app.events".into(),
        keyed: false,
    };
    Arc::new(traffic(options).filter_map(|record| record.value).collect())
}

/// Rules over what an app sends: detectors in turn, each on a path of its own, so that few concern any one event.
fn rules(count: usize) -> String {
    let detectors = [
        "count: {at_least: 20, within: 1m}",
        "distinct: {of: path, at_least: 8, within: 5m}",
        "ratio: {of: status_code >= 400, above: 0.6, min_events: 20, within: 10m}",
        "rate: {burst: 40, refill: 1/500ms}",
        "sum: {of: response_bytes, above: 50000000, within: 10m}",
    ];
    let paths = ["/api/v1/orders", "/api/v1/invoices", "/api/v1/users", "/admin", "/login"];
    let mut text = String::new();
    for number in 0..count {
        // Five rules look at what is really asked for; all others at parts of an app that these events never reach.
        let path = if number < paths.len() { paths[number].to_owned() } else { format!("/internal/{number}/") };
        let _ = write!(
            text,
            "schema: 1\nid: bench.rule-{number}\nversion: 1\ntitle: Rule {number}\nmode: enforce\non: http_request\n\
             when: path.startsWith(\"{path}\") && status_code >= 200\ndetect: {{{}}}\nsignal: {{type: t{number}, once_per: 10m}}\n---\n",
            detectors[if number < 100 { number % detectors.len() } else { 0 }]
        );
    }
    text
}

/// Requests of few users to very many paths: every window is full, 1 800 different values live in each.
fn many_values(events: usize) -> Arc<Vec<Vec<u8>>> {
    let mut rng = Rng::new(11);
    let event = |number: usize| {
        let (user, path) = (number % 50, rng.below(1_800));
        let at = 1_760_000_000_000 + number as i64 * 3;
        format!(r#"{{"event_time":{at},"event_type":"http_request","user_id":"u{user}","path":"/p/{path}","status_code":404}}"#)
            .into_bytes()
    };
    Arc::new((0..events).map(event).collect())
}

fn wide(name: &str, detect: &str, events: &Arc<Vec<Vec<u8>>>) -> Case {
    let text = format!(
        "schema: 1\nid: bench.{name}\nversion: 1\ntitle: {name}\nmode: enforce\non: http_request\ndetect: {{{detect}}}\nsignal: {{type: wide}}\n"
    );
    Case { name: name.into(), engine: engine(text), events: events.clone() }
}

/// Counts of what is really asked for, which never reach their thresholds: what a score costs on events on which nothing fires.
fn quiet(name: &str, policy: &str, events: &Arc<Vec<Vec<u8>>>) -> Case {
    let mut text = format!("schema: 1\nkind: policy\nid: p\nversion: 1\n{policy}\n---\n");
    for (number, path) in ["/api/v1/orders", "/api/v1/invoices", "/api/v1/users", "/admin", "/"].iter().enumerate() {
        let _ = write!(
            text,
            "schema: 1\nid: bench.quiet-{number}\nversion: 1\ntitle: Quiet {number}\nmode: enforce\non: http_request\n\
             when: path.startsWith(\"{path}\")\ndetect: {{count: {{at_least: 1000000, within: 10m}}}}\nsignal: {{type: t{number}, severity: high, points: 60}}\n---\n"
        );
    }
    Case { name: name.into(), engine: engine(text), events: events.clone() }
}

fn main() {
    let rounds = std::env::var("ROUNDS").ok().and_then(|r| r.parse().ok()).unwrap_or(3);
    let events = std::env::var("EVENTS").ok().and_then(|e| e.parse().ok()).unwrap_or(300_000);
    let ordinary = ordinary(events);
    let parity =
        load_pack(concat!(env!("CARGO_MANIFEST_DIR"), "/config/packs/anomaly-infra").as_ref(), "".as_ref()).expect("the pack loads");
    let flags = r#"{"ANOMALY_DETECTION_ENABLED": true, "ANOMALY_ALERTING_ENABLED": true}"#;
    let flags = FlagSnapshot::parse("flags.json", flags).expect("flags");
    let mut cases = vec![Case {
        name: "pack anomaly-infra".into(),
        engine: Engine::new(Arc::new(parity), &flags, Emit::Fired),
        events: ordinary.clone(),
    }];
    for count in [10, 30, 100, 200, 300, 1_000] {
        cases.push(Case { name: format!("{count} rules"), engine: engine(rules(count)), events: ordinary.clone() });
    }
    cases.push(quiet("nothing fires, per_signal without actions", "decide: per_signal\nactions: []", &ordinary));
    let actions = "actions: [{do: alert, at: 50}, {do: throttle, at: 65}, {do: step_up, at: 80}]\ncontext: [{id: staff, when: is_staff, times: 1.25}]";
    cases.push(quiet("nothing fires, per_event with scores", actions, &ordinary));
    let values = many_values(events as usize);
    cases.push(wide("count-64", "count: {at_least: 64, within: 10m}", &values));
    cases.push(wide("distinct-64", "distinct: {of: path, at_least: 64, within: 10m}", &values));

    let mut best: Vec<(f64, usize)> = vec![(0.0, 0); cases.len()];
    for _ in 0..rounds {
        for (case, best) in cases.iter().zip(&mut best) {
            let (rate, decided) = run(case);
            *best = (best.0.max(rate), decided);
        }
    }
    println!("| Case | Events per CPU second | ns per event | Decisions |\n|---|---|---|---|");
    for (case, (rate, decided)) in cases.iter().zip(&best) {
        println!("| {} | {rate:.0} | {:.0} | {decided} |", case.name, 1e9 / rate);
    }
}
