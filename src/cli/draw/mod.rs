//! What verbs draw on a terminal.

pub mod receipt;

/// Text as it may go to a terminal. Paths, user agents and ids come from whoever attacks: control characters and those
/// that reorder or hide text are written as escapes, so that no event can rewrite the analyst's screen.
pub fn clean(text: &str) -> String {
    let mut cleaned = String::with_capacity(text.len());
    for c in text.chars() {
        let hides = matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
        if c.is_control() || hides { cleaned.extend(c.escape_unicode()) } else { cleaned.push(c) }
    }
    cleaned
}

/// Columns of a text that is read elsewhere than on a terminal.
const COLUMNS: usize = 100;

/// Columns of the terminal that stdout is; elsewhere a width that suits most.
pub fn columns() -> usize {
    console::Term::stdout().size_checked().map_or(COLUMNS, |(_, columns)| columns.into())
}

/// Lines of as many cells each, as columns.
pub fn aligned(lines: &[Vec<String>]) -> String {
    let mut widths = vec![0; lines.iter().map(Vec::len).max().unwrap_or(0)];
    for line in lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let drawn = |line: &Vec<String>| {
        let cells: Vec<String> = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    lines.iter().map(drawn).collect()
}
