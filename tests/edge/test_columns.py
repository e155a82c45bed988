"""One table: every kind of column through every entrance gives the same groups, or the same named error."""

from __future__ import annotations

import collections
import datetime
import decimal
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from sklearn.linear_model import LinearRegression
from torch import nn

import fairlayer as fl
from fairlayer import errors
from fairlayer.adversarial.building import learn
from fairlayer.adversarial.errors import AdversaryDefinitionError
from fairlayer.audit import AuditTable
from fairlayer.calibration import GroupCalibrator
from fairlayer.data.cells import read_groups_and_labels
from fairlayer.decisions import reject_option
from fairlayer.distillation import remaining_gap
from fairlayer.distillation.cells import CellMap
from fairlayer.groups import Vocabulary, read_sensitive_features
from fairlayer.integrations import torchmetrics as metrics
from fairlayer.integrations.lightning.reading import read_labelled
from fairlayer.integrations.lightning.sums import GroupSums
from fairlayer.integrations.sklearn import FairPostprocessor
from fairlayer.integrations.sklearn.training_data import read_demands
from fairlayer.penalties import Excess
from fairlayer.penalties.samples import read_features
from fairlayer.scoring.chunk import read_chunk
from fairlayer.streaming.durable import DurableStream
from fairlayer.streaming.store import StreamStore

N = 40
NAN = float("nan")
WORDS: list[Any] = (["F"] * 4 + ["M"] * 5 + [None]) * 4  # 16 F, 20 M, 4 unknown
FULL: list[str] = (["F"] * 4 + ["M"] * 6) * 4  # 16 F, 24 M
CODES = [{"F": 0, "M": 1}.get(word, -1) for word in WORDS]
NULLS = [None if code < 0 else code for code in CODES]
FLOATS = [NAN if code < 0 else float(code) for code in CODES]
HUGE = [None if code < 0 else 2**60 + code for code in CODES]  # one number, as floats
MASK = [word is None for word in WORDS]
SCORES = torch.linspace(0.1, 0.9, N, dtype=torch.float64)
PARITY = fl.DemographicParity("g", tolerance=0.05)


class Counts(NamedTuple):
    """Rows of the two groups, smaller first, and of unknown group."""

    groups: tuple[int, int]
    unknown: int


WITH_UNKNOWN, WITHOUT = Counts((16, 20), 4), Counts((16, 24), 0)

