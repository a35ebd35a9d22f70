//! A chart of the errors of results.

use super::frame::{Drawing, Look};
use super::scale::Scale;
use super::strips::{Mark, Row, Strips};
use crate::format::number;
use crate::schema::{Case, Report};

/// The largest and the mean errors of each operation, dtype and kernel, and the promised ones.
/// Empty if no case has an error.
pub fn draw(report: &Report, machine: &str) -> Vec<Drawing> {
    let mut groups: Vec<(String, Vec<&Case>)> = vec![];
    let mut kernels: Vec<&str> = vec![];
    for case in report.cases.iter().filter(|case| case.check.max_ulp.is_some()) {
        let name = format!("{} {}", case.operation, case.dtype);
        match groups.iter_mut().find(|(other, _)| *other == name) {
            Some((_, cases)) => cases.push(case),
            None => groups.push((name, vec![case])),
        }
        if !kernels.contains(&&*case.kernel) {
            kernels.push(&case.kernel);
        }
    }
    let rows: Vec<_> = groups.iter().map(|(name, cases)| row(name, cases, &kernels)).collect();
    let limits = rows.iter().filter_map(|row| row.bar.as_ref()).map(|bar| bar.0);
    let limit = limits.reduce(f64::max);
    let errors = rows.iter().flat_map(|row| &row.marks).map(|mark| mark.x);
    // An error that is far too large is drawn at the edge.
    let errors = errors.map(|x| limit.map_or(x, |limit| x.min(2.0 * limit)));
    let Some(scale) = Scale::linear(errors.chain(limit).chain([0.0])) else { return vec![] };
    if rows.is_empty() {
        return vec![];
    }
    let mut legend: Vec<_> =
        kernels.iter().map(|k| (Look::kernel(k, true), (*k).to_owned())).collect();
    legend.push((Look { series: 0, full: false }, "mean".into()));
    let strips = Strips {
        title: "Largest errors by operation and type",
        subtitle: machine,
        axis: "units in the last place (ULP)",
        scale,
        origin: 0.0,
        legend,
        bars: limit.map(|_| "promised"),
    };
    strips.draw(&rows)
}

fn row(name: &str, cases: &[&Case], kernels: &[&str]) -> Row {
    let mut row = Row { name: name.into(), ..Row::default() };
    let limits = cases.iter().filter_map(|case| case.check.limit_ulp);
    row.bar = limits.reduce(f64::max).map(|x| (x, format!("{name}: promised {} ULP", number(x))));
    for (track, kernel) in kernels.iter().enumerate() {
        let largest = |ulp: fn(&Case) -> Option<f64>| {
            let of = cases.iter().filter(|case| case.kernel == *kernel);
            of.filter_map(|case| ulp(case)).reduce(f64::max)
        };
        let mut mark = |full, what, x: Option<f64>| {
            row.marks.extend(x.map(|x| Mark {
                track,
                look: Look::kernel(kernel, full),
                x,
                title: format!("{name}, {kernel}: {what} error {} ULP", number(x)),
            }));
        };
        mark(true, "largest", largest(|case| case.check.max_ulp));
        mark(false, "mean", largest(|case| case.check.mean_ulp));
    }
    row
}
