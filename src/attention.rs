//! Softmax of attention scores.

use softmax_kernels::{
    Attend, Element, Mask, Masked, Matrix, MatrixMut, Op as Work, Probs, Scale, Scores,
    in_default_environment, part_of, room_for, with_room,
};

use crate::exec::exec_setter;
use crate::factor::Factor;
use crate::lanes::TILE;
use crate::{Error, Exec, Plan, Shape};

/// The softmax of attention scores, with scale, masks, biases, caps and sinks in one pass over the
/// scores.
///
/// Scores are a matrix. Its rows are those of a tensor of batch, heads, queries and keys, in C
/// order: row `(b * heads + h) * queries + q` has the scores of query `q` of head `h`, one for each
/// key. The batch may have any number of sequences. With all options the logit of the score `x` of
/// a key is
///
/// ```text
/// z = cap(scale * x) + mask_slope[h] * mask[b, h, q, key] + alibi[h] * (key - position(q))      cap(u) = c tanh(u / c)
/// ```
///
/// and `p = exp(z) / (exp(sink[h]) + sum exp(z))` over the keys that the query sees; other keys get
/// exactly 0. Keys that causality, windows and lengths hide are not read, only written as 0
/// (`docs/attention.md` has the time that this saves).
///
/// Error: that of [`Softmax::softmax`] in the type of the probabilities, for exact logits, if these
/// are below 45,000 (f16 from 16,384 on: 0.54 ULP). Larger logits are rounded to the type first and
/// may exceed its range. In f64 a soft cap `c` adds up to `1.25 c` ULP. Log-sum-exps have the error
/// of [`Softmax::logsumexp`] in f32 or f64; with probabilities of f16 and bf16 it is at most 2 ULP
/// or 2e-5, whichever is larger. The bits are the same everywhere, and those of a whole row with
/// -inf where a key is hidden.
///
/// Hidden keys may have any score, NaN too, whether they are hidden by a range of keys, a mask of
/// bool, -inf in a mask (with any slope), or -inf from ALiBi. A row that sees NaN or `+inf` is NaN
/// in all columns.
///
/// ```
/// use softmax::{Attention, Matrix, MatrixMut};
///
/// // One sequence, one head, two queries, three keys: the queries are the last two tokens.
/// let scores = [1.0f32, 1.0, 7.0, 2.0, 2.0, 2.0];
/// let mut probs = [0.0f32; 6];
/// let (x, y) = (Matrix::new(&scores, 3)?, MatrixMut::new(&mut probs, 3)?);
/// Attention::new(1, 2).causal().softmax(x, y)?;
/// assert_eq!(probs[..3], [0.5, 0.5, 0.0]);
/// assert_eq!(probs[3..], [1.0 / 3.0; 3]);
/// # Ok::<(), softmax::Error>(())
/// ```
///
/// [`Softmax::softmax`]: crate::Softmax::softmax
/// [`Softmax::logsumexp`]: crate::Softmax::logsumexp
#[derive(Clone, Copy, Debug)]
pub struct Attention<'a> {
    /// Its scale is 1; `factor` has the scale.
    pub(crate) attend: Attend<'a>,
    pub(crate) factor: Factor,
    pub(crate) exec: Exec<'a>,
}

