//! Threads that are asked for, and threads that the system refuses.

use std::fs;

use crate::common::{Folder, npy, run_ok, softmax, values};
use bytemuck::cast_slice;

#[test]
fn there_are_no_more_than_some_for_each_cpu() {
    let folder = Folder::new();
    let x: Vec<f32> = values(300 * 1000);
    let input = folder.file("in.npy", &npy("<f4", &[300, 1000], cast_slice(&x)));
    let (one, out) = (folder.path("one.npy"), folder.path("out.npy"));
    run_ok(&input, &one, &["--threads", "1"]);
    let cpus = std::thread::available_parallelism().unwrap().get();
    let count = |line: &str| -> usize {
        let (before, _) = line.split_once(" thread").unwrap();
        before.rsplit(' ').next().unwrap().parse().unwrap()
    };
    for threads in ["40000", "18446744073709551615"] {
        let lines = run_ok(&input, &out, &["--threads", threads, "--force"]);
        assert_eq!(count(&lines[0]), 4 * cpus, "{lines:?}");
        assert!(fs::read(&out).unwrap() == fs::read(&one).unwrap());
    }
    let mut variable = softmax();
    variable.arg("run").args([&input, &out]).arg("--force").env("RAYON_NUM_THREADS", "40000");
    let done = variable.output().unwrap();
    assert_eq!(count(str::from_utf8(&done.stdout).unwrap()), 4 * cpus);
}

/// Where no further process or thread is allowed, one thread does all the work.
#[cfg(unix)]
#[test]
fn one_thread_is_enough() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    use std::process::Command;
    let folder = Folder::new();
    // Enough work to be shared, and to be converted.
    let x: Vec<f32> = values(3000 * 1000);
    folder.file("in.npy", &npy("<f4", &[3000, 1000], cast_slice(&x)));
    folder.file("labels.npy", &npy("<i8", &[3000], &[0; 24_000]));
    let program = folder.path("softmax");
    fs::copy(env!("CARGO_BIN_EXE_softmax"), &program).unwrap();
    fs::set_permissions(folder.path("."), PermissionsExt::from_mode(0o777)).unwrap();
    let alone = |arguments: &[&str]| {
        let mut command = Command::new("prlimit");
        command.args(["--nproc=1", "./softmax"]).args(arguments);
        if rustix::process::geteuid().is_root() {
            // Root is not bound by the limit.
            command.uid(61_234).gid(61_234);
        }
        command.current_dir(folder.path(".")).env_remove("SOFTMAX_KERNEL").output().unwrap()
    };
    for arguments in [
        &["run", "in.npy", "a.npy"][..],
        &["run", "in.npy", "b.npy", "--threads", "1"],
        &["run", "in.npy", "c.npy", "--threads", "8", "--dtype", "f64"],
        &["run", "in.npy", "d.npy", "--axis", "0"],
        &["loss", "in.npy", "labels.npy", "--gradient", "g.npy"],
        &["argmax", "in.npy", "columns.npy"],
        &["topk", "in.npy"],
        &["sample", "in.npy", "--seed", "1", "drawn.npy"],
        &["info"],
    ] {
        let out = alone(arguments);
        let stderr = String::from_utf8(out.stderr).unwrap();
        assert_eq!((out.status.code(), &*stderr), (Some(0), ""), "{arguments:?}");
        let stdout = String::from_utf8(out.stdout).unwrap();
        assert!(arguments[0] != "run" || stdout.contains(" 1 thread, "), "{stdout}");
    }
    // A comparison of numbers of threads needs threads.
    let out = alone(&["bench", "--quick", "--op", "softmax", "--max-size", "40K"]);
    let stderr = String::from_utf8(out.stderr).unwrap();
    assert_eq!(out.status.code(), Some(2), "{stderr}");
    assert!(stderr.starts_with("softmax: threads: ") && stderr.lines().count() == 1, "{stderr}");
}
