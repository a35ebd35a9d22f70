//! Losses and their gradients.

mod ragged;

use softmax_kernels::{
    Element, Loss, LossCall, Matrix, MatrixMut, Op as Work, Scale, Targets, Weights,
    in_default_environment, part_of, with_room,
};

use crate::changed::{negate, negate_in_place};
use crate::exec::exec_setter;
use crate::factor::{Factor, factor_setters};
use crate::lanes::TILE;
use crate::{Error, Exec, Plan, Shape};

/// How the losses of rows are combined.
///
/// ```
/// use softmax::{CrossEntropy, Matrix, Reduction};
/// let logits = Matrix::new(&[0.0f64; 4], 2)?;
/// let sum = CrossEntropy::new().reduction(Reduction::Sum).loss(logits, &[0, 1])?;
/// assert_eq!(sum, 2.0 * CrossEntropy::new().loss(logits, &[0, 1])?);
/// # Ok::<(), softmax::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reduction {
    /// Their sum.
    Sum,
    /// Their sum divided by the sum of the rows' weights. With labels these are the weights of
    /// their classes (1 without [`CrossEntropy::weights`]), without ignored rows; with
    /// probabilities the sum is divided by the number of rows. If all rows are ignored or all
    /// targets have weight 0, the loss is NaN and the gradient 0.
    #[default]
    Mean,
}

/// Cross-entropy of rows of logits against labels or probabilities, and its gradient, in one pass
/// over the logits.
///
/// With target probabilities `q` (1 at a label, 0 elsewhere), label smoothing `s`, class weights
/// `w`, `C` classes and scale `a` the loss of a row of logits `x` is
///
/// ```text
/// t_j  = w_j ((1 - s) q_j + s / C)        (labels: as PyTorch, w of the label for the first part)
/// loss = - sum_j t_j log_softmax(a x)_j + z logsumexp(a x)^2
/// ```
///
/// and its gradient, which is written to another matrix or over the logits, `a (p_j (sum_i t_i + 2
/// z lse) - t_j)`, times `1 / N` for the mean.
///
/// # Errors of results
///
/// In all results, exponentials below 2^-126 of the row's largest (rows of f64: 2^-1022) may count
/// as 0.
///
/// Losses are f64. A row's loss has an error of at most 1e-7 of the loss (f64: 2e-15), however near
/// to 0 it is: no term of its sum is negative, and the exponential of the row's largest element is
/// never added to the others'. [`CrossEntropy::z_loss`] adds an error of `2 z |lse| d`, where `d`
/// is 5e-13 (f64: 2e-15) times `1 + |lse|`. All of this holds for rows of up to 2^24 elements.
///
/// A gradient against labels without smoothing and z has an error of 3 ULP (f16, bf16: 0.51),
/// including the label's own column, however near to 1 its probability. Any other gradient is the
/// difference of `a p_j (..)` and `a t_j`; its error is 3 ULP (f64: 6; f16, bf16: 0.51) of the
/// largest of these two and the difference, plus `2 z a p_j d`. In rows of f64 there is one ULP
/// more for a mean, because `1 / N` is rounded (so that chunks of a batch can be given the same
/// factor), and two more where a gradient is below 2^-960.
///
/// These bounds are for target probabilities that are not negative; this is not checked. The bits
/// are the same on every CPU, for any number of threads, in place or not, whatever the other rows
/// are; sums over rows are in a fixed order.
///
/// A row with NaN or +inf, or with all elements -inf, has loss NaN and a gradient of NaN. A label
/// on a logit of -inf has loss +inf and the usual gradient.
///
/// ```
/// use softmax::{CrossEntropy, Matrix, MatrixMut};
///
/// // Two samples, three classes; the second one's label is ignored (-100, as in PyTorch).
/// let logits = [2.0f32, 1.0, 0.1, 0.5, 0.5, 0.5];
/// let mut gradient = [0.0f32; 6];
/// let loss = CrossEntropy::new().gradient(
///     Matrix::new(&logits, 3)?, &[0, -100], MatrixMut::new(&mut gradient, 3)?)?;
/// assert_eq!((loss * 1e4).round(), 4170.0);
/// assert_eq!(gradient.map(|g| (g * 1e4).round()), [-3410.0, 2424.0, 986.0, 0.0, 0.0, 0.0]);
/// # Ok::<(), softmax::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct CrossEntropy<'a> {
    loss: Loss<'a>,
    reduction: Reduction,
    factors: Option<&'a [f64]>,
    factor: Factor,
    exec: Exec<'a>,
}

