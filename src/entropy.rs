//! The entropy of the softmax of rows, and its gradient.

use softmax_kernels::{
    Call, Element, EntropyGradient, Matrix, MatrixMut, Op as Work, in_default_environment, part_of,
};

use crate::changed::{Change, Hidden, RowMask, negate};
use crate::rows::not_one_a_row;
use crate::{Error, Shape, Softmax};

impl Softmax<'_> {
    /// The entropy of the softmax of every row of `x`, in nats, one element of `h` for each:
    /// `-sum_j p_j ln(p_j)` with `p = softmax(scale * x)` (Shannon, A Mathematical Theory of
    /// Communication, 1948, section 6), a term of probability 0 counting 0. It is 0 for a row of
    /// one element, and `ln(n)` for `n` equal ones.
    ///
    /// A row is read once, as for its log-sum-exp, and no probabilities are written: the entropy is
    /// `(lse - scale * max) + scale * sum_j p_j (max - x_j)`, in which no term is negative. Nearly
    /// certain rows, in which rounding would show, are read twice.
    ///
    /// Error: at most 3 ULP in f32 and 5 in f64, however near to 0 it is; in f16 and bf16 at most
    /// 0.51 ULP of the type. (Elements whose probability is below 2^-126 of the largest, f64:
    /// 2^-1022, count 0: an error of at most 2^-119, f64: 2^-1012, for each of them.)
    ///
    /// A row that has NaN or `+inf` gives NaN. So does one of nothing but `-inf`, and one without
    /// elements; with [`Masked::Zero`](crate::Masked::Zero) these give 0.
    ///
    /// # Errors
    /// As [`Softmax::logsumexp`].
    ///
    /// ```
    /// use softmax::{Matrix, Softmax};
    /// let mut h = [0.0f64; 3];
    /// let x = [7.0, 7.0, 3.0, f64::NEG_INFINITY, 40.0, 0.0];
    /// Softmax::new().entropy(Matrix::new(&x, 2)?, &mut h)?;
    /// assert_eq!(h[..2], [2f64.ln(), 0.0]);
    /// // p (1 + 40) of the unlikely element, where ln(1 - p) alone would give 0.
    /// assert!((h[2] / (41.0 * (-40f64).exp()) - 1.0).abs() < 1e-15);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    pub fn entropy<T: Element>(&self, x: Matrix<T>, h: &mut [T]) -> Result<(), Error> {
        if self.is_changed() {
            return self.changed_to_one(Work::Entropy, x, h);
        }
        let call = Call::entropy(x, h, self.factor.finite()?, self.masked);
        self.exec.run(call.map_err(|shapes| not_one_a_row(Work::Entropy, shapes))?)
    }

    /// The gradient of `sum_i upstream_i H_i`, where `H_i` is the entropy of row `i` that
    /// [`Softmax::entropy`] gives, with respect to `x`: `-upstream_i scale p_j (ln(p_j) + H_i)`.
    /// `upstream` has one element for each row, the gradient of a loss with respect to its entropy:
    /// for a bonus of `beta` times the mean entropy of `n` rows, `-beta / n`. The entropies are not
    /// needed: they are computed again.
    ///
    /// Error: 6 ULP (f64: 14; f16, bf16: 0.51) of the largest of `upstream_i scale p_j` times
    /// `scale (max - x_j)`, the same times the mean of these, and the gradient; in f64 also
    /// `2^-1040 scale^2 upstream_i p_j`, for logits that differ by less than 2^-960.
    ///
    /// Rows without an entropy have a gradient of NaN; where it is 0 because of
    /// [`Masked::Zero`](crate::Masked::Zero), of 0. Elements that a mask hides, and `-inf`, have 0.
    ///
    /// # Errors
    /// [`Error::Shape`] if shapes differ, or there is not one upstream element for each row, or a
    /// mask has another size; [`Error::Value`] if the scale or temperature is out of range, or a
    /// mask does not only hide; or a kernel that cannot run.
    ///
    /// ```
    /// use softmax::{Matrix, MatrixMut, Softmax};
    /// let mut gradient = [0.0f32; 4];
    /// let logits = [0.0, 0.0, 2f32.ln(), 0.0];
    /// let x = Matrix::new(&logits, 2)?;
    /// Softmax::new().entropy_backward(x, &[1.0, 1.0], MatrixMut::new(&mut gradient, 2)?)?;
    /// // Equal probabilities have the largest entropy; those of 2/3 and 1/3 grow more equal.
    /// assert_eq!(gradient[..2], [0.0, 0.0]);
    /// assert!((gradient[2] + 2.0 / 9.0 * 2f32.ln()).abs() < 1e-7);
    /// assert!((gradient[3] - 2.0 / 9.0 * 2f32.ln()).abs() < 1e-7);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    pub fn entropy_backward<T: Element>(
        &self,
        x: Matrix<T>,
        upstream: &[T],
        mut gradient: MatrixMut<T>,
    ) -> Result<(), Error> {
        let (rows, cols) = (x.rows(), x.cols());
        let (factor, negative) = self.factor.unsigned();
        let scale = factor.finite()?;
        EntropyGradient::check(&x, upstream, &gradient)?;
        let mask = self.mask.map(|mask| RowMask::hiding(mask, rows, cols)).transpose()?;
        let shape = Shape::new(rows, cols).in_place_if(self.is_changed());
        let plan = self.exec.plan_work::<T>(Work::Softmax, shape)?;
        // There may be any number of rows without elements; they have no gradient.
        if rows == 0 || cols == 0 {
            return Ok(());
        }
        let call = if let Some(mask) = mask {
            let hidden = Hidden { mask, negative, kernel: plan.kernel };
            in_default_environment(|| {
                for row in 0..rows {
                    hidden.read(row, x.row(row), gradient.row_mut(row));
                }
            });
            EntropyGradient::in_place(gradient, upstream, scale)
        } else if negative {
            in_default_environment(|| negate(x, &mut gradient));
            EntropyGradient::in_place(gradient, upstream, scale)
        } else {
            EntropyGradient::new(x, upstream, gradient, scale)
        }?;
        self.exec.crew().share(
            plan.threads,
            plan.parts.min(rows),
            call.of(negative, self.masked),
            &|call: EntropyGradient<T>, at, of| {
                let at = part_of(call.rows(), at, of);
                call.split_rows(at)
            },
            &|call| plan.kernel.entropy_gradient(call),
            &|(), ()| (),
        );
        Ok(())
    }

    /// Log-sum-exp or entropy.
    pub(crate) fn rows_to_one<T: Element>(
        &self,
        work: Work,
        x: Matrix<T>,
        y: &mut [T],
    ) -> Result<(), Error> {
        match work {
            Work::Entropy => self.entropy(x, y),
            _ => self.logsumexp(x, y),
        }
    }
}
