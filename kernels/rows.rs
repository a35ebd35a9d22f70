//! The algorithms, written once for all CPUs and element types: three passes over a row.
//!
//! 1. its largest element (which decides the shift, see [`Scale::shift`]);
//! 2. the exponentials and their sum, in blocks of [`BLOCK`] elements;
//! 3. the quotients, or the logarithms.
//!
//! Between passes 2 and 3 the exponentials of f32 and f64 rows wait in the output. Those of
//! f16 and bf16 rows would lose their precision there: rows of up to one block keep them
//! on the stack, longer ones compute them again, to the same bits.

use std::mem::MaybeUninit;

use crate::call::{Call, Masked};
use crate::element::Element;
use crate::exp2::{BLOCK, Contract, Sum};
use crate::scale::{Scale, Shift};
use crate::vector::{Io, Vector};

/// Everything that the exponentials of one row need, in registers.
#[derive(Clone, Copy)]
struct Exp<S: Vector> {
    simd: S,
    l8: (S::V, S::V),
    magic: S::V,
    subtract: S::V,
    cut: S::V,
    table: S::Table,
}

impl<S: Vector> Exp<S> {
    #[inline(always)]
    fn new(simd: S, scale: &Scale, shift: &Shift) -> Self {
        let l8 = S::E::l8(scale);
        Exp {
            simd,
            l8: (simd.splat(l8.0), simd.splat(l8.1)),
            magic: simd.splat(S::E::MAGIC),
            subtract: simd.splat(S::E::narrow(shift.subtract)),
            cut: simd.splat(S::E::narrow(shift.cut)),
            table: simd.table(shift.m),
        }
    }

    /// `C * exp(scale * x) * 2^-M`, as `exp2.rs` defines it: 2 operations for n, 2 for r,
    /// 3 for s, 4 or 7 for u, 1 for e, 1 for the cut.
    #[inline(always)]
    fn of<const HUGE: bool>(&self, x: S::V) -> S::V {
        let s = self.simd;
        let x = if HUGE { s.sub(x, self.subtract) } else { x };
        let t = s.mul_add(x, self.l8.0, self.magic);
        let n = s.sub(self.magic, t);
        let r = s.fma(x, self.l8.0, n);
        let r = s.fma(x, self.l8.1, r);
        let power = s.lookup(self.table, t);
        let mut coefficients = S::E::POLY.iter().rev();
        let mut q = s.splat(*coefficients.next().expect("a polynomial has coefficients"));
        for &c in coefficients {
            q = s.mul_add(q, r, s.splat(c));
        }
        let u = s.mul(q, r);
        s.zero_below(x, self.cut, s.mul_add(power, u, power))
    }
}

/// The largest of `n` elements; -inf if there is none. NaN may or may not show.
///
/// # Safety
/// `x` is valid for reads of `n` elements.
#[inline(always)]
unsafe fn row_max<S: Io<T>, T: Element>(simd: S, x: *const T, n: usize) -> f64 {
    let least = S::E::narrow(f64::NEG_INFINITY);
    let mut m = [simd.splat(least); 4];
    let mut i = 0;
    while n - i >= 4 * S::LANES {
        for (k, m) in m.iter_mut().enumerate() {
            // SAFETY: i + 4 LANES <= n, so this vector lies within the n elements.
            *m = simd.max(unsafe { simd.load(x.add(i + k * S::LANES)) }, *m);
        }
        i += 4 * S::LANES;
    }
    while n - i >= S::LANES {
        // SAFETY: i + LANES <= n.
        m[0] = simd.max(unsafe { simd.load(x.add(i)) }, m[0]);
        i += S::LANES;
    }
    if i < n {
        // SAFETY: n - i elements are left, fewer than LANES.
        m[1] = simd.max(unsafe { simd.load_part(x.add(i), n - i, least) }, m[1]);
    }
    let m = simd.max(simd.max(m[0], m[1]), simd.max(m[2], m[3]));
    simd.max_lane(m).widen()
}

