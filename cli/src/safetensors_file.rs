//! The header of a `.safetensors` file: its length, and a JSON object of names.

use std::collections::{BTreeMap, HashMap};

use safetensors::tensor::{Metadata, TensorInfo};
use serde_json::json;

use crate::dtype::Dtype;
use crate::failure::{Failure, clip, list};
use crate::input::Contents;
use crate::tensor::{Tensor, bytes_of};

/// What a file says about itself beside its tensors.
pub type Notes = Option<HashMap<String, String>>;

/// Bytes of the length of a header.
const LENGTH: usize = size_of::<u64>();

/// Most bytes of a header, as the format has it.
const MOST: u64 = 100_000_000;

/// The tensors in a file, in the order of their data: the one called `only`, or all.
pub fn read(file: &Contents, only: Option<&str>) -> Result<(Vec<Tensor>, Notes), Failure> {
    let (length, metadata) = metadata(file)?;
    let names = metadata.offset_keys();
    let start = LENGTH + length;
    let tensors = match only {
        Some(name) if metadata.info(name).is_none() => {
            let (name, names) = (clip(name, 60), list(names.iter().map(String::as_str)));
            return Err(file.failed(format!("no tensor is called {name:?}; there is {names}")));
        }
        Some(name) => tensor(&metadata, name, start).map(|tensor| vec![tensor]),
        None => names.iter().map(|n| tensor(&metadata, n, start)).collect(),
    };
    Ok((tensors.map_err(|e| file.failed(e))?, metadata.metadata().clone()))
}

/// The header and its length; its tensors fill the file.
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

fn tensor(metadata: &Metadata, name: &str, start: usize) -> Result<Tensor, String> {
    let shown = clip(name, 60);
    let info: &TensorInfo =
        metadata.info(name).ok_or_else(|| format!("no tensor is called {shown:?}"))?;
    let dtype = match info.dtype {
        safetensors::Dtype::F32 => Dtype::F32,
        safetensors::Dtype::F64 => Dtype::F64,
        safetensors::Dtype::F16 => Dtype::F16,
        safetensors::Dtype::BF16 => Dtype::Bf16,
        other => {
            return Err(format!(
                "tensor {shown:?} is {other}, which is not supported: \
                 only F32, F64, F16 and BF16 are; choose one with --tensor"
            ));
        }
    };
    Tensor::new(Some(name.into()), info.shape.clone(), dtype, start + info.data_offsets.0)
        .map_err(|e| format!("tensor {shown:?}: {e}"))
}

/// The header of these tensors as `dtype`, after which their data follows, one behind the other.
///
/// Keys are sorted, so that the same tensors always give the same bytes.
pub fn header(
    tensors: &[Tensor],
    dtype: impl Fn(&Tensor) -> Dtype,
    notes: &Notes,
) -> Result<Vec<u8>, String> {
    let mut entries = BTreeMap::new();
    if let Some(notes) = notes {
        entries.insert("__metadata__", json!(notes.iter().collect::<BTreeMap<_, _>>()));
    }
    let mut offset = 0usize;
    for t in tensors {
        let (start, dtype) = (offset, dtype(t));
        let bytes = bytes_of(&t.shape, dtype.size())?;
        offset = start.checked_add(bytes).ok_or("the tensors overflow the address space")?;
        entries.insert(
            t.name.as_deref().unwrap_or_default(),
            json!({
                "dtype": dtype.name().to_uppercase(),
                "shape": t.shape,
                "data_offsets": [start, offset],
            }),
        );
    }
    let mut text = json!(entries).to_string();
    // The data starts at a multiple of 8, as the crate safetensors has it.
    let padding = text.len().next_multiple_of(LENGTH) - text.len();
    text.push_str(&" ".repeat(padding));
    Ok([&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat())
}
