//! Softmax of attention scores: masks, biases, caps and sinks change a row before its exponentials
//! are taken.
//!
//! A row's visible keys are one range of columns (causal, window, length). Keys outside of it are
//! neither read nor computed, and get 0. Inside it the logit of score `x` is, with the options that
//! are given,
//!
//! ```text
//! z = cap(scale * x) + mask_slope * mask + slope * (key - position)        cap(u) = c * tanh(u /
//! c)
//! ```
//!
//! It is computed as a pair of numbers of the arithmetic type, so that none of these steps costs
//! accuracy. With nothing but ranges and masks that only hide, the logit is the score, and the
//! scale is folded into the exponential. Every element is summed in the lane that it has in a whole
//! row: a row with a mask has the bits of one with -inf there.
//!
//! A key whose mask is -inf, or whose bias is, is hidden, whatever its score is. A row of pairs
//! without a finite maximum is looked at again as a far row, with logits that are 2^100 times
//! smaller: no step overflows there, so the row is special only by its scores, masks and biases.

use half::{bf16, f16};

use crate::call::scores::{
    Attend, Cap, Elements, FAR, MaskData, Row, Scores, far_scale, log_shift_of_pairs, sign,
};
use crate::call::{Prefetch, Special, Store, special_row};
use crate::isa::vector::{Io, Vector};
use crate::mem::memory::LINE;
use crate::mem::scratch::Scratch;
use crate::num::element::Element;
use crate::num::exp2::{BLOCK, Contract, MOST_LANES};
use crate::num::scale::{Scale, Shift};
use crate::num::two_product;
use crate::sweep::reduce::{Kept, Pipeline, Reduced, Reducer, Task};
use crate::sweep::{
    Exp, Finish, Inverse, Keep, Logits, UNROLL, bits_at, classify, prefetch_page, row_max_apart,
    to_aligned,
};

/// Vectors that can load every type of mask.
pub(crate) trait Masks: Io<f32> + Io<f16> + Io<bf16> + Io<<Self as Vector>::E> {}

impl<S: Io<f32> + Io<f16> + Io<bf16> + Io<<S as Vector>::E>> Masks for S {}

/// What logits of both kinds know of their row: where it starts, and what to prefetch.
#[derive(Clone, Copy)]
pub(super) struct Place<S: Vector> {
    simd: S,
    /// 0, -1, -2 and so on.
    lanes: S::V,
    /// Lanes of the first vector that lie before the row's first key.
    skip: usize,
    /// The column of the first vector.
    start: usize,
    /// The first line to prefetch, in the first of the rows that are prefetched in turn, and the
    /// stride of these rows in bytes. (Straight ahead lie keys that causal rows do not see.)
    ahead: *const u8,
    stride: usize,
    store: Store,
}

/// Bytes that a streaming call prefetches ahead, from several rows in turn: as many as the sweep
/// over whole rows.
const ROWS_AHEAD: usize = 32 << 10;

impl<S: Vector> Place<S> {
    #[inline(always)]
    fn new<T, U>(simd: S, call: &Scores<T, U>, row: usize, keys: (usize, usize)) -> Self
    where
        S: Io<<S as Vector>::E>,
        T: Element,
    {
        let start = keys.0 / S::LANES * S::LANES;
        // SAFETY: the array has LANES elements.
        let lanes = unsafe { simd.load(S::E::lanes().as_ptr()) };
        // While some rows are read, lines of as many later rows are prefetched in turn: they lie on
        // several pages, which memory serves faster than one. These addresses may be anything.
        let stride = call.x_stride.wrapping_mul(size_of::<T>());
        let (skip, store) = (keys.0 - start, call.store);
        let turn = UNROLL * S::LANES * size_of::<T>();
        let rows_in_turn = turn / LINE;
        let turns = (keys.1 - start) * size_of::<T>() / turn;
        let ahead = (ROWS_AHEAD / stride.max(1)).next_multiple_of(rows_in_turn).max(rows_in_turn);
        let next = (row / rows_in_turn * rows_in_turn + ahead).wrapping_mul(stride);
        let next = call.x.cast::<u8>().wrapping_add(next);
        let line = row % rows_in_turn * turns * LINE + start * size_of::<T>();
        Place { simd, lanes, skip, start, ahead: next.wrapping_add(line), stride, store }
    }

