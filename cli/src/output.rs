//! The file that is written: it appears under its name only when it is complete.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::failure::Failure;

/// A file to be, under a temporary name beside its own. Dropping it removes it.
#[derive(Debug)]
pub struct Output {
    name: String,
    target: PathBuf,
    replace: bool,
    file: NamedTempFile,
}

/// Refuses an output that exists, unless `force`; gives the file to create or replace.
pub fn target(path: &Path, force: bool) -> Result<PathBuf, Failure> {
    let fail = |cause| Err(Failure::new(path.display(), cause));
    if fs::symlink_metadata(path).is_err() {
        return Ok(path.to_owned());
    }
    if !force {
        return fail("exists already; --force replaces it");
    }
    // A link stays, and what it points to is replaced, as if it were written.
    let target = fs::canonicalize(path).map_err(|e| Failure::new(path.display(), e))?;
    if !target.is_file() {
        return fail("not a regular file");
    }
    Ok(target)
}

impl Output {
    /// Starts the file `target`, called `path` in messages.
    pub fn create(path: &Path, target: PathBuf, replace: bool) -> Result<Self, Failure> {
        let folder = target.parent().filter(|p| !p.as_os_str().is_empty());
        let mut builder = tempfile::Builder::new();
        builder.prefix(".softmax-");
        // As any new file; the umask takes away what it takes away. A temporary one is private by default.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let file = builder
            .tempfile_in(folder.unwrap_or(Path::new(".")))
            .map_err(|e| Failure::new(path.display(), format!("cannot be created: {e}")))?;
        Ok(Self { name: path.display().to_string(), target, replace, file })
    }

    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.file.as_file_mut().write_all(bytes).map_err(|e| self.failed(e))
    }

    /// Gives the file its name. Like any other program's output, it is on the disk when the system
    /// writes it there, not before.
    pub fn finish(self) -> Result<(), Failure> {
        let done = if self.replace {
            self.file.persist(&self.target)
        } else {
            self.file.persist_noclobber(&self.target)
        };
        done.map(drop).map_err(|e| Failure::new(self.name, e.error))
    }

    fn failed(&self, e: io::Error) -> Failure {
        Failure::new(&self.name, format!("cannot be written: {e}"))
    }
}
