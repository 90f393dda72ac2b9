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
