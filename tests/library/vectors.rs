//! The bits of docs/spec.md: `tests/vectors/*.json` are what every kernel gives, and what the
//! page's own implementation, `tests/vectors/softmax.py`, gives.
//!
//! `SOFTMAX_WRITE_VECTORS=1 cargo test -p softmax --test library vectors` writes the files, by the
//! reference.

use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use crate::common::*;
use softmax::half::{bf16, f16};
use softmax::{Element, Kernel, Masked, Softmax};

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
    Generated { n: usize, seed: u64, exponent: i32 },
}

impl<T: Element> Input<T> {
    fn of(x: &[f64]) -> Self {
        Self::Full(x.iter().map(|&x| T::from_f64(x)).collect())
    }

    fn elements(&self) -> Vec<T> {
        match self {
            Self::Full(x) => x.clone(),
            &Self::Generated { n, seed, exponent } => {
                let digits = if T::NAME == "f64" { 53 } else { 24 };
                // The state after i steps is the seed and i times a constant: a counter.
                let mut random = Random(seed);
                let unit = 2f64.powi(exponent - digits + 1);
                let mut next = || (random.next() >> (64 - digits)) as i64 - (1 << (digits - 1));
                (0..n).map(|_| T::from_f64(next() as f64 * unit)).collect()
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
    fn options(self, kernel: &'static Kernel, masked: Masked) -> Softmax<'static> {
        let options = Softmax::new().kernel(kernel).masked(masked);
        match self {
            Self::Scale(scale) => options.scale(scale).expect("a valid scale"),
            Self::Temperature(t) => options.temperature(t).expect("a valid temperature"),
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
    for (i, (n, exponent, factor)) in long.into_iter().enumerate() {
        all.push((Input::Generated { n, seed: i as u64, exponent }, factors[factor]));
    }
    all
}

/// Softmax, log-softmax and log-sum-exp.
fn rows(file: &mut File, kernel: &'static Kernel) {
    fn of<T: Bits>(file: &mut File, kernel: &'static Kernel) {
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
    of::<f32>(file, kernel);
    of::<f64>(file, kernel);
    of::<f16>(file, kernel);
    of::<bf16>(file, kernel);
}

/// What makes the cases of a file, with a kernel.
type Make = fn(&mut File, &'static Kernel);

/// The files: names, what they are about, what makes them.
const FILES: &[(&str, &str, Make)] =
    &[("rows", "softmax, log_softmax and logsumexp of rows", rows)];

#[test]
fn the_vectors_are_what_every_kernel_gives() {
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
