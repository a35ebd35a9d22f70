//! What a person sees on a terminal, which `script` is here.

use std::fs;
use std::process::Command;

use crate::common::{Folder, npy};

/// Everything that the command prints on a terminal, standard output and errors as they come.
fn on_terminal(folder: &Folder, arguments: &str) -> String {
    let line = format!("'{}' {arguments}", env!("CARGO_BIN_EXE_softmax"));
    let mut script = Command::new("script");
    script.args(["-qec", &line, "/dev/null"]).current_dir(folder.path("."));
    let out = script.env_remove("SOFTMAX_KERNEL").env("TERM", "xterm").output().unwrap();
    assert!(out.status.success(), "{arguments}: {out:?}");
    String::from_utf8(out.stdout).unwrap()
}

#[test]
fn a_bar_is_not_drawn_into_a_listing() {
    let folder = Folder::new();
    // Seconds of work for the kernel `scalar`.
    let input = folder.file("in.npy", &npy("<f4", &[1 << 9, 1 << 18], &[]));
    let file = fs::File::options().write(true).open(&input).unwrap();
    file.set_len(file.metadata().unwrap().len() + (1 << 29)).unwrap();
    let slow = "--kernel scalar --threads 1";
    let is_bar = |text: &str| text.contains(" left");
    for listing in ["sample in.npy --seed 1", "topk in.npy --show 0"] {
        let text = on_terminal(&folder, &format!("{listing} {slow}"));
        assert!(!is_bar(&text), "{listing}: {text}");
        assert!(text.lines().count() >= 1 << 9, "{text}");
        // It is, where the listing goes elsewhere.
        let text = on_terminal(&folder, &format!("{listing} {slow} > list"));
        assert!(is_bar(&text), "{listing}: {text}");
    }
    let text = on_terminal(&folder, &format!("run in.npy out.npy {slow}"));
    assert!(is_bar(&text), "{text}");
}

/// A row that takes long is read and written in parts, and the bar moves with them.
#[test]
fn a_bar_moves_within_a_row() {
    let folder = Folder::new();
    let input = folder.file("in.npy", &npy("<f4", &[1 << 27], &[]));
    let file = fs::File::options().write(true).open(&input).unwrap();
    file.set_len(file.metadata().unwrap().len() + (1 << 29)).unwrap();
    let text = on_terminal(&folder, "run in.npy out.npy --kernel scalar --threads 1");
    assert!(text.contains(" of 1.00 GiB, "), "{text}");
    assert!(!text.contains(" 0 B of "), "{text}");
}
