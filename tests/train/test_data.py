"""Reading, normalising, splitting and batching of training data."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from hpcbench.errors import WorkerError
from hpcbench.schemas.arguments import SftArgs
from hpcbench.worker.data.batches import BatchPlan, pack_in_order
from hpcbench.worker.data.samples import Sample, draw_rows, encode_samples, load_splits, split_rows
from hpcbench.worker.data.templates import Template
from tests.support.tiny_models import make_job, read_history, read_metrics, train_here

pytestmark = pytest.mark.train

PAIR = ({"role": "user", "content": "q"}, {"role": "assistant", "content": "a"})


def make_args(**values: Any) -> SftArgs:
    return SftArgs(model_id_or_path="m", **values)


def write_pairs(path: Path, count: int) -> str:
    path.write_text("".join(json.dumps({"query": f"q{i}", "response": f"a{i}"}) + "\n" for i in range(count)))
    return str(path)


def answers(samples: tuple[Sample, ...]) -> list[str]:
    return [sample.messages[-1]["content"] for sample in samples]


def test_all_kinds_of_files_hold_the_same_rows(tmp_path: Path) -> None:
    from datasets import Dataset, DatasetDict

    rows = [{"query": "5", "response": "six\u2028seven"}, {"query": "8,9", "response": "ten"}]
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    (tmp_path / "b.json").write_text(json.dumps(rows), encoding="utf-8")
    (tmp_path / "c.csv").write_text('query,response\n5,six\u2028seven\n"8,9",ten\n', encoding="utf-8")
    saved = Dataset.from_list(rows)
    saved.to_parquet(tmp_path / "d.parquet")
    saved.save_to_disk(tmp_path / "saved")
    DatasetDict({"train": saved, "test": saved.select([0])}).save_to_disk(tmp_path / "splits")
    (tmp_path / "e.tsv").write_text("query\tresponse\n5\tsix\u2028seven\n8,9\tten\n", encoding="utf-8")
    (tmp_path / "f.json.gz").write_bytes(gzip.compress(json.dumps(rows).encode()))
    (tmp_path / "no_suffix").write_bytes((tmp_path / "a.jsonl").read_bytes())
    (tmp_path / "folder").mkdir()
    for number, row in enumerate(rows):
        (tmp_path / "folder" / f"{number}.json").write_text(json.dumps(row, indent=1))
    files = ["a.jsonl", "b.json", "c.csv", "d.parquet", "saved", "saved/data-00000-of-00001.arrow"]
    files += ["splits", "e.tsv", "f.json.gz", "no_suffix", "folder"]
    for name in files:
        splits = load_splits(make_args(dataset=[str(tmp_path / name)], dataset_test_ratio=0))
        assert [sample.messages[0]["content"] for sample in splits.train] == ["5", "8,9"], name
        assert answers(splits.train) == ["six\u2028seven", "ten"], name


def test_a_row_without_its_fields_is_named(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text('{"query": "q", "response": "a"}\n\n{"prompt": "q", "txt": "a"}\n', encoding="utf-8")
    with pytest.raises(WorkerError) as caught:
        load_splits(make_args(dataset=[str(path)]))
    assert str(caught.value) == (
        f"{path}: line 3: no column 'completion'; found: prompt, txt; expected: messages | conversations | "
        "query + response | instruction + output | question + answer | prompt + completion | text\n"
        "  hint: check_dataset_strategy: discard leaves such rows out"
    )


def test_discard_leaves_bad_rows_out_and_counts_them(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text('{"query": "q", "response": "a"}\n{"query": "a"}\n', encoding="utf-8")
    splits = load_splits(make_args(dataset=[str(path)], check_dataset_strategy="discard", dataset_test_ratio=0))
    assert (len(splits.train), splits.num_discarded) == (1, 1)


def test_broken_json_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "broken.jsonl"
    path.write_text('{"query": "q", "response": "a"}\n{"query":\n', encoding="utf-8")
    with pytest.raises(WorkerError, match=r"broken\.jsonl: line 2: not valid JSON"):
        load_splits(make_args(dataset=[str(path)]))


def test_missing_files_and_hub_ids_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WorkerError, match=r"nowhere\.jsonl: no such dataset file or folder"):
        load_splits(make_args(dataset=[str(tmp_path / "nowhere.jsonl")]))
    import datasets

    def refuse(*_args: object, **_options: object) -> None:
        raise ConnectionError("offline mode is enabled")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(WorkerError, match="hpcbench prefetch CONFIG"):
        load_splits(make_args(dataset=["someone/something"]))


def test_keys_that_only_other_rows_of_a_hub_dataset_have_are_not_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    calls = [{"function": {"name": "f", "arguments": arguments}} for arguments in ({"city": "Oslo"}, {"a": 2})]
    rows = [{"messages": [PAIR[0], {"role": "assistant", "content": None, "tool_calls": [call]}]} for call in calls]
    loaded = datasets.Dataset.from_list(rows)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_args, **_options: loaded)
    splits = load_splits(make_args(dataset=["someone/something"], dataset_test_ratio=0))
    found = [sample.messages[-1]["tool_calls"][0]["function"]["arguments"] for sample in splits.train]
    assert found == [{"city": "Oslo"}, {"a": 2}]


def test_plain_text_trains(tmp_path: Path, base_model: Path) -> None:
    rows = tmp_path / "text.jsonl"
    rows.write_text(
        "".join(json.dumps({"text": f"say abc{index} once"}) + "\n" for index in range(24)), encoding="utf-8"
    )
    job = make_job(tmp_path / "job", base_model, rows, predict_with_generate=True, use_loss_scale=True)
    metrics = read_metrics(train_here(job))
    losses = [line["loss"] for line in read_history(job.attempt(1)) if "loss" in line]
    assert (metrics.num_train_rows, metrics.rouge_l) == (20, None)
    assert metrics.unknown["rouge_l"] == "the validation rows are plain text, without questions to answer"
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    ("count", "ratio", "expected"), [(10, 0.2, 2), (10, 0.01, 1), (10, 0.0, 0), (1, 0.5, 0), (2, 1.0, 1)]
)
def test_a_split_takes_its_ratio_at_least_one_and_leaves_one(count: int, ratio: float, expected: int) -> None:
    rows = [Sample(messages=PAIR, place=str(number)) for number in range(count)]
    train, validation = split_rows(rows, ratio=ratio, seed=42)
    assert len(validation) == expected
    assert sorted([*train, *validation], key=lambda row: int(row.place)) == rows


def test_each_dataset_is_split_by_the_split_seed_and_not_by_the_training_seed(tmp_path: Path) -> None:
    first, second = write_pairs(tmp_path / "1.jsonl", 20), write_pairs(tmp_path / "2.jsonl", 10)

    def load(**values: Any) -> Any:
        return load_splits(make_args(dataset=[first, second], dataset_test_ratio=0.1, **values))

    splits = load()
    assert [sample.place.split(":")[0] for sample in splits.validation] == [first, first, second]
    assert load(seed=7) == splits
    assert load(dataset_split_seed=7) != splits


def test_a_validation_set_replaces_the_split_and_samples_are_drawn_after_it(tmp_path: Path) -> None:
    train, validation = write_pairs(tmp_path / "1.jsonl", 20), write_pairs(tmp_path / "2.jsonl", 10)
    splits = load_splits(
        make_args(dataset=[train], val_dataset=[validation], train_dataset_sample=7, val_dataset_sample=3)
    )
    assert (len(splits.train), len(splits.validation)) == (7, 3)
    assert draw_rows(splits.train, count=-1, seed=1) == list(splits.train)


@pytest.mark.parametrize(("wanted", "num_train", "num_different"), [(4, 3, 3), (10, 8, 8), (25, 23, 8)])
def test_num_samples_of_a_registry_draws_and_repeats_but_never_trains_on_a_validation_row(
    tmp_path: Path, wanted: int, num_train: int, num_different: int
) -> None:
    write_pairs(tmp_path / "pairs.jsonl", 10)
    registry = {"some": {"file_name": "pairs.jsonl", "columns": {"prompt": "query", "response": "response"}}}
    registry["some"]["num_samples"] = wanted  # type: ignore[assignment]  # of mixed values
    (tmp_path / "dataset_info.json").write_text(json.dumps(registry))
    splits = load_splits(
        make_args(dataset=["some"], dataset_info=str(tmp_path / "dataset_info.json"), dataset_test_ratio=0.25)
    )
    assert len(splits.train) == num_train
    assert len(set(answers(splits.train))) == num_different
    assert not set(answers(splits.train)) & set(answers(splits.validation))


def test_a_bad_rows_hint_leads_to_a_training_or_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"query": "q", "response": null}\n{"query": "q", "response": "a"}\n', encoding="utf-8")
    with pytest.raises(WorkerError) as caught:
        load_splits(make_args(dataset=[str(path)]))
    assert str(caught.value) == (
        f"{path}: line 1: response: null; expected: text, the answer\n"
        "  hint: check_dataset_strategy: discard leaves such rows out"
    )
    assert load_splits(make_args(dataset=[str(path)], check_dataset_strategy="discard")).num_discarded == 1
    path.write_text('{"query": "q", "response": null}\n' * 2, encoding="utf-8")
    with pytest.raises(WorkerError) as caught:
        load_splits(make_args(dataset=[str(path)]))
    assert str(caught.value) == f"{path}: line 1: response: null; expected: text, the answer"
    with pytest.raises(WorkerError, match=r"line 1: response: null \(and so in every one of its 2 rows\)"):
        load_splits(make_args(dataset=[str(path)], check_dataset_strategy="discard"))


def test_what_is_not_read_is_in_the_log_and_in_the_notes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"query": "q", "response": "a", "id": 1}\n{"text": "once", "id": 2}\n', encoding="utf-8")
    splits = load_splits(make_args(dataset=[str(path)], dataset_test_ratio=0, system="s"))
    notes = (f"{path}: not read: id", f"{path}: 1 row of plain text, which take no system prompt")
    assert splits.notes == notes
    assert tuple(record.message for record in caplog.records) == notes


def test_plain_text_is_trained_on_every_token_with_an_end(tokenizer: Any) -> None:
    encoded = Template(tokenizer, system="s").encode_text("ab")
    assert tokenizer.decode(encoded.input_ids) == "ab<|im_end|>"
    assert encoded.labels == encoded.input_ids
    assert Template(tokenizer, max_length=2).encode_text("ab").input_ids == encoded.input_ids[1:]


def test_several_processes_encode_the_same_in_the_same_order(tokenizer: Any, chats: Path) -> None:
    samples = load_splits(make_args(dataset=[str(chats)], dataset_test_ratio=0)).train
    template = Template(tokenizer, max_length=40)
    alone = encode_samples(samples, template)
    assert 0 < alone.num_truncated < len(samples)
    assert encode_samples(samples, template, num_proc=2) == alone


def make_plan(rank: int, num_ranks: int, *, num_samples: int) -> list[list[int]]:
    plan = BatchPlan(num_samples=num_samples, batch_size=2, seed=3, rank=rank, num_ranks=num_ranks)
    assert len(plan) == len(list(plan))
    return list(plan)


@pytest.mark.parametrize("num_samples", [1, 7, 8, 9, 21, 24])
def test_ranks_share_each_global_batch_of_one_process(num_samples: int) -> None:
    alone = make_plan(0, 1, num_samples=num_samples)
    shared = [make_plan(rank, 2, num_samples=num_samples) for rank in range(2)]
    assert len(shared[0]) == len(shared[1])
    for step in range((len(alone) + 3) // 4):
        expected = [index for batch in alone[4 * step : 4 * step + 4] for index in batch]
        found = [index for plan in shared for batch in plan[2 * step : 2 * step + 2] for index in batch if index >= 0]
        assert sorted(found) == sorted(expected)


@pytest.mark.parametrize("num_ranks", [1, 2])
def test_rows_that_fill_no_batch_can_be_left_out(num_ranks: int) -> None:
    plans = [
        BatchPlan(num_samples=7, batch_size=2, seed=3, rank=rank, num_ranks=num_ranks, drops_last=True)
        for rank in range(num_ranks)
    ]
    batches = [batch for plan in plans for batch in plan]
    assert [len(batch) for batch in batches] == [2] * len(batches)
    assert [len(plan) for plan in plans] == [len(list(plan)) for plan in plans] == [3 // num_ranks] * num_ranks


def test_packs_in_order_hold_neighbors() -> None:
    assert pack_in_order([4, 3, 3, 9, 1, 12], capacity=10) == [[0, 1, 2], [3, 4], [5]]


def test_a_number_of_rows_is_drawn_before_the_split_and_rows_repeat_where_there_are_fewer(tmp_path: Path) -> None:
    rows = write_pairs(tmp_path / "rows.jsonl", 20)
    few = load_splits(make_args(dataset=[f"{rows}#10"], dataset_test_ratio=0.2))
    assert (len(few.train), len(few.validation)) == (8, 2)
    assert load_splits(make_args(dataset=[f"{rows}#10"], dataset_test_ratio=0.2)) == few
    many = load_splits(make_args(dataset=[f"{rows}#30"], dataset_test_ratio=0.2))
    assert (len(many.train), len(many.validation)) == (26, 4)
    assert not {row.place for row in many.train} & {row.place for row in many.validation}


def test_columns_are_read_under_other_names(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"query": "answer", "response": "question"}\n' * 3, encoding="utf-8")
    columns = {"query": "response", "response": "query"}
    found = load_splits(make_args(dataset=[str(file)], dataset_test_ratio=0, columns=columns)).train
    assert [message["content"] for message in found[0].messages] == ["question", "answer"]


def test_the_loss_can_be_taken_on_every_token(tokenizer: Any) -> None:
    chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    encoded = Template(tokenizer, loss_on_prompt=True).encode(chat)
    plain = Template(tokenizer).encode(chat)
    assert list(encoded.labels) == list(encoded.input_ids) == list(plain.input_ids)
    assert plain.num_label_tokens < encoded.num_label_tokens


def test_epochs_differ_in_order_and_hold_every_sample_once() -> None:
    plan = BatchPlan(num_samples=9, batch_size=2, seed=3)
    first = [index for batch in plan for index in batch]
    plan.set_epoch(1)
    second = [index for batch in plan for index in batch]
    assert sorted(first) == sorted(second) == list(range(9))
    assert first != second


def test_rows_are_mixed_in_after_the_split_by_the_split_seed(tmp_path: Path) -> None:
    own, other = write_pairs(tmp_path / "1.jsonl", 20), write_pairs(tmp_path / "2.jsonl", 50)

    def load(ratio: float, **values: Any) -> Any:
        return load_splits(
            make_args(dataset=[own], train_dataset_mix_ds=[other], train_dataset_mix_ratio=ratio, **values)
        )

    splits = load(1.5)
    places = [sample.place.split(":")[0] for sample in splits.train]
    assert places == [own] * 19 + [other] * 28
    assert len({sample.place for sample in splits.train}) == 47
    assert [sample.place.split(":")[0] for sample in splits.validation] == [own]
    assert splits.num_mixed == 28
    assert load(1.5, seed=1) == splits
    assert load(1.5, dataset_split_seed=1).train[19:] != splits.train[19:]
    assert load(1.5, train_dataset_sample=4).num_mixed == 6
    short = load(3)
    assert short.num_mixed == 50
    assert short.notes == (
        f"50 of them mixed in from {other}; train_dataset_mix_ratio asks for 57 and there are no more: the ratio is 2.632",
    )


def test_a_registry_names_files_columns_and_roles(tmp_path: Path) -> None:
    from datasets import Dataset

    Dataset.from_list([{"question": "q", "answer": "a", "id": 1}]).save_to_disk(tmp_path / "saved")
    (tmp_path / "saved" / "data-00000-of-00001.arrow").rename(tmp_path / "gsm8k-train.arrow")
    turns = [{"role": "user", "text": "q"}, {"role": "bot", "text": "a"}]
    (tmp_path / "talk.json").write_text(json.dumps([{"chat": turns, "prompt": "s"}]))
    registry = {
        "gsm8k_math_train": {
            "file_name": "gsm8k-train.arrow",
            "formatting": "alpaca",
            "columns": {"query": "question", "response": "answer"},
        },
        "talk": {
            "file_name": "talk.json",
            "formatting": "sharegpt",
            "columns": {"messages": "chat", "system": "prompt"},
            "tags": {"role_tag": "role", "content_tag": "text", "user_tag": "user", "assistant_tag": "bot"},
        },
        "pictures": {"file_name": "talk.json", "formatting": "sharegpt", "columns": {"images": "images"}},
        "dpo": {"file_name": "talk.json", "ranking": True},
        "gone": {"file_name": "gone.json"},
    }
    (tmp_path / "dataset_info.json").write_text(json.dumps(registry))

    def load(name: str) -> Any:
        return load_splits(
            make_args(dataset=[name], dataset_info=str(tmp_path / "dataset_info.json"), dataset_test_ratio=0)
        ).train[0]

    assert load("gsm8k_math_train") == Sample(messages=PAIR, place=f"{tmp_path}/gsm8k-train.arrow: row 1")
    assert load("talk").messages == ({"role": "system", "content": "s"}, *PAIR)
    for name, message in {
        "pictures": "no column 'conversations'",
        "dpo": "no chosen and rejected",
        "gone": "no such file",
    }.items():
        with pytest.raises(WorkerError, match=message):
            load(name)
