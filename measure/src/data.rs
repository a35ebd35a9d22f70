//! Inputs, and memory for them.

use bytemuck::{Pod, Zeroable};
use half::{bf16, f16};
use softmax::Element;

/// An element whose bits can be read and compared.
pub trait Number: Element + Pod {
    /// The bits, with zeros above.
    fn bits(self) -> u64;
}

macro_rules! number {
    ($($t:ty),*) => {
        $(impl Number for $t {
            fn bits(self) -> u64 {
                self.to_bits().into()
            }
        })*
    };
}

number!(f32, f64, f16, bf16);

/// `n` logits, nearly normal with a standard deviation of 3, the same every time and on every CPU.
pub fn logits<T: Element>(n: usize) -> Vec<T> {
    let mut state = 1u64;
    let mut uniform = || {
        // Knuth's MMIX generator, whose high bits are good.
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f64 / (1u64 << 24) as f64
    };
    (0..n)
        .map(|_| {
            // The variance of the sum of four is 4/12.
            let sum = uniform() + uniform() + uniform() + uniform();
            T::from_f64((sum - 2.0) * 27f64.sqrt())
        })
        .collect()
}

/// A cache line, on an address that is a multiple of its size.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// Memory for elements of any type, aligned to a cache line.
#[derive(Debug)]
pub struct Buffer(Vec<Line>);

impl Buffer {
    /// Allocates bytes, all 0; the system provides pages when they are written.
    ///
    /// # Errors
    /// The number of bytes, if there is no memory for them.
    pub fn new(bytes: usize) -> Result<Self, usize> {
        bytemuck::allocation::try_zeroed_vec(bytes.div_ceil(64)).map(Self).map_err(|()| bytes)
    }

    /// The first `n` elements, or fewer if the memory is smaller.
    pub fn get<T: Number>(&self, n: usize) -> &[T] {
        let all = bytemuck::cast_slice(&self.0);
        &all[..n.min(all.len())]
    }

    /// As [`Buffer::get`].
    pub fn get_mut<T: Number>(&mut self, n: usize) -> &mut [T] {
        let all = bytemuck::cast_slice_mut(&mut self.0);
        let n = n.min(all.len());
        &mut all[..n]
    }
}

/// Fills `slice`, which starts at element `start` of a larger one, with `pattern` again and again.
pub fn repeated<T: Copy>(slice: &mut [T], start: usize, pattern: &[T]) {
    let (mut slice, mut at) = (slice, start % pattern.len());
    while !slice.is_empty() {
        let n = slice.len().min(pattern.len() - at);
        let (now, rest) = slice.split_at_mut(n);
        now.copy_from_slice(&pattern[at..at + n]);
        (slice, at) = (rest, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_begin_anywhere() {
        let mut x = [0; 8];
        repeated(&mut x, 5, &[1, 2, 3]);
        assert_eq!(x, [3, 1, 2, 3, 1, 2, 3, 1]);
    }

    #[test]
    fn memory_is_aligned_and_has_all_types() {
        let mut buffer = Buffer::new(100).expect("there is memory");
        buffer.get_mut::<f64>(3).copy_from_slice(&[1.0, 2.0, 3.0]);
        assert_eq!(buffer.get::<f64>(100), [&[1.0, 2.0, 3.0][..], &[0.0; 13]].concat());
        assert_eq!(buffer.get::<bf16>(1).as_ptr().addr() % 64, 0);
        assert!(Buffer::new(usize::MAX).is_err());
    }

    #[test]
    fn logits_are_those_of_every_machine() {
        let x = logits::<f64>(100_000);
        let mean = x.iter().sum::<f64>() / 1e5;
        let deviation = (x.iter().map(|x| x * x).sum::<f64>() / 1e5).sqrt();
        assert!(mean.abs() < 0.05 && (deviation - 3.0).abs() < 0.05, "{mean} {deviation}");
        assert_eq!(
            x[..2].iter().map(|x| x.bits()).collect::<Vec<_>>(),
            [0xbfc8_0d01_14e8_aa66, 0xbfdc_29ad_3cd7_4456]
        );
    }
}
