// The page's parts, joined: what the keys and buttons do, and what a change in the editor sets going.

import { get, useKey } from "./api.js";
import { announce, by, h, keyName } from "./dom.js";
import { Lanes } from "./lanes.js";
import { Problems } from "./problems.js";
import { Session } from "./session.js";
import { Settings, shortcuts, theme } from "./settings.js";
import { Sources, membership } from "./sources.js";

const PAUSE = 250; // milliseconds without a key before a suggestion is asked for

const { editor: hasEditor, attribution, get: getEditor } = document.documentElement.dataset;
const attributed = attribution === "yes";
const nonce = by("main").nonce;
let editor, settings, lanes, sources;
let chosen = 0; // the lane that the editor shows
let timer = null;
let asked = false; // for a frame
let last = null; // kind of the last run that was announced as ended

const session = new Session(onRun, attributed ? { attribution: true } : {});
const problems = new Problems(by("start"), open);

function notice(...children) {
  by("notice").replaceChildren(...children);
  by("notice").hidden = children.length === 0;
}

// -- runs --------------------------------------------------------------------------------------------------------------

function start(kind, several = false) {
  clearTimeout(timer);
  const text = editor.text;
  const { from, to } = editor.selection;
  const after = text.slice(to);
  const request = settings.request(several);
  if (problems.problem) request.stop = problems.problem.stop;
  if (kind === "typing" && settings.typing === "line") request.stop = ["\n"];
  if (kind === "typing") request.models = request.models.slice(0, 1);
  chosen = 0;
  notice();
  session.start(kind, { from, to }, text.slice(0, from), after.trim() || from < to ? after : null, request);
  if (kind !== "typing") announce(from < to ? "Filling in the selection" : "Completing");
}

// Drawn once a frame, however fast tokens come.
function onRun(run) {
  if (asked || run !== session.run) return;
  asked = true;
  requestAnimationFrame(() => {
    asked = false;
    if (session.run !== null) draw(session.run);
  });
}

function draw(run) {
  const lane = run.lanes[chosen];
  const left = lane.text.length > 0 && !run.used;
  if (left || run.shown) {
    const typed = run.shown ? (editor.suggestion?.typed ?? null) : 0;
    if (typed === null) run.used = true; // edited away while it was being written
    else {
      const place = run.shown ? editor.suggestion : run.range;
      editor.suggest({
        from: place.from, to: place.to, text: lane.text, typed, spans: lane.spans, busy: lane.finish === null,
      });
      run.shown = true;
    }
  }
  lanes.draw(run, chosen);
  sources.show(run);
  controls();
  if (!session.running && last !== run) {
    last = run;
    if (run.error) failed(run.error);
    if (run.kind !== "typing") announce(run.error ? run.error.message : `${run.lanes.length} completion${run.lanes.length > 1 ? "s" : ""} ready. Tab accepts.`);
  }
}

function failed(error) {
  if (error.status === 401 || error.status === 403) by("key-field").hidden = false;
  notice(h("p", {}, error.message));
}

function controls() {
  const busy = session.running;
  const suggestion = editor.suggestion;
  by("stop").hidden = !busy;
  by("accept").hidden = suggestion === null || suggestion.typed >= suggestion.text.length;
  by("tests").hidden = problems.problem === null;
  const { from, to } = editor.selection;
  by("complete-word").textContent = from < to ? "Fill in the selection" : "Complete";
  const run = session.run;
  const lane = run?.lanes[chosen];
  by("state").textContent = busy ? `${lane.model} is writing` : "";
}

// Show another lane's text in the editor.
function show(number) {
  const run = session.run;
  if (run === null || run.used || !run.shown || editor.suggestion === null || editor.suggestion.typed > 0) return false;
  chosen = (number + run.lanes.length) % run.lanes.length;
  draw(run);
  announce(`Completion ${chosen + 1} of ${run.lanes.length}`);
  return true;
}

function use(number) {
  const run = session.run;
  if (run === null || number >= run.lanes.length || !run.lanes[number].text) return false;
  if (!show(number)) {
    notice(h("p", {}, "The text has changed since this completion was written: complete again."));
    return true;
  }
  editor.accept(false);
  editor.focus();
  return true;
}

function stop() {
  clearTimeout(timer);
  if (session.running) {
    session.stop();
    announce("Stopped");
    return true;
  }
  if (editor.suggestion !== null) {
    dismiss();
    announce("Dismissed");
    return true;
  }
  return false;
}

function dismiss() {
  if (session.run) session.run.used = true;
  editor.suggest(null);
  controls();
}

function onEdit(kept) {
  clearTimeout(timer);
  by("verdict").hidden = true;
  if (kept) return controls();
  if (session.run) {
    session.run.used = true;
    session.run.shown = false;
  }
  session.stop();
  controls();
  if (settings.typing !== "off") timer = setTimeout(() => start("typing"), PAUSE);
}

function onSelect() {
  if (editor.suggestion !== null && !session.running) dismiss();
  else if (editor.suggestion !== null && session.run.kind === "typing") {
    session.stop();
    dismiss();
  }
  controls();
}

