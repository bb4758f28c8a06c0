//! Values of other shapes to values of ours: units of time, numbers in text, paths in URLs.

use super::values::Scalar;
use crate::event::mapping::Unit;
use crate::time;
use std::borrow::Cow;

/// The most digits that a number in text may have.
const MAX_DIGITS: usize = 36;

/// Milliseconds of a number written in decimals (`1718000000.123`), cut to whole ones. `None` if it is no number, has an
/// exponent, or is beyond 64 bits.
pub(super) fn decimal_ms(text: &str, unit: Unit) -> Option<i64> {
    let (sign, digits) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let all_digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if !all_digits(whole) || !all_digits(fraction) || whole.len() > MAX_DIGITS {
        return None;
    }
    let whole: i128 = whole.parse().ok()?;
    let ms = match unit {
        // Three digits of the fraction are milliseconds.
        Unit::Seconds => {
            let thousandths = fraction.bytes().chain(*b"000").take(3).fold(0, |sum, b| sum * 10 + i128::from(b - b'0'));
            whole.checked_mul(1_000)? + thousandths
        }
        Unit::Milliseconds => whole,
        Unit::Microseconds => whole / 1_000,
        Unit::Nanoseconds => whole / 1_000_000,
    };
    i64::try_from(sign * ms).ok()
}

/// A number, or a number in text, as milliseconds; a fraction means the same in both.
pub(super) fn number_ms(value: &Scalar<'_>, unit: Unit) -> Option<i64> {
    match value {
        Scalar::Int(number) => match unit {
            Unit::Seconds => number.checked_mul(1_000),
            Unit::Milliseconds => Some(*number),
            Unit::Microseconds => Some(number / 1_000),
            Unit::Nanoseconds => Some(number / 1_000_000),
        },
        Scalar::Unsigned(number) => decimal_ms(&number.to_string(), unit),
        // The shortest decimals that mean this number: what the record said.
        Scalar::Float(number) => decimal_ms(&number.to_string(), unit),
        Scalar::Text(text) => decimal_ms(text.trim(), unit),
        Scalar::Null | Scalar::Bool(_) | Scalar::Nested => None,
    }
}

/// A time as milliseconds: a number in its unit, or RFC 3339.
pub(super) fn time_ms(value: &Scalar<'_>, unit: Unit) -> Option<i64> {
    number_ms(value, unit).or_else(|| match value {
        Scalar::Text(text) => time::parse_rfc3339_ms(text.trim()),
        _ => None,
    })
}

/// A whole number in text; anything else stays what it is.
pub(super) fn whole_number(value: Scalar<'_>) -> Scalar<'_> {
    match &value {
        Scalar::Text(text) => match text.trim().parse::<i64>() {
            Ok(number) => Scalar::Int(number),
            Err(_) => value,
        },
        _ => value,
    }
}

/// `true` and `false` in text; anything else stays what it is.
pub(super) fn truth(value: Scalar<'_>) -> Scalar<'_> {
    match &value {
        Scalar::Text(text) => match text.as_ref() {
            "true" => Scalar::Bool(true),
            "false" => Scalar::Bool(false),
            _ => value,
        },
        _ => value,
    }
}

/// Numbers and truth values as text, as they were written.
pub(super) fn text(value: Scalar<'_>) -> Scalar<'_> {
    match value {
        Scalar::Bool(truth) => Scalar::Text(Cow::Borrowed(if truth { "true" } else { "false" })),
        Scalar::Int(number) => Scalar::Text(Cow::Owned(number.to_string())),
        Scalar::Unsigned(number) => Scalar::Text(Cow::Owned(number.to_string())),
        Scalar::Float(number) => Scalar::Text(Cow::Owned(serde_json::Value::from(number).to_string())),
        other => other,
    }
}

/// The path of a path with a query, or of a whole URL. What begins with `/` has no host in front.
pub(super) fn url_path(value: Scalar<'_>) -> Scalar<'_> {
    fn cut(url: &str) -> (usize, usize) {
        let begin = match url.find("://") {
            Some(scheme) if !url.starts_with('/') => {
                let host = scheme + 3;
                url[host..].find(['/', '?', '#']).map_or(url.len(), |slash| host + slash)
            }
            _ => 0,
        };
        let end = url[begin..].find(['?', '#']).map_or(url.len(), |query| begin + query);
        (begin, end)
    }
    match value {
        Scalar::Text(Cow::Borrowed(url)) => {
            let (begin, end) = cut(url);
            // `https://example.org` and `https://example.org?a=1` ask for the root.
            Scalar::Text(Cow::Borrowed(if begin == end && !url.is_empty() { "/" } else { &url[begin..end] }))
        }
        Scalar::Text(Cow::Owned(url)) => {
            let (begin, end) = cut(&url);
            Scalar::Text(Cow::Owned(if begin == end && !url.is_empty() { "/".to_owned() } else { url[begin..end].to_owned() }))
        }
        other => other,
    }
}
