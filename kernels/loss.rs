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
//! of which no term of the second form is negative, so that nothing cancels. `c` is the logarithm
//! of `1 + others / top`, the largest element's exponential apart from the sum of all others
//! ([`Sums`]), so that it is right relative to itself however near to 0 it is.
//!
//! The exponentials of a row become its gradient when the row after it is swept, as they become
//! probabilities in `pipeline.rs`: the same sweep, the same two operations for each element. What a
//! label adds to its own column is computed once a row, in f64 (for rows of f64 in pairs), from
//! `others / sum` rather than `p - 1`, which would cancel.

use std::marker::PhantomData;

use crate::element::Element;
use crate::exp2::{BLOCK, Contract, Sum, fold_f32, fold_f64};
use crate::matrix::{Matrix, MatrixMut};
use crate::memory;
use crate::pipeline::{Pipeline, Reduced, Reducer};
use crate::row_loss::{RowLoss, SoftSums, Sums, backward_sum, is_single};
use crate::rows::{Exp, Finish, Forget, Inverse, Keep, Odd, Plain, prob};
use crate::scalar;
use crate::scale::{LogShift, Scale, Shift};
use crate::scratch::Scratch;
use crate::table::{Isa, Kernel};
use crate::vector::{Io, MOST_LANES, Vector, two_sum_lanes};

/// What rows are measured against.
#[derive(Clone, Copy, Debug)]
pub enum Targets<'a, T> {
    /// The column of each row's class.
    Labels(&'a [i64]),
    /// Each row's probabilities.
    Probs(Matrix<'a, T>),
}

impl<'a, T> From<&'a [i64]> for Targets<'a, T> {
    fn from(labels: &'a [i64]) -> Self {
        Self::Labels(labels)
    }
}

impl<'a, T, const N: usize> From<&'a [i64; N]> for Targets<'a, T> {
    fn from(labels: &'a [i64; N]) -> Self {
        Self::Labels(labels)
    }
}

impl<'a, T> From<&'a Vec<i64>> for Targets<'a, T> {
    fn from(labels: &'a Vec<i64>) -> Self {
        Self::Labels(labels)
    }
}

impl<'a, T> From<Matrix<'a, T>> for Targets<'a, T> {
    fn from(probs: Matrix<'a, T>) -> Self {
        Self::Probs(probs)
    }
}

/// The options of a loss.
#[derive(Clone, Copy, Debug)]
pub struct Loss<'a> {
    /// What the logits are multiplied by.
    pub scale: Scale,
    /// Rows with this label have no loss and no gradient.
    pub ignore: i64,
    /// How much of a target's mass is spread over all classes.
    pub smoothing: f64,
    /// What each class's part of the loss is multiplied by: finite numbers that are not negative.
    pub weights: Option<&'a [f32]>,
    /// The factor of the squared log-sum-exp.
    pub z: f64,
    /// The entropy of the targets is taken off: Kullback-Leibler divergence.
    pub divergence: bool,
    /// What all gradients are multiplied by.
    pub factor: f64,
}

impl Loss<'_> {
    /// Whether labels are columns or ignored.
    ///
    /// # Errors
    /// [`LossError::Label`] at the first that is neither.
    pub fn check_labels(&self, labels: &[i64], cols: usize) -> Result<(), LossError> {
        let column = |label: i64| usize::try_from(label).is_ok_and(|label| label < cols);
        for (row, &label) in labels.iter().enumerate() {
            if label != self.ignore && !column(label) {
                return Err(LossError::Label { row, label, cols });
            }
        }
        Ok(())
    }

    /// Whether there is a weight for each class, if there are any, and none is negative, infinite
    /// or NaN.
    ///
    /// # Errors
    /// [`LossError::Length`]; [`LossError::Weight`] at the first that is.
    pub fn check_weights(&self, cols: usize) -> Result<(), LossError> {
        let Some(weights) = self.weights else { return Ok(()) };
        length("weights, one for each class,", weights.len(), cols)?;
        // By their bits, as the caller's floating-point environment may trap at NaN.
        let good =
            |weight: f32| weight.to_bits() < f32::INFINITY.to_bits() || weight.to_bits() == 1 << 31;
        // All of them, without a branch, which the compiler makes vectors of.
        if weights.iter().fold(true, |all, &weight| all & good(weight)) {
            return Ok(());
        }
        let first = weights.iter().enumerate().find(|(_, weight)| !good(**weight));
        first.map_or(Ok(()), |(class, &weight)| Err(LossError::Weight { class, weight }))
    }
}

