//! `topics plan|apply|check`: the topics as they are, beside those that Tripline needs.
//!
//! Nothing here deletes a topic, takes away data or changes a number of partitions.

use crate::config::Config;
use crate::stream::topics::cluster::{Cluster, Found};
use crate::stream::topics::findings::{Finding, Level, Remedy, compare};
use crate::stream::topics::{Topic, TopicsError, desired, names, with_inputs};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{self, Write};

/// What to do.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum TopicsCommand {
    /// Show what `apply` would do, and change nothing
    Plan {
        /// How to print it
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
        /// Include missing input topics, as `apply --inputs` would create them
        #[arg(long)]
        inputs: bool,
    },
    /// Create missing topics; never deletes, shrinks or adds partitions
    Apply {
        /// How to print it
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
        /// Also create missing input topics (the apps own them: for trials)
        #[arg(long)]
        inputs: bool,
        /// Also change settings of topics that exist
        #[arg(long)]
        alter: bool,
    },
    /// Verify that topics exist with the right partitions and settings
    Check {
        /// How to print it
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
        /// Warnings count as findings, too
        #[arg(long)]
        strict: bool,
    },
}

/// How results are printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// For people
    #[default]
    Table,
    /// One JSON object
    Json,
}

/// Runs the verb. The answer is the exit code: 0 ok, 1 findings, 3 invalid settings, 4 no cluster.
pub fn run(command: &TopicsCommand, config: &Config) -> u8 {
    let mut out = io::stdout().lock();
    run_to(&mut out, command, config).unwrap_or_else(|error| {
        eprintln!("error: {error}");
        error.exit_code()
    })
}

fn run_to(out: &mut impl Write, command: &TopicsCommand, config: &Config) -> Result<u8, TopicsError> {
    let cluster = Cluster::connect(config)?;
    let found = cluster.find(&names(config))?;
    match *command {
        TopicsCommand::Plan { output, inputs } => {
            let plan = Plan::new(config, &found, inputs, true);
            show(out, output, &plan.json("plan"), &plan.table(false));
            Ok(0)
        }
        TopicsCommand::Apply { output, inputs, alter } => apply(out, output, &cluster, &found, Plan::new(config, &found, inputs, alter)),
        TopicsCommand::Check { output, strict } => {
            let findings = compare(&desired(config, &found), &found);
            let worst = findings.iter().map(Finding::level).min();
            show(out, output, &json!({"findings": findings.iter().map(as_json).collect::<Vec<_>>()}), &check_table(&findings, found.len()));
            Ok(u8::from(worst == Some(Level::Error) || (strict && worst.is_some())))
        }
    }
}

/// What `apply` does, and what it leaves to a person.
#[derive(Debug)]
struct Plan {
    create: Vec<Topic>,
    alter: Vec<Finding>,
    left: Vec<Finding>,
}

impl Plan {
    fn new(config: &Config, found: &BTreeMap<String, Found>, inputs: bool, alter: bool) -> Plan {
        let mut topics = desired(config, found);
        if inputs {
            topics = with_inputs(topics, config);
        }
        let mut plan = Plan { create: Vec::new(), alter: Vec::new(), left: Vec::new() };
        for finding in compare(&topics, found) {
            let wanted = match &finding.remedy {
                Remedy::Create => true,
                Remedy::CreateInput => inputs,
                Remedy::Alter { .. } if alter => {
                    plan.alter.push(finding);
                    continue;
                }
                Remedy::Alter { .. } | Remedy::ByHand => false,
            };
            match topics.iter().find(|topic| wanted && topic.name == finding.topic) {
                Some(topic) if !plan.create.contains(topic) => plan.create.push(topic.clone()),
                Some(_) => (),
                None => plan.left.push(finding),
            }
        }
        plan
    }

