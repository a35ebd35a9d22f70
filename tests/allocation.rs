//! No call allocates after the first one of its thread and size.

mod common;
#[path = "common/counting.rs"]
mod counting;

use std::cell::RefCell;

use common::{Options, available, by, quick};
use counting::COUNT;
use softmax::half::bf16;
use softmax::{
    Attention, BitMask, Caches, DraftRows, Element, Executor, Kernel, Mask, Matrix, MatrixMut,
    Merged, Method, OnlineRow, Op, Order, Partial, Probs, Ragged, RaggedMut, Router, Sampler,
    Scoring, Shape, SpeculativeSampler, TargetRows, Threads, Ties,
};

fn view<T>(y: &mut [T], cols: usize) -> MatrixMut<'_, T> {
    MatrixMut::new(y, cols).expect("a shape")
}

/// Number of allocations of the second call.
fn second(mut call: impl FnMut()) -> usize {
    call();
    let before = COUNT.get();
    call();
    COUNT.get() - before
}

#[test]
fn the_counter_counts() {
    assert_eq!(second(|| drop(std::hint::black_box(vec![1u8]))), 1);
}

#[test]
fn rows() {
    for kernel in available().into_iter().filter(|k| k.name() != "scalar") {
        let options = Options::new().kernel(kernel).threads(Threads::Serial);
        let shapes = [(1, 16), (100, 10), (3, 1000), (2, 5000), (1, 200_000), (1, 1_000_000)];
        // The longest row takes minutes under an emulator, and long by the portable kernel; the one
        // before it is in pieces, too.
        let slow = quick() || kernel.name() == "portable";
        for (rows, cols) in shapes.into_iter().take(if slow { 5 } else { 6 }) {
            for last in [0, usize::MAX] {
                let options = options.caches(Caches::new(1 << 20, last));
                let x = vec![1.0f32; rows * cols];
                let mut y = vec![0.0f32; rows * cols];
                let weights = vec![0.5f32; cols];
                let count = second(|| {
                    let x = Matrix::new(&x, cols).expect("a shape");
                    options.softmax().softmax(x, view(&mut y, cols)).expect("a valid call");
                    options.softmax().log_softmax(x, view(&mut y, cols)).expect("a valid call");
                    options.softmax().softmax_in_place(view(&mut y, cols)).expect("a valid call");
                    changed(&options, x, &mut y, &weights);
                });
                assert_eq!(count, 0, "{} {rows} x {cols}", kernel.name());
            }
        }
    }
}

#[test]
fn rows_of_different_lengths() {
    let offsets: Vec<usize> = (0..=300).map(|i| i * 9 + i % 7 + i / 100 * 5000).collect();
    let x = vec![1.0f32; offsets[300]];
    let labels = vec![0i64; 300];
    for kernel in available().into_iter().filter(|k| k.name() != "scalar") {
        for scale in [1.0, -1.0] {
            let options = Options::new().kernel(kernel).threads(Threads::Serial).scale(scale);
            let [mut y, mut z] = [(); 2].map(|()| vec![0.0f32; x.len()]);
            let (mut lse, mut indices) = (vec![0.0f32; 300], vec![0; 300]);
            let count = second(|| {
                let x = Ragged::new(&x, &offsets).expect("rows of the slice");
                let softmax = options.softmax();
                softmax.softmax_ragged(x, &mut y).expect("a valid call");
                softmax.log_softmax_ragged(x, &mut y).expect("a valid call");
                softmax.logsumexp_ragged(x, &mut lse).expect("a valid call");
                options.hardmax(Ties::Share).argmax_ragged(x, &mut indices).expect("a valid call");
                options.cross_entropy().gradient_ragged(x, &labels, &mut y).expect("a valid call");
                options.backward().softmax_ragged(x, &y, &mut z).expect("a valid call");
                let y = RaggedMut::new(&mut y, &offsets).expect("rows of the slice");
                softmax.softmax_ragged_in_place(y).expect("a valid call");
            });
            assert_eq!(count, 0, "{} by {scale}", kernel.name());
        }
    }
}

