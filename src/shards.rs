//! One row in shards that are on different threads, processes or machines of the caller.

use std::fmt;
use std::marker::PhantomData;

use softmax_kernels::{
    BLOCK, Element, Masked, MergedPartials, Op as Work, Partial, Piece, Scale, with_room,
};

use crate::changed::{Change, Minus};
use crate::factor::{Factor, factor_setters};
use crate::{Error, Exec};

/// The softmax of a row in shards: each shard is reduced where it is, the partial results of all
/// are merged, and each shard is finished where it is. The bits are the same as of the whole row in
/// one call, for any division into shards, if every shard except the last has a multiple of
/// [`BLOCK`](crate::BLOCK) elements.
///
/// 1. [`partials`](Shards::partials): one [`Partial`] for every block of a shard.
/// 2. [`merge`](Shards::merge) of those of all shards, in the order of the row. Everyone who has
///    them may do it; all get the same.
///    It may say that the blocks have to be summed [again](Merged::Again), by the row's largest
///    element.
/// 3. [`softmax`](Shards::softmax) of each shard, or one of its relatives.
///
/// These calls start no thread and allocate nothing (but for a scale below 0, with which
/// [`partials`](Shards::partials) needs scratch memory for one block).
///
/// ```
/// use softmax::{BLOCK, Merged, Partial, Shards};
///
/// let row: Vec<f32> = (0..3 * BLOCK).map(|i| (i % 100) as f32 / 10.0).collect();
/// let (a, b) = row.split_at(BLOCK);
/// let shards = Shards::new();
/// // One of these could come from another machine, as four numbers or two.
/// let mut partials = [Partial::NOTHING; 3];
/// let mut row_max = None;
/// let whole = loop {
///     shards.partials(a, row_max, &mut partials[..1])?;
///     shards.partials(b, row_max, &mut partials[1..])?;
///     match shards.merge::<f32>(&partials)? {
///         Merged::Row(row) => break row,
///         Merged::Again(max) => row_max = Some(max),
///     }
/// };
/// let mut probs = vec![0.0f32; row.len()];
/// let (p, q) = probs.split_at_mut(BLOCK);
/// shards.softmax(&whole, a, p)?;
/// shards.softmax(&whole, b, q)?;
///
/// let mut expected = vec![0.0f32; row.len()];
/// softmax::softmax(&row, &mut expected)?;
/// assert_eq!(probs, expected);
/// # Ok::<(), softmax::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Shards<'a> {
    factor: Factor,
    masked: Masked,
    exec: Exec<'a>,
}

impl Default for Shards<'_> {
    fn default() -> Self {
        Self::new()
    }
}

/// The result of merging the partials of a row.
///
/// ```
/// use softmax::{Merged, Partial, Shards};
/// let (shards, x) = (Shards::new(), [1e6f32, 1e6]);
/// let mut partials = [Partial::NOTHING];
/// shards.partials(&x, None, &mut partials)?;
/// let Merged::Again(max) = shards.merge::<f32>(&partials)? else { panic!("they are far from 0") };
/// assert_eq!(max, 1e6);
/// shards.partials(&x, Some(max), &mut partials)?;
/// assert!(matches!(shards.merge::<f32>(&partials)?, Merged::Row(_)));
/// # Ok::<(), softmax::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub enum Merged<T> {
    /// The row is complete: the shards can be finished.
    Row(MergedRow<T>),
    /// The partials must be computed again, with this value, the row's largest element, and merged;
    /// that gives the row. At scale 1 this is always needed for rows with a largest element above
    /// 45,000 or below -45,000, and may be needed for rows with elements that are 80 to 90 below
    /// the largest (in f64: more than 600).
    Again(f64),
}

/// A row whose sum is known.
///
/// ```
/// use softmax::{Merged, Partial, Shards};
/// let (shards, x) = (Shards::new(), [2.0f32, 2.0]);
/// let mut partials = [Partial::NOTHING];
/// shards.partials(&x, None, &mut partials)?;
/// let Merged::Row(row) = shards.merge(&partials)? else { panic!("its elements are small") };
/// assert_eq!(shards.logsumexp::<f32>(&row)?, 2.0 + std::f32::consts::LN_2);
/// # Ok::<(), softmax::Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct MergedRow<T> {
    merged: MergedPartials,
    scale: Scale,
    /// Whether it is a row of negated elements.
    negative: bool,
    of: PhantomData<fn() -> T>,
}

