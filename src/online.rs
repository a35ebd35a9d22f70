//! Softmax of attention scores in tiles, which are never stored as a whole.

use softmax_kernels::{
    Error, MatrixMut, OnlineRow, TileCall, TilePlace, Weight, finish_rows, in_default_environment,
    merge_outputs, with_room,
};

use crate::{Attention, Matrix};

/// The softmax of attention scores that are never stored as a whole: a call for each tile of them,
/// as FlashAttention does it. Made by [`Attention::online`], with all its options.
///
/// A tile is some rows (queries) and some keys of the whole matrix of scores that [`Attention`]
/// describes. Each row has an [`OnlineRow`], its state; the state of new rows is
/// [`OnlineRow::NEW`]. For every tile
///
/// 1. the caller computes the scores, `Q K^T`;
/// 2. [`tile`](OnlineSoftmax::tile) turns them into weights, and gives a factor for each row;
/// 3. the caller multiplies what the row has accumulated by its factor, and adds the weights times
///    the values.
///
/// At the end [`finish`](OnlineSoftmax::finish) gives the number that each row's accumulator is to
/// be multiplied by, and the log-sum-exp.
///
/// **Weights** are `c 2^-M exp(z)` for the logit `z` of a key that the row sees, and 0 for others;
/// `c` is the same number for all, about 1.09, and `M` an integer: the row's shift. The largest
/// weight of a row is between 2^5 and 2^15. Where a tile has so large a logit that this needs
/// another shift, the **factor** is `2^(old M - new M)`, a power of two, so that nothing is
/// rounded; it is 0 if that is below 2^-125. Else it is 1, as in nearly all tiles. It is 0 too as
/// long as the row has seen nothing before the tile: 0 may be taken to mean that the accumulator is
/// overwritten.
///
/// **Error**: a weight of f32, relative to `c 2^-M exp(z)`, is at most 1.08 x 2^-24 off, and the
/// others have one rounding more. A weight times the reciprocal, rounded to f32, is within 4 ULP of
/// the probability that `Attention` has for exact logits. Weights below 2^-126 of the largest that
/// the row has seen until then are 0.
///
/// **Bits**: the same on every CPU. For tiles in the order of keys they do not depend on where
/// tiles are cut, at which key or row; the sum is that of the row in one tile. See
/// `docs/attention.md` for what this includes and what not.
///
/// It runs on the thread that calls, and needs no memory (but for a scale below 0, with which tiles
/// are copied to scratch memory). Rows may be on as many threads as one likes.
///
/// ```
/// use softmax::{Attention, Matrix, MatrixMut, OnlineRow};
///
/// // One head, one query, four keys, in two tiles; the values are single numbers.
/// let (scores, values) = ([1.0f32, 2.0, 3.0, 4.0], [1.0f32, 1.0, 0.0, 0.0]);
/// let online = Attention::new(1, 1).online(1, 4);
/// let (mut state, mut factor, mut sum) = ([OnlineRow::NEW], [0.0], 0.0);
/// for key in [0, 2] {
///     let mut weights = [0.0f32; 2];
///     let tile = Matrix::new(&scores[key..key + 2], 2)?;
///     let y = MatrixMut::new(&mut weights, 2)?;
///     online.tile((0, key), tile, y, &mut state, &mut factor)?;
///     sum = sum * factor[0] + weights[0] * values[key] + weights[1] * values[key + 1];
/// }
/// let (mut reciprocal, mut lse) = ([0.0], [0.0]);
/// online.finish(0, &state, &mut reciprocal, Some(&mut lse))?;
/// let expected = softmax::probs(&scores)?;
/// assert!((sum * reciprocal[0] - (expected[0] + expected[1])).abs() < 1e-7);
/// assert_eq!(lse[0], softmax::logsumexp(&scores)?);
/// # Ok::<(), softmax::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct OnlineSoftmax<'a> {
    attention: Attention<'a>,
    /// Rows and keys of the whole.
    of: (usize, usize),
}

impl<'a> Attention<'a> {
    /// The same softmax by tiles of the scores, of which there are `rows` and `keys` in the whole.
    ///
    /// ```
    /// use softmax::{Attention, MatrixMut, OnlineRow};
    /// // Two queries, the last of three tokens; the tile of the first query and the last two keys.
    /// let online = Attention::new(1, 2).causal().online(2, 3);
    /// let (mut x, mut state, mut factor) = ([7.0f32; 2], [OnlineRow::NEW], [9.0]);
    /// online.tile_in_place((0, 1), MatrixMut::new(&mut x, 2)?, &mut state, &mut factor)?;
    /// assert!(x[0] > 0.0 && x[1] == 0.0);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    #[must_use]
    pub const fn online(self, rows: usize, keys: usize) -> OnlineSoftmax<'a> {
        OnlineSoftmax { attention: self, of: (rows, keys) }
    }
}

