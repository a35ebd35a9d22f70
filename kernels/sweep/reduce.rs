//! One row after another: each is reduced to its sum by a guessed shift or its own, and finished
//! during the sweep of the next one.

use crate::call::{Masked, Special, special_row};
use crate::isa::vector::{Io, Vector};
use crate::num::element::Element;
use crate::num::exp2::{Contract, Sum};
use crate::num::guess::{Guess, Learned};
use crate::num::scale::{LogShift, Scale, Shift};
use crate::sweep::{
    Exact, Exp, Finish, Forget, Found, Guessed, Inverse, Keep, Keeps, Last, Logits, Mode, Plain,
    classify, finish_row, finish_row_by, prefetch_ends, row_max, row_max_apart, sweep,
};

/// Rows that are computed by their own maxima, without a guess, after a row for which no guess is
/// good.
const PATIENCE: u32 = 16;

/// A reduced row: what finishing it needs.
pub(crate) struct Reduced<S: Vector> {
    pub(crate) max: f64,
    /// The row's own shift.
    pub(crate) own: Shift,
    /// The sum by the shift of `exp`.
    pub(crate) sum: Sum,
    /// `2^(M of exp - own M)`
    pub(crate) factor: f64,
    /// [`Scale::is_wide`]; true if the smallest element is not known.
    pub(crate) wide: bool,
    /// The constants by which the exponentials were computed.
    pub(crate) exp: Exp<S>,
}

impl<S: Vector> Reduced<S> {
    /// The constants of the row's log-softmax.
    #[inline(always)]
    pub(crate) fn log_shift(&self, scale: &Scale) -> LogShift {
        let simd = self.exp.simd;
        let top = simd.splat(S::E::narrow(self.max));
        let e_max = simd.first_lane(self.exp.of(true, true, top)).widen();
        let sum = self.sum.times(self.factor);
        S::E::log_shift(scale, self.max, e_max * self.factor, &self.own, sum)
    }
}

/// Reduces one row after another, with a guess that follows them.
pub(crate) struct Reducer<'a, S: Vector> {
    pub(crate) scale: &'a Scale,
    pub(crate) guess: Guess,
    pub(crate) exp: Exp<S>,
    /// Whether rows had elements far below the others, as masks make them: sweeps then have a cut.
    pub(crate) cut: bool,
    /// Number of next rows to reduce without a guess.
    pub(crate) exact: u32,
}

impl<'a, S: Vector> Reducer<'a, S> {
    #[inline(always)]
    pub(crate) fn new(simd: S, scale: &'a Scale) -> Self {
        let guess = Guess::first::<S::E>(scale);
        let exp = Exp::new(simd, scale, &guess.shift());
        Reducer { scale, guess, exp, cut: false, exact: 0 }
    }

    /// The same for rows with another scale, whose logits are like those of the rows before; `new`
    /// if there are none.
    #[inline(always)]
    pub(crate) fn after(before: Option<&Learned>, simd: S, scale: &'a Scale) -> Self {
        let Some(Learned { scale: of, guess, cut, exact }) = before else {
            return Self::new(simd, scale);
        };
        let guess = guess.with_scale::<S::E>(of, scale);
        let exp = Exp::new(simd, scale, &guess.shift());
        Reducer { scale, guess, exp, cut: *cut, exact: *exact }
    }

    /// What the rows have told about those that follow.
    #[inline(always)]
    pub(crate) fn learned(&self) -> Learned {
        let Self { guess, cut, exact, .. } = *self;
        Learned { scale: *self.scale, guess, cut, exact }
    }

    /// Reduces a row.
    ///
    /// # Safety
    /// `x` is valid for reads of `n` elements, for which `logits` was made, and `kept` for writes
    /// of as many if `KEEP`. `kept` is not `x`.
    #[inline(always)]
    pub(crate) unsafe fn reduce_alone<T: Element, K: Keeps, L: Logits<S>>(
        &mut self,
        x: *const T,
        kept: *mut S::E,
        n: usize,
        logits: &L,
    ) -> Result<Reduced<S>, Special>
    where
        S: Io<T> + Io<<S as Vector>::E>,
    {
        // SAFETY: as this function's.
        unsafe {
            if self.exact > 0 {
                self.exact -= 1;
                return self.reduce_exactly::<T, K, L>(x, kept, n, logits, None);
            }
            let exp = &self.exp;
            let found = if const { L::VARIES } {
                // Logits that vary prefetch for themselves.
                sweep_alone::<S, T, L, Guessed<K, true, false, true>>(exp, x, kept, n, logits)
            } else if const { S::SMALL } || self.cut {
                sweep_alone::<S, T, L, Guessed<K, true, false, false>>(exp, x, kept, n, logits)
            } else {
                sweep_alone::<S, T, L, Guessed<K, false, false, false>>(exp, x, kept, n, logits)
            };
            self.judge_found::<T, K, L>(found, x, kept, n, logits)
        }
    }

