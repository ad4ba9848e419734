// What to start from: our examples, and the problems of the starter suites, which can be tested.

import { ask, get } from "./api.js";
import { by, h } from "./dom.js";
import { EXAMPLES } from "./examples.js";

const VERDICTS = {
  pass: ["good", "Passed", "all tests ran to their end"],
  fail: ["bad", "Failed", "a test failed"],
  syntax: ["bad", "No valid program", "nothing of it ran"],
  timeout: ["bad", "Out of time", ""],
  starved: ["unsure", "Not judged", "the machine was too busy"],
  memory: ["bad", "Out of memory", ""],
  output: ["bad", "Too much output", ""],
  tamper: ["bad", "Passes only by tampering", "it fails apart from its tests"],
  infrastructure: ["unsure", "Not judged", "the jail failed"],
};

export class Problems {
  constructor(select, onChoice) {
    this.select = select;
    this.suites = [];
    this.problem = null;
    select.append(group("Examples", EXAMPLES.map((one, i) => [`example ${i}`, one.title])));
    select.addEventListener("change", () => onChoice(this.chosen()));
  }

  async load() {
    this.suites = await get("/v1/playground/problems");
    this.suites.forEach((suite, s) => {
      const entries = suite.problems.map((problem, p) => [`problem ${s} ${p}`, `${problem.task_id} ${problem.title}`]);
      this.select.append(group(`Problems: ${suite.name}`, entries));
    });
  }

  // {language, text, from, to} of what is chosen; `this.problem` is set where tests belong to it.
  chosen() {
    const [kind, one, other] = this.select.value.split(" ");
    if (kind === "example") {
      this.problem = null;
      const { language, before, hole, after } = EXAMPLES[Number(one)];
      return { language, text: before + hole + after, from: before.length, to: before.length + hole.length };
    }
    const suite = this.suites[Number(one)];
    const problem = suite.problems[Number(other)];
    this.problem = { ...problem, suite: suite.name };
    return { language: suite.language, text: problem.prompt, from: problem.prompt.length, to: problem.prompt.length };
  }

  // Run the tests of the chosen problem on a text, and show the verdict.
  async test(text) {
    const box = by("verdict");
    box.hidden = false;
    box.className = "verdict";
    box.replaceChildren(h("p", {}, `Running the tests of ${this.problem.task_id} in the jail`));
    try {
      const found = await ask("/v1/playground/tests", { suite: this.problem.suite, task_id: this.problem.task_id, text });
      const [tone, word, plain] = VERDICTS[found.verdict];
      box.classList.add(tone);
      box.replaceChildren(
        h("p", {}, h("strong", {}, word), h("span", {}, found.evidence || plain)),
        h("p", { class: "facts" }, `${found.task_id} · ${Math.round(found.cpu_ms)} ms of CPU time · jail: ${found.jail}`),
      );
      return `${word}. ${found.evidence || plain}`;
    } catch (error) {
      box.classList.add("unsure");
      box.replaceChildren(h("p", {}, h("strong", {}, "Not run"), h("span", {}, error.message)));
      return `Not run. ${error.message}`;
    }
  }
}

const group = (label, entries) =>
  h("optgroup", { label }, ...entries.map(([value, title]) => h("option", { value }, title)));
