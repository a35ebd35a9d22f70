//! Vectors of attention's scores, and of rows with masks.

use super::{Bits, Case, Factor, File, Input, list, words};
use crate::common::*;
use softmax::half::{bf16, f16};
use softmax::{
    Attention, Element, Kernel, Mask, MaskData, Masked, Matrix, MatrixMut, OnlineRow,
    OnlineSoftmax, Probs, Weight,
};

/// The elements of a mask.
#[derive(Clone)]
pub(super) enum Elements {
    Bool(Vec<bool>),
    F32(Vec<f32>),
    F64(Vec<f64>),
    F16(Vec<f16>),
    Bf16(Vec<bf16>),
}

impl Elements {
    /// Numbers of a type.
    pub(super) fn of(kind: &str, numbers: &[f64]) -> Self {
        fn all<T: Element>(numbers: &[f64]) -> Vec<T> {
            numbers.iter().map(|&m| T::from_f64(m)).collect()
        }
        match kind {
            "f32" => Self::F32(all(numbers)),
            "f64" => Self::F64(all(numbers)),
            "f16" => Self::F16(all(numbers)),
            _ => Self::Bf16(all(numbers)),
        }
    }

    pub(super) fn data(&self) -> MaskData<'_> {
        match self {
            Self::Bool(m) => m.into(),
            Self::F32(m) => m.into(),
            Self::F64(m) => m.into(),
            Self::F16(m) => m.into(),
            Self::Bf16(m) => m.into(),
        }
    }

    pub(super) fn add_to(&self, case: Case) -> Case {
        fn typed<T: Bits>(case: Case, m: &[T]) -> Case {
            case.text("mask_type", T::NAME).text("mask", words(m))
        }
        match self {
            Self::Bool(m) => case.raw("mask", list(m.iter().map(|&seen| u8::from(seen)))),
            Self::F32(m) => typed(case, m),
            Self::F64(m) => typed(case, m),
            Self::F16(m) => typed(case, m),
            Self::Bf16(m) => typed(case, m),
        }
    }
}

/// The options of a case.
#[derive(Clone)]
struct Options {
    shape: [usize; 4],
    factor: Factor,
    causal: bool,
    window: Option<usize>,
    ahead: Option<usize>,
    offset: Option<isize>,
    offsets: Vec<isize>,
    lengths: Vec<usize>,
    mask: Option<([usize; 3], Elements)>,
    mask_columns: Option<usize>,
    masked: Masked,
    cap: Option<f64>,
    slopes: Vec<f32>,
    sinks: Vec<f32>,
    mask_slopes: Vec<f32>,
}

fn plain(shape: [usize; 4]) -> Options {
    Options {
        shape,
        factor: Factor::Scale(1.0),
        causal: false,
        window: None,
        ahead: None,
        offset: None,
        offsets: vec![],
        lengths: vec![],
        mask: None,
        mask_columns: None,
        masked: Masked::Nan,
        cap: None,
        slopes: vec![],
        sinks: vec![],
        mask_slopes: vec![],
    }
}

impl Options {
    /// The attention, and its fields.
    fn of(&self, kernel: &'static Kernel, case: Case) -> (Attention<'_>, Case) {
        let o = self;
        let [batch, heads, queries, keys] = o.shape;
        let mut attention = Attention::new(heads, queries).exec(by(kernel)).masked(o.masked);
        attention = match o.factor {
            Factor::Scale(scale) => attention.scale(scale),
            Factor::Temperature(t) => attention.temperature(t),
        };
        let shape = format!("[{batch}, {heads}, {queries}, {keys}]");
        let mut case = o.factor.add_to(case.raw("shape", shape));
        if o.masked == Masked::Zero {
            case = case.text("masked", "zero");
        }
        if o.causal {
            (attention, case) = (attention.causal(), case.raw("causal", true));
        }
        if let Some(n) = o.window {
            (attention, case) = (attention.window(n), case.raw("window", n));
        }
        if let Some(n) = o.ahead {
            (attention, case) = (attention.window_ahead(n), case.raw("window_ahead", n));
        }
        if let Some(n) = o.offset {
            (attention, case) = (attention.offset(n), case.raw("offset", n));
        }
        if !o.offsets.is_empty() {
            (attention, case) =
                (attention.offsets(&o.offsets), case.raw("offsets", list(&o.offsets)));
        }
        if !o.lengths.is_empty() {
            (attention, case) =
                (attention.lengths(&o.lengths), case.raw("lengths", list(&o.lengths)));
        }
        if let Some((shape, elements)) = &o.mask {
            let mask = Mask::new(elements.data(), *shape);
            case = case.raw("mask_shape", list(shape));
            case = elements.add_to(case);
            attention = attention.mask(match o.mask_columns {
                Some(n) => mask.hidden_from(n),
                None => mask,
            });
            if let Some(n) = o.mask_columns {
                case = case.raw("mask_columns", n);
            }
        }
        if let Some(c) = o.cap {
            (attention, case) = (attention.soft_cap(c), case.number("soft_cap", c));
        }
        if !o.slopes.is_empty() {
            (attention, case) = (attention.alibi(&o.slopes), case.text("slopes", words(&o.slopes)));
        }
        if !o.sinks.is_empty() {
            (attention, case) = (attention.sinks(&o.sinks), case.text("sinks", words(&o.sinks)));
        }
        if !o.mask_slopes.is_empty() {
            attention = attention.mask_slopes(&o.mask_slopes);
            case = case.text("mask_slopes", words(&o.mask_slopes));
        }
        (attention, case)
    }
}

