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
        let t = s.fma(x, self.l8.0, self.magic);
        let n = s.sub(self.magic, t);
        let r = s.fma(x, self.l8.0, n);
        let r = s.fma(x, self.l8.1, r);
        let power = s.lookup(self.table, t);
        let mut coefficients = S::E::POLY.iter().rev();
        let mut q = s.splat(*coefficients.next().expect("a polynomial has coefficients"));
        for &c in coefficients {
            q = s.fma(q, r, s.splat(c));
        }
        let u = s.mul(q, r);
        s.zero_below(x, self.cut, s.fma(power, u, power))
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

/// Where the next row is: pass 2, which is bound by arithmetic, brings it into the
/// cache for the passes that are bound by memory. Only ever prefetched, never accessed, so that behind
/// the last row it may point anywhere.
struct Ahead<T> {
    x: *const T,
    y: *const T,
}

/// Vectors per turn of the loop of pass 2: its counting takes slots on the arithmetic ports, too.
const UNROLL: usize = 4;

/// The exponentials of the vector at element `i`, added to `acc`, and written to `e` if `STORE`.
///
/// # Safety
/// `x` is valid for reads, and `e` for writes if `STORE`, of `i + LANES` elements.
#[inline(always)]
unsafe fn one_vector<S: Io<T> + Io<D>, T, D, const HUGE: bool, const STORE: bool>(
    exp: &Exp<S>,
    x: *const T,
    e: *mut D,
    ahead: &Ahead<T>,
    i: usize,
    acc: S::Acc,
) -> S::Acc {
    let simd = exp.simd;
    simd.prefetch(ahead.x.wrapping_add(i));
    simd.prefetch(ahead.y.wrapping_add(i));
    // SAFETY: x has LANES elements at i.
    let v = exp.of::<HUGE>(unsafe { simd.load(x.add(i)) });
    if STORE {
        // SAFETY: e has room for LANES elements at i.
        unsafe { simd.store(e.add(i), v) };
    }
    simd.acc_add(acc, v)
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
    ahead: &Ahead<T>,
) -> Sum {
    let simd = exp.simd;
    let mut total = Sum::ZERO;
    let mut start = 0;
    loop {
        let end = n.min(start + BLOCK);
        let mut acc = simd.acc_zero();
        let mut i = start;
        while end - i >= UNROLL * S::LANES {
            for k in 0..UNROLL {
                // SAFETY: i + UNROLL * LANES <= end <= n.
                acc = unsafe {
                    one_vector::<S, T, D, HUGE, STORE>(exp, x, e, ahead, i + k * S::LANES, acc)
                };
            }
            i += UNROLL * S::LANES;
        }
        while end - i >= S::LANES {
            // SAFETY: i + LANES <= end <= n.
            acc = unsafe { one_vector::<S, T, D, HUGE, STORE>(exp, x, e, ahead, i, acc) };
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
/// Pass 1 of the next row runs between passes 2 and 3 of this one: the chain from one
/// pass to the next (the sum across lanes and its reciprocal; the maximum across lanes and the shift) takes as long as
/// tens of vectors, which the pass of another row fills.
///
/// # Safety
/// The call's pointers are valid as [`Call`] says.
#[inline(always)]
pub(crate) unsafe fn softmax<S, T>(simd: S, call: &Call<T>)
where
    S: Io<T> + Io<<S as Vector>::E>,
    T: Element,
{
    let n = call.cols;
    let mut scratch = MaybeUninit::<[S::E; BLOCK]>::uninit();
    let scratch: *mut S::E = scratch.as_mut_ptr().cast();
    // SAFETY: the maximum is asked for of rows of the call only.
    let row_max = |row: usize| unsafe { row_max(simd, call.x.add(row * call.x_stride), n) };
    let mut max = if call.rows > 0 { row_max(0) } else { f64::NAN };
    for row in 0..call.rows {
        // SAFETY: `row` is one of the call's rows, so x and y point to n elements. What is kept of
        // it has room for them: y itself, or the scratch if they are no more than BLOCK.
        unsafe {
            let x = call.x.add(row * call.x_stride);
            let y = call.y.add(row * call.y_stride);
            let kept = if T::IS_ARITHMETIC { y.cast() } else { scratch };
            let inverse = if max.is_finite() {
                exp_row(simd, call, x, y, kept, max)
            } else {
                odd_row(x, y, n, call.masked);
                None
            };
            if row + 1 < call.rows {
                max = row_max(row + 1);
            }
            if let Some((hi, lo)) = inverse {
                let inverse = (simd.splat(hi), simd.splat(lo));
                map::<S, S::E, T>(
                    simd,
                    kept,
                    y,
                    n,
                    #[inline(always)]
                    |e| quotient(simd, e, inverse),
                );
            }
        }
    }
}

/// Pass 2 of a row whose maximum is finite: its exponentials to `kept`, and the reciprocal of their sum for pass 3. `None` if
/// nothing is left to do: a row with a NaN, or one too long to be kept.
///
/// # Safety
/// `x` is valid for reads and `y` for writes of `call.cols` elements, `kept` for writes of as many or, if `T` is
/// not an arithmetic type, of [`BLOCK`].
#[inline(always)]
unsafe fn exp_row<S, T>(
    simd: S,
    call: &Call<T>,
    x: *const T,
    y: *mut T,
    kept: *mut S::E,
    max: f64,
) -> Option<(S::E, S::E)>
where
    S: Io<T> + Io<<S as Vector>::E>,
    T: Element,
{
    let n = call.cols;
    let shift = call.scale.shift(max, S::E::MIN_EXP);
    let exp = Exp::new(simd, &call.scale, &shift);
    let ahead =
        Ahead { x: x.wrapping_add(call.x_stride), y: y.wrapping_add(call.y_stride).cast_const() };
    let keep = T::IS_ARITHMETIC || n <= BLOCK;
    // SAFETY: as this function's; what is kept has room for n elements if `keep`.
    unsafe {
        match (keep, shift.is_huge()) {
            (true, false) => keep_row::<S, T, false>(&exp, x, y, kept, n, &ahead),
            (true, true) => keep_row::<S, T, true>(&exp, x, y, kept, n, &ahead),
            (false, false) => long_row::<S, T, false>(&exp, x, y, n, &ahead),
            (false, true) => long_row::<S, T, true>(&exp, x, y, n, &ahead),
        }
    }
}

/// The result of a row whose maximum is not finite.
///
/// # Safety
/// `x` is valid for reads and `y` for writes of `n` elements.
#[cold]
unsafe fn odd_row<T: Element>(x: *const T, y: *mut T, n: usize, masked: Masked) {
    // SAFETY: x and y have n elements.
    unsafe {
        let value = match (classify(x, n), masked) {
            (Odd::AllMasked, Masked::Zero) => T::ZERO,
            _ => T::NAN,
        };
        fill(y, n, value);
    }
}

/// Pass 2: the exponentials of a row to `kept`, and the reciprocal of their sum. If the row has a NaN, it is
/// finished instead.
///
/// # Safety
/// `x` is valid for reads, `y` and `kept` for writes of `n` elements.
#[inline(always)]
unsafe fn keep_row<S, T, const HUGE: bool>(
    exp: &Exp<S>,
    x: *const T,
    y: *mut T,
    kept: *mut S::E,
    n: usize,
    ahead: &Ahead<T>,
) -> Option<(S::E, S::E)>
where
    S: Io<T> + Io<<S as Vector>::E>,
    T: Element,
{
    // SAFETY: x and kept have n elements.
    let sum = unsafe { exp_and_sum::<S, T, S::E, HUGE, true>(exp, x, kept, n, ahead) };
    if sum.hi.is_nan() {
        // SAFETY: y has n elements.
        unsafe { fill(y, n, T::NAN) };
        return None;
    }
    Some(S::E::reciprocal(sum))
}

/// Passes 2 and 3 of a row whose exponentials are not kept but computed again. Nothing is left to do.
///
/// # Safety
/// `x` is valid for reads and `y` for writes of `n` elements; they may be the same memory.
#[inline(always)]
unsafe fn long_row<S, T, const HUGE: bool>(
    exp: &Exp<S>,
    x: *const T,
    y: *mut T,
    n: usize,
    ahead: &Ahead<T>,
) -> Option<(S::E, S::E)>
where
    S: Io<T> + Io<<S as Vector>::E>,
    T: Element,
{
    let simd = exp.simd;
    // SAFETY: x and y have n elements, and nothing is stored in the first pass.
    unsafe {
        let none = std::ptr::null_mut::<S::E>();
        let sum = exp_and_sum::<S, T, S::E, HUGE, false>(exp, x, none, n, ahead);
        if sum.hi.is_nan() {
            fill(y, n, T::NAN);
            return None;
        }
        let (hi, lo) = S::E::reciprocal(sum);
        let inverse = (simd.splat(hi), simd.splat(lo));
        map::<S, T, T>(
            simd,
            x,
            y,
            n,
            #[inline(always)]
            |x| quotient(simd, exp.of::<HUGE>(x), inverse),
        );
    }
    None
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
    let next = x.wrapping_add(call.x_stride);
    let ahead = Ahead { x: next, y: next };
    let top = simd.splat(S::E::narrow(max));
    // SAFETY: x has n elements, and nothing is stored.
    let (sum, e_max) = unsafe {
        if shift.is_huge() {
            (exp_and_sum::<S, T, S::E, true, false>(&exp, x, none, n, &ahead), exp.of::<true>(top))
        } else {
            (
                exp_and_sum::<S, T, S::E, false, false>(&exp, x, none, n, &ahead),
                exp.of::<false>(top),
            )
        }
    };
    if sum.hi.is_nan() {
        return Err(Odd::Nan);
    }
    let e_max = simd.first_lane(e_max).widen();
    Ok(S::E::log_shift(&call.scale, max, e_max, &shift, sum))
}
