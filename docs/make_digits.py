"""Make `parity/digits.npz`, the handwritten digits that parity bundles.

    python docs/make_digits.py [TARGET]

Needs scikit-learn, which the project itself does not: run it in an environment of its own (Keras imports scikit-learn
eagerly where it is installed, which costs every run seconds).

The data: E. Alpaydin and C. Kaynak (1998), *Optical Recognition of Handwritten Digits*, UCI Machine Learning
Repository, doi:10.24432/C50P49, licensed under Creative Commons Attribution 4.0 (CC BY 4.0). scikit-learn bundles its
test part: 1,797 digits of 13 writers as 8x8 images with values 0..16. Changed here: stored as uint8, nothing else.
"""

import sys
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

TARGET = Path(__file__).resolve().parents[1] / "parity" / "digits.npz"
ATTRIBUTION = (
    "Optical Recognition of Handwritten Digits, E. Alpaydin and C. Kaynak, 1998, UCI Machine Learning Repository, "
    "doi:10.24432/C50P49, CC BY 4.0 (https://creativecommons.org/licenses/by/4.0/); the test part, as bundled with "
    "scikit-learn; changed: stored as uint8"
)


def main(target: Path) -> None:
    """Write `images` (1797, 8, 8) uint8 0..16, `labels` (1797,) uint8 0..9 and the text `attribution` to `target`."""
    digits = load_digits()
    images, labels = digits.images.astype(np.uint8), digits.target.astype(np.uint8)
    if not (np.array_equal(images, digits.images) and np.array_equal(labels, digits.target)):
        raise SystemExit("uint8 does not hold these digits exactly: scikit-learn changed its copy")
    np.savez_compressed(target, images=images, labels=labels, attribution=np.array(ATTRIBUTION))
    print(f"{target}: {len(images)} digits, {target.stat().st_size} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else TARGET)
