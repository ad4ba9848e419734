// Completions side by side: each token coloured by its probability, with its alternatives on hover and by arrow keys.

import { by, copyButton, h, keyName } from "./dom.js";
import { placesOf, segments } from "./spans.js";

const FINISHES = {
  stop: "ended by itself", length: "reached the length", context: "context full", stopped: "stopped", error: "failed",
  deadline: "out of time", cancelled: "stopped",
};

const percent = (p) => (p >= 0.995 ? "over 99%" : p < 0.01 ? "under 1%" : `${Math.round(100 * p)}%`);
const level = (p) => (p >= 0.9 ? "p5" : p >= 0.6 ? "p4" : p >= 0.3 ? "p3" : p >= 0.1 ? "p2" : "p1");

// A token's text with what cannot be seen made visible.
const visible = (text) => (text === "" ? "(nothing)" : text.replaceAll("\n", "↵").replaceAll("\t", "⇥").replaceAll(" ", "·"));

class View {
  constructor(lane, number, actions) {
    this.lane = lane;
    this.drawn = 0; // pieces on the page
    this.tokens = []; // their elements
    this.active = -1;
    this.spans = lane.spans;
    const id = `lane-${number}`;
    this.name = h("h3", { id }, lane.model, h("span", {}, actions.many ? ` · ${lane.index + 1}` : ""));
    this.speed = h("p", { class: "speed" }, "–");
    this.facts = h("p", { class: "facts" }, "waiting");
    this.text = h("div", {
      class: "tokens", role: "listbox", tabindex: 0, "aria-labelledby": id, "aria-orientation": "horizontal",
      onkeydown: (event) => this.move(event), onfocus: () => this.point(Math.max(this.active, 0)),
      onblur: () => this.hide(), onpointerleave: () => this.hide(),
    });
    this.number = number;
    const use = h("button", { type: "button", class: "small", onclick: actions.use }, "Use ", h("kbd", {}, keyName(`Alt-${number + 1}`)));
    const copy = copyButton(() => lane.text, `completion ${number + 1}`);
    this.element = h(
      "article", { class: "panel lane", "aria-labelledby": id },
      h("header", {}, this.name, this.speed), this.facts, this.text, h("footer", {}, use, copy),
    );
  }

  draw(chosen, fastest) {
    const { lane } = this;
    for (; this.drawn < lane.pieces.length; this.drawn++) this.add(lane.pieces[this.drawn]);
    if (this.spans !== lane.spans) {
      this.spans = lane.spans;
      for (const token of this.tokens) this.paint(token);
    }
    this.element.classList.toggle("chosen", chosen);
    this.element.classList.toggle("fastest", fastest);
    this.element.classList.toggle("busy", lane.finish === null);
    this.speed.replaceChildren(h("b", {}, lane.speed === null ? "–" : lane.speed.toFixed(lane.speed < 100 ? 1 : 0)), " tokens/s");
    const facts = [`${lane.tokens} token${lane.tokens === 1 ? "" : "s"}`];
    if (lane.wait !== null) facts.push(`first after ${Math.round(lane.wait)} ms`);
    facts.push(lane.finish === null ? (lane.tokens ? "writing" : "waiting") : (FINISHES[lane.finish] ?? lane.finish));
    if (lane.note) facts.push(lane.note);
    this.facts.textContent = lane.error ? lane.error.message : facts.join(" · ");
    this.facts.classList.toggle("wrong", lane.error !== null);
  }

  add(piece) {
    const number = this.tokens.length;
    const told = piece.tokens[0];
    const name = told ? `${visible(piece.text)}, ${percent(told.probability)}` : visible(piece.text);
    const element = h("span", {
      class: `token ${told ? level(told.probability) : ""}`, role: "option", id: `lane-${this.number}-${number}`,
      "aria-label": name, "aria-selected": "false", onpointerenter: () => this.point(number),
    });
    const token = { element, piece };
    this.tokens.push(token);
    this.paint(token);
    this.text.append(element);
  }

