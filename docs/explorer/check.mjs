// node docs/explorer/check.mjs: hold formulas.mjs to vectors.json; status 1 where they differ.
import { readFileSync } from "node:fs";
import { answer, check } from "./formulas.mjs";

const vectors = JSON.parse(readFileSync(process.argv[2] ?? new URL("vectors.json", import.meta.url)));
let wrong = 0;
for (const [i, { question, answer: expected }] of vectors.entries()) {
  check(question);
  const got = answer(question);
  for (const [name, value] of Object.entries(expected)) {
    if (JSON.stringify(got[name]) !== JSON.stringify(value)) {
      wrong += 1;
      console.error(`vector ${i}, ${name}: expected ${JSON.stringify(value)}, got ${JSON.stringify(got[name])}`);
    }
  }
}
console.log(`${vectors.length} vectors, ${wrong} differences`);
process.exitCode = wrong ? 1 : 0;
