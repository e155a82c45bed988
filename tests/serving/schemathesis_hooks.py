"""What the document cannot say: two lists of one request have one length. Loaded by schemathesis, see the test."""

from __future__ import annotations

from typing import Any

import schemathesis
from schemathesis import GenerationMode


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Give a request that is meant to be good as many ids as it has records, or labels as it has ids."""
    body = case.body
    if case.meta is None or case.meta.generation.mode is not GenerationMode.POSITIVE or not isinstance(body, dict):
        return
    if body.get("ids") is not None and "records" in body:
        body["ids"] = None if len(body["ids"]) < len(body["records"]) else body["ids"][: len(body["records"])]
    if "labels" in body:
        most = min(len(body["ids"]), len(body["labels"]))
        body["ids"], body["labels"] = body["ids"][:most], body["labels"][:most]
