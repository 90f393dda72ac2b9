"""Options of `headwise reid crop`."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class CropOptions:
    """Cut people out of a video or a folder of frames: pictures and crops.csv, ready for train and
    embed; resumable.
    """

    input: str
    """Video file, or folder of frames (pictures in the order of their names; a sequence of
    MOTChallenge).
    """
    output: str
    """Folder to write: a picture of each crop, their table crops.csv, and crops.png with the first
    of them.
    """
    boxes: str | None = None
    """Table of boxes: frame, x, y, width, height [score, identity, camera, class]; or gt.txt,
    det.txt of MOTChallenge. Without it a detector finds them."""
    config: str | None = None
    """Config of mmdetection for a detector. It is a program that is run: give one that you
    trust.
    """
    checkpoint: str | None = None
    """Weights of the detector (.pth of mmdetection)."""
    classes: tuple[str, ...] = ("person",)
    """Classes to keep, by name or number; person is also class 0 where classes have no names."""
    least_score: float = 0.5
    """Score below which a box is left out; boxes without a score stay."""
    margin: float = 0.0
    """Share of its width and height by which a box is widened, half of it on each side."""
    least: int = 16
    """Pixels of the shorter side below which a crop is left out."""
    every: int = 1
    """Take every so many-th frame."""
    camera: str | None = None
    """Name of the camera (default: the boxes' own, else the input's name); of a table with cameras
    only its boxes.
    """
    overwrite: bool = False
    """Replace crops that are in OUTPUT, and begin anew where another start left off."""
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Kind of device of the detector."""
