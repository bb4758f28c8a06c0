//! Random choices that are a function of a seed: for faults, traffic and benchmarks.

/// A small generator of choices (SplitMix64): the same seed, the same choices, on every machine.
#[derive(Debug, Clone, Default)]
pub struct Choices(u64);

impl Choices {
    /// For a seed; every seed will do.
    pub fn new(seed: u64) -> Choices {
        Choices(seed)
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below a bound; 0 when the bound is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.draw() % bound.max(1)
    }

    /// One of several.
    ///
    /// # Panics
    /// When there is nothing to choose from.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }

    /// Whether something with this chance in a hundred happens.
    pub fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }
}

/// Stirs the bits of a number: the last step of SplitMix64. Different numbers stay different.
pub fn mix(number: u64) -> u64 {
    let mut z = number;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
