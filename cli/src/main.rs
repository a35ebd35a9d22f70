//! The command `softmax`: softmax over the rows of `.npy` and `.safetensors` files, of any size.
#![deny(unsafe_code)]

mod bench;
mod blocks;
mod decide;
mod dtype;
mod failure;
mod info;
mod input;
// Mapping a file cannot be safe; the module says why it is sound enough here.
mod loss;
mod machine;
#[allow(unsafe_code)]
mod map;
mod npy;
mod output;
mod report;
mod run;
mod safetensors_file;
mod stdout;
mod tensor;
mod topk;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

/// Softmax and its relatives over the rows of matrices in files: accurate, fast, the same bits on every CPU.
#[derive(Debug, Parser)]
#[command(version)]
enum Cli {
    Run(run::Run),
    Loss(loss::Loss),
    Argmax(decide::Argmax),
    #[command(name = "topk")]
    TopK(topk::TopK),
    Sample(decide::Sample),
    Info(info::Info),
    Bench(bench::Bench),
    Report(report::Report),
}

fn main() -> ExitCode {
    let done = match Cli::parse() {
        Cli::Run(run) => run.run(),
        Cli::Loss(loss) => loss.run(),
        Cli::Argmax(argmax) => argmax.run(),
        Cli::TopK(topk) => topk.run(),
        Cli::Sample(sample) => sample.run(),
        Cli::Info(info) => info.run(),
        Cli::Bench(bench) => bench.run(),
        Cli::Report(report) => report.run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // Nobody is left to tell if this fails.
            let _ = writeln!(std::io::stderr(), "softmax: {failure}");
            ExitCode::from(failure.code())
        }
    }
}
