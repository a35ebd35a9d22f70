use softmax_report::{Report, table};
use unicode_width::UnicodeWidthStr;

use crate::sample::{ARM, BIG, SMALL, bare_report, nasty_report, sample_report};

fn text(reports: &[Report]) -> String {
    let text = table(reports);
    for line in text.lines() {
        assert!(line.width() <= 100, "{} columns: {line}", line.width());
        assert!(!line.contains('\u{1b}'), "{line}");
    }
    text
}

#[test]
fn no_line_is_wider_than_100_columns() {
    let mut empty = sample_report(&BIG);
    empty.cases.clear();
    let mut long = bare_report();
    long.machine.label = "Ä北京".repeat(100);
    long.machine.cpu = "a CPU with a long name ".repeat(13);
    let all = [sample_report(&BIG), empty, long, nasty_report(), sample_report(&ARM)];
    for report in &all {
        text(std::slice::from_ref(report));
    }
    text(&all);
    text(&all[..3]);
    assert_eq!(text(&[]), "");
}

#[test]
fn the_best_kernel_of_each_case_is_shown() {
    let mut report = sample_report(&SMALL);
    let best = report.cases.iter_mut().find(|c| c.kernel == "portable" && c.rows == 64);
    best.expect("a case").result.as_mut().expect("times").elements_per_second = 77.7e9;
    let text = text(&[report]);
    let line = |name: &str| text.lines().find(|line| line.contains(name)).unwrap_or_default();
    let case = line("softmax f32 64 x 1024, 1 thread ");
    assert!(case.contains("portable") && case.contains("77.7"), "{text}");
    assert!(line("softmax f32 4 x 1024, 1 thread ").contains("avx512"), "{text}");
    assert!(line("limits, 1 thread ").contains("L1"), "{text}");
    for part in ["v0.1.0-12-g839b024", "2026-11-25", "L2 2 MiB", "32 cores"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn what_is_wrong_is_in_capitals() {
    let text = text(&[nasty_report()]);
    for mark in ["EMULATED", "INCOMPLETE", "ON BATTERY", "WRONG ANSWER"] {
        assert!(text.contains(mark), "{mark}: {text}");
    }
    assert!(text.contains("0123456789abcdef"), "{text}");
    let good = self::text(&[sample_report(&SMALL)]);
    assert!(!good.contains("WRONG") && !good.contains("EMULATED"), "{good}");
}

#[test]
fn several_reports_have_ratios() {
    let mut slow = sample_report(&SMALL);
    for case in &mut slow.cases {
        case.result.as_mut().expect("times").elements_per_second /= 2.0;
    }
    let text = text(&[sample_report(&SMALL), slow, bare_report()]);
    assert!(text.contains("(0.50)"), "{text}");
    assert!(text.contains("(1.00)"), "{text}");
    let mut other = bare_report();
    other.cases[0].cols = 3;
    let text = self::text(&[sample_report(&SMALL), other]);
    assert!(text.contains("NO CASE IS IN THE FIRST REPORT"), "{text}");
}

/// The contents of the table, for programs.
#[test]
fn json_has_the_best_kernels_and_ratios() {
    let (first, mut second) = (sample_report(&SMALL), sample_report(&ARM));
    for case in second.cases.iter_mut().filter(|case| case.operation == "attention") {
        case.check.passed = false;
    }
    let json = softmax_report::json(&[first.clone(), first.clone(), second.clone()]);
    let cases = json.as_array().expect("a list");
    let of = |report: usize| cases.iter().filter(move |case| case["report"] == report);
    assert_eq!(of(1).count(), of(2).count());
    let timed = |case: &&serde_json::Value| case["passed"] == true;
    assert!(of(1).filter(timed).count() > 10);
    for case in of(1).chain(of(2)).filter(timed) {
        assert_eq!(case["ratio"], 1.0);
        assert!(case["elements_per_second"].as_f64().is_some_and(|speed| speed > 0.0));
    }
    let label = |case: &serde_json::Value| case["label"].as_str().map(str::to_owned);
    assert!(of(3).all(|case| label(case).as_ref() == Some(&second.machine.label)));
    let wrong = of(3).find(|case| case["passed"] == false).expect("a wrong answer");
    assert!(wrong["elements_per_second"].is_null() && wrong["ratio"].is_null());
}
