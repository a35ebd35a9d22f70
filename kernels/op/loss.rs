//! Cross-entropy and its gradient, and the gradients of softmax and log-softmax.
//!
//! A row's loss against targets `t` (one-hot or probabilities, smoothed and weighted, see [`Loss`])
//! is
//!
//! ```text
//! loss = sum_j t_j (lse - a x_j) + z lse^2 = A c + a sum_j t_j (max - x_j) + z lse^2
//! c = lse - a max, A = sum_j t_j
//! dloss / dx_j = a (p_j (A + 2 z lse) - t_j)
//! ```
//!
//! No term of the second form is negative, so nothing cancels. `c` is the logarithm of `1 + others
//! / top`, where `top` is the largest element's exponential and `others` the sum of all others
//! ([`Sums`]): its relative error is small however near to 0 it is.
//!
//! The exponentials of a row become its gradient during the sweep of the next row, as they become
//! probabilities in `op/softmax.rs`: the same sweep, the same two operations for each element. The
//! gradient of a label's column is computed once a row, in f64 (in rows of f64 as a pair), from
//! `others / sum`, because `p - 1` would cancel.

use crate::call::Special;
use crate::call::losses::{BackwardCall, LARGER, LossCall, RowTargets, SMALL, Soft, Weights};
use crate::call::row_loss::{RowLoss, SoftSums, Sums, backward_sum, is_single};
use crate::isa::vector::{Io, Vector, two_sum_lanes};
use crate::mem::scratch::Scratch;
use crate::num::element::Element;
use crate::num::exp2::{BLOCK, Contract, MOST_LANES, Sum, fold_f32, fold_f64};
use crate::num::scale::{LogShift, Scale, Shift};
use crate::sweep::reduce::{Pipeline, Reduced, Reducer};
use crate::sweep::{Exp, Finish, Forget, Inverse, Keep, Plain, prob};

/// Computes losses alone.
///
/// # Safety
/// The call's pointers are valid as [`LossCall`] says.
#[inline(always)]
unsafe fn losses<S, T>(simd: S, call: &mut LossCall<T>)
where
    S: Io<T> + Io<f32> + Io<<S as Vector>::E>,
    T: Element,
{
    let scale = call.options.scale;
    let mut reducer = Reducer::new(simd, &scale);
    for row in 0..call.rows() {
        // SAFETY: `row` is one of the call's rows; nothing is kept of it.
        let loss = unsafe {
            let (x, _) = call.row(row);
            match call.targets(row) {
                None => 0.0,
                Some(targets) => {
                    let none = std::ptr::null_mut();
                    match reducer.reduce_alone::<T, Forget, _>(x, none, call.cols, &Plain::NEAR) {
                        Ok(reduced) => {
                            let none = std::ptr::null();
                            row_loss(simd, call, &targets, x, none, &reduced).0.loss
                        }
                        Err(_) => f64::NAN,
                    }
                }
            }
        };
        call.set(row, loss);
    }
}

/// Computes the loss of a row whose exponentials are known, and what its gradient needs. It takes
/// as long as a short row, so one function serves all callers.
///
/// # Safety
/// `x` is the row of the call that the targets belong to. `kept` is null or has its exponentials,
/// as `reduced` describes them.
#[inline(never)]
unsafe fn row_loss<S, T>(
    simd: S,
    call: &LossCall<T>,
    targets: &RowTargets<T>,
    x: *const T,
    kept: *const S::E,
    reduced: &Reduced<S>,
) -> (RowLoss<S::E>, Sums)
where
    S: Io<T> + Io<f32> + Io<<S as Vector>::E>,
    T: Element,
{
    let (scale, n) = (&call.options.scale, call.cols);
    let (max, own, exp) = (reduced.max, reduced.own, &reduced.exp);
    simd.vectorize(
        #[inline(always)]
        || {
            let top = simd.splat(S::E::narrow(max));
            let e_max = simd.first_lane(exp.of(true, true, top)).widen() * reduced.factor;
            let sum = reduced.sum.times(reduced.factor);
            // SAFETY: as this function's.
            let others = || unsafe { sum_below(exp, x, kept, n, max) }.times(reduced.factor);
            let sums = Sums::new::<S::E>(scale, max, own, sum, e_max, n, others);
            let soft = match &targets.soft {
                // SAFETY: as this function's.
                Some(soft) => unsafe { soft_sums(simd, x, n, soft, max) },
                None => SoftSums::ZERO,
            };
            // SAFETY: as this function's.
            let exact = || unsafe { exact_shift(simd, x, n, scale, max) };
            (RowLoss::new(&call.options, targets, n, &sums, soft, exact), sums)
        },
    )
}

