//! The output file: it appears under its name only when it is complete.
//!
//! Until then it has no name at all if the file system supports that, so that nothing is left of it
//! however the program ends. If not, it has a hidden name, which begins with the final one, and is
//! removed if a signal ends the program.

use std::ffi::OsString;
use std::fmt::Display;
use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::failure::Failure;
use crate::input::{Format, is_standard};
use crate::{npy, signals};

/// A file that is not complete yet. Dropping it removes it.
#[derive(Debug)]
pub struct Output {
    target: Target,
    file: Temporary,
    written: usize,
}

/// The place of a file: free, or allowed to be replaced.
#[derive(Debug)]
pub struct Target {
    name: String,
    folder: PathBuf,
    file: OsString,
    replace: bool,
}

impl Target {
    /// Refuses a file that exists, unless `force`; one of another format; and one that could not be
    /// replaced in the end.
    pub fn new(path: &Path, format: Format, force: bool) -> Result<Self, Failure> {
        if Format::of_name(path) != Some(format) {
            let cause = format!("the extension must be {}", format.extension());
            return Err(Failure::new(path.display(), cause));
        }
        Self::any(path, force)
    }

    /// As [`Target::any`], or standard output.
    pub fn standard_or(path: &Path, force: bool) -> Result<Self, Failure> {
        if !is_standard(path) {
            return Self::any(path, force);
        }
        let name = "standard output".to_owned();
        Ok(Self { name, folder: PathBuf::new(), file: OsString::new(), replace: false })
    }

    fn is_standard(&self) -> bool {
        self.file.is_empty()
    }

    /// As [`Target::new`], for any format.
    pub fn any(path: &Path, force: bool) -> Result<Self, Failure> {
        let fail = |cause: &dyn Display| Failure::new(path.display(), cause);
        let found = match fs::symlink_metadata(path) {
            Ok(found) => Some(found),
            Err(e) if e.kind() == ErrorKind::NotFound => None,
            Err(e) => return Err(fail(&e)),
        };
        if found.is_some() && !force {
            return Err(fail(&"exists already; --force replaces it"));
        }
        // A link stays, and the file that it points to is replaced, as writing would do.
        let target = match found {
            Some(_) => fs::canonicalize(path).map_err(|e| fail(&e))?,
            None => path.to_owned(),
        };
        // Refuses paths that only a folder can have: "out.npy/".
        let name = target.file_name().unwrap_or_default();
        let ends = target.as_os_str().as_encoded_bytes().ends_with(name.as_encoded_bytes());
        if name.is_empty() || !ends {
            return Err(fail(&"not the name of a file"));
        }
        let folder = target.parent().filter(|p| !p.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        if found.is_some() {
            check_replaceable(&target, folder).map_err(|e| fail(&e))?;
        }
        Ok(Self {
            name: path.display().to_string(),
            folder: folder.to_owned(),
            file: name.to_owned(),
            replace: force,
        })
    }

    /// As [`Target::new`], for a file that may not be wanted.
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

    /// As [`Target::create`], with binary data, which a terminal is not given.
    pub fn create_binary(self, header: &[u8]) -> Result<Output, Failure> {
        if self.is_standard() && io::stdout().is_terminal() {
            return Err(self.failed("a terminal shows text only: --format csv, or redirect it"));
        }
        self.create(header)
    }

    /// Starts the file with these bytes.
    pub fn create(self, header: &[u8]) -> Result<Output, Failure> {
        signals::survive_size_limit();
        let file =
            Temporary::create(&self).map_err(|e| self.failed(format!("cannot be created: {e}")))?;
        let mut output = Output { target: self, file, written: 0 };
        output.write(header)?;
        Ok(output)
    }

    /// A failure about the file.
    pub fn failed(&self, cause: impl Display) -> Failure {
        Failure::new(&self.name, cause)
    }

    /// The name of the file.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn path(&self) -> PathBuf {
        self.folder.join(&self.file)
    }

    /// Creates something in the folder under a hidden name that begins with the file's.
    fn hidden<R>(
        &self,
        mut create: impl FnMut(&Path) -> io::Result<R>,
    ) -> io::Result<NamedTempFile<R>> {
        // A name may have 255 bytes; the rest is for the other letters.
        let name = self.file.to_string_lossy();
        let end = (0..=name.len().min(200)).rev().find(|&end| name.is_char_boundary(end));
        let prefix = format!(".{}.softmax-", &name[..end.unwrap_or(0)]);
        tempfile::Builder::new().prefix(&prefix).make_in(&self.folder, |path| {
            signals::remove(path);
            create(path).inspect_err(|_| signals::keep(path))
        })
    }

