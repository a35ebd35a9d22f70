//! The command `softmax`: softmax over the rows of `.npy` and `.safetensors` files, of any size.
#![deny(unsafe_code)]

mod dtype;
mod failure;
mod info;
mod input;
// Mapping a file cannot be safe; the module says why it is sound enough here.
#[allow(unsafe_code)]
mod map;
mod npy;
mod output;
mod run;
mod safetensors_file;
mod tensor;

use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use clap::Parser;

use failure::Failure;

/// Softmax over the rows of matrices in files: accurate, fast, the same bits on every CPU.
#[derive(Debug, Parser)]
#[command(version)]
enum Cli {
    Run(run::Run),
    Info(info::Info),
}

fn main() -> ExitCode {
    let (lines, failure) = match Cli::parse() {
        Cli::Run(run) => match run.run() {
            Ok(lines) => (lines, None),
            Err(failure) => (Vec::new(), Some(failure)),
        },
        Cli::Info(info) => info.run(),
    };
    match print(&lines).err().or(failure) {
        None => ExitCode::SUCCESS,
        Some(failure) => {
            // Nobody is left to tell if this fails.
            let _ = writeln!(std::io::stderr(), "softmax: {failure}");
            // As clap does for usage errors.
            ExitCode::from(2)
        }
    }
}

/// Prints lines, as many as the reader wants: one that has gone is no error.
fn print(lines: &[String]) -> Result<(), Failure> {
    let mut text = lines.join("\n");
    if !text.is_empty() {
        text.push('\n');
    }
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(Failure::new("standard output", e)),
        _ => Ok(()),
    }
}
