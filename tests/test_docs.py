"""The Python blocks of README.md and docs/ run as they stand, those of one document one after the other."""

from pathlib import Path

import pytest
from sybil import Document, Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def parse(path: Path) -> Document:
    return Sybil(parsers=[PythonCodeBlockParser()]).parse(path)


def run(document: Document) -> int:
    """Run the blocks in order, with names kept from one to the next; how many ran. Raises what a block raises."""
    examples = list(document.examples())
    for example in examples:
        example.evaluate()
    return len(examples)


@pytest.mark.tensorflow
@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_code_blocks_run(path, keras, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a block may write files
    if not run(parse(path)):
        pytest.skip("no Python block")


def test_a_wrong_block_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```python\nx = 1\n```\nand\n```bash\nnot python\n```\nthen\n```python\nassert x == 2\n```\n")
    with pytest.raises(AssertionError):
        run(parse(page))


def test_names_are_kept_from_block_to_block(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```python\nx = 1\n```\nthen\n```python\nassert x == 1\n```\n")
    assert run(parse(page)) == 2
