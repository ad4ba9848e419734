"""Numbers as people read them: few digits, one unit, tabular.

Sizes are decimal as in recipes (1 KB is 1,000 bytes). Minus is U+2212, as wide as a plus. A share above
zero is never written as zero.
"""

from __future__ import annotations

MINUS = "\N{MINUS SIGN}"


def count(number: int) -> str:
    """1234567 -> 1,234,567."""
    return f"{number:,}".replace("-", MINUS)


def short_count(number: float) -> str:
    """Three digits with a suffix: 1048576 -> 1.05M."""
    for limit, suffix in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")):
        if number >= limit * 0.9995:
            return f"{_three_digits(number / limit)}{suffix}"
    return _three_digits(number)


def size(number: float) -> str:
    """Bytes with a unit: 61300000 -> 61.3 MB."""
    for limit, suffix in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "KB")):
        if number >= limit * 0.9995:
            return f"{_three_digits(number / limit)} {suffix}"
    return f"{_three_digits(number)} B"


def _three_digits(number: float) -> str:
    if number >= 99.95 or number == int(number):
        return f"{number:.0f}"
    return f"{number:.1f}" if number >= 9.995 else f"{number:.2f}"


def duration(seconds: float) -> str:
    """0.0123 -> 12 ms; 3.21 -> 3.2 s; 75 -> 1 min 15 s; 4000 -> 1 h 07 min."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms" if seconds >= 0.0095 or seconds == 0 else f"{seconds * 1000:.2g} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60:,} h {minutes % 60:02d} min"


def percent(share: float) -> str:
    """0.1234 -> 12.3%; a small nonzero share keeps its first digit: 0.0004 -> 0.04%."""
    hundred = abs(share) * 100
    decimals = 1 if hundred >= 0.05 or hundred == 0 else 2 if hundred >= 0.005 else 3
    body = f"{hundred:.{decimals}f}" if hundred >= 0.0005 or hundred == 0 else "<0.001"
    return f"{MINUS if share < 0 else ''}{body}%"


def bits(value: float) -> str:
    """Bits per byte, three decimals."""
    return f"{value:.3f}".replace("-", MINUS)


def signed(text: str) -> str:
    """A formatted number with a plus where it has no minus; a zero stays bare."""
    return text if text.startswith(MINUS) or not any(c in "123456789" for c in text) else f"+{text}"


def points(difference: float) -> str:
    """A difference of shares in percentage points: 0.0123 -> +1.2 pts."""
    return signed(percent(difference).removesuffix("%")) + " pts"


def bits_difference(difference: float) -> str:
    """A difference of bits per byte with its sign, four decimals: 0.0123 -> +0.0123."""
    body = f"{abs(difference):.4f}"
    return signed(f"{MINUS if difference < 0 and float(body) != 0 else ''}{body}")
