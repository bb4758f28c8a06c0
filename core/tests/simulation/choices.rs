//! A schedule is a list of choices: bytes, drawn from a seeded generator or given again. Zero is always the calm choice, and
//! past the end of a list everything is calm, so that a list can be shortened and calmed piece by piece ([`mod@super::shrink`]).
//!
//! There is one list for each kind of choice: one that is taken out moves none of another kind.

/// Kinds of choices.
#[derive(Debug, Clone, Copy)]
pub enum About {
    /// What goes in.
    Workload,
    /// Who takes the next step.
    Turn,
    /// What goes wrong around the processes.
    Environment,
    /// How requests end.
    Request,
    /// What a process is free to do: when it seals, when it writes.
    Process,
}

/// How many kinds there are.
pub const KINDS: usize = 5;

/// The lists.
pub type Made = [Vec<u8>; KINDS];

/// Choices of one schedule.
#[derive(Debug)]
pub struct Choices {
    made: Made,
    at: [usize; KINDS],
    /// The generators' states; `None` while lists are given again.
    random: Option<[u64; KINDS]>,
    /// Nothing goes wrong any more.
    pub is_calm: bool,
}

impl Choices {
    /// Drawn from a seed.
    pub fn drawn(seed: u64) -> Choices {
        let mut state = seed;
        let random = Some(std::array::from_fn(|_| split_mix(&mut state)));
        Choices { made: Made::default(), at: [0; KINDS], random, is_calm: false }
    }

    /// The same ones again.
    pub fn again(made: &Made) -> Choices {
        Choices { made: made.clone(), at: [0; KINDS], random: None, is_calm: false }
    }

    /// What was chosen.
    pub fn into_made(mut self) -> Made {
        for (made, at) in self.made.iter_mut().zip(self.at) {
            made.truncate(at);
        }
        self.made
    }

    /// The next byte.
    pub fn byte(&mut self, about: About) -> u8 {
        if self.is_calm {
            return 0;
        }
        let kind = about as usize;
        if let Some(random) = &mut self.random {
            self.made[kind].push(split_mix(&mut random[kind]) as u8);
        }
        let byte = self.made[kind].get(self.at[kind]).copied().unwrap_or(0);
        self.at[kind] += 1;
        byte
    }

    /// One of `n`; the first is the calm one.
    pub fn pick(&mut self, about: About, n: usize) -> usize {
        usize::from(self.byte(about)) % n.max(1)
    }

    /// Whether something happens that happens in `n` of 256 cases.
    pub fn strikes(&mut self, about: About, n: u8) -> bool {
        n > 0 && !self.is_calm && self.byte(about) >= 0u8.wrapping_sub(n)
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
