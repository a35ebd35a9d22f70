//! The factor of the inputs as the caller gave it; calls make a [`Scale`] of it.

use std::cell::Cell;

use softmax_kernels::{Scale, in_default_environment};

use crate::Error;

/// A scale or a temperature, not checked yet: calls refuse what is out of range.
///
/// Numbers are compared by their bits, since the caller's floating-point environment may trap what
/// a comparison raises.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Factor {
    /// Scale 1, for which nothing is computed or checked.
    #[default]
    One,
    Scale(f64),
    Temperature(f64),
}

/// The temperatures that are limits: no scale stands for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    Zero,
    Infinite,
}

const fn is_one(x: f64) -> bool {
    x.to_bits() == 1.0f64.to_bits()
}

impl Factor {
    pub(crate) const fn scale(scale: f64) -> Self {
        if is_one(scale) { Self::One } else { Self::Scale(scale) }
    }

    pub(crate) const fn temperature(temperature: f64) -> Self {
        if is_one(temperature) { Self::One } else { Self::Temperature(temperature) }
    }

    /// The limit, if it is one.
    #[inline]
    pub(crate) const fn limit(self) -> Option<Limit> {
        let Self::Temperature(t) = self else { return None };
        match t.to_bits() {
            // Zero of either sign.
            bits if bits << 1 == 0 => Some(Limit::Zero),
            bits if bits == f64::INFINITY.to_bits() => Some(Limit::Infinite),
            _ => None,
        }
    }

    /// Whether it is a scale below 0 with an absolute value in the range.
    #[inline]
    pub(crate) fn is_negative(self) -> bool {
        let least = (-Scale::RANGE.0).to_bits();
        matches!(self, Self::Scale(a) if (least..=(-Scale::RANGE.1).to_bits()).contains(&a.to_bits()))
    }

    /// Without the sign of a scale below 0, and whether there was one.
    #[inline]
    pub(crate) fn unsigned(self) -> (Self, bool) {
        let negative = self.is_negative();
        (if negative { self.minus() } else { self }, negative)
    }

    /// With the opposite sign, if it is a scale.
    pub(crate) fn minus(self) -> Self {
        match self {
            Self::Scale(scale) => Self::scale(-scale),
            other => other,
        }
    }

    /// The constants, independent of the caller's rounding mode.
    ///
    /// # Errors
    /// [`Error::Value`] if it is out of range, or a limit.
    #[inline(always)]
    pub(crate) fn finite(self) -> Result<Scale, Error> {
        match self {
            Self::One => Ok(Scale::ONE),
            Self::Scale(scale) => self.known((false, scale.to_bits())),
            Self::Temperature(t) => self.known((true, t.to_bits())),
        }
    }

    /// The same, reusing those of the thread's last call if it had the same factor: computing them
    /// takes longer than a row of 16.
    #[inline(always)]
    fn known(self, key: (bool, u64)) -> Result<Scale, Error> {
        thread_local! {
            static LAST: Cell<((bool, u64), Scale)> =
                const { Cell::new(((false, 1.0f64.to_bits()), Scale::ONE)) };
        }
        LAST.with(|last| {
            let (of, scale) = last.get();
            if of == key {
                return Ok(scale);
            }
            let scale = self.computed()?;
            last.set((key, scale));
            Ok(scale)
        })
    }

    /// Checks the range, which includes scales below 0, but not the limits.
    ///
    /// # Errors
    /// As [`Factor::finite`].
    pub(crate) fn check_finite(self) -> Result<(), Error> {
        if self.is_negative() { Ok(()) } else { self.finite().map(drop) }
    }

    /// Checks the range, which includes both limits.
    ///
    /// # Errors
    /// As [`Factor::finite`], but for the limits.
    pub(crate) fn check(self) -> Result<(), Error> {
        // For numbers that are not negative, the order of the bits is that of the values.
        let between = |x: f64, least: f64, most: f64| {
            (least.to_bits()..=most.to_bits()).contains(&x.to_bits())
        };
        match self {
            Self::Scale(scale)
                if !self.is_negative() && !between(scale, Scale::RANGE.0, Scale::RANGE.1) =>
            {
                Err(self.refused())
            }
            Self::Temperature(t) if self.limit().is_none() && !between(t, 0.0, f64::MAX) => {
                Err(self.refused())
            }
            _ => Ok(()),
        }
    }

    #[cold]
    fn refused(self) -> Error {
        match self {
            Self::One => Error::value("scale", 1.0, "in 2^-60..=2^60"),
            Self::Scale(scale) => Error::value("scale", scale, "in 2^-60..=2^60"),
            Self::Temperature(t) if self.limit().is_some() => {
                let range = "above 0 and finite (all but softmax and log-softmax without a mask)";
                Error::value("temperature", t, range)
            }
            Self::Temperature(t) => Error::value("temperature", t, "0 or above"),
        }
    }

    #[inline(never)]
    fn computed(self) -> Result<Scale, Error> {
        in_default_environment(|| match self {
            Self::One => Ok(Scale::ONE),
            Self::Scale(scale) => Scale::new(scale).ok_or_else(|| self.refused()),
            Self::Temperature(t) => Scale::from_temperature(t).ok_or_else(|| self.refused()),
        })
    }
}

/// The setters of operations that scale their inputs and do not support the limits.
macro_rules! factor_setters {
    ($($negative:literal)?) => {
        /// Multiplies every input by `scale`, without rounding and at no cost per element. Calls
        /// refuse scales outside `2^-60..=2^60`. The last call of this or [`Self::temperature`]
        /// counts.
        $(#[doc = ""] #[doc = $negative])?
        ///
        /// ```
        /// use softmax::{MatrixMut, Sigmoid};
        /// // As an example, of sigmoid: its logarithm at twice the input.
        /// let mut x = [-400.0f64];
        /// Sigmoid::new().scale(2.0).log_sigmoid_in_place(MatrixMut::new(&mut x, 1)?)?;
        /// assert_eq!(x, [-800.0]);
        /// # Ok::<(), softmax::Error>(())
        /// ```
        #[inline]
        #[must_use]
        pub const fn scale(mut self, scale: f64) -> Self {
            self.factor = crate::factor::Factor::scale(scale);
            self
        }

        /// Divides every input by `temperature`, like [`Self::scale`] with its inverse, but without
        /// rounding the inverse. It must be above 0 and finite, or calls refuse it; values below
        /// 2^-100 count as 2^-100, those above 2^100 as 2^100.
        ///
        /// ```
        /// use softmax::{MatrixMut, Sigmoid};
        /// // As an example, of sigmoid: its logarithm at half the input.
        /// let mut x = [-800.0f64];
        /// Sigmoid::new().temperature(2.0).log_sigmoid_in_place(MatrixMut::new(&mut x, 1)?)?;
        /// assert_eq!(x, [-400.0]);
        /// # Ok::<(), softmax::Error>(())
        /// ```
        #[inline]
        #[must_use]
        pub const fn temperature(mut self, temperature: f64) -> Self {
            self.factor = crate::factor::Factor::temperature(temperature);
            self
        }
    };
}
pub(crate) use factor_setters;