/// Rows that are negated or masked, and weights of one row for all.
fn changed(options: &Options, x: Matrix<f32>, y: &mut [f32], weights: &[f32]) {
    let (rows, cols) = (x.rows(), x.cols());
    let negative = options.scale(-1.0);
    let masked = options.softmax().mask(weights);
    negative.softmax().softmax(x, view(y, cols)).expect("a valid call");
    negative.log_probs().log_probs(x, &[], &mut []).expect("a valid call");
    masked.softmax(x, view(y, cols)).expect("a valid call");
    masked.log_softmax(x, view(y, cols)).expect("a valid call");
    masked.logsumexp(x, &mut y[..rows]).expect("a valid call");
    masked.entropy(x, &mut y[..rows]).expect("a valid call");
    let (upstream, factors) = ([0.5; 100], [0.5; 100]);
    let gradient = view(y, cols);
    negative.softmax().entropy_backward(x, &upstream[..rows], gradient).expect("a valid call");
    masked.scales(&factors[..rows]).softmax(x, view(y, cols)).expect("a valid call");
    masked.logsumexp_weighted(x, weights, &mut y[..rows]).expect("a valid call");
    let words = [0xdead_beef];
    let bits = BitMask::new(&words).hidden_from(cols.min(32));
    let masked = options.softmax().mask(bits);
    masked.softmax(x, view(y, cols)).expect("a valid call");
    masked.log_softmax(x, view(y, cols)).expect("a valid call");
    masked.logsumexp(x, &mut y[..rows]).expect("a valid call");
    for of in [options.softmax(), negative.softmax(), masked] {
        of.kl_divergence(x, x, &mut y[..rows]).expect("a valid call");
        let gradient = Some(view(y, cols));
        of.kl_divergence_backward(x, x, &upstream[..rows], None, gradient).expect("a valid call");
    }
    options.log_probs().mask(bits).log_probs(x, &[], &mut []).expect("a valid call");
    options.top_k(0).mask(bits).indices(x, &mut []).expect("a valid call");
}

#[test]
fn attention() {
    let (heads, queries) = (2, 3);
    for kernel in available().into_iter().filter(|k| k.name() != "scalar") {
        for keys in [5, 300, 5000] {
            let x = vec![1.0f32; heads * queries * keys];
            let mut y = vec![0.0f32; x.len()];
            let mut lse = vec![0.0f32; heads * queries];
            let mask = vec![0.5f32; keys];
            let offsets = [keys as isize - 3];
            let plain = Attention::new(heads, queries).exec(by(kernel).threads(Threads::Serial));
            let biased = plain
                .mask(Mask::new(&mask[..], [1, 1, 1]))
                .alibi(&[0.5, 0.25])
                .sinks(&[1.0, 2.0])
                .soft_cap(30.0);
            for attention in [plain.causal(), biased.window(4), plain.causal().offsets(&offsets)] {
                let count = second(|| {
                    let x = Matrix::new(&x, keys).expect("a shape");
                    attention
                        .softmax_and_logsumexp(x, view(&mut y, keys), &mut lse)
                        .expect("a valid call");
                });
                assert_eq!(count, 0, "{} {keys} keys", kernel.name());
            }
        }
    }
}

#[test]
fn tiles() {
    for kernel in available().into_iter().filter(|k| k.name() != "scalar") {
        let x = vec![1.0f32; 6 * 300];
        let (mut y, mut states) = (vec![bf16::ZERO; x.len()], [OnlineRow::NEW; 6]);
        let (mut factors, mut reciprocals) = ([0.0; 6], [0.0; 6]);
        let attention = Attention::new(2, 3).exec(by(kernel));
        for attention in [attention.causal(), attention.soft_cap(3.0), attention.scale(-1.0)] {
            let online = attention.online(6, 5000);
            let count = second(|| {
                let x = Matrix::new(&x, 300).expect("a shape");
                online
                    .tile((0, 777), x, view(&mut y, 300), &mut states, &mut factors)
                    .expect("a valid tile");
                online.finish(0, &states, &mut reciprocals, None).expect("valid rows");
            });
            assert_eq!(count, 0, "{}", kernel.name());
        }
    }
}

