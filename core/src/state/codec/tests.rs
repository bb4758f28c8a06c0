use super::super::*;
use super::VERSION;
use crate::firing::{Figure, Firing};
use crate::policy::Action;
use crate::rule::Severity;
use crate::score::{Axis, Milli};
use proptest::prelude::*;

const NOW: i64 = 1_700_000_000_000;

fn time() -> impl Strategy<Value = i64> + Clone {
    NOW..NOW + 100_000
}

fn maybe_time() -> impl Strategy<Value = i64> {
    proptest::option::of(time()).prop_map(|time| time.unwrap_or(i64::MIN))
}

fn times(most: usize) -> impl Strategy<Value = Vec<i64>> {
    proptest::collection::vec(time(), 0..most).prop_map(|mut times| {
        times.sort_unstable();
        times
    })
}

fn ring() -> impl Strategy<Value = Ring> {
    let cell = (1i64..50, any::<i64>(), any::<i64>());
    (1i64..100_000, proptest::collection::vec(cell, 0..60)).prop_map(|(within_ms, gaps)| {
        let cells = gaps.iter().scan(NOW / within_ms, |index, (gap, amount, total)| {
            *index += gap;
            Some(Cell { index: *index, amount: *amount, total: *total })
        });
        Ring { within_ms, cells: cells.collect() }
    })
}

fn run() -> impl Strategy<Value = Run> {
    let step = (time(), any::<u16>(), any::<bool>()).prop_map(|(at_ms, matches, completed)| Step { at_ms, matches, completed });
    (any::<u64>(), time(), proptest::collection::vec(time(), 0..9), proptest::collection::vec(step, 0..9))
        .prop_map(|(join, newest_ms, starts_ms, recent)| Run { join, newest_ms, starts_ms, recent })
}

fn pending() -> impl Strategy<Value = Pending> {
    (any::<u64>(), time(), time(), proptest::collection::vec(any::<u8>(), 0..40)).prop_map(|(join, opened_ms, due_ms, opening)| Pending {
        join,
        opened_ms,
        due_ms,
        opening: opening.into(),
    })
}

fn memory() -> impl Strategy<Value = Memory> {
    prop_oneof![
        Just(Memory::Nothing),
        (time(), any::<u32>()).prop_map(|(end_ms, count)| Memory::Fixed { end_ms, count }),
        (times(68), proptest::collection::vec(ring(), 0..3)).prop_map(|(times_ms, rings)| Memory::Window { times_ms, rings }),
        times(68).prop_map(|times_ms| Memory::Distinct { values: times_ms.iter().map(|t| *t as u64 * 77).collect(), times_ms }),
        (any::<i64>(), any::<bool>(), times(64)).prop_map(|(arrival_us, exceeded, recent_ms)| Memory::Rate {
            arrival_us,
            exceeded,
            recent_ms
        }),
        (proptest::collection::vec(run(), 0..4), proptest::collection::vec(pending(), 0..4))
            .prop_map(|(runs, pending)| Memory::Sequence { runs, pending }),
        (time(), maybe_time(), proptest::collection::vec((any::<u32>(), time()), 0..64)).prop_map(|(since_ms, diverse_until_ms, known)| {
            let (values, times_ms) = known.into_iter().unzip();
            Memory::FirstSeen { since_ms, diverse_until_ms, values, times_ms }
        }),
    ]
}

fn slot() -> impl Strategy<Value = Slot> {
    let edge = (any::<bool>(), maybe_time(), 0u32..3).prop_map(|(on, fired_ms, suppressed)| Edge { on, fired_ms, suppressed });
    (0u64..4, 0u64..5, time(), 0i64..1_000_000, maybe_time(), edge, memory())
        .prop_map(|(rule, sub, end_ms, window_ms, warm_ms, edge, memory)| Slot { rule, sub, end_ms, window_ms, warm_ms, edge, memory })
}

