//! Routers: `k` experts of each row, by softmax or sigmoid.
//!
//! Rows are too short for anything that is done once a row: as many as a vector has lanes are
//! chosen from together. They are turned, so that a vector has the same expert of all of them.
//!
//! First the `k`th largest key of each row is found, by sorting networks of keys alone: some nine
//! operations for each expert if `k` is at most 8. Comparisons with it leave `k` candidates. These
//! pass one after another through a list of the `k` best so far, which is kept sorted in each lane:
//! five operations for each candidate and place of the list. All experts are candidates where that
//! is faster (`k` of 1 or 2, fewer than 64 experts), and with groups or more than 16 places.
//!
//! The order of scores is that of logits. So without bias and groups no score is needed for the
//! choice, and where weights depend on the chosen logits alone, nothing else has an exponential.

use crate::call::matrix::{Matrix, MatrixMut};
use crate::call::routes::{GroupScore, RouteCall, Routing, Scoring};
use crate::call::{Call, Op};
use crate::isa::vector::{Across, Io, Lanes, Vector};
use crate::mem::scratch::{room_for, with_room};
use crate::num::element::Element;
use crate::num::exp2::{Contract, MOST_LANES};
use crate::num::scale::Scale;
use crate::op::decide::{sigmoid, top_k_apart};
use crate::op::sample::widen;
use crate::op::softmax::softmax;

/// Elements of the rows whose scores are computed together: they stay in the second-level cache.
const GROUP: usize = 8192;

/// Experts that pass through the list together, so that its places are loaded and stored less
/// often.
const TOGETHER: usize = 4;

/// Rows for which it is not worth while to turn them.
const FEW: usize = 3;

/// Columns whose comparisons are the bits of a word.
const WORD: usize = 64;

/// Keys that are sorted together, and the places of the longer of two lists of the largest ones.
const SORTED: usize = 8;
const MOST_PLACES: usize = 16;

/// How scratch memory is used: numbers of elements.
struct Room {
    /// Rows that are computed together.
    rows: usize,
    /// Their logits in the arithmetic type, if they are of another.
    wide: usize,
    /// Their scores, if all of them are needed.
    scores: usize,
    /// Their scores with the bias.
    biased: usize,
    /// The numbers from 0 on, one for each expert, as elements.
    numbers: usize,
    /// Turned rows.
    turned: usize,
    /// Scores of groups of experts.
    groups: usize,
    /// The values of the list, and its indices; and those of candidates.
    list: usize,
}

impl Room {
    const fn of<T: Element>(routing: &Routing, cols: usize) -> Self {
        let at_once = GROUP / if cols == 0 { 1 } else { cols } / MOST_LANES * MOST_LANES;
        let rows = if at_once == 0 { MOST_LANES } else { at_once };
        let all = rows.saturating_mul(cols);
        let (groups, limit) = match routing.groups {
            Some(groups) => groups,
            None => (0, 0),
        };
        let places = if limit > routing.k { limit } else { routing.k };
        Room {
            rows,
            wide: if T::IS_ARITHMETIC { 0 } else { all },
            scores: if Self::needs_scores(routing) { all } else { 0 },
            biased: if routing.bias.is_some() { all } else { 0 },
            numbers: cols,
            turned: cols.next_multiple_of(MOST_LANES).saturating_mul(MOST_LANES),
            groups: groups.saturating_mul(MOST_LANES),
            list: places.saturating_mul(MOST_LANES),
        }
    }

    const fn needs_scores(routing: &Routing) -> bool {
        let softmax = matches!(routing.scoring, Scoring::Softmax) && !routing.renormalize;
        softmax || routing.bias.is_some() || routing.groups.is_some()
    }

    const fn elements(&self) -> usize {
        let Room { wide, scores, biased, numbers, turned, groups, list, .. } = *self;
        let rows = wide.saturating_add(scores).saturating_add(biased).saturating_add(numbers);
        let lists = list.saturating_mul(4);
        rows.saturating_add(turned).saturating_add(groups).saturating_add(lists)
    }
}

