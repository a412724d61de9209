"""Training code: right in every form that people write, and every known mistake named where it is planted.

The code under test is plain source text: a rule of four lines, put into one of the forms, with one line of it wrong.
Nothing of it comes from the rules that the diagnosis runs.
"""

import functools
import itertools
import json
import re

import numpy as np
import pytest

import parity
from parity.errors import SubjectError, UsageError
from parity.mistakes.training import wrong_rules
from parity.mistakes.update_rules import rule_for, run
from parity.training import check, comparison, design
from parity.training import keras as reference_side


@pytest.fixture(scope="module", autouse=True)
def keras_runs_once():
    """Keras's optimizer runs once with the same config, weights, gradients and learning rates: most of the tests here
    differ in the code under test only, and Keras takes longer than all the rest."""
    original, paths = reference_side.Reference.run, {}

    def run_once(self, names, weights, gradients, rates):
        excluded = getattr(self.live, "_exclude_from_weight_decay_pattern", None)
        config = sorted(unnamed(self.config).items())
        given = [[array.tolist() for array in arrays] for arrays in (weights, *gradients)]
        key = repr((self.name, config, excluded, names, given, rates))
        if key not in paths:
            paths[key] = original(self, names, weights, gradients, rates)
        return paths[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference_side.Reference, "run", run_once)
        yield


@pytest.fixture(autouse=True)
def keras_optimizers(request, answers, monkeypatch, keras_runs_once):
    """Both questions to Keras, what an optimizer is and which steps it makes, go through `answers`; but not in the
    tests that are marked `tensorflow`, which make an optimizer of their own or are refused one."""
    if request.node.get_closest_marker("tensorflow"):
        return
    live_reference_for, live_run = reference_side.reference_for, reference_side.Reference.run

    def reference_for(optimizer):
        live = functools.cache(lambda: live_reference_for(optimizer))
        names = answers(lambda: {"name": live().name, "config": unnamed(live().config), "rounded": live().rounded})
        return reference_side.Reference(**names, live=live, schedule=None)

    def run_of_keras(self, *given):
        def ask():
            path, decays = live_run(self.live(), *given)
            return {"steps": [np.stack(tensor) for tensor in zip(*path, strict=True)], "decays": decays}

        said = answers(ask)
        return [[np.array(w) for w in step] for step in zip(*said["steps"], strict=True)], said["decays"]

    for module in (check, reference_side):
        monkeypatch.setattr(module, "reference_for", reference_for)
    monkeypatch.setattr(reference_side.Reference, "run", run_of_keras)
    if not answers.book.installed:  # the report names the versions
        monkeypatch.setattr(comparison.tensorflow, "versions", lambda: {"tensorflow": "answers that were recorded"})


def unnamed(config):
    """Keras counts the names of optimizers over the whole process."""
    return {key: value for key, value in config.items() if key != "name"}


# -- plain code --------------------------------------------------------------------------------------------------------

FORMS = {
    "dict in place": """
def update(params, grads, t, lr):
    every = list(params)
    for key in every:
        w, g, m, v, h = params[key], grads[key], STATE["m"][key], STATE["v"][key], STATE["h"][key]
        {core}
        params[key][...] = w
        STATE["m"][key], STATE["v"][key], STATE["h"][key] = m, v, h
STATE = {{name: {{key: 0.0 for key in ("W1", "b1", "W2", "b2")}} for name in "mvh"}}
""",
    "list returned": """
class Kept:
    pass
kept = Kept()
kept.m = kept.v = kept.h = None
def update(weights, gradients, step, learning_rate):
    lr, t = learning_rate, step
    every = range(len(weights))
    if kept.m is None:
        kept.m, kept.v, kept.h = ([np.zeros_like(w) for w in weights] for _ in range(3))
    new = list(weights)
    for key in every:
        w, g, m, v, h = weights[key], gradients[key], kept.m[key], kept.v[key], kept.h[key]
        {core}
        new[key] = w
        kept.m[key], kept.v[key], kept.h[key] = m, v, h
    return new
""",
    "object": """
class Optimizer:
    def __init__(self, lr):
        self.lr, self.t, self.state = lr, 0, {{}}
    def step(self, params, grads):
        self.t += 1
        t, lr = self.t, self.lr
        every = list(params)
        for key in every:
            w, g = params[key], grads[key]
            m, v, h = self.state.get(key, (0.0, 0.0, 0.0))
            {core}
            params[key] = w
            self.state[key] = m, v, h
update = Optimizer(LR)
""",
}

SGD = "w = w - lr * g"
MOMENTUM = "m = mu * m - lr * g\nw = w + m"
NESTEROV = "m = mu * m - lr * g\nw = w + mu * m - lr * g"
LONG_NESTEROV = "old = m\nm = mu * m - lr * g\nw = w - mu * old + (1 + mu) * m"
RMSPROP = "v = rho * v + (1 - rho) * g**2\nw = w - lr * g / np.sqrt(v + eps)"
CENTERED = (
    "v = rho * v + (1 - rho) * g**2\nh = rho * h + (1 - rho) * g\n"
    "m = mu * m + lr * g / np.sqrt(v - h**2 + eps)\nw = w - m"
)
ADAM = (
    "m = b1 * m + (1 - b1) * g\nv = b2 * v + (1 - b2) * g**2\n"
    "w = w - lr * np.sqrt(1 - b2**t) / (1 - b1**t) * m / (np.sqrt(v) + eps)"
)
PAPER = (
    "m = b1 * m + (1 - b1) * g\nv = b2 * v + (1 - b2) * g**2\nmh = m / (1 - b1**t)\nvh = v / (1 - b2**t)\n"
    "w = w - lr * mh / (np.sqrt(vh) + eps)"
)
AMSGRAD = ADAM.replace("w = w", "h = np.maximum(h, v)\nw = w").replace("np.sqrt(v)", "np.sqrt(h)")
DECAY = "w = w - lr * wd * w\n"
CLIPPED = "g = g * min(1, c / np.sqrt(np.sum(g**2)))\n"
GLOBAL = "g = g * min(1, c / np.sqrt(sum(np.sum(grads[k] ** 2) for k in every)))\n"
VALUE = "g = np.clip(g, -c, c)\n"

CONSTANTS = {"mu": 0.9, "rho": 0.9, "b1": 0.9, "b2": 0.999, "eps": 1e-7, "wd": 0.02, "c": 0.7, "LR": 0.01}

