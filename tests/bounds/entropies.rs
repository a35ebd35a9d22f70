//! Entropies, divergences of two rows, their gradients, and the reciprocals of tiles.

use crate::functions::{
    ONE, Row, deep, error, is_moderate, map, one_row, one_row_mut, relative_error, times, ulp,
};
use crate::search::{Entry, Function, Input, Kind, Type, Worst};
use softmax::half::{bf16, f16};
use softmax::{MatrixMut, OnlineRow};
use softmax_measure::oracle::{Dd, Scaled, ldexp};

pub fn table() -> Vec<Entry> {
    let mut table = vec![Entry::new::<Reciprocal, f32>()];
    macro_rules! entries {
        ($($function:ident),*) => {
            $(table.extend([
                Entry::new::<$function, f32>(),
                Entry::new::<$function, f64>(),
                Entry::new::<$function, f16>(),
                Entry::new::<$function, bf16>(),
            ]);)*
        };
    }
    entries!(Entropy, EntropyGradient, OfTwoRows, OfTwoRowsByX, OfTwoRowsByY);
    table
}

fn scaled(x: f64) -> Scaled {
    Scaled::of(Dd(x, 0.0))
}

fn minus(x: Scaled) -> Scaled {
    Scaled(x.0.neg(), x.1)
}

/// The entropy, of which no term is negative.
fn entropy(row: &Row) -> Scaled {
    let term = |i: usize| row.p(i).mul(row.information(i)).mul(scaled(row.copies[i]));
    (0..row.e.len()).map(term).fold(Scaled::ZERO, Scaled::add)
}

/// The most that elements add to an entropy that may count 0.
fn uncounted<T: Type>(row: &Row) -> f64 {
    let some = (0..row.e.len()).filter(|&i| row.is_flushed::<T>(i));
    some.map(|i| row.copies[i]).sum::<f64>() * ldexp(1.0, T::by_type(-119, -1012, -119))
}

/// The entropy of rows.
struct Entropy;

impl<T: Type> Function<T> for Entropy {
    const NAME: &'static str = "entropy";
    const KINDS: [Kind; 3] = [T::KIND, Kind::Unused, Kind::Unused];

    fn bound() -> String {
        T::by_type("3 ULP", "5 ULP", "0.51 ULP").into()
    }

    fn takes(input: &Input) -> bool {
        is_moderate(input)
    }

    fn measure(input: &Input) -> Worst {
        let (row, mut worst) = (Row::of(input), Worst::default());
        let (x, mut got) = (input.expand::<T>(0), [T::NAN]);
        input.heat.options().softmax().entropy(one_row(&x), &mut got).expect("a valid call");
        let (got, want, ulps) = (got[0].to_f64(), entropy(&row), T::by_type(3.0, 5.0, 0.51));
        let uncounted = uncounted::<T>(&row);
        let ratio = if uncounted == 0.0 {
            error(got, want, T::FORMAT, T::MAX) / ulps
        } else {
            let allowed = ulps * ulp(want.to_dd().0, T::FORMAT);
            relative_error(got, want, allowed, uncounted)
        };
        worst.add(ratio, 0, got, want.to_dd());
        worst
    }
}

/// The upstream gradient of an input's row, in the type.
fn upstream<T: Type>(input: &Input) -> T {
    T::from_f64(input.numbers[0])
}

/// The gradient of the entropy.
struct EntropyGradient;

impl<T: Type> Function<T> for EntropyGradient {
    const NAME: &'static str = "gradient of the entropy";
    const KINDS: [Kind; 3] = [T::KIND, Kind::Unused, Kind::Unused];

    fn bound() -> String {
        T::by_type("6 ULP", "14 ULP", "0.51 ULP").to_string() + " of the largest part"
    }

    fn takes(input: &Input) -> bool {
        is_moderate(input)
    }

    fn measure(input: &Input) -> Worst {
        let (row, mut worst) = (Row::of(input), Worst::default());
        let up = [upstream::<T>(input)];
        let got = map::<T>(input, |options, x, y| options.softmax().entropy_backward(x, &up, y));
        let below = |i: usize| minus(Scaled::of(row.below[i]));
        let parts = (0..row.e.len()).map(|i| row.p(i).mul(below(i)).mul(scaled(row.copies[i])));
        let mean = parts.fold(Scaled::ZERO, Scaled::add);
        let uncounted = uncounted::<T>(&row);
        for (i, got) in got.into_iter().enumerate() {
            let a = row.p(i).mul(Scaled::of(input.heat.exact())).mul(scaled(up[0].to_f64()));
            // ln(p_j) + H, without what cancels.
            let want = below(i).add(minus(mean)).mul(a);
            let size = [want, below(i).mul(a), mean.mul(a)].map(|part| part.to_dd().0.abs());
            let size = size.into_iter().fold(got.abs(), f64::max);
            if size > T::MAX * 0.99 {
                continue;
            }
            let excused = if row.is_flushed::<T>(i) { want.to_dd().0.abs() } else { 0.0 };
            let excused = excused + a.to_dd().0 * uncounted;
            let bound = T::by_type(6.0, 14.0, 0.51) + deep::<T>(size);
            let tiny = ldexp(T::by_type(0.0, 1.0, 0.0) * input.heat.exact().0, -1040);
            let allowed = bound * ulp(size, T::FORMAT) + tiny * a.to_dd().0.abs();
            worst.add(relative_error(got, want, allowed, excused), i, got, want.to_dd());
        }
        worst
    }
}

