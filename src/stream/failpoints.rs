//! Points in the commit protocol where a test can kill or delay the process.
//!
//! `TRIPLINE_FAILPOINTS="after_drain=kill@3"` kills the process (SIGKILL, nothing is cleaned up) the third time the point is
//! reached; `=abort@2` lets the step fail as if the broker had refused it; `=doubt@2` as if nobody knew; `in_record=panic@9` panics
//! while the ninth record is evaluated. Without the variable a point costs one comparison. Own code rather than the `fail` crate, whose points exist only in a build
//! of their own: the binary that is tested here is the one that ships.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use tripline_core::protocol::Failure;

/// Where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Point {
    AfterBegin,
    BeforeSeal,
    AfterChangelog,
    AfterDrain,
    AfterSendOffsets,
    AfterCommit,
    AfterApply,
    BeforeStoreWrite,
    AfterStoreWrite,
    InRestore,
    InRevoke,
    AfterRevoke,
    InRecover,
    InRecord,
    InFiring,
    AfterSinkWrite,
    AfterGrowth,
}

impl Point {
    /// Every point.
    pub const ALL: [Point; 17] = [
        Point::AfterBegin,
        Point::BeforeSeal,
        Point::AfterChangelog,
        Point::AfterDrain,
        Point::AfterSendOffsets,
        Point::AfterCommit,
        Point::AfterApply,
        Point::BeforeStoreWrite,
        Point::AfterStoreWrite,
        Point::InRestore,
        Point::InRevoke,
        Point::AfterRevoke,
        Point::InRecover,
        Point::InRecord,
        Point::InFiring,
        Point::AfterSinkWrite,
        Point::AfterGrowth,
    ];

    /// Its name in the variable.
    pub fn name(self) -> &'static str {
        match self {
            Point::AfterBegin => "after_begin",
            Point::BeforeSeal => "before_seal",
            Point::AfterChangelog => "after_changelog",
            Point::AfterDrain => "after_drain",
            Point::AfterSendOffsets => "after_send_offsets",
            Point::AfterCommit => "after_commit",
            Point::AfterApply => "after_apply",
            Point::BeforeStoreWrite => "before_store_write",
            Point::AfterStoreWrite => "after_store_write",
            Point::InRestore => "in_restore",
            Point::InRevoke => "in_revoke",
            Point::AfterRevoke => "after_revoke",
            Point::InRecover => "in_recover",
            Point::InRecord => "in_record",
            Point::InFiring => "in_firing",
            Point::AfterSinkWrite => "after_sink_write",
            Point::AfterGrowth => "after_growth",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Kill,
    Panic,
    Fail(Failure),
}

#[derive(Debug)]
struct Armed {
    point: Point,
    what: What,
    on: u64,
    reached: AtomicU64,
}

static ARMED: OnceLock<Vec<Armed>> = OnceLock::new();

/// Reads the variable; `Err` names what is wrong with it.
pub fn arm(variable: Option<&str>) -> Result<(), String> {
    let mut armed = Vec::new();
    for item in variable.unwrap_or_default().split(',').map(str::trim).filter(|i| !i.is_empty()) {
        armed.push(parse(item).ok_or_else(|| format!("`{item}` is not a fail point: write point=kill|panic|abort|doubt@count"))?);
    }
    ARMED.set(armed).map_err(|_| "fail points are armed once".to_owned())
}

fn parse(item: &str) -> Option<Armed> {
    let (name, rest) = item.split_once('=')?;
    let (what, on) = rest.split_once('@').unwrap_or((rest, "1"));
    let point = Point::ALL.into_iter().find(|p| p.name() == name)?;
    let what = match what {
        "kill" => What::Kill,
        "panic" => What::Panic,
        "abort" => What::Fail(Failure::Abortable),
        "doubt" => What::Fail(Failure::InDoubt),
        _ => return None,
    };
    Some(Armed { point, what, on: on.parse().ok()?, reached: AtomicU64::new(0) })
}

/// Does what was armed for this point.
pub fn reach(point: Point) -> Result<(), Failure> {
    for armed in ARMED.get().into_iter().flatten().filter(|a| a.point == point) {
        if armed.reached.fetch_add(1, Ordering::Relaxed) + 1 == armed.on {
            match armed.what {
                // SIGKILL to ourselves: no destructor, no flush, as when the machine takes the process away.
                What::Kill => {
                    let _ = std::process::Command::new("kill").args(["-9", &std::process::id().to_string()]).status();
                    std::process::abort();
                }
                What::Panic => panic!("fail point {}", point.name()),
                What::Fail(failure) => return Err(failure),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_point_can_be_named_and_nonsense_is_refused() {
        for point in Point::ALL {
            let armed = parse(&format!("{}=kill@2", point.name())).expect("a point");
            assert_eq!((armed.point, armed.what, armed.on), (point, What::Kill, 2));
        }
        assert!(parse("nowhere=kill").is_none() && parse("after_drain=explode").is_none() && parse("after_drain=kill@x").is_none());
    }
}
