//! Where things stand in a pack, and what names what: for those who read a loaded pack and have something to say about it
//! ([`crate::lint`]). The engine needs none of it.

use super::report::{Place, Report};
use super::tree::{Node, Tree};
use crate::rule::case::Origin;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The keys of a rule that hold expressions.
const WITH_EXPRESSIONS: [&str; 6] = ["let", "when", "per", "detect", "signal", "except"];
/// How deep places are noted: `except.0.expires`.
const LEVELS: usize = 3;

/// What is known of a pack besides its meaning.
#[derive(Debug, Default)]
pub struct Outline {
    /// One for each rule, in the order of [`crate::rule::RuleSet::rules`].
    pub rules: Vec<Places>,
    /// The policy, if there is a document of it.
    pub policy: Option<Places>,
    /// Where each flag is declared, by name.
    pub flags: BTreeMap<String, Origin>,
    /// Lists, predicates and lets that no expression names, in the order of the files.
    pub unused: Vec<Unused>,
}

/// Where the parts of a document stand.
#[derive(Debug)]
pub struct Places {
    /// The document.
    pub at: Origin,
    keys: BTreeMap<String, Origin>,
}

/// Something that nothing uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unused {
    /// What it is.
    pub what: Named,
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub at: Origin,
}

/// What expressions can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Named {
    /// A list of the pack.
    List,
    /// A predicate of the pack.
    Predicate,
    /// A `let` of a rule.
    Let,
}

impl Places {
    /// Where a key stands, `except.0.expires`; where the document begins if there is none.
    pub fn of(&self, key: &str) -> &Origin {
        self.keys.get(key).unwrap_or(&self.at)
    }
}

/// Reads the outline off the documents of a pack; `rules` are those of its rules, in their order.
pub fn read<'n>(documents: impl Iterator<Item = &'n Node> + Clone, rules: &[&'n Node], report: &Report<'_>) -> Outline {
    let files: Vec<Arc<str>> = report.files().iter().map(|file| file.name.as_str().into()).collect();
    let origin = |at: Place| Origin { file: Arc::clone(&files[at.file]), line: at.line, column: at.column };
    let mut outline = Outline::default();
    let mut named: BTreeSet<String> = BTreeSet::new();
    for document in documents.clone() {
        match text_of(document, "kind") {
            None | Some("rule") => outline.rule(document, &mut named, origin),
            Some("predicates") => texts(document, &mut |text| paths(text, &mut named)),
            Some("flags") => outline.declared_flags(document, origin),
            Some("policy") => {
                if let Some(contexts) = get(document, "context") {
                    texts(contexts, &mut |text| paths(text, &mut named));
                }
                outline.policy = Some(places(document, origin));
            }
            _ => {}
        }
    }
    outline.rules = rules.iter().map(|rule| places(rule, origin)).collect();
    for (kind, what) in [("lists", Named::List), ("predicates", Named::Predicate)] {
        for document in documents.clone().filter(|document| text_of(document, "kind") == Some(kind)) {
            let Some(Tree::Map(entries)) = get(document, kind).map(|node| &node.value) else { continue };
            for entry in entries {
                let used = match what {
                    Named::List => is_named(&named, &format!("lists.{}", entry.key)),
                    _ => is_named(&named, &entry.key),
                };
                if !used {
                    outline.unused.push(Unused { what, name: entry.key.clone(), at: origin(entry.at) });
                }
            }
        }
    }
    outline
}

impl Outline {
    fn rule(&mut self, document: &Node, named: &mut BTreeSet<String>, origin: impl Fn(Place) -> Origin) {
        let mut own = BTreeSet::new();
        for key in WITH_EXPRESSIONS {
            if let Some(node) = get(document, key) {
                texts(node, &mut |text| paths(text, &mut own));
            }
        }
        if let Some(Tree::Map(lets)) = get(document, "let").map(|node| &node.value) {
            for entry in lets.iter().filter(|entry| !is_named(&own, &entry.key)) {
                self.unused.push(Unused { what: Named::Let, name: entry.key.clone(), at: origin(entry.at) });
            }
        }
        named.append(&mut own);
    }

    fn declared_flags(&mut self, document: &Node, origin: impl Fn(Place) -> Origin) {
        let Some(Tree::List(items)) = get(document, "flags").map(|node| &node.value) else { return };
        for item in items {
            if let Some(name) = text_of(item, "name") {
                self.flags.insert(name.to_owned(), origin(item.at));
            }
        }
    }
}

fn places(document: &Node, origin: impl Fn(Place) -> Origin) -> Places {
    let mut keys = BTreeMap::new();
    note(document, "", LEVELS, &origin, &mut keys);
    Places { at: origin(document.at), keys }
}

