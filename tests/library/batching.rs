//! Rows spread over threads have the bits of one thread, and small calls use no other thread.

use std::num::NonZeroUsize;

use crate::common::*;
use softmax::half::{bf16, f16};
use softmax::{Element, Executor, Masked, Matrix, MatrixMut, Threads};

fn at_most(n: usize) -> Threads {
    Threads::AtMost(NonZeroUsize::new(n).expect("at least one thread"))
}

fn exactly(n: usize) -> Threads {
    Threads::Exactly(NonZeroUsize::new(n).expect("at least one thread"))
}

/// Pools besides rayon's global one, made once.
#[cfg(feature = "rayon")]
static POOLS: std::sync::LazyLock<Vec<rayon::ThreadPool>> = std::sync::LazyLock::new(|| {
    let pool = |n| rayon::ThreadPoolBuilder::new().num_threads(n).build().expect("a pool");
    [1, 2, 3, 8].map(pool).into()
});

/// Executors that call bodies in different ways.
enum Caller {
    /// On new threads.
    Scoped(usize),
    /// One after another, the last first.
    Backwards(usize),
    /// Only every other call, twice.
    Careless(usize),
    /// No calls at all.
    Idle(usize),
}

impl Executor for Caller {
    fn threads(&self) -> usize {
        match *self {
            Self::Scoped(n) | Self::Backwards(n) | Self::Careless(n) | Self::Idle(n) => n,
        }
    }

    fn parallel_for(&self, count: usize, body: &(dyn Fn(usize) + Sync)) {
        assert!((2..=self.threads()).contains(&count), "{count} calls of a body");
        match self {
            Self::Scoped(_) => std::thread::scope(|scope| {
                (0..count).for_each(|i| drop(scope.spawn(move || body(i))));
            }),
            Self::Backwards(_) => (0..count).rev().for_each(body),
            Self::Careless(_) => {
                (0..count).step_by(2).for_each(|i| [i, i].into_iter().for_each(body))
            }
            Self::Idle(_) => {}
        }
    }
}

/// Checks that `call` gives the bits of one thread, however rows are shared.
fn every_way<T: Bits>(what: &str, call: impl Fn(&Options) -> Vec<T> + Sync) {
    let options = Options::new().masked(Masked::Zero);
    let want = call(&options.threads(Threads::Serial));
    for threads in [Threads::Auto, at_most(2), at_most(8), exactly(2), exactly(5)] {
        let got = call(&options.threads(threads));
        assert_same(&got, &want, || format!("{what}, {threads:?}"));
    }
    let callers = [
        (Caller::Scoped(3), exactly(3)),
        (Caller::Scoped(2), Threads::Auto),
        (Caller::Backwards(7), exactly(5)),
        (Caller::Careless(4), exactly(9)),
        (Caller::Idle(2), at_most(8)),
        (Caller::Idle(0), exactly(2)),
    ];
    for (i, (caller, threads)) in callers.iter().enumerate() {
        let got = call(&options.threads(*threads).executor(caller));
        assert_same(&got, &want, || format!("{what}, {threads:?} of executor {i}"));
    }
    #[cfg(feature = "rayon")]
    for (pool, threads) in POOLS.iter().zip([Threads::Auto, exactly(2), at_most(2), exactly(7)]) {
        let got = call(&options.threads(threads).executor(pool));
        let n = pool.current_num_threads();
        assert_same(&got, &want, || format!("{what}, {threads:?} of an executor of {n}"));
    }
    #[cfg(feature = "rayon")]
    for (pool, threads) in POOLS.iter().zip([Threads::Auto, exactly(2), at_most(2), exactly(7)]) {
        let got = pool.install(|| call(&options.threads(threads)));
        assert_same(&got, &want, || {
            format!("{what}, {threads:?} in a pool of {}", pool.current_num_threads())
        });
    }
}

