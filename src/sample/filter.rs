//! The tokens of a row that filters leave, and draws from them.
//!
//! Top-k, top-p and min-p keep the tokens of the first ranks. The last of these ranks is found
//! without sorting the row: a sample of the row gives a band of masses that contains it almost
//! certainly; one scan of the row sums the masses above the band and collects the tokens within it;
//! and among these few the last rank is selected. If few tokens are left, they are a list from then
//! on.
//!
//! Typical-p keeps the tokens around a mean; a histogram of all tokens shows where they end.

use std::ops::Range;

use tinyvec::SliceVec;

use softmax_kernels::{
    Exps, LEAST, LEAST_UNIT, Masses, RESTS, Ready, SPAN, ln, of_rank, rank, rest, units,
};

use super::Method;
use super::random::{Bits, Stream};

/// What a filter keeps.
#[derive(Clone, Copy, Debug)]
pub(super) enum Need {
    /// This number of the first ranks.
    Count(u64),
    /// First ranks with this share of the mass.
    Share(f64),
    /// Tokens with at least this share of the largest mass.
    OfLargest(f64),
    /// Tokens with information near the entropy, with this share of the mass.
    Typical(f64),
}

/// Memory for lists, each of which has room for the tokens of a row.
pub(super) struct Lists<'m> {
    /// The tokens that a scan collects.
    band: &'m mut [u64],
    /// Tokens by rank, in the order of their indices.
    tokens: SliceVec<'m, u64>,
    /// Ranks for selection.
    ranks: SliceVec<'m, u64>,
    /// The same with their distances from the entropy, if a filter needs them.
    distances: SliceVec<'m, [u64; 2]>,
    /// The sums of a row's spans, or running sums.
    sums: &'m mut [u64],
}

impl<'m> Lists<'m> {
    /// Memory for rows of `n` tokens, from `4 n` elements of `memory`, and `n` or no `distances`.
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
    /// The largest exponential, and approximately the sum of all.
    largest: f32,
    sum: f64,
    /// The least number of tokens that filters by mass leave.
    at_least: u64,
    state: State,
    lists: &'a mut Lists<'m>,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    /// All tokens that have mass.
    All,
    /// The tokens up to a rank, their number and their units. `lists.sums` has the units by spans.
    Upto { last: u64, count: u64, mass: u64 },
    /// The tokens in `lists.tokens`.
    List,
}

/// Shorter rows become lists at once, because a band would save nothing.
const SHORT: usize = 2048;

/// If at most this many tokens are expected above a band, they are collected with it.
const FEW: f64 = 1024.0;

/// The rank of the least token that has mass.
fn least_rank() -> u64 {
    rank(LEAST, u32::MAX as usize)
}

/// This share of a number of units, at least one.
fn share(p: f64, mass: u64) -> u64 {
    ((p * mass as f64).ceil() as u64).clamp(1, mass.max(1))
}

/// The least exponential that is this share of the largest.
fn least_of(p: f64, largest: f32) -> f32 {
    let bound = p * f64::from(largest);
    let e = bound as f32;
    let e = if f64::from(e) < bound { e.next_up() } else { e };
    e.max(LEAST)
}

/// The key at which the sum of weights, of keys in increasing order, reaches `need`; `None` if it
/// does not.
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

/// Keeps some tokens of a list, in order.
fn retain(tokens: &mut SliceVec<'_, u64>, is_kept: impl Fn(u64) -> bool) {
    let mut n = 0;
    for i in 0..tokens.len() {
        let token = tokens[i];
        // A branch would be mispredicted often.
        tokens[n] = token;
        n += usize::from(is_kept(token));
    }
    tokens.truncate(n);
}

/// The rests of the tokens that are left, besides their units; the sum is computed when it is
/// needed.
struct Rests {
    tokens: u64,
    sum: Option<u64>,
}

