// Every place that has evidence of a digest: of an attestation, an image, an SBOM.

import * as api from "./api.js";
import { code, command, h, outcomes, said, short, workflowName } from "./page.js";

function form(digest) {
  return h(
    "form",
    { class: "filters", method: "get", role: "search", "aria-label": "Find a digest" },
    h(
      "label",
      { class: "wide" },
      "Digest of an attestation, an image, an SBOM or anything else that attestations name",
      h("input", {
        name: "where",
        value: digest,
        placeholder: "sha256:…",
        autocomplete: "off",
        spellcheck: "false",
        required: true,
      }),
    ),
    h("p", { class: "actions" }, h("button", {}, "Find")),
  );
}

export async function where({ main, query, title }) {
  const digest = query.get("where").trim();
  title(digest ? `Where ${short(digest)}` : "Where");
  main.replaceChildren(h("h1", {}, "Where"), form(digest));
  if (!digest) {
    main.append(
      h("p", { class: "muted" }, "Shows to which third parties it was delivered, and how each delivery stands."),
    );
    return;
  }
  let found;
  try {
    found = await api.page(["digests", digest, "places"], { limit: 100 });
  } catch (error) {
    if (error.status !== 404) throw error;
    main.append(h("p", { class: "empty" }, "No attestation that is kept has this digest, or names it: ", code(digest)));
    return;
  }
  const workflow = ["Workflow", (one) => said(workflowName(one.workflow))];
  const evidence = ["Evidence", (one) => (one.in_receipt ? "its receipt names the digest" : "the attestation")];
  main.append(
    found.items.length
      ? h(
          "div",
          { class: "box" },
          outcomes(found.next ? "The first hundred places" : "All places", found.items, workflow, evidence),
        )
      : h(
          "p",
          { class: "empty" },
          "An attestation names it, and nothing was attached to its workflow: it went nowhere.",
        ),
    command("where", digest),
  );
}
