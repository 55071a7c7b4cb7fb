"""Records where diffusers finds each tensor of an original single-file checkpoint, at the sizes of the published models,
and which layer of a UNet it takes each name in a kohya adapter for.

Every stored tensor is filled with its own number, so that a tensor of the result tells which stored one it came from,
and, where rows were split or a matrix transposed, which part of it. The stored names are made here from the numbering
rules of the original code; diffusers has to make exactly its own model's names out of them.
"""

import json
import pathlib
import re
import sys

import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel, UNet2DConditionModel, ZImageTransformer2DModel
from diffusers.loaders import lora_conversion_utils as lora
from diffusers.loaders import single_file_utils as single
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

HERE = pathlib.Path(__file__).resolve().parent
PRESETS = HERE.parents[1] / "crates" / "models" / "presets"

sys.path.insert(0, str(HERE.parent))

from common import main, save_meta  # noqa: E402

RESNET = ["in_layers.0", "in_layers.2", "emb_layers.1", "out_layers.0", "out_layers.3"]
VAE_RESNET = ["norm1", "conv1", "norm2", "conv2"]


def pair(name):
    return [f"{name}.weight", f"{name}.bias"]


def numbered_blocks(config):
    """(place, has attention, change of width) of every block on the way down, in the middle and up."""
    widths, layers = config["block_out_channels"], config["layers_per_block"]
    depth = config.get("transformer_layers_per_block", 1)
    depth = depth if isinstance(depth, list) else [depth] * len(widths)
    down, skips, place, width = [], [widths[0]], 1, widths[0]
    for level, kind in enumerate(config["down_block_types"]):
        for _ in range(layers):
            down.append((f"input_blocks.{place}", kind.startswith("Cross") and depth[level], width != widths[level], None))
            width = widths[level]
            skips.append(width)
            place += 1
        if level < len(widths) - 1:
            down.append((f"input_blocks.{place}", None, False, "0.op"))
            skips.append(width)
            place += 1
    up, place = [], 0
    for step, kind in enumerate(config["up_block_types"]):
        level = len(widths) - 1 - step
        cross = kind.startswith("Cross") and depth[level]
        for index in range(layers + 1):
            last = index == layers and step < len(widths) - 1
            up.append((f"output_blocks.{place}", cross, True, f"{2 if cross else 1}.conv" if last else None))
            place += 1
    return down, depth[-1], up


def transformer(prefix, depth):
    names = pair(f"{prefix}.norm") + pair(f"{prefix}.proj_in") + pair(f"{prefix}.proj_out")
    for block in range(depth):
        inner = f"{prefix}.transformer_blocks.{block}"
        for attention in ("attn1", "attn2"):
            names += [f"{inner}.{attention}.{x}.weight" for x in ("to_q", "to_k", "to_v")]
            names += pair(f"{inner}.{attention}.to_out.0")
        names += pair(f"{inner}.ff.net.0.proj") + pair(f"{inner}.ff.net.2")
        names += [name for norm in ("norm1", "norm2", "norm3") for name in pair(f"{inner}.{norm}")]
    return names


def unet_names(config):
    down, middle_depth, up = numbered_blocks(config)
    outer = ["input_blocks.0.0", "time_embed.0", "time_embed.2", "out.0", "out.2"]
    if config.get("addition_embed_type"):
        outer += ["label_emb.0.0", "label_emb.0.2"]
    names = [name for layer in outer for name in pair(layer)]
    for place, cross, widens, sampler in down + up:
        if sampler != "0.op":
            names += [name for layer in RESNET for name in pair(f"{place}.0.{layer}")]
            names += pair(f"{place}.0.skip_connection") if widens else []
        names += transformer(f"{place}.1", cross) if cross else []
        names += pair(f"{place}.{sampler}") if sampler else []
    for place in ("middle_block.0", "middle_block.2"):
        names += [name for layer in RESNET for name in pair(f"{place}.{layer}")]
    return names + transformer("middle_block.1", middle_depth)


