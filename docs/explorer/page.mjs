// The explorer's form, pictures and tables; every number is from formulas.mjs.
import * as formulas from "./formulas.mjs";

const SIDE = 96;
const root = document.getElementById("explorer");
const field = (name) => root.querySelector(`[name="${name}"]`);
const place = (name) => root.querySelector(`[data-show="${name}"]`);

const PRESETS = {
  small: { branches: "16:1, 32:2, 64:4", rule: "longnet", n: 96, heads: 4, kvHeads: 4 },
  paper: {
    branches: "2048:1, 4096:2, 8192:4, 16384:6, 32768:12",
    rule: "longnet", n: 32768, heads: 12, kvHeads: 12,
  },
  gigapath: {
    branches: "1024:1, 5792:2, 32768:4, 185363:8, 1048576:16",
    rule: "torchscale", n: 10001, heads: 16, kvHeads: 16,
  },
};

function question() {
  const number = (name) => Number(field(name).value.trim() || NaN);
  return {
    branches: formulas.parseBranches(field("branches").value),
    rule: field("rule").value,
    n: number("n"),
    heads: number("heads"),
    kvHeads: number("kvHeads"),
    headDim: number("headDim"),
    itemsize: number("itemsize"),
    ringSize: number("ringSize"),
    order: field("order").value,
    causal: field("causal").checked,
  };
}

/** The head, rank and first row shown; a field that has become too large is set to the last one. */
function view(asked) {
  const within = (name, most) => {
    const value = Number(field(name).value.trim() || NaN);
    if (!Number.isInteger(value) || value < 0) {
      throw new RangeError(`${field(name).dataset.label} must be a whole number from 0.`);
    }
    if (value > most) field(name).value = most;
    return Math.min(value, most);
  };
  return {
    head: within("head", asked.heads - 1),
    rank: within("rank", asked.ringSize - 1),
    first: within("first", asked.n - 1),
  };
}

const grouped = (value) => value.toLocaleString("en-US");
const color = (name) => getComputedStyle(root).getPropertyValue(`--explorer-${name}`).trim();

function drawMask(asked, shown, owner) {
  const canvas = place("mask");
  const side = Math.min(SIDE, asked.n - shown.first);
  const cell = Math.floor(768 / side);
  canvas.width = canvas.height = cell * side;
  const pen = canvas.getContext("2d");
  const table = formulas.offsets(asked);
  const shades = ["none", "one", "two", "more"].map(color);
  const ownRow = color("own");
  let seen = 0;
  for (let y = 0; y < side; y += 1) {
    const p = shown.first + y;
    for (let x = 0; x < side; x += 1) {
      const k = shown.first + x;
      const count = formulas.multiplicity(asked, table, shown.head, p, k);
      seen += count;
      pen.fillStyle = count === 0 && owner[p] === shown.rank ? ownRow : shades[Math.min(count, 3)];
      const gap = cell > 4 ? 1 : 0;
      pen.fillRect(x * cell, y * cell, cell - gap, cell - gap);
    }
  }
  const last = shown.first + side - 1;
  canvas.setAttribute(
    "aria-label",
    `Mask of head ${shown.head}, rows and keys ${shown.first} to ${last}: ${seen} pairs are seen.`,
  );
  place("span").textContent =
    `Rows (down) and keys (across) ${shown.first} to ${last} of ${asked.n}, head ${shown.head}.`;
  canvas.onpointermove = (event) => {
    const box = canvas.getBoundingClientRect();
    const at = (value, size) => Math.min(side - 1, Math.max(0, Math.floor((value / size) * side)));
    const p = shown.first + at(event.clientY - box.top, box.height);
    const k = shown.first + at(event.clientX - box.left, box.width);
    const count = formulas.multiplicity(asked, table, shown.head, p, k);
    const verb = count ? `sees key ${k} in ${count} branch${count > 1 ? "es" : ""}` : `does not see key ${k}`;
    place("pointed").textContent = `Query ${p} (rank ${owner[p]}) ${verb} (rank ${owner[k]}).`;
  };
}

