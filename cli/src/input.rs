//! The file that is read.

use std::fmt::Display;
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::path::Path;

use rayon::prelude::*;

use crate::blocks::buffer;
use crate::dtype::Dtype;
use crate::failure::{Failure, clip, list};
use crate::machine::available_memory;
use crate::stored::Number;
use crate::tensor::{Other, Tensor};
use crate::{npy, safetensors_file};

/// The kinds of files, told apart by their extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Npy,
    Safetensors,
}

impl Format {
    pub fn of(path: &Path) -> Result<Self, Failure> {
        let is = |name| path.extension().is_some_and(|e| e.eq_ignore_ascii_case(name));
        if is("npy") {
            Ok(Self::Npy)
        } else if is("safetensors") {
            Ok(Self::Safetensors)
        } else {
            let cause = "the extension must be .npy or .safetensors";
            Err(Failure::new(path.display(), cause))
        }
    }

    pub fn extension(self) -> &'static str {
        match self {
            Self::Npy => ".npy",
            Self::Safetensors => ".safetensors",
        }
    }
}

/// The bytes of a file, which are read where they are wanted, and behind them what had to be made of
/// them in memory.
///
/// They are not mapped: a file that another process cuts short would end this one, and one that
/// changes would be memory that changes under the library.
#[derive(Debug)]
pub struct Contents {
    name: String,
    file: File,
    len: usize,
    /// Its first byte is at `len`.
    made: Vec<u8>,
}

impl Contents {
    /// Opens a file.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let fail = |e: io::Error| Failure::new(path.display(), e);
        // Asked before opening, as opening a pipe would wait for its writer.
        if !fs::metadata(path).map_err(fail)?.is_file() {
            return Err(Failure::new(path.display(), "not a regular file"));
        }
        let file = File::open(path).map_err(fail)?;
        let len = file.metadata().map_err(fail)?.len();
        let len = usize::try_from(len)
            .map_err(|_| Failure::new(path.display(), "larger than the address space"))?;
        Ok(Self { name: path.display().to_string(), file, len, made: Vec::new() })
    }

    /// Its length when it was opened.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Reads the bytes from `at` on, on all threads if they are many. They are of the file, or of
    /// what was made.
    pub fn read(&self, at: usize, to: &mut [u8]) -> Result<(), Failure> {
        /// Bytes that one thread reads at a time.
        const PART: usize = 1 << 20;
        if let Some(at) = at.checked_sub(self.len) {
            to.copy_from_slice(&self.made[at..at + to.len()]);
            return Ok(());
        }
        let part =
            |(i, part): (usize, &mut [u8])| read_exact_at(&self.file, part, (at + i * PART) as u64);
        to.par_chunks_mut(PART).enumerate().try_for_each(part).map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => {
                let now = self.file.metadata().map_or(0, |data| data.len());
                self.failed(format!(
                    "cut short while it was read, from {} bytes to {now}",
                    self.len
                ))
            }
            _ => self.failed(e),
        })
    }

    /// So many zeros behind all that is there, to be filled by `make`; gives where they are.
    pub fn make(
        &mut self,
        bytes: usize,
        make: impl FnOnce(&Self, &mut [u8]) -> Result<(), Failure>,
    ) -> Result<Range<usize>, Failure> {
        check_memory(bytes).map_err(|e| self.failed(e))?;
        let mut new = buffer(bytes).map_err(|e| self.failed(e))?;
        make(self, &mut new)?;
        let start = self.len + self.made.len();
        if self.made.is_empty() {
            self.made = new;
        } else {
            let memory = self.made.try_reserve(bytes);
            memory.map_err(|_| self.failed(format!("no memory for {bytes} bytes")))?;
            self.made.extend_from_slice(&new);
        }
        Ok(start..start + bytes)
    }

    /// What is wrong with the file.
    pub fn failed(&self, cause: impl Display) -> Failure {
        Failure::new(&self.name, cause)
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// Refuses what is more than the memory that is left, if the system tells.
fn check_memory(bytes: usize) -> Result<(), String> {
    // Asking takes longer than using less.
    const LITTLE: usize = 64 << 20;
    if bytes <= LITTLE {
        return Ok(());
    }
    match available_memory() {
        Some(left) if bytes as u64 > left => {
            Err(format!("{bytes} bytes of memory are needed at once, and {left} are left"))
        }
        _ => Ok(()),
    }
}

#[cfg(unix)]
use std::os::unix::fs::FileExt;

#[cfg(unix)]
fn read_exact_at(file: &File, to: &mut [u8], at: u64) -> io::Result<()> {
    file.read_exact_at(to, at)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut to: &mut [u8], mut at: u64) -> io::Result<()> {
    use std::os::windows::fs::FileExt;
    while !to.is_empty() {
        match file.seek_read(to, at)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => (to, at) = (&mut to[n..], at + n as u64),
        }
    }
    Ok(())
}

/// An input file, checked: its tensors lie within its bytes.
#[derive(Debug)]
pub struct Input {
    pub file: Contents,
    /// What is computed: floating point numbers, or what was chosen.
    pub tensors: Vec<Tensor>,
    /// What is left as it is.
    pub others: Vec<Other>,
    /// What people should know of how it was read.
    pub remarks: Vec<String>,
    format: Format,
    notes: safetensors_file::Notes,
}

