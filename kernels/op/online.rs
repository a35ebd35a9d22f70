//! A tile of attention scores: weights by the shift of each row's state, which keeps the sum.
//!
//! A row is read twice, once for its maximum and once for its exponentials; a tile is small enough
//! for the core's caches. Every element is added to the lane that it has in a whole row, in the
//! order of keys, so that no cut of tiles in order changes a bit of the sum. A tile may start at
//! any key: elements before the next multiple of the number of lanes go through a buffer.

use crate::call::Special;
use crate::call::online::{FarTile, OnlineRow, TileCall, far_tile};
use crate::call::scores::{Attend, Row, far_scale};
use crate::isa::vector::{Io, Vector};
use crate::num::element::Element;
use crate::num::exp2::{BLOCK, MOST_LANES};
use crate::num::scale::Scale;
use crate::op::attend::{Biased, Masks, Place, RowLogits, Seen, only_hides, zeros};
use crate::sweep::{Exp, Logits, UNROLL, classify, row_max};

/// Weighs every row of the call.
///
/// # Safety
/// The call's pointers are valid as it says.
#[inline(always)]
pub(crate) unsafe fn tile<S, U>(simd: S, call: &mut TileCall<U>)
where
    S: Masks + Io<U> + Vector<E = f32>,
    U: Element,
{
    for row in 0..call.rows {
        // SAFETY: as this function's; it is one of the call's rows.
        unsafe {
            let options = call.options(
                row,
                #[inline(always)]
                |mask, keys| only_hides(simd, mask, keys),
            );
            if options.pairs {
                weigh::<S, U, Biased<S>>(simd, call, row, &options);
            } else {
                weigh::<S, U, Seen<S>>(simd, call, row, &options);
            }
        }
    }
}

/// Some elements of a row, which start at a multiple of the lanes.
struct Span<U, L> {
    x: *const f32,
    y: *mut U,
    n: usize,
    /// The number of the first key.
    first: usize,
    logits: L,
}

impl<U, L> Span<U, L> {
    /// Elements of a row, how many, and the number of the first key.
    #[inline(always)]
    fn new<'a, S>(
        simd: S,
        (x, y, n, first): (*const f32, *mut U, usize, usize),
        (attend, options, far): (&Attend<'a>, &Row<'a>, bool),
    ) -> Self
    where
        S: Masks + Vector<E = f32>,
        L: RowLogits<'a, S>,
    {
        let place = Place::within(simd, first, options.keys.0.saturating_sub(first));
        Self { x, y, n, first, logits: L::new(place, attend, options, far) }
    }
}

/// Weighs one row.
///
/// # Safety
/// As [`tile`]; `row` is one of the call's.
#[inline(always)]
unsafe fn weigh<'a, S, U, L>(simd: S, call: &mut TileCall<'a, U>, row: usize, options: &Row<'a>)
where
    S: Masks + Io<U> + Vector<E = f32>,
    U: Element,
    L: RowLogits<'a, S>,
{
    let (x, y) = call.row(row);
    let (key, cols, (from, to)) = (call.first_key(), call.cols, options.keys);
    let (state, attend) = (&mut call.states[row], &call.attend);
    let scale = if L::PAIRS { &Scale::ONE } else { &attend.scale };
    let unseen = if state.is_empty() { 0.0 } else { 1.0 };
    if state.is_special() || from >= to {
        let value = if state.is_special() { U::NAN } else { U::ZERO };
        // No slice: the pointer may be any where there are no elements.
        for i in 0..cols {
            // SAFETY: the row has `cols` elements to write.
            unsafe { *y.add(i) = value };
        }
        call.factors[row] = unseen;
        return;
    }
    let start = from / S::LANES * S::LANES;
    // The elements up to the next multiple of the lanes, if the tile starts between two of them.
    let (mut head_x, mut head_y) = ([f32::NEG_INFINITY; MOST_LANES], [U::ZERO; MOST_LANES]);
    let before = key.saturating_sub(start);
    let head = if before > 0 { (to - start).min(S::LANES) } else { 0 };
    if head > 0 {
        // SAFETY: the tile has the keys up to `to`, which the buffer has room for.
        unsafe {
            std::ptr::copy_nonoverlapping(x, head_x.as_mut_ptr().add(before), head - before);
        }
    }
    let first = if head > 0 { start + S::LANES } else { start };
    let rest = to.saturating_sub(first);
    // Where there is no rest, nothing is read.
    let at = first.saturating_sub(key);
    let head_y = head_y.as_mut_ptr();
    let of_head = (head_x.as_ptr(), head_y, head, start);
    let of_rest = (x.wrapping_add(at), y.wrapping_add(at), rest, first);
    let near = (attend, options, false);
    let both = [Span::new(simd, of_head, near), Span::new(simd, of_rest, near)];
    // SAFETY: each span has its elements to read and to write.
    unsafe {
        let mut max = span_max(simd, &both[1]);
        if head > 0 {
            let of_head = span_max(simd, &both[0]);
            max = if max.is_nan() || of_head.is_nan() { f64::NAN } else { max.max(of_head) };
        }
        let near = if max.is_finite() { state.begin(max, scale) } else { None };
        let factor = if let Some((shift, factor)) = near {
            let exp = Exp::new(simd, scale, &shift);
            let mut largest = simd.splat(0.0);
            for span in both.iter().skip(if head > 0 { 0 } else { 1 }) {
                exponentials::<S, U, L>(&exp, state, span, &mut largest);
            }
            let largest = if L::PAIRS {
                simd.max_lane(largest)
            } else if state.is_above(max, scale) {
                simd.first_lane(exp.of(false, true, simd.splat(max as f32)))
            } else {
                0.0
            };
            state.saw(max, scale, largest.into());
            if state.has_nan() {
                state.set_special(f64::NAN);
                FarTile::Special
            } else {
                FarTile::Done(factor)
            }
        } else if max.is_finite() {
            far::<S, U, L>(simd, &both, scale, state)
        } else if L::PAIRS {
            let of = (attend, options, true);
            let both = [Span::new(simd, of_head, of), Span::new(simd, of_rest, of)];
            far::<S, U, L>(simd, &both, &far_scale(), state)
        } else {
            special::<S, U, L>(simd, &both, state)
        };
        match factor {
            FarTile::Special => {
                std::slice::from_raw_parts_mut(y, cols).fill(U::NAN);
                call.factors[row] = unseen;
            }
            FarTile::Hidden => {
                std::slice::from_raw_parts_mut(y, cols).fill(U::ZERO);
                call.factors[row] = unseen;
            }
            FarTile::Done(factor) => {
                if head > 0 {
                    std::ptr::copy_nonoverlapping(head_y.add(before), y, head - before);
                }
                zeros::<S, U>(simd, y, start.saturating_sub(key), false);
                zeros::<S, U>(simd, y.add(to - key), cols - (to - key), false);
                call.factors[row] = factor;
            }
        }
    }
}

