//! Allocations that may fail.

use sysinfo::{MemoryRefreshKind, RefreshKind, System};

/// A buffer of `len` zeros, or a message if there is no memory for it.
pub fn buffer<T: bytemuck::Zeroable>(len: usize) -> Result<Vec<T>, String> {
    let bytes = len.saturating_mul(size_of::<T>());
    bytemuck::try_zeroed_vec(len).map_err(|()| format!("no memory for a chunk of {bytes} bytes"))
}

/// Bytes of memory that are available, if the system tells.
pub fn available_memory() -> Option<u64> {
    let refresh = RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram());
    Some(System::new_with_specifics(refresh).ok()?.available_memory())
}

/// Refuses more than the available memory, if the system tells.
pub fn check_memory(bytes: usize) -> Result<(), String> {
    // Asking the system takes longer than using this little.
    const LITTLE: usize = 64 << 20;
    if bytes <= LITTLE {
        return Ok(());
    }
    match available_memory() {
        Some(left) if bytes as u64 > left => {
            Err(format!("{bytes} bytes of memory are needed at once, and {left} are left"))
        }
        _ => Ok(()),
    }
}
