//! The bits of docs/spec.md: `tests/vectors/*.json` are what every kernel gives, and what the
//! page's own implementation, `tests/vectors/softmax.py`, gives.
//!
//! `SOFTMAX_WRITE_VECTORS=1 cargo test -p softmax --test library every_kernel_gives` writes the
//! files, by the reference.

use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use crate::common::*;
use softmax::half::{bf16, f16};
use softmax::{
    Attention, BLOCK, Element, Kernel, Mask, Masked, Matrix, MatrixMut, Merged, MergedRow, Method,
    Order, Partial, Probs, Reduction, Sampler, Shards, Ties,
};

/// Where the files are.
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors");

/// A file's cases, one a line.
#[derive(Default)]
struct File {
    lines: Vec<String>,
}

impl File {
    fn text(&self, about: &str) -> String {
        format!("{{\"about\": \"{about}\", \"cases\": [\n{}\n]}}\n", self.lines.join(",\n"))
    }

    fn add(&mut self, case: Case) {
        self.lines.push(format!("{{{}}}", case.fields));
    }
}

/// The fields of a case.
struct Case {
    fields: String,
    /// Whether results are too many to be told in full.
    digests: bool,
}

impl Case {
    fn new<T: Element>() -> Self {
        Case { fields: format!("\"type\": \"{}\"", T::NAME), digests: false }
    }

    fn raw(mut self, name: &str, value: impl std::fmt::Display) -> Self {
        write!(self.fields, ", \"{name}\": {value}").expect("memory");
        self
    }

    fn text(self, name: &str, value: impl std::fmt::Display) -> Self {
        self.raw(name, format!("\"{value}\""))
    }

    /// An f64 by its bits.
    fn number(self, name: &str, value: f64) -> Self {
        self.text(name, format!("{:016x}", value.to_bits()))
    }

    /// Inputs.
    fn input<T: Bits>(self, name: &str, input: &Input<T>) -> Self {
        match input {
            Input::Full(x) => self.text(name, words(x)),
            &Input::Generated { n, seed, exponent } => {
                let how = format!("{{\"n\": {n}, \"seed\": {seed}, \"exponent\": {exponent}}}");
                Case { digests: true, ..self.raw(name, how) }
            }
            Input::Blocks { n, seed, exponents } => {
                let null = |e: &Option<i32>| e.map_or("null".into(), |e| e.to_string());
                let exponents = list(exponents.iter().map(null));
                let how = format!("{{\"n\": {n}, \"seed\": {seed}, \"exponents\": {exponents}}}");
                Case { digests: true, ..self.raw(name, how) }
            }
        }
    }

    /// Results: those of generated inputs by their digest.
    fn output<T: Bits>(self, name: &str, y: &[T]) -> Self {
        if !self.digests || y.len() == 1 {
            return self.text(name, words(y));
        }
        let mut digest = Fnv::default();
        digest.add(y);
        self.raw(name, format!("{{\"digest\": \"{:016x}\"}}", digest.0))
    }
}

fn words<T: Bits>(x: &[T]) -> String {
    let digits = 2 * size_of::<T>();
    let words: Vec<_> = x.iter().map(|x| format!("{:0digits$x}", x.bits())).collect();
    words.join(" ")
}

/// Elements, in full or by a rule.
enum Input<T> {
    Full(Vec<T>),
    Generated {
        n: usize,
        seed: u64,
        exponent: i32,
    },
    /// With an exponent for each block; a block without one is -inf.
    Blocks {
        n: usize,
        seed: u64,
        exponents: Vec<Option<i32>>,
    },
}

impl<T: Element> Input<T> {
    fn of(x: &[f64]) -> Self {
        Self::Full(x.iter().map(|&x| T::from_f64(x)).collect())
    }

    fn elements(&self) -> Vec<T> {
        match self {
            Self::Full(x) => x.clone(),
            &Self::Generated { n, seed, exponent } => {
                let exponents = vec![Some(exponent); n.div_ceil(BLOCK)];
                Self::Blocks { n, seed, exponents }.elements()
            }
            Self::Blocks { n, seed, exponents } => {
                let digits = if T::NAME == "f64" { 53 } else { 24 };
                // The state after i steps is the seed and i times a constant: a counter.
                let mut random = Random(*seed);
                let mut element = |i: usize| {
                    let integer = (random.next() >> (64 - digits)) as i64 - (1 << (digits - 1));
                    exponents[i / BLOCK].map_or(T::NEG_INFINITY, |exponent| {
                        T::from_f64(integer as f64 * 2f64.powi(exponent - digits + 1))
                    })
                };
                (0..*n).map(&mut element).collect()
            }
        }
    }
}

/// What there is of a type at its ends.
struct Ends {
    largest: f64,
    least: f64,
    subnormal: f64,
}

