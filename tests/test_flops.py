import pytest
import tiny
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM, MixtralConfig, MixtralForCausalLM

from harness.models.flops import ForwardFlops, count_flops


def counted(call: object) -> dict[str, int]:
    """What PyTorch's operation counter sees of a call, by operation."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        call()  # type: ignore[operator]
    return {str(operation): flops for operation, flops in counter.get_flop_counts()["Global"].items()}


@pytest.mark.parametrize("tied", [True, False])
def test_a_llamas_prefill_and_decode_match_the_operation_counter(tied: bool) -> None:
    model = tiny.llama(tie_word_embeddings=tied)
    model.set_attn_implementation("eager")
    flops, tokens = count_flops(model), 11
    layers, heads, head_dim = 2, 4, 8
    ids = torch.arange(3, 3 + tokens)[None]
    cache = DynamicCache(config=model.config)
    seen = counted(lambda: model(input_ids=ids, past_key_values=cache, logits_to_keep=1))
    # The counter sees full T x T products where causal attention needs T (T + 1) / 2 pairs.
    full, causal = 4 * tokens**2, 2 * tokens * (tokens + 1)
    assert sum(seen.values()) == flops.prefill(tokens) + layers * heads * head_dim * (full - causal)
    step = counted(lambda: model(input_ids=ids[:, :1], past_key_values=cache, logits_to_keep=1))
    assert sum(step.values()) == flops.decode(1, tokens + 1)


def test_mamba2s_matrix_products_match_the_operation_counter() -> None:
    model, tokens = tiny.mamba2(), 11
    flops = count_flops(model)
    seen = counted(lambda: model(input_ids=torch.arange(3, 3 + tokens)[None], logits_to_keep=1))
    products = seen["aten.mm"] + seen.get("aten.addmm", 0)
    assert flops.attention == 0
    assert products == flops.prefill(tokens) - flops.scan * tokens
    heads, head_dim, state, taps, layers = 8, 8, 16, 4, 2
    channels = heads * head_dim + 2 * state
    update, read, skip = 3 * heads * head_dim * state, 2 * heads * head_dim * state, 2 * heads * head_dim
    assert flops.scan == layers * (update + read + skip + 2 * taps * channels)


def test_a_mixture_counts_the_experts_that_a_token_visits() -> None:
    config = MixtralConfig(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        num_local_experts=5,
        num_experts_per_tok=2,
    )
    with torch.device("meta"):
        model = MixtralForCausalLM(config)
    attention = 16 * 16 * 2 + 16 * 8 * 2
    expert = 3 * 16 * 24
    assert count_flops(model).body == 2 * (attention + 2 * expert)


@pytest.mark.parametrize(
    ("shape", "gflop_per_token"),
    [
        ({"hidden_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 32, "intermediate_size": 8192}, 2.74),
        ({"hidden_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 24, "intermediate_size": 8192}, 7.13),
    ],
    ids=["Llama-3.2-1B", "Llama-3.2-3B"],
)
def test_llama_3_2_costs_what_its_shape_says(shape: dict[str, int], gflop_per_token: float) -> None:
    with torch.device("meta"):
        model = LlamaForCausalLM(
            LlamaConfig(vocab_size=128256, num_key_value_heads=8, tie_word_embeddings=True, **shape)
        )
    assert count_flops(model).decode(1, 2048) / 1e9 == pytest.approx(gflop_per_token, abs=0.005)


def test_a_rows_passes_add_up() -> None:
    flops = ForwardFlops(body=1000, head=300, attention=64, scan=7)
    one_by_one = sum(flops.decode(1, 20 + number) for number in range(1, 6))
    assert flops.decode_row(20, 5) == one_by_one == 5 * (2 * 1300 + 7) + 4 * 64 * (21 + 22 + 23 + 24 + 25)
    assert flops.decode_row(20, 0) == 0
