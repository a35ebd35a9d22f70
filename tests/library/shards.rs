//! A row in shards has the bits of the row in one call.

use crate::common::*;
use proptest::prelude::*;
use softmax::half::{bf16, f16};
use softmax::{BLOCK, Element, Kernel, Masked, Merged, MergedRow, Partial, Shards};

/// The partial after sending it to another machine.
fn sent<T: Element>(partial: Partial) -> Partial {
    if T::NAME != f32::NAME {
        Partial::from_array(partial.to_array())
    } else {
        let pair = Partial::from_pair(partial.to_pair());
        // Compared as text, because NaN is not equal to itself.
        assert_eq!(format!("{pair:?}"), format!("{partial:?}"));
        pair
    }
}

/// The merged row of these shards, and whether it needed a second round.
fn merged<T: Element>(shards: &Shards, parts: &[&[T]]) -> (MergedRow<T>, bool) {
    let mut row_max = None;
    loop {
        let mut all = Vec::new();
        for part in parts {
            let mut partials = vec![Partial::NOTHING; Partial::count(part.len())];
            shards.partials(part, row_max, &mut partials).expect("a valid shard");
            all.extend(partials.into_iter().map(sent::<T>));
        }
        match shards.merge(&all).expect("a valid kernel") {
            Merged::Row(row) => return (row, row_max.is_some()),
            Merged::Again(max) => {
                assert_eq!(row_max, None, "a second round is enough");
                row_max = Some(max);
            }
        }
    }
}

/// The shards of whole blocks, cut where bits of `cuts` are set.
fn cut<T>(row: &[T], cuts: u64) -> Vec<&[T]> {
    let mut parts = Vec::new();
    let (mut start, mut end) = (0, 0);
    for block in row.chunks(BLOCK) {
        end += block.len();
        let long = (end - start) / BLOCK > 2;
        if long || cuts >> (parts.len() % 64) & 1 == 1 || end == row.len() {
            parts.push(&row[start..end]);
            start = end;
        }
    }
    parts
}

/// The results of a row in shards.
struct InShards<T> {
    /// Softmax, log-softmax and log-sum-exp, one after another.
    results: Vec<T>,
    /// The merged sums: probabilities of f32 hardly ever show the last bits of a sum.
    sums: Vec<u64>,
    /// Whether a second round was needed.
    again: bool,
}

fn sums<T: Element>(row: MergedRow<T>) -> Vec<u64> {
    row.to_partial().to_array().map(f64::to_bits).to_vec()
}

fn in_shards<T: Bits>(options: Options, row: &[T], cuts: u64) -> InShards<T> {
    let shards = options.shards();
    let parts = cut(row, cuts);
    let (whole, again) = merged(&shards, &parts);
    let mut results = Vec::new();
    for log in [false, true] {
        for part in &parts {
            let (mut y, mut z) = (vec![T::NAN; part.len()], part.to_vec());
            if log {
                shards.log_softmax(&whole, part, &mut y).expect("a valid shard");
                shards.log_softmax_in_place(&whole, &mut z).expect("a valid shard");
            } else {
                shards.softmax(&whole, part, &mut y).expect("a valid shard");
                shards.softmax_in_place(&whole, &mut z).expect("a valid shard");
            }
            assert_same(&z, &y, || "in place".to_string());
            results.extend(y);
        }
    }
    results.push(shards.logsumexp(&whole).expect("a valid kernel"));
    InShards { results, sums: sums(whole), again }
}

/// The same results in one call.
fn whole<T: Element>(options: &Options, row: &[T]) -> Vec<T> {
    OPS.into_iter().flat_map(|op| run_row(options, op, row)).collect()
}

/// A row whose blocks differ in kind and height, so that some are flushed wholly and some in part.
fn mixed<T: Element>(seed: u64, blocks: usize, end: usize) -> Vec<T> {
    let mut random = Random(seed);
    let one = random.below(KINDS);
    let mut x = Vec::new();
    for block in 0..blocks {
        let kind = if seed.is_multiple_of(2) { random.below(KINDS) } else { one };
        let n = if block + 1 == blocks { end } else { BLOCK };
        let height = [0.0, 0.0, -60.0, -85.0, -95.0, -740.0][random.below(6)];
        let values: Vec<f64> = row(&mut random, kind, n);
        x.extend(values.into_iter().map(|v| T::from_f64(v + height)));
    }
    if !x.is_empty() && seed % 16 < 3 {
        let at = random.below(x.len());
        x[at] = [T::NAN, T::INFINITY, T::NEG_INFINITY][seed as usize % 16];
    }
    if seed % 32 == 31 {
        x.fill(T::NEG_INFINITY);
    }
    x
}

