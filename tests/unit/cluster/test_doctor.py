"""What doctor makes of outputs, place by place; the probe and the save directory for real."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import hpcbench
from hpcbench.cluster import node_probe as probe
from hpcbench.cluster.check_inputs import check_inputs, jobs_are_offline
from hpcbench.cluster.check_profile import check_partitions, check_rights
from hpcbench.cluster.doctor import check_save_dir, probe_resources, run_checks
from hpcbench.cluster.doctor_checks import (
    Check,
    check_accounting,
    check_commands,
    check_environment,
    check_grace,
    check_input,
    check_probe,
    check_save_dir_place,
    check_settings,
)
from hpcbench.errors import PREFETCH
from hpcbench.scheduler.slurm.cluster_facts import (
    Entitlements,
    parse_config,
    parse_partitions,
    parse_rights,
    parse_sinfo,
)
from hpcbench.schemas.cluster_profile import ClusterProfile
from hpcbench.schemas.environments import REQUIRED
from hpcbench.storage.mounts import file_system_of
from tests.support.job_cases import experiment, suite
from tests.unit.scheduler.slurm.test_cluster_facts import recorded

CONFIG = parse_config(recorded("scontrol-config"))
PLAIN = ClusterProfile()
MOUNTS = (
    "/dev/vda / ext4 rw 0 0\n"
    "server:/home /home nfs4 rw 0 0\n"
    "work /project lustre rw 0 0\n"
    "tmpfs /dev/shm tmpfs rw 0 0\n"
    "server:/x /home/with\\040blank nfs rw 0 0\n"
)
SEEN: dict[str, Any] = {
    "host": "gpu1",
    "python": "/venv/bin/python",
    "python_version": "3.11.7",
    "hpcbench": hpcbench.__version__,
    "packages": dict.fromkeys(probe.PACKAGES, "1.0"),
    "torch": {"num_gpus": 1, "names": ["NVIDIA A100"], "build": "12.8", "error": None},
    "hub": None,
    "scontrol": True,
}


def levels(checks: list[Check]) -> dict[str, str]:
    return {check.name: check.level for check in checks}


def test_missing_commands_are_named() -> None:
    [check] = check_commands({"sbatch": True, "srun": False})
    assert (check.level, check.message) == ("error", "not on PATH: srun, timeout, squeue, scancel, scontrol")


@pytest.mark.parametrize(
    ("has_sacct", "error", "config", "level", "message"),
    [
        (True, None, CONFIG, "ok", "sacct answers"),
        (True, "sacct: exit code 1: Slurm accounting storage is disabled", CONFIG, "warning", "accounting is off"),
        (True, "x", {"AccountingStorageType": "accounting_storage/none"}, "warning", "accounting is off"),
        (False, "sacct: not found", CONFIG, "warning", "no sacct on PATH"),
        (
            True,
            "sacct: no answer within 30 s",
            CONFIG,
            "warning",
            "sacct does not answer: sacct: no answer within 30 s",
        ),
    ],
)
def test_accounting(has_sacct: bool, error: str | None, config: dict[str, str], level: str, message: str) -> None:
    check = check_accounting(has_sacct=has_sacct, error=error, config=config)
    assert (check.level, check.message) == (level, message)


def test_the_settings_that_decide_are_shown() -> None:
    checks = [*check_settings(CONFIG, PLAIN), *check_grace(parse_partitions(recorded("scontrol-partition")), PLAIN)]
    assert {check.name: check.message for check in checks} == {
        "MaxArraySize": "1001; larger suites go out as several arrays",
        "MinJobAge": "squeue forgets ended jobs after 10 s",
        "correspond_after_task_cnt": "10 (Slurm's default); jobs release those that take their model, so more is not needed",
        "preempt_send_user_signal": "off; nothing is preempted",
        "KillWait": "5 s between TERM and KILL",
        "JobRequeue": "1; hpcbench says --requeue in every script",
        "GraceTime": "gpu 0 s",
    }
    assert [check.name for check in checks if check.level != "ok"] == ["KillWait"]


def test_settings_that_make_trouble() -> None:
    config = {"MaxArraySize": "0", "MinJobAge": "10 sec", "AccountingStorageType": "accounting_storage/none"}
    found = levels(list(check_settings(config, PLAIN)))
    assert (found["MaxArraySize"], found["MinJobAge"]) == ("warning", "warning")
    assert levels(list(check_settings({}, PLAIN))) == {"settings": "error"}
    too_large = ClusterProfile(max_array_size=5000)
    assert levels(list(check_settings(CONFIG, too_large)))["MaxArraySize"] == "error"
    preempting = {"PreemptType": "preempt/partition_prio", "SlurmctldParameters": "preempt_send_user_signal"}
    messages = {check.name: check.message for check in check_settings(preempting, PLAIN)}
    assert messages["preempt_send_user_signal"] == "on; preempted jobs get USR2 first"


def test_the_profile_is_held_against_the_partitions() -> None:
    groups = tuple(parse_sinfo("gpu*|up|8:00:00|2|8|8000|gpu:a100:4\nold|down|infinite|1|8|8000|(null)\n"))
    fine = list(check_partitions(groups, PLAIN, {"gpu": {"MaxNodes": "1"}}))
    assert {check.level for check in fine} == {"ok"}
    assert {check.name: check.message for check in fine} == {
        "partitions": "gpu, old: 4 GPUs on a node, no time limit",
        "memory": "mem_gb: null asks for none; nodes have up to 7.812 GiB",
        "CPUs": "a job with one GPU asks for 4; nodes have up to 8",
        "nodes": "gpu 2 (at most 1 for one job), old 1",
    }
    assert levels(list(check_partitions(groups, ClusterProfile(partition="gqu")))) == {"profile partition": "error"}
    too_long = ClusterProfile(partition="gpu", time_min=600)
    assert levels(list(check_partitions(groups, too_long))) == {"profile time": "error"}
    down = list(check_partitions(groups, ClusterProfile(partition="old")))
    assert levels(down) == {"profile gpu": "warning", "partitions": "error"}
    assert levels(list(check_partitions((), PLAIN))) == {"partitions": "warning"}
    greedy = list(check_partitions(groups, ClusterProfile(mem_gb=64, cpus_per_gpu=16)))
    assert levels(greedy) == {"profile mem_gb": "error", "profile cpus_per_gpu": "error", "nodes": "ok"}
    assert greedy[0].remedy == "ask for less, or name another partition; at most (GiB per node): gpu 7.812"


def test_the_profile_is_held_against_what_its_user_may_charge() -> None:
    rights = parse_rights(recorded("sacctmgr-user"))
    known = Entitlements(enforced=frozenset({"associations", "qos"}), rights=rights)
    fine = {check.name: check for check in check_rights(ClusterProfile(account="lab", qos="four"), known)}
    assert {check.level for check in fine.values()} == {"ok"}
    assert fine["account"].message == "lab; yours: bound, lab, root"
    assert fine["qos"].message == "four; yours: normal, four"
    plain = {check.name: check.message for check in check_rights(PLAIN, known)}
    assert plain["account"] == "your default one, root; yours: bound, lab, root"
    wrong = list(check_rights(ClusterProfile(account="nobody", qos="four"), known))
    assert levels(wrong) == {"profile account": "error", "qos": "ok"}
    assert wrong[0].remedy.endswith("null for your default one (bound, lab, root)")
    assert levels(list(check_rights(ClusterProfile(qos="long"), known)))["profile qos"] == "error"
    open_to_all = {check.name: check.message for check in check_rights(ClusterProfile(account="x"), Entitlements())}
    assert open_to_all == {"account": "x; any is taken here", "qos": "none is asked for here"}


def test_an_account_that_the_environment_names_is_shown() -> None:
    known = Entitlements(enforced=frozenset({"associations"}), rights=parse_rights(recorded("sacctmgr-user")))
    [account, _] = check_rights(PLAIN, known, {"SBATCH_ACCOUNT": "lab"})
    assert (account.level, account.message) == ("ok", "lab; yours: bound, lab, root")


def test_an_account_that_a_plugin_may_change_is_only_warned_about() -> None:
    rights = parse_rights(recorded("sacctmgr-user"))
    known = Entitlements(enforced=frozenset({"associations"}), rights=rights, submit_plugins="lua")
    [account, _] = check_rights(ClusterProfile(account="nobody"), known)
    assert (account.level, account.message) == (
        "warning",
        "you may not charge account 'nobody', unless job_submit/lua sets another",
    )


@pytest.mark.parametrize(
    ("answer", "message", "remedy"),
    [
        (None, "accounting does not say which are yours", "sacctmgr show user $USER withassoc"),
        ("You are not running a supported accounting_storage plugin\n", "accounting does not say which are yours", "sacctmgr show user $USER withassoc"),
        ("", "accounting lists none", "ask the site for an account (sacctmgr add user); until then sbatch refuses every job"),
    ],
)  # fmt: skip
def test_no_account_and_no_answer_are_told_apart(answer: str | None, message: str, remedy: str) -> None:
    rights = None if answer is None else parse_rights(answer)
    [account, _] = check_rights(PLAIN, Entitlements(enforced=frozenset({"associations"}), rights=rights))
    assert (account.level, account.message, account.remedy) == (
        "warning",
        f"jobs have to name one of yours, and {message}",
        remedy,
    )


def test_a_partition_without_a_node_to_see_is_warned_about() -> None:
    groups = tuple(parse_sinfo("cloud|up|8:00:00|0|0|0|(null)\n"))
    [check] = check_partitions(groups, ClusterProfile(mem_gb=64))
    assert (check.level, check.message) == ("warning", "cloud: sinfo shows no nodes")


@pytest.mark.parametrize(
    ("path", "level"),
    [
        ("/home/me/logs", "ok"),
        ("/project/x", "ok"),
        ("/tmp/logs", "error"),
        ("/dev/shm/logs", "error"),
        ("/srv/logs", "warning"),
        ("/tmpfiles/logs", "warning"),
    ],
)
def test_a_save_dir_has_to_be_shared(path: str, level: str) -> None:
    assert check_save_dir_place(path, MOUNTS).level == level
    assert check_save_dir_place(path, MOUNTS, local_mode=True).level == "ok"


def test_a_shared_tmp_is_no_error() -> None:
    assert check_save_dir_place("/tmp/logs", MOUNTS + "server:/t /tmp nfs4 rw 0 0\n").level == "ok"


def test_mount_points_with_blanks() -> None:
    assert file_system_of("/home/with blank/logs", MOUNTS) == ("/home/with blank", "nfs")


def test_all_is_well_where_jobs_run() -> None:
    assert {check.level for check in check_probe(SEEN, PLAIN, hpcbench.__version__)} == {"ok"}


@pytest.mark.parametrize(
    ("change", "profile", "name", "level"),
    [
        ({"hpcbench": None}, PLAIN, "hpcbench", "error"),
        ({"hpcbench": "0.0.1"}, PLAIN, "hpcbench", "warning"),
        ({"packages": {"torch": "2"}}, PLAIN, "packages", "error"),
        ({"torch": {"num_gpus": 0, "build": None}}, PLAIN, "GPU", "error"),
        ({"torch": {"num_gpus": 0, "build": None}}, ClusterProfile(gpu_flag=None), "GPU", "ok"),
        ({"torch": {"num_gpus": 0, "build": None}}, None, "GPU", "warning"),
        ({"torch": {"error": "ImportError: libcudart"}}, PLAIN, "GPU", "error"),
        ({"hub": "no route"}, PLAIN, "hub", "ok"),
        ({"hub": "no route"}, ClusterProfile(offline=False), "hub", "error"),
        ({"scontrol": False}, PLAIN, "scontrol", "warning"),
        ({"setup_failures": ["module load x (exit code 1)"]}, PLAIN, "setup", "warning"),
        (
            {"setup_failures": ["module load x (exit code 1)"]},
            PLAIN.model_copy(update={"setup_failure": "stop"}),
            "setup",
            "error",
        ),
    ],
)
def test_what_the_probe_saw(change: dict[str, Any], profile: ClusterProfile | None, name: str, level: str) -> None:
    assert levels(list(check_probe(SEEN | change, profile, hpcbench.__version__)))[name] == level


@pytest.mark.parametrize(
    ("name", "found", "level", "message"),
    [
        ("unsloth", {"error": None, "missing": [], "version": "3.12.1"}, "ok", "/e/python (3.12.1) on node1"),
        (
            "mine",
            {"error": None, "missing": ["mine", "yaml"], "version": "3.12.1"},
            "ok",
            "/e/python (3.12.1) on node1",
        ),
        ("unsloth", {"error": "No such file"}, "error", "/e/python does not run on node1: No such file"),
        (
            "unsloth",
            {"error": None, "missing": ["yaml", "unsloth"]},
            "error",
            "/e/python has no yaml, unsloth on node1",
        ),
    ],
)
def test_the_profiles_other_pythons_are_judged(name: str, found: dict[str, Any], level: str, message: str) -> None:
    check = check_environment(name, {"python": "/e/python", **found}, "on node1")
    assert (check.name, check.level, check.message) == (f"environment {name}", level, message)
    if found.get("missing") and level == "error":
        assert check.remedy == "/e/python -m pip install pyyaml unsloth==2026.10.9"


def test_the_probe_starts_the_profiles_other_pythons() -> None:
    assert (
        probe._environment("x", "/nowhere/python")["error"] == "[Errno 2] No such file or directory: '/nowhere/python'"
    )
    found = probe._environment("json", sys.executable)
    assert (found["error"], found["missing"]) == (None, [])
    assert tuple(probe.REQUIRED) == tuple(REQUIRED)


def test_the_probe_says_what_is_there_without_hpcbench(tmp_path: Path) -> None:
    result = tmp_path / "probe.json"
    source = (Path(hpcbench.__file__).parent / "cluster" / "node_probe.py").read_text()
    (tmp_path / "probe.py").write_text(source)
    # -S: without site packages, as in a Python that nobody prepared; no hub is asked.
    command = [sys.executable, "-S", str(tmp_path / "probe.py"), str(result)]
    environment = {"HF_ENDPOINT": "file:///etc/passwd", "PATH": "/nowhere"}
    subprocess.run(command, check=True, env=environment, cwd=tmp_path)
    seen = json.loads(result.read_text())
    assert (seen["hpcbench"], seen["packages"]["peft"], seen["scontrol"]) == (None, None, False)
    assert seen["torch"]["error"].startswith("ModuleNotFoundError")
    assert seen["hub"] == "file:///etc/passwd: no web address"


def test_the_save_dir_is_tried_and_left_clean(tmp_path: Path) -> None:
    checks = list(check_save_dir(tmp_path, local_mode=True))
    assert levels(checks)["save dir write"] == "ok"
    assert list(tmp_path.iterdir()) == []


def test_where_srun_is_missing_it_is_named_and_no_job_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("sbatch", "timeout"):
        (tmp_path / name).touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    checks = list(run_checks(PLAIN, tmp_path / "logs", run_job=True, timeout_s=1))
    assert next(check.message for check in checks if check.name == "commands").startswith("not on PATH: srun")
    assert "job" not in levels(checks)


def test_a_save_dir_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert levels(list(check_save_dir(tmp_path / "file", local_mode=True)))["save dir write"] == "error"


def test_a_world_writable_save_dir_is_warned_about(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    assert levels(list(check_save_dir(tmp_path, local_mode=True)))["save dir mode"] == "warning"


def test_the_probe_asks_for_a_gpu_where_jobs_do() -> None:
    assert probe_resources(PLAIN).gpu == 1
    assert probe_resources(ClusterProfile(gpu_flag=None, time_min=5)).time_min == 5


MISSING = {"name": "model qwen", "ok": False, "message": "not in the cache", "error": "LocalEntryNotFoundError"}


@pytest.mark.parametrize(
    ("change", "are_offline", "hub_error", "level", "remedy"),
    [
        ({"ok": True}, True, None, "ok", ""),
        ({}, True, None, "error", "hpcbench prefetch a.yaml"),
        ({}, True, "no route", "error", "hpcbench prefetch a.yaml on a machine with internet"),
        ({}, False, None, "warning", "hpcbench prefetch a.yaml"),
        ({}, False, "no route", "error", "hpcbench prefetch a.yaml on a machine with internet"),
        (
            {"error": "ModuleNotFoundError"},
            True,
            None,
            "warning",
            "install hpcbench-llm[worker] here, or run doctor where it is installed",
        ),
        # No download makes a folder or good rows.
        ({"error": "WorkerError", "hint": "give a folder"}, True, None, "error", "give a folder"),
        (
            {"error": "WorkerError", "hint": f"run `{PREFETCH}` where there is internet"},
            True,
            None,
            "error",
            "hpcbench prefetch a.yaml",
        ),
        # Jobs download nothing from ModelScope, whatever the profile says.
        (
            {"error": "NotInCacheError", "hint": f"run `{PREFETCH}` where there is internet"},
            False,
            None,
            "error",
            "hpcbench prefetch a.yaml",
        ),
    ],
)
def test_what_a_suite_reads_is_judged(
    change: dict[str, Any], are_offline: bool, hub_error: str | None, level: str, remedy: str
) -> None:
    check = check_input(
        MISSING | change, command="hpcbench prefetch a.yaml", are_offline=are_offline, hub_error=hub_error
    )
    assert (check.level, check.remedy) == (level, remedy)


def test_jobs_are_offline_unless_the_profile_or_the_environment_says_otherwise() -> None:
    assert jobs_are_offline(PLAIN, {"HF_HUB_OFFLINE": "0"})
    assert not jobs_are_offline(ClusterProfile(offline=False), {})
    assert jobs_are_offline(None, {})
    assert not jobs_are_offline(None, {"HF_HUB_OFFLINE": "0"})


def test_where_the_worker_is_not_installed_nobody_looks_and_doctor_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'ModuleNotFoundError: No module named hpcbench' >&2\nexit 1\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    [check] = check_inputs([suite(experiment("lora"))], None)
    assert (check.level, check.message) == (
        "warning",
        "not checked: ModuleNotFoundError: No module named hpcbench",
    )


def test_the_hub_is_asked_through_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class Proxy(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Stay quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.delenv("no_proxy", raising=False)
        assert probe.find_hub_error("http://hub.example/") is None
        server.shutdown()
    assert asked == ["http://hub.example/"]
