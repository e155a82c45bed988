"""Requests and answers as pydantic models: with the run's own columns, their types and an example."""

from __future__ import annotations

from typing import Any

from fairlayer.data.encoder import NumericColumn
from fairlayer.errors import require
from fairlayer.serving.records import read_columns
from fairlayer.training.config import continuous_names
from fairlayer.training.recipe import Recipe

__all__ = ["Schemas", "example_of"]

_MOST_LISTED = 50  # categories in a description
Id = str | int


def example_of(recipe: Recipe, categories: dict[str, Any]) -> dict[str, Any]:
    """Return a record that the run reads: the mean of a number, the first level of a category."""
    encoded = {column.name: column for column in recipe.encoder.columns}
    numbers = _numbers(recipe)
    example: dict[str, Any] = {}
    for name in read_columns(recipe):
        column = encoded.get(name)
        levels = _levels(column, name, categories)
        if isinstance(column, NumericColumn):
            example[name] = round(column.mean, 3)
        elif levels:
            example[name] = levels[0]
        else:
            example[name] = 0.0 if name in numbers else None
    return example


class Schemas:
    """The models of one run.

    Args:
        recipe: of the run.
        categories: sensitive feature -> its categories.
        most_records: of one request.
    """

    def __init__(self, recipe: Recipe, categories: dict[str, Any], most_records: int) -> None:
        self.example = example_of(recipe, categories)
        self.record = _record(recipe, categories, self.example)
        self.score = _request(self.record, self.example, most_records, "ScoreRequest")
        self.decide = _request(self.record, self.example, most_records, "DecideRequest")
        self.labels = _labels()
        self.scores = _scores()
        self.decisions = _decisions()
        self.counted = _model(
            "LabelsAnswer",
            counted=(int, "labels that had not come before, and are stored"),
            waiting=(int, "labels that wait in memory for a store that is gone; they are counted when it is back"),
        )
        self.error = _model("Error", error=(str, "name of the error"), detail=(str, "what was asked, found, and to do"))

    def components(self) -> dict[str, Any]:
        """Return the schemas of all of them, as the document of OpenAPI holds them."""
        found: dict[str, Any] = {}
        for model in (self.score, self.decide, self.labels, self.scores, self.decisions, self.counted, self.error):
            schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
            found.update(schema.pop("$defs", {}))
            found[model.__name__] = schema
        return found


def _record(recipe: Recipe, categories: dict[str, Any], example: dict[str, Any]) -> Any:
    pydantic = require("pydantic", "serve")
    encoded = {column.name: column for column in recipe.encoder.columns}
    numbers = _numbers(recipe)
    fields: dict[str, Any] = {}
    for place, name in enumerate(read_columns(recipe)):
        column = encoded.get(name)
        levels = _levels(column, name, categories)
        number = isinstance(column, NumericColumn) or name in numbers
        kind: Any = (float if number else str | float | bool) | None
        words = "number, null where it is not known"
        if not number:
            words = (
                f"category: {', '.join(levels[:_MOST_LISTED])}; null where it is not known" if levels else "category"
            )
        fields[f"column_{place}"] = (
            kind,
            pydantic.Field(alias=name, title=name, description=words, examples=[example[name]]),
        )
    config = pydantic.ConfigDict(extra="allow", json_schema_extra={"example": example})
    return pydantic.create_model("Record", __config__=config, **fields)


def _request(record: Any, example: dict[str, Any], most: int, name: str) -> Any:
    pydantic = require("pydantic", "serve")
    fields: dict[str, Any] = {
        "records": (
            list[record],
            pydantic.Field(min_length=1, max_length=most, description="one for each prediction asked for"),
        ),
        "ids": (
            list[Id] | None,
            pydantic.Field(
                default=None, description="one for each record; an id that comes again is answered as before"
            ),
        ),
        "at": (
            float | None,
            pydantic.Field(default=None, description="seconds on the caller's clock, which never goes back"),
        ),
    }
    shown = {"example": {"records": [example], "ids": ["request 1"]}}
    config = pydantic.ConfigDict(extra="forbid", json_schema_extra=shown)
    return pydantic.create_model(name, __config__=config, **fields)


def _labels() -> Any:
    return _model(
        "LabelsRequest",
        ids=(list[Id], "ids of earlier predictions"),
        labels=(list[float], "the true label of each"),
    )


def _scores() -> Any:
    return _model(
        "ScoreAnswer",
        scores=(list[float], "emitted predictions: what was counted"),
        raw_scores=(list[float], "what the model says without the stream"),
        shifts=(list[float], "emitted minus raw"),
        decisions=(list[int] | None, "1 where the emitted score is at least 0.5; null where the run predicts amounts"),
        **_where(),
    )


def _decisions() -> Any:
    return _model(
        "DecideAnswer",
        decisions=(list[int], "0 or 1: what was counted"),
        raw_scores=(list[float], "what the model says; the thresholds of the run look at it"),
        **_signed(),
    )


def _where() -> dict[str, Any]:
    return {"phase": (str, "phase of the stream after these predictions"), **_signed()}


def _signed() -> dict[str, Any]:
    return {
        "run": (str, "the run: its folder's name and a hash of its weights"),
        "version": (str, "of fairlayer"),
    }


def _model(name: str, **fields: Any) -> Any:
    pydantic = require("pydantic", "serve")
    made = {key: (kind, pydantic.Field(description=words)) for key, (kind, words) in fields.items()}
    return pydantic.create_model(name, **made)


def _levels(column: Any, name: str, categories: dict[str, Any]) -> list[str]:
    levels = categories.get(name, ()) if column is None or name in categories else getattr(column, "levels", ())
    return [str(level) for level in levels if level is not None]


def _numbers(recipe: Recipe) -> set[str]:
    """Columns that must be numbers: those that a constraint reads so, and those that are cut into groups."""
    return {*continuous_names(recipe.config.parsed()), *(cut.source for cut in recipe.cuts)}