#[test]
fn axes() {
    for kernel in available().into_iter().filter(|k| k.name() != "scalar") {
        let options = Options::new().kernel(kernel).threads(Threads::Serial);
        for shape in [[3, 5, 7], [2, 100, 40], [1, 5000, 17]] {
            for last in [0, usize::MAX] {
                let options = options.caches(Caches::new(1 << 20, last));
                let x = vec![1.0f32; shape.iter().product()];
                let mut y = x.clone();
                let count = second(|| {
                    options.softmax().softmax_axis(&x, &mut y, &shape, 1).expect("a valid call");
                    options
                        .softmax()
                        .log_softmax_axis(&x, &mut y, &shape, 1)
                        .expect("a valid call");
                    options
                        .softmax()
                        .softmax_axis_in_place(&mut y, &shape, 1)
                        .expect("a valid call");
                    along_by_rows(&options, &x, &mut y, shape);
                });
                assert_eq!(count, 0, "{} {shape:?}", kernel.name());
            }
        }
    }
}

/// What is turned round, rows of f32.
fn along_by_rows(options: &Options, x: &[f32], y: &mut [f32], shape: [usize; 3]) {
    thread_local! {
        static ROOM: RefCell<(Vec<usize>, Vec<i64>, Vec<f64>)> = const {
            RefCell::new((Vec::new(), Vec::new(), Vec::new()))
        };
    }
    let [outer, len, inner] = shape;
    let n = outer * inner;
    ROOM.with_borrow_mut(|(indices, labels, losses)| {
        indices.resize(n, 0);
        labels.resize(n, 0);
        losses.resize(n, 0.0);
        options.softmax().logsumexp_axis(x, &mut y[..n], &shape, 1).expect("a valid call");
        let cold = options.softmax().temperature(0.0);
        cold.softmax_axis_in_place(y, &shape, 1).expect("a valid call");
        let hardmax = options.hardmax(Ties::First);
        hardmax.hardmax_axis(x, y, &shape, 1).expect("a valid call");
        hardmax.argmax_axis(x, indices, &shape, 1).expect("a valid call");
        let top = options.top_k(1);
        top.probs_axis(x, &mut y[..n], indices, &shape, 1).expect("a valid call");
        let loss = options.cross_entropy();
        loss.losses_and_gradient_axis(x, &*labels, losses, y, &shape, 1).expect("a valid call");
        let view = ndarray::ArrayView::from_shape(shape, x).expect("a shape");
        let y = ndarray::ArrayViewMut::from_shape([inner, len, outer], y).expect("a shape");
        hardmax.hardmax_array(view, y.reversed_axes(), 1).expect("a valid call");
    });
}

#[test]
fn shards() {
    for kernel in available().into_iter().filter(|k| k.name() != "scalar") {
        for scale in [1.0, -1.0] {
            let shards = Options::new().kernel(kernel).scale(scale).shards();
            let x = vec![1.0f32; 300_000];
            let mut y = x.clone();
            let mut partials = vec![Partial::NOTHING; Partial::count(x.len())];
            let count = second(|| {
                shards.partials(&x, None, &mut partials).expect("a valid shard");
                let merged = shards.merge::<f32>(&partials).expect("a valid kernel");
                let Merged::Row(row) = merged else { panic!("{merged:?} of ordinary logits") };
                shards.softmax(&row, &x, &mut y).expect("a valid shard");
                shards.log_softmax_in_place(&row, &mut y).expect("a valid shard");
            });
            assert_eq!(count, 0, "{} by {scale}", kernel.name());
        }
    }
}

