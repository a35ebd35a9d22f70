//! The search: inputs, starts, changes, and the climb.

use std::time::{Duration, Instant};

use crate::common::{Bits, Options, Random};
use softmax::half::{bf16, f16};
use softmax::{Element, Threads};
use softmax_measure::oracle::{BF16, Dd, F16, F32, F64, Format};

/// The numbers of a column: those of a type, or none.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Unused,
    F32,
    F64,
    F16,
    Bf16,
}

impl Kind {
    /// The nearest number of the type.
    pub fn round(self, x: f64) -> f64 {
        match self {
            Self::Unused => 0.0,
            Self::F32 => f64::from(x as f32),
            Self::F64 => x,
            Self::F16 => f16::from_f64(x).to_f64(),
            Self::Bf16 => <bf16 as Element>::from_f64(x).to_f64(),
        }
    }

    /// The number of the type that is `by` steps farther from 0, or nearer.
    fn step(self, x: f64, by: i64) -> f64 {
        let stepped = match self {
            Self::Unused => x,
            Self::F32 => f64::from(f32::from_bits(((x as f32).to_bits() as i64 + by) as u32)),
            Self::F64 => f64::from_bits(x.to_bits().wrapping_add(by as u64)),
            Self::F16 => f16::from_bits((f16::from_f64(x).to_bits() as i64 + by) as u16).to_f64(),
            Self::Bf16 => {
                let bits = <bf16 as Element>::from_f64(x).to_bits();
                bf16::from_bits((bits as i64 + by) as u16).to_f64()
            }
        };
        if stepped.is_finite() { stepped } else { x }
    }

    fn show(self, x: f64) -> String {
        match self {
            Self::Unused => String::new(),
            Self::F32 => format!("{x:?} {:#010x}", (x as f32).to_bits()),
            Self::F64 => format!("{x:?} {:#018x}", x.to_bits()),
            Self::F16 => format!("{x:?} {:#06x}", f16::from_f64(x).to_bits()),
            Self::Bf16 => format!("{x:?} {:#06x}", <bf16 as Element>::from_f64(x).to_bits()),
        }
    }
}

/// An element type and the range of its results.
pub trait Type: Bits + Element<Arithmetic: Bits> {
    const KIND: Kind;
    const FORMAT: Format;
    /// The format of log-probabilities.
    const WIDE: Format;
    /// The largest number.
    const MAX: f64;
    /// Probabilities below 2 to this of the row's largest may be flushed.
    const FLUSHED: i32;
    /// The value for f32, for f64, or for f16 and bf16.
    fn by_type<V>(f32: V, f64: V, half: V) -> V {
        match Self::KIND {
            Kind::F32 => f32,
            Kind::F64 => f64,
            _ => half,
        }
    }
}

macro_rules! types {
    ($($t:ty: $kind:ident, $format:expr, $wide:expr, $max:expr, $flushed:expr;)*) => {
        $(impl Type for $t {
            const KIND: Kind = Kind::$kind;
            const FORMAT: Format = $format;
            const WIDE: Format = $wide;
            const MAX: f64 = $max;
            const FLUSHED: i32 = $flushed;
        })*
    };
}

types! {
    f32: F32, F32, F32, f32::MAX as f64, -126;
    f64: F64, F64, F64, f64::MAX, -1022;
    f16: F16, F16, F32, 65504.0, -126;
    bf16: Bf16, BF16, F32, 3.389_531_389_251_535_5e38, -126;
}

/// The scale or the temperature.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Heat {
    Scale(f64),
    Temperature(f64),
}

impl Heat {
    /// The factor.
    pub fn exact(self) -> Dd {
        match self {
            Self::Scale(a) => Dd(a, 0.0),
            Self::Temperature(t) => Dd(1.0, 0.0).div(Dd(t, 0.0)),
        }
    }

