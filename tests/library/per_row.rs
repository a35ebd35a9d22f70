//! Rows with settings of their own: each has the bits that it has alone with them.

use crate::common::*;
use softmax::half::{bf16, f16};
use softmax::{
    BitMask, Caches, Error, Exec, MaskData, Masked, Matrix, MatrixMut, Softmax, Threads,
};
use std::num::NonZeroUsize;

/// The factors of rows.
#[derive(Clone, Copy)]
enum Each<'a> {
    Scales(&'a [f64]),
    Temperatures(&'a [f64]),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum To {
    Softmax,
    SoftmaxInPlace,
    LogSoftmax,
    LogSoftmaxInPlace,
    LogSumExp,
    Entropy,
}

const ALL: [To; 6] = [
    To::Softmax,
    To::SoftmaxInPlace,
    To::LogSoftmax,
    To::LogSoftmaxInPlace,
    To::LogSumExp,
    To::Entropy,
];

impl To {
    fn is_one(self) -> bool {
        matches!(self, Self::LogSumExp | Self::Entropy)
    }

    /// Calls an operation of a `Softmax` or of a `PerRow`; and what it has written.
    fn call<T: Bits>(self, softmax: Softmax, each: Option<Each>, x: &[T], cols: usize) -> Vec<T> {
        self.try_call(softmax, each, x, cols).expect("a valid call")
    }

    fn try_call<T: Bits>(
        self,
        softmax: Softmax,
        each: Option<Each>,
        x: &[T],
        cols: usize,
    ) -> Result<Vec<T>, Error> {
        let from = Matrix::new(x, cols)?;
        let in_place = matches!(self, Self::SoftmaxInPlace | Self::LogSoftmaxInPlace);
        let n = if self.is_one() { from.rows() } else { x.len() };
        let mut y = if in_place { x.to_vec() } else { vec![T::from_f64(-77.0); n] };
        macro_rules! call {
            ($softmax:expr) => {
                match self {
                    Self::Softmax => $softmax.softmax(from, MatrixMut::new(&mut y, cols)?),
                    Self::SoftmaxInPlace => {
                        $softmax.softmax_in_place(MatrixMut::new(&mut y, cols)?)
                    }
                    Self::LogSoftmax => $softmax.log_softmax(from, MatrixMut::new(&mut y, cols)?),
                    Self::LogSoftmaxInPlace => {
                        $softmax.log_softmax_in_place(MatrixMut::new(&mut y, cols)?)
                    }
                    Self::LogSumExp => $softmax.logsumexp(from, &mut y),
                    Self::Entropy => $softmax.entropy(from, &mut y),
                }
            };
        }
        match each {
            None => call!(softmax),
            Some(Each::Scales(scales)) => call!(softmax.scales(scales)),
            Some(Each::Temperatures(temperatures)) => call!(softmax.temperatures(temperatures)),
        }?;
        Ok(y)
    }
}

/// Factors of which some stand several times one after the other.
fn factors(random: &mut Random, rows: usize, of: &[f64]) -> Vec<f64> {
    let mut last = of[0];
    (0..rows)
        .map(|_| {
            if !random.once_in(3) {
                last = of[random.below(of.len())];
            }
            last
        })
        .collect()
}

fn same_bits<T: Bits>() {
    let mut random = Random(5);
    let two = Threads::Exactly(NonZeroUsize::new(2).expect("not 0"));
    let ways = |exec: Exec<'static>| {
        let large = exec.caches(Caches::new(1 << 12, 1 << 12));
        [exec.threads(Threads::Serial), exec.threads(two), large.threads(two)]
    };
    for cols in [1, 3, 16, 40, 130, 1000, 9000] {
        for seed in 0..if quick() { 2 } else { 8 } {
            if quick() && cols > 200 {
                continue;
            }
            let rows = 1 + random.below(if cols > 1000 { 4 } else { 20 });
            let kind = random.below(KINDS);
            let mut x: Vec<T> = row(&mut random, kind, rows * cols);
            let at = random.below(x.len());
            x[at] = [T::NAN, T::INFINITY, T::NEG_INFINITY][seed % 3];
            // Not every operation takes temperatures that are limits, or scales below 0.
            let limits = seed % 4 == 3;
            let of: &[f64] = match seed % 4 {
                0 => &[1.0, 0.25, -0.5, 3.0],
                1 => &[0.7, 1.0, 1.3],
                _ if limits => &[1.0, 0.0, 0.5, f64::INFINITY],
                _ => &[0.5, 2.0],
            };
            let list = factors(&mut random, rows, of);
            let each = |list| {
                if seed % 4 == 0 { Each::Scales(list) } else { Each::Temperatures(list) }
            };
            let set = |softmax: Softmax<'static>, factor| {
                if seed % 4 == 0 { softmax.scale(factor) } else { softmax.temperature(factor) }
            };
            for kernel in available() {
                for exec in ways(by(kernel)) {
                    let softmax = Softmax::new().masked(Masked::Zero).exec(exec);
                    for to in ALL {
                        if limits && to.is_one() {
                            continue;
                        }
                        let got = to.call(softmax, Some(each(&list)), &x, cols);
                        let alone = softmax.exec(by(kernel).threads(Threads::Serial));
                        let want: Vec<T> = x
                            .chunks(cols)
                            .zip(&list)
                            .flat_map(|(x, &factor)| to.call(set(alone, factor), None, x, cols))
                            .collect();
                        let what = || format!("{to:?} {} {rows} x {cols}: {list:?}", kernel.name());
                        assert_same(&got, &want, what);
                    }
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
fn same_bits_of_half_types() {
    same_bits::<f16>();
    same_bits::<bf16>();
}

/// A mask of one row, and one with a row for each.
#[test]
fn with_masks() {
    let (rows, cols) = (7, 70);
    let mut random = Random(9);
    let x: Vec<f32> = row(&mut random, 0, rows * cols);
    let temperatures = [0.5, 0.5, 1.0, 2.0, 2.0, 2.0, 0.1];
    let scales = [0.5, 0.5, -1.0, 2.0, 2.0, 2.0, 0.1];
    let words: Vec<u32> = (0..rows * 3).map(|_| random.next() as u32).collect();
    let added: Vec<f32> = row(&mut random, 3, rows * cols);
    let masks: [(MaskData, usize); 4] = [
        (BitMask::new(&words[..3]).into(), 1),
        (BitMask::new(&words).into(), rows),
        ((&added[..cols]).into(), 1),
        ((&added[..]).into(), rows),
    ];
    for kernel in available() {
        for (mask, of) in masks {
            let softmax = Softmax::new().exec(by(kernel));
            for to in ALL {
                for each in [Each::Scales(&scales), Each::Temperatures(&temperatures)] {
                    let got = to.call(softmax.mask(mask), Some(each), &x, cols);
                    let want: Vec<f32> = (0..rows)
                        .flat_map(|r| {
                            let softmax = match each {
                                Each::Scales(scales) => softmax.scale(scales[r]),
                                Each::Temperatures(t) => softmax.temperature(t[r]),
                            };
                            let mask = mask.row(if of == 1 { 0 } else { r }, cols);
                            to.call(softmax.mask(mask), None, &x[r * cols..][..cols], cols)
                        })
                        .collect();
                    assert_same(&got, &want, || format!("{to:?} {}", kernel.name()));
                }
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let x = [1.0f32; 6];
    let refused = |to: To, softmax: Softmax, each: Each| {
        to.try_call(softmax, Some(each), &x, 2).expect_err("an error").to_string()
    };
    let plain = Softmax::new();
    assert_eq!(
        refused(To::Softmax, plain, Each::Scales(&[1.0, 2.0])),
        "the number of scales (one for each row) must be 3, got 2"
    );
    assert_eq!(
        refused(To::LogSoftmaxInPlace, plain, Each::Temperatures(&[1.0; 4])),
        "the number of temperatures (one for each row) must be 3, got 4"
    );
    for (to, temperatures) in [
        (To::Softmax, [1.0, 1.0, -1.0]),
        (To::LogSoftmax, [1.0, 1.0, f64::NAN]),
        (To::LogSumExp, [1.0, 1.0, 0.0]),
        (To::Entropy, [1.0, 1.0, f64::INFINITY]),
    ] {
        let message = refused(to, plain, Each::Temperatures(&temperatures));
        assert!(message.starts_with("the temperature 2 "), "{message}");
    }
    assert!(refused(To::Softmax, plain, Each::Scales(&[0.0; 3])).starts_with("the scale 0 "));
    // With a mask there are no limits, as for one temperature.
    let masked = plain.mask(&[true, true][..]);
    assert!(
        refused(To::Softmax, masked, Each::Temperatures(&[1.0, 0.0, 1.0]))
            .starts_with("the temperature 1 ")
    );
    assert!(
        refused(To::Softmax, plain.mask(&[true; 5][..]), Each::Scales(&[1.0; 3])).contains("mask")
    );
    // No rows, and rows without columns.
    let each = plain.scales(&[]);
    each.softmax(
        Matrix::new(&x[..0], 2).expect("no rows"),
        MatrixMut::new(&mut [], 2).expect("no rows"),
    )
    .expect("a valid call");
    let mut lse = [1.0f32; 2];
    let empty = Matrix::with_stride(&x[..0], 2, 0, 0).expect("no columns");
    plain.scales(&[1.0, 2.0]).logsumexp(empty, &mut lse).expect("a valid call");
    assert_eq!(lse, [f32::NEG_INFINITY; 2]);
}
