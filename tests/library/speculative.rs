//! Verification of drafted tokens: every kernel, type, number of threads and cut of a batch against
//! a model in plain integers; and the distribution of what comes out.

use std::num::NonZeroUsize;

use crate::common::*;
use softmax::half::{bf16, f16};
use softmax::{
    DraftRows, Element, Error, Matrix, MatrixMut, Ragged, Sampler, Softmax, SpeculativeSampler,
    TargetRows, Threads,
};
use softmax_kernels::{Ready, SPAN, philox};

const NONE: usize = usize::MAX;

/// A batch.
#[derive(Clone, Debug)]
struct Case<T> {
    cols: usize,
    offsets: Vec<usize>,
    drafted: Vec<usize>,
    target: Vec<T>,
    target_probs: bool,
    draft: Vec<T>,
    /// Logits, probabilities or one-hot.
    draft_kind: usize,
    seed: u64,
    step: u64,
    first_row: u64,
    temperature: f64,
    seeds: Option<Vec<u64>>,
    steps: Option<Vec<u64>>,
    temperatures: Option<Vec<f64>>,
}

/// The probabilities of a row by the reference, and of half types those of the same numbers in f32.
fn softmax_of<T: Element>(x: &[T], temperature: f64) -> Vec<f64> {
    fn of<A: Element>(x: &[f64], temperature: f64) -> Vec<f64> {
        let x: Vec<A> = x.iter().map(|&x| A::from_f64(x)).collect();
        let mut y = x.clone();
        let row = Matrix::new(&x, x.len()).expect("a row");
        let softmax = Softmax::new().exec(by(scalar())).temperature(temperature);
        softmax.softmax(row, MatrixMut::new(&mut y, x.len()).expect("a row")).expect("valid");
        y.iter().map(|y| y.to_f64()).collect()
    }
    let wide: Vec<f64> = x.iter().map(|x| x.to_f64()).collect();
    if size_of::<T>() == 8 { of::<f64>(&wide, temperature) } else { of::<f32>(&wide, temperature) }
}

/// Units of 2^-52; `None` for what is not a probability.
fn units(p: f64) -> Option<u128> {
    let is_prob = (0.0..=1.0 + 0.5f64.powi(10)).contains(&p);
    is_prob.then(|| (p.min(1.0) * 2f64.powi(52)).round_ties_even() as u128)
}

fn all_units(p: &[f64]) -> Option<Vec<u128>> {
    p.iter().map(|&p| units(p)).collect()
}

impl<T: Element> Case<T> {
    fn random(seed: u64) -> Self {
        let r = &mut Random(seed);
        let cols = match r.below(6) {
            0 => 1 + r.below(4),
            1 => SPAN - 2 + r.below(5),
            2 => 4000 + r.below(5000),
            _ => 1 + r.below(100),
        };
        let sequences = 1 + r.below(5);
        let mut offsets = vec![r.below(3)];
        for i in 0..sequences {
            offsets.push(offsets[i] + r.below(5));
        }
        let (start, end) = (offsets[0], offsets[sequences]);
        let drafted: Vec<usize> = (0..end + r.below(2)).map(|_| r.below(cols)).collect();
        let kinds = [r.below(KINDS), r.below(KINDS)];
        let mut rows = |n: usize, kind: usize, probs: bool| -> Vec<T> {
            let mut all = Vec::new();
            for _ in 0..n {
                let mut x: Vec<T> = row(r, kind, cols);
                if probs {
                    x = softmax_of(&x, 1.0).into_iter().map(T::from_f64).collect();
                }
                if r.below(12) == 0 {
                    let at = r.below(cols);
                    let odd = [T::NAN, T::INFINITY, T::NEG_INFINITY, T::from_f64(-1.0)];
                    x[at] = odd[r.below(4)];
                }
                all.extend(x);
            }
            all
        };
        let target_probs = seed.is_multiple_of(3);
        let draft_kind = (seed / 3 % 4) as usize % 3;
        let target = rows(end - start + sequences, kinds[0], target_probs);
        // A draft like its target, mostly, so that tokens are accepted.
        let mut draft = rows(end - start, kinds[1], draft_kind == 1);
        let is_probs = draft_kind == 1;
        if seed % 5 < 3 && is_probs == target_probs {
            for (i, pair) in offsets.windows(2).enumerate() {
                for at in pair[0] - start..pair[1] - start {
                    let of_target = &target[(at + i) * cols..(at + i + 1) * cols];
                    draft[at * cols..(at + 1) * cols].copy_from_slice(of_target);
                    if !seed.is_multiple_of(5) {
                        draft[at * cols + r.below(cols)] = T::from_f64(0.5);
                    }
                }
            }
        }
        let each = |r: &mut Random, f: &dyn Fn(&mut Random) -> u64| -> Option<Vec<u64>> {
            r.once_in(3).then(|| (0..sequences).map(|_| f(r)).collect())
        };
        let temperature =
            |r: &mut Random| [1.0, 1.0, 0.7, 1.5, 50.0, f64::INFINITY, 0.0][r.below(7)];
        Self {
            cols,
            offsets,
            drafted,
            target,
            target_probs,
            draft,
            draft_kind,
            seed: r.next(),
            step: [3, 1 << 32, (1 << 48) - 9][r.below(3)],
            first_row: [0, 5, (1 << 32) - 1][r.below(3)],
            temperature: temperature(r),
            seeds: each(r, &|r| r.next()),
            steps: each(r, &|r| r.next() >> 17),
            temperatures: r.once_in(3).then(|| (0..sequences).map(|_| temperature(r)).collect()),
        }
    }

