//! The accuracy oracle: softmax in double-double arithmetic (about 100 bits), and errors in ULP.
//!
//! It subtracts the maximum, and does not use the exact shift.

/// A number as the unevaluated sum of two f64.
#[derive(Clone, Copy, Debug)]
pub struct Dd(pub f64, pub f64);

const LN_2: Dd = Dd(std::f64::consts::LN_2, 2.319_046_813_846_299_6e-17);

// Methods, so that chains of them read in their order.
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

    /// The product with a power of two.
    pub fn scaled(self, power_of_two: f64) -> Dd {
        Dd(self.0 * power_of_two, self.1 * power_of_two)
    }

    /// The quotient.
    pub fn div(self, b: Dd) -> Dd {
        let q = self.0 / b.0;
        let r = self.add(b.mul(Dd(-q, 0.0)));
        Dd::sum(q, r.0 / b.0)
    }

    /// The number with the other sign.
    pub fn neg(self) -> Dd {
        Dd(-self.0, -self.1)
    }

    /// The difference.
    pub fn sub(self, b: Dd) -> Dd {
        self.add(b.neg())
    }

    /// `k` and `exp(self) / 2^k - 1`, the latter to full precision near 0.
    fn exp_parts(self) -> (i32, Dd) {
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
        (k as i32, p)
    }

    /// `exp(self)`, for results that are normal numbers.
    pub fn exp(self) -> Dd {
        let Scaled(e, k) = self.exp_scaled();
        // In two steps: 2^k itself may be subnormal.
        let (a, b) = (k / 2, k - k / 2);
        e.scaled(2f64.powi(a)).scaled(2f64.powi(b))
    }

    /// `exp(self)`, however small or large; 0 below `exp(-1e8)`.
    pub fn exp_scaled(self) -> Scaled {
        if self.0 < -1e8 {
            return Scaled(Dd(0.0, 0.0), 0);
        }
        let (k, p) = self.exp_parts();
        Scaled(p.add(Dd(1.0, 0.0)), k)
    }

    /// `exp(self) - 1`, with a small relative error near 0, too.
    pub fn exp_m1(self) -> Dd {
        match self.exp_parts() {
            (0, p) => p,
            _ => self.exp().add(Dd(-1.0, 0.0)),
        }
    }

    /// `ln(1 + self)` for numbers above -1/2, with a small relative error near 0, too.
    pub fn ln_1p(self) -> Dd {
        if self.0.abs() > 1e-3 {
            return self.add(Dd(1.0, 0.0)).ln();
        }
        let mut p = Dd(0.0, 0.0);
        for i in (1..=13).rev() {
            p = Dd(1.0, 0.0).div(Dd(f64::from(i), 0.0)).sub(p.mul(self));
        }
        p.mul(self)
    }

    /// The hyperbolic tangent.
    pub fn tanh(self) -> Dd {
        if self.0.abs() > 50.0 {
            return Dd(self.0.signum(), 0.0);
        }
        let e = self.scaled(2.0).exp_m1();
        e.div(e.add(Dd(2.0, 0.0)))
    }

    /// The logarithm, by one step of Newton's iteration from the one in f64.
    pub fn ln(self) -> Dd {
        // Where the exponential would be out of range.
        if self.0 < 1e-200 {
            return self.scaled(2f64.powi(900)).ln().sub(LN_2.mul(Dd(900.0, 0.0)));
        }
        let y = Dd(self.0.ln(), 0.0);
        let e = Dd(-y.0, 0.0).exp().mul(self);
        // ln(x) = y + ln(x exp(-y)), and the latter is within 1e-15 of 1.
        let d = e.add(Dd(-1.0, 0.0));
        y.add(d).add(d.mul(d).scaled(-0.5))
    }
}

/// The number `self.0 * 2^self.1`: at full precision, too, where f64 is subnormal or out of range.
#[derive(Clone, Copy, Debug)]
pub struct Scaled(pub Dd, pub i32);

// As in `Dd`.
#[allow(clippy::should_implement_trait)]
impl Scaled {
    /// 0.
    pub const ZERO: Self = Self(Dd(0.0, 0.0), 0);

