//! Build script of the command (crate `softmax-cli`, which links `cli/build.rs`): records compiler,
//! target and revision, for `softmax info` and for reports.

use std::process::Command;

fn main() {
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    let rustc = line(&rustc, &["--version"]).unwrap_or_else(unknown);
    let target = std::env::var("TARGET").unwrap_or_default();
    println!("cargo::rustc-env=SOFTMAX_BUILD_TARGET={target}");
    println!("cargo::rustc-env=SOFTMAX_BUILD_RUSTC={rustc}");
    println!("cargo::rustc-env=SOFTMAX_BUILD_REVISION={}", revision().unwrap_or_else(unknown));
    println!("cargo::rerun-if-changed=build.rs");
}

/// The commit of the source.
fn revision() -> Option<String> {
    // Cargo writes it into a published package, where a repository around it is another one.
    if let Ok(packaged) = std::fs::read_to_string(".cargo_vcs_info.json") {
        let mut words = packaged.split('"').skip_while(|&word| word != "sha1");
        return words.nth(2).map(|commit| commit.chars().take(12).collect());
    }
    for file in ["HEAD", "index"] {
        // In a worktree these files are not in .git.
        let path = line("git", &["rev-parse", "--git-path", file]);
        if let Some(path) = path.filter(|path| std::path::Path::new(path).exists()) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    let commit = line("git", &["describe", "--always", "--abbrev=12"])?;
    // `describe --dirty` would write the index, which is watched, and so cause another build.
    let status = ["--no-optional-locks", "status", "--porcelain", "--untracked-files=no"];
    let is_changed = line("git", &status).is_some();
    Some(commit + if is_changed { "-dirty" } else { "" })
}

fn unknown() -> String {
    "unknown".into()
}

/// The first line that a command prints, if it can be run and prints any.
fn line(program: &str, args: &[&str]) -> Option<String> {
    let out = Command::new(program).args(args).output().ok().filter(|out| out.status.success())?;
    String::from_utf8(out.stdout).ok()?.lines().next().map(str::to_owned)
}
