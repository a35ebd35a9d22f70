//! Views of rows of different lengths that follow each other in one slice, and calls over them.

use std::marker::PhantomData;
use std::ops::Range;

use crate::call::error::{Error, Size};
use crate::call::rows::Rows;
use crate::call::{Call, Masked, Op, Store};
use crate::num::element::Element;
use crate::num::exp2::ROWS_AT_ONCE;
use crate::num::part_of;
use crate::num::scale::Scale;

/// Where the rows of a [`Ragged`] start and end: `rows + 1` numbers that never fall. Row `i` has
/// the elements from the `i`th number to the one after it, and is empty if they are equal.
///
/// ```
/// use softmax_kernels::Offsets;
/// assert_eq!(Offsets::from(&[0usize, 2, 2, 5]).rows(), 3);
/// assert_eq!(Offsets::from(&vec![0i32, 2, 2, 5]).rows(), 3);
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Offsets<'a> {
    /// As Rust indexes.
    Usize(&'a [usize]),
    /// As NumPy and PyTorch index.
    I64(&'a [i64]),
    /// As `cu_seqlens` of attention and most sparse matrices.
    I32(&'a [i32]),
}

macro_rules! offsets {
    ($($t:ty: $variant:ident),*) => {
        $(impl<'a> From<&'a [$t]> for Offsets<'a> {
            fn from(offsets: &'a [$t]) -> Self {
                Self::$variant(offsets)
            }
        }

        impl<'a> From<&'a Vec<$t>> for Offsets<'a> {
            fn from(offsets: &'a Vec<$t>) -> Self {
                Self::$variant(offsets)
            }
        }

        impl<'a, const N: usize> From<&'a [$t; N]> for Offsets<'a> {
            fn from(offsets: &'a [$t; N]) -> Self {
                Self::$variant(offsets)
            }
        })*
    };
}

offsets!(usize: Usize, i64: I64, i32: I32);

/// The expression with the numbers, whatever their type.
macro_rules! each {
    ($offsets:expr, $o:ident => $e:expr) => {
        match $offsets {
            Offsets::Usize($o) => $e,
            Offsets::I64($o) => $e,
            Offsets::I32($o) => $e,
        }
    };
}

/// What a row costs besides its elements, in elements.
const COST_OF_ROW: usize = 16;

impl<'a> Offsets<'a> {
    /// Number of rows.
    pub fn rows(&self) -> usize {
        each!(self, o => o.len()).saturating_sub(1)
    }

    /// The `i`th number, which is not negative: offsets of views are checked.
    #[inline(always)]
    #[allow(clippy::unnecessary_cast)] // of one of three types
    fn get(&self, i: usize) -> usize {
        each!(self, o => o[i] as usize)
    }

    /// Checks that the numbers are not negative, never fall, and end within `len` elements. Returns
    /// a bound of the elements of a row: less than twice those of the longest.
    fn check(&self, len: usize) -> Result<usize, Error> {
        // Without a branch, which the compiler makes vectors of: where numbers fall, and only
        // there, a difference has the highest bit.
        let (last, all, lengths) = match self {
            Self::Usize(o) => {
                let (mut all, mut lengths) = (o.first().map_or(0, |&o| o), 0);
                for (&start, &end) in o.iter().zip(o.iter().skip(1)) {
                    (all, lengths) = (all | end, lengths | end.wrapping_sub(start));
                }
                (o.last().map(|&o| o as u64), all as isize as i64, lengths as isize as i64)
            }
            Self::I64(o) => {
                let (mut all, mut lengths) = (o.first().map_or(0, |&o| o), 0);
                for (&start, &end) in o.iter().zip(o.iter().skip(1)) {
                    (all, lengths) = (all | end, lengths | end.wrapping_sub(start));
                }
                (o.last().map(|&o| o as u64), all, lengths)
            }
            Self::I32(o) => {
                let (mut all, mut lengths) = (o.first().map_or(0, |&o| o), 0);
                for (&start, &end) in o.iter().zip(o.iter().skip(1)) {
                    (all, lengths) = (all | end, lengths | end.wrapping_sub(start));
                }
                (o.last().map(|&o| o as u64), i64::from(all), i64::from(lengths))
            }
        };
        match last {
            Some(last) if all | lengths >= 0 && last <= len as u64 => Ok(lengths as usize),
            _ => Err(self.refused(len)),
        }
    }