/// Adds the case of these scores.
fn add<T: Bits, U: Bits + Probs<T>>(
    file: &mut File,
    kernel: &'static Kernel,
    input: &Input<T>,
    o: &Options,
) where
    T::Arithmetic: Bits,
{
    let (rows, keys) = (o.shape[..3].iter().product(), o.shape[3]);
    let x = input.elements();
    let (attention, case) = o.of(kernel, Case::new::<T>().text("to", U::NAME));
    let mut probs = vec![U::NAN; x.len()];
    let mut lse = vec![T::Arithmetic::NAN; rows];
    let from = Matrix::with_stride(&x, rows, keys, keys).expect("whole rows");
    let to = MatrixMut::with_stride(&mut probs, rows, keys, keys).expect("whole rows");
    attention.softmax_and_logsumexp(from, to, &mut lse).expect("a valid call");
    let case = case.input("x", input).output("probs", &probs);
    file.add(case.output("lse", &lse));
}

/// A function of scores' and probabilities' types and a seed, for all pairs of types.
macro_rules! for_all_pairs {
    ($f:ident($file:expr, $kernel:expr)) => {
        $f::<f32, f32>($file, $kernel, 1);
        $f::<f32, f16>($file, $kernel, 2);
        $f::<f32, bf16>($file, $kernel, 3);
        $f::<f16, f16>($file, $kernel, 4);
        $f::<f16, f32>($file, $kernel, 5);
        $f::<bf16, bf16>($file, $kernel, 6);
        $f::<bf16, f32>($file, $kernel, 7);
        $f::<f64, f64>($file, $kernel, 8);
    };
}

