"""The JSON of a report: what its schema says, and a saved report that is read back and judged again."""

import copy
import json
import math
import os
import re
from dataclasses import replace

import numpy as np
import pytest
from jsonschema import Draft202012Validator

import parity
from parity.cli import main
from parity.compare import incomparable, judge
from parity.diagnose import Cause, Finding
from parity.errors import FileError
from parity.report import Check, Report, training
from parity.report import json as as_json
from parity.report.loaded import LONGEST, load
from parity.report.schema import ANNOTATIONS, KEYWORDS, problem
from parity.trace import Place

SCHEMAS = [as_json.schema(), training.schema()]

CAUSE = Cause("dense-bias-gradient-averaged", "sum it", "db = sum of dz", "db = mean of dz", 0.9999999999999998, ("d",))
FINDING = Finding("db1 (dense/bias.gradient)", "Dense dense backward", 3.7e8, CAUSE, "")
UNEXPLAINED = Finding("dense/kernel.gradient", "Dense dense backward", math.inf, None, "rank one")


def row(tensor="dense/output", subject=1.0, reference=1.0, allowed=1e-6, shape=(2, 3)):
    """A row as compare makes it."""
    r = np.full(shape, reference)
    s = np.array(r)
    s[(-1,) * len(shape)] = subject
    return replace(judge(Place(tensor, "Dense dense", "forward"), s, r, np.full(shape, allowed)), mode="eager")


RIGHT = row(subject=1.0 + 3e-7)
WRONG = row("dense/bias.gradient", subject=0.1 + 0.2, shape=(3,))
ODD = [
    row("loss", subject=math.nan, reference=-math.inf, allowed=math.inf, shape=()),
    row("loss", subject=2.0, reference=1e300, allowed=math.inf),
    row("loss", reference=math.nan, allowed=math.nan),
    incomparable(Place("dense/kernel.gradient", "Dense dense", "backward"), (3, 4), "the subject has no such tensor"),
]


def check(*rows, **more):
    return Check("tanh-16", "mse", "float32", ("eager", "function"), rows, **{"skipped": {}, **more})


def report(*checks, **environment):
    return Report(checks, "digits", 4, 7, "parity check tanh-16", {"python": "3.11", "onednn": True, **environment})


REPORTS = {
    "pass": report(check(RIGHT), gpus=0, share=0.5, nothing=None),
    "fail": report(check(RIGHT), check(RIGHT, WRONG, findings=(FINDING, UNEXPLAINED), vote="v", end_to_end="e")),
    "no power": report(check(RIGHT, powerless="every gradient is exactly zero", skipped={"a/output": "why"})),
    "no rows": report(check()),
    "no checks": report(),
    "odd numbers": report(check(*ODD)),
    "overflow": report(check(RIGHT, ODD[1])),
    "own": report(check(RIGHT, subject="my network", conventions=("a",), notes=("b",), blind=("c",), kinks=("d",))),
    "hostile names": report(check(row("a\x1b\n\x00</script>\ud800\u202e"), skipped={"": "\x7f"})),
}


@pytest.fixture
def saved(tmp_path):
    """Write a document, given as such or as data -> its path."""

    def write(document):
        path = tmp_path / "run.json"
        if isinstance(document, bytes):
            path.write_bytes(document)
        else:
            path.write_text(document if isinstance(document, str) else json.dumps(document), encoding="utf-8")
        return path

    return write


# --- The schema ------------------------------------------------------------------------------------------------------


def objects(schema):
    """Every subschema."""
    if isinstance(schema, dict):
        yield schema
    for child in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        yield from objects(child)


def closed(schema):
    """The same where no key may be added: what is written now has its description."""
    strict = copy.deepcopy(schema)
    for each in objects(strict):
        if isinstance(each.get("properties"), dict):
            each["additionalProperties"] = False
    return strict


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: schema["title"])
def test_the_schema_is_one_and_describes_every_key(schema):
    Draft202012Validator.check_schema(schema)
    for each in objects(schema):
        if isinstance(properties := each.get("properties"), dict):
            assert set(each["required"]) == set(properties)
            assert all(rule.get("description") for rule in properties.values())


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: schema["title"])
def test_the_reader_knows_every_keyword_of_the_schema(schema):
    """An unknown one is a KeyError in use; this finds it where no document reaches it."""
    named = {id(each[holder]) for each in objects(schema) for holder in ("properties", "$defs") if holder in each}
    used = {key for each in objects(schema) if id(each) not in named for key in each}
    assert used <= KEYWORDS.keys() | ANNOTATIONS


def assert_described(document, schema):
    errors = [
        f"{error.json_path}: {error.message}" for error in Draft202012Validator(closed(schema)).iter_errors(document)
    ]
    assert errors == []
    assert problem(document, schema) is None