fn length(what: &'static str, len: usize, needed: usize) -> Result<(), LossError> {
    if len == needed { Ok(()) } else { Err(LossError::Length { what, len, needed }) }
}

/// Why a loss cannot be computed of these.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LossError {
    /// Logits and gradient, or logits and targets, differ in shape.
    Shapes {
        /// Rows and columns of the logits.
        logits: (usize, usize),
        /// Those of the other.
        other: (usize, usize),
    },
    /// A slice has not the length that it needs.
    Length {
        /// What it is.
        what: &'static str,
        /// Its elements.
        len: usize,
        /// Elements needed.
        needed: usize,
    },
    /// A label is no column.
    Label {
        /// The row.
        row: usize,
        /// Its label.
        label: i64,
        /// Columns of a row.
        cols: usize,
    },
    /// The weight of a class is negative, infinite or NaN.
    Weight {
        /// The class.
        class: usize,
        /// Its weight.
        weight: f32,
    },
}

/// The work of one call: the loss of each row, and, where there is a place for it, the gradient.
#[derive(Debug)]
pub struct LossCall<'a, T> {
    /// Row `i` starts at `x + i * x_stride`; each has `cols` elements, valid for reads.
    x: *const T,
    x_stride: usize,
    /// Row `i` starts at `y + i * y_stride`; each has `cols` elements, valid for writes. Disjoint
    /// from `x`, or the very same rows; or null.
    y: *mut T,
    y_stride: usize,
    cols: usize,
    /// Of as many rows as there are losses; labels are columns, or ignored.
    targets: Targets<'a, T>,
    /// One for each row.
    losses: &'a mut [f64],
    /// One for each row, if any: what its loss and gradient are multiplied by.
    factors: Option<&'a [f64]>,
    /// Its weights are as many as there are columns.
    options: Loss<'a>,
    stream: bool,
    borrowed: PhantomData<&'a mut T>,
}

// SAFETY: what it was made of, slices of T and f64, are Send.
unsafe impl<T: Send + Sync> Send for LossCall<'_, T> {}

impl<'a, T: Element> LossCall<'a, T> {
    /// The losses of `x`, and the gradient if there is room for it.
    ///
    /// # Errors
    /// If shapes or lengths do not fit, or a label is no column.
    pub fn new(
        x: Matrix<'a, T>,
        targets: Targets<'a, T>,
        factors: Option<&'a [f64]>,
        losses: &'a mut [f64],
        gradient: Option<MatrixMut<'a, T>>,
        options: Loss<'a>,
    ) -> Result<Self, LossError> {
        let logits = (x.rows(), x.cols());
        let (y, y_stride) = match gradient {
            Some(mut y) => {
                let other = (y.rows(), y.cols());
                if other != logits {
                    return Err(LossError::Shapes { logits, other });
                }
                (y.as_mut_ptr(), y.stride())
            }
            None => (std::ptr::null_mut(), 0),
        };
        let x = (x.as_ptr(), x.stride());
        Self::checked(x, (y, y_stride), logits, targets, factors, losses, options)
    }

    /// The losses of `x`, which becomes its gradient.
    ///
    /// # Errors
    /// As [`LossCall::new`].
    pub fn in_place(
        mut x: MatrixMut<'a, T>,
        targets: Targets<'a, T>,
        factors: Option<&'a [f64]>,
        losses: &'a mut [f64],
        options: Loss<'a>,
    ) -> Result<Self, LossError> {
        let (logits, y) = ((x.rows(), x.cols()), (x.as_mut_ptr(), x.stride()));
        let x = (y.0.cast_const(), y.1);
        Self::checked(x, y, logits, targets, factors, losses, options)
    }

