//! Lines for people: compact, and in colour only on a terminal.

use std::io::{IsTerminal, Write};
use std::sync::OnceLock;

/// Whether stdout is a terminal that may be coloured and whose last line may be written again.
pub fn on_terminal() -> bool {
    static ON: OnceLock<bool> = OnceLock::new();
    *ON.get_or_init(|| std::io::stdout().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb"))
}

fn coloured(code: &str, text: &str) -> String {
    let wanted = on_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    if wanted { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

/// Something that stands out.
pub fn bold(text: &str) -> String {
    coloured("1", text)
}

/// Something in the background.
pub fn dim(text: &str) -> String {
    coloured("2", text)
}

/// Something that is as it should be.
pub fn good(text: &str) -> String {
    coloured("32", text)
}

/// Something that is not.
pub fn bad(text: &str) -> String {
    coloured("31", text)
}

/// Action words, the stronger the warmer.
pub fn action(text: &str) -> String {
    match text {
        "block" => coloured("1;31", text),
        "step_up_review" => coloured("35", text),
        "alert" => coloured("33", text),
        _ => dim(text),
    }
}

/// One step of the demo.
pub fn step(what: &str, text: &str) {
    println!("{} {text}", bold(&format!("{what:>9}")));
}

/// A line of no consequence; on a terminal the next one takes its place.
pub fn note(text: &str) {
    if on_terminal() {
        print!("\r\x1b[K{:>9} {}\r", "", dim(text));
        let _ = std::io::stdout().flush();
    } else {
        println!("{:>9} {text}", "");
    }
}

/// A note's place is free again.
pub fn end_notes() {
    if on_terminal() {
        print!("\r\x1b[K");
    }
}

/// `20012` → `20,012`.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::thousands;

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!([0, 999, 1000, 20_012, 1_234_567].map(thousands), ["0", "999", "1,000", "20,012", "1,234,567"]);
    }
}
