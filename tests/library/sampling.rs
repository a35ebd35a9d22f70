//! Sampling: every kernel, type, number of threads and cut of a batch against a simple model that
//! sorts whole rows of integers; and the distribution of draws.

use std::num::NonZeroUsize;

use crate::common::*;
use proptest::prelude::*;
use softmax::half::{bf16, f16};
use softmax::{
    Element, Error, Matrix, MatrixMut, Method, Number, Order, Sampler, Softmax, Threads,
};
use softmax_kernels::{Ready, Scale};
use softmax_measure::oracle::{Dd, F32, ulps};

/// A shape and options.
#[derive(Clone, Debug)]
struct Case {
    rows: usize,
    cols: usize,
    each: usize,
    kind: usize,
    seed: u64,
    temperature: f64,
    top_k: usize,
    top_p: f64,
    min_p: f64,
    typical_p: f64,
    min_keep: usize,
    order: Order,
    method: Method,
    bias: Vec<(usize, f32)>,
    history: Vec<Vec<usize>>,
    repetition: f64,
    presence: f64,
    frequency: f64,
    step: u64,
    first_row: u64,
}

impl Case {
    fn random(seed: u64) -> Self {
        let r = &mut Random(seed);
        let rows = 1 + r.below(4);
        let cols = match r.below(8) {
            0 => 1 + r.below(4),
            1 => 2040 + r.below(20),
            2 | 3 => 4000 + r.below(4000),
            4 => 20_000 + r.below(20_000),
            _ => 1 + r.below(300),
        };
        let share = |r: &mut Random| [0.9, 0.5, 0.95, 0.01, 0.999, 0.3, 0.0][r.below(7)];
        let bias = if r.once_in(4) {
            let value = |r: &mut Random| match r.below(5) {
                0 => f32::NEG_INFINITY,
                _ => (r.signed() * 10.0) as f32,
            };
            (0..1 + r.below(5)).map(|_| (r.below(cols), value(r))).collect()
        } else {
            Vec::new()
        };
        let histories = [0, 1, rows][r.below(3)];
        let history =
            (0..histories).map(|_| (0..r.below(20)).map(|_| r.below(cols)).collect()).collect();
        Self {
            rows,
            cols,
            each: 1 + r.below(3),
            kind: r.below(KINDS + 3),
            seed,
            temperature: [1.0, 1.0, 0.7, 1.5, 0.01, 50.0, f64::INFINITY, 0.0][r.below(8)],
            top_k: if r.once_in(3) { [1, 5, 50, 3000, 1 + r.below(cols)][r.below(5)] } else { 0 },
            top_p: if r.once_in(2) { share(r) } else { 1.0 },
            min_p: if r.once_in(4) { [0.05, 0.5, 1.0, 1e-4, 1e-9][r.below(5)] } else { 0.0 },
            typical_p: if r.once_in(5) { share(r) } else { 1.0 },
            min_keep: 1,
            order: [Order::Transformers, Order::LlamaCpp][r.below(2)],
            method: [Method::InverseCdf, Method::InverseCdf, Method::GumbelMax][r.below(3)],
            bias,
            history,
            repetition: [1.0, 1.3][r.below(2)],
            presence: [0.0, 0.5][r.below(2)],
            frequency: [0.0, 0.25][r.below(2)],
            step: [0, 1, 77 << 32][r.below(3)],
            first_row: [0, 5, 3 << 40][r.below(3)],
        }
    }

    /// A random one, with a least number of tokens, which those of the digest do not have.
    fn any(seed: u64) -> Self {
        let mut case = Self::random(seed);
        let r = &mut Random(seed ^ 0x1ea57);
        if r.below(2) == 0 {
            case.min_keep = [0, 2, 5, 100, 2500, 1 + r.below(case.cols)][r.below(6)];
        }
        case
    }

    fn logits<T: Element>(&self) -> Vec<T> {
        let mut r = Random(self.seed ^ 0x10617);
        let one = |r: &mut Random| match self.kind {
            // Many equal elements.
            KINDS => {
                (0..self.cols).map(|_| T::from_f64((r.signed() * 6.0).round() / 2.0)).collect()
            }
            // One element far above the others.
            9.. => {
                let mut row: Vec<T> = row(r, 0, self.cols);
                row[r.below(self.cols)] = T::from_f64([12.0, 30.0][self.kind - 9]);
                row
            }
            kind => row(r, kind, self.cols),
        };
        let mut x: Vec<T> = (0..self.rows).flat_map(|_| one(&mut r)).collect();
        // Sometimes a row without a token.
        if r.below(5) == 0 {
            let place = r.below(x.len());
            x[place] = [T::NAN, T::INFINITY, T::NEG_INFINITY][r.below(3)];
        }
        x
    }

