//! The command `softmax`: softmax over the rows of `.npy`, `.npz`, `.safetensors` and text files.
#![forbid(unsafe_code)]

mod bench;
mod chunks;
mod completions;
mod decide;
mod dtype;
mod failure;
mod info;
mod input;
mod loss;
mod machine;
#[cfg(test)]
mod man;
mod memory;
mod npy;
mod npz;
mod order;
mod output;
mod report;
mod run;
mod safetensors_file;
mod signals;
mod stdout;
mod stored;
mod tensor;
mod text;
mod threads;
mod topk;
mod writer;

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;

use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, FromArgMatches, Parser};

use crate::failure::Failure;
use crate::input::Format;

/// Softmax and its relatives over the rows of matrices in files: accurate, fast, the same bits on
/// every CPU.
#[derive(Debug, Parser)]
#[command(name = "softmax", version)]
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
    Completions(completions::Completions),
}

/// The end of every help text.
const STATUS: &str = "\
Exit status:
  0  all was done
  1  bench: an answer is wrong; report --fail-below: a case is slower
  2  an error, told by one line, or wrong usage; no output is left half-written

Signals end the program as they end any other, and leave no half-written output.";

/// The most columns of a line of help.
const WIDTH: usize = 100;

/// Runs the command with its name and arguments, and gives its exit status. Wrong usage, and what
/// only prints help, end the process.
pub fn run(args: impl IntoIterator<Item = OsString>) -> u8 {
    let args: Vec<_> = args.into_iter().collect();
    let done = parse(&args).unwrap_or_else(|e| e.exit()).run();
    match done {
        Ok(()) => 0,
        Err(failure) => {
            // A failure here cannot be reported.
            let _ = writeln!(std::io::stderr(), "softmax: {failure}");
            failure.code()
        }
    }
}

/// The command line, as help shows it.
fn command() -> clap::Command {
    let command = Cli::command().max_term_width(WIDTH).after_help(STATUS);
    command.mut_subcommands(|command| command.after_help(STATUS))
}

/// Parses the command line.
fn parse(args: &[OsString]) -> Result<Cli, clap::Error> {
    let mut command = command();
    let matches = command.try_get_matches_from_mut(args);
    matches.and_then(|matches| Cli::from_arg_matches(&matches)).map_err(|e| {
        let mut e = e.format(&mut command);
        let is_file = |name: &OsString| Format::of_name(Path::new(name)).is_some();
        if e.kind() == ErrorKind::InvalidSubcommand && args.get(1).is_some_and(is_file) {
            let hint = "files are for a subcommand: softmax run LOGITS OUT";
            let hint = ContextValue::StyledStrs(vec![StyledStr::from(hint)]);
            e.insert(ContextKind::Suggested, hint);
        }
        e
    })
}

impl Cli {
    fn run(&self) -> Result<(), Failure> {
        // Checked first: the library would find an error later, and blame the call that finds it.
        // `info` shows the machine in any case, and completions compute nothing.
        if !matches!(self, Self::Info(_) | Self::Completions(_)) {
            environment()?;
        }
        match self {
            Self::Run(run) => threads::with(run.reading.threads, || run.run()),
            Self::Loss(loss) => threads::with(loss.source.reading.threads, || loss.run()),
            Self::Argmax(argmax) => threads::with(argmax.source.reading.threads, || argmax.run()),
            Self::TopK(topk) => threads::with(topk.source.reading.threads, || topk.run()),
            Self::Sample(sample) => threads::with(sample.source.reading.threads, || sample.run()),
            Self::Info(info) => info.run(),
            Self::Bench(bench) => bench.run(),
            Self::Report(report) => report.run(),
            Self::Completions(completions) => completions.run(),
        }
    }
}

/// Checks the environment variables that the library reads.
fn environment() -> Result<(), Failure> {
    softmax::default_kernel().map_err(|e| Failure::new("SOFTMAX_KERNEL", e))?;
    softmax::Caches::of_this_machine().map_err(|e| Failure::new("SOFTMAX_CACHES", e))?;
    Ok(())
}
