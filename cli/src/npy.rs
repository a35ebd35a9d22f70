//! The header of a `.npy` file: magic, version, length, and a Python dictionary.
//!
//! The dictionary has three keys, and nothing in them is nested: it is read in one pass, so that
//! reading takes time in proportion to its bytes. What NumPy refuses (more bytes, other keys) is
//! refused here, too.

use std::ops::Range;

use crate::dtype::Dtype;
use crate::failure::{Failure, clip};
use crate::input::Contents;
use crate::order;
use crate::stored::Stored;
use crate::tensor::{Tensor, bytes_of, shape_text};

/// The first bytes of all files.
pub const MAGIC: &[u8] = b"\x93NUMPY";

/// Data starts at a multiple of this.
const ALIGN: usize = 64;

/// The most bytes of a dictionary, as in NumPy.
const MOST: usize = 10_000;

/// The most axes, as in NumPy.
const AXES: usize = 64;

/// The message for a dtype that is a list of others.
const STRUCTURED: &str = "structured dtypes are not supported";

/// The header of an array.
pub struct Header {
    pub descr: String,
    fortran: bool,
    pub shape: Vec<usize>,
    /// The start of its data.
    start: usize,
}

/// Reads the array of a file; peculiarities go to `remarks`.
pub fn read(file: &mut Contents, remarks: &mut Vec<String>) -> Result<Tensor, Failure> {
    let within = 0..file.len();
    Header::read(file, &within)?.tensor(file, within, None, remarks)
}

/// The message for a dtype that is not of numbers, with the Python that converts it.
fn not_supported(file: &str, descr: &str) -> String {
    let file = clip(file, 60);
    let load = format!("np.load({file:?})");
    let load = match descr.trim_start_matches(['<', '>', '|', '=']).chars().next() {
        Some('O') => format!("np.load({file:?}, allow_pickle=True).astype(\"f8\")"),
        Some('c') => format!("{load}.real"),
        // NumPy saves bfloat16 of ml_dtypes so.
        Some('V') => format!("{load}.view(ml_dtypes.bfloat16).astype(\"f4\")"),
        _ => format!("{load}.astype(\"f8\")"),
    };
    let descr = clip(descr, 40);
    format!("the dtype {descr} is not supported; np.save(\"converted.npy\", {load}) converts")
}

impl Header {
    /// Reads the header of an array in a range of a file.
    pub fn read(file: &Contents, within: &Range<usize>) -> Result<Self, Failure> {
        // Magic, version and the longest length, or less if the file ends before.
        let mut first = [0; 12];
        let first = &mut first[..within.len().min(12)];
        file.read(within.start, first)?;
        let failed = |cause: &str| file.failed(cause);
        let rest = first.strip_prefix(MAGIC);
        let rest = rest.ok_or_else(|| failed("not an .npy file: the magic bytes are missing"))?;
        let truncated = || failed("truncated within the header");
        let (version, rest) = rest.split_at_checked(2).ok_or_else(truncated)?;
        let (length, size) = match *version {
            [1, _] => (rest.first_chunk().map(|&n| u16::from_le_bytes(n).into()), 2),
            [2 | 3, _] => (rest.first_chunk().map(|&n| u32::from_le_bytes(n)), 4),
            _ => {
                let (major, minor) = (version[0], version[1]);
                return Err(file.failed(format!("version {major}.{minor} of .npy is not known")));
            }
        };
        let length = length.ok_or_else(truncated)?;
        let before = MAGIC.len() + version.len() + size;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > MOST {
            let cause = format!("a header of {length} bytes: at most {MOST} are read, as by NumPy");
            return Err(file.failed(cause));
        }
        let start = before + length;
        if start > within.len() {
            return Err(truncated());
        }
        let mut text = vec![0; length];
        file.read(within.start + before, &mut text)?;
        let (descr, fortran, shape) = dictionary(&text).map_err(|e| match file.failed(&e) {
            failure if e == STRUCTURED => {
                let name = clip(file.name(), 60);
                let load = format!("np.load({name:?})[\"FIELD\"]");
                failure.with(&format!("np.save(\"converted.npy\", {load}) takes one of its fields"))
            }
            failure => failure,
        })?;
        Ok(Self { descr, fortran, shape, start: within.start + start })
    }

