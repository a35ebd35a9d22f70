//! How AArch64's NEON does the operations of [`Vector`].

use crate::isa::vector::{
    Bands, Io, Vector, acc_of_pairs, inverses_f32, log_softmax_f64, narrow_io, part,
    sums_one_by_one, two_sum_lanes,
};
use crate::num::exp2::Contract;
use crate::num::exp2::{Sum, fold_f32, fold_f64};
use crate::num::scale::LogShift;
use half::bf16;
use half::f16;
use std::arch::asm;
use std::array::from_fn;

use std::arch::aarch64::*;

/// Whether this CPU has it.
pub(crate) fn is_available() -> bool {
    pulp::aarch64::Neon::try_new().is_some()
}

/// f32 arithmetic: 16 lanes, four registers.
#[derive(Clone, Copy)]
pub(crate) struct F32(pulp::aarch64::Neon);

/// f64 arithmetic: 8 lanes, four registers.
#[derive(Clone, Copy)]
pub(crate) struct F64(pulp::aarch64::Neon);

/// One operation on each of the four registers.
macro_rules! each {
    (|$k:ident| $op:expr) => {
        from_fn(
            #[inline(always)]
            |$k| $op,
        )
    };
}

impl Vector for F32 {
    type E = f32;
    type V = [float32x4_t; 4];
    /// The eight entries as bytes.
    type Table = uint8x16x2_t;
    /// Two lanes each, in order.
    type Acc = [float64x2_t; 8];
    type Wide = F64;
    const LANES: usize = 16;