    pub fn options(self) -> Options<'static> {
        let options = Options::new().threads(Threads::Serial);
        match self {
            Self::Scale(a) => options.scale(a),
            Self::Temperature(t) => options.temperature(t),
        }
    }

    /// Mostly scale 1, else anything up to both ends of the range.
    fn any(r: &mut Random) -> Self {
        let mut power = |most: f64| (r.signed() * most).exp2();
        let (mild, wild, colder) = (power(4.0), power(59.9), power(99.0));
        match r.below(10) {
            0..4 => Self::Scale(1.0),
            4 => Self::Scale(mild),
            5 => Self::Scale(wild),
            6 => Self::Temperature(colder),
            7 => Self::Temperature(r.below(100) as f64 / 10.0 + 0.1),
            _ => Self::Temperature(mild),
        }
    }

    fn value(&mut self) -> &mut f64 {
        match self {
            Self::Scale(value) | Self::Temperature(value) => value,
        }
    }

    fn is_allowed(self) -> bool {
        match self {
            Self::Scale(a) => a.abs().log2().abs() <= 60.0 && a > 0.0,
            Self::Temperature(t) => t.abs().log2().abs() <= 100.0 && t > 0.0,
        }
    }
}

/// Number of numeric options; a function uses those that it has.
pub const NUMBERS: usize = 4;

/// An input: columns of up to three values each, some of them many times, and options.
#[derive(Clone, Debug)]
pub struct Input {
    /// Values and copies.
    pub columns: Vec<([f64; 3], usize)>,
    pub heat: Heat,
    /// The column of the label, in its first copy.
    pub label: usize,
    /// Options as bits.
    pub flags: u32,
    pub numbers: [f64; NUMBERS],
    /// The offset of positions.
    pub offset: isize,
}

impl Input {
    /// All columns one after another, with the `k`th value of each.
    pub fn expand<T: Element>(&self, k: usize) -> Vec<T> {
        let copies = |&(v, n): &([f64; 3], usize)| std::iter::repeat_n(T::from_f64(v[k]), n);
        self.columns.iter().flat_map(copies).collect()
    }

    /// Index of the first copy of each column.
    pub fn firsts(&self) -> Vec<usize> {
        let mut at = 0;
        let mut first = |&(_, n): &([f64; 3], usize)| {
            at += n;
            at - n
        };
        self.columns.iter().map(&mut first).collect()
    }

    pub fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    fn show(&self, kinds: [Kind; 3]) -> String {
        let column = |(v, n): &([f64; 3], usize)| {
            let values: Vec<_> = v
                .iter()
                .zip(kinds)
                .map(|(&v, kind)| kind.show(v))
                .filter(|s| !s.is_empty())
                .collect();
            format!("{n} x ({})", values.join("; "))
        };
        let columns: Vec<_> = self.columns.iter().map(column).collect();
        let numbers = self.numbers.map(|v| format!("{v:?} {:#x}", v.to_bits()));
        format!(
            "[{}], {:?} (bits {:#x}), label {}, flags {:#b}, numbers {numbers:?}, offset {}",
            columns.join(", "),
            self.heat,
            self.heat.clone().value().to_bits(),
            self.label,
            self.flags,
            self.offset
        )
    }
}

/// The worst error of an input, relative to its bound.
#[derive(Clone, Debug, Default)]
pub struct Worst {
    pub ratio: f64,
    /// Its index, the result, and the exact value.
    at: (usize, f64, f64, f64),
}

impl Worst {
    /// Includes the error of a result.
    pub fn add(&mut self, ratio: f64, at: usize, got: f64, want: Dd) {
        let ratio = if ratio.is_nan() { f64::INFINITY } else { ratio };
        if ratio > self.ratio {
            self.ratio = ratio;
            self.at = (at, got, want.0, want.1);
        }
    }
}

/// A function with a bound.
pub trait Function<T: Type> {
    const NAME: &'static str;
    /// The bound in words.
    fn bound() -> String;
    /// The types of a column's values.
    const KINDS: [Kind; 3];
    const MOST_COPIES: usize = 3000;
    /// The options that it has, as bits.
    const FLAGS: u32 = 0;
    const HAS_HEAT: bool = true;

