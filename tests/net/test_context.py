"""The context: a map from strings to strings that survives any environment."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockflow import Context
from blockflow.errors import ConnectionFileError

texts = st.text() | st.binary().map(os.fsdecode) | st.sampled_from(["self", "cls"])


@given(st.dictionaries(texts, texts))
def test_any_characters_come_back(values: dict[str, str]) -> None:
    context = Context()
    for key, value in values.items():
        context[key] = value
    text = context.to_env()
    assert "\0" not in text  # what no environment can hold
    assert Context.from_env({Context.ENV_VARIABLE: text}) == context
    assert Context.from_text(text) == context


def test_it_reads_like_a_map() -> None:
    context = Context(task_id="t", worker_id=3)
    assert (context["task_id"], context["worker_id"]) == ("t", "3")
    assert (context.get("none"), context.get("none", "x"), context.get("task_id")) == (None, "x", "t")
    assert list(context) == ["task_id", "worker_id"]
    assert "task_id" in context
    assert "none" not in context
    with pytest.raises(KeyError):
        context["none"]
    assert repr(context) == "Context(task_id='t', worker_id='3')"
    assert context != {"task_id": "t", "worker_id": "3"}


def test_a_copy_is_another_context() -> None:
    context = Context(task_id="t")
    twin = context.copy()
    twin["task_id"] = "u"
    assert context["task_id"] == "t"
    assert twin != context


def test_the_environment_is_that_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(Context.ENV_VARIABLE, Context(task_id="t").to_env())
    assert Context.from_env()["task_id"] == "t"
    monkeypatch.delenv(Context.ENV_VARIABLE)
    with pytest.raises(ConnectionFileError, match="this process has no context"):
        Context.from_env()


@pytest.mark.parametrize("text", ["", "a=b", "{", "[]", '{"a":1}', '{"a":null}', "\udcff"])
def test_what_is_no_context_is_refused(text: str) -> None:
    with pytest.raises(ConnectionFileError, match="DAISY_CONTEXT is no context"):
        Context.from_text(text)
