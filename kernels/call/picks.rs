//! Calls of argmax, top-k and log-probabilities, and the constants of sigmoid and of softmax's
//! limits.

use crate::call::error::{Error, Size};
use crate::call::matrix::Matrix;
use crate::call::{Masked, Op, Ties};
use crate::mem::fpenv::in_default_environment;
use crate::num::element::Element;
use crate::num::scale::{Scale, Shift};

/// A limit of softmax: at temperature 0, or at an infinite one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit {
    /// Whether the temperature is infinite; else it is 0.
    pub(crate) hot: bool,
    pub(crate) log: bool,
    pub(crate) ties: Ties,
}

impl Limit {
    /// The limit that an operation is, if it is one.
    pub(crate) fn of(op: Op) -> Option<Self> {
        let limit = |hot, log, ties| Some(Limit { hot, log, ties });
        match op {
            Op::Hardmax(ties) => limit(false, false, ties),
            Op::LogHardmax => limit(false, true, Ties::Share),
            Op::Uniform => limit(true, false, Ties::Share),
            Op::LogUniform => limit(true, true, Ties::Share),
            _ => None,
        }
    }

    /// The result of each of `n` elements that share the mass, and of all others.
    pub(crate) fn shares(&self, n: usize) -> (f64, f64) {
        let n = n as f64;
        if self.log { (0.0 - libm::log(n), f64::NEG_INFINITY) } else { (1.0 / n, 0.0) }
    }
}

/// The shift of the exponential in sigmoid: by nothing.
pub(crate) fn no_shift(scale: &Scale, min_exp: i32) -> Shift {
    Shift { subtract: 0.0, m: 0, cut: scale.cut(0, min_exp) }
}

/// `1 / (2 k + 1)` for k from 1 on, for rows of f64: with the 1 before them 17 terms, and the next
/// would be 2^-59 of the sum.
pub(crate) const ATANH: [f64; 16] = {
    let mut coefficients = [0.0; 16];
    let mut k = 0;
    while k < 16 {
        coefficients[k] = 1.0 / (2 * k + 3) as f64;
        k += 1;
    }
    coefficients
};

/// `ln(1 + e / C) / e` for `e` from 0 to C of f64, for rows of f32: coefficients of even powers and
/// of odd ones. Minimax (Remez' exchange with 60 digits) with a relative error of 2^-27.6.
pub(crate) const LOG1P: [[f64; 5]; 2] = [
    [
        0.9251820280652172,
        0.2639467956780865,
        0.1333740781761598,
        0.06152419581917071,
        0.009859100008740499,
    ],
    [
        -0.42798006135136685,
        -0.18283159950805072,
        -0.09598719632561427,
        -0.03057623406671974,
        -0.001490583072607014,
    ],
];

/// Number of coefficients of `2^(r/8) - 1` in f64 that are enough for sigmoid of f32: the next term
/// is 2^-29.
pub(crate) const POWERS_F32: usize = 4;

/// A call that picks `k` elements of each row.
#[derive(Debug)]
pub struct Picks<'a, T: Element> {
    pub(crate) x: Matrix<'a, T>,
    pub(crate) k: usize,
    pub(crate) wanted: Wanted<'a>,
    /// `k` for each row; empty if only the largest is wanted.
    pub(crate) log_probs: &'a mut [T::Arithmetic],
    /// `k` for each row, or empty.
    pub(crate) probs: &'a mut [T::Arithmetic],
    /// One for each row, or empty.
    pub(crate) lse: &'a mut [T::Arithmetic],
    pub(crate) scale: Scale,
    pub(crate) masked: Masked,
}