impl Rests {
    fn of(tokens: usize) -> Self {
        Rests { tokens: tokens as u64, sum: None }
    }

    /// The place of a draw among the rests, if it falls there. `total` is the number of units;
    /// `sum` computes the sum of the rests. Each rest is at most a unit, so few draws need it.
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
    /// All tokens; filters by mass leave `at_least` of them, if there are so many.
    pub(super) fn all(
        kernel: Ready,
        masses: Masses<'a>,
        exps: &Exps,
        at_least: usize,
        lists: &'a mut Lists<'m>,
    ) -> Self {
        let (largest, sum) = (masses.of(exps.largest), exps.sum);
        Self { kernel, masses, largest, sum, at_least: at_least as u64, state: State::All, lists }
    }

    /// Applies a filter.
    pub(super) fn filter(&mut self, need: Need) {
        if self.state == State::All && self.masses.len() < SHORT {
            self.list();
        }
        let before = self.state;
        match need {
            Need::Typical(p) => return self.typical(p),
            _ if before == State::List => {
                let at_least = self.at_least;
                return self.list().filter(need, at_least);
            }
            Need::Count(_) => return self.first_ranks(need),
            Need::OfLargest(p) => self.above(least_of(p, self.largest)),
            Need::Share(_) => self.first_ranks(need),
        }
        if self.has_too_few() {
            self.state = before;
            self.first_ranks(Need::Count(self.at_least));
        }
    }

    /// Whether a filter has left fewer tokens than it must keep.
    fn has_too_few(&self) -> bool {
        let left = match self.state {
            State::All => return false,
            State::Upto { count, .. } => count,
            State::List => self.lists.tokens.len() as u64,
        };
        left < self.at_least
    }

    /// The rank of the last token that is left.
    fn last(&self) -> u64 {
        match self.state {
            State::Upto { last, .. } => last,
            State::All | State::List => least_rank(),
        }
    }

    /// Keeps the tokens with this exponential or a larger one.
    fn above(&mut self, e: f32) {
        let last = rank(e, u32::MAX as usize);
        if last >= self.last() && self.state != State::All {
            return;
        }
        let spans = &mut self.lists.sums[..self.masses.len().div_ceil(SPAN)];
        let found = self.kernel.scan(self.masses, e, e, spans, &mut []);
        self.state = State::Upto { last, count: found.above.0, mass: found.above.1 };
    }

