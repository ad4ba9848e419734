// The settings form: what it says, kept in this browser from one visit to the next.

import { by, h } from "./dom.js";

const KEPT = "kringle-playground";
const NAMES = ["model", "beside", "temperature", "top_p", "max_tokens", "seed", "alternatives", "typing"];

export class Settings {
  constructor(form, models, onChange) {
    Object.assign(this, { form, models });
    const options = () => models.map((model) => h("option", { value: model.id }, model.id));
    this.field("model").append(...options());
    this.field("beside").append(...options());
    const kept = JSON.parse(localStorage.getItem(KEPT) ?? "{}");
    for (const name of NAMES) {
      const field = this.field(name);
      const known = field.tagName !== "SELECT" || [...field.options].some((option) => option.value === kept[name]);
      if (kept[name] !== undefined && known) field.value = kept[name];
    }
    form.addEventListener("input", (event) => {
      this.tell();
      localStorage.setItem(KEPT, JSON.stringify(Object.fromEntries(NAMES.map((name) => [name, this.field(name).value]))));
      onChange(event.target.name);
    });
    form.addEventListener("submit", (event) => event.preventDefault());
    this.tell();
  }

  field(name) {
    return this.form.elements[name];
  }

  tell() {
    for (const label of this.form.querySelectorAll(".range")) {
      const input = label.querySelector("input");
      const value = Number(input.value);
      label.querySelector("output").textContent = Number(input.step) < 1 ? value.toFixed(2) : String(value);
    }
  }

  get typing() {
    return this.field("typing").value;
  }

  // Fields of a request, with the models to ask and how many completions of each.
  request(several) {
    const number = (name) => Number(this.field(name).value);
    const names = [...new Set([this.field("model").value, this.field("beside").value])].filter(Boolean);
    return {
      models: names.map((name) => this.models.find((model) => model.id === name)),
      count: several ? number("alternatives") : 1,
      temperature: number("temperature"), top_p: number("top_p"), max_tokens: number("max_tokens"), seed: number("seed"),
    };
  }
}

export function theme(select) {
  const use = (value) => (document.documentElement.dataset.theme = value);
  select.value = localStorage.getItem(`${KEPT}-theme`) ?? "auto";
  use(select.value);
  select.addEventListener("change", () => {
    localStorage.setItem(`${KEPT}-theme`, select.value);
    use(select.value);
  });
}

export function shortcuts(list, entries) {
  for (const [keys, what] of entries) {
    list.append(h("dt", {}, ...keys.map((key) => h("kbd", {}, key))), h("dd", {}, what));
  }
  const dialog = by("shortcuts");
  const open = () => !dialog.open && dialog.showModal();
  by("help").addEventListener("click", open);
  return open;
}
