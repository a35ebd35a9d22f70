//! `softmax bench` and `softmax report`.

#[cfg(feature = "png")]
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use crate::common::{Folder, call, call_refused, softmax};
use softmax_report::schema::Report;

/// Three rounds of small matrices.
const TINY: [&str; 7] = ["--quick", "--rounds", "3", "--dtype", "f32", "--label", "a machine"];

/// Runs `softmax bench`, and returns its report and its output.
fn bench(path: &Path, more: &[&str]) -> (Report, String) {
    let out = softmax().arg("bench").args(TINY).args(more).arg("-o").arg(path).output().unwrap();
    let stderr = String::from_utf8(out.stderr).unwrap();
    assert!(out.status.success(), "{stderr}");
    assert_eq!(stderr, "");
    (read(path), String::from_utf8(out.stdout).unwrap())
}

fn read(path: &Path) -> Report {
    softmax_report::read(&std::fs::read(path).unwrap(), "report").unwrap()
}

#[test]
fn every_kernel_is_checked_and_timed() {
    let folder = Folder::new();
    let (report, text) = bench(&folder.path("report.json"), &["--max-size", "600K"]);
    assert!(report.complete);
    assert_eq!(report.machine.label, "a machine");
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    assert!(text.contains("a machine"));
    for kernel in softmax::kernels().iter().filter(|k| k.is_available() && k.name() != "scalar") {
        for operation in ["softmax", "attention"] {
            let is = |c: &&softmax_report::schema::Case| {
                (&*c.kernel, &*c.operation) == (kernel.name(), operation)
            };
            let case = report.cases.iter().find(is).unwrap_or_else(|| panic!("{operation}"));
            let result = case.result.as_ref().unwrap();
            assert_eq!(result.timing.seconds.len(), 3);
            assert!(case.check.passed && case.check.digest == case.check.expected);
            assert!(case.check.max_ulp.unwrap() <= 3.0);
            assert!(result.fraction_of_limit.unwrap() > 0.0);
        }
    }
    for name in ["read", "copy", "copy_nt", "scale"] {
        assert!(report.limits.memory.iter().any(|limit| limit.name == name), "{name}");
    }
    assert_eq!(report.clock.len(), 3);
    // The results of all kernels for the same matrix have one digest.
    for a in &report.cases {
        for b in report
            .cases
            .iter()
            .filter(|b| (&a.operation, a.rows, a.cols) == (&b.operation, b.rows, b.cols))
        {
            assert_eq!(a.check.digest, b.check.digest);
        }
    }
}

#[test]
fn filters_leave_what_they_say() {
    let folder = Folder::new();
    let filters = ["--kernel", "scalar,portable", "--op", "logsumexp,sample", "--threads", "1"];
    let all = ["--max-size", "1M", "--rounds", "1"];
    let path = folder.path("some.json");
    let mut bench = softmax();
    bench.args(["bench", "--quick"]).args(filters).args(all).arg("-o").arg(&path);
    assert!(bench.output().unwrap().status.success());
    let report = read(&path);
    // The JSON output is the same.
    let json = softmax().arg("bench").arg("--quick").args(filters).args(all).arg("--json").output();
    let printed = softmax_report::read(&json.unwrap().stdout, "printed").unwrap();
    assert_eq!(printed.cases.len(), report.cases.len());
    let mut names: Vec<_> = report.cases.iter().map(|c| (&*c.kernel, &*c.operation)).collect();
    names.sort_unstable();
    let want = [
        ("portable", "logsumexp"),
        ("portable", "sample"),
        ("scalar", "logsumexp"),
        ("scalar", "sample"),
    ];
    assert_eq!(names, want);
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let folder = Folder::new();
    let there = folder.file("there.json", b"{}");
    let refused = |arguments: &[&str], about| {
        let arguments: Vec<_> =
            arguments.iter().map(|a| a as &dyn AsRef<std::ffi::OsStr>).collect();
        call_refused(&folder, "bench", &arguments, about);
    };
    refused(&["--kernel", "mmx"], ("--kernel", "mmx"));
    refused(&["--max-size", "1K"], ("bench", "nothing is left"));
    let there = there.to_str().unwrap();
    refused(&["-o", there], (there, "exists already"));
    assert_eq!(std::fs::read(there).unwrap(), b"{}");
}

/// A small report, measured once for all tests that look at one.
pub static SMALL: LazyLock<String> = LazyLock::new(|| {
    let folder = Folder::new();
    let (report, _) = bench(&folder.path("small.json"), &["--op", "softmax", "--max-size", "40K"]);
    softmax_report::write(&report)
});

/// A report, and one of a machine that is slower by a factor at everything.
fn two_reports(folder: &Folder, factor: f64) -> [PathBuf; 2] {
    let mut report = softmax_report::read(SMALL.as_bytes(), "report").unwrap();
    report.machine.label = "another".into();
    for result in report.cases.iter_mut().filter_map(|case| case.result.as_mut()) {
        result.elements_per_second *= factor;
    }
    let slower = softmax_report::write(&report);
    [folder.file("a.json", SMALL.as_bytes()), folder.file("b.json", slower.as_bytes())]
}

