//! Verification of drafted tokens.

use softmax_kernels::{
    CERTAIN, Call, Element, Masked, Matrix, MatrixMut, MergedPartials, Op as Work, Partial, Picks,
    Piece, Ragged, Ready, SPAN, Scale, arithmetic, excess, in_default_environment, is_prob,
    prob_units, room_for, with_room,
};

use super::random::{Bits, Stream};
use super::{NONE, NUMBERS, Temperature};
use crate::exec::exec_setter;
use crate::ragged::one;
use crate::{Error, Exec, Plan, Shape};

/// The rows of the target model: one for each drafted token, and one more for each sequence.
///
/// ```
/// use softmax::{Matrix, TargetRows};
/// let rows = TargetRows::Logits(Matrix::new(&[1.0f32, 3.0, 2.0], 3)?);
/// # Ok::<(), softmax::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum TargetRows<'a, T> {
    /// Logits, which are divided by the temperature.
    Logits(Matrix<'a, T>),
    /// Probabilities that add up to 1 but for rounding; the temperature does not change them.
    Probs(Matrix<'a, T>),
}

impl<'a, T: Copy> TargetRows<'a, T> {
    fn matrix(self) -> Matrix<'a, T> {
        match self {
            Self::Logits(rows) | Self::Probs(rows) => rows,
        }
    }

    fn split_rows(self, at: usize) -> (Self, Self) {
        let (a, b) = self.matrix().split_rows(at);
        match self {
            Self::Logits(_) => (Self::Logits(a), Self::Logits(b)),
            Self::Probs(_) => (Self::Probs(a), Self::Probs(b)),
        }
    }

    fn row(self, row: usize) -> Given<'a, T> {
        match self {
            Self::Logits(rows) => Given::Logits(rows.row(row)),
            Self::Probs(rows) => Given::Probs(rows.row(row)),
        }
    }
}

/// The rows of the draft model, from which the tokens were drawn: one for each drafted token.
///
/// ```
/// use softmax::{DraftRows, Matrix};
/// let rows = DraftRows::Probs(Matrix::new(&[0.25f32, 0.5, 0.25], 3)?);
/// # Ok::<(), softmax::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum DraftRows<'a, T> {
    /// Logits, which are divided by the same temperature.
    Logits(Matrix<'a, T>),
    /// Probabilities that add up to 1 but for rounding.
    Probs(Matrix<'a, T>),
    /// No rows: each drafted token had probability 1. So for n-grams, lookups, and models that take
    /// their most likely token.
    OneHot,
}

impl<'a, T: Copy> DraftRows<'a, T> {
    fn matrix(self) -> Option<Matrix<'a, T>> {
        match self {
            Self::Logits(rows) | Self::Probs(rows) => Some(rows),
            Self::OneHot => None,
        }
    }

    fn split_rows(self, at: usize) -> (Self, Self) {
        match self {
            Self::OneHot => (Self::OneHot, Self::OneHot),
            Self::Logits(rows) => {
                let (a, b) = rows.split_rows(at);
                (Self::Logits(a), Self::Logits(b))
            }
            Self::Probs(rows) => {
                let (a, b) = rows.split_rows(at);
                (Self::Probs(a), Self::Probs(b))
            }
        }
    }

    fn row(self, row: usize) -> Option<Given<'a, T>> {
        match self {
            Self::Logits(rows) => Some(Given::Logits(rows.row(row))),
            Self::Probs(rows) => Some(Given::Probs(rows.row(row))),
            Self::OneHot => None,
        }
    }
}

