//! Softmax of many short rows that follow each other in memory, of the same length or not.
//!
//! A row of ten elements fills ten of sixteen lanes and spends most of its time in horizontal
//! steps: maximum, sum, reciprocal. Here a group of rows is computed as if it were one row. First
//! come the exponentials, lane by lane, wherever rows begin, with one guessed shift (`guess.rs`)
//! that is good for all rows if it is good for the group's extremes; then the sums of eight rows
//! together and their reciprocals; then the quotients, row by row.
//!
//! The results of a group are staged, and written while the next group's exponentials are computed.
//! A group with a special row, or for which the guess is not good, is computed row by row.
//!
//! Rows that differ in length take as many vectors as the longest of their eight. The sum of a
//! shorter one then has more zeros added than it has alone, which changes no bit: `a + 0 = a`, in
//! pairs, too, and in which of several sums a zero is added does not matter.

use std::hint::black_box;

use crate::call::ragged::RaggedCall;
use crate::call::{Call, Masked, Store};
use crate::isa::vector::{Io, Vector};
use crate::mem::memory::LINE;
use crate::mem::scratch::{Scratch, room_for};
use crate::num::element::Element;
use crate::num::exp2::{Contract, NUMBERS, ROWS_AT_ONCE};
use crate::sweep::reduce::{Kept, Reducer, row_exactly, sweep_alone};
use crate::sweep::{Finish, Inverse, Mode, Plain, Same, finish_row_by, prob, sweep};

/// Elements of the longest row that is computed here.
pub const TINY: usize = 64;

/// The least number of rows that is worth a group.
pub const ROWS_AT_LEAST: usize = ROWS_AT_ONCE;

/// The most elements of a group: its input, its exponentials and its results stay in the
/// first-level cache.
const GROUP: usize = 2048;

/// The most rows of a group.
const ROWS: usize = 256;

/// Elements of room behind a group: for a last vector that starts in its last row, and, behind its
/// exponentials, for rows up to a multiple of [`ROWS_AT_ONCE`].
const MARGIN: usize = ROWS_AT_ONCE * TINY + 16;

/// A sweep that computes a group's exponentials without their sum.
struct Dense<const CUT: bool, const FINISH: bool, const STREAM: bool>;

impl<const CUT: bool, const FINISH: bool, const STREAM: bool> Mode for Dense<CUT, FINISH, STREAM> {
    const GUESSED: bool = true;
    const CUT: bool = CUT;
    const SUM: bool = false;
    const KEEP: bool = true;
    const FINISH: bool = FINISH;
    const STREAM: bool = STREAM;
}

/// The sums of a group's rows.
type Sums<S> = [<S as Vector>::Sums; ROWS / ROWS_AT_ONCE];

/// The rows of a call, group by group.
trait Groups<T> {
    /// Whether all rows of a group have the same length.
    const EQUAL: bool;
    /// The next group, none of which is without elements.
    fn next(&mut self) -> Option<Group<T>>;
    /// Where a row of this group starts, counted from the first, and its length. Rows that are
    /// missing from the last eight start behind the group, less than `MARGIN`.
    ///
    /// # Safety
    /// `row` is less than the number of rows of this group, rounded up to [`ROWS_AT_ONCE`].
    unsafe fn row(&self, row: usize) -> (usize, usize);
    /// The elements of the longest of the rows from the `eight * ROWS_AT_ONCE`th on, as many as
    /// are summed together.
    fn longest(&self, eight: usize) -> usize;
    /// Elements of the rows that are missing from the last eight, or more.
    fn missing(&self) -> usize;
}

/// A group: `rows` rows, at most [`ROWS`], that follow each other, of `n` elements together, at
/// most [`GROUP`]; each has at most [`TINY`].
#[derive(Clone, Copy)]
struct Group<T> {
    x: *const T,
    y: *mut T,
    rows: usize,
    n: usize,
}

/// Rows of the same length.
struct Equal<'c, 'a, T> {
    call: &'c Call<'a, T>,
    /// The first row of the next group.
    next: usize,
    /// Rows of this group.
    rows: usize,
    most: usize,
}

impl<T: Element> Groups<T> for Equal<'_, '_, T> {
    const EQUAL: bool = true;