COLUMNS: dict[str, Callable[[], Any]] = {
    "list of text": lambda: WORDS,
    "tuple of text": lambda: tuple(WORDS),
    "deque": lambda: collections.deque(WORDS),
    "list of codes": lambda: CODES,
    "list of codes and None": lambda: NULLS,
    "list of floats and NaN": lambda: FLOATS,
    "list of bools and None": lambda: [None if code is None else bool(code) for code in NULLS],
    "list of numpy text": lambda: [None if word is None else np.str_(word) for word in WORDS],
    "list of decimals": lambda: [None if code is None else decimal.Decimal(code) for code in NULLS],
    "list of 0-d tensors": lambda: [torch.tensor(code) for code in CODES],
    "array of objects": lambda: np.array(WORDS, dtype=object),
    "array of objects with NaN": lambda: np.array([NAN if word is None else word for word in WORDS], dtype=object),
    "array of int8": lambda: np.array(CODES, dtype=np.int8),
    "array of floats": lambda: np.array(FLOATS, dtype=np.float32),
    "masked array of codes": lambda: np.ma.array(np.abs(CODES) + np.array(MASK) * 6, mask=MASK),
    "masked array of text": lambda: np.ma.array([word or "X" for word in WORDS], mask=MASK),
    "masked array of floats": lambda: np.ma.array(np.nan_to_num(FLOATS, nan=5.5), mask=MASK),
    "tensor of int64": lambda: torch.tensor(CODES),
    "tensor of int16": lambda: torch.tensor(CODES, dtype=torch.int16),
    "tensor of floats": lambda: torch.tensor(FLOATS),
    "tensor of bfloat16": lambda: torch.tensor(FLOATS, dtype=torch.bfloat16),
    "tensor that needs a gradient": lambda: torch.tensor(FLOATS, requires_grad=True),
    "pandas series, odd index": lambda: pd.Series(WORDS, index=[7, 7, *range(2, N)]),
    "pandas index": lambda: pd.Index(WORDS),
    "pandas categorical": lambda: pd.Categorical(WORDS, categories=["M", "F", "X"]),
    "pandas Int64": lambda: pd.Series(NULLS, dtype="Int64"),
    "pandas Float64": lambda: pd.Series(NULLS, dtype="Float64"),
    "pandas boolean": lambda: pd.Series([None if code is None else bool(code) for code in NULLS], dtype="boolean"),
    "pandas string": lambda: pd.Series(WORDS, dtype="string"),
    "pandas on Arrow, text": lambda: pd.Series(WORDS, dtype=pd.ArrowDtype(pa.string())),
    "pandas on Arrow, numbers": lambda: pd.Series(NULLS, dtype=pd.ArrowDtype(pa.int64())),
    "pandas on Arrow, dictionary": lambda: pd.Series(
        WORDS, dtype=pd.ArrowDtype(pa.dictionary(pa.int32(), pa.string()))
    ),
    "pandas extension array": lambda: pd.array(NULLS, dtype="Int64"),
    "polars text": lambda: pl.Series(WORDS),
    "polars categorical": lambda: pl.Series(WORDS, dtype=pl.Categorical),
    "polars numbers": lambda: pl.Series(NULLS),
    "pyarrow text": lambda: pa.array(WORDS),
    "pyarrow numbers": lambda: pa.array(NULLS),
    "pyarrow dictionary": lambda: pa.array(WORDS).dictionary_encode(),
    "pyarrow chunks": lambda: pa.chunked_array([WORDS[:11], WORDS[11:]]),
    "enormous codes of pandas, one missing": lambda: pd.Series(HUGE, dtype="Int64"),
    "enormous codes of polars, one missing": lambda: pl.Series(HUGE),
    "enormous codes on Arrow, one missing": lambda: pd.Series(HUGE, dtype=pd.ArrowDtype(pa.int64())),
    "enormous codes of pyarrow, one missing": lambda: pa.array(HUGE),
    "array of text": lambda: np.array(FULL),
    "array of bools": lambda: np.array([word == "M" for word in FULL]),
    "tensor of bools": lambda: torch.tensor([word == "M" for word in FULL]),
    "array of unsigned": lambda: np.array([word == "M" for word in FULL], dtype=np.uint64),
    "codes above 1023": lambda: np.array([2000 if word == "M" else 5 for word in FULL]),
    "enormous codes": lambda: [2**70 if word == "M" else 2**40 for word in FULL],
    "range of pandas": lambda: pd.cut(pd.Series([1.0 if word == "M" else 9.0 for word in FULL]), [0, 5, 10]),
}
ALL_KNOWN = {name for name in COLUMNS if name in [*COLUMNS][[*COLUMNS].index("array of text") :]}
if find_spec("duckdb") is not None:
    COLUMNS["relation of DuckDB"] = lambda: _relation().select("g")