    /// Changes random logits, or random numbers, into a start.
    fn start(_input: &mut Input, _r: &mut Random) {}

    /// Whether the function accepts the input.
    fn takes(_input: &Input) -> bool {
        true
    }

    fn measure(input: &Input) -> Worst;
}

/// An entry of the table.
pub struct Entry {
    pub name: &'static str,
    pub dtype: &'static str,
    pub bound: String,
    pub search: fn(u64, Duration) -> Found,
}

impl Entry {
    pub fn new<F: Function<T>, T: Type>() -> Self {
        Self { name: F::NAME, dtype: T::NAME, bound: F::bound(), search: search::<F, T> }
    }
}

/// The result of a search.
pub struct Found {
    pub ratio: f64,
    pub tries: usize,
    pub what: String,
}

fn search<F: Function<T>, T: Type>(first: u64, time: Duration) -> Found {
    let mut random = Random(first);
    let r = &mut random;
    let start = Instant::now();
    let (mut best, mut worst, mut tries) = (None::<Input>, Worst::default(), 0);
    let measure = |input: &Input| {
        let is_finite = input.columns.iter().all(|(v, _)| v.iter().all(|v| v.is_finite()));
        let takes = || input.heat.is_allowed() && !input.columns.is_empty() && F::takes(input);
        if is_finite && takes() { F::measure(input) } else { Worst::default() }
    };
    // Some tries at least, however busy the machine is.
    let is_over = |tries| tries >= 20 && start.elapsed() >= time;
    while !is_over(tries) {
        // Sometimes starts from the best.
        let mut here = match &best {
            Some(best) if r.below(4) == 0 => best.clone(),
            _ => {
                let mut input = any::<F, T>(r);
                F::start(&mut input, r);
                input
            }
        };
        let mut height = measure(&here);
        let patience = if height.ratio > 0.5 { 600 } else { 60 };
        let mut failed = 0;
        while failed < patience && !is_over(tries) {
            let mut next = here.clone();
            for _ in 0..1 + r.below(3) {
                change::<F, T>(&mut next, r);
            }
            let found = measure(&next);
            tries += 1;
            failed += 1;
            if found.ratio > height.ratio {
                failed = 0;
            }
            // As good: goes on from there.
            if found.ratio >= height.ratio {
                (here, height) = (next, found);
            }
            if height.ratio.is_infinite() {
                break;
            }
        }
        if height.ratio > worst.ratio {
            (best, worst) = (Some(here), height);
        }
    }
    let (at, got, want, rest) = worst.at;
    let what = match &best {
        None => String::new(),
        Some(best) => format!(
            "result {at} is {got:?} ({:#x}), exactly {want:?} + {rest:?}\n    of {}",
            got.to_bits(),
            best.show(F::KINDS)
        ),
    };
    Found { ratio: worst.ratio, tries, what }
}

/// Distances from the largest logit at which something changes.
const EDGES: [f64; 12] =
    [0.693, 20.8, 36.0, 87.34, 87.4, 88.72, 103.28, 708.4, 709.78, 744.4, 22_713.0, 45_400.0];

/// The arguments of f32 whose exponentials err most at scale 1, up and down: see
/// tests/library/accuracy.rs.
const EXTREMES: [f64; 4] = [-6.281352, -6.2922735, 18.67465, 2.0298994];

