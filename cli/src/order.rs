//! Arrays in Fortran order: the first axis is contiguous, not the last.

use std::ops::Range;

use crate::failure::{Failure, clip};
use crate::input::Contents;
use crate::tensor::Tensor;

/// Columns that are copied to rows together, to write more than one element at a time.
const COLUMNS: usize = 32;

/// The most elements of a column that are read at a time.
const CHUNK: usize = 1 << 14;

/// Copies a tensor in Fortran order to rows, and returns the place of the copy.
pub fn by_rows(file: &mut Contents, tensor: &Tensor) -> Result<Range<usize>, Failure> {
    let bytes = tensor.data.len();
    let made = file.make(bytes, |file, to| match tensor.stored.size() {
        1 => scatter::<1>(file, tensor, to),
        2 => scatter::<2>(file, tensor, to),
        4 => scatter::<4>(file, tensor, to),
        _ => scatter::<8>(file, tensor, to),
    });
    made.map_err(|e| {
        let name = clip(file.name(), 60).into_owned();
        e.with(&format!(
            "Fortran order is read in memory; \
             np.save(\"converted.npy\", np.ascontiguousarray(np.load({name:?}))) converts"
        ))
    })
}

/// Copies elements of `N` bytes to their places in rows.
fn scatter<const N: usize>(file: &Contents, tensor: &Tensor, to: &mut [u8]) -> Result<(), Failure> {
    // There are at least two axes, and an element.
    let [len, outer @ ..] = &*tensor.shape else { return Ok(()) };
    let len = *len;
    if to.is_empty() {
        return Ok(());
    }
    let (to, _) = to.as_chunks_mut::<N>();
    let columns = to.len() / len;
    let mut bytes = vec![0; COLUMNS.min(columns) * CHUNK.min(len) * N];
    let mut index = vec![0; outer.len()];
    let mut places = Vec::with_capacity(COLUMNS);
    for first in (0..columns).step_by(COLUMNS) {
        // The places of these columns' first elements in rows.
        places.clear();
        for _ in first..columns.min(first + COLUMNS) {
            places.push(index.iter().zip(outer).fold(0, |place, (&i, &n)| place * n + i));
            advance(&mut index, outer);
        }
        for start in (0..len).step_by(CHUNK) {
            let n = CHUNK.min(len - start);
            let read = |column: usize, to: &mut [u8]| {
                file.read(tensor.data.start + (column * len + start) * N, to)
            };
            let bytes = &mut bytes[..places.len() * n * N];
            if n == len {
                // Whole columns follow each other.
                read(first, bytes)?;
            } else {
                let mut columns = bytes.chunks_exact_mut(n * N).enumerate();
                columns.try_for_each(|(i, column)| read(first + i, column))?;
            }
            let (elements, _) = bytes.as_chunks::<N>();
            for row in 0..n {
                for (i, place) in places.iter().enumerate() {
                    to[(start + row) * columns + place] = elements[i * n + row];
                }
            }
        }
    }
    Ok(())
}

/// Advances an index, the first axis fastest.
fn advance(index: &mut [usize], shape: &[usize]) {
    for (i, &n) in index.iter_mut().zip(shape) {
        *i += 1;
        if *i < n {
            return;
        }
        *i = 0;
    }
}