/// The sum of the exponentials of all elements but the largest, which has nearly all of the row's
/// sum. Added as the row's sum is. Rare, so a function of its own.
///
/// # Safety
/// `x` is valid for reads of `n` elements; `kept` is null or has their exponentials.
#[cold]
#[inline(never)]
unsafe fn sum_below<S, T>(exp: &Exp<S>, x: *const T, kept: *const S::E, n: usize, max: f64) -> Sum
where
    S: Io<T> + Io<<S as Vector>::E>,
{
    let simd = exp.simd;
    simd.vectorize(
        #[inline(always)]
        || {
            let mut total = Sum::ZERO;
            let zero = simd.splat(S::E::narrow(0.0));
            let top = exp.of(true, true, simd.splat(S::E::narrow(max)));
            let mut start = 0;
            while start < n {
                let end = n.min(start + BLOCK);
                let mut acc = simd.acc_zero();
                let mut i = start;
                while i < end {
                    // SAFETY: n elements are there. The exponential of -inf is 0.
                    let e = unsafe {
                        if kept.is_null() {
                            let x = load(simd, x.add(i), end - i, f64::NEG_INFINITY);
                            exp.of(true, true, x)
                        } else {
                            load(simd, kept.add(i), end - i, 0.0)
                        }
                    };
                    acc = simd.acc_add(acc, simd.select_below(e, top, e, zero));
                    i += S::LANES;
                }
                let block = simd.acc_fold(acc);
                total = if start == 0 { block } else { S::E::sum_add(total, block) };
                start = end;
            }
            total
        },
    )
}

/// The constants of the log-softmax of a row of f32, from exponentials in f64. Rare, so a function
/// of its own.
///
/// # Safety
/// `x` is valid for reads of `n` elements; `max` is the largest.
#[cold]
#[inline(never)]
unsafe fn exact_shift<S, T>(simd: S, x: *const T, n: usize, scale: &Scale, max: f64) -> LogShift
where
    S: Io<T>,
{
    let own = scale.shift(max, <f64 as Contract>::MIN_EXP);
    let (mut e_max, mut sum) = (0.0, Sum::ZERO);
    simd.vectorize(
        #[inline(always)]
        || {
            let w = simd.wide();
            let exp = Exp::new(w, scale, &own);
            [sum] = row_sums(
                simd,
                n,
                #[inline(always)]
                |i, n| {
                    // SAFETY: n elements are there from i on. The exponential of -inf is 0.
                    let x = unsafe { load(simd, x.add(i), n, f64::NEG_INFINITY) };
                    let [a, b] = simd.widen(x);
                    [[exp.of(true, true, a), exp.of(true, true, b)]]
                },
            );
            e_max = w.first_lane(exp.of(true, true, w.splat(max)));
        },
    );
    f64::log_shift(scale, max, e_max, &own, sum)
}

