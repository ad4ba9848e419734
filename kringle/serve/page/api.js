// The server's answers: JSON, and completions as server-sent events.

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

let key = "";
export const useKey = (value) => (key = value);

async function answer(response) {
  if (response.ok) return response;
  let message = `${response.status} ${response.statusText}`;
  try {
    const told = await response.json();
    const detail = told.error?.message ?? told.error ?? told.detail ?? told.message;
    message = typeof detail === "string" ? detail : JSON.stringify(detail);
  } catch {
    // not JSON: the status is all there is
  }
  throw new Refused(response.status, message);
}

async function send(url, options = {}) {
  const headers = { ...options.headers };
  if (key) headers.Authorization = `Bearer ${key}`;
  try {
    return await answer(await fetch(url, { ...options, headers, cache: "no-store" }));
  } catch (error) {
    if (error instanceof Refused || error.name === "AbortError") throw error;
    throw new Refused(0, "the server does not answer; is kringle serve still running?");
  }
}

export const get = async (url) => (await send(url)).json();

const post = (url, body, signal) =>
  send(url, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), signal });

export const ask = async (url, body) => (await post(url, body)).json();

// Objects of the events' data, in order, until the stream says that it is done.
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new Refused(0, "the server ended the completion before it was complete");
    const lines = (rest + value).split(/\r\n|\n/);
    rest = lines.pop();
    for (const line of lines) {
      if (!line.startsWith("data:")) continue;
      const data = line.slice(5).trim();
      if (data === "[DONE]") return;
      const event = JSON.parse(data);
      if (event.error) throw new Refused(500, event.error.message ?? String(event.error));
      yield event;
    }
  }
}

// Pieces of a completion as they are drawn: {index, text, tokens: [{text, probability, others}], finish, spans}.
export async function* complete(request, signal) {
  for await (const event of events(await post("/v1/completions", { ...request, stream: true }, signal))) {
    for (const choice of event.choices ?? []) {
      const told = choice.logprobs;
      const tokens = (told?.tokens ?? []).map((text, i) => ({
        text,
        probability: Math.exp(told.token_logprobs[i]),
        others: Object.entries(told.top_logprobs?.[i] ?? {})
          .map(([other, value]) => ({ text: other, probability: Math.exp(value) }))
          .sort((a, b) => b.probability - a.probability),
      }));
      yield { index: choice.index, text: choice.text, tokens, finish: choice.finish_reason, spans: choice.attribution };
    }
  }
}