/// Bytes of scratch memory for rows of `cols` experts, without that of softmax.
pub const fn room_for_routes<T: Element>(routing: &Routing, cols: usize) -> usize {
    let elements = Room::of::<T>(routing, cols).elements();
    room_for::<T::Arithmetic>(elements).saturating_add(room_for::<usize>(routing.k))
}

/// The memory, whose parts [`Room`] explains.
struct Memory<'a, E> {
    scores: &'a mut [E],
    biased: &'a mut [E],
    numbers: &'a [E],
    turned: &'a mut [E],
    groups: &'a mut [E],
    values: &'a mut [E],
    indices: &'a mut [E],
    candidates: &'a mut [E],
    their_numbers: &'a mut [E],
    /// The experts of a row that is searched by itself.
    order: &'a mut [usize],
}

/// Routes every row of the call. Returns whether there was memory; if not, nothing is written.
#[inline(always)]
pub(crate) fn route<S, T>(simd: S, call: &mut RouteCall<T>) -> bool
where
    S: Lanes<T> + Across + Vector<E = T::Arithmetic>,
    T: Element,
    T::Arithmetic: Contract,
{
    let RouteCall { x, routing, weights, experts } = call;
    let (cols, k) = (x.cols(), routing.k);
    if k == 0 || x.rows() == 0 {
        return true;
    }
    let room = Room::of::<T>(routing, cols);
    let done = with_room(
        room.elements(),
        #[inline(always)]
        |memory: &mut [T::Arithmetic]| {
            with_room(
                k,
                #[inline(always)]
                |order: &mut [usize]| {
                    let (wide, memory) = memory.split_at_mut(room.wide);
                    let (scores, memory) = memory.split_at_mut(room.scores);
                    let (biased, memory) = memory.split_at_mut(room.biased);
                    let (numbers, memory) = memory.split_at_mut(room.numbers);
                    let (turned, memory) = memory.split_at_mut(room.turned);
                    let (groups, memory) = memory.split_at_mut(room.groups);
                    let (values, memory) = memory.split_at_mut(room.list);
                    let (indices, memory) = memory.split_at_mut(room.list);
                    let (candidates, their_numbers) = memory.split_at_mut(room.list);
                    for (i, number) in numbers.iter_mut().enumerate() {
                        *number = T::Arithmetic::narrow(i as f64);
                    }
                    let mut memory = Memory {
                        scores,
                        biased,
                        numbers,
                        turned,
                        groups,
                        values,
                        indices,
                        candidates,
                        their_numbers,
                        order,
                    };
                    let mut rest = *x;
                    let places = room.rows * k;
                    for (weights, experts) in
                        weights.chunks_mut(places).zip(experts.chunks_mut(places))
                    {
                        let (rows, others) = rest.split_rows(room.rows);
                        rest = others;
                        let logits = arithmetic(simd, rows, wide);
                        group(simd, routing, logits, weights, experts, &mut memory);
                    }
                },
            )
        },
    );
    done.flatten().is_some()
}

/// The rows in the arithmetic type: themselves, or widened into `wide`.
#[inline(always)]
fn arithmetic<'a, S, T>(
    simd: S,
    x: Matrix<'a, T>,
    wide: &'a mut [T::Arithmetic],
) -> Matrix<'a, T::Arithmetic>
where
    S: Lanes<T> + Vector<E = T::Arithmetic>,
    T: Element,
    T::Arithmetic: Contract,
{
    let (rows, cols) = (x.rows(), x.cols());
    if T::IS_ARITHMETIC {
        // SAFETY: it is the same type, and the same view.
        return unsafe { Matrix::from_raw_unchecked(x.as_ptr().cast(), rows, cols, x.stride()) };
    }
    for (r, wide) in wide.chunks_exact_mut(cols).take(rows).enumerate() {
        widen(simd, x.row(r), wide);
    }
    // SAFETY: `wide` has room for as many rows as are computed together.
    unsafe { Matrix::from_raw_unchecked(wide.as_ptr(), rows, cols, cols) }
}

