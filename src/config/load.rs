//! Load, layer, check: all problems at once, each with its origin.

use super::layer::{self, Key, Known, Origin, Setting, Settings};
use super::parse::{self, Node};
use super::report::{INVALID, Report, SECRET_FILE, UNKNOWN_KEY, UNREADABLE, WRONG_TYPE};
use super::{Config, check, mapping, reference, secret};
use serde_json::Value as Json;
use std::path::PathBuf;
use tripline_core::diagnostic::Diagnostic;

/// The defaults: every key, its meaning and its value.
pub const DEFAULTS: &str = include_str!("../../config/default.toml");

/// The largest settings file and the largest secret file.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Where settings come from, besides the defaults. Not `Debug`: the environment holds secrets, and not only ours.
#[derive(Clone, Default)]
pub struct Sources {
    /// `--config` files, TOML or YAML by their ending; later ones win.
    pub files: Vec<PathBuf>,
    /// The environment; only names that begin with `TRIPLINE_` are looked at.
    pub environment: Vec<(String, String)>,
    /// `--set section.key=value`.
    pub flags: Vec<String>,
}

/// Valid settings, and where each came from.
pub struct Loaded {
    /// The settings.
    pub config: Config,
    /// Every key as it was written, with its origin. Show it with [`Loaded::render`] only: it may hold secrets.
    settings: Settings,
    /// Worth a look, though valid.
    pub warnings: Vec<String>,
}

impl std::fmt::Debug for Loaded {
    /// Without the values as they were written.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loaded").field("config", &self.config).field("warnings", &self.warnings).finish_non_exhaustive()
    }
}

impl Sources {
    /// Files and flags of the command line, and the process's environment.
    pub fn of_process(files: Vec<PathBuf>, flags: Vec<String>) -> Sources {
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned())))
            .collect();
        Sources { files, environment, flags }
    }
}

/// The defaults alone.
pub fn defaults() -> Loaded {
    load(&Sources::default()).expect("config/default.toml is valid: a test holds it to that")
}

/// Loads everything. On failure every problem that was found is in the answer.
pub fn load(sources: &Sources) -> Result<Loaded, Vec<Diagnostic>> {
    let mut report = Report::default();
    let default_tree = parse::toml(DEFAULTS).expect("config/default.toml is TOML: a test holds it to that");
    let known = Known::of(&default_tree);
    let default_settings = layer::flatten(default_tree, &known, |_| Origin::Default, &mut report);

    let mut layers = vec![default_settings.clone()];
    for path in &sources.files {
        layers.extend(file(path, &known, &mut report));
    }
    layers.push(environment(sources, &known, &default_settings, &mut report));
    layers.push(flags(sources, &known, &default_settings, &mut report));

    // Each layer by itself: a wrong value is worth telling even where another layer hides it today.
    for layer in &mut layers[1..] {
        layer.retain(|key, setting| is_well_typed(key, setting, &mut report));
    }
    let settings = layer::merge(layers).map_err(|error| {
        report.problem(INVALID, &Origin::Default, format!("the layers do not fit together: {error}"), None);
        std::mem::take(&mut report).in_order()
    })?;
    let mut resolved = settings.clone();
    resolve_files(&mut resolved, &mut report);

    let config = match serde_json::from_value::<Config>(json(&resolved)) {
        Ok(config) => config,
        Err(error) => {
            report.problem(INVALID, &Origin::Default, error.to_string(), None);
            return Err(report.in_order());
        }
    };
    let warnings = check::check(&config, &settings, &mut report);
    if report.problems.is_empty() { Ok(Loaded { config, settings, warnings }) } else { Err(report.in_order()) }
}

impl Loaded {
    /// The effective settings as TOML, secrets masked; with `origins` each key says where it was set.
    pub fn render(&self, origins: bool) -> String {
        reference::render(&self.settings, origins)
    }

