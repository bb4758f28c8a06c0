//! Numbers in thousandths: what `sum` and `ratio` reckon with, because sums of floats depend on their order.

use crate::rule::load::codes;
use crate::rule::load::fields::{of_setting, wrong_type};
use crate::rule::load::report::Report;
use crate::rule::load::tree::{Node, Tree};
use crate::value::Value;
use std::ops::RangeInclusive;

/// A number rounded to the nearest thousandth; what does not fit in 64 bits is the largest (smallest) that does. `None` for
/// what is no number.
pub fn of_value(value: Value<'_>) -> Option<i64> {
    match value {
        Value::Int(int) => Some(int.saturating_mul(1_000)),
        Value::Float(float) => Some((float * 1_000.0).round() as i64),
        _ => None,
    }
}

/// Reads a whole number or one with at most three decimals. `range` is in thousandths.
pub fn read(node: &Node, what: &str, range: RangeInclusive<i64>, report: &mut Report<'_>) -> Option<i64> {
    let (thousandths, shown) = match node.value {
        Tree::Int(int) => (int.saturating_mul(1_000), int.to_string()),
        Tree::Float(float) => {
            let rounded = (float * 1_000.0).round();
            if rounded.is_finite() && rounded / 1_000.0 != float {
                let message = format!("{what} is {float}{}, at most three decimals are allowed", of_setting(node));
                report.problem(codes::RANGE, node.at, message, None);
                return None;
            }
            (rounded as i64, float.to_string())
        }
        _ => {
            wrong_type(node, what, "a number", report);
            return None;
        }
    };
    if !range.contains(&thousandths) {
        let (start, end) = (crate::firing::thousandths(*range.start()), crate::firing::thousandths(*range.end()));
        report.problem(codes::RANGE, node.at, format!("{what} is {shown}{}, it must be {start} to {end}", of_setting(node)), None);
        return None;
    }
    Some(thousandths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_rounded_to_thousandths_and_saturate() {
        for (value, expected) in [
            (Value::Int(3), Some(3_000)),
            (Value::Float(0.1), Some(100)),
            (Value::Float(-1.0006), Some(-1_001)),
            (Value::Int(i64::MAX), Some(i64::MAX)),
            (Value::Int(i64::MIN), Some(i64::MIN)),
            (Value::Float(1e300), Some(i64::MAX)),
            (Value::Float(f64::MAX), Some(i64::MAX)),
            (Value::Float(-1e300), Some(i64::MIN)),
            (Value::Str("3"), None),
            (Value::Bool(true), None),
            (Value::Missing, None),
        ] {
            assert_eq!(of_value(value), expected, "{value:?}");
        }
    }
}
