"""Records what published code says about fifty images, with tiny networks of random weights.

PickScore, CLIP score: transformers' CLIPModel. HPS: open_clip's CLIP, whose names its file has. ImageReward: transformers' port
of BLIP under the file's names, because the authors' package does not import with it. The steps around the networks are in
`peers.py`; those of HPS repeat hpsv2 1.2.0, whose pinned requirements cannot be installed beside the others.
"""

import json
import pathlib
import string
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import open_clip
import peers
import torch
from common import main, redraw, save_meta, save_tensors
from open_clip.tokenizer import basic_clean, whitespace_clean
from safetensors.torch import save_file
from transformers import (
    BertTokenizerLegacy, BlipTextConfig, BlipTextModel, BlipVisionConfig, BlipVisionModel, CLIPConfig, CLIPModel, CLIPTokenizer,
)  # fmt: skip

SIDE, WIDTH, TOKENS = 16, 24, 16
WORDS = ["a fox", "red house", "rain over the sea", "an old map", "x", "two cats on a sofa and a very long tail of words"]
PACKAGES = ["torch", "torchvision", "pillow", "transformers"]
REASON = "f32 sums in another order; the reference ran in f64 on f32 weights and pixels"

MED = {
    "architectures": ["BertModel"], "attention_probs_dropout_prob": 0.1, "hidden_act": "gelu", "hidden_dropout_prob": 0.1,
    "hidden_size": 24, "initializer_range": 0.02, "intermediate_size": 48, "layer_norm_eps": 1e-12,
    "max_position_embeddings": 40, "model_type": "bert", "num_attention_heads": 4, "num_hidden_layers": 2, "pad_token_id": 0,
    "type_vocab_size": 2, "vocab_size": 0, "encoder_width": 128, "add_cross_attention": True,
}  # fmt: skip
BERT_PROMPTS = [
    "a fox", "A FOX, in Snow!", "caf\u00e9 na\u00efve", "rain-soaked street; 4k", "\u72d0\u72f8 in the snow", "[ENC] a [DEC] fox",
    "tab\tand\nnewline", "", "zzz " * 40, "supercalifragilistic", "don't [MASK] me", "\u201ccurly\u201d \u2026 dots", "x" * 120,
]  # fmt: skip
TEXTS = [
    "a fox", "  A  fox ", "don\u2019t \u201ccurl\u201d", "fish &amp; chips", "fish &amp;amp; chips", "&lt;b&gt;", "&quot;x&#39;s&quot;",
    "\uff26\uff35\uff2c\uff2c width", "\ufb01sh \ufb02y o\ufb03ce", "caf\u00e9", "\u72d0\u72f8", "\u3000wide", "a\u00a0b", "50% & more",
]  # fmt: skip


def clip_tokenizer(folder):
    """Letters inside a word, letters at its end, start and end: the tokenizer of the tests' tiny models."""
    tokens = [*string.ascii_lowercase, *(f"{c}</w>" for c in string.ascii_lowercase), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}) + "\n")
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": TOKENS}) + "\n")
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    return lambda prompt: tokenizer(prompt, max_length=TOKENS, truncation=True).input_ids


def prompts():
    return [WORDS[i % len(WORDS)] for i in range(len(peers.SIZES))]


def meta(folder, what, seed, measured=None, packages=PACKAGES):
    save_meta(folder, what, seed, packages, {"output": 1e-05}, REASON, measured, precision=None)


def pixels(root):
    """Every transform at 16 pixels; what is made of bytes as bytes."""
    root.mkdir(parents=True, exist_ok=True)
    images = [peers.image(i) for i in range(len(peers.SIZES))]
    mean, std = torch.tensor(peers.MEAN).view(3, 1, 1), torch.tensor(peers.STD).view(3, 1, 1)
    tensors = {"pad": torch.stack([peers.pad(SIDE)(image) for image in images])}
    for name, see in [("cut", peers.cut(SIDE)), ("cut_to_even", peers.cut_to_even(SIDE))]:
        bytes_ = torch.stack([see(image) for image in images]) * std + mean
        tensors[name] = (bytes_ * 255).round().to(torch.uint8)
    sides = torch.stack([peers.cut(224)(image) for image in images[:24]]) * std + mean
    # One number a row, exact in f64, for the published side.
    weights = torch.arange(224, dtype=torch.float64) + 1
    tensors["cut224"] = ((sides * 255).round().double() * weights).sum(-1)
    save_tensors(root / "io.safetensors", tensors, wide=["cut224"])
    meta(root, "fifty images as image towers see them", 0)


