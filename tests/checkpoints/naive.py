"""The published computation a second time, as plainly as it can be written: the reference of cases that we make up.

Nothing of the package is used. transformers' own Qwen2.5-VL reads left-padded batches under a mask, its attention
output set to zero at pads, with peft's adapters in it: in float32, because with the golden adapters its 36 random
layers make a thousand of a rounding, and so computed it equals the golden states to the last bit. The bridge and the
diffusion transformer are written out over the stored tensors in float64, one sample at a time, over all rows.
"""

import json
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler
from peft import LoraConfig, inject_adapter_in_model
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

FUSED = (35, 29, 23, 17, 11, 5)
MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)


def norm(x, eps=1e-6):
    return F.layer_norm(x, x.shape[-1:], eps=eps)


def attend(query, key, value, heads):
    """Softmax attention over all rows: [L, D] each, of the keys one more length."""
    query, key, value = (x.unflatten(-1, (heads, -1)).transpose(0, 1) for x in (query, key, value))
    weights = (query @ key.transpose(1, 2) / math.sqrt(query.shape[-1])).softmax(-1)
    return (weights @ value).transpose(0, 1).flatten(1)


class Naive:
    """The model of a folder in the published diffusers layout; `lora`: native adapters of rank 4 and alpha 8."""

    def __init__(self, folder: Path, lora: dict | None = None, shift: float = 3.0) -> None:
        self.vlm = self._vlm(folder / "vlm", lora)
        self.vae = AutoencoderKL.from_pretrained(folder / "vae").double()
        self.bridge = {
            n: v.double() for n, v in load_file(folder / "connector" / "model.safetensors").items()
        }
        file = folder / "transformer" / "diffusion_pytorch_model.safetensors"
        self.dit = {n: v.double() for n, v in load_file(file).items()}
        self.config = json.loads((folder / "transformer" / "config.json").read_text())
        self.tokenizer = Tokenizer.from_file(str(folder / "vlm" / "tokenizer.json"))
        self.shift = shift

    @staticmethod
    def _vlm(folder, lora):
        config = Qwen2_5_VLConfig.from_pretrained(folder, attn_implementation="sdpa")
        model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, config=config).eval()
        if lora is not None:
            targets = {n.removeprefix("lmm.").rpartition(".lora_")[0] for n in lora}
            settings = LoraConfig(r=4, lora_alpha=8, target_modules=sorted(targets))
            inject_adapter_in_model(settings, model, adapter_name="default")
            own = model.state_dict()
            named = {n.removeprefix("lmm."): v for n, v in lora.items()}
            assert set(named) <= set(own) and len(named) == 2 * len(targets)
            model.load_state_dict(named, strict=False)
        return model.model

    def ids(self, text, references):
        pictures = "".join(
            "<|vision_start|>" + "<|image_pad|>" * (p.shape[1] // 32 * (p.shape[2] // 32)) + "<|vision_end|>"
            for p in references
        )
        user = f"{pictures}\n{text}" if references else f"Generate an image: {text}"
        prompt = f"<|im_start|>user\n{user}<|im_end|>\n<|im_start|>assistant\n"
        return self.tokenizer.encode(prompt, add_special_tokens=False).ids

    def seen(self, picture):
        """Embeddings [n, D] of a picture [3, H, W] in [-1, 1], its patches in transformers' order."""
        small = F.interpolate(picture[None], scale_factor=28 / 32, mode="bilinear", align_corners=False)
        small = ((small[0] + 1) / 2 - MEAN) / STD
        rows, columns = small.shape[1] // 14, small.shape[2] // 14
        x = small.view(3, rows // 2, 2, 14, columns // 2, 2, 14).permute(1, 4, 2, 5, 0, 3, 6)
        x = x.reshape(rows * columns, 3, 1, 14, 14).expand(-1, -1, 2, -1, -1).reshape(rows * columns, -1)
        grid = torch.tensor([[1, rows, columns]])
        return self.vlm.visual(x, grid_thw=grid).pooler_output, grid

    def fused(self, texts, references, queries):
        """Six states of all texts, left-padded together, joined: [B, L + Q, 6 D]."""
        rows = [self.ids(t, r) for t, r in zip(texts, references, strict=True)]
        size = max(map(len, rows))
        pad = self.tokenizer.token_to_id("<|endoftext|>")
        ids = torch.tensor([[pad] * (size - len(row)) + row for row in rows])
        ids = F.pad(ids, (0, len(queries)))
        real = torch.tensor([[0] * (size - len(row)) + [1] * len(row) for row in rows])
        real = F.pad(real, (0, len(queries)), value=1)
        embeds = self.vlm.get_input_embeddings()(ids)
        embeds = torch.cat([embeds[:, :size], queries.float().expand(len(rows), -1, -1)], dim=1)
        pictures = [self.seen(p) for row in references for p in row]
        is_picture = (ids == self.tokenizer.token_to_id("<|image_pad|>")) & (real > 0)
        grids = None
        if pictures:
            embeds = embeds.masked_scatter(is_picture[..., None], torch.cat([p for p, _ in pictures]))
            grids = torch.cat([grid for _, grid in pictures])
        positions, _ = self.vlm.get_rope_index(
            ids, mm_token_type_ids=is_picture.int(), image_grid_thw=grids, attention_mask=real
        )
        return self._decoded(embeds, positions, real)

    def _decoded(self, embeds, positions, real):
        text = self.vlm.language_model
        causal = torch.ones(embeds.shape[1], embeds.shape[1]).tril().bool()
        mask = causal[None, None] & (real[:, None, None, :] > 0)
        mask = torch.zeros(mask.shape).masked_fill(~mask, torch.finfo(torch.float32).min)
        rotary = text.rotary_emb(embeds, positions)
        # FlashAttention gives pads no attention output at all; the softmax of a masked row would be uniform.
        keep = real[..., None].float()
        zero = [
            layer.self_attn.register_forward_hook(lambda m, i, o: (o[0] * keep, *o[1:]))
            for layer in text.layers
        ]
        states, hidden = {0: embeds}, embeds
        for index, layer in enumerate(text.layers, start=1):
            hidden = layer(hidden, attention_mask=mask, position_embeddings=rotary)
            states[index] = hidden
        for handle in zero:
            handle.remove()
        return torch.cat([states[index] for index in FUSED], dim=-1).double()

    def conditioned(self, fused):
        """(sequence [L, Dc], pooled [Dp]) of one sample [L, 6 D], pads and all."""
        w = self.bridge

        def linear(x, name):
            return F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])

        x = linear(fused, "projector_1")
        depth = 1 + max(int(n.split(".")[2]) for n in w if n.startswith("connector.layers."))
        for index in range(depth):
            at = f"connector.layers.{index}"

            def normed(x, name, at=at):
                return F.layer_norm(
                    x, x.shape[-1:], w[f"{at}.{name}.weight"], w[f"{at}.{name}.bias"], eps=1e-6
                )

            y = normed(x, "layer_norm1")
            q, k, v = (linear(y, f"{at}.self_attn.{p}_proj") for p in "qkv")
            heads = x.shape[-1] // self.config["attention_head_dim"]
            x = x + linear(attend(q, k, v, heads), f"{at}.self_attn.out_proj")
            y = F.gelu(linear(normed(x, "layer_norm2"), f"{at}.mlp.fc1"), approximate="tanh")
            x = x + linear(y, f"{at}.mlp.fc2")
        return linear(x, "projector_3"), linear(x.mean(0), "projector_2")

    def velocity(self, target, time, references, context, pooled):
        """Velocity [C, h, w] of one sample; context [T, Dc] and pooled [Dp]."""
        w, heads = self.dit, self.config["num_attention_heads"]

        def linear(x, name):
            return F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])

        def patches(z):
            rows, columns = z.shape[1] // 2, z.shape[2] // 2
            tokens = F.conv2d(z[None], w["pos_embed.proj.weight"], w["pos_embed.proj.bias"], stride=2)
            side = self.config["pos_embed_max_size"]
            table = w["pos_embed.pos_embed"].view(side, side, -1)
            top, left = (side - rows) // 2, (side - columns) // 2
            table = table[top : top + rows, left : left + columns].flatten(0, 1)
            return tokens[0].flatten(1).T + table

        angles = time.double() * torch.exp(-math.log(10000) * torch.arange(128, dtype=torch.float64) / 128)
        wave = torch.cat([angles.cos(), angles.sin()])
        embedded = [
            linear(
                F.silu(linear(value, f"time_text_embed.{name}.linear_1")), f"time_text_embed.{name}.linear_2"
            )
            for value, name in ((wave, "timestep_embedder"), (pooled, "text_embedder"))
        ]
        signal = F.silu(embedded[0] + embedded[1])
        x = torch.cat([patches(z) for z in (target, *references)])
        c = linear(context, "context_embedder")
        for index in range(self.config["num_layers"]):
            x, c = self._block(f"transformer_blocks.{index}", x, c, signal, linear, heads)
        scale, move = linear(signal, "norm_out.linear").chunk(2)
        rows, columns = target.shape[1] // 2, target.shape[2] // 2
        x = linear(norm(x) * (1 + scale) + move, "proj_out")[: rows * columns]
        return x.view(rows, columns, 2, 2, -1).permute(4, 0, 2, 1, 3).reshape(target.shape)

    def _block(self, at, x, c, signal, linear, heads):
        w = self.dit
        last, dual = f"{at}.attn.to_add_out.weight" not in w, f"{at}.attn2.to_q.weight" in w

        def rms(y, name):
            y = y.unflatten(-1, (heads, -1))
            return (
                y * (y.square().mean(-1, keepdim=True) + 1e-6).rsqrt() * w[f"{at}.{name}.weight"]
            ).flatten(1)

        image = linear(signal, f"{at}.norm1.linear").chunk(9 if dual else 6)
        words = linear(signal, f"{at}.norm1_context.linear").chunk(2 if last else 6)
        y = norm(x) * (1 + image[1]) + image[0]
        z = norm(c) * (1 + words[0]) + words[1] if last else norm(c) * (1 + words[1]) + words[0]
        query = torch.cat(
            [
                rms(linear(y, f"{at}.attn.to_q"), "attn.norm_q"),
                rms(linear(z, f"{at}.attn.add_q_proj"), "attn.norm_added_q"),
            ]
        )
        key = torch.cat(
            [
                rms(linear(y, f"{at}.attn.to_k"), "attn.norm_k"),
                rms(linear(z, f"{at}.attn.add_k_proj"), "attn.norm_added_k"),
            ]
        )
        value = torch.cat([linear(y, f"{at}.attn.to_v"), linear(z, f"{at}.attn.add_v_proj")])
        joint = attend(query, key, value, heads)
        new = x + image[2] * linear(joint[: len(x)], f"{at}.attn.to_out.0")
        if dual:
            y = norm(x) * (1 + image[7]) + image[6]
            own = attend(
                rms(linear(y, f"{at}.attn2.to_q"), "attn2.norm_q"),
                rms(linear(y, f"{at}.attn2.to_k"), "attn2.norm_k"),
                linear(y, f"{at}.attn2.to_v"),
                heads,
            )
            new = new + image[8] * linear(own, f"{at}.attn2.to_out.0")

        def fed(y, name):
            return linear(
                F.gelu(linear(y, f"{at}.{name}.net.0.proj"), approximate="tanh"), f"{at}.{name}.net.2"
            )

        result = new + image[5] * fed(norm(new) * (1 + image[4]) + image[3], "ff")
        if last:
            return result, c
        c = c + words[2] * linear(joint[len(x) :], f"{at}.attn.to_add_out")
        return result, c + words[5] * fed(norm(c) * (1 + words[4]) + words[3], "ff_context")

    def encoded(self, pixels):
        z = self.vae.encode(pixels[None].double()).latent_dist.mode()[0]
        return (z - self.vae.config.shift_factor) * self.vae.config.scaling_factor

    def decoded(self, z):
        return self.vae.decode(
            (z / self.vae.config.scaling_factor + self.vae.config.shift_factor)[None]
        ).sample[0]

    @torch.no_grad()
    def sample(self, prompts, negatives, references, noise, steps, scale):
        """All that a case of kind `sample` expects; pads are those of the whole batch."""
        count = len(prompts)
        fused = self.fused([*prompts, *negatives], [*references, *references], self.bridge["meta_queries"])
        conditions = [self.conditioned(row) for row in fused]
        clean = [[self.encoded(p) for p in row] for row in references]
        schedule = FlowMatchEulerDiscreteScheduler(shift=self.shift)
        schedule.set_timesteps(steps)
        first, finished = [], []
        for i, z in enumerate(noise):
            z = z.double()
            for step in range(steps):
                time = schedule.timesteps[step]
                v = self.velocity(z, time, clean[i], *conditions[i])
                if scale > 1:
                    away = self.velocity(z, time, clean[i], *conditions[i + count])
                if step == 0:
                    first.append((away, v) if scale > 1 else (v,))
                v = away + scale * (v - away) if scale > 1 else v
                z = z + (schedule.sigmas[step + 1] - schedule.sigmas[step]).double() * v
            finished.append(z)
        return {
            "stacked_hidden": fused,
            "sequence": torch.stack([c for c, _ in conditions]),
            "pooled": torch.stack([p for _, p in conditions]),
            "first_velocity": torch.stack([v for side in zip(*first, strict=True) for v in side]),
            "final_latents": torch.stack(finished),
            "pixels": torch.stack([self.decoded(z) for z in finished]),
        }

    def loss(self, prompts, references, targets, noise, uniform, wanted):
        """(loss, gradients by native name) of one training step."""
        named = {n: w for n, w in self.bridge.items()} | {f"transformer.{n}": w for n, w in self.dit.items()}
        for name in wanted:
            named[name].requires_grad_(True)
        fused = self.fused(prompts, references, self.bridge["meta_queries"])
        terms = []
        for i, target in enumerate(targets):
            base = (1000 - int(uniform[i] * 1000)) / 1000  # the product is fp32's, as published
            sigma = self.shift * base / (1 + (self.shift - 1) * base)
            with torch.no_grad():
                clean, refs = self.encoded(target), [self.encoded(p) for p in references[i]]
            at = (1 - sigma) * clean + sigma * noise[i].double()
            v = self.velocity(at, torch.tensor(1000 * sigma), refs, *self.conditioned(fused[i]))
            terms.append((v - (noise[i].double() - clean)).square().mean())
        loss = torch.stack(terms).mean()
        gradients = torch.autograd.grad(loss, [named[name] for name in wanted])
        for name in wanted:
            named[name].requires_grad_(False)
        return loss.detach(), dict(zip(wanted, gradients, strict=True))
