//! A schedule is a list of choices: bytes, drawn from a seeded generator or given again. Zero is always the calm choice, and
//! past the end of a list everything is calm, so that a list can be shortened and calmed piece by piece ([`mod@super::shrink`]).

/// Choices of one schedule.
#[derive(Debug)]
pub struct Choices {
    made: Vec<u8>,
    at: usize,
    /// The generator's state; `None` while a list is given again.
    random: Option<u64>,
    /// Nothing goes wrong any more.
    pub is_calm: bool,
}

impl Choices {
    /// Drawn from a seed.
    pub fn drawn(seed: u64) -> Choices {
        Choices { made: Vec::with_capacity(4_096), at: 0, random: Some(seed), is_calm: false }
    }

    /// The same ones again.
    pub fn again(made: &[u8]) -> Choices {
        Choices { made: made.to_vec(), at: 0, random: None, is_calm: false }
    }

    /// What was chosen.
    pub fn into_made(mut self) -> Vec<u8> {
        self.made.truncate(self.at);
        self.made
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        if self.is_calm {
            return 0;
        }
        if let Some(state) = &mut self.random {
            self.made.push(split_mix(state) as u8);
        }
        let byte = self.made.get(self.at).copied().unwrap_or(0);
        self.at += 1;
        byte
    }

    /// One of `n`; the first is the calm one.
    pub fn pick(&mut self, n: usize) -> usize {
        usize::from(self.byte()) % n.max(1)
    }

    /// Whether something happens that happens in `n` of 256 cases.
    pub fn strikes(&mut self, n: u8) -> bool {
        n > 0 && !self.is_calm && self.byte() >= 0u8.wrapping_sub(n)
    }
}

/// SplitMix64: neighbouring seeds give unlike schedules.
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
