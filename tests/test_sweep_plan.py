"""What a sweep's dry run reckons, against published sizes and formulas written out here."""

import json
from pathlib import Path
from typing import Any

import pytest
from fakes import write_plugins
from published_checkpoints import GSM8K, MODELS, write_reward_model
from tiny_students import save
from transformers import LlamaForSequenceClassification
from typer.testing import CliRunner

from harness.cli import app
from harness.errors import UserError
from harness.nouns import Message

PARAMETERS = {
    "preset/llama-3.2-1b": 1_235_814_400,
    "preset/llamba-1b": 1_405_159_936,
    "preset/mamba-in-llama-1b": 1_293_002_752,
    "preset/llama-3.2-3b": 3_212_749_824,
    "preset/llamba-3b": 3_656_994_688,
    "preset/mamba-in-llama-3b": 3_447_874_560,
}
"""Of the published files and model pages."""
ROWS_OF_2560 = {
    "preset/llama-3.2-1b": 828,
    "preset/llamba-1b": 13891,
    "preset/mamba-in-llama-1b": 3161,
    "preset/llama-3.2-3b": 223,
    "preset/llamba-3b": 5127,
    "preset/mamba-in-llama-3b": 992,
}
"""Of 2,560 tokens in nine tenths of 80 GB, everything in bfloat16: a capacity table made apart from this program."""
LLAMA_8B = 8_030_261_248
BANDWIDTH, FLOPS = 3.35e12, 989e12  # of an H100, per second