fn ends<T: Element>() -> Ends {
    match T::NAME {
        "f16" => Ends { largest: 65504.0, least: 2f64.powi(-14), subnormal: 2f64.powi(-24) },
        "bf16" => Ends {
            largest: (2.0 - 2f64.powi(-7)) * 2f64.powi(127),
            least: 2f64.powi(-126),
            subnormal: 2f64.powi(-133),
        },
        "f32" => Ends {
            largest: f32::MAX.into(),
            least: f32::MIN_POSITIVE.into(),
            subnormal: 2f64.powi(-149),
        },
        _ => Ends { largest: f64::MAX, least: f64::MIN_POSITIVE, subnormal: 5e-324 },
    }
}

/// Rows that have something special about them.
fn special<T: Element>() -> Vec<Vec<f64>> {
    let (inf, nan) = (f64::INFINITY, f64::NAN);
    let Ends { largest, least, subnormal } = ends::<T>();
    // How far below its row's largest an element is flushed: 126 or 1022 octaves.
    let flushed = if T::NAME == "f64" { 708.396_418_532_264_1 } else { 87.336_544_75 };
    vec![
        vec![],
        vec![0.0],
        vec![-0.0],
        vec![-inf],
        vec![inf],
        vec![nan],
        vec![3.5],
        vec![-inf, -inf, -inf],
        vec![1.0, nan, inf],
        vec![1.0, inf, -inf],
        vec![-inf, 0.0, 1.0],
        vec![0.0, -0.0],
        vec![-0.0, -0.0, -0.0],
        vec![1.5; 8],
        vec![0.0, -1e-3, 1e-3],
        vec![largest, -largest],
        vec![largest, largest, 1.0],
        vec![-largest, -largest],
        vec![largest, 0.99 * largest, 0.5 * largest],
        vec![least, subnormal, -subnormal, -least],
        vec![20.0, 0.0, 1.0],
        vec![40.0, 0.0, 0.5, -1.0],
        vec![0.0, -flushed * 0.999, -flushed, -flushed * 1.001],
        vec![0.0, -flushed + 0.7, -flushed + 1.5, -flushed - 0.2, 0.5],
        // Around where a row is huge.
        vec![45_425.0, 45_424.0, 45_300.0],
        vec![45_427.0, 45_426.0, 45_300.0],
        vec![-45_427.0, -45_426.0, -45_450.0],
        vec![60_000.0, 59_990.0, -60_000.0, -inf],
    ]
}

/// Scales and temperatures.
#[derive(Clone, Copy)]
enum Factor {
    Scale(f64),
    Temperature(f64),
}

