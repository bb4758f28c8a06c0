//! The predicates of all rules as one program: which rules concern an event, in time that hardly grows with the rules that
//! do not.
//!
//! Three things make it so. `index` finds the few rules whose *witness* the event shows, a condition without which their
//! predicate is false (`witness`); the others are not asked. What several of those ask is worked out once per event and
//! remembered (`share`; `super::memory`). And the parts of `&&` and `||` stand cheap-first (`super::tidy`), which changes no
//! answer because nothing fails and nothing has effects. The answers are those of [`Expr::holds`], rule by rule.
//!
//! The idea of an index over necessary conditions is an old one of publish/subscribe matching: Yan and García-Molina, "Index
//! Structures for Selective Dissemination of Information Under the Boolean Model", ACM TODS 19(2), 1994.

mod index;
mod share;
mod witness;

use super::Expr;
use super::lower::{Context, Program, Test};
use super::memory::{Memory, Slot};
use super::node::Node;
use crate::event::Event;
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use index::{Index, IndexBuilder};
use share::Pool;
use std::cell::Cell;

/// One rule as a plan sees it. It concerns an event of type `on` of which `when` holds and, where there are any, one of `any_of`.
#[derive(Debug, Clone, Copy, Default)]
pub struct PlanRule<'r> {
    /// The event type it looks at; `None` is every type.
    pub on: Option<&'r str>,
    /// Its predicate; `None` is every event.
    pub when: Option<&'r Expr>,
    /// Alternatives, such as the steps of a sequence. Which of them hold is told by [`Plan::holds`].
    pub any_of: &'r [&'r Expr],
}

/// The predicates of some rules, compiled together. It keeps nothing about events; what it needs while one is looked at is in
/// a [`Scratch`].
pub struct Plan {
    /// Rules that look at one event type, by it.
    by_type: HashMap<Box<str>, Index, FixedState>,
    /// Rules that look at every type.
    every_type: Index,
    /// One for each rule without alternatives and one for each alternative, in the order of the rules.
    questions: Box<[Question]>,
    /// The first question of each rule, and after the last rule the number of questions.
    first: Box<[usize]>,
    /// What is worked out at most once per event. A program names only cells before its own.
    programs: Box<[Program]>,
    texts: Vec<Box<str>>,
}

/// What decides about one rule or one of its alternatives.
struct Question {
    rule: usize,
    /// All must hold.
    tests: Box<[Test]>,
}

/// Working space of [`Plan::select`], one per lane. It may be used with one plan after another; it allocates when it meets a
/// plan that is larger than those before.
#[derive(Debug, Default)]
pub struct Scratch {
    event: u64,
    slots: Vec<Cell<Slot>>,
    /// One bit per question: not ruled out by the index.
    candidates: Vec<u64>,
    /// One bit per question: answered with yes.
    answers: Vec<u64>,
    asked: usize,
}

impl Scratch {
    /// Empty.
    pub fn new() -> Scratch {
        Scratch::default()
    }

    /// How many questions the last event had to be asked, a rule without alternatives being one: the measure of what rules
    /// that do not concern an event cost.
    pub fn asked(&self) -> usize {
        self.asked
    }

    fn begin(&mut self, plan: &Plan) {
        self.event += 1;
        self.asked = 0;
        if self.slots.len() < plan.programs.len() {
            self.slots.resize(plan.programs.len(), Cell::new(Slot::EMPTY));
        }
        let words = plan.questions.len().div_ceil(64);
        for bits in [&mut self.candidates, &mut self.answers] {
            bits.clear();
            bits.resize(words, 0);
        }
    }
}

impl std::fmt::Debug for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Plan({} rules, {} questions, {} shared parts)", self.rules(), self.questions.len(), self.programs.len())
    }
}

impl Plan {
    /// Compiles the predicates of rules together. Takes time and space in proportion to their [`Expr::size`].
    pub fn build(rules: &[PlanRule<'_>]) -> Plan {
        let mut pool = Pool::default();
        let mut builders: HashMap<&str, IndexBuilder<'_>, FixedState> = HashMap::default();
        let mut every_type = IndexBuilder::default();
        let mut asked: Vec<(usize, Vec<usize>)> = Vec::new();
        let mut first = Vec::with_capacity(rules.len() + 1);
        for (number, rule) in rules.iter().enumerate() {
            first.push(asked.len());
            let alternatives: Vec<Option<&Expr>> =
                if rule.any_of.is_empty() { vec![None] } else { rule.any_of.iter().copied().map(Some).collect() };
            for alternative in alternatives {
                let nodes: Vec<&Node> = [rule.when, alternative].into_iter().flatten().map(|expr| &expr.node).collect();
                let builder = rule.on.map_or(&mut every_type, |on| builders.entry(on).or_default());
                builder.add(asked.len(), witness::of_all(nodes.iter().copied()));
                asked.push((number, nodes.into_iter().map(|node| pool.root(node)).collect()));
            }
        }
        first.push(asked.len());
        let mut texts = Vec::new();
        let shared = pool.shared();
        let programs = shared.programs(&mut texts);
        let mut question = |(rule, roots): (usize, Vec<usize>)| Question {
            rule,
            tests: roots.into_iter().map(|root| shared.test(root, &mut texts)).collect(),
        };
        let questions = asked.into_iter().map(&mut question).collect();
        let by_type = builders.into_iter().map(|(on, builder)| (Box::from(on), builder.build())).collect();
        Plan { by_type, every_type: every_type.build(), questions, first: first.into(), programs, texts }
    }

    /// The number of rules it was built from.
    pub fn rules(&self) -> usize {
        self.first.len().saturating_sub(1)
    }

    /// Puts into `out`, in place of what it held, the indices of the rules that concern the event, in their order.
    pub fn select(&self, event: &Event<'_>, scratch: &mut Scratch, out: &mut Vec<usize>) {
        out.clear();
        scratch.begin(self);
        let Scratch { slots, candidates, answers, asked, event: number } = scratch;
        self.every_type.mark(event, candidates);
        if let Some(index) = self.by_type.get(&*event.event_type) {
            index.mark(event, candidates);
        }
        let memory = Memory { programs: &self.programs, slots, event: *number };
        let context = Context { event, texts: &self.texts, memory: Some(&memory) };
        for (word, bits) in candidates.iter().enumerate() {
            let mut left = *bits;
            while left != 0 {
                let bit = left.trailing_zeros();
                left &= left - 1;
                *asked += 1;
                let question = &self.questions[word * 64 + bit as usize];
                if question.tests.iter().all(|test| test(context)) {
                    answers[word] |= 1 << bit;
                    if out.last() != Some(&question.rule) {
                        out.push(question.rule);
                    }
                }
            }
        }
    }

    /// Whether the last event that was selected with this scratch and this plan is one of which the rule's alternative holds:
    /// its `on`, its `when` and that entry of `any_of`. Alternative 0 of a rule without any is the rule itself.
    pub fn holds(&self, scratch: &Scratch, rule: usize, alternative: usize) -> bool {
        let (Some(first), Some(end)) = (self.first.get(rule), self.first.get(rule + 1)) else { return false };
        let question = first.saturating_add(alternative);
        question < *end && scratch.answers.get(question / 64).is_some_and(|word| word & (1 << (question % 64)) != 0)
    }
}
