//! Keys and descriptions of the cases of a report.

use std::collections::HashMap;
use std::fmt;

use crate::format::{bytes, number, percent, plural};
use crate::schema::{Cache, Case, CaseResult, Machine, MemoryLimit, Report};

/// What was computed, by any kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key<'a> {
    pub operation: &'a str,
    pub dtype: &'a str,
    pub rows: usize,
    pub cols: usize,
    pub threads: usize,
}

impl fmt::Display for Key<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { operation, dtype, rows, cols, threads } = self;
        write!(f, "{operation} {dtype} {rows} x {cols}, {}", plural(*threads, "thread"))
    }
}

/// Describes what was computed, and by which kernel.
impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", self.key(), self.kernel)
    }
}

impl Case {
    pub(crate) fn key(&self) -> Key<'_> {
        let Self { operation, dtype, rows, cols, threads, .. } = self;
        Key { operation, dtype, rows: *rows, cols: *cols, threads: *threads }
    }

    /// The result, unless it was wrong.
    pub(crate) fn timed(&self) -> Option<&CaseResult> {
        self.result.as_ref().filter(|_| self.check.passed)
    }

    /// Elements per second; 0 if there are no times.
    pub(crate) fn speed(&self) -> f64 {
        self.timed().map_or(0.0, |result| result.elements_per_second)
    }

    /// A description of the case in words.
    pub(crate) fn about(&self) -> String {
        let mut text = self.to_string();
        if let Some(result) = self.timed() {
            let (elements, bytes) = (result.elements_per_second / 1e9, result.gb_per_second);
            text += &format!(": {} G elements/s, {} GB/s", number(elements), number(bytes));
            if let (Some(part), Some(by)) = (result.fraction_of_limit, &result.bound_by) {
                text += &format!(", {} of the limit of {by}", percent(part));
            }
        }
        format!("{text}; {} in {}", bytes(self.bytes), self.level)
    }

    /// A description of what is wrong with the result, if anything.
    pub(crate) fn wrong(&self) -> Option<String> {
        let check = &self.check;
        if check.passed {
            return None;
        }
        let mut text = self.to_string();
        if check.digest != check.expected {
            text += &format!("; digest {}, expected {}", check.digest, check.expected);
        }
        if let (Some(error), Some(limit)) = (check.max_ulp, check.limit_ulp) {
            text += &format!("; error {error:.4} ULP of {limit} that are promised");
        }
        Some(text)
    }
}

impl Report {
    /// The fastest case of each key, in the order of the report; one without times if there is no
    /// other.
    pub(crate) fn best(&self) -> Vec<&Case> {
        let mut places = HashMap::new();
        let mut best: Vec<&Case> = vec![];
        for case in &self.cases {
            let place = *places.entry(case.key()).or_insert(best.len());
            match best.get_mut(place) {
                None => best.push(case),
                Some(other) if case.speed() > other.speed() => *other = case,
                Some(_) => {}
            }
        }
        best
    }

    /// The most threads of any limit or case.
    pub(crate) fn most_threads(&self) -> usize {
        let cases = self.cases.iter().map(|case| case.threads);
        let limits = self.limits.memory.iter().map(|limit| limit.threads);
        cases.chain(limits).max().unwrap_or(1)
    }

    /// The fastest loop of each level, the nearest first, with this number of threads.
    pub(crate) fn memory_limits(&self, threads: usize) -> Vec<(String, &MemoryLimit)> {
        let mut best: Vec<(String, &MemoryLimit)> = vec![];
        let mut limits: Vec<_> =
            self.limits.memory.iter().filter(|limit| limit.threads == threads).collect();
        limits.sort_by_key(|limit| limit.bytes);
        for limit in limits {
            let level = self.machine.level(limit.bytes, threads);
            let level = level.unwrap_or_else(|| bytes(limit.bytes));
            match best.iter_mut().find(|(other, _)| *other == level) {
                None => best.push((level, limit)),
                Some((_, other)) if limit.gb_per_second > other.gb_per_second => *other = limit,
                Some(_) => {}
            }
        }
        best
    }

    /// The marks that a reader must see first.
    pub(crate) fn marks(&self) -> Vec<&'static str> {
        let marks = [
            (self.machine.emulated, "EMULATED"),
            (!self.complete, "INCOMPLETE"),
            (self.machine.on_battery == Some(true), "ON BATTERY"),
        ];
        marks.into_iter().filter_map(|(is, mark)| is.then_some(mark)).collect()
    }
}

impl Machine {
    /// The caches for data.
    pub(crate) fn data_caches(&self) -> impl Iterator<Item = &Cache> {
        self.caches.iter().filter(|cache| cache.kind != "Instruction")
    }

    /// The level in which bytes lie if threads share them: `L1`, `L2`, `L3` or `memory`. It is the
    /// nearest one with room for a thread's share, or for all of them if the level is shared.
    /// `None` if the system does not tell its caches.
    pub fn level(&self, bytes: u64, threads: usize) -> Option<String> {
        self.data_caches().next()?;
        // The first two levels belong to single cores.
        let share =
            |cache: &Cache| if cache.level <= 2 { bytes / threads.max(1) as u64 } else { bytes };
        let cache = self.data_caches().find(|cache| share(cache) <= cache.size);
        Some(cache.map_or("memory".into(), |cache| format!("L{}", cache.level)))
    }
}