    fn table(&self, done: bool) -> Vec<String> {
        let (create, alter) = if done { ("created", "altered") } else { ("create", "alter") };
        let mut lines: Vec<String> = self.create.iter().map(|topic| format!("{create}  {}", describe(topic))).collect();
        for finding in &self.alter {
            if let Remedy::Alter { setting, is, should } = &finding.remedy {
                lines.push(format!("{alter}  {}  {setting}: {} -> {should}", finding.topic, if is.is_empty() { "(not set)" } else { is }));
            }
        }
        if lines.is_empty() {
            lines.push("nothing to do".to_owned());
        }
        // Inputs are their owners' to create: no error of ours, and no part of the exit code.
        lines.extend(self.left.iter().map(|f| if f.remedy == Remedy::CreateInput { format!("missing: {f}") } else { finding_line(f) }));
        lines
    }

    fn json(&self, verb: &str) -> Value {
        json!({
            "verb": verb,
            "create": self.create.iter().map(topic_json).collect::<Vec<_>>(),
            "alter": self.alter.iter().map(as_json).collect::<Vec<_>>(),
            "findings": self.left.iter().map(as_json).collect::<Vec<_>>(),
        })
    }
}

fn apply(
    out: &mut impl Write,
    output: Output,
    cluster: &Cluster,
    found: &BTreeMap<String, Found>,
    mut plan: Plan,
) -> Result<u8, TopicsError> {
    let mut failed = false;
    let results = cluster.create(&plan.create)?;
    for (name, result) in &results {
        if let Err(why) = result {
            failed = true;
            eprintln!("error: could not create {name}: {why}");
        }
    }
    plan.create.retain(|topic| results.get(&topic.name).is_some_and(Result::is_ok));
    cluster.wait_for(&plan.create)?;
    let empty = BTreeMap::new();
    for topic in plan.alter.iter().map(|finding| finding.topic.as_str()).collect::<std::collections::BTreeSet<_>>() {
        let changes = plan.alter.iter().filter(|finding| finding.topic == topic).filter_map(|finding| match &finding.remedy {
            Remedy::Alter { setting, should, .. } => Some((*setting, should.as_str())),
            _ => None,
        });
        let there = found.get(topic).and_then(|found| found.settings.as_ref()).unwrap_or(&empty);
        cluster.alter(topic, there, &changes.collect::<Vec<_>>())?;
    }
    show(out, output, &plan.json("apply"), &plan.table(true));
    // What is left and stops a worker is a finding, except inputs that their owners have yet to create.
    let stops = |finding: &Finding| finding.level() == Level::Error && finding.remedy != Remedy::CreateInput;
    Ok(u8::from(failed || plan.left.iter().any(stops)))
}

fn describe(topic: &Topic) -> String {
    let settings: Vec<_> = topic.settings.iter().map(|(name, want)| format!("{name}={}", want.value())).collect();
    let replication = if topic.replication < 1 { "the broker's default".to_owned() } else { topic.replication.to_string() };
    format!("{}  partitions={}  replication={replication}  {}", topic.name, topic.partitions.unwrap_or(-1), settings.join(" "))
}

fn topic_json(topic: &Topic) -> Value {
    let settings: BTreeMap<_, _> = topic.settings.iter().map(|(name, want)| (*name, want.value())).collect();
    json!({"topic": topic.name, "partitions": topic.partitions, "replication_factor": topic.replication, "settings": settings})
}

fn as_json(finding: &Finding) -> Value {
    let mut json = json!({"level": finding.level(), "topic": finding.topic, "problem": finding.problem, "help": finding.help});
    if let Remedy::Alter { setting, is, should } = &finding.remedy {
        json["alter"] = json!({"setting": setting, "is": is, "should": should});
    }
    json
}

fn finding_line(finding: &Finding) -> String {
    let level = match finding.level() {
        Level::Error => "error",
        Level::Warning => "warning",
    };
    format!("{level}: {finding}")
}

fn check_table(findings: &[Finding], topics: usize) -> Vec<String> {
    let mut lines: Vec<_> = findings.iter().map(finding_line).collect();
    if lines.is_empty() {
        lines.push(format!("{topics} topics are as they should be"));
    }
    lines
}

/// A closed pipe (`| head`) is the reader's choice and no error.
fn show(out: &mut impl Write, output: Output, json: &Value, table: &[String]) {
    let text = match output {
        Output::Json => format!("{json:#}"),
        Output::Table => table.join("\n"),
    };
    let _ = writeln!(out, "{text}");
}

#[cfg(test)]
#[path = "topics_tests.rs"]
mod tests;