    /// The reduced row from what a sweep found, if the guess was good; if not, the row is reduced
    /// again.
    ///
    /// # Safety
    /// As [`Reducer::reduce_alone`].
    #[inline(always)]
    unsafe fn judge_found<T: Element, K: Keeps, L: Logits<S>>(
        &mut self,
        found: Found<S::E>,
        x: *const T,
        kept: *mut S::E,
        n: usize,
        logits: &L,
    ) -> Result<Reduced<S>, Special>
    where
        S: Io<T> + Io<<S as Vector>::E>,
    {
        let found = found.and_sink(&self.exp, false, logits.sink());
        let (max, min) = (found.max.widen(), found.min.widen());
        if let Some(own) = self.judge(max, min) {
            if found.sum.hi.is_nan() {
                return Err(Special::Nan);
            }
            let factor = self.guess.factor(&own);
            let wide = self.scale.is_wide(max, min, n);
            return Ok(Reduced { max, own, sum: found.sum, factor, wide, exp: self.exp });
        }
        // SAFETY: as this function's.
        unsafe { self.reduce_exactly::<T, K, L>(x, kept, n, logits, Some(max)) }
    }

    /// The own shift of a row with these extremes, if the guess was good for it. If not, the guess
    /// is improved for the next row.
    #[inline(always)]
    pub(crate) fn judge(&mut self, max: f64, min: f64) -> Option<Shift> {
        let own = self.scale.shift(max, S::E::MIN_EXP);
        if self.guess.is_near(&own) && self.guess.is_low_enough::<S::E>(&own, min) {
            return Some(own);
        }
        self.learn(max, min);
        None
    }

    /// Whether the guess was good for each of several rows of which only the common extremes are
    /// known. If not, the guess is improved for the next rows. (It was not good for rows all of
    /// whose elements were cut; their sums are 0.)
    #[inline(always)]
    pub(crate) fn judge_rows(&mut self, max: f64, min: f64) -> bool {
        // Every row's maximum, and so its own shift, lies between the two.
        let [top, bottom] = [max, min].map(|v| self.scale.shift(v, S::E::MIN_EXP));
        let good = self.guess.is_near(&top)
            && self.guess.is_near(&bottom)
            && self.guess.is_low_enough::<S::E>(&top, min);
        if !good {
            self.learn(max, min);
        }
        good
    }

    /// Makes the next guess from a row for which the last one was wrong.
    #[cold]
    #[inline(never)]
    fn learn(&mut self, max: f64, min: f64) {
        let own = self.scale.shift(max, S::E::MIN_EXP);
        if !own.is_huge() {
            self.guess = Guess::like::<S::E>(&own, self.scale);
            let simd = self.exp.simd;
            simd.vectorize(
                #[inline(always)]
                || self.exp = Exp::new(simd, self.scale, &self.guess.shift()),
            );
        }
        if max.is_finite() && (own.is_huge() || !self.guess.is_low_enough::<S::E>(&own, min)) {
            // Elements far below the others need the cut. Where the cut did not help, rows are
            // reduced exactly.
            self.exact = if self.cut || own.is_huge() { PATIENCE } else { 0 };
            self.cut = true;
        }
    }

    /// Reduces a row by its own maximum, which is `max` if given and if the row has no NaN.
    ///
    /// # Safety
    /// `x` is valid for reads of `n` elements, for which `logits` was made, `kept` for writes of as
    /// many if `KEEP`.
    #[inline]
    pub(crate) unsafe fn reduce_exactly<T: Element, K: Keeps, L: Logits<S>>(
        &self,
        x: *const T,
        kept: *mut S::E,
        n: usize,
        logits: &L,
        max: Option<f64>,
    ) -> Result<Reduced<S>, Special>
    where
        S: Io<T> + Io<<S as Vector>::E>,
    {
        // The maximum and the classification are outside of the function that sweeps, whose stack
        // frame is large for pairs.
        // SAFETY: as this function's.
        unsafe {
            let max = match max {
                None if L::PAIRS => {
                    let sink = logits.sink().map_or(f64::NEG_INFINITY, S::E::widen);
                    let max = row_max_apart(self.exp.simd, x, n, logits);
                    Some(if max > sink { max } else { sink })
                }
                max => max,
            };
            self.reduce_finite::<T, K, L>(x, kept, n, logits, max)
                .map_err(|special| special.unwrap_or_else(|| classify(self.exp.simd, x, n, logits)))
        }
    }

