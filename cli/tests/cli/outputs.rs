//! Outputs: files that cannot be written are refused before the work, and replaced files keep their
//! access rights.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::common::{
    Folder, arguments, call, call_ok, call_refused, npy, run_ok, safetensors, zeros,
};
use safetensors::Dtype;

/// Shapes without elements whose sizes multiply to more than the address space: NumPy would not
/// read such files.
#[test]
fn shapes_beyond_the_address_space_are_refused() {
    let folder = Folder::new();
    let labels = folder.file("labels.npy", &npy("<i8", &[0], &[]));
    let check = |input: &Path, out: &Path, more: &[&str]| {
        let about = (input.to_str().unwrap(), "overflows the address space");
        let file: [&dyn AsRef<OsStr>; 1] = [&input];
        let refused = |command: &str, arguments: &[&dyn AsRef<OsStr>]| {
            call_refused(&folder, command, arguments, about);
        };
        refused("run", &arguments(&[input, out], more));
        refused("argmax", &file);
        refused("topk", &[&input, &"-k", &"1", &"--json"]);
        refused("sample", &[&input, &"--seed", &"1"]);
        refused("loss", &[&input, &labels]);
        refused("loss", &[&input, &labels, &"--gradient", &out]);
    };
    let out = folder.path("out.npy");
    for (descr, bits) in [("<f4", 62), ("<f8", 61), ("<f2", 63), ("<f4", 61), ("<f2", 62)] {
        let input = folder.file("in.npy", &npy(descr, &[0, 1 << bits], &[]));
        check(&input, &out, &[]);
        let input = folder.file("in.npy", &npy(descr, &[1 << bits, 0], &[]));
        check(&input, &out, &[]);
    }
    let out = folder.path("out.safetensors");
    for (dtype, bits) in [(Dtype::F32, 58), (Dtype::F64, 57), (Dtype::BF16, 59)] {
        // The largest shape that the crate safetensors takes; with another axis it is too large.
        let tensors = safetensors(&[("x", dtype, &[0, 1 << bits, 8], &[])]);
        check(&folder.file("in.safetensors", &tensors), &out, &[]);
    }
    // Shapes that fit in one type but not in another.
    let input = folder.file("in.npy", &npy("<f2", &[0, 1 << 61], &[]));
    let out = folder.path("out.npy");
    let about = (out.to_str().unwrap(), "overflows the address space");
    call_refused(&folder, "run", &[&input, &out, &"--dtype", &"f64"], about);
    run_ok(&input, &out, &[]);
    assert_eq!(fs::read(&out).unwrap(), fs::read(&input).unwrap());
    // Labels, and results of another type than the logits.
    let input = folder.file("in.npy", &npy("<f2", &[1 << 60, 0, 1], &[]));
    let out = folder.path("columns.npy");
    let about = (out.to_str().unwrap(), "overflows the address space");
    call_refused(&folder, "argmax", &[&input, &out], about);
    let labels = folder.file("labels.npy", &npy("<i8", &[0, 1 << 61], &[]));
    let about = (labels.to_str().unwrap(), "overflows the address space");
    call_refused(&folder, "loss", &[&input, &labels], about);
    // Missing rows take no memory.
    let input = folder.file("in.npy", &npy("<f4", &[0, 1 << 60], &[]));
    let labels = folder.file("labels.npy", &npy("<i8", &[0], &[]));
    call_ok("loss", &[&input, &labels, &"--gradient", &folder.path("g.npy")]);
    call_ok("topk", &[&input, &"--json"]);
}

#[test]
fn what_cannot_be_written_is_refused_before_the_work() {
    let folder = Folder::new();
    let input = zeros(&folder, "large.npy", &[1 << 18, 1 << 10]);
    let labels = folder.file("labels.npy", &npy("<i1", &[1 << 18], &[0; 1 << 18]));
    let nowhere = folder.path("no/such/folder.npy");
    let long = folder.path(&format!("{}.npy", "n".repeat(252)));
    let slash = folder.path("out.npy/");
    let dot = folder.path("out.npy/.");
    fs::create_dir(folder.path("folder.npy")).unwrap();
    let directory = folder.path("folder.npy");
    let cases: [(&Path, &str); 5] = [
        (&nowhere, "cannot be created"),
        (&long, "name too long"),
        (&slash, "not the name of a file"),
        (&dot, "not the name of a file"),
        (&directory, "not a regular file"),
    ];
    let started = Instant::now();
    for (out, cause) in cases {
        let about = (out.to_str().unwrap(), cause);
        let refused = |command: &str, arguments: &[&dyn AsRef<OsStr>]| {
            let scalar: [&dyn AsRef<OsStr>; 3] = [&"--force", &"--kernel", &"scalar"];
            call_refused(&folder, command, &[arguments, &scalar].concat(), about);
        };
        refused("run", &[&input, &out]);
        refused("argmax", &[&input, &out]);
        refused("sample", &[&input, &out, &"--seed", &"1"]);
        refused("loss", &[&input, &labels, &"--gradient", &out]);
        refused("loss", &[&input, &labels, &"--losses", &out]);
        refused("topk", &[&input, &"--indices", &out]);
        refused("topk", &[&input, &"--log-probs", &out]);
        refused("bench", &[&"-o", &out]);
    }
    // Each run would take longer if it began.
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
}