#[test]
fn losses() {
    for kernel in available().into_iter().filter(|k| k.name() != "scalar") {
        let options = Options::new().kernel(kernel).threads(Threads::Serial);
        for (rows, cols) in [(3, 10), (2, 5000)] {
            let x = vec![1.0f32; rows * cols];
            let (labels, weights) = (vec![1; rows], vec![0.5f32; cols]);
            let (mut y, mut losses) = (x.clone(), vec![0.0; rows]);
            let plain = options.cross_entropy();
            let smooth = plain.label_smoothing(0.1).weights(&weights);
            let count = second(|| {
                let view = || Matrix::new(&x, cols).expect("whole rows");
                for loss in [plain, smooth] {
                    let to = MatrixMut::new(&mut y, cols).expect("whole rows");
                    loss.gradient(view(), &labels, to).expect("a valid call");
                    let to = MatrixMut::new(&mut y, cols).expect("whole rows");
                    loss.gradient_in_place(to, view()).expect("a valid call");
                    loss.loss(view(), &labels).expect("a valid call");
                    loss.losses(view(), view(), &mut losses).expect("a valid call");
                }
                let to = MatrixMut::new(&mut y, cols).expect("whole rows");
                options.backward().softmax(view(), view(), to).expect("a valid call");
            });
            assert_eq!(count, 0, "{} {rows} x {cols}", kernel.name());
        }
    }
}

#[test]
fn routers() {
    for kernel in available().into_iter().filter(|k| k.name() != "scalar") {
        let exec = by(kernel).threads(Threads::Serial);
        for (rows, cols) in [(1, 16), (500, 64), (40, 256)] {
            let x: Vec<f32> = (0..rows * cols).map(|i| (i * 7 % 1001) as f32).collect();
            let bias = vec![0.25; cols];
            let (mut weights, mut experts) = (vec![0.0f32; rows * 4], vec![0; rows * 4]);
            let plain = Router::new(4).exec(exec);
            let grouped = plain.scoring(Scoring::Sigmoid).bias(&bias).groups(4, 2);
            for router in [plain, plain.renormalize(true), grouped.renormalize(true)] {
                let count = second(|| {
                    let x = Matrix::new(&x, cols).expect("a shape");
                    router.route(x, &mut weights, &mut experts).expect("a valid call");
                });
                assert_eq!(count, 0, "{} {rows} x {cols}", kernel.name());
            }
        }
    }
}

#[test]
fn speculative() {
    for kernel in available().into_iter().filter(|k| k.name() != "scalar") {
        for cols in [5usize, 5000, 100_000] {
            let x: Vec<f32> = (0..5 * cols).map(|i| ((i * 7919) % 10_007) as f32 * 1e-3).collect();
            let drafted = Ragged::new(&[1, 0, 4], &[0usize, 2, 3]).expect("offsets");
            let sampler = SpeculativeSampler::new(1).exec(by(kernel).threads(Threads::Serial));
            let infinite = sampler.temperature(f64::INFINITY);
            for sampler in [sampler, sampler.temperature(0.0), infinite] {
                let (mut tokens, mut accepted) = ([0; 5], [0; 2]);
                let count = second(|| {
                    let target = TargetRows::Logits(Matrix::new(&x, cols).expect("rows"));
                    let draft = Matrix::new(&x[..3 * cols], cols).expect("rows");
                    for draft in [DraftRows::Logits(draft), DraftRows::OneHot] {
                        let done =
                            sampler.verify(target, draft, drafted, &mut tokens, &mut accepted);
                        done.expect("a valid call");
                    }
                });
                assert_eq!(count, 0, "{} {cols} {sampler:?}", kernel.name());
            }
        }
    }
}

