//! Softmax of attention scores in tiles: the state of a row between them, and a call.
//!
//! A row's state is an integer shift `M` and the sum of the exponentials by it. A tile with a
//! larger maximum may raise the shift; what was summed before is then multiplied by a power of two,
//! which rounds nothing. The sum is kept as a sweep keeps it: one number for each lane of the
//! current block, and the sum of the blocks before. So the order of all additions is that of a
//! whole row, wherever tiles in order are cut.

use crate::call::Masked;
use crate::call::error::Error;
use crate::call::matrix::{Matrix, MatrixMut};
use crate::call::rows::{Rows, over_rows};
use crate::call::scores::{Attend, MaskData, Row};
use crate::mem::fpenv::in_default_environment;
use crate::num::element::{Element, Plain};
use crate::num::exp2::{BLOCK, Contract, LANES_F32, fold_f32, power_of_two};
use crate::num::scale::{Scale, Shift};

/// Octaves of the new shift below the maximum's own. Weights of the largest logit are then between
/// 2^5 and 2^7, so that f16 has as many small ones as possible.
const LEAD: f64 = 4.0;

/// Octaves that the maximum may rise by without another shift: weights stay below 2^15.
const SPARE: f64 = 8.0;

/// From this many octaves on logits are computed in f64: [`far_tile`].
const HUGE: f64 = 65_536.0;

/// Beyond this, the octaves of different f32 are so far apart that only the largest counts, and the
/// octaves of an f32 rounded to f64 are exact enough.
const FARTHEST: f64 = (1u64 << 40) as f64;

/// The most octaves that a sum is divided by; beyond them it is 0. In f32 it would not be seen.
const MOST: f64 = 900.0;

/// The state of one row of `OnlineSoftmax`: the shift of its weights and their sum.
///
/// ```
/// use softmax_kernels::OnlineRow;
/// let row = OnlineRow::NEW;
/// assert!(row.is_empty() && row.sum() == 0.0);
/// ```
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OnlineRow {
    /// The sum of the block, lane by lane.
    pub(crate) lanes: [f64; LANES_F32],
    /// The sum of the blocks before.
    total: f64,
    /// The largest logit; -inf if there is none, NaN or +inf in a special row.
    max: f64,
    /// Its exponential.
    largest: f64,
    /// The maximum's own shift, by which exponentials are flushed.
    own: f64,
    /// The shift: an integer.
    shift: f64,
    /// The number of the block: its first key is this times [`BLOCK`].
    pub(crate) block: u64,
}

// SAFETY: numbers of eight bytes.
unsafe impl Plain for OnlineRow {}

impl Default for OnlineRow {
    fn default() -> Self {
        Self::NEW
    }
}

impl OnlineRow {
    /// A row that has seen no key.
    pub const NEW: Self = Self {
        lanes: [0.0; LANES_F32],
        total: 0.0,
        max: f64::NEG_INFINITY,
        largest: 0.0,
        own: 0.0,
        shift: 0.0,
        block: 0,
    };

    /// Whether the row has seen no key.
    pub fn is_empty(&self) -> bool {
        // By its bits: the caller's environment may trap what a comparison raises.
        self.max.to_bits() == f64::NEG_INFINITY.to_bits()
    }

    /// Whether the row has seen NaN or +inf.
    pub(crate) fn is_special(&self) -> bool {
        self.max.is_nan() || self.max == f64::INFINITY
    }

    /// Whether the sum is NaN.
    #[inline(always)]
    pub(crate) fn has_nan(&self) -> bool {
        self.lanes.iter().fold(self.total, |sum, lane| sum + lane).is_nan()
    }

    /// The sum of the row's weights as they were before they were rounded to their type, in units
    /// of the last ones.
    ///
    /// ```
    /// use softmax_kernels::OnlineRow;
    /// assert_eq!(OnlineRow::NEW.sum(), 0.0);
    /// ```
    pub fn sum(&self) -> f64 {
        in_default_environment(|| self.added())
    }

    fn added(&self) -> f64 {
        self.total + fold_f32(self.lanes).hi
    }

    /// The state as five numbers, to be sent: the largest logit, its weight, the shift of the
    /// largest logit, the shift of the weights, their sum. It is as [`OnlineRow::merge`] takes it:
    /// later keys begin a new sum.
    ///
    /// ```
    /// use softmax_kernels::OnlineRow;
    /// let row = OnlineRow::from_array(OnlineRow::NEW.to_array());
    /// assert_eq!(row, OnlineRow::NEW);
    /// ```
    pub fn to_array(&self) -> [f64; 5] {
        [self.max, self.largest, self.own, self.shift, self.sum()]
    }