#[test]
fn the_same_file_is_not_written_twice() {
    let folder = Folder::new();
    let input = folder.file("in.npy", &npy("<f4", &[2, 3], &[0; 24]));
    let labels = folder.file("labels.npy", &npy("<i8", &[2], &[0; 16]));
    let there = folder.file("there.npy", b"precious");
    fs::create_dir(folder.path("sub")).unwrap();
    let mut names = vec![
        [there.clone(), there.clone()],
        [folder.path("a.npy"), folder.path("a.npy")],
        [folder.path("a.npy"), folder.path("./a.npy")],
        [folder.path("sub/../a.npy"), folder.path("a.npy")],
        [there.clone(), folder.path("sub/.././there.npy")],
    ];
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(".", folder.path("link")).unwrap();
        std::os::unix::fs::symlink("there.npy", folder.path("alias.npy")).unwrap();
        names.push([folder.path("link/a.npy"), folder.path("a.npy")]);
        names.push([folder.path("link/there.npy"), folder.path("alias.npy")]);
    }
    for [a, b] in &names {
        let about = (b.to_str().unwrap(), "the same file as");
        let [losses, probs]: [[&dyn AsRef<OsStr>; 7]; 2] = [
            [&input, &labels, &"--force", &"--gradient", a, &"--losses", b],
            [&input, &"-k", &"1", &"--indices", a, &"--log-probs", b],
        ];
        call_refused(&folder, "loss", &losses, about);
        call_refused(&folder, "topk", &[&probs[..], &[&"--force"]].concat(), about);
    }
    assert_eq!(fs::read(&there).unwrap(), b"precious");
    // Different files are allowed.
    let (a, b) = (folder.path("a.npy"), folder.path("sub/a.npy"));
    call_ok("loss", &[&input, &labels, &"--gradient", &a, &"--losses", &b]);
    assert!(a.exists() && b.exists());
}

/// As with `cp`: names stay, and the folder must exist.
#[test]
fn several_files_go_into_a_folder() {
    let folder = Folder::new();
    let x = [1.0f32, 1.0];
    let file = npy("<f4", &[1, 2], bytemuck::cast_slice(&x));
    let want = npy("<f4", &[1, 2], bytemuck::cast_slice(&[0.5f32; 2]));
    let (a, b) = (folder.file("a.npy", &file), folder.file("b.npy", &file));
    let text = folder.file("c.csv", b"1,1\n");
    let out = folder.path("out");
    fs::create_dir(&out).unwrap();
    let lines = call_ok("run", &[&a, &b, &text, &out]);
    assert_eq!(lines.lines().count(), 3, "{lines}");
    for name in ["a.npy", "b.npy"] {
        assert_eq!(fs::read(out.join(name)).unwrap(), want, "{name}");
        assert!(lines.contains(&format!("{}: 1 x 2 f32", out.join(name).display())), "{lines}");
    }
    assert_eq!(fs::read(out.join("c.csv")).unwrap(), b"0.5,0.5\n");
    // A single file, too; quietly, or as JSON.
    assert_eq!(call_ok("run", &[&a, &out, &"--quiet", &"--force"]), "");
    let json = call_ok("run", &[&a, &b, &out, &"--json", &"--force"]);
    let outputs: Vec<serde_json::Value> =
        json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(outputs[1]["output"], out.join("b.npy").to_str().unwrap());
    // Impossible outputs are found before anything is written.
    let sub = folder.path("sub");
    fs::create_dir(&sub).unwrap();
    fs::write(sub.join("a.npy"), &file).unwrap();
    let other = folder.path("other");
    fs::create_dir(&other).unwrap();
    let refused = |arguments: &[&dyn AsRef<OsStr>], subject: &Path, cause| {
        call_refused(&folder, "run", arguments, (subject.to_str().unwrap(), cause));
        assert_eq!(fs::read_dir(&other).unwrap().count(), 0);
    };
    let clash = other.join("a.npy");
    refused(&[&a, &sub.join("a.npy"), &other], &clash, "the same file as");
    let there = sub.join("a.npy");
    refused(&[&b, &a, &sub], &there, "exists already; --force replaces it");
    assert!(!sub.join("b.npy").exists());
    let nowhere = folder.path("nowhere");
    refused(&[&a, &b, &nowhere], &nowhere, "no folder, which the results of several files need");
    refused(&[&a, &b, &text], &text, "no folder");
    refused(&[&a, &"-", &other], &other, "standard input has no name");
    let out = call("run", &[&a, &other, &"--quiet", &"--json"]);
    assert_eq!(out.status.code(), Some(2));
}

