//! Counter-based random numbers.

use softmax_kernels::{low_first, philox};

/// The counters and the key of a row's random numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stream {
    pub seed: u64,
    /// Below 2^48, and so is `step`.
    pub row: u64,
    pub step: u64,
}

impl Stream {
    /// The 128 bits of a draw: the counter is (draw, row, step, upper 16 bits of the step and of
    /// the row), the key is the seed.
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
    /// A number below `end`: the upper half of its product with 64 random bits.
    pub(crate) fn below(self, end: u64) -> u64 {
        let bits = low_first(self.0[0], self.0[1]);
        ((u128::from(bits) * u128::from(end)) >> 64) as u64
    }

    /// Decides with 64 other random bits, with the probability `part / whole`.
    pub(crate) fn says(self, part: u64, whole: u128) -> bool {
        let bits = low_first(self.0[2], self.0[3]);
        u128::from(bits) < (u128::from(part) << 64) / whole.max(1)
    }

    /// All random bits.
    pub(crate) fn words(self) -> [u32; 4] {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_do_not_overlap() {
        let stream = Stream { seed: 1 << 40 | 5, row: 3 << 32 | 7, step: 9 << 32 | 11 };
        let counter = [2, 7, 11, 9 << 16 | 3];
        assert_eq!(stream.draw(2).0, philox(counter, [5, 1 << 8]));
    }
}
