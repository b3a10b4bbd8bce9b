"""The engine `openai` against a server on this machine that keeps the protocol or breaks it."""

import email.utils
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("openai", reason="needs the package openai: pip install 'ttc-harness[openai]'")

from endpoint_server import Answer, Body, Server, complete, is_trial, serving
from fakes import FakeClock

from harness.budgets import Budget, Clock, Deadline, monotonic, unix_s
from harness.checks.check import check_model
from harness.errors import UserError
from harness.models.endpoint import flight
from harness.models.endpoint.failures import Failure, retry_after
from harness.models.openai_ import openai
from harness.nouns import Completion, Message, Request, Sampling

KEY = "sk-secret-7f3a"
SAMPLING = Sampling(temperature=1.0, max_tokens=20, seed=3)


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr(flight, "BACK_OFF_S", 0.01)


def asked(count: int, sampling: Sampling = SAMPLING, problem: str = "p") -> list[Request]:
    return [Request(problem, index, (Message("user", "2 + 2 ="),), sampling) for index in range(count)]


def ask(
    server: Server, requests: list[Request], budget: Budget | None = None, clock: Clock = monotonic, **options: Any
) -> tuple[list[Completion], Any]:
    """The rows in the order of their samples, and the facts."""
    model: Any = openai("toy", base_url=server.url, **options)
    try:
        rows = list(model.generate(requests, Deadline(budget, clock)))
        return sorted(rows, key=lambda row: row.sample_index), model.facts
    finally:
        model.close()


def after_trial(script: Any) -> Any:
    """A script for everything but the trial, which is answered well."""
    return lambda answer, body, number: (complete if is_trial(body) else script)(answer, body, number)


@pytest.mark.parametrize("protocol", ["chat", "completions"])
def test_samples_carry_their_seeds_and_what_the_server_counted(protocol: Any) -> None:
    with serving(complete) as server:
        rows, facts = ask(server, asked(5), protocol=protocol)
    sent = [body for body in server.bodies if not is_trial(body)]
    assert sorted(body["seed"] for body in sent) == sorted(request.seed % 2**31 for request in asked(5))
    for row, request in zip(rows, asked(5), strict=True):
        assert row.text == f"word word word {request.seed % 2**31 % 9973} "
        assert (row.finish_reason, row.error) == ("stop", None)
        assert (row.prompt_tokens, row.completion_tokens, row.seed) == (7, 4, request.seed)
        assert row.logprob == pytest.approx(-2.0)
        assert row.first_token_s is not None
        assert 0 <= row.submitted_s <= row.started_s <= row.first_token_s <= row.finished_s
        assert 1 <= row.batch_size <= 5
        assert (row.prefill_flops, row.decode_flops) == (0.0, 0.0)
    assert facts["usage_completion_tokens"] == 20
    assert facts["token_counts"] == {"usage": 5}
    assert (facts["answering_model"], facts["retries"], facts["failed_requests"]) == ("m-1", 0, 0)
    assert facts["retry_wait_s"] == 0
    assert facts["repeated_texts"] == "0 of 4"
    one = sent[0]
    assert (one["temperature"], one["top_p"], one["top_k"], one["min_p"], one["max_tokens"]) == (1.0, 1.0, 0, 0.0, 20)
    if protocol == "chat":
        assert one["messages"] == [{"role": "user", "content": "2 + 2 ="}]
    else:
        assert one["prompt"] == "Question: 2 + 2 =\nAnswer:"


@pytest.mark.parametrize("temperature", [1.0, 0.8])
@pytest.mark.parametrize("counts", [False, True])
def test_log_probabilities_are_asked_for_where_they_are_of_use(temperature: float, counts: bool) -> None:
    def count(answer: Answer, body: Body, number: int) -> None:
        answer.begin()
        longest = min(4, body["max_tokens"])
        for step in range(longest):
            finish = ("stop" if longest == 4 else "length") if step == longest - 1 else None
            one = {"index": 0, "delta": {"content": "so "}, "finish_reason": finish}
            if "logprobs" in body:
                one["logprobs"] = {"content": [{"token": "so ", "logprob": -0.5}]}
            usage = {"prompt_tokens": 7, "completion_tokens": step + 1}
            answer.event({"choices": [one]} | ({"usage": usage} if counts or finish else {}))
        answer.event("[DONE]")

    with serving(count) as server:
        rows, facts = ask(server, [replace(one, sampling=Sampling(temperature, max_tokens=20)) for one in asked(3)])
    sent = [body for body in server.bodies if not is_trial(body)]
    assert {"logprobs" in body for body in sent} == {temperature == 1.0 or not counts}
    assert [(row.completion_tokens, row.logprob) for row in rows] == [(4, -2.0 if temperature == 1.0 else None)] * 3
    assert facts["token_counts"] == {"usage": 3}


