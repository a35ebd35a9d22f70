//! The output of computed arrays, in one of the formats.

use std::fmt::Display;
use std::io;
use std::path::Path;

use rawzip::ZipArchiveWriter;

use crate::dtype::Dtype;
use crate::failure::Failure;
use crate::input::{Format, Input, Item, is_standard};
use crate::npz::SUFFIX;
use crate::output::{Output, Target};
use crate::tensor::Tensor;
use crate::text::Lines;
use crate::{npy, safetensors_file};

/// An output of arrays, one after another.
pub struct Writer {
    name: String,
    form: Form,
}

enum Form {
    /// All headers are written first.
    Plain(Output),
    Text(Output, Lines),
    /// Not compressed, which probabilities hardly are.
    Npz(Box<ZipArchiveWriter<Output>>),
}

/// The destination of the bytes of an array.
pub struct Sink<'a>(Bytes<'a>);

enum Bytes<'a> {
    Plain(&'a mut Output),
    Text(&'a mut Output, &'a mut Lines),
    /// A file in an archive, and the name of the archive.
    File(&'a mut dyn io::Write, &'a str),
}

impl Sink<'_> {
    /// Writes further bytes of the array.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        match &mut self.0 {
            Bytes::Plain(output) => output.write(bytes),
            Bytes::Text(output, lines) => output.write(lines.text(bytes).as_bytes()),
            Bytes::File(file, name) => file.write_all(bytes).map_err(|e| not_written(name, e)),
        }
    }

    /// Whether the reader is gone.
    pub fn is_gone(&self) -> bool {
        match &self.0 {
            Bytes::Plain(output) | Bytes::Text(output, _) => output.is_gone(),
            Bytes::File(..) => false,
        }
    }
}

fn not_written(name: &str, cause: impl Display) -> Failure {
    Failure::new(name, format!("cannot be written: {cause}"))
}

/// The format of an output: by its name, else the one asked for, else text.
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
    /// Starts an output of all items of `input`, with the types that `dtype` chooses.
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
                // Finds early what could not be written.
                for t in &input.tensors {
                    npy::descr(dtype(t)).and_then(|d| npy::header(&t.shape, d)).map_err(failed)?;
                }
                Form::Npz(Box::new(ZipArchiveWriter::new(target.create_binary(&[])?)))
            }
            _ => {
                let items = input.items();
                let header =
                    safetensors_file::header(&items, dtype, &input.notes).map_err(failed)?;
                Form::Plain(target.create_binary(&header)?)
            }
        };
        Ok(Self { name, form })
    }

    /// Writes the next item, of this type, with the function `fill`.
    pub fn item(
        &mut self,
        item: Item,
        dtype: Dtype,
        fill: impl FnOnce(&mut Sink) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let zip = match &mut self.form {
            Form::Plain(output) => return fill(&mut Sink(Bytes::Plain(output))),
            Form::Text(output, lines) => return fill(&mut Sink(Bytes::Text(output, lines))),
            Form::Npz(zip) => zip,
        };
        let failed = |e: rawzip::Error| not_written(&self.name, e);
        let (name, header) = match item {
            Item::Tensor(t) => {
                let header = npy::descr(dtype).and_then(|d| npy::header(&t.shape, d));
                let header = header.map_err(|e| Failure::new(&self.name, e))?;
                (t.name.as_deref().unwrap_or_default(), header)
            }
            // It has its own header.
            Item::Other(other) => (&*other.name, Vec::new()),
        };
        let (mut file, data) = zip.new_file(&*format!("{name}{SUFFIX}")).start().map_err(failed)?;
        let mut data = data.wrap(&mut file);
        let mut sink = Sink(Bytes::File(&mut data, &self.name));
        sink.write(&header)?;
        fill(&mut sink)?;
        let (_, descriptor) = data.finish().map_err(failed)?;
        file.finish(descriptor).map(drop).map_err(failed)
    }

    /// Completes the output and returns its bytes.
    pub fn finish(self) -> Result<usize, Failure> {
        match self.form {
            Form::Plain(output) | Form::Text(output, _) => output.finish(),
            Form::Npz(zip) => zip.finish().map_err(|e| not_written(&self.name, e))?.finish(),
        }
    }
}
