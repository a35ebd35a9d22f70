//! The common parts of all charts: axes, marks, labels that do not overlap, a legend.

use maud::{Markup, html};

use super::scale::Scale;
use crate::format::clip;

/// The width of every chart, in units: as wide as a phone.
pub const WIDTH: f64 = 360.0;
/// The font size of all text but titles.
const FONT: f64 = 11.0;
const TITLE: f64 = 13.0;
/// The left margin of everything but plots.
const MARGIN: f64 = 10.0;
const RIGHT: f64 = WIDTH - 14.0;
/// The height of a line of text.
const LINE: f64 = 15.0;

/// A rectangle: left, top, right, bottom.
type Area = [f64; 4];

/// An axis and its title.
#[derive(Debug)]
pub struct Axis {
    pub scale: Scale,
    pub name: &'static str,
}

/// A chart that is being drawn. Marks are in the order that they are drawn in.
#[derive(Debug)]
pub struct Frame {
    x: Axis,
    y: Option<Axis>,
    height: f64,
    body: String,
    /// The areas of labels and marks.
    taken: Vec<Area>,
    /// The areas of short segments of lines.
    lines: Vec<Area>,
    above: Vec<(f64, String)>,
    legend: Vec<(Markup, String)>,
}

/// The look of a line or mark.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// Colour and shape.
    pub series: usize,
    /// Whether marks are filled and lines solid.
    pub full: bool,
}

impl Look {
    /// The look of a kernel, the same in all charts.
    pub fn kernel(name: &str, full: bool) -> Self {
        let known = ["avx512", "avx2", "neon", "portable", "scalar"];
        let other = || known.len() + name.bytes().map(usize::from).sum::<usize>() % 3;
        let series = known.iter().position(|&k| k == name).unwrap_or_else(other);
        Self { series, full }
    }

    fn colour(self) -> String {
        format!("c{}", self.series % 8)
    }

    /// The mark in the legend.
    pub fn swatch(self) -> Markup {
        self.mark(8.0, -4.0, "")
    }

    /// The line in the legend.
    pub fn line_swatch(self) -> Markup {
        path(&self.line_class(), &[(0.0, -4.0), (18.0, -4.0)], "")
    }

    fn line_class(self) -> String {
        format!("l {}{}", self.colour(), if self.full { "" } else { " d" })
    }

    fn mark(self, x: f64, y: f64, title: &str) -> Markup {
        // Coordinates relative to the centre.
        let shape: &[(f64, f64)] = match self.series % 6 {
            0 => {
                return html! { circle class=(self.mark_class()) cx=(n(x)) cy=(n(y)) r="3.5" { (tip(title)) } };
            }
            1 => &[(-3.0, -3.0), (3.0, -3.0), (3.0, 3.0), (-3.0, 3.0)],
            2 => &[(0.0, -4.0), (4.0, 3.0), (-4.0, 3.0)],
            3 => &[(0.0, -4.5), (4.5, 0.0), (0.0, 4.5), (-4.5, 0.0)],
            4 => &[(-4.0, -3.0), (4.0, -3.0), (0.0, 4.0)],
            _ => &[(-4.5, -1.5), (4.5, -1.5), (4.5, 1.5), (-4.5, 1.5)],
        };
        let mut d = String::new();
        for (i, (dx, dy)) in shape.iter().enumerate() {
            d += &format!("{}{} {}", if i == 0 { 'M' } else { 'L' }, n(x + dx), n(y + dy));
        }
        html! { path class=(self.mark_class()) d={ (d) "Z" } { (tip(title)) } }
    }

    fn mark_class(self) -> String {
        format!("{} {}", if self.full { "m" } else { "h" }, self.colour())
    }
}

/// A drawing without the frame of a file.
#[derive(Debug)]
pub struct Drawing {
    pub title: String,
    pub subtitle: String,
    pub height: f64,
    pub body: Markup,
}

impl Frame {
    /// A frame with a plot of this height.
    pub fn new(x: Axis, y: Option<Axis>, height: f64) -> Self {
        let (taken, lines, above, legend) = (vec![], vec![], vec![], vec![]);
        Self { x, y, height, body: String::new(), taken, lines, above, legend }
    }

    fn left(&self) -> f64 {
        if self.y.is_some() { 48.0 } else { MARGIN }
    }

    fn x(&self, x: f64) -> f64 {
        self.left() + self.x.scale.part(x) * (RIGHT - self.left())
    }

    /// The height of a value; without a scale, `y` is one already.
    pub fn y(&self, y: f64) -> f64 {
        self.y.as_ref().map_or(y, |axis| (1.0 - axis.scale.part(y)) * self.height)
    }

    /// Draws a line through these points; `title` may be empty.
    pub fn line(&mut self, look: Look, points: &[(f64, f64)], title: &str) {
        self.classed_line(&look.line_class(), points, title);
    }