/// Verifies the tokens that a draft model proposed: accepts some of them, and draws one more, so
/// that tokens have the distribution of the target model, whatever the draft is (speculative
/// decoding).
///
/// A sequence has `k` drafted tokens, which may be none, `k` rows of the draft model `q` from which
/// they were drawn, and `k + 1` rows of the target model `p`. From the first on, token `x` is
/// accepted with probability `min(1, p(x) / q(x))`. In place of the first that is not, a token is
/// drawn from the residual `max(p - q, 0)`, and the rest is dropped; if all are accepted, one more,
/// the bonus, is drawn from the last row of `p`. Sources: Leviathan et al., Fast Inference from
/// Transformers via Speculative Decoding, 2023; Chen et al., Accelerating Large Language Model
/// Decoding with Speculative Sampling, 2023.
///
/// At temperature 0 a token is accepted if it is the largest of its row of the target, the first of
/// several; otherwise that is the token in its place. No random number is used, nor the draft's
/// rows.
///
/// A sequence's tokens depend only on its rows, the options, the seed, its number and its step, so
/// they are the same on every CPU, with every kernel and number of threads, and for any division of
/// a batch. This is possible because probabilities count as integers, in units of 2^-52, whose sums
/// are exact. `docs/sampling.md` has the definition.
///
/// ```
/// use softmax::{DraftRows, Matrix, Ragged, SpeculativeSampler, TargetRows};
///
/// // Two sequences with two drafted tokens and one, from a vocabulary of three.
/// let drafted = Ragged::new(&[2usize, 1, 0], &[0usize, 2, 3])?;
/// let never = f32::NEG_INFINITY;
/// let target = [
///     0.0, 0.0, 9.0, /* */ never, 1.0, 2.0, /* */ 5.0, 0.0, 0.0, // the first sequence
///     never, 0.0, never, /* */ 1.0, 2.0, 3.0, // the second
/// ];
/// let draft = [0.0, 0.0, 1.0, /* */ 1.0, 1.0, 2.0, /* */ 2.0, 1.0, 0.0];
/// let target = TargetRows::Logits(Matrix::new(&target, 3)?);
/// let draft = DraftRows::Logits(Matrix::new(&draft, 3)?);
///
/// let (mut tokens, mut accepted) = ([0; 5], [0; 2]);
/// let sampler = SpeculativeSampler::new(42).temperature(0.8).step(17);
/// sampler.verify(target, draft, drafted, &mut tokens, &mut accepted)?;
/// // The target gives the first token more than the draft did, and so the second one.
/// assert_eq!((accepted[0], &tokens[..2]), (2, &[2, 1][..]));
/// // The second sequence's token is impossible; the only possible one is in its place.
/// assert_eq!((accepted[1], &tokens[3..]), (0, &[1, usize::MAX][..]));
/// # Ok::<(), softmax::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct SpeculativeSampler<'a> {
    seed: u64,
    step: u64,
    first_row: u64,
    temperature: f64,
    seeds: Option<&'a [u64]>,
    steps: Option<&'a [u64]>,
    temperatures: Option<&'a [f64]>,
    exec: Exec<'a>,
}

impl<'a> SpeculativeSampler<'a> {
    /// A sampler with this seed, of temperature 1 and step 0.
    ///
    /// ```
    /// use softmax::{DraftRows, Matrix, Ragged, SpeculativeSampler, TargetRows};
    /// let target = TargetRows::Probs(Matrix::new(&[0.5f32, 0.5, 1.0, 0.0], 2)?);
    /// let drafted = Ragged::new(&[1], &[0usize, 1])?;
    /// let (mut tokens, mut accepted) = ([9; 2], [9]);
    /// let sampler = SpeculativeSampler::new(1);
    /// sampler.verify(target, DraftRows::OneHot, drafted, &mut tokens, &mut accepted)?;
    /// // The drafted token and the only one that can follow, or the other one in its place.
    /// assert_eq!(tokens, if accepted == [1] { [1, 0] } else { [0, usize::MAX] });
    /// # Ok::<(), softmax::Error>(())
    /// ```
    pub const fn new(seed: u64) -> Self {
        Self {
            seed,
            step: 0,
            first_row: 0,
            temperature: 1.0,
            seeds: None,
            steps: None,
            temperatures: None,
            exec: Exec::new(),
        }
    }

    /// Divides logits by `temperature`, the target's and the draft's. 0 verifies greedily, also
    /// probabilities; infinity makes all tokens equally likely except those with logits of -inf.
    /// Calls refuse NaN and negative numbers. Numbers below 2^-100 count as 2^-100, those above
    /// 2^100 as 2^100. (A draft of another temperature gives its probabilities.)
    ///
    /// ```
    /// use softmax::{DraftRows, Matrix, Ragged, SpeculativeSampler, TargetRows};
    /// let target = TargetRows::Logits(Matrix::new(&[1.0f32, 3.0, 3.0, 2.0, 1.0, 2.0], 3)?);
    /// let drafted = Ragged::new(&[1], &[0usize, 1])?;
    /// let (mut tokens, mut accepted) = ([9; 2], [9]);
    /// let greedy = SpeculativeSampler::new(1).temperature(0.0);
    /// greedy.verify(target, DraftRows::OneHot, drafted, &mut tokens, &mut accepted)?;
    /// assert_eq!((tokens, accepted), ([1, 0], [1]));
    /// # Ok::<(), softmax::Error>(())
    /// ```
    #[must_use]
    pub const fn temperature(mut self, temperature: f64) -> Self {
        self.temperature = temperature;
        self
    }