impl<'a> Attention<'a> {
    /// For this number of heads, and of queries for each head. The default is the plain softmax of
    /// every row.
    ///
    /// ```
    /// use softmax::{Attention, MatrixMut};
    /// // Two sequences, two heads, one query, two keys: four rows.
    /// let mut x = [1.0f32; 8];
    /// Attention::new(2, 1).softmax_in_place(MatrixMut::new(&mut x, 2)?)?;
    /// assert_eq!(x, [0.5; 8]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    pub const fn new(heads: usize, queries: usize) -> Self {
        Self { attend: Attend::new(heads, queries), factor: Factor::One, exec: Exec::new() }
    }

    /// Multiplies the scores by `scale`, usually `1 / sqrt(d)`, where `d` is the size of a head.
    /// Calls refuse scales outside `2^-60..=2^60`. The last call of this or
    /// [`Attention::temperature`] counts.
    ///
    /// Scales below 0 have the bits of the negated scores by the scale without its sign; caps,
    /// masks and biases come after that. They take longer, because all scores are copied, the
    /// hidden ones, too.
    ///
    /// ```
    /// use softmax::{Attention, MatrixMut};
    /// let mut x = [0.0f32, 8.0];
    /// Attention::new(1, 1).scale(0.125).softmax_in_place(MatrixMut::new(&mut x, 2)?)?;
    /// // 1 / (1 + e)
    /// assert!((x[0] - 0.268_941_4).abs() < 1e-7);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    #[must_use]
    pub const fn scale(mut self, scale: f64) -> Self {
        self.factor = Factor::scale(scale);
        self
    }

    /// Divides the scores by `temperature`, like [`Attention::scale`] with its inverse, but without
    /// rounding the inverse. It must be above 0 and finite, or calls refuse it.
    ///
    /// ```
    /// use softmax::{Attention, MatrixMut};
    /// let mut x = [0.0f32, 8.0];
    /// Attention::new(1, 1).temperature(8.0).softmax_in_place(MatrixMut::new(&mut x, 2)?)?;
    /// // 1 / (1 + e)
    /// assert!((x[0] - 0.268_941_4).abs() < 1e-7);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    #[must_use]
    pub const fn temperature(mut self, temperature: f64) -> Self {
        self.factor = Factor::temperature(temperature);
        self
    }

    /// Applies a soft cap to the scaled scores, before masks and biases: `c * tanh(x / c)`. Calls
    /// refuse caps outside `2^-20..=2^20`.
    ///
    /// ```
    /// use softmax::{Attention, MatrixMut};
    /// // Both are capped to nearly 1.
    /// let mut x = [50.0f32, 90.0];
    /// Attention::new(1, 1).soft_cap(1.0).softmax_in_place(MatrixMut::new(&mut x, 2)?)?;
    /// assert_eq!(x, [0.5; 2]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    #[must_use]
    pub const fn soft_cap(mut self, c: f64) -> Self {
        self.attend.cap = Some(c);
        self
    }

    /// Adds a mask to the logits, or hides keys where it is `false`. Without other options, a row
    /// of a mask that has only 0 and -inf gives the bits of one with booleans. It is as fast,
    /// except that more is read.
    ///
    /// ```
    /// use softmax::{Attention, MatrixMut, Mask};
    /// let mut x = [2.0f32, 1.0, 7.0];
    /// let mask = [0.0f32, 1.0, f32::NEG_INFINITY];
    /// let attention = Attention::new(1, 1).mask(Mask::new(&mask[..], [1, 1, 1]));
    /// attention.softmax_in_place(MatrixMut::new(&mut x, 3)?)?;
    /// assert_eq!(x, [0.5, 0.5, 0.0]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    #[must_use]
    pub const fn mask(mut self, mask: Mask<'a>) -> Self {
        self.attend.mask = Some(mask);
        self
    }

    /// Multiplies each head's mask by its own slope, as ggml does with `max_bias`.
    ///
    /// ```
    /// use softmax::{Attention, MatrixMut, Mask};
    /// // Two heads, one query each.
    /// let mut x = [0.0f32, 0.0, 0.0, 1.0];
    /// let mask = Mask::new(&[1.0f32, 0.0][..], [1, 1, 1]);
    /// let attention = Attention::new(2, 1).mask(mask).mask_slopes(&[0.0, 1.0]);
    /// attention.softmax_in_place(MatrixMut::new(&mut x, 2)?)?;
    /// assert_eq!(x, [0.5; 4]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    #[must_use]
    pub const fn mask_slopes(mut self, slopes: &'a [f32]) -> Self {
        self.attend.mask_slopes = Some(slopes);
        self
    }

    /// ALiBi: adds each head's slope times the distance of the key from the query's position, which
    /// is negative for earlier keys. Source: Press et al., Train Short, Test Long, 2021.
    ///
    /// Calls refuse distances above 2^24 - 16 (f64: 2^53 - 16) for keys that causality and windows
    /// leave; up to there the type has all integers.
    ///
    /// ```
    /// use softmax::{Attention, MatrixMut};
    /// // Keys at distances -1 and 0.
    /// let mut x = [0.5f32, 0.0];
    /// let attention = Attention::new(1, 1).alibi(&[0.5]);
    /// attention.softmax_in_place(MatrixMut::new(&mut x, 2)?)?;
    /// assert_eq!(x, [0.5; 2]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    #[must_use]
    pub const fn alibi(mut self, slopes: &'a [f32]) -> Self {
        self.attend.slopes = Some(slopes);
        self
    }

    /// Sets each head's sink: a logit that takes a share of the mass and has no output. `-inf` is
    /// no sink; 0 for all heads is "smooth softmax", with `1 +` in the denominator.
    ///
    /// ```
    /// use softmax::{Attention, MatrixMut};
    /// let mut x = [0.0f32; 3];
    /// Attention::new(1, 1).sinks(&[0.0]).softmax_in_place(MatrixMut::new(&mut x, 3)?)?;
    /// assert_eq!(x, [0.25; 3]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    #[must_use]
    pub const fn sinks(mut self, sinks: &'a [f32]) -> Self {
        self.attend.sinks = Some(sinks);
        self
    }

    /// The number of valid keys: one number for each sequence of the batch, or one for each row.
    /// Numbers above the number of keys mean all.
    ///
    /// ```
    /// use softmax::{Attention, MatrixMut};
    /// // Two sequences; the second has one key less.
    /// let mut x = [0.0f32; 4];
    /// Attention::new(1, 1).lengths(&[2, 1]).softmax_in_place(MatrixMut::new(&mut x, 2)?)?;
    /// assert_eq!(x, [0.5, 0.5, 1.0, 0.0]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    #[must_use]
    pub const fn lengths(mut self, lengths: &'a [usize]) -> Self {
        self.attend.lengths = Some(lengths);
        self
    }

    /// Hides the keys after the query's position.
    ///
    /// Query `q` is at position `offset + q` and sees the keys `0..=offset + q`. Libraries agree if
    /// there are as many queries as keys. Otherwise, for `queries` and `keys`:
    ///
    /// | whose | the same here |
    /// |---|---|
    /// | FlashAttention: the queries are the last tokens (bottom-right) | `causal()`: [`Attention::offset`] is `keys - queries` |
    /// | PyTorch's `scaled_dot_product_attention(is_causal=True)`: query 0 is token 0 (top-left) | `causal().offset(0)` |
    /// | ONNX's `Attention` with `is_causal`, neither `past_key` nor `nonpad_kv_seqlen` | `causal().offset(0)` |
    /// | that with a `past_key` of `past` tokens (`keys` counts them) | `causal().offset(past)` |
    /// | that with `nonpad_kv_seqlen` and no `past_key` | `causal()`, [`lengths`](Attention::lengths) that are `nonpad_kv_seqlen`, and [`offsets`](Attention::offsets) that are each less `queries` |
    ///
    /// ```
    /// use softmax::{Attention, Matrix, MatrixMut};
    /// // Two queries, three keys, and which of them each query sees.
    /// let seen = |attention: Attention| {
    ///     let mut probs = [0.0f32; 6];
    ///     attention.softmax(Matrix::new(&[0.0; 6], 3)?, MatrixMut::new(&mut probs, 3)?)?;
    ///     Ok::<_, softmax::Error>(probs.map(|p| p > 0.0))
    /// };
    /// let causal = Attention::new(1, 2).causal();
    /// assert_eq!(seen(causal)?, [true, true, false, true, true, true]);
    /// assert_eq!(seen(causal.offset(0))?, [true, false, false, true, true, false]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    #[must_use]
    pub const fn causal(mut self) -> Self {
        self.attend.causal = true;
        self
    }

    /// Hides the keys up to the query's position except the last `keys`, its own among them. It
    /// does not change keys after the position: [`Attention::causal`] or
    /// [`Attention::window_ahead`] hide those.
    ///
    /// ```
    /// use softmax::{Attention, Matrix, MatrixMut};
    /// // One query at position 3 of five keys.
    /// let attention = Attention::new(1, 1).offset(3).window(2);
    /// let probs = |attention: Attention| {
    ///     let mut probs = [0.0f32; 5];
    ///     attention.softmax(Matrix::new(&[7.0; 5], 5)?, MatrixMut::new(&mut probs, 5)?)?;
    ///     Ok::<_, softmax::Error>(probs)
    /// };
    /// assert_eq!(probs(attention)?, [0.0, 0.0, 1.0 / 3.0, 1.0 / 3.0, 1.0 / 3.0]);
    /// assert_eq!(probs(attention.causal())?, [0.0, 0.0, 0.5, 0.5, 0.0]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    #[must_use]
    pub const fn window(mut self, keys: usize) -> Self {
        self.attend.window = Some(keys);
        self
    }

    /// Hides the keys after the query's position except the first `keys`. 0 is the same as
    /// [`Attention::causal`], and together with that any number changes nothing. Together with
    /// [`Attention::window`] the window extends to both sides.
    ///
    /// ```
    /// use softmax::{Attention, Matrix, MatrixMut};
    /// let mut probs = [0.0f32; 5];
    /// let scores = Matrix::new(&[7.0f32; 5], 5)?;
    /// // The keys 1 and 2 up to position 2, and one after it.
    /// let attention = Attention::new(1, 1).offset(2).window(2).window_ahead(1);
    /// attention.softmax(scores, MatrixMut::new(&mut probs, 5)?)?;
    /// assert_eq!(probs, [0.0, 1.0 / 3.0, 1.0 / 3.0, 1.0 / 3.0, 0.0]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    #[must_use]
    pub const fn window_ahead(mut self, keys: usize) -> Self {
        self.attend.window_ahead = Some(keys);
        self
    }

    /// The position of the first query among the keys, in every sequence. By default the queries
    /// are the last tokens: `keys - queries`. The last call of this or [`Attention::offsets`]
    /// counts.
    ///
    /// ```
    /// use softmax::{Attention, Matrix, MatrixMut};
    /// // Two queries at positions 1 and 2 of four keys.
    /// let mut probs = [0.0f32; 8];
    /// let (x, y) = (Matrix::new(&[7.0; 8], 4)?, MatrixMut::new(&mut probs, 4)?);
    /// Attention::new(1, 2).causal().offset(1).softmax(x, y)?;
    /// assert_eq!(probs[..4], [0.5, 0.5, 0.0, 0.0]);
    /// assert_eq!(probs[4..], [1.0 / 3.0, 1.0 / 3.0, 1.0 / 3.0, 0.0]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    #[must_use]
    pub const fn offset(mut self, offset: isize) -> Self {
        self.attend.offset = Some(offset);
        self.attend.offsets = None;
        self
    }

    /// [`Attention::offset`] for each sequence of the batch, if sequences of different lengths
    /// share a batch: the number of tokens before its first query. Or one for each row: the
    /// position of its query. Their number decides, as for [`Attention::lengths`].
    ///
    /// ```
    /// use softmax::{Attention, Matrix, MatrixMut};
    /// // Two sequences, one head, one new token each: after three tokens and after one.
    /// let mut probs = [0.0f32; 8];
    /// let (x, y) = (Matrix::new(&[7.0; 8], 4)?, MatrixMut::new(&mut probs, 4)?);
    /// Attention::new(1, 1).causal().offsets(&[3, 1]).softmax(x, y)?;
    /// assert_eq!(probs[..4], [0.25; 4]);
    /// assert_eq!(probs[4..], [0.5, 0.5, 0.0, 0.0]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    #[must_use]
    pub const fn offsets(mut self, offsets: &'a [isize]) -> Self {
        self.attend.offset = None;
        self.attend.offsets = Some(offsets);
        self
    }

    /// What the result is for rows that see no key and have no sink.
    ///
    /// ```
    /// use softmax::{Attention, MatrixMut, Masked};
    /// let mut x = [0.0f32; 2];
    /// let attention = Attention::new(1, 1).lengths(&[0]).masked(Masked::Zero);
    /// attention.softmax_in_place(MatrixMut::new(&mut x, 2)?)?;
    /// assert_eq!(x, [0.0; 2]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    #[must_use]
    pub const fn masked(mut self, masked: Masked) -> Self {
        self.attend.masked = masked;
        self
    }

    exec_setter!();

    /// The probabilities of `scores`. They may have another type: f16 or bf16 from f32, or f32 from
    /// f16 or bf16.
    ///
    /// ```
    /// use softmax::{Attention, Matrix, MatrixMut, half::bf16};
    /// // Scores of f32, probabilities of bf16.
    /// let mut probs = [bf16::ZERO; 2];
    /// let scores = Matrix::new(&[3.0f32, 3.0], 2)?;
    /// Attention::new(1, 1).softmax(scores, MatrixMut::new(&mut probs, 2)?)?;
    /// assert_eq!(probs.map(f32::from), [0.5; 2]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Shape`] if shapes or lengths of options do not fit, [`Error::Value`] if a number is
    /// out of its range, [`Error::Memory`] if there is none for one row, or a kernel that cannot
    /// run.
    pub fn softmax<T: Element, U: Probs<T>>(
        &self,
        scores: Matrix<T>,
        probs: MatrixMut<U>,
    ) -> Result<(), Error> {
        self.run(|scale| Scores::new(scores, probs, None, &self.attend, scale), false, false)
    }

    /// [`Attention::softmax`], and the log-sum-exp of each row's logits, including its sink; `-inf`
    /// for rows that see no key and have no sink. Its type is f32, or f64 for f64.
    ///
    /// Error: that of [`Softmax::logsumexp`] in these types, for exact logits; or 2e-5 if the
    /// probabilities are f16 or bf16. In f64 a soft cap `c` adds up to `0.61 c` 2^-53. Logits above
    /// 45,000 are rounded first.
    ///
    /// ```
    /// use softmax::{Attention, Matrix, MatrixMut};
    ///
    /// let (mut probs, mut lse) = ([0.0f32; 2], [0.0f32; 1]);
    /// let scores = Matrix::new(&[3.0f32, 3.0], 2)?;
    /// let y = MatrixMut::new(&mut probs, 2)?;
    /// Attention::new(1, 1).softmax_and_logsumexp(scores, y, &mut lse)?;
    /// assert_eq!(lse, [3.0 + std::f32::consts::LN_2]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Attention::softmax`].
    ///
    /// [`Softmax::logsumexp`]: crate::Softmax::logsumexp
    pub fn softmax_and_logsumexp<T: Element, U: Probs<T>>(
        &self,
        scores: Matrix<T>,
        probs: MatrixMut<U>,
        logsumexp: &mut [T::Arithmetic],
    ) -> Result<(), Error> {
        self.run(
            |scale| Scores::new(scores, probs, Some(logsumexp), &self.attend, scale),
            false,
            true,
        )
    }

    /// [`Attention::softmax`] in place. The same bits.
    ///
    /// ```
    /// use softmax::{Attention, MatrixMut};
    /// // Two queries: the last two tokens.
    /// let mut x = [7.0f32; 4];
    /// Attention::new(1, 2).causal().softmax_in_place(MatrixMut::new(&mut x, 2)?)?;
    /// assert_eq!(x, [1.0, 0.0, 0.5, 0.5]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Attention::softmax`].
    pub fn softmax_in_place<T: Probs<T>>(&self, scores: MatrixMut<T>) -> Result<(), Error> {
        self.run(|scale| Scores::in_place(scores, None, &self.attend, scale), true, false)
    }

    /// [`Attention::softmax_and_logsumexp`] in place. The same bits.
    ///
    /// ```
    /// use softmax::{Attention, MatrixMut};
    /// let (mut x, mut lse) = ([3.0f32; 2], [0.0]);
    /// let attention = Attention::new(1, 1);
    /// attention.softmax_and_logsumexp_in_place(MatrixMut::new(&mut x, 2)?, &mut lse)?;
    /// assert_eq!((x, lse), ([0.5; 2], [3.0 + std::f32::consts::LN_2]));
    /// # Ok::<(), softmax::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Attention::softmax`].
    pub fn softmax_and_logsumexp_in_place<T: Probs<T>>(
        &self,
        scores: MatrixMut<T>,
        logsumexp: &mut [T::Arithmetic],
    ) -> Result<(), Error> {
        self.run(|scale| Scores::in_place(scores, Some(logsumexp), &self.attend, scale), true, true)
    }

    pub(crate) fn check_scale(&self) -> Result<(), Error> {
        self.factor.check_finite()
    }

    pub(crate) fn plan<U: Element>(&self, shape: Shape) -> Result<Plan, Error> {
        self.exec.plan_work::<U>(Work::Softmax, shape)
    }

    fn run<'m, T: Element, U: Probs<T>>(
        &self,
        scores: impl FnOnce(Scale) -> Result<Scores<'m, T, U>, Error>,
        in_place: bool,
        lse: bool,
    ) -> Result<(), Error> {
        let (factor, negative) = self.factor.unsigned();
        let scale = factor.finite()?;
        let scores = in_default_environment(|| scores(scale))?;
        let (rows, cols) = (scores.rows(), scores.cols());
        let plan = self.plan::<U>(Shape::new(rows, cols).in_place_if(in_place))?;
        // There may be any number of rows without keys; they have no probabilities. Without rows no
        // memory is needed.
        if rows == 0 || (cols == 0 && !lse) {
            return Ok(());
        }
        let kernel = plan.kernel;
        if negative {
            return self.negative(&plan, scores);
        }
        let done = self.exec.crew().share(
            plan.threads,
            plan.parts.min(rows),
            scores.storing(plan.store),
            &|scores, at, of| {
                let at = part_of(scores.rows(), at, of);
                scores.split_rows(at)
            },
            &|scores: Scores<T, U>| kernel.attend(scores),
            &|a, b| a && b,
        );
        if done { Ok(()) } else { Err(Error::memory(cols)) }
    }

    /// Computes the negated scores. A function of its own, so that its frames are not on the stack
    /// of others.
    #[cold]
    #[inline(never)]
    fn negative<T: Element, U: Probs<T>>(
        &self,
        plan: &Plan,
        scores: Scores<T, U>,
    ) -> Result<(), Error> {
        let (rows, cols) = (scores.rows(), scores.cols());
        let kernel = plan.kernel;
        let done = self.exec.crew().share(
            plan.threads,
            plan.parts.min(rows),
            scores,
            &|scores: Scores<T, U>, at, of| {
                let at = part_of(scores.rows(), at, of);
                scores.split_rows(at)
            },
            &|scores| negated(scores, |scores| kernel.attend(scores)),
            &|a, b| a && b,
        );
        if done { Ok(()) } else { Err(Error::memory(cols)) }
    }

    /// Bytes of scratch memory for the negative of some rows, if they are needed.
    pub(crate) fn room_for_negated<T: Element>(&self, shape: Shape) -> usize {
        if !self.factor.is_negative() {
            return 0;
        }
        room_for::<T>(negated_at_a_time::<T>(shape.rows, shape.cols).saturating_mul(shape.cols))
    }
}

/// How many rows are negated at a time.
fn negated_at_a_time<T>(rows: usize, cols: usize) -> usize {
    (TILE / size_of::<T>() / cols.max(1)).max(1).min(rows)
}

/// Computes the negated scores, some rows at a time, in scratch memory.
#[cold]
fn negated<T: Element, U: Probs<T>>(
    mut scores: Scores<T, U>,
    attend: impl Fn(Scores<T, U>) -> bool,
) -> bool {
    while scores.rows() > 0 {
        let n = negated_at_a_time::<T>(scores.rows(), scores.cols());
        let (part, others) = scores.split_rows(n);
        let done = with_room(n * part.cols(), |room: &mut [T]| attend(part.negated(room)));
        if done != Some(true) {
            return false;
        }
        scores = others;
    }
    true
}
