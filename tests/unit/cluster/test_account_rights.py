"""Accounts and QOS that a cluster would refuse are refused in words first; what it would take or does not say never is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hpcbench.cluster.account_rights import asks_for_rights, charged_profile, find_refused, judge_rights
from hpcbench.scheduler.slurm.cluster_facts import Association, Entitlements, UserRights, parse_rights
from hpcbench.schemas.cluster_profile import ClusterProfile
from hpcbench.schemas.request import Resources
from tests.support.job_cases import experiment, suite
from tests.unit.scheduler.slurm.test_cluster_facts import recorded

RIGHTS = parse_rights(recorded("sacctmgr-user"))
ENFORCED = frozenset({"associations", "limits", "qos"})
KNOWN = Entitlements(enforced=ENFORCED, rights=RIGHTS, accounts_are_flat=True)


def told(profile: ClusterProfile, partition: str, known: Entitlements) -> list[tuple[str, str, str]]:
    return [(refusal.field, refusal.message, refusal.expected) for refusal in judge_rights(profile, partition, known)]


@pytest.mark.parametrize(
    ("profile", "partition", "expected"),
    [
        (ClusterProfile(), "", None),
        (ClusterProfile(account="lab", qos="four"), "gpu", None),
        (ClusterProfile(account="LAB", qos="Four"), "gpu", None),
        (ClusterProfile(account="nobody"), "", ("account", "you may not charge account 'nobody'", "bound, lab, root")),
        (ClusterProfile(account="bound"), "low", None),
        (ClusterProfile(account="bound"), "gpu,low", None),
        (ClusterProfile(account="bound"), "", None),
        (ClusterProfile(account="bound"), "gpu", ("account", "'bound' may not be charged in gpu", "in low")),
        (ClusterProfile(account="lab", qos="five"), "", ("qos", "you may not use QOS 'five' with account lab", "four, normal")),
        (ClusterProfile(qos="four"), "", ("qos", "you may not use QOS 'four' with account root", "normal")),
        (ClusterProfile(account="nobody", qos="four"), "", ("account", "you may not charge account 'nobody'", "bound, lab, root")),
    ],
)  # fmt: skip
def test_one_profile(profile: ClusterProfile, partition: str, expected: tuple[str, str, str] | None) -> None:
    assert told(profile, partition, KNOWN) == ([] if expected is None else [expected])


def test_without_enforcement_any_account_is_taken() -> None:
    wrong = ClusterProfile(account="nobody", qos="nothing")
    assert told(wrong, "gpu", Entitlements(rights=RIGHTS)) == []
    only_accounts = Entitlements(enforced=frozenset({"associations"}), rights=RIGHTS)
    assert told(ClusterProfile(account="lab", qos="nothing"), "gpu", only_accounts) == []


def test_what_accounting_does_not_say_is_not_refused() -> None:
    wrong = ClusterProfile(account="nobody", qos="nothing")
    assert told(wrong, "gpu", Entitlements(enforced=ENFORCED)) == []
    none = Entitlements(enforced=ENFORCED, rights=parse_rights(""), partitions={"gpu": {"AllowQos": "four"}})
    assert told(wrong, "gpu", none) == []


PARTITIONS = {
    "gpu": {"AllowAccounts": "lab,other", "AllowQos": "four"},
    "open": {"AllowAccounts": "ALL", "DenyAccounts": "root", "AllowQos": "ALL"},
}


@pytest.mark.parametrize(
    ("profile", "partition", "expected"),
    [
        (ClusterProfile(account="lab", qos="four"), "gpu", None),
        (ClusterProfile(account="root"), "gpu", ("account", "'root' may not use gpu", "in gpu: lab,other")),
        (ClusterProfile(account="root"), "open", ("account", "'root' may not use open", "in open: any but root")),
        (ClusterProfile(account="root"), "gpu,open", ("account", "'root' may not use gpu, open", "in gpu: lab,other; in open: any but root")),
        (ClusterProfile(account="bound"), "gpu,open,low", None),
        (ClusterProfile(account="root"), "elsewhere", None),
        (ClusterProfile(account="root"), "", None),
        (ClusterProfile(account="lab", qos="normal"), "gpu", ("qos", "'normal' may not be used in gpu", "in gpu: four")),
        (ClusterProfile(account="lab", qos="normal"), "gpu,open", None),
    ],
)  # fmt: skip
def test_what_partitions_take(profile: ClusterProfile, partition: str, expected: tuple[str, str, str] | None) -> None:
    known = Entitlements(enforced=ENFORCED, rights=RIGHTS, accounts_are_flat=True, partitions=PARTITIONS)
    assert told(profile, partition, known) == ([] if expected is None else [expected])


def test_an_account_below_an_allowed_one_and_the_qos_of_root_are_left_to_slurm() -> None:
    later = Entitlements(enforced=ENFORCED, rights=RIGHTS, accounts_are_flat=False, partitions=PARTITIONS)
    assert told(ClusterProfile(account="root"), "gpu", later) == []
    root = UserRights(associations=(Association(account="lab", qos=("normal",)),), is_root=True)
    known = Entitlements(enforced=ENFORCED, rights=root, accounts_are_flat=True, partitions=PARTITIONS)
    assert told(ClusterProfile(account="lab", qos="normal"), "gpu", known) == []


def test_a_thousand_experiments_name_a_wrong_account_once() -> None:
    experiments = [
        experiment(f"e{i}", requirements=Resources(partition="low" if i % 2 else None), eval_dataset=())
        for i in range(1000)
    ]
    profile = ClusterProfile(name="mine", account="nobody", qos="four")
    [problem] = find_refused([suite(*experiments)], profile, KNOWN)
    assert problem.render() == (
        "profile mine: account: you may not charge account 'nobody'\n"
        "  expected: bound, lab, root\n"
        "  hint: name one of these as account in the profile, or null for your default one"
    )
    bound = ClusterProfile(account="bound", partition="gpu")
    [problem] = find_refused([suite(*experiments)], bound, KNOWN)
    assert problem.message == "'bound' may not be charged in gpu"
    assert find_refused([suite(*experiments)], bound, KNOWN, only=["e1"]) == []


def test_accounting_is_asked_only_where_the_profile_names_something() -> None:
    assert not asks_for_rights(ClusterProfile())
    assert asks_for_rights(ClusterProfile(qos="four"))
    assert asks_for_rights(charged_profile(ClusterProfile(), {"SBATCH_ACCOUNT": "lab"}))


def test_where_a_plugin_may_rewrite_them_no_account_and_no_qos_is_refused() -> None:
    jobs = [suite(experiment("e", eval_dataset=()))]
    for profile in (ClusterProfile(account="nobody", qos="nothing"), ClusterProfile(account="root", partition="gpu")):
        known = Entitlements(enforced=ENFORCED, rights=RIGHTS, accounts_are_flat=True, partitions=PARTITIONS)
        assert find_refused(jobs, profile, known)
        assert find_refused(jobs, profile, replace(known, submit_plugins="lua")) == []


@pytest.mark.parametrize(
    ("profile", "environ", "expected"),
    [
        (ClusterProfile(qos="four"), {"SBATCH_ACCOUNT": "lab"}, None),
        (ClusterProfile(account="root", qos="four"), {"SBATCH_ACCOUNT": "lab"}, "you may not use QOS 'four' with account root"),
        (ClusterProfile(qos="four"), {"SBATCH_ACCOUNT": ""}, "you may not use QOS 'four' with account root"),
        (ClusterProfile(), {"SBATCH_ACCOUNT": "nobody"}, "you may not charge account 'nobody' (SBATCH_ACCOUNT of your environment)"),
        (ClusterProfile(account="lab"), {"SBATCH_QOS": "five"}, "you may not use QOS 'five' with account lab (SBATCH_QOS of your environment)"),
        (ClusterProfile(account="lab", qos="four"), {"SBATCH_QOS": "five"}, None),
    ],
)  # fmt: skip
def test_what_the_environment_names_goes_where_the_profile_names_none(
    profile: ClusterProfile, environ: dict[str, str], expected: str | None
) -> None:
    messages = [problem.message for problem in find_refused([suite(experiment("e"))], profile, KNOWN, (), environ)]
    assert messages == ([] if expected is None else [expected])


def test_of_several_qos_one_will_do() -> None:
    known = replace(KNOWN, partitions=PARTITIONS | {"most": {"DenyQos": "four,six"}})
    assert told(ClusterProfile(account="lab", qos="five,FOUR"), "gpu", known) == []
    assert told(ClusterProfile(account="lab", qos="normal,four"), "most", known) == []
    [(_, message, _)] = told(ClusterProfile(account="lab", qos="five,six"), "", known)
    assert message == "you may not use QOS 'five,six' with account lab"
    # What only the partition takes and what only the user may use do not add up to access.
    [(_, message, _)] = told(
        ClusterProfile(account="root", qos="normal,four"),
        "gpu",
        replace(known, partitions={"gpu": {"AllowQos": "four"}}),
    )
    assert message == "'normal,four' may not be used in gpu"