    /// Keeps the first ranks.
    #[inline(never)]
    fn first_ranks(&mut self, need: Need) {
        let before = self.last();
        let known = match self.state {
            State::Upto { mass, .. } => Some(mass),
            State::All | State::List => None,
        };
        let n = self.masses.len();
        let sample = Sample::of(self.masses);
        // With each try the band is wider; the last one has all tokens.
        for try_ in 0..3 {
            let (low, mut high, above) =
                sample.band(need, known.map_or(self.sum, |m| m as f64 / UNITS), try_);
            let (least, _) = of_rank(before);
            let is_all = low <= least;
            let low = low.max(least);
            if above <= FEW || high <= low {
                high = f32::INFINITY;
            }
            let spans = &mut self.lists.sums[..n.div_ceil(SPAN)];
            let band = &mut self.lists.band[..n];
            let found = self.kernel.scan(self.masses, low, high, spans, band);
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
                // Tokens that an earlier filter removed are left out.
                ranks.extend(band.iter().copied().filter(|&token| token <= before));
            }
            let reached = match need {
                Need::Count(_) => reach(ranks, |_| 1, target - above),
                _ => reach(ranks, units_of, target - above),
            };
            let last = match reached {
                Some(last) => last,
                // There are fewer tokens than that.
                None if is_all => before,
                None => continue,
            };
            if high == f32::INFINITY {
                self.lists.tokens.clear();
                self.lists.tokens.extend(band.iter().copied().filter(|&token| token <= last));
                self.state = State::List;
                return;
            }
            let (mut count, mut mass) = found.above;
            for &token in band {
                let (m, i) = of_rank(token);
                // A branch would be mispredicted often.
                let is_kept = u64::from(token <= last);
                let m = units(m) & is_kept.wrapping_neg();
                spans[i / SPAN] += m;
                mass += m;
                count += is_kept;
            }
            self.state = State::Upto { last, count, mass };
            return;
        }
    }

    /// Keeps the tokens around the mean of the logarithms.
    #[inline(never)]
    fn typical(&mut self, p: f64) {
        let mut info = Information::NONE;
        let n = self.inform(&mut info);
        let need = share(p, info.total());
        let before = self.state;
        // A list that is too short cannot become longer again.
        let is_known = n >= SHORT && (self.at_least <= 1 || before != State::List);
        let ends = if is_known { info.ends(need) } else { Ends::UNKNOWN };
        self.around(&info, &ends, need);
        if is_known && self.has_too_few() {
            self.state = before;
            self.around(&info, &Ends::UNKNOWN, need);
        }
    }

    /// The information that typical-p needs about the tokens, and their number.
    fn inform(&mut self, info: &mut Information) -> usize {
        if self.state == State::All {
            let exps = self.masses.exps().iter().map(|&e| self.masses.of(e));
            info.add(self.kernel, exps.enumerate().map(|(i, e)| (e, i)));
            return self.masses.len();
        }
        let (kernel, tokens) = (self.kernel, &self.list().lists.tokens);
        info.add(kernel, tokens.iter().map(|&token| of_rank(token)));
        tokens.len()
    }

    /// Keeps the tokens that are nearest to the mean and have `need` units; and, if the ends are
    /// not known, the least number of tokens.
    fn around(&mut self, info: &Information, ends: &Ends, need: u64) {
        let Ends { kept, maybe } = ends;
        let high = if maybe.end < BINS { edge(maybe.end) } else { f32::INFINITY };
        self.make_list(edge(maybe.start), high);
        let Lists { tokens, distances, .. } = &mut *self.lists;
        let is_sure = |token: u64| kept.contains(&bin(of_rank(token).0));
        let distance = |token: u64| {
            let distance = (ln(of_rank(token).0) - info.mean).abs();
            [distance.to_bits(), token]
        };
        distances.clear();
        distances.extend(tokens.iter().copied().filter(|&token| !is_sure(token)).map(distance));
        let need = need - info.units[kept.clone()].iter().sum::<u64>();
        let mut last = reach(distances, |[_, token]| units_of(token), need);
        if self.at_least > 1 && *ends == Ends::UNKNOWN {
            // There are fewer: all are kept.
            let nearest = reach(distances, |_| 1, self.at_least);
            last = last.zip(nearest).map(|(a, b)| a.max(b));
        }
        if let Some(last) = last {
            retain(tokens, |token| is_sure(token) || distance(token) <= last);
        }
    }

    /// Makes a list of the tokens that are left and have an exponential of at least `low` and below
    /// `high`.
    fn make_list(&mut self, low: f32, high: f32) {
        let last = self.last();
        let tokens = &mut self.lists.tokens;
        if self.state == State::List {
            return retain(tokens, |token| (low..high).contains(&of_rank(token).0));
        }
        let band = &mut self.lists.band[..self.masses.len()];
        let low = low.max(of_rank(last).0);
        let found = self.kernel.scan(self.masses, low, high, &mut [], band);
        tokens.clear();
        tokens.extend(band[..found.band].iter().copied().filter(|&token| token <= last));
        self.state = State::List;
    }

    /// The tokens that are left, as a list.
    pub(super) fn list(&mut self) -> List<'_, 'm> {
        if self.state != State::List {
            self.make_list(LEAST, f32::INFINITY);
        }
        List { lists: self.lists }
    }

    /// Draws tokens.
    pub(super) fn draw(mut self, method: Method, stream: Stream, draws: &mut [usize]) {
        let kernel = self.kernel;
        // Noise is made for pairs of tokens; for most pairs it would not be used.
        let is_upto = matches!(self.state, State::Upto { .. });
        if self.state == State::List || is_upto && method == Method::GumbelMax {
            return self.list().draw(kernel, method, stream, draws);
        }
        let last = self.last();
        if method == Method::GumbelMax {
            let of = |e| {
                let e = self.masses.of(e);
                if e >= LEAST { e } else { 0.0 }
            };
            let (exps, odd) = self.masses.exps().as_chunks::<2>();
            let odd = odd.iter().map(|&e| [of(e), 0.0]);
            let pairs = || exps.iter().map(|&exps| exps.map(of)).chain(odd.clone()).enumerate();
            for (draw, token) in draws.iter_mut().enumerate() {
                *token = race(kernel, pairs(), stream.draw(draw));
            }
            return;
        }
        if self.state == State::All {
            self.above(LEAST);
        }
        let n = self.masses.len().div_ceil(SPAN);
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
            let span = sums.iter().position(|&sum| {
                let here = target < sum;
                target -= if here { 0 } else { sum };
                here
            });
            let (start, exps) = self.masses.span(span.unwrap_or(n));
            let left = |(i, e)| if rank(e, start + i) <= last { units(e) } else { 0 };
            let here = place_of(target, exps.enumerate().map(left));
            *token = here.map_or(super::NONE, |i| start + i);
        }
    }
}

