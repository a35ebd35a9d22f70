//! Cases as comma-separated values.

use crate::schema::{Case, Report, Timing};

type Column = (&'static str, fn(&Report, &Case) -> String);

const COLUMNS: &[Column] = &[
    ("label", |r, _| r.machine.label.clone()),
    ("cpu", |r, _| r.machine.cpu.clone()),
    ("architecture", |r, _| r.machine.architecture.clone()),
    ("emulated", |r, _| r.machine.emulated.to_string()),
    ("date", |r, _| r.date.clone()),
    ("crate_version", |r, _| r.build.version.clone()),
    ("revision", |r, _| r.build.revision.clone()),
    ("complete", |r, _| r.complete.to_string()),
    ("operation", |_, c| c.operation.clone()),
    ("dtype", |_, c| c.dtype.clone()),
    ("rows", |_, c| c.rows.to_string()),
    ("cols", |_, c| c.cols.to_string()),
    ("threads", |_, c| c.threads.to_string()),
    ("kernel", |_, c| c.kernel.clone()),
    ("bytes", |_, c| c.bytes.to_string()),
    ("level", |_, c| c.level.clone()),
    ("elements", |_, c| c.elements.to_string()),
    ("traffic", |_, c| c.traffic.to_string()),
    ("operations", |_, c| c.operations.to_string()),
    ("max_ulp", |_, c| optional(c.check.max_ulp)),
    ("mean_ulp", |_, c| optional(c.check.mean_ulp)),
    ("limit_ulp", |_, c| optional(c.check.limit_ulp)),
    ("digest", |_, c| c.check.digest.clone()),
    ("expected", |_, c| c.check.expected.clone()),
    ("passed", |_, c| c.check.passed.to_string()),
    ("rounds", |_, c| optional(timing(c).map(|t| t.seconds.len()))),
    ("calls", |_, c| optional(timing(c).map(|t| t.calls))),
    ("median_seconds", |_, c| optional(timing(c).map(|t| t.median))),
    ("spread", |_, c| optional(timing(c).map(|t| t.spread))),
    ("outliers", |_, c| optional(timing(c).map(|t| t.outliers.len()))),
    ("elements_per_second", |_, c| optional(c.result.as_ref().map(|r| r.elements_per_second))),
    ("gb_per_second", |_, c| optional(c.result.as_ref().map(|r| r.gb_per_second))),
    ("bound_by", |_, c| optional(c.result.as_ref().and_then(|r| r.bound_by.clone()))),
    ("limit_elements_per_second", |_, c| {
        optional(c.result.as_ref().and_then(|r| r.limit_elements_per_second))
    }),
    ("fraction_of_limit", |_, c| optional(c.result.as_ref().and_then(|r| r.fraction_of_limit))),
    ("cycles_per_element", |_, c| optional(c.result.as_ref().and_then(|r| r.cycles_per_element))),
];

/// One line for each case of each report, after a line with the names of the columns. Missing
/// values are empty.
pub fn csv(reports: &[Report]) -> String {
    let mut writer = ::csv::Writer::from_writer(vec![]);
    let mut write = |record: Vec<String>| {
        writer.write_record(record).expect("memory takes whatever is written");
    };
    write(COLUMNS.iter().map(|(name, _)| name.to_string()).collect());
    for report in reports {
        for case in &report.cases {
            write(COLUMNS.iter().map(|(_, field)| field(report, case)).collect());
        }
    }
    let bytes = writer.into_inner().expect("memory takes whatever is written");
    String::from_utf8(bytes).expect("it was made of strings")
}

fn timing(case: &Case) -> Option<&Timing> {
    case.result.as_ref().map(|result| &result.timing)
}

fn optional(value: Option<impl ToString>) -> String {
    value.map_or_else(String::new, |value| value.to_string())
}
