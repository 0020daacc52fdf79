"""A comparison as pages, files and a terminal table: whole, escaped, and nothing from outside."""

from __future__ import annotations

import json
import re
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

from comparisons import BARE, EMPTY, MANY, NASTY, PART, THREE, by_length, everything, judged, made, row
from seqrec.cli.compare import compare as compare_verb
from seqrec.cli.compare_show import show_comparison
from seqrec.errors import ConfigError, DataError
from seqrec.experiments.compare import figures, latex, markdown, standing, svg, table
from seqrec.experiments.compare.html import to_html
from seqrec.experiments.compare.write import FACTS, PAGES, read_comparison, write_report

app = typer.Typer()
app.command("compare")(compare_verb)


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
