"""The house rules: what may import what, what is light, what is packaged, and how things are called."""

from __future__ import annotations

import ast
import configparser
import fnmatch
import importlib
import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import boost_qa
import boost_qa.config

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "boost_qa"
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}

# A module imports from its own floor and from floors below. Folders stand for all that is in them.
FLOORS = {
    # words; standard library, pydantic and yaml
    "types": 0,
    "config": 0,
    "errors": 0,
    "recipe_file": 0,
    # asking models, keeping what they said
    "engines": 1,
    "models": 1,
    "runner": 1,
    "feed": 1,
    "room": 1,
    "desk": 1,
    "journal": 1,
    "isolation": 1,
    "run_folder": 1,
    "progress": 1,
    # who speaks, about what
    "agents": 2,
    "prompts": 2,
    "retrieval": 2,
    # the method
    "checks": 3,
    "scenarios": 3,
    "sources": 3,
    "star_agents": 3,
    # stages
    "plan": 4,
    "forecast": 4,
    "preflight": 4,
    "lessons": 4,
    "generate": 4,
    "teach": 4,
    "inspection": 4,
    "ledger": 4,
    "check": 4,
    "analogies": 4,
    "page": 4,
    "evaluate": 4,
    "mechanism": 4,
    "study": 4,
    "star_run": 4,
    "star_report": 4,
    "star_signal": 4,
    "star_policies": 4,
    "star": 4,
    "score": 4,
    "bookkeeping": 4,
    "rows": 4,
    "splits": 4,
    "shards": 4,
    "noise": 4,
    "named_model": 4,
    "closing": 4,
    "derived": 4,
    "contents": 4,
    "coreset": 4,
    "parquet": 4,
    "cards": 4,
    "portable": 4,
    "publish": 4,
    "export": 4,
    "choose_run": 4,
    "builder": 4,
    "register": 4,
    "train": 4,
    # doors
    "summary": 5,
    "cli": 5,
    "": 5,  # the package itself
}

# Training stands on torch and what is built on it; nothing else imports it but the doors, when they need it.
TRAIN = {module for module in MODULES if module.startswith("boost_qa.train")}

STAR = {"boost_qa.star_agents.scorer", "boost_qa.star_agents.forward"}

MECHANISM = {"boost_qa.mechanism.subject", "boost_qa.mechanism.landscape", "boost_qa.mechanism.run"}

# Packages that take seconds to import, and the modules that may import them at all.
HEAVY = {
    "torch": TRAIN
    | STAR
    | MECHANISM
    | {"boost_qa.coreset.gradients", "boost_qa.models.trainable", "boost_qa.evaluate.loading", "boost_qa.study.work"}
    | {"boost_qa.evaluate.embedded"},
    "transformers": TRAIN
    | STAR
    | {"boost_qa.mechanism.subject", "boost_qa.retrieval", "boost_qa.models.trainable", "boost_qa.evaluate.loading"},
    "trl": TRAIN,
    "peft": TRAIN | {"boost_qa.mechanism.subject"},
    "accelerate": TRAIN,
    "bitsandbytes": TRAIN,
    "matplotlib": {"boost_qa.train.report", "boost_qa.star_report", "boost_qa.study.plots"},
    "sentence_transformers": {"boost_qa.retrieval"},
    "openvino": {"boost_qa.engines.embedded_process"},
    "openvino_genai": {"boost_qa.engines.embedded_process"},
    "openvino_tokenizers": set(),
    "lm_eval": {"boost_qa.evaluate.replies", "boost_qa.evaluate.tasks", "boost_qa.evaluate.loading"}
    | {"boost_qa.evaluate.standard", "boost_qa.evaluate.run", "boost_qa.evaluate.results"}
    | {"boost_qa.evaluate.embedded"},
    "math_verify": {"boost_qa.checks.results.compare", "boost_qa.evaluate.formulas"},
    "scipy": {"boost_qa.evaluate.intervals", "boost_qa.mechanism.confidence"},
    "sklearn": {"boost_qa.coreset.selection"},
    "nlpaug": {"boost_qa.noise"},
    "phonenumbers": {"boost_qa.checks.personal_data"},
    "py3langid": {"boost_qa.checks.speech.language"},
    "rensa": {"boost_qa.checks.duplicates"},
    "gguf": {"boost_qa.models.gguf_file", "boost_qa.models.prepare", "boost_qa.models.trainable"},
    "reasoning_gym": {"boost_qa.sources.reasoning_gym"},
    "tokenizers": {"boost_qa.engines.chat", "boost_qa.models.prepare", "boost_qa.models.trainable"}
    | {"boost_qa.train.merge"},
    "datasets": TRAIN
    | {"boost_qa.mechanism.material"}
    | {"boost_qa.builder", "boost_qa.cards.dataset", "boost_qa.register", "boost_qa.rows", "boost_qa.sources.hub"}
    | {"boost_qa.publish.dataset", "boost_qa.score"},
}
# The words floor and what a recipe needs must not even import `datasets`.
LIGHT = ("types errors config recipe_file prompts agents scenarios engines journal run_folder runner models plan "
         "splits choose_run").split()  # fmt: skip


