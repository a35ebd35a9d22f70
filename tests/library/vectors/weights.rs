//! Vectors of log-sum-exp with weights, of entropies, divergences, perplexity and routers.

use super::attention::Elements;
use super::{Bits, Case, Factor, File, Input, list, words};
use crate::common::*;
use softmax::{
    Element, GroupScore, Kernel, Masked, Matrix, MatrixMut, Router, Scoring, perplexity,
};

/// Log-sum-exp of rows with weights.
pub(super) fn weighted<T: Bits>(file: &mut File, kernel: &'static Kernel) {
    let (inf, nan) = (f64::INFINITY, f64::NAN);
    let mut random = Random(71);
    let largest = super::ends::<T>().largest;
    let one = Factor::Scale(1.0);
    let mut add = |x: Vec<T>, w: &[f64], cols: usize, factor: Factor, mask: Option<Elements>| {
        let softmax = factor.options(kernel, Masked::Nan).softmax();
        let mut case = factor.add_to(Case::new::<T>()).raw("cols", cols).text("weights", words(w));
        let softmax = match &mask {
            Some(mask) => {
                case = mask.add_to(case);
                softmax.mask(mask.data())
            }
            None => softmax,
        };
        let mut y = vec![T::NAN; x.len() / cols];
        let from = Matrix::new(&x, cols).expect("whole rows");
        softmax.logsumexp_weighted(from, w, &mut y).expect("a valid call");
        file.add(case.text("x", words(&x)).output("logsumexp", &y));
    };
    let of = |x: &[f64]| x.iter().map(|&x| T::from_f64(x)).collect::<Vec<T>>();
    let special = [
        [0.0, 7.0],
        [nan, 2.0],
        [2.0, nan],
        [-inf, 2.0],
        [-inf, -inf],
        [inf, 2.0],
        [2.0, inf],
        [largest, -largest],
        [-largest, -largest],
        [largest, largest],
        [0.25, 0.25],
    ];
    let special = of(&special.concat());
    for w in [[1.0, 1.0], [0.0, 1.0], [0.0, 0.0], [1e300, 1e-300], [5e-324, 3e-310], [0.75, 3.0]] {
        for factor in [one, Factor::Scale(-3.0), Factor::Temperature(0.7)] {
            add(special.clone(), &w, 2, factor, None);
        }
    }
    let factors = [one, Factor::Temperature(3.0), Factor::Scale(-0.3), Factor::Scale(300.0)];
    for (i, cols) in [1, 2, 5, 9, 40].into_iter().enumerate() {
        for kind in 0..KINDS {
            let (rows, factor) = (2, factors[(i + kind) % factors.len()]);
            let x = row(&mut random, kind, rows * cols);
            let n = if kind % 2 == 0 { cols } else { rows * cols };
            // Near 1, of any size, or in part 0.
            let weight = |random: &mut Random| match kind % 3 {
                0 => random.signed().abs(),
                1 => f64::from_bits(random.next() >> 2),
                _ if random.once_in(3) => 0.0,
                _ => random.signed().abs() * 9.0,
            };
            let w: Vec<_> = (0..n).map(|_| weight(&mut random)).collect();
            let numbers = |random: &mut Random, n| -> Vec<f64> {
                let any = |random: &mut Random| {
                    if random.once_in(4) { -inf } else { random.signed() * 9.0 }
                };
                (0..n).map(|_| any(random)).collect()
            };
            let mask = match (i + kind) % 4 {
                0 => Some(Elements::Bool((0..cols).map(|_| !random.once_in(3)).collect())),
                1 => Some(Elements::of("f32", &numbers(&mut random, rows * cols))),
                2 => Some(Elements::of("bf16", &numbers(&mut random, cols))),
                _ => None,
            };
            add(x, &w, cols, factor, mask);
        }
    }
    // Differences over the whole range of the exponential, and sums that are near 1.
    let far = [0.0, -700.0, -707.5, -708.5, -744.0, -746.0, -1200.0, -0.34, -1.03, -1.05, -1e-9];
    for (i, d) in far.into_iter().enumerate() {
        add(of(&[1.0, 1.0 + d]), &[1.0, 2.0 + i as f64], 2, one, None);
        add(of(&[0.0, d]), &[1.0, 5e-324], 2, one, None);
    }
    // Results near 0, where the last bits of each step count.
    for _ in 0..8 {
        let cols = 5;
        let x: Vec<_> = (0..cols).map(|_| random.signed()).collect();
        let w: Vec<_> = (0..cols).map(|_| random.signed().abs() * 0.4).collect();
        add(of(&x), &w, cols, Factor::Temperature(3.0), None);
    }
    // What is hidden may be anything.
    add(of(&[nan, inf, 0.5]), &[1.0; 3], 3, one, Some(Elements::Bool(vec![false, false, true])));
}

