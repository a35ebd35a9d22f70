//! `softmax bench`: the speed of softmax on this machine, against the machine's own limits.

mod session;

use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use indicatif::{ProgressBar, ProgressStyle};
use softmax::Kernel;
use softmax_measure::operation::Operation;
use softmax_measure::plan::{self, Case, DTYPES};
use softmax_measure::pool::{self, Pools};
use softmax_measure::timing::interleaved;
use softmax_report::schema::{KernelInfo, Report, SCHEMA, VERSION};

use crate::failure::Failure;
use crate::output::Target;
use crate::{info, machine, memory, signals, stdout, threads};
use session::{Item, Session};

/// Measures this machine: its own limits, and every kernel against them.
///
/// Every answer is checked before it is timed; times are taken in interleaved rounds. Once there
/// are times, Ctrl-C ends the run with a report of what is done; a second Ctrl-C ends it at once.
/// Compare reports with `softmax report`.
#[derive(Debug, clap::Args)]
pub struct Bench {
    /// The report to write, a JSON file.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Fewer sizes, types and rounds: within a minute.
    #[arg(long)]
    quick: bool,
    /// Only these kernels. The reference, `scalar`, is only timed if it is named.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    kernel: Vec<String>,
    /// Only these types of elements.
    #[arg(long, value_name = "TYPE", value_delimiter = ',', value_parser = DTYPES)]
    dtype: Vec<String>,
    /// Only these operations.
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = operations())]
    op: Vec<String>,
    /// Only matrices of at most this many bytes, input and output together: 32K, 8M, 1G.
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    max_size: Option<u64>,
    /// Only these numbers of threads, at most 4 for each CPU [default: 1, 2, 4 .. all].
    #[arg(long, value_name = "N", value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..))]
    threads: Vec<u16>,
    /// The number of rounds, however long they take [default: as many as fit in a given time, at
    /// least 3].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: Option<u16>,
    /// The name of this machine in reports [default: the CPU's model].
    #[arg(long, value_name = "TEXT")]
    label: Option<String>,
    /// Marks the report as made by an emulator, where that is not detected.
    #[arg(long)]
    emulated: bool,
    /// Replaces FILE if it exists. Its permissions stay.
    #[arg(long)]
    force: bool,
    /// Prints the report as in FILE instead of tables.
    #[arg(long)]
    json: bool,
}

/// The most rounds.
const MOST: usize = 31;
/// The fewest rounds.
const LEAST: usize = 3;

fn operations() -> clap::builder::PossibleValuesParser {
    Operation::ALL.map(Operation::name).into()
}

/// Parses a number of bytes: `262144`, `48K`, `2M`, `1G`.
fn bytes(text: &str) -> Result<u64, String> {
    let (number, unit) =
        text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let shift = match unit {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        _ => return Err("the unit must be K, M or G".into()),
    };
    let number: u64 = number.parse().map_err(|_| "not a number of bytes")?;
    number.checked_mul(1 << shift).ok_or_else(|| "too many bytes".into())
}

impl Bench {
    /// Runs the subcommand.
    pub fn run(&self) -> Result<(), Failure> {
        let started = Instant::now();
        let target = self.output.as_deref().map(|path| Target::any(path, self.force)?.create(&[]));
        let output = target.transpose()?;
        let date = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        let kernels = self.kernels()?;
        let threads = self.threads();
        let mut warnings = Vec::new();
        let cases = self.cases(&kernels, &threads, &mut warnings)?;
        let pools = Pools::new(&threads).map_err(|e| Failure::new("threads", e))?;
        let emulated = self.emulated || machine::is_emulated();
        let machine = machine::machine(self.label.clone(), emulated, pools.pinned);

        let target_time = if self.quick { 4e-3 } else { 20e-3 };
        let mut session = Session::new(pools, cases, kernels[0], target_time)?;
        session.add_limits(&kernels, &threads, self.quick, self.max_size.unwrap_or(u64::MAX));
        let bar = bar(session.items().len());
        let mut wrong = Vec::new();
        for i in 0..session.items().len() {
            bar.set_message(format!("checking {}", session.name(i)));
            if let Err(what) = session.check(i)? {
                bar.suspend(|| eprintln!("WRONG: {what}"));
                wrong.push(what);
            }
            bar.inc(1);
        }
        let rounds = self.rounds(started, session.seconds_per_round());
        bar.set_length((session.items().len() * rounds) as u64);
        bar.reset();
        let mut done = 0;
        // From here on there is something to report.
        signals::postpone("bench: interrupted; a report of what is done follows");
        let times = interleaved(rounds, session.items().len(), |i| {
            if signals::seen().is_some() {
                return None;
            }
            bar.set_message(session.name(i));
            let seconds = session.time(i);
            bar.inc(1);
            done += 1;
            Some(seconds)
        });
        bar.finish_and_clear();
        let complete = done == session.items().len() * rounds;
        let results = session.results(&times, &machine);
        warnings.extend(results.warnings);
        warnings.extend(self.warn(&machine, &results.clock));
        warnings.extend(wrong.iter().map(|what| format!("WRONG: {what}")));
        let report = Report {
            schema: SCHEMA.into(),
            version: VERSION,
            date,
            command: std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect(),
            complete,
            build: info::build(),
            machine,
            kernels: softmax::kernels().iter().map(kernel_info).collect(),
            limits: results.limits,
            clock: results.clock,
            cases: results.cases,
            warnings,
        };
        let text = softmax_report::write(&report);
        if let Some(mut output) = output {
            output.write(text.as_bytes())?;
            output.finish()?;
        }
        if self.json {
            stdout::print_text(&text)?;
        } else {
            stdout::print_text(&softmax_report::table(std::slice::from_ref(&report)))?;
        }
        if !wrong.is_empty() {
            let cause = format!("{} answers are wrong, the first: {}", wrong.len(), wrong[0]);
            return Err(Failure::finding("bench", cause));
        }
        // The message was printed when the signal came.
        if let Some(signal) = signals::seen() {
            signals::die(signal);
        }
        Ok(())
    }

