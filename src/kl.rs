//! The Kullback-Leibler divergence of two rows of logits, and its gradients.

use softmax_kernels::{
    Element, KlDivergence, Matrix, MatrixMut, Op as Work, in_default_environment, part_of,
    with_room,
};

use crate::changed::{Change, Hidden, Minus, RowMask};
use crate::{Error, Plan, Shape, Softmax};

impl Softmax<'_> {
    /// The Kullback-Leibler divergence of the softmax of every row of `y` from that of `x`, in
    /// nats, one element of `kl` for each: `KL(p || q) = sum_j p_j (ln p_j - ln q_j)` with `p =
    /// softmax(scale * x)` and `q = softmax(scale * y)` (Kullback and Leibler, On Information and
    /// Sufficiency, 1951), a term with `p_j = 0` counting 0. Scale or temperature, and a mask, hold
    /// for both rows; the mask must only hide (its numbers are 0 or `-inf`).
    ///
    /// It is what distillation asks (`x` are the teacher's logits) and the penalty for leaving a
    /// reference policy (`y` are the reference's). For targets that are probabilities, not logits,
    /// there is [`CrossEntropy::divergence`](crate::CrossEntropy::divergence).
    ///
    /// Error: at most 0.51 ULP and 1e-24, in f64 8 ULP and 1e-31, for rows of up to 2^24 elements:
    /// small divergences are as precise as others, because no term of `sum_j p_j (exp(-d_j) - 1 +
    /// d_j)`, `d_j = ln p_j - ln q_j`, is negative. It is never below 0, and 0 for equal rows.
    /// (Elements of `x` whose exponential is below 2^-1022 of their row's largest count as having
    /// none.)
    ///
    /// | rows | divergence |
    /// |---|---|
    /// | NaN or `+inf` in `x` or `y` | NaN |
    /// | `x` is nothing but `-inf`, or without elements | NaN; 0 with [`Masked::Zero`](crate::Masked::Zero) |
    /// | `y` is `-inf` somewhere, or everywhere, where `p` is not 0 | `+inf` |
    ///
    /// # Errors
    /// [`Error::Shape`] if shapes differ, or `kl` has not one element for each row, or a mask has
    /// another size; [`Error::Value`] if the scale or temperature is out of range, or a mask does
    /// not only hide; with a mask or a scale below 0, for which rows are copied, [`Error::Memory`];
    /// or a kernel that cannot run.
    ///
    /// ```
    /// use softmax::{Matrix, Softmax};
    /// // The probabilities 2/3, 1/3 and 1/2, 1/2; then two rows that hardly differ.
    /// let x = [2f64.ln(), 0.0, 0.0, 1e-6];
    /// let y = [0.0, 0.0, 0.0, 0.0];
    /// let mut kl = [0.0; 2];
    /// Softmax::new().kl_divergence(Matrix::new(&x, 2)?, Matrix::new(&y, 2)?, &mut kl)?;
    /// assert!((kl[0] - (5.0 / 3.0 * 2f64.ln() - 3f64.ln())).abs() < 1e-16);
    /// assert!((kl[1] / 1.25e-13 - 1.0).abs() < 1e-12);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    pub fn kl_divergence<T: Element>(
        &self,
        x: Matrix<T>,
        y: Matrix<T>,
        kl: &mut [T],
    ) -> Result<(), Error> {
        let (factor, negative) = self.factor.unsigned();
        let shape = Shape::new(x.rows(), x.cols());
        let call = KlDivergence::new(x, y, kl, factor.finite()?)?;
        self.divergences(shape, call.of(negative, self.masked))
    }

    /// The gradients of `sum_i upstream_i KL_i`, where `KL_i` is the divergence of row `i` that
    /// [`Softmax::kl_divergence`] gives: with respect to `x`, `upstream_i scale p_j (d_j - KL_i)`
    /// with `d_j = ln p_j - ln q_j`, into `x_gradient`, and with respect to `y`, `upstream_i scale
    /// (q_j - p_j)`, into `y_gradient`; either may be `None`. `upstream` has one element for each
    /// row, the gradient of a loss with respect to its divergence: for `beta` times the mean
    /// divergence of `n` rows, `beta / n`. The divergences are not needed: they are computed again.
    ///
    /// Error: of the first 0.51 ULP (f64: 12) of the largest of `upstream_i scale p_j |d_j|`, the
    /// same times `KL_i` in place of `|d_j|`, and the gradient; of the second 0.51 ULP (f64: 8) of
    /// the gradient; plus 1e-12 (f64: 1e-15) of `upstream_i scale p_j`.
    /// Exponentials below 2^-1022 of their row's largest count 0.
    ///
    /// Where the divergence is NaN or 0 because of [`Masked::Zero`](crate::Masked::Zero), so are
    /// the gradients. Where it is `+inf`, the first is NaN but for elements with `p_j = 0`, whose
    /// gradient is always 0; the second is as usual, or NaN if `y` is nothing but `-inf`. Elements
    /// that a mask hides have gradients of 0.
    ///
    /// # Errors
    /// As [`Softmax::kl_divergence`]; [`Error::Shape`] if there is not one upstream element for
    /// each row, or a gradient has another shape.
    ///
    /// ```
    /// use softmax::{Matrix, MatrixMut, Softmax};
    /// let (teacher, student) = ([2f32.ln(), 0.0], [0.0f32, 0.0]);
    /// let mut gradient = [0.0f32; 2];
    /// Softmax::new().kl_divergence_backward(
    ///     Matrix::new(&teacher, 2)?,
    ///     Matrix::new(&student, 2)?,
    ///     &[1.0],
    ///     None,
    ///     Some(MatrixMut::new(&mut gradient, 2)?),
    /// )?;
    /// // q - p: the first logit is to grow.
    /// assert!((gradient[0] + 1.0 / 6.0).abs() < 1e-7 && (gradient[1] - 1.0 / 6.0).abs() < 1e-7);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    pub fn kl_divergence_backward<T: Element>(
        &self,
        x: Matrix<T>,
        y: Matrix<T>,
        upstream: &[T],
        x_gradient: Option<MatrixMut<T>>,
        y_gradient: Option<MatrixMut<T>>,
    ) -> Result<(), Error> {
        let (factor, negative) = self.factor.unsigned();
        let shape = Shape::new(x.rows(), x.cols());
        let gradients = [x_gradient, y_gradient];
        let call = KlDivergence::backward(x, y, upstream, gradients, factor.finite()?)?;
        self.divergences(shape, call.of(negative, self.masked))
    }

    fn divergences<T: Element>(&self, shape: Shape, call: KlDivergence<T>) -> Result<(), Error> {
        let mask = self.mask.map(|mask| RowMask::hiding(mask, shape.rows, shape.cols));
        let mask = mask.transpose()?;
        let plan = self.exec.plan_work::<T>(Work::Entropy, shape)?;
        if !call.writes() {
            return Ok(());
        }
        let (_, negative) = self.factor.unsigned();
        let kernel = plan.kernel;
        let done = match mask {
            Some(mask) => self.changed_pairs(&plan, call, Hidden { mask, negative, kernel }),
            None if negative => self.changed_pairs(&plan, call, Minus),
            None => self.pairs(&plan, call, |_, call| {
                kernel.kl_divergence(call);
                true
            }),
        };
        if done { Ok(()) } else { Err(Error::memory(shape.cols.saturating_mul(2))) }
    }

    /// Shares rows among threads, each part with the index of its first row. Returns whether all
    /// parts were done.
    fn pairs<T: Element>(
        &self,
        plan: &Plan,
        call: KlDivergence<T>,
        run: impl Fn(usize, KlDivergence<T>) -> bool + Sync,
    ) -> bool {
        let parts = plan.parts.min(call.rows());
        self.exec.crew().share(
            plan.threads,
            parts,
            (0, call),
            &|(first, call): (usize, KlDivergence<T>), at, of| {
                let at = part_of(call.rows(), at, of);
                let (a, b) = call.split_rows(at);
                ((first, a), (first + at, b))
            },
            &|(first, call)| run(first, call),
            &|a, b| a && b,
        )
    }

    /// The same, of copies of rows that are changed.
    #[cold]
    fn changed_pairs<T: Element>(
        &self,
        plan: &Plan,
        call: KlDivergence<T>,
        change: impl Change<T, Item = T> + Sync,
    ) -> bool {
        let cols = call.cols();
        self.pairs(plan, call, |first, mut rest| {
            let done = with_room(cols.saturating_mul(2), |room: &mut [T]| {
                let (x, y) = room.split_at_mut(cols);
                for row in first..first + rest.rows() {
                    let (one, others) = rest.split_rows(1);
                    rest = others;
                    let [from_x, from_y] = one.row(0);
                    in_default_environment(|| {
                        change.read(row, from_x, x);
                        change.read(row, from_y, y);
                    });
                    let [x, y] = [&*x, &*y].map(|x| Matrix::with_stride(x, 1, cols, cols));
                    let (Ok(x), Ok(y)) = (x, y) else { return false };
                    let Ok(one) = one.reading(x, y) else { return false };
                    plan.kernel.kl_divergence(one);
                }
                true
            });
            done == Some(true)
        })
    }
}
