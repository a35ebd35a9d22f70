//! The types of elements in files: those that are computed, and those that are converted to one of
//! them (integers, truth values, the other byte order).

use half::{bf16, f16};
use rayon::prelude::*;

use crate::dtype::{self, Dtype, Value};

/// The type of elements in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    kind: Kind,
    /// Whether the bytes of an element begin with its highest.
    big_endian: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Float(Dtype),
    /// Integers of this number of bytes.
    Signed(usize),
    Unsigned(usize),
    Bool,
}

/// An element as a number, without loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    Float(f64),
    Whole(i128),
}

impl Stored {
    /// The type of an `.npy` file, as its header has it.
    pub fn of_npy(descr: &str) -> Option<Self> {
        let (big_endian, name) = match descr.split_at_checked(1) {
            Some((">", name)) => (true, name),
            Some(("<" | "|" | "=", name)) => (false, name),
            _ => (false, descr),
        };
        let kind = match name {
            "f2" => Kind::Float(Dtype::F16),
            "f4" => Kind::Float(Dtype::F32),
            "f8" => Kind::Float(Dtype::F64),
            "i1" => Kind::Signed(1),
            "i2" => Kind::Signed(2),
            "i4" => Kind::Signed(4),
            "i8" => Kind::Signed(8),
            "u1" => Kind::Unsigned(1),
            "u2" => Kind::Unsigned(2),
            "u4" => Kind::Unsigned(4),
            "u8" => Kind::Unsigned(8),
            "b1" => Kind::Bool,
            _ => return None,
        };
        Some(Self { kind, big_endian }.normal())
    }

    /// The type of a tensor in a `.safetensors` file, if it is a type of numbers.
    pub fn of_safetensors(dtype: safetensors::Dtype) -> Option<Self> {
        use safetensors::Dtype as Type;
        let kind = match dtype {
            Type::F16 => Kind::Float(Dtype::F16),
            Type::BF16 => Kind::Float(Dtype::Bf16),
            Type::F32 => Kind::Float(Dtype::F32),
            Type::F64 => Kind::Float(Dtype::F64),
            Type::I8 => Kind::Signed(1),
            Type::I16 => Kind::Signed(2),
            Type::I32 => Kind::Signed(4),
            Type::I64 => Kind::Signed(8),
            Type::U8 => Kind::Unsigned(1),
            Type::U16 => Kind::Unsigned(2),
            Type::U32 => Kind::Unsigned(4),
            Type::U64 => Kind::Unsigned(8),
            Type::BOOL => Kind::Bool,
            _ => return None,
        };
        Some(Self { kind, big_endian: false })
    }

    /// A single byte has no order.
    fn normal(self) -> Self {
        Self { big_endian: self.big_endian && self.size() > 1, ..self }
    }

    /// Bytes of an element.
    pub fn size(self) -> usize {
        match self.kind {
            Kind::Float(dtype) => dtype.size(),
            Kind::Signed(size) | Kind::Unsigned(size) => size,
            Kind::Bool => 1,
        }
    }

    /// The type that elements are read as: f64 for integers, as in SciPy.
    pub fn dtype(self) -> Dtype {
        match self.kind {
            Kind::Float(dtype) => dtype,
            _ => Dtype::F64,
        }
    }

    /// The type whose elements these are, byte for byte, if there is one.
    pub fn plain(self) -> Option<Dtype> {
        match self.kind {
            Kind::Float(dtype) if !self.big_endian => Some(dtype),
            _ => None,
        }
    }

    pub fn is_float(self) -> bool {
        matches!(self.kind, Kind::Float(_))
    }

    /// The name of the type.
    pub fn name(self) -> String {
        let name = match self.kind {
            Kind::Float(dtype) => dtype.name().to_owned(),
            Kind::Signed(size) => format!("i{}", 8 * size),
            Kind::Unsigned(size) => format!("u{}", 8 * size),
            Kind::Bool => "bool".to_owned(),
        };
        if self.big_endian { format!("big-endian {name}") } else { name }
    }

