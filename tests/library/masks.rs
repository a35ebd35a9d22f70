//! Masks of bits give the bits of rows with -inf in place of what they hide, in every operation.

use std::num::NonZeroUsize;

use crate::common::*;
use softmax::half::{bf16, f16};
use softmax::{
    Attention, BitMask, Caches, Element, Error, Kernel, LogProbs, Mask, MaskData, Masked, Matrix,
    MatrixMut, Method, Order, Probs, Sampler, Softmax, Threads, TopK,
};

fn ways_of(kernel: &'static Kernel) -> [Options<'static>; 2] {
    let two = Threads::Exactly(NonZeroUsize::new(2).expect("not 0"));
    let options = Options::new().kernel(kernel).masked(Masked::Zero);
    let shared = options.threads(two).caches(Caches::new(1 << 12, 1 << 12));
    [options.threads(Threads::Serial), shared]
}

/// Lengths around those of vectors, words and blocks.
fn lengths() -> &'static [usize] {
    if quick() {
        &[1, 8, 17, 33, 300]
    } else {
        &[1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 300, 1024, 4096, 4129, 9000]
    }
}

/// A mask and what it says in plain words.
struct Case {
    rows: usize,
    cols: usize,
    /// For each element.
    seen: Vec<bool>,
    words: Vec<u32>,
    stride: Option<usize>,
    width: Option<usize>,
}

impl Case {
    fn random(rows: usize, cols: usize, seed: u64) -> Self {
        let r = &mut Random(seed);
        let width = r.once_in(3).then(|| r.below(cols + 1));
        let words_a_row = width.unwrap_or(cols).div_ceil(32);
        let stride = r.once_in(3).then(|| words_a_row + r.below(3));
        let step = stride.unwrap_or(words_a_row);
        // All bits are random, those in gaps and behind the last column, too.
        let kind = r.below(4);
        let mut words: Vec<u32> = (0..rows * step)
            .map(|_| match kind {
                0 => r.next() as u32,
                // Few are seen, as grammars have it.
                1 if !r.once_in(4) => 0,
                1 => 1 << r.below(32),
                2 if r.once_in(2) => u32::MAX,
                2 => 0,
                _ => (r.next() | r.next()) as u32,
            })
            .collect();
        if rows > 1 {
            // One row shows nothing.
            words[..step].fill(0);
        }
        // The last gap may be missing.
        words.truncate((rows - 1) * step + words_a_row + r.below(step - words_a_row + 1));
        let at = |i: usize| {
            let (row, col) = (i / cols, i % cols);
            col < width.unwrap_or(cols) && words[row * step + col / 32] & (1 << (col % 32)) != 0
        };
        let seen = (0..rows * cols).map(at).collect();
        Self { rows, cols, seen, words, stride, width }
    }

    fn mask(&self) -> BitMask<'_> {
        let mut mask = BitMask::new(&self.words);
        if let Some(stride) = self.stride {
            mask = mask.stride(stride);
        }
        if let Some(width) = self.width {
            mask = mask.hidden_from(width);
        }
        mask
    }

    /// Logits whose hidden elements may have any value, and the same with -inf there.
    fn logits<T: Element>(&self, seed: u64) -> [Vec<T>; 2] {
        let r = &mut Random(seed);
        let mut x: Vec<T> =
            (0..self.rows).flat_map(|i| row::<T>(r, i + seed as usize % 5, self.cols)).collect();
        let mut hidden = x.clone();
        for ((x, hidden), &seen) in x.iter_mut().zip(&mut hidden).zip(&self.seen) {
            if !seen {
                let any = [f64::NAN, f64::INFINITY, 0.0, 1e4, x.to_f64()][r.below(5)];
                (*x, *hidden) = (T::from_f64(any), T::NEG_INFINITY);
            }
        }
        [x, hidden]
    }
}

fn cases() -> impl Iterator<Item = (Case, u64)> {
    lengths().iter().flat_map(|&cols| {
        (0..if cols < 500 { 6 } else { 2 }).map(move |k| {
            let seed = (cols * 8 + k) as u64;
            (Case::random(1 + k % 4, cols, seed), seed)
        })
    })
}