    fn checked(
        (x, x_stride): (*const T, usize),
        (y, y_stride): (*mut T, usize),
        logits: (usize, usize),
        targets: Targets<'a, T>,
        factors: Option<&'a [f64]>,
        losses: &'a mut [f64],
        options: Loss<'a>,
    ) -> Result<Self, LossError> {
        let (rows, cols) = logits;
        length("losses, one for each row,", losses.len(), rows)?;
        if let Some(factors) = factors {
            length("row factors", factors.len(), rows)?;
        }
        options.check_weights(cols)?;
        match targets {
            Targets::Labels(labels) => {
                length("labels, one for each row,", labels.len(), rows)?;
                options.check_labels(labels, cols)?;
            }
            Targets::Probs(q) => {
                let other = (q.rows(), q.cols());
                if other != logits {
                    return Err(LossError::Shapes { logits, other });
                }
            }
        }
        let (stream, borrowed) = (false, PhantomData);
        Ok(LossCall {
            x,
            x_stride,
            y,
            y_stride,
            cols,
            targets,
            losses,
            factors,
            options,
            stream,
            borrowed,
        })
    }

    /// Writes the gradient past the caches, if `yes`; without effect in place.
    #[must_use]
    pub fn streaming(mut self, yes: bool) -> Self {
        self.stream = yes && self.x != self.y.cast_const();
        self
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.losses.len()
    }

    /// The first `at` rows and the others.
    #[must_use]
    pub fn split_rows(self, at: usize) -> (Self, Self) {
        let at = at.min(self.rows());
        let (first, others) = self.losses.split_at_mut(at);
        let targets = match self.targets {
            Targets::Labels(labels) => {
                let (a, b) = labels.split_at(at);
                (Targets::Labels(a), Targets::Labels(b))
            }
            Targets::Probs(q) => {
                let (a, b) = q.split_rows(at);
                (Targets::Probs(a), Targets::Probs(b))
            }
        };
        let factors = self.factors.map(|f| f.split_at(at));
        let part = |from: usize, targets, factors, losses| LossCall {
            x: self.x.wrapping_add(from * self.x_stride),
            y: if self.y.is_null() { self.y } else { self.y.wrapping_add(from * self.y_stride) },
            targets,
            factors,
            losses,
            ..self
        };
        (
            part(0, targets.0, factors.map(|f| f.0), first),
            part(at, targets.1, factors.map(|f| f.1), others),
        )
    }

    /// A row: its elements, the place of its gradient, and what it is measured against. `None` if
    /// it is to be ignored.
    ///
    /// # Safety
    /// There is this row.
    pub(crate) unsafe fn row(&self, row: usize) -> (*const T, *mut T, Option<RowTargets<'a, T>>) {
        let at = if self.y.is_null() { 0 } else { row * self.y_stride };
        let (x, y) = (self.x.wrapping_add(row * self.x_stride), self.y.wrapping_add(at));
        let Loss { smoothing, weights, .. } = self.options;
        let spread = smoothing / self.cols as f64;
        let factor = self.factors.map_or(1.0, |factors| factors[row]);
        let targets = match self.targets {
            Targets::Labels(labels) if labels[row] == self.options.ignore => None,
            Targets::Labels(labels) => {
                // Checked when the call was made.
                let label = labels[row] as usize;
                let weight = weights.map_or(1.0, |w| f64::from(w[label]));
                // SAFETY: the label is a column.
                let logit = unsafe { *x.add(label) }.to_f64();
                let label = Label { column: label, logit, weight };
                let soft =
                    (smoothing != 0.0).then_some(Soft { probs: &[], weights, own: 0.0, spread });
                Some(RowTargets { label: Some(label), soft, factor })
            }
            Targets::Probs(q) => {
                let soft = Some(Soft { probs: q.row(row), weights, own: 1.0 - smoothing, spread });
                Some(RowTargets { label: None, soft, factor })
            }
        };
        (x, y, targets)
    }

