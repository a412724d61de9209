"""The report for others than a reader of text: JUnit XML, Markdown, GitHub; and the options that write them."""

import html
import json
import os
import re
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
from markdown_it import MarkdownIt

from parity.cli import main
from parity.compare import judge
from parity.diagnose import Cause, Finding
from parity.errors import FileError, UsageError
from parity.report import Check, Report, github, markdown
from parity.trace import Place


def row(tensor="dense/output", subject=1.0, allowed=1e-6, **more):
    """A row as compare makes it."""
    made = judge(Place(tensor, "Dense dense", "forward"), np.array([1.0, subject]), np.ones(2), np.full(2, allowed))
    return replace(made, mode="eager", **more)


RIGHT = row(subject=1.0 + 3e-7)
WRONG = row("dense/kernel.gradient", subject=-1.0)
CAUSE = Cause("factor-minus-one", "change the sign", "dW", "-1 * dW", 1.0)
POWERLESS = "every gradient is exactly zero"
HOSTILE = (
    "a\x00\x1b\n\r\t\ud800\ufffe\u202e]]><script>alert(1)</script> ``` `x` |b| \\| **bold** _it_ __u__ ~~s~~ $m$ "
    "[link](https://example.org) ![image](x) www.example.org @somebody #12 GH-12 <!-- &lt; &#60; ::error::x %0A"
)


def check(*rows, network="tanh-16", **more):
    return Check(network, "mse", "float32", ("eager", "function"), rows, **{"skipped": {}, **more})


def report(*checks, command="parity check tanh-16", **environment):
    return Report(checks, "digits", 4, 7, command, {"keras": "3.15", **environment})


FAILED = check(RIGHT, WRONG, findings=(Finding("dW (dense/kernel.gradient)", "Dense", 2e6, CAUSE, ""),))
NAMED = row(HOSTILE, subject=2.0, computed_by=HOSTILE, note="")
EVIL = report(
    check(
        NAMED,
        network=HOSTILE,
        subject=HOSTILE,
        findings=(Finding(HOSTILE, HOSTILE, 2.0, Cause(*[HOSTILE] * 4, 1.0), ""),),
    ),
    command=HOSTILE,
    **{HOSTILE: HOSTILE},
)
MANY = report(check(*(row(f"layer_{i:02}/output", subject=1.0 + i * 1e-6) for i in range(40))))


# --- JUnit XML -------------------------------------------------------------------------------------------------------

# What the schema of Jenkins's xUnit plugin allows, and pytest writes: element -> attributes (! if required), children.
JUNIT = {
    "testsuites": ({"name", "time", "tests", "failures", "errors", "disabled"}, {"testsuite"}),
    "testsuite": (
        {"name!", "tests!", "failures", "errors", "skipped", "time", "timestamp", "hostname", "id", "package"},
        {"properties", "testcase", "system-out", "system-err"},
    ),
    "properties": (set(), {"property"}),
    "property": ({"name!", "value!"}, set()),
    "testcase": (
        {"name!", "classname!", "time", "assertions", "status"},
        {"properties", "skipped", "error", "failure", "system-out", "system-err"},
    ),
    "failure": ({"message", "type"}, set()),
    "error": ({"message", "type"}, set()),
}


def junit(made):
    """The document, parsed and found to be JUnit XML; test cases by their outcome."""
    root = ElementTree.fromstring(made.to_junit().encode())
    assert root.tag == "testsuites"
    for element in root.iter():
        attributes, children = JUNIT[element.tag]
        assert set(element.attrib) <= {name.rstrip("!") for name in attributes}
        assert {name[:-1] for name in attributes if name.endswith("!")} <= set(element.attrib)
        assert {child.tag for child in element} <= children
    (suite,) = root
    outcomes = [
        next((c.tag for c in case if c.tag in ("failure", "error")), "passed") for case in suite.iter("testcase")
    ]
    counted = {name: int(suite.get(name)) for name in ("tests", "failures", "errors", "skipped")}
    assert counted == {"tests": len(outcomes), "failures": outcomes.count("failure"),
                       "errors": outcomes.count("error"), "skipped": 0}  # fmt: skip
    return suite, outcomes


def properties(element):
    return {each.get("name"): each.get("value") for each in element.find("properties")}


