// Building the page's elements. Text goes in as text nodes and nothing is ever parsed as HTML, so what a model wrote,
// or how a file of the corpus is called, cannot become part of the page.

export const by = (id) => document.getElementById(id);

// h("button", {type: "button", onclick: f}, "Copy"): properties that start with "on" are listeners, the rest attributes.
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== undefined && value !== null) element.setAttribute(name, String(value));
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export const isMac = /Mac|iP(hone|ad|od)/.test(navigator.platform);

// How a key is written on this machine: "Mod-Enter" is Ctrl Enter, or Command Return on a Mac.
export function keyName(key) {
  const names = isMac
    ? { Mod: "⌘", Shift: "⇧", Alt: "⌥", Enter: "↵", ArrowRight: "→" }
    : { Mod: "Ctrl", Enter: "Enter", ArrowRight: "→" };
  return key.split("-").map((part) => names[part] ?? part).join(isMac ? "" : " ");
}

export function copyButton(text, what) {
  const button = h("button", { type: "button", class: "quiet small", "aria-label": `Copy ${what}` }, "Copy");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text());
      button.textContent = "Copied";
    } catch {
      button.textContent = "Not allowed";
    }
    setTimeout(() => (button.textContent = "Copy"), 1500);
  });
  return button;
}

// Said to screen readers, once; what changes many times a second is not.
export const announce = (text) => (by("announce").textContent = text);
