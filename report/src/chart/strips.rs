//! Charts of rows that have a name and marks along one axis.

use super::frame::{Axis, Drawing, Frame, Look};
use super::scale::Scale;

/// Height of a row's name, and of each track below it.
const NAME: f64 = 17.0;
const TRACK: f64 = 10.0;
/// The greatest height; a higher chart is cut into several.
const MOST: f64 = 560.0;

/// A row with its marks.
#[derive(Debug, Default)]
pub struct Row {
    pub name: String,
    pub marks: Vec<Mark>,
    /// A mark across all tracks: its place and its title.
    pub bar: Option<(f64, String)>,
}

/// A mark in a row.
#[derive(Debug)]
pub struct Mark {
    /// The track, counted from the top.
    pub track: usize,
    pub look: Look,
    pub x: f64,
    pub title: String,
}

/// Everything around the rows.
pub struct Strips<'a> {
    pub title: &'a str,
    pub subtitle: &'a str,
    pub axis: &'static str,
    pub scale: Scale,
    /// The start of each mark's line.
    pub origin: f64,
    /// The legend: looks of marks and their names.
    pub legend: Vec<(Look, String)>,
    /// The name of bars in the legend.
    pub bars: Option<&'static str>,
}

impl Strips<'_> {
    /// As many charts as the rows need.
    pub fn draw(&self, rows: &[Row]) -> Vec<Drawing> {
        let tracks = rows.iter().flat_map(|row| &row.marks).map(|mark| mark.track + 1).max();
        let high = NAME + TRACK * tracks.unwrap_or(1) as f64 + 3.0;
        let most = ((MOST / high) as usize).max(1);
        // As even as possible.
        let parts = rows.len().div_ceil(most).max(1);
        let chunks: Vec<_> = rows.chunks(rows.len().div_ceil(parts).max(1)).collect();
        let draw = |(i, part): (usize, &&[Row])| {
            let title = match chunks.len() {
                1 => self.title.to_owned(),
                parts => format!("{} ({} of {parts})", self.title, i + 1),
            };
            self.part(part, high).finish(&title, self.subtitle)
        };
        chunks.iter().enumerate().map(draw).collect()
    }

    fn part(&self, rows: &[Row], high: f64) -> Frame {
        let axis = Axis { scale: self.scale, name: self.axis };
        let height = high * rows.len() as f64 + 4.0;
        let mut frame = Frame::new(axis, None, height);
        frame.classed_line("ax", &[(self.origin, 0.0), (self.origin, height)], "");
        for (i, row) in rows.iter().enumerate() {
            let top = i as f64 * high;
            frame.row_label(&row.name, top + 13.0);
            if let Some((x, title)) = &row.bar {
                frame.classed_line("b", &[(*x, top + NAME), (*x, top + high - 1.0)], title);
            }
            for mark in &row.marks {
                let y = top + NAME + TRACK * (mark.track as f64 + 0.5);
                if mark.look.full {
                    frame.line(mark.look, &[(self.origin, y), (mark.x, y)], "");
                }
                frame.mark(mark.look, (mark.x, y), &mark.title);
            }
        }
        for (look, name) in &self.legend {
            frame.legend(look.swatch(), name);
        }
        if let Some(bars) = self.bars {
            frame.legend(super::frame::bar_swatch(), bars);
        }
        frame
    }
}