def test_a_test_case_for_each_check_with_its_outcome():
    suite, outcomes = junit(report(check(RIGHT), FAILED, check(RIGHT, powerless=POWERLESS), check()))
    assert outcomes == ["passed", "failure", "error", "error"]
    cases = list(suite.iter("testcase"))
    assert (cases[0].get("classname"), cases[0].get("name")) == ("tanh-16", "mse, float32")
    assert cases[1].find("failure").get("message") == (
        "dense/kernel.gradient, computed by Dense dense: 2e+06 times the allowed difference"
    )
    text = cases[1].find("failure").text
    assert "✗  dense/kernel.gradient" in text
    assert "cause: dW (dense/kernel.gradient): factor-minus-one: change the sign" in text
    assert [cases[i].find("error").get("message") for i in (2, 3)] == [POWERLESS, "nothing was compared"]


def test_what_is_wrong_and_without_power_is_wrong():
    assert junit(report(check(WRONG, powerless=POWERLESS)))[1] == ["failure"]


def test_nothing_at_all_is_no_success():
    suite, outcomes = junit(report())
    assert outcomes == ["error"]
    assert suite.find("testcase/error").get("message") == "nothing was compared"


def test_the_properties_reproduce_the_run():
    suite, _ = junit(report(FAILED, python="3.11"))
    assert properties(suite).items() >= {"keras": "3.15", "python": "3.11", "command": "parity check tanh-16",
                                         "batch": "4", "seed": "7", "verdict": "fail"}.items()  # fmt: skip
    assert properties(suite.find("testcase")) == {
        "subject": "scratchnet", "modes": "eager, function", "tensors": "2", "tensors within budget": "1",
        "worst tensor": "dense/kernel.gradient", "budgets": str(WRONG.budgets),
    }  # fmt: skip


def test_names_that_xml_cannot_hold_are_escaped():
    suite, _ = junit(EVIL)
    case = suite.find("testcase")
    shown = case.get("classname")
    assert shown.startswith(r"a\x00\x1b\n\r\t\ud800\ufffe\u202e]]><script>alert(1)</script>")
    assert all(character.isprintable() or character == "\n" for text in suite.itertext() for character in text)
    assert shown in case.find("failure").text


# --- Markdown --------------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """What a browser makes of HTML: the tags, and the text of each cell, paragraph and item."""

    def __init__(self):
        super().__init__()
        self.tags, self.links, self.texts = set(), [], [""]

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.links += [value for name, value in attributes if name in ("href", "src")]
        if tag in ("td", "p", "li", "pre", "h2", "summary"):
            self.texts.append("")

    def handle_data(self, data):
        self.texts[-1] += data


def page(made):
    rendered = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(made.to_markdown())
    found = Page()
    found.feed(rendered)
    found.close()
    found.texts = [text.strip("\n") for text in found.texts]
    return found


OURS = {
    "h2",
    "p",
    "ul",
    "li",
    "strong",
    "code",
    "table",
    "thead",
    "tbody",
    "tr",
    "th",
    "td",
    "pre",
    "details",
    "summary",
}


def printed(text):
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def test_the_page_says_what_is_wrong_where_and_why():
    made = report(FAILED)
    found = page(made)
    assert "parity: ✗ fail" in found.texts
    assert made.sentence in found.texts
    assert any(
        text.startswith("First wrong: dense/kernel.gradient, computed by Dense dense: 1 of 2") for text in found.texts
    )
    assert {"Cause: factor-minus-one: change the sign", "Right: dW", "Yours: -1 * dW"} <= set(found.texts)
    assert {"parity check tanh-16", "keras", "3.15"} <= set(found.texts)
    assert found.tags == OURS


@pytest.mark.parametrize(
    ("made", "title"),
    [
        (report(check(RIGHT)), "✓ pass"),
        (report(check(RIGHT, powerless=POWERLESS)), "? no power"),
        (report(), "? no power"),
    ],
)
def test_the_page_of_what_did_not_fail(made, title):
    found = page(made)
    assert f"parity: {title}" in found.texts
    assert made.sentence in found.texts
    assert not any(text.startswith("First wrong") for text in found.texts)


def test_only_the_ten_worst_are_shown():
    shown = re.findall(r"layer_\d\d/output", MANY.to_markdown().partition("The worst of 40 tensors")[2])
    assert shown == [f"layer_{i}/output" for i in range(39, 29, -1)]