fn in_place<T: Element>(options: &Options, op: Op, data: &[T], cols: usize) -> Vec<T> {
    let mut y = data.to_vec();
    run_in_place(options, op, MatrixMut::new(&mut y, cols).expect("whole rows"));
    y
}

fn sharing<T: Bits>(rows: usize, cols: usize, gap: usize, ops: &[Op]) {
    let stride = cols + gap;
    let mut random = Random(6);
    let data: Vec<T> = (0..rows).flat_map(|r| row::<T>(&mut random, r % KINDS, stride)).collect();
    for &op in ops {
        let what = format!("{} {op:?} of {rows} x {cols}, stride {stride}", T::NAME);
        every_way(&what, |options| {
            run(options, op, Matrix::with_stride(&data, rows, cols, stride).expect("fits"))
        });
        if op != Op::LogSumExp {
            every_way(&format!("{what}, in place"), |options| in_place(options, op, &data, stride));
        }
    }
}

#[test]
fn sharing_a_matrix_keeps_its_bits() {
    // Enough work for two threads, in rows that do not divide evenly.
    sharing::<f32>(191, 777, 5, &OPS);
    sharing::<f64>(191, 777, 5, &[Op::Softmax]);
    sharing::<f16>(191, 777, 5, &[Op::LogSumExp]);
    sharing::<bf16>(191, 777, 5, &[Op::LogSoftmax]);
}

/// The most rows take no time if they are empty, the most columns no memory, and the most threads
/// are not more than the work.
#[test]
fn sizes_may_be_any() {
    struct Endless;
    impl softmax::Executor for Endless {
        fn threads(&self) -> usize {
            usize::MAX
        }
        fn parallel_for(&self, count: usize, body: &(dyn Fn(usize) + Sync)) {
            (0..count).for_each(body);
        }
    }
    for kernel in available() {
        let options = Options::new().kernel(kernel).executor(&Endless).threads(exactly(usize::MAX));
        for (rows, cols) in [(usize::MAX, 0), (0, usize::MAX)] {
            let x = Matrix::<f32>::with_stride(&[], rows, cols, cols).expect("no elements");
            let y = || MatrixMut::with_stride(&mut [], rows, cols, cols).expect("no elements");
            options.softmax().softmax(x, y()).expect("a valid call");
            options.softmax().log_softmax_in_place(y()).expect("a valid call");
            options.backward().softmax(x, x, y()).expect("a valid call");
            options.log_probs().log_probs(x, &[], &mut []).expect("a valid call");
            let attention = options.attention(1, 1);
            attention.softmax(x, y()).expect("a valid call");
        }
        let wide = MatrixMut::with_stride(&mut [], 0, usize::MAX, usize::MAX).expect("no rows");
        let loss = options.cross_entropy();
        let labels: &[i64] = &[];
        assert!(loss.gradient_in_place::<f32>(wide, labels).expect("a valid call").is_nan());
        let shape = [0, usize::MAX, 2];
        options.softmax().softmax_axis::<f32>(&[], &mut [], &shape, 1).expect("a valid call");
        let mut x = [1.0f32; 12];
        options
            .softmax()
            .softmax_in_place(MatrixMut::new(&mut x, 2).expect("6 rows"))
            .expect("a valid call");
        assert_eq!(x, [0.5; 12]);
    }
}

#[test]
fn sharing_odd_shapes_keeps_their_bits() {
    // Fewer rows than threads, a single one, and many tiny ones.
    sharing::<f32>(3, 50_001, 1, &[Op::Softmax]);
    sharing::<f32>(1, 150_000, 0, &[Op::LogSumExp]);
    sharing::<f32>(65_537, 2, 0, &[Op::LogSumExp]);
}

