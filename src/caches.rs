//! The sizes of this machine's caches.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::Error;

/// The sizes of the caches. Data that fits the caches is computed in another way than larger data:
/// see [`Plan`](crate::Plan). The results have the same bits.
///
/// ```
/// use softmax::{Caches, Exec, Op, Shape};
/// // Computes as if everything were larger than the caches.
/// let exec = Exec::new().caches(Caches::new(0, 0));
/// println!("{}", exec.plan::<f32>(Op::Softmax, Shape::new(100, 1000))?);
/// # Ok::<(), softmax::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caches {
    core: usize,
    last: usize,
}

/// The share of the last level that a core may count on, at most, as a multiple of its own cache:
/// the last level of a server is shared by dozens of cores, and slow. Intel Emerald Rapids (2 MiB a
/// core, 260 MiB for all of them): softmax and then one reading of the result are faster with
/// ordinary stores up to 16 MiB of output (1.5 against 1.1 G elements/s), equally fast at 32 MiB,
/// and faster with streaming from 64 MiB on (0.83 against 1.0).
const SHARE: usize = 16;

/// Outputs may take 3/8 of the last level, because inputs of the same size come through it and
/// others use it, too. Zen 5 (1 MiB and 32 MiB), softmax and then one reading of the result, speed
/// of streaming relative to ordinary stores: 0.79 at 8 MiB of output, 1.00 at 12 MiB, 1.14 at 16
/// MiB, 1.38 at 24 MiB.
const OUTPUT: (usize, usize) = (3, 8);

impl Caches {
    /// For machines whose sizes are not known.
    const UNKNOWN: Self = Self { core: 1 << 20, last: SHARE << 20 };

    /// Caches of these sizes in bytes: `core` as [`Caches::core`], `last` as [`Caches::last`].
    ///
    /// ```
    /// let caches = softmax::Caches::new(1 << 20, 32 << 20);
    /// assert_eq!((caches.core(), caches.last()), (1 << 20, 32 << 20));
    /// ```
    pub const fn new(core: usize, last: usize) -> Self {
        Self { core, last }
    }

    /// Bytes of the largest cache that a core has to itself, usually the second level.
    ///
    /// ```
    /// assert_eq!(softmax::Caches::new(1 << 20, 32 << 20).core(), 1 << 20);
    /// ```
    pub const fn core(&self) -> usize {
        self.core
    }

    /// The number of bytes of output that a call can expect to stay in any cache.
    ///
    /// ```
    /// assert_eq!(softmax::Caches::new(1 << 20, 32 << 20).last(), 32 << 20);
    /// ```
    pub const fn last(&self) -> usize {
        self.last
    }

    /// The caches of this machine: from the environment variable `SOFTMAX_CACHES=core,last` (bytes,
    /// or with K, M or G), or else from Linux, or else 1 MiB and 16 MiB. Read once.
    ///
    /// # Errors
    /// [`Error::Caches`] if the variable is set to something else than two sizes.
    ///
    /// ```
    /// let caches = softmax::Caches::of_this_machine()?;
    /// assert!(caches.core() > 0 && caches.last() >= caches.core());
    /// # Ok::<(), softmax::Error>(())
    /// ```
    pub fn of_this_machine() -> Result<Self, Error> {
        // There is no lock: a process that is forked while another thread holds it would wait for
        // ever. All threads find the same values.
        static CORE: AtomicUsize = AtomicUsize::new(usize::MAX);
        static LAST: AtomicUsize = AtomicUsize::new(usize::MAX);
        let (core, last) = (CORE.load(Ordering::Relaxed), LAST.load(Ordering::Relaxed));
        if core != usize::MAX && last != usize::MAX {
            return Ok(Caches::new(core, last));
        }
        let found = find()?;
        CORE.store(found.core, Ordering::Relaxed);
        LAST.store(found.last, Ordering::Relaxed);
        Ok(found)
    }
}

fn find() -> Result<Caches, Error> {
    if let Some(value) = std::env::var_os("SOFTMAX_CACHES").filter(|value| !value.is_empty()) {
        let value = value.to_string_lossy();
        return parse(&value).ok_or_else(|| Error::caches(value.into_owned()));
    }
    Ok(read().unwrap_or(Caches::UNKNOWN))
}

fn parse(value: &str) -> Option<Caches> {
    let (core, last) = value.split_once(',')?;
    Some(Caches { core: size(core)?, last: size(last)? })
}

/// Bytes: `262144`, `48K`, `2M`, `1G`.
fn size(text: &str) -> Option<usize> {
    let text = text.trim();
    let (number, unit) = text.split_at(text.find(char::is_alphabetic).unwrap_or(text.len()));
    let unit = match unit {
        "" => 1usize,
        "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        _ => return None,
    };
    number.parse::<usize>().ok()?.checked_mul(unit)
}

/// The sizes that Linux reports for the first CPU.
fn read() -> Option<Caches> {
    let cache = |i: u32| {
        let field = |name: &str| {
            let path = format!("/sys/devices/system/cpu/cpu0/cache/index{i}/{name}");
            std::fs::read_to_string(path).ok()
        };
        let level: u32 = field("level")?.trim().parse().ok()?;
        let kind = field("type")?;
        Some((level, kind.trim() != "Instruction", size(&field("size")?)?))
    };
    let caches: Vec<_> = (0..).map_while(cache).filter(|&(_, data, _)| data).collect();
    let largest = |levels: &[u32]| {
        caches.iter().filter(|(level, ..)| levels.contains(level)).map(|&(.., size)| size).max()
    };
    let core = largest(&[1, 2])?;
    let last = largest(&[3, 4]).map_or(core, |last| last / OUTPUT.1 * OUTPUT.0);
    Some(Caches { core, last: last.min(SHARE.saturating_mul(core)).max(core) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_parsed_or_refused() {
        assert_eq!(parse("48K, 2M"), Some(Caches { core: 48 << 10, last: 2 << 20 }));
        assert_eq!(parse("0,0"), Some(Caches { core: 0, last: 0 }));
        for bad in
            ["", "1", "1,", "1,x", "1,2T", "1,-2", "1,99999999999999999999", "1,17179869184G"]
        {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
