//! Scales, which map values to places on an axis.

use std::ops::RangeInclusive;

/// Ticks are these times powers of ten.
const STEPS: [f64; 3] = [1.0, 2.0, 5.0];
/// Values that are drawn. Others are in no file that can be read, and would need more care than
/// they are worth.
const SANE: RangeInclusive<f64> = 1e-60..=1e60;

#[derive(Clone, Copy, Debug)]
enum Kind {
    Linear,
    /// Ticks at powers of ten, and 2 and 5 times these.
    Ten,
    /// Ticks at powers of two.
    Two,
}

/// A scale, whose ends are places for ticks.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    kind: Kind,
    low: f64,
    high: f64,
}

impl Scale {
    /// A linear scale with room for these values; those that are not sane are ignored.
    pub fn linear(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let (low, high) = range(values, |x| x.abs() <= *SANE.end())?;
        let width = if high > low { high - low } else { high.abs().max(1e-3) };
        let step = steps(width / 5.0).next()?;
        let low = (low / step + 1e-9).floor() * step;
        let high = ((high / step - 1e-9).ceil() * step).max(low + step);
        Some(Self { kind: Kind::Linear, low, high })
    }

    /// A scale by powers of ten with room for these values; only positive and sane ones count.
    pub fn ten(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let (low, high) = range(values, |x| SANE.contains(&x))?;
        let grid = || exponents(low, high).flat_map(|k| STEPS.map(|m| power(m, k)));
        let low = grid().take_while(|&x| x <= low * (1.0 + 1e-9)).last()?;
        let high = grid().find(|&x| x >= high * (1.0 - 1e-9) && x > low)?;
        Some(Self { kind: Kind::Ten, low, high })
    }

    /// A scale by powers of two.
    pub fn two(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let (low, high) = range(values, |x| SANE.contains(&x))?;
        let low = low.log2().floor().exp2();
        let high = high.log2().ceil().exp2().max(2.0 * low);
        Some(Self { kind: Kind::Two, low, high })
    }

    /// As [`Scale::linear`] from zero, or as [`Scale::ten`] if the values differ too much for that.
    pub fn from_zero(values: &[f64]) -> Option<Self> {
        let (low, high) = range(values.iter().copied(), |x| SANE.contains(&x))?;
        if high > 300.0 * low { Self::ten([low, high]) } else { Self::linear([0.0, low, high]) }
    }

    /// The ends.
    pub fn ends(&self) -> (f64, f64) {
        (self.low, self.high)
    }

    /// The place of a value: 0 at the lower end or below, 1 at the upper end or above.
    pub fn part(&self, x: f64) -> f64 {
        let Self { kind, low, high } = *self;
        let part = match kind {
            Kind::Linear => (x - low) / (high - low),
            Kind::Ten | Kind::Two => (x / low).ln() / (high / low).ln(),
        };
        part.clamp(0.0, 1.0)
    }

    /// As many ticks as fit.
    pub fn ticks(&self, fits: impl Fn(&[f64]) -> bool) -> Vec<f64> {
        let Self { low, high, .. } = *self;
        let inside = |x: &f64| (low * (1.0 - 1e-9)..=high * (1.0 + 1e-9)).contains(x);
        let thinned = |base: f64, stride: i32| -> Vec<f64> {
            let ends = (low.log(base).floor() as i32 - 1)..=(high.log(base).ceil() as i32 + 1);
            let powers = ends.filter(|k| k % stride == 0).map(|k| match base {
                10.0 => power(1.0, k),
                _ => f64::from(k).exp2(),
            });
            powers.filter(inside).collect()
        };
        let multiples = |step: f64| -> Vec<f64> {
            let ends = ((low / step).round() as i64)..=((high / step).round() as i64);
            let multiples = ends.map(|k| k as f64 * step);
            multiples.filter(|&x| low - step * 1e-6 <= x && x <= high + step * 1e-6).collect()
        };
        match self.kind {
            Kind::Linear => {
                steps((high - low) / 20.0).map(multiples).find(|t| fits(t)).unwrap_or_default()
            }
            Kind::Two => (1..).map(|s| thinned(2.0, s)).find(|t| fits(t)).unwrap_or_default(),
            Kind::Ten => {
                let all = exponents(low, high).flat_map(|k| STEPS.map(|m| power(m, k)));
                let all: Vec<_> = all.filter(inside).collect();
                let powers = (1..).map(|stride| thinned(10.0, stride));
                std::iter::once(all).chain(powers).find(|t| fits(t)).unwrap_or_default()
            }
        }
    }

    /// The label of a tick.
    pub fn tick(&self, x: f64) -> String {
        // Removes the rounding error of the product.
        let x: f64 = format!("{x:.9e}").parse().unwrap_or(x);
        match self.kind {
            Kind::Two if x >= (1 << 20) as f64 => format!("{}Mi", x / (1 << 20) as f64),
            Kind::Two if x >= 1024.0 => format!("{}Ki", x / 1024.0),
            Kind::Two if x < 1e-3 => format!("{x:.0e}"),
            Kind::Two if x < 1.0 => format!("1/{}", (1.0 / x).round()),
            _ if x != 0.0 && !(1e-3..1e5).contains(&x.abs()) => format!("{x:e}"),
            _ => x.to_string(),
        }
    }
}

fn range(values: impl IntoIterator<Item = f64>, good: impl Fn(f64) -> bool) -> Option<(f64, f64)> {
    let good = values.into_iter().filter(|&x| good(x));
    good.fold(None, |ends, x| match ends {
        None => Some((x, x)),
        Some((low, high)) => Some((x.min(low), x.max(high))),
    })
}

/// The exponents of the powers of ten around these values.
fn exponents(low: f64, high: f64) -> RangeInclusive<i32> {
    (low.log10().floor() as i32 - 1)..=(high.log10().ceil() as i32 + 1)
}

/// 1, 2 and 5 times powers of ten, from `least` on.
fn steps(least: f64) -> impl Iterator<Item = f64> {
    let first = least.log10().floor() as i32;
    let steps = (first..).flat_map(|k| STEPS.map(|m| power(m, k)));
    steps.skip_while(move |&step| step < least * (1.0 - 1e-9))
}

/// `m` times a power of ten, as exact as possible.
fn power(m: f64, exponent: i32) -> f64 {
    format!("{m}e{exponent}").parse().unwrap_or(f64::INFINITY)
}
