//! Losses of rows of different lengths: one call of the kernel for each row.

use softmax_kernels::{
    Element, Loss, LossCall, Op as Work, Ragged, RaggedMut, Ready, Size, Targets,
    in_default_environment,
};

use crate::loss::{CrossEntropy, Reduction, with_losses};
use crate::ragged::{one, one_mut, share};
use crate::{Error, RaggedTargets};

/// The rows of a call, and what it writes.
struct Rows<'a, T> {
    /// `None` if the gradient overwrites them.
    logits: Option<Ragged<'a, T>>,
    targets: RaggedTargets<'a, T>,
    factors: Option<&'a [f64]>,
    losses: &'a mut [f64],
    gradient: Option<RaggedMut<'a, T>>,
}

impl<'a, T: Element> Rows<'a, T> {
    /// Calls `f` with the logits.
    fn with_logits<R>(&self, f: impl FnOnce(Ragged<'_, T>) -> R) -> Option<R> {
        match (&self.logits, &self.gradient) {
            (Some(logits), _) => Some(f(*logits)),
            (None, gradient) => gradient.as_ref().map(|gradient| f(gradient.as_ragged())),
        }
    }

    fn part(&self, at: usize, of: usize) -> usize {
        self.with_logits(|logits| logits.part(at, of)).unwrap_or(0)
    }

    fn split(self, at: usize) -> (Self, Self) {
        let (logits, other_logits) = self.logits.map(|x| x.split_rows(at)).unzip();
        let (targets, other_targets) = match self.targets {
            RaggedTargets::Labels(labels) => {
                let (a, b) = labels.split_at(at);
                (RaggedTargets::Labels(a), RaggedTargets::Labels(b))
            }
            RaggedTargets::Probs(probs) => {
                let (a, b) = probs.split_rows(at);
                (RaggedTargets::Probs(a), RaggedTargets::Probs(b))
            }
        };
        let (factors, other_factors) = self.factors.map(|f| f.split_at(at)).unzip();
        let (losses, other_losses) = self.losses.split_at_mut(at);
        let (gradient, other_gradient) = self.gradient.map(|y| y.split_rows(at)).unzip();
        (
            Self { logits, targets, factors, losses, gradient },
            Self {
                logits: other_logits,
                targets: other_targets,
                factors: other_factors,
                losses: other_losses,
                gradient: other_gradient,
            },
        )
    }
}

/// Rows of different lengths. Class weights are those of columns: as many as the longest row has,
/// or more. Each row's loss and gradient have the bits that they have alone, and the bounds of
/// rows of one length; each is a call of its own.
impl CrossEntropy<'_> {
    /// [`CrossEntropy::losses`] of rows of different lengths. A label is a column within its row;
    /// an empty row must be ignored, and has loss 0.
    ///
    /// # Errors
    /// [`Error::Shape`] or [`Error::Column`] if lengths or labels do not fit the rows,
    /// [`Error::Value`] if a row has not as many target probabilities as logits, or a weight or
    /// another number is out of its range, with a scale below 0 [`Error::Memory`], or a kernel that
    /// cannot run.
    ///
    /// ```
    /// use softmax::{CrossEntropy, Ragged};
    /// let mut losses = [9.0; 3];
    /// let logits = Ragged::new(&[0.0f64, 0.0, 5.0], &[0usize, 2, 2, 3])?;
    /// CrossEntropy::new().losses_ragged(logits, &[1, -100, 0], &mut losses)?;
    /// assert_eq!(losses, [std::f64::consts::LN_2, 0.0, 0.0]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    pub fn losses_ragged<'t, T: Element>(
        &self,
        logits: Ragged<T>,
        targets: impl Into<RaggedTargets<'t, T>>,
        losses: &mut [f64],
    ) -> Result<(), Error> {
        let (logits, targets, factors) = (Some(logits), targets.into(), self.factors);
        self.run_ragged(Rows { logits, targets, factors, losses, gradient: None })
    }

    /// [`CrossEntropy::losses_and_gradient`] of rows of different lengths. The gradient has the
    /// rows of the logits at the same places, and may be longer.
    ///
    /// # Errors
    /// As [`CrossEntropy::losses_ragged`]; [`Error::Memory`].
    ///
    /// ```
    /// use softmax::{CrossEntropy, Ragged};
    /// let (mut losses, mut gradient) = ([9.0; 2], [9.0f32; 3]);
    /// let logits = Ragged::new(&[1.0, 1.0, 5.0], &[0usize, 2, 3])?;
    /// CrossEntropy::new().losses_and_gradient_ragged(logits, &[1, 0], &mut losses, &mut gradient)?;
    /// assert_eq!(gradient, [0.25, -0.25, 0.0]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    pub fn losses_and_gradient_ragged<'t, T: Element>(
        &self,
        logits: Ragged<T>,
        targets: impl Into<RaggedTargets<'t, T>>,
        losses: &mut [f64],
        gradient: &mut [T],
    ) -> Result<(), Error> {
        let gradient = Some(logits.places_in("number of elements of the gradient", gradient)?);
        let (logits, targets, factors) = (Some(logits), targets.into(), self.factors);
        self.run_ragged(Rows { logits, targets, factors, losses, gradient })
    }

    /// [`CrossEntropy::losses_and_gradient_ragged`]; the gradient overwrites the logits. The same
    /// bits.
    ///
    /// # Errors
    /// As [`CrossEntropy::losses_and_gradient_ragged`].
    ///
    /// ```
    /// use softmax::{CrossEntropy, RaggedMut, Reduction};
    /// let (mut losses, mut x) = ([9.0; 2], [1.0f32, 1.0, 5.0]);
    /// let sum = CrossEntropy::new().reduction(Reduction::Sum);
    /// let rows = RaggedMut::new(&mut x, &[0usize, 2, 3])?;
    /// sum.losses_and_gradient_ragged_in_place(rows, &[1, 0], &mut losses)?;
    /// assert_eq!(x, [0.5, -0.5, 0.0]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    pub fn losses_and_gradient_ragged_in_place<'t, T: Element>(
        &self,
        logits: RaggedMut<T>,
        targets: impl Into<RaggedTargets<'t, T>>,
        losses: &mut [f64],
    ) -> Result<(), Error> {
        let (gradient, targets, factors) = (Some(logits), targets.into(), self.factors);
        self.run_ragged(Rows { logits: None, targets, factors, losses, gradient })
    }

    /// [`CrossEntropy::loss`] of rows of different lengths.
    ///
    /// # Errors
    /// As [`CrossEntropy::losses_ragged`]; [`Error::Memory`].
    ///
    /// ```
    /// use softmax::{CrossEntropy, Ragged};
    /// let logits = Ragged::new(&[0.0f64, 0.0, 5.0], &[0usize, 2, 3])?;
    /// let loss = CrossEntropy::new().loss_ragged(logits, &[1, 0])?;
    /// assert_eq!(loss, std::f64::consts::LN_2 / 2.0);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    pub fn loss_ragged<'t, T: Element>(
        &self,
        logits: Ragged<T>,
        targets: impl Into<RaggedTargets<'t, T>>,
    ) -> Result<f64, Error> {
        let targets = targets.into();
        let divisor = self.ragged_divisor(&targets, logits.rows());
        with_losses(logits.rows(), |losses| {
            self.losses_ragged(logits, targets, losses)?;
            Ok(self.reduce(losses, divisor))
        })
    }

    /// [`CrossEntropy::gradient`] of rows of different lengths; the gradient as in
    /// [`CrossEntropy::losses_and_gradient_ragged`].
    ///
    /// # Errors
    /// As [`CrossEntropy::losses_and_gradient_ragged`].
    ///
    /// ```
    /// use softmax::{CrossEntropy, Ragged};
    /// let mut gradient = [9.0f32; 3];
    /// let logits = Ragged::new(&[1.0, 1.0, 5.0], &[0usize, 2, 3])?;
    /// CrossEntropy::new().gradient_ragged(logits, &[1, 0], &mut gradient)?;
    /// assert_eq!(gradient, [0.25, -0.25, 0.0]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    pub fn gradient_ragged<'t, T: Element>(
        &self,
        logits: Ragged<T>,
        targets: impl Into<RaggedTargets<'t, T>>,
        gradient: &mut [T],
    ) -> Result<f64, Error> {
        let targets = targets.into();
        let divisor = self.ragged_divisor(&targets, logits.rows());
        with_losses(logits.rows(), |losses| {
            self.losses_and_gradient_ragged(logits, targets, &mut *losses, gradient)?;
            Ok(self.reduce(losses, divisor))
        })
    }

    /// [`CrossEntropy::gradient_ragged`]; the gradient overwrites the logits. The same bits.
    ///
    /// # Errors
    /// As [`CrossEntropy::losses_and_gradient_ragged`].
    ///
    /// ```
    /// use softmax::{CrossEntropy, RaggedMut};
    /// let mut x = [1.0f32, 1.0, 5.0];
    /// let rows = RaggedMut::new(&mut x, &[0usize, 2, 3])?;
    /// CrossEntropy::new().gradient_ragged_in_place(rows, &[1, 0])?;
    /// assert_eq!(x, [0.25, -0.25, 0.0]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    pub fn gradient_ragged_in_place<'t, T: Element>(
        &self,
        logits: RaggedMut<T>,
        targets: impl Into<RaggedTargets<'t, T>>,
    ) -> Result<f64, Error> {
        let targets = targets.into();
        let divisor = self.ragged_divisor(&targets, logits.rows());
        with_losses(logits.rows(), |losses| {
            self.losses_and_gradient_ragged_in_place(logits, targets, &mut *losses)?;
            Ok(self.reduce(losses, divisor))
        })
    }

    /// The divisor of the sum of the losses of `rows` rows; labels are checked elsewhere.
    pub(crate) fn ragged_divisor<T>(&self, targets: &RaggedTargets<T>, rows: usize) -> f64 {
        let labels = match targets {
            RaggedTargets::Labels(labels) => Some(*labels),
            RaggedTargets::Probs(_) => None,
        };
        let classes = self.loss.weights.map_or(0, |weights| weights.len());
        in_default_environment(|| self.divides_by(labels, rows, classes))
    }

    fn run_ragged<T: Element>(&self, rows: Rows<T>) -> Result<(), Error> {
        let checked = rows.with_logits(|logits| {
            self.check_ragged(&logits, &rows)?;
            Ok((logits.rows(), logits.elements()))
        });
        let (count, elements) = checked.unwrap_or(Ok((0, 0)))?;
        let gradient = rows.gradient.is_some();
        let work = if gradient { Work::Softmax } else { Work::LogSumExp };
        let plan = self.exec.plan_ragged::<T>(work, count, elements)?;
        let divisor = if gradient { self.ragged_divisor(&rows.targets, count) } else { 1.0 };
        // The options of a row: its gradient has the divisor of the call.
        let of_row = CrossEntropy {
            loss: self.unscaled(divisor)?,
            reduction: Reduction::Sum,
            factors: None,
            factor: self.factor,
            exec: self.exec.serial(),
        };
        let options = if self.is_negative() { None } else { Some(of_row.divided(1.0)?) };
        share(
            &self.exec,
            &plan,
            rows,
            &|rows, at, of| rows.part(at, of),
            &|rows, at| rows.split(at),
            &|rows| match &options {
                Some(options) => by_kernel(plan.kernel, options, rows),
                None => of_row.by_calls(rows),
            },
        )
    }

    /// Checks that everything fits the rows.
    fn check_ragged<T>(&self, logits: &Ragged<T>, rows: &Rows<T>) -> Result<(), Error> {
        let count = logits.rows();
        let length = |what, len: usize| {
            if len == count { Ok(()) } else { Err(Error::count(what, count, len)) }
        };
        length("number of losses (one for each row)", rows.losses.len())?;
        if let Some(factors) = rows.factors {
            length("number of row factors", factors.len())?;
        }
        if let Some(weights) = self.loss.weights {
            let longest = (0..count).map(|row| logits.row_len(row)).max().unwrap_or(0);
            if weights.len() < longest {
                let what = "number of weights (one for each column of the longest row)";
                return Err(Error::shape(what, Size::AtLeast(longest), Size::Count(weights.len())));
            }
            weights.check("weight of class")?;
        }
        match &rows.targets {
            RaggedTargets::Labels(labels) => {
                length("number of labels (one for each row)", labels.len())?;
                for (row, &label) in labels.iter().enumerate() {
                    let cols = logits.row_len(row);
                    let is_column = usize::try_from(label).is_ok_and(|label| label < cols);
                    if label != self.loss.ignore && !is_column {
                        return Err(Error::column(row, label, cols));
                    }
                }
                Ok(())
            }
            RaggedTargets::Probs(probs) => {
                length("number of rows of targets", probs.rows())?;
                let other = |&row: &usize| probs.row_len(row) != logits.row_len(row);
                let Some(row) = (0..count).find(other) else { return Ok(()) };
                let what = "number of target probabilities of row";
                let range = "that of its logits";
                Err(Error::value_at(what, row, probs.row_len(row), range))
            }
        }
    }

    /// The options without the scale, with the gradient divided by `divisor`.
    fn unscaled(&self, divisor: f64) -> Result<Loss<'_>, Error> {
        let (in_range, factor) =
            in_default_environment(|| (self.is_in_range(), self.loss.factor / divisor));
        if !in_range {
            return Err(self.out_of_range());
        }
        self.factor.check_finite()?;
        Ok(Loss { factor, ..self.loss })
    }

    /// Computes rows by public calls, for options that change rows.
    #[cold]
    fn by_calls<T: Element>(&self, mut rows: Rows<T>) -> Result<(), Error> {
        for row in 0..rows.losses.len() {
            let cols = rows.with_logits(|logits| logits.row_len(row)).unwrap_or(0);
            let of_row = CrossEntropy {
                loss: of_cols(&self.loss, cols),
                factors: rows.factors.map(|factors| &factors[row..=row]),
                ..*self
            };
            let (targets, loss) = (targets_of(&rows.targets, row)?, &mut rows.losses[row..=row]);
            match (rows.logits, &mut rows.gradient) {
                (Some(x), None) => of_row.losses(one(x.row(row))?, targets, loss)?,
                (Some(x), Some(y)) => {
                    let y = one_mut(y.row_mut(row))?;
                    of_row.losses_and_gradient(one(x.row(row))?, targets, loss, y)?;
                }
                (None, Some(y)) => {
                    let y = one_mut(y.row_mut(row))?;
                    of_row.losses_and_gradient_in_place(y, targets, loss)?;
                }
                (None, None) => {}
            }
        }
        Ok(())
    }
}

