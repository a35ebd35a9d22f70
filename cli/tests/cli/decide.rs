//! `softmax argmax`, `topk` and `sample`: the columns of the library, in files and in text.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use crate::common::{
    File, Folder, arguments, call, call_ok, call_refused, files, npy, softmax, values,
};
use bytemuck::cast_slice;
use half::{bf16, f16};
use serde_json::Value;
use softmax::{Element, Hardmax, Matrix, Method, Order, Sampler, TopK};

fn numbers(columns: &[usize]) -> Vec<i64> {
    columns.iter().map(|&c| i64::try_from(c).unwrap_or(-1)).collect()
}

fn lines(columns: &[usize], each: usize) -> String {
    let line = |row: &[i64]| row.iter().map(i64::to_string).collect::<Vec<_>>().join(" ") + "\n";
    numbers(columns).chunks(each).map(line).collect()
}

#[test]
fn argmax_is_that_of_the_library() {
    fn check<T: File>() {
        let folder = Folder::new();
        let (shape, cols) = ([6, 5, 31], 31);
        let mut x: Vec<T> = values(30 * cols);
        x[40] = T::from_f64(f64::NAN);
        x[70..72].fill(T::from_f64(99.0));
        let mut want = vec![0; 30];
        Hardmax::new().argmax(Matrix::new(&x, cols).unwrap(), &mut want).unwrap();
        assert_eq!(want[1..3], [9, 8]);
        for input in files(&folder, &shape, &x) {
            assert_eq!(call_ok("argmax", &[&input]), lines(&want, 1));
            let json = call_ok("argmax", &[&input, &"--json"]);
            assert_eq!(serde_json::from_str::<Vec<usize>>(&json).unwrap(), want);
            let out = folder.path("out.npy");
            let json = call_ok("argmax", &[&input, &out, &"--force", &"--json"]);
            let json: Value = serde_json::from_str(&json).unwrap();
            assert_eq!(json["output"], out.to_str().unwrap());
            assert_eq!((&json["shape"], &json["dtype"]), (&vec![6, 5].into(), &"i64".into()));
            let text = call_ok("argmax", &[&input, &out, &"--force"]);
            assert!(text.starts_with(&format!("{}: 6 x 5 i64, kernel ", out.display())), "{text}");
            assert_eq!(fs::read(&out).unwrap(), npy("<i8", &[6, 5], cast_slice(&numbers(&want))));
        }
    }
    check::<f32>();
    check::<f64>();
    check::<f16>();
    check::<bf16>();
}

#[test]
fn several_chunks_are_one_file() {
    let (rows, cols) = (4443, 1001);
    let folder = Folder::new();
    let x: Vec<f32> = values(rows * cols);
    let m = Matrix::new(&x, cols).unwrap();
    let input = folder.file("in.npy", &npy("<f4", &[rows, cols], cast_slice(&x)));
    let (out, log_probs) = (folder.path("out.npy"), folder.path("log_probs.npy"));
    let mut want = vec![0; rows];
    Hardmax::new().argmax(m, &mut want).unwrap();
    call_ok("argmax", &[&input, &out, &"--threads", &"2"]);
    assert!(fs::read(&out).unwrap() == npy("<i8", &[rows], cast_slice(&numbers(&want))));
    assert!(call_ok("argmax", &[&input]) == lines(&want, 1));

    // Rows of all chunks have their own random numbers, and so have rows in the chunks that draws
    // need.
    let flat = vec![0.0f32; 3000];
    let small = folder.file("small.npy", &npy("<f4", &[1000, 3], cast_slice(&flat)));
    for (input, x, cols, draws) in [(&input, &x, cols, 1), (&small, &flat, 3, 3000)] {
        let mut want = vec![0; x.len() / cols * draws];
        Sampler::new(1).sample(Matrix::new(x, cols).unwrap(), &mut want).unwrap();
        let n = draws.to_string();
        call_ok(
            "sample",
            &[input, &out, &"--seed", &"1", &"--draws", &n, &"--force", &"--threads", &"2"],
        );
        let shape = [x.len() / cols, draws];
        assert!(fs::read(&out).unwrap() == npy("<i8", &shape, cast_slice(&numbers(&want))));
    }

    let (mut want, mut want_log) = (vec![0; rows * 3], vec![0.0f32; rows * 3]);
    TopK::new(3).log_probs(m, &mut want_log, &mut want).unwrap();
    let options: [&dyn AsRef<OsStr>; 10] = [
        &input,
        &"-k",
        &"3",
        &"--indices",
        &out,
        &"--log-probs",
        &log_probs,
        &"--force",
        &"--threads",
        &"2",
    ];
    let text = call_ok("topk", &options);
    assert_eq!(text.lines().count(), 1 + 10 * 3 + 1);
    assert!(fs::read(&out).unwrap() == npy("<i8", &[rows, 3], cast_slice(&numbers(&want))));
    assert!(fs::read(&log_probs).unwrap() == npy("<f4", &[rows, 3], cast_slice(&want_log)));
    assert_eq!(
        call_ok("topk", &[&input, &"-k", &"3", &"--show", &"0"]).lines().count(),
        1 + rows * 3
    );
}

