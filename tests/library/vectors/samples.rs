//! Vectors of the sampler.

use super::{Bits, Case, File, Input, list, words};
use crate::common::*;
use softmax::{Element, Kernel, Matrix, Method, Order, Sampler};

/// The options of a case.
#[derive(Clone)]
struct Options {
    rows: usize,
    draws: usize,
    temperature: f64,
    top_k: usize,
    top_p: f64,
    min_p: f64,
    order: Order,
    method: Method,
    bias: Vec<(usize, f32)>,
    history: Vec<Vec<usize>>,
    penalties: [f64; 3],
    seed: u64,
    step: u64,
    first_row: u64,
    typical_p: f64,
    min_keep: usize,
}

fn plain() -> Options {
    Options {
        rows: 1,
        draws: 12,
        temperature: 1.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        order: Order::Transformers,
        method: Method::InverseCdf,
        bias: vec![],
        history: vec![],
        penalties: [1.0, 0.0, 0.0],
        seed: 1,
        step: 0,
        first_row: 0,
        typical_p: 1.0,
        min_keep: 0,
    }
}

/// Calls `f` with the sampler of these options.
fn with_sampler<R>(kernel: &'static Kernel, o: &Options, f: impl FnOnce(Sampler) -> R) -> R {
    let history: Vec<&[usize]> = o.history.iter().map(|list| &list[..]).collect();
    let [repetition, presence, frequency] = o.penalties;
    let sampler = Sampler::new(o.seed).step(o.step).first_row(o.first_row);
    let sampler = sampler.temperature(o.temperature).top_k(o.top_k).top_p(o.top_p);
    let sampler = sampler.min_p(o.min_p).order(o.order).method(o.method);
    let sampler = sampler.typical_p(o.typical_p).min_keep(o.min_keep);
    let sampler = sampler.repetition_penalty(repetition).presence_penalty(presence);
    let sampler = sampler.frequency_penalty(frequency).exec(by(kernel));
    f(sampler.bias(&o.bias).history(&history))
}

/// The case of a row or more, without results but the draws.
fn case<T: Bits>(kernel: &'static Kernel, input: &Input<T>, o: &Options) -> Case {
    let x = input.elements();
    let mut draws = vec![0; o.rows * o.draws];
    with_sampler(kernel, o, |sampler| {
        let logits = Matrix::new(&x, x.len() / o.rows)?;
        sampler.sample(logits, &mut draws)
    })
    .expect("a valid call");
    let mut case = Case::new::<T>().raw("rows", o.rows).raw("seed", o.seed);
    for (name, value) in [("step", o.step), ("first_row", o.first_row)] {
        if value > 0 {
            case = case.raw(name, value);
        }
    }
    for (name, value) in [("top_k", o.top_k), ("min_keep", o.min_keep)] {
        if value > 0 {
            case = case.raw(name, value);
        }
    }
    let numbers = [
        ("temperature", o.temperature, 1.0),
        ("top_p", o.top_p, 1.0),
        ("min_p", o.min_p, 0.0),
        ("typical_p", o.typical_p, 1.0),
        ("repetition", o.penalties[0], 1.0),
        ("presence", o.penalties[1], 0.0),
        ("frequency", o.penalties[2], 0.0),
    ];
    for (name, value, usual) in numbers {
        if value != usual {
            case = case.number(name, value);
        }
    }
    if o.order == Order::LlamaCpp {
        case = case.text("order", "llama.cpp");
    }
    if o.method == Method::GumbelMax {
        case = case.text("method", "gumbel-max");
    }
    if !o.bias.is_empty() {
        let pair = |&(token, bias): &(usize, f32)| format!("[{token}, \"{}\"]", words(&[bias]));
        case = case.raw("bias", list(o.bias.iter().map(pair)));
    }
    if !o.history.is_empty() {
        case = case.raw("history", list(o.history.iter().map(list)));
    }
    let token = |&token: &usize| if token == usize::MAX { -1 } else { token as i64 };
    case.input("x", input).raw("draws", list(draws.iter().map(token)))
}

