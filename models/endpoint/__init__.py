"""A server that speaks OpenAI's protocol as an engine: requests in flight, answers as they stream in, failures as rows.

Everything that waits for the server runs in one event loop in a thread of its own, so that tokens get the time at which
they arrive, whatever the harness is doing. The clock is the client's: the network and the server's queue are in it.
"""