/// Computes losses and gradients. Returns whether there was memory for a row; if not, nothing is
/// written.
///
/// # Safety
/// The call's pointers are valid as [`LossCall`] says, and there is a place for the gradient.
#[inline(always)]
unsafe fn gradients<S, T, const STREAM: bool>(simd: S, call: &mut LossCall<T>) -> bool
where
    S: Io<T> + Io<f32> + Io<<S as Vector>::E>,
    T: Element,
{
    let (scale, n) = (call.options.scale, call.cols);
    // At a place that does not hinder the row after the first, which is read while the first is
    // written.
    let next = call.x.wrapping_add(call.x_stride).addr();
    let Some((_scratch, kept)) = Scratch::take_row::<S::E>(n, next, call.y.addr()) else {
        return false;
    };
    let plain = Plain::of(call.store);
    let mut reducer = Reducer::new(simd, &scale);
    let mut pipeline = Pipeline::<S, S::E, T, Inverse<S::V>, STREAM>::new(simd);
    // The label's place in the row that waits to be finished, and its gradient.
    let mut label_of_waiting: Option<(*mut T, T)> = None;
    let mut labels = Labels::<S, T, STREAM>::new(simd);
    for row in 0..call.rows() {
        // SAFETY: `row` is one of the call's rows, of n elements, and `kept` has room for as many.
        // The row before was one of the call's, too; a label is a column.
        unsafe {
            let (x, y) = call.row(row);
            let label_before = label_of_waiting.take();
            let Some(targets) = call.targets(row) else {
                pipeline.finish_now(STREAM);
                labels.put(label_before);
                fill(y, n, T::ZERO);
                call.set(row, 0.0);
                continue;
            };
            pipeline.prefetch_ends(y, n);
            let reduced = pipeline.reduce::<T, Keep, _>(&mut reducer, x, kept, n, &plain);
            labels.put(label_before);
            let loss = match reduced {
                Ok(mut reduced) => {
                    let (of_row, sums) = row_loss(simd, call, &targets, x, kept, &reduced);
                    let sum = reduced.sum.hi;
                    if !of_row.is_safe([sum, sum * reduced.factor])
                        && let Ok(exactly) = reducer.reduce_exactly::<T, Keep, _>(
                            x,
                            kept,
                            n,
                            &Plain::NEAR,
                            Some(reduced.max),
                        )
                    {
                        reduced = exactly;
                    }
                    let (hi, lo) = of_row.inverse(reduced.sum);
                    let finite = hi.widen().is_finite();
                    let wide = of_row.is_wide(reduced.wide, n);
                    let inverse = Inverse { hi: simd.splat(hi), lo: simd.splat(lo), wide };
                    let label = targets.label.map(|label| {
                        let x = simd.splat(S::E::narrow(label.logit));
                        let e = simd.first_lane(reduced.exp.of(true, true, x)).widen();
                        let value = of_row.at_label(&label, e * reduced.factor, &sums);
                        (label.column, if value.is_nan() { T::NAN } else { T::from_f64(value) })
                    });
                    match (&targets.soft, label) {
                        (None, Some(label)) if finite => {
                            pipeline.finish_later(Finish::new(kept, y, n, inverse));
                            label_of_waiting = Some((y.add(label.0), label.1));
                        }
                        // Factors beyond the type's range are numbers in f64.
                        (soft, label) => {
                            let (hi, lo) = of_row.wide_inverse(reduced.sum);
                            let w = simd.wide();
                            let inverse = Inverse { hi: w.splat(hi), lo: w.splat(lo), wide };
                            let none = Soft::NONE;
                            let (soft, of_soft) = match soft {
                                Some(soft) => {
                                    let probs = !soft.probs.is_empty();
                                    (Some(soft), of_row.of_soft(&call.options, probs, n))
                                }
                                None => (hi.is_finite().then_some(&none), (0.0, 0.0)),
                            };
                            if let Some(soft) = soft {
                                finish_soft::<S, T>(simd, kept, y, n, &inverse, soft, of_soft);
                            } else {
                                // An infinite factor gives NaN, and always the same one.
                                fill(y, n, T::NAN);
                            }
                            if let Some((column, value)) = label {
                                *y.add(column) = value;
                            }
                        }
                    }
                    of_row.loss
                }
                Err(Special::Nan | Special::PlusInf | Special::AllMasked) => {
                    fill(y, n, T::NAN);
                    f64::NAN
                }
            };
            call.set(row, loss);
        }
    }
    // SAFETY: as above.
    unsafe {
        pipeline.finish_now(STREAM);
        labels.put(label_of_waiting);
        labels.write();
    }
    true
}

/// The gradients of label columns in rows that are finished. They are written at once or, in
/// streamed rows, after a fence, because a store to memory that was streamed waits for it.
struct Labels<S, T, const STREAM: bool> {
    simd: S,
    waiting: [(*mut T, T); LABELS],
    len: usize,
}

