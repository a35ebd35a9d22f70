//! How AArch64's NEON does the operations of [`Vector`].

use std::arch::aarch64::*;
use std::arch::asm;

use half::{bf16, f16};
use pulp::aarch64::Neon;

use crate::isa::registers::{
    each, elementwise, f32_alike, f64_alike, memory, narrow_io, one_lane, sums_in_order,
    sums_one_by_one, token, tokens,
};
use crate::isa::vector::{Across, Io, Vector, fold_f32_lanes};
use crate::num::exp2::{Contract, Sum};

tokens!(Neon);

/// [`Vector::prefetch`] in assembly, because its intrinsic is not stable.
macro_rules! prefetch {
    () => {
        #[inline(always)]
        fn prefetch<T>(self, p: *const T) {
            // SAFETY: a prefetch accesses nothing, whatever the address.
            unsafe {
                asm!("prfm pldl1keep, [{0}]", in(reg) p, options(nostack, preserves_flags, readonly))
            };
        }
    };
}

impl Vector for F32 {
    type V = [float32x4_t; 4];
    /// The eight entries as bytes.
    type Table = uint8x16x2_t;
    token!(Neon);
    prefetch!();
    f32_alike!();
    sums_in_order!();
    sums_one_by_one!();

    elementwise! { 4, s:
        splat(x) = s.0.neon.vdupq_n_f32(x);
        add(a, b) = s.0.neon.vaddq_f32(a, b);
        sub(a, b) = s.0.neon.vsubq_f32(a, b);
        mul(a, b) = s.0.neon.vmulq_f32(a, b);
        div(a, b) = s.0.neon.vdivq_f32(a, b);
        max(a, b) = s.0.neon.vmaxq_f32(a, b);
        min(a, b) = s.0.neon.vminq_f32(a, b);
        fma(a, b, c) = s.0.neon.vfmaq_f32(c, a, b);
        select_below(x, cut, a, b) = s.0.neon.vbslq_f32(s.0.neon.vcltq_f32(x, cut), a, b);
        zero_below(x, cut, e) = {
            let (n, below) = (s.0.neon, s.0.neon.vcltq_f32(x, cut));
            n.vreinterpretq_f32_u32(n.vbicq_u32(n.vreinterpretq_u32_f32(e), below))
        };
        lookup[table](t) = {
            let (n, t) = (s.0.neon, s.0.neon.vreinterpretq_u32_f32(t));
            let j = n.vandq_u32(t, n.vdupq_n_u32(7));
            // Entry j has the bytes 4j to 4j + 3.
            let bytes = n.vmlaq_u32(n.vdupq_n_u32(0x0302_0100), j, n.vdupq_n_u32(0x0404_0404));
            let entry = n.vqtbl2q_u8(table, n.vreinterpretq_u8_u32(bytes));
            let power = n.vshlq_n_u32::<{ f32::SHIFT as i32 }>(t);
            n.vreinterpretq_f32_u32(n.vaddq_u32(n.vreinterpretq_u32_u8(entry), power))
        };
    }
    #[inline(always)]
    fn select_bits(self, bits: u32, a: Self::V, b: Self::V) -> Self::V {
        let (n, lanes) = (self.0.neon, pulp::cast([1u32, 2, 4, 8]));
        each!(4, |k| {
            let set = n.vtstq_u32(n.vdupq_n_u32(bits >> (4 * k)), lanes);
            n.vbslq_f32(set, a[k], b[k])
        })
    }
    one_lane! { s:
        first_lane(a) = s.0.neon.vgetq_lane_f32::<0>(a[0]);
        max_lane(a) = {
            let n = s.0.neon;
            n.vmaxvq_f32(n.vmaxq_f32(n.vmaxq_f32(a[0], a[1]), n.vmaxq_f32(a[2], a[3])))
        };
        min_lane(a) = {
            let n = s.0.neon;
            n.vminvq_f32(n.vminq_f32(n.vminq_f32(a[0], a[1]), n.vminq_f32(a[2], a[3])))
        };
    }
    #[inline(always)]
    fn table(self, m: i32) -> uint8x16x2_t {
        let (n, m) = (self.0.neon, self.0.neon.vdupq_n_u32((m as u32) << 23));
        let table: [uint32x4_t; 2] = pulp::cast(f32::TABLE);
        let [low, high] = each!(2, |k| n.vreinterpretq_u8_u32(n.vsubq_u32(table[k], m)));
        uint8x16x2_t(low, high)
    }
    #[inline(always)]
    fn acc_fold(self, acc: Self::Acc) -> Sum {
        fold_f32_lanes(self.wide(), acc)
    }
    #[inline(always)]
    fn widen(self, v: Self::V) -> [[float64x2_t; 4]; 2] {
        let n = self.0.neon;
        each!(2, |k| {
            let (a, b) = (v[2 * k], v[2 * k + 1]);
            [
                n.vcvt_f64_f32(n.vget_low_f32(a)),
                n.vcvt_high_f64_f32(a),
                n.vcvt_f64_f32(n.vget_low_f32(b)),
                n.vcvt_high_f64_f32(b),
            ]
        })
    }
    #[inline(always)]
    fn narrow(self, v: [[float64x2_t; 4]; 2]) -> Self::V {
        let n = self.0.neon;
        each!(4, |k| {
            let (half, at) = (v[k / 2], k % 2 * 2);
            n.vcvt_high_f32_f64(n.vcvt_f32_f64(half[at]), half[at + 1])
        })
    }
}

