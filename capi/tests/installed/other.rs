//! Another static library in Rust: `rustc --crate-type staticlib`.

/// 2 n + 1, by a thread that may panic: both libraries bring Rust's runtime.
#[unsafe(no_mangle)]
pub extern "C" fn other(n: u64) -> u64 {
    let twice = move || {
        assert!(n != 7, "asked for");
        2 * n
    };
    std::thread::spawn(twice).join().unwrap_or(0) + 1
}
