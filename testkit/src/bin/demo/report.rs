//! What came of the traffic: some decisions with their reasons, what was found and missed, and sums that must add up.

use crate::paint::{action, bad, bold, dim, end_notes, good, step, thousands};
use crate::stage::Stage;
use crate::watch::{DECISIONS, INPUT, OBSERVATIONS, SINK};
use anyhow::{Context, Result};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use tripline_testkit::{Kafka, Metrics};

/// What each stage says it did, and what the topics say.
#[derive(Debug, Default)]
pub struct Counts {
    input: BTreeMap<String, f64>,
    observations: BTreeMap<String, f64>,
    decisions: BTreeMap<String, f64>,
    sink: BTreeMap<String, f64>,
    in_topics: u64,
    dead_letters: u64,
    observations_in_topic: u64,
    decisions_in_topic: u64,
}

impl Counts {
    /// Takes the worker's numbers, then counts what a read_committed consumer sees.
    pub fn take(kafka: &Kafka, stage: &Stage) -> Result<Counts> {
        let metrics = Metrics::scrape(&stage.admin)?;
        let records = |topic: &str| Ok::<u64, anyhow::Error>(kafka.read_committed(topic)?.len() as u64);
        Ok(Counts {
            input: metrics.by_label(INPUT, "outcome"),
            observations: metrics.by_label(OBSERVATIONS, "outcome"),
            decisions: metrics.by_label(DECISIONS, "type"),
            sink: metrics.by_label(SINK, "outcome"),
            in_topics: records(&stage.requests)? + records(&stage.events)?,
            dead_letters: records(&stage.dead_letters)?,
            observations_in_topic: records(&stage.observations)?,
            decisions_in_topic: records(&stage.decisions)?,
        })
    }

    /// The first sum that is not what it must be.
    pub fn mismatch(&self, sent: u64) -> Option<String> {
        let unequal =
            |what: &str, said: u64, there: u64| (said != there).then(|| format!("{what}: {} and {}", thousands(said), thousands(there)));
        let dead = outcome(&self.input, "dead_lettered") + outcome(&self.observations, "dead_lettered");
        unequal("sent, and in the input topics", sent, self.in_topics)
            .or_else(|| unequal("input outcomes, and records in the input topics", total(&self.input), self.in_topics))
            .or_else(|| {
                let what = "observation outcomes, and records in the observations topic";
                unequal(what, total(&self.observations), self.observations_in_topic)
            })
            .or_else(|| unequal("dead-lettered, and records in the dead letters topic", dead, self.dead_letters))
            .or_else(|| unequal("decisions made, and records in the decisions topic", total(&self.decisions), self.decisions_in_topic))
            .or_else(|| unequal("decisions made, and decisions stored", total(&self.decisions), outcome(&self.sink, "stored")))
            .or_else(|| (self.decisions_in_topic == 0).then(|| "no decision was made".to_owned()))
    }
}

fn total(outcomes: &BTreeMap<String, f64>) -> u64 {
    outcomes.values().sum::<f64>() as u64
}

fn outcome(outcomes: &BTreeMap<String, f64>, name: &str) -> u64 {
    outcomes.get(name).copied().unwrap_or_default() as u64
}

/// `20,012 = routed 20,000 + dead-lettered 12`, without the outcomes that nothing had.
fn sum(outcomes: &BTreeMap<String, f64>) -> String {
    let parts = outcomes.iter().filter(|(_, count)| **count > 0.0);
    let parts: Vec<String> = parts.map(|(name, count)| format!("{} {}", name.replace('_', "-"), thousands(*count as u64))).collect();
    format!("{} = {}", thousands(total(outcomes)), if parts.is_empty() { "nothing".to_owned() } else { parts.join(" + ") })
}

/// Prints the sums.
pub fn counts(counts: &Counts) {
    end_notes();
    let agree = |said: u64, there: u64| if said == there { good("adds up") } else { bad(&format!("but {} there", thousands(there))) };
    println!();
    step("counts", &format!("input         {}  {}", sum(&counts.input), agree(total(&counts.input), counts.in_topics)));
    let in_topic = agree(total(&counts.observations), counts.observations_in_topic);
    println!("{:>9} observations  {}  {in_topic}", "", sum(&counts.observations));
    let made = total(&counts.decisions);
    println!("{:>9} decisions     {}  {}", "", sum(&counts.decisions), agree(made, counts.decisions_in_topic));
    println!("{:>9} event store   {}  {}", "", sum(&counts.sink), agree(outcome(&counts.sink, "stored"), made));
    println!();
}