    /// For elements of a row from column `start` on, of which the first `skip` are not the row's.
    /// Nothing is prefetched.
    #[inline(always)]
    pub(super) fn within(simd: S, start: usize, skip: usize) -> Self
    where
        S: Io<<S as Vector>::E>,
    {
        // SAFETY: the array has LANES elements.
        let lanes = unsafe { simd.load(S::E::lanes().as_ptr()) };
        let (ahead, store) = (std::ptr::null(), Store::CACHED);
        Place { simd, lanes, skip, start, ahead, stride: 0, store }
    }

    /// `v` with -inf in the lanes that are not the row's.
    #[inline(always)]
    fn edges(&self, mut v: S::V, i: usize, n: usize) -> S::V {
        let simd = self.simd;
        let least = simd.splat(S::E::narrow(f64::NEG_INFINITY));
        let from = |lane: usize| simd.splat(S::E::narrow(0.5 - lane as f64));
        if n < S::LANES {
            v = simd.select_below(self.lanes, from(n), least, v);
        }
        if i < self.skip {
            v = simd.select_below(self.lanes, from(self.skip), v, least);
        }
        v
    }

    #[inline(always)]
    fn prefetch_ahead<T>(&self, i: usize) {
        let turn = UNROLL * S::LANES * size_of::<T>();
        if self.store.prefetch() == Prefetch::Nothing {
            return;
        }
        let line = self.ahead.wrapping_add(i / (UNROLL * S::LANES) * LINE);
        for k in 0..turn / LINE {
            self.simd.prefetch_far(line.wrapping_add(k * self.stride));
        }
    }
}

/// Loads the `n` elements of `mask` from column `at` on as numbers to add; booleans become 0 or
/// -inf.
///
/// # Safety
/// The mask has `at + n` elements.
#[inline(always)]
unsafe fn load_mask<S: Masks>(simd: S, mask: &Elements, at: usize, n: usize) -> S::V {
    // SAFETY: as this function's.
    unsafe {
        if const { S::SMALL } {
            load_mask_apart(simd, mask, at, n)
        } else {
            load_mask_here(simd, mask, at, n)
        }
    }
}

/// As [`load_mask`], but a function of its own.
///
/// # Safety
/// As there.
#[inline(never)]
unsafe fn load_mask_apart<S: Masks>(simd: S, mask: &Elements, at: usize, n: usize) -> S::V {
    simd.vectorize(
        #[inline(always)]
        // SAFETY: as this function's.
        || unsafe { load_mask_here(simd, mask, at, n) },
    )
}

/// As [`load_mask`], inlined.
///
/// # Safety
/// As there.
#[inline(always)]
unsafe fn load_mask_here<S: Masks>(simd: S, mask: &Elements, at: usize, n: usize) -> S::V {
    macro_rules! load {
        ($m:ident) => {{
            let p = $m.as_ptr();
            // SAFETY: the caller vouches for n elements there.
            unsafe { simd.load_upto(p.add(at), n, S::E::narrow(0.0)) }
        }};
    }
    match mask {
        Elements::F32(m) => load!(m),
        Elements::F64(m) if const { S::E::MIN_EXP == <f64 as Contract>::MIN_EXP } => {
            // SAFETY: the caller vouches for n elements there, and these are of `S::E`.
            unsafe { simd.load_upto(m.as_ptr().cast::<S::E>().add(at), n, S::E::narrow(0.0)) }
        }
        // Refused when the call was made.
        Elements::F64(_) => simd.splat(S::E::narrow(0.0)),
        Elements::F16(m) => load!(m),
        Elements::Bf16(m) => load!(m),
        Elements::Bool(m) => {
            // SAFETY: the caller vouches for n elements there.
            let m = unsafe { std::slice::from_raw_parts(m.as_ptr().add(at), n) };
            let mut seen = [f32::NEG_INFINITY; 16];
            let hide = |(seen, &m): (&mut f32, &u8)| *seen = if m != 0 { 0.0 } else { *seen };
            seen.iter_mut().zip(m).for_each(hide);
            // SAFETY: there is room for a vector.
            unsafe { simd.load(seen.as_ptr()) }
        }
        Elements::Bits(m) => {
            let hidden = simd.splat(S::E::narrow(f64::NEG_INFINITY));
            // SAFETY: the mask has a bit for column `at`.
            let bits = unsafe { bits_at::<S>(m, at) };
            simd.select_bits(bits, simd.splat(S::E::narrow(0.0)), hidden)
        }
    }
}

/// Logits that are the scores, where they are seen.
#[derive(Clone, Copy)]
pub(super) struct Seen<'a, S: Vector> {
    place: Place<S>,
    mask: Option<Elements<'a>>,
}

