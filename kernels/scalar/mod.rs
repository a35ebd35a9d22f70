//! The bit reference: the contract of `num/exp2.rs` and `sweep/` in plain loops over scalars.
//!
//! It shares with the vector kernels the constants, the views, the element types and the scalar
//! steps that are done once a row (the shift, the logarithm of the sum, a row's loss, the merging
//! of blocks), but no loop over elements. Every kernel must equal it bit for bit. It is slow, and
//! exists for that comparison, though it runs everywhere.

use crate::call::columns::Columns;
use crate::call::online::{FarTile, OnlineRow, TileCall, far_tile};
use crate::call::pieces::{BlockSum, Extremes, Piece, PieceOptions, RowShift, Whole};
use crate::call::ragged::RaggedCall;
use crate::call::scores::{
    Attend, Cap, Elements, FAR, MaskData, Row, Scores, far_scale, log_shift_of_pairs, sign,
};
use crate::call::{Call, Masked, Op};
use crate::num::element::Element;
use crate::num::exp2::{BLOCK, Contract, LANES_F32, LANES_F64, SHORT_POLY, Sum};
use crate::num::scale::{LogShift, Scale, Shift};

pub(crate) use sample::{excess, exps, hide, logs, noise, scan, widen};

/// The factor by which exponentials are multiplied for quotients, so that `e lo` is a normal number
/// even where `e / sum` is the least normal one.
const UP: f64 = (1u128 << 64) as f64;

/// The arithmetic of the rows of an element type.
trait Reference: Copy {
    fn exp(x: f64, lo: f64, scale: &Scale, shift: &Shift) -> f64;
    /// Rounds to the arithmetic type.
    fn round(x: f64) -> f64;
    /// `a * b + c` in the arithmetic type.
    fn fma(a: f64, b: f64, c: f64) -> f64;
    fn sum(e: &mut dyn Iterator<Item = f64>) -> (f64, f64);
    fn quotient(e: f64, sum: (f64, f64)) -> f64;
    fn log_shift(scale: &Scale, row: &Reduced) -> LogShift;
    /// As `log_shift` for a row of pairs, from the exponential and the low part of its largest
    /// element.
    fn log_shift_of(scale: &Scale, row: &Reduced, largest: (f64, f64)) -> LogShift;
    fn log_softmax(x: f64, shift: &LogShift) -> f64;
    const MIN_EXP: i32;
}

/// f32 arithmetic on values that are stored as f64, exactly. `SHORT` is for probabilities that are
/// rounded to f16 or bf16.
#[derive(Clone, Copy)]
struct InF32<const SHORT: bool>;

type Single = InF32<false>;
type Short = InF32<true>;

/// f64 arithmetic.
#[derive(Clone, Copy)]
struct Double;

impl<const SHORT: bool> Reference for InF32<SHORT> {
    const MIN_EXP: i32 = -126;

    fn round(x: f64) -> f64 {
        f64::from(x as f32)
    }

    fn fma(a: f64, b: f64, c: f64) -> f64 {
        f64::from((a as f32).mul_add(b as f32, c as f32))
    }

    fn exp(x: f64, lo: f64, scale: &Scale, shift: &Shift) -> f64 {
        let (l_hi, l_lo) = scale.l8_f32;
        let lo = if shift.is_huge() { 0.0 } else { lo as f32 };
        let x = x as f32 - shift.subtract as f32;
        if x < shift.cut as f32 {
            return 0.0;
        }
        let t = x.mul_add(l_hi, f32::MAGIC);
        let n = t - f32::MAGIC;
        let r = x.mul_add(l_hi, -n);
        let r = lo.mul_add(l_hi, if SHORT { r } else { x.mul_add(l_lo, r) });
        let j = t.to_bits() & 7;
        let s = f32::TABLE[j as usize]
            .wrapping_sub((shift.m as u32) << 23)
            .wrapping_add(t.to_bits() << f32::SHIFT);
        let s = f32::from_bits(s);
        let coefficients = if SHORT { SHORT_POLY } else { f32::POLY };
        let q = coefficients.iter().rev().copied().reduce(|q, c| q.mul_add(r, c)).unwrap_or(0.0);
        f64::from(s.mul_add(q * r, s))
    }

