//! Secrets: which values are hidden, and values that stand in mounted files.

use super::layer::{Key, Setting};
use serde_json::Value as Json;
use tripline_core::mask::MASKED;

/// A client property with one of these in its name is shown as `***`.
const FRAGMENTS: [&str; 5] = ["password", "secret", "key", "token", "oauthbearer.config"];

/// Whether a property's name (or a line) likely stands beside a secret.
pub fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    FRAGMENTS.iter().any(|fragment| name.contains(fragment))
}

/// The path in `${file:/path}`.
pub fn file_reference(value: &str) -> Option<&str> {
    value.strip_prefix("${file:")?.strip_suffix('}')
}

/// A value as it may be shown: a reference to a file as it is, a secret as `***`, a URL without its password.
pub fn shown(key: &Key, setting: &Setting) -> Json {
    let Json::String(text) = &setting.value else { return setting.value.clone() };
    if file_reference(text).is_some() {
        return setting.value.clone();
    }
    match key.property() {
        Some(name) if is_secret_name(name) => MASKED.into(),
        Some(_) => setting.value.clone(),
        None if key.0 == ["entity", "session_key"] && !text.is_empty() => MASKED.into(),
        None => without_password(text).into(),
    }
}

/// `postgres://user:password@host` without the password.
pub(super) fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let Some((user, host)) = rest.rsplit_once('@') else { return url.to_owned() };
    let user = user.split(':').next().unwrap_or_default();
    format!("{scheme}://{user}:{MASKED}@{host}")
}

#[cfg(test)]
mod tests {
    use super::super::layer::Origin;
    use super::*;

    fn check(segments: &[&str], value: &str, expected: &str) {
        let setting = Setting { value: value.into(), origin: Origin::Default };
        assert_eq!(shown(&Key::new(segments), &setting), Json::from(expected));
    }

    #[test]
    fn secrets_are_not_shown() {
        check(&["kafka", "properties", "sasl.password"], "hunter2", "***");
        check(&["kafka", "properties", "ssl.key.pem"], "-----BEGIN", "***");
        check(&["kafka", "properties", "sasl.password"], "${file:/run/secrets/kafka}", "${file:/run/secrets/kafka}");
        check(&["kafka", "properties", "sasl.mechanism"], "PLAIN", "PLAIN");
        check(&["sink", "url"], "postgres://app:p@ss@db/x", "postgres://app:***@db/x");
        check(&["sink", "url"], "sqlite://a.db", "sqlite://a.db");
    }
}
