//! The header of a `.safetensors` file: its length, and a JSON object of names.

use std::collections::{BTreeMap, HashMap};

use safetensors::SafeTensors;
use safetensors::tensor::{Metadata, TensorInfo};
use serde_json::json;

use crate::dtype::Dtype;
use crate::tensor::Tensor;

/// What a file says about itself beside its tensors.
pub type Notes = Option<HashMap<String, String>>;

/// The tensors in the file of these bytes, in the order of their data: the one called `only`, or all.
pub fn read(bytes: &[u8], only: Option<&str>) -> Result<(Vec<Tensor>, Notes), String> {
    // This checks that the tensors' shapes and offsets fit each other and the file.
    let (length, metadata) =
        SafeTensors::read_metadata(bytes).map_err(|e| format!("not a .safetensors file: {e}"))?;
    let names = metadata.offset_keys();
    let start = size_of::<u64>() + length;
    let tensors = match only {
        Some(name) if !names.iter().any(|n| n == name) => {
            return Err(format!("no tensor is called {name:?}; there is {}", names.join(", ")));
        }
        Some(name) => vec![tensor(&metadata, name, start)?],
        None => names.iter().map(|n| tensor(&metadata, n, start)).collect::<Result<_, _>>()?,
    };
    Ok((tensors, metadata.metadata().clone()))
}

fn tensor(metadata: &Metadata, name: &str, start: usize) -> Result<Tensor, String> {
    let info: &TensorInfo =
        metadata.info(name).ok_or_else(|| format!("no tensor is called {name:?}"))?;
    let dtype = match info.dtype {
        safetensors::Dtype::F32 => Dtype::F32,
        safetensors::Dtype::F64 => Dtype::F64,
        safetensors::Dtype::F16 => Dtype::F16,
        safetensors::Dtype::BF16 => Dtype::Bf16,
        other => {
            return Err(format!(
                "tensor {name:?} is {other}, which is not supported: \
                                only F32, F64, F16 and BF16 are; choose one with --tensor"
            ));
        }
    };
    Tensor::new(Some(name.into()), info.shape.clone(), dtype, start + info.data_offsets.0)
        .map_err(|e| format!("tensor {name:?}: {e}"))
}

/// The header of these tensors as `dtype`, after which their data follows, one behind the other.
///
/// Keys are sorted, so that the same tensors always give the same bytes.
pub fn header(tensors: &[Tensor], dtype: impl Fn(&Tensor) -> Dtype, notes: &Notes) -> Vec<u8> {
    let mut entries = BTreeMap::new();
    if let Some(notes) = notes {
        entries.insert("__metadata__", json!(notes.iter().collect::<BTreeMap<_, _>>()));
    }
    let mut offset = 0;
    for t in tensors {
        let (start, dtype) = (offset, dtype(t));
        offset += t.len() * dtype.size();
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
    let padding = text.len().next_multiple_of(size_of::<u64>()) - text.len();
    text.push_str(&" ".repeat(padding));
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}