/// Entropies of rows, and their gradients.
pub(super) fn entropies<T: Bits>(file: &mut File, kernel: &'static Kernel) {
    let (inf, nan) = (f64::INFINITY, f64::NAN);
    let mut random = Random(74);
    let largest = super::ends::<T>().largest;
    let one = Factor::Scale(1.0);
    let mut add = |input: Input<T>, factor: Factor, masked: Masked, upstream: f64| {
        let x = input.elements();
        let softmax = factor.options(kernel, masked).softmax();
        let from = Matrix::with_stride(&x, 1, x.len(), x.len()).expect("a row");
        let (mut h, mut gradient) = ([T::NAN], vec![T::NAN; x.len()]);
        let upstream = [T::from_f64(upstream)];
        softmax.entropy(from, &mut h).expect("a valid call");
        let y = MatrixMut::with_stride(&mut gradient, 1, x.len(), x.len()).expect("a row");
        softmax.entropy_backward(from, &upstream, y).expect("a valid call");
        let masked = if masked == Masked::Zero { "zero" } else { "nan" };
        let case = factor.add_to(Case::new::<T>()).text("masked", masked);
        let case = case.input("x", &input).text("upstream", words(&upstream));
        file.add(case.output("entropy", &h).output("gradient", &gradient));
    };
    for x in [&[][..], &[nan, 1.0], &[inf, 1.0], &[-inf, -inf], &[-inf], &[5.0], &[-inf, 2.0]] {
        for masked in [Masked::Nan, Masked::Zero] {
            add(Input::of(x), one, masked, 1.0);
        }
    }
    for x in [[largest, -largest], [largest, largest], [0.0, -0.0]] {
        add(Input::of(&x), Factor::Temperature(0.7), Masked::Nan, -3.0);
    }
    // Rows that are nearly certain, which are summed twice; the last ones so that what is far below
    // the largest counts. Then rows far from 0, of huge magnitude, and of elements next to 0.
    for far in [3.0, 9.0, 17.0, 18.5, 25.0, 36.0, 40.0, 60.0, 80.0, 86.5, 88.0, 300.0, 700.0, 708.5]
    {
        for top in [0.0, 40.3, -700.0, 65_000.0, 1e30] {
            let near = if top == 40.3 { top - 1e-3 } else { top - far - 0.7 };
            add(Input::of(&[top - far, top, near]), one, Masked::Nan, 0.3);
        }
    }
    add(Input::of(&[1e-310, 3.8e-308, 0.0]), one, Masked::Nan, 1.0);
    let factors = [one, Factor::Temperature(3.0), Factor::Scale(-0.3), Factor::Scale(300.0)];
    for (i, cols) in [1, 2, 5, 9, 17, 40].into_iter().enumerate() {
        for kind in 0..KINDS {
            let x = Input::Full(row(&mut random, kind, cols));
            let upstream = random.signed() * 9.0;
            add(x, factors[(i + kind) % factors.len()], Masked::Nan, upstream);
        }
    }
    // The order of additions within blocks, and of blocks.
    for (exponent, factor) in [(1, one), (4, Factor::Scale(0.5)), (9, one)] {
        add(Input::Generated { n: 9_000, seed: 5, exponent }, factor, Masked::Nan, 0.5);
    }
}

