//! Cross-entropy and its gradient, and the gradients of softmax and log-softmax.
//!
//! A row's loss against targets `t` (one-hot or probabilities, smoothed and weighted, see [`Loss`]) is
//!
//! ```text
//! loss = sum_j t_j (lse - a x_j) + z lse^2 = A c + a sum_j t_j (max - x_j) + z lse^2        c = lse - a max, A = sum_j t_j
//! dloss / dx_j = a (p_j (A + 2 z lse) - t_j)
//! ```
//!
//! of which no term of the second form is negative, so that nothing cancels. The exponentials of a row become its gradient when the row after it is
//! swept, as they become probabilities in `pipeline.rs`: the same sweep, the same two operations for each element. What a label adds
//! to its own column is computed once a row, in f64, from `sum - e` rather than `p - 1`, which would cancel.

use std::marker::PhantomData;

use crate::element::Element;
use crate::exp2::{BLOCK, Contract, Sum, fold_f32, fold_f64};
use crate::matrix::{Matrix, MatrixMut};
use crate::memory;
use crate::pipeline::{Kept, Log, Reduced, Reducer};
use crate::rows::{Exp, Finish, Odd, Plain, finish_row, quotient};
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
    /// What each class's part of the loss is multiplied by.
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

    /// Whether there is a weight for each class, if there are any.
    ///
    /// # Errors
    /// [`LossError::Length`].
    pub fn check_weights(&self, cols: usize) -> Result<(), LossError> {
        self.weights.map_or(Ok(()), |w| length("weights, one for each class,", w.len(), cols))
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
}

/// The work of one call: the loss of each row, and, where there is a place for it, the gradient.
#[derive(Debug)]
pub struct LossCall<'a, T> {
    /// Row `i` starts at `x + i * x_stride`; each has `cols` elements, valid for reads.
    x: *const T,
    x_stride: usize,
    /// Row `i` starts at `y + i * y_stride`; each has `cols` elements, valid for writes. Disjoint from `x`, or the very same rows; or null.
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

    /// A row: its elements, the place of its gradient, and what it is measured against. `None` if it is to be ignored.
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
                let label =
                    Label { column: label, logit, weight, mass: weight * (1.0 - smoothing) };
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
    /// What of the target is the label's alone.
    pub(crate) mass: f64,
}

/// Targets of all columns: `weight_j * (own * q_j + spread)`, `q` being 0 if there are no probabilities.
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

/// Sums over the targets of all columns.
#[derive(Clone, Copy, Default)]
pub(crate) struct SoftSums {
    /// `sum_j t_j`
    pub(crate) mass: f64,
    /// `sum_j t_j (max - x_j)`
    pub(crate) below: f64,
}

/// What is known of a row before its gradient is written: scalars in f64, the same for every kernel.
#[derive(Clone, Copy)]
pub(crate) struct RowLoss {
    pub(crate) loss: f64,
    /// What probabilities are multiplied by.
    pub(crate) of_probs: f64,
    /// What targets are multiplied by.
    pub(crate) of_targets: f64,
    /// The gradient of the label's column is `mass * p - target = rest - mass * (1 - p)`, times `of_targets`.
    target: f64,
    rest: f64,
    mass: f64,
}

impl RowLoss {
    pub(crate) fn new<T: Element>(
        options: &Loss,
        targets: &RowTargets<T>,
        cols: usize,
        log: &LogShift,
        sums: SoftSums,
    ) -> Self {
        let c = log.c.0 + log.c.1;
        let lse = log.logsumexp();
        let mut loss = sums.mass * c + options.scale.get() * sums.below;
        let (mut own, mut of_label) = (0.0, 0.0);
        if let Some(label) = &targets.label {
            own = label.mass;
            // A class of weight 0 counts nothing, even if its logit is -inf.
            if own != 0.0 {
                loss += own * -log.log_prob(label.logit);
            }
            of_label = targets.soft.as_ref().map_or(0.0, |soft| label.weight * soft.spread);
        }
        let mut rest = sums.mass - of_label;
        if options.divergence
            && let Some(soft) = &targets.soft
        {
            loss += match &targets.label {
                None => soft.negative_entropy(cols),
                // All other columns' targets are the same.
                Some(label) => {
                    let [own, other] = [1.0 - options.smoothing + soft.spread, soft.spread];
                    let others = sums.mass - label.weight * other;
                    label.weight * own * libm::log(own) + others * libm::log(other)
                }
            };
        }
        let of_lse = 2.0 * options.z * lse;
        if options.z != 0.0 {
            loss += options.z * lse * lse;
            rest += of_lse;
        }
        let mass = own + sums.mass + if options.z != 0.0 { of_lse } else { 0.0 };
        let of_targets = options.factor * targets.factor * options.scale.get();
        let (loss, of_probs, target) = (loss * targets.factor, of_targets * mass, own + of_label);
        Self { loss, of_probs, of_targets, target, rest, mass }
    }

