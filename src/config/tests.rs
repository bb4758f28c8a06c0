//! The promises of the settings: nothing unknown, every problem at once, every origin told, docs equal to the code.

use super::*;
use serde_json::Value as Json;
use std::fs;
use std::path::Path;
use tempfile::TempDir;
use tripline_core::diagnostic::Diagnostic;

fn environment(pairs: &[(&str, &str)]) -> Sources {
    Sources { environment: pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(), ..Sources::default() }
}

fn flags(flags: &[&str]) -> Sources {
    Sources { flags: flags.iter().map(|f| (*f).to_owned()).collect(), ..Sources::default() }
}

/// Sources with one file; the folder must outlive them.
fn file(name: &str, text: &str) -> (TempDir, Sources) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join(name);
    fs::write(&path, text).expect("written");
    (folder, Sources { files: vec![path], ..Sources::default() })
}

/// `line:column code message | help` of every problem.
fn told(problems: &[Diagnostic]) -> Vec<String> {
    problems.iter().map(|p| format!("{}:{} {} {} | {}", p.line, p.column, p.code, p.message, p.help.as_deref().unwrap_or(""))).collect()
}

fn refused(sources: &Sources) -> Vec<String> {
    told(&load(sources).expect_err("these settings are wrong"))
}

#[test]
fn the_defaults_are_the_types_key_for_key() {
    let written: Json = toml::from_str(load::DEFAULTS).expect("TOML");
    let typed: Config = serde_json::from_value(written.clone()).expect("every key there, and none else");
    assert_eq!(serde_json::to_value(&typed).expect("JSON"), written, "each default is spelt as it is shown");
    assert!(defaults().warnings.is_empty());
}

#[test]
fn every_default_is_explained_by_the_words_of_its_type() {
    let mut checked = 0;
    for (section, keys) in load::section_order() {
        for key in keys {
            let meaning = reference::description(&section, &key);
            assert!(!meaning.is_empty(), "{section}.{key} has no doc comment");
            let section_text = load::DEFAULTS.split(&format!("[{section}]\n")).nth(1).expect("the section is there");
            let expected = format!("# {meaning}\n{key} = ");
            assert!(section_text.contains(&expected), "config/default.toml, {section}.{key}: wanted `{expected}`");
            checked += 1;
        }
    }
    let typed = serde_json::to_value(&defaults().config).expect("JSON");
    let keys: usize = typed.as_object().expect("sections").values().map(|s| s.as_object().map_or(0, serde_json::Map::len)).sum();
    assert_eq!(checked, keys, "one line `key = value` per key");
}

#[test]
fn later_layers_win_key_by_key() {
    let (_folder, mut sources) = file("a.toml", "[stream]\nlanes = 3\ncommit_interval = \"20ms\"\nmax_records = 7\n");
    let (_second, yaml) = file("b.yaml", "stream:\n  lanes: 4\n  max_records: 8\n");
    sources.files.extend(yaml.files);
    sources.environment = vec![("TRIPLINE_STREAM__LANES".into(), "5".into()), ("TRIPLINE_INPUT__TOPICS".into(), "a, b".into())];
    sources.flags = vec!["app.id=mine".into()];
    let loaded = load(&sources).expect("valid");
    let Stream { lanes, max_records, commit_interval, .. } = loaded.config.stream;
    assert_eq!((lanes, max_records, commit_interval.0.as_millis()), (5, 8, 20));
    assert_eq!(loaded.config.input.topics, ["a", "b"]);
    assert_eq!(loaded.config.app.id, "mine");
    let shown = loaded.render(true);
    for expected in [
        "lanes = 5 # env TRIPLINE_STREAM__LANES",
        "b.yaml:3:16",
        "a.toml:3:19",
        "id = \"mine\" # flag --set",
        "session_timeout = \"45s\" # default",
    ] {
        assert!(shown.contains(expected), "{expected} in\n{shown}");
    }
}

#[test]
fn what_is_shown_is_a_settings_file_again() {
    let sources = environment(&[("TRIPLINE_KAFKA__PROPERTIES__SOCKET_KEEPALIVE_ENABLE", "true")]);
    let loaded = load(&sources).expect("valid");
    let (_folder, again) = file("shown.toml", &loaded.render(true));
    assert_eq!(load(&again).expect("valid").config, loaded.config);
    assert_eq!(loaded.config.kafka.properties["socket.keepalive.enable"], "true");
}