    fn sum(e: &mut dyn Iterator<Item = f64>) -> (f64, f64) {
        let mut lanes = [0.0; LANES_F32];
        if SHORT {
            // Four sums for each lane, in turn.
            let mut parts = [[0.0f32; 4]; LANES_F32];
            for (i, e) in e.enumerate() {
                parts[i % LANES_F32][i / LANES_F32 % 4] += e as f32;
            }
            lanes = parts.map(|[a, b, c, d]| f64::from((a + c) + (b + d)));
        } else {
            for (i, e) in e.enumerate() {
                lanes[i % LANES_F32] += e;
            }
        }
        let l = lanes;
        let a = |i: usize| l[i] + l[i + 8];
        let b = |i: usize| a(i) + a(i + 4);
        ((b(0) + b(2)) + (b(1) + b(3)), 0.0)
    }

    fn quotient(e: f64, sum: (f64, f64)) -> f64 {
        let inverse = 1.0 / sum.0;
        let hi = inverse as f32;
        if SHORT {
            let p = e as f32 * hi;
            return f64::from(if p < f32::MIN_POSITIVE { 0.0 } else { p });
        }
        let lo = (inverse - f64::from(hi)) as f32;
        let e = e as f32 * UP as f32;
        f64::from(e.mul_add(hi, e * lo) * (1.0 / UP) as f32)
    }

    fn log_shift(scale: &Scale, row: &Reduced) -> LogShift {
        let e_max = Self::exp(row.max, 0.0, scale, &row.shift);
        scale.log_shift_f32(row.max, e_max, &row.shift, row.sum.0)
    }

    fn log_shift_of(scale: &Scale, row: &Reduced, largest: (f64, f64)) -> LogShift {
        let sum = Sum { hi: row.sum.0, lo: 0.0 };
        log_shift_of_pairs::<f32>(scale, row.max, largest, &row.shift, sum)
    }

    fn log_softmax(x: f64, shift: &LogShift) -> f64 {
        f64::from((x - shift.max).mul_add(shift.scale.0, -shift.c.0) as f32)
    }
}

/// Double-double addition: the errors of the high parts and the low parts, renormalised.
fn add(a: (f64, f64), b: (f64, f64)) -> (f64, f64) {
    let s = a.0 + b.0;
    let t = s - a.0;
    let e = ((a.0 - (s - t)) + (b.0 - t)) + (a.1 + b.1);
    let hi = s + e;
    (hi, e - (hi - s))
}

impl Reference for Double {
    const MIN_EXP: i32 = -1022;

    fn round(x: f64) -> f64 {
        x
    }

    fn fma(a: f64, b: f64, c: f64) -> f64 {
        a.mul_add(b, c)
    }

    fn exp(x: f64, lo: f64, scale: &Scale, shift: &Shift) -> f64 {
        let (l_hi, l_lo) = scale.l8_f64;
        let lo = if shift.is_huge() { 0.0 } else { lo };
        let x = x - shift.subtract;
        if x < shift.cut {
            return 0.0;
        }
        let t = x.mul_add(l_hi, f64::MAGIC);
        let n = t - f64::MAGIC;
        let r = x.mul_add(l_hi, -n);
        let r = lo.mul_add(l_hi, x.mul_add(l_lo, r));
        let j = t.to_bits() & 7;
        let s = f64::TABLE[j as usize]
            .wrapping_sub((i64::from(shift.m) << 52) as u64)
            .wrapping_add(t.to_bits() << f64::SHIFT);
        let s = f64::from_bits(s);
        let q = f64::POLY.iter().rev().copied().reduce(|q, c| q.mul_add(r, c)).unwrap_or(0.0);
        s.mul_add(q * r, s)
    }

    fn sum(e: &mut dyn Iterator<Item = f64>) -> (f64, f64) {
        let mut lanes = [(0.0, 0.0); LANES_F64];
        for (i, e) in e.enumerate() {
            let (hi, lo) = lanes[i % LANES_F64];
            let s = hi + e;
            let t = s - hi;
            lanes[i % LANES_F64] = (s, lo + ((hi - (s - t)) + (e - t)));
        }
        let l = lanes;
        let a = |i: usize| add(l[i], l[i + 4]);
        add(add(a(0), a(2)), add(a(1), a(3)))
    }