impl<T> MergedRow<T> {
    /// The row as a partial: [`Shards::merge`] of only this partial, with the same options, gives
    /// the row again. It is for callers who merge in one place and finish in others.
    ///
    /// ```
    /// use softmax::{Merged, Partial, Shards};
    ///
    /// let (shards, x) = (Shards::new(), [1.0f32, 2.0, 3.0]);
    /// let mut partials = [Partial::NOTHING];
    /// shards.partials(&x, None, &mut partials)?;
    /// let Merged::Row(row) = shards.merge::<f32>(&partials)? else { panic!("its elements are small") };
    /// let Merged::Row(again) = shards.merge::<f32>(&[row.to_partial()])? else { panic!("it is one row") };
    /// assert_eq!(shards.logsumexp(&row)?, shards.logsumexp(&again)?);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    pub fn to_partial(&self) -> Partial {
        // A `MergedRow` is never one that must be summed again.
        self.merged.to_partial().unwrap_or(Partial::NOTHING)
    }
}

impl<T> fmt::Debug for MergedRow<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MergedRow").field("merged", &self.merged).finish_non_exhaustive()
    }
}

impl<'a> Shards<'a> {
    /// The defaults: scale 1, NaN for fully masked rows, the best kernel.
    ///
    /// ```
    /// use softmax::{Merged, Shards};
    /// // There are no shards at all.
    /// assert!(matches!(Shards::new().merge::<f32>(&[])?, Merged::Row(_)));
    /// # Ok::<(), softmax::Error>(())
    /// ```
    pub const fn new() -> Self {
        Self { factor: Factor::One, masked: Masked::Nan, exec: Exec::new() }
    }

    factor_setters!(
        "Scales below 0 have the bits of `-x` by the scale without its sign; maxima, as that of\n[`Merged::Again`], are those of `-x`. They take longer, because shards are negated first."
    );

    /// What the result is for a row that is all `-inf`.
    ///
    /// ```
    /// use softmax::{Masked, Merged, Partial, Shards};
    /// let (shards, mut x) = (Shards::new().masked(Masked::Zero), [f32::NEG_INFINITY; 3]);
    /// let mut partials = [Partial::NOTHING];
    /// shards.partials(&x, None, &mut partials)?;
    /// let Merged::Row(row) = shards.merge(&partials)? else { panic!("it is one row") };
    /// shards.softmax_in_place(&row, &mut x)?;
    /// assert_eq!(x, [0.0; 3]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    #[must_use]
    pub const fn masked(mut self, masked: Masked) -> Self {
        self.masked = masked;
        self
    }

    /// Sets the kernel for shards; threads and caches have no effect here.
    ///
    /// ```
    /// use softmax::{Exec, Partial, Shards};
    /// let shards = Shards::new().exec(Exec::new().kernel(softmax::kernel("portable")?));
    /// let mut partials = [Partial::NOTHING];
    /// shards.partials(&[1.0f32, 2.0], None, &mut partials)?;
    /// assert_ne!(partials, [Partial::NOTHING]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    #[must_use]
    pub const fn exec(mut self, exec: Exec<'a>) -> Self {
        self.exec = exec;
        self
    }

