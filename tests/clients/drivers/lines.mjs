// What the JavaScript drivers share: tasks in, outcomes out, the tools, and packages of `.clients/`.

import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const need = createRequire(pathToFileURL(process.env.CLIENTS_FOLDER + "/"));

// A package of `.clients/`: an `import` would look for it beside this file.
export const load = (name) => import(pathToFileURL(need.resolve(name)));

export const REPORT_SCHEMA = {
  type: "object",
  properties: { city: { type: "string" }, degrees: { type: "integer" } },
  required: ["city", "degrees"],
  additionalProperties: false,
};

export class Calls {
  made = [];

  weather = ({ city }) => {
    this.made.push({ name: "weather", input: { city } });
    return `Sunny in ${city}`;
  };

  clock = () => {
    this.made.push({ name: "clock", input: {} });
    return "Noon";
  };
}

// Reads tasks until the standard input ends.
export async function serve(run) {
  for await (const line of createInterface({ input: process.stdin })) {
    const calls = new Calls();
    let outcome;
    try {
      outcome = await run(JSON.parse(line), calls);
    } catch (error) {
      outcome = { error: errorOf(error) };
    }
    process.stdout.write(JSON.stringify({ calls: calls.made, ...outcome }) + "\n");
  }
}

export function errorOf(error) {
  return { kind: error?.name, status: error?.status ?? error?.statusCode ?? null, message: String(error?.message) };
}
