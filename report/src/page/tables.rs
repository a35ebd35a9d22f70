//! The tables of the page. Each scrolls in a box of its own.

use maud::{Markup, html};

use crate::chart::name;
use crate::compare::common;
use crate::format::{bytes, number, percent, plural};
use crate::schema::{Case, Report, Timing};

/// The limits: loops and arithmetic, by threads.
pub fn limits(reports: &[Report]) -> Markup {
    html! {
        section {
            h2 { "Limits" }
            p { "What the machine does at best, by loops that do nothing else." }
            @for (i, report) in reports.iter().enumerate() {
                @let name = name(reports, i);
                @let limits = &report.limits;
                @if reports.len() > 1 { h3 { (name) } }
                (by_threads("Memory, GB/s", &name, limits.memory.iter().map(|l| {
                    (format!("{}, {}", l.name, bytes(l.bytes)), l.threads, l.gb_per_second)
                })))
                (by_threads("Arithmetic, G operations/s", &name, limits.arithmetic.iter().map(|l| {
                    (format!("{}, {}", l.kernel, l.dtype), l.threads, l.gops_per_second)
                })))
                @if limits.memory.is_empty() && limits.arithmetic.is_empty() { p { "None." } }
            }
        }
    }
}

/// A row for each name, a column for each number of threads; empty without rows.
fn by_threads(
    title: &str,
    machine: &str,
    values: impl Iterator<Item = (String, usize, f64)>,
) -> Markup {
    let values: Vec<_> = values.collect();
    let mut threads: Vec<_> = values.iter().map(|(_, threads, _)| *threads).collect();
    threads.sort_unstable();
    threads.dedup();
    let mut rows: Vec<Vec<String>> = vec![];
    for (name, count, x) in &values {
        let row = rows.iter().position(|row| row[0] == *name).unwrap_or_else(|| {
            let mut row = vec![String::new(); threads.len() + 1];
            row[0].clone_from(name);
            rows.push(row);
            rows.len() - 1
        });
        let column = threads.iter().position(|t| t == count).unwrap_or(0);
        rows[row][column + 1] = number(*x);
    }
    let columns = threads.iter().map(|&threads| plural(threads, "thread"));
    let names: Vec<_> = std::iter::once(title.to_owned()).chain(columns).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    html! { @if !rows.is_empty() { (table(&format!("{title} of {machine}"), &names, 1, &rows)) } }
}

/// All cases.
pub fn cases(reports: &[Report]) -> Markup {
    let names = [
        "Operation",
        "Type",
        "Kernel",
        "Level",
        "Limited by",
        "Rows",
        "Columns",
        "Threads",
        "G elements/s",
        "GB/s",
        "Of the limit",
        "Cycles per element",
        "Spread",
        "Outliers",
        "Max ULP",
        "Answer",
    ];
    html! {
        section {
            h2 { "All cases" }
            p { "Speeds are those of the median round; the spread is between the quartiles; outliers are rounds that took longer, and how many times the median." }
            @for (i, report) in reports.iter().enumerate() {
                @let name = name(reports, i);
                @let rows: Vec<_> = report.cases.iter().map(case).collect();
                @if reports.len() > 1 { h3 { (name) } }
                @if rows.is_empty() { p { "None." } } @else { (table(&format!("Cases of {name}"), &names, 5, &rows)) }
            }
        }
    }
}

fn case(case: &Case) -> Vec<String> {
    let optional = |x: Option<f64>| x.map_or_else(String::new, number);
    let result = case.timed();
    let bound_by = result.and_then(|r| r.bound_by.clone()).unwrap_or_default();
    let part = result.and_then(|r| r.fraction_of_limit).map_or_else(String::new, percent);
    let timing = result.map(|r| &r.timing);
    vec![
        case.operation.clone(),
        case.dtype.clone(),
        case.kernel.clone(),
        case.level.clone(),
        bound_by,
        case.rows.to_string(),
        case.cols.to_string(),
        case.threads.to_string(),
        optional(result.map(|r| r.elements_per_second / 1e9)),
        optional(result.map(|r| r.gb_per_second)),
        part,
        optional(result.and_then(|r| r.cycles_per_element)),
        timing.map_or_else(String::new, spread),
        timing.map_or_else(String::new, outliers),
        optional(case.check.max_ulp),
        match (case.check.passed, result) {
            (false, _) => "WRONG",
            (true, None) => "not timed",
            (true, Some(_)) => "right",
        }
        .into(),
    ]
}

/// The cases of the first report that others have, too.
pub fn ratios(reports: &[Report]) -> Markup {
    let mut names = vec!["Case".to_owned(), "1: G elements/s".into()];
    for i in 2..=reports.len() {
        names.extend([format!("{i}: G elements/s"), "times 1".into()]);
    }
    let rows = common(reports).into_iter().map(|case| {
        let mut row = vec![case.key.to_string(), number(case.first.speed() / 1e9)];
        for (other, ratio) in case.others.iter().zip(case.ratios()) {
            row.push(other.map_or_else(String::new, |case| number(case.speed() / 1e9)));
            row.push(ratio.map_or_else(String::new, number));
        }
        row
    });
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    table("Comparison", &names, 1, &rows.collect::<Vec<_>>())
}

fn spread(timing: &Timing) -> String {
    percent(timing.spread)
}

/// The outliers: rounds, counted from 1, and their seconds.
fn outliers(timing: &Timing) -> String {
    let name = |&i: &usize| format!("{} ({}x)", i + 1, number(timing.seconds[i] / timing.median));
    timing.outliers.iter().map(name).collect::<Vec<_>>().join(", ")
}

/// A table. The first `text` columns are flush left; columns without entries are left out.
fn table(label: &str, names: &[&str], text: usize, rows: &[Vec<String>]) -> Markup {
    let class = |i: usize| (i >= text).then_some("n");
    let any = |i: &usize| rows.iter().any(|row| !row[*i].is_empty());
    let columns: Vec<_> = (0..names.len()).filter(any).collect();
    html! {
        div class="scroll" tabindex="0" role="region" aria-label=(label) {
            table {
                thead { tr { @for &i in &columns { th scope="col" class=[class(i)] { (names[i]) } } } }
                tbody {
                    @for row in rows {
                        tr { @for &i in &columns { td class=[class(i)] { (row[i]) } } }
                    }
                }
            }
        }
    }
}
