"""How a comparison writes its numbers: the same on a terminal, a page and in a paper."""

from __future__ import annotations

from seqrec.experiments.seeds import Spread

#: Measures that are not simply capitalised.
NAMES = {"ndcg": "NDCG", "mrr": "MRR", "map": "MAP"}
#: Where a number is not known.
NONE = "–"  # noqa: RUF001


def measure(metric: str) -> str:
    """`ndcg@10` as `NDCG@10`, `hit_rate@5` as `Hit rate@5`."""
    name, at, k = metric.partition("@")
    return NAMES.get(name, name.replace("_", " ").capitalize()) + at + k


def number(value: float, decimals: int = 4) -> str:
    """A share without its leading zero: `.0614`, `-.0030`, `1.0000`; zero has no sign."""
    text = f"{value:.{decimals}f}"
    if float(text) == 0:
        text = text.lstrip("-")
    return text.replace("0.", ".", 1) if text.lstrip("-").startswith("0.") else text


def spread(found: Spread | None, runs: int) -> str:
    """Mean, and the standard deviation where there are several runs to take it over."""
    if found is None:
        return NONE
    return number(found.mean) if runs < 2 else f"{number(found.mean)} ± {number(found.deviation)}"


def interval(low: float, high: float) -> str:
    """Both ends."""
    return f"{number(low)} to {number(high)}"


def p_number(p: float) -> str:
    """`< .001`, `.0412`, `.21` or `1`: enough digits to see on which side of .05 it is."""
    if p < 0.001:
        return "< .001"
    return "1" if p >= 0.995 else number(p, 4).rstrip("0") if p < 0.1 else number(p, 2)


def p_words(p: float) -> str:
    """In a sentence: `p .21 after Holm`."""
    return f"p {p_number(p)} after Holm"


def duration(seconds: float | None) -> str:
    """`3 ms`, `0.42 s`, `12.3 s`, `5 min 12 s`, `2 h 03 min`."""
    if seconds is None:
        return NONE
    if seconds < 0.0995:
        return "< 1 ms" if seconds < 0.0005 else f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.2f} s" if seconds < 9.995 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"


def count(value: float | None) -> str:
    """A whole number with its thousands apart."""
    return NONE if value is None else f"{value:,.0f}"


def short(key: str) -> str:
    """`model.max_length` as `max_length`."""
    return key.rpartition(".")[2]


def listed(names: list[str]) -> str:
    """`A`, `A and B`, `A, B and C`; apart by semicolons where a name has a comma itself."""
    if len(names) == 1:
        return names[0]
    return "; ".join(names) if any("," in name for name in names) else f"{', '.join(names[:-1])} and {names[-1]}"