/// Routes some rows: `k` weights and experts each.
#[inline(always)]
fn group<S, E>(
    simd: S,
    routing: &Routing,
    logits: Matrix<E>,
    weights: &mut [E],
    experts: &mut [u32],
    memory: &mut Memory<E>,
) where
    S: Across + Io<f32> + Vector<E = E>,
    E: Element + Contract,
{
    let (rows, cols, k) = (logits.rows(), logits.cols(), routing.k);
    let op = match routing.scoring {
        Scoring::Softmax => Op::Softmax,
        Scoring::Sigmoid => Op::Sigmoid,
    };
    let by_scores = routing.by_scores();
    let mut from = logits;
    if Room::needs_scores(routing) {
        let scores = &mut memory.scores[..rows * cols];
        map_rows(simd, op, Some(logits), &mut *scores, cols, routing);
        // SAFETY: `scores` has so many rows.
        from = unsafe { Matrix::from_raw_unchecked(scores.as_ptr(), rows, cols, cols) };
    }
    let mut keys = if by_scores { from } else { logits };
    if let Some(bias) = routing.bias {
        for (r, keys) in memory.biased.chunks_exact_mut(cols).take(rows).enumerate() {
            add(simd, from.row(r), bias, keys);
        }
        // SAFETY: `biased` has so many rows.
        keys = unsafe { Matrix::from_raw_unchecked(memory.biased.as_ptr(), rows, cols, cols) };
    }
    let of_logits = routing.of_chosen() || !Room::needs_scores(routing);
    let from = if of_logits { logits } else { from };
    let of_keys = of_logits && !by_scores;
    let places = S::LANES * k;
    let outputs = weights.chunks_mut(places).zip(experts.chunks_mut(places));
    for (i, (weights, experts)) in outputs.enumerate() {
        let at = i * S::LANES;
        let n = S::LANES.min(rows - at);
        let turn = by_scores || n > FEW;
        let found = if turn { choose(simd, routing, &keys, at, n, memory) } else { 0 };
        let chosen = weights.chunks_exact_mut(k).zip(experts.chunks_exact_mut(k)).enumerate();
        for (r, (weights, experts)) in chosen {
            let row = from.row(at + r);
            if found >> r & 1 == 1 {
                let values = memory.values.chunks_exact(S::LANES);
                let list = memory.indices.chunks_exact(S::LANES).zip(values);
                for ((weight, expert), (indices, values)) in
                    weights.iter_mut().zip(experts).zip(list)
                {
                    // SAFETY: a number of an expert.
                    *expert = unsafe { indices[r].widen().to_int_unchecked() };
                    *weight = if of_keys { values[r] } else { row[*expert as usize] };
                }
                continue;
            }
            let key = keys.row(at + r);
            let is_nan = key.iter().any(|key| key.widen().is_nan());
            if is_nan {
                memory.order.iter_mut().enumerate().for_each(|(i, index)| *index = i);
            } else {
                top_k_apart(simd, key, memory.order, weights);
            }
            for ((weight, expert), &index) in weights.iter_mut().zip(experts).zip(&*memory.order) {
                *expert = index as u32;
                *weight = if is_nan { E::NAN } else { row[index] };
            }
        }
    }
    if of_logits {
        map_rows(simd, op, None, weights, k, routing);
    }
    for weights in weights.chunks_exact_mut(k) {
        routing.finish(weights);
    }
}

/// Softmax or sigmoid of the rows of `x`, or in place.
#[inline(always)]
fn map_rows<S, E>(
    simd: S,
    op: Op,
    x: Option<Matrix<E>>,
    y: &mut [E],
    cols: usize,
    routing: &Routing,
) where
    S: Io<E> + Vector<E = E>,
    E: Element + Contract,
{
    let rows = y.len() / cols;
    // SAFETY: `y` has so many rows.
    let y = unsafe { MatrixMut::from_raw_unchecked(y.as_mut_ptr(), rows, cols, cols) };
    let call = match x {
        Some(x) => Call::new(op, x, y, Scale::ONE, routing.masked),
        None => Ok(Call::in_place(op, y, Scale::ONE, routing.masked)),
    };
    let Ok(mut call) = call else { return };
    // SAFETY: a call is made only of what was checked; the token proves the instruction set.
    unsafe {
        match op {
            Op::Softmax => softmax::<S, E>(&mut call),
            _ => sigmoid(simd, &call),
        }
    }
}