    /// The partials of a shard, [`Partial::count`] of them. `x` must start at a multiple of
    /// [`BLOCK`](crate::BLOCK) in its row.
    ///
    /// `row_max` is `None`, or the value of [`Merged::Again`]. Callers who know the row's largest
    /// element may give it in the first round, for all shards. If an element is larger than that,
    /// the results are not specified.
    ///
    /// ```
    /// use softmax::{BLOCK, Partial, Shards};
    /// let shard = vec![0.5f32; BLOCK + 1];
    /// let mut partials = vec![Partial::NOTHING; Partial::count(shard.len())];
    /// Shards::new().partials(&shard, None, &mut partials)?;
    /// assert_eq!(partials.len(), 2);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Shape`] if there is not one partial for each block, [`Error::Value`] if `row_max`
    /// is not finite, or the scale or temperature out of range, [`Error::Memory`] if the scale is
    /// below 0, or a kernel that cannot run.
    pub fn partials<T: Element>(
        &self,
        x: &[T],
        row_max: Option<f64>,
        partials: &mut [Partial],
    ) -> Result<(), Error> {
        let needed = Partial::count(x.len());
        if partials.len() != needed {
            return Err(Error::count(
                "number of partials (one for each block)",
                needed,
                partials.len(),
            ));
        }
        if let Some(max) = row_max.filter(|max| !max.is_finite()) {
            return Err(Error::value("largest element of the row", max, "finite"));
        }
        let (factor, negative) = self.factor.unsigned();
        let (scale, kernel) = (factor.finite()?, self.kernel::<T>()?);
        if !negative {
            kernel.partials(x, &scale, row_max, partials);
            return Ok(());
        }
        let done = with_room(x.len().min(BLOCK), |room: &mut [T]| {
            for (x, partial) in x.chunks(BLOCK).zip(partials.chunks_mut(1)) {
                let block = &mut room[..x.len()];
                Minus.read(0, x, block);
                kernel.partials(block, &scale, row_max, partial);
            }
        });
        done.ok_or(Error::memory(BLOCK))
    }

    /// Merges the partials of all blocks of a row of elements `T`, in their order. It takes a few
    /// nanoseconds for each.
    ///
    /// ```
    /// use softmax::{Merged, Partial, Shards};
    /// let (shards, x) = (Shards::new(), [2.0f32, 2.0]);
    /// let mut partials = [Partial::NOTHING];
    /// shards.partials(&x, None, &mut partials)?;
    /// let Merged::Row(row) = shards.merge(&partials)? else { panic!("its elements are small") };
    /// assert_eq!(shards.logsumexp::<f32>(&row)?, 2.0 + std::f32::consts::LN_2);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Value`] if the scale or temperature is out of range, or a kernel that cannot run.
    pub fn merge<T: Element>(&self, partials: &[Partial]) -> Result<Merged<T>, Error> {
        let (factor, negative) = self.factor.unsigned();
        let scale = factor.finite()?;
        Ok(match self.kernel::<T>()?.merge_partials(&scale, partials) {
            MergedPartials::Again(max) => Merged::Again(max),
            merged => Merged::Row(MergedRow { merged, scale, negative, of: PhantomData }),
        })
    }

    /// The probabilities of a shard of `row`, into `y`. Error: as
    /// [`Softmax::softmax`](crate::Softmax::softmax).
    ///
    /// ```
    /// use softmax::{Merged, Partial, Shards};
    /// let (shards, x) = (Shards::new(), [2.0f32, 2.0]);
    /// let mut partials = [Partial::NOTHING];
    /// shards.partials(&x, None, &mut partials)?;
    /// let Merged::Row(row) = shards.merge(&partials)? else { panic!("its elements are small") };
    /// let mut y = [0.0; 2];
    /// shards.softmax(&row, &x, &mut y)?;
    /// assert_eq!(y, [0.5; 2]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Shape`] if the lengths differ, or a kernel that cannot run.
    pub fn softmax<T: Element>(
        &self,
        row: &MergedRow<T>,
        x: &[T],
        y: &mut [T],
    ) -> Result<(), Error> {
        self.finish(Work::Softmax, row, Some(x), y)
    }

    /// [`Shards::softmax`] in place. The same bits.
    ///
    /// ```
    /// use softmax::{Merged, Partial, Shards};
    /// let (shards, mut x) = (Shards::new(), [2.0f32, 2.0]);
    /// let mut partials = [Partial::NOTHING];
    /// shards.partials(&x, None, &mut partials)?;
    /// let Merged::Row(row) = shards.merge(&partials)? else { panic!("its elements are small") };
    /// shards.softmax_in_place(&row, &mut x)?;
    /// assert_eq!(x, [0.5; 2]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    ///
    /// # Errors
    /// A kernel that cannot run.
    pub fn softmax_in_place<T: Element>(
        &self,
        row: &MergedRow<T>,
        x: &mut [T],
    ) -> Result<(), Error> {
        self.finish(Work::Softmax, row, None, x)
    }

