//! The choice of a kernel, and refusals.

use std::process::Output;

use crate::common::*;
use softmax::{Error, Matrix, MatrixMut, Size};

/// Runs the ignored test below in a new process, with this value of `SOFTMAX_KERNEL`.
fn child(kernel: &str) -> Output {
    itself()
        .args(["--exact", "dispatch::child_prints_what_the_environment_chose"])
        .args(["--ignored", "--nocapture"])
        .env("SOFTMAX_KERNEL", kernel)
        .output()
        .expect("the test binary runs")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
#[ignore = "run by the tests below, in a process of its own"]
fn child_prints_what_the_environment_chose() {
    let mut y = [0.0f32; 2];
    match softmax::softmax(&[1.0, 1.0], &mut y) {
        Ok(()) => println!("chosen: {} {y:?}", softmax::default_kernel().unwrap().name()),
        Err(e) => println!("refused: {e} {y:?}"),
    }
}

#[test]
fn the_environment_forces_any_available_kernel() {
    for kernel in available() {
        let out = child(kernel.name());
        let want = format!("chosen: {} [0.5, 0.5]", kernel.name());
        assert!(stdout(&out).contains(&want), "{out:?}");
    }
    // An empty value is like none.
    let out = child("");
    let best = softmax::kernels().iter().find(|k| k.is_available()).unwrap();
    assert!(stdout(&out).contains(&format!("chosen: {} ", best.name())), "{out:?}");
}

#[test]
fn the_environment_is_refused_by_name() {
    let out = child("sse9");
    let text = stdout(&out);
    assert!(text.contains("refused: no kernel is called \"sse9\""), "{out:?}");
    for kernel in softmax::kernels() {
        assert!(text.contains(kernel.name()), "{text}");
    }
    assert!(text.contains("[0.0, 0.0]"), "something was written: {text}");
    for kernel in softmax::kernels().iter().filter(|k| !k.is_available()) {
        let text = stdout(&child(kernel.name()));
        let want = format!("refused: the kernel {} needs {}", kernel.name(), kernel.requires()[0]);
        assert!(text.contains(&want) && text.contains("portable, scalar"), "{text}");
    }
}

#[test]
fn kernels_are_asked_for_by_name() {
    for kernel in softmax::kernels() {
        match softmax::kernel(kernel.name()) {
            Ok(found) => assert!(kernel.is_available() && found.name() == kernel.name()),
            Err(e) => {
                assert!(!kernel.is_available());
                assert!(matches!(e, Error::UnavailableKernel { .. }), "{e}");
                // Forcing it is refused by the call, and nothing is written.
                let mut y = [7.0f32; 2];
                let refused = Options::new()
                    .kernel(kernel)
                    .softmax()
                    .softmax_in_place(MatrixMut::new(&mut y, 2).unwrap());
                assert!(refused.is_err() && y == [7.0, 7.0], "{refused:?}");
            }
        }
    }
    let e = softmax::kernel("AVX2").unwrap_err();
    assert!(
        matches!(&e, Error::UnknownKernel { name, .. } if name == "AVX2"),
        "names are exact: {e}"
    );
}

#[test]
fn scales_and_temperatures_out_of_range_are_named() {
    fn matrix(x: &mut [f32]) -> MatrixMut<'_, f32> {
        MatrixMut::new(x, 2).unwrap()
    }
    for bad in [f64::NAN, 0.0, -1.0, f64::INFINITY, 1e-30, 1e30] {
        let mut x = [7.0f32; 2];
        let e = Options::new().scale(bad).softmax().softmax_in_place(matrix(&mut x));
        let scale = e.unwrap_err().to_string();
        assert_eq!(x, [7.0; 2]);
        assert!(scale.starts_with("the scale") && scale.ends_with(&format!("got {bad}")));
    }
    for bad in [f64::NAN, -1.0, f64::NEG_INFINITY] {
        let mut x = [7.0f32; 2];
        let e = Options::new().temperature(bad).softmax().softmax_in_place(matrix(&mut x));
        let temperature = e.unwrap_err().to_string();
        assert_eq!(x, [7.0; 2]);
        assert!(
            temperature.starts_with("the temperature")
                && temperature.ends_with(&format!("got {bad}"))
        );
    }
}

#[test]
fn shapes_that_do_not_fit_are_named_and_nothing_is_written() {
    let x = [1.0f32; 6];
    let mut y = [7.0f32; 8];
    let e = softmax::softmax(&x, &mut y).unwrap_err();
    assert_eq!(e.to_string(), "the output must be 1 x 6, got 1 x 8");
    let e = softmax::softmax_rows(&x, &mut y, 4).unwrap_err();
    assert_eq!(e.to_string(), "the number of elements must be a multiple of 4, got 6");
    let e = softmax::logsumexp_rows(&x, &mut y, 3).unwrap_err();
    assert_eq!(e.to_string(), "the number of log-sum-exps (one for each row) must be 2, got 8");
    let e = Matrix::with_stride(&x, 2, 4, 3).unwrap_err();
    assert_eq!(e.to_string(), "rows of 4 elements overlap at stride 3");
    let e = Options::new()
        .softmax()
        .log_softmax(Matrix::new(&x, 3).unwrap(), MatrixMut::new(&mut y[..6], 2).unwrap())
        .unwrap_err();
    let sizes = |e: &Error| match e {
        Error::Shape { expected, got, .. } => Some((expected.clone(), got.clone())),
        _ => None,
    };
    assert_eq!(sizes(&e), Some((Size::Matrix(2, 3), Size::Matrix(3, 2))));
    assert_eq!(y, [7.0; 8]);
}

/// The two-class case is the sigmoid; a temperature is a division.
#[test]
fn known_values() {
    for kernel in available() {
        let two = |x: f64| run_row(&on(kernel, 1.0, Default::default()), Op::Softmax, &[x, 0.0])[0];
        for x in [-30.0f64, -2.0, -0.1, 0.0, 0.7, 12.0] {
            let sigmoid = 1.0 / (1.0 + (-x).exp());
            assert!((two(x) / sigmoid - 1.0).abs() < 1e-15, "{} sigmoid({x})", kernel.name());
        }
        let y = run_row(&on(kernel, 2.0, Default::default()), Op::Softmax, &[0.8f32, 0.2]);
        assert_eq!([format!("{:.2}", y[0]), format!("{:.2}", y[1])], ["0.57", "0.43"]);
    }
}
