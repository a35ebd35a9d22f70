//! The options of attention, a call with them, and what each row makes of them.

use std::ops::Range;

use half::{bf16, f16};

use crate::call::Masked;
use crate::call::bits::{BitMask, NOT_GIVEN, check_width, given, or, pack};
use crate::call::error::{Error, Size};
use crate::call::matrix::{Matrix, MatrixMut};
use crate::call::rows::{Rows, over_rows};
use crate::num::element::Element;
use crate::num::exp2::{Contract, MOST_LANES, Sum};
use crate::num::scale::{LogShift, Scale, Shift};
use crate::num::two_sum;

/// The factor that the logits of far rows still have to be multiplied by: no larger than any scale,
/// so that no score overflows.
pub(crate) fn far_scale() -> Scale {
    Scale::from_temperature(FAR).expect("a temperature in range")
}

/// The sign of a number: 1, -1, 0 or NaN.
pub(crate) fn sign(x: f32) -> f32 {
    if x == 0.0 { 0.0 } else { x.signum() }
}

/// The factor of far rows' logits: the least temperature.
pub(crate) const FAR: f64 = Scale::TEMPERATURES.0;

/// `c tanh(scale x / c)`, computed in f64: `c (e - 1) / (e + 1)`, `e = exp(2 scale x / c)`.
///
/// In rows of f64 every step but the exponential is a pair: `c (1 - q)`, `q = 2 / (e + 1)`. Proof
/// of the bound: the error of `e` is 1.22 u at most (u is 2^-53), and half of it reaches the
/// hyperbolic tangent. That is 0.61 c u of the logit, and at most 1.22 c ULP of a probability.
#[derive(Clone, Copy)]
pub(crate) struct Cap {
    /// The cap `c`, in units of the row's logits.
    pub(crate) c: f64,
    /// `2 * scale / c`, as a pair.
    pub(crate) factor: (f64, f64),
}

/// [`Contract::log_shift`] of a row of pairs. Its largest logit is `max + low`, with the
/// exponential `e`.
///
/// Where the largest element has half of the mass or more, its `e` must be the one in the sum, or
/// its error counts twice. `e exp(-low)` is the exponential of `max` alone; what rounding it loses
/// is added to the logarithm.
pub(crate) fn log_shift_of_pairs<E: Contract>(
    scale: &Scale,
    max: f64,
    (e, low): (f64, f64),
    shift: &Shift,
    sum: Sum,
) -> LogShift {
    if low == 0.0 {
        return E::log_shift(scale, max, e, shift, sum);
    }
    let (e_max, rest) = two_sum(e, e * libm::expm1(-(low * scale.get())));
    let mut log = E::log_shift(scale, max, e_max, shift, sum);
    if sum.hi <= 2.0 * e_max {
        log.c.1 -= rest / e_max;
    }
    log
}

