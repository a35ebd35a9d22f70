//! Softmax along an axis that is not the last: over the columns of matrices that follow each other
//! in memory.
//!
//! Lanes are columns here. A tile of some columns is read from its first row to its last.
//! Exponentials are kept in scratch memory; a column is summed in as many accumulators as a row's
//! sum has lanes, its `k`th element in the lane that it would have in a row. So every column has
//! the bits that it would have as a row. One guessed shift serves a whole tile, if the tile's
//! extremes show that it is good; if not, or if a column is special, the columns of the tile are
//! copied to rows and computed as such. Log-softmax always does that.

use crate::call::columns::Columns;
use crate::isa::vector::{Io, Vector};
use crate::mem::scratch::Scratch;
use crate::num::element::Element;
use crate::num::exp2::{BLOCK, Contract};
use crate::sweep::reduce::{Kept, Log, Reducer, row_exactly};
use crate::sweep::{Exp, Inverse, Met, prob, to_aligned};

/// The most columns of a tile: their sums stay in the first-level cache.
const WIDEST: usize = 256;

/// Rows of the same lane that are added together, so that their sum is loaded and stored once.
const LANE_ROWS: usize = 4;

/// Rows ahead that are prefetched.
const AHEAD: usize = 2;

/// Bytes of all exponentials that are kept, unless a tile is only a vector wide. A tile's rows are
/// mostly in other pages each, so its width counts for more than that it stays in a core's cache.
const KEPT: usize = 1 << 24;

/// Columns that are copied to rows at the same time: each is written to pages of its own.
const TURNED: usize = 64;

/// The least bytes of scratch memory for columns of `axis` elements: the sizes in `columns`.
pub const fn room_for_columns<T: Element>(axis: usize) -> usize {
    const WIDE: usize = size_of::<f64>();
    // All vectors have 64 bytes, and accumulators 128 or 256.
    let acc = if T::IS_ARITHMETIC { 128 } else { 256 };
    let narrow = axis.saturating_mul(2 * 64);
    let kept = if narrow > KEPT { narrow } else { KEPT };
    let widest = axis.saturating_mul(2 * WIDEST * WIDE);
    let kept = if kept < widest { kept } else { widest };
    let sums = 2 * 2 * WIDEST * WIDE + WIDEST * acc + WIDEST / 8 * 128;
    // Rounding up to cache lines, for each of seven sizes, and a line more for two of them.
    kept.saturating_add(sums + 9 * 64).saturating_add(axis.saturating_mul(WIDE))
}

/// The memory of all tiles.
struct Room<S: Vector> {
    /// The most columns of a tile.
    width: usize,
    /// One for each lane of a row's sum and each vector of columns; later their totals, in the same
    /// places.
    lanes: *mut S::Acc,
    /// One for each vector of columns.
    totals: *mut S::Total,
    /// Room for the exponentials of one column.
    line: *mut S::E,
    /// The bytes of a tile's exponentials.
    kept: usize,
}

/// `n` columns, and the memory that they use until they are finished.
struct Tile<S: Vector, T> {
    x: *const T,
    y: *mut T,
    n: usize,
    /// The exponentials, `width` of each row.
    kept: *mut S::E,
    /// The reciprocals of the sums: `width` high parts, and as many low ones.
    inverses: *mut S::E,
    /// [`Scale::is_wide`] of the tile's extremes.
    wide: bool,
}

