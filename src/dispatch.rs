//! Which kernel runs.

use std::sync::OnceLock;

use softmax_kernels::Kernel;

use crate::Error;

/// Every kernel compiled for this architecture, the fastest first, whether or not this CPU
/// can run it.
///
/// ```
/// for k in softmax::kernels() {
///     println!("{}: needs {:?}, available: {}", k.name(), k.requires(), k.is_available());
/// }
/// assert!(softmax::kernels().iter().any(|k| k.name() == "scalar" && k.is_available()));
/// ```
pub fn kernels() -> &'static [Kernel] {
    softmax_kernels::all()
}

/// The kernel of that name, for [`Softmax::kernel`](crate::Softmax::kernel).
///
/// # Errors
/// [`Error::UnknownKernel`] or [`Error::UnavailableKernel`]; their messages list what there is.
///
/// ```
/// assert_eq!(softmax::kernel("scalar")?.name(), "scalar");
/// let e = softmax::kernel("mmx").unwrap_err();
/// assert!(e.to_string().contains("portable"));
/// # Ok::<(), softmax::Error>(())
/// ```
pub fn kernel(name: &str) -> Result<&'static Kernel, Error> {
    let found = kernels().iter().find(|k| k.name() == name);
    available(found.ok_or_else(|| Error::UnknownKernel { name: name.to_owned() })?)
}

/// The kernel itself if this CPU can run it.
pub(crate) fn available(kernel: &'static Kernel) -> Result<&'static Kernel, Error> {
    if kernel.is_available() {
        Ok(kernel)
    } else {
        Err(Error::UnavailableKernel { name: kernel.name(), requires: kernel.requires() })
    }
}

/// The kernel that calls use which do not choose one: the one that the environment variable `SOFTMAX_KERNEL` names,
/// else the fastest that this CPU can run. Found once, at the first call.
///
/// # Errors
/// As [`kernel`], if `SOFTMAX_KERNEL` is set to something else than an available kernel.
#[inline]
pub fn default_kernel() -> Result<&'static Kernel, Error> {
    match DEFAULT.get() {
        Some(Ok(kernel)) => Ok(kernel),
        _ => first_default(),
    }
}

static DEFAULT: OnceLock<Result<&'static Kernel, Error>> = OnceLock::new();

#[cold]
fn first_default() -> Result<&'static Kernel, Error> {
    DEFAULT.get_or_init(find_default).clone()
}

fn find_default() -> Result<&'static Kernel, Error> {
    match std::env::var_os("SOFTMAX_KERNEL").filter(|name| !name.is_empty()) {
        Some(name) => kernel(&name.to_string_lossy()),
        None => kernels()
            .iter()
            .find(|k| k.is_available())
            .ok_or_else(|| Error::UnknownKernel { name: String::new() }),
    }
}