/// Divergences of two rows, and their gradients.
pub(super) fn divergences<T: Bits>(file: &mut File, kernel: &'static Kernel) {
    let (inf, nan) = (f64::INFINITY, f64::NAN);
    let mut random = Random(75);
    let largest = super::ends::<T>().largest;
    let one = Factor::Scale(1.0);
    let mut add = |pair: [Input<T>; 2], factor: Factor, masked: Masked, upstream: f64| {
        let [x, y] = [pair[0].elements(), pair[1].elements()];
        let n = x.len();
        let softmax = factor.options(kernel, masked).softmax();
        let [of_x, of_y] = [&x, &y].map(|x| Matrix::with_stride(x, 1, n, n).expect("a row"));
        let upstream = [T::from_f64(upstream)];
        let (mut kl, mut with_x, mut with_y) = ([T::NAN], vec![T::NAN; n], vec![T::NAN; n]);
        softmax.kl_divergence(of_x, of_y, &mut kl).expect("a valid call");
        let to = [&mut with_x, &mut with_y];
        let to = to.map(|to| Some(MatrixMut::with_stride(to, 1, n, n).expect("a row")));
        let [to_x, to_y] = to;
        let done = softmax.kl_divergence_backward(of_x, of_y, &upstream, to_x, to_y);
        done.expect("a valid call");
        let masked = if masked == Masked::Zero { "zero" } else { "nan" };
        let case = factor.add_to(Case::new::<T>()).text("masked", masked);
        let case = case.input("x", &pair[0]).input("y", &pair[1]);
        let case = case.text("upstream", words(&upstream)).output("divergence", &kl);
        file.add(case.output("gradient_x", &with_x).output("gradient_y", &with_y));
    };
    let rows = [[nan, 1.0], [inf, 1.0], [-inf, -inf], [0.5, 1.0], [-inf, 1.0], [-inf, -3.0]];
    for x in &rows {
        for y in &rows {
            for masked in [Masked::Nan, Masked::Zero] {
                add([x, y].map(|x| Input::of(x)), one, masked, 2.0);
            }
        }
    }
    add([Input::of(&[]), Input::of(&[])], one, Masked::Zero, 1.0);
    add([Input::of(&[5.0]), Input::of(&[-7.0])], one, Masked::Nan, 1.0);
    for (x, y) in [(largest, -largest), (-largest, largest), (largest, 0.0)] {
        add([Input::of(&[x, 0.0]), Input::of(&[y, 0.0])], one, Masked::Nan, 1.0);
    }
    // Differences at both ends of the polynomial, and far from them; and very small ones.
    let far =
        [1e-7, 1e-3, 0.3, 0.9, 0.999, 1.0, 1.001, 1.9, 1.99, 2.0, 2.01, 5.0, 60.0, 700.0, 800.0];
    for d in far.into_iter().flat_map(|d| [d, -d]) {
        let x = [0.0, 3.0, -40.0];
        for y in [[0.0, 3.0, -40.0 + d], [d, 3.0, -40.0]] {
            add([Input::of(&x), Input::of(&y)], one, Masked::Nan, -0.7);
        }
    }
    let factors = [one, Factor::Temperature(3.0), Factor::Scale(-0.3), Factor::Scale(30.0)];
    for (i, cols) in [1, 2, 5, 9, 17, 40].into_iter().enumerate() {
        for kind in 0..KINDS {
            let x: Vec<T> = row(&mut random, kind, cols);
            let near = |x: &T| T::from_f64(x.to_f64() + random.signed() * [1e-2, 3.0][i % 2]);
            let y = x.iter().map(near).collect();
            let factor = factors[(i + kind) % factors.len()];
            add([Input::Full(x), Input::Full(y)], factor, Masked::Nan, 0.9);
        }
    }
    for (exponent, factor) in [(1, one), (4, Factor::Scale(0.5))] {
        let pair = [5, 6].map(|seed| Input::Generated { n: 9_000, seed, exponent });
        add(pair, factor, Masked::Nan, 0.5);
    }
}

