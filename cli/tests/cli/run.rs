//! `softmax run`: the contents of outputs, and when they appear.

use std::fs;

use crate::common::{File, Folder, npy, npy_aligned, run, run_ok, safetensors, softmax, values};
use bytemuck::cast_slice;
use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors};
use softmax::{Element, Hardmax, Masked, Matrix, MatrixMut, Sigmoid, Softmax, Ties};

/// The library's own result.
fn expected<T: Element>(softmax: Softmax, log: bool, x: &[T], cols: usize) -> Vec<T> {
    let mut y = vec![T::ZERO; x.len()];
    let (m, out) = (Matrix::new(x, cols).unwrap(), MatrixMut::new(&mut y, cols).unwrap());
    if log { softmax.log_softmax(m, out) } else { softmax.softmax(m, out) }.unwrap();
    y
}

#[test]
fn every_type_and_format_gives_the_bits_of_the_library() {
    fn check<T: File>() {
        let folder = Folder::new();
        let shape = [3, 5, 77];
        let mut x: Vec<T> = values(3 * 5 * 77);
        x[77..2 * 77].fill(T::NEG_INFINITY);
        let plain = Softmax::new();
        let cases: [(&[&str], Softmax, bool); 8] = [
            (&[], plain, false),
            (&["--log"], plain, true),
            (&["--temperature", "2.5"], plain.temperature(2.5), false),
            (&["--temperature", "0"], plain.temperature(0.0), false),
            (&["--temperature", "inf", "--log"], plain.temperature(f64::INFINITY), true),
            (&["--scale", "0.125", "--log"], plain.scale(0.125), true),
            (&["--masked", "zero"], plain.masked(Masked::Zero), false),
            (&["--masked", "nan"], plain, false),
        ];
        let tensors = safetensors(&[("x", T::DTYPE, &shape, cast_slice(&x))]);
        let st = folder.file("in.safetensors", &tensors);
        for (options, softmax, log) in cases {
            let options = [options, &["--force"]].concat();
            let y = expected(softmax, log, &x, 77);
            let out = folder.path("out.safetensors");
            run_ok(&st, &out, &options);
            let want = safetensors(&[("x", T::DTYPE, &shape, cast_slice(&y))]);
            let bytes = fs::read(out).unwrap();
            let (got, want) = (
                SafeTensors::deserialize(&bytes).unwrap(),
                SafeTensors::deserialize(&want).unwrap(),
            );
            assert_eq!(got.tensors(), want.tensors(), "{} {options:?}", T::NAME);
            if let Some(descr) = T::DESCR {
                let input = folder.file("in.npy", &npy(descr, &shape, cast_slice(&x)));
                let out = folder.path("out.npy");
                run_ok(&input, &out, &options);
                // With the header.
                let want = npy(descr, &shape, cast_slice(&y));
                assert_eq!(fs::read(out).unwrap(), want, "{} {options:?}", T::NAME);
            }
        }
    }
    check::<f32>();
    check::<f64>();
    check::<f16>();
    check::<bf16>();
}

/// The value of `T` nearest to `x`, found among the neighbours of a first guess by their distance.
fn nearest<T: File>(x: f64, bits: impl Fn(T) -> u64, from_bits: impl Fn(u64) -> T) -> T {
    let guess = bits(T::from_f64(x));
    let candidates = [guess.saturating_sub(1), guess, guess + 1].map(from_bits);
    let distance = |c: &T| (c.to_f64() - x).abs();
    let least = candidates.iter().map(distance).fold(f64::INFINITY, f64::min);
    let best: Vec<T> = candidates.into_iter().filter(|c| distance(c) == least).collect();
    *best.iter().find(|c| bits(**c).is_multiple_of(2)).unwrap_or(&best[0])
}

