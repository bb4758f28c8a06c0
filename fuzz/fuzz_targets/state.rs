//! Any bytes as an actor state: read or refused; what was read is written and read back the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tripline_core::state::ActorState;

fuzz_target!(|bytes: &[u8]| {
    let _ = (ActorState::decode_delete_after(bytes), ActorState::decode_next_due(bytes));
    let Ok(mut state) = ActorState::decode(bytes) else { return };
    let mut written = Vec::new();
    state.encode(&mut written);
    // Slots that no longer matter are left out once; after that nothing changes any more.
    let mut again = ActorState::decode(&written).expect("own bytes are read");
    let mut rewritten = Vec::new();
    again.encode(&mut rewritten);
    assert_eq!(written, rewritten);
    for target in [&mut state, &mut again] {
        while target.take_due(i64::MAX).is_some() {}
        assert_eq!(target.next_due_ms(), None);
    }
});