#[test]
fn decisions() {
    for kernel in available().into_iter().filter(|k| k.name() != "scalar") {
        let options = Options::new().kernel(kernel).threads(Threads::Serial);
        for (rows, cols) in [(1, 16), (100, 10), (2, 5000), (1, 300_000)] {
            for last in [0, usize::MAX] {
                let options = options.caches(Caches::new(1 << 20, last));
                let x: Vec<f32> = (0..rows * cols).map(|i| (i * 7 % 1001) as f32).collect();
                let mut y = x.clone();
                let mut indices = vec![0; rows * 10];
                let mut log_probs = vec![0.0f32; rows * 10];
                let count = second(|| {
                    let x = Matrix::new(&x, cols).expect("a shape");
                    options.sigmoid().sigmoid(x, view(&mut y, cols)).expect("a valid call");
                    options
                        .sigmoid()
                        .log_sigmoid_in_place(view(&mut y, cols))
                        .expect("a valid call");
                    options
                        .hardmax(Ties::Share)
                        .hardmax(x, view(&mut y, cols))
                        .expect("a valid call");
                    options
                        .hardmax(Ties::First)
                        .hardmax_in_place(view(&mut y, cols))
                        .expect("a valid call");
                    options
                        .top_k(10)
                        .log_probs(x, &mut log_probs, &mut indices)
                        .expect("a valid call");
                    options.top_k(10).indices(x, &mut indices).expect("a valid call");
                    options
                        .hardmax(Ties::Share)
                        .argmax(x, &mut indices[..rows])
                        .expect("a valid call");
                    options
                        .log_probs()
                        .log_probs(x, &indices[..rows], &mut log_probs[..rows])
                        .expect("a valid call");
                });
                assert_eq!(count, 0, "{} {rows} x {cols}", kernel.name());
            }
        }
    }
}

#[test]
fn sampling() {
    let history: &[&[usize]] = &[&[1, 2, 2]];
    let (words, bools) = (vec![0x5555_5555; 100_000 / 32], vec![true; 100_000]);
    for kernel in available().into_iter() {
        for cols in [5usize, 5000, 100_000] {
            // Elements of different sizes, some of them equal.
            let x: Vec<f32> = (0..2 * cols).map(|i| ((i * 7919) % 10_007) as f32 * 1e-3).collect();
            let plain = Sampler::new(1).exec(by(kernel).threads(Threads::Serial));
            let samplers = [
                plain,
                plain.temperature(0.0),
                plain.top_p(0.9).method(Method::GumbelMax),
                plain.top_k(30_000).top_p(0.9).min_p(0.01),
                plain.top_k(40).typical_p(0.9).order(Order::LlamaCpp).temperature(0.7),
                plain.history(history).repetition_penalty(1.1).bias(&[(3, 1.0)]),
                plain.mask(BitMask::new(&words[..cols.div_ceil(32)])),
                plain.mask(&bools[..cols]),
            ];
            for sampler in samplers {
                let mut draws = [0; 6];
                let count = second(|| {
                    let x = Matrix::new(&x, cols).expect("a shape");
                    sampler.sample(x, &mut draws).expect("a valid call");
                });
                assert_eq!(count, 0, "{} {cols} {sampler:?}", kernel.name());
                // The reference of softmax does.
                if kernel.name() == "scalar" {
                    continue;
                }
                let (mut tokens, mut probs) = (vec![0; 2 * cols], vec![0.0f32; 2 * cols]);
                let mut counts = [0; 2];
                let count = second(|| {
                    let x = Matrix::new(&x, cols).expect("a shape");
                    let done = sampler.kept_probs(x, &mut tokens, &mut probs, &mut counts);
                    done.expect("there is room");
                    let out = MatrixMut::new(&mut probs, cols).expect("a shape");
                    sampler.filtered_log_probs(x, out).expect("a valid call");
                });
                assert_eq!(count, 0, "{} {cols} {sampler:?}, what is left", kernel.name());
            }
        }
    }
}

/// An executor on the calling thread, whose allocations are counted.
struct Alone;

impl Executor for Alone {
    fn threads(&self) -> usize {
        3
    }

    fn parallel_for(&self, count: usize, body: &(dyn Fn(usize) + Sync)) {
        (0..count).for_each(body);
    }
}

