//! The bytes of an actor state. Version 1: little-endian base-128 varints, zigzag for signed, times as differences.

use super::{ActorState, Memory, SLOT_GRACE_MS, Slot};

/// Version written by this binary. A new layout gets a new number; none is ever reused.
const VERSION: u8 = 1;

/// Why stored bytes could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// Written by a newer binary.
    #[error("actor state of version {0}, this binary reads 1: it was written by a newer tripline")]
    UnknownVersion(u8),
    /// Cut short, or not a state at all.
    #[error("actor state is damaged")]
    Damaged,
}

impl ActorState {
    /// Appends the bytes. Slots that no longer matter are left out.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        let newest = self.newest_ms.unwrap_or(i64::MIN);
        signed(out, newest);
        let Some(newest) = self.newest_ms else { return };
        signed(out, self.expire_at_ms.wrapping_sub(newest));
        signed(out, self.delete_after_ms.wrapping_sub(newest));
        varint(out, self.seen.len() as u64);
        for id in &self.seen {
            out.extend_from_slice(&id.to_le_bytes());
        }
        let live = |slot: &&Slot| slot.memory.end_ms().saturating_add(SLOT_GRACE_MS) > newest;
        varint(out, self.slots.iter().filter(live).count() as u64);
        for slot in self.slots.iter().filter(live) {
            out.extend_from_slice(&slot.rule.to_le_bytes());
            out.push(tag(slot));
            if slot.sub != 0 {
                out.extend_from_slice(&slot.sub.to_le_bytes());
            }
            signed(out, slot.memory.end_ms().wrapping_sub(newest));
            match &slot.memory {
                Memory::Fixed { count, .. } => varint(out, u64::from(*count)),
                Memory::Fired { at_ms, .. } => signed(out, at_ms.wrapping_sub(newest)),
                Memory::Sliding { times_ms, on, fired_ms, .. } => {
                    varint(out, (times_ms.len() as u64) << 1 | u64::from(*on));
                    let mut before = newest;
                    for time in times_ms.iter().rev() {
                        signed(out, before.wrapping_sub(*time));
                        before = *time;
                    }
                    signed(out, if *fired_ms == i64::MIN { i64::MIN } else { fired_ms.wrapping_sub(newest) });
                }
            }
        }
    }

    /// Reads what [`ActorState::encode`] wrote, in this or an earlier version.
    pub fn decode(bytes: &[u8]) -> Result<ActorState, StateError> {
        let mut input = Input(bytes);
        match input.byte()? {
            VERSION => {}
            other => return Err(StateError::UnknownVersion(other)),
        }
        let newest = input.signed()?;
        if newest == i64::MIN {
            return input.end(ActorState::default());
        }
        let expire_at_ms = newest.wrapping_add(input.signed()?);
        let delete_after_ms = newest.wrapping_add(input.signed()?);
        let seen = (0..input.length(8)?).map(|_| input.eight()).collect::<Result<_, _>>()?;
        let slots: Vec<Slot> = (0..input.length(10)?).map(|_| input.slot(newest)).collect::<Result<_, _>>()?;
        if !slots.is_sorted_by(|a, b| (a.rule, a.sub) < (b.rule, b.sub)) {
            return Err(StateError::Damaged);
        }
        input.end(ActorState { newest_ms: Some(newest), expire_at_ms, delete_after_ms, seen, slots, changed: false })
    }

    /// Reads only from when on the state may be deleted: what the sweep needs to know.
    pub fn decode_delete_after(bytes: &[u8]) -> Result<i64, StateError> {
        let mut input = Input(bytes);
        match input.byte()? {
            VERSION => {}
            other => return Err(StateError::UnknownVersion(other)),
        }
        match input.signed()? {
            i64::MIN => Ok(i64::MIN),
            newest => {
                input.signed()?;
                Ok(newest.wrapping_add(input.signed()?))
            }
        }
    }
}

