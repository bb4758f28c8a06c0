//! Where the event store is: `sink.url`, read.

use super::error::StoreError;
use std::path::PathBuf;

/// Where the event store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A SQLite file; a relative path starts at the working directory.
    File(PathBuf),
    /// SQLite in memory: gone with its connection, so for tests only.
    Memory,
}

impl Location {
    /// Reads `sqlite://PATH` or `sqlite::memory:`. The messages never repeat a whole URL of another scheme: it may hold a password.
    pub fn parse(url: &str) -> Result<Location, StoreError> {
        let invalid = |problem: String| Err(StoreError::Url { problem });
        if url == "sqlite::memory:" || url == "sqlite://:memory:" {
            return Ok(Location::Memory);
        }
        let Some((scheme, path)) = url.split_once("://") else {
            return invalid("it has no scheme: write `sqlite://PATH`".to_owned());
        };
        match scheme {
            "sqlite" => {}
            "postgres" | "postgresql" => return invalid("Postgres is not available yet: use `sqlite://PATH`".to_owned()),
            _ => return invalid("its scheme is not known: write `sqlite://PATH`".to_owned()),
        }
        if path.is_empty() || path.ends_with('/') {
            return invalid(format!("`{url}` names no file: write `sqlite://events.db` or `sqlite:///var/lib/tripline/events.db`"));
        }
        if path.contains(['?', '#', '\0']) {
            return invalid(format!("`{url}` has parameters: write the path alone, `sqlite://PATH`"));
        }
        Ok(Location::File(PathBuf::from(path)))
    }
}

impl std::fmt::Display for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Location::File(path) => write!(f, "{}", path.display()),
            Location::Memory => f.write_str("in memory"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_a_file_by_a_relative_or_an_absolute_path() {
        let file = |path: &str| Location::File(PathBuf::from(path));
        assert_eq!(Location::parse("sqlite://events.db").expect("valid"), file("events.db"));
        assert_eq!(Location::parse("sqlite://data/events.db").expect("valid"), file("data/events.db"));
        assert_eq!(Location::parse("sqlite:///var/lib/events.db").expect("valid"), file("/var/lib/events.db"));
        assert_eq!(Location::parse("sqlite::memory:").expect("valid"), Location::Memory);
    }

    #[test]
    fn a_wrong_url_says_how_to_write_it_and_never_shows_a_password() {
        for (url, expected) in [
            ("postgres://me:hunter2@db/x", "not available yet"),
            ("mysql://me:hunter2@db/x", "not known"),
            ("events.db", "no scheme"),
            ("sqlite://", "names no file"),
            ("sqlite:///var/lib/", "names no file"),
            ("sqlite://events.db?mode=ro", "parameters"),
        ] {
            let message = Location::parse(url).expect_err(url).to_string();
            assert!(message.contains(expected) && message.contains("sqlite://"), "{url}: {message}");
            assert!(!message.contains("hunter2"), "{message}");
        }
    }
}
