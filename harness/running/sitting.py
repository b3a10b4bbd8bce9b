"""One sitting of a run, a segment of its manifest: how it began and ended, and what befell it in between."""

from typing import Any

from harness.budgets import Clock
from harness.faults import sentence_of
from harness.nouns import Model
from harness.running.probe import Surroundings
from harness.running.validity import TROUBLES
from harness.storage.manifest import machine
from harness.storage.runs import Run


class Sitting:
    """Notes in the manifest that a sitting begins; a segment that stays `running` was killed."""

    def __init__(self, run: Run, model: Model, load_s: float, warmup_s: float, clock: Clock) -> None:
        self.run, self.model, self.status = run, model, "failed"
        self.number = len(run.manifest["segments"])
        self.segment: dict[str, Any] = {
            "segment": self.number,
            "status": "running",
            "load_s": load_s,
            "warmup_s": warmup_s,
        }
        run.manifest["segments"].append(self.segment)
        run.manifest["machine"] = machine()
        run.manifest["engine"] = self.facts()
        run.save()
        self.before = self.facts()
        self.surroundings = Surroundings(clock)
        self.surroundings.probe()

    def facts(self) -> dict[str, Any]:
        """What the model tells of itself now, or why it cannot."""
        try:
            return dict(getattr(self.model, "facts", {}))
        except Exception as error:
            return {"fault": sentence_of(f"model {self.model.name}", error)}

    def hung(self, sentence: str) -> None:
        """Note why the watchdog ends the process."""
        self.segment |= {"status": "hung", "error": sentence}
        self.run.save()

    def close(self, grade_s: float) -> None:
        """Note what the sitting took; `status` has been set to how it ended."""
        import pyarrow.compute as pc

        self.surroundings.probe()
        timing = self.run.timing_table()
        inside = timing.filter(pc.equal(timing["segment"], self.number))["elapsed_s"]
        facts = self.facts()
        self.segment |= {
            "status": self.status,
            "generate_s": pc.sum(inside).as_py() or 0.0,
            "grade_s": grade_s,
            "troubles": {name: facts[name] - self.before.get(name, 0) for name in TROUBLES if name in facts},
            **self.surroundings.facts(),
        }
        self.run.manifest["engine"] = facts
        self.run.save()