/** One bar for the sequence: what the chosen rank holds, needs for some head, and does not need. */
function drawStrip(asked, shown, owner) {
  const canvas = place("strip");
  const bins = Math.min(asked.n, 768);
  canvas.width = bins;
  canvas.height = 1;
  const needed = new Uint8Array(asked.n);
  if (asked.ringSize > 1) {
    for (const keyClass of formulas.keyClasses(asked)) {
      formulas.neededRows(asked, owner, keyClass, shown.rank).forEach((flag, p) => {
        needed[p] |= flag;
      });
    }
  }
  const pen = canvas.getContext("2d");
  let away = 0;
  for (let bin = 0; bin < bins; bin += 1) {
    const start = Math.floor((bin * asked.n) / bins);
    const stop = Math.max(start + 1, Math.floor(((bin + 1) * asked.n) / bins));
    let own = false;
    let wanted = false;
    for (let p = start; p < stop; p += 1) {
      own ||= owner[p] === shown.rank;
      wanted ||= Boolean(needed[p]) && owner[p] !== shown.rank;
      away += needed[p] && owner[p] !== shown.rank ? 1 : 0;
    }
    pen.fillStyle = color(own ? "held" : wanted ? "needed" : "none");
    pen.fillRect(bin, 0, 1, 1);
  }
  const held = owner.reduce((sum, rank) => sum + (rank === shown.rank ? 1 : 0), 0);
  const text = `Rank ${shown.rank} holds ${grouped(held)} rows and needs ${grouped(away)} rows of other ranks.`;
  canvas.setAttribute("aria-label", text);
  place("needs").textContent = text;
}

function fillTable(name, rows) {
  place(name).replaceChildren(
    ...rows.map(([head, ...cells]) => {
      const line = document.createElement("tr");
      const title = document.createElement("th");
      title.scope = "row";
      title.textContent = head;
      line.append(title, ...cells.map((text) => Object.assign(document.createElement("td"), { textContent: text })));
      return line;
    }),
  );
}

function update() {
  const message = place("error");
  try {
    const asked = question();
    formulas.check(asked);
    const shown = view(asked);
    const owner = formulas.owners(asked);
    const moved = formulas.rowHeads(asked);
    const { forward, backward } = formulas.flops(asked);
    const pairs = formulas.visiblePairs(asked);
    const dense = BigInt(asked.heads) * BigInt(asked.n) * BigInt(asked.n);
    const share = Number((pairs * 1000000n) / dense) / 10000;
    fillTable("totals", [
      ["(query, key, head, branch) pairs", grouped(pairs)],
      ["FLOPs forward", grouped(forward)],
      ["FLOPs backward", grouped(backward)],
      ["share of dense attention's FLOPs, not causal", `${share.toFixed(2)} %`],
    ]);
    const ranks = formulas.ranks(asked, moved);
    fillTable(
      "ranks",
      ranks.map((rank, i) => [
        String(i), grouped(rank.rows), grouped(rank.received), grouped(rank.forwardBytes),
        grouped(rank.backwardBytes), grouped(rank.memory),
      ]),
    );
    drawMask(asked, shown, owner);
    drawStrip(asked, shown, owner);
    message.textContent = "";
    root.dataset.state = "ready";
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    message.textContent = error.message;
    root.dataset.state = "refused";
  }
}

root.addEventListener("input", (event) => {
  if (event.target.name === "preset") {
    const chosen = PRESETS[event.target.value];
    for (const [name, value] of Object.entries(chosen)) field(name).value = value;
    for (const name of ["head", "first"]) field(name).value = 0;
  }
  update();
});
root.addEventListener("submit", (event) => event.preventDefault());
// Pictures take their colours from the scheme, which Material writes on the body.
new MutationObserver(update).observe(document.body, { attributeFilter: ["data-md-color-scheme"] });
update();