/// Number of allocations of a call on a thread that has no memory yet, in lent memory of the
/// promised size.
fn lent(size: usize, call: impl FnOnce() + Send) -> usize {
    // At an unaligned address.
    let mut memory = vec![0; size + 1];
    std::thread::scope(|scope| {
        let counted = scope.spawn(|| {
            softmax::with_scratch(&mut memory[1..], || {
                let before = COUNT.get();
                call();
                COUNT.get() - before
            })
        });
        counted.join().expect("no panic")
    })
}

fn in_lent_memory<T: Element + Probs<T>>(kernel: &'static Kernel, rows: usize, cols: usize) {
    let x: Vec<T> = (0..rows * cols).map(|i| T::from_f64((i * 7919 % 100) as f64 / 10.0)).collect();
    let x = Matrix::new(&x, cols).expect("a shape");
    let three = Threads::Exactly(3.try_into().expect("not 0"));
    for (threads, last) in [(Threads::Serial, usize::MAX), (three, usize::MAX), (three, 0)] {
        let caches = Caches::new(1 << 20, last);
        let options = Options::new().kernel(kernel).threads(threads).caches(caches);
        let options = options.executor(&Alone);
        let what = format!("{} {} {rows} x {cols} {threads:?}", kernel.name(), T::NAME);
        let mut y = vec![T::ZERO; rows * cols];
        let (y, shape) = (&mut y[..], Shape::from(&x));
        for op in [Op::Softmax, Op::LogSoftmax] {
            let size = options.exec.scratch_size::<T>(op, shape).expect("a size");
            let y = MatrixMut::new(&mut *y, cols).expect("a shape");
            let count = lent(size, || match op {
                Op::Softmax => options.softmax().softmax(x, y).expect("a valid call"),
                _ => options.softmax().log_softmax(x, y).expect("a valid call"),
            });
            assert_eq!(count, 0, "{what} {op:?}");
        }
        let size = options.exec.scratch_size::<T>(Op::Softmax, shape.in_place()).expect("a size");
        let count = lent(size, || {
            let y = MatrixMut::new(&mut *y, cols).expect("a shape");
            options.softmax().softmax_in_place(y).expect("a valid call");
        });
        assert_eq!(count, 0, "{what} in place");
        for shape in [[1, cols, rows], [rows, 1, cols], [1, rows, cols]] {
            let size = options.exec.axis_scratch_size::<T>(&shape, 1).expect("a size");
            let count = lent(size, || {
                options.softmax().softmax_axis_in_place(y, &shape, 1).expect("a valid call");
                options.softmax().log_softmax_axis_in_place(y, &shape, 1).expect("a valid call");
                let [outer, len, inner] = shape;
                let x = x.into_slice().expect("no padding");
                let one = &mut y[..outer * inner];
                assert_eq!(x.len(), one.len() * len);
                options.softmax().logsumexp_axis(x, one, &shape, 1).expect("a valid call");
                let hardmax = options.hardmax(Ties::First);
                hardmax.hardmax_axis(x, y, &shape, 1).expect("a valid call");
            });
            assert_eq!(count, 0, "{what} {shape:?}");
        }
        for scale in [1.0, -1.0] {
            let attention = options.scale(scale).attention(1, rows);
            let size = attention.scratch_size::<T, T>(shape).expect("a size");
            let count = lent(size, || {
                let y = MatrixMut::new(&mut *y, cols).expect("a shape");
                attention.causal().alibi(&[0.5]).softmax(x, y).expect("a valid call");
            });
            assert_eq!(count, 0, "{what} attention by {scale}");
        }
        let loss = options.cross_entropy();
        let (labels, size) = (vec![0; rows], loss.scratch_size::<T>(shape).expect("a size"));
        let count = lent(size, || {
            let y = MatrixMut::new(&mut *y, cols).expect("a shape");
            loss.loss(x, &labels).expect("a valid call");
            loss.gradient(x, &labels, y).expect("a valid call");
        });
        assert_eq!(count, 0, "{what} loss");
        let (history, mut draws): (&[&[usize]], _) = (&[&[1, 2, 2]], vec![0; rows]);
        let plain = options.sampler(1);
        let typical = plain.typical_p(0.9).temperature(0.7);
        let typical = typical.top_k(40).order(Order::LlamaCpp).bias(&[(0, 1.0)]);
        let biased = typical.history(history).presence_penalty(0.1);
        for sampler in [plain, plain.top_k(7), typical, biased] {
            let size = sampler.scratch_size::<T>(shape).expect("a size");
            let count = lent(size, || sampler.sample(x, &mut draws).expect("a valid call"));
            assert_eq!(count, 0, "{what} {sampler:?}");
            let (mut tokens, mut counts) = (vec![0; rows * cols], vec![0; rows]);
            let mut probs = vec![T::Arithmetic::ZERO; rows * cols];
            let count = lent(size, || {
                let done = sampler.kept_log_probs(x, &mut tokens, &mut probs, &mut counts);
                done.expect("there is room");
                let out = MatrixMut::new(&mut probs, cols).expect("a shape");
                sampler.filtered_probs(x, out).expect("a valid call");
            });
            assert_eq!(count, 0, "{what} {sampler:?}, what is left");
        }
        let offsets: Vec<usize> = (0..=rows / 2).collect();
        let drafted = vec![3; rows / 2];
        let sampler = SpeculativeSampler::new(1).exec(options.exec);
        let even = x.split_rows(rows / 2 * 2).0;
        let draft = x.split_rows(rows / 2).0;
        let size = sampler.scratch_size::<T>(Shape::from(&even)).expect("a size");
        let mut accepted = vec![0; rows / 2];
        let mut places = vec![0; rows / 2 * 2];
        let count = lent(size, || {
            let drafted = Ragged::new(&drafted, &offsets).expect("offsets");
            let (target, draft) = (TargetRows::Logits(even), DraftRows::Logits(draft));
            let done = sampler.verify(target, draft, drafted, &mut places, &mut accepted);
            done.expect("a valid call");
        });
        assert_eq!(count, 0, "{what} speculative");
        let bias = vec![0.25; cols];
        let router = Router::new(5).exec(options.exec);
        let biased = router.scoring(Scoring::Sigmoid).bias(&bias).renormalize(true);
        for router in [router, router.renormalize(true), biased, biased.groups(2, 1)] {
            if cols > 4096 {
                break;
            }
            let size = router.scratch_size::<T>(shape).expect("a size");
            let (mut weights, mut experts) =
                (vec![T::Arithmetic::ZERO; 5 * rows], vec![0; 5 * rows]);
            let count = lent(size, || {
                router.route(x, &mut weights, &mut experts).expect("a valid call");
            });
            assert_eq!(count, 0, "{what} router");
        }
        let top_k = options.top_k(5);
        let size = top_k.scratch_size::<T>(shape).expect("a size");
        let mut indices = vec![0; 5 * rows];
        let count = lent(size, || top_k.indices(x, &mut indices).expect("a valid call"));
        assert_eq!(count, 0, "{what} top-k");
    }
}

#[test]
fn nothing_with_lent_memory() {
    for kernel in available().into_iter().filter(|k| k.name() != "scalar") {
        for (rows, cols) in [(7, 10), (7, 1000), (4, 5000), (1, 200_000)] {
            // The largest takes minutes under an emulator, and long by the portable kernel.
            if cols > 5000 && (quick() || kernel.name() == "portable") {
                continue;
            }
            in_lent_memory::<f32>(kernel, rows, cols);
            in_lent_memory::<f64>(kernel, rows, cols);
            in_lent_memory::<bf16>(kernel, rows, cols);
        }
    }
}

#[test]
fn lent_memory_that_is_too_small_does_no_harm() {
    let x = vec![1.0f32; 5000];
    let x = Matrix::new(&x, 5000).expect("a shape");
    let mut draws = [0];
    for size in [0, 1, 64, 1000, 30_000] {
        let count = lent(size, || Sampler::new(1).sample(x, &mut draws).expect("a valid call"));
        assert!(count > 0 && draws[0] < 5000, "{size} bytes are less than it needs");
    }
}