    /// Renames what [`Target::hidden`] created to the file's name.
    fn persist<R>(&self, file: NamedTempFile<R>) -> io::Result<()> {
        let hidden = file.path().to_owned();
        let path = self.path();
        let done = if self.replace {
            file.persist(path).map(drop).map_err(|e| e.error)
        } else {
            file.persist_noclobber(path).map(drop).map_err(|e| e.error)
        };
        signals::keep(&hidden);
        done
    }
}

/// Refuses targets that are the same file: one would be lost.
pub fn check_distinct<'a>(targets: impl Iterator<Item = &'a Target>) -> Result<(), Failure> {
    let mut seen = Vec::new();
    for target in targets {
        let place = (place(&target.folder), &target.file);
        if let Some((_, name)) = seen.iter().find(|(other, _)| *other == place) {
            return Err(target.failed(format!("the same file as {name}, which is written, too")));
        }
        seen.push((place, &target.name));
    }
    Ok(())
}

/// The device and the number of a folder, whatever its path.
#[cfg(unix)]
fn place(folder: &Path) -> Result<[u64; 2], PathBuf> {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(folder).map(|data| [data.dev(), data.ino()]).map_err(|_| folder.to_owned())
}

#[cfg(not(unix))]
fn place(folder: &Path) -> PathBuf {
    fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned())
}

/// Checks early whether a file may be replaced, which would otherwise be found only when its
/// successor is complete.
fn check_replaceable(target: &Path, folder: &Path) -> Result<(), String> {
    let old = fs::metadata(target).map_err(|e| e.to_string())?;
    if !old.is_file() {
        return Err("not a regular file".into());
    }
    let read_only = "read-only, which --force does not change";
    if old.permissions().readonly() {
        return Err(read_only.into());
    }
    // Finds reasons that permissions do not show.
    if let Err(e) = File::options().append(true).open(target) {
        return Err(format!("{read_only}: {e}"));
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let of = fs::metadata(folder).map_err(|e| e.to_string())?;
        let user = rustix::process::geteuid().as_raw();
        const STICKY: u32 = 0o1000;
        if of.mode() & STICKY != 0 && ![0, old.uid(), of.uid()].contains(&user) {
            return Err("another user's file in a folder where only its owner replaces it".into());
        }
    }
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
        let has = |path, attribute| {
            statx(CWD, path, AtFlags::empty(), StatxFlags::empty())
                .is_ok_and(|stat| stat.stx_attributes.contains(attribute))
        };
        if has(target, StatxAttributes::APPEND) || has(folder, StatxAttributes::APPEND) {
            return Err("cannot be replaced: it, or its folder, is for appending only".into());
        }
        if has(target, StatxAttributes::MOUNT_ROOT) {
            return Err("cannot be replaced: something is mounted there".into());
        }
    }
    #[cfg(not(unix))]
    let _ = folder;
    Ok(())
}

/// A file without its final name.
#[derive(Debug)]
enum Temporary {
    /// A file without any name.
    #[cfg(target_os = "linux")]
    Unnamed(File),
    /// A file with a hidden name.
    Hidden(NamedTempFile<File>),
    /// Standard output, written at once; and whether its reader is gone.
    Standard { is_gone: bool },
}

impl Temporary {
    fn create(target: &Target) -> io::Result<Self> {
        if target.is_standard() {
            return Ok(Self::Standard { is_gone: false });
        }
        #[cfg(target_os = "linux")]
        {
            use rustix::fs::{Mode, OFlags, open};
            let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
            // The mode of any new file, reduced by the umask.
            let mode = Mode::from_raw_mode(0o666);
            if let Ok(file) = open(&target.folder, flags, mode).map(File::from)
                // This path names the file later.
                && fs::metadata(link_to(&file)).is_ok()
            {
                return Ok(Self::Unnamed(file));
            }
        }
        // A folder that refuses any file refuses this one, too, with its reason.
        let mut options = File::options();
        options.write(true).create_new(true);
        #[cfg(unix)]
        if target.path().exists() {
            // Private until it gets the permissions of the file that it replaces.
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        }
        target.hidden(|path| options.open(path)).map(Self::Hidden)
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let is_gone = match self {
            #[cfg(target_os = "linux")]
            Self::Unnamed(file) => return file.write_all(bytes),
            Self::Hidden(file) => return file.as_file_mut().write_all(bytes),
            Self::Standard { is_gone } => is_gone,
        };
        match if *is_gone { Ok(()) } else { io::stdout().write_all(bytes) } {
            Err(e) if e.kind() == ErrorKind::BrokenPipe => *is_gone = true,
            done => done?,
        }
        Ok(())
    }

