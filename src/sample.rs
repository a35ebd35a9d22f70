//! The sampler: draws tokens from rows of logits.

mod filter;
mod random;
mod speculative;

use std::cmp::Ordering;

use softmax_kernels::{
    Call, Element, Learned, MaskData, Masked, Masses, Matrix, MatrixMut, Op as Work, Ready, Scale,
    in_default_environment, of_rank, part_of, rank, room_for, room_for_row, with_room,
};

use crate::changed::RowMask;
use crate::exec::exec_setter;
use crate::{Error, Exec, Plan, Shape, Size};
use filter::{Kept, List, Lists, Need};
use random::Stream;
pub use speculative::{DraftRows, SpeculativeSampler, TargetRows};

/// The order of filters and temperature. Libraries differ only in the place of the temperature and
/// of typical-p.
///
/// ```
/// use softmax::{Matrix, Order, Sampler};
/// let logits = Matrix::new(&[1.0f32, 3.0, 2.0], 3)?;
/// let (mut tokens, mut probs, mut counts) = ([0; 3], [0.0; 3], [0]);
/// let sampler = Sampler::new(0).temperature(9.0).min_p(0.5);
/// sampler.kept_probs(logits, &mut tokens, &mut probs, &mut counts)?;
/// assert_eq!(counts, [3]);
/// let sampler = sampler.order(Order::LlamaCpp);
/// sampler.kept_probs(logits, &mut tokens, &mut probs, &mut counts)?;
/// assert_eq!(counts, [1]);
/// # Ok::<(), softmax::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Order {
    /// The order of Hugging Face transformers: temperature, top-k, top-p, min-p, typical-p.
    #[default]
    Transformers,
    /// The order of llama.cpp: top-k, typical-p, top-p, min-p at temperature 1, and then the
    /// temperature for the tokens that are left.
    LlamaCpp,
}

/// How a token is drawn from those that the filters left.
///
/// ```
/// use softmax::{Matrix, Method, Sampler};
/// let mut draws = [7; 100];
/// let sampler = Sampler::new(1).method(Method::GumbelMax);
/// sampler.sample(Matrix::new(&[0.0f32, 0.0, f32::NEG_INFINITY], 3)?, &mut draws)?;
/// assert!(draws.contains(&0) && draws.contains(&1) && !draws.contains(&2));
/// # Ok::<(), softmax::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Method {
    /// One random number for each draw, looked up in the running sums of the masses. The fastest.
    #[default]
    InverseCdf,
    /// One random number for each token: the draw is the token with the largest `ln(mass) + Gumbel
    /// noise`. Tokens keep their noise if the logits of others change, so that two models with the
    /// same seed draw the same token more often than not.
    GumbelMax,
}

/// Draws tokens from rows of logits, with temperature, the usual filters and penalties, and
/// counter-based random numbers.
///
/// A draw depends only on its row, the options, the seed and the counters (number of the row, step,
/// number of the draw). So it is the same token on every CPU, with every kernel and number of
/// threads, and for any division of a batch. This is possible because masses are integers: a
/// token's mass is `exp((logit - max) / temperature)`, in f32, as units of 2^-30 and a rest in
/// units of 2^-62 (the largest mass is 2 or more). Everything is defined by their sums, which are
/// exact, and by an order of the tokens: by decreasing exponential and then increasing index.
/// Tokens below 2^-65 of the most likely one are never drawn. `docs/sampling.md` has the
/// definitions and the differences from other libraries.
///
/// ```
/// use softmax::{Matrix, Sampler};
///
/// // Two rows of four tokens; three draws from each.
/// let logits = [1.0f32, 2.0, 3.0, -9.0, f32::NEG_INFINITY, 5.0, 5.0, -3.0];
/// let mut draws = [0; 6];
/// let sampler = Sampler::new(42).temperature(0.8).top_k(3).top_p(0.95);
/// sampler.sample(Matrix::new(&logits, 4)?, &mut draws)?;
/// assert!(draws[..3].iter().all(|&token| token <= 2));
/// assert!(draws[3..].iter().all(|&token| token == 1 || token == 2));
///
/// // The next position of the sequence has other draws. Temperature 0 takes the largest.
/// sampler.step(1).temperature(0.0).sample(Matrix::new(&logits, 4)?, &mut draws[..2])?;
/// assert_eq!(draws[..2], [2, 1]);
/// # Ok::<(), softmax::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Sampler<'a> {
    seed: u64,
    step: u64,
    first_row: u64,
    temperature: f64,
    order: Order,
    method: Method,
    top_k: usize,
    top_p: f64,
    min_p: f64,
    typical_p: f64,
    min_keep: usize,
    mask: Option<MaskData<'a>>,
    bias: Bias<'a>,
    history: History<'a>,
    repetition: f64,
    presence: f64,
    frequency: f64,
    each: Each<'a>,
    exec: Exec<'a>,
}

/// Settings that every row has of its own: lists of one for each.
#[derive(Clone, Copy, Debug)]
struct Each<'a> {
    temperatures: Option<&'a [f64]>,
    top_ks: Option<&'a [usize]>,
    top_ps: Option<&'a [f64]>,
    min_ps: Option<&'a [f64]>,
    typical_ps: Option<&'a [f64]>,
    seeds: Option<&'a [u64]>,
    steps: Option<&'a [u64]>,
}

impl Each<'_> {
    const NONE: Self = Self {
        temperatures: None,
        top_ks: None,
        top_ps: None,
        min_ps: None,
        typical_ps: None,
        seeds: None,
        steps: None,
    };

    fn is_none(&self) -> bool {
        let numbers = [self.temperatures, self.top_ps, self.min_ps, self.typical_ps];
        let counters = [self.seeds, self.steps];
        self.top_ks.is_none()
            && numbers.iter().all(Option::is_none)
            && counters.iter().all(Option::is_none)
    }

    /// Checks that every list has a number in its range for each row.
    fn check(&self, rows: usize) -> Result<(), Error> {
        let len = |what, len: Option<usize>| match len {
            Some(len) if len != rows => Err(Error::count(what, rows, len)),
            _ => Ok(()),
        };
        let lists = [
            ("number of temperatures (one for each row)", "temperature", "0 or above"),
            ("number of top-ps (one for each row)", "top-p", "in 0..=1"),
            ("number of min-ps (one for each row)", "min-p", "in 0..=1"),
            ("number of typical-ps (one for each row)", "typical-p", "in 0..=1"),
        ];
        let numbers = [self.temperatures, self.top_ps, self.min_ps, self.typical_ps];
        let most = [f64::INFINITY, 1.0, 1.0, 1.0];
        for (((number, what, range), list), most) in lists.into_iter().zip(numbers).zip(most) {
            len(number, list.map(<[f64]>::len))?;
            let list = list.unwrap_or_default();
            if let Some(row) = list.iter().position(|v| !(0.0..=most).contains(v)) {
                return Err(Error::value_at(what, row, list[row], range));
            }
        }
        len("number of top-ks (one for each row)", self.top_ks.map(<[usize]>::len))?;
        len("number of seeds (one for each row)", self.seeds.map(<[u64]>::len))?;
        len("number of steps (one for each row)", self.steps.map(<[u64]>::len))?;
        let steps = self.steps.unwrap_or_default();
        match steps.iter().position(|&step| step >= NUMBERS) {
            Some(row) => Err(Error::value_at("step", row, steps[row], "below 2^48")),
            None => Ok(()),
        }
    }
}

/// What a call checked.
#[derive(Clone, Copy, Debug)]
struct Checked<'a> {
    temperature: Temperature,
    mask: Option<RowMask<'a>>,
}

impl<'a> Checked<'a> {
    /// The tokens of a row that are seen, all of them without a mask; `room` is for its bits.
    fn seen<'m>(&self, row: usize, cols: usize, room: &'m mut [u32]) -> Option<Seen<'m>>
    where
        'a: 'm,
    {
        let (words, cols) = self.mask?.row(row).bits(cols, room);
        Some(Seen { words, cols })
    }
}

/// The tokens of a row that its mask shows.
#[derive(Clone, Copy, Debug)]
struct Seen<'m> {
    words: &'m [u32],
    /// The number of columns that there are bits for. The others are hidden.
    cols: usize,
}

