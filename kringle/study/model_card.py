"""The model card of one released model: what it is and is not, how to use it, what is known about it.

Markdown with YAML metadata in front, as the Hugging Face Hub reads it. Every number comes from the study's results;
nothing is rounded twice. The usage examples run as they stand when pasted in the folder that holds the model's folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import yaml

from kringle.study.results import Arm, Estimate, Results

License = Literal["openrail-m", "apache-2.0"]
# The Hub's identifier and the name that people know; OpenRAIL-M's text is BigCode's, and is linked to, not copied.
LICENSES: Mapping[License, tuple[str, str, str]] = {
    "openrail-m": (
        "bigcode-openrail-m",
        "BigCode OpenRAIL-M v1",
        "https://huggingface.co/spaces/bigcode/bigcode-model-license-agreement",
    ),
    "apache-2.0": ("apache-2.0", "Apache License 2.0", "https://www.apache.org/licenses/LICENSE-2.0"),
}
LANGUAGES = {"python": "Python", "java": "Java", "javascript": "JavaScript"}


@dataclass(frozen=True)
class Facts:
    """What a card needs beside the results: the model's name on the Hub, the licence, its shape, its hashes, the five
    special tokens as its tokenizer spells them, in the order of `kringle.tokens.tokenizer.SPECIAL_TOKENS`, and whether
    it was trained to fill in, by the study or by whoever trained what the study began with."""

    repository: str
    license: License
    config: Mapping[str, Any]
    hashes: Mapping[str, str]  # file name -> SHA-256
    specials: tuple[str, ...]
    fills_in: bool


def measurements(arm: Arm) -> list[dict[str, Any]]:
    """Every measurement of an arm: task, dataset, metric, value and its interval."""
    found: list[dict[str, Any]] = []

    def add(task: str, dataset: str, metric: str, estimate: Estimate, note: str) -> None:
        found.append(
            {
                "task": task,
                "dataset": dataset,
                "metric": metric,
                "value": estimate.value,
                "low": estimate.low,
                "high": estimate.high,
                "level": estimate.level,
                "method": estimate.method,
                "note": note,
            }
        )

    if arm.bits_per_byte is not None:
        bits = arm.bits_per_byte
        note = f"{bits.files} held-out files, {bits.bytes:,} bytes; lower is better"
        add("text-generation", "held-out code", "bits per byte", bits.total, note)
        for language, estimate in bits.languages.items():
            add(
                "text-generation", f"held-out code, {_language(language)}", "bits per byte", estimate, "lower is better"
            )
    if arm.infilling is not None and arm.infilling.total is not None:
        score = arm.infilling.total
        note = f"{score.n} held-out lines, prompt format {arm.infilling.prompt_format}"
        add("text-generation", "held-out lines", "exact match", score.exact_match, note)
    for suite in arm.suites:
        for entry in suite.pass_at:
            note = f"{suite.problems} problems, {suite.samples} samples each, {suite.sampler}"
            note += f", prompts {suite.prompts[:12]}"
            add("text-generation", suite.suite, f"pass@{entry.k}", entry.estimate, note)
    return found


def _language(name: str) -> str:
    return LANGUAGES.get(name, name)


def eval_results(results: Results, arm: Arm) -> str:
    """`eval_results.yaml`: one entry a measurement, in the Hub's form, the interval in words as its note."""
    entries = [
        {
            "dataset": {"id": m["dataset"], "task_id": m["metric"]},
            "value": m["value"],
            "date": results.created,
            "notes": f"{m['level']:.0%} interval {m['low']:.6g} to {m['high']:.6g} ({m['method']}); {m['note']}",
        }
        for m in measurements(arm)
    ]
    return yaml.safe_dump(entries, sort_keys=False, allow_unicode=True)


