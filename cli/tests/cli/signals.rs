//! Signals end the command at once, as they end any program, with nothing left behind.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::common::{Folder, npy, zeros};

/// A second is far more than needed, but tests run at the same time; no interrupted work here ends
/// within ten.
const AT_ONCE: Duration = Duration::from_secs(1);

/// Starts the command after some lines of a shell, with the signals of a program started by hand:
/// those of a test may be ignored.
fn start(folder: &Folder, shell: &str, arguments: &[&str]) -> Child {
    let shell = format!("ulimit -c 0; {shell} exec \"$@\"");
    Command::new("env")
        .args(["--default-signal", "sh", "-c", &shell, "sh", env!("CARGO_BIN_EXE_softmax")])
        .args(arguments)
        .current_dir(folder.path("."))
        .env_remove("SOFTMAX_KERNEL")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn send(child: &Child, signal: &str) {
    let kill = [&format!("-{signal}"), &child.id().to_string()].map(|s| s.to_owned());
    assert!(Command::new("kill").args(kill).status().unwrap().success());
}

/// Waits until the child has begun an output, named or not.
fn wait_for_output(child: &mut Child, folder: &Folder) {
    let folder = fs::canonicalize(folder.path(".")).unwrap();
    let started = Instant::now();
    loop {
        assert_eq!(child.try_wait().unwrap(), None, "it has ended");
        let files = fs::read_dir(format!("/proc/{}/fd", child.id())).unwrap();
        let mut links = files.filter_map(|file| fs::read_link(file.ok()?.path()).ok());
        let is_output = |link: &Path| {
            let name = link.file_name().unwrap_or_default().to_string_lossy().into_owned();
            link.starts_with(&folder) && (name.starts_with('#') || name.contains(".softmax-"))
        };
        if links.any(|link| is_output(&link)) {
            return;
        }
        assert!(started.elapsed().as_secs() < 60, "no output was begun");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The exit status of the child and its errors.
fn end(child: Child) -> (ExitStatus, String) {
    let out = child.wait_with_output().unwrap();
    (out.status, String::from_utf8(out.stderr).unwrap())
}

/// Numbers on Linux, on the architectures that this is tested on.
const SIGNALS: [(&str, i32); 8] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("KILL", 9),
    ("USR1", 10),
    ("ALRM", 14),
    ("TERM", 15),
    ("XCPU", 24),
];

#[test]
fn signals_end_the_program_at_once_and_leave_nothing() {
    let folder = Folder::new();
    zeros(&folder, "rows.npy", &[1 << 18, 1 << 10]);
    zeros(&folder, "row.npy", &[1 << 28]);
    zeros(&folder, "columns.npy", &[1 << 14, 1 << 14]);
    let labels = folder.file("labels.npy", &npy("<i1", &[1 << 18], &[0; 1 << 18]));
    let before = folder.names();
    let works: [&[&str]; 6] = [
        &["run", "rows.npy", "out.npy"],
        // Single calls of the library that take all the time.
        &["run", "row.npy", "out.npy"],
        &["run", "columns.npy", "out.npy", "--axis", "0"],
        &["loss", "rows.npy", labels.to_str().unwrap(), "--gradient", "out.npy"],
        &["topk", "rows.npy", "--indices", "out.npy"],
        &["argmax", "rows.npy", "out.npy"],
    ];
    for (i, (name, signal)) in SIGNALS.into_iter().enumerate() {
        // Every signal interrupts a long call, and one other kind of work.
        for work in [works[1], works[i % works.len()]] {
            let mut child = start(&folder, "", &[work, &["--kernel", "scalar"]].concat());
            wait_for_output(&mut child, &folder);
            std::thread::sleep(Duration::from_millis(300));
            let sent = Instant::now();
            send(&child, name);
            let (status, stderr) = end(child);
            assert!(sent.elapsed() < AT_ONCE, "{name} {work:?}: {:?}", sent.elapsed());
            assert_eq!(status.signal(), Some(signal), "{name} {work:?}: {stderr}");
            assert_eq!(stderr, "", "{name} {work:?}");
            assert_eq!(folder.names(), before, "{name} {work:?}");
        }
    }
}

/// Programs that `nohup` and shells keep alive stay alive.
#[test]
fn ignored_signals_stay_ignored() {
    let folder = Folder::new();
    zeros(&folder, "in.npy", &[1 << 13, 1 << 10]);
    let mut child = start(
        &folder,
        "trap '' HUP INT QUIT TERM USR1;",
        &["run", "in.npy", "out.npy", "--kernel", "scalar"],
    );
    wait_for_output(&mut child, &folder);
    for signal in ["HUP", "INT", "QUIT", "TERM", "USR1"] {
        send(&child, signal);
    }
    let (status, stderr) = end(child);
    assert!(status.success(), "{status}: {stderr}");
    assert_eq!(folder.names(), ["in.npy", "out.npy"]);
    // The same with the thread that waits for signals.
    let (status, _) = interrupted(&folder, "trap '' HUP INT;", |child| {
        send(child, "HUP");
        send(child, "INT");
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(child.try_wait().unwrap(), None, "it was to go on");
        send(child, "TERM");
    });
    assert_eq!(status.signal(), Some(15));
}

/// The exit status and errors of `softmax bench` when a signal comes after its first results; if it
/// came too early, it is sent again.
fn interrupted(folder: &Folder, shell: &str, signal: impl Fn(&mut Child)) -> (ExitStatus, String) {
    let quick = ["bench", "--quick", "--op", "softmax", "--dtype", "f32", "--threads", "1"];
    // Far more rounds than the test waits for, of few small cases.
    let more = ["--max-size", "40K", "--rounds", "1000", "--kernel", "portable", "-o", "b.json"];
    for seconds in [1, 2, 4, 8, 16] {
        let mut child = start(folder, shell, &[&quick[..], &more].concat());
        std::thread::sleep(Duration::from_secs(seconds));
        signal(&mut child);
        let sent = Instant::now();
        let (status, stderr) = end(child);
        if stderr.contains("interrupted") {
            assert!(sent.elapsed() < 5 * AT_ONCE);
            return (status, stderr);
        }
        assert_eq!(stderr, "", "{status}");
    }
    panic!("no results after 16 seconds");
}

/// Without /proc, which names an unnamed file, a hidden name is used.
#[test]
fn hidden_files_tell_whose_they_are_and_are_removed() {
    let apart = |then: &str| ["unshare", "-rm", "sh", "-c", then].map(str::to_owned);
    let hide = "mount -t tmpfs none /proc";
    let [unshare, rest @ ..] = apart(hide);
    if !Command::new(unshare).args(rest).output().is_ok_and(|out| out.status.success()) {
        println!("not tested: this user may not hide /proc");
        return;
    }
    let folder = Folder::new();
    zeros(&folder, "in.npy", &[1 << 18, 1 << 10]);
    let long = format!("{}.npy", "n".repeat(250 - 4));
    for out in ["probs.npy", &long] {
        for (name, signal) in SIGNALS {
            let shell = format!("exec unshare -rm sh -c '{hide} && exec \"$@\"' sh");
            let shell = format!("{shell} \"$@\";");
            let mut child = start(&folder, &shell, &["run", "in.npy", out, "--kernel", "scalar"]);
            let hidden =
                || -> Vec<_> { folder.names().into_iter().filter(|n| n != "in.npy").collect() };
            let started = Instant::now();
            while hidden().is_empty() {
                assert_eq!(child.try_wait().unwrap(), None, "it has ended");
                assert!(started.elapsed().as_secs() < 60, "no output was begun");
            }
            let hidden = hidden();
            let prefix = format!(".{}", &out[..out.len().min(200)]);
            let is_right = |name: &str| name.starts_with(&prefix) && name.contains(".softmax-");
            assert!(hidden.len() == 1 && is_right(&hidden[0]), "{hidden:?}");
            let sent = Instant::now();
            send(&child, name);
            let (status, stderr) = end(child);
            assert!(sent.elapsed() < AT_ONCE, "{name}: {:?}", sent.elapsed());
            assert_eq!(status.signal(), Some(signal), "{name}: {stderr}");
            // After SIGKILL nothing can be cleaned up.
            let left = if name == "KILL" { 1 } else { 0 };
            assert_eq!(folder.names().len(), 1 + left, "{name}");
            hidden.iter().take(left).for_each(|name| fs::remove_file(folder.path(name)).unwrap());
        }
    }
    // The file gets its name at the end, also over an existing one.
    zeros(&folder, "small.npy", &[100, 10]);
    for force in ["", "--force"] {
        let script = format!("{hide} && exec \"$0\" run small.npy out.npy {force}");
        let [unshare, rest @ ..] = apart(&script);
        let mut command = Command::new(unshare);
        command.args(rest).arg(env!("CARGO_BIN_EXE_softmax")).current_dir(folder.path("."));
        let out = command.output().unwrap();
        assert!(out.status.success(), "{out:?}");
        assert_eq!(folder.names(), ["in.npy", "out.npy", "small.npy"]);
    }
}

#[test]
fn an_input_cut_short_is_an_error_that_names_it() {
    let folder = Folder::new();
    for (shape, more) in [
        (&[1 << 18, 1 << 10][..], &["run", "in.npy", "out.npy"][..]),
        (&[1 << 18, 1 << 10], &["run", "in.npy", "out.npy", "--dtype", "f16"]),
        (&[1 << 18, 1 << 10], &["argmax", "in.npy", "out.npy"]),
    ] {
        let input = zeros(&folder, "in.npy", shape);
        let mut child = start(&folder, "", &[more, &["--kernel", "scalar"]].concat());
        wait_for_output(&mut child, &folder);
        fs::File::options().write(true).open(&input).unwrap().set_len(1 << 20).unwrap();
        let (status, stderr) = end(child);
        assert_eq!(status.code(), Some(2), "{more:?}: {stderr}");
        assert!(stderr.starts_with("softmax: in.npy: cut short while it was read"), "{stderr}");
        assert!(stderr.ends_with(" to 1048576\n") && stderr.lines().count() == 1, "{stderr}");
        assert_eq!(folder.names(), ["in.npy"]);
    }
}

/// Results from before Ctrl-C are reported; then it ends the program, so that a shell's loop ends,
/// too.
#[test]
fn an_interrupted_bench_is_reported() {
    let folder = Folder::new();
    let (status, stderr) = interrupted(&folder, "", |child| send(child, "INT"));
    assert_eq!(status.signal(), Some(2), "{stderr}");
    let report = softmax_report::read(&fs::read(folder.path("b.json")).unwrap(), "b").unwrap();
    assert!(!report.complete);
    assert!(!report.cases.is_empty());
    // Before the first results it ends at once.
    let child = start(&folder, "", &["bench", "--max-size", "1G", "-o", "all.json"]);
    std::thread::sleep(Duration::from_millis(500));
    let sent = Instant::now();
    send(&child, "INT");
    let (status, stderr) = end(child);
    assert!(sent.elapsed() < AT_ONCE);
    assert_eq!((status.signal(), &*stderr), (Some(2), ""));
    assert_eq!(folder.names(), ["b.json"]);
}

/// Ctrl-C during one of many files ends the loop over them.
#[test]
fn a_loop_of_a_shell_ends() {
    let folder = Folder::new();
    zeros(&folder, "in.npy", &[1 << 18, 1 << 10]);
    // bash looks at how its child ended; other shells get the signal themselves, as a terminal
    // sends it to all.
    let script = "for i in 1 2 3; do \"$0\" run in.npy $i.npy --kernel scalar & child=$!; echo $child; \
                  wait $child; [ $? -gt 128 ] && break; done; echo over";
    let mut shell = Command::new("env");
    shell.args(["--default-signal", "sh", "-c", script, env!("CARGO_BIN_EXE_softmax")]);
    let shell = shell.current_dir(folder.path(".")).stdout(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(500));
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", shell.id())).unwrap();
    let child = children.trim();
    assert!(Command::new("kill").args(["-TERM", child]).status().unwrap().success());
    let out = shell.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(out.stdout).unwrap(), format!("{child}\nover\n"));
    assert_eq!(folder.names(), ["in.npy"]);
}
