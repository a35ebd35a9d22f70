//! The bit reference of `op/route.rs`.

use crate::call::Masked;
use crate::call::routes::{GroupScore, RouteCall, Routing, Scoring};
use crate::num::element::Element;
use crate::num::scale::Scale;
use crate::scalar::decide::sigmoid;
use crate::scalar::{Double, Reference, Single, element, is_double, softmax_row};

/// Indices in the order of the values that they have, the largest first, and of equals the first.
fn order(values: &[f64]) -> Vec<usize> {
    let mut order: Vec<_> = (0..values.len()).collect();
    // A stable sort: the first of equals stays the first.
    order.sort_by(|&a, &b| values[b].partial_cmp(&values[a]).expect("no NaN"));
    order
}

fn scores<R: Reference>(x: &[f64], scoring: Scoring, masked: Masked) -> Vec<f64> {
    match scoring {
        Scoring::Softmax => softmax_row::<R>(x, &Scale::ONE, masked),
        Scoring::Sigmoid => x.iter().map(|&x| sigmoid::<R>(x, &Scale::ONE)).collect(),
    }
}

/// The experts of a row, and their weights yet to be finished.
fn row<R: Reference>(x: &[f64], routing: &Routing) -> (Vec<usize>, Vec<f64>) {
    let (k, masked) = (routing.k, routing.masked);
    let all = scores::<R>(x, routing.scoring, masked);
    let mut keys = x.to_vec();
    if routing.by_scores() {
        for (i, key) in keys.iter_mut().enumerate() {
            *key = match routing.bias {
                Some(bias) => R::round(all[i] + f64::from(bias[i])),
                None => all[i],
            };
        }
    }
    if keys.iter().any(|key| key.is_nan()) {
        return ((0..k).collect(), vec![f64::NAN; k]);
    }
    if let Some((groups, limit)) = routing.groups {
        let size = x.len() / groups;
        let score = |group: &[f64]| {
            let order = order(group);
            match routing.group_score {
                GroupScore::TopTwo if size > 1 => R::round(group[order[0]] + group[order[1]]),
                _ => group[order[0]],
            }
        };
        let scores: Vec<_> = keys.chunks(size).map(score).collect();
        for &g in &order(&scores)[limit..] {
            keys[g * size..(g + 1) * size].fill(f64::NEG_INFINITY);
        }
    }
    let mut experts = order(&keys);
    experts.truncate(k);
    let weights = if routing.of_chosen() {
        let chosen: Vec<_> = experts.iter().map(|&i| x[i]).collect();
        softmax_row::<R>(&chosen, &Scale::ONE, masked)
    } else {
        experts.iter().map(|&i| all[i]).collect()
    };
    (experts, weights)
}

pub(crate) fn route<T: Element>(call: &mut RouteCall<T>) -> bool {
    let k = call.routing.k;
    for r in 0..call.x.rows() {
        let x: Vec<_> = call.x.row(r).iter().map(|x| x.to_f64()).collect();
        let (experts, weights) = if is_double::<T>() {
            row::<Double>(&x, &call.routing)
        } else {
            row::<Single>(&x, &call.routing)
        };
        let places = r * k..(r + 1) * k;
        for (place, expert) in call.experts[places.clone()].iter_mut().zip(experts) {
            *place = expert as u32;
        }
        let of_row = &mut call.weights[places];
        for (place, weight) in of_row.iter_mut().zip(weights) {
            *place = element(weight);
        }
        call.routing.finish(of_row);
    }
    true
}