    fn quotient(e: f64, sum: (f64, f64)) -> f64 {
        let hi = 1.0 / sum.0;
        // 1 - hi * sum, exactly: the product of two f64 is exact in the fused operation.
        let lo = ((-hi).mul_add(sum.0, 1.0) - hi * sum.1) * hi;
        let e = e * UP;
        e.mul_add(hi, e * lo) * (1.0 / UP)
    }

    fn log_shift(scale: &Scale, row: &Reduced) -> LogShift {
        let e_max = Self::exp(row.max, 0.0, scale, &row.shift);
        scale.log_shift_f64(row.max, e_max, &row.shift, row.sum)
    }

    fn log_shift_of(scale: &Scale, row: &Reduced, largest: (f64, f64)) -> LogShift {
        let sum = Sum { hi: row.sum.0, lo: row.sum.1 };
        log_shift_of_pairs::<f64>(scale, row.max, largest, &row.shift, sum)
    }

    fn log_softmax(x: f64, shift: &LogShift) -> f64 {
        let far = (0.5 * x, &shift.halved());
        let (x, shift) = if shift.is_far() { far } else { (x, shift) };
        let d = x - shift.max;
        let z = d.mul_add(shift.scale.0, -shift.c.0);
        if z < f64::MIN {
            return z;
        }
        let t = d - x;
        let d_lo = (x - (d - t)) - (shift.max + t);
        z + d.mul_add(shift.scale.1, d_lo.mul_add(shift.scale.0, -shift.c.1))
    }
}

/// Adds the sums of two blocks.
fn add_up<R: Reference>(a: (f64, f64), b: (f64, f64)) -> (f64, f64) {
    if R::MIN_EXP == -126 { (a.0 + b.0, 0.0) } else { add(a, b) }
}

/// A row with a finite maximum, reduced to its shift and its sum.
struct Reduced {
    max: f64,
    shift: Shift,
    sum: (f64, f64),
}

/// The reduced row, or its log-sum-exp if its maximum is not finite. Logits are pairs; the sink is
/// one without a place.
fn reduce<R: Reference>(
    x: &[(f64, f64)],
    sink: Option<f64>,
    scale: &Scale,
) -> Result<Reduced, f64> {
    let logits = || x.iter().map(|x| x.0).chain(sink);
    if logits().any(f64::is_nan) {
        return Err(f64::NAN);
    }
    let max = logits().fold(f64::NEG_INFINITY, f64::max);
    if max.is_infinite() {
        return Err(max);
    }
    let shift = scale.shift(max, R::MIN_EXP);
    let exp = |(x, lo): (f64, f64)| R::exp(x, lo, scale, &shift);
    let blocks = x.chunks(BLOCK).map(|block| R::sum(&mut block.iter().map(|&x| exp(x))));
    let sums = blocks.chain(sink.map(|sink| (exp((sink, 0.0)), 0.0)));
    let sum = sums.reduce(add_up::<R>).unwrap_or_default();
    if sum.0.is_nan() {
        return Err(f64::NAN);
    }
    Ok(Reduced { max, shift, sum })
}

/// Elements as pairs.
fn plain(x: &[f64]) -> Vec<(f64, f64)> {
    x.iter().map(|&x| (x, 0.0)).collect()
}

/// Softmax of one row, as values of the arithmetic type.
fn softmax_row<R: Reference>(x: &[f64], scale: &Scale, masked: Masked) -> Vec<f64> {
    match reduce::<R>(&plain(x), None, scale) {
        Ok(row) => {
            let exp = |&x: &f64| R::exp(x, 0.0, scale, &row.shift);
            x.iter().map(|x| R::quotient(exp(x), row.sum)).collect()
        }
        Err(f64::NEG_INFINITY) if masked == Masked::Zero => vec![0.0; x.len()],
        Err(_) => vec![f64::NAN; x.len()],
    }
}

fn log_softmax_row<R: Reference>(x: &[f64], scale: &Scale, masked: Masked) -> Vec<f64> {
    match reduce::<R>(&plain(x), None, scale) {
        Ok(row) => {
            let shift = R::log_shift(scale, &row);
            x.iter().map(|&x| R::log_softmax(x, &shift)).collect()
        }
        Err(f64::NEG_INFINITY) if masked == Masked::Zero => vec![f64::NEG_INFINITY; x.len()],
        Err(_) => vec![f64::NAN; x.len()],
    }
}

