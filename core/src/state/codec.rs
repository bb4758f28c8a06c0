//! The bytes of an actor state. Little-endian base-128 varints, zigzag for signed, times as differences.
//!
//! Version 3, what [`ActorState::encode`] writes: a header with what is needed without the slots, then the slots, each with
//! a byte that says what it has, then what its detector remembers; then what is held against the entity ([`ledger`]).
//! Version 2 is the same without the last part. Version 1 is still read, too ([`version_1`]).

pub(super) mod ledger;
mod version_1;

use super::{ActorState, Cell, Edge, Memory, Pending, Ring, Run, Slot, Step};

/// Version written by this binary. A new layout gets a new number; none is ever reused.
const VERSION: u8 = 3;
/// The version that differs from it by what is held against the entity alone, which it does not have.
const WITHOUT_LEDGER: u8 = 2;

/// Parts of the header that are there.
mod header {
    pub const NEWEST: u8 = 1;
    pub const DUE: u8 = 2;
    pub const WINDOWS: u8 = 4;
    pub const WINDOWS_SINCE: u8 = 8;
    pub const LEDGER: u8 = 16;
}

/// Parts of a slot that are there; the three bits above them are the kind of memory.
mod part {
    pub const SUB: u8 = 1;
    pub const ON: u8 = 2;
    pub const FIRED: u8 = 4;
    pub const SUPPRESSED: u8 = 8;
    pub const WARM: u8 = 16;
}

/// Why stored bytes could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// Written by a newer binary.
    #[error("actor state of version {0}, this binary reads 1 to 3: it was written by a newer tripline")]
    UnknownVersion(u8),
    /// Cut short, or not a state at all.
    #[error("actor state is damaged")]
    Damaged,
}

impl ActorState {
    /// Appends the bytes. Slots that no longer matter are left out.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let due = self.next_due_ms();
        let has = |part: u8, there: bool| if there { part } else { 0 };
        out.push(VERSION);
        out.push(
            has(header::NEWEST, self.newest_ms.is_some())
                | has(header::DUE, due.is_some())
                | has(header::WINDOWS, self.windows != 0)
                | has(header::WINDOWS_SINCE, self.windows_since_ms != i64::MIN && self.windows != 0)
                | has(header::LEDGER, self.ledger.is_some()),
        );
        let base = self.newest_ms.unwrap_or(0);
        if let Some(newest) = self.newest_ms {
            signed(out, newest);
        }
        signed(out, self.delete_after_ms.wrapping_sub(base));
        if let Some(due) = due {
            signed(out, due.wrapping_sub(base));
        }
        signed(out, self.expire_at_ms.wrapping_sub(base));
        if self.windows != 0 {
            out.extend_from_slice(&self.windows.to_le_bytes());
            if self.windows_since_ms != i64::MIN {
                signed(out, self.windows_since_ms.wrapping_sub(base));
            }
        }
        varint(out, self.seen.len() as u64);
        for id in &self.seen {
            out.extend_from_slice(&id.to_le_bytes());
        }
        varint(out, self.slots.iter().filter(|slot| self.is_live(slot)).count() as u64);
        for slot in self.slots.iter().filter(|slot| self.is_live(slot)) {
            encode_slot(out, base, slot);
        }
        if let Some(ledger) = &self.ledger {
            ledger::encode(out, base, ledger);
        }
    }

    /// Reads what [`ActorState::encode`] wrote, in this or an earlier version.
    pub fn decode(bytes: &[u8]) -> Result<ActorState, StateError> {
        let mut input = Input(bytes);
        let state = match input.byte()? {
            1 => version_1::decode(&mut input)?,
            version @ (WITHOUT_LEDGER | VERSION) => decode(&mut input, version)?,
            other => return Err(StateError::UnknownVersion(other)),
        };
        if !input.0.is_empty() || !state.slots.is_sorted_by(|a, b| (a.rule, a.sub) < (b.rule, b.sub)) {
            return Err(StateError::Damaged);
        }
        Ok(state)
    }

    /// Reads only from when on the state may be deleted: what the sweep needs to know. `i64::MAX` while something waits.
    pub fn decode_delete_after(bytes: &[u8]) -> Result<i64, StateError> {
        let mut input = Input(bytes);
        match input.byte()? {
            1 => version_1::decode_delete_after(&mut input),
            WITHOUT_LEDGER | VERSION => {
                let head = Header::read(&mut input)?;
                Ok(if head.due_ms.is_some() { i64::MAX } else { head.delete_after_ms })
            }
            other => Err(StateError::UnknownVersion(other)),
        }
    }

    /// Reads only the earliest time that something in the state waits for.
    pub fn decode_next_due(bytes: &[u8]) -> Result<Option<i64>, StateError> {
        let mut input = Input(bytes);
        match input.byte()? {
            1 => Ok(None),
            WITHOUT_LEDGER | VERSION => Ok(Header::read(&mut input)?.due_ms),
            other => Err(StateError::UnknownVersion(other)),
        }
    }
}

