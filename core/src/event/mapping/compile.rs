//! From fields and their sources to a tree of places.
//!
//! A path's names may be spread over objects in any way: `http.request.method` is one key with dots, three nested ones,
//! or anything between. So a node of the tree knows everything below it by its dotted name, and one look-up per key of
//! the record finds the place whatever the spelling.

use super::source::{Fields, Source, Target, Unit};
use super::{MAX_PLACES, Problem};
use crate::event::FIELDS;
use crate::event::decode::{Dialect, Slot};
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use serde_json::Value as Json;

/// The record's own object.
pub(in crate::event) const ROOT: usize = 0;

/// What the decoder walks.
#[derive(Debug, Clone)]
pub(in crate::event) struct Tree {
    /// Places; the first is [`ROOT`].
    pub nodes: Vec<Node>,
    /// What to fill, in the order of the event's fields.
    pub plans: Vec<Plan>,
    /// How many single values are kept while walking.
    pub scalars: usize,
    /// The values that are kept with all that is in them: how many places of `data` each may fill.
    pub wholes: Vec<usize>,
}

/// A place in records.
#[derive(Debug, Clone, Default)]
pub(in crate::event) struct Node {
    /// Everything below, by its name from here with dots.
    pub below: HashMap<Box<str>, usize, RandomState>,
    /// Where its single value is kept.
    pub scalar: Option<usize>,
    /// Where its value with all that is in it is kept.
    pub whole: Option<usize>,
    /// Whether all headers stand here.
    pub headers: bool,
}

/// How one thing is filled: the first source that has a value wins.
#[derive(Debug, Clone)]
pub(in crate::event) enum Plan {
    /// A named field.
    Field(Slot, Vec<Pick>),
    /// One header.
    Header(Box<str>, Vec<Pick>),
    /// A place under `data`: the wholes that may fill it, and what stands there when none does.
    Data(Vec<String>, Vec<usize>, Option<Json>),
}

/// One source of a single value.
#[derive(Debug, Clone)]
pub(in crate::event) enum Pick {
    /// What is kept there.
    Kept {
        /// The place's scalar.
        scalar: usize,
        /// What numbers count.
        unit: Unit,
        /// The scalar of the earlier time.
        since: Option<usize>,
        /// Their words and ours.
        values: Vec<(String, String)>,
    },
    /// This.
    Constant(Json),
}

/// Builds the tree; the fields are valid each for itself.
pub(super) fn compile(fields: &Fields) -> Result<Tree, Vec<Problem>> {
    let mut tree = Tree { nodes: vec![Node::default()], plans: Vec::new(), scalars: 0, wholes: Vec::new() };
    let mut problems = conflicts(fields);
    for (target, sources) in fields {
        let plan = match target {
            Target::Named(index) => Plan::Field(Slot::of(FIELDS[*index].name, Dialect::Event), tree.picks(sources)),
            Target::Header(name) => Plan::Header(name.as_str().into(), tree.picks(sources)),
            Target::Headers => {
                for path in paths(sources) {
                    let node = tree.node(path);
                    tree.nodes[node].headers = true;
                }
                if paths(sources).count() > 1 {
                    problems.push(problem(target, "all headers come from one place", "name one path"));
                }
                continue;
            }
            Target::Data(names) => {
                let wholes = paths(sources).map(|path| tree.whole(path)).collect();
                let constant = sources.iter().find_map(|source| match source {
                    Source::Constant(value) => Some(value.clone()),
                    Source::Place { .. } => None,
                });
                Plan::Data(names.clone(), wholes, constant)
            }
        };
        tree.plans.push(plan);
    }
    if tree.nodes.len() > MAX_PLACES {
        let message = format!("it reads {} places", tree.nodes.len());
        problems.push(Problem { at: Vec::new(), message, help: Some(format!("at most {MAX_PLACES}, with the objects on the way")) });
    }
    if problems.is_empty() { Ok(tree) } else { Err(problems) }
}

fn problem(target: &Target, message: &str, help: &str) -> Problem {
    Problem { at: vec!["fields".to_owned(), target.name()], message: message.to_owned(), help: Some(help.to_owned()) }
}

/// A place under `data` inside another one would overwrite it.
fn conflicts(fields: &Fields) -> Vec<Problem> {
    let mut problems = Vec::new();
    for target in fields.keys() {
        let Target::Data(names) = target else { continue };
        let outer = (1..names.len()).map(|n| Target::Data(names[..n].to_vec())).find(|outer| fields.contains_key(outer));
        if let Some(outer) = outer {
            problems.push(problem(target, &format!("it lies inside `{}`, which is mapped too", outer.name()), "map one of them"));
        }
    }
    problems
}

fn paths(sources: &[Source]) -> impl Iterator<Item = &str> {
    sources.iter().filter_map(|source| match source {
        Source::Place { path, .. } => Some(path.as_str()),
        Source::Constant(_) => None,
    })
}

impl Tree {
    /// The node of a path, made with all nodes on the way.
    fn node(&mut self, path: &str) -> usize {
        let mut way: Vec<(usize, usize)> = vec![(ROOT, 0)];
        let ends = path.match_indices('.').map(|(end, _)| end).chain([path.len()]);
        for end in ends {
            let (parent, begin) = *way.last().expect("the way begins at the root");
            let node = match self.nodes[parent].below.get(&path[begin..end]) {
                Some(node) => *node,
                None => {
                    self.nodes.push(Node::default());
                    self.nodes.len() - 1
                }
            };
            for (above, begin) in &way {
                self.nodes[*above].below.insert(path[*begin..end].into(), node);
            }
            way.push((node, end + 1));
        }
        way.last().map_or(ROOT, |(node, _)| *node)
    }

    fn scalar(&mut self, path: &str) -> usize {
        let node = self.node(path);
        let next = self.scalars;
        let scalar = *self.nodes[node].scalar.get_or_insert(next);
        self.scalars = self.scalars.max(scalar + 1);
        scalar
    }

    fn whole(&mut self, path: &str) -> usize {
        let node = self.node(path);
        let next = self.wholes.len();
        let whole = *self.nodes[node].whole.get_or_insert(next);
        self.wholes.resize(next.max(whole + 1), 0);
        self.wholes[whole] += 1;
        whole
    }

    fn picks(&mut self, sources: &[Source]) -> Vec<Pick> {
        let pick = |source: &Source| match source {
            Source::Constant(value) => Pick::Constant(value.clone()),
            Source::Place { path, unit, since, values } => Pick::Kept {
                scalar: self.scalar(path),
                unit: *unit,
                since: since.as_deref().map(|since| self.scalar(since)),
                values: values.clone(),
            },
        };
        sources.iter().map(pick).collect()
    }
}
