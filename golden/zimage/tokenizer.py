"""Records ids that transformers' Qwen2Tokenizer gives awkward prompts in Z-Image's chat, by a small vocabulary trained here.

Run by `make.py`. Pieces are those of `golden/sd3/text.txt`.
"""

import json

import torch
from common import GOLDEN, awkward_prompts, save_meta, save_tensors
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import Qwen2Tokenizer

LENGTH = 48
N_PIECES = 600
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def trained():
    """Vocabulary and merges."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=N_PIECES, initial_alphabet=alphabet, show_progress=False)
    made.train_from_iterator((GOLDEN / "sd3" / "text.txt").read_text().splitlines(), trainer)
    model = json.loads(made.to_str())["model"]
    return model["vocab"], [tuple(merge) for merge in model["merges"]]


def record(root):
    folder = root / "tokenizer"
    vocab, merges = trained()
    made = Qwen2Tokenizer(vocab=vocab, merges=merges, extra_special_tokens=SPECIAL[1:], model_max_length=512)
    made.save_pretrained(folder)
    made = Qwen2Tokenizer.from_pretrained(folder)
    asked = dict(max_length=LENGTH, truncation=True)
    # What the published template makes of one message with a generation prompt.
    texts = [f"<|im_start|>user\n{p}<|im_end|>\n<|im_start|>assistant\n" for p in awkward_prompts()]
    ids = [made(text, **asked).input_ids for text in texts]
    lengths = torch.tensor([len(row) for row in ids], dtype=torch.int32)
    rows = torch.tensor([row + [-1] * (LENGTH - len(row)) for row in ids], dtype=torch.int32)
    save_tensors(folder / "io.safetensors", {"input_ids": rows, "lengths": lengths})
    save_meta(
        folder, __doc__.splitlines()[0], 0, ("transformers", "tokenizers"), {"output": 0.0}, "ids are exact",
        extra={"prompts": str(len(awkward_prompts())), "length": str(LENGTH)}, precision=None,
    )  # fmt: skip
