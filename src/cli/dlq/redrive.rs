//! `tripline dlq redrive`.

use super::{RedriveArgs, print, remark};
use crate::cli::draw::clean;
use crate::cli::failure::count;
use crate::cli::{Failure, Output, code};
use crate::config::Config;
use crate::dead_letters::index::Filter;
use crate::dead_letters::plan::{Plan, Refusal, Sources};
use crate::dead_letters::reader::Reader;
use crate::dead_letters::redrive::{Done, Redriver};
use crate::stream::failpoints;
use indicatif::ProgressBar;
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt::Write;
use tripline_core::dead_letter::LetterId;

/// Refused dead letters that are named for each kind of refusal.
const NAMED: usize = 5;

pub(super) fn run(args: &RedriveArgs, filter: Filter, config: &Config) -> Result<u8, Failure> {
    failpoints::arm(std::env::var("TRIPLINE_FAILPOINTS").ok().as_deref()).map_err(|problem| Failure::new(code::USAGE, problem))?;
    let reader = Reader::connect(config)?;
    // A dry run fences nobody. A real one reads the receipts after it has fenced: then no other can add one.
    let mut redriver = if args.execute { Some(Redriver::take_over(config)?) } else { None };
    let index = reader.index(filter)?;
    let sources = Sources::new(config, reader.partitions(&Sources::topics(config))?);
    let plan = Plan::new(index.letters(), &sources, args.max_attempts, args.limit as usize);
    remark(&index);
    let missing: Vec<LetterId> = args.letters.iter().copied().filter(|id| !index.has(*id)).collect();
    let done = match &mut redriver {
        Some(redriver) => {
            let bar = ProgressBar::new(plan.send.len() as u64);
            let done = redriver.send(&reader, &sources, &plan, args.rate.get(), |sent| bar.inc(sent as u64))?;
            bar.finish_and_clear();
            Some(done)
        }
        None => None,
    };
    let report = Report { plan: &plan, missing: &missing, is_named: !args.letters.is_empty(), left_out: index.left_out().count, done };
    match args.output {
        Output::Table => print(&report.text())?,
        Output::Json => print(&report.json())?,
    };
    Ok(report.exit_code())
}

/// What was planned, and what was done.
struct Report<'a> {
    plan: &'a Plan,
    missing: &'a [LetterId],
    /// Dead letters were asked for by name: each should have been sent.
    is_named: bool,
    /// Dead letters that matched and were not looked at: there are too many.
    left_out: u64,
    /// `None` for a dry run.
    done: Option<Done>,
}

impl Report<'_> {
    /// Refused for another reason than that it is done already, by reason.
    fn refused(&self) -> BTreeMap<String, Vec<LetterId>> {
        let mut refused = BTreeMap::<String, Vec<LetterId>>::new();
        for (id, why) in self.plan.refused.iter().filter(|(_, why)| *why != Refusal::Redriven) {
            refused.entry(why.to_string()).or_default().push(*id);
        }
        if !self.missing.is_empty() {
            refused.insert("no such dead letter, or the filters leave it out".to_owned(), self.missing.to_vec());
        }
        let gone = self.done.as_ref().map_or(&[][..], |done| &done.gone);
        if !gone.is_empty() {
            refused.insert("expired meanwhile, or its source partition is gone".to_owned(), gone.to_vec());
        }
        refused
    }

    fn redriven_before(&self) -> usize {
        let before = self.plan.refused.iter().filter(|(_, why)| *why == Refusal::Redriven).count();
        before + self.done.as_ref().map_or(0, |done| done.elsewhere)
    }

    /// By name each has to be sent, or to have been; a filter takes what it can.
    fn exit_code(&self) -> u8 {
        if self.is_named && !self.refused().is_empty() { code::FINDINGS } else { code::OK }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for ((topic, reason), number) in self.plan.by_topic_and_reason() {
            let _ = writeln!(text, "{number:>8}  {}  to {}", clean(reason), clean(topic));
        }
        for (why, ids) in self.refused() {
            let named: Vec<String> = ids.iter().take(NAMED).map(LetterId::to_string).collect();
            let more = if ids.len() > NAMED { ", …" } else { "" };
            let _ = writeln!(text, "{:>8}  not sent: {} ({}{more})", ids.len(), clean(&why), named.join(", "));
        }
        if self.redriven_before() > 0 {
            let _ = writeln!(text, "{:>8}  already redriven", self.redriven_before());
        }
        if self.plan.beyond_limit > 0 {
            let _ = writeln!(text, "{:>8}  left for the next run (--limit)", self.plan.beyond_limit);
        }
        if self.left_out > 0 {
            let _ = writeln!(text, "{:>8}  not looked at, the oldest", self.left_out);
        }
        match &self.done {
            Some(done) => writeln!(text, "{} sent back", count(done.sent, "dead letter")),
            None => writeln!(text, "nothing sent: dry run; {} would be with --execute", count(self.plan.send.len(), "dead letter")),
        }
        .ok();
        text
    }

    fn json(&self) -> String {
        let names = |ids: &[LetterId]| ids.iter().map(LetterId::to_string).collect::<Vec<_>>();
        let planned: Vec<LetterId> = self.plan.send.iter().map(|letter| letter.id).collect();
        let refused: BTreeMap<String, Vec<String>> = self.refused().iter().map(|(why, ids)| (why.clone(), names(ids))).collect();
        let value = json!({
            "executed": self.done.is_some(),
            "planned": names(&planned),
            "sent": self.done.as_ref().map_or(0, |done| done.sent),
            "refused": refused,
            "already_redriven": self.redriven_before(),
            "beyond_limit": self.plan.beyond_limit,
            "left_out": self.left_out,
        });
        format!("{value:#}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(offset: i64) -> LetterId {
        LetterId { partition: 0, offset }
    }

    #[test]
    fn what_was_asked_for_by_name_and_not_sent_is_a_failure_and_a_repeat_is_none() {
        let plan = |refused: &[(LetterId, Refusal)]| Plan { refused: refused.to_vec(), ..Plan::default() };
        let code = |plan: &Plan, missing: &[LetterId], is_named| Report { plan, missing, is_named, left_out: 0, done: None }.exit_code();
        let (before, large) = (plan(&[(id(1), Refusal::Redriven)]), plan(&[(id(1), Refusal::Truncated(9))]));
        assert_eq!(
            [code(&before, &[], true), code(&before, &[id(2)], true), code(&large, &[], true), code(&large, &[], false)],
            [0, 1, 1, 0]
        );
    }

    #[test]
    fn a_report_names_the_first_of_each_kind_and_says_that_nothing_was_sent() {
        let refused = (0..7).map(|offset| (id(offset), Refusal::Attempts(3))).chain([(id(9), Refusal::Redriven)]).collect();
        let plan = Plan { refused, beyond_limit: 4, ..Plan::default() };
        let text = Report { plan: &plan, missing: &[], is_named: false, left_out: 3, done: None }.text();
        assert!(text.contains("3  not looked at, the oldest"), "{text}");
        assert!(text.contains("7  not sent: attempt 3 failed, too") && text.contains("(0/0, 0/1, 0/2, 0/3, 0/4, …)"), "{text}");
        assert!(text.contains("1  already redriven") && text.contains("4  left for the next run"), "{text}");
        assert!(text.ends_with("nothing sent: dry run; 0 dead letters would be with --execute\n"), "{text}");
    }
}