SHAPE, CATEGORY = errors.ShapeError, errors.CategoryError
NO_COLUMNS: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "bare text": (lambda: "F" * N, SHAPE, "the single text"),
    "bytes": (lambda: b"F" * N, SHAPE, "is a bytes"),
    "set": (lambda: {"F", "M"}, SHAPE, "no order"),
    "dict": (lambda: dict(enumerate(WORDS)), SHAPE, "is a dict"),
    "view of a dict": (lambda: dict(enumerate(WORDS)).values(), SHAPE, "dict_values"),
    "generator": (lambda: (word for word in WORDS), SHAPE, "only once"),
    "None": (lambda: None, SHAPE, "is None"),
    "number": (lambda: 3, SHAPE, "is an int"),
    "0-d tensor": (lambda: torch.tensor(3), SHAPE, "shape ()"),
    "scalar of numpy": (lambda: np.int64(3), SHAPE, "must be a column"),
    "scalar of pyarrow": (lambda: pa.scalar("F"), SHAPE, "must be a column"),
    "ragged list": (lambda: [["F"], ["F", "M"]] * 20, SHAPE, "different lengths"),
    "nested list": (lambda: [[word] for word in FULL], SHAPE, "(40, 1)"),
    "(n, 1) tensor": (lambda: torch.tensor(CODES)[:, None], SHAPE, "(40, 1)"),
    "(n, 2) whole numbers": (lambda: np.eye(2, dtype=int)[np.array(CODES)], SHAPE, "(40, 2)"),
    "structured array": (lambda: np.array([("F", 1)] * N, dtype=[("a", "U1"), ("b", int)]), SHAPE, "structured"),
    "sparse tensor": (lambda: torch.tensor(CODES).to_sparse(), SHAPE, "to_dense"),
    "tensor without data": (lambda: torch.zeros(N, device="meta"), SHAPE, "meta"),
    "frame in place of a column": (lambda: pd.DataFrame({"g": WORDS}), SHAPE, "is a DataFrame"),
    "lazy frame in place of a column": (lambda: pl.LazyFrame({"g": WORDS}), SHAPE, ".collect()"),
    "table in place of a column": (lambda: pa.table({"g": WORDS}), SHAPE, "is a Table"),
    "another length": (lambda: WORDS[:-1], SHAPE, "39"),
    "fractions": (lambda: [0.5, 1.5] * 20, CATEGORY, "fractional numbers"),
    "fractions and None": (lambda: [0.5, None] * 20, CATEGORY, "fractional numbers"),
    "fractions of pandas": (lambda: pd.Series([0.5, None] * 20, dtype="Float64"), CATEGORY, "fractional numbers"),
    "floats too large to be told apart": (
        lambda: np.array([2.0**53, 2.0**53 + 2] * 20),
        CATEGORY,
        "tell whole numbers",
    ),
    "single floats too large": (lambda: torch.tensor([2.0**24, 2.0**24 + 2] * 20), CATEGORY, "tell whole numbers"),
    "floats beyond whole numbers": (lambda: [1e19, 2e19] * 20, CATEGORY, "tell whole numbers"),
    "infinity": (lambda: torch.tensor([0.0, float("inf")] * 20), CATEGORY, "infinity"),
    "infinity and None": (lambda: [0, None, 1, float("inf")] * 10, CATEGORY, "infinity"),
    "complex": (lambda: np.ones(N, dtype=complex), CATEGORY, "complex"),
    "codes below -1": (lambda: [0, 1, -2, -1] * 10, CATEGORY, "-2"),
    "codes below -1 and None": (lambda: [0, 1, -2, None] * 10, CATEGORY, "-2"),
    "codes below -1 as floats": (lambda: torch.tensor([0.0, 1.0, -2.0, NAN] * 10), CATEGORY, "-2"),
    "dates": (lambda: [datetime.date(2020, 1, 1)] * N, CATEGORY, "dates"),
    "dates of numpy": (lambda: np.array(["2020-01-01", "NaT"] * 20, dtype="datetime64[D]"), CATEGORY, "dates"),
    "dates of pandas": (lambda: pd.Series(pd.to_datetime(["2020-01-01", None] * 20)), CATEGORY, "dates"),
    "bytes in a list": (lambda: [b"F", b"M"] * 20, CATEGORY, "bytes"),
    "array of bytes": (lambda: np.array([b"F", b"M"] * 20), CATEGORY, "|S1"),
    "dicts in a list": (lambda: [{"a": 1}, {"a": 2}] * 20, CATEGORY, "type dict"),
    "bare objects": (lambda: [object(), object()] * 20, CATEGORY, "type object"),
    "NaN made into text": (lambda: np.array(["F", NAN] * 20), CATEGORY, "'nan'"),
    "None made into text": (lambda: np.array(["F", None] * 20).astype(str), CATEGORY, "'None'"),
    "NA made into text": (lambda: [str(pd.NA), "F"] * 20, CATEGORY, "'<NA>'"),
    "empty text": (lambda: ["F", ""] * 20, CATEGORY, "''"),
}
# A code is the place of a category where a metric was told their number only; it says then which codes it knows.
SAID_BY_METRICS = {"codes below -1": "codes do not", "codes below -1 as floats": "-2", "another length": "(39,)"}