/// The largest logit of a span. Of pairs it is NaN if one of them is NaN or +inf, which may be
/// because a step left the range of f32: it is found before weights overwrite scores.
///
/// # Safety
/// As [`exponentials`].
#[inline(always)]
unsafe fn span_max<S, U, L>(simd: S, span: &Span<U, L>) -> f64
where
    S: Masks + Vector<E = f32>,
    L: Logits<S>,
{
    if const { !L::PAIRS } {
        // SAFETY: as this function's.
        return unsafe { row_max(simd, span.x, span.n, &span.logits) };
    }
    let least = simd.splat(f32::MIN);
    let mut max = simd.splat(f32::NEG_INFINITY);
    // Infinities and NaN stay in a sum. (One that overflows leads to the same result.)
    let mut sum = simd.splat(0.0);
    for i in (0..span.n).step_by(S::LANES) {
        let n = (span.n - i).min(S::LANES);
        // SAFETY: n elements are left.
        let z =
            unsafe { span.logits.at(simd.load_upto(span.x.add(i), n, f32::NEG_INFINITY), i, n).0 };
        max = simd.max(z, max);
        sum = simd.add(sum, simd.zero_below(z, least, z));
    }
    let mut lanes = [0.0f32; MOST_LANES];
    // SAFETY: the array has room for a vector.
    unsafe { simd.store(lanes.as_mut_ptr(), sum) };
    let is_finite = lanes.iter().all(|sum| sum.is_finite());
    if is_finite { simd.max_lane(max).into() } else { f64::NAN }
}

/// The exponentials of a span, written and added to the row's sum; and the largest of them, for
/// pairs.
///
/// # Safety
/// The span has its elements to read and to write.
#[inline(always)]
unsafe fn exponentials<S, U, L>(
    exp: &Exp<S>,
    state: &mut OnlineRow,
    span: &Span<U, L>,
    largest: &mut S::V,
) where
    S: Masks + Io<U> + Vector<E = f32>,
    L: Logits<S>,
{
    let (simd, w) = (exp.simd, exp.simd.wide());
    let mut i = 0;
    while i < span.n {
        let block = (span.first + i) / BLOCK;
        state.enter_block(block as u64);
        let end = span.n.min((block + 1) * BLOCK - span.first);
        let lanes = state.lanes.as_mut_ptr();
        // SAFETY: a state has two vectors of lanes; the span has the elements up to `end`.
        unsafe {
            let mut sums = [w.load(lanes.cast_const()), w.load(lanes.add(S::LANES / 2))];
            while !S::SMALL && i + UNROLL * S::LANES <= end {
                if S::ABREAST && L::PAIRS {
                    step::<2, S, U, L>(exp, span, i, &mut sums, largest);
                    step::<2, S, U, L>(exp, span, i + 2 * S::LANES, &mut sums, largest);
                } else if S::ABREAST {
                    step::<UNROLL, S, U, L>(exp, span, i, &mut sums, largest);
                } else {
                    for k in 0..UNROLL {
                        step::<1, S, U, L>(exp, span, i + k * S::LANES, &mut sums, largest);
                    }
                }
                i += UNROLL * S::LANES;
            }
            while i + S::LANES <= end {
                step::<1, S, U, L>(exp, span, i, &mut sums, largest);
                i += S::LANES;
            }
            if i < end {
                let n = end - i;
                let v = simd.load_part(span.x.add(i), n, f32::NEG_INFINITY);
                let (v, lo) = span.logits.at(v, i, n);
                let e = if L::PAIRS { exp.of_pair(false, v, lo) } else { exp.of(false, true, v) };
                simd.store_part(span.y.add(i), n, e);
                add::<S, L>(simd, e, &mut sums, largest);
                i = end;
            }
            w.store(lanes, sums[0]);
            w.store(lanes.add(S::LANES / 2), sums[1]);
        }
    }
}