#[test]
fn another_dtype_is_computed_wide_and_rounded_once() {
    // More elements than one thread converts at a time, so that conversions are cut.
    const COLS: usize = 1000;
    fn convert<A: File, C: File, B: File>(round: impl Fn(f64) -> B) {
        let folder = Folder::new();
        let x: Vec<A> = values(100 * COLS);
        // Widening is exact.
        let wide: Vec<C> = x.iter().map(|v| C::from_f64(v.to_f64())).collect();
        for log in [false, true] {
            let y: Vec<B> = expected(Softmax::new(), log, &wide, COLS)
                .into_iter()
                .map(|v| round(v.to_f64()))
                .collect();
            let file = safetensors(&[("x", A::DTYPE, &[100, COLS], cast_slice(&x))]);
            let input = folder.file("in.safetensors", &file);
            let out = folder.path("out.safetensors");
            let options = ["--force", "--dtype", B::NAME, "--log"];
            run_ok(&input, &out, &options[..if log { 4 } else { 3 }]);
            let bytes = fs::read(out).unwrap();
            let got = SafeTensors::deserialize(&bytes).unwrap();
            let got = got.tensor("x").unwrap();
            assert_eq!((got.dtype(), got.shape()), (B::DTYPE, &[100, COLS][..]));
            assert!(
                got.data() == cast_slice::<B, u8>(&y),
                "{} to {}, log: {log}",
                A::NAME,
                B::NAME
            );
        }
    }
    let to_f32 = |x: f64| x as f32;
    let to_f64 = |x: f64| x;
    let to_f16 = |x: f64| {
        let x32 = nearest::<f16>(x.abs(), |v| v.to_bits().into(), |b| f16::from_bits(b as u16));
        if x < 0.0 { -x32 } else { x32 }
    };
    let to_bf16 = |x: f64| {
        let x32 = nearest::<bf16>(x.abs(), |v| v.to_bits().into(), |b| bf16::from_bits(b as u16));
        if x < 0.0 { -x32 } else { x32 }
    };
    convert::<f32, f64, f64>(to_f64);
    convert::<f32, f32, f16>(to_f16);
    convert::<f32, f32, bf16>(to_bf16);
    convert::<f64, f64, f32>(to_f32);
    convert::<f64, f64, f16>(to_f16);
    convert::<f64, f64, bf16>(to_bf16);
    convert::<f16, f32, f32>(to_f32);
    convert::<f16, f64, f64>(to_f64);
    convert::<f16, f32, bf16>(to_bf16);
    convert::<bf16, f32, f32>(to_f32);
    convert::<bf16, f64, f64>(to_f64);
    convert::<bf16, f32, f16>(to_f16);
}

#[test]
fn kernels_and_threads_give_the_same_bytes() {
    let folder = Folder::new();
    let x: Vec<f32> = values(300 * 1000);
    let input = folder.file("in.npy", &npy("<f4", &[300, 1000], cast_slice(&x)));
    let out = folder.path("out.npy");
    let want = npy("<f4", &[300, 1000], cast_slice(&expected(Softmax::new(), false, &x, 1000)));
    let require = std::env::var("SOFTMAX_REQUIRE").unwrap_or_default();
    for kernel in softmax::kernels() {
        let name = kernel.name();
        if !kernel.is_available() {
            assert!(!require.split(',').any(|r| r == name), "this CPU lacks {name}");
            println!("not tested: this CPU lacks the kernel {name}");
            continue;
        }
        for (threads, text) in [("1", "1 thread,"), ("2", "2 threads,")] {
            let options = ["--force", "--kernel", name, "--threads", threads];
            let lines = run_ok(&input, &out, &options);
            let start = format!("{}: 300 x 1000 f32, kernel {name}, {text} ", out.display());
            assert!(lines.len() == 1 && lines[0].starts_with(&start), "{lines:?}");
            assert!(lines[0].ends_with(" GB/s"), "{lines:?}");
            assert!(fs::read(&out).unwrap() == want, "{name} with {threads} threads");
        }
    }
}

