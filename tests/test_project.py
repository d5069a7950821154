"""The house itself: a light import, the layers, the documents, the pinned set."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import tsvae

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "tsvae"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PARTS = ["lds", "metrics", "model_selection", "models", "nn", "panel", "plotting", "training"]


def read_pins():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def normalise(name):
    return re.sub(r"[-_.]+", "-", name).lower()


# -- the top level ---------------------------------------------------------------------------------


def test_import_is_light():
    heavy = ["torch", "pandas", "xarray", "sklearn", "matplotlib", "statsmodels"]
    assert modules_loaded_by("import tsvae", heavy) == []


@pytest.mark.parametrize("name", tsvae.__all__)
def test_exported_names_exist(name):
    assert getattr(tsvae, name) is not None
    assert name in dir(tsvae)


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'VAEForecaster'"):
        tsvae.VAEForecaster  # noqa: B018


def test_the_version_has_one_source():
    assert re.fullmatch(r"\d+\.\d+\.\d+", tsvae.__version__)
    assert PYPROJECT["project"]["dynamic"] == ["version"]
    assert f"## {tsvae.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_types_are_shipped():
    assert (PACKAGE / "py.typed").is_file()


# -- the layers ------------------------------------------------------------------------------------


def absolute_module(path, node):
    """Name the module of a `from` import, relative ones included."""
    if node.level == 0:
        return node.module
    package = path.relative_to(ROOT).parts[: -node.level]
    return ".".join([*package, *([node.module] if node.module else [])])


def imported_modules(path, *, module_level=False):
    """Yield absolute names that a file imports; TYPE_CHECKING blocks do not count."""
    tree = ast.parse(path.read_text(encoding="utf8"))
    blocks = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
    ]
    skipped = {id(inner) for block in blocks for inner in ast.walk(block)}
    for node in tree.body if module_level else ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = absolute_module(path, node)
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def files_of(part):
    folder = PACKAGE / part
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [PACKAGE / f"{part}.py"]


FORBIDDEN = {
    "lds": r"pandas|xarray|sklearn|tsvae\.(?!lds\b)\w+",
    "nn": r"pandas|xarray|sklearn|tsvae\.(?!nn\b)\w+",
    "panel": r"torch|lightning|tsvae\.(?!panel\b)\w+",
    "training": r"xarray|tsvae\.(?!training\b)\w+",
    "models": r"pandas|xarray|tsvae\.(panel|training\.loop|forecaster|model_selection|plotting)",
    "metrics": r"torch|tsvae\.(?!metrics\b|panel\b)\w+",
}


@pytest.mark.parametrize("part", FORBIDDEN)
def test_imports_point_down_only(part):
    forbidden = re.compile(rf"^({FORBIDDEN[part]})(\.|$)")
    wrong = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in files_of(part)
        for name in imported_modules(path)
        if forbidden.search(name)
    ]
    assert wrong == []


def modules_loaded_by(statement, candidates):
    code = f"import sys\n{statement}\nprint(*(m for m in {candidates} if m in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return done.stdout.split()


def test_optional_libraries_are_imported_where_they_are_used():
    optional = ["matplotlib", "statsmodels", "safetensors", "lightning_fabric", "dask", "zarr"]
    parts = ", ".join(f"tsvae.{part}" for part in [*PARTS, "forecaster"])
    assert modules_loaded_by(f"import {parts}", optional) == []


def test_only_the_command_line_prints():
    printers = {
        str(path.relative_to(PACKAGE))
        for path in sorted(PACKAGE.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "print"
    }
    assert printers == {"__main__.py", "demo/cli.py"}


# -- the documents ---------------------------------------------------------------------------------


def public_objects(part):
    module = importlib.import_module(f"tsvae.{part}")
    assert module.__all__, f"tsvae.{part} must list its public names"
    for name in module.__all__:
        found = getattr(module, name)
        if inspect.isclass(found) or inspect.isfunction(found):
            yield found


def undocumented(found):
    """What the docstring of a public class or function leaves out."""
    from numpydoc.validate import validate

    if getattr(found, "_is_protocol", False):
        return []
    fields = getattr(found, "_fields", None) or getattr(found, "__dataclass_fields__", None)
    if fields is not None:  # a named result: in the docstring, or by a comment beside the field
        doc, source = inspect.getdoc(found) or "", inspect.getsource(found)
        documented = {f for f in fields if re.search(rf"\b{f}\b", doc)}
        documented |= {f for f in fields if re.search(rf"^ +{f}: .*  # ", source, re.MULTILINE)}
        return [f for f in fields if not f.startswith("_") and f not in documented]
    # PR01, PR02: a parameter that is not documented, or documented and gone; GL08: no docstring.
    errors = validate(f"{found.__module__}.{found.__qualname__}")["errors"]
    return [message for code, message in errors if code in {"GL08", "PR01", "PR02"}]


@pytest.mark.parametrize("part", [*PARTS, "datasets", "forecaster"])
def test_docstrings_name_the_parameters(part):
    errors = {
        f"{found.__module__}.{found.__qualname__}": undocumented(found)
        for found in public_objects(part)
    }
    assert {name: missing for name, missing in errors.items() if missing} == {}


def slugs(text):
    titles = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(path):
    links = re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf8"))
    for link in links:
        if link.startswith(("http://", "https://")):
            continue
        target, _, anchor = link.partition("#")
        file = (path.parent / target).resolve() if target else path
        assert file.is_file(), f"{link} in {path.name}"
        if anchor:
            assert anchor in slugs(file.read_text(encoding="utf8")), f"{link} in {path.name}"


def python_blocks(path):
    return re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf8"), flags=re.DOTALL)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_examples_name_what_exists(path):
    for block in python_blocks(path):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("tsvae"):
                module = importlib.import_module(node.module)
                for alias in node.names:
                    assert hasattr(module, alias.name), f"{node.module}.{alias.name}"
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id == "f"
            ):
                assert hasattr(tsvae.SVAEForecaster, node.func.attr), f"f.{node.func.attr}"


def shell_blocks(path):
    return re.findall(r"```bash\n(.*?)```", path.read_text(encoding="utf8"), flags=re.DOTALL)


def test_readme_has_one_command_to_run_and_one_to_test():
    demo, test = shell_blocks(ROOT / "README.md")
    for block, ending in [
        (demo, "python -m tsvae demo"),
        (test, "python -m pytest --doctest-modules tsvae tests"),
    ]:
        command = [line for line in block.splitlines() if not line.startswith("#")]
        assert len(command) == 1
        assert "pip install -c constraints.txt" in command[0]
        assert command[0].endswith(ending)


def test_ci_runs_the_readmes_test_command():
    script = (ROOT / ".ci" / "run").read_text()
    extract = re.search(r"command=\$\((.*)\)\n", script).group(1)
    done = subprocess.run(
        ["bash", "-c", extract], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == "python -m pytest --doctest-modules tsvae tests"


# -- the pinned set --------------------------------------------------------------------------------


def requirements():
    extras = PYPROJECT["project"]["optional-dependencies"]
    listed = PYPROJECT["project"]["dependencies"] + [r for name in extras for r in extras[name]]
    return [r for r in map(Requirement, listed) if r.name != "tsvae"]


@pytest.mark.parametrize("requirement", requirements(), ids=str)
def test_pins_satisfy_the_requirements(requirement):
    pins = {normalise(name): version for name, version in read_pins().items()}
    if requirement.name == "pre-commit":  # a tool of the developer's machine, not of the tests
        assert "pre-commit" not in pins
        return
    assert requirement.specifier.contains(pins[normalise(requirement.name)])


def test_pins_are_what_a_package_index_can_serve():
    pins = read_pins()
    assert pins["torch"] == "2.13.0"
    assert not [name for name in pins if "nvidia" in name or "cuda" in name]
    assert not [version for version in pins.values() if "+" in version or "/" in version]


def test_everything_imported_at_module_level_is_a_dependency():
    declared = {normalise(Requirement(r).name) for r in PYPROJECT["project"]["dependencies"]}
    declared |= {"scikit-learn", "scipy"}  # scipy comes with scikit-learn
    names = {"sklearn": "scikit-learn", "lightning_fabric": "lightning-fabric"}
    roots = {
        name.split(".")[0]
        for path in sorted(PACKAGE.rglob("*.py"))
        for name in imported_modules(path, module_level=True)
    }
    foreign = roots - set(sys.stdlib_module_names) - {"tsvae"}
    assert {names.get(root, root) for root in foreign} <= declared
    assert all(find_spec(root) for root in foreign)