    fn sequences(&self) -> usize {
        self.offsets.len() - 1
    }

    fn rows(&self) -> usize {
        self.offsets[self.sequences()] - self.offsets[0] + self.sequences()
    }

    fn views(&self) -> (TargetRows<'_, T>, DraftRows<'_, T>, Ragged<'_, usize>) {
        let target = Matrix::new(&self.target, self.cols).expect("rows");
        let draft = Matrix::new(&self.draft, self.cols).expect("rows");
        (
            if self.target_probs { TargetRows::Probs(target) } else { TargetRows::Logits(target) },
            [DraftRows::Logits(draft), DraftRows::Probs(draft), DraftRows::OneHot][self.draft_kind],
            Ragged::new(&self.drafted, &self.offsets).expect("offsets"),
        )
    }

    fn sampler(&self) -> SpeculativeSampler<'_> {
        let mut sampler = SpeculativeSampler::new(self.seed)
            .step(self.step)
            .first_row(self.first_row)
            .temperature(self.temperature);
        if let Some(seeds) = &self.seeds {
            sampler = sampler.seeds(seeds);
        }
        if let Some(steps) = &self.steps {
            sampler = sampler.steps(steps);
        }
        if let Some(temperatures) = &self.temperatures {
            sampler = sampler.temperatures(temperatures);
        }
        sampler
    }

    fn run(&self, sampler: SpeculativeSampler) -> (Vec<usize>, Vec<usize>) {
        let (target, draft, drafted) = self.views();
        let (mut tokens, mut accepted) = (vec![7_777; self.rows()], vec![7_777; self.sequences()]);
        sampler.verify(target, draft, drafted, &mut tokens, &mut accepted).expect("a valid call");
        (tokens, accepted)
    }

    /// Sequence `i` by itself, with the numbers that it has in the batch.
    fn alone(&self, i: usize) -> Self {
        let (start, end) =
            (self.offsets[i] - self.offsets[0], self.offsets[i + 1] - self.offsets[0]);
        let first_row = self.first_row + if self.seeds.is_some() { 0 } else { i as u64 };
        Self {
            offsets: vec![0, end - start],
            drafted: self.drafted[self.offsets[i]..self.offsets[i + 1]].to_vec(),
            target: self.target[(start + i) * self.cols..(end + i + 1) * self.cols].to_vec(),
            draft: self.draft[start * self.cols..end * self.cols].to_vec(),
            first_row,
            seeds: self.seeds.as_ref().map(|all| vec![all[i]]),
            steps: self.steps.as_ref().map(|all| vec![all[i]]),
            temperatures: self.temperatures.as_ref().map(|all| vec![all[i]]),
            ..self.clone()
        }
    }

    /// The tokens and the number of accepted ones, by the definition.
    fn model(&self) -> (Vec<usize>, Vec<usize>) {
        let (mut tokens, mut accepted) = (Vec::new(), Vec::new());
        for i in 0..self.sequences() {
            let drafted = &self.drafted[self.offsets[i]..self.offsets[i + 1]];
            let (count, token) = self.model_of(i, drafted);
            tokens.extend(&drafted[..count]);
            tokens.push(token);
            tokens.resize(self.offsets[i + 1] - self.offsets[0] + i + 1, NONE);
            accepted.push(count);
        }
        (tokens, accepted)
    }

    fn model_of(&self, i: usize, drafted: &[usize]) -> (usize, usize) {
        let temperature = self.temperatures.as_ref().map_or(self.temperature, |all| all[i]);
        let seed = self.seeds.as_ref().map_or(self.seed, |all| all[i]);
        let number = self.first_row + if self.seeds.is_some() { 0 } else { i as u64 };
        let step = self.steps.as_ref().map_or(self.step, |all| all[i]);
        let start = self.offsets[i] - self.offsets[0];
        let row_of = |rows: &[T], row: usize| rows[row * self.cols..(row + 1) * self.cols].to_vec();
        let wide = |x: Vec<T>| -> Vec<f64> { x.iter().map(|x| x.to_f64()).collect() };
        let probs = |x: Vec<T>, given: bool| match given {
            true => wide(x),
            false => softmax_of(&x, temperature),
        };
        for at in 0..=drafted.len() {
            let p = row_of(&self.target, start + i + at);
            if temperature == 0.0 {
                let p = wide(p);
                let largest = p.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let fine = match self.target_probs {
                    true => largest > 0.0 && units(largest).is_some(),
                    false => largest.is_finite(),
                };
                if p.iter().any(|p| p.is_nan()) || !fine {
                    return (at, NONE);
                }
                let token = p.iter().position(|&p| p == largest).expect("it is there");
                if drafted.get(at) != Some(&token) {
                    return (at, token);
                }
                continue;
            }
            let step = step + at as u64;
            let upper = (step >> 32) << 16 | number >> 32;
            let counter = [u32::MAX, number as u32, step as u32, upper as u32];
            let bits = philox(counter, [seed as u32, (seed >> 32) as u32]);
            let word = |i: usize| u128::from(bits[i]) | u128::from(bits[i + 1]) << 32;
            let draw = |weights: &[u128]| {
                let total: u128 = weights.iter().sum();
                let (target, mut sum) = ((word(0) * total) >> 64, 0);
                weights.iter().position(|w| {
                    sum += w;
                    sum > target
                })
            };
            let p = probs(p, self.target_probs);
            let is_row = self.target_probs || !p[0].is_nan();
            let of_p = |p: &[f64]| all_units(p).and_then(|p| draw(&p)).unwrap_or(NONE);
            let Some(&token) = drafted.get(at).filter(|_| is_row) else {
                return (at, if is_row { of_p(&p) } else { NONE });
            };
            let q = match self.draft_kind {
                2 => (0..self.cols).map(|x| f64::from(u8::from(x == token))).collect(),
                kind => probs(row_of(&self.draft, start + at), kind == 1),
            };
            if self.draft_kind == 0 && q[0].is_nan() {
                return (at, NONE);
            }
            let (Some(of_token), Some(of_draft)) = (units(p[token]), units(q[token])) else {
                return (at, NONE);
            };
            if of_draft > 0 && word(2) < (of_token << 64) / of_draft {
                continue;
            }
            let (Some(p_units), Some(q_units)) = (all_units(&p), all_units(&q)) else {
                return (at, NONE);
            };
            let residual: Vec<u128> =
                p_units.iter().zip(&q_units).map(|(p, q)| p.saturating_sub(*q)).collect();
            return (at, draw(&residual).unwrap_or_else(|| of_p(&p)));
        }
        unreachable!("the last row has no drafted token")
    }
}