/// A part of a file, in the order of their data.
#[derive(Clone, Copy, Debug)]
pub enum Part<'a> {
    Tensor(&'a Tensor),
    Other(&'a Other),
}

impl<'a> Part<'a> {
    /// What puts parts in order: those without data may be where others begin.
    fn place(&self) -> (usize, usize, Option<&'a str>) {
        match *self {
            Self::Tensor(t) => (t.data.start, t.data.end, t.name.as_deref()),
            Self::Other(other) => (other.data.start, other.data.end, Some(&other.name)),
        }
    }
}

impl Input {
    /// Opens a file, for the tensor called `only` or for all.
    pub fn open(path: &Path, only: Option<&str>) -> Result<Self, Failure> {
        let format = Format::of(path)?;
        if format == Format::Npy && only.is_some() {
            let cause = "--tensor is for .safetensors: an .npy file has one array without a name";
            return Err(Failure::new(path.display(), cause));
        }
        let mut file = Contents::open(path)?;
        let mut remarks = Vec::new();
        let (tensors, others, notes) = match format {
            Format::Npy => {
                let within = 0..file.len();
                (vec![npy::read(&mut file, within, None, &mut remarks)?], Vec::new(), None)
            }
            Format::Safetensors => safetensors_file::read(&file, only)?,
        };
        Ok(Self { file, tensors, others, remarks, format, notes })
    }

    /// Refuses a file that has tensors, and none that is computed.
    pub fn check_any(&self) -> Result<(), Failure> {
        let ([], [other, ..]) = (&*self.tensors, &*self.others) else { return Ok(()) };
        let of = if self.others.len() == 1 { "" } else { "none of its tensors is computed: " };
        let (name, why) = (clip(&other.name, 60), safetensors_file::why_not(&self.file, other));
        Err(self.file.failed(format!("{of}tensor {name:?} {why}")))
    }

    /// All that is in the file, or was chosen of it.
    pub fn parts(&self) -> Vec<Part<'_>> {
        let tensors = self.tensors.iter().map(Part::Tensor);
        let mut parts: Vec<_> = tensors.chain(self.others.iter().map(Part::Other)).collect();
        parts.sort_by(|a, b| a.place().cmp(&b.place()));
        parts
    }

    /// The header of an output with the same tensors, as types that `dtype` chooses.
    pub fn header(&self, dtype: impl Fn(&Tensor) -> Dtype) -> Result<Vec<u8>, String> {
        match (self.format, &*self.tensors) {
            (Format::Npy, [tensor]) => npy::header(&tensor.shape, npy::descr(dtype(tensor))?),
            _ => safetensors_file::header(&self.parts(), dtype, &self.notes),
        }
    }

    /// The one array of the file, or the only one of integers, for labels; else a message.
    fn only(&self, integers: bool) -> Result<Tensor, String> {
        let others = self.others.iter().filter_map(|other| other.as_tensor().transpose());
        let all: Result<Vec<_>, _> = self.tensors.iter().cloned().map(Ok).chain(others).collect();
        let mut all = all?;
        if all.len() > 1 && integers {
            all.retain(|t| !t.stored.is_float());
        }
        match <[Tensor; 1]>::try_from(all) {
            Ok([tensor]) => Ok(tensor),
            Err(all) if all.is_empty() => Err("there is no such array in it".into()),
            Err(all) => Err(format!(
                "there are several: {}; {} takes one",
                list(all.iter().map(|t| t.name.as_deref().unwrap_or_default())),
                self.python(&all[0], "")
            )),
        }
    }

    /// The line of Python that writes `tensor`, with something done to it, where it can be read.
    fn python(&self, tensor: &Tensor, change: &str) -> String {
        let (file, name) = (clip(&self.file.name, 60), tensor.name.as_deref().unwrap_or_default());
        let name = clip(name, 60);
        let load = match self.format {
            Format::Npy => format!("np.load({file:?})"),
            Format::Safetensors => format!("safetensors.numpy.load_file({file:?})[{name:?}]"),
        };
        format!("np.save(\"converted.npy\", {load}{change})")
    }
}

/// What is wanted of the numbers in a file, beside that nothing is lost.
pub struct Wanted<T> {
    /// Whether integers are looked for, where there are others.
    pub integers: bool,
    /// The number, if it is one of the type.
    pub convert: fn(Number) -> Option<T>,
    /// What it is not, otherwise.
    pub kind: &'static str,
    /// The Python that makes it one.
    pub python: &'static str,
}

/// The numbers in a file, and their shape.
pub fn numbers<T>(path: &Path, wanted: &Wanted<T>) -> Result<(Vec<usize>, Vec<T>), Failure> {
    /// Elements that are read at a time.
    const PART: usize = 1 << 20;
    let input = Input::open(path, None)?;
    let file = &input.file;
    let tensor = input.only(wanted.integers).map_err(|e| file.failed(e))?;
    let (n, size, start) = (tensor.len(), tensor.stored.size(), tensor.data.start);
    let mut values = Vec::new();
    let memory = values.try_reserve_exact(n);
    memory.map_err(|_| file.failed(format!("no memory for {n} numbers")))?;
    let mut part = vec![0; n.min(PART) * size];
    for first in (0..n).step_by(PART) {
        let part = &mut part[..(n - first).min(PART) * size];
        file.read(start + first * size, part)?;
        for bytes in part.chunks_exact(size) {
            let number = tensor.stored.number(bytes);
            values.push((wanted.convert)(number).ok_or_else(|| {
                file.failed(format!(
                    "element {} is {number}, which is {}; {} converts",
                    values.len(),
                    wanted.kind,
                    input.python(&tensor, wanted.python),
                ))
            })?);
        }
    }
    Ok((tensor.shape, values))
}
