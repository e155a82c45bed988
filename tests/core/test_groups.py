"""Every way of saying who belongs to which group, and the vocabulary that remembers it."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch

import fairlayer as fl
from fairlayer.errors import CategoryError, MissingSensitiveFeatureError, ShapeError
from fairlayer.groups import Vocabulary, read_sensitive_features

SCORES = torch.tensor([0.9, 0.2, 0.5, 0.7, 0.1], dtype=torch.float64)
WORDS: list[Any] = ["a", "b", None, "a", "b"]
CODES = [0, 1, -1, 0, 1]
NAN = float("nan")
EXPECTED = [0.575, 0.525, 0.5, 0.375, 0.425]  # means 0.8 and 0.15 meet at 0.475; the third is unknown


def _value(column: Any) -> torch.Tensor:
    return fl.project(SCORES, [fl.DemographicParity("g", 0.0)], sensitive_features={"g": column}).value


ENCODINGS: dict[str, Any] = {
    "list of strings": WORDS,
    "tuple of strings": tuple(WORDS),
    "list of codes": CODES,
    "list with None": [0, 1, None, 0, 1],
    "list of floats with NaN": [0.0, 1.0, NAN, 0.0, 1.0],
    "list of floats and None": [0.0, 1.0, None, 0.0, 1.0],
    "list of bools with None": [False, True, None, False, True],
    "list of numpy strings": [np.str_("a"), np.str_("b"), None, np.str_("a"), np.str_("b")],
    "list of numpy ints": [np.int64(0), np.int64(1), np.int64(-1), np.int64(0), np.int64(1)],
    "list of numpy ints and None": [np.int64(0), np.int64(1), None, np.int64(0), np.int64(1)],
    "list of numpy float32 and None": [np.float32(0), np.float32(1), None, np.float32(0), np.float32(1)],
    "list of numpy bools and None": [np.False_, np.True_, None, np.False_, np.True_],
    "list of 0-d tensors": [torch.tensor(c) for c in CODES],
    "array of strings": np.array(WORDS, dtype=object),
    "array of objects with NaN": np.array(["a", "b", NAN, "a", "b"], dtype=object),
    "array of int8": np.array(CODES, dtype=np.int8),
    "array of int64": np.array(CODES),
    "array of sparse codes": np.array([5, 10**9, -1, 5, 10**9]),
    "array of floats": np.array([0.0, 1.0, NAN, 0.0, 1.0]),
    "array of float32 with -1": np.array([0, 1, -1, 0, 1], dtype=np.float32),
    "tensor of int64": torch.tensor(CODES),
    "tensor of int32": torch.tensor(CODES, dtype=torch.int32),
    "tensor of float": torch.tensor([0.0, 1.0, NAN, 0.0, 1.0]),
    "tensor of bfloat16": torch.tensor([0.0, 1.0, NAN, 0.0, 1.0], dtype=torch.bfloat16),
    "tensor that needs a gradient": torch.tensor([0.0, 1.0, NAN, 0.0, 1.0], requires_grad=True),
    "pandas strings": pd.Series(WORDS),
    "pandas string dtype": pd.Series(WORDS, dtype="string"),
    "pandas categorical": pd.Series(WORDS, dtype="category"),
    "pandas categorical of ints": pd.Series([3, 7, None, 3, 7], dtype="category"),
    "pandas Categorical, no series": pd.Categorical(WORDS, categories=["b", "a"]),
    "pandas floats": pd.Series([0.0, 1.0, NAN, 0.0, 1.0]),
    "pandas Int64": pd.Series([0, 1, None, 0, 1], dtype="Int64"),
    "pandas boolean": pd.Series([False, True, None, False, True], dtype="boolean"),
    "pandas with another index": pd.Series(WORDS, index=[7, 3, 3, 1, 0]),
    "pandas index": pd.Index(WORDS),
    "polars strings": pl.Series(WORDS),
    "polars categorical": pl.Series(WORDS, dtype=pl.Categorical),
    "polars enum": pl.Series(WORDS, dtype=pl.Enum(["b", "a"])),
    "polars ints": pl.Series([0, 1, None, 0, 1]),
    "polars bools": pl.Series([False, True, None, False, True]),
    "polars floats": pl.Series([0.0, 1.0, None, 0.0, 1.0]),
    "soft, certain": torch.tensor([[1.0, 0], [0, 1.0], [NAN, NAN], [1.0, 0], [0, 1.0]]),
    "soft in numpy": np.array([[1.0, 0], [0, 1.0], [NAN, NAN], [1.0, 0], [0, 1.0]], dtype=np.float32),
    "soft, masked": np.ma.array(
        [[1.0, 0], [0, 1.0], [1.0, 0], [1.0, 0], [0, 1.0]], mask=np.repeat([[0], [0], [1], [0], [0]], 2, axis=1)
    ),
}


@pytest.mark.parametrize("column", ENCODINGS.values(), ids=ENCODINGS.keys())
def test_every_encoding_says_the_same(column: Any) -> None:
    assert _value(column).tolist() == pytest.approx(EXPECTED)
    result = fl.project(SCORES, [fl.DemographicParity("g", 0.0)], sensitive_features={"g": column})
    assert result.unknown == {"g": 1}


@pytest.mark.parametrize(
    "column", [[False, True, False], np.array([False, True, False]), torch.tensor([False, True, False])]
)
def test_bools(column: Any) -> None:
    z = torch.tensor([0.9, 0.2, 0.5], dtype=torch.float64)
    value = fl.project(z, [fl.DemographicParity("g", 0.0)], sensitive_features={"g": column}).value
    assert float(value[1]) == pytest.approx(float(value[[0, 2]].mean()))


def test_unsigned_codes() -> None:
    column = torch.tensor([0, 1, 2, 0, 1], dtype=torch.uint8)
    value = _value(column)
    assert float(value[2]) == pytest.approx(float(value[[0, 3]].mean()))


@pytest.mark.parametrize(
    "frame",
    [
        pd.DataFrame({"g": WORDS, "h": [1, 1, 2, 2, 2]}),
        pl.DataFrame({"g": WORDS, "h": [1, 1, 2, 2, 2]}),
        {"h": [1, 1, 2, 2, 2], "g": WORDS},
    ],
    ids=["pandas", "polars", "dict"],
)
def test_frames(frame: Any) -> None:
    rules = [fl.DemographicParity("g", 0.0), fl.DemographicParity("h", 0.0)]
    value = fl.project(SCORES, rules, sensitive_features=frame).value
    assert float(value[[0, 3]].mean()) == pytest.approx(float(value[[1, 4]].mean()))
    assert float(value[[0, 1]].mean()) == pytest.approx(float(value[[2, 3, 4]].mean()))


@pytest.mark.parametrize("kind", [torch.tensor, np.array])
def test_bare_tensors(kind: Any) -> None:
    """(n,) for one feature, (n, a) in the order in which the constraints name them."""
    one = fl.project(SCORES, [fl.DemographicParity("g", 0.0)], sensitive_features=kind(CODES)).value
    assert one.tolist() == pytest.approx(EXPECTED)
    column = fl.project(SCORES, [fl.DemographicParity("g", 0.0)], sensitive_features=kind(CODES)[:, None]).value
    assert column.tolist() == pytest.approx(EXPECTED)
    rules = [fl.DemographicParity("h", 0.0), fl.DemographicParity(("g", "h"), 0.1)]
    both = np.stack([[0, 0, 1, 1, 1], CODES], axis=1)
    by_name = fl.project(SCORES, rules, sensitive_features={"h": both[:, 0], "g": both[:, 1]}).value
    torch.testing.assert_close(fl.project(SCORES, rules, sensitive_features=kind(both)).value, by_name)


def test_columns_of_x() -> None:
    class Sum(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.sum(dim=1)

    x = torch.tensor([[0.0, 1.0, 0.9], [1.0, 0.0, 0.2], [0.0, 0.0, 0.5], [1.0, 1.0, 0.7]], dtype=torch.float64)
    for index in ([0, 1], (1, 0), [-3, 1]):
        model = fl.FairModel(Sum(), protected_attr_idx=index, tolerance=0.1)
        value = model(x)
        for j in (0, 1):
            gap = value[x[:, j] == 1].mean() - value[x[:, j] == 0].mean()
            assert abs(float(gap)) <= 0.1 + 1e-10
    one = fl.FairModel(Sum(), protected_attr_idx=0, tolerance=0.0)
    assert [c.name for c in one.constraints] == ["DemographicParity('x[0]')"]
    both = fl.FairModel(Sum(), [fl.DemographicParity(("x[0]", "g"), 0.05)], protected_attr_idx=0)
    value = both(x, sensitive_features={"g": ["p", "p", "q", "q"]})
    assert float(value.max() - value.min()) <= 0.05 + 1e-9


def test_soft_membership_weighs() -> None:
    rng = np.random.default_rng(0)
    p = rng.dirichlet([1.0, 1.0, 1.0], size=30)
    z = torch.tensor(rng.random(30) + p[:, 0])
    y = fl.project(z, [fl.DemographicParity("g", 0.01)], sensitive_features={"g": p}).value.numpy()
    means = [np.average(y, weights=p[:, k]) for k in range(3)]
    assert max(means) - min(means) == pytest.approx(0.01, abs=1e-10)
    mixed = fl.project(z, [fl.DemographicParity(("g", "h"), 0.01)], sensitive_features={"g": p, "h": np.arange(30) % 2})
    y = mixed.value.numpy()
    means = [np.average(y, weights=p[:, k] * (np.arange(30) % 2 == h)) for k in range(3) for h in (0, 1)]
    assert max(means) - min(means) == pytest.approx(0.01, abs=1e-10)


def test_intersections_name_their_groups() -> None:
    features = {"sex": ["F", "M", "F", "M", "F"], "race": ["x", "x", "y", "y", None]}
    result = fl.project(SCORES, [fl.DemographicParity(("sex", "race"), 0.1)], sensitive_features=features)
    assert result.cells == ("sex=F & race=x", "sex=F & race=y", "sex=M & race=x", "sex=M & race=y")
    assert result.counts == dict.fromkeys(result.cells, 1)
    assert result.unknown == {"sex": 0, "race": 1}
    assert float(result.value[4]) == float(SCORES[4])


# --- the vocabulary


def test_codes_keep_their_meaning_between_batches() -> None:
    """A first batch without 'b' must not change what the second says."""
    layer = fl.FairProjection([fl.Affine([[1.0, 0.0]], upper=0.1, on="g")])
    layer.fit_categories({"g": ["b", "a"]})
    value = layer(torch.tensor([0.5, 0.5]), sensitive_features={"g": ["b", "b"]})
    assert value.tolist() == [0.5, 0.5]  # the row speaks of 'a' only
    value = layer(torch.tensor([0.5, 0.5]), sensitive_features={"g": ["b", "a"]})
    assert value.tolist() == pytest.approx([0.5, 0.1])


def test_growth_in_training_only() -> None:
    layer = fl.FairProjection([fl.DemographicParity("g", 0.1)])
    z = torch.tensor([0.9, 0.1])
    layer(z, sensitive_features={"g": ["b", "c"]})
    layer(z, sensitive_features={"g": ["a", "c"]})
    assert layer.vocabulary.categories["g"] == ("b", "c", "a")
    layer.eval()
    layer(z, sensitive_features={"g": ["a", "c"]})
    with pytest.raises(CategoryError):
        layer(z, sensitive_features={"g": ["a", "d"]})
    assert layer.vocabulary.categories["g"] == ("b", "c", "a")
    layer.train()
    layer(z, sensitive_features={"g": ["a", "d"]})
    assert layer.vocabulary.categories["g"] == ("b", "c", "a", "d")


def test_closed_once_fitted() -> None:
    layer = fl.FairProjection([fl.DemographicParity("g", 0.1), fl.CovarianceBound("age", 1.0)])
    layer.fit_categories({"g": ["b", "a", None], "age": [1.5, 2.5, NAN]})
    before = layer.vocabulary
    with pytest.raises(CategoryError) as caught:
        layer(torch.tensor([0.9, 0.1]), sensitive_features={"g": ["a", "z"], "age": [1.0, 2.0]})
    text = str(caught.value)
    assert "sensitive feature 'g' holds the categories ['z']" in text
    assert "only ['a', 'b'] are known" in text
    assert "fit_categories" in text
    assert layer.vocabulary == before
    layer.fit_categories({"g": ["z"], "age": [1.0]})
    layer(torch.tensor([0.9, 0.1]), sensitive_features={"g": ["a", "z"], "age": [1.0, 2.0]})


def test_a_failed_call_teaches_nothing() -> None:
    layer = fl.FairProjection([fl.DemographicParity("g", 0.1), fl.MinimumRate("h", 2.0)], bounds=(0, 1))
    with pytest.raises(fl.errors.InfeasibleConstraintsError):
        layer(torch.tensor([0.9, 0.1]), sensitive_features={"g": ["a", "z"], "h": ["p", "q"]})
    assert layer.vocabulary.categories == {}
    assert layer.last is None


@pytest.mark.parametrize(
    "columns",
    [
        {"g": ["F", "M", None]},
        {"g": list(np.array(["F", "M", "F"]))},
        {"g": pd.Series(["F", "M", None], dtype="category")},
        {"g": pl.Series(["F", "M", None])},
        {"g": torch.tensor([1, 0, -1])},
        {"g": [True, False, None]},
        {"g": [np.int64(4), np.int64(2), None]},
        {"g": ["F", 3, 2.0]},
        {"g": np.array([4.0, 2.0, NAN])},
    ],
    ids=["strings", "numpy strings", "pandas", "polars", "tensor", "bools", "numpy ints", "mixed", "floats"],
)
def test_saved_with_the_model(columns: Any) -> None:
    """A checkpoint loads with weights_only=True and codes mean the same afterwards."""
    layer = fl.FairProjection([fl.DemographicParity("g", 0.1)])
    z = torch.tensor([0.9, 0.1, 0.4])
    value = layer(z, sensitive_features=columns)
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    fresh = fl.FairProjection([fl.DemographicParity("g", 0.1)])
    fresh.load_state_dict(torch.load(file, weights_only=True))
    assert fresh.vocabulary == layer.vocabulary
    fresh.eval()
    assert torch.equal(fresh(z, sensitive_features=columns), value)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert twin.vocabulary == layer.vocabulary
        assert torch.equal(twin(z, sensitive_features=columns), value)


def test_the_vocabulary_is_a_value() -> None:
    words = Vocabulary().learn({"g": ["b", "a"], "h": [2, 0]})
    assert words.categories == {"g": ("a", "b"), "h": (0, 2)}
    assert not words.open
    assert Vocabulary.from_state(words.to_state()) == words
    more = words.learn({"g": ["c"], "h": [1]})
    assert more.categories == {"g": ("a", "b", "c"), "h": (0, 2, 1)}
    assert words.categories["g"] == ("a", "b")


def test_only_features_that_a_constraint_reads_are_looked_at() -> None:
    columns = {"g": [0, 1], "weight": [0.5, 2.5], "note": [object(), object()]}
    result = fl.project(torch.tensor([0.9, 0.1]), [fl.DemographicParity("g", 0.1)], sensitive_features=columns)
    assert result.unknown == {"g": 0}


# --- refusals


@pytest.mark.parametrize(
    ("column", "text"),
    [
        ([0.5, 1.5, 2.0, 0.1, 0.3], "fractional numbers such as [0.5, 1.5, 2.0]"),
        ([0, 1, -2, 0, 1], "the code -2"),
        ([0.0, 1.0, -3.0, 0.0, 1.0], "the code -3"),
        (torch.tensor([[0.5, 0.4]] * 5), "rows that sum to 1"),
        (torch.tensor([[1.5, -0.5]] * 5), "non-negative"),
    ],
)
def test_what_cannot_be_read_as_groups(column: Any, text: str) -> None:
    with pytest.raises(CategoryError) as caught:
        _value(column)
    assert text in str(caught.value)
    assert "'g'" in str(caught.value)


@pytest.mark.parametrize("column", [torch.tensor(CODES)[:, None], np.array([CODES]), np.zeros((5, 2, 2)), np.array(3)])
def test_wrong_shapes(column: Any) -> None:
    with pytest.raises(ShapeError, match="'g'"):
        _value(column)


def test_lengths() -> None:
    with pytest.raises(ShapeError, match=r"there are 5 scores, but the sensitive features have 4 entries"):
        _value([0, 1, 0, 1])
    with pytest.raises(ShapeError, match=r"lengths are \{'g': 5, 'h': 4\}"):
        fl.project(
            SCORES,
            [fl.DemographicParity(("g", "h"), 0.1)],
            sensitive_features={"g": CODES, "h": [0, 0, 1, 1]},
        )


def test_missing_feature_is_named() -> None:
    with pytest.raises(MissingSensitiveFeatureError) as caught:
        fl.project(SCORES, [fl.DemographicParity("race", 0.1)], sensitive_features={"sex": CODES})
    assert str(caught.value) == (
        "a constraint needs the sensitive feature 'race', but the features given are: 'sex'. "
        "Pass sensitive_features={'race': ...} with one entry per sample."
    )
    with pytest.raises(MissingSensitiveFeatureError, match="the features given are: none"):
        fl.project(SCORES, [fl.DemographicParity("race", 0.1)])


def test_continuous_feature_as_words() -> None:
    with pytest.raises(CategoryError, match=r"'age' is needed as numbers, but holds \['old'"):
        fl.project(SCORES, [fl.CovarianceBound("age", 0.1)], sensitive_features={"age": ["old"] * 5})


def test_bare_tensor_with_too_few_columns() -> None:
    rules = [fl.DemographicParity("g", 0.1), fl.DemographicParity("h", 0.1)]
    with pytest.raises(ShapeError, match=r"2 sensitive features \['g', 'h'\]"):
        fl.project(SCORES, rules, sensitive_features=torch.tensor(CODES))
    with pytest.raises(ShapeError, match="must be a dict of name -> column"):
        fl.project(SCORES, rules, sensitive_features=CODES)


def test_infinite_codes_are_refused() -> None:
    """Infinity is no category, and not the usual mark of the unknown either."""
    with pytest.raises(CategoryError):
        _value([0.0, 1.0, float("inf"), 0.0, 1.0])


def test_reading_does_not_change_the_input() -> None:
    column = np.array([3, 7, -1, 3, 7])
    groups = read_sensitive_features({"g": column})
    assert groups.column("g").codes.tolist() == [0, 1, -1, 0, 1]  # type: ignore[union-attr]
    assert column.tolist() == [3, 7, -1, 3, 7]