#[test]
fn several_chunks_are_one_file() {
    // 16.8 MB: a little more than four chunks with two threads, for each way to read and write.
    let (rows, cols) = (4200, 1001);
    let folder = Folder::new();
    let x: Vec<f32> = values(rows * cols);
    let y = expected(Softmax::new(), false, &x, cols);
    let input = folder.file("in.npy", &npy("<f4", &[rows, cols], cast_slice(&x)));
    let out = folder.path("out.npy");
    run_ok(&input, &out, &["--threads", "2"]);
    assert!(fs::read(&out).unwrap() == npy("<f4", &[rows, cols], cast_slice(&y)));
    let half: Vec<f16> = y.iter().map(|v| f16::from_f32(*v)).collect();
    run_ok(&input, &out, &["--force", "--dtype", "f16", "--threads", "2"]);
    assert!(fs::read(&out).unwrap() == npy("<f2", &[rows, cols], cast_slice(&half)));
    // The same matrix as one row that is longer than a chunk.
    let y = expected(Softmax::new(), false, &x, rows * cols);
    let input = folder.file("row.npy", &npy("<f4", &[rows * cols], cast_slice(&x)));
    run_ok(&input, &out, &["--force"]);
    assert!(fs::read(&out).unwrap() == npy("<f4", &[rows * cols], cast_slice(&y)));
}

#[test]
fn data_may_start_anywhere() {
    let folder = Folder::new();
    let x: Vec<f64> = values(6 * 7);
    let want = npy("<f8", &[6, 7], cast_slice(&expected(Softmax::new(), false, &x, 7)));
    let out = folder.path("out.npy");
    for align in [64, 16, 9, 7] {
        let file = npy_aligned(align, "<f8", false, "(6, 7)", cast_slice(&x));
        run_ok(&folder.file("in.npy", &file), &out, &["--force"]);
        assert!(fs::read(&out).unwrap() == want, "aligned to {align}");
    }
    // Version 2, and a dictionary as others may write it.
    let text = "{\"shape\": (6, 7), \"fortran_order\": False, \"descr\": \"<f8\"}";
    let length = (text.len() as u32).to_le_bytes();
    let file = [b"\x93NUMPY\x02\x00", &length[..], text.as_bytes(), cast_slice(&x)].concat();
    run_ok(&folder.file("in.npy", &file), &out, &["--force"]);
    assert!(fs::read(&out).unwrap() == want);
    // A header of .safetensors without padding.
    let text = r#"{"x":{"dtype":"F64","shape":[6,7],"data_offsets":[0,336]}}"#;
    for padding in 0..8 {
        let text = text.to_owned() + &" ".repeat(padding);
        let length = (text.len() as u64).to_le_bytes();
        let file = [&length[..], text.as_bytes(), cast_slice(&x)].concat();
        let out = folder.path("out.safetensors");
        run_ok(&folder.file("in.safetensors", &file), &out, &["--force"]);
        let bytes = fs::read(out).unwrap();
        let got = SafeTensors::deserialize(&bytes).unwrap();
        assert!(want.ends_with(got.tensor("x").unwrap().data()), "padding {padding}");
    }
}

#[test]
fn shapes_without_elements_and_orders_that_are_both() {
    let folder = Folder::new();
    let out = folder.path("out.npy");
    for shape in [&[0, 5][..], &[5, 0], &[0], &[2, 0, 3], &[isize::MAX as usize / 4, 0]] {
        let file = npy("<f4", shape, &[]);
        run_ok(&folder.file("in.npy", &file), &out, &["--force", "--show", "3"]);
        assert_eq!(fs::read(&out).unwrap(), file, "{shape:?}");
    }
    let x: Vec<f32> = values(5);
    let y = expected(Softmax::new(), false, &x, 5);
    for (text, shape) in [("(5,)", &[5][..]), ("(1, 5)", &[1, 5])] {
        let file = npy_aligned(64, "<f4", true, text, cast_slice(&x));
        run_ok(&folder.file("in.npy", &file), &out, &["--force"]);
        assert_eq!(fs::read(&out).unwrap(), npy("<f4", shape, cast_slice(&y)));
    }
}