def _relation() -> Any:
    duckdb = pytest.importorskip("duckdb")
    frame = pd.DataFrame({"g": WORDS})
    return duckdb.from_df(frame)


# ---- the entrances: each returns what it has read


def by_project(column: Any) -> Counts:
    result = fl.project(SCORES, [PARITY], sensitive_features={"g": column})
    return Counts(_two(result.counts.values()), result.unknown["g"])


def by_layer(column: Any) -> Counts:
    layer = fl.FairProjection([PARITY])
    layer(SCORES, sensitive_features={"g": column})
    assert layer.last is not None
    return Counts(_two(layer.last.counts.values()), layer.last.unknown["g"])


def by_stream_of_a_model(column: Any) -> Counts:
    model = fl.FairModel(nn.Flatten(0), [PARITY], bounds=(0.0, 1.0), b_tau=1000)
    model(SCORES[:, None], sensitive_features={"g": column}, inference=True)
    return _named(model.inference_state.counts())


def by_durable_stream(column: Any) -> Counts:
    stream = DurableStream(fl.InferenceState([PARITY], bounds=(0.0, 1.0)), StreamStore(":memory:"))
    stream.emit(SCORES, {"g": column})
    return _named(stream.state.counts())


def by_penalty(column: Any) -> Counts:
    penalty = fl.Penalty(fl.DemographicParity("g", 0.0), "abs")
    return _of_gap(float(penalty(SCORES, sensitive_features={"g": column})))


def _of_gap(gap: float, values: torch.Tensor = SCORES) -> Counts:
    """The groups of which these values have that gap."""
    for counts, words in ((WITH_UNKNOWN, WORDS), (WITHOUT, FULL)):
        first, second = (values.double().numpy()[np.array(words) == name].mean() for name in ("F", "M"))
        if gap == pytest.approx(abs(first - second)):
            return counts
    raise AssertionError(gap)


def by_dependence(column: Any) -> Counts:
    [feature] = read_features({"g": column}, ("g",), N)
    return Counts(_two(feature.rows.sum(axis=0)), int((~feature.known).sum()))


def by_decide(column: Any) -> Counts:
    return _named(fl.decide(SCORES, [PARITY], sensitive_features={"g": column}).counts)


def by_rule(column: Any) -> Counts:
    rule = fl.DecisionRule.fit(SCORES, [PARITY], sensitive_features={"g": column})
    cells = rule.locate({"g": column}, N)
    return _named(dict(zip(rule.names, np.bincount(cells, minlength=len(rule.cells)), strict=True)))


def by_decision_stream(column: Any) -> Counts:
    rule = fl.DecisionRule.fit(SCORES, [PARITY], sensitive_features={"g": column})
    stream = fl.DecisionStream(rule, [PARITY])
    stream.decide(SCORES, {"g": column})
    return _named(stream.counts())


def by_metric(column: Any) -> Counts:
    metric = metrics.ScoreGap({"g": _categories(column)})
    metric.update(SCORES, None, {"g": column})
    rows = [int(row.count) for row in metric.by_group()]
    return Counts(_two(rows), N - sum(rows))


def by_excess(column: Any) -> Counts:
    metric = metrics.ConstraintExcess(PARITY, categories={"g": _categories(column)})
    metric.update(SCORES, None, {"g": column})
    codes = metric.feature_0[0].numpy()
    return Counts(_two([(codes == 0).sum(), (codes == 1).sum()]), int((codes < 0).sum()))


def by_lightning(column: Any) -> Counts:
    sums = GroupSums("g", None)
    sums.update(SCORES, None, read_labelled((SCORES, None, {"g": column}), ["g"]).sensitive["g"])
    rows = [int(part[:, 0].sum()) for part in sums.counted().values()]
    return Counts(_two(rows), N - sum(rows))


def by_sklearn(column: Any) -> Counts:
    demands = read_demands("a model", [PARITY], {"g": column}, np.zeros(N), None)
    counts = demands.statements[0].means.counts
    return Counts(_two(counts), int(N - counts.sum()))


