//! The README's commands, run unchanged, one after another.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::bench::SMALL;
use crate::common::{Folder, safetensors, values};
use bytemuck::cast_slice;
use safetensors::Dtype;

#[test]
fn commands_of_the_readme_run_one_after_the_other() {
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md")).unwrap();
    let (_, section) = readme.split_once("## The command\n").expect("a section of that name");
    let (_, block) = section.split_once("```console\n").expect("its commands");
    let (block, _) = block.split_once("```").expect("their end");
    let commands: Vec<_> = block.lines().map(|line| line.strip_prefix("$ ").unwrap()).collect();
    assert!(commands.len() > 10, "{block}");

    // The input files: those that are named and not made by any command.
    let folder = Folder::new();
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data");
    fs::copy(data.join("digits_logits.npy"), folder.path("logits.npy")).unwrap();
    fs::copy(data.join("digits_labels.npy"), folder.path("labels.npy")).unwrap();
    let (a, b): (Vec<f32>, Vec<half::bf16>) = (values(24), values(9));
    let tensors = safetensors(&[
        ("head", Dtype::F32, &[2, 3, 4], cast_slice(&a)),
        ("tail", Dtype::BF16, &[9], cast_slice(&b)),
    ]);
    folder.file("model.safetensors", &tensors);
    folder.file("other.json", SMALL.as_bytes());
    folder.file("scores.csv", b"8,5,0\n1,1,1\n");
    let before: Vec<_> =
        folder.names().into_iter().map(|n| (fs::read(folder.path(&n)).unwrap(), n)).collect();

    let program = Path::new(env!("CARGO_BIN_EXE_softmax")).parent().unwrap();
    let path = std::env::join_paths(
        [program.to_owned()]
            .into_iter()
            .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
    );
    let path = path.unwrap();
    for command in &commands {
        // Shortened here; .ci/run runs it in full, which takes half a minute.
        let line = command.replace("bench --quick", "bench --quick --rounds 1 --max-size 40K");
        let mut shell = Command::new("sh");
        shell.args(["-c", &line]).current_dir(folder.path(".")).env("PATH", &path);
        let out = shell.env_remove("SOFTMAX_KERNEL").output().unwrap();
        assert!(out.status.success(), "{command}: {}", String::from_utf8_lossy(&out.stderr));
        assert!(!out.stdout.is_empty() || command.contains(" report "), "{command}");
    }
    // No input file was changed.
    for (bytes, name) in before {
        assert!(fs::read(folder.path(&name)).unwrap() == bytes, "{name} has changed");
    }
    // All commands print text, and with --json JSON.
    for command in commands.iter().map(|line| line.split('#').next().unwrap().trim()) {
        if command.contains(" bench ") {
            continue;
        }
        // Their outputs exist by now.
        let has_force = command.contains("--force") || command.contains(" info");
        let force = if has_force { "" } else { "--force" };
        let line = format!("{command} {force} --json");
        let mut shell = Command::new("sh");
        shell.args(["-c", &line]).current_dir(folder.path(".")).env("PATH", &path);
        let out = shell.env_remove("SOFTMAX_KERNEL").output().unwrap();
        assert!(out.status.success(), "{line}: {}", String::from_utf8_lossy(&out.stderr));
        let json: Result<serde_json::Value, _> = serde_json::from_slice(&out.stdout);
        assert!(json.is_ok(), "{line}: {}", String::from_utf8_lossy(&out.stdout));
    }
}
