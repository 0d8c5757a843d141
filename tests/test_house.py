"""The house rules of CONTRIBUTING.md, as tests: what a linter cannot say."""

import ast
import re
import subprocess
import tomllib
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SERVICES = ("gateway", "compliance", "cache", "inference", "audit")
PACKAGES = ("meshkit", *SERVICES, "appliance", "sealgate")
FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 50
POSITIONAL_MAX = 5


@cache
def sources() -> list[Path]:
    found = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    return sorted(path for path in found if not path.name.endswith(("_pb2.py", "_pb2_grpc.py")))


@cache
def modules() -> list[tuple[Path, ast.Module]]:
    return [(path.relative_to(ROOT), ast.parse(path.read_text())) for path in sources()]


@cache
def functions() -> list[tuple[Path, ast.FunctionDef | ast.AsyncFunctionDef]]:
    return [
        (path, node)
        for path, module in modules()
        for node in ast.walk(module)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not is_kernel(node)
    ]


def is_kernel(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """A GPU's kernel is one function of pointers and sizes: it can call nothing of ours."""
    return any(ast.unparse(mark) == "triton.jit" for mark in node.decorator_list)


@cache
def imports(module: ast.Module) -> set[str]:
    names = set()
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_the_rules_see_the_code() -> None:
    assert len(sources()) > 50
    assert len(functions()) > 300


def test_no_file_is_longer_than_a_reader_can_hold() -> None:
    long = {
        str(p.relative_to(ROOT)): n
        for p in sources()
        if (n := len(p.read_text().splitlines())) > FILE_LINES_MAX
    }
    assert long == {}


def test_no_function_is_longer_than_a_screen() -> None:
    long = [
        f"{path}:{node.lineno} {node.name}"
        for path, node in functions()
        if (node.end_lineno or 0) - node.lineno + 1 > FUNCTION_LINES_MAX
    ]
    assert long == []


def test_arguments_beyond_five_have_names() -> None:
    many = [
        f"{path}:{node.lineno} {node.name}"
        for path, node in functions()
        if len(node.args.posonlyargs) + len(node.args.args) > POSITIONAL_MAX
    ]
    assert many == []


def test_every_module_says_what_it_is_for() -> None:
    assert [str(path) for path, module in modules() if not ast.get_docstring(module)] == []


def test_generated_code_is_met_only_at_the_edges() -> None:
    """Cores must not know the wire, or the wire's shape becomes theirs."""
    edges = {"servicer.py", "clients.py", "main.py", "wire.py"}
    strays = [
        str(path)
        for path, module in modules()
        if path.parts[0] != "sealgate"
        and path.name not in edges
        and any(name.startswith("sealgate.v1") for name in imports(module))
    ]
    assert strays == []


@pytest.mark.parametrize("service", SERVICES)
def test_services_are_strangers(service: str) -> None:
    others = set(PACKAGES) - {service, "meshkit", "sealgate"}
    strays = [
        str(path)
        for path, module in modules()
        if path.parts[0] == service
        and any(name.split(".")[0] in others for name in imports(module))
    ]
    assert strays == []


def test_main_is_imported_by_nobody() -> None:
    strays = [
        str(path)
        for path, module in modules()
        if any(
            re.fullmatch(r"(gateway|compliance|cache|inference|audit|appliance)\.main", n)
            for n in imports(module)
        )
    ]
    assert strays == []


def test_pure_modules_are_held_pure_by_the_import_rules() -> None:
    """A module that calls itself PURE and stands in no contract is only a promise."""
    rules = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"][
        "contracts"
    ]
    (pure,) = (rule["source_modules"] for rule in rules if rule["name"] == "Cores are pure")
    loose = []
    for path, module in modules():
        if "PURE" not in (ast.get_docstring(module) or "").partition("\n\n")[0]:
            continue
        name = ".".join(path.with_suffix("").parts).removesuffix(".__init__")
        if not any(name == rule or name.startswith(f"{rule}.") for rule in pure):
            loose.append(name)
    assert loose == []


def test_every_silenced_check_says_why() -> None:
    bare = []
    for path in sources():
        for number, line in enumerate(path.read_text().splitlines(), 1):
            silenced = re.search(r"#\s*(noqa|type: ignore|pragma)(.*)$", line)
            if silenced and "--" not in silenced[2] and " # " not in silenced[2]:
                bare.append(f"{path.relative_to(ROOT)}:{number}")
    assert bare == []


def test_an_open_end_names_its_issue() -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loose = [
        name
        for name in tracked.stdout.split()
        if name != "tests/test_house.py"  # which has to spell the words it looks for
        and re.search(r"\b(TODO(?!\(#\d+\))|FIXME|XXX)\b", (ROOT / name).read_text())
    ]
    assert loose == []


def test_every_extra_is_pinned_below_the_next_major() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(d for extra in project["optional-dependencies"].values() for d in extra),
    ]
    loose = [w for w in wanted if not w.startswith("sealgate[") and "<" not in w and "==" not in w]
    assert loose == []


def test_readme_names_the_two_commands() -> None:
    readme = (ROOT / "README.md").read_text()
    assert "make demo" in readme
    assert "make test" in readme


def test_links_between_documents_hold() -> None:
    broken = []
    for page in [ROOT / "README.md", *ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text()):
            if not (page.parent / target).exists():
                broken.append(f"{page.relative_to(ROOT)} -> {target}")
    assert broken == []


def test_every_test_that_a_document_names_exists() -> None:
    """A table of failures whose tests were renamed away is only a promise."""
    named = [
        (page.name, *found.groups())
        for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
        for found in re.finditer(r"`(tests/[\w/.]+)(?:::(\w+))?`", page.read_text())
    ]
    assert len(named) > 20
    broken = []
    for page, path, test in named:
        there = (ROOT / path).exists()
        if not there or (test and f"def {test}(" not in (ROOT / path).read_text()):
            broken.append(f"{page}: {path}::{test}")
    assert broken == []


def test_every_failure_in_the_table_names_its_test() -> None:
    text = (ROOT / "docs" / "ARCHITECTURE.md").read_text()
    table = text.partition("## What fails how")[2].partition("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("|")][2:]
    assert len(rows) > 10
    assert [row for row in rows if "::test_" not in row] == []
