"""Tables of real layers: read by `numbaconv bench`, by the tools in ``perf/`` and by the tests."""

import csv
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

__all__ = ["LAYERS", "Layer", "read"]

LAYERS = Path(__file__).parent / "layers"


@dataclass(frozen=True)
class Layer:
    """One row: shapes as the public functions take them, and what the table says comes out."""

    name: str
    transposed: bool
    input_shape: tuple[int, ...]
    weight_shape: tuple[int, ...]
    arguments: dict[str, Any]
    output_shape: tuple[int, ...]
    mmac: float
    has_bias: bool

    @property
    def rank(self) -> int:
        return len(self.input_shape) - 2

    @property
    def network(self) -> str:
        return self.name.split("/", 1)[0]

    def of_batch(self, batch: int) -> "Layer":
        """The same layer with another number of samples."""
        return replace(
            self,
            input_shape=(batch, *self.input_shape[1:]),
            output_shape=(batch, *self.output_shape[1:]),
            mmac=self.mmac / self.input_shape[0] * batch,
        )

    @classmethod
    def of(cls, description: Mapping[str, Any]) -> "Layer":
        """From what `dataclasses.asdict` gave and JSON may have carried."""
        shapes = {name: tuple(description[name]) for name in ("input_shape", "weight_shape", "output_shape")}
        return cls(**{**description, **shapes})


def _extents(text: str) -> tuple[int, ...]:
    return tuple(int(each) for each in text.split("x"))


def read(file: str) -> list[Layer]:
    """Every row of a table."""
    with open(LAYERS / file, newline="") as lines:
        return [_layer(row) for row in csv.DictReader(lines)]


def _layer(row: Mapping[str, str]) -> Layer:
    transposed, groups = row["transposed"] == "1", int(row["groups"])
    c_in, c_out, batch = int(row["C_in"]), int(row["C_out"]), int(row["N"])
    channels = (c_in, c_out // groups) if transposed else (c_out, c_in // groups)
    arguments: dict[str, Any] = {
        "stride": _extents(row["stride"]),
        "padding": tuple(zip(_extents(row["pad_before"]), _extents(row["pad_after"]), strict=True)),
        "dilation": _extents(row["dilation"]),
        "groups": groups,
    }
    if transposed:
        arguments["output_padding"] = _extents(row["output_padding"])
    return Layer(
        name=f"{row['network']}/{row['name']}",
        transposed=transposed,
        input_shape=(batch, c_in, *_extents(row["spatial_in"])),
        weight_shape=(*channels, *_extents(row["kernel"])),
        arguments=arguments,
        output_shape=(batch, c_out, *_extents(row["spatial_out"])),
        mmac=float(row["mmac"]),
        has_bias=row["has_bias"] == "1",
    )