    #[inline(always)]
    unsafe fn assume() -> Self {
        // SAFETY: as this function's.
        Self(unsafe { pulp::aarch64::Neon::new_unchecked() })
    }
    #[inline(always)]
    fn vectorize<R>(self, f: impl FnOnce() -> R) -> R {
        self.0.vectorize(f)
    }
    #[inline(always)]
    fn wide(self) -> F64 {
        F64(self.0)
    }
    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        [self.0.neon.vdupq_n_f32(x); 4]
    }
    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        each!(|k| self.0.neon.vaddq_f32(a[k], b[k]))
    }
    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        each!(|k| self.0.neon.vsubq_f32(a[k], b[k]))
    }
    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        each!(|k| self.0.neon.vmulq_f32(a[k], b[k]))
    }
    #[inline(always)]
    fn div(self, a: Self::V, b: Self::V) -> Self::V {
        each!(|k| self.0.neon.vdivq_f32(a[k], b[k]))
    }
    #[inline(always)]
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        each!(|k| self.0.neon.vmaxq_f32(a[k], b[k]))
    }
    #[inline(always)]
    fn min(self, a: Self::V, b: Self::V) -> Self::V {
        each!(|k| self.0.neon.vminq_f32(a[k], b[k]))
    }
    #[inline(always)]
    fn min_not_below(self, m: Self::V, x: Self::V, cut: Self::V) -> Self::V {
        let n = self.0.neon;
        each!(|k| {
            let below = n.vcltq_f32(x[k], cut[k]);
            n.vminq_f32(n.vbslq_f32(below, m[k], x[k]), m[k])
        })
    }
    #[inline(always)]
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        each!(|k| self.0.neon.vfmaq_f32(c[k], a[k], b[k]))
    }
    #[inline(always)]
    fn select_below(self, x: Self::V, cut: Self::V, a: Self::V, b: Self::V) -> Self::V {
        let n = self.0.neon;
        each!(|k| n.vbslq_f32(n.vcltq_f32(x[k], cut[k]), a[k], b[k]))
    }
    #[inline(always)]
    fn zero_below(self, x: Self::V, cut: Self::V, e: Self::V) -> Self::V {
        let n = self.0.neon;
        each!(|k| {
            let below = n.vcltq_f32(x[k], cut[k]);
            n.vreinterpretq_f32_u32(n.vbicq_u32(n.vreinterpretq_u32_f32(e[k]), below))
        })
    }
    #[inline(always)]
    fn prefetch<T>(self, p: *const T) {
        // SAFETY: a prefetch accesses nothing, whatever the address.
        unsafe {
            asm!("prfm pldl1keep, [{0}]", in(reg) p, options(nostack, preserves_flags, readonly))
        };
    }
    #[inline(always)]
    fn first_lane(self, a: Self::V) -> f32 {
        self.0.neon.vgetq_lane_f32::<0>(a[0])
    }
    #[inline(always)]
    fn max_lane(self, a: Self::V) -> f32 {
        let n = self.0.neon;
        n.vmaxvq_f32(n.vmaxq_f32(n.vmaxq_f32(a[0], a[1]), n.vmaxq_f32(a[2], a[3])))
    }
    #[inline(always)]
    fn min_lane(self, a: Self::V) -> f32 {
        let n = self.0.neon;
        n.vminvq_f32(n.vminq_f32(n.vminq_f32(a[0], a[1]), n.vminq_f32(a[2], a[3])))
    }

    #[inline(always)]
    fn table(self, m: i32) -> uint8x16x2_t {
        let n = self.0.neon;
        let [low, high]: [uint32x4_t; 2] = pulp::cast(f32::TABLE);
        let m = n.vdupq_n_u32((m as u32) << 23);
        uint8x16x2_t(
            n.vreinterpretq_u8_u32(n.vsubq_u32(low, m)),
            n.vreinterpretq_u8_u32(n.vsubq_u32(high, m)),
        )
    }
    #[inline(always)]
    fn lookup(self, table: uint8x16x2_t, t: Self::V) -> Self::V {
        let n = self.0.neon;
        let seven = n.vdupq_n_u32(7);
        // Entry j is the bytes 4j to 4j + 3.
        let (four, bytes) = (n.vdupq_n_u32(0x0404_0404), n.vdupq_n_u32(0x0302_0100));
        each!(|k| {
            let t = n.vreinterpretq_u32_f32(t[k]);
            let index = n.vmlaq_u32(bytes, n.vandq_u32(t, seven), four);
            let entry = n.vqtbl2q_u8(table, n.vreinterpretq_u8_u32(index));
            let entry = n.vreinterpretq_u32_u8(entry);
            let power = n.vaddq_u32(entry, n.vshlq_n_u32::<{ f32::SHIFT as i32 }>(t));
            n.vreinterpretq_f32_u32(power)
        })
    }

    #[inline(always)]
    fn acc_zero(self) -> Self::Acc {
        [self.0.neon.vdupq_n_f64(0.0); 8]
    }
    #[inline(always)]
    fn acc_add(self, acc: Self::Acc, v: Self::V) -> Self::Acc {
        each!(|k| self.0.neon.vaddq_f64(acc[k], self.lanes(v[k / 2], k % 2 == 1)))
    }
    #[inline(always)]
    fn acc_plus(self, a: Self::Acc, b: Self::Acc) -> Self::Acc {
        each!(|k| self.0.neon.vaddq_f64(a[k], b[k]))
    }
    #[inline(always)]
    unsafe fn acc_inverses(self, acc: Self::Acc, hi: *mut f32, lo: *mut f32) -> bool {
        let sums = [[acc[0], acc[1], acc[2], acc[3]], [acc[4], acc[5], acc[6], acc[7]]];
        // SAFETY: as this function's.
        unsafe { inverses_f32(self.wide(), sums, hi, lo) }
    }
    #[inline(always)]
    fn acc_fold(self, acc: Self::Acc) -> Sum {
        fold_f32(pulp::cast(acc))
    }
    sums_one_by_one!();

    #[inline(always)]
    fn widen(self, v: Self::V) -> [[float64x2_t; 4]; 2] {
        [
            each!(|k| self.lanes(v[k / 2], k % 2 == 1)),
            each!(|k| self.lanes(v[2 + k / 2], k % 2 == 1)),
        ]
    }
    #[inline(always)]
    fn narrow(self, v: [[float64x2_t; 4]; 2]) -> Self::V {
        let n = self.0.neon;
        each!(|k| {
            let (half, at) = (v[k / 2], k % 2 * 2);
            n.vcvt_high_f32_f64(n.vcvt_f32_f64(half[at]), half[at + 1])
        })
    }
    #[inline(always)]
    fn log_softmax(self, x: Self::V, shift: &LogShift) -> Self::V {
        let n = self.0.neon;
        let (max, scale) = (n.vdupq_n_f64(shift.max), n.vdupq_n_f64(shift.scale.0));
        let minus_c = n.vdupq_n_f64(-shift.c.0);
        each!(|k| {
            let y: [float64x2_t; 2] = each!(|h| {
                let d = n.vsubq_f64(self.lanes(x[k], h == 1), max);
                n.vfmaq_f64(minus_c, d, scale)
            });
            n.vcvt_high_f32_f64(n.vcvt_f32_f64(y[0]), y[1])
        })
    }
}

impl Vector for F64 {
    type E = f64;
    type V = [float64x2_t; 4];
    type Table = [u64; 8];
    type Acc = (Self::V, Self::V);
    type Wide = F64;
    const LANES: usize = 8;

