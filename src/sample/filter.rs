//! What is left of a row's tokens, and draws from it.
//!
//! Top-k, top-p and min-p keep those of the first ranks. Which ones is found without sorting the
//! row: a sample of it tells a band of masses in which the last of the ranks is almost certainly;
//! one scan of the row sums what is above the band and collects what is within; and among these few
//! the last rank is selected. Where few tokens are left, they are a list from then on.

use tinyvec::SliceVec;

use softmax_kernels::{
    Exps, LEAST, LEAST_UNIT, Masses, PART, RESTS, Ready, of_rank, rank, rest, units,
};

use super::Method;
use super::random::{Bits, Stream};

/// What a filter keeps.
#[derive(Clone, Copy, Debug)]
pub(super) enum Need {
    /// So many of the first ranks.
    Count(u64),
    /// So much of the mass, of the first ranks.
    Share(f64),
    /// Those with so much of the largest mass.
    OfLargest(f64),
    /// So much of the mass, of those with information near the entropy.
    Typical(f64),
}

/// Memory for lists, each of which has room for a row.
pub(super) struct Lists<'m> {
    /// What a scan collects.
    band: &'m mut [u64],
    /// Tokens by rank, in the order of their indices.
    tokens: SliceVec<'m, u64>,
    /// Ranks to be selected from.
    ranks: SliceVec<'m, u64>,
    /// The same with their distances from the entropy, if a filter needs them.
    distances: SliceVec<'m, [u64; 2]>,
    /// The sums of a row's parts, or running sums.
    sums: &'m mut [u64],
}

impl<'m> Lists<'m> {
    /// For rows of so many tokens out of four times as many elements, and as many, or no,
    /// `distances`.
    pub(super) fn new(n: usize, memory: &'m mut [u64], distances: &'m mut [[u64; 2]]) -> Self {
        let (band, rest) = memory.split_at_mut(n);
        let (tokens, rest) = rest.split_at_mut(n);
        let (ranks, sums) = rest.split_at_mut(n);
        Self {
            band,
            tokens: SliceVec::from_slice_len(tokens, 0),
            ranks: SliceVec::from_slice_len(ranks, 0),
            distances: SliceVec::from_slice_len(distances, 0),
            sums,
        }
    }
}

/// The tokens that are left.
pub(super) struct Kept<'a, 'm> {
    kernel: Ready,
    masses: Masses<'a>,
    /// The largest exponential, and the sum of all, about.
    largest: f32,
    sum: f64,
    state: State,
    lists: &'a mut Lists<'m>,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    /// All that have mass.
    All,
    /// Those up to a rank, which have so many units. `lists.sums` has them by parts.
    Upto { last: u64, mass: u64 },
    /// Those in `lists.tokens`.
    List,
}

/// Rows shorter than this become lists at once: nothing would be gained by a band.
const SHORT: usize = 2048;

/// Where no more are expected above a band, they are collected along with it.
const FEW: f64 = 1024.0;

/// The rank of the least token that has mass.
fn least_rank() -> u64 {
    rank(LEAST, u32::MAX as usize)
}

/// So much of a number of units: one at least.
fn share(p: f64, mass: u64) -> u64 {
    ((p * mass as f64).ceil() as u64).clamp(1, mass.max(1))
}

/// The least exponential that is so much of the largest.
fn least_of(p: f64, largest: f32) -> f32 {
    let bound = p * f64::from(largest);
    let e = bound as f32;
    let e = if f64::from(e) < bound { e.next_up() } else { e };
    e.max(LEAST)
}

/// The key at which the weights of keys in rising order reach `need`; `None` if they do not.
fn reach<K: Ord + Copy>(keys: &mut [K], weight: impl Fn(K) -> u64, mut need: u64) -> Option<K> {
    let mut keys = keys;
    while keys.len() > 16 {
        let (first, &mut middle, last) = keys.select_nth_unstable(keys.len() / 2);
        let sum: u64 = first.iter().map(|&key| weight(key)).sum();
        if sum >= need {
            keys = first;
            continue;
        }
        need -= sum;
        if weight(middle) >= need {
            return Some(middle);
        }
        need -= weight(middle);
        keys = last;
    }
    keys.sort_unstable();
    for &mut key in keys {
        if weight(key) >= need {
            return Some(key);
        }
        need -= weight(key);
    }
    None
}

