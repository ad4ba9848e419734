// Spans of a text that occur in the training data: {start, end, exact, sources: [{repository, path, licences}]}.

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

// Where a span occurs, as a list.
export function placesOf(span) {
  return h(
    "div",
    { class: "places" },
    h("p", {}, `${span.end - span.start} characters of the training data, ${kindOf(span)}`),
    h(
      "ul",
      {},
      ...span.sources.map((place) =>
        h(
          "li",
          {},
          h("b", {}, place.repository || "no repository"),
          h("span", { class: "path" }, place.path),
          h("span", { class: "licence" }, place.licences.join(", ") || "licence unknown"),
        ),
      ),
    ),
  );
}