/// Logits that are pairs.
#[derive(Clone, Copy)]
pub(super) struct Biased<'a, S: Vector> {
    place: Place<S>,
    scale: (S::V, S::V),
    cap: Option<Cap>,
    mask: Option<Elements<'a>>,
    mask_slope: Option<S::V>,
    /// The sign of `mask_slope`, for far rows.
    mask_sign: S::V,
    slope: Option<S::V>,
    /// Whether the slope can turn a distance into -inf.
    steep: bool,
    /// The distance of the row's first column from the query's position.
    distance: f64,
    sink: Option<S::E>,
    far: bool,
}

/// How a call makes the logits of a row.
pub(super) trait RowLogits<'a, S: Vector>: Logits<S> {
    /// Makes the logits; those of a far row are yet to be multiplied by [`far_scale`].
    fn new(place: Place<S>, attend: &Attend<'a>, row: &Row<'a>, far: bool) -> Self;
}

impl<'a, S: Masks> RowLogits<'a, S> for Seen<'a, S> {
    #[inline(always)]
    fn new(place: Place<S>, _: &Attend<'a>, row: &Row<'a>, _: bool) -> Self {
        Seen { place, mask: row.mask }
    }
}

impl<'a, S: Masks> RowLogits<'a, S> for Biased<'a, S> {
    #[inline(always)]
    fn new(place: Place<S>, attend: &Attend<'a>, row: &Row<'a>, far: bool) -> Self {
        let simd = place.simd;
        let unit = if far { FAR } else { 1.0 };
        let narrow = |x: f64| S::E::narrow(x * unit);
        let splat = |x: f32| simd.splat(narrow(x.into()));
        let (hi, lo) = S::E::scale(&attend.scale);
        Biased {
            place,
            scale: (simd.splat(narrow(hi.widen())), simd.splat(narrow(lo.widen()))),
            cap: attend.cap.map(|c| Cap::new(c, &attend.scale, unit)),
            mask: row.mask,
            mask_slope: row.mask_slope.or(far.then_some(1.0)).map(splat),
            mask_sign: simd.splat(S::E::narrow(row.mask_slope.map_or(1.0, sign).into())),
            slope: row.slope.map(splat),
            // Distances are below 2^24 in f32, and below 2^53 in f64.
            steep: !row.slope.is_some_and(|slope| slope.abs() < 1e30),
            distance: place.start as f64 - row.position as f64,
            sink: row.sink.map(|sink| narrow(sink.into())),
            far,
        }
    }
}

impl<S: Masks> Biased<'_, S> {
    /// Scores times the scale, with the cap, as pairs.
    #[inline(always)]
    fn scaled<const N: usize>(&self, v: [S::V; N]) -> [(S::V, S::V); N] {
        let simd = self.place.simd;
        match &self.cap {
            Some(cap) => cap.of_each(simd, v),
            None => {
                let mut scaled = [(self.scale.0, self.scale.1); N];
                for k in 0..N {
                    scaled[k] = product(simd, v[k], self.scale);
                }
                scaled
            }
        }
    }

    /// The pair of the score `v` with everything added, and -inf if it is hidden.
    ///
    /// # Safety
    /// As [`Logits::at`].
    #[inline(always)]
    unsafe fn biased(
        &self,
        (mut hi, mut lo): (S::V, S::V),
        v: S::V,
        i: usize,
        n: usize,
    ) -> (S::V, S::V) {
        let simd = self.place.simd;
        let zero = simd.splat(S::E::narrow(0.0));
        let least = simd.splat(S::E::narrow(S::E::LEAST));
        if self.far && self.cap.is_none() {
            // A far row's scale may be 0: infinities stay what they are.
            let most = simd.splat(S::E::narrow(-S::E::LEAST));
            hi = simd.select_below(v, least, v, simd.select_below(most, v, v, hi));
        }
        let hidden = simd.splat(S::E::narrow(f64::NEG_INFINITY));
        // -inf hides in a mask, whatever its slope is, and in the bias.
        let (mut masked, mut biased) = (None, None);
        if let Some(data) = &self.mask {
            // SAFETY: the row, and so its mask, has n elements from there on.
            let mask = unsafe { load_mask(simd, data, self.place.start + i, n) };
            if let Elements::Bool(_) | Elements::Bits(_) = data {
                // Nothing is added.
            } else if let Some(slope) = self.mask_slope {
                let mut added = product(simd, mask, (slope, zero));
                if self.far {
                    // A far row's slope may be 0: infinities stay what they are.
                    let infinite = simd.mul(mask, self.mask_sign);
                    let most = simd.splat(S::E::narrow(-S::E::LEAST));
                    added.0 = simd.select_below(most, mask, infinite, added.0);
                    added.0 = simd.select_below(mask, least, infinite, added.0);
                }
                (hi, lo) = plus(simd, (hi, lo), added);
            } else {
                (hi, lo) = plus(simd, (hi, lo), (mask, zero));
            }
            masked = Some(mask);
        }
        if let Some(slope) = self.slope {
            let first = simd.splat(S::E::narrow(self.distance + i as f64));
            let distance = simd.sub(first, self.place.lanes);
            let added = product(simd, distance, (slope, zero));
            (hi, lo) = plus(simd, (hi, lo), added);
            biased = self.steep.then_some(added.0);
        }
        // A hidden key stays hidden, whatever else is added.
        if let Some(added) = masked {
            hi = simd.select_below(added, least, hidden, hi);
        }
        if let Some(added) = biased {
            hi = simd.select_below(added, least, hidden, hi);
        }
        // The low part of an infinity is 0.
        lo = simd.zero_below(hi, least, lo);
        if self.far {
            lo = simd.select_below(hi, simd.splat(S::E::narrow(f64::INFINITY)), lo, zero);
        }
        let z = simd.add(hi, lo);
        lo = simd.sub(lo, simd.sub(z, hi));
        (self.place.edges(z, i, n), lo)
    }
}

