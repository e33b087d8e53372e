"""Slurm's commands on this machine, and what they report about the cluster.

A command line creates one client and shares it, so that each fact about the cluster is queried once. A request that
fails raises SchedulerError; a fact that cannot be read is empty, which never counts as an answer.
"""

from __future__ import annotations

import logging
import os
import pwd
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property

from hpcbench.errors import SchedulerError
from hpcbench.processes.process_tree import find_processes
from hpcbench.scheduler.slurm.cluster_facts import (
    SINFO_FORMAT,
    USER_FORMAT,
    Entitlements,
    NodeGroup,
    UserRights,
    accounts_are_flat,
    enforced_rules,
    parse_config,
    parse_partitions,
    parse_rights,
    parse_sinfo,
    submit_plugins,
)
from hpcbench.scheduler.slurm.commands import COMMAND_TIMEOUT_S, TRANSIENT, RunCommand, run_command
from hpcbench.scheduler.slurm.states import group_elements
from hpcbench.schemas import variables

logger = logging.getLogger(__name__)

# Messages of a controller that is up and overloaded.
BUSY = re.compile(r"socket timed out|zero bytes|temporarily|try again", re.IGNORECASE)
QUICK_FAILURE_S = 3.0  # Slurm's commands try many seconds to reach the controller: a later failure has found it down
REPEAT_AFTER_S = 1.0
FACTS_TIMEOUT_S = 30
IDS_PER_CALL = 500


class SlurmClient:
    """Slurm as this machine's commands reach it; `clock` returns seconds that only grow."""

    def __init__(
        self,
        *,
        run: RunCommand = run_command,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.run = run
        self._clock = clock
        self._sleep = sleep

    def query(self, command: Sequence[str], *, timeout_s: float = COMMAND_TIMEOUT_S) -> str:
        """Run a command that changes nothing, a second time if its failure may be over in a moment.

        Raises:
            SchedulerError: as `run_command`. A controller that is down is not waited for a second time.
        """
        started = self._clock()
        try:
            return self.run(command, timeout_s=timeout_s)
        except SchedulerError as error:
            was_quick = self._clock() - started < QUICK_FAILURE_S
            if not (BUSY.search(error.message) or (was_quick and TRANSIENT.search(error.message))):
                raise
            logger.info("%s; trying once more", error.message)
        self._sleep(REPEAT_AFTER_S)
        return self.run(command, timeout_s=timeout_s)

    def query_fact(self, command: Sequence[str], fact: str) -> str:
        """Return what a command prints about the cluster, nothing when it fails."""
        try:
            return self.query(command, timeout_s=FACTS_TIMEOUT_S)
        except SchedulerError as error:
            logger.info("%s not known: %s", fact, error.message)
            return ""

    @cached_property
    def config(self) -> Mapping[str, str]:
        """The cluster's settings; empty when it does not answer."""
        return parse_config(self.query_fact(["scontrol", "show", "config"], "the cluster's settings are"))

    @cached_property
    def node_groups(self) -> tuple[NodeGroup, ...]:
        """What each partition has; empty when the cluster does not answer."""
        # --all: a partition that is hidden from this user may still be one that the job is routed to.
        command = ["sinfo", "--all", "--exact", "--noheader", f"--format={SINFO_FORMAT}"]
        return tuple(parse_sinfo(self.query_fact(command, "the cluster's partitions are")))

    @cached_property
    def partitions(self) -> Mapping[str, Mapping[str, str]]:
        """The settings of each partition; empty when the cluster does not answer."""
        command = ["scontrol", "--all", "show", "partition", "-o"]
        return parse_partitions(self.query_fact(command, "the partitions' settings are"))

    @cached_property
    def rights(self) -> UserRights | None:
        """What this user may charge on this cluster; None when accounting does not answer."""
        if not self.config or self.config.get("AccountingStorageType", "").endswith("/none"):
            return None
        # One accounting database often serves several clusters.
        here = [f"cluster={self.config['ClusterName']}"] if self.config.get("ClusterName") else []
        try:
            name = pwd.getpwuid(os.geteuid()).pw_name
            command = ["sacctmgr", "-nP", "show", "user", "where", f"name={name}", *here, "withassoc"]
            text = self.query([*command, f"format={USER_FORMAT}"], timeout_s=FACTS_TIMEOUT_S)
        except (SchedulerError, KeyError) as error:
            logger.info("your accounts are not known: %s", error)
            return None
        rights = parse_rights(text)
        return None if rights is None else replace(rights, is_root=os.geteuid() == 0)

    def entitlements(self, *, needs_rights: bool) -> Entitlements:
        """Return who may charge what; accounting is queried only if `needs_rights` and associations are enforced."""
        if not self.config:
            return Entitlements()
        enforced = enforced_rules(self.config)
        return Entitlements(
            enforced=enforced,
            partitions=self.partitions,
            rights=self.rights if needs_rights and "associations" in enforced else None,
            accounts_are_flat=accounts_are_flat(self.config),
            submit_plugins=submit_plugins(self.config),
        )

    def wait_for_sbatch(self, keys: Sequence[str]) -> None:
        """Wait until no sbatch of a killed submit is left: its job may enter the queue a moment later.

        Raises:
            SchedulerError: it does not end, so it is not known what becomes of the job.
        """
        deadline = self._clock() + COMMAND_TIMEOUT_S
        while find_processes("sbatch", variable=variables.SUBMISSION, values=keys):
            if self._clock() > deadline:
                raise SchedulerError("the sbatch of an earlier submit is still waiting for its answer")
            self._sleep(0.1)

    def release(self, element_ids: Sequence[str]) -> None:
        """Drop the dependency of jobs, those of one array with one message.

        Jobs that have started or ended need no release; scontrol reports those as errors and releases the others
        (22.05 updates all others of an expression such as `7_[0-2,5]`).

        Raises:
            SchedulerError: the controller does not answer.
        """
        ids = group_elements(element_ids)
        for start in range(0, len(ids), IDS_PER_CALL):
            chunk = ",".join(ids[start : start + IDS_PER_CALL])
            try:
                self.run(["scontrol", "update", f"JobId={chunk}", "Dependency="])
            except SchedulerError as error:
                if "exit code" not in error.message or TRANSIENT.search(error.message):
                    raise
                logger.info("not all of %s were released: %s", chunk, error.message)

    def cancel(self, element_ids: Sequence[str]) -> None:
        """Cancel jobs, those of one array with one message; `scancel` takes unknown ids without complaint.

        Raises:
            SchedulerError: scancel failed.
        """
        ids = group_elements(element_ids)
        for start in range(0, len(ids), IDS_PER_CALL):
            # No filter such as --state: with one, scancel takes the whole unsplit rest of an array for one element.
            self.run(["scancel", "--quiet", *ids[start : start + IDS_PER_CALL]])