    /// Draws a line that is not a series: of the class `ax`, with `d` dashed.
    pub fn classed_line(&mut self, class: &str, points: &[(f64, f64)], title: &str) {
        let places = points.iter().map(|&(x, y)| (self.x(x), self.y(y)));
        let places: Vec<_> = places.filter(|(x, y)| x.is_finite() && y.is_finite()).collect();
        if places.len() > 1 {
            self.body += &path(class, &places, title).0;
        }
        for ends in places.windows(2) {
            let ((x0, y0), (x1, y1)) = (ends[0], ends[1]);
            let parts = ((x1 - x0).abs().max((y1 - y0).abs()) / 3.0).ceil().max(1.0);
            let at = |i: f64| (x0 + (x1 - x0) * i / parts, y0 + (y1 - y0) * i / parts);
            let dots = (0..=parts as usize).map(|i| at(i as f64));
            self.lines.extend(dots.map(|(x, y)| [x, y, x, y]));
        }
    }

    /// Draws a mark with a title.
    pub fn mark(&mut self, look: Look, (x, y): (f64, f64), title: &str) {
        let (x, y) = (self.x(x), self.y(y));
        if x.is_finite() && y.is_finite() {
            self.taken.push([x - 4.0, y - 4.0, x + 4.0, y + 4.0]);
            self.body += &look.mark(x, y, title).0;
        }
    }

    /// Draws a text above one of these points, or before or behind it if the line rises there.
    /// Takes the first place that is free, or else one that covers only lines, or else none.
    /// Returns whether there was room.
    pub fn label(
        &mut self,
        text: &str,
        rises: bool,
        places: impl IntoIterator<Item = (f64, f64)>,
    ) -> bool {
        let text = fit(text, 170.0, FONT);
        let long = length(&text, FONT);
        let places: Vec<_> = places.into_iter().map(|(x, y)| (self.x(x), self.y(y))).collect();
        let high = FONT + 2.0;
        let beside = |(left, above): (f64, f64)| {
            let corner = move |&(x, y): &(f64, f64)| (x + left, y - above);
            places.iter().map(corner).map(|(x, y)| [x, y, x + long, y + high])
        };
        let before_and_behind = [(-long - 1.0, high), (3.0, -1.0)];
        let corners = if rises { &before_and_behind[..] } else { &[(2.0, high + 3.0)] };
        let boxes: Vec<_> = corners.iter().copied().flat_map(beside).collect();
        // Space between neighbouring texts, so that they are not read as one.
        let apart = |a: &Area, b: &Area| {
            a[2] + 6.0 < b[0] || a[0] > b[2] + 6.0 || a[3] < b[1] || a[1] > b[3]
        };
        let free = |place: &&Area| {
            let inside = place[0] >= self.left() && place[2] <= RIGHT && place[1] >= 0.0;
            inside && self.taken.iter().all(|taken| apart(place, taken))
        };
        let off = |a: &Area, b: &Area| a[2] < b[0] || a[0] > b[2] || a[3] < b[1] || a[1] > b[3];
        let clear = |place: &&Area| free(place) && self.lines.iter().all(|line| off(place, line));
        let place = boxes.iter().find(clear).or_else(|| boxes.iter().find(free)).copied();
        if let Some(place) = place {
            self.text(&text, place[0], place[3] - 3.0);
            self.taken.push(place);
        }
        place.is_some()
    }

    /// Draws a text at the left of the plot, at this height.
    pub fn row_label(&mut self, text: &str, y: f64) {
        let text = fit(text, RIGHT - MARGIN - 3.0, FONT);
        self.text(&text, MARGIN + 3.0, y);
    }

    fn text(&mut self, text: &str, x: f64, y: f64) {
        self.body += &html! { text class="o" x=(n(x)) y=(n(y)) { (text) } }.0;
    }

    /// Draws a vertical line with its name above the plot, if it lies inside.
    pub fn vertical(&mut self, x: f64, name: String) {
        let (low, high) = self.x.scale.ends();
        if (low..=high).contains(&x) {
            let x = self.x(x);
            let ends = [(x, 0.0), (x, self.height)];
            self.body += &path("ax d", &ends, &name).0;
            self.above.push((x, name));
        }
    }

    /// Adds an entry to the legend, whose lines may hold several.
    pub fn legend(&mut self, swatch: Markup, text: &str) {
        self.legend.push((swatch, fit(text, 300.0, FONT)));
    }

    /// The chart with everything around it.
    pub fn finish(mut self, title: &str, subtitle: &str) -> Drawing {
        let most = WIDTH - 2.0 * MARGIN;
        let (names, rows) = self.names_above();
        let named = f64::from(u8::from(self.y.is_some())) * LINE;
        let top = 16.0 + LINE + named + rows as f64 * LINE + 11.0;
        let (legend, lines) = self.legend_rows();
        let height = top + self.height + 36.0 + lines as f64 * LINE + 8.0;
        let body = html! {
            text class="t" x=(MARGIN) y="16" { (fit(title, most, TITLE)) }
            text x=(MARGIN) y="31" { (fit(subtitle, most, FONT)) }
            @if let Some(y) = &self.y { text x=(MARGIN) y="46" { (y.name) } }
            g transform={ "translate(0 " (n(top)) ")" } {
                (names)
                (self.x_axis())
                @if let Some(y) = &self.y { (self.y_axis(&y.scale)) }
                (maud::PreEscaped(&self.body))
                (legend)
            }
        };
        Drawing { title: title.into(), subtitle: subtitle.into(), height, body }
    }