/// Draws.
pub(super) fn samples<T: Bits>(file: &mut File, kernel: &'static Kernel) {
    let (inf, gumbel, llama) = (f64::INFINITY, Method::GumbelMax, Order::LlamaCpp);
    let short = |seed| Input::Generated { n: 40, seed, exponent: 2 };
    let long = |seed, exponent| Input::Generated { n: 3000, seed, exponent };
    let wide = || Input::Generated { n: 2500, seed: 9, exponent: 5 };
    let mut special = vec![1.0, inf, 0.0, f64::NAN, -inf, -inf];
    special.extend([2.0, -inf]);
    let all: Vec<(Input<T>, Options)> = vec![
        (short(1), plain()),
        (short(2), Options { rows: 4, draws: 3, seed: 1 << 40 | 9, ..plain() }),
        (short(3), Options { step: 5 << 32 | 3, first_row: 7 << 32 | 11, ..plain() }),
        (short(4), Options { top_k: 3, ..plain() }),
        (short(5), Options { top_p: 0.7, temperature: 0.8, ..plain() }),
        (short(6), Options { min_p: 0.1, temperature: 2.0, ..plain() }),
        (short(7), Options { top_k: 20, top_p: 0.5, min_p: 0.02, ..plain() }),
        (short(8), Options { method: gumbel, ..plain() }),
        (short(9), Options { method: gumbel, top_p: 0.8, seed: 77, ..plain() }),
        (short(10), Options { order: llama, top_p: 0.6, temperature: 3.0, ..plain() }),
        (short(11), Options { order: llama, top_k: 5, temperature: inf, ..plain() }),
        (short(12), Options { temperature: inf, top_k: 7, ..plain() }),
        (short(13), Options { temperature: inf, ..plain() }),
        (short(14), Options { temperature: 0.0, draws: 1, ..plain() }),
        (
            short(15),
            Options {
                rows: 2,
                draws: 6,
                bias: vec![(3, 5.0), (0, -inf as f32), (3, 0.1), (19, 2.5)],
                history: vec![vec![1, 1, 19, 5], vec![7]],
                penalties: [1.3, 0.5, 0.25],
                ..plain()
            },
        ),
        (
            short(16),
            Options {
                history: vec![vec![2, 2, 2, 9, 30]],
                penalties: [0.5, -3.0, 1.0],
                top_p: 0.9,
                ..plain()
            },
        ),
        (long(1, 3), plain()),
        (long(2, 3), Options { top_p: 0.9, ..plain() }),
        (long(3, 1), Options { top_k: 700, method: gumbel, draws: 3, ..plain() }),
        (long(4, 3), Options { order: llama, min_p: 0.01, temperature: 0.5, ..plain() }),
        // Rests count for one large mass and many small ones.
        (wide(), Options { temperature: 0.8, draws: 40, ..plain() }),
        // A seed whose first draw from f32 falls among the rests.
        (wide(), Options { temperature: 0.8, draws: 2, seed: 1_343_428, ..plain() }),
        (Input::of(&[5.0, 5.0, 5.0, 4.0]), Options { top_k: 2, ..plain() }),
        (Input::of(&[0.0, -50.0]), plain()),
        (Input::of(&special), Options { rows: 4, draws: 2, ..plain() }),
    ];
    for (input, o) in all {
        file.add(case(kernel, &input, &o));
    }
}

