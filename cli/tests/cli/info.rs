//! `softmax info`.

use crate::common::softmax;
use serde_json::Value;

fn info_json(kernel: Option<&str>) -> (Option<i32>, Value, String) {
    let mut command = softmax();
    command.args(["info", "--json"]);
    if let Some(kernel) = kernel {
        command.env("SOFTMAX_KERNEL", kernel);
    }
    let out = command.output().unwrap();
    let json = serde_json::from_slice(&out.stdout).unwrap();
    (out.status.code(), json, String::from_utf8(out.stderr).unwrap())
}

/// The names of the kernels that are marked as chosen.
fn chosen(json: &Value) -> Vec<&str> {
    let kernels = json["kernels"].as_array().unwrap().iter();
    kernels.filter(|k| k["chosen"] == true).map(|k| k["name"].as_str().unwrap()).collect()
}

#[test]
fn json_has_what_reports_need() {
    let (code, json, stderr) = info_json(None);
    assert_eq!((code, &*stderr), (Some(0), ""));
    assert!(!json["cpu"].as_str().unwrap().is_empty());
    assert!(json["threads"].as_u64().unwrap() >= 1);
    for cache in json["caches"].as_array().unwrap() {
        assert!(cache["level"].as_u64().unwrap() >= 1);
        assert!(cache["size"].as_u64().unwrap() >= 1024);
    }
    let kernels = json["kernels"].as_array().unwrap();
    assert_eq!(kernels.len(), softmax::kernels().len());
    for (json, kernel) in kernels.iter().zip(softmax::kernels()) {
        assert_eq!(json["name"], kernel.name());
        assert_eq!(json["available"], kernel.is_available());
        assert_eq!(json["requires"], serde_json::json!(kernel.requires()));
    }
    let first = softmax::kernels().iter().find(|k| k.is_available()).unwrap();
    assert_eq!(chosen(&json), [first.name()]);
    let build = |key| json["build"][key].as_str().unwrap();
    assert_eq!(build("version"), env!("CARGO_PKG_VERSION"));
    assert!(build("rustc").starts_with("rustc "), "{}", build("rustc"));
    assert!(build("target").starts_with(std::env::consts::ARCH), "{}", build("target"));
    assert!(!build("revision").is_empty());
}

#[test]
fn the_environment_chooses_and_is_checked() {
    let (code, json, stderr) = info_json(Some("scalar"));
    assert_eq!((code, &*stderr, chosen(&json)), (Some(0), "", vec!["scalar"]));
    let (code, json, stderr) = info_json(Some("mmx"));
    assert_eq!((code, chosen(&json).len()), (Some(2), 0));
    assert!(stderr.starts_with("softmax: SOFTMAX_KERNEL: ") && stderr.contains("mmx"), "{stderr}");
    assert_eq!(stderr.lines().count(), 1);
}

#[test]
fn text_lists_every_kernel() {
    let out = softmax().arg("info").output().unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    assert!(out.status.success());
    for kernel in softmax::kernels() {
        assert!(text.lines().any(|l| l.trim_start().starts_with(kernel.name())), "{text}");
    }
    assert_eq!(text.matches(" chosen ").count(), 1, "{text}");
}