    /// The position of each sequence's first drafted token, as for [`Sampler::step`]: the token
    /// after it has the next step, and so on. A position that a call decides is decided by no later
    /// one if the step is that of the next token. Calls refuse 2^48 and more.
    ///
    /// ```
    /// use softmax::{DraftRows, Matrix, Ragged, SpeculativeSampler, TargetRows};
    /// let probs = [0.001f64; 1000];
    /// let target = TargetRows::Probs(Matrix::new(&probs, 1000)?);
    /// let none = Ragged::new(&[], &[0usize, 0])?;
    /// let mut tokens = [0; 2];
    /// for (step, token) in tokens.iter_mut().enumerate() {
    ///     let sampler = SpeculativeSampler::new(1).step(step as u64);
    ///     let token = std::slice::from_mut(token);
    ///     sampler.verify(target, DraftRows::OneHot, none, token, &mut [0])?;
    /// }
    /// assert_ne!(tokens[0], tokens[1]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    ///
    /// [`Sampler::step`]: crate::Sampler::step
    #[must_use]
    pub const fn step(mut self, step: u64) -> Self {
        self.step = step;
        self
    }

    /// The number of the first sequence, for a batch in several calls. Calls refuse numbers of
    /// sequences of 2^48 and more.
    ///
    /// ```
    /// use softmax::{DraftRows, Matrix, Ragged, SpeculativeSampler, TargetRows};
    /// let probs = [0.001f64; 2000];
    /// let target = |n: usize| Matrix::new(&probs[..n * 1000], 1000).map(TargetRows::Probs);
    /// let sampler = SpeculativeSampler::new(1);
    /// let (mut both, mut second) = ([0; 2], [0]);
    /// let none = Ragged::new(&[], &[0usize, 0, 0])?;
    /// sampler.verify(target(2)?, DraftRows::OneHot, none, &mut both, &mut [0; 2])?;
    /// // Only the second sequence.
    /// let none = Ragged::new(&[], &[0usize, 0])?;
    /// let sampler = sampler.first_row(1);
    /// sampler.verify(target(1)?, DraftRows::OneHot, none, &mut second, &mut [0])?;
    /// assert_eq!(second[0], both[1]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    #[must_use]
    pub const fn first_row(mut self, row: u64) -> Self {
        self.first_row = row;
        self
    }

    /// A seed for each sequence, in place of one for all. Every sequence then has the number
    /// [`SpeculativeSampler::first_row`], so that its place in the batch makes no difference. Calls
    /// refuse another number of seeds than of sequences.
    ///
    /// ```
    /// use softmax::{DraftRows, Matrix, Ragged, SpeculativeSampler, TargetRows};
    /// let probs = [0.001f64; 2000];
    /// let target = TargetRows::Probs(Matrix::new(&probs, 1000)?);
    /// let none = Ragged::new(&[], &[0usize, 0, 0])?;
    /// let (mut tokens, mut swapped) = ([0; 2], [0; 2]);
    /// let sampler = SpeculativeSampler::new(0);
    /// let seeds = sampler.seeds(&[5, 7]);
    /// seeds.verify(target, DraftRows::OneHot, none, &mut tokens, &mut [0; 2])?;
    /// let seeds = sampler.seeds(&[7, 5]);
    /// seeds.verify(target, DraftRows::OneHot, none, &mut swapped, &mut [0; 2])?;
    /// assert_eq!(tokens, [swapped[1], swapped[0]]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    #[must_use]
    pub const fn seeds(mut self, seeds: &'a [u64]) -> Self {
        self.seeds = Some(seeds);
        self
    }

    /// A step for each sequence, in place of [`SpeculativeSampler::step`] for all: sequences
    /// advance by different numbers of tokens. Calls refuse another number of steps than of
    /// sequences.
    ///
    /// ```
    /// use softmax::{DraftRows, Matrix, Ragged, SpeculativeSampler, TargetRows};
    /// let probs = [0.001f64; 2000];
    /// let target = TargetRows::Probs(Matrix::new(&probs, 1000)?);
    /// let none = Ragged::new(&[], &[0usize, 0, 0])?;
    /// let (mut at_8, mut tokens) = ([0; 2], [0; 2]);
    /// let sampler = SpeculativeSampler::new(0);
    /// sampler.step(8).verify(target, DraftRows::OneHot, none, &mut at_8, &mut [0; 2])?;
    /// let sampler = sampler.steps(&[7, 8]);
    /// sampler.verify(target, DraftRows::OneHot, none, &mut tokens, &mut [0; 2])?;
    /// assert!(tokens[0] != at_8[0] && tokens[1] == at_8[1]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    #[must_use]
    pub const fn steps(mut self, steps: &'a [u64]) -> Self {
        self.steps = Some(steps);
        self
    }

