"""Whether everything that was accepted has come to an end, by the system's own audit where there is one."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from traffic.api import Api
from traffic.posting import Accepted
from traffic.stack import Stack

FINAL = {"delivered", "skipped", "failed", "cancelled"}
PAUSE_SECS = 1.0


@dataclass
class Audit:
    """Which rows are there by state, and what is wrong."""

    used: str
    rows: dict[str, dict] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)


def audit(
    stack: Stack, apis: dict[str, Api], accepted: list[Accepted], until: float, say: Callable[[int], None]
) -> Audit:
    """Looks at every delivery of every attestation until all are final, or until a moment; then asks
    `chainloop delivery audit`."""
    rows, open_rows = follow(apis, accepted, until, say)
    result = Audit("own check over the API: no `chainloop delivery audit` here", rows)
    for one in accepted:
        for id in one.deliveries:
            if id not in rows:
                result.violations.append(f"{id} of {one.attestation}: promised and not there")
            elif rows[id]["state"] not in FINAL:
                row = rows[id]
                reason = f" ({row['reason']})" if row["reason"] else ""
                result.violations.append(
                    f"{id}: {row['state']}, attempt {row['attempt']}, due {row['due_at']}, "
                    f"changed {row['updated_at']}{reason}"
                )
    if stack.chainloop(None, "delivery", "audit", "--help").returncode == 0:
        result.used = "`chainloop delivery audit`, and all final by the API"
        for organization in sorted({one.organization for one in accepted}):
            done = stack.chainloop(organization, "delivery", "audit")
            if done.returncode:
                result.violations += (done.stdout + done.stderr).strip().splitlines()
    return result


def follow(
    apis: dict[str, Api], accepted: list[Accepted], until: float, say: Callable[[int], None]
) -> tuple[dict[str, dict], int]:
    """The rows of all attestations, looked at until they are final; and how many are not."""
    rows: dict[str, dict] = {}
    waiting = list({one.attestation: one for one in accepted}.values())

    def look(one: Accepted) -> bool:
        found = {row["id"]: row for row in apis[one.organization].pages("/deliveries", attestation=one.attestation)}
        rows.update(found)
        return set(one.deliveries) <= set(found) and all(row["state"] in FINAL for row in found.values())

    with ThreadPoolExecutor(2) as pool:
        while True:
            finished = list(pool.map(look, waiting))
            waiting = [one for one, is_final in zip(waiting, finished) if not is_final]
            left = sum(1 for one in waiting for id in one.deliveries if rows.get(id, {}).get("state") not in FINAL)
            say(left)
            if not waiting or time.monotonic() > until:
                return rows, left
            # Many rows take long to read, and reading slows down what is waited for.
            time.sleep(PAUSE_SECS + 0.02 * len(waiting))
