//! Calls of losses and gradients, and their inputs.

use std::ops::Range;

use crate::call::error::Error;
use crate::call::matrix::{Matrix, MatrixMut};
use crate::call::ragged::{Ragged, RaggedMut};
use crate::call::rows::{Rows, over_rows};
use crate::mem::fpenv::in_default_environment;
use crate::num::element::Element;
use crate::num::exp2::{Contract, Sum};
use crate::num::part_of;
use crate::num::scale::Scale;

/// The targets of the rows of a loss.
///
/// ```
/// use softmax_kernels::{Matrix, Targets};
/// let (labels, probs) = (Targets::<f32>::from(&[1, 0]), Matrix::new(&[0.5f32; 6], 3)?.into());
/// assert_eq!((labels.rows(), Targets::rows(&probs)), (2, 2));
/// # Ok::<(), softmax_kernels::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Targets<'a, T> {
    /// Labels: the column of each row's class.
    Labels(&'a [i64]),
    /// The probabilities of each row's classes.
    Probs(Matrix<'a, T>),
}

impl<T> Targets<'_, T> {
    /// Those of the first `at` rows and the others.
    #[doc(hidden)]
    pub fn split_rows(self, at: usize) -> (Self, Self) {
        match self {
            Self::Labels(labels) => {
                let (a, b) = labels.split_at(at);
                (Self::Labels(a), Self::Labels(b))
            }
            Self::Probs(q) => {
                let (a, b) = q.split_rows(at);
                (Self::Probs(a), Self::Probs(b))
            }
        }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        match self {
            Self::Labels(labels) => labels.len(),
            Self::Probs(probs) => probs.rows(),
        }
    }
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

/// Numbers that classes or elements are multiplied by.
///
/// ```
/// use softmax_kernels::Weights;
/// assert!(matches!(Weights::from(&[1.0f32, 2.0]), Weights::F32(&[1.0, 2.0])));
/// assert!(matches!(Weights::from(&vec![1.0]), Weights::F64(&[1.0])));
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Weights<'a> {
    /// In f32.
    F32(&'a [f32]),
    /// In f64.
    F64(&'a [f64]),
}

impl<'a> Weights<'a> {
    /// How many.
    #[doc(hidden)]
    #[allow(clippy::len_without_is_empty)]
    #[inline]
    pub fn len(&self) -> usize {
        match self {
            Self::F32(w) => w.len(),
            Self::F64(w) => w.len(),
        }
    }

    /// One of them.
    #[doc(hidden)]
    #[inline]
    pub fn get(&self, i: usize) -> f64 {
        match self {
            Self::F32(w) => w[i].into(),
            Self::F64(w) => w[i],
        }
    }

    /// Those in a range.
    #[doc(hidden)]
    #[must_use]
    pub fn part(self, range: Range<usize>) -> Self {
        match self {
            Self::F32(w) => Self::F32(&w[range]),
            Self::F64(w) => Self::F64(&w[range]),
        }
    }

    /// Whether none is negative, infinite or NaN.
    ///
    /// # Errors
    /// [`Error::Value`] at the first that is.
    #[doc(hidden)]
    pub fn check(&self, what: &'static str) -> Result<(), Error> {
        // By their bits, as the caller's floating-point environment may trap at NaN. All of them,
        // without a branch, which the compiler makes vectors of.
        macro_rules! first {
            ($w:ident: $t:ty) => {{
                let good = |weight: $t| {
                    weight.to_bits() < <$t>::INFINITY.to_bits() || weight.to_bits() << 1 == 0
                };
                let all = $w.iter().fold(true, |all, &weight| all & good(weight));
                if all { None } else { $w.iter().position(|&weight| !good(weight)) }
            }};
        }
        let first = match self {
            Self::F32(w) => first!(w: f32),
            Self::F64(w) => first!(w: f64),
        };
        let refused = |i: usize| {
            let range = "finite and not negative";
            Err(Error::value_at(what, i, self.get(i), range))
        };
        first.map_or(Ok(()), |i| in_default_environment(|| refused(i)))
    }
}

macro_rules! weights {
    ($($t:ty: $variant:ident),*) => {
        $(impl<'a> From<&'a [$t]> for Weights<'a> {
            fn from(weights: &'a [$t]) -> Self {
                Self::$variant(weights)
            }
        }

        impl<'a> From<&'a Vec<$t>> for Weights<'a> {
            fn from(weights: &'a Vec<$t>) -> Self {
                Self::$variant(weights)
            }
        }

        impl<'a, const N: usize> From<&'a [$t; N]> for Weights<'a> {
            fn from(weights: &'a [$t; N]) -> Self {
                Self::$variant(weights)
            }
        })*
    };
}

