"""The formats of published reward models: tiny random checkpoints of each, scored by us and by a plain forward pass."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import END, PAD, START, VOCAB, llama, make_tokenizer
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2ForSequenceClassification,
    Qwen2ForTokenClassification,
)

from harness.errors import UserError
from harness.models.reward_models.reading import TrainedRewardModel
from harness.models.reward_models.reward import reward
from harness.nouns import Message

QUESTION = "What is 2 + 2 + 3?"
CHAT = (Message("user", QUESTION),)
STEPS = ["First, 2 + 2 = 4.", "Then 4 + 3 = 7 — sieben.", "The answer is 7."]
REPLY = "\n\n".join(STEPS)
TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] | trim }}<end>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
TAG_ID, EXTRA_ID = VOCAB, VOCAB + 1
SIZE = VOCAB + 2


def tokenizer(chat: bool, adds_start: bool = False) -> PreTrainedTokenizerFast:
    """A token per byte, one for Math-Shepherd's tag and one for Qwen's separator."""
    made = make_tokenizer(TEMPLATE if chat else None, adds_start=adds_start)
    made.add_tokens(["ки"])
    made.add_tokens(["<extra_0>"], special_tokens=True)
    assert (made.convert_tokens_to_ids("ки"), made.convert_tokens_to_ids("<extra_0>")) == (TAG_ID, EXTRA_ID)
    return made


def settings(**changes: Any) -> dict[str, Any]:
    return {
        "vocab_size": SIZE, "hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 48,
        "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": False,
        "max_position_embeddings": 512, "initializer_range": 0.3, "pad_token_id": PAD, "eos_token_id": END,
        "bos_token_id": START, "rope_theta": 5000.0,
    } | changes  # fmt: skip


def qwen2(model_class: Any = Qwen2ForCausalLM, **changes: Any) -> Any:
    torch.manual_seed(0)
    model = model_class(Qwen2Config(**settings(**changes))).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def write(
    folder: Path, model: Any, words: PreTrainedTokenizerFast, extra: dict[str, Tensor] | None = None,
    drop: str = "nothing", as_bin: bool = False, **config: Any,
) -> str:  # fmt: skip
    """A checkpoint with changes to its weights and its config, as their authors publish it."""
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    path = folder / "model.safetensors"
    weights = {key: one.clone() for key, one in load_file(path).items() if not key.startswith(drop)} | (extra or {})
    if as_bin:
        path.unlink()
        torch.save(weights, folder / "pytorch_model.bin")
    else:
        save_file(weights, path, {"format": "pt"})
    stored = json.loads((folder / "config.json").read_text()) | config
    # The field's spelling in files from before transformers 5.
    stored |= {"rope_theta": stored.pop("rope_parameters", {}).get("rope_theta", 10000.0)}
    (folder / "config.json").write_text(json.dumps({key: one for key, one in stored.items() if one is not None}))
    return str(folder)


def ids_of(words: PreTrainedTokenizerFast, text: str) -> list[int]:
    found: list[int] = words(text, add_special_tokens=False)["input_ids"]
    return found


def hidden(model: Any, ids: list[int]) -> Tensor:
    """Hidden states (L, 32) after the last norm."""
    with torch.no_grad():
        states: Tensor = model.model(input_ids=torch.tensor([ids])).last_hidden_state[0]
    return states


def chat_text(*turns: tuple[str, str]) -> str:
    """What the template above writes, by hand."""
    return "".join(f"<{role}>{content}<end>" for role, content in turns)


# What each format's authors do, step by step with one forward pass per score where theirs has one. Each function
# returns a checkpoint's folder and a plain scorer of (question, steps).
Plain = Callable[[str, list[str]], list[float]]
GENERATOR = torch.Generator().manual_seed(5)


def make_turns(folder: Path, **_: Any) -> tuple[str, Plain]:
    """RLHFlow/Llama3.1-8B-PRM-Deepseek-Data."""
    model = llama(vocab_size=SIZE, tie_word_embeddings=False, max_position_embeddings=512)
    words = tokenizer(chat=True)
    name = write(folder / "Llama3.1-8B-PRM-Deepseek-Data", model, words)
    plus, minus = ids_of(words, "+")[-1], ids_of(words, "-")[-1]

    def plain(question: str, steps: list[str]) -> list[float]:
        scores = []
        for number in range(1, len(steps) + 1):
            dialogue = []
            for place, step in enumerate(steps[:number]):
                dialogue += [("user", f"{question} {step}" if place == 0 else step), ("assistant", "+")]
            text = chat_text(*dialogue)
            ids = ids_of(words, text)
            closing = len(ids_of(words, "+<end>"))
            assert ids[-closing] == plus
            with torch.no_grad():
                logits = model(torch.tensor([ids])).logits[0, -closing - 1]
            scores.append(float(logits[[plus, minus]].softmax(-1)[0]))
        return scores

    return name, plain


def make_tags(folder: Path, **_: Any) -> tuple[str, Plain]:
    """peiyi9979/math-shepherd-mistral-7b-prm."""
    torch.manual_seed(0)
    model = MistralForCausalLM(MistralConfig(**settings(sliding_window=None))).eval()
    words = tokenizer(chat=False, adds_start=True)
    name = write(folder / "math-shepherd-mistral-7b-prm", model, words)

    def plain(question: str, steps: list[str]) -> list[float]:
        text = f"{question} " + "\n".join(f"{step} ки" for step in steps)
        ids = words(text)["input_ids"]
        assert ids[0] == START
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0]
        pair = logits[:, [ids_of(words, "+")[0], ids_of(words, "-")[0]]].softmax(-1)[:, 0]
        return [float(pair[place]) for place, token in enumerate(ids) if token == TAG_ID]

    return name, plain


def make_separators(folder: Path, **_: Any) -> tuple[str, Plain]:
    """Qwen/Qwen2.5-Math-PRM-7B."""
    model, words = qwen2(), tokenizer(chat=True)
    head = {
        "score.0.weight": torch.randn(32, 32, generator=GENERATOR) * 0.3,
        "score.0.bias": torch.randn(32, generator=GENERATOR),
        "score.2.weight": torch.randn(2, 32, generator=GENERATOR) * 0.3,
        "score.2.bias": torch.randn(2, generator=GENERATOR),
    }
    remote = {"AutoModel": "modeling_qwen2_rm.Qwen2ForProcessRewardModel"}
    architectures = ["Qwen2ForProcessRewardModel"]
    name = write(folder / "prm", model, words, head, architectures=architectures, auto_map=remote)

    def plain(question: str, steps: list[str]) -> list[float]:
        system = "Please reason step by step, and put your final answer within \\boxed{}."
        reply = "<extra_0>".join(steps) + "<extra_0>"
        ids = ids_of(words, chat_text(("system", system), ("user", question), ("assistant", reply)))
        h = hidden(model, ids) @ head["score.0.weight"].T + head["score.0.bias"]
        logits = h.clamp(min=0) @ head["score.2.weight"].T + head["score.2.bias"]
        return [float(logits[place].softmax(-1)[1]) for place, token in enumerate(ids) if token == EXTRA_ID]

    return name, plain


def make_values(folder: Path, separator: str = "\n\n") -> tuple[str, Plain]:
    """Skywork/Skywork-o1-Open-PRM-Qwen-2.5-1.5B, whose weights are a .bin; its separator is a single newline."""
    model, words = qwen2(tie_word_embeddings=True), tokenizer(chat=True)
    head = {
        "v_head.summary.weight": torch.randn(1, 32, generator=GENERATOR) * 0.3,
        "v_head.summary.bias": torch.randn(1, generator=GENERATOR),
    }
    name = write(folder / "o1", model, words, head, as_bin=True, architectures=["Qwen2ForPrmModel"])

    def plain(question: str, steps: list[str]) -> list[float]:
        ids, ends = ids_of(words, f"<start>{question}\n"), []
        for step in steps:
            ids += [*ids_of(words, step), ids_of(words, separator)[-1]]
            ends.append(len(ids) - 1)
        values = hidden(model, ids) @ head["v_head.summary.weight"].T + head["v_head.summary.bias"]
        return [float(torch.sigmoid(values[end, 0])) for end in ends]

    return name, plain


def make_classes(folder: Path, separator: str = "\n\n") -> tuple[str, Plain]:
    """What TRL's PRMTrainer makes."""
    model, words = qwen2(Qwen2ForTokenClassification, num_labels=2), tokenizer(chat=True)
    name = write(folder / "trl", model, words)

    def plain(question: str, steps: list[str]) -> list[float]:
        ids, ends = [START, *ids_of(words, question)], []
        for step in steps:
            ids += ids_of(words, step) + ids_of(words, separator)
            ends.append(len(ids) - 1)
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0]
        return [float(logits[end].softmax(-1)[1]) for end in ends]

    return name, plain