fn softmax_all<T: Bits>(softmax: Softmax, x: &[T], rows: usize, cols: usize) -> Vec<T> {
    let marker = T::from_f64(-77.0);
    let [mut p, mut log, mut lse] = [x.len(), x.len(), rows].map(|n| vec![marker; n]);
    let (mut p2, mut log2) = (x.to_vec(), x.to_vec());
    let view = |x| Matrix::new(x, cols).expect("a shape");
    let view_mut = |y| MatrixMut::new(y, cols).expect("a shape");
    softmax.softmax(view(x), view_mut(&mut p)).expect("a valid call");
    softmax.softmax_in_place(view_mut(&mut p2)).expect("a valid call");
    softmax.log_softmax(view(x), view_mut(&mut log)).expect("a valid call");
    softmax.log_softmax_in_place(view_mut(&mut log2)).expect("a valid call");
    softmax.logsumexp(view(x), &mut lse).expect("a valid call");
    assert_same(&p2, &p, || format!("in place {softmax:?}"));
    assert_same(&log2, &log, || format!("in place {softmax:?}"));
    [p, log, lse].concat()
}

fn rows_like_hidden<T: Bits + Probs<T>>() {
    for (case, seed) in cases() {
        let &Case { rows, cols, .. } = &case;
        let [x, hidden] = case.logits::<T>(seed);
        let what = |op| move || format!("{op} {rows} x {cols} {} seed {seed}", T::NAME);
        let plain = Options::new().kernel(scalar()).masked(Masked::Zero);
        let want = softmax_all(plain.softmax(), &hidden, rows, cols);
        let one: Vec<T> = (0..rows).flat_map(|_| hidden[hidden.len() - cols..].to_vec()).collect();
        let last = case.seen.chunks(cols).last().expect("a row");
        let packed: Vec<u32> = last
            .chunks(32)
            .map(|bits| bits.iter().rev().fold(0, |word, &bit| word << 1 | u32::from(bit)))
            .collect();
        let want_one = softmax_all(plain.softmax(), &one, rows, cols);
        for options in available().into_iter().flat_map(ways_of) {
            let got = softmax_all(options.softmax().mask(case.mask()), &x, rows, cols);
            assert_same(&got, &want, what("bits"));
            let got = softmax_all(options.softmax().mask(&case.seen), &x, rows, cols);
            assert_same(&got, &want, what("bools"));
            // One row of bits for all rows, which are all the last one.
            let same: Vec<T> = (0..rows).flat_map(|_| x[x.len() - cols..].to_vec()).collect();
            let softmax = options.softmax().mask(BitMask::new(&packed));
            assert_same(&softmax_all(softmax, &same, rows, cols), &want_one, what("one row"));
            attention(&case, options, &x);
            picks(&case, options, &x, &hidden);
        }
    }
}

/// Attention with and without what makes its logits pairs.
fn attention<T: Bits + Probs<T>>(case: &Case, options: Options, x: &[T]) {
    let &Case { rows, cols, .. } = case;
    let run = |attention: Attention, x: &[T]| {
        let mut y = vec![T::from_f64(-77.0); x.len()];
        let mut lse = vec![<T::Arithmetic as Element>::ZERO; rows];
        let (x, to) = (Matrix::new(x, cols), MatrixMut::new(&mut y, cols));
        let (x, to) = (x.expect("a shape"), to.expect("a shape"));
        attention.softmax_and_logsumexp(x, to, &mut lse).expect("a valid call");
        (y, lse.iter().map(|lse| lse.to_f64().to_bits()).collect::<Vec<_>>())
    };
    let plain = options.attention(1, rows);
    let slopes = [0.25];
    for attention in [plain, plain.soft_cap(20.0).alibi(&slopes), plain.causal().sinks(&[0.5])] {
        let mask = Mask::new(case.mask(), [1, 1, rows]);
        let bools = Mask::new(&case.seen, [1, 1, rows]);
        let (got, want) = (run(attention.mask(mask), x), run(attention.mask(bools), x));
        assert_same(&got.0, &want.0, || format!("{rows} x {cols} {attention:?}"));
        assert_eq!(got.1, want.1, "{rows} x {cols} {attention:?}");
    }
}

fn bits<A: Element>(values: &[A]) -> Vec<u64> {
    values.iter().map(|v| v.to_f64().to_bits()).collect()
}

