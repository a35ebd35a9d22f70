//! Rows that are changed before an operation: negated for scales below 0, or masked. Where no
//! kernel does that itself, changed copies of a few rows at a time are made in scratch memory.

use softmax_kernels::{
    Attend, Element, Mask, MaskData, Matrix, MatrixMut, Op as Work, Plain, Ready, Scale, Scores,
    Size, Weights, in_default_environment, part_of, weighted_logsumexp,
};

use crate::factor::Factor;
use crate::lanes::{View, between};
use crate::rows::{mismatch, not_one_a_row};
use crate::{Error, Shape, Softmax};

/// How the elements of a row are changed when they are read, and results when they are written.
pub(crate) trait Change<T>: Copy + Send {
    type Item: Plain + 'static;
    fn read(self, row: usize, x: &[T], to: &mut [Self::Item]);
    fn write(self, from: &[Self::Item], y: &mut [T]);
}

/// The rows of a matrix as lanes.
pub(crate) struct Rows<M, C> {
    matrix: M,
    /// The index of the first row.
    first: usize,
    change: C,
}

impl<M, C> Rows<M, C> {
    pub(crate) fn new(matrix: M, first: usize, change: C) -> Self {
        Self { matrix, first, change }
    }
}

macro_rules! rows_view {
    ($matrix:ident, $row:ident, $write:expr) => {
        impl<T: Element, C: Change<T>> View for Rows<$matrix<'_, T>, C> {
            type Item = C::Item;
            const TOGETHER: usize = 1;

            fn lanes_along(&self, dim: usize) -> Option<usize> {
                (dim == 0).then(|| self.matrix.rows())
            }

            fn elements(&self) -> usize {
                self.matrix.rows() * self.matrix.cols()
            }

            fn split(self, _: usize, at: usize) -> (Self, Self) {
                let Self { matrix, first, change } = self;
                let (a, b) = matrix.split_rows(at);
                let next = first + a.rows();
                (Self::new(a, first, change), Self::new(b, next, change))
            }

            fn read(&mut self, rows: &mut [C::Item]) {
                let cols = self.matrix.cols().max(1);
                for (row, to) in rows.chunks_exact_mut(cols).enumerate() {
                    self.change.read(self.first + row, self.matrix.$row(row), to);
                }
            }

            fn write(&mut self, rows: &[C::Item]) {
                $write(self, rows);
            }
        }
    };
}

rows_view!(Matrix, row, |_, _| ());
rows_view!(MatrixMut, row_mut, |to: &mut Self, rows: &[C::Item]| {
    let cols = to.matrix.cols().max(1);
    for (row, from) in rows.chunks_exact(cols).enumerate() {
        to.change.write(from, to.matrix.row_mut(row));
    }
});

/// Negates elements.
#[derive(Clone, Copy)]
pub(crate) struct Minus;

impl<T: Element> Change<T> for Minus {
    type Item = T;

    fn read(self, _: usize, x: &[T], to: &mut [T]) {
        x.iter().zip(to).for_each(|(x, to)| *to = x.minus());
    }

    fn write(self, from: &[T], y: &mut [T]) {
        y.copy_from_slice(from);
    }
}

/// Rows that are negated when they are read.
pub(crate) fn negated<T: Element>(x: Matrix<T>) -> Rows<Matrix<T>, Minus> {
    Rows::new(x, 0, Minus)
}

/// Rows that are written, and negated when they are read.
pub(crate) fn negated_in_place<T: Element>(y: MatrixMut<T>) -> Rows<MatrixMut<T>, Minus> {
    Rows::new(y, 0, Minus)
}

/// Copies rows and negates the copies.
pub(crate) fn negate<T: Element>(x: Matrix<T>, y: &mut MatrixMut<T>) {
    for row in 0..x.rows() {
        Minus.read(row, x.row(row), y.row_mut(row));
    }
}

/// Negates rows, except for NaN.
pub(crate) fn negate_in_place<T: Element>(y: &mut MatrixMut<T>) {
    for row in 0..y.rows() {
        for y in y.row_mut(row) {
            *y = if y.to_f64().is_nan() { *y } else { y.minus() };
        }
    }
}

/// The elements of a mask of any type.
macro_rules! of_any_type {
    ($mask:expr, $m:ident => $of:expr) => {
        match $mask {
            MaskData::F32($m) => $of,
            MaskData::F64($m) => $of,
            MaskData::F16($m) => $of,
            MaskData::Bf16($m) => $of,
            MaskData::Bool($m) => $of,
            _ => unreachable!("a type of masks"),
        }
    };
}
pub(crate) use of_any_type;

