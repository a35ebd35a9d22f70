//! The arrays of an input, computed, in a format.

use std::path::Path;

use crate::archive::Archive;
use crate::dtype::Dtype;
use crate::failure::Failure;
use crate::input::{Format, Input, Part, is_standard};
use crate::output::{Output, Target};
use crate::tensor::{Tensor, bytes_of};
use crate::text::Lines;
use crate::{npy, safetensors_file};

/// An output of arrays, one after the other.
pub struct Writer {
    name: String,
    form: Form,
}

enum Form {
    /// All headers were written before.
    Plain(Output),
    Text(Output, Lines),
    Npz(Box<Archive>),
}

/// The format of an output: what its name says, else what was asked for, else text for people.
pub fn format_of(
    path: &Path,
    asked: Option<Format>,
    input: &Input,
    failed: impl Fn(String) -> Failure,
) -> Result<Format, Failure> {
    let format = match Format::of_name(path).or(asked) {
        Some(format) => format,
        None if !is_standard(path) => return Err(failed(Format::UNKNOWN.into())),
        None if input.format.is_text() => input.format,
        None => Format::Txt,
    };
    let has_one = input.tensors.len() + input.others.len() == 1;
    match format {
        Format::Npz | Format::Safetensors if format != input.format => {
            Err(failed(format!("the extension must be {}", input.format.extension())))
        }
        Format::Npz | Format::Safetensors => Ok(format),
        _ if has_one => Ok(format),
        _ => {
            let wanted = input.format.extension();
            Err(failed(format!(
                "{} has one array: the extension must be {wanted}, or choose one with --tensor",
                format.extension()
            )))
        }
    }
}

impl Writer {
    /// Starts an output of all that is in `input`, of the type that `dtype` chooses.
    pub fn create(
        target: Target,
        format: Format,
        input: &Input,
        dtype: impl Fn(&Tensor) -> Dtype,
    ) -> Result<Self, Failure> {
        let tensor = input.tensors.first();
        let (name, failed) = (target.name().to_owned(), |e| target.failed(e));
        let form = match (format, tensor) {
            (Format::Npy, Some(t)) => {
                let descr = npy::descr(dtype(t)).map_err(failed)?;
                let header = npy::header(&t.shape, descr).map_err(failed)?;
                Form::Plain(target.create_binary(&header)?)
            }
            (Format::Csv | Format::Tsv | Format::Txt, Some(t)) => {
                let lines = Lines::new(format, dtype(t), t.cols);
                Form::Text(target.create(&[])?, lines)
            }
            (Format::Npz, _) => {
                // What could not be written is found before the work.
                for t in &input.tensors {
                    npy::descr(dtype(t)).and_then(|d| npy::header(&t.shape, d)).map_err(failed)?;
                }
                Form::Npz(Box::new(Archive::new(target.create_binary(&[])?)))
            }
            _ => {
                let parts = input.parts();
                let header =
                    safetensors_file::header(&parts, dtype, &input.notes).map_err(failed)?;
                Form::Plain(target.create_binary(&header)?)
            }
        };
        Ok(Self { name, form })
    }

    /// The next part, of this type.
    pub fn begin(&mut self, part: Part, dtype: Dtype) -> Result<(), Failure> {
        let Form::Npz(archive) = &mut self.form else { return Ok(()) };
        let failed = |e: String| Failure::new(&self.name, e);
        match part {
            Part::Tensor(t) => {
                let header = npy::descr(dtype).and_then(|d| npy::header(&t.shape, d));
                let header = header.map_err(failed)?;
                let bytes = bytes_of(&t.shape, dtype.size()).map_err(failed)?;
                let name = t.name.as_deref().unwrap_or_default();
                archive.begin(name, header.len() + bytes).map_err(failed)?;
                archive.write(&header);
            }
            Part::Other(other) => archive.begin(&other.name, other.data.len()).map_err(failed)?,
        }
        Ok(())
    }

    /// More bytes of the part.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        match &mut self.form {
            Form::Plain(output) => output.write(bytes),
            Form::Text(output, lines) => output.write(lines.text(bytes).as_bytes()),
            Form::Npz(archive) => {
                archive.write(bytes);
                Ok(())
            }
        }
    }

    /// The end of the part.
    pub fn end(&mut self) -> Result<(), Failure> {
        match &mut self.form {
            Form::Npz(archive) => archive.end().map_err(|e| Failure::new(&self.name, e)),
            _ => Ok(()),
        }
    }

    /// Whether nobody reads any more.
    pub fn is_gone(&self) -> bool {
        match &self.form {
            Form::Plain(output) | Form::Text(output, _) => output.is_gone(),
            Form::Npz(_) => false,
        }
    }

    /// Completes the output; gives its bytes.
    pub fn finish(self) -> Result<usize, Failure> {
        match self.form {
            Form::Plain(output) | Form::Text(output, _) => output.finish(),
            Form::Npz(archive) => {
                archive.finish().map_err(|e| Failure::new(&self.name, e))?.finish()
            }
        }
    }
}