def test_the_cause_is_that_of_the_first_wrong_tensor():
    """Not that of a tensor whose name ends or begins like it."""
    other = replace(CAUSE, code="another")
    mine = check(WRONG, findings=(Finding("my_dense/kernel.gradient", "", 2.0, other, ""), *FAILED.findings))
    assert "factor-minus-one" in report(mine).sentence
    assert "another" not in report(mine).to_markdown()


def test_names_from_files_stay_text():
    found = page(EVIL)
    assert found.tags == OURS
    assert found.links == []
    assert "".join(found.texts).count(printed(HOSTILE)) >= 10
    assert [text for text in found.texts if text == printed(HOSTILE)]


def test_names_from_files_call_nobody_and_link_nowhere():
    """GitHub looks for these in the text of the page, wherever no code block is."""
    fence = "`" * 4
    prose = "".join(re.split(rf"(?s)\n{fence}\n.*?\n{fence}\n", EVIL.to_markdown()))
    outside = html.unescape(prose.replace("<!-- -->", "\0"))
    assert "@\0somebody" in outside
    assert not re.search(r"@\w|#\d|GH-\d|://|www\.", outside)


@pytest.mark.parametrize("text", ["dense/kernel.gradient", "dz = y - t", "(32, 3)", "W @ x", "my_layer_2/output"])
def test_what_needs_no_escape_gets_none(text):
    assert markdown.plain(text) == text


# --- GitHub ----------------------------------------------------------------------------------------------------------


def test_an_annotation_is_one_line_with_githubs_escapes():
    assert github.annotation("error", "50%, a: b\r\nc") == "::error::50%25, a: b%0D%0Ac"
    assert github.annotation("warning", "m", title="a,b:c%\n", file="tests/test_a.py", line=7) == (
        "::warning title=a%2Cb%3Ac%25%0A,file=tests/test_a.py,line=7::m"
    )


def test_the_wrong_tensors_are_annotated_the_first_one_first():
    (line,) = github.annotations_of(report(FAILED))
    assert line == (
        "::error title=parity%3A dense/kernel.gradient%3A 2e+06 times the allowed difference::"
        "tanh-16, mse, float32: computed by Dense dense: 1 of 2 elements are out of budget; worst at (1,) (eager): "
        "scratchnet -1, Keras 1, 1e-06 allowed; largest relative error 2, 9e+15 units in the last place"
        "%0Afactor-minus-one: change the sign%0Aright: dW%0Ayours: -1 * dW"
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_has_no_relative_error(value):
    (line,) = github.annotations_of(report(check(row(subject=value))))
    assert line.endswith(f"scratchnet {value}, Keras 1, 1e-06 allowed")


def test_ten_annotations_at_most():
    shown = [re.search(r"layer_\d\d", line)[0] for line in github.annotations_of(MANY)]
    assert shown == ["layer_02", *(f"layer_{i}" for i in range(39, 30, -1))]


def test_what_is_not_wrong_is_not_annotated():
    assert github.annotations_of(report(check(RIGHT))) == ()
    (line,) = github.annotations_of(report(check(RIGHT, powerless=POWERLESS)))
    assert line == f"::error title=parity%3A no power::Nothing can be concluded: tanh-16: {POWERLESS}."


def test_a_name_cannot_make_a_command():
    for line in github.annotations_of(EVIL):
        assert line.isprintable()
        assert line.count("\n") == 0
        given = re.fullmatch(r"::error title=([^:,]*)::.*", line)
        assert given
        assert "%250A" in given[1]


def test_the_summary_is_added_to_what_is_there(tmp_path, monkeypatch):
    path = tmp_path / "summary.md"
    path.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(path))
    github.append_summary("✓ one")
    github.append_summary("two\n")
    assert path.read_bytes().decode() == "before\n✓ one\ntwo\n\n"


def test_a_summary_without_github_is_wrong_usage(tmp_path, monkeypatch):
    for value in (None, ""):
        monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
        if value is not None:
            monkeypatch.setenv("GITHUB_STEP_SUMMARY", value)
        with pytest.raises(UsageError, match="GITHUB_STEP_SUMMARY"):
            github.append_summary("x")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path))
    with pytest.raises(FileError, match="the step summary cannot be written"):
        github.append_summary("x")


# --- The options -----------------------------------------------------------------------------------------------------