    /// The error for the first number that is wrong.
    #[cold]
    fn refused(&self, len: usize) -> Error {
        let what = "number of offsets (one for each row, and the end of the last)";
        let none = Error::shape(what, Size::AtLeast(1), Size::Count(0));
        let number = |i: usize| match self {
            Self::Usize(o) => o[i] as i128,
            Self::I64(o) => o[i].into(),
            Self::I32(o) => o[i].into(),
        };
        let mut before = 0;
        let count = each!(self, o => o.len());
        for i in 0..count {
            let (value, range) = (number(i), "at least the one before");
            if value < before {
                let range = if value < 0 { "0 or above" } else { range };
                return Error::value_at("offset", i, value, range);
            }
            before = value;
        }
        if count == 0 {
            return none;
        }
        let end = usize::try_from(before).unwrap_or(usize::MAX);
        Error::shape("number of elements", Size::AtLeast(end), Size::Count(len))
    }

    /// The start and the end of row `row`.
    #[inline(always)]
    pub(crate) fn range(&self, row: usize) -> (usize, usize) {
        (self.get(row), self.get(row + 1))
    }

    /// The end of the last row.
    fn end(&self) -> usize {
        self.get(self.rows())
    }

    /// The offsets of the first `at` rows, or of all if there are fewer, and of the others.
    fn split(self, at: usize) -> (Self, Self) {
        let at = at.min(self.rows());
        match self {
            Self::Usize(o) => (Self::Usize(&o[..=at]), Self::Usize(&o[at..])),
            Self::I64(o) => (Self::I64(&o[..=at]), Self::I64(&o[at..])),
            Self::I32(o) => (Self::I32(&o[..=at]), Self::I32(&o[at..])),
        }
    }

    /// What the first `rows` rows cost, in elements.
    fn cost(&self, rows: usize) -> usize {
        (self.get(rows) - self.get(0)).saturating_add(rows.saturating_mul(COST_OF_ROW))
    }

    /// The number of rows at the start that cost about `at` of `of` parts of all.
    fn part(&self, at: usize, of: usize) -> usize {
        let wanted = part_of(self.cost(self.rows()), at, of);
        // The first number of rows that costs as much.
        let (mut low, mut high) = (0, self.rows());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.cost(middle) < wanted { low = middle + 1 } else { high = middle }
        }
        low
    }

    /// Writes where rows start, relative to the start of row `row`, which is the first, and where
    /// the last one ends; and the length of the longest of each [`ROWS_AT_ONCE`] rows. Stops before
    /// a row that is longer than `limit`, and before the rows have more than `most` elements or
    /// are more than there is room for. Returns how many rows these are; behind them, what is
    /// written may be anything.
    #[inline(always)]
    #[allow(clippy::unnecessary_cast)] // of one of three types
    pub(crate) fn group(
        &self,
        row: usize,
        limit: u8,
        most: usize,
        starts: &mut [u32],
        longest: &mut [u8],
    ) -> usize {
        each!(self, o => {
            let (begins, Some((&first, ends)), Some((zero, starts))) =
                (&o[row..], o[row..].split_first(), starts.split_first_mut())
            else {
                return 0;
            };
            *zero = 0;
            let mut rows = 0;
            // Eight at a time, of which the compiler makes vectors: what is stored is not loaded.
            let eights = starts.as_chunks_mut::<ROWS_AT_ONCE>().0.iter_mut().zip(&mut *longest);
            let (begins_of, ends_of) = (begins.as_chunks::<ROWS_AT_ONCE>().0, ends.as_chunks().0);
            for ((to, longest), (begins, ends)) in eights.zip(begins_of.iter().zip(ends_of)) {
                let ends: &[_; ROWS_AT_ONCE] = ends;
                let mut lengths = *ends;
                lengths.iter_mut().zip(begins).for_each(|(end, begin)| *end -= begin);
                let largest = lengths.into_iter().fold(0, Ord::max);
                *to = ends.map(|end| (end - first) as u32);
                let end = (ends[ROWS_AT_ONCE - 1] - first) as usize;
                if largest as usize > limit.into() || end > most {
                    break;
                }
                *longest = largest as u8;
                rows += ROWS_AT_ONCE;
            }
            let (mut largest, eight) = (0, rows / ROWS_AT_ONCE);
            let others = begins[rows..].iter().zip(&ends[rows..]);
            for (to, (&begin, &end)) in starts[rows..].iter_mut().zip(others) {
                if (end - first) as usize > most || (end - begin) as usize > limit.into() {
                    break;
                }
                *to = (end - first) as u32;
                largest = largest.max((end - begin) as u8);
                rows += 1;
            }
            if let Some(longest) = longest.get_mut(eight) {
                *longest = largest;
            }
            rows
        })
    }
}