def metadata(results: Results, arm: Arm, facts: Facts) -> dict[str, Any]:
    """The card's YAML: licence, tags and the model-index."""
    identifier, _, link = LICENSES[facts.license]
    by_dataset: dict[str, list[dict[str, Any]]] = {}
    for m in measurements(arm):
        by_dataset.setdefault(m["dataset"], []).append(m)
    index = [
        {
            "task": {"type": entries[0]["task"]},
            "dataset": {"type": dataset.split(",")[0].replace(" ", "-"), "name": dataset},
            "metrics": [
                {
                    "type": m["metric"].replace(" ", "_"),
                    "name": f"{m['metric']} ({m['level']:.0%} interval {m['low']:.4g} to {m['high']:.4g})",
                    "value": m["value"],
                    "verified": False,
                }
                for m in entries
            ],
        }
        for dataset, entries in by_dataset.items()
    ]
    name = facts.repository.rsplit("/", 1)[-1]
    return {
        "license": identifier,
        **({"license_link": link} if facts.license == "openrail-m" else {}),
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["code", "gpt_bigcode", *(["fill-in-the-middle"] if facts.fills_in else [])],
        **({"model-index": [{"name": name, "results": index}]} if index else {}),
    }


def model_card(results: Results, arm: Arm, facts: Facts) -> str:
    """`README.md`."""
    front = yaml.safe_dump(metadata(results, arm, facts), sort_keys=False, allow_unicode=True, width=1000)
    parts = [
        f"# {facts.repository.rsplit('/', 1)[-1]}",
        _what(results, arm, facts),
        _use(results, arm, facts),
        _limits(results),
        _training(results, arm, facts),
        _evaluation(results, arm),
        _license(results, arm, facts),
        _reproduce(results, arm, facts),
    ]
    return f"---\n{front}---\n\n" + "\n\n".join(part.strip() for part in parts) + "\n"


def _what(results: Results, arm: Arm, facts: Facts) -> str:
    c = facts.config
    attention = "multi-query" if c["multi_query"] else "multi-head"
    languages = ", ".join(_language(share.name) for share in results.corpus.languages if share.files)
    others = [f"`{other.name}`" for other in results.arms if other.name != arm.name and other.training is not None]
    base = "It is the base of the study." if arm.is_base else f"It differs from the base in one thing: {arm.summary}."
    family = f" The study's other models: {', '.join(dict.fromkeys(others))}." if others else ""
    assert arm.training is not None
    start = f"`{arm.training.init}` trained further" if arm.training.init else "trained from scratch"
    return f"""A code model of {arm.training.parameters:,} parameters, {start} on {languages} in the ablation study
*{results.study}*. {base}{family}

Decoder-only transformer (`gpt_bigcode`): {c["n_layer"]} layers, width {c["n_embd"]}, {c["n_head"]} heads, {attention}
attention, context of {c["n_positions"]:,} tokens, vocabulary of {c["vocab_size"]:,}. Weights are in fp32.

**What it is for**: continuing source code{", filling in a gap in it," if facts.fills_in else ""} and comparing
this ablation with the others. **What it is not**: it follows no instructions and holds no conversation. Ask as code
does, with a signature or a comment, not with a sentence that says what you want."""


def _use(results: Results, arm: Arm, facts: Facts) -> str:
    text = f"""## Use

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

checkpoint = "{facts.repository}"
tokenizer = AutoTokenizer.from_pretrained(checkpoint)
model = AutoModelForCausalLM.from_pretrained(checkpoint)

inputs = tokenizer("{facts.specials[0]}def print_hello():", return_tensors="pt", return_token_type_ids=False)
outputs = model.generate(**inputs, max_new_tokens=24, do_sample=False)
print(tokenizer.decode(outputs[0]))
```

A file begins after `{facts.specials[0]}`, as in training. End a prompt at the end of a word or line, without white
space."""
    if not facts.fills_in:
        return text + "\n\nThis model was not trained to fill in: it has no use for the fill-in-the-middle tokens."
    end, before, middle, after, _ = facts.specials
    spelling = (
        "underscores, as in StarCoder (SantaCoder has hyphens)"
        if "_" in before
        else "hyphens, as in SantaCoder (StarCoder has underscores)"
    )
    return (
        text
        + f"""

### Fill in the middle

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

checkpoint = "{facts.repository}"
tokenizer = AutoTokenizer.from_pretrained(checkpoint)
model = AutoModelForCausalLM.from_pretrained(checkpoint)

prompt = "{before}def area(width, height):\\n    return{after}\\n\\nprint(area(2, 3))\\n{middle}"
inputs = tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
outputs = model.generate(**inputs, max_new_tokens=24, do_sample=False)
middle = outputs[0][inputs["input_ids"].shape[1] :].tolist()
end = tokenizer.convert_tokens_to_ids("{end}")
print(tokenizer.decode(middle[: middle.index(end)] if end in middle else middle))
```

The tokens are spelled with {spelling}. Cut at `{end}` before
decoding: `skip_special_tokens` would hide where the middle ends. Pad on the left for batches."""
    )