def by_samplers(column: Any) -> Counts:
    rows = np.bincount(read_groups_and_labels({"g": column}, [0] * N, "a test").group)
    return Counts(_two(rows[rows > 4]), int(rows[rows <= 4].sum()))


def by_table(column: Any) -> Counts:
    read, _ = read_chunk((SCORES, {"g": column}), 0, labelled=False).column("g", ("g",), Vocabulary())
    return _coded(read.codes)


def by_cells(column: Any) -> Counts:
    words = read_sensitive_features({"g": column}).column("g").categories
    placed = CellMap(("g",), (words,)).place({"g": column})
    return Counts(_two([(placed == 0).sum(), (placed == 1).sum()]), int((placed == 2).sum()))


def by_adversary(column: Any) -> Counts:
    _, groups = learn((("g",),), {"g": column}, ())
    return _coded(groups.column("g").codes)


def by_remaining_gap(column: Any) -> Counts:
    batch = {"x": SCORES, "sensitive_features": {"g": column}}
    [gap] = remaining_gap(nn.Identity(), [batch], [PARITY])
    return Counts(_two(gap.counts.values()), N - int(sum(gap.counts.values())))


def by_measure(column: Any) -> Counts:
    return _of_gap(PARITY.measure(SCORES, sensitive_features={"g": column}).value)


def by_path(column: Any) -> Counts:
    return _of_gap(fl.fairness_path(SCORES, [PARITY], [0.9], sensitive_features={"g": column}).gaps[0, 0])


def by_excess_of_penalties(column: Any) -> Counts:
    return _of_gap(float(Excess([PARITY])(SCORES, sensitive_features={"g": column}).max()) + 0.05)


def by_stream(column: Any) -> Counts:
    state = fl.InferenceState([PARITY], bounds=(0.0, 1.0))
    state.emit(SCORES, {"g": column})
    return _named(state.counts())


def by_audit(column: Any) -> Counts:
    means = AuditTable.of(scores=SCORES, sensitive_features={"g": column}).values("mean_score", "g")
    first, second = (mean for name, mean in means.items() if name != "unknown")
    return _of_gap(abs(first - second))


def by_reject_option(column: Any) -> Counts:
    found = reject_option(SCORES, "g", 1.0, sensitive_features={"g": column}, threshold=0.42)
    return _of_gap(found.gap_before, SCORES >= 0.42)


def by_calibrator(column: Any) -> Counts:
    found = GroupCalibrator.fit(SCORES, [0, 1] * 20, sensitive_features={"g": column}, min_rows=10)
    return Counts(_two(group.count for group in found.groups), sum(rows for _, rows in found.small))


def by_postprocessor(column: Any) -> Counts:
    X = SCORES.numpy()[:, None]
    model = FairPostprocessor(LinearRegression(), PARITY).fit(X, SCORES.numpy())
    result = model.project(X, sensitive_features={"g": column})
    return Counts(_two(result.counts.values()), result.unknown["g"])


ENTRANCES = [
    by_measure,
    by_path,
    by_excess_of_penalties,
    by_stream,
    by_audit,
    by_reject_option,
    by_calibrator,
    by_postprocessor,
    by_project,
    by_layer,
    by_stream_of_a_model,
    by_durable_stream,
    by_penalty,
    by_dependence,
    by_decide,
    by_rule,
    by_decision_stream,
    by_metric,
    by_excess,
    by_lightning,
    by_sklearn,
    by_samplers,
    by_table,
    by_cells,
    by_adversary,
    by_remaining_gap,
]
WITHOUT_SCORES = (by_cells, by_adversary)


def _two(counts: Any) -> tuple[int, int]:
    small, large = sorted(int(count) for count in counts)
    return small, large


def _named(counts: dict[str, Any]) -> Counts:
    known = [count for name, count in counts.items() if name != "g=unknown"]
    return Counts(_two(known), int(counts.get("g=unknown", 0)))


def _coded(codes: Any) -> Counts:
    return Counts(_two([(codes == 0).sum(), (codes == 1).sum()]), int((codes < 0).sum()))


