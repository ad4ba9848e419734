"""One peer's comment-to-code ratio, timed: `python comments_peer.py NAME SAMPLE [CHECKOUT]`. As `minhash_peer.py`."""

import json
import sys
import time
import warnings
from pathlib import Path


def bigcode(checkout):
    """tokenize and ast for Python, pygments for the others, as SantaCoder's filter called them."""
    sys.path.insert(0, str(Path(checkout) / "preprocessing/utils"))
    from text_extraction import get_nl_ratio

    return get_nl_ratio


def pygments(_):
    from pygments.lexers import get_lexer_by_name
    from pygments.token import Comment

    def ratio(text, language):
        tokens = get_lexer_by_name(language).get_tokens(text)
        return sum(len(t) for kind, t in tokens if kind in (Comment.Single, Comment.Multiline)) / len(text)

    return ratio


def tree_sitter(_):
    import tree_sitter_java
    import tree_sitter_javascript
    import tree_sitter_python
    from tree_sitter import Language, Parser, Query, QueryCursor

    tools = {}
    for name, module, pattern in (
        ("python", tree_sitter_python, "(comment) @c (expression_statement . (string) @c)"),
        ("java", tree_sitter_java, "(line_comment) @c (block_comment) @c"),
        ("javascript", tree_sitter_javascript, "(comment) @c"),
    ):
        language = Language(module.language())
        tools[name] = Parser(language), Query(language, pattern)

    def ratio(text, language):
        parser, query = tools[language]
        data = text.encode()
        found = QueryCursor(query).captures(parser.parse(data).root_node).get("c", [])
        return sum(node.end_byte - node.start_byte for node in found) / len(data)

    return ratio


def main():
    name, sample = sys.argv[1:3]
    warnings.simplefilter("ignore")
    rows = [json.loads(line) for line in Path(sample).read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if row["content"]]
    ratio = globals()[name.replace("-", "_")](sys.argv[3] if len(sys.argv) > 3 else None)
    ratio(rows[0]["content"], rows[0]["language"])
    started = time.process_time()
    for row in rows:
        ratio(row["content"], row["language"])
    print(json.dumps({"rate": sum(len(r["content"].encode()) for r in rows) / 1e6 / (time.process_time() - started)}))


if __name__ == "__main__":
    main()
