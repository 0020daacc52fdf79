"""Recommendations for any history: by id or title, known person or not, one or many."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import pytest
import torch

from seqrec.data.batches import Batch
from seqrec.data.catalogue import Catalogue
from seqrec.errors import CheckpointError, DataError, RunFolderError, ScoreError, UnknownItemsError
from seqrec.models.build import build_model
from seqrec.models.sasrec import SASRec
from seqrec.recommendation.recommender import Recommendation, Recommender, UnknownItemWarning

TITLES = ["Toy Story", "Heat", "Godfather, The", "Se7en", "[rec]", "Alien", "Aliens", "Brazil"]
FILMS = Catalogue(
    ids=[str(number) for number in range(101, 109)],
    titles=TITLES,
    categories=[["Comedy", "Children's"]] + [[]] * 7,
    years=[1995, 1995, 1972, 1995, 2007, 1979, 1986, None],
)


@pytest.fixture(scope="module")
def films() -> Recommender:
    torch.manual_seed(0)
    return Recommender(build_model({"name": "sasrec", "embedding_dim": 16, "max_length": 4}, len(FILMS)), FILMS)


@pytest.fixture(scope="module")
def trained(small_run: Path) -> Recommender:
    return Recommender.load(small_run)


def ids(found: list[Recommendation]) -> list[str]:
    return [item.item for item in found]


def test_ids_and_titles_mean_the_same(films: Recommender) -> None:
    expected = films.recommend(["101", "102", "103"])
    assert films.recommend(["Toy Story", "heat", "The Godfather"]) == expected
    assert films.recommend(["Toy Story (1995)", " HEAT (1995) ", "Godfather, The (1972)"]) == expected
    assert films.recommend([101, "Heat", 103]) == expected
    assert films.recommend(("101", "102", "103")) == expected


def test_what_a_recommendation_says(films: Recommender) -> None:
    found = {item.item: item for item in films.recommend(["Heat"])}
    assert len(found) == 7
    toys = found["101"]
    assert (toys.title, toys.categories, toys.year) == ("Toy Story", ("Comedy", "Children's"), 1995)
    assert found["108"].year is None
    batch = Batch.of([[2]])
    assert toys.score == pytest.approx(films.scorer.scores(batch)[0, 0].item(), rel=1e-5)


def test_best_first(films: Recommender) -> None:
    scores = [item.score for item in films.recommend(["Heat", "Alien"])]
    assert scores == sorted(scores, reverse=True)


def test_somebody_who_was_never_in_the_data(trained: Recommender) -> None:
    found = trained.recommend(["i3", "i17", "i4", "i5"], k=5)
    assert len(found) == 5
    assert found[0].title == found[0].item


def test_a_trained_model_has_learned_what_follows(trained: Recommender) -> None:
    hits = [f"i{item % 30 + 1}" in ids(trained.recommend([f"i{item}"], k=10)) for item in range(1, 31)]
    popular = [f"i{item % 30 + 1}" in ids(trained.recommend(["i30", "i15"], k=10)) for item in range(1, 31)]
    assert sum(hits) > sum(popular)


def test_a_batch_equals_one_at_a_time(trained: Recommender) -> None:
    histories = [["i1"], ["i2", "i3", "i4"], ["i9"] * 50, [f"i{n}" for n in range(1, 29)]] * 100
    together = trained.recommend_batch(histories, k=4)
    assert len(together) == len(histories)
    for history, found in list(zip(histories, together, strict=True))[-4:]:
        alone = trained.recommend(history, k=4)
        assert ids(found) == ids(alone)
        assert [item.score for item in found] == pytest.approx([item.score for item in alone], rel=1e-4)
    assert trained.recommend_batch([]) == []


def test_unknown_items_are_named_and_left_out(films: Recommender) -> None:
    with pytest.warns(UnknownItemWarning) as told:
        found = films.recommend(["Heet", "Alien", "zzzz"])
    assert str(told[0].message) == "Not in the catalogue, left out: 'Heet' (did you mean 'Heat (1995)'?), 'zzzz'"
    assert found == films.recommend(["Alien"])


def test_known_items_are_no_reason_to_warn(films: Recommender) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        films.recommend(["Heat", "Alien"])


def test_nothing_known_is_an_error_that_guesses(films: Recommender) -> None:
    with pytest.raises(UnknownItemsError, match=r"none of these is in the catalogue: 'Heet' \(did you mean 'Heat"):
        films.recommend(["Heet"])


@pytest.mark.parametrize("empty", [[], (), iter([])])
def test_an_empty_history(films: Recommender, empty: list[str]) -> None:
    with pytest.raises(UnknownItemsError, match="the history is empty"):
        films.recommend(empty)


@pytest.mark.parametrize("text", ["Heat", b"Heat"])
def test_one_string_is_not_a_history(films: Recommender, text: str) -> None:
    with pytest.raises(TypeError, match=r"a list of ids or titles, not one string: \["):
        films.recommend(text)
    with pytest.raises(TypeError, match="not one string"):
        films.recommend_batch([text])


def test_fewer_than_k_where_there_are_no_more(films: Recommender) -> None:
    assert set(ids(films.recommend(["Heat", "Alien"], k=1000))) == set(FILMS.ids) - {"102", "106"}
    assert films.recommend(TITLES, k=3) == []
    assert len(films.recommend(["Heat"], k=1)) == 1


@pytest.mark.parametrize("k", [0, -1])
def test_k_is_at_least_one(films: Recommender, k: int) -> None:
    with pytest.raises(ValueError, match="ask for at least one item"):
        films.recommend(["Heat"], k=k)


def test_seen_is_the_whole_history_not_the_window(films: Recommender) -> None:
    history = ["Toy Story", "Se7en", "Heat", "Alien", "Aliens", "Brazil"]
    assert films.scorer.config.max_length == 4  # type: ignore[attr-defined]
    assert set(ids(films.recommend(history))) == {"103", "105"}
    unfiltered = Recommender(films.scorer, FILMS, filter_seen=False)
    assert set(ids(unfiltered.recommend(history))) == set(FILMS.ids)


def test_events_before_the_window_change_no_score(films: Recommender) -> None:
    unfiltered = Recommender(films.scorer, FILMS, filter_seen=False)
    window = ["Heat", "Alien", "Aliens", "Brazil"]
    assert unfiltered.recommend(["Toy Story", "Se7en", *window]) == unfiltered.recommend(window)


def test_probabilities_sum_to_one_over_the_catalogue(films: Recommender, trained: Recommender) -> None:
    for recommender, item in ((films, "Heat"), (trained, "i3")):
        everything = Recommender(recommender.scorer, recommender.catalogue, filter_seen=False)
        found = everything.recommend([item], k=len(recommender.catalogue))
        assert len(found) == len(recommender.catalogue)
        chances = [found.probability or 0.0 for found in found]
        assert sum(chances) == pytest.approx(1, abs=1e-5)
        assert chances == sorted(chances, reverse=True)


def test_filtering_takes_items_away_and_leaves_their_probability_out(films: Recommender) -> None:
    everything = {item.item: item for item in Recommender(films.scorer, FILMS, False).recommend(["Heat"], 8)}
    for item in films.recommend(["Heat"], 8):
        assert item.probability == pytest.approx(everything[item.item].probability)


def test_models_without_logits_have_no_probability(popularity_run: Path) -> None:
    found = Recommender.load(popularity_run).recommend(["i3"], k=5)
    assert [item.probability for item in found] == [None] * 5
    assert all(item.score == int(item.score) for item in found)


def test_recommending_needs_the_run_folder_and_nothing_else(small_run: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(small_run, tmp_path / "elsewhere"))
    for name in ("results.json", "history.jsonl", "per_user.test.parquet"):
        (copied / name).unlink()
    shutil.rmtree(copied / "tensorboard")
    assert Recommender.load(copied).recommend(["i3"]) == Recommender.load(small_run).recommend(["i3"])


@pytest.mark.parametrize("name", ["best.safetensors", "items.json"])
def test_a_missing_file_is_named(name: str, small_run: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(small_run, tmp_path / "copied"))
    (copied / name).unlink()
    with pytest.raises(CheckpointError, match=name):
        Recommender.load(copied)


def test_a_damaged_checkpoint_is_refused(small_run: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(small_run, tmp_path / "copied"))
    content = bytearray((copied / "best.safetensors").read_bytes())
    content[-5] ^= 1
    (copied / "best.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match="is damaged"):
        Recommender.load(copied)


def test_a_checkpoint_of_another_run_is_refused(small_run: Path, popularity_run: Path, tmp_path: Path) -> None:
    for run, other in ((small_run, popularity_run), (popularity_run, small_run)):
        copied = Path(shutil.copytree(run, tmp_path / run.parent.name))
        shutil.copy(other / "best.safetensors", copied)
        with pytest.raises(CheckpointError, match="does not fit this model"):
            Recommender.load(copied)


def test_a_damaged_catalogue_is_refused(small_run: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(small_run, tmp_path / "copied"))
    (copied / "items.json").write_text('{"ids": ["1"]}')
    with pytest.raises(DataError, match=r"items\.json"):
        Recommender.load(copied)


def test_no_run(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="is not a run folder"):
        Recommender.load(tmp_path / "nothing")


def test_scores_that_are_not_finite_are_never_ranked() -> None:
    model = build_model({"name": "sasrec", "embedding_dim": 16}, len(FILMS))
    assert isinstance(model, SASRec)
    torch.nn.init.constant_(model.norm.weight, torch.nan)
    with pytest.raises(ScoreError, match="SASRec gave nan"):
        Recommender(model, FILMS).recommend(["Heat"])


def test_recommending_leaves_the_model_in_evaluation_mode_and_repeats_itself() -> None:
    model = build_model({"name": "sasrec", "embedding_dim": 16, "dropout": 0.9}, len(FILMS))
    assert isinstance(model, SASRec)
    model.train()
    recommender = Recommender(model, FILMS)
    assert recommender.recommend(["Heat"]) == recommender.recommend(["Heat"])
    assert not model.training
