"""Records ids that transformers' T5Tokenizer gives awkward prompts, by a small vocabulary trained here with sentencepiece.

Run by `make.py`. The normalization is the published one, sentencepiece's `nmt_nfkc`; pieces are those of this project's own pages.
"""

import pathlib
import tempfile

import sentencepiece
import torch
from common import GOLDEN, awkward_prompts, save_meta, save_tensors
from sentencepiece import sentencepiece_model_pb2
from transformers import T5Tokenizer

LENGTH = 40
N_PIECES = 600


def trained():
    """Pieces with their scores, and the table of the normalization."""
    text = (GOLDEN / "sd3" / "text.txt").read_text()
    with tempfile.TemporaryDirectory() as scratch:
        source = pathlib.Path(scratch) / "text.txt"
        source.write_text(text)
        sentencepiece.SentencePieceTrainer.train(
            input=str(source), model_prefix=f"{scratch}/spiece", vocab_size=N_PIECES, model_type="unigram",
            character_coverage=0.999, pad_id=0, eos_id=1, unk_id=2, bos_id=-1, num_threads=1, minloglevel=2,
            normalization_rule_name="nmt_nfkc",
        )  # fmt: skip
        proto = sentencepiece_model_pb2.ModelProto()
        proto.ParseFromString((pathlib.Path(scratch) / "spiece.model").read_bytes())
    return [(p.piece, p.score) for p in proto.pieces], proto.normalizer_spec.precompiled_charsmap


def tokenizer():
    pieces, table = trained()
    pieces += [(f"<extra_id_{i}>", 0.0) for i in range(99, -1, -1)]
    return T5Tokenizer(vocab=pieces, _spm_precompiled_charsmap=table, model_max_length=512)


def record(root):
    folder = root / "tokenizer"
    made = tokenizer()
    made.save_pretrained(folder)
    made = T5Tokenizer.from_pretrained(folder)
    asked = dict(padding="max_length", max_length=LENGTH, truncation=True, add_special_tokens=True)
    ids = torch.tensor([made(p, **asked).input_ids for p in awkward_prompts()], dtype=torch.int32)
    save_tensors(folder / "io.safetensors", {"input_ids": ids})
    save_meta(
        folder, __doc__.splitlines()[0], 0, ("transformers", "tokenizers", "sentencepiece"), {"output": 0.0},
        "ids are exact", extra={"prompts": str(len(awkward_prompts())), "length": str(LENGTH)}, precision=None,
    )  # fmt: skip
