/** What the tests ask of a packed model, in node and in a browser: tasks in, answers out. */

/** @param {Float32Array[]} arrays */
function base64(arrays) {
  let text = "";
  for (const array of arrays) {
    const bytes = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
    for (let i = 0; i < bytes.length; i += 32768) {
      text += String.fromCharCode(...bytes.subarray(i, i + 32768));
    }
  }
  return btoa(text);
}

const values = (trace) =>
  Object.entries(trace).map(([name, {data, shape}]) => [name, shape, base64([data])]);

const TASKS = {
  encode: ({model}, {texts, allowed}) => texts.map((text) => model.tokenizer.encode(text, allowed)),
  decode: ({model}, {ids}) => ids.map((some) => model.tokenizer.decode(some)),
  explain: ({model}, {texts}) =>
    texts.map((text) =>
      model.tokenizer.explain(text).map(({text, merges, ids}) => ({
        text,
        ids,
        merges: merges.map(({rank, at, left, right}) => [rank, at, [...left], [...right]]),
      })),
    ),
  trace: ({model}, {before, ids, last}) => {
    const cache = model.newCache();
    if (before.length) model.logits(before, {cache});
    return values(model.trace(ids, {cache, last}));
  },
  generate: ({model}, {ids, options}) => {
    const moments = [...model.generate(ids, options)];
    return {
      ids: moments.map((m) => m.id),
      text: moments.map((m) => m.text).join(""),
      finish: moments.at(-1)?.finish,
      logprobs: moments.map((m) => m.logprob),
      logits: base64(moments.map((m) => m.logits)),
    };
  },
  uncached: ({model}, {ids}) => {
    const options = {do_sample: false, max_new_tokens: 9, use_cache: false};
    return [...model.generate(ids, options)].map((m) => m.id);
  },
  branch: ({model}, {ids, at, id, n}) => {
    const cache = model.newCache(), options = {do_sample: false, max_new_tokens: n, cache};
    const first = [...model.generate(ids, options)];
    const other = [...ids, ...first.slice(0, at).map((m) => m.id), id];
    cache.truncate(other.length - 1);
    return [...model.generate(other, options)].map((m) => m.id);
  },
  patch: ({model}, {ids, name, keep}) => {
    const step = (n, {data, shape}) =>
      n === name ? {data: keep ? data.slice(0, keep) : data.map(() => 0), shape} : {data, shape};
    return base64([model.logits(ids, {step})]);
  },
  logits: ({model}, {ids}) => base64([model.logits(ids)]),
  distribution: ({decoding}, {logits, options}) =>
    base64([decoding.distribution(Float32Array.from(logits), decoding.settled(options))]),
  choose: ({decoding}, {probs, us}) => us.map((u) => decoding.choose(Float32Array.from(probs), u)),
  random: ({random}, {seed, n}) => {
    const generator = new random.Generator(BigInt(seed));
    return Array.from({length: n}, () => generator.random());
  },
  erf: ({ops}, {xs}) => xs.map(ops.erf),
};

/** Do all tasks; one that throws answers with its message. */
export async function run(scripts, file, tasks) {
  const load = (name) => import(`${scripts}/${name}.js`);
  const [{Model}, decoding, random, ops] = await Promise.all(
    ["model", "decoding", "random", "ops"].map(load),
  );
  const answer = (task) => {
    try {
      return task();
    } catch (error) {
      return {error: error.message};
    }
  };
  const model = answer(() => new Model(file));
  if (model.error) return [model];
  const known = {model, decoding, random, ops};
  return tasks.map(([name, task]) => answer(() => TASKS[name](known, task)));
}
