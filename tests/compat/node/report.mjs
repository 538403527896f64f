// How the Node.js programs tell scripts/compat what held. It knows nothing of any library.
//
// A program prints one line per scenario (`ok`, `FAIL` or `skip`, its name, why), and may ask for a new server.

import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";

export { sleep };
export const URL = process.env.REDIS_URL;

// Milliseconds for any one scenario; far more than a loaded machine needs.
const LIMIT = 60_000;

/** Thrown where the library cannot do it; the text says so. */
export class Skip extends Error {}

const answers = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

/** Resolves when the server behind REDIS_URL has ended and a new one listens on the same port. */
export async function restart() {
  console.log("restart");
  const { value } = await answers.next();
  if (value !== "restarted") throw new Error(`the runner said ${value}`);
}

/** Runs the scenarios one after the other, under the names of their functions, and ends the program. */
export async function run(...scenarios) {
  // Libraries tell of lost connections by events and by promises that nobody holds; the scenarios look at what counts.
  process.on("unhandledRejection", (error) => console.error("unhandled:", error));
  for (const scenario of scenarios) {
    const late = new AbortController();
    const limit = sleep(LIMIT, null, { signal: late.signal }).then(() => Promise.reject(new Error("took too long")));
    limit.catch(() => {});
    try {
      await Promise.race([scenario(), limit]);
      console.log("ok", scenario.name);
    } catch (error) {
      if (error instanceof Skip) {
        console.log("skip", scenario.name, error.message);
        continue;
      }
      console.error(scenario.name, error);
      const line = /\/(?!report)[a-z_]+\.mjs:(\d+)/.exec(error.stack ?? "")?.[1] ?? "?";
      console.log("FAIL", scenario.name, `line ${line}: ${String(error?.message ?? error).replace(/\s+/g, " ").slice(0, 300)}`);
    } finally {
      late.abort();
    }
  }
  process.exit(0);
}

/** Asks again and again until `ask` says yes. */
export async function until(ask) {
  while (!(await ask())) await sleep(10);
}
