"""What a run is doing, on standard error: live on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import TypeVar

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress import Progress as Bars
from rich.table import Table

from boost_qa.runner import Finished, Job, Stats

T = TypeVar("T")
SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """Shows progress while a `with` block runs; `show=False` shows nothing."""

    def __init__(self, show: bool = True) -> None:
        self.console = Console(stderr=True, quiet=not show)
        self.show = show
        self.bars = Bars(
            TextColumn("{task.description}"), BarColumn(),
            DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn(),
            console=self.console, transient=True, disable=not (show and self.console.is_terminal),
        )  # fmt: skip
        self.tasks: dict[str, object] = {}
        self.said: dict[str, float] = {}
        self.begun: dict[str, tuple[float, int]] = {}

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bars.stop()

    def say(self, text: str) -> None:
        self.console.print(text, style="dim", highlight=False, markup=False, soft_wrap=True)

    def bytes(self, done: int, total: int | None, what: str) -> None:
        """A download or another work on bytes; called again and again with the same `what`."""
        if what not in self.tasks:
            self.bars.start()
            self.tasks[what] = self.bars.add_task(what, total=total)
        self.bars.update(self.tasks[what], completed=done, total=total)  # type: ignore[arg-type]
        if done == total:
            self.bars.remove_task(self.tasks.pop(what))  # type: ignore[arg-type]
        if self._due(what):
            of = f" of {total / 1e6:,.0f} MB" if total else ""
            self.say(f"{what}: {done / 1e6:,.0f} MB{of}")
        if not self.tasks:
            self.bars.stop()

    def texts(self, done: int, total: int) -> None:
        """Texts embedded so far."""
        if total >= 1000 and (done == total or self._due("embedding")):
            self.say(f"embedded {done:,} of {total:,} questions")

    def seeds(self, done: int, total: int, probabilities: Mapping[str, float]) -> None:
        """Seed records tailored so far, and the pair that is drawn most."""
        self.bars.stop()
        now = time.monotonic()
        begun, before = self.begun.setdefault("seeds", (now, done))
        if done == total or self._due("seeds", anywhere=True):
            best = max(probabilities, key=probabilities.__getitem__, default="")
            left = f", {(now - begun) / (done - before) * (total - done):,.0f} s left" if before < done < total else ""
            share = f"; {best} at {probabilities[best]:.0%}" if best else ""
            self.say(f"{done:,} of {total:,} seed records{share}{left}")

    def follow(self, finished: Iterator[Finished[T]], jobs: Sequence[Job[T]], stats: Stats) -> Iterator[Finished[T]]:
        """Pass on what finishes and show how far the run is."""
        board = _Board(jobs, stats, self.console)
        live = Live(get_renderable=board.table, console=self.console, refresh_per_second=4, transient=True)
        if self.show and self.console.is_terminal:
            self.bars.stop()
            live.start()
        try:
            for end in finished:
                board.count(end)
                if not live.is_started and self._due("run"):
                    self.say(board.line())
                yield end
        finally:
            if live.is_started:
                live.stop()
            self.say(board.line())

    def _due(self, what: str, anywhere: bool = False) -> bool:
        """Whether it is time for another line, where there is no terminal to draw on, or `anywhere`."""
        now = time.monotonic()
        if (self.console.is_terminal and not anywhere) or now - self.said.setdefault(what, now) < SECONDS_BETWEEN_LINES:
            return False
        self.said[what] = now
        return True


class _Board:
    """The figures of a run under way."""

    def __init__(self, jobs: Sequence[Job[T]], stats: Stats, console: Console) -> None:
        self.stats, self.began = stats, time.monotonic()
        self.totals = Counter(job.scenario for job in jobs)
        self.kept: Counter[str] = Counter()
        self.rejected: Counter[str] = Counter()
        self.replayed = 0  # dialogues that came from the journal alone
        self.bar = Bars(
            TextColumn("dialogues"), BarColumn(), MofNCompleteColumn(),
            TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), console=console,
        )  # fmt: skip
        self.task = self.bar.add_task("", total=len(jobs))

    def count(self, end: Finished[T]) -> None:
        (self.kept if end.rejected is None else self.rejected)[end.job.scenario] += 1
        if not any(model.requests for model in list(self.stats.models.values())):
            self.replayed, self.began = self.done, time.monotonic()  # rates are those of the models
        self.bar.update(self.task, completed=self.done)

    @property
    def done(self) -> int:
        return self.kept.total() + self.rejected.total()

    def tokens(self) -> tuple[int, float]:
        """Tokens generated, and per second."""
        tokens = sum(model.completion_tokens for model in list(self.stats.models.values()))
        return tokens, tokens / max(time.monotonic() - self.began, 1e-9)

    def line(self) -> str:
        tokens, rate = self.tokens()
        total, seconds, played = self.totals.total(), time.monotonic() - self.began, self.done - self.replayed
        left = f", {seconds / played * (total - self.done):,.0f} s left" if played and self.done < total else ""
        return (
            f"{self.done:,} of {total:,} dialogues ({self.rejected.total():,} rejected), "
            f"{tokens:,} tokens at {rate:,.0f}/s, {seconds:,.0f} s{left}"
        )

    def table(self) -> RenderableType:
        scenarios = Table(box=None, padding=(0, 2), header_style="dim")
        for name in ("scenario", "kept", "rejected", "of"):
            scenarios.add_column(name, justify="left" if name == "scenario" else "right")
        for name, total in self.totals.items():
            scenarios.add_row(name, f"{self.kept[name]:,}", f"{self.rejected[name]:,}", f"{total:,}")
        models = Table(box=None, padding=(0, 2), header_style="dim")
        for name in ("model", "asked", "busy", "waiting", "prompt tokens", "tokens", "tokens/s"):
            models.add_column(name, justify="left" if name == "model" else "right")
        seconds = max(time.monotonic() - self.began, 1e-9)
        for name, each in list(self.stats.models.items()):
            models.add_row(
                name, f"{each.requests:,}", f"{each.busy}/{each.slots}", f"{each.waiting:,}",
                f"{each.prompt_tokens:,}", f"{each.completion_tokens:,}", f"{each.completion_tokens / seconds:,.0f}",
            )  # fmt: skip
        return Group(scenarios, "", models, "", self.bar)
