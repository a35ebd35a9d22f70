//! Every bound that the documentation states, searched for inputs that exceed it: a table of
//! functions, types and bounds, each against double-double arithmetic.
//!
//! A search starts with adversarial inputs (few columns, copies, peaks, flushed elements) and
//! climbs from the best by steps of single bits and by copies. Each entry of the table has a fifth
//! of a second; `SOFTMAX_SEARCH=600` gives it 600 seconds, and other starts each time.
//! `SOFTMAX_SEARCH_ONLY=gradient` searches entries with that in their name. Every kernel has the
//! same bits, so only the fastest is searched.

#[path = "../common/mod.rs"]
mod common;
mod entropies;
mod functions;
mod search;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use search::{Entry, Found};
use softmax_measure::oracle::{Dd, F64, Scaled, ulps_scaled};

#[test]
fn no_bound_is_exceeded() {
    let var = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let seconds = var("SOFTMAX_SEARCH").map(|s| s.parse::<f64>().expect("a number of seconds"));
    let time = Duration::from_secs_f64(seconds.unwrap_or(0.2));
    let first = match seconds {
        None => 1,
        Some(_) => std::time::UNIX_EPOCH.elapsed().map_or(1, |t| t.as_nanos() as u64),
    };
    let only = var("SOFTMAX_SEARCH_ONLY").unwrap_or_default();
    let mut table = functions::table();
    table.retain(|entry| entry.name.contains(&only));
    assert!(!table.is_empty(), "nothing in the table has {only:?} in its name");
    println!("start {first}, {time:?} for each of {}", table.len());
    let (next, exceeded) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let walk = || {
        while let Some(entry) = table.get(next.fetch_add(1, Ordering::Relaxed)) {
            let found = (entry.search)(first, time);
            let line = line(entry, &found);
            println!("{line}");
            // A search without a result must fail.
            if found.ratio.is_nan() || found.ratio > 1.0 || found.ratio == 0.0 {
                exceeded.lock().expect("no panic").push(line);
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get().min(8));
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(walk))));
    let exceeded = exceeded.into_inner().expect("no panic");
    assert!(exceeded.is_empty(), "{} bounds do not hold:\n{}", exceeded.len(), exceeded.join("\n"));
}

fn line(entry: &Entry, found: &Found) -> String {
    let Entry { name, dtype, bound, .. } = entry;
    let Found { ratio, tries, what, .. } = found;
    let input = if *ratio > 1.0 { format!("\n    {what}") } else { String::new() };
    format!("{ratio:8.4} of the bound: {name} {dtype} ({bound}), {tries} tries{input}")
}

/// The functions of the oracle that only this test uses, against 60 digits from mpmath, cut into
/// two f64.
#[test]
fn the_oracle_is_right() {
    for (x, m1, log, tanh) in ORACLE {
        let x = Dd(x, 0.0);
        let right = |got: Dd, (hi, lo): (f64, f64), what: &str| {
            let relative = got.sub(Dd(hi, lo)).0 / hi;
            assert!(relative.abs() < 1e-28, "{what}({x:?}) = {got:?}: {relative:e}");
        };
        right(x.exp_m1(), m1, "expm1");
        right(x.tanh(), tanh, "tanh");
        if let Some(log) = log {
            right(x.ln_1p(), log, "log1p");
        }
    }
    // Errors of half an ULP, above and below a power of two, and in subnormal numbers.
    let third = Scaled::of(Dd(1.0, 0.0)).div(Dd(3.0, 0.0));
    let one = Scaled::of(Dd(1.0, 2f64.powi(-53)));
    let least = Scaled(Dd(1.5, 0.0), -1074);
    assert!(ulps_scaled(1.0 / 3.0, third, F64) < 0.5);
    assert_eq!(ulps_scaled(1.0, one, F64), 0.5);
    assert_eq!(ulps_scaled(1.0, Scaled::of(Dd(1.0, -(2f64.powi(-53)))), F64), 0.5);
    assert_eq!(ulps_scaled(f64::from_bits(1), least, F64), 0.5);
    assert_eq!(ulps_scaled(0.0, least, F64), 1.5);
    assert_eq!(ulps_scaled(f64::NAN, least, F64), f64::INFINITY);
    // Cancellation, and a term that is small beside the other.
    let difference = one.add(Scaled::of(Dd(-1.0, 0.0)));
    assert_eq!(difference.to_dd().0, 2f64.powi(-53));
    assert_eq!(Scaled::ZERO.add(least).to_dd().0, f64::from_bits(2));
}

type Pair = (f64, f64);

/// x, exp(x) - 1, ln(1 + x), tanh(x).
const ORACLE: [(f64, Pair, Option<Pair>, Pair); 7] = [
    (1e-20, (1e-20, 5e-41), Some((1e-20, -5e-41)), (1e-20, -3.333333333333333e-61)),
    (
        -3e-09,
        (-2.9999999955e-09, 1.5122984558962938e-25),
        Some((-3.0000000045e-09, -1.6472984560650437e-25)),
        (-3e-09, 9e-27),
    ),
    (
        0.0007,
        (0.0007002450571766722, 2.865027624267383e-20),
        Some((0.0006997551142733419, 8.045441159182502e-21)),
        (0.000699999885666689, 1.545148224004216e-20),
    ),
    (
        -0.02,
        (-0.0198013266932447, 6.082951412415831e-19),
        Some((-0.02020270731751945, -2.9516290593256484e-19)),
        (-0.019997333759930933, 9.87077435282886e-19),
    ),
    (
        0.3,
        (0.3498588075760031, 1.6549155728191776e-17),
        Some((0.26236426446749106, -1.6067257209028454e-17)),
        (0.2913126124515909, -6.4602656586469586e-18),
    ),
    (
        5.5,
        (243.69193226422038, 4.129320187450839e-15),
        Some((1.8718021769015913, 8.527373681433177e-17)),
        (0.9999665971563038, 4.933089545428797e-17),
    ),
    (-30.0, (-0.9999999999999064, -1.557128749895031e-17), None, (-1.0, 1.751302152539304e-26)),
];
