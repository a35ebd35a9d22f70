//! `softmax loss`: the numbers of the library, to the bit, in files of one chunk and of several.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use crate::common::{
    File, Folder, arguments, call, call_ok, call_refused, files, npy, npy_aligned, safetensors,
    softmax, values,
};
use bytemuck::cast_slice;
use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use softmax::{CrossEntropy, Matrix, MatrixMut, Reduction};

/// The loss as printed, with all digits.
fn printed(logits: &Path, labels: &Path, options: &[&str]) -> f64 {
    let text = call_ok("loss", &arguments(&[logits, labels], options));
    let words: Vec<_> = text.split_whitespace().collect();
    assert_eq!((words[1], words[3]), ("loss", "of"), "{text}");
    words[2].parse().unwrap()
}

/// Labels that differ, some of them -100.
fn labels(rows: usize, cols: usize) -> Vec<i64> {
    let label = |i| if i % 7 == 3 { -100 } else { (i * i + 3 * i) as i64 % cols as i64 };
    (0..rows).map(label).collect()
}

#[test]
fn every_type_and_format_gives_the_bits_of_the_library() {
    fn check<T: File>() {
        let folder = Folder::new();
        let (shape, cols, rows) = ([4, 15, 77], 77, 60);
        let x: Vec<T> = values(rows * cols);
        let labels = labels(rows, cols);
        let weights: Vec<f32> = (0..cols).map(|i| 0.25 + i as f32 / 64.0).collect();
        let y = folder.file("labels.npy", &npy("<i8", &[4, 15], cast_slice(&labels)));
        let w = folder.file("weights.npy", &npy("<f4", &[cols], cast_slice(&weights)));
        let w = w.to_str().unwrap();
        let plain = CrossEntropy::new();
        let wide: Vec<f64> = (0..cols).map(|i| 0.1 + i as f64 / 70.0).collect();
        let v = folder.file("wide.npy", &npy("<f8", &[cols], cast_slice(&wide)));
        let v = v.to_str().unwrap();
        let cases: [(&[&str], CrossEntropy); 8] = [
            (&[], plain),
            (&["--reduction", "sum"], plain.reduction(Reduction::Sum)),
            (&["--ignore-index", "-100", "--label-smoothing", "0.125"], {
                plain.label_smoothing(0.125)
            }),
            (&["--z-loss", "0.001"], plain.z_loss(0.001)),
            (&["--weights", w], plain.weights(&weights)),
            (&["--weights", v], plain.weights(&wide)),
            (&["--weights", w, "--reduction", "sum", "--label-smoothing", "0.1"], {
                plain.weights(&weights).reduction(Reduction::Sum).label_smoothing(0.1)
            }),
            (&["--temperature", "2.5"], plain.temperature(2.5)),
        ];
        for input in &files(&folder, &shape, &x) {
            let extension = input.extension().unwrap().to_str().unwrap();
            let (g, l) = (folder.path(&format!("g.{extension}")), folder.path("l.npy"));
            for (options, loss) in &cases {
                let matrix = || Matrix::new(&x, cols).unwrap();
                let mut gradient = vec![T::ZERO; x.len()];
                let to = MatrixMut::new(&mut gradient, cols).unwrap();
                let want = loss.gradient(matrix(), &labels, to).unwrap();
                let mut losses = vec![0.0; rows];
                loss.losses(matrix(), &labels, &mut losses).unwrap();

                let about = format!("{} {extension} {options:?}", T::NAME);
                assert_eq!(printed(input, &y, options).to_bits(), want.to_bits(), "{about}");
                let (gs, ls) = (g.to_str().unwrap(), l.to_str().unwrap());
                let outputs = ["--force", "--gradient", gs, "--losses", ls];
                let got = printed(input, &y, &[options, &outputs[..]].concat());
                assert_eq!(got.to_bits(), want.to_bits(), "{about}, with the gradient");
                assert_eq!(fs::read(&l).unwrap(), npy("<f8", &[4, 15], cast_slice(&losses)));
                let bytes = fs::read(&g).unwrap();
                if extension == "npy" {
                    let descr = T::DESCR.unwrap();
                    assert_eq!(bytes, npy(descr, &shape, cast_slice(&gradient)), "{about}");
                } else {
                    let got = SafeTensors::deserialize(&bytes).unwrap();
                    let got = got.tensor("x").unwrap();
                    assert_eq!((got.dtype(), got.shape()), (T::DTYPE, &shape[..]));
                    assert_eq!(got.data(), cast_slice::<T, u8>(&gradient), "{about}");
                }
            }
        }
    }
    check::<f32>();
    check::<f64>();
    check::<f16>();
    check::<bf16>();
}

