"""Requests and answers as pydantic models: with the run's own columns, their types and an example."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from fairlayer.errors import require
from fairlayer.serving.fields import LARGEST, Field

__all__ = ["Schemas", "example_of"]

_DETAIL = "what was asked, what was found, and what to do"
_NUMBER = {"type": "number", "minimum": -LARGEST, "maximum": LARGEST}
_ID = {"anyOf": [{"type": "string", "maxLength": 256}, {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1}]}
_IDS = {"type": "array", "items": _ID, "uniqueItems": True}


def example_of(fields: Sequence[Field]) -> dict[str, Any]:
    """Return a record that the run reads: the mean of a number, the first level of a category."""
    return {field.name: field.example for field in fields}


class Schemas:
    """The models of one run.

    Args:
        fields: the columns of a record.
        deciding: the same where a decision is asked for; None where none can be.
        most_records: the largest number of records of one request.
        clocked: whether every request has to come with its time.
        binary: whether labels are 0 or 1.
    """

    def __init__(
        self,
        fields: Sequence[Field],
        *,
        deciding: Sequence[Field] | None,
        most_records: int,
        clocked: bool = False,
        binary: bool = True,
    ) -> None:
        made = [
            _request("ScoreRequest", _record("Record", fields), example_of(fields), most_records, clocked),
            _labels(binary),
            _scores(),
            _counted(),
            _model("Error", error=(str, "the name of the error"), detail=(str, _DETAIL)),
        ]
        if deciding is not None:
            record = _record("DecideRecord", deciding)
            made.append(_request("DecideRequest", record, example_of(deciding), most_records, clocked))
            made.append(_decisions())
        self.models = tuple(made)

    def components(self) -> dict[str, Any]:
        """Return the schemas of all of them, as the document of OpenAPI holds them."""
        found: dict[str, Any] = {}
        for model in self.models:
            schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
            found.update(schema.pop("$defs", {}))
            found[model.__name__] = schema
        return found


def _record(name: str, fields: Sequence[Field]) -> Any:
    pydantic = require("pydantic", "serve")
    columns: dict[str, Any] = {
        f"column_{place}": (
            Annotated[Any, pydantic.WithJsonSchema(field.schema())],
            pydantic.Field(alias=field.name, title=field.name),
        )
        for place, field in enumerate(fields)
    }
    config = pydantic.ConfigDict(extra="allow", json_schema_extra={"example": example_of(fields)})
    return pydantic.create_model(name, __config__=config, **columns)


def _request(name: str, record: Any, example: dict[str, Any], most: int, clocked: bool) -> Any:
    pydantic = require("pydantic", "serve")
    ids = "one for each record; an id that comes again is answered as before"
    at = "seconds on the caller's clock, which never goes back"
    null = {"type": "null"}
    fields: dict[str, Any] = {
        "records": (
            list[record],
            pydantic.Field(min_length=1, max_length=most, description="one for each prediction asked for"),
        ),
        "ids": _stated({"anyOf": [_IDS, null]}, ids, needed=False),
        "at": _stated(_NUMBER if clocked else {"anyOf": [_NUMBER, null]}, at, needed=clocked),
    }
    shown = {"example": {"records": [example], "ids": ["request 1"], **({"at": 1.0} if clocked else {})}}
    config = pydantic.ConfigDict(extra="forbid", json_schema_extra=shown)
    return pydantic.create_model(name, __config__=config, **fields)


def _labels(binary: bool) -> Any:
    pydantic = require("pydantic", "serve")
    label = {"enum": [0, 1, False, True]} if binary else {"anyOf": [_NUMBER, {"type": "boolean"}]}
    fields = {
        "ids": _stated({**_IDS, "minItems": 1}, "the ids of earlier predictions"),
        "labels": _stated({"type": "array", "items": label, "minItems": 1}, "the true label of each"),
    }
    shown = {"example": {"ids": ["request 1"], "labels": [1]}}
    config = pydantic.ConfigDict(extra="forbid", json_schema_extra=shown)
    return pydantic.create_model("LabelsRequest", __config__=config, **fields)


def _counted() -> Any:
    return _model(
        "LabelsAnswer",
        counted=(int, "labels that had not come before, and are stored"),
        waiting=(int, "labels that wait in memory for a store that is gone; they are counted when it is back"),
    )


def _scores() -> Any:
    return _model(
        "ScoreAnswer",
        scores=(list[float], "the emitted predictions, which were counted"),
        raw_scores=(list[float], "what the model says without the stream"),
        shifts=(list[float], "the emitted predictions minus the raw ones"),
        decisions=(list[int] | None, "1 where the emitted score is at least 0.5; null where the run predicts amounts"),
        phase=(str, "the phase of the stream after these predictions"),
        **_signed(),
    )


def _decisions() -> Any:
    return _model(
        "DecideAnswer",
        decisions=(list[int], "the decisions, 0 or 1, which were counted"),
        raw_scores=(list[float], "what the model says; the thresholds of the run look at it"),
        **_signed(),
    )


def _signed() -> dict[str, Any]:
    return {
        "run": (str, "the run: its folder's name and a hash of its weights"),
        "version": (str, "the version of fairlayer"),
    }


def _stated(schema: dict[str, Any], words: str, *, needed: bool = True) -> Any:
    """A field of which the schema says all, and pydantic's types nothing."""
    pydantic = require("pydantic", "serve")
    kind = Annotated[Any, pydantic.WithJsonSchema(schema)]
    return kind, pydantic.Field(description=words) if needed else pydantic.Field(default=None, description=words)


def _model(name: str, **fields: Any) -> Any:
    pydantic = require("pydantic", "serve")
    made = {key: (kind, pydantic.Field(description=words)) for key, (kind, words) in fields.items()}
    return pydantic.create_model(name, **made)
