"""What published code says about images: the steps of each scorer, for networks of any size.

Images are drawn by a formula (`image`), which the tests compute again instead of reading files.
"""

import numpy
import torch
import torchvision.transforms.functional as F
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Normalize, Resize, ToTensor
from transformers import CLIPImageProcessorPil

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)

# Squares, small and large, and proportions up to four to one; (width, height).
SIZES = [
    (16, 16), (224, 224), (64, 64), (512, 512), (1, 1), (2, 3), (3, 5), (7, 4), (16, 7), (7, 16), (19, 16), (16, 19),
    (17, 16), (18, 16), (22, 16), (225, 224), (227, 224), (224, 227), (224, 100), (100, 224), (31, 8), (8, 31), (40, 10),
    (10, 40), (100, 25), (25, 100), (33, 47), (47, 33), (96, 64), (64, 96), (128, 100), (100, 128), (200, 199), (199, 200),
    (300, 75), (75, 300), (333, 250), (250, 333), (400, 300), (300, 400), (640, 360), (360, 640), (512, 768), (768, 512),
    (1024, 256), (256, 1024), (1000, 999), (1024, 1024), (1280, 720), (1536, 640),
]  # fmt: skip


def image(i):
    """Gradients that wrap around, with noise on them: the `i`-th image, whose size is `SIZES[i]`."""
    width, height = SIZES[i]
    x, y, c = numpy.meshgrid(numpy.arange(width), numpy.arange(height), numpy.arange(3), indexing="xy")
    x, y, c = (v.astype(numpy.uint32) for v in (x, y, c))
    noise = (x * 73856093) ^ (y * 19349663) ^ (c * 83492791) ^ numpy.uint32(i * 40503)
    noise = (noise * numpy.uint32(2654435761)) >> 27
    smooth = (x * (1 + i % 5) + y * (1 + i % 3)) // 2 + (x * y) // (64 + 16 * c) + 85 * c
    return Image.fromarray(((smooth + noise) & 255).astype(numpy.uint8), "RGB")


def cut(side):
    """As transformers' slow image processor has it: PickScore, CLIP score, the aesthetic score in DPO's code."""
    processor = CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size={"height": side, "width": side})
    return lambda image: processor(images=image, return_tensors="pt").pixel_values[0]


def cut_to_even(side):
    """As ImageReward's `_transform` and OpenAI's `clip.load` have it."""
    steps = [Resize(side, interpolation=InterpolationMode.BICUBIC), CenterCrop(side)]
    return Compose([*steps, lambda image: image.convert("RGB"), ToTensor(), Normalize(MEAN, STD)])


def pad(side):
    """As hpsv2's `image_transform` has it with `resize_longest_max`: to numbers, resized, padded, then normalized."""

    def see(image):
        pixels = ToTensor()(image.convert("RGB"))
        height, width = pixels.shape[1:]
        scale = side / float(max(height, width))
        size = [round(n * scale) for n in (height, width)]
        if scale != 1.0:
            pixels = F.resize(pixels, size, InterpolationMode.BICUBIC, antialias=True)
        top, left = (side - size[0]) // 2, (side - size[1]) // 2
        pixels = F.pad(pixels, [left, top, side - size[1] - left, side - size[0] - top])
        return F.normalize(pixels, MEAN, STD)

    return see


def unit(x):
    return x / x.norm(dim=-1, keepdim=True)


def transformers_clip(model, see, images, ids):
    """PickScore as its model card computes it, the cosine, and the image's unit vector."""
    pixels = torch.stack([see(image) for image in images]).to(model.logit_scale.dtype)
    with torch.no_grad():
        seen = torch.cat([projected(model.get_image_features(some[None])) for some in pixels])
        said = torch.cat([projected(model.get_text_features(torch.tensor([row]))) for row in ids])
        seen, said = unit(seen), unit(said)
        cosine = (seen * said).sum(-1)
        return model.logit_scale.exp() * cosine, cosine, seen


def projected(output):
    return output if torch.is_tensor(output) else output.pooler_output


def open_clip_cosine(model, see, images, ids):
    """HPS v2 as `hpsv2.score` computes it."""
    kind = model.logit_scale.dtype
    with torch.no_grad():
        rows = zip(images, ids)
        return torch.cat([
            (
                model.encode_image(see(image)[None].to(kind), normalize=True)
                * model.encode_text(torch.tensor([row]), normalize=True)
            ).sum(-1)
            for image, row in rows
        ])  # fmt: skip


def head(widths, n_in):
    """The `MLP` of improved-aesthetic-predictor and ImageReward; dropout does nothing when it judges."""
    sizes = [n_in, *widths]
    linear = [torch.nn.Linear(a, b) for a, b in zip(sizes, sizes[1:])]
    return torch.nn.Sequential(*(x for layer in linear[:3] for x in (layer, torch.nn.Dropout(0.1))), *linear[3:])


def image_reward(vision, text, mlp, see, images, ids, masks):
    """ImageReward's `score`, on transformers' port of BLIP."""
    kind = next(mlp.parameters()).dtype
    scores = []
    with torch.no_grad():
        for image, row, mask in zip(images, ids, masks):
            seen = vision(see(image)[None].to(kind)).last_hidden_state
            said = text(
                torch.tensor([row]),
                attention_mask=torch.tensor([mask]),
                encoder_hidden_states=seen,
                encoder_attention_mask=torch.ones(seen.shape[:-1], dtype=torch.long),
            )
            scores.append(mlp(said.last_hidden_state[:, 0, :]))
    return (torch.cat(scores)[:, 0] - 0.16717362830052426) / 1.0333394966054072


def image_reward_names(vision, text, mlp):
    """The weights under the names of ImageReward.pt."""
    named = {}
    for name, tensor in vision.state_dict().items():
        for new, old in [
            ("embeddings.class_embedding", "cls_token"), ("embeddings.position_embedding", "pos_embed"),
            ("embeddings.patch_embedding", "patch_embed.proj"), ("encoder.layers", "blocks"), ("self_attn.qkv", "attn.qkv"),
            ("self_attn.projection", "attn.proj"), ("layer_norm", "norm"), ("post_layernorm", "norm"),
        ]:  # fmt: skip
            name = name.replace(new, old)
        named[f"blip.visual_encoder.{name}"] = tensor
    for name, tensor in text.state_dict().items():
        named[f"blip.text_encoder.{name}"] = tensor
    # Tensors of the file that scoring does not use.
    named["blip.text_encoder.embeddings.position_ids"] = torch.arange(text.config.max_position_embeddings)[None]
    for side, width in [("vision", vision.config.hidden_size), ("text", text.config.hidden_size)]:
        named[f"blip.{side}_proj.weight"], named[f"blip.{side}_proj.bias"] = torch.ones(4, width), torch.ones(4)
    numbers = [n for n, layer in enumerate(mlp) if isinstance(layer, torch.nn.Linear)]
    for n in numbers:
        named[f"mlp.layers.{n}.weight"], named[f"mlp.layers.{n}.bias"] = mlp[n].weight.data, mlp[n].bias.data
    return {name: tensor.contiguous() for name, tensor in named.items()}
