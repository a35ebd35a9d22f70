//! Tells the command (crate `softmax-cli`, whose build script this is) how it was built: the
//! compiler, the target and the revision, for `softmax info` and for reports.

use std::process::Command;

fn main() {
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    let target = std::env::var("TARGET").unwrap_or_default();
    println!("cargo::rustc-env=SOFTMAX_BUILD_TARGET={target}");
    println!("cargo::rustc-env=SOFTMAX_BUILD_RUSTC={}", line(&rustc, &["--version"]));
    // Without a lock git leaves its index alone, which is watched here.
    let describe = ["--no-optional-locks", "describe", "--always", "--dirty", "--abbrev=12"];
    println!("cargo::rustc-env=SOFTMAX_BUILD_REVISION={}", line("git", &describe));
    println!("cargo::rerun-if-changed=../build.rs");
    for file in ["HEAD", "index"] {
        // In a worktree they are not in .git.
        let path = line("git", &["rev-parse", "--git-path", file]);
        if std::path::Path::new(&path).exists() {
            println!("cargo::rerun-if-changed={path}");
        }
    }
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