    #[inline(always)]
    fn next(&mut self) -> Option<Group<T>> {
        let left = self.call.rows - self.next;
        if left == 0 {
            return None;
        }
        self.rows = self.most.min(left);
        let (x, y) = self.call.row(self.next);
        self.next += self.rows;
        Some(Group { x, y, rows: self.rows, n: self.rows * self.call.cols })
    }
    #[inline(always)]
    unsafe fn row(&self, row: usize) -> (usize, usize) {
        (row * self.call.cols, self.call.cols)
    }
    #[inline(always)]
    fn longest(&self, _: usize) -> usize {
        self.call.cols
    }
    #[inline(always)]
    fn missing(&self) -> usize {
        (self.rows.next_multiple_of(ROWS_AT_ONCE) - self.rows) * self.call.cols
    }
}

/// Rows that differ in length, until one is longer than [`TINY`].
struct Unequal<'c, 'a, T> {
    call: &'c RaggedCall<'a, T>,
    /// The first row of the next group.
    next: usize,
    /// Where rows start; one more than there are, and more to a multiple of [`ROWS_AT_ONCE`].
    starts: [u32; ROWS + 1],
    longest: [u8; ROWS / ROWS_AT_ONCE],
}

impl<T: Element> Groups<T> for Unequal<'_, '_, T> {
    const EQUAL: bool = false;

    #[inline(always)]
    fn next(&mut self) -> Option<Group<T>> {
        loop {
            let Self { starts, longest, .. } = self;
            let rows = self.call.offsets.group(self.next, TINY as u8, GROUP, starts, longest);
            if rows == 0 {
                return None;
            }
            let n = self.starts[rows];
            let first = self.next;
            self.next += rows;
            if n == 0 {
                continue;
            }
            // Rows that are missing from the last eight are empty.
            self.starts[rows..=rows.next_multiple_of(ROWS_AT_ONCE)].fill(n);
            let (x, y, _) = self.call.row(first);
            return Some(Group { x, y, rows, n: n as usize });
        }
    }
    #[inline(always)]
    unsafe fn row(&self, row: usize) -> (usize, usize) {
        // SAFETY: a group has at most ROWS rows, and `starts` one entry more.
        let [start, end] = unsafe { *self.starts.as_ptr().add(row).cast::<[u32; 2]>() };
        (start as usize, (end - start) as usize)
    }
    #[inline(always)]
    fn longest(&self, eight: usize) -> usize {
        self.longest[eight].into()
    }
    #[inline(always)]
    fn missing(&self) -> usize {
        TINY
    }
}

/// Whether the call's rows can be computed here.
#[inline(always)]
pub(crate) fn suits<T: Element>(call: &Call<T>) -> bool {
    call.cols <= TINY && call.rows >= ROWS_AT_LEAST && call.is_dense() && !call.has_factors()
}

/// Bytes of scratch memory for a call.
pub const fn room_for_tiny<T: Element>() -> usize {
    let lanes = GROUP + MARGIN;
    // A sum is two f64 in rows of f64, else one.
    room_for::<T::Arithmetic>(lanes) + room_for::<T>(lanes) + room_for::<[f64; 2]>(ROWS)
}

/// Softmax of every row of the call. Returns `false`, with nothing written, if there is no memory
/// for a group.
///
/// # Safety
/// The call's pointers are valid as [`Call`] says, and [`suits`] is true.
#[inline(never)]
pub(crate) unsafe fn softmax<S, T>(simd: S, call: &Call<T>) -> bool
where
    S: Io<T> + Io<<S as Vector>::E>,
    T: Element,
{
    let Some(mut scratch) = Scratch::take::<u8>(room_for_tiny::<T>()) else { return false };
    let memory: *mut u8 = scratch.as_mut_ptr();
    let most = (GROUP / call.cols).min(ROWS) / ROWS_AT_ONCE * ROWS_AT_ONCE;
    let mut groups = Equal { call, next: 0, rows: 0, most };
    simd.vectorize(
        #[inline(always)]
        || {
            let (mut reducer, masked) = (Reducer::new(simd, &call.scale), call.masked);
            // SAFETY: as this function's; the scratch memory is that large.
            unsafe { by_store(&mut reducer, &mut groups, memory, call.store, masked) };
        },
    );
    true
}

