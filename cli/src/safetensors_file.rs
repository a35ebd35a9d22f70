//! The header of a `.safetensors` file: its length, and a JSON object of names.

use std::collections::{BTreeMap, HashMap};

use safetensors::tensor::{Metadata, TensorInfo};
use serde_json::json;

use crate::dtype::Dtype;
use crate::failure::{Failure, clip};
use crate::input::{Contents, Item};
use crate::stored::Stored;
use crate::tensor::{Other, Tensor, bytes_of};

/// The metadata of a file beside its tensors.
pub type Notes = Option<HashMap<String, String>>;

/// Bytes of the length of a header.
const LENGTH: usize = size_of::<u64>();

/// The most bytes of a header, as the format allows.
const MOST: u64 = 100_000_000;

/// Reads the tensors of floats and the others, or the one called `only`.
pub fn read(
    file: &Contents,
    only: Option<&str>,
) -> Result<(Vec<Tensor>, Vec<Other>, Notes), Failure> {
    let (length, metadata) = metadata(file)?;
    let names = metadata.offset_keys();
    let start = LENGTH + length;
    if let Some(only) = only.filter(|only| metadata.info(only).is_none()) {
        return Err(file.no_tensor(only, &names));
    }
    let (mut tensors, mut others) = (Vec::new(), Vec::new());
    for name in names.iter().filter(|name| only.is_none_or(|only| only == *name)) {
        let Some(TensorInfo { dtype, shape, data_offsets }) = metadata.info(name) else { continue };
        let data = start + data_offsets.0..start + data_offsets.1;
        let stored = Stored::of_safetensors(*dtype).filter(|_| !shape.is_empty());
        let tensor = stored
            .map(|stored| Tensor::new(Some(name.clone()), shape.clone(), stored, data.start))
            .transpose()
            .map_err(|e| file.failed(format!("tensor {:?}: {e}", clip(name, 60))))?;
        match tensor {
            // A chosen tensor is computed if it can be.
            Some(tensor) if only.is_some() || tensor.stored.is_float() => tensors.push(tensor),
            tensor => {
                let (name, kind, shape) = (name.clone(), dtype.to_string(), shape.clone());
                others.push(Other { name, kind, shape, data, tensor });
            }
        }
    }
    Ok((tensors, others, metadata.metadata().clone()))
}

/// Reads the header and its length; its tensors fill the rest of the file.
fn metadata(file: &Contents) -> Result<(usize, Metadata), Failure> {
    let not = |cause: String| file.failed(format!("not a .safetensors file: {cause}"));
    let mut length = [0; LENGTH];
    if file.len() < LENGTH {
        return Err(not(format!("{} bytes are no header", file.len())));
    }
    file.read(0, &mut length)?;
    let length = u64::from_le_bytes(length);
    if length > MOST {
        return Err(not(format!("a header of {length} bytes, more than {MOST}")));
    }
    let length = length as usize;
    let found = file.len() - LENGTH;
    if length > found {
        return Err(file.failed(format!(
            "truncated: the header has {length} bytes, of which {found} are there"
        )));
    }
    let mut text = vec![0; length];
    file.read(LENGTH, &mut text)?;
    // This checks that the tensors' shapes and offsets fit each other.
    let metadata: Metadata = serde_json::from_slice(&text).map_err(|e| not(e.to_string()))?;
    let (needed, found) = (metadata.data_len(), found - length);
    if needed != found {
        let what = if found < needed { "truncated" } else { "too long" };
        return Err(
            file.failed(format!("{what}: the tensors need {needed} bytes of data, got {found}"))
        );
    }
    Ok((length, metadata))
}

/// The header for these items, with tensors as `dtype`; their data follow, one after another. The
/// same items always give the same bytes.
pub fn header(
    items: &[Item],
    dtype: impl Fn(&Tensor) -> Dtype,
    notes: &Notes,
) -> Result<Vec<u8>, String> {
    let mut entries = Vec::new();
    if let Some(notes) = notes {
        let sorted: BTreeMap<_, _> = notes.iter().collect();
        entries.push(("__metadata__", json!(sorted)));
    }
    let mut offset = 0usize;
    for item in items {
        let start = offset;
        let (name, kind, shape, bytes) = match item {
            Item::Tensor(t) => {
                let (name, dtype) = (t.name.as_deref().unwrap_or_default(), dtype(t));
                let kind = dtype.name().to_uppercase();
                (name, kind, &t.shape, bytes_of(&t.shape, dtype.size())?)
            }
            Item::Other(t) => (&*t.name, t.kind.clone(), &t.shape, t.data.len()),
        };
        offset = start.checked_add(bytes).ok_or("the tensors overflow the address space")?;
        entries.push((
            name,
            json!({ "dtype": kind, "shape": shape, "data_offsets": [start, offset] }),
        ));
    }
    // In the order of the data, as the crate safetensors writes it.
    let entries: Vec<_> =
        entries.iter().map(|(name, entry)| format!("{}:{entry}", json!(name))).collect();
    let mut text = format!("{{{}}}", entries.join(","));
    // The data starts at a multiple of 8, as with that crate.
    let padding = text.len().next_multiple_of(LENGTH) - text.len();
    text.push_str(&" ".repeat(padding));
    Ok([&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat())
}
