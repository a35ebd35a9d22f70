//! Element types in files, and conversions between them.

use bytemuck::{Pod, cast_slice_mut, pod_read_unaligned};
use half::{bf16, f16};
use rayon::prelude::*;
use softmax::Element;

#[cfg(target_endian = "big")]
compile_error!("files are little-endian and are used without swapping bytes");

/// An element type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Dtype {
    F32,
    F64,
    F16,
    Bf16,
}

impl Dtype {
    /// Number of bytes of an element.
    pub fn size(self) -> usize {
        match self {
            Self::F64 => 8,
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => f32::NAME,
            Self::F64 => f64::NAME,
            Self::F16 => f16::NAME,
            Self::Bf16 => bf16::NAME,
        }
    }

    /// The type to compute in: that of input and output if they agree, else the wider one, at least
    /// f32.
    pub fn between(from: Self, to: Self) -> Self {
        match (from, to) {
            _ if from == to => from,
            (Self::F64, _) | (_, Self::F64) => Self::F64,
            _ => Self::F32,
        }
    }
}

/// The Rust type of a [`Dtype`].
pub trait Value: Element + Pod {
    const DTYPE: Dtype;
    /// The nearest value, ties to even, rounded once.
    fn nearest(x: f64) -> Self;
}

impl Value for f64 {
    const DTYPE: Dtype = Dtype::F64;
    fn nearest(x: f64) -> Self {
        x
    }
}

impl Value for f32 {
    const DTYPE: Dtype = Dtype::F32;
    fn nearest(x: f64) -> Self {
        x as f32
    }
}

// Not `from_f64`, which here and in the crate half goes through f32 and so rounds twice.

impl Value for f16 {
    const DTYPE: Dtype = Dtype::F16;
    fn nearest(x: f64) -> Self {
        Self::from_f32_const(to_odd(x))
    }
}

impl Value for bf16 {
    const DTYPE: Dtype = Dtype::Bf16;
    fn nearest(x: f64) -> Self {
        Self::from_f32_const(to_odd(x))
    }
}

/// Rounds to odd: `x` if it is an f32, else the one of its two neighbours whose last bit is 1. That
/// is never a tie of a shorter type, so rounding it again gives the same as rounding `x` once.
fn to_odd(x: f64) -> f32 {
    let nearest = x as f32;
    if f64::from(nearest) == x || x.is_nan() {
        return nearest;
    }
    let away = f64::from(nearest).abs() > x.abs();
    f32::from_bits((nearest.to_bits() - u32::from(away)) | 1)
}

/// Elements that one thread converts at a time.
const CHUNK: usize = 1 << 16;

/// Decodes elements of type `from` in `bytes`, at any alignment, to `C`: the same type, or one that
/// has all its values.
pub fn decode<C: Value>(from: Dtype, bytes: &[u8], to: &mut [C]) {
    fn widen<A: Value, C: Value>(bytes: &[u8], to: &mut [C]) {
        let parts = bytes.par_chunks(CHUNK * size_of::<A>());
        to.par_chunks_mut(CHUNK).zip(parts).for_each(|(to, bytes)| {
            for (c, a) in to.iter_mut().zip(bytes.chunks_exact(size_of::<A>())) {
                *c = C::nearest(pod_read_unaligned::<A>(a).to_f64());
            }
        });
    }
    match from {
        _ if from == C::DTYPE => cast_slice_mut(to).copy_from_slice(bytes),
        Dtype::F32 => widen::<f32, C>(bytes, to),
        Dtype::F64 => widen::<f64, C>(bytes, to),
        Dtype::F16 => widen::<f16, C>(bytes, to),
        Dtype::Bf16 => widen::<bf16, C>(bytes, to),
    }
}

/// Encodes elements as type `to`, each rounded once.
pub fn encode<C: Value>(from: &[C], to: Dtype, bytes: &mut [u8]) {
    fn narrow<C: Value, B: Value>(from: &[C], bytes: &mut [u8]) {
        let parts = bytes.par_chunks_mut(CHUNK * size_of::<B>());
        from.par_chunks(CHUNK).zip(parts).for_each(|(from, bytes)| {
            for (c, b) in from.iter().zip(bytes.chunks_exact_mut(size_of::<B>())) {
                b.copy_from_slice(bytemuck::bytes_of(&B::nearest(c.to_f64())));
            }
        });
    }
    match to {
        Dtype::F32 => narrow::<C, f32>(from, bytes),
        Dtype::F64 => narrow::<C, f64>(from, bytes),
        Dtype::F16 => narrow::<C, f16>(from, bytes),
        Dtype::Bf16 => narrow::<C, bf16>(from, bytes),
    }
}

/// `x` rounded to the type `to`.
pub fn stored(x: f64, to: Dtype) -> f64 {
    match to {
        Dtype::F32 => f32::nearest(x).to_f64(),
        Dtype::F64 => x,
        Dtype::F16 => f16::nearest(x).to_f64(),
        Dtype::Bf16 => bf16::nearest(x).to_f64(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_rounded_once() {
        // A tie is rounded to even, and anything above it up.
        let half_ulp = 2f64.powi(-11);
        assert_eq!(f16::nearest(1.0 + half_ulp).to_bits(), 0x3c00);
        assert_eq!(f16::nearest(1.0 + half_ulp + 2f64.powi(-40)).to_bits(), 0x3c01);
        assert_eq!(f16::nearest(-1.0 - half_ulp - 2f64.powi(-50)).to_bits(), 0xbc01);
        assert_eq!(bf16::nearest(1.0 + 2f64.powi(-8)).to_bits(), 0x3f80);
        assert_eq!(bf16::nearest(1.0 + 2f64.powi(-8) + 2f64.powi(-22)).to_bits(), 0x3f81);
        assert_eq!(bf16::nearest(1.0 + 2f64.powi(-8) + 2f64.powi(-52)).to_bits(), 0x3f81);
        // The ends of the range.
        assert_eq!(f16::nearest(65520.0).to_bits(), 0x7c00);
        assert_eq!(f16::nearest(65520.0f64.next_down()).to_bits(), 0x7bff);
        assert_eq!(f16::nearest(2f64.powi(-25)).to_bits(), 0);
        assert_eq!(f16::nearest(2f64.powi(-25).next_up()).to_bits(), 1);
        assert_eq!(f16::nearest(1e300).to_bits(), 0x7c00);
        assert_eq!(bf16::nearest(f64::MIN_POSITIVE).to_bits(), 0);
        assert_eq!(bf16::nearest(f64::NEG_INFINITY), bf16::NEG_INFINITY);
        assert!(f16::nearest(f64::NAN).is_nan());
    }

    #[test]
    fn every_half_survives_the_way_to_f64_and_back() {
        for bits in 0..=u16::MAX {
            let (a, b) = (f16::from_bits(bits), bf16::from_bits(bits));
            assert!(a.is_nan() || f16::nearest(a.to_f64()).to_bits() == bits, "f16 {bits:#06x}");
            assert!(b.is_nan() || bf16::nearest(b.to_f64()).to_bits() == bits, "bf16 {bits:#06x}");
        }
    }
}