def imports(path: Path) -> Iterator[str]:
    """The full names that a module imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def floor(module: str) -> int:
    return FLOORS[(module.split(".") + [""])[1]]


def ours(name: str) -> str | None:
    """The module of the package that an imported name means."""
    if name.split(".")[0] != "boost_qa":
        return None
    return name if name in MODULES else name.rpartition(".")[0]


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout


# --- floors --------------------------------------------------------------------------------------


def test_every_module_has_a_floor():
    assert {(module.split(".") + [""])[1] for module in MODULES} == set(FLOORS)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_no_arrow_points_up(module):
    up = {name for name in map(ours, imports(MODULES[module])) if name is not None and floor(name) > floor(module)}
    assert not up, f"{module} (floor {floor(module)}) imports {up}"


def test_imports_of_our_own_are_found():
    """The two tests around this one see what is really imported."""
    found = {ours(name) for file in ("generate.py", "teach.py") for name in imports(PACKAGE / file)}
    assert {"boost_qa.models", "boost_qa.runner", "boost_qa.scenarios", "boost_qa.engines.embedded"} <= found


@pytest.mark.parametrize("module", [module for module in sorted(MODULES) if floor(module) == 0])
def test_words_stand_on_the_standard_library(module):
    outside = {name.split(".")[0] for name in imports(MODULES[module])} - set(sys.stdlib_module_names)
    assert outside <= {"boost_qa", "pydantic", "yaml"}


# --- weight --------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", sorted(MODULES))
def test_heavy_packages_are_imported_where_they_belong(module):
    wrong = [name for name in imports(MODULES[module]) if module not in HEAVY.get(name.split(".")[0], {module})]
    assert not wrong


def test_importing_the_package_loads_nothing_heavy_beyond_datasets():
    code = (
        "import sys, datasets; before = set(sys.modules)\n"
        "import boost_qa, boost_qa.cli; print(*(set(sys.modules) - before))"
    )
    loaded = {name.split(".")[0] for name in python(code).split()}
    assert "boost_qa" in loaded and not loaded & set(HEAVY)


def test_light_modules_load_nothing_heavy():
    """Without the package's own `__init__`, which is there for `datasets`."""
    code = (
        "import sys, types, importlib\n"
        "package = sys.modules['boost_qa'] = types.ModuleType('boost_qa')\n"
        f"package.__path__ = [{str(PACKAGE)!r}]\n"
        f"for name in {LIGHT!r}: importlib.import_module('boost_qa.' + name)\n"
        "print(*sys.modules)"
    )
    loaded = python(code).split()
    assert {f"boost_qa.{name}" for name in LIGHT} <= set(loaded)
    assert not {name.split(".")[0] for name in loaded} & {*HEAVY, "pyarrow", "pandas", "huggingface_hub"}


# --- names and files -----------------------------------------------------------------------------