/// Callers may have parallel loops of their own, with calls inside that are large enough to be
/// shared.
#[cfg(feature = "rayon")]
#[test]
fn a_call_from_a_parallel_loop_keeps_its_bits() {
    use rayon::prelude::*;
    let cols = 700;
    let x: Vec<f32> = row(&mut Random(7), 0, 200 * cols);
    let call = |threads| {
        let options = Options::new().threads(threads);
        run(&options, Op::Softmax, Matrix::new(&x, cols).expect("whole rows"))
    };
    let want = call(Threads::Serial);
    for (pool, threads) in POOLS.iter().flat_map(|pool| [(pool, Threads::Auto), (pool, exactly(3))])
    {
        let results: Vec<_> =
            pool.install(|| (0..6).into_par_iter().map(|_| call(threads)).collect());
        for got in results {
            let n = pool.current_num_threads();
            assert_same(&got, &want, || format!("{threads:?} in a pool of {n}"));
        }
    }
}

/// A limit of two threads holds even if the pool has more and there are more parts.
#[cfg(feature = "rayon")]
#[test]
fn a_limit_of_threads_is_kept() {
    use std::sync::Mutex;
    use std::thread::{ThreadId, current};

    /// Notes the threads that work.
    struct Noting<'a>(&'a rayon::ThreadPool, Mutex<Vec<ThreadId>>);

    impl Executor for Noting<'_> {
        fn threads(&self) -> usize {
            self.0.current_num_threads()
        }

        fn parallel_for(&self, count: usize, body: &(dyn Fn(usize) + Sync)) {
            self.0.parallel_for(count, &|i| {
                self.1.lock().expect("no panic").push(current().id());
                body(i);
            });
        }
    }

    let pool = POOLS.iter().find(|pool| pool.current_num_threads() == 8).expect("it is there");
    let noting = Noting(pool, Mutex::default());
    let mut x = vec![1.0f32; 1 << 20];
    let options = Options::new().threads(at_most(2)).executor(&noting);
    options
        .softmax()
        .softmax_in_place(MatrixMut::new(&mut x, 1024).expect("whole rows"))
        .expect("a call");
    assert_eq!(noting.1.into_inner().expect("no panic").len(), 2);
}

/// The calls, of which the child below makes one: rows of 1,000, and the threads allowed.
const CALLS: [(&str, usize, Threads); 4] = [
    ("small", 100, Threads::Auto),
    ("large", 300, Threads::Auto),
    ("large, serial", 300, Threads::Serial),
    ("large, at most one", 300, Threads::AtMost(NonZeroUsize::MIN)),
];

#[cfg(target_os = "linux")]
#[test]
#[ignore = "run by the test below, in a process of its own"]
fn child_counts_the_threads_that_a_call_starts() {
    let count = || std::fs::read_dir("/proc/self/task").expect("Linux's list of threads").count();
    let name = std::env::var("SOFTMAX_TEST_CALL").expect("the name of a call");
    let (_, rows, threads) = CALLS.into_iter().find(|call| call.0 == name).expect("a call");
    let mut x = vec![1.0f32; rows * 1000];
    let before = count();
    let options = Options::new().threads(threads);
    options
        .softmax()
        .softmax_in_place(MatrixMut::new(&mut x, 1000).expect("whole rows"))
        .expect("a call");
    println!("threads started: {}.", count() - before);
}

/// rayon's global pool starts its threads when it is first used, and keeps them, so each call needs
/// a process of its own. The large call shows that its threads are counted.
#[cfg(target_os = "linux")]
#[test]
fn only_a_call_that_is_worth_it_starts_threads() {
    for (name, ..) in CALLS {
        let output = itself()
            .args(["--exact", "natively::batching::child_counts_the_threads_that_a_call_starts"])
            .args(["--ignored", "--nocapture"])
            .env("SOFTMAX_TEST_CALL", name)
            .env("RAYON_NUM_THREADS", "3")
            .output()
            .expect("the test binary runs");
        let started = if name == "large" && cfg!(feature = "rayon") { 3 } else { 0 };
        let text = String::from_utf8_lossy(&output.stdout);
        let want = format!("threads started: {started}.");
        assert!(text.contains(&want), "{name}: not {want:?} but {output:?}");
    }
}
