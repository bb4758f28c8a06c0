//! Adding up.

use super::decay::{GONE_AFTER_HALF_LIVES, decayed};
use super::reasons::{Reason, Reasons};
use super::{Axis, Milli};
use crate::state::{Held, Ledger};

/// A family agrees while its strongest contribution has this much left: five points. What is left of an old whim does not.
pub const AGREES: Milli = Milli::of_points(5);

/// The score of one axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AxisScore {
    /// The score.
    pub score: Milli,
    /// What the families add up to, thousandths: the score before it was cut at 100.
    pub sum: u64,
    /// Families that agree.
    pub families: u32,
    /// A contribution that agrees is certain.
    pub certain: bool,
}

/// The scores of an entity at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Scores([AxisScore; Axis::ALL.len()]);

impl Scores {
    /// The score of an axis.
    pub fn of(&self, axis: Axis) -> &AxisScore {
        &self.0[axis as usize]
    }

    /// The risk score: the highest axis, in whole points.
    pub fn risk(&self) -> u8 {
        self.0.iter().map(|axis| axis.score.points()).max().unwrap_or(0)
    }

    /// Whether an axis has this many points from this many families, or something certain instead.
    pub fn has(&self, at: u8, families: u32, or_certain: bool) -> bool {
        self.0.iter().any(|axis| axis.score.points() >= at && (axis.families >= families || (or_certain && axis.certain)))
    }
}

/// One line of the receipt, before it has words: a contribution and what it adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line {
    /// Its place in the ledger.
    pub held: usize,
    /// Its [reason](super::reasons::Reason)'s index.
    pub reason: usize,
    /// What is left of it.
    pub left: Milli,
    /// Its share in thousandths: 1000, 500, 250 or 0, by its rank in the family.
    pub share: u32,
    /// What it adds to the axis.
    pub adds: Milli,
}

/// The share of the strongest of a family, of the second, and of the third, in thousandths.
pub const SHARES: [u32; 3] = [1_000, 500, 250];

/// Whose contributions count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// Everybody's.
    All,
    /// All but those of composite rules: what composite rules look at.
    Evidence,
    /// All, and those of this rule (its index), which only watches.
    And(usize),
}

impl Whose {
    fn counts(self, reason: &Reason) -> bool {
        match self {
            Whose::All => reason.is_live,
            Whose::Evidence => reason.is_live && !reason.is_composite,
            Whose::And(rule) => reason.is_live || reason.rule == rule,
        }
    }
}

/// What is left of a contribution at a moment.
pub fn left(held: &Held, reason: &Reason, at_ms: i64) -> Milli {
    decayed(held.points, at_ms.saturating_sub(held.at_ms), reason.half_life_ms)
}

/// Adds up at a moment; the lines stand by axis, family and strength.
pub fn lines(reasons: &Reasons, ledger: &Ledger, at_ms: i64, whose: Whose) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::with_capacity(ledger.held.len());
    for (held, contribution) in ledger.held.iter().enumerate() {
        let Some((index, reason)) = reasons.get(contribution.reason) else { continue };
        let left = left(contribution, reason, at_ms);
        if left >= Milli::LEAST && whose.counts(reason) {
            lines.push(Line { held, reason: index, left, share: 0, adds: Milli::ZERO });
        }
    }
    let family = |line: &Line| (reasons.row(line.reason).axis, reasons.row(line.reason).family);
    lines.sort_by_key(|line| (family(line), std::cmp::Reverse(line.left), line.reason));
    let (mut rank, mut before) = (0, None);
    for line in &mut lines {
        let this = family(line);
        rank = if before == Some(this) { rank + 1 } else { 0 };
        before = Some(this);
        line.share = SHARES.get(rank).copied().unwrap_or(0);
        line.adds = line.left.times(line.share);
    }
    lines
}