/// The sum of the exponentials of one row, which are also written to `e` if `STORE`.
///
/// # Safety
/// `x` is valid for reads of `n` elements, and `e` for writes of `n` if `STORE`. They may be the same memory.
#[inline(always)]
unsafe fn exp_and_sum<S: Io<T> + Io<D>, T, D, const HUGE: bool, const STORE: bool>(
    exp: &Exp<S>,
    x: *const T,
    e: *mut D,
    n: usize,
) -> Sum {
    let simd = exp.simd;
    let mut total = Sum::ZERO;
    let mut start = 0;
    loop {
        let end = n.min(start + BLOCK);
        let mut acc = simd.acc_zero();
        let mut i = start;
        while end - i >= S::LANES {
            // SAFETY: i + LANES <= end <= n.
            let v = exp.of::<HUGE>(unsafe { simd.load(x.add(i)) });
            if STORE {
                // SAFETY: as above, for the output.
                unsafe { simd.store(e.add(i), v) };
            }
            acc = simd.acc_add(acc, v);
            i += S::LANES;
        }
        if i < end {
            // -inf is below every cut: the missing lanes add 0.
            let fill = S::E::narrow(f64::NEG_INFINITY);
            // SAFETY: end - i elements are left, fewer than LANES.
            let v = exp.of::<HUGE>(unsafe { simd.load_part(x.add(i), end - i, fill) });
            if STORE {
                // SAFETY: as above, for the output.
                unsafe { simd.store_part(e.add(i), end - i, v) };
            }
            acc = simd.acc_add(acc, v);
        }
        let block = simd.acc_fold(acc);
        if end == n {
            // A row of one block, the common case, needs no addition; 0 + block is the same.
            return if start == 0 { block } else { S::E::sum_add(total, block) };
        }
        total = S::E::sum_add(total, block);
        start = end;
    }
}

/// Writes `f` of each vector of `x` to `y`.
///
/// # Safety
/// `x` is valid for reads and `y` for writes of `n` elements. They may be the same memory.
#[inline(always)]
unsafe fn map<S: Io<T> + Io<D>, T, D>(
    simd: S,
    x: *const T,
    y: *mut D,
    n: usize,
    f: impl Fn(S::V) -> S::V,
) {
    let mut i = 0;
    while n - i >= 4 * S::LANES {
        for k in 0..4 {
            // SAFETY: i + 4 LANES <= n. The load comes before the store to the same place.
            unsafe { simd.store(y.add(i + k * S::LANES), f(simd.load(x.add(i + k * S::LANES)))) };
        }
        i += 4 * S::LANES;
    }
    while n - i >= S::LANES {
        // SAFETY: i + LANES <= n.
        unsafe { simd.store(y.add(i), f(simd.load(x.add(i)))) };
        i += S::LANES;
    }
    if i < n {
        let zero = S::E::narrow(0.0);
        // SAFETY: n - i elements are left, fewer than LANES.
        unsafe { simd.store_part(y.add(i), n - i, f(simd.load_part(x.add(i), n - i, zero))) };
    }
}

/// What a row without a finite maximum is.
enum Odd {
    /// It has a NaN.
    Nan,
    /// It has +inf and no NaN.
    PlusInf,
    /// Every entry is -inf.
    AllMasked,
}

/// Looks at a row whose maximum is not finite.
///
/// # Safety
/// `x` is valid for reads of `n` elements.
#[cold]
unsafe fn classify<T: Element>(x: *const T, n: usize) -> Odd {
    let mut odd = Odd::AllMasked;
    for i in 0..n {
        // SAFETY: i < n.
        let v = unsafe { *x.add(i) }.to_f64();
        if v.is_nan() {
            return Odd::Nan;
        }
        if v == f64::INFINITY {
            odd = Odd::PlusInf;
        }
    }
    odd
}

