"""Releases into the local Hub by the real client: faults at every request, kills, and others who publish too."""

from __future__ import annotations

import hashlib
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from fabricate import make_run
from hub_server import Fault, HubServer
from huggingface_hub import HfApi
from hypothesis import given, settings
from hypothesis import strategies as st

from boost_qa.errors import HubError, PublishError
from boost_qa.publish.dataset import dataset_release, exported
from boost_qa.publish.patience import Patience
from boost_qa.publish.release import CARD, FILES, GENERATED, Local, Release
from boost_qa.publish.repository import Repository, Target
from boost_qa.publish.send import Published, send
from boost_qa.publish.upload import BATCH_BYTES, BATCH_FILES, batches

PLACES = re.compile(r"recipe\.yaml|\.boost_qa/.*|data/[a-z_]+/[a-z]+-\d{5}-of-\d{5}\.parquet")
NOTES = dict.fromkeys(("notes.txt", "data/extra/notes.txt", ".eval_results/theirs.yaml"), b"of people")
FOR_EVER = 10**6
EMPTY: dict[str, bytes] = {}


@pytest.fixture(autouse=True)
def own_client(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The client's own switches: no Xet, which has a test of its own, and a cache and a login for each test."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no_login"))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)


# --- releases and what a repository then has -----------------------------------------------------


def card(n: int, *, edited: bool = False) -> str:
    """The card of release `n`, as generated or as people edited it."""
    tag, section = ("- school\n", "## Contact\n\nWrite to the school.\n\n") if edited else ("", "")
    front = f"license: mit\ntags:\n- boost-qa\n{tag}"
    return f"---\n{front}---\n# Words\n\nThere are {n}00 rows.\n\nThey rhyme.\n\n{section}## Citation\n\nUs.\n"


def rows(n: int, shard: int = 0) -> bytes:
    return random.Random(f"{n} {shard}").randbytes(500)


def data(n: int) -> dict[str, bytes]:
    """What release `n` has besides cards: a shard that all have, others of its own, and a small file."""
    shards = {f"data/all/train-{at:05}-of-{n + 1:05}.parquet": rows(n, at) for at in range(n + 1)}
    return {"data/debate/train-00000-of-00001.parquet": rows(0), "recipe.yaml": b"n: %d\n" % n, **shards}


def make_release(n: int) -> Release:
    files = [Local(path, content) for path, content in data(n).items()]
    return Release(files, card(n), PLACES, f"Release {n}", stale=re.compile(r"data/(all|debate)/train-[^/]*"))


def whole(n: int, *, edited: bool = False) -> dict[str, bytes]:
    """All files of a repository with release `n`, where people have edited or not."""
    listed = "".join(f"{path}\n" for path in sorted((*data(n), GENERATED, FILES))).encode()
    cards = {CARD: card(n, edited=edited).encode(), GENERATED: card(n).encode(), FILES: listed}
    return data(n) | cards | (NOTES if edited else {})


@dataclass
class Place:
    """A repository on a Hub of its own."""

    hub: HubServer
    name: str

    @property
    def repo(self) -> Any:
        return self.hub.repos["dataset", self.name]

    def repository(self, token: Any = "hf_alice", patience: Patience | None = None, **options: Any) -> Repository:
        api = HfApi(endpoint=self.hub.url, token=token)
        return Repository(Target(self.name, "dataset", **options), api, patience or Patience(first=0.01))

    def publish(self, release: Release | int, say: Any = lambda text: None, **options: Any) -> Published:
        """As `publish_dataset` does it."""
        repository = self.repository(**options)
        repository.check()
        return send(make_release(release) if isinstance(release, int) else release, repository, say=say)

    def commit(self, files: dict[str, bytes | None], author: str = "carol") -> None:
        """Somebody's commit to main; None removes a file. The repository is made if it is missing."""
        repo = self.hub.repos.get(("dataset", self.name)) or self.make()
        there = dict(repo.files("main"))
        for path, content in files.items():
            there.pop(path, None)
            if content is not None:
                there[path] = self.entry(path, content)
        repo.refs["main"] = repo.add_commit(repo.refs["main"], there, "By hand", author)

    def make(self) -> Any:
        HfApi(endpoint=self.hub.url, token=f"hf_{self.name.split('/')[0]}").create_repo(self.name, repo_type="dataset")
        return self.repo

    def entry(self, path: str, content: bytes) -> dict[str, Any]:
        if not path.endswith(".parquet"):
            return self.hub.blobs.small_file(content)
        sha = self.hub.blobs.put([content])
        self.repo.objects.add(sha)
        return self.hub.blobs.large_file(sha)

    def files(self, revision: str = "main") -> dict[str, bytes]:
        found = self.hub.files("dataset", self.name, revision)
        return {path: content for path, content in found.items() if path != ".gitattributes"}

    def history(self) -> list[dict[str, bytes]]:
        """The files of every commit that was ever made, the first of them first."""
        return [self.files(commit) for commit in self.repo.commits]

    def requests(self, pattern: str) -> list[str]:
        asked = [f"{call['method']} {call['path']}" for call in self.hub.calls]
        return [each for each in asked if re.search(pattern, each)]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with HubServer(tmp_path / "hub", orgs={"alice": ["school"]}) as hub:
        yield Place(hub, "alice/words")


def staged(place: Place, start: str) -> None:
    """Nothing for the first publication; for the second one a release that people have edited since."""
    if start == "second":
        place.commit(whole(1))
        place.commit(whole(1, edited=True))
        place.repo.tags["v1"] = place.repo.refs["main"]


STARTS = {
    "first": (1, [EMPTY], whole(1)),
    "second": (2, [EMPTY, whole(1), whole(1, edited=True)], whole(2, edited=True)),
}
"""By the name of a start: the number of the release, the commits before it, and the files afterwards."""


def check_done(place: Place, start: str) -> None:
    """The repository has the new release by one commit, no commit is in between, and a rerun makes none."""
    number, before, after = STARTS[start]
    assert place.history() == [*before, after]
    assert place.repo.tags[f"v{number}"] == place.repo.refs["main"]
    with place.hub.record() as requests:
        again = place.publish(number, tag=f"v{number}")
    assert not again.change and again.revision == place.repo.refs["main"]
    assert len(place.repo.commits) == len(before) + 1
    assert not [each for each in requests if re.search("commit|create|tag/|PUT", each)]


def side_by_side(tmp_path: Path, cases: Iterable[Any], run: Callable[[Place, Any], None], at_once: int = 64) -> None:
    """Each case on a Hub of its own, so that the client's waits, of a second and more, overlap."""

    def one(numbered: tuple[int, Any]) -> None:
        number, case = numbered
        with HubServer(tmp_path / f"hub{number}") as hub:
            try:
                run(Place(hub, f"alice/words{number}"), case)
            except BaseException as error:
                error.add_note(f"case {number}: {case}")
                raise

    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(one, enumerate(cases)))