    /// A temperature for each sequence, in place of one for all. Calls refuse another number of
    /// them than of sequences.
    ///
    /// ```
    /// use softmax::{DraftRows, Matrix, Ragged, SpeculativeSampler, TargetRows};
    /// let logits = [0.0f32, 1.0, 2.0, 3.0];
    /// let target = TargetRows::Logits(Matrix::new(&logits, 2)?);
    /// let none = Ragged::new(&[], &[0usize, 0, 0])?;
    /// let mut tokens = [9; 2];
    /// let sampler = SpeculativeSampler::new(0).temperatures(&[1.0, 0.0]);
    /// sampler.verify(target, DraftRows::OneHot, none, &mut tokens, &mut [0; 2])?;
    /// assert_eq!(tokens[1], 1);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    #[must_use]
    pub const fn temperatures(mut self, temperatures: &'a [f64]) -> Self {
        self.temperatures = Some(temperatures);
        self
    }

    exec_setter!();

    /// Verifies the drafted tokens of every sequence, which are the rows of `drafted`.
    ///
    /// `target` has a row for each drafted token and one more for each sequence: those of the first
    /// sequence in order, then those of the second. `draft` has a row for each drafted token.
    /// `tokens` has a place for each row of the target: the first `accepted[i]` of the places of
    /// sequence `i` are its accepted tokens, the next is the residual's or the bonus, and what
    /// follows is `usize::MAX`. `accepted` has one place for each sequence.
    ///
    /// Where there is nothing to draw, `usize::MAX` is in the place of the token and the sequence
    /// ends: where a row of logits that is needed, the target's or the draft's, has NaN or +inf or
    /// is all -inf, or where a probability that is read is NaN, below 0, or above 1 by more than
    /// 2^-10. (Of probabilities, accepting a token reads its own two.) Other sequences are not
    /// affected.
    ///
    /// A drafted token to which the draft gives no probability is not accepted. If the residual is
    /// 0 everywhere, which only rounding can cause, the token is drawn from `p`.
    ///
    /// Probabilities are those of [`Softmax::softmax`](crate::Softmax::softmax), to the bit; for
    /// f16 and bf16 those of the same numbers in f32. Accepting a token reads its rows once, for
    /// their sums; the residual writes and reads them once more, to scratch memory.
    ///
    /// ```
    /// use softmax::{DraftRows, Matrix, Ragged, SpeculativeSampler, TargetRows};
    /// // One sequence. Target and draft agree about the first token, and differ about the second.
    /// let target = [0.0f32, 1.0, 0.0, 1.0, 0.0, 0.0, 0.5, 0.5, 0.0];
    /// let draft = [0.0f32, 1.0, 0.0, 0.0, 0.0, 1.0];
    /// let (mut tokens, mut accepted) = ([0; 3], [0]);
    /// SpeculativeSampler::new(7).verify(
    ///     TargetRows::Probs(Matrix::new(&target, 3)?),
    ///     DraftRows::Probs(Matrix::new(&draft, 3)?),
    ///     Ragged::new(&[1, 2], &[0usize, 2])?,
    ///     &mut tokens,
    ///     &mut accepted,
    /// )?;
    /// assert_eq!((tokens, accepted), ([1, 0, usize::MAX], [1]));
    /// # Ok::<(), softmax::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Shape`] if the rows of the target, of the draft, the places for tokens or for
    /// counts do not fit the drafted tokens, if the draft has another number of columns, or if
    /// there are seeds, steps or temperatures and not one for each sequence; [`Error::Column`] for
    /// a drafted token that is not one of the columns (it names the target's row);
    /// [`Error::Value`] for a temperature, a step or a number of a sequence out of range, or 2^32
    /// columns; [`Error::Memory`]; or a kernel that cannot run. Nothing is written, except by
    /// [`Error::Memory`]. ([`Ragged::new`] has checked the offsets.)
    pub fn verify<T: Element>(
        &self,
        target: TargetRows<T>,
        draft: DraftRows<T>,
        drafted: Ragged<usize>,
        tokens: &mut [usize],
        accepted: &mut [usize],
    ) -> Result<(), Error> {
        let shape = (target.matrix().rows(), target.matrix().cols());
        let of_draft = draft.matrix().map(|draft| (draft.rows(), draft.cols()));
        in_default_environment(|| {
            self.check(shape, of_draft, drafted, tokens.len(), accepted.len())
        })?;
        let plan = self.plan::<T>(Shape::new(shape.0, shape.1))?;
        if drafted.rows() == 0 {
            return Ok(());
        }
        let batch = Batch { target, draft, drafted, tokens, accepted, first: 0 };
        let done = self.exec.crew().share(
            plan.threads,
            plan.parts.min(drafted.rows()),
            batch,
            &|batch: Batch<T>, at, of| {
                let at = batch.drafted.part(at, of);
                batch.split(at)
            },
            &|batch| with_rooms(shape.1, |rooms| self.batch(plan.kernel, batch, rooms)),
            &Option::and,
        );
        done.ok_or(Error::memory(shape.1))
    }

