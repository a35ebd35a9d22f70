//! Which kernel runs.

use std::sync::atomic::{AtomicUsize, Ordering};

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
    match kernels().get(DEFAULT.load(Ordering::Relaxed)) {
        Some(kernel) => Ok(kernel),
        None => first_default(),
    }
}

/// The kernel's number, once it is known. No lock: a process that is forked while another thread
/// holds it would wait for ever.
static DEFAULT: AtomicUsize = AtomicUsize::new(usize::MAX);

#[cold]
fn first_default() -> Result<&'static Kernel, Error> {
    let found = find_default()?;
    let number = kernels().iter().position(|kernel| std::ptr::eq(kernel, found));
    DEFAULT.store(number.unwrap_or(usize::MAX), Ordering::Relaxed);
    Ok(found)
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