    fn finish(mut self, target: &Target) -> io::Result<()> {
        if target.replace
            && let Ok(old) = fs::metadata(target.path())
        {
            match &mut self {
                #[cfg(target_os = "linux")]
                Self::Unnamed(file) => keep_access(file, &target.path(), &old)?,
                Self::Hidden(file) => keep_access(file.as_file(), &target.path(), &old)?,
                Self::Standard { .. } => {}
            }
        }
        match self {
            Self::Standard { .. } => match io::stdout().flush() {
                Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(()),
                done => done,
            },
            #[cfg(target_os = "linux")]
            Self::Unnamed(file) => {
                use rustix::fs::{AtFlags, CWD, linkat};
                let link = |path: &Path| {
                    let flags = AtFlags::SYMLINK_FOLLOW;
                    linkat(CWD, link_to(&file), CWD, path, flags).map_err(io::Error::from)
                };
                match link(&target.path()) {
                    // A link does not take a name that exists, a renaming does.
                    Err(e) if e.kind() == ErrorKind::AlreadyExists && target.replace => {
                        target.persist(target.hidden(link)?)
                    }
                    done => done,
                }
            }
            Self::Hidden(file) => target.persist(file),
        }
    }
}

/// The system's path of an open file.
#[cfg(target_os = "linux")]
fn link_to(file: &File) -> String {
    use std::os::fd::AsRawFd;
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

/// Gives a file the owner and the permissions of the one that it replaces, as far as this user may;
/// where not, nobody gets more access than before.
fn keep_access(file: &File, path: &Path, old: &Metadata) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
        let new = file.metadata()?;
        let same = new.uid() == old.uid() && new.gid() == old.gid();
        if !same && fchown(file, Some(old.uid()), Some(old.gid())).is_err() {
            // Changing the group alone may be allowed.
            let _ = fchown(file, None, Some(old.gid()));
        }
        let mut mode = old.mode() & 0o777;
        if !keep_list(file, path) || file.metadata()?.gid() != old.gid() {
            // Members of the old group may count among the others now, and vice versa.
            let both = (mode >> 3) & mode & 0o007;
            mode = mode & 0o700 | both << 3 | both;
        }
        file.set_permissions(fs::Permissions::from_mode(mode))?;
    }
    #[cfg(not(unix))]
    let _ = (file, path, old);
    Ok(())
}

/// Gives a file the access control list of another one, or none. Returns whether that was possible.
#[cfg(target_os = "linux")]
fn keep_list(file: &File, path: &Path) -> bool {
    use rustix::fs::{XattrFlags, fremovexattr, fsetxattr, getxattr};
    const LIST: &str = "system.posix_acl_access";
    // The longest list that the kernel accepts.
    let mut list = vec![0; 1 << 16];
    match getxattr(path, LIST, &mut list[..]) {
        Ok(n) => fsetxattr(file, LIST, &list[..n], XattrFlags::empty()).is_ok(),
        Err(_) => {
            // Removes a list that the folder gave it.
            let _ = fremovexattr(file, LIST);
            true
        }
    }
}

#[cfg(all(unix, not(target_os = "linux")))]
fn keep_list(_: &File, _: &Path) -> bool {
    true
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_all(bytes)?;
        self.written += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Output {
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let written = self.file.write_all(bytes);
        written.map_err(|e| self.target.failed(format!("cannot be written: {e}")))?;
        self.written += bytes.len();
        Ok(())
    }

    /// Whether the reader of standard output is gone.
    pub fn is_gone(&self) -> bool {
        matches!(self.file, Temporary::Standard { is_gone: true })
    }

    /// Gives the file its name and returns its size in bytes. As with other programs, the system
    /// may write it to the disk later.
    pub fn finish(self) -> Result<usize, Failure> {
        let Self { target, file, written } = self;
        file.finish(&target).map_err(|e| match e.kind() {
            ErrorKind::AlreadyExists => target.failed("exists by now; --force replaces it"),
            _ => target.failed(e),
        })?;
        Ok(written)
    }
}