    /// The effective settings as JSON, secrets masked.
    pub fn shown(&self) -> Json {
        let shown =
            self.settings.iter().map(|(k, s)| (k.clone(), Setting { value: secret::shown(k, s), origin: s.origin.clone() })).collect();
        json(&shown)
    }
}

fn file(path: &PathBuf, known: &Known, report: &mut Report) -> Option<Settings> {
    let name = path.display().to_string();
    let whole = Origin::File { path: name.clone(), at: parse::Place::default() };
    let text = match read(path) {
        Ok(text) => text,
        Err(why) => {
            report.problem(UNREADABLE, &whole, format!("cannot read the settings file: {why}"), None);
            return None;
        }
    };
    report.add_file(&name, &text);
    let parsed: Result<Node, _> = match path.extension().and_then(|e| e.to_str()) {
        Some("toml") => parse::toml(&text),
        Some("yaml" | "yml" | "json") => parse::yaml(&text),
        _ => {
            report.problem(UNREADABLE, &whole, "not a kind of settings file", Some("name it `.toml`, `.yaml` or `.yml`".into()));
            return None;
        }
    };
    let at = |at| Origin::File { path: name.clone(), at };
    match parsed {
        Ok(tree) => Some(layer::flatten(tree, known, at, report)),
        Err(errors) => {
            for error in errors {
                report.problem(UNREADABLE, &at(error.at), error.message, None);
            }
            None
        }
    }
}

/// Reads a text file of bounded size.
fn read(path: &PathBuf) -> Result<String, String> {
    let size = std::fs::metadata(path).map_err(|e| e.to_string())?.len();
    if size > MAX_FILE_BYTES {
        return Err(format!("it has {size} bytes, more than {MAX_FILE_BYTES}"));
    }
    std::fs::read_to_string(path).map_err(|e| e.to_string())
}

fn environment(sources: &Sources, known: &Known, defaults: &Settings, report: &mut Report) -> Settings {
    let mut found = Settings::new();
    for (name, value) in &sources.environment {
        let Some(rest) = name.strip_prefix("TRIPLINE_") else { continue };
        let origin = Origin::Environment(name.clone());
        let rest = rest.to_ascii_lowercase();
        let Some((section, key)) = rest.split_once("__") else {
            // Other names are not ours: a cluster sets TRIPLINE_SERVICE_HOST and the like. One forgotten underscore is.
            let meant = known.0.iter().flat_map(|(s, keys)| keys.iter().map(move |k| (s, k))).find(|(s, k)| rest == format!("{s}_{k}"));
            if let Some((section, key)) = meant {
                let right = format!("TRIPLINE_{section}__{key}").to_ascii_uppercase();
                report.problem(
                    UNKNOWN_KEY,
                    &origin,
                    format!("`{name}` sets nothing"),
                    Some(format!("did you mean `{right}`, with two underscores?")),
                );
            }
            continue;
        };
        // Client properties have dots where a variable's name has underscores.
        let key = match key.split_once("__") {
            Some(("properties", property)) if section == "kafka" => {
                Key(vec![section.into(), "properties".into(), property.replace('_', ".")])
            }
            _ => Key(vec![section.into(), key.into()]),
        };
        insert(&mut found, key, value, origin, known, defaults, report);
    }
    found
}

fn flags(sources: &Sources, known: &Known, defaults: &Settings, report: &mut Report) -> Settings {
    let mut found = Settings::new();
    for flag in &sources.flags {
        let parts = flag.split_once('=').and_then(|(key, value)| key.trim().split_once('.').map(|(section, key)| (section, key, value)));
        let Some((section, key, value)) = parts else {
            report.problem(UNKNOWN_KEY, &Origin::Flag, "not a setting", Some("write `--set section.key=value`".into()));
            continue;
        };
        let key = match key.split_once('.') {
            Some(("properties", property)) if section == "kafka" => Key::new(&[section, "properties", property]),
            Some(("mapping", topic)) if section == "input" => {
                mapping::of_topic(topic, value, &Origin::Flag, &mut found, report);
                continue;
            }
            _ => Key::new(&[section, key]),
        };
        insert(&mut found, key, value, Origin::Flag, known, defaults, report);
    }
    found
}