/// The elements of a mask: numbers that are added to the logits, or booleans or bits that tell
/// whether a key is seen.
///
/// ```
/// use softmax_kernels::MaskData;
/// assert!(matches!(MaskData::from(&[true, false]), MaskData::Bool(&[1, 0])));
/// assert!(matches!(MaskData::from(&[0.0f32, -1.0]), MaskData::F32(&[0.0, -1.0])));
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum MaskData<'a> {
    /// Added; -inf hides a key.
    F32(&'a [f32]),
    /// Added, to logits of f64.
    F64(&'a [f64]),
    /// Added.
    F16(&'a [f16]),
    /// Added.
    Bf16(&'a [bf16]),
    /// A key is seen where this is not 0.
    Bool(&'a [u8]),
    /// A key is seen where its bit is set.
    Bits(BitMask<'a>),
}

impl<'a> MaskData<'a> {
    /// How many rows of masks there are for `rows` rows of `cols` elements: 1 or `rows`.
    ///
    /// # Errors
    /// [`Error::Shape`] for another size, [`Error::Value`] for more columns than there are.
    #[doc(hidden)]
    pub fn rows(&self, rows: usize, cols: usize) -> Result<usize, Error> {
        if let Self::Bits(bits) = self {
            return bits.rows(rows, cols);
        }
        let (len, row) = (self.len(), Some(cols));
        match Some(len) {
            len if len == row => Ok(1),
            len if len == rows.checked_mul(cols) => Ok(rows),
            _ => Err(Error::shape(Self::SIZE, Size::Matrix(rows, cols), Size::Count(len))),
        }
    }

    /// The name of its size in errors.
    #[doc(hidden)]
    pub const SIZE: &'static str =
        "number of elements of the mask (a row for all, or one for each)";

    /// Checks that there are `rows` rows of `cols` elements. No overflow: there are as many scores.
    fn check_rows(&self, rows: usize, cols: usize) -> Result<(), Error> {
        match self {
            Self::Bits(bits) => bits.check(rows, cols),
            _ if self.len() == rows * cols => Ok(()),
            _ => Err(Error::count("number of elements of the mask", rows * cols, self.len())),
        }
    }

    /// Elements; of bits, words.
    #[doc(hidden)]
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        match self {
            Self::F32(m) => m.len(),
            Self::F64(m) => m.len(),
            Self::F16(m) => m.len(),
            Self::Bf16(m) => m.len(),
            Self::Bool(m) => m.len(),
            Self::Bits(m) => m.words().len(),
        }
    }

    /// One row of `cols` elements.
    #[doc(hidden)]
    #[must_use]
    #[inline(always)]
    pub fn row(self, row: usize, cols: usize) -> Self {
        if let Self::Bits(m) = self {
            return Self::Bits(m.row(row, m.width(cols)));
        }
        self.part(row * cols..(row + 1) * cols)
    }

    /// The elements in a range; of bits, the words.
    #[doc(hidden)]
    #[must_use]
    #[inline(always)]
    pub fn part(self, range: Range<usize>) -> Self {
        match self {
            Self::F32(m) => Self::F32(&m[range]),
            Self::F64(m) => Self::F64(&m[range]),
            Self::F16(m) => Self::F16(&m[range]),
            Self::Bf16(m) => Self::Bf16(&m[range]),
            Self::Bool(m) => Self::Bool(&m[range]),
            Self::Bits(m) => Self::Bits(BitMask::new(&m.words()[range])),
        }
    }

    /// A row of `cols` elements that only hides as words of bits, in `room` if it is not yet; and
    /// the number of columns that these have bits for. The others are hidden.
    #[doc(hidden)]
    pub fn bits<'m>(self, cols: usize, room: &'m mut [u32]) -> (&'m [u32], usize)
    where
        'a: 'm,
    {
        if let Self::Bits(bits) = self {
            return (bits.words(), bits.width(cols));
        }
        match self {
            Self::Bool(m) => pack(room, cols, |i| m[i] != 0),
            _ => pack(room, cols, |i| self.added(i) == 0.0),
        }
        (room, cols)
    }

    /// Checks that every element hides or changes nothing.
    ///
    /// # Errors
    /// [`Error::Value`] names the first other number.
    #[doc(hidden)]
    pub fn check_hides(&self) -> Result<(), Error> {
        let n = self.len();
        if self.only_hides((0, n)) {
            return Ok(());
        }
        let adds = |&i: &usize| !(self.added(i) == 0.0 || self.added(i) == f64::NEG_INFINITY);
        let range = "0 or -inf: this operation's masks only hide";
        match (0..n).find(adds) {
            Some(i) => Err(Error::value_at("element of the mask", i, self.added(i), range)),
            None => Ok(()),
        }
    }

    /// What is added to the logit of a key: of booleans and bits 0 or -inf.
    #[doc(hidden)]
    pub fn added(&self, key: usize) -> f64 {
        match self {
            Self::F32(m) => m[key].into(),
            Self::F64(m) => m[key],
            // Not the functions of `half` of the same name: see num/element.rs.
            Self::F16(m) => Element::to_f64(m[key]),
            Self::Bf16(m) => Element::to_f64(m[key]),
            Self::Bool(m) => {
                if m[key] != 0 {
                    0.0
                } else {
                    f64::NEG_INFINITY
                }
            }
            Self::Bits(m) => {
                if m.is_seen(key) {
                    0.0
                } else {
                    f64::NEG_INFINITY
                }
            }
        }
    }

    /// Whether its elements fit logits of the type `A`.
    ///
    /// # Errors
    /// [`Error::Value`] if not.
    #[doc(hidden)]
    pub fn check<A>(&self) -> Result<(), Error> {
        if matches!(self, Self::F64(_)) && size_of::<A>() != size_of::<f64>() {
            let what = "number of bytes of the mask's elements";
            return Err(Error::value(what, size_of::<f64>(), "at most 4, but for rows of f64"));
        }
        Ok(())
    }

    /// Whether the mask is added to logits.
    pub(crate) fn is_of_numbers(&self) -> bool {
        !matches!(self, Self::Bool(_) | Self::Bits(_))
    }

    /// Whether the mask does nothing but hide some of these keys: every element is 0 or -inf, or a
    /// boolean.
    #[doc(hidden)]
    #[inline(always)]
    pub fn only_hides(&self, (from, to): (usize, usize)) -> bool {
        macro_rules! all {
            ($m:ident: $t:ty) => {
                // A chunk is tested without an early exit, which is compiled to vectors.
                $m[from..to].chunks(256).all(|chunk| {
                    chunk.iter().fold(true, |all, m| {
                        let bits = m.to_bits();
                        all & ((bits << 1 == 0) | (bits == <$t>::NEG_INFINITY.to_bits()))
                    })
                })
            };
        }
        match self {
            Self::F32(m) => all!(m: f32),
            Self::F64(m) => all!(m: f64),
            Self::F16(m) => all!(m: f16),
            Self::Bf16(m) => all!(m: bf16),
            Self::Bool(_) | Self::Bits(_) => true,
        }
    }
}

impl<'a> From<BitMask<'a>> for MaskData<'a> {
    fn from(data: BitMask<'a>) -> Self {
        Self::Bits(data)
    }
}

macro_rules! mask_data {
    ($($t:ty: $variant:ident),*) => {
        $(impl<'a> From<&'a [$t]> for MaskData<'a> {
            fn from(data: &'a [$t]) -> Self {
                Self::$variant(data)
            }
        })*

        mask_data!(also: $($t),*, bool);
    };
    (also: $($t:ty),*) => {
        $(impl<'a> From<&'a Vec<$t>> for MaskData<'a> {
            fn from(data: &'a Vec<$t>) -> Self {
                data[..].into()
            }
        }

        impl<'a, const N: usize> From<&'a [$t; N]> for MaskData<'a> {
            fn from(data: &'a [$t; N]) -> Self {
                data[..].into()
            }
        })*
    };
}

