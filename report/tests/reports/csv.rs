use softmax_report::csv;

use crate::sample::{SMALL, nasty_report, sample_report};

#[test]
fn every_case_has_a_line() {
    let reports = [sample_report(&SMALL), nasty_report()];
    let text = csv(&reports);
    let mut reader = ::csv::Reader::from_reader(text.as_bytes());
    let names = reader.headers().expect("names").clone();
    let lines: Vec<_> = reader.records().map(|line| line.expect("as many fields")).collect();
    assert_eq!(lines.len(), reports[0].cases.len() + reports[1].cases.len());
    let field = |i: usize, name: &str| {
        let column = names.iter().position(|n| n == name).unwrap_or_else(|| panic!("no {name}"));
        lines[i][column].to_owned()
    };
    let case = &reports[0].cases[5];
    let result = case.result.as_ref().expect("times");
    assert_eq!(field(5, "kernel"), case.kernel);
    assert_eq!(field(5, "rows"), "64");
    assert_eq!(field(5, "elements_per_second").parse(), Ok(result.elements_per_second));
    assert_eq!(field(5, "median_seconds").parse(), Ok(result.timing.median));
    assert_eq!(field(5, "rounds"), "9");
    let nasty = reports[0].cases.len();
    assert_eq!(field(nasty, "label"), reports[1].machine.label);
    assert_eq!(field(nasty, "passed"), "false");
    assert_eq!(field(nasty, "median_seconds"), "");
}
