"""Data is tokenized once: by one rank, for all ranks, attempts and trainings of the same data."""

from __future__ import annotations

import ast
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

import hpcbench
from hpcbench.schemas import variables
from hpcbench.schemas.arguments import SftArgs
from hpcbench.schemas.request import read_request
from hpcbench.storage.json_files import read_json, write_json
from hpcbench.storage.paths import JobPaths
from hpcbench.worker.data.samples import encode_samples
from hpcbench.worker.data.templates import Template
from hpcbench.worker.data.token_files import StoredRows
from hpcbench.worker.models.loading import load_tokenizer
from hpcbench.worker.ranks import ALONE, Ranks
from hpcbench.worker.train import token_key, tokenized
from hpcbench.worker.train.token_cache import UNUSED_S, TokenCache
from hpcbench.worker.train.tokenized import Tokenized, tokenize
from tests.support.tiny_models import make_job, read_history, read_weights, train_here

pytestmark = pytest.mark.train


@dataclass
class Loader:
    """Loads one job's rows from a cache and counts how often they are made."""

    base_model: Path
    data: Path
    folder: Path
    args: dict[str, Any] = field(default_factory=dict)
    content: str = "a" * 64
    """Stands for the hash of the data."""
    num_made: int = 0
    is_per_node: bool = False

    def load(self, **args: Any) -> Tokenized:
        job = make_job(self.folder / "job", self.base_model, self.data, **{**self.args, **args})
        request = read_request(job.request).model_copy(update={"inputs": {str(self.data): self.content}})
        assert request.args is not None
        settings = request.args
        template = Template.from_args(settings, load_tokenizer(settings), num_embeddings=300)

        def make(*, may_leave: bool) -> Tokenized:
            assert may_leave
            self.num_made += 1
            return tokenize(settings, template, on_row=lambda _count: None, on_tokenizing=lambda: None)

        cache = TokenCache(folder=self.folder / "tokens", is_per_node=self.is_per_node)
        return cache.load(lambda: token_key.find_key(request, settings, template), make, ALONE)

    @property
    def entries(self) -> list[Path]:
        return sorted((self.folder / "tokens").iterdir())


@pytest.fixture
def loader(tmp_path: Path, base_model: Path, chats: Path) -> Loader:
    return Loader(base_model, chats, tmp_path)


def test_the_same_data_is_tokenized_once_and_comes_back_value_by_value(loader: Loader) -> None:
    made = loader.load(predict_with_generate=True)
    again = loader.load(predict_with_generate=True, learning_rate=1e-3, preprocess_num_proc=2, seed=7)
    assert loader.num_made == 1
    assert isinstance(again.train, StoredRows)
    args = SftArgs(
        model_id_or_path=str(loader.base_model), dataset=(str(loader.data),), dataset_test_ratio=0.17,
        predict_with_generate=True,
    )  # fmt: skip
    fresh = tokenize(
        args, Template.from_args(args, load_tokenizer(args)), on_row=lambda _count: None, on_tokenizing=lambda: None
    )
    for found in (made, again):
        assert list(found.train) == list(fresh.train)
        assert list(found.validation) == list(fresh.validation)
        assert (found.lengths, found.prompts, found.counts) == (fresh.lengths, fresh.prompts, fresh.counts)