    fn run(&self, sampler: impl Fn(Sampler<'_>, &mut [usize])) -> Vec<usize> {
        let mut draws = vec![7_777_777; self.rows * self.each];
        self.with(|options| sampler(options, &mut draws));
        draws
    }

    fn with<R>(&self, f: impl FnOnce(Sampler<'_>) -> R) -> R {
        let history: Vec<&[usize]> = self.history.iter().map(|h| &h[..]).collect();
        let options = {
            Sampler::new(self.seed)
                .temperature(self.temperature)
                .top_k(self.top_k)
                .top_p(self.top_p)
                .min_p(self.min_p)
                .typical_p(self.typical_p)
                .min_keep(self.min_keep)
                .order(self.order)
                .method(self.method)
                .repetition_penalty(self.repetition)
                .presence_penalty(self.presence)
                .frequency_penalty(self.frequency)
        };
        let options = options.step(self.step).first_row(self.first_row);
        f(options.bias(&self.bias).history(&history))
    }
}

/// Philox4x32-10, implemented once more.
fn philox(mut c: [u32; 4], mut k: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let product = |m: u32, x: u32| u64::from(m) * u64::from(x);
        let (p0, p1) = (product(0xD251_1F53, c[0]), product(0xCD9E_8D57, c[2]));
        let high = |p: u64| (p >> 32) as u32;
        c = [high(p1) ^ c[1] ^ k[0], p1 as u32, high(p0) ^ c[3] ^ k[1], p0 as u32];
        k = [k[0].wrapping_add(0x9E37_79B9), k[1].wrapping_add(0xBB67_AE85)];
    }
    c
}

/// A token: its exponential and its index.
type Token = (f32, usize);

/// The tokens of a row that have mass, by the reference's exponentials.
fn tokens<A: Element>(x: &[A], temperature: f64) -> Option<Vec<Token>> {
    let scale = if temperature == f64::INFINITY { 1.0 } else { temperature };
    let scale = Scale::from_temperature(scale).expect("a temperature");
    let mut e = vec![0.0f32; x.len()];
    let scalar = Ready::of(scalar()).expect("it runs everywhere");
    scalar.exps(x, None, &scale, &mut None, &mut e)?;
    if temperature == f64::INFINITY {
        let shown = |x: &A| if x.to_f64() > f64::NEG_INFINITY { 1.0 } else { 0.0 };
        e = x.iter().map(shown).collect();
    }
    let tokens = e.into_iter().enumerate().map(|(i, e)| (e, i));
    Some(tokens.filter(|t| f64::from(t.0) >= 2f64.powi(-62)).collect())
}

/// The mass of a token: units of 2^-30, and a rest in units of 2^-62.
fn mass(e: f32) -> (u64, u64) {
    let unit = 2f64.powi(-30);
    if e >= 1.0 / 256.0 {
        let units = ((e - 2f32.powi(-31)) + 1.5 / 128.0) - 1.5 / 128.0;
        return ((f64::from(units) / unit) as u64, 0);
    }
    let units = f64::from(e) / unit;
    let odd = units.fract() == 0.0 && units % 2.0 == 1.0;
    let whole = if odd { units - 1.0 } else { units.floor() };
    (whole as u64, ((units - whole) * 2f64.powi(32)) as u64)
}

fn units(token: &Token) -> u64 {
    mass(token.0).0
}

fn rest(token: &Token) -> u64 {
    mass(token.0).1
}

fn total(tokens: &[Token]) -> u64 {
    tokens.iter().map(units).sum()
}

/// The first token at which a running sum exceeds a target.
fn first_beyond(tokens: &[Token], target: u64, part: fn(&Token) -> u64) -> usize {
    let mut sum = 0;
    let token = tokens.iter().find(|t| {
        sum += part(t);
        sum > target
    });
    token.expect("the target is below the sum").1
}

/// The fewest of the first tokens that together have this share of the mass; at least `least`.
fn prefix(tokens: &mut Vec<Token>, p: f64, least: usize) {
    let need = ((p * total(tokens) as f64).ceil() as u64).max(1);
    let mut sum = 0;
    let last = tokens.iter().position(|t| {
        sum += units(t);
        sum >= need
    });
    tokens.truncate((last.expect("no more is needed than there is") + 1).max(least));
}

/// The tokens of one row that are left, by rising index, and its logits with bias and penalties, by
/// sorting everything. No tokens where there is nothing to draw.
fn model_left<A: Element>(case: &Case, mut x: Vec<A>, row: usize) -> (Vec<Token>, Vec<A>) {
    for &(token, bias) in &case.bias {
        x[token] = A::from_f64(x[token].to_f64() + f64::from(bias));
    }
    let history = match case.history.len() {
        0 => &Vec::new(),
        1 => &case.history[0],
        _ => &case.history[row],
    };
    let edits = case.repetition != 1.0 || case.presence != 0.0 || case.frequency != 0.0;
    for token in (0..x.len()).filter(|_| edits) {
        let count = history.iter().filter(|&&t| t == token).count();
        if count > 0 {
            let v = x[token].to_f64();
            let v = if v > 0.0 { v / case.repetition } else { v * case.repetition };
            x[token] = A::from_f64(v - (count as f64 * case.frequency + case.presence));
        }
    }
    let llama = case.order == Order::LlamaCpp
        && (case.top_k > 0 || case.top_p < 1.0 || case.min_p > 0.0 || case.typical_p < 1.0);
    let first = if llama || case.temperature == 0.0 { 1.0 } else { case.temperature };
    let Some(mut tokens) = tokens(&x, first) else {
        return (Vec::new(), x);
    };
    if case.temperature == 0.0 {
        let largest = x.iter().map(|x| x.to_f64()).fold(f64::NEG_INFINITY, f64::max);
        let token = x.iter().position(|x| x.to_f64() == largest);
        return (vec![(1.0, token.expect("it is there"))], x);
    }
    let rank = |&(e, i): &Token| (std::cmp::Reverse(e.to_bits()), i);
    tokens.sort_by_key(rank);
    let top_k = |tokens: &mut Vec<Token>| {
        if case.top_k > 0 {
            tokens.truncate(case.top_k);
        }
    };
    let top_p = |tokens: &mut Vec<Token>| {
        if case.top_p < 1.0 {
            prefix(tokens, case.top_p, case.min_keep);
        }
    };
    let min_p = |tokens: &mut Vec<Token>| {
        let bound = case.min_p * f64::from(tokens[0].0);
        let n = tokens.iter().filter(|t| f64::from(t.0) >= bound).count();
        tokens.truncate(n.max(case.min_keep));
    };
    let typical = |tokens: &mut Vec<Token>| {
        if case.typical_p < 1.0 {
            let ln = |t: &Token| libm::log(f64::from(t.0));
            let mut by_index = tokens.clone();
            by_index.sort_by_key(|t| t.1);
            let unit = f64::from(1u32 << 30);
            let mut mean = 0.0;
            for t in &by_index {
                mean += units(t) as f64 / unit * ln(t);
            }
            let mean = mean / (total(tokens) as f64 / unit);
            // A stable sort: equal distances keep their order.
            tokens.sort_by(|a, b| (ln(a) - mean).abs().total_cmp(&(ln(b) - mean).abs()));
            prefix(tokens, case.typical_p, case.min_keep);
            tokens.sort_by_key(rank);
        }
    };
    if case.order == Order::Transformers {
        top_k(&mut tokens);
        top_p(&mut tokens);
        min_p(&mut tokens);
        typical(&mut tokens);
    } else {
        top_k(&mut tokens);
        typical(&mut tokens);
        top_p(&mut tokens);
        min_p(&mut tokens);
    }
    tokens.sort_by_key(|t| t.1);
    if llama && case.temperature != 1.0 {
        let left: Vec<A> = tokens.iter().map(|t| x[t.1]).collect();
        let mut again = self::tokens(&left, case.temperature).expect("all are finite");
        again.iter_mut().for_each(|token| token.1 = tokens[token.1].1);
        tokens = again;
    }
    (tokens, x)
}

/// The draws of one row.
fn model_row<A: Element>(case: &Case, x: Vec<A>, row: usize) -> Vec<usize> {
    let (tokens, _) = model_left(case, x, row);
    if tokens.is_empty() {
        return vec![usize::MAX; case.each];
    }
    let number = case.first_row + row as u64;
    let draw = |draw: usize| {
        let upper = (case.step >> 32) << 16 | number >> 32;
        let counter = [draw as u32, number as u32, case.step as u32, upper as u32];
        let bits = philox(counter, [case.seed as u32, (case.seed >> 32) as u32]);
        if case.method == Method::InverseCdf {
            let word = |i: usize| u128::from(bits[i]) | u128::from(bits[i + 1]) << 32;
            let (total, rests) = (total(&tokens), tokens.iter().map(rest).sum::<u64>());
            let below = |end: u64| ((word(0) * u128::from(end)) >> 64) as u64;
            let whole = (u128::from(total) << 32) + u128::from(rests);
            if word(2) < (u128::from(rests) << 64) / whole {
                return first_beyond(&tokens, below(rests), rest);
            }
            return first_beyond(&tokens, below(total), units);
        }
        let times = tokens.iter().map(|&(e, i)| {
            let noise = philox([i as u32 / 2, 0, bits[2], bits[3]], [bits[0], bits[1]]);
            let noise = [noise[i % 2 * 2], noise[i % 2 * 2 + 1]].map(u64::from);
            let noise = (noise[0] | noise[1] << 32) >> 12;
            let v = (noise as f64 + 0.5) / 2f64.powi(52);
            (-libm::log1p(-v) / f64::from(e), i)
        });
        times.min_by(|a, b| a.0.total_cmp(&b.0)).expect("there is a token").1
    };
    (0..case.each).map(draw).collect()
}

fn model<T: Element>(case: &Case, x: &[T]) -> Vec<usize> {
    let rows = x.chunks(case.cols).enumerate();
    rows.flat_map(|(i, x)| {
        let x: Vec<_> = x.iter().map(|x| T::Arithmetic::from_f64(x.to_f64())).collect();
        model_row(case, x, i)
    })
    .collect()
}

fn check<T: Element>(case: &Case) {
    let x = case.logits::<T>();
    let want = model(case, &x);
    let matrix = |x| Matrix::<T>::new(x, case.cols).expect("whole rows");
    for kernel in available() {
        let got = case.run(|sampler, draws| {
            sampler.exec(by(kernel)).sample(matrix(&x), draws).expect("a valid call");
        });
        assert_eq!(got, want, "{} {} {case:?}", kernel.name(), T::NAME);
        // Sharing and cutting are the same code for all kernels, and the reference is slow.
        if kernel.name() == "scalar" {
            continue;
        }
        let got = case.run(|sampler, draws| {
            let threads = Threads::Exactly(NonZeroUsize::new(3).expect("not 0"));
            let sampler = sampler.exec(by(kernel).threads(threads));
            sampler.sample(matrix(&x), draws).expect("a valid call");
        });
        assert_eq!(got, want, "{} {} {case:?}, threads", kernel.name(), T::NAME);
        if case.history.len() <= 1 {
            // One row in each call.
            let got = case.run(|sampler, draws| {
                for (i, x) in x.chunks(case.cols).enumerate() {
                    let sampler = sampler.exec(by(kernel)).first_row(case.first_row + i as u64);
                    let draws = &mut draws[i * case.each..][..case.each];
                    sampler.sample(matrix(x), draws).expect("a valid call");
                }
            });
            assert_eq!(got, want, "{} {} {case:?}, cut", kernel.name(), T::NAME);
        }
    }
}

proptest! {
    #![proptest_config(config(200, 40, 0x5a3_9713))]

    #[test]
    fn draws_are_the_models(seed: u64) {
        let case = Case::any(seed);
        check::<f32>(&case);
        match seed % 3 {
            0 => check::<f64>(&case),
            1 => check::<f16>(&case),
            _ => check::<bf16>(&case),
        }
    }
}

/// What is left of rows: the model's tokens, with the bits of a softmax of their logits alone, by
/// every kernel, on several threads, in lists and in whole rows.
fn check_left<T: Element>(case: &Case)
where
    T::Arithmetic: Bits,
{
    type Arithmetic<T> = <T as Element>::Arithmetic;
    let x = case.logits::<T>();
    let (rows, cols) = (case.rows, case.cols);
    let zero = Arithmetic::<T>::ZERO;
    // Tokens, probabilities and their logarithms of each row.
    // One token has all the mass, at any temperature.
    let temperature = if case.temperature == 0.0 { 1.0 } else { case.temperature };
    let softmax = |logs: bool, logits: &[Arithmetic<T>]| {
        let mut y = logits.to_vec();
        let row = MatrixMut::new(&mut y, logits.len().max(1)).expect("a row");
        let softmax = Softmax::new().exec(by(scalar())).temperature(temperature);
        let done =
            if logs { softmax.log_softmax_in_place(row) } else { softmax.softmax_in_place(row) };
        done.expect("a valid call");
        y
    };
    let want: Vec<_> = x
        .chunks(cols)
        .enumerate()
        .map(|(row, x)| {
            let x = x.iter().map(|x| Arithmetic::<T>::from_f64(x.to_f64())).collect();
            let (tokens, x) = model_left(case, x, row);
            let tokens: Vec<usize> = tokens.iter().map(|t| t.1).collect();
            let logits: Vec<_> = tokens.iter().map(|&i| x[i]).collect();
            (tokens, softmax(false, &logits), softmax(true, &logits))
        })
        .collect();
    let room = want.iter().map(|row| row.0.len()).max().unwrap_or(0) + 1;
    let serial = Threads::Serial;
    let three = Threads::Exactly(NonZeroUsize::new(3).expect("not 0"));
    for kernel in available() {
        for (threads, log) in [(serial, false), (serial, true), (three, false), (three, true)] {
            if kernel.name() == "scalar" && threads == three {
                continue;
            }
            let what = || format!("{} {} log {log} {threads:?} {case:?}", kernel.name(), T::NAME);
            let logits = || Matrix::new(&x, cols).expect("whole rows");
            let (mut tokens, mut counts) = (vec![77_777; rows * room], vec![9; rows]);
            let (mut values, mut whole) = (vec![zero; rows * room], vec![zero; rows * cols]);
            case.with(|sampler| {
                let sampler = sampler.exec(by(kernel).threads(threads));
                let out = MatrixMut::new(&mut whole, cols).expect("whole rows");
                let (t, v, c) = (&mut tokens, &mut values, &mut counts);
                let done = match log {
                    false => sampler.kept_probs(logits(), t, v, c),
                    true => sampler.kept_log_probs(logits(), t, v, c),
                };
                done.expect("a valid call");
                let done = match log {
                    false => sampler.filtered_probs(logits(), out),
                    true => sampler.filtered_log_probs(logits(), out),
                };
                done.expect("a valid call");
            });
            for (row, (want, probs, logs)) in want.iter().enumerate() {
                let want_values = if log { logs } else { probs };
                let nothing = match (want.is_empty(), log) {
                    (true, _) => f64::NAN,
                    (_, true) => f64::NEG_INFINITY,
                    _ => 0.0,
                };
                let mut full = vec![Arithmetic::<T>::from_f64(nothing); cols];
                for (&token, &value) in want.iter().zip(want_values) {
                    full[token] = value;
                }
                assert_same(&whole[row * cols..][..cols], &full, what);
                assert_eq!(counts[row], want.len(), "{}", what());
                let mut order: Vec<usize> = want.clone();
                let falling =
                    |a: &usize, b: &usize| full[*b].to_f64().total_cmp(&full[*a].to_f64());
                order.sort_by(falling);
                let (tokens, values) = (&tokens[row * room..], &values[row * room..]);
                assert_eq!(tokens[..want.len()], order, "{}", what());
                let in_order: Vec<_> = order.iter().map(|&token| full[token]).collect();
                assert_same(&values[..want.len()], &in_order, what);
                // Behind them nothing was written.
                assert!(tokens[want.len()..room].iter().all(|&t| t == 77_777), "{}", what());
                if !log && !want.is_empty() {
                    let sum: f64 = values[..want.len()].iter().map(|v| v.to_f64()).sum();
                    assert!((sum - 1.0).abs() < 1e-6, "{sum} {}", what());
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(config(120, 30, 0x1ef7_9713))]

    #[test]
    fn what_is_left_is_the_models(seed: u64) {
        let case = Case::any(seed);
        match seed % 6 {
            0 => check_left::<f64>(&case),
            1 => check_left::<f16>(&case),
            2 => check_left::<bf16>(&case),
            _ => check_left::<f32>(&case),
        }
    }
}

/// The probabilities that are left are right to 3 ULP, logarithms to 2 ULP or 1e-7: against
/// double-double.
#[test]
fn what_is_left_is_accurate() {
    for kernel in available() {
        for seed in 0..if quick() { 4 } else { 20 } {
            let mut random = Random(seed);
            let temperature = [1.0, 0.7, 3.0, 0.05][seed as usize % 4];
            let x: Vec<f32> = row(&mut random, 0, 3000);
            let sampler = Sampler::new(1).exec(by(kernel)).temperature(temperature).top_k(300);
            let (mut tokens, mut counts) = (vec![0; 300], [0]);
            let (mut probs, mut logs) = (vec![0.0f32; 300], vec![0.0f32; 300]);
            let view = || Matrix::new(&x, 3000).expect("a row");
            sampler.kept_probs(view(), &mut tokens, &mut probs, &mut counts).expect("valid");
            let n = counts[0];
            let z = |token: usize| Dd(x[token].into(), 0.0).div(Dd(temperature, 0.0));
            let largest = z(tokens[0]);
            let e = |token: usize| z(token).add(Dd(-largest.0, -largest.1)).exp();
            let sum = tokens[..n].iter().fold(Dd(0.0, 0.0), |sum, &token| sum.add(e(token)));
            for (&token, &p) in tokens[..n].iter().zip(&probs) {
                let error = ulps(p.into(), e(token).div(sum), F32);
                assert!(error <= 3.0, "{} {seed} {token}: {error}", kernel.name());
            }
            let by_probs = (tokens.clone(), n);
            sampler.kept_log_probs(view(), &mut tokens, &mut logs, &mut counts).expect("valid");
            assert_eq!((tokens[..n].len(), counts[0]), (n, by_probs.1));
            for (&token, &log) in tokens[..n].iter().zip(&logs) {
                let want = e(token).div(sum).0.ln();
                let near = (f64::from(log) - want).abs() <= 1e-7 + want.abs() * 1.2e-7;
                assert!(near, "{} {seed} {token}: {log} {want}", kernel.name());
            }
        }
    }
}

#[test]
fn filters_leave_a_least_number() {
    // Probabilities 0.5, 0.25, 0.125, and two of 0.0625.
    let p = [0.0625, 0.25, 0.5, 0.0625, 0.125];
    let x = p.map(|p: f64| p.ln() as f32);
    let left = |sampler: Sampler| {
        let (mut tokens, mut probs, mut counts) = ([0; 5], [0.0; 5], [0]);
        let x = Matrix::new(&x, 5).expect("a row");
        sampler.kept_probs(x, &mut tokens, &mut probs, &mut counts).expect("a valid call");
        tokens[..counts[0]].to_vec()
    };
    let all = Sampler::new(3);
    assert_eq!(left(all), [2, 1, 4, 0, 3]);
    assert_eq!(left(all.top_p(0.5)), [2]);
    assert_eq!(left(all.top_p(0.5).min_keep(0)), [2]);
    assert_eq!(left(all.top_p(0.5).min_keep(3)), [2, 1, 4]);
    assert_eq!(left(all.top_p(0.8).min_keep(2)), [2, 1, 4]);
    assert_eq!(left(all.min_p(0.9).min_keep(2)), [2, 1]);
    assert_eq!(left(all.min_p(0.9).min_keep(4)), [2, 1, 4, 0]);
    assert_eq!(left(all.min_p(0.9).min_keep(usize::MAX)), [2, 1, 4, 0, 3]);
    // The entropy is 1.875 bits: 2 bits are nearest, then 1, then 3.
    assert_eq!(left(all.typical_p(0.2)), [1]);
    assert_eq!(left(all.typical_p(0.2).min_keep(2)), [2, 1]);
    // Top-k counts for itself.
    assert_eq!(left(all.top_k(2).top_p(0.1).min_keep(3)), [2, 1]);
    assert_eq!(left(all.temperature(0.0).min_keep(3)), [2]);
}

#[test]
fn a_row_that_needs_more_room_is_named() {
    let x = [1.0f32, 2.0, 3.0, f32::NEG_INFINITY, 5.0, f32::NEG_INFINITY, f32::NAN, 0.0, 0.0];
    let x = Matrix::new(&x, 3).expect("rows");
    let (mut tokens, mut probs, mut counts) = ([9; 6], [9.0f32; 6], [9; 3]);
    let sampler = Sampler::new(0);
    for kernel in available() {
        let sampler = sampler.exec(by(kernel));
        let e = sampler.kept_probs(x, &mut tokens, &mut probs, &mut counts);
        let e = e.expect_err("no room for the first row");
        assert!(matches!(e, Error::Room { row: 0, needed: 3, room: 2, .. }), "{e:?}");
        assert_eq!(e.to_string(), "row 0 needs room for 3 results, got 2");
        // The other rows are there.
        assert_eq!((counts, tokens), ([3, 1, 0], [9, 9, 1, 9, 9, 9]));
        assert_eq!(probs, [9.0, 9.0, 1.0, 9.0, 9.0, 9.0]);
        sampler.top_k(2).kept_probs(x, &mut tokens, &mut probs, &mut counts).expect("room");
        assert_eq!((counts, &tokens[..2]), ([2, 1, 0], &[2, 1][..]));
        (tokens, probs) = ([9; 6], [9.0; 6]);
    }
    let mut refused = |tokens_len: usize, probs_len: usize, counts_len: usize, sampler: Sampler| {
        let (t, p, c) =
            (&mut tokens[..tokens_len], &mut probs[..probs_len], &mut counts[..counts_len]);
        c.fill(9);
        let e = sampler.kept_log_probs(x, t, p, c).expect_err("wrong").to_string();
        assert!(c.iter().all(|&c| c == 9) && tokens == [9; 6] && probs == [9.0; 6], "written");
        e
    };
    let places = "the number of places for tokens must be a multiple of 3, got 4";
    assert_eq!(refused(4, 4, 3, sampler), places);
    let places = "the number of places for probabilities (one for each token) must be 6, got 5";
    assert_eq!(refused(6, 5, 3, sampler), places);
    let one = "the number of counts (one for each row) must be 3, got 2";
    assert_eq!(refused(6, 6, 2, sampler), one);
    assert!(refused(6, 6, 3, sampler.top_p(2.0)).contains("top-p"));
    let mut y = [9.0f32; 6];
    let out = MatrixMut::new(&mut y, 3).expect("rows");
    let e = sampler.filtered_probs(x, out).expect_err("two rows of three").to_string();
    assert_eq!(e, "the output must be 3 x 3, got 2 x 3");
    assert_eq!(y, [9.0; 6]);
    // No rows, no columns.
    let none = Matrix::<f32>::new(&[], 3).expect("no rows");
    sampler.kept_probs(none, &mut [], &mut [], &mut []).expect("nothing to do");
    let none = Matrix::<f32>::with_stride(&[], 2, 0, 0).expect("empty rows");
    let mut counts = [9; 2];
    sampler.kept_probs(none, &mut [], &mut [], &mut counts).expect("nothing is left");
    assert_eq!(counts, [0; 2]);
}

/// Rows as long as vocabularies, whose bands of masses are searched one after another, some wrong.
#[test]
fn long_rows() {
    let options = [(0, 0.9, 0.0), (30_000, 0.999, 1e-5), (5000, 1.0, 1e-3), (50, 0.5, 0.0)];
    let options = [&options[..], &[(0, 1e-6, 0.0), (0, 1.0 - 1e-9, 0.0), (0, 1.0, 0.0)]].concat();
    // Kinds of rows: bell-shaped, with masks, all equal, of few values, one far above.
    let kinds: &[usize] = if quick() { &[0, KINDS] } else { &[0, 3, 4, KINDS, 9, 10] };
    for &kind in kinds {
        for &(top_k, top_p, min_p) in &options {
            for order in [Order::Transformers, Order::LlamaCpp] {
                let case = Case {
                    rows: 1,
                    cols: 60_000,
                    each: 3,
                    kind,
                    temperature: 0.9,
                    top_k,
                    top_p,
                    min_p,
                    typical_p: 1.0,
                    order,
                    method: Method::InverseCdf,
                    bias: Vec::new(),
                    history: Vec::new(),
                    ..Case::random(5)
                };
                check::<f32>(&case);
                // Few values, so that bands end among equal elements.
                if top_k == 0 && top_p < 1.0 {
                    check::<bf16>(&case);
                }
            }
        }
    }
}

/// A least number of tokens in long rows, more and fewer than the filters leave.
#[test]
fn least_numbers_of_long_rows() {
    let kinds: &[usize] = if quick() { &[0, 9] } else { &[0, 3, KINDS, 9, 10] };
    for &kind in kinds {
        for (top_k, top_p, min_p, typical_p) in [
            (0, 0.9, 0.0, 1.0),
            (0, 0.01, 0.5, 1.0),
            (0, 0.99, 0.5, 1.0),
            (9000, 0.1, 0.01, 1.0),
            (0, 1.0, 0.0, 0.2),
            (9000, 1.0, 0.0, 0.01),
            (0, 0.9, 0.0, 0.01),
        ] {
            for (min_keep, order) in [(2, Order::Transformers), (5000, Order::LlamaCpp)] {
                let case = Case {
                    rows: 1,
                    cols: 30_001,
                    each: 3,
                    kind,
                    temperature: 0.9,
                    top_k,
                    top_p,
                    min_p,
                    typical_p,
                    min_keep,
                    order,
                    method: Method::InverseCdf,
                    bias: Vec::new(),
                    history: Vec::new(),
                    ..Case::random(5)
                };
                check::<f32>(&case);
                check_left::<f32>(&case);
            }
        }
    }
}

/// Typical-p of all tokens of long rows, and of those that another filter leaves.
#[test]
fn typical_p_of_long_rows() {
    let kinds: &[usize] = if quick() { &[0, KINDS] } else { &[0, 3, 4, KINDS, 9, 10] };
    for &kind in kinds {
        for (top_k, typical_p) in [(0, 0.9), (0, 0.2), (0, 0.9999), (9000, 0.9)] {
            for method in [Method::InverseCdf, Method::GumbelMax] {
                let case = Case {
                    rows: 1,
                    cols: 30_001,
                    each: 3,
                    kind,
                    temperature: 0.9,
                    top_k,
                    top_p: 1.0,
                    min_p: 0.0,
                    typical_p,
                    order: Order::Transformers,
                    method,
                    bias: Vec::new(),
                    history: Vec::new(),
                    ..Case::random(5)
                };
                check::<f32>(&case);
            }
        }
    }
}

/// Logits of a row whose probabilities range from a tenth of a percent to more than half.
fn uneven() -> Vec<f32> {
    (0..40).map(|i| ((i * 7) % 40) as f32 * -0.15).collect()
}

/// Probabilities in f64.
fn probabilities(x: &[f32]) -> Vec<f64> {
    let e: Vec<f64> = x.iter().map(|&x| f64::from(x).exp()).collect();
    let sum: f64 = e.iter().sum();
    e.iter().map(|e| e / sum).collect()
}

/// The chi-squared statistic, in standard deviations above its mean.
fn surprise(draws: &[usize], p: &[f64]) -> f64 {
    let mut counts = vec![0.0; p.len()];
    draws.iter().for_each(|&d| counts[d] += 1.0);
    let n = draws.len() as f64;
    let chi: f64 = counts.iter().zip(p).map(|(c, p)| (c - n * p).powi(2) / (n * p)).sum();
    let freedom = (p.len() - 1) as f64;
    (chi - freedom) / (2.0 * freedom).sqrt()
}

#[test]
fn draws_have_the_distribution() {
    let n = if quick() { 20_000 } else { 400_000 };
    let x = uneven();
    for method in [Method::InverseCdf, Method::GumbelMax] {
        for (temperature, seed) in [(1.0, 1), (0.6, 2), (3.0, 3)] {
            let sampler = Sampler::new(seed).method(method);
            let sampler = sampler.temperature(temperature);
            let scaled: Vec<f32> = x.iter().map(|x| x / temperature as f32).collect();
            let p = probabilities(&scaled);
            // Many draws of one row; one draw of many rows; one draw of many steps.
            let mut draws = vec![0; n];
            sampler.sample(Matrix::new(&x, 40).expect("a row"), &mut draws).expect("a valid call");
            assert!(surprise(&draws, &p) < 5.0, "{method:?} {temperature}");
            let rows: Vec<f32> = x.iter().copied().cycle().take(40 * 5000).collect();
            let mut by_row = vec![0; 5000];
            let matrix = Matrix::new(&rows, 40).expect("rows");
            sampler.sample(matrix, &mut by_row).expect("a valid call");
            assert!(surprise(&by_row, &p) < 5.0, "{method:?} {temperature}, rows");
            let steps: Vec<usize> = (0..5000)
                .map(|step| {
                    let mut draw = [0];
                    let row = Matrix::new(&x, 40).expect("a row");
                    sampler.step(step).sample(row, &mut draw).expect("a valid call");
                    draw[0]
                })
                .collect();
            assert!(surprise(&steps, &p) < 5.0, "{method:?} {temperature}, steps");
            assert!(by_row != steps && by_row != draws[..5000]);
            // The test detects a distribution that is wrong by a few percent.
            let mut wrong = p.clone();
            wrong.iter_mut().step_by(3).for_each(|p| *p *= 1.2);
            let sum: f64 = wrong.iter().sum();
            wrong.iter_mut().for_each(|p| *p /= sum);
            assert!(surprise(&draws, &wrong) > 5.0, "{method:?} {temperature}: blind");
        }
    }
}

/// Many tokens that are less likely than the most likely one by a factor of 2^30 and more are drawn
/// as often as they should be.
#[test]
fn tails_are_drawn() {
    let (many, draws) = if quick() { (1 << 17, 100_000) } else { (1 << 19, 400_000) };
    // From two units of mass down to a twentieth of one.
    let sizes = [0.0f32, -20.9, -21.6, -22.5, -23.0, -24.0];
    let count = |x: f32| if x == 0.0 { 1 } else { many };
    let x: Vec<f32> = sizes.iter().flat_map(|&x| vec![x; count(x)]).collect();
    let mass = |x: f32| count(x) as f64 * f64::from(x).exp();
    let all: f64 = sizes.iter().map(|&x| mass(x)).sum();
    let mut want = None;
    for kernel in available() {
        let mut drawn = vec![0; draws];
        let row = Matrix::new(&x, x.len()).expect("a row");
        Sampler::new(1).exec(by(kernel)).sample(row, &mut drawn).expect("a valid call");
        for size in sizes {
            let mean = mass(size) / all * draws as f64;
            let count = drawn.iter().filter(|&&token| x[token] == size).count();
            let off = (count as f64 - mean) / mean.sqrt();
            assert!(off.abs() < 4.5, "{} {size}: {count}, not {mean}", kernel.name());
        }
        assert!(want.get_or_insert(drawn.clone()) == &drawn, "{}", kernel.name());
    }
}

/// Tokens that a filter keeps at temperature 1 may be likely at a later temperature, even if
/// another token was 2^57 times as likely before.
#[test]
fn ranks_reach_far_below_the_largest() {
    let x: Vec<f32> = (0..4000).map(|i| if i == 7 { 39.5 } else { 0.0 }).collect();
    let sampler = Sampler::new(4).order(Order::LlamaCpp);
    let sampler = sampler.temperature(1000.0);
    // Token 7 and the first 49 others.
    let p: Vec<f64> = probabilities(&x[..50].iter().map(|x| x / 1000.0).collect::<Vec<_>>());
    for kernel in available() {
        for sampler in [sampler.top_k(50), sampler.top_k(50).min_p(1e-18)] {
            let mut drawn = vec![0; 4000];
            let row = Matrix::new(&x, 4000).expect("a row");
            sampler.exec(by(kernel)).sample(row, &mut drawn).expect("a valid call");
            assert!(surprise(&drawn, &p) < 5.0, "{}", kernel.name());
        }
        let few = sampler.top_k(50).min_p(1e-17);
        let mut drawn = [0; 100];
        let row = Matrix::new(&x, 4000).expect("a row");
        few.exec(by(kernel)).sample(row, &mut drawn).expect("a valid call");
        assert_eq!(drawn, [7; 100], "{}", kernel.name());
    }
}

#[test]
fn draws_are_independent() {
    let n = if quick() { 20_000 } else { 200_000 };
    let x = [0.0f32, 0.5, 1.0, -0.5];
    let p = probabilities(&x);
    let pairs: Vec<f64> = p.iter().flat_map(|a| p.iter().map(move |b| a * b)).collect();
    for method in [Method::InverseCdf, Method::GumbelMax] {
        let sampler = Sampler::new(9).method(method);
        let run = |sampler: Sampler| {
            let mut draws = vec![0; n];
            sampler.sample(Matrix::new(&x, 4).expect("a row"), &mut draws).expect("a valid call");
            draws
        };
        let one = run(sampler);
        let others = [
            one[1..].to_vec(),
            run(sampler.step(1)),
            run(sampler.first_row(1)),
            run(sampler.step(1 << 32)),
            run(sampler.first_row(1 << 32)),
            run(Sampler::new(10).method(method)),
        ];
        for (i, other) in others.iter().enumerate() {
            let both: Vec<_> = one.iter().zip(other).map(|(a, b)| 4 * a + b).collect();
            assert!(surprise(&both, &pairs) < 5.0, "{method:?} {i}");
        }
        let same: Vec<_> = one.iter().map(|a| 5 * a).collect();
        assert!(surprise(&same, &pairs) > 5.0, "{method:?}: blind");
    }
}

#[test]
fn filters_keep_what_they_say() {
    // Probabilities 0.5, 0.25, 0.125, and two of 0.0625.
    let p = [0.0625, 0.25, 0.5, 0.0625, 0.125];
    let x = p.map(|p: f64| p.ln() as f32);
    let seen = |sampler: Sampler| {
        let mut draws = [0; 2000];
        sampler.sample(Matrix::new(&x, 5).expect("a row"), &mut draws).expect("a valid call");
        let mut seen = draws.to_vec();
        seen.sort_unstable();
        seen.dedup();
        seen
    };
    let all = Sampler::new(3);
    assert_eq!(seen(all), [0, 1, 2, 3, 4]);
    assert_eq!(seen(all.top_k(2)), [1, 2]);
    // The first of equal tokens.
    assert_eq!(seen(all.top_k(4)), [0, 1, 2, 4]);
    assert_eq!(seen(all.top_p(0.7)), [1, 2]);
    assert_eq!(seen(all.top_p(0.8)), [1, 2, 4]);
    assert_eq!(seen(all.top_p(0.0)), [2]);
    assert_eq!(seen(all.min_p(0.2)), [1, 2, 4]);
    assert_eq!(seen(all.min_p(1.0)), [2]);
    // Top-p of the tokens that top-k leaves: 0.5 is 2/3 of them.
    assert_eq!(seen(all.top_k(2).top_p(0.6)), [2]);
    // The entropy is 1.875 bits: 2 bits are nearest, then 1, then 3.
    assert_eq!(seen(all.typical_p(0.2)), [1]);
    assert_eq!(seen(all.typical_p(0.6)), [1, 2]);
    assert_eq!(seen(all.typical_p(0.8)), [1, 2, 4]);
    // A high temperature before min-p lets every token pass; after it, no more tokens.
    let hot = all.temperature(10.0).min_p(0.5);
    assert_eq!(seen(hot), [0, 1, 2, 3, 4]);
    assert_eq!(seen(hot.order(Order::LlamaCpp)), [1, 2]);
    assert_eq!(seen(all.temperature(0.0).bias(&[(1, 1.0)])), [1]);
    assert_eq!(seen(all.bias(&[(2, f32::NEG_INFINITY), (0, f32::NEG_INFINITY)])), [1, 3, 4]);
    // Penalties: -0.69 - 0.5 * 3 is less than -1.39.
    let history: &[&[usize]] = &[&[2, 2, 2]];
    let greedy = all.temperature(0.0).history(history);
    assert_eq!(seen(greedy), [2]);
    assert_eq!(seen(greedy.frequency_penalty(0.5)), [1]);
    assert_eq!(seen(greedy.presence_penalty(0.5)), [2]);
    assert_eq!(seen(greedy.presence_penalty(0.8)), [1]);
    assert_eq!(seen(greedy.repetition_penalty(3.0)), [1]);
}

#[test]
fn rows_without_a_token_do_not_hurt_the_others() {
    let (inf, nan) = (f32::INFINITY, f32::NAN);
    let x = [1.0, nan, 2.0, inf, 1.0, 2.0, -inf, -inf, -inf, 1.0, -inf, -inf];
    for kernel in available() {
        for temperature in [0.0, 1.0, 3.0, f64::INFINITY] {
            let sampler = Sampler::new(1).exec(by(kernel)).top_k(2);
            let sampler = sampler.temperature(temperature);
            for order in [Order::Transformers, Order::LlamaCpp] {
                let mut draws = [5; 8];
                let x = Matrix::new(&x, 3).expect("rows");
                sampler.order(order).sample(x, &mut draws).expect("a valid call");
                let none = usize::MAX;
                assert_eq!(draws, [none, none, none, none, none, none, 0, 0]);
            }
        }
    }
    // No columns, no rows.
    let none = Matrix::<f32>::with_stride(&[], 2, 0, 0).expect("empty rows");
    let mut draws = [5; 2];
    Sampler::new(1).sample(none, &mut draws).expect("a valid call");
    assert_eq!(draws, [usize::MAX; 2]);
    let none = Matrix::<f32>::new(&[], 3).expect("no rows");
    Sampler::new(1).sample(none, &mut []).expect("a valid call");
}

#[test]
fn padding_is_not_drawn() {
    let x = [1.0f32, 2.0, 1e9, 3.0, 4.0, f32::NAN];
    let x = Matrix::with_stride(&x, 2, 2, 3).expect("rows");
    let mut draws = [9; 40];
    Sampler::new(1).sample(x, &mut draws).expect("a valid call");
    assert!(draws.iter().all(|&d| d < 2) && draws.contains(&0) && draws.contains(&1));
}

#[test]
fn errors_name_what_is_wrong() {
    let new = Sampler::new(1);
    let of_nothing = |sampler: Sampler| sampler.sample(Matrix::<f32>::new(&[], 3)?, &mut []);
    for bad in [f64::NAN, -1.0, 1.5, f64::INFINITY] {
        for result in [new.top_p(bad), new.min_p(bad), new.typical_p(bad)].map(of_nothing) {
            assert!(
                matches!(result, Err(Error::Value { value: Number::Float(value), .. }) if value.to_bits() == bad.to_bits())
            );
        }
    }
    for bad in [f64::NAN, -1.0, f64::NEG_INFINITY] {
        let e = of_nothing(new.temperature(bad)).expect_err("out of range").to_string();
        assert!(e.starts_with("the temperature must be 0 or above, got"), "{e}");
    }
    assert!(of_nothing(new.temperature(-0.0)).is_ok());
    for bad in [f64::NAN, 0.0, -2.0, f64::INFINITY] {
        assert!(matches!(of_nothing(new.repetition_penalty(bad)), Err(Error::Value { .. })));
    }
    for bad in [f64::NAN, f64::INFINITY] {
        assert!(matches!(of_nothing(new.presence_penalty(bad)), Err(Error::Value { .. })));
        assert!(matches!(of_nothing(new.frequency_penalty(bad)), Err(Error::Value { .. })));
    }
    let x = [0.0f32; 6];
    let refused = |sampler: Sampler, len: usize| {
        let mut draws = vec![5; len];
        let e = sampler.sample(Matrix::new(&x, 3).expect("rows"), &mut draws);
        assert!(draws.iter().all(|&d| d == 5), "written");
        e.expect_err("wrong").to_string()
    };
    assert_eq!(refused(new, 3), "the number of draws must be a multiple of 2, got 3");
    assert_eq!(refused(new, 0), "the number of draws must be at least 2, got 0");
    assert_eq!(refused(new.bias(&[(1, 0.0), (3, 0.0)]), 2), "row 0: 3 is not one of its 3 columns");
    let e = refused(new.bias(&[(1, f32::NAN)]), 2);
    assert_eq!(e, "the bias must be less than infinity, got NaN");
    let history: &[&[usize]] = &[&[1], &[2, 4]];
    assert_eq!(refused(new.history(history), 2), "row 1: 4 is not one of its 3 columns");
    let history: &[&[usize]] = &[&[1], &[2], &[0]];
    assert_eq!(
        refused(new.history(history), 2),
        "the number of histories (one, or one for each row) must be 2, got 3"
    );
    assert!(refused(new.step(1 << 48), 2).starts_with("the step must be below 2^48"));
    let e = refused(new.first_row((1 << 48) - 1), 2);
    assert!(e.starts_with("the number of a row must be below 2^48"), "{e}");
}

/// The same draws on every platform, and in every version that does not announce a change.
#[test]
fn digest() {
    let mut fnv = Fnv(0xcbf2_9ce4_8422_2325);
    for seed in 0..60 {
        let case = Case::random(seed);
        let draws = case.run(|sampler, draws| {
            let x = case.logits::<f32>();
            let x = Matrix::new(&x, case.cols).expect("whole rows");
            sampler.sample(x, draws).expect("a valid call");
        });
        draws.iter().for_each(|&d| fnv.add(&[f64::from_bits(d as u64)]));
    }
    assert_eq!(fnv.0, 0x1248_aa4f_4673_52ab, "{:#x}", fnv.0);
}