/// Rows that share a fence.
const LABELS: usize = 32;

impl<S: Vector, T: Element, const STREAM: bool> Labels<S, T, STREAM> {
    #[inline(always)]
    fn new(simd: S) -> Self {
        Self { simd, waiting: [(std::ptr::null_mut(), T::ZERO); LABELS], len: 0 }
    }

    /// Takes the label of a row that was finished.
    ///
    /// # Safety
    /// The label's place is in one of the call's rows.
    #[inline(always)]
    unsafe fn put(&mut self, label: Option<(*mut T, T)>) {
        let Some((at, value)) = label else { return };
        if !STREAM {
            // SAFETY: as this function's.
            unsafe { *at = value };
            return;
        }
        self.waiting[self.len] = (at, value);
        self.len += 1;
        if self.len == LABELS {
            // SAFETY: as this function's, for this row and those before.
            unsafe { self.write() };
        }
    }

    /// Writes all labels that wait.
    ///
    /// # Safety
    /// As [`Labels::put`].
    #[inline(always)]
    unsafe fn write(&mut self) {
        if STREAM {
            self.simd.fence();
        }
        for &(at, value) in &self.waiting[..self.len] {
            // SAFETY: as this function's.
            unsafe { *at = value };
        }
        self.len = 0;
    }
}

/// # Safety
/// `y` is valid for writes of `n` elements.
pub(super) unsafe fn fill<T: Element>(y: *mut T, n: usize, value: T) {
    for i in 0..n {
        // SAFETY: as this function's.
        unsafe { *y.add(i) = value };
    }
}

/// Vectors of f64 of the same CPU.
type Wide<S> = <<S as Vector>::Wide as Vector>::V;

/// Vectors of f64 that a vector widens to: see [`Vector::widen`].
pub(super) const fn halves<S: Vector>() -> usize {
    S::LANES / (MOST_LANES / 2)
}

/// `N` sums over a row, added as its exponentials are: element `i` of a [`BLOCK`] to lane `i %
/// LANES`, in f64 for f32 and in double-double for f64; lanes as a binary tree, blocks in order.
///
/// `terms(i, n)` gives the terms of the `n <= LANES` elements from the `i`th on, in two vectors of
/// f64; rows of f64 use the first alone.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // as indices the loops unroll into registers
pub(super) fn row_sums<S: Vector, const N: usize>(
    simd: S,
    n: usize,
    mut terms: impl FnMut(usize, usize) -> [[Wide<S>; 2]; N],
) -> [Sum; N] {
    const EIGHT: usize = MOST_LANES / 2;
    let w = simd.wide();
    let mut total = [Sum::ZERO; N];
    let mut start = 0;
    while start < n {
        let end = n.min(start + BLOCK);
        let mut acc = [[w.splat(0.0); 2]; N];
        let mut i = start;
        while i < end {
            let terms = terms(i, S::LANES.min(end - i));
            for k in 0..N {
                acc[k] = if halves::<S>() == 2 {
                    [w.add(acc[k][0], terms[k][0]), w.add(acc[k][1], terms[k][1])]
                } else {
                    two_sum_lanes(w, acc[k].into(), terms[k][0]).into()
                };
            }
            i += S::LANES;
        }
        for k in 0..N {
            let mut lanes = [[0.0; EIGHT]; 2];
            // SAFETY: each array has room for a vector.
            unsafe {
                w.store(lanes[0].as_mut_ptr(), acc[k][0]);
                w.store(lanes[1].as_mut_ptr(), acc[k][1]);
            }
            let block = if halves::<S>() == 2 {
                fold_f32(std::array::from_fn(|i| lanes[i / EIGHT][i % EIGHT]))
            } else {
                fold_f64(lanes[0], lanes[1])
            };
            total[k] = if start == 0 { block } else { S::E::sum_add(total[k], block) };
        }
        start = end;
    }
    total
}