def test_no_module_is_called_after_nothing():
    names = {part for module in MODULES for part in module.split(".")}
    assert not names & {"utils", "util", "helpers", "helper", "common", "manager", "processor", "handler", "misc"}
    assert not [module for module in MODULES if re.search(r"(utils|helpers|manager|processor|handler)$", module)]


def test_nothing_in_the_package_is_taken_for_a_dataset():
    assert not (PACKAGE / "boost_qa.py").exists()
    kinds = {".txt", ".json", ".jsonl", ".csv", ".parquet", ".md", ".arrow", ".xml", ".zip", ".tar", ".png", ".wav"}
    assert not [path for path in PACKAGE.rglob("*") if path.suffix in kinds]


@pytest.mark.parametrize("module", sorted(MODULES))
def test_modules_are_short_and_say_what_they_are(module):
    text = MODULES[module].read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 320
    assert ast.get_docstring(ast.parse(text))


def test_public_surface():
    assert boost_qa.__all__ == ["RunFolder", "export", "generate", "load"] == sorted(boost_qa.__all__)
    assert all(callable(getattr(boost_qa, name)) for name in boost_qa.__all__)


def test_words_of_a_recipe_are_all_in_one_place():
    """The modules of `boost_qa.config` are its own affair."""
    for module, path in MODULES.items():
        if not module.startswith("boost_qa.config"):
            assert not [name for name in map(ours, imports(path)) if str(name).startswith("boost_qa.config.")], module
    defined = {
        name
        for module in MODULES
        if module.startswith("boost_qa.config.")
        for name, value in vars(importlib.import_module(module)).items()
        if getattr(value, "__module__", "") == module and not name.startswith("_")
    }
    assert "Recipe" in defined and defined <= set(boost_qa.config.__all__)
    assert all(hasattr(boost_qa.config, name) for name in boost_qa.config.__all__)


def test_functions_keep_their_names_when_their_modules_are_imported():
    code = (
        "import boost_qa, boost_qa.cli, boost_qa.generate, boost_qa.export\n"
        "print(callable(boost_qa.generate), callable(boost_qa.export))"
    )
    assert python(code).split() == ["True", "True"]


# --- packaging -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def setup() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def listed(setup: configparser.ConfigParser, section: str, key: str) -> list[str]:
    return [line for line in setup[section][key].split("\n") if line and not line.startswith("#")]


def places(setup: configparser.ConfigParser) -> dict[str, Path]:
    """Where each listed package lies."""
    moved = dict(line.split(" = ") for line in listed(setup, "options", "package_dir"))
    return {name: ROOT / moved.get(name, name.replace(".", "/")) for name in listed(setup, "options", "packages")}


def to_install(setup: configparser.ConfigParser) -> dict[str, Path]:
    """Every file that an installation must have, by its path in it."""
    found = {}
    folders = set(places(setup).values())
    for name, folder in places(setup).items():
        for path in folder.rglob("*"):
            nearest = next(parent for parent in path.parents if parent in folders)  # a package, or data of one
            if nearest == folder and path.is_file() and path.suffix != ".pyc":
                found[f"{name.replace('.', '/')}/{path.relative_to(folder).as_posix()}"] = path
    return found


def test_every_folder_with_files_is_a_listed_package(setup):
    folders = {
        path.parent
        for path in PACKAGE.rglob("*")
        if path.is_file() and path.suffix in {".py", ".yaml", ".jinja", ".typed"}
    }
    folders -= {PACKAGE / "train" / "templates"}  # data of boost_qa.train
    folders |= {ROOT / "model_cards", *(path for path in (ROOT / "recipes").iterdir() if path.name != "slurm")}
    assert folders == set(places(setup).values())


