"""Why a request came again: each repeat has to have its own reason."""

from dataclasses import dataclass, field

from traffic.arrivals import Arrival, Kill

# An answer that was sent so shortly before a kill may not have reached the ledger.
RECORDING_SECS = 2.0
# What a process had written before it was killed is read a moment after.
READING_SECS = 1.0
# A process that is dying is not found any more a moment before its death is noted.
DYING_SECS = 0.1
REFUSALS = {"busy", "down"}
SILENCES = {"hang", "reset", "reset-early"}


@dataclass
class Repeats:
    """Requests that came again, by what became of the one before."""

    # Refused by a status: nobody had taken it.
    refused: int = 0
    # Sent, and hung or reset by the third party: nobody knows.
    unanswered: int = 0
    # Its process was killed before the ledger knew.
    killed: int = 0
    unexplained: list[str] = field(default_factory=list)
    # Of those killed, by message: from the kill to the repeat.
    recovered_secs: dict[str, float] = field(default_factory=dict)


class Kills:
    def __init__(self, kills: list[Kill]):
        self.kills = sorted(kills, key=lambda kill: kill.at)

    def of(self, arrival: Arrival) -> float | None:
        """When the process that had sent this was killed with the send, or what came of it, still in flight."""
        if arrival.end in REFUSALS | SILENCES:
            return None
        begin, end = arrival.at - READING_SECS, (arrival.ended_at or arrival.at) + RECORDING_SECS
        if arrival.pid is None:
            # Dead or dying when its connection was taken: nobody was behind it any more.
            end = arrival.at + DYING_SECS
        for kill in self.kills:
            if begin <= kill.at <= end and arrival.pid in (kill.pid, None):
                return kill.at
        return None


def in_flight(arrivals: list[Arrival], kills: Kills) -> int:
    """Sends that were under way when their process was killed: each may lead to one copy."""
    return sum(kills.of(arrival) is not None for arrival in arrivals)


def repeats(by_message: dict[str, list[Arrival]], kills: Kills) -> Repeats:
    found = Repeats()
    for message, arrivals in by_message.items():
        for before, after in zip(arrivals, arrivals[1:]):
            if before.end in REFUSALS:
                found.refused += 1
            elif before.end in SILENCES:
                found.unanswered += 1
            elif (killed_at := kills.of(before)) is not None:
                found.killed += 1
                found.recovered_secs[message] = after.at - killed_at
            else:
                found.unexplained.append(
                    f"{message} at {before.path}: ended with {before.end!r} and came again after "
                    f"{after.at - before.at:.1f} s, from process {before.pid} and then {after.pid}"
                )
    return found
