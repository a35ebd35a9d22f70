//! Rows with settings of their own: each has the bits that it has alone with them.

use crate::common::*;
use softmax::half::{bf16, f16};
use softmax::{
    BitMask, Caches, Error, Exec, MaskData, Masked, Matrix, MatrixMut, Method, Order, Sampler,
    Softmax, Threads,
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

/// The settings of the rows of a batch.
struct Requests {
    temperatures: Vec<f64>,
    top_ks: Vec<usize>,
    top_ps: Vec<f64>,
    min_ps: Vec<f64>,
    typical_ps: Vec<f64>,
    seeds: Vec<u64>,
    steps: Vec<u64>,
}

impl Requests {
    fn random(random: &mut Random, rows: usize) -> Self {
        let of = |random: &mut Random, list: &[f64]| factors(random, rows, list);
        Self {
            temperatures: of(random, &[1.0, 0.0, 0.7, f64::INFINITY]),
            top_ks: of(random, &[0.0, 3.0, 20.0]).iter().map(|&k| k as usize).collect(),
            top_ps: of(random, &[1.0, 0.9, 0.3]),
            min_ps: of(random, &[0.0, 0.1]),
            typical_ps: of(random, &[1.0, 0.8]),
            seeds: of(random, &[1.0, 2.0, 3.0]).iter().map(|&k| k as u64).collect(),
            steps: of(random, &[0.0, 7.0]).iter().map(|&k| k as u64).collect(),
        }
    }

    /// With some of the settings, which are bits of `which`.
    fn of_all<'a>(&'a self, sampler: Sampler<'a>, which: u32) -> Sampler<'a> {
        let has = |bit: u32| which >> bit & 1 == 1;
        let mut s = sampler;
        s = if has(0) { s.temperatures(&self.temperatures) } else { s };
        s = if has(1) { s.top_ks(&self.top_ks) } else { s };
        s = if has(2) { s.top_ps(&self.top_ps) } else { s };
        s = if has(3) { s.min_ps(&self.min_ps) } else { s };
        s = if has(4) { s.typical_ps(&self.typical_ps) } else { s };
        s = if has(5) { s.seeds(&self.seeds) } else { s };
        if has(6) { s.steps(&self.steps) } else { s }
    }

    /// The same for one row; `make` is given its seed.
    fn of_row<'a>(
        &self,
        make: impl Fn(Option<u64>) -> Sampler<'a>,
        which: u32,
        row: usize,
    ) -> Sampler<'a> {
        let has = |bit: u32| which >> bit & 1 == 1;
        let mut s = make(has(5).then(|| self.seeds[row]));
        s = if has(0) { s.temperature(self.temperatures[row]) } else { s };
        s = if has(1) { s.top_k(self.top_ks[row]) } else { s };
        s = if has(2) { s.top_p(self.top_ps[row]) } else { s };
        s = if has(3) { s.min_p(self.min_ps[row]) } else { s };
        s = if has(4) { s.typical_p(self.typical_ps[row]) } else { s };
        if has(6) { s.step(self.steps[row]) } else { s }
    }
}

#[test]
fn samplers_with_settings_of_rows() {
    let two = Threads::Exactly(NonZeroUsize::new(2).expect("not 0"));
    for seed in 0..if quick() { 12 } else { 120 } {
        let mut random = Random(seed);
        let (rows, cols) = (1 + random.below(6), 1 + random.below(300));
        let x: Vec<f32> = row(&mut random, 0, rows * cols);
        let requests = Requests::random(&mut random, rows);
        let which = random.next() as u32;
        let order = [Order::Transformers, Order::LlamaCpp][random.below(2)];
        let method = [Method::InverseCdf, Method::GumbelMax][random.below(2)];
        let history: Vec<Vec<usize>> = (0..rows).map(|i| vec![i % cols, cols - 1]).collect();
        let history: Vec<&[usize]> = history.iter().map(|list| &list[..]).collect();
        let penalty = [1.0, 1.3][random.below(2)];
        let first = [0, 5][random.below(2)];
        // What is not set for rows: none of it is the usual value.
        let make = |row_seed: Option<u64>| {
            let all = Sampler::new(row_seed.unwrap_or(99)).step(3).temperature(0.9);
            all.top_k(50).top_p(0.95).order(order).method(method).repetition_penalty(penalty)
        };
        for kernel in available() {
            for exec in [by(kernel).threads(Threads::Serial), by(kernel).threads(two)] {
                let all = requests.of_all(make(None), which).first_row(first).history(&history);
                let all = all.exec(exec);
                let mut draws = vec![0; 3 * rows];
                let logits = Matrix::new(&x, cols).expect("whole rows");
                all.sample(logits, &mut draws).expect("a valid call");
                let mut probs = vec![0.0f32; x.len()];
                let to = MatrixMut::new(&mut probs, cols).expect("whole rows");
                all.filtered_probs(logits, to).expect("a valid call");
                for r in 0..rows {
                    let one = requests.of_row(make, which, r).history(&history[r..=r]);
                    let own_seed = which >> 5 & 1 == 1;
                    let one = one.first_row(first + if own_seed { 0 } else { r as u64 });
                    let one = one.exec(by(kernel));
                    let logits = Matrix::new(&x[r * cols..][..cols], cols).expect("a row");
                    let mut want = [0; 3];
                    one.sample(logits, &mut want).expect("a valid call");
                    let what = || format!("{} seed {seed} row {r}", kernel.name());
                    assert_eq!(draws[3 * r..][..3], want, "{}", what());
                    let mut want = vec![0.0f32; cols];
                    let to = MatrixMut::new(&mut want, cols).expect("a row");
                    one.filtered_probs(logits, to).expect("a valid call");
                    assert_same(&probs[r * cols..][..cols], &want, what);
                }
            }
        }
    }
}

