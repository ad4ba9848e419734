"""Prompts for infilling tasks, and how completions are judged."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from kringle.errors import UserError
from kringle.evaluation.infilling import PromptFormat, Result, Task, examples, make_prompt, make_tasks, run
from kringle.generation.fim import infilling_prompt
from kringle.model.shape import ModelConfig, padded_vocabulary
from kringle.model.transformer import Transformer
from kringle.tokens.tokenizer import Tokenizer, train_tokenizer

CONTEXT = 96
NEW_TOKENS = 24


@pytest.fixture(scope="module")
def files() -> list[tuple[str, str, str]]:
    paths = sorted(Path(__file__).parent.glob("test_measures_*.py"))
    return [(path.name, "python", path.read_text(encoding="utf-8")) for path in paths]


@pytest.fixture(scope="module")
def tokenizer(files: list[tuple[str, str, str]], tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return train_tokenizer([text for *_, text in files], 600, tmp_path_factory.mktemp("tokenizer"))


def parrot(tokenizer: Tokenizer, prompt: list[int], answer: list[int]) -> Transformer:
    """A transformer that says `answer` after any prompt of that length: attention and feed-forward add nothing, and
    each position's embedding points at the token that is to follow it."""
    model = Transformer(
        ModelConfig(1, CONTEXT, 1, "mqa", context=CONTEXT, vocab_size=padded_vocabulary(tokenizer.vocab_size))
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.fill_(1.0 if name.endswith(("ln_1.weight", "ln_2.weight", "ln_f.weight")) else 0.0)
        model.transformer.wpe.weight.copy_(torch.eye(CONTEXT))
        for i, token in enumerate(answer):
            model.transformer.wte.weight[token, len(prompt) - 1 + i] = 1e-3
    return model


def task(prefix: str, middle: str, suffix: str = "\n") -> Task:
    return Task("a", "python", 1 + prefix.count("\n"), prefix, middle, suffix)


def complete(tokenizer: Tokenizer, asked: Task, answer: list[int], prompt: PromptFormat = "psm") -> Result:
    ids = make_prompt(tokenizer, asked, prompt, context=CONTEXT, new_tokens=NEW_TOKENS)
    (result,) = run(parrot(tokenizer, ids, answer), tokenizer, [asked], prompt, new_tokens=NEW_TOKENS)
    return result


@pytest.mark.parametrize("prompt", ["psm", "spm", "left-to-right"])
def test_a_completion_is_judged_on_its_line_alone(tokenizer: Tokenizer, prompt: PromptFormat) -> None:
    asked = task("if x:\n   ", " return x", "\ny = 1\n")
    end, newline = tokenizer.specials.end_of_text, tokenizer.encode("\n")
    right, other = tokenizer.encode(" return x"), tokenizer.encode("y = 2")
    cases = [
        ([*right, end], " return x", True, False),
        ([*right, *newline, *other, end], " return x", True, False),
        ([*tokenizer.encode("  return x \t"), end], "  return x \t", True, False),  # white space around does not count
        ([*tokenizer.encode(" return  x"), end], " return  x", False, False),  # white space inside does
        ([*right, *right, end], " return x return x", False, False),
        ([end, *right], "", False, False),
        ([*newline, *right, end], "", False, False),  # a line break at once is an empty line
        ([*right[:-1], tokenizer.specials.fim_pad], tokenizer.decode(right[:-1]), False, False),
        (tokenizer.encode("x" * 1) * NEW_TOKENS, "x" * NEW_TOKENS, False, True),
    ]
    for answer, completion, exact, unfinished in cases:
        found = complete(tokenizer, asked, answer, prompt)
        assert (found.completion, found.exact, found.unfinished) == (completion, exact, unfinished)
        assert found.task is asked
        assert not found.shortened


def test_bytes_that_are_no_text_are_shown_as_such(tokenizer: Tokenizer) -> None:
    half = tokenizer.token_bytes.index(b"\xc3")
    found = complete(tokenizer, task("", "é"), [half, tokenizer.specials.end_of_text])
    assert (found.completion, found.exact) == ("\ufffd", False)


@pytest.mark.parametrize("context", [96, 256])
def test_prompts_of_long_files_are_those_of_the_whole_file(
    files: list[tuple[str, str, str]], tokenizer: Tokenizer, context: int
) -> None:
    """Only the part of a file near the cursor is encoded; the ids must not show it."""
    texts = {name: text for name, _, text in files}
    border_found = 0
    for asked in make_tasks(files, 20):
        for mode in ("psm", "spm"):
            expected = infilling_prompt(
                tokenizer, asked.prefix, asked.suffix, mode=mode, context=context, new_tokens=NEW_TOKENS
            )
            assert make_prompt(tokenizer, asked, mode, context=context, new_tokens=NEW_TOKENS) == expected
        found = make_prompt(tokenizer, asked, "left-to-right", context=context, new_tokens=NEW_TOKENS)
        assert len(found) <= context - NEW_TOKENS
        running, border = tokenizer.encode(texts[asked.document]), len(asked.prefix.encode())
        count = length = 0
        while length < border:
            length += len(tokenizer.token_bytes[running[count]])
            count += 1
        if length == border:
            border_found += 1
            assert found == [tokenizer.specials.end_of_text, *running[:count]][-(context - NEW_TOKENS) :]
    assert border_found >= 18  # all but lines that begin with a digit


def test_blank_lines_before_the_cursor_stay_as_in_running_text(tokenizer: Tokenizer) -> None:
    asked = task("import os\n\n", "import sys")
    expected = [tokenizer.specials.end_of_text, *tokenizer.encode("import os\n\nimport sys")]
    found = make_prompt(tokenizer, asked, "left-to-right", context=CONTEXT, new_tokens=NEW_TOKENS)
    assert found == expected[: len(found)]
    assert found[1:] != tokenizer.encode(asked.prefix)  # encoded apart, the line breaks fall together


def test_a_prompt_at_the_start_of_a_file_and_before_a_digit(tokenizer: Tokenizer) -> None:
    end = tokenizer.specials.end_of_text
    assert make_prompt(tokenizer, task("", "x = 1"), "left-to-right", context=CONTEXT, new_tokens=NEW_TOKENS) == [end]
    digit = make_prompt(tokenizer, task("x = [\n   ", " 1,"), "left-to-right", context=CONTEXT, new_tokens=NEW_TOKENS)
    assert digit == [end, *tokenizer.encode("x = [\n   ")]


def test_files_longer_than_the_context_are_counted(files: list[tuple[str, str, str]], tokenizer: Tokenizer) -> None:
    short, long = task("x = 1\n", "y = 2"), task(files[0][2] + "\n", "y = 2")
    both = [short, long, short]
    for prompt in ("psm", "spm", "left-to-right"):
        results = run(parrot(tokenizer, [0], []), tokenizer, both, prompt, new_tokens=NEW_TOKENS)  # type: ignore[arg-type]
        assert [result.shortened for result in results] == [False, True, False]
        assert [result.task for result in results] == both  # in the order asked, whichever ended first
    ending = task("x = 1\n", "y = 2", "\n" + files[0][2])
    assert run(parrot(tokenizer, [0], []), tokenizer, [ending], "psm", new_tokens=NEW_TOKENS)[0].shortened
    assert not run(parrot(tokenizer, [0], []), tokenizer, [ending], "left-to-right", new_tokens=NEW_TOKENS)[0].shortened


def test_a_context_without_room_is_refused(tokenizer: Tokenizer) -> None:
    for prompt in ("psm", "left-to-right"):
        with pytest.raises(UserError, match="no room for a prompt"):
            make_prompt(tokenizer, task("a\n", "b"), prompt, context=CONTEXT, new_tokens=CONTEXT)  # type: ignore[arg-type]
    assert run(parrot(tokenizer, [0], []), tokenizer, [], "psm") == []


def test_examples_show_both_kinds() -> None:
    results = [Result(task(str(i), "x"), "x", i % 4 == 0, False, False) for i in range(12)]  # 3 right, 9 wrong
    assert [r.exact for r in examples(results, 4)] == [True, True, False, False]
    assert [r.exact for r in examples(results, 10)] == [True] * 3 + [False] * 7
    assert len(examples(results, 100)) == 12
    assert [r.exact for r in examples(results[:1] * 5, 3)] == [True] * 3
    assert examples([], 3) == []