#[test]
fn several_chunks_are_one_loss() {
    // 17.8 MB: a little more than four chunks with two threads.
    let (rows, cols) = (4443, 1001);
    let folder = Folder::new();
    let x: Vec<f32> = values(rows * cols);
    let labels = labels(rows, cols);
    let input = folder.file("in.npy", &npy("<f4", &[rows, cols], cast_slice(&x)));
    let y = folder.file("labels.npy", &npy("<i8", &[rows], cast_slice(&labels)));
    let mut gradient = vec![0.0f32; x.len()];
    let to = MatrixMut::new(&mut gradient, cols).unwrap();
    let loss = CrossEntropy::new().label_smoothing(0.1);
    let want = loss.gradient(Matrix::new(&x, cols).unwrap(), &labels, to).unwrap();
    let g = folder.path("g.npy");
    let smooth = ["--label-smoothing", "0.1"];
    assert_eq!(printed(&input, &y, &smooth).to_bits(), want.to_bits());
    for threads in ["1", "2"] {
        let options = ["--threads", threads, "--force", "--gradient", g.to_str().unwrap()];
        let got = printed(&input, &y, &[&smooth[..], &options].concat());
        assert_eq!(got.to_bits(), want.to_bits());
        assert!(fs::read(&g).unwrap() == npy("<f4", &[rows, cols], cast_slice(&gradient)));
    }
    // A label in the second chunk is named by its row in the file.
    let mut wrong = labels;
    wrong[4321] = 1001;
    let y = folder.file("wrong.npy", &npy("<i8", &[rows], cast_slice(&wrong)));
    let g = folder.path("none.npy");
    let arguments: [&dyn AsRef<OsStr>; 4] = [&input, &y, &"--gradient", &g];
    let about = (y.to_str().unwrap(), "row 4321: 1001 is not one of its 1001 columns");
    call_refused(&folder, "loss", &arguments, about);
}

#[test]
fn labels_may_be_any_integers() {
    fn check<I: bytemuck::Pod + TryFrom<i64>>(descr: &str, rows: usize) {
        let folder = Folder::new();
        let x: Vec<f32> = values(rows * 10);
        let labels: Vec<i64> = (0..rows as i64).map(|i| i % 10).collect();
        let narrow = labels.iter().map(|&l| I::try_from(l).unwrap_or_else(|_| panic!()));
        let narrow: Vec<I> = narrow.collect();
        let input = folder.file("in.npy", &npy("<f4", &[rows, 10], cast_slice(&x)));
        let y = folder.file("labels.npy", &npy(descr, &[rows], cast_slice(&narrow)));
        let m = Matrix::new(&x, 10).unwrap();
        let want = CrossEntropy::new().loss(m, &labels).unwrap();
        assert_eq!(printed(&input, &y, &[]).to_bits(), want.to_bits(), "{descr}");
    }
    check::<i8>("|i1", 21);
    check::<i16>("<i2", 21);
    check::<i32>("<i4", 21);
    check::<i64>("<i8", 21);
    check::<u8>("|u1", 21);
    check::<u16>("<u2", 21);
    check::<u32>("<u4", 21);
    check::<u64>("<u8", 21);
}

