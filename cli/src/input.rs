//! The file that is read.

use std::fmt::Display;
use std::fs::{self, File};
use std::io;
use std::path::Path;

use rayon::prelude::*;

use crate::dtype::Dtype;
use crate::failure::Failure;
use crate::tensor::Tensor;
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

/// The bytes of a file, which are read where they are wanted.
///
/// They are not mapped: a file that another process cuts short would end this one, and one that
/// changes would be memory that changes under the library.
#[derive(Debug)]
pub struct Contents {
    name: String,
    file: File,
    len: usize,
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
        Ok(Self { name: path.display().to_string(), file, len })
    }

    /// Its length when it was opened.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Reads the bytes from `at` on, on all threads if they are many.
    pub fn read(&self, at: usize, to: &mut [u8]) -> Result<(), Failure> {
        /// Bytes that one thread reads at a time.
        const PART: usize = 1 << 20;
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

    /// What is wrong with the file.
    pub fn failed(&self, cause: impl Display) -> Failure {
        Failure::new(&self.name, cause)
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
    pub tensors: Vec<Tensor>,
    format: Format,
    notes: safetensors_file::Notes,
}

impl Input {
    /// Opens a file, for the tensor called `only` or for all.
    pub fn open(path: &Path, only: Option<&str>) -> Result<Self, Failure> {
        let format = Format::of(path)?;
        if format == Format::Npy && only.is_some() {
            let cause = "--tensor is for .safetensors: an .npy file has one array without a name";
            return Err(Failure::new(path.display(), cause));
        }
        let file = Contents::open(path)?;
        let (tensors, notes) = match format {
            Format::Npy => (vec![npy::read(&file)?], None),
            Format::Safetensors => safetensors_file::read(&file, only)?,
        };
        Ok(Self { file, tensors, format, notes })
    }

    /// The header of an output with the same tensors, as types that `dtype` chooses.
    pub fn header(&self, dtype: impl Fn(&Tensor) -> Dtype) -> Result<Vec<u8>, String> {
        match (self.format, &*self.tensors) {
            (Format::Npy, [tensor]) => npy::header(&tensor.shape, npy::descr(dtype(tensor))?),
            _ => safetensors_file::header(&self.tensors, dtype, &self.notes),
        }
    }
}

/// The integers in an .npy file, and their shape.
pub fn integers(path: &Path) -> Result<(Vec<usize>, Vec<i64>), Failure> {
    npy::read_integers(&Contents::open(path)?)
}