fn check<T: Element>(seed: u64) -> (usize, usize) {
    let case = Case::<T>::random(seed);
    let want = case.model();
    for kernel in available() {
        for threads in [Threads::Serial, Threads::Exactly(NonZeroUsize::new(3).expect("not 0"))] {
            let got = case.run(case.sampler().exec(by(kernel).threads(threads)));
            assert_eq!(got, want, "{} {} {seed} {case:?}", T::NAME, kernel.name());
        }
    }
    let mut cut = (Vec::new(), Vec::new());
    for i in 0..case.sequences() {
        let alone = case.alone(i);
        let (tokens, accepted) = alone.run(alone.sampler());
        cut.0.extend(tokens);
        cut.1.extend(accepted);
    }
    assert_eq!(cut, want, "{} {seed}: alone", T::NAME);
    (want.1.iter().sum(), case.rows() - case.sequences())
}

#[test]
fn every_kernel_and_cut_gives_the_model() {
    let (mut accepted, mut drafted) = (0, 0);
    for seed in 0..if quick() { 25 } else { 250 } {
        for (a, d) in
            [check::<f32>(seed), check::<f64>(seed), check::<f16>(seed), check::<bf16>(seed)]
        {
            (accepted, drafted) = (accepted + a, drafted + d);
        }
    }
    // Both happen often.
    assert!(accepted * 5 > drafted && accepted * 5 < drafted * 4, "{accepted} of {drafted}");
}

#[test]
fn sums_of_excess_are_those_of_the_reference() {
    fn check<T: Element>() {
        let reference = Ready::of(scalar()).expect("it runs everywhere");
        let r = &mut Random(3);
        let odd = [0.0, -0.0, 1.0, 1.0 + 1e-7, f64::EPSILON / 2.0, 1e-310, 5e-324, 1.5e-16, 0.75];
        let bad = [f64::NAN, -f64::NAN, -1e-30, 1.001, f64::INFINITY, f64::NEG_INFINITY];
        for n in [1, 2, 15, 16, 17, 100, SPAN - 1, SPAN, SPAN + 1, 3 * SPAN + 7] {
            for case in 0..if quick() { 5 } else { 20 } {
                let mut row = |scale: f64| -> Vec<T::Arithmetic> {
                    let one = |r: &mut Random| match r.below(5) {
                        0 => odd[r.below(odd.len())],
                        _ => r.signed().abs() * scale,
                    };
                    let mut row: Vec<_> = (0..n).map(|_| T::Arithmetic::from_f64(one(r))).collect();
                    // One that is no probability, or many, whose units are any numbers.
                    for _ in 0..[0, 0, 0, r.below(2), r.below(n + 1)][case % 5] {
                        row[r.below(n)] = T::Arithmetic::from_f64(bad[r.below(bad.len())]);
                    }
                    row
                };
                let (p, q) = (row(1.0), row([1.0, 1e-9][case % 2]));
                for q in [None, Some(&q[..])] {
                    let mut want = vec![7; n.div_ceil(SPAN)];
                    let fine = reference.excess::<T>(&p, q, &mut want);
                    for kernel in available() {
                        let mut sums = vec![9; want.len()];
                        let ready = Ready::of(kernel).expect("available");
                        assert_eq!(ready.excess::<T>(&p, q, &mut sums), fine, "{}", kernel.name());
                        assert!(!fine || sums == want, "{} {n}", kernel.name());
                    }
                }
            }
        }
    }
    check::<f32>();
    check::<f64>();
}

