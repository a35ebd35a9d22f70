//! Charts.

mod accuracy;
mod frame;
mod ratios;
mod roofline;
mod row_length;
mod scale;
mod strips;
mod threads;

use maud::{Markup, PreEscaped, html};

use crate::format::harmless;
use crate::schema::Report;
use frame::{Drawing, WIDTH};

/// Colours and widths, by classes. Print always has the light ones.
pub(crate) const STYLE: &str = include_str!("style.css");

/// A chart in a file of its own.
#[derive(Clone, Debug)]
pub struct Chart {
    /// Name of the file, without an extension: `roofline-1` is for the first report, `compare` for
    /// all.
    pub name: String,
    /// The title.
    pub title: String,
    /// The SVG file, which needs no other file.
    pub svg: String,
}

/// The subjects of charts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Compare,
    Roofline,
    RowLength,
    Threads,
    Accuracy,
}

/// A chart for the page or a file.
#[derive(Debug)]
pub(crate) struct Figure {
    pub kind: Kind,
    name: String,
    drawing: Drawing,
}

/// The charts of all reports, each as a file of its own. Charts without data are left out.
pub fn charts(reports: &[Report]) -> Vec<Chart> {
    let chart = |figure: Figure| {
        let svg = harmless(&figure.svg(true).0);
        Chart { title: figure.title(), name: figure.name, svg }
    };
    figures(reports).into_iter().map(chart).collect()
}

/// The charts for the page.
pub(crate) fn figures(reports: &[Report]) -> Vec<Figure> {
    let mut figures = vec![];
    let mut add = |kind, name: String, drawings: Vec<Drawing>| {
        for (i, drawing) in drawings.into_iter().enumerate() {
            let name = if i == 0 { name.clone() } else { format!("{name}-{}", i + 1) };
            figures.push(Figure { kind, name, drawing });
        }
    };
    add(Kind::Compare, "compare".into(), ratios::draw(reports));
    for (i, report) in reports.iter().enumerate() {
        let number = i + 1;
        let machine = name(reports, i);
        let one = |drawing: Option<Drawing>| drawing.into_iter().collect();
        let roofline = one(roofline::draw(report, &machine));
        add(Kind::Roofline, format!("roofline-{number}"), roofline);
        let row_length = one(row_length::draw(report, &machine));
        add(Kind::RowLength, format!("row-length-{number}"), row_length);
        add(Kind::Threads, format!("threads-{number}"), one(threads::draw(report, &machine)));
        add(Kind::Accuracy, format!("accuracy-{number}"), accuracy::draw(report, &machine));
    }
    figures
}

/// The name of a report among several.
pub(crate) fn name(reports: &[Report], i: usize) -> String {
    let report = &reports[i];
    let mut name = report.marks().iter().map(|mark| format!("{mark}: ")).collect::<String>();
    if reports.len() > 1 {
        name = format!("{}: {name}", i + 1);
    }
    name + &report.machine.label
}

impl Figure {
    pub fn title(&self) -> String {
        let Drawing { title, subtitle, .. } = &self.drawing;
        format!("{title}, {subtitle}")
    }

    /// The SVG for a page, or with everything that a file needs.
    pub fn svg(&self, alone: bool) -> Markup {
        let height = self.drawing.height.ceil();
        let (xmlns, size) = (alone.then_some("http://www.w3.org/2000/svg"), alone.then_some(()));
        html! {
            svg xmlns=[xmlns] class="chart" role="img" aria-label=(self.title())
                width=[size.map(|()| WIDTH)] height=[size.map(|()| height)]
                viewBox={ "0 0 " (WIDTH) " " (height) } {
                title { (self.title()) }
                @if alone {
                    style { (PreEscaped(STYLE)) }
                    rect class="bg" width=(WIDTH) height=(height) {}
                }
                (self.drawing.body)
            }
        }
    }
}
