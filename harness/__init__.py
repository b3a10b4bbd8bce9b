"""`ttc`: how accurate a reasoning model is for the time it is given.

This is the core: nouns, budgets and clocks, the runner, records, plugin look-up and the command line. It knows no task,
model, selector or report; those live in the rooms `harness.tasks`, `harness.models`, `harness.selectors` and
`harness.reports`, and are found by name.
"""

__version__ = "0.1.0"