impl Seen<'_> {
    fn has(&self, token: usize) -> bool {
        token < self.cols && self.words[token / 32] >> (token % 32) & 1 == 1
    }
}

/// A temperature that was checked.
#[derive(Clone, Copy, Debug)]
enum Temperature {
    Zero,
    Finite(Scale),
    Infinite,
}

impl Temperature {
    fn of(temperature: f64) -> Result<Self, Error> {
        match temperature {
            0.0 => Ok(Self::Zero),
            1.0 => Ok(Self::Finite(Scale::ONE)),
            f64::INFINITY => Ok(Self::Infinite),
            _ => Scale::from_temperature(temperature)
                .map(Self::Finite)
                .ok_or_else(|| Error::value("temperature", temperature, "0 or above")),
        }
    }
}

/// Numbers that are added to the logits of tokens.
#[derive(Clone, Copy, Debug)]
enum Bias<'a> {
    Pairs(&'a [(usize, f32)]),
    /// Two lists of the same length.
    Lists(&'a [usize], &'a [f32]),
}

impl<'a> Bias<'a> {
    fn len(&self) -> usize {
        match self {
            Self::Pairs(pairs) => pairs.len(),
            Self::Lists(tokens, _) => tokens.len(),
        }
    }

    fn iter(&self) -> impl Iterator<Item = (usize, f32)> + 'a {
        let of = *self;
        (0..of.len()).map(move |i| match of {
            Self::Pairs(pairs) => pairs[i],
            Self::Lists(tokens, bias) => (tokens[i], bias[i]),
        })
    }
}

/// The tokens in the history of each row, or one list for all rows.
#[derive(Clone, Copy, Debug)]
enum History<'a> {
    Lists(&'a [&'a [usize]]),
    /// The tokens of all lists, and the start of each list and the end of the last, in increasing
    /// order.
    Packed(&'a [usize], &'a [usize]),
}

impl<'a> History<'a> {
    fn len(&self) -> usize {
        match self {
            Self::Lists(lists) => lists.len(),
            Self::Packed(_, starts) => starts.len().saturating_sub(1),
        }
    }

    fn get(&self, i: usize) -> &'a [usize] {
        match self {
            Self::Lists(lists) => lists[i],
            Self::Packed(tokens, starts) => &tokens[starts[i]..starts[i + 1]],
        }
    }

    fn of_row(&self, row: usize) -> &'a [usize] {
        match self.len() {
            0 => &[],
            1 => self.get(0),
            _ => self.get(row),
        }
    }
}

/// The value that is written if there is nothing to draw.
const NONE: usize = usize::MAX;

/// Numbers of rows and steps are below this.
const NUMBERS: u64 = 1 << 48;

fn in_range(
    what: &'static str,
    value: f64,
    range: &'static str,
    is: impl Fn(f64) -> bool,
) -> Result<(), Error> {
    if is(value) { Ok(()) } else { Err(Error::value(what, value, range)) }
}

fn share(what: &'static str, value: f64) -> Result<(), Error> {
    in_range(what, value, "in 0..=1", |v| (0.0..=1.0).contains(&v))
}