#[test]
fn a_toml_file_tells_everything_wrong_with_it_at_its_place() {
    let text = "[stream]\nlane = 3\nlanes = \"many\"\ncommit_interval = \"50\"\n\n[topic]\nx = 1\n\n[sink]\npartitions = 3\n[input]\nkeyed_by = \"Actor\"\n[kafka]\nproperties = 3\n";
    let (_folder, sources) = file("a.toml", text);
    assert_eq!(
        refused(&sources),
        [
            "2:1 C002 unknown key `stream.lane` | did you mean `stream.lanes`?",
            "3:9 C003 `stream.lanes` cannot be `many` | expected a whole number, not negative, like `1`",
            "4:19 C003 `stream.commit_interval` cannot be `50` | expected a length of time like `50ms` (ms, s, m, h, d)",
            "6:2 C002 unknown section `topic` | did you mean `topics`?",
            "10:1 C002 unknown key `sink.partitions` | did you mean `topics.partitions`?",
            "12:12 C003 `input.keyed_by` cannot be `Actor` | expected `none` or `actor`",
            "14:14 C003 `kafka.properties` is a table of properties | write `[kafka.properties]` and below it `\"sasl.mechanism\" = \"PLAIN\"`",
        ]
    );
}

#[test]
fn a_yaml_file_tells_places_too() {
    let (_folder, sources) = file("a.yml", "# mine\nstate:\n  cache_byte: 1MiB\n  cache_bytes: lots\ninput: 3\n");
    assert_eq!(
        refused(&sources),
        [
            "3:3 C002 unknown key `state.cache_byte` | did you mean `state.cache_bytes`?",
            "4:16 C003 `state.cache_bytes` cannot be `lots` | expected `auto` or a size like `64MiB` (KiB, MiB, GiB)",
            "5:8 C003 `input` is a section, not a value | write `[input]` and its keys below it",
        ]
    );
}

#[test]
fn a_file_that_cannot_be_read_is_told_with_its_name() {
    let missing = Sources { files: vec!["nowhere/a.toml".into()], ..Sources::default() };
    let problems = load(&missing).expect_err("missing");
    assert_eq!((problems[0].file.as_str(), problems[0].code, problems[0].line), ("nowhere/a.toml", report::UNREADABLE, 0));
    let (_folder, broken) = file("a.toml", "[stream]\nlanes = = 3\n");
    assert!(refused(&broken)[0].starts_with("2:9 C001 "), "{:?}", refused(&broken));
    let (_folder, broken) = file("a.yaml", "stream:\n  lanes: [1\n");
    assert!(refused(&broken)[0].contains("C001"), "{:?}", refused(&broken));
    let (_folder, odd) = file("a.ini", "lanes = 3");
    assert_eq!(refused(&odd), ["0:0 C001 not a kind of settings file | name it `.toml`, `.yaml` or `.yml`"]);
}

#[test]
fn the_environment_is_checked_like_a_file() {
    let sources = environment(&[
        ("TRIPLINE_STREAM__LANE", "3"),
        ("TRIPLINE_STREAM__LANES", "x"),
        ("TRIPLINE_KAFKA_BOOTSTRAP_SERVERS", "a:1"),
        ("TRIPLINE_SERVICE_HOST", "10.0.0.1"),
        ("OTHER_STREAM__LANES", "x"),
    ]);
    let problems = load(&sources).expect_err("wrong");
    let named: Vec<_> = problems.iter().map(|p| format!("{}: {} | {}", p.file, p.message, p.help.as_deref().unwrap_or(""))).collect();
    assert_eq!(
        named,
        [
            "environment variable TRIPLINE_KAFKA_BOOTSTRAP_SERVERS: `TRIPLINE_KAFKA_BOOTSTRAP_SERVERS` sets nothing | did you mean `TRIPLINE_KAFKA__BOOTSTRAP_SERVERS`, with two underscores?",
            "environment variable TRIPLINE_STREAM__LANE: unknown key `stream.lane` | did you mean `stream.lanes`?",
            "environment variable TRIPLINE_STREAM__LANES: `stream.lanes` cannot be `x` | expected a whole number, not negative, like `1`",
        ]
    );
}