def recorded(tmp_path: Path, start: str) -> list[str]:
    """The requests of a publication that nothing disturbs."""
    with HubServer(tmp_path / f"recorded_{start}") as hub:
        place = Place(hub, f"alice/{start}")
        staged(place, start)
        with hub.record() as requests:
            place.publish(STARTS[start][0], tag=f"v{STARTS[start][0]}")
        check_done(place, start)
    return requests


def places_of(pattern: str, requests: list[str]) -> list[int]:
    return [at for at, request in enumerate(requests) if re.search(pattern, request)]


# --- a fault at each request ---------------------------------------------------------------------

FAULTS: list[dict[str, Any]] = [
    {"status": 429, "headers": {"Retry-After": "0"}},
    {"status": 500},
    {"status": 503, "when": "after"},
    {"drop": "before"},
    {"drop": "after"},
]
AT_COMMIT: list[dict[str, Any]] = [{"status": 412}, {"status": 409}, {"status": 409, "when": "after"}, {"status": 503}]
Case = tuple[str, int, dict[str, Any]]


def survive(place: Place, case: Case) -> None:
    start, at, fault = case
    number, before, after = STARTS[start]
    staged(place, start)
    place.hub.faults.append(met := Fault(skip=at, **fault))
    published = place.publish(number, tag=f"v{number}")
    assert met.fired == 1 and place.files(str(published.revision)) == after
    assert published.url == f"{place.hub.url}/datasets/{place.name}"
    check_done(place, start)


def fault_cases(tmp_path: Path, *, every: bool) -> list[Case]:
    cases: list[Case] = []
    for start in STARTS:
        requests = recorded(tmp_path, start)
        [commit] = places_of("/commit/", requests)
        for at in range(len(requests)):
            cases += [
                (start, at, fault) for turn, fault in enumerate(FAULTS) if every or at == commit or turn == at % 5
            ]
        cases += [(start, commit, fault) for fault in AT_COMMIT]
    return cases


def test_a_fault_at_each_request(tmp_path: Path) -> None:
    side_by_side(tmp_path, fault_cases(tmp_path, every=False), survive)


@pytest.mark.slow
def test_every_fault_at_each_request(tmp_path: Path) -> None:
    side_by_side(tmp_path, fault_cases(tmp_path, every=True), survive)


# --- a Hub that fails for ever -------------------------------------------------------------------

BY_CLIENT = r"/preupload/|/tree/|objects/batch|PUT|/verify|/resolve/"  # asked by the client itself again: 23 s


def fail_and_recover(place: Place, case: Case) -> None:
    start, at, fault = case
    number, before, after = STARTS[start]
    staged(place, start)
    place.hub.faults.append(Fault(skip=at, times=FOR_EVER, **fault))
    with pytest.raises(HubError, match="run the same command again") as caught:
        place.publish(number, tag=f"v{number}", patience=Patience(attempts=2, first=0.01))
    assert caught.value.exit_code == 1 and "hf_alice" not in str(caught.value)
    made = place.history() if place.hub.repos else [EMPTY]
    assert made in (before, [*before, after])
    place.hub.faults.clear()
    assert place.files(str(place.publish(number, tag=f"v{number}").revision)) == after
    check_done(place, start)