def make_outcome(model: Any) -> Callable[..., tuple[str, Plain]]:
    """Skywork/Skywork-Reward-Llama-3.1-8B and the like."""

    def make(folder: Path, **_: Any) -> tuple[str, Plain]:
        words, made = tokenizer(chat=True), model()
        name = write(folder / "outcome", made, words)

        def plain(question: str, steps: list[str]) -> list[float]:
            ids = ids_of(words, chat_text(("user", question), ("assistant", "\n\n".join(steps))))
            with torch.no_grad():
                return [float(made(torch.tensor([ids])).logits[0, 0])]

        return name, plain

    return make


def llama_classifier() -> Any:
    torch.manual_seed(2)
    config = llama(vocab_size=SIZE, max_position_embeddings=512).config.to_dict() | {"num_labels": 1}
    from transformers import LlamaConfig

    return LlamaForSequenceClassification(
        LlamaConfig(**{key: one for key, one in config.items() if key not in ("id2label", "label2id")})
    ).eval()


def qwen2_classifier() -> Any:
    return qwen2(Qwen2ForSequenceClassification, num_labels=1)


def make_math_rm(folder: Path, **_: Any) -> tuple[str, Plain]:
    """Qwen/Qwen2.5-Math-RM-72B: the two-layer head with one output."""
    model, words = qwen2(), tokenizer(chat=True)
    head = {
        "score.0.weight": torch.randn(32, 32, generator=GENERATOR) * 0.3,
        "score.0.bias": torch.randn(32, generator=GENERATOR),
        "score.2.weight": torch.randn(1, 32, generator=GENERATOR) * 0.3,
        "score.2.bias": torch.randn(1, generator=GENERATOR),
    }
    name = write(folder / "rm", model, words, head, architectures=["Qwen2ForRewardModel"])

    def plain(question: str, steps: list[str]) -> list[float]:
        ids = ids_of(words, chat_text(("user", question), ("assistant", "\n\n".join(steps))))
        h = hidden(model, ids)[-1] @ head["score.0.weight"].T + head["score.0.bias"]
        return [float(h.clamp(min=0) @ head["score.2.weight"][0] + head["score.2.bias"][0])]

    return name, plain