// SAFETY: reads the mask of the row, which is as long as the row.
unsafe impl<S: Masks> Logits<S> for Seen<'_, S> {
    const PAIRS: bool = false;
    const VARIES: bool = true;
    #[inline(always)]
    unsafe fn at(&self, v: S::V, i: usize, n: usize) -> (S::V, S::V) {
        let simd = self.place.simd;
        let mut v = v;
        let least = simd.splat(S::E::narrow(f64::NEG_INFINITY));
        match &self.mask {
            None => {}
            Some(Elements::Bits(mask)) => {
                // SAFETY: the row, and so its mask, has n elements from there on, at least one.
                let bits = unsafe { bits_at::<S>(mask, self.place.start + i) };
                v = simd.select_bits(bits, v, least);
            }
            Some(mask) => {
                // SAFETY: the row, and so its mask, has n elements from there on.
                let mask = unsafe { load_mask(simd, mask, self.place.start + i, n) };
                v = simd.select_below(mask, simd.splat(S::E::narrow(0.0)), least, v);
            }
        }
        (self.place.edges(v, i, n), v)
    }
    #[inline(always)]
    fn sink(&self) -> Option<S::E> {
        None
    }
    #[inline(always)]
    fn phase(&self) -> usize {
        self.place.start % BLOCK
    }
    #[inline(always)]
    fn store(&self) -> Store {
        self.place.store
    }
    #[inline(always)]
    fn prefetch_ahead<T>(&self, _: S, _: *const T, i: usize) {
        self.place.prefetch_ahead::<T>(i);
    }
}

// SAFETY: reads the mask of the row, which is as long as the row.
unsafe impl<S: Masks> Logits<S> for Biased<'_, S> {
    const PAIRS: bool = true;
    const VARIES: bool = true;
    #[inline(always)]
    unsafe fn at(&self, v: S::V, i: usize, n: usize) -> (S::V, S::V) {
        let [scaled] = self.scaled([v]);
        // SAFETY: as this function's.
        unsafe { self.biased(scaled, v, i, n) }
    }
    #[inline(always)]
    unsafe fn at_each<const N: usize>(&self, v: [S::V; N], i: usize) -> ([S::V; N], [S::V; N]) {
        let (scaled, mut hi, mut lo) = (self.scaled(v), v, v);
        for k in 0..N {
            // SAFETY: as this function's.
            (hi[k], lo[k]) = unsafe { self.biased(scaled[k], v[k], i + k * S::LANES, S::LANES) };
        }
        (hi, lo)
    }
    #[inline(always)]
    fn sink(&self) -> Option<S::E> {
        self.sink
    }
    #[inline(always)]
    fn phase(&self) -> usize {
        self.place.start % BLOCK
    }
    #[inline(always)]
    fn store(&self) -> Store {
        self.place.store
    }
    #[inline(always)]
    fn prefetch_ahead<T>(&self, _: S, _: *const T, i: usize) {
        self.place.prefetch_ahead::<T>(i);
    }
}

