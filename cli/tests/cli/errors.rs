//! Errors are one line, exit code 2, and nothing left behind.

use std::fs;
use std::path::Path;

use crate::common::{
    Folder, arguments, call, call_refused, npy, npy_aligned, run, safetensors, softmax,
};
use safetensors::Dtype;

/// Runs the command, which must fail with one line that names `subject` and contains `cause`, and
/// must add no file to the folder.
fn refused(folder: &Folder, input: &Path, output: &Path, options: &[&str], about: (&str, &str)) {
    call_refused(folder, "run", &arguments(&[input, output], options), about);
}

#[test]
fn broken_files_are_refused_by_name() {
    let folder = Folder::new();
    let good = npy("<f4", &[4, 10], &[0; 160]);
    let header = |text: &str| {
        let length = u16::try_from(text.len()).unwrap().to_le_bytes();
        [b"\x93NUMPY\x01\x00", &length[..], text.as_bytes()].concat()
    };
    let descr = |descr: &str| npy(descr, &[1], &[0; 8]);
    let nested = [&b"\x93NUMPY\x02\x00"[..], &500_000u32.to_le_bytes(), &[b'('; 500_000]].concat();
    let deep = |key: &str, n| {
        let (open, close) = ("[".repeat(n), "]".repeat(n));
        format!(
            "{{{key}{open}1{close}, 'descr': '<f4', 'fortran_order': False, 'shape': (4, 10), }}"
        )
    };
    let cases: &[(Vec<u8>, &str)] = &[
        (vec![], "magic"),
        (b"\x93NUMPX\x01\x00".to_vec(), "magic"),
        (b"PK\x03\x04".to_vec(), "magic"),
        (good[..7].to_vec(), "truncated"),
        (good[..9].to_vec(), "truncated"),
        (good[..40].to_vec(), "truncated"),
        (good[..good.len() - 1].to_vec(), "truncated: the shape 4 x 10 needs 160 bytes"),
        ([&good[..], &[0]].concat(), "too long: the shape 4 x 10 needs 160 bytes"),
        ([b"\x93NUMPY\x09\x00", &good[8..]].concat(), "version 9.0"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff{".to_vec(), "a header of 4294967295 bytes"),
        (b"\x93NUMPY\x02\x00\xff\x00\x00\x00{".to_vec(), "truncated"),
        (header(""), "dictionary"),
        (header("(1, 2)"), "dictionary"),
        (header("{'shape': (1,"), "\"shape\""),
        (header("\u{fffd}\u{0}"), "dictionary"),
        (nested, "a header of 500000 bytes: at most 10000 are read"),
        // These took other parsers very long.
        (header(&deep("'x': ", 40)), "unknown key \"x\""),
        (header(&deep("'x': ", 4_000)), "unknown key \"x\""),
        (header(&deep("'descr': ", 4_000)), "structured"),
        (header(&deep("'shape': ", 4_000)), "\"shape\""),
        (header(&deep("", 4_000)), "dictionary"),
        (header("{'descr': '<f4', 'fortran_order': False}"), "\"shape\""),
        (header("{'descr': '<f4', 'fortran_order': 0, 'shape': (1,)}"), "\"fortran_order\""),
        (header("{'descr': 4, 'fortran_order': False, 'shape': (1,)}"), "\"descr\""),
        (header("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}"), "structured"),
        (header("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}"), "\"shape\""),
        (header("{'descr': '<f4', 'fortran_order': False, 'shape': (1.0,)}"), "\"shape\""),
        (
            header("{'descr': '<f4', 'fortran_order': False, 'shape': (36893488147419103232, 0)}"),
            "\"shape\"",
        ),
        (npy("<f4", &[], &[0; 4]), "0-d"),
        (npy("<f4", &[usize::MAX, 3], &[]), "overflows"),
        (npy("<f4", &[usize::MAX / 2, 3, 0], &[]), "overflows"),
        (npy("<f8", &[usize::MAX / 8, 1], &[]), "overflows"),
        (npy("<f4", &[usize::MAX, 0], &[]), "overflows"),
        (npy("<f4", &[1; 65], &[0; 4]), "65 axes"),
        (npy("<f4", &[1 << 40, 1 << 10], &[0; 64]), "truncated"),
        // With the Python that converts them.
        (descr("<f16"), "dtype <f16 is not supported; np.save(\"converted.npy\", np.load("),
        (descr("|O"), "allow_pickle=True).astype(\"f8\")) converts"),
        (descr("<c8"), "in.npy\").real) converts"),
        (descr("<V2"), ".view(ml_dtypes.bfloat16).astype(\"f4\")) converts"),
        (descr("<U3"), "dtype <U3"),
        // Only another array may be appended.
        ([&good[..], &good[..5]].concat(), "too long"),
        ([&good[..], &[0], &good[..]].concat(), "too long"),
        (npy_aligned(64, "<f4", true, "(4, 10)", &[0; 159]), "truncated"),
        (npy("<i4", &[0, 1 << 60], &[]), "overflows"),
    ];
    for (bytes, cause) in cases {
        let input = folder.file("in.npy", bytes);
        let about = (input.to_str().unwrap(), *cause);
        refused(&folder, &input, &folder.path("out.npy"), &[], about);
    }

    let one = safetensors(&[("x", Dtype::F32, &[4, 10], &[0; 160])]);
    let file = |text: &str, data: &[u8]| {
        [&(text.len() as u64).to_le_bytes(), text.as_bytes(), data].concat()
    };
    let cases: &[(Vec<u8>, &str)] = &[
        (vec![], "not a .safetensors file"),
        (one[..4].to_vec(), "not a .safetensors file"),
        (one[..40].to_vec(), "truncated: the header has 112 bytes, of which 32 are there"),
        (one[..one.len() - 1].to_vec(), "truncated: the tensors need 160 bytes of data, got 159"),
        ([&one[..], &[0]].concat(), "too long: the tensors need 160 bytes of data, got 161"),
        (good.clone(), "not a .safetensors file"),
        (file("{\n]", &[]), "not a .safetensors file"),
        (
            file(
                r#"{"x":{"dtype":"F32","shape":[4294967296,4294967296,2],"data_offsets":[0,0]}}"#,
                &[],
            ),
            "overflow",
        ),
        (
            file(r#"{"x":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}"#, &[0; 4]),
            "not a .safetensors file",
        ),
        (safetensors(&[("x", Dtype::F32, &[], &[0; 4])]), "tensor \"x\" is 0-d"),
        (safetensors(&[("ids", Dtype::I64, &[1], &[0; 8])]), "tensor \"ids\" is I64; --tensor"),
        (
            safetensors(&[("q", Dtype::F8_E4M3, &[1], &[0; 1]), ("r", Dtype::I8, &[1], &[0; 1])]),
            "none of its tensors is computed: tensor \"q\" is F8_E4M3, which is not supported; \
             np.save(\"converted.npy\", safetensors.torch.load_file(",
        ),
    ];
    for (bytes, cause) in cases {
        let input = folder.file("in.safetensors", bytes);
        let about = (input.to_str().unwrap(), *cause);
        refused(&folder, &input, &folder.path("out.safetensors"), &[], about);
    }
}

#[test]
fn options_that_cannot_be_are_refused_by_name() {
    let folder = Folder::new();
    let input = folder.file("in.npy", &npy("<f4", &[4, 10], &[0; 160]));
    let out = folder.path("out.npy");
    let t = ("--temperature", "temperature");
    for value in ["nan", "-1", "-inf"] {
        refused(&folder, &input, &out, &["--temperature", value], t);
    }
    // These have a meaning for softmax of rows.
    for value in ["0", "inf"] {
        for op in ["sigmoid", "log-sigmoid"] {
            refused(&folder, &input, &out, &["--op", op, "--temperature", value], t);
        }
        refused(&folder, &input, &out, &["--axis", "0", "--temperature", value], t);
    }
    refused(&folder, &input, &out, &["--op", "hardmax", "--axis", "0"], ("--axis", "hardmax"));
    for value in ["nan", "0", "-0.0", "inf", "-inf", "1e300", "-1e300"] {
        refused(&folder, &input, &out, &["--scale", value], ("--scale", "scale"));
    }
    refused(&folder, &input, &out, &["--kernel", "mmx"], ("--kernel", "mmx"));
    for kernel in softmax::kernels().iter().filter(|k| !k.is_available()) {
        refused(&folder, &input, &out, &["--kernel", kernel.name()], ("--kernel", kernel.name()));
    }
    let out_name = out.to_str().unwrap();
    refused(&folder, &input, &out, &["--dtype", "bf16"], (out_name, ".npy has no bf16"));
    let in_name = input.to_str().unwrap();
    refused(&folder, &input, &out, &["--tensor", "x"], (in_name, "--tensor"));
    for axis in ["2", "-3"] {
        let message = format!("there is no axis {axis} in 4 x 10");
        refused(&folder, &input, &out, &["--axis", axis], (in_name, &message));
    }
    let st = folder.file(
        "in.safetensors",
        &safetensors(&[
            ("second", Dtype::F32, &[1], &[0; 4]),
            ("first", Dtype::F64, &[1], &[0; 8]),
        ]),
    );
    let out = folder.path("out.safetensors");
    let about = (st.to_str().unwrap(), "no tensor is called \"third\"; there is first, second");
    refused(&folder, &st, &out, &["--tensor", "third"], about);

    let env = softmax().arg("run").args([&st, &out]).env("SOFTMAX_KERNEL", "mmx").output().unwrap();
    assert_eq!(env.status.code(), Some(2));
    assert!(String::from_utf8(env.stderr).unwrap().starts_with("softmax: SOFTMAX_KERNEL: "));
}

#[test]
fn usage_errors_are_2_too() {
    let folder = Folder::new();
    let input = folder.file("in.npy", &npy("<f4", &[4, 10], &[0; 160]));
    let out = folder.path("out.npy");
    for options in [
        &["--threads", "0"][..],
        &["--temperature", "warm"],
        &["--scale", "1", "--temperature", "1"],
        &["--masked", "one"],
        &["--op", "softmin"],
        &["--op", "sigmoid", "--log"],
        &["--no-such-option"],
    ] {
        assert_eq!(run(&input, &out, options).status.code(), Some(2), "{options:?}");
    }
    assert_eq!(folder.names(), ["in.npy"]);
}

#[test]
fn files_that_cannot_be_read_or_written_are_refused_by_name() {
    let folder = Folder::new();
    let input = folder.file("in.npy", &npy("<f4", &[4, 10], &[0; 160]));
    let out = folder.path("out.npy");
    let missing = folder.path("missing.npy");
    let about = (missing.to_str().unwrap(), "No such file");
    refused(&folder, &missing, &out, &[], about);
    let directory = folder.path("directory.npy");
    fs::create_dir(&directory).unwrap();
    let about = (directory.to_str().unwrap(), "not a regular file");
    refused(&folder, &directory, &out, &[], about);
    refused(&folder, &input, &directory, &["--force"], about);
    let nowhere = folder.path("no/such/folder/out.npy");
    refused(&folder, &input, &nowhere, &[], (nowhere.to_str().unwrap(), "cannot be created"));
    let text = folder.path("in.dat");
    let about = (text.to_str().unwrap(), ".npy, .npz, .safetensors, .csv, .tsv or .txt; --format");
    refused(&folder, &text, &out, &[], about);
    let other = folder.path("out.safetensors");
    refused(&folder, &input, &other, &[], (other.to_str().unwrap(), "the extension must be .npy"));
    // A name with a line break does not break the line.
    let broken = folder.path("a\nb.npy");
    let name = broken.to_str().unwrap().replace('\n', " ");
    refused(&folder, &broken, &out, &[], (&name, "No such file"));
    // Not even root may create a file there.
    #[cfg(target_os = "linux")]
    refused(
        &folder,
        &input,
        Path::new("/proc/out.npy"),
        &[],
        ("/proc/out.npy", "cannot be created"),
    );
}

#[cfg(unix)]
#[test]
fn a_folder_without_permission_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new();
    let input = folder.file("in.npy", &npy("<f4", &[4, 10], &[0; 160]));
    let locked = folder.path("locked");
    fs::create_dir(&locked).unwrap();
    fs::set_permissions(&locked, PermissionsExt::from_mode(0o555)).unwrap();
    if fs::write(locked.join("probe"), "").is_ok() {
        println!("not tested: this user may write to any folder (the test above has /proc)");
        return;
    }
    let out = locked.join("out.npy");
    refused(&folder, &input, &out, &[], (out.to_str().unwrap(), "Permission denied"));
}

/// Like a full disk: the write fails midway.
#[cfg(unix)]
#[test]
fn a_write_that_fails_leaves_nothing() {
    let folder = Folder::new();
    let input = folder.file("in.npy", &npy("<f4", &[100, 1000], &[0; 400_000]));
    let out = folder.path("out.npy");
    let limited = std::process::Command::new("sh")
        .args(["-c", "ulimit -f 16 && exec \"$@\"", "sh", env!("CARGO_BIN_EXE_softmax"), "run"])
        .args([&input, &out])
        .env_remove("SOFTMAX_KERNEL")
        .output()
        .unwrap();
    let stderr = String::from_utf8(limited.stderr).unwrap();
    assert_eq!(limited.status.code(), Some(2), "{stderr}");
    assert!(
        stderr.starts_with(&format!("softmax: {}: cannot be written", out.display())),
        "{stderr}"
    );
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert_eq!(folder.names(), ["in.npy"]);
}

/// Texts of a file are shown in messages, as far as there is room.
#[test]
fn messages_are_short_whatever_is_in_a_file() {
    let folder = Folder::new();
    let short = |options: &[&str], input: &Path, cause: &str| {
        let out = call("run", &arguments(&[input, &folder.path("out.npy")], options));
        let out = if input.extension().is_some_and(|e| e == "npy") {
            out
        } else {
            call("run", &arguments(&[input, &folder.path("out.safetensors")], options))
        };
        let stderr = String::from_utf8(out.stderr).unwrap();
        assert_eq!(out.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains(cause), "{stderr}");
        assert!(stderr.chars().count() < 1000, "{} characters", stderr.chars().count());
    };
    let names: Vec<_> = (0..10_000).map(|i| format!("layer.{i}")).collect();
    let tensors: Vec<_> = names.iter().map(|n| (&**n, Dtype::F32, &[1][..], &[0; 4][..])).collect();
    let many = folder.file("many.safetensors", &safetensors(&tensors));
    short(&["--tensor", "nope"], &many, "and 9992 more");
    short(&["--tensor", &"n".repeat(50_000)], &many, "and 9992 more");
    let out = call("argmax", &[&many]);
    let stderr = String::from_utf8(out.stderr).unwrap();
    assert!(stderr.contains("and 9992 more") && stderr.chars().count() < 1000, "{stderr}");
    let long = "t".repeat(50_000);
    let tensors = [(&*long, Dtype::I64, &[1][..], &[0; 8][..])];
    let file = folder.file("long.safetensors", &safetensors(&tensors));
    short(&[], &file, "is I64");
    short(&["--tensor", "nope"], &file, "ttt...");
    let text = format!(r#"{{"x":{{"dtype":"{long}","shape":[1],"data_offsets":[0,4]}}}}"#);
    let bytes = [&(text.len() as u64).to_le_bytes(), text.as_bytes(), &[0; 4]].concat();
    short(&[], &folder.file("dtype.safetensors", &bytes), "unknown variant");
    for descr in ["t".repeat(9_000), format!(">{}", "t".repeat(9_000))] {
        short(&[], &folder.file("descr.npy", &npy(&descr, &[1], &[0; 4])), "not supported");
    }
    let key = format!("{{'{}': 1}}", "k".repeat(9_000));
    let length = (key.len() as u16).to_le_bytes();
    let bytes = [b"\x93NUMPY\x01\x00", &length[..], key.as_bytes()].concat();
    short(&[], &folder.file("key.npy", &bytes), "unknown key");
}

/// Control characters in names do not reach the terminal, nor break lines.
#[test]
fn names_are_cleaned_wherever_they_are_printed() {
    let folder = Folder::new();
    let name = "\u{1b}[2J\nrow 0: most likely 7\u{9b}31m\u{7f}";
    let tensors = [(name, Dtype::F32, &[2][..], &[0; 8][..]), ("b", Dtype::F32, &[2], &[0; 8])];
    let input = folder.file("in.safetensors", &safetensors(&tensors));
    let out = folder.path("out.safetensors");
    let lines = crate::common::run_ok(&input, &out, &["--show", "1", "--verbose"]);
    assert!(lines.iter().all(|line| !line.contains(|c: char| c.is_control())), "{lines:?}");
    assert_eq!(lines.iter().filter(|line| line.contains("[2J row 0: most likely 7")).count(), 2);
    let options = ["--show", "1", "--verbose", "--json", "--force"];
    let json = crate::common::run_ok(&input, &out, &options);
    assert_eq!(json.len(), 1);
    assert!(!json[0].contains(|c: char| c.is_control()), "{json:?}");
    let json: serde_json::Value = serde_json::from_str(&json[0]).unwrap();
    for list in ["tensors", "plans", "rows"] {
        let list = json[list].as_array().unwrap();
        assert!(list.iter().any(|item| item["name"] == name), "{list:?}");
    }
    let out = call("argmax", &[&input]);
    let stderr = String::from_utf8(out.stderr).unwrap();
    assert!(!stderr.trim_end().contains(|c: char| c.is_control()), "{stderr:?}");
}

/// For every command, also those that would not use them.
#[test]
fn variables_that_make_no_sense_are_refused_by_every_command() {
    let folder = Folder::new();
    let input = folder.file("in.npy", &npy("<f4", &[4, 10], &[0; 160]));
    let labels = folder.file("labels.npy", &npy("<i8", &[4], &[0; 32]));
    let (input, labels) = (input.to_str().unwrap(), labels.to_str().unwrap());
    let out = folder.path("out.npy");
    let before = folder.names();
    for arguments in [
        &["run", input, out.to_str().unwrap()][..],
        &["run", input, out.to_str().unwrap(), "--kernel", "scalar"],
        &["loss", input, labels],
        &["argmax", input],
        &["topk", input],
        &["sample", input, "--seed", "1"],
        &["info"],
        &["info", "--json"],
        &["bench", "--quick", "--max-size", "40K"],
        &["report", "/dev/null"],
    ] {
        for variable in ["SOFTMAX_KERNEL", "SOFTMAX_CACHES"] {
            let out = softmax().args(arguments).env(variable, "bad").output().unwrap();
            let stderr = String::from_utf8(out.stderr).unwrap();
            assert_eq!(out.status.code(), Some(2), "{arguments:?} {variable}: {stderr}");
            assert!(stderr.starts_with(&format!("softmax: {variable}: ")), "{stderr}");
            assert!(stderr.contains("bad") && stderr.lines().count() == 1, "{stderr}");
            assert!(out.stdout.is_empty() || arguments[0] == "info", "{arguments:?}");
        }
    }
    assert_eq!(folder.names(), before);
}

#[test]
fn a_file_without_a_subcommand_gets_a_hint() {
    for file in ["x.npy", "nowhere/x.safetensors"] {
        let out = softmax().args([file, "y.npy"]).output().unwrap();
        let stderr = String::from_utf8(out.stderr).unwrap();
        assert_eq!(out.status.code(), Some(2));
        assert!(stderr.contains("softmax run LOGITS OUT"), "{stderr}");
    }
    let out = softmax().arg("runn").output().unwrap();
    let stderr = String::from_utf8(out.stderr).unwrap();
    assert!(stderr.contains("'run'") && !stderr.contains("LOGITS"), "{stderr}");
}

#[test]
fn help_tells_exit_codes_and_is_as_wide_as_a_terminal() {
    let commands =
        ["run", "loss", "argmax", "topk", "sample", "info", "bench", "report", "completions"];
    let mut helps = vec![vec!["-h"], vec!["--help"]];
    for command in commands {
        helps.extend([vec![command, "-h"], vec![command, "--help"], vec!["help", command]]);
    }
    for arguments in helps {
        let out = softmax().args(&arguments).env_remove("COLUMNS").output().unwrap();
        assert!(out.status.success());
        let text = String::from_utf8(out.stdout).unwrap();
        assert!(text.contains("Exit status:\n  0 "), "{arguments:?}: {text}");
        for line in text.lines() {
            assert!(line.chars().count() <= 100, "{arguments:?}: {line}");
        }
    }
}