SMALL_BETAS = "adam, small betas"  # with which 1 - b t stays positive for some steps

KERAS = {
    "sgd": ("SGD(learning_rate=0.01)", SGD),
    "momentum": ("SGD(learning_rate=0.01, momentum=0.9)", MOMENTUM),
    "nesterov": ("SGD(learning_rate=0.01, momentum=0.9, nesterov=True)", NESTEROV),
    "long nesterov": ("SGD(learning_rate=0.01, momentum=0.9, nesterov=True)", LONG_NESTEROV),
    "rmsprop": ("RMSprop(learning_rate=0.01)", RMSPROP),
    "centered": ("RMSprop(learning_rate=0.01, momentum=0.9, centered=True)", CENTERED),
    "adam": ("Adam(learning_rate=0.01)", ADAM),
    SMALL_BETAS: ("Adam(learning_rate=0.01, beta_1=0.05, beta_2=0.09)", ADAM),
    "amsgrad": ("Adam(learning_rate=0.01, amsgrad=True)", AMSGRAD),
    "adamw": ("AdamW(learning_rate=0.01, weight_decay=0.02)", DECAY + ADAM),
    "decay": ("SGD(learning_rate=0.01, momentum=0.9, weight_decay=0.02)", DECAY + MOMENTUM),
    "clipnorm": ("SGD(learning_rate=0.01, momentum=0.9, clipnorm=0.7)", CLIPPED + MOMENTUM),
    "global_clipnorm": ("SGD(learning_rate=0.01, momentum=0.9, global_clipnorm=0.7)", GLOBAL + MOMENTUM),
    "clipvalue": ("SGD(learning_rate=0.01, momentum=0.9, clipvalue=0.7)", VALUE + MOMENTUM),
}


def written(core, form, edits=()):
    """The code under test: the source in this form with these edits, each of which must find its place."""
    source = FORMS[form]
    indent = re.search(r"( *)\{core\}", source)[1]
    if form == "list returned":
        core = core.replace("grads[", "gradients[")
    source = source.format(core=core.replace("\n", f"\n{indent}"))
    for old, new in edits:
        changed = source.replace(old, new)
        assert changed != source, f"{old!r} is not in the code:\n{source}"
        source = changed
    names = {"np": np, **CONSTANTS}
    exec(source, names)
    return names["update"]


# Each rule in one form, the forms in turn; the others are slow.
RIGHT = [
    pytest.param(name, form, marks=[] if index % len(FORMS) == place else [pytest.mark.slow])
    for index, name in enumerate(name for name in KERAS if name != SMALL_BETAS)
    for place, form in enumerate(FORMS)
]


@pytest.mark.parametrize(("name", "form"), RIGHT)
def test_right_code_passes(name, form):
    optimizer, core = KERAS[name]
    report = parity.check_training(optimizer, written(core, form), seed=3)
    assert report.verdict == "pass", report.to_text()
    assert report.findings == ()
    assert report.worst < 0.1
    assert len(set(report.learning_rates)) == 2
    assert report.sentence.startswith(f"Yes: your update is Keras's {optimizer.partition('(')[0]}(")


# -- planted mistakes --------------------------------------------------------------------------------------------------