/// Sums over the targets of all columns of a row with this maximum.
///
/// # Safety
/// `x` is valid for reads of `n` elements; probabilities and weights are empty or have as many.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // as indices the loops unroll into registers
unsafe fn soft_sums<S, T>(simd: S, x: *const T, n: usize, soft: &Soft<T>, max: f64) -> SoftSums
where
    S: Io<T> + Io<f32> + Io<<S as Vector>::E>,
    T: Element,
{
    let w = simd.wide();
    let (max, zero) = (w.splat(0.5 * max), w.splat(0.0));
    let minus_half = w.splat(-0.5);
    let (own, spread) = (w.splat(soft.own), w.splat(soft.spread));
    let least = w.splat(f64::from_bits(1));
    let [probs, weights, below] = row_sums(
        simd,
        n,
        #[inline(always)]
        |i, n| {
            // SAFETY: each has n elements from i on.
            let [x, q, weight] = unsafe {
                let q = if soft.probs.is_empty() {
                    [zero; 2]
                } else {
                    simd.widen(load(simd, soft.probs.as_ptr().add(i), n, 0.0))
                };
                let weight = match soft.weights {
                    Some(weights) => load_weights(simd, &weights, i, n),
                    None => simd.widen(ones(simd, n)),
                };
                [simd.widen(load(simd, x.add(i), n, 0.0)), q, weight]
            };
            let mut terms = [[zero; 2]; 3];
            for half in 0..halves::<S>() {
                let (x, q, weight) = (x[half], q[half], weight[half]);
                let t = w.mul(weight, w.fma(q, own, spread));
                let term = w.mul(t, w.fma(x, minus_half, max));
                // A target of 0 adds nothing, even times infinity.
                let size = w.max(t, w.sub(zero, t));
                terms[0][half] = w.mul(weight, q);
                terms[1][half] = weight;
                terms[2][half] = w.select_below(size, least, zero, term);
            }
            terms
        },
    );
    SoftSums { probs, weights, below: below.hi }
}

/// The weights from the `i`th on, as many as a vector has; where fewer than `n` are left, zeros
/// behind them.
///
/// # Safety
/// There are `i + n` weights.
#[inline(always)]
unsafe fn load_weights<S>(simd: S, weights: &Weights, i: usize, n: usize) -> [Wide<S>; 2]
where
    S: Io<f32>,
{
    // SAFETY: as this function's.
    unsafe {
        match weights {
            Weights::F32(weights) => simd.widen(load(simd, weights.as_ptr().add(i), n, 0.0)),
            Weights::F64(weights) => {
                let (w, p, lanes) = (simd.wide(), weights.as_ptr().add(i), S::Wide::LANES);
                let mut halves = [load(w, p, n, 0.0), w.splat(0.0)];
                if S::LANES > lanes && n > lanes {
                    halves[1] = load(w, p.add(lanes), n - lanes, 0.0);
                }
                halves
            }
        }
    }
}

/// `n` ones, then zeros.
#[inline(always)]
fn ones<S: Io<<S as Vector>::E>>(simd: S, n: usize) -> S::V {
    let splat = |v: f64| simd.splat(S::E::narrow(v));
    if n >= S::LANES {
        return splat(1.0);
    }
    // SAFETY: the array has as many elements as a vector.
    let lanes = unsafe { simd.load(S::E::lanes().as_ptr()) };
    simd.select_below(lanes, splat(1.0 - n as f64), splat(0.0), splat(1.0))
}