    /// As [`Reducer::reduce_exactly`]; the error is `None` for a row whose maximum is not finite.
    /// Rare, so a function of its own.
    ///
    /// # Safety
    /// As there.
    #[inline(never)]
    unsafe fn reduce_finite<T: Element, K: Keeps, L: Logits<S>>(
        &self,
        x: *const T,
        kept: *mut S::E,
        n: usize,
        logits: &L,
        max: Option<f64>,
    ) -> Result<Reduced<S>, Option<Special>>
    where
        S: Io<T> + Io<<S as Vector>::E>,
    {
        let simd = self.exp.simd;
        simd.vectorize(
            #[inline(always)]
            || {
                // SAFETY: as this function's; nothing is finished.
                unsafe {
                    let max = match max {
                        Some(max) => max,
                        // The maximum of pairs is always given.
                        None if L::PAIRS => f64::NAN,
                        None => {
                            let sink = logits.sink().map_or(f64::NEG_INFINITY, S::E::widen);
                            let max = row_max(simd, x, n, logits);
                            if max > sink { max } else { sink }
                        }
                    };
                    if !max.is_finite() {
                        return Err(None);
                    }
                    let own = self.scale.shift(max, S::E::MIN_EXP);
                    let exp = Exp::new(simd, self.scale, &own);
                    let found = sweep::<S, T, T, T, L, Exact<K>>(
                        &exp,
                        x,
                        kept,
                        n,
                        logits,
                        &Finish::NOTHING,
                    );
                    let sum = found.and_sink(&exp, true, logits.sink()).sum;
                    if sum.hi.is_nan() {
                        return Err(Some(Special::Nan));
                    }
                    Ok(Reduced { max, own, sum, factor: 1.0, wide: true, exp })
                }
            },
        )
    }
}

/// Sweeps one row while the row before is finished, so that one computes while the other waits for
/// memory. `D` is what finishing reads, `R` the last step.
///
/// It is not part of the [`Reducer`], which lives in memory: what finishing needs stays in
/// registers.
pub(crate) struct Pipeline<S, D, U, R, const STREAM: bool> {
    simd: S,
    waiting: Option<Finish<D, U, R>>,
}

impl<S, D, U, R, const STREAM: bool> Pipeline<S, D, U, R, STREAM>
where
    S: Io<U> + Io<D> + Io<<S as Vector>::E>,
    R: Last<S>,
{
    #[inline(always)]
    pub(crate) fn new(simd: S) -> Self {
        Self { simd, waiting: None }
    }

    /// Reduces a row, and finishes the one that waits.
    ///
    /// # Safety
    /// As [`Reducer::reduce_alone`]; what the waiting row points to is valid for reads and writes
    /// of its elements.
    #[inline(always)]
    pub(crate) unsafe fn reduce<T: Element, K: Keeps, L: Logits<S>>(
        &mut self,
        reducer: &mut Reducer<S>,
        x: *const T,
        kept: *mut S::E,
        n: usize,
        logits: &L,
    ) -> Result<Reduced<S>, Special>
    where
        S: Io<T>,
    {
        let Some(finish) = self.waiting.take() else {
            // SAFETY: as this function's.
            return unsafe { reducer.reduce_alone::<T, K, L>(x, kept, n, logits) };
        };
        // SAFETY: as this function's.
        unsafe {
            if const { S::SMALL } || reducer.exact > 0 {
                // A copy, which may live in memory.
                let copy = finish;
                finish_row_by(self.simd, &copy, STREAM);
                return reducer.reduce_alone::<T, K, L>(x, kept, n, logits);
            }
            let exp = &reducer.exp;
            // Ranges and masks always need a cut, and where memory is the limit it costs nothing:
            // only this is compiled for them.
            let found = if const { L::VARIES || STREAM } || reducer.cut {
                sweep::<S, T, U, D, L, Guessed<K, true, true, STREAM>>(
                    exp, x, kept, n, logits, &finish,
                )
            } else {
                sweep::<S, T, U, D, L, Guessed<K, false, true, STREAM>>(
                    exp, x, kept, n, logits, &finish,
                )
            };
            reducer.judge_found::<T, K, L>(found, x, kept, n, logits)
        }
    }

    /// Prefetches the ends of a row that will be streamed, before it is reduced: [`prefetch_ends`].
    #[inline(always)]
    pub(crate) fn prefetch_ends(&self, y: *const U, n: usize) {
        if STREAM {
            prefetch_ends(self.simd, y, n);
        }
    }

    /// Makes a row wait to be finished.
    #[inline(always)]
    pub(crate) fn finish_later(&mut self, row: Finish<D, U, R>) {
        self.waiting = Some(row);
    }

    /// Finishes the row that waits, streaming or not. For rare calls, so not inlined.
    ///
    /// # Safety
    /// What the waiting row points to is still valid.
    #[inline(always)]
    pub(crate) unsafe fn finish_now(&mut self, stream: bool) {
        if let Some(waiting) = self.waiting.take() {
            // SAFETY: as this function's.
            unsafe { finish_row_by(self.simd, &waiting, stream) };
        }
    }

    /// Finishes the last row, and makes streamed rows visible to other threads.
    ///
    /// # Safety
    /// As [`Pipeline::finish_now`].
    #[inline(always)]
    pub(crate) unsafe fn end(&mut self) {
        if let Some(waiting) = self.waiting.take() {
            // SAFETY: as this function's.
            unsafe { finish_row::<S, U, D, STREAM>(self.simd, &waiting) };
        }
        if STREAM {
            self.simd.fence();
        }
    }
}

