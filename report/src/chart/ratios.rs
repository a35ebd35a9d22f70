//! A chart of reports relative to the first one.

use super::frame::{Drawing, Look};
use super::name;
use super::scale::Scale;
use super::strips::{Mark, Row, Strips};
use crate::compare::common;
use crate::format::{number, plural};
use crate::schema::Report;

/// The speed of each case's best kernel relative to the first report. Empty if no case can be
/// compared.
pub fn draw(reports: &[Report]) -> Vec<Drawing> {
    let common = common(reports);
    let look = |other: usize| Look { series: other, full: true };
    let row = |case: &crate::compare::Common| {
        let mark = |(other, ratio): (usize, Option<f64>)| {
            let (x, then) = (ratio?, case.others[other]?);
            let title = format!(
                "{}: {} ({}) and {} ({}) G elements/s, {} times",
                case.key,
                number(case.first.speed() / 1e9),
                case.first.kernel,
                number(then.speed() / 1e9),
                then.kernel,
                number(x),
            );
            Some(Mark { track: other, look: look(other), x, title })
        };
        let marks = case.ratios().enumerate().filter_map(mark).collect();
        Row { name: case.key.to_string(), marks, bar: None }
    };
    let rows: Vec<_> = common.iter().map(row).collect();
    let ratios = || rows.iter().flat_map(|row| &row.marks).map(|mark| mark.x).chain([1.0]);
    let (low, high) = ratios().fold((1.0, 1.0), |(low, high), x: f64| (x.min(low), x.max(high)));
    let scale = if high > 4.0 * low { Scale::ten(ratios()) } else { Scale::linear(ratios()) };
    let Some(scale) = scale.filter(|_| !rows.is_empty()) else { return vec![] };
    let first = &reports[0].machine.label;
    let subtitle = format!("{}; the first report: {first}", plural(rows.len(), "case"));
    let strips = Strips {
        title: "Times as fast as the first report",
        subtitle: &subtitle,
        axis: "times as fast",
        scale,
        origin: 1.0,
        legend: (1..reports.len()).map(|i| (look(i - 1), name(reports, i))).collect(),
        bars: None,
    };
    strips.draw(&rows)
}