    /// The array, in a range of a file.
    pub fn tensor(
        self,
        file: &mut Contents,
        within: Range<usize>,
        name: Option<String>,
        remarks: &mut Vec<String>,
    ) -> Result<Tensor, Failure> {
        let Self { descr, fortran, shape, start } = self;
        let stored = Stored::of_npy(&descr)
            .ok_or_else(|| file.failed(not_supported(file.name(), &descr)))?;
        let mut tensor = Tensor::new(name, shape, stored, start).map_err(|e| file.failed(e))?;
        let (needed, found) = (tensor.data.len(), within.end - start);
        if found != needed {
            // Several arrays may have been saved to one file: NumPy loads the first.
            let mut magic = [0; MAGIC.len()];
            let has_more = found >= needed + MAGIC.len();
            if has_more {
                file.read(start + needed, &mut magic)?;
            }
            if magic != MAGIC {
                let what = if found < needed { "truncated" } else { "too long" };
                let shape = shape_text(&tensor.shape);
                return Err(file.failed(format!(
                    "{what}: the shape {shape} needs {needed} bytes of data, got {found}"
                )));
            }
            remarks.push("the first of several arrays".into());
        }
        // With at most one axis other than 1 the two orders are the same.
        if fortran && tensor.shape.iter().filter(|&&n| n != 1).count() > 1 {
            tensor.data = order::by_rows(file, &tensor)?;
        }
        Ok(tensor)
    }
}

/// Parses `descr`, `fortran_order` and `shape`.
fn dictionary(text: &[u8]) -> Result<(String, bool, Vec<usize>), String> {
    let mut text = Cursor(text);
    let not = "the header is not a Python dictionary";
    if !text.take(b"{") {
        return Err(not.into());
    }
    let (mut descr, mut fortran, mut shape) = (None, None, None);
    while !text.take(b"}") {
        let key = text.string().ok_or(not)?;
        if !text.take(b":") {
            return Err(not.into());
        }
        let wrong = || format!("the header has no valid {key:?}");
        let again = match key {
            "descr" if text.take(b"[") => return Err(STRUCTURED.into()),
            "descr" => descr.replace(text.string().ok_or_else(wrong)?).is_some(),
            "fortran_order" => fortran.replace(text.boolean().ok_or_else(wrong)?).is_some(),
            "shape" => shape.replace(text.tuple().ok_or_else(wrong)?).is_some(),
            _ => return Err(format!("the header has the unknown key {:?}", clip(key, 40))),
        };
        if again {
            return Err(format!("the header has {key:?} twice"));
        }
        if !text.take(b",") && !text.at(b"}") {
            return Err(not.into());
        }
    }
    text.skip();
    if !text.0.is_empty() {
        return Err(not.into());
    }
    let none = |key: &str| format!("the header has no {key:?}");
    let descr = descr.ok_or_else(|| none("descr"))?.to_owned();
    let fortran = fortran.ok_or_else(|| none("fortran_order"))?;
    let shape = shape.ok_or_else(|| none("shape"))?;
    if shape.len() > AXES {
        return Err(format!("{} axes: NumPy has no more than {AXES}", shape.len()));
    }
    Ok((descr, fortran, shape))
}