#[test]
fn what_cannot_be_is_refused() {
    let check = |set: &[&str], expected: &str| {
        let problems = refused(&flags(set));
        assert_eq!(problems.len(), 1, "{set:?}: {problems:?}");
        assert!(problems[0].contains(expected), "{set:?}: {problems:?}");
    };
    check(&["stream.lanes=0"], "`stream.lanes` is 0");
    check(&["stream.lanes=65"], "`stream.lanes` is 65");
    check(&["stream.commit_interval=4ms"], "`stream.commit_interval` is 4ms");
    check(&["stream.commit_interval=6s"], "`stream.commit_interval` is 6s");
    check(&["stream.commit_interval=5s"], "`stream.commit_interval` does not fit: a commit every 5s");
    check(&["stream.transaction_timeout=45s"], "`stream.transaction_timeout` does not fit");
    check(&["stream.session_timeout=6s"], "`stream.session_timeout` does not fit");
    check(&["input.keyed_by=actor"], "`input.keyed_by` does not fit: `input.keyed_by` is `actor` and `input.topics` has 2 topics");
    check(&["input.topics="], "`input.topics` is empty");
    check(&["input.topics=a b"], "names `a b`");
    check(&["input.topics=a,a"], "names `a`, and so does `input.topics`");
    check(&["topics.late=tripline.alerts"], "names `tripline.alerts`, and so does `topics.alerts`");
    check(&["topics.late=tripline.internal.changelog"], "an internal topic of `app.id`");
    check(&["topics.partitions=0"], "`topics.partitions` is 0");
    check(&["topics.replication_factor=0"], "`topics.replication_factor` is 0");
    check(&["stream.identity=a/b"], "`stream.identity` is not a name");
    check(&["app.id="], "`app.id` is not a name");
    check(&["admin.listen=localhost"], "`admin.listen` is `localhost`");
    check(&["sink.url=here"], "`sink.url` is not a URL");
    check(&["log.level=tripline=loud"], "which is not a filter");
    check(&["kafka.properties.Sasl_Mechanism=PLAIN"], "`Sasl_Mechanism` is not the name of a client property");
    check(&["kafka.bootstrap_servers= "], "`kafka.bootstrap_servers` is empty");
}

#[test]
fn client_properties_that_would_break_exactly_once_are_refused_with_the_reason() {
    for name in [
        "enable.auto.commit",
        "isolation.level",
        "transactional.id",
        "acks",
        "group.id",
        "auto.offset.reset",
        "max.in.flight",
        "retry.backoff.ms",
    ] {
        let problems = refused(&flags(&[&format!("kafka.properties.{name}=1")]));
        let expected = format!("`kafka.properties` may not set `{name}`: ");
        assert!(problems.len() == 1 && problems[0].contains(&expected), "{problems:?}");
    }
    let sorted = check::refused_properties().windows(2).all(|pair| pair[0].0 < pair[1].0);
    assert!(sorted, "the table is in order, so no name stands twice");
}

#[test]
fn secrets_come_from_files_and_are_never_shown() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("password");
    fs::write(&path, "hunter2\n").expect("written");
    let reference = format!("${{file:{}}}", path.display());
    let sources = flags(&[
        &format!("kafka.properties.sasl.password={reference}"),
        "kafka.properties.ssl.key.password=hunter3",
        "sink.url=postgres://me:hunter4@db/x",
    ]);
    let loaded = load(&sources).expect("valid");
    assert_eq!(loaded.config.kafka.properties["sasl.password"], "hunter2");
    let shown = format!("{}{}{}{:?}", loaded.render(true), loaded.render(false), loaded.shown(), loaded);
    assert!(!shown.contains("hunter"), "{shown}");
    assert!(shown.contains(&reference) && shown.contains("\"ssl.key.password\" = \"***\""), "{shown}");

    fs::remove_file(&path).expect("removed");
    let problems = refused(&sources);
    assert!(problems.len() == 1 && problems[0].contains("C006 `kafka.properties.sasl.password` cannot be read from"), "{problems:?}");
}