/// `x` times a pair, as a pair.
#[inline(always)]
fn product<S: Vector>(s: S, x: S::V, (hi, lo): (S::V, S::V)) -> (S::V, S::V) {
    let p = s.mul(x, hi);
    // x * hi - p, exactly.
    let error = s.fma(x, hi, s.sub(s.splat(S::E::narrow(0.0)), p));
    (p, s.fma(x, lo, error))
}

/// The sum of two pairs, whose low part may be larger than half an ULP of the high one.
#[inline(always)]
fn plus<S: Vector>(s: S, (a, a_lo): (S::V, S::V), (b, b_lo): (S::V, S::V)) -> (S::V, S::V) {
    let sum = s.add(a, b);
    let t = s.sub(sum, a);
    let error = s.add(s.sub(a, s.sub(sum, t)), s.sub(b, t));
    (sum, s.add(a_lo, s.add(error, b_lo)))
}

impl Cap {
    /// The exponent beyond which the hyperbolic tangent is 1 to the precision of pairs.
    pub(crate) const END: f64 = 80.0;

    /// The shift of the exponential: it is `C` times the true one, down to `exp(-END)`.
    pub(crate) const SHIFT: Shift = Shift { subtract: 0.0, m: 0, cut: -2.0 * Self::END };

    /// The cap of logits that are `unit`, a power of two, times the true ones.
    pub(crate) fn new(c: f64, scale: &Scale, unit: f64) -> Self {
        let (hi, lo) = scale.pair();
        let factor = 2.0 * hi / c;
        // The error of the quotient: 2 hi - factor c, exactly, and 2 lo, divided by c.
        let (p, p_lo) = two_product(factor, c);
        let rest = ((2.0 * hi - p) - p_lo) + 2.0 * lo;
        Cap { c: c * unit, factor: (factor, rest / c) }
    }

    #[inline(always)]
    fn of_each<S: Vector, const N: usize>(&self, simd: S, v: [S::V; N]) -> [(S::V, S::V); N] {
        let w = simd.wide();
        let exp = Exp::new(w, &Scale::ONE, &Self::SHIFT);
        let mut capped = [(v[0], v[0]); N];
        if const { S::E::MIN_EXP == <f64 as Contract>::MIN_EXP } {
            for k in 0..N {
                let (z, z_lo) = self.of_f64(&exp, simd.widen(v[k])[0]);
                capped[k] = (simd.narrow([z; 2]), simd.narrow([z_lo; 2]));
            }
            return capped;
        }
        let (mut low, mut high) = ([w.splat(0.0); N], [w.splat(0.0); N]);
        for k in 0..N {
            [low[k], high[k]] = simd.widen(v[k]);
        }
        let (low, high) = (self.of_f32(&exp, low), self.of_f32(&exp, high));
        for k in 0..N {
            let hi = simd.narrow([low[k], high[k]]);
            let rounded = simd.widen(hi);
            let lo = [w.sub(low[k], rounded[0]), w.sub(high[k], rounded[1])];
            capped[k] = (hi, simd.narrow(lo));
        }
        capped
    }

    /// The capped logits of f32, to be rounded to pairs.
    #[inline(always)]
    fn of_f32<W: Vector<E = f64>, const N: usize>(&self, exp: &Exp<W>, z: [W::V; N]) -> [W::V; N] {
        let w = exp.simd;
        let (c, end, factor) = (w.splat(self.c), w.splat(Self::END), w.splat(self.factor.0));
        let one = w.splat(f64::from_bits(f64::TABLE[0]));
        let mut u = z;
        for u in &mut u {
            *u = w.mul(*u, factor);
            // A select and not a minimum: a NaN stays.
            *u = w.select_below(end, *u, end, *u);
        }
        let mut e = exp.of_each::<N, false>(false, true, u, u);
        for e in &mut e {
            *e = w.mul(c, w.div(w.sub(*e, one), w.add(*e, one)));
        }
        e
    }

