"""Pictures in rows: where each is, at which place of the chat it stands, and whether it can be read.

In: the messages of a row and its column of pictures. Out: the messages with each picture as a part of a user's turn, or
an error that names what is wrong in the row. Pillow opens pictures where it is installed; nothing is downloaded.
"""

from __future__ import annotations

import base64
import binascii
import importlib.util
import io
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hpcbench.data.values import BadRowError, describe, is_absent, show

if TYPE_CHECKING:
    from PIL import Image

MARK: Final = "<image>"
"""Where a picture of the row's column stands in a text."""
_MARKS: Final = re.compile(r"<image>|<img>(.*?)</img>", re.DOTALL)
"""SWIFT 2.x also writes a picture's path in its place, as Qwen-VL does."""
_OTHER_MEDIA: Final = re.compile(r"<(?:video|audio)>")
_GROUNDING: Final = re.compile(
    r"<(?:ref-object|bbox|ref|box|quad)>|<\|(?:object_ref|box|quad)_start\|>",
)
GROUNDING_COLUMNS: Final = ("objects", "bbox")
"""Columns that say where things are in pictures."""
_EXPECTED: Final = "the path of an image file, or its bytes"
_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_DATA_URL: Final = re.compile(r"data:image/[\w.+-]+;base64,")
IMAGE_TYPES: Final = ("image", "image_url")
"""Types of content parts that are pictures; the second is OpenAI's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSource:
    """One picture: a file, or the bytes of one that the row holds."""

    path: Path | None = None
    data: bytes | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return repr(str(self.path))[1:-1] if self.path is not None else f"an image of {len(self.data or b'')} bytes"


def take_images(value: object, column: str, *, folder: Path | None) -> list[ImageSource]:
    """Return the pictures of a column: one, or a list of them.

    Args:
        value: what the column holds.
        column: its name, for messages.
        folder: what relative paths start from; None where the rows are in no folder.

    Raises:
        BadRowError: something in it cannot be a picture.
    """
    if is_absent(value):
        return []
    values = value if isinstance(value, (list, tuple)) else [value]
    return [
        _take_image(item, column if len(values) == 1 else f"{column}: image {number}", folder)
        for number, item in enumerate(values, start=1)
    ]


def put_images(
    messages: Sequence[Mapping[str, Any]], images: Sequence[ImageSource], *, where: str, folder: Path | None
) -> list[Mapping[str, Any]]:
    """Return the messages with each picture as a part in its place.

    Texts say with `<image>` where the next picture of the column stands, or with `<img>PATH</img>` which one; parts of
    OpenAI's form may name theirs. Without any mark the pictures come before the first question.

    Raises:
        BadRowError: marks and pictures do not match, or a picture stands where it cannot be trained on.
    """
    waiting = list(images)
    placed = [_place(message, waiting, number, where, folder) for number, message in enumerate(messages, start=1)]
    num_placed = sum(1 for _ in images_of(placed))
    if waiting and num_placed == 0:
        first = next((index for index, message in enumerate(placed) if message["role"] == "user"), None)
        if first is None:
            raise BadRowError(f"{where}: {_count(len(waiting))} and no turn of the user", expected="a question")
        parts = [*map(_part, waiting), *_as_parts(placed[first]["content"])]
        placed[first] = {**placed[first], "content": parts}
    elif waiting:
        marks = len(images) - len(waiting)
        raise BadRowError(
            f"{where}: {_count(len(images))} and {marks} places for them",
            expected=f"one {MARK} for each image, or none",
        )
    if next(images_of(placed), None) is not None:
        _refuse_other_marks(placed, where)
    return placed


def images_of(messages: Iterable[Mapping[str, Any]]) -> Iterator[ImageSource]:
    """Yield the pictures of a chat, in their order."""
    for message in messages:
        content = message.get("content")
        if isinstance(content, list):
            yield from (part["image"] for part in content if part["type"] == "image")


def text_of(content: object) -> str:
    """Return the text of a message's content, without its pictures."""
    if isinstance(content, list):
        return "".join(part["text"] for part in content if part["type"] == "text")
    return "" if content is None else str(content)


def _part(image: ImageSource) -> dict[str, Any]:
    return {"type": "image", "image": image}


def _as_parts(content: object) -> list[dict[str, Any]]:
    if isinstance(content, list):
        return content
    return [{"type": "text", "text": str(content)}] if content else []


def _place(
    message: Mapping[str, Any], waiting: list[ImageSource], number: int, where: str, folder: Path | None
) -> Mapping[str, Any]:
    """Return a message with its pictures, which are taken from those that wait."""
    content, place = message.get("content"), f"{where}: message {number}"
    if isinstance(content, list):
        parts = [_resolve(part, waiting, place, folder) for part in content]
    elif isinstance(content, str) and _MARKS.search(content):
        parts = _split(content, waiting, place, folder)
    else:
        return message
    if message["role"] != "user":
        raise BadRowError(f"{place}: an image in a turn of the {message['role']}", expected="images in questions")
    return {**message, "content": parts}


def _split(text: str, waiting: list[ImageSource], place: str, folder: Path | None) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = []
    end = 0
    for found in _MARKS.finditer(text):
        if before := text[end : found.start()]:
            parts.append({"type": "text", "text": before})
        named = found.group(1)
        parts.append(_part(_next(waiting, place) if named is None else _take_image(named.strip(), place, folder)))
        end = found.end()
    return [*parts, {"type": "text", "text": text[end:]}] if text[end:] else parts


