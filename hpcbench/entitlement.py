"""Whether the account and QOS of a profile may be charged, said before anything is queued.

In: a profile, the partitions that its jobs name, and what the cluster says of its user. Out: what is wrong. Pure. Only
what sbatch would refuse, or what would wait for ever, is wrong: without AccountingStorageEnforce any account and QOS is
taken, and what is not known is never a problem.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from hpcbench.errors import Problem
from hpcbench.feasibility import requests_of
from hpcbench.profile import ClusterProfile
from hpcbench.scheduler.slurm_accounts import Entitlements
from hpcbench.scheduler.slurm_facts import Association
from hpcbench.suite import Suite

ANOTHER = {
    "account": "name one of these as account in the profile, or null for your default one",
    "qos": "name one of these as qos in the profile, or null for the default one",
}
ELSEWHERE = "name another partition, or another {field} in the profile"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """One thing that the cluster would refuse."""

    field: str
    """`account` or `qos`."""
    message: str
    expected: str
    hint: str
    """What to do about it."""


def asks_for_rights(profile: ClusterProfile) -> bool:
    """Say whether a profile names an account or a QOS at all."""
    return _asked(profile, "account") is not None or _asked(profile, "qos") is not None


def find_refused(
    suites: Iterable[Suite], profile: ClusterProfile, known: Entitlements, only: Sequence[str] = ()
) -> list[Problem]:
    """Return what is wrong with the profile's account and QOS for the jobs of these suites, each once."""
    named = {resources.partition for suite in suites for _, _, resources in requests_of(suite, only)}
    refusals = dict.fromkeys(
        refusal
        for partition in sorted(name or profile.partition or "" for name in named)
        for refusal in judge_rights(profile, partition, known)
    )
    return [
        Problem(
            file=f"profile {profile.name}",
            line=None,
            path=refusal.field,
            message=refusal.message,
            expected=refusal.expected,
            hint=refusal.hint,
        )
        for refusal in refusals
    ]


def judge_rights(profile: ClusterProfile, partition: str, known: Entitlements) -> Iterator[Refusal]:
    """Yield what is wrong with the profile's account and QOS in these partitions (comma-separated; empty: any)."""
    names = [name for name in partition.split(",") if name]
    account, qos = _asked(profile, "account"), _asked(profile, "qos")
    if account is not None:
        yield from _judge_account(account, names, known)
    if qos is not None:
        yield from _judge_qos(qos, account, names, known)


def _judge_account(account: str, names: Sequence[str], known: Entitlements) -> Iterator[Refusal]:
    associations = () if known.rights is None else known.rights.associations
    if "associations" in known.enforced and associations:
        mine = _charging(account, associations)
        if not mine:
            yours = ", ".join(dict.fromkeys(found.account for found in associations))
            yield Refusal(
                field="account",
                message=f"{account!r} is no account that you may charge",
                expected=yours,
                hint=ANOTHER["account"],
            )
            return
        bound = {found.partition for found in mine}
        if names and "" not in bound and not bound & set(names):
            message = f"{account!r} may not be charged in {', '.join(names)}"
            yield Refusal(
                field="account",
                message=message,
                expected=f"in {', '.join(sorted(bound))}",
                hint=ELSEWHERE.format(field="account"),
            )
            return
    closed = _closed(names, known, "Accounts", account, exact=known.accounts_are_flat)
    if closed:
        message = f"{account!r} may not use {', '.join(names)}"
        yield Refusal(field="account", message=message, expected=closed, hint=ELSEWHERE.format(field="account"))


def _judge_qos(qos: str, account: str | None, names: Sequence[str], known: Entitlements) -> Iterator[Refusal]:
    rights = known.rights
    if rights is None or "qos" not in known.enforced:
        return
    payer = account or rights.default_account
    mine = rights.associations if payer is None else _charging(payer, rights.associations)
    yours = list(dict.fromkeys(word for found in mine for word in found.qos))
    if yours and qos.lower() not in {word.lower() for word in yours}:
        whose = "" if payer is None else f" of the account {payer}"
        yield Refusal(
            field="qos",
            message=f"{qos!r} is no QOS that you may use{whose}",
            expected=", ".join(yours),
            hint=ANOTHER["qos"],
        )
        return
    closed = "" if rights.is_root else _closed(names, known, "Qos", qos, exact=True)
    if closed:
        yield Refusal(
            field="qos",
            message=f"{qos!r} may not be used in {', '.join(names)}",
            expected=closed,
            hint=ELSEWHERE.format(field="qos"),
        )


def _charging(account: str, associations: Iterable[Association]) -> list[Association]:
    """Return the associations of an account; Slurm's names have no case."""
    return [found for found in associations if found.account.lower() == account.lower()]


def _closed(names: Sequence[str], known: Entitlements, what: str, word: str, *, exact: bool) -> str:
    """Return what these partitions take, if none of them takes this account or QOS; else nothing.

    Args:
        names: partitions; without any, Slurm or the site chooses one, and nothing is known.
        known: what the cluster says.
        what: `Accounts` or `Qos`, as in AllowAccounts and DenyQos.
        word: the account or QOS.
        exact: whether a list of what is allowed leaves out all that it does not name.
    """
    told = []
    for name in names:
        settings: Mapping[str, str] = known.partitions.get(name, {})
        allowed, denied = settings.get(f"Allow{what}", "ALL"), settings.get(f"Deny{what}", "")
        if allowed.upper() not in {"ALL", "(NULL)", ""}:
            if not exact or word.lower() in allowed.lower().split(","):
                return ""
            told.append(f"in {name}: {allowed}")
        elif word.lower() in denied.lower().split(","):
            told.append(f"in {name}: any but {denied}")
        else:
            return ""
    return "; ".join(told)


def _asked(profile: ClusterProfile, field: str) -> str | None:
    """Return the profile's account or QOS; a raw sbatch option beats the field."""
    raw = profile.extra_sbatch.get(field)
    value = raw if isinstance(raw, str) else getattr(profile, field)
    return None if value is None else str(value)