def failing_cases(tmp_path: Path, by_client: bool) -> list[Case]:
    return [
        (start, at, FAULTS[1 + at % 4])
        for start in STARTS
        for at, request in enumerate(recorded(tmp_path, start))
        if bool(re.search(BY_CLIENT, request)) is by_client
    ]


def test_a_hub_that_fails_for_ever(tmp_path: Path) -> None:
    cases = failing_cases(tmp_path, by_client=False)
    side_by_side(tmp_path, cases, fail_and_recover)


@pytest.mark.slow
def test_a_hub_that_fails_for_ever_where_the_client_asks_again(tmp_path: Path) -> None:
    cases = failing_cases(tmp_path, by_client=True)
    side_by_side(tmp_path, cases, fail_and_recover)


# --- kill -9 -------------------------------------------------------------------------------------


def kill_and_recover(place: Place, case: Case) -> None:
    """The publisher is a fork of this process, killed in the request that the fault meets."""
    start, at, fault = case
    number, before, after = STARTS[start]
    staged(place, start)
    child: Future[int] = Future()
    place.hub.faults.append(Fault(skip=at, call=lambda: os.kill(child.result(), signal.SIGKILL), **fault))
    child.set_result(fork(lambda: place.publish(number, tag=f"v{number}")))
    _, ended = os.waitpid(child.result(), 0)
    assert os.WIFSIGNALED(ended) and os.WTERMSIG(ended) == signal.SIGKILL
    made = place.history() if place.hub.repos else [EMPTY]
    assert made in (before, [*before, after])
    place.publish(number, tag=f"v{number}")
    check_done(place, start)


def fork(act: Callable[[], object]) -> int:
    if child := os.fork():
        return child
    status = 1
    try:
        act()
        status = 0
    finally:
        os._exit(status)


KILLS: list[dict[str, Any]] = [{"drop": "before", "when": "before"}, {"when": "after"}]


def test_a_publisher_that_is_killed(tmp_path: Path) -> None:
    first, second = (recorded(tmp_path, start) for start in STARTS)
    [create], [upload, *_] = places_of("/create", first), places_of("PUT", second)
    [commit], [tag] = places_of("/commit/", second), places_of("/tag/", second)
    cases = [("first", create, KILLS[1]), ("second", upload, KILLS[0])]
    cases += [("second", at, fault) for at in (commit, tag) for fault in KILLS]
    side_by_side(tmp_path, cases, kill_and_recover, at_once=1)


@pytest.mark.slow
def test_a_publisher_that_is_killed_at_each_request(tmp_path: Path) -> None:
    lengths = {start: len(recorded(tmp_path, start)) for start in STARTS}
    cases = [(start, at, fault) for start in STARTS for at in range(lengths[start]) for fault in KILLS]
    side_by_side(tmp_path, cases, kill_and_recover, at_once=1)


# --- others who publish --------------------------------------------------------------------------


def together(*acts: Callable[[], Published]) -> list[Published]:
    with ThreadPoolExecutor(len(acts)) as pool:
        return [future.result() for future in [pool.submit(act) for act in acts]]


@pytest.mark.parametrize("start", STARTS)
def test_four_publishers_at_once(place: Place, start: str) -> None:
    staged(place, start)
    _, before, _ = STARTS[start]
    slow = Fault("POST .*/commit/", times=FOR_EVER, call=lambda: time.sleep(0.05))
    place.hub.faults.append(slow)
    published = together(*(lambda n=n: place.publish(n) for n in range(2, 6)))
    made = place.history()[len(before) :]
    releases = [whole(n, edited=start == "second") for n in range(2, 6)]
    assert len(made) == 4 and all(release in made for release in releases)
    assert [place.files(str(each.revision)) for each in published] == releases
    assert slow.fired > 4  # some were overtaken
    assert place.history()[: len(before)] == before


def test_two_publishers_of_one_release_make_one_commit(place: Place) -> None:
    staged(place, "second")
    both = threading.Barrier(2)
    place.hub.faults.append(Fault("POST .*/commit/", times=2, call=lambda: both.wait(20)))
    published = together(*[lambda: place.publish(2, tag="v2")] * 2)
    assert published[0].revision == published[1].revision == place.repo.tags["v2"]
    assert place.history() == [*STARTS["second"][1], whole(2, edited=True)]


HAND = {
    "a card": ({CARD: card(1, edited=True).encode()}, {CARD: card(2, edited=True).encode()}),
    "a file": ({"notes.txt": b"new"}, {"notes.txt": b"new"}),
    "a shard removed": ({"data/all/train-00001-of-00002.parquet": None}, {}),
    "a card removed": ({CARD: None}, {}),
    "a stray shard": ({"data/all/train-00009-of-00010.parquet": b"x"}, {}),
    "the same shard": ({"data/all/train-00002-of-00003.parquet": rows(2, 2)}, {}),
}