#[cfg(unix)]
mod unix {
    use std::io::ErrorKind;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
    use std::os::unix::process::CommandExt;
    use std::path::PathBuf;
    use std::process::{Command, Output};

    use super::*;

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn what_is_replaced_keeps_its_permissions() {
        let folder = Folder::new();
        let input = folder.file("in.npy", &npy("<f4", &[1], &[0; 4]));
        for wanted in [0o600, 0o640, 0o644, 0o604, 0o660, 0o666, 0o777] {
            let out = folder.file("out.npy", b"old");
            set_mode(&out, wanted);
            run_ok(&input, &out, &["--force"]);
            assert_eq!(mode(&out), wanted, "{wanted:o}");
            assert_ne!(fs::read(&out).unwrap(), b"old");
            fs::remove_file(&out).unwrap();
        }
        // Other kinds of rights are not passed on.
        let out = folder.file("out.npy", b"old");
        set_mode(&out, 0o4755);
        run_ok(&input, &out, &["--force"]);
        assert_eq!(mode(&out), 0o755);
        // Files without write permission are refused, also for root.
        for wanted in [0o444, 0o400, 0o555] {
            let out = folder.file(&format!("{wanted:o}.npy"), b"old");
            set_mode(&out, wanted);
            let about = (out.to_str().unwrap(), "read-only");
            call_refused(&folder, "run", &[&input, &out, &"--force"], about);
            assert_eq!((fs::read(&out).unwrap(), mode(&out)), (b"old".to_vec(), wanted));
        }
    }

    /// Whether this is root, which can act as any user.
    fn is_root() -> bool {
        rustix::process::geteuid().is_root()
    }

    const NOBODY: u32 = 65_534;

    /// Runs `softmax run` in the folder as user and group `NOBODY`, from a copy that this user can
    /// reach.
    fn run_as_nobody(folder: &Folder, options: &[&str]) -> Output {
        let copy = folder.path("softmax");
        if !copy.exists() {
            fs::copy(env!("CARGO_BIN_EXE_softmax"), &copy).unwrap();
        }
        set_mode(&folder.path("."), 0o777);
        let mut command = Command::new(copy);
        command.args(["run", "in.npy", "out.npy"]).args(options).current_dir(folder.path("."));
        command.env_clear().uid(NOBODY).gid(NOBODY).output().unwrap()
    }