#[test]
fn reports_become_tables_pages_and_charts() {
    let folder = Folder::new();
    let [a, b] = two_reports(&folder, 0.5);
    let text = |arguments: &[&dyn AsRef<std::ffi::OsStr>]| {
        let out = call("report", arguments);
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    };
    // As JSON.
    let json: serde_json::Value = serde_json::from_str(&text(&[&a, &b, &"--json"])).unwrap();
    let cases = json["cases"].as_array().unwrap();
    let of = |report: u64| cases.iter().filter(move |case| case["report"] == report);
    assert!(of(1).count() > 0 && of(1).count() == of(2).count());
    assert!(of(1).all(|case| case["ratio"] == 1.0) && of(2).all(|case| case["ratio"] == 0.5));
    assert!(of(2).all(|case| case["label"] == "another" && case["elements_per_second"].is_f64()));
    assert_eq!(json["below"], serde_json::Value::Null);

    let table = text(&[&a, &b]);
    assert!(table.contains("another") && table.contains("0.50"), "{table}");
    assert!(table.lines().all(|line| line.chars().count() <= 100));

    let (html, csv) = (folder.path("r.html"), folder.path("r.csv"));
    let svg = folder.path("svg");
    let quiet = text(&[&a, &b, &"-o", &html, &"--csv", &csv, &"--svg", &svg]);
    assert_eq!(quiet, "");
    let page = std::fs::read_to_string(&html).unwrap();
    assert!(page.starts_with("<!DOCTYPE html>") && page.contains("<svg"));
    let lines = std::fs::read_to_string(&csv).unwrap();
    assert_eq!(lines.lines().count(), 1 + 2 * read(&a).cases.len());
    let charts = std::fs::read_dir(&svg).unwrap().map(|chart| chart.unwrap().path());
    let charts: Vec<_> = charts.collect();
    assert!(charts.len() >= 3);
    for chart in charts {
        assert!(std::fs::read_to_string(&chart).unwrap().starts_with("<svg"), "{chart:?}");
    }

    // Nothing is replaced without --force, and nothing is written if a file would be replaced.
    let (arguments, new) =
        ([&a as &dyn AsRef<std::ffi::OsStr>, &"-o", &html, &"--csv"], folder.path("n.csv"));
    let mut arguments = arguments.to_vec();
    arguments.push(&new);
    call_refused(&folder, "report", &arguments, (html.to_str().unwrap(), "exists already"));
}

#[cfg(feature = "png")]
#[test]
fn charts_become_pictures() {
    let folder = Folder::new();
    let [a, _] = two_reports(&folder, 1.0);
    let (svg, png) = (folder.path("svg"), folder.path("png"));
    let out = call("report", &[&a, &"--svg", &svg, &"--png", &png, &"--width", &"320"]);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let names = |folder: &Path| {
        let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
        files.map(|file| file.file_stem().unwrap().to_owned()).collect::<BTreeSet<_>>()
    };
    assert_eq!(names(&svg), names(&png));
    for file in std::fs::read_dir(&png).unwrap() {
        let picture = std::fs::read(file.unwrap().path()).unwrap();
        assert_eq!((&picture[..4], &picture[16..20]), (&b"\x89PNG"[..], &320u32.to_be_bytes()[..]));
    }
}

#[cfg(not(feature = "png"))]
#[test]
fn pictures_tell_what_they_need() {
    let folder = Folder::new();
    let [a, _] = two_reports(&folder, 1.0);
    let (html, png) = (folder.path("r.html"), folder.path("png"));
    // Nothing is written if one file cannot be.
    let arguments: [&dyn AsRef<std::ffi::OsStr>; 5] = [&a, &"-o", &html, &"--png", &png];
    call_refused(&folder, "report", &arguments, ("--png", "--features png"));
    let help = softmax().args(["report", "--help"]).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    assert!(help.contains("--svg") && !help.contains("--png"), "{help}");
}

#[test]
fn slower_cases_fail_and_are_named() {
    let folder = Folder::new();
    let [a, b] = two_reports(&folder, 0.9);
    let below = |factor: &str| call("report", &[&a, &b, &"--fail-below", &factor]);
    let fails = below("0.95");
    assert_eq!(fails.status.code(), Some(1));
    let stdout = String::from_utf8(fails.stdout).unwrap();
    assert!(stdout.contains("softmax") && stdout.contains("0.9"), "{stdout}");
    assert!(String::from_utf8(fails.stderr).unwrap().contains("below 0.95"));
    assert_eq!(below("0.8").status.code(), Some(0));
    let json = call("report", &[&a, &b, &"--fail-below", &"0.95", &"--json"]);
    assert_eq!(json.status.code(), Some(1));
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    let lines: Vec<_> = json["below"].as_array().unwrap().iter().collect();
    assert_eq!(lines.len(), stdout.lines().filter(|line| line.starts_with("report 2")).count());
    assert_eq!(below("-1").status.code(), Some(2));
    // A single report cannot be compared.
    assert_eq!(call("report", &[&a, &"--fail-below", &"0.9"]).status.code(), Some(2));
}

#[test]
fn what_is_no_report_is_refused() {
    let folder = Folder::new();
    let whole = &*SMALL;
    let refused = |name: &str, bytes: &[u8], about: &str| {
        let path = folder.file(name, bytes);
        call_refused(&folder, "report", &[&path], ("report", about));
    };
    refused("text.json", b"hello", "line 1");
    // An endless pipe.
    #[cfg(unix)]
    call_refused(&folder, "report", &[&"/dev/zero"], ("/dev/zero", "too large for a report"));
    refused("foreign.json", br#"{"schema": "something else", "version": 1}"#, "schema");
    refused("old.json", whole.replace("\"version\": 1", "\"version\": 0").as_bytes(), "version");
    refused("truncated.json", &whole.as_bytes()[..whole.len() / 2], "line");
    refused("without.json", whole.replace("\"median\"", "\"mean\"").as_bytes(), "median");
    call_refused(
        &folder,
        "report",
        &[&folder.path("none.json")],
        (folder.path("none.json").to_str().unwrap(), "No such file"),
    );
}
