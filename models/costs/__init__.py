"""What a model costs: operations, bytes, memory and time, from the shape of its config; see docs/costs.md."""
