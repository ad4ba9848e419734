"""The report's sections on where things come from: the data, the limits of the run, and how it was made."""

from __future__ import annotations

from collections.abc import Sequence

from kringle.study import figures, filter_section, tables, units
from kringle.study.markup import Markup, tag
from kringle.study.page import Part, Section, bullets, heading, notice, paragraph, present, reproduce
from kringle.study.results import HeldOut, Results, Share
from kringle.study.tables import Column, Table


def facts(pairs: Sequence[tuple[str, str]], class_: str = "facts") -> Markup:
    """Names and values, side by side."""
    return tag("dl", *(tag("div", tag("dt", name), tag("dd", value)) for name, value in pairs), class_=class_)


# -- data --------------------------------------------------------------------------------------------------------------


def _shares_table(key: str, title: str, shares: Sequence[Share]) -> Table:
    rows = [(tables.words(share.name), tables.count(share.files), tables.size(share.bytes)) for share in shares]
    columns = (Column(title, number=False), Column("Files"), Column("Size"))
    return Table(key, f"Files and bytes by {title.lower()}", columns, tables.with_bars(rows, 2))


def _funnel_table(results: Results) -> Table:
    rows = []
    for step in results.funnel:
        tokens = tables.missing() if step.tokens is None else tables.count(step.tokens)
        rows.append(
            (tables.words(step.name), tables.words("left"), tables.count(step.files), tables.size(step.bytes), tokens)
        )
        for drop in step.dropped:
            reason = tables.words(drop.reason, tag("span", f"dropped: {drop.reason}", class_="dropped"))
            rows.append(
                (
                    tables.words(step.name),
                    reason,
                    tables.count(drop.files),
                    tables.size(drop.bytes),
                    tables.missing(),
                )
            )
    columns = (
        Column("Step", number=False),
        Column("What", number=False, wide=True),
        Column("Files"),
        Column("Size"),
        Column("Tokens"),
    )
    return Table("funnel", "The data's way from disk to token store", columns, tuple(rows))


def _overlap_table(results: Results) -> Table:
    """Of what one filter keeps (row), the share of bytes that another keeps too (column)."""
    names = list(dict.fromkeys(overlap.arm for overlap in results.overlaps))
    both = {(o.arm, o.other): o for o in results.overlaps} | {(o.other, o.arm): o for o in results.overlaps}
    rows = tuple(
        (
            tables.words(name),
            tables.count(both[name, name].files),
            tables.size(both[name, name].bytes),
            *(tables.decimal(100 * both[name, other].bytes / max(1, both[name, name].bytes), 1) for other in names),
        )
        for name in names
    )
    columns = (
        Column("Filter", number=False),
        Column("Files kept"),
        Column("Size kept"),
        *(Column(f"% also kept by {name}") for name in names),
    )
    return Table("overlap", "What the filters keep, and what they keep in common", columns, rows)


def _tokenizer_table(results: Results) -> Table:
    rows = [
        (tables.words(language), tables.decimal(value, 2))
        for language, value in results.tokenizer.bytes_per_token.items()
    ]
    columns = (Column("Language", number=False), Column("Bytes per token"))
    return Table("tokenizer", "How much text a token holds", columns, tables.with_bars(rows, 1))


def _corpus_parts(results: Results) -> tuple[Part, ...]:
    corpus = results.corpus
    absent = corpus.languages_without_data
    return present(
        heading("What was collected"),
        bullets(corpus.notes) if corpus.notes else None,
        notice(f"Languages without data on this machine: {', '.join(absent)}.") if absent else None,
        (
            _shares_table("languages", "Language", corpus.languages),
            _shares_table("licenses", "Licence", corpus.licenses),
        ),
        _shares_table("sources", "Source", corpus.sources),
        facts([("Fingerprint of the corpus", corpus.fingerprint)], "facts fingerprints"),
        reproduce(results, "corpus"),
    )


def _seen(held_out: HeldOut) -> list[tuple[str, str]]:
    share = held_out.grams_seen_in_training
    return (
        []
        if share is None
        else [("Their 5-grams that occur anywhere in training (one in 32 looked for)", f"{share:.1%}")]
    )


