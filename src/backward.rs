//! Gradients through softmax and log-softmax.

use softmax_kernels::{
    BackwardCall, Element, Matrix, MatrixMut, Op as Work, in_default_environment,
};

use crate::exec::exec_setter;
use crate::factor::{Factor, factor_setters};
use crate::{Error, Exec, Shape};

/// Gradients through [`Softmax`](crate::Softmax), computed from its outputs. The scale or
/// temperature must be the same as there.
///
/// ```
/// use softmax::{Backward, Matrix, MatrixMut};
/// let mut gradient = [0.0f32; 2];
/// let (probs, upstream) = ([0.25f32, 0.75], [1.0f32, 0.0]);
/// Backward::new().softmax(
///     Matrix::new(&probs, 2)?, Matrix::new(&upstream, 2)?, MatrixMut::new(&mut gradient, 2)?)?;
/// assert_eq!(gradient, [0.1875, -0.1875]);
/// # Ok::<(), softmax::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Backward<'a> {
    factor: Factor,
    pub(crate) exec: Exec<'a>,
}

impl<'a> Backward<'a> {
    /// Scale 1; calls choose kernel and threads themselves.
    ///
    /// ```
    /// assert_eq!(format!("{:?}", softmax::Backward::new()), format!("{:?}", softmax::Backward::default()));
    /// ```
    #[inline]
    pub const fn new() -> Self {
        Self { factor: Factor::One, exec: Exec::new() }
    }

    factor_setters!("Scales below 0 are allowed, too, and cost nothing.");
    exec_setter!();

    /// The gradient through a softmax. From its output `probs` and the gradient `upstream` with
    /// respect to that output it computes the gradient with respect to the input, `a p_j (u_j -
    /// sum_i p_i u_i)`, where `a` is the scale.
    ///
    /// Error: 0.51 ULP (f64: 3), plus the error of the sum, 5e-13 (f64: 1e-24) of `a p_j sum_i p_i
    /// |u_i|`, for rows of up to 2^24 elements. (For rows of f64 `|u_j|` must be below 2^1022, and
    /// there are two ULP more where the gradient is below 2^-960.)
    ///
    /// # Errors
    /// [`Error::Shape`] if the shapes of the three matrices differ, [`Error::Value`] if the
    /// scale or temperature is out of range, or a kernel that cannot run.
    ///
    /// ```
    /// use softmax::{Backward, Matrix, MatrixMut};
    /// let (output, upstream, mut gradient) = ([0.5f32; 2], [1.0f32, 0.0], [0.0f32; 2]);
    /// // With a scale, that of the softmax.
    /// Backward::new().scale(2.0).softmax(
    ///     Matrix::new(&output, 2)?, Matrix::new(&upstream, 2)?, MatrixMut::new(&mut gradient, 2)?)?;
    /// assert_eq!(gradient, [0.5, -0.5]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    pub fn softmax<T: Element>(
        &self,
        probs: Matrix<T>,
        upstream: Matrix<T>,
        gradient: MatrixMut<T>,
    ) -> Result<(), Error> {
        self.run(probs, upstream, gradient, false)
    }

    /// The gradient through a log-softmax, from its output `log_probs` and the gradient `upstream`
    /// with respect to that output: `a (u_j - p_j sum_i u_i)`.
    ///
    /// Error: 3 ULP (f16, bf16: 0.51) of the largest of `a |u_j|`, `a p_j |sum|` and the gradient,
    /// with `p_j = exp(log_prob_j)`; plus 5e-13 (f64: 1e-24) of `a p_j sum_i |u_i|`.
    ///
    /// # Errors
    /// As [`Backward::softmax`].
    ///
    /// ```
    /// use softmax::{Backward, Matrix, MatrixMut};
    /// let (output, upstream, mut gradient) = ([0.5f32.ln(); 2], [1.0f32, 0.0], [0.0f32; 2]);
    /// Backward::new().log_softmax(
    ///     Matrix::new(&output, 2)?, Matrix::new(&upstream, 2)?, MatrixMut::new(&mut gradient, 2)?)?;
    /// assert_eq!(gradient, [0.5, -0.5]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    pub fn log_softmax<T: Element>(
        &self,
        log_probs: Matrix<T>,
        upstream: Matrix<T>,
        gradient: MatrixMut<T>,
    ) -> Result<(), Error> {
        self.run(log_probs, upstream, gradient, true)
    }

    /// The scale as a pair.
    pub(crate) fn pair(&self) -> Result<(f64, f64), Error> {
        let (factor, negative) = self.factor.unsigned();
        let (hi, lo) = factor.finite()?.pair();
        Ok(if negative { (-hi, -lo) } else { (hi, lo) })
    }

    fn run<T: Element>(
        &self,
        output: Matrix<T>,
        upstream: Matrix<T>,
        gradient: MatrixMut<T>,
        log: bool,
    ) -> Result<(), Error> {
        let shape = (output.rows(), output.cols());
        let other = (upstream.rows(), upstream.cols());
        let (what, other) = if other == shape {
            ("gradient", (gradient.rows(), gradient.cols()))
        } else {
            ("upstream gradient", other)
        };
        let scale = self.pair()?;
        let call = || BackwardCall::new(output, upstream, gradient, scale, log);
        let Some(call) = in_default_environment(call) else {
            return Err(Error::differ(what, shape, other));
        };
        let plan = self.exec.plan_work::<T>(Work::Softmax, Shape::new(shape.0, shape.1))?;
        // There may be any number of rows without elements; they have no gradient.
        if shape.1 == 0 {
            return Ok(());
        }
        let kernel = plan.kernel;
        self.exec.crew().share(
            plan.threads,
            plan.parts.min(shape.0),
            call,
            &|call: BackwardCall<T>, at, of| {
                let at = call.part(at, of);
                call.split_rows(at)
            },
            &|call| kernel.backward(call),
            &|(), ()| (),
        );
        Ok(())
    }
}