HEAD = """
[defaults]
engine = "native"
engine_arg = { dtype = "bfloat16", state_dtype = "bfloat16" }
samples = 64
max_tokens = 2048

[plan]
hardware = "H100"
prompt_tokens = 512
completion_tokens = 1024
reward_shape = "preset/llama-3.1-8b"
"""
TASK = '\n[[task]]\ntask = "mine.py:sums"\ntask_arg = { num_problems = 500 }\n'


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder, and a hub that cannot be reached."""

    def unreachable(*_: object, **__: object) -> Any:
        raise UserError("the hub cannot be reached")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("harness.models.checkpoints.download", unreachable)
    monkeypatch.setattr("harness.tasks.data.hub_rows", unreachable)
    monkeypatch.setattr("harness.models.tokenizers_.base_model", lambda _: str(tmp_path / "not here"))
    write_plugins(tmp_path)
    return tmp_path


def plan(*changes: str, models: tuple[str, ...] = ("preset/llama-3.2-1b",), text: str = HEAD + TASK) -> dict[str, Any]:
    listed = "".join(f'\n[[model]]\nmodel = "{model}"\n' for model in models)
    Path("sweep.toml").write_text(text + listed)
    pairs = [part for change in changes for part in ("--set", change)]
    done = CliRunner().invoke(app, ["sweep", "sweep.toml", "--dry-run", "--json", *pairs])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def step_s(batch: int, context: float) -> float:
    """A decode pass of Llama-3.2-1B: weights, or products where these take longer; keys, values and logits on top."""
    weights = 2 * PARAMETERS["preset/llama-3.2-1b"]
    products = 2 * (PARAMETERS["preset/llama-3.2-1b"] - 33 * 2048)  # all but the norms
    once = max(weights / (0.8 * BANDWIDTH), products * batch / (0.6 * FLOPS))
    return once + batch * (32768 * context + 6 * 4 * 128256) / (0.8 * BANDWIDTH)


def prefill_s(tokens: int) -> float:
    products = 2 * (PARAMETERS["preset/llama-3.2-1b"] - 33 * 2048) * tokens
    return products / (0.6 * FLOPS) + 2 * 32 * 64 * 16 * tokens**2 / (0.4 * FLOPS)


def judging_s(tokens: int) -> float:
    """A text read by Llama-3.1-8B, whose embedding is no head, and whose 65 norms are in no product."""
    products = 2 * (LLAMA_8B - 128256 * 4096 - 65 * 4096) * tokens
    return products / (0.6 * FLOPS) + 2 * 32 * 128 * 32 * tokens**2 / (0.4 * FLOPS)


def test_sizes_are_the_published_ones() -> None:
    rows = {row["model"]: row for row in plan(models=tuple(PARAMETERS))["runs"]}
    assert {name: row["parameters"] for name, row in rows.items()} == PARAMETERS
    assert {name: row["weight_bytes"] for name, row in rows.items()} == {n: 2 * p for n, p in PARAMETERS.items()}
    assert {name: row["largest_batch"] for name, row in rows.items()} == ROWS_OF_2560
    assert rows["preset/llama-3.2-1b"]["row_bytes"] == 2560 * 32768
    # In each of 16 layers 32 heads of 64 channels and 64 states, and windows of 4 taps of x, B and C.
    assert rows["preset/llamba-1b"]["row_bytes"] == 2 * 16 * (32 * 64 * 64 + 4 * 3 * 2048)


def test_states_have_the_dtype_that_the_engine_keeps_them_in() -> None:
    """float32 unless asked otherwise: twice the bytes of a row that has little but states."""
    lean = plan(models=("preset/llamba-1b",))["runs"][0]["row_bytes"]
    wide = plan("engine_arg={ dtype = 'bfloat16' }", models=("preset/llamba-1b",))["runs"][0]["row_bytes"]
    assert wide - lean == 16 * 2048 * 64 * 2


def test_hours_are_those_of_the_formula() -> None:
    (row,) = plan()["runs"]
    usual = 500 * (1024 * step_s(64, 512 + 512) + prefill_s(512))
    most = 500 * (2048 * step_s(64, 512 + 1024) + prefill_s(512))
    assert row["hours"] == pytest.approx(usual / 3600, rel=1e-9)
    assert row["hours_at_most"] == pytest.approx(most / 3600, rel=1e-9)
    assert row["scoring_hours"] == 0


def test_an_engine_has_so_many_rows_and_may_read_a_prompt_for_each() -> None:
    """native takes 128 at once; vLLM 256, each with its prompt unless prefixes are cached."""
    (row,) = plan("samples=256")["runs"]
    assert row["hours"] == pytest.approx(500 * 2 * (1024 * step_s(128, 1024) + prefill_s(512)) / 3600, rel=1e-9)
    options = "engine_arg={ state_dtype = 'bfloat16' }"
    (row,) = plan("samples=256", "engine=vllm", options)["runs"]
    assert row["hours"] == pytest.approx(500 * (1024 * step_s(256, 1024) + 256 * prefill_s(512)) / 3600, rel=1e-9)
    options = "engine_arg={ state_dtype = 'bfloat16', prefix_caching = true }"
    (row,) = plan("samples=256", "engine=vllm", options)["runs"]
    assert row["hours"] == pytest.approx(500 * (1024 * step_s(256, 1024) + prefill_s(512)) / 3600, rel=1e-9)


def test_in_the_throughput_protocol_all_problems_share_the_rows() -> None:
    (row,) = plan("protocol=throughput")["runs"]
    waves = 500 * 64 / 128
    assert row["hours"] == pytest.approx((waves * 1024 * step_s(128, 1024) + 500 * prefill_s(512)) / 3600, rel=1e-9)


def test_a_budget_bounds_what_is_sampled_and_scored() -> None:
    both = ('reward_model=["org/prm", "org/orm"]',)
    (row,) = plan(*both)["runs"]
    assert row["scoring_hours"] == pytest.approx(2 * 500 * 64 * judging_s(512 + 1024) / 3600, rel=1e-9)
    (row,) = plan(*both, "budget=4s")["runs"]
    assert row["hours"] == pytest.approx(500 * (1024 * step_s(64, 1024) + prefill_s(512)) / 3600, rel=1e-9)
    assert row["hours"] + row["scoring_hours"] == pytest.approx(500 * 4 / 3600)
    (row,) = plan(*both, "budget=1s")["runs"]
    assert (row["hours"], row["scoring_hours"], row["hours_at_most"]) == pytest.approx((500 / 3600, 0, 500 / 3600))
    (row,) = plan(*both, "budget=900s", "protocol=throughput")["runs"]
    assert row["hours_at_most"] == pytest.approx(0.25)


def test_reward_models_take_memory_and_disk() -> None:
    planned = plan('reward_model=["org/prm", "org/orm"]', models=("preset/llama-3.2-1b", "preset/llamba-1b"))
    row = planned["runs"][0]
    left = 72e9 - 2 * PARAMETERS["preset/llama-3.2-1b"] - 2 * 2 * LLAMA_8B
    assert row["reward_bytes"] == 4 * LLAMA_8B
    assert row["largest_batch"] == int(left // (2560 * 32768))
    # Llambas are published in float32.
    models = 2 * PARAMETERS["preset/llama-3.2-1b"] + 4 * PARAMETERS["preset/llamba-1b"]
    assert planned["total"]["weight_bytes"] == models + 2 * 2 * LLAMA_8B
    wide = plan('reward_model=["org/prm", "org/orm"]', 'reward_arg="dtype=float32"')["runs"][0]
    assert wide["reward_bytes"] == 8 * LLAMA_8B


def test_what_does_not_fit_is_told_and_has_no_hours() -> None:
    judges = json.dumps([f"org/judge-{n}" for n in range(5)])
    planned = plan(f"reward_model={judges}")
    row = planned["runs"][0]
    assert (row["largest_batch"], row["hours"], row["hours_at_most"]) == (0, None, None)
    assert planned["total"]["hours"] is None
    needed = (10 * LLAMA_8B + 2 * PARAMETERS["preset/llama-3.2-1b"] + 2560 * 32768) / 1e9
    told = f"preset/llama-3.2-1b with its reward models does not fit one H100: one full row makes it {needed:.3g} GB"
    assert told in planned["notes"]


def test_a_teacher_whose_samples_do_not_fit_at_once_is_told() -> None:
    planned = plan("samples=1000", "plan.hardware=H100")
    assert (
        "preset/llama-3.2-1b leaves one H100 room for 828 full rows of 1000 samples: the longest of them wait or are "
        "pre-empted"
    ) in planned["notes"]
    assert not any("room for" in note for note in plan("samples=1000", "plan.hardware=H200")["notes"])


def test_the_speed_tables_take_hours_too() -> None:
    grid = ("speed.batch=[1, 64]", "speed.prompt=512", "speed.context=[512, 4608]", "speed.passes=8")
    planned = plan(*grid, "speed.repeats=2")
    steps = sum(8 * step_s(batch, context) for batch in (1, 64) for context in (512, 4608))
    assert planned["total"]["speed_hours"] == pytest.approx(3 * (2 * prefill_s(512) + steps) / 3600, rel=1e-9)
    # vLLM is timed by calls, which read a text of that length for every row.
    vllm = plan(*grid, "speed.repeats=2", "engine=vllm", "engine_arg=state_dtype=bfloat16")["total"]["speed_hours"]
    read = 65 * (2 * prefill_s(512) + prefill_s(4608)) - 2 * prefill_s(512)
    assert (vllm - planned["total"]["speed_hours"]) * 3600 == pytest.approx(3 * read, rel=1e-6)
    # 4,608 tokens of 512 rows do not fit beside the weights: 460 do.
    more = plan("speed.batch=512", "speed.prompt=512", "speed.context=[512, 4608]", "speed.repeats=1")
    assert more["total"]["speed_hours"] == pytest.approx(2 * (prefill_s(512) + 16 * step_s(512, 512)) / 3600, rel=1e-9)


def test_a_sum_is_over_what_is_not_finished() -> None:
    planned = plan(models=("preset/llama-3.2-1b", "preset/llamba-1b"))
    hours = [row["hours"] for row in planned["runs"]]
    assert planned["total"]["hours"] == pytest.approx(sum(hours))
    assert planned["total"]["record_bytes"] == pytest.approx(2 * 3 * 500 * 64 * 1024)


def test_prompts_are_built_and_counted_where_data_and_tokenizer_are(folder: Path) -> None:
    (folder / "gsm8k.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in GSM8K))
    for name in ("meta-llama/Llama-3.2-1B-Instruct", "cartesia-ai/Llamba-1B"):
        save(MODELS[name], folder / name)
    text = HEAD + '\n[[task]]\ntask = "gsm8k"\ndata = "gsm8k.jsonl"\nproblems = 1319\n'
    planned = plan(models=("meta-llama/Llama-3.2-1B-Instruct", "cartesia-ai/Llamba-1B"), text=text)
    teacher, student = planned["runs"]
    from harness import plugins

    prompts = [problem.prompt for problem in plugins.load_task("gsm8k", (), "gsm8k.jsonl").problems]
    assert all(isinstance(prompt, tuple) and isinstance(prompt[0], Message) for prompt in prompts)
    # One token per byte: the start, then each message after its role in brackets, then the open turn.
    counts = [
        1 + len("".join(f"[{one.role}]{one.content}" for one in prompt).encode()) + len("[assistant]")
        for prompt in prompts
        if not isinstance(prompt, str)
    ]
    assert teacher["problems"] == 3
    assert teacher["prompts"] == "built"
    assert teacher["prompt_tokens_counted"]
    assert teacher["prompt_tokens"] == pytest.approx(sum(counts) / 3)
    assert teacher["shape"] == "config"
    assert teacher["disk_bytes"] == (folder / "meta-llama/Llama-3.2-1B-Instruct/model.safetensors").stat().st_size
    # A Llamba ships no tokenizer, and that of its teacher is not here.
    assert (student["prompt_tokens_counted"], student["prompt_tokens"]) == (False, 512)
    assert "prompts without data or tokenizer here are taken to have 512 tokens" in planned["notes"]
    few = plan("limit=2", models=("meta-llama/Llama-3.2-1B-Instruct",), text=text)["runs"][0]
    assert (few["problems"], few["prompt_tokens"]) == (2, pytest.approx(sum(counts[:2]) / 2))


def test_what_is_missing_is_said(folder: Path) -> None:
    text = HEAD + '\n[[task]]\ntask = "gsm8k"\nproblems = 1319\n\n[[task]]\ntask = "math500"\nlimit = 7\n'
    planned = plan(models=("org/unknown",), text=text)
    first, second = planned["runs"]
    assert (first["problems"], second["problems"]) == (1319, 7)
    assert (first["prompts"], first["prompt_tokens"], first["shape"]) == ("the hub cannot be reached", 512, None)
    assert (first["hours"], planned["total"]["hours"], planned["total"]["weight_bytes"]) == (None, None, None)
    assert "gsm8k: the hub cannot be reached" in planned["notes"]
    assert "the shape of org/unknown is not known here; name a preset of it as shape" in planned["notes"]


def test_what_is_not_reckoned_is_said(folder: Path) -> None:
    (folder / "judge.py").write_text("def judge(prompt, completions):\n    return [1.0 for _ in completions]\n")
    changes = ["reward_model=./judge.py:judge", "strategy=budget_forcing", "workers=4", "engine=vllm"]
    planned = plan(*changes, "engine_arg={ tensor_parallel_size = 2 }")
    assert planned["notes"][1:] == [
        "hours are those of one device: up to 4 workers take a share each",
        "prompts without data or tokenizer here are taken to have 512 tokens",
        "the strategy budget_forcing changes how much is generated: its hours are those of independent samples",
        "the time of the reward model ./judge.py:judge is not reckoned: it is a plug-in",
        "memory and hours are those of one device: tensor_parallel_size is not reckoned with",
    ]
    # Device-hours are the same for one worker.
    assert planned["runs"][0]["hours"] == plan("engine=vllm", "engine_arg=[]")["runs"][0]["hours"]


def test_a_model_behind_an_endpoint_has_no_device_here(folder: Path) -> None:
    save(MODELS["meta-llama/Llama-3.2-1B-Instruct"], folder / "meta-llama/Llama-3.2-1B-Instruct")
    changes = ("base_url=http://localhost:1/v1", "engine=openai", "engine_arg=[]", "budget=60s")
    planned = plan(*changes, models=("meta-llama/Llama-3.2-1B-Instruct",))
    row = planned["runs"][0]
    assert (row["hours"], row["parameters"], row["weight_bytes"]) == (None, None, None)
    assert row["hours_at_most"] == pytest.approx(500 * 60 / 3600)
    assert (
        "meta-llama/Llama-3.2-1B-Instruct is behind an endpoint: no memory and no hours of a device are reckoned for it"
    ) in planned["notes"]


def test_a_dry_run_fetches_no_weights(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even of a Llamba, of which it has to know whether it ships a tokenizer."""
    asked: list[str] = []

    def download(hub_id: str, allow_patterns: list[str], **_: Any) -> Path:
        asked.extend(allow_patterns)
        return folder / "hub" / hub_id

    monkeypatch.setattr("harness.models.checkpoints.download", download)
    save(MODELS["cartesia-ai/Llamba-1B"], folder / "hub/org/llamba")
    write_reward_model(LlamaForSequenceClassification, folder / "hub/org/judge", num_labels=1)
    planned = plan("reward_model=org/judge", models=("org/llamba",))
    assert planned["runs"][0]["shape"] == "config"
    assert planned["runs"][0]["reward_bytes"] > 0
    assert set(asked) == {"config.json", "mamba_config.json", "tokenizer.json", "tokenizer_config.json"}


def test_a_device_or_a_preset_that_does_not_exist() -> None:
    with pytest.raises(UserError, match=r"\[plan\]: no hardware named 'H900'; there is H100, H200"):
        plan("plan.hardware=H900")
    with pytest.raises(UserError, match="there is no preset 'llama-9'"):
        plan("preset-llama-3.2-1b.shape=preset/llama-9", "preset-llama-3.2-1b.model=org/unknown")
