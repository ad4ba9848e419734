// A plain text field in the place of CodeMirror, where its packages are not installed: the same functions, without
// colours, and with the suggestion below the field instead of in it.

import { h } from "./dom.js";

export function createEditor(parent, { label, onEdit, onSelect, onAccept, keys }) {
  const field = h("textarea", { class: "plain", "aria-label": label, spellcheck: "false", autocapitalize: "off", rows: 16 });
  const shown = h("pre", { class: "plain-ghost", hidden: true });
  parent.append(field, shown);
  let suggestion = null;

  const show = (value) => {
    suggestion = value;
    shown.hidden = suggestion === null || suggestion.typed >= suggestion.text.length;
    shown.textContent = suggestion === null ? "" : suggestion.text.slice(suggestion.typed);
  };
  const accept = (word) => {
    if (suggestion === null || suggestion.typed >= suggestion.text.length) return false;
    const { from, to, text, typed } = suggestion;
    const rest = text.slice(typed);
    const part = word ? rest.match(/^\s*(?:[\p{L}\p{N}_$]+|[^\s\p{L}\p{N}_$]+)?/u)[0] || rest : rest;
    field.setRangeText(part, from, to, "end");
    const at = from + part.length;
    show(typed + part.length < text.length ? { ...suggestion, from: at, to: at, typed: typed + part.length } : null);
    onAccept(part, suggestion === null);
    return true;
  };
  const bound = [{ key: "Tab", run: () => accept(false) }, { key: "Mod-ArrowRight", run: () => accept(true) }, ...keys];

  field.addEventListener("input", () => {
    show(null);
    onEdit(false);
  });
  field.addEventListener("select", onSelect);
  field.addEventListener("keydown", (event) => {
    const held = [(event.ctrlKey || event.metaKey) && "Mod", event.shiftKey && "Shift", event.altKey && "Alt", event.key];
    const pressed = held.filter(Boolean).join("-");
    const found = bound.find(({ key }) => key === pressed);
    if (found && found.run() !== false) event.preventDefault();
  });

  return {
    name: "a plain text field",
    get text() {
      return field.value;
    },
    get selection() {
      return { from: field.selectionStart, to: field.selectionEnd };
    },
    get suggestion() {
      return suggestion;
    },
    setText(text, from, to = from) {
      show(null);
      field.value = text;
      field.setSelectionRange(from, to);
    },
    setLanguage() {},
    suggest: show,
    accept,
    focus: () => field.focus(),
  };
}
