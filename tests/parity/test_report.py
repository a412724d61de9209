"""The report: its verdict, its sentence, its text and its JSON. Rows are written by hand; no framework is needed."""

import json
import math

import numpy as np
import pytest

from parity.compare import Row, judge
from parity.report import Check, Report, share, text
from parity.trace import Place


def row(tensor="dense/output", subject=1.0, reference=1.0, allowed=1e-6, shape=(2, 3), **more):
    """A row as compare makes it, with the difference at the last element."""
    r = np.full(shape, reference)
    s = np.array(r)
    s[(-1,) * len(shape)] = subject
    made = judge(Place(tensor, "Dense dense forward", "forward"), s, r, np.full(shape, allowed))
    return Row(**{**vars(made), "mode": "eager", **more})


RIGHT = row(subject=1.0 + 3e-7)
WRONG = row("dense/kernel.gradient", subject=-1.0, computed_by="Dense dense backward")
POWERLESS = "every gradient is exactly zero"


def check(*rows, powerless="", skipped=None, network="tanh-16", dtype="float32"):
    return Check(network, "mse", dtype, ("eager", "function"), rows, skipped or {}, powerless)


def report(*checks, data="digits", **environment):
    command = "parity check tanh-16 --batch 4 --dtype both --seed 7"
    return Report(checks, data, 4, 7, command, {"python": "3.11", "keras": "3.15", **environment})


# --- Verdict and sentence --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("checks", "verdict", "status"),
    [
        ([check(RIGHT)], "pass", 0),
        ([check(RIGHT), check(RIGHT, WRONG)], "fail", 1),
        ([check(WRONG, powerless=POWERLESS)], "fail", 1),
        ([check(RIGHT), check(RIGHT, powerless=POWERLESS)], "no power", 3),
        ([], "no power", 3),
    ],
)
def test_the_verdict_and_its_exit_status(checks, verdict, status):
    made = report(*checks)
    assert (made.verdict, made.exit_status, made.passed) == (verdict, status, verdict == "pass")


def test_the_sentence_of_a_pass_says_what_and_how_near():
    sentence = report(check(RIGHT), check(RIGHT, dtype="float64")).sentence
    assert sentence.startswith("Yes: scratchnet and Keras compute the same tanh-16 in float32 and float64: 2 of 2 ")
    assert "the worst uses 0.3 of it (dense/output)" in sentence


def test_the_sentence_of_a_mismatch_names_the_first_tensor_and_counts_the_others():
    assert report(check(RIGHT, WRONG)).sentence == (
        "No: dense/kernel.gradient is the first tensor that differs, computed by Dense dense backward "
        "(tanh-16, mse, float32): 2e+06 times the allowed difference."
    )
    assert "; 1 more tensor is out of budget." in report(check(WRONG, WRONG)).sentence
    assert "; 2 more tensors are out of budget." in report(check(WRONG), check(WRONG, WRONG)).sentence


def test_the_sentence_without_power_gives_each_reason_once():
    twice = report(check(RIGHT, powerless=POWERLESS), check(RIGHT, powerless=POWERLESS))
    assert twice.sentence == f"Nothing can be concluded: tanh-16: {POWERLESS}."
    assert report().sentence == "Nothing can be concluded: nothing was compared."


@pytest.mark.parametrize(
    ("budgets", "shown"),
    [(0.0, "0"), (0.314, "0.31"), (0.999, "1"), (1.0, "1"), (1.0004, ">1"), (1.06, "1.1"), (3.14e5, "3.1e+05"),
     (math.inf, "inf")],
)  # fmt: skip
def test_a_share_just_above_one_does_not_look_right(budgets, shown):
    assert share(budgets) == shown


# --- Text ------------------------------------------------------------------------------------------------------------


def table_rows(rendered):
    return [line for line in rendered.splitlines() if line[:1] in ("✓", "✗")]


def test_one_row_a_tensor_in_order_with_every_column():
    right, wrong = table_rows(report(check(RIGHT, WRONG)).to_text())
    assert right.split() == ["✓", "dense/output", "(2,", "3)", "(1,", "2)", "1", "1", "3e-07", "1e-06", "0.3"]
    assert wrong.split() == ["✗", "dense/kernel.gradient", "(2,", "3)", "(1,", "2)", "-1", "1", "2", "1e-06", "2e+06"]


def test_a_tensor_that_was_not_judged_is_neither_right_nor_wrong():
    overflown = row("loss", subject=2.0, allowed=math.inf)
    made = report(check(RIGHT, overflown, skipped={"loss": "it overflows"}))
    assert (made.verdict, made.rows[1].unjudged) == ("pass", 6)
    assert "1 of 2 tensors are within budget (1 could not be compared), the worst uses 0.3" in made.sentence
    (line,) = [line for line in made.to_text().splitlines() if line.startswith("- ")]
    assert line.split() == ["-", "loss", "(2,", "3)", "(0,", "0)", "1", "1", "0", "inf", "-"]
    assert "not compared: loss: it overflows" in made.to_text()
    assert [line.text for line in text.lines(made, None, text.ASCII_MARKS) if line.text.startswith("--  loss")]