impl<'a> Sampler<'a> {
    /// A sampler with this seed. By default it draws from the plain distribution of each row.
    ///
    /// ```
    /// use softmax::{Matrix, Sampler};
    /// let logits = Matrix::new(&[1.0f32, 3.0, 2.0], 3)?;
    /// let mut draws = [0; 9];
    /// Sampler::new(1).sample(logits, &mut draws)?;
    /// assert!(draws.iter().all(|&token| token < 3));
    /// // The same seed, the same draws.
    /// let mut again = [0; 9];
    /// Sampler::new(1).sample(logits, &mut again)?;
    /// assert_eq!(draws, again);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    pub const fn new(seed: u64) -> Self {
        Self {
            seed,
            step: 0,
            first_row: 0,
            temperature: 1.0,
            order: Order::Transformers,
            method: Method::InverseCdf,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            typical_p: 1.0,
            min_keep: 1,
            mask: None,
            bias: Bias::Pairs(&[]),
            history: History::Lists(&[]),
            repetition: 1.0,
            presence: 0.0,
            frequency: 0.0,
            each: Each::NONE,
            exec: Exec::new(),
        }
    }

    /// Divides the logits by `temperature`. 0 takes the largest logit, the first of several equal
    /// ones, whatever the filters; infinity makes all tokens equally likely except those with
    /// logits of -inf. Calls refuse NaN and negative numbers. Numbers below 2^-100 count as 2^-100,
    /// those above 2^100 as 2^100.
    ///
    /// ```
    /// use softmax::{Matrix, Sampler};
    /// let logits = Matrix::new(&[1.0f32, 3.0, 2.0], 3)?;
    /// let mut draws = [0; 9];
    /// Sampler::new(1).temperature(0.0).sample(logits, &mut draws)?;
    /// assert_eq!(draws, [1; 9]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    #[must_use]
    pub const fn temperature(mut self, temperature: f64) -> Self {
        self.temperature = temperature;
        self
    }

    /// Keeps the `k` most likely tokens, never more; 0 keeps all.
    ///
    /// ```
    /// use softmax::{Matrix, Sampler};
    /// let logits = Matrix::new(&[1.0f32, 3.0, 2.0], 3)?;
    /// let mut draws = [0; 9];
    /// Sampler::new(1).top_k(2).sample(logits, &mut draws)?;
    /// assert!(!draws.contains(&0));
    /// # Ok::<(), softmax::Error>(())
    /// ```
    #[must_use]
    pub const fn top_k(mut self, k: usize) -> Self {
        self.top_k = k;
        self
    }

    /// Keeps the most likely tokens until they have `p` of the mass together, at least one. 1 keeps
    /// all. Source: Holtzman et al., The Curious Case of Neural Text Degeneration, 2020 (nucleus
    /// sampling). It must be in `0..=1`, or calls refuse it.
    ///
    /// ```
    /// use softmax::{Matrix, Sampler};
    /// let logits = Matrix::new(&[1.0f32, 3.0, 2.0], 3)?;
    /// let mut draws = [0; 9];
    /// Sampler::new(1).top_p(0.5).sample(logits, &mut draws)?;
    /// // It has 0.67 of the mass.
    /// assert_eq!(draws, [1; 9]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    #[must_use]
    pub const fn top_p(mut self, p: f64) -> Self {
        self.top_p = p;
        self
    }

    /// Keeps the tokens that are at least `p` times as likely as the most likely one. 0 keeps all.
    /// Source: Nguyen et al., Turning Up the Heat: Min-p Sampling, 2024. It must be in `0..=1`, or
    /// calls refuse it.
    ///
    /// ```
    /// use softmax::{Matrix, Sampler};
    /// let logits = Matrix::new(&[1.0f32, 3.0, 2.0], 3)?;
    /// let mut draws = [0; 9];
    /// Sampler::new(1).min_p(0.3).sample(logits, &mut draws)?;
    /// // 0.37 and 0.14 times as likely as the most likely one.
    /// assert!(!draws.contains(&0));
    /// # Ok::<(), softmax::Error>(())
    /// ```
    #[must_use]
    pub const fn min_p(mut self, p: f64) -> Self {
        self.min_p = p;
        self
    }

    /// Keeps tokens until they have `p` of the mass together, at least one, in the order of the
    /// distance of their information `-ln(probability)` from the entropy, the nearest first. 1
    /// keeps all. It takes several times as long as top-p, unless other filters leave few tokens.
    /// Source: Meister et al., Locally Typical Sampling, 2023. It must be in `0..=1`, or calls
    /// refuse it.
    ///
    /// ```
    /// use softmax::{Matrix, Sampler};
    /// let logits = Matrix::new(&[1.0f32, 3.0, 2.0], 3)?;
    /// let mut draws = [0; 9];
    /// Sampler::new(1).typical_p(0.5).sample(logits, &mut draws)?;
    /// // The entropy is 0.83; token 1 has an information of 0.41, token 2 of 1.41.
    /// assert_eq!(draws, [1; 9]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    #[must_use]
    pub const fn typical_p(mut self, p: f64) -> Self {
        self.typical_p = p;
        self
    }

    /// Top-p, min-p and typical-p leave at least `tokens` tokens, if there are so many: also the
    /// next ones in their order. 0 is the same as 1, which each filter leaves anyway. (Top-k keeps
    /// `k`, even if that is fewer.)
    ///
    /// ```
    /// use softmax::{Matrix, Sampler};
    /// let logits = Matrix::new(&[9.0f32, 1.0, 2.0], 3)?;
    /// let (mut probs, mut tokens, mut counts) = ([0.0; 3], [0; 3], [0]);
    /// let sampler = Sampler::new(1).top_p(0.5);
    /// sampler.kept_probs(logits, &mut tokens, &mut probs, &mut counts)?;
    /// assert_eq!((counts[0], tokens[0]), (1, 0));
    /// sampler.min_keep(2).kept_probs(logits, &mut tokens, &mut probs, &mut counts)?;
    /// assert_eq!((counts[0], &tokens[..2]), (2, &[0, 2][..]));
    /// # Ok::<(), softmax::Error>(())
    /// ```
    #[must_use]
    pub const fn min_keep(mut self, tokens: usize) -> Self {
        self.min_keep = tokens;
        self
    }

    /// Sets the order of filters and temperature.
    ///
    /// ```
    /// use softmax::{Matrix, Order, Sampler};
    /// let logits = Matrix::new(&[1.0f32, 3.0, 2.0], 3)?;
    /// let mut draws = [0; 9];
    /// Sampler::new(1).temperature(9.0).min_p(0.5).order(Order::LlamaCpp).sample(logits, &mut draws)?;
    /// // The temperature comes too late to keep the others.
    /// assert_eq!(draws, [1; 9]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    #[must_use]
    pub const fn order(mut self, order: Order) -> Self {
        self.order = order;
        self
    }

    /// Hides tokens: they are never drawn nor left, whatever their logits, bias and penalties. Bits
    /// ([`BitMask`]), as grammar engines make them, or booleans say which are seen, or numbers are
    /// 0 or `-inf` (calls refuse others). The mask has one row for all rows, or one for each. A
    /// draw is that from a row with `-inf` at the hidden tokens; a row that shows none has nothing
    /// to draw.
    ///
    /// Bits cost next to nothing: exponentials are computed with them. Other masks are packed to
    /// bits first.
    ///
    /// ```
    /// use softmax::{BitMask, Matrix, Sampler};
    /// let logits = Matrix::new(&[1.0f32, 3.0, 2.0, 9.0], 4)?;
    /// let mut draws = [0; 9];
    /// // Tokens 0 and 2.
    /// let sampler = Sampler::new(1).mask(BitMask::new(&[0b101]));
    /// sampler.sample(logits, &mut draws)?;
    /// assert!(draws.iter().all(|&token| token == 0 || token == 2));
    /// sampler.temperature(0.0).sample(logits, &mut draws)?;
    /// assert_eq!(draws, [2; 9]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    ///
    /// [`BitMask`]: crate::BitMask
    #[must_use]
    pub fn mask(mut self, mask: impl Into<MaskData<'a>>) -> Self {
        self.mask = Some(mask.into());
        self
    }

    /// Adds numbers to the logits of tokens, in every row and before anything else; -inf bans a
    /// token. Calls refuse NaN and +inf.
    ///
    /// ```
    /// use softmax::{Matrix, Sampler};
    /// let logits = Matrix::new(&[1.0f32, 3.0, 2.0], 3)?;
    /// let mut draws = [0; 9];
    /// Sampler::new(1).bias(&[(1, f32::NEG_INFINITY), (2, 50.0)]).sample(logits, &mut draws)?;
    /// assert_eq!(draws, [2; 9]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    #[must_use]
    pub const fn bias(mut self, bias: &'a [(usize, f32)]) -> Self {
        self.bias = Bias::Pairs(bias);
        self
    }

    /// [`Sampler::bias`] from two lists. Calls refuse lists that differ in length.
    ///
    /// ```
    /// use softmax::{Matrix, Sampler};
    /// let logits = Matrix::new(&[1.0f32, 3.0, 2.0], 3)?;
    /// let mut draws = [0; 9];
    /// Sampler::new(1).bias_lists(&[1, 2], &[f32::NEG_INFINITY, 50.0]).sample(logits, &mut draws)?;
    /// assert_eq!(draws, [2; 9]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    #[must_use]
    pub const fn bias_lists(mut self, tokens: &'a [usize], bias: &'a [f32]) -> Self {
        self.bias = Bias::Lists(tokens, bias);
        self
    }

    /// The tokens to which the penalties apply: one list for each row, or one for all rows. They
    /// may be in any order; the frequency penalty counts how often each is there.
    ///
    /// ```
    /// use softmax::{Matrix, Sampler};
    /// let logits = Matrix::new(&[1.0f32, 3.0, 2.0], 3)?;
    /// let mut draws = [0; 1];
    /// let history: &[&[usize]] = &[&[1]];
    /// Sampler::new(1).temperature(0.0).presence_penalty(2.0).history(history).sample(logits, &mut draws)?;
    /// assert_eq!(draws, [2]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    #[must_use]
    pub const fn history(mut self, history: &'a [&'a [usize]]) -> Self {
        self.history = History::Lists(history);
        self
    }

    /// [`Sampler::history`] from one list with all histories, one after the other: history `i` is
    /// `tokens[starts[i]..starts[i + 1]]`. Calls refuse starts that decrease or are beyond the end
    /// of the list.
    ///
    /// ```
    /// use softmax::{Matrix, Sampler};
    /// let logits = Matrix::new(&[1.0f32, 1.1, 0.9, 1.0, 1.1, 0.9], 3)?;
    /// let mut draws = [0; 2];
    /// // Greedy: the first row has had tokens 1 and 0, the second row token 1.
    /// let sampler = Sampler::new(1).temperature(0.0).presence_penalty(1.0);
    /// sampler.packed_history(&[1, 0, 1], &[0, 2, 3]).sample(logits, &mut draws)?;
    /// assert_eq!(draws, [2, 0]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    #[must_use]
    pub const fn packed_history(mut self, tokens: &'a [usize], starts: &'a [usize]) -> Self {
        self.history = History::Packed(tokens, starts);
        self
    }

    /// Divides positive logits of tokens in the history by `penalty`, and multiplies the others by
    /// it. 1 changes nothing. Source: Keskar et al., CTRL, 2019, with the usual correction for
    /// negative logits. It must be positive and finite, or calls refuse it.
    ///
    /// ```
    /// use softmax::{Matrix, Sampler};
    /// let logits = Matrix::new(&[1.0f32, 3.0, 2.0], 3)?;
    /// let mut draws = [0; 1];
    /// let history: &[&[usize]] = &[&[1]];
    /// Sampler::new(1).temperature(0.0).repetition_penalty(2.0).history(history).sample(logits, &mut draws)?;
    /// // 3 / 2 is less than 2.
    /// assert_eq!(draws, [2]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    #[must_use]
    pub const fn repetition_penalty(mut self, penalty: f64) -> Self {
        self.repetition = penalty;
        self
    }

    /// Subtracts `penalty` from the logits of tokens in the history, after the repetition penalty.
    /// It must be finite, or calls refuse it.
    ///
    /// ```
    /// use softmax::{Matrix, Sampler};
    /// let logits = Matrix::new(&[1.0f32, 3.0, 2.0], 3)?;
    /// let mut draws = [0; 1];
    /// let history: &[&[usize]] = &[&[1, 1]];
    /// Sampler::new(1).temperature(0.0).presence_penalty(1.5).history(history).sample(logits, &mut draws)?;
    /// assert_eq!(draws, [2]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    #[must_use]
    pub const fn presence_penalty(mut self, penalty: f64) -> Self {
        self.presence = penalty;
        self
    }

    /// Subtracts `penalty` from the logits of tokens once for each time that they are in the
    /// history, after the repetition penalty. It must be finite, or calls refuse it.
    ///
    /// ```
    /// use softmax::{Matrix, Sampler};
    /// let logits = Matrix::new(&[1.0f32, 3.0, 2.0], 3)?;
    /// let mut draws = [0; 1];
    /// let history: &[&[usize]] = &[&[1, 1]];
    /// Sampler::new(1).temperature(0.0).frequency_penalty(0.6).history(history).sample(logits, &mut draws)?;
    /// // 3 - 2 * 0.6 is less than 2.
    /// assert_eq!(draws, [2]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    #[must_use]
    pub const fn frequency_penalty(mut self, penalty: f64) -> Self {
        self.frequency = penalty;
        self
    }

    /// The position in the sequence; each step gives other draws. Calls refuse 2^48 and more.
    ///
    /// ```
    /// use softmax::{Matrix, Sampler};
    /// let logits = Matrix::new(&[0.0f32; 1000], 1000)?;
    /// let mut tokens = [0; 2];
    /// for (step, token) in tokens.iter_mut().enumerate() {
    ///     Sampler::new(1).step(step as u64).sample(logits, std::slice::from_mut(token))?;
    /// }
    /// assert_ne!(tokens[0], tokens[1]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    #[must_use]
    pub const fn step(mut self, step: u64) -> Self {
        self.step = step;
        self
    }

    /// The number of the first row of the matrix, for a batch in several calls. Calls refuse
    /// numbers of rows of 2^48 and more.
    ///
    /// ```
    /// use softmax::{Matrix, Sampler};
    /// let (logits, mut both, mut second) = ([0.0f32; 2000], [0; 2], [0]);
    /// Sampler::new(1).sample(Matrix::new(&logits, 1000)?, &mut both)?;
    /// // Only the second row.
    /// Sampler::new(1).first_row(1).sample(Matrix::new(&logits[1000..], 1000)?, &mut second)?;
    /// assert_eq!(second[0], both[1]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    #[must_use]
    pub const fn first_row(mut self, row: u64) -> Self {
        self.first_row = row;
        self
    }

    /// A temperature for each row, in place of [`Sampler::temperature`]. A batch of requests is one
    /// call: each row has the draws that it has alone with its settings.
    ///
    /// ```
    /// use softmax::{Matrix, Sampler};
    /// let logits = Matrix::new(&[0.0f32, 1.0, 0.0, 1.0], 2)?;
    /// let mut draws = [0; 2];
    /// let sampler = Sampler::new(1).temperatures(&[0.0, 1e-3]).top_ks(&[0, 1]);
    /// sampler.sample(logits, &mut draws)?;
    /// assert_eq!(draws, [1, 1]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    #[must_use]
    pub const fn temperatures(mut self, temperatures: &'a [f64]) -> Self {
        self.each.temperatures = Some(temperatures);
        self
    }

    /// A number of tokens for each row, in place of [`Sampler::top_k`]; 0 keeps all.
    ///
    /// ```
    /// use softmax::{Matrix, Sampler};
    /// let logits = Matrix::new(&[0.0f32, 1.0, 0.0, 1.0], 2)?;
    /// let (mut tokens, mut probs, mut counts) = ([0; 4], [0.0; 4], [0; 2]);
    /// let sampler = Sampler::new(1).top_ks(&[1, 0]);
    /// sampler.kept_probs(logits, &mut tokens, &mut probs, &mut counts)?;
    /// assert_eq!(counts, [1, 2]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    #[must_use]
    pub const fn top_ks(mut self, ks: &'a [usize]) -> Self {
        self.each.top_ks = Some(ks);
        self
    }

    /// A share for each row, in place of [`Sampler::top_p`].
    ///
    /// ```
    /// use softmax::{Matrix, Sampler};
    /// let logits = Matrix::new(&[0.0f32, 1.0, 0.0, 1.0], 2)?;
    /// let (mut tokens, mut probs, mut counts) = ([0; 4], [0.0; 4], [0; 2]);
    /// let sampler = Sampler::new(1).top_ps(&[0.5, 0.9]);
    /// sampler.kept_probs(logits, &mut tokens, &mut probs, &mut counts)?;
    /// assert_eq!(counts, [1, 2]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    #[must_use]
    pub const fn top_ps(mut self, ps: &'a [f64]) -> Self {
        self.each.top_ps = Some(ps);
        self
    }

    /// A share for each row, in place of [`Sampler::min_p`].
    ///
    /// ```
    /// use softmax::{Matrix, Sampler};
    /// let logits = Matrix::new(&[0.0f32, 1.0, 0.0, 1.0], 2)?;
    /// let (mut tokens, mut probs, mut counts) = ([0; 4], [0.0; 4], [0; 2]);
    /// let sampler = Sampler::new(1).min_ps(&[0.5, 0.1]);
    /// sampler.kept_probs(logits, &mut tokens, &mut probs, &mut counts)?;
    /// assert_eq!(counts, [1, 2]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    #[must_use]
    pub const fn min_ps(mut self, ps: &'a [f64]) -> Self {
        self.each.min_ps = Some(ps);
        self
    }

    /// A share for each row, in place of [`Sampler::typical_p`].
    ///
    /// ```
    /// use softmax::{Matrix, Sampler};
    /// let logits = Matrix::new(&[0.0f32, 1.0, 0.0, 1.0], 2)?;
    /// let (mut tokens, mut probs, mut counts) = ([0; 4], [0.0; 4], [0; 2]);
    /// let sampler = Sampler::new(1).typical_ps(&[0.5, 1.0]);
    /// sampler.kept_probs(logits, &mut tokens, &mut probs, &mut counts)?;
    /// assert_eq!(counts, [1, 2]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    #[must_use]
    pub const fn typical_ps(mut self, ps: &'a [f64]) -> Self {
        self.each.typical_ps = Some(ps);
        self
    }

    /// A seed for each row, in place of that of [`Sampler::new`]. Every row is then number
    /// [`Sampler::first_row`], wherever it lies: a request has the same draws whatever else is in
    /// its batch.
    ///
    /// ```
    /// use softmax::{Matrix, Sampler};
    /// let (logits, mut batch, mut alone) = ([0.0f32; 3000], [0; 3], [0]);
    /// Sampler::new(0).seeds(&[5, 6, 7]).sample(Matrix::new(&logits, 1000)?, &mut batch)?;
    /// Sampler::new(7).sample(Matrix::new(&logits[..1000], 1000)?, &mut alone)?;
    /// assert_eq!(batch[2], alone[0]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    #[must_use]
    pub const fn seeds(mut self, seeds: &'a [u64]) -> Self {
        self.each.seeds = Some(seeds);
        self
    }

    /// The position in its sequence for each row, in place of [`Sampler::step`].
    ///
    /// ```
    /// use softmax::{Matrix, Sampler};
    /// let (logits, mut batch, mut alone) = ([0.0f32; 2000], [0; 2], [0]);
    /// let sampler = Sampler::new(0).seeds(&[5, 6]);
    /// sampler.steps(&[100, 3]).sample(Matrix::new(&logits, 1000)?, &mut batch)?;
    /// Sampler::new(6).step(3).sample(Matrix::new(&logits[..1000], 1000)?, &mut alone)?;
    /// assert_eq!(batch[1], alone[0]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    #[must_use]
    pub const fn steps(mut self, steps: &'a [u64]) -> Self {
        self.each.steps = Some(steps);
        self
    }

    /// How a token is drawn from those that the filters left.
    ///
    /// ```
    /// use softmax::{Matrix, Method, Sampler};
    /// let logits = Matrix::new(&[1.0f32, 3.0, 2.0], 3)?;
    /// let mut draws = [0; 9];
    /// Sampler::new(1).method(Method::GumbelMax).top_k(2).sample(logits, &mut draws)?;
    /// assert!(!draws.contains(&0));
    /// # Ok::<(), softmax::Error>(())
    /// ```
    #[must_use]
    pub const fn method(mut self, method: Method) -> Self {
        self.method = method;
        self
    }

    exec_setter!();

    /// Draws from every row: `draws.len() / rows` tokens each, those of a row one after the other.
    ///
    /// A row whose logits (with bias and penalties) have NaN or +inf, or are all -inf, has nothing
    /// to draw: its draws are `usize::MAX`. Other rows are not affected.
    ///
    /// ```
    /// use softmax::{Matrix, Sampler};
    /// let logits = Matrix::new(&[1.0f32, f32::NEG_INFINITY, 0.0, f32::NAN], 2)?;
    /// let mut draws = [0; 4];
    /// Sampler::new(1).sample(logits, &mut draws)?;
    /// // Two draws from each row; none from a row that has NaN.
    /// assert_eq!(draws, [0, 0, usize::MAX, usize::MAX]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Shape`] if `draws` is not a multiple of the rows long, or there are neither one
    /// history nor one for each row, nor as many biases as tokens for them; [`Error::Column`] for
    /// tokens of bias or history that are none of the row's; [`Error::Value`] for an option, a row
    /// or a step out of range, or 2^32 columns; [`Error::Memory`]; or a kernel that cannot run.
    /// Nothing is written.
    pub fn sample<T: Element>(&self, logits: Matrix<T>, draws: &mut [usize]) -> Result<(), Error> {
        let (rows, cols) = (logits.rows(), logits.cols());
        let check = || self.check(rows, cols, draws.len());
        let checked = in_default_environment(check)?;
        let plan = self.plan::<T>(Shape::new(rows, cols))?;
        if rows == 0 {
            return Ok(());
        }
        let each = draws.len() / rows;
        let (kernel, needs) = (plan.kernel, self.needs(cols));
        let done = self.exec.crew().share(
            plan.threads,
            plan.parts.min(rows),
            (logits, draws, 0),
            &|(logits, draws, first), at, of| {
                let at = part_of(logits.rows(), at, of);
                let (a, b) = logits.split_rows(at);
                let (a_draws, b_draws) = draws.split_at_mut(at * each);
                ((a, a_draws, first), (b, b_draws, first + at))
            },
            &|(logits, draws, first): (Matrix<T>, &mut [usize], usize)| {
                needs.with(|scratch| {
                    self.rows(kernel, &checked, logits, each, draws, first, scratch)
                })
            },
            &Option::and,
        );
        done.ok_or(Error::memory(cols))
    }

    /// The tokens of each row that the filters leave, and their probabilities; the most likely
    /// first, and equally likely ones by increasing index. With room for `n` tokens in each row,
    /// those of row `i` are the first `counts[i]` elements of `tokens` and `probs` from `i * n` on.
    /// The others stay unchanged.
    ///
    /// These are the tokens that [`Sampler::sample`] may draw: those with mass, which are at least
    /// 2^-63 times as likely as the most likely one, also without filters. At temperature 0 it is
    /// one token. No random number is used: seed, step and method have no effect.
    ///
    /// The probabilities add up to 1. They have the bits of [`Softmax::softmax`] at the
    /// temperature, for a row of only the logits that are left (with bias and penalties), by
    /// increasing index. Error: as there, at most 3 ULP, for logits that are rounded to f32 (of
    /// f64: f64) after bias and penalties. The bits are the same everywhere.
    ///
    /// Rows with nothing to draw have no tokens.
    ///
    /// ```
    /// use softmax::{Matrix, Sampler};
    ///
    /// // Two rows of four tokens; room for two of each.
    /// let logits = [1.0f32, 3.0, -9.0, 3.0, 0.0, f32::NEG_INFINITY, 0.5, 9.0];
    /// let (mut tokens, mut probs, mut counts) = ([0; 4], [0.0f32; 4], [0; 2]);
    /// let sampler = Sampler::new(0).top_k(2).min_p(0.1);
    /// sampler.kept_probs(Matrix::new(&logits, 4)?, &mut tokens, &mut probs, &mut counts)?;
    /// assert_eq!(counts, [2, 1]);
    /// assert_eq!((&tokens[..2], &probs[..2]), (&[1, 3][..], &[0.5, 0.5][..]));
    /// assert_eq!((tokens[2], probs[2]), (3, 1.0));
    /// # Ok::<(), softmax::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Room`] names the first row that has more tokens than there is room for: then
    /// `counts` say how many each row has, and those that fit are written. Else nothing is written:
    /// [`Error::Shape`] if `tokens` is not a multiple of the rows long, `probs` not as long, or
    /// `counts` has not one place for each row; otherwise as [`Sampler::sample`].
    ///
    /// [`Softmax::softmax`]: crate::Softmax::softmax
    pub fn kept_probs<T: Element>(
        &self,
        logits: Matrix<T>,
        tokens: &mut [usize],
        probs: &mut [T::Arithmetic],
        counts: &mut [usize],
    ) -> Result<(), Error> {
        self.kept(logits, tokens, probs, counts, Work::Softmax)
    }

    /// [`Sampler::kept_probs`] with the logarithms of the probabilities. They have the bits of
    /// [`Softmax::log_softmax`] of the same logits. Error: as there, at most 2 ULP or 1e-7 in f32,
    /// 3 ULP or 3e-16 in f64.
    ///
    /// ```
    /// use softmax::{Matrix, Sampler};
    ///
    /// let (mut tokens, mut log_probs, mut counts) = ([0; 2], [0.0f32; 2], [0]);
    /// let logits = Matrix::new(&[1.0f32, 3.0, 3.0], 3)?;
    /// Sampler::new(0).top_k(2).kept_log_probs(logits, &mut tokens, &mut log_probs, &mut counts)?;
    /// assert_eq!((tokens, counts), ([1, 2], [2]));
    /// assert_eq!(log_probs, [-std::f32::consts::LN_2; 2]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Sampler::kept_probs`].
    ///
    /// [`Softmax::log_softmax`]: crate::Softmax::log_softmax
    pub fn kept_log_probs<T: Element>(
        &self,
        logits: Matrix<T>,
        tokens: &mut [usize],
        log_probs: &mut [T::Arithmetic],
        counts: &mut [usize],
    ) -> Result<(), Error> {
        self.kept(logits, tokens, log_probs, counts, Work::LogSoftmax)
    }

    /// The probabilities of [`Sampler::kept_probs`], with the same bits, in whole rows: 0 for
    /// tokens that are not left. Rows with nothing to draw become NaN.
    ///
    /// ```
    /// use softmax::{Matrix, MatrixMut, Sampler};
    ///
    /// let mut probs = [0.0f32; 4];
    /// let logits = Matrix::new(&[1.0f32, 3.0, -9.0, 3.0], 4)?;
    /// Sampler::new(0).top_k(2).filtered_probs(logits, MatrixMut::new(&mut probs, 4)?)?;
    /// assert_eq!(probs, [0.0, 0.5, 0.0, 0.5]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Shape`] if the shapes differ; otherwise as [`Sampler::sample`]. Nothing is written.
    pub fn filtered_probs<T: Element>(
        &self,
        logits: Matrix<T>,
        probs: MatrixMut<T::Arithmetic>,
    ) -> Result<(), Error> {
        self.filtered(logits, probs, Work::Softmax)
    }

    /// The logarithms of [`Sampler::kept_log_probs`], with the same bits, in whole rows: `-inf` for
    /// tokens that are not left. Rows with nothing to draw become NaN.
    ///
    /// This is the output of a logits processor for a sampler without filters: sampling from it at
    /// temperature 1 draws from the same distribution.
    ///
    /// ```
    /// use softmax::{Matrix, MatrixMut, Sampler};
    ///
    /// let mut log_probs = [0.0f32; 3];
    /// let logits = Matrix::new(&[1.0f32, 3.0, -9.0], 3)?;
    /// Sampler::new(0).top_p(0.5).filtered_log_probs(logits, MatrixMut::new(&mut log_probs, 3)?)?;
    /// assert_eq!(log_probs, [f32::NEG_INFINITY, 0.0, f32::NEG_INFINITY]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Sampler::filtered_probs`].
    pub fn filtered_log_probs<T: Element>(
        &self,
        logits: Matrix<T>,
        log_probs: MatrixMut<T::Arithmetic>,
    ) -> Result<(), Error> {
        self.filtered(logits, log_probs, Work::LogSoftmax)
    }

    /// The tokens that are left of each row, and their probabilities or the logarithms of these.
    fn kept<T: Element>(
        &self,
        logits: Matrix<T>,
        tokens: &mut [usize],
        values: &mut [T::Arithmetic],
        counts: &mut [usize],
        work: Work,
    ) -> Result<(), Error> {
        let (rows, cols) = (logits.rows(), logits.cols());
        if counts.len() != rows {
            return Err(Error::count("number of counts (one for each row)", rows, counts.len()));
        }
        let room = tokens.len().checked_div(rows).unwrap_or(0);
        if room * rows != tokens.len() {
            let whole = if rows == 0 { Size::Count(0) } else { Size::MultipleOf(rows) };
            let what = "number of places for tokens";
            return Err(Error::shape(what, whole, Size::Count(tokens.len())));
        }
        if values.len() != tokens.len() {
            let what = "number of places for probabilities (one for each token)";
            return Err(Error::count(what, tokens.len(), values.len()));
        }
        self.left(
            logits,
            (tokens, values, &mut *counts),
            &|(tokens, values, counts), at| {
                let (tokens, other_tokens) = tokens.split_at_mut(at * room);
                let (values, other_values) = values.split_at_mut(at * room);
                let (counts, other_counts) = counts.split_at_mut(at);
                ((tokens, values, counts), (other_tokens, other_values, other_counts))
            },
            &|(tokens, values, counts), left| {
                counts[0] = left.tokens.len();
                if counts[0] <= room {
                    left.write(tokens, values);
                }
            },
            work,
        )?;
        if cols == 0 {
            counts.fill(0);
        }
        match counts.iter().position(|&count| count > room) {
            Some(row) => Err(Error::room(row, counts[row], room)),
            None => Ok(()),
        }
    }

    /// The same as [`Sampler::kept`], in whole rows.
    fn filtered<T: Element>(
        &self,
        logits: Matrix<T>,
        values: MatrixMut<T::Arithmetic>,
        work: Work,
    ) -> Result<(), Error> {
        let (shape, got) = ((logits.rows(), logits.cols()), (values.rows(), values.cols()));
        if shape != got {
            return Err(Error::differ("output", shape, got));
        }
        let nothing = match work {
            Work::Softmax => T::Arithmetic::ZERO,
            _ => T::Arithmetic::NEG_INFINITY,
        };
        self.left(
            logits,
            values,
            &MatrixMut::split_rows,
            &|row: MatrixMut<T::Arithmetic>, left| {
                // A row is always one slice.
                let row = row.into_slice().unwrap_or_default();
                if left.tokens.is_empty() {
                    return row.fill(T::Arithmetic::NAN);
                }
                row.fill(nothing);
                for (&token, &value) in left.tokens.iter().zip(left.values) {
                    row[of_rank(token).1] = value;
                }
            },
            work,
        )
    }

    /// Calls `write` with the tokens that are left of each row and its row of `out`, which `split`
    /// divides.
    fn left<T: Element, W: Send>(
        &self,
        logits: Matrix<T>,
        out: W,
        split: &(impl Fn(W, usize) -> (W, W) + Sync),
        write: &(impl Fn(W, Left<T::Arithmetic>) + Sync),
        work: Work,
    ) -> Result<(), Error> {
        let (rows, cols) = (logits.rows(), logits.cols());
        let checked = in_default_environment(|| self.check(rows, cols, rows))?;
        let plan = self.plan::<T>(Shape::new(rows, cols))?;
        if rows == 0 || cols == 0 {
            return Ok(());
        }
        let (kernel, needs) = (plan.kernel, self.needs(cols).of_left());
        let done = self.exec.crew().share(
            plan.threads,
            plan.parts.min(rows),
            (logits, out, 0),
            &|(logits, out, first), at, of| {
                let at = part_of(logits.rows(), at, of);
                let (a, b) = logits.split_rows(at);
                let (a_out, b_out) = split(out, at);
                ((a, a_out, first), (b, b_out, first + at))
            },
            &|(logits, out, first): (Matrix<T>, W, usize)| {
                needs.with(|mut scratch| {
                    let (mut rows, mut rest) = (RowByRow::new(self, &checked), out);
                    for i in 0..logits.rows() {
                        let of_row = rows.next(first + i);
                        let (row, others) = split(rest, 1);
                        rest = others;
                        let edited = std::mem::take(&mut scratch.edited);
                        kernel.widen(logits.row(i), edited);
                        let history = self.history_of(first + i);
                        if self.bias.len() > 0 || !history.is_empty() {
                            self.edit(edited, history, scratch.counted);
                        }
                        let left = |left: Left<T::Arithmetic>| write(row, left);
                        let packed = std::mem::take(&mut scratch.packed);
                        of_row.sampler.left_of_row(
                            kernel,
                            &of_row.temperature,
                            edited,
                            checked.seen(first + i, cols, packed),
                            &mut of_row.learned[0],
                            &mut scratch,
                            work,
                            left,
                        );
                        (scratch.edited, scratch.packed) = (edited, packed);
                    }
                })
            },
            &Option::and,
        );
        done.ok_or(Error::memory(cols))
    }

    /// Checks that the options are in their ranges and fit each other.
    fn check_options(&self) -> Result<Temperature, Error> {
        let temperature = Temperature::of(self.temperature)?;
        let shares = [self.top_p, self.min_p, self.typical_p];
        let shares = shares.iter().all(|share| (0.0..=1.0).contains(share));
        let penalties = self.presence.is_finite() & self.frequency.is_finite();
        let repetition = (self.repetition > 0.0) & self.repetition.is_finite();
        if !(shares & penalties & repetition) {
            self.check_numbers()?;
        }
        if let Bias::Lists(tokens, bias) = self.bias
            && tokens.len() != bias.len()
        {
            return Err(Error::count("number of biases", tokens.len(), bias.len()));
        }
        if let History::Packed(tokens, starts) = self.history {
            let mut before = 0;
            for (i, &start) in starts.iter().enumerate() {
                if start < before || start > tokens.len() {
                    let what = "start of a history";
                    let range = "no less than the one before and no more than there are tokens";
                    return Err(Error::value_at(what, i, start, range));
                }
                before = start;
            }
        }
        Ok(temperature)
    }

    /// The error for the first number that is out of its range.
    #[cold]
    fn check_numbers(&self) -> Result<(), Error> {
        share("top-p", self.top_p)?;
        share("min-p", self.min_p)?;
        share("typical-p", self.typical_p)?;
        let positive = |v: f64| v > 0.0 && v.is_finite();
        in_range("repetition penalty", self.repetition, "positive", positive)?;
        in_range("presence penalty", self.presence, "finite", f64::is_finite)?;
        in_range("frequency penalty", self.frequency, "finite", f64::is_finite)
    }

    fn check(&self, rows: usize, cols: usize, draws: usize) -> Result<Checked<'a>, Error> {
        let temperature = self.check_options()?;
        let whole = match draws.checked_rem(rows) {
            Some(rest) => rest == 0 && draws > 0,
            None => draws == 0,
        };
        if !whole {
            let needed = match draws {
                _ if rows == 0 => Size::Count(0),
                0 => Size::AtLeast(rows),
                _ => Size::MultipleOf(rows),
            };
            return Err(Error::shape("number of draws", needed, Size::Count(draws)));
        }
        let below = |what, value: u64, bound: u64, range| {
            if value < bound { Ok(()) } else { Err(Error::value(what, value, range)) }
        };
        below("number of columns", cols as u64, 1 << 32, "below 2^32")?;
        below("number of draws", (draws / rows.max(1)) as u64, 1 << 32, "below 2^32")?;
        below("step", self.step, NUMBERS, "below 2^48")?;
        let last = self.first_row.saturating_add(rows.saturating_sub(1) as u64);
        below("number of a row", last, NUMBERS, "below 2^48")?;
        for (token, bias) in self.bias.iter() {
            if token >= cols {
                return Err(Error::column(0, token, cols));
            }
            in_range("bias", bias.into(), "less than infinity", |v| v < f64::INFINITY)?;
        }
        if self.history.len() > 1 && self.history.len() != rows {
            let len = self.history.len();
            return Err(Error::count("number of histories (one, or one for each row)", rows, len));
        }
        for row in 0..self.history.len() {
            let history = self.history.get(row);
            if let Some(&token) = history.iter().find(|&&token| token >= cols) {
                return Err(Error::column(row, token, cols));
            }
        }
        self.each.check(rows)?;
        let mask = self.mask.map(|mask| RowMask::hiding(mask, rows, cols)).transpose()?;
        Ok(Checked { temperature, mask })
    }

    /// The sampler of a row that has settings of its own.
    fn of_row(&self, row: usize) -> Self {
        let Each { temperatures, top_ks, top_ps, min_ps, typical_ps, seeds, steps } = self.each;
        let number = |list: Option<&[f64]>, all| list.map_or(all, |list| list[row]);
        let counter = |list: Option<&[u64]>, all| list.map_or(all, |list| list[row]);
        Self {
            temperature: number(temperatures, self.temperature),
            top_k: top_ks.map_or(self.top_k, |ks| ks[row]),
            top_p: number(top_ps, self.top_p),
            min_p: number(min_ps, self.min_p),
            typical_p: number(typical_ps, self.typical_p),
            seed: counter(seeds, self.seed),
            step: counter(steps, self.step),
            each: Each::NONE,
            ..*self
        }
    }

    fn penalises(&self) -> bool {
        self.repetition != 1.0 || self.presence != 0.0 || self.frequency != 0.0
    }

    /// The history of a row, if penalties use it.
    fn history_of(&self, row: usize) -> &'a [usize] {
        if self.penalises() { self.history.of_row(row) } else { &[] }
    }

    /// Draws from some rows; the first is number `first` of the matrix.
    #[allow(clippy::too_many_arguments)]
    fn rows<T: Element>(
        &self,
        kernel: Ready,
        checked: &Checked,
        logits: Matrix<T>,
        each: usize,
        draws: &mut [usize],
        first: usize,
        mut scratch: Scratch<T::Arithmetic>,
    ) {
        let mut rows = RowByRow::new(self, checked);
        for (i, draws) in draws.chunks_mut(each.max(1)).enumerate() {
            let x = logits.row(i);
            let RowByRow { sampler, temperature, learned, .. } = rows.next(first + i);
            let history = self.history_of(first + i);
            let (seed, step) = (sampler.seed, sampler.step);
            let number = if self.each.seeds.is_some() { 0 } else { first + i };
            let stream = Stream { seed, row: self.first_row + number as u64, step };
            let packed = std::mem::take(&mut scratch.packed);
            let seen = checked.seen(first + i, x.len(), packed);
            let [learned, learned_edited] = learned;
            if self.bias.len() == 0 && history.is_empty() {
                sampler.row(kernel, temperature, x, seen, learned, draws, stream, &mut scratch);
            } else {
                let edited = std::mem::take(&mut scratch.edited);
                kernel.widen(x, edited);
                self.edit(edited, history, scratch.counted);
                let learned = learned_edited;
                sampler.row(
                    kernel,
                    temperature,
                    edited,
                    seen,
                    learned,
                    draws,
                    stream,
                    &mut scratch,
                );
                scratch.edited = edited;
            }
            scratch.packed = packed;
        }
    }

    /// Applies bias and penalties.
    fn edit<A: Element>(&self, x: &mut [A], history: &[usize], counted: &mut [u64]) {
        for (token, bias) in self.bias.iter() {
            x[token] = A::from_f64(x[token].to_f64() + f64::from(bias));
        }
        let counted = &mut counted[..history.len()];
        for (counted, &token) in counted.iter_mut().zip(history) {
            *counted = token as u64;
        }
        counted.sort_unstable();
        for run in counted.chunk_by(|a, b| a == b) {
            let token = run[0] as usize;
            let v = x[token].to_f64();
            let v = if v > 0.0 { v / self.repetition } else { v * self.repetition };
            let count = run.len() as f64;
            x[token] = A::from_f64(v - (count * self.frequency + self.presence));
        }
    }

    /// Draws from one row.
    #[allow(clippy::too_many_arguments)]
    fn row<T: Element, A: Element>(
        &self,
        kernel: Ready,
        wanted: &Temperature,
        x: &[T],
        seen: Option<Seen>,
        learned: &mut Option<Learned>,
        draws: &mut [usize],
        stream: Stream,
        scratch: &mut Scratch<A>,
    ) {
        let (exps, lists) = (&mut *scratch.exps, &mut scratch.lists);
        let mut kept = match self.keep(kernel, wanted, x, seen, learned, exps, lists) {
            Keeps::Nothing => return draws.fill(NONE),
            Keeps::One(token) => return draws.fill(token),
            Keeps::Tokens(kept) => kept,
        };
        if !self.is_reweighed() {
            return kept.draw(self.method, stream, draws);
        }
        let mut list = kept.list();
        match self.reweigh(kernel, wanted, x, &mut list, scratch.logits, scratch.again) {
            Some(()) => list.draw(kernel, self.method, stream, draws),
            None => draws.fill(NONE),
        }
    }

    /// Filters a row.
    #[allow(clippy::too_many_arguments)]
    fn keep<'s, 'm, T: Element>(
        &self,
        kernel: Ready,
        wanted: &Temperature,
        x: &[T],
        seen: Option<Seen>,
        learned: &mut Option<Learned>,
        exps: &'s mut [f32],
        lists: &'s mut Lists<'m>,
    ) -> Keeps<'s, 'm> {
        let temperature = if self.is_after() { Temperature::Finite(Scale::ONE) } else { *wanted };
        let scale = match temperature {
            Temperature::Finite(scale) => scale,
            Temperature::Zero | Temperature::Infinite => Scale::ONE,
        };
        // The columns behind a mask have no mass.
        let cols = seen.map_or(x.len(), |seen| seen.cols);
        let (x, words) = (&x[..cols], seen.map(|seen| seen.words));
        exps[cols..].fill(0.0);
        let Some(mut found) = kernel.exps(x, words, &scale, learned, &mut exps[..cols]) else {
            return Keeps::Nothing;
        };
        let is_seen = |token| seen.is_none_or(|seen| seen.has(token));
        if let Temperature::Zero = wanted {
            let largest = |(token, x): (usize, &T)| x.to_f64() == found.max && is_seen(token);
            let token = x.iter().enumerate().position(largest);
            return token.map_or(Keeps::Nothing, Keeps::One);
        }
        if let Temperature::Infinite = temperature {
            let mut sum = 0.0;
            for (token, (e, x)) in exps.iter_mut().zip(x).enumerate() {
                let has_mass = x.to_f64() > f64::NEG_INFINITY && is_seen(token);
                *e = if has_mass { 1.0 } else { 0.0 };
                sum += f64::from(*e);
            }
            (found.factor, found.largest, found.sum) = (1.0, 1.0, sum);
        }
        let masses = Masses::new(exps, found.factor);
        let mut kept = Kept::all(kernel, masses, &found, self.min_keep, lists);
        for need in self.filters().into_iter().flatten() {
            kept.filter(need);
        }
        Keeps::Tokens(kept)
    }

    /// Gives the tokens that are left their masses at the temperature that comes after the filters.
    fn reweigh<T: Element, A: Element>(
        &self,
        kernel: Ready,
        wanted: &Temperature,
        x: &[T],
        list: &mut List<'_, '_>,
        logits: &mut [A],
        again: &mut [f32],
    ) -> Option<()> {
        let (logits, again) = (&mut logits[..list.len()], &mut again[..list.len()]);
        for (logit, i) in logits.iter_mut().zip(list.indices()) {
            *logit = A::from_f64(x[i].to_f64());
        }
        let factor = match wanted {
            Temperature::Finite(scale) => {
                kernel.exps(logits, None, scale, &mut None, again)?.factor
            }
            Temperature::Zero | Temperature::Infinite => {
                again.fill(1.0);
                1.0
            }
        };
        list.reweigh(Masses::new(again, factor));
        Some(())
    }

    /// The tokens that are left of a row, and their softmax or its logarithm.
    #[allow(clippy::too_many_arguments)]
    fn left_of_row<A: Element>(
        &self,
        kernel: Ready,
        wanted: &Temperature,
        x: &[A],
        seen: Option<Seen>,
        learned: &mut Option<Learned>,
        scratch: &mut Scratch<A>,
        work: Work,
        write: impl FnOnce(Left<A>),
    ) {
        let Scratch { exps, lists, logits, again, .. } = scratch;
        let mut kept = match self.keep(kernel, wanted, x, seen, learned, exps, lists) {
            Keeps::Nothing => return write(Left { tokens: &[], values: &[], places: &mut [] }),
            Keeps::One(token) => {
                let value = if work == Work::Softmax { A::from_f64(1.0) } else { A::ZERO };
                let tokens = &[rank(1.0, token)];
                return write(Left { tokens, values: &[value], places: &mut [0] });
            }
            Keeps::Tokens(kept) => kept,
        };
        let mut list = kept.list();
        if self.is_reweighed() {
            // The logits are finite, so that there is a result.
            let _ = self.reweigh(kernel, wanted, x, &mut list, logits, again);
            list.drop_massless();
        }
        let values = &mut logits[..list.len()];
        for (value, i) in values.iter_mut().zip(list.indices()) {
            *value = x[i];
        }
        let (work, scale) = match (wanted, work) {
            (Temperature::Finite(scale), work) => (work, *scale),
            (_, Work::Softmax) => (Work::Uniform, Scale::ONE),
            _ => (Work::LogUniform, Scale::ONE),
        };
        // There is one row, with at least one token.
        if let Ok(row) = MatrixMut::new(&mut *values, list.len()) {
            kernel.run(Call::in_place(work, row, scale, Masked::Nan));
        }
        let (tokens, places) = list.ranks();
        write(Left { tokens, values, places });
    }

    /// Whether the temperature comes after the filters; without filters the order does not matter.
    fn is_after(&self) -> bool {
        self.order == Order::LlamaCpp && self.filters().iter().any(Option::is_some)
    }

    /// Whether masses change after the filters.
    fn is_reweighed(&self) -> bool {
        self.is_after() && self.temperature != 1.0
    }

    /// Whether logits are changed before anything else.
    fn edits(&self) -> bool {
        self.bias.len() > 0 || (self.penalises() && self.history.len() > 0)
    }

    pub(crate) fn plan<T: Element>(&self, shape: Shape) -> Result<Plan, Error> {
        self.exec.plan_work::<T>(Work::LogSumExp, shape)
    }

    /// Bytes of scratch memory that a thread needs in any call.
    pub(crate) fn memory<A: Element>(&self, cols: usize) -> Result<usize, Error> {
        in_default_environment(|| self.check_options())?;
        let left = self.needs(cols).of_left().size::<A>();
        Ok(left.saturating_add(room_for_row::<A>(cols)))
    }

    fn needs(&self, cols: usize) -> Needs {
        in_default_environment(|| self.needs_of(cols))
    }

    fn needs_of(&self, cols: usize) -> Needs {
        let if_ = |needed, n| if needed { n } else { 0 };
        // Lists of rows are not looked at: sizes are asked for before there are any.
        let typical = self.typical_p < 1.0 || self.each.typical_ps.is_some();
        let reweighed =
            if self.each.is_none() { self.is_reweighed() } else { self.order == Order::LlamaCpp };
        let longest = (0..self.history.len()).map(|i| self.history.get(i).len()).max().unwrap_or(0);
        Needs {
            cols,
            packed: match self.mask {
                None | Some(MaskData::Bits(_)) => 0,
                Some(_) => cols.div_ceil(32),
            },
            edited: if_(self.edits(), cols),
            counted: if_(self.edits(), longest),
            distances: if_(typical, cols),
            logits: if_(reweighed, cols),
            again: if_(reweighed, cols),
        }
    }

    /// The filters that are on, in order.
    fn filters(&self) -> [Option<Need>; 4] {
        let top_k = (self.top_k > 0).then_some(Need::Count(self.top_k as u64));
        let top_p = (self.top_p < 1.0).then_some(Need::Share(self.top_p));
        let min_p = (self.min_p > 0.0).then_some(Need::OfLargest(self.min_p));
        let typical = (self.typical_p < 1.0).then_some(Need::Typical(self.typical_p));
        match self.order {
            Order::Transformers => [top_k, top_p, min_p, typical],
            Order::LlamaCpp => [top_k, typical, top_p, min_p],
        }
    }
}

