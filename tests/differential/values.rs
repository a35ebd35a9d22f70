//! Elements and options to both ends of their ranges.

use crate::common::{Bits, Options, Random};
use crate::place::Word;
use softmax::half::{bf16, f16};
use softmax::{Element, Masked};

/// An element type.
pub trait Number: Bits + Word + Element<Arithmetic: Word> {
    /// The largest finite number.
    const MAX: f64;
    /// The least normal number.
    const LEAST: f64;
}

impl Number for f32 {
    const MAX: f64 = f32::MAX as f64;
    const LEAST: f64 = f32::MIN_POSITIVE as f64;
}

impl Number for f64 {
    const MAX: f64 = f64::MAX;
    const LEAST: f64 = f64::MIN_POSITIVE;
}

impl Number for f16 {
    const MAX: f64 = 65504.0;
    const LEAST: f64 = 0.000_061_035_156_25;
}

impl Number for bf16 {
    const MAX: f64 = 3.389_531_389_251_535_5e38;
    const LEAST: f64 = f32::MIN_POSITIVE as f64;
}

/// Random draws of other kinds.
pub trait Draws {
    /// A number from `least` to `most`, all magnitudes equally likely.
    fn size(&mut self, least: usize, most: usize) -> usize;
    /// One of these values.
    fn one<T: Copy>(&mut self, of: &[T]) -> T;
    /// A number in [-1, 1).
    fn unit(&mut self) -> f64;
    /// A bell-shaped number, mostly within 2.
    fn normal(&mut self) -> f64;
    /// 2 to any power between these.
    fn power(&mut self, least: f64, most: f64) -> f64;
}

impl Draws for Random {
    fn size(&mut self, least: usize, most: usize) -> usize {
        let ratio = (most as f64 + 1.0) / least as f64;
        let size = least as f64 * ratio.powf((self.signed() + 1.0) / 2.0);
        (size as usize).clamp(least, most)
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    fn unit(&mut self) -> f64 {
        self.signed()
    }

    fn normal(&mut self) -> f64 {
        (0..4).map(|_| self.signed()).sum()
    }

    fn power(&mut self, least: f64, most: f64) -> f64 {
        (least + (most - least) * (self.signed() + 1.0) / 2.0).exp2()
    }
}

/// Distances from the largest element at which something changes in one of the types: what is
/// flushed, the ends of exponentials and tables, the subtraction of the maximum.
const EDGES: [f64; 17] = [
    0.693, 76.2, 80.0, 87.34, 88.03, 88.72, 90.0, 103.28, 600.0, 708.4, 709.78, 744.4, 745.13,
    22_713.0, 45_000.0, 45_426.09, 90_852.2,
];

/// Kinds of rows.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Normal,
    Far,
    Few,
    Mixed,
    Bits,
    Edges,
    Peaked,
    Largest,
    Least,
    Equal,
    Masked,
}

const KINDS: [Kind; 16] = [
    Kind::Normal,
    Kind::Normal,
    Kind::Normal,
    Kind::Normal,
    Kind::Far,
    Kind::Far,
    Kind::Few,
    Kind::Mixed,
    Kind::Bits,
    Kind::Edges,
    Kind::Edges,
    Kind::Peaked,
    Kind::Largest,
    Kind::Least,
    Kind::Equal,
    Kind::Masked,
];

/// Special values and bit patterns of the type, NaN with payloads among them.
pub fn special<T: Number>(r: &mut Random) -> T {
    let sign = r.one(&[-1.0, 1.0]);
    match r.below(12) {
        0 | 1 => T::NEG_INFINITY,
        2 => T::INFINITY,
        3 => T::NAN,
        // NaN: signalling, or negative, with payloads.
        4 => T::of_word(T::INFINITY.word() + 1 + r.next() % 3),
        5 => T::of_word(T::NEG_INFINITY.word() + 1 + r.next() % 3),
        6 => T::from_f64(sign * T::MAX),
        7 => T::from_f64(sign * T::LEAST),
        // Subnormal.
        8 => T::from_f64(sign * T::LEAST * 0.4),
        9 => T::of_word(1),
        10 => T::from_f64(sign * 0.0),
        _ => T::of_word(r.next()),
    }
}

