"""Recipes: what is understood is exact, what is not is refused with its path and what to do."""

from __future__ import annotations

import pytest

from kringle.errors import UserError
from kringle.quantities import parse_bytes, parse_count, parse_fraction
from kringle.recipe import load_recipe, parse_recipe, shipped
from kringle.settings import plain

MINIMAL = """
name: small
corpus: {sources: [{installed: {}}]}
tokenizer: {vocab_size: 512}
model: {layers: 1, width: 32, heads: 2, context: 64}
training: {tokens: 1k, batch_tokens: 128}
ablations:
  fim: {}
  mha: {model: {attention: mha}}
"""


@pytest.mark.parametrize("name", shipped())
def test_every_shipped_recipe_parses(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.base is recipe.arms[0]


def test_laptop_is_the_study_that_the_design_asks_for() -> None:
    recipe = load_recipe("laptop")
    arms = {arm.name: arm for arm in recipe.arms}
    filters = ["stars", "comments", "near-dedup", "fertility"]
    assert list(arms) == ["fim", "fim-2x", "mha", "no-fim", *filters, "final"]
    assert arms["fim"].training.fim.rate == 0.5
    assert arms["no-fim"].training.fim.rate == 0
    assert (arms["fim"].model.attention, arms["mha"].model.attention) == ("mqa", "mha")
    comments = arms["comments"].filter.comments
    assert comments is not None
    assert (comments.above, comments.below) == (0.01, 0.80)
    assert arms["fim"].training.steps == 439
    assert recipe.corpus.max_bytes == 60_000_000


def test_arms_share_everything_but_their_difference() -> None:
    recipe = parse_recipe(MINIMAL)
    fim, mha = (plain(arm) for arm in recipe.arms)
    assert mha["model"].pop("attention") == "mha"
    assert fim["model"].pop("attention") == "mqa"
    for arm in (fim, mha):
        del arm["name"], arm["difference"]
    assert fim == mha


@pytest.mark.parametrize(
    ("text", "value"), [("60MB", 60_000_000), ("1 GiB", 2**30), (512, 512), ("1.5kb", 1500), ("2e3", 2000)]
)
def test_sizes(text: object, value: int) -> None:
    assert parse_bytes(text, "x") == value


def test_counts_and_shares() -> None:
    assert parse_count("1M", "x") == 10**6
    assert parse_count("2.5k", "x") == 2500
    assert parse_fraction("5%", "x") == 0.05
    assert parse_fraction(0.25, "x") == 0.25


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("tokens: 1k", "tokens: -1k", "training.tokens: expected a count"),
        ("tokens: 1k", "tokens: 0", "training.tokens: must be at least 1"),
        ("tokens: 1k", "tokens: true", "training.tokens: expected a count"),
        ("tokens: 1k", "tokens: 1parsec", "training.tokens: expected a count"),
        ("tokens: 1k", "tokens: 0.5", "training.tokens: expected a whole number"),
        ("tokens: 1k", "token: 1k", "training: unknown key 'token'; did you mean tokens?"),
        ("heads: 2", "heads: 3", "model: width 32 is not divisible by 3 heads"),
        ("batch_tokens: 128", "batch_tokens: 100", "training.batch_tokens: batch_tokens 100 is not a multiple"),
        ("batch_tokens: 128", "batch_tokens: 128, learning_rate: fast", "training.learning_rate: expected a number"),
        ("batch_tokens: 128", "batch_tokens: 128, learning_rate: -1", "training.learning_rate: must be above 0"),
        ("batch_tokens: 128", "batch_tokens: 128, learning_rate: .nan", "training.learning_rate: expected a finite"),
        ("batch_tokens: 128", "batch_tokens: 128, fim: {rate: 2}", "training.fim.rate: expected a share"),
        ("batch_tokens: 128", "batch_tokens: 128, schedule: linear", "training.schedule: expected cosine or constant"),
        ("batch_tokens: 128", "batch_tokens: 128, seeds: [0, 0]", "training.seeds: the same seed twice"),
        ("{installed: {}}", "{instaled: {}}", "corpus.sources[0]: unknown source 'instaled'; did you mean installed?"),
        ("{installed: {}}", "{folder: 3}", "corpus.sources[0].folder: expected a path"),
        ("{installed: {}}]}", "{installed: {}}], languages: [cobol]}", "corpus.languages: unknown language 'cobol'"),
        ("fim: {}", "fim: {model: {attention: mha}}", "ablations.fim: the first ablation is the base"),
        ("attention: mha", "attention: gqa", "ablations.mha.model.attention: expected mqa or mha"),
        ("attention: mha", "atention: mha", "ablations.mha.model: unknown key 'atention'; did you mean attention?"),
        ("mha: {model", "mha: {modle", "ablations.mha: unknown key 'modle'; did you mean model?"),
        ("mha: {model", "'../x': {model", "ablations: expected letters"),
        ("name: small", "name: ../small", "name: expected letters"),
        ("name: small", "name: small\nfidelity: exact", "fidelity: expected faithful or corrected"),
        ("attention: mha}", "attention: mha}, filter: {stars: {}}", "filter.stars: expected one of at_least, above"),
        ("attention: mha}", "attention: mha}, filter: {stars: {at_least: -5}}", "at_least: expected a count"),
        ("attention: mha}", "attention: mha}, filter: {fertility: {}}", "filter.fertility: expected a percentile"),
        ("attention: mha}", "attention: mha}, filter: {fertility: {percentile: 100}}", "must be below 100"),
        ("attention: mha}", "attention: mha}, filter: {near_dedup: {ngram: 5}}", "the key 'threshold' is missing"),
        ("name: small", "name: small\nseed: 1", "recipe: unknown key 'seed'"),
        ("name: small\n", "", "recipe: the key 'name' is missing"),
        ("name: small", "name: [", "not valid YAML"),
        ("name: small", "name: 2024-13-01", "recipe, line 2: not valid YAML: '2024-13-01' is no timestamp"),
        ("{installed: {}}]}", "{installed: {}}], leave_out: [[vendored]]}", "corpus.leave_out: expected a list out of"),
    ],
)
def test_refusals_are_one_line_with_path_and_remedy(old: str, new: str, message: str) -> None:
    assert old in MINIMAL
    with pytest.raises(UserError) as error:
        parse_recipe(MINIMAL.replace(old, new))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_unknown_recipe_and_unreadable_file(tmp_path: object) -> None:
    with pytest.raises(UserError, match="unknown recipe 'laptob'; did you mean laptop"):
        load_recipe("laptob")
    with pytest.raises(UserError, match="cannot be read: No such file"):
        load_recipe(f"{tmp_path}/none.yaml")
