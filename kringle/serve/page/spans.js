// Spans of a text that occur in the training data: {start, end, exact, sources: [{repository, path, line, licence}], more}.

import { h } from "./dom.js";

// A text from `from` on in parts, each with the span that it lies in, or null. Line breaks and the indentation after
// them belong to no span: underlining them would only draw bars.
export function segments(text, spans, from = 0) {
  const cuts = new Set([from, text.length]);
  const cut = (at) => at > from && at < text.length && cuts.add(at);
  for (const { start, end } of spans) {
    cut(start);
    cut(end);
    for (const gap of text.slice(Math.max(start, 0), end).matchAll(/[ \t]*\n\s*|^[ \t]{2,}/g)) {
      cut(Math.max(start, 0) + gap.index);
      cut(Math.max(start, 0) + gap.index + gap[0].length);
    }
  }
  const sorted = [...cuts].sort((a, b) => a - b);
  return sorted.slice(0, -1).map((start, i) => {
    const part = text.slice(start, sorted[i + 1]);
    const inside = spans.find((span) => span.start <= start && span.end >= sorted[i + 1]);
    return { text: part, span: inside && (part.trim() || part.length === 1) && part !== "\n" ? inside : null };
  });
}

export const kindOf = (span) => (span.exact ? "as it is" : "but for white space");

// The files that a span occurs in.
export function sourcesOf(span) {
  const items = span.sources.map((source) =>
    h(
      "li",
      {},
      h("b", {}, source.repository || "no repository"),
      h("span", { class: "path" }, source.line ? `${source.path}, line ${source.line}` : source.path),
      h("span", { class: "licence" }, source.licence || "licence unknown"),
    ),
  );
  if (span.more) items.push(h("li", { class: "facts" }, `and ${span.more} more`));
  return h("ul", { class: "places" }, ...items);
}

// The same with how long the copy is.
export const placesOf = (span) =>
  h("div", {}, h("p", { class: "facts" }, `${span.end - span.start} characters of the training data, ${kindOf(span)}`), sourcesOf(span));