# code of the mistake, the rule that it is planted in, [(right, wrong), ...]
PLANTED = [
    ("update-ascent", "sgd", [("w - lr * g", "w + lr * g")]),
    ("update-twice", "adam", [("w - lr", "w - 2 * lr")]),
    ("update-without-learning-rate", "sgd", [("lr * g", "g")]),
    ("update-learning-rate-twice", "momentum", [("w + m", "w + lr * m")]),
    ("update-sign-of-gradient", "sgd", [("lr * g", "lr * np.sign(g)")]),
    ("decay-missing", "adamw", [("w = w - lr * wd * w", "pass")]),
    ("decay-in-gradient", "adamw", [("w = w - lr * wd * w", "g = g + wd * w")]),
    ("decay-in-gradient-twice", "adamw", [("w = w - lr * wd * w", "g = g + 2 * wd * w")]),
    ("decay-without-learning-rate", "adamw", [("lr * wd * w", "wd * w")]),
    ("decay-sign", "adamw", [("w - lr * wd * w", "w + lr * wd * w")]),
    ("decay-doubled", "decay", [("lr * wd * w", "2 * lr * wd * w")]),
    ("decay-after-update", "decay", [("w = w - lr * wd * w", "pass"), ("w = w + m", "w = w + m; w -= lr * wd * w")]),
    ("decay-not-on-biases", "adamw", [("lr * wd * w", "(w.ndim > 1) * lr * wd * w")]),
    ("decay-unasked", "adam", [("m = b1", "w = w - lr * 0.01 * w; m = b1")]),
    ("penalty-unasked", "momentum", [("m = mu", "g = g + 3e-4 * w; m = mu")]),
    ("penalty-unasked", "adam", [("m = b1", "g = g + 1e-4 * w; m = b1")]),
    ("clip-missing", "clipnorm", [("min(1, c / np.sqrt(np.sum(g**2)))", "1")]),
    ("clip-global-for-each", "clipnorm", [("np.sum(g**2)", "sum(np.sum(GRADS[k] ** 2) for k in every)")]),
    ("clip-each-for-global", "global_clipnorm", [("sum(np.sum(GRADS[k] ** 2) for k in every)", "np.sum(g**2)")]),
    ("clip-value-for-norm", "clipnorm", [("g * min(1, c / np.sqrt(np.sum(g**2)))", "np.clip(g, -c, c)")]),
    ("clip-norm-for-value", "clipvalue", [("np.clip(g, -c, c)", "g * min(1, c / np.linalg.norm(g))")]),
    ("clip-above-only", "clipvalue", [("np.clip(g, -c, c)", "np.minimum(g, c)")]),
    ("clip-always", "clipnorm", [("min(1, c / np.sqrt(np.sum(g**2)))", "c / np.linalg.norm(g)")]),
    (
        "clip-to-one",
        "clipnorm",
        [("g * min(1, c / np.sqrt(np.sum(g**2)))", "g / n if (n := np.linalg.norm(g)) > c else g")],
    ),
    ("clip-by-square", "clipnorm", [("np.sqrt(np.sum(g**2))", "np.sum(g**2)")]),
    ("clip-with-epsilon", "clipnorm", [("np.sqrt(np.sum(g**2))", "(np.linalg.norm(g) + 1e-6)")]),
    ("clip-of-change", "clipvalue", [("g = np.clip(g, -c, c)", "pass"), ("w + m", "w + np.clip(m, -c, c)")]),
    (
        "clip-after-state",
        "clipvalue",
        [("g = np.clip(g, -c, c)", "pass"), ("w + m", "w + lr * np.clip(m / lr, -c, c)")],
    ),
    ("momentum-learning-rate-outside", "momentum", [("mu * m - lr * g", "mu * m + g"), ("w + m", "w - lr * m")]),
    (
        "momentum-learning-rate-outside",
        "nesterov",
        [("m = mu * m - lr * g", "m = mu * m + g"), ("w + mu * m - lr * g", "w - lr * (g + mu * m)")],
    ),
    ("momentum-dampened", "momentum", [("lr * g", "(1 - mu) * lr * g")]),
    (
        "momentum-dampened-learning-rate-outside",
        "momentum",
        [("mu * m - lr * g", "mu * m + (1 - mu) * g"), ("w + m", "w - lr * m")],
    ),
    ("momentum-missing", "momentum", [("mu * m - lr * g", "-lr * g")]),
    ("momentum-velocity-sign", "momentum", [("mu * m - lr * g", "-mu * m - lr * g")]),
    ("momentum-mixed-signs", "momentum", [("w + m", "w - m")]),
    ("momentum-not-multiplied", "momentum", [("mu * m - lr * g", "m - lr * g")]),
    ("momentum-complement", "momentum", [("mu * m - lr", "(1 - mu) * m - lr")]),
    ("momentum-factors-exchanged", "momentum", [("mu * m - lr * g", "(1 - mu) * m - mu * lr * g")]),
    ("momentum-on-everything", "momentum", [("mu * m - lr * g", "mu * (m - lr * g)")]),
    ("momentum-velocity-late", "momentum", [("m = mu", "late, m = m, mu"), ("w + m", "w + late")]),
    ("momentum-gradient-twice", "momentum", [("w + m", "w + m - lr * g")]),
    (
        "momentum-of-last-change-only",
        "momentum",
        [("m = mu * m - lr * g", "last, m = m, -lr * g"), ("w + m", "w + mu * last + m")],
    ),
    ("momentum-nesterov-unasked", "momentum", [("w + m", "w + mu * m - lr * g")]),
    ("nesterov-missing", "nesterov", [("w + mu * m - lr * g", "w + m")]),
    ("nesterov-without-gradient", "nesterov", [("w + mu * m - lr * g", "w + mu * m")]),
    ("nesterov-velocity-whole", "nesterov", [("w + mu * m - lr * g", "w + m - lr * g")]),
    ("nesterov-old-velocity-sign", "long nesterov", [("w - mu * old", "w + mu * old")]),
    ("nesterov-velocities-exchanged", "long nesterov", [("- mu * old + (1 + mu) * m", "- mu * m + (1 + mu) * old")]),
    ("nesterov-old-velocity-missing", "long nesterov", [("- mu * old ", "")]),
    ("nesterov-old-velocity-not-kept", "long nesterov", [("- mu * old", "- mu * m")]),
    ("rmsprop-epsilon-outside", "rmsprop", [("np.sqrt(v + eps)", "(np.sqrt(v) + eps)")]),
    ("rmsprop-learning-rate-outside", "centered", [("+ lr * g", "+ g"), ("w = w - m", "w = w - lr * m")]),
    ("rmsprop-momentum-dampened", "centered", [("+ lr * g", "+ (1 - mu) * lr * g")]),
    ("rmsprop-momentum-missing", "centered", [("mu * m + lr", "lr")]),
    ("rmsprop-epsilon-missing", "rmsprop", [("v + eps", "v")]),
    ("rmsprop-root-missing", "rmsprop", [("np.sqrt(v + eps)", "(v + eps)")]),
    ("rmsprop-multiplied", "rmsprop", [("/ np.sqrt", "* np.sqrt")]),
    ("rmsprop-bias-corrected", "rmsprop", [("v + eps", "v / (1 - rho**t) + eps")]),
    ("rmsprop-factors-exchanged", "rmsprop", [("rho * v + (1 - rho)", "(1 - rho) * v + rho")]),
    ("rmsprop-complement-missing", "rmsprop", [("(1 - rho) * ", "")]),
    ("rmsprop-adagrad", "rmsprop", [("rho * v + (1 - rho) * g**2", "v + g**2")]),
    ("rmsprop-decay-missing", "rmsprop", [("rho * v +", "v +")]),
    ("rmsprop-square-missing", "rmsprop", [("g**2", "g")]),
    ("rmsprop-squared-after", "rmsprop", [("(1 - rho) * g**2", "((1 - rho) * g)**2")]),
    ("rmsprop-mean-of-squares", "rmsprop", [("g**2", "np.mean(g**2)")]),
    ("rmsprop-average-late", "rmsprop", [("v = rho", "late, v = v, rho"), ("v + eps", "late + eps")]),
    ("rmsprop-centered-missing", "centered", [(" - h**2", "")]),
    (
        "rmsprop-centered-unasked",
        "rmsprop",
        [("w = w", "h = rho * h + (1 - rho) * g; w = w"), ("v + eps", "v - h**2 + eps")],
    ),
    ("rmsprop-mean-not-squared", "centered", [("h**2", "h")]),
    (
        "adam-epsilon-at-corrected",
        "adam",
        [(ADAM.splitlines()[2], "w = w - lr * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)")],
    ),
    ("adam-correction-without-power", "adam", [("**t", "")]),
    ("adam-correction-multiplied-by-t", SMALL_BETAS, [("**t", " * t"), ("b1", "0.05"), ("b2", "0.09")]),
    ("adam-correction-missing", "adam", [(" * np.sqrt(1 - b2**t) / (1 - b1**t)", "")]),
    ("adam-first-correction-missing", "adam", [(" / (1 - b1**t)", "")]),
    ("adam-second-correction-missing", "adam", [(" * np.sqrt(1 - b2**t)", "")]),
    ("adam-second-correction-not-rooted", "adam", [("np.sqrt(1 - b2**t)", "(1 - b2**t)")]),
    ("adam-correction-betas-exchanged", "adam", [("b1**t", "B"), ("b2**t", "b1**t"), ("B)", "b2**t)")]),
    ("adam-correction-of-beta-1-for-both", "adam", [("b2**t", "b1**t")]),
    ("adam-correction-of-beta-2-for-both", "adam", [("b1**t", "b2**t")]),
    ("adam-correction-inverted", "adam", [("* np.sqrt(1 - b2**t) / (1", "/ np.sqrt(1 - b2**t) * (1")]),
    ("adam-t-one-ahead", "adam", [("**t", "**(t + 1)")]),
    ("adam-t-stays-one", "adam", [("**t", "**1")]),
    (
        "adam-corrected-moments-kept",
        "adam",
        [(ADAM.splitlines()[2], f"{ADAM.splitlines()[2]}; m = m / (1 - b1**t); v = v / (1 - b2**t)")],
    ),
    ("adam-betas-exchanged", "adam", [("b1", "B"), ("b2", "b1"), ("B", "b2")]),
    (
        "adam-moment-betas-exchanged",
        "adam",
        [("b1 * m + (1 - b1)", "b2 * m + (1 - b2)"), ("b2 * v + (1 - b2)", "b1 * v + (1 - b1)")],
    ),
    ("adam-beta-1-for-both", "adam", [("b2 * v + (1 - b2)", "b1 * v + (1 - b1)")]),
    ("adam-complements-missing", "adam", [("(1 - b1) * g", "g"), ("(1 - b2) * g", "g")]),
    ("adam-first-complement-missing", "adam", [("(1 - b1) * g", "g")]),
    ("adam-second-complement-missing", "adam", [("(1 - b2) * g", "g")]),
    (
        "adam-factors-exchanged",
        "adam",
        [("b1 * m + (1 - b1)", "(1 - b1) * m + b1"), ("b2 * v + (1 - b2)", "(1 - b2) * v + b2")],
    ),
    ("adam-square-missing", "adam", [("g**2", "g")]),
    ("adam-squared-after", "adam", [("(1 - b2) * g**2", "((1 - b2) * g)**2")]),
    ("adam-square-of-moment", "adam", [("g**2", "m**2")]),
    ("adam-second-moment-on-first", "adam", [("b2 * v", "b2 * m")]),
    ("adam-moments-one-array", "adam", [("v = b2 * v + (1 - b2) * g**2", "m = v = b2 * m + (1 - b2) * g**2")]),
    (
        "adam-moments-exchanged",
        "adam",
        [(ADAM.splitlines()[2], "w = w - lr * (v / (1 - b2**t)) / (np.sqrt(m / (1 - b1**t)) + eps)")],
    ),
    ("adam-gradient-for-moment", "adam", [(" / (1 - b1**t) * m", " * g")]),
    ("adam-gradient-for-moment-corrected", "adam", [("* m /", "* g /")]),
    (
        "adam-moments-late",
        "adam",
        [("m = b1", "late, latv = m, v; m = b1"), ("* m / (np.sqrt(v)", "* late / (np.sqrt(latv)")],
    ),
    ("adam-root-missing", "adam", [(ADAM.splitlines()[2], "w = w - lr * (m / (1 - b1**t)) / (v / (1 - b2**t) + eps)")]),
    (
        "adam-multiplied",
        "adam",
        [(ADAM.splitlines()[2], "w = w - lr * (m / (1 - b1**t)) * (np.sqrt(v / (1 - b2**t)) + eps)")],
    ),
    (
        "adam-epsilon-inside",
        "adam",
        [(ADAM.splitlines()[2], "w = w - lr * (m / (1 - b1**t)) / np.sqrt(v / (1 - b2**t) + eps)")],
    ),
    ("adam-epsilon-inside-uncorrected", "adam", [("(np.sqrt(v) + eps)", "np.sqrt(v + eps)")]),
    ("adam-epsilon-missing", "adam", [(" + eps", "")]),
    (
        "adam-epsilon-added-after",
        "adam",
        [(ADAM.splitlines()[2], "w = w - lr * ((m / (1 - b1**t)) / np.sqrt(v / (1 - b2**t)) + eps)")],
    ),
    ("adam-amsgrad-missing", "amsgrad", [("np.maximum(h, v)", "v")]),
    ("adam-amsgrad-unasked", "adam", [("w = w", "h = np.maximum(h, v); w = w"), ("np.sqrt(v)", "np.sqrt(h)")]),
    (
        "adam-amsgrad-of-corrected",
        "amsgrad",
        [("np.maximum(h, v)", "np.maximum(h, v / (1 - b2**t))"), ("np.sqrt(h)", "np.sqrt(h * (1 - b2**t))")],
    ),
    ("adam-decay-of-learning-rate", "adam", [("- lr *", "- lr / np.sqrt(t) *")]),
    ("adam-epsilon-value", "adam", [("eps)", "1e-8)")]),
    ("adam-beta-2-value", "adam", [("b2", "0.99")]),
    ("rmsprop-rho-value", "rmsprop", [("rho", "0.99")]),
    ("sgd-momentum-value", "momentum", [("mu", "0.95")]),
    ("update-gradient-scaled", "adam", [("m = b1", "g = g / 32; m = b1")]),
    ("update-gradient-scaled", "clipvalue", [("np.clip(g,", "np.clip(2 * g,")]),
    ("update-factor", "momentum", [("lr * g", "lr * g / 32")]),
]


