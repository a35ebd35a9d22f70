//! What drawing from a row needs: integer masses, and sums over those above thresholds.

use std::marker::PhantomData;

use crate::element::Element;
use crate::table::Isa;
use crate::vector::{Io, Vector};

/// The entry points of a kernel for one element type.
#[derive(Debug)]
pub(crate) struct Ops<T: 'static> {
    none: PhantomData<fn(T)>,
}

/// Those of an instruction set.
pub(crate) const fn ops<I, S, T>() -> Ops<T>
where
    I: Isa,
    S: From<I> + Io<T> + Io<<S as Vector>::E>,
    S::Wide: Io<<S as Vector>::E>,
    T: Element,
{
    Ops { none: PhantomData }
}

/// Those of the scalar reference.
pub(crate) const fn reference<T: Element>() -> Ops<T> {
    Ops { none: PhantomData }
}
