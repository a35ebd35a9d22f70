//! `softmax completions`.

use std::process::Command;

use crate::common::softmax;

/// The script of a shell, which must be printed even where nothing can be computed.
fn script(shell: &str) -> String {
    let mut command = softmax();
    let out = command.args(["completions", shell]).env("SOFTMAX_KERNEL", "mmx").output().unwrap();
    assert!(out.status.success(), "{shell}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

/// What bash offers for the last of some words.
fn offered(words: &[&str]) -> Vec<String> {
    let ask = "set -eu; eval \"$1\"; shift; COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1))
        _softmax softmax \"${COMP_WORDS[COMP_CWORD]}\" \"${COMP_WORDS[COMP_CWORD - 1]}\"
        printf '%s\\n' \"${COMPREPLY[@]}\"";
    let script = script("bash");
    let out = Command::new("bash").args(["-c", ask, "bash", &script]).args(words).output().unwrap();
    assert!(out.status.success(), "{words:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_commands_options_and_values() {
    assert_eq!(offered(&["softmax", "to"]), ["topk"]);
    assert_eq!(offered(&["softmax", "run", "--temp"]), ["--temperature"]);
    assert_eq!(offered(&["softmax", "run", "--masked", ""]), ["nan", "zero"]);
    assert_eq!(offered(&["softmax", "completions", "z"]), ["zsh"]);
}

#[test]
fn every_shell_has_a_script() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = script(shell);
        for word in ["softmax", "topk", "temperature"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
    let out = softmax().args(["completions", "csh"]).output().unwrap();
    assert_eq!(out.status.code(), Some(2));
}
