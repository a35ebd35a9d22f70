//! Routers of mixtures of experts.

use std::ffi::c_void;

use softmax::{Element, GroupScore, Router, Scoring, Shape};

use crate::options::{Call, call, softmax_options};
use crate::raw::{Descriptor, Region, by_dtype, read, slice, slice_mut, softmax_matrix, write};
use crate::status::{Failure, Reason, softmax_status};

/// Scores are the softmax of the row.
pub const SOFTMAX_SCORING_SOFTMAX: u32 = 0;
/// Scores are the sigmoids of the logits.
pub const SOFTMAX_SCORING_SIGMOID: u32 = 1;

/// The score of a group is the sum of its two largest scores, as in DeepSeek-V3.
pub const SOFTMAX_GROUP_SCORE_TOP_TWO: u32 = 0;
/// The score of a group is its largest score, as in DeepSeek-V2.
pub const SOFTMAX_GROUP_SCORE_LARGEST: u32 = 1;

/// The weights of each token are divided by their sum.
pub const SOFTMAX_ROUTER_RENORMALIZE: u32 = 1;

/// How experts are chosen. `softmax_router_default` makes one that takes the `k` largest of the
/// softmax. (Scale and temperature of `softmax_options` have no effect.)
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct softmax_router {
    /// `sizeof(softmax_router)`.
    pub size: usize,
    /// Number of experts of each token.
    pub k: usize,
    /// `SOFTMAX_SCORING_SOFTMAX` or `SOFTMAX_SCORING_SIGMOID`.
    pub scoring: u32,
    /// 0 or `SOFTMAX_ROUTER_RENORMALIZE`.
    pub flags: u32,
    /// Numbers that are added to the scores for the choice alone, one for each expert; null for
    /// none.
    pub bias: *const f32,
    /// Number of groups of experts, all of the same size; 0 for none.
    pub groups: usize,
    /// Number of groups from which the experts of a token are chosen.
    pub group_limit: usize,
    /// `SOFTMAX_GROUP_SCORE_TOP_TWO` or `SOFTMAX_GROUP_SCORE_LARGEST`.
    pub group_score: u32,
    /// The factor of all weights, after they are renormalised. 1 by default.
    pub scaling_factor: f64,
}

// SAFETY: numbers and pointers.
unsafe impl Descriptor for softmax_router {
    const NAME: &'static str = "softmax_router";
}

/// The options for so many experts, and the memory region of the biases.
///
/// # Safety
/// The biases are valid for reads.
unsafe fn options_of<'a>(
    call: &Call<'a>,
    r: &softmax_router,
    cols: usize,
) -> Result<(Router<'a>, Region), Failure> {
    let scoring = match r.scoring {
        SOFTMAX_SCORING_SOFTMAX => Scoring::Softmax,
        SOFTMAX_SCORING_SIGMOID => Scoring::Sigmoid,
        value => return Err(Reason::Choice { of: "scoring", value }.into()),
    };
    let score = match r.group_score {
        SOFTMAX_GROUP_SCORE_TOP_TWO => GroupScore::TopTwo,
        SOFTMAX_GROUP_SCORE_LARGEST => GroupScore::Largest,
        value => return Err(Reason::Choice { of: "group_score", value }.into()),
    };
    match r.flags & !SOFTMAX_ROUTER_RENORMALIZE {
        0 => {}
        flags => return Err(Reason::Flags { of: softmax_router::NAME, flags }.into()),
    }
    let mut router = call.given.router(r.k).scoring(scoring).group_score(score);
    router = router.renormalize(r.flags != 0).scaling_factor(r.scaling_factor);
    if r.groups > 0 {
        router = router.groups(r.groups, r.group_limit);
    }
    let region = Region::of("bias", r.bias, cols)?;
    if !r.bias.is_null() {
        // SAFETY: as this function's.
        router = router.bias(unsafe { slice("bias", r.bias, cols) }?);
    }
    Ok((router, region))
}

/// The experts of each token, whose logits are a row, one for each expert: `k` of them for a row,
/// those with the largest scores, the largest first, and of equals the first; and their weights
/// (float, or double for f64). The documentation of the crate's `Router` has the details, and the
/// options that give the routers of well-known models.
///
/// # Safety
/// As the head of this file says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_route(
    logits: *const softmax_matrix,
    weights: *mut c_void,
    experts: *mut u32,
    router: *const softmax_router,
    options: *const softmax_options,
) -> softmax_status {
    // SAFETY: as this function's.
    unsafe {
        call(options, &|call| {
            let (logits, router) = (read(logits)?, read(router)?);
            let (rows, cols) = (logits.rows, logits.cols);
            let n = rows.checked_mul(router.k).ok_or(Reason::TooLarge("experts"))?;
            let (router, bias) = options_of(call, router, cols)?;
            by_dtype!("logits", logits.dtype, T => {
                let weights = weights.cast::<<T as Element>::Arithmetic>();
                call.disjoint(
                    &[Region::of("weights", weights, n)?, Region::of("experts", experts, n)?],
                    &[logits.region::<T>("logits")?, bias],
                )?;
                let weights = slice_mut("weights", weights, n)?;
                let experts = slice_mut("experts", experts, n)?;
                let logits = logits.view::<T>("logits")?;
                let needed = || router.scratch_size::<T>(Shape::new(rows, cols));
                call.run(needed, || router.route(logits, weights, experts))
            })
        })
    }
}

/// As `softmax_scratch_size`, for the experts of logits with the shape and dtype of this matrix,
/// whose data is not used.
///
/// # Safety
/// As the head of this file says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_route_scratch_size(
    logits: *const softmax_matrix,
    router: *const softmax_router,
    bytes: *mut usize,
    options: *const softmax_options,
) -> softmax_status {
    // SAFETY: as this function's.
    unsafe {
        call(options, &|call| {
            let (logits, router) = (read(logits)?, read(router)?);
            let (router, _) = options_of(call, router, logits.cols)?;
            by_dtype!("logits", logits.dtype, T => {
                write("bytes", bytes, router.scratch_size::<T>(Shape::new(logits.rows, logits.cols))?)
            })
        })
    }
}
