use softmax_report::{Change, Error, below};

use crate::sample::{SMALL, bare_report, sample_report};

#[test]
fn slower_cases_are_named() {
    let before = sample_report(&SMALL);
    let mut now = before.clone();
    let result = now.cases[5].result.as_mut().expect("times");
    result.elements_per_second *= 0.8;
    let reports = [before, now];
    let regressions = below(&reports, 0.9).expect("cases in common");
    let [regression] = &regressions[..] else { panic!("{regressions:?}") };
    let text = regression.to_string();
    assert!(
        text.starts_with("report 2 (Xeon Platinum 8481C): softmax f32 64 x 1024, 1 thread, avx2: ")
    );
    assert!(text.contains("(0.800 of it)"), "{text}");
    let Change::Slower { before, now } = regression.change else { panic!("{text}") };
    assert!((now / before - 0.8).abs() < 1e-12);
    assert_eq!(below(&reports, 0.7), Ok(vec![]));
    // In the third report nothing has changed.
    let three = [reports[0].clone(), reports[0].clone(), reports[1].clone()];
    let regressions = below(&three, 0.9).expect("cases in common");
    assert_eq!(regressions.iter().map(|r| r.report).collect::<Vec<_>>(), [2]);
}

#[test]
fn what_cannot_be_compared_is_named() {
    let mut before = sample_report(&SMALL);
    let mut now = before.clone();
    before.cases[0].result = None;
    now.cases[1].result = None;
    now.cases[2].check.passed = false;
    now.cases.remove(3);
    let regressions = below(&[before, now], 0.5).expect("cases in common");
    let changes: Vec<_> = regressions.iter().map(|r| r.change.clone()).collect();
    assert_eq!(changes, [Change::NoBaseline, Change::NotTimed, Change::Wrong, Change::Missing]);
    let text = regressions[3].to_string();
    assert!(text.ends_with("softmax f32 4 x 1024, 1 thread, scalar: missing"), "{text}");
}

#[test]
fn nothing_to_compare_is_an_error() {
    let mut other = bare_report();
    other.cases[0].kernel = "neon".into();
    let reports = [sample_report(&SMALL), bare_report(), other];
    assert_eq!(below(&reports, 0.9), Err(Error::NothingInCommon(2)));
    assert_eq!(below(&reports[..1], 0.9), Err(Error::TooFew(1)));
    assert_eq!(below(&[], 0.9), Err(Error::TooFew(0)));
    assert_eq!(below(&reports[..2], -1.0), Err(Error::Factor(-1.0)));
    assert!(below(&reports[..2], f64::NAN).is_err());
}
