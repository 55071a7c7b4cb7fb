"""Scorers at published size with random weights, beside published code: no download, but up to 4 GB of disk.

    python golden/verify/scorers.py make pick-score|hps|image-reward|aesthetic FOLDER [--images 50]
    tastemaker score FOLDER/images --scorer NAME=FOLDER/... --out FOLDER/ours.jsonl    (`make` prints the line)
    python golden/verify/scorers.py compare FOLDER

The networks of pick-score and aesthetic are asked for the CLIP score, too, that of hps for both versions. Images and steps are those of golden/scorers/peers.py. Published code runs in f32 here, as its users run it.
"""

import argparse
import json
import pathlib
import string
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "golden" / "scorers"))
sys.path.insert(0, str(ROOT / "golden" / "tokenizer"))

import peers
import torch
from folder import write as write_tokenizer

PROMPTS = ["a fox in the snow, oil generating", "Portrait of an old man, 85mm", "two red houses & a lake", "cyberpunk city at night"]


def clip_folder(folder, config):
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

    model = CLIPModel(CLIPConfig(**config)).eval()
    model.save_pretrained(folder, max_shard_size="100GB")
    write_tokenizer(ROOT / "golden" / "tokenizer" / "tokenizer", folder)
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    return model, lambda prompt: tokenizer(prompt, max_length=77, truncation=True).input_ids


def towers(vision, text, width, activation):
    names = ["hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"]
    shared = {"hidden_act": activation}
    return {
        "vision_config": dict(zip(names, vision)) | {"patch_size": 14, "image_size": 224} | shared,
        "text_config": dict(zip(names, text)) | shared,
        "projection_dim": width,
    }


def pick_score(folder, images, prompts):
    config = towers((1280, 5120, 32, 16), (1024, 4096, 24, 16), 1024, "gelu")
    model, encode = clip_folder(folder, config)
    pick, cosine, _ = peers.transformers_clip(model, peers.cut(224), images, [encode(p) for p in prompts])
    return {f"pick-score={folder}": pick, f"clip-score={folder}": 100 * cosine}


def aesthetic(folder, images, prompts):
    config = towers((1024, 4096, 24, 16), (768, 3072, 12, 12), 768, "quick_gelu")
    model, encode = clip_folder(folder, config)
    mlp = peers.head((1024, 128, 64, 16, 1), 768)
    torch.save({f"layers.{name}": tensor for name, tensor in mlp.state_dict().items()}, folder / "head.pth")
    _, cosine, seen = peers.transformers_clip(model, peers.cut(224), images, [encode(p) for p in prompts])
    with torch.no_grad():
        points = mlp.eval()(seen)[:, 0]
    return {f"aesthetic={folder / 'head.pth'},{folder}": points, f"clip-score={folder}": 100 * cosine}


def hps(folder, images, prompts):
    import open_clip

    model = open_clip.create_model("ViT-H-14").eval()
    file = folder / "HPS.pt"
    torch.save({"state_dict": model.state_dict()}, file)
    ids = open_clip.get_tokenizer("ViT-H-14")(prompts).tolist()
    scores = 100 * peers.open_clip_cosine(model, peers.pad(224), images, ids)
    return {f"hps-v2.1={file}": scores, f"hps-v2={file}": scores}


