"""What the numbers of a picture mean as colours: kept where known, else what players assume."""

from __future__ import annotations

from handler.ports import VideoInfo

#: From this short side on, players take an untagged picture for BT.709; below, for BT.601.
HD_SHORT_SIDE = 720

#: What ffprobe may say that ffmpeg takes by the same word; anything else is not passed on.
_MATRICES = frozenset({"bt709", "fcc", "bt470bg", "smpte170m", "smpte240m", "bt2020nc", "bt2020c"})
_PRIMARIES = frozenset(
    {
        "bt709", "bt470m", "bt470bg", "smpte170m", "smpte240m", "film", "bt2020", "smpte428",
        "smpte431", "smpte432",
    }
)  # fmt: skip
_TRANSFERS = frozenset(
    {
        "bt709", "bt470m", "bt470bg", "smpte170m", "smpte240m", "linear", "iec61966-2-1",
        "iec61966-2-4", "bt2020-10", "bt2020-12", "smpte2084", "smpte428", "arib-std-b67",
    }
)  # fmt: skip

#: Pixel formats that hold red, green and blue, by how their names begin.
_RGB = ("rgb", "bgr", "gbr", "argb", "abgr", "0rgb", "0bgr", "x2", "pal8")


def assumed_standard(width: int, height: int) -> str:
    """Return what players take an untagged picture of that size for."""
    return "bt709" if min(width, height) >= HD_SHORT_SIDE else "smpte170m"


def is_rgb(video: VideoInfo) -> bool:
    """Tell whether a picture must be converted to luma and chroma, by a matrix of our choice."""
    return video.pixel_format.startswith(_RGB)


def color_tags(video: VideoInfo, width: int, height: int) -> dict[str, str]:
    """Return the colour tags of an output of that size: the source's, or what players take it for.

    In the words of ffmpeg's ``setparams``. A source keeps its numbers, so it is its own size that
    tells; red, green and blue are converted for the size of the output. Always limited range, to
    which full-range sources are converted.
    """
    size = (width, height) if is_rgb(video) else (video.width, video.height)
    standard, found = assumed_standard(*size), video.color
    return {
        "range": "tv",
        "colorspace": _known(found.get("color_space"), _MATRICES, standard),
        "color_primaries": _known(found.get("color_primaries"), _PRIMARIES, standard),
        "color_trc": _known(found.get("color_transfer"), _TRANSFERS, standard),
    }


def _known(name: str | None, names: frozenset[str], otherwise: str) -> str:
    return name if name is not None and name in names else otherwise
