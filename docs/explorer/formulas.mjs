// The numbers of the explorer: the formulas of dilated_attention_pytorch.{pattern,layout,cost} again.
// vectors.json holds them to the Python code; letters are those of theory/operator.md.

export const RULES = ["longnet", "torchscale", "head_groups"];
export const ORDERS = ["contiguous", "zigzag"];
export const LIMITS = { n: 65536, heads: 64, headDim: 256, ringSize: 64, branches: 8, work: 4e8 };

const ceilDiv = (a, b) => Math.ceil(a / b);

/** "32:1, 64:2" as [[w, r], ...]. */
export function parseBranches(text) {
  const branches = text.split(",").map((part) => {
    const match = /^\s*(\d+)\s*:\s*(\d+)\s*$/.exec(part);
    if (!match) throw new RangeError(`A branch is w:r, such as 64:2. Got "${part.trim()}".`);
    return [Number(match[1]), Number(match[2])];
  });
  return branches;
}

/** Throws a RangeError that says what is wrong with a question, if anything is. */
export function check(question) {
  const { branches, rule, n, heads, kvHeads, headDim, ringSize, order } = question;
  const whole = [
    ["n", n, 1, LIMITS.n],
    ["heads", heads, 1, LIMITS.heads],
    ["key/value heads", kvHeads, 1, heads],
    ["head dimension", headDim, 1, LIMITS.headDim],
    ["ranks R", ringSize, 1, LIMITS.ringSize],
    ["number of branches", branches.length, 1, LIMITS.branches],
    ...branches.flatMap(([w, r]) => [
      ["segment length w", w, 1, 2 ** 31],
      ["dilation rate r", r, 1, 2 ** 31],
    ]),
  ];
  for (const [name, value, least, most] of whole) {
    if (!Number.isInteger(value) || value < least || value > most) {
      throw new RangeError(`${name} must be a whole number from ${least} to ${most}.`);
    }
  }
  if (!RULES.includes(rule)) throw new RangeError(`Unknown rule ${rule}.`);
  if (!ORDERS.includes(order)) throw new RangeError(`Unknown order ${order}.`);
  if (heads % kvHeads) throw new RangeError("heads must be a multiple of key/value heads.");
  if (rule === "head_groups" && heads < branches.length) {
    throw new RangeError("Rule head_groups needs at least one head for each branch.");
  }
  const classes = keyClasses(question).length;
  if (ringSize > 1 && n * ringSize * branches.length * classes > LIMITS.work) {
    throw new RangeError("Too much for a page: take a smaller n or R, or fewer heads.");
  }
}

/** offsets[branch][head], null where the head takes no part. */
export function offsets({ branches, rule, heads }) {
  const all = [...Array(heads).keys()];
  if (rule === "longnet") return branches.map(([, r]) => all.map((h) => h % r));
  if (rule === "torchscale") {
    return branches.map(([, r]) => all.map((h) => Math.floor(h / ceilDiv(heads, r))));
  }
  const small = Math.floor(heads / branches.length);
  const larger = heads % branches.length;
  const groupOf = branches.flatMap((_, i) => Array(small + (i < larger ? 1 : 0)).fill(i));
  return branches.map(([, r], i) => groupOf.map((group) => (group === i ? i % r : null)));
}

/** C[p, k] of one head: in how many branches query p sees key k. */
export function multiplicity(question, table, head, p, k) {
  if (question.causal && k > p) return 0;
  let count = 0;
  question.branches.forEach(([w, r], i) => {
    const o = table[i][head];
    const chosen = o !== null && (p % w) % r === o && (k % w) % r === o;
    if (chosen && Math.floor(p / w) === Math.floor(k / w)) count += 1;
  });
  return count;
}

/** (query, key, head, branch) pairs that are scored, as a BigInt. */
export function visiblePairs(question) {
  let total = 0n;
  question.branches.forEach(([w, r], i) => {
    const row = offsets(question)[i].filter((o) => o !== null);
    for (const [length, segments] of [[w, Math.floor(question.n / w)], [question.n % w, 1]]) {
      for (const o of row) {
        const rows = BigInt(Math.max(0, ceilDiv(length - o, r)));
        total += BigInt(segments) * (question.causal ? (rows * (rows + 1n)) / 2n : rows * rows);
      }
    }
  });
  return total;
}

/** 4 d pairs forward, and 2.5 times that backward. */
export function flops(question) {
  const forward = 4n * BigInt(question.headDim) * visiblePairs(question);
  return { forward, backward: (forward * 5n) / 2n };
}

/** Rows of each rank, as even as possible. */
export function shardLengths({ n, ringSize }) {
  const small = Math.floor(n / ringSize);
  return [...Array(ringSize).keys()].map((rank) => small + (rank < n % ringSize ? 1 : 0));
}

/** owner[p]: the rank that holds row p. */
export function owners(question) {
  const owner = new Int32Array(question.n);
  let front = 0;
  let back = question.n;
  shardLengths(question).forEach((length, rank) => {
    const first = question.order === "zigzag" ? ceilDiv(length, 2) : length;
    owner.fill(rank, front, front + first);
    front += first;
    owner.fill(rank, back - (length - first), back);
    back -= length - first;
  });
  return owner;
}

/** Key/value heads whose rows are needed by the same queries: {heads, offsets[branch]}. */
export function keyClasses(question) {
  const group = question.heads / question.kvHeads;
  const table = offsets(question);
  const members = new Map();
  for (let g = 0; g < question.kvHeads; g += 1) {
    const used = table.map((row) => {
      const own = row.slice(g * group, (g + 1) * group).filter((o) => o !== null);
      return [...new Set(own)];
    });
    const name = JSON.stringify(used.map((own) => [...own].sort((a, b) => a - b)));
    if (!members.has(name)) members.set(name, { heads: [], offsets: used });
    members.get(name).heads.push(g);
  }
  return [...members.values()];
}