/// The chi-squared statistic, in standard deviations above its mean.
fn surprise(counts: &[usize], p: &[f64]) -> f64 {
    let n = counts.iter().sum::<usize>() as f64;
    let chi = |(&c, p): (&usize, &f64)| (c as f64 - n * p).powi(2) / (n * p);
    let chi: f64 = counts.iter().zip(p).map(chi).sum();
    let freedom = (p.len() - 1) as f64;
    (chi - freedom) / (2.0 * freedom).sqrt()
}

const VOCABULARY: usize = 6;

/// Two target rows after each other and two draft rows, which are not alike.
const TARGET: [[f32; VOCABULARY]; 3] = [
    [0.0, 1.0, -1.0, 0.5, 2.0, -2.0],
    [1.5, 0.0, 0.0, -0.5, 0.3, 1.0],
    [-1.0, 0.2, 1.2, 0.0, 0.7, 0.4],
];
const DRAFT: [[f32; VOCABULARY]; 2] =
    [[1.0, 0.0, 0.5, 0.5, 0.5, 0.0], [0.0, 0.3, -2.0, 1.0, 1.2, 1.1]];

/// Decodes sequences of three tokens, in rounds of at most two drafted tokens: a round drafts for
/// the positions that are left, and emits what is accepted and one more. `Sampler` draws drafted
/// tokens with the same seed, steps and numbers.
fn decode(n: usize, seed: u64, temperature: f64, kind: usize) -> Vec<[usize; 3]> {
    let draft_logits = DRAFT.concat();
    let draft_probs: Vec<f32> =
        DRAFT.iter().flat_map(|x| softmax_of(x, temperature)).map(|p| p as f32).collect();
    let target = TARGET.concat();
    let sequence = |i: usize| {
        let mut done = [0; 3];
        let mut at = 0;
        while at < 3 {
            let k = 2 - at;
            let mut drafted = [0; 2];
            for (j, token) in drafted[..k].iter_mut().enumerate() {
                // One-hot drafts propose anything: the first four tokens in turn.
                *token = (i + j) % 4;
                if kind < 2 {
                    let sampler = Sampler::new(seed).temperature(temperature).first_row(i as u64);
                    let sampler = sampler.step((at + j) as u64);
                    let row = rows(&DRAFT[at + j], VOCABULARY);
                    sampler.sample(row, std::slice::from_mut(token)).expect("a valid call");
                }
            }
            let from = at * VOCABULARY;
            let draft = [
                DraftRows::Logits(rows(&draft_logits[from..], VOCABULARY)),
                DraftRows::Probs(rows(&draft_probs[from..], VOCABULARY)),
                DraftRows::OneHot,
            ][kind];
            let (mut tokens, mut accepted) = ([0; 3], [0]);
            SpeculativeSampler::new(seed)
                .temperature(temperature)
                .step(at as u64)
                .first_row(i as u64)
                .verify(
                    TargetRows::Logits(rows(&target[from..], VOCABULARY)),
                    draft,
                    Ragged::new(&drafted, &[0, k]).expect("offsets"),
                    &mut tokens[..k + 1],
                    &mut accepted,
                )
                .expect("a valid call");
            let count = accepted[0] + 1;
            done[at..at + count].copy_from_slice(&tokens[..count]);
            at += count;
        }
        done
    };
    (0..n).map(sequence).collect()
}

/// Whatever the draft is, tokens and pairs of tokens have the target's distribution, and are
/// independent; so have those that are drawn from the target alone.
#[test]
fn tokens_have_the_distribution_of_the_target() {
    let n = if quick() { 5000 } else { 50_000 };
    for (temperature, seed) in [(1.0, 1), (0.6, 2), (2.5, 3)] {
        let p: Vec<Vec<f64>> = TARGET.iter().map(|x| softmax_of(x, temperature)).collect();
        let q: Vec<Vec<f64>> = DRAFT.iter().map(|x| softmax_of(x, temperature)).collect();
        let pairs = |a: &[f64], b: &[f64]| -> Vec<f64> {
            a.iter().flat_map(|a| b.iter().map(move |b| a * b)).collect()
        };
        for kind in 0..3 {
            let tokens = decode(n, seed, temperature, kind);
            for (a, b) in [(0, 1), (1, 2), (0, 2)] {
                let mut counts = vec![0; VOCABULARY * VOCABULARY];
                tokens.iter().for_each(|t| counts[t[a] * VOCABULARY + t[b]] += 1);
                let high = surprise(&counts, &pairs(&p[a], &p[b]));
                assert!(high < 5.0, "{kind} {temperature} {a} {b}: {high}");
                // The test is not blind: it sees the draft's distribution in their place, and one
                // that is off by a few percent.
                assert!(surprise(&counts, &pairs(&q[a.min(1)], &p[b])) > 20.0);
                let off = |(i, p): (usize, &f64)| p * if i % 2 == 0 { 1.05 } else { 0.95 };
                let wrong: Vec<f64> = p[a].iter().enumerate().map(off).collect();
                let sum: f64 = wrong.iter().sum();
                let wrong: Vec<f64> = wrong.iter().map(|p| p / sum).collect();
                assert!(quick() || surprise(&counts, &pairs(&wrong, &p[b])) > 5.0);
            }
            // Plain sampling, with the same test.
            let mut counts = vec![0; VOCABULARY];
            let mut draws = vec![0; n];
            let row = Matrix::new(&TARGET[0], VOCABULARY).expect("a row");
            let sampler = Sampler::new(seed).temperature(temperature);
            sampler.sample(row, &mut draws).expect("a valid call");
            draws.iter().for_each(|&t| counts[t] += 1);
            assert!(surprise(&counts, &p[0]) < 5.0);
            // Two samples of one distribution.
            let mut both = vec![0; VOCABULARY];
            tokens.iter().for_each(|t| both[t[0]] += 1);
            let chi: f64 = counts
                .iter()
                .zip(&both)
                .map(|(&a, &b)| (a as f64 - b as f64).powi(2) / (a + b) as f64)
                .sum();
            let freedom = (VOCABULARY - 1) as f64;
            assert!((chi - freedom) / (2.0 * freedom).sqrt() < 5.0, "{kind} {temperature}: {chi}");
        }
    }
}