#[test]
fn safetensors_keep_names_shapes_and_metadata() {
    let folder = Folder::new();
    let (a, b): (Vec<f32>, Vec<bf16>) = (values(24), values(9));
    let file = safetensors(&[
        ("head.1/w", Dtype::F32, &[2, 3, 4], cast_slice(&a)),
        ("b \"é\"", Dtype::BF16, &[9], cast_slice(&b)),
        ("none", Dtype::F64, &[4, 0], &[]),
    ]);
    let (_, before) = SafeTensors::read_metadata(&file).unwrap();
    let input = folder.file("in.safetensors", &file);
    let out = folder.path("out.safetensors");
    let lines = run_ok(&input, &out, &["--show", "1"]);
    assert!(lines[0].contains(": 3 tensors, 33 elements bf16/f32/f64, "), "{lines:?}");
    assert_eq!(lines.len(), 3, "one row of each tensor that has one: {lines:?}");
    let bytes = fs::read(&out).unwrap();
    let (_, after) = SafeTensors::read_metadata(&bytes).unwrap();
    assert_eq!(after.metadata(), before.metadata());
    assert_eq!(after.offset_keys(), before.offset_keys());
    for (name, info) in before.tensors() {
        let now = after.info(&name).unwrap();
        assert_eq!((now.dtype, &now.shape), (info.dtype, &info.shape), "{name}");
    }
    let got = SafeTensors::deserialize(&bytes).unwrap();
    let y = expected(Softmax::new(), false, &a, 4);
    assert_eq!(got.tensor("head.1/w").unwrap().data(), cast_slice::<f32, u8>(&y));
    // The same input gives the same bytes, the order of the metadata included.
    run_ok(&input, &out, &["--force"]);
    assert_eq!(fs::read(&out).unwrap(), bytes);

    let lines = run_ok(&input, &out, &["--force", "--tensor", "b \"é\""]);
    assert!(lines[0].contains(": 9 bf16, "), "{lines:?}");
    let bytes = fs::read(&out).unwrap();
    let got = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(got.names(), ["b \"é\""]);
    let y = expected(Softmax::new(), false, &b, 9);
    assert_eq!(got.tensor("b \"é\"").unwrap().data(), cast_slice::<bf16, u8>(&y));
}

/// Other tensors stay unchanged, in their places.
#[test]
fn other_tensors_are_copied_as_they_are() {
    let folder = Folder::new();
    let (a, b): (Vec<f32>, Vec<f64>) = (values(12), values(5));
    let ids: [i64; 4] = [1, -1, i64::MAX, 0];
    let file = safetensors(&[
        ("logits", Dtype::F32, &[3, 4], cast_slice(&a)),
        ("ids", Dtype::I64, &[2, 2], cast_slice(&ids)),
        ("mask", Dtype::BOOL, &[3], &[1, 0, 1]),
        ("quantized", Dtype::F8_E5M2, &[2], &[7, 9]),
        ("scale", Dtype::F32, &[], &0.25f32.to_le_bytes()),
        ("none", Dtype::U8, &[0], &[]),
        ("more", Dtype::F64, &[5], cast_slice(&b)),
    ]);
    let input = folder.file("in.safetensors", &file);
    let out = folder.path("out.safetensors");
    let line = run_ok(&input, &out, &[]).concat();
    let what = ": 2 tensors, 17 elements f32/f64, 5 others copied as they are \
                (BOOL/F32/F8_E5M2/I64/U8), kernel ";
    assert!(line.contains(what), "{line}");
    let bytes = fs::read(&out).unwrap();
    let (before, after) = (SafeTensors::deserialize(&file), SafeTensors::deserialize(&bytes));
    let (before, after) = (before.unwrap(), after.unwrap());
    for (name, tensor) in before.tensors() {
        let now = after.tensor(&name).unwrap();
        assert_eq!((now.dtype(), now.shape()), (tensor.dtype(), tensor.shape()), "{name}");
        let y = match &*name {
            "logits" => cast_slice(&expected(Softmax::new(), false, &a, 4)).to_vec(),
            "more" => cast_slice(&expected(Softmax::new(), false, &b, 5)).to_vec(),
            _ => tensor.data().to_vec(),
        };
        assert_eq!(now.data(), y, "{name}");
    }
    let metadata = |bytes| SafeTensors::read_metadata(bytes).unwrap().1;
    let (before, after) = (metadata(&file), metadata(&bytes));
    assert_eq!(after.metadata(), before.metadata());
    assert_eq!(after.offset_keys(), before.offset_keys());
    // Also where sizes change; and as JSON.
    let json = run_ok(&input, &out, &["--force", "--json", "--dtype", "f16"]).concat();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["copied"].as_array().unwrap().len(), 5);
    let bytes = fs::read(&out).unwrap();
    let after = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(after.tensor("ids").unwrap().data(), cast_slice::<i64, u8>(&ids));
    assert_eq!(after.tensor("more").unwrap().dtype(), Dtype::F16);

    // A chosen tensor is computed: integers as f64, as in SciPy.
    let line = run_ok(&input, &out, &["--force", "--tensor", "ids"]).concat();
    assert!(line.contains(": 2 x 2 f64 from i64, kernel "), "{line}");
    let y = expected(Softmax::new(), false, &ids.map(|n| n as f64), 2);
    let bytes = fs::read(&out).unwrap();
    let after = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(after.tensor("ids").unwrap().data(), cast_slice::<f64, u8>(&y));
    for (name, cause) in [("quantized", "is F8_E5M2, which is not supported"), ("scale", "is 0-d")]
    {
        let refused = run(&input, &out, &["--force", "--tensor", name]);
        let stderr = String::from_utf8(refused.stderr).unwrap();
        assert!(stderr.contains(cause) && refused.status.code() == Some(2), "{stderr}");
    }
}

