"""Uploaded files: each is kept in a folder of its own, and its report and thumbnail are put beside it."""

import hashlib
import os
import shutil
from io import BytesIO
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from PIL import Image, UnidentifiedImageError
from pydantic import BaseModel

from segundo import task

UPLOADS = Path(os.environ.get("SIGNUP_UPLOADS", "uploads")).absolute()
THUMBNAIL = (128, 128)


class Text(BaseModel):
    lines: int
    words: int


class Picture(BaseModel):
    width: int
    height: int


class Report(BaseModel):
    filename: str
    sha256: str
    size: int
    picture: Picture | None = None
    text: Text | None = None


def keep(content: BinaryIO) -> Path:
    """Store an upload under a name of our own. Returns once the disk has it, as the answer will promise."""
    path = UPLOADS / uuid4().hex / "upload"
    path.parent.mkdir(parents=True)
    with path.open("xb") as file:
        shutil.copyfileobj(content, file)
        file.flush()
        os.fsync(file.fileno())
    return path


@task
def describe(path: Path, filename: str) -> Report:
    """Write `report.json` and, of a picture, `thumbnail.png` beside it. A second run writes the same."""
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    picture = describe_picture(path)
    text = None if picture else describe_text(path)
    report = Report(filename=filename, sha256=sha256, size=path.stat().st_size, picture=picture, text=text)
    replace(path.with_name("report.json"), report.model_dump_json(indent=2).encode())
    return report


def describe_picture(path: Path) -> Picture | None:
    try:
        with Image.open(path) as image:
            picture = Picture(width=image.width, height=image.height)
            image.thumbnail(THUMBNAIL)
            png = BytesIO()
            image.convert("RGBA").save(png, "PNG")
    except UnidentifiedImageError:
        return None
    replace(path.with_name("thumbnail.png"), png.getvalue())
    return picture


def describe_text(path: Path) -> Text | None:
    lines = words = 0
    try:
        with path.open(encoding="utf-8") as file:
            for line in file:
                lines += 1
                words += len(line.split())
    except UnicodeDecodeError:
        return None
    return Text(lines=lines, words=words)


def replace(path: Path, content: bytes) -> None:
    """Write in one step: a reader sees the old file or the new one, and a crash leaves no half of either."""
    half = path.with_suffix(".part")
    half.write_bytes(content)
    half.replace(path)
