"""A run in a process of its own, to be killed: `killed_run.py JOURNAL LOG RECORDS SLOTS LAST`.

It appends a line to LOG before each request, so that it is known afterwards what was asked, and kills itself
within two milliseconds of its LASTth request. It prints the results as JSON if it comes to the end; errors
end it with status 1 and their text on stderr.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

from scripted import Scripted, place, talks

from boost_qa.errors import BoostQAError
from boost_qa.journal import Journal
from boost_qa.runner import run
from boost_qa.types import Call, Reply


class Logged(Scripted):
    """Writes down what is asked where a kill cannot undo it."""

    def __init__(self, log: Path, slots: int, last: int) -> None:
        super().__init__(slots=slots, seconds=lambda call: 0.002 + call.seed % 4 / 1000)
        self.last = last
        self.log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    async def ask(self, call: Call) -> Reply:
        os.write(self.log, f"{json.dumps(place(call))}\n".encode())
        if len(self.asked) == self.last:
            asyncio.get_running_loop().call_later(self.last % 5 * 0.0005, os.kill, os.getpid(), signal.SIGKILL)
        return await super().ask(call)


def results(journal: Journal, engine: Scripted, records: int) -> dict[str, str | None]:
    return {end.job.record: end.result for end in run(talks(records), {"m": engine}, journal, in_flight=12)}


def main(journal: str, log: str, records: str, slots: str, last: str) -> None:
    try:
        with Journal(journal) as kept:
            print(json.dumps(results(kept, Logged(Path(log), int(slots), int(last)), int(records))))
    except BoostQAError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(*sys.argv[1:])
