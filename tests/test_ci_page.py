"""docs/ci.md, followed to the letter: its files make a project, which records with TensorFlow and replays without."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "ci.md"
FILES = re.compile(r"`([\w./-]+)`[^`\n]*:\n\n```\w*\n(.*?)```", re.DOTALL)
"""A sentence that names a file and ends with a colon, and the block behind it."""

WITHOUT_TENSORFLOW = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("tensorflow", "keras"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name, text in FILES.findall(PAGE.read_text(encoding="utf-8")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "sitecustomize.py").write_text(WITHOUT_TENSORFLOW)
    return tmp_path


def run(project: Path, command: str, *, tensorflow: bool, **variables: str) -> subprocess.CompletedProcess[str]:
    """A command of the page, as somebody types it, with this Python's programs; without TensorFlow as if it were not
    installed."""
    kept = {name: value for name, value in os.environ.items() if name not in ("CI", "GITHUB_ACTIONS", "PYTEST_ADDOPTS")}
    paths = [str(project)] if tensorflow else [str(project / "bin"), str(project)]
    programs = os.pathsep.join([str(Path(sys.executable).parent), kept["PATH"]])
    environment = {**kept, "PATH": programs, "PYTHONPATH": os.pathsep.join(paths), **variables}
    return subprocess.run(["bash", "-c", command], cwd=project, env=environment, capture_output=True, text=True)


def steps(project: Path, job: str) -> list[str]:
    """The commands of a job of the workflow, but for what pip installs."""
    workflow = (project / ".github/workflows/parity.yml").read_text(encoding="utf-8")
    text = workflow[workflow.index(f"\n  {job}:") :]
    following = re.search(r"\n  \w+:", text[1:])
    commands = re.findall(r"- run: (.*)", text[: following.start() + 1] if following else text)
    return [command for command in commands if "pip install" not in command]


def test_the_page_has_its_files(project: Path) -> None:
    named = {str(path.relative_to(project)) for path in project.rglob("*") if path.is_file()}
    assert named >= {"net.py", "test_net.py", "requirements.txt", ".github/workflows/parity.yml"}
    lines = [line for name in ("net.py", "test_net.py") for line in (project / name).read_text().splitlines() if line]
    assert len(lines) <= 25
    assert steps(project, "replay") == ["pytest --junit-xml=parity.xml"]
    assert steps(project, "live") == ["pytest --parity-live"]


@pytest.mark.tensorflow
def test_a_project_records_with_tensorflow_and_replays_without(project: Path) -> None:
    missing = run(project, "pytest", tensorflow=False)
    assert missing.returncode == 1
    assert "pytest test_net.py::test_my_network --parity-record" in missing.stdout

    recorded = run(project, "pytest --parity-record", tensorflow=True)
    assert recorded.returncode == 0, recorded.stdout + recorded.stderr
    [golden] = project.rglob("*.safetensors")
    assert golden.stat().st_size < 100_000

    [replay] = steps(project, "replay")
    replayed = run(project, replay, tensorflow=False, CI="true")
    assert replayed.returncode == 0, replayed.stdout + replayed.stderr
    assert "parity" in replayed.stdout
    assert 'name="parity verdict" value="pass"' in (project / "parity.xml").read_text(encoding="utf-8")

    [live] = steps(project, "live")
    assert run(project, live, tensorflow=True, CI="true").returncode == 0
    assert run(project, live, tensorflow=False).returncode == 1  # it says so, instead of a pass that means nothing

    text = (project / "net.py").read_text(encoding="utf-8")
    (project / "net.py").write_text(text.replace("(1 - a1**2)", "(1 - a1)"), encoding="utf-8")
    wrong = run(project, replay, tensorflow=False)
    assert wrong.returncode == 1
    assert "tanh-derivative-not-squared" in wrong.stdout
    assert "dW1" in wrong.stdout

    (project / "net.py").write_text(text.replace("5", "7"), encoding="utf-8")
    changed = run(project, replay, tensorflow=False)
    assert changed.returncode == 1
    assert "is of the network as it was before: pytest test_net.py::test_my_network --parity-record" in changed.stdout