/// Labels in any file and type, as long as nothing is lost.
#[test]
fn labels_and_weights_of_other_types_and_shapes() {
    let folder = Folder::new();
    let (rows, cols) = (6, 3);
    let x: Vec<f64> = values(rows * cols);
    let input = folder.file("in.npy", &npy("<f8", &[2, 3, cols], cast_slice(&x)));
    let labels = [2i64, 0, -100, 1, 1, 2];
    let loss = CrossEntropy::new();
    let want = loss.loss(Matrix::new(&x, cols).unwrap(), &labels).unwrap();
    let floats = labels.map(|l| l as f64);
    let big: Vec<u8> = labels.iter().flat_map(|l| l.to_be_bytes()).collect();
    let big_floats: Vec<u8> = floats.iter().flat_map(|l| (*l as f32).to_be_bytes()).collect();
    // Fortran order, of 2 x 3.
    let turned = [0, 3, 1, 4, 2, 5].map(|i| labels[i] as i16);
    let logits: &[u8] = cast_slice(&x);
    let files = [
        ("floats.npy", npy("<f8", &[2, 3], cast_slice(&floats))),
        ("big.npy", npy(">i8", &[6], &big)),
        ("big_floats.npy", npy(">f4", &[6, 1], &big_floats)),
        ("column.npy", npy("<i8", &[2, 3, 1], cast_slice(&labels))),
        ("row.npy", npy("<i8", &[1, 6], cast_slice(&labels))),
        ("fortran.npy", npy_aligned(64, "<i2", true, "(2, 3)", cast_slice(&turned))),
        ("one.safetensors", safetensors(&[("y", Dtype::I64, &[2, 3], cast_slice(&labels))])),
        ("float.safetensors", safetensors(&[("y", Dtype::F64, &[6], cast_slice(&floats))])),
        (
            "both.safetensors",
            safetensors(&[
                ("logits", Dtype::F64, &[6, 3], logits),
                ("labels", Dtype::I64, &[6], cast_slice(&labels)),
            ]),
        ),
    ];
    for (name, bytes) in files {
        let y = folder.file(name, &bytes);
        assert_eq!(printed(&input, &y, &[]).to_bits(), want.to_bits(), "{name}");
    }
    // One file with both.
    let both = folder.path("both.safetensors");
    assert_eq!(printed(&both, &both, &[]).to_bits(), want.to_bits());
    let g = folder.path("g.safetensors");
    call_ok("loss", &[&both, &both, &"--gradient", &g]);
    let bytes = fs::read(&g).unwrap();
    assert_eq!(SafeTensors::deserialize(&bytes).unwrap().names(), ["logits"]);
    let several = safetensors(&[
        ("a", Dtype::I64, &[6], cast_slice(&labels)),
        ("b", Dtype::I64, &[6], cast_slice(&labels)),
    ]);
    let y = folder.file("several.safetensors", &several);
    let about = (y.to_str().unwrap(), "there are several: a, b; np.save(");
    call_refused(&folder, "loss", &arguments(&[&input, &y], &[]), about);
    // Truth values are 0 and 1.
    let (x, yes) = ([1.0f32, 2.0, 3.0, 5.0], [0u8, 1]);
    let two = folder.file("two.npy", &npy("<f4", &[2, 2], cast_slice(&x)));
    let y = folder.file("bool.npy", &npy("|b1", &[2], &yes));
    let of_two = loss.loss(Matrix::new(&x, 2).unwrap(), &[0, 1]).unwrap();
    assert_eq!(printed(&two, &y, &[]), of_two);

    let y = folder.file("labels.npy", &npy("<i8", &[6], cast_slice(&labels)));
    let x: Vec<f64> = values(rows * cols);
    let weights = [0.5f32, 2.0, 1.0];
    let loss = CrossEntropy::new().weights(&weights);
    let want = loss.loss(Matrix::new(&x, cols).unwrap(), &labels).unwrap();
    let wide = weights.map(f64::from);
    let files = [
        ("w8.npy", npy("<f8", &[3], cast_slice(&wide))),
        ("row.npy", npy("<f4", &[1, 3], cast_slice(&weights))),
        ("column.npy", npy("<f4", &[3, 1], cast_slice(&weights))),
        ("w.safetensors", safetensors(&[("w", Dtype::F32, &[3], cast_slice(&weights))])),
    ];
    for (name, bytes) in files {
        let w = folder.file(name, &bytes);
        let got = printed(&input, &y, &["--weights", w.to_str().unwrap()]);
        assert_eq!(got.to_bits(), want.to_bits(), "{name}");
    }
    let whole = folder.file("whole.npy", &npy("|u1", &[3], &[1, 1, 1]));
    let plain = printed(&input, &y, &[]);
    assert_eq!(printed(&input, &y, &["--weights", whole.to_str().unwrap()]), plain);
}

