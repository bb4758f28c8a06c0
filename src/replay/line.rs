//! Lines of bounded length: what is longer is skipped without being kept.

use std::io::{self, BufRead};

/// One line without its end.
#[derive(Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// Its bytes.
    Whole(&'a [u8]),
    /// It was longer than the bound.
    TooLong,
}

/// Reads lines one after the other into one buffer.
pub struct Lines<R> {
    input: R,
    max_bytes: usize,
    buffer: Vec<u8>,
}

impl<R: BufRead> Lines<R> {
    /// Lines of at most `max_bytes`.
    pub fn new(input: R, max_bytes: usize) -> Lines<R> {
        Lines { input, max_bytes, buffer: Vec::new() }
    }

    /// The next line and the bytes it took from the input; `None` at the end. The last line may lack its newline.
    pub fn next_line(&mut self) -> io::Result<Option<(Line<'_>, u64)>> {
        self.buffer.clear();
        let (mut taken, mut too_long) = (0u64, false);
        loop {
            let available = match self.input.fill_buf() {
                Ok(available) => available,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if available.is_empty() {
                break;
            }
            let newline = available.iter().position(|b| *b == b'\n');
            let part = &available[..newline.unwrap_or(available.len())];
            too_long = too_long || self.buffer.len() + part.len() > self.max_bytes;
            if !too_long {
                self.buffer.extend_from_slice(part);
            }
            let used = part.len() + usize::from(newline.is_some());
            self.input.consume(used);
            taken += used as u64;
            if newline.is_some() {
                break;
            }
        }
        if taken == 0 {
            return Ok(None);
        }
        let line = if too_long { Line::TooLong } else { Line::Whole(self.buffer.strip_suffix(b"\r").unwrap_or(&self.buffer)) };
        Ok(Some((line, taken)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::BufReader;

    #[test]
    fn long_lines_are_skipped_and_the_others_kept() {
        let text = "one\r\n\nexactly8\nnine char\nlast";
        for capacity in [1, 3, 64] {
            let mut lines = Lines::new(BufReader::with_capacity(capacity, text.as_bytes()), 8);
            let (mut seen, mut total) = (Vec::new(), 0);
            while let Some((line, bytes)) = lines.next_line().expect("memory does not fail") {
                total += bytes;
                seen.push(match line {
                    Line::Whole(bytes) => String::from_utf8_lossy(bytes).into_owned(),
                    Line::TooLong => "TOO LONG".to_owned(),
                });
            }
            assert_eq!(seen, ["one", "", "exactly8", "TOO LONG", "last"]);
            assert_eq!(total, text.len() as u64);
        }
    }
}
