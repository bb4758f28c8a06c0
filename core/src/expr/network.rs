//! `cidr(address, "10.0.0.0/8")`: networks parsed once, at load.

use std::net::IpAddr;

/// Addresses that share the first bits of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Network {
    bits: u128,
    mask: u128,
    v4: bool,
}

/// The address as bits at the high end, and whether it is of version 4. `::ffff:10.0.0.1` is 10.0.0.1.
fn bits(address: IpAddr) -> (u128, bool) {
    match address.to_canonical() {
        IpAddr::V4(v4) => (u128::from(u32::from(v4)) << 96, true),
        IpAddr::V6(v6) => (u128::from(v6), false),
    }
}

impl Network {
    /// `10.0.0.0/8`, `2001:db8::/32` or a lone address. The error says what is wrong in one sentence.
    pub fn parse(text: &str) -> Result<Network, String> {
        let (address, length) = text.split_once('/').map_or((text, None), |(a, l)| (a, Some(l)));
        let address: IpAddr = address.parse().map_err(|_| format!("{text:?} is not a network"))?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let digits = length.filter(|l| !l.starts_with('+'));
        let length = length.map_or(Some(width), |_| digits.and_then(|d| d.parse::<u32>().ok()).filter(|l| *l <= width));
        let length = length.ok_or_else(|| format!("the prefix length of {text:?} is not 0 to {width}"))?;
        // A mapped address counts as version 4: its first 96 bits are fixed.
        let (bits, v4) = bits(address);
        let length = if v4 && width == 128 { length.checked_sub(96) } else { Some(length) };
        let length = length.ok_or_else(|| format!("{text:?} reaches beyond the mapped version 4 addresses"))?;
        let mask = u128::MAX.checked_shl(128 - length).unwrap_or(0);
        if bits & !mask != 0 {
            return Err(format!("{text:?} has bits set behind its prefix"));
        }
        Ok(Network { bits, mask, v4 })
    }

    /// The first and the last of its addresses.
    fn range(self) -> Range {
        Range { v4: self.v4, first: self.bits, last: self.bits | !self.mask }
    }
}

/// Addresses of one version that follow one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Range {
    v4: bool,
    first: u128,
    last: u128,
}

/// The addresses of some networks, as sorted ranges that do not touch: a list of ten thousand is searched in fourteen steps.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct NetworkSet {
    ranges: Box<[Range]>,
}

impl NetworkSet {
    pub fn new(networks: impl IntoIterator<Item = Network>) -> NetworkSet {
        let mut sorted: Vec<Range> = networks.into_iter().map(Network::range).collect();
        sorted.sort_unstable();
        let mut ranges: Vec<Range> = Vec::new();
        for range in sorted {
            match ranges.last_mut() {
                Some(before) if before.v4 == range.v4 && range.first <= before.last.saturating_add(1) => {
                    before.last = before.last.max(range.last)
                }
                _ => ranges.push(range),
            }
        }
        NetworkSet { ranges: ranges.into() }
    }

    /// Whether the text is an address in one of the networks; other text is in none.
    pub fn holds(&self, text: &str) -> bool {
        text.parse::<IpAddr>().is_ok_and(|address| {
            let (bits, v4) = bits(address);
            let after = self.ranges.partition_point(|range| (range.v4, range.first) <= (v4, bits));
            after.checked_sub(1).is_some_and(|index| self.ranges[index].v4 == v4 && bits <= self.ranges[index].last)
        })
    }
}
