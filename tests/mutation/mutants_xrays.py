"""Bugs in reading X-rays: windows, patients, copies, findings, and the rule that decides."""

from mutant import Mutant

DICOM = ("data/formats/test_dicom.py",)
TABLES = ("data/xrays/test_tables.py",)
DATA = ("pipelines/medical/test_data.py",)
DECISION = ("pipelines/medical/test_decision.py",)

MUTANTS = [
    Mutant(
        "window-on-stored-values",
        "data",
        "data/formats/dicom.py",
        "displayed, way = _voi(modality, dataset)",
        "displayed, way = _voi(np.asarray(stored, np.float64), dataset)",
        DICOM,
    ),
    Mutant(
        "padding-of-the-wrong-sign",
        "data",
        "data/formats/dicom.py",
        "ends.append(number - span if signed else number)",
        "ends.append(int(value))",
        DICOM,
    ),
    Mutant(
        "markers-stretch-the-picture",
        "data",
        "data/formats/dicom.py",
        "    if way or not marked:\n",
        "    if True:\n",
        DICOM,
    ),
    Mutant(
        "bombs-are-inflated",
        "data",
        "data/formats/dicom_bytes.py",
        "if total > most:",
        "if False:",
        DICOM,
    ),
    Mutant(
        "masks-are-a-class",
        "data",
        "data/xrays/files.py",
        "return [(file, name) for file, name in listed if not is_mask(name)]",
        "return list(listed)",
        TABLES,
    ),
    Mutant(
        "uncertain-is-negative",
        "data",
        "data/xrays/findings.py",
        "            labels.append(choice)\n",
        "            labels.append(without)\n",
        TABLES,
    ),
    Mutant(
        "patients-called-nan",
        "data",
        "data/xrays/table.py",
        '"" if field not in ("label", "image") and is_missing(cell) else cell',
        "cell",
        TABLES,
    ),
    Mutant(
        "copies-in-two-parts",
        "pipelines",
        "pipelines/medical/data.py",
        "copies = _copies(reader) if spec is None else spec.copies",
        "copies = []",
        DATA,
    ),
    Mutant(
        "copies-of-a-run-forgotten",
        "pipelines",
        "pipelines/medical/data.py",
        "copies = _copies(reader) if spec is None else spec.copies",
        "copies = _copies(reader) if spec is None else []",
        DATA,
    ),
    Mutant(
        "accuracy-of-the-most-probable",
        "pipelines",
        "pipelines/medical/scoring.py",
        "[decided(probability, positive, threshold)]",
        "[probability.argmax(1)]",
        DECISION,
    ),
    Mutant(
        "prediction-of-the-most-probable",
        "pipelines",
        "pipelines/medical/prediction.py",
        "number = spec.positive if positive else",
        "number = int(np.argmax(probability)) if positive else",
        DECISION,
    ),
]

SEVERAL = ("pipelines/medical/test_several.py",)
READ_SEVERAL = ("data/xrays/test_several.py",)

MUTANTS += [
    Mutant(
        "unknown-labels-in-the-loss",
        "pipelines",
        "pipelines/medical/several/learning.py",
        "return (loss * known).mean()",
        "return loss.mean()",
        SEVERAL,
    ),
    Mutant(
        "weights-of-findings-swapped",
        "pipelines",
        "pipelines/medical/several/learning.py",
        "torch.where(truth > 0, with_it, without)",
        "torch.where(truth > 0, without, with_it)",
        SEVERAL,
    ),
    Mutant(
        "unknown-labels-in-the-calibration",
        "pipelines",
        "pipelines/medical/several/learning.py",
        "positive, score = truth[rows, k], logits[rows, k].astype(np.float64)",
        "positive, score = truth[:, k], logits[:, k].astype(np.float64)",
        SEVERAL,
    ),
    Mutant(
        "findings-without-temperatures",
        "pipelines",
        "pipelines/medical/several/prediction.py",
        "(attended.logits.float() / temperature).sigmoid()",
        "attended.logits.float().sigmoid()",
        SEVERAL,
    ),
    Mutant(
        "findings-at-one-half",
        "pipelines",
        "pipelines/medical/several/prediction.py",
        "numbers = reached(values, thresholds)",
        "numbers = reached(values, [0.5] * len(values))",
        SEVERAL,
    ),
    Mutant(
        "findings-of-patients-in-two-parts",
        "pipelines",
        "pipelines/medical/parts.py",
        "take_balanced(rows, truth[rows], patients[rows], share, seed)",
        "take_balanced(rows, truth[rows], rows, share, seed)",
        SEVERAL,
    ),
    Mutant(
        "rare-findings-dealt-at-random",
        "pipelines",
        "pipelines/medical/several/parts.py",
        "need = lacking[:, rarest], lacking[:, -1]",
        "need = lacking[:, -1], lacking[:, -1]",
        SEVERAL,
    ),
    Mutant(
        "unknown-labels-in-the-scores",
        "pipelines",
        "pipelines/metrics/multilabel.py",
        "        rows = known[:, k]\n",
        "        rows = known[:, k] | True\n",
        ("pipelines/metrics/test_multilabel.py",),
    ),
    Mutant(
        "uncertain-findings-ignored-as-absent",
        "data",
        "data/xrays/several.py",
        'doubtful if uncertain == "ignore" else ()',
        "()",
        READ_SEVERAL,
    ),
    Mutant(
        "what-other-data-does-not-know-is-absent",
        "data",
        "data/xrays/several.py",
        "[*(named[p] for p in map(plain_name, unknown) if p in named), *missing],",
        "[*(named[p] for p in map(plain_name, unknown) if p in named)],",
        READ_SEVERAL,
    ),
    Mutant(
        "last-row-of-a-picture-alone",
        "data",
        "data/xrays/several.py",
        "present.setdefault(picture, {}).update(dict.fromkeys(has))",
        "present[picture] = dict.fromkeys(has)",
        READ_SEVERAL,
    ),
    Mutant(
        "no-finding-is-a-finding",
        "data",
        "data/xrays/several.py",
        "for plain, name in usual.items() if not is_no_finding(name)}",
        "for plain, name in usual.items()}",
        READ_SEVERAL,
    ),
]
