//! Why a verb ended early: an exit code and one clear message.

use crate::generate;
use crate::sink::StoreError;
use crate::stream::client::ClientError;
use std::fmt;
use tripline_core::diagnostic::Diagnostic;

/// Exit codes; part of the contract.
pub mod code {
    /// All is well.
    pub const OK: u8 = 0;
    /// Findings, or the verb failed.
    pub const FINDINGS: u8 = 1;
    /// Wrong usage.
    pub const USAGE: u8 = 2;
    /// Invalid settings, rules or flags.
    pub const INVALID: u8 = 3;
    /// A dependency cannot be reached.
    pub const UNREACHABLE: u8 = 4;
}

/// An exit code, and what to say on stderr.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure {
    /// One of [`code`].
    pub code: u8,
    /// The message, complete as it is printed.
    pub message: String,
}

impl Failure {
    /// A failure with a message in one sentence.
    pub fn new(code: u8, message: impl fmt::Display) -> Failure {
        Failure { code, message: format!("error: {message}") }
    }

    /// Wrong usage.
    pub fn usage(message: impl fmt::Display) -> Failure {
        Failure::new(code::USAGE, message)
    }

    /// Problems in settings, rules or flags: all of them.
    pub fn invalid(problems: &[Diagnostic]) -> Failure {
        let mut message: String = problems.iter().map(|problem| format!("{problem}\n")).collect();
        message.push_str(&count(problems.len(), "problem"));
        Failure { code: code::INVALID, message }
    }
}

/// `1 problem`, `2 problems`.
pub fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

impl From<anyhow::Error> for Failure {
    /// An error's chain in one line, without a backtrace. Errors of dependencies know their exit code.
    fn from(error: anyhow::Error) -> Failure {
        let code = error.chain().find_map(code_of).unwrap_or(code::FINDINGS);
        Failure::new(code, format!("{error:#}"))
    }
}

fn code_of(error: &(dyn std::error::Error + 'static)) -> Option<u8> {
    let store = || error.downcast_ref::<StoreError>().map(StoreError::exit_code);
    let client = || error.downcast_ref::<ClientError>().map(ClientError::exit_code);
    let traffic = || error.downcast_ref::<generate::kafka::Error>().map(|_| code::UNREACHABLE);
    store().or_else(client).or_else(traffic)
}