/// Scores with ranges of keys and masks of bool.
pub(super) fn attention(file: &mut File, kernel: &'static Kernel) {
    fn of<T: Bits, U: Bits + Probs<T>>(file: &mut File, kernel: &'static Kernel, seed: u64)
    where
        T::Arithmetic: Bits,
    {
        let zero = Masked::Zero;
        // With the shape of the mask, whose elements are random.
        let all = [
            (plain([1, 1, 2, 5]), None),
            (Options { factor: Factor::Scale(0.125), causal: true, ..plain([1, 2, 4, 6]) }, None),
            (Options { window: Some(2), ahead: Some(1), ..plain([1, 1, 5, 5]) }, None),
            (Options { causal: true, offset: Some(-2), ..plain([1, 1, 4, 3]) }, None),
            (
                Options { ahead: Some(1), offset: Some(-3), masked: zero, ..plain([1, 1, 4, 3]) },
                None,
            ),
            (Options { lengths: vec![2, 0, 9], window: Some(3), ..plain([3, 1, 2, 4]) }, None),
            (Options { lengths: vec![4, 1, 0, 3], masked: zero, ..plain([2, 1, 2, 4]) }, None),
            (plain([2, 2, 2, 5]), Some([1, 2, 1])),
            (Options { causal: true, ..plain([2, 1, 3, 4]) }, Some([2, 1, 3])),
        ];
        let mut random = Random(seed);
        for (mut o, mask) in all {
            let [batch, heads, queries, keys] = o.shape;
            let mut x: Vec<T> = row(&mut random, 0, batch * heads * queries * keys);
            // Hiding a key hides a NaN.
            x[1] = T::NAN;
            o.mask = mask.map(|shape: [usize; 3]| {
                let n = shape.iter().product::<usize>() * keys;
                let seen = (0..n).map(|i| i % keys != 1 && !random.once_in(3)).collect();
                (shape, Elements::Bool(seen))
            });
            add::<T, U>(file, kernel, &Input::Full(x), &o);
        }
    }
    for_all_pairs!(of(file, kernel));
}

/// Numbers of a mask: about a fifth hides, a fifth is 0.
fn numbers(random: &mut Random, n: usize) -> Vec<f64> {
    let number = |_| match random.below(5) {
        0 => f64::NEG_INFINITY,
        1 => 0.0,
        _ => random.signed() * 4.0,
    };
    (0..n).map(number).collect()
}

/// Scores whose logits are more than the scaled scores.
pub(super) fn biased(file: &mut File, kernel: &'static Kernel) {
    fn of<T: Bits, U: Bits + Probs<T>>(file: &mut File, kernel: &'static Kernel, seed: u64)
    where
        T::Arithmetic: Bits,
    {
        let (inf, nan) = (f64::INFINITY, f64::NAN);
        let (inf32, nan32) = (f32::INFINITY, f32::NAN);
        let largest = super::ends::<T>().largest;
        let mut random = Random(100 + seed);
        let own = T::NAME;
        let mut add = |x: Vec<T>, o: Options| add::<T, U>(file, kernel, &Input::Full(x), &o);

        // Added masks of all types, in all shapes and with all kinds of scores.
        let temperature = Factor::Temperature;
        let of_f32 = |x: &[f64]| Elements::of("f32", x);
        let masks = [
            ([1, 1, 3, 6], [1, 1, 3], "f32", Factor::Scale(1.0), 0),
            ([1, 2, 2, 5], [1, 2, 1], "f16", Factor::Scale(0.125), 1),
            ([2, 1, 2, 5], [2, 1, 1], "bf16", temperature(3.0), 6),
            ([1, 1, 2, 17], [1, 1, 1], own, temperature(0.7), 0),
            ([1, 1, 2, 9], [1, 1, 2], "f32", Factor::Scale(-0.25), 0),
        ];
        for (shape, mask, kind, factor, scores) in masks {
            let keys = shape[3];
            let x = row(&mut random, scores, shape.iter().product());
            let m = numbers(&mut random, mask.iter().product::<usize>() * keys);
            let mask = Some((mask, Elements::of(kind, &m)));
            add(x, Options { factor, mask, causal: keys == 5, ..plain(shape) });
        }
        // Rows for which a mask of numbers only hides, and others; a row that sees no key.
        let x: Vec<T> = row(&mut random, 0, 4 * 4);
        let m = [0.0, -inf, -0.0, 0.0, 0.0, -inf, 0.5, 0.0, -inf, -inf, -inf, -inf];
        let m = [&m[..], &[-inf, 1.0, -inf, -inf]].concat();
        let mask = Some(([1, 1, 4], of_f32(&m)));
        let masked = Masked::Zero;
        add(x.clone(), Options { mask: mask.clone(), masked, ..plain([1, 1, 4, 4]) });
        let lengths = vec![4, 2, 4, 4];
        add(x.clone(), Options { mask, lengths, ..plain([1, 1, 4, 4]) });
        // Masks with fewer columns than keys; positions of sequences and of rows.
        let m = [0.0, -1.5, 2.0];
        let mask = || Some(([1, 1, 1], of_f32(&m)));
        let few = Options { mask: mask(), mask_columns: Some(3), ..plain([2, 1, 2, 4]) };
        add(x.clone(), Options { offsets: vec![1, -1], causal: true, ..few.clone() });
        let slopes = vec![0.25];
        add(x.clone(), Options { offsets: vec![0, 3, 1, 9], slopes, window: Some(3), ..few });

        // Slopes: positive, negative, 0; infinite ones hide keys.
        let x: Vec<T> = row(&mut random, 0, 3 * 2 * 6);
        let slopes = vec![0.1, -3.0, 0.0];
        add(x.clone(), Options { slopes, causal: true, ..plain([1, 3, 2, 6]) });
        let slopes = vec![inf32, -inf32, nan32];
        let mut hidden = x.clone();
        hidden[0] = T::NAN;
        let o = Options { slopes, offset: Some(6), ..plain([1, 3, 2, 6]) };
        add(hidden, Options { sinks: vec![1.0; 3], ..o.clone() });
        add(x.clone(), Options { offset: Some(2), ..o });
        // Slopes of a mask.
        let m = [1.0, -2.5, 0.0, -inf, 0.75, 30.0];
        let mask = |last: f64| {
            let mut m = m;
            m[5] = last;
            Some(([1, 1, 1], of_f32(&m)))
        };
        let mask_slopes = vec![1e-20, -2.0, 0.0];
        for last in [30.0, inf, nan] {
            let mask_slopes = mask_slopes.clone();
            add(x.clone(), Options { mask: mask(last), mask_slopes, ..plain([1, 3, 2, 6]) });
        }
        let seen = [true, true, false, true, true, true].to_vec();
        let mask = Some(([1, 1, 1], Elements::Bool(seen)));
        let mask_slopes = vec![1.0, 5.0, nan32];
        add(x, Options { mask, mask_slopes, ..plain([1, 3, 2, 6]) });

        // Soft caps: infinite scores are finite logits, NaN stays, hidden ones count for nothing.
        let x = [inf, 1.0, -inf, 90.0, -90.0, 0.0, -0.0, 1e-6, 2.0, 2.0, 3.0, nan];
        let x: Vec<T> = x.iter().map(|&x| T::from_f64(x)).collect();
        for c in [30.0, 1.0 / 1_048_576.0, 1_048_576.0] {
            let o = Options { cap: Some(c), ..plain([1, 1, 2, 6]) };
            add(x.clone(), Options { lengths: vec![6, 5], ..o.clone() });
            add(x.clone(), Options { factor: Factor::Temperature(0.3), ..o });
        }
        let x: Vec<T> = row(&mut random, 0, 3 * 20);
        add(x, Options { cap: Some(5.0), factor: temperature(2.7), ..plain([1, 1, 3, 20]) });

        // Sinks: alone, with rows that see nothing, and special ones.
        let x: Vec<T> = row(&mut random, 0, 4 * 2 * 3);
        let sinks = vec![0.5, -inf32, 40.0, -3.0];
        let lengths = vec![3, 3, 3, 3, 3, 0, 3, 0];
        let o = Options { sinks, lengths, masked, ..plain([1, 4, 2, 3]) };
        add(x.clone(), o.clone());
        let lengths = vec![3, 0, 3, 0, 3, 0, 3, 0];
        let sinks = vec![nan32, inf32, -inf32, -0.0];
        add(x, Options { sinks, lengths, masked: Masked::Nan, ..o });
        add(vec![], Options { sinks: vec![2.0], ..plain([1, 1, 2, 0]) });

        // Everything at once.
        let shape = [1, 2, 2, 11];
        for (kind, factor) in
            [(0, Factor::Scale(0.37)), (6, temperature(7.0)), (2, temperature(1.0))]
        {
            let x = row(&mut random, kind, shape.iter().product());
            let m = numbers(&mut random, 2 * 11);
            let o = Options {
                factor,
                cap: Some(20.0),
                mask: Some(([1, 1, 2], of_f32(&m))),
                mask_slopes: vec![0.5, 1.5],
                slopes: vec![-0.3, 0.01],
                sinks: vec![1.25, -8.0],
                causal: kind == 0,
                window: (kind == 6).then_some(4),
                ..plain(shape)
            };
            add(x.clone(), o.clone());
            // The same without a cap.
            add(x, Options { cap: None, ..o });
        }
        // Rows that one element dominates, whose low part counts in the log-sum-exp.
        for i in 0..8 {
            let mut x: Vec<T> = row(&mut random, 0, 5);
            x[i % 5] = T::from_f64(77.7 + i as f64);
            let sinks = vec![if i % 3 == 2 { 30.1 } else { -inf32 }];
            add(x, Options { factor: temperature(3.0), sinks, ..plain([1, 1, 1, 5]) });
        }
        // The same with small logits, and rows of two that are nearly equal.
        let each = |others: f64| move |i: usize| if i.is_multiple_of(2) { 0.0 } else { others };
        for (n, others) in [(16, -90.0), (8, -0.01)] {
            let x = (0..2 * n).map(each(others)).map(|x| x + random.signed().abs() * 2.0);
            let x: Vec<T> = x.map(T::from_f64).collect();
            let sinks = vec![if others < -1.0 { -inf32 } else { -0.5 }];
            add(x, Options { factor: temperature(3.0), sinks, ..plain([1, 1, n, 2]) });
        }

        // Huge rows, and far ones, some of which have no finite largest element in units of 1.
        let x = [50_000.0, 49_999.0, 50_001.0, -60_000.0, -60_001.0, -60_000.0];
        let x: Vec<T> = x.iter().map(|&x| T::from_f64(x)).collect();
        let sinks = vec![1.0];
        let o = Options { sinks, lengths: vec![2, 3], ..plain([1, 1, 2, 3]) };
        add(x.clone(), o.clone());
        for t in [0.7, 0.9] {
            add(x.clone(), Options { factor: temperature(t), ..o.clone() });
        }
        let x =
            [largest, largest, -largest, 1.0, -largest, -largest, inf, 0.0, 1.0, -inf, 2.0, 3.0];
        let x: Vec<T> = x.iter().map(|&x| T::from_f64(x)).collect();
        let far = |sinks, factor| Options { sinks, factor, ..plain([1, 1, 4, 3]) };
        let m = if own == "f64" { f64::MAX } else { f64::from(f32::MAX) };
        let kind = if own == "f64" { own } else { "f32" };
        let m = [[m, m, 0.0], [m, -m, -m], [-m, -m, 1.0], [inf, 1.0, -inf]].concat();
        let mask = Some(([1, 1, 4], Elements::of(kind, &m)));
        for scale in [1.0, 2f64.powi(60), 2f64.powi(-60)] {
            let factor = Factor::Scale(scale);
            for sink in [-inf32, 3.0, f32::MAX, f32::MIN] {
                add(x.clone(), far(vec![sink], factor));
            }
            add(x.clone(), Options { mask: mask.clone(), ..far(vec![], factor) });
            let mask_slopes = vec![-f32::MAX];
            add(x.clone(), Options { mask: mask.clone(), mask_slopes, ..far(vec![], factor) });
            let slopes = vec![f32::MAX];
            add(x.clone(), Options { slopes, cap: Some(50.0), ..far(vec![], factor) });
            let slopes = vec![-f32::MAX];
            add(x.clone(), Options { mask: mask.clone(), slopes, ..far(vec![], factor) });
        }
        // Far rows whose largest logits nearly cancel: not huge in their units.
        let x: Vec<T> = [3.0, 1.5, 0.0].iter().map(|&x| T::from_f64(x)).collect();
        let m = [inf, -1.0, 2.0];
        for last in [0.0, 1.0] {
            let mask = Some(([1, 1, 1], of_f32(&m)));
            add(x.clone(), Options { mask, mask_slopes: vec![last], ..plain([1, 1, 1, 3]) });
        }
    }
    for_all_pairs!(of(file, kernel));
    // Longer rows, whose sink is the last block of the sum.
    fn long<T: Bits, U: Bits + Probs<T>>(file: &mut File, kernel: &'static Kernel, seed: u64)
    where
        T::Arithmetic: Bits,
    {
        for (n, sink) in [(150, 6.0), (4100, 14.5)] {
            let input = Input::Generated { n, seed, exponent: 3 };
            let o = Options { sinks: vec![sink], slopes: vec![0.001], ..plain([1, 1, 1, n]) };
            add::<T, U>(file, kernel, &input, &o);
        }
        let input = Input::Generated { n: 8 * 80, seed, exponent: 0 };
        let sinks = (0..8).map(|i| i as f32 / 8.0).collect();
        add::<T, U>(
            file,
            kernel,
            &input,
            &Options { sinks, slopes: vec![1.0; 8], ..plain([1, 8, 1, 80]) },
        );
    }
    long::<f32, f32>(file, kernel, 1);
    long::<f16, f16>(file, kernel, 2);
    long::<f64, f64>(file, kernel, 3);
    long::<f32, bf16>(file, kernel, 4);
}

/// Adds the case of these scores in tiles between these keys, those from the `merge`th on for other
/// states.
fn add_tiles<U: Bits + Weight>(
    file: &mut File,
    kernel: &'static Kernel,
    (input, o): (&Input<f32>, &Options),
    tiles: &[[usize; 2]],
    merge: Option<usize>,
) {
    let (rows, keys): (usize, _) = (o.shape[..3].iter().product(), o.shape[3]);
    let x = input.elements();
    let (attention, case) = o.of(kernel, Case::new::<f32>().text("to", U::NAME));
    let online = attention.online(rows, keys);
    let mut case = case.raw("tiles", list(tiles.iter().map(list))).input("x", input);
    let mut states = [(); 2].map(|()| vec![OnlineRow::NEW; rows]);
    let (mut all_weights, mut all_factors) = (Vec::new(), Vec::new());
    for (i, &[from, to]) in tiles.iter().enumerate() {
        let tile = Matrix::with_stride(&x, rows, keys, keys).expect("whole rows");
        let tile = tile.split_cols(from).1.split_cols(to - from).0;
        let mut weights = vec![U::NAN; rows * (to - from)];
        let mut factors = vec![f32::NAN; rows];
        let y = MatrixMut::with_stride(&mut weights, rows, to - from, to - from);
        let states = &mut states[usize::from(merge.is_some_and(|merge| i >= merge))];
        let done = online.tile((0, from), tile, y.expect("whole rows"), states, &mut factors);
        done.expect("a valid call");
        all_weights.extend(weights);
        all_factors.extend(factors);
    }
    case = case.output("weights", &all_weights).output("factors", &all_factors);
    let [states, others] = &mut states;
    if let Some(merge) = merge {
        let (mut a, mut b) = (vec![f32::NAN; rows], vec![f32::NAN; rows]);
        OnlineSoftmax::merge(states, others, &mut a, &mut b).expect("as many states");
        case = case.raw("merge", merge).output("merge_factors", &[a, b].concat());
    }
    let numbers: Vec<f64> = states.iter().flat_map(|state| state.to_array()).collect();
    let (mut reciprocals, mut lse) = (vec![f32::NAN; rows], vec![f32::NAN; rows]);
    online.finish(0, states, &mut reciprocals, Some(&mut lse)).expect("a valid call");
    case = case.output("states", &numbers).output("reciprocals", &reciprocals);
    file.add(case.output("lse", &lse));
}

/// Scores in tiles.
pub(super) fn tiles(file: &mut File, kernel: &'static Kernel) {
    let (inf, nan) = (f32::INFINITY, f32::NAN);
    let mut random = Random(61);
    let all: &[&[[usize; 2]]] = &[
        &[[0, 9]],
        &[[0, 4], [4, 9]],
        &[[0, 1], [1, 3], [3, 3], [3, 7], [7, 9]],
        // In another order.
        &[[5, 9], [0, 5]],
    ];
    let of_f32 = |x: &[f64]| Elements::of("f32", x);
    let mut add = |x: Vec<f32>, o: &Options, i: usize| {
        let (case, tiles) = ((&Input::Full(x), o), all[i % all.len()]);
        let merge = (i % 3 == 1).then_some(tiles.len() / 2);
        match i % 5 {
            1 => add_tiles::<f16>(file, kernel, case, tiles, merge),
            2 => add_tiles::<bf16>(file, kernel, case, tiles, merge),
            _ => add_tiles::<f32>(file, kernel, case, tiles, merge),
        }
    };
    let shape = [1, 2, 2, 9];
    let temperature = Factor::Temperature;
    let factors = [Factor::Scale(1.0), temperature(0.7), Factor::Scale(-0.125), temperature(30.0)];
    for kind in 0..KINDS {
        for i in 0..4 {
            let factor = factors[(kind + i) % 4];
            let x = row(&mut random, kind, 36);
            let o = Options { factor, causal: i == 1, ..plain(shape) };
            add(x, &Options { window: (i == 2).then_some(4), ..o }, kind + i);
        }
    }
    // Rows that rise, by so much that the shift follows or not; that fall; special ones.
    for i in 0..12 {
        let x = (0..36).map(|k| match k / 9 {
            0 => k as f32 * 2.0,
            1 => (k % 9) as f32 * 30.0,
            2 => (k % 9) as f32 * -30.0,
            _ => [-inf, -inf, -inf, -inf, 3.0, inf, 1.0, nan, 2.0][k % 9],
        });
        let rising = |x: f32| if i > 7 { x * 1e3 } else { x };
        let masked = if i % 2 == 0 { Masked::Zero } else { Masked::Nan };
        let lengths = if i % 4 == 3 { vec![9, 9, 0, 5] } else { vec![] };
        add(x.map(rising).collect(), &Options { masked, lengths, ..plain(shape) }, i);
    }
    // Biased rows, of which some tiles are not.
    for i in 0..20 {
        let mut m = numbers(&mut random, 18);
        m[..4].fill(0.0);
        let x = row(&mut random, [0, 0, 6, 2][i % 4], 36);
        let o = Options {
            factor: factors[i % 4],
            mask: (i % 2 == 0).then_some(([1, 1, 2], of_f32(&m))),
            cap: (i % 5 == 1).then_some(20.0),
            slopes: if i % 5 == 3 { vec![-0.3, 0.01] } else { vec![] },
            sinks: if i % 3 == 2 { vec![1.25, [-inf, 80.0, -100.0][i % 9 / 3]] } else { vec![] },
            ..plain(shape)
        };
        add(x, &o, i + 1);
    }
    // Sinks of rows that see nothing, special sinks; far tiles.
    for (i, sink) in [2.0, -inf, inf, nan, f32::MAX, f32::MIN].into_iter().enumerate() {
        let mut x: Vec<f32> = row(&mut random, 0, 36);
        x[20] = f32::MAX;
        x[30] = 50_000.0;
        let lengths = vec![9, 0, 9, 9];
        let o = Options { sinks: vec![sink, 1.0], lengths, ..plain(shape) };
        add(x, &Options { masked: Masked::Zero, ..o }, i);
        let m = [f64::from(f32::MAX), 1.0, -1e38, f64::INFINITY, 0.0, 0.5, -1.0, 2.0, 3.0];
        let x = row(&mut random, 0, 36).into_iter().map(|x: f32| x * 1e38).collect();
        let mask = Some(([1, 1, 1], of_f32(&m)));
        let mask_slopes = vec![[1.0, 0.0, -1.0][i % 3]; 2];
        add(x, &Options { mask, mask_slopes, ..plain(shape) }, i);
    }
    // Longer rows, with tiles across blocks, and in another order.
    let input = Input::Generated { n: 8300, seed: 3, exponent: 3 };
    let o = plain([1, 1, 1, 8300]);
    let cuts = [[0, 1000], [1000, 4090], [4090, 4100], [4100, 8300]];
    for merge in [None, Some(1), Some(2)] {
        add_tiles::<f32>(file, kernel, (&input, &o), &cuts, merge);
    }
    let turned = [[4100, 8300], [0, 4095], [4095, 4100]];
    let o = Options { slopes: vec![0.01], ..o };
    add_tiles::<bf16>(file, kernel, (&input, &o), &turned, None);
}

/// Outputs that are merged.
pub(super) fn outputs(file: &mut File, kernel: &'static Kernel) {
    let (inf, nan) = (f32::INFINITY, f32::NAN);
    let mut random = Random(62);
    for i in 0..10 {
        let (parts, rows, cols) = ([2, 1, 3, 5, 0][i % 5], [1, 3, 2][i % 3], [3, 1, 70][i % 3]);
        let x: Vec<f32> = row(&mut random, 0, parts * rows * cols);
        let mut logs: Vec<f32> = row(&mut random, if i % 2 == 0 { 0 } else { 6 }, parts * rows);
        for (k, log) in logs.iter_mut().enumerate() {
            match (i + k) % 11 {
                3 => *log = -inf,
                7 if i > 4 => *log = inf,
                9 if i > 7 => *log = nan,
                _ => {}
            }
        }
        let masked = if i % 2 == 0 { Masked::Zero } else { Masked::Nan };
        let mut case = Case::new::<f32>().raw("rows", rows).raw("cols", cols);
        if masked == Masked::Zero {
            case = case.text("masked", "zero");
        }
        let all: Vec<_> = (0..parts)
            .map(|p| {
                let x = &x[p * rows * cols..(p + 1) * rows * cols];
                (Matrix::new(x, cols).expect("whole rows"), &logs[p * rows..(p + 1) * rows])
            })
            .collect();
        let (mut y, mut lse) = (vec![nan; rows * cols], vec![nan; rows]);
        let attention = Attention::new(1, 1).masked(masked).exec(by(kernel));
        let to = MatrixMut::new(&mut y, cols).expect("whole rows");
        attention.online(0, 0).merge_outputs(&all, to, &mut lse).expect("a valid call");
        case = case.text("parts", words(&x)).text("logs", words(&logs));
        file.add(case.output("output", &y).output("lse", &lse));
    }
}

/// Rows with masks.
pub(super) fn masked<T: Bits>(file: &mut File, kernel: &'static Kernel) {
    let (inf, nan) = (f64::INFINITY, f64::NAN);
    let mut random = Random(51);
    let of = |x: &[f64]| x.iter().map(|&x| T::from_f64(x)).collect::<Vec<T>>();
    let one = Factor::Scale(1.0);
    let hides = [0.0, -inf, 0.0, -0.0];
    let mut all = vec![
        // The NaN is hidden in the first row; the second sees nothing.
        (of(&[1.0, nan, 2.0, 0.5]), 4, Elements::Bool(vec![true, false, true, true]), one),
        (of(&[1.0, nan, 2.0, 0.5, 3.0, -inf, 3.0, 1.0]), 4, Elements::of("f32", &hides), one),
        (of(&[1.0, nan]), 2, Elements::Bool(vec![false; 2]), one),
        (of(&[inf, nan, 2.0, 0.5]), 4, Elements::of("f16", &[1.0, -inf, 0.0, 2.0]), one),
        (of(&[3.0, 1.0, 2.0, 0.5]), 2, Elements::of("f16", &[inf, 1.0, nan, 1.0]), one),
        (of(&[-inf, 1.0, 2.0, 3.0]), 2, Elements::of("f32", &[-inf, -inf, 1.0, -2.0]), one),
    ];
    let kinds = [
        ("f32", one, 0),
        ("f16", Factor::Scale(0.3), 1),
        ("bf16", Factor::Temperature(3.0), 0),
        (T::NAME, Factor::Temperature(0.7), 6),
        ("f32", Factor::Scale(-0.5), 2),
    ];
    for (i, (kind, factor, scores)) in kinds.into_iter().enumerate() {
        let (rows, cols) = [(3, 5), (2, 9), (1, 20)][i % 3];
        let x = row(&mut random, scores, rows * cols);
        // One for all rows, or one for each; some rows only hide.
        let mut m = numbers(&mut random, if i % 2 == 0 { cols } else { rows * cols });
        if rows > 1 && m.len() > cols {
            m[..cols].fill(0.0);
        }
        all.push((x, cols, Elements::of(kind, &m), factor));
    }
    let m = Elements::of("f32", &[-100.0, 0.5, -0.25]);
    all.push((of(&[300.0, 1.0, 0.5]), 3, m, Factor::Temperature(3.0)));
    if T::NAME == "f64" {
        let m = Elements::of("f64", &[1e308, -1e308, 1e308]);
        all.push((of(&[1.7e308, -1.7e308, 1.0]), 3, m, one));
    }
    for (i, (x, cols, mask, factor)) in all.into_iter().enumerate() {
        let rows = x.len() / cols;
        let masked = if i % 2 == 0 { Masked::Nan } else { Masked::Zero };
        let softmax = factor.options(kernel, masked).softmax().mask(mask.data());
        let from = || Matrix::new(&x, cols).expect("whole rows");
        let [mut probs, mut logs] = [(); 2].map(|()| vec![T::NAN; x.len()]);
        let mut lse = vec![T::NAN; rows];
        let to = MatrixMut::new(&mut probs, cols).expect("whole rows");
        softmax.softmax(from(), to).expect("a valid call");
        let to = MatrixMut::new(&mut logs, cols).expect("whole rows");
        softmax.log_softmax(from(), to).expect("a valid call");
        softmax.logsumexp(from(), &mut lse).expect("a valid call");
        let mut case = factor.add_to(Case::new::<T>()).raw("cols", cols);
        if masked == Masked::Zero {
            case = case.text("masked", "zero");
        }
        case = mask.add_to(case).text("x", words(&x));
        case = case.output("softmax", &probs).output("log_softmax", &logs);
        file.add(case.output("logsumexp", &lse));
    }
}