/// Everything that `np.load` reads is read, with a remark.
#[test]
fn arrays_of_other_types_and_orders() {
    let folder = Folder::new();
    let out = folder.path("out.npy");
    let check = |file: &[u8], options: &[&str], want: &[u8], what: &str| {
        let input = folder.file("in.npy", file);
        let line = run_ok(&input, &out, &[options, &["--force"]].concat()).concat();
        assert!(line.contains(&format!(": {what}, kernel ")), "{line} {what}");
        assert!(fs::read(&out).unwrap() == want, "{what}");
    };
    // Big-endian floats are computed in their type.
    let (x4, x8): (Vec<f32>, Vec<f64>) = (values(70_000), values(12));
    let big4: Vec<u8> = x4.iter().flat_map(|x| x.to_be_bytes()).collect();
    let y = npy("<f4", &[7, 10_000], cast_slice(&expected(Softmax::new(), false, &x4, 10_000)));
    check(&npy(">f4", &[7, 10_000], &big4), &[], &y, "7 x 10000 f32 from big-endian f32");
    let big8: Vec<u8> = x8.iter().flat_map(|x| x.to_be_bytes()).collect();
    let y = npy("<f8", &[3, 4], cast_slice(&expected(Softmax::new(), false, &x8, 4)));
    check(&npy(">f8", &[3, 4], &big8), &[], &y, "3 x 4 f64 from big-endian f64");
    // Integers as f64.
    let n = [3i32, -1, 1 << 30, 0, 5, 5];
    let y64 = expected(Softmax::new(), false, &n.map(f64::from), 3);
    let y = npy("<f8", &[2, 3], cast_slice(&y64));
    check(&npy("<i4", &[2, 3], cast_slice(&n)), &[], &y, "2 x 3 f64 from i32");
    let big: Vec<u8> = n.iter().flat_map(|n| i64::from(*n).to_be_bytes()).collect();
    check(&npy(">i8", &[2, 3], &big), &[], &y, "2 x 3 f64 from big-endian i64");
    let y32: Vec<f32> = y64.iter().map(|p| *p as f32).collect();
    let y = npy("<f4", &[2, 3], cast_slice(&y32));
    check(&npy("<i4", &[2, 3], cast_slice(&n)), &["--dtype", "f32"], &y, "2 x 3 f32 from i32");
    let y = npy("<f8", &[1, 2], cast_slice(&expected(Softmax::new(), false, &[0.0, 1.0], 2)));
    check(&npy("|b1", &[1, 2], &[0, 1]), &[], &y, "1 x 2 f64 from bool");
    // The first of several arrays.
    let y = npy("<f8", &[3, 4], cast_slice(&expected(Softmax::new(), false, &x8, 4)));
    let first = npy("<f8", &[3, 4], cast_slice(&x8));
    let several = [&first[..], &npy("<i4", &[2], &[0; 8])].concat();
    check(&several, &[], &y, "3 x 4 f64, the first of several arrays");
    // A header of Python 2.
    let mut old = npy("<f8", &[3, 4], cast_slice(&x8));
    let text = format!("{:117}\n", "{u'descr': '<f8', 'fortran_order': False,\n'shape': (3L, 4L)}");
    old[10..128].copy_from_slice(text.as_bytes());
    check(&old, &[], &y, "3 x 4 f64");
}

