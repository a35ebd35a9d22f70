//! Rows of numbers as text, a line for each: with commas (.csv), tabs (.tsv) or blanks (.txt).

use std::fmt::{Display, LowerExp, Write};

use half::{bf16, f16};

use crate::dtype::{Dtype, Value};
use crate::failure::{Failure, clip};
use crate::input::{Contents, Format};
use crate::tensor::Tensor;

/// The most bytes of text that are read: text is for people.
pub const MOST: usize = 1 << 30;

/// The separator of the numbers in a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Between {
    Char(u8),
    /// One or more blanks.
    Blanks,
}

/// The format of text, as its first line shows.
pub fn format_of(text: &[u8]) -> Format {
    let first = first_line(text);
    match (first.contains(&b','), first.contains(&b'\t')) {
        (true, _) => Format::Csv,
        (_, true) => Format::Tsv,
        _ => Format::Txt,
    }
}

fn first_line(text: &[u8]) -> &[u8] {
    let is_wanted = |line: &&[u8]| !line.trim_ascii().is_empty() && !line.starts_with(b"#");
    text.split(|&c| c == b'\n').find(is_wanted).unwrap_or_default()
}

fn between(format: Format, text: &[u8]) -> Between {
    match format {
        Format::Csv => Between::Char(b','),
        Format::Tsv => Between::Char(b'\t'),
        _ if first_line(text).contains(&b',') => Between::Char(b','),
        _ => Between::Blanks,
    }
}

/// The matrix in a file of text, as f64.
pub fn read(
    file: &mut Contents,
    format: Format,
    remarks: &mut Vec<String>,
) -> Result<Tensor, Failure> {
    if file.len() > MOST {
        let name = clip(file.name(), 60).into_owned();
        return Err(file.failed(format!(
            "{} bytes of text, of which at most {MOST} are read; \
             np.save(\"converted.npy\", np.loadtxt({name:?})) makes a file of any size",
            file.len()
        )));
    }
    let mut text = vec![0; file.len()];
    file.read(0, &mut text)?;
    let matrix = parse(&text, format).map_err(|e| file.failed(e))?;
    drop(text);
    if matrix.has_names {
        remarks.push("without the line of names".into());
    }
    let bytes = size_of_val(&*matrix.numbers);
    let data = file.make(bytes, |_, to| {
        to.copy_from_slice(bytemuck::cast_slice(&matrix.numbers));
        Ok(())
    })?;
    let shape = vec![matrix.numbers.len() / matrix.cols, matrix.cols];
    Tensor::new(None, shape, Dtype::F64.into(), data.start).map_err(|e| file.failed(e))
}

/// See [`parse`].
#[derive(Debug, Default, PartialEq)]
struct Matrix {
    numbers: Vec<f64>,
    cols: usize,
    /// Whether the first line has names, which are skipped.
    has_names: bool,
}

impl Matrix {
    /// Adds a line.
    fn add(&mut self, line: usize, fields: &[&[u8]]) -> Result<(), String> {
        let is_first = self.cols == 0 && !self.has_names;
        if is_first && fields.iter().all(|field| is_name(field)) {
            self.has_names = true;
            return Ok(());
        }
        let before = self.numbers.len();
        for (i, field) in fields.iter().enumerate() {
            self.numbers.push(number(field).ok_or_else(|| {
                let (i, field) = (i + 1, String::from_utf8_lossy(field));
                format!("line {line}, field {i}: {:?} is not a number", clip(&field, 40))
            })?);
        }
        let cols = self.numbers.len() - before;
        if self.cols == 0 {
            self.cols = cols;
        }
        if cols != self.cols {
            return Err(format!("line {line} has {cols} numbers, and those before {}", self.cols));
        }
        Ok(())
    }
}

/// A field without blanks around it, and without the quotes that some programs write. Nothing needs
/// them: no number has a comma or a line break.
fn unquoted(field: &[u8]) -> &[u8] {
    let field = field.trim_ascii();
    field.strip_prefix(b"\"").and_then(|field| field.strip_suffix(b"\"")).unwrap_or(field)
}

/// Whether a field may be a column's name: not if it looks like a misspelt number.
fn is_name(field: &[u8]) -> bool {
    let is_digit = |&c: &u8| c.is_ascii_digit() || b"+-.".contains(&c);
    number(field).is_none() && !field.first().is_some_and(is_digit)
}

fn number(field: &[u8]) -> Option<f64> {
    str::from_utf8(field).ok()?.parse().ok()
}