@pytest.mark.parametrize("what", HAND)
def test_what_somebody_commits_meanwhile_survives(place: Place, what: str) -> None:
    edit, kept = HAND[what]
    place.commit(whole(1))
    said: list[str] = []
    place.hub.faults.append(Fault("POST .*/commit/", call=lambda: place.commit(edit)))
    place.publish(2, say=said.append)
    by_hand = {path: content for path, content in (whole(1) | edit).items() if content is not None}
    assert place.history() == [EMPTY, whole(1), by_hand, whole(2) | kept]
    assert "somebody else published first; comparing again" in said


def test_a_hub_that_always_has_another_head_is_an_error(place: Place) -> None:
    for status in (412, 409):
        place.hub.faults[:] = [met := Fault("POST .*/commit/", times=FOR_EVER, status=status)]
        with pytest.raises(HubError, match="others publish there all the time") as caught:
            place.publish(1, patience=Patience(first=0.0001))
        assert caught.value.exit_code == 1 and met.fired == 31
        assert place.history() == [EMPTY]


def test_a_repository_that_vanishes_meanwhile(place: Place) -> None:
    staged(place, "second")
    gone = lambda: place.hub.repos.pop(("dataset", place.name))  # noqa: E731
    place.hub.faults.append(Fault("GET .*/tree/", call=gone, when="after"))
    with pytest.raises(PublishError, match="[Nn]ot found"):
        place.publish(2)


# --- what is sent --------------------------------------------------------------------------------


def test_what_is_there_is_not_sent_again(place: Place) -> None:
    staged(place, "second")
    said: list[str] = []
    with place.hub.record() as requests:
        published = place.publish(1, say=said.append)
    assert not published.change and published.revision == place.repo.refs["main"] and said == []
    assert [each.split("/")[0] for each in requests if not each.startswith(("GET", "HEAD"))] == ["POST "]  # the probe
    assert place.history() == STARTS["second"][1]


def test_only_what_changed_is_sent_and_stale_shards_go(place: Place) -> None:
    staged(place, "second")
    place.commit({"data/all/train-00007-of-00009.parquet": b"stale"})
    change = place.publish(2).change
    new = [f"data/all/train-{at:05}-of-00003.parquet" for at in range(3)]
    assert [file.path for file in change.added] == new
    assert sorted(file.path for file in change.replaced) == [GENERATED, FILES, CARD, "recipe.yaml"]
    stale = ["data/all/train-00000-of-00002.parquet", "data/all/train-00001-of-00002.parquet"]
    assert change.removed == [*stale, "data/all/train-00007-of-00009.parquet"] and change.same == 1
    assert change.bytes - len(whole(2)[FILES]) == 1500 + len(card(2)) + len(card(2, edited=True)) + len("n: 2\n")
    sent = {hashlib.sha256(rows(2, at)).hexdigest() for at in range(3)}
    assert {each.split("/")[-1] for each in place.requests("PUT")} == sent
    assert place.files() == whole(2, edited=True)


def test_an_upload_that_was_broken_off_goes_on(place: Place) -> None:
    place.hub.faults.append(Fault("POST .*/commit/", times=FOR_EVER, status=500))
    with pytest.raises(HubError):
        place.publish(2, patience=Patience(attempts=1))
    assert len(place.requests("PUT")) == 4
    place.hub.faults.clear()
    place.publish(2)
    assert len(place.requests("PUT")) == 4 and place.files() == whole(2)


def progress(lines: Iterable[str]) -> list[tuple[int, int]]:
    """(files so far, files in all) of each line; checks that it has bytes, a rate and the time."""
    line = r"(\d+) of (\d+) files, [\d.]+ MB of [\d.]+ MB at [\d.,]+ (?:MB|GB)/s(, [\d,]+ s left| in [\d,]+ s)"
    found = [re.fullmatch(line, each) for each in lines]
    assert all(found)
    return [(int(each[1]), int(each[2])) for each in found if each]


def test_hundreds_of_files_and_none_is_said_to_be_sent_twice(place: Place) -> None:
    small = [Local(f"data/all/train-{n:05}-of-00300.parquet", b"%d" % n) for n in range(300)]
    release, said = Release(small, card(1), PLACES, "Many"), list[str]()
    place.hub.faults.append(Fault("POST .*/commit/", times=2, status=412))
    place.hub.faults.append(Fault("POST .*/commit/", times=1, call=lambda: place.commit({"notes.txt": b"x"})))
    place.publish(release, say=said.append)
    assert progress(each for each in said if "files" in each) == [(n, 303) for n in (200, 303)]
    assert said[2:] == ["somebody else published first; comparing again"] * 3
    assert len(place.requests("PUT")) == 300 and len(place.files()) == 304


FOREIGN = {"data/all/train-00000-of-00001.parquet": b"theirs", "data/mine/train-00000-of-00001.parquet": b"theirs"}


