//! Routers: `k` experts of each row, by softmax or sigmoid.
//!
//! Rows are too short for anything that is done once a row: as many as a vector has lanes are
//! chosen from together. They are turned, so that a vector has the same expert of all of them, and
//! the experts pass one after another through a list of the `k` best so far, which is kept sorted
//! in each lane. That takes no branch and no step across lanes: five operations for each expert and
//! place of the list, whatever the scores are.
//!
//! The order of scores is that of logits. So without bias and groups no score is needed for the
//! choice, and where weights depend on the chosen logits alone, nothing else has an exponential.

use crate::call::matrix::{Matrix, MatrixMut};
use crate::call::routes::{GroupScore, RouteCall, Routing, Scoring};
use crate::call::{Call, Op};
use crate::isa::vector::{Io, Lanes, Vector};
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

/// How scratch memory is used: numbers of elements.
struct Room {
    /// Rows that are computed together.
    rows: usize,
    /// Their logits in the arithmetic type, if they are of another.
    wide: usize,
    /// Their scores, if all of them are needed.
    scores: usize,
    /// Turned rows.
    turned: usize,
    /// Scores of groups of experts.
    groups: usize,
    /// The values of the list, and its indices.
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
            turned: cols.saturating_mul(MOST_LANES),
            groups: groups.saturating_mul(MOST_LANES),
            list: places.saturating_mul(MOST_LANES),
        }
    }

    const fn needs_scores(routing: &Routing) -> bool {
        let softmax = matches!(routing.scoring, Scoring::Softmax) && !routing.renormalize;
        softmax || routing.bias.is_some() || routing.groups.is_some()
    }

    const fn elements(&self) -> usize {
        let Room { wide, scores, turned, groups, list, .. } = *self;
        let rows = wide.saturating_add(scores).saturating_add(turned);
        rows.saturating_add(groups).saturating_add(list).saturating_add(list)
    }
}

/// Bytes of scratch memory for rows of `cols` experts, without that of softmax.
pub const fn room_for_routes<T: Element>(routing: &Routing, cols: usize) -> usize {
    let elements = Room::of::<T>(routing, cols).elements();
    room_for::<T::Arithmetic>(elements).saturating_add(room_for::<usize>(routing.k))
}

/// The memory for one choice, whose parts [`Room`] explains.
struct Memory<'a, E> {
    turned: &'a mut [E],
    groups: &'a mut [E],
    values: &'a mut [E],
    indices: &'a mut [E],
    order: &'a mut [usize],
}