    fn x_axis(&self) -> Markup {
        let scale = &self.x.scale;
        // Labels are centred, but must not cross the edge or touch each other.
        let place = |&tick: &f64| {
            let half = length(&scale.tick(tick), FONT) / 2.0;
            let x = self.x(tick);
            let middle = x.clamp(half, WIDTH - half);
            (x, middle, half)
        };
        let ticks = scale.ticks(|ticks| {
            let places: Vec<_> = ticks.iter().map(place).collect();
            let apart = |w: &[(f64, f64, f64)]| w[0].1 + w[0].2 + 8.0 < w[1].1 - w[1].2;
            places.windows(2).all(apart)
        });
        let (low, high) = (self.left(), RIGHT);
        html! {
            @for tick in &ticks {
                @let (x, middle, _) = place(tick);
                (path("g", &[(x, 0.0), (x, self.height)], ""))
                text x=(n(middle)) y=(n(self.height + 17.0)) text-anchor="middle" { (scale.tick(*tick)) }
            }
            (path("ax", &[(low, self.height), (high, self.height)], ""))
            text x=(n((low + high) / 2.0)) y=(n(self.height + 31.0)) text-anchor="middle" { (self.x.name) }
        }
    }

    fn y_axis(&self, scale: &Scale) -> Markup {
        let apart = |w: &[f64]| (self.y(w[0]) - self.y(w[1])).abs() >= 22.0;
        html! {
            @for tick in scale.ticks(|ticks| ticks.windows(2).all(apart)) {
                @let y = self.y(tick);
                (path("g", &[(self.left(), y), (RIGHT, y)], ""))
                text x=(n(self.left() - 5.0)) y=(n(y + 3.5)) text-anchor="end" { (scale.tick(tick)) }
            }
        }
    }

    /// The names of vertical lines, in as many rows as needed: each in the lowest row with room.
    fn names_above(&mut self) -> (Markup, usize) {
        self.above.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut ends: Vec<f64> = vec![];
        let names = html! {
            @for (x, name) in &self.above {
                @let half = length(name, FONT) / 2.0;
                @let middle = x.clamp(MARGIN + half, WIDTH - half - 2.0);
                @let row = ends.iter().position(|&end| end + 6.0 < middle - half);
                @let row = row.unwrap_or_else(|| { ends.push(0.0); ends.len() - 1 });
                @let y = -6.0 - row as f64 * LINE;
                text x=(n(middle)) y=(n(y)) text-anchor="middle" { (name) }
                @let () = ends[row] = middle + half;
            }
        };
        (names, ends.len())
    }

    fn legend_rows(&self) -> (Markup, usize) {
        let (mut x, mut row) = (MARGIN, 0);
        let mut place = |text: &str| {
            let long = 22.0 + length(text, FONT);
            if x > MARGIN && x + long > WIDTH {
                (x, row) = (MARGIN, row + 1);
            }
            let left = x;
            x += long + 14.0;
            (left, self.height + 36.0 + LINE * (row as f64 + 1.0))
        };
        let rows = html! {
            @for (swatch, text) in &self.legend {
                @let (x, y) = place(text);
                g transform={ "translate(" (n(x)) " " (n(y)) ")" } {
                    (swatch)
                    text x="22" y="0" { (text) }
                }
            }
        };
        (rows, row + usize::from(!self.legend.is_empty()))
    }
}

/// The bar of strips, for the legend.
pub fn bar_swatch() -> Markup {
    path("b", &[(8.0, -10.0), (8.0, 2.0)], "")
}

fn path(class: &str, points: &[(f64, f64)], title: &str) -> Markup {
    let points: Vec<_> = points.iter().map(|&(x, y)| format!("{},{}", n(x), n(y))).collect();
    html! { polyline class=(class) points=(points.join(" ")) { (tip(title)) } }
}

fn tip(title: &str) -> Markup {
    html! { @if !title.is_empty() { title { (title) } } }
}

/// A coordinate.
fn n(x: f64) -> f64 {
    (x * 10.0).round() / 10.0
}

/// The text, cut to this width.
fn fit(text: &str, most: f64, size: f64) -> String {
    clip(text, most, |c| width(c) * size).into_owned()
}

/// An upper bound of the width of a text in the usual fonts.
fn length(text: &str, size: f64) -> f64 {
    text.chars().map(width).sum::<f64>() * size
}

/// The width of a character, relative to the font size.
fn width(c: char) -> f64 {
    match c {
        'i' | 'j' | 'l' | '.' | ',' | ':' | '\'' | '|' | '!' => 0.34,
        ' ' | 'f' | 't' | 'r' | '(' | ')' | '-' | '/' => 0.42,
        'm' | 'w' | 'M' | 'W' | '@' | '%' | '…' => 1.0,
        'A'..='Z' => 0.76,
        c if c.is_ascii() => 0.645,
        _ => 1.1,
    }
}