/// The number of accepted tokens is what theory says: `sum min(p, q)` of a position, if those
/// before it were accepted.
#[test]
fn as_many_are_accepted_as_theory_says() {
    let n = if quick() { 10_000 } else { 100_000 };
    let (p, q) = (softmax_of(&TARGET[0], 1.0), softmax_of(&DRAFT[0], 1.0));
    let rate: f64 = p.iter().zip(&q).map(|(p, q)| p.min(*q)).sum();
    let mut drafted = vec![0; n];
    let row = Matrix::new(&DRAFT[0], VOCABULARY).expect("a row");
    Sampler::new(5).sample(row, &mut drafted).expect("a valid call");
    let target: Vec<f32> = TARGET[..2].concat().repeat(n);
    let draft: Vec<f32> = DRAFT[0].repeat(n);
    let offsets: Vec<usize> = (0..=n).collect();
    let (mut tokens, mut accepted) = (vec![0; 2 * n], vec![0; n]);
    SpeculativeSampler::new(5)
        .verify(
            TargetRows::Logits(Matrix::new(&target, VOCABULARY).expect("rows")),
            DraftRows::Logits(Matrix::new(&draft, VOCABULARY).expect("rows")),
            Ragged::new(&drafted, &offsets).expect("offsets"),
            &mut tokens,
            &mut accepted,
        )
        .expect("a valid call");
    let count = accepted.iter().sum::<usize>() as f64;
    let (mean, deviation) = (rate * n as f64, (rate * (1.0 - rate) * n as f64).sqrt());
    assert!((count - mean).abs() < 4.5 * deviation, "{count}, not {mean}");
    assert!(rate > 0.3 && rate < 0.8);
}

/// The distribution of what comes out, computed from the definition's integers for every token that
/// can be drafted, is that of the target, but for what rounding the probabilities changes.
#[test]
fn the_definition_is_exact() {
    for (temperature, bound) in [(1.0, 1e-6), (0.3, 1e-6), (4.0, 1e-6)] {
        for (x, y) in [(TARGET[0], DRAFT[0]), (TARGET[1], DRAFT[1]), (DRAFT[1], DRAFT[1])] {
            let p = all_units(&softmax_of(&x, temperature)).expect("probabilities");
            let q = all_units(&softmax_of(&y, temperature)).expect("probabilities");
            let (of_p, of_q) = (p.iter().sum::<u128>() as f64, q.iter().sum::<u128>() as f64);
            let residual: Vec<_> = p.iter().zip(&q).map(|(p, q)| p.saturating_sub(*q)).collect();
            let total = residual.iter().sum::<u128>() as f64;
            let mut out = [0.0; VOCABULARY];
            for token in 0..VOCABULARY {
                let accepts = (p[token] as f64 / q[token] as f64).min(1.0);
                let drafted = q[token] as f64 / of_q;
                out[token] += drafted * accepts;
                for (out, (r, p)) in out.iter_mut().zip(residual.iter().zip(&p)) {
                    let share = if total > 0.0 { *r as f64 / total } else { *p as f64 / of_p };
                    *out += drafted * (1.0 - accepts) * share;
                }
            }
            for (out, p) in out.iter().zip(&p) {
                let p = *p as f64 / of_p;
                assert!((out - p).abs() < bound * p, "{out} {p}");
            }
        }
    }
}

/// One sequence on every kernel.
fn verify<T: Element>(
    sampler: SpeculativeSampler,
    target: TargetRows<T>,
    draft: DraftRows<T>,
    drafted: &[usize],
) -> (Vec<usize>, usize) {
    let mut first = None;
    for kernel in available() {
        let (mut tokens, mut accepted) = (vec![55; drafted.len() + 1], [55]);
        let offsets = [0, drafted.len()];
        let drafted = Ragged::new(drafted, &offsets).expect("offsets");
        let sampler = sampler.exec(by(kernel));
        sampler.verify(target, draft, drafted, &mut tokens, &mut accepted).expect("valid");
        let got = (tokens, accepted[0]);
        assert_eq!(first.get_or_insert_with(|| got.clone()), &got, "{}", kernel.name());
    }
    first.expect("a kernel")
}

fn rows<T>(x: &[T], cols: usize) -> Matrix<'_, T> {
    Matrix::new(x, cols).expect("rows")
}

