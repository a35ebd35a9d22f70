//! Softmax of rows of different lengths: short ones in groups, others one after another.

use crate::call::ragged::RaggedCall;
use crate::isa::vector::{Io, Vector};
use crate::num::element::Element;
use crate::op::softmax::softmax as of_equal;
use crate::op::tiny;
use crate::sweep::reduce::Reducer;

/// Softmax of every row of the call.
///
/// # Safety
/// The CPU has the instruction set of `S`. The call's pointers are valid as it says: a call is made
/// only of what was checked.
pub(crate) unsafe fn softmax<S, T>(call: &mut RaggedCall<T>)
where
    S: Io<T> + Io<<S as Vector>::E>,
    T: Element,
{
    // SAFETY: as this function's.
    unsafe {
        let simd = S::assume();
        // One for all groups: it learns the shift that is good for the next one.
        let scale = call.scale;
        let mut reducer = simd.vectorize(
            #[inline(always)]
            || Reducer::new(simd, &scale),
        );
        let mut row = 0;
        while row < call.rows() {
            if are_tiny(call, row) {
                let next = tiny::softmax_of_unequal(&mut reducer, call, row);
                if next > row {
                    row = next;
                    continue;
                }
            }
            if call.range(row).1 > 0 {
                of_equal::<S, T>(&mut call.call_of_row(row));
            }
            row += 1;
        }
    }
}

/// Whether the rows from `row` on are short, as many as are worth a group.
#[inline(always)]
fn are_tiny<T: Element>(call: &RaggedCall<T>, row: usize) -> bool {
    call.rows() - row >= tiny::ROWS_AT_LEAST
        && (row..row + tiny::ROWS_AT_LEAST).all(|row| call.range(row).1 <= tiny::TINY)
}
