//! Views of matrices whose rows are contiguous.

use std::marker::PhantomData;

use crate::call::error::{Error, Size};

/// Number of elements from the first one of row 0 to the last one of the last row.
fn extent(rows: usize, cols: usize, stride: usize) -> Result<usize, Error> {
    if rows > 1 && stride < cols {
        return Err(Error::Overlap { cols, stride });
    }
    if rows == 0 || cols == 0 {
        return Ok(0);
    }
    (rows - 1)
        .checked_mul(stride)
        .and_then(|start| start.checked_add(cols))
        .ok_or(Error::Overflow { rows, cols, stride })
}

fn check(len: usize, rows: usize, cols: usize, stride: usize) -> Result<(), Error> {
    let needed = extent(rows, cols, stride)?;
    if len < needed {
        return Err(Error::shape("number of elements", Size::AtLeast(needed), Size::Count(len)));
    }
    Ok(())
}

/// The stride that a view keeps. Without a second row, or without columns, any stride is allowed;
/// it is replaced, so that no arithmetic on it can overflow.
fn settled(rows: usize, cols: usize, stride: usize) -> usize {
    if rows <= 1 || cols == 0 { cols } else { stride }
}

fn rows_of(len: usize, cols: usize) -> Result<usize, Error> {
    match len.checked_rem(cols) {
        Some(0) => Ok(len / cols),
        None if len == 0 => Ok(0),
        _ => Err(Error::shape("number of elements", Size::MultipleOf(cols), Size::Count(len))),
    }
}

macro_rules! view {
    ($(#[$doc:meta])* $name:ident, $slice:ty, $pointer:ty, $as_ptr:ident) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name<'a, T> {
            /// Row `i` starts at `data + i * stride`. The view borrows the rows alone, not what
            /// lies between them.
            data: $pointer,
            rows: usize,
            cols: usize,
            stride: usize,
            borrowed: PhantomData<$slice>,
        }

        impl<'a, T> $name<'a, T> {
            /// A view of rows of `cols` elements that follow each other: `data.len() / cols` of
            /// them.
            ///
            /// # Errors
            /// [`Error::Shape`] if `cols` does not divide `data.len()`.
            pub fn new(data: $slice, cols: usize) -> Result<Self, Error> {
                let rows = rows_of(data.len(), cols)?;
                Ok(Self { data: data.$as_ptr(), rows, cols, stride: cols, borrowed: PhantomData })
            }

            /// A view of `rows` rows of `cols` elements, each of which starts `stride` elements
            /// after the one before. The slice may be longer; elements between and behind the rows
            /// are never touched.
            ///
            /// # Errors
            /// [`Error::Overlap`], [`Error::Overflow`], or [`Error::Shape`] if the slice is too
            /// short.
            pub fn with_stride(
                data: $slice,
                rows: usize,
                cols: usize,
                stride: usize,
            ) -> Result<Self, Error> {
                check(data.len(), rows, cols, stride)?;
                let stride = settled(rows, cols, stride);
                Ok(Self { data: data.$as_ptr(), rows, cols, stride, borrowed: PhantomData })
            }

            /// As [`Self::with_stride`] from a pointer to the first element of row 0, for elements
            /// between the rows that others may write.
            ///
            /// # Errors
            /// [`Error::Overlap`] or [`Error::Overflow`].
            ///
            /// # Safety
            /// Each row, `cols` elements from `data + i * stride` on, is aligned and initialised,
            /// and may be borrowed for `'a` like a slice that [`Self::new`] takes. If there are no
            /// elements, `data` may be anything.
            pub unsafe fn from_raw(
                data: $pointer,
                rows: usize,
                cols: usize,
                stride: usize,
            ) -> Result<Self, Error> {
                let bytes = extent(rows, cols, stride)?.checked_mul(size_of::<T>());
                if bytes.is_none_or(|bytes| bytes > isize::MAX as usize) {
                    return Err(Error::Overflow { rows, cols, stride });
                }
                let data = if bytes == Some(0) { <$slice>::default().$as_ptr() } else { data };
                let stride = settled(rows, cols, stride);
                Ok(Self { data, rows, cols, stride, borrowed: PhantomData })
            }

            /// As [`Self::from_raw`] without its checks.
            ///
            /// # Safety
            /// As there; `data` is not null, and [`Self::from_raw`] would accept the shape.
            #[inline(always)]
            pub unsafe fn from_raw_unchecked(
                data: $pointer,
                rows: usize,
                cols: usize,
                stride: usize,
            ) -> Self {
                Self { data, rows, cols, stride, borrowed: PhantomData }
            }

            /// Number of rows.
            pub fn rows(&self) -> usize {
                self.rows
            }

            /// Number of elements in a row.
            pub fn cols(&self) -> usize {
                self.cols
            }

            /// Number of elements from the start of a row to the start of the next.
            pub fn stride(&self) -> usize {
                self.stride
            }

            /// Number of all elements, if there are no gaps between the rows.
            fn dense(&self) -> Option<usize> {
                // No overflow: that many elements exist.
                match self.rows {
                    0 => Some(0),
                    1 => Some(self.cols),
                    n => (self.stride == self.cols || self.cols == 0).then(|| n * self.cols),
                }
            }

            /// The first `at` rows, or all if there are fewer, and the others.
            ///
            /// ```
            /// use softmax_kernels::Matrix;
            /// let (first, others) = Matrix::new(&[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0], 2)?.split_rows(1);
            /// assert_eq!((first.row(0), others.rows()), (&[1.0, 2.0][..], 2));
            /// # Ok::<(), softmax_kernels::Error>(())
            /// ```
            pub fn split_rows(self, at: usize) -> (Self, Self) {
                let at = at.min(self.rows);
                let Self { data, rows, cols, stride, borrowed } = self;
                // Without rows behind `at`, or without elements, the pointer may be invalid, and is
                // not used.
                let tail = data.wrapping_add(at.wrapping_mul(stride));
                (
                    Self { data, rows: at, cols, stride, borrowed },
                    Self { data: tail, rows: rows - at, cols, stride, borrowed },
                )
            }

            /// The first `at` columns and the others. All and none if there are fewer than `at`.
            ///
            /// ```
            /// use softmax_kernels::Matrix;
            /// let (left, right) = Matrix::new(&[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0], 3)?.split_cols(1);
            /// assert_eq!((left.row(1), right.row(1)), (&[4.0][..], &[5.0, 6.0][..]));
            /// # Ok::<(), softmax_kernels::Error>(())
            /// ```
            pub fn split_cols(self, at: usize) -> (Self, Self) {
                let at = at.min(self.cols);
                let Self { data, rows, cols, stride, borrowed } = self;
                let tail = data.wrapping_add(at);
                (
                    Self { data, rows, cols: at, stride, borrowed },
                    Self { data: tail, rows, cols: cols - at, stride, borrowed },
                )
            }
        }
    };
}