/// Writes the gradient of a row with targets for all columns, in f64: `inverse` comes from
/// [`RowLoss::wide_inverse`], `of_soft` from [`RowLoss::of_soft`]. It takes as long as a short row,
/// so one function serves all callers.
///
/// # Safety
/// `kept` is valid for reads and `y` for writes of `n` elements; probabilities and weights are
/// empty or have as many.
#[inline(never)]
#[allow(clippy::needless_range_loop)] // as indices the loops unroll into registers
unsafe fn finish_soft<S, T>(
    simd: S,
    kept: *const S::E,
    y: *mut T,
    n: usize,
    inverse: &Inverse<Wide<S>>,
    soft: &Soft<T>,
    of_soft: (f64, f64),
) where
    S: Io<T> + Io<f32> + Io<<S as Vector>::E>,
    T: Element,
{
    simd.vectorize(
        #[inline(always)]
        || {
            let w = simd.wide();
            let zero = w.splat(0.0);
            let (own, spread) = (w.splat(of_soft.0), w.splat(of_soft.1));
            let mut i = 0;
            while i < n {
                // SAFETY: each has n - i elements from i on.
                unsafe {
                    let e = simd.widen(load(simd, kept.add(i), n - i, 0.0));
                    let q = if soft.probs.is_empty() {
                        [zero; 2]
                    } else {
                        simd.widen(load(simd, soft.probs.as_ptr().add(i), n - i, 0.0))
                    };
                    let weight = match soft.weights {
                        Some(weights) => load_weights(simd, &weights, i, n - i),
                        None => [zero; 2],
                    };
                    let mut gradient = [zero; 2];
                    for half in 0..halves::<S>() {
                        let p = if is_single::<S::E>() {
                            w.mul(e[half], inverse.hi)
                        } else {
                            prob(w, e[half], *inverse)
                        };
                        let t = if soft.probs.is_empty() {
                            spread
                        } else {
                            w.fma(q[half], own, spread)
                        };
                        gradient[half] = match soft.weights {
                            Some(_) => w.fma(w.sub(zero, weight[half]), t, p),
                            None => w.sub(p, t),
                        };
                    }
                    store(simd, y.add(i), n - i, one_nan(simd, simd.narrow(gradient)));
                }
                i += S::LANES;
            }
        },
    );
}

/// Loads up to LANES of `n` elements; `fill` takes the place of missing ones.
///
/// # Safety
/// `p` is valid for reads of `n` elements.
#[inline(always)]
pub(super) unsafe fn load<S: Io<T>, T>(simd: S, p: *const T, n: usize, fill: f64) -> S::V {
    // SAFETY: as this function's.
    unsafe { simd.load_upto(p, n.min(S::LANES), S::E::narrow(fill)) }
}

/// # Safety
/// `p` is valid for writes of `n` elements.
#[inline(always)]
pub(super) unsafe fn store<S: Io<T>, T>(simd: S, p: *mut T, n: usize, v: S::V) {
    // SAFETY: as this function's.
    unsafe {
        if n >= S::LANES {
            simd.store(p, v);
        } else {
            simd.store_part(p, n, v);
        }
    }
}

/// Turns every NaN into the same one: which one an operation gives depends on the CPU.
#[inline(always)]
pub(super) fn one_nan<S: Vector>(simd: S, v: S::V) -> S::V {
    let splat = |v: f64| simd.splat(S::E::narrow(v));
    let finite = simd.select_below(v, splat(f64::INFINITY), v, splat(f64::NAN));
    simd.select_below(splat(-S::E::LEAST), v, v, finite)
}