fn logsumexp_row<R: Reference>(x: &[f64], scale: &Scale) -> f64 {
    match reduce::<R>(&plain(x), None, scale) {
        Ok(row) => R::log_shift(scale, &row).logsumexp(),
        Err(value) => value,
    }
}

/// A value of the arithmetic type as an element; every NaN as the one NaN.
fn element<T: Element>(v: f64) -> T {
    if v.is_nan() { T::NAN } else { T::from_f64(v) }
}

fn for_rows<T: Element>(call: &mut Call<T>, f: impl Fn(&[f64], &Scale) -> Vec<f64>) {
    // Nothing is allocated in advance: a call without rows may have more columns than there is
    // memory.
    let mut x = Vec::new();
    for row in 0..call.rows {
        x.clear();
        x.extend(call.elements(row).map(T::to_f64));
        for (i, v) in f(&x, &call.scale_of(row)).into_iter().enumerate() {
            // SAFETY: f gives cols values (softmax) or one (log-sum-exp), and a Call's y is valid
            // for writes of that many in each of its rows.
            unsafe { *call.row(row).1.add(i) = element(v) };
        }
    }
}

/// Whether this element type is computed in f64.
fn is_double<T: Element>() -> bool {
    T::NAME == f64::NAME
}

/// Evaluates an expression with `$r` as the arithmetic of a type's rows, or of the type's
/// probabilities.
macro_rules! by_type {
    ($t:ty, $r:ident => $value:expr) => {
        if is_double::<$t>() {
            type $r = Double;
            $value
        } else {
            type $r = Single;
            $value
        }
    };
    (probs $t:ty, $r:ident => $value:expr) => {
        if is_double::<$t>() || <$t>::IS_ARITHMETIC {
            by_type!($t, $r => $value)
        } else {
            type $r = Short;
            $value
        }
    };
}

pub(crate) fn softmax<T: Element>(call: &mut Call<T>) {
    let masked = call.masked;
    for_rows(call, |x, scale| by_type!(probs T, R => softmax_row::<R>(x, scale, masked)));
}

pub(crate) fn softmax_ragged<T: Element>(call: &mut RaggedCall<T>) {
    for row in 0..call.rows() {
        softmax(&mut call.call_of_row(row));
    }
}

pub(crate) fn log_softmax<T: Element>(call: &mut Call<T>) {
    let masked = call.masked;
    for_rows(call, |x, scale| by_type!(T, R => log_softmax_row::<R>(x, scale, masked)));
}

pub(crate) fn logsumexp<T: Element>(call: &mut Call<T>) {
    for_rows(call, |x, scale| vec![by_type!(T, R => logsumexp_row::<R>(x, scale))]);
}

pub(crate) fn columns<T: Element, const LOG: bool>(call: &mut Columns<T>) -> bool {
    let (scale, masked) = (call.scale, call.masked);
    for (start, stride) in call.starts() {
        // SAFETY: the column has `axis` elements, `stride` apart, valid for reads and writes.
        let x: Vec<_> =
            (0..call.axis).map(|k| unsafe { *call.x.add(start + k * stride) }.to_f64()).collect();
        let y = if LOG {
            by_type!(T, R => log_softmax_row::<R>(&x, &scale, masked))
        } else {
            by_type!(probs T, R => softmax_row::<R>(&x, &scale, masked))
        };
        for (k, v) in y.into_iter().enumerate() {
            // SAFETY: as above.
            unsafe { *call.y.add(start + k * stride) = element(v) };
        }
    }
    true
}

/// The sums of a piece's blocks by a shift, for probabilities or for logarithms.
pub(crate) fn sum<T: Element, const PROBS: bool>(
    piece: &mut Piece<T>,
    scale: &Scale,
    shift: &RowShift,
    _: PieceOptions,
    sums: &mut [BlockSum],
) -> Extremes {
    fn sum<R: Reference>(block: &[f64], scale: &Scale, shift: &Shift) -> (f64, f64) {
        R::sum(&mut block.iter().map(|&x| R::exp(x, 0.0, scale, shift)))
    }
    let x: Vec<_> = piece.elements().map(T::to_f64).collect();
    let shift = shift.shift();
    for (block, sum_of) in x.chunks(BLOCK).zip(sums) {
        let (hi, lo) = if block.iter().any(|x| x.is_nan()) {
            (f64::NAN, 0.0)
        } else if PROBS {
            by_type!(probs T, R => sum::<R>(block, scale, shift))
        } else {
            by_type!(T, R => sum::<R>(block, scale, shift))
        };
        *sum_of = BlockSum(Sum { hi, lo });
    }
    let cut = if is_double::<T>() { shift.cut } else { Single::round(shift.cut) };
    let kept = x.iter().copied().filter(|&x| x >= cut);
    Extremes {
        max: x.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        min: kept.fold(f64::INFINITY, f64::min),
    }
}

