//! The input file.

use std::fmt::Display;
use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;

use crate::failure::{Failure, clip, list};
use crate::memory::{buffer, check_memory};
use crate::stored::Number;
use crate::tensor::{Other, Tensor};
use crate::{npy, npz, safetensors_file, text};

/// The formats of files, told apart by their extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    Npy,
    Npz,
    Safetensors,
    /// Lines of numbers with commas
    Csv,
    /// Lines of numbers with tabs
    Tsv,
    /// Lines of numbers with blanks
    Txt,
}

impl Format {
    /// The message for files whose format is unknown.
    pub const UNKNOWN: &str = "the extension must be .npy, .npz, .safetensors, .csv, .tsv or .txt; \
                               --format tells otherwise";

    const ALL: [Self; 6] =
        [Self::Npy, Self::Npz, Self::Safetensors, Self::Csv, Self::Tsv, Self::Txt];

    /// The format that a file's name tells.
    pub fn of_name(path: &Path) -> Option<Self> {
        let extension = path.extension()?;
        Self::ALL.into_iter().find(|f| extension.eq_ignore_ascii_case(&f.extension()[1..]))
    }

    pub fn extension(self) -> &'static str {
        match self {
            Self::Npy => ".npy",
            Self::Npz => ".npz",
            Self::Safetensors => ".safetensors",
            Self::Csv => ".csv",
            Self::Tsv => ".tsv",
            Self::Txt => ".txt",
        }
    }

    pub fn is_text(self) -> bool {
        matches!(self, Self::Csv | Self::Tsv | Self::Txt)
    }

    /// The format of bytes without a name: no text begins like the other formats.
    fn of_bytes(bytes: &[u8]) -> Self {
        if bytes.starts_with(npy::MAGIC) {
            Self::Npy
        } else if bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(b"PK\x05\x06") {
            Self::Npz
        } else if bytes.get(4..9) == Some(b"\0\0\0\0{") {
            Self::Safetensors
        } else {
            text::format_of(bytes)
        }
    }
}

/// Whether a path stands for standard input or output.
pub fn is_standard(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// The bytes of a file, read when they are needed, followed by bytes that were made from them in
/// memory.
///
/// The file is not mapped: if another process cut it short, this one would be killed, and if one
/// changed it, memory would change under the library.
#[derive(Debug)]
pub struct Contents {
    name: String,
    bytes: Bytes,
    len: usize,
    /// The bytes made in memory, and where each part of them begins.
    made: Vec<(usize, Vec<u8>)>,
}

/// The source of the bytes.
#[derive(Debug)]
enum Bytes {
    File(File),
    Memory(Vec<u8>),
}

impl Contents {
    /// Opens a file.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let fail = |e: io::Error| Failure::new(path.display(), e);
        // Asked before opening, because opening a pipe would wait for its writer.
        if !fs::metadata(path).map_err(fail)?.is_file() {
            return Err(Failure::new(path.display(), "not a regular file"));
        }
        let file = File::open(path).map_err(fail)?;
        let len = file.metadata().map_err(fail)?.len();
        let len = usize::try_from(len)
            .map_err(|_| Failure::new(path.display(), "larger than the address space"))?;
        let (name, bytes) = (path.display().to_string(), Bytes::File(file));
        Ok(Self { name, bytes, len, made: Vec::new() })
    }

    /// Reads all of standard input.
    fn standard_input() -> Result<Self, Failure> {
        /// The most bytes.
        const MOST: u64 = text::MOST as u64;
        static IS_READ: AtomicBool = AtomicBool::new(false);
        let fail = |cause: &dyn Display| Failure::new("standard input", cause);
        if IS_READ.swap(true, Ordering::Relaxed) {
            return Err(fail(&"can be read once only"));
        }
        let mut bytes = Vec::new();
        let read = io::stdin().lock().take(MOST + 1).read_to_end(&mut bytes);
        if read.map_err(|e| fail(&e))? as u64 > MOST {
            return Err(fail(&format!("more than {MOST} bytes; files may have any size")));
        }
        Ok(Self::memory("standard input", bytes))
    }

    /// Contents of these bytes.
    pub fn memory(name: &str, bytes: Vec<u8>) -> Self {
        let len = bytes.len();
        Self { name: name.into(), bytes: Bytes::Memory(bytes), len, made: Vec::new() }
    }

    /// The length when the file was opened.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Reads the bytes from `at` on, from the file or from what was made; on all threads if they
    /// are many.
    pub fn read(&self, at: usize, to: &mut [u8]) -> Result<(), Failure> {
        /// Bytes that one thread reads at a time.
        const CHUNK: usize = 1 << 20;
        if let Some(i) = self.made.partition_point(|(start, _)| *start <= at).checked_sub(1) {
            let (start, bytes) = &self.made[i];
            to.copy_from_slice(&bytes[at - start..][..to.len()]);
            return Ok(());
        }
        let file = match &self.bytes {
            Bytes::File(file) => file,
            Bytes::Memory(bytes) => {
                to.copy_from_slice(&bytes[at..at + to.len()]);
                return Ok(());
            }
        };
        let read =
            |(i, chunk): (usize, &mut [u8])| read_exact_at(file, chunk, (at + i * CHUNK) as u64);
        to.par_chunks_mut(CHUNK).enumerate().try_for_each(read).map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => {
                let now = file.metadata().map_or(0, |data| data.len());
                self.failed(format!(
                    "cut short while it was read, from {} bytes to {now}",
                    self.len
                ))
            }
            _ => self.failed(e),
        })
    }

    /// Appends zeros, to be filled by `make`, and returns their place.
    pub fn make(
        &mut self,
        bytes: usize,
        make: impl FnOnce(&Self, &mut [u8]) -> Result<(), Failure>,
    ) -> Result<Range<usize>, Failure> {
        check_memory(bytes).map_err(|e| self.failed(e))?;
        let mut new = buffer(bytes).map_err(|e| self.failed(e))?;
        make(self, &mut new)?;
        let start = self.made.last().map_or(self.len, |(start, last)| start + last.len());
        if bytes > 0 {
            self.made.push((start, new));
        }
        Ok(start..start + bytes)
    }

    /// The failure that no tensor has this name.
    pub fn no_tensor(&self, name: &str, names: &[String]) -> Failure {
        let (name, names) = (clip(name, 60), list(names.iter().map(String::as_str)));
        self.failed(format!("no tensor is called {name:?}; there is {names}"))
    }

    /// A failure about the file.
    pub fn failed(&self, cause: impl Display) -> Failure {
        Failure::new(&self.name, cause)
    }

    /// The name of the file.
    pub fn name(&self) -> &str {
        &self.name
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
    /// The tensors to compute: floating point numbers, or the chosen one.
    pub tensors: Vec<Tensor>,
    /// The other contents, which stay as they are.
    pub others: Vec<Other>,
    /// Remarks about how the file was read.
    pub remarks: Vec<String>,
    pub format: Format,
    pub notes: safetensors_file::Notes,
}

