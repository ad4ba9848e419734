"""From bytes to what may be shown: whole characters, the suffix not repeated, dedents; and prompts from text."""

from __future__ import annotations

from pathlib import Path

import pytest
import training_fixtures
from hypothesis import given
from hypothesis import strategies as st
from serve_support import native

from kringle.errors import UserError
from kringle.evaluation.samplers import open_sampler
from kringle.model import exchange
from kringle.model.shape import FimTraining
from kringle.model.transformer import Transformer
from kringle.serve.models import ModelOptions, NativeModel, open_models
from kringle.serve.prompting import cut, taken_apart, templates
from kringle.serve.writing import Writer, whole_characters


def written(text: bytes, size: int = 1, *, by_model: bool = True, **options: object) -> str:
    writer = Writer(**options)  # type: ignore[arg-type]
    shown = "".join(writer.feed(text[at : at + size]) for at in range(0, len(text), size))
    return shown + writer.finish(by_model=by_model)


@given(st.text(max_size=30), st.integers(1, 5))
def test_chunks_are_whole_characters_and_add_up(text: str, size: int) -> None:
    raw = text.encode()
    writer = Writer()
    chunks = [writer.feed(raw[at : at + size]) for at in range(0, len(raw), size)]
    assert all("\ufffd" not in chunk for chunk in chunks) or "\ufffd" in text
    assert "".join(chunks) + writer.finish(by_model=True) == text


@given(st.binary(max_size=40), st.integers(1, 5))
def test_bytes_that_are_no_text_become_the_same_marks_however_they_are_cut(raw: bytes, size: int) -> None:
    assert written(raw, size) == raw[: whole_characters(raw)].decode("utf-8", "replace")


def test_half_a_character_at_the_end_is_dropped() -> None:
    assert written("a🍰".encode()[:-1]) == "a"
    assert written("a世".encode()[:-2]) == "a"
    assert written(b"a\xe9") == "a"


def test_what_repeats_the_suffix_is_dropped_at_the_end_and_never_shown() -> None:
    suffix = "    return result\n"
    assert written(b"result = 1\n    return result\n", suffix=suffix) == "result = 1\n"
    assert written(b"result = 1\n    return resul", suffix=suffix, by_model=False) == "result = 1\n"
    # What only looked like the suffix is shown after all.
    assert written(b"x\n    return results(1)\n", suffix=suffix) == "x\n    return results(1)\n"
    # A bracket that the model closed itself is meant; one before which it was stopped is the suffix's.
    assert written(b"bar()", suffix=")\n") == "bar()"
    assert written(b"bar())", suffix=")\n", by_model=False) == "bar()"
    # White space alone is no repetition.
    assert written(b"x\n", suffix="\n\n", by_model=False) == "x\n"


@given(st.text("ab\n", max_size=12), st.text("ab\n", max_size=8), st.integers(1, 4), st.booleans())
def test_at_most_a_beginning_of_the_suffix_is_dropped(text: str, suffix: str, size: int, by_model: bool) -> None:
    shown = written(text.encode(), size, suffix=suffix, by_model=by_model)
    assert text.startswith(shown)
    assert suffix.startswith(text[len(shown) :])


def test_a_line_that_is_indented_less_ends_the_text() -> None:
    body = b"x = 1\n    y = 2\n\n    z = 3\ndef g():\n"
    assert written(body, least_indent=4) == "x = 1\n    y = 2\n\n    z = 3"
    assert written(body, 7, least_indent=4) == "x = 1\n    y = 2\n\n    z = 3"
    assert written(body, least_indent=0) == body.decode()
    assert written(b"x\n  ", least_indent=4) == "x\n  "


def test_prompts_are_cut_far_from_the_cursor_in_steps() -> None:
    before, after = list(range(100)), list(range(200, 300))
    kept, rest = cut(before, after, 40, 8)
    assert kept == before[len(before) - len(kept) :]
    assert rest == after[: len(rest)]
    assert 40 - 16 <= len(kept) + len(rest) <= 40
    assert (100 - len(kept)) % 8 == 0
    assert cut(before, [], 200, 8) == (before, [])
    # The beginning stays where it is for some keystrokes.
    firsts = {cut(list(range(n)), [], 40, 8)[0][0] for n in range(100, 108)}
    assert len(firsts) <= 2