def image_reward(folder, images, prompts):
    from transformers import BertTokenizerLegacy, BlipTextConfig, BlipTextModel, BlipVisionConfig, BlipVisionModel

    letters = [*string.ascii_lowercase, *(f"##{c}" for c in string.ascii_lowercase), *string.digits, *string.punctuation]
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters]
    tokens += [f"filler{i}" for i in range(30522 - len(tokens))]
    (folder / "vocab.txt").write_text("\n".join(tokens) + "\n")
    tokenizer = BertTokenizerLegacy(folder / "vocab.txt")
    tokenizer.add_special_tokens({"bos_token": "[DEC]"})
    tokenizer.add_special_tokens({"additional_special_tokens": ["[ENC]"]})
    vision = BlipVisionModel(BlipVisionConfig(
        hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, image_size=224, patch_size=16,
        layer_norm_eps=1e-6,
    )).eval()  # fmt: skip
    text = BlipTextModel(BlipTextConfig(
        vocab_size=30524, hidden_size=768, encoder_hidden_size=1024, intermediate_size=3072, num_hidden_layers=12,
        num_attention_heads=12, max_position_embeddings=512, layer_norm_eps=1e-12, is_decoder=True,
    ), add_pooling_layer=False).eval()  # fmt: skip
    mlp = peers.head((1024, 128, 64, 16, 1), 768).eval()
    torch.save(peers.image_reward_names(vision, text, mlp), folder / "ImageReward.pt")
    med = {
        "architectures": ["BertModel"], "attention_probs_dropout_prob": 0.1, "hidden_act": "gelu", "hidden_dropout_prob": 0.1,
        "hidden_size": 768, "initializer_range": 0.02, "intermediate_size": 3072, "layer_norm_eps": 1e-12,
        "max_position_embeddings": 512, "model_type": "bert", "num_attention_heads": 12, "num_hidden_layers": 12,
        "pad_token_id": 0, "type_vocab_size": 2, "vocab_size": 30524, "encoder_width": 768, "add_cross_attention": True,
    }  # fmt: skip
    (folder / "med_config.json").write_text(json.dumps(med))
    asked = [tokenizer(p, padding="max_length", truncation=True, max_length=35) for p in prompts]
    ids, masks = [t.input_ids for t in asked], [t.attention_mask for t in asked]
    return {f"image-reward={folder}": peers.image_reward(vision, text, mlp, peers.cut_to_even(224), images, ids, masks)}


MAKERS = {"pick-score": pick_score, "hps": hps, "image-reward": image_reward, "aesthetic": aesthetic}


def make(name, folder, n):
    torch.manual_seed(0)
    folder = folder.resolve()
    (folder / "images").mkdir(parents=True)
    chosen = [i * len(peers.SIZES) // n for i in range(n)]
    images, prompts = [peers.image(i) for i in chosen], [PROMPTS[i % len(PROMPTS)] for i in range(n)]
    files = [f"{i:02}.png" for i in chosen]
    for file, image in zip(files, images):
        image.save(folder / "images" / file)
    rows = [json.dumps({"file_name": file, "prompt": prompt}) + "\n" for file, prompt in zip(files, prompts)]
    (folder / "images" / "metadata.jsonl").write_text("".join(rows))
    scores = MAKERS[name](folder, images, prompts)
    theirs = {typed.split("=")[0]: dict(zip(files, of_all.tolist())) for typed, of_all in scores.items()}
    (folder / "theirs.json").write_text(json.dumps(theirs))
    typed = " ".join(f"--scorer {typed}" for typed in scores)
    print(f"tastemaker score {folder / 'images'} {typed} --out {folder / 'ours.jsonl'}")


def compare(folder):
    theirs = json.loads((folder / "theirs.json").read_text())
    rows = [json.loads(line) for line in (folder / "ours.jsonl").read_text().splitlines()]
    for name, scores in theirs.items():
        ours = {pathlib.Path(row["image"]).name: row[name] for row in rows}
        worst = max(abs(ours[file] - score) for file, score in scores.items())
        spread = max(scores.values()) - min(scores.values())
        print(f"{name}: {len(ours)} images, largest difference {worst:.1e}, scores spread over {spread:.2g}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["make", "compare"])
    parser.add_argument("rest", nargs="+")
    parser.add_argument("--images", type=int, default=50)
    args = parser.parse_args()
    if args.what == "make":
        return make(args.rest[0], pathlib.Path(args.rest[1]), args.images)
    compare(pathlib.Path(args.rest[0]))


if __name__ == "__main__":
    main()
