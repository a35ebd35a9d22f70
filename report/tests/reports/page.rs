use softmax_report::{Report, html};

use crate::sample::{ARM, BIG, bare_report, nasty_report, sample_report};

/// The page, whose charts are checked to be XML.
fn page(reports: &[Report]) -> String {
    let page = html(reports);
    let svgs = page.split("<svg").skip(1).map(|rest| {
        let end = rest.find("</svg>").expect("an end");
        format!("<svg{}</svg>", &rest[..end])
    });
    for svg in svgs {
        roxmltree::Document::parse(&svg).unwrap_or_else(|e| panic!("{e}: {svg}"));
    }
    assert_eq!(page.matches("<script").count(), 1);
    assert!(page.contains(r#"<meta name="viewport""#));
    for outside in ["src=", "http://", "https://", "@import", "url("] {
        assert!(!page.contains(outside), "{outside}");
    }
    page
}

#[test]
fn everything_of_a_machine_is_there() {
    let report = sample_report(&BIG);
    let page = page(std::slice::from_ref(&report));
    let Report { machine, build, .. } = &report;
    for text in [&machine.label, &machine.cpu, &machine.os, &build.revision, &build.rustc] {
        assert!(page.contains(text.as_str()), "{text}");
    }
    for text in ["48 KiB", "260 MiB", "251 GiB", "2700 MHz", "avx512bw", "softmax bench --json"] {
        assert!(page.contains(text), "{text}");
    }
    for text in ["2026-11-25T04:41:43Z", "the clock of the CPU is not fixed", "Roofline"] {
        assert!(page.contains(text), "{text}");
    }
    assert_eq!(page.matches("<svg").count(), 4);
    assert!(!page.contains("WRONG") && !page.contains("EMULATED"));
}

#[test]
fn what_is_wrong_is_loud() {
    let page = page(&[nasty_report(), sample_report(&ARM)]);
    for mark in ["WRONG ANSWERS", r#"role="alert""#, "EMULATED", "INCOMPLETE", "ON BATTERY"] {
        assert!(page.contains(mark), "{mark}");
    }
    assert!(!page.contains("<script>alert") && !page.contains("</style></title>"));
    assert!(!page.contains('\0') && !page.contains('\u{1b}'));
}

#[test]
fn little_is_a_page_too() {
    page(&[bare_report()]);
    page(&[Report { cases: vec![], ..bare_report() }]);
    page(&[]);
    page(&vec![sample_report(&ARM); 10]);
}

/// The command can be pasted into a shell.
#[test]
fn the_command_is_quoted() {
    let command = ["/a b/softmax", "bench", "--label", "it's $HOME", "-o", "x=1,2.json", "", "é"];
    let report = Report { command: command.map(String::from).into(), ..sample_report(&BIG) };
    // Escaped as in HTML.
    let quoted = "'/a b/softmax' bench --label 'it'\\''s $HOME' -o x=1,2.json '' 'é'";
    assert!(page(&[report]).contains(quoted), "{quoted}");
}

#[test]
fn columns_without_anything_are_left_out() {
    let mut report = sample_report(&BIG);
    let has = |report: &Report| page(std::slice::from_ref(report)).contains("Cycles per element");
    assert!(has(&report));
    for result in report.cases.iter_mut().filter_map(|case| case.result.as_mut()) {
        result.cycles_per_element = None;
    }
    assert!(!has(&report));
}

/// Of four charts in rows of three, one would be alone.
#[test]
fn no_chart_stands_alone() {
    let of_four = page(&[sample_report(&BIG)]);
    assert!(of_four.contains("--two: 2; --three: 2; --four: 4"), "{of_four}");
}
