//! Reports as one HTML file.

mod tables;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::chart::{Figure, Kind, STYLE, figures, name};
use crate::format::{bytes, command, harmless, plural};
use crate::schema::{Case, Report};

/// The page may load nothing.
const POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:";

/// The most wrong results that are described.
const MOST_WRONG: usize = 20;

/// A page with the machines, charts and tables of all reports. It needs no other file and no
/// network. Without scripts, the browser shows the values of marks, only later.
pub fn html(reports: &[Report]) -> String {
    let figures = figures(reports);
    let labels: Vec<_> = reports.iter().map(|report| &*report.machine.label).collect();
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                link rel="icon" href="data:,";
                title { "softmax: " (labels.join(", ")) }
                style { (PreEscaped(include_str!("page.css"))) (PreEscaped(STYLE)) }
            }
            body {
                h1 { "Softmax benchmarks" }
                (failures(reports))
                section aria-labelledby="machines" {
                    h2 id="machines" { @if reports.len() == 1 { "Machine" } @else { "Machines" } }
                    div class={ "grid cards" @if reports.len() == 1 { " single" } } {
                        @for (i, report) in reports.iter().enumerate() { (card(report, (reports.len() > 1).then_some(i + 1))) }
                    }
                }
                (charts(&figures, reports))
                (tables::limits(reports))
                (tables::cases(reports))
                script { (PreEscaped(include_str!("page.js"))) }
            }
        }
    };
    harmless(&page.into_string())
}

/// A section of charts.
struct Section {
    kind: Kind,
    title: &'static str,
    about: &'static str,
    /// The reason for a section without charts.
    none: &'static str,
}

const SECTIONS: &[Section] = &[
    Section {
        kind: Kind::Compare,
        title: "Comparison",
        about: "The best kernel of each case that is in the first report and another one: the same work, not the same kernel.",
        none: "No case of the first report is in another one.",
    },
    Section {
        kind: Kind::Roofline,
        title: "Roofline",
        about: "Each mark is a case: how fast it computes against how much it computes for each byte it must read or write. \
            No case can be above the roofs: sloping ones are caches and memory, flat ones the arithmetic of each kernel's vectors.",
        none: "Nothing was timed.",
    },
    Section {
        kind: Kind::RowLength,
        title: "Row length",
        about: "Softmax of f32 with one thread. Dashed lines are where one row and its result are as large as a cache.",
        none: "Rows of one length only were timed.",
    },
    Section {
        kind: Kind::Threads,
        title: "Threads",
        about: "How much faster more threads are. Dashed: a loop that only copies, which is what memory allows.",
        none: "One number of threads only was timed.",
    },
    Section {
        kind: Kind::Accuracy,
        title: "Accuracy",
        about: "Errors against f64 or better, and what is promised.",
        none: "No errors were measured.",
    },
];

/// All charts: those of one report side by side, those of several by subject.
fn charts(figures: &[Figure], reports: &[Report]) -> Markup {
    let of = |section: &Section| {
        let kind = section.kind;
        figures.iter().filter(move |f| f.kind == kind)
    };
    if reports.len() == 1 {
        let sections = || SECTIONS.iter().filter(|section| section.kind != Kind::Compare);
        return html! {
            section {
                h2 { "Charts" }
                div class="grid charts" style=(columns(sections().flat_map(of).count())) {
                    @for section in sections() {
                        @for figure in of(section) {
                            figure { (figure.svg(false)) figcaption { (section.about) } }
                        }
                    }
                }
                @for section in sections().filter(|section| of(section).next().is_none()) {
                    p { (section.title) ": " (section.none) }
                }
            }
        };
    }
    html! {
        @for section in SECTIONS {
            section {
                h2 { (section.title) }
                @if of(section).next().is_none() { p { (section.none) } } @else {
                    p { (section.about) }
                    div class="grid charts" style=(columns(of(section).count())) {
                        @for figure in of(section) { figure { (figure.svg(false)) } }
                    }
                    @if section.kind == Kind::Compare { (tables::ratios(reports)) }
                }
            }
        }
    }
}

