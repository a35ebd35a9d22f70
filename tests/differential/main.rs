//! A differential fuzzer: random calls of every operation, computed in every way, against the
//! scalar reference of each row alone.
//!
//! A call has random data and options, to both ends of their ranges. A way is a kernel, threads,
//! cache sizes, in place or not, the places of the arguments, and the rows that are in the call,
//! with their order. Bits must be equal, every NaN the one NaN, and nothing but the outputs' rows
//! written.
//!
//! - `SOFTMAX_FUZZ=3600`: seconds. Up to a minute (5 s by default) the calls are the same every
//!   time; longer runs start elsewhere each time and print where; `SOFTMAX_FUZZ_START=n` starts at
//!   `n`.
//! - `SOFTMAX_FUZZ_SEED=n`: this one case, with all of its data. A process that dies has left the
//!   number of its case in `differential-*.seed` in the directory `target/tmp`.
//! - `SOFTMAX_FUZZ_ALL=1`: goes on after a finding, and fails at the end.

#[path = "../common/mod.rs"]
mod common;
mod operations;
mod place;
mod values;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fs::File;
use std::io::{Seek, Write};
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use common::{Options, Random, scalar, with_the_other_stores};
use operations::Operation;
use place::{Layout, Wrong};
use softmax::{Caches, Executor, Kernel, Threads};
use values::Draws;

/// Executors, which call bodies in one way or another.
#[derive(Clone, Copy, Debug)]
struct Hands {
    kind: usize,
    threads: usize,
}

impl Executor for Hands {
    fn threads(&self) -> usize {
        self.threads
    }

    fn parallel_for(&self, count: usize, body: &(dyn Fn(usize) + Sync)) {
        match self.kind {
            0 => (0..count).for_each(body),
            1 => (0..count).rev().for_each(body),
            2 => (0..count).filter(|i| i % 2 == 1).for_each(body),
            3 => {}
            _ => std::thread::scope(|scope| {
                (0..count).for_each(|i| drop(scope.spawn(move || body(i))));
            }),
        }
    }
}

/// How a call is made.
#[derive(Clone)]
pub struct Way {
    kernel: &'static Kernel,
    /// The kernels of the parts of a row in shards.
    kernels: Vec<&'static Kernel>,
    threads: Threads,
    hands: Option<Hands>,
    caches: Option<Caches>,
    in_place: bool,
    layout: Layout,
    /// The seed for the places of arguments.
    seed: u64,
}

impl Debug for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { threads, hands, caches, in_place, layout, .. } = self;
        write!(
            f,
            "{}, {threads:?}, {hands:?}, {caches:?}, in place {in_place}, {layout:?}",
            self.kernel.name()
        )
    }
}

impl Way {
    /// The scalar kernel, on one thread, with plain arguments.
    fn reference() -> Self {
        let kernel = scalar();
        Self {
            kernel,
            kernels: vec![kernel],
            threads: Threads::Serial,
            hands: None,
            caches: None,
            in_place: false,
            layout: Layout::Plain,
            seed: 0,
        }
    }

    fn is_reference(&self) -> bool {
        self.kernel.name() == "scalar" && self.layout == Layout::Plain && self.seed == 0
    }

    fn any(r: &mut Random, kernels: &[&'static Kernel]) -> Self {
        // The reference with several rows, sometimes.
        let kernel = if r.once_in(12) { scalar() } else { r.one(kernels) };
        let some = |n| NonZeroUsize::new(n).expect("a number above 0");
        let threads = match r.below(10) {
            0 => Threads::Exactly(some(2)),
            1 => Threads::Exactly(some(r.size(2, 9))),
            2 => Threads::AtMost(some(2)),
            3 | 4 => Threads::Auto,
            _ => Threads::Serial,
        };
        let hands = (threads != Threads::Serial && !r.once_in(3))
            .then(|| Hands { kind: r.below(5), threads: r.size(1, 5) });
        let size = |r: &mut Random| match r.below(3) {
            0 => 0,
            1 => usize::MAX,
            _ => r.size(1, 1 << 17),
        };
        let caches = r.once_in(2).then(|| Caches::new(size(r), size(r)));
        let mut layout = r.one(&[Layout::Plain, Layout::Loose, Layout::Loose, Layout::Guarded]);
        if cfg!(not(unix)) && layout == Layout::Guarded {
            layout = Layout::Loose;
        }
        Self {
            kernel,
            kernels: kernels.to_vec(),
            threads,
            hands,
            caches,
            in_place: r.once_in(3),
            layout,
            seed: r.next() | 1,
        }
    }

    fn options(&self) -> Options<'_> {
        let options = Options::new().kernel(self.kernel).threads(self.threads);
        let options = match &self.hands {
            Some(hands) => options.executor(hands),
            None => options,
        };
        match self.caches {
            Some(caches) => options.caches(caches),
            None => options,
        }
    }