    #[inline(always)]
    unsafe fn assume() -> Self {
        // SAFETY: as this function's.
        Self(unsafe { pulp::aarch64::Neon::new_unchecked() })
    }
    #[inline(always)]
    fn vectorize<R>(self, f: impl FnOnce() -> R) -> R {
        self.0.vectorize(f)
    }
    #[inline(always)]
    fn wide(self) -> F64 {
        self
    }
    #[inline(always)]
    fn splat(self, x: f64) -> Self::V {
        [self.0.neon.vdupq_n_f64(x); 4]
    }
    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        each!(|k| self.0.neon.vaddq_f64(a[k], b[k]))
    }
    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        each!(|k| self.0.neon.vsubq_f64(a[k], b[k]))
    }
    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        each!(|k| self.0.neon.vmulq_f64(a[k], b[k]))
    }
    #[inline(always)]
    fn div(self, a: Self::V, b: Self::V) -> Self::V {
        each!(|k| self.0.neon.vdivq_f64(a[k], b[k]))
    }
    #[inline(always)]
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        each!(|k| self.0.neon.vmaxq_f64(a[k], b[k]))
    }
    #[inline(always)]
    fn min(self, a: Self::V, b: Self::V) -> Self::V {
        each!(|k| self.0.neon.vminq_f64(a[k], b[k]))
    }
    #[inline(always)]
    fn min_not_below(self, m: Self::V, x: Self::V, cut: Self::V) -> Self::V {
        let n = self.0.neon;
        each!(|k| {
            let below = n.vcltq_f64(x[k], cut[k]);
            n.vminq_f64(n.vbslq_f64(below, m[k], x[k]), m[k])
        })
    }
    #[inline(always)]
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        each!(|k| self.0.neon.vfmaq_f64(c[k], a[k], b[k]))
    }
    #[inline(always)]
    fn select_below(self, x: Self::V, cut: Self::V, a: Self::V, b: Self::V) -> Self::V {
        let n = self.0.neon;
        each!(|k| n.vbslq_f64(n.vcltq_f64(x[k], cut[k]), a[k], b[k]))
    }
    #[inline(always)]
    fn zero_below(self, x: Self::V, cut: Self::V, e: Self::V) -> Self::V {
        let n = self.0.neon;
        each!(|k| {
            let below = n.vcltq_f64(x[k], cut[k]);
            n.vreinterpretq_f64_u64(n.vbicq_u64(n.vreinterpretq_u64_f64(e[k]), below))
        })
    }
    #[inline(always)]
    fn prefetch<T>(self, p: *const T) {
        // SAFETY: a prefetch accesses nothing, whatever the address.
        unsafe {
            asm!("prfm pldl1keep, [{0}]", in(reg) p, options(nostack, preserves_flags, readonly))
        };
    }
    #[inline(always)]
    fn first_lane(self, a: Self::V) -> f64 {
        self.0.neon.vgetq_lane_f64::<0>(a[0])
    }
    #[inline(always)]
    fn max_lane(self, a: Self::V) -> f64 {
        let n = self.0.neon;
        n.vmaxvq_f64(n.vmaxq_f64(n.vmaxq_f64(a[0], a[1]), n.vmaxq_f64(a[2], a[3])))
    }
    #[inline(always)]
    fn min_lane(self, a: Self::V) -> f64 {
        let n = self.0.neon;
        n.vminvq_f64(n.vminq_f64(n.vminq_f64(a[0], a[1]), n.vminq_f64(a[2], a[3])))
    }

    #[inline(always)]
    fn table(self, m: i32) -> [u64; 8] {
        f64::TABLE.map(|entry| entry.wrapping_sub((i64::from(m) << 52) as u64))
    }
    #[inline(always)]
    fn lookup(self, table: [u64; 8], t: Self::V) -> Self::V {
        let n = self.0.neon;
        each!(|k| {
            let t = n.vreinterpretq_u64_f64(t[k]);
            let lanes: [u64; 2] = pulp::cast(t);
            let entry: uint64x2_t = pulp::cast(lanes.map(|t| table[(t & 7) as usize]));
            let power = n.vaddq_u64(entry, n.vshlq_n_u64::<{ f64::SHIFT as i32 }>(t));
            n.vreinterpretq_f64_u64(power)
        })
    }

    #[inline(always)]
    fn acc_zero(self) -> Self::Acc {
        (self.splat(0.0), self.splat(0.0))
    }
    #[inline(always)]
    fn acc_add(self, acc: Self::Acc, v: Self::V) -> Self::Acc {
        two_sum_lanes(self, acc, v)
    }
    #[inline(always)]
    fn acc_fold(self, acc: Self::Acc) -> Sum {
        fold_f64(pulp::cast(acc.0), pulp::cast(acc.1))
    }
    sums_one_by_one!();
    acc_of_pairs!();

    #[inline(always)]
    fn widen(self, v: Self::V) -> [Self::V; 2] {
        [v; 2]
    }
    #[inline(always)]
    fn narrow(self, v: [Self::V; 2]) -> Self::V {
        v[0]
    }
    #[inline(always)]
    fn log_softmax(self, x: Self::V, shift: &LogShift) -> Self::V {
        log_softmax_f64(self, x, shift)
    }
}

