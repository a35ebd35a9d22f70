//! A chart of speed by number of threads.

use std::collections::BTreeMap;

use super::frame::{Axis, Drawing, Frame, Look};
use super::scale::Scale;
use crate::format::{bytes, number, plural};
use crate::schema::Report;

/// The loop that stands for memory.
const LOOP: &str = "copy_nt";

/// Speed-ups by more threads, of the softmax of f32 and of memory. `None` if all cases have the
/// same number of threads.
pub fn draw(report: &Report, machine: &str) -> Option<Drawing> {
    let mut sizes: BTreeMap<(u64, usize, usize), BTreeMap<usize, f64>> = BTreeMap::new();
    for case in report.best() {
        if (&*case.operation, &*case.dtype) == ("softmax", "f32") && case.timed().is_some() {
            let size = sizes.entry((case.bytes, case.rows, case.cols)).or_default();
            size.insert(case.threads, case.speed());
        }
    }
    sizes.retain(|_, speeds| speeds.contains_key(&1) && speeds.len() > 1);
    let lines: Vec<_> = sizes
        .iter()
        .enumerate()
        .map(|(series, (&(size, rows, cols), speeds))| {
            let name = format!("{rows} x {cols} ({})", bytes(size));
            (series, name, speed_ups(speeds), memory(report, size))
        })
        .collect();
    let points = || lines.iter().flat_map(|(_, _, cases, limit)| cases.iter().chain(&limit.1));
    let most = points().map(|p| p.0).reduce(f64::max)?;
    let mut frame = Frame::new(
        Axis { scale: Scale::two([1.0, most])?, name: "threads" },
        Some(Axis {
            scale: Scale::two(points().map(|p| p.1).chain([1.0, most]))?,
            name: "times as fast as 1 thread",
        }),
        190.0,
    );
    frame.classed_line("ax", &[(1.0, 1.0), (most, most)], "as many times as fast as threads");
    for (series, name, cases, limit) in &lines {
        let line = |full| Look { series: *series, full };
        let title = |what: &str, (threads, ratio): (f64, f64)| {
            format!("{what}, {}: {} times", plural(threads as usize, "thread"), number(ratio))
        };
        frame.line(line(false), &limit.1, &format!("{LOOP} of {}", limit.0));
        frame.line(line(true), cases, "");
        for &point in &limit.1 {
            frame.mark(line(false), point, &title(&format!("{LOOP} of {}", limit.0), point));
        }
        for &point in cases {
            frame.mark(line(true), point, &title(&format!("softmax {name}"), point));
        }
        frame.legend(line(true).swatch(), name);
    }
    let grey = |full| Look { series: 4, full };
    if lines.iter().any(|line| !line.3.1.is_empty()) {
        frame.legend(grey(false).line_swatch(), &format!("{LOOP}, the nearest size"));
    }
    frame.legend(grey(true).line_swatch(), "ideal");
    Some(frame.finish("Softmax of f32 by threads, the best kernel", machine))
}

/// Numbers of threads, and their speed relative to one thread.
fn speed_ups(speeds: &BTreeMap<usize, f64>) -> Vec<(f64, f64)> {
    let Some(one) = speeds.get(&1) else { return vec![] };
    speeds.iter().map(|(&threads, speed)| (threads as f64, speed / one)).collect()
}

/// The speed-ups of the loop at the nearest size that was measured with more than one thread, and
/// that size.
fn memory(report: &Report, size: u64) -> (String, Vec<(f64, f64)>) {
    let mut sizes: BTreeMap<u64, BTreeMap<usize, f64>> = BTreeMap::new();
    for limit in report.limits.memory.iter().filter(|limit| limit.name == LOOP) {
        sizes.entry(limit.bytes).or_default().insert(limit.threads, limit.gb_per_second);
    }
    sizes.retain(|_, speeds| speeds.contains_key(&1) && speeds.len() > 1);
    let distance = |bytes: u64| (bytes as f64 / size as f64).ln().abs();
    let nearest = sizes.iter().min_by(|a, b| distance(*a.0).total_cmp(&distance(*b.0)));
    nearest.map_or_else(Default::default, |(&size, speeds)| (bytes(size), speed_ups(speeds)))
}
