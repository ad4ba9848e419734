"""One sample's text, from the bytes of its tokens to what may be shown.

Held back until more is known: half a character, and an end that may turn out to repeat the suffix. **Dropped at the
end**: half a character; and the longest end of the completion that is also a beginning of the suffix, if it has eight
characters or more besides white space, or any such character where the model did not end the text itself (a stop
string, the limit): what a model that ended its text wrote before the suffix is taken to be meant. With `least_indent`,
the text ends before the first line that is indented by less.
"""

from __future__ import annotations

LONGEST_OVERLAP = 4096  # bytes of the suffix that are looked at
LEAST_OVERLAP = 8  # characters besides white space that are no accident
_LENGTHS = ((0xF0, 4), (0xE0, 3), (0xC0, 2))


def whole_characters(raw: bytes) -> int:
    """How many bytes of `raw` are left without the beginning of a character at its end."""
    for back in range(1, min(3, len(raw)) + 1):
        byte = raw[-back]
        if byte & 0xC0 == 0x80:
            continue
        needed = next((length for lead, length in _LENGTHS if byte >= lead), 1)
        return len(raw) - back if needed > back else len(raw)
    return len(raw)


class Writer:
    """Text of one sample. `feed` and `finish` return what may be shown; `shown` counts its bytes so far."""

    def __init__(self, suffix: str = "", least_indent: int = 0) -> None:
        self.raw = bytearray()
        self.shown = 0
        self.cut = False  # whether the text has ended here, whatever else the model writes
        self._suffix = suffix.encode()[:LONGEST_OVERLAP]
        self._least_indent = least_indent
        self._lines = 0  # where the newest line that has not been judged begins

    def feed(self, raw: bytes) -> str:
        if self.cut:
            return ""
        self.raw += raw
        border = len(self.raw)
        if self._least_indent:
            border = min(border, self._judge_indent())
        border = min(border, self._overlap_start(border), whole_characters(bytes(self.raw)))
        return self._show(border)

    def finish(self, *, by_model: bool) -> str:
        """The rest; `by_model`, whether the model itself ended the text."""
        border = len(self.raw)
        overlap = self._overlap_start(border)
        blank = b" \t\r\n\f\v"
        solid = len(bytes(self.raw[overlap:]).translate(None, blank).decode("utf-8", "ignore"))
        if solid >= LEAST_OVERLAP or (solid and not by_model):
            border = overlap
        text = self._show(whole_characters(bytes(self.raw[:border])))
        self.cut = True
        return text

    def _show(self, border: int) -> str:
        text = bytes(self.raw[self.shown : border]).decode("utf-8", "replace") if border > self.shown else ""
        self.shown = max(self.shown, border)
        return text

    def _overlap_start(self, end: int) -> int:
        """Where the longest end of what is not shown begins that the suffix begins with."""
        if not self._suffix:
            return end
        at = max(self.shown, end - len(self._suffix))
        held = bytes(self.raw[:end])
        while at < end:
            at = held.find(self._suffix[:1], at)
            if at < 0:
                return end
            if self._suffix.startswith(held[at:]):
                return at
            at += 1
        return end

    def _judge_indent(self) -> int:
        """Cut at the first line that is indented too little; where a line that cannot be judged yet begins."""
        while True:
            newline = self.raw.find(b"\n", self._lines)
            if newline < 0:
                return len(self.raw)
            line = newline + 1
            at = line
            while at < len(self.raw) and self.raw[at] in b" \t":
                at += 1
            if at - line >= self._least_indent or (at < len(self.raw) and self.raw[at] in b"\r\n"):
                self._lines = line
                continue
            if at == len(self.raw):
                return newline
            del self.raw[newline:]
            self.cut = True
            return newline
