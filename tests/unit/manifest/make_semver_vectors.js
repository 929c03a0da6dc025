// Writes semver_vectors.txt from npm's own `semver` (7.8.6 made the file that is here): what it says of many ranges, versions and pairs,
// documented and random ones. The same seed gives the same file.
//   npm install --prefix FOLDER semver
//   NODE_PATH=FOLDER/node_modules node make_semver_vectors.js [ranges [seed]] > semver_vectors.txt
// Each line is a JSON array:
//   ["versions", [version…]]                  those that ranges are tried with
//   ["range", text, [index…], lowest, min]    the versions that satisfy it; the lowest that does of all that can be made of the numbers in
//                                             it (null: none does); minVersion, which misses many. [text, null] when it is no range
//   ["version", text, canonical, [prerelease…]]   how it is read; [text, null] when it is no version
//   ["order", a, b, -1 | 0 | 1]
// What Bulkhead refuses on purpose is left out: versions with a "v", "=" or blanks around them, which npm strips.
const semver = require('semver');
const count = Number(process.argv[2] || 2200);
let state = Number(process.argv[3] || 7);
const next = (n) => { state = (Math.imul(state, 1103515245) + 12345) >>> 0; return (state >>> 8) % n; };
const pick = (list) => list[next(list.length)];

const MAX = '9007199254740991';
const documented = [
  '', '*', '>=1.2.7', '>=1.2.7 <1.3.0', '1.2.7 || >=1.2.9 <2.0.0', '>1.2.3-alpha.3', '1.2.3 - 2.3.4', '1.2 - 2.3.4', '1.2.3 - 2.3', '1.2.3 - 2',
  '1.x', '1.2.x', '1', '1.2', '~1.2.3', '~1.2', '~1', '~0.2.3', '~0.2', '~0', '~1.2.3-beta.2', '^1.2.3', '^0.2.3', '^0.0.3', '^1.2.3-beta.2',
  '^0.0.3-beta', '^1.2.x', '^0.0.x', '^0.0', '^1.x', '^0.x', '~>1.2.3', '> 1.2', '>=1', '<=2.3', '<1.2.x', '>x', '<*', 'v1.2.3', '=1.2.3', '==1.2.3',
  '=v1.2.3', '>=v1.2.3', '1.2.3 1.2.4', '~ 1.2.3', '^ 1.2', '>=1.2.3-rc.1 <2', '<1.2.3-beta', '>=0.0.0', '1.2.3+build', '* || 1.2.3-beta.4',
  'x.1', '1.x.3', '^x.1', '1.2.3.4', '01.2.3', '1.2.3-01', 'latest', '>', '||', '>=1.0.0 || <0.5', '1 - 2 - 3', '^1.2.3 - 2', '1.2.3-', '>=1.2.3 foo',
  // Blanks of every kind, and where there are none.
  '  ^1.2.3  ', '\t>=1.2.7\n<1.3.0', '>=1.2.7  <1.3.0', '1.2.3  -  2.3.4', '1.2.3-2.3.4', '1.2.3 -2.3.4', '1.2.3- 2.3.4', '^1.2.3||~2.0.0', '|| ||',
  '1.2.3 |  | 2', '1.2.3 | 2', '> =1.2.3', '>= 1.2.3', '< = 2', '~> 1.2', '^\t1.2', '>\r\n1', '1.2.3,2.0.0', '1.2.3;2',
  // Numbers at and beyond what a double holds; texts that are too long.
  `^${MAX}`, `>=${MAX}.0.0`, `<${MAX}.${MAX}.${MAX}`, '^9007199254740992', `1.2.${MAX}`, `~1.2.${MAX}`, `^0.0.${MAX}`, '>=99999999999999999999.0.0',
  `1.2.3-${'a'.repeat(240)}`, `^1.2.3-${'a'.repeat(250)}`, `^1.2.3-${'a'.repeat(251)}`, `1.2.3+${'b'.repeat(240)}`, `~1.2.3+${'b'.repeat(270)}`,
  `1.2.3-${'a'.repeat(260)}`, `>=1.2.3-9999999999999999999999`, '1.2.3-beta.9007199254740993',
  // Nothing fits.
  '>2 <1', '>=1.0.0 <1.0.0', '>1.2.3 <1.2.4', '<0.0.0', '<0.0.0-0', '1.2.3 2.3.4', '^1 ^2', '~1.2 >=1.3', '>=2 <=1', '2 - 1', '>1.2.3 <1.2.3', '=1.2.3 >1.2.3',
  '>=1.2.3-beta <1.2.3', '>1.2.2 <1.2.3-beta', '>1.2.3-alpha <1.2.3-beta', '>1.2.3-beta <2', '<1.0.0-beta >=1.0.0-alpha', '>2 <1 || 3', '>2 <1 || <0.0.0',
  '1.2.3+a 1.2.3+b', '>=1.2.3+a <=1.2.3+b', '^1.2.3-beta.2 <1.2.3', '>1.0.0-0 <1.0.0', '1.2.3-0', '<1.2.3-0 >=1.2.3-0', '0.0.0', '0.0.0-0', '<=0.0.0-0', '<0.0.1-0',
];
const versions = [
  '0.0.0', '0.0.2', '0.0.3', '0.0.3-beta', '0.0.3-pr.2', '0.0.4', '0.1.0', '0.2.0', '0.2.3', '0.2.9', '0.3.0', '0.9.9', '1.0.0-alpha', '1.0.0', '1.1.9',
  '1.2.0', '1.2.3-alpha.3', '1.2.3-alpha.7', '1.2.3-beta', '1.2.3-beta.2', '1.2.3-beta.4', '1.2.3-beta.10', '1.2.3', '1.2.4-beta.2', '1.2.4', '1.2.7', '1.2.8', '1.2.9',
  '1.3.0-0', '1.3.0', '1.9.9', '2.0.0-0', '2.0.0-rc.1', '2.0.0', '2.3.4', '2.3.5', '2.4.0', '3.0.0', '3.4.5-alpha.9', '10.20.30', '0.0.0-0', '1.2.3+build.7',
  `${MAX}.0.0`, `1.2.${MAX}`,
];
const badVersions = [
  '', '1', '1.2', '1.2.x', '01.2.3', '1.02.3', '1.2.03', '1.2.3-', '1.2.3-01', '1.2.3-a..b', '1.2.3-.a', '1.2.3-a.', '1.2.3+', '1.2.3+a..b', '1.2.3+a+b', '1.2.3.4',
  '-1.2.3', '1.2.3-ä', '1.-2.3', '1.2.3-a b', '1,2,3', '1.2.3_1', '9007199254740992.0.0', '0.9007199254740992.0', '99999999999999999999.0.0', `1.2.3-${'a'.repeat(260)}`,
  '1.2.3-0a', '1.2.3-0.0a.00b', '1.2.3--', '1.2.3---.-', '1.2.3-1-1', '1.2.3+001', '1.2.3-x+001.-', '0.0.0-0+0', `1.2.3-${'a'.repeat(250)}`, `1.2.3+${'b'.repeat(250)}`,
  `${MAX}.${MAX}.${MAX}`, '1.2.3-9007199254740993', '1.2.3-99999999999999999999999', 'a.b.c', '1.2.3-beta!', '1.2.3 beta', '0x1.2.3', '1e3.0.0', '1.2.3-+b',
];
const part = () => pick(['0', '0', '1', '1', '2', '3', '9', 'x', '*', 'X']);
const partial = () => {
  let text = pick(['', '', '', '', 'v', '=']) + part();
  if (next(5) > 0) text += '.' + part();
  if (/\..$/.test(text) && next(4) > 0) {
    text += '.' + part();
    if (next(4) === 0) text += '-' + pick(['0', 'alpha', 'beta', 'beta.2', 'rc.1', 'alpha.3', '01', 'b-c']);
    if (next(12) === 0) text += '+' + pick(['b1', 'build.7']);
  }
  return text;
};
const comparator = () => pick(['', '', '^', '~', '>', '<', '>=', '<=', '=', '~>']) + pick(['', '', '', ' ', '\t']) + partial();
const set = () => {
  if (next(6) === 0) return partial() + ' - ' + partial();
  return Array.from({length: 1 + next(3)}, comparator).join(pick([' ', ' ', ' ', '  ', '\t', '\n']));
};
const range = () => pick(['', '', '', ' ']) + Array.from({length: next(4) ? 1 : 2 + next(2)}, set).join(pick([' || ', '||', ' ||\t']));
const identifier = () => pick(['0', '1', '9', '10', '100', 'a', 'b', 'alpha', 'beta', 'rc', 'A', 'x-y', '-', '0a', '1-0', '9007199254740993']);
const version = () => {
  let text = [0, 1, 2].map(() => pick(['0', '1', '2', '3', '9', '10', '11', '99', '1000', MAX])).join('.');
  if (next(2)) text += '-' + Array.from({length: 1 + next(3)}, identifier).join('.');
  if (next(4) === 0) text += '+' + Array.from({length: 1 + next(2)}, identifier).join('.');
  return text;
};
// A version with one thing about it changed, which mostly makes it none.
const spoilt = () => {
  const text = version(), at = next(text.length + 1);
  return pick([() => text.slice(0, at) + pick(['.', '-', '+', '0', 'x', '_', '..']) + text.slice(at), () => text.slice(0, at) + text.slice(at + 1),
               () => text.slice(0, at)])();
};

