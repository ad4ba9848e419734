// The code editor: CodeMirror 6 with ghost text in it. `fallback.js` offers the same without CodeMirror.
//
//   text, selection {from, to}, suggestion, setText(text, from, to), setLanguage(name), suggest(suggestion | null),
//   accept(wholeOrWord), focus()
//
// A suggestion is {from, to, text, spans, busy}: `text` in the place of from..to, with the spans of it that occur in the
// training data. Typing what it begins with keeps the rest of it; any other edit ends it.

import { closeBrackets, closeBracketsKeymap } from "@codemirror/autocomplete";
import { defaultKeymap, history, historyKeymap, indentWithTab } from "@codemirror/commands";
import { java } from "@codemirror/lang-java";
import { javascript } from "@codemirror/lang-javascript";
import { python } from "@codemirror/lang-python";
import { bracketMatching, indentOnInput, indentUnit, syntaxHighlighting } from "@codemirror/language";
import { highlightSelectionMatches, searchKeymap } from "@codemirror/search";
import { Annotation, Compartment, EditorState, Prec, StateEffect, StateField } from "@codemirror/state";
import {
  Decoration, EditorView, WidgetType, drawSelection, highlightActiveLine, highlightActiveLineGutter, hoverTooltip, keymap,
  lineNumbers,
} from "@codemirror/view";
import { classHighlighter } from "@lezer/highlight";

import { h } from "./dom.js";
import { placesOf, segments } from "./spans.js";

const LANGUAGES = { python: () => python(), java: () => java(), javascript: () => javascript() };
const INDENTS = { python: "    ", java: "    ", javascript: "  " };

const acceptedPart = Annotation.define(); // how much of a suggestion a transaction took over
const setSuggestion = StateEffect.define();
const addCopies = StateEffect.define({
  map: (copies, changes) => copies.map((c) => ({ ...c, from: changes.mapPos(c.from, 1), to: changes.mapPos(c.to, -1) })),
});

class Ghost extends WidgetType {
  constructor(suggestion) {
    super();
    this.suggestion = suggestion;
  }

  eq(other) {
    const [a, b] = [this.suggestion, other.suggestion];
    return a.text === b.text && a.typed === b.typed && a.busy === b.busy && a.spans === b.spans;
  }

  toDOM() {
    const { text, typed, spans, busy } = this.suggestion;
    const parts = segments(text, spans, typed).map((part) =>
      h("span", { class: part.span ? `copied ${part.span.exact ? "" : "loosely"}` : null }, part.text),
    );
    return h("span", { class: "ghost", "aria-hidden": "true" }, ...parts, busy ? h("span", { class: "caret" }) : null);
  }

  ignoreEvent() {
    return false;
  }
}

// What is left of a suggestion after a transaction: typed further into, moved, or null.
function carried(suggestion, transaction) {
  const { from, to, text, typed } = suggestion;
  if (transaction.annotation(acceptedPart)) {
    const size = transaction.annotation(acceptedPart);
    return typed + size < text.length ? { ...suggestion, from: from + size, to: from + size, typed: typed + size } : null;
  }
  let inserted = null;
  transaction.changes.iterChanges((fromA, toA, _fromB, _toB, added) => {
    inserted = inserted === null && fromA === from && toA === from && from === to ? added.toString() : "";
  });
  if (!inserted || !text.startsWith(inserted, typed) || typed + inserted.length >= text.length) return null;
  const at = from + inserted.length;
  return { ...suggestion, from: at, to: at, typed: typed + inserted.length };
}

const suggestionField = StateField.define({
  create: () => null,
  update(suggestion, transaction) {
    if (suggestion !== null && transaction.docChanged) suggestion = carried(suggestion, transaction);
    for (const effect of transaction.effects) if (effect.is(setSuggestion)) suggestion = effect.value;
    return suggestion;
  },
  provide: (field) =>
    EditorView.decorations.from(field, (suggestion) => {
      if (suggestion === null) return Decoration.none;
      const { from, to } = suggestion;
      const ghost = Decoration.widget({ widget: new Ghost(suggestion), side: 1 }).range(to);
      return Decoration.set(from < to ? [Decoration.mark({ class: "replaced" }).range(from, to), ghost] : [ghost]);
    }),
});

