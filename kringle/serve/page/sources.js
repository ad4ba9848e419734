// Where the text comes from: copies of the training data in the completions, and whether a repository is in it.

import { get } from "./api.js";
import { by, copyButton, h } from "./dom.js";
import { kindOf } from "./spans.js";

export class Sources {
  constructor(box, known) {
    Object.assign(this, { box, known, kept: [] });
    this.show(null);
  }

  // Spans of accepted text stay listed until another text is opened.
  keep(text, spans) {
    for (const span of spans) this.kept.push(copyOf(span, text));
  }

  show(run) {
    if (!this.known) {
      const why = "This server has no index of the training data: start it in a study's workspace, or with --work DIR.";
      this.box.replaceChildren(h("p", { class: "empty" }, why));
      return;
    }
    const found = [...this.kept];
    for (const lane of run?.lanes ?? []) for (const span of lane.spans) found.push(copyOf(span, lane.text));
    const distinct = [...new Map(found.map((copy) => [copy.text, copy])).values()];
    if (this.shown === JSON.stringify(distinct)) return;
    this.shown = JSON.stringify(distinct);
    const none = "Nothing of 50 characters or more is a copy of the training data. Copies are underlined and listed here.";
    this.box.replaceChildren(distinct.length ? h("ul", { class: "copies" }, ...distinct.map(item)) : h("p", { class: "empty" }, none));
  }
}

const copyOf = (span, text) => ({ ...span, text: text.slice(span.start, span.end) });

function item(copy) {
  const places = copy.sources.map((place) =>
    h(
      "li", {},
      h("b", {}, place.repository || "no repository"),
      h("span", { class: "path" }, place.path),
      h("span", { class: "licence" }, place.licences.join(", ") || "licence unknown"),
    ),
  );
  return h(
    "li", {},
    h("p", { class: "facts" }, `${copy.text.length} characters, ${kindOf(copy)}`),
    h("pre", { tabindex: 0, "aria-label": "Copied text" }, copy.text),
    h("ul", { class: "places" }, ...places),
  );
}

export function membership(form, known) {
  const box = by("membership-answer");
  if (!known) {
    by("membership-panel").hidden = true;
    return;
  }
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const name = form.elements.repository.value.trim();
    try {
      box.replaceChildren(...answer(name, await get(`/v1/attribution?repository=${encodeURIComponent(name)}`)));
    } catch (error) {
      box.replaceChildren(h("p", { class: "wrong" }, error.message));
    }
  });
}

function answer(name, found) {
  if (!found.repositories.length) return [h("p", {}, h("strong", {}, "No. "), `Nothing called ${name} is in the training data of this model.`)];
  const parts = [h("p", {}, h("strong", {}, "Yes. "), "To take it out, run this where the study's workspace is:")];
  for (const repository of found.repositories) {
    const command = found.optout ?? `kringle optout ${repository.name}`;
    parts.push(
      h(
        "div", { class: "found" },
        h("p", {}, h("b", {}, repository.name), ` · ${repository.files} file${repository.files === 1 ? "" : "s"} · `, repository.licences.join(", ") || "licence unknown"),
        h("p", { class: "joined" }, h("code", { class: "command" }, command), copyButton(() => command, "the opt-out command")),
      ),
    );
  }
  return parts;
}
