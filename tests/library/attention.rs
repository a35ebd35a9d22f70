//! Attention: every combination of options against a model in f64; every kernel, way, type and
//! number of threads against the reference, bit for bit.

use std::num::NonZeroUsize;

use crate::common::*;
use proptest::prelude::*;
use softmax::half::{bf16, f16};
use softmax::{
    Attention, Caches, Element, Error, Kernel, Mask, MaskData, Masked, Matrix, MatrixMut, Probs,
    Threads,
};
use softmax_measure::oracle::{Dd, F32, F64, Format, ulps};

/// A mask that owns its elements.
#[derive(Clone, Debug)]
enum Elements {
    F32(Vec<f32>),
    F16(Vec<f16>),
    Bf16(Vec<bf16>),
    Bool(Vec<bool>),
}

impl Elements {
    fn data(&self) -> MaskData<'_> {
        match self {
            Self::F32(m) => m[..].into(),
            Self::F16(m) => m[..].into(),
            Self::Bf16(m) => m[..].into(),
            Self::Bool(m) => m[..].into(),
        }
    }

    fn truncate(&mut self, n: usize) {
        match self {
            Self::F32(m) => m.truncate(n),
            Self::F16(m) => m.truncate(n),
            Self::Bf16(m) => m.truncate(n),
            Self::Bool(m) => m.truncate(n),
        }
    }

    /// The number that is added; -inf where a key is hidden.
    fn get(&self, i: usize) -> f64 {
        match self {
            Self::F32(m) => m[i].to_f64(),
            Self::F16(m) => m[i].to_f64(),
            Self::Bf16(m) => m[i].to_f64(),
            Self::Bool(m) => [f64::NEG_INFINITY, 0.0][usize::from(m[i])],
        }
    }
}

/// The shape of scores, and options.
#[derive(Clone, Debug)]
struct Case {
    batch: usize,
    heads: usize,
    queries: usize,
    keys: usize,
    scale: f64,
    cap: Option<f64>,
    mask: Option<(Elements, [usize; 3])>,
    mask_slopes: Option<Vec<f32>>,
    alibi: Option<Vec<f32>>,
    sinks: Option<Vec<f32>>,
    lengths: Option<Vec<usize>>,
    causal: bool,
    window: Option<usize>,
    window_ahead: Option<usize>,
    offset: Option<isize>,
    offsets: Option<Vec<isize>>,
    /// The mask's columns, if they are fewer than the keys.
    mask_keys: Option<usize>,
    masked: Masked,
    /// The kind of scores.
    kind: usize,
    seed: u64,
}

impl Case {
    fn random(seed: u64) -> Self {
        let r = &mut Random(seed);
        let (batch, heads, queries) = (1 + r.below(2), 1 + r.below(3), 1 + r.below(5));
        let keys = match r.below(8) {
            0 => 1 + r.below(4),
            1 => 4090 + r.below(20),
            2 => 2 * 4096 + r.below(100),
            _ => 1 + r.below(150),
        };
        let per_head = |r: &mut Random, size: f64| -> Vec<f32> {
            (0..heads).map(|_| (r.signed() * size) as f32).collect()
        };
        let mask = r.once_in(2).then(|| {
            let shape = [batch, heads, queries].map(|n| if r.below(2) == 0 { 1 } else { n });
            let n = shape.iter().product::<usize>() * keys;
            let values: Vec<f64> = (0..n)
                .map(|_| if r.below(5) == 0 { f64::NEG_INFINITY } else { r.signed() * 6.0 })
                .collect();
            let elements = match r.below(4) {
                0 => Elements::F32(values.iter().map(|&v| v as f32).collect()),
                1 => Elements::F16(values.iter().map(|&v| f16::from_f32_const(v as f32)).collect()),
                2 => {
                    Elements::Bf16(values.iter().map(|&v| bf16::from_f32_const(v as f32)).collect())
                }
                _ => Elements::Bool(values.iter().map(|v| v.is_finite()).collect()),
            };
            (elements, shape)
        });
        Self {
            batch,
            heads,
            queries,
            keys,
            scale: [1.0, 0.125, 1.0 / 3.0, 0.088_388_347_648_318_44][r.below(4)],
            cap: r.once_in(4).then(|| [50.0, 30.0, 1.5, 1000.0][r.below(4)]),
            mask,
            mask_slopes: r.once_in(4).then(|| per_head(r, 1.0)),
            alibi: r.once_in(4).then(|| per_head(r, 0.5)),
            sinks: r.once_in(4).then(|| per_head(r, 8.0)),
            lengths: r.once_in(4).then(|| {
                let n = if r.below(2) == 0 { batch } else { batch * heads * queries };
                (0..n).map(|_| r.below(keys + 3)).collect()
            }),
            causal: r.once_in(2),
            window: r.once_in(4).then(|| r.below(keys + 2)),
            window_ahead: r.once_in(4).then(|| r.below(keys + 2)),
            offset: r.once_in(4).then(|| r.below(keys + 4) as isize - 3),
            offsets: None,
            mask_keys: None,
            masked: [Masked::Nan, Masked::Zero][r.below(2)],
            // Without huge scores: see `huge_logits_are_rounded`.
            kind: [0, 0, 0, 1, 3, 4, 5][r.below(7)],
            seed,
        }
    }

    /// A random one, with what is not among those of the digest: positions of the sequences or the
    /// rows, and masks of fewer keys.
    fn any(seed: u64) -> Self {
        let mut case = Self::random(seed);
        let r = &mut Random(seed ^ 0x0ff_5e75);
        case.offsets = r.once_in(3).then(|| {
            let n = if r.below(2) == 0 { case.batch } else { case.rows() };
            (0..n).map(|_| r.below(case.keys + 4) as isize - 3).collect()
        });
        if let Some((elements, shape)) = &mut case.mask
            && r.once_in(3)
        {
            let keys = r.below(case.keys + 1);
            elements.truncate(shape.iter().product::<usize>() * keys);
            case.mask_keys = Some(keys);
        }
        case
    }

    fn rows(&self) -> usize {
        self.batch * self.heads * self.queries
    }

    fn scores<T: Element>(&self, stride: usize) -> Vec<T> {
        let mut random = Random(self.seed ^ 0x5c0e5);
        let mut x = Vec::new();
        for _ in 0..self.rows() {
            if self.kind == ENDS {
                let up =
                    if T::NAME == "f64" { 2f64.powi(random.below(2) as i32 * 896) } else { 1.0 };
                x.extend((0..self.keys).map(|_| T::from_f64(wild_value(&mut random) * up)));
            } else {
                x.extend(row::<T>(&mut random, self.kind, self.keys));
            }
            // Padding whose use would show.
            x.resize(x.len() + stride - self.keys, T::NAN);
        }
        x
    }

