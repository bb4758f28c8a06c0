//! The bytes of what is held against an entity. Part of version 3 of the state; frozen with it.

use super::{Input, StateError, signed, varint};
use crate::firing::{Figure, Firing};
use crate::policy::Action;
use crate::rule::Severity;
use crate::score::{Axis, Milli};
use crate::state::{Episode, Force, Held, Ledger};
use uuid::Uuid;

/// Parts that are there.
mod part {
    pub const PUBLISHED: u8 = 1;
    pub const DUE: u8 = 2;
    pub const AS_OF: u8 = 4;
}

/// The most bytes of one contribution: reason (8), points (3), time (6), kind (1), count (5), window (6), figure (10).
pub const HELD_BYTES: usize = 8 + 3 + 6 + 1 + 5 + 6 + 10;
/// The most bytes of everything besides contributions and alerts: parts (1), two times (6 each), three counts (3 each), four actions of
/// action and mark (1), two times (6 each) and offences (2).
pub const REST_BYTES: usize = 1 + 2 * 6 + 3 * 3 + 4 * (1 + 2 * 6 + 2);
/// The most bytes of one alert: key (8), id (16), three times (6 each) and whether one is there (1), two counts (5 each), severity and action (1).
pub const EPISODE_BYTES: usize = 8 + 16 + 3 * 6 + 1 + 2 * 5 + 1;

pub(super) fn encode(out: &mut Vec<u8>, base: i64, ledger: &Ledger) {
    let has = |part: u8, there: bool| if there { part } else { 0 };
    out.push(
        has(part::PUBLISHED, ledger.published) | has(part::DUE, ledger.due_ms.is_some()) | has(part::AS_OF, ledger.as_of_ms != i64::MIN),
    );
    if let Some(due_ms) = ledger.due_ms {
        signed(out, due_ms.wrapping_sub(base));
    }
    if ledger.as_of_ms != i64::MIN {
        signed(out, ledger.as_of_ms.wrapping_sub(base));
    }
    varint(out, ledger.held.len() as u64);
    for held in &ledger.held {
        out.extend_from_slice(&held.reason.to_le_bytes());
        varint(out, held.points.thousandths().into());
        signed(out, held.at_ms.wrapping_sub(base));
        let (kind, value) = figure(held.firing.figure);
        out.push(kind);
        varint(out, held.firing.count);
        signed(out, held.firing.within_ms);
        if let Some(value) = value {
            signed(out, value);
        }
    }
    varint(out, ledger.forces.len() as u64);
    for force in &ledger.forces {
        out.push((force.action as u8) << 1 | u8::from(force.on));
        signed(out, force.since_ms.wrapping_sub(base));
        signed(out, force.until_ms.wrapping_sub(base));
        varint(out, force.offences.into());
    }
    varint(out, ledger.episodes.len() as u64);
    for episode in &ledger.episodes {
        out.extend_from_slice(&episode.key.to_le_bytes());
        out.extend_from_slice(episode.id.as_bytes());
        signed(out, episode.opened_ms.wrapping_sub(base));
        signed(out, episode.told_ms.wrapping_sub(base));
        let ends = episode.until_ms != i64::MAX;
        out.push(u8::from(ends));
        if ends {
            signed(out, episode.until_ms.wrapping_sub(base));
        }
        varint(out, episode.decisions.into());
        varint(out, episode.folded.into());
        out.push((episode.severity as u8) << 4 | episode.action as u8);
    }
}