/// Arrays in Fortran order are copied to rows.
#[test]
fn fortran_order_is_read_as_rows() {
    let folder = Folder::new();
    let out = folder.path("out.npy");
    // Fewer and more columns than are copied together, and columns longer than a chunk.
    for shape in [&[5usize, 77][..], &[77, 5], &[3, 1, 4, 5], &[40_000, 33], &[2, 40_000]] {
        let n = shape.iter().product();
        let x: Vec<f32> = values(n);
        // The index of an element that is the i-th in Fortran order.
        let place = |mut i: usize| {
            let index: Vec<usize> = shape
                .iter()
                .map(|len| {
                    let at = i % len;
                    i /= len;
                    at
                })
                .collect();
            index.iter().zip(shape).fold(0, |place, (i, len)| place * len + i)
        };
        let turned: Vec<f32> = (0..n).map(|i| x[place(i)]).collect();
        let text = format!("{shape:?}").replace('[', "(").replace(']', ")");
        let file = npy_aligned(64, "<f4", true, &text, cast_slice(&turned));
        run_ok(&folder.file("in.npy", &file), &out, &["--force"]);
        let cols = shape[shape.len() - 1];
        let want = npy("<f4", shape, cast_slice(&expected(Softmax::new(), false, &x, cols)));
        assert!(fs::read(&out).unwrap() == want, "{shape:?}");
    }
    // Elements of other sizes, one in the other byte order.
    let x = [1i64, 2, 3, 4, 5, 7];
    let y = expected(Softmax::new(), false, &x.map(|n| n as f64), 3);
    let turned = [0, 3, 1, 4, 2, 5].map(|i| x[i]);
    let bytes = |descr, bytes: &[u8]| npy_aligned(64, descr, true, "(2, 3)", bytes);
    let files = [
        bytes("|u1", &turned.map(|n| n as u8)),
        bytes(">i2", cast_slice(&turned.map(|n| (n as i16).to_be()))),
        bytes("<i8", cast_slice(&turned)),
    ];
    for file in files {
        run_ok(&folder.file("in.npy", &file), &out, &["--force"]);
        assert_eq!(fs::read(&out).unwrap(), npy("<f8", &[2, 3], cast_slice(&y)));
    }
}

#[test]
fn other_operations_are_those_of_the_library() {
    type Map = fn(Softmax, Matrix<f32>, MatrixMut<f32>) -> Result<(), softmax::Error>;
    let folder = Folder::new();
    let x: Vec<f32> = values(60 * 7);
    let input = folder.file("in.npy", &npy("<f4", &[60, 7], cast_slice(&x)));
    let out = folder.path("out.npy");
    let cold = Softmax::new().temperature(0.0);
    let hot = Softmax::new().temperature(f64::INFINITY);
    let plain = Softmax::new();
    let softmax: Map = |options, x, y| options.softmax(x, y);
    let cases: [(&[&str], Softmax, Map); 7] = [
        (&["--op", "sigmoid"], plain, |_, x, y| Sigmoid::new().sigmoid(x, y)),
        (&["--op", "log-sigmoid", "--scale", "0.5"], plain, |_, x, y| {
            Sigmoid::new().scale(0.5).log_sigmoid(x, y)
        }),
        (&["--op", "hardmax"], plain, |_, x, y| Hardmax::new().ties(Ties::First).hardmax(x, y)),
        (&["--op", "log-softmax"], plain, |options, x, y| options.log_softmax(x, y)),
        (&["--op", "softmax"], plain, softmax),
        (&["--temperature", "0"], cold, softmax),
        (&["--temperature", "inf"], hot, softmax),
    ];
    let want = |map: Map, options: Softmax| {
        let mut y = vec![0.0f32; x.len()];
        let (m, to) = (Matrix::new(&x, 7).unwrap(), MatrixMut::new(&mut y, 7).unwrap());
        map(options, m, to).unwrap();
        npy("<f4", &[60, 7], cast_slice(&y))
    };
    for (options, softmax, map) in cases {
        run_ok(&input, &out, &[options, &["--force"]].concat());
        assert!(fs::read(&out).unwrap() == want(map, softmax), "{options:?}");
    }
}

