//! Places of a call's arguments: memory whose every element is known before and after, or between
//! inaccessible pages.

#[cfg(unix)]
use crate::common::guarded::{EDGES, Edge, Guarded};
use crate::common::{Pattern, Random};
use softmax::half::{bf16, f16};
use softmax::{Matrix, MatrixMut};

/// An element of arguments.
pub trait Word: Pattern + std::fmt::Debug {
    fn word(self) -> u64;
    fn of_word(word: u64) -> Self;
    /// A number that differs for different bits, also for quiet and signalling NaN.
    fn number(self) -> f64;
}

macro_rules! word {
    ($($t:ty: $word:expr, $of_word:expr, $number:expr;)*) => {
        $(impl Word for $t {
            fn word(self) -> u64 {
                $word(self)
            }
            fn of_word(word: u64) -> Self {
                $of_word(word)
            }
            fn number(self) -> f64 {
                $number(self)
            }
        })*
    };
}

word! {
    f32: |v: f32| v.to_bits().into(), |w| f32::from_bits(w as u32), f64::from;
    f64: f64::to_bits, f64::from_bits, |v| v;
    f16: |v: f16| v.to_bits().into(), |w| f16::from_bits(w as u16), f64::from;
    bf16: |v: bf16| v.to_bits().into(), |w| bf16::from_bits(w as u16), f64::from;
    u8: u64::from, |w| w as u8, f64::from;
    u32: u64::from, |w| w as u32, f64::from;
    i64: |v| v as u64, |w| w as i64, |v| v as f64;
    usize: |v| v as u64, |w| w as usize, |v| v as f64;
}

/// The kinds of places.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Layout {
    /// Separate, rows without padding.
    Plain,
    /// At any address that the type allows, with padding between rows and elements around them.
    Loose,
    /// With an inaccessible page right before or after.
    Guarded,
}

#[derive(Debug)]
enum Memory<T> {
    Heap(Vec<T>),
    #[cfg(unix)]
    Guarded(Guarded<T>, Edge, usize),
}

impl<T: Word> Memory<T> {
    fn new(layout: Layout, random: &mut Random, n: usize) -> Self {
        #[cfg(unix)]
        if layout == Layout::Guarded {
            return Self::Guarded(Guarded::new(n), EDGES[random.below(2)], n);
        }
        let _ = (layout, random);
        Self::Heap(vec![T::of_word(0); n])
    }

    fn get(&self) -> &[T] {
        match self {
            Self::Heap(elements) => elements,
            #[cfg(unix)]
            Self::Guarded(guarded, edge, n) => guarded.get(*edge, *n),
        }
    }

    fn get_mut(&mut self) -> &mut [T] {
        match self {
            Self::Heap(elements) => elements,
            #[cfg(unix)]
            Self::Guarded(guarded, edge, n) => guarded.at(*edge, *n),
        }
    }
}

/// Rows in memory, and a copy of everything from before the call.
#[derive(Debug)]
pub struct Place<T> {
    memory: Memory<T>,
    start: usize,
    rows: usize,
    cols: usize,
    stride: usize,
    before: Vec<u64>,
}

impl<T: Word> Place<T> {
    /// Room for rows, with any contents. Without padding if `dense`.
    pub fn new(
        layout: Layout,
        random: &mut Random,
        (rows, cols): (usize, usize),
        dense: bool,
    ) -> Self {
        let mut some = |most: usize| if layout == Layout::Loose { random.below(most) } else { 0 };
        let (start, end) = (some(35), some(20));
        let mut stride = cols;
        if !dense && layout != Layout::Plain && random.below(2) == 0 {
            stride += random.below(9) + if random.below(8) == 0 { 64 } else { 0 };
        }
        let n = if rows == 0 || cols == 0 { 0 } else { (rows - 1) * stride + cols };
        let mut memory = Memory::new(layout, random, start + n + end);
        // NaN with payload, infinity, numbers, anything.
        let around = [u64::MAX, 0x7ff0_7f80_7f80_7c00, 0x4009_4049_4049_4248, random.next()];
        let around = around[random.below(around.len())];
        memory.get_mut().iter_mut().for_each(|v| *v = T::of_word(around));
        let before = memory.get().iter().map(|v| v.word()).collect();
        Self { memory, start, rows, cols, stride, before }
    }