/// Finishes a piece of a row whose sum is known.
pub(crate) fn finish<T: Element>(
    piece: &mut Piece<T>,
    op: Op,
    scale: &Scale,
    whole: &Whole,
    _: PieceOptions,
) {
    fn values<R: Reference>(x: &[f64], op: Op, scale: &Scale, whole: &Whole) -> Vec<f64> {
        let (max, shift, sum) = whole.parts();
        let log = R::log_shift(scale, &Reduced { max, shift, sum });
        let value = |&x: &f64| match op {
            Op::Softmax => R::quotient(R::exp(x, 0.0, scale, &shift), sum),
            _ => R::log_softmax(x, &log),
        };
        x.iter().map(value).collect()
    }
    let x: Vec<_> = piece.elements().map(T::to_f64).collect();
    let values = if op == Op::Softmax {
        by_type!(probs T, R => values::<R>(&x, op, scale, whole))
    } else {
        by_type!(T, R => values::<R>(&x, op, scale, whole))
    };
    for (i, v) in values.into_iter().enumerate() {
        piece.set(i, element(v));
    }
}

/// The log-sum-exp of a row whose sum is known.
pub(crate) fn piece_logsumexp<T: Element>(scale: &Scale, whole: &Whole) -> T {
    let (max, shift, sum) = whole.parts();
    let row = Reduced { max, shift, sum };
    element(by_type!(T, R => R::log_shift(scale, &row)).logsumexp())
}

/// `a * b` as a pair, for a pair `b`.
fn product<R: Reference>(a: f64, b: (f64, f64)) -> (f64, f64) {
    let p = R::round(a * b.0);
    (p, R::fma(a, b.1, R::fma(a, b.0, 0.0 - p)))
}

/// The sum of two pairs.
fn plus<R: Reference>(a: (f64, f64), b: (f64, f64)) -> (f64, f64) {
    let sum = R::round(a.0 + b.0);
    let t = R::round(sum - a.0);
    let error = R::round(R::round(a.0 - R::round(sum - t)) + R::round(b.0 - t));
    (sum, R::round(a.1 + R::round(error + b.1)))
}

/// `c * tanh(scale * x / c)`
fn capped<R: Reference>(x: f64, cap: &Cap) -> (f64, f64) {
    let (factor, factor_lo) = cap.factor;
    let u = x * factor;
    let top = if Cap::END < u { Cap::END } else { u };
    let one = f64::from_bits(f64::TABLE[0]);
    if R::MIN_EXP != Double::MIN_EXP {
        let e = Double::exp(top, 0.0, &Scale::ONE, &Cap::SHIFT);
        let z = cap.c * ((e - one) / (e + one));
        return (R::round(z), R::round(z - R::round(z)));
    }
    let u_lo = x.mul_add(factor_lo, x.mul_add(factor, 0.0 - u));
    let e = Double::exp(top, if u < Cap::END { u_lo } else { 0.0 }, &Scale::ONE, &Cap::SHIFT);
    let two = one + one;
    let (sum, sum_lo) = plus::<Double>((e, 0.0), (one, 0.0));
    let q = two / sum;
    let rest = (-q).mul_add(sum_lo, (-q).mul_add(sum, two));
    let q_lo = rest * (q * (1.0 / two));
    let t = 1.0 - q;
    let t_lo = ((1.0 - t) - q) - q_lo;
    let z = cap.c * t;
    (z, cap.c.mul_add(t_lo, cap.c.mul_add(t, 0.0 - z)))
}