/// Prints the strongest decision of each type with its receipt, and how the decisions compare with the truth.
pub fn decisions(kafka: &Kafka, stage: &Stage) -> Result<()> {
    end_notes();
    let records = kafka.read_committed(&stage.decisions)?;
    let decisions = records.iter().map(|record| record.json()).collect::<Result<Vec<Value>>>()?;
    let mut strongest: BTreeMap<&str, &Value> = BTreeMap::new();
    for decision in &decisions {
        let best = strongest.entry(text(decision, "anomaly_type")).or_insert(decision);
        if decision["risk_score"].as_u64() > best["risk_score"].as_u64() {
            *best = decision;
        }
    }
    let mut strongest: Vec<_> = strongest.into_iter().collect();
    strongest.sort_by_key(|(_, decision)| std::cmp::Reverse(decision["risk_score"].as_u64()));
    println!();
    step("decisions", &format!("{} of {} types; the strongest of each:", thousands(decisions.len() as u64), strongest.len()));
    for (anomaly_type, decision) in strongest {
        print_one(anomaly_type, decision);
    }
    compare(&decisions, stage)
}

fn print_one(anomaly_type: &str, decision: &Value) {
    let entity = format!("{}:{}", text(&decision["entity"], "kind"), text(&decision["entity"], "id"));
    let request = [text(decision, "method"), text(decision, "path")].join(" ");
    let score = decision["risk_score"].as_u64().unwrap_or_default();
    let action = action(text(decision, "action_taken"));
    println!("{:>9} {} {action}  {entity}  {}", "", bold(&format!("{score:>3} {anomaly_type}")), dim(request.trim()));
    for part in decision["contributions"].as_array().into_iter().flatten() {
        let points = part["points"].as_u64().unwrap_or_default();
        println!("{:>13} {points:>3} {}: {}", "", text(part, "rule"), text(part, "why"));
    }
    for held in decision["held_back"].as_array().into_iter().flatten() {
        println!("{:>13}   - {}", "", dim(&format!("{} held back by {}", text(held, "action"), text(held, "by"))));
    }
}

/// The generator knows who attacked: found attackers, and decisions about anybody else.
fn compare(decisions: &[Value], stage: &Stage) -> Result<()> {
    let truth = std::fs::read_to_string(stage.truth()).context("could not read the generator's truth")?;
    let truth = truth.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>().context("the generator's truth is no NDJSON")?;
    let attacker_of: BTreeMap<&str, (&str, &str)> =
        truth.iter().map(|line| (text(line, "event_id"), (text(line, "attack"), text(line, "actor")))).collect();
    let attackers: BTreeSet<_> = attacker_of.values().copied().collect();
    let found: BTreeSet<_> = decisions.iter().filter_map(|decision| attacker_of.get(text(decision, "event_id")).copied()).collect();
    let others = decisions.iter().filter(|decision| !attacker_of.contains_key(text(decision, "event_id"))).count();
    let line = format!("{} of {} attacks found; decisions about ordinary traffic: {others}", found.len(), attackers.len());
    println!();
    step("truth", &line);
    Ok(())
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcomes(counts: &[(&str, f64)]) -> BTreeMap<String, f64> {
        counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }

    fn settled() -> Counts {
        Counts {
            input: outcomes(&[("routed", 98.0), ("dead_lettered", 2.0)]),
            observations: outcomes(&[("processed", 97.0), ("late", 1.0)]),
            decisions: outcomes(&[("burst", 3.0)]),
            sink: outcomes(&[("stored", 3.0)]),
            in_topics: 100,
            dead_letters: 2,
            observations_in_topic: 98,
            decisions_in_topic: 3,
        }
    }

    #[test]
    fn a_record_without_an_outcome_is_noticed_at_every_stage() {
        assert_eq!(settled().mismatch(100), None);
        let broken: [(&str, Counts); 5] = [
            ("input outcomes", Counts { input: outcomes(&[("routed", 98.0)]), ..settled() }),
            ("observation outcomes", Counts { observations: outcomes(&[("processed", 97.0)]), ..settled() }),
            ("dead-lettered", Counts { dead_letters: 1, ..settled() }),
            ("decisions made", Counts { decisions_in_topic: 4, ..settled() }),
            ("decisions stored", Counts { sink: outcomes(&[("stored", 2.0), ("unreadable", 1.0)]), ..settled() }),
        ];
        for (what, counts) in broken {
            assert!(counts.mismatch(100).is_some_and(|found| found.contains(what)), "{what}: {:?}", counts.mismatch(100));
        }
        assert!(settled().mismatch(101).is_some());
    }

    #[test]
    fn a_sum_names_its_parts() {
        assert_eq!(sum(&settled().input), "100 = dead-lettered 2 + routed 98");
        assert_eq!(sum(&outcomes(&[("late", 0.0)])), "0 = nothing");
    }
}
