//! Random numbers by counters.

/// Philox4x32 with ten rounds: 128 random bits for each counter and key.
///
/// Source: Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3, 2011.
pub(crate) fn philox(mut counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let mut key = key;
    for round in 0..10 {
        if round > 0 {
            // The golden ratio and the square root of 3, less 1.
            key = [key[0].wrapping_add(0x9e37_79b9), key[1].wrapping_add(0xbb67_ae85)];
        }
        let [a, b, c, d] = counter;
        let p = u64::from(a) * 0xd251_1f53;
        let q = u64::from(c) * 0xcd9e_8d57;
        counter =
            [(q >> 32) as u32 ^ b ^ key[0], q as u32, (p >> 32) as u32 ^ d ^ key[1], p as u32];
    }
    counter
}

fn low_first(a: u32, b: u32) -> u64 {
    u64::from(b) << 32 | u64::from(a)
}

/// Whose random numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stream {
    pub seed: u64,
    /// Below 2^48, and so is `step`.
    pub row: u64,
    pub step: u64,
}

impl Stream {
    /// The 128 bits of a draw: counter (draw, row, step, upper 16 bits of the step and of the row),
    /// key the seed.
    pub(crate) fn draw(self, draw: usize) -> Bits {
        let upper = (self.step >> 32) << 16 | self.row >> 32;
        let counter = [draw as u32, self.row as u32, self.step as u32, upper as u32];
        Bits(philox(counter, [self.seed as u32, (self.seed >> 32) as u32]))
    }
}

/// The random bits of one draw.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bits([u32; 4]);

impl Bits {
    /// A number below `end`: the upper half of the product with 64 random bits.
    pub(crate) fn below(self, end: u64) -> u64 {
        let bits = low_first(self.0[0], self.0[1]);
        ((u128::from(bits) * u128::from(end)) >> 64) as u64
    }

    /// Whether other 64 random bits say yes to a chance of `part / whole`.
    pub(crate) fn says(self, part: u64, whole: u128) -> bool {
        let bits = low_first(self.0[2], self.0[3]);
        u128::from(bits) < (u128::from(part) << 64) / whole.max(1)
    }

    /// 64 bits for each of the tokens `2 * pair` and `2 * pair + 1`: key the first two words,
    /// counter the pair, 0 and the other two.
    pub(crate) fn pair(self, pair: usize) -> [u64; 2] {
        let [a, b, c, d] = self.0;
        let [e, f, g, h] = philox([pair as u32, 0, c, d], [a, b]);
        [low_first(e, f), low_first(g, h)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known answers of the authors' library, Random123.
    #[test]
    fn known_answers() {
        let ones = u32::MAX;
        for (counter, key, bits) in [
            ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
            ([ones; 4], [ones; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ] {
            assert_eq!(philox(counter, key), bits);
        }
    }

    #[test]
    fn counters_do_not_overlap() {
        let stream = Stream { seed: 1 << 40 | 5, row: 3 << 32 | 7, step: 9 << 32 | 11 };
        let counter = [2, 7, 11, 9 << 16 | 3];
        assert_eq!(stream.draw(2).0, philox(counter, [5, 1 << 8]));
    }
}