/// The logit of key `key` with the score `x`, as a pair; in units of the row if it is far.
fn logit<R: Reference>(x: f64, key: usize, attend: &Attend, row: &Row, far: bool) -> (f64, f64) {
    const HIDDEN: (f64, f64) = (f64::NEG_INFINITY, 0.0);
    if key < row.keys.0 || key >= row.keys.1 {
        return HIDDEN;
    }
    let mask = match row.mask.map(Elements::data) {
        None => None,
        Some(MaskData::Bool(mask)) if mask[key] == 0 => return HIDDEN,
        Some(MaskData::Bits(mask)) if !mask.is_seen(key) => return HIDDEN,
        Some(MaskData::Bool(_) | MaskData::Bits(_)) => None,
        Some(mask) => Some(mask.added(key)),
    };
    if mask == Some(f64::NEG_INFINITY) {
        return HIDDEN;
    }
    if !row.pairs {
        return (x, 0.0);
    }
    let unit = if far { FAR } else { 1.0 };
    let mut z = match attend.cap {
        Some(c) => capped::<R>(x, &Cap::new(c, &attend.scale, unit)),
        None => {
            let (hi, lo) = attend.scale.pair();
            let pair = (R::round(hi), R::round((hi - R::round(hi)) + lo));
            let pair = if R::MIN_EXP == -126 { pair } else { (hi, lo) };
            // A far row's scale may be 0: infinities stay what they are.
            if far && x.is_infinite() {
                (x, 0.0)
            } else {
                product::<R>(x, (R::round(pair.0 * unit), R::round(pair.1 * unit)))
            }
        }
    };
    if let Some(mask) = mask {
        let slope = row.mask_slope.or(far.then_some(1.0));
        let slope = slope.map(|slope| R::round(f64::from(slope) * unit));
        let added = if far && mask.is_infinite() {
            (mask * f64::from(row.mask_slope.map_or(1.0, sign)), 0.0)
        } else {
            slope.map_or((mask, 0.0), |slope| product::<R>(mask, (slope, 0.0)))
        };
        z = plus::<R>(z, added);
    }
    if let Some(slope) = row.slope {
        let distance = key as f64 - row.position as f64;
        let added = product::<R>(distance, (R::round(f64::from(slope) * unit), 0.0));
        if added.0 == f64::NEG_INFINITY {
            return HIDDEN;
        }
        z = plus::<R>(z, added);
    }
    let is_infinite = z.0 == f64::NEG_INFINITY || (far && z.0 == f64::INFINITY);
    let lo = if is_infinite { 0.0 } else { z.1 };
    let sum = R::round(z.0 + lo);
    (sum, R::round(lo - R::round(sum - z.0)))
}

/// Softmax of one row with the options of attention, and its log-sum-exp.
fn attend_row<R: Reference>(x: &[f64], attend: &Attend, row: &Row) -> (Vec<f64>, f64) {
    let reduced = |far, scale: &Scale| {
        let logit = |(key, &x): (usize, &f64)| logit::<R>(x, key, attend, row, far);
        let logits: Vec<_> = x.iter().enumerate().map(logit).collect();
        let sink = row.sink.map(|sink| {
            let sink = f64::from(sink);
            if far { R::round(sink * FAR) } else { sink }
        });
        reduce::<R>(&logits, sink, scale).map(|row| (row, logits, sink))
    };
    let mut scale = if row.pairs { Scale::ONE } else { attend.scale };
    let mut result = reduced(false, &scale);
    if result.is_err() && row.pairs {
        scale = far_scale();
        result = reduced(true, &scale);
    }
    match result {
        Ok((reduced, logits, sink)) => {
            let exp = |&(x, lo): &(f64, f64)| R::exp(x, lo, &scale, &reduced.shift);
            let probs = logits.iter().map(|z| R::quotient(exp(z), reduced.sum)).collect();
            let sink = sink.map(|sink| (sink, 0.0));
            let largest = logits.iter().copied().chain(sink).filter(|z| z.0 == reduced.max);
            let low = largest.map(|z| z.1).fold(f64::NEG_INFINITY, f64::max);
            let low = if row.pairs && !reduced.shift.is_huge() { low } else { 0.0 };
            let largest = (exp(&(reduced.max, low)), low);
            (probs, R::log_shift_of(&scale, &reduced, largest).logsumexp())
        }
        Err(f64::NEG_INFINITY) if attend.masked == Masked::Zero => {
            (vec![0.0; x.len()], f64::NEG_INFINITY)
        }
        Err(lse) => (vec![f64::NAN; x.len()], lse),
    }
}

