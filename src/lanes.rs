//! Operations along an axis that no kernel does directly: a few lanes at a time are copied into
//! scratch memory as rows, the operation on rows runs there, and results are copied back.
//!
//! A lane is the elements along the axis at one position of the others. The tensors of a call
//! (input, labels, results) have the same lanes in the same order; all lanes of one tensor have the
//! same length: the input's, 1, or k.

use softmax_kernels::{
    Element, Matrix, MatrixMut, Op as Work, Plain, in_default_environment, part_of, with_room,
};

use crate::axis::index_of;
use crate::{Error, Exec, Shape, Threads};

/// Bytes of lanes that are copied at a time, so that they stay in a core's own cache.
pub(crate) const TILE: usize = 1 << 19;

/// A tile has at least this many lanes, so that cache lines that several of them share are fetched
/// once ...
pub(crate) const TOGETHER: usize = 16;

/// ... unless they need more bytes than this.
pub(crate) const MOST: usize = 1 << 25;

/// A tensor whose lanes are copied.
pub(crate) trait View: Sized + Send {
    type Item: Plain + 'static;
    /// The number of lanes along a dimension, the outermost first; `None` if there is no such
    /// dimension.
    fn lanes_along(&self, dim: usize) -> Option<usize>;
    /// The number of elements of all lanes.
    fn elements(&self) -> usize;
    /// Splits off the first `at` of the lanes along a dimension.
    fn split(self, dim: usize, at: usize) -> (Self, Self);
    /// Copies all lanes, one after the other.
    fn read(&mut self, rows: &mut [Self::Item]);
    /// Copies all lanes back; does nothing for a tensor that can only be read.
    fn write(&mut self, rows: &[Self::Item]);
}

/// A tensor in C order: matrices of `len` rows, each row with one element of every lane.
pub(crate) struct Tensor<M> {
    /// All matrices, one below the other.
    matrix: M,
    matrices: usize,
    /// The number of elements of a lane.
    len: usize,
}

/// The number of lanes before the axis, the axis's length, and the number of lanes after it. Unlike
/// [`around`](crate::axis::around) it counts lanes without elements.
pub(crate) fn around(shape: &[usize], axis: isize) -> Result<[usize; 3], Error> {
    let index = index_of(axis, shape.len())?;
    let product = |sizes: &[usize]| {
        // With a 0 the product is 0, however large the other sizes are.
        let product = sizes.iter().try_fold(1usize, |n, &size| n.checked_mul(size));
        if sizes.contains(&0) { Some(0) } else { product }
    };
    let (outer, inner) = (product(&shape[..index]), product(&shape[index + 1..]));
    let lanes = outer.zip(inner).and_then(|(outer, inner)| outer.checked_mul(inner));
    match (outer, inner, lanes) {
        (Some(outer), Some(inner), Some(_)) => Ok([outer, shape[index], inner]),
        _ => Err(Error::overflow(usize::MAX, shape[index], 1)),
    }
}

macro_rules! tensor {
    ($name:ident, $matrix:ident, $slice:ty) => {
        /// A tensor with lanes of `len` elements around an axis.
        ///
        /// # Errors
        /// [`Error::Shape`] if the slice has not as many elements.
        pub(crate) fn $name<'a, T>(
            what: &'static str,
            data: $slice,
            [outer, len, inner]: [usize; 3],
        ) -> Result<Tensor<$matrix<'a, T>>, Error> {
            let rows = outer.checked_mul(len);
            let Some(needed) = rows.and_then(|rows| rows.checked_mul(inner)) else {
                return Err(Error::overflow(outer, len, inner));
            };
            if data.len() != needed {
                return Err(Error::count(what, needed, data.len()));
            }
            let rows = rows.unwrap_or(0);
            let matrix = $matrix::with_stride(data, rows, inner, inner)?;
            Ok(Tensor { matrix, matrices: outer, len })
        }
    };
}

