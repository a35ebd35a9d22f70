//! A router's experts.

use softmax_kernels::{
    Element, GroupScore, Masked, Matrix, Op as Work, RouteCall, Routing, Scoring, part_of,
};

use crate::exec::exec_setter;
use crate::{Error, Exec, Shape};

/// The router of a mixture of experts: for each token the `k` experts with the largest scores, in
/// decreasing order, the lower index first among equals, and their weights.
///
/// A row of logits has one for each expert. Scores are its softmax or its sigmoids.
/// `docs/decisions.md` has the options that give the routers of well-known models.
///
/// # The choice
///
/// Experts are chosen by their logits. These have the order of the scores, but tell apart what is
/// equal after rounding. With a bias or in groups the choice is by the scores as they are computed,
/// plus the bias, rounded to the arithmetic type: f64 for f64, f32 for all others.
///
/// # Special rows
///
/// | row | experts | weights |
/// |---|---|---|
/// | with NaN | 0 to `k - 1` | NaN |
/// | with `+inf`, softmax | the largest; 0 to `k - 1` with a bias or in groups | NaN |
/// | all `-inf`, softmax | 0 to `k - 1`; those of the largest bias with [`Masked::Zero`] | NaN; 0 with [`Masked::Zero`] |
/// | `-inf` beside finite logits | score 0, so last without a bias | 0 |
///
/// ```
/// use softmax::{Matrix, Router};
/// // Two tokens, four experts.
/// let logits = Matrix::new(&[1.0f32, 3.0, 3.0, 0.0, 2.0, -1.0, 0.0, 2.0], 4)?;
/// let (mut weights, mut experts) = ([0.0f32; 4], [0; 4]);
/// Router::new(2).renormalize(true).route(logits, &mut weights, &mut experts)?;
/// assert_eq!(experts, [1, 2, 0, 3]);
/// assert_eq!(weights, [0.5; 4]);
/// # Ok::<(), softmax::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Router<'a> {
    routing: Routing<'a>,
    pub(crate) exec: Exec<'a>,
}

impl<'a> Router<'a> {
    /// `k` experts of each row, with the defaults: weights are the softmax of the row; no bias, no
    /// groups; calls choose kernel and threads themselves.
    ///
    /// ```
    /// use softmax::{Matrix, Router};
    /// let (mut weights, mut experts) = ([0.0f32; 1], [9]);
    /// Router::new(1).route(Matrix::new(&[0.0f32; 4], 4)?, &mut weights, &mut experts)?;
    /// assert_eq!((weights, experts), ([0.25], [0]));
    /// # Ok::<(), softmax::Error>(())
    /// ```
    #[inline]
    pub const fn new(k: usize) -> Self {
        let routing = Routing {
            k,
            scoring: Scoring::Softmax,
            bias: None,
            groups: None,
            group_score: GroupScore::TopTwo,
            renormalize: false,
            factor: 1.0,
            masked: Masked::Nan,
        };
        Self { routing, exec: Exec::new() }
    }

    /// How scores are made of logits.
    ///
    /// ```
    /// use softmax::{Matrix, Router, Scoring};
    /// let (mut weights, mut experts) = ([0.0f32; 1], [9]);
    /// let router = Router::new(1).scoring(Scoring::Sigmoid);
    /// router.route(Matrix::new(&[-1.0f32, 0.0], 2)?, &mut weights, &mut experts)?;
    /// assert_eq!((weights, experts), ([0.5], [1]));
    /// # Ok::<(), softmax::Error>(())
    /// ```
    #[inline]
    #[must_use]
    pub const fn scoring(mut self, scoring: Scoring) -> Self {
        self.routing.scoring = scoring;
        self
    }

    /// Numbers that are added to the scores, one for each expert, for the choice alone: weights are
    /// made of scores without them. (`e_score_correction_bias` of DeepSeek-V3, which balances the
    /// load of experts; arXiv:2408.15664.) They must be finite.
    ///
    /// ```
    /// use softmax::{Matrix, Router, Scoring};
    /// let (mut weights, mut experts) = ([0.0f32; 1], [9]);
    /// let router = Router::new(1).scoring(Scoring::Sigmoid).bias(&[0.0, -1.0]);
    /// router.route(Matrix::new(&[0.0f32, 1.0], 2)?, &mut weights, &mut experts)?;
    /// assert_eq!((weights, experts), ([0.5], [0]));
    /// # Ok::<(), softmax::Error>(())
    /// ```
    #[inline]
    #[must_use]
    pub const fn bias(mut self, bias: &'a [f32]) -> Self {
        self.routing.bias = Some(bias);
        self
    }

    /// Experts are in `groups` groups of as many, in order, and those of a token are chosen from
    /// the `limit` groups with the largest scores ([`Router::group_score`]), of equals the first
    /// (`n_group` and `topk_group` of DeepSeek-V3, arXiv:2412.19437, section 2.1.2).
    ///
    /// ```
    /// use softmax::{Matrix, Router};
    /// let (mut weights, mut experts) = ([0.0f64; 2], [9; 2]);
    /// // The largest logit is alone in its group.
    /// let logits = [3.0, -9.0, 2.5, 2.5];
    /// Router::new(2).groups(2, 1).route(Matrix::new(&logits, 4)?, &mut weights, &mut experts)?;
    /// assert_eq!(experts, [2, 3]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    #[inline]
    #[must_use]
    pub const fn groups(mut self, groups: usize, limit: usize) -> Self {
        self.routing.groups = Some((groups, limit));
        self
    }