view! {
    /// A matrix to read: `rows` rows of `cols` contiguous elements, whose starts are `stride`
    /// elements apart.
    ///
    /// ```
    /// use softmax_kernels::Matrix;
    /// // Two rows of three, each followed by one element of padding.
    /// let m = Matrix::with_stride(&[1.0f32, 2.0, 3.0, 0.0, 4.0, 5.0, 6.0, 0.0], 2, 3, 4)?;
    /// assert_eq!((m.rows(), m.cols(), m.stride()), (2, 3, 4));
    /// # Ok::<(), softmax_kernels::Error>(())
    /// ```
    Matrix, &'a [T], *const T, as_ptr
}

view! {
    /// A matrix to write, or to overwrite; otherwise as [`Matrix`].
    MatrixMut, &'a mut [T], *mut T, as_mut_ptr
}

// SAFETY: it is a shared borrow of its rows.
unsafe impl<T: Sync> Send for Matrix<'_, T> {}

// SAFETY: as above.
unsafe impl<T: Sync> Sync for Matrix<'_, T> {}

// SAFETY: it is an exclusive borrow of its rows.
unsafe impl<T: Send> Send for MatrixMut<'_, T> {}

// SAFETY: a shared reference to it gives nothing but the shape.
unsafe impl<T: Sync> Sync for MatrixMut<'_, T> {}

impl<T> Clone for Matrix<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Matrix<'_, T> {}

impl<'a, T> Matrix<'a, T> {
    /// All elements as one slice, if there are no gaps between the rows.
    pub fn into_slice(self) -> Option<&'a [T]> {
        let len = self.dense()?;
        // SAFETY: all rows are borrowed, and one is behind the other.
        Some(if len == 0 { &[] } else { unsafe { std::slice::from_raw_parts(self.data, len) } })
    }

    /// A row; empty if there is no such row.
    ///
    /// ```
    /// use softmax_kernels::Matrix;
    /// let matrix = Matrix::new(&[1.0f32, 2.0, 3.0, 4.0], 2)?;
    /// assert_eq!((matrix.row(1), matrix.row(2)), (&[3.0, 4.0][..], &[][..]));
    /// # Ok::<(), softmax_kernels::Error>(())
    /// ```
    pub fn row(self, row: usize) -> &'a [T] {
        if row >= self.rows || self.cols == 0 {
            return &[];
        }
        // SAFETY: the row is there and borrowed.
        unsafe { std::slice::from_raw_parts(self.data.add(row * self.stride), self.cols) }
    }

    pub(crate) fn as_ptr(&self) -> *const T {
        self.data
    }
}

