//! Comparing and reckoning with values. What has no answer is `None` or missing, never a panic.

use super::tree::Arithmetic;
use crate::value::Value;
use std::cmp::Ordering;

/// The order of two values of one type; numbers compare by size whatever their type. `None` when a side is missing or the
/// types differ.
pub(super) fn compare(left: Value<'_>, right: Value<'_>) -> Option<Ordering> {
    match (left, right) {
        (Value::Int(l), Value::Int(r)) => Some(l.cmp(&r)),
        (Value::Str(l), Value::Str(r)) => Some(l.cmp(r)),
        (Value::Bool(l), Value::Bool(r)) => Some(l.cmp(&r)),
        (Value::Float(l), Value::Float(r)) => l.partial_cmp(&r),
        (Value::Int(l), Value::Float(r)) => compare_int_float(l, r),
        (Value::Float(l), Value::Int(r)) => compare_int_float(r, l).map(Ordering::reverse),
        _ => None,
    }
}

/// By size, without rounding the integer: 2^53 + 1 is more than 2^53.
fn compare_int_float(int: i64, float: f64) -> Option<Ordering> {
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    if float.is_nan() {
        None
    } else if float >= LIMIT {
        Some(Ordering::Less)
    } else if float < -LIMIT {
        Some(Ordering::Greater)
    } else {
        let whole = float.trunc();
        int.cmp(&(whole as i64)).then(0.0.partial_cmp(&(float - whole))?).into()
    }
}

/// Both sides integers or both floats; otherwise, on overflow and on division by zero the result is missing.
pub(super) fn reckon(operator: Arithmetic, left: Value<'_>, right: Value<'_>) -> Value<'static> {
    match (left, right) {
        (Value::Int(l), Value::Int(r)) => {
            let result = match operator {
                Arithmetic::Add => l.checked_add(r),
                Arithmetic::Subtract => l.checked_sub(r),
                Arithmetic::Multiply => l.checked_mul(r),
                Arithmetic::Divide => l.checked_div(r),
                Arithmetic::Remainder => l.checked_rem(r),
            };
            result.map_or(Value::Missing, Value::Int)
        }
        (Value::Float(l), Value::Float(r)) => {
            let result = match operator {
                Arithmetic::Add => l + r,
                Arithmetic::Subtract => l - r,
                Arithmetic::Multiply => l * r,
                Arithmetic::Divide => l / r,
                Arithmetic::Remainder => return Value::Missing,
            };
            if result.is_finite() { Value::Float(result) } else { Value::Missing }
        }
        _ => Value::Missing,
    }
}

/// The number with the other sign; missing for the smallest integer and for what is no number.
pub(super) fn negate(value: Value<'_>) -> Value<'static> {
    match value {
        Value::Int(i) => i.checked_neg().map_or(Value::Missing, Value::Int),
        Value::Float(f) => Value::Float(-f),
        _ => Value::Missing,
    }
}

/// Hours since Monday 00:00 UTC, 0 to 167. The epoch was a Thursday.
pub(super) fn hour_of_week(time_ms: i64) -> i64 {
    const MONDAY_TO_THURSDAY: i64 = 3 * 24;
    (time_ms.div_euclid(3_600_000) + MONDAY_TO_THURSDAY).rem_euclid(7 * 24)
}

/// `1h30m` in milliseconds. The error says what is wrong in one sentence.
pub(super) fn duration_ms(text: &str) -> Result<i64, String> {
    let wrong = || format!("{text:?} is not a duration: whole numbers, each with its unit d, h, m, s or ms");
    let mut rest = text;
    let mut total: i64 = 0;
    while !rest.is_empty() || text.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, after) = rest.split_at(digits);
        let unit_length = after.len() - after.trim_start_matches(|c: char| c.is_ascii_alphabetic()).len();
        let (unit, after) = after.split_at(unit_length);
        let unit_ms = match unit {
            "d" => 86_400_000,
            "h" => 3_600_000,
            "m" => 60_000,
            "s" => 1000,
            "ms" => 1,
            _ => return Err(wrong()),
        };
        let part = number.parse::<i64>().map_err(|_| wrong())?.checked_mul(unit_ms);
        total = part.and_then(|p| total.checked_add(p)).ok_or_else(|| format!("{text:?} is too long"))?;
        rest = after;
    }
    Ok(total)
}
