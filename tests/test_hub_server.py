"""The local Hub of the tests, asked by the real client."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from hub_card import problems
from hub_server import Fault, HubServer
from hub_xet import Xet
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import httpx

ROWS = bytes(range(256)) * 500  # 128000 bytes
ID = "alice/words"


@pytest.fixture(autouse=True)
def plain_uploads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Xet has a test of its own; this is the client's own switch."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubServer]:
    with HubServer(tmp_path / "hub", orgs={"alice": ["school"]}) as hub:
        yield hub


def client(hub: HubServer, token: str | bool = "hf_alice") -> HfApi:
    return HfApi(endpoint=hub.url, token=token)


@pytest.fixture
def alice(hub: HubServer) -> HfApi:
    api = client(hub)
    api.create_repo(ID, repo_type="dataset")
    return api


def commit(api: HfApi, files: dict[str, bytes], id_: str = ID, repo_type: str = "dataset", **options: Any) -> Any:
    operations = [CommitOperationAdd(path, content) for path, content in files.items()]
    return api.create_commit(id_, operations, commit_message="more", repo_type=repo_type, **options)


def refused(call: Callable[[], object]) -> tuple[int, str]:
    with pytest.raises(HfHubHTTPError) as caught:
        call()
    return caught.value.response.status_code, str(caught.value)


def paths(hub: HubServer, start: str, method: str = "") -> list[str]:
    return [c["path"] for c in hub.calls if c["path"].startswith(start) and method in ("", c["method"])]


# --- commits and large files ---------------------------------------------------------------------


def test_a_commit_of_small_and_large_files_comes_back(hub: HubServer, alice: HfApi, tmp_path: Path) -> None:
    made = commit(alice, {"README.md": b"---\nlicense: mit\n---\n# Words\n", "data/a.parquet": ROWS})
    info = alice.dataset_info(ID, files_metadata=True)
    assert info.sha == made.oid and info.card_data.license == "mit"
    sizes = {each.rfilename: (each.size, each.lfs and each.lfs.sha256) for each in info.siblings}
    assert sizes["data/a.parquet"] == (len(ROWS), hashlib.sha256(ROWS).hexdigest())
    assert sizes["README.md"][1] is None
    path = alice.hf_hub_download(ID, "data/a.parquet", repo_type="dataset", cache_dir=tmp_path / "cache")
    assert Path(path).read_bytes() == ROWS
    uploads = len(paths(hub, "/_lfs/", "PUT"))
    assert commit(alice, {"data/a.parquet": ROWS}).oid == made.oid  # unchanged: the client makes no commit
    commit(alice, {"data/again.parquet": ROWS})
    assert len(paths(hub, "/_lfs/", "PUT")) == uploads == 1
    alice.create_repo("alice/others", repo_type="dataset")
    commit(alice, {"data/a.parquet": ROWS}, "alice/others")  # another repository has nothing yet
    assert len(paths(hub, "/_lfs/", "PUT")) == 2


def test_large_files_in_parts(tmp_path: Path) -> None:
    with HubServer(tmp_path / "hub", parts_from=50_000) as hub:
        api = client(hub)
        api.create_repo(ID, repo_type="dataset")
        commit(api, {"a.parquet": ROWS, "b.parquet": ROWS[:49_999]})
        assert len([path for path in paths(hub, "/_lfs/", "PUT") if "/parts/" in path]) == 6
        files = hub.files("dataset", ID)
        assert (files["a.parquet"], files["b.parquet"]) == (ROWS, ROWS[:49_999])
        assert [path.name for path in (tmp_path / "hub" / "incoming").iterdir()] == []


def ask(url: str, data: bytes | None = None, method: str = "POST", token: str = "hf_alice") -> tuple[int, Any]:
    request = urllib.request.Request(url, data, {"Authorization": f"Bearer {token}"}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_uploads_that_are_not_what_they_say(tmp_path: Path) -> None:
    sha = hashlib.sha256(ROWS).hexdigest()
    with HubServer(tmp_path / "hub", parts_from=100_000) as hub:
        client(hub).create_repo(ID, repo_type="dataset")
        batch = {"transfers": ["basic", "multipart"], "objects": [{"oid": sha, "size": len(ROWS)}]}
        url = f"{hub.url}/datasets/{ID}.git/info/lfs/objects/batch"
        [told] = json.loads(ask(url, json.dumps(batch).encode())[1])["objects"]
        upload = told["actions"]["upload"]
        parts = [url for number, url in upload["header"].items() if number.isdigit()]
        etags = [f'"{hashlib.md5(ROWS[n * 50_000 :][:50_000]).hexdigest()}"' for n in range(3)]
        assert ask(parts[0], ROWS[:50_000], "PUT")[0] == 200
        done = {"oid": sha, "parts": [{"partNumber": n + 1, "etag": etag} for n, etag in enumerate(etags)]}
        assert ask(upload["href"], json.dumps(done).encode()) == (400, '{"error": "InvalidPart"}')
        assert ask(parts[1], ROWS[50_000:100_000], "PUT")[0] == 200
        done["parts"] = done["parts"][:2]
        assert "sha256 mismatch" in ask(upload["href"], json.dumps(done).encode())[1]
        basic = f"{hub.url}/_lfs/{sha}?to=datasets/{ID}"
        assert "sha256 mismatch" in ask(basic, ROWS + b"!", "PUT")[1]
        assert not hub.blob(sha).exists() and not hub.repos["dataset", ID].objects


def test_a_commit_is_whole_or_not_at_all(hub: HubServer, alice: HfApi) -> None:
    head = commit(alice, {"a.txt": b"1"}).oid
    lines: list[Any] = [{"key": "header", "value": {"summary": "s"}}]
    lines += [{"key": "file", "value": {"path": "a.txt", "content": "Mg==", "encoding": "base64"}}]
    large = {"path": "b.parquet", "algo": "sha256", "oid": "0" * 64, "size": 3}
    url = f"{hub.url}/api/datasets/{ID}/commit/main"
    for extra, status in [
        ({"key": "lfsFile", "value": large}, 422),
        ({"key": "deletedFile", "value": {"path": "none"}}, 404),
        ({"key": "file", "value": {"path": "c", "content": "AAAA" * (4 * 2**20), "encoding": "base64"}}, 413),
        ({"key": "file", "value": {"path": "README.md", "content": "LS0tCmE6IFsKLS0tCg==", "encoding": "b"}}, 400),
    ]:
        body = b"\n".join(json.dumps(line).encode() for line in [*lines, extra])
        assert ask(url, body)[0] == status
        assert alice.dataset_info(ID).sha == head and hub.files("dataset", ID)["a.txt"] == b"1"
    with pytest.raises(RemoteEntryNotFoundError, match="A file with this name doesn't exist"):
        alice.create_commit(ID, [CommitOperationDelete("none")], commit_message="m", repo_type="dataset")
    status, _ = refused(
        lambda: commit(alice, {"z": b"2"}, parent_commit=hub.repos["dataset", ID].commits[head]["parent"])
    )
    assert status == 412


def test_of_those_who_name_the_same_parent_one_commits(hub: HubServer, alice: HfApi) -> None:
    head = alice.dataset_info(ID).sha

    def publish(n: int) -> int:
        try:
            commit(client(hub), {f"{n}.txt": b"x"}, parent_commit=head)
        except HfHubHTTPError as error:
            return error.response.status_code
        return 200

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(publish, range(4))) == [200, 412, 412, 412]


# --- who may do what -----------------------------------------------------------------------------


def test_what_tokens_tell_and_allow(hub: HubServer, alice: HfApi) -> None:
    told = alice.whoami()
    assert (told["name"], [org["name"] for org in told["orgs"]]) == ("alice", ["school"])
    assert told["auth"]["accessToken"]["role"] == "write"
    fine, reader, bob = (client(hub, token) for token in ("hf_alice_fine", "hf_alice_read", "hf_bob"))
    scoped = fine.whoami()["auth"]["accessToken"]["fineGrained"]["scoped"]
    assert "repo.write" in scoped[0]["permissions"] and scoped[0]["entity"]["name"] == "alice"
    assert reader.whoami()["auth"]["accessToken"]["role"] == "read"

    alice.create_repo("school/maths", private=True)
    commit(alice, {"a.txt": b"1"}, "school/maths", "model")
    commit(fine, {"fine.txt": b"1"})
    with pytest.raises(RepositoryNotFoundError):
        fine.model_info("school/maths")
    assert refused(lambda: fine.create_repo("school/more"))[0] == 403

    assert reader.model_info("school/maths").private
    status, message = refused(lambda: reader.create_repo("alice/new"))
    assert status == 403 and 'rights to create a model under the namespace "alice"' in message
    status, message = refused(lambda: commit(reader, {"b.txt": b"1"}))
    assert status == 403 and "pass `create_pr=1`" in message
    assert refused(lambda: commit(reader, {"b.txt": b"1"}, create_pr=True))[0] == 403
    assert refused(lambda: reader.create_tag(ID, tag="v1", repo_type="dataset"))[0] == 403
    assert refused(lambda: bob.create_repo("school/x"))[0] == 403
    with pytest.raises(RepositoryNotFoundError):
        bob.model_info("school/maths")


def test_no_token_and_a_wrong_one(hub: HubServer, alice: HfApi) -> None:
    nobody, wrong = client(hub, False), client(hub, "hf_nobody")
    assert nobody.dataset_info(ID).id == ID
    with pytest.raises(RepositoryNotFoundError) as caught:
        nobody.dataset_info("alice/nothing")
    assert caught.value.response.status_code == 401
    with pytest.raises(RepositoryNotFoundError):
        commit(nobody, {"a.txt": b"1"})
    status, message = refused(lambda: wrong.dataset_info(ID))
    assert status == 401 and "Invalid credentials in Authorization header" in message
    assert "Invalid user token" in refused(wrong.whoami)[1]
    assert {call["user"] for call in hub.calls} == {"alice", None}


def test_settings_privacy_and_gates(hub: HubServer, alice: HfApi, tmp_path: Path) -> None:
    commit(alice, {"a.txt": b"1"})
    bob = client(hub, "hf_bob")
    assert refused(lambda: bob.update_repo_settings(ID, private=True, repo_type="dataset"))[0] == 403
    alice.update_repo_settings(ID, private=True, repo_type="dataset")
    assert alice.dataset_info(ID).private and not bob.repo_exists(ID, repo_type="dataset")
    alice.update_repo_settings(ID, private=False, gated="auto", repo_type="dataset")
    info = bob.dataset_info(ID)
    assert (info.private, info.gated) == (False, "auto")
    for api, status in ((bob, 403), (client(hub, False), 401)):
        with pytest.raises(GatedRepoError) as caught:
            api.hf_hub_download(ID, "a.txt", repo_type="dataset", cache_dir=tmp_path / f"{status}")
        assert caught.value.response.status_code == status
        with pytest.raises(GatedRepoError):
            api.auth_check(ID, repo_type="dataset")
    assert alice.hf_hub_download(ID, "a.txt", repo_type="dataset", cache_dir=tmp_path / "own")


# --- branches, tags, pull requests ---------------------------------------------------------------


def test_branches_and_tags(hub: HubServer, alice: HfApi) -> None:
    first = commit(alice, {"a.txt": b"1"}).oid
    alice.create_branch(ID, branch="next/v2", repo_type="dataset")
    second = commit(alice, {"a.txt": b"2"}, revision="next/v2").oid
    alice.create_tag(ID, tag="v1", revision="next/v2", repo_type="dataset")
    assert alice.dataset_info(ID).sha == first
    assert alice.dataset_info(ID, revision="v1").sha == alice.dataset_info(ID, revision="next/v2").sha == second
    assert refused(lambda: alice.create_tag(ID, tag="v1", repo_type="dataset"))[0] == 409
    assert refused(lambda: alice.create_branch(ID, branch="main", repo_type="dataset"))[0] == 409
    for revision in ("none", "v1", second, "refs/pr/1"):  # only branches and pull requests can be committed to
        with pytest.raises(RevisionNotFoundError):
            commit(alice, {"b.txt": b"2"}, revision=revision)
        body = b'{"key": "header", "value": {"summary": "s"}}'
        quoted = revision.replace("/", "%2F")
        assert ask(f"{hub.url}/api/datasets/{ID}/commit/{quoted}", body)[0] == 404
    with pytest.raises(RevisionNotFoundError):
        alice.dataset_info(ID, revision="none")
    assert sorted(hub.repos["dataset", ID].refs) == ["main", "next/v2"]

    alice.delete_tag(ID, tag="v1", repo_type="dataset")
    with pytest.raises(RevisionNotFoundError):
        alice.delete_tag(ID, tag="v1", repo_type="dataset")
    assert refused(lambda: alice.delete_branch(ID, branch="main", repo_type="dataset"))[0] == 403
    alice.delete_branch(ID, branch="next/v2", repo_type="dataset")
    assert "Reference does not exist" in refused(lambda: alice.delete_branch(ID, branch="v9", repo_type="dataset"))[1]
    refs = alice.list_repo_refs(ID, repo_type="dataset")
    assert ([each.name for each in refs.branches], refs.tags) == (["main"], [])


def test_pull_requests(hub: HubServer, alice: HfApi) -> None:
    main = commit(alice, {"a.txt": b"1", "b.txt": b"1"}).oid
    bob = client(hub, "hf_bob")
    with pytest.raises(HfHubHTTPError):
        commit(bob, {"a.txt": b"2"})
    made = commit(bob, {"a.txt": b"2", "big.parquet": ROWS}, create_pr=True)
    assert (made.pr_num, made.pr_revision) == (1, "refs/pr/1")
    commit(bob, {"c.txt": b"2"}, revision="refs/pr/1")
    assert alice.dataset_info(ID).sha == main
    assert sorted(hub.files("dataset", ID, "refs/pr/1")) == [".gitattributes", "a.txt", "b.txt", "big.parquet", "c.txt"]
    [shown] = alice.get_repo_discussions(ID, repo_type="dataset", discussion_status="open", author="bob")
    assert not list(alice.get_repo_discussions(ID, repo_type="dataset", author="alice"))
    assert (shown.title, shown.author, shown.status, shown.is_pull_request) == ("more", "bob", "open", True)
    with pytest.raises(RevisionNotFoundError):
        commit(bob, {"a.txt": b"2"}, create_pr=True, revision=main)

    draft = alice.create_pull_request(ID, title="Later", repo_type="dataset")
    assert (draft.num, draft.status, draft.git_reference) == (2, "draft", "refs/pr/2")
    commit(alice, {"b.txt": b"3"}, revision="refs/pr/2")
    assert refused(lambda: alice.merge_pull_request(ID, 2, repo_type="dataset"))[0] == 400
    assert refused(lambda: bob.change_discussion_status(ID, 2, "closed", repo_type="dataset"))[0] == 403
    alice.change_discussion_status(ID, 2, "open", repo_type="dataset")
    alice.merge_pull_request(ID, 2, repo_type="dataset")
    alice.merge_pull_request(ID, 1, repo_type="dataset")
    files = hub.files("dataset", ID)
    assert (files["a.txt"], files["b.txt"], files["c.txt"], files["big.parquet"]) == (b"2", b"3", b"2", ROWS)
    details = alice.get_discussion_details(ID, 2, repo_type="dataset")
    assert (details.status, details.target_branch) == ("merged", "refs/heads/main")
    assert details.merge_commit_oid in hub.repos["dataset", ID].commits
    assert [event.type for event in details.events] == ["comment", "commit", "status-change", "status-change"]
    assert not list(alice.get_repo_discussions(ID, repo_type="dataset", discussion_status="open"))
    assert refused(lambda: alice.get_discussion_details(ID, 9, repo_type="dataset"))[0] == 404


def test_listings_have_pages(tmp_path: Path) -> None:
    with HubServer(tmp_path / "hub", page=3) as hub:
        api = client(hub)
        api.create_repo("alice/m")
        for n in range(7):
            api.create_discussion("alice/m", title=f"{n}", pull_request=n % 2 == 0)
        commit(api, {f"data/{n}.txt": b"" for n in range(8)}, "alice/m", "model")
        assert [each.title for each in api.get_repo_discussions("alice/m")] == list("6543210")
        asked = api.get_repo_discussions("alice/m", discussion_type="pull_request")
        assert [each.title for each in asked] == list("6420")
        assert len(list(api.list_repo_tree("alice/m", "data"))) == 8
        assert len(api.list_repo_commits("alice/m")) == 2


# --- cards ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("meta", "told"),
    [
        ("base_model: /home/alice/tiny", '"base_model" with value "/home/alice/tiny" is not valid'),
        ("base_model: ''", '"base_model" is not allowed to be empty'),
        ("datasets: [a/b/c]", '"datasets" with value "a/b/c" is not valid'),
        ("license: apache", '"license" must be one of'),
        ("language: English", '"language[0]" with value "English"'),
        ("a: [", "YAML"),
        ("- a", "must be an object"),
        ("tags: one", '"tags" must be an array'),
        ("model-index: {name: x}", '"model-index" must be an array'),
        ("model-index: [{results: []}]", '"model-index[0].name" is required'),
        (
            "model-index: [{name: x, results: [{task: {type: t}, dataset: {name: d, type: d}, metrics: [{type: m}]}]}]",
            '"model-index[0].results[0].metrics[0].value" is required',
        ),
    ],
)
def test_cards_that_are_refused(meta: str, told: str) -> None:
    [error], _ = problems(f"---\n{meta}\n---\n")
    assert told in error


def test_cards_are_checked_when_asked_and_when_committed(hub: HubServer, alice: HfApi) -> None:
    with pytest.raises(ValueError, match="base_model"):
        commit(alice, {"README.md": b"---\nbase_model: /tmp/x\n---\n"})
    with pytest.warns(UserWarning, match="license_name"):
        commit(alice, {"README.md": b"---\nlicense: other\n---\n"})
    with pytest.warns(UserWarning, match="empty or missing yaml metadata"):
        commit(alice, {"README.md": b"# Nothing\n"})
    line = {"path": "README.md", "content": "LS0tCmxpY2Vuc2U6IHgKLS0tCg==", "encoding": "base64"}
    body = b'{"key": "header", "value": {"summary": "s"}}\n' + json.dumps({"key": "file", "value": line}).encode()
    status, text = ask(f"{hub.url}/api/datasets/{ID}/commit/main", body)
    assert status == 400 and "YAML metadata verification" in text
    assert hub.files("dataset", ID)["README.md"] == b"# Nothing\n"
    result = "{task: {type: t}, dataset: {name: d, type: d}, metrics: [{type: m, value: 0}]}"
    good = f"license: mit\nlanguage: [en]\nbase_model: a/b\nmodel-index: [{{name: x, results: [{result}]}}]"
    assert problems(f"---\n{good}\n---\n") == ([], [])


# --- faults --------------------------------------------------------------------------------------


def test_a_status_with_its_headers(hub: HubServer, alice: HfApi) -> None:
    hub.faults.append(Fault("POST .*/commit/", status=429, headers={"Retry-After": "7"}))
    with pytest.raises(HfHubHTTPError) as caught:
        commit(alice, {"a.txt": b"1"})
    assert caught.value.response.headers["Retry-After"] == "7"
    assert hub.calls[-1]["status"] == 429 and "a.txt" not in hub.files("dataset", ID)
    hub.faults += [{"match": "POST .*/commit/", "status": 412, "times": 1}]
    assert refused(lambda: commit(alice, {"a.txt": b"1"}))[0] == 412
    commit(alice, {"a.txt": b"1"})
    hub.faults.append(Fault("POST .*/commit/", status=504, when="after"))
    assert refused(lambda: commit(alice, {"a.txt": b"2"}))[0] == 504
    assert hub.files("dataset", ID)["a.txt"] == b"2"


@pytest.mark.parametrize(("drop", "there"), [("before", False), ("after", True)])
def test_a_dropped_connection(hub: HubServer, alice: HfApi, drop: Any, there: bool) -> None:
    hub.faults.append(fault := Fault("POST .*/commit/", drop=drop))
    with pytest.raises(httpx.RemoteProtocolError):
        commit(alice, {"a.txt": b"1"})
    assert ("a.txt" in hub.files("dataset", ID)) is there
    assert fault.fired == 1 and hub.calls[-1]["status"] is None
    assert alice.dataset_info(ID).id == ID


def test_a_dropped_upload_is_sent_again(hub: HubServer, alice: HfApi) -> None:
    hub.faults.append(Fault("PUT /_lfs/", drop="before"))
    commit(alice, {"a.parquet": ROWS})  # the client itself asks a second time
    assert hub.files("dataset", ID)["a.parquet"] == ROWS
    assert [call["status"] for call in hub.calls if call["method"] == "PUT"] == [None, 200]


def test_an_upload_that_breaks_off_leaves_nothing(hub: HubServer, alice: HfApi, capsys: Any) -> None:
    where = urlsplit(hub.url)
    with socket.create_connection((where.hostname, where.port)) as connection:
        start = f"PUT /_lfs/{hashlib.sha256(ROWS).hexdigest()}?to=datasets/{ID} HTTP/1.1\r\nContent-Length: {len(ROWS)}"
        connection.sendall(start.encode() + b"\r\n\r\n" + ROWS[:9000])
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(100) == b""
    assert capsys.readouterr().err == ""
    assert hub.calls[-1]["status"] is None and not hub.repos["dataset", ID].objects
    assert list((hub.root / "incoming").iterdir()) == []
    assert hashlib.sha256(ROWS).hexdigest() not in os.listdir(hub.root / "blobs")


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_client_killed_at_a_request(hub: HubServer, alice: HfApi, when: Any) -> None:
    code = f"from huggingface_hub import HfApi; HfApi({hub.url!r}, 'hf_alice').create_repo('alice/killed')"
    hub.faults.append(Fault("POST /api/repos/create", call=lambda: os.kill(process.pid, signal.SIGKILL), when=when))
    process = subprocess.Popen([sys.executable, "-c", code])
    assert process.wait(60) == -signal.SIGKILL
    assert hub.calls[-1]["path"] == "/api/repos/create" and hub.calls[-1]["status"] in (200, None)
    if when == "after":  # before it, the request's body may not have been on its way yet
        assert ("model", "alice/killed") in hub.repos


def test_a_fault_at_each_request_of_a_flow(tmp_path: Path) -> None:
    def flow(hub: HubServer) -> None:
        api = client(hub)
        api.create_repo(ID, repo_type="dataset")
        commit(api, {"README.md": b"---\nlicense: mit\n---\n", "a.bin": ROWS})

    def start(name: str) -> HubServer:
        return HubServer(tmp_path / name)

    with start("whole") as hub, hub.record() as requests:
        flow(hub)
    assert [request.split("/")[0] for request in requests] == [
        "POST ",
        "POST ",
        "POST ",
        "POST ",
        "PUT ",
        "POST ",
        "POST ",
    ]
    assert requests[0] == "POST /api/repos/create" and requests[-1] == f"POST /api/datasets/{ID}/commit/main"
    for k, request in enumerate(requests):
        with start(str(k)) as hub:
            hub.faults.append(Fault(skip=k, status=409, times=float("inf")))
            with hub.record() as seen, pytest.raises((HfHubHTTPError, RuntimeError)):
                flow(hub)
            assert seen == requests[: k + 1] and seen[-1] == request
            assert [call["status"] for call in hub.calls] == [200] * k + [409]
            assert k == 0 or "a.bin" not in hub.files("dataset", ID)


def test_faults_count_what_they_match(hub: HubServer, alice: HfApi) -> None:
    hub.faults += [Fault("GET", skip=1, times=2, status=418), Fault("GET", skip=4, status=419)]
    told = [ask(f"{hub.url}/api/datasets/{ID}", None, "GET")[0] for _ in range(6)]
    assert told == [200, 418, 418, 200, 419, 200]
    with pytest.raises(ValueError, match="a status, a drop or a call"):
        Fault("GET")


# --- Xet, and the server by hand -----------------------------------------------------------------

XET = """
import json, pathlib, sys
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.utils._runtime import is_xet_available
how, id_ = sys.argv[1], "alice/words"
assert is_xet_available() is (how == "xet")
api = HfApi()
api.create_repo(id_, repo_type="dataset", exist_ok=True)
for n in range(2):
    rows = f"{how}{n}".encode() + bytes(range(256)) * 500
    operations = [CommitOperationAdd(f"{how}{n}.parquet", rows), CommitOperationAdd(f"{how}{n}.txt", b"words")]
    api.create_commit(id_, operations, commit_message="m", repo_type="dataset")
