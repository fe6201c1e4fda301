"""An HTTP service for a model that ``export --format=onnx`` wrote: rows of raw values in, scores out.

    MODEL=exported uvicorn --app-dir examples/serving --factory app:create_app

``POST /score`` takes ``{"rows": [{...}, ...]}`` and answers ``{"scores": [{...}, ...]}``, in the same order. The model
of a row is made from the export's own description of its inputs: ``/docs`` shows it, and a row that does not fit is
answered with 422 and the place of the fault.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictFloat,
    WithJsonSchema,
    create_model,
    model_validator,
)
from scorer import Scorer

MOST_ROWS = 10_000


def _token(value: Any) -> str:
    # true is an int to Python; 1.0 would have to be guessed to mean "1" or "1.0".
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(f"expected a text or an integer, found {value!r}")
    return str(value)


Token = Annotated[str, BeforeValidator(_token), WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "integer"}]})]
Number = Annotated[StrictFloat, Field(allow_inf_nan=False)]
KINDS: dict[str, tuple[Any, str]] = {
    "token": (Token | None, "a text or an integer; null where missing, any value not seen in training is unknown"),
    "float": (Number | None, "a number; null where missing"),
    "token_seq": (list[Token] | None, "a list of texts or integers; null or empty where missing"),
}


class Row(BaseModel):
    """One row of raw values. Every field must be there; a wrong name is refused."""

    model_config = ConfigDict(extra="forbid")


def row_model(fields: list[dict[str, Any]]) -> type[Row]:
    """The model of a row, from the fields of ``encoder.json``."""
    found: dict[str, Any] = {}
    pairs = [(field["name"], field["weights"]) for field in fields if field["weights"] is not None]
    columns = [(field["name"], *KINDS[field["kind"]]) for field in fields]
    columns += [(weights, list[Number] | None, f"the weights of {name}, one for each value") for name, weights in pairs]
    for place, (name, kind, description) in enumerate(columns):
        # By alias: a field's name need not be one of Python.
        found[f"column{place}"] = (kind, Field(alias=name, description=description))

    def same_lengths(self: Row) -> Row:
        row = self.model_dump(by_alias=True)
        for name, weights in pairs:
            values, own = row[name] or [], row[weights] or []
            if len(values) != len(own):
                raise ValueError(f"{name} has {len(values)} values, {weights} {len(own)}: expected as many")
        return self

    validators: dict[str, Any] = {"same_lengths": model_validator(mode="after")(same_lengths)}
    return create_model("Row", __base__=Row, __validators__=validators, **found)


def create_app(folder: str | Path | None = None) -> FastAPI:
    """The service of an exported model.

    Args:
        folder: that `export` wrote; by default the environment variable ``MODEL`` names it.
    """
    scorer = Scorer(folder or os.environ["MODEL"])
    row = row_model(scorer.fields)
    rows = (list[row], Field(max_length=MOST_ROWS, description="scored in one batch"))  # type: ignore[valid-type]
    request = create_model("Request", __config__=ConfigDict(extra="forbid"), rows=rows)
    app = FastAPI(title="Scores of an exported model")

    def score(given: Any) -> dict[str, list[dict[str, float]]]:
        try:
            return {"scores": scorer([each.model_dump(by_alias=True) for each in given.rows])}
        except ValueError as error:  # a domain that the model does not know
            raise HTTPException(422, str(error)) from error

    # Set here, as the model of a request is known only now.
    score.__annotations__["given"] = request
    app.post("/score")(score)
    return app