def test_templates_of_other_families_are_taken_apart() -> None:
    assert taken_apart("<fim_prefix>def f(<fim_suffix>)\n<fim_middle>") == ("def f(", ")\n")
    assert taken_apart("<fim-prefix>a<fim-suffix>b<fim-middle>") == ("a", "b")
    assert taken_apart("<fim_prefix><fim_suffix>b<fim_middle>a") == ("a", "b")
    assert taken_apart("<PRE> def f( <SUF>) <MID>") == ("def f(", ")")
    assert taken_apart("<|fim_prefix|>a<|fim_suffix|>b<|fim_middle|>") == ("a", "b")
    assert taken_apart("<｜fim▁begin｜>a<｜fim▁hole｜>b<｜fim▁end｜>") == ("a", "b")
    assert taken_apart("x = '<fim_prefix>'") is None
    assert taken_apart("") is None
    with pytest.raises(UserError, match="2 times"):
        taken_apart("<fim_prefix>a<fim_suffix>b<fim_suffix>c<fim_middle>")
    assert len(templates()) >= 5


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> NativeModel:
    model = native(tmp_path_factory.mktemp("model"))
    model.close()
    return model


def test_prompts_hold_the_sentinels_and_heal_the_cursor(tiny: NativeModel) -> None:
    special = tiny._tokenizer.specials
    whole = tiny.prompt("def f(x):\n    retu", "", 16, heal=True)
    assert whole.ids[0] == special.end_of_text
    assert tiny._tokenizer.decode_bytes(whole.ids) + whole.required == b"def f(x):\n    retu"
    assert whole.required
    assert not tiny.prompt("def f(x):\n    retu", "", 16, heal=False).required
    gap = tiny.prompt("a = [1", "]\n", 16, heal=False)
    assert gap.ids[:2] == [special.fim_prefix, special.fim_suffix]
    assert gap.ids.index(special.fim_middle) == 2 + len(tiny.encode("]\n"))
    long = tiny.prompt("x = 1\n" * 1000, "y = 2\n" * 1000, 32, heal=False)
    assert long.truncated
    assert len(long.ids) + 32 <= tiny.context
    assert tiny.prompt("", "", 16, heal=True).ids == [special.end_of_text]


@pytest.mark.parametrize(
    ("trained", "fills", "first"),
    [
        (FimTraining(0.5, 0.5), True, "fim_suffix"),
        (FimTraining(0.5, 0), True, "fim_prefix"),
        (FimTraining(0, 0.5), False, ""),
    ],
)
def test_a_model_is_asked_as_it_was_trained(tmp_path: Path, trained: FimTraining, fills: bool, first: str) -> None:
    tokenizer = training_fixtures.tokenizer()
    model = Transformer(training_fixtures.model_config(context=160))
    model.initialise(0)
    exchange.save(model, tokenizer, tmp_path / "one", trained)
    (served,) = open_models([str(tmp_path / "one")], ModelOptions())
    served.close()
    assert served.fills_gaps is fills
    assert open_sampler(tmp_path / "one").fills_gaps() is fills
    if fills:
        ids = served.prompt("a = [1", "]", 16, heal=False).ids
        order = {"fim_suffix": tokenizer.specials.fim_suffix, "fim_prefix": served.encode("a = [1")[0]}
        assert ids[:2] == [tokenizer.specials.fim_prefix, order[first]]


def test_text_that_spells_a_sentinel_stays_text(tiny: NativeModel, tmp_path: Path) -> None:
    special = tiny._tokenizer.specials
    ids = tiny.prompt("a<fim_middle>b", "c", 16, heal=False).ids
    assert ids.count(special.fim_middle) == 1