impl F32 {
    /// The lower or the upper two lanes as f64.
    #[inline(always)]
    fn lanes(self, v: float32x4_t, high: bool) -> float64x2_t {
        let n = self.0.neon;
        if high { n.vcvt_high_f64_f32(v) } else { n.vcvt_f64_f32(n.vget_low_f32(v)) }
    }
    #[inline(always)]
    fn widen_f16(self, h: uint16x4_t) -> float32x4_t {
        let v: float32x4_t;
        // SAFETY: fcvtl is part of NEON, which the token proves; it touches registers only.
        // (The intrinsic is not stable in Debian's compiler, which the tests under emulation use.)
        unsafe {
            asm!("fcvtl {0:v}.4s, {1:v}.4h", out(vreg) v, in(vreg) h, options(pure, nomem, nostack))
        };
        v
    }
    #[inline(always)]
    fn narrow_f16(self, v: float32x4_t) -> uint16x4_t {
        let h: uint16x4_t;
        // SAFETY: fcvtn is part of NEON, which the token proves; it touches registers only.
        unsafe {
            asm!("fcvtn {0:v}.4h, {1:v}.4s", out(vreg) h, in(vreg) v, options(pure, nomem, nostack))
        };
        h
    }
    #[inline(always)]
    fn widen_bf16(self, h: uint16x4_t) -> float32x4_t {
        self.0.neon.vreinterpretq_f32_u32(self.0.neon.vshll_n_u16::<16>(h))
    }
    /// Ties to even. Of NaNs it is right for `NAN` alone, which stays a NaN when it is rounded: no
    /// other reaches it.
    #[inline(always)]
    fn narrow_bf16(self, v: float32x4_t) -> uint16x4_t {
        let n = self.0.neon;
        let bits = n.vreinterpretq_u32_f32(v);
        let odd = n.vandq_u32(n.vshrq_n_u32::<16>(bits), n.vdupq_n_u32(1));
        let bias = n.vaddq_u32(odd, n.vdupq_n_u32(0x7fff));
        n.vshrn_n_u32::<16>(n.vaddq_u32(bits, bias))
    }
}

macro_rules! io {
    ($vector:ty, $t:ty, $quarter:literal, $self:ident, $load:expr, $store:expr) => {
        // SAFETY: the four quarters together are LANES elements; parts go through a buffer.
        unsafe impl Io<$t> for $vector {
            #[inline(always)]
            unsafe fn load($self, p: *const $t) -> Self::V {
                // SAFETY: the caller vouches for LANES elements, four quarters of them.
                each!(|k| unsafe { $load(p.add(k * $quarter)) })
            }
            #[inline(always)]
            unsafe fn store($self, p: *mut $t, v: Self::V) {
                for (k, v) in v.into_iter().enumerate() {
                    // SAFETY: the caller vouches for LANES elements, four quarters of them.
                    unsafe { $store(p.add(k * $quarter), v) };
                }
            }
            part!($t, 4 * $quarter);
        }
    };
}

io!(F32, f32, 4, self, |p| self.0.neon.vld1q_f32(p), |p, v| self.0.neon.vst1q_f32(p, v));

io!(F64, f64, 2, self, |p| self.0.neon.vld1q_f64(p), |p, v| self.0.neon.vst1q_f64(p, v));

io!(
    F32,
    f16,
    4,
    self,
    |p: *const f16| self.widen_f16(self.0.neon.vld1_u16(p.cast())),
    |p: *mut f16, v| self.0.neon.vst1_u16(p.cast(), self.narrow_f16(v))
);

io!(
    F32,
    bf16,
    4,
    self,
    |p: *const bf16| self.widen_bf16(self.0.neon.vld1_u16(p.cast())),
    |p: *mut bf16, v| self.0.neon.vst1_u16(p.cast(), self.narrow_bf16(v))
);

narrow_io!(F64, 8, f32, f16, bf16);

impl Bands for F32 {
    #[inline(always)]
    fn less(self, a: Self::V, b: Self::V) -> u32 {
        let n = self.0.neon;
        let weights: uint32x4_t = pulp::cast([1u32, 2, 4, 8]);
        let mut bits = 0;
        for k in 0..4 {
            let lanes = n.vandq_u32(n.vcltq_f32(a[k], b[k]), weights);
            bits |= n.vaddvq_u32(lanes) << (4 * k);
        }
        bits
    }
}