    /// The capped logit of f64, as a pair.
    #[inline(always)]
    fn of_f64<W: Vector<E = f64>>(&self, exp: &Exp<W>, z: W::V) -> (W::V, W::V) {
        let w = exp.simd;
        let (c, end) = (w.splat(self.c), w.splat(Self::END));
        let (factor, factor_lo) = (w.splat(self.factor.0), w.splat(self.factor.1));
        let (none, one) = (w.splat(0.0), w.splat(f64::from_bits(f64::TABLE[0])));
        let two = w.add(one, one);
        let half = w.div(w.splat(1.0), two);
        let u = w.mul(z, factor);
        let u_lo = w.fma(z, factor_lo, w.fma(z, factor, w.sub(none, u)));
        // A select and not a minimum: a NaN stays.
        let top = w.select_below(end, u, end, u);
        // At the end, where the tangent is 1, u has no low part; nor below the cut, where e is 0.
        let e = exp.of_pair(false, top, w.select_below(u, end, u_lo, none));
        let (sum, sum_lo) = plus(w, (e, none), (one, none));
        let q = w.div(two, sum);
        let minus_q = w.sub(none, q);
        let rest = w.fma(minus_q, sum_lo, w.fma(minus_q, sum, two));
        let q_lo = w.mul(rest, w.mul(q, half));
        // Exact: q is at most 1, or within a factor of two of it.
        let t = w.sub(w.splat(1.0), q);
        let t_lo = w.sub(w.sub(w.sub(w.splat(1.0), t), q), q_lo);
        let z = w.mul(c, t);
        (z, w.fma(c, t_lo, w.fma(c, t, w.sub(none, z))))
    }
}

/// [`MaskData::only_hides`]. Inlined for all types of masks it was a fifth of each caller.
#[inline(never)]
pub(super) fn only_hides<S: Vector>(simd: S, mask: &MaskData, keys: (usize, usize)) -> bool {
    simd.vectorize(
        #[inline(always)]
        || mask.only_hides(keys),
    )
}

/// Softmax of every row of the call. Returns whether there was memory for a row; if not, nothing is
/// written.
///
/// # Safety
/// The call's pointers are valid as [`Scores`] says.
#[inline(always)]
pub(crate) unsafe fn attend<S, T, U>(simd: S, call: &mut Scores<T, U>) -> bool
where
    S: Masks + Io<T> + Io<U>,
    T: Element,
    U: Element,
{
    // Room for the longest row and a vector of zeros, at a place that does not hinder the row after
    // the first, which is read while the first is written.
    let next = call.x.wrapping_add(call.x_stride).addr();
    let Some((_scratch, kept)) = Scratch::take_row(call.cols, next, call.y.addr()) else {
        return false;
    };
    let stream = S::STREAMS && call.store.is_past();
    let mut row = 0;
    while row < call.rows {
        // SAFETY: as this function's; `kept` has room for a row and a vector.
        unsafe {
            // A streaming loop of its own pays only for rows that are finished during the next
            // sweep.
            let options = call.options(
                row,
                #[inline(always)]
                |mask, keys| only_hides(simd, mask, keys),
            );
            row = if options.pairs {
                rows::<S, T, U, Biased<S>, false>(simd, call, row, kept, stream)
            } else if const { S::STREAMS && size_of::<T>() == size_of::<U>() } && stream {
                rows::<S, T, U, Seen<S>, true>(simd, call, row, kept, true)
            } else {
                rows::<S, T, U, Seen<S>, false>(simd, call, row, kept, stream)
            };
        }
    }
    true
}