    /// The state of the five numbers of [`OnlineRow::to_array`]. Other numbers make a row whose
    /// weights are not specified.
    ///
    /// ```
    /// use softmax_kernels::OnlineRow;
    /// let row = OnlineRow::from_array([1.0, 34.8, 0.0, -4.0, 34.8]);
    /// assert_eq!(row.sum(), 34.8);
    /// ```
    pub const fn from_array([max, largest, own, shift, total]: [f64; 5]) -> Self {
        Self { lanes: [0.0; LANES_F32], total, max, largest, own, shift, block: 0 }
    }

    /// Makes the row NaN, or +inf.
    pub(crate) fn set_special(&mut self, value: f64) {
        *self = Self { max: value, ..Self::NEW };
    }

    /// Adds what the lanes have to the sum of the blocks, if a key of another block is next.
    #[inline(always)]
    pub(crate) fn enter_block(&mut self, block: u64) {
        if block != self.block {
            self.end_block();
            self.block = block;
        }
    }

    fn end_block(&mut self) {
        self.total = self.added();
        self.lanes = [0.0; LANES_F32];
    }

    /// Multiplies the sums by a power of two.
    fn times(&mut self, power: f64) {
        self.lanes.iter_mut().for_each(|lane| *lane *= power);
        self.total *= power;
        self.largest *= power;
    }

    /// Raises the shift if the row now has a maximum with the shift `own`. Returns the factor of
    /// what was accumulated before.
    #[inline(always)]
    fn raise(&mut self, own: f64) -> f32 {
        if self.is_empty() {
            (self.own, self.shift) = (own, own - LEAD);
            return 0.0;
        }
        if own > self.own {
            self.own = own;
        }
        if own - self.shift <= LEAD + SPARE {
            return 1.0;
        }
        let octaves = self.shift - (own - LEAD);
        self.shift = own - LEAD;
        self.times(power(octaves));
        factor(octaves)
    }

    /// Prepares the row for a tile whose largest logit is `max`, in units of the scale. Returns the
    /// shift of the tile's exponentials, and the factor of what was accumulated before; `None` if
    /// the row is beyond the range of f32's exponential.
    #[inline(always)]
    pub(crate) fn begin(&mut self, max: f64, scale: &Scale) -> Option<(Shift, f32)> {
        let own = scale.shift(max, f32::MIN_EXP);
        if own.is_huge() || self.own.abs() >= HUGE {
            return None;
        }
        let factor = self.raise(f64::from(own.m));
        let cut = scale.cut(self.own as i32, f32::MIN_EXP);
        Some((Shift { subtract: 0.0, m: self.shift as i32, cut }, factor))
    }

    /// Whether `max`, in units of the scale, is larger than all logits before.
    #[inline(always)]
    pub(crate) fn is_above(&self, max: f64, scale: &Scale) -> bool {
        logit(max, scale) > self.max
    }

    /// Remembers the largest logit of a tile, and the largest exponential.
    #[inline(always)]
    pub(crate) fn saw(&mut self, max: f64, scale: &Scale, largest: f64) {
        let max = logit(max, scale);
        if max > self.max {
            self.max = max;
        }
        if largest > self.largest {
            self.largest = largest;
        }
    }

    /// The row of two rows that have seen different keys, those of `other` after its own; and the
    /// factors of what either has accumulated: powers of two, one of them 1.
    ///
    /// The sums are added as those of blocks are, so the bits are those of a whole row if `other`
    /// has seen keys of one block of [`BLOCK`] keys alone, and this row those of the blocks before.
    ///
    /// ```
    /// use softmax_kernels::OnlineRow;
    /// let (mut row, other) = (OnlineRow::NEW, OnlineRow::from_array([1.0, 35.0, 0.0, -4.0, 35.0]));
    /// assert_eq!(row.merge(&other), (0.0, 1.0));
    /// assert_eq!(row.sum(), 35.0);
    /// ```
    pub fn merge(&mut self, other: &Self) -> (f32, f32) {
        in_default_environment(|| self.merged(other))
    }