/// Compares a row in shards, by each of these kernels, with the reference of the whole row. Returns
/// whether any needed a second round.
fn same_bits<T: Bits>(kernels: &[&'static Kernel], seed: u64, blocks: usize, end: usize) -> bool {
    let x = mixed::<T>(seed, blocks, end);
    let temperature = [1.0, 0.25, 10.0][seed as usize % 3];
    let masked = if seed.is_multiple_of(5) { Masked::Zero } else { Masked::Nan };
    let reference = on(scalar(), temperature, masked);
    let want = whole(&reference, &x);
    let want_sums = sums(merged(&reference.shards(), &[&x[..]]).0);
    let mut again = false;
    for kernel in kernels {
        let got = in_shards(on(kernel, temperature, masked), &x, seed >> 7);
        let what = || format!("{} {}: seed {seed}, {blocks}", kernel.name(), T::NAME);
        assert_same(&got.results, &want, what);
        assert_eq!(got.sums, want_sums, "{}", what());
        again |= got.again;
    }
    again
}

/// A row in shards with a scale below 0 has the bits of the whole row, however far from 0 it is.
fn below_0<T: Bits>() {
    let mut again = false;
    for seed in 0..8 {
        let mut x = mixed::<T>(seed, 3, 77);
        if seed % 4 == 3 && T::NAME != "f16" {
            x.iter_mut().for_each(|x| *x = T::from_f64(x.to_f64() % 8.0 - 131_072.0));
        }
        for kernel in available() {
            let options = on(kernel, 1.0, Masked::Zero).scale(-0.75);
            let got = in_shards(options, &x, seed);
            let what = || format!("{} {}: seed {seed}", kernel.name(), T::NAME);
            assert_same(&got.results, &whole(&options, &x), what);
            again |= got.again;
        }
    }
    assert!(again || T::NAME == "f16", "a second round of {}", T::NAME);
}

#[test]
fn scales_below_0() {
    below_0::<f32>();
    below_0::<f64>();
    below_0::<f16>();
    below_0::<bf16>();
}

proptest! {
    #![proptest_config(config(200, 4, 0x5ba_2d5))]

    #[test]
    fn same_bits_as_the_whole_row(seed: u64, blocks in 1..7usize, end in 1..=BLOCK) {
        let kernels = available();
        same_bits::<f32>(&kernels, seed, blocks, end);
        same_bits::<f64>(&kernels, seed, blocks, end);
        same_bits::<f16>(&kernels, seed, blocks, end);
        same_bits::<bf16>(&kernels, seed, blocks, end);
    }
}

/// One round suffices for usual rows, and rows that need two exist.
#[test]
fn rounds() {
    let again = |seed| same_bits::<f32>(&[scalar()], seed, 3, 100);
    assert!((0..100).any(again) && !(0..100).all(again));
    for kernel in available() {
        let again = |x: &[f32]| {
            let shards = Options::new().kernel(kernel).shards();
            merged(&shards, &cut(x, 1)).1
        };
        let mut random = Random(1);
        let mut x: Vec<f32> = row(&mut random, 0, 3 * BLOCK);
        assert!(!again(&x), "{}: logits", kernel.name());
        x[..5000].fill(f32::NEG_INFINITY);
        assert!(!again(&x), "{}: a mask of -inf", kernel.name());
        x[..5000].fill(-10_000.0);
        assert!(!again(&x), "{}: a mask of -10,000", kernel.name());
        x[..5000].fill(-1e30);
        assert!(!again(&x), "{}: a mask of -1e30", kernel.name());
        x[5000] = 100_000.0;
        assert!(again(&x), "{}: huge", kernel.name());
    }
}

#[test]
fn a_row_of_nothing() {
    let shards = Shards::new();
    let (row, _) = merged::<f64>(&shards, &[]);
    assert_eq!(shards.logsumexp(&row).expect("a valid kernel"), f64::NEG_INFINITY);
    shards.softmax(&row, &[], &mut []).expect("a valid shard");
}

#[test]
fn what_does_not_fit_is_named_and_nothing_is_written() {
    let shards = Shards::new();
    let mut partials = [Partial::NOTHING; 2];
    let x = [1.0f32; BLOCK];
    let e = shards.partials(&x, None, &mut partials).expect_err("one block");
    assert_eq!(e.to_string(), "the number of partials (one for each block) must be 1, got 2");
    let e = shards.partials(&x, Some(f64::INFINITY), &mut partials[..1]).expect_err("not finite");
    assert_eq!(e.to_string(), "the largest element of the row must be finite, got inf");
    assert_eq!(partials, [Partial::NOTHING; 2]);
    let (row, _) = merged(&shards, &[&x]);
    let mut y = [-7.0; 3];
    let e = shards.softmax(&row, &x[..4], &mut y).expect_err("other lengths");
    assert_eq!(e.to_string(), "the number of outputs must be 4, got 3");
    assert_eq!(y, [-7.0; 3]);
}

/// The one constant for x86-64 and AArch64, for fixed rows in shards. It changes only with the
/// arithmetic contract.
const DIGEST: u64 = 0xe94d_9210_032a_c48a;

#[test]
fn digest_is_the_same_on_every_cpu() {
    for kernel in available() {
        let mut digest = Fnv::default();
        for seed in 0..20 {
            let options = on(kernel, 1.0, Masked::Nan);
            digest.add(&in_shards(options, &mixed::<f32>(seed, 3, 1000), seed).results);
            digest.add(&in_shards(options, &mixed::<f64>(seed, 3, 1000), seed).results);
            digest.add(&in_shards(options, &mixed::<bf16>(seed, 3, 1000), seed).results);
        }
        println!("{} on {}: {:#018x}", kernel.name(), std::env::consts::ARCH, digest.0);
        assert_eq!(digest.0, DIGEST, "{}: {:#018x}", kernel.name(), digest.0);
    }
}

/// The partial is the same whichever zero is found as the largest, and for every NaN, whatever its
/// payload and sign.
#[test]
fn partials_have_the_same_bits() {
    for kernel in available() {
        let shards = on(kernel, 1.0, Masked::Nan).shards();
        for row_max in [None, Some(3.0)] {
            let mut partials = [[Partial::NOTHING]; 4];
            let [single, payload, double, lone] = &mut partials;
            let row = |nan: f32| [[1.0; 20], [nan; 20]].concat();
            shards.partials(&row(f32::NAN), row_max, single).expect("a valid shard");
            let special = row(f32::from_bits(0xffff_a000));
            shards.partials(&special, row_max, payload).expect("a valid shard");
            let nan = f64::from_bits(0xfff8_0000_0000_1234);
            shards.partials(&[1.0, nan, 2.0], row_max, double).expect("a valid shard");
            shards.partials(&[nan], row_max, lone).expect("a valid shard");
            let [first, others @ ..] = partials.map(|[p]| p.to_array().map(f64::to_bits));
            assert!(f64::from_bits(first[0]).is_nan());
            assert_eq!(others, [first; 3], "{} {row_max:?}", kernel.name());
        }
        let shards = on(kernel, 1.0, Masked::Nan).shards();
        for x in [[0.0f32, -0.0], [-0.0, 0.0], [-0.0, -0.0]].map(|pair| pair.repeat(40)) {
            let mut partials = [Partial::NOTHING];
            shards.partials(&x, None, &mut partials).expect("a valid shard");
            let [max, least, ..] = partials[0].to_array().map(f64::to_bits);
            assert_eq!([max, least], [0, 0], "{}: {partials:?}", kernel.name());
        }
    }
}

/// Rows of one element: all values by the fastest kernel, and many by the others.
#[test]
fn single_elements() {
    fn check<T: Bits>(kernel: &'static Kernel, bits: u16, x: T) {
        let options = on(kernel, 1.0, Masked::Nan);
        let got = in_shards(options, &[x], 0);
        let what = || format!("{} {} {bits:#x}", kernel.name(), T::NAME);
        assert_same(&got.results, &whole(&options, &[x]), what);
        let (row, _) = merged(&on(scalar(), 1.0, Masked::Nan).shards(), &[&[x][..]]);
        assert_eq!(got.sums, sums(row), "{}", what());
    }
    for (i, kernel) in available().into_iter().enumerate() {
        let all = i == 0 && !quick();
        for bits in (0..=u16::MAX).step_by(if all { 1 } else { 97 }) {
            check(kernel, bits, f16::from_bits(bits));
            check(kernel, bits, bf16::from_bits(bits));
        }
    }
}