def vae_names(config):
    widths, layers = config["block_out_channels"], config["layers_per_block"]
    names = pair("quant_conv") + pair("post_quant_conv")
    for half in ("encoder", "decoder"):
        names += [n for layer in ("conv_in", "norm_out", "conv_out") for n in pair(f"{half}.{layer}")]
        for block in ("block_1", "block_2"):
            names += [n for layer in VAE_RESNET for n in pair(f"{half}.mid.{block}.{layer}")]
        names += [n for layer in ("norm", "q", "k", "v", "proj_out") for n in pair(f"{half}.mid.attn_1.{layer}")]
        width = widths[0] if half == "encoder" else widths[-1]
        levels = range(len(widths)) if half == "encoder" else reversed(range(len(widths)))
        way, count, last, sampler = ("down", layers, len(widths) - 1, "downsample") if half == "encoder" else ("up", layers + 1, 0, "upsample")
        for level in levels:
            for block in range(count):
                inner = f"{half}.{way}.{level}.block.{block}"
                names += [n for layer in VAE_RESNET for n in pair(f"{inner}.{layer}")]
                names += pair(f"{inner}.nin_shortcut") if width != widths[level] else []
                width = widths[level]
            names += pair(f"{half}.{way}.{level}.{sampler}.conv") if level != last else []
    return names


def open_clip_names(config, projection):
    names = ["token_embedding.weight", "positional_embedding", *pair("ln_final")]
    names += ["text_projection"] if projection else []
    for layer in range(config["num_hidden_layers"]):
        inner = f"transformer.resblocks.{layer}"
        names += [f"{inner}.attn.in_proj_weight", f"{inner}.attn.in_proj_bias"]
        names += [n for x in ("ln_1", "ln_2", "attn.out_proj", "mlp.c_fc", "mlp.c_proj") for n in pair(f"{inner}.{x}")]
    return names


def mmdit_shapes(config):
    """Original names and shapes of a transformer of SD3; queries, keys and values are joined."""
    width = config["num_attention_heads"] * config["attention_head_dim"]
    head, patch, last = config["attention_head_dim"], config["patch_size"], config["num_layers"] - 1
    shapes = {"pos_embed": (1, config["pos_embed_max_size"] ** 2, width)}

    def linear(name, n_in, n_out):
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (n_out, n_in), (n_out,)

    shapes["x_embedder.proj.weight"] = (width, config["in_channels"], patch, patch)
    shapes["x_embedder.proj.bias"] = (width,)
    for embedder, n_in in (("t_embedder", 256), ("y_embedder", config["pooled_projection_dim"])):
        linear(f"{embedder}.mlp.0", n_in, width)
        linear(f"{embedder}.mlp.2", width, width)
    linear("context_embedder", config["joint_attention_dim"], width)
    linear("final_layer.adaLN_modulation.1", width, 2 * width)
    linear("final_layer.linear", width, patch * patch * config["out_channels"])
    for i in range(config["num_layers"]):
        dual = i in config["dual_attention_layers"]
        for stream in ("x_block", "context_block"):
            block, bare = f"joint_blocks.{i}.{stream}", stream == "context_block" and i == last
            linear(f"{block}.adaLN_modulation.1", width, (2 if bare else 9 if dual and stream == "x_block" else 6) * width)
            for attention in ["attn", "attn2"] if dual and stream == "x_block" else ["attn"]:
                linear(f"{block}.{attention}.qkv", width, 3 * width)
                shapes |= {f"{block}.{attention}.{norm}.weight": (head,) for norm in ("ln_q", "ln_k")}
                if not bare:
                    linear(f"{block}.{attention}.proj", width, width)
            if not bare:
                linear(f"{block}.mlp.fc1", width, 4 * width)
                linear(f"{block}.mlp.fc2", 4 * width, width)
    return shapes


# Stored tensors of which parts go to several of ours, and those whose halves may change places.
JOINED = re.compile(r"in_proj|\.qkv\.")
HALVES = re.compile(r"final_layer\.adaLN|joint_blocks\.23\.context_block\.adaLN")


