"""Lists the prompts that the Python tokenizer of transformers 4 reads differently from the recorded ids.

Run with `transformers==4.57.6 ftfy==6.3.1 numpy` in an environment of its own: transformers 5 has no Python tokenizer.
That one repairs the text with ftfy first (curly quotes, ligatures, full-width letters, mojibake); the recorded ids, like
the Rust tokenizer of either version, do not.
"""

import json
import pathlib
import tempfile

from folder import write
from safetensors.numpy import load_file
from transformers import CLIPTokenizer, CLIPTokenizerFast

HERE = pathlib.Path(__file__).resolve().parent


def ids_of(tokenizer_class, name, prompts):
    with tempfile.TemporaryDirectory() as scratch:
        write(HERE / name, scratch)
        tokenizer = tokenizer_class.from_pretrained(scratch)
        return [tokenizer(p, padding="max_length", max_length=77, truncation=True).input_ids for p in prompts]


def main():
    prompts = [p for group in json.loads((HERE / "prompts.json").read_text()).values() for p in group]
    recorded, found = load_file(HERE / "io.safetensors"), {}
    for name in ("tokenizer", "tokenizer_2"):
        expected = recorded[f"{name}.input_ids"].tolist()
        for kind, tokenizer_class in (("python", CLIPTokenizer), ("rust", CLIPTokenizerFast)):
            ids = ids_of(tokenizer_class, name, prompts)
            found[f"{name} {kind}"] = [p for p, a, b in zip(prompts, ids, expected) if a != b]
    (HERE / "transformers4_differences.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