fn units_of(rank: u64) -> u64 {
    units(of_rank(rank).0)
}

fn rest_of(rank: u64) -> u64 {
    rest(of_rank(rank).0)
}

/// What the tokens that are left have besides their units: its sum, once somebody needs it.
struct Rests {
    tokens: u64,
    sum: Option<u64>,
}

impl Rests {
    fn of(tokens: usize) -> Self {
        Rests { tokens: tokens as u64, sum: None }
    }

    /// Where a draw lands among the rests, if it does so. `total` are the units; `sum` sums the
    /// rests, each of which is a unit at most: so few draws need to know.
    fn target(&mut self, bits: Bits, total: u64, sum: impl FnOnce() -> u64) -> Option<u64> {
        if !bits.says(self.tokens, u128::from(total) + u128::from(self.tokens)) {
            return None;
        }
        let sum = *self.sum.get_or_insert_with(sum);
        let whole = u128::from(total) * u128::from(RESTS) + u128::from(sum);
        bits.says(sum, whole).then(|| bits.below(sum))
    }
}

/// The first place at which the running sum exceeds a target.
fn place_of(target: u64, parts: impl Iterator<Item = u64>) -> Option<usize> {
    let mut left = target;
    let mut parts = parts;
    parts.position(|part| {
        let here = left < part;
        left -= if here { 0 } else { part };
        here
    })
}

impl<'a, 'm> Kept<'a, 'm> {
    /// All tokens.
    pub(super) fn all(
        kernel: Ready,
        masses: Masses<'a>,
        exps: &Exps,
        lists: &'a mut Lists<'m>,
    ) -> Self {
        let (largest, sum) = (masses.of(exps.largest), exps.sum);
        Self { kernel, masses, largest, sum, state: State::All, lists }
    }

    /// What a filter leaves of them.
    pub(super) fn filter(&mut self, need: Need) {
        if self.state == State::All && self.masses.len() < SHORT {
            self.make_list();
        }
        match need {
            _ if self.state == State::List => self.list().filter(need),
            Need::Typical(_) => {
                self.make_list();
                self.list().filter(need);
            }
            Need::OfLargest(p) => self.at_least(least_of(p, self.largest)),
            Need::Count(_) | Need::Share(_) => self.first_ranks(need),
        }
    }

    fn list(&mut self) -> List<'_, 'm> {
        List { lists: self.lists }
    }

    /// The rank of the last token that is left.
    fn last(&self) -> u64 {
        match self.state {
            State::Upto { last, .. } => last,
            State::All | State::List => least_rank(),
        }
    }

    /// Keeps those with this exponential or a larger one.
    fn at_least(&mut self, e: f32) {
        let last = rank(e, u32::MAX as usize);
        if last >= self.last() && self.state != State::All {
            return;
        }
        let parts = &mut self.lists.sums[..self.masses.len().div_ceil(PART)];
        let found = self.kernel.scan(self.masses, e, e, parts, &mut []);
        self.state = State::Upto { last, mass: found.above.1 };
    }

