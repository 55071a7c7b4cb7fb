"""Complete folders of CLIP's tokenizers: the configurations recorded here with the vocabulary of `assets/clip/merges.txt`."""

import json
import pathlib
import shutil

HERE = pathlib.Path(__file__).resolve().parent
MERGES = HERE.parents[1] / "assets" / "clip" / "merges.txt"
START, END = "<|startoftext|>", "<|endoftext|>"


def letters():
    """The letter of each byte, printable ones first, as `bytes_to_unicode` of openai/CLIP has them."""
    own = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    moved = range(0x100, 0x100 + 256 - len(own))
    return [chr(letter) for letter in [*own, *moved]]


def vocabulary():
    """Token to id: bytes, bytes ending a word, merges, specials."""
    merges = MERGES.read_text(encoding="utf-8").splitlines()[1:]
    tokens = letters() + [c + "</w>" for c in letters()] + [m.replace(" ", "") for m in merges] + [START, END]
    return {token: i for i, token in enumerate(tokens)}


def write(settings, folder):
    """A complete folder with the settings in another: `tokenizer`, which pads with the end token, or `tokenizer_2`, with "!"."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(MERGES, folder / "merges.txt")
    (folder / "vocab.json").write_text(json.dumps(vocabulary(), ensure_ascii=False, separators=(",", ":")), encoding="utf-8")
    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        shutil.copy(pathlib.Path(settings) / file, folder / file)
