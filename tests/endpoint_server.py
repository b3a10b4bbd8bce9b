"""A small server that speaks OpenAI's protocol over real sockets, and misbehaves as a test tells it to."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Body = Mapping[str, Any]


class Answer(BaseHTTPRequestHandler):
    """One request on its way; what a script writes with."""

    server: "Sockets"

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.server.state.headers.append(dict(self.headers))
        self.server.state.look(self)

    def do_POST(self) -> None:
        state = self.server.state
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with state.lock:
            state.headers.append(dict(self.headers))
            state.bodies.append(body | {"path": self.path})
            number = len(state.bodies)
        try:
            state.script(self, body, number)
        except (BrokenPipeError, ConnectionResetError):
            state.hung_up.set()

    def say(self, status: int, body: Any, **headers: str) -> None:
        """A whole answer that is no stream."""
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/html" if isinstance(body, str) else "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def begin(self) -> None:
        """Begin a stream."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()

    def event(self, data: Any) -> None:
        """One event of a stream."""
        self.wfile.write(f"data: {data if isinstance(data, str) else json.dumps(data)}\n\n".encode())
        self.wfile.flush()

    def token(self, text: str, index: int = 0, finish: str | None = None, logprob: float | None = -0.5) -> None:
        """A chunk with one token, in the form of the protocol that was asked."""
        if "chat" in self.path:
            entry: dict[str, Any] = {"token": text, "logprob": logprob, "top_logprobs": []}
            told: Any = None if logprob is None else {"content": [entry]}
            choice: dict[str, Any] = {"index": index, "delta": {"content": text}, "logprobs": told}
        else:
            told = None if logprob is None else {"tokens": [text], "token_logprobs": [logprob]}
            choice = {"index": index, "text": text, "logprobs": told}
        self.event({"id": "x", "model": "m-1", "choices": [choice | {"finish_reason": finish}]})

    def usage(self, prompt: int, completion: int) -> None:
        """The chunk of usage that ends a stream, and the end."""
        tokens = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
        self.event({"id": "x", "model": "m-1", "choices": [], "usage": tokens})
        self.event("[DONE]")


Script = Callable[[Answer, Body, int], None]


class Sockets(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    state: "Server"

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


@dataclass
class Server:
    """What a test sees of the server. `bodies` are the requests in the order of arrival, the trial's among them."""

    script: Script
    models: Any = field(default_factory=lambda: {"object": "list", "data": [{"id": "toy"}]})
    url: str = ""
    bodies: list[Any] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    hung_up: threading.Event = field(default_factory=threading.Event)
    """Set when a client closed its connection while it was written to."""

    def look(self, answer: Answer) -> None:
        """Answer a question for the models."""
        if isinstance(self.models, int):
            answer.say(self.models, {"error": {"message": "no list here"}})
        else:
            answer.say(200, self.models)


@contextmanager
def serving(script: Script, **settings: Any) -> Iterator[Server]:
    """A server at `url` until the end of the block."""
    sockets = Sockets(("127.0.0.1", 0), Answer)
    sockets.state = Server(script, url=f"http://127.0.0.1:{sockets.server_address[1]}/v1", **settings)
    thread = threading.Thread(target=sockets.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield sockets.state
    finally:
        sockets.shutdown()
        sockets.server_close()
        thread.join()


def is_trial(body: Body) -> bool:
    """Whether this is the request that looks what the server takes."""
    return bool(body.get("max_tokens", body.get("max_completion_tokens")) == 2)


def complete(answer: Answer, body: Body, number: int, words: int = 4) -> None:
    """A good answer: so many words, the last one depends on the seed; as many samples as `n` says."""
    answer.begin()
    count = min(words, body.get("max_tokens", words))
    for step in range(count):
        for index in range(body.get("n", 1)):
            ended = step == count - 1
            finish = ("stop" if count == words else "length") if ended else None
            answer.token(f"{body.get('seed', 0) % 9973 + index if ended else 'word'} ", index, finish)
    answer.usage(7, count * body.get("n", 1))