/// The beginning of a state, up to what is asked without reading it whole.
struct Header {
    has: u8,
    newest_ms: Option<i64>,
    delete_after_ms: i64,
    due_ms: Option<i64>,
}

impl Header {
    fn read(input: &mut Input<'_>) -> Result<Header, StateError> {
        let has = input.byte()?;
        let newest_ms = if has & header::NEWEST != 0 { Some(input.signed()?) } else { None };
        let base = newest_ms.unwrap_or(0);
        let delete_after_ms = input.time(base)?;
        let due_ms = if has & header::DUE != 0 { Some(input.time(base)?) } else { None };
        Ok(Header { has, newest_ms, delete_after_ms, due_ms })
    }
}

fn decode(input: &mut Input<'_>, version: u8) -> Result<ActorState, StateError> {
    let Header { has, newest_ms, delete_after_ms, .. } = Header::read(input)?;
    if version == WITHOUT_LEDGER && has & header::LEDGER != 0 {
        return Err(StateError::Damaged);
    }
    let base = newest_ms.unwrap_or(0);
    let expire_at_ms = input.time(base)?;
    let windows = if has & header::WINDOWS != 0 { input.eight()? } else { 0 };
    let windows_since_ms = match (has & header::WINDOWS_SINCE != 0, windows) {
        (true, _) => input.time(base)?,
        (false, 0) => 0,
        (false, _) => i64::MIN,
    };
    let seen = (0..input.length(8)?).map(|_| input.eight()).collect::<Result<_, _>>()?;
    let slots = (0..input.length(11)?).map(|_| decode_slot(input, base)).collect::<Result<_, _>>()?;
    let ledger = if has & header::LEDGER != 0 { Some(Box::new(ledger::decode(input, base)?)) } else { None };
    Ok(ActorState { newest_ms, expire_at_ms, delete_after_ms, windows, windows_since_ms, seen, slots, ledger, changed: false })
}

/// The kind of a memory: frozen numbers; 7 is left for a longer form.
fn kind(memory: &Memory) -> u8 {
    match memory {
        Memory::Nothing => 0,
        Memory::Fixed { .. } => 1,
        Memory::Window { .. } => 2,
        Memory::Distinct { .. } => 3,
        Memory::Rate { .. } => 4,
        Memory::Sequence { .. } => 5,
        Memory::FirstSeen { .. } => 6,
    }
}

fn encode_slot(out: &mut Vec<u8>, base: i64, slot: &Slot) {
    let Edge { on, fired_ms, suppressed } = slot.edge;
    let has = |part: u8, there: bool| if there { part } else { 0 };
    out.extend_from_slice(&slot.rule.to_le_bytes());
    out.push(
        kind(&slot.memory) << 5
            | has(part::SUB, slot.sub != 0)
            | has(part::ON, on)
            | has(part::FIRED, fired_ms != i64::MIN)
            | has(part::SUPPRESSED, suppressed != 0)
            | has(part::WARM, slot.warm_ms != i64::MIN),
    );
    if slot.sub != 0 {
        out.extend_from_slice(&slot.sub.to_le_bytes());
    }
    signed(out, slot.end_ms.wrapping_sub(base));
    signed(out, slot.window_ms);
    if fired_ms != i64::MIN {
        signed(out, fired_ms.wrapping_sub(base));
    }
    if suppressed != 0 {
        varint(out, suppressed.into());
    }
    if slot.warm_ms != i64::MIN {
        signed(out, slot.warm_ms.wrapping_sub(base));
    }
    encode_memory(out, base, &slot.memory);
}

fn decode_slot(input: &mut Input<'_>, base: i64) -> Result<Slot, StateError> {
    let rule = input.eight()?;
    let has = input.byte()?;
    let there = |part: u8| has & part != 0;
    let sub = if there(part::SUB) { input.eight()? } else { 0 };
    let end_ms = input.time(base)?;
    let window_ms = input.signed()?;
    let fired_ms = if there(part::FIRED) { input.time(base)? } else { i64::MIN };
    let suppressed = if there(part::SUPPRESSED) { input.small()? } else { 0 };
    let warm_ms = if there(part::WARM) { input.time(base)? } else { i64::MIN };
    let memory = decode_memory(input, has >> 5, base)?;
    Ok(Slot { rule, sub, end_ms, window_ms, warm_ms, edge: Edge { on: there(part::ON), fired_ms, suppressed }, memory })
}

