#!/usr/bin/env bash
# Finding:  the names of the groups decide which folds StratifiedGroupKFold makes.
# Expected: patients called otherwise (renumbered, or by pseudonyms) fall into the same folds: only who belongs to whom
#           should count.
# Seen:     the same patients, classes and seed give other folds once the patients are numbered in another order.
#           scikit-learn 1.9.1.
# Source:   scikit-learn, StratifiedGroupKFold: groups are ordered by numpy.unique before ties are broken.
# Here:     the fold of each image is kept in the run folder (held_out.npz), not drawn again.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check scikit-learn==1.9.1 numpy==2.4.0

cd "$work"
venv/bin/python - <<'END'
import numpy as np
import sklearn
from sklearn.model_selection import StratifiedGroupKFold

print("scikit-learn", sklearn.__version__, "numpy", np.__version__)
random = np.random.default_rng(0)
patients = np.repeat(np.arange(60), random.integers(1, 5, 60))
sick = (patients % 3 == 0).astype(int)
renamed = random.permutation(60)[patients]


def folds(groups: np.ndarray) -> list[frozenset[int]]:
    splitter = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    return sorted((frozenset(patients[held].tolist()) for _, held in splitter.split(patients, sick, groups)), key=sorted)


first, second = folds(patients), folds(renamed)
print("folds in common under two namings of 60 patients:", len(set(first) & set(second)), "of 5")
if first == second:
    raise SystemExit("changed: the names of the groups no longer matter")
END
