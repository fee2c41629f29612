"""The page of a large run: seconds and memory to write it, its size, and how long a browser takes.

The run is invented, and played by the real runner into a real journal (`invented.py`). Each writing is a process of its
own, whose peak memory is reported (Linux); beside it stands how long the files take to be read and parsed alone. The
browser is headless Chromium, with an empty profile each time. Seconds in the browser:

    paint     from the navigation to the first content on the screen
    list      to the first row of the list, at `#dialogues`
    whole     to the end of the file
    open      from a click on a dialogue whose block nobody has opened to its turns
    prompt    from there to the first prompt
    search    through all text, for a word that few dialogues have, and for one that all have

    python benchmarks/page.py --dialogues 20000
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import report
from chromium import PROGRAM, Chromium
from invented import make_run

PREDICTION = """
dialogues.jsonl has 150 MB, the journal 500 MB. Writing takes 20 to 30 s on one core: a third for reading and parsing,
a third for gzip, a fifth for the journal, the rest for cutting prompts at the texts of the dialogue; some 3 times what
reading and parsing alone take. The file has 75 MB, of which prompts are a tenth, because their texts are numbers of the
dialogue's. Peak memory 150 MB above the imports: lines of checks.jsonl, the index, nothing else that grows. The browser
paints after 0.2 s, has the list after 0.6 s, the whole file after 1.5 s, opens a dialogue in 60 ms, a prompt in 40 ms,
and searches all text in 3 s (gunzip 0.6 s, lines 0.5 s, the pattern 0.8 s); 4 s for a word that all have,
because every line is parsed.
"""
WRITE = """
import json, re, sys, time
from pathlib import Path
from boost_qa.page import write
from boost_qa.run_folder import RunFolder
def peak():  # not ru_maxrss, which begins with the peak of the process before
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024
before, wall, processor = peak(), time.perf_counter(), time.process_time()
write(RunFolder(sys.argv[1]), Path(sys.argv[2]))
print(json.dumps([time.perf_counter() - wall, time.process_time() - processor, peak(), before]))
"""
READ = """
import json, sqlite3, sys, time
from boost_qa.run_folder import RunFolder
run = RunFolder(sys.argv[1])
wall, processor = time.perf_counter(), time.process_time()
for dialogue in run.dialogues():
    pass
for line in open(run.path / "checks.jsonl"):
    json.loads(line)
for (request,) in sqlite3.connect(run.journal).execute("SELECT request FROM replies"):
    json.loads(request)