def test_the_conformance_check_passes() -> None:
    with serving(lambda answer, body, number: complete(answer, body, number, 24)) as server:
        model: Any = openai("toy", base_url=server.url)
        findings = check_model(model)
        model.close()
    assert [finding for finding in findings if not finding.ok] == []


def test_prompts_as_token_ids_are_the_native_engines() -> None:
    from harness.models.native import native

    with serving(complete) as server:
        ask(server, asked(1), protocol="completions", tokenizer="zoo/teacher")
    own: Any = native("zoo/teacher")
    text = own.render(asked(1)[0].prompt)
    assert text == "<|user|>2 + 2 =<|end|><|assistant|>"
    assert server.bodies[-1]["prompt"] == own.tokenizer(text, add_special_tokens=False)["input_ids"]


def test_samples_may_share_a_request() -> None:
    with serving(complete) as server:
        rows, facts = ask(server, asked(7), samples_per_request=3, logprobs=True)
    sizes = sorted(body.get("n", 1) for body in server.bodies if not is_trial(body))
    assert sizes == [1, 3, 3]
    assert [row.sample_index for row in rows] == list(range(7))
    firsts = [asked(7)[index].seed % 2**31 % 9973 for index in (0, 0, 0, 3, 3, 3, 6)]
    assert [int(row.text.split()[-1]) for row in rows] == [f + i for f, i in zip(firsts, [0, 1, 2] * 2 + [0])]  # noqa: B905
    assert {row.completion_tokens for row in rows} == {4}
    assert facts["token_counts"] == {"log-probabilities": 6, "usage": 1}
    assert facts["seeds"].startswith("of the first sample")


def test_a_server_that_does_not_sample_is_told() -> None:
    with serving(lambda answer, body, number: complete(answer, {**body, "seed": 1}, number)) as server:
        _, facts = ask(server, asked(3), extra_body='{"top_a": 1}')
    assert facts["repeated_texts"] == "2 of 2"
    assert {body["top_a"] for body in server.bodies} == {1}
    assert facts["extra_body"] == {"top_a": 1}


def test_a_server_without_n_is_refused_when_requests_are_to_be_shared() -> None:
    def single(answer: Answer, body: Body, number: int) -> None:
        complete(answer, {**body, "n": 1}, number)

    with serving(single) as server, pytest.raises(UserError, match="leave out samples_per_request=4"):
        ask(server, asked(4), samples_per_request=4)


def test_only_so_many_requests_are_in_flight() -> None:
    now, most, lock = [0], [0], threading.Lock()

    def watched(answer: Answer, body: Body, number: int) -> None:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        threading.Event().wait(0.01)
        with lock:
            now[0] -= 1
        complete(answer, body, number)

    with serving(watched) as server:
        rows, _ = ask(server, asked(12), max_concurrency=3)
    assert len(rows) == 12
    assert most[0] <= 3
    assert max(row.batch_size for row in rows) <= 3


def test_a_log_probability_is_recorded_only_where_it_is_that_of_the_sampler() -> None:
    with serving(complete) as server:
        rows, _ = ask(server, asked(1, Sampling(temperature=0.8, max_tokens=20)))
    assert rows[0].logprob is None


