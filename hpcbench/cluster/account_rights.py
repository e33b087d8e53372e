"""Check before anything is queued whether the account and QOS of a profile may be charged. Pure.

Only what sbatch would refuse, or what would wait for ever, is wrong; what is not known is never a problem.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from hpcbench.cluster.limits import requests_of
from hpcbench.errors import Problem
from hpcbench.scheduler.slurm.cluster_facts import Association, Entitlements
from hpcbench.schemas.cluster_profile import ClusterProfile
from hpcbench.schemas.suite import Suite

ANOTHER = {
    "account": "name one of these as account in the profile, or null for your default one",
    "qos": "name one of these as qos in the profile, or null for the default one",
}
ELSEWHERE = "name another partition, or another {field} in the profile"
VARIABLES = {"account": "SBATCH_ACCOUNT", "qos": "SBATCH_QOS"}
"""Read by sbatch where a script names none."""
NOTHING: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """One thing that the cluster would refuse."""

    field: str
    """`account` or `qos`."""
    message: str
    expected: str
    hint: str
    """What to do about it."""


def charged_profile(profile: ClusterProfile, environ: Mapping[str, str]) -> ClusterProfile:
    """Return the profile with the account and QOS that sbatch takes from the environment where it names none."""
    taken = {
        field: environ[name]
        for field, name in VARIABLES.items()
        if environ.get(name) and getattr(profile, field) is None
    }
    return profile.model_copy(update=taken)


def asks_for_rights(profile: ClusterProfile) -> bool:
    """Return whether a profile names an account or a QOS at all."""
    return profile.account is not None or profile.qos is not None


def find_refused(
    suites: Iterable[Suite],
    profile: ClusterProfile,
    known: Entitlements,
    only: Sequence[str] = (),
    environ: Mapping[str, str] = NOTHING,
) -> list[Problem]:
    """Return what is wrong with the account and QOS of these suites' jobs, each once; `only`: globs, none is all."""
    if known.submit_plugins:  # a job_submit plugin may set another account or QOS
        return []
    named = {resources.partition for suite in suites for _, _, resources in requests_of(suite, only)}
    refusals = dict.fromkeys(
        refusal
        for partition in sorted(name or profile.partition or "" for name in named)
        for refusal in judge_rights(profile, partition, known, environ)
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


def judge_rights(
    profile: ClusterProfile, partition: str, known: Entitlements, environ: Mapping[str, str] = NOTHING
) -> Iterator[Refusal]:
    """Yield what is wrong with account and QOS in these partitions (comma-separated; empty: any)."""
    names = [name for name in partition.split(",") if name]
    charged = charged_profile(profile, environ)
    refusals: list[Refusal] = []
    if charged.account is not None:
        refusals += _judge_account(charged.account, names, known)
    if charged.qos is not None:
        refusals += _judge_qos(charged.qos, charged.account, names, known)
    for refusal in refusals:
        if getattr(profile, refusal.field) is None:
            name = VARIABLES[refusal.field]
            hint = f"unset {name}, or name another {refusal.field} in the profile"
            yield replace(refusal, message=f"{refusal.message} ({name} of your environment)", hint=hint)
        else:
            yield refusal


def _judge_account(account: str, names: Sequence[str], known: Entitlements) -> Iterator[Refusal]:
    associations = () if known.rights is None else known.rights.associations
    if "associations" in known.enforced and associations:  # else sbatch takes any account (AccountingStorageEnforce)
        mine = _charging(account, associations)
        if not mine:
            yours = ", ".join(dict.fromkeys(found.account for found in associations))
            yield Refusal(
                field="account",
                message=f"you may not charge account {account!r}",
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
    closed = _closed(names, known, "Accounts", [account.lower()], exact=known.accounts_are_flat)
    if closed:
        message = f"{account!r} may not use {', '.join(names)}"
        yield Refusal(field="account", message=message, expected=closed, hint=ELSEWHERE.format(field="account"))


def _judge_qos(qos: str, account: str | None, names: Sequence[str], known: Entitlements) -> Iterator[Refusal]:
    rights = known.rights
    if rights is None or not rights.associations or "qos" not in known.enforced:
        return
    payer = account or rights.default_account
    mine = rights.associations if payer is None else _charging(payer, rights.associations)
    yours = list(dict.fromkeys(word for found in mine for word in found.qos))
    # Slurm 24.11 and later take several, and any of them will do.
    words = qos.lower().split(",")
    usable = [word for word in words if word in {allowed.lower() for allowed in yours}] if yours else words
    if not usable:
        whose = "" if payer is None else f" with account {payer}"
        yield Refusal(
            field="qos",
            message=f"you may not use QOS {qos!r}{whose}",
            expected=", ".join(yours),
            hint=ANOTHER["qos"],
        )
        return
    closed = "" if rights.is_root else _closed(names, known, "Qos", usable, exact=True)
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


def _closed(names: Sequence[str], known: Entitlements, what: str, words: Sequence[str], *, exact: bool) -> str:
    """Return what these partitions take, if none takes this account or any of these QOS (lower case); else nothing.

    `what` is `Accounts` or `Qos`; `exact` holds where a list of what is allowed leaves out all that it does not name.
    """
    told = []
    for name in names:
        settings: Mapping[str, str] = known.partitions.get(name, {})
        allowed, denied = settings.get(f"Allow{what}", "ALL"), settings.get(f"Deny{what}", "")
        if allowed.upper() not in {"ALL", "(NULL)", ""}:
            if not exact or set(words) & set(allowed.lower().split(",")):
                return ""
            told.append(f"in {name}: {allowed}")
        elif set(words) <= set(denied.lower().split(",")):
            told.append(f"in {name}: any but {denied}")
        else:
            return ""
    return "; ".join(told)
