"""Types of the fields that several dialects share. JSON's types are taken as they are: "1" is no number."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

MOST_STOPS, LONGEST_STOP = 32, 256
LARGEST_SEED = 2**63 - 1
MOST_TOKENS = 2**31 - 1

Stop = Annotated[str, Field(min_length=1, max_length=LONGEST_STOP)]
Stops = Annotated[list[Stop], Field(max_length=MOST_STOPS)]
Seed = Annotated[int, Field(ge=-LARGEST_SEED, le=LARGEST_SEED)]
Temperature = Annotated[float, Field(ge=0, le=5, allow_inf_nan=False)]
TopP = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
Tokens = Annotated[int, Field(ge=0, le=MOST_TOKENS)]
Penalty = Annotated[float, Field(ge=-2, le=2, allow_inf_nan=False)]
TokenId = Annotated[int, Field(ge=0, le=MOST_TOKENS)]


class Body(BaseModel):
    """A request's body. Fields that are not described are ignored, as the servers whose dialects these are do."""

    model_config = ConfigDict(strict=True, extra="ignore", protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _is_text(cls, value: Any) -> Any:
        """JSON can write half a surrogate pair, which no encoding of text can hold."""
        if not _encodable(value):
            raise ValueError("holds half a surrogate pair, which is no character")
        return value


def _encodable(value: Any) -> bool:
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return False
        return True
    if isinstance(value, dict):
        return all(_encodable(key) and _encodable(inner) for key, inner in value.items())
    return not isinstance(value, list) or all(map(_encodable, value))
