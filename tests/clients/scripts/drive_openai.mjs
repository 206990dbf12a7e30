// npm `openai`: chat completions, tools, responses and embeddings from JavaScript.
import OpenAI from "openai";
import { QUESTION, WEATHER, WEATHER_TOOL, failure, getWeather, runSteps } from "./steps.mjs";

const openai = new OpenAI({ baseURL: process.env.OPENAI_BASE_URL, apiKey: "none", maxRetries: 0 });
const user = (content) => ({ role: "user", content });
const ask = (messages, fields = {}) =>
  openai.chat.completions.create({
    model: "tiny", messages, temperature: 0, reasoning_effort: "none", ...fields,
  });

async function chat() {
  const answer = await ask([user(QUESTION)], { max_completion_tokens: 8 });
  const [choice] = answer.choices;
  return {
    text: choice.message.content,
    reason: choice.finish_reason,
    usage: { input: answer.usage.prompt_tokens, output: answer.usage.completion_tokens },
  };
}

async function stream() {
  const pieces = [];
  const fields = { max_completion_tokens: 8, stream: true, stream_options: { include_usage: true } };
  for await (const part of await ask([user(QUESTION)], fields)) {
    if (part.choices.length) pieces.push(part.choices[0].delta.content ?? "");
    else if (!part.usage.completion_tokens) throw new Error("the last chunk counts nothing");
  }
  return pieces;
}

async function tool() {
  const tools = [WEATHER_TOOL];
  const { message } = (await ask([user(WEATHER)], { tools })).choices[0];
  const [call] = message.tool_calls;
  const given = JSON.parse(call.function.arguments);
  const result = { role: "tool", tool_call_id: call.id, content: getWeather(given) };
  const told = await ask([user(WEATHER), message, result], { tools });
  return { name: call.function.name, arguments: given, answer: told.choices[0].message.content };
}

// The helper that runs functions by itself and asks again until there is text.
async function runner() {
  const run = openai.chat.completions.runTools({
    model: "tiny",
    messages: [user(WEATHER)],
    temperature: 0,
    stream: true,
    tools: [
      {
        type: "function",
        function: { ...WEATHER_TOOL.function, function: getWeather, parse: JSON.parse },
      },
    ],
  });
  return await run.finalContent();
}

async function responses() {
  const made = await openai.responses.create({ model: "tiny", input: QUESTION, temperature: 0 });
  return made.output_text;
}

async function structured() {
  const properties = { name: { type: "string" }, age: { type: "integer" } };
  const schema = {
    type: "object", properties, required: ["name", "age"], additionalProperties: false,
  };
  const response_format = { type: "json_schema", json_schema: { name: "person", schema, strict: true } };
  const answer = await ask([user("Describe a person as JSON.")], { response_format });
  return JSON.parse(answer.choices[0].message.content);
}

runSteps({
  list: async () => (await openai.models.list()).data.map((model) => model.id),
  chat,
  stream,
  tool,
  runner,
  responses,
  structured,
  error: () => failure(() => ask([user(QUESTION)], { model: "nope" })),
  embed: async () => {
    const made = await openai.embeddings.create({ model: "tiny", input: ["a", "b"] });
    return made.data.map((row) => row.embedding);
  },
});