/// Typical-p, and filters that leave a least number of tokens: the tokens that are left, too.
pub(super) fn filters<T: Bits>(file: &mut File, kernel: &'static Kernel)
where
    T::Arithmetic: Bits,
{
    let (inf, llama) = (f64::INFINITY, Order::LlamaCpp);
    let short = |seed| Input::Generated { n: 40, seed, exponent: 2 };
    let long = |seed, exponent| Input::Generated { n: 2500, seed, exponent };
    let typical = |typical_p| Options { typical_p, draws: 4, ..plain() };
    let keeps = |min_keep| Options { min_keep, draws: 4, ..plain() };
    let bias = vec![(3, 5.0), (0, f32::NEG_INFINITY)];
    let mut all: Vec<(Input<T>, Options)> = vec![
        (short(1), typical(0.0)),
        (short(2), typical(0.2)),
        (short(3), typical(0.5)),
        (short(4), typical(0.95)),
        (short(5), Options { temperature: 0.5, ..typical(0.7) }),
        (short(6), Options { temperature: inf, ..typical(0.3) }),
        (short(7), Options { temperature: 0.0, draws: 1, ..typical(0.3) }),
        (short(8), Options { top_k: 12, top_p: 0.9, min_p: 0.05, ..typical(0.6) }),
        (short(9), Options { top_k: 30, top_p: 0.8, min_p: 0.3, order: llama, ..typical(0.4) }),
        (short(10), Options { temperature: 2.0, order: llama, ..typical(0.5) }),
        (short(11), Options { temperature: inf, order: llama, top_k: 9, ..typical(0.5) }),
        (short(12), Options { min_keep: 6, ..typical(0.1) }),
        (short(13), Options { min_keep: 60, top_k: 5, ..typical(0.1) }),
        (short(14), Options { bias, method: Method::GumbelMax, ..typical(0.6) }),
        (short(15), Options { top_p: 0.3, ..keeps(7) }),
        (short(16), Options { min_p: 0.5, ..keeps(9) }),
        (short(17), Options { top_k: 3, top_p: 0.1, ..keeps(5) }),
        (short(18), Options { top_p: 0.1, min_p: 0.9, order: llama, ..keeps(50) }),
        // Equal tokens, and tokens at the same distance from the mean.
        (Input::of(&[2.0; 9]), typical(0.5)),
        (Input::of(&[1.0, -1.0, 1.0, -1.0, 1.0, -1.0]), typical(0.5)),
        (Input::of(&[0.0, -50.0, -30.0, -12.0]), Options { min_keep: 3, ..typical(0.5) }),
        (Input::of(&[0.0, -50.0, -30.0, -12.0]), Options { min_keep: 3, top_p: 0.5, ..plain() }),
        (Input::of(&[1.0, f64::NAN]), typical(0.5)),
        (Input::of(&[-inf, 1.0, -inf]), typical(0.5)),
        (long(1, 3), typical(0.1)),
        (long(2, 3), typical(0.9)),
        (long(3, 1), Options { top_k: 700, ..typical(0.2) }),
        (long(4, 3), Options { min_keep: 40, top_p: 0.01, min_p: 0.9, ..typical(0.01) }),
    ];
    // Groups of equal mass, whose distances from the mean differ by last bits or not at all:
    // `n` times one token with 2^k times the mass of those after it.
    for (n, k) in [(1, 1), (1, 2), (3, 1), (1, 3), (5, 1), (3, 2), (7, 1), (6, 2), (9, 1)] {
        let mut group = vec![0.0; 1 + (1 << k)];
        group[0] = f64::from(k);
        let o = Options { temperature: 1.0 / std::f64::consts::LN_2, ..typical(0.3) };
        all.push((Input::of(&group.repeat(n)), o));
    }
    for (input, o) in all {
        let (x, case) = (input.elements(), case(kernel, &input, &o));
        let (mut tokens, mut counts) = (vec![0; x.len()], [0]);
        let [mut probs, mut logs] = [(); 2].map(|()| vec![T::Arithmetic::NAN; x.len()]);
        with_sampler(kernel, &o, |sampler| {
            let logits = || Matrix::new(&x, x.len());
            sampler.kept_log_probs(logits()?, &mut tokens, &mut logs, &mut counts)?;
            sampler.kept_probs(logits()?, &mut tokens, &mut probs, &mut counts)
        })
        .expect("a valid call");
        let n = counts[0];
        let case = if n < 100 { case.raw("kept", list(&tokens[..n])) } else { case };
        file.add(case.output("probs", &probs[..n]).output("log_probs", &logs[..n]));
    }
}
