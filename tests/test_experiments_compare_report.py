"""What a comparison is shown as: sentences, tables and files, on comparisons that are made up."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from unicodedata import combining, east_asian_width

import pyarrow.parquet as pq
import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from seqrec.cli.compare import compare as compare_verb
from seqrec.cli.compare_show import show_comparison
from seqrec.errors import ConfigError, DataError
from seqrec.experiments.compare import figures, latex, markdown, notation, standing, svg, table, tables, words
from seqrec.experiments.compare.html import to_html
from seqrec.experiments.compare.write import FACTS, PAGES, read_comparison, write_report

PART = ("ml-100k", "leave-one-out")
NASTY = "<b>&_%$#{x}\\ ^~|`*[1]\" -- 'q' -.5"
UNICODE = "序列模型 é ± наш"
app = typer.Typer()
app.command("compare")(compare_verb)


def row(label: str, value: float, varied: dict[str, Any] | None = None, **changes: Any) -> table.Row:
    measures = {"ndcg@10": value, "recall@10": value * 1.9, "mrr@10": value * 0.7}
    made = table.Row(
        device="a machine",
        data=PART[0],
        split=PART[1],
        label=label,
        varied=varied or {},
        seeds=(42, 123, 2023),
        test={name: table.Spread(mean, 0.0011) for name, mean in measures.items()},
        validation={name: table.Spread(mean * 1.05, 0.0012) for name, mean in measures.items()},
        low=value - 0.006,
        high=value + 0.006,
        by_popularity={"head": value * 1.4, "mid": value * 0.8, "tail": value * 0.3},
        by_length={"1-9": value * 0.9, "200+": value * 1.1},
        seconds=30.0,
        seconds_per_epoch=1.5,
        epochs=20.0,
        parameters=345_678,
        peak_memory_mib=512.3,
        targets="ab" * 32,
    )
    return replace(made, **changes)


def judged(first: str, second: str, difference: float, p: float, why: str = "reference") -> table.Test:
    verdict: Any = "no difference shown" if p > 0.05 else "better" if difference > 0 else "worse"
    low, high = difference - 0.005, difference + 0.005
    numbers = (difference, low, high, p / 2, p / 3, p, difference * 10, 943, 9)
    return table.Test(*PART, why, first, second, *numbers, verdict)


def made(rows: list[table.Row], tests: list[table.Test] | None = None, **changes: Any) -> table.Comparison:
    protocols = {", ".join(PART): "ml-100k, 5-core, every item ranked"}
    facts = table.Comparison("A & B", "ndcg@10", 0.05, tuple(rows), tuple(tests or ()), (), protocols)
    return replace(facts, **changes)


def by_length(step: float, p: float, label: str = "SASRec") -> table.Comparison:
    rows = [
        row(label, 0.1 + step * place, {"model.max_length": length}, seconds_per_epoch=1.0 + place)
        for place, length in enumerate((32, 64, 128))
    ]
    name = f"{label}, max_length "
    return made(rows, [judged(name + "128", name + "32", 2 * step, p, "model.max_length")])


THREE = made(
    [row("xLSTM", 0.12), row("LSTM", 0.118), row("popularity", 0.03, seeds=(42,))],
    [judged("xLSTM", "LSTM", 0.002, 0.41), judged("xLSTM", "popularity", 0.09, 0.0003)],
)
MANY = made(
    [row(f"model {n // 3}", 0.01 + n * 0.001, {"a.b": n % 3}) for n in range(90)],
    [judged("model 29, b 2", f"model {n // 3}, b {n % 3}", 0.001 * (89 - n), 0.001) for n in range(89)],
)
ODD = made(
    [row(NASTY, 0.12), row(UNICODE, 0.11, {"a.x": "<i>"}), row(UNICODE, 0.10, {"a.x": "é|"})],
    [judged(NASTY, f"{UNICODE}, x <i>", 0.01, 0.2), judged(NASTY, f"{UNICODE}, x é|", 0.02, 0.01)],
    name=NASTY,
    failures=(f"{NASTY}: broke\non two lines",),
    protocols={},
)
BARE = made(
    [row("lists of others", 0.1, seeds=(), validation={}, seconds=None, seconds_per_epoch=None, epochs=None)],
    failures=("x: no",),
)
EMPTY = made([], failures=("everything: broke",))
ALL = {"three": THREE, "many": MANY, "odd": ODD, "bare": BARE, "empty": EMPTY, "varied": by_length(0.004, 0.01)}
ALL["no tests"] = made([row("a", 0.1), row("b", 0.2)])
ALL["no time"] = made([row("a", 0.1, seconds=0.0), row("b", 0.1, seconds=5e-5), row("c", 0.1, seconds=9e5)])
everything = pytest.mark.parametrize("facts", ALL.values(), ids=ALL)


def test_numbers_as_they_are_written() -> None:
    assert [notation.number(x) for x in (0.0614, -0.003, 1.0, -0.00001, 0.99999)] == [
        ".0614",
        "-.0030",
        "1.0000",
        ".0000",
        "1.0000",
    ]
    assert [notation.p_number(p) for p in (1e-5, 0.0012, 0.0496, 0.414, 1.0)] == [
        "< .001",
        ".0012",
        ".0496",
        ".41",
        "1",
    ]
    assert [notation.duration(x) for x in (None, 1e-5, 0.0042, 0.42, 12.34, 59.99, 312, 7380)] == [
        notation.NONE,
        "< 1 ms",
        "4 ms",
        "0.42 s",
        "12.3 s",
        "1 min 00 s",
        "5 min 12 s",
        "2 h 03 min",
    ]
    assert notation.measure("hit_rate@5") == "Hit rate@5"


def test_highest_is_not_a_win_where_none_is_shown() -> None:
    said = words.overall(THREE, PART)
    assert said[0] == "xLSTM has the highest NDCG@10 of 3: .1200 (95% interval .1140 to .1260, mean of 3 seeds)."
    assert said[1] == (
        "Shown to be worse than xLSTM: popularity "
        "(it minus xLSTM: -.0900, 95% interval -.0950 to -.0850, p < .001 after Holm)."
    )
    assert said[2] == (
        "No difference is shown between xLSTM and LSTM "
        "(difference .0020, 95% interval -.0030 to .0070, p .41 after Holm)."
    )
    assert standing.marked(THREE, PART) == standing.Marked(
        frozenset({"xLSTM", "LSTM"}), "not shown to be worse than xLSTM"
    )


def test_reference_that_is_beaten() -> None:
    facts = made([row("old", 0.10), row("new", 0.12)], [judged("old", "new", -0.02, 0.001)])
    assert words.overall(facts, PART)[1:] == [
        "The reference, old, is number 2 with .1000 (95% interval .0940 to .1060).",
        "Shown to be better than old: new (it minus old: .0200, 95% interval .0150 to .0250, p .001 after Holm).",
    ]
    assert standing.marked(facts, PART) == standing.Marked(frozenset({"new"}), "shown to be better than old")
    assert [line[-1].text for line in tables.main(facts, PART).rows] == ["better", "reference"]


def test_no_row_stands_out_below_one_that_does_not() -> None:
    rows = [row("a", 0.12), row("lists", 0.119), row("b", 0.118), row("c", 0.117), row("d", 0.116)]
    ends = (judged("b", "a", -0.002, 0.4), judged("b", "d", 0.002, 0.4))
    unsure = made(rows, [*ends, judged("b", "c", 0.001, 0.03)])
    assert standing.marked(unsure, PART) == standing.Marked(
        frozenset("ab"), "not shown to be worse than b, nor below a row that is"
    )
    assert words.overall(unsure, PART)[1].endswith("No row is shown to be better than it.")
    beaten = made(rows, [judged("d", "a", -0.004, 0.01), judged("d", "b", -0.002, 0.4), judged("d", "c", -0.001, 0.01)])
    assert standing.marked(beaten, PART) == standing.Marked(
        frozenset("a"), "shown to be better than d, and not below a row that is not"
    )
    noisy = made(rows, [judged("d", "a", -0.004, 0.4), judged("d", "b", -0.002, 0.01)])
    assert standing.marked(noisy, PART) == standing.Marked(frozenset(), "")
    assert not any(cell.strong for line in tables.main(noisy, PART).rows for cell in line)


def test_reference_may_be_second_in_its_tests() -> None:
    turned = [standing.seen_from(test, test.second) for test in THREE.tests]
    assert words.overall(replace(THREE, tests=tuple(turned)), PART) == words.overall(THREE, PART)


def test_all_pairs_are_told_from_the_highest() -> None:
    tests = [judged("b", "a", -0.02, 0.01, "pair"), judged("c", "a", -0.03, 0.01, "pair")]
    facts = made([row("a", 0.12), row("b", 0.10), row("c", 0.09)], [*tests, judged("b", "c", 0.01, 0.3, "pair")])
    said = words.overall(facts, PART)
    assert said[1].startswith("Shown to be worse than a: b (")
    assert said[-1] == "A difference is shown for 2 of the 3 pairs tested."
    assert standing.marked(facts, PART) == standing.Marked(frozenset("a"), "not shown to be worse than any other row")
    assert [line[-1].text for line in tables.main(facts, PART).rows] == ["highest", "worse", "worse"]


def test_many_tests_are_summed_up() -> None:
    said = words.overall(MANY, PART)
    assert said[0].startswith("model 29, b 2 has the highest NDCG@10 of 90")
    assert said[1].endswith("(each minus model 29, b 2: -.0890 to -.0010, p .001 after Holm).")
    assert len(said) == 2
    rows = [row("x", 0.2), *(row("S", 0.1, {"m.len": n}) for n in range(5))]
    told = words.overall(made(rows, [judged("x", f"S, len {n}", 0.1, 0.01) for n in range(5)]), PART)[1]
    assert told.startswith("Shown to be worse than x: S with len 0, 1, 2, 3 and 4 (each minus x: -.1000")
    alike = words.overall(made(rows, [judged("x", f"S, len {n}", n / 100, 0.2) for n in range(5)]), PART)[1]
    assert alike.startswith(
        "No difference is shown between x and any of S with len 0, 1, 2, 3 and 4 (x minus each: .0000"
    )


def test_one_row_and_no_tests() -> None:
    assert words.sentences(BARE, PART) == [
        "lists of others has NDCG@10 .1000 (95% interval .0940 to .1060). There is nothing here to compare it with."
    ]
    assert words.overall(ALL["no tests"], PART)[-1] == "Not tested: b and a."
    assert not any(cell.strong for line in tables.main(ALL["no tests"], PART).rows for cell in line)


@pytest.mark.parametrize(
    ("step", "p", "claim"),
    [
        (
            0.004,
            0.01,
            "SASRec is better with max_length 128 than with 32: shown; that it is worse is not (NDCG@10 .1000",
        ),
        (
            -0.004,
            0.01,
            "SASRec is worse with max_length 128 than with 32: shown; that it is better is not (NDCG@10 .1000",
        ),
        (
            0.0001,
            0.6,
            "No difference is shown for SASRec between max_length 128 and 32 (NDCG@10 .1000",
        ),
    ],
)
def test_what_length_does(step: float, p: float, claim: str) -> None:
    facts = by_length(step, p)
    (said,) = words.varied(facts, PART)
    assert said.startswith(claim)
    assert f"; NDCG@10 at 128 minus at 32: {notation.number(2 * step)}, 95% interval" in said
    assert f"p {notation.p_number(p)} after Holm). An epoch takes 1.00 s at 32 and 3.00 s at 128, 3.0 times" in said
    turned = replace(facts, tests=(standing.seen_from(facts.tests[0], facts.tests[0].second),))
    assert words.varied(turned, PART) == [said]
    assert words.varied(replace(facts, rows=facts.rows[::-1]), PART) == [said]


def test_settings_that_are_words_and_ends_that_were_not_tested() -> None:
    rows = [row("S", 0.1, {"loss.name": name, "m.d": 8}, seconds_per_epoch=None) for name in ("bce", "ce")]
    tests = [judged("S, name ce, d 8", "S, name bce, d 8", 0.02, 0.01, "loss.name")]
    assert words.varied(made(rows, tests), PART)[0].startswith(
        "S, d 8 is better with name ce than with bce: shown; that it is worse is not ("
    )
    assert words.varied(made(rows), PART) == [
        "S, d 8: NDCG@10 .1000 at bce, .1000 at ce, Recall@10 .1900 at bce, .1900 at ce; not tested."
    ]
    middle = replace(
        by_length(0.01, 0.01), tests=(judged("SASRec, max_length 64", "SASRec, max_length 32", 0.1, 0.01),)
    )
    assert words.varied(made([row("a", 0.1, {"m.x": 1}), row("b", 0.1, {"m.x": 2})]), PART) == []
    assert words.varied(middle, PART)[0].endswith(
        "; not tested. An epoch takes 1.00 s at 32 and 3.00 s at 128, 3.0 times as long."
    )


def test_varied_tables() -> None:
    facts = by_length(0.004, 0.01)
    accuracy, recall, time = tables.varied(facts, standing.axes(facts, PART)[0])
    assert accuracy.headers == ("model", "32", "64", "128", "p of the ends", "from first to last")
    assert [cell.text for cell in accuracy.rows[0]][3:] == [".1080 ± .0011", ".01", "better"]
    assert recall.note == "Not tested."
    assert [cell.text for cell in time.rows[0]] == ["SASRec", "1.00 s", "2.00 s", "3.00 s"]


def test_main_table_shows_the_metric_once_and_only_columns_with_something_in_them() -> None:
    assert tables.main(THREE, PART).headers[:4] == ("model", "NDCG@10", "Recall@10", "MRR@10")
    assert tables.main(BARE, PART).headers == ("model", "NDCG@10", "Recall@10", "MRR@10", "95% interval")
    single = tables.main(THREE, PART).rows[-1]
    assert [cell.text for cell in single[:2]] == ["popularity", ".0300"]


FUSED = made(
    [row("x + y", 0.13), row("x", 0.12), row("y", 0.11, seconds=None, beside=3, peak_memory_mib=None)],
    [
        judged("x + y", "x", 0.01, 0.2, "member"),
        judged("x + y", "x", 0.01, 0.02, "a.b"),
        judged("x", "x + y", -0.01, 0.6),
        judged("x", "y", 0.01, 0.01),
    ],
)


def test_an_ensemble_and_its_best_member() -> None:
    assert words.overall(FUSED, PART)[-1] == (
        "x + y is not shown to be better than its best member, x "
        "(difference .0100, 95% interval .0050 to .0150, p .20 after Holm)."
    )
    shown = replace(FUSED, tests=(judged("x + y", "x", 0.01, 0.01, "member"), *FUSED.tests[1:]))
    assert words.overall(shown, PART)[-1].startswith("x + y is shown to be better than its best member, x (")
    worse = replace(FUSED, tests=(judged("x", "x + y", 0.01, 0.01, "member"), *FUSED.tests[1:]))
    assert standing.marked(worse, PART).names == {"x + y", "x"}


def test_tests_by_family() -> None:
    sheet = tables.tests(FUSED, PART)
    assert [line[2].text for line in sheet.rows] == [
        "against the reference",
        "against the reference",
        "ends of b",
        "ensemble against its best member",
    ]
    assert standing.told("pair") == "pair"
    assert [line[3].text for line in sheet.rows] == ["-.0100", ".0100", ".0100", ".0100"]
    assert "so its p Holm may differ" in sheet.note
    assert "so its p Holm may differ" not in tables.tests(THREE, PART).note
    text = latex.to_latex(FUSED)
    assert "first & second & why & difference" in text
    assert "tests together & verdict" in text


def test_cost() -> None:
    sheet = tables.cost(FUSED, PART)
    assert sheet.headers == ("model", "time", "per epoch", "epochs", "parameters", "peak memory")
    assert "An ensemble's time is its members'" in sheet.note
    assert "ensemble" not in tables.cost(THREE, PART).note
    shared = tables.cost(replace(FUSED, rows=(*FUSED.rows, row("z", 0.1, beside=2, device="CPU"))), PART)
    assert shared.headers[-2:] == ("runs at once", "on")
    assert [[line[at].text for at in (0, 1, 5, 6)] for line in shared.rows[2:]] == [
        ["y", notation.NONE, notation.NONE, notation.NONE],
        ["z", "30.0 s", "512 MiB", "2"],
    ]


def test_seeds_are_told() -> None:
    facts = made([row("a", 0.2), row("b", 0.1, seeds=(1, 2)), row("c", 0.1, seeds=(1, 2)), row("d", 0.1, seeds=(1,))])
    assert tables.main(facts, PART).note.startswith(
        "Mean ± standard deviation over 3 seeds, over 2 for b and c; one run where there is no ±. 95% interval: "
    )
    assert tables.main(made([row("a", 0.2, seeds=(1,))]), PART).note.startswith("95% interval: bootstrap over people")


@everything
def test_tables_are_rectangular(facts: table.Comparison) -> None:
    for part in facts.parts:
        for sheet in tables.sheets(facts, part):
            assert {len(line) for line in sheet.rows} == {len(sheet.headers)}
            assert all(isinstance(cell.text, str) for line in sheet.rows for cell in line)


class Checked(HTMLParser):
    """Fails on tags that do not close in order; keeps ids, links and text."""

    VOID = ("meta", "link", "br", "img")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@everything
def test_page_is_whole_and_alone(facts: table.Comparison) -> None:
    page = to_html(facts)
    seen = Checked()
    seen.feed(page)
    seen.close()
    assert seen.open == []
    assert len(seen.ids) == len(set(seen.ids))
    assert seen.tags.isdisjoint({"script", "link", "img", "iframe", "i", "b"})
    outside = [value for name, value in seen.attributes if name in ("href", "src") and not value.startswith("#")]
    assert outside == []
    assert "url(" not in page
    assert set(re.findall(r"https?://[^\"]*", page)) <= {"http://www.w3.org/2000/svg"}
    referred = [name for key, value in seen.attributes if key == "aria-labelledby" for name in value.split()]
    assert set(referred) <= set(seen.ids)
    assert "nan" not in re.sub(r"[^a-z]", " ", page.lower()).split()
    assert all(failure.split("\n")[0] in seen.text for failure in facts.failures)


def test_page_has_its_figures_and_sentences() -> None:
    page = to_html(by_length(0.004, 0.01))
    assert page.count("<svg") == 3
    assert "SASRec is better with max_length 128 than with 32: shown" in page
    assert to_html(EMPTY).count("<svg") == 0


@everything
def test_figures_stay_in_their_frame(facts: table.Comparison) -> None:
    for part in facts.parts:
        drawn = [figures.intervals(facts, part, "a"), figures.costs(facts, part, "b")]
        drawn += [figures.along(facts, axis, "c") for axis in standing.axes(facts, part)]
        for figure in filter(None, drawn):
            height = float(re.findall(r'viewBox="0 0 780 ([\d.]+)"', figure.svg)[0])
            xs = [float(x) for x in re.findall(r'\b(?:x|x1|x2|cx)="([^"]+)"', figure.svg)]
            ys = [float(y) for y in re.findall(r'\b(?:y|y1|y2|cy)="([^"]+)"', figure.svg)]
            assert min(xs) >= 0
            assert max(xs) <= svg.WIDTH
            assert min(ys) >= 0
            assert max(ys) <= height


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.0312, 0.0313), (-0.1, 0.1), (0.02, 0.14)])
def test_ticks_are_few_and_inside(low: float, high: float) -> None:
    ticks = svg.Scale(low, high, 0, 100).ticks()
    assert 3 <= len(ticks) <= 12
    assert low - 1e-9 <= ticks[0] < ticks[-1] <= high + 1e-9
    assert svg.Scale(0.2, 5, 0, 1, log=True).ticks() == pytest.approx([0.2, 0.5, 1, 2, 5])
    assert svg.Scale(*svg.padded([0.1, 0.1]), 0, 1)(0.1) == pytest.approx(0.5)


@pytest.mark.parametrize("values", [[30.0], [4.2], [0.004, 0.019], [0.011, 0.012], [1e-5, 9e5], [3.0, 40.0, 2000.0]])
def test_logarithmic_ticks_differ(values: list[float]) -> None:
    scale = svg.Scale(*svg.padded_log(values), 0, 1, log=True)
    assert 3 <= len(scale.ticks()) <= 10
    rows = [row(f"m{n}", 0.1, seconds=value) for n, value in enumerate(values)]
    figure = figures.costs(made(rows), PART, "c")
    assert figure is not None
    words_said = re.findall(r'text-anchor="middle"[^>]*>([\d.,]+)<', figure.svg)
    assert len(words_said) == len(set(words_said)) == len(scale.ticks())
    assert [float(said.replace(",", "")) for said in words_said] == pytest.approx(scale.ticks())


@pytest.mark.parametrize("name", ["W" * 60, "xLSTM of everybody, max_length 128", "i" * 12, NASTY])
def test_names_have_room(name: str) -> None:
    facts = made([row(name, 0.2), row("b", 0.1)], [judged(name, "b", 0.1, 0.001)])
    figure = figures.intervals(facts, PART, "a")
    assert figure is not None
    seen = Checked()
    seen.feed(figure.svg)
    x, shown = re.findall(r'<text x="([\d.]+)"[^>]*text-anchor="end"[^>]*font-weight[^>]*>([^<]+)<', figure.svg)[0]
    assert svg.text_width(unescape(shown), bold=True) <= float(x)
    assert f"{name}: .2000, 95% interval" in seen.text
    assert 'stroke-dasharray="3 4"' in figure.svg


@everything
def test_markdown_columns_line_up(facts: table.Comparison) -> None:
    def width(line: str) -> int:
        return sum(0 if combining(c) else 2 if east_asian_width(c) in "WF" else 1 for c in line)

    text = markdown.to_markdown(facts)
    for block in text.split("\n\n"):
        lines = block.splitlines()
        if lines[0].startswith("|"):
            assert len({width(line) for line in lines}) == 1
            assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
    assert text.count("\n# ") == 0
    assert "<b>" not in text


def balanced(text: str) -> bool:
    """Braces, dollars and environments of LaTeX close."""
    plain = re.sub(r"\\[\\{}$%&#_]", "", re.sub(r"(?m)^%.*$", "", text))
    depth = 0
    for c in plain:
        depth += {"{": 1, "}": -1}.get(c, 0)
        assert depth >= 0
    begun, ended = (sorted(re.findall(rf"\\{word}{{(\w+)}}", plain)) for word in ("begin", "end"))
    return depth == 0 and plain.count("$") % 2 == 0 and begun == ended


@everything
def test_latex_is_balanced(facts: table.Comparison) -> None:
    text = latex.to_latex(facts)
    assert balanced(text)
    bare = re.sub(r"(?m)^%.*$", "", text).replace(latex.FITTED, "")
    assert not re.search(r"(?<!\\)[%#_]|[±–<>|^\"]", bare)  # noqa: RUF001
    for columns, body in re.findall(r"tabular}{@{}(\w+)@{}}\n(.*?)\\end{tabular}", text, re.DOTALL):
        lines = [line for line in body.splitlines() if line.endswith(r" \\")]
        assert {len(re.findall(r"(?<!\\)&", line)) for line in lines} == {len(columns) - 1}
    labels = re.findall(r"\\label{(.*?)}", text)
    assert len(labels) == len(set(labels))


def test_latex_escapes() -> None:
    assert latex.escape(r"a_b & 5% #1 $x$ {y} \z") == r"a\_b \& 5\% \#1 \$x\$ \{y\} \textbackslash{}z"
    assert latex.escape(".12 ± .01, -.5 to -0.2, a-1, x--y") == r".12 $\pm$ .01, $-$.5 to $-$0.2, a-1, x-{}-y"
    assert latex.to_latex(MANY).count("continued") == 2 * 5


@everything
def test_files_round_trip(facts: table.Comparison, tmp_path: Path) -> None:
    written = write_report(facts, tmp_path)
    assert [path.name for path in written] == [FACTS, *PAGES]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([FACTS, *PAGES])
    assert read_comparison(tmp_path) == facts
    rows, tests = pq.read_table(tmp_path / "rows.parquet"), pq.read_table(tmp_path / "tests.parquet")
    assert rows.num_rows == len(facts.rows)
    assert tests.to_pylist() == [vars(test) for test in facts.tests]
    for line, one in zip(rows.to_pylist(), facts.rows, strict=True):
        assert line["name"] == one.name
        assert line["test.ndcg@10"] == one.test["ndcg@10"].mean
        assert line["seeds"] == list(one.seeds)


def test_values_of_several_kinds_are_text_in_parquet(tmp_path: Path) -> None:
    facts = made([row("a", 0.1, {"m.x": 1}), row("a", 0.1, {"m.x": "two"}), row("b", 0.1), row("c", 0.1, {"m.y": 2.5})])
    write_report(facts, tmp_path)
    rows = pq.read_table(tmp_path / "rows.parquet")
    assert rows.column("varied.m.x").to_pylist() == ["1", "two", None, None]
    assert rows.column("varied.m.y").to_pylist() == [None, None, None, 2.5]


@everything
@pytest.mark.parametrize("width", [80, 140])
def test_terminal(facts: table.Comparison, width: int, capsys: pytest.CaptureFixture[str]) -> None:
    show_comparison(Console(width=width, highlight=False, markup=False, emoji=False), facts)
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= width
    for line in out.splitlines():  # a table that is cut off has no right border
        assert not line.startswith(("|", "+")) or line.rstrip().endswith(("|", "+"))
    assert all(" ".join(failure.split())[:10] in out for failure in facts.failures)


def test_terminal_marks_in_plain_characters(capsys: pytest.CaptureFixture[str]) -> None:
    show_comparison(Console(width=80), THREE)
    out = capsys.readouterr().out
    assert "| * LSTM " in out
    assert "| popularity " in out
    assert "no difference" in out
    assert ".1200 ± .0011" in out
    assert "MRR@10" not in out
    show_comparison(Console(width=140), THREE)
    assert ".0840 ± .0011" in capsys.readouterr().out


def test_show_draws_a_finished_comparison_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_report(THREE, Path("done"))
    Path("done/comparison.html").unlink()
    shown = CliRunner().invoke(app, ["--show", "done"])
    assert shown.exit_code == 0, shown.output
    assert "xLSTM has the highest" in shown.stdout
    assert shown.stdout.splitlines()[-len(PAGES) :] == [f"done/{name}" for name in PAGES]
    assert Path("done/comparison.html").exists()
    facts = json.loads(CliRunner().invoke(app, ["--show", "done", "--json"]).stdout)
    assert table.Comparison.from_dict(facts) == THREE
    write_report(BARE, Path("half"))
    assert CliRunner().invoke(app, ["--show", "half"]).exit_code == 1


def test_runs_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from seqrec.experiments.compare import run

    asked: list[Any] = []

    def compare(file: Path, out: Path, jobs: int | None, device: str, report: Any, so_far: bool) -> table.Comparison:
        asked.extend((file, out, jobs, device, so_far))
        report("working")
        write_report(THREE, out)
        return THREE

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run, "compare", compare)
    done = CliRunner().invoke(app, ["mine.yaml", "--jobs", "2", "--device", "cpu"])
    assert done.exit_code == 0, done.output
    assert asked == [Path("mine.yaml"), Path("comparisons/mine"), 2, "cpu", False]
    assert "working" in done.stderr
    assert "working" not in done.stdout
    assert done.stdout.splitlines()[-1] == "comparisons/mine/tests.parquet"


def test_what_cannot_be_shown(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"There is no .*comparison\.json"):
        read_comparison(tmp_path)
    (tmp_path / FACTS).write_text('{"rows": []}')
    with pytest.raises(DataError, match="not a comparison's"):
        read_comparison(tmp_path)
    for arguments in ([], ["a.yaml", "--show", "x"]):
        assert isinstance(CliRunner().invoke(app, arguments).exception, ConfigError)