impl Vector for F64 {
    type V = [float64x2_t; 4];
    type Table = [u64; 8];
    token!(Neon);
    prefetch!();
    f64_alike!(pulp::cast);

    elementwise! { 4, s:
        splat(x) = s.0.neon.vdupq_n_f64(x);
        add(a, b) = s.0.neon.vaddq_f64(a, b);
        sub(a, b) = s.0.neon.vsubq_f64(a, b);
        mul(a, b) = s.0.neon.vmulq_f64(a, b);
        div(a, b) = s.0.neon.vdivq_f64(a, b);
        max(a, b) = s.0.neon.vmaxq_f64(a, b);
        min(a, b) = s.0.neon.vminq_f64(a, b);
        fma(a, b, c) = s.0.neon.vfmaq_f64(c, a, b);
        select_below(x, cut, a, b) = s.0.neon.vbslq_f64(s.0.neon.vcltq_f64(x, cut), a, b);
        zero_below(x, cut, e) = {
            let (n, below) = (s.0.neon, s.0.neon.vcltq_f64(x, cut));
            n.vreinterpretq_f64_u64(n.vbicq_u64(n.vreinterpretq_u64_f64(e), below))
        };
        lookup[table](t) = {
            let (n, t) = (s.0.neon, s.0.neon.vreinterpretq_u64_f64(t));
            let [i, j]: [u64; 2] = pulp::cast(t);
            let entry = pulp::cast([table[(i & 7) as usize], table[(j & 7) as usize]]);
            let power = n.vshlq_n_u64::<{ f64::SHIFT as i32 }>(t);
            n.vreinterpretq_f64_u64(n.vaddq_u64(entry, power))
        };
    }
    #[inline(always)]
    fn select_bits(self, bits: u32, a: Self::V, b: Self::V) -> Self::V {
        let (n, lanes) = (self.0.neon, pulp::cast([1u64, 2]));
        each!(4, |k| {
            let set = n.vtstq_u64(n.vdupq_n_u64((bits >> (2 * k)).into()), lanes);
            n.vbslq_f64(set, a[k], b[k])
        })
    }
    one_lane! { s:
        first_lane(a) = s.0.neon.vgetq_lane_f64::<0>(a[0]);
        max_lane(a) = {
            let n = s.0.neon;
            n.vmaxvq_f64(n.vmaxq_f64(n.vmaxq_f64(a[0], a[1]), n.vmaxq_f64(a[2], a[3])))
        };
        min_lane(a) = {
            let n = s.0.neon;
            n.vminvq_f64(n.vminq_f64(n.vminq_f64(a[0], a[1]), n.vminq_f64(a[2], a[3])))
        };
    }
    #[inline(always)]
    fn table(self, m: i32) -> [u64; 8] {
        f64::TABLE.map(|entry| entry.wrapping_sub((i64::from(m) << 52) as u64))
    }
}