    /// Keeps the first ranks.
    fn first_ranks(&mut self, need: Need) {
        let before = self.last();
        let known = match self.state {
            State::Upto { mass, .. } => Some(mass),
            State::All | State::List => None,
        };
        let n = self.masses.len();
        let sample = Sample::of(self.masses);
        // With each try the band is wider; the last one has everything.
        for try_ in 0..3 {
            let (low, mut high, above) =
                sample.band(need, known.map_or(self.sum, |m| m as f64 / UNITS), try_);
            let (least, _) = of_rank(before);
            let is_all = low <= least;
            let low = low.max(least);
            if above <= FEW || high <= low {
                high = f32::INFINITY;
            }
            let parts = &mut self.lists.sums[..n.div_ceil(PART)];
            let band = &mut self.lists.band[..n];
            let found = self.kernel.scan(self.masses, low, high, parts, band);
            let band = &band[..found.band];
            let (above, target) = match need {
                Need::Count(k) => (found.above.0, k),
                Need::Share(p) => (found.above.1, share(p, known.unwrap_or(found.total))),
                Need::OfLargest(_) | Need::Typical(_) => return,
            };
            if above >= target {
                continue;
            }
            let ranks = &mut self.lists.ranks;
            ranks.clear();
            if known.is_none() {
                ranks.extend_from_slice(band);
            } else {
                // Without those that an earlier filter took away.
                ranks.extend(band.iter().copied().filter(|&token| token <= before));
            }
            let reached = match need {
                Need::Count(_) => reach(ranks, |_| 1, target - above),
                _ => reach(ranks, units_of, target - above),
            };
            let last = match reached {
                Some(last) => last,
                // Fewer than that are there.
                None if is_all => before,
                None => continue,
            };
            if high == f32::INFINITY {
                self.lists.tokens.clear();
                self.lists.tokens.extend(band.iter().copied().filter(|&token| token <= last));
                self.state = State::List;
                return;
            }
            let mut mass = found.above.1;
            for &token in band {
                let (m, i) = of_rank(token);
                // No branch could foresee it.
                let m = units(m) & u64::from(token <= last).wrapping_neg();
                parts[i / PART] += m;
                mass += m;
            }
            self.state = State::Upto { last, mass };
            return;
        }
    }

    /// Makes a list of what is left.
    fn make_list(&mut self) {
        if self.state == State::List {
            return;
        }
        let last = self.last();
        let band = &mut self.lists.band[..self.masses.len()];
        let least = of_rank(last).0;
        let found = self.kernel.scan(self.masses, least, f32::INFINITY, &mut [], band);
        let tokens = &mut self.lists.tokens;
        tokens.clear();
        tokens.extend(band[..found.band].iter().copied().filter(|&token| token <= last));
        self.state = State::List;
    }

    /// What is left as a list.
    pub(super) fn into_list(mut self) -> List<'a, 'm> {
        self.make_list();
        List { lists: self.lists }
    }

    /// Draws.
    pub(super) fn draw(mut self, method: Method, stream: Stream, draws: &mut [usize]) {
        if self.state == State::List {
            return self.list().draw(method, stream, draws);
        }
        let last = self.last();
        if method == Method::GumbelMax {
            let tokens = || {
                let masses = self.masses;
                masses.exps().iter().map(move |&e| masses.of(e)).enumerate()
            };
            let left = || tokens().filter(|&(i, e)| rank(e, i) <= last);
            for (draw, token) in draws.iter_mut().enumerate() {
                *token = race(left(), stream.draw(draw));
            }
            return;
        }
        if self.state == State::All {
            self.at_least(LEAST);
        }
        let n = self.masses.len().div_ceil(PART);
        let sums = &self.lists.sums[..n];
        let total = sums.iter().sum();
        let mut rests = Rests::of(self.masses.len());
        let rests_of_all = || {
            let exps = self.masses.exps().iter().map(|&e| self.masses.of(e));
            exps.enumerate().map(|(i, e)| if rank(e, i) <= last { rest(e) } else { 0 })
        };
        for (draw, token) in draws.iter_mut().enumerate() {
            let bits = stream.draw(draw);
            if let Some(target) = rests.target(bits, total, || rests_of_all().sum()) {
                *token = place_of(target, rests_of_all()).unwrap_or(super::NONE);
                continue;
            }
            let mut target = bits.below(total);
            let part = sums.iter().position(|&sum| {
                let here = target < sum;
                target -= if here { 0 } else { sum };
                here
            });
            let (start, exps) = self.masses.part(part.unwrap_or(n));
            let left = |(i, e)| if rank(e, start + i) <= last { units(e) } else { 0 };
            let here = place_of(target, exps.enumerate().map(left));
            *token = here.map_or(super::NONE, |i| start + i);
        }
    }
}

/// Units of mass in 1.
const UNITS: f64 = (1u64 << 30) as f64;

