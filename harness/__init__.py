"""`ttc`: how accurate a reasoning model is for the time it is given.

This is the core: nouns, budgets and clocks, the runner, records, plugin look-up and the command line. It knows no task,
model, selector or report; those live in the rooms `harness.tasks`, `harness.models`, `harness.selectors` and
`harness.reports`, and are found by name. In a notebook `harness.open_run(DIR)` opens a stored run.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.notebook import open_run

__version__ = "0.1.0"
__all__ = ["__version__", "open_run"]


def __getattr__(name: str) -> Any:
    """Import what notebooks need only when it is asked for, so that the command line stays fast."""
    if name == "open_run":
        from harness.notebook import open_run

        return open_run
    raise AttributeError(f"module 'harness' has no attribute '{name}'")