    pub(crate) fn options(&self) -> &Loss<'a> {
        &self.options
    }

    pub(crate) fn cols(&self) -> usize {
        self.cols
    }

    pub(crate) fn set(&mut self, row: usize, loss: f64) {
        self.losses[row] = if loss.is_nan() { f64::NAN } else { loss };
    }
}

/// What a row is measured against.
pub(crate) struct RowTargets<'a, T> {
    pub(crate) label: Option<Label>,
    pub(crate) soft: Option<Soft<'a, T>>,
    /// What the row's loss and gradient are multiplied by.
    pub(crate) factor: f64,
}

/// A label's part of the targets.
#[derive(Clone, Copy)]
pub(crate) struct Label {
    pub(crate) column: usize,
    pub(crate) logit: f64,
    pub(crate) weight: f64,
}

/// Targets of all columns: `weight_j * (own * q_j + spread)`, `q` being 0 if there are no
/// probabilities.
#[derive(Clone, Copy)]
pub(crate) struct Soft<'a, T> {
    pub(crate) probs: &'a [T],
    pub(crate) weights: Option<&'a [f32]>,
    pub(crate) own: f64,
    pub(crate) spread: f64,
}

impl<T: Element> Soft<'_, T> {
    /// `sum_j t_j ln(own * q_j + spread)`, of a row of `n` elements.
    pub(crate) fn negative_entropy(&self, n: usize) -> f64 {
        let mut sum = Sum::ZERO;
        for j in 0..n {
            let q = self.probs.get(j).map_or(0.0, |q| q.to_f64()).mul_add(self.own, self.spread);
            let t = self.weights.map_or(1.0, |w| f64::from(w[j])) * q;
            // 0 ln 0 = 0
            if t != 0.0 {
                sum = f64::sum_add(sum, Sum { hi: t * libm::log(q), lo: 0.0 });
            }
        }
        sum.hi
    }
}

/// The gradient through softmax or log-softmax, given its output and the gradient with respect to
/// that.
#[derive(Debug)]
pub struct BackwardCall<'a, T> {
    /// The output of the forward call.
    pub(crate) output: Matrix<'a, T>,
    /// The gradient with respect to it; of the same shape.
    pub(crate) upstream: Matrix<'a, T>,
    /// The gradient with respect to the input; of the same shape.
    pub(crate) gradient: MatrixMut<'a, T>,
    /// What the input was multiplied by, as a pair.
    pub(crate) scale: (f64, f64),
    pub(crate) log: bool,
}

impl<'a, T: Element> BackwardCall<'a, T> {
    /// `None` if the shapes differ.
    pub fn new(
        output: Matrix<'a, T>,
        upstream: Matrix<'a, T>,
        gradient: MatrixMut<'a, T>,
        scale: &Scale,
        log: bool,
    ) -> Option<Self> {
        let shape = (output.rows(), output.cols());
        let same = (upstream.rows(), upstream.cols()) == shape
            && (gradient.rows(), gradient.cols()) == shape;
        same.then_some(Self { output, upstream, gradient, scale: scale.pair(), log })
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.output.rows()
    }

    /// The first `at` rows and the others.
    #[must_use]
    pub fn split_rows(self, at: usize) -> (Self, Self) {
        let (output, upstream) = (self.output.split_rows(at), self.upstream.split_rows(at));
        let gradient = self.gradient.split_rows(at);
        let (scale, log) = (self.scale, self.log);
        let part = |output, upstream, gradient| Self { output, upstream, gradient, scale, log };
        (part(output.0, upstream.0, gradient.0), part(output.1, upstream.1, gradient.1))
    }
}