/// The rest of a dictionary. Every token may have space before it.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn skip(&mut self) {
        self.0 = self.0.trim_ascii_start();
    }

    /// Whether this token comes next.
    fn at(&mut self, token: &[u8]) -> bool {
        self.skip();
        self.0.starts_with(token)
    }

    /// Takes this token, if it comes next.
    fn take(&mut self, token: &[u8]) -> bool {
        let is_next = self.at(token);
        if is_next {
            self.0 = &self.0[token.len()..];
        }
        is_next
    }

    /// Takes a string in either kind of quotes, without escapes. Python 2 may have written a u
    /// before it.
    fn string(&mut self) -> Option<&'a str> {
        self.take(b"u");
        let (&quote, rest) = self.0.split_first()?;
        let end = rest.iter().position(|&c| c == quote || c == b'\\' || c == b'\n')?;
        if !matches!(quote, b'\'' | b'"') || rest[end] != quote {
            return None;
        }
        self.0 = &rest[end + 1..];
        str::from_utf8(&rest[..end]).ok()
    }

    fn boolean(&mut self) -> Option<bool> {
        let values = [(b"True".as_slice(), true), (b"False", false)];
        values.into_iter().find_map(|(token, value)| self.take(token).then_some(value))
    }

    /// Takes numbers in parentheses; a comma follows a single one.
    fn tuple(&mut self) -> Option<Vec<usize>> {
        if !self.take(b"(") {
            return None;
        }
        let mut numbers = Vec::new();
        let mut comma = true;
        while !self.take(b")") {
            if !comma {
                return None;
            }
            numbers.push(self.number()?);
            comma = self.take(b",");
        }
        (comma || numbers.len() != 1).then_some(numbers)
    }

    fn number(&mut self) -> Option<usize> {
        self.skip();
        let digits = self.0.iter().take_while(|c| c.is_ascii_digit()).count();
        let (number, rest) = self.0.split_at(digits);
        // Python 2 wrote an L behind long ones.
        self.0 = rest.strip_prefix(b"L").filter(|_| digits > 0).unwrap_or(rest);
        // Python has no numbers with leading zeros.
        let is_number = number == b"0" || !number.starts_with(b"0");
        str::from_utf8(number).ok().filter(|_| is_number)?.parse().ok()
    }
}

/// The name of a type in a header.
pub fn descr(dtype: Dtype) -> Result<&'static str, String> {
    match dtype {
        Dtype::F32 => Ok("<f4"),
        Dtype::F64 => Ok(F64),
        Dtype::F16 => Ok("<f2"),
        Dtype::Bf16 => Err(".npy has no bf16; use .safetensors, or another --dtype".into()),
    }
}

/// The names of the types of results for rows.
pub const I64: &str = "<i8";
pub const F64: &str = "<f8";

