//! The loop that a draw from the excess of probabilities needs.

use crate::call::excess::{excess, is_prob};
use crate::call::masses::SPAN;
use crate::isa::vector::Vector;
use crate::num::element::Element;

/// As [`Ready::excess`](crate::Ready::excess). The compiler turns the loops into vectors. Units of
/// what is no probability are any numbers, so that their sums may wrap.
#[inline(always)]
pub(crate) fn sums<S: Vector, A: Element>(
    _: S,
    p: &[A],
    q: Option<&[A]>,
    sums: &mut [u64],
) -> bool {
    let mut bad = 0;
    let spans = p.chunks(SPAN).zip(sums);
    match q {
        None => {
            for (p, sum) in spans {
                *sum = 0;
                for p in p {
                    let p = p.to_f64();
                    *sum = sum.wrapping_add(excess(p, 0.0));
                    bad |= u64::from(!is_prob(p));
                }
            }
        }
        Some(q) => {
            for ((p, sum), q) in spans.zip(q.chunks(SPAN)) {
                *sum = 0;
                for (p, q) in p.iter().zip(q) {
                    let (p, q) = (p.to_f64(), q.to_f64());
                    *sum = sum.wrapping_add(excess(p, q));
                    bad |= u64::from(!(is_prob(p) & is_prob(q)));
                }
            }
        }
    }
    bad == 0
}
