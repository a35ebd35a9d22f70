//! The machine's own limits: loops that only read, copy, scale, or multiply and add. Softmax is
//! measured against them.

use std::hint::black_box;

use crate::isa::vector::{Io, Vector};
use crate::num::exp2::MOST_LANES;
use crate::sweep::{Finish, Same, finish_row};

/// The loops of the scalar reference.
pub(crate) mod scalar {
    use std::hint::black_box;

    pub(crate) fn read(x: &[f32]) -> f32 {
        x.iter().fold(f32::NEG_INFINITY, |largest, &x| if x > largest { x } else { largest })
    }

    pub(crate) fn copy(x: &[f32], y: &mut [f32]) {
        y.copy_from_slice(x);
    }

    pub(crate) fn scale(x: &mut [f32], factor: f32) {
        x.iter_mut().for_each(|x| *x *= factor);
    }

    pub(crate) fn arithmetic(turns: usize) -> u64 {
        let mut chains = [1.0f64; 4];
        let (a, b) = black_box((0.75, 0.25));
        for _ in 0..turns {
            for x in &mut chains {
                *x = black_box(*x * a) + b;
            }
        }
        black_box(chains);
        turns as u64 * 8
    }
}

/// Vectors per turn of the loops over memory.
const UNROLL: usize = 4;

#[inline(always)]
pub(crate) fn read<S: Io<f32>>(simd: S, x: &[f32]) -> f32 {
    let least = simd.splat(<S::E as crate::num::exp2::Contract>::narrow(f64::NEG_INFINITY));
    let mut largest = [least; UNROLL];
    let turns = x.chunks_exact(UNROLL * S::LANES);
    let rest = scalar::read(turns.remainder());
    for x in turns {
        for (k, m) in largest.iter_mut().enumerate() {
            // SAFETY: there are UNROLL vectors, and k is less than that.
            *m = simd.max(unsafe { simd.load(x.as_ptr().add(k * S::LANES)) }, *m);
        }
    }
    let [a, b, c, d] = largest;
    let largest = simd.max_lane(simd.max(simd.max(a, b), simd.max(c, d)));
    rest.max(crate::num::exp2::Contract::widen(largest) as f32)
}

#[inline(always)]
pub(crate) fn copy<S: Io<f32>>(simd: S, x: &[f32], y: &mut [f32]) {
    let finish = Finish::new(x.as_ptr(), y.as_mut_ptr(), x.len().min(y.len()), Same);
    // SAFETY: both have that many elements, and one is borrowed mutably.
    unsafe { finish_row::<S, f32, f32, true>(simd, &finish) };
    simd.fence();
}

#[inline(always)]
pub(crate) fn scale<S: Io<f32>>(simd: S, x: &mut [f32], factor: f32) {
    let by = simd.splat(<S::E as crate::num::exp2::Contract>::narrow(factor.into()));
    let mut turns = x.chunks_exact_mut(UNROLL * S::LANES);
    for x in turns.by_ref() {
        for k in 0..UNROLL {
            // SAFETY: there are UNROLL vectors, and k is less than that.
            unsafe {
                let x = x.as_mut_ptr().add(k * S::LANES);
                simd.store(x, simd.mul(simd.load(x.cast_const()), by));
            }
        }
    }
    scalar::scale(turns.into_remainder(), factor);
}

/// More chains than any CPU needs.
const MOST_CHAINS: usize = 12;

#[inline(always)]
#[allow(clippy::needless_range_loop)] // as indices the loops unroll into registers
pub(crate) fn arithmetic<S: Io<<S as Vector>::E>>(simd: S, turns: usize) -> u64 {
    use crate::num::exp2::Contract;
    const { assert!(S::CHAINS <= MOST_CHAINS) };
    // Values stay near 1.
    let (a, b) = black_box((0.75, 0.25));
    let (a, b) = (simd.splat(S::E::narrow(a)), simd.splat(S::E::narrow(b)));
    // Hidden from the compiler, which would merge equal chains, and equal halves of a vector.
    let start = black_box([[S::E::narrow(0.5); MOST_LANES]; MOST_CHAINS]);
    // SAFETY: there are LANES elements.
    let mut chains = [unsafe { simd.load(start[0].as_ptr()) }; MOST_CHAINS];
    for k in 1..S::CHAINS {
        // SAFETY: as above.
        chains[k] = unsafe { simd.load(start[k].as_ptr()) };
    }
    for _ in 0..turns {
        for k in 0..S::CHAINS {
            chains[k] = if S::FUSED {
                simd.fma(chains[k], a, b)
            } else {
                simd.add(simd.mul(chains[k], a), b)
            };
        }
    }
    let mut sum = chains[0];
    for k in 1..S::CHAINS {
        sum = simd.add(sum, chains[k]);
    }
    // The maximum of all lanes, or only some lanes would be computed.
    black_box(simd.max_lane(sum).widen());
    (turns * S::CHAINS * S::LANES * if S::FUSED { 1 } else { 2 }) as u64
}