#[test]
fn json_has_the_loss_and_what_it_is_of() {
    let folder = Folder::new();
    let x = [2.0f32, 1.0, 0.1, 0.5, 0.5, 0.5];
    let input = folder.file("in.npy", &npy("<f4", &[2, 3], cast_slice(&x)));
    let y = folder.file("labels.npy", &npy("<i8", &[2], cast_slice(&[0i64, -1])));
    let json = |options: &[&str]| -> (String, Value) {
        let text = call_ok("loss", &arguments(&[&input, &y], &[&["--json"], options].concat()));
        let value = serde_json::from_str(&text).unwrap();
        (text, value)
    };
    let (text, value) = json(&["--ignore-index", "-1"]);
    let m = Matrix::new(&x, 3).unwrap();
    let loss = CrossEntropy::new().ignore_index(-1).loss(m, &[0, -1]).unwrap();
    assert!(text.contains(&format!("\"loss\":{loss},")), "{text}");
    assert_eq!(text.lines().count(), 1);
    let keys: Vec<_> = value.as_object().unwrap().keys().cloned().collect();
    assert_eq!(keys, ["cols", "dtype", "ignored", "is", "loss", "reduction", "rows"]);
    assert_eq!(value["is"], "finite");
    assert_eq!(
        (&value["rows"], &value["ignored"], &value["cols"]),
        (&1.into(), &1.into(), &3.into())
    );
    assert_eq!((&value["dtype"], &value["reduction"]), (&"f32".into(), &"mean".into()));
    // The mean without rows.
    let y = folder.file("none.npy", &npy("<i8", &[2], cast_slice(&[-100i64; 2])));
    let text = call_ok("loss", &arguments(&[&input, &y], &["--json"]));
    assert!(text.contains("\"loss\":null") && text.contains("\"is\":\"nan\""), "{text}");
    assert_eq!(
        call_ok("loss", &arguments(&[&input, &y], &[])),
        "mean loss NaN of 0 rows (2 ignored)\n"
    );
    // An impossible label.
    let x = [0.0f32, f32::NEG_INFINITY];
    let input = folder.file("inf.npy", &npy("<f4", &[1, 2], cast_slice(&x)));
    let y = folder.file("one.npy", &npy("<i8", &[1], cast_slice(&[1i64])));
    let text = call_ok("loss", &arguments(&[&input, &y], &["--json"]));
    assert!(text.contains("\"loss\":null") && text.contains("\"is\":\"inf\""), "{text}");
}

