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
use crate::{Error, Exec, Plan, Shape, Threads};

/// Bytes of lanes that are copied at a time, so that they stay in a core's own cache.
pub(crate) const TILE: usize = 1 << 19;

/// A tile has at least this many lanes, so that cache lines that several of them share are fetched
/// once (but for rows, which share none) ...
pub(crate) const TOGETHER: usize = 16;

/// ... unless they need more bytes than this.
pub(crate) const MOST: usize = 1 << 25;

/// A tensor whose lanes are copied.
pub(crate) trait View: Sized + Send {
    type Item: Plain + 'static;
    /// How many lanes belong in a tile together, even if they do not fit.
    const TOGETHER: usize = TOGETHER;
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

/// The number of lanes before the axis, the axis's length, and the number of lanes after it. Lanes
/// may have no elements; their number does not overflow.
pub(crate) fn around(shape: &[usize], axis: isize) -> Result<[usize; 3], Error> {
    let index = index_of(axis, shape.len())?;
    let (before, after) = (&shape[..index], &shape[index + 1..]);
    // Without lanes the product of the other sizes may overflow.
    if before.contains(&0) || after.contains(&0) {
        return Ok([0, shape[index], 0]);
    }
    let product = |sizes: &[usize]| sizes.iter().try_fold(1usize, |n, &size| n.checked_mul(size));
    match (product(before), product(after)) {
        (Some(outer), Some(inner)) if outer.checked_mul(inner).is_some() => {
            Ok([outer, shape[index], inner])
        }
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
    /// As [`View::TOGETHER`], of what is read.
    const TOGETHER: usize;
    /// As [`View::lanes_along`].
    fn lanes_along(&self, dim: usize) -> Option<usize>;
    /// As [`View::split`].
    fn split(self, dim: usize, at: usize) -> (Self, Self);
    /// Shortens a lifetime, so that rows of two operands can be put together.
    fn shorter<'s, 'r: 's>(rows: Self::Rows<'r>) -> Self::Rows<'s>;
    /// Calls `f` with the rows, and writes back what it leaves there if it succeeds.
    fn with_rows(
        &mut self,
        f: impl FnOnce(Self::Rows<'_>) -> Result<(), Error>,
    ) -> Result<(), Error>;
}

/// Calls `f` in the default floating-point environment, in a frame of the stack that is gone when
/// an operation runs.
#[inline(never)]
fn copying(f: impl FnOnce()) {
    in_default_environment(f);
}

/// A tensor that is read. This type and the next two have no more fields than they need: operands
/// are moved often, and take room on the stack during the whole call.
pub(crate) struct In<X>(X);

/// A tensor that is written, and, if `READS`, read before.
pub(crate) struct Out<Y, const READS: bool>(Y);

/// A tensor that is read, and written to another, or else overwritten.
pub(crate) struct Between<X, Y>(Option<X>, Y);

/// A tensor that is read.
pub(crate) fn input<V: View>(from: V) -> In<V> {
    In(from)
}

/// A tensor that is written.
pub(crate) fn output<V: View>(to: V) -> Out<V, false> {
    Out(to)
}

/// A tensor that is read, and overwritten.
pub(crate) fn in_place<V: View>(to: V) -> Out<V, true> {
    Out(to)
}

/// A tensor that is read and written to another, or, if there is none, overwritten.
pub(crate) fn between<X: View, Y: View<Item = X::Item>>(from: Option<X>, to: Y) -> Between<X, Y> {
    Between(from, to)
}

macro_rules! operand {
    (($($generics:tt)*) $name:ty, $view_type:ident, $item:ty, |$this:ident| $of:expr, |$view:ident| $whole:expr,
        $read:expr, $write:expr, $split:expr) => {
        impl<$($generics)*> Operand for $name {
            type Rows<'r> = &'r mut [$item];
            const TOGETHER: usize = $view_type::TOGETHER;

            fn lanes_along(&self, dim: usize) -> Option<usize> {
                let $this = self;
                $of.lanes_along(dim)
            }

            fn split(self, dim: usize, at: usize) -> (Self, Self) {
                $split(self, dim, at)
            }

            fn shorter<'s, 'r: 's>(rows: Self::Rows<'r>) -> Self::Rows<'s> {
                rows
            }

            // Inlined, as for all operands, so that a call has one stack frame for all of them.
            #[inline(always)]
            fn with_rows(
                &mut self,
                f: impl FnOnce(Self::Rows<'_>) -> Result<(), Error>,
            ) -> Result<(), Error> {
                let $view = &*self;
                let n = $whole.elements();
                // The operation is in the caller's floating-point environment, for its threads.
                let done = with_room(n, |rows| {
                    copying(|| $read(&mut *self, &mut *rows));
                    f(&mut *rows)?;
                    copying(|| $write(&mut *self, &*rows));
                    Ok(())
                });
                done.unwrap_or(Err(Error::memory(n)))
            }
        }
    };
}

operand!(
    (X: View) In<X>, X, X::Item, |this| this.0, |view| view.0,
    |this: &mut Self, rows: &mut [X::Item]| this.0.read(rows),
    |_: &mut Self, _: &[X::Item]| (),
    |this: Self, dim, at| {
        let (a, b) = this.0.split(dim, at);
        (In(a), In(b))
    }
);

operand!(
    (Y: View, const READS: bool) Out<Y, READS>, Y, Y::Item, |this| this.0, |view| view.0,
    |this: &mut Self, rows: &mut [Y::Item]| if READS {
        this.0.read(rows);
    },
    |this: &mut Self, rows: &[Y::Item]| this.0.write(rows),
    |this: Self, dim, at| {
        let (a, b) = this.0.split(dim, at);
        (Out(a), Out(b))
    }
);

operand!(
    (X: View, Y: View<Item = X::Item>) Between<X, Y>, X, X::Item, |this| this.1, |view| view.1,
    |this: &mut Self, rows: &mut [X::Item]| match &mut this.0 {
        Some(from) => from.read(rows),
        None => this.1.read(rows),
    },
    |this: &mut Self, rows: &[X::Item]| this.1.write(rows),
    |this: Self, dim, at| {
        let (x, other_x) = this.0.map(|x: X| x.split(dim, at)).unzip();
        let (y, other_y) = this.1.split(dim, at);
        (Between(x, y), Between(other_x, other_y))
    }
);

impl<A: Operand, B: Operand> Operand for (A, B) {
    type Rows<'r> = (A::Rows<'r>, B::Rows<'r>);
    const TOGETHER: usize = A::TOGETHER;

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

