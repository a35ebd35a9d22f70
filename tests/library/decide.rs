//! Sigmoid, hardmax, argmax, log-probabilities of tokens, top-k, and the limits of the temperature.

use crate::common::*;
use proptest::prelude::*;
use softmax::half::{bf16, f16};
use softmax::{Caches, Element, Error, Kernel, Masked, Matrix, MatrixMut, Number, Threads, Ties};
use softmax_measure::oracle::{self, BF16, Dd, F16, F32, F64, Format, ulps};
use std::num::NonZeroUsize;

/// Lengths around the vectors of every type, the unrolled loops, the blocks.
const LENGTHS: [usize; 17] =
    [1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 64, 65, 127, 300, 4096, 4097, 9000];

/// Elementwise and one-hot operations.
#[derive(Clone, Copy, Debug)]
enum Map {
    Sigmoid,
    LogSigmoid,
    Hardmax(Ties),
    /// Softmax or, if `true`, log-softmax at a temperature of 0 or infinity.
    Limit(f64, bool),
}

const MAPS: [Map; 8] = [
    Map::Sigmoid,
    Map::LogSigmoid,
    Map::Hardmax(Ties::Share),
    Map::Hardmax(Ties::First),
    Map::Limit(0.0, false),
    Map::Limit(0.0, true),
    Map::Limit(f64::INFINITY, false),
    Map::Limit(f64::INFINITY, true),
];

impl Map {
    fn run<T: Element>(
        self,
        options: &Options,
        x: Matrix<T>,
        y: MatrixMut<T>,
    ) -> Result<(), Error> {
        match self {
            Map::Sigmoid => options.sigmoid().sigmoid(x, y),
            Map::LogSigmoid => options.sigmoid().log_sigmoid(x, y),
            Map::Hardmax(ties) => options.hardmax(ties).hardmax(x, y),
            Map::Limit(t, false) => options.temperature(t).softmax().softmax(x, y),
            Map::Limit(t, true) => options.temperature(t).softmax().log_softmax(x, y),
        }
    }

    fn run_in_place<T: Element>(self, options: &Options, x: MatrixMut<T>) -> Result<(), Error> {
        match self {
            Map::Sigmoid => options.sigmoid().sigmoid_in_place(x),
            Map::LogSigmoid => options.sigmoid().log_sigmoid_in_place(x),
            Map::Hardmax(ties) => options.hardmax(ties).hardmax_in_place(x),
            Map::Limit(t, false) => options.temperature(t).softmax().softmax_in_place(x),
            Map::Limit(t, true) => options.temperature(t).softmax().log_softmax_in_place(x),
        }
    }
}

fn map_row<T: Element>(map: Map, options: &Options, x: &[T]) -> Vec<T> {
    let mut y = vec![T::from_f64(-77.0); x.len()];
    let (n, view) = (x.len(), Matrix::with_stride(x, 1, x.len(), x.len()).expect("one row"));
    let out = MatrixMut::with_stride(&mut y, 1, n, n).expect("one row");
    map.run(options, view, out).expect("a valid call");
    y
}

/// All results that are picked from rows of `cols` elements.
#[derive(Debug)]
struct Picked<A> {
    largest: Vec<usize>,
    top: Vec<usize>,
    top_log_probs: Vec<A>,
    top_probs: Vec<A>,
    log_probs: Vec<A>,
    lse: Vec<A>,
}

impl<A: Bits> Picked<A> {
    fn assert_same(&self, other: &Self, what: &str) {
        assert_eq!(self.largest, other.largest, "{what}: argmax");
        assert_eq!(self.top, other.top, "{what}: top-k");
        assert_same(&self.top_log_probs, &other.top_log_probs, || format!("{what}: top-k"));
        assert_same(&self.top_probs, &other.top_probs, || format!("{what}: probs of top-k"));
        assert_same(&self.log_probs, &other.log_probs, || format!("{what}: log-probs"));
        assert_same(&self.lse, &other.lse, || format!("{what}: lse"));
    }
}