fn picks<T: Bits>(case: &Case, options: Options, x: &[T], hidden: &[T]) {
    let &Case { rows, cols, .. } = case;
    let k = cols.min(5);
    let none = <T::Arithmetic as Element>::from_f64(-77.0);
    let top = |topk: TopK, x: &[T]| {
        let x = Matrix::new(x, cols).expect("a shape");
        let (mut log_probs, mut probs) = (vec![none; rows * k], vec![none; rows * k]);
        let mut indices = vec![usize::MAX; rows * k];
        topk.log_probs_and_probs(x, &mut log_probs, &mut probs, &mut indices)
            .expect("a valid call");
        (indices, bits(&log_probs), bits(&probs))
    };
    let topk = options.top_k(k);
    let want = top(topk, hidden);
    assert_eq!(top(topk.mask(case.mask()), x), want, "{rows} x {cols} {topk:?}");
    assert_eq!(top(topk.mask(&case.seen), x), want, "{rows} x {cols} {topk:?}");
    let negative = topk.scale(-1.0);
    let minus: Vec<T> = x.iter().map(|x| T::from_f64(-x.to_f64())).collect();
    assert_eq!(top(negative.mask(case.mask()), &minus), want, "{rows} x {cols} {topk:?}");

    let tokens: Vec<usize> = (0..rows * 3).map(|i| i * 7 % cols).collect();
    let probs_of = |log_probs: LogProbs, x: &[T]| {
        let x = Matrix::new(x, cols).expect("a shape");
        let (mut y, mut lse) = (vec![none; rows * 3], vec![none; rows]);
        log_probs.log_probs_and_logsumexp(x, &tokens, &mut y, &mut lse).expect("a valid call");
        let mut again = vec![none; rows * 3];
        log_probs.log_probs(x, &tokens, &mut again).expect("a valid call");
        assert_eq!(bits(&again), bits(&y));
        (bits(&y), bits(&lse))
    };
    let of = options.log_probs();
    let want = probs_of(of, hidden);
    assert_eq!(probs_of(of.mask(case.mask()), x), want, "{rows} x {cols} {of:?}");
    assert_eq!(probs_of(of.mask(&case.seen), x), want, "{rows} x {cols} {of:?}");
}

#[test]
fn rows_f32() {
    rows_like_hidden::<f32>();
}

#[test]
fn rows_f64() {
    rows_like_hidden::<f64>();
}

#[test]
fn rows_f16() {
    rows_like_hidden::<f16>();
}

#[test]
fn rows_bf16() {
    rows_like_hidden::<bf16>();
}

/// Everything that a sampler gives for some rows.
fn sampled<T: Bits>(sampler: Sampler, x: &[T], rows: usize, cols: usize) -> String {
    let x = Matrix::new(x, cols).expect("a shape");
    let mut draws = vec![7; rows * 3];
    sampler.sample(x, &mut draws).expect("a valid call");
    let none = <T::Arithmetic as Element>::from_f64(-77.0);
    let (mut tokens, mut probs) = (vec![7; rows * cols], vec![none; rows * cols]);
    let mut counts = vec![7; rows];
    sampler.kept_probs(x, &mut tokens, &mut probs, &mut counts).expect("a valid call");
    let mut whole = vec![none; rows * cols];
    let to = MatrixMut::new(&mut whole, cols).expect("a shape");
    sampler.filtered_log_probs(x, to).expect("a valid call");
    format!("{draws:?} {tokens:?} {:?} {counts:?} {:?}", bits(&probs), bits(&whole))
}