@pytest.mark.parametrize("name", REPORTS)
def test_every_kind_of_report_is_as_described(name):
    assert_described(json.loads(REPORTS[name].to_json()), as_json.schema())


KNOWN = training.Cause("c", "t", "r", "w", 1.0)
TRAINED = training.TrainingReport(
    optimizer="Adam",
    steps=2,
    learning_rates=(0.1, math.inf),
    tensors=("w", "v"),
    form="a list",
    findings=(
        training.Finding("w", 1, (0, 1), math.nan, 0.5, math.inf, None, residual="a factor"),
        training.Finding("v", 2, (), 1.0, 0.5, 7.0, KNOWN, (replace(KNOWN, convention="PyTorch"),)),
    ),
    when="From step 1 on",
    worst=math.inf,
    first_t=1,
    seed=0,
    notes=("n",),
    blind=("b",),
    powerless="",
    environment={"keras": "3.15"},
)


@pytest.mark.parametrize("made", [TRAINED, replace(TRAINED, findings=()), replace(TRAINED, findings=(), powerless="p")])
def test_a_report_of_training_has_its_own_schema(made):
    document = json.loads(made.to_json())
    assert_described(document, training.schema())
    assert (document["verdict"], document["passed"]) == (made.verdict, made.passed)
    assert problem(document, as_json.schema()) is not None


SMALL = json.loads(report(check(RIGHT, WRONG, findings=(FINDING,), skipped={"a": "b"}, blind=("c",))).to_json())


def places(node, path=()):
    """The path of every value of a document."""
    yield path
    for key, child in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        yield from places(child, (*path, key))


def changed(document, path, change):
    """A copy in which `change` was called with what holds the last key of the path, and with that key."""
    document = copy.deepcopy(document)
    holder = document
    for key in path[:-1]:
        holder = holder[key]
    change(holder, path[-1])
    return document


PATHS = [path for path in places(SMALL) if path]
MAPS = {"environment", "skipped"}  # any key


def test_a_missing_key_is_refused(saved):
    missing = [path for path in PATHS if isinstance(path[-1], str) and not (len(path) > 1 and path[-2] in MAPS)]
    assert len(missing) > 60
    for path in missing:
        document = changed(SMALL, path, lambda holder, key: holder.pop(key))
        assert not Draft202012Validator(as_json.schema()).is_valid(document), path
        with pytest.raises(FileError) as error:
            load(saved(document))
        assert str(path[-1]) in str(error.value) or path == ("kind",)


OTHERS = [None, True, -1, 0, 1.0, 1.5, 1e999, "x", "nan", "inf", "-inf", [], [1], {}, {"x": 1}]


def test_a_wrong_type_is_refused_wherever_the_standard_says_so():
    """The reader and a full implementation of JSON Schema agree on every value in every place."""
    full, refused = Draft202012Validator(as_json.schema()), 0
    for path in PATHS:
        for other in OTHERS:
            document = changed(SMALL, path, lambda holder, key, other=other: holder.__setitem__(key, other))
            valid = full.is_valid(document)
            assert (problem(document, as_json.schema()) is None) is valid, (path, other)
            refused += not valid
    assert refused > 10 * len(PATHS)


FIRST = ("checks", 0)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("batch",), "4", "batch: expected a whole number, received '4'"),
        (("seed",), -1, "seed: expected at least 0, received -1"),
        (("verdict",), "maybe", 'verdict: expected "pass" or "fail" or "no power", received \'maybe\''),
        ((*FIRST, "rows", 1, "budgets"), "x", "checks[0].rows[1].budgets: expected a number or \"inf\", received 'x'"),
        ((*FIRST, "findings", 0, "cause"), 7, "checks[0].findings[0].cause: expected null or an object, received 7"),
        ((*FIRST, "findings", 0, "cause", "right"), 7, "[0].findings[0].cause.right: expected a string, received 7"),
        (("environment", "python"), [], "a number or true or false or null, received []"),
    ],
)
def test_the_message_says_where_and_what(saved, path, value, message):
    with pytest.raises(FileError) as error:
        load(saved(changed(SMALL, path, lambda holder, key: holder.__setitem__(key, value))))
    assert str(error.value).endswith(message)


# --- Round trip ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", REPORTS)
def test_a_saved_report_comes_back_to_the_byte(saved, name):
    made = REPORTS[name]
    again = load(saved(made.to_json()))
    assert again.to_json() == made.to_json()
    assert (again.verdict, again.sentence, again.to_text()) == (made.verdict, made.sentence, made.to_text())
    assert (again.to_junit(), again.to_markdown()) == (made.to_junit(), made.to_markdown())


