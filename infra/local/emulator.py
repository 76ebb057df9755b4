"""Runs the AWS emulator in this process; `cloud.py up` starts it with the environment it needs."""

import os
import re
import socketserver

from ministack.app import main
from ministack.core import iam_evaluator
from ministack.core.lambda_runtime import Worker
from ministack.services import apigateway, eventbridge, scheduler

# The emulator answers a function's poll for work in two small writes. With Nagle's algorithm the
# second waits for the first one's acknowledgement: 56 ms a warm call instead of 8.
socketserver.StreamRequestHandler.disable_nagle_algorithm = True

# After each call it waits for the function's log lines: 50 ms for the first, if there is none.
# The function has answered by then, so 5 ms do; a later line shows up with the next call.
Worker._drain_stderr_bounded.__defaults__ = (0.005, 0.002, 0.250)

# Its `{proxy+}` fits no line break: its own 404 would answer where a function has to. Only what fits is looked at; functions get
# the path as it came.
within_a_line = apigateway._extract_path_params
apigateway._extract_path_params = lambda route, path: within_a_line(route, path.replace("\n", " "))

# On AWS `aws:PrincipalArn` is the ARN of the role, not of its session.
as_resolved = iam_evaluator._resolve_condition_key


def of_the_role(key, context):
    value = as_resolved(key, context)
    is_principal = key.lower() == "aws:principalarn" and value
    return re.sub(r":sts::(\d+):assumed-role/([^/]+)/.*", r":iam::\1:role/\2", value) if is_principal else value


iam_evaluator._resolve_condition_key = of_the_role

# Tests would wait a minute each for the reconciler: AWS has no shorter schedule.
if secs := os.environ.get("SCHEDULE_SECS"):
    eventbridge._parse_rate_seconds = lambda expression: int(secs)
    scheduler._SCHEDULE_TICK_INTERVAL = 2

main()
