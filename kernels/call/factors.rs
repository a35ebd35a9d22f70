//! Factors of the logits, one for each row.

use std::ops::Range;

use crate::num::scale::Scale;

/// A factor of the logits for each row.
#[derive(Clone, Copy, Debug)]
pub enum Factors<'a> {
    /// Logits are multiplied by it.
    Scales(&'a [f64]),
    /// Logits are divided by it.
    Temperatures(&'a [f64]),
}

impl<'a> Factors<'a> {
    fn list(&self) -> &'a [f64] {
        let (Self::Scales(list) | Self::Temperatures(list)) = self;
        list
    }

    /// For how many rows.
    #[allow(clippy::len_without_is_empty)] // nobody asks
    pub fn len(&self) -> usize {
        self.list().len()
    }

    /// Those of some rows; none if there are fewer.
    #[must_use]
    pub fn of(&self, rows: Range<usize>) -> Self {
        let list = self.list().get(rows).unwrap_or_default();
        match self {
            Self::Scales(_) => Self::Scales(list),
            Self::Temperatures(_) => Self::Temperatures(list),
        }
    }

    /// How many rows from `first` on, before `end`, have the same factor, to the bit.
    pub fn alike(&self, first: usize, end: usize) -> usize {
        let list = &self.list()[first..end];
        list.iter().take_while(|x| x.to_bits() == list[0].to_bits()).count()
    }

    /// The scale of a row, if its factor is in the range.
    pub(crate) fn scale(&self, row: usize) -> Option<Scale> {
        match self {
            Self::Scales(scales) => Scale::new(scales[row]),
            Self::Temperatures(temperatures) => Scale::from_temperature(temperatures[row]),
        }
    }
}
