"""The gates, as tests: one command, `make check`, says whether the tree is sound."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TOOLS = Path(sys.executable).parent
MODULES = sorted([*ROOT.glob("factoryd/**/*.py"), *ROOT.glob("factoryctl/**/*.py")])
GATES = {
    "format": ["ruff", "format", "--check", "."],
    "lint": ["ruff", "check", "."],
    "types": ["mypy"],
    "strict types": ["pyright", "--pythonpath", sys.executable],
    "imports": ["lint-imports"],
    "trio": [
        "flake8-async",
        "--enable=ASYNC",
        "--disable=ASYNC114,ASYNC128,ASYNC910",
        *map(str, MODULES),
    ],
}
BANNED_NAMES = {"TYPE_CHECKING", "annotations"}


def name(module: Path) -> str:
    return str(module.relative_to(ROOT))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("gate", GATES)
def test_a_gate_is_passed(gate):
    tool, *arguments = GATES[gate]
    program = TOOLS / tool
    assert program.exists(), f"{tool} is not installed: run make check"
    done = subprocess.run(
        [program, *arguments],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("module", MODULES, ids=name)
def test_a_module_fits_in_the_head(module):
    assert len(module.read_text().splitlines()) <= 400


@pytest.mark.parametrize("module", MODULES, ids=name)
def test_a_module_says_what_it_is_and_reads_its_annotations_at_run_time(module):
    tree = ast.parse(module.read_text())
    assert ast.get_docstring(tree)
    imported = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module in {"__future__", "typing"}
        for alias in node.names
    }
    assert not imported & BANNED_NAMES


@pytest.mark.parametrize("module", ["factoryctl.__main__", "factoryctl.client", "factoryd.wire"])
def test_the_command_starts_without_trio_and_psutil(module):
    code = f"import {module}, sys; assert not {{'trio', 'psutil', 'rich'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize("program", ["factoryd", "factoryctl"])
def test_a_program_says_its_version(program):
    done = subprocess.run(
        [TOOLS / program, "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(f"{program} ")