#[test]
fn problems_never_repeat_a_secret() {
    let text = "[kafka.properties]\n\"sasl.password\" = [\"hunter2\"]\n\"Sasl.Password\" = \"hunter2\"\nsasl.token = \"hunter2\" x\n";
    for text in [text, text.trim_end_matches(" x\n")] {
        let (_folder, sources) = file("a.toml", text);
        let problems = load(&sources).expect_err("wrong");
        let all: String = problems.iter().map(ToString::to_string).collect();
        assert!(!all.contains("hunter2"), "{all}");
    }
}

#[test]
fn parts_of_the_budget_are_shares_or_set_and_have_to_fit() {
    let loaded = load(&flags(&["memory.budget=1GiB", "state.cache_bytes=64MiB", "stream.degraded_after=off"])).expect("valid");
    let config = &loaded.config;
    assert_eq!((config.state.cache_bytes.0, config.state.rocksdb_bytes.0), (Some(64 << 20), None));
    assert_eq!(config.stream.degraded_after.0, None);
    let shown = loaded.render(false);
    assert!(shown.contains("cache_bytes = \"64MiB\"") && shown.contains("rocksdb_bytes = \"auto\""), "{shown}");
    assert!(shown.contains("degraded_after = \"off\""), "{shown}");
    let (_folder, again) = file("shown.toml", &shown);
    assert_eq!(load(&again).expect("what is shown is a settings file again").config, loaded.config);

    let check = |set: &[&str], expected: &str| {
        let problems = refused(&flags(set));
        assert!(problems.len() == 1 && problems[0].contains(expected), "{set:?}: {problems:?}");
    };
    check(&["memory.budget=100MiB"], "C004 `memory.budget` is 100MiB, and ");
    check(&["state.rocksdb_bytes=2GiB"], "rocksdb 2048MiB");
    check(&["state.cache_bytes=1KiB"], "`state.cache_bytes` is 1024 bytes | at least 1MiB, or `auto`");
    check(&["stream.degraded_after=10ms"], "`stream.degraded_after` is 10ms | 1s to 7d, or `off`");
    check(&["stream.degraded_after=never"], "expected `off` or a length of time like `1m`");
}

#[test]
fn an_open_admin_address_is_a_warning() {
    let loaded = load(&flags(&["admin.listen=0.0.0.0:9464"])).expect("valid");
    assert_eq!(loaded.warnings.len(), 1);
    assert!(load(&flags(&["admin.listen=[::1]:9464"])).expect("valid").warnings.is_empty());
    assert!(load(&flags(&["admin.listen="])).expect("valid").warnings.is_empty());
}

