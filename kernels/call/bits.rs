//! Masks of one bit for each column.

use crate::call::error::{Error, Size};

/// A mask of one bit for each column, as engines for constrained decoding make them (XGrammar,
/// llguidance): column `i` is seen where bit `i % 32` of word `i / 32` is set, least significant
/// bit first. Words are numbers of the machine, so this holds on big-endian ones, too. Bits behind
/// the last column are ignored.
///
/// A row of `cols` columns has `cols.div_ceil(32)` words, and rows follow each other without gaps,
/// unless [`BitMask::stride`] says otherwise. Calls refuse masks with fewer words; where
/// vocabularies are padded, see [`BitMask::hidden_from`].
///
/// ```
/// use softmax_kernels::{BitMask, MaskData};
/// // Columns 0, 2 and 33.
/// let words = [0b101, 0b10];
/// assert!(matches!(MaskData::from(BitMask::new(&words)), MaskData::Bits(_)));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct BitMask<'a> {
    words: &'a [u32],
    /// Words from the start of a row to that of the next; [`NOT_GIVEN`] if there are no gaps.
    stride: usize,
    /// The number of its columns; [`NOT_GIVEN`] if it has as many as the rows.
    width: usize,
}

/// Stands for what was not given. A number and not an `Option`, because masks are part of options
/// that lie on stacks.
pub(crate) const NOT_GIVEN: usize = usize::MAX;

/// What was given: no mask is so large that the limit matters.
pub(crate) const fn given(n: usize) -> usize {
    if n == NOT_GIVEN { n - 1 } else { n }
}

pub(crate) const fn or(n: usize, default: usize) -> usize {
    if n == NOT_GIVEN { default } else { n }
}

impl<'a> BitMask<'a> {
    /// A mask with one row of words for all rows, or one for each.
    ///
    /// ```
    /// use softmax_kernels::BitMask;
    /// // Two rows of up to 64 columns, the first two of which are seen in one, the last in the
    /// // other.
    /// let mask = BitMask::new(&[0b11, 0, 0, 1 << 31]);
    /// ```
    pub const fn new(words: &'a [u32]) -> Self {
        Self { words, stride: NOT_GIVEN, width: NOT_GIVEN }
    }

    /// Row `i` starts at word `i * words`. Calls refuse strides below the words of a row.
    ///
    /// ```
    /// use softmax_kernels::BitMask;
    /// // Two rows of up to 32 columns, each followed by a word that is not read.
    /// let mask = BitMask::new(&[0b11, 0, 0b10, 0]).stride(2);
    /// ```
    #[must_use]
    pub const fn stride(mut self, words: usize) -> Self {
        self.stride = given(words);
        self
    }

    /// The mask has bits only for the first `cols` columns, and the columns after them are hidden:
    /// models pad their vocabularies, and masks need not. Calls refuse more columns than rows have.
    ///
    /// ```
    /// use softmax_kernels::BitMask;
    /// // Of 100 columns, say: the first is hidden, the next 31 are seen, all others are hidden.
    /// let mask = BitMask::new(&[!1]).hidden_from(32);
    /// ```
    #[must_use]
    pub const fn hidden_from(mut self, cols: usize) -> Self {
        self.width = given(cols);
        self
    }

    /// The number of columns that it has bits for, of rows of `cols`.
    #[doc(hidden)]
    #[inline]
    pub fn width(&self, cols: usize) -> usize {
        self.width.min(cols)
    }

    /// The number of columns that it has bits for and its stride; each may be [`NOT_GIVEN`].
    pub(crate) fn given(&self) -> (usize, usize) {
        (self.width, self.stride)
    }

    /// The words; of one row if it was made by [`BitMask::row`].
    #[doc(hidden)]
    #[inline(always)]
    pub fn words(&self) -> &'a [u32] {
        self.words
    }

    /// Words of a row of `width` columns, and those from its start to that of the next.
    #[inline(always)]
    fn layout(&self, width: usize) -> (usize, usize) {
        let words = width.div_ceil(32);
        (words, or(self.stride, words))
    }

    /// How many rows of masks there are for `rows` rows of `cols` columns: 1 or `rows`.
    pub(crate) fn rows(&self, rows: usize, cols: usize) -> Result<usize, Error> {
        let width = or(self.width, cols);
        check_width(width, cols, "no more than there are columns")?;
        [1, rows].into_iter().find(|&n| self.has(n, width)).ok_or_else(|| self.misfit(rows, width))
    }

    /// Checks that there are `rows` rows of `width` columns.
    pub(crate) fn check(&self, rows: usize, width: usize) -> Result<(), Error> {
        if self.has(rows, width) { Ok(()) } else { Err(self.misfit(rows, width)) }
    }

    /// Whether it has exactly so many rows. The gap after the last may be missing.
    fn has(&self, rows: usize, width: usize) -> bool {
        let ((words, stride), len) = (self.layout(width), self.words.len());
        let Some(before) = rows.checked_sub(1) else { return len == 0 };
        let least = before.checked_mul(stride).and_then(|n| n.checked_add(words));
        stride >= words && least.is_some_and(|least| len >= least && len - least <= stride - words)
    }

    #[cold]
    fn misfit(&self, rows: usize, width: usize) -> Error {
        let (words, stride) = self.layout(width);
        if stride < words {
            let what = "number of words from a row of the bit mask to the next";
            return Error::shape(what, Size::AtLeast(words), Size::Count(stride));
        }
        let what = "number of words of the bit mask (a row for all, or one for each)";
        Error::shape(what, Size::Matrix(rows, stride), Size::Count(self.words.len()))
    }

    /// One row of a mask that was checked.
    #[inline(always)]
    pub(crate) fn row(self, row: usize, width: usize) -> Self {
        let (words, stride) = self.layout(width);
        let start = row * stride;
        Self { words: &self.words[start..start + words], stride: NOT_GIVEN, width: self.width }
    }

    /// Whether a column is seen in a mask of one row.
    #[doc(hidden)]
    #[inline]
    pub fn is_seen(&self, col: usize) -> bool {
        let word = self.words.get(col / 32).copied().unwrap_or(0);
        word >> (col % 32) & 1 == 1 && col < self.width
    }
}

/// Whether a mask has no more columns than rows of `cols`; `range` says so.
///
/// # Errors
/// [`Error::Value`] if it has.
pub(crate) fn check_width(width: usize, cols: usize, range: &'static str) -> Result<(), Error> {
    if width > cols {
        return Err(Error::value("number of columns of the mask", width, range));
    }
    Ok(())
}

/// Packs what hides into the words of a mask of bits: bit `i % 32` of word `i / 32` tells whether
/// `seen` is true for `i < cols`. Words behind them become 0.
pub(crate) fn pack(words: &mut [u32], cols: usize, seen: impl Fn(usize) -> bool) {
    for (k, word) in words.iter_mut().enumerate() {
        let bits = (32 * k).min(cols)..(32 * (k + 1)).min(cols);
        *word = bits.rev().fold(0, |word, i| word << 1 | u32::from(seen(i)));
    }
}