// Accepted text that occurs in the training data stays underlined for as long as it is not edited away.
const copiesField = StateField.define({
  create: () => Decoration.none,
  update(copies, transaction) {
    copies = copies.map(transaction.changes);
    for (const effect of transaction.effects)
      if (effect.is(addCopies))
        copies = copies.update({
          add: effect.value
            .filter((copy) => copy.from < copy.to)
            .map((copy) =>
              Decoration.mark({ class: `copied ${copy.span.exact ? "" : "loosely"}`, span: copy.span }).range(copy.from, copy.to),
            ),
          sort: true,
        });
    return copies;
  },
  provide: (field) => EditorView.decorations.from(field),
});

const copiedFrom = hoverTooltip((view, position) => {
  let found = null;
  view.state.field(copiesField).between(position, position, (from, to, mark) => {
    found = { pos: from, end: to, above: true, create: () => ({ dom: placesOf(mark.spec.span) }) };
  });
  return found;
});

export function createEditor(parent, { nonce, label, onEdit, onSelect, onAccept, keys }) {
  const language = new Compartment();
  const indent = new Compartment();
  let quiet = false; // while a text is put in, which is no edit of the user's

  const accept = (word) => {
    const suggestion = view.state.field(suggestionField);
    if (suggestion === null || suggestion.typed >= suggestion.text.length) return false;
    const { from, to, text, typed, spans } = suggestion;
    const rest = text.slice(typed);
    const part = word ? rest.match(/^\s*(?:[\p{L}\p{N}_$]+|[^\s\p{L}\p{N}_$]+)?/u)[0] || rest : rest;
    const copies = spans
      .map((span) => ({ from: from + span.start - typed, to: from + span.end - typed, span }))
      .map((copy) => ({ ...copy, from: Math.max(copy.from, from), to: Math.min(copy.to, from + part.length) }));
    view.dispatch({
      changes: { from, to, insert: part },
      selection: { anchor: from + part.length },
      annotations: acceptedPart.of(part.length),
      effects: addCopies.of(copies),
      userEvent: "input.complete",
      scrollIntoView: true,
    });
    onAccept(part, view.state.field(suggestionField) === null);
    return true;
  };

  const own = [
    { key: "Tab", run: () => accept(false) },
    { key: "Mod-ArrowRight", run: () => accept(true) },
    ...keys.map(({ key, run }) => ({ key, run: () => run() !== false })),
  ];
  const view = new EditorView({
    parent,
    state: EditorState.create({
      doc: "",
      extensions: [
        EditorView.cspNonce.of(nonce),
        Prec.highest(keymap.of(own)),
        lineNumbers(), highlightActiveLine(), highlightActiveLineGutter(), drawSelection(), history(), indentOnInput(),
        bracketMatching(), closeBrackets(), highlightSelectionMatches(), syntaxHighlighting(classHighlighter),
        keymap.of([...closeBracketsKeymap, ...defaultKeymap, ...searchKeymap, ...historyKeymap, indentWithTab]),
        suggestionField, copiesField, copiedFrom,
        language.of([]), indent.of([]),
        EditorState.tabSize.of(4),
        EditorView.contentAttributes.of({ "aria-label": label, spellcheck: "false", autocapitalize: "off", tabindex: "0" }),
        EditorView.updateListener.of((update) => {
          if (update.docChanged && !quiet) {
            const accepted = update.transactions.some((one) => one.annotation(acceptedPart));
            if (!accepted) onEdit(update.state.field(suggestionField) !== null);
          } else if (update.selectionSet && !update.docChanged) onSelect();
        }),
      ],
    }),
  });

  return {
    name: "CodeMirror",
    get text() {
      return view.state.doc.toString();
    },
    get selection() {
      const { from, to } = view.state.selection.main;
      return { from, to };
    },
    get suggestion() {
      return view.state.field(suggestionField);
    },
    setText(text, from, to = from) {
      quiet = true;
      view.dispatch({
        changes: { from: 0, to: view.state.doc.length, insert: text },
        selection: { anchor: from, head: to },
        effects: setSuggestion.of(null),
        scrollIntoView: true,
      });
      quiet = false;
    },
    setLanguage(name) {
      view.dispatch({
        effects: [language.reconfigure(LANGUAGES[name]()), indent.reconfigure(indentUnit.of(INDENTS[name]))],
      });
    },
    suggest(suggestion) {
      view.dispatch({ effects: setSuggestion.of(suggestion) });
    },
    accept,
    focus: () => view.focus(),
  };
}
