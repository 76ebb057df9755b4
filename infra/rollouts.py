"""Checks, in what AWS makes of the template, that with a rollout in steps all work reaches functions by their aliases, and
that without one there is no alias.

    .venv/sam/bin/python infra/rollouts.py

Only what AWS makes of it shows what SAM adds by itself: mappings, schedules, permissions.
"""

import json
import sys

from checkov import expanded

# Those that give work to a function, with the property that names it.
CALLERS = {
    "AWS::ApiGatewayV2::Authorizer": "AuthorizerUri",
    "AWS::ApiGatewayV2::Integration": "IntegrationUri",
    "AWS::Lambda::EventSourceMapping": "FunctionName",
    "AWS::Lambda::Permission": "FunctionName",
    "AWS::Scheduler::Schedule": "Target",
}
# Those that say something of a function: CloudWatch counts by its name what all its versions did.
OTHERS = {
    "AWS::CloudWatch::Alarm",
    "AWS::Lambda::Alias",
    "AWS::Lambda::EventInvokeConfig",
    "AWS::Lambda::Version",
}
# A page and its files have to be of one version, and so has the function that the page signs in with.
AT_ONCE = {"Console", "SignIn"}
MOST_ALARMS = 10
# What a condition leaves out, SAM does not write whole.
ALL = {"SignInIssuer": "https://login.example.org", "SignInClientId": "console"}
STEPS = ALL | {"Rollout": "Linear10PercentEvery1Minute", "Revision": "0a1b2c3d"}
# What the tools leave of it in Globals.
DESCRIPTION = {"Fn::If": ["Shifts", {"Ref": "Revision"}, {"Ref": "AWS::NoValue"}]}


def main() -> None:
    faults = [f"in steps: {fault}" for fault in in_steps(expanded(STEPS)["Resources"])]
    faults += [f"at once: {fault}" for fault in at_once(expanded(ALL)["Resources"])]
    if faults:
        sys.exit("\n".join(faults))


def of_type(resources: dict, *types: str) -> dict:
    return {id: one["Properties"] for id, one in resources.items() if one["Type"] in types}


def named(value, ids) -> set[str]:
    """The resources with these IDs that a value refers to."""
    match value:
        # With what is known put in, SAM leaves an Fn::Sub as a text.
        case {"Ref": str(id)}:
            return {id} & set(ids)
        case {"Fn::GetAtt": [str(id), *_]}:
            return {id} & set(ids)
        case {"Fn::GetAtt": str(text)}:
            return {text.split(".")[0]} & set(ids)
        case str(text):
            return {id for id in ids if f"${{{id}}}" in text or f"${{{id}." in text}
        case dict():
            return set().union(*(named(part, ids) for part in value.values()))
        case list():
            return set().union(*(named(part, ids) for part in value))
    return set()


def in_steps(resources: dict) -> list[str]:
    functions, aliases = of_type(resources, "AWS::Lambda::Function"), of_type(resources, "AWS::Lambda::Alias")
    groups = of_type(resources, "AWS::CodeDeploy::DeploymentGroup")
    alarms = of_type(resources, "AWS::CloudWatch::Alarm")
    faults = []
    published = [one["FunctionName"]["Ref"] for one in aliases.values()]
    if sorted(published) != sorted(functions.keys() - AT_ONCE):
        faults.append(f"the aliases are of {published}")
    for id, alias in aliases.items():
        policy = resources[id]["UpdatePolicy"]["CodeDeployLambdaAliasUpdate"]
        version = resources[alias["FunctionVersion"]["Fn::GetAtt"][0]]["Properties"]
        leads = alias["Name"] == "live" and version["FunctionName"] == alias["FunctionName"]
        # Else CloudFormation would publish nothing, or Lambda find nothing to publish.
        told = functions[alias["FunctionName"]["Ref"]].get("Description") == DESCRIPTION
        if not leads or not told or version["Description"] != STEPS["Revision"]:
            faults.append(f"{id} does not lead to a version of its function with the revision")
        watched = groups[policy["DeploymentGroupName"]["Ref"]]["AlarmConfiguration"]["Alarms"]
        watched = [alarm["Name"]["Ref"] for alarm in watched]
        if not 0 < len(watched) <= MOST_ALARMS or not set(watched) <= alarms.keys():
            faults.append(f"{id}: its group has the alarms {watched}")
    called = dict.fromkeys(CALLERS, 0)
    for id, resource in resources.items():
        kind, properties = resource["Type"], resource["Properties"]
        if kind in CALLERS:
            called[kind] += bool(named(properties[CALLERS[kind]], aliases))
        if kind in OTHERS:
            continue
        for function in named(properties, functions) - AT_ONCE:
            # A right is one to call both, while those with it change over.
            if kind not in ("AWS::IAM::Policy", "AWS::IAM::Role") or ":live" not in json.dumps(properties):
                faults.append(f"{id} names {function}, not its alias")
    faults += [f"no {kind} names an alias" for kind, count in called.items() if not count]
    print("aliases are named by " + ", ".join(f"{count} × {kind.split('::')[-1]}" for kind, count in called.items()))
    return faults


def at_once(resources: dict) -> list[str]:
    shifts = [id for id, one in resources.items() if one.get("Condition") == "Shifts"]
    there = {id: one for id, one in resources.items() if id not in shifts}
    return [
        f"{id} is there"
        for id, one in there.items()
        if one["Type"].startswith("AWS::CodeDeploy::") or one["Type"] in ("AWS::Lambda::Alias", "AWS::Lambda::Version")
    ] + [f"{id} names {one}, which is not there" for id, resource in there.items() for one in named(resource, shifts)]


if __name__ == "__main__":
    main()
