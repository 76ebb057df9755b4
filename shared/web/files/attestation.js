// An attestation: what it is of, who signed it, what its policies found, its materials, and where it went.

import * as api from "./api.js";
import {
  badge,
  code,
  command,
  digestLink,
  facts,
  h,
  moment,
  outcomes,
  said,
  short,
  size,
  table,
  workflowName,
} from "./page.js";

const VERDICTS = { verified: "good", invalid: "bad", "unknown-signer": "open", unverifiable: "open", off: "quiet" };
const PLACES = {
  inline: "in the attestation",
  uploaded: "kept, by its digest",
  missing: "missing: promised, and not uploaded",
  elsewhere: "elsewhere: never promised",
};
const BYTES = {
  kept: "kept",
  gone: "gone: older than the retention",
  damaged: "damaged: they do not have their digest",
};

function signer({ name, kind, key_id: key, arn, issuer, identity, organization }) {
  const by = {
    key: code(key),
    kms: code(arn),
    keyless: [said(identity), ", by ", said(issuer)],
    chainloop: ["organization ", said(organization)],
  };
  return h("li", {}, said(name), ": ", by[kind] ?? said(kind));
}

function signature({ verdict, contents }) {
  if (!verdict) {
    return h("p", {}, "No trust policy asked for a signature, so none was judged.");
  }
  const { outcome, reason, signers, at } = verdict;
  return [
    h("p", {}, badge(outcome, VERDICTS[outcome] ?? "quiet"), " ", said(reason.sentence)),
    facts(
      ["Signers", signers.length ? h("ul", {}, signers.map(signer)) : null],
      [
        "Key IDs in the envelope",
        contents?.key_ids
          .filter(Boolean)
          .map((id) => [code(id), " "])
          .flat(),
      ],
      ["Judged", moment(at)],
    ),
  ];
}

function policies(policy) {
  if (!policy) return h("p", {}, "Its predicate says nothing of policies.");
  const { status, evaluations, passed, violations, skipped, suppressed, found } = policy;
  const tone = status === "PASSED" ? "good" : violations ? "bad" : "quiet";
  const numbers = { evaluated: evaluations, passed, violations, skipped, suppressed };
  const told = Object.entries(numbers)
    .filter(([, number]) => number)
    .map(([word, number]) => `${number.toLocaleString("en")} ${word}`);
  return [
    h("p", {}, badge(status, tone), told.length ? ` ${told.join(", ")}` : ""),
    found.length
      ? h(
          "div",
          { class: "box" },
          table(
            `Violations${found.length < violations ? `, the first ${found.length} of ${violations}` : ""}`,
            [
              ["Policy", (one) => said(one.policy)],
              ["Material", (one) => said(one.material) ?? "the attestation itself"],
              ["Message", (one) => said(one.message)],
            ],
            found,
          ),
        )
      : "",
  ];
}

/** A heading of a list, which says when it is not the whole. */
const heading = (text, shown, total) => h("h2", {}, shown < total ? `${text}, the first ${shown} of ${total}` : text);

function materials({ materials: all, materials_total: total, materials_dropped: dropped }) {
  if (!all.length) return [h("h2", {}, "Materials"), h("p", {}, "It has no materials.")];
  return [
    heading("Materials", all.length, total),
    h(
      "div",
      { class: "box" },
      table(
        "Materials",
        [
          ["Name", (one) => said(one.name)],
          ["Type", (one) => said(one.type)],
          ["File", (one) => said(one.filename) ?? said(one.value)],
          ["Digest", (one) => one.digest && digestLink(one.digest)],
          ["Size", (one) => size(one.size_bytes)],
          [
            "Bytes",
            (one) => (one.place === "missing" ? badge("missing", "bad") : (PLACES[one.place] ?? said(one.place))),
          ],
        ],
        all,
      ),
    ),
    dropped
      ? h("p", { class: "muted" }, `Entries of its list that are no materials: ${dropped.toLocaleString("en")}.`)
      : "",
  ];
}

function subjects({ subjects: all, subjects_total: total }) {
  const digests = (subject) =>
    Object.entries(subject.digests).map(([algorithm, hex]) =>
      h("div", {}, algorithm === "sha256" ? digestLink(`sha256:${hex}`) : code(`${algorithm}:${hex}`)),
    );
  const columns = [
    ["Name", (one) => said(one.name)],
    ["Digest", digests],
  ];
  return [heading("Subjects", all.length, total), h("div", { class: "box" }, table("Subjects", columns, all))];
}

export async function attestation({ main, query, title }) {
  const digest = query.get("attestation");
  title(`Attestation ${short(digest)}`);
  const found = await api.get(["attestations", digest]);
  const { contents, deliveries, pushed_by: actor } = found;
  main.replaceChildren(
    h("h1", {}, "Attestation ", h("code", {}, said(short(found.attestation)))),
    facts(
      ["Workflow", said(workflowName(found.workflow))],
      ["Run", said(found.run)],
      ["Attestation", digestLink(found.attestation)],
      [
        "Received as",
        [digestLink(found.received), ` (${size(found.size_bytes)}), ${BYTES[found.bytes] ?? found.bytes}`],
      ],
      ["Also received as", found.also.flatMap((one) => [code(one), " "])],
      ["Predicate", said(found.predicate_type)],
      [
        "Pushed by",
        actor && [said(actor.name), actor.client?.address ? [" from ", said(actor.client.address)] : ""].flat(),
      ],
      ["Accepted", moment(found.created_at)],
    ),
    h("h2", {}, found.more_deliveries ? "Deliveries, the newest hundred" : "Deliveries"),
    deliveries.length
      ? h("div", { class: "box" }, outcomes("Deliveries", deliveries))
      : h("p", {}, "It goes nowhere: no registration was attached to its workflow when it was accepted."),
    h("h2", {}, "Signature"),
    ...[signature(found)].flat(),
    ...(contents
      ? [h("h2", {}, "Policies"), ...[policies(contents.policy)].flat(), ...materials(contents), ...subjects(contents)]
      : [
          h(
            "p",
            { class: "notice open" },
            "Its contents are not shown: the bytes are gone, or are not those that came.",
          ),
        ]),
    h("h2", {}, "As a command"),
    command("attestation", "describe", found.attestation),
    command("attestation", "download", found.attestation),
  );
}
