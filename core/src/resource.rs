//! What a path is about: the type and the id of the resource it names.

/// The last path segment as the type; when it is all digits or a UUID it is the id, and the segment before it the type.
/// Cut to 100 and 120 characters. This is what anomaly-infra records.
pub fn of_path(path: &str) -> (Option<String>, Option<String>) {
    let mut segments = path.split('/').filter(|s| !s.is_empty()).rev();
    let Some(last) = segments.next() else { return (None, None) };
    match segments.next() {
        Some(before) if is_id(last) => (Some(cut(before, 100)), Some(cut(last, 120))),
        _ => (Some(cut(last, 100)), None),
    }
}

fn cut(text: &str, characters: usize) -> String {
    text.chars().take(characters).collect()
}

fn is_id(segment: &str) -> bool {
    segment.bytes().all(|b| b.is_ascii_digit())
        || (segment.len() == 36
            && segment.bytes().enumerate().all(|(i, b)| match i {
                8 | 13 | 18 | 23 => b == b'-',
                _ => b.is_ascii_hexdigit(),
            }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_numbers_and_uuids() {
        let some = |s: &str| Some(s.to_owned());
        assert_eq!(of_path("/api/v1/users/17"), (some("users"), some("17")));
        assert_eq!(of_path("/p/3fa85f64-5717-4562-b3fc-2c963f66afa6"), (some("p"), some("3fa85f64-5717-4562-b3fc-2c963f66afa6")));
        assert_eq!(of_path("/api/v1/users/"), (some("users"), None));
        assert_eq!(of_path("/17"), (some("17"), None));
        assert_eq!(of_path("/"), (None, None));
        assert_eq!(of_path(&format!("/{}", "é".repeat(200))).0.map(|s| s.chars().count()), Some(100));
    }
}
