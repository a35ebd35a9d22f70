"""Makes digits_images.npy beside this file, and says what scikit-learn makes of them: the yardstick
of examples/train_digits.rs.

    python3 -m venv venv
    venv/bin/pip install numpy scikit-learn
    venv/bin/python data/make_images.py
"""

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

images, labels = load_digits(return_X_y=True)
np.save(Path(__file__).resolve().parent / "digits_images.npy", images.astype(np.uint8))
# Every fifth image is for the test.
test = np.arange(len(labels)) % 5 == 4
model = LogisticRegression(max_iter=5000).fit(images[~test] / 16, labels[~test])
right = int((model.predict(images[test] / 16) == labels[test]).sum())
print(f"scikit-learn: {right} of {test.sum()} test images, {right / test.sum():.4f}")
