"""A sitting with workers: what they draw is taken in, stored by this one process and noted in the manifest.

The counterpart of `running.runner.run_scopes` and `running.sitting` for a bench whose model lives in other processes.
Who gets what is in `workers.errands`, the workers' side in `workers.replica`, Ray in `workers.team`.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.budgets import Clock, Deadline
from harness.errors import UserError
from harness.faults import Fault
from harness.nouns import Problem, Task
from harness.progress import Progress, ShowProgress
from harness.running.bench import check_prompts
from harness.running.finishing import grade_ungraded
from harness.running.overshoot import ENDED, INTERRUPTED
from harness.running.rescoring import note_uses, unscored_of
from harness.running.runner import SHOW_S, Writer
from harness.running.scopes import Scope
from harness.running.watchdog import grace_wished
from harness.storage.runs import Run, make_run
from harness.workers.errands import Deal, Out, Parcel
from harness.workers.replica import Order
from harness.workers.team import DEATHS, Crew, News, Slot, Team, connected, gpus_of, packed

if TYPE_CHECKING:
    from harness.running.bench import Arm, Plan

SUMMED = ("scored", "unscored", "late", "failed", "score_s", "flops")
"""What the workers' reward models tell that adds up; of what else they tell the most counts."""
Row = dict[str, Any]


def sample_with(
    crew: Crew, arm: "Arm", asked: "Plan", task: Task, problems: Sequence[Problem], run: Run | None,
    spec: Mapping[str, Any], scopes: Sequence[Scope], show: ShowProgress, clock: Clock,
) -> Run:  # fmt: skip
    """Have the workers draw the scopes as one segment, and grade what they can; the run is made if it is new.

    Raises UserError, and what an engine raises, after storing the whole completions that came.
    """
    with connected(crew):
        import ray

        owed, scopes = unscored_of(run, asked.reward_models, problems, scopes) if run else ({}, list(scopes))
        deal = Deal(scopes, problems, asked.budget, crew.workers, asked.reward_models, owed)
        segment = len(run.manifest["segments"]) if run else 0
        order = Order(arm, asked, problems, deal.calls(), segment, str(Path.cwd()), grace_wished(), packed(task))
        with closing(Team(order, crew, gpus_of(arm.engine, arm.options, ray.cluster_resources()))) as team:
            # All start together where they share one clock.
            gather(team, everybody=deal.waves is not None)
            name, prompts = team.name_and_prompts()
            rows = [
                {"problem_id": one.id, "prompt": prompt, "gold": one.gold, "meta": one.meta}
                for one, prompt in zip(problems, prompts, strict=True)
            ]
            run = check_prompts(run, rows) if run else make_run(arm.path, spec, rows)
            shift = Shift(run, team, deal, scopes, clock)
            total = sum(len(scope.requests) for scope in scopes)
            with closing(shift), show(f"sampling {name}", total) as progress:
                shift.work(progress)
                shift.grade(task, problems)
    return run


def gather(team: Team, everybody: bool) -> None:
    """Wait until a worker is ready, or as many as there is room for."""
    while len(team.idle()) < (max(1, team.room()) if everybody else 1):
        for news in team.news():
            if news.kind == "died":
                bury(team, news)


def bury(team: Team, news: News) -> None:
    """Replace a dead worker. Raises UserError when one dies in the same place again and again."""
    slot = news.slot
    slot.deaths += 1
    if slot.record:
        slot.record["status"] = "died"
    on = slot.out.errand.deaths + 1 if slot.out else 0
    if max(slot.deaths, on) >= DEATHS:
        what = f"on problem {slot.out.errand.problem_id}" if slot.out and slot.out.errand.problem_id else "in a row"
        raise UserError(
            f"workers died {DEATHS} times {what} ({news.value}); what was finished is stored: look for a lack of "
            "memory on their node, then type the same command to go on"
        )
    team.replace(slot)