impl Factor {
    fn options(self, kernel: &'static Kernel, masked: Masked) -> Options<'static> {
        let options = Options::new().kernel(kernel).masked(masked);
        match self {
            Self::Scale(scale) => options.scale(scale),
            Self::Temperature(t) => options.temperature(t),
        }
    }

    fn add_to(self, case: Case) -> Case {
        match self {
            Self::Scale(1.0) => case,
            Self::Scale(scale) => case.number("scale", scale),
            Self::Temperature(t) => case.number("temperature", t),
        }
    }
}

/// Rows of a type: special ones, of all kinds, and long ones.
fn inputs<T: Element>() -> Vec<(Input<T>, Factor)> {
    let one = Factor::Scale(1.0);
    let mut all: Vec<_> = special::<T>().iter().map(|x| (Input::of(x), one)).collect();
    let factors = [
        one,
        Factor::Temperature(0.7),
        Factor::Temperature(3.0),
        Factor::Scale(0.125),
        Factor::Temperature(1e-3),
        Factor::Scale(2f64.powi(20)),
        Factor::Temperature(1e40),
    ];
    let mut random = Random(7);
    for (i, n) in [2, 3, 7, 17, 37].into_iter().enumerate() {
        for kind in 0..KINDS {
            // Long ones are many of the same.
            if n < 30 || kind % 3 == i % 3 {
                let x = row(&mut random, kind, n);
                all.push((Input::Full(x), factors[(i + kind) % factors.len()]));
            }
        }
    }
    let long =
        [(70, 3, 1), (1000, 4, 0), (4097, 3, 1), (8300, 6, 2), (12_289, 16, 0), (300, -20, 3)];
    if T::NAME == "f64" {
        // Sums all over an octave: every entry of the table of logarithms.
        let low = |i: i32| ((f64::from(i) + 0.5) / 72.0).ln();
        all.extend((0..72).map(|i| (Input::of(&[0.0, 0.0, low(i), low(i)]), one)));
    }
    for (i, (n, exponent, factor)) in long.into_iter().enumerate() {
        all.push((Input::Generated { n, seed: i as u64, exponent }, factors[factor]));
    }
    all
}

/// Options, log-softmax and log-sum-exp.
fn rows<T: Bits>(file: &mut File, kernel: &'static Kernel) {
    for (input, factor) in inputs::<T>() {
        let x = input.elements();
        let is_masked = x.iter().all(|x| x.to_f64() == f64::NEG_INFINITY);
        let all = [(Masked::Nan, "nan"), (Masked::Zero, "zero")];
        for (masked, name) in &all[..if is_masked { 2 } else { 1 }] {
            let options = factor.options(kernel, *masked);
            let mut case = factor.add_to(Case::new::<T>());
            if is_masked {
                case = case.text("masked", name);
            }
            case = case.input("x", &input);
            case = case.output("softmax", &run_row(&options, Op::Softmax, &x));
            case = case.output("log_softmax", &run_row(&options, Op::LogSoftmax, &x));
            case = case.output("logsumexp", &run_row(&options, Op::LogSumExp, &x));
            file.add(case);
        }
    }
}

/// A function of a type, for all types.
macro_rules! for_all_types {
    ($f:ident($($argument:expr),*)) => {
        $f::<f32>($($argument),*);
        $f::<f64>($($argument),*);
        $f::<f16>($($argument),*);
        $f::<bf16>($($argument),*);
    };
}

/// A result of a row, written by `f`.
fn of_row<T: Bits>(x: &[T], f: impl FnOnce(Matrix<T>, MatrixMut<T>)) -> Vec<T> {
    let mut y = vec![T::NAN; x.len()];
    let (n, from) = (x.len(), Matrix::with_stride(x, 1, x.len(), x.len()).expect("one row"));
    f(from, MatrixMut::with_stride(&mut y, 1, n, n).expect("one row"));
    y
}

/// Sigmoid and log-sigmoid of elements.
fn elements<T: Bits>(file: &mut File, kernel: &'static Kernel) {
    let Ends { largest, least, subnormal } = ends::<T>();
    let (inf, nan) = (f64::INFINITY, f64::NAN);
    let mut x = vec![0.0, -0.0, inf, -inf, nan, largest, -largest, least, -subnormal];
    let flushed = if T::NAME == "f64" { 708.396_418_532_264_1 } else { 87.336_544_75 };
    x.extend([1.0, -1.0, 0.5, 30.0, -30.0, -flushed, -1.001 * flushed, -flushed + 0.1]);
    let mut random = Random(11);
    x.extend((0..30).map(|i| random.signed() * [1.0, 10.0, 100.0][i % 3]));
    let one = Factor::Scale(1.0);
    let mut all = vec![(Input::<T>::of(&x), one), (Input::of(&x), Factor::Temperature(3.0))];
    all.push((Input::of(&x[..17]), Factor::Scale(2f64.powi(40))));
    all.push((Input::Generated { n: 1000, seed: 1, exponent: 4 }, one));
    for (input, factor) in all {
        let (x, options) = (input.elements(), factor.options(kernel, Masked::Nan));
        let sigmoid = of_row(&x, |x, y| options.sigmoid().sigmoid(x, y).expect("a valid call"));
        let log = of_row(&x, |x, y| options.sigmoid().log_sigmoid(x, y).expect("a valid call"));
        let case = factor.add_to(Case::new::<T>()).input("x", &input);
        file.add(case.output("sigmoid", &sigmoid).output("log_sigmoid", &log));
    }
}

/// What softmax and log-softmax tend to.
fn limits<T: Bits>(file: &mut File, kernel: &'static Kernel) {
    let (inf, nan) = (f64::INFINITY, f64::NAN);
    let rows: &[&[f64]] = &[
        &[],
        &[-inf],
        &[-inf, -inf],
        &[nan, 1.0],
        &[inf, 1.0, inf],
        &[2.0, -inf, inf],
        &[0.0, -0.0, -1.0],
        &[1.0, 3.0, 2.0, 3.0, -inf, 3.0],
        &[-5.0, -6.0],
        &[2.0; 49],
    ];
    for x in rows {
        let input = Input::<T>::of(x);
        let x = input.elements();
        for (masked, name) in [(Masked::Nan, "nan"), (Masked::Zero, "zero")] {
            let at = |t| Options::new().kernel(kernel).masked(masked).temperature(t);
            let limit = |t, op| run_row(&at(t), op, &x);
            let first = |x: Matrix<T>, y: MatrixMut<T>| {
                let options = Options::new().kernel(kernel).masked(masked);
                options.hardmax(Ties::First).hardmax(x, y).expect("a valid call");
            };
            let case = Case::new::<T>().text("masked", name).input("x", &input);
            let case = case.output("softmax_0", &limit(0.0, Op::Softmax));
            let case = case.output("log_softmax_0", &limit(0.0, Op::LogSoftmax));
            let case = case.output("hardmax_first", &of_row(&x, first));
            let case = case.output("softmax_inf", &limit(inf, Op::Softmax));
            file.add(case.output("log_softmax_inf", &limit(inf, Op::LogSoftmax)));
        }
    }
}

fn list<T: std::fmt::Display>(values: impl IntoIterator<Item = T>) -> String {
    let values: Vec<_> = values.into_iter().map(|value| value.to_string()).collect();
    format!("[{}]", values.join(", "))
}

/// Rows in shards.
fn shards<T: Bits>(file: &mut File, kernel: &'static Kernel) {
    fn merged<T: Element>(shards: &Shards, partials: &[Partial]) -> Merged<T> {
        shards.merge(partials).expect("a valid kernel")
    }
    fn numbers(partials: &[Partial]) -> String {
        list(partials.iter().map(|p| format!("\"{}\"", words(&p.to_array()))))
    }
    let one = Factor::Scale(1.0);
    let generated = |n, seed, exponent| Input::Generated { n, seed, exponent };
    let mut all = vec![
        (generated(1, 1, 3), one),
        (generated(4096, 2, 3), Factor::Temperature(0.7)),
        (generated(9000, 3, 2), one),
        (generated(4500, 4, 7), one),
        (generated(4200, 5, 16), one),
    ];
    // Rows of one element, whose sums change with the last bit of a coefficient of the polynomials:
    // found by a search, for all coefficients but the last two of f64.
    let telling: &[u64] = match T::NAME {
        "f32" => &[0xbf80_0008, 0xbf80_0100, 0xbf81_897e, 0xc243_f0c4],
        "f16" => &[0xa153, 0xcf7b],
        "bf16" => &[0xbc9b],
        _ => &[
            0xc00f_590f_6378_cd0f,
            0xbfd2_3815_9e94_3250,
            0xbfe7_6469_a499_8efc,
            0xc009_4d6a_22a0_6a93,
            0xc008_a07a_90bf_6c78,
        ],
    };
    for &bits in telling {
        // The value of the type with these bits.
        let value = match T::NAME {
            "f32" => f32::from_bits(bits as u32).into(),
            "f16" => f16::from_bits(bits as u16).into(),
            "bf16" => bf16::from_bits(bits as u16).into(),
            _ => f64::from_bits(bits),
        };
        all.push((Input::of(&[value]), one));
    }
    // Blocks that are nothing, flushed as a whole, or in part.
    let far = if T::NAME == "f64" { [9, 10] } else { [6, 7] };
    let blocks = |n, exponents: &[Option<i32>]| {
        let exponents = exponents.to_vec();
        Input::Blocks { n, seed: 6, exponents }
    };
    all.push((blocks(8200, &[Some(0), None, Some(far[1])]), one));
    all.push((blocks(4100, &[Some(far[0]), Some(far[1] + 1)]), one));
    all.push((blocks(4400, &[Some(far[0]), Some(far[1])]), one));
    for special in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        all.push((Input::of(&[special, f64::NEG_INFINITY]), one));
    }
    for (input, factor) in all {
        let (x, options) = (input.elements(), factor.options(kernel, Masked::Nan));
        let shards = options.shards();
        let partials = |max| {
            let mut partials = vec![Partial::NOTHING; Partial::count(x.len())];
            shards.partials(&x, max, &mut partials).expect("a valid shard");
            partials
        };
        let first = partials(None);
        let mut case = factor.add_to(Case::new::<T>()).input("x", &input);
        case = case.raw("partials", numbers(&first));
        let row: MergedRow<T> = match merged(&shards, &first) {
            Merged::Row(row) => row,
            Merged::Again(max) => {
                let again = partials(Some(max));
                case = case.number("again", max).raw("partials_again", numbers(&again));
                let Merged::Row(row) = merged(&shards, &again) else { panic!("a third round") };
                row
            }
        };
        case = case.raw("row", numbers(&[row.to_partial()]));
        let mut y = vec![T::NAN; x.len()];
        shards.softmax(&row, &x, &mut y).expect("a valid shard");
        file.add(case.output("softmax", &y));
    }
}