/// Number of charts side by side where there is room for two, three or four: such that none is
/// alone in the last row, if possible.
fn columns(charts: usize) -> String {
    let of = |most: usize| (2..=most).rev().find(|n| charts % n != 1).unwrap_or(most).min(charts);
    format!("--two: {}; --three: {}; --four: {}", of(2), of(3), of(4))
}

/// Wrong results, at a prominent place.
fn failures(reports: &[Report]) -> Markup {
    let wrong = |report: &Report| report.cases.iter().filter_map(Case::wrong).collect::<Vec<_>>();
    let failures: Vec<_> = reports.iter().map(wrong).collect();
    html! {
        @if failures.iter().any(|list| !list.is_empty()) {
            section class="wrong" role="alert" {
                h2 { "WRONG ANSWERS" }
                @for (i, list) in failures.iter().enumerate() {
                    @if !list.is_empty() {
                        h3 { (name(reports, i)) }
                        ul { @for wrong in list.iter().take(MOST_WRONG) { li { (wrong) } } }
                        @if list.len() > MOST_WRONG { p { "And " (list.len() - MOST_WRONG) " more: see all cases." } }
                    }
                }
            }
        }
    }
}

/// The card of a machine and its run.
fn card(report: &Report, number: Option<usize>) -> Markup {
    let Report { machine, build, .. } = report;
    let yes = |yes| if yes { "yes" } else { "no" }.to_owned();
    let optional = |text: Option<String>| text.unwrap_or_else(|| "unknown".into());
    let cache = |c: &crate::schema::Cache| {
        format!("L{} {} {}", c.level, c.kind.to_lowercase(), bytes(c.size))
    };
    let caches: Vec<_> = machine.caches.iter().map(cache).collect();
    let kernels = |available| {
        let kernels = report.kernels.iter().filter(|kernel| kernel.available == available);
        kernels.map(|kernel| &*kernel.name).collect::<Vec<_>>().join(", ")
    };
    let clock = report.clock.iter().copied();
    let clock = clock.clone().reduce(f64::min).zip(clock.reduce(f64::max));
    let facts =
        [
            ("CPU", machine.cpu.clone()),
            ("Architecture", machine.architecture.clone()),
            ("Cores", optional(machine.physical_cores.map(|cores| cores.to_string()))),
            ("Hardware threads", machine.logical_cores.to_string()),
            ("Caches", if caches.is_empty() { "unknown".into() } else { caches.join(", ") }),
            ("Memory", bytes(machine.memory_bytes)),
            ("Clock", optional(machine.frequency_mhz.map(|mhz| format!("{mhz} MHz")))),
            (
                "Clock, slowest round",
                optional(clock.map(|(least, most)| {
                    format!("{:.2} times as long as the fastest", most / least)
                })),
            ),
            ("CPU features", machine.features.join(" ")),
            ("Kernels", kernels(true)),
            ("Unavailable", kernels(false)),
            ("System", machine.os.clone()),
            ("Emulated", yes(machine.emulated)),
            ("On battery", optional(machine.on_battery.map(yes))),
            ("Threads bound to cores", yes(machine.pinned)),
            ("Crate", format!("softmax {}, revision {}", build.version, build.revision)),
            ("Compiler", build.rustc.clone()),
            ("Target", build.target.clone()),
            ("Date", report.date.clone()),
            ("Command", command(&report.command)),
            (
                "Cases",
                format!(
                    "{}{}",
                    plural(report.cases.len(), "case"),
                    if report.complete { "" } else { ", INCOMPLETE" }
                ),
            ),
        ];
    html! {
        article class="card" {
            h3 { @if let Some(number) = number { (number) ": " } (machine.label) }
            @for mark in report.marks() { p class="mark" { (mark) } }
            @if !report.warnings.is_empty() {
                ul class="warnings" { @for warning in &report.warnings { li { (warning) } } }
            }
            dl {
                @for (name, value) in facts {
                    @if !value.is_empty() { div { dt { (name) } dd { (value) } } }
                }
            }
        }
    }
}