/// As [`attend`], for rows from `first` to one whose logits are not of the kind `L`, or the end.
/// Returns the number of that row.
///
/// # Safety
/// As [`attend`]; `kept` is valid for writes of a row and a vector.
#[inline(always)]
unsafe fn rows<'a, S, T, U, L, const STREAM: bool>(
    simd: S,
    call: &mut Scores<'a, T, U>,
    first: usize,
    kept: *mut S::E,
    stream: bool,
) -> usize
where
    S: Masks + Io<T> + Io<U>,
    T: Element,
    U: Element,
    L: RowLogits<'a, S>,
{
    let scale = if L::PAIRS { Scale::ONE } else { call.attend.scale };
    let mut reducer = Reducer::new(simd, &scale);
    let mut pipeline = Pipeline::<S, S::E, U, Inverse<S::V>, STREAM>::new(simd);
    let mut row = first;
    while row < call.rows {
        let options = call.options(
            row,
            #[inline(always)]
            |mask, keys| only_hides(simd, mask, keys),
        );
        if options.pairs != L::PAIRS {
            break;
        }
        let place = Place::new(simd, call, row, options.keys);
        let mut logits = L::new(place, &call.attend, &options, false);
        let n = options.keys.1 - place.start;
        // SAFETY: `row` is one of the call's rows, so x and y point to `cols` elements, of which
        // start + n are no more; what is kept has room for them. The row before was one of the
        // call's, too.
        unsafe {
            let (x, y) = call.row(row);
            pipeline.prefetch_ends(y, call.cols);
            let x = x.add(place.start);
            let sink = logits.sink().map(S::E::widen);
            let mut reduced = if options.keys.0 < options.keys.1 {
                // Finishing a row during the next sweep pays where memory is the limit: not for
                // pairs, which take twice the operations, nor for conversions between types.
                if const { !L::PAIRS && size_of::<T>() == size_of::<U>() } {
                    pipeline.reduce::<T, Keep, L>(&mut reducer, x, kept, n, &logits)
                } else {
                    pipeline.finish_now(stream);
                    reducer.reduce_alone::<T, Keep, L>(x, kept, n, &logits)
                }
                .map(Some)
            } else if sink.is_some_and(f64::is_finite) {
                Ok(None)
            } else {
                Err(Special::of(sink.into_iter()))
            };
            // A row of pairs without a maximum may be a far row; other special rows stay what they
            // are.
            let far = if let Err(special) = &reduced
                && L::PAIRS
                && options.keys.0 < options.keys.1
            {
                logits = L::new(place, &call.attend, &options, true);
                let nothing = matches!(special, Special::AllMasked);
                reduced = reduce_far::<S, T, L>(simd, x, kept, n, &logits, nothing).map(Some);
                Some(far_scale())
            } else {
                None
            };
            let scale = far.as_ref().unwrap_or(&scale);
            let lse = match &reduced {
                // The sink takes all the mass.
                Ok(None) => {
                    zeros::<S, U>(simd, y, call.cols, stream);
                    // -0 + ln(1) is 0.
                    T::Arithmetic::from_f64(sink.unwrap_or(0.0) + 0.0)
                }
                Ok(Some(reduced)) => {
                    let value = if call.lse.is_empty() {
                        0.0
                    } else if L::PAIRS {
                        logsumexp_of_pairs::<S, T, L>(simd, reduced, scale, x, kept, n, &logits)
                    } else {
                        reduced.log_shift(scale).logsumexp()
                    };
                    // Up to the next aligned vector, zeros are finished with the row.
                    simd.store(kept.add(n), simd.splat(S::E::narrow(0.0)));
                    let y_end = y.add(place.start + n);
                    let n = n + to_aligned::<S, U>(y_end).min(call.cols - place.start - n);
                    zeros::<S, U>(simd, y, place.start, stream);
                    let end = place.start + n;
                    zeros::<S, U>(simd, y.add(end), call.cols - end, stream);
                    let inverse = <Kept as Task<S, T>>::last(scale, reduced);
                    pipeline.finish_later(Finish::new(kept, y.add(place.start), n, inverse));
                    T::Arithmetic::from_f64(value)
                }
                Err(special) => {
                    special_row(special, y, call.cols, call.attend.masked, U::ZERO);
                    special.value()
                }
            };
            if let Some(place) = call.lse.get_mut(row) {
                *place = lse;
            }
        }
        row += 1;
    }
    // SAFETY: as above.
    unsafe {
        if stream {
            pipeline.finish_now(true);
            simd.fence();
        }
        pipeline.end();
    }
    row
}

/// Reduces a row of pairs by its far logits. The first pass found no maximum, or `nothing` but
/// -inf.
///
/// # Safety
/// As [`Reducer::reduce_exactly`].
#[cold]
#[inline(never)]
unsafe fn reduce_far<S, T, L>(
    simd: S,
    x: *const T,
    kept: *mut S::E,
    n: usize,
    logits: &L,
    nothing: bool,
) -> Result<Reduced<S>, Special>
where
    S: Io<T> + Io<<S as Vector>::E>,
    T: Element,
    L: Logits<S>,
{
    let scale = far_scale();
    let reducer = Reducer::new(simd, &scale);
    let mut max = None;
    // Rows whose every key is hidden are common and need no more than this. A maximum may hide a
    // NaN.
    if nothing {
        // SAFETY: as this function's.
        unsafe {
            max = Some(row_max_apart(simd, x, n, logits));
            if max == Some(f64::NEG_INFINITY) {
                return Err(classify(simd, x, n, logits));
            }
        }
    }
    // SAFETY: as this function's.
    unsafe { reducer.reduce_exactly::<T, Keep, L>(x, kept, n, logits, max) }
}