pub(super) fn decode(input: &mut Input<'_>, base: i64) -> Result<Ledger, StateError> {
    let has = input.byte()?;
    let due_ms = if has & part::DUE != 0 { Some(input.time(base)?) } else { None };
    let as_of_ms = if has & part::AS_OF != 0 { input.time(base)? } else { i64::MIN };
    let held: Vec<Held> = (0..input.length(13)?).map(|_| decode_held(input, base)).collect::<Result<_, _>>()?;
    let forces: Vec<Force> = (0..input.length(4)?).map(|_| decode_force(input, base)).collect::<Result<_, _>>()?;
    let episodes: Vec<Episode> = (0..input.length(30)?).map(|_| decode_episode(input, base)).collect::<Result<_, _>>()?;
    let is_sorted = held.is_sorted_by(|a, b| a.reason < b.reason)
        && forces.is_sorted_by(|a, b| a.action < b.action)
        && episodes.is_sorted_by(|a, b| a.key < b.key);
    if !is_sorted || has & !(part::PUBLISHED | part::DUE | part::AS_OF) != 0 {
        return Err(StateError::Damaged);
    }
    Ok(Ledger { held, forces, episodes, published: has & part::PUBLISHED != 0, due_ms, as_of_ms })
}

fn decode_held(input: &mut Input<'_>, base: i64) -> Result<Held, StateError> {
    let reason = input.eight()?;
    let thousandths = input.varint()?;
    let points = Milli::saturating(thousandths);
    if u64::from(points.thousandths()) != thousandths {
        return Err(StateError::Damaged);
    }
    let at_ms = input.time(base)?;
    let kind = input.byte()?;
    let (count, within_ms) = (input.varint()?, input.signed()?);
    let figure = match kind {
        0 => Figure::One,
        1 => Figure::Events,
        2 => Figure::Rate,
        3 => Figure::Values,
        4 => Figure::Sum(input.signed()?),
        5 => Figure::Share(input.signed()?),
        6 => Figure::Steps,
        7 => Figure::Absence,
        8 => Figure::New,
        9 => Figure::Score(among(&Axis::ALL, input.signed()?)?),
        10 => Figure::Reported,
        _ => return Err(StateError::Damaged),
    };
    Ok(Held { reason, points, at_ms, firing: Firing { count, within_ms, figure } })
}

fn decode_force(input: &mut Input<'_>, base: i64) -> Result<Force, StateError> {
    let word = input.byte()?;
    Ok(Force {
        action: among(&Action::ALL, i64::from(word >> 1))?,
        on: word & 1 == 1,
        since_ms: input.time(base)?,
        until_ms: input.time(base)?,
        offences: u8::try_from(input.varint()?).map_err(|_| StateError::Damaged)?,
    })
}

fn decode_episode(input: &mut Input<'_>, base: i64) -> Result<Episode, StateError> {
    let (key, id) = (input.eight()?, input.sixteen()?);
    let (opened_ms, told_ms) = (input.time(base)?, input.time(base)?);
    let until_ms = match input.byte()? {
        0 => i64::MAX,
        1 => input.time(base)?,
        _ => return Err(StateError::Damaged),
    };
    let (decisions, folded, word) = (input.small()?, input.small()?, input.byte()?);
    Ok(Episode {
        key,
        id: Uuid::from_bytes(id),
        opened_ms,
        told_ms,
        until_ms,
        decisions,
        folded,
        severity: among(&[Severity::Low, Severity::Medium, Severity::High, Severity::Critical], i64::from(word >> 4))?,
        action: among(&Action::ALL, i64::from(word & 0x0f))?,
    })
}

fn among<T: Copy>(all: &[T], index: i64) -> Result<T, StateError> {
    usize::try_from(index).ok().and_then(|index| all.get(index)).copied().ok_or(StateError::Damaged)
}

/// The kind of a figure (frozen numbers), and its value.
fn figure(figure: Figure) -> (u8, Option<i64>) {
    match figure {
        Figure::One => (0, None),
        Figure::Events => (1, None),
        Figure::Rate => (2, None),
        Figure::Values => (3, None),
        Figure::Sum(sum) => (4, Some(sum)),
        Figure::Share(share) => (5, Some(share)),
        Figure::Steps => (6, None),
        Figure::Absence => (7, None),
        Figure::New => (8, None),
        Figure::Score(axis) => (9, Some(axis as i64)),
        Figure::Reported => (10, None),
    }
}