/// Random logits, and random numbers for the rest.
fn any<F: Function<T>, T: Type>(r: &mut Random) -> Input {
    let mut heat = if F::HAS_HEAT { Heat::any(r) } else { Heat::Scale(1.0) };
    let n = [1, 2, 2, 2, 3, 3, 4, 5, 8][r.below(9)];
    let kind = r.below(8);
    if kind == 7 {
        heat = Heat::Scale(1.0);
    }
    let scale = heat.exact().0;
    let spread = (r.signed() * 5.0).exp2();
    let center = if r.below(2) == 0 { 0.0 } else { r.signed() * 10.0 * spread };
    let edge = EDGES[r.below(EDGES.len())];
    let mut least = f64::from(T::FORMAT.min_exp) * std::f64::consts::LN_2;
    let columns = (0..n)
        .map(|i| {
            let z = match kind {
                0 => center + r.signed() * spread,
                1 => r.signed() * 4.0,
                // Two values.
                2 => center + if i % 2 == 0 { 0.0 } else { -spread },
                3 if i == 0 => center,
                3 => center - edge + r.signed() * 0.5,
                4 if i == 0 => 0.0,
                4 => -r.signed().abs() * 40.0,
                5 if i == 0 => 0.0,
                // Results around the least normal number.
                5 => least + r.signed(),
                7 => EXTREMES[r.below(EXTREMES.len())],
                _ => r.signed() * 0.01,
            };
            let copies = match r.below(5) {
                // All sizes are equally likely.
                0 => (F::MOST_COPIES as f64).powf(r.signed().abs()) as usize,
                1 => 1 + r.below(40).min(F::MOST_COPIES - 1),
                _ => 1,
            };
            if i == 0 {
                least += (copies as f64).ln();
            }
            let mut values = [z / scale, r.signed() * spread, r.signed()];
            values.iter_mut().zip(F::KINDS).for_each(|(v, kind)| *v = kind.round(*v));
            values[0] = values[0].clamp(-T::MAX, T::MAX);
            (values, copies)
        })
        .collect();
    let numbers = [(); NUMBERS].map(|()| r.signed().abs() * (r.signed() * 6.0).exp2());
    let flags = r.next() as u32 & F::FLAGS;
    let offset = (r.next() >> (40 + r.below(20))) as isize;
    Input { columns, heat, label: r.below(n), flags, numbers, offset }
}

/// A small change.
fn change<F: Function<T>, T: Type>(input: &mut Input, r: &mut Random) {
    let n = input.columns.len();
    let at = r.below(n);
    let step = |r: &mut Random| {
        let reach = 1i64 << r.below(14);
        (r.next() % (2 * reach as u64 + 1)) as i64 - reach
    };
    let used: Vec<usize> = (0..3).filter(|&k| F::KINDS[k] != Kind::Unused).collect();
    let k = used[r.below(used.len())];
    match r.below(16) {
        0..7 => {
            let v = &mut input.columns[at].0[k];
            *v = F::KINDS[k].step(*v, step(r));
        }
        7 => {
            let v = &mut input.columns[at].0[k];
            *v = F::KINDS[k].round(*v * (1.0 + r.signed() * 0.2) + r.signed() * 1e-3);
        }
        8 | 9 => {
            let copies = &mut input.columns[at].1;
            let next = match r.below(4) {
                0 => *copies * 2,
                1 => *copies / 2,
                2 => *copies + 1,
                _ => copies.saturating_sub(1),
            };
            *copies = next.clamp(1, F::MOST_COPIES);
        }
        10 if n < 10 => {
            let column = input.columns[at];
            input.columns.insert(r.below(n + 1), column);
        }
        11 if n > 1 => {
            input.columns.remove(at);
            input.label = input.label.min(n - 2);
        }
        12 if F::HAS_HEAT => {
            let value = input.heat.value();
            *value = match r.below(3) {
                0 => *value * (1.0 + r.signed() * 0.1),
                _ => Kind::F64.step(*value, step(r)),
            };
        }
        13 => {
            let value = &mut input.numbers[r.below(NUMBERS)];
            *value = match r.below(2) {
                0 => (*value * (1.0 + r.signed() * 0.3)).abs(),
                _ => Kind::F64.step(*value, step(r)).abs(),
            };
        }
        14 => input.label = at,
        _ if F::FLAGS != 0 && r.below(4) == 0 => {
            input.flags ^= 1 << r.below(32) & F::FLAGS;
        }
        _ => {
            let v = &mut input.columns[at].0[k];
            *v = F::KINDS[k].step(*v, [1, -1][r.below(2)]);
        }
    }
}