weights!(f32: F32, f64: F64);

/// The options of a loss.
#[derive(Clone, Copy, Debug)]
pub struct Loss<'a> {
    /// The factor of the logits.
    pub scale: Scale,
    /// Rows with this label have no loss and no gradient.
    pub ignore: i64,
    /// The share of a target's mass that is spread over all classes.
    pub smoothing: f64,
    /// The factor of each class's share of the loss: finite numbers that are not negative.
    pub weights: Option<Weights<'a>>,
    /// The factor of the squared log-sum-exp.
    pub z: f64,
    /// Whether the entropy of the targets is subtracted: Kullback-Leibler divergence.
    pub divergence: bool,
    /// The factor of all gradients.
    pub factor: f64,
}

impl Loss<'_> {
    /// Whether what there is of each row fits rows of so many columns.
    ///
    /// # Errors
    /// If lengths do not fit, or a label is no column.
    pub fn check<T>(
        &self,
        rows: usize,
        cols: usize,
        targets: &Targets<T>,
        factors: Option<&[f64]>,
        losses: &[f64],
    ) -> Result<(), Error> {
        length("number of losses (one for each row)", losses.len(), rows)?;
        if let Some(factors) = factors {
            length("number of row factors", factors.len(), rows)?;
        }
        self.check_weights(cols)?;
        match targets {
            Targets::Labels(labels) => {
                length("number of labels (one for each row)", labels.len(), rows)?;
                self.check_labels(labels, cols)
            }
            Targets::Probs(q) => {
                let (logits, other) = ((rows, cols), (q.rows(), q.cols()));
                if other == logits {
                    return Ok(());
                }
                Err(Error::differ("matrix of targets", logits, other))
            }
        }
    }

    /// Checks that each label is a column or ignored.
    ///
    /// # Errors
    /// [`Error::Column`] for the first label that is neither.
    pub fn check_labels(&self, labels: &[i64], cols: usize) -> Result<(), Error> {
        let column = |label: i64| usize::try_from(label).is_ok_and(|label| label < cols);
        for (row, &label) in labels.iter().enumerate() {
            if label != self.ignore && !column(label) {
                return Err(Error::column(row, label, cols));
            }
        }
        Ok(())
    }

    /// Checks that there is a weight for each class, if there are any, and that none is negative,
    /// infinite or NaN.
    ///
    /// # Errors
    /// [`Error::Shape`] for a wrong number of weights, [`Error::Value`] for the first wrong weight.
    pub fn check_weights(&self, cols: usize) -> Result<(), Error> {
        let Some(weights) = self.weights else { return Ok(()) };
        length("number of weights (one for each class)", weights.len(), cols)?;
        weights.check("weight of class")
    }
}

fn length(what: &'static str, len: usize, needed: usize) -> Result<(), Error> {
    if len == needed { Ok(()) } else { Err(Error::count(what, needed, len)) }
}

/// The work of one call: the loss of each row, and its gradient if there is a place for it.
#[derive(Debug)]
pub struct LossCall<'a, T> {
    /// Logits, and gradients if wanted.
    views: Rows<'a, T, T>,
    /// One for each row; labels are columns, or ignored.
    targets: Targets<'a, T>,
    /// One for each row.
    pub(crate) losses: &'a mut [f64],
    /// The factor of each row's loss and gradient, if any.
    factors: Option<&'a [f64]>,
    /// The options; as many weights as columns.
    pub(crate) options: Loss<'a>,
}