fn pick<T: Element>(
    options: &Options,
    x: Matrix<T>,
    k: usize,
    tokens: &[usize],
) -> Picked<T::Arithmetic> {
    let marker = T::Arithmetic::from_f64(-77.0);
    let rows = x.rows();
    let mut picked = Picked {
        largest: vec![usize::MAX; rows],
        top: vec![usize::MAX; rows * k],
        top_log_probs: vec![marker; rows * k],
        top_probs: vec![marker; rows * k],
        log_probs: vec![marker; tokens.len()],
        lse: vec![marker; rows],
    };
    options.hardmax(Ties::Share).argmax(x, &mut picked.largest).expect("a valid call");
    let top_k = options.top_k(k);
    let (mut top, mut alone) = (picked.top.clone(), picked.top_log_probs.clone());
    top_k.log_probs(x, &mut alone, &mut top).expect("a valid call");
    let Picked { top: indices, top_log_probs, top_probs, .. } = &mut picked;
    let done = top_k.log_probs_and_probs(x, top_log_probs, top_probs, indices);
    done.expect("a valid call");
    let bytes = |v: &[T::Arithmetic]| v.iter().map(|v| v.to_f64().to_bits()).collect::<Vec<_>>();
    assert_eq!((&top, bytes(&alone)), (&*indices, bytes(top_log_probs)), "with and without");
    top.fill(usize::MAX);
    top_k.probs(x, &mut alone, &mut top).expect("a valid call");
    assert_eq!((&top, bytes(&alone)), (&*indices, bytes(top_probs)), "probabilities alone");
    top.fill(usize::MAX);
    top_k.indices(x, &mut top).expect("a valid call");
    assert_eq!(&top, indices, "indices alone");
    let mut alone = picked.log_probs.clone();
    options.log_probs().log_probs(x, tokens, &mut alone).expect("a valid call");
    options
        .log_probs()
        .log_probs_and_logsumexp(x, tokens, &mut picked.log_probs, &mut picked.lse)
        .expect("a valid call");
    assert_eq!(bytes(&alone), bytes(&picked.log_probs), "with and without lse");
    picked
}

/// Rows of a kind, some with a few equal elements, NaN or infinities.
fn rows<T: Element>(random: &mut Random, kind: usize, rows: usize, cols: usize) -> Vec<T> {
    let mut x = Vec::new();
    for r in 0..rows {
        let mut row = row::<T>(random, kind, cols);
        let special = [T::NAN, T::INFINITY, T::NEG_INFINITY, row[0], T::from_f64(-f64::NAN)];
        for &v in &special[..if r % 3 == 1 { 1 + random.below(5) } else { 0 }] {
            row[random.below(cols)] = v;
        }
        x.extend(row);
    }
    x
}

/// Checks that every kernel equals the reference bit for bit.
fn same_bits<T: Bits>()
where
    T::Arithmetic: Bits,
{
    let way = |core, last| Caches::new(core, last);
    let two = Threads::Exactly(NonZeroUsize::new(2).expect("not 0"));
    let mut random = Random(11);
    for (n, kind) in LENGTHS.into_iter().flat_map(|n| (0..KINDS).map(move |kind| (n, kind))) {
        if n > 300 && (kind % 3 != 0 || (quick() && n > 4097)) {
            continue;
        }
        let count = 3;
        let temperature = [1.0, 0.25, 3.0, 1e-30, 1e-3, 1e30][(n + kind) % 6];
        let masked = if kind % 2 == 0 { Masked::Zero } else { Masked::Nan };
        let x = rows::<T>(&mut random, kind, count, n);
        // With a stride, at another alignment.
        let stride = n + 3;
        let mut padded = vec![T::from_f64(5.5); 1 + count * stride];
        for (r, row) in x.chunks(n).enumerate() {
            padded[1 + r * stride..][..n].copy_from_slice(row);
        }
        let dense = Matrix::new(&x, n).expect("a shape");
        let strided = Matrix::with_stride(&padded[1..], count, n, stride).expect("a shape");
        let k = [1, n.min(5), n][kind % 3];
        let tokens: Vec<_> = (0..count * 4).map(|_| random.below(n)).collect();
        let reference = on(scalar(), temperature, masked);
        let want = pick(&reference, dense, k, &tokens);
        for kernel in exact() {
            let options = on(kernel, temperature, masked);
            let what = format!("{} {} {n} of kind {kind}, T {temperature}", kernel.name(), T::NAME);
            let ways = [
                options.threads(Threads::Serial),
                options.threads(Threads::Serial).caches(way(0, 0)),
                options.threads(two),
            ];
            for options in ways {
                pick(&options, dense, k, &tokens).assert_same(&want, &what);
                pick(&options, strided, k, &tokens).assert_same(&want, &what);
            }
            for map in MAPS {
                let want: Vec<T> = x.chunks(n).flat_map(|x| map_row(map, &reference, x)).collect();
                let what = || format!("{what}: {map:?}");
                for options in ways {
                    let mut y = vec![T::from_f64(-77.0); x.len()];
                    map.run(&options, dense, MatrixMut::new(&mut y, n).expect("a shape"))
                        .expect("a valid call");
                    assert_same(&y, &want, what);
                    let mut y = x.clone();
                    map.run_in_place(&options, MatrixMut::new(&mut y, n).expect("a shape"))
                        .expect("a valid call");
                    assert_same(&y, &want, what);
                    // Elements between and around strided rows do not change.
                    let mut out = padded.clone();
                    let mut around = padded.clone();
                    for (r, row) in want.chunks(n).enumerate() {
                        around[1 + r * stride..][..n].copy_from_slice(row);
                    }
                    let y = MatrixMut::with_stride(&mut out[1..], count, n, stride);
                    map.run(&options, strided, y.expect("a shape")).expect("a valid call");
                    assert_same(&out, &around, what);
                }
            }
        }
    }
}

#[test]
fn same_bits_f32() {
    same_bits::<f32>();
}

#[test]
fn same_bits_f64() {
    same_bits::<f64>();
}