/// The settings of one row after the other, and what one row tells about the next.
struct RowByRow<'a> {
    all: Sampler<'a>,
    sampler: Sampler<'a>,
    temperature: Temperature,
    /// Of plain rows, and of those whose logits are changed.
    learned: [Option<Learned>; 2],
}

impl<'a> RowByRow<'a> {
    fn new(sampler: &Sampler<'a>, checked: &Checked) -> Self {
        let (all, temperature) = (*sampler, checked.temperature);
        Self { all, sampler: all, temperature, learned: Default::default() }
    }

    fn next(&mut self, row: usize) -> &mut Self {
        if !self.all.each.is_none() {
            let sampler = self.all.of_row(row);
            if sampler.temperature.to_bits() != self.sampler.temperature.to_bits() {
                // It was checked.
                self.temperature = Temperature::of(sampler.temperature).unwrap_or(self.temperature);
            }
            self.sampler = sampler;
        }
        self
    }
}

/// The tokens of a row that filters leave.
enum Keeps<'s, 'm> {
    /// The row has NaN or +inf, or is all -inf.
    Nothing,
    /// The only token, at temperature 0.
    One(usize),
    Tokens(Kept<'s, 'm>),
}

/// What is left of a row: ranks by increasing index, and a value for each.
struct Left<'s, A> {
    tokens: &'s [u64],
    values: &'s [A],
    /// Scratch memory of the same length.
    places: &'s mut [u64],
}

