"""Weights of few bits, written as a model folder: GPTQ and AWQ by gptqmodel, bitsandbytes' by transformers.

In: a model folder of plain weights, rows to calibrate on. Out: a folder that transformers loads. It changes nothing of
the model that it reads.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import torch

from hpcbench.errors import WorkerError, first_line
from hpcbench.schemas.arguments import Dtype, ExportArgs, SftArgs
from hpcbench.schemas.request import Device
from hpcbench.worker.export.calibration import CalibrationRows
from hpcbench.worker.models.loading import load_checkpoint
from hpcbench.worker.models.quantization import limit_gptqmodel_workers, torch_dtype
from hpcbench.worker.requirements import require

logger = logging.getLogger(__name__)

_FORMATS: Final = {"gptq": "gptq", "awq": "gemm"}
"""How weights are packed, by quant_method; what transformers and vLLM read."""


def quantize_calibrated(
    source: Path,
    target: Path,
    *,
    args: SftArgs,
    export: ExportArgs,
    rows: CalibrationRows,
    device: Device,
    offload: Path,
    on_layer: Callable[[int], None],
) -> None:
    """Quantise by GPTQ or AWQ.

    Args:
        source: folder of plain weights.
        target: folder to write to.
        args: of the model.
        export: how it is quantised.
        rows: to calibrate on.
        device: where it is computed.
        offload: folder for layers that wait, removed at the end.
        on_layer: called after each decoder layer with its number; what it raises ends the quantisation.

    Raises:
        WorkerError: gptqmodel is missing, or cannot quantise this model.
    """
    limit_gptqmodel_workers()
    require("gptqmodel", for_what=f"quant_method: {export.quant_method}")
    import gptqmodel

    shutil.rmtree(offload, ignore_errors=True)
    method = export.quant_method
    config = _describe(export, device=device, offload=offload)
    options: dict[str, Any] = {"device_map": "auto"} if export.quant_device_map == "auto" and device == "cuda" else {}
    # Left to itself gptqmodel takes AWQ's kernel for GPUs, and says that CUDA is not available.
    backend = gptqmodel.BACKEND.AWQ_TORCH if method == "awq" and device == "cpu" else gptqmodel.BACKEND.AUTO
    stopped_by: list[BaseException] = []

    def after_layer(layer_idx: int, submodule_finalized: bool) -> None:  # noqa: FBT001  # gptqmodel's names
        if submodule_finalized or stopped_by:
            return
        try:
            on_layer(layer_idx)
        except BaseException as error:
            stopped_by.append(error)
            raise

    try:
        model = gptqmodel.GPTQModel.load(
            str(source),
            config,
            dtype=torch_dtype(computing_dtype(args, export)),
            trust_remote_code=args.trust_remote_code,
            **options,
        )
        model.layer_callback = after_layer
        calibration = [{"input_ids": list(ids), "attention_mask": [1] * len(ids)} for ids in rows.ids]
        model.quantize(calibration, batch_size=export.quant_batch_size, backend=backend)
        if stopped_by:
            raise stopped_by[0]
        model.save(str(target), max_shard_size=export.max_shard_size)
    except torch.cuda.OutOfMemoryError:
        raise
    # Layers of odd sizes end in a bare AssertionError, unknown architectures in a TypeError.
    except (ValueError, TypeError, RuntimeError, AssertionError, NotImplementedError, KeyError) as error:
        if stopped_by:
            raise stopped_by[0] from None
        reason = first_line(error) or type(error).__name__
        raise WorkerError(
            f"quant_method: {method} cannot quantise this model: {reason}",
            hint=f"gptqmodel's own words are in the log above; {_other_method(export)}",
        ) from error
    finally:
        shutil.rmtree(offload, ignore_errors=True)


def _describe(export: ExportArgs, *, device: Device, offload: Path) -> Any:
    """Return gptqmodel's description of the weights that are asked for."""
    import gptqmodel

    return gptqmodel.QuantizeConfig(
        bits=export.quant_bits,
        group_size=export.group_size,
        quant_method=export.quant_method,
        format=_FORMATS[export.quant_method],
        device=device,
        # Its own default is /tmp, which is memory on many nodes.
        offload_to_disk_path=str(offload),
    )


def computing_dtype(args: SftArgs, export: ExportArgs) -> Dtype:
    """Return the dtype that weights have while they are quantised, and embeddings and norms afterwards."""
    # gptqmodel packs AWQ's weights out of 16 bits alone.
    return "bf16" if export.quant_method == "awq" and args.dtype == "fp32" else args.dtype


def quantize_rounded(source: Path, target: Path, *, args: SftArgs, export: ExportArgs, device: Device) -> None:
    """Quantise by bitsandbytes, which needs no data.

    Raises:
        WorkerError: bitsandbytes is missing, or cannot quantise this model.
    """
    model = load_checkpoint(args.model_copy(update={"quantization_bit": export.quant_bits}), source, device)
    model.save_pretrained(target, max_shard_size=export.max_shard_size)


def _other_method(export: ExportArgs) -> str:
    if export.quant_method == "awq":
        return "set quant_method: gptq, which takes layers of all sizes"
    return "set group_size to a number that divides the inputs of every layer, or quant_method: bnb"