/// A text from outside a file: checked for its key, read as a number where the key is one.
fn insert(found: &mut Settings, key: Key, text: &str, origin: Origin, known: &Known, defaults: &Settings, report: &mut Report) {
    if key.property().is_none() {
        if let Some((message, help)) = known.problem(&key.0[0], Some(&key.0[1])) {
            report.problem(UNKNOWN_KEY, &origin, message, Some(help));
            return;
        }
        if key.0[0] == "kafka" && key.0[1] == "properties" {
            let help = "set one property: `kafka.properties.sasl.mechanism`, in the environment TRIPLINE_KAFKA__PROPERTIES__SASL_MECHANISM";
            report.problem(WRONG_TYPE, &origin, "`kafka.properties` is a table of properties", Some(help.into()));
            return;
        }
        if key.0[0] == "input" && key.0[1] == "mapping" {
            return mapping::of_text(text, &origin, found, report);
        }
    }
    let is_number = defaults.get(&key).is_some_and(|d| d.value.is_number());
    let value = if is_number { text.trim().parse::<i64>().map_or_else(|_| text.into(), Json::from) } else { text.into() };
    found.insert(key, Setting { value, origin });
}

/// Whether a value fits its key: tried alone, on top of the defaults, so that each problem is told by itself.
fn is_well_typed(key: &Key, setting: &Setting, report: &mut Report) -> bool {
    let expected = if key.property().is_some() {
        if setting.value.is_string() || setting.value.is_number() || setting.value.is_boolean() {
            return true;
        }
        "a text".to_owned()
    } else if key.mapped_topic().is_some() {
        // Checked where it was read.
        return true;
    } else {
        let Err(expected) = reference::fits(key, &setting.value) else { return true };
        expected
    };
    let shown =
        if key.property().is_some() { String::new() } else { format!(" `{}`", secret::shown(key, setting).to_string().trim_matches('"')) };
    report.problem(WRONG_TYPE, &setting.origin, format!("`{key}` cannot be{shown}"), Some(format!("expected {expected}")));
    false
}

/// Puts the contents of secret files where `${file:/path}` stands.
fn resolve_files(settings: &mut Settings, report: &mut Report) {
    for (key, setting) in settings.iter_mut().filter(|(key, _)| key.property().is_some()) {
        let Some(path) = setting.value.as_str().and_then(secret::file_reference).map(PathBuf::from) else { continue };
        match read(&path) {
            Ok(text) => setting.value = text.trim_end_matches(['\r', '\n']).into(),
            Err(why) => {
                report.problem(SECRET_FILE, &setting.origin, format!("`{key}` cannot be read from {}: {why}", path.display()), None)
            }
        }
    }
}

/// The settings as one JSON object; client properties as text. Tables that are open are there when they are empty, too.
pub(super) fn json(settings: &Settings) -> Json {
    let mut root = serde_json::json!({"kafka": {"properties": {}}, "input": {"mapping": {}}});
    for (key, setting) in settings {
        let mut at = &mut root;
        for segment in &key.0 {
            at = &mut at[segment.as_str()];
        }
        *at = match (&setting.value, key.property()) {
            (Json::String(_), _) | (_, None) => setting.value.clone(),
            (other, Some(_)) => other.to_string().into(),
        };
    }
    root
}

/// Sections and their keys in the order of the defaults.
pub(super) fn section_order() -> Vec<(String, Vec<String>)> {
    let mut sections: Vec<(String, Vec<String>)> = Vec::new();
    for line in DEFAULTS.lines() {
        if let Some(section) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            sections.push((section.to_owned(), Vec::new()));
        } else if let (Some((key, _)), Some((_, keys))) = (line.split_once(" = "), sections.last_mut())
            && !line.starts_with('#')
        {
            keys.push(key.to_owned());
        }
    }
    sections
}
