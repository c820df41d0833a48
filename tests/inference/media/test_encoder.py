"""The encoder: NVENC where one picture shows that it works, x264 elsewhere, and a reason if asked.

These stories are true with and without such a card: what ffmpeg itself says of NVENC, when asked
for nothing special, is what the worker must say.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from shutil import which

import pytest

from handler.errors import ProcessingError, Stage, ToolMissing
from handler.job import SyncMode
from handler.ports import VideoInfo
from inference.media.child import CUDA_DATA_BYTES, ChildFailed, writing
from inference.media.color import color_tags
from inference.media.encoder import Encoder, choose_encoder
from inference.media.limits import Limits
from inference.media.probe import FfprobeGate
from inference.media.write import ClipSpec, write_clip
from tests.clips import frame, numbers_of, reader, sound

LIMITS = Limits()
GATE = FfprobeGate(LIMITS)
PATIENT = 20

confined = pytest.mark.skipif(not which("prlimit"), reason="bounds need Linux's prlimit")


@pytest.fixture(scope="module")
def trouble() -> str:
    """Return what ffmpeg has against NVENC on this machine; nothing if it works."""
    picture = "-f lavfi -i color=size=256x256:duration=0.04 -c:v h264_nvenc -f null -"
    command = ["ffmpeg", "-hide_banner", "-v", "error", *picture.split()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return re.sub(r"^\[.*?\] ", "", done.stderr.partition("\n")[0]) if done.returncode else ""


def spec_for(voice: Path, encoder: Encoder, size: tuple[int, int] = (256, 256)) -> ClipSpec:
    """Return how to write a second at 30 frames a second."""
    width, height = size
    source = VideoInfo(codec="h264", width=width, height=height, fps=Fraction(30), duration=1)
    return ClipSpec(
        width=width,
        height=height,
        fps=Fraction(30),
        frames=30,
        crf=18,
        color=color_tags(source, width, height),
        voice=sound(voice, 1.0, 48_000, loudness=0.1),
        audio=GATE.voice(voice),
        sync_mode=SyncMode.BOUNCE,
        encoder=encoder,
    )


def write(target: Path, spec: ClipSpec) -> int:
    """Write numbered frames."""
    frames = (frame(number, spec.width, spec.height) for number in range(spec.frames))
    return write_clip(frames, target, spec, LIMITS)


# -- the choice ------------------------------------------------------------------------------------


def test_without_a_wish_nvenc_is_chosen_exactly_where_it_works(trouble: str) -> None:
    chosen = choose_encoder(None, LIMITS)

    assert chosen is (Encoder.LIBX264 if trouble else Encoder.NVENC)


def test_nvenc_that_does_not_work_is_refused_with_the_reason_and_what_to_do(trouble: str) -> None:
    if not trouble:
        pytest.skip("NVENC works here")

    with pytest.raises(ToolMissing, match="ENCODER=auto") as refusal:
        choose_encoder(Encoder.NVENC, LIMITS)

    # The very reason for which ffmpeg fails without any option of ours.
    assert trouble in f"{refusal.value}"


def test_nvenc_that_works_may_be_wished_for(trouble: str) -> None:
    if trouble:
        pytest.skip(trouble)

    assert choose_encoder(Encoder.NVENC, LIMITS) is Encoder.NVENC


def test_whoever_wants_x264_waits_for_no_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")

    chosen = choose_encoder(Encoder.LIBX264, LIMITS)

    assert chosen is Encoder.LIBX264
    with pytest.raises(ToolMissing, match="ffmpeg is not installed"):
        choose_encoder(None, LIMITS)


def test_a_driver_that_does_not_answer_is_not_waited_for(running: Callable[[], list[str]]) -> None:
    impatient = Limits(stall_seconds=0.001)

    chosen = choose_encoder(None, impatient)

    assert chosen is Encoder.LIBX264
    assert not running()
    with pytest.raises(ToolMissing, match=r"did not end within 0\.001 s"):
        choose_encoder(Encoder.NVENC, impatient)


# -- the clip --------------------------------------------------------------------------------------


def test_what_is_chosen_writes_every_frame_in_the_colours_that_were_asked_for(
    tmp_path: Path,
) -> None:
    spec, out = spec_for(tmp_path / "voice.wav", choose_encoder(None, LIMITS)), tmp_path / "out.mp4"

    written = write(out, spec)

    found = GATE.face(out)
    assert (written, found.codec, found.fps) == (30, "h264", 30)
    assert found.pixel_format == "yuv420p"
    assert found.color["color_space"] == spec.color["colorspace"]
    assert numbers_of(reader(out).forward()) == list(range(30))


@pytest.mark.parametrize("size", [(64, 48), (256, 48), (48, 256), (4098, 160)])
def test_a_picture_of_a_size_that_nvenc_cannot_take_is_written_all_the_same(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    # True even where there is no NVENC at all, since it is not asked.
    spec = spec_for(tmp_path / "voice.wav", Encoder.NVENC, size)

    written = write(tmp_path / "out.mp4", spec)

    found = GATE.face(tmp_path / "out.mp4")
    assert (written, (found.width, found.height)) == (30, size)


@pytest.mark.parametrize("size", [(160, 160), (1080, 1920), (3840, 2160), (4096, 2024)])
def test_pictures_of_every_usual_size_are_nvencs(size: tuple[int, int]) -> None:
    assert Encoder.NVENC.fitting(*size) is Encoder.NVENC


def test_a_card_that_fails_when_the_job_starts_fails_the_job_for_another_worker_to_try(
    tmp_path: Path, trouble: str, running: Callable[[], list[str]]
) -> None:
    if not trouble:
        pytest.skip("NVENC works here")

    with pytest.raises(ProcessingError) as failure:
        write(tmp_path / "out.mp4", spec_for(tmp_path / "voice.wav", Encoder.NVENC))

    assert (failure.value.stage, failure.value.retryable) == (Stage.POSTPROCESSING, True)
    assert trouble in f"{failure.value}"
    assert not running()


def test_the_best_quality_is_not_mistaken_for_none_asked_for() -> None:
    qualities = [Encoder.NVENC.options(crf)["cq"] for crf in (0, 1, 18, 51)]

    # To NVENC, 0 is a word for "automatic".
    assert qualities == [1, 1, 18, 51]


# -- what CUDA needs of a child --------------------------------------------------------------------


def test_a_child_that_uses_the_card_learns_where_it_is_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "B2_APP_KEY"):
        monkeypatch.setenv(name, "/of/the/worker")

    with writing(["bash", "-c", f"env > {tmp_path}/known"], cuda=True) as child:
        child.finish(PATIENT)

    names = {line.partition("=")[0] for line in (tmp_path / "known").read_text().splitlines()}
    assert {"LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES"} <= names
    assert "B2_APP_KEY" not in names


@confined
def test_a_child_that_uses_the_card_may_reserve_far_more_memory_than_it_may_fill(
    tmp_path: Path,
) -> None:
    # As CUDA does: pages that nobody may touch yet.
    reserve = f"import mmap; kept = mmap.mmap(-1, {16 * CUDA_DATA_BYTES}, prot=0, flags=34)"
    fill = f"print('reserved', flush=True); x = bytearray({2 * CUDA_DATA_BYTES})"
    script = f'exec {sys.executable} -c "{reserve}; {fill}" > {tmp_path}/said'

    with writing(["bash", "-c", script], cuda=True) as child:
        with pytest.raises(ChildFailed, match="MemoryError"):
            child.finish(PATIENT)

    assert (tmp_path / "said").read_text() == "reserved\n"


@confined
def test_a_child_without_the_card_may_not_even_reserve_that_much() -> None:
    reserve = f"import mmap; kept = mmap.mmap(-1, {16 * CUDA_DATA_BYTES}, prot=0, flags=34)"

    with writing([sys.executable, "-c", reserve]) as child:
        with pytest.raises(ChildFailed, match="Cannot allocate memory"):
            child.finish(PATIENT)


def test_an_ordinary_child_hears_nothing_of_the_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", "/of/the/worker")

    with writing(["bash", "-c", f"env > {tmp_path}/known"]) as child:
        child.finish(PATIENT)

    assert "LD_LIBRARY_PATH" not in (tmp_path / "known").read_text()