tree = api.list_repo_tree(id_, recursive=True, repo_type="dataset")
hashes = {each.path: each.xet_hash for each in tree if each.path.endswith("parquet")}
for path in hashes:
    got = pathlib.Path(api.hf_hub_download(id_, path, repo_type="dataset")).read_bytes()
    assert got == path.removesuffix(".parquet").encode() + bytes(range(256)) * 500, path
print(json.dumps(hashes))
"""


def test_large_files_by_xet_and_without(tmp_path: Path) -> None:
    with HubServer(tmp_path / "hub", xet=True) as hub:

        def run(how: str) -> Any:
            chosen = {"HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_alice", "HF_HOME": str(tmp_path / how)}
            chosen |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_XET": "0" if how == "xet" else "1"}
            kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))}
            done = subprocess.run(
                [sys.executable, "-c", XET, how], env=kept | chosen, capture_output=True, text=True, timeout=120
            )
            assert done.returncode == 0, done.stderr
            return json.loads(done.stdout)

        assert [len(hash_) for hash_ in run("xet").values()] == [64, 64]
        assert not paths(hub, "/_lfs/") and paths(hub, f"/api/datasets/{ID}/xet-write-token/main")
        assert paths(hub, f"/api/datasets/{ID}/xet-read-token/")
        assert {path for path, hash_ in run("lfs").items() if hash_} == {"xet0.parquet", "xet1.parquet"}
        assert len(paths(hub, "/_lfs/", "PUT")) == 2
        files = hub.files("dataset", ID)
        assert (files["xet1.parquet"], files["lfs1.parquet"]) == (b"xet1" + ROWS, b"lfs1" + ROWS)
        lost = Xet(tmp_path / "other")
        assert lost.fetch(["0" * 64], tmp_path) == []


def test_the_server_by_hand(tmp_path: Path) -> None:
    command = [sys.executable, Path(__file__).with_name("hub_server.py"), "--root", tmp_path, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            api = HfApi(endpoint=process.stdout.readline().split()[0], token="hf_alice")
            assert api.whoami()["name"] == "alice"
            assert refused(lambda: api.delete_repo("alice/none"))[0] == 404
        finally:
            process.terminate()