def test_what_something_else_wrote_is_in_the_way(place: Place) -> None:
    """Unless it is to be replaced; what is no place of the release stays in any case."""
    place.commit(FOREIGN | NOTES)
    before = place.history()
    with pytest.raises(PublishError, match=r"has data/all/train-00000-of-00001\.parquet and 1 more, which no release"):
        place.publish(1)
    assert place.history() == before and not place.requests("PUT")
    change = place.publish(1, replace=True).change
    assert change.removed == ["data/all/train-00000-of-00001.parquet", "data/mine/train-00000-of-00001.parquet"]
    assert place.files() == whole(1) | NOTES


def test_what_somebody_adds_to_a_release_of_ours_stays(place: Place) -> None:
    place.publish(1)
    place.commit({"data/mine/train-00000-of-00001.parquet": b"theirs", "recipe.json": b"{}"})
    place.publish(2)
    assert set(place.files()) - set(whole(2)) == {"data/mine/train-00000-of-00001.parquet", "recipe.json"}


def test_the_same_files_by_another_hand_are_not_in_the_way(place: Place) -> None:
    place.commit(data(1))
    assert place.publish(1).change.same == len(data(1)) and place.files() == whole(1)


def test_empty_files(place: Place) -> None:
    """Of which the first batch has no bytes: no rate can be told."""
    files = [Local(f"data/all/train-{n:05}-of-00210.parquet", b"x" if n == 209 else b"") for n in range(210)]
    said: list[str] = []
    place.publish(Release(files, card(1), PLACES, "Empty"), say=said.append)
    assert progress(said) == [(200, 213), (213, 213)]
    assert {place.files()[file.path] for file in files} == {b"", b"x"} and len(place.files()) == 213


def test_large_files_in_parts(tmp_path: Path) -> None:
    with HubServer(tmp_path / "hub", parts_from=400) as hub:
        place = Place(hub, "alice/parts")
        # as when its answer was lost, and the client's next try finds the upload gone
        hub.faults.append(Fault("POST .*/complete/", status=404, when="after"))
        place.publish(1)
        assert len(place.requests("PUT .*/parts/")) == 9 and place.files() == whole(1)
        hub.faults.append(Fault("PUT .*/parts/", status=403, message="Request has expired", times=FOR_EVER))
        with pytest.raises(HubError, match="run the same command again"):
            place.publish(2, patience=Patience(attempts=3, first=0.01))
        hub.faults.clear()
        place.publish(2)
        assert place.history() == [EMPTY, whole(1), whole(2)]