/// The sums of the elements of a row and a bias for each.
#[inline(always)]
fn add<S, E>(simd: S, x: &[E], bias: &[f32], y: &mut [E])
where
    S: Io<E> + Io<f32> + Vector<E = E>,
    E: Element + Contract,
{
    let n = x.len().min(bias.len()).min(y.len());
    for i in (0..n).step_by(S::LANES) {
        // SAFETY: so many elements are left of each.
        unsafe {
            let (x, bias, y) = (x.as_ptr().add(i), bias.as_ptr().add(i), y.as_mut_ptr().add(i));
            if n - i < S::LANES {
                let x = simd.load_part(x, n - i, E::ZERO);
                simd.store_part(y, n - i, simd.add(x, simd.load_part(bias, n - i, E::ZERO)));
            } else {
                simd.store(y, simd.add(simd.load(x), simd.load(bias)));
            }
        }
    }
}

/// Chooses experts of the `n` rows from `first` on, no more than there are lanes, into the memory's
/// list. Returns a bit for each row: whether `k` were found. There may be others, or fewer, if keys
/// are NaN or -inf.
#[inline(always)]
fn choose<S, E>(
    simd: S,
    routing: &Routing,
    keys: &Matrix<E>,
    first: usize,
    n: usize,
    memory: &mut Memory<E>,
) -> u32
where
    S: Across + Vector<E = E>,
    E: Element + Contract,
{
    let Memory { turned, groups, values, indices, candidates, their_numbers, .. } = memory;
    let cols = keys.cols();
    let turned = turned.as_mut_ptr();
    // SAFETY: `turned` has a vector for each expert, up to a multiple of LANES.
    unsafe { turn(simd, keys, first, n, turned) };
    // A sum is NaN if a key is; rarely another is, too, if keys are infinite.
    let mut sum = simd.splat(E::narrow(0.0));
    // SAFETY: `turned` has `cols` vectors, `groups` one for each group, and the list and the
    // candidates one for each place.
    unsafe {
        for c in 0..cols {
            sum = simd.add(sum, simd.load(turned.add(c * S::LANES)));
        }
        let (values, indices) = (values.as_mut_ptr(), indices.as_mut_ptr());
        if let Some((of, limit)) = routing.groups {
            let groups = groups.as_mut_ptr();
            let (score, size) = (routing.group_score, cols / of);
            score_groups(simd, score, turned, size, of, groups);
            largest(simd, groups, None, of, limit, values, indices);
            let last = (limit - 1) * S::LANES;
            let last = [simd.load(values.add(last)), simd.load(indices.add(last))];
            hide_groups(simd, turned, size, of, groups, last);
        }
        if sifts::<S>(routing, cols) {
            let candidates = candidates.as_mut_ptr();
            let (numbers, theirs) = (memory.numbers.as_ptr(), their_numbers.as_mut_ptr());
            let k = routing.k;
            let bound = if k <= SORTED {
                kth_largest::<S, E, SORTED>(simd, turned, cols, k)
            } else {
                kth_largest::<S, E, MOST_PLACES>(simd, turned, cols, k)
            };
            let mut bounds = [E::ZERO; MOST_LANES];
            simd.store(bounds.as_mut_ptr(), bound);
            for (r, &bound) in bounds[..n].iter().enumerate() {
                sift(
                    simd,
                    keys.row(first + r),
                    bound,
                    k,
                    #[inline(always)]
                    |place, expert| {
                        let at = place * S::LANES + r;
                        candidates.add(at).write(*turned.add(expert * S::LANES + r));
                        theirs.add(at).write(*numbers.add(expert));
                    },
                );
            }
            largest(simd, candidates, Some(theirs), k, k, values, indices);
        } else {
            largest(simd, turned, None, cols, routing.k, values, indices);
        }
    }
    let (least, most) = (E::narrow(f64::NEG_INFINITY), E::narrow(f64::INFINITY));
    let (least, most) = (simd.splat(least), simd.splat(most));
    // SAFETY: the list has `k` places. Those that no expert has taken are -inf.
    let last = unsafe { simd.load(values.as_ptr().add((routing.k - 1) * S::LANES)) };
    let numbers = simd.less(sum, most) | simd.less(least, sum);
    simd.less(least, last) & numbers
}