#[test]
fn topk_is_that_of_the_library() {
    fn check<T: File<Arithmetic: File>>() {
        let folder = Folder::new();
        let (shape, cols, k) = ([6, 5, 31], 31, 4);
        let x: Vec<T> = values(30 * cols);
        let (mut want, mut want_log) = (vec![0; 30 * k], vec![T::Arithmetic::ZERO; 30 * k]);
        let options = TopK::new(k).temperature(3.0);
        let mut want_p = want_log.clone();
        let m = Matrix::new(&x, cols).unwrap();
        options.log_probs_and_probs(m, &mut want_log, &mut want_p, &mut want).unwrap();
        for input in files(&folder, &shape, &x) {
            let (indices, log_probs) = (folder.path("i.npy"), folder.path("l.npy"));
            let json = call_ok(
                "topk",
                &[
                    &input,
                    &"-k",
                    &"4",
                    &"--temperature",
                    &"3",
                    &"--json",
                    &"--force",
                    &"--indices",
                    &indices,
                    &"--log-probs",
                    &log_probs,
                ],
            );
            let want_file = npy("<i8", &[6, 5, k], cast_slice(&numbers(&want)));
            assert_eq!(fs::read(&indices).unwrap(), want_file);
            let want_file = npy(T::Arithmetic::DESCR.unwrap(), &[6, 5, k], cast_slice(&want_log));
            assert_eq!(fs::read(&log_probs).unwrap(), want_file);
            let rows: Vec<Value> = serde_json::from_str(&json).unwrap();
            assert_eq!(rows.len(), 30);
            for (i, row) in rows.iter().enumerate() {
                let keys: Vec<_> = row.as_object().unwrap().keys().cloned().collect();
                assert_eq!(keys, ["indices", "log_probs", "probs", "row"]);
                assert_eq!(row["row"], i);
                let (columns, logs) = (&want[i * k..][..k], &want_log[i * k..][..k]);
                assert_eq!(row["indices"], serde_json::json!(columns));
                for (j, log) in logs.iter().enumerate() {
                    assert_eq!(row["log_probs"][j].as_f64().unwrap(), log.to_f64());
                    assert_eq!(row["probs"][j].as_f64().unwrap(), want_p[i * k + j].to_f64());
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
fn sample_is_that_of_the_library() {
    fn check<T: File>() {
        let folder = Folder::new();
        let (shape, cols) = ([6, 5, 31], 31);
        let mut x: Vec<T> = values(30 * cols);
        x[40] = T::from_f64(f64::NAN);
        let plain = Sampler::new(7);
        let cases: [(&[&str], Sampler); 6] = [
            (&[], plain),
            (&["--temperature", "9", "--step", "3"], plain.step(3).temperature(9.0)),
            (&["--temperature", "0"], plain.temperature(0.0)),
            (&["--temperature", "5", "--top-k", "9", "--top-p", "0.8", "--gumbel"], {
                let filtered = plain.temperature(5.0).top_k(9).top_p(0.8);
                filtered.method(Method::GumbelMax)
            }),
            (&["--temperature", "5", "--min-p", "0.1", "--typical-p", "0.7"], {
                let hot = plain.temperature(5.0);
                hot.min_p(0.1).typical_p(0.7)
            }),
            (&["--temperature", "5", "--top-p", "0.9", "--order", "llama-cpp"], {
                plain.temperature(5.0).top_p(0.9).order(Order::LlamaCpp)
            }),
        ];
        for input in files(&folder, &shape, &x) {
            for (options, sampler) in &cases {
                let options = [&["--seed", "7"], *options].concat();
                let drawn = |n: usize| {
                    let mut want = vec![0; 30 * n];
                    sampler.sample(Matrix::new(&x, cols).unwrap(), &mut want).unwrap();
                    want
                };
                let sample = |more: &[&str]| {
                    call_ok("sample", &arguments(&[&input], &[&options[..], more].concat()))
                };
                let (one, three) = (drawn(1), drawn(3));
                assert_eq!(numbers(&one)[1], -1, "a row with NaN");
                assert_eq!(sample(&[]), lines(&one, 1), "{} {options:?}", T::NAME);
                assert_eq!(sample(&["--draws", "3"]), lines(&three, 3));
                let json = serde_json::from_str::<Vec<i64>>(&sample(&["--json"])).unwrap();
                assert_eq!(json, numbers(&one));
                let json = sample(&["--json", "--draws", "3"]);
                let json = serde_json::from_str::<Vec<Vec<i64>>>(&json).unwrap();
                assert_eq!(json.concat(), numbers(&three));
                let out = folder.path("out.npy");
                let path = out.to_str().unwrap();
                sample(&[path, "--force", "--draws", "3"]);
                let want = npy("<i8", &[6, 5, 3], cast_slice(&numbers(&three)));
                assert_eq!(fs::read(&out).unwrap(), want);
                sample(&[path, "--force"]);
                let want = npy("<i8", &[6, 5], cast_slice(&numbers(&one)));
                assert_eq!(fs::read(&out).unwrap(), want);
            }
        }
    }
    check::<f32>();
    check::<f64>();
    check::<f16>();
    check::<bf16>();
}

/// Probabilities are those of `softmax run`, not exponentials of rounded logarithms.
#[test]
fn probabilities_of_topk_are_those_of_run() {
    let folder = Folder::new();
    let x = [[0.0f32, -10.0, -40.0, -80.0], [3.0; 4]];
    let input = folder.file("in.npy", &npy("<f4", &[2, 4], cast_slice(&x)));
    let out = folder.path("out.npy");
    call_ok("run", &[&input, &out]);
    let bytes = fs::read(&out).unwrap();
    let probs: Vec<f32> = bytes[bytes.len() - 32..]
        .chunks(4)
        .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
        .collect();
    let json = call_ok("topk", &[&input, &"-k", &"4", &"--json"]);
    let rows: Vec<Value> = serde_json::from_str(&json).unwrap();
    for (row, probs) in rows.iter().zip(probs.chunks(4)) {
        let got = row["probs"].as_array().unwrap().iter().map(|p| p.as_f64().unwrap());
        assert!(got.eq(probs.iter().map(|&p| f64::from(p))), "{row} {probs:?}");
    }
    assert_eq!(rows[1]["probs"], serde_json::json!([0.25, 0.25, 0.25, 0.25]));
}

#[test]
fn topk_shows_people_the_first_rows() {
    let folder = Folder::new();
    let x = [[0.0f32, 5.0, 5.0, 0.0], [9.0, 1.0, 1.0, 1.0], [f32::NAN, 0.0, 0.0, 0.0]];
    let input = folder.file("in.npy", &npy("<f4", &[3, 4], cast_slice(&x)));
    let words = |text: &str| -> Vec<Vec<String>> {
        let line = |l: &str| l.split_whitespace().map(str::to_owned).collect();
        text.lines().map(line).collect()
    };
    let text = call_ok("topk", &[&input, &"-k", &"2", &"--show", &"2"]);
    let want = [
        &["row", "column", "p", "log", "p"][..],
        &["0", "1", "0.4967", "-0.6999"],
        &["0", "2", "0.4967", "-0.6999"],
        &["1", "0", "0.9990", "-0.0010"],
        &["1", "1", "0.0003", "-8.0010"],
        &["1", "rows", "more;", "--show", "0", "prints", "all"],
    ];
    assert_eq!(words(&text), want);
    let all = words(&call_ok("topk", &[&input, &"-k", &"1", &"--show", &"0"]));
    assert_eq!(all.len(), 4);
    assert_eq!(all[3], ["2", "0", "NaN", "NaN"]);
    // NaN is null.
    let json = call_ok("topk", &[&input, &"-k", &"1", &"--json"]);
    let rows: Vec<Value> = serde_json::from_str(&json).unwrap();
    assert_eq!((&rows[2]["log_probs"][0], &rows[2]["probs"][0]), (&Value::Null, &Value::Null));
    // The logarithm of probability 0 is null, too.
    let never = folder.file("never.npy", &npy("<f4", &[2], cast_slice(&[0.0, f32::NEG_INFINITY])));
    let json = call_ok("topk", &[&never, &"--json"]);
    let rows: Vec<Value> = serde_json::from_str(&json).unwrap();
    assert_eq!((&rows[0]["log_probs"][1], &rows[0]["probs"][1]), (&Value::Null, &0.0.into()));
    // Five columns, unless rows have fewer.
    assert_eq!(words(&call_ok("topk", &[&input])).len(), 1 + 3 * 4);
    let wide = folder.file("wide.npy", &npy("<f4", &[1, 7], &[0; 28]));
    assert_eq!(words(&call_ok("topk", &[&wide])).len(), 1 + 5);
}

#[test]
fn arrays_of_one_axis_and_of_no_rows_have_results() {
    let folder = Folder::new();
    let input = folder.file("in.npy", &npy("<f4", &[3], cast_slice(&[1.0f32, 3.0, 2.0])));
    let out = folder.path("out.npy");
    call_ok("argmax", &[&input, &out]);
    assert_eq!(fs::read(&out).unwrap(), npy("<i8", &[], &1i64.to_le_bytes()), "a scalar, as NumPy");
    call_ok("topk", &[&input, &"-k", &"2", &"--indices", &out, &"--force"]);
    assert_eq!(fs::read(&out).unwrap(), npy("<i8", &[2], cast_slice(&[1i64, 2])));
    let none = folder.file("none.npy", &npy("<f4", &[0, 3], &[]));
    assert_eq!(call_ok("argmax", &[&none]), "");
    assert_eq!(call_ok("argmax", &[&none, &"--json"]), "[]\n");
    assert_eq!(call_ok("topk", &[&none, &"-k", &"2", &"--json"]), "[]\n");
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let folder = Folder::new();
    let input = folder.file("in.npy", &npy("<f4", &[2, 3], &[0; 24]));
    let name = input.to_str().unwrap();
    for k in ["0", "4", "18446744073709551615"] {
        let cause = format!("k must be in 1..=3, the columns of a row, got {k}");
        call_refused(&folder, "topk", &[&input, &"-k", &k], (name, &cause));
    }
    for t in ["0", "inf", "nan"] {
        call_refused(
            &folder,
            "topk",
            &[&input, &"-k", &"1", &"--temperature", &t],
            ("--temperature", "must be"),
        );
    }
    for (option, values) in [
        ("--temperature", &["-1", "nan"][..]),
        ("--top-p", &["-0.1", "1.1", "nan"]),
        ("--min-p", &["-0.1", "1.1", "nan"]),
        ("--typical-p", &["-0.1", "1.1", "nan"]),
    ] {
        for value in values {
            let arguments: [&dyn AsRef<OsStr>; 5] = [&input, &"--seed", &"1", &option, value];
            call_refused(&folder, "sample", &arguments, (option, "must be"));
        }
    }
    for options in [
        &["--top-k", "1"][..],
        &["--seed", "1", "--draws", "0"],
        &["--seed", "1", "--step", "281474976710656"],
    ] {
        let out = call("sample", &arguments(&[&input], options));
        assert_eq!(out.status.code(), Some(2), "no seed, no draws, no such step");
    }
    let empty = folder.file("empty.npy", &npy("<f4", &[2, 0], &[]));
    let complex = folder.file("complex.npy", &npy("<c8", &[2, 1], &[0; 16]));
    let missing = folder.path("missing.npy");
    let taken = folder.file("taken.npy", b"precious");
    let text = folder.path("out.txt");
    for command in ["argmax", "topk"] {
        let refused = |arguments: &[&dyn AsRef<OsStr>], subject: &Path, cause| {
            call_refused(&folder, command, arguments, (subject.to_str().unwrap(), cause));
        };
        refused(&[&empty], &empty, "the rows of 2 x 0 have no columns");
        refused(&[&complex], &complex, "the dtype <c8 is not supported");
        refused(&[&missing], &missing, "No such file");
        let out: &[&dyn AsRef<OsStr>] =
            if command == "argmax" { &[&input] } else { &[&input, &"-k", &"1", &"--indices"] };
        refused(&[out, &[&taken]].concat(), &taken, "exists already; --force replaces it");
        refused(&[out, &[&text]].concat(), &text, "the extension must be .npy");
    }
    assert_eq!(fs::read(&taken).unwrap(), b"precious");
}

#[test]
fn a_reader_that_has_gone_is_no_error() {
    let folder = Folder::new();
    // More output than a pipe or a buffer holds.
    let input = folder.file("in.npy", &npy("<f4", &[100_000, 1], &[0; 400_000]));
    let indices = folder.path("indices.npy");
    let indices = indices.to_str().unwrap();
    let cases: [&[&str]; 6] = [
        &["sample", "--seed", "1"],
        &["argmax"],
        &["argmax", "--json"],
        &["topk", "-k", "1", "--show", "0"],
        &["topk", "-k", "1", "--json"],
        &["topk", "-k", "1", "--json", "--indices", indices],
    ];
    for case in cases {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let out = softmax().args(case).arg(&input).stdout(writer).output().unwrap();
        assert_eq!((out.status.code(), &*out.stderr), (Some(0), &b""[..]), "{case:?}");
    }
    assert_eq!(fs::read(indices).unwrap(), npy("<i8", &[100_000, 1], &[0; 800_000]));
}