    fn check(
        &self,
        (rows, cols): (usize, usize),
        draft: Option<(usize, usize)>,
        drafted: Ragged<usize>,
        tokens: usize,
        accepted: usize,
    ) -> Result<(), Error> {
        let (sequences, elements) = (drafted.rows(), drafted.elements());
        self.check_options()?;
        let count = |what, needed: usize, got| {
            if got == needed { Ok(()) } else { Err(Error::count(what, needed, got)) }
        };
        let needed = elements.saturating_add(sequences);
        let what = "number of the target's rows (one for each drafted token and for each sequence)";
        count(what, needed, rows)?;
        // A draft without rows may have any columns.
        let wanted = (elements, cols);
        if let Some(got) = draft.filter(|&got| got != wanted && got.0.max(elements) > 0) {
            return Err(Error::differ("matrix of the draft", wanted, got));
        }
        count("number of places for tokens (one for each of the target's rows)", needed, tokens)?;
        count("number of counts (one for each sequence)", sequences, accepted)?;
        let of_each = |what, given: Option<usize>| {
            given.map_or(Ok(()), |given| count(what, sequences, given))
        };
        of_each("number of seeds (one for each sequence)", self.seeds.map(<[u64]>::len))?;
        of_each("number of steps (one for each sequence)", self.steps.map(<[u64]>::len))?;
        let temperatures = self.temperatures.map(<[f64]>::len);
        of_each("number of temperatures (one for each sequence)", temperatures)?;
        let below = |what, value: u64, bound: u64, range| {
            if value < bound { Ok(()) } else { Err(Error::value(what, value, range)) }
        };
        below("number of columns", cols as u64, 1 << 32, "below 2^32")?;
        let last = self.number_of(sequences.saturating_sub(1));
        below("number of a sequence", last, NUMBERS, "below 2^48")?;
        for sequence in 0..sequences {
            let row = drafted.row(sequence);
            let last = self.step_of(sequence).saturating_add(row.len() as u64);
            below("step of a sequence's last token", last, NUMBERS, "below 2^48")?;
            if let Some(at) = row.iter().position(|&token| token >= cols) {
                let before = drafted.row_range(sequence).start - drafted.row_range(0).start;
                return Err(Error::column(before + sequence + at, row[at], cols));
            }
        }
        Ok(())
    }

    fn check_options(&self) -> Result<(), Error> {
        Temperature::of(self.temperature)?;
        for (at, &temperature) in self.temperatures.unwrap_or_default().iter().enumerate() {
            if Temperature::of(temperature).is_err() {
                return Err(Error::value_at("temperature", at, temperature, "0 or above"));
            }
        }
        Ok(())
    }

    fn number_of(&self, sequence: usize) -> u64 {
        match self.seeds {
            Some(_) => self.first_row,
            None => self.first_row.saturating_add(sequence as u64),
        }
    }

    fn step_of(&self, sequence: usize) -> u64 {
        self.steps.map_or(self.step, |steps| steps[sequence])
    }

    pub(crate) fn plan<T: Element>(&self, shape: Shape) -> Result<Plan, Error> {
        self.exec.plan_work::<T>(Work::LogSumExp, shape)
    }