def _resolve(part: Mapping[str, Any], waiting: list[ImageSource], place: str, folder: Path | None) -> dict[str, Any]:
    if part["type"] not in IMAGE_TYPES:
        return dict(part)
    value = next(
        (part[key] for key in ("image", "image_url", "url", "path", "data") if not is_absent(part.get(key))), None
    )
    if isinstance(value, dict) and "url" in value:
        value = value["url"]
    return _part(_next(waiting, place) if value is None else _take_image(value, place, folder))


def _next(waiting: list[ImageSource], place: str) -> ImageSource:
    if not waiting:
        raise BadRowError(f"{place}: {MARK} without an image left for it", expected="one image for each mark")
    return waiting.pop(0)


def _take_image(value: object, where: str, folder: Path | None) -> ImageSource:
    if isinstance(value, dict):
        # The image feature of `datasets`: bytes, and the name of the file that they were read from.
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes) and value:
        return ImageSource(data=value)
    if not isinstance(value, str) or not value.strip():
        raise BadRowError(f"{where}: {describe(value)}", expected=_EXPECTED)
    if (found := _DATA_URL.match(value)) is not None:
        try:
            return ImageSource(data=base64.b64decode(value[found.end() :], validate=True))
        except binascii.Error as error:
            raise BadRowError(f"{where}: a data URL whose base64 cannot be read", expected=_EXPECTED) from error
    if value.startswith("file://"):
        value = value.removeprefix("file://")
    elif _URL.match(value):
        raise BadRowError(
            f"{where}: {show(value)} is on the internet, where jobs read nothing", expected="a downloaded image's path"
        )
    path = Path(value)
    if not path.is_absolute() and folder is None:
        raise BadRowError(f"{where}: {show(value)} is relative, and the rows are in no folder", expected=_EXPECTED)
    return ImageSource(path=path if folder is None else folder / path)


def _refuse_other_marks(messages: Sequence[Mapping[str, Any]], where: str) -> None:
    for number, message in enumerate(messages, start=1):
        text = text_of(message.get("content"))
        if found := _OTHER_MEDIA.search(text):
            raise BadRowError(f"{where}: message {number}: {found.group()}", expected="images and text alone")
        if found := _GROUNDING.search(text):
            raise BadRowError(
                f"{where}: message {number}: {found.group()}, a mark of grounding",
                expected="images without places in them",
            )


def _count(number: int) -> str:
    return "1 image" if number == 1 else f"{number} images"


def has_pillow() -> bool:
    """Return whether pictures can be opened here."""
    return importlib.util.find_spec("PIL") is not None


def open_image(source: ImageSource) -> Image.Image:
    """Return a picture, its header read and its pixels not yet.

    Raises:
        BadRowError: it is not there, or no picture that Pillow knows.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            # It warns at half of the size that it refuses; photographs may have 100 megapixels.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return Image.open(io.BytesIO(source.data or b"") if source.path is None else source.path)
    except UnidentifiedImageError as error:
        raise BadRowError(
            f"{source}: not an image that Pillow can read", expected="a PNG or JPEG, for example"
        ) from error
    except OSError as error:
        raise BadRowError(f"{source}: {error.strerror or error}", expected="an image file that can be read") from error
    except (ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadRowError(f"{source}: cannot be read: {error}", expected="an image file that can be read") from error


def decode_image(source: ImageSource) -> Image.Image:
    """Return a picture in RGB, with its pixels read, and upright where its file says how it was taken.

    Raises:
        BadRowError: it is not there, no picture that Pillow knows, or broken.
    """
    from PIL import ImageOps

    with open_image(source) as opened:
        try:
            return ImageOps.exif_transpose(opened).convert("RGB")
        # Decoders raise what they like on damaged data: OSError, SyntaxError, struct.error.
        except Exception as error:
            raise BadRowError(f"{source}: a broken image: {error}", expected="an image file that is whole") from error


@dataclass(slots=True, kw_only=True)
class ImageCheck:
    """Looks at pictures, each once, and at no more than the limits allow.

    Without Pillow it looks whether files are there, and `remarks` says so.
    """

    num_opened: int | None = None
    """How many are opened; None is all. Further ones are not looked at."""
    num_decoded: int = 0
    """How many of these are decoded too, by which alone a picture that was cut off is found."""
    _seen: set[ImageSource] = field(default_factory=set)
    _num_left: int = 0

    def check(self, source: ImageSource) -> None:
        """Check that a picture is there and can be opened.

        Raises:
            BadRowError: it is missing or broken.
        """
        if source.data is None:  # bytes are not kept for their sake
            if source in self._seen:
                return
            if self.num_opened is not None and len(self._seen) >= self.num_opened:
                self._num_left += 1
                return
            self._seen.add(source)
        if source.path is not None and not source.path.is_file():
            raise BadRowError(
                f"no such image: {source}", expected="an image file, its path relative to the data's folder"
            )
        if not has_pillow():
            return
        if self.num_decoded > 0:
            self.num_decoded -= 1
            decode_image(source)
        else:
            open_image(source).close()

    def remarks(self) -> tuple[str, ...]:
        """Return what could not be looked at."""
        if not self._seen:
            return ()
        found = []
        if not has_pillow():
            found.append("not checked: what is in its images, which needs Pillow (hpcbench-llm[images])")
        if self._num_left:
            found.append(f"not checked: {self._num_left} of its images, beyond the first {len(self._seen)}")
        return tuple(found)
