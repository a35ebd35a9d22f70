//! Any axis of `ndarray`'s views, with any layout: the bits of the lane alone, and nothing else
//! touched.

use std::num::NonZeroUsize;

use crate::common::*;
use ndarray::{
    Array1, Array2, Array3, ArrayD, ArrayView, ArrayView2, ArrayViewD, ArrayViewMutD, Axis,
    Dimension, Ix1, Ix2, Ix3, Ix4, IxDyn, ShapeBuilder, Slice, arr0, s,
};
use proptest::prelude::*;
use softmax::half::{bf16, f16};
use softmax::{Caches, Element, Error, Masked, Threads};

const MARKER: f64 = -77.0;

/// The layout of a view in memory.
#[derive(Clone, Debug)]
struct Layout {
    /// The axes, from the outermost to the innermost.
    order: Vec<usize>,
    /// For each axis, the step to the next element.
    steps: Vec<isize>,
    /// For each axis, elements before the first.
    gaps: Vec<usize>,
    /// For each axis, whether all positions are the same element.
    broadcast: Vec<bool>,
}

impl Layout {
    /// C order.
    fn standard(dims: usize) -> Self {
        Self {
            order: (0..dims).collect(),
            steps: vec![1; dims],
            gaps: vec![0; dims],
            broadcast: vec![false; dims],
        }
    }

    fn fortran(dims: usize) -> Self {
        Self::standard(dims).order((0..dims).rev())
    }

    fn order(self, order: impl IntoIterator<Item = usize>) -> Self {
        Self { order: order.into_iter().collect(), ..self }
    }

    fn step(mut self, axis: usize, step: isize) -> Self {
        self.steps[axis] = step;
        self
    }

    fn gap(mut self, axis: usize, gap: usize) -> Self {
        self.gaps[axis] = gap;
        self
    }

    fn broadcast(mut self, axis: usize) -> Self {
        self.broadcast[axis] = true;
        self
    }

    fn any(dims: usize, may_broadcast: bool) -> impl Strategy<Value = Self> {
        // Many arrays have no gaps, and most axes have none.
        let step = prop_oneof![6 => Just(1isize), 2 => Just(-1), 1 => Just(2), 1 => Just(-3)];
        let gap = prop_oneof![4 => Just(0usize), 1 => 1..3usize];
        let broadcast = prop::bool::weighted(if may_broadcast { 0.15 } else { 0.0 });
        (
            prop_oneof![
                Just((0..dims).collect::<Vec<_>>()),
                Just((0..dims).collect::<Vec<_>>()).prop_shuffle(),
            ],
            prop_oneof![Just(vec![1; dims]), prop::collection::vec(step, dims)],
            prop_oneof![Just(vec![0; dims]), prop::collection::vec(gap, dims)],
            prop::collection::vec(broadcast, dims),
        )
            .prop_map(|(order, steps, gaps, broadcast)| Self {
                order,
                steps,
                gaps,
                broadcast,
            })
    }

    /// Elements along the axes in memory.
    fn sizes(&self, shape: &[usize]) -> Vec<usize> {
        let size = |axis: usize| {
            let len = if self.broadcast[axis] { 1 } else { shape[axis] };
            self.gaps[axis] + len * self.steps[axis].unsigned_abs()
        };
        self.order.iter().map(|&axis| size(axis)).collect()
    }

    fn slice(&self, axis: usize) -> Slice {
        Slice::new(self.gaps[axis] as isize, None, self.steps[axis])
    }

    /// The place in memory of each axis of the view.
    fn places(&self) -> Vec<usize> {
        let place = |axis| self.order.iter().position(|&a| a == axis).expect("a permutation");
        (0..self.order.len()).map(place).collect()
    }

    fn view<'a, T: Element>(&self, memory: &'a ArrayD<T>) -> ArrayViewD<'a, T> {
        let mut view = memory.view();
        view.slice_each_axis_inplace(|a| self.slice(self.order[a.axis.index()]));
        view.permuted_axes(self.places())
    }

    fn view_mut<'a, T: Element>(&self, memory: &'a mut ArrayD<T>) -> ArrayViewMutD<'a, T> {
        let mut view = memory.view_mut();
        view.slice_each_axis_inplace(|a| self.slice(self.order[a.axis.index()]));
        view.permuted_axes(self.places())
    }
}

#[derive(Clone, Debug)]
struct Case {
    shape: Vec<usize>,
    axis: usize,
    x: Layout,
    y: Layout,
}