    /// The same with these elements in its rows.
    pub fn filled<'a>(
        layout: Layout,
        random: &mut Random,
        shape: (usize, usize),
        dense: bool,
        elements: impl IntoIterator<Item = &'a T>,
    ) -> Self
    where
        T: 'a,
    {
        let mut place = Self::new(layout, random, shape, dense);
        let mut elements = elements.into_iter();
        // Rows without elements have no place.
        for row in 0..if place.cols == 0 { 0 } else { place.rows } {
            let at = place.start + row * place.stride;
            let to = &mut place.memory.get_mut()[at..at + place.cols];
            for (to, from) in to.iter_mut().zip(&mut elements) {
                *to = *from;
            }
        }
        place.before = place.memory.get().iter().map(|v| v.word()).collect();
        place
    }

    fn range(&self) -> std::ops::Range<usize> {
        let n = match self.rows {
            _ if self.cols == 0 => 0,
            0 => 0,
            rows => (rows - 1) * self.stride + self.cols,
        };
        self.start..self.start + n
    }

    /// From the first row's first element to the last row's last.
    pub fn slice(&self) -> &[T] {
        &self.memory.get()[self.range()]
    }

    pub fn slice_mut(&mut self) -> &mut [T] {
        let range = self.range();
        &mut self.memory.get_mut()[range]
    }

    pub fn matrix(&self) -> Matrix<'_, T> {
        let (rows, cols, stride) = (self.rows, self.cols, self.stride);
        Matrix::with_stride(self.slice(), rows, cols, stride).expect("a matrix that was made so")
    }

    pub fn matrix_mut(&mut self) -> MatrixMut<'_, T> {
        let (rows, cols, stride) = (self.rows, self.cols, self.stride);
        MatrixMut::with_stride(self.slice_mut(), rows, cols, stride)
            .expect("a matrix that was made so")
    }

    /// The numbers of each row.
    pub fn numbers(&self) -> Vec<Vec<f64>> {
        let row = |row| {
            if self.cols == 0 {
                return Vec::new();
            }
            let at = self.start + row * self.stride;
            self.memory.get()[at..at + self.cols].iter().map(|v| v.number()).collect()
        };
        (0..self.rows).map(row).collect()
    }

    /// The first element that has changed, outside of the rows or anywhere.
    fn changed(&self, all: bool) -> Option<String> {
        let is_row = |i: usize| {
            let at = i.wrapping_sub(self.start);
            self.range().contains(&i) && at % self.stride.max(1) < self.cols
        };
        let now = self.memory.get();
        let at =
            (0..now.len()).find(|&i| now[i].word() != self.before[i] && (all || !is_row(i)))?;
        Some(format!(
            "element {at} of {} (rows from {}, {} x {} stride {}) has become {:?}, was {:#x}",
            now.len(),
            self.start,
            self.rows,
            self.cols,
            self.stride,
            now[at],
            self.before[at]
        ))
    }
}

/// The reason why a call has no results.
#[derive(Clone, Debug, PartialEq)]
pub enum Wrong {
    /// It was refused; a call of the same kind must be, too.
    Refused(softmax::Error),
    /// It did something that no call may do.
    Harm(String),
}

impl From<softmax::Error> for Wrong {
    fn from(error: softmax::Error) -> Self {
        Self::Refused(error)
    }
}

/// An argument of any type, to be checked after the call.
pub trait Argument {
    fn check(&self, name: &str, written: bool) -> Result<(), Wrong>;
}

impl<T: Word> Argument for Place<T> {
    fn check(&self, name: &str, written: bool) -> Result<(), Wrong> {
        match self.changed(!written) {
            None => Ok(()),
            Some(what) => Err(Wrong::Harm(format!("{name}: {what}"))),
        }
    }
}

/// Checks after a call that inputs have not changed, nor outputs outside of their rows, nor
/// anything if the call was refused.
pub fn checked(
    result: Result<(), softmax::Error>,
    inputs: &[(&str, &dyn Argument)],
    outputs: &[(&str, &dyn Argument)],
) -> Result<(), Wrong> {
    for (name, input) in inputs {
        input.check(name, false)?;
    }
    for (name, output) in outputs {
        output.check(name, result.is_ok())?;
    }
    Ok(result?)
}