fn encode_memory(out: &mut Vec<u8>, base: i64, memory: &Memory) {
    match memory {
        Memory::Nothing => {}
        Memory::Fixed { end_ms, count } => {
            signed(out, end_ms.wrapping_sub(base));
            varint(out, u64::from(*count));
        }
        Memory::Window { times_ms, rings } => {
            varint(out, times_ms.len() as u64);
            times(out, base, times_ms);
            varint(out, rings.len() as u64);
            for ring in rings {
                signed(out, ring.within_ms);
                varint(out, ring.cells.len() as u64);
                let mut before = 0;
                for cell in &ring.cells {
                    signed(out, cell.index.wrapping_sub(before));
                    signed(out, cell.amount);
                    signed(out, cell.total);
                    before = cell.index;
                }
            }
        }
        Memory::Distinct { values, times_ms } => {
            varint(out, values.len() as u64);
            values.iter().for_each(|value| out.extend_from_slice(&value.to_le_bytes()));
            times(out, base, times_ms);
        }
        Memory::Rate { arrival_us, exceeded, recent_ms } => {
            signed(out, arrival_us.wrapping_sub(base.wrapping_mul(1_000)));
            varint(out, (recent_ms.len() as u64) << 1 | u64::from(*exceeded));
            times(out, base, recent_ms);
        }
        Memory::Sequence { runs, pending } => {
            varint(out, runs.len() as u64);
            for run in runs {
                encode_run(out, base, run);
            }
            varint(out, pending.len() as u64);
            for Pending { join, opened_ms, due_ms, opening } in pending {
                out.extend_from_slice(&join.to_le_bytes());
                signed(out, opened_ms.wrapping_sub(base));
                signed(out, due_ms.wrapping_sub(base));
                varint(out, opening.len() as u64);
                out.extend_from_slice(opening);
            }
        }
        Memory::FirstSeen { since_ms, diverse_until_ms, values, times_ms } => {
            signed(out, since_ms.wrapping_sub(base));
            maybe(out, base, *diverse_until_ms);
            varint(out, values.len() as u64);
            values.iter().for_each(|value| out.extend_from_slice(&value.to_le_bytes()));
            times(out, base, times_ms);
        }
    }
}

fn encode_run(out: &mut Vec<u8>, base: i64, run: &Run) {
    out.extend_from_slice(&run.join.to_le_bytes());
    signed(out, run.newest_ms.wrapping_sub(base));
    varint(out, run.starts_ms.len() as u64);
    let mut before = run.newest_ms;
    for start in &run.starts_ms {
        signed(out, before.wrapping_sub(*start));
        before = *start;
    }
    varint(out, run.recent.len() as u64);
    let mut before = run.newest_ms;
    for step in run.recent.iter().rev() {
        signed(out, before.wrapping_sub(step.at_ms));
        varint(out, u64::from(step.matches) << 1 | u64::from(step.completed));
        before = step.at_ms;
    }
}

fn decode_memory(input: &mut Input<'_>, kind: u8, base: i64) -> Result<Memory, StateError> {
    Ok(match kind {
        0 => Memory::Nothing,
        1 => Memory::Fixed { end_ms: input.time(base)?, count: input.small()? },
        2 => {
            let count = input.length(1)?;
            let times_ms = input.times(count, base)?;
            let rings = (0..input.length(2)?).map(|_| decode_ring(input)).collect::<Result<_, _>>()?;
            Memory::Window { times_ms, rings }
        }
        3 => {
            let count = input.length(9)?;
            let values = (0..count).map(|_| input.eight()).collect::<Result<_, _>>()?;
            Memory::Distinct { values, times_ms: input.times(count, base)? }
        }
        4 => {
            let arrival_us = input.time(base.wrapping_mul(1_000))?;
            let word = input.varint()?;
            let count = input.fitting(word >> 1, 1)?;
            Memory::Rate { arrival_us, exceeded: word & 1 == 1, recent_ms: input.times(count, base)? }
        }
        5 => {
            let runs = (0..input.length(11)?).map(|_| decode_run(input, base)).collect::<Result<_, _>>()?;
            let pending = (0..input.length(11)?).map(|_| decode_pending(input, base)).collect::<Result<_, _>>()?;
            Memory::Sequence { runs, pending }
        }
        6 => {
            let since_ms = input.time(base)?;
            let diverse_until_ms = input.maybe(base)?;
            let count = input.length(5)?;
            let values = (0..count).map(|_| input.four()).collect::<Result<_, _>>()?;
            Memory::FirstSeen { since_ms, diverse_until_ms, values, times_ms: input.times(count, base)? }
        }
        _ => return Err(StateError::Damaged),
    })
}

fn decode_ring(input: &mut Input<'_>) -> Result<Ring, StateError> {
    let within_ms = input.signed()?;
    let mut before = 0;
    let cells = (0..input.length(3)?).map(|_| {
        let index = input.time(before)?;
        before = index;
        Ok(Cell { index, amount: input.signed()?, total: input.signed()? })
    });
    Ok(Ring { within_ms, cells: cells.collect::<Result<_, _>>()? })
}

