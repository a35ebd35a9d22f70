//! The header of a `.npy` file: magic, version, length, and a Python dictionary.
//!
//! The dictionary is parsed by `py_literal`, the parser below `npyz` and `ndarray-npy`. Those crates
//! themselves multiply the shape without a check, and so panic (in a debug build) on a hostile one.

use py_literal::Value;

use crate::dtype::Dtype;
use crate::tensor::Tensor;

const MAGIC: &[u8] = b"\x93NUMPY";

/// What all data starts at a multiple of.
const ALIGN: usize = 64;

/// The array in the file of these bytes.
pub fn read(bytes: &[u8]) -> Result<Tensor, String> {
    let rest = bytes.strip_prefix(MAGIC).ok_or("not an .npy file: the magic bytes are missing")?;
    let truncated = "truncated within the header";
    let (version, rest) = rest.split_at_checked(2).ok_or(truncated)?;
    let (length, rest) = match *version {
        [1, _] => {
            let (length, rest) = rest.split_first_chunk().ok_or(truncated)?;
            (u16::from_le_bytes(*length).into(), rest)
        }
        [2 | 3, _] => {
            let (length, rest) = rest.split_first_chunk().ok_or(truncated)?;
            (u32::from_le_bytes(*length), rest)
        }
        _ => return Err(format!("version {}.{} of .npy is not known", version[0], version[1])),
    };
    let text = usize::try_from(length).ok().and_then(|n| rest.get(..n)).ok_or(truncated)?;
    let start = bytes.len() - rest.len() + text.len();

    let (descr, fortran, shape) = dictionary(text)?;
    let dtype = match descr.as_str() {
        "<f4" => Dtype::F32,
        "<f8" => Dtype::F64,
        "<f2" => Dtype::F16,
        big if big.starts_with('>') => {
            return Err(format!(
                "big-endian data ({big}) is not supported; \
                                convert it with x.astype(x.dtype.newbyteorder('<'))"
            ));
        }
        other => {
            return Err(format!("the dtype {other} is not supported: only <f4, <f8 and <f2 are"));
        }
    };
    // With at most one axis that is not 1 the two orders are the same.
    if fortran && shape.iter().filter(|&&n| n != 1).count() > 1 {
        return Err("Fortran order is not supported: its rows are not contiguous; \
                    save numpy.ascontiguousarray(x)"
            .into());
    }
    let tensor = Tensor::new(None, shape, dtype, start)?;
    let (found, needed) = (bytes.len() - start, tensor.data.len());
    if found != needed {
        let what = if found < needed { "truncated" } else { "too long" };
        return Err(format!(
            "{what}: the shape {} needs {needed} bytes of data, got {found}",
            tensor.shape_text()
        ));
    }
    Ok(tensor)
}

/// `descr`, `fortran_order` and `shape`.
fn dictionary(text: &[u8]) -> Result<(String, bool, Vec<usize>), String> {
    let value = str::from_utf8(text).ok().and_then(|text| text.trim().parse().ok());
    let Some(Value::Dict(entries)) = value else {
        return Err("the header is not a Python dictionary".into());
    };
    let get = |key: &str| {
        let is_key =
            |(k, v): (Value, Value)| (k.as_string().map(|k| k.as_str()) == Some(key)).then_some(v);
        entries.iter().cloned().find_map(is_key)
    };
    let wrong = |key: &str| format!("the header has no valid {key:?}");
    let descr = match get("descr") {
        Some(Value::String(descr)) => descr,
        Some(Value::List(_)) => return Err("structured dtypes are not supported".into()),
        _ => return Err(wrong("descr")),
    };
    let Some(Value::Boolean(fortran)) = get("fortran_order") else {
        return Err(wrong("fortran_order"));
    };
    let Some(Value::Tuple(dims)) = get("shape") else {
        return Err(wrong("shape"));
    };
    let dim = |v: &Value| v.as_integer().and_then(|n| usize::try_from(n).ok());
    let shape = dims.iter().map(dim).collect::<Option<_>>().ok_or_else(|| wrong("shape"))?;
    Ok((descr, fortran, shape))
}

/// The header of an array, after which its data follows.
pub fn header(shape: &[usize], dtype: Dtype) -> Result<Vec<u8>, String> {
    let descr = match dtype {
        Dtype::F32 => "<f4",
        Dtype::F64 => "<f8",
        Dtype::F16 => "<f2",
        Dtype::Bf16 => return Err(".npy has no bf16; use .safetensors, or another --dtype".into()),
    };
    let dims: String = shape.iter().map(|n| format!("{n}, ")).collect();
    // Python writes (3, 4) and (3,).
    let dims = if shape.len() == 1 { dims.trim_end() } else { dims.trim_end_matches(", ") };
    let mut text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({dims}), }}");
    // Version 1 as everybody writes it, unless there are thousands of axes.
    for (version, length_size) in [(1, 2), (2, 4)] {
        let before = MAGIC.len() + 2 + length_size;
        let length = (before + text.len() + 1).next_multiple_of(ALIGN) - before;
        let Ok(length32) = u32::try_from(length) else { break };
        if version == 1 && length > usize::from(u16::MAX) {
            continue;
        }
        text.push_str(&" ".repeat(length - text.len() - 1));
        text.push('\n');
        let length = &length32.to_le_bytes()[..length_size];
        return Ok([MAGIC, &[version, 0], length, text.as_bytes()].concat());
    }
    Err("the shape is too long for a header".into())
}
