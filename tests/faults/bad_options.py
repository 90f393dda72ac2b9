"""Bad options and bad files of options: command, content of c.yaml, words of the message."""

TRAIN = "forecast train --run run"

OPTIONS: dict[str, tuple[str, str]] = {
    "task": ("forcast train", r"no task 'forcast'; did you mean forecast\?"),
    "verb": ("forecast trian", r"no verb of forecast 'trian'; did you mean train\?"),
    "option": (f"{TRAIN} --horizn 4", r"no option --horizn; did you mean --horizon\?"),
    "option with =": (
        f"{TRAIN} --batchsize=4",
        r"no option --batchsize; did you mean --batch-size\?",
    ),
    "option of another verb": (
        "forecast predict --run run --input x.csv --output o.parquet --horizon 4",
        r"no option --horizon",
    ),
    "word too many": (f"{TRAIN} --epochs 2 3", r"3 belongs to no option"),
    "one dash": (f"{TRAIN} -horizon 4", r"-horizon, 4 belongs to no option"),
    "value missing": (f"{TRAIN} --epochs", r"--epochs needs a value"),
    "needed option missing": ("forecast predict --run run --input x.csv", r"needs --output"),
    "fraction for rows": (f"{TRAIN} --horizon 7.5", r"--horizon needs a whole number, got '7\.5'"),
    "word for a limit": (f"{TRAIN} --clip much", r"--clip needs a number, got 'much'"),
    "word in a list": (f"{TRAIN} --levels high", r"--levels cannot hold 'high'; --help says"),
    "word for a number": (f"{TRAIN} --epochs many", r"--epochs needs a whole number, got 'many'"),
    "fraction for a whole number": (
        f"{TRAIN} --epochs 2.5",
        r"--epochs needs a whole number, got '2\.5'",
    ),
    "value for a switch": (f"{TRAIN} --no-marks=maybe", r"maybe"),
    "choice": (f"{TRAIN} --split rato", r"invalid choice 'rato' for argument '--split'.*'ratio'"),
    "precision": (f"{TRAIN} --precision 8", r"--precision"),
    "preset": (f"{TRAIN} --preset etth", r"no preset 'etth' of forecast; did you mean etth[12]\?"),
    "attention": (f"{TRAIN} --attention sta", r"--attention sta: unknown; did you mean star\?"),
    "attention of no kind": (
        f"{TRAIN} --attention xyz",
        r"--attention xyz: unknown; there are .*star",
    ),
    "attention of grids": (
        f"{TRAIN} --attention tap",
        r"--attention tap: channels are no grid; there",
    ),
    "epochs 0": (f"{TRAIN} --epochs 0", r"--epochs 0: must be at least 1"),
    "batch size 0": (f"{TRAIN} --batch-size 0", r"--batch-size 0: must be at least 1"),
    "steps 0": (f"{TRAIN} --max-steps 0", r"--max-steps 0: must be at least 1"),
    "workers -1": (f"{TRAIN} --workers -1", r"--workers -1: must be at least 0"),
    "seed -1": (f"{TRAIN} --seed -1", r"--seed -1: must be at least 0"),
    "lr nan": (f"{TRAIN} --lr nan", r"--lr nan: must be a positive number"),
    "lr -1": (f"{TRAIN} --lr -1", r"--lr -1\.0: must be a positive number"),
    "lr inf": (f"{TRAIN} --lr inf", r"--lr inf: must be a positive number"),
    "clip 0": (f"{TRAIN} --clip 0", r"--clip 0\.0: must be a positive number"),
    "weight decay nan": (f"{TRAIN} --weight-decay nan", r"--weight-decay nan: must"),
    "weight decay -1": (f"{TRAIN} --weight-decay -1", r"--weight-decay -1\.0: must"),
    "dropout 1.5": (f"{TRAIN} --dropout 1.5", r"--dropout 1\.5: must be in \[0, 1\)"),
    "dropout nan": (f"{TRAIN} --dropout nan", r"--dropout nan: must be in \[0, 1\)"),
    "level 1.5": (
        f"{TRAIN} --levels 0.8 1.5",
        r"--levels 0\.8 1\.5: each must lie between 0 and 1",
    ),
    "no level": (f"{TRAIN} --levels", r"--levels: give at least one"),
    "level twice": (f"{TRAIN} --levels 0.8 0.8", r"--levels 0\.8 0\.8: .*none twice"),
    "horizon 0": (f"{TRAIN} --horizon 0", r"--horizon 0: must be at least 1"),
    "lookback 0": (f"{TRAIN} --lookback 0", r"--lookback 0: must be at least 1"),
    "heads that do not divide": (
        f"{TRAIN} --attention attention --width 10 --heads 4 --horizon 4 --lookback 8",
        r"4 heads do not divide width 10",
    ),
    "resume without run": ("forecast train --resume", r"--resume: say which run with --run"),
    "resume of nothing": ("forecast train --run nowhere --resume", r"nowhere: no run to resume"),
    "origins 0": ("forecast backtest --run run --origins 0", r"--origins"),
    "tolerance nan": (
        "forecast export --run run --output m.pt2 --tolerance nan",
        r"--tolerance nan: must be 0 or more",
    ),
    "shard size 0": (
        "forecast predict --run run --input x --output o --shard-size 0",
        r"--shard-size 0: must be at least 1",
    ),
    "data set": ("data get ETTh9", r"ETTh9"),
    "data set with options": ("data get ETTh1 --languages en", r"ETTh1: is fetched as it is"),
    "corpus with others": ("data get debian-tags --language en", r"did you mean --languages\?"),
    "corpus in no language": ("data get debian-tags --languages ../en", r"\.\./en: is no language"),
    "corpus of one language": ("data get sentiment-sources --languages it", r"has one language"),
    "text: budget nan": ("text train --thresholds budget --budget nan", r"--budget nan: must be"),
    "text: budget unread": ("text train --budget 2", r"--budget: is read by --thresholds budget"),
    "text: coverage 1": ("text train --coverage 1", r"--coverage 1\.0: must be between 0 and 1"),
    "text: abstain 0": (
        "text predict --run run --input x --output o --abstain 0",
        r"--abstain 0\.0: must be between 0 and 1",
    ),
    "text: top 0": ("text predict --run run --input x --output o --top 0", r"--top 0: must be at"),
    "text: no validation": ("text train --validation-share 0", r"--validation-share 0: thresholds"),
    "text: shares": ("text train --test-share 1", r"--test-share 1\.0"),
    "text: empty separator": ("text train --separator=", r"--separator: is empty"),
    "text: separator of classes": (
        "text train --goal class --separator ;",
        r"--separator: is read by a column of labels",
    ),
    "text: hierarchy of nothing": ("text train --hierarchy=", r"--hierarchy: is empty; give none"),
    "text: cross without a table": ("text train --model cross", r"--model cross: needs --table"),
    "text: columns of classes": (
        "text train --label-columns a b --goal class",
        r"--goal class: --label-columns are labels",
    ),
    "text: width of no network": (
        "text train --model sparse --width 32",
        r"--width: is not read by --model sparse, but by hybrid",
    ),
    "text: a column of the table twice": ("text train --table a b a", r"--table: names a twice"),
    "text: a label twice": ("text train --label-columns a a", r"--label-columns: names a twice"),
    "text: heads without layers": ("text train --heads 2", r"--heads: is read by --layers 1"),
    "list of nothing": ("list attentions", r"list attentions: unknown; did you mean attention\?"),
}