/// Adds a vector of exponentials.
#[inline(always)]
fn add<S, L>(simd: S, e: S::V, sums: &mut [<S::Wide as Vector>::V; 2], largest: &mut S::V)
where
    S: Vector,
    L: Logits<S>,
{
    let (w, [low, high]) = (simd.wide(), simd.widen(e));
    *sums = [w.add(sums[0], low), w.add(sums[1], high)];
    if L::PAIRS {
        *largest = simd.max(e, *largest);
    }
}

/// The exponentials of N vectors from the `i`th element on, abreast.
///
/// # Safety
/// The span has these vectors.
#[inline(always)]
unsafe fn step<const N: usize, S, U, L>(
    exp: &Exp<S>,
    span: &Span<U, L>,
    i: usize,
    sums: &mut [<S::Wide as Vector>::V; 2],
    largest: &mut S::V,
) where
    S: Masks + Io<U> + Vector<E = f32>,
    L: Logits<S>,
{
    let simd = exp.simd;
    // SAFETY: as this function's.
    unsafe {
        let mut v = [*largest; N];
        for (k, v) in v.iter_mut().enumerate() {
            *v = simd.load(span.x.add(i + k * S::LANES));
        }
        let (v, lo) = span.logits.at_each(v, i);
        let e = if L::PAIRS {
            exp.of_each::<N, true>(false, true, v, lo)
        } else {
            exp.of_each::<N, false>(false, true, v, lo)
        };
        for (k, e) in e.into_iter().enumerate() {
            simd.store(span.y.add(i + k * S::LANES), e);
            add::<S, L>(simd, e, sums, largest);
        }
    }
}

/// Classifies a row whose maximum is not finite.
///
/// # Safety
/// As [`exponentials`].
#[cold]
unsafe fn special<S, U, L>(simd: S, spans: &[Span<U, L>; 2], state: &mut OnlineRow) -> FarTile
where
    S: Masks + Vector<E = f32>,
    L: Logits<S>,
{
    let mut value = f64::NEG_INFINITY;
    for span in spans {
        // SAFETY: as this function's.
        match unsafe { classify(simd, span.x, span.n, &span.logits) } {
            Special::Nan => value = f64::NAN,
            Special::PlusInf if !value.is_nan() => value = f64::INFINITY,
            _ => {}
        }
    }
    if value == f64::NEG_INFINITY {
        return FarTile::Hidden;
    }
    state.set_special(value);
    FarTile::Special
}

/// Weighs a row whose logits are beyond the range of the exponential: [`far_tile`].
///
/// # Safety
/// As [`exponentials`].
#[cold]
#[inline(never)]
unsafe fn far<S, U, L>(
    simd: S,
    spans: &[Span<U, L>; 2],
    scale: &Scale,
    state: &mut OnlineRow,
) -> FarTile
where
    S: Masks + Io<U> + Vector<E = f32>,
    U: Element,
    L: Logits<S>,
{
    far_tile(state, scale, &mut |write, weigh| {
        for span in spans {
            for i in (0..span.n).step_by(S::LANES) {
                let (mut lanes, n) = ([0.0; MOST_LANES], (span.n - i).min(S::LANES));
                simd.vectorize(
                    #[inline(always)]
                    // SAFETY: n elements are left; the array has room for a vector.
                    || unsafe {
                        let v = simd.load_upto(span.x.add(i), n, f32::NEG_INFINITY);
                        simd.store(lanes.as_mut_ptr(), span.logits.at(v, i, n).0);
                    },
                );
                for (k, &z) in lanes.iter().enumerate().take(n) {
                    let e = weigh(span.first + i + k, z.into());
                    if write {
                        // SAFETY: the span has this element to write; it was read before.
                        unsafe { *span.y.add(i + k) = U::from_f64(e.into()) };
                    }
                }
            }
        }
    })
}