fn samples_like_hidden<T: Bits>() {
    for (case, seed) in cases() {
        let &Case { rows, cols, .. } = &case;
        let [x, hidden] = case.logits::<T>(seed);
        let r = &mut Random(seed);
        let (bias, lists) = ([(r.below(cols), 3.5)], [r.below(cols), 0]);
        let history = [&lists[..]];
        for (n, options) in available().into_iter().flat_map(ways_of).enumerate() {
            let mut sampler = options
                .sampler(seed)
                .temperature([1.0, 0.7, 0.0, f64::INFINITY][(n + seed as usize) % 4]);
            if r.once_in(2) {
                sampler = sampler.top_k(7).top_p(0.9);
            }
            if r.once_in(3) {
                sampler = sampler.typical_p(0.8).order(Order::LlamaCpp);
            }
            if r.once_in(3) {
                sampler = sampler.method(Method::GumbelMax);
            }
            if r.once_in(3) {
                // A bias would make NaN of what is hidden, and changes nothing there.
                sampler = sampler.bias(&bias).history(&history).repetition_penalty(1.5);
            }
            let want = sampled(sampler, &hidden, rows, cols);
            let what = format!("{rows} x {cols} {} seed {seed} {sampler:?}", T::NAME);
            assert_eq!(sampled(sampler.mask(case.mask()), &x, rows, cols), want, "{what}");
            assert_eq!(sampled(sampler.mask(&case.seen), &x, rows, cols), want, "{what}");
            let added: Vec<f32> =
                case.seen.iter().map(|&s| if s { -0.0 } else { f32::NEG_INFINITY }).collect();
            assert_eq!(sampled(sampler.mask(&added), &x, rows, cols), want, "{what}");
        }
    }
}

#[test]
fn samples_f32() {
    samples_like_hidden::<f32>();
}

#[test]
fn samples_f64() {
    samples_like_hidden::<f64>();
}

#[test]
fn samples_half() {
    samples_like_hidden::<f16>();
    samples_like_hidden::<bf16>();
}

/// Each mask lane of another axis would need bits apart.
#[test]
fn axes() {
    let x: Vec<f32> = (0..12).map(|i| (i * i % 7) as f32).collect();
    let words = [0b101];
    let softmax = Softmax::new().mask(BitMask::new(&words));
    let seen = [true, false, true];
    let run = |softmax: Softmax, axis| {
        let (mut y, mut lse) = ([-7.0f32; 12], [-7.0f32; 4]);
        softmax.softmax_axis(&x, &mut y, &[2, 3, 2], axis)?;
        softmax.logsumexp_axis(&x, &mut lse, &[2, 3, 2], axis)?;
        Ok::<_, Error>((y, lse))
    };
    assert_eq!(run(softmax, 1), run(Softmax::new().mask(&seen), 1));
    let top = |topk: TopK| {
        let (mut log_probs, mut indices) = ([-7.0f32; 8], [9; 8]);
        topk.log_probs_axis(&x, &mut log_probs, &mut indices, &[2, 3, 2], 1)?;
        Ok::<_, Error>((log_probs, indices))
    };
    assert_eq!(top(TopK::new(2).mask(BitMask::new(&words))), top(TopK::new(2).mask(&seen)));
    let each = [0b101, 0b11, 0b1, 0b111];
    let error = run(softmax.mask(BitMask::new(&each)), 1).expect_err("a row for each");
    assert!(error.to_string().contains("must be 1 x 1, got 4"), "{error}");
    let error = top(TopK::new(2).mask(BitMask::new(&each))).expect_err("a row for each");
    assert!(error.to_string().contains("must be 1 x 1, got 4"), "{error}");
}