/// Softmax of the call's rows from `row` on, until one is longer than [`TINY`]. Returns the first
/// row that is not computed: `row` itself if there is no memory for a group.
///
/// # Safety
/// The call's pointers are valid as [`RaggedCall`] says.
#[inline(never)]
pub(crate) unsafe fn softmax_of_unequal<S, T>(
    reducer: &mut Reducer<S>,
    call: &RaggedCall<T>,
    row: usize,
) -> usize
where
    S: Io<T> + Io<<S as Vector>::E>,
    T: Element,
{
    let Some(mut scratch) = Scratch::take::<u8>(room_for_tiny::<T>()) else { return row };
    let memory: *mut u8 = scratch.as_mut_ptr();
    let (starts, longest) = ([0; ROWS + 1], [0; ROWS / ROWS_AT_ONCE]);
    let mut groups = Unequal { call, next: row, starts, longest };
    reducer.exp.simd.vectorize(
        #[inline(always)]
        // SAFETY: as this function's; the scratch memory is that large.
        || unsafe { by_store(reducer, &mut groups, memory, call.store, call.masked) },
    );
    groups.next
}

/// Softmax of the rows of all groups, past the caches or not.
///
/// # Safety
/// Each group's rows are valid for reads and writes; they are disjoint, or the very same, and
/// those of one group behind those of the group before. `memory` is initialised, starts at a
/// cache line, and is as large as [`room_for_tiny`] says.
#[inline(always)]
unsafe fn by_store<S, T, G>(
    reducer: &mut Reducer<S>,
    groups: &mut G,
    memory: *mut u8,
    store: Store,
    masked: Masked,
) where
    S: Io<T> + Io<<S as Vector>::E>,
    T: Element,
    G: Groups<T>,
{
    const {
        assert!(size_of::<Sums<S>>() <= ROWS * size_of::<[f64; 2]>());
        assert!(align_of::<Sums<S>>() <= LINE && size_of::<S::E>() == size_of::<T::Arithmetic>());
        assert!(TINY <= NUMBERS && TINY <= u8::MAX as usize);
    }
    // SAFETY: as this function's.
    unsafe {
        if S::STREAMS && store.is_past() {
            softmax_by::<S, T, G, true>(reducer, groups, memory, store, masked);
        } else {
            softmax_by::<S, T, G, false>(reducer, groups, memory, store, masked);
        }
    }
}

/// As [`by_store`].
///
/// # Safety
/// As there.
#[inline(always)]
unsafe fn softmax_by<S, T, G, const STREAM: bool>(
    reducer: &mut Reducer<S>,
    groups: &mut G,
    memory: *mut u8,
    store: Store,
    masked: Masked,
) where
    S: Io<T> + Io<<S as Vector>::E>,
    T: Element,
    G: Groups<T>,
{
    let simd = reducer.exp.simd;
    let kept: *mut S::E = memory.cast();
    let memory = memory.wrapping_add(room_for::<S::E>(GROUP + MARGIN));
    let staged: *mut T = memory.cast();
    let sums: *mut S::Sums = memory.wrapping_add(room_for::<T>(GROUP + MARGIN)).cast();
    let plain = Plain::of(store);
    // The results that are staged.
    let mut last: Option<Finish<T, T, Same>> = None;
    while let Some(Group { x, y, rows, n }) = groups.next() {
        // SAFETY: x and y point to the group's n elements, n <= GROUP.
        unsafe {
            // A sweep finishes no more elements than it has itself.
            if let Some(more) = last.as_mut().filter(|last| last.n > n) {
                let first = more.n - n;
                finish_row_by(simd, &Finish::new(more.from, more.y, first, Same), STREAM);
                *more = Finish::new(more.from.add(first), more.y.add(first), n, Same);
            }
            let exp = &reducer.exp;
            let alone = &Plain::NEAR;
            let found = match last.take() {
                Some(f) if const { S::SMALL } => {
                    finish_row_by(simd, &f, STREAM);
                    sweep_alone::<S, T, _, Dense<true, false, false>>(exp, x, kept, n, alone)
                }
                Some(f) if const { STREAM } || reducer.cut => {
                    sweep::<S, T, T, T, _, Dense<true, true, STREAM>>(exp, x, kept, n, &plain, &f)
                }
                Some(f) => {
                    sweep::<S, T, T, T, _, Dense<false, true, STREAM>>(exp, x, kept, n, &plain, &f)
                }
                None if const { S::SMALL } || reducer.cut => {
                    sweep_alone::<S, T, _, Dense<true, false, false>>(exp, x, kept, n, alone)
                }
                None => sweep_alone::<S, T, _, Dense<false, false, false>>(exp, x, kept, n, alone),
            };
            let (max, min) = (found.max.widen(), found.min.widen());
            let one = G::EQUAL && groups.longest(0) <= S::LANES;
            let good = reducer.judge_rows(max, min)
                && if one {
                    sum::<S, T, G, true>(simd, groups, kept, sums, rows, n)
                } else {
                    sum::<S, T, G, false>(simd, groups, kept, sums, rows, n)
                };
            if good {
                let wide = reducer.scale.is_wide(max, min, n);
                if one {
                    scale::<S, T, G, true>(simd, groups, kept, sums, staged, rows, wide);
                } else {
                    scale::<S, T, G, false>(simd, groups, kept, sums, staged, rows, wide);
                }
                last = Some(Finish::new(staged, y, n, Same));
            } else {
                for row in 0..rows {
                    let (start, len) = groups.row(row);
                    if len > 0 {
                        let (x, y) = (x.add(start), y.add(start));
                        row_exactly::<S, T, Kept>(reducer, x, y, len, masked, kept);
                    }
                }
            }
        }
    }
    if let Some(last) = last {
        // SAFETY: as above.
        unsafe { finish_row_by(simd, &last, STREAM) };
    }
    if STREAM {
        simd.fence();
    }
}