#[test]
fn same_bits_f16() {
    same_bits::<f16>();
}

#[test]
fn same_bits_bf16() {
    same_bits::<bf16>();
}

/// `1 / (1 + exp(-z))` and its logarithm.
fn logistic(z: Dd) -> (Dd, Dd) {
    let minus = |a: Dd| Dd(-a.0, -a.1);
    let one = Dd(1.0, 0.0);
    let a = if z.0 > 0.0 { minus(z) } else { z };
    // exp(-|z|); the oracle needs it to be a normal number.
    let e = if a.0 < -740.0 { Dd(0.0, 0.0) } else { a.exp() };
    let both = one.add(e);
    let sigmoid = if z.0 > 0.0 { one.div(both) } else { e.div(both) };
    // ln(1 + e), by the series if e is small.
    let ln = if e.0 < 1e-11 {
        e.add(e.mul(e).scaled(-0.5)).add(e.mul(e).mul(e).div(Dd(3.0, 0.0)))
    } else {
        both.ln()
    };
    let low = if z.0 > 0.0 { Dd(0.0, 0.0) } else { z };
    (sigmoid, low.add(minus(ln)))
}

/// The largest errors of sigmoid and log-sigmoid on logits of many sizes, by the reference, whose
/// bits every kernel must give.
fn worst<T: Bits>(format: Format, temperature: f64) -> (f64, f64) {
    let n = if quick() { 3000 } else { 60_000 };
    let mut random = Random(5);
    let x: Vec<T> = (0..n)
        .map(|i| {
            let u = random.signed();
            T::from_f64(
                temperature
                    * match i % 4 {
                        0 => u * 3.0,
                        1 => u * 90.0,
                        2 => u * 720.0,
                        _ => u * f64::from_bits((1023 - 40 + random.next() % 50) << 52),
                    },
            )
        })
        .collect();
    let [y, log] = [Map::Sigmoid, Map::LogSigmoid].map(|map| {
        let y = map_row(map, &on(scalar(), temperature, Masked::Nan), &x);
        for kernel in exact() {
            let same = map_row(map, &on(kernel, temperature, Masked::Nan), &x);
            assert_same(&same, &y, || format!("{} {map:?}, T {temperature}", kernel.name()));
        }
        y
    });
    let mut most = (0f64, 0f64);
    for ((x, y), log) in x.iter().zip(y).zip(log) {
        let (want, want_log) = logistic(Dd(x.to_f64(), 0.0).div(Dd(temperature, 0.0)));
        let least = 2f64.powi(if T::NAME == "f64" { -1022 } else { -126 });
        if y.to_f64() != 0.0 || want.0 >= least {
            most.0 = most.0.max(ulps(y.to_f64(), want, format));
        }
        if log.to_f64() != 0.0 || want_log.0.abs() >= 2f64.powi(-1022) {
            most.1 = most.1.max(ulps(log.to_f64(), want_log, format));
        }
    }
    most
}

#[test]
fn sigmoids_are_as_accurate_as_promised() {
    for temperature in [1.0, 0.3, 7.0, 1e-30, 1e15] {
        let check = |name, (y, log): (f64, f64), bound: f64, log_bound: f64| {
            println!("{name} T {temperature}: {y:.3} {log:.3}");
            assert!(y <= bound, "{name}, T {temperature}: sigmoid {y}");
            assert!(log <= log_bound, "{name}, T {temperature}: log {log}");
        };
        check("f32", worst::<f32>(F32, temperature), 3.0, 1.0);
        check("f64", worst::<f64>(F64, temperature), 3.0, 3.0);
        if temperature > 0.1 && temperature < 10.0 {
            check("f16", worst::<f16>(F16, temperature), 0.51, 0.51);
            check("bf16", worst::<bf16>(BF16, temperature), 0.51, 0.51);
        }
    }
}

/// Results of all magnitudes that a temperature can make of any logit: within bounds, with the
/// reference's bits, and infinite where the exact result is out of range.
#[test]
fn sigmoids_of_any_logit_at_any_temperature() {
    fn check<T: Bits>(ends: [i32; 2], log_format: Format) {
        let mut random = Random(17);
        for temperature in [1e-30, 2.803500451300316e-30, 1e-12, 0.3, 1.0, 3e10, 0.7e30] {
            let mut x = vec![T::from_f64(-1e300), T::from_f64(-5e3), T::from_f64(-f64::MAX)];
            x.extend((0..500).map(|_| {
                let exponent = ends[0] + random.below((ends[1] - ends[0]) as usize) as i32;
                T::from_f64((random.signed() + 1.0).copysign(random.signed()) * 2f64.powi(exponent))
            }));
            for map in [Map::Sigmoid, Map::LogSigmoid] {
                let want = map_row(map, &on(scalar(), temperature, Masked::Nan), &x);
                for kernel in exact() {
                    let got = map_row(map, &on(kernel, temperature, Masked::Nan), &x);
                    let what = || format!("{} {} {map:?} {temperature}", kernel.name(), T::NAME);
                    assert_same(&got, &want, what);
                }
                for (x, y) in x.iter().zip(&want) {
                    let (x, y) = (x.to_f64(), y.to_f64());
                    let what = format!("{} {map:?} of {x:e} at {temperature}: {y:e}", T::NAME);
                    assert!(!y.is_nan(), "{what}");
                    // Where the result is the quotient alone.
                    let z = x / temperature;
                    if let Map::LogSigmoid = map
                        && z < -1000.0
                    {
                        let exact = T::from_f64(z).to_f64();
                        let near = ulps(y, Dd(exact, 0.0), log_format) <= 3.0;
                        assert!(y == exact || near, "{what}, not {exact:e}");
                    }
                }
            }
        }
    }
    check::<f32>([-149, 128], F32);
    check::<f64>([-1074, 1024], F64);
    check::<f16>([-24, 16], F16);
    check::<bf16>([-133, 128], BF16);
}