/// The token that the Gumbel-max trick draws, from tokens and their exponentials.
///
/// `ln(m) + g`, `g = -ln(-ln(u))`, is largest where `-ln(u) / m` is least, which is an exponential
/// race: its time takes one logarithm instead of three, and mostly none, because `-ln(1 - v) >= v`.
fn race(tokens: impl Iterator<Item = (usize, f32)>, bits: Bits) -> usize {
    let (mut best, mut least) = (super::NONE, f64::INFINITY);
    let (mut pair, mut noise) = (usize::MAX, [0; 2]);
    for (i, mass) in tokens {
        // Too late even with the least v, which is 2^-53.
        if least * f64::from(mass) < f64::EPSILON / 4.0 {
            continue;
        }
        if pair != i / 2 {
            pair = i / 2;
            noise = bits.pair(pair);
        }
        // In the middle of one of 2^52 intervals of (0, 1).
        let v = ((noise[i % 2] >> 12) as f64 + 0.5) / (1u64 << 52) as f64;
        let mass = f64::from(mass);
        // With a margin for the rounding of both sides.
        if v > least * mass * (1.0 + 1e-12) {
            continue;
        }
        let time = -libm::log1p(-v) / mass;
        if time < least {
            (best, least) = (i, time);
        }
    }
    best
}

/// Few tokens, in the order of their indices.
pub(super) struct List<'a, 'm> {
    lists: &'a mut Lists<'m>,
}

impl List<'_, '_> {
    pub(super) fn len(&self) -> usize {
        self.lists.tokens.len()
    }

    /// Their indices.
    pub(super) fn indices(&self) -> impl Iterator<Item = usize> {
        self.lists.tokens.iter().map(|&token| of_rank(token).1)
    }

    /// Gives them other exponentials.
    pub(super) fn reweigh(&mut self, masses: Masses<'_>) {
        for (token, &e) in self.lists.tokens.iter_mut().zip(masses.exps()) {
            *token = rank(masses.of(e), of_rank(*token).1);
        }
    }

    fn total(&self) -> u64 {
        self.lists.tokens.iter().map(|&token| units_of(token)).sum()
    }

    fn filter(&mut self, need: Need) {
        let total = self.total();
        let Lists { tokens, ranks, distances, .. } = &mut *self.lists;
        let last = match need {
            Need::Count(k) if k >= tokens.len() as u64 => return,
            Need::OfLargest(p) => {
                let largest = tokens.iter().min().map_or(0.0, |&token| of_rank(token).0);
                Some(rank(least_of(p, largest), u32::MAX as usize))
            }
            Need::Count(_) | Need::Share(_) => {
                ranks.clear();
                ranks.extend_from_slice(tokens);
                match need {
                    Need::Share(p) => reach(ranks, units_of, share(p, total)),
                    Need::Count(k) => reach(ranks, |_| 1, k),
                    Need::OfLargest(_) | Need::Typical(_) => None,
                }
            }
            Need::Typical(p) => {
                // ln(e) = ln(probability) + ln(total), so that the entropy is ln(total) less the
                // mean of ln(e).
                let mean = tokens.iter().map(|&token| {
                    let e = of_rank(token).0;
                    units(e) as f64 / UNITS * libm::log(e.into())
                });
                let mean = mean.fold(0.0, |sum, v| sum + v) / (total as f64 / UNITS);
                let distance = |token: u64| {
                    let distance = (libm::log(f64::from(of_rank(token).0)) - mean).abs();
                    [distance.to_bits(), token]
                };
                distances.clear();
                distances.extend(tokens.iter().map(|&token| distance(token)));
                let last = reach(distances, |[_, token]| units_of(token), share(p, total));
                if let Some(last) = last {
                    tokens.retain(|&token| distance(token) <= last);
                }
                return;
            }
        };
        if let Some(last) = last {
            tokens.retain(|&token| token <= last);
        }
    }

    /// Draws.
    pub(super) fn draw(self, method: Method, stream: Stream, draws: &mut [usize]) {
        let Lists { tokens, sums, .. } = &mut *self.lists;
        if method == Method::GumbelMax {
            let left = || tokens.iter().map(|&token| of_rank(token)).filter(|&(e, _)| e >= LEAST);
            for (draw, token) in draws.iter_mut().enumerate() {
                *token = race(left().map(|(e, i)| (i, e)), stream.draw(draw));
            }
            return;
        }
        let sums = &mut sums[..tokens.len()];
        let mut total = 0;
        for (sum, &token) in sums.iter_mut().zip(tokens.iter()) {
            total += units_of(token);
            *sum = total;
        }
        let mut rests = Rests::of(tokens.len());
        let rests_of_all = || tokens.iter().map(|&token| rest_of(token));
        for (draw, token) in draws.iter_mut().enumerate() {
            let bits = stream.draw(draw);
            let place = match rests.target(bits, total, || rests_of_all().sum()) {
                Some(target) => place_of(target, rests_of_all()),
                None => {
                    let target = bits.below(total);
                    Some(sums.partition_point(|&sum| sum <= target))
                }
            };
            let drawn = place.and_then(|place| tokens.get(place));
            *token = drawn.map_or(super::NONE, |&token| of_rank(token).1);
        }
    }
}