/// The scores that lines add up to.
pub fn scores(reasons: &Reasons, lines: &[Line]) -> Scores {
    let mut scores = Scores::default();
    for line in lines {
        let reason = reasons.row(line.reason);
        let axis = &mut scores.0[reason.axis as usize];
        axis.sum += u64::from(line.adds.thousandths());
        let agrees = line.left >= AGREES;
        axis.certain |= agrees && reason.certain;
        // The strongest of a family has the whole share.
        axis.families += u32::from(agrees && line.share == SHARES[0]);
    }
    for axis in &mut scores.0 {
        axis.score = Milli::saturating(axis.sum);
    }
    scores
}

/// The scores at a moment.
pub fn at(reasons: &Reasons, ledger: &Ledger, at_ms: i64, whose: Whose) -> Scores {
    scores(reasons, &lines(reasons, ledger, at_ms, whose))
}

/// The first moment after `from_ms` at which no contribution is left.
pub fn is_gone(reasons: &Reasons, ledger: &Ledger, from_ms: i64) -> i64 {
    let live = ledger.held.iter().filter_map(|held| reasons.get(held.reason).map(|(_, reason)| (held, reason)));
    let gone = |(held, reason): (&Held, &Reason)| {
        let by_ms = held.at_ms.saturating_add(reason.half_life_ms.saturating_mul(GONE_AFTER_HALF_LIVES));
        first(held.at_ms.min(from_ms), by_ms, |at_ms| left(held, reason, at_ms) < Milli::LEAST)
    };
    live.filter(|(_, reason)| reason.is_live).map(gone).max().unwrap_or(from_ms).max(from_ms.saturating_add(1))
}

/// The first moment after `from_ms` at which the risk score is below `points`, if nothing comes in between. `points` is above 0.
pub fn falls_below(reasons: &Reasons, ledger: &Ledger, from_ms: i64, points: u8) -> i64 {
    let falling = Falling::of(reasons, ledger);
    first(from_ms, is_gone(reasons, ledger, from_ms), |at_ms| falling.risk(at_ms) < points.max(1))
}

/// The live contributions of a ledger by family, for looking at many moments.
struct Falling<'a>(Vec<(&'a Held, &'a Reason)>);

impl<'a> Falling<'a> {
    fn of(reasons: &'a Reasons, ledger: &'a Ledger) -> Falling<'a> {
        let mut rows: Vec<_> = ledger.held.iter().filter_map(|held| Some((held, reasons.get(held.reason)?.1))).collect();
        rows.retain(|(_, reason)| reason.is_live);
        rows.sort_by_key(|(_, reason)| (reason.axis, reason.family));
        Falling(rows)
    }

    /// The risk score at a moment: what [`scores`] says of it.
    fn risk(&self, at_ms: i64) -> u8 {
        let mut sums = [0u64; Axis::ALL.len()];
        for family in self.0.chunk_by(|(_, a), (_, b)| (a.axis, a.family) == (b.axis, b.family)) {
            let mut strongest = [Milli::ZERO; SHARES.len()];
            for (held, reason) in family {
                let mut left = left(held, reason, at_ms);
                if left >= Milli::LEAST {
                    // Each place keeps the stronger and hands on the weaker.
                    strongest.iter_mut().for_each(|place| (*place, left) = ((*place).max(left), (*place).min(left)));
                }
            }
            let sum: u64 = strongest.iter().zip(SHARES).map(|(left, share)| u64::from(left.times(share).thousandths())).sum();
            sums[family[0].1.axis as usize] += sum;
        }
        sums.into_iter().map(|sum| Milli::saturating(sum).points()).max().unwrap_or(0)
    }
}

/// The first moment after `from_ms` for which `holds`; it holds at `by_ms`, and from then on once it does.
fn first(from_ms: i64, by_ms: i64, holds: impl Fn(i64) -> bool) -> i64 {
    let (mut not_yet, mut holds_at) = (from_ms, by_ms.max(from_ms.saturating_add(1)));
    while holds_at.saturating_sub(not_yet) > 1 {
        let middle = not_yet.midpoint(holds_at);
        if holds(middle) { holds_at = middle } else { not_yet = middle }
    }
    holds_at
}