/// The entry points of a kernel for one element type.
#[derive(Debug)]
pub(crate) struct Ops<T: 'static> {
    loss: fn(&mut LossCall<T>) -> bool,
    backward: fn(&mut BackwardCall<T>),
}

impl Kernel {
    /// The losses of a call, and its gradient; rows without columns have a loss of 0. Whether there
    /// was memory for the exponentials of a row; if not, nothing is written.
    pub fn loss<T: Element>(&'static self, mut call: LossCall<'_, T>) -> bool {
        if call.cols == 0 {
            call.losses.fill(0.0);
            return true;
        }
        (T::ops(self).loss.loss)(&mut call)
    }

    /// The gradient of a call.
    pub fn backward<T: Element>(&'static self, mut call: BackwardCall<'_, T>) {
        if call.output.cols() > 0 {
            (T::ops(self).loss.backward)(&mut call);
        }
    }
}

/// Those of an instruction set.
pub(crate) const fn ops<I, S, T>() -> Ops<T>
where
    I: Isa,
    S: From<I> + Io<T> + Io<f32> + Io<<S as Vector>::E>,
    T: Element,
{
    Ops { loss: loss_on::<I, S, T>, backward: backward_on::<I, S, T> }
}

/// Those of the scalar reference.
pub(crate) const fn reference<T: Element>() -> Ops<T> {
    Ops { loss: scalar::loss::loss, backward: scalar::loss::backward }
}

fn loss_on<I, S, T>(call: &mut LossCall<T>) -> bool
where
    I: Isa,
    S: From<I> + Io<T> + Io<f32> + Io<<S as Vector>::E>,
    T: Element,
{
    let Some(isa) = I::detect() else { return scalar::loss::loss(call) };
    let mut done = false;
    isa.vectorize(
        #[inline(always)]
        || {
            let simd = S::from(isa);
            // SAFETY: a call is made only of views that were checked, so its pointers are valid as
            // its fields say.
            done = unsafe {
                if call.y.is_null() {
                    losses::<S, T>(simd, call);
                    true
                } else if S::STREAMS && call.stream && memory::streams() {
                    gradients::<S, T, true>(simd, call)
                } else {
                    gradients::<S, T, false>(simd, call)
                }
            };
        },
    );
    done
}

fn backward_on<I, S, T>(call: &mut BackwardCall<T>)
where
    I: Isa,
    S: From<I> + Io<T> + Io<<S as Vector>::E>,
    T: Element,
{
    let Some(isa) = I::detect() else { return scalar::loss::backward(call) };
    isa.vectorize(
        #[inline(always)]
        || {
            let simd = S::from(isa);
            // SAFETY: the views of a call are of one shape.
            unsafe {
                if call.log {
                    backward::<S, T, true>(simd, call);
                } else {
                    backward::<S, T, false>(simd, call);
                }
            }
        },
    );
}

/// The losses alone.
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
        // SAFETY: there is this row; nothing is kept of it.
        let loss = unsafe {
            let (x, _, targets) = call.row(row);
            match targets {
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

/// What becomes of a row whose exponentials are known. As long as a short row, and so a function of
/// its own, for all ways to get there.
///
/// # Safety
/// `x` is the row of the call that the targets are of. `kept` is null or has its exponentials, as
/// `reduced` has them.
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
    let mut result = None;
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
            result = Some((RowLoss::new(&call.options, targets, n, &sums, soft, exact), sums));
        },
    );
    result.expect("vectorize runs what it is given")
}

/// The exponentials of all elements but the row's largest, added as the row's are: there is one
/// that has nearly all of their sum. Rare, and so a function of its own.
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
    let mut total = Sum::ZERO;
    simd.vectorize(
        #[inline(always)]
        || {
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
        },
    );
    total
}

