//! Text, archives, standard input and output: what is read and written.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Output, Stdio};

use crate::common::{
    Folder, arguments, call_ok, call_refused, npy, npy_aligned, run, run_ok, safetensors, softmax,
    values, zeros,
};
use bytemuck::cast_slice;
use half::f16;
use miniz_oxide::deflate::compress_to_vec;
use rawzip::{CompressionMethod, ZipArchive, ZipArchiveWriter};
use safetensors::Dtype;
use softmax::{Matrix, MatrixMut, Softmax};

/// The library's own result.
fn expected<T: softmax::Element>(x: &[T], cols: usize) -> Vec<T> {
    let mut y = vec![T::ZERO; x.len()];
    let out = MatrixMut::new(&mut y, cols).unwrap();
    Softmax::new().softmax(Matrix::new(x, cols).unwrap(), out).unwrap();
    y
}

/// Runs the command in a folder with this standard input.
fn piped(folder: &Folder, line: &[&str], stdin: &[u8]) -> Output {
    let mut command = softmax();
    command.args(line).current_dir(folder.path("."));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut to = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        // The command may end before it has read everything.
        scope.spawn(move || drop(to.write_all(stdin)));
        child.wait_with_output().unwrap()
    })
}

/// As [`piped`], which must succeed and write nothing to standard error.
fn piped_ok(folder: &Folder, line: &[&str], stdin: &[u8]) -> Vec<u8> {
    let out = piped(folder, line, stdin);
    let stderr = String::from_utf8(out.stderr).unwrap();
    assert!(out.status.success() && stderr.is_empty(), "{line:?}: {stderr}");
    out.stdout
}

/// As [`piped`], which must fail with one line and write nothing.
fn piped_refused(folder: &Folder, line: &[&str], stdin: &[u8], about: &str) {
    let before = folder.names();
    let out = piped(folder, line, stdin);
    let stderr = String::from_utf8(out.stderr).unwrap();
    assert_eq!((out.status.code(), stderr.lines().count()), (Some(2), 1), "{line:?}: {stderr}");
    assert!(stderr.contains(about), "{about}: {stderr}");
    assert_eq!((folder.names(), out.stdout), (before, vec![]));
}

/// The numbers in lines of text.
fn numbers(text: &str, between: char) -> Vec<Vec<f64>> {
    let number = |field: &str| field.parse().unwrap();
    text.lines().map(|line| line.split(between).map(number).collect()).collect()
}

