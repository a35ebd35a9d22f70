//! Calls of a router, which sends each token to a few experts.

use crate::call::error::Error;
use crate::call::matrix::Matrix;
use crate::call::{Masked, picks};
use crate::mem::fpenv::in_default_environment;
use crate::num::element::Element;
use crate::num::two_sum;

/// The most experts that a router chooses from.
pub const MOST_EXPERTS: usize = 4096;

/// How a router makes scores of logits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Scoring {
    /// The softmax of the row.
    #[default]
    Softmax,
    /// The sigmoid of each logit.
    Sigmoid,
}

/// The score of a group of experts, by which groups are chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum GroupScore {
    /// The sum of its two largest scores (of its only one, if it has no other), as in DeepSeek-V3.
    #[default]
    TopTwo,
    /// Its largest score, as in DeepSeek-V2.
    Largest,
}

/// What is computed for each row.
#[derive(Clone, Copy, Debug)]
pub struct Routing<'a> {
    /// Number of experts that are chosen.
    pub k: usize,
    /// How scores are made.
    pub scoring: Scoring,
    /// Added to scores for the choice, one for each expert.
    pub bias: Option<&'a [f32]>,
    /// Number of groups, each of as many experts in order, and from how many of them experts are
    /// chosen.
    pub groups: Option<(usize, usize)>,
    /// The score of a group.
    pub group_score: GroupScore,
    /// Whether the weights of a row are divided by their sum.
    pub renormalize: bool,
    /// The factor of all weights.
    pub factor: f64,
    /// The weights of rows that are all -inf.
    pub masked: Masked,
}

impl Routing<'_> {
    /// Checks the options for rows of `cols` elements.
    ///
    /// # Errors
    /// [`Error::Value`] or [`Error::Shape`].
    pub fn check(&self, cols: usize) -> Result<(), Error> {
        if cols > MOST_EXPERTS {
            return Err(Error::value("number of experts", cols, "at most 4096"));
        }
        if self.k > cols {
            return Err(Error::value("k of the router", self.k, "at most the number of experts"));
        }
        let bias = self.bias.unwrap_or_default();
        if self.bias.is_some() {
            picks::check("number of biases", bias.len(), cols)?;
        }
        in_default_environment(|| {
            if !self.factor.is_finite() {
                return Err(Error::value("scaling factor", self.factor, "finite"));
            }
            match bias.iter().position(|b| !b.is_finite()) {
                Some(i) => Err(Error::value_at("bias of expert", i, bias[i], "finite")),
                None => Ok(()),
            }
        })?;
        let Some((groups, limit)) = self.groups else { return Ok(()) };
        if groups == 0 || !cols.is_multiple_of(groups) {
            return Err(Error::value("number of groups", groups, "a divisor of that of experts"));
        }
        if limit == 0 || limit > groups {
            return Err(Error::value("limit of groups", limit, "from 1 to the number of groups"));
        }
        if self.k > limit * (cols / groups) {
            let range = "at most the number of experts in as many groups as the limit";
            return Err(Error::value("k of the router", self.k, range));
        }
        Ok(())
    }

    /// Whether experts are chosen by their scores, with a bias or in groups, and not by their
    /// logits, whose order is that of the scores, but finer.
    pub(crate) fn by_scores(&self) -> bool {
        self.bias.is_some() || self.groups.is_some()
    }

    /// Whether weights are the softmax of the chosen logits: what a softmax becomes if the chosen
    /// ones are divided by their sum.
    pub(crate) fn of_chosen(&self) -> bool {
        self.scoring == Scoring::Softmax && self.renormalize
    }

    /// Turns the scores of a row's experts, or the softmax of their logits, into weights: sums and
    /// quotients in f64, rounded once.
    #[inline(always)]
    pub(crate) fn finish<E: Element>(&self, weights: &mut [E]) {
        let mut divisor = 1.0;
        if self.renormalize && !self.of_chosen() {
            let (mut sum, mut rest) = (0.0, 0.0);
            for w in &*weights {
                let (s, e) = two_sum(sum, w.to_f64());
                (sum, rest) = (s, rest + e);
            }
            // Scores that are all 0 remain so.
            divisor = if sum == 0.0 { 1.0 } else { sum + rest };
        } else if self.factor == 1.0 {
            return;
        }
        for w in weights {
            let v = w.to_f64() / divisor * self.factor;
            *w = if v.is_nan() { E::NAN } else { E::from_f64(v) };
        }
    }
}

/// A call that routes the tokens of the rows.
#[derive(Debug)]
pub struct RouteCall<'a, T: Element> {
    pub(crate) x: Matrix<'a, T>,
    pub(crate) routing: Routing<'a>,
    /// `k` for each row.
    pub(crate) weights: &'a mut [T::Arithmetic],
    /// `k` for each row.
    pub(crate) experts: &'a mut [u32],
}

impl<'a, T: Element> RouteCall<'a, T> {
    /// Chooses experts of each row of `x`.
    ///
    /// # Errors
    /// As [`Routing::check`]; [`Error::Shape`] for outputs of another length than `k` for each row.
    pub fn new(
        x: Matrix<'a, T>,
        routing: Routing<'a>,
        weights: &'a mut [T::Arithmetic],
        experts: &'a mut [u32],
    ) -> Result<Self, Error> {
        routing.check(x.cols())?;
        // k is at most 4096, and the rows are there, so this does not overflow.
        let needed = x.rows().saturating_mul(routing.k);
        picks::check("number of weights", weights.len(), needed)?;
        picks::check("number of experts' indices", experts.len(), needed)?;
        Ok(RouteCall { x, routing, weights, experts })
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.x.rows()
    }

    /// Number of elements in a row.
    pub fn cols(&self) -> usize {
        self.x.cols()
    }

    /// The first `at` rows and the others.
    pub fn split_rows(self, at: usize) -> (Self, Self) {
        let RouteCall { x, routing, weights, experts } = self;
        let at = at.min(x.rows());
        let (x, y) = x.split_rows(at);
        let (weights, weights_2) = weights.split_at_mut(at * routing.k);
        let (experts, experts_2) = experts.split_at_mut(at * routing.k);
        let others = RouteCall { x: y, routing, weights: weights_2, experts: experts_2 };
        (RouteCall { x, routing, weights, experts }, others)
    }
}