@pytest.mark.parametrize(
    "change",
    [
        {"max_length": 60},
        {"system": "Be brief."},
        {"template_type": "chatml"},
        {"dataset_split_seed": 1},
        {"test_oom_error": True},
        {"predict_with_generate": True},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_changes_rows_makes_another_entry(loader: Loader, change: dict[str, Any]) -> None:
    loader.load()
    loader.load(**change)
    assert (loader.num_made, len(loader.entries)) == (2, 2)


def test_other_content_another_tokenizer_and_other_libraries_make_other_entries(
    loader: Loader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader.load()
    loader.content = "b" * 64
    loader.load()
    shutil.copytree(loader.base_model, tmp_path / "model")
    config = tmp_path / "model" / "tokenizer_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "model_max_length": 77}))
    loader.base_model = tmp_path / "model"
    loader.load()
    monkeypatch.setattr(token_key, "_version", lambda name: "9.9" if name == "tokenizers" else None)
    loader.load()
    assert (loader.num_made, len(loader.entries)) == (4, 4)


def test_data_whose_content_nobody_knows_is_tokenized_each_time(loader: Loader) -> None:
    loader.content = ""
    loader.load()
    loader.load()
    assert loader.num_made == 2
    assert not (loader.folder / "tokens").exists()


def cut(entry: Path) -> None:
    os.truncate(entry / "train.arrow", 100)


def flip(entry: Path) -> None:
    content = bytearray((entry / "validation.arrow").read_bytes())
    content[len(content) // 2] ^= 1
    (entry / "validation.arrow").write_bytes(content)


def lose(entry: Path) -> None:
    (entry / "prompts.arrow").unlink()


def break_meta(entry: Path) -> None:
    (entry / "entry.json").write_text('{"key"')


@pytest.mark.parametrize("damage", [cut, flip, lose, break_meta])
def test_a_damaged_entry_is_made_anew(loader: Loader, damage: Callable[[Path], None]) -> None:
    expected = list(loader.load().train)
    (entry,) = loader.entries
    damage(entry)
    assert list(loader.load().train) == expected
    assert list(loader.load().train) == expected
    assert (loader.num_made, loader.entries) == (2, [entry])


def test_an_entry_that_is_still_being_written_is_not_looked_at(loader: Loader) -> None:
    loader.load()
    (entry,) = loader.entries
    half = entry.with_name(f".{entry.name}.host.1.x.tmp")
    entry.rename(half)
    loader.load()
    assert (loader.num_made, loader.entries) == (2, sorted([half, entry]))


def test_entries_that_nobody_used_for_a_month_are_removed_and_others_stay(loader: Loader) -> None:
    loader.load()
    loader.load(max_length=60)
    for entry in loader.entries:
        meta = entry / "entry.json"
        os.utime(meta, (0, meta.stat().st_mtime - UNUSED_S - 60))
    loader.load()  # uses the first
    loader.load(max_length=50)  # makes one, which looks for old ones
    lengths = {read_json(entry / "entry.json")["key"]["arguments"]["max_length"] for entry in loader.entries}  # type: ignore[index]
    assert lengths == {2048, 50}
    assert loader.num_made == 3


def test_a_folder_that_cannot_be_written_costs_the_cache_and_not_the_training(loader: Loader) -> None:
    (loader.folder / "tokens").write_text("a file")
    assert len(loader.load().train) == 20
    assert loader.num_made == 1


def test_a_folder_that_another_user_made_on_a_nodes_disk_is_not_read(
    loader: Loader, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader.load()
    loader.is_per_node = True
    loader.load()
    monkeypatch.setattr(os, "getuid", lambda: os.geteuid() + 1)
    loader.load()
    assert loader.num_made == 2


def test_only_folders_that_the_cache_made_are_removed(loader: Loader) -> None:
    old = [loader.folder / "tokens" / name for name in (".ssh", ".a.host.1.x.tmp", ".a.host.1.x.tmp.damaged")]
    for folder in old:
        folder.mkdir(parents=True)
        os.utime(folder, (0, 0))
    loader.load()
    assert [folder.exists() for folder in old] == [True, False, False]


def test_an_image_that_changed_is_looked_at_again(
    loader: Loader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hpcbench.data.images import ImageSource

    picture = tmp_path / "a.png"
    picture.write_bytes(b"one")

    def with_images(*args: Any, **options: Any) -> Any:
        found = encode_samples(*args, **options)
        rows = tuple(replace(row, images=(ImageSource(path=picture),)) for row in found.rows)
        return replace(found, rows=rows)

    monkeypatch.setattr(tokenized, "encode_samples", with_images)
    loader.load()
    assert loader.load().train[0].images == (ImageSource(path=picture),)
    picture.write_bytes(b"another")
    loader.load()
    assert loader.num_made == 2


def test_every_argument_that_the_code_of_the_data_reads_is_known_to_the_key() -> None:
    """An argument that decides rows and is not in the key would give a training the rows of another."""
    package = Path(hpcbench.__file__).parent
    files = [*(package / "worker" / "data").glob("*.py"), *(package / "data").glob("*.py")]
    files += [package / "worker" / "train" / "tokenized.py"]
    read = {
        node.attr
        for file in files
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "args"
    }
    by_other_names = {"model_copy", "model_dump"}
    not_deciding = {"preprocess_num_proc", "packing", "lazy_tokenize"}
    assert {"max_length", "loss_on_prompt", "rlhf_type"} <= read
    assert read - not_deciding - by_other_names <= set(token_key.DECIDING_ARGUMENTS)


def add_input(job: JobPaths, data: Path) -> None:
    write_json(job.request, {**(read_json(job.request) or {}), "inputs": {str(data): "a" * 64}})


def losses(job: JobPaths) -> list[float]:
    return [line["loss"] for line in read_history(job.attempt(1)) if "loss" in line]


def test_kept_rows_train_bitwise_the_same_weights_and_losses(
    tmp_path: Path, base_model: Path, chats: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last round of an epoch is short, which asks for the filler of several ranks too."""
    jobs = {name: make_job(tmp_path / name, base_model, chats, max_steps=2) for name in ("plain", "first", "second")}
    for job in jobs.values():
        add_input(job, chats)
    train_here(jobs["plain"])
    monkeypatch.setenv(variables.TOKENIZED_DATA, str(tmp_path / "tokens"))
    train_here(jobs["first"])
    monkeypatch.setattr(tokenized, "load_splits", pytest.fail)
    train_here(jobs["second"])
    expected = read_weights(jobs["plain"].checkpoints / "last")
    for name in ("first", "second"):
        assert losses(jobs[name]) == losses(jobs["plain"])
        found = read_weights(jobs[name].checkpoints / "last")
        assert all((found[key] == weight).all() for key, weight in expected.items())


@pytest.mark.parametrize(("rank", "makes"), [(0, True), (1, False), (2, True), (3, False)])
def test_one_rank_of_each_node_tokenizes_though_each_sees_its_own_gpus(
    rank: int, makes: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert TokenCache(folder=tmp_path, is_per_node=True).makes(Ranks(rank=rank, local_rank=0, count=4)) is makes