impl F32 {
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
    /// Rounds ties to even. Right for the one NaN [`NAN`](crate::num::element::Element::NAN) only,
    /// which stays a NaN when it is rounded: no other reaches this.
    #[inline(always)]
    fn narrow_bf16(self, v: float32x4_t) -> uint16x4_t {
        let n = self.0.neon;
        let bits = n.vreinterpretq_u32_f32(v);
        let odd = n.vandq_u32(n.vshrq_n_u32::<16>(bits), n.vdupq_n_u32(1));
        let bias = n.vaddq_u32(odd, n.vdupq_n_u32(0x7fff));
        n.vshrn_n_u32::<16>(n.vaddq_u32(bits, bias))
    }
}

memory! { F32, 4 of 4 f32, s:
    load(p) = s.0.neon.vld1q_f32(p);
    store(p, v) = s.0.neon.vst1q_f32(p, v);
}
memory! { F32, 4 of 4 f16, s:
    load(p) = s.widen_f16(s.0.neon.vld1_u16(p.cast()));
    store(p, v) = s.0.neon.vst1_u16(p.cast(), s.narrow_f16(v));
}
memory! { F32, 4 of 4 bf16, s:
    load(p) = {
        let wide = s.0.neon.vshll_n_u16::<16>(s.0.neon.vld1_u16(p.cast()));
        s.0.neon.vreinterpretq_f32_u32(wide)
    };
    store(p, v) = s.0.neon.vst1_u16(p.cast(), s.narrow_bf16(v));
}
memory! { F64, 4 of 2 f64, s:
    load(p) = s.0.neon.vld1q_f64(p);
    store(p, v) = s.0.neon.vst1q_f64(p, v);
}
memory! { F64, 4 of 2 f32, s:
    load(p) = s.0.neon.vcvt_f64_f32(s.0.neon.vld1_f32(p));
    store(p, v) = s.0.neon.vst1_f32(p, s.0.neon.vcvt_f32_f64(v));
}
narrow_io!(F64, 8, f16, bf16);

impl Across for F32 {
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
    #[inline(always)]
    fn zip(self, a: Self::V, b: Self::V) -> [Self::V; 2] {
        let n = self.0.neon;
        let [low, high] = each!(2, |h| each!(2, |k| {
            let (a, b) = (a[2 * h + k], b[2 * h + k]);
            [n.vzip1q_f32(a, b), n.vzip2q_f32(a, b)]
        }));
        [pulp::cast(low), pulp::cast(high)]
    }
}

impl Across for F64 {
    #[inline(always)]
    fn less(self, a: Self::V, b: Self::V) -> u32 {
        let n = self.0.neon;
        let weights: uint64x2_t = pulp::cast([1u64, 2]);
        let mut bits = 0;
        for k in 0..4 {
            let lanes = n.vandq_u64(n.vcltq_f64(a[k], b[k]), weights);
            bits |= (n.vaddvq_u64(lanes) as u32) << (2 * k);
        }
        bits
    }
    #[inline(always)]
    fn zip(self, a: Self::V, b: Self::V) -> [Self::V; 2] {
        let n = self.0.neon;
        let [low, high] = each!(2, |h| each!(2, |k| {
            let (a, b) = (a[2 * h + k], b[2 * h + k]);
            [n.vzip1q_f64(a, b), n.vzip2q_f64(a, b)]
        }));
        [pulp::cast(low), pulp::cast(high)]
    }
}