SIZES = [0, 1, 10**6, BATCH_BYTES // 2, BATCH_BYTES - 1, BATCH_BYTES, BATCH_BYTES + 1, 6 * 10**9]


@settings(deadline=None)
@given(st.lists(st.sampled_from(SIZES), max_size=3 * BATCH_FILES))
def test_batches(sizes: list[int]) -> None:
    files = [Local(f"{n}", b"") for n in range(len(sizes))]
    for file, size in zip(files, sizes, strict=True):
        vars(file)["size"] = size
    found = list(batches(files))
    assert [file for batch in found for file in batch] == files and all(found)
    for batch in found:
        assert len(batch) <= BATCH_FILES
        assert len(batch) == 1 or sum(file.size for file in batch) <= BATCH_BYTES
    for batch, following in zip(found, found[1:], strict=False):  # no batch is smaller than it needs to be
        assert len(batch) == BATCH_FILES or sum(file.size for file in [*batch, following[0]]) > BATCH_BYTES


def test_a_dry_run_changes_nothing(place: Place) -> None:
    def compared(n: int, **options: Any) -> Published:
        repository = place.repository(**options)
        repository.check()
        return send(make_release(n), repository, dry_run=True)

    found = compared(1, tag="v1")
    assert found.revision is None and len(found.change.added) == 7 and place.hub.repos == {}
    staged(place, "second")
    begun, found = len(place.hub.calls), compared(2, revision="fresh")
    assert found.revision is None and found.change.bytes > 1500 and list(place.repo.refs) == ["main"]
    assert compared(2).change.removed and compared(1).revision == place.repo.refs["main"]
    assert nothing_sent(place, begun) and place.history() == STARTS["second"][1]


def test_a_commit_that_is_not_as_it_was_sent(place: Place) -> None:
    def lose() -> None:
        place.repo.commits[place.repo.refs["main"]]["files"].pop("recipe.yaml")

    place.hub.faults.append(Fault("POST .*/commit/", call=lose, when="after"))
    with pytest.raises(HubError, match="is not as it was sent: recipe.yaml"):
        place.publish(1)
    place.publish(1)
    assert place.files() == whole(1)


# --- prose, figures ------------------------------------------------------------------------------


def test_edits_of_people_survive_and_figures_are_new(place: Place, tmp_path: Path) -> None:
    def export(n: int) -> Release:
        make_run(tmp_path / f"run{n}", dialogues=n)
        with exported(tmp_path / f"run{n}") as folder:
            release = dataset_release(folder, place.name)
            contents = {file.path: Path(str(file.content)).read_bytes() for file in release.files}
        files = [Local(*each) for each in contents.items()]
        return Release(files, release.card, release.places, release.title, release.description, release.stale)

    first, second = export(12), export(18)
    assert first.card != second.card and place.name in second.card
    place.publish(first)
    assert place.files()[CARD] == place.files()[GENERATED] == first.card.encode()
    prose = "## Contact\n\nWrite to the school.\n\n## Citation\n"

    def edited(text: str) -> str:
        text = text.replace("## Citation\n", prose).replace("- boost-qa\n", "- boost-qa\n- school\n")
        return text.replace("pretty_name: BOOST-QA (made-up)\n", "pretty_name: Ours\n")

    place.commit({CARD: edited(first.card).encode(), **NOTES})
    published = place.publish(second)
    text = place.files()[CARD].decode()
    front, body = (text.split("---\n", 2)[part] for part in (1, 2))
    wanted = edited(second.card).split("---\n", 2)
    assert body == wanted[2] != edited(first.card).split("---\n", 2)[2]
    assert yaml.safe_load(front) == yaml.safe_load(wanted[1]) and "pretty_name: Ours" in front
    assert published.kept == [] and place.files()[GENERATED] == second.card.encode()
    assert {path: place.files()[path] for path in NOTES} == NOTES
    assert {path for path in place.files() if path.endswith(".parquet")} == {
        file.path for file in second.files if file.path.endswith(".parquet")
    }


def test_where_both_changed_a_passage_it_is_named(place: Place) -> None:
    place.publish(1)
    place.commit({CARD: card(1).replace("There are 100", "We have 100").encode()})
    assert place.publish(2).kept == ["We have 100 rows."]
    assert b"We have 100 rows" in place.files()[CARD] and place.files()[GENERATED] == card(2).encode()


# --- branches, tags, pull requests, visibility ---------------------------------------------------


def test_a_branch_is_made_from_main_and_main_is_left_alone(place: Place) -> None:
    staged(place, "second")
    main = place.repo.refs["main"]
    place.hub.faults.append(Fault("POST .*/branch/", drop="after"))
    published = place.publish(2, revision="next/v2", tag="v2")
    assert place.repo.refs == {"main": main, "next/v2": published.revision}
    assert place.repo.tags["v2"] == published.revision and place.files("next/v2") == whole(2, edited=True)
    assert place.repo.commits[published.revision]["parent"] == main
    assert not place.publish(2, revision="next/v2", tag="v2").change
    place.publish(3, revision="next/v2")
    assert place.files("next/v2") == whole(3, edited=True) and place.repo.refs["main"] == main


def test_a_branch_of_a_repository_that_is_missing(place: Place) -> None:
    place.publish(1, revision="drafts")
    assert place.files("drafts") == whole(1) and place.files() == {}


def nothing_sent(place: Place, before: int = 0) -> bool:
    """Whether the Hub was only asked; how a file would be uploaded is a question too."""
    later = place.hub.calls[before:]
    return all(call["method"] in ("GET", "HEAD") or "/preupload/" in call["path"] for call in later)


@pytest.mark.parametrize("revision", ["main", "fresh"])
def test_a_tag_of_another_release_is_refused_before_anything_is_sent(place: Place, revision: str) -> None:
    staged(place, "second")
    begun = len(place.hub.calls)
    with pytest.raises(PublishError, match="has a tag v1 already, for something else") as caught:
        place.publish(2, tag="v1", revision=revision)
    assert caught.value.exit_code == 2 and nothing_sent(place, begun)
    assert place.history() == STARTS["second"][1] and list(place.repo.refs) == ["main"]


def test_a_tag_of_this_release_is_fine_wherever_main_is(place: Place) -> None:
    first = place.publish(1, tag="v1").revision
    place.publish(2, tag="v2")
    begun = len(place.hub.calls)
    again = place.publish(1, tag="v1")
    assert again.revision == first and not again.change and nothing_sent(place, begun)
    assert place.files() == whole(2) and place.repo.tags["v1"] == first
    place.publish(2, tag="latest")
    assert place.repo.tags["latest"] == place.repo.refs["main"] == place.repo.tags["v2"]


def test_a_tag_that_somebody_else_gave_meanwhile(place: Place) -> None:
    staged(place, "second")
    elsewhere = lambda: place.repo.tags.update(v2=place.repo.refs["main"])  # noqa: E731
    place.hub.faults.append(Fault("POST .*/commit/", call=elsewhere))
    with pytest.raises(PublishError, match="got a tag v2 from somebody else"):
        place.publish(2, tag="v2")
    assert place.files() == whole(2, edited=True)


def propose(place: Place, n: int, token: str = "hf_bob", **options: Any) -> Published:
    return place.publish(n, token=token, pull_request=True, **options)


def check_proposed(place: Place, published: Published) -> None:
    """One pull request has the release, another run finds it, and main is as it was."""
    assert list(place.repo.pull_requests) == [1] and place.repo.pull_requests[1].author == "bob"
    assert published.url == f"{place.hub.url}/datasets/{place.name}/discussions/1"
    assert published.revision == "refs/pr/1" and place.files("refs/pr/1") == whole(2, edited=True)
    assert place.files() == whole(1, edited=True)
    found = propose(place, 2)
    assert (found.url, found.revision) == (published.url, published.revision) and not found.change
    assert len(place.repo.commits) == 4


def test_a_pull_request(place: Place) -> None:
    staged(place, "second")
    check_proposed(place, propose(place, 2))
    other = propose(place, 3)
    assert other.revision == "refs/pr/2" and place.files("refs/pr/2") == whole(3, edited=True)
    begun = len(place.hub.calls)
    with pytest.raises(PublishError, match="may only read"):
        propose(place, 2, token="hf_alice_read")
    assert nothing_sent(place, begun)


def test_a_fault_while_a_pull_request_is_made(tmp_path: Path) -> None:
    with HubServer(tmp_path / "hub") as hub:
        place = Place(hub, "alice/words")
        staged(place, "second")
        with hub.record() as requests:
            propose(place, 2)
    [commit] = places_of("/commit/", requests)

    def survive_it(place: Place, case: tuple[int, dict[str, Any]]) -> None:
        at, fault = case
        staged(place, "second")
        begun = len(place.hub.calls)
        place.hub.faults.append(Fault(skip=at, **fault))
        published = propose(place, 2)
        assert len(place.hub.calls) > begun
        check_proposed(place, published)

    others = [at for at, request in enumerate(requests) if not re.search(BY_CLIENT, request)]
    cases = [(at, FAULTS[at % 5]) for at in others] + [(commit, fault) for fault in [*FAULTS, *AT_COMMIT]]
    side_by_side(tmp_path, cases, survive_it)


def test_private(place: Place) -> None:
    place.publish(1, private=True)
    assert place.repo.private and place.files() == whole(1)
    place.publish(2)
    assert place.repo.private and place.files() == whole(2)
    place.publish(3, private=True)
    place.repo.private, begun = False, len(place.hub.calls)
    with pytest.raises(PublishError, match="is public, and --private was asked for") as caught:
        place.publish(4, private=True)
    assert "hf repos settings" in caught.value.remedy and nothing_sent(place, begun)
    place.publish(4)
    assert not place.repo.private


def test_private_where_somebody_makes_it_public_meanwhile(place: Place) -> None:
    place.hub.faults.append(Fault("POST /api/repos/create", call=place.make))
    with pytest.raises(PublishError, match="is public"):
        place.publish(1, private=True)
    assert place.files() == {}


# --- what only the user can mend -----------------------------------------------------------------


def refused(place: Place, name: str | None = None, **options: Any) -> str:
    """Text of the error before anything is sent."""
    asked = Place(place.hub, name or place.name)
    begun = len(place.hub.calls)
    with pytest.raises(PublishError) as caught:
        asked.publish(1, **options)
    assert caught.value.exit_code == 2 and caught.value.remedy and nothing_sent(place, begun)
    assert str(options.get("token", "hf_alice")) not in str(caught.value)
    return str(caught.value)


def test_tokens(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no token" in (told := refused(place, token=None)) and "hf auth login" in told
    wrong = f"hf_{'x' * 34}"
    assert "does not accept the token" in (told := refused(place, token=wrong)) and "hf auth login" in told
    assert "the token of alice may only read" in (told := refused(place, token="hf_alice_read")) and "HF_TOKEN" in told
    monkeypatch.setenv("HF_TOKEN", wrong)
    told = refused(place, token=None)
    assert "does not accept the token" in told and wrong not in told
    monkeypatch.setenv("HF_TOKEN", "hf_alice")
    place.publish(1, token=None)
    place.publish(2, token="hf_alice_fine")
    assert place.files() == whole(2) and place.repo.commits[place.repo.refs["main"]]["author"] == "alice"
    assert not place.hub.repos.keys() - {("dataset", place.name)}


def test_names(place: Place) -> None:
    assert "give alice/words" in refused(place, "words")
    for name in ("alice/", "/words", "alice/a/b", "alice/two words", "alice/-x-", "alice/a..b"):
        assert "user/name" in refused(place, name)
    told = refused(place, "bob/words")
    assert "no right to make one" in told and "alice/words" in told
    Place(place.hub, "bob/words").make()
    assert "no right to write to" in refused(place, "bob/words")
    in_school = Place(place.hub, "school/words")
    with pytest.raises(PublishError, match="no right to write to"):  # what such a token may do, the Hub alone knows
        in_school.publish(1, token="hf_alice_fine")
    assert ("dataset", "school/words") not in place.hub.repos
    in_school.publish(1)
    assert in_school.files() == whole(1)
    assert "Leave --create-pr out" in refused(place, pull_request=True)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"tag": "v1", "pull_request": True}, "cannot be tagged"),
        ({"revision": "next", "pull_request": True}, "is to main"),
        ({"tag": "-v1"}, "no name for a tag"),
        ({"tag": "v 1"}, "no name for a tag"),
        ({"revision": ""}, "no name for a branch"),
    ],
)
def test_options_that_cannot_be(place: Place, options: dict[str, Any], told: str) -> None:
    assert told in refused(place, **options) and place.hub.calls == []