    fn random(&self) -> Random {
        Random(self.seed)
    }
}

/// Random rows for a call: one, all, or some in or out of order.
fn any_rows(r: &mut Random, operation: &dyn Operation) -> Vec<usize> {
    let n = operation.rows();
    let all = (0..n).collect();
    if n == 0 {
        return all;
    }
    match r.below(6) {
        0 => vec![r.below(n)],
        1 if operation.any_order() => (0..r.size(1, 2 * n)).map(|_| r.below(n)).collect(),
        2 => {
            let from = r.below(n);
            (from..from + r.size(1, n - from)).collect()
        }
        _ => all,
    }
}

/// Compares the results of rows computed in a way. Returns what is wrong, and with which row.
fn compare(
    operation: &dyn Operation,
    rows: &[usize],
    way: &Way,
    want: &[Result<Vec<f64>, Wrong>],
) -> Result<(), (Option<usize>, String)> {
    let got = match operation.run(rows, way) {
        Ok(got) => got,
        Err(Wrong::Harm(harm)) => return Err((None, harm)),
        Err(refused) => {
            // A refusal must be that of one of its rows. (Distances and the like may be in the
            // error.)
            let is_refused = |&row: &usize| matches!(want[row], Err(Wrong::Refused(_)));
            let same = rows.iter().any(is_refused) || rows.is_empty();
            return if same { Ok(()) } else { Err((None, format!("{refused:?}"))) };
        }
    };
    if got.len() != rows.len() {
        return Err((None, format!("results of {} rows", got.len())));
    }
    for (at, (&row, got)) in rows.iter().zip(&got).enumerate() {
        let want = match &want[row] {
            Ok(want) => want,
            Err(wrong) => return Err((Some(row), format!("results where alone it is {wrong:?}"))),
        };
        if got.len() != want.len() {
            return Err((Some(row), format!("{} results, alone {}", got.len(), want.len())));
        }
        let differs = |(g, w): (&f64, &f64)| g.to_bits() != w.to_bits();
        if let Some(i) = got.iter().zip(want).position(differs) {
            let count = got.iter().zip(want).filter(|&(g, w)| differs((g, w))).count();
            let (g, w) = (got[i], want[i]);
            return Err((
                Some(row),
                format!(
                    "row {row}, the call's {at}th, result {i} of {}: {g:e} ({:#x}), alone by the reference {w:e} ({:#x}); {count} differ",
                    got.len(),
                    g.to_bits(),
                    w.to_bits()
                ),
            ));
        }
    }
    Ok(())
}

/// The same finding with fewer rows and in a simpler way, if possible.
fn simplest(
    operation: &dyn Operation,
    rows: &[usize],
    way: &Way,
    row: Option<usize>,
    want: &[Result<Vec<f64>, Wrong>],
) -> (Vec<usize>, Way, String) {
    let mut fewer: Vec<Vec<usize>> = Vec::new();
    if let Some(row) = row {
        fewer.push(vec![row]);
        let at = rows.iter().position(|&r| r == row).unwrap_or(0);
        for before in [1, 2, 7] {
            fewer.push(rows[at.saturating_sub(before)..=at].to_vec());
        }
    }
    fewer.push(rows.to_vec());
    let plain = Way { layout: Layout::Plain, in_place: false, ..way.clone() };
    let serial = Way { threads: Threads::Serial, hands: None, ..plain.clone() };
    let no_caches = Way { caches: None, ..serial.clone() };
    for rows in &fewer {
        for way in [&no_caches, &serial, &plain, way] {
            if let Err((_, what)) = compare(operation, rows, way, want) {
                return (rows.clone(), way.clone(), what);
            }
        }
    }
    (rows.to_vec(), way.clone(), "cannot be repeated".into())
}