/// The gradient through softmax or, if `LOG`, log-softmax, in f64: rows of f32 are rounded once, at
/// the end; in rows of f64 the factors are pairs. Products are summed with their rounding errors,
/// so that nothing is lost where they cancel.
///
/// # Safety
/// All views of the call have the same shape.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // as indices the loops unroll into registers
unsafe fn backward_by<S, T, const LOG: bool>(simd: S, call: &mut BackwardCall<T>)
where
    S: Io<T> + Io<<S as Vector>::E>,
    T: Element,
{
    let w = simd.wide();
    let single = is_single::<S::E>();
    // The exponential of a log-probability, times C.
    let shift = Shift { subtract: 0.0, m: 0, cut: Scale::ONE.cut(0, S::E::MIN_EXP) };
    let exp = Exp::new(simd, &Scale::ONE, &shift);
    let of_call = call.scale;
    let (scale, scale_lo) = (w.splat(of_call.0), w.splat(of_call.1));
    let zero = w.splat(0.0);
    for row in 0..call.rows() {
        let (output, upstream, gradient) = call.row(row);
        let n = gradient.len();
        let (output, upstream) = (output.as_ptr(), upstream.as_ptr());
        let gradient = gradient.as_mut_ptr();
        let sum = if LOG {
            let [sum] = row_sums(
                simd,
                n,
                #[inline(always)]
                // SAFETY: n elements of the row are there from i on.
                |i, n| unsafe { [simd.widen(load(simd, upstream.add(i), n, 0.0))] },
            );
            sum
        } else {
            let [products, errors] = row_sums(
                simd,
                n,
                #[inline(always)]
                |i, n| {
                    // SAFETY: both rows have n elements from i on.
                    let (y, u) = unsafe {
                        let y = simd.widen(load(simd, output.add(i), n, 0.0));
                        (y, simd.widen(load(simd, upstream.add(i), n, 0.0)))
                    };
                    let mut terms = [[zero; 2]; 2];
                    for half in 0..halves::<S>() {
                        let p = w.mul(y[half], u[half]);
                        terms[0][half] = p;
                        // Products of f32 are exact in f64.
                        if !single {
                            terms[1][half] = w.fma(y[half], u[half], w.sub(zero, p));
                        }
                    }
                    terms
                },
            );
            S::E::sum_add(products, errors)
        };
        let sum = backward_sum::<S::E>(sum, of_call, LOG);
        let (sum, sum_lo) = (w.splat(sum.0), w.splat(sum.1));
        let small = w.splat(SMALL);
        let mut i = 0;
        while i < n {
            // SAFETY: each row has n - i elements from i on.
            unsafe {
                let y = load(simd, output.add(i), n - i, 0.0);
                let y = simd.widen(if LOG { exp.of(false, true, y) } else { y });
                let u = simd.widen(load(simd, upstream.add(i), n - i, 0.0));
                let mut v = [zero; 2];
                for half in 0..halves::<S>() {
                    let (y, u) = (y[half], u[half]);
                    v[half] = if single {
                        if LOG {
                            w.mul(w.sub(u, w.mul(y, sum)), scale)
                        } else {
                            w.mul(w.mul(y, scale), w.sub(u, sum))
                        }
                    } else {
                        // The product with the scale, as a pair. Near the least normal number it
                        // would have no low part: there the probability is made larger first.
                        let larger = w.mul(y, w.splat(LARGER));
                        let a = if LOG { u } else { w.select_below(y, small, larger, y) };
                        let p = w.mul(a, scale);
                        let p_lo = w.fma(a, scale_lo, w.fma(a, scale, w.sub(zero, p)));
                        if LOG {
                            let e = w.sub(zero, y);
                            w.add(w.fma(e, sum, p), w.fma(e, sum_lo, p_lo))
                        } else {
                            let d = w.sub(w.sub(u, sum), sum_lo);
                            let v = w.fma(p, d, w.mul(p_lo, d));
                            w.select_below(y, small, w.mul(v, w.splat(1.0 / LARGER)), v)
                        }
                    };
                }
                store(simd, gradient.add(i), n - i, one_nan(simd, simd.narrow(v)));
            }
            i += S::LANES;
        }
    }
}

/// Computes the losses of a call, and its gradient. Returns whether there was memory for the
/// exponentials of a row; if not, nothing is written.
///
/// # Safety
/// The call's pointers are valid as [`LossCall`] says.
#[inline(always)]
pub(crate) unsafe fn loss<S, T>(simd: S, call: &mut LossCall<T>) -> bool
where
    S: Io<T> + Io<f32> + Io<<S as Vector>::E>,
    T: Element,
{
    // SAFETY: as this function's.
    unsafe {
        if call.y.is_null() {
            losses::<S, T>(simd, call);
            true
        } else if S::STREAMS && call.store.is_past() {
            gradients::<S, T, true>(simd, call)
        } else {
            gradients::<S, T, false>(simd, call)
        }
    }
}

/// Computes the gradient of a call.
///
/// # Safety
/// All views of the call have the same shape.
#[inline(always)]
pub(crate) unsafe fn backward<S, T>(simd: S, call: &mut BackwardCall<T>)
where
    S: Io<T> + Io<f32> + Io<<S as Vector>::E>,
    T: Element,
{
    // SAFETY: as this function's.
    unsafe {
        if call.log {
            backward_by::<S, T, true>(simd, call);
        } else {
            backward_by::<S, T, false>(simd, call);
        }
    }
}