/// Two rows: the first and the second values of the columns.
struct TwoRows {
    x: Row,
    y: Row,
    /// `ln(p_j / q_j)`
    d: Vec<Dd>,
}

impl TwoRows {
    fn new(input: &Input) -> Self {
        let (x, y) = (Row::of(input), Row::nth(input, 1));
        let (ln_x, ln_y) = (x.sum.ln(), y.sum.ln());
        let d = x.below.iter().zip(&y.below).map(|(&x, &y)| x.sub(y).add(ln_y.sub(ln_x)));
        Self { d: d.collect(), x, y }
    }

    /// The divergence, of whose terms `p (exp(-d) - 1 + d)` none is negative.
    fn divergence(&self) -> Scaled {
        let term = |i: usize| {
            let (d, p) = (self.d[i], self.x.p(i));
            let term = if d.0.abs() > 0.001 {
                self.y.p(i).add(minus(p)).add(p.mul(Scaled::of(d)))
            } else {
                // (-d)^2 / 2 + (-d)^3 / 6 + ...
                let series = (2..16)
                    .rev()
                    .fold(Dd(0.0, 0.0), |sum, k| ONE.sub(d.mul(sum)).div(Dd(f64::from(k), 0.0)));
                p.mul(Scaled::of(d.mul(d).mul(series)))
            };
            term.mul(scaled(self.x.copies[i]))
        };
        (0..self.d.len()).map(term).fold(Scaled::ZERO, Scaled::add)
    }
}

/// Starts with a second row that is like the first, in one of two.
fn start_alike<T: Type>(input: &mut Input, r: &mut crate::common::Random) {
    let near = r.below(2) == 0;
    let by = (r.signed() * 20.0 - 10.0).exp2();
    for (v, _) in &mut input.columns {
        if near {
            v[1] = v[0] * (1.0 + r.signed() * by);
        }
        v[1] = T::KIND.round(v[1].clamp(-T::MAX, T::MAX));
    }
}

fn takes_two(input: &Input) -> bool {
    let is_moderate = |row: &Row| row.below.iter().all(|d| d.0.abs() < 1e30);
    is_moderate(&Row::of(input)) && is_moderate(&Row::nth(input, 1))
}

/// The divergence of two rows.
struct OfTwoRows;

impl<T: Type> Function<T> for OfTwoRows {
    const NAME: &'static str = "divergence of two rows";
    const KINDS: [Kind; 3] = [T::KIND, T::KIND, Kind::Unused];

    fn bound() -> String {
        T::by_type("0.51 ULP and 1e-24", "8 ULP and 1e-31", "0.51 ULP and 1e-24").into()
    }

    fn start(input: &mut Input, r: &mut crate::common::Random) {
        start_alike::<T>(input, r);
    }

    fn takes(input: &Input) -> bool {
        takes_two(input)
    }

    fn measure(input: &Input) -> Worst {
        let (rows, mut worst) = (TwoRows::new(input), Worst::default());
        let (x, y, mut got) = (input.expand::<T>(0), input.expand::<T>(1), [T::NAN]);
        let softmax = input.heat.options().softmax();
        softmax.kl_divergence(one_row(&x), one_row(&y), &mut got).expect("a valid call");
        let (got, want) = (got[0].to_f64(), rows.divergence());
        let size = want.to_dd().0;
        if size < T::MAX * 0.99 {
            let (ulps, absolute) = T::by_type((0.51, 1e-24), (8.0, 1e-31), (0.51, 1e-24));
            let ratio = relative_error(got, want, ulps * ulp(size, T::FORMAT) + absolute, 0.0);
            worst.add(ratio, 0, got, want.to_dd());
        }
        worst
    }
}