    /// The number `x`.
    pub fn of(x: Dd) -> Self {
        if x.0 == 0.0 || !x.0.is_finite() {
            return Self(x, 0);
        }
        let k = exponent(x.0);
        Self(Dd(ldexp(x.0, -k), ldexp(x.1, -k)), k)
    }

    /// The sum.
    pub fn add(self, b: Self) -> Self {
        let (a, b) =
            if b.0.0 == 0.0 || (self.0.0 != 0.0 && self.1 >= b.1) { (self, b) } else { (b, self) };
        let by = ldexp(1.0, (b.1 - a.1).clamp(-1000, 0));
        Self(a.0.add(b.0.scaled(by)), a.1)
    }

    /// The product.
    pub fn mul(self, b: Self) -> Self {
        Self(self.0.mul(b.0), self.1 + b.1)
    }

    /// The quotient.
    pub fn div(self, b: Dd) -> Self {
        Self(self.0.div(b), self.1)
    }

    /// The number as two f64, 0 or infinite where it is out of range.
    pub fn to_dd(self) -> Dd {
        Dd(ldexp(self.0.0, self.1), ldexp(self.0.1, self.1))
    }

    /// The exponent `n` of `2^n <= |self| < 2^(n + 1)`; the least possible for 0.
    pub fn exponent(self) -> i32 {
        let Self(Dd(hi, lo), k) = self;
        if hi == 0.0 {
            return i32::MIN / 2;
        }
        let exponent = exponent(hi);
        // A power of two whose low part makes it smaller.
        let below = hi.abs() == ldexp(1.0, exponent) && lo * hi < 0.0;
        exponent - i32::from(below) + k
    }
}

/// `x * 2^n`, rounded where it is subnormal.
pub fn ldexp(mut x: f64, n: i32) -> f64 {
    let mut n = n.clamp(-4400, 4400);
    while n.abs() > 1000 {
        let step = n.clamp(-1000, 1000);
        x *= 2f64.powi(step);
        n -= step;
    }
    x * 2f64.powi(n)
}

/// The exponent `n` of `2^n <= |x| < 2^(n + 1)`, for a number other than 0.
fn exponent(x: f64) -> i32 {
    match (x.to_bits() >> 52) as i32 & 0x7ff {
        0 => exponent(x * 2f64.powi(64)) - 64,
        n => n - 1023,
    }
}

/// A row's exact results.
#[derive(Clone, Debug)]
pub struct Exact {
    /// For every element.
    pub softmax: Vec<Dd>,
    /// For every element.
    pub log_softmax: Vec<Dd>,
    /// For the row.
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

/// The error of `got` in units of the last place of the larger of the two numbers (see
/// docs/accuracy.md).
pub fn ulps(got: f64, exact: Dd, format: Format) -> f64 {
    let error = (Dd::sum(got, -exact.0).add(Dd(-exact.1, 0.0))).0.abs();
    let exponent = ulp_exponent(got, exact, format);
    // 2^exponent may be subnormal: divide in two steps.
    error * 2f64.powi(-(exponent / 2)) * 2f64.powi(-(exponent - exponent / 2))
}

/// The unit of [`ulps`], which may be subnormal in f64.
pub fn ulp(got: f64, exact: Dd, format: Format) -> f64 {
    2f64.powi(ulp_exponent(got, exact, format))
}

fn ulp_exponent(got: f64, exact: Dd, format: Format) -> i32 {
    let larger = got.abs().max(exact.0.abs());
    // The exponent of a normal f64; a subnormal or 0 is below every format's least but f64's own.
    let exponent = ((larger.to_bits() >> 52) as i32 - 1023).max(format.min_exp);
    exponent - format.digits + 1
}

/// As [`ulps`], for numbers of any size; infinite if `got` is not finite.
pub fn ulps_scaled(got: f64, exact: Scaled, format: Format) -> f64 {
    if !got.is_finite() {
        return f64::INFINITY;
    }
    let larger = if got == 0.0 { i32::MIN / 2 } else { exponent(got) }.max(exact.exponent());
    let ulp = larger.max(format.min_exp) - format.digits + 1;
    let error = Scaled::of(Dd(got, 0.0)).add(Scaled(exact.0.neg(), exact.1));
    ldexp(error.0.0.abs(), (error.1 - ulp).clamp(-4000, 4000))
}
