use roxmltree::Document;
use softmax_report::{Report, charts};

use crate::sample::{ARM, BIG, SMALL, bare_report, nasty_report, sample_report, set_speed};

/// Draws the charts, checks what must hold for every chart, and returns their names.
fn names(reports: &[Report]) -> Vec<String> {
    let charts = charts(reports);
    for chart in &charts {
        let document =
            Document::parse(&chart.svg).unwrap_or_else(|e| panic!("{}: {e}", chart.name));
        let root = document.root_element();
        assert_eq!(root.tag_name().namespace(), Some("http://www.w3.org/2000/svg"));
        assert_eq!(root.attribute("role"), Some("img"));
        assert!(!root.attribute("aria-label").unwrap_or_default().is_empty());
        let view = root.attribute("viewBox").expect("a size");
        let view: Vec<f64> = view.split(' ').map(|x| x.parse().expect("a number")).collect();
        for node in document.descendants().filter(|node| node.is_element()) {
            for a in node.attributes().filter(|a| a.name() != "aria-label") {
                let bad = ["NaN", "inf"].iter().any(|bad| a.value().contains(bad));
                assert!(!bad, "{}: {}={}", chart.name, a.name(), a.value());
            }
            for (name, most) in [("cx", view[2]), ("cy", view[3])] {
                let x = node.attribute(name).map_or(0.0, |x| x.parse().expect("a number"));
                // Marks of the legend are beside its text.
                assert!((-4.0..=most).contains(&x), "{}: {name}={x}", chart.name);
            }
            assert_ne!(node.tag_name().name(), "script");
        }
    }
    charts.into_iter().map(|chart| chart.name).collect()
}

#[test]
fn one_report_has_four_charts() {
    let names = names(&[sample_report(&BIG)]);
    assert_eq!(names, ["roofline-1", "row-length-1", "threads-1", "accuracy-1"]);
}

#[test]
fn several_reports_have_a_comparison() {
    let names = names(&[sample_report(&BIG), sample_report(&ARM)]);
    for name in ["compare", "roofline-1", "roofline-2", "accuracy-2", "threads-2"] {
        assert!(names.iter().any(|n| n == name), "{name}: {names:?}");
    }
    let kinds = [&BIG, &ARM, &SMALL, &BIG, &ARM, &SMALL, &BIG, &ARM, &SMALL, &BIG];
    let ten: Vec<_> = kinds.iter().map(|kind| sample_report(kind)).collect();
    assert!(self::names(&ten).contains(&"roofline-10".to_owned()));
}

#[test]
fn what_was_not_measured_has_no_chart() {
    let one = bare_report();
    assert_eq!(names(std::slice::from_ref(&one)), ["roofline-1", "accuracy-1"]);
    let empty = Report { cases: vec![], ..one };
    assert!(names(&[empty.clone(), empty]).is_empty());
    assert!(names(&[]).is_empty());
    let mut one_thread = sample_report(&SMALL);
    one_thread.cases.retain(|case| case.threads == 1);
    assert!(!names(&[one_thread]).contains(&"threads-1".to_owned()));
}

#[test]
fn extremes_are_drawn() {
    let mut extreme = sample_report(&SMALL);
    for (i, case) in extreme.cases.iter_mut().enumerate() {
        set_speed(case, [1e-3, 1e15][i % 2]);
    }
    let mut tiny = bare_report();
    set_speed(&mut tiny.cases[0], 1e-3);
    assert_eq!(names(&[tiny]).len(), 2);
    assert!(names(&[extreme, nasty_report(), sample_report(&BIG)]).len() > 10);
    // Not read from a file, which would refuse such values.
    let mut absurd = sample_report(&SMALL);
    for (i, case) in absurd.cases.iter_mut().enumerate() {
        let values = [f64::NAN, f64::INFINITY, 0.0, -1.0, f64::MAX, f64::MIN_POSITIVE];
        set_speed(case, values[i % 6]);
        case.check.max_ulp = Some(values[i % 6]);
        case.threads = i % 3;
    }
    absurd.limits.memory[0].gb_per_second = f64::NAN;
    absurd.limits.memory[1].threads = 0;
    names(&[sample_report(&SMALL), absurd.clone()]);
    names(&[absurd]);
}

/// An image has text on it, and is light.
#[cfg(feature = "png")]
#[test]
fn charts_can_be_pictures() {
    use softmax_report::{Error, png};
    let folder = std::env::var_os("SOFTMAX_SCREENSHOTS");
    let width: u32 = if folder.is_some() { 720 } else { 180 };
    for chart in charts(&[sample_report(&BIG), nasty_report()]) {
        let picture = png(&chart.svg, width).unwrap_or_else(|e| panic!("{}: {e}", chart.name));
        assert!(picture.starts_with(b"\x89PNG"));
        assert_eq!(picture[16..20], width.to_be_bytes(), "the width of {}", chart.name);
        if let Some(folder) = &folder {
            let path = std::path::Path::new(folder).join(format!("{}.png", chart.name));
            std::fs::write(path, picture).expect("a file");
        }
    }
    let svg = &charts(&[bare_report()])[0].svg;
    assert!(matches!(png(svg, 0), Err(Error::Image(_))));
    assert!(matches!(png(svg, 100_000_000), Err(Error::Image(_))));
    assert!(matches!(png("<svg", 100), Err(Error::Image(_))));
}