mask_data!(f32: F32, f64: F64, f16: F16, bf16: Bf16, u8: Bool);

impl<'a> From<&'a [bool]> for MaskData<'a> {
    fn from(data: &'a [bool]) -> Self {
        // SAFETY: a bool is a byte, 0 or 1.
        Self::Bool(unsafe { std::slice::from_raw_parts(data.as_ptr().cast(), data.len()) })
    }
}

/// The elements of a [`MaskData`] without anything else: smaller, for what lies on stacks often.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Elements<'a> {
    F32(&'a [f32]),
    F64(&'a [f64]),
    F16(&'a [f16]),
    Bf16(&'a [bf16]),
    Bool(&'a [u8]),
    Bits(&'a [u32]),
}

impl<'a> Elements<'a> {
    #[inline(always)]
    fn of(data: MaskData<'a>) -> Self {
        match data {
            MaskData::F32(m) => Self::F32(m),
            MaskData::F64(m) => Self::F64(m),
            MaskData::F16(m) => Self::F16(m),
            MaskData::Bf16(m) => Self::Bf16(m),
            MaskData::Bool(m) => Self::Bool(m),
            MaskData::Bits(m) => Self::Bits(m.words()),
        }
    }

    /// The whole; bits as one row, or as many without gaps.
    #[inline(always)]
    pub(crate) fn data(self) -> MaskData<'a> {
        match self {
            Self::F32(m) => MaskData::F32(m),
            Self::F64(m) => MaskData::F64(m),
            Self::F16(m) => MaskData::F16(m),
            Self::Bf16(m) => MaskData::Bf16(m),
            Self::Bool(m) => MaskData::Bool(m),
            Self::Bits(m) => MaskData::Bits(BitMask::new(m)),
        }
    }
}

/// A mask and its shape.
#[derive(Clone, Copy, Debug)]
pub struct Mask<'a> {
    elements: Elements<'a>,
    /// Batch, heads, queries.
    shape: [usize; 3],
    /// The number of its columns, if it has fewer than keys, or else [`NOT_GIVEN`].
    width: usize,
    /// Of bits: the words from one row to the next, or else [`NOT_GIVEN`].
    stride: usize,
}

impl<'a> Mask<'a> {
    /// A mask. Values of f32, f16 or bf16 (f64 for scores of f64) are added to the logits; bool or
    /// u8 say which keys are seen: `true` or not 0; so do the bits of a [`BitMask`], each row of
    /// which starts at a word. `shape` is batch, heads, queries: each as many
    /// as the scores have, or 1 for one that serves all. A row of the mask is as long as a row of
    /// the scores.
    ///
    /// ```
    /// use softmax_kernels::Mask;
    /// // One row of three keys for all queries of all heads.
    /// let mask = Mask::new(&[true, true, false][..], [1, 1, 1]);
    /// ```
    pub fn new(data: impl Into<MaskData<'a>>, shape: [usize; 3]) -> Self {
        let data = data.into();
        let (width, stride) = match &data {
            MaskData::Bits(bits) => bits.given(),
            _ => (NOT_GIVEN, NOT_GIVEN),
        };
        Self { elements: Elements::of(data), shape, width, stride }
    }

    /// The mask has columns only for the first `keys` keys, and the keys after them are hidden, as
    /// ONNX's `Attention` pads its mask. Calls refuse more columns than keys.
    ///
    /// ```
    /// use softmax_kernels::Mask;
    /// // Of five keys, say: seen, hidden, seen, hidden, hidden.
    /// let mask = Mask::new(&[true, false, true][..], [1, 1, 1]).hidden_from(3);
    /// ```
    #[must_use]
    pub const fn hidden_from(mut self, keys: usize) -> Self {
        self.width = given(keys);
        self
    }

    /// Its elements, with the gaps of bits.
    #[inline(always)]
    fn data(&self) -> MaskData<'a> {
        match self.elements.data() {
            MaskData::Bits(bits) if self.stride != NOT_GIVEN => bits.stride(self.stride).into(),
            data => data,
        }
    }
}

/// The options of attention. Rows are those of a tensor of batch, heads, queries and keys.
#[derive(Clone, Copy, Debug)]
pub struct Attend<'a> {
    /// Heads.
    pub heads: usize,
    /// Queries of a head.
    pub queries: usize,
    /// The factor of the scores.
    pub scale: Scale,
    /// The soft cap `c` of `c * tanh(x / c)`.
    pub cap: Option<f64>,
    /// The mask, which is added or hides keys.
    pub mask: Option<Mask<'a>>,
    /// Each head's factor of the mask.
    pub mask_slopes: Option<&'a [f32]>,
    /// ALiBi: each head's factor of the distance of a key from the query's position.
    pub slopes: Option<&'a [f32]>,
    /// Each head's sink: a logit without a key.
    pub sinks: Option<&'a [f32]>,
    /// Number of keys that are seen, for each sequence of the batch or for each row.
    pub lengths: Option<&'a [usize]>,
    /// Whether keys after the query's position are hidden.
    pub causal: bool,
    /// Number of keys that are seen up to the query's position: the last ones.
    pub window: Option<usize>,
    /// Number of keys that are seen after the query's position: the first ones.
    pub window_ahead: Option<usize>,
    /// The position of the first query among the keys; by default the last query's is that of the
    /// last key.
    pub offset: Option<isize>,
    /// The same for each sequence of the batch, or for the query of each row; it is used instead.
    pub offsets: Option<&'a [isize]>,
    /// The result of rows that see no key.
    pub masked: Masked,
}

/// The range of soft caps. Within it a capped logit has an absolute error of at most 2^-30 in f32.
const CAPS: (f64, f64) = (1.0 / 1_048_576.0, 1_048_576.0);

/// The largest distance of a key from a query for ALiBi. All integers up to it are exact, with a
/// vector more, because vectors may start at keys that are not seen.
fn max_distance<A>() -> i64 {
    let digits = if size_of::<A>() == size_of::<f64>() {
        f64::MANTISSA_DIGITS
    } else {
        f32::MANTISSA_DIGITS
    };
    (1 << digits) - MOST_LANES as i64
}

/// The options of one row.
#[derive(Clone, Copy)]
pub(crate) struct Row<'a> {
    /// The range of keys that are seen, apart from masks.
    pub(crate) keys: (usize, usize),
    pub(crate) mask: Option<Elements<'a>>,
    pub(crate) mask_slope: Option<f32>,
    pub(crate) slope: Option<f32>,
    pub(crate) sink: Option<f32>,
    /// Whether its logits are pairs: more than the scaled scores.
    pub(crate) pairs: bool,
    /// The query's position among the keys.
    pub(crate) position: isize,
}

