"""Arguments of models that read pictures: how large pictures are, and which parts of a model are trained."""

from __future__ import annotations

from hpcbench.schemas.arguments.base import Arguments, PositiveInt


class ImageArgs(Arguments):
    """What is read of pictures, and what of an image model is trained."""

    max_pixels: PositiveInt | None = None
    """Larger images are scaled down to so many pixels before the model's processor reads them; None leaves them to the
    processor. Alias: rescale_image."""
    freeze_llm: bool = False
    """Leave the language model of an image model as it is."""
    freeze_vit: bool = True
    """Leave an image model's encoder of images as it is; false trains it, or gives it adapters too."""
    freeze_aligner: bool = True
    """Leave the layers between encoder and language model as they are."""