#[test]
fn greedy_takes_the_first_largest() {
    let x = [0.0f32, 3.0, 3.0, 1.0, 0.0, -1.0, 0.0, 0.0, 5.0];
    let probs = [0.25f32, 0.375, 0.375, 0.5, 0.3, 0.2, 0.0, 0.0, 1.0];
    let greedy = SpeculativeSampler::new(1).temperature(0.0);
    for target in [TargetRows::Logits(rows(&x, 3)), TargetRows::Probs(rows(&probs, 3))] {
        let run = |drafted: &[usize]| verify(greedy, target, DraftRows::OneHot, drafted);
        assert_eq!(run(&[1, 0]), (vec![1, 0, 2], 2));
        assert_eq!(run(&[1, 1]), (vec![1, 0, NONE], 1));
        // An equal one, but not the first.
        assert_eq!(run(&[2, 0]), (vec![1, NONE, NONE], 0));
    }
    // Neither the draft nor the seed matters.
    let draft = [f32::NAN; 6];
    let target = TargetRows::Logits(rows(&x, 3));
    let draft = DraftRows::Logits(rows(&draft, 3));
    let other = SpeculativeSampler::new(9).temperature(0.0).step(4);
    assert_eq!(verify(other, target, draft, &[1, 0]), (vec![1, 0, 2], 2));
    // As `Sampler`, where there is nothing to draw.
    let (inf, nan) = (f32::INFINITY, f32::NAN);
    for bad in [[1.0, nan], [inf, 2.0], [-inf, -inf], [nan, inf]] {
        let x = [bad[0], bad[1], 0.0, 1.0];
        let target = TargetRows::Logits(rows(&x, 2));
        assert_eq!(verify(greedy, target, DraftRows::OneHot, &[0]), (vec![NONE, NONE], 0));
        let x = [1.0, 0.0, bad[0], bad[1]];
        let target = TargetRows::Logits(rows(&x, 2));
        assert_eq!(verify(greedy, target, DraftRows::OneHot, &[0]), (vec![0, NONE], 1));
    }
    for bad in [[0.5, nan], [0.0, 0.0], [2.0, 0.5], [-1.0, -2.0]] {
        let x = [bad[0], bad[1], 0.0, 1.0];
        let target = TargetRows::Probs(rows(&x, 2));
        assert_eq!(verify(greedy, target, DraftRows::OneHot, &[0]), (vec![NONE, NONE], 0));
    }
}

#[test]
fn rows_without_a_token_end_their_sequence_alone() {
    let (inf, nan) = (f32::INFINITY, f32::NAN);
    let fine = [0.0f32, 0.0, -inf];
    for temperature in [1.0, 0.5, inf.into()] {
        let sampler = SpeculativeSampler::new(3).temperature(temperature);
        for bad in [[0.0, nan, 0.0], [0.0, 0.0, inf], [-inf; 3]] {
            // Of the target: in the first row, and in the last.
            let x = [bad, fine, fine].concat();
            let target = TargetRows::Logits(rows(&x, 3));
            let none = (vec![NONE; 3], 0);
            assert_eq!(verify(sampler, target, DraftRows::OneHot, &[0, 1]), none);
            let x = [[0.0, -inf, -inf], bad].concat();
            let target = TargetRows::Logits(rows(&x, 3));
            assert_eq!(verify(sampler, target, DraftRows::OneHot, &[0]), (vec![0, NONE], 1));
            // Of the draft, where the target is fine.
            let x = [fine, fine].concat();
            let target = TargetRows::Logits(rows(&x, 3));
            let draft = DraftRows::Logits(rows(&bad, 3));
            assert_eq!(verify(sampler, target, draft, &[0]), (vec![NONE; 2], 0));
        }
        // In a batch, the others are not affected.
        let x = [fine, [nan; 3], fine].concat();
        let (mut tokens, mut accepted) = ([7; 3], [7; 3]);
        let none = Ragged::new(&[], &[0usize; 4]).expect("offsets");
        let target = TargetRows::Logits(rows(&x, 3));
        sampler
            .verify(target, DraftRows::OneHot, none, &mut tokens, &mut accepted)
            .expect("a valid call");
        assert!(tokens[0] < 2 && tokens[1] == NONE && tokens[2] < 2 && accepted == [0; 3]);
    }
    // Probabilities count where they are read: here those of the token alone.
    let sampler = SpeculativeSampler::new(3);
    let draft = [0.5f32, nan, 0.1];
    let draft = DraftRows::Probs(rows(&draft, 3));
    let target = [0.6f32, -3.0, nan, 0.0, 0.0, 1.0];
    let target = TargetRows::Probs(rows(&target, 3));
    assert_eq!(verify(sampler, target, draft, &[0]), (vec![0, 2], 1));
    for token in [1, 2] {
        assert_eq!(verify(sampler, target, draft, &[token]), (vec![NONE; 2], 0));
    }
    // And all of them for a draw.
    for bad in [nan, -0.1, 1.1, inf] {
        let x = [0.0, 0.5, bad];
        let target = TargetRows::Probs(rows(&x, 3));
        assert_eq!(verify(sampler, target, DraftRows::OneHot, &[]), (vec![NONE], 0));
    }
    let zeros = [0.0f32; 6];
    let target = TargetRows::Probs(rows(&zeros, 3));
    assert_eq!(verify(sampler, target, DraftRows::OneHot, &[0]), (vec![NONE; 2], 0));
    // Sums that no probabilities have: 5,000 times 1.
    let ones = [1.0f32; 5000];
    let target = TargetRows::Probs(rows(&ones, 5000));
    assert_eq!(verify(sampler, target, DraftRows::OneHot, &[]), (vec![NONE], 0));
}