    fn attention(&self) -> Attention<'_> {
        let mut a = Attention::new(self.heads, self.queries).masked(self.masked);
        a = a.scale(self.scale);
        if let Some(c) = self.cap {
            a = a.soft_cap(c);
        }
        if let Some((elements, shape)) = &self.mask {
            let mask = Mask::new(elements.data(), *shape);
            a = a.mask(self.mask_keys.map_or(mask, |keys| mask.hidden_from(keys)));
        }
        if let Some(slopes) = &self.mask_slopes {
            a = a.mask_slopes(slopes);
        }
        if let Some(slopes) = &self.alibi {
            a = a.alibi(slopes);
        }
        if let Some(sinks) = &self.sinks {
            a = a.sinks(sinks);
        }
        if let Some(lengths) = &self.lengths {
            a = a.lengths(lengths);
        }
        if self.causal {
            a = a.causal();
        }
        if let Some(window) = self.window {
            a = a.window(window);
        }
        if let Some(window) = self.window_ahead {
            a = a.window_ahead(window);
        }
        if let Some(offset) = self.offset {
            a = a.offset(offset);
        }
        if let Some(offsets) = &self.offsets {
            a = a.offsets(offsets);
        }
        a
    }

    /// The logit of a key in `Dd`, or `None` where it is hidden: the definition, written once more.
    fn logit_dd(&self, x: f64, b: usize, h: usize, q: usize, key: usize) -> Option<Dd> {
        let row = (b * self.heads + h) * self.queries + q;
        let position = match &self.offsets {
            Some(offsets) if offsets.len() == self.batch => offsets[b] + q as isize,
            Some(offsets) => offsets[row],
            None => self.offset.unwrap_or(self.keys as isize - self.queries as isize) + q as isize,
        };
        let distance = key as isize - position;
        if self.causal && distance > 0
            || self.window.is_some_and(|w| distance <= -(w as isize))
            || self.window_ahead.is_some_and(|w| distance > w as isize)
            || self
                .lengths
                .as_ref()
                .is_some_and(|l| key >= if l.len() == self.rows() { l[row] } else { l[b] })
        {
            return None;
        }
        let one = |x: f64| Dd(x, 0.0);
        if x.is_infinite() && self.cap.is_none() {
            return Some(one(x));
        }
        let mut z = one(x).mul(one(self.scale));
        if let Some(c) = self.cap {
            let u = z.div(one(c)).scaled(2.0);
            let tanh = if u.0.abs() < 80.0 {
                let e = u.exp();
                e.add(one(-1.0)).div(e.add(one(1.0)))
            } else {
                one(if u.0 > 0.0 { 1.0 } else { -1.0 })
            };
            z = tanh.mul(one(c));
        }
        if let Some((elements, [_, heads, queries])) = &self.mask {
            let at = |i: usize, n: usize| if n == 1 { 0 } else { i };
            let batches = rows_of(&self.mask) / (heads * queries);
            let row = (at(b, batches) * heads + at(h, *heads)) * queries + at(q, *queries);
            let keys = self.mask_keys.unwrap_or(self.keys);
            if key >= keys {
                return None;
            }
            let mask = elements.get(row * keys + key);
            if mask == f64::NEG_INFINITY {
                return None;
            }
            let slope = self.mask_slopes.as_ref().map_or(1.0, |slopes| slopes[h].into());
            z = z.add(one(mask).mul(one(slope)));
        }
        if let Some(slopes) = &self.alibi {
            z = z.add(one(distance as f64).mul(one(slopes[h].into())));
        }
        Some(z)
    }

    /// As [`Case::logit_dd`], in f64.
    fn logit(&self, x: f64, b: usize, h: usize, q: usize, key: usize) -> Option<f64> {
        self.logit_dd(x, b, h, q, key).map(|z| z.0)
    }

    /// The sequence, head and query of a row.
    fn place(&self, row: usize) -> (usize, usize, usize) {
        let (bh, q) = (row / self.queries, row % self.queries);
        (bh / self.heads, bh % self.heads, q)
    }

    /// The model of a row: probabilities, the largest one (or the sink's), log-sum-exp, and the
    /// largest magnitude of its logits.
    fn model(&self, x: &[f64], b: usize, h: usize, q: usize) -> (Vec<f64>, f64, f64, f64) {
        let logits: Vec<f64> = x
            .iter()
            .enumerate()
            .map(|(key, &x)| self.logit(x, b, h, q, key).unwrap_or(f64::NEG_INFINITY))
            .collect();
        let sink = self.sinks.as_ref().map_or(f64::NEG_INFINITY, |sinks| sinks[h].into());
        let max = logits.iter().copied().fold(sink, f64::max);
        if max == f64::NEG_INFINITY {
            let nothing = if self.masked == Masked::Zero { 0.0 } else { f64::NAN };
            return (vec![nothing; x.len()], 0.0, max, 0.0);
        }
        let e: Vec<f64> = logits.iter().map(|z| (z - max).exp()).collect();
        let sum = e.iter().sum::<f64>() + (sink - max).exp();
        let large = logits
            .iter()
            .chain([&sink])
            .filter(|z| z.is_finite())
            .fold(0.0, |m: f64, z| m.max(z.abs()));
        (e.iter().map(|e| e / sum).collect(), 1.0 / sum, max + sum.ln(), large)
    }
}

/// The rows of a mask.
fn rows_of(mask: &Option<(Elements, [usize; 3])>) -> usize {
    mask.as_ref().map_or(1, |(_, shape)| shape.iter().product())
}

/// Probabilities and log-sum-exps.
fn run<T: Element, U: Probs<T> + Bits>(
    attention: &Attention,
    case: &Case,
    x: &[T],
    stride: usize,
) -> (Vec<U>, Vec<T::Arithmetic>) {
    let marker = U::from_f64(-77.0);
    let (rows, keys) = (case.rows(), case.keys);
    let mut y = vec![marker; rows * (keys + 3)];
    let mut lse = vec![T::Arithmetic::ZERO; rows];
    let scores = Matrix::with_stride(x, rows, keys, stride).expect("a valid shape");
    let probs = MatrixMut::with_stride(&mut y, rows, keys, keys + 3).expect("a valid shape");
    attention.softmax_and_logsumexp(scores, probs, &mut lse).expect("a valid call");
    let mut dense = Vec::new();
    for row in y.chunks(keys + 3) {
        dense.extend_from_slice(&row[..keys]);
        assert_same(&row[keys..], &[marker; 3], || format!("padding, {case:?}"));
    }
    (dense, lse)
}

/// The call in several ways that must not change its bits.
fn ways<'a>(attention: Attention<'a>, kernel: &'static Kernel) -> [Attention<'a>; 3] {
    let serial = by(kernel).threads(Threads::Serial);
    let two = NonZeroUsize::new(2).expect("not 0");
    [
        attention.exec(serial),
        attention.exec(serial.caches(Caches::new(usize::MAX, 0))),
        attention.exec(serial.caches(Caches::new(0, usize::MAX)).threads(Threads::Exactly(two))),
    ]
}

/// Checks that every kernel has the reference's bits in every way.
fn same_bits<T: Element, U: Probs<T> + Bits>(case: &Case)
where
    T::Arithmetic: Bits,
{
    let stride = case.keys + case.seed as usize % 3;
    let x: Vec<T> = case.scores(stride);
    let attention = case.attention();
    let want = run::<T, U>(&attention.exec(by(scalar())), case, &x, stride);
    for kernel in exact() {
        for (way, attention) in ways(attention, kernel).iter().enumerate() {
            let got = run::<T, U>(attention, case, &x, stride);
            let what =
                || format!("{} way {way} {} to {}: {case:?}", kernel.name(), T::NAME, U::NAME);
            assert_same(&got.0, &want.0, what);
            assert_same(&got.1, &want.1, what);
        }
    }
}

/// Checks calls in place against the reference.
fn same_bits_in_place<T: Probs<T> + Bits>(case: &Case) {
    let stride = case.keys + 2;
    let x: Vec<T> = case.scores(stride);
    let (want, _) = run::<T, T>(&case.attention().exec(by(scalar())), case, &x, stride);
    for kernel in exact() {
        for attention in ways(case.attention(), kernel) {
            let mut y = x.clone();
            let view = MatrixMut::with_stride(&mut y, case.rows(), case.keys, stride);
            attention.softmax_in_place(view.expect("a valid shape")).expect("a valid call");
            for (row, want) in y.chunks(stride).zip(want.chunks(case.keys)) {
                assert_same(&row[..case.keys], want, || format!("{} {case:?}", kernel.name()));
            }
        }
    }
}