impl<'a> Attend<'a> {
    /// No options: softmax of every row.
    pub const fn new(heads: usize, queries: usize) -> Self {
        Attend {
            heads,
            queries,
            scale: Scale::ONE,
            cap: None,
            mask: None,
            mask_slopes: None,
            slopes: None,
            sinks: None,
            lengths: None,
            causal: false,
            window: None,
            window_ahead: None,
            offset: None,
            offsets: None,
            masked: Masked::Nan,
        }
    }

    /// Checks all lengths and values for scores of this shape, which are computed in the type `A`.
    pub(crate) fn check<A>(&self, rows: usize, cols: usize) -> Result<(), Error> {
        let &Attend { heads, queries, .. } = self;
        let per_batch = heads.checked_mul(queries).filter(|&n| n > 0);
        let batch = match per_batch {
            Some(n) if rows.is_multiple_of(n) => rows / n,
            None if rows == 0 => 0,
            _ => {
                let what = "number of rows (batch times heads times queries)";
                let whole = Size::MultipleOf(heads.saturating_mul(queries));
                return Err(Error::shape(what, whole, Size::Count(rows)));
            }
        };
        if let Some(c) = self.cap
            && !(c >= CAPS.0 && c <= CAPS.1)
        {
            return Err(Error::value("soft cap", c, "in 2^-20..=2^20"));
        }
        if let Some(mask) = &self.mask {
            let data = mask.data();
            data.check::<A>()?;
            let scores = [batch, heads, queries];
            if mask.shape.iter().zip(scores).any(|(&m, n)| m != n && m != 1) {
                let what = "shape of the mask (batch, heads, queries; 1 serves for all)";
                let [expected, got] = [scores, mask.shape].map(|s| Size::Tensor(Box::new(s)));
                return Err(Error::shape(what, expected, got));
            }
            let width = or(mask.width, cols);
            check_width(width, cols, "no more than there are keys")?;
            // No overflow: the scores have at least as many rows.
            data.check_rows(mask.shape.iter().product(), width)?;
        }
        let per_head = [
            (self.mask_slopes, "number of slopes of the mask (one for each head)"),
            (self.slopes, "number of slopes (one for each head)"),
            (self.sinks, "number of sinks (one for each head)"),
        ];
        for (slice, what) in per_head {
            if let Some(slice) = slice
                && slice.len() != heads
            {
                return Err(Error::count(what, heads, slice.len()));
            }
        }
        if let Some(lengths) = self.lengths
            && lengths.len() != batch
            && lengths.len() != rows
        {
            let what = "number of lengths (one for each sequence of the batch, or each row)";
            return Err(Error::count(what, batch, lengths.len()));
        }
        if let Some(offsets) = self.offsets
            && offsets.len() != batch
            && offsets.len() != rows
        {
            let what = "number of offsets (one for each sequence of the batch, or each row)";
            return Err(Error::count(what, batch, offsets.len()));
        }
        if self.slopes.is_none() || rows == 0 {
            return Ok(());
        }
        let limit = max_distance::<A>();
        match self.farthest(rows, cols) {
            Some(distance) if distance.abs() > limit => {
                let range = if limit > 1 << 24 {
                    "within 2^53 - 16, either way"
                } else {
                    "within 2^24 - 16, either way"
                };
                Err(Error::value("distance of a key for ALiBi", distance, range))
            }
            _ => Ok(()),
        }
    }