def _limits(results: Results) -> str:
    lines = "\n".join(f"- {limit}" for limit in results.limitations)
    return f"""## Limitations

The code it writes may be wrong, insecure, or a copy of code that it was trained on, which then comes with that code's
licence: look it up before use (`kringle serve MODEL --work DIR` answers from the index of the training data). It was
not evaluated for harmful or biased output. What the study cannot tell:

{lines}"""


def _training(results: Results, arm: Arm, facts: Facts) -> str:
    assert arm.training is not None
    t = arm.training
    sources = ", ".join(f"{share.name} ({share.files:,} files)" for share in results.corpus.sources)
    licenses = ", ".join(share.name for share in results.corpus.licenses[:8])
    funnel = results.funnel[-1] if results.funnel else None
    left = f" {funnel.files:,} files ({funnel.bytes:,} bytes) were left after cleaning." if funnel else ""
    return f"""## Training data

Sources: {sources}. Licences: {licenses}.{left} What was collected, dropped and why is in the study's report and in its
decision table (`kringle why FILE --work DIR`); corpus fingerprint `{results.corpus.fingerprint}`.

## Training

{t.tokens:,} tokens in {t.steps:,} steps ({t.epochs:.2f} epochs of {t.unique_tokens:,} unique tokens), {t.seconds:,.0f}
seconds on {results.machine.cpu} ({results.machine.cores} cores), {t.tokens_per_second:,.0f} tokens a second, seed
{arm.seed}. Fidelity to SantaCoder's recipe: {results.fidelity}."""


def _evaluation(results: Results, arm: Arm) -> str:
    measured = measurements(arm)
    rows = [
        f"| {m['dataset']} | {m['metric']} | {m['value']:.4g} | {m['low']:.4g} to {m['high']:.4g} | {m['note']} |"
        for m in measured
    ]
    level = " or ".join(dict.fromkeys(f"{m['level']:.0%}" for m in measured))  # a report has one
    skipped = [f"- {suite.suite}: {suite.not_run}" for suite in arm.suites if suite.not_run]
    if arm.infilling is not None and arm.infilling.not_run:
        skipped.append(f"- infilling: {arm.infilling.not_run}")
    verdicts = [
        f"- {c.measure}: {c.verdict} than `{c.base}`"
        if c.verdict in ("better", "worse")
        else f"- {c.measure}: {c.verdict}"
        for c in results.comparisons
        if c.arm == arm.name
    ]
    text = f"## Evaluation\n\n| on | measure | value | {level} interval | how |\n| --- | --- | --- | --- | --- |\n"
    text += "\n".join(rows) if rows else "| nothing was measured | | | | |"
    if skipped:
        text += "\n\nNot run:\n\n" + "\n".join(skipped)
    if verdicts:
        text += "\n\nAgainst the base:\n\n" + "\n".join(verdicts)
    return text


def _license(results: Results, arm: Arm, facts: Facts) -> str:
    _, name, link = LICENSES[facts.license]
    uses = (
        " It permits use, changes and redistribution, with use restrictions that must be passed on to whoever gets the "
        "model or a derivative."
        if facts.license == "openrail-m"
        else ""
    )
    init = arm.training.init if arm.training else None
    before = f" `{init}` has a licence and training data of its own, of which nothing is known here." if init else ""
    stamp = f"\n\n**{results.release_note}.** See `NOTICE`." if results.release_note else ""
    return f"""## Licence

[{name}]({link}).{uses} The licences of the training data are those listed above; attribution may be due for code
that the model repeats.{before}{stamp}"""


def _reproduce(results: Results, arm: Arm, facts: Facts) -> str:
    hashes = "\n".join(f"{digest}  {name}" for name, digest in sorted(facts.hashes.items()))
    versions = ", ".join(f"{name} {version}" for name, version in sorted(results.versions.items()))
    return f"""## Reproduce

```sh
{results.command_line}
{arm.command}
```

Recipe `{results.recipe.name}`, fingerprint `{results.recipe.fingerprint}`. {versions}.

SHA-256:

```
{hashes}
```"""