fn tag(slot: &Slot) -> u8 {
    let kind = match slot.memory {
        Memory::Fixed { .. } => 0,
        Memory::Sliding { .. } => 1,
        Memory::Fired { .. } => 2,
    };
    kind << 1 | u8::from(slot.sub != 0)
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

    fn signed(&mut self) -> Result<i64, StateError> {
        let value = self.varint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    fn eight(&mut self) -> Result<u64, StateError> {
        let (eight, rest) = self.0.split_first_chunk::<8>().ok_or(StateError::Damaged)?;
        self.0 = rest;
        Ok(u64::from_le_bytes(*eight))
    }

    /// A count of things of at least `size` bytes each: never more than the rest can hold, so that damage cannot ask for memory.
    fn length(&mut self, size: usize) -> Result<usize, StateError> {
        let count = self.varint()? as usize;
        if count > self.0.len() / size { Err(StateError::Damaged) } else { Ok(count) }
    }

    fn slot(&mut self, newest: i64) -> Result<Slot, StateError> {
        let rule = self.eight()?;
        let tag = self.byte()?;
        let sub = if tag & 1 == 1 { self.eight()? } else { 0 };
        let end_ms = newest.wrapping_add(self.signed()?);
        let memory = match tag >> 1 {
            0 => Memory::Fixed { end_ms, count: u32::try_from(self.varint()?).map_err(|_| StateError::Damaged)? },
            1 => {
                let header = self.varint()?;
                let count = (header >> 1) as usize;
                if count > self.0.len() {
                    return Err(StateError::Damaged);
                }
                let mut before = newest;
                let mut times_ms = Vec::with_capacity(count);
                for _ in 0..count {
                    before = before.wrapping_sub(self.signed()?);
                    times_ms.push(before);
                }
                times_ms.reverse();
                let fired_ms = match self.signed()? {
                    i64::MIN => i64::MIN,
                    difference => newest.wrapping_add(difference),
                };
                Memory::Sliding { times_ms, end_ms, on: header & 1 == 1, fired_ms }
            }
            2 => Memory::Fired { at_ms: newest.wrapping_add(self.signed()?), end_ms },
            _ => return Err(StateError::Damaged),
        };
        Ok(Slot { rule, sub, memory })
    }

    fn end(&self, state: ActorState) -> Result<ActorState, StateError> {
        if self.0.is_empty() { Ok(state) } else { Err(StateError::Damaged) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn memory() -> impl Strategy<Value = Memory> {
        let time = 1_700_000_000_000i64..1_700_000_100_000;
        prop_oneof![
            (time.clone(), any::<u32>()).prop_map(|(end_ms, count)| Memory::Fixed { end_ms, count }),
            (time.clone(), time.clone()).prop_map(|(at_ms, end_ms)| Memory::Fired { at_ms, end_ms }),
            (proptest::collection::vec(time.clone(), 0..68), time.clone(), any::<bool>(), proptest::option::of(time)).prop_map(
                |(mut times_ms, end_ms, on, fired)| {
                    times_ms.sort_unstable();
                    Memory::Sliding { times_ms, end_ms, on, fired_ms: fired.unwrap_or(i64::MIN) }
                }
            ),
        ]
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(memories in proptest::collection::vec((0u64..4, 0u64..5, memory()), 0..12), seen in proptest::collection::vec(any::<u64>(), 0..16)) {
            let mut state = ActorState::default();
            for id in seen {
                state.remember(id, 16);
            }
            // All slots still matter at the newest event, so none is left out.
            state.note(1_700_000_000_000, 600_000);
            state.keep(1_700_000_000_000, 1_800_000_000_000);
            for (rule, sub, memory) in memories {
                state.put(rule, sub, memory, 64);
            }
            let mut bytes = Vec::new();
            state.encode(&mut bytes);
            state.changed = false;
            prop_assert_eq!(ActorState::decode_delete_after(&bytes), Ok(1_800_000_600_000));
            prop_assert_eq!(ActorState::decode(&bytes), Ok(state));
            prop_assert_eq!(ActorState::decode(&bytes[..bytes.len() - 1]), Err(StateError::Damaged));
        }

        #[test]
        fn any_bytes_are_read_or_refused(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), versioned in any::<bool>()) {
            if versioned && !bytes.is_empty() {
                bytes[0] = VERSION;
            }
            let _ = ActorState::decode(&bytes);
        }
    }

    /// Bytes written by the first release: they must be readable for ever (promise 10).
    #[test]
    fn golden_version_1() {
        let mut state = ActorState::default();
        state.note(1_700_000_000_000, 600_000);
        state.keep(1_700_000_000_000, 1_700_000_000_500);
        state.remember(0x0102_0304_0506_0708, 16);
        state.put(7, 0, Memory::Fixed { end_ms: 1_700_000_060_000, count: 20 }, 64);
        state.put(
            7,
            9,
            Memory::Sliding {
                times_ms: vec![1_699_999_990_000, 1_700_000_000_000],
                end_ms: 1_700_000_060_000,
                on: true,
                fired_ms: i64::MIN,
            },
            64,
        );
        state.put(8, 0, Memory::Fired { at_ms: 1_700_000_000_000, end_ms: 1_700_000_060_000 }, 64);
        let mut bytes = Vec::new();
        state.encode(&mut bytes);
        state.changed = false;
        let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, include_str!("golden_v1.hex").trim());
        assert_eq!(ActorState::decode(&bytes), Ok(state));
    }

    #[test]
    fn a_newer_version_is_refused_by_name() {
        assert_eq!(ActorState::decode(&[9, 0]), Err(StateError::UnknownVersion(9)));
    }
}
