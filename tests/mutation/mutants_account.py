"""Bugs in the account, and in what a prediction leaves behind."""

from mutant import Mutant

PLAN, SHARDS, PREDICTOR = (
    f"pipelines/engine/inference/{name}.py" for name in ("plan", "shards", "predictor")
)


def _output(name: str) -> tuple[str, ...]:
    return "pipelines/engine/test_output.py", "-k", name


MUTANTS = [
    Mutant(
        "config-unseen",
        "engine",
        PLAN,
        "json.dumps(trained, sort_keys=True, default=str)",
        '""',
        _output("test_the_fingerprint_sees_edits_that_keep_size_and_time"),
    ),
    Mutant(
        "nan-is-an-answer",
        "engine",
        PREDICTOR,
        "[_finite(answer) for answer in answers]",
        "list(answers)",
        _output("test_an_item_without_a_finite_answer"),
    ),
    Mutant(
        "notes-of-shards-lost",
        "engine",
        SHARDS,
        "NOTES: json.dumps(account.to_json())",
        'NOTES: "[]"',
        _output("test_what_readers_note_while_they_predict"),
    ),
    Mutant(
        "formulas-run",
        "engine",
        "pipelines/engine/inference/output.py",
        "    _harmless(plain_text(rows)).sink_csv(path, maintain_order=True)\n",
        "    plain_text(rows).sink_csv(path, maintain_order=True)\n",
        _output("test_formulas_are_harmless_in_text_formats"),
    ),
    Mutant(
        "foreign-parts-taken",
        "engine",
        PLAN,
        "if not _of_a_job(path)]",
        "if False]",
        _output("test_a_folder_of_parts_that_is_not_ours_stays"),
    ),
    Mutant(
        "foreign-parts-removed",
        "engine",
        PLAN,
        "if _of_a_job(path) and path.name != CLAIM:",
        "if path.name != CLAIM:",
        _output("test_what_is_put_among_the_parts_later_stays"),
    ),
    Mutant(
        "no-lock",
        "engine",
        PLAN,
        "                mine.acquire()\n",
        "                pass\n",
        _output("test_two_predictions_into_one_output_do_not_meet"),
    ),
    Mutant(
        "part-of-the-wrong-item",
        "engine",
        PREDICTOR,
        "[self.pipeline.member(item) for item in items]",
        "[self.pipeline.member(items[0]) for item in items]",
        _output("test_predictions_say_what_part_an_item_was_in"),
    ),
]