#[test]
fn text_by_standard_input_and_output() {
    let folder = Folder::new();
    let text = |line: &[&str], stdin: &str| {
        String::from_utf8(piped_ok(&folder, line, stdin.as_bytes())).unwrap()
    };
    let out = text(&["run", "-", "-"], "8 5 0\n");
    let y = expected(&[8.0, 5.0, 0.0], 3);
    assert_eq!(numbers(&out, ' ')[0], y);
    assert_eq!(out, "0.9522698261237779 0.04741072293787844 0.00031945093834375056\n");
    // In the format of the input by default.
    assert_eq!(numbers(&text(&["run", "-", "-"], "8,5,0\n0,0,0\n"), ',')[0], y);
    assert_eq!(numbers(&text(&["run", "-", "-"], "a\tb\tc\n8\t5\t0\n"), '\t')[0], y);
    assert_eq!(numbers(&text(&["run", "-", "-", "--format", "csv"], "8,5,0"), ',')[0], y);
    // In another type: the shortest decimals of that type.
    assert_eq!(text(&["run", "-", "-", "--dtype", "f32"], "1 1 1"), {
        "0.33333334 0.33333334 0.33333334\n"
    });
    assert_eq!(text(&["run", "-", "-", "--dtype", "bf16"], "1 1"), "0.5 0.5\n");
    assert_eq!(text(&["run", "-", "-", "--log"], "0 -inf\n-inf -inf"), "0 -inf\nnan nan\n");
    assert_eq!(text(&["run", "-", "-", "--axis", "0"], "0 0\n0 -inf"), "0.5 1\n0.5 0\n");
    assert_eq!(text(&["argmax", "-"], "8 5 0\n1 2 3"), "0\n2\n");
    assert_eq!(text(&["run", "-", "-", "--op", "hardmax"], "8 5 0"), "1 0 0\n");
    assert_eq!(text(&["run", "-", "-", "--quiet"], "0 0"), "0.5 0.5\n");

    // The information that was asked for goes to standard error.
    for option in ["--verbose", "--show=1", "--json"] {
        let out = piped(&folder, &["run", "-", "-", option], b"0 0");
        assert_eq!(out.stdout, b"0.5 0.5\n");
        let told = String::from_utf8(out.stderr).unwrap();
        let needle = match option {
            "--verbose" => "kernel: ",
            "--show=1" => "row 0: most likely 0 (p = 0.5000)",
            _ => "\"tensors\":[",
        };
        assert!(out.status.success() && told.contains(needle), "{told}");
    }

    // Files as input or output.
    folder.file("x.csv", b"8,5,0\n");
    assert_eq!(numbers(&text(&["run", "x.csv", "-"], ""), ','), [y]);
    text(&["run", "-", "out.csv"], "0 0");
    assert_eq!(fs::read(folder.path("out.csv")).unwrap(), b"0.5,0.5\n");
    folder.file("x.npy", &npy("<f4", &[2, 2], cast_slice(&[1.0f32, 1.0, 3.0, 3.0])));
    assert_eq!(text(&["run", "x.npy", "-"], ""), "0.5 0.5\n0.5 0.5\n");
    folder.file("labels", b"0\n1\n");
    let loss = ["loss", "-", "labels", "--format", "txt"];
    assert_eq!(text(&loss, "1 1\n1 1"), "mean loss 0.6931471805599453 of 2 rows\n");
    let gradient = ["loss", "x.npy", "labels", "--gradient", "g.csv", "--format", "txt"];
    text(&gradient, "");
    let gradient = fs::read_to_string(folder.path("g.csv")).unwrap();
    assert_eq!(gradient, "-0.25,0.25\n0.25,-0.25\n");

    // The gradient in another type than the logits: 1/3, rounded once.
    folder.file("first.txt", b"0\n");
    let gradient = |dtype| {
        let options = ["--gradient", "typed.csv", "--force", "--dtype", dtype];
        text(&[&["loss", "-", "first.txt"][..], &options].concat(), "1,1,1");
        fs::read_to_string(folder.path("typed.csv")).unwrap()
    };
    assert_eq!(gradient("f32"), "-0.6666667,0.33333334,0.33333334\n");
    assert_eq!(gradient("f64"), "-0.6666666666666666,0.3333333333333333,0.3333333333333333\n");

    for (line, stdin, about) in [
        (&["run", "-", "-"][..], "", "standard input: there are no numbers in it"),
        (&["run", "-", "-"], "1 2\n3", "standard input: line 2 has 1 numbers, and those before 2"),
        (&["run", "-", "-"], "1 \u{1b}[2J", "standard input: line 1, field 2: "),
        (&["loss", "-", "-"], "1 2", "standard input: can be read once only"),
        (&["run", "-", "out.dat"], "1", "out.dat: the extension must be .npy, .npz"),
        (&["run", "-", "out.npz"], "1", "out.npz: the extension must be .txt"),
        (&["run", "x.dat", "-"], "1", "x.dat: the extension must be .npy, .npz"),
        (&["argmax", "-", "-"], "1", "-: the extension must be .npy"),
        (&["run", "-", "-", "--tensor", "x"], "1", "standard input: --tensor is for"),
        (&["run", "-", "out.npy", "--format", "npy"], "x", "standard input: there are no numbers"),
        (&["run", "-", "-", "--format", "npz"], "1", "standard output: the extension must be .txt"),
        (&["run", "-", "-", "--format", "tsv"], "1,2", "field 1: \"1,2\" is not a number"),
    ] {
        piped_refused(&folder, line, stdin.as_bytes(), about);
    }
}