tensor!(tensor, Matrix, &'a [T]);
tensor!(tensor_mut, MatrixMut, &'a mut [T]);

macro_rules! tensor_view {
    ($matrix:ident, $row:ident, $write:expr) => {
        impl<T: Plain + Send + Sync + 'static> View for Tensor<$matrix<'_, T>> {
            type Item = T;

            fn lanes_along(&self, dim: usize) -> Option<usize> {
                [self.matrices, self.matrix.cols()].get(dim).copied()
            }

            fn elements(&self) -> usize {
                self.matrix.rows() * self.matrix.cols()
            }

            fn split(self, dim: usize, at: usize) -> (Self, Self) {
                let Self { matrix, matrices, len } = self;
                let part = |matrix, matrices| Self { matrix, matrices, len };
                if dim == 0 {
                    let at = at.min(matrices);
                    let (a, b) = matrix.split_rows(at * len);
                    (part(a, at), part(b, matrices - at))
                } else {
                    let (a, b) = matrix.split_cols(at);
                    (part(a, matrices), part(b, matrices))
                }
            }

            fn read(&mut self, rows: &mut [T]) {
                let (inner, len) = (self.matrix.cols(), self.len);
                for matrix in 0..self.matrices {
                    for at in 0..len {
                        let row = self.matrix.$row(matrix * len + at);
                        let to = rows[matrix * inner * len..].iter_mut().skip(at).step_by(len);
                        row.iter().zip(to).for_each(|(x, to)| *to = *x);
                    }
                }
            }

            fn write(&mut self, rows: &[T]) {
                $write(self, rows);
            }
        }
    };
}

tensor_view!(Matrix, row, |_, _| ());
tensor_view!(MatrixMut, row_mut, write);

/// Copies rows into the lanes of a tensor.
fn write<T: Copy>(to: &mut Tensor<MatrixMut<T>>, rows: &[T]) {
    let (inner, len) = (to.matrix.cols(), to.len);
    for matrix in 0..to.matrices {
        for at in 0..len {
            let row = to.matrix.row_mut(matrix * len + at);
            let from = rows[matrix * inner * len..].iter().skip(at).step_by(len);
            row.iter_mut().zip(from).for_each(|(y, from)| *y = *from);
        }
    }
}

/// What a call reads, writes or both: one tensor, or several with the same lanes.
pub(crate) trait Operand: Sized + Send {
    /// Its lanes as rows in scratch memory.
    type Rows<'r>;
    /// As [`View::lanes_along`].
    fn lanes_along(&self, dim: usize) -> Option<usize>;
    /// As [`View::split`].
    fn split(self, dim: usize, at: usize) -> (Self, Self);
    /// Shortens a lifetime, so that rows of two operands can be put together.
    fn shorter<'s, 'r: 's>(rows: Self::Rows<'r>) -> Self::Rows<'s>;
    /// Calls `f` with the rows, and writes back what it leaves there if it succeeds.
    fn with_rows(self, f: impl FnOnce(Self::Rows<'_>) -> Result<(), Error>) -> Result<(), Error>;
}

/// One tensor of a call: where its rows are read from, and where they are written to.
pub(crate) struct Argument<X, Y> {
    from: Option<X>,
    to: Option<Y>,
    in_place: bool,
}

/// A tensor that is read.
pub(crate) fn input<V: View>(from: V) -> Argument<V, V> {
    Argument { from: Some(from), to: None, in_place: false }
}

/// A tensor that is written.
pub(crate) fn output<V: View>(to: V) -> Argument<V, V> {
    Argument { from: None, to: Some(to), in_place: false }
}

/// A tensor that is read, and whose results are written to another, if there is one.
pub(crate) fn through<X: View, Y: View<Item = X::Item>>(from: X, to: Option<Y>) -> Argument<X, Y> {
    Argument { from: Some(from), to, in_place: false }
}

/// A tensor that is read and overwritten with the results.
pub(crate) fn in_place<V: View>(to: V) -> Argument<V, V> {
    between(None, to)
}

/// A tensor that is read, with results in another; or `to` in place if there is no `from`.
pub(crate) fn between<X: View, Y: View<Item = X::Item>>(from: Option<X>, to: Y) -> Argument<X, Y> {
    let in_place = from.is_none();
    Argument { from, to: Some(to), in_place }
}

impl<X: View, Y: View<Item = X::Item>> Operand for Argument<X, Y> {
    type Rows<'r> = &'r mut [X::Item];

    fn lanes_along(&self, dim: usize) -> Option<usize> {
        match (&self.from, &self.to) {
            (Some(view), _) => view.lanes_along(dim),
            (_, Some(view)) => view.lanes_along(dim),
            _ => None,
        }
    }

    fn split(self, dim: usize, at: usize) -> (Self, Self) {
        let in_place = self.in_place;
        let (from, other_from) = self.from.map(|view| view.split(dim, at)).unzip();
        let (to, other_to) = self.to.map(|view| view.split(dim, at)).unzip();
        (Self { from, to, in_place }, Self { from: other_from, to: other_to, in_place })
    }

    fn shorter<'s, 'r: 's>(rows: Self::Rows<'r>) -> Self::Rows<'s> {
        rows
    }

    fn with_rows(
        mut self,
        f: impl FnOnce(Self::Rows<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let from = self.from.as_ref().map(X::elements);
        let n = from.or(self.to.as_ref().map(Y::elements)).unwrap_or(0);
        // The operation is in the caller's floating-point environment, for its threads.
        let done = with_room(n, |rows| {
            in_default_environment(|| {
                if let Some(from) = &mut self.from {
                    from.read(rows);
                } else if let Some(from) = self.to.as_mut().filter(|_| self.in_place) {
                    from.read(rows);
                }
            });
            f(&mut *rows)?;
            if let Some(to) = &mut self.to {
                in_default_environment(|| to.write(rows));
            }
            Ok(())
        });
        done.unwrap_or(Err(Error::memory(n)))
    }
}

impl<A: Operand, B: Operand> Operand for (A, B) {
    type Rows<'r> = (A::Rows<'r>, B::Rows<'r>);

    fn lanes_along(&self, dim: usize) -> Option<usize> {
        self.0.lanes_along(dim)
    }

    fn split(self, dim: usize, at: usize) -> (Self, Self) {
        let ((a, other_a), (b, other_b)) = (self.0.split(dim, at), self.1.split(dim, at));
        ((a, b), (other_a, other_b))
    }

    fn shorter<'s, 'r: 's>((a, b): Self::Rows<'r>) -> Self::Rows<'s> {
        (A::shorter(a), B::shorter(b))
    }

    fn with_rows(self, f: impl FnOnce(Self::Rows<'_>) -> Result<(), Error>) -> Result<(), Error> {
        self.0.with_rows(|a| self.1.with_rows(|b| f((A::shorter(a), B::shorter(b)))))
    }
}

impl<A: Operand> Operand for Option<A> {
    type Rows<'r> = Option<A::Rows<'r>>;

    fn lanes_along(&self, dim: usize) -> Option<usize> {
        self.as_ref()?.lanes_along(dim)
    }

    fn split(self, dim: usize, at: usize) -> (Self, Self) {
        self.map(|part| part.split(dim, at)).unzip()
    }

    fn shorter<'s, 'r: 's>(rows: Self::Rows<'r>) -> Self::Rows<'s> {
        rows.map(A::shorter)
    }

    fn with_rows(self, f: impl FnOnce(Self::Rows<'_>) -> Result<(), Error>) -> Result<(), Error> {
        match self {
            Some(part) => part.with_rows(|rows| f(Some(rows))),
            None => f(None),
        }
    }
}