def codes(report):
    """The causes of the first finding, by code."""
    first = report.findings[0]
    return [each.code for each in (first.cause, *first.also) if each]


FORM = itertools.count()
CASES = [pytest.param(*each, list(FORMS)[next(FORM) % 3], id=f"{each[0]}-{each[1]}") for each in PLANTED]


@pytest.mark.parametrize(("code", "name", "edits", "form"), CASES)
def test_a_planted_mistake_is_named(code, name, edits, form):
    optimizer, core = KERAS[name]
    gradients = "gradients" if form == "list returned" else "grads"
    edits = [(a.replace("GRADS", gradients), b.replace("GRADS", gradients)) for a, b in edits]
    report = parity.check_training(optimizer, written(core, form, edits))
    assert report.verdict == "fail"
    assert code in codes(report), report.to_text()
    assert {f.cause.code for f in report.findings} == {report.findings[0].cause.code}
    assert report.findings[0].cause.explains > 0.999
    assert report.sentence.startswith(f"{report.when}: {report.findings[0].cause.text}")


# What is wrong around the rule, each in the form that lets it happen.
AROUND = [
    ("update-missing", "adam", "dict in place", [("params[key][...] = w", "pass")]),
    ("update-missing", "sgd", "list returned", [("new[key] = w", "pass")]),
    ("update-state-lost", "momentum", "list returned", [("if kept.m is None", "if True")]),
    ("update-state-lost", "adam", "object", [("self.state[key] = m, v, h", "pass")]),
    (
        "update-state-shared",
        "momentum",
        "object",
        [("self.state.get(key", "self.state.get(0"), ("self.state[key]", "self.state[0]")],
    ),
    ("update-first-tensor-only", "adam", "list returned", [("range(len(weights))", "range(1)")]),
    ("update-last-tensor-left-out", "rmsprop", "object", [("list(params)", "list(params)[:-1]")]),
    ("update-biases-left-out", "sgd", "dict in place", [("list(params)", "[k for k in params if k[0] == 'W']")]),
    ("update-gradients-added-up", "momentum", "object", [("m = mu", "h = g = g + h; m = mu")]),
    ("update-gradient-of-step-before", "sgd", "object", [("w = w", "g, h = h, g; w = w")]),
    ("update-gradient-of-first-step", "sgd", "object", [("w = w", "h = g if t == 1 else h; g = h; w = w")]),
    ("update-learning-rate-change-ignored", "sgd", "list returned", [("lr * g", "LR * g")]),
    (
        "update-learning-rate-late",
        "momentum",
        "object",
        [("t, lr = self.t, self.lr", "t, lr = self.t, getattr(self, 'old', self.lr); self.old = self.lr")],
    ),
    (
        "adam-t-from-zero",
        "adam",
        "object",
        [
            (
                "        self.t += 1\n        t, lr = self.t, self.lr",
                "        t, lr = np.float64(self.t), self.lr; self.t += 1",
            )
        ],
    ),
    (
        "adam-t-counts-tensors",
        "adam",
        "object",
        [
            ("        self.t += 1\n", ""),
            ("t, lr = self.t, self.lr", "lr = self.lr"),
            ("m = b1", "self.t += 1; t = self.t; m = b1"),
        ],
    ),
]


