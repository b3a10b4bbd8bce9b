"""The engine `openai`: any server that speaks OpenAI's chat or completions protocol, on this machine or elsewhere.

`endpoint` does the work. Nothing of the `openai` package is imported before the engine is asked for.
"""

from dataclasses import replace
from importlib.util import find_spec

from harness.errors import UserError
from harness.nouns import Model

from .endpoint.settings import Protocol, Settings, read_body, read_key


def openai(
    checkpoint: str,
    *,
    base_url: str = "https://api.openai.com/v1",
    protocol: Protocol = "chat",
    served_model: str = "",
    tokenizer: str = "",
    key_variable: str = "OPENAI_API_KEY",
    max_concurrency: int = 64,
    samples_per_request: int = 1,
    logprobs: bool = True,
    stall_s: float = 120.0,
    max_retries: int = 5,
    longest_wait_s: float = 60.0,
    extra_body: str = "",
) -> Model:
    """Ask a server that speaks OpenAI's protocol.

    Args:
        checkpoint: the model's name at the server.
        base_url: the server's address, usually with /v1 at its end.
        protocol: `chat` sends messages and leaves the template to the server; `completions` sends text.
        served_model: the model's name at the server where it is another than the checkpoint's.
        tokenizer: a checkpoint whose chat template and tokenizer turn prompts into token ids for `completions`, so that
            the server reads exactly what the native engine would.
        key_variable: the environment variable that holds the key; without it none is sent.
        max_concurrency: requests in flight at most.
        samples_per_request: samples of a problem that share a request (`n`), its prompt and its seed.
        logprobs: ask for log-probabilities where they are those of the sampler, or where the server does not count
            tokens as they come and they do.
        stall_s: seconds without a word from the server after which a request has failed.
        max_retries: attempts after the first, for a request that has failed before its first token.
        longest_wait_s: longest wait that a server may ask for before a request has failed.
        extra_body: more fields of every request, as a JSON object; they are recorded.

    Raises UserError when the package is missing, a setting means nothing, or the server cannot be used: it is not
    there, wants another key, has no such model or does not stream.
    """
    if find_spec("openai") is None:
        raise UserError("the engine openai needs the package openai; type: pip install 'ttc-harness[openai]'")
    settings = Settings(
        model=served_model or checkpoint,
        base_url=base_url.rstrip("/"),
        protocol=protocol,
        max_concurrency=max_concurrency,
        samples_per_request=samples_per_request,
        logprobs=logprobs,
        stall_s=stall_s,
        max_retries=max_retries,
        longest_wait_s=longest_wait_s,
        key_variable=key_variable,
        extra_body=read_body(extra_body),
        tokenizer_name=tokenizer,
        key=read_key(key_variable),
    )
    if tokenizer:
        from .checkpoints import find_checkpoint
        from .tokenizers_ import load_tokenizer

        settings = replace(settings, tokenizer=load_tokenizer(find_checkpoint(tokenizer)))
    from .endpoint.serving import connect

    return connect(settings)