@pytest.fixture
def parity(capsys, monkeypatch, tmp_path):
    """Run the command line in a folder of its own -> (status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)

    def run(*arguments):
        with pytest.raises(SystemExit) as exited:
            main(arguments)
        return exited.value.code, *capsys.readouterr()

    return run


@pytest.fixture
def saved(tmp_path):
    """A report that failed, in run.json."""
    made = report(FAILED)
    (tmp_path / "run.json").write_text(made.to_json())
    return made


@pytest.mark.parametrize(("made", "status"), [(report(check(RIGHT)), 0), (report(FAILED), 1), (report(), 3)])
def test_a_saved_report_has_the_exit_status_of_its_check(parity, tmp_path, made, status):
    (tmp_path / "run.json").write_text(made.to_json())
    code, out, err = parity("report", "run.json")
    assert (code, err) == (status, "")
    assert out == made.to_text() + "\n"


def test_every_form_at_once(parity, saved, tmp_path, monkeypatch):
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "summary.md")
    (tmp_path / "a.xml").write_text("old")
    status, out, err = parity(
        "report", "run.json", "--json", "--junit-xml", "a.xml", "--markdown", "a.md", "--step-summary"
    )
    assert (status, out) == (1, saved.to_json() + "\n")
    assert (tmp_path / "a.xml").read_text("utf-8") == saved.to_junit()
    assert (tmp_path / "a.md").read_text("utf-8") == saved.to_markdown()
    assert (tmp_path / "summary.md").read_text("utf-8") == saved.to_markdown() + "\n"
    assert err.splitlines() == list(github.annotations_of(saved))
    assert sorted(os.listdir(tmp_path)) == ["a.md", "a.xml", "run.json", "summary.md"]


def test_a_form_on_standard_output_takes_the_place_of_the_text(parity, saved):
    assert parity("report", "run.json", "--markdown", "-")[1] == saved.to_markdown()
    assert parity("report", "run.json", "--junit-xml", "-")[1] == saved.to_junit()


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--json", "--markdown", "-"], 2, "--json and --markdown -: only one of them can have standard output"),
        (["--junit-xml", "-", "--markdown", "-"], 2, "only one of them can have standard output"),
        (["--junit-xml", "a", "--markdown", "./a"], 2, "expected two files, received the same"),
        (["--step-summary"], 2, "expected the variable GITHUB_STEP_SUMMARY"),
        (["--markdown", "."], 4, "expected a file to write to, received a directory"),
        (["--markdown", "absent/a.md"], 4, "absent/a.md: cannot be written: No such file or directory"),
        (["--junit-xml", "a.md/a.xml"], 4, "a.md/a.xml: cannot be written: Not a directory"),
    ],
)
def test_an_output_that_is_impossible_is_said_before_the_run(parity, tmp_path, arguments, status, message):
    """The network is no network, which would be said, with status 2, as soon as the run began."""
    (tmp_path / "a.md").write_text("old")
    code, out, err = parity("check", "no-such-network", *arguments)
    assert (code, out) == (status, "")
    assert message in err
    assert "no-such-network" not in err
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a.md": "old"}


def test_a_run_that_ends_without_a_report_leaves_the_files_alone(parity, tmp_path):
    (tmp_path / "a.md").write_text("old")
    status, *_ = parity("check", "no-such-network", "--markdown", "a.md", "--junit-xml", "a.xml")
    assert status == 2
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a.md": "old"}


@pytest.mark.tensorflow
def test_a_check_writes_what_a_saved_report_would(parity, tmp_path):
    status, out, err = parity(
        "check", "activation-tanh", "--batch", "3", "--dtype", "float64", "--json", "--markdown", "a.md",
        "--junit-xml", "a.xml",
    )  # fmt: skip
    assert (status, err, json.loads(out)["verdict"]) == (0, "", "pass")
    (tmp_path / "run.json").write_text(out)
    assert parity("report", "run.json", "--json") == (0, out, "")
    assert parity("report", "run.json", "--markdown", "-")[1] == (tmp_path / "a.md").read_text("utf-8")
    assert parity("report", "run.json", "--junit-xml", "-")[1] == (tmp_path / "a.xml").read_text("utf-8")


def test_a_number_beyond_float32_is_no_reason_to_warn():
    made = report(check(row(subject=1.0 + 3e-7, reference=1e300)))
    assert made.sentence.startswith("Yes: ")