    #[inline(always)]
    fn with_rows(
        &mut self,
        f: impl FnOnce(Self::Rows<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let (a, b) = (&mut self.0, &mut self.1);
        a.with_rows(|a| b.with_rows(|b| f((A::shorter(a), B::shorter(b)))))
    }
}

impl<A: Operand> Operand for Option<A> {
    type Rows<'r> = Option<A::Rows<'r>>;
    const TOGETHER: usize = A::TOGETHER;

    fn lanes_along(&self, dim: usize) -> Option<usize> {
        self.as_ref()?.lanes_along(dim)
    }

    fn split(self, dim: usize, at: usize) -> (Self, Self) {
        self.map(|part| part.split(dim, at)).unzip()
    }

    fn shorter<'s, 'r: 's>(rows: Self::Rows<'r>) -> Self::Rows<'s> {
        rows.map(A::shorter)
    }

    #[inline(always)]
    fn with_rows(
        &mut self,
        f: impl FnOnce(Self::Rows<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
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
/// share the lanes as they share rows of `work`. Inlined, so that operands are on the stack once.
#[inline(always)]
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
        return tiles(exec, bytes, &mut Some(operand), op);
    }
    shared(exec, &plan, bytes, operand, op)
}

/// As [`tiles`], by several threads.
#[inline(never)]
fn shared<A: Operand>(
    exec: &Exec,
    plan: &Plan,
    bytes: usize,
    operand: A,
    op: &(impl for<'r> Fn(&Exec, usize, A::Rows<'r>) -> Result<(), Error> + Sync),
) -> Result<(), Error> {
    let serial = exec.threads(Threads::Serial);
    let run = |part| tiles(&serial, bytes, &mut Some(part), op);
    exec.crew().share(plan.threads, plan.parts, operand, &cut, &run, &Result::and)
}

/// Runs `op` on all lanes, of `bytes` each, a tile at a time. Operands are large, so only one is on
/// the stack here, and none in the functions that this one calls.
fn tiles<A: Operand>(
    exec: &Exec,
    bytes: usize,
    rest: &mut Option<A>,
    op: &impl for<'r> Fn(&Exec, usize, A::Rows<'r>) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut first = None;
    loop {
        next(rest, bytes, &mut first);
        let Some(operand) = &mut first else { return Ok(()) };
        let n = lanes(operand);
        if is_tile(A::TOGETHER, n, n.saturating_mul(bytes)) {
            tile(exec, n, operand, op)?;
        } else {
            tiles(exec, bytes, &mut first, op)?;
        }
    }
}

/// Moves the next lanes from `rest` to `first`: a tile, or lanes that have to be split along
/// another dimension; nothing if no lanes are left.
#[inline(never)]
fn next<A: Operand>(rest: &mut Option<A>, bytes: usize, first: &mut Option<A>) {
    *first = rest.take();
    let left = first.as_ref().map_or(0, lanes);
    if is_tile(A::TOGETHER, left, left.saturating_mul(bytes)) {
        if left == 0 {
            *first = None;
        }
        return;
    }
    let Some(all) = first.take() else { return };
    // Along the outermost dimension that can be cut.
    let mut sizes = (0..).map_while(|dim| all.lanes_along(dim));
    let dim = sizes.position(|n| n > 1).unwrap_or(0);
    let each = left / all.lanes_along(dim).unwrap_or(1).max(1);
    let (part, others) = all.split(dim, (most_lanes(A::TOGETHER, left, bytes) / each).max(1));
    (*first, *rest) = (Some(part), Some(others));
}

/// Runs `op` on the lanes of one tile.
#[inline(never)]
fn tile<A: Operand>(
    exec: &Exec,
    lanes: usize,
    operand: &mut A,
    op: &impl for<'r> Fn(&Exec, usize, A::Rows<'r>) -> Result<(), Error>,
) -> Result<(), Error> {
    operand.with_rows(|rows| op(exec, lanes, rows))
}

/// Whether `lanes` lanes of `bytes` together fit a tile.
pub(crate) fn is_tile(together: usize, lanes: usize, bytes: usize) -> bool {
    bytes <= TILE || lanes == 1 || (lanes <= together && bytes <= MOST)
}

/// The most of `lanes` lanes, of `bytes` each, that are copied at a time.
pub(crate) fn most_lanes(together: usize, lanes: usize, bytes: usize) -> usize {
    let together = if bytes <= MOST / together { together } else { (MOST / bytes).max(1) };
    lanes.min(together.max(TILE / bytes.max(1)))
}