print(json.dumps([time.perf_counter() - wall, time.process_time() - processor]))
"""
NOTE_ROWS = """
new MutationObserver((_, observer) => {
  if (document.querySelector(".row")) { window.listed = performance.now(); observer.disconnect(); }
}).observe(document, { childList: true, subtree: true });
"""
SEARCH = """(async () => {
  const blocks = new Blocks("d", JSON.parse(await unpack("index")).starts);
  const began = performance.now();
  const found = await search(blocks, %s, () => {}, () => false);
  return [(performance.now() - began) / 1000, found.size];
})()"""
WAIT_FOR = """(async () => {
  const began = performance.now();
  %s
  while (!document.querySelector(%s)) await new Promise(requestAnimationFrame);
  return (performance.now() - began) / 1000;
})()"""


def in_a_process(code: str, *words: str) -> list[float]:
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    found: list[float] = json.loads(done.stdout)
    return found


def browse(page: Path, words: dict[str, str]) -> dict[str, float]:
    """What a fresh browser needs, in seconds, and dialogues found."""
    with tempfile.TemporaryDirectory() as folder, Chromium(Path(folder)) as chromium:
        chromium.open(page.as_uri())
        paint = "performance.getEntriesByName('first-contentful-paint')[0]"
        chromium.until(paint)
        found = {"paint": chromium.run(f"{paint}.startTime") / 1000}
        found["whole"] = chromium.run("performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd") / 1000
        chromium.call("Page.addScriptToEvaluateOnNewDocument", source=NOTE_ROWS)
        chromium.open(f"{page.as_uri()}#dialogues")
        chromium.until("document.querySelector('.turn')")
        found["list"] = chromium.run("window.listed") / 1000
        far = "const box = document.getElementById('list'); box.scrollTop = box.scrollHeight / 2; "
        far += "await new Promise(requestAnimationFrame); await new Promise(requestAnimationFrame); "
        far += "document.getElementById('reader').replaceChildren(); box.querySelectorAll('.row')[8].click();"
        found["open"] = chromium.run(WAIT_FOR % (far, "'.turn'"))
        found["prompt"] = chromium.run(
            WAIT_FOR % ("document.querySelector('details.prompt').open = true;", "'.message'")
        )
        for name, word in words.items():
            found[f"search_{name}"], found[f"found_{name}"] = chromium.run(SEARCH % json.dumps(word))
        found["heap_mb"] = chromium.call("Runtime.getHeapUsage")["usedSize"] / 1e6
        if chromium.faults or any(
            not address.startswith(("file:", "data:", "about:")) for address in chromium.addresses
        ):
            raise SystemExit(f"the page complained, or asked for something: {chromium.faults} {chromium.addresses}")
        return found


def searched(folder: Path) -> dict[str, str]:
    """A run of words of one dialogue, and a word that most have."""
    with (folder / "dialogues.jsonl").open(encoding="utf-8") as lines:
        turns = json.loads(next(lines))["turns"]
    return {"rare": " ".join(turns[1]["text"].split()[:6]), "frequent": "e"}


def main() -> None:
    parser = report.parser("page", __doc__)
    parser.add_argument("--dialogues", type=int, default=20_000, help="records of the run (default: %(default)s)")
    parser.set_defaults(repeats=3)
    options = parser.parse_args()
    measured: dict[str, list[list[float]]] = {"write": [], "read": []}
    views: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as place:
        folder, page = Path(place) / "run", Path(place) / "report.html"
        run = make_run(folder, options.dialogues)
        for _ in range(options.repeats):
            measured["write"].append(in_a_process(WRITE, str(folder), str(page)))
            measured["read"].append(in_a_process(READ, str(folder)))
            views += [browse(page, searched(folder))] if PROGRAM else []
        sizes: dict[str, Any] = {
            "page": page.stat().st_size,
            "blocks_of_dialogues": blocks(page, b"d"),
            "blocks_of_prompts": blocks(page, b"p"),
            "dialogues": run.dialogues_file.stat().st_size,
            "journal": run.journal.stat().st_size,
        }
    result: dict[str, Any] = {
        "megabytes": {name: round(size / 1e6, 1) for name, size in sizes.items()},
        "write": columns(measured["write"], ("seconds", "processor_seconds", "peak_mb", "of_that_imports_mb")),
        "reading_alone": columns(measured["read"], ("seconds", "processor_seconds")),
        "browser": {name: report.spread([view[name] for view in views]) for name in (views[0] if views else ())},
    }
    parts = ("write", "reading_alone", "browser")
    rows = [
        (f"{part} {name}".replace("_", " "), *(f"{each[key]:g}" for key in ("median", "min", "max")))
        for part in parts
        for name, each in result[part].items()
    ]
    report.show(f"the page of {options.dialogues:,} dialogues", ("", "median", "min", "max"), rows)
    report.show("megabytes", ("", ""), [(name, f"{size:g}") for name, size in result["megabytes"].items()])
    load = round(
        os.getloadavg()[1], 1
    )  # of five minutes; on a machine that works for others, too, it stretches seconds
    settings = {"dialogues": options.dialogues, "chromium": version(), "load_average": load}
    report.write(options.output, PREDICTION, settings, result)


def columns(rows: list[list[float]], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: report.spread(values, 2) for name, values in zip(names, zip(*rows, strict=True), strict=True)}


def blocks(page: Path, letter: bytes) -> int:
    """Bytes of the packed blocks of one kind."""
    with page.open("rb") as lines:
        return sum(len(line) for line in lines if line.startswith(b'<script type="application/gzip" id="' + letter))


def version() -> str | None:
    if PROGRAM is None:
        return None
    return subprocess.run([PROGRAM, "--version"], capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    main()