/// What turns a row of f32 into its log-softmax, from exponentials in f64. Rare, and so a
/// function of its own.
///
/// # Safety
/// `x` is valid for reads of `n` elements; `max` is the largest.
#[cold]
#[inline(never)]
unsafe fn exact_shift<S, T>(simd: S, x: *const T, n: usize, scale: &Scale, max: f64) -> LogShift
where
    S: Io<T>,
{
    let own = scale.shift(max, f64::MIN_EXP);
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

/// Losses and gradients. Whether there was memory for a row; if not, nothing is written.
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
    // Out of the way of the row after the first, which is read while the first is written.
    let next = call.x.wrapping_add(call.x_stride).addr();
    let Some((_scratch, kept)) = Scratch::take_row::<S::E>(n, next, call.y.addr()) else {
        return false;
    };
    let plain = Plain::of(call.stream);
    let mut reducer = Reducer::new(simd, &scale);
    let mut pipeline = Pipeline::<S, S::E, T, Inverse<S::V>, STREAM>::new(simd);
    // Of the row that waits to be finished: a column, and what its gradient is.
    let mut label_of_waiting: Option<(*mut T, T)> = None;
    let mut labels = Labels::<S, T, STREAM>::new(simd);
    for row in 0..call.rows() {
        // SAFETY: there is this row, of n elements, and what is kept has room for as many. The row
        // before was one of the call's, too; a label is a column.
        unsafe {
            let (x, y, targets) = call.row(row);
            let label_before = label_of_waiting.take();
            let Some(targets) = targets else {
                pipeline.finish_now(STREAM);
                labels.put(label_before);
                fill(y, n, T::ZERO);
                call.set(row, 0.0);
                continue;
            };
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
                        (soft, label) => {
                            if let Some(soft) = soft {
                                let (hi, lo) = of_row.wide_inverse(reduced.sum);
                                let w = simd.wide();
                                let inverse = Inverse { hi: w.splat(hi), lo: w.splat(lo), wide };
                                let of_soft =
                                    of_row.of_soft(&call.options, !soft.probs.is_empty(), n);
                                finish_soft::<S, T>(simd, kept, y, n, inverse, soft, of_soft);
                            } else {
                                // What is not finite has no parts: NaN, and always the same one.
                                fill(y, n, T::NAN);
                            }
                            if let Some((column, value)) = label {
                                *y.add(column) = value;
                            }
                        }
                    }
                    of_row.loss
                }
                Err(Odd::Nan | Odd::PlusInf | Odd::AllMasked) => {
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

/// What the columns of labels are to be, in rows that are finished: written at once or, if the rows
/// were streamed, after a fence, which an ordinary store to the same memory has to wait for.
struct Labels<S, T, const STREAM: bool> {
    simd: S,
    waiting: [(*mut T, T); LABELS],
    len: usize,
}

/// How many rows share a fence.
const LABELS: usize = 32;

impl<S: Vector, T: Element, const STREAM: bool> Labels<S, T, STREAM> {
    #[inline(always)]
    fn new(simd: S) -> Self {
        Self { simd, waiting: [(std::ptr::null_mut(), T::ZERO); LABELS], len: 0 }
    }

    /// A row was finished.
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
            // SAFETY: as this function's, of this row and those before.
            unsafe { self.write() };
        }
    }

    /// Writes all that wait.
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
unsafe fn fill<T: Element>(y: *mut T, n: usize, value: T) {
    for i in 0..n {
        // SAFETY: as this function's.
        unsafe { *y.add(i) = value };
    }
}

/// The same CPU's vectors of f64.
type Wide<S> = <<S as Vector>::Wide as Vector>::V;

/// How many vectors of f64 a vector's lanes are: see [`Vector::widen`].
const fn halves<S: Vector>() -> usize {
    S::LANES / (MOST_LANES / 2)
}

/// `N` sums over a row, as the sum of its exponentials is added: element `i` of a block of
/// [`BLOCK`] to lane `i % LANES`, for f32 in f64, for f64 in double-double; lanes as a binary tree,
/// blocks in order. `terms` gives those of the up to LANES elements from the `i`th on, which are as
/// many as its second argument says, in two vectors of f64, of which f64 rows have only the first.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // as indices the loops unroll into registers
fn row_sums<S: Vector, const N: usize>(
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
            // SAFETY: there is room for a vector in each.
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

/// The sums over the targets of all columns of a row with this maximum.
///
/// # Safety
/// `x` is valid for reads of `n` elements; there are as many probabilities, if any, and weights, if
/// any.
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
            // SAFETY: n elements are there from i on, of each.
            let [x, q, weight] = unsafe {
                let q = if soft.probs.is_empty() {
                    [zero; 2]
                } else {
                    simd.widen(load(simd, soft.probs.as_ptr().add(i), n, 0.0))
                };
                let weight = match soft.weights {
                    Some(weights) => load(simd, weights.as_ptr().add(i), n, 0.0),
                    None => ones(simd, n),
                };
                [simd.widen(load(simd, x.add(i), n, 0.0)), q, simd.widen(weight)]
            };
            let mut terms = [[zero; 2]; 3];
            for half in 0..halves::<S>() {
                let (x, q, weight) = (x[half], q[half], weight[half]);
                let t = w.mul(weight, w.fma(q, own, spread));
                let term = w.mul(t, w.fma(x, minus_half, max));
                // Nothing, even times infinity, is nothing.
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

/// `n` ones, and zeros behind them.
#[inline(always)]
fn ones<S: Io<<S as Vector>::E>>(simd: S, n: usize) -> S::V {
    let splat = |v: f64| simd.splat(S::E::narrow(v));
    if n >= S::LANES {
        return splat(1.0);
    }
    // SAFETY: there are as many as a vector has.
    let lanes = unsafe { simd.load(S::E::lanes().as_ptr()) };
    simd.select_below(lanes, splat(1.0 - n as f64), splat(0.0), splat(1.0))
}

/// The gradient of a row with targets for all columns, in f64: `inverse` is of
/// [`RowLoss::wide_inverse`], `of_soft` [`RowLoss::of_soft`].
///
/// # Safety
/// `kept` is valid for reads and `y` for writes of `n` elements; there are as many probabilities,
/// if any, and weights, if any.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // as indices the loops unroll into registers
unsafe fn finish_soft<S, T>(
    simd: S,
    kept: *const S::E,
    y: *mut T,
    n: usize,
    inverse: Inverse<Wide<S>>,
    soft: &Soft<T>,
    of_soft: (f64, f64),
) where
    S: Io<T> + Io<f32> + Io<<S as Vector>::E>,
    T: Element,
{
    let w = simd.wide();
    let zero = w.splat(0.0);
    let (own, spread) = (w.splat(of_soft.0), w.splat(of_soft.1));
    let mut i = 0;
    while i < n {
        // SAFETY: n - i elements are there from i on, of each.
        unsafe {
            let e = simd.widen(load(simd, kept.add(i), n - i, 0.0));
            let q = if soft.probs.is_empty() {
                [zero; 2]
            } else {
                simd.widen(load(simd, soft.probs.as_ptr().add(i), n - i, 0.0))
            };
            let weight = match soft.weights {
                Some(weights) => simd.widen(load(simd, weights.as_ptr().add(i), n - i, 0.0)),
                None => [zero; 2],
            };
            let mut gradient = [zero; 2];
            for half in 0..halves::<S>() {
                let p = if is_single::<S::E>() {
                    w.mul(e[half], inverse.hi)
                } else {
                    prob(w, e[half], inverse)
                };
                let t = if soft.probs.is_empty() { spread } else { w.fma(q[half], own, spread) };
                gradient[half] = match soft.weights {
                    Some(_) => w.fma(w.sub(zero, weight[half]), t, p),
                    None => w.sub(p, t),
                };
            }
            store(simd, y.add(i), n - i, one_nan(simd, simd.narrow(gradient)));
        }
        i += S::LANES;
    }
}

/// Up to LANES of `n` elements; where there are fewer, `fill` behind them.
///
/// # Safety
/// `p` is valid for reads of `n` elements.
#[inline(always)]
unsafe fn load<S: Io<T>, T>(simd: S, p: *const T, n: usize, fill: f64) -> S::V {
    // SAFETY: as this function's.
    unsafe { if n >= S::LANES { simd.load(p) } else { simd.load_part(p, n, S::E::narrow(fill)) } }
}

/// # Safety
/// `p` is valid for writes of `n` elements.
#[inline(always)]
unsafe fn store<S: Io<T>, T>(simd: S, p: *mut T, n: usize, v: S::V) {
    // SAFETY: as this function's.
    unsafe {
        if n >= S::LANES {
            simd.store(p, v);
        } else {
            simd.store_part(p, n, v);
        }
    }
}

/// Every NaN as the same one: which one an operation gives depends on the CPU.
#[inline(always)]
fn one_nan<S: Vector>(simd: S, v: S::V) -> S::V {
    let splat = |v: f64| simd.splat(S::E::narrow(v));
    let finite = simd.select_below(v, splat(f64::INFINITY), v, splat(f64::NAN));
    simd.select_below(splat(-S::E::LEAST), v, v, finite)
}

/// Probabilities of f64 below this are multiplied by [`LARGER`] before the scale, at least 2^-100,
/// multiplies them.
pub(crate) const SMALL: f64 = f64::from_bits((1023 - 900) << 52);
/// Small enough for a product with any scale and difference not to overflow.
pub(crate) const LARGER: f64 = f64::from_bits((1023 + 200) << 52);

/// The gradient through softmax or, if `LOG`, log-softmax, in f64: rows of f32 are rounded once, in
/// the end, for rows of f64 what is multiplied is in pairs. The products are summed with what their
/// rounding lost, so that nothing is lost where they cancel.
///
/// # Safety
/// The views of the call are of one shape.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // as indices the loops unroll into registers
unsafe fn backward<S, T, const LOG: bool>(simd: S, call: &mut BackwardCall<T>)
where
    S: Io<T> + Io<<S as Vector>::E>,
    T: Element,
{
    let n = call.output.cols();
    let w = simd.wide();
    let single = is_single::<S::E>();
    // The exponential of a log-probability, times C.
    let shift = Shift { subtract: 0.0, m: 0, cut: Scale::ONE.cut(0, S::E::MIN_EXP) };
    let exp = Exp::new(simd, &Scale::ONE, &shift);
    let (scale, scale_lo) = (w.splat(call.scale.0), w.splat(call.scale.1));
    let zero = w.splat(0.0);
    for row in 0..call.output.rows() {
        let output = call.output.as_ptr().wrapping_add(row * call.output.stride());
        let upstream = call.upstream.as_ptr().wrapping_add(row * call.upstream.stride());
        let stride = call.gradient.stride();
        let gradient = call.gradient.as_mut_ptr().wrapping_add(row * stride);
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
                    // SAFETY: n elements of the row are there from i on, of both.
                    let (y, u) = unsafe {
                        let y = simd.widen(load(simd, output.add(i), n, 0.0));
                        (y, simd.widen(load(simd, upstream.add(i), n, 0.0)))
                    };
                    let mut terms = [[zero; 2]; 2];
                    for half in 0..halves::<S>() {
                        let p = w.mul(y[half], u[half]);
                        terms[0][half] = p;
                        // Those of f32 are exact in f64.
                        if !single {
                            terms[1][half] = w.fma(y[half], u[half], w.sub(zero, p));
                        }
                    }
                    terms
                },
            );
            S::E::sum_add(products, errors)
        };
        let sum = backward_sum::<S::E>(sum, call.scale, LOG);
        let (sum, sum_lo) = (w.splat(sum.0), w.splat(sum.1));
        let small = w.splat(SMALL);
        let mut i = 0;
        while i < n {
            // SAFETY: n - i elements of the row are there from i on, of each.
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
                        // The factor of the scale, as a pair. A probability near the least normal
                        // number has no low part in its product: it is made larger first.
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