proptest! {
    #[test]
    fn what_was_encoded_is_decoded(slots in proptest::collection::vec(slot(), 0..12), seen in proptest::collection::vec(any::<u64>(), 0..16), windows in proptest::collection::vec(1u64..3, 0..3)) {
        let mut state = ActorState::default();
        for id in seen {
            state.remember(id, 16);
        }
        // All slots still matter at the newest event, so none is left out.
        state.note(NOW, 600_000);
        state.keep(NOW, 1_800_000_000_000);
        for hash in windows {
            state.note_windows(NOW, hash);
        }
        for slot in slots {
            state.put(slot, 64);
        }
        let mut bytes = Vec::new();
        state.encode(&mut bytes);
        state.changed = false;
        let delete_after = if state.next_due_ms().is_some() { i64::MAX } else { 1_800_000_600_000 };
        prop_assert_eq!(ActorState::decode_delete_after(&bytes), Ok(delete_after));
        prop_assert_eq!(ActorState::decode_next_due(&bytes), Ok(state.next_due_ms()));
        prop_assert_eq!(ActorState::decode(&bytes), Ok(state));
        prop_assert_eq!(ActorState::decode(&bytes[..bytes.len() - 1]), Err(StateError::Damaged));
    }

    #[test]
    fn any_bytes_are_read_or_refused(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), version in 0u8..5) {
        if let Some(first) = bytes.first_mut() {
            *first = version;
        }
        let _ = ActorState::decode(&bytes);
        let _ = ActorState::decode_next_due(&bytes);
        let _ = ActorState::decode_delete_after(&bytes);
    }
}

fn plain(rule: u64, sub: u64, end_ms: i64, memory: Memory) -> Slot {
    Slot { rule, sub, end_ms, window_ms: i64::MAX, warm_ms: i64::MIN, edge: Edge::default(), memory }
}

fn from_hex(text: &str) -> Vec<u8> {
    let text = text.trim();
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal")).collect()
}

/// Bytes written by the first release: they must be readable for ever (promise 10).
#[test]
fn golden_version_1() {
    let mut state = ActorState::default();
    state.note(NOW, 600_000);
    state.keep(NOW, NOW + 500);
    state.remember(0x0102_0304_0506_0708, 16);
    let fixed = plain(7, 0, NOW + 60_000, Memory::Fixed { end_ms: NOW + 60_000, count: 20 });
    state.put(Slot { edge: Edge { on: true, ..Edge::default() }, ..fixed }, 64);
    let window = Memory::Window { times_ms: vec![NOW - 10_000, NOW], rings: Vec::new() };
    state.put(Slot { edge: Edge { on: true, ..Edge::default() }, ..plain(7, 9, NOW + 60_000, window) }, 64);
    state.put(Slot { edge: Edge { fired_ms: NOW, ..Edge::default() }, ..plain(8, 0, NOW + 60_000, Memory::Nothing) }, 64);
    state.changed = false;
    let bytes = from_hex(include_str!("../golden_v1.hex"));
    assert_eq!(ActorState::decode_delete_after(&bytes), Ok(state.delete_after_ms));
    assert_eq!(ActorState::decode_next_due(&bytes), Ok(None));
    assert_eq!(ActorState::decode(&bytes), Ok(state));
}