/// A sweep that finishes no other row. Less frequent, so a function of its own.
///
/// # Safety
/// As [`sweep`].
#[inline(never)]
pub(crate) unsafe fn sweep_alone<S, T, L, M: Mode>(
    exp: &Exp<S>,
    x: *const T,
    kept: *mut S::E,
    n: usize,
    logits: &L,
) -> Found<S::E>
where
    S: Io<T> + Io<<S as Vector>::E>,
    L: Logits<S>,
{
    exp.simd.vectorize(
        #[inline(always)]
        // SAFETY: as this function's.
        || unsafe { sweep::<S, T, T, T, L, M>(exp, x, kept, n, logits, &Finish::NOTHING) },
    )
}

/// The results that are made of a reduced row.
pub(crate) trait Task<S: Vector, T> {
    /// Whether sweeps keep the exponentials.
    type Keeps: Keeps;
    /// What finishing reads: kept exponentials, or the row itself.
    type From;
    type Last: Last<S>;
    /// The value of every entry of a fully masked row under [`Masked::Zero`].
    const NOTHING: T;

    fn last(scale: &Scale, reduced: &Reduced<S>) -> Self::Last;
    fn from(x: *const T, kept: *const S::E) -> *const Self::From;
}

/// Softmax, from exponentials that were kept.
pub(crate) struct Kept;

impl<S: Vector, T: Element> Task<S, T> for Kept {
    type Keeps = Keep;
    type From = S::E;
    type Last = Inverse<S::V>;
    const NOTHING: T = T::ZERO;

    #[inline(always)]
    fn last(_: &Scale, reduced: &Reduced<S>) -> Inverse<S::V> {
        let simd = reduced.exp.simd;
        let (hi, lo) = S::E::reciprocal(reduced.sum);
        Inverse { hi: simd.splat(hi), lo: simd.splat(lo), wide: reduced.wide }
    }
    #[inline(always)]
    fn from(_: *const T, kept: *const S::E) -> *const S::E {
        kept
    }
}

/// Softmax from exponentials that are not kept but computed again, with the same bits.
pub(crate) struct Again;

impl<S: Vector, T: Element> Task<S, T> for Again {
    type Keeps = Forget;
    type From = T;
    type Last = (Exp<S>, Inverse<S::V>);
    const NOTHING: T = T::ZERO;

    #[inline(always)]
    fn last(scale: &Scale, reduced: &Reduced<S>) -> Self::Last {
        (reduced.exp, <Kept as Task<S, T>>::last(scale, reduced))
    }
    #[inline(always)]
    fn from(x: *const T, _: *const S::E) -> *const T {
        x
    }
}

/// Log-softmax.
pub(crate) struct Log;

impl<S: Vector, T: Element> Task<S, T> for Log {
    type Keeps = Forget;
    type From = T;
    type Last = LogShift;
    const NOTHING: T = T::NEG_INFINITY;

    #[inline(always)]
    fn last(scale: &Scale, reduced: &Reduced<S>) -> LogShift {
        reduced.log_shift(scale)
    }
    #[inline(always)]
    fn from(x: *const T, _: *const S::E) -> *const T {
        x
    }
}

/// Does the task `K` for one row, by its own maximum.
///
/// # Safety
/// `x` is valid for reads and `y` for writes of `n` elements, `kept` for writes of as many.
#[cold]
#[inline(always)]
pub(crate) unsafe fn row_exactly<S, T, K>(
    reducer: &Reducer<S>,
    x: *const T,
    y: *mut T,
    n: usize,
    masked: Masked,
    kept: *mut S::E,
) where
    S: Io<T> + Io<K::From> + Io<<S as Vector>::E>,
    T: Element,
    K: Task<S, T>,
{
    let simd = reducer.exp.simd;
    // SAFETY: as this function's.
    unsafe {
        match reducer.reduce_exactly::<T, K::Keeps, _>(x, kept, n, &Plain::NEAR, None) {
            Ok(reduced) => {
                let last = K::last(reducer.scale, &reduced);
                finish_row_by(simd, &Finish::new(K::from(x, kept), y, n, last), false);
            }
            Err(special) => special_row(&special, y, n, masked, K::NOTHING),
        }
    }
}