macro_rules! view {
    ($(#[$doc:meta])* $name:ident, $slice:ty, $pointer:ty, $as_ptr:ident) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name<'a, T> {
            /// What offsets count from. The view borrows its rows alone.
            data: $pointer,
            offsets: Offsets<'a>,
            /// No row has more elements.
            most: usize,
            borrowed: PhantomData<$slice>,
        }

        impl<'a, T> $name<'a, T> {
            /// A view of the rows of a slice that lie between these offsets: one row less than
            /// there are offsets. Elements before the first row and behind the last are never
            /// touched.
            ///
            /// # Errors
            /// [`Error::Value`] for the first offset that is negative or less than the one before
            /// it; [`Error::Shape`] if the slice ends before the last row, or if there is no
            /// offset.
            pub fn new(data: $slice, offsets: impl Into<Offsets<'a>>) -> Result<Self, Error> {
                let offsets = offsets.into();
                let most = offsets.check(data.len())?;
                Ok(Self { data: data.$as_ptr(), offsets, most, borrowed: PhantomData })
            }

            /// Number of rows.
            pub fn rows(&self) -> usize {
                self.offsets.rows()
            }

            /// Number of elements of all rows.
            pub fn elements(&self) -> usize {
                self.offsets.end() - self.offsets.get(0)
            }

            /// Number of elements of a row; 0 if there is no such row.
            pub fn row_len(&self, row: usize) -> usize {
                self.row_range(row).len()
            }

            /// Where the last row ends in the slice.
            #[doc(hidden)]
            pub fn end(&self) -> usize {
                self.offsets.end()
            }

            /// Where a row lies in the slice; nowhere if there is no such row.
            pub fn row_range(&self, row: usize) -> Range<usize> {
                if row >= self.rows() {
                    return 0..0;
                }
                let (start, end) = self.offsets.range(row);
                start..end
            }

            /// The first `at` rows, or all if there are fewer, and the others.
            pub fn split_rows(self, at: usize) -> (Self, Self) {
                let Self { data, offsets, most, borrowed } = self;
                let (first, others) = offsets.split(at);
                (
                    Self { data, offsets: first, most, borrowed },
                    Self { data, offsets: others, most, borrowed },
                )
            }

            /// The number of rows at the start that take about `at` of `of` parts of the time.
            #[doc(hidden)]
            pub fn part(&self, at: usize, of: usize) -> usize {
                self.offsets.part(at, of)
            }
        }
    };
}

view! {
    /// Rows of different lengths to read, which follow each other in one slice: jagged tensors,
    /// packed sequences, the edges of a graph by node, the rows of a sparse matrix.
    ///
    /// ```
    /// use softmax_kernels::Ragged;
    /// // Rows of two elements, of none, and of three.
    /// let x = Ragged::new(&[1.0f32, 2.0, 3.0, 4.0, 5.0], &[0usize, 2, 2, 5])?;
    /// assert_eq!((x.rows(), x.elements(), x.row_len(1)), (3, 5, 0));
    /// assert_eq!(x.row(2), [3.0, 4.0, 5.0]);
    /// let fall = Ragged::new(&[1.0f32, 2.0], &[0i32, 2, 1]).unwrap_err();
    /// assert_eq!(fall.to_string(), "the offset 2 must be at least the one before, got 1");
    /// # Ok::<(), softmax_kernels::Error>(())
    /// ```
    Ragged, &'a [T], *const T, as_ptr
}

view! {
    /// Rows of different lengths to write, or to overwrite; otherwise as [`Ragged`].
    RaggedMut, &'a mut [T], *mut T, as_mut_ptr
}

// SAFETY: it is a shared borrow of its rows.
unsafe impl<T: Sync> Send for Ragged<'_, T> {}

// SAFETY: as above.
unsafe impl<T: Sync> Sync for Ragged<'_, T> {}

// SAFETY: it is an exclusive borrow of its rows.
unsafe impl<T: Send> Send for RaggedMut<'_, T> {}

// SAFETY: a shared reference to it gives nothing but the shape.
unsafe impl<T: Sync> Sync for RaggedMut<'_, T> {}

impl<T> Clone for Ragged<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Ragged<'_, T> {}