    /// The most keys after its position that a query sees.
    fn ahead(&self) -> Option<usize> {
        if self.causal { Some(0) } else { self.window_ahead }
    }

    /// The largest distance of a key from a query that sees it, with lengths and masks left out.
    fn farthest(&self, rows: usize, cols: usize) -> Option<i64> {
        let queries = self.queries.saturating_sub(1);
        let Some(offsets) = self.offsets else {
            let [first, last] = [0, queries].map(|query| self.position(0, query, rows, cols));
            return self.farthest_of(first, last, cols);
        };
        let queries = if offsets.len() == rows { 0 } else { queries };
        let distances = offsets.iter().filter_map(|&first| {
            self.farthest_of(first, first.saturating_add(queries as isize), cols)
        });
        distances.max_by_key(|distance| distance.abs())
    }

    /// The same as [`Attend::farthest`], for queries between these positions.
    fn farthest_of(&self, first: isize, last: isize, cols: usize) -> Option<i64> {
        // No branch where there is no limit: compilers compare the number that is not there, too,
        // which memory checkers report.
        let ahead = self.ahead().unwrap_or(usize::MAX);
        let window = self.window.unwrap_or(usize::MAX);
        // The first query is the farthest from the keys after it, the last from those before it.
        let most = (cols as i128 - 1 - first as i128).min(ahead as i128);
        let least = (-(last as i128)).max(1 - window as i128);
        let visible = least <= most;
        let distance = if most.abs() < least.abs() { least } else { most };
        let most = i128::from(i64::MAX);
        (cols > 0 && visible).then_some(distance.clamp(-most, most) as i64)
    }

