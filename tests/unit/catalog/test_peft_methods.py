"""Methods of peft as plan knows them; `tests/train/test_peft_methods.py` compares the list with the installed peft."""

from __future__ import annotations

from hpcbench.catalog.peft_methods import peft_methods
from hpcbench.schemas.arguments import SftArgs
from hpcbench.schemas.tuners import (
    FIELDS_AS_ARGUMENTS,
    FURTHER_FIELDS,
    REFUSED_FIELDS,
    REFUSED_METHODS,
    REQUIRED_FIELDS,
    list_peft_methods,
    list_tuners,
    peft_arguments,
)


def test_every_method_is_trained_or_refused() -> None:
    own = {"lora", "adalora", "ia3"}
    assert set(list_peft_methods()) | own | REFUSED_METHODS.keys() == peft_methods().keys()
    assert own | {"peft", "shadow"} <= set(list_tuners())


def test_names_of_fields_are_peft_s_and_hide_no_argument() -> None:
    known = {field for method in peft_methods().values() for field in method.fields}
    assert known >= REFUSED_FIELDS.keys()
    for method, fields in {**FIELDS_AS_ARGUMENTS, **FURTHER_FIELDS, **REQUIRED_FIELDS}.items():
        assert peft_methods()[method].fields.keys() >= set(fields)
    for fields in FIELDS_AS_ARGUMENTS.values():
        assert SftArgs.model_fields.keys() >= set(fields.values())
    # The methods' own: `lora_alpha` is also a field of supertuning.
    assert {name for name in peft_arguments() if name in SftArgs.model_fields} <= {"lora_alpha"}