fn decode_run(input: &mut Input<'_>, base: i64) -> Result<Run, StateError> {
    let join = input.eight()?;
    let newest_ms = input.time(base)?;
    let mut before = newest_ms;
    let mut earlier = |input: &mut Input<'_>| {
        before = before.wrapping_sub(input.signed()?);
        Ok(before)
    };
    let starts_ms = (0..input.length(1)?).map(|_| earlier(input)).collect::<Result<_, _>>()?;
    let count = input.length(2)?;
    let mut before = newest_ms;
    let step = |_| {
        before = before.wrapping_sub(input.signed()?);
        let word = input.varint()?;
        let matches = u16::try_from(word >> 1).map_err(|_| StateError::Damaged)?;
        Ok(Step { at_ms: before, matches, completed: word & 1 == 1 })
    };
    let mut recent: Vec<Step> = (0..count).map(step).collect::<Result<_, _>>()?;
    recent.reverse();
    Ok(Run { join, newest_ms, starts_ms, recent })
}

fn decode_pending(input: &mut Input<'_>, base: i64) -> Result<Pending, StateError> {
    let (join, opened_ms, due_ms) = (input.eight()?, input.time(base)?, input.time(base)?);
    let length = input.length(1)?;
    let (opening, rest) = input.0.split_at(length);
    input.0 = rest;
    Ok(Pending { join, opened_ms, due_ms, opening: opening.into() })
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn signed(out: &mut Vec<u8>, value: i64) {
    varint(out, ((value << 1) ^ (value >> 63)) as u64);
}

/// Times in ascending order: from the newest back, each as its distance from the one after it.
fn times(out: &mut Vec<u8>, base: i64, times_ms: &[i64]) {
    let mut before = base;
    for time in times_ms.iter().rev() {
        signed(out, before.wrapping_sub(*time));
        before = *time;
    }
}

/// A time, or `i64::MIN` for none.
fn maybe(out: &mut Vec<u8>, base: i64, time_ms: i64) {
    out.push(u8::from(time_ms != i64::MIN));
    if time_ms != i64::MIN {
        signed(out, time_ms.wrapping_sub(base));
    }
}

/// The rest of the bytes.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> Result<u8, StateError> {
        let (first, rest) = self.0.split_first().ok_or(StateError::Damaged)?;
        self.0 = rest;
        Ok(*first)
    }

    fn varint(&mut self) -> Result<u64, StateError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(StateError::Damaged)
    }

    fn small(&mut self) -> Result<u32, StateError> {
        u32::try_from(self.varint()?).map_err(|_| StateError::Damaged)
    }

    fn signed(&mut self) -> Result<i64, StateError> {
        let value = self.varint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    fn time(&mut self, base: i64) -> Result<i64, StateError> {
        Ok(base.wrapping_add(self.signed()?))
    }

    fn maybe(&mut self, base: i64) -> Result<i64, StateError> {
        match self.byte()? {
            0 => Ok(i64::MIN),
            1 => self.time(base),
            _ => Err(StateError::Damaged),
        }
    }

    fn times(&mut self, count: usize, base: i64) -> Result<Vec<i64>, StateError> {
        let mut before = base;
        let mut times_ms = Vec::with_capacity(count);
        for _ in 0..count {
            before = before.wrapping_sub(self.signed()?);
            times_ms.push(before);
        }
        times_ms.reverse();
        Ok(times_ms)
    }

    fn eight(&mut self) -> Result<u64, StateError> {
        let (eight, rest) = self.0.split_first_chunk::<8>().ok_or(StateError::Damaged)?;
        self.0 = rest;
        Ok(u64::from_le_bytes(*eight))
    }

    fn sixteen(&mut self) -> Result<[u8; 16], StateError> {
        let (sixteen, rest) = self.0.split_first_chunk::<16>().ok_or(StateError::Damaged)?;
        self.0 = rest;
        Ok(*sixteen)
    }

    fn four(&mut self) -> Result<u32, StateError> {
        let (four, rest) = self.0.split_first_chunk::<4>().ok_or(StateError::Damaged)?;
        self.0 = rest;
        Ok(u32::from_le_bytes(*four))
    }

    /// A count of things of at least `size` bytes each: never more than the rest can hold, so that damage cannot ask for memory.
    fn length(&mut self, size: usize) -> Result<usize, StateError> {
        let count = self.varint()?;
        self.fitting(count, size)
    }

    fn fitting(&self, count: u64, size: usize) -> Result<usize, StateError> {
        if count > (self.0.len() / size) as u64 { Err(StateError::Damaged) } else { Ok(count as usize) }
    }
}

#[cfg(test)]
mod tests;