@pytest.mark.parametrize(("code", "name", "form", "edits"), AROUND, ids=[f"{a[0]}-{a[2]}" for a in AROUND])
def test_a_mistake_around_the_rule_is_named(code, name, form, edits):
    optimizer, core = KERAS[name]
    report = parity.check_training(optimizer, written(core, form, edits))
    assert report.verdict == "fail"
    assert code in codes(report), report.to_text()


def test_every_wrong_rule_is_planted():
    planted = {each[0] for each in (*PLANTED, *AROUND)}
    assert {one.code for one in wrong_rules()} - planted == {"decay-not-excluded"}  # planted where names do not decay


def test_every_wrong_rule_says_what_and_how():
    for one in wrong_rules():
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)+", one.code)
        assert all((one.text, one.right, one.wrong))
        assert one.right != one.wrong
        assert not one.text.endswith(".")


# -- the forms in which people write it --------------------------------------------------------------------------------


def one_array(w, g, lr):
    return w - lr * g


def one_array_in_place(w, dw, learning_rate):
    w -= learning_rate * dw


def a_list_in_place(params, grads, alpha):
    for p, g in zip(params, grads, strict=True):
        p -= alpha * g


def a_list_filled_anew(parameters, gradients, eta):
    for i in range(len(parameters)):
        parameters[i] = parameters[i] - eta * gradients[i]