/// Routes every row of the call. Returns whether there was memory; if not, nothing is written.
#[inline(always)]
pub(crate) fn route<S, T>(simd: S, call: &mut RouteCall<T>) -> bool
where
    S: Lanes<T> + Vector<E = T::Arithmetic>,
    T: Element,
    T::Arithmetic: Contract,
{
    let RouteCall { x, routing, weights, experts } = call;
    let (cols, k) = (x.cols(), routing.k);
    if k == 0 || x.rows() == 0 {
        return true;
    }
    let room = Room::of::<T>(routing, cols);
    let done = with_room(room.elements(), |memory: &mut [T::Arithmetic]| {
        with_room(k, |order: &mut [usize]| {
            let (wide, memory) = memory.split_at_mut(room.wide);
            let (scores, memory) = memory.split_at_mut(room.scores);
            let (turned, memory) = memory.split_at_mut(room.turned);
            let (groups, memory) = memory.split_at_mut(room.groups);
            let (values, indices) = memory.split_at_mut(room.list);
            let mut memory = Memory { turned, groups, values, indices, order };
            let mut rest = *x;
            let places = room.rows * k;
            for (weights, experts) in weights.chunks_mut(places).zip(experts.chunks_mut(places)) {
                let (rows, others) = rest.split_rows(room.rows);
                rest = others;
                let logits = arithmetic(simd, rows, wide);
                group(simd, routing, logits, scores, weights, experts, &mut memory);
            }
        })
    });
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
    scores: &mut [E],
    weights: &mut [E],
    experts: &mut [u32],
    memory: &mut Memory<E>,
) where
    S: Io<E> + Vector<E = E>,
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
        let scores = &mut scores[..rows * cols];
        map_rows(simd, op, Some(logits), &mut *scores, cols, routing);
        // SAFETY: `scores` has so many rows.
        from = unsafe { Matrix::from_raw_unchecked(scores.as_ptr(), rows, cols, cols) };
    }
    let keys = if by_scores { from } else { logits };
    let of_logits = routing.of_chosen() || !Room::needs_scores(routing);
    let from = if of_logits { logits } else { from };
    let places = S::LANES * k;
    let outputs = weights.chunks_mut(places).zip(experts.chunks_mut(places));
    for (i, (weights, experts)) in outputs.enumerate() {
        let at = i * S::LANES;
        let n = S::LANES.min(rows - at);
        let turn = by_scores || n > FEW;
        let nan =
            if turn { choose(simd, routing, &keys, at, n, memory) } else { [false; MOST_LANES] };
        let chosen = weights.chunks_exact_mut(k).zip(experts.chunks_exact_mut(k)).enumerate();
        for (r, (weights, experts)) in chosen {
            let (key, row) = (keys.row(at + r), from.row(at + r));
            // The places of the list that no expert has taken are -inf.
            let last = memory.values[(k - 1) * S::LANES + r].widen();
            let mut is_nan = false;
            if turn && !nan[r] && last > f64::NEG_INFINITY {
                for (i, expert) in experts.iter_mut().enumerate() {
                    let index = memory.indices[i * S::LANES + r].widen();
                    // SAFETY: a number of an expert.
                    *expert = unsafe { index.to_int_unchecked() };
                }
            } else {
                is_nan = key.iter().any(|key| key.widen().is_nan());
                if is_nan {
                    memory.order.iter_mut().enumerate().for_each(|(i, index)| *index = i);
                } else {
                    top_k_apart(simd, key, memory.order, weights);
                }
                for (expert, &index) in experts.iter_mut().zip(&*memory.order) {
                    *expert = index as u32;
                }
            }
            if is_nan {
                weights.fill(E::NAN);
                continue;
            }
            for (weight, &expert) in weights.iter_mut().zip(&*experts) {
                *weight = row[expert as usize];
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

/// Chooses experts of the `n` rows from `first` on, no more than there are lanes, into the memory's
/// list. Tells of each row whether a key may be NaN.
#[inline(always)]
fn choose<S, E>(
    simd: S,
    routing: &Routing,
    keys: &Matrix<E>,
    first: usize,
    n: usize,
    memory: &mut Memory<E>,
) -> [bool; MOST_LANES]
where
    S: Io<E> + Vector<E = E>,
    E: Element + Contract,
{
    let Memory { turned, groups, values, indices, .. } = memory;
    let cols = keys.cols();
    for r in 0..S::LANES {
        // Lanes without a row repeat the last one.
        let row = keys.row(first + r.min(n - 1));
        for (place, &key) in turned.chunks_exact_mut(S::LANES).zip(row) {
            place[r] = key;
        }
    }
    let turned = turned.as_mut_ptr();
    // A sum is NaN if a key is; rarely another is, too, if keys are infinite.
    let mut sum = simd.splat(E::narrow(0.0));
    // SAFETY: `turned` has `cols` vectors, `groups` one for each group, and the list one for each
    // place.
    unsafe {
        for c in 0..cols {
            let place = turned.add(c * S::LANES);
            let mut key = simd.load(place);
            if let Some(bias) = routing.bias {
                key = simd.add(key, simd.splat(E::narrow(f64::from(bias[c]))));
                simd.store(place, key);
            }
            sum = simd.add(sum, key);
        }
        let (values, indices) = (values.as_mut_ptr(), indices.as_mut_ptr());
        if let Some((of, limit)) = routing.groups {
            let groups = groups.as_mut_ptr();
            let (score, size) = (routing.group_score, cols / of);
            score_groups(simd, score, turned, size, of, groups);
            largest(simd, groups, of, limit, values, indices);
            let last = (limit - 1) * S::LANES;
            let last = [simd.load(values.add(last)), simd.load(indices.add(last))];
            hide_groups(simd, turned, size, of, groups, last);
        }
        largest(simd, turned, cols, routing.k, values, indices);
    }
    let mut lanes = [E::ZERO; MOST_LANES];
    // SAFETY: the array has room for a vector.
    unsafe { simd.store(lanes.as_mut_ptr(), sum) };
    lanes.map(|sum| sum.widen().is_nan())
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

/// Finds the `k` largest of `n` keys in each lane, with their numbers: the largest first, and of
/// equals the first. Places that are left, because other keys are -inf, have the value -inf.
///
/// # Safety
/// `keys` has `n` vectors; `values` and `indices` are valid for writes of `k`.
#[inline(always)]
unsafe fn largest<S, E>(
    simd: S,
    keys: *const E,
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
                }
                index[j] = simd.splat(E::narrow((first + j) as f64));
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
