//! Tags that name MITRE ATT&CK, in the spelling of Sigma: `attack.credential-access`, `attack.t1110.003`.
//!
//! Tactics are compared with the names of the enterprise matrix. Of techniques, groups, software and campaigns only the
//! shape is looked at: the matrix has hundreds of them and changes twice a year, and a table that lags behind it would
//! refuse what is right.

use crate::diagnostic::nearest;

/// The tactics of the enterprise matrix, version 19, and `defense-evasion`, which it split into `stealth` and
/// `defense-impairment`.
const TACTICS: [&str; 16] = [
    "reconnaissance",
    "resource-development",
    "initial-access",
    "execution",
    "persistence",
    "privilege-escalation",
    "stealth",
    "defense-impairment",
    "defense-evasion",
    "credential-access",
    "discovery",
    "lateral-movement",
    "collection",
    "command-and-control",
    "exfiltration",
    "impact",
];

/// What is wrong with a tag, and the way out; `None` for a good one and for one of another name space.
pub fn problem(tag: &str) -> Option<(String, Option<String>)> {
    let name = tag.strip_prefix("attack.")?;
    if TACTICS.contains(&name) || is_id(name) {
        return None;
    }
    let near = nearest(&name.to_ascii_lowercase().replace('_', "-"), TACTICS).map(|near| format!("did you mean `attack.{near}`?"));
    let help = near.or_else(|| Some("a tactic such as `attack.discovery`, or a technique such as `attack.t1110.003`".into()));
    Some((format!("`{tag}` is no tactic and no id of ATT&CK"), help))
}

/// `t1110`, `t1110.003`, `g0016`, `s0002`, `c0017`: small letters, four digits, three more for a sub-technique.
fn is_id(name: &str) -> bool {
    let is_number = |text: &str, length| text.len() == length && text.bytes().all(|b| b.is_ascii_digit());
    let (id, sub) = name.split_once('.').map_or((name, None), |(id, sub)| (id, Some(sub)));
    let Some(number) = id.strip_prefix(['t', 'g', 's', 'c']) else { return false };
    is_number(number, 4) && sub.is_none_or(|sub| id.starts_with('t') && is_number(sub, 3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_of_att_and_ck_are_tactics_and_ids() {
        for good in ["attack.discovery", "attack.t1110", "attack.t1595.003", "attack.g0016", "attack.stealth", "cve.2021-44228", "own"] {
            assert_eq!(problem(good), None, "{good}");
        }
        for bad in ["attack.", "attack.t111", "attack.t1110.3", "attack.T1110", "attack.g0016.001", "attack.hacking", "attack.t11100"] {
            assert!(problem(bad).is_some(), "{bad}");
        }
        let (message, help) = problem("attack.credential_access").expect("a problem");
        assert_eq!(message, "`attack.credential_access` is no tactic and no id of ATT&CK");
        assert_eq!(help.as_deref(), Some("did you mean `attack.credential-access`?"));
    }
}
