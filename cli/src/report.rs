//! `softmax report`: reports side by side.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde_json::json;
use softmax_report::Report as Of;

use crate::failure::Failure;
use crate::output::{Target, check_distinct};
use crate::stdout;

/// Shows reports of `softmax bench`, and compares the others with the first.
///
/// Prints a table, unless a file is asked for.
#[derive(Debug, clap::Args)]
pub struct Report {
    /// The reports.
    #[arg(value_name = "REPORT", required = true)]
    reports: Vec<PathBuf>,
    /// Writes a page with all tables and charts, one HTML file.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Writes each chart to this folder as an SVG file.
    #[arg(long, value_name = "FOLDER")]
    svg: Option<PathBuf>,
    /// Writes each chart to this folder as a PNG file.
    #[arg(long, value_name = "FOLDER", hide = cfg!(not(feature = "png")))]
    png: Option<PathBuf>,
    /// How wide a PNG file is, in pixels.
    #[arg(long, value_name = "N", default_value_t = 1440, requires = "png", hide = cfg!(not(feature = "png")), value_parser = clap::value_parser!(u32).range(64..=16_384))]
    width: u32,
    /// Writes all cases, a line for each.
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Ends with 1, and names the case, if one of a later report has less than this share of the
    /// first report's speed.
    #[arg(long, value_name = "FACTOR", value_parser = factor)]
    fail_below: Option<f64>,
    /// Replaces files that exist. Their permissions stay.
    #[arg(long)]
    force: bool,
    /// Prints one JSON object instead of a table: the best kernel of each case, and the cases below
    /// --fail-below.
    #[arg(long)]
    json: bool,
}

fn factor(text: &str) -> Result<f64, String> {
    let factor: f64 = text.parse().map_err(|_| "not a number")?;
    if factor > 0.0 && factor.is_finite() { Ok(factor) } else { Err("not above 0".into()) }
}

/// The most bytes of a report: some thousand times its usual size.
const MOST: u64 = 1 << 28;

impl Report {
    /// Runs the subcommand.
    pub fn run(&self) -> Result<(), Failure> {
        let reports = self.reports.iter().map(|path| read(path));
        let reports = reports.collect::<Result<Vec<Of>, _>>()?;
        let mut files: Vec<(Target, Vec<u8>)> = Vec::new();
        // Refuses what cannot be written before anything is made.
        let target = |path: &PathBuf| Target::any(path, self.force);
        let page = self.output.as_ref().map(target).transpose()?;
        let csv = self.csv.as_ref().map(target).transpose()?;
        check_distinct(page.iter().chain(&csv))?;
        if let Some(target) = page {
            files.push((target, softmax_report::html(&reports).into_bytes()));
        }
        if let Some(target) = csv {
            files.push((target, softmax_report::csv(&reports).into_bytes()));
        }
        if self.svg.is_some() || self.png.is_some() {
            for chart in softmax_report::charts(&reports) {
                if let Some(folder) = &self.png {
                    let image = picture(&chart.svg, self.width)?;
                    files.push((target(&folder.join(format!("{}.png", chart.name)))?, image));
                }
                if let Some(folder) = &self.svg {
                    let path = folder.join(format!("{}.svg", chart.name));
                    files.push((target(&path)?, chart.svg.into_bytes()));
                }
            }
        }
        // Either all files can be written, or none is.
        check_distinct(files.iter().map(|(target, _)| target))?;
        for folder in [&self.svg, &self.png].into_iter().flatten() {
            fs::create_dir_all(folder).map_err(|e| Failure::new(folder.display(), e))?;
        }
        let prints = files.is_empty();
        let outputs = files.into_iter().map(|(target, bytes)| target.create(&bytes));
        let outputs = outputs.collect::<Result<Vec<_>, _>>()?;
        outputs.into_iter().try_for_each(|output| output.finish().map(drop))?;

        let below = self.fail_below.map(|factor| softmax_report::below(&reports, factor));
        let below = below.transpose().map_err(|e| Failure::new("--fail-below", e))?;
        let lines = below.iter().flatten().map(ToString::to_string).collect::<Vec<_>>();
        if self.json {
            let cases = softmax_report::json(&reports);
            stdout::print_json(&json!({ "cases": cases, "below": below.map(|_| &lines) }))?;
        } else {
            if prints {
                stdout::print_text(&softmax_report::table(&reports))?;
            }
            stdout::print(&lines)?;
        }
        match self.fail_below {
            Some(factor) if !lines.is_empty() => {
                let cause = format!("{} cases, named above", lines.len());
                Err(Failure::finding(format!("below {factor} of the first report"), cause))
            }
            _ => Ok(()),
        }
    }
}

/// A chart as a PNG file of this width.
#[cfg(feature = "png")]
fn picture(svg: &str, width: u32) -> Result<Vec<u8>, Failure> {
    softmax_report::png(svg, width).map_err(|e| Failure::new("--png", e))
}

/// The feature that draws it is not compiled.
#[cfg(not(feature = "png"))]
fn picture(_: &str, _: u32) -> Result<Vec<u8>, Failure> {
    let cause = "this program was built without pictures: build it with --features png \
                 (cargo install --path cli --features png), or write --svg";
    Err(Failure::new("--png", cause))
}

/// Reads a report, which may come from a pipe.
fn read(path: &Path) -> Result<Of, Failure> {
    let name = path.display();
    let fail = |e: io::Error| Failure::new(name.to_string(), e);
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(fail)?;
    file.take(MOST + 1).read_to_end(&mut bytes).map_err(fail)?;
    if bytes.len() as u64 > MOST {
        return Err(Failure::new(name, "too large for a report"));
    }
    // The message begins with the file's name.
    softmax_report::read(&bytes, &name.to_string()).map_err(|e| Failure::new("report", e))
}