/// The bits of moving the axis to the end, in files of one chunk and of several.
#[test]
fn any_axis_is_that_of_the_library() {
    let folder = Folder::new();
    for shape in [[3usize, 50, 7], [5, 1000, 900]] {
        let x: Vec<f32> = values(shape.iter().product());
        let input = folder.file("in.npy", &npy("<f4", &shape, cast_slice(&x)));
        let out = folder.path("out.npy");
        for axis in [-3isize, -2, -1, 0, 1, 2] {
            let option = format!("--axis={axis}");
            run_ok(&input, &out, &[&option, "--force"]);
            let mut y = vec![0.0f32; x.len()];
            let axis = axis.rem_euclid(3) as usize;
            let (len, inner) = (shape[axis], shape[axis + 1..].iter().product::<usize>());
            for start in 0..x.len() / len {
                let start = start / inner * inner * len + start % inner;
                let column: Vec<f32> = (0..len).map(|k| x[start + k * inner]).collect();
                for (k, p) in expected(Softmax::new(), false, &column, len).iter().enumerate() {
                    y[start + k * inner] = *p;
                }
            }
            let want = npy("<f4", &shape, cast_slice(&y));
            assert!(fs::read(&out).unwrap() == want, "axis {axis} of {shape:?}");
        }
    }
}

#[test]
fn verbose_says_how_and_why() {
    let folder = Folder::new();
    let input = folder.file("in.npy", &npy("<f4", &[8, 4], cast_slice(&[[0.5f32; 4]; 8])));
    let out = folder.path("out.npy");
    let lines = run_ok(&input, &out, &["--verbose", "--kernel", "portable", "--threads", "1"]);
    let want = [
        "the array: 8 rows in chunks of 8, computed in f32",
        "  kernel: portable",
        "  rows: in groups, because 8 rows of 4 are short",
        "  output: in place",
        "  threads: 1",
    ];
    assert_eq!(lines[1..], want);
    assert_eq!(run_ok(&input, &out, &["--force"]).len(), 1, "only if asked for");
    // As JSON.
    let options = ["--force", "--json", "--verbose", "--show", "2", "--threads", "1"];
    let json: serde_json::Value =
        serde_json::from_str(&run_ok(&input, &out, &options).join("\n")).unwrap();
    assert_eq!((&json["output"], &json["threads"]), (&out.to_str().unwrap().into(), &1.into()));
    let files = [&input, &out].map(|file| fs::metadata(file).unwrap().len());
    assert_eq!(json["bytes"], files[0] + files[1]);
    assert!(json["kernel"].is_string() && json["seconds"].is_f64());
    let tensor = serde_json::json!({ "name": null, "shape": [8, 4], "dtype": "f32" });
    assert_eq!(json["tensors"], serde_json::json!([tensor]));
    let row = |row| serde_json::json!({ "name": null, "row": row, "column": 0, "value": 0.25 });
    assert_eq!(json["rows"], serde_json::json!([row(0), row(1)]));
    assert_eq!(
        (&json["plans"][0]["rows"], &json["plans"][0]["chunk_rows"]),
        (&8.into(), &8.into())
    );
}

