//! The accuracy oracle: softmax in double-double arithmetic (about 100 bits), and errors in ULP.
//!
//! It subtracts the maximum and knows nothing of the exact shift.

/// A number as the unevaluated sum of two f64.
#[derive(Clone, Copy, Debug)]
pub struct Dd(pub f64, pub f64);

const LN_2: Dd = Dd(std::f64::consts::LN_2, 2.319_046_813_846_299_6e-17);

// As methods, chains of them read in their order.
#[allow(clippy::should_implement_trait)]
impl Dd {
    /// `a + b`, exactly (Knuth).
    pub fn sum(a: f64, b: f64) -> Dd {
        let s = a + b;
        let t = s - a;
        Dd(s, (a - (s - t)) + (b - t))
    }

    /// The sum.
    pub fn add(self, b: Dd) -> Dd {
        let s = Dd::sum(self.0, b.0);
        Dd::sum(s.0, s.1 + (self.1 + b.1))
    }

    /// The product.
    pub fn mul(self, b: Dd) -> Dd {
        let p = self.0 * b.0;
        let e = self.0.mul_add(b.0, -p);
        Dd::sum(p, e + (self.0 * b.1 + self.1 * b.0))
    }

    /// Times a power of two.
    pub fn scaled(self, power_of_two: f64) -> Dd {
        Dd(self.0 * power_of_two, self.1 * power_of_two)
    }

    /// The quotient.
    pub fn div(self, b: Dd) -> Dd {
        let q = self.0 / b.0;
        let r = self.add(b.mul(Dd(-q, 0.0)));
        Dd::sum(q, r.0 / b.0)
    }

    /// `exp(self) * 2^shift`, for results that are normal numbers.
    pub fn exp(self) -> Dd {
        let k = (self.0 / LN_2.0).round();
        let r = self.add(LN_2.mul(Dd(-k, 0.0))).scaled(1.0 / 1024.0);
        // expm1 by Taylor, |r| < 3.4e-4: ten terms reach 2^-120.
        let mut p = Dd(0.0, 0.0);
        for i in (1..=10).rev() {
            p = p.add(Dd(1.0, 0.0)).mul(r).div(Dd(f64::from(i), 0.0));
        }
        for _ in 0..10 {
            p = p.scaled(2.0).add(p.mul(p));
        }
        let e = p.add(Dd(1.0, 0.0));
        // In two steps: 2^k itself may be subnormal.
        let (a, b) = ((k / 2.0).trunc() as i32, k as i32 - (k / 2.0).trunc() as i32);
        e.scaled(2f64.powi(a)).scaled(2f64.powi(b))
    }

    /// By one step of Newton's iteration from the f64 logarithm.
    pub fn ln(self) -> Dd {
        let y = Dd(self.0.ln(), 0.0);
        let e = Dd(-y.0, 0.0).exp().mul(self);
        // ln(x) = y + ln(x exp(-y)), and the latter is within 1e-15 of 1.
        let d = e.add(Dd(-1.0, 0.0));
        y.add(d).add(d.mul(d).scaled(-0.5))
    }
}

/// A row's exact results.
#[derive(Clone, Debug)]
pub struct Exact {
    /// Of every element.
    pub softmax: Vec<Dd>,
    /// Of every element.
    pub log_softmax: Vec<Dd>,
    /// Of the row.
    pub logsumexp: Dd,
}

/// The results of a row of finite values (or -inf) at a temperature.
pub fn exact(x: &[f64], temperature: f64) -> Exact {
    let max = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let t = Dd(temperature, 0.0);
    // A difference that overflows is far below everything.
    let z: Vec<Dd> = x
        .iter()
        .map(|&x| if x - max > -1e300 { Dd::sum(x, -max).div(t) } else { Dd(-1e300, 0.0) })
        .collect();
    let e: Vec<Dd> = z.iter().map(|&z| if z.0 > -745.0 { z.exp() } else { Dd(0.0, 0.0) }).collect();
    let sum = e.iter().fold(Dd(0.0, 0.0), |s, &e| s.add(e));
    let ln = sum.ln();
    Exact {
        softmax: e.iter().map(|&e| e.div(sum)).collect(),
        log_softmax: z.iter().map(|&z| z.add(Dd(-ln.0, -ln.1))).collect(),
        logsumexp: Dd(max, 0.0).div(t).add(ln),
    }
}

/// A floating-point format: bits of the significand, least normal exponent.
#[derive(Clone, Copy, Debug)]
pub struct Format {
    /// Bits of the significand.
    pub digits: i32,
    /// Exponent of the least normal number.
    pub min_exp: i32,
}

/// `f32`
pub const F32: Format = Format { digits: 24, min_exp: -126 };
/// `f64`
pub const F64: Format = Format { digits: 53, min_exp: -1022 };
/// `f16`
pub const F16: Format = Format { digits: 11, min_exp: -14 };
/// `bf16`
pub const BF16: Format = Format { digits: 8, min_exp: -126 };

/// The error of `got` in units of the last place of the larger of the two (see docs/accuracy.md).
pub fn ulps(got: f64, exact: Dd, format: Format) -> f64 {
    let error = (Dd::sum(got, -exact.0).add(Dd(-exact.1, 0.0))).0.abs();
    let exponent = ulp_exponent(got, exact, format);
    // 2^exponent may be subnormal: divide in two steps.
    error * 2f64.powi(-(exponent / 2)) * 2f64.powi(-(exponent - exponent / 2))
}

/// The unit of [`ulps`]. Of f64 it may be subnormal.
pub fn ulp(got: f64, exact: Dd, format: Format) -> f64 {
    2f64.powi(ulp_exponent(got, exact, format))
}

fn ulp_exponent(got: f64, exact: Dd, format: Format) -> i32 {
    let larger = got.abs().max(exact.0.abs());
    // The exponent of a normal f64; a subnormal or 0 is below every format's least but f64's own.
    let exponent = ((larger.to_bits() >> 52) as i32 - 1023).max(format.min_exp);
    exponent - format.digits + 1
}
