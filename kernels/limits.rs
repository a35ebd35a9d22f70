//! The machine's own limits: loops that do nothing but read, copy, scale or multiply and add. Softmax is measured against them.

use std::hint::black_box;

use crate::rows::to_aligned;
use crate::table::{Isa, Kernel};
use crate::vector::{Io, MOST_LANES, Vector};

/// The loops of a kernel. On a CPU that lacks the kernel's instructions the scalar ones run instead.
#[derive(Debug)]
pub struct Limits {
    read: fn(&[f32]) -> f32,
    copy: fn(&[f32], &mut [f32]),
    scale: fn(&mut [f32], f32),
    arithmetic_f32: fn(usize) -> u64,
    arithmetic_f64: fn(usize) -> u64,
}

impl Limits {
    /// Reads it all: the largest element.
    pub fn read(&self, x: &[f32]) -> f32 {
        (self.read)(x)
    }

    /// Copies `x` to `y` past the caches, where the CPU has such stores; as many elements as there are in both.
    pub fn copy(&self, x: &[f32], y: &mut [f32]) {
        let n = x.len().min(y.len());
        (self.copy)(&x[..n], &mut y[..n]);
    }

    /// Multiplies every element.
    pub fn scale(&self, x: &mut [f32], factor: f32) {
        (self.scale)(x, factor);
    }

    /// Does arithmetic for so many turns, in registers, and tells how many operations of one f32 that was: multiplications with an addition, or
    /// where the CPU cannot fuse them, multiplications and additions.
    pub fn arithmetic_f32(&self, turns: usize) -> u64 {
        (self.arithmetic_f32)(turns)
    }

    /// As [`Limits::arithmetic_f32`], of f64.
    pub fn arithmetic_f64(&self, turns: usize) -> u64 {
        (self.arithmetic_f64)(turns)
    }
}

impl Kernel {
    /// The loops of this kernel.
    #[doc(hidden)]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }
}

/// The loops on an instruction set.
pub(crate) const fn limits_of<I, S, D>() -> Limits
where
    I: Isa,
    S: From<I> + Io<f32> + Io<<S as Vector>::E>,
    D: From<I> + Io<<D as Vector>::E>,
{
    Limits {
        read: entry::read::<I, S>,
        copy: entry::copy::<I, S>,
        scale: entry::scale::<I, S>,
        arithmetic_f32: entry::arithmetic::<I, S>,
        arithmetic_f64: entry::arithmetic::<I, D>,
    }
}

/// Plain loops.
pub(crate) const fn reference() -> Limits {
    Limits {
        read: scalar::read,
        copy: scalar::copy,
        scale: scalar::scale,
        arithmetic_f32: scalar::arithmetic,
        arithmetic_f64: scalar::arithmetic,
    }
}

mod entry {
    use super::*;

    pub(super) fn read<I: Isa, S: From<I> + Io<f32>>(x: &[f32]) -> f32 {
        let Some(isa) = I::detect() else { return scalar::read(x) };
        let mut largest = 0.0;
        isa.vectorize(
            #[inline(always)]
            || largest = super::read(S::from(isa), x),
        );
        largest
    }

    pub(super) fn copy<I: Isa, S: From<I> + Io<f32>>(x: &[f32], y: &mut [f32]) {
        let Some(isa) = I::detect() else { return scalar::copy(x, y) };
        isa.vectorize(
            #[inline(always)]
            || super::copy(S::from(isa), x, y),
        );
    }

    pub(super) fn scale<I: Isa, S: From<I> + Io<f32>>(x: &mut [f32], factor: f32) {
        let Some(isa) = I::detect() else { return scalar::scale(x, factor) };
        isa.vectorize(
            #[inline(always)]
            || super::scale(S::from(isa), x, factor),
        );
    }

    pub(super) fn arithmetic<I: Isa, S: From<I> + Io<<S as Vector>::E>>(turns: usize) -> u64 {
        let Some(isa) = I::detect() else { return scalar::arithmetic(turns) };
        let mut operations = 0;
        isa.vectorize(
            #[inline(always)]
            || operations = super::arithmetic(S::from(isa), turns),
        );
        operations
    }
}

