//! States as the first release wrote them. Read only.

use super::{ActorState, Edge, Input, Memory, Slot, StateError};

/// Reads what follows the version.
pub(super) fn decode(input: &mut Input<'_>) -> Result<ActorState, StateError> {
    let newest = input.signed()?;
    if newest == i64::MIN {
        return Ok(ActorState::default());
    }
    let expire_at_ms = input.time(newest)?;
    let delete_after_ms = input.time(newest)?;
    let seen = (0..input.length(8)?).map(|_| input.eight()).collect::<Result<_, _>>()?;
    let slots = (0..input.length(10)?).map(|_| decode_slot(input, newest)).collect::<Result<_, _>>()?;
    Ok(ActorState { newest_ms: Some(newest), expire_at_ms, delete_after_ms, seen, slots, ..ActorState::default() })
}

/// Reads only from when on the state may be deleted.
pub(super) fn decode_delete_after(input: &mut Input<'_>) -> Result<i64, StateError> {
    match input.signed()? {
        i64::MIN => Ok(i64::MIN),
        newest => {
            input.signed()?;
            input.time(newest)
        }
    }
}

fn decode_slot(input: &mut Input<'_>, newest: i64) -> Result<Slot, StateError> {
    let rule = input.eight()?;
    let tag = input.byte()?;
    let sub = if tag & 1 == 1 { input.eight()? } else { 0 };
    let end_ms = input.time(newest)?;
    let mut edge = Edge::default();
    let memory = match tag >> 1 {
        0 => {
            // It fired when its count was the threshold, and wrote that down nowhere. Below it this means nothing.
            edge.on = true;
            Memory::Fixed { end_ms, count: input.small()? }
        }
        1 => {
            let header = input.varint()?;
            edge.on = header & 1 == 1;
            let count = (header >> 1) as usize;
            if count > input.0.len() {
                return Err(StateError::Damaged);
            }
            let times_ms = input.times(count, newest)?;
            edge.fired_ms = match input.signed()? {
                i64::MIN => i64::MIN,
                difference => newest.wrapping_add(difference),
            };
            Memory::Window { times_ms, rings: Vec::new() }
        }
        2 => {
            edge.fired_ms = input.time(newest)?;
            Memory::Nothing
        }
        _ => return Err(StateError::Damaged),
    };
    // The first release did not write down how far its rules looked back: they are taken to look as far as they do now.
    Ok(Slot { rule, sub, end_ms, window_ms: i64::MAX, warm_ms: i64::MIN, edge, memory })
}
