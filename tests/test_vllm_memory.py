"""How much of a GPU the engine vllm asks for beside reward models of this process; neither GPU nor vLLM is needed."""

import pytest
import torch

from harness.models.vllm_engine.settings import share_left


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    return monkeypatch


def test_beside_reward_models_it_takes_eight_tenths_of_what_is_free(gpu: pytest.MonkeyPatch) -> None:
    gpu.setattr(torch.cuda, "mem_get_info", lambda: (48_000_000_000, 80_000_000_000))
    assert share_left(is_cpu=False) == {"gpu_memory_utilization": pytest.approx(0.48)}


def test_an_empty_device_is_left_to_its_own_default(gpu: pytest.MonkeyPatch) -> None:
    gpu.setattr(torch.cuda, "mem_get_info", lambda: (79_000_000_000, 80_000_000_000))
    assert share_left(is_cpu=False) == {}


def test_a_device_that_this_process_has_not_touched_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    assert share_left(is_cpu=False) == {}
    assert share_left(is_cpu=True) == {}