    /// Bytes of scratch memory that a thread needs.
    pub(crate) fn memory<A: Element>(&self, cols: usize) -> Result<usize, Error> {
        in_default_environment(|| self.check_options())?;
        let sums = room_for::<u64>(cols.div_ceil(SPAN));
        let rows = room_for::<A>(cols).saturating_mul(2);
        Ok(rows.saturating_add(sums).saturating_add(room_for::<Partial>(Partial::count(cols))))
    }

    /// Verifies some sequences.
    fn batch<T: Element>(&self, kernel: Ready, batch: Batch<T>, mut rooms: Rooms<T::Arithmetic>) {
        let Batch { target, draft, drafted, mut tokens, accepted, first } = batch;
        let (mut rows, mut rows_of_draft) = (target, draft);
        for (i, accepted) in accepted.iter_mut().enumerate() {
            let drafted = drafted.row(i);
            let (target, others) = rows.split_rows(drafted.len() + 1);
            rows = others;
            let (draft, others) = rows_of_draft.split_rows(drafted.len());
            rows_of_draft = others;
            let (places, others) = tokens.split_at_mut(drafted.len() + 1);
            tokens = others;
            let sequence = first + i;
            let temperature = self.temperatures.map_or(self.temperature, |all| all[sequence]);
            // It has been checked.
            let temperature = Temperature::of(temperature).unwrap_or(Temperature::Zero);
            let verified = match temperature {
                Temperature::Zero => greedy(kernel, target, drafted),
                Temperature::Finite(_) | Temperature::Infinite => {
                    let bits = |at: usize| {
                        let stream = Stream {
                            seed: self.seeds.map_or(self.seed, |seeds| seeds[sequence]),
                            row: self.number_of(sequence),
                            step: self.step_of(sequence) + at as u64,
                        };
                        stream.draw(DRAW)
                    };
                    let verifier = Verifier { kernel, temperature, rooms: &mut rooms };
                    verifier.sequence(target, draft, drafted, bits)
                }
            };
            let (count, token) = verified;
            *accepted = count;
            places[..count].copy_from_slice(&drafted[..count]);
            places[count..].fill(NONE);
            places[count] = token;
        }
    }
}

/// The number of the draw whose random bits are those of verification. `Sampler` makes fewer than
/// 2^32 draws from a row, so that it has no draw of this number.
const DRAW: usize = u32::MAX as usize;

/// Some sequences of a call.
struct Batch<'a, T> {
    target: TargetRows<'a, T>,
    draft: DraftRows<'a, T>,
    drafted: Ragged<'a, usize>,
    tokens: &'a mut [usize],
    accepted: &'a mut [usize],
    /// The number of the first one in the call.
    first: usize,
}

impl<T: Copy> Batch<'_, T> {
    /// The first `at` sequences, and the others.
    fn split(self, at: usize) -> (Self, Self) {
        let Self { target, draft, drafted, tokens, accepted, first } = self;
        let (a_drafted, b_drafted) = drafted.split_rows(at);
        let elements = a_drafted.elements();
        let (a_target, b_target) = target.split_rows(elements + at);
        let (a_draft, b_draft) = draft.split_rows(elements);
        let (a_tokens, b_tokens) = tokens.split_at_mut(elements + at);
        let (a_accepted, b_accepted) = accepted.split_at_mut(at);
        let part = |target, draft, drafted, tokens, accepted, first| Batch {
            target,
            draft,
            drafted,
            tokens,
            accepted,
            first,
        };
        (
            part(a_target, a_draft, a_drafted, a_tokens, a_accepted, first),
            part(b_target, b_draft, b_drafted, b_tokens, b_accepted, first + at),
        )
    }
}

/// The largest element of each row decides. Returns how many tokens are accepted, and the one after
/// them.
fn greedy<T: Element>(kernel: Ready, target: TargetRows<T>, drafted: &[usize]) -> (usize, usize) {
    let largest = |at: usize| {
        let (row, is_logits) = match target.row(at) {
            Given::Logits(row) => (row, true),
            Given::Probs(row) => (row, false),
        };
        let mut token = [NONE];
        kernel.pick(Picks::largest(one(row).ok()?, &mut token).ok()?);
        let value = row.get(token[0])?.to_f64();
        let counts = if is_logits { value.is_finite() } else { is_prob(value) && value > 0.0 };
        counts.then_some(token[0])
    };
    for (at, &token) in drafted.iter().enumerate() {
        match largest(at) {
            Some(largest) if largest == token => {}
            other => return (at, other.unwrap_or(NONE)),
        }
    }
    (drafted.len(), largest(drafted.len()).unwrap_or(NONE))
}