    /// The score of a group of experts, from their scores with the bias.
    ///
    /// ```
    /// use softmax::{GroupScore, Matrix, Router};
    /// let (mut weights, mut experts) = ([0.0f64; 2], [9; 2]);
    /// let router = Router::new(2).groups(2, 1).group_score(GroupScore::Largest);
    /// router.route(Matrix::new(&[3.0, -9.0, 2.5, 2.5], 4)?, &mut weights, &mut experts)?;
    /// assert_eq!(experts, [0, 1]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    #[inline]
    #[must_use]
    pub const fn group_score(mut self, score: GroupScore) -> Self {
        self.routing.group_score = score;
        self
    }

    /// Whether the weights of each row are divided by their sum. Of a softmax this is the softmax
    /// of the chosen logits, and computed as that. Sigmoids that are all 0 remain 0.
    ///
    /// ```
    /// use softmax::{Matrix, Router};
    /// let (mut weights, mut experts) = ([0.0f32; 2], [9; 2]);
    /// let logits = Matrix::new(&[1.0f32, 1.0, 0.0], 3)?;
    /// Router::new(2).renormalize(true).route(logits, &mut weights, &mut experts)?;
    /// assert_eq!(weights, [0.5, 0.5]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    #[inline]
    #[must_use]
    pub const fn renormalize(mut self, renormalize: bool) -> Self {
        self.routing.renormalize = renormalize;
        self
    }

    /// The factor of all weights, after they are renormalised (`routed_scaling_factor`).
    ///
    /// ```
    /// use softmax::{Matrix, Router};
    /// let (mut weights, mut experts) = ([0.0f32; 1], [9]);
    /// let router = Router::new(1).renormalize(true).scaling_factor(2.5);
    /// router.route(Matrix::new(&[1.0f32, 0.0], 2)?, &mut weights, &mut experts)?;
    /// assert_eq!(weights, [2.5]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    #[inline]
    #[must_use]
    pub const fn scaling_factor(mut self, factor: f64) -> Self {
        self.routing.factor = factor;
        self
    }

    /// What the weights of a row are that is all `-inf`, if scores are a softmax.
    ///
    /// ```
    /// use softmax::{Masked, Matrix, Router};
    /// let (mut weights, mut experts) = ([1.0f32; 1], [9]);
    /// let row = [f32::NEG_INFINITY; 2];
    /// let router = Router::new(1).masked(Masked::Zero);
    /// router.route(Matrix::new(&row, 2)?, &mut weights, &mut experts)?;
    /// assert_eq!((weights, experts), ([0.0], [0]));
    /// # Ok::<(), softmax::Error>(())
    /// ```
    #[inline]
    #[must_use]
    pub const fn masked(mut self, masked: Masked) -> Self {
        self.routing.masked = masked;
        self
    }

    exec_setter!();

    /// The experts of every row of `logits`, and their weights: `k` of each for a row.
    ///
    /// Error: weights that are a softmax, also renormalised, have the bits of
    /// [`Softmax::softmax`](crate::Softmax::softmax) of the row, or of the chosen logits in their
    /// order, and sigmoids those of [`Sigmoid::sigmoid`](crate::Sigmoid::sigmoid): at most 3 ULP
    /// (for f16 and bf16 the bits that these give for the same numbers in f32). A factor adds a
    /// rounding to them: at most 5 ULP. Renormalised sigmoids: at most 8 ULP, with a factor or
    /// without (f64: 10). `docs/accuracy.md` derives these.
    ///
    /// # Errors
    /// [`Error::Value`] if `k` is above the number of experts or of those in the groups that are
    /// chosen, if there are more than 4,096 experts, if groups are not of equal size or their limit
    /// is not in its range, or a number is not finite; [`Error::Shape`] if there are not as many
    /// biases as experts, or outputs have not `k` elements for each row; [`Error::Memory`]; or a
    /// kernel that cannot run.
    ///
    /// ```
    /// use softmax::{Matrix, Router, Scoring};
    /// let logits = Matrix::new(&[0.0f32, 0.0, -1.0, 2.0], 4)?;
    /// let (mut weights, mut experts) = ([0.0f32; 2], [0; 2]);
    /// let bias = [1.0, 1.0, 0.0, 0.0];
    /// let router = Router::new(2).scoring(Scoring::Sigmoid).bias(&bias).renormalize(true);
    /// router.scaling_factor(2.5).route(logits, &mut weights, &mut experts)?;
    /// assert_eq!((weights, experts), ([1.25; 2], [0, 1]));
    /// # Ok::<(), softmax::Error>(())
    /// ```
    pub fn route<T: Element>(
        &self,
        logits: Matrix<T>,
        weights: &mut [T::Arithmetic],
        experts: &mut [u32],
    ) -> Result<(), Error> {
        let (rows, cols) = (logits.rows(), logits.cols());
        let places = weights.len();
        let call = RouteCall::new(logits, self.routing, weights, experts)?;
        // It reads memory as log-sum-exp does.
        let plan = self.exec.plan_work::<T>(Work::LogSumExp, Shape::new(rows, cols))?;
        // There may be any number of rows without elements; with k = 0 they have no experts.
        if rows == 0 || places == 0 {
            return Ok(());
        }
        let done = self.exec.crew().share(
            plan.threads,
            plan.parts.min(rows),
            call,
            &|call: RouteCall<T>, at, of| {
                let at = part_of(call.rows(), at, of);
                call.split_rows(at)
            },
            &|call| plan.kernel.route(call),
            &|a, b| a && b,
        );
        if done { Ok(()) } else { Err(Error::memory(cols)) }
    }

    /// The options, for sizes of scratch memory.
    pub(crate) fn routing(&self) -> &Routing<'a> {
        &self.routing
    }
}
