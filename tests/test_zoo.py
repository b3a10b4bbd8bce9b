"""The shipped models: what they are, how good they are, and that the script that made the teacher still runs."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors import safe_open

from harness import plugins
from harness.models.distillation.recipes import read_recipe
from harness.models.zoo import train_teacher

ROOT = Path(__file__).resolve().parents[1]
TEACHER = ROOT / "models" / "zoo" / "teacher"
SVAMP = ROOT.parent / "shared" / "data" / "svamp" / "test.jsonl.gz"
TTC = str(Path(sys.executable).with_name("ttc"))


def bench(folder: Path, *arguments: str, model: str = "zoo/teacher") -> dict[str, dict[str, list[dict[str, float]]]]:
    command = [TTC, "bench", model, *arguments, "--out", str(folder / "run"), "--json", "--quiet"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    curves: dict[str, dict[str, list[dict[str, float]]]] = {}
    for curve in json.loads(done.stdout)["runs"][0]["curves"]:
        curves.setdefault(curve["selector"], {})[curve["axis"]] = curve["points"]
    return curves


def test_it_is_a_small_llama_in_half_precision() -> None:
    config = json.loads((TEACHER / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    with safe_open(TEACHER / "model.safetensors", "pt") as file:
        tensors = [file.get_slice(name) for name in file.keys()]  # noqa: SIM118 - the handle is no mapping
        assert {tensor.get_dtype() for tensor in tensors} == {"F16"}
        parameters = sum(math.prod(tensor.get_shape()) for tensor in tensors)
    assert 1e6 <= parameters <= 3e6
    assert (TEACHER / "README.md").is_file()


def test_its_tokenizer_reads_any_text_and_splits_numbers_into_digits() -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(TEACHER)
    for text in ("Ada has 1,234 apples.", "naïve — 数学 🙂\n\t\\frac{1}{2}", "<b>x</b>"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert tokenizer.convert_ids_to_tokens(tokenizer("407")["input_ids"]) == ["4", "0", "7"]


@pytest.mark.parametrize("model", ["zoo/teacher", "zoo/llamba", "zoo/mamba-in-llama"])
def test_they_are_neither_hopeless_nor_perfect_and_voting_helps(model: str, tmp_path: Path) -> None:
    asked = ("--task", "arithmetic", "--limit", "40", "--samples", "8", "--max-tokens", "400")
    curves = bench(tmp_path, *asked, model=model)
    pass_at_1 = curves["first"]["k"][0]["value"]
    assert 0.3 <= pass_at_1 <= 0.7
    assert curves["coverage"]["k"][-1]["value"] > pass_at_1 + 0.1
    assert curves["majority"]["k"][-1]["value"] >= pass_at_1


def test_the_zoo_is_small_and_every_model_has_its_card() -> None:
    folders = [path.parent for path in TEACHER.parent.glob("*/config.json")]
    assert all((folder / "README.md").is_file() for folder in folders)
    assert sum(file.stat().st_size for folder in folders for file in folder.iterdir()) <= 25e6


@pytest.mark.parametrize("name", ["llamba", "mamba-in-llama"])
def test_a_student_has_the_shape_of_its_recipe(name: str) -> None:
    recipe = read_recipe(ROOT / "recipes" / f"zoo-{name}.toml")
    asked = recipe.student.config or recipe.student.mamba_config
    file = "config.json" if recipe.student.config else "mamba_config.json"
    there = json.loads((TEACHER.parent / name / file).read_text())
    assert {key: there[key] for key in asked} == json.loads(json.dumps(dict(asked)))


def test_real_word_problems_run_to_a_figure_under_a_budget(tmp_path: Path) -> None:
    data = SVAMP if SVAMP.is_file() else ROOT / "tests" / "data" / "tasks" / "svamp.csv"
    curves = bench(
        tmp_path, "--task", "svamp", "--data", str(data), "--budget", "10s", "--limit", "2", "--samples", "4"
    )
    assert curves["coverage"]["k"][-1]["x"] == 4
    assert curves["coverage"]["seconds"][-1]["x"] == 10.0
    assert (tmp_path / "run" / "report" / "accuracy.png").stat().st_size > 5000


def test_its_training_script_makes_a_checkpoint_that_loads(tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    train_teacher.main(tmp_path / "made", tmp_path / "work", steps=2, batch=2, hidden=64, layers=1)
    model = plugins.load_model(str(tmp_path / "made"), "transformers")
    assert model.name.endswith("made")


def test_training_never_sees_a_test_question() -> None:
    import itertools

    tests = {str(p.prompt) for p in plugins.load_task("arithmetic", ["num_problems=500"]).problems}
    seen = {m[-1]["content"] for m, _ in itertools.islice(train_teacher.examples(1), 3000)}
    assert not any(question in prompt for prompt in tests for question in seen)
