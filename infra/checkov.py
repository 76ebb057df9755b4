"""Checks the template against checkov's rules for AWS, without the network.

    .venv/sam/bin/python infra/checkov.py

checkov knows neither loops nor the functions of SAM. It gets what AWS makes of the template: the loops expanded, SAM's
resources replaced by those that they stand for, and the parameters that a careful account sets.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from samcli.lib.cfn_language_extensions.sam_integration import process_template_for_sam_cli
from samcli.yamlhelper import yaml_parse
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator

ROOT = Path(__file__).resolve().parents[1]
EXPANDED = ROOT / "target/checkov/template.json"
# Where a parameter is empty, a check would look at what the account chose, not at what the template can do.
PARAMETERS = {
    "CertificateArn": "arn:aws:acm:eu-central-1:111122223333:certificate/0a1b2c3d",
    "DomainName": "attestations.example.org",
    "KmsKeyArn": "arn:aws:kms:eu-central-1:111122223333:key/0a1b2c3d",
    "ObjectLock": "true",
    "PermissionsBoundary": "arn:aws:iam::111122223333:policy/boundary",
    "Revision": "0a1b2c3d",
    "Rollout": "Linear10PercentEvery1Minute",
    "SecurityGroupIds": "sg-0c",
    "SignInClientId": "console",
    "SignInClientSecret": "arn:aws:secretsmanager:eu-central-1:111122223333:secret:console-a1b2c3",
    "SignInIssuer": "https://login.example.org",
    "SubnetIds": "subnet-0a,subnet-0b",
}
# Checks that do not hold, everywhere or of one resource, each with the reason why they need not.
SKIPPED = {
    "CKV_AWS_18": "access logs of the bucket: functions alone read it, and CloudTrail's data events say more, if wanted",
    "CKV_AWS_111 AWS::IAM::ManagedPolicy.InVpc": "writing to any resource: as AWS's own policy for functions in a VPC",
    "CKV_AWS_115": "a limit for each function: deliveries are limited at their queues, the API by its throttles",
    "CKV_AWS_116": "dead letters of functions: those are for asynchronous calls, and the reconciler's schedule is the only "
    "one; a message's dead letters are its queue's",
    "CKV_AWS_117": "functions in a VPC: those that deliver or fetch are, if asked; the others speak to AWS alone",
    "CKV_AWS_173": "a key for environment variables: no secret is in them",
}


def main() -> None:
    EXPANDED.parent.mkdir(parents=True, exist_ok=True)
    EXPANDED.write_text(json.dumps(expanded(PARAMETERS), indent=1))
    # By its name: checkov writes the path of the file into values, where 40 letters of it look like a secret key.
    command = [ROOT / ".venv/checkov/bin/checkov", "--file", EXPANDED.name, "--framework", "cloudformation"]
    # Rules and their descriptions would be fetched otherwise.
    command += ["--skip-download", "--output", "json", "--soft-fail"]
    checked = subprocess.run(command, capture_output=True, text=True, cwd=EXPANDED.parent)
    if checked.returncode:
        sys.exit(f"checkov failed: {checked.stderr}")
    results = json.loads(checked.stdout)["results"]
    if results["parsing_errors"]:
        sys.exit(f"checkov cannot read {EXPANDED}")
    faults, skipped = [], set()
    for check in results["failed_checks"]:
        everywhere, here = check["check_id"], f"{check['check_id']} {check['resource']}"
        known = {everywhere, here} & SKIPPED.keys()
        skipped |= known
        if not known:
            faults.append(f"{here}: {check['check_name']}")
    faults += [f"{name} holds now: take it out of SKIPPED in infra/checkov.py" for name in SKIPPED.keys() - skipped]
    if faults:
        sys.exit("\n".join(faults))
    print(f"{len(results['passed_checks'])} checks hold; {len(skipped)} are skipped, for the reasons in infra/checkov.py")


def expanded(given: dict[str, str]) -> dict:
    """The template as CloudFormation makes it, with these parameters."""
    template = yaml_parse((ROOT / "infra/template.yaml").read_text())
    parameters = {name: parameter["Default"] for name, parameter in template["Parameters"].items()} | given
    for name, parameter in template["Parameters"].items():
        parameter["Default"] = parameters[name]
    template = process_template_for_sam_cli(template, parameter_values=parameters)
    del template["Transform"]
    for resource in template["Resources"].values():
        if resource["Type"] == "AWS::Serverless::Function":
            # Packaging would write down where the zip is.
            resource["Properties"]["CodeUri"] = {"Bucket": "zips", "Key": "bootstrap.zip"}
    os.environ["AWS_DEFAULT_REGION"] = "eu-central-1"
    return Translator({}, Parser()).translate(template, parameters)


if __name__ == "__main__":
    main()