LAUGHS = "levels:\n- &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"- &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi")
)
EMPTY_LAUGHS = "batch:\n  size: &a {}\n" + "".join(
    f"  x{name}: &{name} {{{', '.join(f'k{k}: *{before}' for k in range(9))}}}\n"
    for before, name in zip("abcdefgh", "bcdefghi")
)

# None: no such file
YAML: dict[str, tuple[str | bytes | None, str]] = {
    "missing": (None, r"^c\.yaml: no such config file"),
    "unknown key": ("horizn: 4\n", r"^c\.yaml: no option 'horizn'; did you mean horizon\?"),
    "unknown nested key": (
        "batch: {sise: 4}\n",
        r"^c\.yaml: no option 'batch_sise'; did you mean batch_size\?",
    ),
    "number as key": ("3: 4\n", r"^c\.yaml: no option '3'"),
    "wrong type": (
        "epochs: many\n",
        r"--epochs needs a whole number, got 'many' \(given, or in c\.yaml\)",
    ),
    "date for a number": (
        "epochs: 2024-01-01\n",
        r"--epochs needs a whole number, got '2024-01-01' \(given, or in c\.yaml\)",
    ),
    "list for a number": ("epochs: [1, 2]\n", r"2 belongs to no option; .*in c\.yaml"),
    "mapping for a number": ("epochs: {a: 1}\n", r"^c\.yaml: epochs should be a value"),
    "list of lists": (
        "levels: [[0.8], [0.9]]\n",
        r"^c\.yaml: levels should be a value or a list of values",
    ),
    "list at the top": (
        "- horizon: 4\n",
        r"^c\.yaml: should hold options as `name: value`, holds a list",
    ),
    "text at the top": (
        "horizon 4\n",
        r"^c\.yaml: should hold options as `name: value`, holds a str",
    ),
    "tab": ("horizon: 4\n\tepochs: 2\n", r"^c\.yaml: not readable as YAML: .*'\\t'"),
    "open bracket": ("levels: [0.8, 0.9\n", r"^c\.yaml: not readable as YAML: .*line 2"),
    "two documents": ("horizon: 4\n---\nhorizon: 5\n", r"^c\.yaml: not readable as YAML"),
    "merge keys": (
        "a: &a {<<: *a}\n",
        r"^c\.yaml: not readable as YAML: line 1: merge keys \(<<\) that unfold to too many",
    ),
    "twice": ("epochs: 3\nepochs: 4\n", r"^c\.yaml: .*line 2: 'epochs' is there twice"),
    "twice, in two spellings": (
        "batch_size: 3\nbatch: {size: 4}\n",
        r"^c\.yaml: batch_size is there twice",
    ),
    "a number of 5,000 digits": ("seed: 1" + "0" * 5000, r"^c\.yaml: .*a number of 5001 charac"),
    "no number": ("seed: !!int abc\n", r"^c\.yaml: not readable as YAML: invalid literal"),
    "no truth": ("marks: !!bool perhaps\n", r"^c\.yaml: not readable as YAML"),
    "a date by a tag": ("run: !!timestamp x\n", r"^c\.yaml: .*could not determine a constructor"),
    "unknown anchor": ("horizon: *h\n", r"^c\.yaml: not readable as YAML: .*undefined alias"),
    "Python object": (
        "run: !!python/object/apply:os.mkdir [unpickled]\n",
        r"^c\.yaml: not readable as YAML: .*could not determine a constructor",
    ),
    "Python name": (
        "run: !!python/name:os.mkdir\n",
        r"^c\.yaml: not readable as YAML: .*could not determine a constructor",
    ),
    "Latin-1": ("data: \xe9.csv\n".encode("latin-1"), r"^c\.yaml: not readable as YAML"),
    "random bytes": (bytes(range(256)), r"^c\.yaml: not readable as YAML"),
    "huge": ("# " + "x" * 1_000_000 + "\n", r"^c\.yaml: too large for such a file"),
    "deep": ("epochs: " + "[" * 20_000, r"^c\.yaml: not readable as YAML"),
    "deep mappings": ("epochs: " + "{a: " * 20_000, r"^c\.yaml: not readable as YAML"),
    "a billion laughs": (LAUGHS, r"^c\.yaml: levels should be a value or a list of values"),
    "a billion empty laughs": (EMPTY_LAUGHS, r"^c\.yaml: batch_size should be a value"),
    "out of range": ("dropout: 2\n", r"--dropout 2\.0: must be in .*c\.yaml"),
    "mapping key": ("? {a: 1}\n: 2\n", r"^c\.yaml: "),
}