/// Checks the errors of f32 in ULP, for every kernel.
fn accurate(case: &Case) {
    let x: Vec<f32> = case.scores(case.keys);
    let done = |kernel| run::<f32, f32>(&case.attention().exec(by(kernel)), case, &x, case.keys);
    let results: Vec<_> =
        available().into_iter().map(|kernel| (kernel.name(), done(kernel))).collect();
    for (row, x) in x.chunks(case.keys).enumerate() {
        let (b, h, q) = case.place(row);
        let wide: Vec<f64> = x.iter().map(|&v| v.into()).collect();
        let (want, largest, want_lse, large) = case.model(&wide, b, h, q);
        assert!(large < 45_000.0, "the model holds for smaller logits: {large} {case:?}");
        for (kernel, (probs, lse)) in &results {
            for (key, (&got, &want)) in probs[row * case.keys..].iter().zip(&want).enumerate() {
                let what = || format!("{kernel} row {row} key {key}: {got} {want} {case:?}");
                if want.is_nan() {
                    assert!(got.is_nan(), "{}", what());
                    continue;
                }
                // The model's own error, from logits in f64, in ULP of f32. Probabilities below
                // 2^-126 of the largest may be 0.
                let slack = 2f64.powi(24) * large * 1e-15;
                let error = ulps(got.into(), Dd(want, 0.0), F32);
                let flushed = got == 0.0 && want <= largest * 2f64.powi(-125);
                assert!(error <= 3.0 + slack || flushed, "{error} ULP, {}", what());
            }
            let got = f64::from(lse[row]);
            let near = (got - want_lse).abs() <= want_lse.abs() * 3e-7 + 3e-7;
            assert!(near || got == want_lse, "{kernel} {got} {want_lse} {case:?}");
        }
    }
}

proptest! {
    #![proptest_config(config(400, 48, 0xa77e_4d10))]

    #[test]
    fn any_options_are_accurate(seed: u64) {
        accurate(&Case::any(seed));
    }

    #[test]
    fn any_options_have_the_same_bits(seed: u64) {
        let case = Case::any(seed);
        match seed % 8 {
            0 => same_bits::<f64, f64>(&case),
            1 => same_bits::<f16, f16>(&case),
            2 => same_bits::<bf16, bf16>(&case),
            3 => same_bits::<f32, f16>(&case),
            4 => same_bits::<f32, bf16>(&case),
            5 => same_bits::<f16, f32>(&case),
            6 => same_bits::<bf16, f32>(&case),
            _ => same_bits::<f32, f32>(&case),
        }
    }

    #[test]
    fn any_options_in_place_have_the_same_bits(seed: u64) {
        let case = Case::any(seed);
        match seed % 4 {
            0 => same_bits_in_place::<f64>(&case),
            1 => same_bits_in_place::<f16>(&case),
            2 => same_bits_in_place::<bf16>(&case),
            _ => same_bits_in_place::<f32>(&case),
        }
    }

    #[test]
    fn what_is_hidden_is_not_looked_at(seed: u64) {
        let mut case = Case::any(seed);
        if let Some(slopes) = &mut case.mask_slopes {
            // Of both signs, and 0.
            slopes[0] = [slopes[0], 0.0, -0.0, 1e38][seed as usize % 4];
        }
        if let Some(slopes) = &mut case.alibi
            && seed % 3 == 0
        {
            // NaN at a distance of 0.
            slopes[0] = [f32::INFINITY, f32::NEG_INFINITY][seed as usize / 3 % 2];
            case.masked = Masked::Nan;
        }
        match seed % 5 {
            0 => hidden_by_anything::<f64, f64>(&case),
            1 => hidden_by_anything::<f16, f16>(&case),
            2 => hidden_by_anything::<bf16, f32>(&case),
            _ => hidden_by_anything::<f32, f32>(&case),
        }
    }

    /// Numbers of all sizes, to the ends of the range: the same bits.
    #[test]
    fn any_sizes_have_the_same_bits(seed: u64) {
        let case = wild(seed);
        match seed % 4 {
            0 => same_bits::<f64, f64>(&case),
            1 => same_bits::<bf16, f32>(&case),
            2 => same_bits::<f16, f16>(&case),
            _ => same_bits::<f32, f32>(&case),
        }
    }

    /// Ranges and boolean masks act like -inf in the scores of a plain softmax.
    #[test]
    fn what_is_hidden_is_minus_infinity(seed: u64) {
        let mut case = Case::any(seed);
        (case.cap, case.alibi, case.mask_slopes, case.sinks) = (None, None, None, None);
        if !matches!(case.mask, Some((Elements::Bool(_), _))) {
            (case.mask, case.mask_keys) = (None, None);
        }
        let x: Vec<f32> = case.scores(case.keys);
        let mut hidden = x.clone();
        for (i, x) in hidden.iter_mut().enumerate() {
            let ((b, h, q), key) = (case.place(i / case.keys), i % case.keys);
            if case.logit(0.0, b, h, q, key).is_none() {
                *x = f32::NEG_INFINITY;
            }
        }
        for kernel in available() {
            let (got, _) = run::<f32, f32>(&case.attention().exec(by(kernel)), &case, &x, case.keys);
            let plain = Options::new().kernel(kernel).masked(case.masked);
            let plain = plain.scale(case.scale);
            let view = Matrix::new(&hidden, case.keys).expect("a valid shape");
            let want = crate::common::run(&plain, Op::Softmax, view);
            assert_same(&got, &want, || format!("{} {case:?}", kernel.name()));
        }
    }
}

/// Few keys, of which one or two often have all the mass, and terms of logits that cancel.
fn small(seed: u64) -> Case {
    let r = &mut Random(seed);
    let mut case = Case::random(seed);
    case.keys = 1 + r.below(12);
    case.cap = (r.below(3) == 0).then(|| 2f64.powf(r.signed() * 6.0));
    case.scale = 2f64.powi(r.below(20) as i32 - 13) * (1.0 + r.signed() / 4.0);
    (case.lengths, case.window, case.window_ahead) = (None, None, None);
    (case.causal, case.offset) = (false, None);
    let per_head = |r: &mut Random, heads: usize| -> Vec<f32> {
        (0..heads).map(|_| (r.signed() * 2.0) as f32).collect()
    };
    let heads = case.heads;
    let some = |r: &mut Random| (r.below(4) == 0).then(|| per_head(r, heads));
    (case.mask_slopes, case.alibi, case.sinks) = (some(r), some(r), some(r));
    let n = case.heads * case.keys;
    let size = [0.1, 1.5, 4.0][r.below(3)];
    let mask = (0..n).map(|_| ((r.signed() - 0.7) * size) as f32).collect();
    case.mask = (r.below(4) > 0).then_some((Elements::F32(mask), [1, case.heads, 1]));
    case
}

/// A logarithm's error relative to its bound: ULPs, or an absolute error.
fn log_error(got: f64, want: Dd, format: Format, most: f64, absolute: f64) -> f64 {
    let error = Dd::sum(got, -want.0).add(Dd(-want.1, 0.0)).0.abs();
    (ulps(got, want, format) / most).min(error / absolute)
}

