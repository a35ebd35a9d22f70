//! Softmax of attention scores: what masks, biases, caps and sinks make of a row before its exponentials are taken.
//!
//! A row's visible keys are one range of columns (causal, window, length); what lies outside is neither read nor computed, and 0 is
//! written there. Within it the logit of score `x` is, with the options that are given,
//!
//! ```text
//! z = cap(scale * x) + mask_slope * mask + slope * (key - position)        cap(u) = c * tanh(u / c)
//! ```
//!
//! computed as a pair of numbers of the arithmetic type, so that none of these steps costs accuracy; where only ranges and boolean masks are
//! given, the logit is the score, and the scale is folded into the exponential. The sums have their elements in the
//! lanes where a whole row would have them: a row with a mask has the bits of one with -inf there.

use half::{bf16, f16};

use crate::element::Element;
use crate::exp2::{BLOCK, Contract};
use crate::memory::{self, LINE};
use crate::pipeline::{Kept, Reducer, Task};
use crate::rows::{
    Exp, Finish, Inverse, Logits, Odd, UNROLL, finish_row, odd_row, prob, to_aligned,
};
use crate::scale::{Scale, Shift};
use crate::scores::{Attend, MaskData, Row, Scores};
use crate::scratch::Scratch;
use crate::vector::{Io, Vector};

/// Loads of every type of mask.
pub(crate) trait Masks: Io<f32> + Io<f16> + Io<bf16> + Io<<Self as Vector>::E> {}

impl<S: Io<f32> + Io<f16> + Io<bf16> + Io<<S as Vector>::E>> Masks for S {}

/// What every row's logits have: where they start, and which memory to ask for ahead.
#[derive(Clone, Copy)]
struct Place<S: Vector> {
    simd: S,
    /// 0, -1, -2 and so on.
    lanes: S::V,
    /// How many of the first vector's lanes lie before the row's first key.
    skip: usize,
    /// The column of the first vector.
    start: usize,
    /// The first line to ask for, of the first of the rows that are asked for in turn, and their stride in bytes.
    ahead: *const u8,
    stride: usize,
    /// Whether to ask.
    asks: bool,
}

/// How far ahead a streaming call asks for its scores, in bytes: as the sweep over whole rows does.
const AHEAD: usize = 32 << 10;

impl<S: Vector> Place<S> {
    #[inline(always)]
    fn new<T, U>(simd: S, call: &Scores<T, U>, row: usize, keys: (usize, usize)) -> Self
    where
        S: Io<<S as Vector>::E>,
        T: Element,
    {
        let start = keys.0 / S::LANES * S::LANES;
        // SAFETY: there are LANES of them.
        let lanes = unsafe { simd.load(S::E::lanes().as_ptr()) };
        // While one group of rows is read, lines of all the rows of another are asked for in turn: they lie on several pages, which
        // memory serves faster than one.
        let stride = call.x_stride * size_of::<T>();
        let turn = UNROLL * S::LANES * size_of::<T>();
        let group = turn / LINE;
        let turns = (keys.1 - start) * size_of::<T>() / turn;
        let ahead = (AHEAD / (stride + 1)).next_multiple_of(group).max(group);
        let next = call.x.cast::<u8>().wrapping_add((row / group * group + ahead) * stride);
        let line = row % group * turns * LINE + start * size_of::<T>();
        let (ahead, asks) = (next.wrapping_add(line), memory::asks(call.stream));
        Place { simd, lanes, skip: keys.0 - start, start, ahead, stride, asks }
    }

    /// -inf in the lanes that are not the row's.
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
    fn ask_ahead<T>(&self, i: usize) {
        let turn = UNROLL * S::LANES * size_of::<T>();
        let line = self.ahead.wrapping_add(i / (UNROLL * S::LANES) * LINE);
        for k in 0..turn / LINE {
            self.simd.prefetch_far(line.wrapping_add(k * self.stride));
        }
    }
}

/// The elements of `mask` from column `at` on, `n` of which are there: numbers to add, of booleans 0 or -inf.
///
/// # Safety
/// The mask has `at + n` elements.
#[inline(always)]
unsafe fn load_mask<S: Masks>(simd: S, mask: &MaskData, at: usize, n: usize) -> S::V {
    macro_rules! load {
        ($m:ident) => {{
            let p = $m.as_ptr();
            // SAFETY: the caller vouches for n elements there.
            unsafe {
                if n == S::LANES {
                    simd.load(p.add(at))
                } else {
                    simd.load_part(p.add(at), n, S::E::narrow(0.0))
                }
            }
        }};
    }
    match mask {
        MaskData::F32(m) => load!(m),
        MaskData::F16(m) => load!(m),
        MaskData::Bf16(m) => load!(m),
        MaskData::Bool(m) => {
            // SAFETY: the caller vouches for n elements there.
            let m = unsafe { std::slice::from_raw_parts(m.as_ptr().add(at), n) };
            let mut seen = [f32::NEG_INFINITY; 16];
            let hide = |(seen, &m): (&mut f32, &u8)| *seen = if m != 0 { 0.0 } else { *seen };
            seen.iter_mut().zip(m).for_each(hide);
            // SAFETY: there is room for a vector.
            unsafe { simd.load(seen.as_ptr()) }
        }
    }
}