/// Scores of attention with ranges of keys and masks of bool.
fn attention(file: &mut File, kernel: &'static Kernel) {
    struct Options {
        shape: [usize; 4],
        scale: f64,
        causal: bool,
        window: Option<usize>,
        ahead: Option<usize>,
        offset: Option<isize>,
        lengths: Vec<usize>,
        mask: Option<[usize; 3]>,
        masked: Masked,
    }
    fn of<T: Bits, U: Bits + Probs<T>>(file: &mut File, kernel: &'static Kernel, seed: u64)
    where
        T::Arithmetic: Bits,
    {
        let plain = |shape| Options {
            shape,
            scale: 1.0,
            causal: false,
            window: None,
            ahead: None,
            offset: None,
            lengths: vec![],
            mask: None,
            masked: Masked::Nan,
        };
        let all = [
            plain([1, 1, 2, 5]),
            Options { scale: 0.125, causal: true, ..plain([1, 2, 4, 6]) },
            Options { window: Some(2), ahead: Some(1), ..plain([1, 1, 5, 5]) },
            Options { causal: true, offset: Some(-2), ..plain([1, 1, 4, 3]) },
            Options {
                ahead: Some(1),
                offset: Some(-3),
                masked: Masked::Zero,
                ..plain([1, 1, 4, 3])
            },
            Options { lengths: vec![2, 0, 9], window: Some(3), ..plain([3, 1, 2, 4]) },
            Options { lengths: vec![4, 1, 0, 3], masked: Masked::Zero, ..plain([2, 1, 2, 4]) },
            Options { mask: Some([1, 2, 1]), ..plain([2, 2, 2, 5]) },
            Options { mask: Some([2, 1, 3]), causal: true, ..plain([2, 1, 3, 4]) },
        ];
        let mut random = Random(seed);
        for o in all {
            let [batch, heads, queries, keys] = o.shape;
            let rows = batch * heads * queries;
            let mut x: Vec<T> = row(&mut random, 0, rows * keys);
            // What hides a key hides a NaN.
            x[1] = T::NAN;
            let mask_size = o.mask.map_or(0, |shape| shape.iter().product::<usize>() * keys);
            let seen: Vec<bool> =
                (0..mask_size).map(|i| i % keys != 1 && !random.once_in(3)).collect();
            let mut attention = Attention::new(heads, queries).exec(by(kernel)).masked(o.masked);
            attention = attention.scale(o.scale);
            let shape = format!("[{batch}, {heads}, {queries}, {keys}]");
            let mut case = Case::new::<T>().text("to", U::NAME).raw("shape", shape);
            case = Factor::Scale(o.scale).add_to(case);
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
            if !o.lengths.is_empty() {
                attention = attention.lengths(&o.lengths);
                case = case.raw("lengths", list(&o.lengths));
            }
            if let Some(shape) = o.mask {
                attention = attention.mask(Mask::new(&seen[..], shape));
                case = case.raw("mask_shape", list(shape));
                case = case.raw("mask", list(seen.iter().map(|&seen| u8::from(seen))));
            }
            let mut probs = vec![U::NAN; x.len()];
            let mut lse = vec![T::Arithmetic::NAN; rows];
            let (from, to) = (Matrix::new(&x, keys), MatrixMut::new(&mut probs, keys));
            let (from, to) = (from.expect("whole rows"), to.expect("whole rows"));
            attention.softmax_and_logsumexp(from, to, &mut lse).expect("a valid call");
            case = case.text("x", words(&x)).output("probs", &probs);
            file.add(case.output("lse", &lse));
        }
    }
    of::<f32, f32>(file, kernel, 1);
    of::<f32, f16>(file, kernel, 2);
    of::<f32, bf16>(file, kernel, 3);
    of::<f16, f16>(file, kernel, 4);
    of::<f16, f32>(file, kernel, 5);
    of::<bf16, bf16>(file, kernel, 6);
    of::<bf16, f32>(file, kernel, 7);
    of::<f64, f64>(file, kernel, 8);
}

/// Gradients through softmax and log-softmax.
fn backwards<T: Bits>(file: &mut File, kernel: &'static Kernel) {
    let factors = [
        Factor::Scale(1.0),
        Factor::Temperature(3.0),
        Factor::Scale(0.25),
        Factor::Temperature(1e-3),
    ];
    let mut random = Random(21);
    let rows = [(1, 0), (2, 1), (5, 0), (17, 3), (40, 1), (33, 6)];
    for (i, (n, kind)) in rows.into_iter().enumerate() {
        let factor = factors[i % factors.len()];
        let options = factor.options(kernel, Masked::Nan);
        let x: Vec<T> = row(&mut random, kind, n);
        let u: Vec<T> = row(&mut random, 0, n);
        let (p, l) = (run_row(&options, Op::Softmax, &x), run_row(&options, Op::LogSoftmax, &x));
        let case = factor.add_to(Case::new::<T>());
        let case = case.text("probs", words(&p)).text("log_probs", words(&l));
        let case = case.text("upstream", words(&u));
        let case = case.output("softmax", &backward(&options, false, &p, &u, n));
        file.add(case.output("log_softmax", &backward(&options, true, &l, &u, n)));
    }
    // Of generated numbers, which need not be probabilities.
    let (n, exponent) = (5000, 1);
    let [a, b] = [1, 2].map(|seed| Input::<T>::Generated { n, seed, exponent });
    let options = Options::new().kernel(kernel);
    let (p, u) = (a.elements(), b.elements());
    let case = Case::new::<T>().input("probs", &a).input("log_probs", &a).input("upstream", &b);
    let case = case.output("softmax", &backward(&options, false, &p, &u, n));
    file.add(case.output("log_softmax", &backward(&options, true, &p, &u, n)));
}

/// Cross-entropy against labels, and its gradient.
fn losses<T: Bits>(file: &mut File, kernel: &'static Kernel) {
    let inf = f64::INFINITY;
    let one = Factor::Scale(1.0);
    let flushed = if T::NAME == "f64" { 708.396_418_532_264_1 } else { 87.336_544_75 };
    let of = |x: &[f64]| Input::<T>::of(x);
    // Rows, columns, labels.
    let mut all = vec![
        (of(&[2.5]), 1, vec![0], one),
        (of(&[1.0, 2.0, 0.5, 3.0, 1.0, 1.0]), 3, vec![1, 0], one),
        // The label far ahead of the others, and far behind; among equal ones.
        (of(&[30.0, 1.0, 0.0, 12.0, 0.0, 1.0]), 3, vec![0, 0], one),
        (of(&[0.0, 25.0, 1.0, 0.0, 40.0, -inf]), 3, vec![0, 2], one),
        (of(&[7.0; 6]), 3, vec![2, 0], Factor::Temperature(0.3)),
        (of(&[0.0, 1.0 - flushed, -flushed, 0.0, 0.7 - flushed, 1.0]), 3, vec![1, 2], one),
        // Special rows, and one that is ignored.
        (of(&[1.0, f64::NAN, inf, 1.0, -inf, -inf, 1.0, 2.0]), 2, vec![0, 0, 1, -100], one),
        (of(&[50_000.0, 49_990.0, 49_999.0, -60_000.0]), 2, vec![1, 0], one),
    ];
    if T::NAME == "f64" {
        // So far apart that the difference overflows.
        all.push((of(&[1.5e308, -1e308, 1e300, -1e299]), 2, vec![1, 1], one));
    }
    let mut random = Random(31);
    for (i, n) in [5, 17, 40].into_iter().enumerate() {
        let x = [0, 1, 6].into_iter().flat_map(|kind| row(&mut random, kind, n)).collect();
        let labels = [0, 1, 2].map(|i| (i * n / 3) as i64).to_vec();
        let factor = [one, Factor::Temperature(3.0), Factor::Scale(0.25)][i];
        all.push((Input::Full(x), n, labels, factor));
    }
    if T::NAME == "f32" {
        // Maxima all over an octave: every entry of the table of exp2.
        let max = |i: i32| (f64::from(i) + 0.3) * 2f64.ln() / 256.0;
        let x: Vec<_> = (0..256).flat_map(|i| [max(i), max(i) - 1.0]).collect();
        all.push((of(&x), 2, vec![1; 256], one));
        // Where no element has a quarter of its row, the logarithm of C counts.
        let mut random = Random(32);
        let x: Vec<_> = (0..60 * 5).map(|_| random.signed() / 16.0).collect();
        all.push((of(&x), 5, vec![2; 60], one));
    }
    let long = |n, seed, exponent| Input::Generated { n, seed, exponent };
    all.push((long(5000, 3, 3), 5000, vec![4999], one));
    // Many rows by one digest, for the last bits of what logarithms are made of.
    all.push((long(5000, 6, 2), 2, vec![1; 2500], one));
    all.push((long(5000, 7, -2), 5, vec![3; 1000], one));
    all.push((long(4500, 5, 6), 4500, vec![17], one));
    for (i, (input, cols, labels, factor)) in all.into_iter().enumerate() {
        let x = input.elements();
        let (rows, mean) = (labels.len(), i % 3 > 0);
        let reduction = if mean { Reduction::Mean } else { Reduction::Sum };
        let gradient_factor = [1.0, 1.0, 1024.0, 1e39][i % 4];
        let loss = factor
            .options(kernel, Masked::Nan)
            .cross_entropy()
            .reduction(reduction)
            .gradient_factor(gradient_factor);
        let mut gradient = vec![T::NAN; x.len()];
        let mut losses = vec![f64::NAN; rows];
        let logits = Matrix::new(&x, cols).expect("whole rows");
        let to = MatrixMut::new(&mut gradient, cols).expect("whole rows");
        loss.losses_and_gradient(logits, &labels, &mut losses, to).expect("a valid call");
        let reduced = loss.loss(logits, &labels).expect("a valid call");
        let mut case = factor.add_to(Case::new::<T>()).raw("cols", cols);
        case = if labels.len() > 100 {
            case.raw("label_of_all", labels[0])
        } else {
            case.raw("labels", list(&labels))
        };
        case = case.text("reduction", if mean { "mean" } else { "sum" });
        case = case.number("gradient_factor", gradient_factor).input("x", &input);
        case = case.output("losses", &losses).number("loss", reduced);
        file.add(case.output("gradient", &gradient));
    }
}

/// The largest elements of rows, and the log-probabilities of some.
fn picks<T: Bits>(file: &mut File, kernel: &'static Kernel)
where
    T::Arithmetic: Bits,
{
    let (inf, nan) = (f64::INFINITY, f64::NAN);
    let one = Factor::Scale(1.0);
    let mut all: Vec<(Input<T>, usize, Factor)> = vec![
        (Input::of(&[1.0, 3.0, 2.0, 3.0, -0.0, 0.0]), 6, Factor::Scale(0.25)),
        (Input::of(&[1.0, nan, inf]), 2, one),
        (Input::of(&[1.0, -inf, inf, inf]), 3, one),
        (Input::of(&[-inf, -inf]), 1, one),
        (Input::of(&[40.0, 0.0, 1.0, 39.0]), 4, one),
    ];
    let mut random = Random(41);
    for (kind, factor) in [(0, one), (1, Factor::Temperature(3.0)), (6, one)] {
        all.push((Input::Full(row(&mut random, kind, 33)), 4, factor));
    }
    for (input, k, factor) in all {
        let x = input.elements();
        let is_masked = x.iter().all(|x| x.to_f64() == f64::NEG_INFINITY);
        let masked = if is_masked { Masked::Zero } else { Masked::Nan };
        let options = factor.options(kernel, masked);
        let x = Matrix::new(&x, x.len()).expect("one row");
        let mut best = [0];
        options.hardmax(Ties::Share).argmax(x, &mut best).expect("a valid call");
        let mut indices = vec![0; k];
        let [mut log_probs, mut probs, mut of_last] = [(); 3].map(|()| vec![T::Arithmetic::NAN; k]);
        let top = options.top_k(k).log_probs_and_probs(x, &mut log_probs, &mut probs, &mut indices);
        top.expect("a valid call");
        // Of any tokens: the last ones.
        let tokens: Vec<_> = (x.cols() - k..x.cols()).collect();
        let mut lse = [T::Arithmetic::NAN];
        options
            .log_probs()
            .log_probs_and_logsumexp(x, &tokens, &mut of_last, &mut lse)
            .expect("a valid call");
        let mut case = factor.add_to(Case::new::<T>());
        if is_masked {
            case = case.text("masked", "zero");
        }
        case = case.input("x", &input).raw("argmax", best[0]).raw("top_k", list(&indices));
        case = case.output("log_probs", &log_probs).output("probs", &probs);
        case = case.raw("tokens", list(&tokens)).output("log_probs_of_tokens", &of_last);
        file.add(case.output("lse", &lse));
    }
}

/// Draws.
fn samples<T: Bits>(file: &mut File, kernel: &'static Kernel) {
    #[derive(Clone)]
    struct Options {
        rows: usize,
        draws: usize,
        temperature: f64,
        top_k: usize,
        top_p: f64,
        min_p: f64,
        order: Order,
        method: Method,
        bias: Vec<(usize, f32)>,
        history: Vec<Vec<usize>>,
        penalties: [f64; 3],
        seed: u64,
        step: u64,
        first_row: u64,
    }
    let plain = Options {
        rows: 1,
        draws: 12,
        temperature: 1.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        order: Order::Transformers,
        method: Method::InverseCdf,
        bias: vec![],
        history: vec![],
        penalties: [1.0, 0.0, 0.0],
        seed: 1,
        step: 0,
        first_row: 0,
    };
    let (inf, gumbel, llama) = (f64::INFINITY, Method::GumbelMax, Order::LlamaCpp);
    let short = |seed| Input::Generated { n: 40, seed, exponent: 2 };
    let long = |seed, exponent| Input::Generated { n: 3000, seed, exponent };
    let wide = || Input::Generated { n: 2500, seed: 9, exponent: 5 };
    let mut special = vec![1.0, inf, 0.0, f64::NAN, -inf, -inf];
    special.extend([2.0, -inf]);
    let all: Vec<(Input<T>, Options)> = vec![
        (short(1), plain.clone()),
        (short(2), Options { rows: 4, draws: 3, seed: 1 << 40 | 9, ..plain.clone() }),
        (short(3), Options { step: 5 << 32 | 3, first_row: 7 << 32 | 11, ..plain.clone() }),
        (short(4), Options { top_k: 3, ..plain.clone() }),
        (short(5), Options { top_p: 0.7, temperature: 0.8, ..plain.clone() }),
        (short(6), Options { min_p: 0.1, temperature: 2.0, ..plain.clone() }),
        (short(7), Options { top_k: 20, top_p: 0.5, min_p: 0.02, ..plain.clone() }),
        (short(8), Options { method: gumbel, ..plain.clone() }),
        (short(9), Options { method: gumbel, top_p: 0.8, seed: 77, ..plain.clone() }),
        (short(10), Options { order: llama, top_p: 0.6, temperature: 3.0, ..plain.clone() }),
        (short(11), Options { order: llama, top_k: 5, temperature: inf, ..plain.clone() }),
        (short(12), Options { temperature: inf, top_k: 7, ..plain.clone() }),
        (short(13), Options { temperature: inf, ..plain.clone() }),
        (short(14), Options { temperature: 0.0, draws: 1, ..plain.clone() }),
        (
            short(15),
            Options {
                rows: 2,
                draws: 6,
                bias: vec![(3, 5.0), (0, -inf as f32), (3, 0.1), (19, 2.5)],
                history: vec![vec![1, 1, 19, 5], vec![7]],
                penalties: [1.3, 0.5, 0.25],
                ..plain.clone()
            },
        ),
        (
            short(16),
            Options {
                history: vec![vec![2, 2, 2, 9, 30]],
                penalties: [0.5, -3.0, 1.0],
                top_p: 0.9,
                ..plain.clone()
            },
        ),
        (long(1, 3), plain.clone()),
        (long(2, 3), Options { top_p: 0.9, ..plain.clone() }),
        (long(3, 1), Options { top_k: 700, method: gumbel, draws: 3, ..plain.clone() }),
        (long(4, 3), Options { order: llama, min_p: 0.01, temperature: 0.5, ..plain.clone() }),
        // Rests count where there is one large mass and many that are small.
        (wide(), Options { temperature: 0.8, draws: 40, ..plain.clone() }),
        // A seed whose first draw from f32 lands among the rests.
        (wide(), Options { temperature: 0.8, draws: 2, seed: 1_343_428, ..plain.clone() }),
        (Input::of(&[5.0, 5.0, 5.0, 4.0]), Options { top_k: 2, ..plain.clone() }),
        (Input::of(&[0.0, -50.0]), plain.clone()),
        (Input::of(&special), Options { rows: 4, draws: 2, ..plain.clone() }),
    ];
    for (input, o) in all {
        let x = input.elements();
        let mut draws = vec![0; o.rows * o.draws];
        let history: Vec<&[usize]> = o.history.iter().map(|list| &list[..]).collect();
        let mut sampler = || {
            let [repetition, presence, frequency] = o.penalties;
            let sampler = Sampler::new(o.seed).step(o.step).first_row(o.first_row);
            let sampler = sampler.temperature(o.temperature).top_k(o.top_k).top_p(o.top_p);
            let sampler = sampler.min_p(o.min_p).order(o.order).method(o.method);
            let sampler = sampler.repetition_penalty(repetition).presence_penalty(presence);
            let sampler = sampler.frequency_penalty(frequency).exec(by(kernel));
            let logits = Matrix::new(&x, x.len() / o.rows)?;
            sampler.bias(&o.bias).history(&history).sample(logits, &mut draws)
        };
        sampler().expect("a valid call");
        let mut case = Case::new::<T>().raw("rows", o.rows).raw("seed", o.seed);
        for (name, value) in [("step", o.step), ("first_row", o.first_row)] {
            if value > 0 {
                case = case.raw(name, value);
            }
        }
        if o.top_k > 0 {
            case = case.raw("top_k", o.top_k);
        }
        let numbers = [
            ("temperature", o.temperature, 1.0),
            ("top_p", o.top_p, 1.0),
            ("min_p", o.min_p, 0.0),
            ("repetition", o.penalties[0], 1.0),
            ("presence", o.penalties[1], 0.0),
            ("frequency", o.penalties[2], 0.0),
        ];
        for (name, value, usual) in numbers {
            if value != usual {
                case = case.number(name, value);
            }
        }
        if o.order == llama {
            case = case.text("order", "llama.cpp");
        }
        if o.method == gumbel {
            case = case.text("method", "gumbel-max");
        }
        if !o.bias.is_empty() {
            let pair = |&(token, bias): &(usize, f32)| format!("[{token}, \"{}\"]", words(&[bias]));
            case = case.raw("bias", list(o.bias.iter().map(pair)));
        }
        if !o.history.is_empty() {
            case = case.raw("history", list(o.history.iter().map(list)));
        }
        let token = |&token: &usize| if token == usize::MAX { -1 } else { token as i64 };
        file.add(case.input("x", &input).raw("draws", list(draws.iter().map(token))));
    }
}

/// What makes the cases of a file, with a kernel.
type Make = fn(&mut File, &'static Kernel);

/// The files: names, what they are about, what makes them.
const FILES: &[(&str, &str, Make)] = &[
    ("rows", "softmax, log_softmax and logsumexp of rows", |file, kernel| {
        for_all_types!(rows(file, kernel));
    }),
    ("elements", "sigmoid and log_sigmoid", |file, kernel| {
        for_all_types!(elements(file, kernel));
    }),
    (
        "limits",
        "softmax and log_softmax at temperature 0 and infinity, and hardmax",
        |file, kernel| {
            for_all_types!(limits(file, kernel));
        },
    ),
    ("shards", "partials of rows in shards, and what they are merged to", |file, kernel| {
        for_all_types!(shards(file, kernel));
    }),
    ("attention", "softmax of scores with ranges and boolean masks", attention),
    ("backward", "gradients through softmax and log_softmax", |file, kernel| {
        for_all_types!(backwards(file, kernel));
    }),
    ("losses", "cross-entropy against labels and its gradient", |file, kernel| {
        for_all_types!(losses(file, kernel));
    }),
    ("picks", "argmax, top-k and log-probabilities of tokens", |file, kernel| {
        for_all_types!(picks(file, kernel));
    }),
    ("samples", "draws from rows of logits", |file, kernel| {
        for_all_types!(samples(file, kernel));
    }),
];

#[test]
fn every_kernel_gives_the_vectors() {
    let write = std::env::var_os("SOFTMAX_WRITE_VECTORS").is_some();
    for (name, about, make) in FILES {
        let path = Path::new(FOLDER).join(name).with_extension("json");
        let made_by = |kernel| {
            let mut file = File::default();
            make(&mut file, kernel);
            file.text(about)
        };
        if write {
            std::fs::write(&path, made_by(scalar())).expect("the file can be written");
        }
        let want = std::fs::read_to_string(&path).expect("the file is there");
        for kernel in available() {
            let got = made_by(kernel);
            for (i, (got, want)) in got.lines().zip(want.lines()).enumerate() {
                assert_eq!(got, want, "{name}.json line {} by {}", i + 1, kernel.name());
            }
            assert_eq!(got.lines().count(), want.lines().count(), "{name}.json");
        }
    }
}

/// It needs no kernel, and under an emulator it would wait for nothing new.
#[test]
fn the_specification_gives_the_vectors() {
    if quick() {
        eprintln!("NOT TESTED: tests/vectors/softmax.py, which is the same on every CPU");
        return;
    }
    let script = Path::new(FOLDER).join("softmax.py");
    let run = Command::new("python3").arg("-B").arg(script).output().expect("python3 runs");
    let told = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success(), "{told}{}", String::from_utf8_lossy(&run.stderr));
    for (name, ..) in FILES {
        assert!(told.contains(&format!("{name}.json: ")), "{name}.json was not looked at: {told}");
    }
}