  paint({ element, piece }) {
    const inside = this.spans.filter((span) => span.start < piece.start + piece.text.length && span.end > piece.start);
    const moved = inside.map((span) => ({ ...span, start: span.start - piece.start, end: span.end - piece.start }));
    element.replaceChildren(
      ...segments(piece.text, moved).map(
        (part) => (part.span ? h("span", { class: `copied ${part.span.exact ? "" : "loosely"}` }, part.text) : part.text),
      ),
    );
  }

  move(event) {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, Home: -Infinity, End: Infinity }[event.key];
    if (event.key === "Escape") this.hide();
    if (step === undefined || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    this.point(Math.min(Math.max(this.active + step, 0), this.tokens.length - 1));
  }

  point(number) {
    const token = this.tokens[number];
    if (token === undefined) return;
    this.tokens[this.active]?.element.setAttribute("aria-selected", "false");
    this.active = number;
    token.element.setAttribute("aria-selected", "true");
    this.text.setAttribute("aria-activedescendant", token.element.id);
    this.text.setAttribute("aria-describedby", "popover");
    this.tell(token);
  }

  tell({ element, piece }) {
    const popover = by("popover");
    const told = piece.tokens.map((token) =>
      h(
        "table", {}, h("caption", {}, h("code", {}, visible(token.text)), ` ${percent(token.probability)}`),
        h("tbody", {}, ...token.others.map((other) => row(other, other.text === token.text))),
      ),
    );
    const at = piece.start;
    const span = this.spans.find((one) => one.start <= at && one.end > at);
    popover.replaceChildren(...(told.length ? told : [h("p", {}, "The server told no probabilities.")]), span ? placesOf(span) : "");
    popover.hidden = false;
    const box = element.getBoundingClientRect();
    const size = popover.getBoundingClientRect();
    const above = box.bottom + size.height + 8 > innerHeight && box.top > size.height + 8;
    popover.style.left = `${Math.max(8, Math.min(box.left, innerWidth - size.width - 8))}px`;
    popover.style.top = `${above ? box.top - size.height - 6 : box.bottom + 6}px`;
  }

  hide() {
    by("popover").hidden = true;
    this.tokens[this.active]?.element.setAttribute("aria-selected", "false");
  }
}

function row(other, drawn) {
  const bar = h("span");
  bar.style.width = `${Math.max(1, 100 * other.probability)}%`;
  return h(
    "tr", { class: drawn ? "drawn" : null },
    h("th", { scope: "row" }, h("code", {}, visible(other.text))),
    h("td", {}, percent(other.probability)), h("td", { class: "bars", "aria-hidden": "true" }, bar),
  );
}

export class Lanes {
  constructor(parent, onUse) {
    Object.assign(this, { parent, onUse, run: null, views: [] });
    this.draw(null, 0);
  }

  draw(run, chosen) {
    if (run === null) {
      const hint = `Type in the editor, or press ${keyName("Mod-Enter")}: what the models write appears here, token by token.`;
      this.parent.replaceChildren(h("p", { class: "empty" }, hint));
      this.run = null;
      return;
    }
    if (this.run !== run) {
      by("popover").hidden = true;
      this.run = run;
      const several = run.lanes.some((lane) => lane.index > 0);
      this.views = run.lanes.map((lane, n) => new View(lane, n, { many: several, use: () => this.onUse(n) }));
      this.parent.replaceChildren(...this.views.map((view) => view.element));
      this.parent.dataset.count = this.views.length;
    }
    const speeds = run.lanes.map((lane) => lane.speed ?? 0);
    const models = new Set(run.lanes.map((lane) => lane.model)).size;
    const best = models > 1 && run.open === 0 ? speeds.indexOf(Math.max(...speeds)) : -1;
    this.views.forEach((view, n) => view.draw(n === chosen && this.views.length > 1, n === best));
  }
}
