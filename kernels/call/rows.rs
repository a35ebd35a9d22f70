//! Rows to read and rows to write: the common part of all calls over rows.

use std::marker::PhantomData;

use crate::call::Store;
use crate::call::matrix::{Matrix, MatrixMut};

/// Rows to read, and for each what is written: another row, the same row, one element, or nothing.
/// Made of checked views, and borrows what they borrow.
#[derive(Debug)]
pub struct Rows<'a, T, U> {
    /// Row `i` starts at `x + i * x_stride`; each has `cols` elements, valid for reads.
    pub(crate) x: *const T,
    pub(crate) x_stride: usize,
    /// Row `i` starts at `y + i * y_stride`; each is valid for writes of `cols` elements (of one,
    /// if made by [`Rows::to_one`]). Disjoint from `x`, or the very same rows, or null.
    pub(crate) y: *mut U,
    pub(crate) y_stride: usize,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) store: Store,
    borrowed: PhantomData<(&'a T, &'a mut U)>,
}

// SAFETY: what it was made of, views of T and of U, are Send for such types.
unsafe impl<T: Send + Sync, U: Send> Send for Rows<'_, T, U> {}

/// The shapes of input and output that do not fit each other.
pub type Shapes = [(usize, usize); 2];

impl<'a, T, U> Rows<'a, T, U> {
    fn of(x: &Matrix<'a, T>, y: *mut U, y_stride: usize) -> Self {
        Rows {
            x: x.as_ptr(),
            x_stride: x.stride(),
            y,
            y_stride,
            rows: x.rows(),
            cols: x.cols(),
            store: Store::CACHED,
            borrowed: PhantomData,
        }
    }

    /// A single row.
    ///
    /// # Safety
    /// `x` is valid for reads of `cols` elements, and `y` for writes of `y_stride`, for `'a`; they
    /// are disjoint, or the very same.
    #[inline(always)]
    pub(crate) unsafe fn of_one(
        x: *const T,
        y: *mut U,
        cols: usize,
        y_stride: usize,
        store: Store,
    ) -> Self {
        Rows { x, x_stride: cols, y, y_stride, rows: 1, cols, store, borrowed: PhantomData }
    }

    /// Reads rows of `x` and writes rows of `y`.
    ///
    /// # Errors
    /// The two shapes, if they differ.
    #[inline]
    pub(crate) fn new(x: Matrix<'a, T>, mut y: MatrixMut<'a, U>) -> Result<Self, Shapes> {
        let shapes = [(x.rows(), x.cols()), (y.rows(), y.cols())];
        if shapes[0] != shapes[1] {
            return Err(shapes);
        }
        Ok(Self::of(&x, y.as_mut_ptr(), y.stride()))
    }

    /// Reads rows of `x` and writes one element of `y` for each.
    ///
    /// # Errors
    /// The two shapes, if there is not one element for each row.
    #[inline]
    pub(crate) fn to_one(x: Matrix<'a, T>, y: &'a mut [U]) -> Result<Self, Shapes> {
        if x.rows() != y.len() {
            return Err([(x.rows(), x.cols()), (y.len(), 1)]);
        }
        Ok(Self::of(&x, y.as_mut_ptr(), 1))
    }

    /// Reads rows of `x` and writes nothing.
    pub(crate) fn read(x: Matrix<'a, T>) -> Self {
        Self::of(&x, std::ptr::null_mut(), 0)
    }

    /// Number of rows.
    #[inline]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of elements of a row to read.
    #[inline]
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Whether rows follow each other without gaps.
    #[inline]
    pub fn is_dense(&self) -> bool {
        self.x_stride == self.cols && self.y_stride == self.cols
    }

    /// Whether rows are overwritten.
    #[inline]
    pub fn is_in_place(&self) -> bool {
        self.x.cast::<U>() == self.y.cast_const()
    }

    /// The start of a row to read, and of the one to write.
    #[inline(always)]
    pub(crate) fn row(&self, row: usize) -> (*const T, *mut U) {
        (self.x.wrapping_add(row * self.x_stride), self.y.wrapping_add(row * self.y_stride))
    }

    /// The elements of a row to read.
    pub(crate) fn elements(&self, row: usize) -> impl Iterator<Item = T>
    where
        T: Copy,
    {
        let (x, _) = self.row(row);
        let cols = if row < self.rows { self.cols } else { 0 };
        // SAFETY: the row is there, and has so many elements.
        (0..cols).map(move |i| unsafe { *x.add(i) })
    }

    /// Reads rows without gaps instead, as many and of the same length.
    pub(crate) fn read_instead(&mut self, x: &'a [T]) {
        assert_eq!(x.len(), self.rows * self.cols, "as many elements");
        (self.x, self.x_stride) = (x.as_ptr(), self.cols);
    }

    /// Some of the rows, from these pointers to one of them on.
    pub(crate) fn at(&mut self, x: *const T, y: *mut U, rows: usize) -> Rows<'_, T, U> {
        Rows { x, y, rows, borrowed: PhantomData, ..*self }
    }

    /// Sets how the output is stored; in place always into the caches.
    #[inline]
    pub(crate) fn store(&mut self, store: Store) {
        self.store = if self.is_in_place() { Store::CACHED } else { store };
    }

    /// The first `at` rows, or all if there are fewer, and the others.
    pub(crate) fn split(self, at: usize) -> (Self, Self) {
        let at = at.min(self.rows);
        let part = |from: usize, rows| {
            let (x, y) = self.row(from);
            Rows { x, y, rows, ..self }
        };
        (part(0, at), part(at, self.rows - at))
    }
}

impl<'a, T> Rows<'a, T, T> {
    /// Reads and writes rows of `y`.
    #[inline]
    pub(crate) fn in_place(mut y: MatrixMut<'a, T>) -> Self {
        // One pointer: a second one, made of another borrow, would invalidate the first.
        let p = y.as_mut_ptr();
        Rows {
            x: p,
            x_stride: y.stride(),
            y: p,
            y_stride: y.stride(),
            rows: y.rows(),
            cols: y.cols(),
            store: Store::CACHED,
            borrowed: PhantomData,
        }
    }
}

/// Makes a call deref to its rows.
macro_rules! over_rows {
    ($call:ident<'a, $($t:ident $(: $bound:ident)?),*>, $x:ty, $y:ty) => {
        impl<'a, $($t $(: $bound)?),*> std::ops::Deref for $call<'a, $($t),*> {
            type Target = $crate::call::rows::Rows<'a, $x, $y>;

            #[inline(always)]
            fn deref(&self) -> &Self::Target {
                &self.views
            }
        }

        impl<'a, $($t $(: $bound)?),*> $call<'a, $($t),*> {
            /// Sets how the output is stored; in place always into the caches.
            #[inline]
            #[must_use]
            pub fn storing(mut self, store: $crate::call::Store) -> Self {
                self.views.store(store);
                self
            }
        }
    };
}

pub(crate) use over_rows;