/// Bytes of the second version, one slot of each kind of memory: the same in every later release.
#[test]
fn golden_version_2() {
    let mut state = ActorState::default();
    state.note(NOW, 600_000);
    state.keep(NOW, NOW + 500);
    state.note_windows(NOW, 5);
    state.note_windows(NOW, 6);
    state.remember(0x0102_0304_0506_0708, 16);
    let run = Run {
        join: 3,
        newest_ms: NOW - 1,
        starts_ms: vec![NOW - 5, NOW - 7],
        recent: vec![Step { at_ms: NOW - 1, matches: 0x8001, completed: true }],
    };
    let pending = Pending { join: 3, opened_ms: NOW - 1, due_ms: NOW + 9_000, opening: (*b"{}").into() };
    let ring = Ring { within_ms: 1_000, cells: vec![Cell { index: NOW / 1_000, amount: -5, total: 2 }] };
    let memories = [
        Memory::Nothing,
        Memory::Fixed { end_ms: NOW + 60_000, count: 20 },
        Memory::Window { times_ms: vec![NOW - 10_000, NOW], rings: vec![ring] },
        Memory::Distinct { values: vec![1, 2], times_ms: vec![NOW - 10_000, NOW] },
        Memory::Rate { arrival_us: NOW * 1_000 + 7, exceeded: true, recent_ms: vec![NOW] },
        Memory::Sequence { runs: vec![run], pending: vec![pending] },
        Memory::FirstSeen { since_ms: NOW - 1, diverse_until_ms: i64::MIN, values: vec![7], times_ms: vec![NOW] },
    ];
    for (at, memory) in memories.into_iter().enumerate() {
        let edge = Edge { on: at % 2 == 0, fired_ms: if at % 3 == 0 { NOW } else { i64::MIN }, suppressed: at as u32 % 3 };
        let warm_ms = if at == 1 { NOW + 5 } else { i64::MIN };
        state.put(Slot { rule: 7, sub: at as u64, end_ms: NOW + 60_000, window_ms: 60_000, warm_ms, edge, memory }, 64);
    }
    state.changed = false;
    let bytes = from_hex(include_str!("../golden_v2.hex"));
    assert_eq!(ActorState::decode_delete_after(&bytes), Ok(i64::MAX));
    assert_eq!(ActorState::decode_next_due(&bytes), Ok(Some(NOW + 9_000)));
    assert_eq!(ActorState::decode(&bytes), Ok(state));
}

/// Bytes of the third version: version 2 with what is held against the entity, the same in every later release.
#[test]
fn golden_version_3() {
    let mut state = ActorState::default();
    state.note(NOW, 600_000);
    state.keep(NOW, NOW + 500);
    state.put(plain(7, 0, NOW + 60_000, Memory::Nothing), 64);
    let figures = [
        Figure::One,
        Figure::Events,
        Figure::Rate,
        Figure::Values,
        Figure::Sum(-1_500),
        Figure::Share(750),
        Figure::Steps,
        Figure::Absence,
        Figure::New,
        Figure::Score(Axis::Integrity),
        Figure::Reported,
    ];
    let mut ledger = Ledger { published: true, due_ms: Some(NOW + 77), as_of_ms: NOW - 3, ..Ledger::default() };
    for (at, figure) in figures.into_iter().enumerate() {
        let firing = Firing { count: at as u64, within_ms: 1_000 * at as i64, figure };
        let points = Milli::saturating(9_000 * at as u64);
        ledger.held.push(Held { reason: at as u64 + 1, points, at_ms: NOW - at as i64, firing });
    }
    for (at, action) in Action::ALL.into_iter().enumerate() {
        let (since_ms, until_ms) = (NOW - 5, NOW + 1_000 * at as i64);
        ledger.set_force(action, Some(Force { action, on: at != 1, since_ms, until_ms, offences: at as u8 }));
    }
    let (id, severity, action) = (uuid::Uuid::from_u128(0x0102), Severity::High, Action::StepUp);
    let opened =
        Episode { key: 0, id, opened_ms: NOW - 9, told_ms: NOW - 1, until_ms: i64::MAX, decisions: 7, folded: 2, severity, action };
    ledger.open(opened);
    ledger.open(Episode { key: 9, until_ms: NOW + 3, severity: Severity::Low, action: Action::Alert, ..opened });
    state.put_ledger(Box::new(ledger));
    let mut bytes = Vec::new();
    state.encode(&mut bytes);
    state.changed = false;
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    if std::env::var_os("TRIPLINE_BLESS_NEW_LAYOUT").is_some() {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/src/state/golden_v3.hex"), format!("{hex}\n")).unwrap();
    }
    assert_eq!(hex, include_str!("../golden_v3.hex").trim());
    assert_eq!(ActorState::decode(&bytes), Ok(state.clone()));
    assert_eq!(ActorState::decode_next_due(&bytes), Ok(Some(NOW + 77)));
    let mut as_version_2 = bytes;
    as_version_2[0] = 2;
    assert_eq!(ActorState::decode(&as_version_2), Err(StateError::Damaged), "the version before had no such part");
}