/// A sample of a row's exponentials, by eighths of octaves.
struct Sample {
    counts: [u32; BINS],
    /// Tokens of the row for each that is in the sample.
    each: f64,
}

/// Eighths of the octaves from 2^-62, which is [`LEAST`], to 8, and the bin of those without mass.
const BINS: usize = (62 + 3) * 8 + 1;

/// The upper bits of the first bin, of those without mass.
const FIRST: u32 = (127 - 62) * 8 - 1;

/// The first bin of those with a unit at least: of 2^-30, which is [`LEAST_UNIT`].
const FIRST_UNIT: usize = (62 - 30) * 8 + 1;

/// Tokens that lie beside each other in a sample, and how many of these groups there are.
const GROUP: usize = 16;
const GROUPS: usize = 256;

impl Sample {
    fn of(masses: Masses<'_>) -> Self {
        let exps = masses.exps();
        let mut counts = [0u32; BINS];
        let step = (exps.len() / GROUPS).max(GROUP);
        let mut n = 0usize;
        for group in exps.chunks(step) {
            for &e in &group[..GROUP.min(group.len())] {
                let bits = (e * masses.factor()).to_bits() >> 20;
                counts[(bits.saturating_sub(FIRST) as usize).min(BINS - 1)] += 1;
                n += 1;
            }
        }
        Sample { counts, each: exps.len() as f64 / n.max(1) as f64 }
    }

    /// A band of exponentials in which the last of the ranks of a filter lies, probably: its lower
    /// and its upper end, and how many tokens are above, about. The sum of the units is known
    /// about.
    fn band(&self, need: Need, sum: f64, try_: u32) -> (f32, f32, f64) {
        // A share of the units is reached by a token with some.
        let least = if let Need::Share(_) = need { LEAST_UNIT } else { LEAST };
        let (mut low, mut high, mut above) = (least, f32::INFINITY, 0.0);
        // Standard deviations.
        let z = match try_ {
            0 => 3.0,
            1 => 12.0,
            _ => return (low, high, above),
        };
        let edge = |bin: usize| f32::from_bits((bin as u32 + FIRST) << 20);
        match need {
            Need::Count(k) => {
                let target = k as f64 / self.each;
                let mut count = 0.0;
                for bin in (1..BINS).rev() {
                    count += f64::from(self.counts[bin]);
                    let margin = z * f64::sqrt(count) + z;
                    if count + margin <= target {
                        (high, above) = (edge(bin), count * self.each);
                    }
                    if count - margin >= target {
                        low = edge(bin);
                        break;
                    }
                }
            }
            Need::Share(p) => {
                // What is below the last rank. Most of that is of many tokens, of which there are
                // enough in the sample.
                let target = (1.0 - p) * sum / self.each;
                let (mut below, mut squares, mut count) = (0.0, 0.0, 0.0);
                for bin in FIRST_UNIT..BINS {
                    let edge = edge(bin);
                    let margin = z * f64::sqrt(squares) + z * f64::from(edge);
                    if below + margin <= target {
                        low = edge;
                    }
                    if below - margin >= target {
                        high = edge;
                        break;
                    }
                    let n = f64::from(self.counts[bin]);
                    let mass = f64::from(f32::from_bits(((bin as u32 + FIRST) << 20) | 1 << 19));
                    below += n * mass;
                    squares += n * mass * mass;
                    count += n;
                }
                let all: f64 = self.counts[FIRST_UNIT..].iter().map(|&n| f64::from(n)).sum();
                above = (all - count) * self.each;
            }
            Need::OfLargest(_) | Need::Typical(_) => {}
        }
        (low, high, above)
    }
}