def clip(root):
    root.mkdir(parents=True, exist_ok=True)
    encode = clip_tokenizer(root)
    shared = {"intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "hidden_act": "gelu"}
    config = CLIPConfig(
        text_config={"hidden_size": 32, "vocab_size": 54, "max_position_embeddings": TOKENS, "eos_token_id": 53, **shared},
        vision_config={"hidden_size": 40, "image_size": SIDE, "patch_size": 4, **shared},
        projection_dim=WIDTH,
    )
    model = redraw(CLIPModel(config), 701)
    model.logit_scale.data.fill_(3.25)
    mlp = redraw(peers.head((20, 12, 8, 4, 1), WIDTH), 702)
    # transformers 5 skips what published folders still have.
    save_file({k: v.contiguous() for k, v in sorted(model.state_dict().items())}, root / "model.safetensors", {"format": "pt"})
    model.config.save_pretrained(root)
    numbers = [n for n, layer in enumerate(mlp) if isinstance(layer, torch.nn.Linear)]
    torch.save({f"layers.{n}.{k}": v for n in numbers for k, v in mlp[n].state_dict().items()}, root / "head.pth")
    images = [peers.image(i) for i in range(len(peers.SIZES))]
    ids = [encode(prompt) for prompt in prompts()]
    pick, cosine, seen = peers.transformers_clip(model.double(), peers.cut(SIDE), images, ids)
    with torch.no_grad():
        aesthetic = mlp.double()(seen)[:, 0]
    scores = {"pick-score": pick, "clip-score": 100 * cosine, "aesthetic": aesthetic}
    save_tensors(root / "io.safetensors", scores, wide=scores)
    meta(root, "PickScore, CLIP score and the aesthetic score of fifty images", 701)


def hps(root):
    root.mkdir(parents=True, exist_ok=True)
    encode = clip_tokenizer(root)
    config = {
        "embed_dim": WIDTH,
        "vision_cfg": {"image_size": SIDE, "layers": 2, "width": 40, "head_width": 20, "patch_size": 4},
        "text_cfg": {"context_length": TOKENS, "vocab_size": 54, "width": 32, "heads": 4, "layers": 2},
    }
    model = redraw(open_clip.CLIP(**config), 703)
    torch.save({"epoch": 1, "state_dict": model.state_dict()}, root / "HPS_v2.1_compressed.pt")
    both = {"model_cfg": config, "preprocess_cfg": {"mean": peers.MEAN, "std": peers.STD}}
    (root / "open_clip_config.json").write_text(json.dumps(both, indent=2) + "\n")
    images = [peers.image(i) for i in range(len(peers.SIZES))]
    ids = [encode(prompt) for prompt in prompts()]
    padded = [row + [0] * (TOKENS - len(row)) for row in ids]
    cosine = peers.open_clip_cosine(model.double(), peers.pad(SIDE), images, padded)
    save_tensors(root / "io.safetensors", {"hps-v2.1": 100 * cosine}, wide=["hps-v2.1"])
    cleaned = [[text, whitespace_clean(basic_clean(text))] for text in TEXTS]
    (root / "cleaned.json").write_text(json.dumps(cleaned, indent=1) + "\n")
    meta(root, "HPS v2.1 of fifty images; how open_clip cleans prompts", 703, packages=[*PACKAGES, "open_clip_torch", "ftfy"])


def image_reward(root):
    root.mkdir(parents=True, exist_ok=True)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *string.ascii_lowercase, *(f"##{c}" for c in string.ascii_lowercase)]
    vocabulary += ["fox", "rain", "##ing", "snow", "the", "\u72d0", ",", "!", ";", "-", "'", "[", "]", "4"]
    (root / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    tokenizer = BertTokenizerLegacy(root / "vocab.txt")
    tokenizer.add_special_tokens({"bos_token": "[DEC]"})
    tokenizer.add_special_tokens({"additional_special_tokens": ["[ENC]"]})
    med = MED | {"vocab_size": len(vocabulary) + 2}
    (root / "med_config.json").write_text(json.dumps(med, indent=2) + "\n")
    vision = BlipVisionModel(BlipVisionConfig(
        hidden_size=128, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=SIDE, patch_size=4,
        layer_norm_eps=1e-6,
    ))  # fmt: skip
    text = BlipTextModel(BlipTextConfig(
        vocab_size=med["vocab_size"], hidden_size=24, encoder_hidden_size=128, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=40, layer_norm_eps=1e-12, is_decoder=True,
    ), add_pooling_layer=False)  # fmt: skip
    vision, text, mlp = redraw(vision, 704), redraw(text, 705), redraw(peers.head((20, 12, 8, 4, 1), 24), 706)
    # Halves are enough for a golden; the networks compute with what is in the file.
    vision, text, mlp = (model.half().float() for model in (vision, text, mlp))
    named = peers.image_reward_names(vision, text, mlp)
    torch.save({k: v.half() if v.is_floating_point() else v for k, v in named.items()}, root / "ImageReward.pt")
    images = [peers.image(i) for i in range(len(peers.SIZES))]
    asked = [BERT_PROMPTS[i % len(BERT_PROMPTS)] for i in range(len(images))]
    tokens = [tokenizer(p, padding="max_length", truncation=True, max_length=35) for p in asked]
    ids, masks = [t.input_ids for t in tokens], [t.attention_mask for t in tokens]
    reward = peers.image_reward(vision.double(), text.double(), mlp.double(), peers.cut_to_even(SIDE), images, ids, masks)
    tensors = {"image-reward": reward, "input_ids": torch.tensor(ids[: len(BERT_PROMPTS)], dtype=torch.int32)}
    save_tensors(root / "io.safetensors", tensors, wide=["image-reward"])
    (root / "prompts.json").write_text(json.dumps(BERT_PROMPTS, indent=1) + "\n")
    meta(root, "ImageReward of fifty images; ids of BERT's tokenizer", 704)


def record(root):
    pixels(root / "pixels")
    clip(root / "clip")
    hps(root / "hps")
    image_reward(root / "image-reward")


if __name__ == "__main__":
    main("scorers", record)
