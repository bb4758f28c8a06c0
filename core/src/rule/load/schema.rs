//! The JSON Schema of a pack's documents, for editors: `schemas/rule.schema.json`, kept up to date by the tests below.
//!
//! The types here say the shape only; the loader reports far more. A test holds their keys against the loader's.
#![allow(dead_code, reason = "the types are read by the schema generator only")]

use super::cases::{CASE, ENTRY, EXPECTATION};
use super::detect::SIGNAL;
use super::fields::Keys;
use super::pack::{FLAG, FLAGS, LISTS, PREDICATES, PROFILE, PROFILES};
use super::policy::{ACTION, CONTEXT, POLICY};
use super::rule::{EXCEPTION, META, RULE};
use super::settings::{DOCUMENT, SETTING};
use crate::detectors::REGISTRY;
use crate::detectors::sequence::{STEP, THEN_ABSENT};
use crate::rule::{Category, Severity};
use schemars::JsonSchema;
use serde_json::Value;
use std::collections::BTreeMap;

/// A value, or the name of a setting: `$NAME`.
#[derive(JsonSchema)]
#[schemars(untagged)]
enum Or<T> {
    Value(T),
    Setting(#[schemars(regex(pattern = r"^\$[A-Z][A-Z0-9_]*$"))] String),
}

/// An expression over one event; see docs/expressions.md.
#[derive(JsonSchema)]
#[schemars(untagged)]
enum Expression {
    Text(String),
    Number(i64),
    Truth(bool),
}

/// `90s`, `5m`, `1h`, `7d`.
#[derive(JsonSchema)]
struct Duration(#[schemars(regex(pattern = "^[0-9]+(ms|s|m|h|d)$"))] String);

macro_rules! words {
    ($name:ident: $($word:ident),+) => {
        #[derive(JsonSchema)]
        #[schemars(rename_all = "snake_case")]
        enum $name { $($word),+ }
    };
}
words!(IsRule: Rule);
words!(IsLists: Lists);
words!(IsFlags: Flags);
words!(IsProfiles: Profiles);
words!(IsPolicy: Policy);
words!(IsSettings: Settings);
words!(IsPredicates: Predicates);
words!(Status: Experimental, Test, Stable, Deprecated);
words!(Mode: Off, Shadow, Signal, Alert, Enforce);
words!(Nothing: Nothing);
words!(Kind: User, Ip, Net24, Device, Session, Tenant);
words!(Effect: Ignore, CountOnly, NoAction);
words!(Actor: Actor);
words!(Window: Sliding, Fixed);
words!(Firing: Edge, Every);
words!(TypeFrom: AnomalyType);
words!(MetadataFrom: Data);
words!(Decide: PerEvent, PerSignal);
words!(Action: Alert, Throttle, StepUp, Block);
words!(AxisWord: Intrusion, Policy, Abuse, Integrity);
words!(ClientAddress: Peer, FirstForwardedFor);
words!(SettingType: Int, String, Bool, Strings, Seconds, Profiles);

#[derive(JsonSchema)]
#[schemars(untagged)]
enum Document {
    Rule(Box<Rule>),
    Lists(Lists),
    Flags(Flags),
    Profiles(Profiles),
    Policy(Policy),
    Settings(Settings),
    Predicates(Predicates),
}

/// Questions that every rule of the pack may ask by name.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Predicates {
    #[schemars(range(min = 1, max = 1))]
    schema: u32,
    kind: IsPredicates,
    predicates: BTreeMap<String, Expression>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Rule {
    #[schemars(range(min = 1, max = 1))]
    schema: u32,
    kind: Option<IsRule>,
    #[schemars(regex(pattern = r"^[a-z][a-z0-9-]*(\.[a-z][a-z0-9-]*)+$"), length(max = 100))]
    id: String,
    #[schemars(range(min = 1))]
    version: u32,
    #[schemars(range(min = 1))]
    state: Option<u32>,
    title: String,
    status: Option<Status>,
    mode: Option<Or<Mode>>,
    flag: Option<String>,
    meta: Option<Meta>,
    on: String,
    r#let: Option<BTreeMap<String, Expression>>,
    when: Option<Expression>,
    by: Option<By>,
    per: Option<Expression>,
    per_max: Option<Or<u16>>,
    detect: Detect,
    signal: Signal,
    except: Option<Vec<Exception>>,
    include_own_blocks: Option<bool>,
    tests: Option<Vec<Case>>,
}

/// Whom a rule counts.
#[derive(JsonSchema)]
#[schemars(untagged)]
enum By {
    Actor(Actor),
    Kind(Kind),
    Composite(#[schemars(length(min = 1, max = 3))] Vec<Kind>),
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Exception {
    id: String,
    when: Expression,
    effect: Option<Effect>,
    owner: String,
    reason: String,
    /// The last day on which it holds, `2027-01-31`.
    expires: Option<String>,
}

/// A test of the rule; see docs/rule-tests.md.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Case {
    name: String,
    /// RFC 3339.
    start: Option<String>,
    until: Option<Duration>,
    flags: Option<BTreeMap<String, bool>>,
    #[schemars(length(min = 1))]
    events: Vec<TestEvent>,
    expect: Expect,
}

/// An event, or one that repeats. `{n}` in its texts is the repetition's number.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct TestEvent {
    at: Option<Duration>,
    every: Option<Duration>,
    times: Option<Or<u32>>,
    late_by: Option<Duration>,
    event_id: Option<Value>,
    event_type: Option<String>,
    tenant_id: Option<Value>,
    tenant_name: Option<String>,
    user_id: Option<Value>,
    session_id: Option<Value>,
    device_id: Option<Value>,
    ip_address: Option<String>,
    method: Option<String>,
    path: Option<String>,
    route: Option<String>,
    status_code: Option<i64>,
    response_time_ms: Option<i64>,
    request_bytes: Option<i64>,
    response_bytes: Option<i64>,
    user_agent: Option<String>,
    request_id: Option<Value>,
    country: Option<String>,
    asn: Option<i64>,
    role: Option<String>,
    is_staff: Option<bool>,
    is_authenticated: Option<bool>,
    outcome: Option<String>,
    anomaly_type: Option<String>,
    blocked_by: Option<String>,
    headers: Option<BTreeMap<String, Value>>,
    data: Option<BTreeMap<String, Value>>,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum Expect {
    Nothing(Nothing),
    Signals(#[schemars(length(min = 1))] Vec<Expectation>),
}

/// Signals of the rule, `by` a time or `at` it, from the start of the test.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Expectation {
    by: Option<Duration>,
    at: Option<Duration>,
    #[schemars(range(min = 1))]
    signals: Option<u32>,
    entity: Option<String>,
    r#type: Option<String>,
    actions: Option<Vec<Action>>,
    severity: Option<Severity>,
    /// The score of an axis, in whole points.
    score: Option<BTreeMap<String, u8>>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Meta {
    owner: Option<String>,
    goal: Option<String>,
    rationale: Option<String>,
    blind_spots: Option<Vec<String>>,
    false_positives: Option<Vec<String>>,
    runbook: Option<String>,
    tags: Option<Vec<String>>,
    review_by: Option<String>,
}

/// Exactly one detector.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Detect {
    r#match: Option<Match>,
    count: Option<Count>,
    rate: Option<Rate>,
    sequence: Option<Sequence>,
    first_seen: Option<FirstSeen>,
    distinct: Option<Distinct>,
    sum: Option<Sum>,
    ratio: Option<Ratio>,
    score: Option<Score>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Match {}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Count {
    at_least: Option<Or<u32>>,
    within: Option<Or<Duration>>,
    window: Option<Window>,
    firing: Option<Firing>,
    #[schemars(length(min = 1, max = 8))]
    all_of: Option<Vec<CountWindow>>,
    #[schemars(length(min = 1, max = 8))]
    any_of: Option<Vec<WeighedWindow>>,
}

/// One of several windows.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct CountWindow {
    at_least: Or<u32>,
    within: Or<Duration>,
}

/// One of several windows of which any will do, with what it gives instead of the rule's points.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct WeighedWindow {
    at_least: Or<u32>,
    within: Or<Duration>,
    #[schemars(range(min = 0, max = 100))]
    points: Option<u8>,
}

/// A level of the entity's score.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Score {
    axis: AxisWord,
    #[schemars(range(min = 1, max = 100))]
    at_least: u8,
    #[schemars(range(min = 1, max = 16))]
    families: Option<u8>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Distinct {
    of: Expression,
    at_least: Or<u32>,
    within: Or<Duration>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Sum {
    of: Expression,
    above: Or<f64>,
    within: Or<Duration>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Ratio {
    of: Expression,
    above: Or<f64>,
    min_events: Or<u32>,
    within: Or<Duration>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Rate {
    burst: Or<u32>,
    refill: Or<Refill>,
}

/// `1/500ms`, `100/1m`.
#[derive(JsonSchema)]
struct Refill(#[schemars(regex(pattern = "^[0-9]+/[0-9]*(ms|s|m|h|d)$"))] String);

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Sequence {
    within: Or<Duration>,
    same: Option<Values>,
    #[schemars(length(min = 1, max = 8))]
    steps: Vec<Step>,
    cancel_on: Option<Expression>,
    then_absent: Option<ThenAbsent>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Step {
    id: String,
    when: Expression,
    times: Option<Or<u8>>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct ThenAbsent {
    when: Expression,
    within: Or<Duration>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct FirstSeen {
    of: Values,
    memory: Or<Duration>,
    /// A duration, or `0s`.
    learn: Or<Duration>,
}

/// One field or expression, or several that are taken together.
#[derive(JsonSchema)]
#[schemars(untagged)]
enum Values {
    One(Expression),
    Several(#[schemars(length(min = 1, max = 4))] Vec<Expression>),
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Signal {
    r#type: Option<String>,
    type_from: Option<TypeFrom>,
    category: Option<Category>,
    severity: Option<Severity>,
    #[schemars(range(min = 0, max = 100))]
    points: Option<u8>,
    axis: Option<AxisWord>,
    family: Option<String>,
    half_life: Option<Duration>,
    #[schemars(range(min = 0, max = 1))]
    confidence: Option<f64>,
    discounts: Option<bool>,
    certain: Option<bool>,
    user_message: Option<String>,
    internal_message: Option<String>,
    once_per: Option<Or<Duration>>,
    #[schemars(range(min = 100, max = 599))]
    status_code: Option<u16>,
    resource: Option<bool>,
    metadata: Option<BTreeMap<String, Expression>>,
    metadata_from: Option<MetadataFrom>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Lists {
    #[schemars(range(min = 1, max = 1))]
    schema: u32,
    kind: IsLists,
    lists: BTreeMap<String, Or<Vec<String>>>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Flags {
    #[schemars(range(min = 1, max = 1))]
    schema: u32,
    kind: IsFlags,
    flags: Vec<Flag>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Flag {
    name: String,
    default: Option<bool>,
    description: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Profiles {
    #[schemars(range(min = 1, max = 1))]
    schema: u32,
    kind: IsProfiles,
    profiles: Option<BTreeMap<String, Profile>>,
    default: Option<Profile>,
    overrides: Option<Or<BTreeMap<String, Profile>>>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Profile {
    #[schemars(range(min = 0, max = 100))]
    risk_score: u8,
    severity: Severity,
    category: Category,
    axis: Option<AxisWord>,
    family: Option<String>,
    half_life: Option<Duration>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Policy {
    #[schemars(range(min = 1, max = 1))]
    schema: u32,
    kind: IsPolicy,
    id: String,
    #[schemars(range(min = 1))]
    version: u32,
    decide: Option<Decide>,
    detection_flag: Option<String>,
    actions: Vec<ActionRow>,
    precedence: Option<Vec<Action>>,
    #[schemars(length(max = 16))]
    context: Option<Vec<Context>>,
    /// A duration, `0s` or `off`.
    allowed_lateness: Option<String>,
    remember_ids: Option<Or<u8>>,
    client_address: Option<Or<ClientAddress>>,
    anon: Option<bool>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct ActionRow {
    r#do: Action,
    #[schemars(range(min = 0, max = 100))]
    at: u8,
    #[schemars(range(min = 1, max = 100))]
    leave: Option<u8>,
    flag: Option<String>,
    #[schemars(range(min = 1, max = 16))]
    families: Option<u8>,
    or_certain: Option<bool>,
    hold: Option<Duration>,
    ttl: Option<Duration>,
    #[schemars(range(min = 1, max = 10))]
    grow: Option<f64>,
    max_ttl: Option<Duration>,
    forget: Option<Duration>,
    rate: Option<Refill>,
    floor: Option<Refill>,
    /// A duration, or `0s`.
    once_per: Option<Duration>,
    resolve_after: Option<Duration>,
}

/// What weighs more or less.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Context {
    id: String,
    when: Expression,
    #[schemars(range(min = 0.05, max = 4.0))]
    times: f64,
    axis: Option<AxisWord>,
    entity: Option<Kind>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Settings {
    #[schemars(range(min = 1, max = 1))]
    schema: u32,
    kind: IsSettings,
    settings: BTreeMap<String, Setting>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Setting {
    r#type: SettingType,
    default: Value,
    strip: Option<String>,
    description: Option<String>,
}

fn generated() -> Value {
    schemars::schema_for!(Document).to_value()
}

#[test]
fn the_schema_has_the_keys_that_the_loader_reads() {
    let schema = generated();
    let check = |definition: &str, keys: &Keys| {
        let mut known: Vec<&str> = keys.known.to_vec();
        known.sort_unstable();
        let mut listed: Vec<&str> =
            schema["$defs"][definition]["properties"].as_object().into_iter().flatten().map(|(k, _)| k.as_str()).collect();
        listed.sort_unstable();
        assert_eq!(listed, known, "{definition}");
    };
    for (definition, keys) in [
        ("Rule", &RULE),
        ("Meta", &META),
        ("Exception", &EXCEPTION),
        ("Case", &CASE),
        ("TestEvent", &ENTRY),
        ("Expectation", &EXPECTATION),
        ("Signal", &SIGNAL),
        ("Step", &STEP),
        ("ThenAbsent", &THEN_ABSENT),
        ("Lists", &LISTS),
        ("Flags", &FLAGS),
        ("Predicates", &PREDICATES),
        ("Flag", &FLAG),
        ("Profiles", &PROFILES),
        ("Profile", &PROFILE),
        ("Policy", &POLICY),
        ("ActionRow", &ACTION),
        ("Context", &CONTEXT),
        ("Settings", &DOCUMENT),
        ("Setting", &SETTING),
    ] {
        check(definition, keys);
    }
    let detectors = schema["$defs"]["Detect"]["properties"].as_object().expect("properties");
    assert_eq!(detectors.len(), REGISTRY.len());
    for row in REGISTRY {
        let reference = detectors[row.name]["anyOf"][0]["$ref"].as_str().expect("a reference");
        check(reference.rsplit('/').next().expect("a name"), row.keys);
    }
}

/// With `TRIPLINE_BLESS=1` in the environment the file is written instead.
#[test]
fn the_schema_file_is_up_to_date() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../schemas/rule.schema.json");
    let text = format!("{}\n", serde_json::to_string_pretty(&generated()).unwrap());
    if std::env::var_os("TRIPLINE_BLESS").is_some() {
        std::fs::create_dir_all(concat!(env!("CARGO_MANIFEST_DIR"), "/../schemas")).unwrap();
        std::fs::write(path, &text).unwrap();
    }
    assert_eq!(std::fs::read_to_string(path).unwrap(), text, "run the test with TRIPLINE_BLESS=1");
}
