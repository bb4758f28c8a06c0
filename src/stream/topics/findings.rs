//! Desired × found → findings. Pure: `plan`, `apply`, `check` and the start of a worker are views of one list.

use super::cluster::Found;
use super::{Role, Topic, Want};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// A worker does not start.
    Error,
    /// It works, and somebody should look.
    Warning,
}

/// What can be done about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remedy {
    /// `topics apply` creates the topic.
    Create,
    /// `topics apply --inputs` creates the topic; its owner should.
    CreateInput,
    /// `topics apply --alter` gives the setting this value.
    Alter {
        /// Kafka's name of the setting.
        setting: &'static str,
        /// The value that is there.
        is: String,
        /// The value that it gets.
        should: String,
    },
    /// A person decides.
    ByHand,
}

/// One thing about one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The topic.
    pub topic: String,
    /// What is wrong, in words.
    pub problem: String,
    /// The way out, in words.
    pub help: String,
    /// The way out, for `apply`.
    pub remedy: Remedy,
    level: Level,
}

impl Finding {
    /// How bad it is.
    pub fn level(&self) -> Level {
        self.level
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.topic, self.problem, self.help)
    }
}

/// Compares. Errors come first, then in the order of the topics.
pub fn compare(desired: &[Topic], found: &BTreeMap<String, Found>) -> Vec<Finding> {
    let mut findings = shared_names(desired);
    for topic in desired {
        match found.get(&topic.name) {
            None => findings.push(missing(topic)),
            Some(is) => {
                findings.extend(partitions(topic, is));
                findings.extend(replication(topic, is));
                findings.extend(settings(topic, is));
            }
        }
    }
    findings.sort_by_key(|finding| finding.level);
    findings
}

/// One topic with two roles would feed us our own records, or mix two retentions.
fn shared_names(desired: &[Topic]) -> Vec<Finding> {
    let mut seen = BTreeSet::new();
    let shared = desired.iter().filter(|topic| !seen.insert(&topic.name));
    shared
        .map(|topic| Finding {
            topic: topic.name.clone(),
            problem: "is named for two purposes".to_owned(),
            help: "give each entry of `input.topics` and `topics` a name of its own".to_owned(),
            remedy: Remedy::ByHand,
            level: Level::Error,
        })
        .collect()
}

fn missing(topic: &Topic) -> Finding {
    let (help, remedy) = match (topic.role, topic.partitions) {
        (Role::Input, _) => ("the apps own it: let them create it, or run `tripline topics apply --inputs`", Remedy::CreateInput),
        (_, None) => ("its partitions follow the input topic, which has to exist first", Remedy::ByHand),
        _ => ("run `tripline topics apply`", Remedy::Create),
    };
    Finding { topic: topic.name.clone(), problem: "does not exist".to_owned(), help: help.to_owned(), remedy, level: Level::Error }
}

fn partitions(topic: &Topic, is: &Found) -> Option<Finding> {
    let should = topic.partitions.filter(|should| *should != is.partitions)?;
    let finding = |problem: &str, help: &str, level| {
        let counts = if is.partitions == 1 { "has 1 partition".to_owned() } else { format!("has {} partitions", is.partitions) };
        Finding { topic: topic.name.clone(), problem: format!("{counts}, {problem}"), help: help.to_owned(), remedy: Remedy::ByHand, level }
    };
    match topic.role {
        Role::Changelog => Some(finding(
            &format!("and the topic whose tasks it remembers has {should}"),
            "both must have the same number; see docs/topics.md, \"Changing the number of partitions\"",
            Level::Error,
        )),
        Role::Observations => Some(finding(
            &format!("and `topics.partitions` says {should}"),
            "a key's partition is where its state lives: set `topics.partitions` to what is there, or see docs/topics.md, \"Changing the number of partitions\"",
            Level::Error,
        )),
        Role::Decisions | Role::Alerts | Role::Standing | Role::DeadLetters | Role::Late | Role::Shadow => Some(finding(
            &format!("and `topics.partitions` says {should}"),
            "harmless: records are spread over what is there",
            Level::Warning,
        )),
        // One is enough, more do no harm; the inputs' number is their owner's.
        Role::Epochs | Role::Input => None,
    }
}

fn replication(topic: &Topic, is: &Found) -> Option<Finding> {
    let should = topic.replication.max(2);
    if is.replication >= should || topic.role == Role::Input {
        return None;
    }
    let problem = match is.replication {
        1 => "has one replica: the loss of a broker loses it".to_owned(),
        n => format!("has {n} replicas, and `topics.replication_factor` says {should}"),
    };
    let help = "reassign its partitions with Kafka's tools; fine on a single broker".to_owned();
    Some(Finding { topic: topic.name.clone(), problem, help, remedy: Remedy::ByHand, level: Level::Warning })
}

fn settings(topic: &Topic, is: &Found) -> Vec<Finding> {
    let Some(there) = &is.settings else {
        return vec![Finding {
            topic: topic.name.clone(),
            problem: "its settings cannot be read".to_owned(),
            help: "allow DescribeConfigs on it, so that they can be checked".to_owned(),
            remedy: Remedy::ByHand,
            level: Level::Warning,
        }];
    };
    let unlike = topic.settings.iter().filter_map(|(name, want)| {
        let is = there.get(*name).map_or("", |setting| setting.value.as_str());
        (!satisfies(want, is)).then(|| setting(topic, name, want, is))
    });
    unlike.collect()
}

fn setting(topic: &Topic, name: &'static str, want: &Want, is: &str) -> Finding {
    let should = match want {
        Want::Exactly(text) => (*text).to_owned(),
        Want::AtLeast(number) => format!("at least {number}"),
        Want::AtMost(number) => format!("at most {number}"),
        Want::AtFirst(number) => number.to_string(),
    };
    let problem = format!("{name} is {}, and should be {should}", if is.is_empty() { "not set" } else { is });
    if topic.role == Role::Input {
        // With the producer's clock, one wrong clock moves the reference time of everything behind it.
        let help = "the apps own it: ask for LogAppendTime, so that a producer's wrong clock cannot pass for the present";
        return Finding { topic: topic.name.clone(), problem, help: help.to_owned(), remedy: Remedy::ByHand, level: Level::Warning };
    }
    // These lose state or stop a lane; the rest is only unwise.
    let fatal = matches!(
        (topic.role, name),
        (Role::Changelog, "cleanup.policy") | (Role::Observations, "cleanup.policy") | (_, "max.message.bytes")
    );
    Finding {
        topic: topic.name.clone(),
        problem,
        help: "run `tripline topics apply --alter`".to_owned(),
        remedy: Remedy::Alter { setting: name, is: is.to_owned(), should: want.value() },
        level: if fatal { Level::Error } else { Level::Warning },
    }
}

fn satisfies(want: &Want, is: &str) -> bool {
    // -1 is Kafka's "without end".
    let number = is.parse::<i64>().ok().map(|n| if n < 0 { i64::MAX } else { n });
    match want {
        Want::Exactly(text) => is == *text,
        Want::AtLeast(bound) => number.is_some_and(|n| n >= *bound),
        Want::AtMost(bound) => number.is_some_and(|n| n <= *bound),
        Want::AtFirst(_) => true,
    }
}

#[cfg(test)]
#[path = "findings_tests.rs"]
mod tests;