def test_what_is_read_has_the_types_of_what_was_written(saved):
    made = REPORTS["fail"]
    again = load(saved(made.to_json()))
    assert again.findings == made.findings
    assert again.rows == made.rows  # the array of wrong elements is no part of it
    for one, other in zip(again.rows, made.rows, strict=True):
        kinds = [{name: type(value) for name, value in vars(each).items() if name != "wrong"} for each in (one, other)]
        assert kinds[0] == kinds[1]


def test_another_program_may_write_numbers_its_own_way(saved):
    """1 for 1.0 and 4.0 for 4, as JavaScript or jq do; other white space, other order, a key of its own."""
    made = REPORTS["fail"]
    document = changed(json.loads(made.to_json()), ("batch",), lambda holder, key: holder.__setitem__(key, 4.0))
    for number in ("reference", "subject"):
        document["checks"][0]["rows"][0][number] = 1
    first = replace(made.rows[0], reference=1.0, subject=1.0)
    again = load(saved({"mine": 7, **dict(reversed(document.items()))}))
    assert again.rows[0] == first
    assert '"batch": 4,' in again.to_json()
    assert '"reference": 1.0,' in again.to_json()


def test_an_encoding_that_shells_write_is_read(saved):
    made = REPORTS["fail"].to_json()
    for encoding in ("utf-8-sig", "utf-16"):
        assert load(saved(made.encode(encoding))).to_json() == made


# --- Judged again ----------------------------------------------------------------------------------------------------

PASSED, FAILED = (json.loads(REPORTS[name].to_json()) for name in ("pass", "fail"))


@pytest.mark.parametrize(
    ("document", "path", "value", "message"),
    [
        (FAILED, ("verdict",), "pass", "verdict: the rows say 'fail', the document says 'pass'"),
        (FAILED, ("checks", 1, "rows", 1, "budgets"), 0.5, "verdict: the rows say 'pass', the document says 'fail'"),
        (PASSED, ("checks", 0, "rows", 0, "budgets"), 1.5, "verdict: the rows say 'fail', the document says 'pass'"),
        (PASSED, ("checks", 0, "rows"), [], "verdict: the rows say 'no power', the document says 'pass'"),
        (PASSED, ("checks",), [], "verdict: the rows say 'no power', the document says 'pass'"),
        (PASSED, ("checks", 0, "powerless"), "x", "verdict: the rows say 'no power', the document says 'pass'"),
        (FAILED, ("passed",), True, "passed: the rows say False, the document says True"),
        (FAILED, ("sentence",), "Yes: all is well.", "sentence: the rows say 'No', the document says 'Yes'"),
        (FAILED, ("checks", 1, "passed"), True, "checks[1].passed: the rows say False, the document says True"),
        (FAILED, ("findings",), [], "findings: the rows say ["),
    ],
)
def test_a_document_that_contradicts_its_rows_is_not_believed(saved, document, path, value, message):
    with pytest.raises(FileError, match=re.escape(f"run.json: {message}")) as error:
        load(saved(changed(document, path, lambda holder, key: holder.__setitem__(key, value))))
    assert "it was changed after it was written" in str(error.value)


@pytest.mark.parametrize("also", [{}, {"outside": 0}, {"difference": 0.0}])
def test_a_share_that_is_changed_wherever_it_is_said_still_contradicts_its_row(saved, also):
    document = copy.deepcopy(FAILED)
    document |= {"verdict": "pass", "passed": True, "sentence": "Yes: all is well.", "findings": []}
    document["checks"][1] |= {"passed": True, "findings": []}
    document["checks"][1]["rows"][1] |= {"budgets": 0.5, **also}
    with pytest.raises(FileError, match=re.escape("run.json: checks[1].rows[1].budgets: the rows say ")):
        load(saved(document))


def test_a_sentence_may_be_worded_otherwise(saved):
    document = {**FAILED, "sentence": "No: as an earlier release put it."}
    assert load(saved(document)).sentence == FAILED["sentence"]


# --- What is no report -----------------------------------------------------------------------------------------------