/// Errors name both sizes, and nothing is written.
#[test]
fn refusals() {
    let x = [1.0f32; 140];
    let matrix = || Matrix::new(&x, 70).expect("a shape");
    let refuse = |mask: MaskData, message: &str| {
        let mut y = [-7.0f32; 140];
        let (mut indices, mut draws) = ([9; 4], [9; 2]);
        fn to(y: &mut [f32]) -> MatrixMut<'_, f32> {
            MatrixMut::new(y, 70).expect("a shape")
        }
        let softmax = Softmax::new().mask(mask);
        let mut errors = vec![
            softmax.softmax(matrix(), to(&mut y)),
            softmax.softmax_in_place(to(&mut y)),
            softmax.log_softmax(matrix(), to(&mut y)),
            softmax.logsumexp(matrix(), &mut y[..2]),
            TopK::new(2).mask(mask).log_probs(matrix(), &mut y[..4], &mut indices),
            LogProbs::new().mask(mask).log_probs(matrix(), &[1, 2], &mut y[..2]),
            Sampler::new(1).mask(mask).sample(matrix(), &mut draws),
            Sampler::new(1).mask(mask).filtered_probs(matrix(), to(&mut y)),
        ];
        let weights = [1.0f64; 70];
        errors.push(softmax.logsumexp_weighted(matrix(), &weights, &mut y[..2]));
        let attention = Attention::new(1, 2).mask(Mask::new(mask, [1, 1, 2]));
        errors.push(attention.softmax(matrix(), to(&mut y)));
        for (i, result) in errors.into_iter().enumerate() {
            let error = result.expect_err(message).to_string();
            assert!(error.contains(message), "operation {i}: {error}");
        }
        assert!(y == [-7.0; 140] && indices == [9; 4] && draws == [9; 2]);
    };
    let words = [u32::MAX; 20];
    // Rows of 70 columns have 3 words.
    for n in [0, 1, 2, 4, 5, 7, 8] {
        let message = format!(
            "number of words of the bit mask (a row for all, or one for each) \
            must be 2 x 3, got {n}"
        );
        refuse(BitMask::new(&words[..n]).into(), &message);
    }
    let bits = BitMask::new(&words[..6]);
    refuse(bits.stride(2).into(), "to the next must be at least 3, got 2");
    refuse(bits.stride(5).into(), "must be 2 x 5, got 6");
    refuse(bits.hidden_from(71).into(), "columns of the mask must be no more than there are ");
    refuse(bits.hidden_from(64).into(), "must be 2 x 2, got 6");
    // Overflow is not a panic.
    let mask = Mask::new(bits.stride(usize::MAX), [1, 1, 2]);
    let to = &mut [-7.0f32; 140];
    let to = MatrixMut::new(to, 70).expect("a shape");
    let error = Attention::new(1, 2).mask(mask).softmax(matrix(), to).expect_err("two rows");
    assert!(error.to_string().ends_with("got 6"), "{error}");

    // These only hide.
    let mut added = [0.0f32; 70];
    (added[3], added[9]) = (f32::NEG_INFINITY, 0.5);
    let mut draws = [9; 2];
    let message = "element of the mask number 9 must be 0 or -inf";
    let errors = [
        TopK::new(2).mask(&added).log_probs(matrix(), &mut [0.0; 4], &mut [0; 4]),
        LogProbs::new().mask(&added).log_probs(matrix(), &[1, 2], &mut [0.0; 2]),
        Sampler::new(1).mask(&added).sample(matrix(), &mut draws),
    ];
    for result in errors {
        let error = result.expect_err(message).to_string();
        assert!(error.contains("element of the mask") && error.contains("0 or -inf"), "{error}");
    }
    assert_eq!(draws, [9; 2]);
}

/// Fewer elements than k, and none.
#[test]
fn few_are_seen() {
    let x = Matrix::new(&[1.0f32, 9.0, 1.0, 9.0, 9.0], 5).expect("a shape");
    let (mut log_probs, mut probs, mut indices) = ([7.0f32; 4], [7.0f32; 4], [9; 4]);
    let topk = TopK::new(4).mask(BitMask::new(&[0b101]));
    topk.log_probs_and_probs(x, &mut log_probs, &mut probs, &mut indices).expect("a valid call");
    assert_eq!((indices, probs), ([0, 2, 1, 3], [0.5, 0.5, 0.0, 0.0]));
    assert_eq!(log_probs[2..], [f32::NEG_INFINITY; 2]);
    let none = BitMask::new(&[0]);
    let mut draws = [7; 3];
    Sampler::new(1).mask(none).sample(x, &mut draws).expect("a valid call");
    assert_eq!(draws, [usize::MAX; 3]);
    Sampler::new(1).temperature(0.0).mask(none).sample(x, &mut draws).expect("a valid call");
    assert_eq!(draws, [usize::MAX; 3]);
    let hidden = BitMask::new(&[]).hidden_from(0);
    Sampler::new(1).mask(hidden).sample(x, &mut draws).expect("a valid call");
    assert_eq!(draws, [usize::MAX; 3]);
    let topk = TopK::new(1).mask(none);
    topk.probs(x, &mut probs[..1], &mut indices[..1]).expect("a valid call");
    assert!(probs[0].is_nan());
    let mut y = [7.0f32; 5];
    let zero = Softmax::new().masked(Masked::Zero).mask(hidden);
    zero.softmax(x, MatrixMut::new(&mut y, 5).expect("a shape")).expect("a valid call");
    assert_eq!(y, [0.0; 5]);
}
