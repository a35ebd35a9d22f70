//! Reports as `softmax bench` might write them.

use softmax_report::schema::*;

/// A kind of machine.
#[derive(Clone, Debug)]
pub struct Kind {
    pub label: &'static str,
    pub kernels: &'static [&'static str],
    pub threads: &'static [usize],
    /// All speeds are multiplied by this.
    pub factor: f64,
}

pub const BIG: Kind = Kind {
    label: "Xeon Platinum 8481C",
    kernels: &["avx512", "avx2", "portable", "scalar"],
    threads: &[1, 2, 4, 8, 16, 32, 64],
    factor: 1.0,
};
pub const SMALL: Kind = Kind { threads: &[1, 2], ..BIG };
pub const ARM: Kind = Kind {
    label: "Graviton3",
    kernels: &["neon", "portable", "scalar"],
    threads: &[1, 2, 4, 8],
    factor: 0.55,
};

/// A plausible report, always the same: `noise` goes from 0.97 to 1.03.
pub fn sample_report(kind: &Kind) -> Report {
    let mut seed = 1_u32;
    let mut noise = move || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        1.0 + (f64::from(seed >> 16) / 65_536.0 - 0.5) * 0.06
    };
    let f = kind.factor;
    let mut memory = vec![];
    for &threads in kind.threads {
        for (power, speed) in [(15, 240.0), (19, 110.0), (23, 42.0), (30, 20.0)] {
            for (name, part) in [("read", 0.8), ("copy", 0.9), ("copy_nt", 1.0), ("scale", 0.95)] {
                // Small sizes gain nothing by threads; memory is soon saturated.
                let gain = match power {
                    15 => 1.0,
                    30 => 9.0_f64.min(threads as f64),
                    _ => (threads as f64).powf(0.93),
                };
                let gb = f * speed * part * gain * noise();
                let (bytes, traffic) = (1_u64 << power, 1 << power);
                let timing = timing(traffic as f64 / gb / 1e9, &mut noise);
                let name = name.to_owned();
                memory.push(MemoryLimit {
                    name,
                    bytes,
                    threads,
                    traffic,
                    timing,
                    gb_per_second: gb,
                });
            }
        }
    }
    let mut arithmetic = vec![];
    for &threads in kind.threads {
        for kernel in kind.kernels.iter().filter(|&&k| k != "scalar") {
            for (dtype, half) in [("f32", 1.0), ("f64", 0.5)] {
                let gops = f * peak(kernel) * half * threads as f64 * noise();
                let operations = 1 << 24;
                arithmetic.push(ArithmeticLimit {
                    kernel: (*kernel).into(),
                    dtype: dtype.into(),
                    threads,
                    operations,
                    timing: timing(operations as f64 / gops / 1e9, &mut noise),
                    gops_per_second: gops,
                });
            }
        }
    }
    let mut cases = vec![];
    let mut add = |operation: &str, dtype: &str, rows: usize, cols: usize, threads: usize| {
        for kernel in kind.kernels {
            cases.push(case(kind, operation, dtype, (rows, cols), threads, kernel, &mut noise));
        }
    };
    for &threads in kind.threads {
        for rows in [4, 64, 1024, 131_072] {
            add("softmax", "f32", rows, 1024, threads);
        }
    }
    for power in (4..=22).filter(|&power| power != 10) {
        add("softmax", "f32", (4096 >> power).max(1), 1 << power, 1);
    }
    for dtype in ["f64", "f16", "bf16"] {
        add("softmax", dtype, 64, 1024, 1);
    }
    for operation in ["log_softmax", "logsumexp", "cross_entropy", "attention", "sample"] {
        add(operation, "f32", 64, 1024, 1);
    }
    let cache = |level, kind: &str, size| Cache { level, kind: kind.into(), size };
    Report {
        schema: SCHEMA.into(),
        version: VERSION,
        date: "2026-11-25T04:41:43Z".into(),
        command: ["softmax", "bench", "--json", "out.json"].map(String::from).into(),
        complete: true,
        build: Build {
            version: "0.1.0".into(),
            revision: "v0.1.0-12-g839b024".into(),
            rustc: "rustc 1.95.0 (59807616e 2026-04-14)".into(),
            target: "x86_64-unknown-linux-gnu".into(),
        },
        machine: Machine {
            label: kind.label.into(),
            cpu: format!("{} CPU @ 2.70GHz", kind.label),
            architecture: "x86_64".into(),
            features: ["avx", "avx2", "avx512f", "avx512bw", "f16c", "fma"]
                .map(String::from)
                .into(),
            emulated: false,
            physical_cores: Some(32),
            logical_cores: 64,
            caches: vec![
                cache(1, "Data", 48 << 10),
                cache(1, "Instruction", 32 << 10),
                cache(2, "Unified", 2 << 20),
                cache(3, "Unified", 260 << 20),
            ],
            memory_bytes: 251 << 30,
            frequency_mhz: Some(2700),
            os: "Debian GNU/Linux 12, Linux 6.1.0".into(),
            on_battery: None,
            pinned: true,
        },
        kernels: kind
            .kernels
            .iter()
            .map(|k| KernelInfo { name: (*k).into(), requires: vec![(*k).into()], available: true })
            .collect(),
        limits: Limits { memory, arithmetic },
        clock: vec![0.01, 0.0101, 0.0100, 0.0102],
        cases,
        warnings: vec!["the clock of the CPU is not fixed: see docs/performance.md".into()],
    }
}

