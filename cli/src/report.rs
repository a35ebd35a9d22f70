//! `softmax report`: what reports say, side by side.

use std::fs;
use std::path::PathBuf;

use softmax_report::Report as Of;

use crate::failure::Failure;
use crate::output::Target;
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
    #[arg(long, value_name = "FOLDER")]
    png: Option<PathBuf>,
    /// How wide a PNG file is, in pixels.
    #[arg(long, value_name = "N", default_value_t = 1440, requires = "png", value_parser = clap::value_parser!(u32).range(64..=16_384))]
    width: u32,
    /// Writes all cases, a line for each.
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Ends with 1 if a case of a later report has less than this part of the first one's speed, and names it.
    #[arg(long, value_name = "FACTOR", value_parser = factor)]
    fail_below: Option<f64>,
    /// Replaces files that exist.
    #[arg(long)]
    force: bool,
}

fn factor(text: &str) -> Result<f64, String> {
    let factor: f64 = text.parse().map_err(|_| "not a number")?;
    if factor > 0.0 && factor.is_finite() { Ok(factor) } else { Err("not above 0".into()) }
}

impl Report {
    /// Does it all.
    pub fn run(&self) -> Result<(), Failure> {
        let reports = self.reports.iter().map(|path| {
            let name = path.display();
            let bytes = fs::read(path).map_err(|e| Failure::new(name.to_string(), e))?;
            // The message begins with the name.
            softmax_report::read(&bytes, &name.to_string()).map_err(|e| Failure::new("report", e))
        });
        let reports = reports.collect::<Result<Vec<Of>, _>>()?;
        let mut files: Vec<(PathBuf, Vec<u8>)> = Vec::new();
        if let Some(path) = &self.output {
            files.push((path.clone(), softmax_report::html(&reports).into_bytes()));
        }
        if let Some(path) = &self.csv {
            files.push((path.clone(), softmax_report::csv(&reports).into_bytes()));
        }
        if self.svg.is_some() || self.png.is_some() {
            for chart in softmax_report::charts(&reports) {
                if let Some(folder) = &self.png {
                    let image = softmax_report::png(&chart.svg, self.width);
                    let image = image.map_err(|e| Failure::new("--png", e))?;
                    files.push((folder.join(format!("{}.png", chart.name)), image));
                }
                if let Some(folder) = &self.svg {
                    files
                        .push((folder.join(format!("{}.svg", chart.name)), chart.svg.into_bytes()));
                }
            }
        }
        // All of them can be written, or none is.
        let targets = files.iter().map(|(path, _)| Target::any(path, self.force));
        let targets = targets.collect::<Result<Vec<_>, _>>()?;
        for folder in [&self.svg, &self.png].into_iter().flatten() {
            fs::create_dir_all(folder).map_err(|e| Failure::new(folder.display(), e))?;
        }
        for (target, (_, bytes)) in targets.into_iter().zip(&files) {
            target.create(bytes)?.finish()?;
        }
        if files.is_empty() {
            print(&softmax_report::table(&reports))?;
        }
        if let Some(factor) = self.fail_below {
            let below = softmax_report::below(&reports, factor);
            let below = below.map_err(|e| Failure::new("--fail-below", e))?;
            let lines: Vec<_> = below.iter().map(ToString::to_string).collect();
            stdout::print(&lines)?;
            if !below.is_empty() {
                let cause = format!("{} cases, named above", below.len());
                return Err(Failure::finding(format!("below {factor} of the first report"), cause));
            }
        }
        Ok(())
    }
}

fn print(text: &str) -> Result<(), Failure> {
    stdout::print(&text.lines().map(str::to_owned).collect::<Vec<_>>())
}