/// The header of an array, after which its data follows.
pub fn header(shape: &[usize], descr: &str) -> Result<Vec<u8>, String> {
    if shape.len() > AXES {
        return Err(format!("{} axes: .npy has no more than {AXES}", shape.len()));
    }
    // An array beyond the address space could not be read again, even without elements.
    let size = descr.trim_start_matches(|c: char| !c.is_ascii_digit()).parse();
    bytes_of(shape, size.unwrap_or(1))?;
    let dims: String = shape.iter().map(|n| format!("{n}, ")).collect();
    // Python writes (3, 4) and (3,).
    let dims = if shape.len() == 1 { dims.trim_end() } else { dims.trim_end_matches(", ") };
    let mut text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({dims}), }}");
    let before = MAGIC.len() + 4;
    let length = (before + text.len() + 1).next_multiple_of(ALIGN) - before;
    text.push_str(&" ".repeat(length - text.len() - 1));
    text.push('\n');
    // The most axes take about 1,400 bytes, so that version 1 suffices.
    let length = u16::try_from(length).map_err(|_| "the shape is too long for a header")?;
    Ok([MAGIC, &[1, 0], &length.to_le_bytes(), text.as_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dictionaries_are_read_as_python_writes_them() {
        type Array<'a> = (&'a str, bool, &'a [usize]);
        let good: [(&str, Array); 8] = [
            (
                "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }   \n",
                ("<f4", false, &[3, 4]),
            ),
            ("{\"shape\":(3,),\"fortran_order\":True,\"descr\":\"|i1\"}", ("|i1", true, &[3])),
            ("{'descr':'x','fortran_order':False,'shape':()}", ("x", false, &[])),
            (
                " { 'shape' : ( 1 , 2 , ) , 'descr' : '' , 'fortran_order' : True }",
                ("", true, &[1, 2]),
            ),
            ("{'shape': (0, 18446744073709551615),\n'descr': 'é', 'fortran_order': False}", {
                ("é", false, &[0, usize::MAX])
            }),
            ("{'descr': '\"', 'fortran_order': False, 'shape': (70,)}", ("\"", false, &[70])),
            // Written by Python 2.
            (
                "{u'descr': u'<f4', 'fortran_order': False, u'shape': (3L, 40L)}",
                ("<f4", false, &[3, 40]),
            ),
            ("{'descr':\n'<f4',\n\n'fortran_order':\r\n\tFalse\n, 'shape': (3\n,\n4\n)\n}\n", {
                ("<f4", false, &[3, 4])
            }),
        ];
        for (text, (descr, fortran, shape)) in good {
            assert_eq!(dictionary(text.as_bytes()), Ok((descr.into(), fortran, shape.into())));
        }
        for (text, about) in [
            ("", "dictionary"),
            ("{", "dictionary"),
            ("{}", "no \"descr\""),
            ("{'descr' '<f4'}", "dictionary"),
            ("{'descr': '<f4' 'shape': (1,)}", "dictionary"),
            ("{'descr': '<f4\\x00'}", "no valid \"descr\""),
            ("{'descr': '<f4', 'descr': '<f4'}", "\"descr\" twice"),
            ("{'descr': '<f4', 'fortran_order': False, 'shape': (1,)} 1", "dictionary"),
            ("{'shape': (5)}", "no valid \"shape\""),
            ("{'shape': (,)}", "no valid \"shape\""),
            ("{'shape': (1 2)}", "no valid \"shape\""),
            ("{'shape': (3LL, 4L)}", "no valid \"shape\""),
            ("{'shape': (L,)}", "no valid \"shape\""),
            ("{'shape': (3 L,)}", "no valid \"shape\""),
            ("{'shape': (007,)}", "no valid \"shape\""),
            ("{'shape': 5}", "no valid \"shape\""),
            ("{'shape': (-1,)}", "no valid \"shape\""),
            ("{'fortran_order': 0}", "no valid \"fortran_order\""),
            ("{'more': [[[1]]]}", "unknown key \"more\""),
            ("{'descr': [('a', '<f4')]}", "structured"),
            ("{b'descr': '<f4'}", "dictionary"),
            ("{uu'descr': '<f4'}", "dictionary"),
            ("{u", "dictionary"),
        ] {
            let cause = dictionary(text.as_bytes()).unwrap_err();
            assert!(cause.contains(about), "{text}: {cause}");
        }
    }

    #[test]
    fn headers_are_written_as_numpy_does() {
        let header = |shape: &[usize]| header(shape, "<f4");
        let bytes = header(&[3]).unwrap();
        assert_eq!(bytes.len() % ALIGN, 0);
        let text = str::from_utf8(&bytes[10..]).unwrap();
        assert_eq!(text.trim_end(), "{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }");
        assert!(header(&[1; AXES]).is_ok());
        assert!(header(&[1; AXES + 1]).unwrap_err().contains("65 axes"));
        assert!(header(&[0, isize::MAX as usize / 4]).is_ok());
        assert!(header(&[0, isize::MAX as usize / 4 + 1]).unwrap_err().contains("address space"));
    }

    /// Reading any dictionary takes time in proportion to its bytes.
    #[test]
    fn no_dictionary_takes_long() {
        let good = b"{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }";
        let pieces: [&[u8]; 16] = [
            b"[",
            b"]",
            b"(",
            b")",
            b"{",
            b"}",
            b"'",
            b"\"",
            b",",
            b":",
            b"1",
            b" ",
            b"\\",
            b"\n",
            b"'descr': ",
            b"'shape': (",
        ];
        let mut state = 1u64;
        let mut random = move |n: usize| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) as usize % n
        };
        let started = std::time::Instant::now();
        const ROUNDS: usize = 20_000;
        for _ in 0..ROUNDS {
            let mut text = good.to_vec();
            for _ in 0..1 + random(4) {
                let at = random(text.len() + 1);
                match random(3) {
                    0 => drop(text.drain(at..(at + random(20)).min(text.len()))),
                    1 => text.extend(pieces[random(pieces.len())]),
                    _ => {
                        let times = 1 << random(11);
                        let piece = pieces[random(pieces.len())].repeat(times);
                        text.splice(at..at, piece);
                    }
                }
            }
            text.truncate(MOST);
            let _ = dictionary(&text);
        }
        // A few microseconds each, which may be hundreds on a loaded machine.
        assert!(started.elapsed().as_millis() < ROUNDS as u128, "{:?}", started.elapsed());
        // The longest of each kind.
        for piece in pieces {
            for before in [&b"{'shape': "[..], b"{'descr': ", b"{", b"{'x': ", b"", good] {
                let mut text = before.to_vec();
                text.extend(piece.repeat(MOST / piece.len()));
                text.truncate(MOST);
                let started = std::time::Instant::now();
                let _ = dictionary(&text);
                assert!(started.elapsed().as_millis() < 100, "{:?}", started.elapsed());
            }
        }
    }
}
