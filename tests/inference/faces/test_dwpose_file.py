"""Files that are not DWPose's network: refused when the worker starts, not in a job."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx
import pytest
from onnx import parser

from inference.faces.dwpose import open_dwpose
from tests.tiny_dwpose import write_tiny_dwpose

#: A network that can be read, of the wrong shape.
OTHER = """
<ir_version: 8, opset_import: ["": 17]>
other ({kind}[{pictures}] x) => ({outputs}) <{sizes}> {{
    pictures = Shape<end = 1>(x)
    most = ReduceMax<keepdims = 0>(x)
    {body}
}}
"""


@pytest.mark.parametrize("bytes_left", [0, 500, 400_000])
def test_a_file_that_is_cut_off_is_refused_by_its_name(tmp_path: Path, bytes_left: int) -> None:
    path = write_tiny_dwpose(tmp_path / "tiny.onnx", (0.5, 0.5, 0.3))
    path.write_bytes(path.read_bytes()[:bytes_left])

    with pytest.raises(ValueError, match=r"tiny\.onnx cannot be read"):
        open_dwpose(path, "cpu")


def test_a_file_that_is_not_there_is_refused_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.onnx cannot be read"):
        open_dwpose(tmp_path / "none.onnx", "cpu")


@pytest.mark.parametrize(
    ("kind", "pictures", "shapes"),
    [
        ("float", "N, 3, 384, 288", ["133, 576"]),
        ("float", "N, 3, 384, 288", ["133, 576", "133, 768", "133, 3"]),
        ("float", "N, 3, 384, 288", ["17, 576", "17, 768"]),
        ("float", "N, 3, 384, 288", ["133, 384", "133, 512"]),
        ("float", "N, 3, 256, 192", ["133, 576", "133, 768"]),
        ("float", "N, 3, 384", ["133, 576", "133, 768"]),
        ("float", "4, 3, 384, 288", ["133, 576", "133, 768"]),
        ("float16", "N, 3, 384, 288", ["133, 576", "133, 768"]),
    ],
    ids=["one", "three", "points", "bins", "size", "rank", "batch", "precision"],
)
def test_another_network_is_refused(
    tmp_path: Path, kind: str, pictures: str, shapes: Sequence[str]
) -> None:
    batch, _, _ = pictures.partition(",")
    graph = OTHER.format(
        kind=kind,
        pictures=pictures,
        outputs=", ".join(f"{kind}[{batch}, {shape}] y{n}" for n, shape in enumerate(shapes)),
        sizes=", ".join(f"int64[2] size{n} = {{{shape}}}" for n, shape in enumerate(shapes)),
        body="\n".join(
            f"shape{n} = Concat<axis = 0>(pictures, size{n}) y{n} = Expand(most, shape{n})"
            for n in range(len(shapes))
        ),
    )
    onnx.save(parser.parse_model(graph), tmp_path / "other.onnx")

    with pytest.raises(ValueError, match="not DWPose"):
        open_dwpose(tmp_path / "other.onnx", "cpu")
