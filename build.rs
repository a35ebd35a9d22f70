//! Tells the command (crate `softmax-cli`, whose build script this is, by the link `cli/build.rs`)
//! how it was built: the compiler, the target and the revision, for `softmax info` and for reports.

use std::process::Command;

fn main() {
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    let target = std::env::var("TARGET").unwrap_or_default();
    println!("cargo::rustc-env=SOFTMAX_BUILD_TARGET={target}");
    println!("cargo::rustc-env=SOFTMAX_BUILD_RUSTC={}", line(&rustc, &["--version"]));
    println!("cargo::rustc-env=SOFTMAX_BUILD_REVISION={}", revision());
    println!("cargo::rerun-if-changed=build.rs");
}

/// The commit that this is built of.
fn revision() -> String {
    // In a published package cargo has written it down; a repository around that is another one.
    if let Ok(packaged) = std::fs::read_to_string(".cargo_vcs_info.json") {
        let mut words = packaged.split('"').skip_while(|&word| word != "sha1");
        return words.nth(2).map_or("unknown".into(), |commit| commit.chars().take(12).collect());
    }
    for file in ["HEAD", "index"] {
        // In a worktree they are not in .git.
        let path = line("git", &["rev-parse", "--git-path", file]);
        if std::path::Path::new(&path).exists() {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    // Without a lock git leaves its index alone, which is watched.
    line("git", &["--no-optional-locks", "describe", "--always", "--dirty", "--abbrev=12"])
}

/// The first line a command prints, or "unknown" when it cannot be run.
fn line(program: &str, args: &[&str]) -> String {
    Command::new(program)
        .args(args)
        .output()
        .ok()
        .filter(|out| out.status.success())
        .and_then(|out| String::from_utf8(out.stdout).ok())
        .and_then(|text| text.lines().next().map(str::to_owned))
        .unwrap_or_else(|| "unknown".into())
}