/// The options for a row of so many columns.
fn of_cols<'a>(options: &Loss<'a>, cols: usize) -> Loss<'a> {
    Loss { weights: options.weights.map(|weights| weights.part(0..cols)), ..*options }
}

/// The targets of a row.
fn targets_of<'a, T>(targets: &RaggedTargets<'a, T>, row: usize) -> Result<Targets<'a, T>, Error> {
    Ok(match targets {
        RaggedTargets::Labels(labels) => Targets::Labels(&labels[row..=row]),
        RaggedTargets::Probs(probs) => Targets::Probs(one(probs.row(row))?),
    })
}

/// Computes rows one after another.
fn by_kernel<T: Element>(kernel: Ready, options: &Loss, mut rows: Rows<T>) -> Result<(), Error> {
    for row in 0..rows.losses.len() {
        let factors = rows.factors.map(|factors| &factors[row..=row]);
        let (targets, loss) = (targets_of(&rows.targets, row)?, &mut rows.losses[row..=row]);
        let call = match (rows.logits, &mut rows.gradient) {
            (Some(x), None) => {
                let options = of_cols(options, x.row_len(row));
                LossCall::new(one(x.row(row))?, targets, factors, loss, None, options)?
            }
            (Some(x), Some(y)) => {
                let options = of_cols(options, x.row_len(row));
                let y = Some(one_mut(y.row_mut(row))?);
                LossCall::new(one(x.row(row))?, targets, factors, loss, y, options)?
            }
            (None, Some(y)) => {
                let options = of_cols(options, y.row_len(row));
                LossCall::in_place(one_mut(y.row_mut(row))?, targets, factors, loss, options)?
            }
            (None, None) => continue,
        };
        let cols = call.cols();
        if !kernel.loss(call) {
            return Err(Error::memory(cols));
        }
    }
    Ok(())
}