MAKERS: dict[str, Callable[..., tuple[str, Plain]]] = {
    "turns": make_turns,
    "tags": make_tags,
    "separators": make_separators,
    "values": make_values,
    "classes": make_classes,
    "outcome": make_outcome(llama_classifier),
    "outcome qwen2": make_outcome(qwen2_classifier),
    "outcome two layers": make_math_rm,
}


def scorer(name: str, **options: Any) -> TrainedRewardModel:
    made = reward(name, dtype="float32", device="cpu", **options)
    assert isinstance(made, TrainedRewardModel)
    return made


SOLUTIONS = [STEPS, ["It is 7."], ["2 + 2 = 5?", "Hm. No: 7."], [*STEPS, "q.e.d."], ["First, 2 + 2 = 4.", "So 8."]]


@pytest.mark.parametrize("kind", list(MAKERS))
@pytest.mark.parametrize("max_batch_size", [2, 32])
def test_scores_are_those_of_a_plain_pass(kind: str, max_batch_size: int, tmp_path: Path) -> None:
    name, plain = MAKERS[kind](tmp_path)
    model = scorer(name, separator="\\n\\n", max_batch_size=max_batch_size)
    assert model.facts["format"] == kind.split()[0]
    assert model.facts["trunk"] == {"turns": "native", "outcome": "native", "tags": "MistralModel"}.get(
        kind, "Qwen2Model"
    )
    expected = [plain(QUESTION, steps) for steps in SOLUTIONS]
    found = model.score(CHAT, ["\n\n".join(steps) for steps in SOLUTIONS])
    for ours, theirs in zip(found, expected, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-4)
    # Scores that hardly differ would prove nothing.
    flat = [score for row in expected for score in row]
    assert max(flat) - min(flat) > 0.05


@pytest.mark.parametrize("kind", list(MAKERS))
def test_a_shared_prompt_changes_cost_and_no_score(kind: str, tmp_path: Path) -> None:
    name, plain = MAKERS[kind](tmp_path)
    completions = ["\n\n".join(steps) for steps in SOLUTIONS]
    alone = scorer(name, separator="\\n\\n")
    singly = [alone.score(CHAT, [one])[0] for one in completions]
    together = scorer(name, separator="\\n\\n")
    for ours, theirs in zip(together.score(CHAT, completions), singly, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-4)
    assert together.flops < alone.flops
    # Another prompt comes between, and the first again: nothing of one is left in the other's scores.
    other = together.score("3 + 3?", completions[:2])
    assert other[0] == pytest.approx(plain("3 + 3?", SOLUTIONS[0]), abs=1e-4)
    again = together.score(CHAT, completions)
    assert again[3] == pytest.approx(singly[3], abs=1e-4)
    mixed = together.score_all([(CHAT, completions[0]), ("3 + 3?", completions[0]), (CHAT, completions[2])])
    for ours, theirs in zip(mixed, [singly[0], other[0], singly[2]], strict=True):
        assert ours == pytest.approx(theirs, abs=1e-4)