    fn merged(&mut self, other: &Self) -> (f32, f32) {
        for special in [f64::NAN, f64::INFINITY] {
            let is = |row: &Self| row.max == special || row.max.is_nan() && special.is_nan();
            if is(self) || is(other) {
                self.set_special(special);
                return (1.0, 1.0);
            }
        }
        if other.is_empty() {
            return (if self.is_empty() { 0.0 } else { 1.0 }, 0.0);
        }
        let mut other = *other;
        other.end_block();
        if self.is_empty() {
            *self = other;
            return (0.0, 1.0);
        }
        self.end_block();
        let shift = f64::max(self.shift, other.shift);
        let octaves = [self.shift - shift, other.shift - shift];
        self.times(power(octaves[0]));
        other.times(power(octaves[1]));
        *self = Self {
            total: self.total + other.total,
            max: f64::max(self.max, other.max),
            largest: f64::max(self.largest, other.largest),
            own: f64::max(self.own, other.own),
            shift,
            block: other.block,
            lanes: [0.0; LANES_F32],
        };
        (factor(octaves[0]), factor(octaves[1]))
    }

    /// The reciprocal of the sum with a sink, and the log-sum-exp.
    fn finish(&self, sink: Option<f32>, masked: Masked) -> (f32, f32) {
        let sink = f64::from(sink.unwrap_or(f32::NEG_INFINITY));
        if self.max.is_nan() || sink.is_nan() {
            return (f32::NAN, f32::NAN);
        }
        if self.max == f64::INFINITY || sink == f64::INFINITY {
            return (f32::NAN, f32::INFINITY);
        }
        let mut row = *self;
        row.end_block();
        if sink == f64::NEG_INFINITY {
            if row.is_empty() {
                let reciprocal = if masked == Masked::Zero { 0.0 } else { f32::NAN };
                return (reciprocal, f32::NEG_INFINITY);
            }
            return ((1.0 / row.total) as f32, row.logsumexp());
        }
        let at = octaves(sink, &Scale::ONE);
        row.raise(at.0.floor() - 1.0);
        let e = row.exp(at);
        row.saw(sink, &Scale::ONE, e);
        row.total += e;
        let unit = if self.is_empty() { 0.0 } else { power(self.shift - row.shift) };
        ((unit / row.total) as f32, row.logsumexp())
    }

    /// The log-sum-exp, if all is in the sum of the blocks.
    fn logsumexp(&self) -> f32 {
        if self.shift.abs() >= HUGE {
            return (self.max + libm::log(self.total / self.largest)) as f32;
        }
        let shift = Shift { subtract: 0.0, m: self.shift as i32, cut: 0.0 };
        let log = Scale::ONE.log_shift_f32(self.max, self.largest, &shift, self.total);
        log.logsumexp() as f32
    }

    /// The exponential of a logit with these octaves, by the row's shift; 0 where the row's
    /// maximum flushes it.
    fn exp(&self, (octaves, rest): (f64, f64)) -> f64 {
        if (octaves - self.own) + rest < f64::from(f32::MIN_EXP) {
            return 0.0;
        }
        let unit = f32::one_times_c() / f64::one_times_c();
        power_of_two((octaves - self.shift) + rest) * unit
    }
}

/// A logit in units of the scale as it is. Never -0: of equal zeros each kernel may find another.
#[inline(always)]
fn logit(x: f64, scale: &Scale) -> f64 {
    let (hi, lo) = scale.pair();
    x * hi + x * lo + 0.0
}

/// The octaves of a logit in units of the scale, as a pair.
fn octaves(x: f64, scale: &Scale) -> (f64, f64) {
    let (l, l_lo) = (0.125 * scale.l8_f64.0, 0.125 * scale.l8_f64.1);
    let p = x * l;
    (p, if p.abs() < FARTHEST { x.mul_add(l, -p) + x * l_lo } else { 0.0 })
}

/// 2 to an integer that is not above 0; 0 below `-MOST`.
fn power(octaves: f64) -> f64 {
    if octaves < -MOST { 0.0 } else { f64::from_bits(((1023.0 + octaves) as u64) << 52) }
}

/// The same as a factor of f32, which is never subnormal.
fn factor(octaves: f64) -> f32 {
    if octaves < f64::from(f32::MIN_EXP) { 0.0 } else { power(octaves) as f32 }
}

/// What a row of a tile has turned out to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum FarTile {
    /// The row has NaN or +inf.
    Special,
    /// It has nothing but -inf.
    Hidden,
    /// Its weights are written; the factor of what was accumulated before.
    Done(f32),
}

/// A function of a key and its logit, which gives the weight.
type Weighing<'a> = dyn FnMut(usize, f64) -> f32 + 'a;

