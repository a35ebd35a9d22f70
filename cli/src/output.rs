//! The file that is written: it appears under its name only when it is complete.

use std::fmt::Display;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::failure::Failure;
use crate::input::Format;
use crate::npy;

/// A file to be, under a temporary name beside its own. Dropping it removes it.
#[derive(Debug)]
pub struct Output {
    target: Target,
    file: NamedTempFile,
    written: usize,
}

/// Where a file is to be: a place that is free, or may be used again.
#[derive(Debug)]
pub struct Target {
    name: String,
    target: PathBuf,
    replace: bool,
}

impl Target {
    /// Refuses a file that exists, unless `force`, and one of another format.
    pub fn new(path: &Path, format: Format, force: bool) -> Result<Self, Failure> {
        if Format::of(path)? != format {
            let cause = format!("the extension must be {}", format.extension());
            return Err(Failure::new(path.display(), cause));
        }
        Self::any(path, force)
    }

    /// As [`Target::new`], of any format.
    pub fn any(path: &Path, force: bool) -> Result<Self, Failure> {
        let fail = |cause: &str| Err(Failure::new(path.display(), cause));
        let new = |target| Self { name: path.display().to_string(), target, replace: force };
        if fs::symlink_metadata(path).is_err() {
            return Ok(new(path.to_owned()));
        }
        if !force {
            return fail("exists already; --force replaces it");
        }
        // A link stays, and what it points to is replaced, as if it were written.
        let target = fs::canonicalize(path).map_err(|e| Failure::new(path.display(), e))?;
        if !target.is_file() {
            return fail("not a regular file");
        }
        Ok(new(target))
    }

    /// As [`Target::new`], of a file that may not be wanted.
    pub fn wanted(
        path: Option<&Path>,
        format: Format,
        force: bool,
    ) -> Result<Option<Self>, Failure> {
        path.map(|path| Self::new(path, format, force)).transpose()
    }

    /// Starts an .npy file.
    pub fn create_npy(self, shape: &[usize], descr: &str) -> Result<Output, Failure> {
        let header = npy::header(shape, descr).map_err(|e| self.failed(e))?;
        self.create(&header)
    }

    /// Starts the file with these bytes.
    pub fn create(self, header: &[u8]) -> Result<Output, Failure> {
        let folder = self.target.parent().filter(|p| !p.as_os_str().is_empty());
        let mut builder = tempfile::Builder::new();
        builder.prefix(".softmax-");
        // As any new file; the umask takes away what it takes away. A temporary one is private by default.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let file = builder
            .tempfile_in(folder.unwrap_or(Path::new(".")))
            .map_err(|e| self.failed(format!("cannot be created: {e}")))?;
        let mut output = Output { target: self, file, written: 0 };
        output.write(header)?;
        Ok(output)
    }

    /// What is wrong with the file.
    pub fn failed(&self, cause: impl Display) -> Failure {
        Failure::new(&self.name, cause)
    }
}

impl Output {
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let written = self.file.as_file_mut().write_all(bytes);
        written.map_err(|e| self.target.failed(format!("cannot be written: {e}")))?;
        self.written += bytes.len();
        Ok(())
    }

    /// Gives the file its name; gives its bytes. Like any other program's output, it is on the disk when the system
    /// writes it there, not before.
    pub fn finish(self) -> Result<usize, Failure> {
        let done = if self.target.replace {
            self.file.persist(&self.target.target)
        } else {
            self.file.persist_noclobber(&self.target.target)
        };
        done.map_err(|e| Failure::new(self.target.name, e.error))?;
        Ok(self.written)
    }
}