GOOD = REPORTS["fail"].to_json()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"\x89PNG\r\n\x1a\n\x00", "expected JSON"),
        (GOOD[: len(GOOD) // 2].encode(), "expected JSON, received line"),
        (GOOD.encode() + b"{}", "expected JSON, received line"),
        (b"[]", "as `parity check --json` writes it, received []"),
        (b"7", "as `parity check --json` writes it, received 7"),
        (b'{"name": "site"}', "as `parity check --json` writes it, received {'name': 'site'}"),
        (TRAINED.to_json().encode(), "received the kind 'training'"),
        (b'{"kind": "check"}', "the key 'schema_version' is missing"),
        (b'{"kind": "check", "schema_version": "1"}', "the key 'verdict' is missing"),
        (b'{"kind": "check", "schema_version": 2}', "schema_version: expected 1, received 2: it was written by a"),
        (GOOD.replace('"schema_version": 1', '"schema_version": 0').encode(), "schema_version: expected 1, received 0"),
        (GOOD.replace('"schema_version": 1', '"schema_version": true').encode(), "schema_version: expected 1"),
        (GOOD.replace('"batch": 4', '"batch": NaN').encode(), "received NaN, which is no JSON"),
        (GOOD.replace('"batch": 4', '"batch": -Infinity').encode(), "received -Infinity, which is no JSON"),
        (GOOD.replace('"batch": 4', f'"batch": {"4" * 5000}').encode(), "expected JSON, received"),
        (GOOD.replace('"subject": 1.0', f'"subject": {"4" * 400}').encode(), "expected numbers within float64"),
        (b"[" * 100_000, "expected JSON, received"),
        (b'{"kind":' * 100_000, "expected JSON, received"),
        (b"[" * 200_000, "at most 131072 lists and objects, received 200000"),
        (b'{"kind": "check", "schema_version": 1, "deep": ' + b"[" * 900 + b"]" * 900 + b"}", "the key 'verdict'"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_report_gets_one_message(saved, capsys, content, message):
    path = saved(content)
    with pytest.raises(SystemExit) as exited:
        main(["report", str(path)])
    out, err = capsys.readouterr()
    assert (exited.value.code, out) == (4, "")
    assert err.startswith(f"parity: {path}: ")
    assert message in err
    assert err.count("\n") == 1
    assert len(err) < 1000


def test_what_is_no_file_gets_one_message(tmp_path):
    with pytest.raises(FileError, match="there is no such file"):
        load(tmp_path / "absent.json")
    with pytest.raises(FileError, match="received a directory"):
        load(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileError, match="received a pipe or a device"):
        load(tmp_path / "pipe")


def test_a_file_of_a_gigabyte_is_not_read(tmp_path):
    path = tmp_path / "huge.json"
    with open(path, "wb") as file:
        file.truncate(2**30)  # a hole: it takes no room on the disk
    with pytest.raises(FileError, match=f"expected a report of at most {LONGEST} bytes, received {2**30}"):
        load(path)


# --- Reports of real runs --------------------------------------------------------------------------------------------


def assert_saved_and_described(made, saved):
    document = made.to_json()
    assert_described(json.loads(document), as_json.schema())
    again = load(saved(document))
    assert again.to_json() == document
    assert again.to_text() == made.to_text()


@pytest.mark.tensorflow
def test_a_right_and_a_wrong_network(keras, saved, monkeypatch):
    from scratchnet.activations import Tanh

    assert_saved_and_described(parity.check("activation-tanh", batch=3), saved)
    right = Tanh.backward
    monkeypatch.setattr(Tanh, "backward", lambda self, x, y, dy: -right(self, x, y, dy))
    wrong = parity.check("activation-tanh", batch=3)
    assert wrong.findings
    assert_saved_and_described(wrong, saved)


def stack(keras, *layers):
    model = keras.Sequential([keras.Input((4,)), *layers], name="stack")
    model.compile(optimizer="sgd", loss="mse")
    return model


@pytest.mark.tensorflow
def test_a_network_without_power(keras, saved):
    model = stack(keras, keras.layers.Dense(3, "relu", name="a"), keras.layers.Dense(2, name="b"))
    model.set_weights([np.zeros_like(weight) for weight in model.get_weights()])
    made = parity.check(model, x=np.ones((32, 4)), y=np.zeros((32, 2)))
    assert made.verdict == "no power"
    assert_saved_and_described(made, saved)


@pytest.mark.tensorflow
def test_a_network_of_ones_own(keras, saved):
    model = stack(keras, keras.layers.Dense(2, "tanh", name="a"))
    params = {"W": np.zeros((4, 2)), "b": np.zeros(2)}

    def forward(X, W, b):
        return np.tanh(X @ W + b)

    def backward(X, Y, outputs):
        dZ = 2 * (outputs - Y) / Y.size * (1 - outputs**2)
        return {"dW": X.T @ dZ, "db": -dZ.sum(axis=0)}

    made = parity.check(model, parity.subject(forward, backward, params), batch=5)
    assert (made.verdict, made.findings[0].tensor) == ("fail", "db (a/bias.gradient)")
    assert_saved_and_described(made, saved)
    assert "factor-minus-one" in made.to_markdown()


@pytest.mark.tensorflow
def test_training(keras):
    for update, verdict in ((lambda w, g: w - 0.01 * g, "pass"), (lambda w, g: w + 0.01 * g, "fail")):
        made = parity.check_training("SGD(learning_rate=0.01)", update, steps=3)
        assert made.verdict == verdict
        assert_described(json.loads(made.to_json()), training.schema())