def keys_with_d(parameters, grads, learning_rate):
    for layer in range(1, len(parameters) // 2 + 1):
        parameters["W" + str(layer)] = parameters["W" + str(layer)] - learning_rate * grads["dW" + str(layer)]
        parameters["b" + str(layer)] = parameters["b" + str(layer)] - learning_rate * grads["db" + str(layer)]
    return parameters


def without_a_learning_rate(w, g):
    return w - 0.01 * g


class WithPairs:
    lr = 0.01

    def apply_gradients(self, grads_and_vars):
        for g, w in grads_and_vars:
            w -= self.lr * g


class Called:
    def __call__(self, params, grads, lr):
        return {name: params[name] - lr * grads[name] for name in params}


SIMPLE = [
    one_array,
    one_array_in_place,
    a_list_in_place,
    a_list_filled_anew,
    keys_with_d,
    without_a_learning_rate,
    WithPairs(),
    Called(),
    lambda params, grads, lr: [one_array(w, g, lr) for w, g in zip(params, grads, strict=True)],
]


@pytest.mark.parametrize("update", SIMPLE, ids=lambda update: getattr(update, "__name__", type(update).__name__))
def test_simple_forms(update):
    report = parity.check_training("sgd", update)
    assert report.verdict == "pass", report.to_text()
    wrong = parity.check_training("SGD(learning_rate=0.02)", update, learning_rates=[0.02] * 4)
    takes_rate = update not in (without_a_learning_rate, SIMPLE[6])  # those have 0.01 of their own
    assert wrong.passed == takes_rate
    said = "the learning rate is 0.01, Keras's is 0.02" if update is SIMPLE[6] else "every change is 0.5 times Keras's"
    assert takes_rate or said in wrong.sentence


def a_copy_by_numpy(w, g, lr):
    return np.subtract(w, lr * np.clip(g, -0.5, 0.5))


def in_place_by_numpy(w, g, lr):
    w -= lr * np.clip(g, -0.5, 0.5)


@pytest.mark.parametrize("update", [a_copy_by_numpy, in_place_by_numpy])
def test_numpy_makes_one_array_of_a_list(update):
    report = parity.check_training("SGD(learning_rate=0.01, clipvalue=0.5)", update)
    assert report.verdict == "pass", report.to_text()
    assert report.form == "one array"


def test_what_comes_back_beside_a_change_in_place_is_not_looked_at():
    class Chained:
        lr = 0.01

        def step(self, params, grads):
            for p, g in zip(params, grads, strict=True):
                p -= self.lr * g
            return self

    assert parity.check_training("sgd", Chained()).passed
    still_at_first = [[np.zeros(2)], [np.ones(2)], [np.zeros(2)]]
    assert parity.check_training("sgd", Chained(), weights=[np.ones(2)], gradients=still_at_first).passed


def momentum_with_its_state(w, dw, config=None):
    config = {} if config is None else config
    config.setdefault("learning_rate", 1e-2)
    config.setdefault("momentum", 0.9)
    v = config.get("velocity", np.zeros_like(w))
    v = config["momentum"] * v - config["learning_rate"] * dw
    config["velocity"] = v
    return w + v, config


def state_returned_one_by_one(w, g, m, v, t, lr):
    m = 0.9 * m + (1 - 0.9) * g
    v = 0.999 * v + (1 - 0.999) * g**2
    t = t + 1
    return w - lr * np.sqrt(1 - 0.999**t) / (1 - 0.9**t) * m / (np.sqrt(v) + 1e-7), m, v, t


def dictionaries_with_d(parameters, grads, v, s, t, learning_rate, beta1, beta2, epsilon):
    for key in parameters:
        v["d" + key] = beta1 * v["d" + key] + (1 - beta1) * grads["d" + key]
        s["d" + key] = beta2 * s["d" + key] + (1 - beta2) * grads["d" + key] ** 2
        scale = learning_rate * np.sqrt(1 - beta2**t) / (1 - beta1**t)
        parameters[key] = parameters[key] - scale * v["d" + key] / (np.sqrt(s["d" + key]) + epsilon)
    return parameters, v, s


def a_state_to_be_filled(params, grads, state, lr, momentum):
    if not state:
        state["velocity"] = {name: np.zeros_like(w) for name, w in params.items()}
    for name in params:
        state["velocity"][name] = momentum * state["velocity"][name] - lr * grads[name]
        params[name] += state["velocity"][name]


def velocity_returned_alone(params, grads, velocity, lr):
    velocity = [0.9 * v - lr * g for v, g in zip(velocity, grads, strict=True)]
    for p, v in zip(params, velocity, strict=True):
        p += v
    return velocity


def moments_returned_alone(params, grads, m, v, t, lr):
    for k in params:
        m[k] = 0.9 * m[k] + (1 - 0.9) * grads[k]
        v[k] = 0.999 * v[k] + (1 - 0.999) * grads[k] ** 2
        params[k] -= lr * np.sqrt(1 - 0.999**t) / (1 - 0.9**t) * m[k] / (np.sqrt(v[k]) + 1e-7)
    return m, v


def a_default_that_is_kept(w, g, lr, state={"v": 0.0}):  # noqa: B006  (it is what is tested)
    state["v"] = 0.9 * state["v"] - lr * g
    return w + state["v"]


SGD_9 = "SGD(learning_rate=0.01, momentum=0.9)"


@pytest.mark.parametrize(
    ("optimizer", "update"),
    [
        (SGD_9, momentum_with_its_state),
        ("adam", dictionaries_with_d),
        (SGD_9, a_state_to_be_filled),
        (SGD_9, velocity_returned_alone),
        ("adam", moments_returned_alone),
        (SGD_9, a_default_that_is_kept),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_forms_with_a_state(optimizer, update):
    for _ in range(2):  # the second time as the first: nothing is left over
        report = parity.check_training(optimizer, update)
        assert report.verdict == "pass", report.to_text()


def test_a_count_that_is_returned_starts_at_zero():
    report = parity.check_training("adam", state_returned_one_by_one)
    assert report.verdict == "pass", report.to_text()
    assert "with t counted from 0" in report.sentence
    assert any("counts steps from 0" in note for note in report.notes)


def test_a_counter_is_put_back():
    counter, moments = itertools.count(1), {}

    def update(params, grads, lr):
        t = next(counter)
        for k in params:
            m, v = moments.get(k, (0, 0))
            moments[k] = m, v = 0.9 * m + 0.1 * grads[k], 0.999 * v + (1 - 0.999) * grads[k] ** 2
            params[k] -= lr * np.sqrt(1 - 0.999**t) / (1 - 0.9**t) * m / (np.sqrt(v) + 1e-7)

    assert parity.check_training("adam", update).passed
    assert next(counter) == 1


def test_a_closure_is_put_back():
    t, moments = 0, {}

    def update(params, grads, lr):
        nonlocal t
        t += 1
        scale = lr * np.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        for k in params:
            m, v = moments.get(k, (0, 0))
            moments[k] = m, v = 0.9 * m + 0.1 * grads[k], 0.999 * v + (1 - 0.999) * grads[k] ** 2
            params[k] -= scale * m / (np.sqrt(v) + 1e-7)

    assert parity.check_training("adam", update).passed
    assert t == 0
    assert moments == {}


def test_weights_and_gradients_of_ones_own():
    start = {"kernel": np.ones((2, 2)), "bias": np.zeros(2)}
    given = [{"kernel": np.eye(2), "bias": np.ones(2)}] * 3
    report = parity.check_training("sgd", Called(), weights=start, gradients=given)
    assert report.verdict == "pass"
    assert report.tensors == ("kernel", "bias")
    assert report.steps == 3
    assert np.array_equal(start["kernel"], np.ones((2, 2)))
    assert parity.check_training("sgd", one_array, weights=1.5).passed
    assert parity.check_training("sgd", a_list_in_place, weights=[np.ones(2), np.ones(3)]).form == "a list of arrays"


# -- optimizers --------------------------------------------------------------------------------------------------------


@pytest.mark.tensorflow
def test_an_optimizer_in_every_form(keras):
    live = keras.optimizers.SGD(0.01)
    given = ("sgd", live, keras.optimizers.serialize(live), "SGD(learning_rate=0.01)")
    reports = [parity.check_training(optimizer, one_array) for optimizer in given]
    assert all(report.passed for report in reports)
    assert len({report.optimizer for report in reports}) == 1
    assert reports[0].learning_rates[0] == 0.01  # not as float32 holds it


@pytest.mark.tensorflow
def test_a_learning_rate_that_keras_rounds(keras):
    def update(w, g):
        return w - g / 3

    assert parity.check_training(keras.optimizers.SGD(1 / 3), update).passed
    assert parity.check_training({"class_name": "SGD", "config": {"learning_rate": 1 / 3}}, update).passed
    assert not parity.check_training(keras.optimizers.SGD(1 / 3 + 1e-7), update).passed


@pytest.mark.tensorflow
def test_a_schedule_gives_the_rates(keras):
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5)
    report = parity.check_training(keras.optimizers.SGD(schedule), one_array, steps=4)
    assert report.passed
    rates = [0.1 * 0.5 ** (step / 2) for step in range(4)]
    assert report.learning_rates == pytest.approx(rates, rel=2**-23)  # the constants of Keras's schedules are float32
    with pytest.raises(UsageError, match="your code takes no learning rate"):
        parity.check_training(keras.optimizers.SGD(schedule), without_a_learning_rate)


@pytest.mark.tensorflow
def test_names_that_do_not_decay(keras):
    optimizer = keras.optimizers.AdamW(0.01, weight_decay=0.02)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    edits = [("lr * wd * w", "(w.ndim > 1) * lr * wd * w")]
    assert parity.check_training(optimizer, written(DECAY + ADAM, "object", edits)).passed
    assert codes(parity.check_training(optimizer, written(DECAY + ADAM, "object"))) == ["decay-not-excluded"]


def test_an_optimizer_without_known_mistakes():
    def adagrad(params, grads, lr, kept={}):  # noqa: B006
        for k in params:
            kept[k] = kept.get(k, 0.1) + grads[k] ** 2
            params[k] -= lr * grads[k] / np.sqrt(kept[k] + 1e-7)

    report = parity.check_training("adagrad", adagrad)
    assert report.passed
    assert any("no mistakes are known for Adagrad" in note for note in report.notes)
    wrong = parity.check_training("adagrad", Called())
    assert wrong.verdict == "fail"
    assert wrong.findings[0].cause is None


@pytest.mark.parametrize("optimizer", [optimizer for optimizer, _ in KERAS.values()])
@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_the_rules_are_those_of_keras(optimizer, seed):
    reference = reference_side.reference_for(optimizer)
    start = design.weights(design.SHAPES, seed)
    gradients = design.gradients(design.SHAPES, 12, seed, reference.config)
    rates = design.rates(0.05, 12)
    path, decays = reference.run(design.NAMES, start, gradients, rates)
    ours = run(rule_for(reference.name, reference.config, decays), start, gradients, rates)
    # Of order one; 12 steps of some 30 roundings, the largest of 1 - b2 (a thousand times 1.1e-16) on a change of 0.05.
    pairs = ((a, b) for x, y in zip(path, ours, strict=True) for a, b in zip(x, y, strict=True))
    assert max(np.max(np.abs(a - b)) for a, b in pairs) < 1e-13


# -- the words ---------------------------------------------------------------------------------------------------------


ADAM_01 = "Adam(learning_rate=0.01)"


def test_field_case_5():
    report = parity.check_training(ADAM_01, written(ADAM, "dict in place", [("**t", "")]))
    assert report.sentence == "exact at step 1, differs from step 2: the bias correction lacks the power of t."
    assert report.to_text().splitlines()[0] == report.sentence
    assert {finding.step for finding in report.findings} == {2}


def test_field_case_5_beside_a_convention():
    report = parity.check_training(ADAM_01, written(PAPER, "object", [("**t", "")]))
    assert report.when == "exact at step 1, differs from step 2"
    assert report.findings[0].cause.text.startswith("the bias correction lacks the power of t. Apart from that, ")
    assert "Apart from that, from step 1 on, epsilon is beside the root of the corrected moment" in report.sentence
    assert report.findings[0].cause.convention == ""


def test_field_case_14():
    edits = [("mu * m - lr * g", "mu * m + g"), ("w + m", "w - lr * m")]
    report = parity.check_training(SGD_9, written(MOMENTUM, "object", edits))
    assert report.when == "equal while the learning rate is constant, first differs at step 6, where it changes"
    assert report.findings[0].cause.code == "momentum-learning-rate-outside"
    assert report.findings[0].cause.convention == "PyTorch"
    constant = parity.check_training(SGD_9, written(MOMENTUM, "object", edits), learning_rates=[0.01] * 6)
    assert constant.passed
    assert any(said.startswith("momentum-learning-rate-outside") for said in constant.blind)


def test_a_convention_alone_is_called_one():
    report = parity.check_training(ADAM_01, written(PAPER, "list returned"))
    assert report.verdict == "fail"
    assert report.findings[0].cause.convention == "Algorithm 1 of the paper, and PyTorch"
    assert "a convention, no mistake" in report.sentence


def test_the_usual_epsilon_of_the_paper():
    report = parity.check_training(ADAM_01, written(PAPER, "object", [("+ eps", "+ 1e-8")]))
    assert codes(report) == ["adam-epsilon-value+adam-epsilon-at-corrected"]


def test_two_mistakes():
    edits = [("**t", ""), ("w - lr", "w + lr")]
    report = parity.check_training(ADAM_01, written(ADAM, "object", edits))
    assert "update-ascent+adam-correction-without-power" in codes(report)


def test_equal_explanations_are_all_named():
    report = parity.check_training(ADAM_01, written(ADAM, "object", [("**t", "")]))
    assert codes(report) == ["adam-correction-without-power", "adam-t-stays-one"]
    assert "or, just as well: adam-t-stays-one" in report.to_text()


def test_another_learning_rate_beside_a_mistake():
    report = parity.check_training("adam", written(ADAM, "object", [("**t", "")]))
    assert "adam-correction-without-power+update-learning-rate-value" in codes(report)
    assert "the learning rate of your object is 0.01, the optimizer's is 0.001" in report.notes


@pytest.mark.parametrize("rate", [0.1, 0.02, 0.003])
def test_another_learning_rate_comes_before_what_looks_like_it(rate):
    update = written(ADAM, "object", [("Optimizer(LR)", f"Optimizer({rate})")])
    report = parity.check_training(ADAM_01, update)
    assert codes(report) == ["update-learning-rate-value"]
    assert report.sentence == f"differs from step 1: the learning rate is {rate}, Keras's is 0.01."
    assert report.findings[0].cause.explains > 0.999


def test_a_learning_rate_that_nobody_sees_is_named_first():
    report = parity.check_training("sgd", lambda w, g: w - 0.02 * g)
    assert codes(report) == ["update-factor", "update-twice"]
    given = parity.check_training("sgd", lambda w, g, lr: w - 2 * lr * g)
    assert codes(given) == ["update-twice"]


def adam_with(change=lambda d: d, denominator=lambda s: s + 1e-7, square=np.square, power=1.0, before=0):
    def update(w, g, m, v, t, lr):
        t = power * t - before
        m = 0.9 * m + (1 - 0.9) * g
        v = 0.999 * v + (1 - 0.999) * square(g)
        return w - change(lr * np.sqrt(1 - 0.999**t) / (1 - 0.9**t) * m / denominator(np.sqrt(v))), m, v

    return update


@pytest.mark.parametrize(
    "wrong",
    [
        {"change": lambda d: np.clip(d, -5e-4, 5e-4)},
        {"denominator": lambda s: 0.77 * s + 1e-7},
        {"square": lambda g: np.abs(g) ** 1.5},
        {"power": 1.5},
        {"change": lambda d: d * np.nan},
    ],
    ids=["clipped", "denominator", "square", "power", "nan"],
)
def test_what_is_unknown_does_not_become_a_wrong_count(wrong):
    report = parity.check_training("adam", adam_with(**wrong))
    assert codes(report) == []
    assert "no known mistake explains it" in report.sentence
    assert report.first_t == 1
    assert not any("counts steps from 0" in note for note in report.notes)


def test_a_count_from_zero_is_known_by_the_steps_after_it():
    report = parity.check_training("adam", adam_with(before=1))
    assert codes(report) == ["adam-t-from-zero"]
    assert report.first_t == 1
    only = parity.check_training("adam", adam_with(before=1), steps=1)  # nothing but nan is seen
    assert codes(only) == []


def test_what_ends_in_nan_gets_a_hint_and_no_cause():
    report = parity.check_training(ADAM_01, written(ADAM, "object", [("**t", " * t")]))
    assert report.findings[0].cause is None
    assert report.sentence == (
        "exact at step 1, differs from step 2: no known mistake explains it; W1 is not finite from step 2 on, in 15 of "
        "15 elements, as where the bias correction has b t where b^t belongs."
    )


def test_an_error_in_one_tensor():
    edits = [("w = w - lr * g", "w = w + (1 if key == 'b1' else -1) * lr * g")]
    report = parity.check_training("sgd", written(SGD, "object", edits))
    assert [finding.tensor for finding in report.findings] == ["b1"]
    assert report.findings[0].cause.code == "update-ascent"


def test_no_cause_for_what_is_unknown():
    report = parity.check_training("sgd", written(SGD, "object", [("lr * g", "lr * np.tanh(g)")]))
    assert report.findings[0].cause is None
    assert "no known mistake explains it" in report.sentence


def test_float32_is_said():
    report = parity.check_training("sgd", lambda w, g, lr: (w - lr * g).astype(np.float32))
    assert report.verdict == "fail"
    assert "W1 comes back as float32, and went in as float64" in report.notes
    assert "no larger than rounding to float32" in report.sentence


def test_changed_gradients_are_said():
    def update(params, grads, lr):
        for p, g in zip(params, grads, strict=True):
            g *= lr
            p -= g

    report = parity.check_training("sgd", update)
    assert report.passed
    assert "your code changes the gradients that it is given, in place" in report.notes


def test_one_shape_only_is_said():
    edits = [("self.state.get(key", "self.state.get(0"), ("self.state[key]", "self.state[0]")]
    report = parity.check_training(SGD_9, written(MOMENTUM, "object", edits))
    assert any("runs only where all tensors have one shape" in note for note in report.notes)


def test_what_does_not_move_has_no_power():
    report = parity.check_training("sgd", one_array, weights=np.ones(3), gradients=[np.zeros(3)] * 2)
    assert report.verdict == "no power"
    assert report.exit_status == 3
    assert report.sentence.startswith("Nothing can be concluded: Keras's weights do not move")


def test_what_one_step_cannot_show():
    report = parity.check_training(ADAM_01, written(ADAM, "object"), steps=1)
    assert report.passed
    assert any(said.startswith("adam-correction-without-power") for said in report.blind)
    assert not parity.check_training(ADAM_01, written(ADAM, "object")).blind


def test_json_has_everything():
    report = parity.check_training(ADAM_01, written(ADAM, "object", [(" + eps", "")]))
    document = json.loads(report.to_json())
    assert document["verdict"] == "fail"
    assert document["sentence"] == report.sentence
    assert document["findings"][0]["yours"] == "nan"
    assert document["findings"][0]["cause"]["code"] == "adam-epsilon-missing"


# -- what cannot be run ------------------------------------------------------------------------------------------------


def wants_more(params, grads, layers):
    return params


def fails(w, g):
    return w.missing


def returns_text(w, g):
    return "a"


def returns_another_shape(w, g):
    return np.zeros(3)


def returns_too_few(w, g):
    return w[1:]


def fails_later(w, g, t):
    return w - 0.01 * g / (t < 3) if t != 3 else w.missing


RAISING = (fails, fails_later, returns_text, returns_another_shape, returns_too_few)


@pytest.mark.parametrize(
    ("optimizer", "update", "options", "said"),
    [
        ("sgd", wants_more, {}, r"nothing is known for the argument layers\..*lambda params, grads, lr: "),
        ("sgd", lambda g: g, {}, "no argument takes the weights"),
        ("sgd", 3, {}, "expected a function, or an object with one of the methods update, step"),
        ("sgd", Called, {}, "received the class Called: make one"),
        ("sgd", fails, {}, r"(?s)step 1: AttributeError.*line \d+, in fails: return w\.missing"),
        ("sgd", returns_text, {}, r"step\n  step 1: it returned 'a', a str; expected the new weights in the form"),
        (
            "sgd",
            returns_another_shape,
            {},
            r"(?s)an array of shape \(3,\);.*the shape \(3,\) afterwards, \(3, 5\) before",
        ),
        ("sgd", returns_too_few, {}, r"returned a list of 3, the first of them an array of shape \(5,\)"),
        ("sgd", fails_later, {}, r"step 3: AttributeError.*line \d+, in fails_later"),
        ("sgd", one_array, {"steps": 0}, "at least 1; received steps for 0 steps"),
        ("sgd", one_array, {"steps": 2, "learning_rates": [0.1]}, "learning_rates for 1 steps, steps for 2"),
        ("sgd", one_array, {"gradients": [np.ones(2)]}, "give the start weights"),
        ("sgd", one_array, {"weights": np.ones(2), "gradients": [np.ones(3)]}, r"\(\(2,\),\); received \(\(3,\),\)"),
        pytest.param("gello", one_array, {}, "expected a Keras optimizer.*'gello'", marks=pytest.mark.tensorflow),
        pytest.param("SGD(0.1)", one_array, {}, "keyword arguments", marks=pytest.mark.tensorflow),
    ],
)
def test_what_cannot_be_run(optimizer, update, options, said):
    with pytest.raises(SubjectError if update in RAISING else UsageError, match=said):
        parity.check_training(optimizer, update, **options)
