// Writes cron_vectors.txt from npm's own `croner` (11.0.1 made the file that is here): the ticks of many expressions in many time zones, above all
// around the changes of their clocks. The same seed gives the same file, as long as tzdata says the same of these years.
//   npm install --prefix FOLDER croner
//   NODE_PATH=FOLDER/node_modules node make_cron_vectors.js [count [seed]] > cron_vectors.txt
// Each line is a JSON array: [expression, time zone, after, [tick…]], times as seconds since 1970, or [expression, null] when it is none.
// What is left out, on purpose:
//   - expressions that are croner's alone: L, W, #, seven fields, ranges that wrap around; and 5/10, which crontab(5) knows and croner does not
//   - fixed hours with several times a day where a clock changes: in a gap croner leaves all of them out, in an overlap it may run all twice; here
//     they run once, see cron.h
const {Cron} = require('croner');
const count = Number(process.argv[2] || 800);
let state = Number(process.argv[3] || 7);
const next = (n) => { state = (Math.imul(state, 1103515245) + 12345) >>> 0; return (state >>> 8) % n; };
const pick = (list) => list[next(list.length)];

const documented = [
  '* * * * *', '*/5 * * * *', '0 */6 * * *', '15,45 8-10/2 * * *', '0 9 * JAN-mar Mon-FRI', '0 0 13 * 5', '0 0 13 * ?', '0 0 ? * 1', '0 0 */2 * 1', '0 0 1-31 * 1',
  '0 0 29 2 *', '0 0 31 * *', '0 0 * * 0', '0 0 * * 7', '0 0 * * 6-7', '59 23 31 12 *', '*/20 * * * * *', '30 59 23 31 12 *', '0 30 2 * * *', '* * * * * *',
  '@hourly', '@daily', '@midnight', '@weekly', '@monthly', '@yearly', '@annually', '0 0 1 JAN,jul *', '0 12 * * MON,WED,FRI', '*/7 */5 */3 */2 *', '0-59/15 0-23/6 * * *',
];
const wrong = [
  '', '* * * *', '60 * * * *', '* 24 * * *', '* * 0 * *', '* * 32 * *', '* * * 0 *', '* * * 13 *', '* * * * 8', '60 * * * * *', '*/0 * * * *', 'a * * * *', '1,,2 * * * *',
  '* * * foo *', '* * * * bar', '*/x * * * *', '1- * * * *', '-5 * * * *', '1.5 * * * *', '* * * * mon-', '1,2, * * * *', '@often',
];
// A few days before and behind the changes of a clock, and days of no meaning.
const zones = {
  'UTC': ['2026-01-10T05:59:59Z', '2024-02-28T12:00:00Z', '2026-12-31T22:10:00Z'],
  'Europe/Berlin': ['2026-03-28T20:00:00Z', '2026-10-24T20:00:00Z', '2026-07-01T00:00:00Z'],
  'Europe/London': ['2026-03-28T20:00:00Z', '2026-10-24T20:00:00Z'],
  'America/New_York': ['2026-03-08T01:00:00Z', '2026-11-01T00:00:00Z', '2026-06-05T03:14:15Z'],
  'America/Los_Angeles': ['2027-03-14T04:00:00Z', '2027-11-07T03:00:00Z'],
  'America/Sao_Paulo': ['2018-11-03T20:00:00Z', '2019-02-16T18:00:00Z'],  // at midnight
  'Australia/Lord_Howe': ['2026-10-03T10:00:00Z', '2026-04-04T10:00:00Z'],  // by half an hour
  'Australia/Adelaide': ['2026-10-03T10:00:00Z', '2026-04-04T10:00:00Z'],
  'Asia/Kolkata': ['2026-01-10T00:00:00Z'], 'Asia/Kathmandu': ['2026-01-10T00:00:00Z'], 'Africa/Cairo': ['2026-04-23T18:00:00Z', '2026-10-29T16:00:00Z'],
};

const value = (min, max) => min + next(max - min + 1);
function item(min, max) {
  switch (next(5)) {
    case 0: return '*';
    case 1: return `*/${value(1, Math.max(2, (max - min) >> 1))}`;
    case 2: { const low = value(min, max); return `${low}-${value(low, max)}`; }
    case 3: { const low = value(min, max); return `${low}-${value(low, max)}/${value(1, 9)}`; }
    default: return String(value(min, max));
  }
}
const field = (min, max) => next(4) ? item(min, max) : [item(min, max), String(value(min, max))].filter((i) => i !== '*').join(',') || '*';
// Mostly small hours, where clocks change.
const hours = () => next(3) ? pick(['*', '*/2', '*/3', '1', '2', '3', '2,3', '1-3', '0', '0-4', '23', '1,2', '0,12']) : field(0, 23);
function expression() {
  const fields = [field(0, 59), hours(), next(3) ? '*' : field(1, 28), next(4) ? '*' : field(1, 12), next(3) ? '*' : field(0, 6)];
  if (next(4) === 0) fields.unshift(pick(['0', '30', '*/20', '0,59', '10-50/20']));
  return fields.join(' ');
}

const seconds = (date) => date.getTime() / 1000;
const offset = (time, zone) => {
  const parts = Object.fromEntries(new Intl.DateTimeFormat('en-GB', {timeZone: zone, hourCycle: 'h23', year: 'numeric', month: 'numeric', day: 'numeric', hour: 'numeric',
    minute: 'numeric', second: 'numeric'}).formatToParts(new Date(time * 1000)).map((part) => [part.type, Number(part.value)]));
  return Date.UTC(parts.year, parts.month - 1, parts.day, parts.hour, parts.minute, parts.second) / 1000 - time;
};
// Whether a clock changes between two times.
const changes = (from, to, zone) => { for (let t = from; t < to; t += 43200) if (offset(t + 43200, zone) !== offset(t, zone)) return true; return false; };
const fixedHour = (text) => { const f = text.split(/\s+/); return f.length > 1 && !/[*?/]/.test(f[f.length - 4]); };

function ticks(text, zone, after) {
  const cron = new Cron(text, {timezone: zone, paused: true});
  const found = [];
  for (let at = new Date(after); found.length < 6;) {
    at = cron.nextRun(at);
    if (!at || seconds(at) - seconds(new Date(after)) > 4.9 * 366 * 86400) break;
    found.push(seconds(at));
  }
  return found;
}

const lines = [];
const add = (text, zone, after) => {
  const found = ticks(text, zone, after);
  if (found.length === 0) return;
  const from = seconds(new Date(after));
  const fields = text.split(/\s+/);
  const several = [fields[fields.length - 4], fields[fields.length - 5], fields.length === 6 ? fields[0] : '0'].some((field) => !/^\d+$/.test(field));
  if (fixedHour(text) && several && changes(from, found[found.length - 1], zone)) return;
  lines.push([text, zone, from, found]);
};
for (const text of documented) for (const [zone, afters] of Object.entries(zones)) add(text, zone, pick(afters));
while (lines.length < count) {
  const zone = pick(Object.keys(zones));
  try { add(expression(), zone, pick(zones[zone])); } catch { }  // one that croner refuses and crontab(5) may know
}
for (const text of wrong) {
  let good = true;
  try { new Cron(text, {paused: true}); } catch { good = false; }
  if (!good) lines.push([text, null]);
}
for (const line of lines) console.log(JSON.stringify(line));
