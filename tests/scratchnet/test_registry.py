"""Names and configs, over every family: what Keras writes is read, what Keras reads is written, nothing is ignored."""

import inspect
import json

import numpy as np
import pytest

import scratchnet  # noqa: F401  (fills the registry)
from scratchnet import registry
from scratchnet.registry import Entry, UnknownArgument, UnknownName

FAMILIES = ("activation", "initializer", "layer", "loss", "metric", "optimizer", "regularizer")

# What Keras 3.15.1 forgets in its own configs, so that its round trip loses it.
FORGOTTEN = {"Huber": {"delta"}, "SparseCategoricalCrossentropy": {"axis"}}


def by_json(value):
    """What its JSON says. Keras writes learning rates and the factors of L1 as the float32 that they became."""
    return json.loads(json.dumps(value), parse_float=lambda number: float(np.float32(number)))


def module_of(keras, family):
    return getattr(keras, "losses" if family == "loss" else f"{family}s")


def test_every_family_has_entries():
    assert all(registry.entries(family) for family in FAMILIES)


def test_round_trip(any_entry):
    entry = any_entry()
    written = json.dumps(registry.serialize(entry))
    again = registry.deserialize(entry.family, json.loads(written))
    assert type(again) is type(entry)
    assert json.dumps(registry.serialize(again)) == written


def test_configs_name_every_argument(any_entry):
    config = any_entry().get_config()
    assert set(any_entry.keywords) <= set(config)
    assert set(inspect.signature(any_entry.func).parameters) - {"base", "rest", "args", "kwargs"} <= set(config)


def test_configs_are_those_of_keras(any_entry_with_a_config, keras, answers):
    any_entry = any_entry_with_a_config
    family, name = any_entry.func.family, any_entry.func.__name__
    # A layer on its own has no name here, and Keras counts the names of layers and optimizers.
    named = {"name": "probe"} if family in ("layer", "optimizer") else {}
    ours = by_json(registry.serialize(any_entry(**named)))

    def configs():
        module = module_of(keras, family)
        made = module.serialize(getattr(module, name)(**any_entry.keywords, **named))
        read = module.serialize(module.deserialize(by_json(ours)))  # a copy, for Keras changes what it reads
        return by_json([made, read])

    theirs, read = answers(configs)
    for forgotten in FORGOTTEN.get(name, ()):
        assert forgotten not in theirs["config"]
        del ours["config"][forgotten]
    if family == "metric":  # computed in the dtype of the predictions here
        del theirs["config"]["dtype"], read["config"]["dtype"]
    assert ours == theirs
    assert read == theirs


def test_configs_of_keras_are_read(any_entry_with_a_config, keras, answers):
    any_entry = any_entry_with_a_config
    family, name = any_entry.func.family, any_entry.func.__name__
    named = {"name": "probe"} if family in ("layer", "optimizer") else {}  # or Keras counts

    def config():
        module = module_of(keras, family)
        return json.loads(json.dumps(module.serialize(getattr(module, name)(**any_entry.keywords, **named))))

    written = answers(config)
    read = registry.deserialize(family, written)
    assert type(read) is any_entry.func
    forgotten = FORGOTTEN.get(name, set())
    for argument in any_entry.keywords:
        if argument not in forgotten:
            assert by_json(read.get_config()[argument]) == by_json(any_entry().get_config()[argument])


def test_activation_names_are_those_of_keras(any_activation, keras, answers):
    activation = any_activation()
    if not any_activation.keywords:
        name = answers(lambda: keras.activations.serialize(keras.activations.get(activation.as_value())))
        assert name == activation.as_value() == activation.registered_name


@pytest.mark.parametrize("family", ["activation", "loss", "metric", "optimizer", "regularizer"])
def test_every_name_is_a_name_of_keras(family, keras, answers):
    def named(name):
        module = module_of(keras, family)
        found = getattr(module, name, None) or module.get(name)
        return getattr(found, "__name__", type(found).__name__)

    for name, cls in registry._TABLE[family].items():
        theirs = answers(lambda name=name: named(name))
        assert theirs.replace("_", "").lower() == cls.__name__.lower(), name


@pytest.mark.parametrize("family", FAMILIES)
def test_unknown_names(family):
    for identifier in ("gello", {"class_name": "gello", "config": {}}, {"class_name": "function", "config": "gello"}):
        with pytest.raises(UnknownName, match=f"{family} 'gello'; known: .*{next(iter(registry.entries(family)))}"):
            registry.get(family, identifier)
    with pytest.raises(UnknownName, match="class_name"):
        registry.get(family, {"name": "x"})
    with pytest.raises(TypeError, match=f"{family}.*3.5"):
        registry.get(family, 3.5)


def test_unknown_arguments(any_entry):
    config = any_entry().get_config()
    with pytest.raises(UnknownArgument, match=f"{any_entry.func.registered_name}.*'gello'.*7"):
        any_entry.func.from_config({**config, "gello": 7})


def test_neutral_arguments_are_not_ignored(any_entry):
    cls = any_entry.func
    config = any_entry().get_config()
    for name, value in cls.neutral.items():
        assert isinstance(cls.from_config({**config, name: value}), cls)
        with pytest.raises(UnknownArgument, match=f"{name}='gello'"):
            cls.from_config({**config, name: "gello"})


def test_what_get_accepts(any_entry):
    entry = any_entry()
    family = entry.family
    assert registry.get(family, entry) is entry
    assert registry.get(family, None) is None
    assert type(registry.get(family, registry.serialize(entry))) is type(entry)
    if not any_entry.keywords:
        assert isinstance(registry.get(family, entry.registered_name), Entry)
        assert type(registry.get(family, any_entry.func)) is any_entry.func


def test_a_name_is_given_once():
    with pytest.raises(ValueError, match="'linear' is registered twice: Linear, Relu"):
        registry.register("linear")(registry.find("activation", "relu"))
    assert registry.find("activation", "linear").__name__ == "Linear"