def test_offline(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in refused(place) and place.hub.calls == []


def test_an_endpoint_that_is_not_there(tmp_path: Path) -> None:
    with HubServer(tmp_path / "hub") as hub:
        place = Place(hub, "alice/words")
    with pytest.raises(HubError, match="fails") as caught:
        place.publish(1, patience=Patience(attempts=2, first=0.01))
    assert caught.value.exit_code == 1 and hub.url in str(caught.value) and hub.calls == []


def test_a_card_that_the_hub_refuses(place: Place) -> None:
    staged(place, "second")
    release = make_release(2)
    refused_card = Release(release.files, card(2).replace("license: mit", "license: nonsense"), PLACES, "Refused")
    with pytest.raises(PublishError, match='README.md.*"license" must be one of') as caught:
        place.publish(refused_card)
    assert caught.value.exit_code == 2 and "---" in caught.value.remedy
    assert place.history() == STARTS["second"][1]
    place.commit({CARD: card(1).replace("license: mit", "license: theirs").encode()})  # people's is refused as well
    with pytest.raises(PublishError, match='"license" must be one of'):
        place.publish(2)


def test_a_right_that_is_taken_away_meanwhile(place: Place) -> None:
    place.hub.faults.append(Fault("POST .*/commit/", times=FOR_EVER, status=403, message="no more, hf_alice!"))
    with pytest.raises(PublishError, match=r"no right to write to .*no more, \*\*\*!") as caught:
        place.publish(1)
    assert "hf_alice" not in str(caught.value)
    assert place.history() == [EMPTY] and len(place.requests("POST .*/commit/")) == 1


# --- patience ------------------------------------------------------------------------------------


def test_what_the_hub_asks_is_waited_and_else_twice_as_long_each_time(place: Place) -> None:
    waits: list[float] = []
    patience = Patience(attempts=5, first=2, longest=9, sleep=waits.append)
    limits = {"RateLimit": '"api";r=0;t=55', "RateLimit-Policy": '"fixed window";"api";q=500;w=300', "Retry-After": "3"}
    for headers in ({"Retry-After": "77"}, limits, {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, {}):
        place.hub.faults.append(Fault("whoami", status=429, headers=headers))
    place.publish(1, patience=patience)
    asked = [77, 55, 8, 9]
    assert all(least <= wait <= 1.5 * least for least, wait in zip(asked, waits, strict=True))
    waits.clear()
    place.hub.faults.append(Fault("POST .*/commit/", status=503, times=FOR_EVER))
    with pytest.raises(HubError):
        place.publish(2, patience=patience)
    assert len(waits) == 4 and all(
        least <= wait <= 1.5 * least for least, wait in zip([2, 4, 8, 9], waits, strict=True)
    )
    assert len(place.requests("POST .*/commit/")) == 1 + 5
    place.hub.faults.append(met := Fault("whoami", status=503, times=FOR_EVER))
    with pytest.raises(HubError):
        place.publish(2, patience=patience)
    assert met.fired == 5


# --- Xet -----------------------------------------------------------------------------------------

XET = """
from test_publish import *
from huggingface_hub.utils._runtime import is_xet_available
assert is_xet_available()
for n in (1, 2, 2):
    repository = Repository(Target("alice/words", "dataset", tag=f"v{n}"), patience=Patience(first=0.01))
    repository.check()
    send(make_release(n), repository, say=print)
there = Repository(Target("alice/words", "dataset"))
for path, content in data(2).items():
    got = there.api.hf_hub_download("alice/words", path, repo_type="dataset", revision="v2")
    assert Path(got).read_bytes() == content
"""


def test_by_xet(tmp_path: Path) -> None:
    """HF_ENDPOINT and the switch of Xet are read at import: in a process of its own."""
    with HubServer(tmp_path / "hub", xet=True) as hub:
        place = Place(hub, "alice/words")
        hub.faults += [Fault("/commit/", status=503), Fault("/commit/", skip=2, drop="after")]
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))}
        chosen = {"HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_alice", "HF_HOME": str(tmp_path / "home")}
        command, here = [sys.executable, "-c", XET], Path(__file__).parent
        done = subprocess.run(command, env=kept | chosen, cwd=here, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert place.history() == [EMPTY, whole(1), whole(2)] and place.repo.tags["v2"] == place.repo.refs["main"]
        assert not place.requests("PUT") and len(place.requests("/commit/")) == 3 and place.requests("xet-write-token")
        assert [line.split(",")[0] for line in done.stdout.splitlines() if " files" in line] == [
            "7 of 7 files",
            "7 of 7 files",
        ]