/// Turns the keys of `n` rows from `first` on, no more than there are lanes: writes a vector for
/// each column, and vectors of -inf up to a multiple of LANES.
///
/// # Safety
/// `turned` is valid for writes of these vectors.
#[inline(always)]
unsafe fn turn<S, E>(simd: S, keys: &Matrix<E>, first: usize, n: usize, turned: *mut E)
where
    S: Across + Vector<E = E>,
    E: Element + Contract,
{
    let cols = keys.cols();
    // Lanes without a row have the last one's.
    let row = |r: usize| keys.row(first + r.min(n - 1));
    let least = simd.splat(E::narrow(f64::NEG_INFINITY));
    for c in cols..cols.next_multiple_of(S::LANES) {
        // SAFETY: as this function's.
        unsafe { simd.store(turned.add(c * S::LANES), least) };
    }
    if const { S::SMALL } || cols < S::LANES {
        for r in 0..S::LANES {
            for (c, &key) in row(r).iter().enumerate() {
                // SAFETY: as this function's.
                unsafe { turned.add(c * S::LANES + r).write(key) };
            }
        }
        return;
    }
    for column in (0..cols).step_by(S::LANES) {
        // The last ones are as many as the others, some of which are turned again.
        let column = column.min(cols - S::LANES);
        let mut v = [least; MOST_LANES];
        for (r, v) in v[..S::LANES].iter_mut().enumerate() {
            let p = row(r).as_ptr().wrapping_add(column);
            // The same place of the rows that are next.
            simd.prefetch(p.wrapping_add(S::LANES * keys.stride()));
            // SAFETY: so many elements of the row are left.
            *v = unsafe { simd.load(p) };
        }
        // Rows and columns have numbers of as many bits. Each step moves the first bit of the row
        // behind the last of the column, until they have changed places.
        for _ in 0..S::LANES.ilog2() {
            let mut zipped = v;
            for i in 0..S::LANES / 2 {
                let [low, high] = simd.zip(v[i], v[i + S::LANES / 2]);
                (zipped[2 * i], zipped[2 * i + 1]) = (low, high);
            }
            v = zipped;
        }
        for (c, &v) in v[..S::LANES].iter().enumerate() {
            // SAFETY: as this function's.
            unsafe { simd.store(turned.add((column + c) * S::LANES), v) };
        }
    }
}

/// Whether only the candidates of [`sift`] pass through the list: where that was measured to be
/// faster.
#[inline(always)]
fn sifts<S: Vector>(routing: &Routing, cols: usize) -> bool {
    !S::SMALL && routing.groups.is_none() && (3..=MOST_PLACES).contains(&routing.k) && cols >= WORD
}

/// Puts the larger of two keys first, in each lane, for pairs of keys.
macro_rules! exchange {
    ($simd:ident, $keys:ident: $($i:tt $j:tt),+) => {$(
        let (a, b) = ($keys[$i], $keys[$j]);
        ($keys[$i], $keys[$j]) = ($simd.max(a, b), $simd.min(a, b));
    )+};
}

/// The `k`th largest of the first `n` keys in each lane, `k <= PLACES`, if none is NaN.
///
/// # Safety
/// `keys` has `n` vectors, and vectors of -inf up to a multiple of [`SORTED`].
#[inline(always)]
unsafe fn kth_largest<S, E, const PLACES: usize>(
    simd: S,
    keys: *const E,
    n: usize,
    k: usize,
) -> S::V
where
    S: Across + Vector<E = E>,
    E: Element + Contract,
{
    let least = simd.splat(E::narrow(f64::NEG_INFINITY));
    // The largest keys so far, in decreasing order.
    let mut best = [least; PLACES];
    for first in (0..n).step_by(SORTED) {
        let mut next = [least; SORTED];
        for (i, next) in next.iter_mut().enumerate() {
            // SAFETY: as this function's.
            *next = unsafe { simd.load(keys.add((first + i) * S::LANES)) };
        }
        // Batcher's odd-even merge sort. A loop over pairs of numbers would keep keys in memory.
        exchange!(simd, next: 0 1, 2 3, 4 5, 6 7, 0 2, 1 3, 4 6, 5 7, 1 2, 5 6);
        exchange!(simd, next: 0 4, 1 5, 2 6, 3 7, 2 4, 3 5, 1 2, 3 4, 5 6);
        // The larger halves of a decreasing and an increasing list rise and fall, or fall and rise:
        // a bitonic list, which these comparisons sort (Batcher, 1968).
        for (i, next) in next.into_iter().enumerate() {
            best[PLACES - 1 - i] = simd.max(best[PLACES - 1 - i], next);
        }
        let mut apart = PLACES / 2;
        while apart > 0 {
            for i in 0..PLACES {
                if i & apart == 0 {
                    let j = i + apart;
                    exchange!(simd, best: i j);
                }
            }
            apart /= 2;
        }
    }
    best[k - 1]
}

