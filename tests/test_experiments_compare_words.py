"""What a comparison says and its tables: drawn from the numbers, and no more than tests show."""

from __future__ import annotations

from dataclasses import replace

import pytest

from comparisons import ALL, BARE, MANY, PART, THREE, by_length, everything, judged, made, row
from seqrec.experiments.compare import latex, notation, standing, table, tables, words


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
        "x + y is not shown to be better than the member that is best on validation, x "
        "(difference .0100, 95% interval .0050 to .0150, p .20 after Holm)."
    )
    shown = replace(FUSED, tests=(judged("x + y", "x", 0.01, 0.01, "member"), *FUSED.tests[1:]))
    assert words.overall(shown, PART)[-1].startswith(
        "x + y is shown to be better than the member that is best on validation, x ("
    )
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