/// Sums the rows of a group of `n` elements. Returns whether all sums are numbers above 0. If
/// `ONE`, each row is at most one vector.
///
/// # Safety
/// `kept` has the group's elements and is valid for writes of `MARGIN` more; `sums` is valid for
/// writes of one entry for every [`ROWS_AT_ONCE`] rows, rounded up.
#[inline(always)]
unsafe fn sum<S, T, G, const ONE: bool>(
    simd: S,
    groups: &G,
    kept: *mut S::E,
    sums: *mut S::Sums,
    rows: usize,
    n: usize,
) -> bool
where
    S: Io<<S as Vector>::E>,
    G: Groups<T>,
{
    // Ones behind the last row: rows missing from the last eight, and empty rows, do not look
    // special, and the last vectors, which end less than LANES behind n + missing, are initialised.
    for i in 0..groups.missing().div_ceil(S::LANES) + 1 {
        // SAFETY: the store ends less than 2 LANES behind n + missing, and missing <= 7 TINY:
        // within MARGIN.
        unsafe { simd.store(kept.add(n + i * S::LANES), simd.splat(S::E::narrow(1.0))) };
    }
    let mut good = true;
    for eight in 0..rows.div_ceil(ROWS_AT_ONCE) {
        let one = if G::EQUAL { ONE } else { groups.longest(eight) <= S::LANES };
        // SAFETY: as this function's.
        let eight_sums = unsafe {
            if one {
                sum_of_eight::<S, T, G, true>(simd, groups, kept, eight, n)
            } else {
                sum_of_eight::<S, T, G, false>(simd, groups, kept, eight, n)
            }
        };
        good &= simd.are_positive(eight_sums);
        // SAFETY: there is room for one entry for every eight rows.
        unsafe { sums.add(eight).write(eight_sums) };
    }
    good
}

