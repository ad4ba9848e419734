// One run at a time: a prompt, completed by one model or two, once or several times. A new run ends the one before.

import { complete } from "./api.js";

// One completion under way. Times are milliseconds of performance.now().
export class Lane {
  constructor(model, index, note) {
    Object.assign(this, { model, index, note, pieces: [], text: "", spans: [], tokens: 0, finish: null, error: null });
    this.started = performance.now();
    this.first = this.last = null;
  }

  add(piece) {
    const now = performance.now();
    for (const { text, tokens } of apart(piece)) {
      this.first ??= now;
      this.last = now;
      this.tokens += tokens.length || 1;
      this.pieces.push({ text, tokens, start: this.text.length });
      this.text += text;
    }
    if (piece.spans) {
      const spans = piece.spans.map((span) => inUnits(span, this.text));
      this.spans = piece.finish ? spans : joined(this.spans, spans); // the last piece tells all of them
    }
    if (piece.finish) this.finish = piece.finish;
  }

  // Tokens per second since the request was sent, the reading of the prompt included. (From the first token on would be
  // a figure of the network: what comes close together is often read in one piece.)
  get speed() {
    return this.tokens > 0 ? (this.tokens * 1000) / (this.last - this.started) : null;
  }

  get wait() {
    return this.first === null ? null : this.first - this.started;
  }
}

// Token by token, where a piece has several and their texts are whole characters.
function apart({ text, tokens }) {
  if (tokens.length > 1 && tokens.map((token) => token.text).join("") === text)
    return tokens.map((token) => ({ text: token.text, tokens: [token] }));
  return text || tokens.length ? [{ text, tokens }] : [];
}

// Positions come in characters; the page counts as JavaScript does, in UTF-16.
function inUnits(span, text) {
  const characters = Array.from(text);
  const units = (count) => characters.slice(0, count).join("").length;
  return { ...span, start: units(span.start), end: units(span.end), exact: span.kind === "exact" };
}

// Spans known so far and those that are new or grew.
function joined(known, news) {
  const others = known.filter((span) => !news.some((one) => one.start === span.start && one.kind === span.kind));
  return [...others, ...news].sort((a, b) => a.start - b.start);
}

export class Session {
  // `always` are fields of every request.
  constructor(onChange, always) {
    this.onChange = onChange;
    this.always = always;
    this.run = null;
  }

  get running() {
    return this.run !== null && this.run.open > 0;
  }

  // Start a run; `settings` holds models ({id, fills_gaps, ..}), count, and the fields of a request. It goes on by itself.
  start(kind, range, prompt, suffix, settings) {
    this.stop();
    const { models, count, ...fields } = settings;
    const run = { kind, range, lanes: [], open: models.length, control: new AbortController(), error: null };
    this.run = run;
    for (const model of models) {
      const filling = suffix !== null && model.fills_gaps;
      const note = suffix !== null && !filling ? "sees only what stands before" : null;
      const lanes = Array.from({ length: count }, (_, index) => new Lane(model.id, index, note));
      run.lanes.push(...lanes);
      const request = { model: model.id, prompt, n: count, logprobs: 5, ...this.always, ...fields };
      if (filling) request.suffix = suffix;
      this.follow(run, lanes, request);
    }
    this.onChange(run);
    return run;
  }

  async follow(run, lanes, request) {
    try {
      for await (const piece of complete(request, run.control.signal)) {
        lanes[piece.index].add(piece);
        this.onChange(run);
      }
    } catch (error) {
      const stopped = run.control.signal.aborted;
      for (const lane of lanes) lane.finish ??= stopped ? "stopped" : "error";
      if (!stopped) run.error = lanes[0].error = error;
    }
    run.open -= 1;
    this.onChange(run);
  }

  stop() {
    if (this.running) this.run.control.abort();
  }
}