impl<'a, T> Ragged<'a, T> {
    /// A row; empty if there is no such row.
    ///
    /// ```
    /// use softmax_kernels::Ragged;
    /// let x = Ragged::new(&[1.0f32, 2.0, 3.0], &[0usize, 1, 3])?;
    /// assert_eq!((x.row(0), x.row(1), x.row(2)), (&[1.0][..], &[2.0, 3.0][..], &[][..]));
    /// # Ok::<(), softmax_kernels::Error>(())
    /// ```
    pub fn row(self, row: usize) -> &'a [T] {
        if row >= self.rows() {
            return &[];
        }
        let (start, end) = self.offsets.range(row);
        // SAFETY: the row is there and borrowed.
        unsafe { std::slice::from_raw_parts(self.data.add(start), end - start) }
    }

    /// The same places in another slice, to read.
    ///
    /// # Errors
    /// [`Error::Shape`] if it ends before the last row.
    #[doc(hidden)]
    pub fn places_of<'b, U>(&self, what: &'static str, x: &'b [U]) -> Result<Ragged<'b, U>, Error>
    where
        'a: 'b,
    {
        let (end, len) = (self.offsets.end(), x.len());
        if len < end {
            return Err(Error::shape(what, Size::AtLeast(end), Size::Count(len)));
        }
        let (data, offsets, most) = (x.as_ptr(), self.offsets, self.most);
        Ok(Ragged { data, offsets, most, borrowed: PhantomData })
    }

    /// The same places in another slice, to write.
    ///
    /// # Errors
    /// As [`Ragged::places_of`].
    #[doc(hidden)]
    pub fn places_in<'b, U>(
        &self,
        what: &'static str,
        y: &'b mut [U],
    ) -> Result<RaggedMut<'b, U>, Error>
    where
        'a: 'b,
    {
        let (end, len) = (self.offsets.end(), y.len());
        if len < end {
            return Err(Error::shape(what, Size::AtLeast(end), Size::Count(len)));
        }
        let (data, offsets, most) = (y.as_mut_ptr(), self.offsets, self.most);
        Ok(RaggedMut { data, offsets, most, borrowed: PhantomData })
    }
}

impl<'a, T> RaggedMut<'a, T> {
    /// A row; empty if there is none of that number.
    ///
    /// ```
    /// use softmax_kernels::RaggedMut;
    /// let mut data = [0.0f32; 4];
    /// RaggedMut::new(&mut data, &[1usize, 1, 3])?.row_mut(1).fill(1.0);
    /// assert_eq!(data, [0.0, 1.0, 1.0, 0.0]);
    /// # Ok::<(), softmax_kernels::Error>(())
    /// ```
    pub fn row_mut(&mut self, row: usize) -> &mut [T] {
        if row >= self.rows() {
            return &mut [];
        }
        let (start, end) = self.offsets.range(row);
        // SAFETY: the row is there, and borrowed as this view is.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(start), end - start) }
    }

    /// The same rows, to read, for as long as they are not written.
    #[doc(hidden)]
    pub fn as_ragged(&self) -> Ragged<'_, T> {
        let Self { data, offsets, most, .. } = *self;
        Ragged { data, offsets, most, borrowed: PhantomData }
    }

    /// The same rows, borrowed from this view.
    #[doc(hidden)]
    pub fn reborrow(&mut self) -> RaggedMut<'_, T> {
        let Self { data, offsets, most, .. } = *self;
        RaggedMut { data, offsets, most, borrowed: PhantomData }
    }
}

/// The work of one call on rows of different lengths.
#[derive(Debug)]
pub struct RaggedCall<'a, T> {
    /// What offsets count from; the rows are valid for reads.
    x: *const T,
    /// As `x`, for writes: the very same rows, or others. For log-sum-exp one element for each row.
    y: *mut T,
    pub(crate) offsets: Offsets<'a>,
    most: usize,
    op: Op,
    pub(crate) scale: Scale,
    pub(crate) masked: Masked,
    pub(crate) store: Store,
    borrowed: PhantomData<(&'a T, &'a mut T)>,
}

// SAFETY: it borrows its rows as the views do that it was made of.
unsafe impl<T: Send + Sync> Send for RaggedCall<'_, T> {}

/// Bytes of a row from which it is worth a fence that it is written past the caches.
const FENCED: usize = 8192;

