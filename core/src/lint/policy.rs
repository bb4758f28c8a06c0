//! What a policy and the points of rules should be told.

use super::{Findings, codes};
use crate::policy::{Action, Decide};
use crate::rule::load::outline::Places;
use crate::rule::{Mode, Rule, RuleSet};
use crate::score::reasons::{Reasons, band_bottom, band_top};
use crate::score::tally::AGREES;
use crate::score::{Axis, Milli};
use std::collections::BTreeMap;

/// Points that say something else than their severity.
pub fn bands(rule: &Rule, places: &Places, set: &RuleSet, findings: &mut Findings) {
    let crate::rule::SignalType::Named(ty) = &rule.signal.ty else { return };
    if rule.signal.points.is_none() && rule.signal.severity.is_none() {
        return;
    }
    let profile = rule.signal.profile(set.profile(ty));
    let band = band_bottom(profile.severity)..=band_top(profile.severity);
    // Weak evidence of something grave is no contradiction: points of 0 only carry a mode.
    if profile.risk_score > 0 && !band.contains(&profile.risk_score) {
        let message = format!(
            "{} gives {} points, and its severity, {}, has {} to {}",
            rule.id,
            profile.risk_score,
            profile.severity.name(),
            band.start(),
            band.end()
        );
        let key = if rule.signal.points.is_some() { "signal.points" } else { "signal.severity" };
        findings.warn(codes::BAND, places.of(key), message, Some("more than the band's top is cut off"));
    }
}

/// What the policy asks for and cannot get, and what it does unasked.
pub fn policy(set: &RuleSet, findings: &mut Findings) {
    let Some(places) = &set.outline.policy else { return };
    if set.policy.decide == Decide::PerSignal {
        return;
    }
    let reach = reach(set);
    for (n, row) in set.policy.actions.iter().enumerate() {
        let at = places.of(&format!("actions.{n}"));
        let needed = row.action.needs();
        let action = row.action.name();
        if !reach.iter().any(|reach| reach.mode >= needed) {
            let mode = if needed == Mode::Alert { "`alert` or `enforce`" } else { "`enforce`" };
            let message = format!("`{action}` is never taken: no rule has the mode {mode}");
            findings.warn(codes::UNREACHABLE, at, message, None);
        } else if !reach
            .iter()
            .any(|reach| reach.points.points() >= row.at && (reach.families >= row.families || (row.or_certain && reach.certain)))
        {
            let best = reach.iter().max_by_key(|reach| (reach.points, reach.families));
            let (points, families) = best.map_or((0, 0), |best| (best.points.points(), best.families));
            let message = format!(
                "`{action}` asks for {} points from {} families, and the rules of the pack give at most {points} from {families}",
                row.at, row.families
            );
            findings.warn(codes::UNREACHABLE, at, message, Some("without context; of one axis"));
        }
        let switch = row.flag.map(|flag| &set.flags[flag]);
        if row.action != Action::Alert && switch.is_none_or(|flag| flag.default) {
            let message = format!("`{action}` is taken as soon as the pack is loaded: no flag that is off by default holds it back");
            findings.warn(codes::NO_SWITCH, at, message, Some("name a flag with `default: false`"));
        }
    }
}

/// What the rules can reach on one axis.
#[derive(Debug, Clone, Copy)]
struct Reach {
    points: Milli,
    families: u32,
    certain: bool,
    mode: Mode,
}

/// The most that the live rules together can give, axis by axis, with neutral context.
fn reach(set: &RuleSet) -> Vec<Reach> {
    let reasons = Reasons::of(set);
    let mut families: BTreeMap<(Axis, usize), Vec<Milli>> = BTreeMap::new();
    let mut reached: BTreeMap<Axis, Reach> = BTreeMap::new();
    for reason in reasons.rows().iter().filter(|reason| reason.is_live) {
        let most = set.rules[reason.rule].detector.most_points().map_or(Milli::ZERO, Milli::of_points);
        families.entry((reason.axis, reason.family)).or_default().push(reason.points.max(most).min(reason.cap));
        let nothing = Reach { points: Milli::ZERO, families: 0, certain: false, mode: Mode::Off };
        let reach = reached.entry(reason.axis).or_insert(nothing);
        reach.certain |= reason.certain;
        reach.mode = reach.mode.max(set.rules[reason.rule].mode);
    }
    for ((axis, _), mut points) in families {
        points.sort_unstable_by_key(|points| std::cmp::Reverse(*points));
        let sum: u64 = points.iter().zip([1_000, 500, 250]).map(|(points, share)| u64::from(points.times(share).thousandths())).sum();
        if let Some(reach) = reached.get_mut(&axis) {
            reach.points = Milli::saturating(u64::from(reach.points.thousandths()) + sum);
            reach.families += u32::from(points[0] >= AGREES);
        }
    }
    reached.into_values().collect()
}
