//! A process that is forked after another part of the program made rayon's pool.
//! (capi/tests/c/processes.c has all other cases.)
#![cfg(all(unix, feature = "rayon"))]

use std::num::NonZeroUsize;

use softmax::{Exec, MatrixMut, Softmax, Threads};

unsafe extern "C" {
    fn fork() -> i32;
    fn waitpid(pid: i32, status: *mut i32, options: i32) -> i32;
    fn alarm(seconds: u32) -> u32;
    fn _exit(status: i32) -> !;
}

fn softmax_of(mut x: Vec<f32>, threads: usize) -> Vec<f32> {
    let threads = Threads::Exactly(NonZeroUsize::new(threads).expect("some"));
    let matrix = MatrixMut::new(&mut x, 1000).expect("a matrix");
    Softmax::new().exec(Exec::new().threads(threads)).softmax_in_place(matrix).expect("a result");
    x
}

#[test]
fn a_pool_of_the_parents_is_not_waited_for() {
    let x: Vec<f32> = (0..300_000).map(|i| (i % 640) as f32 / 64.0).collect();
    let want = softmax_of(x.clone(), 1);
    // The crate has not used threads yet.
    assert_eq!(rayon::join(|| 1, || 2), (1, 2));
    // SAFETY: the child makes the tested calls, and ends.
    let child = unsafe { fork() };
    if child == 0 {
        // SAFETY: as above. A child that hangs is killed.
        unsafe {
            alarm(60);
            let same = softmax_of(x.clone(), 2) == want && softmax_of(x, 2) == want;
            _exit(if same { 0 } else { 1 })
        }
    }
    let mut status = -1;
    // SAFETY: the child is this process's.
    assert!(child > 0 && unsafe { waitpid(child, &raw mut status, 0) } == child);
    assert_eq!(status, 0);
    // The pool exists in this process.
    assert_eq!(softmax_of(x, 2), want);
}