impl<'a, T: Element> RaggedCall<'a, T> {
    fn of(
        x: *const T,
        y: *mut T,
        (offsets, most): (Offsets<'a>, usize),
        op: Op,
        scale: Scale,
        masked: Masked,
    ) -> Self {
        let (store, borrowed) = (Store::CACHED, PhantomData);
        RaggedCall { x, y, offsets, most, op, scale, masked, store, borrowed }
    }

    /// Reads rows of `x` and writes the same places of `y`. Log-sum-exp writes one element a row:
    /// [`RaggedCall::logsumexp`]; asked for here, softmax is computed.
    ///
    /// # Errors
    /// [`Error::Shape`] if `y` ends before the last row.
    pub fn new(
        op: Op,
        x: Ragged<'a, T>,
        y: &'a mut [T],
        scale: Scale,
        masked: Masked,
    ) -> Result<Self, Error> {
        let y = x.places_in("number of elements of the output", y)?;
        Ok(Self::of(x.data, y.data, (x.offsets, x.most), op.of_rows(), scale, masked))
    }

    /// Reads and writes rows of `y`, otherwise as [`RaggedCall::new`].
    pub fn in_place(op: Op, y: RaggedMut<'a, T>, scale: Scale, masked: Masked) -> Self {
        Self::of(y.data, y.data, (y.offsets, y.most), op.of_rows(), scale, masked)
    }

    /// Writes the log-sum-exp of each row of `x` to one element of `y`.
    ///
    /// # Errors
    /// [`Error::Shape`] if `y` does not have one element for each row.
    pub fn logsumexp(x: Ragged<'a, T>, y: &'a mut [T], scale: Scale) -> Result<Self, Error> {
        if x.rows() != y.len() {
            let what = "number of log-sum-exps (one for each row)";
            return Err(Error::count(what, x.rows(), y.len()));
        }
        let (op, masked) = (Op::LogSumExp, Masked::Nan);
        Ok(Self::of(x.data, y.as_mut_ptr(), (x.offsets, x.most), op, scale, masked))
    }

    /// Sets how rows are stored; in place always into the caches.
    #[must_use]
    pub fn storing(mut self, store: Store) -> Self {
        self.store = if self.is_in_place() { Store::CACHED } else { store };
        self
    }

    /// Whether rows are overwritten.
    pub fn is_in_place(&self) -> bool {
        self.x == self.y.cast_const()
    }

    /// The operation.
    pub fn op(&self) -> Op {
        self.op
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.offsets.rows()
    }

    /// Number of elements of all rows.
    pub fn elements(&self) -> usize {
        self.offsets.end() - self.offsets.get(0)
    }

    /// The number of rows at the start that take about `at` of `of` parts of the time.
    pub fn part(&self, at: usize, of: usize) -> usize {
        self.offsets.part(at, of)
    }

    /// The first row with more than `cols` elements.
    pub fn first_above(&self, cols: usize) -> Option<usize> {
        if self.most <= cols {
            return None;
        }
        (0..self.rows()).find(|&row| self.range(row).1 > cols)
    }

    /// The start of a row and its length.
    #[inline(always)]
    pub(crate) fn range(&self, row: usize) -> (usize, usize) {
        let (start, end) = self.offsets.range(row);
        (start, end - start)
    }

    /// The first element of a row to read, and of the one to write; and the number of elements.
    #[inline(always)]
    pub(crate) fn row(&self, row: usize) -> (*const T, *mut T, usize) {
        let (start, len) = self.range(row);
        let y = if self.op == Op::LogSumExp { row } else { start };
        (self.x.wrapping_add(start), self.y.wrapping_add(y), len)
    }

    /// The call of a row alone.
    #[inline(always)]
    pub fn call_of_row(&mut self, row: usize) -> Call<'_, T> {
        let (x, y, cols) = self.row(row);
        let y_stride = if self.op == Op::LogSumExp { 1 } else { cols };
        let short = cols * size_of::<T>() < FENCED;
        let store = if short { Store::CACHED } else { self.store };
        // SAFETY: the row is there, and this call borrows it.
        let views = unsafe { Rows::of_one(x, y, cols, y_stride, store) };
        Call::of_views(views, self.op, self.scale, self.masked)
    }