    /// The log-softmax of a shard of `row`, into `y`. Error: as
    /// [`Softmax::log_softmax`](crate::Softmax::log_softmax).
    ///
    /// ```
    /// use softmax::{Merged, Partial, Shards};
    /// let (shards, x) = (Shards::new(), [2.0f32, 2.0]);
    /// let mut partials = [Partial::NOTHING];
    /// shards.partials(&x, None, &mut partials)?;
    /// let Merged::Row(row) = shards.merge(&partials)? else { panic!("its elements are small") };
    /// let mut y = [0.0; 2];
    /// shards.log_softmax(&row, &x, &mut y)?;
    /// assert_eq!(y, [-std::f32::consts::LN_2; 2]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Shards::softmax`].
    pub fn log_softmax<T: Element>(
        &self,
        row: &MergedRow<T>,
        x: &[T],
        y: &mut [T],
    ) -> Result<(), Error> {
        self.finish(Work::LogSoftmax, row, Some(x), y)
    }

    /// [`Shards::log_softmax`] in place. The same bits.
    ///
    /// ```
    /// use softmax::{Merged, Partial, Shards};
    /// let (shards, mut x) = (Shards::new(), [2.0f32, 2.0]);
    /// let mut partials = [Partial::NOTHING];
    /// shards.partials(&x, None, &mut partials)?;
    /// let Merged::Row(row) = shards.merge(&partials)? else { panic!("its elements are small") };
    /// shards.log_softmax_in_place(&row, &mut x)?;
    /// assert_eq!(x, [-std::f32::consts::LN_2; 2]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    ///
    /// # Errors
    /// A kernel that cannot run.
    pub fn log_softmax_in_place<T: Element>(
        &self,
        row: &MergedRow<T>,
        x: &mut [T],
    ) -> Result<(), Error> {
        self.finish(Work::LogSoftmax, row, None, x)
    }

    /// The log-sum-exp of the row.
    ///
    /// ```
    /// use softmax::{Merged, Partial, Shards};
    /// let (shards, x) = (Shards::new(), [2.0f32, 2.0]);
    /// let mut partials = [Partial::NOTHING];
    /// shards.partials(&x, None, &mut partials)?;
    /// let Merged::Row(row) = shards.merge(&partials)? else { panic!("its elements are small") };
    /// assert_eq!(shards.logsumexp::<f32>(&row)?, 2.0 + std::f32::consts::LN_2);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    ///
    /// # Errors
    /// A kernel that cannot run.
    pub fn logsumexp<T: Element>(&self, row: &MergedRow<T>) -> Result<T, Error> {
        let mut nothing = Piece::read(&[]);
        Ok(self.kernel()?.finish_shard(
            &mut nothing,
            Work::LogSumExp,
            &row.scale,
            &row.merged,
            self.masked,
        ))
    }

    /// Finishes a shard, in place if there is no `x`.
    fn finish<T: Element>(
        &self,
        work: Work,
        row: &MergedRow<T>,
        x: Option<&[T]>,
        y: &mut [T],
    ) -> Result<(), Error> {
        if let Some(x) = x
            && x.len() != y.len()
        {
            return Err(Error::count("number of outputs", x.len(), y.len()));
        }
        let kernel = self.kernel()?;
        let mut piece = match x {
            Some(x) if row.negative => {
                Minus.read(0, x, y);
                Piece::in_place(y)
            }
            None if row.negative => {
                y.iter_mut().for_each(|y| *y = y.minus());
                Piece::in_place(y)
            }
            Some(x) => Piece::new(x, y),
            None => Piece::in_place(y),
        };
        kernel.finish_shard(&mut piece, work, &row.scale, &row.merged, self.masked);
        Ok(())
    }

    fn kernel<T: Element>(&self) -> Result<softmax_kernels::Shards<T>, Error> {
        Ok(self.exec.ready()?.shards())
    }
}