mod scalar {
    use super::*;

    pub(super) fn read(x: &[f32]) -> f32 {
        x.iter().fold(f32::NEG_INFINITY, |largest, &x| if x > largest { x } else { largest })
    }

    pub(super) fn copy(x: &[f32], y: &mut [f32]) {
        y.copy_from_slice(x);
    }

    pub(super) fn scale(x: &mut [f32], factor: f32) {
        x.iter_mut().for_each(|x| *x *= factor);
    }

    pub(super) fn arithmetic(turns: usize) -> u64 {
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
fn read<S: Io<f32>>(simd: S, x: &[f32]) -> f32 {
    let least = simd.splat(<S::E as crate::exp2::Contract>::narrow(f64::NEG_INFINITY));
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
    rest.max(crate::exp2::Contract::widen(largest) as f32)
}

#[inline(always)]
fn copy<S: Io<f32>>(simd: S, x: &[f32], y: &mut [f32]) {
    let head = to_aligned::<S, f32>(y.as_mut_ptr()).min(y.len());
    let (y_head, y) = y.split_at_mut(head);
    let (x_head, x) = x.split_at(head);
    y_head.copy_from_slice(x_head);
    let mut y = y.chunks_exact_mut(S::LANES);
    let mut x = x.chunks_exact(S::LANES);
    for (x, y) in x.by_ref().zip(y.by_ref()) {
        // SAFETY: both are a vector long; whole vectors lie between `y` and an address that is a multiple of a vector's size.
        unsafe { simd.stream(y.as_mut_ptr(), simd.load(x.as_ptr())) };
    }
    y.into_remainder().copy_from_slice(x.remainder());
    simd.fence();
}

#[inline(always)]
fn scale<S: Io<f32>>(simd: S, x: &mut [f32], factor: f32) {
    let by = simd.splat(<S::E as crate::exp2::Contract>::narrow(factor.into()));
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

/// More than any CPU wants.
const MOST_CHAINS: usize = 12;

#[inline(always)]
#[allow(clippy::needless_range_loop)] // as indices the loops unroll into registers
fn arithmetic<S: Io<<S as Vector>::E>>(simd: S, turns: usize) -> u64 {
    use crate::exp2::Contract;
    const { assert!(S::CHAINS <= MOST_CHAINS) };
    // Values stay near 1.
    let (a, b) = black_box((0.75, 0.25));
    let (a, b) = (simd.splat(S::E::narrow(a)), simd.splat(S::E::narrow(b)));
    // Unknown to the compiler, which else makes one chain of those that are alike, and one of the parts of a vector.
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
    // Of all lanes, or else only some of them would be computed.
    black_box(simd.max_lane(sum).widen());
    (turns * S::CHAINS * S::LANES * if S::FUSED { 1 } else { 2 }) as u64
}

#[cfg(test)]
mod tests {
    use crate::table::all;

    #[test]
    fn loops_do_what_they_say() {
        for kernel in all().iter().filter(|kernel| kernel.is_available()) {
            let limits = kernel.limits();
            for n in [0, 1, 15, 16, 63, 64, 65, 1000, 4099] {
                let x: Vec<f32> = (0..n).map(|i| (i * 7919 % 4099) as f32).collect();
                let largest = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                assert_eq!(limits.read(&x), largest, "{} {n}", kernel.name());
                let mut y = vec![-1.0; n + 1];
                limits.copy(&x, &mut y[1..]);
                assert_eq!((y[0], &y[1..]), (-1.0, &x[..]), "{} {n}", kernel.name());
                limits.scale(&mut y, 0.5);
                assert!(y[1..].iter().zip(&x).all(|(y, x)| *y == 0.5 * x), "{} {n}", kernel.name());
            }
            assert!(limits.arithmetic_f32(3) > 0 && limits.arithmetic_f64(3) > 0);
            assert_eq!(limits.arithmetic_f32(6), 2 * limits.arithmetic_f32(3));
        }
    }
}