/// The largest errors of probabilities and of log-sum-exps in rows of few keys, relative to their
/// bounds.
fn worst<T: Probs<T>>(kernel: &'static Kernel, format: Format, cases: u64) -> (f64, f64) {
    let double = format.digits == 53;
    let (mut most, mut most_lse) = (0f64, 0f64);
    for seed in 0..cases {
        let case = small(seed);
        let mut r = Random(seed ^ 0x51a11);
        let size = [0.2, 1.0, 3.0, 30.0][r.below(4)];
        let x: Vec<T> = (0..case.rows() * case.keys)
            .map(|_| T::from_f64((r.signed() - 0.5) * size / case.scale))
            .collect();
        let (mut probs, mut lse) = (vec![T::NAN; x.len()], vec![T::Arithmetic::NAN; case.rows()]);
        let matrix = Matrix::new(&x, case.keys).expect("a shape");
        let out = MatrixMut::new(&mut probs, case.keys).expect("a shape");
        let attention = case.attention().exec(by(kernel));
        attention.softmax_and_logsumexp(matrix, out, &mut lse).expect("a valid call");
        for (row, x) in x.chunks(case.keys).enumerate() {
            let (b, h, q) = case.place(row);
            let sink = case.sinks.as_ref().map(|sinks| Dd(sinks[h].into(), 0.0));
            let logit = |(key, x): (usize, &T)| case.logit_dd(x.to_f64(), b, h, q, key);
            let z: Vec<Dd> = x.iter().enumerate().map(|key| logit(key).expect("seen")).collect();
            let max = z.iter().copied().chain(sink).reduce(|a, b| if a.0 < b.0 { b } else { a });
            let max = max.expect("a key");
            let e = |z: &Dd| {
                let d = z.add(Dd(-max.0, -max.1));
                if d.0 > -700.0 { d.exp() } else { Dd(0.0, 0.0) }
            };
            let sum = z.iter().chain(&sink).fold(Dd(0.0, 0.0), |sum, z| sum.add(e(z)));
            let cap = if double { case.cap.unwrap_or(0.0) } else { 0.0 };
            for (got, z) in probs[row * case.keys..].iter().zip(&z) {
                let (got, want) = (got.to_f64(), e(z).div(sum));
                let flushed = got == 0.0 && want.0 < 2f64.powi(format.min_exp);
                if !flushed {
                    most = most.max(ulps(got, want, format) / (3.0 + 1.25 * cap));
                }
            }
            let (ulp, absolute) = if double { (3.0, 3e-16) } else { (2.0, 1e-7) };
            let absolute = absolute + 0.61 * cap * 2f64.powi(-53);
            let lse = log_error(lse[row].to_f64(), max.add(sum.ln()), format, ulp, absolute);
            most_lse = most_lse.max(lse);
        }
    }
    (most, most_lse)
}

/// Logits are computed as pairs: nothing is lost in products and sums, neither in probabilities nor
/// in log-sum-exps near 0, and the soft cap of f64 keeps its bound. `SOFTMAX_SEARCH` sets the
/// approximate seconds.
#[test]
fn few_keys_are_as_accurate_as_promised() {
    let seconds = std::env::var("SOFTMAX_SEARCH").ok().and_then(|s| s.parse::<u64>().ok());
    let cases = 3000 * seconds.unwrap_or(1);
    for kernel in exact() {
        let (probs, lse) = worst::<f32>(kernel, F32, cases);
        let (probs_f64, lse_f64) = worst::<f64>(kernel, F64, cases);
        println!("{} {probs:.3} {lse:.3}, f64 {probs_f64:.3} {lse_f64:.3}", kernel.name());
        assert!(probs <= 1.0 && lse <= 1.0, "{}: {probs} {lse}", kernel.name());
        assert!(probs_f64 <= 1.0 && lse_f64 <= 1.0, "{}: {probs_f64} {lse_f64}", kernel.name());
    }
}

/// The log-sum-exp is that of exact sums of scores and masks, not of rounded ones, and the cap of
/// f64 keeps its bound.
#[test]
fn known_logsumexps() {
    let mask = [-1.075_217, -1.171_052_3, -0.042_878_963f32];
    let scores = [-2.102_034_3, -2.376_323, -0.030_229_779f32];
    for kernel in available() {
        let a = Attention::new(1, 1).exec(by(kernel));
        let lse = one(a.mask(Mask::new(&mask[..], [1, 1, 1])), &scores).1;
        assert!((lse - -2.29e-9).abs() < 5e-8, "{} {lse:e}", kernel.name());
        // A single logit: the sum, rounded once.
        for (score, mask) in [(1.0f32, 1e-9f32), (0.1, -0.1), (0.3, 1e-3), (-5.0, 0.123_456_79)] {
            let mask = [mask];
            let lse = one(a.mask(Mask::new(&mask[..], [1, 1, 1])), &[score]).1;
            let want = (f64::from(score) + f64::from(mask[0])) as f32;
            assert!((lse - want).abs() <= want.abs() * f32::EPSILON, "{score}: {lse:e} {want:e}");
        }
    }
}

/// Scores that a mask's -inf or ALiBi hides, or that are out of range, change no bit.
fn hidden_by_anything<T: Element, U: Probs<T> + Bits>(case: &Case)
where
    T::Arithmetic: Bits,
{
    let x: Vec<T> = case.scores(case.keys);
    let mut random = Random(case.seed ^ 0x41dde);
    let mut other = x.clone();
    let mut hidden = 0;
    for (i, x) in other.iter_mut().enumerate() {
        let ((b, h, q), key) = (case.place(i / case.keys), i % case.keys);
        if case.logit(0.0, b, h, q, key).is_none_or(|z| z == f64::NEG_INFINITY) {
            *x = [T::NAN, T::INFINITY, T::NEG_INFINITY, T::from_f64(6e4)][random.below(4)];
            hidden += 1;
        }
    }
    let steep = case.alibi.as_ref().is_some_and(|a| a.iter().any(|a| a.is_infinite()));
    for kernel in available() {
        let attention = case.attention().exec(by(kernel));
        let want = run::<T, U>(&attention, case, &x, case.keys);
        let got = run::<T, U>(&attention, case, &other, case.keys);
        let what = || format!("{} {hidden} hidden {case:?}", kernel.name());
        assert_same(&got.0, &want.0, what);
        assert_same(&got.1, &want.1, what);
        // The results must be numbers to be compared.
        let all =
            case.masked == Masked::Nan || steep || want.0.iter().all(|y| !y.to_f64().is_nan());
        assert!(all, "{}", what());
    }
}

/// Options and scores of all magnitudes.
fn wild(seed: u64) -> Case {
    let r = &mut Random(seed);
    let mut case = Case::random(seed);
    case.keys = 1 + r.below(70);
    case.lengths = None;
    case.scale = 2f64.powi(r.below(121) as i32 - 60);
    case.kind = ENDS;
    let values = |r: &mut Random, n: usize| (0..n).map(|_| wild_value(r) as f32).collect();
    let heads = case.heads;
    let some = |r: &mut Random| -> Option<Vec<f32>> { (r.below(4) == 0).then(|| values(r, heads)) };
    (case.mask_slopes, case.alibi, case.sinks) = (some(r), some(r), some(r));
    let mask = values(r, heads * case.keys);
    case.mask = (r.below(3) > 0).then_some((Elements::F32(mask), [1, heads, 1]));
    case
}

/// Any magnitude of f32, and sometimes its ends, 0, infinities and NaN.
fn wild_value(r: &mut Random) -> f64 {
    let most = f64::from(f32::MAX);
    match r.below(40) {
        0 => f64::NEG_INFINITY,
        1 => [f64::INFINITY, f64::NAN][r.below(2)],
        2 => [most, -most][r.below(2)],
        3 => 0.0,
        4..20 => r.signed() * 4.0,
        _ => r.signed() * 2f64.powi(r.below(277) as i32 - 149),
    }
}

/// The kind of scores of [`wild_value`].
const ENDS: usize = usize::MAX;

