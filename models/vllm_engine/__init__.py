"""vLLM under a deadline: settings, start-up, our own loop over its steps, and the model around them.

The engine runs in this process (`VLLM_ENABLE_V1_MULTIPROCESSING=0`). A separate engine process would go on decoding
while the harness scores or stores a completion, and past a deadline until an abort has reached it; it would have to be
found and ended after a crash; and its tokens would cross a socket. Here every step is a call: the deadline is looked at
between two of them, nothing runs when nobody waits, and a kill ends all of it. Only tensor parallelism has processes of
its own, which end with this one.
"""