/// The two-class case.
#[test]
fn sigmoid_is_the_softmax_of_an_element_and_0() {
    fn check<T: Element>(kernel: &'static Kernel, format: Format) {
        let options = on(kernel, 1.0, Masked::Nan);
        for i in -400..=400 {
            let x = T::from_f64(f64::from(i) * 0.17);
            let softmax = run_row(&options, Op::Softmax, &[x, T::ZERO])[0].to_f64();
            let sigmoid = map_row(Map::Sigmoid, &options, &[x])[0].to_f64();
            let apart = ulps(sigmoid, Dd(softmax, 0.0), format);
            assert!(apart <= 4.0, "{} {x:?}: {sigmoid} and {softmax}", kernel.name());
        }
    }
    for kernel in available() {
        check::<f32>(kernel, F32);
        check::<f64>(kernel, F64);
    }
}

fn special<T: Bits>(kernel: &'static Kernel)
where
    T::Arithmetic: Bits,
{
    let v = T::from_f64;
    let options = on(kernel, 1.0, Masked::Nan);
    let nan = T::NAN;
    let inf = T::INFINITY;
    let least = T::NEG_INFINITY;
    let large = v(if T::NAME == "f16" { 6e4 } else { 3e38 });
    for n in [1, 5, 16, 70, 5000] {
        let what = || format!("{} {} of {n}", kernel.name(), T::NAME);
        let map = |map, x: T| map_row(map, &options, &vec![x; n]);
        for (x, y, log) in [
            (v(0.0), v(0.5), v(-std::f64::consts::LN_2)),
            (v(-0.0), v(0.5), v(-std::f64::consts::LN_2)),
            (inf, v(1.0), v(0.0)),
            (least, v(0.0), least),
            (large, v(1.0), v(0.0)),
            (v(-large.to_f64()), v(0.0), v(-large.to_f64())),
            (nan, nan, nan),
            (v(-f64::NAN), nan, nan),
        ] {
            assert_same(&map(Map::Sigmoid, x), &vec![y; n], what);
            assert_same(&map(Map::LogSigmoid, x), &vec![log; n], what);
        }
        let first = |at: usize, v: T, others: T| {
            let mut y = vec![others; n];
            y[at] = v;
            y
        };
        let row = |x: &[T], map: Map| map_row(map, &options, x);
        let (zero, one) = (v(0.0), v(1.0));
        for at in [0, n / 2, n - 1] {
            // One element above the others, infinite or not.
            for top in [v(2.0), inf] {
                let x = first(at, top, v(1.0));
                for map in
                    [Map::Hardmax(Ties::Share), Map::Hardmax(Ties::First), Map::Limit(0.0, false)]
                {
                    assert_same(&row(&x, map), &first(at, one, zero), what);
                }
                assert_same(&row(&x, Map::Limit(0.0, true)), &first(at, zero, least), what);
                let picked = pick(&options, Matrix::new(&x, n).expect("a shape"), 1, &[at]);
                assert_eq!((picked.largest[0], picked.top[0]), (at, at), "{}", what());
                assert_eq!(picked.log_probs[0].to_f64().is_nan(), top.to_f64().is_infinite());
            }
            let hot = first(at, inf, v(1.0));
            assert_same(&row(&hot, Map::Limit(f64::INFINITY, false)), &vec![nan; n], what);
            let masked = row(&first(at, least, v(1.0)), Map::Limit(f64::INFINITY, false));
            let want = if n == 1 { nan } else { first(at, zero, v(1.0 / (n - 1) as f64))[at] };
            assert_same(&masked[at..=at], &[want], what);
            for bad in [nan, v(-f64::NAN)] {
                let mut x = first(at, bad, v(1.0));
                if n > 1 {
                    x[(at + 1) % n] = inf;
                }
                for map in &MAPS[2..] {
                    assert_same(&row(&x, *map), &vec![nan; n], what);
                }
                let k = n.min(3);
                let picked = pick(&options, Matrix::new(&x, n).expect("a shape"), k, &[at]);
                assert_eq!(picked.largest, [at], "{}", what());
                assert_eq!(picked.top, (0..k).collect::<Vec<_>>(), "{}", what());
                let all = picked.top_log_probs.iter().chain(&picked.log_probs).chain(&picked.lse);
                let all = all.chain(&picked.top_probs);
                let nans = vec![T::Arithmetic::NAN; 2 * k + 2];
                assert_same(&all.copied().collect::<Vec<_>>(), &nans, what);
            }
        }
        // All equal: shared, or the first.
        let x = vec![v(3.0); n];
        assert_same(&row(&x, Map::Hardmax(Ties::Share)), &vec![v(1.0 / n as f64); n], what);
        assert_same(&row(&x, Map::Hardmax(Ties::First)), &first(0, one, zero), what);
        let log = v(0.0 - (n as f64).ln());
        let got = row(&x, Map::Limit(f64::INFINITY, true));
        assert!((got[n - 1].to_f64() - log.to_f64()).abs() <= 1e-15 + log.to_f64().abs() * 1e-2);
        // Fully masked.
        let x = vec![least; n];
        for (masked, prob, log) in [(Masked::Nan, nan, nan), (Masked::Zero, zero, least)] {
            let options = on(kernel, 1.0, masked);
            for map in &MAPS[2..] {
                let log_map = matches!(map, Map::Limit(_, true));
                let want = vec![if log_map { log } else { prob }; n];
                assert_same(&map_row(*map, &options, &x), &want, what);
            }
            let picked = pick(&options, Matrix::new(&x, n).expect("a shape"), 1, &[n - 1]);
            assert_eq!((picked.largest[0], picked.top[0]), (0, 0), "{}", what());
            assert_eq!(picked.lse[0].to_f64(), f64::NEG_INFINITY, "{}", what());
            let want = T::Arithmetic::from_f64(log.to_f64());
            let want = if log.to_f64().is_nan() { T::Arithmetic::NAN } else { want };
            assert_same(&[picked.log_probs[0], picked.top_log_probs[0]], &[want; 2], what);
            let want = T::Arithmetic::from_f64(prob.to_f64());
            let want = if prob.to_f64().is_nan() { T::Arithmetic::NAN } else { want };
            assert_same(&picked.top_probs, &[want], what);
        }
    }
    // -0 and 0 are equal.
    let picked = pick(&options, Matrix::new(&[v(-0.0), v(0.0)], 2).expect("a shape"), 2, &[0]);
    assert_eq!((picked.largest[0], &picked.top[..]), (0, &[0, 1][..]), "{}", kernel.name());
}

#[test]
fn special_values() {
    for kernel in available() {
        special::<f32>(kernel);
        special::<f64>(kernel);
        special::<f16>(kernel);
        special::<bf16>(kernel);
    }
}

/// Picked results have the bits of log-softmax and softmax, in the order of a sort.
#[test]
fn picks_are_those_of_the_whole_row() {
    fn check<T: Bits + Element<Arithmetic = T>>(kernel: &'static Kernel, x: &[T], k: usize) {
        let n = x.len();
        let options = on(kernel, 0.7, Masked::Nan);
        let log = run_row(&options, Op::LogSoftmax, x);
        let tokens: Vec<_> = (0..n).collect();
        let picked = pick(&options, Matrix::new(x, n).expect("a shape"), k, &tokens);
        let what = || format!("{} {} of {n}, the best {k}", kernel.name(), T::NAME);
        assert_same(&picked.log_probs, &log, what);
        assert_same(&picked.lse, &run_row(&options, Op::LogSumExp, x), what);
        let mut order = tokens;
        order.sort_by(|&a, &b| x[b].to_f64().total_cmp(&x[a].to_f64()).then(a.cmp(&b)));
        assert_eq!(picked.top, order[..k], "{}", what());
        let want: Vec<T> = order[..k].iter().map(|&i| log[i]).collect();
        assert_same(&picked.top_log_probs, &want, what);
        let probs = run_row(&options, Op::Softmax, x);
        let want: Vec<T> = order[..k].iter().map(|&i| probs[i]).collect();
        assert_same(&picked.top_probs, &want, what);
        assert_eq!(picked.largest[0], order[0], "{}", what());
    }
    let mut random = Random(3);
    for kernel in exact() {
        for n in [1, 3, 40, 257, 5000] {
            // Ascending rows replace the best at every step, coarse ones have ties.
            let coarse: Vec<f32> = (0..n).map(|_| random.below(9) as f32 + 1.0).collect();
            let ascending: Vec<f64> = (0..n).map(|i| i as f64 * 0.01).collect();
            let descending: Vec<f64> = (0..n).map(|i| i as f64 * -0.01).collect();
            for k in [1, 2, 50, n] {
                let k = k.min(n);
                check(kernel, &coarse, k);
                check(kernel, &ascending, k);
                check(kernel, &descending, k);
                check(kernel, &row::<f32>(&mut random, 0, n), k);
                // Wide rows, to the least normal number and beyond.
                check(kernel, &row::<f32>(&mut random, 1, n), k);
                check(kernel, &row::<f64>(&mut random, 2, n), k);
            }
        }
    }
}

/// Softmax approaches hardmax at ever lower temperatures, and the uniform distribution at ever
/// higher ones, without overflow.
#[test]
fn limits_of_the_temperature() {
    fn check<T: Element>(kernel: &'static Kernel, format: Format, large: f64) {
        let rows: [&[f64]; 5] = [
            &[0.8, 0.2],
            &[1.0, 3.0, 3.0, -2.0],
            &[large, large / 2.0, -large, 0.0, large],
            &[-large, -large],
            &[1e-20, 0.0, -1e-20],
        ];
        for row in rows {
            let x: Vec<T> = row.iter().map(|&x| T::from_f64(x)).collect();
            let wide: Vec<f64> = x.iter().map(|x| x.to_f64()).collect();
            let what = |t: f64| format!("{} {} {row:?} at T {t:e}", kernel.name(), T::NAME);
            for t in [1e-30, 1e-18, 1e-9, 1e-3, 1e-2, 2.0, 1e9, 1e18, 1e30] {
                let y = run_row(&on(kernel, t, Masked::Nan), Op::Softmax, &x);
                let want = oracle::exact(&wide, t).softmax;
                for (y, want) in y.iter().zip(want) {
                    let small = y.to_f64() == 0.0 && want.0 < 2f64.powi(format.min_exp);
                    assert!(small || ulps(y.to_f64(), want, format) <= 3.0, "{}: {y:?}", what(t));
                }
            }
            let at = |t: f64| -> Vec<f64> {
                let y = run_row(&on(kernel, t, Masked::Nan), Op::Softmax, &x);
                y.iter().map(|y| y.to_f64()).collect()
            };
            let (cold, hot) = (at(0.0), at(f64::INFINITY));
            if large.abs() > 1.0 && row[0].abs() > 1e-10 {
                for t in [5e-324, 1e-300, 1e-40, 1e-30, 1e-18] {
                    assert_eq!(at(t), cold, "{}", what(t));
                }
            }
            if row.iter().all(|x| x.abs() < 1e9) {
                for t in [1e30, 1e40, f64::MAX] {
                    assert_eq!(at(t), hot, "{}", what(t));
                }
            }
            assert!(cold.iter().chain(&hot).all(|y| (0.0..=1.0).contains(y)));
        }
    }
    for kernel in exact() {
        check::<f32>(kernel, F32, f64::from(f32::MAX));
        check::<f64>(kernel, F64, 1e300);
        check::<f32>(kernel, F32, 1e4);
        check::<f64>(kernel, F64, 1e4);
        let y = run_row(&on(kernel, 2.0, Masked::Nan), Op::Softmax, &[0.8f64, 0.2]);
        assert_eq!([format!("{:.2}", y[0]), format!("{:.2}", y[1])], ["0.57", "0.43"]);
        // Also for the largest numbers.
        let lse = run_row(&on(kernel, 1e30, Masked::Nan), Op::LogSumExp, &[1e308f64, -1e308]);
        assert!((lse[0] / 1e278 - 1.0).abs() < 1e-15, "{} {lse:?}", kernel.name());
    }
}

#[test]
fn what_has_no_limit_refuses_it() {
    let x = [1.0f32, 2.0];
    let m = || Matrix::new(&x, 2).expect("a shape");
    for t in [0.0, -0.0, f64::INFINITY] {
        let options = Options::new().temperature(t);
        let mut y = [7.0f32; 2];
        let mut i = [7usize; 2];
        let errors = [
            options.softmax().logsumexp(m(), &mut y[..1]),
            options.sigmoid().sigmoid(m(), MatrixMut::new(&mut y, 2).expect("a shape")),
            options.sigmoid().log_sigmoid_in_place(MatrixMut::new(&mut y, 2).expect("a shape")),
            options.log_probs().log_probs(m(), &[0], &mut y[..1]),
            options.top_k(1).log_probs(m(), &mut y[..1], &mut i[..1]),
            options.top_k(1).indices(m(), &mut i[..1]),
            options.backward().softmax(m(), m(), MatrixMut::new(&mut y, 2).expect("a shape")),
            options.attention(1, 1).softmax(m(), MatrixMut::new(&mut y, 2).expect("a shape")),
            options.cross_entropy().loss(m(), &[0]).map(|_| ()),
            options.softmax().softmax_axis(&x, &mut y, &[1, 2], 0),
            options.softmax().log_softmax_axis_in_place(&mut y, &[1, 2], -2),
            options.shards().merge::<f32>(&[]).map(|_| ()),
        ];
        for e in errors {
            let e = e.expect_err("no limit");
            assert!(matches!(e, Error::Value { value: Number::Float(got), .. } if got == t), "{e}");
            assert!(e.to_string().contains("above 0 and finite"), "{e}");
        }
        assert_eq!((y, i), ([7.0; 2], [7; 2]));
        // The last axis is the row.
        options.softmax().softmax_axis(&x, &mut y, &[1, 2], 1).expect("rows");
        assert_eq!(y[1], if t == 0.0 { 1.0 } else { 0.5 });
        // The largest element is the same at every temperature, and the later setter counts.
        options.hardmax(Ties::Share).argmax(m(), &mut i[..1]).expect("a valid call");
        assert_eq!(i[0], 1);
        let scaled = options.scale(1.0);
        scaled.softmax().logsumexp(m(), &mut y[..1]).expect("no limit any more");
    }
    for bad in [-1.0, -1e-300, f64::NAN, f64::NEG_INFINITY] {
        let cold = Options::new().temperature(bad).softmax();
        let e = cold.softmax_axis(&x, &mut [0.0; 2], &[1, 2], 1).expect_err("below 0");
        assert!(e.to_string().contains("0 or above"), "{e}");
    }
}

#[test]
fn what_does_not_fit_is_named_and_nothing_is_written() {
    let x = [0.0f32; 6];
    let m = || Matrix::new(&x, 3).expect("a shape");
    let (mut y, mut i) = ([7.0f32; 6], [7usize; 6]);
    let options = Options::new();
    let refused = |e: Result<(), Error>, message: &str| {
        let e = e.expect_err(message).to_string();
        assert!(e.contains(message), "{e}");
    };
    refused(
        options.hardmax(Ties::Share).argmax(m(), &mut i[..3]),
        "number of indices must be 2, got 3",
    );
    refused(
        options.log_probs().log_probs(m(), &[0, 1, 2], &mut y[..3]),
        "number of tokens must be a multiple of 2, got 3",
    );
    refused(
        options.log_probs().log_probs(m(), &[0, 1], &mut y),
        "number of log-probabilities must be 2, got 6",
    );
    refused(
        options.log_probs().log_probs(m(), &[2, 3], &mut y[..2]),
        "row 1: 3 is not one of its 3 columns",
    );
    let token = [0, 1, 2, usize::MAX];
    refused(options.log_probs().log_probs(m(), &token, &mut y[..4]), "row 1");
    let (a, b) = y.split_at_mut(2);
    refused(
        options.log_probs().log_probs_and_logsumexp(m(), &[0, 0], a, &mut b[..1]),
        "number of log-sum-exps must be 2, got 1",
    );
    refused(
        options.top_k(4).log_probs(m(), &mut y, &mut i),
        "at most the number of columns, got 4",
    );
    refused(
        options.top_k(2).log_probs(m(), &mut y[..4], &mut i),
        "number of indices must be 4, got 6",
    );
    refused(
        options.top_k(2).log_probs(m(), &mut y[..5], &mut i[..4]),
        "number of log-probabilities must be 4, got 5",
    );
    let none = Matrix::<f32>::with_stride(&[], 2, 0, 0).expect("a shape");
    refused(
        options.hardmax(Ties::Share).argmax(none, &mut i[..2]),
        "number of columns must be above 0",
    );
    let wide = MatrixMut::new(&mut y, 2).expect("a shape");
    refused(options.sigmoid().sigmoid(m(), wide), "the output must be 2 x 3, got 3 x 2");
    let wide = MatrixMut::new(&mut y, 2).expect("a shape");
    refused(options.hardmax(Ties::Share).hardmax(m(), wide), "the output must be 2 x 3, got 3 x 2");
    assert_eq!((y, i), ([7.0; 6], [7; 6]));

    // An empty matrix needs nothing.
    let empty = Matrix::<f32>::new(&[], 3).expect("a shape");
    options.hardmax(Ties::Share).argmax(empty, &mut []).expect("no rows");
    options.log_probs().log_probs(empty, &[], &mut []).expect("no rows");
    options.top_k(2).log_probs(empty, &mut [], &mut []).expect("no rows");
    options.top_k(0).log_probs(m(), &mut [], &mut []).expect("no entries");
    options.log_probs().log_probs(m(), &[], &mut []).expect("no tokens");
    let mut lse = [0.0f32; 2];
    options.log_probs().log_probs_and_logsumexp(m(), &[], &mut [], &mut lse).expect("no tokens");
    assert!((lse[1] - 3f32.ln()).abs() < 1e-6);
    options.log_probs().log_probs_and_logsumexp(none, &[], &mut [], &mut lse).expect("no columns");
    assert_eq!(lse, [f32::NEG_INFINITY; 2]);
    softmax::sigmoid::<f32>(&[], &mut []).expect("nothing");
}

#[test]
fn known_values() {
    assert_eq!(softmax::argmax(&[f64::NEG_INFINITY, -5.0, -4.0, -4.0]), Ok(2));
    assert!((softmax::perplexity(&[-1.0f32, -3.0]) / f64::exp(2.0) - 1.0).abs() < 1e-15);
    assert!(softmax::perplexity::<f64>(&[]).is_nan());
    assert_eq!(softmax::perplexity(&[0.0, f64::NEG_INFINITY]), f64::INFINITY);
    let mut x = [2.0f64, -2.0];
    softmax::sigmoid_in_place(&mut x).expect("a valid call");
    assert!((x[0] - 0.880_797_077_977_882_3).abs() < 1e-15 && (x[0] + x[1] - 1.0).abs() < 1e-15);
}

/// Rows several times longer than what sweeps prefetch, and larger than the caches that the call is
/// told of.
#[test]
fn long_rows_from_memory() {
    let (count, n) = if quick() { (2, 20_000) } else { (3, 300_000) };
    fn check<T: Bits>(count: usize, n: usize)
    where
        T::Arithmetic: Bits,
    {
        let mut random = Random(8);
        let x: Vec<T> = (0..count).flat_map(|_| row::<T>(&mut random, 0, n)).collect();
        let x = Matrix::new(&x, n).expect("a shape");
        let tokens: Vec<_> = (0..count * 2).map(|_| random.below(n)).collect();
        let want = pick(&on(scalar(), 1.0, Masked::Nan), x, 40, &tokens);
        for kernel in exact() {
            let options = on(kernel, 1.0, Masked::Nan).caches(Caches::new(1 << 14, 1 << 15));
            pick(&options, x, 40, &tokens).assert_same(&want, kernel.name());
        }
    }
    check::<f32>(count, n);
    check::<bf16>(count, n);
}

/// The one constant for x86-64 and AArch64, for fixed rows. It changes only with the arithmetic
/// contract.
const DIGEST: u64 = 0x2bb3_38be_0959_3756;

#[test]
fn digest_is_the_same_on_every_cpu() {
    fn add_to<T: Bits>(digest: &mut Fnv, kernel: &'static Kernel)
    where
        T::Arithmetic: Bits,
    {
        let mut random = Random(77);
        for kind in 0..KINDS {
            let n = 333;
            let x = rows::<T>(&mut random, kind, 3, n);
            let options = on(kernel, [1.0, 0.1, 3.0][kind % 3], Masked::Zero);
            for map in MAPS {
                digest.add(&map_row(map, &options, &x));
            }
            let tokens = [0, 5, 332, 17, 18, 19];
            let picked = pick(&options, Matrix::new(&x, n).expect("a shape"), 9, &tokens);
            let indices = picked.largest.iter().chain(&picked.top);
            digest.add(&indices.map(|&i| i as f64).collect::<Vec<_>>());
            digest.add(&picked.top_log_probs);
            digest.add(&picked.log_probs);
            digest.add(&picked.lse);
        }
    }
    for kernel in available() {
        let mut digest = Fnv::default();
        add_to::<f32>(&mut digest, kernel);
        add_to::<f64>(&mut digest, kernel);
        add_to::<f16>(&mut digest, kernel);
        add_to::<bf16>(&mut digest, kernel);
        println!("{} on {}: {:#018x}", kernel.name(), std::env::consts::ARCH, digest.0);
        assert_eq!(digest.0, DIGEST, "{}: {:#018x}", kernel.name(), digest.0);
    }
}

/// Few values, so that there are ties, and special values.
fn value() -> impl Strategy<Value = f32> {
    prop_oneof![
        8 => (-20i8..20).prop_map(|i| f32::from(i) * 0.5),
        1 => Just(f32::NEG_INFINITY),
        1 => -1e30f32..1e30,
    ]
}

proptest! {
    #![proptest_config(config(200, 20, 0xdec_1de))]

    #[test]
    fn decisions_are_those_of_naive_loops(x in prop::collection::vec(value(), 1..200), k in 0usize..200) {
        let n = x.len();
        let k = k % (n + 1);
        let mut order: Vec<_> = (0..n).collect();
        order.sort_by(|&a, &b| x[b].partial_cmp(&x[a]).expect("no NaN").then(a.cmp(&b)));
        let max = x[order[0]];
        for kernel in available() {
            let options = on(kernel, 1.0, Masked::Zero);
            let picked = pick(&options, Matrix::new(&x, n).expect("a shape"), k, &[n / 2]);
            prop_assert_eq!(picked.largest[0], order[0], "{}", kernel.name());
            prop_assert_eq!(&picked.top[..], &order[..k], "{}", kernel.name());
            let ties = x.iter().filter(|&&x| x == max).count();
            let share = if max == f32::NEG_INFINITY { 0.0 } else { 1.0 / ties as f32 };
            let want: Vec<f32> = x.iter().map(|&x| if x == max { share } else { 0.0 }).collect();
            prop_assert_eq!(map_row(Map::Hardmax(Ties::Share), &options, &x), want);
        }
    }

    #[test]
    fn sigmoids_mirror_and_rise(a in -700.0f64..700.0, b in -700.0f64..700.0) {
        for kernel in available() {
            let y = map_row(Map::Sigmoid, &on(kernel, 1.0, Masked::Nan), &[a, -a, b]);
            prop_assert!((y[0] + y[1] - 1.0).abs() <= 4e-16, "{} {a}", kernel.name());
            let far = (a - b).abs() > 1e-9 * (1.0 + a.abs()) && a.max(b) < 10.0;
            prop_assert!(!far || (a < b) == (y[0] < y[2]), "{} {a} {b}", kernel.name());
        }
    }
}