function onAccept(part, whole) {
  const run = session.run;
  sources.keep(run.lanes[chosen].text, run.lanes[chosen].spans);
  if (whole) {
    run.used = true;
    run.shown = false;
    session.stop();
  }
  by("verdict").hidden = true;
  controls();
}

async function test() {
  if (problems.problem === null) return false;
  by("tests").disabled = true;
  announce(await problems.test(editor.text));
  by("tests").disabled = false;
  return true;
}

// -- the page ----------------------------------------------------------------------------------------------------------

function open({ language, text, from, to }) {
  session.stop();
  clearTimeout(timer);
  session.run = null;
  by("verdict").hidden = true;
  by("language").value = language;
  editor.setLanguage(language);
  editor.setText(text, from, to);
  sources.kept = [];
  sources.show(null);
  lanes.draw(null, 0);
  notice();
  controls();
}

const openShortcuts = shortcuts(by("shortcut-list"), [
  [["Tab"], "accept the suggestion; without one, indent"],
  [[keyName("Mod-ArrowRight")], "accept its next word"],
  [["Esc"], "stop; then dismiss the suggestion"],
  [["Esc", "Tab"], "leave the editor"],
  [[keyName("Mod-Enter")], "complete at the cursor, or fill in the selection"],
  [[keyName("Mod-Shift-Enter")], "alternatives side by side"],
  [[keyName("Alt-]"), keyName("Alt-[")], "next and previous completion in the editor"],
  [[keyName("Alt-1"), "…"], "use a completion"],
  [["←", "→"], "in a completion: go from token to token and see what else was likely"],
  [[keyName("Alt-Enter")], "run the tests of a problem"],
  [["F6"], "editor, completions, settings, in turn"],
  [["F1"], "this list"],
]);

// Keys that work everywhere on the page; Tab and words belong to the editor alone.
const keys = [
  { key: "Mod-Enter", run: () => start("complete") },
  { key: "Mod-Shift-Enter", run: () => start("several", true) },
  { key: "Alt-Enter", run: () => void test() },
  { key: "Alt-]", run: () => show(chosen + 1) },
  { key: "Alt-[", run: () => show(chosen - 1) },
  { key: "F1", run: () => openShortcuts() },
  { key: "F6", run: () => nextRegion() },
  ...[1, 2, 3, 4, 5, 6, 7, 8].map((n) => ({ key: `Alt-${n}`, run: () => use(n - 1) })),
];

function nextRegion() {
  const regions = [
    [by("code"), () => editor.focus()],
    [by("completions"), () => (by("completions").querySelector("[role=listbox]") ?? by("several")).focus()],
    [by("side"), () => settings.field("model").focus()],
  ];
  const at = regions.findIndex(([region]) => region.contains(document.activeElement));
  regions[(at + 1) % regions.length][1]();
}

document.addEventListener("keydown", (event) => {
  if (event.defaultPrevented || by("shortcuts").open) return;
  const held = [(event.ctrlKey || event.metaKey) && "Mod", event.shiftKey && "Shift", event.altKey && "Alt", event.key];
  const pressed = held.filter(Boolean).join("-");
  if (event.key === "Escape") return void stop();
  const found = keys.find(({ key }) => key === pressed);
  if (found) {
    event.preventDefault();
    found.run();
  }
});

for (const key of document.querySelectorAll("kbd[data-key]")) key.textContent = keyName(key.dataset.key);
theme(by("theme"));
by("complete").addEventListener("click", () => start("complete"));
by("several").addEventListener("click", () => start("several", true));
by("accept").addEventListener("click", () => {
  editor.accept(false);
  editor.focus();
});
by("stop").addEventListener("click", () => {
  stop();
  editor.focus();
});
by("tests").addEventListener("click", test);
by("language").addEventListener("change", () => editor.setLanguage(by("language").value));

const { createEditor } = await import(hasEditor === "yes" ? "./editor.js" : "./fallback.js");
editor = createEditor(by("editor"), {
  nonce, label: "Code", onEdit, onSelect, onAccept,
  keys: [...keys, { key: "Escape", run: () => stop() }],
});
lanes = new Lanes(by("lanes"), use);
sources = new Sources(by("sources"), attributed);
membership(by("membership"), attributed);

by("key").addEventListener("change", (event) => {
  useKey(event.target.value);
  void connect();
});

const short = (count) => (count < 1e6 ? `${Math.round(count / 1e3)}k` : count < 1e9 ? `${(count / 1e6).toFixed(1)}M` : `${(count / 1e9).toFixed(2)}B`);

async function connect() {
  try {
    const { data } = await get("/v1/models");
    settings = new Settings(by("settings"), data, controls);
    by("serving").textContent = data.map((model) => `${model.id}: ${short(model.parameters)} parameters, context ${model.context_length}`).join("; ");
    await problems.load();
    open(problems.chosen());
    if (hasEditor !== "yes") notice(h("p", {}, h("strong", {}, "The code editor is not installed. "), "This is a plain text field without colours. To get the editor, run "), h("code", {}, getEditor), " with a network and start the server again.");
    document.documentElement.dataset.ready = "true";
    editor.focus();
  } catch (error) {
    failed(error);
  }
}

await connect();