/// Which elements are picked; `k` indices for each row.
#[derive(Debug)]
pub(crate) enum Wanted<'a> {
    /// The given ones.
    Tokens(&'a [usize]),
    /// The `k` largest, whose indices are written here.
    Top(&'a mut [usize]),
    /// The largest, or the first NaN, whose index is written here.
    Largest(&'a mut [usize]),
}

pub(crate) fn check(what: &'static str, len: usize, needed: usize) -> Result<(), Error> {
    if len == needed { Ok(()) } else { Err(Error::count(what, needed, len)) }
}

impl<'a, T: Element> Picks<'a, T> {
    /// Computes log-probabilities of tokens, the same number for each row, and the log-sum-exp of
    /// each row if there is a place for it.
    ///
    /// # Errors
    /// [`Error::Shape`] for lengths that do not fit the rows, [`Error::Column`] for a token that is
    /// not a column.
    pub fn tokens(
        x: Matrix<'a, T>,
        tokens: &'a [usize],
        log_probs: &'a mut [T::Arithmetic],
        lse: Option<&'a mut [T::Arithmetic]>,
    ) -> Result<Self, Error> {
        let (rows, cols) = (x.rows(), x.cols());
        let k = tokens.len().div_ceil(rows.max(1));
        if tokens.len() != k.saturating_mul(rows) {
            let (what, len) = ("number of tokens", Size::Count(tokens.len()));
            return Err(Error::shape(what, Size::MultipleOf(rows), len));
        }
        check("number of log-probabilities", log_probs.len(), tokens.len())?;
        if let Some(lse) = &lse {
            check("number of log-sum-exps", lse.len(), rows)?;
        }
        if let Some(at) = tokens.iter().position(|&token| token >= cols) {
            return Err(Error::column(at / k, tokens[at], cols));
        }
        let lse = lse.unwrap_or_default();
        Ok(Self::new(x, k, Wanted::Tokens(tokens), log_probs, lse))
    }

    /// Finds the `k` largest elements of each row: indices, log-probabilities, and probabilities if
    /// there is a place for them.
    ///
    /// # Errors
    /// [`Error::Value`] for a `k` above the number of columns, [`Error::Shape`] for lengths that do
    /// not fit.
    pub fn top(
        x: Matrix<'a, T>,
        k: usize,
        indices: &'a mut [usize],
        log_probs: &'a mut [T::Arithmetic],
        probs: Option<&'a mut [T::Arithmetic]>,
    ) -> Result<Self, Error> {
        Self::check_k(k, x.cols())?;
        let needed = x.rows().saturating_mul(k);
        check("number of indices", indices.len(), needed)?;
        check("number of log-probabilities", log_probs.len(), needed)?;
        if let Some(probs) = &probs {
            check("number of probabilities", probs.len(), needed)?;
        }
        let probs = probs.unwrap_or_default();
        Ok(Picks { probs, ..Self::new(x, k, Wanted::Top(indices), log_probs, &mut []) })
    }

    /// Whether rows of so many elements have `k`.
    ///
    /// # Errors
    /// [`Error::Value`] if not.
    pub fn check_k(k: usize, cols: usize) -> Result<(), Error> {
        if k > cols {
            let range = "at most the number of columns";
            return Err(Error::value("k of the top k", k, range));
        }
        Ok(())
    }

    /// Finds the index of the largest element of each row.
    ///
    /// # Errors
    /// [`Error::Value`] for rows without elements, [`Error::Shape`] for another number of indices
    /// than of rows.
    pub fn largest(x: Matrix<'a, T>, indices: &'a mut [usize]) -> Result<Self, Error> {
        check("number of indices", indices.len(), x.rows())?;
        if x.rows() > 0 && x.cols() == 0 {
            return Err(Error::value("number of columns", 0usize, "above 0"));
        }
        Ok(Self::new(x, 1, Wanted::Largest(indices), &mut [], &mut []))
    }

    fn new(
        x: Matrix<'a, T>,
        k: usize,
        wanted: Wanted<'a>,
        log_probs: &'a mut [T::Arithmetic],
        lse: &'a mut [T::Arithmetic],
    ) -> Self {
        let (scale, masked) = (Scale::ONE, Masked::Nan);
        Picks { x, k, wanted, log_probs, probs: &mut [], lse, scale, masked }
    }

    /// Sets what log-probabilities depend on.
    #[must_use]
    pub fn scaled(self, scale: Scale, masked: Masked) -> Self {
        Self { scale, masked, ..self }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.x.rows()
    }

    /// Number of elements in a row.
    pub fn cols(&self) -> usize {
        self.x.cols()
    }

    /// Whether [`Picks::scaled`] changes the results.
    pub fn needs_scale(&self) -> bool {
        !matches!(self.wanted, Wanted::Largest(_))
    }

    /// The first `at` rows and the others.
    pub fn split_rows(self, at: usize) -> (Self, Self) {
        let Picks { x, k, wanted, log_probs, probs, lse, scale, masked } = self;
        let at = at.min(x.rows());
        let (x, y) = x.split_rows(at);
        let cut = |len: usize, k: usize| (at * k).min(len);
        let (log_probs, log_probs_2) = log_probs.split_at_mut(cut(log_probs.len(), k));
        let (probs, probs_2) = probs.split_at_mut(cut(probs.len(), k));
        let (lse, lse_2) = lse.split_at_mut(cut(lse.len(), 1));
        let (wanted, wanted_2) = match wanted {
            Wanted::Tokens(tokens) => {
                let (a, b) = tokens.split_at(cut(tokens.len(), k));
                (Wanted::Tokens(a), Wanted::Tokens(b))
            }
            Wanted::Top(indices) => {
                let (a, b) = indices.split_at_mut(cut(indices.len(), k));
                (Wanted::Top(a), Wanted::Top(b))
            }
            Wanted::Largest(indices) => {
                let (a, b) = indices.split_at_mut(cut(indices.len(), 1));
                (Wanted::Largest(a), Wanted::Largest(b))
            }
        };
        let others = Picks {
            x: y,
            k,
            wanted: wanted_2,
            log_probs: log_probs_2,
            probs: probs_2,
            lse: lse_2,
            scale,
            masked,
        };
        (Picks { x, k, wanted, log_probs, probs, lse, scale, masked }, others)
    }

    /// The elements of a row.
    pub(crate) fn row(&self, row: usize) -> &'a [T] {
        self.x.row(row)
    }
}

/// `exp(-mean)` of log-probabilities, with the same bits everywhere.
pub fn perplexity<T: Element>(log_probs: &[T]) -> f64 {
    in_default_environment(|| perplexity_of(log_probs))
}

fn perplexity_of<T: Element>(log_probs: &[T]) -> f64 {
    let sum: f64 = log_probs.iter().map(|p| p.to_f64()).sum();
    let perplexity = libm::exp(-sum / log_probs.len() as f64);
    // Which NaN an operation gives depends on the CPU.
    if perplexity.is_nan() { f64::NAN } else { perplexity }
}