#[test]
fn the_digits_of_the_readme() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data");
    let (logits, labels) = (data.join("digits_logits.npy"), data.join("digits_labels.npy"));
    let text = call_ok("loss", &arguments(&[&logits, &labels], &[]));
    let readme = fs::read_to_string(data.join("../README.md")).unwrap();
    assert!(readme.contains(&text), "{text}");
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let folder = Folder::new();
    let file = |name: &str, bytes: &[u8]| folder.file(name, bytes);
    let input = file("in.npy", &npy("<f4", &[2, 3], &[0; 24]));
    let good = file("good.npy", &npy("<i8", &[2], &[0; 16]));
    let refused = |labels: &Path, options: &[&str], about: (&str, &str)| {
        call_refused(&folder, "loss", &arguments(&[&input, labels], options), about);
    };
    let cases: &[(&str, Vec<u8>, &str)] = &[
        ("short", npy("<i8", &[1], &[0; 8]), "in.npy, 2 x 3, is needed"),
        ("short", npy("<i8", &[1], &[0; 8]), "needed: 2, got 1"),
        ("turned", npy("<i8", &[3, 1], &[0; 24]), "needed: 2, got 3"),
        ("matrix", npy("<i8", &[2, 2], &[0; 32]), "needed: 2, got 2 x 2"),
        ("probs", npy("<f4", &[2, 3], &[0; 24]), "y.argmax(-1)"),
        ("large", npy("<i8", &[2], cast_slice(&[0i64, 3])), "row 1: 3 is not one of its 3 columns"),
        ("negative", npy("|i1", &[2], &[0xff, 0]), "row 0: -1 is not one of its 3 columns"),
        (
            "huge",
            npy("<u8", &[2], cast_slice(&[1u64, 1 << 63])),
            "element 1 is 9223372036854775808, which is not an integer of 64 bits",
        ),
        (
            "half",
            npy("<f8", &[2], cast_slice(&[1.0, 0.5])),
            "element 1 is 0.5, which is not an integer of 64 bits; np.save(\"converted.npy\", np.load(",
        ),
        (
            "nan",
            npy("<f4", &[2], cast_slice(&[0.0, f32::NAN])),
            ".round().astype(\"i8\")) converts",
        ),
        ("complex", npy("<c8", &[2], &[0; 16]), "the dtype <c8 is not supported; np.save("),
        ("cut", npy("<i4", &[2], &[0; 7]), "truncated: the shape 2 needs 8 bytes of data, got 7"),
        ("long", npy("<i4", &[2], &[0; 9]), "too long"),
        ("overflow", npy("<i4", &[usize::MAX, 3], &[]), "overflows"),
        ("text", b"0 1".to_vec(), "magic"),
    ];
    for (name, bytes, cause) in cases {
        let labels = file(&format!("{name}.npy"), bytes);
        let outputs = [folder.path("g.npy"), folder.path("l.npy")].map(|p| p.display().to_string());
        let options = ["--gradient", &outputs[0], "--losses", &outputs[1]];
        refused(&labels, &options, (labels.to_str().unwrap(), cause));
    }
    let missing = folder.path("missing.npy");
    refused(&missing, &[], (missing.to_str().unwrap(), "No such file"));

    for (option, values) in [
        ("--label-smoothing", &["-0.1", "1.5", "nan"][..]),
        ("--z-loss", &["-1", "inf", "nan"]),
        ("--temperature", &["0", "inf", "-1", "nan"]),
        ("--scale", &["0", "nan"]),
    ] {
        for value in values {
            refused(&good, &[option, value], (option, "must be"));
        }
    }
    let weights = |name: &str, bytes: &[u8], cause| {
        let w = file(name, bytes);
        let w = w.to_str().unwrap();
        refused(&good, &["--weights", w], (w, cause));
    };
    weights(
        "w1.npy",
        &npy("<f4", &[2], &[0; 8]),
        "the number of weights (one for each class) must be 3, got 2",
    );
    weights(
        "w2.npy",
        &npy("<i8", &[3], cast_slice(&[1, (1i64 << 53) + 1, 1])),
        "element 1 is 9007199254740993, which is not an f64; np.save(\"converted.npy\", np.load(",
    );
    weights(
        "w3.npy",
        &npy("<f4", &[3], cast_slice(&[1.0f32, -0.5, 1.0])),
        "the weight of class 1 must be finite and not negative, got -0.5",
    );
    weights(
        "w3.npy",
        &npy("<f4", &[3, 3], &[0; 36]),
        "along one axis, one for each class, got 3 x 3",
    );

    let taken = file("taken.npy", b"precious");
    let taken = taken.to_str().unwrap();
    let other = folder.path("g.safetensors");
    let other = other.to_str().unwrap();
    for option in ["--gradient", "--losses"] {
        refused(&good, &[option, taken], (taken, "exists already; --force replaces it"));
        refused(&good, &[option, other], (other, "the extension must be .npy"));
    }
    assert_eq!(fs::read(taken).unwrap(), b"precious");
    assert_eq!(call("loss", &[&input]).status.code(), Some(2), "no labels at all");
}

#[test]
fn one_tensor_of_several_is_chosen() {
    let folder = Folder::new();
    let x: Vec<f32> = values(12);
    let tensors = safetensors(&[
        ("a", f32::DTYPE, &[2, 3], cast_slice(&x[..6])),
        ("b", f32::DTYPE, &[2, 3], cast_slice(&x[6..])),
    ]);
    let input = folder.file("in.safetensors", &tensors);
    let y = folder.file("labels.npy", &npy("<i8", &[2], cast_slice(&[2i64, 0])));
    let about = (input.to_str().unwrap(), "choose one tensor with --tensor; there is a, b");
    call_refused(&folder, "loss", &arguments(&[&input, &y], &[]), about);
    let want = CrossEntropy::new().loss(Matrix::new(&x[6..], 3).unwrap(), &[2, 0]).unwrap();
    assert_eq!(printed(&input, &y, &["--tensor", "b"]), want);
}

#[test]
fn a_reader_that_has_gone_is_no_error() {
    let folder = Folder::new();
    let input = folder.file("in.npy", &npy("<f4", &[2, 3], &[0; 24]));
    let y = folder.file("labels.npy", &npy("<i8", &[2], &[0; 16]));
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let out = softmax().arg("loss").args([&input, &y]).stdout(writer).output().unwrap();
    assert_eq!((out.status.code(), &*out.stderr), (Some(0), &b""[..]));
}