/// Counts of what was compared.
#[derive(Default, Debug)]
struct Counts {
    calls: usize,
    rows: usize,
    /// Rows with a result other than 0 and NaN.
    informative: usize,
    refused: usize,
}

/// The case of a seed.
fn case(
    seed: u64,
    kernels: &[&'static Kernel],
    counts: &mut BTreeMap<String, Counts>,
) -> Result<(), String> {
    let r = &mut Random(seed);
    // Mixed, so that consecutive seeds have nothing in common.
    r.0 = r.next();
    let operation = operations::any(r);
    examine(&*operation, &format!("SOFTMAX_FUZZ_SEED={seed}"), counts, 3, |_| {
        (Way::any(r, kernels), any_rows(r, &*operation))
    })
}

/// Computes an operation's rows alone by the reference, and in this many random ways.
fn examine(
    operation: &dyn Operation,
    of: &str,
    counts: &mut BTreeMap<String, Counts>,
    ways: usize,
    mut way: impl FnMut(usize) -> (Way, Vec<usize>),
) -> Result<(), String> {
    let mut want = Vec::new();
    for row in 0..operation.rows() {
        let alone = operation.run(&[row], &Way::reference());
        want.push(alone.map(|mut rows| rows.pop().unwrap_or_default()));
    }
    let name = format!("{operation:?}");
    let name = name.split(['<', ' ', '(', ',']).next().unwrap_or_default().to_string();
    let counts = counts.entry(name).or_default();
    let fail = |row: Option<usize>, what: &str, rest: String| {
        let data = row.map(|row| operation.show(row)).unwrap_or_default();
        Err(format!("{of}: {operation:?}\n    {what}\n    {rest}\n    {data}"))
    };
    for (row, want) in want.iter().enumerate() {
        let want = match want {
            Ok(want) => want,
            Err(Wrong::Harm(harm)) => return fail(Some(row), harm, "the reference".into()),
            Err(Wrong::Refused(_)) => {
                counts.refused += 1;
                continue;
            }
        };
        let other_nan = |v: &f64| v.is_nan() && v.to_bits() != f64::NAN.to_bits();
        if let Some(i) = want.iter().position(other_nan) {
            let bits = want[i].to_bits();
            return fail(
                Some(row),
                &format!("result {i} is another NaN: {bits:#x}"),
                "the reference".into(),
            );
        }
        let wrong =
            operation.is_nan(row).and_then(|nan| want.iter().position(|v| v.is_nan() != nan));
        if let Some(i) = wrong {
            let what = format!(
                "row {row}, result {i} of {} is {}, which must not be",
                want.len(),
                want[i]
            );
            return fail(Some(row), &what, "the reference".into());
        }
    }
    for i in 0..ways {
        let (way, rows) = way(i);
        counts.calls += 1;
        if let Err((row, what)) = compare(operation, &rows, &way, &want) {
            let (fewer, simpler, again) = simplest(operation, &rows, &way, row, &want);
            let rest = format!(
                "rows {rows:?}, {way:?}\n    simpler: rows {fewer:?}, {simpler:?}: {again}"
            );
            return fail(row, &what, rest);
        }
        counts.rows += rows.len();
        let says = |v: &f64| v.is_finite() && *v != 0.0;
        let informative = |&&row: &&usize| want[row].as_ref().is_ok_and(|w| w.iter().any(says));
        counts.informative += rows.iter().filter(informative).count();
    }
    Ok(())
}

/// Small shapes of every operation: groups of rows that are full, incomplete or of one row; every
/// length around a vector; a row of several blocks in pieces. Few cases, the same every time: for
/// memory checkers, which `.ci/memcheck` runs.
#[test]
fn small_shapes() {
    let kernels = common::exact();
    let mut shapes = vec![(13, 10), (9, 1), (9, 3), (9, 17), (64, 2), (1, 4500)];
    shapes.extend((1..=70).map(|cols| ([1, 8, 9, 19][cols % 4], cols)));
    let (mut r, mut counts) = (Random(17), BTreeMap::new());
    for (at, &shape) in shapes.iter().enumerate() {
        for kind in 0..operations::KINDS {
            for dtype in 0..4 {
                // All types for the first shapes, one for each of the others.
                if at >= 6 && (at + kind) % 4 != dtype {
                    continue;
                }
                for _ in 0..if at < 6 { 2 } else { 1 } {
                    let operation = operations::case(&mut r, kind, dtype, shape);
                    let all: Vec<usize> = (0..operation.rows()).collect();
                    let of = format!("small_shapes {shape:?} kind {kind} type {dtype}");
                    let seed = r.next() | 1;
                    let way = |i: usize| {
                        let way = Way {
                            kernel: kernels[(at + i) % kernels.len()],
                            kernels: kernels.clone(),
                            // One way in pieces, where a row is longer than a block.
                            caches: (i == 1).then_some(Caches::new(0, 0)),
                            in_place: i == 2,
                            layout: if i == 2 { Layout::Loose } else { Layout::Plain },
                            seed,
                            ..Way::reference()
                        };
                        (way, all.clone())
                    };
                    examine(&*operation, &of, &mut counts, 3, way)
                        .unwrap_or_else(|e| panic!("{e}"));
                }
            }
        }
    }
    for (name, counts) in &counts {
        println!("{name}: {counts:?}");
        assert!(counts.informative * 3 > counts.rows, "{name}: too few rows say anything");
    }
}

fn number(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok().filter(|value| !value.is_empty())?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name} must be a number, got {value:?}")))
}

