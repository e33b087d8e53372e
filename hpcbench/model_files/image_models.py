"""The types of models that read pictures and that hpcbench trains: their processors, and what their modules do.

In: a model's configuration, names of modules. Out: what is known of the type (pure). The names of the parts are
ms-swift's: llm, vit, aligner. A type whose processor keeps to the same rules is a line in the table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

Part = Literal["llm", "vit", "aligner"]
PARTS: Final[tuple[Part, ...]] = ("llm", "vit", "aligner")

IMAGE_PROCESSOR: Final = "preprocessor_config.json"
"""The file that says how pictures become pixels."""
PROCESSOR_FILES: Final = (
    *(IMAGE_PROCESSOR, "processor_config.json", "video_preprocessor_config.json"),
    *("chat_template.json", "chat_template.jinja"),
)
"""Files by which AutoProcessor finds a model's processor; a trained model needs them as its base does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageModel:
    """One type of model."""

    processor: str
    """Its class in transformers."""
    vit: str
    """The module that encodes pictures."""
    aligner: str
    """The module between it and the language model; it may stand in the encoder."""


IMAGE_MODELS: Final[Mapping[str, ImageModel]] = {
    "qwen2_vl": ImageModel(processor="Qwen2VLProcessor", vit="model.visual", aligner="model.visual.merger"),
    "qwen2_5_vl": ImageModel(processor="Qwen2_5_VLProcessor", vit="model.visual", aligner="model.visual.merger"),
    "idefics3": ImageModel(processor="Idefics3Processor", vit="model.vision_model", aligner="model.connector"),
    "smolvlm": ImageModel(processor="SmolVLMProcessor", vit="model.vision_model", aligner="model.connector"),
}
"""By the model_type of config.json."""


def find_image_model(config: Mapping[str, Any]) -> ImageModel | None:
    """Return what is known of a model's type, or None where it is none that reads pictures here."""
    return IMAGE_MODELS.get(str(config.get("model_type")))


def part_of(name: str, model: ImageModel) -> Part:
    """Return the part that a module or weight belongs to, by its name in transformers' model."""
    dotted = f"{name}."
    if dotted.startswith(f"{model.aligner}."):
        return "aligner"
    return "vit" if dotted.startswith(f"{model.vit}.") else "llm"