#[test]
fn what_the_draft_cannot_draw_is_rejected() {
    let target = [0.5f32, 0.25, 0.25, 0.0, 0.0, 1.0];
    let draft = [0.0f32, 0.5, 0.5];
    for seed in 0..50 {
        let sampler = SpeculativeSampler::new(seed);
        let target = TargetRows::Probs(rows(&target, 3));
        let draft = DraftRows::Probs(rows(&draft, 3));
        // The residual has nothing but token 0.
        assert_eq!(verify(sampler, target, draft, &[0]), (vec![0, NONE], 0));
    }
}

/// If nothing is left of the target, its own probabilities decide.
#[test]
fn without_a_residual_the_target_decides() {
    let target = [0.5f32, 0.5, 1.0, 0.0];
    // More than 1 together, which is the rounding of many tokens in the extreme.
    let draft = [1.0f32, 0.5];
    let mut seen = [0; 3];
    for seed in 0..200 {
        let sampler = SpeculativeSampler::new(seed);
        let target = TargetRows::Probs(rows(&target, 2));
        let draft = DraftRows::Probs(rows(&draft, 2));
        let (tokens, accepted) = verify(sampler, target, draft, &[0]);
        match accepted {
            1 => assert_eq!(tokens, [0, 0]),
            _ => assert_eq!(tokens[1], NONE),
        }
        seen[if accepted == 1 { 2 } else { tokens[0] }] += 1;
    }
    assert!(seen[0] > 30 && seen[1] > 30 && seen[2] > 70, "{seen:?}");
    // The same for a one-hot draft.
    let target = [0.5f32, 0.0, 1.0, 0.0];
    for seed in 0..20 {
        let target = TargetRows::Probs(rows(&target, 2));
        let sampler = SpeculativeSampler::new(seed);
        let (tokens, accepted) = verify(sampler, target, DraftRows::OneHot, &[0]);
        assert_eq!(tokens, if accepted == 1 { [0, 0] } else { [0, NONE] });
    }
}

/// Models that are equal accept everything.
#[test]
fn equal_rows_accept_everything() {
    let r = &mut Random(8);
    for temperature in [0.2, 1.0, 7.0] {
        let draft: Vec<f32> = row(r, 0, 4 * 5000);
        let mut target = draft.clone();
        target.extend(row::<f32>(r, 0, 5000));
        let drafted: Vec<usize> = (0..4)
            .map(|i| {
                let row = &draft[i * 5000..(i + 1) * 5000];
                let mut token = [0];
                let sampler = Sampler::new(8).temperature(temperature).step(i as u64);
                sampler.sample(rows(row, 5000), &mut token).expect("a valid call");
                token[0]
            })
            .collect();
        let sampler = SpeculativeSampler::new(8).temperature(temperature);
        let target = TargetRows::Logits(rows(&target, 5000));
        let draft = DraftRows::Logits(rows(&draft, 5000));
        let (tokens, accepted) = verify(sampler, target, draft, &drafted);
        assert_eq!((accepted, &tokens[..4]), (4, &drafted[..]));
        assert!(tokens[4] < 5000);
    }
}

/// Rows of long vocabularies, in several blocks with far maxima.
#[test]
fn long_rows_are_summed_by_their_own_maximum() {
    let n = 70_000;
    let r = &mut Random(2);
    for far in [0.0f32, 60.0, 300.0, 60_000.0] {
        let mut target: Vec<f32> = row(r, 0, 2 * n);
        target[n - 3] = far;
        let mut draft: Vec<f32> = row(r, 0, n);
        draft[5] = far;
        let case = Case {
            cols: n,
            offsets: vec![0, 1],
            drafted: vec![5],
            target,
            target_probs: false,
            draft,
            draft_kind: 0,
            seed: 3,
            step: 0,
            first_row: 0,
            temperature: 1.0,
            seeds: None,
            steps: None,
            temperatures: None,
        };
        let want = case.model();
        for kernel in available() {
            assert_eq!(case.run(case.sampler().exec(by(kernel))), want, "{far} {}", kernel.name());
        }
    }
}

#[test]
fn strides_and_no_rows() {
    // Padding is not read.
    let nan = f32::NAN;
    let x = [0.0f32, 1.0, nan, 0.0, 1.0];
    let target = TargetRows::Probs(Matrix::with_stride(&x, 2, 2, 3).expect("rows"));
    let sampler = SpeculativeSampler::new(1);
    assert_eq!(verify(sampler, target, DraftRows::OneHot, &[1]), (vec![1, 1], 1));
    // No sequences; sequences without columns.
    let none = TargetRows::Logits(Matrix::<f32>::new(&[], 3).expect("no rows"));
    let no_offsets = Ragged::new(&[], &[0usize]).expect("no sequences");
    let draft = DraftRows::Logits(Matrix::new(&[], 7).expect("no rows"));
    sampler.verify(none, draft, no_offsets, &mut [], &mut []).expect("nothing to do");
    let empty = TargetRows::Logits(Matrix::<f32>::with_stride(&[], 1, 0, 0).expect("no columns"));
    for temperature in [0.0, 1.0, f64::INFINITY] {
        let sampler = sampler.temperature(temperature);
        assert_eq!(verify(sampler, empty, DraftRows::OneHot, &[]), (vec![NONE], 0));
    }
}

