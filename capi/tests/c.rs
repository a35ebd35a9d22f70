//! The C ABI as C sees it: each file of tests/c is compiled by the system's compilers, linked to
//! the static library, and run.
#![cfg(unix)]

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;
use std::{env, fs};

const C: [&str; 2] = ["-std=c99", "-pedantic"];

/// The setting for fewer and smaller cases.
const QUICK: (&str, &str) = ("SOFTMAX_TEST_QUICK", "1");

/// The libraries that `rustc --print native-static-libs` lists.
const LINKED: [&str; 7] = ["-lgcc_s", "-lutil", "-lrt", "-lpthread", "-lm", "-ldl", "-lc"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(of: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(of).expect("a directory").map(|entry| entry.expect("a file").path());
    entries.filter(|path| path.extension() == Some(OsStr::new(extension))).collect()
}

/// The static library beside this test. Cargo compiles the library before its integration tests,
/// and one run of rustc makes all its kinds, under names without a hash.
fn library() -> PathBuf {
    let exe = env::current_exe().expect("the path of the test");
    let library = exe.with_file_name("libsoftmax_capi.a");
    let changed = |path: &Path| -> SystemTime {
        let metadata = fs::metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        metadata.modified().expect("a time")
    };
    let made = changed(&library);
    for source in files(&root().join("src"), "rs") {
        assert!(
            changed(&source) <= made,
            "{} is older than {}",
            library.display(),
            source.display()
        );
    }
    library
}

/// Runs a command, and fails with its output.
fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
}

/// Compiles a file of tests/c and runs it with these variables of the environment.
fn check(name: &str, compiler: &str, language: &[&str], settings: &[(&str, &str)]) -> PathBuf {
    let source = root().join("tests/c").join(name).with_extension("c");
    let program = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{compiler}"));
    let include = root().join("include");
    // With optimisation, because compilers find more warnings then.
    run(Command::new(compiler)
        .args(language)
        .args(["-Wall", "-Wextra", "-Werror", "-O1", "-g", "-I"])
        .args([&include, &source])
        // The arguments that follow are not sources in the language of -x.
        .args(["-x", "none", "-o"])
        .args([&program, &library()])
        .args(LINKED));
    run(Command::new(&program).envs(settings.iter().copied()));
    program
}

/// Programs that valgrind cannot run. Its CPU has one floating-point environment; it treats memory
/// below the end of the stack as lost, and so that of threads that do not exist in a forked
/// process.
const NOT_IN_VALGRIND: [&str; 3] = ["floating_point", "stacks", "processes"];

/// Runs a program in valgrind, if wanted, which finds uses of memory that is not valid.
fn check_memory(name: &str, program: &Path) {
    if env::var_os("SOFTMAX_VALGRIND").is_none() || NOT_IN_VALGRIND.contains(&name) {
        return;
    }
    let suppressions = root().join("tests/c/valgrind.supp");
    // Threads of the pool keep running, with their memory. The CPU that valgrind shows has no
    // AVX-512: kernels up to AVX2 run.
    run(Command::new("valgrind")
        .args(["-q", "--error-exitcode=1", "--leak-check=full"])
        .args(["--show-leak-kinds=definite", "--errors-for-leak-kinds=definite"])
        .arg(format!("--suppressions={}", suppressions.display()))
        .arg(program)
        .envs([QUICK])
        .env_remove("SOFTMAX_KERNEL"));
}

macro_rules! c_tests {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                check_memory(stringify!($name), &check(stringify!($name), "gcc", &C, &[]));
                // The library is the same: few cases tell whether clang's calls fit it.
                check(stringify!($name), "clang", &C, &[QUICK]);
            }
        )*

        const NAMES: &[&str] = &[$(stringify!($name)),*];
    };
}

c_tests! { along attention decide entropy environment floating_point header kl loss online options per_row processes ragged router rows sample shards speculative stacks tensors threads }

#[test]
fn header_is_cpp() {
    check("header", "g++", &["-std=c++17", "-x", "c++"], &[]);
}

#[test]
fn every_file_is_run() {
    for path in files(&root().join("tests/c"), "c") {
        let name = path.file_stem().expect("a name").to_string_lossy();
        assert!(NAMES.contains(&&*name), "no test runs {}", path.display());
    }
}

/// The names of all functions that the header declares.
fn functions(header: &str) -> Vec<String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    // The helpers after them are in C.
    let (declared, _) = header.split_once("static inline").expect("helpers");
    let code = declared.lines().filter(|line| !line.trim_start().starts_with("//"));
    let code = code.filter(|line| !line.starts_with(" *") && !line.starts_with("/*"));
    let mut names = Vec::new();
    for line in code {
        for (at, _) in line.match_indices('(') {
            let name = line[..at].rsplit(|c| !is_name(c)).next().unwrap_or_default();
            if name.starts_with("softmax_") {
                names.push(name.to_owned());
            }
        }
    }
    names
}

#[test]
fn every_function_is_called_well_and_badly() {
    let read = |path: &Path| fs::read_to_string(path).expect("text");
    let functions = functions(&read(&root().join("include/softmax.h")));
    // Independent of the header's layout: all functions are found.
    let exported = files(&root().join("src"), "rs")
        .iter()
        .map(|path| read(path).matches("no_mangle").count())
        .sum::<usize>();
    assert_eq!(functions.len(), exported, "{functions:?}");
    let mut code = String::new();
    for path in files(&root().join("tests/c"), "c") {
        code.extend(read(&path).chars().filter(|c| !c.is_whitespace()));
    }
    let calls = read(&root().join("tests/c/calls.h"));
    for name in functions {
        let call = format!("{name}(");
        let in_all = calls.contains(&format!("CALL({call}"));
        // Functions that cannot fail, and compute nothing.
        let fails = !["softmax_version", "softmax_status_message", "softmax_release_scratch"]
            .contains(&&*name);
        assert!(in_all || !fails, "{name} is none of the calls of calls.h");
        if !fails {
            assert!(code.contains(&call), "no test in C calls {name}");
            continue;
        }
        assert!(code.contains(&format!("GOOD({call}")), "no good call of {name} in C");
        let bad = code.split("BAD(").skip(1).filter_map(|rest| rest.split_once(','));
        let bad = bad.into_iter().any(|(_, rest)| rest.starts_with(&call));
        assert!(bad, "no bad call of {name} in C");
    }
}