    /// The gradient of the label's column, from its exponential and the sum of all.
    pub(crate) fn at_label(&self, e: f64, sum: Sum) -> f64 {
        // Of the two forms the one whose terms are no larger than the gradient's own.
        if 2.0 * e <= sum.hi {
            return self.of_targets * (self.mass * (e / sum.hi) - self.target);
        }
        let others = ((sum.hi - e) + sum.lo) / sum.hi;
        self.of_targets * (self.rest - self.mass * others)
    }
}

/// The gradient through softmax or log-softmax, given its output and the gradient with respect to that.
#[derive(Debug)]
pub struct BackwardCall<'a, T> {
    /// The output of the forward call.
    pub(crate) output: Matrix<'a, T>,
    /// The gradient with respect to it; of the same shape.
    pub(crate) upstream: Matrix<'a, T>,
    /// The gradient with respect to the input; of the same shape.
    pub(crate) gradient: MatrixMut<'a, T>,
    /// What the input was multiplied by.
    pub(crate) scale: f64,
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
        same.then_some(Self { output, upstream, gradient, scale: scale.get(), log })
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
    /// The losses of a call, and its gradient; rows without columns have a loss of 0. Whether there was memory for the exponentials of a row; if not, nothing is written.
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
    S::Wide: Io<<S as Vector>::E>,
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
    S::Wide: Io<<S as Vector>::E>,
    T: Element,
{
    let Some(isa) = I::detect() else { return scalar::loss::loss(call) };
    let mut done = false;
    isa.vectorize(
        #[inline(always)]
        || {
            let simd = S::from(isa);
            // SAFETY: a call is made only of views that were checked, so its pointers are valid as its fields say.
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
    S::Wide: Io<<S as Vector>::E>,
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
    S::Wide: Io<<S as Vector>::E>,
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
                    match reducer.reduce_alone::<T, Log, _>(x, none, call.cols, &Plain::NEAR) {
                        Ok(reduced) => row_loss(simd, call, &targets, x, &reduced).loss,
                        Err(_) => f64::NAN,
                    }
                }
            }
        };
        call.set(row, loss);
    }
}

/// What becomes of a row whose exponentials are known.
///
/// # Safety
/// `x` is the row of the call that the targets are of.
#[inline(always)]
unsafe fn row_loss<S, T>(
    simd: S,
    call: &LossCall<T>,
    targets: &RowTargets<T>,
    x: *const T,
    reduced: &Reduced<S>,
) -> RowLoss
where
    S: Io<T> + Io<f32> + Io<<S as Vector>::E>,
    S::Wide: Io<<S as Vector>::E>,
    T: Element,
{
    let log = reduced.log_shift(&call.options.scale);
    let sums = match &targets.soft {
        // SAFETY: as this function's.
        Some(soft) => unsafe { soft_sums(simd, x, call.cols, soft, reduced.max) },
        None => SoftSums::default(),
    };
    RowLoss::new(&call.options, targets, call.cols, &log, sums)
}

/// A row whose exponentials wait to become its gradient.
struct Waiting<T, V> {
    y: *mut T,
    inverse: (V, V),
    /// A column, and what its gradient is.
    label: (usize, T),
}

