//! The items that are timed, the memory that they share, and the results of their times.

use rayon::prelude::*;
use softmax::{Exec, Kernel, Threads};
use softmax_measure::check::{self, Errors, Reference};
use softmax_measure::data::{Buffer, Number, logits, repeated};
use softmax_measure::limits::{Loop, arithmetic};
use softmax_measure::operation::{self, Operation, Side, pattern_rows};
use softmax_measure::plan::{Case, footprints, is_for_threads, with_dtype};
use softmax_measure::pool::Pools;
use softmax_measure::timing::{Statistics, seconds};
use softmax_report::schema::{
    self, ArithmeticLimit, CaseResult, Check, Machine, MemoryLimit, Timing,
};

use crate::failure::Failure;

/// One item to time.
#[derive(Clone, Copy, Debug)]
pub enum Item {
    /// The same arithmetic in each round, which shows the clock's speed.
    Clock,
    /// Operations of a kernel's vectors on registers.
    Arithmetic { kernel: &'static Kernel, double: bool, threads: usize },
    /// A loop over memory.
    Memory { name: Loop, bytes: usize, threads: usize },
    /// An operation on a matrix.
    Case(Case),
}

/// The state of an item.
#[derive(Debug, Default)]
struct State {
    /// Calls in a round; 0 for a wrong item, which is not timed.
    calls: u64,
    /// Seconds of one call, as far as known.
    seconds: f64,
    check: Option<Check>,
    cycles: Option<f64>,
}

/// All items and their memory.
pub struct Session {
    pools: Pools,
    items: Vec<Item>,
    states: Vec<State>,
    /// The kernel whose loops are the machine's limits.
    kernel: &'static Kernel,
    x: Buffer,
    y: Buffer,
    /// The type and columns of the data in `x`, and the number of elements.
    filled: Option<(&'static str, usize, usize)>,
    side: Option<((Operation, usize, usize), Side)>,
    /// The reference for the last shape that was checked.
    reference: Option<(Shape, Option<Reference>)>,
    target: f64,
}

/// Operation, type, rows and columns.
type Shape = (Operation, &'static str, usize, usize);

/// Everything that a report says of the items.
pub struct Results {
    pub limits: schema::Limits,
    pub clock: Vec<f64>,
    pub cases: Vec<schema::Case>,
    pub warnings: Vec<String>,
}

/// Turns of the loops in registers in one call.
const TURNS: usize = 1 << 14;

impl Session {
    /// Makes a session with memory for these cases. A round of each takes about `target` seconds.
    pub fn new(
        pools: Pools,
        cases: Vec<Case>,
        kernel: &'static Kernel,
        target: f64,
    ) -> Result<Self, Failure> {
        let most = cases.iter().map(|c| c.rows * c.cols * c.size()).max().unwrap_or(0);
        let room = || {
            let none = |bytes| Failure::new("bench", format!("no memory for {bytes} bytes"));
            Buffer::new(most).map_err(none)
        };
        let items: Vec<_> = cases.into_iter().map(Item::Case).collect();
        Ok(Self {
            pools,
            items,
            states: Vec::new(),
            kernel,
            x: room()?,
            y: room()?,
            filled: None,
            side: None,
            reference: None,
            target,
        })
    }

    /// Adds the machine's limits, before everything else.
    pub fn add_limits(
        &mut self,
        kernels: &[&'static Kernel],
        threads: &[usize],
        quick: bool,
        most: u64,
    ) {
        let mut limits = vec![Item::Clock];
        for &threads in threads {
            for &kernel in kernels.iter().filter(|kernel| kernel.name() != "scalar") {
                let of = |double| Item::Arithmetic { kernel, double, threads };
                limits.extend([of(false), of(true)]);
            }
            let room = 2 * self.y.get::<f32>(usize::MAX).len() * 4;
            for bytes in footprints(quick).filter(|&bytes| bytes as u64 <= most && bytes <= room) {
                if threads == 1 || is_for_threads(bytes) {
                    limits.extend(Loop::ALL.map(|name| Item::Memory { name, bytes, threads }));
                }
            }
        }
        self.items.splice(0..0, limits);
        self.states.resize_with(self.items.len(), State::default);
    }

    pub fn items(&self) -> &[Item] {
        &self.items
    }

    pub fn name(&self, i: usize) -> String {
        self.items[i].to_string()
    }

    /// Runs an item once, checks its result, and finds the number of calls in a round. Returns what
    /// is wrong, if anything.
    pub fn check(&mut self, i: usize) -> Result<Result<(), String>, Failure> {
        let mut wrong = None;
        match self.items[i] {
            Item::Clock | Item::Arithmetic { .. } => {}
            Item::Memory { name, .. } => {
                if !name.is_right(self.kernel) {
                    wrong = Some(format!("{name} does not do what it says"));
                }
            }
            Item::Case(case) => {
                let check = with_dtype!(case.dtype, T => self.check_case::<T>(&case))
                    .map_err(|e| Failure::new(self.name(i), e))?;
                if !check.passed {
                    let Check { max_ulp, digest, expected, .. } = &check;
                    let off = max_ulp.map_or(String::new(), |ulp| format!(", {ulp:.3} ULP off"));
                    wrong = Some(format!("{}: digest {digest}, not {expected}{off}", self.name(i)));
                }
                self.states[i].check = Some(check);
            }
        }
        if let Some(wrong) = wrong {
            return Ok(Err(wrong));
        }
        // The check has warmed up caches and CPU, or this call does.
        self.states[i].calls = 1;
        let once = self.time(i).max(1e-9);
        self.states[i].calls = (0.1 * self.target / once).clamp(1.0, 1e7) as u64;
        // The best of three, because an interrupted call would make a round of one call.
        let once = if once < self.target {
            (0..3).map(|_| self.time(i)).fold(once, f64::min).max(1e-9)
        } else {
            once
        };
        let state = &mut self.states[i];
        state.calls = (self.target / once).ceil().clamp(1.0, 1e8) as u64;
        state.seconds = once;
        if let Item::Case(case) = self.items[i]
            && case.threads == 1
        {
            let calls = self.states[i].calls;
            let cycles = self.run_case(&case, calls, cycles);
            self.states[i].cycles = cycles.map(|n| {
                n as f64 / calls as f64 / case.operation.elements(case.rows, case.cols) as f64
            });
        }
        Ok(Ok(()))
    }

    /// The approximate seconds of a round.
    pub fn seconds_per_round(&self) -> f64 {
        let of = |state: &State| state.seconds * state.calls as f64;
        // Inputs are written again for each type, and each item is called once more.
        self.states.iter().map(of).sum::<f64>() * 1.3 + 0.05
    }

    /// The seconds of a call of an item: the mean of a round.
    pub fn time(&mut self, i: usize) -> f64 {
        let calls = self.states[i].calls;
        if calls == 0 {
            return f64::NAN;
        }
        match self.items[i] {
            Item::Clock => {
                // The reference has no wide vectors, for which some CPUs lower their clock.
                let kernel = &softmax::kernels()[softmax::kernels().len() - 1];
                self.on(1, move |_, _| {
                    seconds(calls, || {
                        arithmetic(kernel, true, TURNS);
                    })
                })
            }
            Item::Arithmetic { kernel, double, threads } => self.on(threads, move |_, _| {
                let turns = || {
                    for _ in 0..calls {
                        arithmetic(kernel, double, TURNS);
                    }
                };
                // All threads at once; the slowest counts.
                seconds(1, || drop(rayon::broadcast(|_| turns()))) / calls as f64
            }),
            Item::Memory { name, bytes, threads } => {
                self.fill::<f32>(1024, usize::MAX);
                let (kernel, n) = (self.kernel, name.elements(bytes));
                self.on(threads, move |x, y| {
                    let y = y.get_mut::<f32>(n);
                    let x = x.get::<f32>(y.len());
                    let part = y.len().div_ceil(threads).next_multiple_of(16);
                    let mut pass = || match threads {
                        1 => name.run(kernel, x, y),
                        _ => y
                            .par_chunks_mut(part)
                            .zip(x.par_chunks(part))
                            .for_each(|(y, x)| name.run(kernel, x, y)),
                    };
                    pass();
                    seconds(calls, pass)
                })
            }
            Item::Case(case) => self.run_case(&case, calls, |calls, call| seconds(calls, call)),
        }
    }

    /// Runs `f` on this number of threads.
    fn on<R: Send>(
        &mut self,
        threads: usize,
        f: impl FnOnce(&Buffer, &mut Buffer) -> R + Send,
    ) -> R {
        let (x, y) = (&self.x, &mut self.y);
        match self.pools.get(threads) {
            Some(pool) => pool.install(|| f(x, y)),
            None => f(x, y),
        }
    }

    /// Calls a case as `measure` measures it, after one call that does not count.
    fn run_case<R: Send>(
        &mut self,
        case: &Case,
        calls: u64,
        measure: impl FnOnce(u64, &mut dyn FnMut()) -> R + Send,
    ) -> R {
        with_dtype!(case.dtype, T => {
            let Case { operation, rows, cols, threads, kernel, .. } = *case;
            self.fill::<T>(cols, rows * cols);
            let mut side = self.take_side(case);
            let result = self.on(threads, |x, y| {
                let x = x.get::<T>(rows * cols);
                let y = y.get_mut::<T>(if operation.has_matrix() { rows * cols } else { rows });
                let threads = if threads == 1 { Threads::Serial } else { Threads::Auto };
                let exec = Exec::new().kernel(kernel).threads(threads);
                let mut call = || {
                    // The check has shown that the call succeeds.
                    let _ = operation::run(operation, exec, cols, x, y, &mut side);
                };
                // A call that takes long reaches the state of memory that it needs by itself.
                if calls > 1 {
                    call();
                }
                measure(calls, &mut call)
            });
            self.side = Some(((operation, rows, cols), side));
            result
        })
    }

    fn take_side(&mut self, case: &Case) -> Side {
        let key = (case.operation, case.rows, case.cols);
        match self.side.take() {
            Some((of, side)) if of == key => side,
            _ => Side::new(case.operation, case.rows, case.cols),
        }
    }

    /// Fills the input with at most `n` elements, if it is not filled yet. The threads that will
    /// read it write it, so that its pages are near them.
    fn fill<T: Number>(&mut self, cols: usize, n: usize) {
        let n = n.min(self.x.get::<T>(usize::MAX).len());
        if self.filled.is_some_and(|(dtype, of, len)| (dtype, of) == (T::NAME, cols) && len >= n) {
            return;
        }
        let pattern = logits::<T>(pattern_rows(usize::MAX, cols) * cols);
        let part = (4 << 20) / size_of::<T>();
        let fill = |buffer: &mut [T]| {
            let parts = buffer.par_chunks_mut(part).enumerate();
            parts.for_each(|(i, x)| repeated(x, i * part, &pattern));
        };
        let (x, y) = (&mut self.x, &mut self.y);
        let mut all = || {
            fill(x.get_mut(n));
            // Loops over memory need numbers in both buffers.
            fill(y.get_mut(n));
        };
        match self.pools.get(usize::MAX) {
            Some(pool) => pool.install(&mut all),
            None => all(),
        }
        self.filled = Some((T::NAME, cols, n));
    }

    fn check_case<T: Number + softmax::Probs<T>>(
        &mut self,
        case: &Case,
    ) -> Result<Check, softmax::Error> {
        let Case { operation, rows, cols, threads, kernel, .. } = *case;
        self.fill::<T>(cols, rows * cols);
        let mut side = self.take_side(case);
        let mut reference = self.reference.take().filter(|(shape, _)| *shape == case.shape());
        let checked = self.on(threads, |x, y| {
            let x = x.get::<T>(rows * cols);
            let y = y.get_mut::<T>(if operation.has_matrix() { rows * cols } else { rows });
            y.fill(T::NAN);
            let threads = if threads == 1 { Threads::Serial } else { Threads::Auto };
            let exec = Exec::new().kernel(kernel).threads(threads);
            operation::run(operation, exec, cols, x, y, &mut side)?;
            let period = operation.period(rows, cols);
            let (_, reference) = reference.get_or_insert_with(|| {
                let checked = &x[..period * cols];
                (case.shape(), Reference::new(operation, cols, checked, &side))
            });
            let errors = reference.as_ref().map(|reference| reference.errors(y));
            let digest = check::digest(operation, period, cols, y, &side);
            let unit = if operation.has_matrix() { period * cols } else { period };
            let (first, rest) = y.split_at(unit.min(y.len()));
            let repeats = operation == Operation::Sample
                || rest
                    .par_chunks(unit)
                    .all(|part| part.iter().zip(first).all(|(a, b)| a.bits() == b.bits()));
            Ok::<_, softmax::Error>((errors, digest, repeats))
        });
        self.side = Some(((operation, rows, cols), side));
        self.reference = reference;
        let (errors, digest, repeats) = checked?;
        let expected = check::expected(operation, T::NAME, rows, cols);
        let near = errors.is_none_or(|Errors { max, limit, .. }| max <= limit);
        // JSON has no infinity.
        let finite = |x: f64| x.min(f64::MAX);
        Ok(Check {
            max_ulp: errors.map(|e| finite(e.max)),
            mean_ulp: errors.map(|e| finite(e.mean)),
            limit_ulp: errors.map(|e| e.limit),
            digest: format!("{digest:016x}"),
            expected: expected.map_or("unknown".into(), |digest| format!("{digest:016x}")),
            passed: near && repeats && expected == Some(digest),
        })
    }

    /// The results from all times.
    pub fn results(&self, times: &[Vec<f64>], machine: &Machine) -> Results {
        let mut limits = schema::Limits::default();
        let mut clock = Vec::new();
        let timing = |i: usize| -> Option<Timing> {
            let times: Vec<_> = times[i].iter().copied().filter(|t| *t > 0.0).collect();
            let Statistics { median, spread, outliers } = Statistics::of(&times)?;
            Some(Timing { seconds: times, calls: self.states[i].calls, median, spread, outliers })
        };
        for (i, item) in self.items.iter().enumerate() {
            let Some(timing) = timing(i) else { continue };
            match *item {
                Item::Clock => clock = timing.seconds,
                Item::Arithmetic { kernel, double, threads } => {
                    let operations = arithmetic(kernel, double, TURNS) * threads as u64;
                    limits.arithmetic.push(ArithmeticLimit {
                        kernel: kernel.name().into(),
                        dtype: if double { "f64" } else { "f32" }.into(),
                        threads,
                        operations,
                        gops_per_second: operations as f64 / timing.median / 1e9,
                        timing,
                    });
                }
                Item::Memory { name, bytes, threads } => {
                    let traffic = name.traffic(name.elements(bytes));
                    limits.memory.push(MemoryLimit {
                        name: name.to_string(),
                        bytes: bytes as u64,
                        threads,
                        traffic,
                        gb_per_second: traffic as f64 / timing.median / 1e9,
                        timing,
                    });
                }
                Item::Case(_) => {}
            }
        }
        let mut cases = Vec::new();
        for (i, item) in self.items.iter().enumerate() {
            let (Item::Case(case), Some(check)) = (item, &self.states[i].check) else { continue };
            let result =
                timing(i).map(|timing| result(case, timing, self.states[i].cycles, &limits));
            let Case { operation, dtype, rows, cols, threads, kernel } = *case;
            cases.push(schema::Case {
                operation: operation.name().into(),
                dtype: dtype.into(),
                rows,
                cols,
                threads,
                kernel: kernel.name().into(),
                bytes: case.bytes(),
                level: machine.level(case.bytes(), threads).unwrap_or_else(|| "unknown".into()),
                elements: operation.elements(rows, cols),
                traffic: operation.traffic(rows, cols, case.size()),
                operations: operation.operations(dtype),
                check: check.clone(),
                result,
            });
        }
        let spread = |case: &schema::Case| case.result.as_ref().map_or(0.0, |r| r.timing.spread);
        let noisy: Vec<_> = cases.iter().filter(|&case| spread(case) > 0.05).collect();
        let mut warnings = Vec::new();
        if let Some(&most) = noisy.iter().max_by(|a, b| spread(a).total_cmp(&spread(b))) {
            let (n, of) = (noisy.len(), cases.len());
            warnings.push(format!(
                "noisy: the rounds of {n} of {of} cases differ by more than 5% between the quartiles, the most by {:.0}%: {most}",
                100.0 * spread(most)
            ));
        }
        Results { limits, clock, cases, warnings }
    }
}

/// The result of a case from its times, against the limits of the same number of threads.
fn result(case: &Case, timing: Timing, cycles: Option<f64>, limits: &schema::Limits) -> CaseResult {
    let Case { operation, dtype, rows, cols, threads, kernel } = *case;
    let elements = operation.elements(rows, cols) as f64;
    let traffic = operation.traffic(rows, cols, case.size()) as f64;
    let loops: &[Loop] =
        if operation.has_matrix() { &[Loop::Copy, Loop::CopyNt] } else { &[Loop::Read] };
    let far = |limit: &&MemoryLimit| (limit.bytes as f64 / case.bytes() as f64).ln().abs();
    let of = |name: &Loop| {
        let all = limits.memory.iter().filter(|l| l.threads == threads && l.name == name.name());
        all.min_by(|a, b| far(a).total_cmp(&far(b))).map(|limit| limit.gb_per_second)
    };
    let memory = loops.iter().filter_map(of).max_by(f64::total_cmp);
    let wide = if dtype == "f64" { "f64" } else { "f32" };
    let arithmetic = limits.arithmetic.iter().find(|limit| {
        (limit.kernel.as_str(), limit.dtype.as_str(), limit.threads)
            == (kernel.name(), wide, threads)
    });
    let operations = operation.operations(dtype) * elements;
    let bound = memory.zip(arithmetic).map(|(memory, arithmetic)| {
        let needed = [traffic / memory / 1e9, operations / arithmetic.gops_per_second / 1e9];
        let name = if needed[0] > needed[1] { "memory" } else { "arithmetic" };
        (name.to_owned(), elements / needed[0].max(needed[1]))
    });
    let elements_per_second = elements / timing.median;
    let limit = bound.as_ref().map(|(_, limit)| *limit);
    CaseResult {
        elements_per_second,
        gb_per_second: traffic / timing.median / 1e9,
        bound_by: bound.map(|(name, _)| name),
        limit_elements_per_second: limit,
        fraction_of_limit: limit.map(|limit| elements_per_second / limit),
        cycles_per_element: cycles,
        timing,
    }
}

/// The cycles of the calling thread in this number of calls, if the system counts them and shows
/// them.
#[cfg(target_os = "linux")]
fn cycles(calls: u64, call: &mut dyn FnMut()) -> Option<u64> {
    use perf_event::Builder;
    use perf_event::events::Hardware;
    let mut counter = Builder::new(Hardware::CPU_CYCLES).build().ok()?;
    counter.enable().ok()?;
    (0..calls).for_each(|_| call());
    counter.disable().ok()?;
    counter.read().ok().filter(|&cycles| cycles > 0)
}

/// Other systems do not count cycles.
#[cfg(not(target_os = "linux"))]
fn cycles(_: u64, _: &mut dyn FnMut()) -> Option<u64> {
    None
}
