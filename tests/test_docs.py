"""The Python blocks of README.md and docs/ run as they stand, those of one document one after the other.

A block of `text` is what the block before it prints, with `...` for anything.
"""

import contextlib
import doctest
import io
from pathlib import Path

import pytest
from sybil import Document, Example, Sybil
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


PRINTED = "_printed"


def parse(path: Path) -> Document:
    return Sybil(parsers=[PythonCodeBlockParser(), CodeBlockParser("text", require_printed)]).parse(path)


def require_printed(example: Example) -> None:
    """A block of text is what was printed, up to white space."""
    printed, options = example.namespace[PRINTED], doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    if not doctest.OutputChecker().check_output(example.parsed, printed, options):
        raise AssertionError(f"line {example.line}: expected\n{example.parsed}\nreceived\n{printed}")


def run(document: Document) -> int:
    """Run the blocks in order, with names kept from one to the next; how many ran. Raises what a block raises."""
    examples = list(document.examples())
    for example in examples:
        with contextlib.redirect_stdout(io.StringIO()) as out:
            example.evaluate()
        document.namespace[PRINTED] = out.getvalue()
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


PAGE = "```python\nprint('one  two')\nprint(3)\n```\nprints\n```text\none two\n...\n```\n"


def test_what_is_printed_is_compared(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    assert run(parse(page)) == 2
    page.write_text(PAGE.replace("text\none", "text\nfour"))
    with pytest.raises(AssertionError, match="expected\nfour two"):
        run(parse(page))