/// Losses and gradients. Whether there was memory for a row; if not, nothing is written.
///
/// # Safety
/// The call's pointers are valid as [`LossCall`] says, and there is a place for the gradient.
#[inline(always)]
unsafe fn gradients<S, T, const STREAM: bool>(simd: S, call: &mut LossCall<T>) -> bool
where
    S: Io<T> + Io<f32> + Io<<S as Vector>::E>,
    S::Wide: Io<<S as Vector>::E>,
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
    let mut last: Option<Waiting<T, S::V>> = None;
    let finishing = |waiting: &Waiting<T, S::V>| {
        let (y, inverse) = (waiting.y, waiting.inverse);
        Finish::new(
            kept.cast_const(),
            y,
            n,
            #[inline(always)]
            move |v| quotient(simd, v, inverse),
        )
    };
    for row in 0..call.rows() {
        // SAFETY: there is this row, of n elements, and what is kept has room for as many. The row before was one of the call's, too; a
        // label is a column.
        unsafe {
            let (x, y, targets) = call.row(row);
            let before = last.take();
            let finish = before.as_ref().map(finishing);
            let Some(targets) = targets else {
                if let Some(finish) = finish {
                    finish_row::<S, T, _, STREAM>(simd, &finish);
                }
                correct(before);
                fill(y, n, T::ZERO);
                call.set(row, 0.0);
                continue;
            };
            let reduced = reducer.reduce::<T, T, _, _, Kept, _, STREAM>(x, kept, n, &plain, finish);
            correct(before);
            let loss = match reduced {
                Ok(mut reduced) => {
                    let of_row = row_loss(simd, call, &targets, x, &reduced);
                    if is_extreme::<S::E>(of_row.of_probs)
                        && let Ok(exactly) = reducer.reduce_exactly::<T, Kept, _>(
                            x,
                            kept,
                            n,
                            &Plain::NEAR,
                            Some(reduced.max),
                        )
                    {
                        reduced = exactly;
                    }
                    let inverse = S::E::scaled_reciprocal(reduced.sum, of_row.of_probs);
                    let finite = inverse.0.widen().is_finite();
                    let inverse = (simd.splat(inverse.0), simd.splat(inverse.1));
                    let label = targets.label.map(|label| {
                        let x = simd.splat(S::E::narrow(label.logit));
                        let e = simd.first_lane(reduced.exp.of(true, true, x)).widen();
                        let value = of_row.at_label(e, reduced.sum);
                        (label.column, if value.is_nan() { T::NAN } else { T::from_f64(value) })
                    });
                    match (&targets.soft, label) {
                        (None, Some(label)) if finite => {
                            last = Some(Waiting { y, inverse, label });
                        }
                        (soft, label) => {
                            if let Some(soft) = soft {
                                let of_targets = of_row.of_targets;
                                finish_soft::<S, T>(simd, kept, y, n, inverse, soft, of_targets);
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
    if let Some(before) = last {
        // SAFETY: as above.
        unsafe {
            finish_row::<S, T, _, STREAM>(simd, &finishing(&before));
            correct(Some(before));
        }
    }
    if STREAM {
        simd.fence();
    }
    true
}

/// Whether the factor of a row's probabilities is so small or large that its quotient by the sum may be no normal number. Then its bits depend on
/// the shift, which must be the row's own.
#[inline(always)]
fn is_extreme<E: Contract>(factor: f64) -> bool {
    let least = f64::from_bits(((1023 + E::MIN_EXP / 2) as u64) << 52);
    factor != 0.0 && (factor.abs() < least || factor.abs() > 1.0 / least)
}

/// Writes the label's column of a row that was finished.
///
/// # Safety
/// The row is one of the call's, and the label one of its columns.
#[inline(always)]
unsafe fn correct<T: Element, V>(row: Option<Waiting<T, V>>) {
    if let Some(Waiting { y, label: (column, value), .. }) = row {
        // SAFETY: as this function's.
        unsafe { *y.add(column) = value };
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

/// Up to LANES elements; where there are fewer, `fill` behind them.
///
/// # Safety
/// `p` is valid for reads of `n` elements.
#[inline(always)]
unsafe fn lanes<S, T>(simd: S, p: *const T, n: usize, fill: f64) -> [S::E; MOST_LANES]
where
    S: Io<T> + Io<<S as Vector>::E>,
{
    let fill = S::E::narrow(fill);
    let mut lanes = [fill; MOST_LANES];
    // SAFETY: as this function's; there is room for a vector.
    unsafe {
        let v = if n >= S::LANES { simd.load(p) } else { simd.load_part(p, n, fill) };
        simd.store(lanes.as_mut_ptr(), v);
    }
    lanes
}

/// The same CPU's vectors of f64.
type Wide<S> = <<S as Vector>::Wide as Vector>::V;

/// `N` sums over a row, as the sum of its exponentials is added: element `i` of a block of [`BLOCK`] to lane `i % LANES`, for f32 in f64, for f64 in
/// double-double; lanes as a binary tree, blocks in order. `terms` gives those of the up to LANES elements from the `i`th on, which are as many as
/// its second argument says, in two vectors of f64, of which f64 rows have only the first.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // as indices the loops unroll into registers
fn row_sums<S: Vector, const N: usize>(
    simd: S,
    n: usize,
    mut terms: impl FnMut(usize, usize) -> [[Wide<S>; 2]; N],
) -> [f64; N] {
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
                acc[k] = if S::LANES == MOST_LANES {
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
            let block = if S::LANES == MOST_LANES {
                fold_f32(std::array::from_fn(|i| lanes[i / EIGHT][i % EIGHT]))
            } else {
                fold_f64(lanes[0], lanes[1])
            };
            total[k] = if start == 0 { block } else { S::E::sum_add(total[k], block) };
        }
        start = end;
    }
    total.map(|sum| sum.hi)
}

/// The `half`th eight of the lanes.
#[inline(always)]
fn eight<S>(simd: S, lanes: &[S::E; MOST_LANES], half: usize) -> Wide<S>
where
    S: Vector,
    S::Wide: Io<<S as Vector>::E>,
{
    const { assert!(S::Wide::LANES == MOST_LANES / 2) };
    // SAFETY: there are eight from there on.
    unsafe { simd.wide().load(lanes.as_ptr().add(half * (MOST_LANES / 2))) }
}

/// The sums over the targets of all columns of a row with this maximum.
///
/// # Safety
/// `x` is valid for reads of `n` elements; there are as many probabilities, if any, and weights, if any.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // as indices the loops unroll into registers
unsafe fn soft_sums<S, T>(simd: S, x: *const T, n: usize, soft: &Soft<T>, max: f64) -> SoftSums
where
    S: Io<T> + Io<f32> + Io<<S as Vector>::E>,
    S::Wide: Io<<S as Vector>::E>,
    T: Element,
{
    let w = simd.wide();
    let (max, zero) = (w.splat(max), w.splat(0.0));
    let (own, spread) = (w.splat(soft.own), w.splat(soft.spread));
    let least = w.splat(f64::from_bits(1));
    let [mass, below] = row_sums(
        simd,
        n,
        #[inline(always)]
        |i, n| {
            // SAFETY: n elements are there from i on, of each.
            let (x, q, weight) = unsafe {
                let weight = match soft.weights {
                    Some(weights) => lanes(simd, weights.as_ptr().add(i), n, 0.0),
                    None => {
                        let mut ones = [S::E::narrow(1.0); MOST_LANES];
                        for one in &mut ones[n..] {
                            *one = S::E::narrow(0.0);
                        }
                        ones
                    }
                };
                let q = if soft.probs.is_empty() {
                    [S::E::narrow(0.0); MOST_LANES]
                } else {
                    lanes(simd, soft.probs.as_ptr().add(i), n, 0.0)
                };
                (lanes(simd, x.add(i), n, 0.0), q, weight)
            };
            let mut terms = [[zero; 2]; 2];
            for half in 0..S::LANES / (MOST_LANES / 2) {
                let [x, q, weight] = [&x, &q, &weight].map(
                    #[inline(always)]
                    |lanes| eight(simd, lanes, half),
                );
                let t = w.mul(weight, w.fma(q, own, spread));
                let term = w.mul(t, w.sub(max, x));
                // Nothing, even times infinity, is nothing.
                let size = w.max(t, w.sub(zero, t));
                terms[0][half] = t;
                terms[1][half] = w.select_below(size, least, zero, term);
            }
            terms
        },
    );
    SoftSums { mass, below }
}

/// The gradient of a row with targets for all columns.
///
/// # Safety
/// `kept` is valid for reads and `y` for writes of `n` elements; there are as many probabilities, if any, and weights, if any.
#[inline(always)]
unsafe fn finish_soft<S, T>(
    simd: S,
    kept: *const S::E,
    y: *mut T,
    n: usize,
    inverse: (S::V, S::V),
    soft: &Soft<T>,
    of_targets: f64,
) where
    S: Io<T> + Io<f32> + Io<<S as Vector>::E>,
    T: Element,
{
    let splat = |v: f64| simd.splat(S::E::narrow(v));
    let (own, spread) = (splat(of_targets * soft.own), splat(of_targets * soft.spread));
    let mut i = 0;
    while i < n {
        let m = S::LANES.min(n - i);
        // SAFETY: m elements are there from i on, of each.
        unsafe {
            let mut t = spread;
            if !soft.probs.is_empty() {
                t = simd.fma(load(simd, soft.probs.as_ptr().add(i), m), own, spread);
            }
            if let Some(weights) = soft.weights {
                t = simd.mul(load(simd, weights.as_ptr().add(i), m), t);
            }
            let p = quotient(simd, load(simd, kept.add(i), m), inverse);
            store(simd, y.add(i), m, one_nan(simd, simd.sub(p, t)));
        }
        i += S::LANES;
    }
}

/// Up to LANES elements, and zeros behind them.
///
/// # Safety
/// `p` is valid for reads of `n` elements.
#[inline(always)]
unsafe fn load<S: Io<T>, T>(simd: S, p: *const T, n: usize) -> S::V {
    // SAFETY: as this function's.
    unsafe { if n >= S::LANES { simd.load(p) } else { simd.load_part(p, n, S::E::narrow(0.0)) } }
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

/// The gradient through softmax or, if `LOG`, log-softmax.
///
/// # Safety
/// The views of the call are of one shape.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // as indices the loops unroll into registers
unsafe fn backward<S, T, const LOG: bool>(simd: S, call: &mut BackwardCall<T>)
where
    S: Io<T> + Io<<S as Vector>::E>,
    S::Wide: Io<<S as Vector>::E>,
    T: Element,
{
    let n = call.output.cols();
    let w = simd.wide();
    // The exponential of a log-probability, times C.
    let shift = Shift { subtract: 0.0, m: 0, cut: Scale::ONE.cut(0, S::E::MIN_EXP) };
    let exp = Exp::new(simd, &Scale::ONE, &shift);
    let scale = simd.splat(S::E::narrow(call.scale));
    for row in 0..call.output.rows() {
        let output = call.output.as_ptr().wrapping_add(row * call.output.stride());
        let upstream = call.upstream.as_ptr().wrapping_add(row * call.upstream.stride());
        let stride = call.gradient.stride();
        let gradient = call.gradient.as_mut_ptr().wrapping_add(row * stride);
        let [sum] = row_sums(
            simd,
            n,
            #[inline(always)]
            |i, n| {
                let mut terms = [[w.splat(0.0); 2]];
                // SAFETY: n elements of the row are there from i on, of both.
                let (y, u) = unsafe {
                    let y = if LOG {
                        [S::E::narrow(1.0); MOST_LANES]
                    } else {
                        lanes(simd, output.add(i), n, 0.0)
                    };
                    (y, lanes(simd, upstream.add(i), n, 0.0))
                };
                for half in 0..S::LANES / (MOST_LANES / 2) {
                    terms[0][half] = w.mul(eight(simd, &y, half), eight(simd, &u, half));
                }
                terms
            },
        );
        let pair = S::E::pair(if LOG { sum / S::E::one_times_c() } else { sum });
        let (hi, lo) = (simd.splat(pair.0), simd.splat(pair.1));
        let mut i = 0;
        while i < n {
            let m = S::LANES.min(n - i);
            // SAFETY: m elements of the row are there from i on, of each.
            unsafe {
                let (y, u) = (load(simd, output.add(i), m), load(simd, upstream.add(i), m));
                let v = if LOG {
                    simd.sub(u, quotient(simd, exp.of(false, true, y), (hi, lo)))
                } else {
                    simd.mul(y, simd.sub(simd.sub(u, hi), lo))
                };
                store(simd, gradient.add(i), m, one_nan(simd, simd.mul(v, scale)));
            }
            i += S::LANES;
        }
    }
}
