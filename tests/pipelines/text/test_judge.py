"""The verb judge, from a table to a report."""

import json

import numpy as np
import polars as pl
import pytest

from headwise import pipelines
from headwise.base.errors import InputError
from headwise.pipelines.engine.command_line import main

pytestmark = pytest.mark.drawn


def table(path, *, bias=0.0, count=60, words=False):
    """Two judges, one of which is biased, in both orders; the fair one answers by quality."""
    generator = np.random.default_rng(1)
    rows = []
    for name, push in (("fair", 0.0), ("eager", bias)):
        for pair in range(count):
            quality, length = generator.normal(size=2), generator.integers(20, 200, 2)
            for a, b in ((0, 1), (1, 0)):
                gap = quality[a] - quality[b] + push
                better = quality[a] > quality[b]
                rows.append(
                    {
                        "judge": name,
                        "question": f"q{pair}",
                        "model_a": "xy"[a],
                        "model_b": "xy"[b],
                        "winner": "first" if gap > 0 else "second",
                        "human": "first" if better else "second",
                        "length_a": int(length[a]),
                        "length_b": int(length[b]),
                    }
                )
    pl.DataFrame(rows).write_csv(path)
    return path


def test_a_biased_judge_is_told_from_a_fair_one(tmp_path) -> None:
    data = table(tmp_path / "pairs.csv", bias=1.5)
    judges = pipelines.text.judge(data=data, output=tmp_path / "out", draws=200)
    fair, eager = judges.findings
    assert fair.position_bias[:3] == (0, 0, 0)
    assert fair.consistency.value == 1
    assert fair.agreement.share.value == 1
    assert eager.position_bias.low > 0.1
    assert eager.averaged.share.value > eager.agreement.share.value - 1e-9
    assert eager.contradictions["first_both_times"] == pytest.approx(1 - eager.consistency.value)
    assert judges.verdicts[0].startswith("fair: no clear preference for a place (+0 points)")
    assert "eager: prefers the answer shown first, by" in judges.verdicts[1]
    facts = json.loads((tmp_path / "out" / "judges.json").read_text())["judges"]
    assert facts[1]["position_bias"]["value"] == eager.position_bias.value
    assert facts[1]["position_bias"]["pairs"] == 60
    assert facts[0]["equal_slope"]["value"] is None
    page = (tmp_path / "out" / "report.html").read_text()
    assert judges.verdicts[1] in page
    assert "data:image/png" in page
    assert judges.verdicts[0] in (tmp_path / "out" / "report.md").read_text()
    assert (tmp_path / "out" / "figures" / "judges.png").stat().st_size > 1000


def test_printed_without_an_output_and_rows_not_understood_give_code_3(tmp_path, capsys) -> None:
    (tmp_path / "t.csv").write_text(
        "first,second,preferred\nx,y,A\ny,x,A\nx,z,A\nx,w,perhaps\n", encoding="utf-8"
    )
    with pytest.raises(SystemExit) as stop:
        main(["text", "judge", "--data", str(tmp_path / "t.csv")])
    assert stop.value.code == 3
    lines = capsys.readouterr().err
    assert "1 rows that are not understood (row 4: preference 'perhaps'" in lines
    assert "1 pairs of the judge in one order only, not used for position bias" in lines
    assert "prefers the answer shown first" not in lines  # of one pair there is no interval
    assert "(only 2 pairs: take it with care)" in lines
    assert "| the judge | 3 | 2 | 1 |" in lines
    assert list(tmp_path.iterdir()) == [tmp_path / "t.csv"]


def test_pairs_that_were_never_swapped_say_nothing_on_places(tmp_path) -> None:
    (tmp_path / "t.csv").write_text("first,second,preferred\nx,y,A\nx,z,A\n", encoding="utf-8")
    (sentence,) = pipelines.text.judge(data=tmp_path / "t.csv").verdicts
    assert "no pair was judged in both orders" in sentence


def test_padding_by_repeated_sentences_is_measured(tmp_path) -> None:
    rows = ["first,second,preferred"]
    for pair in range(40):
        short = f"Item {pair} is blue. It weighs {pair} pounds."
        long = f"{short} It weighs {pair} pounds."
        rows += [f"{long},{short},first", f"{short},{long},second"]
    (tmp_path / "t.csv").write_text("\n".join(rows), encoding="utf-8")
    judges = pipelines.text.judge(data=tmp_path / "t.csv")
    (wordy,) = judges.findings
    assert wordy.padding.value == 0.5
    assert wordy.equal_slope.low > 0
    assert wordy.position_bias.value == 0
    assert "repeated sentences gain 50 points" in judges.verdicts[0]


def test_a_human_column_that_does_not_follow_the_order_is_told(tmp_path, capsys) -> None:
    (tmp_path / "t.csv").write_text(
        "first,second,preferred,human\nx,y,A,A\ny,x,B,A\nx,z,A,A\nz,x,B,B\n", encoding="utf-8"
    )
    (facts,) = pipelines.text.judge(data=tmp_path / "t.csv").findings
    assert facts.agreement.share[::3] == (1, 1)
    assert "human column names both answers the better" in capsys.readouterr().err


def test_a_budget_keeps_both_orders_of_a_pair(tmp_path, capsys) -> None:
    data = table(tmp_path / "pairs.csv", bias=1.5)
    judges = pipelines.text.judge(data=data, budget=31)
    assert [facts.judgements for facts in judges.findings] == [30, 30]
    assert [facts.complete for facts in judges.findings] == [15, 15]
    assert "90 judgements of fair beyond --budget" in capsys.readouterr().err
    with pytest.raises(InputError, match="--budget 1: must be at least 2"):
        pipelines.text.judge(data=data, budget=1)


def test_an_output_is_not_replaced_unasked(tmp_path) -> None:
    data = table(tmp_path / "pairs.csv")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "x").write_text("")
    with pytest.raises(InputError, match="is not empty; choose another --output"):
        pipelines.text.judge(data=data, output=tmp_path / "out")
    with pytest.raises(InputError, match="is read by this command"):
        pipelines.text.judge(data=data, output=data)