    /// The first `at` rows and the others.
    #[must_use]
    pub fn split_rows(self, at: usize) -> (Self, Self) {
        let at = at.min(self.rows());
        let (offsets, others) = self.offsets.split(at);
        let y = self.y.wrapping_add(if self.op == Op::LogSumExp { at } else { 0 });
        (RaggedCall { offsets, ..self }, RaggedCall { offsets: others, y, ..self })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_offsets_are_named() {
        let d = [0.0f32; 7];
        let error = |offsets: Offsets| Ragged::new(&d, offsets).unwrap_err().to_string();
        for (offsets, message) in [
            (Offsets::I32(&[0, 3, 2, 7]), "the offset 2 must be at least the one before, got 2"),
            (Offsets::I64(&[-1, 3]), "the offset 0 must be 0 or above, got -1"),
            (Offsets::I32(&[0, i32::MIN]), "the offset 1 must be 0 or above, got -2147483648"),
            (Offsets::Usize(&[0, 3, 8]), "the number of elements must be at least 8, got 7"),
            (
                Offsets::Usize(&[0, usize::MAX, 3]),
                "the offset 2 must be at least the one before, got 3",
            ),
            (Offsets::I64(&[9]), "the number of elements must be at least 9, got 7"),
        ] {
            assert_eq!(error(offsets), message);
        }
        let end = format!("the number of elements must be at least {}, got 7", usize::MAX);
        assert_eq!(error(Offsets::Usize(&[0, usize::MAX])), end);
        for none in [Offsets::Usize(&[]), Offsets::I64(&[]), Offsets::I32(&[])] {
            assert!(error(none).starts_with("the number of offsets"));
        }
        assert!(Ragged::new(&d, &[7usize]).is_ok_and(|x| x.rows() == 0 && x.elements() == 0));
        assert!(Ragged::new(&d, &[2i64, 2, 7]).is_ok_and(|x| x.row(1) == [0.0; 5]));
    }

    #[test]
    fn parts_cost_the_same() {
        // A hundred empty rows, one long one, a hundred of two elements.
        let mut offsets = vec![0usize; 101];
        offsets.push(1600);
        (0..100).for_each(|i| offsets.push(1602 + 2 * i));
        let o = Offsets::from(&offsets);
        assert_eq!((o.part(0, 4), o.part(4, 4)), (0, 201));
        let costs: Vec<_> = (0..=8).map(|at| o.cost(o.part(at, 8))).collect();
        let whole = o.cost(201);
        for (at, cost) in costs.iter().enumerate() {
            // No further than a row's cost: here the long one's.
            assert!(cost.abs_diff(whole * at / 8) <= 1616, "{at}: {cost} of {whole}");
        }
    }

    #[test]
    fn groups_end_before_long_rows() {
        let offsets = [3i32, 5, 5, 9, 80, 81, 82];
        let o = Offsets::from(&offsets);
        let (mut starts, mut longest) = ([7; 5], [7; 1]);
        let mut group = |row, most, room| {
            let rows = o.group(row, 64, most, &mut starts[..room], &mut longest);
            (starts[..=rows].to_vec(), longest[0])
        };
        assert_eq!(group(0, 2048, 5), (vec![0, 2, 2, 6], 4));
        assert_eq!(group(3, 2048, 5), (vec![0], 0));
        assert_eq!(group(4, 2048, 5), (vec![0, 1, 2], 1));
        // No room for more elements, or for more rows.
        assert_eq!(group(0, 5, 5), (vec![0, 2, 2], 2));
        assert_eq!(group(0, 2048, 2), (vec![0, 2], 2));
        assert_eq!(group(6, 2048, 5), (vec![0], 0));
    }

    /// Eight rows at a time, whatever the type of the offsets is.
    #[test]
    fn groups_know_their_longest_rows() {
        for long in [16, 64, 65] {
            // Rows of 0 to 20 elements, of which one is long.
            let lengths: Vec<usize> = (0..21).map(|i| if i == 13 { long } else { i }).collect();
            let mut offsets = vec![5];
            lengths.iter().for_each(|n| offsets.push(offsets[offsets.len() - 1] + n));
            let i64s: Vec<i64> = offsets.iter().map(|&o| o as i64).collect();
            let i32s: Vec<i32> = offsets.iter().map(|&o| o as i32).collect();
            for o in [Offsets::from(&offsets), Offsets::from(&i64s), Offsets::from(&i32s)] {
                let (mut starts, mut longest) = ([7; 25], [7; 3]);
                let rows = o.group(0, 64, 2048, &mut starts, &mut longest);
                assert_eq!(rows, if long > 64 { 13 } else { 21 });
                let places = starts[..=rows].iter().map(|&start| start as usize + 5);
                assert!(places.eq(offsets[..=rows].iter().copied()), "{starts:?}");
                for (eight, &longest) in lengths[..rows].chunks(8).zip(&longest) {
                    assert_eq!(Some(&longest.into()), eight.iter().max(), "{long}");
                }
            }
        }
    }
}