    /// The position of a row's query among the keys; `query` is the query's number in its sequence.
    #[inline(always)]
    fn position(&self, row: usize, query: usize, rows: usize, cols: usize) -> isize {
        let offset = match self.offsets {
            Some(offsets) if offsets.len() == rows => return offsets[row],
            Some(offsets) => offsets[row / (self.heads * self.queries)],
            None => self.offset.unwrap_or(cols as isize - self.queries as isize),
        };
        offset.saturating_add(query as isize)
    }

    /// Whether logits are more than the scaled scores, whatever the mask adds.
    fn is_biased(&self) -> bool {
        let by_head = [self.mask_slopes, self.slopes, self.sinks];
        self.cap.is_some() || by_head.iter().any(|slice| slice.is_some())
    }

    /// The options of row `row` of `rows`, of `cols` keys, for a tile that has the keys of this
    /// range. A mask of numbers is judged by those alone: `only_hides` is [`MaskData::only_hides`].
    #[inline(always)]
    pub(crate) fn row(
        &self,
        row: usize,
        (rows, cols): (usize, usize),
        tile: (usize, usize),
        only_hides: impl Fn(&MaskData, (usize, usize)) -> bool,
    ) -> Row<'a> {
        let (head, query) = (row / self.queries, row % self.queries);
        let (batch, head) = (head / self.heads, head % self.heads);
        let position = self.position(row, query, rows, cols);
        let mut end = match self.lengths {
            Some(lengths) => cols.min(lengths[if lengths.len() == rows { row } else { batch }]),
            None => cols,
        };
        // The first key after the query's position.
        let next = usize::try_from(position.saturating_add(1)).unwrap_or(0);
        if let Some(ahead) = self.ahead() {
            // For a position before the first key, fewer of the keys after it exist.
            let before = position.saturating_add(1).min(0).unsigned_abs();
            end = end.min(next.saturating_add(ahead.saturating_sub(before)));
        }
        let begin = match self.window {
            Some(window) => next.saturating_sub(window),
            None => 0,
        };
        let mask = self.mask.map(|mask| {
            let width = or(mask.width, cols);
            end = end.min(width);
            let [batches, heads, queries] = mask.shape;
            let at = |i, n| if n == 1 { 0 } else { i };
            let row = (at(batch, batches) * heads + at(head, heads)) * queries + at(query, queries);
            mask.data().row(row, width)
        });
        let (begin, end) = (begin.max(tile.0), end.min(tile.1));
        let keys = (begin.min(end), end);
        Row {
            keys,
            // A mask of numbers that only hides is treated as one of booleans.
            pairs: self.is_biased()
                || mask.is_some_and(|mask| mask.is_of_numbers() && !only_hides(&mask, keys)),
            mask: mask.map(Elements::of),
            mask_slope: self.mask_slopes.map(|slopes| slopes[head]),
            slope: self.slopes.map(|slopes| slopes[head]),
            sink: self.sinks.map(|sinks| sinks[head]),
            position,
        }
    }
}