fn ledger() -> impl Strategy<Value = Ledger> {
    let figure = prop_oneof![Just(Figure::Events), any::<i64>().prop_map(Figure::Sum), Just(Figure::Score(Axis::Abuse))];
    let held = (any::<u64>(), 500u64..=100_000, time(), any::<u64>(), any::<i64>(), figure).prop_map(
        |(reason, points, at_ms, count, within_ms, figure)| Held {
            reason,
            points: Milli::saturating(points),
            at_ms,
            firing: Firing { count, within_ms, figure },
        },
    );
    let force = (0usize..4, any::<bool>(), time(), any::<i64>(), any::<u8>())
        .prop_map(|(action, on, since_ms, until_ms, offences)| Force { action: Action::ALL[action], on, since_ms, until_ms, offences });
    let episode = (any::<u64>(), any::<u128>(), time(), time(), proptest::option::of(time()), any::<u32>(), any::<u32>(), 0usize..4)
        .prop_map(|(key, id, opened_ms, told_ms, until_ms, decisions, folded, action)| Episode {
            key,
            id: uuid::Uuid::from_u128(id),
            opened_ms,
            told_ms,
            until_ms: until_ms.unwrap_or(i64::MAX),
            decisions,
            folded,
            severity: Severity::Critical,
            action: Action::ALL[action],
        });
    let lists = (proptest::collection::vec(held, 0..20), proptest::collection::vec(force, 0..6), proptest::collection::vec(episode, 0..4));
    (lists, any::<bool>(), proptest::option::of(time()), maybe_time()).prop_map(
        |((held, forces, episodes), published, due_ms, as_of_ms)| {
            let mut ledger = Ledger { published, due_ms, as_of_ms, ..Ledger::default() };
            held.into_iter().for_each(|held| ledger.hold(held, |held| held.points));
            forces.into_iter().for_each(|force| ledger.set_force(force.action, Some(force)));
            episodes.into_iter().for_each(|episode| ledger.open(episode));
            ledger
        },
    )
}

proptest! {
    #[test]
    fn what_is_held_against_an_entity_is_read_back(ledger in ledger()) {
        let mut state = ActorState::default();
        state.note(NOW, 600_000);
        let (held, episodes) = (ledger.held.len(), ledger.episodes.len());
        let mut without = Vec::new();
        state.encode(&mut without);
        state.put_ledger(Box::new(ledger));
        let mut bytes = Vec::new();
        state.encode(&mut bytes);
        state.changed = false;
        prop_assert_eq!(ActorState::decode_next_due(&bytes), Ok(state.next_due_ms()));
        prop_assert_eq!(ActorState::decode(&bytes), Ok(state));
        // Counts and times of a life are far from the ends of their types: what the bound reckons with is less than 20 bytes more.
        prop_assert!(bytes.len() - without.len() <= REST_BYTES + 12 * 8 + (HELD_BYTES + 10) * held + EPISODE_BYTES * episodes);
        for cut in 1..bytes.len().min(40) {
            prop_assert_eq!(ActorState::decode(&bytes[..bytes.len() - cut]).is_ok(), false);
        }
    }
}

#[test]
fn a_newer_version_is_refused_by_name() {
    assert_eq!(ActorState::decode(&[VERSION + 1, 0]), Err(StateError::UnknownVersion(VERSION + 1)));
}
