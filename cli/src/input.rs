//! The file that is read.

use std::fs::{self, File};
use std::path::Path;

use memmap2::Mmap;

use crate::dtype::Dtype;
use crate::failure::Failure;
use crate::tensor::Tensor;
use crate::{map, npy, safetensors_file};

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

/// An input file, mapped and checked: its tensors lie within its bytes.
#[derive(Debug)]
pub struct Input {
    pub bytes: Mmap,
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
        let bytes = map(path)?;
        let read = match format {
            Format::Npy => npy::read(&bytes).map(|tensor| (vec![tensor], None)),
            Format::Safetensors => safetensors_file::read(&bytes, only),
        };
        let (tensors, notes) = read.map_err(|e| Failure::new(path.display(), e))?;
        Ok(Self { bytes, tensors, format, notes })
    }

    /// The header of an output with the same tensors, as types that `dtype` chooses.
    pub fn header(&self, dtype: impl Fn(&Tensor) -> Dtype) -> Result<Vec<u8>, String> {
        match (self.format, &*self.tensors) {
            (Format::Npy, [tensor]) => npy::header(&tensor.shape, npy::descr(dtype(tensor))?),
            _ => Ok(safetensors_file::header(&self.tensors, dtype, &self.notes)),
        }
    }
}

/// The bytes of a file.
fn map(path: &Path) -> Result<Mmap, Failure> {
    let fail = |e: std::io::Error| Failure::new(path.display(), e);
    // Asked before opening, as opening a pipe would wait for its writer.
    if !fs::metadata(path).map_err(fail)?.is_file() {
        return Err(Failure::new(path.display(), "not a regular file"));
    }
    File::open(path).and_then(|file| map::map(&file)).map_err(fail)
}

/// The integers in an .npy file, and their shape.
pub fn integers(path: &Path) -> Result<(Vec<usize>, Vec<i64>), Failure> {
    npy::read_integers(&map(path)?).map_err(|e| Failure::new(path.display(), e))
}