#[test]
fn standard_input_and_output_have_any_format() {
    let folder = Folder::new();
    let x: Vec<f32> = values(12);
    let y = expected(&x, 4);
    let file = npy("<f4", &[3, 4], cast_slice(&x));
    let out = piped_ok(&folder, &["run", "-", "-", "--format", "npy"], &file);
    assert_eq!(out, npy("<f4", &[3, 4], cast_slice(&y)));
    let out_of_text = piped_ok(&folder, &["run", "-", "-", "--format", "npy"], b"1 1");
    assert_eq!(out_of_text, npy("<f8", &[1, 2], cast_slice(&[0.5f64; 2])));
    // The format is recognised by the first bytes.
    piped_ok(&folder, &["run", "-", "out.npy", "--quiet"], &file);
    assert_eq!(fs::read(folder.path("out.npy")).unwrap(), out);
    let file = safetensors(&[("x", Dtype::F32, &[3, 4], cast_slice(&x))]);
    let text = String::from_utf8(piped_ok(&folder, &["run", "-", "-"], &file)).unwrap();
    let lines: Vec<f32> = numbers(&text, ' ').concat().iter().map(|x| *x as f32).collect();
    assert_eq!(lines, y);
    let two =
        safetensors(&[("x", Dtype::F32, &[3, 4], cast_slice(&x)), ("ids", Dtype::I8, &[1], &[1])]);
    let about = "standard output: .txt has one array: the extension must be .safetensors";
    piped_refused(&folder, &["run", "-", "-"], &two, about);
    let out = piped_ok(&folder, &["run", "-", "-", "--format", "safetensors"], &two);
    let got = safetensors::SafeTensors::deserialize(&out).unwrap();
    assert_eq!(got.tensor("x").unwrap().data(), cast_slice::<f32, u8>(&y));
    assert_eq!(got.tensor("ids").unwrap().data(), [1]);
    let out = piped_ok(&folder, &["run", "-", "-", "--tensor", "x"], &two);
    assert_eq!(String::from_utf8(out).unwrap(), text);
}

#[cfg(unix)]
#[test]
fn a_reader_of_results_that_has_gone_is_no_error() {
    let folder = Folder::new();
    let input = zeros(&folder, "in.npy", &[4000, 1000]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let out = softmax().arg("run").args([&input, Path::new("-")]).stdout(writer).output().unwrap();
    assert_eq!((out.status.code(), &*out.stderr), (Some(0), &b""[..]));
}

#[test]
fn names_tell_formats() {
    let folder = Folder::new();
    let x: Vec<f64> = values(15);
    let y = expected(&x, 5);
    let input = folder.file("in.npy", &npy("<f8", &[3, 5], cast_slice(&x)));
    for (name, between) in [("out.csv", ','), ("out.tsv", '\t'), ("out.TXT", ' ')] {
        let out = folder.path(name);
        run_ok(&input, &out, &[]);
        let text = fs::read_to_string(&out).unwrap();
        assert_eq!(numbers(&text, between), y.chunks(5).collect::<Vec<_>>(), "{name}");
        // And back, with the same values.
        let back = folder.path("back.npy");
        run_ok(&out, &back, &["--force", "--op", "hardmax"]);
        run_ok(&out, &back, &["--force"]);
        let want = npy("<f8", &[3, 5], cast_slice(&expected(&y, 5)));
        assert!(fs::read(&back).unwrap() == want, "{name}");
    }
    // Several axes become lines, too, and half types are short.
    let half: Vec<f16> = values(12);
    let input = folder.file("half.npy", &npy("<f2", &[2, 2, 3], cast_slice(&half)));
    let out = folder.path("half.csv");
    run_ok(&input, &out, &[]);
    let text = fs::read_to_string(&out).unwrap();
    let got: Vec<f16> = numbers(&text, ',').concat().iter().map(|x| f16::from_f64(*x)).collect();
    assert_eq!((text.lines().count(), got), (4, expected(&half, 3)));
    let line = run_ok(&folder.file("names.csv", b"a,b\n1,1\n"), &out, &["--force"]).concat();
    assert!(line.contains(": 1 x 2 f64, without the line of names, kernel "), "{line}");
    // A single tensor becomes an array.
    let model = safetensors(&[
        ("a", Dtype::F64, &[3, 5], cast_slice(&x)),
        ("b", Dtype::F64, &[5, 3], cast_slice(&x)),
    ]);
    let model = folder.file("model.safetensors", &model);
    let out = folder.path("a.npy");
    run_ok(&model, &out, &["--tensor", "a"]);
    assert_eq!(fs::read(&out).unwrap(), npy("<f8", &[3, 5], cast_slice(&y)));
    let out = folder.path("b.npy");
    let about = (out.to_str().unwrap(), ".npy has one array: the extension must be .safetensors");
    call_refused(&folder, "run", &arguments(&[&model, &out], &[]), about);
    // Text is limited in size.
    let large = folder.file("large.csv", b"");
    fs::File::options().write(true).open(&large).unwrap().set_len((1 << 30) + 1).unwrap();
    let about = (large.to_str().unwrap(), "np.loadtxt(");
    call_refused(&folder, "argmax", &[&large], about);
}

/// A member of an archive: its name, its bytes, and whether they are compressed.
type Member<'a> = (&'a str, Vec<u8>, bool);

