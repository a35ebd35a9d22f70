"""Makes digits_logits.npy, digits_probs.npy and digits_labels.npy in this file's directory.

How to run it:

    python3 -m venv venv
    venv/bin/pip install numpy scikit-learn mpmath
    venv/bin/python data/make_digits.py

The logits are what a classifier said about images that it had not been trained on: five
models, each trained on four fifths of the images, score the remaining fifth. They are rounded to
float32, and the probabilities are computed from those rounded scores with 40 digits, so that they
can serve as the truth for any softmax in float32.

The solver is iterative and sums in whatever order the machine's BLAS prefers: another machine may
get other last digits of the logits. The probabilities belong to the logits they were made with.
"""

import platform
from pathlib import Path

import mpmath
import numpy as np
import sklearn
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict

HERE = Path(__file__).resolve().parent
DIGITS = 40


def exact_softmax(row):
    """The probabilities of one row of float32 scores, each the float64 nearest to the truth."""
    exps = [mpmath.exp(mpmath.mpf(float(x))) for x in row]
    total = mpmath.fsum(exps)
    return [float(e / total) for e in exps]


def main():
    mpmath.mp.dps = DIGITS
    images, labels = load_digits(return_X_y=True)
    model = LogisticRegression(solver="lbfgs", max_iter=5000)
    folds = StratifiedKFold(n_splits=5, shuffle=True, random_state=0)
    scores = cross_val_predict(model, images / 16, labels, cv=folds, method="decision_function")

    logits = np.ascontiguousarray(scores, dtype=np.float32)
    probs = np.array([exact_softmax(row) for row in logits], dtype=np.float64)
    labels = labels.astype(np.int64)

    assert logits.shape == probs.shape == (1797, 10) and labels.shape == (1797,)
    assert np.isfinite(logits).all() and (probs > 0).all()
    assert set(labels) == set(range(10))
    assert (probs.argmax(axis=1) == logits.argmax(axis=1)).all()
    sum_error = np.abs(probs.sum(axis=1) - 1).max()
    assert sum_error < 1e-15
    # A second opinion by the textbook formula in float64, good to some 1e-15.
    wide = logits.astype(np.float64)
    plain = np.exp(wide - wide.max(axis=1, keepdims=True))
    plain /= plain.sum(axis=1, keepdims=True)
    plain_error = (np.abs(plain - probs) / probs).max()
    assert plain_error < 1e-14

    for name, array in [("logits", logits), ("probs", probs), ("labels", labels)]:
        path = HERE / f"digits_{name}.npy"
        np.save(path, array)
        print(f"{path.name}: {array.shape} {array.dtype}, {path.stat().st_size} bytes")

    print(
        f"python {platform.python_version()}, numpy {np.__version__}, "
        f"scikit-learn {sklearn.__version__}, mpmath {mpmath.__version__} with {DIGITS} digits"
    )
    hits = (logits.argmax(axis=1) == labels).sum()
    print(f"accuracy: {hits} of {len(labels)}, {hits / len(labels):.4f}")
    print(f"logits: {logits.min():.3f} to {logits.max():.3f}")
    print(f"probs: {probs.min():.3e} to {probs.max():.9f}")
    print(f"rows sum to 1 within {sum_error:.1e}")
    print(f"float64 by the textbook formula agrees within {plain_error:.1e}, relative")


if __name__ == "__main__":
    main()