    fn kernels(&self) -> Result<Vec<&'static Kernel>, Failure> {
        if self.kernel.is_empty() {
            let timed = |k: &&Kernel| k.is_available() && k.name() != "scalar";
            return Ok(softmax::kernels().iter().filter(timed).collect());
        }
        let find = |name: &String| softmax::kernel(name).map_err(|e| Failure::new("--kernel", e));
        let mut kernels = self.kernel.iter().map(find).collect::<Result<Vec<_>, _>>()?;
        // The fastest first.
        kernels.sort_by_key(|kernel| {
            softmax::kernels().iter().position(|k| k.name() == kernel.name())
        });
        kernels.dedup_by_key(|kernel| kernel.name());
        Ok(kernels)
    }

    fn threads(&self) -> Vec<usize> {
        if self.threads.is_empty() {
            return pool::steps();
        }
        let mut threads: Vec<_> =
            self.threads.iter().map(|&n| usize::from(n).min(threads::most())).collect();
        threads.sort_unstable();
        threads.dedup();
        threads
    }

    /// The cases to be timed, without those that memory is too small for.
    fn cases(
        &self,
        kernels: &[&'static Kernel],
        threads: &[usize],
        warnings: &mut Vec<String>,
    ) -> Result<Vec<Case>, Failure> {
        let wanted = |wanted: &[String], name: &str| {
            wanted.is_empty() || wanted.iter().any(|wanted| wanted == name)
        };
        let mut cases = plan::cases(kernels, threads, self.quick);
        cases.retain(|case| {
            wanted(&self.dtype, case.dtype)
                && wanted(&self.op, case.operation.name())
                && self.max_size.is_none_or(|most| case.bytes() <= most)
        });
        if cases.is_empty() {
            return Err(Failure::new("bench", "nothing is left to time"));
        }
        // Input and output buffers are as large as the largest case.
        let room = memory::available_memory().unwrap_or(u64::MAX) / 4 * 3;
        let before = cases.len();
        cases.retain(|case| case.bytes() <= room);
        if cases.len() < before {
            let left = before - cases.len();
            warnings.push(format!(
                "{left} cases were left out that need more memory than {room} bytes"
            ));
        }
        Ok(cases)
    }

    /// Number of rounds that there is time for.
    fn rounds(&self, started: Instant, seconds: f64) -> usize {
        if let Some(rounds) = self.rounds {
            return rounds.into();
        }
        let all = Duration::from_secs(if self.quick { 32 } else { 900 });
        let left = all.saturating_sub(started.elapsed()).as_secs_f64();
        ((left / seconds) as usize).clamp(LEAST, MOST)
    }

    /// Warnings about the machine and the program that make times doubtful.
    fn warn(&self, machine: &softmax_report::schema::Machine, clock: &[f64]) -> Vec<String> {
        let mut warnings = Vec::new();
        let mut warn = |is: bool, text: &str| {
            if is {
                warnings.push(text.to_owned());
            }
        };
        warn(machine.emulated, "an emulator ran the program: its times say nothing of a CPU");
        warn(machine.on_battery == Some(true), "the machine ran on battery");
        warn(!machine.pinned, "threads could not be bound to cores");
        warn(cfg!(debug_assertions), "the program was built without --release");
        let (least, most) =
            clock.iter().fold((f64::INFINITY, 0.0f64), |(a, b), &t| (a.min(t), b.max(t)));
        if most > 1.05 * least {
            let percent = 100.0 * (1.0 - least / most);
            warnings.push(format!(
                "the clock moved: the same arithmetic was up to {percent:.0}% slower in some rounds"
            ));
        }
        warnings
    }
}

fn kernel_info(kernel: &Kernel) -> KernelInfo {
    KernelInfo {
        name: kernel.name().into(),
        requires: kernel.requires().iter().map(|&feature| feature.into()).collect(),
        available: kernel.is_available(),
    }
}

/// A bar with the current item and the time left, on a terminal.
fn bar(items: usize) -> ProgressBar {
    let bar = ProgressBar::new(items as u64);
    if let Ok(style) = ProgressStyle::with_template("{wide_msg} {bar:24} {percent:>3}% {eta} left")
    {
        bar.set_style(style);
    }
    bar
}

impl std::fmt::Display for Item {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let threads = |n: usize| if n == 1 { String::new() } else { format!(", {n} threads") };
        match self {
            Item::Clock => f.write_str("the clock"),
            Item::Arithmetic { kernel, double, threads: n } => {
                let dtype = if *double { "f64" } else { "f32" };
                write!(f, "arithmetic {dtype}, {}{}", kernel.name(), threads(*n))
            }
            Item::Memory { name, bytes, threads: n } => {
                write!(f, "{name} of {} KiB{}", bytes >> 10, threads(*n))
            }
            Item::Case(case) => {
                let Case { operation, dtype, rows, cols, threads: n, kernel } = case;
                let kernel = kernel.name();
                write!(f, "{operation} {dtype} {rows} x {cols}, {kernel}{}", threads(*n))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn sizes() {
        assert_eq!([bytes("64"), bytes("32K"), bytes("1G")], [Ok(64), Ok(32 << 10), Ok(1 << 30)]);
        for bad in ["", "K", "1T", "1.5M", "-1", "18446744073709551615K"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }
}
