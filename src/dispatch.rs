//! The choice of the kernel.

use softmax_kernels::{Chosen, Kernel, Ready};

use crate::Error;

/// All kernels for this architecture, the fastest first, whether or not this CPU can run them.
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

/// The kernel with this name, for [`Exec::kernel`](crate::Exec::kernel).
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
    let found = found.ok_or_else(|| Error::unknown_kernel(name.to_owned(), list(|_| true)))?;
    ready(found).map(Ready::kernel)
}

/// The kernel, if this CPU can run it.
pub(crate) fn ready(kernel: &'static Kernel) -> Result<Ready, Error> {
    Ready::of(kernel).ok_or_else(|| {
        let available = list(Kernel::is_available);
        Error::unavailable_kernel(kernel.name(), kernel.requires(), available)
    })
}

/// The kernel of calls that do not choose one: the one that the environment variable
/// `SOFTMAX_KERNEL` names, or else the fastest that this CPU can run. It is determined once, in the
/// first call.
///
/// ```
/// let kernel = softmax::default_kernel()?;
/// assert!(softmax::kernels().iter().any(|known| known.name() == kernel.name()));
/// # Ok::<(), softmax::Error>(())
/// ```
///
/// # Errors
/// As [`kernel`], if `SOFTMAX_KERNEL` is set to something else than an available kernel.
pub fn default_kernel() -> Result<&'static Kernel, Error> {
    ready_default().map(Ready::kernel)
}

static DEFAULT: Chosen = Chosen::new();

/// The same as [`default_kernel`].
#[inline]
pub(crate) fn ready_default() -> Result<Ready, Error> {
    match DEFAULT.get() {
        Some(kernel) => Ok(kernel),
        None => first_default(),
    }
}

#[cold]
fn first_default() -> Result<Ready, Error> {
    let found = ready(find_default()?)?;
    DEFAULT.set(found);
    Ok(found)
}

fn find_default() -> Result<&'static Kernel, Error> {
    match std::env::var_os("SOFTMAX_KERNEL").filter(|name| !name.is_empty()) {
        Some(name) => kernel(&name.to_string_lossy()),
        None => kernels()
            .iter()
            .find(|k| k.is_available())
            .ok_or_else(|| Error::unknown_kernel(String::new(), list(|_| true))),
    }
}

/// The names of some kernels, for a message.
fn list(which: impl Fn(&Kernel) -> bool) -> String {
    let names: Vec<_> = kernels().iter().filter(|k| which(k)).map(Kernel::name).collect();
    names.join(", ")
}