/// ggml's `soft_max_ext` (scale, mask, max_bias, sinks), against a scalar model of it in f64: the
/// slope of head `h` of `n` is `m0^(h + 1)` for the first power of two of heads, `m1^(2 (h - n) +
/// 1)` for the others.
#[test]
fn ggml_soft_max_ext() {
    let (heads, queries, keys, scale, max_bias) = (6usize, 3, 70, 0.25f64, 8.0f64);
    let mut random = Random(7);
    let x: Vec<f32> = row(&mut random, 0, heads * queries * keys);
    let sinks: Vec<f32> = (0..heads).map(|_| random.signed() as f32).collect();
    // Its mask in f16, one for all heads: -inf above the diagonal, the negative distance elsewhere.
    let mask: Vec<f16> = (0..queries * keys)
        .map(|i| {
            let distance = (i % keys) as f64 - (i / keys + keys - queries) as f64;
            f16::from_f32_const(if distance > 0.0 { f32::NEG_INFINITY } else { distance as f32 })
        })
        .collect();
    let log2 = 1usize << heads.ilog2();
    let m0 = 2f64.powf(-max_bias / log2 as f64);
    let m1 = 2f64.powf(-max_bias / 2.0 / log2 as f64);
    let slopes: Vec<f32> = (0..heads)
        .map(|h| {
            let slope =
                if h < log2 { m0.powi(h as i32 + 1) } else { m1.powi(2 * (h - log2) as i32 + 1) };
            slope as f32
        })
        .collect();
    let mut y = vec![0.0f32; x.len()];
    Attention::new(heads, queries)
        .scale(scale)
        .mask(Mask::new(&mask[..], [1, 1, queries]))
        .mask_slopes(&slopes)
        .sinks(&sinks)
        .softmax(
            Matrix::new(&x, keys).expect("a shape"),
            MatrixMut::new(&mut y, keys).expect("a shape"),
        )
        .expect("a valid call");
    for (row, got) in y.chunks(keys).enumerate() {
        let (h, q) = (row / queries, row % queries);
        let z: Vec<f64> = (0..keys)
            .map(|k| {
                f64::from(x[row * keys + k]) * scale
                    + f64::from(slopes[h]) * mask[q * keys + k].to_f64()
            })
            .collect();
        let sink = f64::from(sinks[h]);
        let max = z.iter().copied().fold(sink, f64::max);
        let sum = z.iter().map(|z| (z - max).exp()).sum::<f64>() + (sink - max).exp();
        for (got, z) in got.iter().zip(z) {
            let want = (z - max).exp() / sum;
            assert!((f64::from(*got) - want).abs() <= want * 3.6e-7, "{got} {want}");
        }
    }
}