impl<A: Element> Left<'_, A> {
    /// Writes them by decreasing value, equal ones by increasing index.
    fn write(self, tokens: &mut [usize], values: &mut [A]) {
        for (at, place) in self.places.iter_mut().enumerate() {
            *place = at as u64;
        }
        let value = |place: u64| self.values[place as usize].to_f64();
        self.places.sort_unstable_by(|&a, &b| {
            let falling = value(b).partial_cmp(&value(a)).unwrap_or(Ordering::Equal);
            falling.then(a.cmp(&b))
        });
        for ((token, v), &place) in tokens.iter_mut().zip(values).zip(&*self.places) {
            let place = place as usize;
            (*token, *v) = (of_rank(self.tokens[place]).1, self.values[place]);
        }
    }
}

/// Scratch memory for the rows of one thread.
struct Scratch<'m, A> {
    exps: &'m mut [f32],
    lists: Lists<'m>,
    /// The bits of a row of a mask that is of another type.
    packed: &'m mut [u32],
    /// The changed logits of a row, and its history.
    edited: &'m mut [A],
    counted: &'m mut [u64],
    /// The logits that filters leave.
    logits: &'m mut [A],
    again: &'m mut [f32],
}

/// How many elements of scratch memory are needed.
#[derive(Clone, Copy)]
struct Needs {
    cols: usize,
    packed: usize,
    edited: usize,
    counted: usize,
    distances: usize,
    logits: usize,
    again: usize,
}

