// Writes semver_vectors.txt from npm's own `semver`: what it says of many ranges, documented and random ones.
//   node make_semver_vectors.js [ranges [seed]] > semver_vectors.txt     (NODE_PATH must reach the package)
// Lines: range TAB "invalid", or range TAB each version that satisfies it among those of the first line.
const semver = require('semver');
const count = Number(process.argv[2] || 500);
let state = Number(process.argv[3] || 7);
const next = (n) => { state = (Math.imul(state, 1103515245) + 12345) >>> 0; return (state >>> 8) % n; };
const pick = (list) => list[next(list.length)];

const documented = [
  '', '*', '>=1.2.7', '>=1.2.7 <1.3.0', '1.2.7 || >=1.2.9 <2.0.0', '>1.2.3-alpha.3', '1.2.3 - 2.3.4', '1.2 - 2.3.4', '1.2.3 - 2.3', '1.2.3 - 2',
  '1.x', '1.2.x', '1', '1.2', '~1.2.3', '~1.2', '~1', '~0.2.3', '~0.2', '~0', '~1.2.3-beta.2', '^1.2.3', '^0.2.3', '^0.0.3', '^1.2.3-beta.2',
  '^0.0.3-beta', '^1.2.x', '^0.0.x', '^0.0', '^1.x', '^0.x', '~>1.2.3', '> 1.2', '>=1', '<=2.3', '<1.2.x', '>x', '<*', 'v1.2.3', '=1.2.3', '==1.2.3',
  '=v1.2.3', '>=v1.2.3', '1.2.3 1.2.4', '~ 1.2.3', '^ 1.2', '>=1.2.3-rc.1 <2', '<1.2.3-beta', '>=0.0.0', '1.2.3+build', '* || 1.2.3-beta.4',
  'x.1', '1.x.3', '^x.1', '1.2.3.4', '01.2.3', '1.2.3-01', 'latest', '>', '||', '>=1.0.0 || <0.5', '1 - 2 - 3', '^1.2.3 - 2', '1.2.3-', '>=1.2.3 foo',
];
const versions = [
  '0.0.0', '0.0.2', '0.0.3', '0.0.3-beta', '0.0.3-pr.2', '0.0.4', '0.1.0', '0.2.0', '0.2.3', '0.2.9', '0.3.0', '0.9.9', '1.0.0-alpha', '1.0.0', '1.1.9',
  '1.2.0', '1.2.3-alpha.3', '1.2.3-alpha.7', '1.2.3-beta', '1.2.3-beta.2', '1.2.3-beta.4', '1.2.3-beta.10', '1.2.3', '1.2.4-beta.2', '1.2.4', '1.2.7', '1.2.8', '1.2.9',
  '1.3.0-0', '1.3.0', '1.9.9', '2.0.0-0', '2.0.0-rc.1', '2.0.0', '2.3.4', '2.3.5', '2.4.0', '3.0.0', '3.4.5-alpha.9', '10.20.30',
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
const comparator = () => pick(['', '', '^', '~', '>', '<', '>=', '<=', '=', '~>']) + pick(['', '', '', ' ']) + partial();
const set = () => {
  if (next(6) === 0) return partial() + ' - ' + partial();
  return Array.from({length: 1 + next(3)}, comparator).join(' ');
};
const range = () => Array.from({length: next(4) ? 1 : 2 + next(2)}, set).join(pick([' || ', '||']));

console.log(versions.join(' '));
const seen = new Set();
for (const text of [...documented, ...Array.from({length: count}, range)]) {
  if (seen.has(text)) continue;
  seen.add(text);
  const valid = semver.validRange(text) !== null;
  console.log(text + '\t' + (valid ? versions.filter((v) => semver.satisfies(v, text)).join(' ') : 'invalid'));
}
