"""Records token ids of awkward prompts, as diffusers pipelines ask transformers' CLIPTokenizer for them.

`prompts.json` is written by hand. The vocabulary is OpenAI CLIP's own merge list, as open_clip ships it
(`assets/clip/merges.txt`), laid out as a published tokenizer folder. `tokenizer` pads with <|endoftext|> (SD1, SDXL's first), `tokenizer_2` with "!"
(SDXL's second), which also makes every "!" in a prompt a special token. A special token given as an object is matched
after lower-casing; one given as a bare string, as pad_token is, replaces an object of the same text and is matched as
written: `<|STARTOFTEXT|>` is special in both folders, `<|ENDOFTEXT|>` only in the second. transformers 4 differs in that.
"""

import gzip
import json
import pathlib
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import open_clip
import torch
from folder import END, MERGES, START, letters, write
from common import GOLDEN, main, save_meta, save_tensors
from open_clip.tokenizer import bytes_to_unicode
from transformers import CLIPTokenizer

FOLDERS = {"tokenizer": "<|endoftext|>", "tokenizer_2": "!"}
LENGTH = 77


def check_vocabulary():
    """`assets/clip/merges.txt` holds the merges CLIP uses, and the letters of bytes are its own."""
    packed = pathlib.Path(open_clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz"
    merges = gzip.decompress(packed.read_bytes()).decode().split("\n")[1 : 49152 - 256 - 2 + 1]
    assert MERGES.read_text() == "\n".join(["#version: 0.2", *merges]) + "\n", MERGES
    assert letters() == list(bytes_to_unicode().values())


def write_settings(folder, pad):
    """The settings in a tokenizer folder, as Stable Diffusion repositories hold them."""
    folder.mkdir(parents=True, exist_ok=True)
    plain = {"lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
    special = {"bos_token": {"content": START} | plain, "eos_token": {"content": END} | plain}
    special |= {"pad_token": pad, "unk_token": {"content": END} | plain}
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2) + "\n")
    typed = {k: {"__type": "AddedToken"} | v if isinstance(v, dict) else v for k, v in special.items()}
    config = {"add_prefix_space": False, "do_lower_case": True, "errors": "replace", "model_max_length": LENGTH}
    config |= {"tokenizer_class": "CLIPTokenizer"} | typed
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def record(root):
    check_vocabulary()
    prompts = [p for group in json.loads((GOLDEN / "tokenizer" / "prompts.json").read_text()).values() for p in group]
    ids = {}
    for name, pad in FOLDERS.items():
        write_settings(root / name, pad)
        with tempfile.TemporaryDirectory() as whole:
            write(root / name, whole)
            tokenizer = CLIPTokenizer.from_pretrained(whole)
        asked = dict(padding="max_length", max_length=tokenizer.model_max_length, truncation=True)
        ids[f"{name}.input_ids"] = torch.tensor([tokenizer(p, **asked).input_ids for p in prompts], dtype=torch.int32)
    save_tensors(root / "io.safetensors", ids)
    bases = ", ".join(c.__name__ for c in CLIPTokenizer.__mro__[:2])
    save_meta(
        root, __doc__.splitlines()[0], 0, ("transformers", "tokenizers", "open_clip_torch"), {"output": 0.0},
        "ids are exact", extra={"tokenizer_class": bases, "prompts": str(len(prompts))}, precision=None,
    )  # fmt: skip


if __name__ == "__main__":
    main("tokenizer", record)
