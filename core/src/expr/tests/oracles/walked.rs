//! The second judge: a walk over what was generated, by the rules of `docs/expressions.md` about what is missing. It knows
//! neither parser nor checker nor closures.

use super::*;

fn order(left: &Json, right: &Json) -> Option<Ordering> {
    match (left, right) {
        (Json::String(l), Json::String(r)) => Some(l.chars().cmp(r.chars())),
        (Json::Bool(l), Json::Bool(r)) => Some(l.cmp(r)),
        (Json::Number(l), Json::Number(r)) => match (l.as_i64(), r.as_i64()) {
            (Some(l), Some(r)) => Some(l.cmp(&r)),
            (None, None) => l.as_f64()?.partial_cmp(&r.as_f64()?),
            (Some(l), None) => Some((i128::from(l) * SCALE).cmp(&scaled(r.as_f64()?))),
            (None, Some(r)) => Some(scaled(l.as_f64()?).cmp(&(i128::from(r) * SCALE))),
        },
        _ => None,
    }
}

/// No float that is drawn is nearer to an integer than this part of one without being it.
const SCALE: i128 = 1 << 50;

/// A float in these parts; what is beyond every integer stays so.
fn scaled(float: f64) -> i128 {
    (float * SCALE as f64) as i128
}

fn truth(gen_: &Gen, fields: &Fields) -> bool {
    value(gen_, fields) == Some(Json::Bool(true))
}

fn text(gen_: &Gen, fields: &Fields) -> Option<String> {
    value(gen_, fields)?.as_str().map(str::to_owned)
}

fn int(gen_: &Gen, fields: &Fields) -> Option<i128> {
    value(gen_, fields)?.as_i64().map(i128::from)
}

fn float(gen_: &Gen, fields: &Fields) -> Option<f64> {
    value(gen_, fields)?.as_number().filter(|n| n.is_f64())?.as_f64()
}

fn arithmetic(sign: &str, left: &Gen, right: &Gen, fields: &Fields) -> Option<Json> {
    if let (Some(l), Some(r)) = (int(left, fields), int(right, fields)) {
        let result = match sign {
            "+" => l + r,
            "-" => l - r,
            "*" => l * r,
            "/" => l.checked_div(r)?,
            _ => {
                l.checked_div(r).filter(|q| i64::try_from(*q).is_ok())?;
                l % r
            }
        };
        return i64::try_from(result).ok().map(Json::from);
    }
    let (l, r) = (float(left, fields)?, float(right, fields)?);
    let result = match sign {
        "+" => l + r,
        "-" => l - r,
        "*" => l * r,
        "/" => l / r,
        _ => return None,
    };
    // Not finite: no JSON number.
    serde_json::Number::from_f64(result).map(Json::Number)
}

/// What the expression is; `None` is missing.
pub fn value(gen_: &Gen, fields: &Fields) -> Option<Json> {
    let question = match gen_ {
        Gen::Bool(b) => return Some(json!(b)),
        Gen::Int(i) => return Some(json!(i)),
        Gen::Float(f) => return Some(json!(f)),
        Gen::Str(s) => return Some(json!(s)),
        Gen::Field(name) => return fields.get(name).cloned(),
        Gen::HourOfWeek => return Some(json!(hour_of_week(fields["event_time"].as_i64()?))),
        Gen::Duration(text) => return DURATIONS.iter().find(|(t, _)| t == text).map(|(_, ms)| json!(ms)),
        Gen::Size(inner) => return text(inner, fields).map(|t| json!(t.chars().count())),
        Gen::Negate(inner) => {
            return int(inner, fields)
                .and_then(|i| i64::try_from(-i).ok())
                .map(Json::from)
                .or_else(|| float(inner, fields).map(|f| json!(-f)));
        }
        Gen::Folded("lowerAscii", inner) => return text(inner, fields).map(|t| json!(t.to_ascii_lowercase())),
        Gen::Folded(_, inner) => return text(inner, fields).map(|t| json!(t.to_ascii_uppercase())),
        Gen::Ternary(parts) => return value(&parts[if truth(&parts[0], fields) { 1 } else { 2 }], fields),
        Gen::Infix(sign @ ("+" | "-" | "*" | "/" | "%"), left, right) => return arithmetic(sign, left, right, fields),
        Gen::Infix("&&", left, right) => truth(left, fields) && truth(right, fields),
        Gen::Infix("||", left, right) => truth(left, fields) || truth(right, fields),
        Gen::Infix(sign, left, right) => compared(sign, left, right, fields).unwrap_or(false),
        Gen::Not(inner) => !truth(inner, fields),
        Gen::Has(name) => fields.contains_key(name),
        Gen::InInts(left, items) => {
            value(left, fields).is_some_and(|v| items.iter().any(|i| order(&v, &json!(i)) == Some(Ordering::Equal)))
        }
        Gen::InCodes(left) => value(left, fields).is_some_and(|v| is_a_code(&v)),
        Gen::InTexts(left, Texts::Named(list)) if *list == CODES.0 => value(left, fields).is_some_and(|v| is_a_code(&v)),
        Gen::InTexts(left, texts) => text(left, fields).is_some_and(|t| texts.items().contains(&t.as_str())),
        Gen::InOffices(address) => text(address, fields).is_some_and(|a| OFFICES.1.iter().any(|n| in_network(&a, n))),
        Gen::StartsWithAny(left, texts) => text(left, fields).is_some_and(|t| texts.items().iter().any(|p| t.starts_with(p))),
        Gen::Cidr(address, network) => text(address, fields).is_some_and(|a| in_network(&a, network)),
        Gen::Method(name, receiver, argument) => match (text(receiver, fields), text(argument, fields)) {
            (Some(text), Some(other)) => match *name {
                "startsWith" => text.starts_with(&other),
                "endsWith" => text.ends_with(&other),
                "contains" => text.contains(&other),
                _ => regex::Regex::new(&other).expect("a pattern").is_match(&text),
            },
            _ => false,
        },
    };
    Some(json!(question))
}

/// Numbers of a list are numbers and texts.
fn is_a_code(value: &Json) -> bool {
    let number = |code: &str| json!(code.parse::<i64>().expect("a number"));
    CODES.1.iter().any(|code| value == *code || order(value, &number(code)) == Some(Ordering::Equal))
}

fn compared(sign: &str, left: &Gen, right: &Gen, fields: &Fields) -> Option<bool> {
    let order = order(&value(left, fields)?, &value(right, fields)?)?;
    Some(match sign {
        "==" => order == Ordering::Equal,
        "!=" => order != Ordering::Equal,
        "<" => order == Ordering::Less,
        "<=" => order != Ordering::Greater,
        ">" => order == Ordering::Greater,
        _ => order != Ordering::Less,
    })
}