/// A row as it is given.
#[derive(Clone, Copy)]
enum Given<'a, T> {
    Logits(&'a [T]),
    Probs(&'a [T]),
}

/// Scratch memory for the rows of one thread.
struct Rooms<'m, A> {
    /// A row of the target, and one of the draft.
    target: &'m mut [A],
    draft: &'m mut [A],
    partials: &'m mut [Partial],
    /// The units of each span.
    sums: &'m mut [u64],
}

/// `None` if there is no memory.
fn with_rooms<A: Element>(cols: usize, f: impl FnOnce(Rooms<A>)) -> Option<()> {
    with_room(cols, |target: &mut [A]| {
        with_room(cols, |draft: &mut [A]| {
            with_room(Partial::count(cols), |partials: &mut [Partial]| {
                with_room(cols.div_ceil(SPAN), |sums: &mut [u64]| {
                    f(Rooms { target, draft, partials, sums });
                })
            })
        })
    })
    .flatten()
    .flatten()
    .flatten()
}

/// Verifies sequences at one temperature, which is not 0.
struct Verifier<'v, 'm, A> {
    kernel: Ready,
    temperature: Temperature,
    rooms: &'v mut Rooms<'m, A>,
}

/// What is known about a row.
#[derive(Clone, Copy)]
enum Known {
    /// Its probabilities: those given, or those in the room.
    Probs,
    /// The sum of its exponentials.
    Sum(Scale, MergedPartials),
}

impl<A: Element> Verifier<'_, '_, A> {
    /// Returns how many tokens are accepted, and the one after them.
    fn sequence<T: Element<Arithmetic = A>>(
        self,
        target: TargetRows<T>,
        draft: DraftRows<T>,
        drafted: &[usize],
        bits: impl Fn(usize) -> Bits,
    ) -> (usize, usize) {
        let Self { kernel, temperature, rooms } = self;
        let Rooms { target: of_target, draft: of_draft, partials, sums } = rooms;
        for (at, &token) in drafted.iter().enumerate() {
            let mut p = Row::new(kernel, target.row(at), of_target);
            let q = draft.row(at).map(|q| Row::new(kernel, q, of_draft));
            let Some(p_known) = p.know(&temperature, partials) else { return (at, NONE) };
            let Some(p_units) = p.units(p_known, token) else { return (at, NONE) };
            let bits = bits(at);
            let Some(mut q) = q else {
                // Among the units of a row that is one-hot, which are all at the token.
                if bits.says(p_units, u128::from(CERTAIN)) {
                    continue;
                }
                let p = p.probs(p_known);
                return (at, draw::<T>(kernel, p, Less::Token(token), sums, bits));
            };
            let Some(q_known) = q.know(&temperature, partials) else { return (at, NONE) };
            let Some(q_units) = q.units(q_known, token) else { return (at, NONE) };
            if q_units > 0 && bits.says(p_units, u128::from(q_units)) {
                continue;
            }
            let (p, q) = (p.probs(p_known), q.probs(q_known));
            return (at, draw::<T>(kernel, p, Less::Row(q), sums, bits));
        }
        let at = drafted.len();
        let mut p = Row::new(kernel, target.row(at), of_target);
        let Some(known) = p.know(&temperature, partials) else { return (at, NONE) };
        (at, draw::<T>(kernel, p.probs(known), Less::Nothing, sums, bits(at)))
    }
}

/// A row and the room for its probabilities.
struct Row<'r, T: Element> {
    kernel: Ready,
    /// `None` if the row is in the room, in the arithmetic type.
    row: Option<&'r [T::Arithmetic]>,
    is_logits: bool,
    room: &'r mut [T::Arithmetic],
}

impl<'r, T: Element> Row<'r, T> {
    fn new(kernel: Ready, given: Given<'r, T>, room: &'r mut [T::Arithmetic]) -> Self {
        let (row, is_logits) = match given {
            Given::Logits(row) => (row, true),
            Given::Probs(row) => (row, false),
        };
        let same = arithmetic(row);
        if same.is_none() {
            kernel.widen(row, room);
        }
        Self { kernel, row: same, is_logits, room }
    }

    fn elements(&self) -> &[T::Arithmetic] {
        self.row.unwrap_or(self.room)
    }