def _categories(column: Any) -> Any:
    """The two categories, as a user of a metric writes them; codes for what is no column of two."""
    try:
        found = read_sensitive_features({"g": column}).column("g").categories
    except errors.FairlayerError:
        return ["F", "M"] if isinstance(column, list) and "F" in column else (0, 1)
    return found if len(found) == 2 else (0, 1)


@pytest.mark.parametrize("entrance", ENTRANCES, ids=lambda entrance: entrance.__name__)
def test_every_column_is_read_alike(entrance: Callable[[Any], Counts]) -> None:
    """All kinds of columns in one test: each takes a few milliseconds, less than a test of its own would."""
    wrong = {}
    for name, column in COLUMNS.items():
        expected = WITHOUT if name in ALL_KNOWN else WITH_UNKNOWN
        try:
            found: Any = entrance(column())
        except Exception as error:  # the other columns are still asked
            found = error
        if found != expected:
            wrong[name] = found
    assert not wrong


@pytest.mark.parametrize("entrance", ENTRANCES, ids=lambda entrance: entrance.__name__)
def test_what_is_no_column_is_refused_alike(entrance: Callable[[Any], Counts]) -> None:
    wrong = {}
    for name, (make, kind, said) in NO_COLUMNS.items():
        if name == "another length" and entrance in WITHOUT_SCORES:
            continue  # there is nothing else that has a length
        try:
            wrong[name] = repr(entrance(make()))
        except Exception as error:  # the other columns are still asked
            if not refused_as(error, kind, name, said):
                wrong[name] = repr(error)
    assert not wrong


def refused_as(error: Exception, kind: type[Exception], name: str, said: str) -> bool:
    """Whether it is the named error that says what is wrong, and names the column."""
    text, told = str(error), [said, *([SAID_BY_METRICS[name]] if name in SAID_BY_METRICS else [])]
    named = isinstance(error, errors.FairlayerError) and isinstance(error, kind | AdversaryDefinitionError)
    return named and any(part in text for part in told) and ("'g" in text or name == "another length")


# ---- containers


FRAMES: dict[str, Callable[[], Any]] = {
    "dict": lambda: {"g": WORDS, "h": CODES},
    "pandas": lambda: pd.DataFrame({"g": WORDS, "h": CODES}, index=[3] * N),
    "polars": lambda: pl.DataFrame({"g": WORDS, "h": CODES}),
    "pyarrow table": lambda: pa.table({"g": WORDS, "h": CODES}),
    "pyarrow batch": lambda: pa.RecordBatch.from_pydict({"g": WORDS, "h": CODES}),
    "DuckDB": _relation,
    "single column": lambda: WORDS,
    "single series": lambda: pd.Series(WORDS),
    "single array": lambda: np.array(CODES),
    "single tensor": lambda: torch.tensor(CODES),
    "tensor (n, 1)": lambda: torch.tensor(CODES)[:, None],
    "column of pyarrow": lambda: pa.array(WORDS),
    "with a column that is not read": lambda: {"g": WORDS, "note": None, "name": "x", "p": [[0.2, 0.1]] * N},
    "with a doubled column that is not read": lambda: pd.DataFrame([[w, 1, 2] for w in WORDS], columns=["g", "x", "x"]),
}
NO_FRAMES: dict[str, tuple[Callable[[], Any], str]] = {
    "lazy frame": (lambda: pl.LazyFrame({"g": WORDS}), ".collect()"),
    "reader of batches": (lambda: pa.table({"g": WORDS}).to_reader(), ".read_all()"),
    "text": (lambda: "g", "must be a dict of name -> column"),
    "doubled column": (lambda: pd.DataFrame([[w, w] for w in WORDS], columns=["g", "g"]), "2 columns named 'g'"),
    "set": (lambda: {"F", "M"}, "no order"),
    "two columns for one name": (lambda: torch.zeros(N, 2, dtype=torch.long), "(n, 1)"),
}


def _last(features: Any) -> Any:
    layer = fl.FairProjection([PARITY])
    layer(SCORES, sensitive_features=features)
    assert layer.last is not None
    return layer.last.counts


def _streamed(features: Any) -> Any:
    stream = fl.InferenceState([PARITY])
    stream.emit(SCORES, features)
    return stream.counts()


