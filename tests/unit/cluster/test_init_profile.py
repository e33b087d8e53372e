"""The profile that `hpcbench init` proposes: golden text from recorded output, and always one that loads."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from hpcbench.cluster.init_profile import ClusterFacts, host_glob, profile_name, render_profile
from hpcbench.config.profile import read_profile
from hpcbench.scheduler.slurm.cluster_facts import Association, parse_config, parse_rights, parse_sinfo
from hpcbench.schemas.cluster_profile import ClusterProfile
from tests.conftest import Golden
from tests.unit.scheduler.slurm.test_cluster_facts import recorded

YOURS = parse_rights(recorded("sacctmgr-user"))
assert YOURS is not None
RECORDED = ClusterFacts(
    config=parse_config(recorded("scontrol-config")),
    groups=tuple(parse_sinfo(recorded("sinfo"))),
    associations=YOURS.associations,
    default_account=YOURS.default_account,
    host="login02",
    python="/shared/venv/bin/python",
    environ={"LOADEDMODULES": "gcc/13:cuda/12.4", "VIRTUAL_ENV": "/shared/venv"},
)


def load(text: str, folder: Path) -> ClusterProfile:
    file = folder / "written.yaml"
    file.write_text(text)
    return read_profile(file)


def test_the_profile_of_the_test_cluster(golden: Golden, tmp_path: Path) -> None:
    text = render_profile(RECORDED)
    golden("slurm/init.yaml", text)
    profile = load(text, tmp_path)
    assert (profile.partition, profile.hosts, profile.time_max_min) == ("gpu", ("login*",), 480)
    assert profile.setup == ("module load gcc/13 cuda/12.4", "source /shared/venv/bin/activate")


def test_a_cluster_that_answers_nothing_gives_a_plain_profile(tmp_path: Path) -> None:
    profile = load(render_profile(ClusterFacts(python="/usr/bin/python3")), tmp_path)
    plain = ClusterProfile(name="written", hosts=("localhost",), python="/usr/bin/python3", setup_failure="stop")
    assert profile.model_dump() == plain.model_dump()


def test_several_accounts_are_listed_and_the_default_one_is_named(tmp_path: Path) -> None:
    facts = ClusterFacts(
        associations=[Association(account="00123", qos=("long",), max_submitted=50), Association(account="lab")],
        default_account="00123",
    )
    text = render_profile(facts)
    profile = load(text, tmp_path)
    assert (profile.account, profile.max_submitted) == ("00123", 50)
    assert "# yours: 00123, lab" in text


def test_an_account_that_the_partition_does_not_take_is_not_chosen(tmp_path: Path) -> None:
    facts = ClusterFacts(
        groups=tuple(parse_sinfo("gpu*|up|1:00|2|8|8000|gpu:4\n")),
        associations=[Association(account="course", partition="cpu"), Association(account="lab", partition="gpu")],
        default_account="course",
    )
    assert load(render_profile(facts), tmp_path).account == "lab"


@pytest.mark.parametrize(
    ("settings", "plugins", "account"),
    [
        ({"AllowAccounts": "lab,other"}, "(null)", "lab"),
        ({"AllowAccounts": "ALL", "DenyAccounts": "course"}, "(null)", "lab"),
        ({"AllowAccounts": "nobody"}, "(null)", "course"),
        ({"AllowAccounts": "lab"}, "lua", "course"),
    ],
)
def test_an_account_that_the_partition_shuts_out_is_not_chosen(
    tmp_path: Path, settings: dict[str, str], plugins: str, account: str
) -> None:
    facts = ClusterFacts(
        config={"SLURM_VERSION": "22.05.8", "AccountingStorageEnforce": "associations", "JobSubmitPlugins": plugins},
        groups=tuple(parse_sinfo("gpu*|up|1:00|2|8|8000|gpu:4\n")),
        partitions={"gpu": settings},
        associations=[Association(account="course"), Association(account="lab")],
        default_account="course",
    )
    assert load(render_profile(facts), tmp_path).account == account


def test_gpu_nodes_are_preferred_to_a_default_partition_without(tmp_path: Path) -> None:
    text = "cpu*|up|8:00:00|120|64|256000|(null)\ngpu|up|infinite|8|64|512000|gpu:a100:4\ndown|down|1:00|99|8|1|gpu:8\n"
    profile = load(render_profile(ClusterFacts(groups=tuple(parse_sinfo(text)))), tmp_path)
    assert (profile.partition, profile.time_max_min, profile.cpus_per_gpu) == ("gpu", None, 16)


def test_a_cluster_without_arrays_or_gpus(tmp_path: Path) -> None:
    config = {"MaxArraySize": "0", "GresTypes": "(null)"}
    profile = load(render_profile(ClusterFacts(config=config)), tmp_path)
    assert (profile.arrays, profile.gpu_flag) == (False, None)


@pytest.mark.parametrize(("host", "glob"), [("login03", "login*"), ("frontend", "frontend"), ("42", "42")])
def test_login_nodes_are_named_alike(host: str, glob: str) -> None:
    assert host_glob(host) == glob


@hypothesis_settings(deadline=None)
@given(st.text(), st.text(), st.text(min_size=1), st.text())
def test_whatever_the_cluster_says_the_profile_loads(
    tmp_path_factory: pytest.TempPathFactory, name: str, account: str, partition: str, venv: str
) -> None:
    groups = tuple(parse_sinfo(f"{partition}|up|infinite|1|8|1024|gpu:1\n"))
    facts = ClusterFacts(
        config={"ClusterName": name},
        groups=groups,
        associations=() if (rights := parse_rights(f"|{account}||||\n")) is None else rights.associations,
        environ={"VIRTUAL_ENV": venv, "LOADEDMODULES": venv},
    )
    assert profile_name(facts)
    load(render_profile(facts), tmp_path_factory.mktemp("init"))
