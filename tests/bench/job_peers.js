// What jobs.py measures beside Bulkhead: graphile-worker and pg-boss, at plain settings and at their best ones. Prints one JSON object.
//   node job_peers.js graphile|graphile-tuned|pg-boss POSTGRES_URL throughput RUNS
//   node job_peers.js … latency RUNS      one at a time, each queued when the one before has begun, some milliseconds apart
const [peer, url, what, text] = process.argv.slice(2);
const runs = Number(text);
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
const now = () => Number(process.hrtime.bigint()) / 1e6;

// The moment that `count` handlers have begun since.
let begun = 0, waiter = null;
const handled = () => { begun++; if (waiter && begun >= waiter.count) { waiter.done(now()); waiter = null; } };
const beginOf = (count) => new Promise((done) => { if (begun >= count) done(now()); else waiter = {count, done}; });

async function graphile() {
  const {run, makeWorkerUtils} = require('graphile-worker');
  const tuned = peer === 'graphile-tuned';
  const utils = await makeWorkerUtils({connectionString: url});
  await utils.migrate();
  const worker = tuned
    ? {concurrentJobs: 24, maxPoolSize: 26, completeJobBatchDelay: 0, failJobBatchDelay: 0, localQueue: what === 'throughput' ? {size: 500} : undefined}
    : {concurrentJobs: 1};
  const preset = {worker: {connectionString: url, pollInterval: 2000, ...worker}};
  const quiet = new (require('graphile-worker').Logger)(() => () => {});
  return {
    add: (payload) => utils.addJob('task', payload),
    fill: (count) => utils.withPgClient((client) => client.query(
      "SELECT count(*) FROM graphile_worker.add_jobs((SELECT array_agg(('task', json_build_object('n', n), NULL, NULL, NULL, NULL, NULL, NULL)::graphile_worker.job_spec) FROM generate_series(1, $1::int) AS n))", [count])),
    start: async () => {
      const runner = await run({preset, logger: quiet, noHandleSignals: true, taskList: {task: async () => { handled(); }}});
      return () => runner.stop();
    },
    end: () => utils.release(),
  };
}

async function boss() {
  const PgBoss = require('pg-boss');
  const instance = new PgBoss({connectionString: url, max: 10});
  instance.on('error', (error) => console.error(error));
  await instance.start();
  await instance.createQueue('task');
  return {
    add: (payload) => instance.send('task', payload),
    fill: async (count) => {
      for (let first = 0; first < count; first += 1000)
        await instance.insert(Array.from({length: Math.min(1000, count - first)}, (_, i) => ({name: 'task', data: {n: first + i}})));
    },
    start: async () => {
      const ids = [];
      for (let i = 0; i < (what === 'throughput' ? 4 : 1); i++)
        ids.push(await instance.work('task', {batchSize: 500, pollingIntervalSeconds: 0.5}, async (jobs) => { for (const job of jobs) handled(job); }));
      return () => Promise.all(ids.map((id) => instance.offWork({id})));
    },
    end: () => instance.stop({graceful: false}),
  };
}

(async () => {
  const it = peer === 'pg-boss' ? await boss() : await graphile();
  const result = {};
  if (what === 'throughput') {
    await it.fill(runs);
    const from = now();
    const stop = await it.start();
    result.seconds = (await beginOf(runs) - from) / 1000;
    result.perSecond = runs / result.seconds;
    await stop();
  } else {
    const stop = await it.start();
    await sleep(1000);
    const took = [];
    for (let n = 1; n <= runs; n++) {
      const next = beginOf(n), from = now();
      await it.add({n});
      took.push(await next - from);
      await sleep(15);
    }
    took.sort((a, b) => a - b);
    result.p50 = took[took.length >> 1];
    result.p99 = took[Math.min(took.length - 1, Math.floor(took.length * 0.99))];
    await stop();
  }
  await it.end();
  console.log(JSON.stringify(result));
  process.exit(0);
})().catch((error) => { console.error(error); process.exit(1); });