fn case(
    kind: &Kind,
    operation: &str,
    dtype: &str,
    (rows, cols): (usize, usize),
    threads: usize,
    kernel: &str,
    noise: &mut impl FnMut() -> f64,
) -> Case {
    let size = match dtype {
        "f64" => 8,
        "f32" => 4,
        _ => 2,
    };
    let elements = (rows * cols) as u64;
    let traffic = if operation == "logsumexp" { elements * size } else { 2 * elements * size };
    let operations = match operation {
        "attention" => 31.0,
        "sample" => 26.0,
        "logsumexp" => 16.0,
        _ => 20.0,
    };
    // Rows that are shorter than some vectors cost more.
    let short = 1.0 / (1.0 + 24.0 / cols as f64);
    let gain = if elements < 1 << 15 { 1.0 } else { (threads as f64).powf(0.9) };
    let arithmetic = kind.factor * peak(kernel) * threads as f64 / operations;
    let compute = kind.factor * peak(kernel) * 0.95 / operations * gain * short;
    let (level, bandwidth) = match traffic {
        0..=49_152 => ("L1", 240.0),
        49_153..=2_097_152 => ("L2", 110.0),
        2_097_153..=272_629_760 => ("L3", 42.0),
        _ => ("memory", 20.0 * 9.0_f64.min(threads as f64) / threads as f64),
    };
    let bytes_per_second = kind.factor * bandwidth * 1e9 * threads as f64;
    let memory = bytes_per_second / traffic as f64 * elements as f64 / 1e9;
    let limit = memory.min(arithmetic);
    let speed = compute.min(memory * 0.97).min(limit) * noise() * 0.97;
    let seconds = elements as f64 / speed / 1e9;
    let (limit_ulp, max_ulp) = match operation {
        "sample" => (None, None),
        "attention" => (Some(4.0), Some(2.1 + noise())),
        _ => (Some(3.0), Some(0.4 + noise())),
    };
    let digest = format!("{:016x}", elements.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    Case {
        operation: operation.into(),
        dtype: dtype.into(),
        rows,
        cols,
        threads,
        kernel: kernel.into(),
        bytes: traffic,
        level: level.into(),
        elements,
        traffic,
        operations,
        check: Check {
            max_ulp,
            mean_ulp: max_ulp.map(|x| x / 5.0),
            limit_ulp,
            digest: digest.clone(),
            expected: digest,
            passed: true,
        },
        result: Some(CaseResult {
            timing: timing(seconds, noise),
            elements_per_second: speed * 1e9,
            gb_per_second: speed * traffic as f64 / elements as f64,
            bound_by: Some(if memory < arithmetic { "memory" } else { "arithmetic" }.into()),
            limit_elements_per_second: Some(limit * 1e9),
            fraction_of_limit: Some(speed / limit),
            cycles_per_element: Some(2.7 / speed),
        }),
    }
}

/// G operations per second in f32 with one thread.
fn peak(kernel: &str) -> f64 {
    match kernel {
        "avx512" => 105.0,
        "avx2" => 62.0,
        "neon" => 48.0,
        "portable" => 28.0,
        _ => 5.0,
    }
}

fn timing(median: f64, noise: &mut impl FnMut() -> f64) -> Timing {
    let mut seconds: Vec<_> = (0..9).map(|_| median * noise()).collect();
    seconds[4] = median;
    Timing { seconds, calls: 1000, median, spread: 0.013, outliers: vec![2] }
}

/// The smallest report: no machine that tells anything, and one case.
pub fn bare_report() -> Report {
    let mut report = sample_report(&SMALL);
    report.cases.truncate(1);
    report.limits = Limits::default();
    report.machine.caches.clear();
    report.kernels.clear();
    report.clock.clear();
    report
}

/// A report with everything that could break a page.
pub fn nasty_report() -> Report {
    let mut report = sample_report(&BIG);
    report.machine.label = "<script>alert(1)</script> & \"quotes\" \u{1b}[31m\0 北京 ".repeat(5);
    report.machine.cpu = "W".repeat(300);
    report.machine.emulated = true;
    report.complete = false;
    report.machine.on_battery = Some(true);
    report.command = vec!["--output=".to_owned() + &"x/".repeat(300)];
    report.warnings = vec!["w".repeat(500), "</style></title><b>".into()];
    // Many caches of nearly the same size.
    for i in 0..4 {
        report.machine.caches.push(Cache { level: 4, kind: "Unified".into(), size: (3 + i) << 20 });
    }
    for (i, case) in report.cases.iter_mut().enumerate() {
        match i % 7 {
            0 => {
                case.check.passed = false;
                case.check.digest = "0123456789abcdef".into();
                case.check.max_ulp = Some(1e9);
                case.result = None;
            }
            1 => case.result = None,
            2 => set_speed(case, 1e-3),
            3 => set_speed(case, 1e15),
            _ => {}
        }
    }
    report.cases[4].operation = "</title>".repeat(30);
    report.cases[5].kernel = "k".repeat(200);
    report
}

/// Changes the times of a case that has some.
pub fn set_speed(case: &mut Case, speed: f64) {
    if let Some(result) = &mut case.result {
        result.elements_per_second = speed;
        result.timing.median = case.elements as f64 / speed;
    }
}
