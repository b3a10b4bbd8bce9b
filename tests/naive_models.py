"""Every model family once more, token by token in float64, straight from the formulas over the published tensors.

Slow and plain on purpose: no fused weight, no chunk, no batch, no cache. `*_logits(config, tensors, token_ids)` takes
the parsed config files, the tensors under the keys of the weight files, and the token ids of one sequence (L,); it
returns the logits (L, V). Since row t depends on the tokens up to t only, one call answers for every shorter prefix.

Glossary (letters as in the papers)
    L, t        length of the sequence; position of a token
    d           model width; u (L, d) the input of a mixer, h (L, d) the residual stream
    K           taps of the short convolution; the last tap multiplies the current token
    I           inner width of a state-space mixer, expand * d unless given
    X           width of x and B before each head is repeated I / X times (`d_xb`)
    H, P, N     state-space heads, channels of a head, size of the state that a channel has
    x, B, C     input, input map and read-out map of the recurrence; z the gate; D the skip weight
    dt, delta   step size before and after softplus; A = -exp(A_log) the decay rate; a the discrete decay's logit
    n_h, n_kv   query heads, key and value heads of attention; hd the width of one
    V           vocabulary, rounded up where the family rounds it
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

Tensors = Mapping[str, Tensor]
Config = Mapping[str, Any]

PHI_HEADS = 32
PHI_ROPE_THETA = 1e4
PHI_ROTARY_FRACTION = 0.5
MAMBA1_CONVOLVED = ("x",)
"""Which of x, B and C a Mamba-1 mixer sends through its short convolution."""


def llama_logits(config: Config, tensors: Tensors, token_ids: Tensor) -> Tensor:
    """Llama: attention in every layer."""
    return mamba_in_llama_logits(config, {"attn_layers": range(config["num_hidden_layers"])}, tensors, token_ids)


def mamba_in_llama_logits(config: Config, mamba_config: Config, tensors: Tensors, token_ids: Tensor) -> Tensor:
    """A Llama of which some layers had their attention replaced by a Mamba-1 or Mamba-2 mixer."""
    tensors = doubled(tensors)
    h = tensors["model.embed_tokens.weight"][token_ids]
    for i in range(config["num_hidden_layers"]):
        prefix, kept = f"model.layers.{i}", i in mamba_config["attn_layers"]
        eps = config["rms_norm_eps"] if kept else mamba_config["rms_norm_eps"]
        u = rms_norm(h, tensors[f"{prefix}.input_layernorm.weight"], eps)
        if kept:
            h = h + llama_attention(config, tensors, prefix, u)
        else:
            # A Mamba-1 has a decay rate for each channel and state, a Mamba-2 for each head.
            mixer = student_mamba1 if tensors[f"{prefix}.mamba.A_log"].ndim == 2 else student_mamba2
            h = h + mixer(mamba_config, tensors, f"{prefix}.mamba", u)
        u = rms_norm(h, tensors[f"{prefix}.post_attention_layernorm.weight"], eps)
        h = h + gated_mlp(tensors, f"{prefix}.mlp", u)
    h = rms_norm(h, tensors["model.norm.weight"], config["rms_norm_eps"])
    return linear(tensors, "lm_head" if "lm_head.weight" in tensors else "model.embed_tokens", h)


def llamba_logits(config: Config, tensors: Tensors, token_ids: Tensor) -> Tensor:
    """Llamba: discrete Mamba-2 and a gated MLP, one after the other."""
    tensors = doubled(tensors)
    h = tensors["backbone.embedding.weight"][token_ids]
    for i in range(config["n_layer"]):
        prefix = f"backbone.layers.{i}"
        u = rms_norm(h, tensors[f"{prefix}.input_layernorm.weight"], 1e-5)
        h = h + discrete_mamba2(config["ssm_cfg"], tensors, f"{prefix}.mixer", u)
        u = rms_norm(h, tensors[f"{prefix}.post_attention_layernorm.weight"], 1e-5)
        h = h + gated_mlp(tensors, f"{prefix}.mlp", u)
    h = rms_norm(h, tensors["backbone.final_layernorm.weight"], config.get("norm_epsilon", 1e-5))
    tied = config.get("tie_embeddings", False)
    return linear(tensors, "backbone.embedding" if tied else "lm_head", h)


def phi_mamba_logits(config: Config, tensors: Tensors, token_ids: Tensor) -> Tensor:
    """Phi-Mamba and its hybrid: mixer and MLP side by side on one LayerNorm."""
    tensors = doubled(tensors)
    blocks = [block for name, block in config.items() if name.startswith("Block")]
    layers = [block for block in blocks for _ in range(block["n_layers"])]
    h = tensors["backbone.embedding.weight"][token_ids]
    for i, block in enumerate(layers):
        prefix = f"backbone.layers.{i}"
        u = layer_norm(tensors, f"{prefix}.input_layernorm", h)
        if block["CoreType"] == "modules.mixers.phi_attention":
            mixed = phi_attention(tensors, f"{prefix}.mixer.self_attn", u)
        else:
            mixed = discrete_mamba2(block["core_input"], tensors, f"{prefix}.mixer", u)
        h = h + mixed + linear(tensors, f"{prefix}.mlp.fc2", gelu_new(linear(tensors, f"{prefix}.mlp.fc1", u)))
    return linear(tensors, "lm_head", layer_norm(tensors, "backbone.final_layernorm", h))


def mamba2_logits(config: Config, tensors: Tensors, token_ids: Tensor) -> Tensor:
    """Mamba-2 as transformers publishes it: one mixer per layer and no MLP."""
    tensors = doubled(tensors)
    h = tensors["backbone.embeddings.weight"][token_ids]
    for i in range(config["num_hidden_layers"]):
        prefix = f"backbone.layers.{i}"
        u = rms_norm(h, tensors[f"{prefix}.norm.weight"], config["layer_norm_epsilon"])
        h = h + mamba2_mixer(config, tensors, f"{prefix}.mixer", u)
    h = rms_norm(h, tensors["backbone.norm_f.weight"], config["layer_norm_epsilon"])
    return linear(tensors, "lm_head" if "lm_head.weight" in tensors else "backbone.embeddings", h)


# Mixers: (L, d) -> (L, d)


def discrete_mamba2(ssm: Config, tensors: Tensors, name: str, u: Tensor) -> Tensor:
    """Mamba-2 whose decay is a sigmoid of its own and whose input is not multiplied by a step size."""
    n_v, n_qk, N = ssm["n_v_heads"], ssm["n_qk_heads"], ssm["d_state"]
    inner = ssm.get("expand", 1) * u.shape[1]
    xBC, z, a = parts(linear(tensors, f"{name}.in_proj", u), inner + 2 * n_qk * N, inner, n_v)
    xBC = short_conv(tensors, f"{name}.conv1d", xBC)
    x, B, C = parts(silu(xBC) if ssm.get("activation") == "silu" else xBC, inner, n_qk * N, n_qk * N)
    x = x.reshape(-1, n_v, inner // n_v)
    B = repeat_chunks(B, N, n_v // n_qk).reshape(-1, n_v, N)
    C = repeat_chunks(C, N, n_v // n_qk).reshape(-1, n_v, N)
    y = recurrence(torch.sigmoid(-a), x, B, C) + tensors[f"{name}.D"][:, None] * x
    gate = silu(z + tensors[f"{name}.z_bias"]) if f"{name}.z_bias" in tensors else silu(z)
    return linear(tensors, f"{name}.out_proj", y.flatten(1) * gate)


def student_mamba1(config: Config, tensors: Tensors, name: str, u: Tensor) -> Tensor:
    """Mamba-1 whose x and B come in X / N chunks that are repeated, with C as wide as the inner width."""
    ssm = config["ssm_cfg"]
    N, X = ssm.get("d_state", 16), config["d_xb"]
    inner = config["d_inner"] or int(ssm["expand"] * u.shape[1])
    z, x, B, C, dt = mamba1_streams(tensors, name, u, inner, X)
    if ssm.get("repeat_kv_before_conv", True):
        x = repeat_chunks(x, N, inner // X)
    streams = {"x": x, "B": repeat_chunks(B, N, inner // X), "C": C}
    for letter in MAMBA1_CONVOLVED:
        streams[letter] = silu(short_conv(tensors, f"{name}.conv1d", streams[letter]))
    x, B, C = streams.values()
    if not ssm.get("repeat_kv_before_conv", True):
        x = repeat_chunks(x, N, inner // X)
    # dt_proj has added its bias once already: the checkpoints were trained with it counted twice.
    delta = softplus(linear(tensors, f"{name}.dt_proj", dt) + tensors[f"{name}.dt_proj.bias"])
    A = -torch.exp(tensors[f"{name}.A_log"])
    group = torch.arange(inner) // N
    state, outputs = torch.zeros(inner, N).double(), []
    for t in range(len(u)):
        B_t, C_t = B[t].reshape(-1, N)[group], C[t].reshape(-1, N)[group]
        state = torch.exp(delta[t, :, None] * A) * state + (delta[t] * x[t])[:, None] * B_t
        outputs.append((state * C_t).sum(1) + tensors[f"{name}.D"] * x[t])
    return linear(tensors, f"{name}.out_proj", torch.stack(outputs) * silu(z))


def mamba1_streams(tensors: Tensors, name: str, u: Tensor, inner: int, X: int) -> tuple[Tensor, ...]:
    """z, x, B, C and the low-rank dt, from one fused projection or from five."""
    if f"{name}.in_proj.weight" in tensors:
        fused = linear(tensors, f"{name}.in_proj", u)
        return parts(fused, inner, X, X, inner, fused.shape[1] - 2 * inner - 2 * X)
    return tuple(
        linear(tensors, f"{name}.{part}", u) for part in ("in_proj_z", "in_proj_x", "B_proj", "C_proj", "dt_proj_down")
    )


def student_mamba2(config: Config, tensors: Tensors, name: str, u: Tensor) -> Tensor:
    """Mamba-2 with a group for each head, square states, and x and B repeated after the convolution."""
    ssm = config["ssm_cfg"]
    H, N, X = ssm["ngroups"], ssm["d_state"], config["d_xb"]
    inner = config["d_inner"] or int(ssm["expand"] * u.shape[1])
    z, xBC, dt = parts(linear(tensors, f"{name}.in_proj", u), inner, 2 * X + inner, H)
    x, B, C = parts(silu(short_conv(tensors, f"{name}.conv1d", xBC)), X, X, inner)
    x, B = repeat_chunks(x, N, inner // X), repeat_chunks(B, N, inner // X)
    delta = softplus(dt + tensors[f"{name}.dt_bias"])
    y = mamba2_scan(tensors, name, x.reshape(-1, H, N), B.reshape(-1, H, N), C.reshape(-1, H, N), delta)
    y = grouped_rms_norm(y * silu(z), tensors[f"{name}.norm.weight"], 1e-5, groups=H)
    return linear(tensors, f"{name}.out_proj", y)


def mamba2_mixer(config: Config, tensors: Tensors, name: str, u: Tensor) -> Tensor:
    """Mamba-2 with `n_groups` groups, each the B and C of consecutive heads."""
    H, N, G = config["num_heads"], config["state_size"], config["n_groups"]
    inner = H * config["head_dim"]
    z, xBC, dt = parts(linear(tensors, f"{name}.in_proj", u), inner, inner + 2 * G * N, H)
    x, B, C = parts(silu(short_conv(tensors, f"{name}.conv1d", xBC)), inner, G * N, G * N)
    B, C = (repeat_chunks(each, N, H // G).reshape(-1, H, N) for each in (B, C))
    delta = softplus(dt + tensors[f"{name}.dt_bias"]).clamp(*config["time_step_limit"])
    y = mamba2_scan(tensors, name, x.reshape(-1, H, inner // H), B, C, delta)
    y = grouped_rms_norm(y * silu(z), tensors[f"{name}.norm.weight"], config["layer_norm_epsilon"], groups=G)
    return linear(tensors, f"{name}.out_proj", y)


def mamba2_scan(tensors: Tensors, name: str, x: Tensor, B: Tensor, C: Tensor, delta: Tensor) -> Tensor:
    """The recurrence with its step sizes delta (L, H), and the skip: (L, H * P)."""
    decay = torch.exp(-delta * torch.exp(tensors[f"{name}.A_log"]))
    y = recurrence(decay, delta[:, :, None] * x, B, C) + tensors[f"{name}.D"][:, None] * x
    return y.flatten(1)


def recurrence(decay: Tensor, x: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """h = decay h + x B^T, y = h C: decay (L, H), x (L, H, P), B and C (L, H, N) -> y (L, H, P)."""
    state, outputs = torch.zeros(*x.shape[1:], B.shape[2]).double(), []
    for t in range(len(x)):
        state = decay[t, :, None, None] * state + x[t, :, :, None] * B[t, :, None, :]
        outputs.append((state * C[t, :, None, :]).sum(2))
    return torch.stack(outputs)


def llama_attention(config: Config, tensors: Tensors, prefix: str, u: Tensor) -> Tensor:
    """Grouped-query attention, from separate projections or from a fused one that was trained without RoPE scaling."""
    n_h, n_kv = config["num_attention_heads"], config["num_key_value_heads"]
    hd = config.get("head_dim") or config["hidden_size"] // n_h
    fused = f"{prefix}.mha.in_proj.weight" in tensors
    if fused:
        q, k, v = parts(linear(tensors, f"{prefix}.mha.in_proj", u), n_h * hd, n_kv * hd, n_kv * hd)
    else:
        q, k, v = (linear(tensors, f"{prefix}.self_attn.{part}_proj", u) for part in "qkv")
    frequencies = rope_frequencies(config, hd, scaled=not fused)
    y = attention(q.reshape(-1, n_h, hd), k.reshape(-1, n_kv, hd), v.reshape(-1, n_kv, hd), frequencies)
    return linear(tensors, f"{prefix}.mha.out_proj" if fused else f"{prefix}.self_attn.o_proj", y)


def phi_attention(tensors: Tensors, name: str, u: Tensor) -> Tensor:
    """Multi-head attention with biases that rotates the first half of each head."""
    q, k, v = (linear(tensors, f"{name}.{part}_proj", u).reshape(len(u), PHI_HEADS, -1) for part in "qkv")
    frequencies = double(powers(PHI_ROPE_THETA, int(PHI_ROTARY_FRACTION * q.shape[2])))
    return linear(tensors, f"{name}.dense", attention(q, k, v, frequencies))


def attention(q: Tensor, k: Tensor, v: Tensor, frequencies: Tensor) -> Tensor:
    """Causal softmax attention: q (L, n_h, hd), k and v (L, n_kv, hd) -> (L, n_h * hd)."""
    n_h, n_kv, hd = q.shape[1], k.shape[1], q.shape[2]
    head_of = torch.arange(n_h) // (n_h // n_kv)
    keys = torch.stack([rotate(k[t], t, frequencies) for t in range(len(k))])[:, head_of]
    values, outputs = v[:, head_of], []
    for t in range(len(q)):
        scores = (keys[: t + 1] * rotate(q[t], t, frequencies)).sum(2) / math.sqrt(hd)
        outputs.append((torch.softmax(scores, dim=0)[:, :, None] * values[: t + 1]).sum(0).flatten())
    return torch.stack(outputs)


def rotate(heads: Tensor, position: int, frequencies: Tensor) -> Tensor:
    """Turn channel i with channel i + n, for n frequencies; channels past 2 n stay: heads (heads, hd)."""
    n = len(frequencies)
    cos, sin = torch.cos(position * frequencies), torch.sin(position * frequencies)
    first, second, rest = heads[:, :n], heads[:, n : 2 * n], heads[:, 2 * n :]
    return torch.cat([first * cos - second * sin, second * cos + first * sin, rest], dim=1)


def rope_frequencies(config: Config, hd: int, scaled: bool = True) -> Tensor:
    """Radians per position (hd / 2,), from either spelling of the config, slowed by the llama3 rule if it says so."""
    new = config.get("rope_parameters") or {}
    rule = new or config.get("rope_scaling") or {}
    theta = new["rope_theta"] if new else config["rope_theta"]
    if not scaled or rule.get("rope_type", "default") == "default":
        return double(powers(theta, hd))
    return double([llama3_frequency(rule, frequency) for frequency in powers(theta, hd)])


def llama3_frequency(rule: Config, frequency: float) -> float:
    """Waves that fit the original context often enough stay, long ones slow down by `factor`, between: a blend."""
    turns = rule["original_max_position_embeddings"] * frequency / (2 * math.pi)
    low, high = rule["low_freq_factor"], rule["high_freq_factor"]
    share: float = min(max((turns - low) / (high - low), 0.0), 1.0)
    return frequency * (share + (1 - share) / float(rule["factor"]))


def powers(theta: float, channels: int) -> list[float]:
    return [theta ** (-2 * i / channels) for i in range(channels // 2)]


# Parts


def doubled(tensors: Tensors) -> Tensors:
    return {key: tensor.double() for key, tensor in tensors.items()}


def double(numbers: list[float]) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def parts(x: Tensor, *widths: int) -> tuple[Tensor, ...]:
    return torch.split(x, list(widths), dim=1)


def linear(tensors: Tensors, name: str, x: Tensor) -> Tensor:
    y = x @ tensors[f"{name}.weight"].T
    return y + tensors[f"{name}.bias"] if f"{name}.bias" in tensors else y


def short_conv(tensors: Tensors, name: str, x: Tensor) -> Tensor:
    """Causal convolution of each channel by itself: x (L, channels), weight (channels, 1, K)."""
    taps, bias = tensors[f"{name}.weight"][:, 0], tensors.get(f"{name}.bias")
    K = taps.shape[1]
    y = torch.zeros_like(x) if bias is None else bias.repeat(len(x), 1)
    for t in range(len(x)):
        for back in range(min(K, t + 1)):
            y[t] = y[t] + taps[:, K - 1 - back] * x[t - back]
    return y


def repeat_chunks(x: Tensor, width: int, times: int) -> Tensor:
    """Each chunk of `width` channels `times` times in a row: (L, channels) -> (L, channels * times)."""
    return torch.cat([chunk for chunk in torch.split(x, width, dim=1) for _ in range(times)], dim=1)


def gated_mlp(tensors: Tensors, name: str, x: Tensor) -> Tensor:
    gate, up = linear(tensors, f"{name}.gate_proj", x), linear(tensors, f"{name}.up_proj", x)
    return linear(tensors, f"{name}.down_proj", silu(gate) * up)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return x / torch.sqrt((x**2).mean(1, keepdim=True) + eps) * weight


def grouped_rms_norm(x: Tensor, weight: Tensor, eps: float, groups: int) -> Tensor:
    """Each of `groups` runs of channels has its own root mean square."""
    size = x.shape[1] // groups
    ones = torch.ones(size).double()
    return torch.cat([rms_norm(part, ones, eps) for part in torch.split(x, size, dim=1)], dim=1) * weight


def layer_norm(tensors: Tensors, name: str, x: Tensor) -> Tensor:
    centred = x - x.mean(1, keepdim=True)
    return rms_norm(centred, tensors[f"{name}.weight"], 1e-5) + tensors[f"{name}.bias"]


def softplus(x: Tensor) -> Tensor:
    return torch.log1p(torch.exp(-x.abs())) + x.clamp(min=0)


def silu(x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-x))


def gelu_new(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
