use softmax::*;
#[test]
fn f1() {
    for x in [
        [f64::MAX, 3e307],
        [1.7e308, 3e307],
        [1.7e308, -1e308],
        [f64::MAX, 0.0],
        [f64::MAX, f64::MAX],
    ] {
        let mut y = [0.0; 2];
        for k in kernels().iter().filter(|k| k.is_available()) {
            Softmax::new()
                .kernel(k)
                .log_softmax(Matrix::new(&x, 2).unwrap(), MatrixMut::new(&mut y, 2).unwrap())
                .unwrap();
            println!("{} {x:?} {y:?}", k.name());
        }
    }
}