/// Units of mass in 1.
const UNITS: f64 = (1u64 << 30) as f64;

/// The token that the Gumbel-max trick draws, from pairs of tokens `2 * pair` and `2 * pair + 1` in
/// increasing order, and their exponentials, which are 0 for tokens that must not be drawn.
///
/// `ln(m) + g`, with `g = -ln(-ln(u))`, is largest where `-ln(u) / m` is least, which is an
/// exponential race: its time needs one logarithm instead of three, and mostly none, because `-ln(1
/// - v) >= v`.
#[inline(never)]
fn race(kernel: Ready, pairs: impl Iterator<Item = (usize, [f32; 2])>, bits: Bits) -> usize {
    let (mut best, mut least) = (super::NONE, f64::INFINITY);
    let mut pairs = pairs;
    let (mut numbers, mut masses) = ([0u32; AT_ONCE], [[0.0f32; 2]; AT_ONCE]);
    let mut noise = [[0.0; 2]; AT_ONCE];
    loop {
        let mut n = 0;
        for (pair, both) in pairs.by_ref() {
            (numbers[n], masses[n]) = (pair as u32, both);
            // A branch would be mispredicted often.
            n += usize::from(both[0] + both[1] > 0.0);
            if n == AT_ONCE {
                break;
            }
        }
        if n == 0 {
            return best;
        }
        kernel.noise(bits.words(), &numbers[..n], &mut noise[..n]);
        masses[n..].fill([0.0; 2]);
        let (noise, masses) = (noise.as_flattened(), masses.as_flattened());
        for (k, (noise, masses)) in noise.chunks(16).zip(masses.chunks(16)).enumerate() {
            let both = || noise.iter().zip(masses).map(|(&v, &mass)| (v, f64::from(mass)));
            // This has a margin for the rounding of both sides.
            let limit = least * (1.0 + 1e-12);
            if both().fold(true, |too_late, (v, mass)| too_late & (v > limit * mass)) {
                continue;
            }
            for (i, (v, mass)) in both().enumerate() {
                if mass == 0.0 || v > least * mass * (1.0 + 1e-12) {
                    continue;
                }
                let time = -libm::log1p(-v) / mass;
                if time < least {
                    let place = 16 * k + i;
                    (best, least) = (2 * numbers[place / 2] as usize + place % 2, time);
                }
            }
        }
        if n < AT_ONCE {
            return best;
        }
    }
}