    /// The element with these bytes.
    pub fn number(self, bytes: &[u8]) -> Number {
        let mut wide = [0; 8];
        let little = &mut wide[..bytes.len()];
        little.copy_from_slice(bytes);
        if self.big_endian {
            little.reverse();
        }
        let bits = u64::from_le_bytes(wide);
        match self.kind {
            Kind::Float(Dtype::F32) => Number::Float(f32::from_bits(bits as u32).into()),
            Kind::Float(Dtype::F64) => Number::Float(f64::from_bits(bits)),
            Kind::Float(Dtype::F16) => Number::Float(f16::from_bits(bits as u16).into()),
            Kind::Float(Dtype::Bf16) => Number::Float(bf16::from_bits(bits as u16).into()),
            Kind::Unsigned(_) => Number::Whole(bits.into()),
            Kind::Signed(size) => {
                // The sign is in the highest bit of the element's bytes.
                let above = 64 - 8 * size;
                Number::Whole(((bits << above) as i64 >> above).into())
            }
            Kind::Bool => Number::Whole((bits != 0).into()),
        }
    }

    /// Decodes the elements in `bytes`, at any alignment, to `C`: the type [`Stored::dtype`], or
    /// one that has all its values.
    pub fn decode<C: Value>(self, bytes: &[u8], to: &mut [C]) {
        /// Elements that one thread converts at a time.
        const CHUNK: usize = 1 << 16;
        if let Some(dtype) = self.plain() {
            return dtype::decode(dtype, bytes, to);
        }
        let parts = bytes.par_chunks(CHUNK * self.size());
        to.par_chunks_mut(CHUNK).zip(parts).for_each(|(to, bytes)| {
            let mut wide = [0.0; 256];
            for (to, bytes) in to.chunks_mut(wide.len()).zip(bytes.chunks(256 * self.size())) {
                self.widen(bytes, &mut wide);
                to.iter_mut().zip(wide).for_each(|(c, x)| *c = C::nearest(x));
            }
        });
    }

    /// The numbers nearest to the elements, many at a time.
    fn widen(self, bytes: &[u8], to: &mut [f64]) {
        fn each<const N: usize>(
            big_endian: bool,
            bytes: &[u8],
            to: &mut [f64],
            number: impl Fn([u8; N]) -> f64,
        ) {
            let (elements, _) = bytes.as_chunks::<N>();
            for (to, &element) in to.iter_mut().zip(elements) {
                let mut element = element;
                if big_endian {
                    element.reverse();
                }
                *to = number(element);
            }
        }
        let big = self.big_endian;
        match self.kind {
            Kind::Float(Dtype::F32) => each(big, bytes, to, |x| f32::from_le_bytes(x).into()),
            Kind::Float(Dtype::F64) => each(big, bytes, to, f64::from_le_bytes),
            Kind::Float(Dtype::F16) => each(big, bytes, to, |x| f16::from_le_bytes(x).into()),
            Kind::Float(Dtype::Bf16) => each(big, bytes, to, |x| bf16::from_le_bytes(x).into()),
            Kind::Signed(1) => each(big, bytes, to, |x| i8::from_le_bytes(x).into()),
            Kind::Signed(2) => each(big, bytes, to, |x| i16::from_le_bytes(x).into()),
            Kind::Signed(4) => each(big, bytes, to, |x| i32::from_le_bytes(x).into()),
            Kind::Signed(_) => each(big, bytes, to, |x| i64::from_le_bytes(x) as f64),
            Kind::Unsigned(1) => each(big, bytes, to, |x| u8::from_le_bytes(x).into()),
            Kind::Unsigned(2) => each(big, bytes, to, |x| u16::from_le_bytes(x).into()),
            Kind::Unsigned(4) => each(big, bytes, to, |x| u32::from_le_bytes(x).into()),
            Kind::Unsigned(_) => each(big, bytes, to, |x| u64::from_le_bytes(x) as f64),
            Kind::Bool => each(big, bytes, to, |[x]| f64::from(u8::from(x != 0))),
        }
    }
}

impl From<Dtype> for Stored {
    fn from(dtype: Dtype) -> Self {
        Self { kind: Kind::Float(dtype), big_endian: false }
    }
}

impl Number {
    /// The same number as an i64, if it is one.
    pub fn whole(self) -> Option<i64> {
        match self {
            Self::Whole(n) => n.try_into().ok(),
            // Both ends are floats: -2^63 is an i64, and 2^63 is the first number that is not.
            Self::Float(x) if x.fract() == 0.0 && (-TWO_63..TWO_63).contains(&x) => Some(x as i64),
            Self::Float(_) => None,
        }
    }