pub(crate) fn attend<T: Element, U: Element>(call: &mut Scores<T, U>) -> bool {
    for row in 0..call.rows {
        let x: Vec<_> = call.elements(row).map(T::to_f64).collect();
        let options = call.options(row, |mask, keys| mask.only_hides(keys));
        let (probs, lse) = by_type!(probs U, R => attend_row::<R>(&x, &call.attend, &options));
        for (i, p) in probs.into_iter().enumerate() {
            // SAFETY: row < rows and i < cols, and the probabilities are valid for writes there.
            unsafe { *call.row(row).1.add(i) = element(p) };
        }
        if let Some(place) = call.lse.get_mut(row) {
            *place = element(lse);
        }
    }
    true
}

/// Weighs a row of a tile: writes the weights of the keys from `first` on.
fn weigh_row(
    x: &[f64],
    first: usize,
    attend: &Attend,
    row: &Row,
    state: &mut OnlineRow,
    weights: &mut [f64],
) -> FarTile {
    let scale = if row.pairs { Scale::ONE } else { attend.scale };
    let logits = |far: bool| -> Vec<_> {
        let z = |(i, &x): (usize, &f64)| logit::<Single>(x, first + i, attend, row, far);
        x.iter().enumerate().map(z).collect()
    };
    let z = logits(false);
    let max = z.iter().map(|z| z.0).fold(f64::NEG_INFINITY, f64::max);
    let nan = z.iter().any(|z| z.0.is_nan());
    let far = |state: &mut OnlineRow, z: &[(f64, f64)], scale: &Scale, weights: &mut [f64]| {
        far_tile(state, scale, &mut |_, weigh| {
            for (i, z) in z.iter().enumerate() {
                if row.keys.0 <= first + i && first + i < row.keys.1 {
                    weights[i] = weigh(first + i, z.0).into();
                }
            }
        })
    };
    if nan || max.is_infinite() {
        return if row.pairs {
            far(state, &logits(true), &far_scale(), weights)
        } else {
            far(state, &z, &scale, weights)
        };
    }
    let Some((shift, factor)) = state.begin(max, &scale) else {
        return far(state, &z, &scale, weights);
    };
    let mut largest = 0.0;
    for (i, &(z, lo)) in z.iter().enumerate() {
        let (key, lo) = (first + i, if row.pairs { lo } else { 0.0 });
        if key < row.keys.0 || key >= row.keys.1 {
            continue;
        }
        weights[i] = Single::exp(z, lo, &scale, &shift);
        state.enter_block((key / BLOCK) as u64);
        state.lanes[key % LANES_F32] += weights[i];
        largest = f64::max(largest, weights[i]);
    }
    state.saw(max, &scale, largest);
    FarTile::Done(factor)
}

pub(crate) fn tile<U: Element>(call: &mut TileCall<U>) {
    for row in 0..call.rows {
        let x: Vec<_> = call.elements(row).map(f32::to_f64).collect();
        let options = call.options(row, |mask, keys| mask.only_hides(keys));
        let first = call.first_key();
        let (state, mut weights) = (&mut call.states[row], vec![0.0; x.len()]);
        let unseen = if state.is_empty() { 0.0 } else { 1.0 };
        let tile = if state.is_special() {
            FarTile::Special
        } else if options.keys.0 >= options.keys.1 {
            FarTile::Hidden
        } else {
            weigh_row(&x, first, &call.attend, &options, state, &mut weights)
        };
        call.factors[row] = if let FarTile::Done(factor) = tile { factor } else { unseen };
        for (i, w) in weights.into_iter().enumerate() {
            let w = match tile {
                FarTile::Special => f64::NAN,
                FarTile::Hidden => 0.0,
                FarTile::Done(_) => w,
            };
            // SAFETY: row < rows and i < cols, and the weights are valid for writes there.
            unsafe { *call.row(row).1.add(i) = element(w) };
        }
    }
}

pub(crate) mod decide;

pub(crate) mod entropy;

pub(crate) mod kl;

pub(crate) mod loss;

pub(crate) mod route;

mod sample;

#[cfg(test)]
mod exp_core_tests;