fn lanes(operand: &impl Operand) -> usize {
    // No overflow: it was checked when the operand was made.
    (0..).map_while(|dim| operand.lanes_along(dim)).product()
}

/// Splits off `at` of `of` equal parts of the lanes: along the outermost dimension with at least
/// `of` lanes, or else along the one with the most.
fn cut<A: Operand>(operand: A, at: usize, of: usize) -> (A, A) {
    let sizes = || (0..).map_while(|dim| operand.lanes_along(dim));
    let most = sizes().max().unwrap_or(0).min(of);
    let dim = sizes().position(|n| n >= most).unwrap_or(0);
    let at = part_of(operand.lanes_along(dim).unwrap_or(0), at, of);
    operand.split(dim, at)
}

/// Runs `op` on rows of `len` elements of type `T`, copied from the lanes a tile at a time. Threads
/// share the lanes as they share rows of `work`.
pub(crate) fn run<T: Element, A: Operand>(
    exec: &Exec,
    work: Work,
    len: usize,
    operand: A,
    op: &(impl for<'r> Fn(&Exec, usize, A::Rows<'r>) -> Result<(), Error> + Sync),
) -> Result<(), Error> {
    let shape = Shape::new(lanes(&operand), len).in_place();
    let plan = exec.plan_work::<T>(work, shape)?;
    let bytes = len.saturating_mul(size_of::<T>());
    if plan.threads() == 1 || shape.rows < plan.threads() {
        // There are few and long lanes: threads share each of them.
        return tiles(exec, bytes, operand, op);
    }
    let serial = exec.threads(Threads::Serial);
    let run = |part| tiles(&serial, bytes, part, op);
    exec.crew().share(plan.threads, plan.parts, operand, &cut, &run, &Result::and)
}

/// Halves the lanes, of `bytes` each, until they fit a tile.
#[inline(never)]
fn tiles<A: Operand>(
    exec: &Exec,
    bytes: usize,
    mut rest: A,
    op: &impl for<'r> Fn(&Exec, usize, A::Rows<'r>) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut left = lanes(&rest);
    while !is_tile(left, left.saturating_mul(bytes)) {
        // Along the outermost dimension that can be cut.
        let mut sizes = (0..).map_while(|dim| rest.lanes_along(dim));
        let dim = sizes.position(|n| n > 1).unwrap_or(0);
        let each = left / rest.lanes_along(dim).unwrap_or(1).max(1);
        let (first, others) = rest.split(dim, (most_lanes(left, bytes) / each).max(1));
        let n = lanes(&first);
        if is_tile(n, n.saturating_mul(bytes)) {
            tile(exec, n, first, op)?;
        } else {
            tiles(exec, bytes, first, op)?;
        }
        (rest, left) = (others, left - n);
    }
    if left == 0 { Ok(()) } else { tile(exec, left, rest, op) }
}

/// Does so many lanes.
#[inline(never)]
fn tile<A: Operand>(
    exec: &Exec,
    lanes: usize,
    operand: A,
    op: &impl for<'r> Fn(&Exec, usize, A::Rows<'r>) -> Result<(), Error>,
) -> Result<(), Error> {
    operand.with_rows(|rows| op(exec, lanes, rows))
}

/// Whether `lanes` lanes of `bytes` together fit a tile.
pub(crate) fn is_tile(lanes: usize, bytes: usize) -> bool {
    bytes <= TILE || lanes == 1 || (lanes <= TOGETHER && bytes <= MOST)
}

/// The most of `lanes` lanes, of `bytes` each, that are copied at a time.
pub(crate) fn most_lanes(lanes: usize, bytes: usize) -> usize {
    let together = if bytes <= MOST / TOGETHER { TOGETHER } else { (MOST / bytes).max(1) };
    lanes.min(together.max(TILE / bytes.max(1)))
}
