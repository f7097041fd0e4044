// Anthropic's SDK for TypeScript. The tasks are those of `anthropic_python.py`, of the kinds "loop" and "changing".

import { load, REPORT_SCHEMA, serve } from "./lines.mjs";

const { default: Anthropic } = await load("@anthropic-ai/sdk");
const { betaTool, betaJSONSchemaOutputFormat } = await load("@anthropic-ai/sdk/helpers/beta/json-schema");

function toolsOf(calls) {
  return {
    weather: betaTool({
      name: "weather",
      description: "The weather of a city.",
      inputSchema: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
      run: calls.weather,
    }),
    clock: betaTool({ name: "clock", description: "The time of day.", inputSchema: { type: "object" }, run: calls.clock }),
  };
}

// After a call of `weather` the runner gets `clock`; after a call of `clock` it loses `weather`.
function change(runner, tools, message) {
  const called = message.content.filter((block) => block.type === "tool_use").map((block) => block.name);
  if (called.includes("weather")) runner.addTools(tools.clock);
  if (called.includes("clock")) runner.removeTools("weather");
}

await serve(async (task, calls) => {
  const client = new Anthropic({ baseURL: task.url, apiKey: "key", maxRetries: task.retries ?? 0 });
  const params = {
    model: "local",
    max_tokens: 500,
    messages: [...(task.history ?? []), { role: "user", content: task.prompt ?? "Hello" }],
    ...(task.params ?? {}),
  };
  if (task.structured) {
    const structured = { ...params, output_config: { format: betaJSONSchemaOutputFormat(REPORT_SCHEMA) } };
    const message = task.stream
      ? await client.beta.messages.stream(structured).finalMessage()
      : await client.beta.messages.parse(structured);
    return { structured: message.parsed_output, message };
  }
  const tools = toolsOf(calls);
  const runner = client.beta.messages.toolRunner({
    ...params,
    tools: (task.tools ?? ["weather"]).map((name) => tools[name]),
    stream: task.stream ?? false,
  });
  let message;
  for await (const turn of runner) {
    message = task.stream ? await turn.finalMessage() : turn;
    if (task.kind === "changing") change(runner, tools, message);
  }
  const texts = message.content.filter((block) => block.type === "text").map((block) => block.text);
  return { text: texts.join(""), message };
});