def _table(features: Any) -> Any:
    column, _ = read_chunk((SCORES, features), 0, labelled=False).column("g", ("g",), Vocabulary())
    return {str(code): int((column.codes == code).sum()) for code in (0, 1)}


def _counts_of(statements: Any) -> Any:
    return dict(zip(statements[0].means.names, statements[0].means.counts, strict=True))


WHOLE: dict[str, Callable[[Any], Any]] = {
    "project": lambda features: fl.project(SCORES, [PARITY], sensitive_features=features).counts,
    "layer": _last,
    "stream": _streamed,
    "decide": lambda features: fl.decide(SCORES, [PARITY], sensitive_features=features).counts,
    "table": _table,
    "sklearn": lambda features: _counts_of(read_demands("a model", [PARITY], features, np.zeros(N), None).statements),
}


@pytest.mark.parametrize("entrance", WHOLE)
@pytest.mark.parametrize("frame", FRAMES)
def test_every_container_is_read_alike(frame: str, entrance: str) -> None:
    counts = WHOLE[entrance](FRAMES[frame]())
    assert _two([count for name, count in counts.items() if name != "g=unknown"]) == WITH_UNKNOWN.groups


@pytest.mark.parametrize("entrance", WHOLE)
@pytest.mark.parametrize("frame", NO_FRAMES)
def test_what_holds_no_columns_is_refused_alike(frame: str, entrance: str) -> None:
    make, said = NO_FRAMES[frame]
    with pytest.raises(errors.ShapeError) as caught:
        WHOLE[entrance](make())
    assert said in str(caught.value)


def test_a_missing_feature_is_named() -> None:
    for entrance in WHOLE.values():
        with pytest.raises(errors.MissingSensitiveFeatureError, match="the features given are: 'h'"):
            entrance({"h": CODES})


def test_the_number_of_a_column_is_its_name() -> None:
    groups = read_sensitive_features(pd.DataFrame({0: WORDS, 1: CODES}), ("1",))
    assert groups.column("1").categories == (0, 1)


# ---- soft memberships


SOFT = np.random.default_rng(0).dirichlet([1.0, 1.0, 1.0], size=N)


@pytest.mark.parametrize(
    "rounded",
    [
        torch.tensor(SOFT).half(),
        torch.tensor(SOFT).bfloat16(),
        torch.tensor(SOFT).float(),
        SOFT.astype(np.float16),
        np.round(SOFT, 3),
        np.round(SOFT, 2),
        SOFT.tolist(),
        pa.array(SOFT.tolist()),
    ],
    ids=["half", "bfloat16", "float", "float16 of numpy", "3 decimals", "2 decimals", "nested list", "pyarrow"],
)
def test_rounded_memberships_are_made_whole(rounded: Any) -> None:
    membership = read_sensitive_features({"g": rounded}).column("g").membership
    assert membership is not None
    np.testing.assert_allclose(membership.sum(axis=1), 1.0, atol=1e-12)
    np.testing.assert_allclose(membership, SOFT, atol=1e-2)
    value = fl.project(SCORES, [PARITY], sensitive_features={"g": rounded}).value.numpy()
    means = [np.average(value, weights=membership[:, k]) for k in range(3)]
    assert max(means) - min(means) <= 0.05 + 1e-9


def test_memberships_that_no_rounding_explains() -> None:
    for wrong in (SOFT * 0.9, SOFT - 0.1, np.log(SOFT)):
        with pytest.raises(CATEGORY, match="which no rounding explains"):
            fl.project(SCORES, [PARITY], sensitive_features={"g": wrong})


def test_a_bare_membership_belongs_to_the_only_feature() -> None:
    value = fl.project(SCORES, [PARITY], sensitive_features=torch.tensor(SOFT)).value
    torch.testing.assert_close(value, fl.project(SCORES, [PARITY], sensitive_features={"g": SOFT}).value)


# ---- the codes -1 and 1


