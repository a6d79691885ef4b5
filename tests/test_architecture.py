"""Imports go one way (design): apps -> methods -> sam, engine -> models -> the plain parts."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

PLAIN = {"images", "masks", "prompts", "results", "errors", "settings"}
BASE = PLAIN | {"models", "engine"}
PICTURES = {"overlays", "exports"}
METHODS = {"sam", "persam", "robustsam", "car", "pixellm", "dreambooth"}
COMMANDS = {"training", "evaluation", "benchmark"}
WORLD = {"stickers"}
WEATHER = {"degradations"}
WORDS = {"clip"}
CORE = BASE | PICTURES | METHODS | COMMANDS | WORLD | WEATHER | WORDS | {"reports"}

# Which parts of core each part may import, besides itself.
ALLOWED = {
    **{part: PLAIN for part in PLAIN},
    "overlays": PLAIN,
    "exports": PLAIN | {"overlays"},
    "models": PLAIN,
    "engine": PLAIN | {"models"},
    "stickers": PLAIN | {"overlays"},  # to look at scenes
    "degradations": PLAIN | {"overlays"},
    "reports": PLAIN,
    "clip": BASE,
    "sam": BASE,
    "persam": BASE | PICTURES | {"sam"},
    "robustsam": BASE | PICTURES | {"sam", "degradations"},
    "car": BASE | PICTURES | {"sam", "clip", "stickers"},  # the object table: what our CLIP knows
    "pixellm": BASE | PICTURES,
    "dreambooth": BASE | PICTURES | {"persam"},
    **{part: CORE for part in COMMANDS},
}
APPS = {
    "suite": CORE - COMMANDS - WORLD - {"reports"},
    "lab": CORE,
    # Renders the repository's files and imports none of them.
    "spaces": {"settings", "models", "errors"},
}
INTERFACES = {"gradio", "streamlit", "apps"}


def imported(source, module, is_package):
    """Yield the dotted name of everything that a module's source imports, wherever it does so."""
    package = module if is_package else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join(filter(None, [*parents, base]))
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def violations(module, names):
    """List the imports that a module (dotted name) must not make."""
    parts = module.split(".")
    bad = set()
    for name in names:
        target = name.split(".")
        if parts[0] == "core" and target[0] in INTERFACES:
            bad.add(name)
        if target[0] != "core" or len(target) < 2 or target[1] not in CORE:
            continue
        if len(parts) < 2:
            bad.add(name)  # `import core` stays free of cost
        elif parts[0] == "core" and target[1] not in ALLOWED[parts[1]] | {parts[1]}:
            bad.add(name)
        elif parts[0] == "apps" and target[1] not in APPS[parts[1]]:
            bad.add(name)
    return sorted(bad)


def modules():
    for folder in ("core", "apps"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            is_package = parts[-1] == "__init__"
            yield ".".join(parts[:-1] if is_package else parts), path, is_package


@pytest.mark.parametrize(
    ("module", "path", "is_package"), [pytest.param(*m, id=m[0]) for m in modules()]
)
def test_imports_go_one_way(module, path, is_package):
    names = imported(path.read_text("utf-8"), module, is_package)
    assert violations(module, names) == []


def test_every_part_of_core_has_its_rule():
    parts = {name.split(".")[1] for name, _, _ in modules() if name.startswith("core.")}
    assert parts <= set(ALLOWED)
    apps = {name.split(".")[1] for name, _, _ in modules() if name.startswith("apps.")}
    assert apps <= set(APPS)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("core.masks", "import gradio as gr"),
        ("core.engine.engine", "from apps.suite import app"),
        ("core.sam.predictor", "def f():\n    import streamlit.web"),
        ("core.engine.engine", "from core.sam import build"),
        ("core.engine.engine", "from core import sam"),
        ("core.engine.engine", "from ..sam.build import build_sam"),
        ("core.models.loading", "from core.engine.device import pick_device"),
        ("core.persam.pipeline", "from core.car.pipeline import segment"),
        ("core.sam.predictor", "from core.persam import attention"),
        ("core.sam.predictor", "from core.training.losses import focal"),
        ("core.sam.pipeline", "from core.overlays import draw"),
        ("core.images", "from core.masks import iou\nfrom core.models import catalogue"),
        ("core.degradations.kinds", "from core.engine import Engine"),
        ("core.sam.pipeline", "from core.degradations import degrade"),
        ("apps.suite.tabs.segment", "from core.evaluation.metrics import miou"),
        ("core", "from core import images"),
    ],
)
def test_the_rules_catch(module, source):
    assert violations(module, imported(source, module, is_package=module == "core"))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("core.persam.pipeline", "from core.sam.predictor import Predictor"),
        ("core.sam.pipeline", "from ..engine.engine import Engine\nfrom . import build"),
        ("core.training.sam", "from core.evaluation.metrics import miou"),
        ("core.benchmark.suite", "import gradio_client"),
        ("apps.suite.app", "import gradio\nfrom core.exports import write_all"),
        ("apps.lab.app", "from core.evaluation import metrics"),
    ],
)
def test_the_rules_allow(module, source):
    assert violations(module, imported(source, module, is_package=False)) == []


def test_plain_parts_need_neither_torch_nor_slow_scientific_packages():
    parts = ", ".join(f"core.{part}" for part in sorted(PLAIN | PICTURES | WEATHER))
    code = f"import sys, {parts}; print(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = set(run.stdout.split())
    assert not loaded & {"torch", "skimage", "scipy", "matplotlib", "gradio", "pycocotools"}