/// Softmax, or log-softmax if `LOG`, of every column of the call. Returns whether there was memory;
/// if not, nothing is written.
///
/// # Safety
/// The call's pointers are valid as [`Columns`] says.
#[inline(always)]
pub(crate) unsafe fn columns<S, T, const LOG: bool>(simd: S, call: &Columns<T>) -> bool
where
    S: Io<T> + Io<<S as Vector>::E>,
    T: Element,
{
    const { assert!(size_of::<S::Total>() <= size_of::<S::Acc>()) };
    let (axis, e, acc) = (call.axis, size_of::<S::E>(), size_of::<S::Acc>());
    if axis == 0 || call.count == 0 {
        return true;
    }
    let most = if LOG { TURNED } else { WIDEST };
    let widest = call.count.next_multiple_of(S::LANES).min(most);
    let stream = S::STREAMS && call.store.is_past();
    let tiles = if stream { 2 } else { 1 };
    let width = (KEPT / tiles / e / axis / S::LANES * S::LANES).clamp(S::LANES, widest);
    let vectors = width / S::LANES;
    // In bytes, multiples of a cache line.
    let line = |n: Option<usize>| n.and_then(|n| n.checked_next_multiple_of(64));
    // Copied columns take a line more.
    let kept = line(axis.checked_mul(width * e).and_then(|n| n.checked_add(64)));
    let inverses = line(Some(2 * width * e));
    let sizes = [
        kept,
        inverses,
        if stream { kept } else { Some(0) },
        if stream { inverses } else { Some(0) },
        line(Some(S::LANES * vectors * acc)),
        line(Some(vectors * size_of::<S::Total>())),
        line(axis.checked_mul(e)),
    ];
    let mut offsets = [0; 8];
    for (i, size) in sizes.into_iter().enumerate() {
        let Some(end) = size.and_then(|size| size.checked_add(offsets[i])) else { return false };
        offsets[i + 1] = end;
    }
    let Some(mut scratch) = Scratch::take::<u8>(offsets[7]) else { return false };
    let memory: *mut u8 = scratch.as_mut_ptr();
    let room = Room::<S> {
        width,
        lanes: memory.wrapping_add(offsets[4]).cast(),
        totals: memory.wrapping_add(offsets[5]).cast(),
        line: memory.wrapping_add(offsets[6]).cast(),
        kept: offsets[1],
    };
    let mut reducer = Reducer::new(simd, &call.scale);
    let mut waiting: Option<Tile<S, T>> = None;
    let mut turn = 0;
    for matrix in 0..call.outer {
        let mut done = 0;
        while done < call.count {
            let at = matrix * axis * call.inner + call.first + done;
            let (x, y) = (call.x.wrapping_add(at), call.y.wrapping_add(at));
            // Streamed tiles start at aligned vectors, if all rows of the tile agree on that.
            let head = if stream { to_aligned::<S, T>(y) } else { 0 };
            let most = if head > 0 && width > S::LANES { width - S::LANES + head } else { width };
            let n = most.min(call.count - done);
            let kept = memory.wrapping_add(offsets[2 * turn]).cast();
            let inverses = memory.wrapping_add(offsets[2 * turn + 1]).cast();
            let mut tile = Tile { x, y, n, kept, inverses, wide: true };
            // SAFETY: n columns from `first + done` on are the call's, and there is room for that
            // many.
            unsafe {
                let wide = if LOG {
                    None
                } else {
                    let with = waiting.take_if(|before| before.goes_with(&tile, call));
                    if let Some(before) = waiting.take() {
                        finish(simd, call, &room, &before, true);
                    }
                    let (reducer, room) = (&mut reducer, &room);
                    match with {
                        // Where memory is the limit, the cut costs nothing.
                        Some(before) if S::STREAMS => {
                            sum::<S, T, true, true>(reducer, call, room, &tile, &before)
                        }
                        _ if const { S::SMALL } || reducer.cut => {
                            sum::<S, T, true, false>(reducer, call, room, &tile, &tile)
                        }
                        _ => sum::<S, T, false, false>(reducer, call, room, &tile, &tile),
                    }
                };
                let Some(wide) = wide else {
                    turned_round::<S, T, LOG>(&reducer, call, &room, &tile);
                    done += n;
                    continue;
                };
                tile.wide = wide;
                if stream {
                    waiting = Some(tile);
                    turn = 1 - turn;
                } else {
                    // Tiles that are written through the caches gain nothing by waiting.
                    finish(simd, call, &room, &tile, false);
                }
            }
            done += n;
        }
    }
    if let Some(before) = waiting {
        // SAFETY: as above.
        unsafe { finish(simd, call, &room, &before, true) };
    }
    if stream {
        simd.fence();
    }
    true
}

impl<S: Vector, T> Tile<S, T> {
    /// Whether this tile can be finished during the sum of the next one: it has as many columns, in
    /// full and aligned vectors.
    #[inline(always)]
    fn goes_with(&self, next: &Self, call: &Columns<T>) -> bool {
        let vector = S::LANES * size_of::<T>();
        let stride = call.inner * size_of::<T>();
        let whole = self.n == next.n && self.n.is_multiple_of(S::LANES);
        whole && self.y.addr().is_multiple_of(vector) && stride.is_multiple_of(vector)
    }
}