/// Finds the `k` columns whose keys are the largest, of equals the first, if `bound` is the `k`th
/// largest key: calls `found` with a place and a column, in order. If a key is NaN, these are any
/// `k` columns, or fewer.
#[inline(always)]
fn sift<S, E>(simd: S, row: &[E], bound: E, k: usize, mut found: impl FnMut(usize, usize))
where
    S: Across + Vector<E = E>,
    E: Contract,
{
    let bound = simd.splat(bound);
    let words = (0..row.len()).step_by(WORD);
    let (mut place, mut ties) = (0, false);
    'all: for first in words.clone() {
        let mut bits = bits::<S, E, false>(simd, row, first, bound);
        while bits != 0 {
            if place == k {
                ties = true;
                break 'all;
            }
            found(place, first + bits.trailing_zeros() as usize);
            place += 1;
            bits &= bits - 1;
        }
    }
    if !ties {
        return;
    }
    // More keys than there are places have the bound's value: the first of them fill those that
    // larger keys leave.
    let mut larger = 0;
    for first in words.clone() {
        larger += bits::<S, E, true>(simd, row, first, bound).count_ones() as usize;
    }
    let mut equals = k.saturating_sub(larger);
    place = 0;
    for first in words {
        let larger = bits::<S, E, true>(simd, row, first, bound);
        let mut bits = bits::<S, E, false>(simd, row, first, bound);
        while bits != 0 && place < k {
            let column = bits.trailing_zeros();
            let equal = larger >> column & 1 == 0;
            if !equal || equals > 0 {
                equals -= usize::from(equal);
                found(place, first + column as usize);
                place += 1;
            }
            bits &= bits - 1;
        }
    }
}

/// A bit for each of the columns from `first` on, up to [`WORD`] of them: whether its key is larger
/// than the bound, or else whether it is not smaller.
#[inline(always)]
fn bits<S, E, const LARGER: bool>(simd: S, row: &[E], first: usize, bound: S::V) -> u64
where
    S: Across + Vector<E = E>,
    E: Contract,
{
    let zero = E::narrow(0.0);
    let row = &row[first..row.len().min(first + WORD)];
    let mut bits = 0;
    let mut at = 0;
    // SAFETY: as many elements are left.
    unsafe {
        while at + S::LANES <= row.len() {
            let key = simd.load(row.as_ptr().add(at));
            let lanes = if LARGER { simd.less(bound, key) } else { !simd.less(key, bound) };
            bits |= u64::from(lanes & (u32::MAX >> (32 - S::LANES))) << at;
            at += S::LANES;
        }
        if at < row.len() {
            let key = simd.load_part(row.as_ptr().add(at), row.len() - at, zero);
            let lanes = if LARGER { simd.less(bound, key) } else { !simd.less(key, bound) };
            bits |= u64::from(lanes & ((1 << (row.len() - at)) - 1)) << at;
        }
    }
    bits
}

