"""Records tiny networks of Z-Image: the transformer with and without LoRA, its text encoder Qwen3, a whole run of the pipeline."""

import pathlib
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import tokenizer
import torch
import whole
from common import Draws, gradients, main, penalty, redraw, save_case, save_network, twice
from diffusers import ZImagePipeline, ZImageTransformer2DModel
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from transformers import Qwen3Config, Qwen3Model

CONFIG = dict(
    in_channels=4,
    dim=24,
    n_layers=2,
    n_refiner_layers=1,
    n_heads=2,
    n_kv_heads=2,
    cap_feat_dim=10,
    axes_dims=[4, 4, 4],
    axes_lens=[256, 32, 32],
)

# Tokens of the captions: both filled up to 32, and one to 64, which has positions of its own.
LENGTHS = (5, 32, 40)

LORA = LoraConfig(r=3, lora_alpha=6, target_modules=["to_k", "to_q", "to_v", "to_out.0", "feed_forward.w2"])


def transformer():
    seed = 1601
    return redraw(ZImageTransformer2DModel(**CONFIG), seed), seed


def inputs(seed):
    draws = Draws(seed)
    draws.normal("sample", len(LENGTHS), CONFIG["in_channels"], 6, 10)
    draws.normal("target", len(LENGTHS), CONFIG["in_channels"], 6, 10)
    for i, n in enumerate(LENGTHS):
        draws.normal(f"caption.{i}", n, CONFIG["cap_feat_dim"])
    draws.keep("timestep", torch.tensor([1000.0, 642.8571, 17.25]))
    return draws.kept


def run(model, given, dtype):
    """What the pipeline makes of the network's output: the velocity towards noise, at timesteps that count down to the image."""
    named = {k: given[k].to(dtype).requires_grad_() for k in given if k == "sample" or k.startswith("caption.")}
    captions = [v for k, v in named.items() if k != "sample"]
    time = (1000 - given["timestep"]) / 1000
    output = model(list(named["sample"].unsqueeze(2).unbind(0)), time.to(dtype), captions).sample
    output = -torch.stack(output, dim=0).squeeze(2)
    loss = penalty([(output, given["target"].to(dtype))])
    return {"output": output.detach(), "loss": loss.detach(), **gradients(loss, named, model)}


def record_transformer(root):
    case = "transformer"
    model, seed = transformer()
    given = inputs(seed + 1000)
    exact, rounded = twice(model, lambda m, dtype: run(m, given, dtype))
    save_network(root / case, model)
    what = "Z-Image: captions of several lengths, refiners, rotary embedding along three axes, an image that is not square"
    save_case(root / case, what, seed, ["diffusers"], given, exact, rounded)


def record_lora(root):
    case, seed = "transformer-lora", 1602
    model, _ = transformer()
    model.requires_grad_(False)
    model.add_adapter(LORA)
    generator = torch.Generator().manual_seed(seed)
    for _, factor in sorted((n, p) for n, p in model.named_parameters() if p.requires_grad):
        factor.data.copy_(0.5 * torch.randn(factor.shape, generator=generator) / factor[0].numel() ** 0.5)
    given = inputs(seed + 1000)
    exact, rounded = twice(model, lambda m, dtype: run(m, given, dtype))
    exact, rounded = ({k.replace(".default.", "."): v for k, v in r.items()} for r in (exact, rounded))
    metadata = model.peft_config["default"].to_dict()
    metadata["target_modules"] = sorted(metadata["target_modules"])
    (root / case).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        ZImagePipeline.save_lora_weights(
            scratch, get_peft_model_state_dict(model), transformer_lora_adapter_metadata=metadata
        )
        file = "pytorch_lora_weights.safetensors"
        (root / case / file).write_bytes((pathlib.Path(scratch) / file).read_bytes())
    what = "LoRA on attention and on a feed-forward layer of every block, refiners included"
    save_case(
        root / case, what, seed, ["diffusers", "peft"], given, exact, rounded,
        weights="zimage/transformer", rank=str(LORA.r), alpha=str(LORA.lora_alpha),
    )  # fmt: skip


def qwen3_run(model, given, dtype):
    result = model(given["input_ids"], output_hidden_states=True)
    states = result.hidden_states
    loss = penalty([(states[-2], given["target"].to(dtype)), (result.last_hidden_state, given["target"].to(dtype))])
    hidden = {f"hidden_states.{i}": v.detach() for i, v in enumerate(states)}
    return {"output": result.last_hidden_state.detach(), "loss": loss.detach(), **hidden, **gradients(loss, {}, model)}


def record_qwen3(root):
    case, seed = "qwen3", 1701
    config = Qwen3Config(
        vocab_size=99, hidden_size=16, intermediate_size=28, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, head_dim=6, rope_theta=1000000.0, tie_word_embeddings=True,
    )  # fmt: skip
    model = redraw(Qwen3Model(config), seed)
    draws = Draws(seed + 1000)
    draws.keep("input_ids", torch.randint(0, 99, (2, 21), generator=draws.generator))
    draws.normal("target", 2, 21, 16)
    exact, rounded = twice(model, lambda m, dtype: qwen3_run(m, draws.kept, dtype))
    save_network(root / case, model)
    save_case(root / case, "Qwen3: fewer heads of keys than of queries", seed, ["transformers"], draws.kept, exact, rounded)


def record(root):
    record_transformer(root)
    record_lora(root)
    record_qwen3(root)
    tokenizer.record(root)
    whole.record(root)


if __name__ == "__main__":
    main("zimage", record)