/// Computes the exponentials of a tile and the reciprocals of their sums, and if `FINISH`, the
/// quotients of the tile before. Returns [`Tile::wide`], or `None` if the guess was not good for
/// all columns or one is special.
///
/// # Safety
/// The tiles are the call's, and have room; if `FINISH`, `before` was summed and goes with `tile`.
#[inline(always)]
unsafe fn sum<S, T, const CUT: bool, const FINISH: bool>(
    reducer: &mut Reducer<S>,
    call: &Columns<T>,
    room: &Room<S>,
    tile: &Tile<S, T>,
    before: &Tile<S, T>,
) -> Option<bool>
where
    S: Io<T> + Io<<S as Vector>::E>,
    T: Element,
{
    let exp = reducer.exp;
    let simd = exp.simd;
    let vectors = tile.n.div_ceil(S::LANES);
    let max = simd.splat(S::E::narrow(f64::NEG_INFINITY));
    let min = simd.splat(S::E::narrow(f64::INFINITY));
    let mut add = Add::<S, T, CUT, FINISH> { exp, call, room, tile, before, max, min };
    let mut start = 0;
    // SAFETY: every element of the tile is one of the call's; there is room for its exponential,
    // its lane and its column.
    unsafe {
        while start < call.axis {
            let end = call.axis.min(start + BLOCK);
            for i in 0..S::LANES * vectors {
                room.lanes.add(i).write(simd.acc_zero());
            }
            let mut k = start;
            while k < end {
                // Rows of one lane together: their sums are loaded and stored once.
                if end - k >= LANE_ROWS * S::LANES {
                    for lane in 0..S::LANES {
                        add.rows::<LANE_ROWS>(k + lane);
                    }
                    k += LANE_ROWS * S::LANES;
                } else {
                    add.rows::<1>(k);
                    k += 1;
                }
            }
            // Each lane's total is stored in the lane's place, which is at least as large.
            let lanes: *mut S::Total = room.lanes.cast();
            for i in 0..S::LANES * vectors {
                lanes.add(i).write(simd.total(*room.lanes.add(i)));
            }
            let mut half = S::LANES / 2;
            while half > 0 {
                for i in 0..half * vectors {
                    let lane = lanes.add(i);
                    *lane = simd.total_plus(*lane, *lane.add(half * vectors));
                }
                half /= 2;
            }
            for v in 0..vectors {
                let (block, total) = (*lanes.add(v), room.totals.add(v));
                total.write(if start == 0 { block } else { simd.total_plus(*total, block) });
            }
            start = end;
        }
        let (max, min) = (simd.max_lane(add.max).widen(), simd.min_lane(add.min).widen());
        let mut good = reducer.judge_rows(max, min);
        for v in 0..vectors {
            let hi = tile.inverses.add(v * S::LANES);
            good &= simd.total_inverses(*room.totals.add(v), hi, hi.add(room.width));
        }
        good.then(|| call.scale.is_wide(max, min, call.axis))
    }
}

/// The state of a tile while it is summed.
struct Add<'a, S: Vector, T, const CUT: bool, const FINISH: bool> {
    exp: Exp<S>,
    call: &'a Columns<'a, T>,
    room: &'a Room<S>,
    tile: &'a Tile<S, T>,
    before: &'a Tile<S, T>,
    /// The extremes so far.
    max: S::V,
    min: S::V,
}

impl<S, T, const CUT: bool, const FINISH: bool> Add<'_, S, T, CUT, FINISH>
where
    S: Io<T> + Io<<S as Vector>::E>,
    T: Element,
{
    /// Computes the exponentials of `R` rows, [`Vector::LANES`] apart from `first` on, and adds
    /// them.
    ///
    /// # Safety
    /// As [`sum`]; these rows exist, and the sums are initialised.
    #[inline(always)]
    unsafe fn rows<const R: usize>(&mut self, first: usize) {
        let simd = self.exp.simd;
        let vectors = self.tile.n.div_ceil(S::LANES);
        let mut met = Met { max: self.max, min: self.min, acc: simd.acc_zero() };
        // SAFETY: as this function's.
        unsafe {
            let lanes = self.room.lanes.add(first % S::LANES * vectors);
            for v in 0..vectors {
                let at = v * S::LANES;
                met.acc = *lanes.add(v);
                let inverse = if FINISH {
                    let hi = self.before.inverses.add(at);
                    let (hi, lo) = (simd.load(hi), simd.load(hi.add(self.room.width)));
                    Inverse { hi, lo, wide: self.before.wide }
                } else {
                    Inverse { hi: met.max, lo: met.max, wide: false }
                };
                if S::ABREAST {
                    self.vectors::<R>(first, at, inverse, &mut met);
                } else {
                    for r in 0..R {
                        self.vectors::<1>(first + r * S::LANES, at, inverse, &mut met);
                    }
                }
                *lanes.add(v) = met.acc;
            }
        }
        (self.max, self.min) = (met.max, met.min);
    }

    /// Computes the vectors at column `at` of these rows.
    ///
    /// # Safety
    /// As [`Add::rows`]; the tile has a column `at`.
    #[inline(always)]
    unsafe fn vectors<const R: usize>(
        &self,
        first: usize,
        at: usize,
        inverse: Inverse<S::V>,
        met: &mut Met<S>,
    ) {
        let Add { exp, call, room, tile, before, .. } = *self;
        let simd = exp.simd;
        let mut values = [met.max; R];
        // SAFETY: as this function's.
        unsafe {
            for (r, value) in values.iter_mut().enumerate() {
                let row = tile.x.add((first + r * S::LANES) * call.inner);
                *value = if tile.n - at >= S::LANES {
                    simd.load(row.add(at))
                } else {
                    // Missing columns repeat the first one.
                    simd.load_part(row.add(at), tile.n - at, S::E::narrow((*row).to_f64()))
                };
                simd.prefetch_far(row.wrapping_add(AHEAD * call.inner + at));
                if FINISH && at == 0 {
                    // The address of each output row's page is looked up before it is needed.
                    let ahead = (first + r * S::LANES + AHEAD) * call.inner;
                    simd.prefetch_far(before.y.wrapping_add(ahead).cast_const());
                }
                met.see(&exp, CUT, *value);
            }
            let e = exp.of_each::<R, false>(false, CUT, values, values);
            for (r, e) in e.into_iter().enumerate() {
                let k = first + r * S::LANES;
                let kept = k * room.width + at;
                simd.store(tile.kept.add(kept), e);
                met.acc = simd.acc_add(met.acc, e);
                if FINISH {
                    let value = prob(simd, simd.load(before.kept.add(kept)), inverse);
                    simd.stream(before.y.add(k * call.inner + at), value);
                }
            }
        }
    }
}

