//! Attention by tiles: any cut against the whole, bit for bit; every kernel against the reference;
//! probabilities and log-sum-exps against attention in f64.

use crate::common::*;
use softmax::half::{bf16, f16};
use softmax::{
    Attention, BitMask, Element, Error, Kernel, Mask, Masked, Matrix, MatrixMut, OnlineRow,
    OnlineSoftmax, Weight,
};
use softmax_measure::oracle::{Dd, F32, ulps};

fn view<T>(y: &mut [T], cols: usize) -> MatrixMut<'_, T> {
    MatrixMut::new(y, cols).expect("a shape")
}

/// What tiles of a whole give.
#[derive(Clone, Debug, PartialEq)]
struct Tiled {
    /// The bits of the weights as they were written.
    weights: Vec<u64>,
    /// The weights times all later factors.
    scaled: Vec<f64>,
    factors: Vec<u32>,
    states: Vec<OnlineRow>,
    reciprocals: Vec<f32>,
    lse: Vec<f32>,
}

/// Computes tiles between these cuts of rows and of keys; in place where that is possible and
/// `in_place`.
fn tiled<U: Weight>(
    attention: Attention,
    x: &[f32],
    keys: usize,
    (row_cuts, key_cuts): (&[usize], &[usize]),
    in_place: bool,
) -> Tiled {
    let rows = x.len() / keys;
    let online = attention.online(rows, keys);
    let mut states = vec![OnlineRow::NEW; rows];
    let (mut weights, mut scaled) = (vec![0; x.len()], vec![0.0; x.len()]);
    let mut all_factors = Vec::new();
    for rs in row_cuts.windows(2) {
        for ks in key_cuts.windows(2) {
            let (n, cols, first) = (rs[1] - rs[0], ks[1] - ks[0], (rs[0], ks[0]));
            let states = &mut states[rs[0]..rs[1]];
            let mut factors = vec![9.0f32; n];
            // Rows of the tile lie in the whole; its weights have gaps that are left alone.
            let canary = U::from_f64(-7.0);
            let mut y = vec![canary; n * (cols + 3)];
            if in_place {
                let mut part = vec![-7.0f32; n * (cols + 3)];
                for r in 0..n {
                    part[r * (cols + 3)..][..cols]
                        .copy_from_slice(&x[(rs[0] + r) * keys + ks[0]..][..cols]);
                }
                let tile = MatrixMut::with_stride(&mut part, n, cols, cols + 3).expect("a shape");
                online.tile_in_place(first, tile, states, &mut factors).expect("a valid tile");
                for (y, x) in y.iter_mut().zip(part) {
                    *y = U::from_f64(x.into());
                }
            } else {
                let tile = Matrix::with_stride(&x[rs[0] * keys + ks[0]..], n, cols, keys);
                let view = MatrixMut::with_stride(&mut y, n, cols, cols + 3).expect("a shape");
                online
                    .tile(first, tile.expect("a shape"), view, states, &mut factors)
                    .expect("a valid tile");
            }
            for r in 0..n {
                let row = rs[0] + r;
                for k in 0..ks[0] {
                    scaled[row * keys + k] *= f64::from(factors[r]);
                }
                for k in 0..cols {
                    let w = y[r * (cols + 3) + k].to_f64();
                    weights[row * keys + ks[0] + k] = w.to_bits();
                    scaled[row * keys + ks[0] + k] = w;
                }
                let gap = &y[r * (cols + 3) + cols..(r + 1) * (cols + 3)];
                assert!(gap.iter().all(|y| y.to_f64() == -7.0), "elements between rows");
            }
            all_factors.extend(factors.iter().map(|factor| factor.to_bits()));
        }
    }
    let (mut reciprocals, mut lse) = (vec![9.0; rows], vec![9.0; rows]);
    let half = rows / 2;
    for (from, to) in [(0, half), (half, rows)] {
        online
            .finish(from, &states[from..to], &mut reciprocals[from..to], Some(&mut lse[from..to]))
            .expect("valid rows");
    }
    Tiled { weights, scaled, factors: all_factors, states, reciprocals, lse }
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

/// Random cuts of `n`, with both ends.
fn cuts(random: &mut Random, n: usize) -> Vec<usize> {
    let mut cuts: Vec<_> = (0..random.below(5)).map(|_| random.below(n + 1)).collect();
    if random.once_in(2) {
        cuts.iter_mut().for_each(|cut| *cut = *cut / 16 * 16);
    }
    cuts.extend([0, n]);
    cuts.sort_unstable();
    cuts.dedup();
    cuts
}

/// A case of random shape, scores and options.
struct Case {
    heads: usize,
    queries: usize,
    keys: usize,
    x: Vec<f32>,
    kind: usize,
    scale: f64,
    causal: bool,
    window: Option<usize>,
    offset: Option<isize>,
    cap: Option<f64>,
    sinks: Option<Vec<f32>>,
    alibi: Option<Vec<f32>>,
    lengths: Option<Vec<usize>>,
    /// 0: none, 1: booleans, 2: bits, 3: numbers that hide, 4: numbers that add.
    mask: usize,
    numbers: Vec<f32>,
    booleans: Vec<bool>,
    words: Vec<u32>,
    masked: Masked,
}

impl Case {
    fn new(random: &mut Random, kind: usize) -> Self {
        let (heads, queries) = (1 + random.below(2), 1 + random.below(3));
        let keys =
            if random.once_in(6) { 4000 + random.below(4600) } else { 1 + random.below(300) };
        let rows = heads * queries;
        let x = (0..rows).flat_map(|_| row::<f32>(random, kind, keys)).collect();
        let some = random.below(3);
        let of_heads = |random: &mut Random, factor: f64| -> Vec<f32> {
            (0..heads).map(|_| (random.signed() * factor) as f32).collect()
        };
        let mask = if random.once_in(2) { random.below(5) } else { 0 };
        let adds = mask == 4;
        let booleans: Vec<_> = (0..queries * keys).map(|_| !random.once_in(3)).collect();
        let mut words = vec![0u32; queries * keys.div_ceil(32)];
        let mut numbers = vec![0.0f32; queries * keys];
        for (i, &seen) in booleans.iter().enumerate() {
            if seen {
                words[i / keys * keys.div_ceil(32) + i % keys / 32] |= 1 << (i % keys % 32);
            }
            let number = if adds { (random.signed() * 9.0) as f32 } else { 0.0 };
            numbers[i] = if seen { number } else { f32::NEG_INFINITY };
        }
        let huge = kind == 2 || kind == 7;
        Case {
            heads,
            queries,
            keys,
            x,
            kind,
            scale: [1.0, 0.125, 0.088_388_347, -0.3][random.below(4)],
            causal: random.once_in(2),
            window: random.once_in(4).then(|| random.below(100)),
            offset: random.once_in(4).then(|| random.below(keys) as isize),
            cap: (some == 1 && random.once_in(4)).then_some(30.0),
            sinks: (random.once_in(4) && !huge).then(|| of_heads(random, 30.0)),
            alibi: (some == 1 && !huge && random.once_in(2)).then(|| of_heads(random, 0.5)),
            lengths: random.once_in(4).then(|| vec![random.below(keys + 1)]),
            mask: if huge && adds { 0 } else { mask },
            numbers,
            booleans,
            words,
            masked: if random.once_in(2) { Masked::Zero } else { Masked::Nan },
        }
    }

    fn attention(&self, kernel: &'static Kernel) -> Attention<'_> {
        let mut a = Attention::new(self.heads, self.queries).exec(by(kernel)).masked(self.masked);
        a = a.scale(self.scale);
        if self.causal {
            a = a.causal();
        }
        if let Some(window) = self.window {
            a = a.window(window);
        }
        if let Some(offset) = self.offset {
            a = a.offset(offset);
        }
        if let Some(cap) = self.cap {
            a = a.soft_cap(cap);
        }
        if let Some(sinks) = &self.sinks {
            a = a.sinks(sinks);
        }
        if let Some(alibi) = &self.alibi {
            a = a.alibi(alibi);
        }
        if let Some(lengths) = &self.lengths {
            a = a.lengths(lengths);
        }
        let shape = [1, 1, self.queries];
        match self.mask {
            0 => a,
            1 => a.mask(Mask::new(&self.booleans[..], shape)),
            2 => a.mask(Mask::new(BitMask::new(&self.words), shape)),
            _ => a.mask(Mask::new(&self.numbers[..], shape)),
        }
    }

    /// Whether logits are pairs.
    fn pairs(&self) -> bool {
        self.cap.is_some() || self.sinks.is_some() || self.alibi.is_some() || self.mask == 4
    }

    /// Whether no logit reaches 45,000, and none is flushed: then no cut changes a bit.
    fn is_plain(&self) -> bool {
        let masks_add = self.mask == 4;
        let kind = matches!(self.kind, 0 | 3 | 4 | 5 | 6);
        // A mask that adds may add nothing but 0 in a small tile.
        kind && !masks_add && self.alibi.is_none()
    }
}

fn whole(n: usize) -> Vec<usize> {
    vec![0, n]
}

/// Runs random cases.
fn for_cases(seed: u64, mut f: impl FnMut(&Case, &mut Random)) {
    let n = if quick() { 3 } else { 12 };
    for kind in 0..KINDS {
        let mut random = Random(seed + kind as u64);
        for _ in 0..n {
            let case = Case::new(&mut random, kind);
            f(&case, &mut random);
        }
    }
}

#[test]
fn every_kernel_and_type_gives_the_same_bits() {
    fn check<U: Weight>(case: &Case, cuts: (&[usize], &[usize]), what: &str) -> Tiled {
        let want = tiled::<U>(case.attention(scalar()), &case.x, case.keys, cuts, false);
        for kernel in exact() {
            let got = tiled::<U>(case.attention(kernel), &case.x, case.keys, cuts, false);
            assert_eq!(got.weights, want.weights, "{} {what}", kernel.name());
            assert_eq!(got.factors, want.factors, "{} {what}", kernel.name());
            for (got, want) in got.states.iter().zip(&want.states) {
                assert_eq!(bits_of(got), bits_of(want), "{} {what}", kernel.name());
            }
            assert_eq!(bits(&got.lse), bits(&want.lse), "{} {what}", kernel.name());
            assert_eq!(bits(&got.reciprocals), bits(&want.reciprocals), "{}", kernel.name());
        }
        want
    }
    for_cases(1, |case, random| {
        let (r, k) = (cuts(random, case.heads * case.queries), cuts(random, case.keys));
        let f32s = check::<f32>(case, (&r, &k), "f32");
        let bf16s = check::<bf16>(case, (&r, &k), "bf16");
        let f16s = check::<f16>(case, (&r, &k), "f16");
        // The others are the weights of f32, rounded; the sums are those of f32.
        let round = |to: &dyn Fn(f64) -> f64| -> Vec<_> {
            f32s.weights.iter().map(|&w| to(f64::from_bits(w)).to_bits()).collect()
        };
        assert_eq!(bf16s.weights, round(&|w| <bf16 as Element>::from_f64(w).to_f64()));
        assert_eq!(f16s.weights, round(&|w| <f16 as Element>::from_f64(w).to_f64()));
        for others in [bf16s, f16s] {
            assert_eq!(bits(&others.reciprocals), bits(&f32s.reciprocals));
            assert_eq!(bits(&others.lse), bits(&f32s.lse));
        }
        for kernel in exact() {
            let a = case.attention(kernel);
            let in_place = tiled::<f32>(a, &case.x, case.keys, (&r, &k), true);
            assert_eq!(in_place.weights, f32s.weights, "{} in place", kernel.name());
        }
    });
}

/// All numbers of a state, with every NaN alike.
fn bits_of(row: &OnlineRow) -> Vec<u64> {
    row.to_array().iter().map(|x| if x.is_nan() { u64::MAX } else { x.to_bits() }).collect()
}

#[test]
fn the_sign_of_zero_is_that_of_no_kernel() {
    for kernel in exact() {
        for biased in [false, true] {
            for i in 0..3 {
                let zero = |k: usize| if (k + i).is_multiple_of(i + 1) { -0.0 } else { 0.0 };
                let mut x: Vec<f32> = (0..40).map(zero).collect();
                let attention = Attention::new(1, 1).exec(by(kernel)).scale(0.5);
                let attention = if biased { attention.sinks(&[-0.0]) } else { attention };
                let (mut states, mut factors) = ([OnlineRow::NEW], [9.0]);
                let online = attention.online(1, 40);
                let tile = view(&mut x, 40);
                online.tile_in_place((0, 0), tile, &mut states, &mut factors).expect("a tile");
                let largest = states[0].to_array()[0].to_bits();
                assert_eq!(largest, 0, "{}, {biased}, {i}", kernel.name());
            }
        }
    }
}

#[test]
fn no_cut_changes_a_bit() {
    let mut compared = 0;
    for_cases(2, |case, random| {
        if !case.is_plain() {
            return;
        }
        let rows = case.heads * case.queries;
        let a = case.attention(exact()[0]);
        let of_row = (&whole(rows)[..], &whole(case.keys)[..]);
        let one = tiled::<f32>(a, &case.x, case.keys, of_row, false);
        // With the pair of the reciprocal the probabilities are those of a whole row, unless its
        // sink counts, which the reciprocal has.
        if case.sinks.is_none() {
            let mut probs = vec![0.0f32; case.x.len()];
            let y = view(&mut probs, case.keys);
            a.softmax(Matrix::new(&case.x, case.keys).expect("a shape"), y).expect("a valid call");
            for (i, &p) in probs.iter().enumerate() {
                let inverse = 1.0 / one.states[i / case.keys].sum();
                let (hi, w) = (inverse as f32, one.scaled[i] as f32);
                let lo = (inverse - f64::from(hi)) as f32;
                if inverse.is_finite() && (p == 0.0 && w == 0.0 || p > 1e-30) {
                    assert_eq!(w.mul_add(hi, w * lo).to_bits(), p.to_bits());
                    compared += 1;
                }
            }
        }
        for _ in 0..3 {
            let (r, k) = (cuts(random, rows), cuts(random, case.keys));
            let cut = tiled::<f32>(a, &case.x, case.keys, (&r, &k), false);
            assert_eq!(bits(&cut.lse), bits(&one.lse), "{k:?}");
            for (row, (cut_row, one_row)) in cut.states.iter().zip(&one.states).enumerate() {
                // The shift may differ, and nothing else.
                let power = cut_row.sum() / one_row.sum();
                let special = one_row.sum() == 0.0 && bits_of(cut_row) == bits_of(one_row);
                let same = special || power.to_bits() << 12 == 0;
                assert!(same, "row {row} by {k:?}: {cut_row:?} {one_row:?}");
                let mut columns = row * case.keys..(row + 1) * case.keys;
                let scaled = columns.all(|i| cut.scaled[i] == power * one.scaled[i]);
                assert!(special || scaled, "weights");
            }
        }
    });
    assert!(compared > 0);
}

/// Bounds, against attention in f64.
#[test]
fn probabilities_and_log_sum_exps_are_within_their_bounds() {
    let (mut worst, mut worst_lse, mut worst_pairs) = (0.0f64, 0.0f64, 0.0f64);
    for_cases(3, |case, random| {
        let rows = case.heads * case.queries;
        let a = case.attention(exact()[0]);
        let x: Vec<f64> = case.x.iter().map(|&x| x.into()).collect();
        let (mut probs, mut lse) = (vec![0.0f64; x.len()], vec![0.0f64; rows]);
        a.softmax_and_logsumexp(
            Matrix::new(&x, case.keys).expect("a shape"),
            view(&mut probs, case.keys),
            &mut lse,
        )
        .expect("a valid call");
        let (r, k) = (cuts(random, rows), cuts(random, case.keys));
        let got = tiled::<f32>(a, &case.x, case.keys, (&r, &k), false);
        // Beyond 45,000 logits of pairs are rounded to f32 first.
        let rounded = case.pairs() && matches!(case.kind, 2 | 7);
        for (i, (&w, &p)) in got.scaled.iter().zip(&probs).enumerate() {
            let reciprocal = got.reciprocals[i / case.keys];
            let got_p = w as f32 * reciprocal;
            if p.is_nan() {
                assert!(reciprocal.is_nan());
            } else if p < 1e-30 {
                assert!((0.0..1e-29).contains(&got_p), "{got_p} {p}");
            } else if !rounded {
                worst = worst.max(ulps(got_p.into(), Dd(p, 0.0), F32));
            }
        }
        for (&got, &want) in got.lse.iter().zip(&lse) {
            if want.is_infinite() || want.is_nan() {
                assert_eq!(f64::from(got), want);
            } else if !rounded {
                let error = (f64::from(got) - want).abs();
                let of_ulp = ulps(got.into(), Dd(want, 0.0), F32) / 2.0;
                if case.pairs() {
                    worst_pairs = worst_pairs.max(of_ulp.min(error / 2e-7));
                } else {
                    worst_lse = worst_lse.max(of_ulp.min(error / 1e-7));
                }
            }
        }
    });
    println!("probabilities {worst:.3} ULP; log-sum-exps {worst_lse:.3}, pairs {worst_pairs:.3}");
    assert!(worst > 0.3 && worst <= 4.0, "{worst}");
    assert!(worst_lse > 0.01 && worst_lse <= 1.0, "{worst_lse}");
    assert!(worst_pairs > 0.01 && worst_pairs <= 1.0, "{worst_pairs}");
}

#[test]
fn special_values() {
    for kernel in available() {
        let a = Attention::new(1, 1).exec(by(kernel));
        let run = |a: Attention, x: &[f32], cuts: &[usize]| {
            tiled::<f32>(a, x, x.len(), (&[0, 1], cuts), false)
        };
        let weights = |tiled: &Tiled| -> Vec<f64> {
            tiled.weights.iter().map(|&w| f64::from_bits(w)).collect()
        };
        let (inf, nan) = (f32::INFINITY, f32::NAN);
        // NaN in the second of three tiles.
        let got = run(a, &[1.0, 2.0, nan, 1.0, 5.0, 6.0], &[0, 2, 4, 6]);
        let w = weights(&got);
        assert!(w[..2].iter().all(|w| w.is_finite()) && w[2..].iter().all(|w| w.is_nan()));
        assert!(got.reciprocals[0].is_nan() && got.lse[0].is_nan());
        // +inf, and then NaN, which is no worse.
        let got = run(a, &[1.0, inf, 1.0, nan], &[0, 2, 3, 4]);
        assert!(weights(&got).iter().all(|w| w.is_nan()));
        assert!(got.reciprocals[0].is_nan() && got.lse[0] == inf);
        // -inf beside numbers; a tile of nothing but -inf has factor 1, or 0 if it is the first.
        let got = run(a, &[-inf, -inf, 3.0, -inf, -inf, -inf], &[0, 2, 4, 6]);
        assert_eq!(got.factors, [0.0f32, 0.0, 1.0].map(f32::to_bits));
        assert_eq!(got.lse, [3.0]);
        assert_eq!(weights(&got).iter().filter(|&&w| w > 0.0).count(), 1);
        // Nothing at all, with and without a sink.
        for (masked, reciprocal) in [(Masked::Zero, 0.0), (Masked::Nan, f32::NAN)] {
            let got = run(a.masked(masked), &[-inf, -inf], &[0, 2]);
            assert_eq!(got.reciprocals[0].to_bits(), reciprocal.to_bits());
            assert_eq!(got.lse, [-inf]);
            let got = run(a.masked(masked).sinks(&[2.0]), &[-inf, -inf], &[0, 2]);
            assert_eq!((got.reciprocals[0], got.lse[0]), (0.0, 2.0));
        }
        // Hidden NaN is not seen.
        let got = run(a.causal().offset(1), &[0.0, 0.0, nan, nan], &[0, 1, 3, 4]);
        assert_eq!(got.lse, [std::f32::consts::LN_2]);
        // Sinks that are special, or beyond all keys.
        assert!(run(a.sinks(&[nan]), &[0.0], &[0, 1]).lse[0].is_nan());
        assert_eq!(run(a.sinks(&[inf]), &[0.0], &[0, 1]).lse, [inf]);
        assert_eq!(run(a.sinks(&[-inf]), &[0.5], &[0, 1]).lse, [0.5]);
        let got = run(a.sinks(&[1e6]), &[0.0], &[0, 1]);
        assert_eq!((got.reciprocals[0], got.lse[0]), (0.0, 1e6));
    }
}

/// Logits beyond the range of f32's exponential, by steps that each need another shift.
#[test]
fn far_rows() {
    for kernel in available() {
        let a = Attention::new(1, 1).exec(by(kernel));
        // Around 45,426, where 65,536 octaves are; far beyond; and out of the range of f32.
        let near: Vec<f32> = (0..40).map(|i| 45_400.0 + i as f32 * 1.5).collect();
        let far: Vec<f32> = (0..40).map(|i| 3e8 + i as f32 * 32.0).collect();
        let negative: Vec<f32> = (0..40).map(|i| -1e5 + i as f32 * 0.5).collect();
        for x in [near, far, negative, vec![1e37; 3], vec![-1e38, 0.0, 1e38, 1e38]] {
            let mut want = vec![0.0f64; x.len()];
            let wide: Vec<f64> = x.iter().map(|&x| x.into()).collect();
            let (wide, y) = (Matrix::new(&wide, x.len()).expect("a row"), view(&mut want, x.len()));
            a.softmax(wide, y).expect("a valid call");
            for step in [1, 3, 40] {
                let cuts: Vec<_> = (0..x.len()).step_by(step).chain([x.len()]).collect();
                let got = tiled::<f32>(a, &x, x.len(), (&[0, 1], &cuts), false);
                for (&w, &p) in got.scaled.iter().zip(&want) {
                    let got = w as f32 * got.reciprocals[0];
                    let close = ulps(got.into(), Dd(p, 0.0), F32) <= 4.0;
                    assert!(close || p < 1e-30 && got < 1e-29, "{x:?} by {step}: {got} {p}");
                }
            }
        }
        // Logits of pairs that leave the range of f32.
        let mask = [f32::MAX, f32::MAX, 0.0];
        let a = a.mask(Mask::new(&mask[..], [1, 1, 1])).scale(16.0);
        let x = [f32::MAX / 4.0, f32::MAX / 4.0, 0.0];
        let got = tiled::<f32>(a, &x, 3, (&[0, 1], &[0, 1, 2, 3]), false);
        let probs: Vec<_> = got.scaled.iter().map(|&w| w as f32 * got.reciprocals[0]).collect();
        assert_eq!(probs, [0.5, 0.5, 0.0], "{}", kernel.name());
    }
}

#[test]
fn factors_are_powers_of_two() {
    // The maximum rises by 100, then by less than is worth a shift, then beyond the range of f32.
    let x = [0.0f32, 100.0, 105.0, 250.0, 100.0];
    let a = Attention::new(1, 1);
    let got = tiled::<f32>(a, &x, 5, (&[0, 1], &[0, 1, 2, 3, 4, 5]), false);
    let want = [0.0, 2f32.powi(-144), 1.0, 0.0, 1.0];
    let want = want.map(|factor| if factor < f32::MIN_POSITIVE { 0.0 } else { factor });
    assert_eq!(got.factors, want.map(f32::to_bits));
    let got = tiled::<f32>(a, &[0.0, 60.0], 2, (&[0, 1], &[0, 1, 2]), false);
    assert_eq!(got.factors, [0.0, 2f32.powi(-86)].map(f32::to_bits));
}

#[test]
fn states_merge() {
    let mut random = Random(4);
    let keys = 5 * 4096 + 100;
    let x = row::<f32>(&mut random, 0, keys);
    let a = Attention::new(1, 1);
    let one = tiled::<f32>(a, &x, keys, (&[0, 1], &[0, keys]), false);
    let online = a.online(1, keys);
    // One state for each block: merged in order they are the row.
    let mut merged = OnlineRow::NEW;
    let mut apart = Vec::new();
    for from in (0..keys).step_by(4096) {
        let (n, mut state) = (4096.min(keys - from), [OnlineRow::NEW]);
        let (mut y, mut factor) = (vec![f16::ZERO; n], [0.0]);
        let tile = Matrix::new(&x[from..from + n], n).expect("a row");
        online.tile((0, from), tile, view(&mut y, n), &mut state, &mut factor).expect("a tile");
        apart.push(OnlineRow::from_array(state[0].to_array()));
        let mut factors = ([9.0], [9.0]);
        OnlineSoftmax::merge(
            std::slice::from_mut(&mut merged),
            &state,
            &mut factors.0,
            &mut factors.1,
        )
        .expect("as many");
        for factor in [factors.0[0], factors.1[0]] {
            assert!(factor.to_bits() << 9 == 0, "{factor} is a power of two or 0");
        }
        assert!(factors.0[0] == 1.0 || factors.1[0] == 1.0);
    }
    let power = merged.sum() / one.states[0].sum();
    assert_eq!(power.to_bits() << 12, 0);
    let (mut reciprocal, mut lse) = ([0.0], [0.0]);
    online.finish(0, &[merged], &mut reciprocal, Some(&mut lse)).expect("a row");
    assert_eq!(lse.to_vec(), one.lse);
    // As a tree the sum may differ in its last places, and the log-sum-exp is as good.
    while apart.len() > 1 {
        apart = apart
            .chunks(2)
            .map(|pair| {
                let mut first = pair[0];
                if let [_, second] = pair {
                    first.merge(second);
                }
                first
            })
            .collect();
    }
    assert!((apart[0].sum() / merged.sum()).log2().fract().abs() < 1e-14);
    // With rows that have seen nothing, or something special.
    let new = OnlineRow::NEW;
    let mut state = new;
    assert_eq!((state.merge(&new), state), ((0.0, 0.0), new));
    assert_eq!((state.merge(&merged), state.sum()), ((0.0, 1.0), merged.sum()));
    assert_eq!((state.merge(&new), state.sum()), ((1.0, 0.0), merged.sum()));
    for value in [f32::NAN, f32::INFINITY] {
        let special = tiled::<f32>(a, &[value], 1, (&[0, 1], &[0, 1]), false).states[0];
        for (mut a, b) in [(merged, special), (special, merged), (special, new)] {
            a.merge(&b);
            let want = tiled::<f32>(Attention::new(1, 1), &[value], 1, (&[0, 1], &[0, 1]), false);
            assert_eq!(bits_of(&a), bits_of(&want.states[0]));
        }
    }
}

#[test]
fn outputs_merge() {
    let a = Attention::new(1, 1).online(3, 8);
    let (inf, nan) = (f32::INFINITY, f32::NAN);
    let parts = [[1.0f32, 2.0, 3.0, 4.0, nan, nan], [5.0, 7.0, 9.0, 11.0, nan, nan]];
    let lses = [[0.0f32, 1.0, -inf], [0.0, -inf, -inf]];
    let (mut out, mut lse) = ([0.0f32; 6], [0.0f32; 3]);
    let run = |a: OnlineSoftmax, lses: &[[f32; 3]; 2], out: &mut [f32], lse: &mut [f32]| {
        let part = |i: usize| (Matrix::new(&parts[i][..], 2).expect("a shape"), &lses[i][..]);
        a.merge_outputs(&[part(0), part(1)], view(out, 2), lse).expect("shapes that fit");
    };
    run(a, &lses, &mut out, &mut lse);
    assert_eq!(out[..4], [3.0, 4.5, 3.0, 4.0]);
    assert!(out[4..].iter().all(|x| x.is_nan()));
    assert_eq!(lse, [std::f32::consts::LN_2, 1.0, -inf]);
    run(Attention::new(1, 1).masked(Masked::Zero).online(3, 8), &lses, &mut out, &mut lse);
    assert_eq!(out[4..], [0.0, 0.0]);
    run(a, &[[inf, nan, 0.0], [0.0, inf, -inf]], &mut out, &mut lse);
    assert!(out.iter().all(|x| x.is_nan()));
    assert!(lse[0] == inf && lse[1].is_nan() && lse[2] == 0.0);
    // Of parts of a row: the output of the whole, within the rounding of log-sum-exps.
    let mut random = Random(5);
    let (n, d) = (300, 70);
    let x = row::<f32>(&mut random, 0, n);
    let values: Vec<f64> = (0..n * d).map(|_| random.signed()).collect();
    let output = |from: usize, to: usize| -> (Vec<f64>, f64) {
        let (x, mut y): (Vec<f64>, _) =
            (x[from..to].iter().map(|&x| x.into()).collect(), vec![0.0; to - from]);
        softmax::softmax(&x, &mut y).expect("as many");
        let of = |j: usize| y.iter().enumerate().map(|(i, p)| p * values[(from + i) * d + j]).sum();
        ((0..d).map(of).collect(), softmax::logsumexp(&x).expect("a row"))
    };
    let outputs = [output(0, 100), output(100, 170), output(170, n)];
    let f32s: Vec<Vec<f32>> =
        outputs.iter().map(|(o, _)| o.iter().map(|&o| o as f32).collect()).collect();
    let lses: Vec<[f32; 1]> = outputs.iter().map(|&(_, lse)| [lse as f32]).collect();
    let parts: Vec<_> = f32s
        .iter()
        .zip(&lses)
        .map(|(o, lse)| (Matrix::new(&o[..], d).expect("a row"), &lse[..]))
        .collect();
    let (mut out, mut lse) = (vec![0.0f32; d], [0.0]);
    a.merge_outputs(&parts, view(&mut out, d), &mut lse).expect("shapes that fit");
    let want = output(0, n);
    assert!((f64::from(lse[0]) - want.1).abs() < 1e-6);
    let worst = out.iter().zip(&want.0).map(|(&o, w)| (f64::from(o) - w).abs()).fold(0.0, f64::max);
    assert!(worst < 1e-6, "{worst:e}");
}

#[test]
fn what_does_not_fit_is_refused_and_nothing_is_written() {
    let a = Attention::new(2, 2);
    let x = [0.0f32; 12];
    let run = |a: Attention, of: (usize, usize), first, cols: usize, states: usize, n: usize| {
        let mut y = [9.0f32; 12];
        let (mut states, mut factors) = (vec![OnlineRow::NEW; states], vec![9.0f32; n]);
        let tile = Matrix::new(&x, cols).expect("a shape");
        let y_view = view(&mut y, cols);
        let done = a.online(of.0, of.1).tile(first, tile, y_view, &mut states, &mut factors);
        if done.is_err() {
            assert_eq!(y, [9.0; 12]);
            assert!(factors.iter().all(|&f| f == 9.0));
            assert!(states.iter().all(|state| *state == OnlineRow::NEW));
        }
        done
    };
    assert_eq!(run(a, (8, 9), (4, 6), 3, 4, 4), Ok(()));
    let message = |done: Result<(), Error>| done.expect_err("an error").to_string();
    let m = message(run(a, (8, 9), (5, 6), 3, 4, 4));
    assert!(m.contains("tile's rows") && m.contains('9'), "{m}");
    let m = message(run(a, (8, 9), (4, 7), 3, 4, 4));
    assert!(m.contains("tile's keys") && m.contains("10"), "{m}");
    assert!(run(a, (8, 9), (usize::MAX, 0), 3, 4, 4).is_err());
    assert!(run(a, (8, 9), (0, usize::MAX), 3, 4, 4).is_err());
    assert!(message(run(a, (8, 9), (0, 0), 3, 3, 4)).contains("states"));
    assert!(message(run(a, (8, 9), (0, 0), 3, 4, 5)).contains("factors"));
    assert!(message(run(a, (7, 9), (0, 0), 3, 4, 4)).contains("multiple of 4"));
    assert!(message(run(a.sinks(&[0.0]), (8, 9), (0, 0), 3, 4, 4)).contains("sinks"));
    assert!(message(run(a.scale(0.0), (8, 9), (0, 0), 3, 4, 4)).contains("scale"));
    assert!(message(run(a.soft_cap(0.0), (8, 9), (0, 0), 3, 4, 4)).contains("cap"));
    let mut y = [9.0f32; 12];
    let online = a.online(8, 9);
    let tile = Matrix::new(&x, 3).expect("a shape");
    let (mut states, mut factors) = ([OnlineRow::NEW; 4], [9.0f32; 4]);
    let done = online.tile((0, 0), tile, view(&mut y, 4), &mut states, &mut factors);
    assert!(message(done).contains("weights"));
    let mut two = [9.0f32; 2];
    assert!(message(online.finish(0, &states, &mut two, None)).contains("reciprocals"));
    let mut four = [9.0f32; 4];
    assert!(message(online.finish(0, &states, &mut four, Some(&mut two))).contains("log-sum-exps"));
    assert!(message(online.finish(5, &states, &mut four, None)).contains("rows"));
    assert_eq!(online.finish(4, &states, &mut four, None), Ok(()));
    let m = message(OnlineSoftmax::merge(&mut states, &[], &mut four, &mut factors));
    assert!(m.contains("other states"), "{m}");
    let part = (Matrix::new(&x, 3).expect("a shape"), &two[..]);
    let done = online.merge_outputs(&[part], view(&mut y, 3), &mut four);
    assert!(message(done).contains("log-sum-exps of a part"));
    // Any numbers as a state: no panic.
    for numbers in [[f64::NAN; 5], [1e300; 5], [-1e300; 5], [0.0; 5], [1.0, 1.0, 1e5, -1e9, 1.0]] {
        let mut state = [OnlineRow::from_array(numbers)];
        let (mut y, mut f) = ([0.0f32; 12], [0.0]);
        let tile = Matrix::new(&x, 12).expect("a row");
        let online = Attention::new(1, 1).sinks(&[1.0]).online(1, 12);
        online.tile((0, 0), tile, view(&mut y, 12), &mut state, &mut f).expect("a tile");
        online.finish(0, &state, &mut [0.0], None).expect("a row");
    }
}

/// The one constant for x86-64 and AArch64, for fixed tiles. It changes only with the arithmetic
/// contract.
const DIGEST: u64 = 0xe195_cf7c_9fea_ab12;

#[test]
fn digest_is_the_same_on_every_cpu() {
    for kernel in available() {
        let mut digest = Fnv::default();
        for kind in 0..KINDS {
            let mut random = Random(90 + kind as u64);
            for _ in 0..3 {
                let case = Case::new(&mut random, kind);
                let (r, k) =
                    (cuts(&mut random, case.heads * case.queries), cuts(&mut random, case.keys));
                let all = tiled::<f32>(case.attention(kernel), &case.x, case.keys, (&r, &k), false);
                let weights = all.weights.iter().map(|&w| f64::from_bits(w) as f32);
                digest.add(&weights.collect::<Vec<_>>());
                digest.add(&all.reciprocals);
                digest.add(&all.lse);
            }
        }
        println!("{} on {}: {:#018x}", kernel.name(), std::env::consts::ARCH, digest.0);
        assert_eq!(digest.0, DIGEST, "{}: {:#018x}", kernel.name(), digest.0);
    }
}