class Filled:
    """Stored tensors, each one of its own number; the shape is that of the original network."""

    def __init__(self, prefix, shapes):
        self.names = [prefix + name for name in shapes]
        self.tensors = {}
        for number, (name, shape) in enumerate(zip(self.names, shapes.values())):
            if JOINED.search(name):
                part = torch.arange(3, dtype=torch.int32).repeat_interleave(shape[0] // 3)
                tensor = (10 * number + part).reshape([-1] + [1] * (len(shape) - 1)).expand(shape)
            elif HALVES.search(name):
                part = torch.arange(2, dtype=torch.int32).repeat_interleave(shape[0] // 2)
                tensor = (10 * number + part).reshape([-1] + [1] * (len(shape) - 1)).expand(shape)
            elif name.endswith("text_projection"):
                tensor = 10 * number + torch.ones(shape, dtype=torch.int32).triu(1)
            else:
                tensor = torch.tensor([10 * number], dtype=torch.int32).expand(shape)
            self.tensors[name] = tensor

    def origin(self, tensor):
        """Stored name and change of a tensor of the result."""
        number, detail = divmod(int(tensor.flatten()[0]), 10)
        name = self.names[number]
        stored = self.tensors[name]
        if JOINED.search(name):
            assert (tensor == 10 * number + detail).all()
            return name, f"rows {detail}"
        if HALVES.search(name):
            assert torch.equal(tensor, torch.cat(list(reversed(stored.chunk(2))))) == bool(detail)
            return name, "swapped" if detail else "same"
        if name.endswith("text_projection"):
            assert torch.equal(tensor, stored.T)
            return name, "transposed"
        assert not any(tensor.stride()) or (tensor == 10 * number).all()
        return name, "same" if tensor.shape == stored.shape else "pixels"


def record(prefix, stored_shapes, convert, wanted):
    """Lines of our name, stored name and change; `wanted` are the model's own names and shapes."""
    filled = Filled(prefix, stored_shapes)
    converted = convert(filled.tensors)
    converted = {name: tensor for name, tensor in converted.items() if "position_ids" not in name}
    assert {n: tuple(t.shape) for n, t in converted.items()} == wanted, set(converted) ^ set(wanted)
    origins = {name: filled.origin(tensor) for name, tensor in converted.items()}
    assert {name for name, _ in origins.values()} == set(filled.names), "a stored tensor was not used"
    return [(name, *origins[name]) for name in sorted(origins)]


def shapes_of(model):
    return {name: tuple(p.shape) for name, p in model.named_parameters()}


def unet(config):
    with torch.device("meta"):
        model = UNet2DConditionModel.from_config(config)
    wanted = shapes_of(model)
    names = unet_names(config)
    # Shapes as in diffusers: originals share them. They are found by converting once with shapeless stand-ins.
    prefix = "model.diffusion_model."
    dry = single.convert_ldm_unet_checkpoint({prefix + n: torch.tensor([i]) for i, n in enumerate(names)}, dict(model.config))
    shapes = {names[int(t)]: wanted[n] for n, t in dry.items()}
    return record(prefix, {n: shapes[n] for n in names}, lambda c: single.convert_ldm_unet_checkpoint(dict(c), dict(model.config)), wanted)


def mmdit(config):
    """Names do not depend on the width."""
    config = config | dict(num_attention_heads=1, attention_head_dim=8, caption_projection_dim=8, joint_attention_dim=4)
    config |= dict(pooled_projection_dim=4, pos_embed_max_size=2)
    with torch.device("meta"):
        model = SD3Transformer2DModel.from_config(config)
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    convert = lambda c: single.convert_sd3_transformer_checkpoint_to_diffusers(dict(c))
    return record("model.diffusion_model.", mmdit_shapes(config), convert, wanted)


def nextdit_shapes(config):
    """Names and shapes of a transformer of Z-Image in ComfyUI's files; queries, keys and values are joined."""
    width, head, time = config["dim"], config["dim"] // config["n_heads"], min(config["dim"], 256)
    inner, features = int(width / 3 * 8), config["all_patch_size"][0] ** 2 * config["in_channels"]
    shapes = {"x_pad_token": (1, width), "cap_pad_token": (1, width), "cap_embedder.0.weight": (config["cap_feat_dim"],)}

    def linear(name, n_in, n_out):
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (n_out, n_in), (n_out,)

    linear("x_embedder", features, width)
    linear("cap_embedder.1", config["cap_feat_dim"], width)
    linear("t_embedder.mlp.0", 256, 1024)
    linear("t_embedder.mlp.2", 1024, time)
    linear("final_layer.linear", width, features)
    linear("final_layer.adaLN_modulation.1", time, width)
    counts = {"layers": "n_layers", "noise_refiner": "n_refiner_layers", "context_refiner": "n_refiner_layers"}
    for block in (f"{stack}.{i}" for stack, count in counts.items() for i in range(config[count])):
        shapes |= {f"{block}.attention.qkv.weight": (3 * width, width), f"{block}.attention.out.weight": (width, width)}
        shapes |= {f"{block}.attention.{norm}.weight": (head,) for norm in ("q_norm", "k_norm")}
        shapes |= {f"{block}.feed_forward.{w}.weight": (inner, width) for w in ("w1", "w3")}
        shapes[f"{block}.feed_forward.w2.weight"] = (width, inner)
        norms = ("attention_norm1", "attention_norm2", "ffn_norm1", "ffn_norm2")
        shapes |= {f"{block}.{norm}.weight": (width,) for norm in norms}
        if not block.startswith("context"):
            linear(f"{block}.adaLN_modulation.0", time, 4 * width)
    return shapes


def nextdit(config):
    """Names do not depend on the width."""
    config = config | dict(dim=6, n_heads=1, n_kv_heads=1, axes_dims=[2, 2, 2], cap_feat_dim=4, in_channels=2)
    with torch.device("meta"):
        model = ZImageTransformer2DModel.from_config(config)
    convert = lambda c: single.convert_z_image_transformer_checkpoint_to_diffusers(dict(c))
    return record("model.diffusion_model.", nextdit_shapes(config), convert, shapes_of(model))


def vae(config):
    with torch.device("meta"):
        model = AutoencoderKL.from_config(config)
    wanted = shapes_of(model)
    names = vae_names(config)
    prefix = "first_stage_model."

    def convert(checkpoint):
        return single.convert_ldm_vae_checkpoint(dict(checkpoint), dict(model.config))

    dry = convert({prefix + n: torch.tensor([i]).reshape([1, 1, 1, 1]) for i, n in enumerate(names)})
    shapes = {}
    for name, tensor in dry.items():
        stored = names[int(tensor.flatten()[0])]
        pixels = ".attn_1." in stored and stored.endswith(".weight") and ".norm." not in stored
        shapes[stored] = wanted[name] + ((1, 1) if pixels else ())
    return record(prefix, {n: shapes[n] for n in names}, convert, wanted)


ADAPTED = (".to_q", ".to_k", ".to_v", ".to_out.0", ".proj_in", ".proj_out", ".ff.net.0.proj", ".ff.net.2")


def kohya(lines, config, original):
    """Lines of our name and kohya's for each adaptable layer of the transformers; names are original ones for SDXL."""
    layers = {ours[: -len(".weight")]: stored[len("model.diffusion_model.") : -len(".weight")]
              for ours, stored, _ in lines if ours.endswith(".weight")}
    layers = {ours: stored if original else ours for ours, stored in layers.items() if ours.endswith(ADAPTED)}
    spelled = {ours: "lora_unet_" + name.replace(".", "_") for ours, name in layers.items()}
    tensors = {}
    for number, name in enumerate(spelled.values()):
        tensors |= {f"{name}.lora_down.weight": torch.full((1, 1), float(number)), f"{name}.lora_up.weight": torch.ones(1, 1),
                    f"{name}.alpha": torch.tensor(1.0)}
    with torch.device("meta"):
        unet_config = UNet2DConditionModel.from_config(config).config
    tensors = lora._maybe_map_sgm_blocks_to_diffusers(tensors, unet_config)
    converted, _ = lora._convert_non_diffusers_lora_to_diffusers(tensors)
    ours = list(spelled)
    found = {}
    for name, tensor in converted.items():
        layer = re.fullmatch(r"unet\.(.*)[._]lora(?:\.down|_A)\.weight", name)
        if layer:
            layer = layer[1].replace(".processor.to_", ".to_")  # the older spelling of attention layers
            found[ours[int(tensor)]] = layer if not layer.endswith(".to_out") else f"{layer}.0"
    assert found == {layer: layer for layer in spelled}, [(a, b) for a, b in found.items() if a != b][:5] + sorted(set(spelled) - set(found))[:5]
    return [(layer, spelled[layer]) for layer in sorted(spelled)]


def text(config, prefix, open_clip):
    projection = config["architectures"] == ["CLIPTextModelWithProjection"]
    with torch.device("meta"):
        model = (CLIPTextModelWithProjection if projection else CLIPTextModel)(CLIPTextConfig(**config))
    published = lambda name: name if name.startswith(("text_model.", "text_projection")) else f"text_model.{name}"
    wanted = {published(name): shape for name, shape in shapes_of(model).items()}
    if not open_clip:
        return record(prefix, wanted, lambda c: single.convert_ldm_clip_checkpoint(dict(c), remove_prefix=prefix), wanted)
    width, inner = config["hidden_size"], config["intermediate_size"]
    sizes = {
        "token_embedding.weight": (config["vocab_size"], width), "positional_embedding": (77, width),
        "text_projection": (width, config["projection_dim"]), "in_proj_weight": (3 * width, width), "in_proj_bias": (3 * width,),
        "out_proj.weight": (width, width), "c_fc.weight": (inner, width), "c_fc.bias": (inner,), "c_proj.weight": (width, inner),
    }
    shape = lambda name: next((size for end, size in sizes.items() if name.endswith(end)), (width,))
    shapes = {name: shape(name) for name in open_clip_names(config, projection)}
    convert = lambda c: single.convert_open_clip_checkpoint(model, dict(c), prefix=prefix)
    return record(prefix, shapes, convert, wanted)


FAMILIES = {
    "sd1": [("text_encoder", "cond_stage_model.transformer.", False)],
    "sd2": [("text_encoder", "cond_stage_model.model.", True)],
    "sdxl": [("text_encoder", "conditioner.embedders.0.transformer.", False), ("text_encoder_2", "conditioner.embedders.1.model.", True)],
}


def make(out):
    for family, encoders in FAMILIES.items():

        def config(name):
            return json.loads((PRESETS / family / f"{name}.json").read_text())

        lines = [("unet", *line) for line in unet(config("unet"))]
        adapted = kohya([line[1:] for line in lines], config("unet"), original=family == "sdxl")
        (out / f"{family}-kohya.tsv").write_text("".join("\t".join(line) + "\n" for line in adapted))
        lines += [("vae", *line) for line in vae(config("vae"))]
        for component, prefix, open_clip in encoders:
            lines += [(component, *line) for line in text(config(component), prefix, open_clip)]
        (out / f"{family}.tsv").write_text("".join("\t".join(line) + "\n" for line in lines))
    for family, network in (("sd3", mmdit), ("zimage", nextdit)):
        config = json.loads((PRESETS / family / "transformer.json").read_text())
        lines = [("transformer", *line) for line in network(config)]
        (out / f"{family}.tsv").write_text("".join("\t".join(line) + "\n" for line in lines))
    save_meta(
        out,
        "our name, stored name and change of every tensor of SD1.x, SD2.x, SDXL and of the transformers of SD3.5-medium and Z-Image in an original single-file checkpoint",
        0,
        ("torch", "diffusers", "transformers"),
        {"relative": 0},
        "names are equal or not. Nothing is random",
        precision=None,
    )


if __name__ == "__main__":
    main("original", make)
