//! A chart of speed by row length.

use std::collections::BTreeMap;

use super::frame::{Axis, Drawing, Frame, Look};
use super::scale::Scale;
use crate::format::bytes;
use crate::schema::{Case, Report};

/// The softmax of f32 with one thread, at the fewest rows of each length. `None` without two
/// lengths.
pub fn draw(report: &Report, machine: &str) -> Option<Drawing> {
    let all = || {
        let f32s = report.cases.iter().filter(|c| c.operation == "softmax" && c.dtype == "f32");
        f32s.filter(|c| c.threads == 1 && c.timed().is_some())
    };
    let mut fewest: BTreeMap<usize, usize> = BTreeMap::new();
    for case in all() {
        let rows = fewest.entry(case.cols).or_insert(case.rows);
        *rows = case.rows.min(*rows);
    }
    if fewest.len() < 2 {
        return None;
    }
    let mut lines: Vec<(&str, Vec<&Case>)> = vec![];
    for case in all().filter(|case| fewest[&case.cols] == case.rows) {
        match lines.iter_mut().find(|(kernel, _)| *kernel == case.kernel) {
            Some((_, cases)) => cases.push(case),
            None => lines.push((&case.kernel, vec![case])),
        }
    }
    let speeds: Vec<_> = lines.iter().flat_map(|(_, c)| c).map(|c| c.speed() / 1e9).collect();
    let mut frame = Frame::new(
        Axis { scale: Scale::two(fewest.keys().map(|&cols| cols as f64))?, name: "columns" },
        Some(Axis { scale: Scale::from_zero(&speeds)?, name: "G elements/s" }),
        190.0,
    );
    for cache in report.machine.data_caches() {
        // Size of an element of f32 and its result.
        let cols = cache.size as f64 / 8.0;
        frame.vertical(cols, format!("L{} {}", cache.level, bytes(cache.size)));
    }
    for (kernel, cases) in &mut lines {
        cases.sort_by_key(|case| case.cols);
        let look = Look::kernel(kernel, true);
        let point = |case: &Case| (case.cols as f64, case.speed() / 1e9);
        let points: Vec<_> = cases.iter().map(|case| point(case)).collect();
        frame.line(look, &points, "");
        for case in cases {
            frame.mark(look, point(case), &case.about());
        }
        frame.legend(look.swatch(), kernel);
    }
    Some(frame.finish("Softmax of f32 by row length, 1 thread", machine))
}
