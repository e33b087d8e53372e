"""Single columns: which value they take, how it is printed, and which rows are best."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from hpcbench.report import columns as c
from hpcbench.report.cells import dataset_label, hypers, number_text, swift_tuner_params, tuner_params
from hpcbench.report.column import Column, cell_text
from hpcbench.report.environment import environment_lines, flatten
from hpcbench.report.facts import Facts, experiment_state, facts_of
from hpcbench.report.layouts import swift_columns, swift_export_columns, table_columns
from hpcbench.report.notes_and_warnings import notes_of, warnings_of
from hpcbench.report.rows import Row, averaged, best_rows, column_cells, merge_repeats
from hpcbench.report.score_columns import eval_column
from hpcbench.schemas.arguments import SftArgs
from hpcbench.schemas.collection import ExperimentView
from hpcbench.schemas.metrics import CommandMetrics, RankMemory, TrainMetrics
from hpcbench.schemas.record import SampledMemory
from hpcbench.schemas.states import JobState
from tests.support import report_parts as parts


def rows_of(*experiments: ExperimentView) -> tuple[Row, ...]:
    return merge_repeats(facts_of(view) for view in experiments)


def trained(
    name: str = "a", *, args: dict[str, object] | None = None, base: str | None = None, **update: object
) -> ExperimentView:
    """Return a finished training whose metrics are `update`d."""
    metrics = parts.train_metrics(
        trainable=10, total=100, train_loss=1.0, eval_loss=2.0, num_samples=100, train_time_s=10.0, reserved_gib=(3.0,)
    )
    metrics = TrainMetrics.model_validate(metrics.model_dump() | update)
    job = parts.make_job(
        name, "train", suite="s", args=parts.QWEN | (args or {}), metrics=metrics, environment=parts.A100
    )
    return ExperimentView(suite="s", name=name, base_experiment=base, cmd="sft", main=job)


def best_names(column: Column, *experiments: ExperimentView) -> set[str]:
    rows = rows_of(*experiments)
    return {rows[number].name for number in best_rows(column, rows)}


def text_of(column: Column, view: ExperimentView) -> str | None:
    return cell_text(column, facts_of(view))


def test_what_ran_of_the_arguments_for_speed_is_a_column() -> None:
    column = next(column for column in c.DATA_ONLY if column.key == "took_effect")
    ran = {"torch_compile": "inductor: 2 graphs, 0 graph breaks", "optim": "fused"}
    assert (
        text_of(column, trained(took_effect=ran)) == "optim: fused; torch_compile: inductor: 2 graphs, 0 graph breaks"
    )
    assert column.get(facts_of(trained())) is None


@pytest.mark.parametrize(
    ("peaks", "text"),
    [
        ((27.74,), "27.74"),
        ((35.651, 35.649), "35.65 x2"),
        ((73.71, 78.54), "73.71+78.54"),
        ((35.1, 35.2, 35.3, 35.0), "35.00-35.30 x4"),
    ],
)
def test_memory_of_ranks_is_joined(peaks: tuple[float, ...], text: str) -> None:
    memory = tuple(RankMemory(rank=rank, reserved_gib=peak) for rank, peak in enumerate(peaks))
    assert text_of(c.MEMORY, trained(memory=[rank.model_dump() for rank in memory])) == text


def swift_text(header: str, view: ExperimentView) -> str | None:
    return text_of(next(column for column in swift_columns() if column.header == header), view)


@pytest.mark.parametrize(
    ("peaks", "text"),
    [((27.74,), "27.74GiB"), ((35.651, 35.649), "35.65GiB*2"), ((35.1, 35.2), "35.10GiB/35.20GiB")],
)
def test_memory_of_ranks_in_the_spelling_of_swift(peaks: tuple[float, ...], text: str) -> None:
    memory = [RankMemory(rank=rank, reserved_gib=peak).model_dump() for rank, peak in enumerate(peaks)]
    assert swift_text("memory", trained(memory=memory)) == text


def test_memory_of_one_model_on_several_gpus_is_that_of_each() -> None:
    memory = RankMemory(rank=0, reserved_gib=152.25, reserved_gib_by_gpu=(73.71, 78.54))
    view = trained(memory=[memory.model_dump()])
    assert text_of(c.MEMORY, view) == "73.71+78.54"
    assert swift_text("memory", view) == "73.71+78.54GiB"
    assert c.MEMORY.get(facts_of(view)) == 78.54
    alike = RankMemory(rank=0, reserved_gib=60.0, reserved_gib_by_gpu=(20.0, 20.0, 20.0))
    assert text_of(c.MEMORY, trained(memory=[alike.model_dump()])) == "20.00+20.00+20.00"


@pytest.mark.parametrize(("attention", "text"), [("flash_attention_2", "True"), ("sdpa", "sdpa"), ("eager", "eager")])
def test_the_layout_of_swift_says_which_attention_ran(attention: str, text: str) -> None:
    assert swift_text("flash_attn", trained(attention=attention)) == text


def test_what_ran_otherwise_than_asked_for_is_warned_of() -> None:
    said = "flash attention was asked for and runs on GPUs only; sdpa ran instead"
    first = trained("a", deviations={"use_flash_attn": said})
    of_0_2 = trained("b", unknown={"attention": said})
    assert warnings_of([facts_of(view) for view in (first, of_0_2, trained("c"))]) == (
        f"use_flash_attn: {said} (a, b)",
    )


def test_a_training_that_went_on_from_a_checkpoint_says_which_steps_its_figures_are_of() -> None:
    view = trained("a", resumed_from="/runs/first/last", resumed_from_step=50)
    assert warnings_of([facts_of(view), facts_of(trained("b"))]) == (
        "a: went on from /runs/first/last at step 50; its losses, samples and times are of steps 51 to 120",
    )


@pytest.mark.parametrize("of_eval", ["llama of the catalog, sha256 2", "chatml of the catalog, sha256 1", None])
def test_an_eval_with_another_chat_template_than_its_training_is_warned_of(of_eval: str | None) -> None:
    metrics = parts.eval_metrics("gsm8k", "acc,none", 0.5).model_copy(update={"template": of_eval})
    job = parts.make_job("a", "eval-gsm8k", suite="s", cmd="eval", metrics=metrics, environment=parts.A100)
    view = trained("a", template="chatml of the catalog, sha256 1")
    found = warnings_of([facts_of(replace(view, evals=(job,)))])
    said = (
        "a eval-gsm8k: prompts by another chat template (llama of the catalog, sha256 2) than in training (chatml of the "
        "catalog, sha256 1)"
    )
    assert found == ((said,) if of_eval is not None and of_eval.startswith("llama") else ())


def test_memory_without_a_gpu_is_marked_as_host_memory() -> None:
    view = trained(memory=[{"rank": 0, "host_rss_gib": 1.92}])
    assert text_of(c.MEMORY, view) == "1.92 (host)"


def test_memory_of_a_program_is_what_was_seen_from_outside() -> None:
    metrics = CommandMetrics(values={})
    sampled = SampledMemory(gpu_peak_gib=(31.2, 31.2), host_rss_peak_gib=9.0)
    job = parts.make_job("p", "train", suite="s", cmd="command", metrics=metrics, sampled=sampled)
    view = ExperimentView(suite="s", name="p", cmd="command", main=job)
    assert text_of(c.MEMORY, view) == "31.20 x2 (nvml)"


def test_figures_of_a_failed_training_are_no_results() -> None:
    metrics = facts_of(trained()).train
    failed = parts.make_job("a", "train", suite="s", args=parts.QWEN, metrics=metrics, state=JobState.FAILED)
    view = ExperimentView(suite="s", name="a", cmd="sft", main=failed)
    for column in (c.MEMORY, c.TRAIN_LOSS, c.TRAIN_SPEED, c.TRAINABLE):
        assert text_of(column, view) is None


def test_train_speed_counts_all_epochs() -> None:
    view = trained(num_samples=175086, train_time_s=95338.71, samples_per_second=175086 / 95338.71)
    assert text_of(c.TRAIN_SPEED, view) == "1.84"
    assert swift_text("train speed(samples/s)", view) == "1.84(175086 samples/95338.71 seconds)"


def test_infer_speed_adds_up_all_evals() -> None:
    evals = tuple(
        parts.make_job(
            "a", f"eval-{name}", suite="s", cmd="eval", metrics=parts.eval_metrics(name, "acc,none", 0.5, infer=infer)
        )
        for name, infer in (("x", (2000, 100.0)), ("y", (345, 35.29)))
    )
    view = ExperimentView(suite="s", name="a", cmd="eval", evals=evals)
    assert text_of(c.INFER_SPEED, view) == "17.33"
    assert swift_text("infer speed(tokens/s)", view) == "17.33(2345 tokens/135.29 seconds)"


def test_learning_rate_of_a_baseline_is_not_shown() -> None:
    job = parts.make_job(
        "b", "eval-x", suite="s", cmd="eval", args=parts.QWEN, metrics=parts.eval_metrics("x", "acc,none", 0.5)
    )
    view = ExperimentView(suite="s", name="b", cmd="eval", evals=(job,))
    assert text_of(c.MODEL, view) == "qwen-7b-chat"
    for column in (c.HYPERS, c.TUNER, c.TUNER_PARAMS, c.DATASET):
        assert text_of(column, view) is None


@pytest.mark.parametrize(
    ("args", "ours", "original"),
    [
        (
            {"lora_target_modules": "ALL"},
            "rank=8/target=ALL/alpha=32",
            "rank=8/target=ALL/alpha=32/lr_ratio=None/use_rslora=False/use_dora=False",
        ),
        (
            {"lora_target_modules": "q_proj v_proj", "lora_lr_ratio": 16, "use_dora": True, "neftune_noise_alpha": 15},
            "rank=8/target=q_proj,v_proj/alpha=32/lr_ratio=16/use_dora=True/neftune_noise_alpha=15",
            "rank=8/target=q_proj v_proj/alpha=32/lr_ratio=16.0/use_rslora=False/use_dora=True/neftune_noise_alpha=15.0",
        ),
        ({"sft_type": "full"}, "", ""),
        (
            {"sft_type": "adalora", "lora_target_modules": "ALL"},
            "rank=8/init_rank=12/target=ALL/alpha=32",
            "rank=8/target=ALL/alpha=32/lr_ratio=None/use_rslora=False/use_dora=False",
        ),
        ({"sft_type": "adapter"}, "adapter_length=128", ""),
        ({"sft_type": "ia3"}, "", ""),
        ({"sft_type": "llamapro"}, "num_blocks=4", "num_blocks=4"),
        (
            {"sft_type": "full", "use_galore": "true", "galore_per_parameter": True, "galore_scale": 0.25},
            "galore_rank=128/galore_scale=0.25/galore_per_parameter=True",
            "galore_rank=128/galore_per_parameter=true/galore_with_embedding=false",
        ),
        (
            {"lora_target_modules": "ALL", "packing": True, "lazy_tokenize": True, "neftune_noise_alpha": 15},
            "rank=8/target=ALL/alpha=32/packing=True/lazy_tokenize=True/neftune_noise_alpha=15",
            "rank=8/target=ALL/alpha=32/lr_ratio=None/use_rslora=False/use_dora=False/packing=True/neftune_noise_alpha=15.0",
        ),
        (
            {"sft_type": "ia3", "use_loss_scale": True, "loss_on_all_rounds": True},
            "use_loss_scale=True/loss_on_all_rounds=True",
            "",
        ),
        (
            {"sft_type": "galore", "galore_quantization": True, "galore_proj_quant": "true", "galore_proj_bits": "8"},
            "galore_rank=128/galore_quantization=True/galore_proj_bits=8",
            "galore_rank=128/galore_per_parameter=false/galore_with_embedding=false",
        ),
        (
            {"sft_type": "full", "lisa_activated_layers": "2", "neftune_noise_alpha": 15},
            "lisa_activated_layers=2/lisa_step_interval=20/neftune_noise_alpha=15",
            "lisa_activated_layers=2/lisa_step_interval=20/neftune_noise_alpha=15.0",
        ),
    ],
)
def test_tuner_params(args: dict[str, object], ours: str, original: str) -> None:
    parsed = SftArgs.model_validate({"model_type": "m", **args})
    assert tuner_params(parsed) == ours
    assert swift_tuner_params(parsed) == original


def test_lisas_trainable_parameters_say_how_many_a_step_trains() -> None:
    view = trained(
        args={"sft_type": "lisa"},
        parameters={"trainable": 134_515_008, "total": 134_515_008, "trained_at_once": 35_414_784},
    )
    assert text_of(c.TRAINABLE, view) == "134.52 (100%), 35.41 at a time"
    columns = {column.key: column for column in swift_columns()}
    assert text_of(columns[c.TRAINABLE.key], view) == "134.5150(100.0000%)"
    assert c.TRAINABLE.brief is not None
    assert c.TRAINABLE.brief(facts_of(view)) == "134.52"


def test_an_eval_of_the_loss_alone_has_one_column() -> None:
    def untrained(**told: Any) -> Row:
        job = parts.make_job("base", "eval-eval_loss", suite="s", cmd="eval", args=parts.QWEN, **told)
        return rows_of(ExperimentView(suite="s", name="base", cmd="eval", evals=(job,)))[0]

    metrics = parts.eval_metrics("eval_loss", "eval_loss", 0.9836, baseline=True, eval_loss=0.9836)
    done, waiting = untrained(metrics=metrics), untrained(state=JobState.PENDING)
    for row, text in ((done, "0.9836"), (waiting, "pending")):
        columns = table_columns((row,))
        assert [column.header for column in columns if "loss" in column.header] == ["eval loss"]
        assert column_cells(c.EVAL_LOSS, (row,))[0].text == text
    assert [note.split(":", 1)[0] for note in notes_of((c.EVAL_LOSS,), (done,), any_best=False)] == ["eval loss"]


def test_a_batch_of_packs_says_so() -> None:
    rows = rows_of(
        trained("a", global_batch_size=8),
        *(trained(f"packed-{size}", global_batch_size=size, args={"packing": True}) for size in (1, 2)),
    )
    assert [cell.text for cell in column_cells(c.GLOBAL_BATCH, rows)] == ["8", "1 pack", "2 packs"]
    notes = "\n".join(notes_of((c.TUNER_PARAMS, c.GLOBAL_BATCH), rows, any_best=False))
    assert "tuner settings: `packing`: several samples share a sequence" in notes
    assert "`packs`: with packing" in notes
    assert notes_of((c.TUNER_PARAMS,), rows[:1], any_best=False) == ()


def test_rouge_has_a_column_where_some_row_has_it() -> None:
    rows = rows_of(trained("a", rouge_l=0.31), trained("b", rouge_l=0.4), trained("c"))
    assert [cell.text for cell in column_cells(c.ROUGE_L, rows)] == ["0.310", "0.400", "-"]
    assert best_names(c.ROUGE_L, *(row.first.view for row in rows)) == {"b"}
    assert c.ROUGE_L in table_columns(rows)
    assert c.ROUGE_L not in table_columns(rows_of(trained("c")))


def test_weighted_train_losses_are_compared_among_themselves() -> None:
    plain, weighted = trained("a", train_loss=1.0), trained("b", train_loss=0.5, args={"use_loss_scale": True})
    assert best_names(c.TRAIN_LOSS, plain, weighted) == set()
    assert best_names(c.EVAL_LOSS, plain, weighted) == {"a", "b"}


@pytest.mark.parametrize(
    ("args", "text"),
    [
        ({"learning_rate": 5e-5, "num_train_epochs": 2}, "lr=5e-05/epoch=2"),
        ({"sft_type": "full", "max_steps": 300}, "lr=2e-05/steps=300"),
        ({}, "lr=0.0001/epoch=1"),
    ],
)
def test_hypers(args: dict[str, object], text: str) -> None:
    assert hypers(SftArgs.model_validate({"model_type": "m", **args})) == text


def test_dataset_files_are_named_without_their_folders() -> None:
    names = ["/data/me/news.jsonl", "./b.csv", "AI-ModelScope/alpaca", "/news"]
    assert dataset_label(names) == "news.jsonl,b.csv,AI-ModelScope/alpaca,news"


def test_a_dataset_file_called_train_keeps_its_folder() -> None:
    assert dataset_label(["/data/gsm8k/train.jsonl", "/news/data.csv"]) == "gsm8k/train.jsonl,news/data.csv"
    assert dataset_label(["./train.jsonl", "../train.jsonl", "/train.jsonl"]) == "train.jsonl,train.jsonl,train.jsonl"


@pytest.mark.parametrize(("value", "text"), [(0.917, "0.92"), (0.0, "0.00"), (0.00312, "0.0031"), (3e15, "3e+15")])
def test_numbers_never_print_as_zero(value: float, text: str) -> None:
    assert number_text(value, 2) == text


def test_lowest_loss_is_best() -> None:
    assert best_names(c.TRAIN_LOSS, trained("a", train_loss=1.0), trained("b", train_loss=0.9)) == {"b"}


def test_values_that_print_the_same_are_both_best() -> None:
    assert best_names(c.TRAIN_LOSS, trained("a", train_loss=0.90001), trained("b", train_loss=0.90002)) == {"a", "b"}


def test_single_value_is_never_best() -> None:
    assert best_names(c.TRAIN_LOSS, trained("a", train_loss=1.0)) == set()


def test_losses_of_other_models_or_data_are_not_compared() -> None:
    other_model = trained("b", args={"model_type": "llama2-7b"}, train_loss=0.2)
    other_data = trained("c", args={"train_dataset_mix_ratio": 0.0}, train_loss=0.4)
    assert best_names(c.TRAIN_LOSS, trained("a"), other_model, other_data) == set()


def test_speeds_on_other_hardware_are_not_compared() -> None:
    slow = trained("a", samples_per_second=1.0)
    fast = trained("b", samples_per_second=2.0)
    job = parts.make_job(
        "c",
        "train",
        suite="s",
        args=parts.QWEN,
        environment={"gpus": {"names": ["NVIDIA H200"]}},
        metrics=facts_of(trained(samples_per_second=9.0)).train,
    )
    h200 = ExperimentView(suite="s", name="c", cmd="sft", main=job)
    assert best_names(c.TRAIN_SPEED, slow, fast, h200) == {"b"}


def test_scores_with_a_limit_are_not_compared_with_full_ones() -> None:
    def scored(name: str, value: float, num_samples: int) -> ExperimentView:
        metrics = parts.eval_metrics("x", "acc,none", value, num_samples=num_samples)
        job = parts.make_job(name, "eval-x", suite="s", cmd="eval", metrics=metrics)
        return ExperimentView(suite="s", name=name, cmd="eval", evals=(job,))

    column = eval_column("x", "acc")
    assert best_names(column, scored("a", 0.5, 200), scored("b", 0.6, 200), scored("c", 0.9, 20)) == {"b"}


def test_lower_is_better_where_the_metric_says_so() -> None:
    def scored(name: str, value: float) -> ExperimentView:
        metrics = parts.eval_metrics("wiki", "word_perplexity,none", value)
        task = metrics.tasks["wiki"].model_copy(update={"higher_is_better": {"word_perplexity": False}})
        metrics = metrics.model_copy(update={"tasks": {"wiki": task}})
        job = parts.make_job(name, "eval-wiki", suite="s", cmd="eval", metrics=metrics)
        return ExperimentView(suite="s", name=name, cmd="eval", evals=(job,))

    rows = rows_of(scored("a", 9.0), scored("b", 7.5))
    (column,) = (column for column in table_columns(rows) if column.header == "wiki word_perplexity")
    assert {rows[number].name for number in best_rows(column, rows)} == {"b"}


def test_repeats_become_mean_and_standard_deviation() -> None:
    rows = rows_of(*(trained(f"a-{n}", base="a", train_loss=loss) for n, loss in enumerate((1.0, 1.1, 1.3))))
    assert [row.name for row in rows] == ["a"]
    assert column_cells(c.TRAIN_LOSS, rows)[0].text == "1.1333 ± 0.1528 (n=3)"
    assert column_cells(c.MEMORY, rows)[0].text == "3.00 ± 0.00 (n=3)"
    assert column_cells(c.HYPERS, rows)[0].text == "lr=5e-05/epoch=2"


def test_repeats_count_only_those_that_have_a_value() -> None:
    failed = parts.make_job("a-1", "train", suite="s", args=parts.QWEN, state=JobState.FAILED, reason="exit code 1")
    view = ExperimentView(suite="s", name="a-1", base_experiment="a", cmd="sft", main=failed)
    rows = rows_of(trained("a-0", base="a"), view)
    assert column_cells(c.TRAIN_LOSS, rows)[0].text == "1.0000 (n=1 of 2)"
    assert column_cells(c.STATE, rows)[0].text == "1 completed, 1 failed"


def test_repeats_that_are_not_all_done_are_never_best() -> None:
    pending = parts.make_job("a-1", "train", suite="s", args=parts.QWEN, state=JobState.PENDING)
    lucky = (
        trained("a-0", base="a", eval_loss=0.1),
        ExperimentView(suite="s", name="a-1", base_experiment="a", cmd="sft", main=pending),
    )
    others = [
        trained(f"{name}-{n}", base=name, eval_loss=loss) for name, loss in (("b", 0.3), ("c", 0.4)) for n in (0, 1)
    ]
    assert best_names(c.EVAL_LOSS, *lucky, *others) == {"b"}
    done = trained("a-1", base="a", eval_loss=0.2)
    assert best_names(c.EVAL_LOSS, lucky[0], done, *others) == {"a"}


def test_rows_within_the_error_of_the_best_are_named() -> None:
    def scored(name: str, score: float, stderr: float | None = 0.01) -> ExperimentView:
        metrics = parts.eval_metrics("x", "acc,none", score, stderr=stderr)
        job = parts.make_job(name, "eval-x", suite="s", cmd="eval", metrics=metrics)
        return ExperimentView(suite="s", name=name, cmd="eval", evals=(job,))

    column = eval_column("x", "acc")
    rows = rows_of(scored("a", 0.5), scored("b", 0.49), scored("c", 0.485), scored("d", 0.499, None))
    assert [(cell.best, cell.near) for cell in column_cells(column, rows)] == [
        *((True, False), (False, True), (False, False), (False, False)),
    ]
    assert notes_of((column,), rows, any_best=True)[-1] == (
        "x acc: b cannot be told from a: the difference is within its standard error"
    )


def test_the_error_of_repeats_is_that_of_their_mean() -> None:
    losses = {"a": (1.0, 1.2), "b": (1.1, 1.3), "c": (1.5, 1.7)}
    views = [
        trained(f"{name}-{n}", base=name, eval_loss=x) for name, found in losses.items() for n, x in enumerate(found)
    ]
    cells = column_cells(c.EVAL_LOSS, rows_of(*views))
    # Each mean has a standard error of 0.1, their difference one of 0.14.
    assert [(cell.best, cell.near) for cell in cells] == [(True, False), (False, True), (False, False)]


def test_settings_that_differ_among_repeats_are_not_averaged() -> None:
    rows = rows_of(trained("a-0", base="a", global_batch_size=8), trained("a-1", base="a", global_batch_size=16))
    assert column_cells(c.GLOBAL_BATCH, rows)[0].text == "varies"


def test_columns_without_a_value_are_left_out() -> None:
    headers = {column.header for column in table_columns(rows_of(trained()))}
    assert "MFU (%)" not in headers
    assert "infer speed (tokens/s)" not in headers
    assert "state" not in headers
    assert {"experiment", "memory (GiB)", "train speed (samples/s)", "train loss"} <= headers


def test_attention_has_a_column_where_it_varies() -> None:
    assert c.ATTENTION not in table_columns(rows_of(trained("a"), trained("b")))
    varied = rows_of(trained("a", attention="sdpa"), trained("b", attention="eager"))
    assert c.ATTENTION in table_columns(varied)


def test_swift_layouts_have_18_and_9_columns() -> None:
    assert len(swift_columns()) == 18
    assert len(swift_export_columns()) == 9


def _facts(train: JobState | None, *evals: JobState) -> Facts:
    view = ExperimentView(
        suite="s",
        name="a",
        cmd="eval" if train is None else "sft",
        main=None if train is None else parts.make_job("a", "train", suite="s", state=train),
        evals=tuple(
            parts.make_job("a", f"eval-{n}", suite="s", cmd="eval", state=state) for n, state in enumerate(evals)
        ),
    )
    return facts_of(view)


@pytest.mark.parametrize(
    ("train", "evals", "state"),
    [
        (JobState.COMPLETED, (JobState.COMPLETED,), JobState.COMPLETED),
        (JobState.FAILED, (JobState.BLOCKED,), JobState.FAILED),
        (JobState.OUT_OF_MEMORY, (JobState.BLOCKED,), JobState.OUT_OF_MEMORY),
        (JobState.COMPLETED, (JobState.FAILED, JobState.RUNNING), JobState.RUNNING),
        (JobState.COMPLETED, (JobState.FAILED, JobState.COMPLETED), JobState.FAILED),
        (None, (JobState.PENDING, JobState.COMPLETED), JobState.PENDING),
        (None, (), JobState.PLANNED),
    ],
)
def test_experiment_has_one_state(train: JobState | None, evals: tuple[JobState, ...], state: JobState) -> None:
    assert experiment_state(_facts(train, *evals).view) is state


def test_state_names_the_eval_that_failed() -> None:
    facts = _facts(JobState.COMPLETED, JobState.COMPLETED, JobState.FAILED)
    assert cell_text(c.STATE, facts) == "eval-1 failed"


def test_environment_is_flattened_and_counted() -> None:
    records = [facts_of(trained(name)).records[0] for name in ("a", "b")]
    records.append(
        records[0].model_copy(update={"environment": {"host": "gpu-04", "gpus": {"names": ["A", "A"]}, "git": None}})
    )
    lines = dict(environment_lines(records))
    assert lines["host"] == "gpu-03 (2 jobs); gpu-04 (1 job)"
    assert lines["gpus"] == "2x A (1 job); NVIDIA A100-SXM4-80GB (2 jobs)"
    assert lines["torch"] == "2.11.0"
    assert "git" not in lines
    assert lines["driver"] == "570.86.15"
    assert "slurm.job_id" not in lines
    assert lines["git.commit"] == "4f1c2d0e"
    assert flatten({"a": {"b": {"c": 1}}, "d": [], "e": ""}) == {"a.b.c": "1"}


def test_average_of_numbers_near_the_end_of_floats_is_no_crash() -> None:
    found = averaged([1.7e308, -1.7e308, float("inf")])
    assert found is not None
    assert found.value == 0.0
    assert found.std is None
    assert found.num_values == 2
    assert averaged([]) is None


@pytest.mark.parametrize(
    ("progress", "text"),
    [
        ({"step": 340, "max_steps": 1250, "phase": "training"}, "running: step 340/1250 (27%)"),
        ({"done": 30, "total": 200, "phase": "evaluating"}, "running: 30/200 (15%)"),
        ({"phase": "loading"}, "running: loading"),
        ({"step": 12}, "running: step 12"),
        ({"step": "many", "max_steps": None}, "running"),
    ],
)
def test_running_job_shows_how_far_it_is(progress: dict[str, object], text: str) -> None:
    job = parts.make_job("a", "train", suite="s", state=JobState.RUNNING, progress=progress)
    assert text_of(c.STATE, ExperimentView(suite="s", name="a", cmd="sft", main=job)) == text


def test_quantised_bases_have_a_column_beside_others() -> None:
    plain, small = trained("a"), trained("b", args={"quantization_bit": 4})
    assert [text_of(c.QUANTIZATION, view) for view in (plain, small)] == ["bf16", "int4 (bnb)"]
    assert text_of(c.QUANTIZATION, trained(args={"quantization_bit": 8})) == "int8 (bnb)"
    assert c.QUANTIZATION in table_columns(rows_of(plain, small))
    assert c.QUANTIZATION not in table_columns(rows_of(plain))


def test_rewards_have_columns_where_some_row_learned_from_preferences() -> None:
    def learned(name: str, margin: float, **args: Any) -> Row:
        rewards = {"reference": "the model without its adapter", "reward_margin": margin, "reward_accuracy": 0.75}
        return rows_of(trained(name, rewards=rewards, args={"rlhf_type": "dpo", **args}))[0]

    rows = (learned("a", 0.21), learned("b", 0.4), learned("stricter", 2.0, beta=0.5))
    assert [cell.text for cell in column_cells(c.REWARD_MARGIN, rows)] == ["0.210", "0.400", "2.000"]
    columns = table_columns(rows)
    assert {c.REWARD_MARGIN, c.REWARD_ACCURACY} <= set(columns)
    assert c.REWARDS_CHOSEN not in columns
    assert best_names(c.REWARD_MARGIN, *(row.first.view for row in rows)) == {"b"}
    params = [cell.text for cell in column_cells(c.TUNER_PARAMS, rows)]
    assert [text.split("/")[-2:] for text in params] == [["rlhf_type=dpo", "beta=0.1"]] * 2 + [
        ["rlhf_type=dpo", "beta=0.5"]
    ]
    assert c.REWARD_MARGIN not in table_columns(rows_of(trained("c")))