#[test]
fn errors_name_what_is_wrong() {
    let x = [0.25f32; 12];
    let new = SpeculativeSampler::new(1);
    let drafted = [1usize, 2];
    let refused = |sampler: SpeculativeSampler,
                   sizes: (usize, usize, usize, usize),
                   offsets: &[usize],
                   cols: usize,
                   drafted: &[usize]| {
        let (target, draft, places, counts) = sizes;
        let (mut tokens, mut accepted) = (vec![5; places], vec![5; counts]);
        let result = sampler.verify(
            TargetRows::Logits(rows(&x[..target * 3], 3)),
            DraftRows::Logits(rows(&x[..draft * cols], cols)),
            Ragged::new(drafted, offsets).expect("offsets"),
            &mut tokens,
            &mut accepted,
        );
        assert!(tokens.iter().chain(&accepted).all(|&t| t == 5), "written");
        result.expect_err("wrong")
    };
    let by = |sampler, sizes| refused(sampler, sizes, &[0, 2], 3, &drafted).to_string();
    assert_eq!(
        by(new, (4, 2, 3, 1)),
        "the number of the target's rows (one for each drafted token and for each sequence) must \
         be 3, got 4"
    );
    assert_eq!(by(new, (3, 3, 3, 1)), "the matrix of the draft must be 2 x 3, got 3 x 3");
    assert_eq!(by(new, (3, 0, 3, 1)), "the matrix of the draft must be 2 x 3, got 0 x 3");
    let e = refused(new, (3, 2, 3, 1), &[0, 2], 4, &drafted).to_string();
    assert_eq!(e, "the matrix of the draft must be 2 x 3, got 2 x 4");
    assert_eq!(
        by(new, (3, 2, 2, 1)),
        "the number of places for tokens (one for each of the target's rows) must be 3, got 2"
    );
    let e = "the number of counts (one for each sequence) must be 1, got 2";
    assert_eq!(by(new, (3, 2, 3, 2)), e);
    let fine = (3, 2, 3, 1);
    let e = "the number of seeds (one for each sequence) must be 1, got 2";
    assert_eq!(by(new.seeds(&[1, 2]), fine), e);
    let e = "the number of steps (one for each sequence) must be 1, got 0";
    assert_eq!(by(new.steps(&[]), fine), e);
    let e = "the number of temperatures (one for each sequence) must be 1, got 2";
    assert_eq!(by(new.temperatures(&[1.0, 2.0]), fine), e);
    for bad in &[[f64::NAN], [-1.0], [f64::NEG_INFINITY]] {
        let e = by(new.temperature(bad[0]), fine);
        assert!(e.starts_with("the temperature must be 0 or above, got"), "{e}");
        let e = by(new.temperatures(bad), fine);
        assert!(e.starts_with("the temperature 0 must be 0 or above, got"), "{e}");
    }
    let range = "the step of a sequence's last token must be below 2^48, got";
    assert!(by(new.step((1 << 48) - 2), fine).starts_with(range));
    assert!(by(new.steps(&[u64::MAX]), fine).starts_with(range));
    let e = by(new.first_row(1 << 48), fine);
    assert!(e.starts_with("the number of a sequence must be below 2^48"), "{e}");
    // The row of the target is named: the second sequence's first one.
    let e = refused(new, (4, 2, 4, 2), &[0, 1, 2], 3, &[2, 3]);
    assert!(matches!(e, Error::Column { row: 2, index: 3, cols: 3, .. }), "{e}");
    let e = refused(new, (3, 2, 3, 1), &[0, 2], 3, &[0, usize::MAX]);
    assert!(matches!(e, Error::Column { row: 1, cols: 3, .. }), "{e}");
    let fall = Ragged::new(&drafted, &[0i64, 2, 1]).expect_err("they fall").to_string();
    assert_eq!(fall, "the offset 2 must be at least the one before, got 1");
}

/// Scratch memory of the caller is enough.
#[test]
fn scratch_size_is_enough() {
    let case = Case::<bf16>::random(6);
    let shape = softmax::Shape::new(case.rows(), case.cols);
    let size = case.sampler().scratch_size::<bf16>(shape).expect("a valid shape");
    let mut memory = vec![0; size];
    let got = softmax::with_scratch(&mut memory, || case.run(case.sampler()));
    assert_eq!(got, case.model());
}

/// The same tokens on every platform, and in every version that does not announce a change.
#[test]
fn digest() {
    let mut fnv = Fnv::default();
    for seed in 0..60 {
        let case = Case::<f32>::random(seed);
        let (tokens, accepted) = case.run(case.sampler());
        tokens.iter().chain(&accepted).for_each(|&t| fnv.add(&[f64::from_bits(t as u64)]));
    }
    assert_eq!(fnv.0, 0x55b2_6019_313a_2514, "{:#x}", fnv.0);
}