/// Pairs of tokens whose noise is computed together.
const AT_ONCE: usize = 128;

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

    /// Replaces their exponentials.
    pub(super) fn reweigh(&mut self, masses: Masses<'_>) {
        for (token, &e) in self.lists.tokens.iter_mut().zip(masses.exps()) {
            *token = rank(masses.of(e), of_rank(*token).1);
        }
    }

    fn total(&self) -> u64 {
        self.lists.tokens.iter().map(|&token| units_of(token)).sum()
    }

    fn filter(&mut self, need: Need, at_least: u64) {
        let total = self.total();
        let Lists { tokens, ranks, .. } = &mut *self.lists;
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
            // This needs the mean of all tokens: `Kept::typical`.
            Need::Typical(_) => None,
        };
        let Some(mut last) = last else { return };
        if at_least > 1 && !matches!(need, Need::Count(_)) {
            ranks.clear();
            ranks.extend_from_slice(tokens);
            // There are fewer: all are kept.
            let Some(least) = reach(ranks, |_| 1, at_least) else { return };
            last = last.max(least);
        }
        retain(tokens, |token| token <= last);
    }

    /// Removes tokens that have no mass.
    pub(super) fn drop_massless(&mut self) {
        retain(&mut self.lists.tokens, |token| token <= least_rank());
    }

    /// Their ranks, and memory of the same length.
    pub(super) fn ranks(&mut self) -> (&[u64], &mut [u64]) {
        let Lists { tokens, band, .. } = &mut *self.lists;
        (tokens, &mut band[..tokens.len()])
    }

    /// Draws tokens.
    pub(super) fn draw(self, kernel: Ready, method: Method, stream: Stream, draws: &mut [usize]) {
        let Lists { tokens, sums, .. } = &mut *self.lists;
        if method == Method::GumbelMax {
            let pair_of = |token: u64| of_rank(token).1 / 2;
            let pairs = || {
                tokens.chunk_by(|&a, &b| pair_of(a) == pair_of(b)).map(|pair| {
                    let mut exps = [0.0; 2];
                    for (e, i) in pair.iter().map(|&token| of_rank(token)) {
                        exps[i % 2] = if e >= LEAST { e } else { 0.0 };
                    }
                    (pair_of(pair[0]), exps)
                })
            };
            for (draw, token) in draws.iter_mut().enumerate() {
                *token = race(kernel, pairs(), stream.draw(draw));
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

/// The number of bins: eighths of the octaves from 2^-62, which is [`LEAST`], to 8, and one for
/// tokens without mass.
const BINS: usize = (62 + 3) * 8 + 1;

/// The upper bits of the first bin, which is for tokens without mass.
const FIRST: u32 = (127 - 62) * 8 - 1;

/// The first bin of tokens with at least one unit of 2^-30, which is [`LEAST_UNIT`].
const FIRST_UNIT: usize = (62 - 30) * 8 + 1;

/// The bin of an exponential below 8.
fn bin(e: f32) -> usize {
    ((e.to_bits() >> 20).saturating_sub(FIRST) as usize).min(BINS - 1)
}

/// The least exponential of a bin, or of those above all bins.
fn edge(bin: usize) -> f32 {
    f32::from_bits((bin as u32 + FIRST) << 20)
}

/// The information that typical-p needs about the tokens that are left.
struct Information {
    /// The units by eighths of octaves.
    units: [u64; BINS],
    /// The mean of `ln(e)`, weighted by units. `ln(e) = ln(probability) + ln(total)`, so it is as
    /// far from a token's `ln(e)` as the entropy is from the token's information.
    mean: f64,
}

/// The bins of tokens that are kept for certain, and the bins of all tokens that may be kept.
#[derive(Debug, PartialEq)]
struct Ends {
    kept: Range<usize>,
    maybe: Range<usize>,
}

impl Ends {
    const UNKNOWN: Self = Self { kept: 1..1, maybe: 1..BINS };
}

impl Information {
    /// The information of no tokens.
    const NONE: Self = Self { units: [0; BINS], mean: 0.0 };

    /// The information of tokens and their exponentials; tokens without mass count as absent. It is
    /// a separate function, like others here, so that its stack memory is free again afterwards.
    #[inline(never)]
    fn add(&mut self, kernel: Ready, tokens: impl Iterator<Item = (f32, usize)>) {
        const AT_ONCE: usize = 128;
        let mut tokens = tokens;
        // The sum has its own fixed order: eight sums by indices.
        let mut sums = [0.0; 8];
        let (mut exps, mut indices) = ([0.0; AT_ONCE], [0; AT_ONCE]);
        let mut logs = [0.0; AT_ONCE];
        loop {
            let mut n = 0;
            for ((e, i), token) in exps.iter_mut().zip(&mut indices).zip(tokens.by_ref()) {
                (*e, *i) = token;
                n += 1;
            }
            kernel.logs(&exps[..n], &mut logs[..n]);
            for ((&e, &i), &log) in exps[..n].iter().zip(&indices).zip(&logs) {
                let units = units(e);
                self.units[bin(e)] += units;
                sums[i % 8] += units as f64 / UNITS * log;
            }
            if n < AT_ONCE {
                break;
            }
        }
        self.mean = sums.iter().sum::<f64>() / (self.total() as f64 / UNITS);
    }

    fn total(&self) -> u64 {
        self.units.iter().sum()
    }

    /// Where the tokens end that are nearest to the mean and have `need` units.
    #[inline(never)]
    fn ends(&self, need: u64) -> Ends {
        /// Far more than the error of logarithms, and far less than a bin.
        const MARGIN: f64 = 1e-9;
        const LOW: u64 = 0x3ff;
        const { assert!(BINS as u64 <= LOW) };
        let mut logs = [0.0; BINS + 1];
        for (bin, log) in logs.iter_mut().enumerate() {
            *log = ln(edge(bin));
        }
        // The least and the largest distance of a bin.
        let least =
            |bin: usize| ((logs[bin] - self.mean).max(self.mean - logs[bin + 1]) - MARGIN).max(0.0);
        let largest = |bin: usize| (self.mean - logs[bin]).max(logs[bin + 1] - self.mean) + MARGIN;
        // If all tokens of a bin were at its least or at its largest distance, the last distance
        // would be less or more.
        let last = |distance: &dyn Fn(usize) -> f64| {
            // The last bits of a distance have the bin; the margin allows for that.
            let mut bins = [0; BINS];
            for (bin, key) in bins.iter_mut().enumerate() {
                *key = distance(bin).to_bits() & !LOW | bin as u64;
            }
            let last = reach(&mut bins, |bin| self.units[(bin & LOW) as usize], need);
            last.map_or(f64::INFINITY, |bin| f64::from_bits(bin & !LOW))
        };
        let (low, high) = (last(&least), last(&largest));
        // Both distances decrease and then increase with the bins.
        let range = |is_in: &dyn Fn(usize) -> bool| {
            let start = (1..BINS).find(|&bin| is_in(bin)).unwrap_or(1);
            let after = (start..BINS).find(|&bin| !is_in(bin)).unwrap_or(BINS);
            start..after
        };
        Ends { kept: range(&|bin| largest(bin) < low), maybe: range(&|bin| least(bin) <= high) }
    }
}

/// A sample of a row's exponentials, by eighths of octaves.
struct Sample {
    counts: [u32; BINS],
    /// The number of tokens of the row for each one in the sample.
    each: f64,
}

/// Neighbouring tokens of a sample, and the number of such groups.
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
                counts[bin(masses.of(e))] += 1;
                n += 1;
            }
        }
        Sample { counts, each: exps.len() as f64 / n.max(1) as f64 }
    }

    /// A band of exponentials that probably contains the last rank of a filter: its lower and its
    /// upper end, and approximately how many tokens are above. The sum of the units is known
    /// approximately.
    fn band(&self, need: Need, sum: f64, try_: u32) -> (f32, f32, f64) {
        // A share of the units is reached by a token that has units.
        let least = if let Need::Share(_) = need { LEAST_UNIT } else { LEAST };
        let (mut low, mut high, mut above) = (least, f32::INFINITY, 0.0);
        // Standard deviations.
        let z = match try_ {
            0 => 3.0,
            1 => 12.0,
            _ => return (low, high, above),
        };
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
                // The target is what is below the last rank. Most of that is of many tokens, which
                // are well represented in the sample.
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

#[cfg(test)]
mod tests {
    use super::*;
    use softmax_kernels::{Scale, all};

    /// The tokens that typical-p keeps after another filter, and where its search ended.
    fn typical(
        kernel: Ready,
        x: &[f32],
        before: Option<Need>,
        p: f64,
        by_histogram: bool,
    ) -> (Vec<usize>, Ends) {
        let n = x.len();
        let (mut exps, mut memory, mut pairs) = (vec![0.0; n], vec![0; 4 * n], vec![[0; 2]; n]);
        let found = kernel.exps(x, None, &Scale::ONE, &mut None, &mut exps);
        let found = found.expect("finite numbers");
        let mut lists = Lists::new(n, &mut memory, &mut pairs);
        let masses = Masses::new(&exps, found.factor);
        let mut kept = Kept::all(kernel, masses, &found, 1, &mut lists);
        if let Some(before) = before {
            kept.filter(before);
        }
        let mut info = Information::NONE;
        kept.inform(&mut info);
        let need = share(p, info.total());
        let ends = if by_histogram { info.ends(need) } else { Ends::UNKNOWN };
        kept.around(&info, &ends, need);
        (kept.list().indices().collect(), ends)
    }

    #[test]
    fn typical_p_is_the_same_by_a_histogram_and_without() {
        let mut state = 1u64;
        let mut uniform = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 40) as f32 / (1u32 << 24) as f32
        };
        let n = 5001;
        let mut bell = |width: f32| -> Vec<f32> {
            (0..n).map(|_| ((0..12).map(|_| uniform()).sum::<f32>() - 6.0) * width).collect()
        };
        let peaked = bell(1.0).iter().enumerate().map(|(i, x)| x + [0.0, 20.0][i / 4990]).collect();
        let tied = bell(3.0).iter().map(|x| x.round()).collect();
        let two = bell(1.0).iter().map(|&x| if x > 0.5 { 1.0 } else { -1.0 }).collect();
        let rows = [bell(3.0), bell(0.01), bell(20.0), peaked, vec![7.0; n], tied, two];
        for kernel in all().iter().filter_map(Ready::of) {
            for (row, x) in rows.iter().enumerate() {
                for p in [0.0, 0.01, 0.3, 0.5, 0.9, 0.999, 1.0 - 1e-9] {
                    let of = |before, by_histogram| typical(kernel, x, before, p, by_histogram);
                    let (all, _) = of(None, false);
                    let (listed, _) = of(Some(Need::Count(n as u64)), true);
                    assert_eq!(listed, all, "{} {row} {p}, a list", kernel.name());
                    assert!(!all.is_empty());
                    let half = Need::Count(n as u64 / 2);
                    for before in [None, Some(half), Some(Need::Share(0.99))] {
                        let (want, _) = of(before, false);
                        let (got, ends) = of(before, true);
                        assert_eq!(got, want, "{} {row} {p} {before:?}", kernel.name());
                        // The histogram leaves little for selection.
                        if row == 0 && p == 0.9 {
                            assert!(ends.maybe.len() - ends.kept.len() <= 6, "{ends:?}");
                        }
                    }
                }
            }
        }
    }
}
