//! Rows to read and rows to write: what all calls over rows have in common.

use std::marker::PhantomData;

use crate::call::Store;
use crate::call::matrix::{Matrix, MatrixMut};

/// Rows that are read, and one for each that is written: another, the very same, one element, or
/// none. Made of views that were checked; it borrows what it points to.
#[derive(Debug)]
pub struct Rows<'a, T, U> {
    /// Row `i` starts at `x + i * x_stride`; each has `cols` elements, valid for reads.
    pub(crate) x: *const T,
    pub(crate) x_stride: usize,
    /// Row `i` starts at `y + i * y_stride`; each is valid for writes of `cols` elements (of one,
    /// if made [`Rows::to_one`]). Either disjoint from `x`, or the very same rows, or null.
    pub(crate) y: *mut U,
    pub(crate) y_stride: usize,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) store: Store,
    borrowed: PhantomData<(&'a T, &'a mut U)>,
}

// SAFETY: what it was made of, views of T and of U, are Send for such types.
unsafe impl<T: Send + Sync, U: Send> Send for Rows<'_, T, U> {}

/// The shapes of input and output, where they do not fit.
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

    /// From rows of `x` to rows of `y`.
    ///
    /// # Errors
    /// Their shapes, if they differ.
    #[inline]
    pub(crate) fn new(x: Matrix<'a, T>, mut y: MatrixMut<'a, U>) -> Result<Self, Shapes> {
        let shapes = [(x.rows(), x.cols()), (y.rows(), y.cols())];
        if shapes[0] != shapes[1] {
            return Err(shapes);
        }
        Ok(Self::of(&x, y.as_mut_ptr(), y.stride()))
    }

    /// From rows of `x` to one element each of `y`.
    ///
    /// # Errors
    /// The shapes, if there is not one element for each row.
    #[inline]
    pub(crate) fn to_one(x: Matrix<'a, T>, y: &'a mut [U]) -> Result<Self, Shapes> {
        if x.rows() != y.len() {
            return Err([(x.rows(), x.cols()), (y.len(), 1)]);
        }
        Ok(Self::of(&x, y.as_mut_ptr(), 1))
    }

    /// Rows of `x`, and nothing to be written.
    pub(crate) fn read(x: Matrix<'a, T>) -> Self {
        Self::of(&x, std::ptr::null_mut(), 0)
    }

    /// Rows.
    #[inline]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Elements of a row that is read.
    #[inline]
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Whether nothing lies between the rows.
    #[inline]
    pub fn is_dense(&self) -> bool {
        self.x_stride == self.cols && self.y_stride == self.cols
    }

    /// Whether rows are overwritten.
    #[inline]
    pub fn is_in_place(&self) -> bool {
        self.x.cast::<U>() == self.y.cast_const()
    }

    /// Where a row starts that is read, and where the one that is written.
    #[inline(always)]
    pub(crate) fn row(&self, row: usize) -> (*const T, *mut U) {
        (self.x.wrapping_add(row * self.x_stride), self.y.wrapping_add(row * self.y_stride))
    }

    /// A row that is read.
    pub(crate) fn elements(&self, row: usize) -> impl Iterator<Item = T>
    where
        T: Copy,
    {
        let (x, _) = self.row(row);
        let cols = if row < self.rows { self.cols } else { 0 };
        // SAFETY: the row is there, and has so many elements.
        (0..cols).map(move |i| unsafe { *x.add(i) })
    }

    /// Stores the output like that; in place into the caches.
    #[inline]
    pub(crate) fn store(&mut self, store: Store) {
        self.store = if self.is_in_place() { Store::CACHED } else { store };
    }

    /// The first `at` rows and the others. All and none if there are fewer than `at`.
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
    /// Rows to themselves.
    #[inline]
    pub(crate) fn in_place(mut y: MatrixMut<'a, T>) -> Self {
        // One pointer: another, made of a borrow before it, would not be valid any more.
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

/// Calls are their rows, with options.
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
            /// Stores the output like that; in place into the caches.
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
