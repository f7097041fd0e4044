// Vercel's AI SDK (`ai`) with its provider for Anthropic.

import { load, REPORT_SCHEMA, serve } from "./lines.mjs";

const { generateText, jsonSchema, Output, stepCountIs, streamText, tool } = await load("ai");
const { createAnthropic } = await load("@ai-sdk/anthropic");

function toolsOf(calls) {
  const weather = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
  return {
    weather: tool({ description: "The weather of a city.", inputSchema: jsonSchema(weather), execute: calls.weather }),
    clock: tool({ description: "The time of day.", inputSchema: jsonSchema({ type: "object" }), execute: calls.clock }),
  };
}

await serve(async (task, calls) => {
  const anthropic = createAnthropic({ baseURL: `${task.url}/v1`, apiKey: "key" });
  const all = toolsOf(calls);
  const options = {
    model: anthropic(task.model ?? "local"),
    maxOutputTokens: 500,
    maxRetries: 0,
    prompt: task.prompt ?? "Hello",
    tools: Object.fromEntries((task.tools ?? ["weather"]).map((name) => [name, all[name]])),
    stopWhen: stepCountIs(5),
    ...(task.structured ? { output: Output.object({ schema: jsonSchema(REPORT_SCHEMA) }) } : {}),
    ...(task.params ?? {}),
  };
  if (!task.stream) {
    const result = await generateText(options);
    return { text: result.text, structured: task.structured ? result.output : null, finish: result.finishReason };
  }
  let failure = null;
  const result = streamText({ ...options, onError: ({ error }) => (failure = error) });
  await result.consumeStream();
  if (failure) throw failure;
  const structured = task.structured ? await result.output : null;
  return { text: await result.text, structured, finish: await result.finishReason };
});
