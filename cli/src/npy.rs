//! The header of a `.npy` file: magic, version, length, and a Python dictionary.
//!
//! The dictionary is parsed by `py_literal`, the parser below `npyz` and `ndarray-npy`. Those crates
//! themselves multiply the shape without a check, and so panic (in a debug build) on a hostile one.

use std::fmt::Display;

use bytemuck::{Pod, pod_read_unaligned};
use py_literal::Value;

use crate::dtype::Dtype;
use crate::tensor::{Tensor, overflows, shape_text};

const MAGIC: &[u8] = b"\x93NUMPY";

/// What all data starts at a multiple of.
const ALIGN: usize = 64;

/// An array, as its header has it.
struct Header {
    descr: String,
    shape: Vec<usize>,
    /// Where its data starts.
    start: usize,
}

/// The array in the file of these bytes.
pub fn read(bytes: &[u8]) -> Result<Tensor, String> {
    let header = Header::read(bytes)?;
    let dtype = match header.descr.as_str() {
        "<f4" => Dtype::F32,
        "<f8" => Dtype::F64,
        "<f2" => Dtype::F16,
        other => {
            return Err(format!("the dtype {other} is not supported: only <f4, <f8 and <f2 are"));
        }
    };
    let tensor = Tensor::new(None, header.shape, dtype, header.start)?;
    check_length(bytes.len() - header.start, tensor.data.len(), &tensor.shape)?;
    Ok(tensor)
}

/// The integers in the file of these bytes, and their shape.
pub fn read_integers(bytes: &[u8]) -> Result<(Vec<usize>, Vec<i64>), String> {
    let header = Header::read(bytes)?;
    let data = &bytes[header.start..];
    let (descr, shape) = (header.descr, header.shape);
    let values = match descr.trim_start_matches(['<', '|', '=']) {
        "i1" => integers::<i8>(data, &shape),
        "i2" => integers::<i16>(data, &shape),
        "i4" => integers::<i32>(data, &shape),
        "i8" => integers::<i64>(data, &shape),
        "u1" => integers::<u8>(data, &shape),
        "u2" => integers::<u16>(data, &shape),
        "u4" => integers::<u32>(data, &shape),
        "u8" => integers::<u64>(data, &shape),
        _ => Err(format!(
            "the dtype {descr} is none of integers: only i1, i2, i4, i8, u1, u2, u4 and u8 are"
        )),
    }?;
    Ok((shape, values))
}

fn integers<I: Pod + TryInto<i64> + Display>(
    data: &[u8],
    shape: &[usize],
) -> Result<Vec<i64>, String> {
    let size = size_of::<I>();
    let needed = if shape.contains(&0) {
        Some(0)
    } else {
        shape.iter().try_fold(size, |n, &dim| n.checked_mul(dim))
    };
    let needed = needed.ok_or_else(|| overflows(shape))?;
    check_length(data.len(), needed, shape)?;
    let value = |(i, bytes): (usize, &[u8])| {
        let value: I = pod_read_unaligned(bytes);
        value.try_into().map_err(|_| format!("element {i} is {value}, which is beyond i64"))
    };
    data.chunks_exact(size).enumerate().map(value).collect()
}

fn check_length(found: usize, needed: usize, shape: &[usize]) -> Result<(), String> {
    if found == needed {
        return Ok(());
    }
    let what = if found < needed { "truncated" } else { "too long" };
    let shape = shape_text(shape);
    Err(format!("{what}: the shape {shape} needs {needed} bytes of data, got {found}"))
}

impl Header {
    /// Reads it; its data is little-endian, and row after row.
    fn read(bytes: &[u8]) -> Result<Self, String> {
        let rest = bytes.strip_prefix(MAGIC);
        let rest = rest.ok_or("not an .npy file: the magic bytes are missing")?;
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
        if descr.starts_with('>') {
            return Err(format!(
                "big-endian data ({descr}) is not supported; \
                                convert it with x.astype(x.dtype.newbyteorder('<'))"
            ));
        }
        // With at most one axis that is not 1 the two orders are the same.
        if fortran && shape.iter().filter(|&&n| n != 1).count() > 1 {
            return Err("Fortran order is not supported: its rows are not contiguous; \
                        save numpy.ascontiguousarray(x)"
                .into());
        }
        Ok(Self { descr, shape, start })
    }
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

/// What a header calls a type.
pub fn descr(dtype: Dtype) -> Result<&'static str, String> {
    match dtype {
        Dtype::F32 => Ok("<f4"),
        Dtype::F64 => Ok("<f8"),
        Dtype::F16 => Ok("<f2"),
        Dtype::Bf16 => Err(".npy has no bf16; use .safetensors, or another --dtype".into()),
    }
}

/// What a header calls the types of what is found for rows.
pub const I64: &str = "<i8";
pub const F64: &str = "<f8";

/// The header of an array, after which its data follows.
pub fn header(shape: &[usize], descr: &str) -> Result<Vec<u8>, String> {
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
