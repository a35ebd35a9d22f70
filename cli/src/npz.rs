//! Arrays in an `.npz` file: a ZIP archive of `.npy` files.
//!
//! An array that NumPy has only stored (`np.savez`) is read in place, as an `.npy` file; one that
//! it has compressed (`np.savez_compressed`) is unpacked in memory. Checksums are compared in both
//! cases.

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;

use miniz_oxide::inflate::decompress_slice_iter_to_slice;
use rawzip::{CompressionMethod, Crc32, RECOMMENDED_BUFFER_SIZE, ReaderAt, ZipLocator};

use crate::failure::{Failure, clip};
use crate::input::Contents;
use crate::memory::buffer;
use crate::npy::Header;
use crate::stored::Stored;
use crate::tensor::{Other, Tensor};

/// The end of the name of an array's file.
pub const SUFFIX: &str = ".npy";

/// A file in the archive, from the directory.
struct Member {
    name: String,
    is_deflated: bool,
    /// Its bytes in the archive.
    packed: Range<usize>,
    /// Its length and checksum when it is unpacked.
    len: usize,
    crc: u32,
}

/// Reads the arrays of floats and the others, or the one called `only`.
pub fn read(
    file: &mut Contents,
    only: Option<&str>,
    remarks: &mut Vec<String>,
) -> Result<(Vec<Tensor>, Vec<Other>), Failure> {
    let members = members(file)?;
    let names: Vec<_> = members.iter().map(|member| member.name.clone()).collect();
    if let Some(twice) = twice(&names) {
        return Err(file.failed(format!("two of its arrays are called {:?}", clip(twice, 60))));
    }
    if let Some(only) = only.filter(|only| !names.iter().any(|name| name == only)) {
        return Err(file.no_tensor(only, &names));
    }
    let (mut tensors, mut others) = (Vec::new(), Vec::new());
    for member in members {
        let name = member.name.clone();
        if only.is_some_and(|only| only != name) {
            continue;
        }
        let failed = |e: Failure| e.about(&format!("array {:?}", clip(&name, 60)));
        let data = unpack(file, member).map_err(failed)?;
        let header = Header::read(file, &data).map_err(failed)?;
        let (kind, shape) = (header.descr.clone(), header.shape.clone());
        let stored = Stored::of_npy(&kind).filter(|_| !shape.is_empty());
        let mut tensor = None;
        if stored.is_some() {
            let read = header.tensor(file, data.clone(), Some(name.clone()), remarks);
            tensor = Some(read.map_err(failed)?);
        }
        match tensor {
            Some(tensor) if only.is_some() || tensor.stored.is_float() => tensors.push(tensor),
            tensor => others.push(Other { name, kind, shape, data, tensor }),
        }
    }
    Ok((tensors, others))
}

/// The first name that occurs twice.
fn twice(names: &[String]) -> Option<&String> {
    let mut seen = BTreeSet::new();
    names.iter().find(|name| !seen.insert(*name))
}

/// Reads the directory of an archive, and checks it against the archive's length.
fn members(file: &Contents) -> Result<Vec<Member>, Failure> {
    let not = |e: rawzip::Error| file.failed(format!("not an .npz file: {e}"));
    let mut buffer = vec![0; RECOMMENDED_BUFFER_SIZE];
    let end = file.len() as u64;
    let archive = ZipLocator::new().locate_in_reader(Reader(file), &mut buffer, end);
    let archive = archive.map_err(|(_, e)| not(e))?;
    let mut found = Vec::new();
    let mut entries = archive.entries(&mut buffer);
    while let Some(entry) = entries.next_entry().map_err(not)? {
        let path = String::from_utf8_lossy(entry.file_path().as_bytes()).into_owned();
        let shown = format!("{:?}", clip(&path, 60));
        let failed = |cause: &str| file.failed(format!("its file {shown} {cause}"));
        let name = path.strip_suffix(SUFFIX).ok_or_else(|| failed("is no .npy file"))?.to_owned();
        let is_deflated = match entry.compression_method() {
            CompressionMethod::STORE => false,
            CompressionMethod::DEFLATE => true,
            _ => return Err(failed("is compressed in another way than NumPy does it")),
        };
        if entry.flags().is_encrypted() {
            return Err(failed("is encrypted"));
        }
        let (place, len) = (entry.wayfinder(), entry.uncompressed_size_hint());
        found.push((name, is_deflated, place, len, entry.crc32(), shown));
    }
    let member = |(name, is_deflated, place, len, crc, shown)| {
        let (start, end) = archive.get_entry(place).map_err(not)?.compressed_data_range();
        let wrong = || file.failed(format!("its file {shown} is not where its directory says"));
        let within = start <= end && end <= file.len() as u64;
        let (packed, len): (Range<usize>, usize) = match usize::try_from(len) {
            Ok(len) if within => (start as usize..end as usize, len),
            _ => return Err(wrong()),
        };
        // A byte of DEFLATE makes at most 1,032.
        let most = if is_deflated { packed.len().saturating_mul(1032) } else { packed.len() };
        if len > most || !is_deflated && len != packed.len() {
            return Err(wrong());
        }
        Ok(Member { name, is_deflated, packed, len, crc })
    };
    found.into_iter().map(member).collect()
}

/// Unpacks a file of the archive, and returns the place of its bytes.
fn unpack(file: &mut Contents, member: Member) -> Result<Range<usize>, Failure> {
    let Member { is_deflated, packed, len, crc, .. } = member;
    let wrong = |file: &Contents| file.failed("its bytes are not those that were packed");
    if is_deflated {
        return file.make(len, |file, to| {
            let mut bytes = buffer(packed.len()).map_err(|e| file.failed(e))?;
            file.read(packed.start, &mut bytes)?;
            let done = decompress_slice_iter_to_slice(to, [&*bytes].into_iter(), false, true);
            if done != Ok(len) || rawzip::crc32(to) != crc {
                return Err(wrong(file));
            }
            Ok(())
        });
    }
    const CHUNK: usize = 1 << 22;
    let mut checksum = Crc32::new();
    let mut chunk = vec![0; CHUNK.min(len)];
    for start in packed.clone().step_by(CHUNK) {
        let chunk = &mut chunk[..CHUNK.min(packed.end - start)];
        file.read(start, chunk)?;
        checksum.update(chunk);
    }
    if checksum.checksum() == crc { Ok(packed) } else { Err(wrong(file)) }
}

/// A file as rawzip reads it.
struct Reader<'a>(&'a Contents);

impl ReaderAt for Reader<'_> {
    fn read_at(&self, to: &mut [u8], at: u64) -> io::Result<usize> {
        let at = usize::try_from(at).unwrap_or(usize::MAX).min(self.0.len());
        let n = to.len().min(self.0.len() - at);
        self.0.read(at, &mut to[..n]).map_err(|e| io::Error::other(e.to_string()))?;
        Ok(n)
    }
}
