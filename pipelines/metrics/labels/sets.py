from typing import NamedTuple
import numpy as np
class S(NamedTuple):
    threshold: float
    statement: str
def fit_class_sets(labels, probability, coverage, groups):
    return S(float(np.quantile(probability[np.arange(len(labels)), labels], 1-coverage)), "")
def fit_label_sets(truth, logits, coverage, groups):
    return S(float(np.quantile(logits[truth], 1-coverage)) if truth.any() else 0., "")