/// Rows of logits, plausible or not after the multiplication with the scale. Neighbouring rows are
/// alike, or not at all.
pub fn logits<T: Number>(r: &mut Random, rows: usize, cols: usize, scale: f64) -> Vec<Vec<T>> {
    // One special row can change how a whole group is computed, so most calls have none.
    let (alike, changes, specials) = (!r.once_in(3), r.once_in(2), r.once_in(3));
    let scale = if scale > 0.0 && scale.is_finite() && !r.once_in(6) { scale } else { 1.0 };
    let mut like = (r.one(&KINDS), r.power(-3.0, 7.0), r.normal() * r.power(0.0, 17.0));
    (0..rows)
        .map(|_| {
            // A row unlike those before, from which it will be guessed.
            if !alike || (changes && r.once_in(12)) {
                like = (r.one(&KINDS), r.power(-3.0, 7.0), r.normal() * r.power(0.0, 17.0));
            }
            let mut row = one_row(r, like, cols, scale);
            if specials && r.once_in(4) && cols > 0 {
                for _ in 0..r.size(1, 4) {
                    row[r.below(cols)] = special(r);
                }
            }
            row
        })
        .collect()
}

fn one_row<T: Number>(
    r: &mut Random,
    (kind, spread, center): (Kind, f64, f64),
    cols: usize,
    scale: f64,
) -> Vec<T> {
    let peak = r.below(cols.max(1));
    let few = [r.normal() * spread, r.normal() * spread, r.normal() * spread];
    let edge = r.one(&EDGES) * r.one(&[1.0, 1.0, -1.0]);
    let largest = T::MAX * r.power(-3.0, 0.0);
    let element = |r: &mut Random, i: usize| {
        let z = match kind {
            Kind::Normal => r.normal() * spread,
            Kind::Far => center + r.normal() * spread,
            Kind::Few => few[r.below(3)],
            Kind::Mixed => r.unit() * r.power(-40.0, 40.0),
            Kind::Bits => return T::of_word(r.next()),
            Kind::Edges => match r.below(3) {
                0 => r.normal() * 0.01,
                1 => r.normal() * spread.min(2.0) - edge,
                _ => -edge + r.unit() * 0.02,
            },
            Kind::Peaked if i == peak => 0.0,
            Kind::Peaked => -spread * 3.0 + r.unit(),
            Kind::Largest => return T::from_f64(largest * r.one(&[1.0, -1.0, 0.5, 1.0 - 1e-3])),
            Kind::Least => return T::from_f64(r.unit() * T::LEAST * 2.0),
            Kind::Equal => few[0],
            Kind::Masked if r.once_in(40) => r.normal() * spread,
            Kind::Masked => f64::NEG_INFINITY,
        };
        T::from_f64(z / scale)
    };
    (0..cols).map(|i| element(r, i)).collect()
}

/// A weight or a factor: mostly plausible, sometimes anything.
pub fn factor(r: &mut Random) -> f64 {
    let sign = if r.once_in(4) { -1.0 } else { 1.0 };
    match r.below(16) {
        0 | 1 => sign * r.power(-60.0, 60.0),
        2 => sign * r.power(0.0, 30.0),
        3 => sign * r.power(-1074.0, 1023.0),
        4 => special::<f64>(r),
        5 => sign,
        _ => sign * (r.unit() + 1.0),
    }
}

/// Scale or temperature.
#[derive(Clone, Copy, Debug)]
pub enum Heat {
    None,
    Scale(f64),
    Temperature(f64),
}

impl Heat {
    /// Any scale or temperature; sometimes 0 or infinity.
    pub fn any(r: &mut Random) -> Self {
        match r.below(16) {
            0..7 => Self::None,
            7 | 8 => Self::Scale(1.0 / (r.size(1, 512) as f64).sqrt()),
            9 | 10 => Self::Scale(r.power(-60.0, 60.0)),
            11 => Self::Temperature(r.power(-110.0, 110.0)),
            12 => Self::Temperature(r.power(-60.0, 60.0)),
            13 => Self::Temperature(r.one(&[0.7, 0.0, f64::INFINITY, 5e-324, 1e-300, f64::MAX])),
            _ => Self::Temperature(r.power(-4.0, 4.0)),
        }
    }

    /// The approximate factor of logits.
    pub fn scale(self) -> f64 {
        match self {
            Self::None => 1.0,
            Self::Scale(scale) => scale,
            Self::Temperature(t) => 1.0 / t.clamp(2f64.powi(-100), 2f64.powi(100)),
        }
    }

    pub fn is_limit(self) -> bool {
        matches!(self, Self::Temperature(0.0 | f64::INFINITY))
    }

    pub fn of(self, options: Options<'_>) -> Options<'_> {
        match self {
            Self::None => options,
            Self::Scale(scale) => options.scale(scale),
            Self::Temperature(temperature) => options.temperature(temperature),
        }
    }
}

pub fn masked(r: &mut Random) -> Masked {
    if r.once_in(3) { Masked::Zero } else { Masked::Nan }
}
