"""The input of a run: sign-ups, and files with real content of which the right answers are known."""

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from uuid import uuid4

from PIL import Image

WORDS = ["engines", "weave", "numbers", "as", "looms", "weave", "leaves,", "and", "note", "each", "thread"]


@dataclass(frozen=True)
class SignUp:
    id: str
    name: str
    email: str


@dataclass(frozen=True)
class Upload:
    id: str
    filename: str
    content: bytes
    facts: dict[str, object]
    """What the app must find out about the content by itself."""


Request = SignUp | Upload


def requests(count: int) -> Iterator[Request]:
    """In each ten requests: six sign-ups, two texts, two pictures."""
    for number in range(count):
        match number % 10:
            case 2 | 6:
                yield text_file(number)
            case 4 | 9:
                yield picture_file(number)
            case _:
                yield sign_up(number)


def sign_up(number: int) -> SignUp:
    return SignUp(id=uuid4().hex, name=f"Person {number}", email=f"person-{number}@example.com")


def text_file(number: int) -> Upload:
    lines = [" ".join(random.choices(WORDS, k=random.randint(1, 12))) for _ in range(random.randint(50, 500))]
    lines.append(f"file number {number}")  # no two files are alike, so a report says which file it is about
    words = sum(len(line.split()) for line in lines)
    return upload(f"{number}.txt", "\n".join(lines).encode(), text={"lines": len(lines), "words": words})


def picture_file(number: int) -> Upload:
    width, height = random.randint(200, 600), random.randint(200, 600)
    noise = Image.effect_noise((width, height), sigma=random.uniform(20, 80))
    png = BytesIO()
    Image.merge("RGB", (noise, noise.rotate(90), noise.rotate(180))).save(png, "PNG", compress_level=1)
    return upload(f"{number}.png", png.getvalue(), picture={"width": width, "height": height})


def upload(filename: str, content: bytes, **found: object) -> Upload:
    facts = {"filename": filename, "sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    facts |= {"picture": None, "text": None} | found
    return Upload(id=uuid4().hex, filename=filename, content=content, facts=facts)
