"""What a cluster reports, read from recorded output of Slurm 22.05.8 and from text in the forms of the manuals."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcbench.scheduler.slurm.cluster_facts import (
    accounts_are_flat,
    correspond_count,
    enforced_rules,
    max_array_size,
    parse_config,
    parse_gpus,
    parse_partitions,
    parse_rights,
    parse_sinfo,
    parse_sshare,
    read_limit_min,
    scheduler_option,
    submit_plugins,
)
from tests.support.places import RECORDED


def recorded(name: str) -> str:
    return (RECORDED / f"{name}-22.05.8.txt").read_text(encoding="utf-8")


def test_the_settings_that_decide_behaviour() -> None:
    config = parse_config(recorded("scontrol-config"))
    assert max_array_size(config) == 1001
    assert correspond_count(config) == 10
    assert (config["MinJobAge"], config["KillWait"], config["JobRequeue"]) == ("10 sec", "5 sec", "1")
    assert scheduler_option(config, "bf_interval") == "1"
    assert scheduler_option(config, "preempt_send_user_signal", "SlurmctldParameters") is None


@pytest.mark.parametrize(("value", "size"), [("0", 1), ("1", 1), ("11", 11), ("(null)", 1001)])
def test_an_array_size_of_zero_forbids_arrays(value: str, size: int) -> None:
    assert max_array_size({"MaxArraySize": value}) == size


def test_options_are_values_or_bare_words() -> None:
    config = {"SchedulerParameters": "bf_interval=30,correspond_after_task_cnt=200", "SlurmctldParameters": "a,b"}
    assert correspond_count(config) == 200
    assert scheduler_option(config, "b", "SlurmctldParameters") == ""


def test_the_recorded_partition() -> None:
    [group] = parse_sinfo(recorded("sinfo"))
    assert (group.partition, group.is_default, group.is_up, group.time_max_min) == ("gpu", True, True, 480)
    assert (group.num_nodes, group.cpus, dict(group.gpus)) == (2, 8, {"a100": 4})
    partition = parse_partitions(recorded("scontrol-partition"))["gpu"]
    assert (partition["GraceTime"], partition["MaxTime"], partition["State"]) == ("0", "08:00:00", "UP")


def test_partitions_of_several_shapes() -> None:
    text = (
        "*** maintenance on Friday | see the wiki ***\n"
        "cpu*|up|infinite|120|64+|256000+|(null)\n"
        "gpu|up|2-00:00:00|8|64|512000|gpu:a100:4(S:0-3),gpu:v100:2\n"
        "old|drain|30:00|1|8|16000|gpu:2,lustre:1\n"
    )
    cpu, gpu, old = parse_sinfo(text)
    assert (cpu.time_max_min, cpu.cpus, cpu.num_gpus) == (None, 64, 0)
    assert (gpu.time_max_min, dict(gpu.gpus), gpu.num_gpus) == (2880, {"a100": 4, "v100": 2}, 6)
    assert (old.is_up, old.time_max_min, dict(old.gpus)) == (False, 30, {"": 2})


@pytest.mark.parametrize(
    ("word", "minutes"),
    [("infinite", None), ("UNLIMITED", None), ("n/a", None), ("1-00:00:00", 1440), ("8:00:00", 480), ("30:00", 30)],
)
def test_time_limits(word: str, minutes: int | None) -> None:
    assert read_limit_min(word) == minutes


def test_accounts_and_what_is_none() -> None:
    rights = parse_rights(recorded("sacctmgr-user"))
    assert rights is not None
    assert rights.default_account == "root"
    assert [(a.account, a.partition, a.qos) for a in rights.associations] == [
        ("bound", "low", ("normal",)),
        ("lab", "", ("four", "normal")),
        ("root", "", ("normal",)),
    ]
    several = parse_rights("|lab-1|gpu|normal,long|normal|500\n|00123||||\n")
    assert several is not None
    assert several.default_account is None
    assert [(a.account, a.partition, a.qos, a.max_submitted) for a in several.associations] == [
        ("lab-1", "gpu", ("normal", "long"), 500),
        ("00123", "", (), None),
    ]
    off = (
        "You are not running a supported accounting_storage plugin\nOnly 'accounting_storage/slurmdbd' is supported.\n"
    )
    assert parse_rights(off) is None
    nothing = parse_rights("\n")
    assert nothing is not None
    assert nothing.associations == ()
    assert parse_sshare(recorded("sshare"), "root") == ["root"]


def test_the_plugins_that_may_change_a_job() -> None:
    assert submit_plugins(parse_config(recorded("scontrol-config"))) == submit_plugins({}) == ""
    assert submit_plugins({"JobSubmitPlugins": "lua,throttle"}) == "lua,throttle"


@pytest.mark.parametrize(
    ("value", "rules"),
    [
        ("none", set()),
        ("(null)", set()),
        ("associations", {"associations"}),
        ("associations,limits,qos", {"associations", "limits", "qos"}),
        ("safe", {"safe", "limits", "associations"}),
        ("QOS", {"qos", "associations"}),
        ("all", {"all", "associations", "limits", "qos"}),
    ],
)
def test_what_accounting_enforces(value: str, rules: set[str]) -> None:
    assert enforced_rules({"AccountingStorageEnforce": value}) == rules


def test_newer_versions_count_the_accounts_below_an_allowed_one() -> None:
    versions = {"22.05.8": True, "23.02.7": True, "23.11.4": False, "24.05.0": False, "": False}
    assert {version: accounts_are_flat({"SLURM_VERSION": version}) for version in versions} == versions


@given(st.text())
def test_no_text_stops_a_parser(text: str) -> None:
    for parse in (parse_config, parse_partitions, parse_rights, parse_gpus, read_limit_min):
        parse(text)
    list(parse_sinfo(text))
    parse_sshare(text, "me")


@given(
    st.lists(
        st.tuples(st.sampled_from(["a100", "h100", "v100"]), st.integers(min_value=1, max_value=16)),
        unique_by=lambda pair: pair[0],
    )
)
def test_gpus_are_read_back(gpus: list[tuple[str, int]]) -> None:
    assert parse_gpus(",".join(f"gpu:{kind}:{count}(S:0-1)" for kind, count in gpus) or "(null)") == dict(gpus)
