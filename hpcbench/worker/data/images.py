"""Pictures to what a model reads: tokens in prompts, pixels in batches, both by the model's own processor.

In: pictures of rows, texts with one placeholder each. Out: the texts with as many tokens as each picture takes, and
tensors beside the token ids of a batch. Which tokens those are depends on a picture's size alone, as in all processors
that hpcbench uses; so they are found once per size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, Protocol

import torch
from PIL import Image

from hpcbench.data.images import ImageSource, decode_image
from hpcbench.data.values import BadRowError
from hpcbench.errors import WorkerError


class HasImages(Protocol):
    """A row with pictures whose tokens are among its ids, or without any."""

    @property
    def images(self) -> tuple[ImageSource, ...]:
        """The pictures, in the order of their tokens."""


Size = tuple[int, int]
"""Width and height in pixels."""
_SIZES_KEPT: Final = 4096
"""Pictures whose size is remembered: a chat is rendered several times in a row."""


class ImageInputs:
    """What one processor makes of pictures."""

    def __init__(self, processor: Any, *, max_pixels: int | None = None) -> None:
        self._processor = processor
        self._max_pixels = max_pixels
        self._texts: dict[Size, str] = {}
        self._size_of = lru_cache(_SIZES_KEPT)(lambda source: self._read(source).size)
        self.token_id: int = processor.image_token_id
        """The token that stands for a part of a picture."""

    @property
    def chat_template(self) -> str | Mapping[str, str] | None:
        """The processor's chat template."""
        found: str | Mapping[str, str] | None = self._processor.chat_template
        return found

    def expand(self, text: str, images: Sequence[ImageSource]) -> str:
        """Return a rendered chat with each picture's placeholder replaced by the picture's tokens.

        Raises:
            WorkerError: there are not as many placeholders as pictures, or a picture cannot be read.
        """
        token = self._processor.image_token
        texts = text.split(token)
        if len(texts) != len(images) + 1:
            raise WorkerError(
                f"{len(images)} images and {len(texts) - 1} places for them ({token}) in the prompt",
                hint=f"take {token} out of the texts of the rows, and leave images to the chat template",
            )
        joined = texts[0]
        for image, following in zip(images, texts[1:], strict=True):
            joined += self._text_of(self._size_of(image)) + following
        return joined

    def make_batch(self, rows: Sequence[HasImages], ids_BT: torch.Tensor) -> dict[str, torch.Tensor]:  # noqa: N803
        """Return the tensors that the model reads beside the token ids; none where no row has a picture.

        The first dimension of pixels is none of the batch: pictures follow one another as their tokens do.
        """
        images = [self._read(source) for row in rows for source in row.images]
        if not images:
            return {}
        processor = self._processor.image_processor
        found = processor(images=images, return_tensors="pt")
        batch = {name: found[name] for name in processor.model_input_names if name in found}
        if "mm_token_type_ids" in self._processor.model_input_names:
            # Positions of Qwen2-VL have three dimensions within pictures: 1 marks their tokens.
            batch["mm_token_type_ids"] = (ids_BT == self.token_id).long()
        return batch

    def _text_of(self, size: Size) -> str:
        if size not in self._texts:
            blank = Image.new("RGB", size)
            found = self._processor(
                text=[self._processor.image_token], images=[[blank]], return_text_replacement_offsets=True
            )
            self._texts[size] = found["text_replacement_offsets"][0][0]["replacement"]
        return self._texts[size]

    def _read(self, source: ImageSource) -> Image.Image:
        try:
            return shrink(decode_image(source), self._max_pixels)
        except BadRowError as error:
            raise WorkerError(f"{error.fault}; expected: {error.expected}") from error


def shrink(image: Image.Image, max_pixels: int | None) -> Image.Image:
    """Return a picture of at most so many pixels, in its proportions, as ms-swift's `rescale_image` makes it."""
    width, height = image.size
    if max_pixels is None or width * height <= max_pixels:
        return image
    factor = math.sqrt(max_pixels / (width * height))
    return image.resize((max(1, int(width * factor)), max(1, int(height * factor))), Image.Resampling.BILINEAR)