/// Writes `value` to a whole row.
///
/// # Safety
/// `y` is valid for writes of `n` elements.
#[cold]
unsafe fn fill<T: Copy>(y: *mut T, n: usize, value: T) {
    for i in 0..n {
        // SAFETY: i < n.
        unsafe { *y.add(i) = value };
    }
}

/// Softmax of every row of the call.
///
/// # Safety
/// The call's pointers are valid as [`Call`] says.
#[inline(always)]
pub(crate) unsafe fn softmax<S, T>(simd: S, call: &Call<T>)
where
    S: Io<T> + Io<<S as Vector>::E>,
    T: Element,
{
    for row in 0..call.rows {
        // SAFETY: `row` is one of the call's rows, so both pointers point to `cols` elements.
        unsafe {
            let x = call.x.add(row * call.x_stride);
            let y = call.y.add(row * call.y_stride);
            softmax_row(simd, call, x, y);
        }
    }
}

/// # Safety
/// `x` is valid for reads and `y` for writes of `call.cols` elements; they may be the same memory.
#[inline(always)]
unsafe fn softmax_row<S, T>(simd: S, call: &Call<T>, x: *const T, y: *mut T)
where
    S: Io<T> + Io<<S as Vector>::E>,
    T: Element,
{
    let n = call.cols;
    // SAFETY: x has n elements.
    let max = unsafe { row_max(simd, x, n) };
    if !max.is_finite() {
        // SAFETY: x and y have n elements.
        unsafe {
            let value = match (classify(x, n), call.masked) {
                (Odd::AllMasked, Masked::Zero) => T::ZERO,
                _ => T::NAN,
            };
            fill(y, n, value);
        }
        return;
    }
    let shift = call.scale.shift(max, S::E::MIN_EXP);
    let exp = Exp::new(simd, &call.scale, &shift);
    // SAFETY: x and y have n elements each, which is what `finish` asks for.
    unsafe {
        if shift.is_huge() {
            softmax_finish::<S, T, true>(&exp, x, y, n);
        } else {
            softmax_finish::<S, T, false>(&exp, x, y, n);
        }
    }
}

/// Passes 2 and 3.
///
/// # Safety
/// As [`softmax_row`], for `n` elements.
#[inline(always)]
unsafe fn softmax_finish<S, T, const HUGE: bool>(exp: &Exp<S>, x: *const T, y: *mut T, n: usize)
where
    S: Io<T> + Io<<S as Vector>::E>,
    T: Element,
{
    let simd = exp.simd;
    let mut scratch = MaybeUninit::<[S::E; BLOCK]>::uninit();
    let kept: *mut S::E = if T::IS_ARITHMETIC {
        // The element type is the arithmetic type: the output itself can hold the exponentials.
        y.cast()
    } else {
        scratch.as_mut_ptr().cast()
    };
    let keep = T::IS_ARITHMETIC || n <= BLOCK;
    // SAFETY: x has n elements; `kept` is y, of as many elements of the same type, or
    // the scratch of BLOCK elements, which is written only if n <= BLOCK.
    let sum = unsafe {
        if keep {
            exp_and_sum::<S, T, S::E, HUGE, true>(exp, x, kept, n)
        } else {
            exp_and_sum::<S, T, S::E, HUGE, false>(exp, x, kept, n)
        }
    };
    if sum.hi.is_nan() {
        // SAFETY: y has n elements.
        unsafe { fill(y, n, T::NAN) };
        return;
    }
    let (hi, lo) = S::E::reciprocal(sum);
    let inverse = (simd.splat(hi), simd.splat(lo));
    // SAFETY: `kept` holds n exponentials if `keep`; x and y have n elements.
    unsafe {
        if keep {
            map::<S, S::E, T>(
                simd,
                kept,
                y,
                n,
                #[inline(always)]
                |e| quotient(simd, e, inverse),
            );
        } else {
            map::<S, T, T>(
                simd,
                x,
                y,
                n,
                #[inline(always)]
                |x| quotient(simd, exp.of::<HUGE>(x), inverse),
            );
        }
    }
}