/// Weighs a row of a tile whose logits are beyond the range of f32's exponential, in f64: a logit
/// is split into integer octaves, which are exact, and a rest. `each` gives its argument every key
/// with its logit, in order, and, the second time, takes the weight.
#[cold]
pub(crate) fn far_tile(
    row: &mut OnlineRow,
    scale: &Scale,
    each: &mut dyn FnMut(bool, &mut Weighing),
) -> FarTile {
    let (mut max, mut nan) = (f64::NEG_INFINITY, false);
    each(false, &mut |_, x| {
        nan |= x.is_nan();
        max = max.max(x);
        0.0
    });
    if nan || max == f64::INFINITY {
        row.set_special(if nan { f64::NAN } else { max });
        return FarTile::Special;
    }
    if max == f64::NEG_INFINITY {
        return FarTile::Hidden;
    }
    let factor = row.raise(octaves(max, scale).0.floor() - 1.0);
    let mut largest = 0.0;
    each(true, &mut |key, x| {
        let e = row.exp(octaves(x, scale)) as f32;
        row.enter_block((key / BLOCK) as u64);
        row.lanes[key % LANES_F32] += f64::from(e);
        largest = f64::max(largest, e.into());
        e
    });
    row.saw(max, scale, largest);
    FarTile::Done(factor)
}

/// A tile of attention scores, its weights, and the states of its rows.
#[derive(Debug)]
pub struct TileCall<'a, U> {
    views: Rows<'a, f32, U>,
    /// One for each row.
    pub(crate) states: &'a mut [OnlineRow],
    pub(crate) factors: &'a mut [f32],
    /// The tile's first row and key among those of the whole, and how many there are of those.
    first: (usize, usize),
    of: (usize, usize),
    pub(crate) attend: Attend<'a>,
}

