// Texts to start from. `hole` is what is selected at first, to be filled in again; the cursor stands at its end.

export const EXAMPLES = [
  {
    title: "Python: the next line",
    language: "python",
    before: `def running_mean(values):
    """The mean of the values so far, after each of them."""
    total = 0.0
    means = []
    for count, value in enumerate(values, 1):
        total += value
        `,
    hole: "",
    after: "",
  },
  {
    title: "Python: fill in a condition",
    language: "python",
    before: `def merge(left, right):
    """Merge two sorted lists into one sorted list."""
    merged = []
    while left and right:
        if `,
    hole: "left[0] <= right[0]",
    after: `:
            merged.append(left.pop(0))
        else:
            merged.append(right.pop(0))
    return merged + left + right
`,
  },
  {
    title: "Python: an import from its use",
    language: "python",
    before: "",
    hole: "import json\nfrom pathlib import Path\n",
    after: `

def load_settings(folder):
    path = Path(folder) / "settings.json"
    return json.loads(path.read_text(encoding="utf-8"))
`,
  },
  {
    title: "Java: the body of a method",
    language: "java",
    before: `import java.util.List;

class Prices {
    /** The highest price, or zero if there is none. */
    static long highest(List<Long> prices) {
        long highest = 0;
        `,
    hole: "",
    after: `
        return highest;
    }
}
`,
  },
  {
    title: "Java: fill in a return",
    language: "java",
    before: `class Range {
    private final int first;
    private final int last;

    Range(int first, int last) {
        this.first = first;
        this.last = last;
    }

    boolean contains(int number) {
        return `,
    hole: "first <= number && number <= last",
    after: `;
    }
}
`,
  },
  {
    title: "JavaScript: a function from its comment",
    language: "javascript",
    before: `// Group the items of a list by what \`key\` returns for them.
function groupBy(items, key) {
  const groups = new Map();
  for (const item of items) {
    `,
    hole: "",
    after: `
  }
  return groups;
}
`,
  },
  {
    title: "JavaScript: fill in an expression",
    language: "javascript",
    before: `export function titleCase(text) {
  return text
    .split(" ")
    .map((word) => `,
    hole: "word.slice(0, 1).toUpperCase() + word.slice(1)",
    after: `)
    .join(" ");
}
`,
  },
  { title: "An empty page", language: "python", before: "", hole: "", after: "" },
];
