// Where the text comes from: copies of the training data in the completions, and whether a repository is in it.

import { get } from "./api.js";
import { by, copyButton, h } from "./dom.js";
import { kindOf, sourcesOf } from "./spans.js";

export class Sources {
  // `known`: whether this server has an index of the training data.
  constructor(box, known) {
    Object.assign(this, { box, known, kept: [], shown: null });
    this.show(null);
  }

  // Copies in accepted text stay listed until another text is opened.
  keep(text, spans) {
    for (const span of spans) this.kept.push(copyOf(span, text));
  }

  show(run) {
    if (!this.known) {
      const why = "This server has no index of the training data. Serve a model of a study (kringle serve NAME --work FOLDER) to see which parts of a text are copies, and of what.";
      this.box.replaceChildren(h("p", { class: "empty" }, why));
      return;
    }
    const found = [...this.kept];
    for (const lane of run?.lanes ?? []) for (const span of lane.spans) found.push(copyOf(span, lane.text));
    const distinct = [...new Map(found.map((copy) => [copy.text, copy])).values()];
    const shown = JSON.stringify(distinct);
    if (this.shown === shown) return;
    this.shown = shown;
    const none = "Nothing of 50 characters or more is a copy of the training data. Copies are underlined and listed here.";
    this.box.replaceChildren(distinct.length ? h("ul", { class: "copies" }, ...distinct.map(item)) : h("p", { class: "empty" }, none));
  }
}

const copyOf = (span, text) => ({ ...span, text: text.slice(span.start, span.end) });

const item = (copy) =>
  h(
    "li", {},
    h("p", { class: "facts" }, `${copy.text.length} characters, ${kindOf(copy)}`),
    h("pre", { tabindex: 0, role: "group", "aria-label": "Copied text" }, copy.text),
    sourcesOf(copy),
  );

export function membership(form, known) {
  by("membership-panel").hidden = !known;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const name = form.elements.repository.value.trim();
    const look = (kind) => get(`/v1/membership?${kind}=${encodeURIComponent(name)}`);
    try {
      let found = await look("repository");
      if (!found.found && !name.includes("/")) found = await look("owner");
      by("membership-answer").replaceChildren(...answer(name, found));
    } catch (error) {
      by("membership-answer").replaceChildren(h("p", { class: "wrong" }, error.message));
    }
  });
}

const files = (count) => `${count} file${count === 1 ? "" : "s"}`;

function answer(name, found) {
  if (!found.found) return [h("p", {}, h("strong", {}, "No. "), `Nothing of ${name} was collected for this model.`)];
  const { "trained on": trained, "held out": held, "left out": left } = found.counts;
  const also = [held.files && `${files(held.files)} held out`, left.files && `${files(left.files)} left out`].filter(Boolean);
  const said = trained.files
    ? [h("strong", {}, "Yes. "), `The model was trained on ${files(trained.files)} of it`, also.length ? `; ${also.join(", ")}.` : "."]
    : [h("strong", {}, "Not trained on. "), `Of what was collected: ${also.join(", ")}.`];
  const listed = found.files.map((file) =>
    h(
      "li", {},
      h("span", { class: "path" }, `${file.repository} ${file.path}`),
      h("span", { class: "licence" }, [file.became, file.step, file.licence].filter(Boolean).join(" · ")),
    ),
  );
  if (found.more) listed.push(h("li", { class: "facts" }, `and ${found.more} more`));
  const gone = found.opted_out ? `${files(found.opted_out)} of it opted out by now: the next run leaves them out.` : "";
  return [
    h("p", {}, ...said),
    gone ? h("p", { class: "facts" }, gone) : null,
    found.licences.length ? h("p", { class: "facts" }, found.licences.join(", ")) : null,
    h("p", { class: "facts" }, "To take it out, run"),
    h("p", { class: "joined" }, h("code", { class: "command" }, found.opt_out), copyButton(() => found.opt_out, "the opt-out command")),
    h("details", {}, h("summary", {}, "The files"), h("ul", { class: "places" }, ...listed)),
  ].filter(Boolean);
}