/// An `.npz` file as NumPy writes it, except for the order of a member's fields.
fn npz(members: &[Member]) -> Vec<u8> {
    let mut zip = ZipArchiveWriter::new(Vec::new());
    for (name, bytes, is_deflated) in members {
        let method =
            if *is_deflated { CompressionMethod::DEFLATE } else { CompressionMethod::STORE };
        let (mut file, data) = zip.new_file(*name).compression_method(method).start().unwrap();
        // The checksum is of the unpacked bytes.
        let mut counted = data.wrap(std::io::sink());
        counted.write_all(bytes).unwrap();
        let (_, descriptor) = counted.finish().unwrap();
        let packed = if *is_deflated { compress_to_vec(bytes, 6) } else { bytes.clone() };
        file.write_all(&packed).unwrap();
        file.finish(descriptor).unwrap();
    }
    zip.finish().unwrap()
}

/// The members of an archive that are only stored.
fn members(bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    let zip = ZipArchive::from_slice(bytes).unwrap();
    let members = zip.entries().map(|entry| {
        let entry = entry.unwrap();
        let name = String::from_utf8(entry.file_path().as_bytes().to_vec()).unwrap();
        let place = zip.get_entry(entry.wayfinder()).unwrap();
        let mut data = Vec::new();
        let mut reader = place.verifying_reader(place.data());
        std::io::Read::read_to_end(&mut reader, &mut data).unwrap();
        (name, data)
    });
    members.collect()
}

#[test]
fn arrays_of_an_archive_are_as_tensors() {
    let folder = Folder::new();
    let (a, b): (Vec<f32>, Vec<f64>) = (values(12), values(70_000));
    let ids = npy("<i8", &[3], cast_slice(&[1i64, 0, 2]));
    let turned: Vec<f64> = [0, 3, 1, 4, 2, 5].map(|i| b[i]).to_vec();
    let words = npy("<U2", &[1], &[0; 8]);
    let all = |packed| {
        npz(&[
            ("logits.npy", npy("<f4", &[3, 4], cast_slice(&a)), packed),
            ("ids.npy", ids.clone(), packed),
            ("more/b.npy", npy("<f8", &[70, 1000], cast_slice(&b)), !packed),
            ("words.npy", words.clone(), packed),
            ("f.npy", npy_aligned(64, "<f8", true, "(2, 3)", cast_slice(&turned)), packed),
            ("zero.npy", npy("<f8", &[], &[0; 8]), packed),
        ])
    };
    let want = [
        ("logits.npy", npy("<f4", &[3, 4], cast_slice(&expected(&a, 4)))),
        ("ids.npy", ids.clone()),
        ("more/b.npy", npy("<f8", &[70, 1000], cast_slice(&expected(&b, 1000)))),
        ("words.npy", words.clone()),
        ("f.npy", npy("<f8", &[2, 3], cast_slice(&expected(&b[..6], 3)))),
        ("zero.npy", npy("<f8", &[], &[0; 8])),
    ];
    let out = folder.path("out.npz");
    for packed in [false, true] {
        let input = folder.file("in.npz", &all(packed));
        let line = run_ok(&input, &out, &["--force"]).concat();
        let what = "3 tensors, 70018 elements f32/f64, 3 others copied as they are (<U2/<f8/<i8)";
        assert!(line.contains(what), "{line}");
        let mut got = members(&fs::read(&out).unwrap());
        let mut want = want.clone().map(|(name, bytes)| (name.to_owned(), bytes)).to_vec();
        got.sort();
        want.sort();
        assert!(got == want, "packed: {packed}, {:?}", got.iter().map(|m| &m.0));
        // One of them.
        let text = piped_ok(&folder, &["run", "in.npz", "-", "--tensor", "ids"], b"");
        let y = expected(&[1.0, 0.0, 2.0], 3);
        assert_eq!(numbers(&String::from_utf8(text).unwrap(), ' '), [y]);
        let labels = call_ok("loss", &[&input, &input, &"--tensor", &"logits"]);
        assert!(labels.starts_with("mean loss ") && labels.ends_with("of 3 rows\n"), "{labels}");
    }
    let about = |cause| (folder.path("in.npz").to_str().unwrap().to_owned(), cause);
    let refused = |tensor: &str, cause| {
        let (subject, cause) = about(cause);
        let line: [&dyn AsRef<OsStr>; 5] = [&subject, &out, &"--force", &"--tensor", &tensor];
        call_refused(&folder, "run", &line, (&subject, cause));
    };
    refused("nope", "no tensor is called \"nope\"; there is logits, ids, more/b, words, f, zero");
    refused("words", "is <U2, which is not supported; np.save(\"converted.npy\", np.load(");
    refused("zero", "0-d");
}