def test_every_file_that_is_not_code_is_package_data(setup):
    data = {package: patterns.split() for package, patterns in setup["options.package_data"].items()}
    data = {package: [pattern.rstrip(",") for pattern in patterns] for package, patterns in data.items()}
    where = {folder: name for name, folder in places(setup).items()}
    for installed, path in to_install(setup).items():
        folder = next(parent for parent in path.parents if parent in where)
        inside = path.relative_to(folder).as_posix()
        if path.suffix != ".py":
            patterns = data.get(where[folder], ())
            fitting = [
                each for each in patterns if fnmatch.fnmatch(inside, each) and each.count("/") == inside.count("/")
            ]
            assert fitting, installed


def test_version_can_be_read_without_an_import(setup):
    """As `attr:` is read where `datasets` is not installed."""
    assert setup["metadata"]["version"] == "attr: boost_qa.__version__"
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    values = [
        node.value.value for node in tree.body if isinstance(node, ast.Assign) and node.targets[0].id == "__version__"
    ]
    assert values == [boost_qa.__version__] and re.fullmatch(r"\d+\.\d+\.\d+", values[0])


def test_wheel_holds_everything(setup, tmp_path):
    tree = tmp_path / "tree"
    without = shutil.ignore_patterns("__pycache__", "*.pyc")
    for name in ("boost_qa", "recipes", "model_cards"):
        shutil.copytree(ROOT / name, tree / name, ignore=without)
    for name in ("setup.cfg", "pyproject.toml", "LICENSE", "README.md"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, tree)
    code = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=tree, check=True, capture_output=True)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        packed = {name for name in wheel.namelist() if ".dist-info/" not in name}
        points = wheel.read(next(name for name in wheel.namelist() if name.endswith("entry_points.txt"))).decode()
    assert packed == set(to_install(setup))
    assert f"boost_qa-{boost_qa.__version__}-" in next(tmp_path.glob("*.whl")).name
    assert "boost-qa = boost_qa.cli:main" in points
    # the installed package, from the wheel alone, finds its recipes, prompts, sample and card
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import json, boost_qa\n"
        "from boost_qa.config import Sample\n"
        "from boost_qa.plan import plan\n"
        "from boost_qa.sources import read\n"
        "records = read([Sample(source='sample')], 0).records\n"
        "print(json.dumps([boost_qa.__file__, plan('paper').recipe.name, len(records)]))"
    )
    wheel_path = str(next(tmp_path.glob("*.whl")))
    with zipfile.ZipFile(wheel_path) as wheel:
        wheel.extractall(tmp_path / "installed")
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "installed")],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    )
    where, name, count = json.loads(done.stdout)
    assert Path(where).is_relative_to(tmp_path) and name == "paper" and count >= 48


def requirements(setup: configparser.ConfigParser) -> set[str]:
    lines = listed(setup, "options", "install_requires")
    for extra in setup["options.extras_require"]:
        lines += listed(setup, "options.extras_require", extra)
    return {normal(re.match(r"[\w.-]+", line)[0]) for line in lines} - {"boost-qa"}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_requirement_is_pinned(setup):
    constraints = ROOT / "constraints.txt"
    if not constraints.exists():
        pytest.skip("constraints.txt is not written yet")
    lines = [line.partition("#")[0].strip() for line in constraints.read_text(encoding="utf-8").splitlines()]
    pins = [re.fullmatch(r"([\w.-]+)==([^ ;]+)( *;.*)?", line) for line in lines if line and not line.startswith("-")]
    assert all(pins), "every line is name==version"
    assert requirements(setup) <= {normal(pin[1]) for pin in pins}


def test_every_import_is_a_requirement(setup):
    distributions = {
        "yaml": "pyyaml",
        "yarl": "aiohttp",
        "tqdm": "huggingface-hub",
        "httpx2": "huggingface-hub",
        "markdown_it": "markdown-it-py",
        "openvino": "openvino-genai",
        "sklearn": "scikit-learn",
        "sentence_transformers": "sentence-transformers",
    }
    known = requirements(setup)
    for module, path in MODULES.items():
        for name in imports(path):
            top = name.split(".")[0]
            if top != "boost_qa" and top not in sys.stdlib_module_names:
                assert normal(distributions.get(top, top)) in known, f"{module} imports {name}"