/// Parses the numbers in text. Empty lines, lines that begin with `#`, and a first line without any
/// number are skipped.
fn parse(text: &[u8], format: Format) -> Result<Matrix, String> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    if text.starts_with(b"\xff\xfe") || text.starts_with(b"\xfe\xff") {
        return Err("text of UTF-16; save it as UTF-8".into());
    }
    let mut matrix = Matrix::default();
    let (between, mut fields) = (between(format, text), Vec::new());
    for (line, at) in text.split(|&c| c == b'\n').zip(1..) {
        if line.trim_ascii().is_empty() || line.starts_with(b"#") {
            continue;
        }
        fields.clear();
        match between {
            Between::Char(between) => fields.extend(line.split(|&c| c == between).map(unquoted)),
            Between::Blanks => {
                let words = line.split(u8::is_ascii_whitespace);
                fields.extend(words.filter(|word| !word.is_empty()));
            }
        }
        matrix.add(at, &fields)?;
    }
    if matrix.numbers.is_empty() { Err("there are no numbers in it".into()) } else { Ok(matrix) }
}

/// Writes elements as lines.
#[derive(Debug)]
pub struct Lines {
    dtype: Dtype,
    cols: usize,
    between: char,
    /// Number of numbers in the last line.
    column: usize,
}

impl Lines {
    /// A writer of rows of `cols` columns.
    pub fn new(format: Format, dtype: Dtype, cols: usize) -> Self {
        let between = match format {
            Format::Csv => ',',
            Format::Tsv => '\t',
            _ => ' ',
        };
        Self { dtype, cols, between, column: 0 }
    }

    /// The text of further elements.
    pub fn text(&mut self, bytes: &[u8]) -> String {
        match self.dtype {
            Dtype::F32 => self.text_of(bytes, |x: f32, text| shortest(x, text)),
            Dtype::F64 => self.text_of(bytes, |x: f64, text| shortest(x, text)),
            Dtype::F16 => self.text_of(bytes, shortest_half::<f16>),
            Dtype::Bf16 => self.text_of(bytes, shortest_half::<bf16>),
        }
    }

    fn text_of<T: Value>(&mut self, bytes: &[u8], write: impl Fn(T, &mut String)) -> String {
        let mut text = String::with_capacity(4 * bytes.len());
        for element in bytes.chunks_exact(size_of::<T>()) {
            write(bytemuck::pod_read_unaligned(element), &mut text);
            self.column += 1;
            let is_last = self.column == self.cols;
            text.push(if is_last { '\n' } else { self.between });
            if is_last {
                self.column = 0;
            }
        }
        text
    }
}

/// Writes the shortest decimals that are read back as the same value, other values as Python does;
/// with a power of ten where there would be many zeros.
fn shortest<T: Display + LowerExp + Into<f64> + Copy>(x: T, text: &mut String) {
    let wide: f64 = x.into();
    // Writing to a string cannot fail.
    let _ = match wide.abs() {
        _ if wide.is_nan() => write!(text, "nan"),
        0.0 | 1e-5..1e16 => write!(text, "{x}"),
        _ => write!(text, "{x:e}"),
    };
}