    /// The same number as an f64, if it is one.
    pub fn double(self) -> Option<f64> {
        match self {
            Self::Float(x) => Some(x),
            Self::Whole(n) => Some(n as f64).filter(|&y| y as i128 == n),
        }
    }
}

const TWO_63: f64 = 9_223_372_036_854_775_808.0;

impl std::fmt::Display for Number {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Float(x) => write!(f, "{x:?}"),
            Self::Whole(n) => write!(f, "{n}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_of_every_type_and_order() {
        let number = |descr, bytes: &[u8]| Stored::of_npy(descr).expect(descr).number(bytes);
        assert_eq!(number("|i1", &[0x80]), Number::Whole(-128));
        assert_eq!(number("<i2", &[0xfe, 0xff]), Number::Whole(-2));
        assert_eq!(number(">i2", &[0xff, 0xfe]), Number::Whole(-2));
        assert_eq!(number(">u2", &[0xff, 0xfe]), Number::Whole(0xfffe));
        assert_eq!(number("=i4", &[1, 0, 0, 0x80]), Number::Whole(-0x7fff_ffff));
        assert_eq!(number("u8", &[0xff; 8]), Number::Whole(u64::MAX.into()));
        assert_eq!(number(">i8", &[0x80, 0, 0, 0, 0, 0, 0, 1]), Number::Whole(1 - (1 << 63)));
        assert_eq!(number("|b1", &[1]), Number::Whole(1));
        assert_eq!(number(">f4", &1.5f32.to_be_bytes()), Number::Float(1.5));
        assert_eq!(number(">f8", &(-0.1f64).to_be_bytes()), Number::Float(-0.1));
        assert_eq!(number(">f2", &[0x3e, 0]), Number::Float(1.5));
        for descr in ["<f16", "|O", "<c8", "<U3", "|V2", "<M8[ns]", "", "<", "é", "i3"] {
            assert_eq!(Stored::of_npy(descr), None, "{descr}");
        }
        assert_eq!(Stored::of_npy(">i1"), Stored::of_npy("|i1"));
        assert_eq!(Stored::of_npy(">f4").map(Stored::name).as_deref(), Some("big-endian f32"));
    }

    /// Elements decoded one at a time and many at a time.
    #[test]
    fn elements_are_decoded_as_what_they_are() {
        let mut state = 1u64;
        let mut bytes = vec![0; 8 * 70_001];
        for byte in &mut bytes {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            *byte = (state >> 56) as u8;
        }
        for name in ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"] {
            for order in ["<", ">"] {
                let stored = Stored::of_npy(&format!("{order}{name}")).expect(name);
                let bytes = &bytes[..stored.size() * 70_001];
                let mut values = vec![0.0; 70_001];
                stored.decode(bytes, &mut values);
                for (x, bytes) in values.iter().zip(bytes.chunks(stored.size())) {
                    let want = match stored.number(bytes) {
                        Number::Float(x) => x,
                        Number::Whole(n) => n as f64,
                    };
                    assert!(*x == want || x.is_nan() && want.is_nan(), "{order}{name}: {x}");
                }
            }
        }
    }

    #[test]
    fn numbers_change_their_type_only_without_loss() {
        assert_eq!(Number::Float(3.0).whole(), Some(3));
        assert_eq!(Number::Float(-100.0).whole(), Some(-100));
        for x in [0.5, f64::NAN, f64::INFINITY, TWO_63, -1e19] {
            assert_eq!(Number::Float(x).whole(), None, "{x}");
        }
        assert_eq!(Number::Float(-TWO_63).whole(), Some(i64::MIN));
        assert_eq!(Number::Whole(1 << 63).whole(), None);
        assert_eq!(Number::Float(0.1).double(), Some(0.1));
        assert_eq!(Number::Whole((1 << 53) + 1).double(), None);
        assert_eq!(Number::Whole(1 << 60).double(), Some((1u64 << 60) as f64));
        assert_eq!(Number::Whole(i128::from(u64::MAX)).double(), None);
    }
}
