//! Reports as text for a terminal.

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, ContentArrangement, Table};
use unicode_width::UnicodeWidthChar;

use crate::compare::{Common, common};
use crate::format::{bytes, clip, harmless, number, percent, plural};
use crate::schema::{Case, Machine, Report};

/// The most columns of a line.
const WIDTH: u16 = 100;
/// The most other reports in one table of ratios.
const OTHERS: usize = 4;

/// The reports one after another: the machine, its limits and the best kernel of each case; then
/// the ratios to the first report. No line is wider than 100 columns.
pub fn table(reports: &[Report]) -> String {
    let mut text = String::new();
    for (i, report) in reports.iter().enumerate() {
        if reports.len() > 1 {
            text += &format!("REPORT {}\n", i + 1);
        }
        for part in [head(report), limits(report), cases(report), wrong(report)] {
            text += &part;
        }
    }
    text += &ratios(reports);
    if text.ends_with("\n\n") {
        text.pop();
    }
    text
}

fn head(report: &Report) -> String {
    let Report { machine, build, .. } = report;
    let cut = |text: &str| clip(text, 80.0, width).into_owned();
    let mut table = plain();
    let mut row = |name: &str, value: String| {
        table.add_row(vec![name.to_owned(), harmless(&value)]);
    };
    row("machine", cut(&machine.label));
    row("cpu", cut(&machine.cpu));
    let mut cores = plural(machine.logical_cores, "hardware thread");
    if let Some(physical) = machine.physical_cores {
        cores = format!("{}, {cores}", plural(physical, "core"));
    }
    row("", cut(&format!("{}, {cores}, caches {}", machine.architecture, caches(machine))));
    row("build", cut(&format!("softmax {}, revision {}", build.version, build.revision)));
    row("date", cut(&report.date));
    for mark in report.marks() {
        row("", mark.into());
    }
    for warning in &report.warnings {
        row("warning", warning.clone());
    }
    finish(&table)
}

/// The data caches in words.
pub(crate) fn caches(machine: &Machine) -> String {
    let caches = machine.data_caches().map(|c| format!("L{} {}", c.level, bytes(c.size)));
    let caches: Vec<_> = caches.collect();
    if caches.is_empty() { "unknown".into() } else { caches.join(", ") }
}

fn limits(report: &Report) -> String {
    let mut table = plain();
    let limits = &report.limits;
    let mut threads: Vec<_> = limits.memory.iter().map(|l| l.threads).collect();
    threads.extend(limits.arithmetic.iter().map(|l| l.threads));
    threads.sort_unstable();
    threads.dedup();
    // Two lines suffice here: the page has all.
    let ends = threads.first().into_iter().chain(threads.last().filter(|_| threads.len() > 1));
    for &threads in ends {
        let memory = report.memory_limits(threads).into_iter();
        let memory = memory.map(|(level, l)| format!("{level} {}", number(l.gb_per_second)));
        let arithmetic = limits.arithmetic.iter().filter(|l| l.threads == threads);
        let arithmetic =
            arithmetic.map(|l| format!("{} {} {}", l.kernel, l.dtype, number(l.gops_per_second)));
        for (unit, list) in
            [("GB/s", memory.collect::<Vec<_>>()), ("G operations/s", arithmetic.collect())]
        {
            if !list.is_empty() {
                let name = format!("limits, {}", plural(threads, "thread"));
                table.add_row(vec![name, format!("{}: {}", unit, harmless(&list.join(", ")))]);
            }
        }
    }
    finish(&table)
}

fn cases(report: &Report) -> String {
    let names = ["case", "kernel", "G el/s", "GB/s", "of the limit", "level", "spread"];
    let rows = report.best().into_iter().map(|case| {
        let mut row = vec![case.key().to_string(), case.kernel.clone()];
        let Some(result) = case.timed() else {
            let why = if case.check.passed { "not timed" } else { "WRONG" };
            row.extend(["".into(), "".into(), why.into(), case.level.clone(), "".into()]);
            return row;
        };
        let limit = match (result.fraction_of_limit, &result.bound_by) {
            (Some(part), Some(by)) => format!("{} {by}", percent(part)),
            _ => String::new(),
        };
        let speed = number(result.elements_per_second / 1e9);
        let spread = percent(result.timing.spread);
        row.extend([speed, number(result.gb_per_second), limit, case.level.clone(), spread]);
        row
    });
    listed(&names, rows, &[2, 3, 6])
}

fn wrong(report: &Report) -> String {
    let mut table = plain();
    for wrong in report.cases.iter().filter_map(Case::wrong) {
        table.add_row(vec!["WRONG ANSWER".to_owned(), harmless(&wrong)]);
    }
    finish(&table)
}

fn ratios(reports: &[Report]) -> String {
    let common = common(reports);
    let mut text = String::new();
    for start in (1..reports.len()).step_by(OTHERS) {
        let others = start..reports.len().min(start + OTHERS);
        let name = |i| format!("{}: G el/s (ratio)", i + 1);
        let names: Vec<_> = others.clone().map(name).collect();
        let mut header = vec!["case", "1: G el/s"];
        header.extend(names.iter().map(String::as_str));
        let rows = common.iter().map(|case| {
            let mut row = vec![case.key.to_string(), number(case.first.speed() / 1e9)];
            row.extend(others.clone().map(|i| ratio(case, i - 1)));
            row
        });
        let right: Vec<_> = (1..header.len()).collect();
        text += &listed(&header, rows, &right);
    }
    if reports.len() > 1 && common.is_empty() {
        text += "NO CASE IS IN THE FIRST REPORT AND ANOTHER ONE\n";
    }
    text
}

fn ratio(case: &Common, other: usize) -> String {
    let ratio = case.ratios().nth(other).flatten();
    let speed = case.others[other].map_or(0.0, |case| case.speed() / 1e9);
    ratio.map_or("-".into(), |ratio| format!("{} ({ratio:.2})", number(speed)))
}

fn width(c: char) -> f64 {
    c.width().unwrap_or(1) as f64
}

fn plain() -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_width(WIDTH);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table
}

/// A table with a line of names; the columns in `right` are flush right. Empty without rows.
fn listed(names: &[&str], rows: impl Iterator<Item = Vec<String>>, right: &[usize]) -> String {
    let mut table = plain();
    table.set_header(names.to_vec());
    table.add_rows(rows.map(|row| row.iter().map(|cell| harmless(cell)).collect::<Vec<_>>()));
    for &i in right {
        let column = table.column_mut(i).expect("a column with a name");
        column.set_cell_alignment(CellAlignment::Right);
    }
    finish(&table)
}

fn finish(table: &Table) -> String {
    if table.is_empty() { String::new() } else { table.trim_fmt() + "\n\n" }
}
