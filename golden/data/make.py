"""Records small tables of preferences as the datasets and pyarrow packages write them, and what they hold.

The images are our own, of one color each. `rows.json` says for every file which rows are pairs, by the rule that the
larger label wins and equal labels are a tie; the values are those that the datasets package reads back from the file.
`scored.parquet` has scores beside each pair as SmPO's preprocessing.py adds them, lists of one cosine, some of them missing; soft
labels are those of its train.py, for the winner that the labels say.
`written.parquet` was written by `tastemaker data convert --to pick-a-pic`; the datasets package must read it.
"""

import hashlib
import io
import json
import pathlib
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from common import GOLDEN, main, save_meta
from datasets import Dataset, Features, Image, List, Value, load_dataset
from PIL import Image as Image

WRITTEN = GOLDEN / "data" / "written.parquet"
CAPTIONS = ["a fox", "", None, "ein Füchslein, 狐", "a tie", "a fox", "nobody judged"]


def image(shade):
    out = io.BytesIO()
    Image.new("RGB", (6, 4), (shade, 255 - shade, 7)).save(out, "PNG")
    return out.getvalue()


# PickScore's cosines of the first and the second image; in the second row and the fourth they side with the loser.
COSINES = [(0.2205, 0.1987), (0.2301, 0.2112), (0.2, 0.19), (0.28201571106910706, 0.11543526500463486),
           (0.21, 0.21), (0.2, 0.2), (0.2, 0.1)]  # fmt: skip
LOWEST, HIGHEST = 0.11543526500463486, 0.28201571106910706


def soft_label(winner, loser):
    """SmPO's train.py: a softmax over both cosines after mapping them, in single precision."""
    winner, loser = (np.exp(np.float32((score - LOWEST) / (HIGHEST - LOWEST))) for score in (winner, loser))
    return float(winner / (winner + loser))


def columns(label):
    """Seven rows, of which two are pairs with a caption less, one is a tie, one was not judged."""
    return {
        "jpg_0": [image(2 * i) for i in range(7)],
        "jpg_1": [image(2 * i + 1) for i in range(7)],
        "label_0": [label(v) for v in (1, 0, 1, 0, 0.5, 1, 1)],
        "label_1": [label(v) for v in (0, 1, 0, 1, 0.5, 0, 0)],
        "caption": CAPTIONS,
        "has_label": [True] * 6 + [False],
        "user_id": list(range(7)),
    }


def features(image, label):
    return Features(
        {
            "jpg_0": image, "jpg_1": image, "label_0": Value(label), "label_1": Value(label),
            "caption": Value("string"), "has_label": Value("bool"), "user_id": Value("int64"),
        }
    )  # fmt: skip


def write(root):
    floats, whole = columns(float), columns(lambda v: int(2 * v))
    Dataset.from_dict(floats, features(Value("binary"), "float64")).to_parquet(root / "binary.parquet")
    images = {**whole, **{k: [{"bytes": b, "path": None} for b in whole[k]] for k in ("jpg_0", "jpg_1")}}
    Dataset.from_dict(images, features(Image(), "int64")).to_parquet(root / "images.parquet")
    ranked = {
        "chosen": images["jpg_0"], "rejected": images["jpg_1"], "prompt": CAPTIONS, "category": ["x"] * 7,
    }  # fmt: skip
    schema = Features({"chosen": Image(), "rejected": Image(), "prompt": Value("string"), "category": Value("string")})
    Dataset.from_dict(ranked, schema).to_parquet(root / "chosen.parquet")
    scores = {f"ps_score_{side}": [[pair[side]] for pair in COSINES] for side in (0, 1)}
    scores["ps_score_1"][5] = None
    lists = Features({name: List(Value("float64")) for name in scores})
    scored = Features({**features(Value("binary"), "float64"), **lists})
    Dataset.from_dict({**floats, **scores}, scored).to_parquet(root / "scored.parquet", batch_size=3)
    # What other writers make of the same rows: other types of Arrow, VAEs, pages of one row, groups of three.
    for name, image, text, options in [
        ("large", pa.large_binary(), pa.large_string(), {"compression": "zstd", "use_dictionary": False}),
        ("dictionary", pa.binary(), pa.dictionary(pa.int32(), pa.string()), {"compression": "brotli"}),
        ("view", pa.binary_view(), pa.string_view(), {"compression": "gzip", "data_page_version": "2.0"}),
        ("lz4", pa.binary(), pa.string(), {"compression": "lz4", "write_page_index": True}),
    ]:
        table = pa.table({k: pa.array(v) for k, v in floats.items()})
        for column, kind in (("jpg_0", image), ("jpg_1", image), ("caption", text)):
            at = table.schema.get_field_index(column)
            table = table.set_column(at, column, table[column].combine_chunks().cast(kind))
        options = {"data_page_size": 1, "write_batch_size": 1, "row_group_size": 3, **options}
        pq.write_table(table, root / f"{name}.parquet", **options)


def sha(cell):
    return hashlib.sha256(cell["bytes"] if isinstance(cell, dict) else cell).hexdigest()


def rows(path):
    """What the datasets package reads, by our rule."""
    with tempfile.TemporaryDirectory() as cache:
        table = load_dataset("parquet", data_files={"train": str(path)}, cache_dir=cache, split="train")
        for name, feature in table.features.items():
            if isinstance(feature, Image):
                table = table.cast_column(name, Image(decode=False))
        found = []
        for row in table:
            caption = row.get("caption", row.get("prompt"))
            if "chosen" in row:
                pair = (row["chosen"], row["rejected"])
            elif not row["has_label"] or row["label_0"] == row["label_1"]:
                found.append({"reason": "tie"})
                continue
            else:
                pair = (row["jpg_0"], row["jpg_1"])
                pair = pair if row["label_0"] > row["label_1"] else pair[::-1]
            if caption is None:
                found.append({"reason": "no-caption"})
            else:
                found.append({"winner": sha(pair[0]), "loser": sha(pair[1]), "caption": caption})
                scores = (row.get("ps_score_0"), row.get("ps_score_1"))
                if None not in scores:
                    (winner,), (loser,) = scores if row["label_0"] > row["label_1"] else scores[::-1]
                    found[-1]["soft_label"] = soft_label(winner, loser)
        return found


def record(root):
    root.mkdir(parents=True, exist_ok=True)
    write(root)
    if root != WRITTEN.parent:
        (root / WRITTEN.name).write_bytes(WRITTEN.read_bytes())
    found = {path.stem: rows(path) for path in sorted(root.glob("*.parquet"))}
    (root / "rows.json").write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    save_meta(
        root, __doc__.splitlines()[0], 0, ("datasets", "pyarrow"), {"bytes": 0.0, "soft_label": 1e-6},
        "images, labels and captions are compared exactly; soft labels were computed in single precision", precision=None,
    )  # fmt: skip


if __name__ == "__main__":
    main("data", record)
