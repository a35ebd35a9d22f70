//! A chart of cases against the machine's limits.

use super::frame::{Axis, Drawing, Frame, Look};
use super::scale::Scale;
use crate::format::{number, plural};
use crate::schema::Report;

/// Speed against arithmetic intensity, with the roofs of one thread and of the most threads. `None`
/// without cases that can be placed.
pub fn draw(report: &Report, machine: &str) -> Option<Drawing> {
    let timed = report.cases.iter().filter(|case| case.timed().is_some() && case.operations > 0.0);
    let points: Vec<_> = timed
        .map(|case| {
            let intensity = case.operations * case.elements as f64 / case.traffic as f64;
            (case, (intensity, case.operations * case.speed() / 1e9))
        })
        .collect();
    let x = Scale::ten(points.iter().flat_map(|(_, (x, _))| [x / 3.0, x * 3.0]))?;
    let roofs = roofs(report, x.ends());
    let flats = roofs.iter().flat_map(|r| &r.flats).map(|(_, y)| y * 1.5);
    let slopes = roofs.iter().filter(|r| r.flats.is_empty()).flat_map(|r| &r.slopes);
    let slopes = slopes.map(|(_, bandwidth)| bandwidth * x.ends().1);
    let ys = points.iter().flat_map(|(_, (_, y))| [y / 2.0, y * 1.5]);
    let y = Scale::ten(ys.chain(flats).chain(slopes))?;
    let mut frame = Frame::new(
        Axis { scale: x, name: "multiplications per byte" },
        Some(Axis { scale: y, name: "G multiplications/s" }),
        230.0,
    );
    for roof in &roofs {
        roof.lines(&mut frame, x.ends(), y.ends());
    }
    let most = report.most_threads();
    for (case, point) in &points {
        frame.mark(Look::kernel(&case.kernel, case.threads == 1), *point, &case.about());
    }
    for roof in &roofs {
        roof.labels(&mut frame, x.ends(), y.ends());
    }
    let mut kernels: Vec<_> = points.iter().map(|(case, _)| &case.kernel).collect();
    kernels.sort_unstable_by_key(|name| Look::kernel(name, true).series);
    kernels.dedup();
    for kernel in kernels {
        frame.legend(Look::kernel(kernel, true).swatch(), kernel);
    }
    let grey = |full| Look { series: 4, full };
    frame.legend(grey(true).line_swatch(), "roofs and filled marks: 1 thread");
    if most > 1 {
        let roofs = roofs.last().map_or(most, |roof| roof.threads);
        frame.legend(grey(false).line_swatch(), &format!("roofs of {}", plural(roofs, "thread")));
        frame.legend(Look { series: 0, full: false }.swatch(), "more than 1 thread");
    }
    Some(frame.finish("Roofline", machine))
}

/// The limits of a number of threads.
struct Roof {
    threads: usize,
    solid: bool,
    /// Levels and their GB/s.
    slopes: Vec<(String, f64)>,
    /// Kernels and their G operations/s in f32.
    flats: Vec<(String, f64)>,
}

/// The roofs of the fewest threads and of the most.
fn roofs(report: &Report, (low, high): (f64, f64)) -> Vec<Roof> {
    let limits = &report.limits;
    let threads = limits.memory.iter().map(|l| l.threads);
    let threads = threads.chain(limits.arithmetic.iter().map(|l| l.threads));
    let ends = [threads.clone().min(), threads.max()];
    let mut ends: Vec<_> = ends.into_iter().flatten().collect();
    ends.dedup();
    let good = |x: f64| x.is_finite() && x * low > 0.0 && (x * high).is_finite();
    let roof = |(i, threads)| {
        let memory = report.memory_limits(threads).into_iter();
        let flats = limits.arithmetic.iter().filter(|l| l.threads == threads && l.dtype == "f32");
        let slopes = memory.map(|(level, l)| (level, l.gb_per_second));
        let flats = flats.map(|l| (l.kernel.clone(), l.gops_per_second));
        Roof {
            threads,
            solid: i == 0,
            slopes: slopes.filter(|(_, x)| good(*x)).collect(),
            flats: flats.filter(|(_, x)| good(*x)).collect(),
        }
    };
    ends.into_iter().enumerate().map(roof).collect()
}

impl Roof {
    /// The ends of a slope inside the plot and under the highest flat roof.
    fn slope(&self, bandwidth: f64, x: (f64, f64), y: (f64, f64)) -> Option<[f64; 2]> {
        let top = self.flats.iter().map(|(_, y)| *y).reduce(f64::max).unwrap_or(y.1);
        let ends = [x.0.max(y.0 / bandwidth), x.1.min(top / bandwidth)];
        (ends[0] < ends[1]).then_some(ends)
    }

    /// The start of a flat roof: at the steepest slope.
    fn flat(&self, speed: f64, x: (f64, f64)) -> f64 {
        let bandwidth = self.slopes.iter().map(|(_, b)| *b).reduce(f64::max);
        bandwidth.map_or(x.0, |b| (speed / b).clamp(x.0, x.1))
    }

    fn lines(&self, frame: &mut Frame, x: (f64, f64), y: (f64, f64)) {
        let threads = plural(self.threads, "thread");
        for (level, bandwidth) in &self.slopes {
            if let Some(ends) = self.slope(*bandwidth, x, y) {
                let title = format!("{level}, {threads}: {} GB/s", number(*bandwidth));
                let class = if self.solid { "ax" } else { "ax d" };
                frame.classed_line(class, &ends.map(|x| (x, x * bandwidth)), &title);
            }
        }
        for (kernel, speed) in &self.flats {
            let title = format!("{kernel}, {threads}: {} G operations/s in f32", number(*speed));
            let ends = [(self.flat(*speed, x), *speed), (x.1, *speed)];
            frame.line(Look::kernel(kernel, self.solid), &ends, &title);
        }
    }

    fn labels(&self, frame: &mut Frame, x: (f64, f64), y: (f64, f64)) {
        // Along the line, from its left end.
        let along =
            |from: f64, to: f64| (0..60).map(move |i| from * (to / from).powf(f64::from(i) / 60.0));
        for (kernels, speed) in together(frame, self.flats.clone()) {
            let places = || along(self.flat(speed, x), x.1).map(|x| (x, speed)).rev();
            if !frame.label(&kernels, false, places()) {
                // There may be room for single names.
                for kernel in kernels.split(", ") {
                    frame.label(kernel, false, places());
                }
            }
        }
        let slopes = self.slopes.iter().filter(|(_, b)| self.slope(*b, x, y).is_some());
        for (levels, bandwidth) in together(frame, slopes.cloned().collect()) {
            if let Some([from, to]) = self.slope(bandwidth, x, y) {
                let places = along(from, to).map(|x| (x, x * bandwidth));
                frame.label(&levels, true, places);
            }
        }
    }
}

/// Merges the labels of lines that are too near to each other for two, at the highest of them.
fn together(frame: &Frame, mut lines: Vec<(String, f64)>) -> Vec<(String, f64)> {
    const NEAR: f64 = 8.0;
    lines.sort_by(|a, b| b.1.total_cmp(&a.1));
    let mut labels: Vec<(String, f64)> = vec![];
    for (name, y) in lines {
        match labels.last_mut() {
            // On logarithmic axes, parallel lines have the same distance everywhere.
            Some((names, top)) if frame.y(y) - frame.y(*top) < NEAR => {
                *names += &format!(", {name}")
            }
            _ => labels.push((name, y)),
        }
    }
    labels
}