#[test]
fn show_names_the_first_of_the_most_likely() {
    let folder = Folder::new();
    let nan = f32::NAN;
    let x = [[0.0, 5.0, 5.0, 0.0], [9.0, 1.0, 1.0, 1.0], [nan, 0.0, 0.0, 0.0], [0.0; 4]];
    let input = folder.file("in.npy", &npy("<f4", &[4, 4], cast_slice(&x)));
    let out = folder.path("out.npy");
    let lines = run_ok(&input, &out, &["--show", "3"]);
    let want = [
        "row 0: most likely 1 (p = 0.4967)",
        "row 1: most likely 0 (p = 0.9990)",
        "row 2: not a number",
    ];
    assert_eq!(lines[1..], want);
    let lines = run_ok(&input, &out, &["--show", "99", "--log", "--force"]);
    assert_eq!(lines[1], "row 0: most likely 1 (log p = -0.6999)");
    assert_eq!(lines[4..], ["row 3: most likely 0 (log p = -1.3863)"]);
}

#[test]
fn an_output_is_replaced_only_by_force() {
    let folder = Folder::new();
    let x: Vec<f32> = values(40);
    let file = npy("<f4", &[4, 10], cast_slice(&x));
    let want = npy("<f4", &[4, 10], cast_slice(&expected(Softmax::new(), false, &x, 10)));
    let input = folder.file("in.npy", &file);
    let out = folder.file("out.npy", b"precious");
    let refused = run(&input, &out, &[]);
    assert_eq!(refused.status.code(), Some(2));
    assert_eq!(
        String::from_utf8(refused.stderr).unwrap(),
        format!("softmax: {}: exists already; --force replaces it\n", out.display())
    );
    assert_eq!(fs::read(&out).unwrap(), b"precious");
    run_ok(&input, &out, &["--force"]);
    assert_eq!(fs::read(&out).unwrap(), want);
    assert_eq!(fs::read(&input).unwrap(), file);
    // The output is the input.
    assert_eq!(run(&input, &input, &[]).status.code(), Some(2));
    assert_eq!(fs::read(&input).unwrap(), file);
    run_ok(&input, &input, &["--force"]);
    assert_eq!(fs::read(&input).unwrap(), want);
    // An error leaves the old file.
    let broken = folder.file("broken.npy", &file[..file.len() - 1]);
    assert_eq!(run(&broken, &out, &["--force"]).status.code(), Some(2));
    assert_eq!(fs::read(&out).unwrap(), want);
    assert_eq!(folder.names(), ["broken.npy", "in.npy", "out.npy"]);
}

#[cfg(unix)]
#[test]
fn an_output_is_a_file_like_any_other() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let folder = Folder::new();
    let input = folder.file("in.npy", &npy("<f4", &[1], &[0; 4]));
    let out = folder.path("out.npy");
    run_ok(&input, &out, &[]);
    let mode = |path| fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(&out), mode(&input), "the permissions that the umask leaves");
    // A link stays a link.
    let link = folder.path("link.npy");
    symlink(&out, &link).unwrap();
    fs::write(&out, "old").unwrap();
    run_ok(&input, &link, &["--force"]);
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(fs::read(&out).unwrap(), npy("<f4", &[1], &1.0f32.to_le_bytes()));
}

#[test]
fn a_relative_output_lands_in_the_current_folder() {
    let folder = Folder::new();
    folder.file("in.npy", &npy("<f4", &[1], &[0; 4]));
    let status = softmax()
        .args(["run", "in.npy", "out.npy"])
        .current_dir(folder.path("."))
        .output()
        .unwrap()
        .status;
    assert!(status.success());
    assert_eq!(folder.names(), ["in.npy", "out.npy"]);
}

#[test]
fn a_reader_that_has_gone_is_no_error() {
    let folder = Folder::new();
    let input = folder.file("in.npy", &npy("<f4", &[4, 10], &[0; 160]));
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let out = softmax()
        .arg("run")
        .args([&input, &folder.path("out.npy")])
        .args(["--show", "4"])
        .stdout(writer)
        .output()
        .unwrap();
    assert_eq!((out.status.code(), &*out.stderr), (Some(0), &b""[..]));
}
