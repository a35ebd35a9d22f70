//! The commands of docs/cli.md, run one after another, print the output shown there.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::common::{Folder, safetensors, values};
use bytemuck::cast_slice;
use half::bf16;
use safetensors::Dtype;

/// A line without the parts that differ between machines: kernel, threads and times.
fn same_everywhere(line: &str) -> &str {
    line.split_once(", kernel ").map_or(line, |(before, _)| before)
}

#[test]
fn commands_of_the_documentation_print_what_it_shows() {
    let folder = Folder::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    fs::create_dir(folder.path("data")).unwrap();
    for name in ["digits_logits.npy", "digits_labels.npy"] {
        let name = format!("data/{name}");
        fs::copy(root.join(&name), folder.path(&name)).unwrap();
    }
    let (head, tail): (Vec<f32>, Vec<bf16>) = (values(6), values(4));
    let model = safetensors(&[
        ("head", Dtype::F32, &[2, 3], cast_slice(&head)),
        ("tail", Dtype::BF16, &[4], cast_slice(&tail)),
        ("ids", Dtype::I64, &[3], cast_slice(&[1i64, 2, 3])),
    ]);
    folder.file("model.safetensors", &model);

    let program = Path::new(env!("CARGO_BIN_EXE_softmax")).parent().unwrap().to_owned();
    let variable = std::env::var_os("PATH").unwrap();
    let path = [program].into_iter().chain(std::env::split_paths(&variable));
    let path = std::env::join_paths(path).unwrap();
    let run = |line: &str| {
        let mut shell = Command::new("sh");
        // Errors are shown in order with the output.
        shell.arg("-c").arg(format!("exec 2>&1; {line}")).current_dir(folder.path("."));
        shell.env("PATH", &path).env_remove("SOFTMAX_KERNEL").env_remove("RAYON_NUM_THREADS");
        String::from_utf8(shell.output().unwrap().stdout).unwrap()
    };
    let file = root.join("docs/cli.md");
    let text = fs::read_to_string(&file).unwrap();
    let (mut now, mut in_block, mut commands) = (String::new(), false, 0);
    for line in text.lines() {
        let is_fence = line.starts_with("```");
        // Old output is left out, and replaced by the new one.
        if is_fence || !in_block || line.starts_with("$ ") {
            now += &format!("{line}\n");
        }
        if is_fence {
            in_block = line == "```console";
        }
        if let Some(command) = line.strip_prefix("$ ").filter(|_| in_block) {
            now += &run(command);
            commands += 1;
        }
    }
    assert!(commands > 20, "{commands} commands were found");
    let same = |text: &str| text.lines().map(|l| same_everywhere(l).to_owned()).collect::<Vec<_>>();
    if std::env::var_os("SOFTMAX_WRITE_CLI").is_some() && same(&text) != same(&now) {
        fs::write(&file, &now).unwrap();
        return;
    }
    for (shown, printed) in same(&text).iter().zip(&same(&now)) {
        assert_eq!(
            shown, printed,
            "docs/cli.md is out of date: SOFTMAX_WRITE_CLI=1 cargo test -p softmax-cli --test cli \
             documentation"
        );
    }
    assert_eq!(same(&text).len(), same(&now).len());
}