impl<'a, T> MatrixMut<'a, T> {
    /// All elements as one slice, if there are no gaps between the rows.
    ///
    /// # Errors
    /// The matrix, if it has padding between rows.
    pub fn into_slice(self) -> Result<&'a mut [T], Self> {
        match self.dense() {
            None => Err(self),
            Some(0) => Ok(&mut []),
            // SAFETY: all rows are borrowed, and one is behind the other.
            Some(len) => Ok(unsafe { std::slice::from_raw_parts_mut(self.data, len) }),
        }
    }

    /// A row; empty if there is none of that number.
    ///
    /// ```
    /// use softmax_kernels::MatrixMut;
    /// let mut data = [0.0f32; 4];
    /// MatrixMut::new(&mut data, 2)?.row_mut(1).fill(1.0);
    /// assert_eq!(data, [0.0, 0.0, 1.0, 1.0]);
    /// # Ok::<(), softmax_kernels::Error>(())
    /// ```
    pub fn row_mut(&mut self, row: usize) -> &mut [T] {
        if row >= self.rows || self.cols == 0 {
            return &mut [];
        }
        // SAFETY: the row is there, and borrowed as this view is.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(row * self.stride), self.cols) }
    }

    pub(crate) fn as_mut_ptr(&mut self) -> *mut T {
        self.data
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_checked_and_named() {
        let d = [0.0f32; 7];
        for cols in [3, 0] {
            assert_eq!(
                Matrix::new(&d, cols).unwrap_err().to_string(),
                format!("the number of elements must be a multiple of {cols}, got 7")
            );
        }
        assert_eq!(Matrix::<f32>::new(&[], 0).unwrap().rows(), 0);
        assert_eq!(
            Matrix::with_stride(&d, 2, 4, 4).unwrap_err().to_string(),
            "the number of elements must be at least 8, got 7"
        );
        assert!(matches!(Matrix::with_stride(&d, 2, 3, 2), Err(Error::Overlap { .. })));
        assert!(matches!(Matrix::with_stride(&d, usize::MAX, 2, 4), Err(Error::Overflow { .. })));
        // The last row needs no padding behind it.
        assert!(Matrix::with_stride(&d, 2, 3, 4).is_ok());
    }

    #[test]
    fn splitting_keeps_rows_and_drops_padding() {
        let d: Vec<u32> = (0..11).collect();
        let (a, b) = Matrix::with_stride(&d, 3, 3, 4).unwrap().split_rows(2);
        assert_eq!((a.row(0), a.row(1), a.rows()), (&d[..3], &d[4..7], 2));
        assert_eq!((b.into_slice(), b.rows()), (Some(&d[8..]), 1));
        let (a, b) = Matrix::with_stride(&d, 3, 3, 4).unwrap().split_rows(9);
        assert_eq!(
            (a.into_slice(), a.rows(), b.into_slice(), b.rows()),
            (None, 3, Some(&[][..]), 0)
        );
        let (a, b) = Matrix::with_stride(&d, 3, 3, 4).unwrap().split_rows(0);
        assert_eq!((a.rows(), b.row(2)), (0, &d[8..]));
        let (a, _) = Matrix::new(&d[..6], 3).unwrap().split_rows(2);
        assert_eq!((a.into_slice(), a.row(2)), (Some(&d[..6]), &[][..]));
    }

    #[test]
    fn splitting_columns_keeps_rows() {
        let d: Vec<u32> = (0..6).collect();
        let (a, b) = Matrix::new(&d, 3).unwrap().split_cols(1);
        assert_eq!(
            (a.row(0), a.row(1), b.row(0), b.row(1)),
            (&d[..1], &d[3..4], &d[1..3], &d[4..])
        );
        let (a, b) = Matrix::new(&d, 3).unwrap().split_cols(9);
        assert_eq!((a.into_slice(), b.rows(), b.row(1)), (Some(&d[..]), 2, &[][..]));
        let mut d = d;
        let (mut a, mut b) = MatrixMut::new(&mut d, 3).unwrap().split_cols(2);
        a.row_mut(1).fill(7);
        b.row_mut(0).fill(8);
        assert!(a.row_mut(2).is_empty());
        assert_eq!(d, [0, 1, 8, 7, 7, 5]);
    }

    #[test]
    fn rows_between_which_others_write() {
        let mut d = [0u32; 8];
        let p = d.as_mut_ptr();
        // SAFETY: the rows of the two views are disjoint.
        let (mut left, mut right) = unsafe {
            (
                MatrixMut::from_raw(p, 2, 2, 4).unwrap(),
                MatrixMut::from_raw(p.add(2), 2, 2, 4).unwrap(),
            )
        };
        for (i, half) in [&mut left, &mut right].into_iter().enumerate() {
            for row in 0..2 {
                // SAFETY: the row is there.
                unsafe { half.as_mut_ptr().add(row * 4 + 1).write(i as u32 + 1) };
            }
        }
        assert_eq!(d, [0, 1, 0, 2, 0, 1, 0, 2]);
        // SAFETY: refused.
        let big = unsafe { Matrix::<u32>::from_raw(p, 1, usize::MAX / 4, 0) };
        assert!(matches!(big, Err(Error::Overflow { .. })));
    }
}
