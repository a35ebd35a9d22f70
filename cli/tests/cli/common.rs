//! Input files, and the command itself.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use bytemuck::{Pod, cast_slice};
use half::{bf16, f16};
use safetensors::tensor::{Dtype, TensorView};
use softmax::Element;
use tempfile::TempDir;

/// The command, with an environment that does not choose a kernel.
pub fn softmax() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_softmax"));
    command.env_remove("SOFTMAX_KERNEL").env_remove("RAYON_NUM_THREADS");
    command
}

/// A temporary folder.
pub struct Folder(TempDir);

impl Folder {
    pub fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file.
    pub fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// The names of the files in it, sorted.
    pub fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.0.path()).unwrap();
        let mut names: Vec<_> =
            entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

/// Files and options.
pub fn arguments<'a>(files: &'a [&'a Path], options: &'a [&'a str]) -> Vec<&'a dyn AsRef<OsStr>> {
    let files = files.iter().map(|file| file as &dyn AsRef<OsStr>);
    files.chain(options.iter().map(|option| option as &dyn AsRef<OsStr>)).collect()
}

/// Runs `softmax command arguments ...`.
pub fn call(command: &str, arguments: &[&dyn AsRef<OsStr>]) -> Output {
    softmax().arg(command).args(arguments).output().unwrap()
}

/// As [`call`], which must succeed; returns the output.
pub fn call_ok(command: &str, arguments: &[&dyn AsRef<OsStr>]) -> String {
    let out = call(command, arguments);
    let stderr = String::from_utf8(out.stderr).unwrap();
    assert!(out.status.success(), "{command}: {stderr}");
    assert_eq!(stderr, "", "nothing is printed on a stderr that is no terminal");
    String::from_utf8(out.stdout).unwrap()
}

/// As [`call`], which must fail with one line that names `about.0` and contains `about.1`, and must
/// add no file to the folder.
pub fn call_refused(
    folder: &Folder,
    command: &str,
    arguments: &[&dyn AsRef<OsStr>],
    about: (&str, &str),
) {
    let before = folder.names();
    let out = call(command, arguments);
    let stderr = String::from_utf8(out.stderr).unwrap();
    let (subject, cause) = about;
    assert_eq!(out.status.code(), Some(2), "{command} {about:?}: {stderr}");
    assert_eq!(out.stdout, b"", "{about:?}");
    assert!(stderr.starts_with(&format!("softmax: {subject}: ")), "{subject}: {stderr}");
    assert!(stderr.contains(cause), "{cause}: {stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.ends_with('\n'));
    assert_eq!(folder.names(), before, "{cause}");
}

/// Runs `softmax run input output ...`.
pub fn run(input: &Path, output: &Path, options: &[&str]) -> Output {
    softmax().arg("run").args([input, output]).args(options).output().unwrap()
}

/// As [`run`], which must succeed; returns the lines of output.
pub fn run_ok(input: &Path, output: &Path, options: &[&str]) -> Vec<String> {
    call_ok("run", &arguments(&[input, output], options)).lines().map(str::to_owned).collect()
}

/// A `.npy` file whose data starts at a multiple of `align`.
pub fn npy_aligned(align: usize, descr: &str, fortran: bool, shape: &str, data: &[u8]) -> Vec<u8> {
    let fortran = if fortran { "True" } else { "False" };
    let mut text =
        format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}");
    while (10 + text.len() + 1) % align != 0 {
        text.push(' ');
    }
    text.push('\n');
    let length = u16::try_from(text.len()).unwrap().to_le_bytes();
    [b"\x93NUMPY\x01\x00", &length[..], text.as_bytes(), data].concat()
}

/// A `.npy` file as NumPy writes it.
pub fn npy(descr: &str, shape: &[usize], data: &[u8]) -> Vec<u8> {
    let shape = match shape {
        [n] => format!("({n},)"),
        dims => format!("{dims:?}").replace('[', "(").replace(']', ")"),
    };
    npy_aligned(64, descr, false, &shape, data)
}

/// A sparse file of zeros: an array of f32 with this shape.
pub fn zeros(folder: &Folder, name: &str, shape: &[usize]) -> PathBuf {
    let input = folder.file(name, &npy("<f4", shape, &[]));
    let file = std::fs::File::options().write(true).open(&input).unwrap();
    let data = 4 * shape.iter().product::<usize>() as u64;
    file.set_len(file.metadata().unwrap().len() + data).unwrap();
    input
}

/// A `.safetensors` file of some tensors.
pub fn safetensors(tensors: &[(&str, Dtype, &[usize], &[u8])]) -> Vec<u8> {
    let views = tensors.iter().map(|(name, dtype, shape, data)| {
        (name.to_string(), TensorView::new(*dtype, shape.to_vec(), data).unwrap())
    });
    let notes = [("b", "2"), ("a", "1"), ("format", "pt")];
    let notes = notes.map(|(k, v)| (k.to_string(), v.to_string())).into_iter().collect();
    safetensors::serialize(views, Some(notes)).unwrap()
}

/// Logits that differ, from -12 to 12, the same at every run.
pub fn logits(n: usize) -> Vec<f64> {
    let mut state = 1u64;
    let next = |_| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 11) as f64 / (1u64 << 53) as f64 * 24.0 - 12.0
    };
    (0..n).map(next).collect()
}

/// An element type, as the two formats and the option `--dtype` name it.
pub trait File: Element + Pod {
    const DESCR: Option<&'static str>;
    const DTYPE: Dtype;
}

impl File for f32 {
    const DESCR: Option<&'static str> = Some("<f4");
    const DTYPE: Dtype = Dtype::F32;
}
impl File for f64 {
    const DESCR: Option<&'static str> = Some("<f8");
    const DTYPE: Dtype = Dtype::F64;
}
impl File for f16 {
    const DESCR: Option<&'static str> = Some("<f2");
    const DTYPE: Dtype = Dtype::F16;
}
impl File for bf16 {
    const DESCR: Option<&'static str> = None;
    const DTYPE: Dtype = Dtype::BF16;
}

/// [`logits`] of a type.
pub fn values<T: Element>(n: usize) -> Vec<T> {
    logits(n).into_iter().map(T::from_f64).collect()
}

/// The files of an array, one for each format that has its type.
pub fn files<T: File>(folder: &Folder, shape: &[usize], x: &[T]) -> Vec<PathBuf> {
    let tensors = safetensors(&[("x", T::DTYPE, shape, cast_slice(x))]);
    let mut files = vec![folder.file("in.safetensors", &tensors)];
    if let Some(descr) = T::DESCR {
        files.push(folder.file("in.npy", &npy(descr, shape, cast_slice(x))));
    }
    files
}
