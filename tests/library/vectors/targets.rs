//! Vectors of losses against other targets than labels, and with all options.

use super::{Bits, Case, Factor, File, Input, list, words};
use crate::common::*;
use softmax::{CrossEntropy, Kernel, Masked, Matrix, MatrixMut, Reduction, Targets};

/// The targets of all rows.
#[derive(Clone)]
enum Of {
    Labels(Vec<i64>),
    /// Probabilities of the rows.
    Probs(Vec<f64>),
}

/// The options of a case.
#[derive(Clone)]
struct Options {
    targets: Of,
    factor: Factor,
    smoothing: f64,
    weights: Vec<f64>,
    z: f64,
    divergence: bool,
    row_factors: Vec<f64>,
    ignore: i64,
    reduction: Reduction,
    gradient_factor: f64,
}

fn plain(targets: Of) -> Options {
    Options {
        targets,
        factor: Factor::Scale(1.0),
        smoothing: 0.0,
        weights: vec![],
        z: 0.0,
        divergence: false,
        row_factors: vec![],
        ignore: -100,
        reduction: Reduction::Mean,
        gradient_factor: 1.0,
    }
}

/// Adds the case of these logits.
fn add<T: Bits>(
    file: &mut File,
    kernel: &'static Kernel,
    (input, cols): (&Input<T>, usize),
    o: &Options,
) {
    let x = input.elements();
    let rows = x.len() / cols;
    let mut loss: CrossEntropy = o.factor.options(kernel, Masked::Nan).cross_entropy();
    loss = loss.reduction(o.reduction).gradient_factor(o.gradient_factor);
    let name = if o.reduction == Reduction::Mean { "mean" } else { "sum" };
    let mut case = o.factor.add_to(Case::new::<T>()).raw("cols", cols).text("reduction", name);
    if o.gradient_factor != 1.0 {
        case = case.number("gradient_factor", o.gradient_factor);
    }
    if o.smoothing != 0.0 {
        loss = loss.label_smoothing(o.smoothing);
        case = case.number("smoothing", o.smoothing);
    }
    if !o.weights.is_empty() {
        loss = loss.weights(&o.weights);
        case = case.text("weights", words(&o.weights));
    }
    if o.z != 0.0 {
        (loss, case) = (loss.z_loss(o.z), case.number("z", o.z));
    }
    if o.divergence {
        (loss, case) = (loss.divergence(), case.raw("divergence", true));
    }
    if !o.row_factors.is_empty() {
        loss = loss.row_factors(&o.row_factors);
        case = case.text("row_factors", words(&o.row_factors));
    }
    if o.ignore != -100 {
        (loss, case) = (loss.ignore_index(o.ignore), case.raw("ignore_index", o.ignore));
    }
    let q: Vec<T> = match &o.targets {
        Of::Labels(labels) => {
            case = if labels.len() > 100 {
                case.raw("label_of_all", labels[0])
            } else {
                case.raw("labels", list(labels))
            };
            vec![]
        }
        Of::Probs(q) => q.iter().map(|&q| T::from_f64(q)).collect(),
    };
    let targets = || -> Targets<T> {
        match &o.targets {
            Of::Labels(labels) => Targets::Labels(labels),
            Of::Probs(_) => Targets::Probs(Matrix::new(&q, cols).expect("whole rows")),
        }
    };
    if !q.is_empty() {
        case = case.text("targets", words(&q));
    }
    let logits = Matrix::new(&x, cols).expect("whole rows");
    let mut gradient = vec![T::NAN; x.len()];
    let mut losses = vec![f64::NAN; rows];
    let to = MatrixMut::new(&mut gradient, cols).expect("whole rows");
    loss.losses_and_gradient(logits, targets(), &mut losses, to).expect("a valid call");
    let reduced = loss.loss(logits, targets()).expect("a valid call");
    case = case.input("x", input).output("losses", &losses).number("loss", reduced);
    file.add(case.output("gradient", &gradient));
}

/// Rows of probabilities, some of which are 0.
fn probs(random: &mut Random, rows: usize, cols: usize) -> Vec<f64> {
    let mut all = vec![];
    for _ in 0..rows {
        let share = |_| if random.once_in(4) { 0.0 } else { random.signed().abs() };
        let shares: Vec<f64> = (0..cols).map(share).collect();
        let sum = shares.iter().sum::<f64>().max(1e-3);
        all.extend(shares.iter().map(|q| q / sum));
    }
    all
}