/// Perplexities of log-probabilities.
pub(super) fn perplexities<T: Bits>(file: &mut File) {
    let inf = f64::INFINITY;
    let mut random = Random(72);
    let mut all = vec![
        vec![],
        vec![0.0],
        vec![-0.0],
        vec![-inf, 0.0],
        vec![f64::NAN, 0.0],
        vec![inf, 0.0],
        vec![inf, -inf],
        vec![-709.75],
        vec![-709.8],
        vec![-710.0],
        vec![708.3],
        vec![710.0],
        vec![744.5],
        vec![745.1],
        vec![745.2],
        vec![746.0],
    ];
    // Means around the limits of each way that the exponential is computed.
    let means = [1e-10, 3e-9, 4e-9, 0.3, 0.346, 0.347, 1.0, 1.0397, 1.04, 1.75, 2.5, 30.0, 600.0];
    all.extend(means.into_iter().flat_map(|mean| [vec![-mean], vec![mean]]));
    // Exponentials that change with bits of their coefficients, found by a search.
    let telling = [
        -0.272_765_867_412_090_3,
        -0.291_391_180_828_213_7,
        0.305_946_813_896_298_4,
        0.308_203_252_033_199_2,
        0.341_507_591_307_163_24,
    ];
    all.extend(telling.map(|x| vec![-x]));
    for n in [2, 3, 10, 77] {
        let size = [1.0, 0.01, 30.0, 5.0][n % 4];
        all.push((0..n).map(|_| -random.signed().abs() * size).collect());
    }
    for x in all {
        let input = Input::<T>::of(&x);
        let of_all = perplexity(&input.elements());
        file.add(Case::new::<T>().input("x", &input).number("perplexity", of_all));
    }
}

/// Which weights a router gives to which experts.
pub(super) fn routes<T: Bits>(file: &mut File, kernel: &'static Kernel)
where
    T::Arithmetic: Bits,
{
    let (inf, nan) = (f64::INFINITY, f64::NAN);
    let mut random = Random(73);
    for cols in [1, 2, 6, 8, 12, 24, 160] {
        for i in 0..if cols < 20 { 24 } else { 8 } {
            let rows = if cols < 100 { 3 } else { 1 };
            let mut x: Vec<T> = row(&mut random, i % KINDS, rows * cols);
            match i % 8 {
                // Scores that are equal, though logits are not, and logits that are.
                3 => x.iter_mut().for_each(|x| *x = T::from_f64(80.0 + random.below(9) as f64)),
                4 => x.iter_mut().for_each(|x| *x = T::from_f64(random.below(3) as f64)),
                5 => x[0] = T::from_f64([nan, inf, -inf][random.below(3)]),
                6 => x[..cols].fill(T::NEG_INFINITY),
                7 => x[cols / 2..].fill(T::NEG_INFINITY),
                _ => {}
            }
            // The number of groups, and from how many of them experts come.
            let divisors: Vec<_> = (1..=cols).filter(|n| cols.is_multiple_of(*n)).collect();
            let groups = divisors[random.below(divisors.len())];
            let limit = 1 + random.below(groups);
            let grouped = random.once_in(2);
            let most = if grouped { limit * (cols / groups) } else { cols };
            let k = most.min(1 + random.below(8));
            let mut case = Case::new::<T>().raw("cols", cols).raw("k", k);
            let mut router = Router::new(k).exec(by(kernel));
            if random.once_in(2) {
                router = router.scoring(Scoring::Sigmoid);
                case = case.text("scoring", "sigmoid");
            }
            // Beside large biases scores of f32 are equal.
            let mut bias = vec![1e6f32; cols];
            if i % 4 > 0 {
                bias.fill_with(|| random.signed() as f32 * 0.5);
            }
            if random.once_in(2) {
                router = router.bias(&bias);
                case = case.text("bias", words(&bias));
            }
            if grouped {
                router = router.groups(groups, limit);
                case = case.raw("groups", groups).raw("limit", limit);
            }
            if random.once_in(3) {
                router = router.group_score(GroupScore::Largest);
                case = case.text("group_score", "largest");
            }
            if random.once_in(2) {
                router = router.renormalize(true);
                case = case.raw("renormalize", true);
            }
            if random.once_in(2) {
                let factor = [2.5, -0.3, 16.0, 1e-300][random.below(4)];
                router = router.scaling_factor(factor);
                case = case.number("factor", factor);
            }
            if random.once_in(2) {
                router = router.masked(Masked::Zero);
                case = case.text("masked", "zero");
            }
            let mut weights = vec![T::Arithmetic::NAN; rows * k];
            let mut experts = vec![u32::MAX; rows * k];
            let from = Matrix::new(&x, cols).expect("whole rows");
            router.route(from, &mut weights, &mut experts).expect("a valid call");
            case = case.text("x", words(&x)).raw("experts", list(&experts));
            file.add(case.output("weights", &weights));
        }
    }
}
