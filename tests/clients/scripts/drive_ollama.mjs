// npm `ollama`: the native API from JavaScript.
import { Ollama } from "ollama";
import { QUESTION, WEATHER, WEATHER_TOOL, failure, getWeather, runSteps } from "./steps.mjs";

const ollama = new Ollama({ host: process.env.OLLAMA_HOST });
const short = { num_predict: 8, temperature: 0 };
const user = (content) => ({ role: "user", content });
const ask = (messages, fields = {}) =>
  ollama.chat({ model: "tiny", messages, think: false, options: { temperature: 0 }, ...fields });

async function chat() {
  const answer = await ask([user(QUESTION)], { options: short });
  return {
    text: answer.message.content,
    reason: answer.done_reason,
    usage: { input: answer.prompt_eval_count, output: answer.eval_count },
  };
}

async function stream() {
  const pieces = [];
  for await (const part of await ask([user(QUESTION)], { options: short, stream: true })) {
    pieces.push(part.message.content);
  }
  return pieces;
}

async function tool() {
  const tools = [WEATHER_TOOL];
  const asked = await ask([user(WEATHER)], { tools });
  const [call] = asked.message.tool_calls;
  const result = { role: "tool", tool_name: call.function.name, content: getWeather(call.function.arguments) };
  const told = await ask([user(WEATHER), asked.message, result], { tools });
  return { name: call.function.name, arguments: call.function.arguments, answer: told.message.content };
}

async function structured() {
  const properties = { name: { type: "string" }, age: { type: "integer" } };
  const format = { type: "object", properties, required: ["name", "age"] };
  const answer = await ask([user("Describe a person as JSON.")], { format });
  return JSON.parse(answer.message.content);
}

// Aborting closes the connection; the client then throws an AbortError, and the server is free for the next.
async function abort() {
  const running = await ask([user(QUESTION)], { stream: true });
  const found = await failure(async () => {
    for await (const _ of running) running.abort();
  });
  const after = await chat();
  return { class: found.class, after: after.text };
}

runSteps({
  list: async () => (await ollama.list()).models.map((model) => model.model),
  chat,
  stream,
  tool,
  structured,
  abort,
  error: () => failure(() => ask([user(QUESTION)], { model: "nope" })),
  embed: async () => (await ollama.embed({ model: "tiny", input: ["a", "b"] })).embeddings,
});
