//! The element types of a matrix.

use half::{bf16, f16};

pub(crate) mod sealed {
    use super::{ByType, Element, Family, Plain};

    /// What kernels need from an element type. Sealed: no other crate can name or implement it.
    #[doc(hidden)]
    pub trait Internal: Plain {
        /// Its negative: another sign, and nothing else.
        fn minus(self) -> Self;
        /// The entry for this type.
        fn of<F: Family>(all: &ByType<F>) -> &F::Of<Self>
        where
            Self: Element;
        /// A row that is of its arithmetic type.
        fn arithmetic(x: &[Self]) -> Option<&[Self::Arithmetic]>
        where
            Self: Element;
    }
}

/// An element of a matrix: `f32`, `f64`, [`half::f16`] or [`half::bf16`].
///
/// `f16` and `bf16` are widened to f32, computed with, and rounded to nearest even once at the
/// store.
pub trait Element: Copy + Send + Sync + std::fmt::Debug + 'static + sealed::Internal {
    /// The type of the arithmetic: f64 for f64, f32 for all others. Log-sum-exps of attention have
    /// it.
    type Arithmetic: Element;
    /// The name of the type in files and messages.
    const NAME: &'static str;
    /// 0.
    const ZERO: Self;
    /// The one NaN that results carry: quiet, positive, without payload.
    const NAN: Self;
    /// Minus infinity.
    const NEG_INFINITY: Self;
    /// Infinity.
    const INFINITY: Self;
    /// Whether the arithmetic type is this type (f32, f64) and not f32 in its place.
    const IS_ARITHMETIC: bool;
    /// The value, exactly.
    fn to_f64(self) -> f64;
    /// The nearest value of this type, ties to even; f16 and bf16 are rounded to f32 first. (The
    /// f64 conversions of `half` 2.7 round differently on different CPUs.)
    fn from_f64(x: f64) -> Self;
}

/// A row that is of its arithmetic type; `None` for rows of f16 and bf16.
#[doc(hidden)]
pub fn arithmetic<T: Element>(x: &[T]) -> Option<&[T::Arithmetic]> {
    T::arithmetic(x)
}

/// Something that exists once for every element type.
#[doc(hidden)]
pub trait Family {
    type Of<T: Element>: 'static;
}

/// One entry for every element type.
#[doc(hidden)]
#[allow(missing_debug_implementations)]
pub struct ByType<F: Family> {
    pub(crate) f32: F::Of<f32>,
    pub(crate) f64: F::Of<f64>,
    pub(crate) f16: F::Of<f16>,
    pub(crate) bf16: F::Of<bf16>,
}

macro_rules! element {
    ($t:ident, $field:ident, $e:ident, $arithmetic:literal, $zero:expr, $nan:expr, $to:expr, $from:expr, $same:expr) => {
        impl Element for $t {
            type Arithmetic = $e;
            const NAME: &'static str = stringify!($t);
            const ZERO: Self = $zero;
            const NAN: Self = $nan;
            const NEG_INFINITY: Self = $t::NEG_INFINITY;
            const INFINITY: Self = $t::INFINITY;
            const IS_ARITHMETIC: bool = $arithmetic;
            #[inline(always)]
            fn to_f64(self) -> f64 {
                $to(self)
            }
            #[inline(always)]
            fn from_f64(x: f64) -> Self {
                $from(x)
            }
        }

        impl sealed::Internal for $t {
            #[inline(always)]
            fn minus(self) -> Self {
                -self
            }
            fn of<F: Family>(all: &ByType<F>) -> &F::Of<Self> {
                &all.$field
            }
            fn arithmetic(x: &[Self]) -> Option<&[$e]> {
                $same(x)
            }
        }
    };
}

element!(f32, f32, f32, true, 0.0, f32::from_bits(0x7fc0_0000), f64::from, |x| x as f32, Some);

element!(f64, f64, f64, true, 0.0, f64::from_bits(0x7ff8_0000_0000_0000), |x| x, |x| x, Some);

// Integer operations alone: the other conversions of `half` use F16C wherever CPUID reports it,
// even if the system has switched the registers off that it needs.
element!(
    f16,
    f16,
    f32,
    false,
    f16::ZERO,
    f16::from_bits(0x7e00),
    f16::to_f64_const,
    |x| { f16::from_f32_const(x as f32) },
    |_| None
);

element!(
    bf16,
    bf16,
    f32,
    false,
    bf16::ZERO,
    bf16::from_bits(0x7fc0),
    bf16::to_f64_const,
    |x| { bf16::from_f32_const(x as f32) },
    |_| None
);

/// Elements as f64. Not inlined: conversions of half types are long, and were half of the code for
/// attention in f64.
#[inline(never)]
pub(crate) fn widened<T: Element, const N: usize>(x: [T; N]) -> [f64; N] {
    x.map(T::to_f64)
}

macro_rules! plain {
    ($($t:ty),*) => {
        $(
            // SAFETY: plain numbers.
            unsafe impl Plain for $t {}
        )*
    };
}

plain!(f32, f64, f16, bf16, u8, u32, i64, u64, usize, [u64; 2]);

/// Types for which every bit pattern is a valid value.
///
/// # Safety
/// They have no padding, no pointers and no invalid values, and need no more alignment than a cache
/// line has.
pub unsafe trait Plain: Copy {}

#[cfg(test)]
mod tests {
    use super::*;

    /// `half` uses the CPU's conversion instructions here, where there are any.
    #[test]
    fn conversions_of_half_types_are_those_of_the_cpu() {
        for bits in 0..=u16::MAX {
            let (a, b) = (f16::from_bits(bits), bf16::from_bits(bits));
            let same = |ours: f64, theirs: f32| {
                ours.to_bits() == f64::from(theirs).to_bits() || ours.is_nan() && theirs.is_nan()
            };
            assert!(same(Element::to_f64(a), f16::to_f32(a)), "f16 {bits:#x}");
            assert!(same(Element::to_f64(b), bf16::to_f32(b)), "bf16 {bits:#x}");
        }
        // All exponents; ties, their neighbours, and values between them.
        let beside_ties = (0..=u16::MAX).flat_map(|upper| {
            let upper = u32::from(upper) << 16;
            [0, 1, 0xfff, 0x1000, 0x1001, 0x2fff, 0x3000, 0x3001, 0x7fff, 0x8000, 0x8001, 0xffff]
                .map(|lower| upper | lower)
        });
        for bits in beside_ties.chain((0..u32::MAX).step_by(65_521)) {
            let x = f32::from_bits(bits);
            let (a, b) = (f16::from_f32(x), bf16::from_f32(x));
            let (ours_a, ours_b) =
                (<f16 as Element>::from_f64(x.into()), <bf16 as Element>::from_f64(x.into()));
            assert!(ours_a.to_bits() == a.to_bits() || x.is_nan() && ours_a.is_nan(), "{bits:#x}");
            assert!(ours_b.to_bits() == b.to_bits() || x.is_nan() && ours_b.is_nan(), "{bits:#x}");
        }
    }
}