impl Case {
    fn any() -> impl Strategy<Value = Self> {
        let shape = |dims| (prop::collection::vec(0..7usize, dims), 0..dims, 500..700usize);
        let shape = (1..=4usize).prop_flat_map(shape).prop_flat_map(|(small, at, long)| {
            let mut one_long = small.clone();
            one_long[at] = long;
            prop_oneof![4 => Just(small), 1 => Just(one_long)]
        });
        shape.prop_flat_map(|shape| {
            let dims = shape.len();
            // Half of the pairs have the same layout, or nothing would be computed in one go.
            let layouts = prop_oneof![
                Layout::any(dims, false).prop_map(|layout| (layout.clone(), layout)),
                (Layout::any(dims, true), Layout::any(dims, false)),
            ];
            (Just(shape), 0..dims, layouts).prop_map(|(shape, axis, (x, y))| Self {
                shape,
                axis,
                x,
                y,
            })
        })
    }

    /// Checks all operations on elements of a kind, from `x` to `y` and in place.
    fn check<T: Bits>(&self, kind: usize, options: &Options) {
        let Self { shape, axis, x, y } = self;
        let mut random = Random((kind + shape.iter().sum::<usize>()) as u64);
        let sizes = x.sizes(shape);
        let values = row::<T>(&mut random, kind, sizes.iter().product());
        let x_memory = ArrayD::from_shape_vec(sizes, values).expect("as many");
        let x = x.view(&x_memory);
        let x = x.broadcast(shape.clone()).expect("of this shape");
        let empty = ArrayD::from_elem(y.sizes(shape), T::from_f64(MARKER));
        for op in [Op::Softmax, Op::LogSoftmax] {
            let mut want = empty.clone();
            lanes(options, op, *axis, &x, y.view_mut(&mut want));
            let what = |way| move || format!("{way} {op:?} kind {kind} {self:?}");
            let axis = *axis as isize;

            let mut got = empty.clone();
            call(options, op, Some(x.view()), y.view_mut(&mut got), axis).expect("a valid call");
            assert_same(all(&got), all(&want), what("to"));

            let mut got = empty.clone();
            y.view_mut(&mut got).assign(&x);
            call(options, op, None, y.view_mut(&mut got), axis - shape.len() as isize)
                .expect("a valid call");
            assert_same(all(&got), all(&want), what("in place"));
        }
    }
}

fn all<T>(memory: &ArrayD<T>) -> &[T] {
    memory.as_slice().expect("C order")
}

/// Lane by lane.
fn lanes<T: Element>(
    options: &Options,
    op: Op,
    axis: usize,
    x: &ArrayViewD<T>,
    mut y: ArrayViewMutD<T>,
) {
    for (x, y) in x.lanes(Axis(axis)).into_iter().zip(y.lanes_mut(Axis(axis))) {
        let lane: Vec<T> = x.iter().copied().collect();
        y.into_iter().zip(run_row(options, op, &lane)).for_each(|(y, value)| *y = value);
    }
}

/// In place without `x`; with a type of fixed dimensions otherwise.
fn call<T: Element>(
    options: &Options,
    op: Op,
    x: Option<ArrayViewD<T>>,
    y: ArrayViewMutD<T>,
    axis: isize,
) -> Result<(), Error> {
    fn call<T: Element, D: Dimension>(
        options: &Options,
        op: Op,
        x: Option<ArrayViewD<T>>,
        y: ArrayViewMutD<T>,
        axis: isize,
    ) -> Result<(), Error> {
        let x = x.map(|x| x.into_dimensionality::<D>().expect("as many"));
        let y = y.into_dimensionality::<D>().expect("as many");
        match (op, x) {
            (Op::Softmax, Some(x)) => options.softmax().softmax_array(x, y, axis),
            (Op::Softmax, None) => options.softmax().softmax_array_in_place(y, axis),
            (_, Some(x)) => options.softmax().log_softmax_array(x, y, axis),
            (_, None) => options.softmax().log_softmax_array_in_place(y, axis),
        }
    }
    match y.ndim() {
        1 => call::<T, Ix1>(options, op, x, y, axis),
        2 => call::<T, Ix2>(options, op, x, y, axis),
        3 => call::<T, Ix3>(options, op, x, y, axis),
        4 if axis < 0 => call::<T, Ix4>(options, op, x, y, axis),
        _ => call::<T, IxDyn>(options, op, x, y, axis),
    }
}

fn threads(n: usize) -> Threads {
    Threads::Exactly(NonZeroUsize::new(n).expect("not 0"))
}