/// As [`shortest`], for types that Rust does not print: more and more digits until they suffice.
fn shortest_half<T: Value>(x: T, text: &mut String) {
    /// Enough for f16; bf16 needs fewer.
    const MOST: usize = 5;
    let wide = x.to_f64();
    let rounded = (0..MOST).filter_map(|digits| format!("{wide:.digits$e}").parse().ok());
    let same = |y: &f64| T::nearest(*y).to_f64() == wide;
    shortest({ rounded }.find(same).unwrap_or(wide), text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_numbers_as_others_write_them() {
        let good: [(Format, &str, &[f64], usize); 12] = [
            (Format::Txt, "8 5 0", &[8.0, 5.0, 0.0], 3),
            (Format::Txt, "  1\t2 \r\n\n# no\n 3   4\r\n", &[1.0, 2.0, 3.0, 4.0], 2),
            (Format::Txt, "1,2\n3, 4\n", &[1.0, 2.0, 3.0, 4.0], 2),
            (Format::Txt, "1\t2\n3\t4\n", &[1.0, 2.0, 3.0, 4.0], 2),
            (Format::Csv, "1\n-2e3\n", &[1.0, -2000.0], 1),
            (Format::Csv, "\"1\",\"2.5\"\r\n \n3,4\n", &[1.0, 2.5, 3.0, 4.0], 2),
            (Format::Csv, "a,\"b, c\"\n1,2\n", &[1.0, 2.0], 2),
            (Format::Csv, "\u{feff}1,2", &[1.0, 2.0], 2),
            (Format::Tsv, "#x\n1\t2", &[1.0, 2.0], 2),
            (
                Format::Txt,
                "-inf +.5 1e-400 Infinity",
                &[f64::NEG_INFINITY, 0.5, 0.0, f64::INFINITY],
                4,
            ),
            (Format::Txt, "zero one\n0 1", &[0.0, 1.0], 2),
            (Format::Csv, "0.1,1e23,4.9e-324", &[0.1, 1e23, 5e-324], 3),
        ];
        for (format, text, numbers, cols) in good {
            let matrix = parse(text.as_bytes(), format).expect(text);
            assert_eq!((&*matrix.numbers, matrix.cols), (numbers, cols), "{text:?}");
        }
        assert!(parse(b"nan NaN", Format::Txt).is_ok_and(|m| m.numbers.iter().all(|x| x.is_nan())));
        for (format, text, about) in [
            (Format::Txt, "", "no numbers"),
            (Format::Csv, "\n# 1,2\n", "no numbers"),
            (Format::Csv, "a,b\n", "no numbers"),
            (Format::Csv, "a,b\nc,d\n", "line 2, field 1: \"c\" is not a number"),
            (Format::Csv, "1,2\n3\n", "line 2 has 1 numbers, and those before 2"),
            (Format::Csv, "1,2\n\n3,x\n", "line 3, field 2: \"x\" is not a number"),
            (Format::Csv, "1,,2\n", "line 1, field 2: \"\" is not a number"),
            (Format::Csv, "8;5;0\n1;2;3", "line 1, field 1: \"8;5;0\" is not a number"),
            (Format::Txt, "1O\n2\n", "line 1, field 1: \"1O\" is not a number"),
            (Format::Txt, "1 2\n3 4 5\n", "line 2 has 3 numbers, and those before 2"),
            (Format::Txt, "1 0x10", "field 2: \"0x10\" is not a number"),
            (Format::Txt, "1 \u{1b}[2J", "field 2"),
            (Format::Txt, "\u{fffd}", "no numbers"),
        ] {
            let cause = parse(text.as_bytes(), format).unwrap_err();
            assert!(cause.contains(about), "{text:?}: {cause}");
        }
        assert!(parse(b"\xff\xfe1\0", Format::Txt).unwrap_err().contains("UTF-16"));
        assert!(parse(b"1 \xff", Format::Txt).unwrap_err().contains("is not a number"));
    }

    #[test]
    fn numbers_are_short_and_read_back() {
        let of = |x: f64| {
            let mut text = String::new();
            shortest(x, &mut text);
            text
        };
        assert_eq!([of(1.0), of(0.1), of(-0.0), of(1e23)], ["1", "0.1", "-0", "1e23"]);
        assert_eq!(
            [of(1.5e-7), of(f64::MAX), of(0.001)],
            ["1.5e-7", "1.7976931348623157e308", "0.001"]
        );
        assert_eq!(
            [of(f64::NAN), of(f64::NEG_INFINITY), of(f64::INFINITY)],
            ["nan", "-inf", "inf"]
        );
        let mut state = 1u64;
        for _ in 0..100_000 {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let (x, y) = (f64::from_bits(state), f32::from_bits((state >> 32) as u32));
            assert!(x.is_nan() || number(of(x).as_bytes()) == Some(x), "{x:e}");
            let mut text = String::new();
            shortest(y, &mut text);
            assert!(y.is_nan() || text.parse() == Ok(y), "{y:e}");
            // Through f64, too, as the command reads it.
            assert!(y.is_nan() || number(text.as_bytes()).map(|x| x as f32) == Some(y), "{y:e}");
        }
    }

    #[test]
    fn every_half_is_short_and_reads_back() {
        fn check<T: Value>(from_bits: impl Fn(u16) -> T, most: usize) {
            for x in (0..=u16::MAX).map(from_bits) {
                let mut text = String::new();
                shortest_half(x, &mut text);
                let back = number(text.as_bytes()).map(T::nearest).expect("a number");
                let (x, back) = (x.to_f64(), back.to_f64());
                assert!(x.is_nan() && back.is_nan() || x == back, "{x}: {text}");
                assert_eq!(x.is_sign_negative() && !x.is_nan(), text.starts_with('-'));
                let mantissa = text.split('e').next().unwrap_or_default();
                let digits = mantissa.trim_start_matches(['-', '0', '.']);
                let digits = digits.chars().filter(char::is_ascii_digit).count();
                // Trailing zeros of a large number only show its size.
                assert!(digits <= most || text.ends_with('0'), "{text}");
            }
        }
        check(f16::from_bits, 5);
        check(bf16::from_bits, 4);
        let mut text = String::new();
        shortest_half(f16::from_f32(0.1), &mut text);
        assert_eq!(text, "0.1");
    }

    #[test]
    fn lines_break_where_rows_do() {
        let mut lines = Lines::new(Format::Csv, Dtype::F32, 3);
        let numbers = [1.0f32, 2.0, 3.5, 4.0];
        assert_eq!(lines.text(bytemuck::cast_slice(&numbers)), "1,2,3.5\n4,");
        assert_eq!(lines.text(bytemuck::cast_slice(&numbers[..2])), "1,2\n");
    }
}
