"""Bugs in text: which rows a training sees, which numbers leave it, and what is silently lost."""

from mutant import Mutant

TABLE, LABELS, COUNTED = (
    (f"data/texts/test_{name}.py",) for name in ("table", "labels", "counting")
)
JSON = ("data/test_json_lines.py",)
DATA, LINEAR, BLEND, TOLD, SCORES, PREDICTED = (
    (f"pipelines/text/test_{name}.py",)
    for name in ("data", "linear", "blending", "probabilities", "scoring", "prediction")
)
NETWORK, LOSS = (f"models/text/test_{name}.py" for name in ("attention", "losses"))
_TABLE, _LABELS = (f"data/texts/{name}.py" for name in ("table", "labels"))
_FILES = "data/text_files.py"
_DATA, _PARTS, _CODING, _LINEAR, _BLEND, _TOLD, _SCORES, _PREDICTION = (
    f"pipelines/text/{name}.py"
    for name in (
        "data", "parts", "coding", "linear", "blending", "probabilities", "scoring", "prediction"
    )
)  # fmt: skip

MUTANTS = [
    # Which rows are seen, and of which part.
    Mutant(
        "text-terms-of-all",
        "pipelines",
        _DATA,
        "CountedTerms.learn(train.texts,",
        "CountedTerms.learn(table.texts,",
        (*DATA, "-k", "nothing_is_learned"),
    ),
    Mutant(
        "text-numbers-of-all",
        "pipelines",
        _CODING,
        "        values = values[rows]\n",
        "",
        (*DATA, "-k", "nothing_is_learned"),
    ),
    Mutant(
        "text-words-of-all",
        "pipelines",
        _CODING,
        "_words(cells[rows])",
        "_words(cells)",
        (*DATA, "-k", "nothing_is_learned or number_for_each"),
    ),
    Mutant(
        "text-groups-without-copies",
        "pipelines",
        _PARTS,
        "joined_groups(plain, table.groups)",
        "joined_groups(table.groups)",
        (*DATA, "-k", "joined_in_chains"),
    ),
    Mutant(
        "text-copies-by-case",
        "pipelines",
        _PARTS,
        '" ".join(text.split()).casefold()',
        '" ".join(text.split())',
        (*DATA, "-k", "chains or two_parts"),
    ),
    Mutant(
        "text-groups-in-two-parts",
        "pipelines",
        _PARTS,
        '    refuse_shared_groups(where, subsets, groups, "group")\n',
        "",
        (*DATA, "-k", "group_in_two"),
    ),
    Mutant(
        "text-folds-divide-groups",
        "pipelines",
        _LINEAR,
        "permutation(len(names))[codes] % folds",
        "permutation(len(codes)) % folds",
        (*LINEAR, "-k", "other_groups"),
    ),
    Mutant(
        "text-folds-see-themselves",
        "pipelines",
        _LINEAR,
        "others, held = fold_of != fold, fold_of == fold",
        "others, held = fold_of >= 0, fold_of == fold",
        (*LINEAR, "-k", "other_groups"),
    ),
    Mutant(
        "text-base-of-the-fit",
        "pipelines",
        _DATA,
        "        train_part.base = fitted.base\n",
        "        train_part.base = train_part.coded.counted @ fitted.weight + fitted.bias\n",
        (*DATA, "-k", "had_no_part"),
    ),
    Mutant(
        "text-rare-classes-come-back",
        "pipelines",
        _DATA,
        "    if not as_test:  #",
        "    if as_test:  #",
        (*DATA, "-k", "opened_again"),
    ),
    Mutant(
        "text-parts-of-none-unsaid",
        "pipelines",
        "pipelines/engine/subsets.py",
        'note("left out", f"{items} of no part',
        '(lambda *words, **counts: None)("left out", f"{items} of no part',
        (*DATA, "-k", "stay_as_they_are"),
    ),
    Mutant(
        "text-penalty-of-the-training",
        "pipelines",
        _LINEAR,
        "        logits = held @ weight + bias\n",
        "        logits, truth = some.inputs @ weight + bias, work.truth\n",
        (*LINEAR, "-k", "best_on_the_validation"),
    ),
    # Which numbers leave.
    Mutant(
        "text-threshold-above",
        "pipelines",
        _TOLD,
        'labels, possible = scaled >= values["threshold"]',
        'labels, possible = scaled > values["threshold"]',
        (*TOLD, "-k", "at_its_threshold"),
    ),
    Mutant(
        "text-sets-may-lack-labels",
        "pipelines",
        _TOLD,
        'values["threshold"] + min(sets.shift, 0.0)',
        'values["threshold"] + sets.shift',
        (*TOLD, "-k", "given_is_possible or promised"),
    ),
    Mutant(
        "text-width-one-rank-less",
        "pipelines",
        _TOLD,
        "ConformalIntervals.fit(residuals, (coverage,))",
        "ConformalIntervals.fit(residuals, (coverage * len(errors) / (len(errors) + 1),))",
        (*TOLD, "-k", "split_conformal"),
    ),
    Mutant(
        "text-above-less-probable",
        "pipelines",
        _TOLD,
        "    for _ in range(max(name.count(spec.levels) for name in names)):\n",
        "    for _ in range(1):\n",
        (*TOLD, "-k", "above or below or levels"),
    ),
    Mutant(
        "text-prior-is-certain",
        "pipelines",
        _BLEND,
        "pull = information * texts / positive",
        "pull = information * texts",
        (*BLEND, "-k", "rare_label"),
    ),
    Mutant(
        "text-scores-in-scaled-units",
        "pipelines",
        _SCORES,
        "x[:, 0].astype(np.float64) * spec.deviation + spec.mean",
        "x[:, 0].astype(np.float64) + spec.mean",
        (*SCORES, "-k", "own_unit"),
    ),
    Mutant(
        "text-table-unscaled",
        "pipelines",
        _LINEAR,
        "of_table = weight[terms:size] * TABLE_SCALE",
        "of_table = weight[terms:size]",
        LINEAR,
    ),
    Mutant(
        "text-decimal-mark-of-the-part",
        "pipelines",
        _CODING,
        'values, bad = _numbers(table[name], column["comma"])',
        "values, bad = _numbers(table[name], None)",
        (*DATA, "-k", "decimal_mark"),
    ),
    Mutant(
        "text-descriptions-by-place",
        "pipelines",
        "data/texts/knowledge.py",
        'for name in (kind, "text")]',
        "for name in columns]",
        (*DATA, "-k", "descriptions_are_joined"),
    ),
    # Which texts are predicted for.
    Mutant(
        "text-rows-of-each-part",
        "pipelines",
        _PREDICTION,
        'np.arange(len(table)) + item["start"]',
        "np.arange(len(table))",
        (*PREDICTED, "-k", "in_parts or whatever_form"),
    ),
    Mutant(
        "text-first-lines-again",
        "pipelines",
        _PREDICTION,
        'LinePart(start, item["rows"], item.get("offset", 0))',
        'LinePart(start, item["rows"], 0)',
        (*PREDICTED, "-k", "whatever_form"),
    ),
    Mutant(
        "text-titles-all-the-same",
        "pipelines",
        _DATA,
        'lacking = {"title"} - spec.columns.keys()',
        "lacking = set() - spec.columns.keys()",
        (*PREDICTED, "-k", "title"),
    ),
    Mutant(
        "text-counts-of-one-part",
        "pipelines",
        _PREDICTION,
        "        with part_of_account():\n",
        "        with torch.no_grad():\n",
        (*PREDICTED, "-k", "in_parts"),
    ),
    Mutant(
        "text-abstains-above",
        "pipelines",
        _PREDICTION,
        "told.probability.max(1) >= options.abstain",
        "told.probability.max(1) <= options.abstain",
        (*PREDICTED, "-k", "abstains"),
    ),
    Mutant(
        "text-coder-of-old-files",
        "pipelines",
        _PREDICTION,
        "str(spec.assets_folder), str(stamps))",
        'str(spec.assets_folder), "")',
        (*PREDICTED, "-k", "files_changed"),
    ),
    # What people write.
    Mutant(
        "text-empty-are-missing",
        "data",
        _LABELS,
        "rows = [() if is_missing(text) else",
        "rows = [(text,) if is_missing(text) else",
        (*LABELS, "-k", "missing_words"),
    ),
    Mutant(
        "text-any-separator",
        "data",
        _LABELS,
        "len(pieces) < 0.7 * len(cells)",
        "len(pieces) < 2 * len(cells)",
        (*LABELS, "-k", "holds_a_comma"),
    ),
    Mutant(
        "text-codes-of-labels-pass",
        "data",
        _LABELS,
        " or _say_the_same(cells, values)",
        "",
        (*LABELS, "-k", "says_the_label"),
    ),
    Mutant(
        "text-rows-from-one",
        "data",
        _TABLE,
        "for row, text in enumerate(texts, start + 1)",
        "for row, text in enumerate(texts, 1)",
        (*TABLE, "-k", "numbered_as_in"),
    ),
    Mutant(
        "text-mark-in-the-first-line",
        "data",
        _FILES,
        "line = line.removeprefix(codecs.BOM_UTF8)",
        "line = line + b''",
        (*TABLE, "-k", "read_in_parts"),
    ),
    Mutant(
        "text-blank-lines-vanish",
        "data",
        "data/json_lines.py",
        "        rows.append(row)\n",
        "        rows += [row] if row else []\n",
        JSON,
    ),
    Mutant(
        "text-pieces-counted-again",
        "data",
        "data/texts/counting.py",
        "if size >= len(padded):",
        "if size > len(padded):",
        (*COUNTED, "-k", "pieces"),
    ),
    # The models.
    Mutant(
        "text-padding-is-encoded",
        "models",
        "models/text/windows.py",
        "filled = masks.any(1).nonzero()[:, 0]",
        "filled = (masks.any(1) | ~masks.any(1)).nonzero()[:, 0]",
        (NETWORK, "-k", "padding_alone"),
    ),
    Mutant(
        "text-classes-by-their-share",
        "models",
        "models/layers/label_losses.py",
        "float(counts.sum()) / len(counts) / counts.clamp(min=1)",
        "counts / counts.sum() * len(counts)",
        (LOSS,),
    ),
    Mutant(
        "text-model-left-of-the-blend",
        "models",
        "models/text/linear.py",
        "self.first * model + self.second * simple",
        "self.second * model + self.first * simple",
        ("models/text/test_linear.py",),
    ),
]