/// The defaults, and options that are computed in other ways.
fn options() -> impl Strategy<Value = Options<'static>> {
    let cold = Caches::new(1, 0);
    prop::sample::select(vec![
        Options::new(),
        Options::new().threads(threads(2)).masked(Masked::Zero),
        Options::new().temperature(0.7).caches(cold),
    ])
}

proptest! {
    #![proptest_config(config(256, 32, 0x0a88_a700))]

    #[test]
    fn same_bits_f32(case in Case::any(), kind in 0..KINDS, options in options()) {
        case.check::<f32>(kind, &options);
    }

    #[test]
    fn same_bits_f64(case in Case::any(), kind in 0..KINDS, options in options()) {
        case.check::<f64>(kind, &options);
    }

    #[test]
    fn same_bits_f16(case in Case::any(), kind in 0..KINDS, options in options()) {
        case.check::<f16>(kind, &options);
    }

    #[test]
    fn same_bits_bf16(case in Case::any(), kind in 0..KINDS, options in options()) {
        case.check::<bf16>(kind, &options);
    }
}

/// Arrays that are cut into many tiles, and spread over threads.
#[test]
fn large_arrays() {
    let (c, f) = (Layout::standard, Layout::fortran);
    let cases: Vec<(Vec<usize>, Layout, Layout)> = vec![
        (vec![900, 700], c(2), f(2)),
        (vec![700, 900], f(2).gap(0, 3), f(2).gap(0, 3)),
        (vec![40, 9000], c(2).step(1, -1), c(2)),
        (vec![3, 200_000], f(2), c(2).gap(0, 2)),
        (vec![30_000, 11], c(2).gap(1, 5), c(2).gap(1, 5)),
        (vec![90, 80, 70], c(3).order([2, 1, 0]), c(3)),
        (vec![90, 80, 70], c(3).broadcast(0), c(3).step(1, -2)),
        (vec![30, 40, 20, 24], c(4).order([0, 2, 1, 3]), c(4)),
        (vec![30, 40, 20, 24], c(4).step(0, -1), c(4).step(0, -1).step(2, -1)),
    ];
    for (shape, x, y) in cases {
        for axis in 0..shape.len() {
            let case = Case { shape: shape.clone(), axis, x: x.clone(), y: y.clone() };
            case.check::<f32>(0, &Options::new().threads(Threads::Serial));
            case.check::<f16>(3, &Options::new().threads(threads(2)));
        }
    }
}

/// Lanes of which several exceed a tile; and a single one.
#[test]
fn long_lanes() {
    let case = |lanes, x, y| Case { shape: vec![3_000_000, lanes], axis: 0, x, y };
    let (c, f) = (Layout::standard(2), Layout::fortran(2));
    case(3, c.clone(), f.clone()).check::<f32>(0, &Options::new());
    case(3, c.clone(), c.clone().gap(1, 1)).check::<f16>(0, &Options::new().threads(threads(2)));
    case(1, c.clone().step(0, -1), c).check::<f64>(0, &Options::new().threads(threads(2)));
}

#[test]
fn views_that_overlap_themselves() {
    let logits: Vec<f32> = row(&mut Random(1), 0, 9);
    let windows = ArrayView::from_shape((5, 5).strides((1, 1)), &logits).expect("within");
    for axis in [0, 1] {
        let mut probs = Array2::zeros((5, 5));
        Options::new()
            .softmax()
            .softmax_array(windows, probs.view_mut(), axis)
            .expect("a valid call");
        for (k, probs) in probs.axis_iter(Axis(1 - axis as usize)).enumerate() {
            let want = run_row(&Options::new(), Op::Softmax, &logits[k..k + 5]);
            assert_same(&probs.to_vec(), &want, || format!("window {k}, axis {axis}"));
        }
    }
}

/// A lane is summed in its own order, not in that of memory. Only a rare row shows it: one whose
/// sum is next to a rounding boundary.
#[test]
fn a_reversed_axis_is_summed_in_its_order() {
    let mut random = Random(75_862);
    let lane: Vec<f32> = (0..4096).map(|_| (random.signed() * 15.0) as f32).collect();
    let reversed: Vec<f32> = lane.iter().rev().copied().collect();
    let want = run_row(&Options::new(), Op::Softmax, &lane);
    let mut other = run_row(&Options::new(), Op::Softmax, &reversed);
    other.reverse();
    assert_ne!(want, other, "a row of which the order counts is needed here");

    let x = Array1::from(reversed);
    let mut y = Array1::zeros(x.len());
    let (x, reversed) = (x.slice(s![..;-1]), y.slice_mut(s![..;-1]));
    Options::new().softmax().softmax_array(x, reversed, 0).expect("a valid call");
    y.invert_axis(Axis(0));
    assert_same(&y.to_vec(), &want, || "reversed".into());
}

