"""Fill the generated parts of README.md and docs/commands.md, so that they cannot drift from the code.

    python docs/build.py           write them
    python docs/build.py --check   exit with 1 and name the stale files, if any (a test runs this)

A generated part stands between `<!-- [name] -->` and `<!-- [end] -->`. Rooms are told by the first line of each
package's docstring, recipes by their file, commands by their own `--help`.
"""

from __future__ import annotations

import ast
import re
import sys
from importlib import resources
from pathlib import Path

from typer.testing import CliRunner

from kringle.cli import app

ROOT = Path(__file__).resolve().parent.parent
PART = re.compile(r"(<!-- \[(?!end)([^\]]+)\] -->\n)(.*?)(<!-- \[end\] -->)", re.DOTALL)
HELP_WIDTH = "100"


def recipe(name: str) -> str:
    """A shipped recipe as it is."""
    text = (resources.files("kringle.recipes") / f"{name}.yaml").read_text(encoding="utf-8")
    return f"```yaml\n{text}```\n"


def rooms() -> str:
    """Every package and module at the top of `kringle`, with the first sentence of its docstring."""
    lines = []
    for place in sorted((ROOT / "kringle").iterdir()):
        file = place / "__init__.py" if place.is_dir() else place
        if file.suffix != ".py" or not file.exists() or place.name in ("__init__.py", "__main__.py"):
            continue
        said = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
        first = said.split("\n\n")[0].replace("\n", " ")
        assert first, f"{file} has no docstring"
        name = f"{place.name}/" if place.is_dir() else place.name
        lines.append(f"| `kringle/{name}` | {first} |")
    return "| room | what happens there |\n|---|---|\n" + "\n".join(lines) + "\n"


def commands() -> list[str]:
    """Names of all commands, in the order of `kringle --help`."""
    return [info.name or info.callback.__name__ for info in app.registered_commands if info.callback is not None]


def help_of(name: str) -> str:
    """What `kringle NAME --help` prints."""
    arguments = [*([name] if name else []), "--help"]
    shown = CliRunner().invoke(app, arguments, env={"COLUMNS": HELP_WIDTH, "TERM": "dumb"}, prog_name="kringle")
    assert shown.exit_code == 0, shown.output
    return "\n".join(line.rstrip() for line in shown.output.strip().splitlines())


def all_help() -> str:
    """The help of every command."""
    parts = [f"## kringle\n\n```\n{help_of('')}\n```\n"]
    parts += [f"## kringle {name}\n\n```\n{help_of(name)}\n```\n" for name in commands()]
    return "\n".join(parts)


def filled(text: str) -> str:
    """`text` with every generated part made anew."""

    def part(match: re.Match[str]) -> str:
        kind, _, argument = match[2].partition(" ")
        made = {"recipe": lambda: recipe(argument), "rooms": rooms, "help": all_help}[kind]()
        return f"{match[1]}{made}{match[4]}"

    return PART.sub(part, text)


def main() -> int:
    stale = []
    for file in (ROOT / "README.md", ROOT / "docs" / "commands.md"):
        old = file.read_text(encoding="utf-8")
        new = filled(old)
        if new != old:
            stale.append(str(file.relative_to(ROOT)))
            if "--check" not in sys.argv:
                file.write_text(new, encoding="utf-8")
    if stale and "--check" in sys.argv:
        print(f"stale: {', '.join(stale)}; run python docs/build.py")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