def test_the_columns_stand_below_their_titles():
    lines = report(check(RIGHT, WRONG)).to_text().splitlines()
    title = next(line for line in lines if "worst at" in line)
    for line in table_rows("\n".join(lines)):
        assert len(line) == len(title)
        assert line[title.index("worst at") :].startswith("(1, 2)")


@pytest.mark.parametrize(("dtype", "compared"), [("float32", "rounding bound"), ("float64", "1e-11")])
def test_the_header_says_what_was_compared(dtype, compared):
    first, second = report(check(RIGHT, dtype=dtype)).to_text().splitlines()[:2]
    assert first == f"tanh-16, mse, {dtype}, eager and function"
    assert compared in second


def test_below_the_table_stand_first_wrong_notes_skipped_and_power():
    noted = row("loss", note="NaN on both sides")
    made = check(WRONG, WRONG, noted, powerless=POWERLESS, skipped={"dense/output.gradient": "cached logits"})
    rendered = report(made).to_text()
    assert rendered.count("first wrong: ") == 1
    assert "first wrong: dense/kernel.gradient, computed by Dense dense backward: 1 of 6 elements are out" in rendered
    assert "\nnote: loss: NaN on both sides\n" in rendered
    assert "\nnot compared: dense/output.gradient: cached logits\n" in rendered
    assert f"\nno power: {POWERLESS}\n" in rendered


def test_the_footer_reproduces_the_run_and_the_last_line_answers():
    made = report(check(RIGHT))
    *_, data, versions, command, empty, sentence = made.to_text().splitlines()
    assert data == "data: digits; batch 4; seed 7"
    assert versions == "versions: python 3.11, keras 3.15"
    assert command == f"reproduce: {made.command}"
    assert (empty, sentence) == ("", made.sentence)


LONG = row("dense_2/pre_activation.gradient", subject=-5.24284e-05, shape=(32, 28, 28))


@pytest.mark.parametrize("width", [80, 100, 120])
def test_a_width_is_kept(width):
    made = report(
        check(LONG, RIGHT), platform="Linux-6.1-x86_64-with-glibc2.36", data="digits from " + "a folder " * 20
    )
    lines = [line.text for line in text.lines(made, width)]
    assert max(len(line) for line in lines if not line.startswith("reproduce: ")) <= width
    assert f"reproduce: {made.command}" in lines


def test_what_a_narrow_table_leaves_out_is_said():
    narrow = "\n".join(line.text for line in text.lines(report(check(LONG)), 80))
    assert "left out to fit 80 columns: shape, scratchnet, Keras" in narrow
    assert "(32, 28, 28)" not in narrow
    assert "left out" not in report(check(LONG)).to_text()


def test_a_layer_name_longer_than_the_terminal_is_not_cut():
    name = "a" * 200
    assert name in "\n".join(line.text for line in text.lines(report(check(row(name))), 80))


def test_names_from_a_file_cannot_move_the_cursor_or_forge_a_line():
    evil = check(row("a\x1b[2J\nYes: all is well"), skipped={"b\r": "c\x07"}, network="n\x9b31m")
    rendered = report(evil, data="d\x1b[0m").to_text()
    assert all(character.isprintable() or character == "\n" for character in rendered)
    assert "\nYes: all" not in rendered
    assert r"a\x1b[2J\nYes" in rendered


def test_the_marks_have_an_ascii_form():
    lines = [line.text for line in text.lines(report(check(RIGHT, WRONG)), None, text.ASCII_MARKS)]
    assert "\n".join(lines).isascii()
    assert [line.split()[0] for line in lines if "(2, 3)" in line] == ["ok", "NO"]


# --- JSON ------------------------------------------------------------------------------------------------------------


def strictly(document):
    """Parse as RFC 8259 has it: NaN and Infinity are no numbers."""

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(document, parse_constant=refuse)


def test_the_document_has_the_documented_keys():
    document = strictly(report(check(RIGHT, WRONG, skipped={"a": "b"})).to_json())
    assert list(document) == ["kind", "schema_version", "verdict", "passed", "sentence", "command", "data", "batch",
                              "seed", "environment", "findings", "checks"]  # fmt: skip
    (one,) = document["checks"]
    assert list(one) == ["network", "loss", "dtype", "modes", "passed", "powerless", "blind", "kinks", "findings",
                         "vote", "end_to_end", "conventions", "notes", "subject", "skipped", "rows"]  # fmt: skip
    assert document["schema_version"] == 1
    assert (one["modes"], one["skipped"]) == (["eager", "function"], {"a": "b"})


def test_numbers_survive_with_every_digit():
    value = 0.1 + 0.2
    (one,) = strictly(report(check(row(subject=value))).to_json())["checks"]
    assert one["rows"][0]["subject"] == value
    assert one["rows"][0]["shape"] == [2, 3]


def test_what_is_no_number_in_json_is_a_string():
    bad = row(subject=math.nan, reference=-math.inf, allowed=math.inf)
    document = strictly(report(check(bad)).to_json())
    (read,) = document["checks"][0]["rows"]
    assert (read["subject"], read["reference"], read["difference"], read["allowed"]) == ("nan", "-inf", "inf", "inf")
    assert document["verdict"] == "fail"