/// The log-sum-exp of a row of pairs.
///
/// # Safety
/// `x` is valid for reads of `n` elements, for which `logits` was made, and `kept` for reads of
/// their exponentials.
#[inline(always)]
unsafe fn logsumexp_of_pairs<S, T, L>(
    simd: S,
    reduced: &Reduced<S>,
    scale: &Scale,
    x: *const T,
    kept: *const S::E,
    n: usize,
    logits: &L,
) -> f64
where
    S: Io<T> + Io<<S as Vector>::E>,
    L: Logits<S>,
{
    let sum = reduced.sum.times(reduced.factor);
    let mut largest = (exp_of_max(reduced, 0.0), 0.0);
    // No low part changes an exponential by as much as a hundredth, and in other rows it does not
    // count.
    if !reduced.own.is_huge() && sum.hi <= 2.1 * largest.0 {
        let least = 0.9 * largest.0 / reduced.factor;
        // SAFETY: as this function's.
        let low = unsafe { largest_low(simd, x, kept, n, logits, reduced.max, least) };
        let low = match logits.sink() {
            Some(sink) if sink.widen() == reduced.max => low.map_or(0.0, |low| f64::max(low, 0.0)),
            _ => low.unwrap_or(0.0),
        };
        largest = (exp_of_max(reduced, low), low);
    }
    log_shift_of_pairs::<S::E>(scale, reduced.max, largest, &reduced.own, sum).logsumexp()
}

/// The exponential of the row's maximum and a low part, by the row's own shift.
#[inline(always)]
fn exp_of_max<S: Vector>(reduced: &Reduced<S>, low: f64) -> f64 {
    let simd = reduced.exp.simd;
    let (max, low) = (S::E::narrow(reduced.max), S::E::narrow(low));
    let e = reduced.exp.of_pair(true, simd.splat(max), simd.splat(low));
    simd.first_lane(e).widen() * reduced.factor
}

/// The largest low part among pairs whose high part is `max`; their exponentials are at least
/// `least`.
///
/// # Safety
/// As [`logsumexp_of_pairs`].
#[inline(never)]
unsafe fn largest_low<S, T, L>(
    simd: S,
    x: *const T,
    kept: *const S::E,
    n: usize,
    logits: &L,
    max: f64,
    least: f64,
) -> Option<f64>
where
    S: Io<T> + Io<<S as Vector>::E>,
    L: Logits<S>,
{
    let mut largest: Option<f64> = None;
    simd.vectorize(
        #[inline(always)]
        || {
            let mut start = 0;
            while start < n {
                let end = n.min(start + UNROLL * S::LANES);
                // SAFETY: that many elements are left, and were kept.
                let e = |k: usize| unsafe { simd.load(kept.add(start + k * S::LANES)) };
                let may = end - start < UNROLL * S::LANES || {
                    let most = simd.max(simd.max(e(0), e(1)), simd.max(e(2), e(3)));
                    simd.max_lane(most).widen() >= least
                };
                let mut i = if may { start } else { end };
                while i < end {
                    let fill = S::E::narrow(f64::NEG_INFINITY);
                    let (mut z, mut low) = ([fill; MOST_LANES], [fill; MOST_LANES]);
                    let len = (n - i).min(S::LANES);
                    // SAFETY: len elements are left; the arrays have room for a vector.
                    unsafe {
                        let v = logits.at(simd.load_upto(x.add(i), len, fill), i, len);
                        simd.store(z.as_mut_ptr(), v.0);
                        simd.store(low.as_mut_ptr(), v.1);
                    }
                    largest = larger_low(largest, &z, &low, max);
                    i += S::LANES;
                }
                start = end;
            }
        },
    );
    largest
}

/// The largest of a low part and those of the pairs whose high part is `max`.
#[inline(never)]
fn larger_low<E: Contract>(largest: Option<f64>, z: &[E], low: &[E], max: f64) -> Option<f64> {
    let lows = z.iter().zip(low).filter(|(z, _)| z.widen() == max).map(|(_, low)| low.widen());
    lows.fold(largest, |largest, low| Some(largest.map_or(low, |largest| largest.max(low))))
}

/// Writes `n` zeros.
///
/// # Safety
/// `y` is valid for writes of `n` elements.
#[inline(always)]
pub(super) unsafe fn zeros<S: Io<U>, U>(simd: S, y: *mut U, n: usize, stream: bool) {
    let zero = simd.splat(S::E::narrow(0.0));
    let mut i = to_aligned::<S, U>(y).min(n);
    // SAFETY: as this function's; from the first aligned address on, every vector starts at an
    // aligned one.
    unsafe {
        if i > 0 {
            simd.store_part(y, i, zero);
        }
        while n - i >= S::LANES {
            if stream {
                prefetch_page(simd, y.add(i), 1);
                simd.stream(y.add(i), zero);
            } else {
                simd.store(y.add(i), zero);
            }
            i += S::LANES;
        }
        if i < n {
            simd.store_part(y.add(i), n - i, zero);
        }
    }
}