/// Logits that are the scores themselves, where they are seen.
#[derive(Clone, Copy)]
struct Seen<'a, S: Vector> {
    place: Place<S>,
    mask: Option<MaskData<'a>>,
}

/// Logits that are pairs.
#[derive(Clone, Copy)]
struct Biased<'a, S: Vector> {
    place: Place<S>,
    scale: (S::V, S::V),
    cap: Option<Cap>,
    mask: Option<MaskData<'a>>,
    mask_slope: Option<S::V>,
    slope: Option<S::V>,
    /// The distance of the row's first column from the query's position.
    distance: f64,
    sink: Option<S::E>,
}

/// Logits of a row of a call.
trait RowLogits<'a, S: Vector>: Logits<S> {
    fn new(place: Place<S>, attend: &Attend<'a>, row: &Row<'a>) -> Self;
}

impl<'a, S: Masks> RowLogits<'a, S> for Seen<'a, S> {
    #[inline(always)]
    fn new(place: Place<S>, _: &Attend<'a>, row: &Row<'a>) -> Self {
        Seen { place, mask: row.mask }
    }
}

impl<'a, S: Masks> RowLogits<'a, S> for Biased<'a, S>
where
    S::Wide: Io<<S as Vector>::E>,
{
    #[inline(always)]
    fn new(place: Place<S>, attend: &Attend<'a>, row: &Row<'a>) -> Self {
        let simd = place.simd;
        let splat = |x: f32| simd.splat(S::E::narrow(x.into()));
        let (hi, lo) = S::E::scale(&attend.scale);
        Biased {
            place,
            scale: (simd.splat(hi), simd.splat(lo)),
            cap: attend.cap.map(|c| Cap::new(c, &attend.scale)),
            mask: row.mask,
            mask_slope: row.mask_slope.map(splat),
            slope: row.slope.map(splat),
            distance: place.start as f64 - row.position as f64,
            sink: row.sink.map(|sink| S::E::narrow(sink.into())),
        }
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
        if let Some(mask) = &self.mask {
            // SAFETY: the row, and so its mask, has n elements from there on.
            let mask = unsafe { load_mask(simd, mask, self.place.start + i, n) };
            let least = simd.splat(S::E::narrow(f64::NEG_INFINITY));
            v = simd.select_below(mask, simd.splat(S::E::narrow(0.0)), least, v);
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
    fn asks(&self) -> bool {
        self.place.asks
    }
    #[inline(always)]
    fn ask_ahead<T>(&self, _: S, _: *const T, i: usize) {
        self.place.ask_ahead::<T>(i);
    }
}

// SAFETY: reads the mask of the row, which is as long as the row.
unsafe impl<S: Masks> Logits<S> for Biased<'_, S>
where
    S::Wide: Io<<S as Vector>::E>,
{
    const PAIRS: bool = true;
    const VARIES: bool = true;
    #[inline(always)]
    unsafe fn at(&self, v: S::V, i: usize, n: usize) -> (S::V, S::V) {
        let simd = self.place.simd;
        let (mut hi, mut lo) = match &self.cap {
            Some(cap) => cap.of(simd, v),
            None => product(simd, v, self.scale),
        };
        let zero = simd.splat(S::E::narrow(0.0));
        let mut seen = None;
        if let Some(data) = &self.mask {
            // SAFETY: the row, and so its mask, has n elements from there on.
            let mask = unsafe { load_mask(simd, data, self.place.start + i, n) };
            if let MaskData::Bool(_) = data {
                seen = Some(mask);
            } else if let Some(slope) = self.mask_slope {
                (hi, lo) = plus(simd, (hi, lo), product(simd, mask, (slope, zero)));
            } else {
                (hi, lo) = plus(simd, (hi, lo), (mask, zero));
            }
        }
        if let Some(slope) = self.slope {
            let first = simd.splat(S::E::narrow(self.distance + i as f64));
            let distance = simd.sub(first, self.place.lanes);
            (hi, lo) = plus(simd, (hi, lo), product(simd, distance, (slope, zero)));
        }
        // Hidden is hidden, whatever was added.
        if let Some(seen) = seen {
            let least = simd.splat(S::E::narrow(f64::NEG_INFINITY));
            hi = simd.select_below(seen, zero, least, hi);
        }
        // What infinities leave in the low part is nothing.
        lo = simd.zero_below(hi, simd.splat(S::E::narrow(S::E::LEAST)), lo);
        let z = simd.add(hi, lo);
        lo = simd.sub(lo, simd.sub(z, hi));
        (self.place.edges(z, i, n), lo)
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
    fn asks(&self) -> bool {
        self.place.asks
    }
    #[inline(always)]
    fn ask_ahead<T>(&self, _: S, _: *const T, i: usize) {
        self.place.ask_ahead::<T>(i);
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

/// The sum of two pairs; its low part may be larger than half an ULP of the high one.
#[inline(always)]
fn plus<S: Vector>(s: S, (a, a_lo): (S::V, S::V), (b, b_lo): (S::V, S::V)) -> (S::V, S::V) {
    let sum = s.add(a, b);
    let t = s.sub(sum, a);
    let error = s.add(s.sub(a, s.sub(sum, t)), s.sub(b, t));
    (sum, s.add(a_lo, s.add(error, b_lo)))
}

/// `c * tanh(scale * x / c)`, computed in f64: `c * (e - 1) / (e + 1)`, `e = exp(2 * scale * x / c)`.
#[derive(Clone, Copy)]
pub(crate) struct Cap {
    pub(crate) c: f64,
    /// `2 * scale / c`
    pub(crate) factor: f64,
}

impl Cap {
    /// Beyond this exponent the hyperbolic tangent is 1, to the precision of f64.
    pub(crate) const END: f64 = 80.0;

    /// How the exponential is shifted: it is `C` times the true one, down to `exp(-END)`.
    pub(crate) const SHIFT: Shift = Shift { subtract: 0.0, m: 0, cut: -2.0 * Self::END };

    pub(crate) fn new(c: f64, scale: &Scale) -> Self {
        Cap { c, factor: 2.0 * scale.get() / c }
    }

    #[inline(always)]
    fn of<S>(&self, simd: S, v: S::V) -> (S::V, S::V)
    where
        S: Vector + Io<<S as Vector>::E>,
        S::Wide: Io<<S as Vector>::E>,
    {
        let w = simd.wide();
        let exp = Exp::new(w, &Scale::ONE, &Self::SHIFT);
        let (c, factor, end) = (w.splat(self.c), w.splat(self.factor), w.splat(Self::END));
        let one = w.splat(f64::from_bits(f64::TABLE[0]));
        let zero = S::E::narrow(0.0);
        let (mut x, mut hi, mut lo) = ([zero; 16], [zero; 16], [zero; 16]);
        // SAFETY: the arrays have room for LANES elements, which is a multiple of the wide vector's lanes.
        unsafe {
            simd.store(x.as_mut_ptr(), v);
            let mut k = 0;
            while k < S::LANES {
                let u = w.mul(w.load(x.as_ptr().add(k)), factor);
                // Where `end` is below; a NaN stays.
                let u = w.select_below(end, u, end, u);
                let e = exp.of(false, true, u);
                let z = w.mul(c, w.div(w.sub(e, one), w.add(e, one)));
                w.store(hi.as_mut_ptr().add(k), z);
                let rest = w.sub(z, w.load(hi.as_ptr().add(k)));
                w.store(lo.as_mut_ptr().add(k), rest);
                k += S::Wide::LANES;
            }
            (simd.load(hi.as_ptr()), simd.load(lo.as_ptr()))
        }
    }
}

/// A row whose exponentials wait to be finished: where they belong, how many they are, and the reciprocal of their sum.
struct Waiting<U, V> {
    y: *mut U,
    n: usize,
    inverse: Inverse<V>,
}

/// Softmax of every row of the call. Whether there was memory for a row; if not, nothing is written.
///
/// # Safety
/// The call's pointers are valid as [`Scores`] says.
#[inline(always)]
pub(crate) unsafe fn attend<S, T, U>(simd: S, call: &Scores<T, U>) -> bool
where
    S: Masks + Io<T> + Io<U>,
    S::Wide: Io<<S as Vector>::E>,
    T: Element,
    U: Element,
{
    // With a vector of zeros behind the longest row, and out of the way of the row after the first, which is read while the first is written.
    let next = call.x.wrapping_add(call.x_stride).addr();
    let Some((_scratch, kept)) = Scratch::take_row(call.cols, next, call.y.addr()) else {
        return false;
    };
    // SAFETY: as this function's; what is kept has room for a row and a vector.
    unsafe {
        match (call.attend.has_pairs(), S::STREAMS && call.stream && memory::streams()) {
            (false, false) => rows::<S, T, U, Seen<S>, false>(simd, call, kept),
            (false, true) => rows::<S, T, U, Seen<S>, true>(simd, call, kept),
            (true, false) => rows::<S, T, U, Biased<S>, false>(simd, call, kept),
            (true, true) => rows::<S, T, U, Biased<S>, true>(simd, call, kept),
        }
    }
    true
}

/// As [`attend`].
///
/// # Safety
/// As [`attend`]; `kept` is valid for writes of a row and a vector.
#[inline(always)]
unsafe fn rows<'a, S, T, U, L, const STREAM: bool>(
    simd: S,
    call: &Scores<'a, T, U>,
    kept: *mut S::E,
) where
    S: Masks + Io<T> + Io<U>,
    T: Element,
    U: Element,
    L: RowLogits<'a, S>,
{
    let scale = if L::PAIRS { Scale::ONE } else { call.attend.scale };
    let mut reducer = Reducer::new(simd, &scale);
    let mut last: Option<Waiting<U, S::V>> = None;
    let finishing = |Waiting { y, n, inverse }: Waiting<U, S::V>| {
        Finish::new(
            kept.cast_const(),
            y,
            n,
            #[inline(always)]
            move |v| prob(simd, v, inverse),
        )
    };
    for row in 0..call.rows {
        let options = call.options(row);
        let place = Place::new(simd, call, row, options.keys);
        let logits = L::new(place, &call.attend, &options);
        let n = options.keys.1 - place.start;
        // SAFETY: `row` is one of the call's rows, so x and y point to `cols` elements, of which start + n are no more; what is
        // kept has room for them. The row before was one of the call's, too.
        unsafe {
            let x = call.x.add(row * call.x_stride).add(place.start);
            let y = call.y.add(row * call.y_stride);
            let sink = logits.sink().map(S::E::widen);
            let reduced = if options.keys.0 < options.keys.1 {
                // Finishing a row while the next one is swept is for where memory is the limit, and the most to compile: not for pairs,
                // which take twice the operations, nor for conversions between types.
                if const { !L::PAIRS && size_of::<T>() == size_of::<U>() } {
                    let finish = last.take().map(finishing);
                    reducer.reduce::<T, U, _, _, Kept, L, STREAM>(x, kept, n, &logits, finish)
                } else {
                    if let Some(last) = last.take() {
                        finish_row::<S, U, _, STREAM>(simd, &finishing(last));
                    }
                    reducer.reduce_alone::<T, Kept, L>(x, kept, n, &logits)
                }
                .map(Some)
            } else if sink.is_some_and(f64::is_finite) {
                Ok(None)
            } else {
                Err(Odd::of(sink.into_iter()))
            };
            let lse = match &reduced {
                // The sink takes all the mass.
                Ok(None) => {
                    zeros::<S, U, STREAM>(simd, y, call.cols);
                    // -0 + ln(1) is 0.
                    T::Arithmetic::from_f64(sink.unwrap_or(0.0) + 0.0)
                }
                Ok(Some(reduced)) => {
                    let value = if call.lse.is_null() {
                        0.0
                    } else {
                        reduced.log_shift(&scale).logsumexp()
                    };
                    // Up to where the next vector starts, the zeros are the row's.
                    simd.store(kept.add(n), simd.splat(S::E::narrow(0.0)));
                    let y_end = y.add(place.start + n);
                    let n = n + to_aligned::<S, U>(y_end).min(call.cols - place.start - n);
                    zeros::<S, U, STREAM>(simd, y, place.start);
                    let end = place.start + n;
                    zeros::<S, U, STREAM>(simd, y.add(end), call.cols - end);
                    let inverse = <Kept as Task<S, T>>::row(&scale, reduced);
                    last = Some(Waiting { y: y.add(place.start), n, inverse });
                    T::Arithmetic::from_f64(value)
                }
                Err(odd) => {
                    odd_row(odd, y, call.cols, call.attend.masked, U::ZERO);
                    odd.value()
                }
            };
            if !call.lse.is_null() {
                *call.lse.add(row) = lse;
            }
        }
    }
    if let Some(last) = last {
        // SAFETY: as above.
        unsafe { finish_row::<S, U, _, STREAM>(simd, &finishing(last)) };
    }
    if STREAM {
        simd.fence();
    }
}

/// Writes `n` zeros.
///
/// # Safety
/// `y` is valid for writes of `n` elements.
#[inline(always)]
unsafe fn zeros<S: Io<U>, U, const STREAM: bool>(simd: S, y: *mut U, n: usize) {
    let zero = simd.splat(S::E::narrow(0.0));
    let mut i = to_aligned::<S, U>(y).min(n);
    // SAFETY: what the caller vouches for; from the first aligned address on, every vector starts at one.
    unsafe {
        if i > 0 {
            simd.store_part(y, i, zero);
        }
        while n - i >= S::LANES {
            if STREAM {
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