#[test]
fn two_views_of_one_array() {
    let mut array = Array2::from_elem((3, 8), 1.0f64);
    let (left, right) = array.view_mut().split_at(Axis(1), 4);
    Options::new().softmax().softmax_array(left.view(), right, -1).expect("a valid call");
    assert_eq!(array.row(2).to_vec(), [1.0, 1.0, 1.0, 1.0, 0.25, 0.25, 0.25, 0.25]);
}

#[test]
fn empty_arrays() {
    let options = Options::new();
    for shape in [[0, 3, 2], [3, 0, 2], [3, 2, 0], [0, 0, 0]] {
        for axis in -3..3 {
            let x = Array3::<f32>::zeros(shape);
            let mut y = Array3::zeros(shape.f());
            options.softmax().softmax_array(x.view(), y.view_mut(), axis).expect("nothing to do");
            let y = y.slice_mut(s![..;-1, .., ..]);
            options.softmax().log_softmax_array_in_place(y, axis).expect("nothing to do");
        }
    }
}

#[test]
fn what_does_not_fit_is_named_and_nothing_is_written() {
    let options = Options::new();
    let x = Array2::<f32>::zeros((2, 3));
    let mut y = Array2::from_elem((3, 2), MARKER as f32);

    let e = options.softmax().softmax_array(x.view(), y.view_mut(), 0).expect_err("other shapes");
    assert!(matches!(e, Error::Shape { .. }));
    assert_eq!(e.to_string(), "the output must be [2, 3], got [3, 2]");
    let e =
        options.softmax().log_softmax_array(x.view(), y.view_mut(), 1).expect_err("other shapes");
    assert_eq!(e.to_string(), "the output must be [2, 3], got [3, 2]");

    for axis in [2, -3, isize::MAX, isize::MIN] {
        let e =
            options.softmax().softmax_array(x.t(), y.view_mut(), axis).expect_err("no such axis");
        assert_eq!(e.to_string(), format!("there is no axis {axis} in a tensor of 2 dimensions"));
        let e = options
            .softmax()
            .log_softmax_array_in_place(y.view_mut(), axis)
            .expect_err("no such axis");
        assert_eq!(e.to_string(), format!("there is no axis {axis} in a tensor of 2 dimensions"));
    }

    for kernel in softmax::kernels().iter().filter(|k| !k.is_available()) {
        let e = options.kernel(kernel).softmax().softmax_array(x.t(), y.view_mut(), 0);
        assert!(matches!(e, Err(Error::UnavailableKernel { .. })), "{e:?}");
    }
    assert_eq!(y, Array2::from_elem((3, 2), MARKER as f32));

    for axis in [0, -1] {
        let e = options.softmax().softmax_array(arr0(1.0f32).view(), arr0(2.0).view_mut(), axis);
        assert!(matches!(e, Err(Error::Axis { dims: 0, .. })), "{axis}: {e:?}");
    }
    let (dynamic, mut longer) = (ArrayD::<f32>::zeros(vec![2]), ArrayD::zeros(vec![2, 1]));
    let e =
        options.softmax().softmax_array(dynamic.view(), longer.view_mut(), 0).expect_err("2 x 1");
    assert_eq!(e.to_string(), "the output must be [2], got [2, 1]");
}

#[test]
fn options_count() {
    let x = Array1::from(vec![f64::NEG_INFINITY; 4]);
    let mut y = Array1::zeros(8);
    let options = Options::new().masked(Masked::Zero);
    options.softmax().softmax_array(x.view(), y.slice_mut(s![..;2]), 0).expect("a valid call");
    assert_eq!(y, Array1::<f64>::zeros(8));

    let x: ArrayView2<f64> = ArrayView::from_shape((1, 2), &[0.0, 2.0]).expect("2");
    let mut y = Array2::zeros((2, 1));
    let hot = options.temperature(2.0);
    hot.softmax().softmax_array(x.reversed_axes(), y.view_mut(), 0).expect("a valid call");
    let want = run_row(&options, Op::Softmax, &[0.0, 1.0]);
    assert_same(y.as_slice().expect("C order"), &want, || "hot".into());
}
