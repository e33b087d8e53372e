"""The test cluster itself: the text of its configuration, its processes, and what a real start of it can do."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.slurm.conftest import leave_out
from tests.support.slurm_cluster.cluster import Cluster, main, start_cluster, stop_cluster
from tests.support.slurm_cluster.config import (
    ClusterSettings,
    merge_lines,
    render_cgroup_conf,
    render_env,
    render_files,
)
from tests.support.slurm_cluster.daemons import end_processes, list_job_processes, read_live, start_daemon, wait_until
from tests.support.slurm_cluster.installation import ClusterError

SETTINGS = ClusterSettings(
    directory=Path("/srv/c"),
    sockets=Path("/srv/c"),
    hostname="box",
    base_port=20000,
    slurm_version=(22, 5),
    database_password="secret",
)

GOLDEN_SLURM_CONF = """\
ClusterName=testbed
SlurmctldHost=box(127.0.0.1)
SlurmctldPort=20000
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=/srv/c/munge.socket
StateSaveLocation=/srv/c/state
SlurmdSpoolDir=/srv/c/spool/%n
SlurmctldPidFile=/srv/c/run/slurmctld.own.pid
SlurmdPidFile=/srv/c/run/slurmd-%n.own.pid
SlurmctldLogFile=/srv/c/log/slurmctld.log
SlurmdLogFile=/srv/c/log/slurmd-%n.log
SlurmctldDebug=info
SlurmdDebug=info
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SlurmctldTimeout=30
SlurmdTimeout=30
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,sched_min_interval=0,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
PriorityType=priority/basic
DefMemPerCPU=1000
JobRequeue=1
KillWait=5
MinJobAge=300
MaxArraySize=1001
MaxJobCount=20000
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=20001
AccountingStoragePass=/srv/c/munge.socket
AccountingStorageTRES=gres/gpu
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=5
GresTypes=gpu
NodeName=gpu[1-2] NodeHostname=box NodeAddr=127.0.0.1 Port=[20003-20004] CPUs=8 Boards=1 SocketsPerBoard=1 \
CoresPerSocket=8 ThreadsPerCore=1 RealMemory=8000 Gres=gpu:a100:4 State=UNKNOWN
PartitionName=gpu Nodes=gpu[1-2] Default=YES State=UP MaxTime=08:00:00 DefaultTime=01:00:00
"""


def test_slurm_conf_describes_two_nodes_of_four_gpus() -> None:
    assert render_files(SETTINGS)["slurm.conf"] == GOLDEN_SLURM_CONF


def test_gres_conf_gives_both_nodes_character_devices() -> None:
    expected = "AutoDetect=off\nNodeName=gpu[1-2] Name=gpu Type=a100 File=/srv/c/devices/gpu[0-3]\n"
    assert render_files(SETTINGS)["gres.conf"] == expected


def test_slurmdbd_finds_its_private_database_by_port() -> None:
    lines = render_files(SETTINGS)["slurmdbd.conf"].splitlines()
    assert {"DbdPort=20001", "StorageHost=127.0.0.1", "StoragePort=20002", "StoragePass=secret"} <= set(lines)


def test_without_accounting_no_database_is_configured() -> None:
    files = render_files(replace(SETTINGS, accounting=False))
    assert sorted(files) == ["cgroup.conf", "gres.conf", "slurm.conf"]
    assert "AccountingStorageType=accounting_storage/none\n" in files["slurm.conf"]
    assert "slurmdbd" not in files["slurm.conf"]


def test_a_lua_script_brings_its_plugin() -> None:
    files = render_files(replace(SETTINGS, lua="return slurm.SUCCESS\n"))
    assert files["job_submit.lua"] == "return slurm.SUCCESS\n"
    assert files["slurm.conf"].endswith("JobSubmitPlugins=lua\n")


def test_an_extra_line_replaces_the_line_of_its_key() -> None:
    assert merge_lines(["KillWait=5", "MinJobAge=300"], ["killwait=2"]) == ["killwait=2", "MinJobAge=300"]


def test_an_extra_partition_is_added_beside_the_others() -> None:
    lines = ["PartitionName=gpu Default=YES", "KillWait=5"]
    assert merge_lines(lines, ["PartitionName=low Nodes=ALL"]) == [*lines, "PartitionName=low Nodes=ALL"]
    assert merge_lines(lines, ["PartitionName=gpu MaxTime=60"]) == ["PartitionName=gpu MaxTime=60", "KillWait=5"]


def test_an_extra_line_without_a_value_is_refused() -> None:
    with pytest.raises(ValueError, match=r"slurm\.conf: 'KillWait' cannot be a line of it; expected: Key=Value"):
        merge_lines([], ["KillWait"])


@pytest.mark.parametrize(
    ("version", "text"),
    [
        ((22, 5), "CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n"),
        ((23, 11), "CgroupPlugin=cgroup/v1\n"),
        ((24, 5), "CgroupPlugin=disabled\n"),
    ],
)
def test_cgroups_are_left_alone_in_every_release(version: tuple[int, int], text: str) -> None:
    assert render_cgroup_conf(version) == text


def test_env_quotes_its_values() -> None:
    assert render_env({"B": "x y", "A": "/z"}) == "export A=/z\nexport B='x y'\n"


def test_a_missing_slurm_skips_here_and_fails_in_ci() -> None:
    with pytest.raises(pytest.skip.Exception, match="Slurm test left out: no root"):
        leave_out("no root", {})
    for environment in ({"CI": "true"}, {"HPCBENCH_REQUIRE_SLURM": "1"}):
        with pytest.raises(pytest.fail.Exception, match="Slurm is required here, and cannot be had: no root"):
            leave_out("no root", environment)


def test_a_daemon_outlives_its_starter_and_ends_on_request(tmp_path: Path) -> None:
    pid_file = tmp_path / "sleep.pid"
    start_daemon(["sleep", "60"], pid_file=pid_file, log_file=tmp_path / "log", environment=dict(os.environ))
    process = read_live(pid_file)
    assert process is not None
    assert os.getsid(process.pid) == process.pid
    end_processes([process], grace_s=5)
    assert read_live(pid_file) is None


def test_a_pid_file_of_another_process_is_not_believed(tmp_path: Path) -> None:
    pid_file = tmp_path / "old.pid"
    pid_file.write_text(f"{os.getpid()} 1\n")  # our own number, but not started at the machine's boot
    assert read_live(pid_file) is None


def test_waiting_in_vain_shows_the_end_of_the_log(tmp_path: Path) -> None:
    log_file = tmp_path / "log"
    log_file.write_text("fatal: no munge\n")
    with pytest.raises(ClusterError, match=r"(?s)waited 0 s for nothing.*fatal: no munge"):
        wait_until(lambda: False, what="nothing", timeout_s=0, log_file=log_file)


def test_stopping_what_never_ran_is_no_error(tmp_path: Path) -> None:
    stop_cluster(tmp_path / "nothing")
    assert main(["stop", "--dir", str(tmp_path / "nothing")]) == 0
    assert main(["status", "--dir", str(tmp_path / "nothing")]) == 1
    assert not (tmp_path / "nothing").exists()


def run(*argv: str) -> str:
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True).stdout.strip()


def await_true(condition: Callable[[], bool], what: str) -> None:
    wait_until(condition, what=what, timeout_s=300)


def count_queued() -> int:
    return len(run("squeue", "--noheader", "--array").splitlines())


@pytest.mark.slurm
@pytest.mark.usefixtures("slurm_cluster")
def test_a_step_runs_on_both_nodes() -> None:
    assert sorted(run("srun", "-N2", "printenv", "SLURMD_NODENAME").split()) == ["gpu1", "gpu2"]


@pytest.mark.slurm
@pytest.mark.usefixtures("slurm_cluster")
def test_a_job_sees_its_gpus_and_sacct_counts_them(tmp_path: Path) -> None:
    log = tmp_path / "log"
    job = run("sbatch", "--parsable", "--wait", "--gres=gpu:2", f"--output={log}", "--wrap=echo $CUDA_VISIBLE_DEVICES")
    assert log.read_text() == "0,1\n"
    query = ["sacct", "--noheader", "--parsable2", "--allocations", "--format=State,AllocTRES", f"--jobs={job}"]
    await_true(lambda: run(*query).startswith("COMPLETED|"), "sacct to know the job")
    assert "gres/gpu=2" in run(*query)


@pytest.mark.slurm
@pytest.mark.usefixtures("slurm_cluster")
def test_an_eval_array_follows_its_train_array_element_by_element(tmp_path: Path) -> None:
    log = f"--output={tmp_path}/%a"
    wrap = "--wrap=sleep 1; test $SLURM_ARRAY_TASK_ID != 1"
    trains = run("sbatch", "--parsable", "--array=0-2", "--output=/dev/null", wrap)
    dependency = f"--dependency=aftercorr:{trains}"
    run("sbatch", "--parsable", "--array=0-2", log, dependency, "--kill-on-invalid-dep=yes", "--wrap=true")
    await_true(lambda: count_queued() == 0, "the arrays to end")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "2"]


@pytest.mark.slurm
def test_slurmctld_restarts_with_its_jobs_and_slurmdbd_comes_back(slurm_cluster: Cluster) -> None:
    job = run("sbatch", "--parsable", "--output=/dev/null", "--wrap=sleep 60")
    slurm_cluster.restart_slurmctld()
    assert run("squeue", "--noheader", "--format=%A") == job
    slurm_cluster.stop_slurmdbd()
    with pytest.raises(subprocess.CalledProcessError):
        run("sacct")
    slurm_cluster.start_slurmdbd()
    run("sacct")
    run("scancel", job)
    await_true(lambda: count_queued() == 0, "the job to end")


@pytest.mark.slurm
def test_a_second_cluster_runs_beside_the_first_and_leaves_nothing(slurm_cluster: Cluster, tmp_path: Path) -> None:
    folder = tmp_path / "a-name-too-long-for-sockets" / "a-name-too-long-for-sockets"
    second = start_cluster(folder, accounting=False, extra_lines=["KillWait=1"])
    try:
        assert start_cluster(folder, accounting=False, extra_lines=["KillWait=1"]) == second
        with pytest.raises(ClusterError, match="runs with other settings"):
            start_cluster(folder, accounting=False)
        client = {**os.environ, **second.environment}
        # Two processes that leave the job's process group, and one that does not mind SIGTERM.
        script = "--wrap=setsid sleep 60 & trap '' TERM; setsid sleep 60 & sleep 60"
        subprocess.run(["sbatch", "--output=/dev/null", script], env=client, check=True, capture_output=True)
        spool = second.settings.sockets / "spool"
        # The shell, three times sleep, and slurmstepd.
        await_true(lambda: len(list_job_processes(second.settings.slurm_conf, spool)) == 5, "the job to start")
        assert count_queued() == 0
    finally:
        second.stop()
    assert list_job_processes(second.settings.slurm_conf, spool) == []
    assert not second.settings.sockets.exists()
    assert set(slurm_cluster.describe_nodes().values()) == {"idle"}