SIGNS = {
    "tensor": lambda n: torch.tensor([-1, 1] * n),
    "floats": lambda n: np.array([-1.0, 1.0] * n),
    "list": lambda n: [-1, 1] * n,
    "objects": lambda n: [-1, 1, None] * n,
    "pandas": lambda n: pd.Series([-1, 1] * n, dtype="Int64"),
}


@pytest.mark.parametrize("kind", SIGNS)
def test_two_groups_written_with_signs_are_refused(kind: str) -> None:
    column = SIGNS[kind](20)
    n = len(column)
    for call in (
        lambda: fl.project(torch.rand(n), [PARITY], sensitive_features={"g": column}),
        lambda: fl.decide(torch.rand(n), [PARITY], sensitive_features={"g": column}),
        lambda: fl.Penalty(PARITY)(torch.rand(n), sensitive_features={"g": column}),
        lambda: fl.FairProjection([PARITY]).fit_categories({"g": SIGNS[kind](1)}),
        lambda: fl.InferenceState([PARITY]).emit(torch.rand(n), {"g": column}),
    ):
        with pytest.raises(CATEGORY, match=r"'g' holds the codes -1 and 1 alone.*Recode two groups to 0 and 1"):
            call()


def test_signs_in_a_column_of_x_are_refused() -> None:
    x = torch.tensor([[-1.0, 0.2], [1.0, 0.9]] * 20)
    model = fl.FairModel(nn.Linear(2, 1), protected_attr_idx=0, tolerance=0.02)
    with pytest.raises(CATEGORY, match=r"'x\[0\]' holds the codes -1 and 1 alone"):
        model(x)


def test_a_vocabulary_that_knows_better() -> None:
    both = Vocabulary({"g": (-1, 1)}, open=False)
    groups = read_sensitive_features({"g": [-1, 1, 1, None]}, vocabulary=both)
    assert groups.column("g").codes.tolist() == [0, 1, 1, -1]  # type: ignore[union-attr]
    zero = Vocabulary({"g": (0, 1)})
    column = np.array([-1, 1] * 20)
    assert read_sensitive_features({"g": column}, vocabulary=zero).column("g").codes.tolist() == column.tolist()  # type: ignore[union-attr]
    named = Vocabulary({"g": ("None", "some")}, open=False)
    assert read_sensitive_features({"g": ["None", "some"]}, vocabulary=named).column("g").unknown == 0
    metric = metrics.ScoreGap([-1, 1])
    metric.update(torch.tensor([0.2, 0.8]), None, torch.tensor([-1, 1]))
    assert float(metric.compute()) == pytest.approx(0.6)


def test_a_rare_unknown_beside_one_group_is_unknown() -> None:
    column = [1] * 36 + [-1] * 4
    with pytest.warns(errors.FairlayerWarning, match="'g' the only group known is 'g=1', and 4 samples are of unknown"):
        fl.decide(SCORES, [PARITY], sensitive_features={"g": column})


# ---- names


@pytest.mark.parametrize(
    ("columns", "on"),
    [
        ({"g": [1, "1", 1, "1"]}, "g"),
        ({"a": ["x & b=y", "x"] * 2, "b": ["y", "y"] * 2}, ("a", "b")),
        ({"a=b": ["c", "d"] * 2, "a": ["b=c", "e"] * 2}, ("a=b", "a")),
        ({"g": ["unknown", "known", None, "known"]}, "g"),
        ({"g": ["'x & y'", "x & y"] * 2}, "g"),
    ],
)
def test_cells_of_different_groups_have_different_names(columns: dict[str, Any], on: Any) -> None:
    names = fl.decide([0.1, 0.4, 0.6, 0.9], [fl.DemographicParity(on, 1.0)], sensitive_features=columns).counts
    stream = fl.InferenceState([fl.DemographicParity(on, 1.0)])
    stream.emit(torch.tensor([0.1, 0.4, 0.6, 0.9]), columns)
    cells = {tuple(row) for row in zip(*(columns[name] for name in columns), strict=True)}
    kinds = {tuple((type(part), part) for part in cell) for cell in cells}
    assert len(names) == len(stream.counts()) == len(kinds)
    single = [read_sensitive_features(columns).column(name).labels for name in columns]
    assert len({label for labels in single for label in labels}) == sum(map(len, single))