impl OnlineSoftmax<'_> {
    /// The weights of a tile of `scores`, whose first row and first key are numbers `first` of the
    /// whole; and for each row the factor of what it has accumulated before.
    ///
    /// A row that sees no key of the tile gets weights 0, and factor 1 (0 if it has seen none
    /// before). A row that has seen NaN or `+inf` gets NaN.
    ///
    /// ```
    /// use softmax::{Attention, Matrix, MatrixMut, OnlineRow, half::bf16};
    /// let online = Attention::new(1, 1).online(1, 2);
    /// let (mut weights, mut state, mut factor) = ([bf16::ZERO; 2], [OnlineRow::NEW], [9.0]);
    /// let scores = Matrix::new(&[3.0, 3.0], 2)?;
    /// let y = MatrixMut::new(&mut weights, 2)?;
    /// online.tile((0, 0), scores, y, &mut state, &mut factor)?;
    /// assert_eq!(weights[0], weights[1]);
    /// assert_eq!(factor, [0.0]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Shape`] if shapes or lengths do not fit, [`Error::Value`] if the tile reaches
    /// beyond the whole or a number is out of its range, or a kernel that cannot run.
    /// [`Error::Memory`] if the scale is below 0.
    pub fn tile<U: Weight>(
        &self,
        first: (usize, usize),
        scores: Matrix<f32>,
        weights: MatrixMut<U>,
        states: &mut [OnlineRow],
        factors: &mut [f32],
    ) -> Result<(), Error> {
        let place = TilePlace { first, of: self.of };
        let attend = &self.attention.attend;
        let (factor, negative) = self.attention.factor.unsigned();
        let of = (attend, factor.finite()?);
        let call =
            in_default_environment(|| TileCall::new(scores, weights, place, states, factors, of));
        self.weigh(call?, negative)
    }

    /// [`OnlineSoftmax::tile`] in place. The same bits.
    ///
    /// ```
    /// use softmax::{Attention, MatrixMut, OnlineRow};
    /// let online = Attention::new(1, 1).online(1, 2);
    /// let (mut x, mut state, mut factor) = ([3.0f32; 2], [OnlineRow::NEW], [9.0]);
    /// online.tile_in_place((0, 0), MatrixMut::new(&mut x, 2)?, &mut state, &mut factor)?;
    /// assert_eq!(f64::from(x[0] + x[1]), state[0].sum());
    /// # Ok::<(), softmax::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`OnlineSoftmax::tile`].
    pub fn tile_in_place(
        &self,
        first: (usize, usize),
        scores: MatrixMut<f32>,
        states: &mut [OnlineRow],
        factors: &mut [f32],
    ) -> Result<(), Error> {
        let place = TilePlace { first, of: self.of };
        let attend = &self.attention.attend;
        let (factor, negative) = self.attention.factor.unsigned();
        let of = (attend, factor.finite()?);
        let call =
            in_default_environment(|| TileCall::in_place(scores, place, states, factors, of));
        self.weigh(call?, negative)
    }

    fn weigh<U: Weight>(&self, call: TileCall<U>, negative: bool) -> Result<(), Error> {
        let kernel = self.attention.exec.ready()?;
        if !negative {
            kernel.weigh(call);
            return Ok(());
        }
        let n = call.rows().saturating_mul(call.cols());
        let done = with_room(n, |room: &mut [f32]| kernel.weigh(call.negated(room)));
        done.ok_or(Error::memory(n))
    }

    /// For each of some rows, of which `first` is the first in the whole: the number by which its
    /// accumulator has to be multiplied, one divided by the sum of its weights and its sink; and,
    /// if wanted, the log-sum-exp of its logits with its sink.
    ///
    /// Error: the reciprocal is within 0.51 ULP of that of the sum of the weights of f32. Of a row
    /// without a key and a sink it is NaN, or 0 with [`Masked::Zero`](crate::Masked::Zero), and the
    /// log-sum-exp `-inf`; of one that has nothing but a sink it is 0. Log-sum-exps are within 2
    /// ULP or 1e-7, whichever is larger; with biases, caps, or a mask that adds within 2 ULP or
    /// 2e-7; beyond 45,000 of logits that are rounded to f32 first.
    ///
    /// ```
    /// use softmax::{Attention, Masked, OnlineRow};
    /// let (mut reciprocal, mut lse) = ([9.0], [9.0]);
    /// let online = Attention::new(1, 1).masked(Masked::Zero).online(1, 8);
    /// online.finish(0, &[OnlineRow::NEW], &mut reciprocal, Some(&mut lse))?;
    /// assert_eq!((reciprocal, lse), ([0.0], [f32::NEG_INFINITY]));
    /// # Ok::<(), softmax::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`OnlineSoftmax::tile`], but for memory.
    pub fn finish(
        &self,
        first: usize,
        states: &[OnlineRow],
        reciprocals: &mut [f32],
        logsumexp: Option<&mut [f32]>,
    ) -> Result<(), Error> {
        self.attention.check_scale()?;
        let place = TilePlace { first: (first, 0), of: self.of };
        let attend = &self.attention.attend;
        in_default_environment(|| finish_rows(attend, place, states, reciprocals, logsumexp))
    }

    /// Merges states of the same rows that have seen different keys, `others` later ones: on other
    /// threads, or other machines (see [`OnlineRow::to_array`]). What either has accumulated has to
    /// be multiplied by its factors, powers of two; then they are added.
    ///
    /// ```
    /// use softmax::{Attention, MatrixMut, OnlineRow, OnlineSoftmax};
    /// let online = Attention::new(1, 1).online(1, 2);
    /// let (mut x, mut states, mut factor) = ([0.0f32, 50.0], [OnlineRow::NEW; 2], [0.0]);
    /// for key in 0..2 {
    ///     let x = MatrixMut::new(&mut x[key..key + 1], 1)?;
    ///     online.tile_in_place((0, key), x, &mut states[key..key + 1], &mut factor)?;
    /// }
    /// let ([state, other], mut factors) = (&mut states, ([0.0], [0.0]));
    /// OnlineSoftmax::merge(
    ///     std::slice::from_mut(state),
    ///     std::slice::from_ref(other),
    ///     &mut factors.0,
    ///     &mut factors.1,
    /// )?;
    /// // 50 / ln 2 is 72.1.
    /// assert_eq!(factors, ([2f32.powi(-72)], [1.0]));
    /// # Ok::<(), softmax::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Shape`] if the lengths differ.
    pub fn merge(
        states: &mut [OnlineRow],
        others: &[OnlineRow],
        factors: &mut [f32],
        other_factors: &mut [f32],
    ) -> Result<(), Error> {
        let n = states.len();
        for (what, len) in [
            ("number of other states (one for each)", others.len()),
            ("number of factors (one for each state)", factors.len()),
            ("number of factors of the others (one for each state)", other_factors.len()),
        ] {
            if len != n {
                return Err(Error::count(what, n, len));
            }
        }
        let factors = factors.iter_mut().zip(other_factors);
        for ((state, other), (factor, other_factor)) in states.iter_mut().zip(others).zip(factors) {
            (*factor, *other_factor) = state.merge(other);
        }
        Ok(())
    }

    /// Merges outputs of attention over different keys, of whatever origin, by the log-sum-exps of
    /// their rows: `exp(lse_i - lse) output_i`, added, with `lse` the log-sum-exp of all, which is
    /// written, too. Unlike [`OnlineSoftmax::merge`] it rounds: once, from f64, and the
    /// log-sum-exps have been rounded before, which changes weights by up to `|lse| 2^-24`.
    ///
    /// A part whose log-sum-exp is `-inf` has seen no key, and its output is not read. Rows whose
    /// parts all are so become NaN, or 0 with [`Masked::Zero`](crate::Masked::Zero).
    ///
    /// ```
    /// use softmax::{Attention, Matrix, MatrixMut};
    /// // Two parts of a row of two columns, with a mass of 1 and 3.
    /// let (a, b, lse_b) = (Matrix::new(&[1.0, 0.0], 2)?, Matrix::new(&[0.0, 1.0], 2)?, 3f32.ln());
    /// let (mut out, mut lse) = ([0.0; 2], [0.0]);
    /// let online = Attention::new(1, 1).online(1, 8);
    /// let y = MatrixMut::new(&mut out, 2)?;
    /// online.merge_outputs(&[(a, &[0.0]), (b, &[lse_b])], y, &mut lse)?;
    /// assert!((out[0] - 0.25).abs() < 1e-7 && (lse[0] - 4f32.ln()).abs() < 1e-6);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Shape`] if shapes differ.
    pub fn merge_outputs(
        &self,
        parts: &[(Matrix<f32>, &[f32])],
        output: MatrixMut<f32>,
        logsumexp: &mut [f32],
    ) -> Result<(), Error> {
        let masked = self.attention.attend.masked;
        in_default_environment(|| merge_outputs(parts, masked, output, logsumexp))
    }
}
