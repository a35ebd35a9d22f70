//! Later reports compared with the first.

use std::collections::HashMap;
use std::fmt;

use crate::cases::Key;
use crate::error::Error;
use crate::format::number;
use crate::schema::{Case, Report};

/// A case that is not as fast as in the first report, or that cannot be compared.
#[derive(Clone, Debug, PartialEq)]
pub struct Regression {
    /// The index of the report, counted from 0: at least 1.
    pub report: usize,
    /// The label of that report's machine.
    pub label: String,
    /// The case in words: operation, dtype, rows, cols, threads.
    pub case: String,
    /// The kernel.
    pub kernel: String,
    /// The change.
    pub change: Change,
}

/// The ways in which a case can change. Speeds are in elements per second.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Change {
    /// The case is slower than the factor allows.
    Slower {
        /// The speed in the first report.
        before: f64,
        /// The speed in the later report.
        now: f64,
    },
    /// The later report does not have it.
    Missing,
    /// The result was wrong in the later report.
    Wrong,
    /// The case was not timed in the later report.
    NotTimed,
    /// The case was not timed in the first report, or its result was wrong there: there is nothing
    /// to compare with.
    NoBaseline,
}

impl fmt::Display for Regression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { report, label, case, kernel, change } = self;
        let what = match change {
            Change::Slower { before, now } => format!(
                "{} G elements/s, was {} ({:.3} of it)",
                number(now / 1e9),
                number(before / 1e9),
                now / before
            ),
            Change::Missing => "missing".into(),
            Change::Wrong => "WRONG ANSWER".into(),
            Change::NotTimed => "not timed".into(),
            Change::NoBaseline => "not timed in the first report, or wrong there".into(),
        };
        let line = format!("report {} ({label}): {case}, {kernel}: {what}", report + 1);
        f.write_str(&line.replace(|c: char| c.is_control(), " "))
    }
}

/// All cases and kernels of the first report that are slower in a later one than `factor` times as
/// fast, or cannot be compared: a check never passes because there was nothing to check. Cases that
/// only later reports have are ignored.
///
/// # Errors
///
/// [`Error::TooFew`], [`Error::Factor`], and [`Error::NothingInCommon`] if a later report has none
/// of the first one's cases.
pub fn below(reports: &[Report], factor: f64) -> Result<Vec<Regression>, Error> {
    let [first, others @ ..] = reports else { return Err(Error::TooFew(0)) };
    if others.is_empty() {
        return Err(Error::TooFew(1));
    }
    if !(factor.is_finite() && factor > 0.0) {
        return Err(Error::Factor(factor));
    }
    let mut regressions = vec![];
    for (i, other) in others.iter().enumerate() {
        let theirs: HashMap<_, _> =
            other.cases.iter().map(|case| ((case.key(), &*case.kernel), case)).collect();
        let mut common = 0;
        for case in &first.cases {
            let now = theirs.get(&(case.key(), &*case.kernel)).copied();
            common += usize::from(now.is_some());
            let change = change(case, now, factor);
            regressions.extend(change.map(|change| Regression {
                report: i + 1,
                label: other.machine.label.clone(),
                case: case.key().to_string(),
                kernel: case.kernel.clone(),
                change,
            }));
        }
        if common == 0 {
            return Err(Error::NothingInCommon(i + 1));
        }
    }
    Ok(regressions)
}

fn change(before: &Case, now: Option<&Case>, factor: f64) -> Option<Change> {
    let Some(now) = now else { return Some(Change::Missing) };
    if !now.check.passed {
        return Some(Change::Wrong);
    }
    let speeds = before.timed().map(|b| b.elements_per_second);
    match (speeds, now.timed().map(|n| n.elements_per_second)) {
        (_, None) => Some(Change::NotTimed),
        (None, _) => Some(Change::NoBaseline),
        (Some(before), Some(now)) if now >= factor * before => None,
        (Some(before), Some(now)) => Some(Change::Slower { before, now }),
    }
}

/// A case of the first report that others have, too.
#[derive(Debug)]
pub struct Common<'a> {
    pub key: Key<'a>,
    /// The case of the fastest kernel, with times.
    pub first: &'a Case,
    /// The same case of each other report, if it has times.
    pub others: Vec<Option<&'a Case>>,
}

impl Common<'_> {
    /// The speed of each other report relative to the first.
    pub fn ratios(&self) -> impl Iterator<Item = Option<f64>> {
        self.others.iter().map(|other| other.map(|case| case.speed() / self.first.speed()))
    }
}

/// The best kernels' cases of the first report that at least one other report has, too.
pub fn common(reports: &[Report]) -> Vec<Common<'_>> {
    let [first, others @ ..] = reports else { return vec![] };
    let others: Vec<HashMap<_, _>> =
        others.iter().map(|other| timed(other).map(|case| (case.key(), case)).collect()).collect();
    let common = timed(first).map(|first| {
        let key = first.key();
        Common { key, first, others: others.iter().map(|o| o.get(&key).copied()).collect() }
    });
    common.filter(|case| case.others.iter().any(Option::is_some)).collect()
}

/// The best kernels' cases that have times.
fn timed(report: &Report) -> impl Iterator<Item = &Case> {
    report.best().into_iter().filter(|case| case.timed().is_some())
}