/// The sums of the rows from `eight * ROWS_AT_ONCE` on; an empty row's is 1.
///
/// # Safety
/// As [`sum`], which has written the ones; the group has rows from there on.
#[inline(always)]
unsafe fn sum_of_eight<S, T, G, const ONE: bool>(
    simd: S,
    groups: &G,
    kept: *const S::E,
    eight: usize,
    n: usize,
) -> S::Sums
where
    S: Io<<S as Vector>::E>,
    G: Groups<T>,
{
    let numbers = S::E::lanes().as_ptr();
    let last = if ONE { 0 } else { (groups.longest(eight) - 1) / S::LANES };
    let mut totals = [simd.total(simd.acc_zero()); ROWS_AT_ONCE];
    for (k, total) in totals.iter_mut().enumerate() {
        // SAFETY: as this function's.
        let (start, len) = unsafe { groups.row(eight * ROWS_AT_ONCE + k) };
        let (start, len) = if !G::EQUAL && len == 0 { (n, 1) } else { (start, len) };
        // Lanes from the row's end on are zeroed as if they were below a cut: in the last vector
        // or, if rows differ, in each, whose lanes have numbers of their own.
        let cut_at = if G::EQUAL { (len - 1) % S::LANES } else { len - 1 };
        // SAFETY: the number of elements is at most TINY, and there are as many numbers. A row
        // ends less than MARGIN - LANES behind the group, as many vectors as it takes here.
        unsafe {
            let (row, cut) = (kept.add(start), simd.splat(*numbers.add(cut_at)));
            *total = simd.total(if ONE {
                simd.acc_of(simd.zero_below(simd.load(numbers), cut, simd.load(row)))
            } else {
                let mut acc = simd.acc_of(part::<S, T, G>(simd, row, cut, 0, false));
                for v in 1..last {
                    acc = simd.acc_add(acc, part::<S, T, G>(simd, row, cut, v, false));
                }
                simd.acc_add(acc, part::<S, T, G>(simd, row, cut, last, true))
            });
        }
    }
    simd.fold_rows(&totals)
}

/// The `v`th vector of a row, zeroed from the row's end on.
///
/// # Safety
/// `row` is valid for reads up to the end of this vector, `v * LANES < TINY`.
#[inline(always)]
unsafe fn part<S, T, G>(simd: S, row: *const S::E, cut: S::V, v: usize, last: bool) -> S::V
where
    S: Io<<S as Vector>::E>,
    G: Groups<T>,
{
    // SAFETY: as this function's; there are TINY numbers.
    unsafe {
        let e = simd.load(row.add(v * S::LANES));
        if G::EQUAL && !last {
            return e;
        }
        let numbers = S::E::lanes().as_ptr().add(if G::EQUAL { 0 } else { v * S::LANES });
        simd.zero_below(simd.load(numbers), cut, e)
    }
}

/// Computes the quotients of rows. The reciprocals are computed here and not with the sums, because
/// divisions take long and can overlap with this loop. Vectors overlap, too: what one writes behind
/// its row is overwritten by the next row's.
///
/// # Safety
/// `kept` has the elements of the group's `rows` rows, and is valid for reads of MARGIN more;
/// `staged` is valid for writes of as many, and `sums` for reads.
#[inline(always)]
unsafe fn scale<S, T, G, const ONE: bool>(
    simd: S,
    groups: &G,
    kept: *const S::E,
    sums: *const S::Sums,
    staged: *mut T,
    rows: usize,
    wide: bool,
) where
    S: Io<T> + Io<<S as Vector>::E>,
    G: Groups<T>,
{
    let zero = S::E::narrow(0.0);
    for eight in 0..rows.div_ceil(ROWS_AT_ONCE) {
        let (mut hi, mut lo) = ([zero; ROWS_AT_ONCE], [zero; ROWS_AT_ONCE]);
        // SAFETY: there is an entry for every eight rows.
        simd.reciprocals(unsafe { *sums.add(eight) }, &mut hi, &mut lo);
        // Through memory, where single lanes cost nothing: the compiler would shuffle them out of
        // registers.
        let (hi, lo) = (black_box(&hi), black_box(&lo));
        let longest = groups.longest(eight);
        let one = if G::EQUAL { ONE } else { longest <= S::LANES };
        for k in 0..ROWS_AT_ONCE {
            let inverse = Inverse { hi: simd.splat(hi[k]), lo: simd.splat(lo[k]), wide };
            // SAFETY: as this function's.
            let (row, _) = unsafe { groups.row(eight * ROWS_AT_ONCE + k) };
            let mut i = 0;
            loop {
                // SAFETY: the row starts in the group or where it ends, and TINY elements and a
                // vector behind that are within MARGIN.
                unsafe {
                    let e = simd.load(kept.add(row + i));
                    simd.store(staged.add(row + i), prob(simd, e, inverse));
                }
                i += S::LANES;
                if one || i >= longest {
                    break;
                }
            }
        }
    }
}