/// Writes the quotients of a tile.
///
/// # Safety
/// As [`sum`], which was called for this tile.
#[inline(always)]
unsafe fn finish<S, T>(simd: S, call: &Columns<T>, room: &Room<S>, tile: &Tile<S, T>, stream: bool)
where
    S: Io<T> + Io<<S as Vector>::E>,
{
    // Row by row, because a row is contiguous in memory and a column is not.
    for k in 0..call.axis {
        let y = tile.y.wrapping_add(k * call.inner);
        let head = if stream { to_aligned::<S, T>(y).min(tile.n) } else { 0 };
        // SAFETY: as this function's; after `head` elements, vectors are aligned.
        unsafe {
            let kept = tile.kept.add(k * room.width);
            let mut at = 0;
            while at < tile.n {
                let n = if at < head { head } else { tile.n - at };
                let (y, hi) = (y.add(at), tile.inverses.add(at));
                let lo = hi.add(room.width);
                if n < S::LANES {
                    let zero = S::E::narrow(0.0);
                    let (hi, lo) = (simd.load_part(hi, n, zero), simd.load_part(lo, n, zero));
                    let inverse = Inverse { hi, lo, wide: tile.wide };
                    let e = simd.load_part(kept.add(at), n, zero);
                    simd.store_part(y, n, prob(simd, e, inverse));
                    at += n;
                    continue;
                }
                let inverse = Inverse { hi: simd.load(hi), lo: simd.load(lo), wide: tile.wide };
                let value = prob(simd, simd.load(kept.add(at)), inverse);
                if stream {
                    simd.stream(y, value);
                } else {
                    simd.store(y, value);
                }
                at += S::LANES;
            }
        }
    }
}

/// Computes the columns of a tile as rows: some are copied, computed, and copied back.
///
/// # Safety
/// The tile is the call's, and there is room for a column.
#[cold]
#[inline(never)]
unsafe fn turned_round<S, T, const LOG: bool>(
    reducer: &Reducer<S>,
    call: &Columns<T>,
    room: &Room<S>,
    tile: &Tile<S, T>,
) where
    S: Io<T> + Io<<S as Vector>::E>,
    T: Element,
{
    let simd = reducer.exp.simd;
    let (n, masked, rows) = (call.axis, call.masked, tile.kept.cast::<T>());
    // An odd number of cache lines, so that columns do not share sets of the cache.
    let lines = (n * size_of::<T>()).div_ceil(64) | 1;
    let stride = lines * 64 / size_of::<T>();
    let together = (room.kept / (lines * 64)).clamp(1, TURNED);
    simd.vectorize(
        #[inline(always)]
        || {
            let mut first = 0;
            while first < tile.n {
                let count = together.min(tile.n - first);
                // SAFETY: as this function's. The rows take the place of the tile's exponentials,
                // which nobody needs any more: `together` of them fit. One always does: a row has
                // fewer than n * size_of::<T>() + 128 bytes, the place at least 64 * n + 64, and
                // one element takes one line.
                unsafe {
                    for k in 0..n {
                        let from = tile.x.add(k * call.inner + first);
                        simd.prefetch_far(from.wrapping_add(AHEAD * call.inner));
                        for column in 0..count {
                            *rows.add(column * stride + k) = *from.add(column);
                        }
                    }
                    for column in 0..count {
                        let row = rows.add(column * stride);
                        if LOG {
                            row_exactly::<S, T, Log>(reducer, row, row, n, masked, room.line);
                        } else {
                            row_exactly::<S, T, Kept>(reducer, row, row, n, masked, room.line);
                        }
                    }
                    for k in 0..n {
                        let to = tile.y.add(k * call.inner + first);
                        for column in 0..count {
                            *to.add(column) = *rows.add(column * stride + k);
                        }
                    }
                }
                first += count;
            }
        },
    );
}