/// Set `TRIPLINE_BLESS=1` to write what the code says.
fn same(path: &str, expected: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("TRIPLINE_BLESS").is_some() {
        fs::write(&path, expected).expect("written");
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(found == expected, "{} is not what the code says: run the test with TRIPLINE_BLESS=1", path.display());
}

#[test]
fn the_schema_in_the_repository_is_the_codes() {
    same("schemas/config.schema.json", &format!("{:#}\n", reference::schema()));
    let validator = jsonschema::validator_for(reference::schema()).expect("a schema");
    let defaults: Json = toml::from_str(load::DEFAULTS).expect("TOML");
    assert!(validator.is_valid(&defaults));
    assert!(validator.is_valid(&serde_json::json!({"stream": {"lanes": 4}})), "a file holds only what differs");
    assert!(!validator.is_valid(&serde_json::json!({"stream": {"lane": 4}})));
    assert!(!validator.is_valid(&serde_json::json!({"stream": {"commit_interval": "50"}})));
}

#[test]
fn the_table_in_the_docs_is_the_codes() {
    const MARK: &str = "<!-- From here on generated from the code: TRIPLINE_BLESS=1 cargo test --release --workspace config:: -->\n";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let found = fs::read_to_string(&path).expect("docs/configuration.md");
    let (before, _) = found.split_once(MARK).expect("the mark in docs/configuration.md");
    same("docs/configuration.md", &format!("{before}{MARK}\n{}", reference::markdown()));
}

#[test]
fn a_topic_has_its_mapping_from_files_the_environment_and_flags() {
    let text = "[input]\ntopics = [\"a.logs\", \"b\", \"c\", \"d\"]\n[input.mapping]\n\"a.logs\" = \"ecs\"\nb = \"otel\"\n\"*\" = { fields = { event_time = \"t\", event_type = { const = \"login\" } } }\n";
    let (_folder, mut sources) = file("a.toml", text);
    let (_second, yaml) = file("b.yaml", "input:\n  mapping:\n    a.logs: {set: ecs, fields: {user_id: [labels.account, user.id]}}\n");
    sources.files.extend(yaml.files);
    sources.environment = vec![("TRIPLINE_INPUT__MAPPING".into(), "b=nginx-json, c=tripline".into())];
    let loaded = load(&sources).expect("valid");
    let summary = |loaded: &Loaded, topic: &str| loaded.config.input.mapping_of(topic).map(|m| m.summary().to_owned());
    assert_eq!(summary(&loaded, "a.logs").as_deref(), Some("ecs with 1 field of its own"));
    assert_eq!(summary(&loaded, "b").as_deref(), Some("nginx-json"));
    assert_eq!(summary(&loaded, "c").as_deref(), Some("tripline"));
    assert_eq!(summary(&loaded, "d").as_deref(), Some("2 fields of its own"));
    assert_eq!(defaults().config.input.mapping_of("app.events").map(|m| m.summary()), None);
    let shown = loaded.render(true);
    assert!(
        shown.contains("b = \"nginx-json\" # env TRIPLINE_INPUT__MAPPING") || shown.contains("\"b\" = \"nginx-json\" # env"),
        "{shown}"
    );
    let (_third, again) = file("shown.toml", &shown);
    assert_eq!(load(&again).expect("what is shown is a settings file again").config, loaded.config);

    sources.environment = vec![("TRIPLINE_INPUT__MAPPING".into(), r#"{"a.logs": {"set": "otel", "fields": {"role": "r"}}}"#.into())];
    sources.flags = vec!["input.mapping.b=tripline".into(), r#"input.mapping.c={"set": "ecs"}"#.into()];
    let loaded = load(&sources).expect("valid");
    assert_eq!(summary(&loaded, "a.logs").as_deref(), Some("otel with 1 field of its own"));
    assert_eq!(summary(&loaded, "b").as_deref(), Some("tripline"));
    assert_eq!(summary(&loaded, "c").as_deref(), Some("ecs"));
}

#[test]
fn everything_wrong_with_a_mapping_is_told_at_its_place() {
    let text = "[input]\ntopics = [\"logs\"]\n[input.mapping]\nlog = \"ecs\"\n";
    let (_folder, sources) = file("a.toml", text);
    assert_eq!(refused(&sources), ["4:7 C004 `input.mapping` maps `log`, which is not in `input.topics` | did you mean `logs`?"]);
    let text = "[input]\ntopics = [\"logs\", \"more\"]\n[input.mapping]\nmore = \"exs\"\n[input.mapping.logs]\nset = \"ecs\"\n[input.mapping.logs.fields]\nuser_idd = \"a\"\nuser_id = { path = \"a..b\" }\n";
    let (_folder, sources) = file("a.toml", text);
    assert_eq!(
        refused(&sources),
        [
            "4:8 C007 mapping of `more`: there is no mapping `exs` | did you mean `ecs`?",
            "8:1 C007 mapping of `logs`, `fields.user_idd`: events have no field `user_idd` | did you mean `user_id`?",
            "9:13 C007 mapping of `logs`, `fields.user_id.path`: `a..b` has an empty name | a path is names with dots between them (\"http.request.method\"); a list stands for its first item",
        ]
    );
    let check = |value: &str, expected: &str| {
        let problems = refused(&environment(&[("TRIPLINE_INPUT__MAPPING", value)]));
        assert!(problems.len() == 1 && problems[0].contains(expected), "{value}: {problems:?}");
    };
    check("ecs", "C003 `input.mapping` is a table of topics");
    check("{\"a\":", "C003 `input.mapping` is a table of topics");
    check("app.events=elastic", "C007 mapping of `app.events`: there is no mapping `elastic`");
    check("app.events={x", "C007 mapping of `app.events`: a mapping is the name of a set, or a table");
    check("app.event=ecs", "C004 `input.mapping` maps `app.event`, which is not in `input.topics` | did you mean `app.events`?");
}