over_rows!(LossCall<'a, T>, T, T);

impl<'a, T: Element> LossCall<'a, T> {
    /// Computes the losses of `x`, and the gradient if there is room for it.
    ///
    /// # Errors
    /// [`Error::Shape`] if shapes or lengths do not fit, [`Error::Column`] if a label is not a
    /// column.
    pub fn new(
        x: Matrix<'a, T>,
        targets: Targets<'a, T>,
        factors: Option<&'a [f64]>,
        losses: &'a mut [f64],
        gradient: Option<MatrixMut<'a, T>>,
        options: Loss<'a>,
    ) -> Result<Self, Error> {
        let views = match gradient {
            Some(y) => {
                Rows::new(x, y).map_err(|[logits, y]| Error::differ("gradient", logits, y))?
            }
            None => Rows::read(x),
        };
        Self::checked(views, targets, factors, losses, options)
    }

    /// Computes the losses of `x` and overwrites it with the gradient.
    ///
    /// # Errors
    /// As [`LossCall::new`].
    pub fn in_place(
        x: MatrixMut<'a, T>,
        targets: Targets<'a, T>,
        factors: Option<&'a [f64]>,
        losses: &'a mut [f64],
        options: Loss<'a>,
    ) -> Result<Self, Error> {
        Self::checked(Rows::in_place(x), targets, factors, losses, options)
    }

    fn checked(
        views: Rows<'a, T, T>,
        targets: Targets<'a, T>,
        factors: Option<&'a [f64]>,
        losses: &'a mut [f64],
        options: Loss<'a>,
    ) -> Result<Self, Error> {
        options.check(views.rows(), views.cols(), &targets, factors, losses)?;
        Ok(LossCall { views, targets, losses, factors, options })
    }

    /// The first `at` rows and the others.
    #[must_use]
    pub fn split_rows(self, at: usize) -> (Self, Self) {
        let options = self.options;
        let (views, other_views) = self.views.split(at);
        let at = views.rows();
        let (losses, other_losses) = self.losses.split_at_mut(at);
        let (targets, other_targets) = self.targets.split_rows(at);
        let (factors, other_factors) = self.factors.map(|f| f.split_at(at)).unzip();
        (
            LossCall { views, targets, losses, factors, options },
            LossCall {
                views: other_views,
                targets: other_targets,
                losses: other_losses,
                factors: other_factors,
                options,
            },
        )
    }

    /// The targets of a row, or `None` if it is ignored.
    ///
    /// # Safety
    /// `row` is a row of the call.
    pub(crate) unsafe fn targets(&self, row: usize) -> Option<RowTargets<'a, T>> {
        let Loss { smoothing, weights, .. } = self.options;
        let spread = smoothing / self.cols as f64;
        let factor = self.factors.map_or(1.0, |factors| factors[row]);
        match self.targets {
            Targets::Labels(labels) if labels[row] == self.options.ignore => None,
            Targets::Labels(labels) => {
                // `checked` has seen that the label is a column.
                let label = labels[row] as usize;
                let weight = weights.map_or(1.0, |w| w.get(label));
                // SAFETY: the label is a column.
                let logit = unsafe { *self.row(row).0.add(label) }.to_f64();
                let label = Label { column: label, logit, weight };
                let soft =
                    (smoothing != 0.0).then_some(Soft { probs: &[], weights, own: 0.0, spread });
                Some(RowTargets { label: Some(label), soft, factor })
            }
            Targets::Probs(q) => {
                let soft = Some(Soft { probs: q.row(row), weights, own: 1.0 - smoothing, spread });
                Some(RowTargets { label: None, soft, factor })
            }
        }
    }

    pub(crate) fn set(&mut self, row: usize, loss: f64) {
        self.losses[row] = if loss.is_nan() { f64::NAN } else { loss };
    }
}

/// The targets of one row.
pub(crate) struct RowTargets<'a, T> {
    pub(crate) label: Option<Label>,
    pub(crate) soft: Option<Soft<'a, T>>,
    /// The factor of the row's loss and gradient.
    pub(crate) factor: f64,
}

/// The target that a label is.
#[derive(Clone, Copy)]
pub(crate) struct Label {
    pub(crate) column: usize,
    pub(crate) logit: f64,
    pub(crate) weight: f64,
}

/// The targets of all columns: `weight_j * (own * q_j + spread)`, where `q` is 0 if there are no
/// probabilities.
#[derive(Clone, Copy)]
pub(crate) struct Soft<'a, T> {
    pub(crate) probs: &'a [T],
    pub(crate) weights: Option<Weights<'a>>,
    pub(crate) own: f64,
    pub(crate) spread: f64,
}

impl<T: Element> Soft<'_, T> {
    /// No target.
    pub(crate) const NONE: Self = Self { probs: &[], weights: None, own: 0.0, spread: 0.0 };

    /// `sum_j t_j ln(own * q_j + spread)` of a row of `n` elements.
    pub(crate) fn negative_entropy(&self, n: usize) -> f64 {
        let mut sum = Sum::ZERO;
        for j in 0..n {
            let q = self.probs.get(j).map_or(0.0, |q| q.to_f64()).mul_add(self.own, self.spread);
            let t = self.weights.map_or(1.0, |w| w.get(j)) * q;
            // 0 ln 0 = 0
            if t != 0.0 {
                sum = f64::sum_add(sum, Sum { hi: t * libm::log(q), lo: 0.0 });
            }
        }
        sum.hi
    }
}