/// The name of the mask in messages about a size that does not fit.
pub(crate) const MASK: &str = MaskData::SIZE;

/// A mask with one row for all, or one for each row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowMask<'a> {
    data: MaskData<'a>,
    /// The number of its rows: 1, or as many as the input has.
    rows: usize,
    cols: usize,
}

impl<'a> RowMask<'a> {
    /// A mask for rows that are computed with like `A`.
    pub(crate) fn new<A>(data: MaskData<'a>, rows: usize, cols: usize) -> Result<Self, Error> {
        data.check::<A>()?;
        Ok(Self { data, rows: data.rows(rows, cols)?, cols })
    }

    /// A mask that only hides.
    pub(crate) fn hiding(data: MaskData<'a>, rows: usize, cols: usize) -> Result<Self, Error> {
        let rows = data.rows(rows, cols)?;
        data.check_hides()?;
        Ok(Self { data, rows, cols })
    }

    /// Whether each row of the input has a row of its own.
    pub(crate) fn is_of_each(&self) -> bool {
        self.rows > 1
    }

    pub(crate) fn row(&self, row: usize) -> MaskData<'a> {
        self.data.row(if self.rows == 1 { 0 } else { row }, self.cols)
    }

    /// How many rows from `first` on, before `end`, have masks of the same kind, and whether these
    /// only hide elements.
    fn alike(&self, first: usize, end: usize) -> (usize, bool) {
        let hides = |row| self.row(row).only_hides((0, self.cols));
        let first_hides = hides(first);
        let others = if self.rows == 1 { end } else { first + 1 };
        let next = (others..end).find(|&row| hides(row) != first_hides).unwrap_or(end);
        (next - first, first_hides)
    }
}

/// Replaces hidden elements by -inf.
#[derive(Clone, Copy)]
pub(crate) struct Hidden<'a> {
    pub(crate) mask: RowMask<'a>,
    /// Whether elements are negated, too.
    pub(crate) negative: bool,
    pub(crate) kernel: Ready,
}

impl<T: Element> Change<T> for Hidden<'_> {
    type Item = T;

    fn read(self, row: usize, x: &[T], to: &mut [T]) {
        let mask = self.mask.row(row);
        if let (MaskData::Bits(bits), false) = (mask, self.negative) {
            let seen = bits.width(x.len());
            let (to, hidden) = to.split_at_mut(seen);
            self.kernel.hide(&x[..seen], bits.words(), to);
            hidden.fill(T::NEG_INFINITY);
            return;
        }
        for (key, (x, to)) in x.iter().zip(to).enumerate() {
            let x = if self.negative { x.minus() } else { *x };
            *to = if mask.added(key) < 0.0 { T::NEG_INFINITY } else { x };
        }
    }

    fn write(self, from: &[T], y: &mut [T]) {
        y.copy_from_slice(from);
    }
}

/// Makes logits in f64: scaled, with the mask added.
///
/// The scale is a pair; its low part is 0 except for temperatures. With it a logit is rounded
/// twice, without it once.
#[derive(Clone, Copy)]
struct Logits<'a> {
    mask: RowMask<'a>,
    scale: (f64, f64),
}

impl<T: Element> Change<T> for Logits<'_> {
    type Item = f64;

    fn read(self, row: usize, x: &[T], to: &mut [f64]) {
        let (mask, (hi, lo)) = (self.mask.row(row), self.scale);
        for (key, (x, to)) in x.iter().zip(to).enumerate() {
            let (x, added) = (x.to_f64(), mask.added(key));
            let z = x.mul_add(hi, added);
            // A hidden element stays hidden, whatever its value; an infinity has no low part.
            *to = match added {
                f64::NEG_INFINITY => added,
                _ if lo == 0.0 || z.is_infinite() => z,
                _ => x.mul_add(lo, z),
            };
        }
    }

    fn write(self, from: &[f64], y: &mut [T]) {
        Rounded.write(from, y);
    }
}

/// Rounds results of f64 to the element type when they are written.
#[derive(Clone, Copy)]
struct Rounded;

impl<T: Element> Change<T> for Rounded {
    type Item = f64;

    fn read(self, _: usize, _: &[T], _: &mut [f64]) {}

    fn write(self, from: &[f64], y: &mut [T]) {
        for (from, y) in from.iter().zip(y) {
            *y = if from.is_nan() { T::NAN } else { T::from_f64(*from) };
        }
    }
}

/// Operations with a mask or a scale below 0.
impl<'a> Softmax<'a> {
    /// The options without the mask and with the absolute value of the scale; and whether the scale
    /// was negative.
    fn plain(&self) -> (Self, bool) {
        let (factor, negative) = self.factor.unsigned();
        (Self { factor, mask: None, ..*self }, negative)
    }