    #[test]
    fn what_is_replaced_keeps_its_owner_or_gives_nobody_more() {
        if !is_root() {
            println!("not tested: only root can be two users");
            return;
        }
        let folder = Folder::new();
        let input = folder.file("in.npy", &npy("<f4", &[1], &[0; 4]));
        let file = |mode, owner, group| {
            let out = folder.file("out.npy", b"old");
            chown(&out, Some(owner), Some(group)).unwrap();
            set_mode(&out, mode);
            out
        };
        let of = |path: &PathBuf| {
            let data = fs::metadata(path).unwrap();
            (data.mode() & 0o777, data.uid(), data.gid())
        };
        // Root restores the owner.
        let out = file(0o640, NOBODY, NOBODY);
        run_ok(&input, &out, &["--force"]);
        assert_eq!(of(&out), (0o640, NOBODY, NOBODY));
        // Others cannot, and neither the group's rights nor the others' become somebody else's.
        let cases = [
            ((0o666, 0, 0), 0o666),
            ((0o646, 0, 0), 0o644),
            ((0o626, 0, 0), 0o622),
            ((0o606, 0, 0), 0o600),
            ((0o664, 0, NOBODY), 0o664),
            ((0o640, NOBODY, NOBODY), 0o640),
        ];
        for ((mode, owner, group), wanted) in cases {
            let out = file(mode, owner, group);
            let done = run_as_nobody(&folder, &["--force"]);
            assert!(done.status.success(), "{done:?}");
            assert_eq!(of(&out), (wanted, NOBODY, NOBODY), "{mode:o}");
            assert_ne!(fs::read(&out).unwrap(), b"old");
            fs::remove_file(out).unwrap();
        }
        // A file that this user may not write.
        let out = file(0o644, 0, 0);
        let done = run_as_nobody(&folder, &["--force"]);
        let stderr = String::from_utf8(done.stderr).unwrap();
        assert_eq!(done.status.code(), Some(2), "{stderr}");
        assert!(stderr.starts_with("softmax: out.npy: read-only"), "{stderr}");
        // A file that it may write but not replace.
        set_mode(&out, 0o666);
        run_as_nobody(&folder, &["--force", "--show", "0"]);
        chown(&out, Some(0), Some(0)).unwrap();
        let sticky = folder.path("sticky");
        fs::create_dir(&sticky).unwrap();
        set_mode(&sticky, 0o1777);
        fs::rename(&out, sticky.join("out.npy")).unwrap();
        std::os::unix::fs::symlink("sticky/out.npy", &out).unwrap();
        let done = run_as_nobody(&folder, &["--force"]);
        let stderr = String::from_utf8(done.stderr).unwrap();
        assert_eq!(done.status.code(), Some(2), "{stderr}");
        assert!(stderr.starts_with("softmax: out.npy: another user's file"), "{stderr}");
        assert_eq!(fs::read_dir(&sticky).unwrap().count(), 1);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_is_replaced_keeps_its_access_control_list() {
        use rustix::fs::{XattrFlags, getxattr, setxattr};
        const LIST: &str = "system.posix_acl_access";
        let folder = Folder::new();
        let input = folder.file("in.npy", &npy("<f4", &[1], &[0; 4]));
        let out = folder.file("out.npy", b"old");
        // The owner, user 12345, the group, the mask, others: besides the owner only that user may
        // read.
        let entries: [(u16, u16, u32); 5] = [
            (1, 6, u32::MAX),
            (2, 4, 12345),
            (4, 0, u32::MAX),
            (16, 4, u32::MAX),
            (32, 0, u32::MAX),
        ];
        let mut list = 2u32.to_le_bytes().to_vec();
        for (tag, rights, id) in entries {
            list.extend(
                [&tag.to_le_bytes()[..], &rights.to_le_bytes(), &id.to_le_bytes()].concat(),
            );
        }
        if let Err(e) = setxattr(&out, LIST, &list, XattrFlags::empty()) {
            println!("not tested: this file system has no access control lists: {e}");
            return;
        }
        run_ok(&input, &out, &["--force"]);
        let mut now = [0; 256];
        let n = getxattr(&out, LIST, &mut now[..]).unwrap();
        assert_eq!(now[..n], list);
        assert_ne!(fs::read(&out).unwrap(), b"old");
    }

    /// A problem that only shows when the new file is renamed.
    #[cfg(target_os = "linux")]
    #[test]
    fn what_refuses_a_successor_is_found_before_the_work() {
        let folder = Folder::new();
        let input = folder.file("in.npy", &npy("<f4", &[1], &[0; 4]));
        let attribute = |path: &Path, attribute: &str| {
            Command::new("chattr")
                .arg(attribute)
                .arg(path)
                .output()
                .is_ok_and(|o| o.status.success())
        };
        for (set, clear) in [("+i", "-i"), ("+a", "-a")] {
            for in_folder in [false, true] {
                let sub = folder.path(&format!("sub{set}{in_folder}"));
                fs::create_dir(&sub).unwrap();
                let out = sub.join("out.npy");
                fs::write(&out, "old").unwrap();
                let target = if in_folder { &sub } else { &out };
                if !attribute(target, set) {
                    println!("not tested: this user may not chattr {set}");
                    continue;
                }
                let missing = folder.path("missing.npy");
                // The output is checked first, or the folder once the input is known.
                let from = if set == "+i" && in_folder { &input } else { &missing };
                let done = call("run", &[from, &out, &"--force"]);
                assert!(attribute(target, clear));
                let stderr = String::from_utf8(done.stderr).unwrap();
                assert_eq!(done.status.code(), Some(2), "{set} {in_folder}: {stderr}");
                assert!(stderr.starts_with(&format!("softmax: {}: ", out.display())), "{stderr}");
                assert_eq!(fs::read(&out).unwrap(), b"old");
            }
        }
    }

    /// A name may become taken during the work.
    #[test]
    fn names_are_not_taken_from_others() {
        let folder = Folder::new();
        let input = zeros(&folder, "large.npy", &[1 << 16, 1 << 10]);
        let out = folder.path("out.npy");
        let mut child = crate::common::softmax();
        child.arg("run").args([&input, &out]).args(["--kernel", "scalar"]);
        let child = child.stderr(std::process::Stdio::piped()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(100));
        match fs::File::create_new(&out) {
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::AlreadyExists => panic!("it is done already"),
            Err(e) => panic!("{e}"),
        }
        let done = child.wait_with_output().unwrap();
        let stderr = String::from_utf8(done.stderr).unwrap();
        assert_eq!(done.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains("out.npy: exists by now"), "{stderr}");
        assert_eq!(fs::metadata(&out).unwrap().len(), 0);
        assert_eq!(folder.names(), ["large.npy", "out.npy"]);
    }
}