/// The work of one call: probabilities, which may be of another type or in place, and each row's
/// log-sum-exp, if wanted.
#[derive(Debug)]
pub struct Scores<'a, T: Element, U> {
    views: Rows<'a, T, U>,
    /// One for each row, or empty.
    pub(crate) lse: &'a mut [T::Arithmetic],
    /// The index of the first row among the tensor's rows, and the number of those.
    first: usize,
    of: usize,
    pub(crate) attend: Attend<'a>,
}

over_rows!(Scores<'a, T: Element, U>, T, U);

impl<'a, T: Element, U: Element> Scores<'a, T, U> {
    /// Reads `x` and writes `y` and `lse`; `scale` replaces that of the options.
    ///
    /// # Errors
    /// [`Error::Shape`] if shapes or lengths of options do not fit; [`Error::Value`] for values out
    /// of range.
    pub fn new(
        x: Matrix<'a, T>,
        y: MatrixMut<'a, U>,
        lse: Option<&'a mut [T::Arithmetic]>,
        attend: &Attend<'a>,
        scale: Scale,
    ) -> Result<Self, Error> {
        let views = Rows::new(x, y);
        let views =
            views.map_err(|[scores, y]| Error::differ("matrix of probabilities", scores, y))?;
        Self::checked(views, lse, attend, scale)
    }

    fn checked(
        views: Rows<'a, T, U>,
        lse: Option<&'a mut [T::Arithmetic]>,
        attend: &Attend<'a>,
        scale: Scale,
    ) -> Result<Self, Error> {
        let (rows, cols) = (views.rows(), views.cols());
        attend.check::<T::Arithmetic>(rows, cols)?;
        if let Some(lse) = &lse
            && lse.len() != rows
        {
            let what = "number of log-sum-exps (one for each row)";
            return Err(Error::count(what, rows, lse.len()));
        }
        let lse = lse.unwrap_or_default();
        Ok(Scores { views, lse, first: 0, of: rows, attend: Attend { scale, ..*attend } })
    }

    /// The first `at` rows and the others.
    #[must_use]
    pub fn split_rows(self, at: usize) -> (Self, Self) {
        let (first, of, attend) = (self.first, self.of, self.attend);
        let (views, other_views) = self.views.split(at);
        let (lse, other_lse) = self.lse.split_at_mut(views.rows().min(self.lse.len()));
        let others = first + views.rows();
        (
            Scores { views, lse, first, of, attend },
            Scores { views: other_views, lse: other_lse, first: others, of, attend },
        )
    }

    /// The same of the negative of all scores, for which there must be exactly as much room.
    #[must_use]
    pub fn negated(mut self, room: &'a mut [T]) -> Self {
        for (row, to) in room.chunks_exact_mut(self.cols.max(1)).enumerate() {
            self.elements(row).zip(to).for_each(|(x, to)| *to = x.minus());
        }
        self.views.read_instead(room);
        self
    }

    /// The options of a row: [`Attend::row`].
    #[inline(always)]
    pub(crate) fn options(
        &self,
        row: usize,
        only_hides: impl Fn(&MaskData, (usize, usize)) -> bool,
    ) -> Row<'a> {
        self.attend.row(self.first + row, (self.of, self.cols), (0, self.cols), only_hides)
    }
}

impl<'a, T: Element> Scores<'a, T, T> {
    /// Overwrites scores with probabilities.
    ///
    /// # Errors
    /// As [`Scores::new`].
    pub fn in_place(
        x: MatrixMut<'a, T>,
        lse: Option<&'a mut [T::Arithmetic]>,
        attend: &Attend<'a>,
        scale: Scale,
    ) -> Result<Self, Error> {
        Self::checked(Rows::in_place(x), lse, attend, scale)
    }
}