    /// The mask, if it has more than one row of `cols` elements.
    ///
    /// # Errors
    /// [`Error::Shape`] or [`Error::Value`] for bits: they do not lie along an axis.
    pub(crate) fn mask_of_each(&self, cols: usize) -> Result<Option<MaskData<'a>>, Error> {
        match self.mask {
            Some(mask) if mask.rows(1, cols).is_ok() => Ok(None),
            Some(bits @ MaskData::Bits(_)) => bits.rows(1, cols).map(|_| None),
            mask => Ok(mask),
        }
    }

    /// Softmax or log-softmax of `x`, or in place if there is no `x`.
    #[cold]
    #[inline(never)]
    pub(crate) fn changed<T: Element>(
        &self,
        work: Work,
        x: Option<Matrix<T>>,
        y: MatrixMut<T>,
    ) -> Result<(), Error> {
        let (rows, cols) = (y.rows(), y.cols());
        if let Some(x) = x.filter(|x| (x.rows(), x.cols()) != (rows, cols)) {
            return Err(mismatch([(x.rows(), x.cols()), (rows, cols)]));
        }
        let (plain, negative) = self.plain();
        let Some(mask) = self.mask else {
            let (from, to) = (x.map(negated), negated_in_place(y));
            return plain.lanes(work, cols, between(from, to));
        };
        let mask = RowMask::new::<T::Arithmetic>(mask, rows, cols)?;
        let scale = plain.factor.finite()?;
        if work == Work::Softmax {
            return self.attend(mask, scale, negative, x, y);
        }
        let scaled = if negative { (-scale.get(), 0.0) } else { scale.pair() };
        let of_f64 = Self { factor: Factor::One, ..plain };
        let (mut x, mut y, mut first) = (x, y, 0);
        while first < rows {
            let (n, hides) = mask.alike(first, rows);
            let (from, other_x) = x.map(|x| x.split_rows(n)).unzip();
            let (to, other_y) = y.split_rows(n);
            if hides {
                let change = Hidden { mask, negative, kernel: self.exec.ready()? };
                let from = from.map(|x| Rows::new(x, first, change));
                plain.lanes(work, cols, between(from, Rows::new(to, first, change)))?;
            } else {
                let change = Logits { mask, scale: scaled };
                let from = from.map(|x| Rows::new(x, first, change));
                of_f64.lanes(work, cols, between(from, Rows::new(to, first, change)))?;
            }
            (x, y, first) = (other_x, other_y, first + n);
        }
        Ok(())
    }

    /// Softmax by the kernels for attention's scores.
    fn attend<T: Element>(
        &self,
        mask: RowMask,
        scale: Scale,
        negative: bool,
        x: Option<Matrix<T>>,
        mut y: MatrixMut<T>,
    ) -> Result<(), Error> {
        let (rows, cols) = (y.rows(), y.cols());
        let shape = Shape::new(rows, cols).in_place_if(x.is_none() || negative);
        let plan = self.exec.plan_work::<T>(Work::Softmax, shape)?;
        // There may be any number of rows without elements; they have no probabilities.
        if rows == 0 || cols == 0 {
            return Ok(());
        }
        let attend = Attend {
            mask: Some(Mask::new(mask.data, [1, 1, mask.rows])),
            masked: self.masked,
            ..Attend::new(1, rows)
        };
        if negative {
            match x {
                Some(x) => negate(x, &mut y),
                None => negate_in_place(&mut y),
            }
        }
        let scores = in_default_environment(|| match x {
            Some(x) if !negative => Scores::new(x, y, None, &attend, scale),
            _ => Scores::in_place(y, None, &attend, scale),
        })?;
        let kernel = plan.kernel;
        let done = self.exec.crew().share(
            plan.threads,
            plan.parts.min(rows),
            scores.storing(plan.store),
            &|scores, at, of| {
                let at = part_of(scores.rows(), at, of);
                scores.split_rows(at)
            },
            &|scores| kernel.attend_rows(scores),
            &|a, b| a && b,
        );
        if done { Ok(()) } else { Err(Error::memory(cols)) }
    }

    /// Log-sum-exp or entropy of `x`.
    #[cold]
    #[inline(never)]
    pub(crate) fn changed_to_one<T: Element>(
        &self,
        work: Work,
        x: Matrix<T>,
        y: &mut [T],
    ) -> Result<(), Error> {
        let (rows, cols) = (x.rows(), x.cols());
        if y.len() != rows {
            return Err(not_one_a_row(work, [(rows, cols), (y.len(), 1)]));
        }
        let (plain, negative) = self.plain();
        let scale = plain.factor.finite()?;
        let mut y = MatrixMut::with_stride(y, rows, 1, 1)?;
        let Some(mask) = self.mask else {
            return plain.lanes_to_one(work, cols, negated(x), negated_in_place(y));
        };
        let mask = RowMask::new::<T::Arithmetic>(mask, rows, cols)?;
        let scaled = if negative { (-scale.get(), 0.0) } else { scale.pair() };
        let of_f64 = Self { factor: Factor::One, ..plain };
        let (mut x, mut first) = (x, 0);
        while first < rows {
            let (n, hides) = mask.alike(first, rows);
            let (from, other_x) = x.split_rows(n);
            let (to, other_y) = y.split_rows(n);
            if hides {
                let hidden = Hidden { mask, negative, kernel: self.exec.ready()? };
                let from = Rows::new(from, first, hidden);
                plain.lanes_to_one(work, cols, from, Rows::new(to, first, Minus))?;
            } else {
                let from = Rows::new(from, first, Logits { mask, scale: scaled });
                of_f64.lanes_to_one::<f64>(work, cols, from, Rows::new(to, first, Rounded))?;
            }
            (x, y, first) = (other_x, other_y, first + n);
        }
        Ok(())
    }

    /// The log-sum-exp of every row of `x` with weights: `ln(sum_j w_j exp(scale * x_j))`, like
    /// SciPy's `logsumexp` with `b`. Weights are f32 or f64, finite and not negative: one row of
    /// them for all rows, or one row for each. An element with weight 0 is ignored, whatever its
    /// value; so is one that a mask hides. If no element is left, the result is `-inf`.
    ///
    /// Error: at most 0.51 ULP (f64: 1), plus 5e-16. All types are computed in f64, one
    /// element after the other.
    ///
    /// ```
    /// use softmax::{Matrix, Softmax};
    /// let mut y = [0.0f64];
    /// let x = Matrix::new(&[700.0, 700.0, f64::NAN], 3)?;
    /// Softmax::new().logsumexp_weighted(x, &[0.25, 0.75, 0.0], &mut y)?;
    /// assert_eq!(y, [700.0]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Softmax::logsumexp`]; [`Error::Shape`] if there is not one weight for each column, nor
    /// one for each element, [`Error::Value`] if one is negative, infinite or NaN. (SciPy takes
    /// negative ones, too: of sums whose terms cancel no error can be stated.)
    pub fn logsumexp_weighted<'w, T: Element>(
        &self,
        x: Matrix<T>,
        weights: impl Into<Weights<'w>>,
        y: &mut [T],
    ) -> Result<(), Error> {
        let (rows, cols, weights) = (x.rows(), x.cols(), weights.into());
        if y.len() != rows {
            return Err(Error::count("number of log-sum-exps (one for each row)", rows, y.len()));
        }
        // No overflow: there are as many elements.
        if weights.len() != cols && weights.len() != rows * cols {
            let what = "number of weights (a row for all, or one for each)";
            let got = Size::Count(weights.len());
            return Err(Error::shape(what, Size::Matrix(rows, cols), got));
        }
        weights.check("weight")?;
        let (plain, negative) = self.plain();
        let (hi, lo) = plain.factor.finite()?.pair();
        let scale = if negative { (-hi, -lo) } else { (hi, lo) };
        let mask = self.mask.map(|mask| RowMask::new::<T::Arithmetic>(mask, rows, cols));
        let mask = mask.transpose()?;
        let plan = self.exec.plan_work::<T>(Work::LogSumExp, Shape::new(rows, cols))?;
        let one = weights.len() == cols;
        let of_row = |row: usize, x: &[T]| {
            let weights = if one { weights } else { weights.part(row * cols..(row + 1) * cols) };
            let mask = mask.map(|mask| mask.row(row));
            let value = weighted_logsumexp(cols, scale, |i| {
                (x[i].to_f64(), weights.get(i), mask.map_or(0.0, |mask| mask.added(i)))
            });
            if value.is_nan() { T::NAN } else { T::from_f64(value) }
        };
        self.exec.crew().share(
            plan.threads,
            plan.parts.min(rows),
            (0, x, y),
            &|(first, x, y), at, of| {
                let at = part_of(x.rows(), at, of);
                let ((x, other_x), (y, other_y)) = (x.split_rows(at), y.split_at_mut(at));
                ((first, x, y), (first + at, other_x, other_y))
            },
            &|(first, x, y): (usize, Matrix<T>, &mut [T])| {
                for (row, y) in y.iter_mut().enumerate() {
                    *y = of_row(first + row, x.row(row));
                }
            },
            &|(), ()| (),
        );
        Ok(())
    }
}
