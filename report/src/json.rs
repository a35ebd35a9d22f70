//! The table for programs.

use std::collections::HashMap;

use serde_json::{Value, json};

use crate::schema::Report;

/// The contents of [`table`](crate::table()) as a JSON array: an object for the best kernel of each
/// case of each report.
///
/// `report` counts from 1, as in the table; `ratio` is the speed relative to the first report's
/// best kernel, where both have one.
///
/// ```
/// assert_eq!(softmax_report::json(&[]).to_string(), "[]");
/// ```
pub fn json(reports: &[Report]) -> Value {
    let speeds = |report: &Report| -> HashMap<String, f64> {
        let best = report.best().into_iter().filter(|case| case.timed().is_some());
        best.map(|case| (case.key().to_string(), case.speed())).collect()
    };
    let first = reports.first().map(speeds).unwrap_or_default();
    let of = |(i, report): (usize, &Report)| -> Vec<Value> {
        let case = |case: &crate::schema::Case| {
            let result = case.timed();
            let before = first.get(&case.key().to_string());
            json!({
                "report": i + 1,
                "label": report.machine.label,
                "operation": case.operation,
                "dtype": case.dtype,
                "rows": case.rows,
                "cols": case.cols,
                "threads": case.threads,
                "kernel": case.kernel,
                "level": case.level,
                "passed": case.check.passed,
                "elements_per_second": result.map(|r| r.elements_per_second),
                "gb_per_second": result.map(|r| r.gb_per_second),
                "fraction_of_limit": result.and_then(|r| r.fraction_of_limit),
                "bound_by": result.and_then(|r| r.bound_by.as_deref()),
                "spread": result.map(|r| r.timing.spread),
                "ratio": result.zip(before).map(|(r, before)| r.elements_per_second / before),
            })
        };
        report.best().into_iter().map(case).collect()
    };
    reports.iter().enumerate().flat_map(of).collect()
}