/// The gradient through softmax or log-softmax, from its output and the gradient with respect to
/// that output.
#[derive(Debug)]
pub struct BackwardCall<'a, T> {
    views: BackwardViews<'a, T>,
    /// The factor of the input, as a pair.
    pub(crate) scale: (f64, f64),
    pub(crate) log: bool,
}

/// The output of the forward call, the gradient with respect to it, and the gradient with respect
/// to the input: rows of the same lengths.
#[derive(Debug)]
enum BackwardViews<'a, T> {
    Equal(Matrix<'a, T>, Matrix<'a, T>, MatrixMut<'a, T>),
    Unequal(Ragged<'a, T>, Ragged<'a, T>, RaggedMut<'a, T>),
}

impl<'a, T: Element> BackwardCall<'a, T> {
    /// `None` if the shapes differ. The scale is a pair, of either sign.
    pub fn new(
        output: Matrix<'a, T>,
        upstream: Matrix<'a, T>,
        gradient: MatrixMut<'a, T>,
        scale: (f64, f64),
        log: bool,
    ) -> Option<Self> {
        let shape = (output.rows(), output.cols());
        let same = (upstream.rows(), upstream.cols()) == shape
            && (gradient.rows(), gradient.cols()) == shape;
        let views = BackwardViews::Equal(output, upstream, gradient);
        same.then_some(Self { views, scale, log })
    }

    /// The same for rows of different lengths, at the same places of `upstream` and `gradient`.
    ///
    /// # Errors
    /// [`Error::Shape`] if one of them ends before the last row.
    pub fn ragged(
        output: Ragged<'a, T>,
        upstream: &'a [T],
        gradient: &'a mut [T],
        scale: (f64, f64),
        log: bool,
    ) -> Result<Self, Error> {
        let upstream = output.places_of("number of elements of the upstream gradient", upstream)?;
        let gradient = output.places_in("number of elements of the gradient", gradient)?;
        Ok(Self { views: BackwardViews::Unequal(output, upstream, gradient), scale, log })
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        match &self.views {
            BackwardViews::Equal(output, ..) => output.rows(),
            BackwardViews::Unequal(output, ..) => output.rows(),
        }
    }

    /// The number of rows of the first `at` of `of` parts: as many rows, or elements.
    pub fn part(&self, at: usize, of: usize) -> usize {
        match &self.views {
            BackwardViews::Equal(output, ..) => part_of(output.rows(), at, of),
            BackwardViews::Unequal(output, ..) => output.part(at, of),
        }
    }

    /// A row of each view, of the same length.
    #[inline(always)]
    pub(crate) fn row(&mut self, row: usize) -> (&[T], &[T], &mut [T]) {
        match &mut self.views {
            BackwardViews::Equal(output, upstream, gradient) => {
                (output.row(row), upstream.row(row), gradient.row_mut(row))
            }
            BackwardViews::Unequal(output, upstream, gradient) => {
                (output.row(row), upstream.row(row), gradient.row_mut(row))
            }
        }
    }

    /// The first `at` rows and the others.
    #[must_use]
    pub fn split_rows(self, at: usize) -> (Self, Self) {
        let (scale, log) = (self.scale, self.log);
        let (views, others) = match self.views {
            BackwardViews::Equal(output, upstream, gradient) => {
                let (output, upstream) = (output.split_rows(at), upstream.split_rows(at));
                let gradient = gradient.split_rows(at);
                (
                    BackwardViews::Equal(output.0, upstream.0, gradient.0),
                    BackwardViews::Equal(output.1, upstream.1, gradient.1),
                )
            }
            BackwardViews::Unequal(output, upstream, gradient) => {
                let (output, upstream) = (output.split_rows(at), upstream.split_rows(at));
                let gradient = gradient.split_rows(at);
                (
                    BackwardViews::Unequal(output.0, upstream.0, gradient.0),
                    BackwardViews::Unequal(output.1, upstream.1, gradient.1),
                )
            }
        };
        (Self { views, scale, log }, Self { views: others, scale, log })
    }
}

/// Probabilities of f64 below this are multiplied by [`LARGER`] before the scale, which may be as
/// small as 2^-100.
pub(crate) const SMALL: f64 = f64::from_bits((1023 - 900) << 52);

/// Small enough not to overflow in a product with any scale and difference.
pub(crate) const LARGER: f64 = f64::from_bits((1023 + 200) << 52);