impl Needs {
    /// The numbers of elements of f32, of the arithmetic type, of u64 and of pairs.
    fn rooms(self) -> [usize; 4] {
        let Self { cols, packed: _, edited, counted, distances, logits, again } = self;
        let words = cols.saturating_mul(4).saturating_add(counted);
        [cols.saturating_add(again), edited.saturating_add(logits), words, distances]
    }

    /// Memory for the logits of rows and those that are left.
    fn of_left(self) -> Self {
        Self { edited: self.cols, logits: self.cols, ..self }
    }

    /// `None` if there is no memory.
    fn with<A: Element>(self, f: impl FnOnce(Scratch<A>)) -> Option<()> {
        let [floats, logits, words, pairs] = self.rooms();
        with_room(floats, |floats: &mut [f32]| {
            with_room(logits, |logits: &mut [A]| {
                with_room(words, |words: &mut [u64]| {
                    with_room(pairs, |pairs: &mut [[u64; 2]]| {
                        with_room(self.packed, |packed: &mut [u32]| {
                            let (exps, again) = floats.split_at_mut(self.cols);
                            let (edited, logits) = logits.split_at_mut(self.edited);
                            let (counted, lists) = words.split_at_mut(self.counted);
                            let lists = Lists::new(self.cols, lists, pairs);
                            f(Scratch { exps, lists, packed, edited, counted, logits, again });
                        })
                    })
                })
            })
        })
        .flatten()
        .flatten()
        .flatten()
        .flatten()
    }

    /// The size in bytes.
    fn size<A: Element>(self) -> usize {
        let [floats, logits, words, pairs] = self.rooms();
        let packed = room_for::<u32>(self.packed);
        [room_for::<f32>(floats), room_for::<A>(logits), room_for::<u64>(words), packed]
            .into_iter()
            .fold(room_for::<[u64; 2]>(pairs), usize::saturating_add)
    }
}
