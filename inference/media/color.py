"""What the numbers of a picture mean as colours: kept where known, else what players assume."""

from __future__ import annotations

from handler.ports import VideoInfo

#: From this short side on, players take an untagged picture for BT.709; below, for BT.601.
HD_SHORT_SIDE = 720

#: What ffprobe may say, and the word by which ffmpeg takes it; anything else is not passed on.
_MATRICES = {
    name: name
    for name in ("bt709", "fcc", "bt470bg", "smpte170m", "smpte240m", "bt2020nc", "bt2020c")
}
_PRIMARIES = {
    name: name
    for name in (
        "bt709", "bt470m", "bt470bg", "smpte170m", "smpte240m", "film", "bt2020", "smpte428",
        "smpte431", "smpte432",
    )
}  # fmt: skip
_TRANSFERS = {
    name: name
    for name in (
        "bt709", "smpte170m", "smpte240m", "linear", "iec61966-2-1", "iec61966-2-4", "bt2020-10",
        "bt2020-12", "smpte2084", "smpte428", "arib-std-b67",
    )
} | {"bt470m": "gamma22", "bt470bg": "gamma28"}  # fmt: skip

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

    A source keeps its numbers, so it is its own size that tells; red, green and blue are converted
    for the size of the output. Always limited range, to which full-range sources are converted.
    """
    size = (width, height) if is_rgb(video) else (video.width, video.height)
    standard, found = assumed_standard(*size), video.color
    return {
        "color_range": "tv",
        "colorspace": _MATRICES.get(found.get("color_space", ""), standard),
        "color_primaries": _PRIMARIES.get(found.get("color_primaries", ""), standard),
        "color_trc": _TRANSFERS.get(found.get("color_transfer", ""), standard),
    }