over_rows!(TileCall<'a, U>, f32, U);

/// Where a tile lies: its first row and key, and the rows and keys of the whole.
#[derive(Clone, Copy, Debug)]
pub struct TilePlace {
    /// The first row and key.
    pub first: (usize, usize),
    /// The rows and keys of the whole.
    pub of: (usize, usize),
}

impl<'a, U: Element> TileCall<'a, U> {
    /// Reads `x` and writes `y` and `factors`; `scale` replaces that of the options.
    ///
    /// # Errors
    /// [`Error::Shape`] if shapes or lengths do not fit; [`Error::Value`] for values out of range.
    pub fn new(
        x: Matrix<'a, f32>,
        y: MatrixMut<'a, U>,
        place: TilePlace,
        states: &'a mut [OnlineRow],
        factors: &'a mut [f32],
        (attend, scale): (&Attend<'a>, Scale),
    ) -> Result<Self, Error> {
        let views = Rows::new(x, y);
        let views = views.map_err(|[scores, y]| Error::differ("matrix of weights", scores, y))?;
        Self::checked(views, place, states, factors, (attend, scale))
    }

    fn checked(
        views: Rows<'a, f32, U>,
        TilePlace { first, of }: TilePlace,
        states: &'a mut [OnlineRow],
        factors: &'a mut [f32],
        (attend, scale): (&Attend<'a>, Scale),
    ) -> Result<Self, Error> {
        let (rows, cols) = (views.rows(), views.cols());
        attend.check::<f32>(of.0, of.1)?;
        check_within("number of the tile's rows, with those before it", first.0, rows, of.0)?;
        check_within("number of the tile's keys, with those before it", first.1, cols, of.1)?;
        if states.len() != rows {
            return Err(Error::count("number of states (one for each row)", rows, states.len()));
        }
        if factors.len() != rows {
            return Err(Error::count("number of factors (one for each row)", rows, factors.len()));
        }
        let attend = Attend { scale, ..*attend };
        Ok(TileCall { views, states, factors, first, of, attend })
    }

    /// The options of a row: [`Attend::row`].
    #[inline(always)]
    pub(crate) fn options(
        &self,
        row: usize,
        only_hides: impl Fn(&MaskData, (usize, usize)) -> bool,
    ) -> Row<'a> {
        let keys = (self.first.1, self.first.1 + self.cols);
        self.attend.row(self.first.0 + row, self.of, keys, only_hides)
    }

    /// The number of the tile's first key.
    #[inline(always)]
    pub(crate) fn first_key(&self) -> usize {
        self.first.1
    }

    /// The same of the negative of all scores, for which there must be exactly as much room.
    #[must_use]
    pub fn negated(mut self, room: &'a mut [f32]) -> Self {
        for (row, to) in room.chunks_exact_mut(self.cols.max(1)).enumerate() {
            self.elements(row).zip(to).for_each(|(x, to)| *to = -x);
        }
        self.views.read_instead(room);
        self
    }
}

impl<'a> TileCall<'a, f32> {
    /// Overwrites scores with weights.
    ///
    /// # Errors
    /// As [`TileCall::new`].
    pub fn in_place(
        x: MatrixMut<'a, f32>,
        place: TilePlace,
        states: &'a mut [OnlineRow],
        factors: &'a mut [f32],
        of: (&Attend<'a>, Scale),
    ) -> Result<Self, Error> {
        Self::checked(Rows::in_place(x), place, states, factors, of)
    }
}

/// Checks that `n` from `first` on are no more than there are.
fn check_within(what: &'static str, first: usize, n: usize, of: usize) -> Result<(), Error> {
    match first.checked_add(n) {
        Some(end) if end <= of => Ok(()),
        end => Err(Error::value(what, end.unwrap_or(usize::MAX), "no more than the whole has")),
    }
}

/// Finishes rows, of which `first` is the first among `of` rows of `keys` keys.
///
/// # Errors
/// As [`TileCall::new`].
pub fn finish_rows(
    attend: &Attend,
    TilePlace { first: (first, _), of: (of, keys) }: TilePlace,
    states: &[OnlineRow],
    reciprocals: &mut [f32],
    logsumexp: Option<&mut [f32]>,
) -> Result<(), Error> {
    attend.check::<f32>(of, keys)?;
    let rows = states.len();
    check_within("number of rows, with those before them", first, rows, of)?;
    if reciprocals.len() != rows {
        let what = "number of reciprocals (one for each row)";
        return Err(Error::count(what, rows, reciprocals.len()));
    }
    if let Some(lse) = &logsumexp
        && lse.len() != rows
    {
        return Err(Error::count("number of log-sum-exps (one for each row)", rows, lse.len()));
    }
    let mut logs = logsumexp.unwrap_or_default().iter_mut();
    for (i, (state, reciprocal)) in states.iter().zip(reciprocals).enumerate() {
        let head = (first + i) / attend.queries % attend.heads;
        let (value, log) = state.finish(attend.sinks.map(|sinks| sinks[head]), attend.masked);
        *reciprocal = value;
        if let Some(place) = logs.next() {
            *place = log;
        }
    }
    Ok(())
}

/// Columns whose sums are computed together.
const COLUMNS: usize = 64;

/// Merges the outputs of attention over different keys, each with its rows' log-sum-exps: the mean
/// of the outputs with the weights `exp(logsumexp)`, computed in f64 and rounded once.
///
/// # Errors
/// [`Error::Shape`] if shapes differ.
pub fn merge_outputs(
    parts: &[(Matrix<f32>, &[f32])],
    masked: Masked,
    mut output: MatrixMut<f32>,
    logsumexp: &mut [f32],
) -> Result<(), Error> {
    let (rows, cols) = (output.rows(), output.cols());
    for (part, lse) in parts {
        if (part.rows(), part.cols()) != (rows, cols) {
            return Err(Error::differ("part", (rows, cols), (part.rows(), part.cols())));
        }
        if lse.len() != rows {
            let what = "number of log-sum-exps of a part (one for each row)";
            return Err(Error::count(what, rows, lse.len()));
        }
    }
    if logsumexp.len() != rows {
        return Err(Error::count(
            "number of log-sum-exps (one for each row)",
            rows,
            logsumexp.len(),
        ));
    }
    for (row, log) in logsumexp.iter_mut().enumerate() {
        let of = |&(_, lse): &(Matrix<f32>, &[f32])| f64::from(lse[row]);
        let y = output.row_mut(row);
        let max = parts.iter().map(of).fold(f64::NEG_INFINITY, |max, v| {
            if max.is_nan() || v.is_nan() { f64::NAN } else { max.max(v) }
        });
        if !max.is_finite() {
            let is_zero = max == f64::NEG_INFINITY && masked == Masked::Zero;
            y.fill(if is_zero { 0.0 } else { <f32 as Element>::NAN });
            *log = <f32 as Element>::from_f64(max);
            if max.is_nan() {
                *log = <f32 as Element>::NAN;
            }
            continue;
        }
        let sum: f64 = parts.iter().map(|part| libm::exp(of(part) - max)).sum();
        *log = (max + libm::log(sum)) as f32;
        for (at, y) in y.chunks_mut(COLUMNS).enumerate() {
            let mut sums = [0.0; COLUMNS];
            for part in parts {
                let weight = libm::exp(of(part) - max) / sum;
                // A part that saw nothing may have any output.
                if weight > 0.0 {
                    let x = &part.0.row(row)[at * COLUMNS..];
                    sums.iter_mut().zip(x).for_each(|(sum, &x)| *sum += weight * f64::from(x));
                }
            }
            for (y, &sum) in y.iter_mut().zip(&sums) {
                *y = if sum.is_nan() { <f32 as Element>::NAN } else { sum as f32 };
            }
        }
    }
    Ok(())
}