/// A gradient of the divergence, by the first row or by the second.
fn measure_gradient<T: Type>(input: &Input, by_x: bool) -> Worst {
    let (rows, mut worst) = (TwoRows::new(input), Worst::default());
    let (x, y, up) = (input.expand::<T>(0), input.expand::<T>(1), [upstream::<T>(input)]);
    let (mut of_x, mut of_y) = (vec![T::NAN; x.len()], vec![T::NAN; x.len()]);
    let done = input.heat.options().softmax().kl_divergence_backward(
        one_row(&x),
        one_row(&y),
        &up,
        Some(one_row_mut(&mut of_x)),
        Some(one_row_mut(&mut of_y)),
    );
    done.expect("a valid call");
    let (gradient, kl) = (if by_x { of_x } else { of_y }, rows.divergence());
    for (i, at) in input.firsts().into_iter().enumerate() {
        let factor = Scaled::of(input.heat.exact()).mul(scaled(up[0].to_f64()));
        let (p, d) = (rows.x.p(i), Scaled::of(rows.d[i]));
        let a = p.mul(factor);
        let (want, parts) = if by_x {
            (d.add(minus(kl)).mul(a), [d.mul(a), kl.mul(a)])
        } else {
            let want = if rows.d[i].0.abs() > 0.001 {
                rows.y.p(i).add(minus(p)).mul(factor)
            } else {
                Scaled::of(rows.d[i].neg().exp_m1()).mul(a)
            };
            (want, [Scaled::ZERO; 2])
        };
        let got = gradient[at].to_f64();
        let sizes = [want, parts[0], parts[1]].map(|part| part.to_dd().0.abs());
        let size = sizes.into_iter().fold(0.0, f64::max);
        if size < T::MAX * 0.99 {
            let (ulps, absolute) = match by_x {
                true => T::by_type((0.51, 1e-12), (12.0, 1e-15), (0.51, 1e-12)),
                false => T::by_type((0.51, 1e-12), (8.0, 1e-15), (0.51, 1e-12)),
            };
            let allowed = (ulps + deep::<T>(size)) * ulp(size, T::FORMAT);
            let allowed = allowed + absolute * a.to_dd().0.abs();
            // Exponentials that count as 0.
            let is_none = |row: &Row| row.e[i].exponent() < f64::FLUSHED;
            let of_p = if by_x { want } else { a };
            let of_q = if by_x { Scaled::ZERO } else { rows.y.p(i).mul(factor) };
            let none = |row: &Row, of: Scaled| if is_none(row) { of.to_dd().0.abs() } else { 0.0 };
            let excused = none(&rows.x, of_p) + none(&rows.y, of_q);
            worst.add(relative_error(got, want, allowed, excused), i, got, want.to_dd());
        }
    }
    worst
}

macro_rules! gradients_of_two_rows {
    ($($function:ident, $name:literal, $f64:literal, $by_x:literal;)*) => {
        $(
            #[doc = $name]
            struct $function;

            impl<T: Type> Function<T> for $function {
                const NAME: &'static str = $name;
                const KINDS: [Kind; 3] = [T::KIND, T::KIND, Kind::Unused];

                fn bound() -> String {
                    T::by_type("0.51 ULP", $f64, "0.51 ULP").to_string() + " of the largest part"
                }

                fn start(input: &mut Input, r: &mut crate::common::Random) {
                    start_alike::<T>(input, r);
                }

                fn takes(input: &Input) -> bool {
                    takes_two(input)
                }

                fn measure(input: &Input) -> Worst {
                    measure_gradient::<T>(input, $by_x)
                }
            }
        )*
    };
}

gradients_of_two_rows! {
    OfTwoRowsByX, "gradient of the divergence by the first row", "12 ULP", true;
    OfTwoRowsByY, "gradient of the divergence by the second row", "8 ULP", false;
}

/// The reciprocals of attention by tiles.
struct Reciprocal;

impl Function<f32> for Reciprocal {
    const NAME: &'static str = "reciprocal of tiles";
    const KINDS: [Kind; 3] = [Kind::F32, Kind::Unused, Kind::Unused];

    fn bound() -> String {
        "0.51 ULP of that of the weights' sum".into()
    }

    fn measure(input: &Input) -> Worst {
        let mut worst = Worst::default();
        let mut x = input.expand::<f32>(0);
        let online = input.heat.options().attention(1, 1).online(1, x.len());
        let (mut state, mut sum) = ([OnlineRow::NEW], Dd(0.0, 0.0));
        let width = 1 + input.offset as usize % x.len();
        for (i, tile) in x.chunks_mut(width).enumerate() {
            let (n, mut factor) = (tile.len(), [f32::NAN]);
            let tile_view = MatrixMut::new(tile, n).expect("one row");
            let done = online.tile_in_place((0, i * width), tile_view, &mut state, &mut factor);
            done.expect("a valid call");
            sum = times(sum, Dd(factor[0].into(), 0.0));
            sum = tile.iter().fold(sum, |sum, &w| sum.add(Dd(w.into(), 0.0)));
        }
        let mut got = [f32::NAN];
        online.finish(0, &state, &mut got, None).expect("a valid call");
        let want = ONE.div(sum);
        let ratio = error(got[0].into(), Scaled::of(want), f32::FORMAT, f32::MAX.into()) / 0.51;
        worst.add(ratio, 0, got[0].into(), want);
        worst
    }
}