/// With the order of llama.cpp the temperature comes after the filters, if a row has any: so rows
/// of one temperature begin with exponentials of different scales.
#[test]
fn filters_of_some_rows() {
    let mut random = Random(8);
    for temperature in [1e-30, 1e-10, 0.1, 1e20] {
        for _ in 0..if quick() { 4 } else { 40 } {
            let (rows, cols) = (1 + random.below(20), 1 + random.below(30));
            let tiny = |_| f16::from_f64(random.signed() * 1e-3);
            let x: Vec<f16> = (0..rows * cols).map(tiny).collect();
            let shares: Vec<f64> = (0..rows).map(|_| [1.0, 0.3][random.below(2)]).collect();
            let make = || Sampler::new(3).temperature(temperature).order(Order::LlamaCpp);
            for kernel in available() {
                let filtered = |sampler: Sampler, x: &[f16]| {
                    let mut probs = vec![0.0f32; x.len()];
                    let to = MatrixMut::new(&mut probs, cols).expect("whole rows");
                    let logits = Matrix::new(x, cols).expect("whole rows");
                    sampler.exec(by(kernel)).filtered_probs(logits, to).expect("a valid call");
                    probs
                };
                let all = filtered(make().typical_ps(&shares), &x);
                for (r, &share) in shares.iter().enumerate() {
                    let want = filtered(make().typical_p(share), &x[r * cols..][..cols]);
                    let what = || format!("{} {temperature} row {r}", kernel.name());
                    assert_same(&all[r * cols..][..cols], &want, what);
                }
            }
        }
    }
}

#[test]
fn settings_of_rows_that_do_not_fit_are_refused() {
    let x = [1.0f32; 6];
    let refused = |sampler: Sampler| {
        let mut draws = [7; 3];
        let logits = Matrix::new(&x, 2).expect("whole rows");
        let error = sampler.sample(logits, &mut draws).expect_err("an error");
        assert_eq!(draws, [7; 3]);
        error.to_string()
    };
    let s = Sampler::new(1);
    let count = |what| format!("the number of {what} (one for each row) must be 3, got 2");
    assert_eq!(refused(s.temperatures(&[1.0; 2])), count("temperatures"));
    assert_eq!(refused(s.top_ks(&[1; 2])), count("top-ks"));
    assert_eq!(refused(s.top_ps(&[1.0; 2])), count("top-ps"));
    assert_eq!(refused(s.min_ps(&[1.0; 2])), count("min-ps"));
    assert_eq!(refused(s.typical_ps(&[1.0; 2])), count("typical-ps"));
    assert_eq!(refused(s.seeds(&[1; 2])), count("seeds"));
    assert_eq!(refused(s.steps(&[1; 2])), count("steps"));
    let value = |what, must, got| format!("the {what} must be {must}, got {got}");
    let bad = [1.0, -0.5, f64::NAN];
    assert_eq!(refused(s.temperatures(&bad)), value("temperature 1", "0 or above", "-0.5"));
    assert_eq!(refused(s.top_ps(&bad)), value("top-p 1", "in 0..=1", "-0.5"));
    assert_eq!(refused(s.min_ps(&[0.0, 1.0, 1.5])), value("min-p 2", "in 0..=1", "1.5"));
    assert_eq!(refused(s.typical_ps(&[f64::NAN; 3])), value("typical-p 0", "in 0..=1", "NaN"));
    assert_eq!(
        refused(s.steps(&[0, 1, 1 << 48])),
        value("step 2", "below 2^48", "281474976710656")
    );
}
