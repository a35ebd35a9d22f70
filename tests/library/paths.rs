//! Every way to compute a call gives the bits of the reference. Cache sizes are set so that small
//! matrices are computed in the ways of large ones.

use std::num::NonZeroUsize;

use crate::common::*;
use softmax::half::{bf16, f16};
use softmax::{Caches, Element, Kernel, Masked, Matrix, MatrixMut, Plan, Regime, Shape, Threads};
use softmax_kernels::Large;

/// Larger than any matrix here.
const PLENTY: usize = usize::MAX;

/// The ways, by their names.
fn ways() -> [(&'static str, Caches); 4] {
    let way = |core, last| Caches::new(core, last);
    [
        ("in cache", way(PLENTY, PLENTY)),
        ("streaming", way(PLENTY, 0)),
        ("pieces", way(0, PLENTY)),
        ("pieces, streaming", way(0, 0)),
    ]
}

/// Rows and columns: short rows in groups (full, incomplete, fewer than eight), rows around the
/// lanes, the unrolled loops and the blocks, rows of several blocks.
const SHAPES: [(usize, usize); 20] = [
    (8, 1),
    (300, 2),
    (700, 3),
    (211, 10),
    (29, 15),
    (130, 16),
    (77, 17),
    (40, 33),
    (70, 64),
    (7, 64),
    (5, 65),
    (4, 127),
    (3, 1000),
    (3, 1024),
    (2, 4095),
    (2, 4096),
    (3, 4097),
    (2, 4111),
    (2, 9000),
    (1, 20_001),
];

/// The kinds of rows in a matrix.
#[derive(Clone, Copy, Debug)]
enum Rows {
    /// All of one kind (see [`row`]).
    Kind(usize),
    /// All kinds in turn.
    Mixed,
    /// Each far above or below the one before, so that no shift fits two of them.
    Drifting,
    /// Elements around those that a guessed shift keeps and the row's own shift flushes, or vice
    /// versa.
    Edge,
    /// Ordinary rows, with special ones here and there.
    Special,
}

/// `unit` is an octave.
fn matrix<T: Element>(random: &mut Random, rows: Rows, shape: (usize, usize), unit: f64) -> Vec<T> {
    let mut x = Vec::new();
    for i in 0..shape.0 {
        let kind = match rows {
            Rows::Kind(kind) => kind,
            Rows::Mixed => i % KINDS,
            Rows::Drifting | Rows::Edge | Rows::Special => 0,
        };
        let mut row: Vec<T> = row(random, kind, shape.1);
        match rows {
            Rows::Drifting => {
                let far = random.signed() * 300.0;
                row.iter_mut().for_each(|v| *v = T::from_f64(v.to_f64() + far));
            }
            Rows::Edge => {
                // In octaves: the first guess is 26, good for maxima up to 34. It keeps elements
                // above -100, while a row flushes those 126 below its maximum.
                let lowest = [-95.5, -104.0, -210.0][random.below(3)];
                let octaves = |random: &mut Random| match random.below(9) {
                    0 => lowest + 4.0 * random.signed(),
                    _ => 10.0 * random.signed(),
                };
                row.iter_mut().for_each(|v| *v = T::from_f64(octaves(random) * unit));
                let top = [30.0, -85.0][usize::from(random.below(4) == 0)] + 6.0 * random.signed();
                row[random.below(shape.1)] = T::from_f64(top * unit);
            }
            Rows::Special if random.below(3) == 0 => match random.below(4) {
                0 => row.fill(T::NEG_INFINITY),
                n => row[random.below(shape.1)] = [T::NAN, T::INFINITY, T::NEG_INFINITY][n - 1],
            },
            _ => {}
        }
        x.extend(row);
    }
    x
}

/// A softmax or log-softmax to memory that starts `offset` elements behind a 64-byte boundary.
fn run_at<T: Bits>(options: &Options, op: Op, x: &[T], cols: usize, offset: usize) -> Vec<T> {
    let mut room = vec![T::from_f64(-77.0); x.len() + 128];
    let start = room.as_ptr().align_offset(64) + offset;
    let y = &mut room[start..start + x.len()];
    let (x, view) = (Matrix::new(x, cols).unwrap(), MatrixMut::new(y, cols).unwrap());
    match op {
        Op::Softmax => options.softmax().softmax(x, view),
        _ => options.softmax().log_softmax(x, view),
    }
    .unwrap();
    y.to_vec()
}

fn every_way<T: Bits>(kernels: &[&'static Kernel]) {
    let mut random = Random(31);
    // Only some under an emulator.
    for (rows, cols) in SHAPES {
        let mut kinds: Vec<Rows> = (0..KINDS).map(Rows::Kind).collect();
        kinds.extend([Rows::Mixed, Rows::Drifting, Rows::Edge, Rows::Special]);
        if quick() {
            kinds = vec![kinds[random.below(kinds.len())], kinds[KINDS + random.below(4)]];
        }
        for kind in kinds {
            let temperature = [1.0, 0.37, 5.0][random.below(3)];
            let unit = std::f64::consts::LN_2 * temperature;
            let x: Vec<T> = matrix(&mut random, kind, (rows, cols), unit);
            let masked = [Masked::Nan, Masked::Zero][random.below(2)];
            let reference = on(scalar(), temperature, masked);
            for op in OPS {
                let want = run(&reference, op, Matrix::new(&x, cols).unwrap());
                for kernel in kernels {
                    for (way, caches) in ways() {
                        let threads = [1, 2, 3][random.below(3)];
                        let options = on(kernel, temperature, masked)
                            .caches(caches)
                            .threads(Threads::Exactly(NonZeroUsize::new(threads).unwrap()));
                        let what = || {
                            let (kernel, t) = (kernel.name(), T::NAME);
                            format!(
                                "{kernel} {op:?} {rows} x {cols} {t} {kind:?} {way}, {threads} threads"
                            )
                        };
                        if op == Op::LogSumExp {
                            let got = run(&options, op, Matrix::new(&x, cols).unwrap());
                            assert_same(&got, &want, what);
                            continue;
                        }
                        let offset = [0, random.below(64)][random.below(2)];
                        let got = run_at(&options, op, &x, cols, offset);
                        assert_same(&got, &want, || format!("{} at {offset}", what()));
                        let mut place = x.clone();
                        let view = MatrixMut::new(&mut place, cols).unwrap();
                        run_in_place(&options, op, view);
                        assert_same(&place, &want, || format!("{} in place", what()));
                    }
                }
            }
        }
    }
}

#[test]
fn every_way_gives_the_same_bits_f32() {
    every_way::<f32>(&exact());
}

#[test]
fn every_way_gives_the_same_bits_f64() {
    every_way::<f64>(&exact());
}

#[test]
fn every_way_gives_the_same_bits_f16() {
    every_way::<f16>(&exact());
}

#[test]
fn every_way_gives_the_same_bits_bf16() {
    every_way::<bf16>(&exact());
}

/// The ways of the tests above are really different.
#[test]
fn plans_are_what_the_sizes_say() {
    let [cached, streaming, pieces, both] = ways().map(|(_, caches)| Options::new().caches(caches));
    let way = |options: Options, rows, cols, in_place| {
        let shape = Shape::new(rows, cols);
        let shape = if in_place { shape.in_place() } else { shape };
        let options = options.kernel(exact()[0]).threads(Threads::Serial);
        let plan: Plan = options.plan::<f32>(softmax::Op::Softmax, shape).unwrap();
        (plan.regime(), plan.streams())
    };
    // Tiny rows are streamed on every CPU, longer ones only on some.
    let past = softmax_kernels::Store::of(true, false, false).is_past();
    assert_eq!(way(cached, 211, 10, false), (Regime::Tiny, false));
    assert_eq!(way(streaming, 211, 10, false), (Regime::Tiny, true));
    assert_eq!(way(streaming, 211, 10, true), (Regime::Tiny, false));
    assert_eq!(way(cached, 7, 10, false), (Regime::Rows, false));
    assert_eq!(way(streaming, 3, 1000, false), (Regime::Rows, past));
    assert_eq!(way(pieces, 3, 4096, false), (Regime::Rows, false));
    assert_eq!(way(pieces, 3, 4097, false), (Regime::Pieces, false));
    assert_eq!(way(both, 3, 4097, false), (Regime::Pieces, past));
    assert_eq!(way(both, 3, 4097, true), (Regime::Pieces, false));
    // Rows of less than 2 KiB are too short for bursts, of less than 512 bytes for single vectors.
    let streams =
        |large, cols| softmax_kernels::with_large(large, || way(streaming, 40, cols, false).1);
    assert!(!streams(Large::Bursts, 511) && streams(Large::Bursts, 512));
    assert!(!streams(Large::Vectors, 127) && streams(Large::Vectors, 128));
}

/// An explanation names the decision and the numbers behind it.
#[test]
fn plans_explain_themselves() {
    let kernel = exact()[0];
    let options = Options::new()
        .kernel(kernel)
        .threads(Threads::Serial)
        .caches(Caches::new(1 << 20, 16 << 20));
    let text =
        options.plan::<f32>(softmax::Op::Softmax, Shape::new(131_072, 1024)).unwrap().to_string();
    for part in [kernel.name(), "512.0 MiB", "16.0 MiB to count on", "threads: 1"] {
        assert!(text.contains(part), "{part:?} is missing in {text:?}");
    }
    let text = options
        .plan::<f64>(softmax::Op::Softmax, Shape::new(1000, 10).in_place())
        .unwrap()
        .to_string();
    assert!(text.contains("in groups") && text.contains("in place"), "{text:?}");
}

/// The portable kernel has only one way to store.
#[test]
fn by_either_stores() {
    let kernels: Vec<_> = exact().into_iter().filter(|k| k.name() != "portable").collect();
    if kernels.is_empty() {
        eprintln!("NOT TESTED: ways to store, since no kernel here has more than one");
        return;
    }
    with_the_other_stores(|| {
        every_way::<f32>(&kernels);
        every_way::<f64>(&kernels);
        every_way::<f16>(&kernels);
        every_way::<bf16>(&kernels);
    });
}
