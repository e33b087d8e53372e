"""What verbs print with `--json`: each answer has the form that `hpcbench schema VERB` publishes, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from pydantic import BaseModel
from typer.core import TyperGroup

from hpcbench.cli import app
from hpcbench.cli.conventions import EXIT_FAILED, EXIT_USAGE
from hpcbench.cli.site import ANSWERING
from hpcbench.schemas.answers import ANSWERS
from hpcbench.status.gather import gather
from tests.support.typed_commands import Ended, run_here

OTHER_FORMS = {"collect", "compare", "export"}
"""Verbs whose output has a form of its own."""


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Ended]]:
    """Yield a folder in which a suite of two commands ran, one of which failed, and how the submit ended."""
    folder = tmp_path_factory.mktemp("shell")
    value = {
        "cmd": "command",
        "device": "cpu",
        "requirements": {"gpu": 0},
        "experiment": [
            {"name": "good", "args": {"command": ["true"]}},
            {"name": "bad", "args": {"command": ["sh", "-c", "echo last words; exit 3"]}, "eval_dataset": ["x"],
             "eval_args": {"command": ["true"]}},
        ],
    }  # fmt: skip
    (folder / "suite.yaml").write_text(json.dumps(value), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("HPCBENCH_SAVE_DIR", raising=False)
        patch.setenv("XDG_CONFIG_HOME", str(folder / "config"))
        yield folder, run_here("submit", "suite.yaml", "--cluster", "local", "--json")


def answer(*words: str, code: int = 0) -> Any:
    """Return what a verb prints with --json, after holding it against its form."""
    done = run_here(*words, "--json")
    assert done.code == code, done.err
    return read(words[0], done.out)


def read(verb: str, text: str) -> Any:
    model: type[BaseModel] = ANSWERS[verb]
    model.model_validate_json(text, strict=False)
    return json.loads(text)


def test_every_verb_with_json_has_a_published_form() -> None:
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    verbs = {name for name, verb in group.commands.items() if any("--json" in param.opts for param in verb.params)}
    assert verbs - OTHER_FORMS == set(ANSWERS) == set(ANSWERING)


def test_every_field_of_an_answer_that_a_name_does_not_explain_is_described() -> None:
    for verb, model in ANSWERS.items():
        schema = json.loads(run_here("schema", verb).out)
        assert schema == model.model_json_schema(mode="serialization")
        assert schema["description"].startswith("What `"), verb


def test_submit_tells_the_ids_of_its_jobs_and_nothing_else_is_printed(ran: tuple[Path, Ended]) -> None:
    folder, done = ran
    assert done.code == EXIT_FAILED
    assert done.err == ""
    [suite] = read("submit", done.out)["suites"]
    assert (suite["suite"], suite["cluster"], suite["save_dir"]) == ("suite", "local", str(folder / "logs" / "suite"))
    told = {(j["experiment"], j["job"]): j["scheduler_id"] for sent in suite["submissions"] for j in sent["jobs"]}
    assert told == {(job.experiment, job.job): job.scheduler_id for job in gather(folder / "logs").jobs}
    assert None not in told.values()


def test_submit_tells_what_it_skips(ran: tuple[Path, Ended]) -> None:
    [suite] = answer("submit", "suite.yaml", "--cluster", "local")["suites"]
    skipped = {(job["experiment"], job["job"]): job["why"] for job in suite["skipped"]}
    assert suite["submissions"] == []
    assert skipped["good", "train"] == "already completed"
    assert skipped["bad", "train"] == "is failed: hpcbench why suite/bad"


@pytest.mark.parametrize("words", [["plan"], ["submit", "--dry-run"]])
def test_plan_tells_the_resources_of_each_job(ran: tuple[Path, Ended], words: list[str]) -> None:
    done = run_here(*words, "suite.yaml", "--cluster", "local", "--json")
    [suite] = read("plan", done.out)
    assert (suite["schema_version"], suite["cluster"]) == (1, "local")
    assert suite["jobs"][0]["resources"]["gpu"] == 0


def test_submit_refuses_json_with_wait(ran: tuple[Path, Ended]) -> None:
    done = run_here("submit", "suite.yaml", "--cluster", "local", "--wait", "--json")
    assert (done.code, done.out) == (EXIT_USAGE, "")


def test_status_has_a_row_for_each_job(ran: tuple[Path, Ended]) -> None:
    found = answer("status")
    assert [(job["experiment"], job["job"], job["state"]) for job in found["jobs"]] == [
        ("good", "train", "completed"), ("bad", "train", "failed"), ("bad", "eval-x", "blocked"),
    ]  # fmt: skip


def test_why_tells_causes_what_they_block_and_the_next_commands(ran: tuple[Path, Ended]) -> None:
    [cause] = answer("why")["causes"]
    assert (cause["state"], cause["cause"]) == ("failed", "exit code 3")
    assert [job["job"] for job in cause["blocked"]] == ["eval-x"]
    assert cause["next"][0] == {"command": "hpcbench retry suite/bad", "remark": ""}
    assert "last words" in cause["log_lines"]
    assert len(answer("why", "--all")["causes"]) == 2


def test_why_has_no_causes_where_nothing_has_failed(ran: tuple[Path, Ended]) -> None:
    assert [cause["state"] for cause in answer("why", "good")["causes"]] == ["completed"]


def test_logs_tells_the_files(ran: tuple[Path, Ended]) -> None:
    [job] = answer("logs", "bad")["jobs"]
    assert "last words" in Path(job["files"][-1]).read_text(encoding="utf-8")


def test_retry_tells_what_would_run(ran: tuple[Path, Ended]) -> None:
    found = answer("retry", "--dry-run")
    assert (found["dry_run"], found["adjusted"], found["suites"]) == (True, False, [])
    assert [(job["experiment"], job["state"], job["reason"]) for job in found["jobs"]] == [
        ("bad", "failed", "exit code 3")
    ]
    assert answer("retry", "good")["jobs"] == []


def test_retry_tells_the_new_ids(ran: tuple[Path, Ended]) -> None:
    [suite] = answer("retry", "bad", code=EXIT_FAILED)["suites"]
    assert next(job["experiment"] for sent in suite["submissions"] for job in sent["jobs"]) == "bad"


def test_cancel_and_clean_tell_what_they_did(ran: tuple[Path, Ended]) -> None:
    assert answer("cancel", "--all") == {"schema_version": 1, "cancelled": [], "not_cancelled": []}
    found = answer("clean", "--keep", "none", "--dry-run")
    assert (found["dry_run"], found["keep"], found["freed_bytes"], found["folders"]) == (True, "none", 0, [])


def test_init_tells_the_file_and_the_name(ran: tuple[Path, Ended]) -> None:
    found = answer("init", "--name", "mine")
    assert found["name"] == "mine"
    assert Path(found["file"]).read_text(encoding="utf-8")


def test_doctor_tells_its_checks(ran: tuple[Path, Ended]) -> None:
    done = run_here("doctor", "--cluster", "local", "--no-job", "--json")
    found = read("doctor", done.out)
    assert found["ok"] == sum(check["level"] == "ok" for check in found["checks"])