/// The file with the number of the case, for a process that dies.
fn seed_file(stores: &str) -> File {
    let name = format!("differential-{}-{stores}.seed", std::process::id());
    let dir = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
    let dir = if dir.is_dir() { dir.to_path_buf() } else { std::env::temp_dir() };
    File::create(dir.join(name)).expect("a file for the number of the case")
}

#[test]
fn every_way_gives_the_bits_of_the_reference() {
    search("usual");
}

#[test]
fn so_it_does_by_the_other_stores() {
    with_the_other_stores(|| search("other"));
}

/// Searches with this CPU's usual stores, or with the others.
fn search(stores: &str) {
    let kernels = common::exact();
    let mut counts = BTreeMap::new();
    if let Some(seed) = number("SOFTMAX_FUZZ_SEED") {
        if let Err(finding) = case(seed, &kernels, &mut counts) {
            panic!("by {stores} stores: {finding}");
        }
        println!("SOFTMAX_FUZZ_SEED={seed}, by {stores} stores: nothing");
        return;
    }
    // Half of the time is for the other stores.
    let seconds = number("SOFTMAX_FUZZ").unwrap_or(5);
    let time = Duration::from_millis(seconds * 500);
    let clock = || std::time::UNIX_EPOCH.elapsed().map_or(0, |t| t.as_nanos() as u64);
    let first = number("SOFTMAX_FUZZ_START").unwrap_or(if seconds <= 60 { 0 } else { clock() });
    println!("SOFTMAX_FUZZ_START={first}");
    let mut file = seed_file(stores);
    let (start, mut seed, mut findings) = (Instant::now(), first, 0);
    while start.elapsed() < time {
        let _ = file.rewind().and_then(|()| writeln!(file, "{seed:20}"));
        let found = catch_unwind(AssertUnwindSafe(|| case(seed, &kernels, &mut counts)));
        let found = found.unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|&s| s.into()));
            Err(format!("SOFTMAX_FUZZ_SEED={seed}: a panic: {}", text.unwrap_or_default()))
        });
        if let Err(finding) = found {
            findings += 1;
            assert!(number("SOFTMAX_FUZZ_ALL").is_some(), "by {stores} stores: {finding}");
            println!("by {stores} stores: {finding}\n");
        }
        seed = seed.wrapping_add(1);
    }
    println!("{} cases", seed.wrapping_sub(first));
    for (name, counts) in &counts {
        println!("{name}: {counts:?}");
        // NaN and 0 would be equal whatever is computed.
        let enough = counts.rows < 1000 || counts.informative * 3 > counts.rows;
        assert!(enough, "{name}: too few rows say anything: {counts:?}");
    }
    assert!(seed.wrapping_sub(first) >= 20, "only {} cases", seed.wrapping_sub(first));
    assert_eq!(findings, 0, "findings are above");
}
