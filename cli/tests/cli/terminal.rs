//! Output on a terminal, which `script` provides here.

use std::process::Command;

use crate::common::{Folder, zeros};

/// Everything that the command prints on a terminal, standard output and errors as they come.
fn on_terminal(folder: &Folder, arguments: &str) -> String {
    let line = format!("'{}' {arguments}", env!("CARGO_BIN_EXE_softmax"));
    let mut script = Command::new("script");
    script.args(["-qec", &line, "/dev/null"]).current_dir(folder.path("."));
    let out = script.env_remove("SOFTMAX_KERNEL").env("TERM", "xterm").output().unwrap();
    assert!(out.status.success(), "{arguments}: {out:?}");
    String::from_utf8(out.stdout).unwrap()
}

/// A bar appears after a second; with the kernel `scalar` this takes two or more.
#[test]
fn a_bar_is_not_drawn_into_a_listing() {
    let folder = Folder::new();
    zeros(&folder, "many.npy", &[1 << 9, 1 << 18]);
    zeros(&folder, "some.npy", &[1 << 8, 1 << 18]);
    let slow = "--kernel scalar --threads 1";
    let is_bar = |text: &str| text.contains(" left");
    for listing in ["sample many.npy --seed 1", "topk some.npy --show 0"] {
        let text = on_terminal(&folder, &format!("{listing} {slow}"));
        assert!(!is_bar(&text), "{listing}: {text}");
        assert!(text.lines().count() >= 1 << 8, "{text}");
        // The bar appears if the listing goes elsewhere.
        let text = on_terminal(&folder, &format!("{listing} {slow} > list"));
        assert!(is_bar(&text), "{listing}: {text}");
    }
    let text = on_terminal(&folder, &format!("run some.npy out.npy {slow}"));
    assert!(is_bar(&text), "{text}");
}

/// A long row is read and written in steps, and the bar moves with them.
#[test]
fn a_bar_moves_within_a_row() {
    let folder = Folder::new();
    zeros(&folder, "in.npy", &[1 << 26]);
    let text = on_terminal(&folder, "run in.npy out.npy --kernel scalar --threads 1");
    assert!(text.contains(" of 512.00 MiB, "), "{text}");
    assert!(!text.contains(" 0 B of "), "{text}");
}