class Shift:
    """One sitting with workers. Notes in the manifest that it begins; a segment that stays `running` was killed."""

    def __init__(self, run: Run, team: Team, deal: Deal, scopes: Sequence[Scope], clock: Clock) -> None:
        self.run, self.team, self.deal, self.clock = run, team, deal, clock
        self.crew = len(team.slots)
        self.number = len(run.manifest["segments"])
        self.segment: Row = {"segment": self.number, "status": "running", "crew": self.crew, "workers": []}
        self.writer = Writer(run, clock, self.number)
        self.done = self.correct = self.graded = 0
        self.grade_s = 0.0
        self.timings: list[Row] = []
        self.arrived: dict[int, float] = {}
        """When each worker that is there was hired, by slot."""
        for slot in team.idle():
            self.hire(slot)
        first = team.idle()[0].record
        devices = max(1, team.gpus)
        run.manifest["segments"].append(self.segment)
        run.manifest["machine"], run.manifest["engine"] = first["machine"], first["engine"]
        run.manifest["workers"] = {"count": self.crew, "devices": self.crew * devices, "devices_each": devices}
        run.save()
        self.scope = scopes[0] if deal.waves is not None else Scope(None, ())
        self.budget = deal.waves.budget if deal.waves is not None else None
        self.deadline = Deadline(None, clock)
        self.told_at = clock()

    def hire(self, slot: Slot) -> None:
        """Note a worker that is ready."""
        slot.record |= {"errands": 0, "completions": 0, "busy_s": 0.0, "there_s": 0.0}
        self.arrived[slot.number] = self.clock()
        self.segment["workers"].append(slot.record)

    def work(self, progress: Progress) -> None:
        """Hand out everything and take in what comes of it."""
        try:
            self.deadline = self.scope.start(self.budget, self.clock)
            while self.hand_out():
                for news in self.team.news():
                    self.hear(news)
                self.tell(progress)
            self.segment["status"] = "finished"
        except Fault as fault:
            self.segment["error"] = str(fault)
            raise
        except KeyboardInterrupt:
            self.segment["status"] = "interrupted"
            raise
        finally:
            if self.segment["status"] == "running":
                self.segment["status"] = "failed"
            for slot in self.team.slots:
                self.leave(slot)
            if self.deal.waves is not None:
                self.writer.time(self.timing_of_all())
            self.writer.close()

    def hand_out(self) -> bool:
        """Give every idle worker something to do; False when nobody has anything to do any more."""
        idle = self.team.idle()
        for slot in idle:
            if errand := self.deal.next(slot.number, self.deadline):
                self.team.send(slot, errand)
        # What is left although somebody was free to take it is past its deadline.
        return bool(self.team.busy()) or (self.deal.left > 0 and not idle)

    def hear(self, news: News) -> None:
        """Take in what a worker did."""
        slot, out = news.slot, news.slot.out
        if news.kind == "ready":
            self.hire(slot)
        elif news.kind == "parcel" and out is not None:
            self.take(slot, out, news.value)
        elif out is not None:
            self.deal.end(slot.number, out, news.kind == "died")
            if news.kind == "back" and self.deal.waves is None:
                self.done += len(out.errand.places) - len(out.answered)
        if news.kind == "died":
            self.leave(slot)
            bury(self.team, news)

    def leave(self, slot: Slot) -> None:
        """Note for how long a worker was there while there was work, or waited for some."""
        if slot.number in self.arrived:
            slot.record["there_s"] = self.clock() - self.arrived.pop(slot.number)

    def take(self, slot: Slot, out: Out, parcel: Parcel) -> None:
        """Store a parcel, and note the worker's facts when it is an errand's last."""
        self.deal.take(out, parcel)
        now = self.clock()
        for completion in parcel.completions:
            self.writer.add(completion, now)
        self.writer.score(parcel.scores)
        self.writer.grade(parcel.verdicts)
        self.done += len(parcel.completions)
        self.graded += len(parcel.verdicts)
        self.correct += sum(row["verdict"] == "correct" for row in parcel.verdicts)
        self.grade_s += parcel.grade_s
        slot.deaths = 0 if parcel.completions else slot.deaths
        record = slot.record
        record["completions"] += len(parcel.completions)
        for row in parcel.timings:
            record["busy_s"] += row["elapsed_s"]
            if row["problem_id"] is None:
                self.timings.append(row)
            else:
                self.writer.time(row)
        if parcel.facts is not None:
            record |= {**parcel.facts, "errands": record["errands"] + 1}

    def tell(self, progress: Progress) -> None:
        """Update the display now and then, and at the end."""
        now = self.clock()
        if now - self.told_at >= SHOW_S or not self.team.busy():
            self.told_at = now
            parts = [f"{len(self.team.busy())} of {self.crew} workers"]
            if self.budget is not None and self.budget.unit == "seconds":
                parts.append(f"{self.deadline.left:.3g}s left")
            if self.graded:
                parts.append(f"{self.correct / self.graded:.0%} correct")
            progress.update(self.done, " · ".join(parts))

    def timing_of_all(self) -> Row:
        """The one timing row of a scope that the workers shared: their clock, their sums, the worst overshoot."""
        seconds = self.budget is None or self.budget.unit == "seconds"
        used = {"flops": self.scope.used_flops, "tokens": float(self.scope.used_tokens)}
        spent = self.deadline.elapsed_s
        if not seconds and self.budget is not None:
            spent = used[self.budget.unit] + sum(self.deal.spent.values())
        return {
            "segment": self.number,
            "phase": ENDED if self.segment["status"] == "finished" else INTERRUPTED,
            "problem_id": None,
            "elapsed_s": self.deadline.elapsed_s - self.scope.used_s,
            "spent": spent,
            **{name: worst(self.timings, name) for name in ("overshoot_s", "overshoot_steps", "overshoot")},
            "outside_s": sum(row["outside_s"] or 0.0 for row in self.timings) / self.crew,
        }

    def grade(self, task: Task, problems: Sequence[Problem]) -> None:
        """Have the workers grade what has no verdict; what they cannot is left for the end of the bench."""
        from ray.exceptions import RayActorError

        began = self.clock()
        try:
            grade_ungraded(self.run, task, problems, self.clock, self.team.grade)
        except RayActorError:
            pass
        finally:
            self.grade_s += self.clock() - began

    def close(self) -> None:
        """Note what the sitting took, and what the workers tell last."""
        import pyarrow.compute as pc

        self.team.close()
        records: list[Row] = self.segment["workers"]
        judged = [record.pop("judges", []) for record in records]
        timing = self.run.timing_table()
        inside = timing.filter(pc.equal(timing["segment"], self.number))["elapsed_s"]
        self.segment |= {
            "load_s": max(record["load_s"] for record in records),
            "warmup_s": max(record["warmup_s"] for record in records),
            "generate_s": pc.sum(inside).as_py() or 0.0,
            "grade_s": self.grade_s,
            "troubles": summed_counts(record["troubles"] for record in records),
        }
        self.run.manifest["engine"] = records[0]["engine"]
        note_uses(self.run, pooled(judged), sitting=self.number)
        self.run.save()


def summed_counts(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Counts by name, added up; a name that counts nothing stays."""
    found: dict[str, int] = {}
    for each in counts:
        for name, count in each.items():
            found[name] = found.get(name, 0) + count
    return found


def worst(rows: Sequence[Row], name: str) -> float | None:
    """The largest value of a column, None where there is none."""
    return max((row[name] for row in rows if row[name] is not None), default=None)


def pooled(judged: Sequence[Sequence[Row]]) -> list[Row]:
    """What the reward models of all workers did, one entry for each reward model."""
    found = []
    for facts in zip(*[one for one in judged if one], strict=True):
        sums = {name: sum(each[name] for each in facts) for name in SUMMED}
        most = {name: max(each[name] for each in facts) for name in ("load_s", "warmup_s")}
        found.append({**facts[0], **sums, **most, "errors": summed_counts(each["errors"] for each in facts)})
    return found