REFUSALS = {
    "logprobs": ("logprobs", "'logprobs' is not supported by this model"),
    "top_k": ("top_k", "Unrecognized request argument supplied: top_k"),
    "seed": ("seed", "extra fields not permitted: seed"),
    "usage": ("stream_options", "Unknown parameter: 'stream_options'"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_field_that_the_server_refuses_is_left_out_and_told(name: str) -> None:
    refused, message = REFUSALS[name]

    def picky(answer: Answer, body: Body, number: int) -> None:
        if refused in body:
            answer.say(400, {"error": {"message": message}})
        else:
            complete(answer, body, number)

    with serving(picky) as server:
        rows, facts = ask(server, asked(2))
    assert refused in facts["refused_fields"]
    assert "top_p" not in facts["refused_fields"]
    assert [(row.finish_reason, row.completion_tokens) for row in rows] == [("stop", 4)] * 2
    assert len(server.bodies) == 2 + 2


def test_a_server_that_does_not_say_which_field_it_minds() -> None:
    def mute(answer: Answer, body: Body, number: int) -> None:
        extra = {"min_p", "repetition_penalty", "top_k"} & set(body)
        answer.say(422, {"detail": [{"msg": "no"}]}) if extra else complete(answer, body, number)

    with serving(mute) as server:
        rows, facts = ask(server, asked(1))
        assert set(facts["refused_fields"]) == {"continuous_usage_stats", "min_p", "repetition_penalty", "top_k"}
        with pytest.raises(UserError, match="takes no top_k in the chat protocol, so 5 cannot be kept; add --top-k 0"):
            ask(server, asked(1, Sampling(top_k=5, max_tokens=20)))
    assert rows[0].finish_reason == "stop"


def test_the_longest_completion_has_two_names() -> None:
    def newer(answer: Answer, body: Body, number: int) -> None:
        if "max_tokens" in body:
            answer.say(400, {"error": {"message": "Use 'max_completion_tokens' instead."}})
        else:
            complete(answer, body, number)

    with serving(newer) as server:
        rows, facts = ask(server, asked(1))
    assert server.bodies[-1]["max_completion_tokens"] == 20
    assert (rows[0].finish_reason, facts["refused_fields"]) == ("stop", [])


def stubborn(gate: threading.Event) -> Any:
    """Three tokens, then nothing until the gate opens."""

    def script(answer: Answer, body: Body, number: int) -> None:
        answer.begin()
        for _ in range(3):
            answer.token("tick ")
        gate.wait(20)
        for _ in range(200):
            answer.token("late ")

    return after_trial(script)


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


def jump_after(monkeypatch: pytest.MonkeyPatch, tokens: int, seconds: float) -> FakeClock:
    """A clock that stands still until so many tokens have arrived, and then jumps."""
    clock, count = FakeClock(), flight.Flight.count

    def counted(self: flight.Flight, came: int) -> None:
        count(self, came)
        if self.tokens == tokens:
            clock.sleep(seconds)

    monkeypatch.setattr(flight.Flight, "count", counted)
    return clock


def test_at_the_deadline_partials_are_kept_and_the_server_is_hung_up_on(
    gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(stubborn(gate)) as server:
        model: Any = openai("toy", base_url=server.url, max_concurrency=2)
        deadline = Deadline(Budget(60), jump_after(monkeypatch, 6, 61))
        rows = list(model.generate(asked(4), deadline))
        gate.set()
        assert server.hung_up.wait(10)
        model.close()
    assert sorted(row.sample_index for row in rows) == [0, 1]  # the others had not begun
    for row in rows:
        assert (row.finish_reason, row.error, row.text) == ("deadline", None, "tick tick tick ")
        assert row.completion_tokens == 3
        assert (row.started_s, row.first_token_s, row.finished_s) == (0, 0, 61)
        assert row.batch_size == 2
    assert deadline.tokens == 6


def test_a_budget_of_tokens_stops_every_stream(gate: threading.Event) -> None:
    def endless(answer: Answer, body: Body, number: int) -> None:
        answer.begin()
        for _ in range(1000):
            answer.token("a ")
            gate.wait(0.005)

    with serving(after_trial(endless)) as server:
        model: Any = openai("toy", base_url=server.url)
        deadline = Deadline(Budget(30, "tokens"))
        rows = list(model.generate(asked(3, Sampling(max_tokens=500)), deadline))
        model.close()
    assert {row.finish_reason for row in rows} == {"deadline"}
    assert sum(row.completion_tokens for row in rows) == deadline.tokens
    assert 30 <= deadline.tokens <= 33


def test_a_budget_of_flops_is_refused() -> None:
    with serving(complete) as server, pytest.raises(UserError, match="knows no FLOPs; give the budget in seconds"):
        ask(server, asked(1), Budget(1e9, "flops"))


def test_a_stall_is_a_row(gate: threading.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(stubborn(gate)) as server:
        rows, facts = ask(server, asked(2), clock=jump_after(monkeypatch, 6, 121))
    assert {(row.finish_reason, row.error) for row in rows} == {("error", "the server sent nothing for 120 s")}
    assert [row.text for row in rows] == ["tick tick tick "] * 2
    assert (facts["failed_requests"], facts["retries"]) == (2, 0)


def failing(times: int, status: int = 503, **headers: str) -> Any:
    """Fails so often for each sample, then answers."""
    seen: dict[int, int] = {}
    lock = threading.Lock()

    def script(answer: Answer, body: Body, number: int) -> None:
        with lock:
            seen[body["seed"]] = seen.get(body["seed"], 0) + 1
        if seen[body["seed"]] <= times:
            answer.say(status, {"error": {"message": f"try later, {KEY}.\nPlease."}}, **headers)
        else:
            complete(answer, body, number)

    return after_trial(script)


def test_retries_are_told_and_outside_the_samples_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()

    def pause_s(self: flight.Flight, failure: Failure, attempt: int) -> float:
        clock.sleep(100)
        return 0.0

    monkeypatch.setattr(flight.Flight, "pause_s", pause_s)
    with serving(failing(2)) as server:
        rows, facts = ask(server, asked(3), Budget(50), clock, max_concurrency=1)  # shorter than one wait
    # The first sample answers 200 s late by the clock, within its budget by its own; then the scope's is used up.
    assert [(row.finish_reason, row.finished_s) for row in rows] == [("stop", 0.0)]
    assert (facts["retries"], facts["retry_wait_s"]) == (2, 200.0)
    assert facts["last_error"] == "the server answered 503 (try later, [key]. Please)"


def test_attempts_end_and_the_row_says_why() -> None:
    with serving(failing(99, 500)) as server:
        rows, facts = ask(server, asked(2), max_retries=2)
    assert [(row.finish_reason, row.completion_tokens) for row in rows] == [("error", 0)] * 2
    assert {row.error for row in rows} == {"the server answered 500 (try later, [key]. Please)"}
    assert len(server.bodies) == 1 + 2 * 3
    assert (facts["retries"], facts["failed_requests"]) == (4, 2)


def test_a_server_that_is_gone_is_not_asked_again_and_again() -> None:
    with serving(failing(99, 500)) as server:
        ask(server, asked(20), max_retries=1, max_concurrency=1)
    assert len(server.bodies) == 1 + flight.GIVEN_UP * 2 + (20 - flight.GIVEN_UP)


@pytest.mark.parametrize(("status", "body"), [(400, "bad prompt"), (404, "gone"), (501, "no")])
def test_what_asking_again_cannot_mend_is_not_asked_again(status: int, body: str) -> None:
    with serving(after_trial(lambda answer, *_: answer.say(status, {"message": body}))) as server:
        rows, _ = ask(server, asked(1))
    assert rows[0].error == f"the server answered {status} ({body})"
    assert len(server.bodies) == 2


def test_a_rate_limit_holds_every_request_back() -> None:
    with serving(failing(1, 429, Retry_After="0.3")) as server:
        rows, facts = ask(server, asked(3), max_concurrency=1)
    assert {row.finish_reason for row in rows} == {"stop"}
    assert facts["rate_limited"] == 3
    assert facts["retry_wait_s"] >= 0.9


def test_a_wait_that_is_too_long_is_a_failure() -> None:
    with serving(failing(1, 429, Retry_After="3600")) as server:
        rows, _ = ask(server, asked(1))
    assert rows[0].error == "the server answered 429 (try later, [key]. Please)"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [({"retry-after": "7"}, 7), ({"retry-after-ms": "250"}, 0.25), ({"retry-after": "soon"}, None), ({}, None),
     ({"retry-after": "1.5"}, 1.5), ({"retry-after": "Mon, 01 Jan 2001 00:00:00 GMT"}, 0),
     ({"retry-after-ms": "inf"}, None)],
)  # fmt: skip
def test_the_forms_of_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds


def test_retry_after_as_a_date() -> None:
    wait_s = retry_after({"retry-after": email.utils.formatdate(unix_s() + 100, usegmt=True)})
    assert wait_s is not None
    assert 90 < wait_s <= 101


def drop(answer: Answer, body: Body, number: int) -> None:
    """The connection ends in the middle of a chunked stream."""
    answer.protocol_version = "HTTP/1.1"
    answer.send_response(200)
    answer.send_header("Content-Type", "text/event-stream")
    answer.send_header("Transfer-Encoding", "chunked")
    answer.end_headers()
    data = b'data: {"choices": [{"index": 0, "delta": {"content": "half "}}]}\n\n'
    answer.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n" + b"ff\r\ndata")
    answer.wfile.flush()
    answer.close_connection = True


def stream(*events: Any) -> Any:
    """A script that sends these events and ends."""

    def script(answer: Answer, body: Body, number: int) -> None:
        answer.begin()
        for event in events:
            answer.event(event)

    return script


def choice(**parts: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": "so "}} | parts]}


MISDEEDS: dict[str, tuple[Any, str, str]] = {
    "a dropped stream": (drop, "half ", "the connection failed"),
    "an end without an end": (stream(choice(), choice()), "so so ", "stream ended before the completion did"),
    "nothing": (stream(), "", "stream ended before the completion did"),
    "done at once": (stream("[DONE]"), "", "stream ended before the completion did"),
    "an error in the stream": (stream(choice(), {"error": {"message": "out of memory"}}), "so ",
                               "the server broke off with an error (out of memory)"),
    "no JSON": (stream(choice(), "{half"), "so ", "the server's answer cannot be read (JSONDecodeError"),
    "a list": (stream([1, 2]), "", "a chunk that is no object"),
    "choices that are text": (stream({"choices": "abc"}), "", "a choice that is no object ('a')"),
    "a delta that is text": (stream(choice(delta="so ")), "", "a delta that is no object ('so ')"),
    "log-probabilities that are text": (stream(choice(logprobs="low")), "", "the server's answer cannot be read"),
    "an unknown choice": (stream(choice(index=5)), "", "a choice number 5 that was not asked for"),
    "a number as text": (stream(choice(delta={"content": 5})), "", "a text that is none"),
    "no delta": (stream({"choices": [{"index": 0}]}), "", "stream ended before the completion did"),
    "a filter": (stream(choice(finish_reason="content_filter")), "so ", "for another reason (content_filter)"),
    "a page": (lambda answer, *_: answer.say(200, "<html>welcome</html>"), "", "stream ended before the completion"),
    "no end": (stream(*[choice()] * 2000), "so " * 104, "far past max_tokens"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISDEEDS)
def test_nonsense_is_a_row_with_a_sentence(name: str) -> None:
    script, text, sentence = MISDEEDS[name]
    with serving(after_trial(script)) as server:
        rows, facts = ask(server, asked(1), max_retries=1)
    row = rows[0]
    assert (row.finish_reason, row.text[: len(text)]) == ("error", text)
    assert row.error is not None
    assert sentence in row.error
    assert "\n" not in row.error
    assert facts["failed_requests"] + (name in ("a filter",) or "stream ended" in sentence) == 1


def test_reasoning_that_the_server_splits_off_is_part_of_the_text() -> None:
    script = stream(
        choice(delta={"reasoning_content": "hm "}), choice(delta={"reasoning": "so "}), choice(finish_reason="stop"),
        "[DONE]",
    )  # fmt: skip
    with serving(after_trial(script)) as server:
        rows, facts = ask(server, asked(1))
    assert (rows[0].text, rows[0].completion_tokens) == ("<think>hm so </think>so ", 3)
    assert facts["token_counts"] == {"chunks": 1}
    assert facts["requests_without_usage"] == 1


def test_usage_that_is_no_object_says_nothing() -> None:
    script = stream(
        choice(), choice(finish_reason="stop") | {"usage": "many"}, {"choices": None, "usage": [7]}, "[DONE]"
    )
    with serving(after_trial(script)) as server:
        rows, facts = ask(server, asked(1))
    assert (rows[0].finish_reason, rows[0].completion_tokens) == ("stop", 2)
    assert facts["requests_without_usage"] == 1


def test_a_server_that_is_not_there() -> None:
    with serving(complete) as server:
        pass
    with pytest.raises(UserError, match=rf"no server answers at {server.url}: the connection failed .*--base-url"):
        openai("toy", base_url=server.url)


def test_a_server_that_speaks_something_else() -> None:
    with serving(complete, models={"hello": 1}) as server, pytest.raises(UserError, match=r"usually ends in /v1"):
        openai("toy", base_url=server.url)


def test_a_key_that_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    def locked(answer: Answer, body: Body, number: int) -> None:
        answer.say(401, {"error": {"message": f"Incorrect API key provided: {KEY}"}})

    with serving(locked, models=401) as server:
        with pytest.raises(UserError, match=r"wants a key and OPENAI_API_KEY holds another") as caught:
            openai("toy", base_url=server.url)
        assert KEY not in str(caught.value)
        monkeypatch.delenv("OPENAI_API_KEY")
        with pytest.raises(UserError, match=r"OPENAI_API_KEY is not set"):
            openai("toy", base_url=server.url)
        with pytest.raises(UserError, match=r"OTHER is not set"):
            openai("toy", base_url=server.url, key_variable="OTHER")


def test_a_model_that_is_not_there() -> None:
    def none(answer: Answer, body: Body, number: int) -> None:
        answer.say(404, {"error": {"message": "The model `tay` does not exist."}})

    with serving(none) as server, pytest.raises(UserError, match=r"does not run 'tay' \(it has toy\): .*404"):
        openai("tay", base_url=server.url)


def test_a_server_that_cannot_stream_or_has_no_list_of_models() -> None:
    whole = serving(lambda answer, *_: answer.say(200, {"choices": []}), models=404)
    with whole as server, pytest.raises(UserError, match="must be able to stream"):
        openai("toy", base_url=server.url)
    with serving(complete, models=404) as server:
        rows, _ = ask(server, asked(1))
    assert rows[0].finish_reason == "stop"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"base_url": f"http://user:{KEY}@localhost/v1"}, "must hold no user, password"),
        ({"base_url": f"http://localhost/v1?key={KEY}"}, "must hold no user, password"),
        ({"base_url": "localhost:8000"}, "is no address"),
        ({"base_url": "http://[1/v1"}, "is no address"),
        ({"protocol": "speech"}, "there is no protocol 'speech'; write one of chat, completions"),
        ({"max_concurrency": 0}, "max_concurrency must be at least 1, got 0"),
        ({"stall_s": 0}, "stall_s must be above 0"),
        ({"tokenizer": "zoo/teacher"}, "goes with protocol=completions"),
        ({"extra_body": "[1]"}, "extra_body wants a JSON object, got"),
        ({"extra_body": '{"seed": 5}'}, "extra_body must not hold seed"),
        ({"key_variable": "sk-1/2"}, "wants the name of an environment variable"),
    ],
)
def test_settings_that_mean_nothing(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        openai("toy", **({"base_url": "http://localhost:1/v1"} | options))
    assert KEY not in str(caught.value)


def test_a_whole_run_and_the_key_is_nowhere_in_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    from harness.plugins import load_task
    from harness.progress import chooser
    from harness.running.bench import Arm, Plan, bench_arm

    def mixed(answer: Answer, body: Body, number: int) -> None:
        answer.say(500, {"error": {"message": f"no {KEY}"}}) if number % 3 == 0 else complete(answer, body, number)

    caplog.set_level("DEBUG")
    plan = Plan("arithmetic", (), None, 3, "latency", Budget(20.0), 4, Sampling(max_tokens=20))
    with serving(after_trial(mixed)) as server:
        arm = Arm("toy", "openai", (f"base_url={server.url}", "max_retries=3"), tmp_path / "run")
        run = bench_arm(arm, plan, load_task("arithmetic"), chooser(True))
    assert len(run.completions()) == 12
    assert run.manifest["engine"]["base_url"] == server.url
    assert run.manifest["engine"]["retries"] > 0
    assert f"Bearer {KEY}" in {value for headers in server.headers for value in headers.values()}
    stored = b"".join(file.read_bytes() for file in (tmp_path / "run").rglob("*") if file.is_file())
    texts = [json.dumps(run.completions()), json.dumps(run.manifest), caplog.text, *capfd.readouterr()]
    assert KEY.encode() not in stored
    assert all(KEY not in text for text in texts)


def test_a_server_that_answers_with_the_key_is_not_believed() -> None:
    """As one for debugging does, which answers with what it was sent."""

    def echo(answer: Answer, body: Body, number: int) -> None:
        answer.begin()
        answer.token(f"Bearer {KEY}, ", 0, None)
        answer.token("4", 0, "stop")
        answer.usage(3, 2)

    with serving(after_trial(echo)) as server:
        (row,), facts = ask(server, asked(1))
    assert row.text == "Bearer [key], 4"
    assert KEY not in json.dumps(facts)