def data(results: Results) -> Section:
    held_out, tokenizer = results.held_out, results.tokenizer
    return Section(
        "data",
        "Data",
        present(
            *_corpus_parts(results),
            heading("The funnel"),
            figures.funnel(results),
            _funnel_table(results) if results.funnel else notice("No steps were counted."),
            _overlap_table(results) if results.overlaps else None,
            *filter_section.parts(results),
            reproduce(results, "funnel"),
            heading("Held-out code"),
            paragraph(
                f"Split by {held_out.split_by}. Candidates that lie byte for byte in the training pool, or with half "
                "or more of their 5-grams in one of its files, were dropped, and so were those too short to tell."
            ),
            facts(
                [
                    ("Files", units.count(held_out.files)),
                    ("Size", units.size(held_out.bytes)),
                    ("Exact copies dropped", units.count(held_out.exact_copies_dropped)),
                    ("Near copies dropped", units.count(held_out.near_copies_dropped)),
                    ("Too short to tell from a copy, dropped", units.count(held_out.too_short_dropped)),
                    ("Training files that lie in a held-out place too", units.count(held_out.exact_copies_folded)),
                    *_seen(held_out),
                ]
            ),
            reproduce(results, "held-out"),
            heading("Tokenizer"),
            facts(
                [
                    ("Entries, specials and padding included", units.count(tokenizer.vocab_size)),
                    ("Fingerprint", tokenizer.fingerprint),
                ]
            ),
            _tokenizer_table(results),
            reproduce(results, "tokenizer"),
        ),
    )


# -- limits and making -------------------------------------------------------------------------------------------------


def limitations(results: Results) -> Section:
    body = bullets(results.limitations, "limits") if results.limitations else notice("No limits were stated.")
    return Section("limits", "What this run cannot tell", (body,))


def _stages_table(results: Results) -> Table:
    rows = [
        (
            tables.words(stage.name),
            tables.duration(stage.wall_seconds),
            tables.duration(stage.cpu_seconds),
            tables.size(stage.peak_memory_bytes),
            tables.words("cached" if stage.cached else "computed"),
            tables.code(stage.command),
        )
        for stage in results.stages
    ]
    columns = (
        Column("Stage", number=False),
        Column("Time"),
        Column("CPU time"),
        Column("Peak memory"),
        Column("This run", number=False),
        Column("Command", number=False, wide=True),
    )
    return Table("stages", "Time and memory of each stage", columns, tables.with_bars(rows, 1))


def _commands_table(results: Results) -> Table:
    rows = [(tables.words(c.makes), tables.code(c.command)) for c in results.commands]
    rows += [(tables.words(figures.arm_label(results, arm)), tables.code(arm.command)) for arm in results.arms]
    columns = (Column("Number", number=False), Column("Command", number=False, wide=True))
    return Table("commands", "The command behind every number", columns, tuple(rows))


def making(results: Results) -> Section:
    machine = results.machine
    return Section(
        "making",
        "How it was made",
        present(
            heading("Recipe"),
            facts([("Recipe", results.recipe.name), ("Fingerprint", results.recipe.fingerprint)], "facts fingerprints"),
            tag(
                "pre",
                tag("code", results.recipe.text),
                class_="recipe",
                tabindex="0",
                role="region",
                aria_label="Recipe",
            ),
            heading("Machine and versions"),
            facts(
                [
                    ("Processor", machine.cpu),
                    ("Cores", units.count(machine.cores)),
                    ("Memory", units.size(machine.memory_bytes)),
                    ("System", machine.system),
                    ("Python", machine.python),
                    ("PyTorch", machine.torch),
                    ("Kringle", results.kringle_version),
                    *results.versions.items(),
                ]
            ),
            heading("Stages"),
            _stages_table(results) if results.stages else notice("No stages were recorded."),
            heading("Commands"),
            facts([("This report", results.command_line)], "facts fingerprints"),
            _commands_table(results),
        ),
    )