/** needed[p] is 1 where some query of rank `target` sees key p in some branch of the class. */
export function neededRows(question, owner, keyClass, target) {
  const { n, causal } = question;
  const needed = new Uint8Array(n);
  question.branches.forEach(([w, r], i) => {
    for (const o of keyClass.offsets[i]) {
      for (let start = 0; start < n; start += w) {
        const end = Math.min(start + w, n);
        let last = -1;
        for (let p = start + o; p < end; p += r) if (owner[p] === target) last = p;
        if (last < 0) continue;
        const stop = causal ? last + 1 : end;
        for (let p = start + o; p < stop; p += r) needed[p] = 1;
      }
    }
  });
  return needed;
}

/** rowHeads[target][source]: (row, key/value head) pairs that travel, each once. */
export function rowHeads(question) {
  const owner = owners(question);
  const size = question.ringSize;
  const moved = [...Array(size)].map(() => Array(size).fill(0));
  if (size === 1) return moved;
  for (const keyClass of keyClasses(question)) {
    for (let target = 0; target < size; target += 1) {
      neededRows(question, owner, keyClass, target).forEach((flag, p) => {
        if (flag && owner[p] !== target) moved[target][owner[p]] += keyClass.heads.length;
      });
    }
  }
  return moved;
}

const BUFFER_SHARDS = 2;

/** Row-heads in a piece that a rank with so many rows receives. */
function pieceCapacity(rows, kvHeads) {
  return Math.max(1, Math.floor((BUFFER_SHARDS * rows) / 2)) * kvHeads;
}

/** Row-heads that no message exceeds, from the pattern and the shard lengths alone. */
export function messageBound(question) {
  const lengths = shardLengths(question);
  const longest = Math.max(...lengths);
  const contiguous = question.order === "contiguous";
  const stretches = contiguous ? 1 : 2;
  const starts = lengths.map((_, rank) => lengths.slice(0, rank).reduce((a, b) => a + b, 0));
  let total = 0;
  for (const keyClass of keyClasses(question)) {
    let rows = 0;
    question.branches.forEach(([w, r], i) => {
      if (contiguous && starts.every((start) => start % w === 0)) return;
      const leaving = Math.min(longest, 2 * stretches * w);
      rows += keyClass.offsets[i].length * (Math.floor(leaving / r) + 2 * stretches + 1);
    });
    total += Math.min(rows, longest) * keyClass.heads.length;
  }
  return total;
}

/** Steps round the ring whose messages are used at once. */
export function stepsTogether(question) {
  const filled = shardLengths(question).filter((length) => length > 0);
  if (filled.length < 2) return 1;
  const room = pieceCapacity(Math.min(...filled), question.kvHeads);
  const most = Math.max(1, messageBound(question));
  return Math.min(Math.max(1, Math.floor(Math.floor(room / 4) / most)), question.ringSize - 1);
}

/** Row-heads that a rank receives at a time: a piece, or messages of several ranks. */
function groupsReceived(question, fromSource, rank, rows) {
  const size = question.ringSize;
  const steps = stepsTogether(question);
  const groups = [];
  for (let step = 1; step < size; step += 1) {
    if ((step - 1) % steps === 0) groups.push(0);
    groups[groups.length - 1] += fromSource[(rank - step + size) % size];
  }
  return groups.map((sum) => Math.min(pieceCapacity(rows, question.kvHeads), sum));
}

/** For each rank: rows held, row-heads got and sent, bytes sent, bytes held at the peak. */
export function ranks(question, moved = rowHeads(question)) {
  const { headDim, itemsize, heads, kvHeads } = question;
  const wide = itemsize === 8 ? 8 : 4;
  return shardLengths(question).map((rows, rank) => {
    const received = moved[rank].reduce((sum, x) => sum + x, 0);
    const sent = moved.reduce((sum, row) => sum + row[rank], 0);
    const row = 2 * headDim;
    const groups = groupsReceived(question, moved[rank], rank, rows);
    const most = 2 * headDim * Math.max(0, ...groups);
    const travelling = groups.length > 1 ? 4 * itemsize + 4 * wide : itemsize + 2 * wide;
    const query = rows * heads;
    const keys = rows * kvHeads;
    const rounded = itemsize === wide ? 0 : itemsize;
    const memory =
      (3 * query + 2 * keys) * headDim * itemsize +
      (query + 2 * keys) * headDim * (wide + rounded) +
      2 * query * wide +
      most * travelling;
    return {
      rows,
      received,
      sent,
      forwardBytes: sent * row * itemsize,
      backwardBytes: sent * row * itemsize + received * row * wide,
      memory,
    };
  });
}

/** Everything that vectors.json holds, in its form. */
export function answer(question) {
  const table = offsets(question);
  const side = Math.min(question.n, 48);
  const lines = [];
  for (let p = 0; p < side; p += 1) {
    let line = "";
    for (let k = 0; k < side; k += 1) line += multiplicity(question, table, question.head, p, k);
    lines.push(line);
  }
  const { forward, backward } = flops(question);
  const moved = rowHeads(question);
  return {
    offsets: table,
    mask: lines,
    pairs: String(visiblePairs(question)),
    forward_flops: String(forward),
    backward_flops: String(backward),
    row_heads: moved,
    ranks: ranks(question, moved).map((rank) => [
      rank.rows,
      rank.forwardBytes,
      rank.backwardBytes,
      rank.memory,
    ]),
  };
}