/// Losses with all options.
pub(super) fn targets<T: Bits>(file: &mut File, kernel: &'static Kernel) {
    let (inf, nan) = (f64::INFINITY, f64::NAN);
    let mut random = Random(61);
    let of = |x: &[f64]| Input::<T>::of(x);
    let labels = |labels: &[i64]| plain(Of::Labels(labels.to_vec()));
    let mut add = |x: Input<T>, cols: usize, o: Options| add(file, kernel, (&x, cols), &o);
    let sum = Reduction::Sum;
    let three = [0.9, 0.4, 1.7];

    // The label far above and far below the others, one of equal ones, and of a logit of -inf.
    let telling = [
        [30.0, 1.0, 0.0],
        [0.0, 25.0, 1.0],
        [2.0, 2.0, 2.0],
        [-inf, 0.5, 1.0],
        [1.0, 1.1, 0.9],
        [-3.0, 90.0, 2.0],
    ];
    let telling = of(&telling.concat()).elements();
    let telling = || Input::Full(telling.clone());
    let of_telling = labels(&[0, 0, 1, 0, 2, 1]);
    for smoothing in [0.0, 0.1, 1.0] {
        let o = Options { smoothing, ..of_telling.clone() };
        if smoothing > 0.0 {
            add(telling(), 3, o.clone());
        }
        for weights in [three.to_vec(), vec![0.0, 1e-300, 3.0], vec![0.0; 3]] {
            let row_factors = vec![1.0, -3.0, 0.0, 0.5, 1e-3, 1e300];
            add(telling(), 3, Options { weights: weights.clone(), ..o.clone() });
            add(telling(), 3, Options { weights, row_factors, reduction: sum, ..o.clone() });
        }
        for z in [1e-4, 0.5, 1e8] {
            add(telling(), 3, Options { z, reduction: sum, ..o.clone() });
        }
        let divergence = true;
        add(telling(), 3, Options { divergence, ..o.clone() });
        let weights = three.to_vec();
        add(telling(), 3, Options { divergence, weights, z: 0.25, ..o });
    }
    // Rows that are special or ignored; another label that is.
    let x = [1.0, nan, inf, 1.0, -inf, -inf, 1.0, 2.0, 0.0, 3.0];
    for smoothing in [0.0, 0.3] {
        let o = Options { smoothing, ignore: 1, ..labels(&[0, 1, 0, 1, 0]) };
        add(of(&x), 2, o.clone());
        add(of(&x[6..]), 2, Options { ignore: 5, z: 0.1, reduction: sum, ..labels(&[5, 0]) });
        add(of(&x[6..]), 2, Options { smoothing, ..labels(&[-100, -100]) });
    }
    let q = vec![0.5, 0.5, 0.25, 0.75, 1.0, 0.0, 0.0, 1.0, 0.5, 0.5];
    add(of(&x), 2, plain(Of::Probs(q)));

    // The log-sum-exp where the mass cancels, or is near 0.
    let n = 6f64;
    let near = [-1.0 - n.ln(), -n.ln(), 1e-3 - n.ln()];
    let x: Vec<f64> = near.iter().flat_map(|&x| [x + 0.01, x, x, x - 0.01, x, x]).collect();
    for z in [0.5, 1e-3, 1e8] {
        let gradient_factor = 1024.0;
        add(of(&x), 6, Options { z, gradient_factor, ..labels(&[0, 1, 2]) });
        add(of(&x), 6, Options { z, smoothing: 0.1, ..labels(&[0, 1, 2]) });
        add(of(&x), 6, Options { z, ..plain(Of::Probs(probs(&mut random, 3, 6))) });
    }

    // Probabilities.
    let factors =
        [Factor::Scale(1.0), Factor::Temperature(3.0), Factor::Scale(0.25), Factor::Scale(-0.5)];
    for (i, (cols, kind)) in [(5, 0), (17, 1), (20, 6), (9, 3)].into_iter().enumerate() {
        let rows = 3;
        let q = probs(&mut random, rows, cols);
        let o = Options { factor: factors[i], ..plain(Of::Probs(q)) };
        let x: Vec<T> = row(&mut random, kind, rows * cols);
        let x = || Input::Full(x.clone());
        let weights: Vec<f64> = (0..cols).map(|_| random.signed().abs() * 2.0).collect();
        add(x(), cols, o.clone());
        add(x(), cols, Options { smoothing: 0.2, reduction: sum, ..o.clone() });
        add(x(), cols, Options { weights: weights.clone(), ..o.clone() });
        let row_factors = vec![2.0, -0.125, 1.0];
        let all = Options { smoothing: 0.05, weights, z: 0.01, row_factors, ..o.clone() };
        let gradient_factor = [65536.0, 1e30, 1e-20, -1.0][i];
        add(x(), cols, Options { gradient_factor, ..all.clone() });
        add(x(), cols, Options { divergence: true, ..all });
        add(x(), cols, Options { divergence: true, smoothing: 0.2, ..o.clone() });
        let label = labels(&[0, 1, cols as i64 - 1]);
        let label = Options { factor: factors[i], smoothing: 0.1, ..label };
        add(x(), cols, Options { divergence: true, ..label.clone() });
        add(x(), cols, Options { z: 1e-3, ..label });
    }
    // Targets that are what the logits say, more than 1 in all, less, and nothing.
    let x = [0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.25, 0.25, 0.0, 0.0];
    let q = [0.5, 0.5, 0.75, 0.75, 0.125, 0.125, 0.0, 0.0, 1.0, 0.0];
    for divergence in [false, true] {
        add(of(&x), 2, Options { divergence, ..plain(Of::Probs(q.to_vec())) });
        let smoothing = 0.5;
        add(of(&x), 2, Options { divergence, smoothing, ..plain(Of::Probs(q.to_vec())) });
    }
    // Targets that are as small as numbers of the type.
    let least = super::ends::<T>().subnormal;
    let q = vec![least, 1.0, 3.0 * least, 1.0 - least];
    let o = Options { divergence: true, ..plain(Of::Probs(q)) };
    add(of(&[0.5, 1.0, 2.0, -1.0]), 2, o.clone());
    if T::NAME == "f64" {
        add(of(&[0.5, 1.0, 2.0, -1.0]), 2, Options { weights: vec![1e300, 1.0], ..o });
        // A difference that overflows.
        add(of(&[1.7e308, -1.7e308]), 2, Options { smoothing: 0.1, ..labels(&[0]) });
    }

    // Rows of several blocks, and many rows.
    let long = |n, seed, exponent| Input::Generated { n, seed, exponent };
    let o = Options { smoothing: 0.1, z: 1e-3, ..labels(&[4321]) };
    add(long(4500, 11, 3), 4500, o);
    add(long(1500, 12, 1), 5, Options { smoothing: 0.2, ..labels(&[2; 300]) });
    add(long(1000, 13, 0), 4, Options { z: 0.25, ..labels(&[1; 250]) });
}