fn note(node: &Node, prefix: &str, levels: usize, origin: &impl Fn(Place) -> Origin, keys: &mut BTreeMap<String, Origin>) {
    if levels == 0 || prefix == "tests." {
        return;
    }
    let mut child = |name: &str, at: Place, value: &Node| {
        let key = format!("{prefix}{name}");
        note(value, &format!("{key}."), levels - 1, origin, keys);
        keys.insert(key, origin(at));
    };
    match &node.value {
        Tree::Map(entries) => entries.iter().for_each(|entry| child(&entry.key, entry.at, &entry.value)),
        Tree::List(items) => items.iter().enumerate().for_each(|(n, item)| child(&n.to_string(), item.at, item)),
        _ => {}
    }
}

fn get<'n>(node: &'n Node, key: &str) -> Option<&'n Node> {
    let Tree::Map(entries) = &node.value else { return None };
    entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value)
}

fn text_of<'n>(node: &'n Node, key: &str) -> Option<&'n str> {
    match &get(node, key)?.value {
        Tree::Text(text) => Some(text),
        _ => None,
    }
}

/// Shows every text below a node, keys left out.
fn texts(node: &Node, show: &mut impl FnMut(&str)) {
    match &node.value {
        Tree::Text(text) => show(text),
        Tree::List(items) => items.iter().for_each(|item| texts(item, show)),
        Tree::Map(entries) => entries.iter().for_each(|entry| texts(&entry.value, show)),
        _ => {}
    }
}

/// Whether a path is, or begins with, this name.
fn is_named(named: &BTreeSet<String>, name: &str) -> bool {
    let below = format!("{name}.");
    named.contains(name) || named.range(below.clone()..).next().is_some_and(|path| path.starts_with(&below))
}

/// The paths that an expression names, `lists.admins` and `lists["a-b"]` alike; what stands in quotes is text. A text that
/// is no expression names things by accident: then something unused goes unnoticed, never the other way round.
fn paths(expression: &str, named: &mut BTreeSet<String>) {
    let mut rest = expression;
    while let Some(c) = rest.chars().next() {
        if c == '"' || c == '\'' {
            rest = quoted(rest).1;
        } else if c.is_ascii_alphabetic() || c == '_' {
            let (path, after) = path(rest);
            named.insert(path);
            rest = after;
        } else {
            rest = &rest[c.len_utf8()..];
        }
    }
}

fn path(text: &str) -> (String, &str) {
    let end = |text: &str| text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '.')).unwrap_or(text.len());
    let (start, mut rest) = text.split_at(end(text));
    let mut path = start.to_owned();
    while let Some(inside) = rest.strip_prefix('[').map(str::trim_start).filter(|inside| inside.starts_with(['"', '\''])) {
        let (name, after) = quoted(inside);
        path = format!("{path}.{name}");
        rest = after.trim_start().strip_prefix(']').unwrap_or(after);
        let (more, after) = rest.split_at(end(rest));
        path.push_str(more);
        rest = after;
    }
    (path, rest)
}

/// What stands between quotes at the beginning of a text, and what follows.
fn quoted(text: &str) -> (&str, &str) {
    let Some(quote) = text.chars().next() else { return ("", "") };
    let inside = &text[quote.len_utf8()..];
    let mut escaped = false;
    for (at, c) in inside.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return (&inside[..at], &inside[at + c.len_utf8()..]),
            _ => {}
        }
    }
    (inside, "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::load::{SourceFile, tree};

    #[test]
    fn the_paths_of_an_expression_are_found_and_texts_are_not() {
        let mut named = BTreeSet::new();
        paths(
            r#"refused && route.startsWithAny(lists.admins) || path in lists["a-b"] && x == "lists.not \" y" && data.a["b c"].d"#,
            &mut named,
        );
        let found: Vec<&str> = named.iter().map(String::as_str).collect();
        assert_eq!(found, ["data.a.b c.d", "in", "lists.a-b", "lists.admins", "path", "refused", "route.startsWithAny", "x"]);
        assert!(is_named(&named, "lists.admins") && is_named(&named, "route") && !is_named(&named, "lists.admin"));
    }

    #[test]
    fn lists_predicates_and_lets_without_use_are_known_with_their_places() {
        let text = "schema: 1\nkind: lists\nlists: {used: [a], idle: [b]}\n---\nschema: 1\nkind: predicates\npredicates:\n  kept: path in lists.used\n  lost: 'true'\n\
            ---\nschema: 1\nid: a.b\nlet: {one: kept, two: 'true'}\nwhen: one\n";
        let files = [SourceFile { name: "r.yaml".into(), text: text.into() }];
        let mut report = Report::new(&files);
        let documents = tree::documents(0, &mut report);
        let outline = read(documents.iter(), &[&documents[2]], &report);
        let unused: Vec<_> = outline.unused.iter().map(|u| (u.what, u.name.as_str(), u.at.line, u.at.column)).collect();
        assert_eq!(unused, [(Named::Let, "two", 13, 18), (Named::List, "idle", 3, 20), (Named::Predicate, "lost", 9, 3)]);
        assert_eq!(outline.rules[0].of("when").line, 14);
        assert_eq!(outline.rules[0].of("nowhere").line, outline.rules[0].at.line);
    }
}