impl Default for CrossEntropy<'_> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'a> CrossEntropy<'a> {
    /// The defaults: the mean, no smoothing, no weights, label -100 ignored, scale 1; calls choose
    /// kernel and threads themselves.
    ///
    /// ```
    /// use softmax::{CrossEntropy, Matrix};
    /// let logits = Matrix::new(&[0.0f64; 4], 2)?;
    /// assert_eq!(CrossEntropy::new().loss(logits, &[0, -100])?, std::f64::consts::LN_2);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    pub const fn new() -> Self {
        let loss = Loss {
            scale: Scale::ONE,
            ignore: -100,
            smoothing: 0.0,
            weights: None,
            z: 0.0,
            divergence: false,
            factor: 1.0,
        };
        let (reduction, factors) = (Reduction::Mean, None);
        Self { loss, reduction, factors, factor: Factor::One, exec: Exec::new() }
    }

    factor_setters!(
        "Scales below 0 have the losses of `-x` by the scale without its sign, and the negative of that\ngradient. They take longer, because rows are copied."
    );
    exec_setter!();

    /// Sets how the losses of rows are combined.
    ///
    /// ```
    /// use softmax::{CrossEntropy, Matrix, Reduction};
    /// let logits = Matrix::new(&[0.0f64; 4], 2)?;
    /// let sum = CrossEntropy::new().reduction(Reduction::Sum);
    /// assert_eq!(sum.loss(logits, &[0, 1])?, 2.0 * std::f64::consts::LN_2);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    #[must_use]
    pub const fn reduction(self, reduction: Reduction) -> Self {
        Self { reduction, ..self }
    }

    /// Rows with this label have loss 0 and gradient 0 and do not count in the mean. The label may
    /// be that of a class.
    ///
    /// ```
    /// use softmax::{CrossEntropy, Matrix};
    /// let logits = Matrix::new(&[0.0f64; 4], 2)?;
    /// let loss = CrossEntropy::new().ignore_index(1);
    /// assert_eq!(loss.loss(logits, &[0, 1])?, std::f64::consts::LN_2);
    /// assert!(loss.loss(logits, &[1, 1])?.is_nan());
    /// # Ok::<(), softmax::Error>(())
    /// ```
    #[must_use]
    pub const fn ignore_index(mut self, label: i64) -> Self {
        self.loss.ignore = label;
        self
    }

    /// Spreads this fraction of every target's mass over all classes. Source: Szegedy et al.,
    /// Rethinking the Inception Architecture, 2016. It must be in `0..=1`, or calls refuse it.
    ///
    /// ```
    /// use softmax::{CrossEntropy, Matrix};
    /// // The further the target is from certain, the more a certain row costs.
    /// let logits = Matrix::new(&[9.0f32, 0.0], 2)?;
    /// let smooth = CrossEntropy::new().label_smoothing(0.1).loss(logits, &[0])?;
    /// assert!(smooth > CrossEntropy::new().loss(logits, &[0])?);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    #[must_use]
    pub const fn label_smoothing(mut self, smoothing: f64) -> Self {
        self.loss.smoothing = smoothing;
        self
    }

    /// Multiplies each class's term of the loss by its weight, a finite number of f32 or f64 that
    /// is not negative; other weights are an [`Error::Value`] of calls. (PyTorch also takes
    /// negative weights. Such a loss has no minimum, and no error relative to the loss can be
    /// stated for a sum whose terms cancel. To change the sign of whole rows use
    /// [`CrossEntropy::row_factors`].)
    ///
    /// ```
    /// use softmax::{CrossEntropy, Matrix};
    /// let loss = CrossEntropy::new().weights(&[1.0, 3.0]);
    /// let mut losses = [0.0; 2];
    /// loss.losses(Matrix::new(&[0.0f64; 4], 2)?, &[0, 1], &mut losses)?;
    /// assert_eq!(losses[1], 3.0 * losses[0]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    #[must_use]
    pub fn weights(mut self, weights: impl Into<Weights<'a>>) -> Self {
        self.loss.weights = Some(weights.into());
        self
    }

    /// Adds `z` times the square of each row's log-sum-exp, which keeps logits from drifting.
    /// Source: Chowdhery et al., PaLM, 2022. It must be finite and not negative, or calls refuse
    /// it.
    ///
    /// ```
    /// use softmax::{CrossEntropy, Matrix};
    /// let logits = Matrix::new(&[3.0f64], 1)?;
    /// assert_eq!(CrossEntropy::new().z_loss(0.5).loss(logits, &[0])?, 0.5 * 3.0 * 3.0);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    #[must_use]
    pub const fn z_loss(mut self, z: f64) -> Self {
        self.loss.z = z;
        self
    }

    /// Subtracts the entropy of the targets from the loss, which gives the Kullback-Leibler
    /// divergence from the targets, `sum_j t_j (ln q_j - ln p_j)`, with `q` smoothed. Gradients
    /// stay the same. (The logarithm costs about 5 ns for each element of the targets; and rows of
    /// f32 need exponentials of f64.)
    ///
    /// Error: 5e-13 (f64: 2e-15) of the sum of the cross-entropy, the entropy and the sum of the
    /// targets. Without weights the result is not below `Q ln Q`, the minimum for targets that add
    /// up to `Q`; so it is not below 0 unless they add up to less than 1.
    ///
    /// ```
    /// use softmax::{CrossEntropy, Matrix};
    /// let (logits, targets) = (Matrix::new(&[1.0f64, 1.0], 2)?, Matrix::new(&[0.5, 0.5], 2)?);
    /// assert!(CrossEntropy::new().divergence().loss(logits, targets)?.abs() < 1e-15);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    #[must_use]
    pub const fn divergence(mut self) -> Self {
        self.loss.divergence = true;
        self
    }

    /// Multiplies each row's loss and gradient by its factor: a weight, an advantage, or the
    /// gradient with respect to the row's loss. (The factors do not change the divisor of the
    /// mean.)
    ///
    /// ```
    /// use softmax::{CrossEntropy, Matrix};
    /// let logits = Matrix::new(&[0.0f64; 4], 2)?;
    /// let mut losses = [0.0; 2];
    /// CrossEntropy::new().row_factors(&[1.0, -3.0]).losses(logits, &[0, 1], &mut losses)?;
    /// assert_eq!(losses[1], -3.0 * losses[0]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    #[must_use]
    pub const fn row_factors(self, factors: &'a [f64]) -> Self {
        Self { factors: Some(factors), ..self }
    }

    /// Multiplies the gradient, but not the loss, by a factor: the gradient with respect to the
    /// loss, or the scale of mixed precision.
    ///
    /// ```
    /// use softmax::{CrossEntropy, MatrixMut};
    /// let mut logits = [0.0f32; 2];
    /// let loss = CrossEntropy::new().gradient_factor(8.0);
    /// loss.gradient_in_place(MatrixMut::new(&mut logits, 2)?, &[1])?;
    /// assert_eq!(logits, [4.0, -4.0]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    #[must_use]
    pub const fn gradient_factor(mut self, factor: f64) -> Self {
        self.loss.factor = factor;
        self
    }

    /// The loss of each row, without a reduction. Nothing as large as the logits is written.
    ///
    /// # Errors
    /// [`Error::Shape`] or [`Error::Column`] if shapes, lengths or labels do not fit the logits,
    /// [`Error::Value`] if a weight or another number is out of its range, or a kernel that cannot
    /// run.
    ///
    /// ```
    /// use softmax::{CrossEntropy, Matrix};
    /// let mut losses = [0.0; 2];
    /// let logits = [0.0f32, 0.0, 3.0, 3.0];
    /// CrossEntropy::new().losses(Matrix::new(&logits, 2)?, &[0, 1], &mut losses)?;
    /// assert!(losses.iter().all(|loss| (loss - std::f64::consts::LN_2).abs() < 1e-7));
    /// # Ok::<(), softmax::Error>(())
    /// ```
    pub fn losses<'t, T: Element>(
        &self,
        logits: Matrix<T>,
        targets: impl Into<Targets<'t, T>>,
        losses: &mut [f64],
    ) -> Result<(), Error> {
        let (shape, targets) = ((logits.rows(), logits.cols()), targets.into());
        if self.factor.is_negative() {
            return self.negative_losses(logits, targets, losses);
        }
        let loss = self.divided(1.0)?;
        let call = LossCall::new(logits, targets, self.factors, losses, None, loss)?;
        self.run(call, shape, Work::LogSumExp, false)
    }

    /// The loss of each row, and the gradient of [`CrossEntropy::gradient`], whose loss is
    /// [`CrossEntropy::reduce`] of these losses.
    ///
    /// # Errors
    /// As [`CrossEntropy::gradient`].
    ///
    /// ```
    /// use softmax::{CrossEntropy, Matrix, MatrixMut};
    /// let (mut losses, mut gradient) = ([0.0; 1], [0.0f32; 2]);
    /// let (logits, to) = (Matrix::new(&[1.0, 1.0], 2)?, MatrixMut::new(&mut gradient, 2)?);
    /// CrossEntropy::new().losses_and_gradient(logits, &[0], &mut losses, to)?;
    /// assert_eq!(gradient, [-0.5, 0.5]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    pub fn losses_and_gradient<'t, T: Element>(
        &self,
        logits: Matrix<T>,
        targets: impl Into<Targets<'t, T>>,
        losses: &mut [f64],
        gradient: MatrixMut<T>,
    ) -> Result<(), Error> {
        let (shape, targets) = ((logits.rows(), logits.cols()), targets.into());
        if self.factor.is_negative() {
            return self.negative_gradient(Some(logits), targets, losses, gradient);
        }
        let loss = self.divided(self.divides(&targets, shape.1))?;
        let call = LossCall::new(logits, targets, self.factors, losses, Some(gradient), loss)?;
        self.run(call, shape, Work::Softmax, false)
    }

    /// The divisor of the sum of the losses of rows with these labels (1 for a sum). It is for
    /// callers who compute the rows in several calls: [`CrossEntropy::losses_and_gradient`] for
    /// each chunk of rows, with the reduction sum and with the inverse of the divisor as
    /// [`CrossEntropy::gradient_factor`]; then [`CrossEntropy::reduce`] of all losses. The loss and
    /// the gradient have the bits of one call. Labels and weights are checked as in that call.
    ///
    /// # Errors
    /// [`Error::Column`] if a label is none of `cols` columns and not ignored, [`Error::Shape`] if
    /// there is not one weight for each column, [`Error::Value`] if one is negative, infinite or
    /// NaN, or another number out of its range.
    ///
    /// ```
    /// use softmax::{CrossEntropy, Matrix, MatrixMut, Reduction};
    ///
    /// let (logits, labels) = ([2.0f32, 1.0, 0.5, 0.5, -1.0, 3.0], [0, 1, 1]);
    /// let (mut whole, mut parts) = ([0.0f32; 6], [0.0f32; 6]);
    /// let mean = CrossEntropy::new();
    /// let loss = mean.gradient(Matrix::new(&logits, 2)?, &labels, MatrixMut::new(&mut whole, 2)?)?;
    ///
    /// let mut losses = [0.0; 3];
    /// let part = mean.reduction(Reduction::Sum).gradient_factor(1.0 / mean.divisor(&labels, 2)?);
    /// for row in 0..3 {
    ///     let (logits, gradient) = (&logits[2 * row..][..2], &mut parts[2 * row..][..2]);
    ///     let (label, loss) = (&labels[row..][..1], &mut losses[row..][..1]);
    ///     part.losses_and_gradient(Matrix::new(logits, 2)?, label, loss, MatrixMut::new(gradient, 2)?)?;
    /// }
    /// assert_eq!((mean.reduce(&losses, mean.divisor(&labels, 2)?), parts), (loss, whole));
    /// # Ok::<(), softmax::Error>(())
    /// ```
    pub fn divisor(&self, labels: &[i64], cols: usize) -> Result<f64, Error> {
        self.divisor_of(Some(labels), labels.len(), cols)
    }

    /// As [`CrossEntropy::divisor`] of `rows` rows, whose targets are probabilities if there are no
    /// labels.
    fn divisor_of(&self, labels: Option<&[i64]>, rows: usize, cols: usize) -> Result<f64, Error> {
        if !in_default_environment(|| self.is_in_range()) {
            return Err(self.out_of_range());
        }
        self.loss.check_weights(cols)?;
        self.loss.check_labels(labels.unwrap_or_default(), cols)?;
        Ok(in_default_environment(|| self.divides_by(labels, rows, cols)))
    }

    /// The loss of a batch from the losses of all its rows: their sum, in the order that all calls
    /// use (that of eight lanes, each in order), divided by `divisor`.
    ///
    /// ```
    /// assert_eq!(softmax::CrossEntropy::new().reduce(&[1.0, 2.0, 6.0], 3.0), 3.0);
    /// ```
    pub fn reduce(&self, losses: &[f64], divisor: f64) -> f64 {
        in_default_environment(|| {
            let loss = sum(losses) / divisor;
            // The bits of a NaN that a division gives depend on the CPU.
            if loss.is_nan() { f64::NAN } else { loss }
        })
    }

    /// The loss.
    ///
    /// # Errors
    /// As [`CrossEntropy::losses`].
    ///
    /// ```
    /// use softmax::{CrossEntropy, Matrix};
    /// let logits = Matrix::new(&[0.0f64; 4], 2)?;
    /// // Against probabilities: the entropy of a fair coin.
    /// let targets = Matrix::new(&[0.5, 0.5, 0.5, 0.5], 2)?;
    /// assert_eq!(CrossEntropy::new().loss(logits, targets)?, std::f64::consts::LN_2);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    pub fn loss<'t, T: Element>(
        &self,
        logits: Matrix<T>,
        targets: impl Into<Targets<'t, T>>,
    ) -> Result<f64, Error> {
        let targets = targets.into();
        let divisor = self.divides(&targets, logits.cols());
        with_losses(logits.rows(), |losses| {
            self.losses(logits, targets, losses)?;
            Ok(self.reduce(losses, divisor))
        })
    }

    /// The loss, and its gradient with respect to the logits.
    ///
    /// # Errors
    /// As [`CrossEntropy::losses`]; [`Error::Memory`].
    ///
    /// ```
    /// use softmax::{CrossEntropy, Matrix, MatrixMut};
    /// let mut gradient = [0.0f32; 4];
    /// let logits = Matrix::new(&[1.0f32, 1.0, 2.0, 2.0], 2)?;
    /// CrossEntropy::new().gradient(logits, &[0, 1], MatrixMut::new(&mut gradient, 2)?)?;
    /// assert_eq!(gradient, [-0.25, 0.25, 0.25, -0.25]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    pub fn gradient<'t, T: Element>(
        &self,
        logits: Matrix<T>,
        targets: impl Into<Targets<'t, T>>,
        gradient: MatrixMut<T>,
    ) -> Result<f64, Error> {
        let targets = targets.into();
        let divisor = self.divides(&targets, logits.cols());
        with_losses(logits.rows(), |losses| {
            self.losses_and_gradient(logits, targets, &mut *losses, gradient)?;
            Ok(self.reduce(losses, divisor))
        })
    }

    /// The loss; the gradient overwrites the logits. The same bits as [`CrossEntropy::gradient`].
    ///
    /// # Errors
    /// As [`CrossEntropy::gradient`].
    ///
    /// ```
    /// use softmax::{CrossEntropy, MatrixMut};
    /// // One step of gradient descent on the logits themselves.
    /// let mut x = [0.5f64, -0.5];
    /// let mut g = x;
    /// let before = CrossEntropy::new().gradient_in_place(MatrixMut::new(&mut g, 2)?, &[1])?;
    /// x.iter_mut().zip(g).for_each(|(x, g)| *x -= 0.1 * g);
    /// let after = CrossEntropy::new().gradient_in_place(MatrixMut::new(&mut x, 2)?, &[1])?;
    /// assert!(after < before);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    pub fn gradient_in_place<'t, T: Element>(
        &self,
        logits: MatrixMut<T>,
        targets: impl Into<Targets<'t, T>>,
    ) -> Result<f64, Error> {
        let targets = targets.into();
        let divisor = self.divides(&targets, logits.cols());
        with_losses(logits.rows(), |losses| {
            self.losses_and_gradient_in_place(logits, targets, &mut *losses)?;
            Ok(self.reduce(losses, divisor))
        })
    }

    /// [`CrossEntropy::losses_and_gradient`]; the gradient overwrites the logits. The same bits.
    ///
    /// # Errors
    /// As [`CrossEntropy::gradient`].
    ///
    /// ```
    /// use softmax::{CrossEntropy, MatrixMut};
    /// let (mut losses, mut logits) = ([0.0; 1], [1.0f32; 2]);
    /// let rows = MatrixMut::new(&mut logits, 2)?;
    /// CrossEntropy::new().losses_and_gradient_in_place(rows, &[0], &mut losses)?;
    /// assert_eq!(logits, [-0.5, 0.5]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    pub fn losses_and_gradient_in_place<'t, T: Element>(
        &self,
        logits: MatrixMut<T>,
        targets: impl Into<Targets<'t, T>>,
        losses: &mut [f64],
    ) -> Result<(), Error> {
        let (shape, targets) = ((logits.rows(), logits.cols()), targets.into());
        if self.factor.is_negative() {
            return self.negative_gradient(None, targets, losses, logits);
        }
        let loss = self.divided(self.divides(&targets, shape.1))?;
        let call = LossCall::in_place(logits, targets, self.factors, losses, loss)?;
        self.run(call, shape, Work::Softmax, true)
    }

    /// The options with the absolute value of the scale and the gradient negated.
    fn positive(&self) -> Self {
        let loss = Loss { factor: -self.loss.factor, ..self.loss };
        Self { factor: self.factor.minus(), loss, ..*self }
    }

    /// The losses with a scale below 0: a few rows at a time are negated in scratch memory.
    #[cold]
    fn negative_losses<T: Element>(
        &self,
        mut logits: Matrix<T>,
        mut targets: Targets<T>,
        mut losses: &mut [f64],
    ) -> Result<(), Error> {
        let mut positive = self.positive();
        let loss = positive.divided(1.0)?;
        loss.check(logits.rows(), logits.cols(), &targets, self.factors, losses)?;
        let cols = logits.cols();
        let most = (TILE / size_of::<T>() / cols.max(1)).max(1);
        while logits.rows() > 0 {
            let n = logits.rows().min(most);
            let (x, other_logits) = logits.split_rows(n);
            let (of_x, other_targets) = targets.split_rows(n);
            let (done, other_losses) = losses.split_at_mut(n);
            let (factors, other_factors) = positive.factors.map(|f| f.split_at(n)).unzip();
            let part = positive.with_factors(factors);
            let room = with_room(n * cols, |rows: &mut [T]| {
                negate(x, &mut MatrixMut::with_stride(&mut *rows, n, cols, cols)?);
                part.losses(Matrix::with_stride(rows, n, cols, cols)?, of_x, done)
            });
            room.unwrap_or(Err(Error::memory(n * cols)))?;
            (logits, targets, losses) = (other_logits, other_targets, other_losses);
            positive.factors = other_factors;
        }
        Ok(())
    }

    /// The gradient with a scale below 0: of `logits`, or in place.
    #[cold]
    fn negative_gradient<T: Element>(
        &self,
        logits: Option<Matrix<T>>,
        targets: Targets<T>,
        losses: &mut [f64],
        mut gradient: MatrixMut<T>,
    ) -> Result<(), Error> {
        let positive = self.positive();
        let loss = positive.divided(1.0)?;
        let (shape, of_gradient) = match &logits {
            Some(x) => ((x.rows(), x.cols()), (gradient.rows(), gradient.cols())),
            None => ((gradient.rows(), gradient.cols()), (gradient.rows(), gradient.cols())),
        };
        if shape != of_gradient {
            return Err(Error::differ("gradient", shape, of_gradient));
        }
        loss.check(shape.0, shape.1, &targets, self.factors, losses)?;
        match logits {
            Some(x) => negate(x, &mut gradient),
            None => negate_in_place(&mut gradient),
        }
        positive.losses_and_gradient_in_place(gradient, targets, losses)
    }

    /// Changes the options to those that compute some rows of a call with these labels, if they are
    /// its targets, and returns the divisor of the call, which the gradient has. Everything that
    /// does not depend on the rows is checked here.
    ///
    /// # Errors
    /// As [`CrossEntropy::divisor`].
    pub(crate) fn make_part(
        &mut self,
        labels: Option<&[i64]>,
        rows: usize,
        cols: usize,
        gradient: bool,
    ) -> Result<f64, Error> {
        let divisor = self.divisor_of(labels, rows, cols)?;
        self.factor.check_finite()?;
        if gradient {
            self.loss.factor = in_default_environment(|| self.loss.factor / divisor);
        }
        (self.reduction, self.factors) = (Reduction::Sum, None);
        Ok(divisor)
    }

    /// The options of [`CrossEntropy::make_part`] for some rows. They are made at one go, because
    /// each copy of the options is a quarter of a kilobyte on the stack.
    pub(crate) fn of_tile<'b>(&self, exec: Exec<'b>, factors: Option<&'b [f64]>) -> CrossEntropy<'b>
    where
        'a: 'b,
    {
        CrossEntropy { exec, factors, ..*self }
    }

    /// The options with these row factors.
    fn with_factors(self, factors: Option<&'a [f64]>) -> Self {
        Self { factors, ..self }
    }

    pub(crate) fn factors(&self) -> Option<&'a [f64]> {
        self.factors
    }

    pub(crate) fn where_it_runs(&self) -> &Exec<'a> {
        &self.exec
    }

    pub(crate) fn is_negative(&self) -> bool {
        self.factor.is_negative()
    }

    pub(crate) fn check_scale(&self) -> Result<(), Error> {
        self.factor.check_finite()
    }

    pub(crate) fn plan<T: Element>(&self, work: Work, shape: Shape) -> Result<Plan, Error> {
        self.exec.plan_work::<T>(work, shape)
    }

    /// Whether the numbers in the options are in their ranges.
    fn is_in_range(&self) -> bool {
        (0.0..=1.0).contains(&self.loss.smoothing) & (0.0..f64::INFINITY).contains(&self.loss.z)
    }

    /// The error for the first number that is out of its range.
    #[cold]
    fn out_of_range(&self) -> Error {
        let (smoothing, z) = (self.loss.smoothing, self.loss.z);
        if in_default_environment(|| (0.0..=1.0).contains(&smoothing)) {
            let range = "finite and not negative";
            return Error::value("factor of the z-loss", z, range);
        }
        Error::value("label smoothing", smoothing, "in 0..=1")
    }

    /// [`CrossEntropy::divisor`] without its checks.
    pub(crate) fn divides<T>(&self, targets: &Targets<T>, cols: usize) -> f64 {
        let labels = match targets {
            Targets::Labels(labels) => Some(*labels),
            _ => None,
        };
        in_default_environment(|| self.divides_by(labels, targets.rows(), cols))
    }

    pub(crate) fn divides_by(&self, labels: Option<&[i64]>, rows: usize, cols: usize) -> f64 {
        match (self.reduction, labels) {
            (Reduction::Sum, _) => 1.0,
            (Reduction::Mean, Some(labels)) => {
                let counted = labels.iter().filter(|&&label| label != self.loss.ignore);
                match self.loss.weights {
                    // Whether labels are columns is checked later.
                    Some(w) if w.len() == cols => {
                        let index = |&label: &i64| usize::try_from(label).unwrap_or(cols);
                        let weight = |i| if i < cols { w.get(i) } else { 0.0 };
                        counted.map(|label| weight(index(label))).sum()
                    }
                    _ => counted.count() as f64,
                }
            }
            (Reduction::Mean, None) => rows as f64,
        }
    }

    /// The options, with the gradient divided by `divisor`.
    fn divided(&self, divisor: f64) -> Result<Loss<'a>, Error> {
        let scale = self.factor.finite()?;
        let (in_range, factor) =
            in_default_environment(|| (self.is_in_range(), self.loss.factor / divisor));
        if !in_range {
            return Err(self.out_of_range());
        }
        Ok(Loss { scale, factor, ..self.loss })
    }

    fn run<T: Element>(
        &self,
        call: LossCall<T>,
        (rows, cols): (usize, usize),
        like: Work,
        in_place: bool,
    ) -> Result<(), Error> {
        let plan = self.plan::<T>(like, Shape::new(rows, cols).in_place_if(in_place))?;
        // Without rows no memory is needed.
        if rows == 0 {
            return Ok(());
        }
        let kernel = plan.kernel;
        let done = self.exec.crew().share(
            plan.threads,
            plan.parts.min(rows),
            call.storing(plan.store),
            &|call: LossCall<T>, at, of| {
                let at = part_of(call.rows(), at, of);
                call.split_rows(at)
            },
            &|call| kernel.loss(call),
            &|a, b| a && b,
        );
        if done { Ok(()) } else { Err(Error::memory(cols)) }
    }
}

/// Calls `f` with memory for the losses of rows, of which only their combination is wanted.
pub(crate) fn with_losses<R>(
    rows: usize,
    f: impl FnOnce(&mut [f64]) -> Result<R, Error>,
) -> Result<R, Error> {
    with_room(rows, f).unwrap_or(Err(Error::memory(rows)))
}

/// A sum in a fixed order: that of eight lanes, each in order.
fn sum(values: &[f64]) -> f64 {
    let mut lanes = [0.0; 8];
    for values in values.chunks(lanes.len()) {
        for (lane, value) in lanes.iter_mut().zip(values) {
            *lane += value;
        }
    }
    lanes.iter().sum()
}
