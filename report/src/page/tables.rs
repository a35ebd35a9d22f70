//! The tables of the page. Each scrolls in a box of its own.

use maud::{Markup, html};

use crate::chart::name;
use crate::compare::common;
use crate::format::{bytes, number, percent};
use crate::schema::{Case, Report};

/// The loops and the arithmetic.
pub fn limits(reports: &[Report]) -> Markup {
    let rows = |report: &Report| -> Vec<Vec<String>> {
        let memory = report.limits.memory.iter().map(|l| {
            let speed = format!("{} GB/s", number(l.gb_per_second));
            vec![l.name.clone(), bytes(l.bytes), l.threads.to_string(), speed, spread(&l.timing)]
        });
        let arithmetic = report.limits.arithmetic.iter().map(|l| {
            let speed = format!("{} G operations/s", number(l.gops_per_second));
            let name = format!("{} arithmetic", l.kernel);
            vec![name, l.dtype.clone(), l.threads.to_string(), speed, spread(&l.timing)]
        });
        memory.chain(arithmetic).collect()
    };
    let names = ["Loop", "Size or type", "Threads", "Speed", "Spread"];
    section(
        "Limits",
        "What the machine does at best, by loops that do nothing else.",
        reports,
        &names,
        1,
        rows,
    )
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
    let rows = |report: &Report| report.cases.iter().map(case).collect();
    section(
        "All cases",
        "Speeds are those of the median round; the spread is between the quartiles.",
        reports,
        &names,
        5,
        rows,
    )
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
        timing.map_or_else(String::new, |t| format!("{} of {}", t.outliers.len(), t.seconds.len())),
        optional(case.check.max_ulp),
        match (case.check.passed, result) {
            (false, _) => "WRONG",
            (true, None) => "not timed",
            (true, Some(_)) => "right",
        }
        .into(),
    ]
}

/// The cases of the first report that others have.
pub fn ratios(reports: &[Report]) -> Markup {
    let mut names = vec!["Case".to_owned(), "1: G elements/s".into()];
    for i in 2..=reports.len() {
        names.extend([format!("{i}: G elements/s"), "times 1".into()]);
    }
    let rows = common(reports).into_iter().map(|case| {
        let mut row = vec![case.key.to_string(), number(case.first.speed() / 1e9)];
        for (other, ratio) in case.others.iter().zip(case.ratios()) {
            row.push(other.map_or_else(String::new, |case| number(case.speed() / 1e9)));
            row.push(ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}")));
        }
        row
    });
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    table("Comparison", &names, 1, &rows.collect::<Vec<_>>())
}

fn spread(timing: &crate::schema::Timing) -> String {
    percent(timing.spread)
}

/// A table for each report that has rows.
fn section(
    title: &str,
    about: &str,
    reports: &[Report],
    names: &[&str],
    text: usize,
    rows: impl Fn(&Report) -> Vec<Vec<String>>,
) -> Markup {
    html! {
        section {
            h2 { (title) }
            p { (about) }
            @for (i, report) in reports.iter().enumerate() {
                @let rows = rows(report);
                @if reports.len() > 1 { h3 { (name(reports, i)) } }
                @if rows.is_empty() { p { "None." } } @else {
                    (table(&format!("{title} of {}", name(reports, i)), names, text, &rows))
                }
            }
        }
    }
}

/// The first `text` columns are flush left.
fn table(label: &str, names: &[&str], text: usize, rows: &[Vec<String>]) -> Markup {
    let class = |i: usize| (i >= text).then_some("n");
    html! {
        div class="scroll" tabindex="0" role="region" aria-label=(label) {
            table {
                thead { tr { @for (i, name) in names.iter().enumerate() { th scope="col" class=[class(i)] { (name) } } } }
                tbody {
                    @for row in rows {
                        tr { @for (i, cell) in row.iter().enumerate() { td class=[class(i)] { (cell) } } }
                    }
                }
            }
        }
    }
}