// Tried one by one, without any thought: each of its numbers and the one above in each place, each of its pre-releases and what
// follows right behind.
const lowestOf = (text) => {
  const read = new semver.Range(text);
  const bounds = read.set.flat().map((c) => c.semver).filter((v) => v.version !== undefined);
  const numbers = [...new Set([0, ...bounds.flatMap((v) => [v.major, v.minor, v.patch]).flatMap((n) => [n, n + 1])])]
    .filter((n) => n <= Number.MAX_SAFE_INTEGER).sort((a, b) => a - b);
  const tags = ['', '-0', ...new Set(bounds.filter((v) => v.prerelease.length).flatMap((v) => ['-' + v.prerelease.join('.'), '-' + [...v.prerelease, 0].join('.')]))];
  let lowest = null;
  for (const major of numbers) for (const minor of numbers) for (const patch of numbers) for (const tag of tags) {
    const version = `${major}.${minor}.${patch}${tag}`;
    if (version.length <= 256 && read.test(version) && (!lowest || semver.lt(version, lowest))) lowest = version;
  }
  return lowest;
};

const out = (...record) => console.log(JSON.stringify(record));
out('versions', versions);
const ranges = new Set(documented);
while (ranges.size < count) ranges.add(range());
for (const text of ranges) {
  if (semver.validRange(text) === null) { out('range', text, null); continue; }
  const min = semver.minVersion(text);
  out('range', text, versions.flatMap((v, i) => semver.satisfies(v, text) ? [i] : []), lowestOf(text), min && min.version);
}
const texts = new Set([...versions, ...badVersions]);
while (texts.size < 600) texts.add(next(2) ? version() : spoilt());
const good = [];
for (const text of texts) {
  if (/^[v=\s]|\s$/.test(text)) continue;
  const read = semver.parse(text);
  if (!read) { out('version', text, null); continue; }
  good.push(text);
  out('version', text, read.version, read.prerelease.map(String));
}
for (let i = 0; i < 800; ++i) {
  const a = pick(good), b = next(8) ? pick(good) : a;
  out('order', a, b, semver.compare(a, b));
}