/// Writes the scores of `n` groups of `size` experts each.
///
/// # Safety
/// `turned` has `n * size` vectors, and `groups` is valid for writes of `n`.
#[inline(always)]
unsafe fn score_groups<S, E>(
    simd: S,
    score: GroupScore,
    turned: *const E,
    size: usize,
    n: usize,
    groups: *mut E,
) where
    S: Io<E> + Vector<E = E>,
    E: Contract,
{
    let least = simd.splat(E::narrow(f64::NEG_INFINITY));
    for g in 0..n {
        let (mut best, mut second) = (least, least);
        // SAFETY: as this function's.
        unsafe {
            for c in g * size..(g + 1) * size {
                let key = simd.load(turned.add(c * S::LANES));
                second = simd.max(second, simd.min(best, key));
                best = simd.max(best, key);
            }
            if score == GroupScore::TopTwo && size > 1 {
                best = simd.add(best, second);
            }
            simd.store(groups.add(g * S::LANES), best);
        }
    }
}

/// Hides the experts, `size` in each of `n` groups, whose groups are not chosen: those with less
/// than the score of the `last` that is, or as much and behind it.
///
/// # Safety
/// `turned` has `n * size` vectors, and `groups` has `n`.
#[inline(always)]
unsafe fn hide_groups<S, E>(
    simd: S,
    turned: *mut E,
    size: usize,
    n: usize,
    groups: *const E,
    [last, number]: [S::V; 2],
) where
    S: Io<E> + Vector<E = E>,
    E: Contract,
{
    let least = simd.splat(E::narrow(f64::NEG_INFINITY));
    let most = simd.splat(E::narrow(f64::INFINITY));
    for g in 0..n {
        // SAFETY: as this function's.
        unsafe {
            let score = simd.load(groups.add(g * S::LANES));
            let g_lanes = simd.splat(E::narrow(g as f64));
            let equal = simd.select_below(number, g_lanes, least, most);
            let bound = simd.select_below(last, score, most, equal);
            let bound = simd.select_below(score, last, least, bound);
            for c in g * size..(g + 1) * size {
                let key = simd.load(turned.add(c * S::LANES));
                simd.store(turned.add(c * S::LANES), simd.min(key, bound));
            }
        }
    }
}

/// Finds the `k` largest of `n` keys in each lane, with their numbers, which are those of their
/// vectors if there are no others: the largest first, and of equals the first. Places that are left
/// because other keys are -inf have the value -inf.
///
/// # Safety
/// `keys` and `numbers` have `n` vectors; `values` and `indices` are valid for writes of `k`.
#[inline(always)]
unsafe fn largest<S, E>(
    simd: S,
    keys: *const E,
    numbers: Option<*const E>,
    n: usize,
    k: usize,
    values: *mut E,
    indices: *mut E,
) where
    S: Io<E> + Vector<E = E>,
    E: Contract,
{
    let least = simd.splat(E::narrow(f64::NEG_INFINITY));
    // SAFETY: as this function's.
    unsafe {
        for i in 0..k {
            simd.store(values.add(i * S::LANES), least);
            simd.store(indices.add(i * S::LANES), simd.splat(E::narrow(0.0)));
        }
        for first in (0..n).step_by(TOGETHER) {
            let mut key = [least; TOGETHER];
            let mut index = [least; TOGETHER];
            for j in 0..TOGETHER {
                if first + j < n {
                    key[j] = simd.load(keys.add((first + j) * S::LANES));
                    index[j] = match numbers {
                        Some(numbers) => simd.load(numbers.add((first + j) * S::LANES)),
                        None => simd.splat(E::narrow((first + j) as f64)),
                    };
                }
            }
            // From the place of a key on, each place takes what was in the one before: what is
            // carried is the key itself, and then what it has moved.
            let (mut carried, mut its_index) = (key, index);
            // Later places are empty.
            for i in 0..k.min(first + TOGETHER) {
                let (value_at, index_at) = (values.add(i * S::LANES), indices.add(i * S::LANES));
                let (mut value, mut number) = (simd.load(value_at), simd.load(index_at));
                for j in 0..TOGETHER {
                    let (old, x) = (value, key[j]);
                    value = simd.select_below(old, x, carried[j], old);
                    carried[j] = simd.select_below(old, x, old, carried[j]);
                    let (before, its) = (number, its_index[j]);
                    number = simd.select_below(old, x, its, before);
                    its_index[j] = simd.select_below(old, x, before, its);
                }
                simd.store(value_at, value);
                simd.store(index_at, number);
            }
        }
    }
}