#[test]
fn broken_archives_are_refused_by_name() {
    let folder = Folder::new();
    let out = folder.path("out.npz");
    let refused = |bytes: &[u8], cause: &str| {
        let input = folder.file("in.npz", bytes);
        let about = (input.to_str().unwrap(), cause);
        call_refused(&folder, "run", &arguments(&[&input, &out], &[]), about);
    };
    let x: Vec<f32> = values(40_000);
    let array = npy("<f4", &[40, 1000], cast_slice(&x));
    for packed in [false, true] {
        let good = npz(&[("x.npy", array.clone(), packed)]);
        let at = good.len() / 2;
        refused(&good[..at], "not an .npz file");
        refused(&good[..good.len() - 30], "not an .npz file");
        let mut wrong = good.clone();
        wrong[at] ^= 1;
        refused(&wrong, "array \"x\": its bytes are not those that were packed");
        // A directory with more members than there are, or than is possible.
        let directory = good.windows(4).rposition(|w| w == b"PK\x01\x02").unwrap();
        // (A packed length beyond the archive is found by one check or the other.)
        for (field, cause) in [(20, ""), (24, "is not where"), (16, "were packed")] {
            let mut wrong = good.clone();
            wrong[directory + field..][..4].copy_from_slice(&0x7fff_ffffu32.to_le_bytes());
            refused(&wrong, cause);
        }
        let mut encrypted = good.clone();
        encrypted[directory + 8] |= 1;
        refused(&encrypted, "its file \"x.npy\" is encrypted");
        let mut method = good;
        method[directory + 10] = 14;
        refused(&method, "its file \"x.npy\" is compressed in another way");
        refused(&npz(&[("x.npy", array[..500].to_vec(), packed)]), "array \"x\": truncated");
        refused(&npz(&[("x.txt", array.clone(), packed)]), "its file \"x.txt\" is no .npy file");
        let twice = [("x.npy", array.clone(), packed), ("x.npy", array.clone(), packed)];
        refused(&npz(&twice), "two of its arrays are called \"x\"");
        refused(
            &npz(&[("i.npy", npy("<i4", &[1], &[0; 4]), packed)]),
            "tensor \"i\" is <i4; --tensor",
        );
    }
    refused(b"", "not an .npz file");
    refused(&array, "not an .npz file");
    // Types that cannot be written are found before the work.
    let half = folder.file("in.npz", &npz(&[("x.npy", npy("<f2", &[1, 2], &[0; 4]), false)]));
    let failed = run(&half, &out, &["--dtype", "bf16"]);
    assert!(String::from_utf8(failed.stderr).unwrap().contains(".npy has no bf16"));
}