fn add_to<T: Element, U: Probs<T> + Bits>(digest: &mut Fnv, kernel: &'static Kernel, seeds: u64)
where
    T::Arithmetic: Bits,
{
    for seed in 0..seeds {
        let case = Case::random(seed);
        let x: Vec<T> = case.scores(case.keys);
        let attention = case.attention().exec(by(kernel));
        let (probs, lse) = run::<T, U>(&attention, &case, &x, case.keys);
        digest.add(&probs);
        digest.add(&lse);
    }
}

/// The one constant for x86-64 and AArch64, for fixed combinations of options. It changes only with
/// the arithmetic contract.
const DIGEST: u64 = 0x35f5_d4fc_5546_af0f;

/// Of a few of them, because all take a minute under an emulator.
const QUICK_DIGEST: u64 = 0xdb32_76c5_88dc_d0d0;

#[test]
fn digest_is_the_same_on_every_cpu() {
    for kernel in available() {
        for (seeds, want) in [(12, QUICK_DIGEST), (60, DIGEST)] {
            if quick() && seeds > 12 {
                continue;
            }
            let mut digest = Fnv::default();
            add_to::<f32, f32>(&mut digest, kernel, seeds);
            add_to::<f64, f64>(&mut digest, kernel, seeds);
            add_to::<f16, f16>(&mut digest, kernel, seeds);
            add_to::<f32, bf16>(&mut digest, kernel, seeds);
            println!("{} on {}: {:#018x}", kernel.name(), std::env::consts::ARCH, digest.0);
            assert_eq!(digest.0, want, "{}: {:#018x}", kernel.name(), digest.0);
        }
    }
}

/// A mask of numbers that only hides acts like one of booleans, row by row, at any scale; and so
/// does one that adds to keys that are hidden otherwise.
#[test]
fn a_mask_of_zeros_and_minus_infinity_hides_as_booleans_do() {
    let (queries, keys) = (9, 300);
    let mut random = Random(7);
    let x: Vec<f32> = (0..queries * keys).map(|_| (5.0 * random.signed()) as f32).collect();
    let seen: Vec<bool> = (0..x.len()).map(|_| !random.once_in(3)).collect();
    let mut added: Vec<f32> =
        seen.iter().map(|&seen| if seen { 0.0 } else { f32::NEG_INFINITY }).collect();
    // In the first causal row, this key is hidden.
    added[keys - 1] = 5.0;
    // The fifth row has numbers that are added.
    let sums = 4 * keys..5 * keys;
    added[sums.start] = -1.5;
    for kernel in available() {
        let probs = |mask| {
            let mut y = vec![-7.0; x.len()];
            let attention = Attention::new(1, queries).causal().mask(mask).exec(by(kernel));
            let attention = attention.scale(0.1);
            let rows = |x| Matrix::new(x, keys).expect("whole rows");
            let y_rows = MatrixMut::new(&mut y, keys).expect("whole rows");
            attention.softmax(rows(&x), y_rows).expect("a valid call");
            y
        };
        let hidden = probs(Mask::new(&seen[..], [1, 1, queries]));
        let summed = probs(Mask::new(&added[..], [1, 1, queries]));
        for (i, (hidden, summed)) in hidden.iter().zip(&summed).enumerate() {
            if !sums.contains(&i) {
                assert_eq!(hidden.to_bits(), summed.to_bits(), "{} at {i}", kernel.name());
            }
        }
        assert_ne!(hidden[sums.clone()], summed[sums.clone()], "{}", kernel.name());
    }
}

/// One row of `x`, f32.
fn one(attention: Attention, x: &[f32]) -> (Vec<f32>, f32) {
    let (mut y, mut lse) = (vec![-7.0; x.len()], [0.0]);
    attention
        .softmax_and_logsumexp(
            Matrix::new(x, x.len()).expect("a shape"),
            MatrixMut::new(&mut y, x.len()).expect("a shape"),
            &mut lse,
        )
        .expect("a valid call");
    (y, lse[0])
}

#[test]
fn special_values() {
    const INF: f32 = f32::INFINITY;
    for kernel in available() {
        let a = Attention::new(1, 1).exec(by(kernel));
        // Hidden scores may be anything.
        let seen = [true, false, true, false];
        let masked = a.mask(Mask::new(&seen[..], [1, 1, 1]));
        assert_eq!(one(masked, &[1.0, f32::NAN, 1.0, INF]).0, [0.5, 0.0, 0.5, 0.0]);
        assert_eq!(one(a.lengths(&[2]), &[1.0, 1.0, f32::NAN, INF]).0, [0.5, 0.5, 0.0, 0.0]);
        assert_eq!(one(a.window(2), &[f32::NAN, INF, 1.0, 1.0]).0, [0.0, 0.0, 0.5, 0.5]);
        assert_eq!(one(a.alibi(&[0.0]).window(1), &[f32::NAN, INF, 1.0]).0, [0.0, 0.0, 1.0]);
        // Visible ones may not.
        let (y, lse) = one(a.lengths(&[2]), &[1.0, f32::NAN, 1.0]);
        assert!(y.iter().all(|v| v.is_nan()) && lse.is_nan());
        let (y, lse) = one(a.lengths(&[2]), &[1.0, INF, 1.0]);
        assert!(y.iter().all(|v| v.is_nan()) && lse == INF);
        // No key is visible.
        for nothing in [a.lengths(&[0]), a.window(0), a.causal().offset(-1)] {
            let (y, lse) = one(nothing, &[1.0; 3]);
            assert!(y.iter().all(|v| v.is_nan()) && lse == -INF);
            assert_eq!(one(nothing.masked(Masked::Zero), &[1.0; 3]), (vec![0.0; 3], -INF));
            // The sink takes all mass.
            assert_eq!(one(nothing.sinks(&[2.5]), &[1.0; 3]), (vec![0.0; 3], 2.5));
            assert!(one(nothing.sinks(&[f32::NAN]), &[1.0; 3]).1.is_nan());
        }
        // Keys that the mask hides are hidden, whatever else is added.
        let none = Mask::new(&[0u8; 3][..], [1, 1, 1]);
        let far = a.mask(none).alibi(&[-INF]).offset(9).sinks(&[1.0]);
        assert_eq!(one(far, &[1.0; 3]), (vec![0.0; 3], 1.0));
        let hidden = [-INF; 2];
        let hidden = a.mask(Mask::new(&hidden[..], [1, 1, 1]));
        assert!(one(hidden, &[1.0; 2]).0[0].is_nan());
        assert_eq!(one(hidden.masked(Masked::Zero), &[1.0; 2]).0, [0.0; 2]);
        assert_eq!(one(hidden.sinks(&[1.0]), &[1.0; 2]), (vec![0.0; 2], 1.0));
        // A sink of -inf is like none, and one of 0 beside logits of 0 takes an equal share.
        assert_eq!(one(a.sinks(&[-INF]), &[3.0; 2]).0, [0.5; 2]);
        assert_eq!(one(a.sinks(&[0.0]), &[0.0; 3]).0, [0.25; 3]);
        // A sink far above everything leaves nothing.
        assert_eq!(one(a.sinks(&[1e6]), &[0.0; 3]), (vec![0.0; 3], 1e6));
        // Masks of finite numbers far below; with all keys so, no difference of scores is left.
        let low = [f32::MIN, 0.0, -1e9, 0.0];
        let low = a.mask(Mask::new(&low[..], [1, 1, 1]));
        assert_eq!(one(low, &[5.0, 1.0, 5.0, 1.0]).0, [0.0, 0.5, 0.0, 0.5]);
        let lowest = [f32::MIN; 2];
        assert_eq!(one(a.mask(Mask::new(&lowest[..], [1, 1, 1])), &[5.0, 1.0]).0, [0.5; 2]);
        // Caps apply to infinities, too.
        let (y, _) = one(a.soft_cap(2.0), &[INF, 1e30, -INF]);
        assert_eq!(y[0], y[1]);
        assert!((y[2] / y[0] - (-4.0f32).exp()).abs() < 1e-8);
        assert!(one(a.soft_cap(2.0), &[f32::NAN, 1.0]).0[1].is_nan());
    }
}

/// Logits beyond the type's range have the same results as without a mask; special rows are special
/// by their inputs alone.
#[test]
fn logits_beyond_the_range() {
    fn check<T: Probs<T>>(kernel: &'static Kernel, large: f64) {
        let zeros = [0.0f32; 4];
        let a = Attention::new(1, 1).exec(by(kernel)).scale(100.0);
        let masked = a.mask(Mask::new(&zeros[..], [1, 1, 1]));
        let slopes = a.alibi(&zeros[..1]);
        let [nan, inf] = [f64::NAN, f64::INFINITY];
        let rows: [([f64; 4], [f64; 4], f64); 8] = [
            ([1.0, 2.0, -1.0, -2.0], [0.0, 1.0, 0.0, 0.0], inf),
            ([2.0, 2.0, 1.0, 1.0], [0.5, 0.5, 0.0, 0.0], inf),
            ([2.0, 2.0, 2.0, 2.0], [0.25; 4], inf),
            ([-2.0, -2.0, -2.0, -2.0], [0.25; 4], -inf),
            ([-2.0, -1.0, -2.0, -inf], [0.0, 1.0, 0.0, 0.0], -inf),
            ([-2.0, inf, -2.0, 2.0], [nan; 4], inf),
            ([-2.0, inf, nan, 2.0], [nan; 4], nan),
            ([-inf, -inf, -inf, -inf], [nan; 4], -inf),
        ];
        for (x, want, want_lse) in rows {
            let x = x.map(|x| T::from_f64(x * large));
            for (i, attention) in [a, masked, slopes].into_iter().enumerate() {
                let (mut y, mut lse) = ([T::ZERO; 4], [T::Arithmetic::ZERO]);
                let (x, out) = (Matrix::new(&x, 4), MatrixMut::new(&mut y, 4));
                let (x, out) = (x.expect("a shape"), out.expect("a shape"));
                attention.softmax_and_logsumexp(x, out, &mut lse).expect("a valid call");
                let what = format!("{} {} {i} {want:?} {y:?} {lse:?}", kernel.name(), T::NAME);
                for (y, want) in y.iter().zip(want) {
                    assert!(y.to_f64() == want || (y.to_f64().is_nan() && want.is_nan()), "{what}");
                }
                let lse = lse[0].to_f64();
                assert!(lse == want_lse || (lse.is_nan() && want_lse.is_nan()), "{what}");
            }
        }
    }
    for kernel in available() {
        check::<f32>(kernel, 1e38);
        check::<f64>(kernel, 5e307);
        check::<bf16>(kernel, 1e38);
        // A sum of two numbers in range that is out of range, and one that returns to it.
        let a = Attention::new(1, 1).exec(by(kernel));
        let mask = [f32::MIN, f32::MIN, 3e38];
        let masked = a.mask(Mask::new(&mask[..], [1, 1, 1]));
        assert_eq!(one(masked, &[f32::MIN, f32::MIN, f32::MIN]).0, [0.0, 0.0, 1.0]);
        let lowest = a.mask(Mask::new(&mask[..2], [1, 1, 1]));
        assert_eq!(one(lowest, &[f32::MIN, f32::MIN]).0, [0.5, 0.5]);
        let far = a.scale(16.0).mask(Mask::new(&mask[..2], [1, 1, 1]));
        let quarter = f32::MAX / 16.0;
        let (y, lse) = one(far, &[quarter * 1.5, quarter * 1.5]);
        assert!(y == [0.5, 0.5] && (1.6e38..1.8e38).contains(&lse), "{y:?} {lse:e}");
    }
}

/// Windows on both sides, from positions within the keys, before the first and after the last one.
#[test]
fn windows_look_back_and_ahead() {
    for kernel in available() {
        let a = Attention::new(1, 1).exec(by(kernel));
        let seen = |attention: Attention| -> Vec<bool> {
            one(attention.masked(Masked::Zero), &[1.0; 5]).0.iter().map(|&y| y > 0.0).collect()
        };
        for offset in -7..12isize {
            for window in [None, Some(0), Some(1), Some(2), Some(usize::MAX)] {
                for ahead in [None, Some(0), Some(1), Some(3), Some(usize::MAX)] {
                    for causal in [false, true] {
                        let mut attention = a.offset(offset);
                        if let Some(window) = window {
                            attention = attention.window(window);
                        }
                        if let Some(ahead) = ahead {
                            attention = attention.window_ahead(ahead);
                        }
                        if causal {
                            attention = attention.causal();
                        }
                        let sees = |key: isize| {
                            let distance = i128::from(key as i64) - i128::from(offset as i64);
                            window.is_none_or(|w| distance > -(w as i128))
                                && ahead.is_none_or(|w| distance <= w as i128)
                                && !(causal && distance > 0)
                        };
                        let want: Vec<bool> = (0..5).map(sees).collect();
                        assert_eq!(seen(attention), want, "{offset} {window:?} {ahead:?} {causal}");
                    }
                }
            }
        }
    }
}

/// Which keys queries see by causality, as others count positions: their rules, written down.
#[test]
fn causality_as_others_count() {
    let seen = |attention: Attention, rows: usize, keys: usize| -> Vec<bool> {
        let (x, mut y) = (vec![0.0f32; rows * keys], vec![0.0f32; rows * keys]);
        let (x, out) = (Matrix::new(&x, keys), MatrixMut::new(&mut y, keys));
        let attention = attention.causal().masked(Masked::Zero);
        attention.softmax(x.expect("a shape"), out.expect("a shape")).expect("a valid call");
        y.iter().map(|&p| p > 0.0).collect()
    };
    for (queries, keys) in [(1, 1), (3, 3), (1, 5), (2, 5), (5, 2), (4, 7)] {
        let allowed = |sees: &dyn Fn(usize, usize) -> bool| -> Vec<bool> {
            (0..queries * keys).map(|i| sees(i / keys, i % keys)).collect()
        };
        for kernel in available() {
            let a = Attention::new(1, queries).exec(by(kernel));
            // FlashAttention: the last query sees the last key.
            let last = allowed(&|q, key| key + queries <= keys + q);
            assert_eq!(seen(a, queries, keys), last, "{queries} {keys}");
            // PyTorch: ones(queries, keys).tril(). ONNX without a cache: the same.
            let lower = allowed(&|q, key| key <= q);
            assert_eq!(seen(a.offset(0), queries, keys), lower, "{queries} {keys}");
            // ONNX with `past_key`: key <= q + past.
            for past in 0..=keys {
                let after = allowed(&|q, key| key <= q + past);
                let got = seen(a.offset(past as isize), queries, keys);
                assert_eq!(got, after, "{queries} {keys} {past}");
            }
            // ONNX with `nonpad_kv_seqlen`, one for each sequence: key <= q + it - queries.
            let valid = [keys, keys / 2, 0];
            let offsets = valid.map(|n| n as isize - queries as isize);
            let got = seen(a.offsets(&offsets).lengths(&valid), 3 * queries, keys);
            let of = |n: usize| allowed(&|q, key| key < n && key + queries <= q + n);
            assert_eq!(got, valid.map(of).concat(), "{queries} {keys}");
        }
    }
}

/// Offsets of sequences are as calls for each of them with its own offset, with ALiBi and windows,
/// too; and the setter that comes later counts.
#[test]
fn each_sequence_has_its_position() {
    let (heads, queries, keys) = (2, 3, 40);
    let mut random = Random(11);
    let each = heads * queries * keys;
    let x: Vec<f32> = row(&mut random, 0, 3 * each);
    let slopes = [0.25f32, -0.125];
    let positions = [37isize, 5, -1];
    let by_row: Vec<isize> =
        (0..3 * heads * queries).map(|i| positions[i / 6] + (i % queries) as isize).collect();
    let run = |attention: Attention, x: &[f32]| {
        let mut y = vec![0.0f32; x.len()];
        let (x, out) = (Matrix::new(x, keys), MatrixMut::new(&mut y, keys));
        attention.softmax(x.expect("a shape"), out.expect("a shape")).expect("a valid call");
        y
    };
    for kernel in available() {
        let a = Attention::new(heads, queries).masked(Masked::Zero).exec(by(kernel));
        let a = a.causal().window(9).alibi(&slopes);
        let want: Vec<f32> = positions
            .iter()
            .zip(x.chunks(each))
            .flat_map(|(&position, x)| run(a.offset(position), x))
            .collect();
        for (offsets, way) in [(&positions[..], "sequences"), (&by_row[..], "rows")] {
            assert_same(&run(a.offset(3).offsets(offsets), &x), &want, || {
                format!("{} {way}", kernel.name())
            });
        }
        let later = run(a.offsets(&positions).offset(5), &x);
        assert_same(&later, &run(a.offset(5), &x), || kernel.name().to_string());
    }
}

/// ALiBi is exact up to its limit, and calls beyond it are refused.
#[test]
fn distances_of_alibi_have_a_limit() {
    let slopes = [1.0 / 1_048_576.0f32];
    let x = [0.5f32, -0.25, 0.125, 1.0, 0.75];
    let limit = (1isize << 24) - 16;
    for kernel in available() {
        let alone = Attention::new(1, 1).exec(by(kernel));
        let a = alone.alibi(&slopes);
        for offset in [limit, limit - 1, 4 - limit, 5 - limit, 12_345_677] {
            let got = one(a.offset(offset), &x);
            let want = one(a.offset(offset).exec(by(scalar())), &x);
            assert_same(&got.0, &want.0, || format!("{} {offset}", kernel.name()));
            assert_same(&[got.1], &[want.1], || format!("{} {offset}", kernel.name()));
            // Each further key is one slope less.
            let bias: Vec<f32> = (0..5).map(|i| i as f32 * slopes[0]).collect();
            let model = one(alone.mask(Mask::new(&bias[..], [1, 1, 1])), &x).0;
            for (got, want) in got.0.iter().zip(model) {
                assert!((got - want).abs() <= want * 4e-7, "{} {offset}", kernel.name());
            }
        }
        let refused = |attention: Attention| {
            let (mut y, mut lse) = ([-7.0f32; 5], [-7.0f32]);
            let (x, out) = (Matrix::new(&x, 5), MatrixMut::new(&mut y, 5));
            let (x, out) = (x.expect("a shape"), out.expect("a shape"));
            let e = attention.softmax_and_logsumexp(x, out, &mut lse).expect_err("too far");
            assert!(y == [-7.0; 5] && lse == [-7.0]);
            e.to_string()
        };
        let message = "the distance of a key for ALiBi must be within 2^24 - 16, either way, got ";
        assert_eq!(refused(a.offset(limit + 1)), format!("{message}-16777201"));
        assert_eq!(refused(a.offset(19_692_841)), format!("{message}-19692841"));
        assert_eq!(refused(a.offset(3 - limit)), format!("{message}16777201"));
        assert_eq!(refused(a.offset(isize::MIN)), format!("{message}9223372036854775807"));
        // Only visible keys count, and only for this bias.
        one(a.offset(limit + 3).window(limit as usize), &x);
        one(a.offset(3 - limit).causal(), &x);
        one(a.offset(isize::MIN).window_ahead(9), &x);
        one(alone.offset(isize::MAX), &x);
        // Of the sequence that is furthest.
        assert_eq!(refused(a.offsets(&[limit + 1])), format!("{message}-16777201"));
        // f64 has a larger limit.
        let (mut y, far) = ([0.0f64; 2], a.offset((1 << 53) - 16));
        let scores = Matrix::new(&[1.0f64, 1.0], 2).expect("a shape");
        far.softmax(scores, MatrixMut::new(&mut y, 2).expect("a shape")).expect("near enough");
        let e = far.offset((1 << 53) - 15);
        e.softmax(scores, MatrixMut::new(&mut y, 2).expect("a shape")).expect_err("too far");
    }
}

/// Logits above 45,000 are rounded first, as in other libraries: 2^24 + 1 is not an f32.
#[test]
fn huge_logits_are_rounded() {
    for kernel in available() {
        let bias = [16_777_216.0f32; 2];
        let a = Attention::new(1, 1).exec(by(kernel)).mask(Mask::new(&bias[..], [1, 1, 1]));
        assert_eq!(one(a, &[1.0, 0.0]).0, [0.5; 2]);
    }
}

#[test]
fn what_does_not_fit_is_named_and_nothing_is_written() {
    let x = [1.0f32; 24];
    let refused = |attention: Attention, message: &str| {
        let mut y = [-7.0f32; 24];
        let mut lse = [-7.0f32; 6];
        let e = attention
            .softmax_and_logsumexp(
                Matrix::new(&x, 4).expect("a shape"),
                MatrixMut::new(&mut y, 4).expect("a shape"),
                &mut lse,
            )
            .expect_err(message);
        assert!(matches!(e, Error::Shape { .. } | Error::Value { .. }), "{e:?}");
        assert!(e.to_string().contains(message), "{e}");
        assert!(y == [-7.0; 24] && lse == [-7.0; 6]);
    };
    let a = Attention::new(2, 3);
    refused(
        Attention::new(4, 1),
        "number of rows (batch times heads times queries) must be a multiple of 4, got 6",
    );
    refused(Attention::new(0, 1), "must be a multiple of 0, got 6");
    refused(Attention::new(usize::MAX, 2), "got 6");
    refused(a.soft_cap(f64::NAN), "soft cap must be in 2^-20..=2^20, got NaN");
    refused(a.soft_cap(0.0), "got 0");
    refused(a.mask(Mask::new(&x[..8], [1, 2, 2])), "must be [1, 2, 3], got [1, 2, 2]");
    refused(
        a.mask(Mask::new(&x[..11], [1, 1, 3])),
        "number of elements of the mask must be 12, got 11",
    );
    refused(
        a.mask_slopes(&x[..3]),
        "number of slopes of the mask (one for each head) must be 2, got 3",
    );
    refused(a.alibi(&x[..1]), "number of slopes (one for each head) must be 2, got 1");
    refused(a.sinks(&x[..1]), "number of sinks (one for each head) must be 2, got 1");
    refused(
        a.lengths(&[1, 2]),
        "number of lengths (one for each sequence of the batch, or each row)",
    );
    refused(
        a.offsets(&[1, 2]),
        "number of offsets (one for each sequence of the batch, or each row) must be 1, got 2",
    );
    let short = |n: usize, keys| a.mask(Mask::new(&x[..n], [1, 1, 3]).hidden_from(keys));
    refused(short(9, 4), "number of elements of the mask must be 12, got 9");
    refused(short(9, 2), "number of elements of the mask must be 6, got 9");
    refused(
        short(15, 5),
        "number of columns of the mask must be no more than there are keys, got 5",
    );
    let mut y = [-7.0f32; 24];
    let e =
        a.softmax(Matrix::new(&x, 4).expect("a shape"), MatrixMut::new(&mut y, 6).expect("one"));
    assert!(
        e.expect_err("other shapes")
            .to_string()
            .contains("the matrix of probabilities must be 6 x 4, got 4 x 6")
    );
    assert_eq!(y, [-7.0; 24]);
    let mut lse = [0.0f32; 5];
    let (x, y) = (Matrix::new(&x, 4).expect("a shape"), MatrixMut::new(&mut y, 4).expect("one"));
    let e = a.softmax_and_logsumexp(x, y, &mut lse).expect_err("five of six");
    assert!(e.to_string().contains("number of log-sum-exps (one for each row) must be 6, got 5"));
    // A matrix without rows is not an error.
    let (x, y) = (Matrix::<f32>::new(&[], 4), MatrixMut::<f32>::new(&mut [], 4));
    Attention::new(2, 3).softmax(x.expect("a shape"), y.expect("one")).expect("nothing to do");
}

/// The log-sum-exp of rows that see no key is their sink's logit; a sink of -0 gives 0 with every
/// kernel.
#[test]
fn sinks_alone() {
    fn lse<T: Probs<T>>(kernel: &'static Kernel, sink: f32) -> f64 {
        let (x, mut y, mut lse) = ([T::ZERO; 3], [T::NAN; 3], [T::Arithmetic::NAN]);
        let (sinks, lengths) = ([sink], [0]);
        let attention = Attention::new(1, 1).exec(by(kernel)).sinks(&sinks).lengths(&lengths);
        let (x, y_view) = (Matrix::new(&x, 3), MatrixMut::new(&mut y, 3));
        let (x, y_view) = (x.expect("a shape"), y_view.expect("a shape"));
        attention.softmax_and_logsumexp(x, y_view, &mut lse).expect("a valid call");
        assert!(y.iter().all(|y| y.to_f64() == 0.0));
        lse[0].to_f64()
    }
    for kernel in available() {
        for sink in [0.0, -0.0, 1.5, -30_000.0] {
            let want = (f64::from(sink) + 0.0).to_bits();
            let got = [
                lse::<f32>(kernel, sink),
                lse::<f64>(kernel, sink),
                lse::<f16>(kernel, sink),
                lse::<bf16>(kernel, sink),
            ];
            assert_eq!(got.map(f64::to_bits), [want; 4], "{} {sink}", kernel.name());
        }
    }
}

/// Infinite scores stay infinite however small the scale is, also in pairs.
#[test]
fn infinite_scores_at_small_scales() {
    let mask = [0.8f32, f32::NEG_INFINITY, f32::NEG_INFINITY];
    for kernel in available() {
        for temperature in [1.0, 1.9e15, 8.0e24, 1e30] {
            let at = Options::new().kernel(kernel).masked(Masked::Zero).temperature(temperature);
            let attention = at.attention(1, 1).mask(Mask::new(&mask[..], [1; 3]));
            let what = format!("{} at {temperature}", kernel.name());
            let nothing = one(attention, &[f32::NEG_INFINITY, f32::INFINITY, f32::INFINITY]);
            assert_eq!(nothing, (vec![0.0; 3], f32::NEG_INFINITY), "{what}");
            let (probs, lse) = one(attention, &[f32::INFINITY, 1.0, 2.0]);
            assert!(probs.iter().all(|p| p.is_nan()) && lse == f32::INFINITY, "{what}: {lse}");
        }
    }
}

/// An infinite mask stays infinite even where its slope is 0 in units of a far row.
#[test]
fn infinite_masks_with_subnormal_slopes() {
    let mask = [f32::INFINITY; 3];
    for kernel in available() {
        for slope in [1e-44f32, 4.7e-39, 1e-20, 0.5] {
            let what = format!("{} with {slope:e}", kernel.name());
            let run = |slopes: &[f32]| {
                let options = Options::new().kernel(kernel).masked(Masked::Zero);
                let attention = options.attention(1, 1);
                let attention = attention.mask(Mask::new(&mask[..], [1; 3])).mask_slopes(slopes);
                one(attention, &[-3.0, -9.5, f32::INFINITY])
            };
            let (probs, lse) = run(&[slope]);
            assert!(probs.iter().all(|p| p.is_nan()) && lse == f32::INFINITY, "{what}: {lse}");
            let (probs, lse) = run(&[-slope]);
            // -inf plus +inf is not a number.
            assert!(probs.iter().all(|p| p.is_nan()) && lse.is_nan(), "{what}: {lse}");
        }
    }
    for kernel in available() {
        let options = Options::new().kernel(kernel).masked(Masked::Zero);
        let attention = options.attention(1, 1);
        let attention = attention.mask(Mask::new(&mask[..], [1; 3])).mask_slopes(&[-4.7e-39]);
        let nothing = one(attention, &[-3.0, -9.5, 2.0]);
        assert_eq!(nothing, (vec![0.0; 3], f32::NEG_INFINITY), "{}", kernel.name());
    }
}

/// A key beyond the type's range only is not hidden: its NaN is the row's.
#[test]
fn biases_beyond_the_range_hide_no_nan() {
    for kernel in available() {
        let options = Options::new().kernel(kernel).masked(Masked::Zero);
        let attention = options.attention(1, 1);
        let attention = attention.alibi(&[f32::MAX]).offset(2);
        for x in [&[f32::NAN][..], &[1.0, f32::NAN], &[f32::NAN; 40]] {
            // Distances of two or more.
            let (probs, lse) = one(attention.offset(x.len() as isize + 1), x);
            let what = kernel.name();
            assert!(lse.is_nan() && probs.iter().all(|p| p.is_nan()), "{what}: {probs:?} {lse}");
        }
        let (probs, lse) = one(attention.offset(3), &[0.0, 1.0]);
        assert_eq!((probs, lse), (vec![0.0, 1.0], f32::NEG_INFINITY), "{}", kernel.name());
    }
}

#[test]
fn by_either_stores() {
    with_the_other_stores(|| {
        any_options_have_the_same_bits();
        any_options_in_place_have_the_same_bits();
        any_sizes_have_the_same_bits();
    });
}