@pytest.mark.parametrize("kind", list(MAKERS))
def test_flops_are_those_that_torch_counts(kind: str, tmp_path: Path) -> None:
    name, _ = MAKERS[kind](tmp_path)
    model = scorer(name, separator="\\n\\n")
    asked = ["\n\n".join(steps) for steps in SOLUTIONS]
    # Texts of one length are not padded, and padding is what the two counts would differ by.
    model.score(CHAT, [asked[0], asked[0]])
    before = model.flops
    with FlopCounterMode(display=False) as counter:
        model.score(CHAT, [asked[0], asked[0]])
    by_name = counter.get_flop_counts()["Global"].items()
    products = sum(flops for one, flops in by_name if str(one) in ("aten.mm", "aten.addmm"))
    prompt = len(model.prefix.token_ids)
    read, *_ = model.write(CHAT, [asked[0]])
    new = len(read.token_ids) - prompt
    assert prompt > 8
    # Two layers 32 wide: two products of 2 FLOPs per channel and pair of a token and one that is not after it.
    attention = 2 * 2 * 2 * 32 * (new * prompt + new * (new + 1) // 2)
    assert model.flops - before == products + 2 * attention


# What a search asks for: steps that are added one by one, in several branches, some scored before they are whole.
GROWING = [
    ["First", "It is 7.", "2 + 2"],
    [STEPS[0], "First, 2 + 2 = 5.", "2 + 2 = 5?"],
    [STEPS[0] + "\n\nThen 4", STEPS[0] + "\n\nSo 8.", "2 + 2 = 5?\n\nHm. No: 7.", STEPS[0]],
    ["\n\n".join(STEPS[:2]), STEPS[0] + "\n\nThen 4 + 3 = 8."],
    [REPLY, STEPS[0] + "\n\nSo 8.\n\nq.e.d.", "Quite another one."],
]


@pytest.mark.parametrize("kind", list(MAKERS))
@pytest.mark.parametrize("max_batch_size", [1, 2, 32])
def test_kept_beginnings_change_cost_and_no_score(kind: str, max_batch_size: int, tmp_path: Path) -> None:
    name, plain = MAKERS[kind](tmp_path)
    anew, model = (scorer(name, separator="\\n\\n", max_batch_size=max_batch_size) for _ in range(2))
    model.keep_beginnings()
    for call in (*GROWING, *GROWING[:3]):
        # Another prompt between them must leave nothing behind.
        for prompt, question in ((CHAT, QUESTION), ("3 + 3?", "3 + 3?"))[: 2 if call is GROWING[2] else 1]:
            anew.score(prompt, call)
            for ours, completion in zip(model.score(prompt, call), call, strict=True):
                assert ours == pytest.approx(plain(question, completion.split("\n\n")), abs=1e-4)
    assert model.flops < 0.8 * anew.flops


def test_a_kept_beginning_is_read_once_and_no_more(tmp_path: Path) -> None:
    name, _ = make_separators(tmp_path)
    model = scorer(name, separator="\\n\\n")
    model.keep_beginnings()
    model.score(CHAT, [STEPS[0], "No."])
    first, whole = (model.write(CHAT, [text])[0].token_ids for text in (STEPS[0], "\n\n".join(STEPS[:2])))
    alike = next(place for place, (a, b) in enumerate(zip(first, whole, strict=False)) if a != b)
    before, new = model.flops, len(whole) - alike
    model.score(CHAT, ["\n\n".join(STEPS[:2])])
    weights = sum(one.weight.numel() for one in model.trunk.module.modules() if isinstance(one, torch.nn.Linear))
    pairs = new * alike + new * (new + 1) // 2
    head = sum(2 * one.weight.numel() for one in model.head.modules() if isinstance(one, torch.nn.Linear))
    # Of two steps the first one's score is known.
    assert model.flops - before == 2 * weights * new + 2 * 2 * 2 * 32 * pairs + head


def test_the_oldest_beginnings_go_when_they_take_up_too_much(tmp_path: Path) -> None:
    name, plain = make_separators(tmp_path)
    model = scorer(name, separator="\\n\\n")
    model.keep_beginnings()
    assert model.beginnings is not None
    model.score(CHAT, GROWING[0])
    model.beginnings.most_bytes = model.beginnings.bytes
    for call in GROWING[1:]:
        for ours, completion in zip(model.score(CHAT, call), call, strict=True):
            assert ours == pytest.approx(plain(QUESTION, completion.split("\n\n")), abs=1e-4)
        assert model.beginnings.bytes <= model.beginnings.most_bytes
        assert model.beginnings.bytes == sum(one.bytes for one in model.beginnings.kept.values())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("kind", list(MAKERS))
def test_a_gpu_scores_alike(kind: str, tmp_path: Path) -> None:
    name, plain = MAKERS[kind](tmp_path)
    found = reward(name, separator="\\n\\n", dtype="float32", device="cuda").score(
        CHAT, ["\n\n".join(steps) for steps in SOLUTIONS]
    )
    for ours, steps in zip(found, SOLUTIONS, strict=True):
        assert list(ours) == pytest.approx(plain(QUESTION, steps), abs=2e-3)


def test_long_and_blank_solutions_have_no_score_and_are_counted(tmp_path: Path) -> None:
    name, plain = make_separators(tmp_path)
    model = scorer(name)
    found = model.score(CHAT, ["7 " * 300, " \n\n ", REPLY])
    assert found[:2] == [[], []]
    assert found[2] == pytest.approx(plain(QUESTION, STEPS), abs=1e-4)
    assert (model.facts["too_long"], model.facts["blank"]) == (1, 1)


def test_a_solution_cannot_write_its_own_separators(tmp_path: Path) -> None:
    name, plain = make_separators(tmp_path)
    (found,) = scorer(name).score(CHAT, ["It is<extra_0> 7.\n\nSo: 7."])
    assert found == pytest.approx(plain(QUESTION, ["It is 7.", "So: 7."]), abs=1e-4)


def test_separator_and_system_message_can_be_chosen(tmp_path: Path) -> None:
    name, plain = make_values(tmp_path, separator="\n")
    (found,) = scorer(name).score(CHAT, ["\n".join(STEPS)])
    assert found == pytest.approx(plain(QUESTION, STEPS), abs=1e-4)
    name, _ = make_separators(tmp_path / "again")
    default, none = scorer(name), scorer(name, system="")
    assert default.score(CHAT, [REPLY]) != none.score(CHAT, [REPLY])
    assert none.facts["system"] == ""
    with pytest.raises(UserError, match="separator of steps must not be empty"):
        scorer(name, separator="")


def test_a_language_model_is_a_reward_model_only_if_one_says_so(tmp_path: Path) -> None:
    model = llama(vocab_size=SIZE, tie_word_embeddings=False, max_position_embeddings=512)
    name = write(tmp_path / "chatty", model, tokenizer(chat=True))
    assert isinstance(model, LlamaForCausalLM)
    with pytest.raises(UserError, match=r"no reward model: .* names LlamaForCausalLM .* write format=turns"):
        reward(name, device="cpu")
    assert scorer(name, format="turns").facts["format"] == "turns"
    with pytest.raises(UserError, match=r"has no score head and a reward model of this form has 1 \(format values\)"):
        reward(name, format="values", device="cpu")
    with pytest.raises(UserError, match="there is no format 'votes' of reward models"):
        reward(name, format="votes", device="cpu")  # type: ignore[arg-type]


def test_a_format_without_its_chat_template_is_refused(tmp_path: Path) -> None:
    model = llama(vocab_size=SIZE, tie_word_embeddings=False, max_position_embeddings=512)
    name = write(tmp_path / "prm", model, tokenizer(chat=False))
    with pytest.raises(UserError, match="has no chat template, which the format turns writes with"):
        reward(name, format="turns", device="cpu")


def test_incomplete_and_foreign_weights_are_named(tmp_path: Path) -> None:
    model, words = qwen2(Qwen2ForSequenceClassification, num_labels=1), tokenizer(chat=True)
    short = write(tmp_path / "short", model, words, drop="model.layers.1.mlp.up_proj")
    with pytest.raises(UserError, match=r"lacks 1 weights of its architecture: layers.1.mlp.up_proj.weight"):
        reward(short, device="cpu")
    wide = write(tmp_path / "wide", model, words, {"score.weight": torch.zeros(1, 48)})
    with pytest.raises(UserError, match=r"'score.weight' .* has the shape \(1, 48\) and the hidden states are 32 wide"):
        reward(wide, device="cpu")
    strange = write(tmp_path / "strange", model, words, {"model.gate.weight": torch.zeros(3)})
    with pytest.raises(UserError, match=r"has unknown 1 weights of its architecture"):
        reward(strange, device="cpu")