/// An item of a file: a tensor, or something else.
#[derive(Clone, Copy, Debug)]
pub enum Item<'a> {
    Tensor(&'a Tensor),
    Other(&'a Other),
}

impl<'a> Item<'a> {
    /// The order of items: those without data may be where others begin.
    fn place(&self) -> (usize, usize, Option<&'a str>) {
        match *self {
            Self::Tensor(t) => (t.data.start, t.data.end, t.name.as_deref()),
            Self::Other(other) => (other.data.start, other.data.end, Some(&other.name)),
        }
    }
}

impl Input {
    /// Opens a file, for the tensor called `only` or for all. `asked` is the format if the name
    /// does not tell it, or that of text in standard input.
    pub fn open(path: &Path, only: Option<&str>, asked: Option<Format>) -> Result<Self, Failure> {
        if is_standard(path) {
            let file = Contents::standard_input()?;
            let found = match &file.bytes {
                Bytes::Memory(bytes) => Format::of_bytes(bytes),
                Bytes::File(_) => Format::Npy,
            };
            let text = asked.filter(|asked| asked.is_text() && found.is_text());
            return Self::read(file, only, text.unwrap_or(found));
        }
        let format = Format::of_name(path).or(asked);
        let format = format.ok_or_else(|| Failure::new(path.display(), Format::UNKNOWN))?;
        Self::read(Contents::open(path)?, only, format)
    }

    /// Reads a file of this format: its headers, or what takes no more than one pass.
    pub fn read(mut file: Contents, only: Option<&str>, format: Format) -> Result<Self, Failure> {
        let has_names = matches!(format, Format::Safetensors | Format::Npz);
        if only.is_some() && !has_names {
            let cause = format!(
                "--tensor is for .safetensors and .npz: an {} file has one array without a name",
                format.extension()
            );
            return Err(file.failed(cause));
        }
        let (mut remarks, mut notes) = (Vec::new(), None);
        let (tensors, others) = match format {
            Format::Npy => (vec![npy::read(&mut file, &mut remarks)?], Vec::new()),
            Format::Npz => npz::read(&mut file, only, &mut remarks)?,
            Format::Safetensors => {
                let (tensors, others, found) = safetensors_file::read(&file, only)?;
                notes = found;
                (tensors, others)
            }
            Format::Csv | Format::Tsv | Format::Txt => {
                (vec![text::read(&mut file, format, &mut remarks)?], Vec::new())
            }
        };
        let input = Self { file, tensors, others, remarks, format, notes };
        if let (Some(_), [], [other, ..]) = (only, &*input.tensors, &*input.others) {
            return Err(input.file.failed(input.why_not(other)));
        }
        Ok(input)
    }

    /// Refuses a file with tensors of which none can be computed.
    pub fn check_any(&self) -> Result<(), Failure> {
        let ([], [other, ..]) = (&*self.tensors, &*self.others) else { return Ok(()) };
        let of = if self.others.len() == 1 { "" } else { "none of its tensors is computed: " };
        Err(self.file.failed(format!("{of}{}", self.why_not(other))))
    }

    /// The reason why something is not computed.
    fn why_not(&self, other: &Other) -> String {
        let (kind, name) = (clip(&other.kind, 40), clip(&other.name, 60));
        let file = clip(&self.file.name, 60);
        let what = format!("tensor {name:?} is");
        let python = match self.format {
            _ if other.shape.is_empty() => {
                return format!("{what} 0-d, without an axis: it has no rows");
            }
            _ if other.tensor.is_some() => {
                return format!(
                    "{what} {kind}; --tensor {name:?} takes it as numbers, which are f64 then"
                );
            }
            Format::Npz => format!("np.load({file:?})[{name:?}].astype(\"f8\")"),
            _ => format!("safetensors.torch.load_file({file:?})[{name:?}].float().numpy()"),
        };
        format!(
            "{what} {kind}, which is not supported; np.save(\"converted.npy\", {python}) converts"
        )
    }

    /// All items of the file, or the chosen one.
    pub fn items(&self) -> Vec<Item<'_>> {
        let tensors = self.tensors.iter().map(Item::Tensor);
        let mut items: Vec<_> = tensors.chain(self.others.iter().map(Item::Other)).collect();
        items.sort_by(|a, b| a.place().cmp(&b.place()));
        items
    }

    /// The one array of the file, or the only one of integers, for labels; else a message.
    fn only(&self, integers: bool) -> Result<Tensor, String> {
        let others = self.others.iter().filter_map(|other| other.tensor.as_ref());
        let mut all: Vec<_> = self.tensors.iter().chain(others).cloned().collect();
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

    /// A line of Python that rewrites `tensor`, changed so that it can be read.
    fn python(&self, tensor: &Tensor, change: &str) -> String {
        let (file, name) = (clip(&self.file.name, 60), tensor.name.as_deref().unwrap_or_default());
        let name = clip(name, 60);
        let load = match self.format {
            Format::Npy => format!("np.load({file:?})"),
            Format::Npz => format!("np.load({file:?})[{name:?}]"),
            Format::Csv => format!("np.loadtxt({file:?}, delimiter=\",\")"),
            Format::Tsv | Format::Txt => format!("np.loadtxt({file:?})"),
            Format::Safetensors => format!("safetensors.numpy.load_file({file:?})[{name:?}]"),
        };
        format!("np.save(\"converted.npy\", {load}{change})")
    }
}

/// What numbers of a file must be, besides that nothing is lost.
pub struct Wanted<T> {
    /// Whether integers are preferred where there are others.
    pub integers: bool,
    /// Converts a number, if it is one of the type.
    pub convert: fn(Number) -> Option<T>,
    /// The words for a number that is not.
    pub kind: &'static str,
    /// The Python that converts it.
    pub python: &'static str,
}

/// The numbers in a file, and their shape.
pub fn numbers<T>(
    path: &Path,
    asked: Option<Format>,
    wanted: &Wanted<T>,
) -> Result<(Vec<usize>, Vec<T>), Failure> {
    /// Elements read at a time.
    const CHUNK: usize = 1 << 20;
    let input = Input::open(path, None, asked)?;
    let file = &input.file;
    let tensor = input.only(wanted.integers).map_err(|e| file.failed(e))?;
    let (n, size, start) = (tensor.len(), tensor.stored.size(), tensor.data.start);
    let mut values = Vec::new();
    let memory = values.try_reserve_exact(n);
    memory.map_err(|_| file.failed(format!("no memory for {n} numbers")))?;
    let mut chunk = vec![0; n.min(CHUNK) * size];
    for first in (0..n).step_by(CHUNK) {
        let chunk = &mut chunk[..(n - first).min(CHUNK) * size];
        file.read(start + first * size, chunk)?;
        for bytes in chunk.chunks_exact(size) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::Dtype;

    /// Reads bytes as a file of this format, with everything in it.
    fn read_all(bytes: &[u8], format: Format) -> Result<usize, Failure> {
        let input = Input::read(Contents::memory("bytes", bytes.to_vec()), None, format)?;
        let mut elements = 0;
        for item in input.items() {
            let data = match item {
                Item::Tensor(tensor) => tensor.data.clone(),
                Item::Other(other) => other.data.clone(),
            };
            let mut bytes = vec![0; data.len()];
            input.file.read(data.start, &mut bytes)?;
            if let Item::Tensor(tensor) = item {
                let mut values = vec![0.0f64; tensor.len()];
                tensor.stored.decode(&bytes, &mut values);
                elements += values.len();
            }
        }
        Ok(elements)
    }

    /// An archive of arrays, one of them compressed.
    fn archive(array: &[u8]) -> Vec<u8> {
        let mut zip = rawzip::ZipArchiveWriter::new(Vec::new());
        for (name, method) in [
            ("a.npy", rawzip::CompressionMethod::STORE),
            ("b.npy", rawzip::CompressionMethod::DEFLATE),
        ] {
            let file = zip.new_file(name).compression_method(method);
            let (mut file, data) = file.start().expect("memory");
            let mut data = data.wrap(io::sink());
            io::Write::write_all(&mut data, array).expect("no place");
            let (_, descriptor) = data.finish().expect("no place");
            let packed = match method {
                rawzip::CompressionMethod::STORE => array.to_vec(),
                _ => miniz_oxide::deflate::compress_to_vec(array, 6),
            };
            io::Write::write_all(&mut file, &packed).expect("memory");
            file.finish(descriptor).expect("memory");
        }
        zip.finish().expect("memory")
    }

    /// Files of every format, each of which can be read.
    fn good() -> Vec<(Format, Vec<u8>)> {
        let array = |descr: &str| {
            let header = npy::header(&[3, 4], descr).expect("a short header");
            [&header[..], &[7; 96]].concat()
        };
        let fortran = String::from_utf8_lossy(&array("<f8")[10..128]).replace("False", "True ");
        let fortran = [&array("<f8")[..10], fortran.as_bytes(), &[7; 96]].concat();
        let tensor = |name: &str, stored, start| {
            Tensor::new(Some(name.into()), vec![3, 4], stored, start).expect("a small tensor")
        };
        let tensors = [tensor("a", Dtype::F32.into(), 0), tensor("b", Dtype::Bf16.into(), 48)];
        let items = tensors.each_ref().map(Item::Tensor);
        let header = safetensors_file::header(&items, |t| t.dtype, &None).expect("a header");
        vec![
            (Format::Npy, array("<f8")),
            (Format::Npy, array(">i8")),
            (Format::Npy, fortran),
            (Format::Npz, archive(&array("<f8"))),
            (Format::Safetensors, [&header[..], &[7; 72]].concat()),
            (Format::Csv, b"a,b\n1,\"2.5\"\n-inf,4e-5\n".to_vec()),
            (Format::Tsv, b"1\t2\n3\t4\n".to_vec()),
            (Format::Txt, b"# 1\n 1 2  3\n\n4 5 nan".to_vec()),
        ]
    }

    /// Any contents are read or refused, and soon.
    #[test]
    fn broken_files_do_no_harm() {
        let good = good();
        let mut state = 1u64;
        let mut random = move |n: usize| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) as usize % n
        };
        for (format, bytes) in &good {
            assert!(read_all(bytes, *format).is_ok_and(|n| n > 0), "{format:?}");
        }
        let started = std::time::Instant::now();
        const ROUNDS: usize = 200_000;
        let (mut read, mut refused) = (0, 0);
        for round in 0..ROUNDS {
            let (format, bytes) = &good[round % good.len()];
            let mut bytes = bytes.clone();
            for _ in 0..1 + random(3) {
                let at = random(bytes.len());
                match random(6) {
                    0 => bytes[at] = random(256) as u8,
                    1 => bytes[at] ^= 1 << random(8),
                    2 => bytes[at] = b"0123456789,.-\"#\n\t LTFu()[]{}"[random(28)],
                    3 => bytes.truncate(at + 1),
                    4 => drop(bytes.splice(at..at, [0xff; 8])),
                    _ => {
                        let end = (at + 4).min(bytes.len());
                        bytes[at..end].fill([0, 0xff, 0x7f][random(3)]);
                    }
                }
            }
            // As its own format, or as another.
            let format = if random(8) == 0 { good[random(good.len())].0 } else { *format };
            match read_all(&bytes, format) {
                Ok(_) => read += 1,
                Err(_) => refused += 1,
            }
        }
        // Some files were still whole, and some were not.
        assert!(read > ROUNDS / 10 && refused > ROUNDS / 10, "{read} {refused}");
        assert!(started.elapsed().as_secs() < 60, "{:?}", started.elapsed());
    }
}