/// `e` times the reciprocal of the sum, which is a pair: half an ULP of error, so
/// that equal elements give exactly `1/n` where that is a power of two.
#[inline(always)]
fn quotient<S: Vector>(simd: S, e: S::V, (hi, lo): (S::V, S::V)) -> S::V {
    simd.fma(e, hi, simd.mul(e, lo))
}

/// Log-softmax of every row of the call.
///
/// # Safety
/// The call's pointers are valid as [`Call`] says.
#[inline(always)]
pub(crate) unsafe fn log_softmax<S, T>(simd: S, call: &Call<T>)
where
    S: Io<T> + Io<<S as Vector>::E>,
    T: Element,
{
    let n = call.cols;
    for row in 0..call.rows {
        // SAFETY: `row` is one of the call's rows, so both pointers point to n elements.
        unsafe {
            let x = call.x.add(row * call.x_stride);
            let y = call.y.add(row * call.y_stride);
            match log_shift(simd, call, x) {
                Ok(shift) => map::<S, T, T>(
                    simd,
                    x,
                    y,
                    n,
                    #[inline(always)]
                    |x| simd.log_softmax(x, &shift),
                ),
                Err(Odd::AllMasked) if matches!(call.masked, Masked::Zero) => {
                    fill(y, n, T::NEG_INFINITY);
                }
                Err(_) => fill(y, n, T::NAN),
            }
        }
    }
}

/// Log-sum-exp of every row of the call: one value per row.
///
/// # Safety
/// The call's pointers are valid as [`Call`] says, with outputs of one element a row.
#[inline(always)]
pub(crate) unsafe fn logsumexp<S, T>(simd: S, call: &Call<T>)
where
    S: Io<T> + Io<<S as Vector>::E>,
    T: Element,
{
    for row in 0..call.rows {
        // SAFETY: `row` is one of the call's rows: x points to `cols` elements, y to one.
        unsafe {
            let x = call.x.add(row * call.x_stride);
            let value = match log_shift(simd, call, x) {
                Ok(shift) => T::from_f64(shift.logsumexp()),
                Err(Odd::AllMasked) => T::NEG_INFINITY,
                Err(Odd::PlusInf) => T::INFINITY,
                Err(Odd::Nan) => T::NAN,
            };
            *call.y.add(row * call.y_stride) = value;
        }
    }
}

/// Passes 1 and 2 of a row, for the logarithms.
///
/// # Safety
/// `x` is valid for reads of `call.cols` elements.
#[inline(always)]
unsafe fn log_shift<S, T>(
    simd: S,
    call: &Call<T>,
    x: *const T,
) -> Result<crate::scale::LogShift, Odd>
where
    S: Io<T> + Io<<S as Vector>::E>,
    T: Element,
{
    let n = call.cols;
    // SAFETY: x has n elements.
    let max = unsafe { row_max(simd, x, n) };
    if !max.is_finite() {
        // SAFETY: x has n elements.
        return Err(unsafe { classify(x, n) });
    }
    let shift = call.scale.shift(max, S::E::MIN_EXP);
    let exp = Exp::new(simd, &call.scale, &shift);
    let none = std::ptr::null_mut::<S::E>();
    let top = simd.splat(S::E::narrow(max));
    // SAFETY: x has n elements, and nothing is stored.
    let (sum, e_max) = unsafe {
        if shift.is_huge() {
            (exp_and_sum::<S, T, S::E, true, false>(&exp, x, none, n), exp.of::<true>(top))
        } else {
            (exp_and_sum::<S, T, S::E, false, false>(&exp, x, none, n), exp.of::<false>(top))
        }
    };
    if sum.hi.is_nan() {
        return Err(Odd::Nan);
    }
    let e_max = simd.first_lane(e_max).widen();
    Ok(S::E::log_shift(&call.scale, max, e_max, &shift, sum))
}