    /// Sums a row of logits; `None` if there is nothing to draw from it.
    fn know(&mut self, temperature: &Temperature, partials: &mut [Partial]) -> Option<Known> {
        if self.elements().is_empty() {
            return None;
        }
        if !self.is_logits {
            return Some(Known::Probs);
        }
        let scale = match temperature {
            Temperature::Finite(scale) => *scale,
            Temperature::Zero | Temperature::Infinite => Scale::ONE,
        };
        let shards = self.kernel.shards::<T::Arithmetic>();
        let mut row_max = None;
        let merged = loop {
            shards.partials(self.elements(), &scale, row_max, partials);
            match shards.merge_partials(&scale, partials) {
                // Once: partials by the row's maximum are never summed again.
                MergedPartials::Again(max) if row_max.is_none() => row_max = Some(max),
                merged @ MergedPartials::Whole(_) => break merged,
                _ => return None,
            }
        };
        if let Temperature::Infinite = temperature {
            if let Some(row) = self.row.take() {
                self.room.copy_from_slice(row);
            }
            let cols = self.room.len();
            let row = MatrixMut::new(&mut *self.room, cols).ok()?;
            self.kernel.run(Call::in_place(Work::Uniform, row, scale, Masked::Nan));
            return Some(Known::Probs);
        }
        Some(Known::Sum(scale, merged))
    }

    /// The units of a token; `None` for what is not a probability.
    fn units(&self, known: Known, token: usize) -> Option<u64> {
        let x = self.elements()[token];
        let p = match known {
            Known::Probs => x,
            Known::Sum(scale, merged) => {
                let mut y = [T::Arithmetic::ZERO];
                let mut one = Piece::new(std::slice::from_ref(&x), &mut y);
                let shards = self.kernel.shards();
                shards.finish_shard(&mut one, Work::Softmax, &scale, &merged, Masked::Nan);
                y[0]
            }
        };
        let p = p.to_f64();
        is_prob(p).then(|| prob_units(p))
    }

    /// All probabilities.
    fn probs(self, known: Known) -> &'r [T::Arithmetic] {
        let Self { kernel, row, room, .. } = self;
        let Known::Sum(scale, merged) = known else {
            return match row {
                Some(row) => row,
                None => room,
            };
        };
        let mut all = match row {
            Some(row) => Piece::new(row, room),
            None => Piece::in_place(room),
        };
        kernel.shards().finish_shard(&mut all, Work::Softmax, &scale, &merged, Masked::Nan);
        room
    }
}

/// What is subtracted from the target's probabilities.
#[derive(Clone, Copy)]
enum Less<'a, A> {
    Nothing,
    /// 1 at a token.
    Token(usize),
    Row(&'a [A]),
}

impl<A: Element> Less<'_, A> {
    /// The units of element `i` that are left.
    fn of(self, p: &[A], i: usize) -> u64 {
        let p = p[i].to_f64();
        match self {
            Less::Token(token) if token == i => 0,
            Less::Nothing | Less::Token(_) => prob_units(p),
            Less::Row(q) => excess(p, q[i].to_f64()),
        }
    }
}

/// Draws a token by the units that are left, or by those of `p` if none are.
fn draw<T: Element>(
    kernel: Ready,
    p: &[T::Arithmetic],
    less: Less<T::Arithmetic>,
    sums: &mut [u64],
    bits: Bits,
) -> usize {
    let less_row = if let Less::Row(q) = less { Some(q) } else { None };
    if !kernel.excess::<T>(p, less_row, sums) {
        return NONE;
    }
    if let Less::Token(token) = less {
        sums[token / SPAN] -= prob_units(p[token].to_f64());
    }
    let total: u128 = sums.iter().map(|&sum| u128::from(sum)).sum();
    let total = match (u64::try_from(total), less) {
        (Ok(0), Less::Token(_) | Less::Row(_)) => {
            return draw::<T>(kernel, p, Less::Nothing, sums, bits);
        }
        // No row whose sum is near 1 has so many.
        (Ok(0) | Err(_), _) => return NONE,
        (Ok(total), _) => total,
    };
    let mut left = bits.below(total);
    let mut reach = |units: u64| {
        let here = left < units;
        left -= if here { 0 } else { units };
        here
    };
    let span = sums.iter().position(|&sum| reach(sum)).unwrap_or(0);
    let tokens = span * SPAN..p.len().min((span + 1) * SPAN);
    tokens.into_iter().find(|&token| reach(less.of(p, token))).unwrap_or(NONE)
}
