"""Answers of raters: plain tables with a key, and the published annotations as they are."""

import pytest

from headwise.base.account import opened
from headwise.base.errors import InputError
from headwise.data.texts.topic_answers import read_answers

# The columns of the published tables, with words and numbers of our own.
PUBLISHED_INTRUSION = """annotation_id,annotator,id,intruder,is_control_task,model,sentiment,text\
,word1,word2,word3,word4,word5
1,annotator_0,11,tax,,LDA_10,tax,u-1,cat,dog,tax,pet,fur
2,annotator_1,11,tax,,LDA_10,fur,u-1,cat,dog,tax,pet,fur
3,annotator_0,12,car,True,CONTROL,car,u-2,red,blue,car,green,pink
"""
SET = "cat<br><b>tax</b><br>dog<br><b>law</b>"
PUBLISHED_MIXING = f"""annotation_id,annotator,is_control_task,mixed_set,mixed_topics,mixed_words\
,quartile,sentiment,similarity,topic1_words,topic2_words,task_id,task_type,model
1,annotator_0,False,{SET},"[0, 1]",[],0,2,.7,[],[],task_1,mix_0_1_closest,
2,annotator_1,False,{SET},"[0, 1]",[],0,1,.7,[],[],task_1,mix_0_1_closest,
3,annotator_0,False,{SET},[0],[],-1,1,1.0,[],[],task_2,single,
4,annotator_0,True,a<br><b>b</b>,,[],-10,1,0,[],[],task_3,control,
5,annotator_0,True,a<br><b>c</b>,,[],-20,2,0,[],[],task_4,control,
"""
TRACK = f"""id,is_control_task,mixed_set,mixed_topics,mixed_words,quartile,similarity,task_id\
,topic1_words,topic2_words,model
5,,{SET},"[0, 1]",[],0,.7,mix_0_1_closest,[],[],NMF_10
6,,{SET},[0],[],-1,1.0,single,[],[],NMF_25
"""


def test_published_annotations_are_read_as_they_are(tmp_path) -> None:
    (tmp_path / "intrusion.csv").write_text(PUBLISHED_INTRUSION)
    (tmp_path / "mixing.csv").write_text(PUBLISHED_MIXING)
    (tmp_path / "tracks").mkdir()
    (tmp_path / "tracks" / "track_1.csv").write_text(TRACK)
    with opened() as account:
        intrusion, mixing = read_answers([str(tmp_path)], [str(tmp_path / "tracks")])
    assert intrusion.answers == [
        ("11", "annotator_0", 2),
        ("11", "annotator_1", 4),
        ("12", "annotator_0", 2),
    ]
    assert {name: (t.model, t.truth, t.control) for name, t in intrusion.tasks.items()} == {
        "11": ("LDA_10", 2, False),
        "12": ("CONTROL", 2, True),
    }
    assert [(task, code) for task, _, code in mixing.answers] == [
        ("task_1", 1), ("task_1", 0), ("task_2", 0), ("task_3", 0), ("task_4", 1)
    ]  # fmt: skip
    assert {name: (t.truth, t.control) for name, t in mixing.tasks.items()} == {
        "task_1": (1, False), "task_2": (0, False), "task_3": (0, True), "task_4": (1, True)
    }  # fmt: skip
    assert mixing.tasks["task_1"].words == ("tax", "law", "cat", "dog")
    # Two models have the same set of words: in the order of the tables.
    assert [mixing.tasks[f"task_{n}"].model for n in (1, 2)] == ["NMF_10", "NMF_25"]
    assert "several models with the same words" in " ".join(account.lines())


KEY = """task,kind,model,truth,control,word1,word2,word3,word4,word5
i1,intrusion,m,Tax,false,cat,dog,pet,tax,fur
m1,mixing,m,mixed,false,cat,dog,tax,law,
m2,mixing,control,single,true,cat,dog,pet,fur,
"""


def test_sheets_and_their_key_in_any_spelling(tmp_path) -> None:
    (tmp_path / "key.csv").write_text(KEY)
    (tmp_path / "a.csv").write_text(
        "task,Rater,answer\ni1,ann,4\nm1,ann,Two\nm2,ann,1\ni1,bo,TAX\nm1,bo,single\nm2,bo,\ni1,cy,dgo\n"
    )
    with opened() as account:
        intrusion, mixing = read_answers([str(tmp_path / "a.csv")], [str(tmp_path / "key.csv")])
    assert intrusion.answers == [("i1", "ann", 3), ("i1", "bo", 3)]
    assert intrusion.tasks["i1"].truth == 3
    assert mixing.answers == [("m1", "ann", 1), ("m2", "ann", 0), ("m1", "bo", 0)]
    assert mixing.annotators == ["ann", "bo"]
    lines = " ".join(account.lines())
    assert "none of those possible (" in lines
    assert "row 7: dgo" in lines
    assert "1 blank answers (mixing)" in lines


def test_answers_without_a_kind_are_names(tmp_path) -> None:
    (tmp_path / "a.csv").write_text(
        "task,annotator,answer\n1,a,good\n1,b,bad\n2,a,good\n2,b,good\n"
    )
    (names,) = read_answers([str(tmp_path / "a.csv")])
    assert names.kind == "names"
    assert names.names == ("bad", "good")
    assert [code for _, _, code in names.answers] == [1, 0, 1, 1]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("task,annotater,answer\n1,a,b\n", "no column 'annotator'; did you mean 'annotater'"),
        ("task,annotator,answer\n,a,b\n", "row 1: has no task or no annotator"),
        ("task,annotator,answer,kind\n1,a,b,intrusoin\n", "kind 'intrusoin'; did you mean"),
        ("task,annotator,answer,kind\n1,a,b,intrusion\n", "an intrusion needs its words"),
        ("task,annotator,answer,kind,truth\n1,a,1,mixing,three\n", "truth 'three' is no"),
        ("task,annotator,answer,control\n1,a,1,maybe\n", "control 'maybe'"),
    ],
)  # fmt: skip
def test_tables_that_cannot_be_used_are_refused_in_one_line(tmp_path, text, reason) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(InputError, match=reason):
        read_answers([str(tmp_path / "a.csv")])


def test_a_task_that_the_key_lacks_is_named(tmp_path) -> None:
    (tmp_path / "key.csv").write_text(KEY)
    (tmp_path / "a.csv").write_text("task,annotator,answer\ni2,a,1\n")
    with pytest.raises(InputError, match="row 1: task 'i2' is not in the key; it has"):
        read_answers([str(tmp_path / "a.csv")], [str(tmp_path / "key.csv")])
