//! A call of softmax along an axis that is not the last.

use std::marker::PhantomData;

use crate::call::error::Error;
use crate::call::{Masked, Store};
use crate::num::element::Element;
use crate::num::part_of;
use crate::num::scale::Scale;

/// A tensor of `outer` matrices, each of `axis` rows of `inner` elements, without gaps; or two
/// tensors, one to read and one to write.
#[derive(Debug)]
pub struct Columns<'a, T> {
    pub(crate) x: *const T,
    pub(crate) y: *mut T,
    pub(crate) outer: usize,
    pub(crate) axis: usize,
    pub(crate) inner: usize,
    /// The columns of each matrix that this call computes.
    pub(crate) first: usize,
    pub(crate) count: usize,
    pub(crate) scale: Scale,
    pub(crate) masked: Masked,
    pub(crate) store: Store,
    pub(crate) borrowed: PhantomData<&'a mut T>,
}

// SAFETY: what it was made of, a &[T] and a &mut [T], are Send for such T.
unsafe impl<T: Send + Sync> Send for Columns<'_, T> {}

impl<'a, T: Element> Columns<'a, T> {
    /// Reads `x` and writes `y`: `shape` is the number of matrices, of elements along the axis, and
    /// of columns.
    ///
    /// # Errors
    /// [`Error::Shape`] if `x` or `y` does not have that number of elements.
    pub fn new(
        x: &'a [T],
        y: &'a mut [T],
        shape: [usize; 3],
        scale: Scale,
        masked: Masked,
    ) -> Result<Self, Error> {
        Self::check(x.len(), shape)?;
        Self::check(y.len(), shape)?;
        Ok(Self::of(x.as_ptr(), y.as_mut_ptr(), shape, scale, masked))
    }

    /// Reads and writes `y`.
    ///
    /// # Errors
    /// As [`Columns::new`].
    pub fn in_place(
        y: &'a mut [T],
        shape: [usize; 3],
        scale: Scale,
        masked: Masked,
    ) -> Result<Self, Error> {
        Self::check(y.len(), shape)?;
        let y = y.as_mut_ptr();
        Ok(Self::of(y, y, shape, scale, masked))
    }

    fn check(len: usize, [outer, axis, inner]: [usize; 3]) -> Result<(), Error> {
        let (rows, cols, stride) = (outer, axis, inner);
        let needed = outer.checked_mul(axis).and_then(|n| n.checked_mul(inner));
        match needed {
            Some(needed) if needed == len => Ok(()),
            Some(needed) => Err(Error::count("number of elements of the tensor", needed, len)),
            None => Err(Error::overflow(rows, cols, stride)),
        }
    }

    fn of(
        x: *const T,
        y: *mut T,
        [outer, axis, inner]: [usize; 3],
        scale: Scale,
        masked: Masked,
    ) -> Self {
        let (first, count, store) = (0, inner, Store::CACHED);
        Columns {
            x,
            y,
            outer,
            axis,
            inner,
            first,
            count,
            scale,
            masked,
            store,
            borrowed: PhantomData,
        }
    }

    /// The index of each column's first element, and the distance between its elements.
    pub(crate) fn starts(&self) -> impl Iterator<Item = (usize, usize)> + use<T> {
        let (axis, inner, first, count) = (self.axis, self.inner, self.first, self.count);
        let matrices = (0..self.outer).map(move |matrix| matrix * axis * inner + first);
        matrices.flat_map(move |start| (start..start + count).map(move |start| (start, inner)))
    }

    /// Sets how the output is stored; in place always into the caches.
    #[must_use]
    pub fn storing(mut self, store: Store) -> Self {
        self.store = if self.x != self.y.cast_const() { store } else { Store::CACHED };
        self
    }

    /// The first `at` of `of` parts, and the rest. A part is whole matrices, or columns of one.
    #[must_use]
    pub fn split(self, at: usize, of: usize) -> (Self, Self) {
        let share = |n: usize| part_of(n, at, of);
        if self.outer == 1 {
            // Threads that write to the same cache line slow each other down.
            let at = (share(self.count) / TOGETHER * TOGETHER).min(self.count);
            let part = |first, count| Columns { first, count, ..self };
            (part(self.first, at), part(self.first + at, self.count - at))
        } else {
            let at = share(self.outer).min(self.outer);
            let part = |from: usize, outer| {
                let from = from * self.axis * self.inner;
                Columns {
                    x: self.x.wrapping_add(from),
                    y: self.y.wrapping_add(from),
                    outer,
                    ..self
                }
            };
            (part(0, at), part(at, self.outer - at))
        }
    }
}

/// Parts start at columns that are multiples of this.
const TOGETHER: usize = 64;
